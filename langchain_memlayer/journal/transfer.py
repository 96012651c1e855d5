"""The journal's rows as plain values: on their way to another journal, and what they must be for reading to trust them.

Derived columns stay behind, but for the keyword terms, which go as they are.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from langchain_memlayer.errors import JournalError, MemLayerError
from langchain_memlayer.index.keywords import well_formed
from langchain_memlayer.journal.cache_reader import KINDS
from langchain_memlayer.journal.database import CREATED_AT, DAMAGED, VECTORS_OF_ITEM, embedder_key, is_report
from langchain_memlayer.journal.fork_notes import NOTES, to_fork
from langchain_memlayer.journal.reader import Reader, are_turns
from langchain_memlayer.journal.schema import columns
from langchain_memlayer.journal.writer import Writer, keys_of
from langchain_memlayer.json_values import dumps, loads
from langchain_memlayer.types import FIRST_TIME, IDS, LAST_TIME, MEMORY_ROOT, Scope, ToRead

Type = Literal["int", "real", "text", "json"]
Values = dict[str, Any]

PAGE = 500


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one table.

    Attributes:
        name: What a row of it is called.
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


_JSON = frozenset(("sources", "detail", "metadata", "turns", "fields", "result"))
_DERIVED = frozenset(("terms", "source_key", "destination_key"))
_OF_SQL: Mapping[str, Type] = {"INTEGER": "int", "REAL": "real", "TEXT": "text"}


def _section(name: str, table: str, *key: str) -> Section:
    """The section of a table as it was made, told apart by its primary key unless a `key` is given."""
    described = [column for column in columns()[table] if column[0] not in _DERIVED]
    types: dict[str, Type] = {column: "json" if column in _JSON else _OF_SQL[sql] for column, sql, _, _ in described}
    key = key or tuple(column for column, _, _, place in described if place)
    needed = dict.fromkeys((*key, *(column for column, _, needed, _ in described if needed)))
    others = {column: kind for column, kind in types.items() if column not in needed}
    return Section(name, table, {column: types[column] for column in needed}, others, key)


ITEMS = _section("item", "items")
"""Items and memories in all versions. A row also has `terms`, those of its keywords, and `vectors`, float16 bytes."""
_TRIPLES = _section("triple", "triples")
_BATCHES = _section("batch", "batches", "seq", "scope", "batch")

SECTIONS = {
    s.name: s
    for s in (
        _section("namespace", "namespaces"), _section("event", "events"), ITEMS, _section("link", "links"), _TRIPLES,
        _section("unread", "unread"), _BATCHES,
    )
}  # fmt: skip
"""In the order in which they go."""


def count(reader: Reader) -> int:
    """How many rows there are to go."""
    tables = (section.table for section in SECTIONS.values())
    return sum(int(reader.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables)


def settings(reader: Reader) -> dict[str, Any]:
    """The settings that belong to the content, not to the place: when the store was made, and its embedders."""
    embedders = {area: text for area in KINDS if (text := reader.meta(embedder_key(area)))}
    try:
        return {
            "created_at": int(reader.meta(CREATED_AT) or 0),
            "embedders": {area: orjson.loads(text) for area, text in embedders.items()},
        }
    except DAMAGED as error:
        raise damaged_row("A setting", type(error).__name__) from error


def write_settings(tx: Writer, settings: Mapping[str, Any]) -> None:
    """Take over what `settings` gave."""
    tx.set_meta(CREATED_AT, str(settings["created_at"]))
    for area, record in settings["embedders"].items():
        tx.set_meta(embedder_key(area), orjson.dumps(record).decode())


def rows(reader: Reader, section: Section) -> Iterator[Values]:
    """All rows of a section in order, without their NULLs. To be called in a snapshot.

    Raises:
        JournalError: one of them is damaged.
    """
    if section is _BATCHES:
        # Few and small. Texts sort differently in each database, so they are sorted here.
        batches = reader.db.execute("SELECT seq, scope, batch, result FROM batches").fetchall()
        sound = [_sound_row(section, row, {}) for row in batches]
        yield from sorted(sound, key=lambda values: [values[name] for name in section.key])
        return
    for page in _pages(reader, section):
        beside = _terms_and_vectors(reader, page) if section is ITEMS else {}
        for row in page:
            yield _sound_row(section, row, beside.get(row[0], {}))


def _sound_row(section: Section, row: Sequence[Any], beside: Values) -> Values:
    try:
        values = plain_row(section, row)
        wrong = wrong_values(section, values)
    except DAMAGED as error:
        raise damaged_row(f"Row {row[0]} of {section.table}", type(error).__name__) from error
    packed = all(isinstance(part, (bytes, memoryview)) for part in beside.values())
    if not wrong and not (packed and well_formed(bytes(beside.get("terms", b"")))):
        wrong = "terms or vectors are none"
    if wrong:
        raise damaged_row(f"Row {row[0]} of {section.table}", wrong)
    return values | {name: bytes(part) for name, part in beside.items()}


def damaged_row(place: str, wrong: str) -> JournalError:
    """The error for what nothing can be exported with."""
    return JournalError(
        f"{place} is damaged ({wrong}), and no file with it could be imported: `memlayer doctor` names all such. "
        "Restore a backup, or forget() whose memory it is."
    )


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


def _terms_and_vectors(reader: Reader, page: Sequence[Any]) -> dict[int, Values]:
    """The terms and vectors of items, where they have some."""
    records = reader.db.execute(
        f"SELECT i.id, i.terms, v.data FROM items i LEFT JOIN vectors v ON {VECTORS_OF_ITEM} "
        "WHERE i.id BETWEEN ? AND ?",
        (page[0][0], page[-1][0]),
    )
    return {
        item: ({"terms": terms} if terms else {}) | ({} if vector_bytes is None else {"vectors": vector_bytes})
        for item, terms, vector_bytes in records
    }


def plain_row(section: Section, row: Sequence[Any]) -> Values:
    """A row's values by column, JSON texts as what they say."""
    plain = {}
    for (name, kind), value in zip(section.columns.items(), row, strict=True):
        if value is not None:
            plain[name] = loads(value) if kind == "json" else value
    if plain.get("kind") == "item" and section is ITEMS:
        plain["value"] = loads(plain["value"])
    return plain


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
    terms = (None if one["kind"] == "item" else one.get("terms", b"") for one in values)
    rows = [(*_stored(section, one), packed) for one, packed in zip(values, terms, strict=True)]
    _insert(tx, "items", [*columns, "terms"], rows)
    _insert(tx, "vectors", ["id", "data"], [(one["id"], one["vectors"]) for one in values if "vectors" in one])


