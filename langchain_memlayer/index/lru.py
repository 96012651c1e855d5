"""The slabs in memory: loaded once, caught up on each use, the least recently used dropped when they grow too many."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Cached(Protocol):
    """What is kept: a slab, or a graph."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds in memory."""
        ...

    def close(self) -> None:
        """Stop what it does in the background."""
        ...


S = TypeVar("S", bound=Cached)


@dataclass(slots=True)
class _Entry(Generic[S]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    slab: S | None = None
    torn: bool = False
    dropped: bool = False
    nbytes: int = 0


class SlabCache(Generic[S]):
    """An LRU of slabs by namespace prefix, bound by bytes.

    Args:
        load: Makes the slab of a prefix from the journal; called once for each, whoever else asks meanwhile waits.
        refresh: Called with the prefix and its slab on each `get`, under the prefix's lock; it reads the journal's last
            position and applies what the slab lacks. False says that it is to be loaded anew.
        capacity_bytes: What the slabs may hold together. The one asked for last always stays.
    """

    def __init__(self, load: Callable[[str], S], *, refresh: Callable[[str, S], bool], capacity_bytes: int) -> None:
        self._load = load
        self._refresh = refresh
        self._capacity = capacity_bytes
        self._entries: OrderedDict[str, _Entry[S]] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes that the slabs held when each was last asked for."""
        return self._nbytes

    def get(self, prefix: str) -> S:
        """The slab of `prefix`, loaded and caught up."""
        with self._lock:
            entry = self._entries.get(prefix)
            if entry is None:
                entry = self._entries[prefix] = _Entry()
            self._entries.move_to_end(prefix)
        with entry.lock:
            slab = None if entry.torn else entry.slab
            if slab is not None:
                # Whatever exception comes in between, that of a signal too, leaves it torn: it is loaded anew then.
                entry.torn = True
                entry.torn = not self._refresh(prefix, slab)
            if slab is None or entry.torn:
                old, entry.slab = entry.slab, None
                if old is not None and not entry.dropped:
                    old.close()
                slab = entry.slab = self._load(prefix)
                entry.torn = False
                if entry.dropped:
                    slab.close()
        self._account(prefix, entry, slab)
        return slab

    def peek(self, prefix: str) -> S | None:
        """The slab of `prefix` as it is, not caught up; None when it is not there, or somebody works on it."""
        with self._lock:
            entry = self._entries.get(prefix)
            if entry is None or entry.torn:
                return None
            self._entries.move_to_end(prefix)
            return entry.slab

    def slabs(self) -> list[S]:
        """The slabs that are loaded."""
        with self._lock:
            return [entry.slab for entry in self._entries.values() if entry.slab is not None]

    def clear(self) -> None:
        """Forgets all slabs."""
        with self._lock:
            entries = list(self._entries.values())
            self._entries.clear()
            self._nbytes = 0
        self._close(entries)

    def _account(self, prefix: str, entry: _Entry[S], slab: S) -> None:
        evicted = []
        with self._lock:
            if self._entries.get(prefix) is not entry:
                return
            nbytes = slab.nbytes
            self._nbytes += nbytes - entry.nbytes
            entry.nbytes = nbytes
            while self._nbytes > self._capacity and len(self._entries) > 1:
                oldest = next(iter(self._entries))
                if oldest == prefix:
                    break
                dropped = self._entries.pop(oldest)
                self._nbytes -= dropped.nbytes
                evicted.append(dropped)
        self._close(evicted)

    def _close(self, entries: list[_Entry[S]]) -> None:
        for entry in entries:
            # Whoever is loading it right now keeps it to himself; it is closed when that is done. Who begins to later
            # closes it himself.
            with entry.lock:
                entry.dropped = True
                if entry.slab is not None:
                    entry.slab.close()
