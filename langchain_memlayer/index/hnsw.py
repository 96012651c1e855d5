"""HNSW graphs over a slab's codes: built and grown beside the searches, never under them; as bytes, and back.

A node is a row, but of rows with equal codes the ninth and later ones share the nodes of the first eight. A row of a
graph has 64 links. When more rows than that are equal (a "thanks" in every conversation), they link to each other only,
and searches that come near find no way out: with 200 copies of each of 20 codes among 20,000 rows, 6.5 % of all queries
lost more than half of their hits. Nodes that are not the rows need a copy of the codes, which few copies are not worth.

Of a graph only the links and a checksum of each node's code are written. The vectors stay in the journal, and a graph
is matched against whatever rows are there when it is read: rows that it does not know are scanned beside it, nodes that
no row has any more are only walked through. Nothing here is parsed by FAISS, and every number that FAISS would follow
is checked, so that damaged bytes can only be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index.kernel import Kernel, load_faiss

NEIGHBOURS = 32
EF_CONSTRUCTION = 100
_CHUNK = 512
_SUMMED = 256
_COPIES = 8
_KNOWN_SHARE = 0.8
# FAISS prepares tables for this many levels at 32 neighbours; a row on a seventh would need 10^9 others.
_MOST_LEVELS = 6
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0xBF58476D1CE4E5B9)

RowScores = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Vectors, as indices into a slab's codes, and their raw scores."""


def checksums(codes: NDArray[np.float16]) -> NDArray[np.uint64]:
    """One 64-bit checksum per code; equal codes have equal ones, others do not (but for one pair in 2^64)."""
    word = np.dtype("<u8") if codes.shape[1] % 4 == 0 else np.dtype("<u2")
    words = np.ascontiguousarray(codes).view(word)
    places = np.arange(1, words.shape[1] + 1, dtype=np.uint64) * _GAMMA
    out = np.empty(len(words), dtype=np.uint64)
    for start in range(0, len(words), _SUMMED):
        # SplitMix64's steps (Steele, Lea, Flood 2014): a sum of plain products would not tell one-hot codes apart.
        mixed = words[start : start + _SUMMED] * _MIXER + places
        mixed ^= mixed >> np.uint64(29)
        mixed *= _GAMMA
        mixed ^= mixed >> np.uint64(32)
        out[start : start + _SUMMED] = mixed.sum(axis=1, dtype=np.uint64)
    return out


