"""The rows of a slab in the order in which they came: written, written again, removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.growing import Growing, KeyIndex
from langchain_memlayer.index.kernel import CODE
from langchain_memlayer.index.postings import WordRows
from langchain_memlayer.index.view import Sample, Stored, buried
from langchain_memlayer.types import SlabBlock

_INT = np.dtype(np.int64)
_MOST_SAMPLED = 8192
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Rows:
    """The items, vectors and words of a slab, in the order in which they came; only the slab's writer uses it.

    Attributes:
        ids, seqs, live, columns, codes, owners, dead, dead_vectors, index, words: As in `View`.
    """

    def __init__(self, *, width: int, held: bool, types: Mapping[str, np.dtype[Any]]) -> None:
        self.ids = Growing(_INT)
        self.seqs = Growing(_INT)
        self.live = Growing(np.dtype(np.bool_))
        self.columns = {name: Growing(kind) for name, kind in types.items()}
        self.codes = Growing(CODE, width=width) if held else None
        self.owners: Growing | None = None
        self.dead = 0
        self.dead_vectors = 0
        self.index = KeyIndex.of(np.empty(0, dtype=_INT), np.empty(0, dtype=_INT))
        self.words = WordRows()
        self.sample = _Sampler(width)

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Marks the items of `ids` as dead; unknown ones are let pass."""
        places = self.index.find(ids)
        known = places >= 0
        self._kill(places[known])
        self.index.set(ids[known], buried(places[known]))

    def upsert(self, block: SlabBlock, codes: NDArray[np.float16] | Stored) -> None:
        """Takes the block's items: a known one dies where it is and lives again at the end."""
        known = self.index.find(block.ids)
        fresh = np.ones(len(block.ids), dtype=np.bool_)
        kept: list[int] = []
        for item in np.flatnonzero(known >= 0):
            slot = int(known[item])
            if self._same_vectors(slot, codes, slice(*np.searchsorted(block.owners, (item, item + 1)))) and (
                not block.words or self.words.has(slot, block.words[int(item)])
            ):
                # Only the columns changed (a new expiry, say): no reason to burden the graph with a dead row.
                fresh[item] = False
                kept.append(int(item))
        if kept:
            self._overwrite(known[kept], block, kept)
        self._kill(known[fresh & (known >= 0)])
        self._append(block, codes, fresh)

    def _overwrite(self, slots: NDArray[np.int64], block: SlabBlock, items: list[int]) -> None:
        # Views hold the old arrays; a search that reads a column twice must find the same in it.
        self.seqs.detach()
        self.seqs.used[slots] = block.seqs[items]
        for name, column in self.columns.items():
            values = block.columns[name][items]
            if not np.array_equal(column.used[slots], values):
                column.detach()
                column.used[slots] = values

    def _same_vectors(self, slot: int, codes: NDArray[np.float16] | Stored, theirs: slice) -> bool:
        own = slice(slot, slot + 1)
        if self.owners is not None:
            own = slice(*np.searchsorted(self.owners.used, (slot, slot + 1)))
        if isinstance(codes, Stored) or self.codes is None:
            return bool(own.stop - own.start == theirs.stop - theirs.start)
        return bool(self.codes.used[own].tobytes() == codes[theirs].tobytes())

    def _kill(self, slots: NDArray[np.int64]) -> None:
        if not len(slots):
            return
        # Views hold the old mask: an item that is written again must not be missing from any of them.
        self.live.detach()
        self.live.used[slots] = False
        self.dead += len(slots)
        if self.owners is None:
            self.dead_vectors = self.dead
        else:
            owners = self.owners.used
            spans = np.searchsorted(owners, slots, side="right") - np.searchsorted(owners, slots)
            self.dead_vectors += int(spans.sum())

    def _append(self, block: SlabBlock, codes: NDArray[np.float16] | Stored, fresh: NDArray[np.bool_]) -> None:
        owners, every = block.owners, bool(fresh.all())
        if not every:
            chosen = fresh[owners]
            codes = codes.of(fresh) if isinstance(codes, Stored) else codes[chosen]
            owners = (np.cumsum(fresh) - 1)[owners[chosen]]
        start, count = self.ids.size, int(fresh.sum())
        if self.owners is None and not (len(owners) == count and np.array_equal(owners, np.arange(count))):
            self.owners = Growing(_INT)
            self.owners.extend(np.arange(start))
        if self.owners is not None:
            self.owners.extend(owners + start)
        if self.codes is not None and not isinstance(codes, Stored):
            self.codes.extend(codes)
        ids = block.ids if every else block.ids[fresh]
        self.ids.extend(ids)
        self.seqs.extend(block.seqs[fresh])
        self.live.extend(np.ones(count, dtype=np.bool_))
        for name, column in self.columns.items():
            column.extend(block.columns[name][fresh])
        self.sample.extend(owners + start, ids[owners], codes)
        if block.words:
            self.words.extend(block.words if every else [block.words[item] for item in np.flatnonzero(fresh).tolist()])
        if start:
            self.index.set(ids, np.arange(start, start + count))
        if not start or self.index.loose:
            live = np.flatnonzero(self.live.used)
            self.index = KeyIndex.of(self.ids.used[live], live)


class _Sampler:
    """Takes every vector of a small slab, of a larger one those whose row id falls into a 2^n-th of all numbers."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._slots, self._keys = Growing(_INT), Growing(np.dtype(np.uint64))
        self._codes = Growing(CODE, width=width)
        self._halved = 0

    def extend(self, slots: NDArray[np.int64], ids: NDArray[np.int64], codes: NDArray[np.float16] | Stored) -> None:
        """Takes what is due of further vectors."""
        keys = ids.view(np.uint64) * _GOLDEN
        while True:
            taken = np.flatnonzero(keys >> np.uint64(64 - self._halved) == 0) if self._halved else np.arange(len(keys))
            if self._slots.size + len(taken) <= _MOST_SAMPLED:
                break
            self._halve()
        self._slots.extend(slots[taken])
        self._keys.extend(keys[taken])
        self._codes.extend(codes[taken])

    def _halve(self) -> None:
        self._halved += 1
        kept = self._keys.used >> np.uint64(64 - self._halved) == 0
        slots, keys, codes = self._slots.used[kept], self._keys.used[kept], self._codes.used[kept]
        self._slots, self._keys = Growing(_INT), Growing(np.dtype(np.uint64))
        self._codes = Growing(CODE, width=self._width)
        self._slots.extend(slots)
        self._keys.extend(keys)
        self._codes.extend(codes)

    def state(self) -> Sample:
        """The present state."""
        return Sample(self._slots.used, self._codes.used)
