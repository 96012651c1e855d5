"""HNSW graphs over a slab's codes: built and grown beside the searches, never under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.vectors.kernel import Kernel, load_faiss

NEIGHBOURS = 32
EF_CONSTRUCTION = 100
_CHUNK = 512
# FAISS prepares tables for this many levels at 32 neighbours; a row on a seventh would need 10^9 others.
_MOST_LEVELS = 6


@dataclass(frozen=True, slots=True)
class Links:
    """What FAISS keeps of a graph, as plain arrays.

    Attributes:
        levels: On how many levels each row is, at least 1.
        neighbours: The links of row 0, of row 1 and so on: 64 on the ground, 32 on each level above; -1 for none.
        entry: The row where searches begin.
        top: The highest level, from 0.
    """

    levels: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    entry: int
    top: int

    @property
    def offsets(self) -> NDArray[np.uint64]:
        """Where the links of each row begin, and the end of the last."""
        out = np.zeros(len(self.levels) + 1, dtype=np.uint64)
        np.cumsum(NEIGHBOURS * (self.levels.astype(np.uint64) + np.uint64(1)), out=out[1:])
        return out

    def check(self) -> None:
        """Refuses links that lead out of the graph.

        Raises:
            SnapshotError: FAISS would read outside of its arrays when it followed them.
        """
        levels, neighbours, rows = self.levels, self.neighbours, len(self.levels)
        good = (
            rows > 0
            and levels.min() >= 1
            and levels.max() <= _MOST_LEVELS
            and self.entry < rows
            and self.top + 1 == levels.max() == levels[self.entry]
            and int(self.offsets[-1]) == len(neighbours)
            and neighbours.min(initial=-1) >= -1
            and neighbours.max(initial=-1) < rows
        )
        if not good:
            raise SnapshotError("The graph's snapshot holds no graph; it is rebuilt.")
        begins = self.offsets[:-1].astype(np.int64)
        for level in range(1, self.top + 1):
            inside = begins[levels > level] + NEIGHBOURS * (level + 1)
            linked = neighbours[inside[:, None] + np.arange(NEIGHBOURS)]
            # A link on a level must lead to a row that is on that level.
            if (levels[linked[linked >= 0]] <= level).any():
                raise SnapshotError("The graph's snapshot has links across levels; it is rebuilt.")

    def ground(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """The links of `rows` on the ground, shape (len(rows), 64)."""
        begins = self.offsets[rows].astype(np.int64)
        found: NDArray[np.int32] = self.neighbours[begins[:, None] + np.arange(2 * NEIGHBOURS)]
        return found


class Graph:
    """An HNSW graph over the first `rows` vectors of a slab; never changed once it is made.

    FAISS cannot search while it adds. Growing therefore makes a new graph, and searches keep the one they hold. The
    vectors are not in here: FAISS reads the slab's own float16 codes, so a distance is the one an exact scan gives.
    """

    def __init__(self, kernel: Kernel, index: Any, codes: NDArray[np.float16]) -> None:
        faiss = load_faiss()
        self.rows = len(codes)
        self._kernel = kernel
        self._ptr = faiss.swig_ptr
        self._make_parameters = faiss.SearchParametersHNSW
        self._parameters: dict[int, Any] = {}
        self._index = index
        # The storage is a view of `codes`, which therefore must live as long as the index.
        self._codes = codes
        storage = _storage(kernel)
        storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(codes.view(np.uint8).reshape(-1)), codes.nbytes, faiss.MaybeOwnedVectorUInt8().owner
        )
        storage.ntotal = len(codes)
        _attach(index, storage)

    @property
    def nbytes(self) -> int:
        """Bytes of the links; the vectors are the slab's."""
        return int(self._index.hnsw.neighbors.size()) * 4 + self.rows * 12

    def search(self, query: NDArray[np.float32], asked: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """About the `asked` nearest vectors and their raw scores."""
        parameters = self._parameters.get(asked)
        if parameters is None:
            parameters = self._parameters[asked] = self._make_parameters(efSearch=asked)
        distances = np.empty(asked, dtype=np.float32)
        rows = np.empty(asked, dtype=np.int64)
        ptr = self._ptr
        self._index.search_c(1, ptr(query), asked, ptr(distances), ptr(rows), parameters)
        if rows[-1] < 0:
            real = rows >= 0
            distances, rows = distances[real], rows[real]
        return rows, self._kernel.raw(distances)

    def grown(self, codes: NDArray[np.float16], *, stop: Callable[[], bool]) -> Graph | None:
        """A graph over `codes`, of which this one holds the first; or None when `stop` said so in between."""
        faiss = load_faiss()
        index = faiss.clone_index(self._index)
        storage = _storage(self._kernel)
        storage.add_sa_codes(codes[: self.rows].view(np.uint8))
        _attach(index, storage)
        return _add(self._kernel, index, codes, self.rows, stop)

    def links(self) -> Links:
        """A copy of the links."""
        faiss = load_faiss()
        hnsw = self._index.hnsw
        neighbours = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size()).copy()
        return Links(faiss.vector_to_array(hnsw.levels), neighbours, int(hnsw.entry_point), int(hnsw.max_level))


def build(kernel: Kernel, codes: NDArray[np.float16], *, stop: Callable[[], bool]) -> Graph | None:
    """A graph over `codes`, or None when `stop` said so in between."""
    index = _empty_index(kernel)
    _attach(index, _storage(kernel))
    return _add(kernel, index, codes, 0, stop)


def restore(kernel: Kernel, links: Links, codes: NDArray[np.float16]) -> Graph:
    """The graph of `links`, which were checked, over `codes`."""
    faiss = load_faiss()
    index = _empty_index(kernel)
    hnsw = index.hnsw
    faiss.copy_array_to_vector(np.ascontiguousarray(links.levels, dtype=np.int32), hnsw.levels)
    faiss.copy_array_to_vector(links.offsets, hnsw.offsets)
    hnsw.neighbors.resize(len(links.neighbours))
    faiss.rev_swig_ptr(hnsw.neighbors.data(), len(links.neighbours))[:] = links.neighbours
    hnsw.entry_point = links.entry
    hnsw.max_level = links.top
    index.ntotal = len(codes)
    return Graph(kernel, index, codes)


def _add(kernel: Kernel, index: Any, codes: NDArray[np.float16], start: int, stop: Callable[[], bool]) -> Graph | None:
    faiss = load_faiss()
    # For this thread only: one core, no OpenMP team that a later fork would find dead.
    faiss.omp_set_num_threads(1)
    for begin in range(start, len(codes), _CHUNK):
        if stop():
            return None
        index.add(codes[begin : begin + _CHUNK].astype(np.float32))
    return Graph(kernel, index, codes)


def _empty_index(kernel: Kernel) -> Any:
    faiss = load_faiss()
    index = faiss.IndexHNSW(kernel.dims, NEIGHBOURS, kernel.faiss_metric)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def _attach(index: Any, storage: Any) -> None:
    """Makes `storage` the index's own, to be freed with it, and frees the one it had."""
    if index.own_fields:
        index.storage.thisown = True
    index.storage = storage
    storage.thisown = False
    index.own_fields = True


def _storage(kernel: Kernel) -> Any:
    faiss = load_faiss()
    storage = faiss.IndexScalarQuantizer(kernel.dims, faiss.ScalarQuantizer.QT_fp16, kernel.faiss_metric)
    storage.is_trained = True
    return storage
