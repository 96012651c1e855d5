"""What is read of the items of a BaseStore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from langchain_memlayer.journal.read_base import VECTORS_OF_ITEM, BaseReader, chunks, marks
from langchain_memlayer.types import prefix_bounds


class ItemReader(BaseReader):
    """Reads of items, which keep their last value and may expire."""

    def items_by_key(self, pairs: Iterable[tuple[str, str]], now: int) -> dict[tuple[str, str], tuple[Any, ...]]:
        """Live items by (encoded namespace, key): id, seq, path, key, value, created_at, updated_at, ttl."""
        sql = (
            "SELECT i.id, i.seq, n.path, i.key, i.value, i.created_at, i.updated_at, i.ttl FROM namespaces n "
            "JOIN items i ON i.ns = n.id WHERE n.path = ? AND i.key = ? AND i.closed IS NULL AND i.kind = 'item' "
            "AND (i.expires_at IS NULL OR i.expires_at > ?)"
        )
        found: dict[tuple[str, str], tuple[Any, ...]] = {}
        for pair in pairs:
            row = self.db.execute(sql, (*pair, now)).fetchone()
            if row is not None:
                found[pair] = row
        return found

    def items_by_id(self, ids: Sequence[int], now: int) -> dict[int, tuple[Any, ...]]:
        """Live items by row id, in the shape of `items_by_key`."""
        found: dict[int, tuple[Any, ...]] = {}
        for chunk in chunks(ids):
            rows = self.db.execute(
                "SELECT i.id, i.seq, n.path, i.key, i.value, i.created_at, i.updated_at, i.ttl FROM items i "
                f"JOIN namespaces n ON n.id = i.ns WHERE i.id IN ({marks(len(chunk))}) AND i.kind = 'item' "
                "AND i.closed IS NULL AND (i.expires_at IS NULL OR i.expires_at > ?)",
                (*chunk, now),
            )
            found.update((row[0], row) for row in rows)
        return found

    def items_below(self, prefix: str, now: int, *, unindexed: bool = False) -> Iterator[tuple[Any, ...]]:
        """Live items below a namespace (or only those without vectors), last written first, as in `items_by_key`."""
        low, high = prefix_bounds(prefix)
        without = f"AND NOT EXISTS (SELECT 1 FROM vectors v WHERE {VECTORS_OF_ITEM})"
        yield from self.db.execute(
            "SELECT i.id, i.seq, n.path, i.key, i.value, i.created_at, i.updated_at, i.ttl FROM namespaces n "
            "JOIN items i ON i.ns = n.id WHERE n.path >= ? AND n.path < ? AND i.closed IS NULL AND i.kind = 'item' "
            f"AND (i.expires_at IS NULL OR i.expires_at > ?) {without if unindexed else ''} "
            "ORDER BY i.updated_at DESC, i.seq DESC",
            (low, high, now),
        )

    def expired(self, now: int) -> list[str]:
        """Encoded namespaces that hold items whose time is over."""
        rows = self.db.execute(
            "SELECT DISTINCT n.path FROM items i JOIN namespaces n ON n.id = i.ns WHERE i.expires_at <= ? AND "
            "i.kind = 'item' ORDER BY n.path",
            (now,),
        )
        return [row[0] for row in rows]

    def namespaces(self, prefix: str, now: int) -> list[str]:
        """Encoded namespaces below `prefix` that hold live items, sorted."""
        low, high = prefix_bounds(prefix)
        rows = self.db.execute(
            "SELECT n.path FROM namespaces n WHERE n.path >= ? AND n.path < ? AND EXISTS (SELECT 1 FROM items i WHERE "
            "i.ns = n.id AND i.closed IS NULL AND i.kind = 'item' AND (i.expires_at IS NULL OR i.expires_at > ?)) "
            "ORDER BY n.path",
            (low, high, now),
        )
        return [row[0] for row in rows]
