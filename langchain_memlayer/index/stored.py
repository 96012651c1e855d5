"""Vectors that stay in the journal: what a slab has instead of them when a vector store answers for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.kernel import CODE, Kernel

Read = Callable[[Sequence[int]], Mapping[int, bytes]]
"""The vectors of some rows of the journal, by row id; rows that are gone are left out."""

_CHUNK = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An array of vectors as far as it is asked by rows; each is read from the journal then.

    What is gone from the journal meanwhile is a vector of zeros: hits are read again anyway.

    Attributes:
        read: Reads the vectors of row ids.
        ids: The row id of each slot.
        owners: For each vector the slot of its item, ascending; None when vector `i` is that of slot `i`.
        dims: The size of a vector.
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
        found = self.read(list(dict.fromkeys(ids)))
        nothing = bytes(width)
        pieces = []
        for item, place in zip(ids, places.tolist(), strict=True):
            piece = found.get(item, b"")[place * width : (place + 1) * width]
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
        found, raw = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            places, scores = kernel.top(vector, self[part], k)
            found, raw = np.concatenate((found, part[places])), np.concatenate((raw, scores))
            if len(found) > k:
                kept = np.argpartition(-raw, k - 1)[:k]
                found, raw = found[kept], raw[kept]
        return found, raw
