"""The rows of a slab: arrays that grow at their end, and the way from row ids to positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.kernel import CODE
from langchain_memlayer.types import SlabBlock

_SLACK = 64
_LOOSE = 4096
_INT = np.dtype(np.int64)


class Growing:
    """An array that grows at its end; what `used` gave earlier stays valid and keeps its contents.

    Growing past the capacity moves to a new buffer; untouched capacity costs address space, not memory.
    """

    def __init__(self, dtype: np.dtype[Any], *, width: int | None = None) -> None:
        self._width = width
        self._buffer = self._empty(dtype, 0)
        self.size = 0

    @property
    def used(self) -> NDArray[Any]:
        """The rows written so far, without a copy."""
        return self._buffer[: self.size]

    def extend(self, rows: NDArray[Any]) -> None:
        """Appends `rows`."""
        end = self.size + len(rows)
        if end > len(self._buffer):
            grown = self._empty(self._buffer.dtype, end + end // 4 + _SLACK)
            grown[: self.size] = self._buffer[: self.size]
            self._buffer = grown
        self._buffer[self.size : end] = rows
        self.size = end

    def detach(self) -> None:
        """Moves to a new buffer, so that rows may be overwritten without changing what `used` gave earlier."""
        fresh = self._empty(self._buffer.dtype, len(self._buffer))
        fresh[: self.size] = self._buffer[: self.size]
        self._buffer = fresh

    def _empty(self, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
        return np.empty(rows if self._width is None else (rows, self._width), dtype=dtype)


class Positions:
    """Finds the live position of a row id: sorted arrays for the many, a dictionary for what changed since.

    Sixteen bytes a row, where a dictionary alone needs about 130.
    """

    def __init__(self, ids: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._positions = positions[order]
        self._changed: dict[int, int] = {}

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position of each id; -1 where it is unknown, `buried` of the position where it died."""
        if len(self._ids):
            slots = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            found = np.where(self._ids[slots] == ids, self._positions[slots], -1)
        else:
            found = np.full(len(ids), -1, dtype=_INT)
        if self._changed:
            changed = self._changed
            for index, row_id in enumerate(ids.tolist()):
                position = changed.get(row_id)
                if position is not None:
                    found[index] = position
        return found

    def set(self, ids: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        """Says where each id is from now on, or where it died."""
        self._changed.update(zip(ids.tolist(), positions.tolist(), strict=True))

    @property
    def loose(self) -> bool:
        """Whether so much changed that building anew from the live rows pays."""
        return len(self._changed) > _LOOSE + len(self._ids) // 16


def buried(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the dead as negative numbers, and back: views of before still have them alive."""
    return -2 - positions


class Rows:
    """The items and vectors of a slab, in the order in which they came; only the slab's writer uses it.

    Attributes:
        ids, seqs, live, columns, codes, owners, dead, dead_vectors, index: As in `View`.
    """

    def __init__(self, *, width: int, types: Mapping[str, np.dtype[Any]]) -> None:
        self.ids = Growing(_INT)
        self.seqs = Growing(_INT)
        self.live = Growing(np.dtype(np.bool_))
        self.columns = {name: Growing(kind) for name, kind in types.items()}
        self.codes = Growing(CODE, width=width)
        self.owners: Growing | None = None
        self.dead = 0
        self.dead_vectors = 0
        self.index = Positions(np.empty(0, dtype=_INT), np.empty(0, dtype=_INT))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Marks the items of `ids` as dead; unknown ones are let pass."""
        found = self.index.find(ids)
        known = found >= 0
        self._kill(found[known])
        self.index.set(ids[known], buried(found[known]))

    def upsert(self, block: SlabBlock, codes: NDArray[np.float16]) -> None:
        """Takes the block's items: a known one dies where it is and lives again at the end."""
        known = self.index.find(block.ids)
        fresh = np.ones(len(block.ids), dtype=np.bool_)
        kept: list[int] = []
        for item in np.flatnonzero(known >= 0):
            position = int(known[item])
            if self.seqs.used[position] == block.seqs[item]:
                fresh[item] = False
            elif self._same_vectors(position, codes[slice(*np.searchsorted(block.owners, (item, item + 1)))]):
                # Only the columns changed (a new expiry, say): no reason to burden the graph with a dead row.
                fresh[item] = False
                kept.append(int(item))
        if kept:
            self._overwrite(known[kept], block, kept)
        self._kill(known[fresh & (known >= 0)])
        self._append(block, codes, fresh)

    def replaced(
        self,
        source: NDArray[np.int64],
        *,
        ids: NDArray[np.int64],
        live: NDArray[np.bool_],
        codes: Growing,
        owners: NDArray[np.int64] | None,
    ) -> Rows:
        """New rows in another order; `source` has the present position that each takes its seq and columns from."""
        new = Rows(width=codes.used.shape[1], types={})
        new.ids.extend(ids)
        new.seqs.extend(self.seqs.used[source])
        new.live.extend(live)
        for name, column in self.columns.items():
            new.columns[name] = Growing(column.used.dtype)
            new.columns[name].extend(column.used[source])
        new.codes = codes
        if owners is not None:
            new.owners = Growing(_INT)
            new.owners.extend(owners)
        new.dead = int(len(live) - live.sum())
        new.dead_vectors = new.dead if owners is None else int(len(owners) - live[owners].sum())
        new._reindex()
        return new

    def _overwrite(self, positions: NDArray[np.int64], block: SlabBlock, items: list[int]) -> None:
        # Views hold the old arrays; a search that reads a column twice must find the same in it.
        self.seqs.detach()
        self.seqs.used[positions] = block.seqs[items]
        for name, column in self.columns.items():
            values = block.columns[name][items]
            if not np.array_equal(column.used[positions], values):
                column.detach()
                column.used[positions] = values

    def _same_vectors(self, position: int, codes: NDArray[np.float16]) -> bool:
        if self.owners is None:
            mine = self.codes.used[position : position + 1]
        else:
            mine = self.codes.used[slice(*np.searchsorted(self.owners.used, (position, position + 1)))]
        return mine.tobytes() == codes.tobytes()

    def _kill(self, positions: NDArray[np.int64]) -> None:
        if not len(positions):
            return
        # Views hold the old mask: an item that is written again must not be missing from any of them.
        self.live.detach()
        self.live.used[positions] = False
        self.dead += len(positions)
        if self.owners is None:
            self.dead_vectors = self.dead
        else:
            owners = self.owners.used
            spans = np.searchsorted(owners, positions, side="right") - np.searchsorted(owners, positions)
            self.dead_vectors += int(spans.sum())

    def _append(self, block: SlabBlock, codes: NDArray[np.float16], fresh: NDArray[np.bool_]) -> None:
        owners = block.owners
        if not fresh.all():
            chosen = fresh[owners]
            codes, owners = codes[chosen], (np.cumsum(fresh) - 1)[owners[chosen]]
        start, count = self.ids.size, int(fresh.sum())
        if self.owners is None and not (len(owners) == count and np.array_equal(owners, np.arange(count))):
            self.owners = Growing(_INT)
            self.owners.extend(np.arange(start))
        if self.owners is not None:
            self.owners.extend(owners + start)
        self.codes.extend(codes)
        ids = block.ids[fresh]
        self.ids.extend(ids)
        self.seqs.extend(block.seqs[fresh])
        self.live.extend(np.ones(count, dtype=np.bool_))
        for name, column in self.columns.items():
            column.extend(block.columns[name][fresh])
        if start:
            self.index.set(ids, np.arange(start, start + count))
        if not start or self.index.loose:
            self._reindex()

    def _reindex(self) -> None:
        live = np.flatnonzero(self.live.used)
        self.index = Positions(self.ids.used[live], live)
