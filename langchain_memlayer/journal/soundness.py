"""What a row must be so that reading can trust it: one rule for rows that are imported and for those that are there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_memlayer.errors import MemLayerError
from langchain_memlayer.journal import transfer
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.transfer import ITEMS, SECTIONS, Section, Type, Values
from langchain_memlayer.types import FIRST_TIME, LAST_TIME, MEMORY_ROOT, Scope

_TYPES: dict[Type, tuple[type, ...]] = {"int": (int,), "real": (float, int), "text": (str,), "json": (object,)}
_INT64 = 1 << 63
_TIMES = frozenset(
    ("recorded_at", "created_at", "updated_at", "time", "valid_at", "invalid_at", "last_seen", "next_at", "set_aside")
)
_SHAPES: Mapping[str, tuple[type, type | None]] = {
    "metadata": (dict, None), "detail": (dict, None), "sources": (list, str), "turns": (list, int),
    "fields": (list, str), "result": (dict, None),
}  # fmt: skip
_KINDS = ("item", "fact", "turn")
_IDS = ("user_id", "agent_id", "run_id")
_FLAGS: Mapping[str, range] = {
    "state": range(4),
    "asks": range(2),
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
    return None


def _wrong_value(name: str, kind: Type, value: Any) -> str | None:
    right = isinstance(value, _TYPES[kind]) and (kind == "json" or not isinstance(value, bool))
    if not right or (kind == "int" and not -_INT64 <= value < _INT64) or (kind == "real" and not math.isfinite(value)):
        return f"{name!r} is not of its type"
    if kind == "text" and "\x00" in value:
        return f"{name!r} has a NUL character"
    if name in _TIMES and not FIRST_TIME <= value <= LAST_TIME:
        return f"{name!r} is no time of the calendar"
    if name in _FLAGS and value not in _FLAGS[name]:
        return f"{name!r} is out of its range"
    if name == "kind" and value not in _KINDS:
        return "'kind' is none of item, fact and turn"
    if kind == "json" and name in _SHAPES:
        form, part = _SHAPES[name]
        parts: list[Any] = list(value) if isinstance(value, (list, dict)) and part is not None else []
        if (
            not isinstance(value, form)
            or not all(type(one) is part for one in parts)
            or (name == "result" and not _is_report(value))
        ):
            return f"{name!r} has another form"
    return None


def _is_report(value: Any) -> bool:
    """Whether a batch's report has the lists of what it did, and texts and ids in them."""
    listed = all(isinstance(value.get(kind), list) for kind in ("turns", "facts", "rejected", "added", "removed"))
    done = [*value["turns"], *value["facts"]] if listed else []
    return listed and all(isinstance(one, list) and len(one) == 4 and isinstance(one[0], str) for one in done)


def wrong_owner(values: Values, path: str | None) -> str | None:
    """Whether an item's ids are not those of its encoded namespace, so that it would be shown to somebody else."""
    if path is None:
        return "its namespace is not there"
    ids = {name: values.get(name) for name in _IDS}
    if values["kind"] == "item":
        return "it is no memory, but in their namespace" if path.startswith(MEMORY_ROOT) or any(ids.values()) else None
    try:
        right = Scope(**ids).partition == path
    except MemLayerError:
        right = False
    return None if right else "its user_id, agent_id and run_id are not those of its namespace"


def unsound(reader: Reader) -> Iterator[tuple[str, str, str]]:
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
                    wrong = None if values["path"].endswith(".") else "'path' is no namespace"
                elif wrong is None and section is ITEMS:
                    wrong = wrong_owner(values, paths.get(values["ns"]))
            if wrong is not None:
                yield section.table, ", ".join(map(str, key)), wrong


def _parsed(section: Section, row: Sequence[Any]) -> tuple[Values, str | None]:
    try:
        return transfer.plain_row(section, row), None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}, "it has a text that is no JSON"


def _rows(reader: Reader, section: Section) -> Iterator[tuple[tuple[Any, ...], Sequence[Any] | None]]:
    """Every row with its key; None for one that the database itself cannot give out."""
    columns, key, size = ", ".join(section.columns), ", ".join(section.key), len(section.key)
    spot = " AND ".join(f"{name} = ?" for name in section.key)
    keys = [tuple(row) for row in reader.db.execute(f"SELECT {key} FROM {section.table} ORDER BY {key}")]
    for start in range(0, len(keys), transfer.PAGE):
        page = keys[start : start + transfer.PAGE]
        between = (*page[0], *page[-1])
        marked = ", ".join("?" * size)
        try:
            found = reader.db.execute(
                f"SELECT {columns} FROM {section.table} WHERE ({key}) >= ({marked}) AND ({key}) <= ({marked}) "
                f"ORDER BY {key}",
                between,
            ).fetchall()
            yield from zip(page, found, strict=True)
        except Exception:  # noqa: BLE001 (whatever a driver raises for bytes that are no text: the row is named)
            for one in page:
                yield one, _single(reader, f"SELECT {columns} FROM {section.table} WHERE {spot}", one)


def _single(reader: Reader, sql: str, key: tuple[Any, ...]) -> Sequence[Any] | None:
    try:
        found: Sequence[Any] | None = reader.db.execute(sql, key).fetchone()
    except Exception:  # noqa: BLE001 (as above)
        return None
    return found
