"""One state of a slab: immutable, so that a mask computed from its columns stays true for the search that follows.

```
no graph, or rows * dims <= threshold : exact scan (mask when more than 20 % is kept, else gather)
matches * dims <= 1e6                 : exact gather
else                                  : HNSW with K = ef = max(128, 4k), 256 above 200k rows; no selector; mask after;
                                        accepted iff survivors >= max(2k, K/4), else exact
```
Two refinements. Where a large k makes `ef` so large that walking the graph costs more than scanning the slab (measured:
from about one candidate in 64 rows), the scan is taken: it is quicker there, and exact. Where nearly all is kept, 2k
are asked for, and of them three quarters must survive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index.growing import KeyIndex
from langchain_memlayer.index.hnsw import Graph, RowScores
from langchain_memlayer.index.kernel import CODE, Kernel
from langchain_memlayer.index.postings import Words

Way = Literal["empty", "scan", "gather", "hnsw", "source"]
"""How rows are found: not at all, by scanning every row or only the matching ones, by the graph, by a foreign store."""

_GATHER_LIMIT = 1_000_000
_MASK_SHARE = 0.2
_NEARLY_ALL = 0.9
_MANY_ROWS = 200_000
_FEW_ASKED, _MANY_ASKED = 128, 256
_SCAN_RATIO = 64


Read = Callable[[Sequence[int]], Mapping[int, bytes]]
"""The vectors of some rows of the journal, by row id; rows that are gone are left out."""

_PIECE = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An array of vectors as far as it is asked by rows; each is read from the journal then.

    What is gone from the journal meanwhile is a vector of zeros: hits are read again anyway.

    Attributes:
        ids: The row id of each slot.
        owners: For each vector the slot of its item, ascending; None when vector `i` is that of slot `i`.
    """

    read: Read
    ids: NDArray[np.int64]
    owners: NDArray[np.int64] | None
    dims: int

    def __len__(self) -> int:
        """How many vectors there are."""
        return len(self.ids if self.owners is None else self.owners)

    @property
    def nbytes(self) -> int:
        """Bytes that they hold in memory."""
        return 0

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """Some vectors, by their numbers."""
        slots = rows if self.owners is None else self.owners[rows]
        places = np.zeros(len(rows), np.int64) if self.owners is None else rows - np.searchsorted(self.owners, slots)
        ids, width = self.ids[slots].tolist(), self.dims * CODE.itemsize
        vectors = self.read(list(dict.fromkeys(ids)))
        nothing = bytes(width)
        pieces = []
        for item, place in zip(ids, places.tolist(), strict=True):
            piece = vectors.get(item, b"")[place * width : (place + 1) * width]
            pieces.append(piece if len(piece) == width else nothing)
        return np.frombuffer(b"".join(pieces), CODE).reshape(len(rows), self.dims)

    def of(self, fresh: NDArray[np.bool_]) -> Stored:
        """The vectors of some of the items."""
        if self.owners is None:
            return Stored(self.read, self.ids[fresh], None, self.dims)
        owners = (np.cumsum(fresh) - 1)[self.owners[fresh[self.owners]]]
        return Stored(self.read, self.ids[fresh], owners, self.dims)

    def best(
        self, kernel: Kernel, vector: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `k` best of some vectors (None: of all) and their raw scores, in no order, read piece by piece."""
        rows = np.arange(len(self)) if rows is None else rows
        near, raw = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, len(rows), _PIECE):
            part = rows[start : start + _PIECE]
            places, scores = kernel.top(vector, self[part], k)
            near, raw = np.concatenate((near, part[places])), np.concatenate((raw, scores))
            if len(near) > k:
                kept = np.argpartition(-raw, k - 1)[:k]
                near, raw = near[kept], raw[kept]
        return near, raw


class Plan(NamedTuple):
    """What a search did.

    Attributes:
        way: How the rows of the answer were found.
        scanned: Vectors whose score was computed outside of the graph.
        candidates: Vectors that the graph, or a foreign store, was asked for.
        survivors: Those of them that were live and in the mask.
        fell_back: True when the candidates were too few, or there were none, and an exact way was taken.
    """

    way: Way
    scanned: int = 0
    candidates: int = 0
    survivors: int = 0
    fell_back: bool = False


_UNTRIED = Plan("empty")


@dataclass(slots=True, eq=False)
class Hits:
    """The answer to a search, best first; equal scores are ordered by row id.

    Attributes:
        slots: Where the items are in the view.
        seqs: The journal position of their last write.
        scores: Higher is nearer: cosine, inner product or negated distance, of the item's best vector.
        plan: What was done to find them.
    """

    slots: NDArray[np.int64]
    ids: NDArray[np.int64]
    seqs: NDArray[np.int64]
    scores: NDArray[np.float32]
    plan: Plan

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Hints:
    """What a foreign store may use to propose fewer rows in vain; nothing depends on it.

    Attributes:
        where: What a row's metadata must equal.
        text: The query's words, for stores that cannot be asked by vector.
    """

    where: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None


class Source(Protocol):
    """What answers for a large slab in place of a graph of its own: the seam to a foreign vector store."""

    @property
    def trusted(self) -> bool:
        """Whether it is worth asking; a slab has a graph of its own otherwise."""
        ...

    def nearest(
        self, view: View, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hints: Hints
    ) -> Hits | None:
        """What `view.search` is to answer, scored from the journal's own vectors; None for its own exact answer."""
        ...

    def audit(
        self, view: View, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hints: Hints
    ) -> None:
        """Now and then compare such an answer with the exact one, though no search needs it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Some vectors of a view beside each other, since reading them where they lie takes ten times as long."""

    slots: NDArray[np.int64]
    codes: NDArray[np.float16]


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class View:
    """What a slab held at one moment; slot `i` is index `i` of every array here.

    Attributes:
        applied_seq: The journal position that it is complete up to; -1 before anything was applied.
        ids: Row ids; an id whose item was written again may stand in several slots, one of them live.
        seqs: The journal position of each item's last write.
        live: Which slots hold a live item.
        columns: The hot columns.
        codes: All vectors as float16, held here or read from the journal when they are asked for.
        owners: For each vector the slot of its item, ascending; None when vector `i` is that of slot `i`.
        dead: How many slots hold none.
        dead_vectors: How many vectors belong to them.
        graph: The HNSW graph over the first vectors, or None.
        threshold: `vectors * dims` above which the graph, or the source, is asked.
        kernel: What compares vectors; None for a store without any.
        index: From row ids to slots.
        words: The words of the items' texts.
        sample: Vectors that stand for all of a large view.
        source: What answers in place of a graph, or None.
        memo: What readers derived from this state, for the next one; nothing that holds it.
    """

    applied_seq: int
    ids: NDArray[np.int64]
    seqs: NDArray[np.int64]
    live: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    codes: NDArray[np.float16] | Stored
    owners: NDArray[np.int64] | None
    dead: int
    dead_vectors: int
    graph: Graph | None
    threshold: int
    kernel: Kernel | None
    index: KeyIndex
    words: Words
    sample: Sample
    source: Source | None = None
    memo: dict[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def held(self) -> bool:
        """Whether the vectors are in memory."""
        return not isinstance(self.codes, Stored)

    @property
    def large(self) -> bool:
        """Whether it is too large to be scanned at each search."""
        return self.kernel is not None and len(self.codes) * self.kernel.dims > self.threshold

    def slots(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The live slot of each row id, -1 where this view has none."""
        if not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        slots = self.index.find(ids)
        # The index is the slab's newest. Who died since is where it was; who moved beyond this view is looked for.
        gone = slots < -1
        slots[gone] = buried(slots[gone])
        for place in np.flatnonzero(slots >= len(self)):
            here = np.flatnonzero((self.ids == ids[place]) & self.live)
            slots[place] = here[0] if len(here) else -1
        slots[(slots >= 0) & ~self.live[slots]] = -1
        return slots

    def search(
        self, query: ArrayLike, k: int, *, mask: NDArray[np.bool_] | None = None, hints: Hints | None = None
    ) -> Hits:
        """The `k` nearest live items.

        Args:
            query: One vector of the store's dimensions.
            k: How many at most.
            mask: Which slots may be found, shape (len(self),); None means all.
            hints: What a foreign store may use to propose fewer rows in vain.

        Raises:
            InvalidInput: The query has the wrong size or numbers that are not finite, or the mask has the wrong shape.
        """
        kernel = self._kernel()
        vector = kernel.prepare(query)
        if k < 1:
            raise InvalidInput(f"The limit must be at least 1, got {k}.")
        if self.source is not None and self.source.trusted and self.large:
            hits = self.source.nearest(self, vector, k, mask, hints or Hints())
            return self.exact(vector, k, mask=mask, plan=Plan("empty", fell_back=True)) if hits is None else hits
        keep, matches = self._keep(mask)
        rows, graph = len(self.codes), self.graph
        if graph is None or isinstance(self.codes, Stored):
            return self._scan_exactly(vector, k, keep, matches)
        breadth, enough = candidates(rows, matches, k)
        if choose(rows=rows, dims=kernel.dims, matches=matches, breadth=breadth, threshold=self.threshold) != "hnsw":
            return self._scan_exactly(vector, k, keep, matches)
        scored = self._masked(graph.search(vector, breadth), keep)
        slots, raw = self._items(scored)
        survivors = len(slots)
        if survivors < enough:
            return self._scan_exactly(vector, k, keep, matches, Plan("empty", 0, breadth, survivors, True))
        scanned = rows - graph.seen + len(graph.nodes.rest)
        if scanned:
            outside = self._outside_graph(vector, k, keep, graph, self.codes)
            slots, raw = self._items((np.concatenate((scored[0], outside[0])), np.concatenate((scored[1], outside[1]))))
        return self.hits(slots[:k], raw[:k], Plan("hnsw", scanned, breadth, survivors))

    def exact(
        self, vector: NDArray[np.float32], k: int, *, mask: NDArray[np.bool_] | None = None, plan: Plan = _UNTRIED
    ) -> Hits:
        """The `k` nearest by looking at all of them; `vector` as the kernel prepared it, `plan` what was tried."""
        return self._scan_exactly(vector, k, *self._keep(mask), plan)

    def audit(self, query: ArrayLike, k: int, *, mask: NDArray[np.bool_], hints: Hints) -> None:
        """Let a source that a search did not need be doubted all the same."""
        if self.source is not None and self.source.trusted and self.large:
            self.source.audit(self, self._kernel().prepare(query), k, mask, hints)

    def scores(self, query: ArrayLike, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """The exact score of each slot's best vector, NaN where the item has none."""
        kernel = self._kernel()
        return kernel.finish(self.raw(kernel.prepare(query), slots))

    def sampled(self, query: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Slots with vectors, spread evenly over the view (all of a small one; the dead too), and their scores."""
        kernel = self._kernel()
        raw = kernel.every(kernel.prepare(query), self.sample.codes)
        return self.sample.slots, kernel.finish(raw)

    def raw(self, vector: NDArray[np.float32], slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Like `scores`, as the kernel counts: higher is nearer."""
        kernel = self._kernel()
        if 2 * len(slots) > len(self) and not isinstance(self.codes, Stored):
            return self._all_raw(kernel, vector, self.codes)[slots]
        if self.owners is None:
            return kernel.every(vector, self.codes[slots])
        starts = np.searchsorted(self.owners, slots)
        counts = np.searchsorted(self.owners, slots, side="right") - starts
        out = np.full(len(slots), np.nan, dtype=np.float32)
        if total := int(counts.sum()):
            begins = np.cumsum(counts) - counts
            rows = np.repeat(starts - begins, counts) + np.arange(total)
            some = np.flatnonzero(counts)
            out[some] = np.maximum.reduceat(kernel.every(vector, self.codes[rows]), begins[some])
        return out

    def hits(self, slots: NDArray[np.int64], raw: NDArray[np.float32], plan: Plan) -> Hits:
        """The answer of some slots with their raw scores."""
        return Hits(slots, self.ids[slots], self.seqs[slots], self._kernel().finish(raw), plan)

    def count_findable(self, mask: NDArray[np.bool_] | None) -> int:
        """How many items with vectors may be found."""
        keep, vectors = self._keep(mask)
        if self.owners is None:
            return vectors
        return int(np.count_nonzero(np.diff(self.owners if keep is None else self.owners[keep], prepend=-1)))

    def _scan_exactly(
        self, vector: NDArray[np.float32], k: int, keep: NDArray[np.bool_] | None, matches: int, tried: Plan = _UNTRIED
    ) -> Hits:
        kernel, codes = self._kernel(), self.codes
        way = exact_way(len(codes), matches)
        if isinstance(codes, Stored):
            rows = None if keep is None else np.flatnonzero(keep)
            items = self._best(lambda want: codes.best(kernel, vector, want, rows), k, matches)[1]
        elif way == "gather" and keep is not None:
            rows = np.flatnonzero(keep)
            items = self._best(lambda want: kernel.gather(vector, codes, rows, want), k, matches)[1]
        else:
            items = self._best(lambda want: kernel.top(vector, codes, want, keep), k, matches)[1]
        slots, raw = items
        scanned = len(codes) if way == "scan" else matches
        plan = Plan(way, scanned, tried.candidates, tried.survivors, tried.fell_back)
        return self.hits(slots[:k], raw[:k], plan)

    def _all_raw(self, kernel: Kernel, vector: NDArray[np.float32], codes: NDArray[np.float16]) -> NDArray[np.float32]:
        raw = kernel.every(vector, codes)
        if self.owners is None:
            return raw
        out = np.full(len(self), np.nan, dtype=np.float32)
        if len(raw):
            begins = np.flatnonzero(np.diff(self.owners, prepend=-1))
            out[self.owners[begins]] = np.maximum.reduceat(raw, begins)
        return out

    def _kernel(self) -> Kernel:
        if self.kernel is None:
            raise InvalidInput("This store holds no vectors: open it with an embedder to search by meaning.")
        return self.kernel

    def _keep(self, mask: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_] | None, int]:
        """The vectors that may be found (None: all) and how many they are."""
        if mask is None:
            if not self.dead_vectors:
                return None, len(self.codes)
            keep = self.live
        else:
            if mask.shape != self.live.shape:
                raise InvalidInput(
                    f"The mask has shape {mask.shape}, the view {self.live.shape}: make it from this view."
                )
            keep = mask & self.live if self.dead else mask
        if self.owners is not None:
            keep = keep[self.owners]
        matches = int(np.count_nonzero(keep))
        return (None, matches) if matches == len(keep) else (keep, matches)

    @staticmethod
    def _masked(scored: RowScores, keep: NDArray[np.bool_] | None) -> RowScores:
        if keep is None:
            return scored
        inside = keep[scored[0]]
        return scored[0][inside], scored[1][inside]

    def _outside_graph(
        self,
        vector: NDArray[np.float32],
        k: int,
        keep: NDArray[np.bool_] | None,
        graph: Graph,
        codes: NDArray[np.float16],
    ) -> RowScores:
        """The best vectors that the graph does not hold, of at least `k` items when there are so many."""
        kernel, start = self._kernel(), graph.seen
        late = codes[start:]
        inside = None if keep is None else keep[start:]
        matches = len(late) if inside is None else int(np.count_nonzero(inside))
        rows, raw = self._best(lambda want: kernel.top(vector, late, want, inside), k, matches)[0]
        rest = graph.nodes.rest
        if keep is not None:
            rest = rest[keep[rest]]
        rest_best = self._best(lambda want: kernel.gather(vector, codes, rest, want), k, len(rest))[0]
        return np.concatenate((rows + start, rest_best[0])), np.concatenate((raw, rest_best[1]))

    def _best(self, scan: Callable[[int], RowScores], k: int, matches: int) -> tuple[RowScores, RowScores]:
        """What `scan` finds when asked for so many vectors that `k` items are complete, no tie cut at the `k`-th.

        The vectors, and their items.
        """
        want = k + 1 if self.owners is None else 2 * (k + 1)
        while True:
            want = min(want, matches)
            scored = scan(want) if want else (np.empty(0, np.int64), np.empty(0, np.float32))
            items = self._items(scored)
            if want == matches or (len(items[1]) > k and items[1][k - 1] > items[1][-1]):
                return scored, items
            want *= 4

    def _items(self, scored: RowScores) -> RowScores:
        """The items of the found vectors, each once with its best vector, best first, then by row id."""
        rows, raw = scored
        if self.owners is not None:
            rows = self.owners[rows]
        order = np.lexsort((self.ids[rows], -raw))
        rows, raw = rows[order], raw[order]
        if self.owners is not None:
            first = np.sort(np.unique(rows, return_index=True)[1])
            rows, raw = rows[first], raw[first]
        return rows, raw


def exact_way(rows: int, matches: int) -> Way:
    """How to look at `matches` of `rows` vectors exactly."""
    if not matches:
        return "empty"
    return "scan" if matches > _MASK_SHARE * rows else "gather"


def choose(*, rows: int, dims: int, matches: int, breadth: int, threshold: int) -> Way:
    """The way to begin with where there is a graph, which would be asked for so many candidates."""
    if rows * dims <= threshold or not matches:
        return exact_way(rows, matches)
    # A threshold set lower than the measured one (4e6) takes this limit along, so that the graph is used at all.
    if matches * dims <= min(_GATHER_LIMIT, threshold // 4):
        return "gather"
    return exact_way(rows, matches) if breadth > _MANY_ASKED and breadth * _SCAN_RATIO > rows else "hnsw"


def candidates(rows: int, matches: int, k: int) -> tuple[int, int]:
    """How many candidates to ask a graph for (it is `efSearch` too), and how many of them must be live and inside."""
    times = 2 if matches >= _NEARLY_ALL * rows else 4
    breadth = max(_MANY_ASKED if rows > _MANY_ROWS else _FEW_ASKED, times * k)
    return breadth, max(breadth // 4, min(2 * k, 3 * breadth // 4))


def buried(slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Slots of the dead as negative numbers, and back: views of before still have them alive."""
    return -2 - slots
