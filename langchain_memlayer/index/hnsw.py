"""HNSW graphs over a slab's codes: built and grown beside the searches, never under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index.copies import Copies, checksums
from langchain_memlayer.index.kernel import Kernel, load_faiss

NEIGHBOURS = 32
EF_CONSTRUCTION = 100
_CHUNK = 512
# FAISS prepares tables for this many levels at 32 neighbours; a row on a seventh would need 10^9 others.
_MOST_LEVELS = 6


@dataclass(frozen=True, slots=True)
class Links:
    """What FAISS keeps of a graph, as plain arrays.

    Attributes:
        levels: On how many levels each node is, at least 1.
        neighbours: The links of node 0, of node 1 and so on: 64 on the ground, 32 on each level above; -1 for none.
        entry: The node where searches begin.
        top: The highest level, from 0.
    """

    levels: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    entry: int
    top: int

    @property
    def offsets(self) -> NDArray[np.uint64]:
        """Where the links of each node begin, and the end of the last."""
        out = np.zeros(len(self.levels) + 1, dtype=np.uint64)
        np.cumsum(NEIGHBOURS * (self.levels.astype(np.uint64) + np.uint64(1)), out=out[1:])
        return out

    def check(self) -> None:
        """Refuses links that lead out of the graph.

        Raises:
            SnapshotError: FAISS would read outside of its arrays when it followed them.
        """
        levels, neighbours, nodes = self.levels, self.neighbours, len(self.levels)
        good = (
            nodes > 0
            and levels.min() >= 1
            and levels.max() <= _MOST_LEVELS
            and self.entry < nodes
            and self.top + 1 == levels.max() == levels[self.entry]
            and int(self.offsets[-1]) == len(neighbours)
            and neighbours.min(initial=-1) >= -1
            and neighbours.max(initial=-1) < nodes
        )
        if not good:
            raise SnapshotError("The graph's snapshot holds no graph; it is rebuilt.")
        begins = self.offsets[:-1].astype(np.int64)
        for level in range(1, self.top + 1):
            inside = begins[levels > level] + NEIGHBOURS * (level + 1)
            linked = neighbours[inside[:, None] + np.arange(NEIGHBOURS)]
            # A link on a level must lead to a node that is on that level.
            if (levels[linked[linked >= 0]] <= level).any():
                raise SnapshotError("The graph's snapshot has links across levels; it is rebuilt.")

    def ground(self, nodes: NDArray[np.int64]) -> NDArray[np.int32]:
        """The links of `nodes` on the ground, shape (len(nodes), 64)."""
        begins = self.offsets[nodes].astype(np.int64)
        found: NDArray[np.int32] = self.neighbours[begins[:, None] + np.arange(2 * NEIGHBOURS)]
        return found


class Graph:
    """An HNSW graph over the first `rows` vectors of a slab; never changed once it is made.

    FAISS cannot search while it adds. Growing therefore makes a new graph, and searches keep the one they hold. The
    vectors are not in here: FAISS reads the slab's own float16 codes, so a distance is the one an exact scan gives.
    Only when rows are equal, and thus one node, has it codes of its own.

    Attributes:
        rows: How many rows of the slab it holds.
        copies: Which of them are equal.
    """

    def __init__(self, kernel: Kernel, index: Any, codes: NDArray[np.float16], copies: Copies) -> None:
        faiss = load_faiss()
        self.rows = len(copies.sums)
        self.copies = copies
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
        """Bytes of the links, and of the codes that are not the slab's."""
        own = self._codes.nbytes if self.copies.several else 0
        return int(self._index.hnsw.neighbors.size()) * 4 + len(self.copies) * 12 + self.copies.nbytes + own

    def search(self, query: NDArray[np.float32], asked: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """About the `asked` nearest vectors, with all that are equal to them, and their raw scores."""
        parameters = self._parameters.get(asked)
        if parameters is None:
            parameters = self._parameters[asked] = self._make_parameters(efSearch=asked)
        distances = np.empty(asked, dtype=np.float32)
        nodes = np.empty(asked, dtype=np.int64)
        ptr = self._ptr
        self._index.search_c(1, ptr(query), asked, ptr(distances), ptr(nodes), parameters)
        if nodes[-1] < 0:
            real = nodes >= 0
            distances, nodes = distances[real], nodes[real]
        return self.copies.spread(nodes, self._kernel.raw(distances))

    def grown(self, codes: NDArray[np.float16], *, stop: Callable[[], bool]) -> Graph | None:
        """A graph over `codes`, of which this one holds the first; or None when `stop` said so in between."""
        faiss = load_faiss()
        index = faiss.clone_index(self._index)
        storage = _storage(self._kernel)
        storage.add_sa_codes(self._codes.view(np.uint8))
        _attach(index, storage)
        copies = Copies.of(np.concatenate((self.copies.sums, checksums(codes[self.rows :]))))
        return _add(self._kernel, index, codes, copies, len(self.copies), stop)

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
    return _add(kernel, index, codes, Copies.of(checksums(codes)), 0, stop)


def restore(kernel: Kernel, links: Links, codes: NDArray[np.float16], copies: Copies) -> Graph:
    """The graph of `links`, which were checked, over the rows with these `codes`."""
    faiss = load_faiss()
    index = _empty_index(kernel)
    hnsw = index.hnsw
    faiss.copy_array_to_vector(np.ascontiguousarray(links.levels, dtype=np.int32), hnsw.levels)
    faiss.copy_array_to_vector(links.offsets, hnsw.offsets)
    hnsw.neighbors.resize(len(links.neighbours))
    faiss.rev_swig_ptr(hnsw.neighbors.data(), len(links.neighbours))[:] = links.neighbours
    hnsw.entry_point = links.entry
    hnsw.max_level = links.top
    index.ntotal = len(copies)
    return Graph(kernel, index, copies.codes(codes), copies)


def _add(
    kernel: Kernel, index: Any, rows: NDArray[np.float16], copies: Copies, start: int, stop: Callable[[], bool]
) -> Graph | None:
    """The graph of `index`, which has the first `start` nodes, with the others added."""
    faiss = load_faiss()
    codes = copies.codes(rows)
    # For this thread only: one core, no OpenMP team that a later fork would find dead.
    faiss.omp_set_num_threads(1)
    for begin in range(start, len(codes), _CHUNK):
        if stop():
            return None
        index.add(codes[begin : begin + _CHUNK].astype(np.float32))
    return Graph(kernel, index, codes, copies)


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
