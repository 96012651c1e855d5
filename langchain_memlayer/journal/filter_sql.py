"""A filter as an SQL condition on memories that holds wherever the filter does, and seldom elsewhere.

Metadata are stored as JSON text without spaces, so `{"topic": "x"}` can only hold where the text has `"topic":"x"`: SQL
that every database takes. The filter itself has the last word.
"""

from __future__ import annotations

from langchain_memlayer.filters import And, Comparison, Filter, Or
from langchain_memlayer.json_values import dumps

_LIKE = "i.metadata LIKE ? ESCAPE '!'"
_LONGEST = 1000
_MOST_VALUES = 100
_EXACT = 10**15
_COLUMNS = frozenset(("kind", "user_id", "agent_id", "run_id", "session_id", "role", "name"))
_COMPUTED = frozenset(("id", "memory", "created_at", "updated_at"))

Condition = tuple[str, tuple[str, ...]]
"""SQL over `i`, and its values."""

ANY: Condition = ("1 = 1", ())
"""What always holds."""


def superset(condition: Filter) -> Condition:
    """What must hold of a memory for a filter to hold; `ANY` where SQL cannot say it, or only at great length."""
    found = _sql_of(condition)
    return found if len(found[1]) <= _MOST_VALUES else ANY


def _sql_of(condition: Filter) -> Condition:
    if isinstance(condition, (And, Or)):
        parts = [_sql_of(part) for part in condition.parts]
        if isinstance(condition, Or) and ANY in parts:
            return ANY
        said = [part for part in parts if part != ANY]
        joined = (" AND " if isinstance(condition, And) else " OR ").join(sql for sql, _ in said)
        return (f"({joined})", tuple(value for _, values in said for value in values)) if said else ANY
    return _leaf(condition) if isinstance(condition, Comparison) else ANY


def _leaf(leaf: Comparison) -> Condition:
    present = leaf.op in ("gt", "gte", "lt", "lte", "contains", "nin") or (leaf.op == "exists" and leaf.value)
    if leaf.op == "eq" and leaf.value is not None:
        values = [leaf.value]
    elif leaf.op == "in" and None not in leaf.value:
        values = leaf.value
    elif present:
        values = []
    else:
        return ANY
    if leaf.field in _COMPUTED or "." in leaf.field or (present and leaf.field in _COLUMNS):
        return ANY
    name = dumps(leaf.field) + ":"
    texts = [_text(value) for value in values] if values or not present else [""]
    said = [(_LIKE, like(name + text)) for text in texts]
    if leaf.field in _COLUMNS:
        said += [(f"i.{leaf.field} = ?", value) for value in values if isinstance(value, str)]
    if not said:
        return "1 = 0", ()
    # Numbers beyond 64 bits make `dumps` write a text of another form, which begins with a space.
    return f"({' OR '.join(sql for sql, _ in said)} OR {_LIKE})", (*(value for _, value in said), " %")


def _text(value: object) -> str:
    """How the JSON text of an equal value begins."""
    if isinstance(value, (bool, str)):
        return dumps(value)
    # A float equals it too, and is written with more digits behind; there are two zeros.
    return str(value) if isinstance(value, int) and 0 < abs(value) < _EXACT else ""


def like(part: str) -> str:
    """The pattern of SQL's LIKE, with `!` as its escape, for texts that have a part; of a long one its beginning."""
    escaped = part[:_LONGEST].replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"
