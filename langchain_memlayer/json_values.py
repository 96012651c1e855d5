"""JSON values: what may be stored, and its text; and one field of anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

from langchain_memlayer.errors import InvalidInput, cut, shown

_MOST_BITS = 14_000
"""Beyond 4,300 digits Python itself neither writes integers nor reads them."""


def plain(value: Any, where: str = "value", _depth: int = 0) -> Any:
    """A copy of `value` made of dict, list, str, int, float, bool and None only.

    Raises:
        InvalidInput: it holds something that JSON does not have; the message names the place.
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        if value.bit_length() > _MOST_BITS:
            raise InvalidInput(f"{cut(where)} has thousands of digits; store a shorter number, or a string.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{cut(where)} is {value}, which JSON does not have; store None or a string instead.")
        return float(value)
    if _depth > 200:
        raise InvalidInput(
            f"{cut(where)} is nested deeper than 200 levels, or contains itself; store something flatter."
        )
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InvalidInput(f"{cut(where)} has the key {shown(key)}; JSON keys are strings.")
        return {str.__str__(k): plain(v, f"{where}[{k!r}]", _depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{k}]", _depth + 1) for k, v in enumerate(value)]
    raise InvalidInput(f"{cut(where)} is of type {type(value).__name__}, which JSON does not have; convert it first.")


def dumps(value: Any, where: str = "value") -> str:
    """The JSON text of a plain value."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        if "surrogates" in str(error):
            raise InvalidInput(f"{cut(where)} holds a lone surrogate, which is no text; encode it first.") from error
        # orjson stops at 64 bits. The leading space tells `loads` to keep the whole number.
        return " " + json.dumps(value, ensure_ascii=True, allow_nan=False)


def as_text(value: Any) -> str:
    """A plain value for people: a text as it is, a list without brackets, else JSON."""
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    return value if isinstance(value, str) else dumps(value)


def field_of(holder: Any, name: str) -> Any:
    """What a mapping has under a name, or an object as an attribute; None when there is none."""
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def loads(text: str) -> Any:
    """The value of a text made by `dumps`."""
    return json.loads(text) if text.startswith(" ") else orjson.loads(text)
