"""Arrays that grow while others read them, and the way from keys to where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SLACK = 64
_LOOSE = 4096


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

    def ahead(self, rows: int) -> NDArray[Any]:
        """Room for so many further rows: what is written there and given to `extend` is not moved."""
        end = self.size + rows
        if end > len(self._buffer):
            grown = self._empty(self._buffer.dtype, end + end // 4 + _SLACK)
            grown[: self.size] = self._buffer[: self.size]
            self._buffer = grown
        return self._buffer[self.size : end]

    def extend(self, rows: NDArray[Any]) -> None:
        """Appends `rows`; the first ones are taken over, and must not be changed afterwards."""
        if not len(self._buffer) and rows.dtype == self._buffer.dtype:
            self._buffer, self.size = rows, len(rows)
        elif len(rows):
            self.ahead(len(rows))[:] = rows
            self.size += len(rows)

    def detach(self) -> None:
        """Moves to a new buffer, so that rows may be overwritten without changing what `used` gave earlier."""
        fresh = self._empty(self._buffer.dtype, len(self._buffer))
        fresh[: self.size] = self._buffer[: self.size]
        self._buffer = fresh

    def _empty(self, dtype: np.dtype[Any], rows: int) -> NDArray[Any]:
        return np.empty(rows if self._width is None else (rows, self._width), dtype=dtype)


class KeyIndex:
    """Finds a number of at least 0 by a 64-bit key: sorted arrays for the many, a dictionary for what changed since.

    Sixteen bytes a key, where a dictionary alone needs about 130.
    """

    def __init__(self, keys: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        self._keys = keys
        self._numbers = numbers
        self._changed: dict[int, int] = {}

    @classmethod
    def of(cls, keys: NDArray[np.int64], numbers: NDArray[np.int64]) -> KeyIndex:
        """That of distinct keys, in any order."""
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], numbers[order])

    def find(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of each key; -1 where it is unknown, or what `set` said."""
        if len(self._keys):
            places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            numbers = np.where(self._keys[places] == keys, self._numbers[places], -1)
        else:
            numbers = np.full(len(keys), -1, np.int64)
        if self._changed:
            changed = self._changed
            for index, key in enumerate(keys.tolist()):
                number = changed.get(key)
                if number is not None:
                    numbers[index] = number
        return numbers

    def set(self, keys: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Says what is found for each key from now on."""
        self._changed.update(zip(keys.tolist(), numbers.tolist(), strict=True))

    @property
    def loose(self) -> bool:
        """Whether so much changed that making it anew pays."""
        return len(self._changed) > _LOOSE + len(self._keys) // 16