def _told_apart(sums: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Checksums of which each is there eight times at most."""
    order = np.argsort(sums, kind="stable")
    ordered = sums[order]
    fresh = np.diff(ordered, prepend=ordered[:1]) != 0
    places = np.arange(len(sums))
    copies = (places - np.maximum.accumulate(np.where(fresh, places, 0))) % _COPIES
    apart = np.empty_like(sums)
    apart[order] = ordered + copies.astype(np.uint64) * _MIXER
    return apart


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Which vectors are which node.

    Attributes:
        sums: The checksum of each node, told apart from those of its copies.
        vectors: The checksum of each vector that was looked at: the first ones of the slab.
        members: The vectors of node 0, of node 1 and so on; None when vector `i` is node `i`.
        starts: Where those of each node begin in `members`, and the end of the last.
        rest: The vectors that were looked at and are no node.
    """

    sums: NDArray[np.uint64]
    vectors: NDArray[np.uint64]
    members: NDArray[np.int64] | None
    starts: NDArray[np.int64]
    rest: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: NDArray[np.uint64], known: NDArray[np.uint64] | None = None, *, more: bool = True) -> Nodes:
        """The nodes of vectors with these checksums: those of `known` first, and if `more` the others as they come."""
        sums, apart = np.empty(0, np.uint64) if known is None else known, _told_apart(vectors)
        nodes = _places(sums, apart)
        new = np.flatnonzero(nodes < 0)
        if more and len(new):
            first = new[np.sort(np.unique(apart[new], return_index=True)[1])]
            nodes[new] = len(sums) + _places(apart[first], apart[new])
            sums = np.concatenate((sums, apart[first]))
        count = len(sums)
        if np.array_equal(nodes[:count], np.arange(count)) and (nodes[count:] < 0).all():
            # What came later was not looked at.
            return cls(sums, vectors[:count], None, np.arange(count + 1), np.empty(0, np.int64))
        inside = np.flatnonzero(nodes >= 0)
        members = inside[np.argsort(nodes[inside], kind="stable")]
        starts = np.concatenate(([0], np.cumsum(np.bincount(nodes[inside], minlength=len(sums)))))
        return cls(sums, vectors, members, starts, np.flatnonzero(nodes < 0))

    def __len__(self) -> int:
        return len(self.sums)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        members = 0 if self.members is None else self.members.nbytes
        return self.sums.nbytes + self.vectors.nbytes + self.starts.nbytes + self.rest.nbytes + members

    def codes(self, codes: NDArray[np.float16], links: Links | None = None) -> NDArray[np.float16]:
        """The nodes' codes, from those of the slab; without a copy when each vector is a node.

        Searches walk through nodes that no vector is any more, so these need a place that is about right: that of a
        node that they are linked to. Nobody ever finds them.
        """
        if self.members is None:
            return codes[: len(self)]
        has_vector = self.starts[1:] > self.starts[:-1]
        out: NDArray[np.float16] = codes[self.members[np.minimum(self.starts[:-1], len(self.members) - 1)]]
        gone = np.flatnonzero(~has_vector)
        if len(gone) and links is not None:
            linked = links.ground(gone)
            usable = (linked >= 0) & has_vector[linked]
            first = linked[np.arange(len(gone)), usable.argmax(axis=1)]
            out[gone] = np.where(usable.any(axis=1, keepdims=True), out[first], np.float16(0))
        return out

    def spread(self, nodes: NDArray[np.int64], raw: NDArray[np.float32]) -> RowScores:
        """All vectors of some nodes, each with its node's score."""
        if self.members is None:
            return nodes, raw
        counts = self.starts[nodes + 1] - self.starts[nodes]
        ends = np.cumsum(counts)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.starts[nodes] - ends + counts, counts)
        return self.members[places], np.repeat(raw, counts)


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
        row_links: NDArray[np.int32] = self.neighbours[begins[:, None] + np.arange(2 * NEIGHBOURS)]
        return row_links