def _insert(tx: Writer, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        marked = ", ".join("?" * len(columns))
        tx.db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marked})", rows)


def _stored(section: Section, values: Values) -> tuple[Any, ...]:
    plain = section is ITEMS and values["kind"] == "item"
    return tuple(
        dumps(values[name]) if name in values and (kind == "json" or (plain and name == "value")) else values.get(name)
        for name, kind in section.columns.items()
    )


def is_empty(reader: Reader) -> bool:
    """Whether nothing was ever written."""
    tables = ("events", "items", "namespaces")
    return all(reader.db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None for table in tables)


# -- what a row must be: one rule for rows that are imported and for those that are there ------------------------------

_TYPES: dict[Type, tuple[type, ...]] = {"int": (int,), "real": (float, int), "text": (str,), "json": (object,)}
_INT64 = 1 << 63
_UNREADABLE = (sqlite3.DatabaseError, *DAMAGED)
"""What is raised for a row whose bytes are no text; in PostgreSQL none can be stored."""
_TIMES = frozenset(
    ("recorded_at", "created_at", "updated_at", "time", "valid_at", "invalid_at", "last_seen", "next_at", "set_aside")
)
_SHAPES: Mapping[str, tuple[type, type | None]] = {
    "metadata": (dict, None), "detail": (dict, None), "sources": (list, str), "turns": (list, int),
    "fields": (list, str), "result": (dict, None), "value": (dict, None),
}  # fmt: skip
_KINDS = ("item", "fact", "turn", "profile")
_RANGES: Mapping[str, range] = {
    # Behind a higher one there would be no room for others.
    "id": range(1 << 62),
    "seq": range(1 << 62),
    "attempts": range(1 << 31),
    "utc_offset": range(-86_399, 86_400),
    "state": range(4),
    "asks": range(3),
    "given": range(2),
    "read": range(2),
    "count": range(1, _INT64),
}


def wrong_values(section: Section, values: Values) -> str | None:
    """What is wrong with the values of one row, JSON parsed, NULLs left out; None when nothing is."""
    missing = [name for name in section.needed if name not in values]
    if missing:
        return f"{missing[0]!r} is missing"
    columns: dict[str, Type] = dict(section.columns)
    if values.get("kind") == "item" and section is ITEMS:
        columns["value"] = "json"
    for name, kind in columns.items():
        if name in values and (wrong := _wrong_value(name, kind, values[name])):
            return wrong
    if section.name == "unread" and not are_turns(ToRead.of(values.get("detail", {})).turns):
        return "'detail' has another form"
    return None


