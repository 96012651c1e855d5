"""Exact scores of one query against float16 codes: the innermost loops, done by FAISS without any copy of the codes.

The scanners of `faiss.ScalarQuantizer` are used directly. They read the slab's own memory, run in the calling thread
(no OpenMP team, no BLAS: a threaded matrix product needs 45 ms where this takes .1) and release the GIL. A scanner has
its query, so each thread has its own, and keeps it: FAISS's Python side cannot free one without breaking its types.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.types import Metric

CODE = np.dtype("<f2")

_GATHER_CHUNK = 4096
_TINY, _HUGE = 1e-30, 1e32
_ROUNDING = 1e-6
_LEAST, _MOST = np.array(-1, np.float32), np.array(1, np.float32)


def load_faiss() -> Any:
    """The module `faiss`, untyped: its stubs leave out the scanners and most of what is needed here."""
    import faiss

    return faiss


@cache
def kernel_for(dims: int, metric: Metric) -> Kernel:
    """The kernel of that size and metric, one for all slabs: its threads' scanners are never freed."""
    return Kernel(dims=dims, metric=metric)


class Kernel:
    """Scans codes for one metric and size.

    Scores here are `raw`: higher is nearer, the inner product or the negated squared distance. `finish` turns them
    into what callers see.
    """

    def __init__(self, *, dims: int, metric: Metric) -> None:
        faiss = load_faiss()
        self.dims = dims
        self.metric: Metric = metric
        self._ptr = faiss.swig_ptr
        self._faiss = faiss
        self._quantizer = faiss.ScalarQuantizer(dims, faiss.ScalarQuantizer.QT_fp16)
        self._scanners = threading.local()
        self.faiss_metric: int = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
        self._worst = np.float32(np.inf if metric == "euclidean" else -np.inf)

    def prepare(self, query: ArrayLike) -> NDArray[np.float32]:
        """The query as the scanners need it: contiguous float32, normalised for cosine; a zero query stays zero."""
        try:
            vector = np.ascontiguousarray(query, dtype=np.float32)
            square = float(np.vdot(vector, vector))
        except (TypeError, ValueError, OverflowError, RuntimeWarning) as problem:
            raise InvalidInput(f"The query vector is no list of numbers ({problem}): check the embedder.") from problem
        if vector.shape != (self.dims,):
            raise InvalidInput(
                f"The query vector has shape {vector.shape}, this store holds vectors of {self.dims} dimensions: "
                "embed the query with the embedder that the store was written with."
            )
        if not _TINY < square < _HUGE:
            vector = self._tamed(vector)
            square = float(np.dot(vector, vector))
        # Most embedders give unit vectors; dividing one changes nothing but rounding.
        if self.metric == "cosine" and square > 0.0 and abs(square - 1.0) > _ROUNDING:
            vector = vector / square**0.5
        return vector

    def _tamed(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A query whose square float32 cannot hold well, scaled for cosine; the other metrics take no long one."""
        largest = np.abs(vector).max()
        if not np.isfinite(largest):
            raise InvalidInput("The query vector has NaN or infinite numbers: check the embedder.")
        if self.metric == "cosine":
            return vector / largest if largest > 0.0 else vector
        if largest > 1.0:
            # Rows whose score overflows would silently be missing from the answer.
            raise InvalidInput(f"The query vector has numbers as large as {largest:.0e}: check the embedder.")
        return vector

    def finish(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores that callers see: cosine within [-1, 1], the inner product, or the negated distance."""
        if self.metric == "cosine":
            return np.minimum(np.maximum(raw, _LEAST), _MOST)
        if self.metric == "euclidean":
            return -np.sqrt(np.maximum(-raw, np.float32(0)))
        return raw

    def raw(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """FAISS's distances as raw scores."""
        return -distances if self.metric == "euclidean" else distances

    def top(
        self, query: NDArray[np.float32], codes: NDArray[np.float16], k: int, keep: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `k` best rows of `codes` (only those in `keep`) and their raw scores, in no order; all of fewer."""
        distances, rows = self._heap(k)
        selector = None
        if keep is not None:
            bits = np.packbits(keep, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(len(keep), self._ptr(bits))
        scanner = self._scanner("plain" if selector is None else "selecting", query, selector)
        self._scan(scanner, codes, distances, rows, k)
        return self._filled(distances, rows)

    def gather(
        self, query: NDArray[np.float32], codes: NDArray[np.float16], rows: NDArray[np.intp], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Like `top` for the given rows, copied together in chunks; what it takes does not grow with `codes`."""
        distances, gathered = self._heap(k)
        scanner = self._scanner("gathering", query)
        for number, start in enumerate(range(0, len(rows), _GATHER_CHUNK)):
            # FAISS labels a row (list << 32 | offset): the chunk's number as list tells the chunks apart in one heap.
            scanner.set_list(number, 0.0)
            self._scan(scanner, codes[rows[start : start + _GATHER_CHUNK]], distances, gathered, k)
        gathered, raw = self._filled(distances, gathered)
        return rows[(gathered >> 32) * _GATHER_CHUNK + (gathered & 0xFFFFFFFF)], raw

    def every(self, query: NDArray[np.float32], codes: NDArray[np.float16]) -> NDArray[np.float32]:
        """The raw score of every row of `codes`, in their order."""
        out = np.full(len(codes), self._worst, dtype=np.float32)
        if len(codes):
            result = self._faiss.RangeSearchResult(1)
            partial = self._faiss.RangeSearchPartialResult(result)
            scanner = self._scanner("plain", query)
            ptr = self._ptr(codes.view(np.uint8))
            scanner.scan_codes_range(len(codes), ptr, None, float(self._worst), partial.new_result(0))
            partial.finalize()
            count = int(self._faiss.rev_swig_ptr(result.lims, 2)[1])
            if count:
                rows = self._faiss.rev_swig_ptr(result.labels, count)
                out[rows] = self._faiss.rev_swig_ptr(result.distances, count)
        return self.raw(out)

    def _scanner(self, name: str, query: NDArray[np.float32], selector: Any = None) -> Any:
        scanner = getattr(self._scanners, name, None)
        if scanner is None:
            # FAISS makes one with a test of the selector in its loop, or without; which selector that is may change.
            scanner = self._quantizer.select_InvertedListScanner(self.faiss_metric, None, True, selector, False)
            scanner.set_list(0, 0.0)
            setattr(self._scanners, name, scanner)
        elif selector is not None:
            scanner.sel = selector
        scanner.set_query(self._ptr(query))
        return scanner

    def _heap(self, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        distances, rows = np.empty(k, np.float32), np.empty(k, np.int64)
        distances.fill(self._worst)
        rows.fill(-1)
        return distances, rows

    def _scan(
        self, scanner: Any, codes: NDArray[np.float16], distances: NDArray[np.float32], rows: NDArray[np.int64], k: int
    ) -> None:
        if len(codes):
            ptr = self._ptr
            scanner.scan_codes(len(codes), ptr(codes.view(np.uint8)), None, ptr(distances), ptr(rows), k)

    def _filled(
        self, distances: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        # The worst lies on top of a heap, and a place that was not filled is worse than any row.
        if rows[0] < 0:
            real = rows >= 0
            distances, rows = distances[real], rows[real]
        return rows, self.raw(distances)