class Graph:
    """An HNSW graph over the vectors of a slab; never changed once it is made.

    FAISS cannot search while it adds. Growing therefore makes a new graph, and searches keep the one they hold. The
    vectors are not in here: FAISS reads the slab's own float16 codes, so a distance is the one an exact scan gives.
    Only when vectors and nodes are not the same has it codes of its own.

    Attributes:
        nodes: Which vectors are which node.
    """

    def __init__(self, kernel: Kernel, index: Any, codes: NDArray[np.float16], nodes: Nodes) -> None:
        faiss = load_faiss()
        self.nodes = nodes
        self._kernel = kernel
        self._ptr = faiss.swig_ptr
        self._make_parameters = faiss.SearchParametersHNSW
        self._parameters: dict[int, Any] = {}
        self._index = index
        # The storage is a view of `codes`, which therefore must live as long as the index.
        self._codes = codes
        storage = _storage(kernel)
        storage.codes = faiss.MaybeOwnedVectorUInt8.create_view(
            faiss.swig_ptr(codes.view(np.uint8)), codes.nbytes, faiss.MaybeOwnedVectorUInt8().owner
        )
        storage.ntotal = len(codes)
        _attach(index, storage)

    @property
    def seen(self) -> int:
        """How many vectors of the slab, from the first on, were looked at."""
        return len(self.nodes.vectors)

    @property
    def nbytes(self) -> int:
        """Bytes of the links, and of the codes that are not the slab's."""
        own = 0 if self.nodes.members is None else self._codes.nbytes
        return int(self._index.hnsw.neighbors.size()) * 4 + len(self.nodes) * 12 + self.nodes.nbytes + own

    def search(self, query: NDArray[np.float32], count: int) -> RowScores:
        """About the `count` nearest vectors, with all that are equal to them, and their raw scores."""
        parameters = self._parameters.get(count)
        if parameters is None:
            parameters = self._parameters[count] = self._make_parameters(efSearch=count)
        distances = np.empty(count, dtype=np.float32)
        nodes = np.empty(count, dtype=np.int64)
        ptr = self._ptr
        self._index.search_c(1, ptr(query), count, ptr(distances), ptr(nodes), parameters)
        if nodes[-1] < 0:
            real = nodes >= 0
            distances, nodes = distances[real], nodes[real]
        return self.nodes.spread(nodes, self._kernel.raw(distances))

    def lies_in(self, codes: NDArray[np.float16]) -> bool:
        """Whether it keeps no vectors but those of the slab."""
        return self.nodes.members is not None or self._codes.ctypes.data == codes.ctypes.data

    def over(self, codes: NDArray[np.float16]) -> Graph:
        """The same graph over the same vectors, which lie elsewhere now: where they were is free when this one is."""
        return Graph(self._kernel, load_faiss().clone_index(self._index), codes[: self.seen], self.nodes)

    def grown(self, codes: NDArray[np.float16], *, stop: Callable[[], bool]) -> Graph | None:
        """A graph over `codes`, of which this one holds the first; or None when `stop` said so in between."""
        faiss = load_faiss()
        index = faiss.clone_index(self._index)
        storage = _storage(self._kernel)
        storage.add_sa_codes(self._codes.view(np.uint8))
        _attach(index, storage)
        vectors = np.concatenate((self.nodes.vectors, checksums(codes[self.seen :])))
        return _add(self._kernel, index, codes, Nodes.of(vectors, self.nodes.sums), self._codes, stop)

    def dumped(self) -> tuple[bytes, dict[str, Any]]:
        """The bytes and the meta of a snapshot."""
        faiss = load_faiss()
        hnsw = self._index.hnsw
        levels = faiss.vector_to_array(hnsw.levels)
        neighbours = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
        parts = levels.astype("<i4"), neighbours.astype("<i4"), self.nodes.sums.astype("<u8")
        meta = {"nodes": len(self.nodes), "links": len(neighbours)}
        meta |= {"entry": int(hnsw.entry_point), "top": int(hnsw.max_level)}
        return b"".join(part.tobytes() for part in parts), {**_shape(self._kernel), **meta}


def build(kernel: Kernel, codes: NDArray[np.float16], *, stop: Callable[[], bool]) -> Graph | None:
    """A graph over `codes`, or None when `stop` said so in between."""
    index = _empty_index(kernel)
    _attach(index, _storage(kernel))
    return _add(kernel, index, codes, Nodes.of(checksums(codes)), codes[:0], stop)


def restore(kernel: Kernel, codes: NDArray[np.float16], payload: bytes, meta: Mapping[str, Any]) -> Graph:
    """The graph that was dumped, over the vectors that are there now.

    Raises:
        SnapshotError: These are not the bytes of a graph for this kernel, or it knows too little of these vectors.
    """
    links, sums = _thawed(payload, meta, kernel)
    nodes = Nodes.of(checksums(codes), sums, more=False)
    if np.count_nonzero(np.diff(nodes.starts)) < _KNOWN_SHARE * len(nodes):
        raise SnapshotError("The graph's snapshot knows too few of the present rows; it is rebuilt.")
    faiss = load_faiss()
    index = _empty_index(kernel)
    hnsw = index.hnsw
    faiss.copy_array_to_vector(np.ascontiguousarray(links.levels, dtype=np.int32), hnsw.levels)
    faiss.copy_array_to_vector(links.offsets, hnsw.offsets)
    hnsw.neighbors.resize(len(links.neighbours))
    faiss.rev_swig_ptr(hnsw.neighbors.data(), len(links.neighbours))[:] = links.neighbours
    hnsw.entry_point = links.entry
    hnsw.max_level = links.top
    index.ntotal = len(nodes)
    return Graph(kernel, index, nodes.codes(codes, links), nodes)


