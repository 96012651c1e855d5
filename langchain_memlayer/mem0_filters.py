"""Filters as mem0's users write them, as ours: `{"user_id": "alice", "AND": [{"score": {"gte": 3}}]}`.

Operators may stand without `$`; AND, OR and NOT take lists; the ids of a scope are taken out of the filter. A list as a
value holds for that list and for each of its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langchain_memlayer.errors import InvalidFilter, InvalidInput, shown
from langchain_memlayer.filters import OPERATORS
from langchain_memlayer.types import IDS, Scope

_JOINS: Final = {"AND": "$and", "OR": "$or", "NOT": "$not"}
_DEEPEST: Final = 32
_OPERATORS: Final = frozenset((
    *OPERATORS, "icontains", "regex", "like", "ilike", "match", "text", "startswith", "endswith", "not_in", "not_eq",
    "neq", "not_contains", "any", "all", "between", "range", "values", "is_null",
))  # fmt: skip
"""What stands in a mapping that is no value: our operators, and those of others."""


def scope_and_filter(filters: Any, scope: Scope) -> tuple[Scope, Any]:
    """The scope with the ids that a filter names, and the filter without them, as `parse_filter` reads it.

    Raises:
        InvalidInput: the filter and the arguments name two owners.
        InvalidFilter: an operator that there is not, or `*` for "any value".
    """
    if not isinstance(filters, Mapping):
        return scope, filters
    ids: dict[str, Any] = scope.ids()
    rest = _without_ids(filters, ids, 0)
    return Scope(**ids), _conditions(rest, 0)


def _without_ids(filters: Mapping[Any, Any], ids: dict[str, Any], depth: int) -> dict[Any, Any]:
    """A filter without the ids that must hold, which are put into `ids`."""
    _check(depth)
    rest: dict[Any, Any] = {}
    for key, value in filters.items():
        if key in IDS and not isinstance(value, (Mapping, list, tuple)) and value is not None:
            if value == "*":
                raise InvalidFilter(
                    f"{shown(key)} is '*': no id stands for all. Name one; get_all(everything=True) lists all."
                )
            named = Scope(**{key: value}).ids()[key]
            if ids.setdefault(key, named) != named:
                raise InvalidInput(
                    f"{key} is {shown(ids[key])} as an argument and {shown(value)} in filters: name one owner."
                )
        elif key in ("AND", "$and") and isinstance(value, (list, tuple)):
            parts = [_without_ids(part, ids, depth + 1) if isinstance(part, Mapping) else part for part in value]
            if kept := [part for part in parts if part != {}]:
                rest[key] = kept
            elif not value:
                rest[key] = value  # told by `parse_filter`
        else:
            rest[key] = value
    return rest


def _conditions(filters: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    _check(depth)
    read: dict[Any, Any] = {}
    spoke: list[Any] = []
    for key, value in filters.items():
        if key in _JOINS or key in _JOINS.values():
            name = _JOINS.get(key, key)
            if name in read:
                raise InvalidFilter(
                    f"A filter has {shown(key)} and another word for it: write their conditions under one of them."
                )
            read[name] = _joined(key, value, depth)
        elif str(key).upper() in _JOINS and isinstance(value, (list, tuple, Mapping)):
            raise InvalidFilter(f"Filter operator {shown(key)} is written '{str(key).upper()}'; for a field, use $eq.")
        elif key == "actor_id":
            # Who spoke, as mem0 calls it; metadata may have that name too.
            spoke = [{"$or": [{"name": _condition(key, value)}, {key: _condition(key, value)}]}]
        else:
            read[key] = _condition(key, value)
    return {"$and": [*spoke, *([read] if read else [])]} if spoke else read


def _joined(key: str, value: Any, depth: int) -> Any:
    if isinstance(value, Mapping) and key in ("NOT", "$not"):
        return _conditions(value, depth + 1)
    if not isinstance(value, (list, tuple)):
        return value
    parts = [_conditions(part, depth + 1) if isinstance(part, Mapping) else part for part in value]
    # None of them may hold.
    return (parts[0] if len(parts) == 1 else {"$or": parts}) if key == "NOT" and parts else parts


def _condition(field: Any, value: Any) -> Any:
    if value == "*":
        raise InvalidFilter(
            f"'*' stands for itself, not for any value of {shown(field)}: write "
            f"{{{shown(field)}: {{'$exists': True}}}}."
        )
    if isinstance(value, (list, tuple)):
        return {"$or": [{"$eq": list(value)}, {"$in": list(value)}]}
    if isinstance(value, Mapping) and not _OPERATORS.isdisjoint(value):
        if unknown := [key for key in value if key not in (*OPERATORS, "icontains")]:
            raise InvalidFilter(
                f"Unknown filter operator {shown(unknown[0])} of {shown(field)}; use one of {', '.join(OPERATORS)}. A "
                "whole value is compared by {'$eq': ...}."
            )
        if "icontains" in value:
            raise InvalidFilter(
                f"There is no icontains; write {{{shown(field)}: {{'$contains': ...}}}}, which heeds the case."
            )
        return {f"${operator}": operand for operator, operand in value.items()}
    return value


def _check(depth: int) -> None:
    if depth > _DEEPEST:
        raise InvalidFilter(f"A filter may be nested {_DEEPEST} levels deep; flatten it.")
