"""The journal's rows on their way to another journal: in one order, as plain values, and back into tables.

Derived columns stay behind, but for the keyword terms, which go as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.read_base import VECTORS_OF_ITEM
from langchain_memlayer.journal.read_caches import KINDS
from langchain_memlayer.journal.settings import CREATED_AT, embedder_key
from langchain_memlayer.journal.write import Writer, keys_of
from langchain_memlayer.values import dumps, loads

Type = Literal["int", "real", "text", "json"]
Values = dict[str, Any]

PAGE = 500


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one table.

    Attributes:
        name: What a row of it is called.
        table: The table.
        needed: The columns that every row has, with their types.
        others: Those that may be missing, which is NULL.
        key: The columns that tell rows apart; rows go in their order.
    """

    name: str
    table: str
    needed: Mapping[str, Type]
    others: Mapping[str, Type]
    key: tuple[str, ...]

    @property
    def columns(self) -> dict[str, Type]:
        """All columns with their types."""
        return {**self.needed, **self.others}


_NAMESPACES = Section("namespace", "namespaces", {"id": "int", "path": "text"}, {}, ("id",))
_EVENTS = Section(
    "event", "events",
    {"seq": "int", "recorded_at": "int", "ns": "int", "key": "text", "kind": "text", "op": "text"},
    {
        "item": "int", "gone": "int", "prev": "text", "value": "text", "actor": "text", "sources": "json",
        "valid_at": "int", "invalid_at": "int", "batch": "text", "detail": "json",
    },
    ("seq",),
)  # fmt: skip
ITEMS = Section(
    "item", "items",
    {
        "id": "int", "ns": "int", "key": "text", "kind": "text", "value": "text", "created_at": "int",
        "updated_at": "int", "seq": "int",
    },
    {
        "closed": "int", "ttl": "real", "expires_at": "int", "metadata": "json", "user_id": "text", "agent_id": "text",
        "run_id": "text", "session_id": "text", "place": "int", "role": "text", "name": "text",
        "message_id": "text", "time": "int", "utc_offset": "int", "hash": "text", "sources": "json", "turns": "json",
        "valid_at": "int",
        "invalid_at": "int", "state": "int", "asks": "int", "given": "int", "read": "int", "count": "int",
        "last_seen": "int", "last_event": "text", "fields": "json",
    },
    ("id",),
)  # fmt: skip
"""Items and memories in all versions. A row also has `terms`, those of its keywords, and `vectors`, float16 bytes."""
_LINKS = Section("link", "links", {"fact": "int", "turn": "int"}, {"quote": "text"}, ("fact", "turn"))
_TRIPLES = Section(
    "triple", "triples",
    {"id": "int", "item": "int", "ns": "int", "source": "text", "relation": "text", "destination": "text"}, {}, ("id",),
)  # fmt: skip
_UNREAD = Section(
    "unread", "unread",
    {"id": "int", "ns": "int", "turns": "json", "attempts": "int", "next_at": "int", "recorded_at": "int"},
    {
        "user_id": "text", "agent_id": "text", "run_id": "text", "detail": "json", "reason": "text",
        "set_aside": "int",
    },
    ("id",),
)  # fmt: skip
_BATCHES = Section(
    "batch", "batches", {"seq": "int", "scope": "text", "batch": "text", "result": "json"}, {},
    ("seq", "scope", "batch"),
)  # fmt: skip

SECTIONS = {s.name: s for s in (_NAMESPACES, _EVENTS, ITEMS, _LINKS, _TRIPLES, _UNREAD, _BATCHES)}
"""In the order in which they go."""


