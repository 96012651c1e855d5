r"""Comparisons of filters over JSON texts in SQLite's own functions: the answer of `filters` exactly, or no SQL at all.

SQLite's reading of JSON is not exact. At "\u0000" some releases cut strings and others cut keys; integers beyond 64
bits become floats; and on some machines floats are off in the last place. So equality compares JSON texts:
`values.dumps` has at most two spellings (orjson's and json's) of a string or number. Extracting two paths at once gives
a text unread, as `[text,null]`; the second path, `$[0]`, is never there because the whole is an object.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import orjson

SQL = tuple[str, list[Any]]
"""An SQL condition and its parameters."""

_ORDERS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", operator.gt),
    "gte": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "lte": ("<=", operator.le),
}
_RAW = "json_extract(j, p, '$[0]')"
_ULPS = 3


def comparison(column: str, field: str, op: str, value: Any) -> SQL | None:
    """One comparison of a filter as an SQL condition that is 0 or 1, never NULL.

    Args:
        column: An SQL expression whose value is the text of an object, made by `values.dumps`.
        field: The field's name, not yet split at dots.
        op: The operator without its `$`.
        value: Its operand, checked by the parser.

    Returns:
        The condition with its parameters, or None when it might be wrong for some record.
    """
    path, test = _path(field), _test(op, value)
    if path is None or test is None:
        return None
    # NUL becomes U+0001, so that nothing is cut. The double backslash goes first: its second half may precede "u0000".
    text = rf"replace(replace({column}, '\\', '\u005c'), '\u0000', '\u0001')"
    sql = f"EXISTS (SELECT 1 FROM (SELECT j, {path[0]} AS p FROM (SELECT {text} AS j)) WHERE {test[0]})"
    return sql, path[1] + test[1]


def _path(field: str) -> SQL | None:
    """Where the field is in `j`."""
    literal, dotted = _keys([field]), _keys(field.split("."))
    if literal is None or dotted is None or "." not in field:
        return literal
    sql = f"CASE WHEN json_type(j, {literal[0]}) IS NULL THEN {dotted[0]} ELSE {literal[0]} END"
    return sql, literal[1] + dotted[1] + literal[1]


def _keys(keys: Sequence[str]) -> SQL | None:
    """A path of keys, spelt as the text spells them: releases differ in whether they read escapes in a path."""
    utf8 = "$" + "".join(f".{orjson.dumps(key).decode()}" for key in keys)
    ascii_ = "$" + "".join(f".{json.dumps(key)}" for key in keys)
    if "\\" in utf8:
        return None
    if utf8 == ascii_:
        return "?", [utf8]
    return "CASE substr(j, 1, 1) WHEN ' ' THEN ? ELSE ? END", [ascii_, utf8]


def _test(op: str, value: Any) -> SQL | None:
    """The comparison over `j`, the JSON text, and `p`, the path in it."""
    if op == "exists":
        return f"json_type(j, p) IS {'NOT NULL' if value else 'NULL'}", []
    if op in _ORDERS:
        return _string_order(op, value) if isinstance(value, str) else _number_order(op, value)
    texts: list[str] = []
    for item in value if op in ("in", "nin") else [value]:
        spelt = _spellings(item)
        if spelt is None:
            return None
        texts += spelt
    listed, params = _among(texts)
    match op:
        case "eq":
            return f"{_RAW} IN {listed}", params
        case "ne":
            return f"{_RAW} NOT IN {listed}", params
        case "in":
            return f"json_type(j, p) IS NOT NULL AND {_RAW} IN {listed}", params
        case "nin":
            return f"json_type(j, p) IS NOT NULL AND {_RAW} NOT IN {listed}", params
    sql = (
        "json_type(j, p) = 'array' AND EXISTS (SELECT 1 FROM json_each(j, p) AS e "
        f"WHERE json_extract(j, p || '[' || e.key || ']', '$[0]') IN {listed})"
    )
    if isinstance(value, str):
        return f"({sql} OR json_type(j, p) = 'text' AND instr(json_extract(j, p), ?) > 0)", [*params, value]
    return sql, params


def _among(texts: Sequence[str]) -> SQL:
    return "(SELECT value FROM json_each(?))", [orjson.dumps([f"[{text},null]" for text in texts]).decode()]


def _string_order(op: str, value: str) -> SQL | None:
    if not _survives(value):
        return None
    sign, _ = _ORDERS[op]
    return f"json_type(j, p) = 'text' AND json_extract(j, p) {sign} ?", [value]


def _number_order(op: str, value: float) -> SQL | None:
    """Integers as integers; floats as SQLite reads them, except near `value`, where their texts decide.

    In this range a float's decimal text needs one product or quotient with an exact power of ten, so that the simplest
    of readers is off by less than two units in the last place; and an integer that SQLite reads as a float lies beyond.
    """
    if value != 0 and not 1e-5 <= abs(value) < 2**63:
        return None
    sign, holds = _ORDERS[op]
    middle = float(value)
    near = [middle]
    for _ in range(_ULPS):
        near = [math.nextafter(near[0], -math.inf), *near, math.nextafter(near[-1], math.inf)]
    if any(abs(other) >= 2**63 for other in near):
        return None
    accepted = [text for other in near if holds(other, value) for text in _float_spellings(other)]
    listed = _among([text for other in near for text in _float_spellings(other)])
    chosen = _among(accepted)
    whole = math.floor(value) if op in ("gt", "lte") else math.ceil(value)
    sql = (
        f"CASE json_type(j, p) WHEN 'integer' THEN json_extract(j, p) {sign} ? "
        f"WHEN 'real' THEN CASE WHEN {_RAW} IN {listed[0]} THEN {_RAW} IN {chosen[0]} "
        f"ELSE json_extract(j, p) {sign} ? END ELSE 0 END"
    )
    return sql, [whole, *listed[1], *chosen[1], middle]


def _survives(text: str) -> bool:
    return "\x00" not in text and "\x01" not in text


def _spellings(value: Any) -> list[str] | None:
    """Every JSON text in `j` of this value or an equal one; None when they are not known."""
    if isinstance(value, str):
        if not _survives(value):
            return None
        return [text.replace(r"\\", r"\u005c") for text in (orjson.dumps(value).decode(), json.dumps(value))]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number_spellings(value)
    if isinstance(value, (list, dict)) and value:
        return None
    return [json.dumps(value)]


def _number_spellings(value: float) -> list[str]:
    whole = [str(int(value))] if value == math.floor(value) else []
    try:
        as_float = float(value)
    except OverflowError:
        return whole
    return whole + (_float_spellings(as_float) if as_float == value else [])


def _float_spellings(value: float) -> list[str]:
    equal = (0.0, -0.0) if value == 0 else (value,)
    return [text for each in equal for text in (repr(each), orjson.dumps(each).decode())]