def _wrong_value(name: str, kind: Type, value: Any) -> str | None:
    right = isinstance(value, _TYPES[kind]) and (kind == "json" or not isinstance(value, bool))
    if not right or (kind == "int" and not -_INT64 <= value < _INT64) or (kind == "real" and not math.isfinite(value)):
        return f"{name!r} is not of its type"
    if kind == "text" and "\x00" in value:
        return f"{name!r} has a NUL character"
    if name in _TIMES and not FIRST_TIME <= value <= LAST_TIME:
        return f"{name!r} is no time of the calendar"
    if name == "ttl" and not 0 < value <= LAST_TIME:
        return "'ttl' is no time to live"
    if name in _RANGES and value not in _RANGES[name]:
        return f"{name!r} is out of its range"
    if name == "path" and not _is_path(value):
        return "'path' is no namespace"
    if name == "kind" and value not in _KINDS:
        return "'kind' is none of item, fact, turn and profile"
    if kind == "json" and name in _SHAPES:
        form, part = _SHAPES[name]
        parts: list[Any] = list(value) if isinstance(value, (list, dict)) and part is not None else []
        if (
            not isinstance(value, form)
            or not all(type(one) is part for one in parts)
            or (name == "result" and not is_report(value))
        ):
            return f"{name!r} has another form"
    return None


def _is_path(path: str) -> bool:
    """Whether it is an encoded namespace, and one that notes a fork says which."""
    try:
        return path.endswith(".") and (not path.startswith(NOTES) or bool(to_fork(path)))
    except DAMAGED:
        return False


def wrong_owner(values: Values, path: str | None) -> str | None:
    """Whether an item's ids are not those of its encoded namespace, so that it would be shown to somebody else."""
    if path is None:
        return "its namespace is not there"
    ids = {name: values.get(name) for name in IDS}
    if values["kind"] == "item":
        return "it is no memory, but in their namespace" if path.startswith(MEMORY_ROOT) or any(ids.values()) else None
    try:
        right = Scope(**ids).partition == path
    except MemLayerError:
        right = False
    return None if right else "its user_id, agent_id and run_id are not those of its namespace"


def unsound_rows(reader: Reader) -> Iterator[tuple[str, str, str]]:
    """All rows that reading cannot trust: the table, the row's key, and what is wrong. To be called in a snapshot."""
    paths: dict[int, str] = {}
    for section in SECTIONS.values():
        for key, row in _rows(reader, section):
            wrong: str | None = "it cannot be read"
            if row is not None:
                values, wrong = _parsed(section, row)
                wrong = wrong or wrong_values(section, values)
                if wrong is None and section.name == "namespace":
                    paths[values["id"]] = values["path"]
                elif wrong is None and (section is ITEMS or section.name == "unread"):
                    wrong = wrong_owner({"kind": "turn", **values}, paths.get(values["ns"]))
            if wrong is not None:
                yield section.table, ", ".join(map(str, key)), wrong


def _parsed(section: Section, row: Sequence[Any]) -> tuple[Values, str | None]:
    try:
        return plain_row(section, row), None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}, "it has a text that is no JSON"


def _rows(reader: Reader, section: Section) -> Iterator[tuple[tuple[Any, ...], Sequence[Any] | None]]:
    """Every row with its key; None for one that the database itself cannot give out."""
    columns, key, size = ", ".join(section.columns), ", ".join(section.key), len(section.key)
    spot = " AND ".join(f"{name} = ?" for name in section.key)
    keys = [tuple(row) for row in reader.db.execute(f"SELECT {key} FROM {section.table} ORDER BY {key}")]
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        between = (*page[0], *page[-1])
        marked = ", ".join("?" * size)
        try:
            records = reader.db.execute(
                f"SELECT {columns} FROM {section.table} WHERE ({key}) >= ({marked}) AND ({key}) <= ({marked}) "
                f"ORDER BY {key}",
                between,
            ).fetchall()
            rows = list(zip(page, records, strict=True))
        except _UNREADABLE:
            sql = f"SELECT {columns} FROM {section.table} WHERE {spot}"
            yield from ((one, _single(reader, sql, one)) for one in page)
        else:
            yield from rows


def _single(reader: Reader, sql: str, key: tuple[Any, ...]) -> Sequence[Any] | None:
    try:
        row: Sequence[Any] | None = reader.db.execute(sql, key).fetchone()
    except _UNREADABLE:
        return None
    return row
