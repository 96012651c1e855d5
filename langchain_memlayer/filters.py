r"""Filters: one parser, one tree, the same answer everywhere.

    {"role": "user", "score": {"$gte": 0.5, "$lt": 1}, "$or": [{"tags": {"$contains": "x"}}, {"a.b": None}]}

A filter is a mapping of fields to conditions, all of which must hold. A condition is a plain value, which means `$eq`,
or a mapping of operators, all of which must hold. A mapping without operators is a plain value.

Fields: a name is looked up as it stands; only when the record has no such key, as a path of keys joined by dots through
nested mappings. Lists are not entered.

Values are JSON values. Numbers equal by value (`1 == 1.0`, however big), a boolean is no number, lists equal item by
item and mappings key by key, at every depth. Datetimes (naive means UTC) and dates (their
beginning) compare as instants with times in any spelling and zone, and so do texts and numbers (seconds since 1970)
with a memory's own `created_at` and `updated_at`.

| operator | operand | holds when |
|---|---|---|
| `$eq` | any | the field equals it; `None` also when the field is missing |
| `$ne` | any | `$eq` does not hold |
| `$gt $gte $lt $lte` | number, string or time | both are numbers, strings (by code point), or times, in that order |
| `$in` | list | the field is there and equals one of the items |
| `$nin` | list | the field is there and equals none of the items |
| `$contains` | any | the field is a list with an equal item, or a string with this part |
| `$exists` | boolean | the field is there (even as `None`), or is not |
| `$and $or` | non-empty list | all, or any, of its items hold |
| `$not` | one of the same | it does not hold |

`$and`, `$or` and `$not` stand in place of a field, over filters, or in place of another operator, over conditions of
that field. So a missing field satisfies nothing but `$ne` (of anything but `None`), `$eq: None`, `$exists: false` and a
`$not`.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Final, Literal, cast

from langchain_memlayer.errors import InvalidFilter, shown
from langchain_memlayer.json_values import dumps, plain

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains", "exists"]

_MISSING: Final = object()
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
_ORDERED = (str, datetime)
OPERATORS = ("eq", "ne", *_ORDERS, "in", "nin", "contains", "exists")
_JOINS = ("and", "or", "not")
_BARE = frozenset((*OPERATORS, "icontains"))
"""How mem0 writes operators; a value of such keys alone would hold for nothing."""
_MAX_DEPTH = 32
_LONGEST_TIME = 100


class Filter(ABC):
    """A node of the tree: `Comparison`, `And`, `Or` or `Not`."""

    __slots__ = ()

    @abstractmethod
    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether the filter holds for a record of JSON values."""


