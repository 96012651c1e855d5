"""One state of a slab: immutable, so that a mask computed from its columns stays true for the search that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index import planner
from langchain_memlayer.index.hnsw import Graph
from langchain_memlayer.index.kernel import Kernel
from langchain_memlayer.index.planner import Plan
from langchain_memlayer.index.rows import Positions, buried
from langchain_memlayer.index.source import Hints, Source

_Found = tuple[NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Hits:
    """The answer to a search, best first; equal scores are ordered by row id.

    Attributes:
        positions: Where the items are in the view.
        ids: Their row ids.
        seqs: The journal position of their last write.
        scores: Higher is nearer: cosine, inner product or negated distance, of the item's best vector.
        plan: What was done to find them.
    """

    positions: NDArray[np.int64]
    ids: NDArray[np.int64]
    seqs: NDArray[np.int64]
    scores: NDArray[np.float32]
    plan: Plan

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a slab held at one moment; position `i` is index `i` of every array here.

    Attributes:
        applied_seq: The journal position that it is complete up to; -1 before anything was applied.
        ids: Row ids; an id whose item was written again may stand at several positions, one of them live.
        seqs: The journal position of each item's last write.
        live: Which positions hold a live item.
        columns: The hot columns.
        codes: All vectors as float16.
        owners: For each vector the position of its item, ascending; None when vector `i` is that of item `i`.
        dead_vectors: How many vectors belong to dead positions.
        graph: The HNSW graph over the first vectors, or None.
        source: What proposes candidates in place of a graph, or None.
    """

    applied_seq: int
    ids: NDArray[np.int64]
    seqs: NDArray[np.int64]
    live: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    codes: NDArray[np.float16]
    owners: NDArray[np.int64] | None
    dead: int
    dead_vectors: int
    graph: Graph | None
    threshold: int
    kernel: Kernel | None
    index: Positions
    source: Source | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def position(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The live position of each row id, -1 where this view has none."""
        if not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        found = self.index.find(ids)
        # The index is the slab's newest. Who died since is where it was; who moved beyond this view is looked for.
        gone = found < -1
        found[gone] = buried(found[gone])
        for slot in np.flatnonzero(found >= len(self)):
            places = np.flatnonzero((self.ids == ids[slot]) & self.live)
            found[slot] = places[0] if len(places) else -1
        found[(found >= 0) & ~self.live[found]] = -1
        return found

    def search(
        self, query: ArrayLike, k: int, *, mask: NDArray[np.bool_] | None = None, hints: Hints | None = None
    ) -> Hits:
        """The `k` nearest live items.

        Args:
            query: One vector of the store's dimensions.
            k: How many at most.
            mask: Which positions may be found, shape (len(self),); None means all.
            hints: What a foreign store may use to propose fewer rows in vain.

        Raises:
            InvalidInput: The query has the wrong size or numbers that are not finite, or the mask has the wrong shape.
        """
        kernel = self._kernel()
        vector = kernel.prepare(query)
        if k < 1:
            raise InvalidInput(f"The limit must be at least 1, got {k}.")
        keep, matches = self._keep(mask)
        rows = len(self.codes)
        source = self.source if self.source is not None and self.source.trusted else None
        graph = self.graph is not None or source is not None
        way = planner.choose(
            rows=rows, dims=kernel.dims, matches=matches, k=k, graph=graph, threshold=self.threshold,
            foreign=source is not None,
        )  # fmt: skip
        if way == "empty":
            none = np.empty(0, dtype=np.int64)
            return Hits(none, none, none, np.empty(0, dtype=np.float32), Plan("empty"))
        asked = survivors = scanned = 0
        if way == "hnsw" and source is not None:
            hits = self._proposed(source, vector, k, mask, hints or Hints())
            if hits is not None and source.audit_due():
                return self._audited(source, vector, k, mask, hits)
            return hits if hits is not None else self._exactly(vector, k, keep, matches, fell_back=True)
        if way == "hnsw" and self.graph is not None:
            asked = planner.candidates(rows, k)
            found = self.graph.search(vector, asked)
            if keep is not None:
                inside = keep[found[0]]
                found = found[0][inside], found[1][inside]
            positions, raw = self._items(found)
            survivors = len(positions)
            if planner.accepts(survivors, k, asked):
                scanned = rows - self.graph.rows
                if scanned:
                    later = self._delta(vector, k, keep, self.graph.rows)
                    both = np.concatenate((found[0], later[0])), np.concatenate((found[1], later[1]))
                    positions, raw = self._items(both)
                return self._hits(positions[:k], raw[:k], Plan("hnsw", scanned, asked, survivors))
        return self._exactly(vector, k, keep, matches, asked, survivors, fell_back=asked > 0)

    def _exactly(
        self,
        vector: NDArray[np.float32],
        k: int,
        keep: NDArray[np.bool_] | None,
        matches: int,
        asked: int = 0,
        survivors: int = 0,
        *,
        fell_back: bool,
    ) -> Hits:
        rows = len(self.codes)
        way = planner.exact_way(rows, matches)
        positions, raw = self._items(self._exact(vector, k, keep, matches, way))
        scanned = matches if way == "gather" else rows
        return self._hits(positions[:k], raw[:k], Plan(way, scanned, asked, survivors, fell_back))

    def _proposed(
        self, source: Source, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hints: Hints
    ) -> Hits | None:
        """What a foreign store's candidates give, scored from the vectors here; None when they are too few."""
        allowed = self.live if mask is None else mask & self.live
        asked: int | None = planner.candidates(len(self.codes), k)
        while asked is not None:
            proposal = source.propose(vector, asked, hints)
            if proposal is None:
                return None
            near, later = (self._inside(ids, allowed) for ids in (proposal.ids, proposal.later))
            positions = np.union1d(near, later)
            raw = self._raw(vector, positions)
            positions, raw = positions[~np.isnan(raw)], raw[~np.isnan(raw)]
            ended = len(proposal.ids) < asked
            enough = planner.accepts(len(near), k, asked) or (ended and len(near) >= k)
            able = self._able(mask) if ended and not enough else 0
            if enough or len(positions) == able > 0:
                order = np.lexsort((self.ids[positions], -raw))[:k]
                return self._hits(positions[order], raw[order], Plan("source", len(later), asked, len(near)))
            if able:
                # What it may not know yet is not what it missed.
                source.audited(min(len(positions) / min(k, able), 1.0))
            asked = None if ended else planner.wider(asked, k)
        return None

    def audit(self, query: ArrayLike, k: int, *, mask: NDArray[np.bool_], hints: Hints | None = None) -> None:
        """Now and then compare a foreign store's candidates with the exact ones, though no search needs them."""
        source, kernel = self.source, self._kernel()
        large = len(self.codes) * kernel.dims > self.threshold
        if large and source is not None and source.trusted and source.audit_due():
            vector = kernel.prepare(query)
            found = self._proposed(source, vector, k, mask, hints or Hints())
            if found is not None:
                self._audited(source, vector, k, mask, found)

    def _inside(self, ids: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        positions = np.unique(self.position(ids))
        positions = positions[positions >= 0]
        kept: NDArray[np.int64] = positions[allowed[positions]]
        return kept

    def _audited(
        self, source: Source, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hits: Hits
    ) -> Hits:
        """The exact answer, after the source was told how much of it `hits` had."""
        keep, matches = self._keep(mask)
        exact = self._exactly(vector, k, keep, matches, hits.plan.candidates, hits.plan.survivors, fell_back=False)
        found = len(np.intersect1d(exact.ids, hits.ids))
        source.audited(found / max(len(exact.ids), 1))
        return exact

    def scores(self, query: ArrayLike, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The exact score of each position's best vector, NaN where the item has none."""
        kernel = self._kernel()
        return kernel.finish(self._raw(kernel.prepare(query), positions))

    def _raw(self, vector: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
        kernel = self._kernel()
        if 2 * len(positions) > len(self):
            return self._all_raw(kernel, vector)[positions]
        if self.owners is None:
            return kernel.every(vector, self.codes[positions])
        starts = np.searchsorted(self.owners, positions)
        counts = np.searchsorted(self.owners, positions, side="right") - starts
        out = np.full(len(positions), np.nan, dtype=np.float32)
        if total := int(counts.sum()):
            begins = np.cumsum(counts) - counts
            rows = np.repeat(starts - begins, counts) + np.arange(total)
            some = np.flatnonzero(counts)
            out[some] = np.maximum.reduceat(kernel.every(vector, self.codes[rows]), begins[some])
        return out

    def _all_raw(self, kernel: Kernel, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        raw = kernel.every(vector, self.codes)
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

    def _able(self, mask: NDArray[np.bool_] | None) -> int:
        """How many items with vectors may be found."""
        keep, vectors = self._keep(mask)
        if self.owners is None:
            return vectors
        return int(np.count_nonzero(np.diff(self.owners if keep is None else self.owners[keep], prepend=-1)))

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
        return keep, int(np.count_nonzero(keep))

    def _exact(
        self, vector: NDArray[np.float32], k: int, keep: NDArray[np.bool_] | None, matches: int, way: planner.Way
    ) -> _Found:
        """The best vectors, of at least `k` items when there are so many."""
        kernel = self._kernel()
        if way == "gather" and keep is not None:
            rows = np.flatnonzero(keep)
            return self._best(lambda want: kernel.gather(vector, self.codes, rows, want), k, matches)
        return self._best(lambda want: kernel.top(vector, self.codes, want, keep), k, matches)

    def _delta(self, vector: NDArray[np.float32], k: int, keep: NDArray[np.bool_] | None, start: int) -> _Found:
        """Like `_exact`, of the vectors from `start` on, which the graph does not hold yet."""
        kernel, codes = self._kernel(), self.codes[start:]
        inside = None if keep is None else keep[start:]
        matches = len(codes) if inside is None else int(np.count_nonzero(inside))
        rows, raw = self._best(lambda want: kernel.top(vector, codes, want, inside), k, matches)
        return rows + start, raw

    def _best(self, scan: Callable[[int], _Found], k: int, matches: int) -> _Found:
        """What `scan` finds when asked for so many vectors that `k` items are complete, no tie cut at the `k`-th."""
        want = k + 1 if self.owners is None else 2 * (k + 1)
        while True:
            want = min(want, matches)
            found = scan(want)
            if want == matches:
                return found
            raw = self._items(found)[1]
            if len(raw) > k and raw[k - 1] > found[1].min():
                return found
            want *= 4

    def _items(self, found: _Found) -> _Found:
        """The items of the found vectors, each once with its best vector, best first, then by row id."""
        rows, raw = found
        if self.owners is not None:
            rows = self.owners[rows]
        order = np.lexsort((self.ids[rows], -raw))
        rows, raw = rows[order], raw[order]
        if self.owners is not None:
            first = np.sort(np.unique(rows, return_index=True)[1])
            rows, raw = rows[first], raw[first]
        return rows, raw

    def _hits(self, positions: NDArray[np.int64], raw: NDArray[np.float32], plan: Plan) -> Hits:
        return Hits(positions, self.ids[positions], self.seqs[positions], self._kernel().finish(raw), plan)