def count(reader: Reader) -> int:
    """How many rows there are to go."""
    tables = (section.table for section in SECTIONS.values())
    return sum(int(reader.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables)


def settings(reader: Reader) -> dict[str, Any]:
    """The settings that belong to the content, not to the place: when the store was made, and its embedders."""
    embedders = {area: text for area in KINDS if (text := reader.meta(embedder_key(area)))}
    return {
        "created_at": int(reader.meta(CREATED_AT) or 0),
        "embedders": {area: orjson.loads(text) for area, text in embedders.items()},
    }


def write_settings(tx: Writer, found: Mapping[str, Any]) -> None:
    """Take over what `settings` gave."""
    tx.set_meta(CREATED_AT, str(found["created_at"]))
    for area, record in found["embedders"].items():
        tx.set_meta(embedder_key(area), orjson.dumps(record).decode())


def rows(reader: Reader, section: Section) -> Iterator[Values]:
    """All rows of a section in order, without their NULLs. To be called in a snapshot."""
    if section is _BATCHES:
        # Few and small. Texts sort differently in each database, so they are sorted here.
        found = reader.db.execute("SELECT seq, scope, batch, result FROM batches").fetchall()
        yield from (plain_row(section, row) for row in sorted(found, key=lambda row: tuple(row[:3])))
        return
    for page in _pages(reader, section):
        vectors = _vectors(reader, page) if section is ITEMS else {}
        terms = _terms(reader, page) if section is ITEMS else {}
        for row in page:
            values = plain_row(section, row)
            if terms.get(row[0]):
                values["terms"] = bytes(terms[row[0]])
            if row[0] in vectors:
                values["vectors"] = vectors[row[0]]
            yield values


def _pages(reader: Reader, section: Section) -> Iterator[list[Any]]:
    columns, key = ", ".join(section.columns), ", ".join(section.key)
    marked = ", ".join("?" * len(section.key))
    after: tuple[int, ...] = (-1,) * len(section.key)
    while True:
        page = reader.db.execute(
            f"SELECT {columns} FROM {section.table} WHERE ({key}) > ({marked}) ORDER BY {key} LIMIT {PAGE}", after
        ).fetchall()
        if not page:
            return
        yield page
        after = tuple(page[-1][: len(section.key)])


def _vectors(reader: Reader, page: Sequence[Any]) -> dict[int, bytes]:
    found = reader.db.execute(
        f"SELECT i.id, v.data FROM items i JOIN vectors v ON {VECTORS_OF_ITEM} WHERE i.id BETWEEN ? AND ?",
        (page[0][0], page[-1][0]),
    )
    return {item: bytes(data) for item, data in found}


def _terms(reader: Reader, page: Sequence[Any]) -> dict[int, bytes]:
    found = reader.db.execute("SELECT id, terms FROM items WHERE id BETWEEN ? AND ?", (page[0][0], page[-1][0]))
    return dict(found.fetchall())


def plain_row(section: Section, row: Sequence[Any]) -> Values:
    """A row's values by column, JSON texts as what they say."""
    found = {}
    for (name, kind), value in zip(section.columns.items(), row, strict=True):
        if value is not None:
            found[name] = loads(value) if kind == "json" else value
    if found.get("kind") == "item" and section is ITEMS:
        found["value"] = loads(found["value"])
    return found


def write_rows(tx: Writer, section: Section, values: Sequence[Values]) -> None:
    """Put rows of a section into the tables, with what is derived from them."""
    columns = section.columns
    if section is _TRIPLES:
        keyed = [(*_stored(section, one), *keys_of(one["source"], one["destination"])) for one in values]
        _insert(tx, "triples", [*columns, "source_key", "destination_key"], keyed)
        return
    if section is not ITEMS:
        _insert(tx, section.table, list(columns), [_stored(section, one) for one in values])
        return
    for one in values:
        if one["kind"] == "turn":
            one.setdefault("place", one["id"])
    _insert(tx, "items", [*columns, "terms"], [(*_stored(section, one), _words(one)) for one in values])
    _insert(tx, "vectors", ["id", "data"], [(one["id"], one["vectors"]) for one in values if "vectors" in one])


def _insert(tx: Writer, table: str, columns: Sequence[str], found: Sequence[Sequence[Any]]) -> None:
    if found:
        marked = ", ".join("?" * len(columns))
        tx.db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marked})", found)


def _stored(section: Section, values: Values) -> tuple[Any, ...]:
    return tuple(
        dumps(values[name]) if name in values and (kind == "json" or _is_json(section, name, values)) else
        values.get(name)
        for name, kind in section.columns.items()
    )  # fmt: skip


def _is_json(section: Section, name: str, values: Values) -> bool:
    return section is ITEMS and name == "value" and values["kind"] == "item"


def _words(values: Values) -> bytes | None:
    return None if values["kind"] == "item" else values.get("terms", b"")


def is_empty(reader: Reader) -> bool:
    """Whether nothing was ever written."""
    tables = ("events", "items", "namespaces")
    return all(reader.db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None for table in tables)
