"""What is read of a BaseStore's items, which keep their last value and may expire."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import orjson

from langchain_memlayer.journal.cache_reader import CacheReader
from langchain_memlayer.journal.database import VECTORS_OF_ITEM, sound
from langchain_memlayer.json_values import loads
from langchain_memlayer.types import LAST_TIME, prefix_bounds

HIGHEST = (1 << 63) - 1
PAGE, LONGEST_PAGE = 64, 4096
_MERGED = 32
"""So many namespaces are read side by side for their common order; of more it is made by sorting."""


ItemRow = tuple[Any, ...]
"""An item: id, seq, path, key, value, created_at, updated_at, ttl."""

_ITEM = "i.id, i.seq, n.path, i.key, i.value, i.created_at, i.updated_at, i.ttl"
_FROM = "items i JOIN namespaces n ON n.id = i.ns"
_LIVE_ITEM = "i.closed IS NULL AND i.kind = 'item' AND (i.expires_at IS NULL OR i.expires_at > ?)"


class ItemReader(CacheReader):
    """Reads of items."""

    def items_by_key(self, pairs: Iterable[tuple[str, str]], now: int) -> dict[tuple[str, str], ItemRow]:
        """Live items by (encoded namespace, key)."""
        sql = f"SELECT {_ITEM} FROM {_FROM} WHERE n.path = ? AND i.key = ? AND {_LIVE_ITEM}"
        rows = ((pair, self.db.execute(sql, (*pair, now)).fetchone()) for pair in pairs)
        return {pair: item for pair, row in rows if row is not None for item in _items([row])}

    def items_by_id(self, ids: Sequence[int], now: int) -> dict[int, ItemRow]:
        """Live items by row id."""
        rows = self.db.execute(_by_id(self.EACH), (orjson.dumps(ids).decode(), now))
        return {row[0]: row for row in _items(rows.fetchall())}

    def items_below(self, prefix: str, now: int, *, unindexed: bool = False) -> Iterator[ItemRow]:
        """Live items below a namespace (or only those without vectors), last written first.

        They are read page by page, so what is not taken costs nothing. To be called in a snapshot.
        """
        low, high = prefix_bounds(prefix)
        below = "SELECT id FROM namespaces WHERE path >= ? AND path < ?"
        spaces = self.db.execute(f"{below} LIMIT ?", (low, high, _MERGED + 1)).fetchall()
        if len(spaces) <= _MERGED:
            pages = [self._recent("i.ns = ?", space, now, unindexed=unindexed) for space in spaces]
        elif prefix:
            # The plus keeps SQLite from walking through the items of everybody for their order.
            pages = [self._recent(f"i.ns IN ({below})", (low, high), now, unindexed=unindexed, order="+")]
        else:
            pages = [self._recent("1 = 1", (), now, unindexed=unindexed)]
        yield from heapq.merge(*pages, key=lambda row: -row[1])

    def _recent(
        self, where: str, values: Sequence[Any], now: int, *, unindexed: bool, order: str = ""
    ) -> Iterator[ItemRow]:
        without = f"AND NOT EXISTS (SELECT 1 FROM vectors v WHERE {VECTORS_OF_ITEM})" if unindexed else ""
        sql = (
            f"SELECT {_ITEM} FROM {_FROM} WHERE {where} AND {_LIVE_ITEM} AND i.seq < ? {without} "
            f"ORDER BY {order}i.seq DESC LIMIT ?"
        )
        seq, size = HIGHEST, PAGE
        while True:
            page = self.db.execute(sql, (*values, now, seq, size)).fetchall()
            yield from _items(page)
            if len(page) < size:
                return
            seq, size = page[-1][1], min(4 * size, LONGEST_PAGE)

    def expiries(self, ids: Sequence[int], now: int) -> dict[int, int]:
        """Until when those of some items live that still do."""
        return dict(
            self.among("SELECT id, expires_at FROM items WHERE id IN (...) AND expires_at > ?", ids, after=(now,))
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
            f"i.ns = n.id AND {_LIVE_ITEM}) ORDER BY n.path",
            (low, high, now),
        )
        return [row[0] for row in rows]


@cache
def _by_id(each: str) -> str:
    """The statement that reads live items by row id."""
    # A list in JSON is read as it is, where SQLite sorts values of its own into a table first.
    source = f"{each.format('?')} CROSS JOIN {_FROM} WHERE i.id = CAST(one.value AS BIGINT)"
    return f"SELECT {_ITEM} FROM {source} AND {_LIVE_ITEM}"


def _items(rows: Iterable[Any]) -> Iterator[ItemRow]:
    return sound(rows, _to_item)


def _to_item(row: Sequence[Any]) -> ItemRow:
    number, seq, path, key, value, created, updated, ttl = row
    times = type(seq) is type(created) is type(updated) is int and (ttl is None or 0 < ttl <= LAST_TIME)
    content = loads(value)
    if not (isinstance(key, str) and times and isinstance(content, dict)):
        raise TypeError("a key, a time or a value of another type")
    return number, seq, path, key, content, created, updated, ttl