def _thawed(payload: bytes, meta: Mapping[str, Any], kernel: Kernel) -> tuple[Links, NDArray[np.uint64]]:
    if any(meta.get(name) != value for name, value in _shape(kernel).items()):
        raise SnapshotError("The graph's snapshot is for other vectors; it is rebuilt.")
    nodes, links, entry, top = (_number(meta, name) for name in ("nodes", "links", "entry", "top"))
    layout = (("<i4", nodes), ("<i4", links), ("<u8", nodes))
    if not nodes or sum(np.dtype(kind).itemsize * count for kind, count in layout) != len(payload):
        raise SnapshotError("The graph's snapshot has the wrong length; it is rebuilt.")
    arrays: list[NDArray[Any]] = []
    offset = 0
    for kind, count in layout:
        arrays.append(np.frombuffer(payload, dtype=kind, count=count, offset=offset))
        offset += arrays[-1].nbytes
    levels, neighbours, sums = arrays
    if (np.diff(np.sort(sums)) == 0).any():
        raise SnapshotError("The graph's snapshot disagrees with itself; it is rebuilt.")
    thawed = Links(levels=levels, neighbours=neighbours, entry=entry, top=top)
    thawed.check()
    return thawed, sums


def _number(meta: Mapping[str, Any], name: str) -> int:
    number = meta.get(name)
    if type(number) is not int or not 0 <= number < 2**40:
        raise SnapshotError("The graph's snapshot has a damaged meta; it is rebuilt.")
    return number


def _shape(kernel: Kernel) -> dict[str, Any]:
    return {
        "kind": "hnsw",
        "format": 2,
        "dims": kernel.dims,
        "metric": kernel.metric,
        "neighbours": NEIGHBOURS,
        "ef_construction": EF_CONSTRUCTION,
    }


def _places(known: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each wanted checksum stands in `known`, which has each once; -1 for nowhere."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    # Mostly rows come as they came before, and others behind them.
    if (count := len(known)) < len(wanted) and np.array_equal(known, wanted[:count]):
        return np.concatenate((np.arange(count), _places(known, wanted[count:])))
    if np.array_equal(known, wanted):
        return np.arange(count)
    order = np.argsort(known)
    places = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    return np.where(known[places] == wanted, places, -1)


def _add(
    kernel: Kernel,
    index: Any,
    vectors: NDArray[np.float16],
    nodes: Nodes,
    old_codes: NDArray[np.float16],
    stop: Callable[[], bool],
) -> Graph | None:
    """The graph of `index`, which has the first nodes with the codes `there`, with the others added."""
    faiss = load_faiss()
    codes = nodes.codes(vectors)
    if nodes.members is not None:
        # Of a node that no vector is any more, only the graph knows a place.
        codes[: len(old_codes)] = old_codes
    # In one piece each: what moves whenever it is full leaves holes of all sizes behind. One node in 31 has more links.
    _reserve(faiss.downcast_index(index.storage).codes, codes.nbytes)
    _reserve(index.hnsw.neighbors, len(codes) * NEIGHBOURS * 21 // 10)
    # For this thread only: one core, no OpenMP team that a later fork would find dead.
    faiss.omp_set_num_threads(1)
    for begin in range(len(old_codes), len(codes), _CHUNK):
        if stop():
            return None
        index.add(codes[begin : begin + _CHUNK].astype(np.float32))
    return Graph(kernel, index, codes, nodes)


def _reserve(vector: Any, room: int) -> None:
    """Gives one of FAISS's vectors room to grow to."""
    size = vector.size()
    vector.resize(max(size, room))
    vector.resize(size)


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
