"""Everything that is read from the journal."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import orjson

from langchain_memlayer.types import QUARANTINED, VISIBLE, Event, Row, SlabBlock, Triple, prefix_bounds
from langchain_memlayer.values import loads

VECTOR_SHIFT = 40
_CHUNK = 500

ROW_COLUMNS = (
    "i.id, i.seq, n.path, i.key, i.kind, i.value, i.created_at, i.updated_at, i.closed, i.metadata, i.user_id, "
    "i.agent_id, i.run_id, i.session_id, i.role, i.name, i.message_id, i.time, i.hash, i.sources, i.turns, "
    "i.valid_at, i.invalid_at, i.state, i.asks, i.given, i.count, i.last_seen, i.last_event"
)
ROW_FROM = "items i JOIN namespaces n ON n.id = i.ns"

_TRIPLE = "t.id, t.item, i.key, t.source, t.relation, t.destination, i.valid_at"

Area = Literal["items", "memories"]
_KINDS = {"items": "i.kind = 'item'", "memories": "i.kind <> 'item'"}

_HOT = {
    "items": "i.id, i.seq, i.expires_at",
    "memories": "i.id, i.seq, i.kind, i.user_id, i.agent_id, i.run_id, i.session_id, i.name, i.time, i.created_at, "
    "i.state, i.asks, i.turns, i.closed, i.terms",
}
HOT_NAMES: dict[Area, tuple[str, ...]] = {
    "items": ("expires",),
    "memories": (
        "kind", "user_id", "agent_id", "run_id", "session_id", "name", "time", "created_at", "state", "asks", "turns",
        "closed", "terms",
    ),
}  # fmt: skip


def to_row(r: Sequence[Any]) -> Row:
    """The memory version in one row of `ROW_COLUMNS`."""
    fields: list[Any] = [
        *r[:9], loads(r[9]) if r[9] else {}, *r[10:19],
        tuple(orjson.loads(r[19])) if r[19] else (), tuple(orjson.loads(r[20])) if r[20] else (),
        r[21], r[22], r[23] or 0, bool(r[24]), bool(r[25]), r[26] or 1, r[27], r[28] or "add",
    ]  # fmt: skip
    return Row(*fields)


def _to_event(r: Sequence[Any]) -> Event:
    sources = tuple(orjson.loads(r[8])) if r[8] else ()
    fields: list[Any] = [*r[:8], sources, *r[9:12], orjson.loads(r[12]) if r[12] else {}]
    return Event(*fields)


def _shown(ids: Mapping[str, str], *, quarantined: bool) -> tuple[str, list[str]]:
    """The condition for live memories of a scope whose triples are shown, and its values."""
    states = f"{VISIBLE}, {QUARANTINED}" if quarantined else str(VISIBLE)
    wanted = "".join(f" AND i.{name} = ?" for name in ids)
    return f"i.closed IS NULL AND coalesce(i.state, {VISIBLE}) IN ({states}){wanted}", list(ids.values())


def marks(n: int) -> str:
    """`n` placeholders."""
    return ",".join("?" * n)


class Reader:
    """Reads of one connection. Numbers of rows are what SQL returns; every method is one or two statements."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def last_seq(self) -> int:
        """The position of the last commit."""
        return int(self.db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0)

    def meta(self, key: str) -> str | None:
        """A setting that is kept with the journal."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def mark(self, seq: int) -> str | None:
        """What tells the event at a position from any other that might stand there in a restored journal."""
        row = self.db.execute("SELECT recorded_at, ns, key, op FROM events WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else blake2b(orjson.dumps(row), digest_size=16).hexdigest()

    def batch(self, scope: str, batch: str) -> list[Any] | None:
        """What the commit of this batch id reported, or None when there was none."""
        row = self.db.execute("SELECT result FROM batches WHERE scope = ? AND batch = ?", (scope, batch)).fetchone()
        return None if row is None else list(orjson.loads(row[0]))

    # -- BaseStore items ------------------------------------------------------------------------------------------

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
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
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
        without = f"AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.id = (i.ns << {VECTOR_SHIFT}) | i.id)"
        yield from self.db.execute(
            "SELECT i.id, i.seq, n.path, i.key, i.value, i.created_at, i.updated_at, i.ttl FROM namespaces n "
            "JOIN items i ON i.ns = n.id WHERE n.path >= ? AND n.path < ? AND i.closed IS NULL AND i.kind = 'item' "
            f"AND (i.expires_at IS NULL OR i.expires_at > ?) {without if unindexed else ''} "
            "ORDER BY i.updated_at DESC, i.seq DESC",
            (low, high, now),
        )

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

    # -- memories -------------------------------------------------------------------------------------------------

    def memories(self, where: str, params: Sequence[Any], *, tail: str = "") -> list[Row]:
        """Memory versions by an SQL condition on `i` and `n`."""
        rows = self.db.execute(
            f"SELECT {ROW_COLUMNS} FROM {ROW_FROM} WHERE i.kind <> 'item' AND ({where}) {tail}", tuple(params)
        )
        return [to_row(row) for row in rows]

    def memory(self, key: str) -> Row | None:
        """The current version of a memory, or None."""
        rows = self.memories("i.key = ? AND i.closed IS NULL", (key,))
        return rows[0] if rows else None

    def memories_by_row(self, ids: Sequence[int]) -> dict[int, Row]:
        """Memory versions by row id, ended ones too."""
        found = {}
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            for row in self.memories(f"i.id IN ({marks(len(chunk))})", chunk):
                found[row.id] = row
        return found

    def pending(self) -> list[int]:
        """The calls whose facts are still to be found, oldest first."""
        return [row[0] for row in self.db.execute("SELECT id FROM pending ORDER BY id")]

    def pending_turns(self, pending: int) -> list[Row]:
        """The turns of one of these calls that are still live, in order."""
        found = self.db.execute("SELECT turns FROM pending WHERE id = ?", (pending,)).fetchone()
        rows = self.memories_by_row(orjson.loads(found[0])) if found else {}
        return [row for _, row in sorted(rows.items()) if row.closed is None]

    def history(self, key: str) -> list[Event]:
        """Every event of one memory, in order."""
        rows = self.db.execute(
            "SELECT seq, recorded_at, key, kind, op, prev, value, actor, sources, valid_at, invalid_at, batch, detail "
            "FROM events WHERE key = ? AND kind <> 'item' ORDER BY seq",
            (key,),
        )
        return [_to_event(row) for row in rows]

    def matches(self, expression: str) -> list[int]:
        """Row ids of the memories whose keywords match an FTS5 expression."""
        rows = self.db.execute("SELECT rowid FROM keywords WHERE keywords MATCH ?", (expression,))
        return [row[0] for row in rows]

    def frequencies(self, terms: Sequence[str], namespace: int | None) -> dict[str, int]:
        """How many memories of a namespace (None: of all) have each term."""
        where = "" if namespace is None else f"AND ns = {namespace}"
        rows = self.db.execute(
            f"SELECT term, sum(df) FROM terms WHERE term IN ({marks(len(terms))}) {where} GROUP BY term", tuple(terms)
        )
        return dict(rows.fetchall())

    def session_turns(
        self, path: str, session: str, *, most: int, below: int | None = None, above: int | None = None
    ) -> list[Row]:
        """The live turns of a session next below or above a row, nearest first."""
        side, order = ("<", "DESC") if below is not None else (">", "ASC")
        return self.memories(
            f"n.path = ? AND i.session_id = ? AND i.kind = 'turn' AND i.closed IS NULL AND i.id {side} ?",
            (path, session, below if below is not None else above),
            tail=f"ORDER BY i.id {order} LIMIT {int(most)}",
        )

    def has_triples(self) -> bool:
        """Whether the folder has any triples."""
        return self.db.execute("SELECT 1 FROM triples LIMIT 1").fetchone() is not None

    def versions_at(self, prefix: str, *, as_of: int | None, known_at: int | None) -> list[int]:
        """The memory versions below a namespace that held at one time, by what was known at another.

        Args:
            prefix: The namespace.
            as_of: When they held, microseconds since 1970 UTC; None for what had not been ended.
            known_at: What was recorded later does not count; None for everything.
        """
        low, high = prefix_bounds(prefix)
        position = sys.maxsize
        if known_at is not None:
            found = self.db.execute("SELECT max(seq) FROM events WHERE recorded_at <= ?", (known_at,)).fetchone()[0]
            position = found or 0
        held, values = "(i.closed IS NULL OR i.closed > ?)", [position]
        if as_of is not None:
            held = "coalesce(i.valid_at, i.created_at) <= ? AND (i.closed IS NULL OR i.closed > ? OR i.invalid_at > ?)"
            values = [as_of, position, as_of]
        rows = self.db.execute(
            "SELECT i.id FROM namespaces n JOIN items i ON i.ns = n.id WHERE n.path >= ? AND n.path < ? AND "
            f"i.kind <> 'item' AND i.id <= ? AND {held}",
            (low, high, position, *values),
        )
        return [row[0] for row in rows]

    def triples(self, prefix: str) -> list[tuple[Any, ...]]:
        """Triples of live memories below a namespace: item, memory id, source, relation, destination, valid_at, seq."""
        low, high = prefix_bounds(prefix)
        return self.db.execute(
            "SELECT t.item, i.key, t.source, t.relation, t.destination, i.valid_at, i.seq FROM namespaces n JOIN "
            "triples t ON t.ns = n.id JOIN items i ON i.id = t.item WHERE n.path >= ? AND n.path < ? AND "
            "i.closed IS NULL ORDER BY t.id",
            (low, high),
        ).fetchall()

    def scope_triples(self, prefix: str, ids: Mapping[str, str], *, quarantined: bool) -> list[tuple[Any, ...]]:
        """The triples that a scope's graph shows: id, item, memory id, source, relation, destination, valid_at.

        Args:
            prefix: The namespace that the scope's memories lie below.
            ids: What `user_id`, `agent_id` and `run_id` must be, as far as given.
            quarantined: Whether quarantined memories count too.
        """
        low, high = prefix_bounds(prefix)
        where, values = _shown(ids, quarantined=quarantined)
        return self.db.execute(
            f"SELECT {_TRIPLE} FROM namespaces n JOIN triples t ON t.ns = n.id JOIN items i ON i.id = t.item WHERE "
            f"n.path >= ? AND n.path < ? AND {where} ORDER BY t.id",
            (low, high, *values),
        ).fetchall()

    def changed_triples(
        self, prefix: str, ids: Mapping[str, str], since: int, *, quarantined: bool
    ) -> tuple[list[tuple[Any, ...]], list[int]] | None:
        """The `scope_triples` of what changed after position `since`, and all items that did; None after a reset."""
        touched = self._touched(prefix, since)
        if touched is None:
            return None
        return self._triples_where("t.item", touched, ids, quarantined=quarantined), touched

    def triples_by_id(
        self, triples: Sequence[int], ids: Mapping[str, str], *, quarantined: bool
    ) -> list[tuple[Any, ...]]:
        """Those of some triples that a scope's graph shows, in the shape of `scope_triples`."""
        return self._triples_where("t.id", triples, ids, quarantined=quarantined)

    def _triples_where(
        self, column: str, numbers: Sequence[int], ids: Mapping[str, str], *, quarantined: bool
    ) -> list[tuple[Any, ...]]:
        where, values = _shown(ids, quarantined=quarantined)
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(numbers), _CHUNK):
            chunk = numbers[start : start + _CHUNK]
            found += self.db.execute(
                f"SELECT {_TRIPLE} FROM triples t JOIN items i ON i.id = t.item WHERE {where} "
                f"AND {column} IN ({marks(len(chunk))})",
                (*values, *chunk),
            ).fetchall()
        return sorted(found)

    def triples_of(self, item: int) -> tuple[Triple, ...]:
        """The triples of one memory version."""
        rows = self.db.execute("SELECT source, relation, destination FROM triples WHERE item = ? ORDER BY id", (item,))
        return tuple(Triple(*row) for row in rows)

    def quotes_of(self, fact: int) -> list[tuple[int, str | None]]:
        """The turns that a fact cites, each with the words that support it."""
        return self.db.execute("SELECT turn, quote FROM links WHERE fact = ? ORDER BY turn", (fact,)).fetchall()

    def facts_changed(self, path: str, since: int) -> bool:
        """Whether facts of a namespace were added, changed or ended after a position."""
        row = self.db.execute(
            "SELECT 1 FROM events WHERE ns = (SELECT id FROM namespaces WHERE path = ?) AND seq > ? AND kind = 'fact' "
            "AND op IN ('add', 'update', 'delete') LIMIT 1",
            (path, since),
        ).fetchone()
        return row is not None

    def with_relatives(self, rows: Sequence[Row]) -> list[Row]:
        """All versions of the given memories, of the turns that only they cite, and of facts that cite only these."""
        found = {row.id: row for row in rows}
        fresh = list(rows)
        while fresh:
            keys = {row.key for row in found.values()}
            versions = [r for key in {row.key for row in fresh} for r in self.memories("i.key = ?", (key,))]
            linked = [r for row in versions for r in self._sole_relatives(row, keys)]
            fresh = [r for r in (*versions, *linked) if r.id not in found]
            found.update((r.id, r) for r in fresh)
        return list(found.values())

    def _sole_relatives(self, row: Row, keys: set[str]) -> list[Row]:
        mine, other = ("fact", "turn") if row.kind == "fact" else ("turn", "fact")
        linked = self.memories(f"i.id IN (SELECT {other} FROM links WHERE {mine} = ?)", (row.id,))
        sole: list[Row] = []
        for relative in linked:
            beside = self.memories(f"i.id IN (SELECT {mine} FROM links WHERE {other} = ?)", (relative.id,))
            if all(b.key in keys for b in beside):
                sole.append(relative)
        return sole

    # -- slabs ----------------------------------------------------------------------------------------------------

    def namespace_id(self, path: str) -> int | None:
        """The number of an encoded namespace."""
        row = self.db.execute("SELECT id FROM namespaces WHERE path = ?", (path,)).fetchone()
        return None if row is None else int(row[0])

    def namespace_count(self, prefix: str, *, most: int) -> int:
        """How many namespaces there are below a prefix, counted up to `most`."""
        low, high = prefix_bounds(prefix)
        row = self.db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM namespaces WHERE path >= ? AND path < ? LIMIT ?)", (low, high, most)
        ).fetchone()
        return int(row[0])

    def load(self, prefix: str, area: Area, *, dims: int, ended: bool = False) -> SlabBlock:
        """Everything live below a namespace (with `ended`: every version). To be called in a snapshot."""
        low, high = prefix_bounds(prefix)
        sql = (
            f"SELECT {_HOT[area]}, v.data FROM namespaces n JOIN items i ON i.ns = n.id LEFT JOIN "
            f"vectors v ON v.id = (i.ns << {VECTOR_SHIFT}) | i.id WHERE n.path >= ? AND n.path < ? AND {_KINDS[area]}"
        )
        rows = self.db.execute(sql if ended else f"{sql} AND i.closed IS NULL", (low, high)).fetchall()
        # In the order in which they were written, whichever index SQLite took: neighbours of a turn lie beside it.
        rows.sort(key=itemgetter(0))
        return _block(self.last_seq(), rows, area, dims=dims, removed=[])

    def changes(self, prefix: str, area: Area, since: int, *, dims: int, ended: bool = False) -> SlabBlock | None:
        """What changed below a namespace after position `since`; None when a reset was among it. In a snapshot."""
        last, touched = self.last_seq(), self._touched(prefix, since)
        if touched is None:
            return None
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(touched), _CHUNK):
            chunk = touched[start : start + _CHUNK]
            found += self.db.execute(
                f"SELECT {_HOT[area]}, v.data FROM items i LEFT JOIN vectors v ON "
                f"v.id = (i.ns << {VECTOR_SHIFT}) | i.id WHERE i.id IN ({marks(len(chunk))}) AND {_KINDS[area]}"
                + ("" if ended else " AND i.closed IS NULL"),
                tuple(chunk),
            ).fetchall()
        present = {row[0] for row in found}
        return _block(last, found, area, dims=dims, removed=[i for i in touched if i not in present])

    def _touched(self, prefix: str, since: int) -> list[int] | None:
        """The items below a namespace that events after position `since` are about; None when one was a reset."""
        low, high = prefix_bounds(prefix)
        last = self.last_seq()
        below = "SELECT id FROM namespaces WHERE path >= ? AND path < ?"
        # A short tail is read through; a long one by namespace. The unary plus keeps SQLite from choosing otherwise.
        column = "+ns" if last - since <= 4096 else "ns"
        rows = self.db.execute(
            f"SELECT item, gone, op FROM events WHERE seq > ? AND ({column} IN ({below}) OR op = 'reset')"
            if column == "+ns"
            else f"SELECT item, gone, op FROM events WHERE ns IN ({below}) AND seq > ? UNION ALL "
            "SELECT item, gone, op FROM events WHERE ns = 0 AND seq > ?",
            (since, low, high) if column == "+ns" else (low, high, since, since),
        ).fetchall()
        if any(row[2] == "reset" for row in rows):
            return None
        return sorted({i for row in rows for i in row[:2] if i is not None})

    def counts(self) -> Mapping[str, int]:
        """Numbers for `stats`: live rows by kind, events, vectors, namespaces, triples."""
        one = "SELECT count(*) FROM "
        live = self.db.execute("SELECT kind, count(*) FROM items WHERE closed IS NULL GROUP BY kind")
        by_kind = dict(live.fetchall())
        tables = ("events", "vectors", "namespaces", "triples")
        return {
            "items": by_kind.get("item", 0),
            "facts": by_kind.get("fact", 0),
            "turns": by_kind.get("turn", 0),
            "ended": self.db.execute(one + "items WHERE closed IS NOT NULL").fetchone()[0],
            **{name: self.db.execute(one + name).fetchone()[0] for name in tables},
        }


def _block(seq: int, rows: list[tuple[Any, ...]], area: Area, *, dims: int, removed: list[int]) -> SlabBlock:
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(HOT_NAMES[area]) + 3)
    # Without an embedder the vectors of an earlier one are left where they are.
    stored: Sequence[bytes | None] = columns[-1] if dims else (None,) * len(rows)
    owners = np.fromiter((k for k, d in enumerate(stored) if d is not None), np.int64)
    data = [d for d in stored if d is not None]
    if dims and any(len(d) != 2 * dims for d in data):
        owners = np.repeat(owners, [len(d) // (2 * dims) for d in data])
    return SlabBlock(
        seq=seq,
        ids=np.array(columns[0], np.int64),
        seqs=np.array(columns[1], np.int64),
        columns={name: _column(columns[k + 2]) for k, name in enumerate(HOT_NAMES[area])},
        owners=owners,
        codes=b"".join(data),
        removed=np.array(removed, np.int64),
    )


def _column(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    column = np.empty(len(values), object)
    column[:] = values
    return column