@dataclass(frozen=True, slots=True)
class Comparison(Filter):
    """A leaf.

    Attributes:
        field: The field's name, not yet split at dots.
        op: The operator without its `$`.
        value: A plain JSON value (see `json_values.plain`): a list for `in` and `nin`, a boolean for `exists`, a
            number or a string for the orders.
    """

    field: str
    op: Operator
    value: Any

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether the field of the record is as it says."""
        stored = _lookup(record, self.field)
        match self.op:
            case "eq":
                return _equal(stored, self.value)
            case "ne":
                return not _equal(stored, self.value)
            case "exists":
                return (stored is not _MISSING) is self.value
        if stored is _MISSING:
            return False
        match self.op:
            case "in":
                return any(_equal(stored, item) for item in self.value)
            case "nin":
                return not any(_equal(stored, item) for item in self.value)
            case "contains":
                if isinstance(stored, datetime) and isinstance(self.value, str):
                    return self.value in stored.isoformat()
                if isinstance(stored, str):
                    return isinstance(self.value, str) and self.value in stored
                return isinstance(stored, list) and any(_equal(item, self.value) for item in stored)
        stored, value = _comparable(stored, self.value)
        alike = (_is_number(stored) and _is_number(value)) or (type(stored) is type(value) and type(stored) in _ORDERED)
        return alike and _ORDERS[self.op](stored, value)


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All of its parts hold; none of them is an `And`."""

    parts: tuple[Filter, ...]

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether all parts hold."""
        return all(part.matches(record) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """Any of its parts holds."""

    parts: tuple[Filter, ...]

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether any part holds."""
        return any(part.matches(record) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """Its part does not hold."""

    part: Filter

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether the part does not hold."""
        return not self.part.matches(record)


# -- parser -----------------------------------------------------------------------------------------------------------


def parse_filter(value: Any) -> Filter | None:
    """The tree of a filter as users write it.

    Args:
        value: A mapping as the module describes it, or None.

    Returns:
        The tree, which shares nothing with `value`; None when there is no condition (`None` or `{}`).

    Raises:
        InvalidFilter: `value` is no filter.
    """
    if value is None or (isinstance(value, Mapping) and not value):
        return None
    return _parse_filter(value, 0)


def _parse_filter(value: Any, depth: int) -> Filter:
    """A mapping of fields and joins."""
    _check_depth(depth)
    if not isinstance(value, Mapping):
        raise InvalidFilter(f"A filter must be a mapping such as {{'field': value}}, got {type(value).__name__}.")
    if not value:
        raise InvalidFilter("An empty filter inside $and, $or or $not has no meaning; remove it.")
    parts = []
    for key, inner in value.items():
        name = _checked_key(key)
        if name in ("AND", "OR", "NOT") and isinstance(inner, (list, tuple, Mapping)):
            raise InvalidFilter(f"Filter operator {shown(name)} is written '${name.lower()}'; for a field, use $eq.")
        if not name.startswith("$"):
            parts.append(_parse_condition(name, inner, depth + 1))
        elif name[1:] in _JOINS:
            parts.append(_parse_join(name, inner, lambda item: _parse_filter(item, depth + 1)))
        elif name[1:] in OPERATORS:
            raise InvalidFilter(
                f"Filter operator {shown(name)} needs a field: write {{'field': {{{shown(name)}: ...}}}}."
            )
        else:
            raise _unknown(name)
    return _all_of(parts)


def _parse_condition(field: str, value: Any, depth: int) -> Filter:
    """What one field must be: a plain value, or a mapping of operators."""
    _check_depth(depth)
    if not isinstance(value, Mapping) or not any(_checked_key(key).startswith("$") for key in value):
        copy = _checked_value(field, value)
        if isinstance(copy, dict) and copy and _BARE.issuperset(copy):
            raise InvalidFilter(
                f"The operators of {shown(field)} need a '$' ({', '.join(f'${op}' for op in (*OPERATORS, *_JOINS))}), "
                f"got {', '.join(copy)}; to compare the whole value, use $eq."
            )
        _refuse_operators(field, copy)
        return Comparison(field, "eq", copy)
    parts: list[Filter] = []
    for key, inner in value.items():
        name = _checked_key(key)
        if not name.startswith("$"):
            raise InvalidFilter(
                f"Invalid filter key {shown(name)} beside the operators of {shown(field)}; write "
                f"{shown(field + '.' + name)} as a field of its own, or compare the whole value with $eq."
            )
        if name[1:] in _JOINS:
            parts.append(_parse_join(name, inner, lambda item: _parse_condition(field, item, depth + 1)))
        elif name[1:] in OPERATORS:
            parts.append(_parse_comparison(field, cast("Operator", name[1:]), inner))
        else:
            raise _unknown(name)
    return _all_of(parts)


def _parse_join(name: str, value: Any, parse: Callable[[Any], Filter]) -> Filter:
    if name == "$not":
        return Not(parse(value))
    if not isinstance(value, (list, tuple)) or not value:
        raise InvalidFilter(f"Filter operator {shown(name)} needs a list of at least one filter, got {_type(value)}.")
    parts = [parse(item) for item in value]
    return _all_of(parts) if name == "$and" or len(parts) == 1 else Or(tuple(parts))


def _parse_comparison(field: str, op: Operator, value: Any) -> Comparison:
    copy = _checked_value(field, value)
    need = None
    if op in _ORDERS and not (_is_number(copy) or isinstance(copy, _ORDERED)):
        need = "a number or a string"
    elif op in ("in", "nin") and not isinstance(copy, list):
        need = "a list"
    elif op == "exists" and not isinstance(copy, bool):
        need = "True or False"
    if need:
        raise InvalidFilter(f"Filter operator '${op}' on {shown(field)} needs {need}, got {shown(value)}.")
    return Comparison(field, op, copy)


def _type(value: Any) -> str:
    return "an empty list" if isinstance(value, (list, tuple)) else type(value).__name__


def _all_of(parts: Sequence[Filter]) -> Filter:
    flat = tuple(leaf for part in parts for leaf in (part.parts if isinstance(part, And) else (part,)))
    return flat[0] if len(flat) == 1 else And(flat)


def _checked_key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidFilter(
            f"Invalid filter key of type {type(key).__name__}; keys are strings, the names of fields or operators."
        )
    name = str.__str__(key)
    if any("\ud800" <= char <= "\udfff" for char in name):
        raise InvalidFilter(f"Invalid filter key {shown(name)}: it holds a lone surrogate, which is no text.")
    return name


def _checked_value(field: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)) and any(isinstance(item, (float, date)) for item in value):
        return [_checked_scalar(field, item) for item in value]
    return _checked_scalar(field, value)


def _checked_scalar(field: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        # No JSON, so nothing stored equals it, but a bound that numbers can be compared with.
        return float(value)
    return _instant(value) if isinstance(value, date) else _json(field, value)


def _json(field: str, value: Any) -> Any:
    try:
        copy = plain(value)
        dumps(copy)
    except ValueError as error:  # Python itself refuses to write integers of thousands of digits
        raise InvalidFilter(f"Invalid filter value for {shown(field)}: {error}") from error
    return copy


def _refuse_operators(field: str, value: Any) -> None:
    """No silent comparison with a mapping that was meant as a nested filter."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key.startswith("$"):
            raise InvalidFilter(
                f"Invalid filter key {shown(key)} inside the value of {shown(field)}; write {shown(field)} as a field "
                "of its own, or compare the whole value with $eq."
            )
        _refuse_operators(f"{field}.{key}", inner)


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise InvalidFilter(f"The filter is nested deeper than {_MAX_DEPTH} levels, or contains itself; flatten it.")


def _unknown(name: str) -> InvalidFilter:
    known = ", ".join(f"${op}" for op in (*OPERATORS, *_JOINS))
    return InvalidFilter(f"Unknown filter operator {shown(name)}; use one of {known}.")


# -- predicate --------------------------------------------------------------------------------------------------------


def _lookup(record: Mapping[str, Any], field: str) -> Any:
    if field in record:
        return record[field]
    stored: Any = record if "." in field else _MISSING
    for key in field.split("."):
        if not isinstance(stored, Mapping) or key not in stored:
            return _MISSING
        stored = stored[key]
    return stored


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _instant(value: date | str | float) -> datetime:
    """The moment that a value says; a date is its beginning, and numbers count the seconds since 1970 (UTC)."""
    if isinstance(value, str):
        value = datetime.fromisoformat(_iso(value))
    elif _is_number(value):
        value = datetime.fromtimestamp(value, UTC)  # type: ignore[arg-type]
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())  # type: ignore[arg-type]
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _iso(text: str) -> str:
    """A time in ISO 8601 as `fromisoformat` takes it, however its zone is written."""
    if len(text) > _LONGEST_TIME:
        raise ValueError("no time is that long")
    iso = text.strip().upper().replace("\u2212", "-")
    for name in ("UTC", "GMT"):
        if iso.endswith(name):
            return f"{iso.removesuffix(name).rstrip()}Z"
    moment, _, zone = iso.rpartition(" ")
    return f"{moment.rstrip()}{zone}" if zone.startswith(("+", "-", "Z")) else iso


def _comparable(stored: Any, value: Any) -> tuple[Any, Any]:
    """Both as instants when one of them is a time and the other is, or says, one; else times as texts or numbers."""
    if not isinstance(stored, datetime) and not isinstance(value, datetime):
        return stored, value
    try:
        # A number is a time beside a memory's own times only: in metadata it may be anything.
        return stored if _is_number(stored) else _instant(stored), _instant(value)
    except (TypeError, ValueError, OverflowError, OSError):
        if isinstance(value, datetime):
            return stored, value
        return stored.timestamp() if _is_number(value) else stored.isoformat(), value


def _equal(stored: Any, value: Any) -> bool:
    """Whether two JSON values are equal; `_MISSING` equals None."""
    stored, value = _comparable(stored, value)
    if value is None:
        return stored is None or stored is _MISSING
    if _is_number(value):
        return _is_number(stored) and bool(stored == value)
    if isinstance(value, list):
        return isinstance(stored, list) and len(stored) == len(value) and all(map(_equal, stored, value))
    if isinstance(value, dict):
        return (
            isinstance(stored, dict)
            and stored.keys() == value.keys()
            and all(_equal(stored[k], v) for k, v in value.items())
        )
    return type(stored) is type(value) and bool(stored == value)
