"""A JSON schema to a pydantic model: profiles for those who write no Python.

```
{"title": "Customer", "properties": {"city": {"type": "string", "description": "where the user lives"}, ...}}
```
A small part of JSON Schema, which is all that a form needs; what is not of it is refused, so that nothing is checked
that only seems to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, get_origin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, create_model

from langchain_memlayer.errors import ConfigurationError, InvalidInput, shown
from langchain_memlayer.json_values import dumps, loads, plain

_TYPES: Final[Mapping[str, Any]] = {"string": str, "integer": int, "number": float, "boolean": bool}
_NAMES: Final[Mapping[type, tuple[str, ...]]] = {str: ("string",), int: ("integer", "number"), bool: ("boolean",)}
_NULL: Final = {"type": "null"}
_ABOUT: Final = frozenset({"title", "description", "default"})
_WHOLE: Final = frozenset({"$schema", "$id", "title", "description", "type", "properties", "required"})
_ALLOWED: Final = (
    "a field has a type (string, integer, number, boolean, or array with items of one of these), or an enum of "
    'strings, integers and booleans; it may be null by "type": ["string", "null"]; and it may have a description, a '
    "default and a title"
)


def model_of(schema: Mapping[str, Any]) -> type[BaseModel]:
    """The pydantic model of a JSON schema. A field that is not required and has no default is null until it is known.

    Raises:
        ConfigurationError: the schema says something else than `_ALLOWED`.
    """
    try:
        schema = loads(dumps(plain(schema)))
    except InvalidInput as error:
        _refuse(f"is no JSON ({str(error).rstrip('.')})")
    properties, required = schema.get("properties"), schema.get("required", [])
    if schema.get("type", "object") != "object" or not isinstance(properties, Mapping) or not properties:
        _refuse('has no fields: write {"properties": {"city": {"type": "string"}}}')
    closed = {"additionalProperties"} if schema.get("additionalProperties") is False else set()
    if strange := sorted(map(str, schema.keys() - _WHOLE - closed)):
        _refuse(f"has {shown(strange[0])} at its top, where only {', '.join(sorted(_WHOLE))} may stand")
    if not isinstance(required, list) or any(name not in list(properties) for name in required):
        _refuse("must have under 'required' a list of names of its fields")
    fields: dict[str, Any] = {}
    for name, part in properties.items():
        if not name.strip() or name.startswith("_") or hasattr(BaseModel, name):
            _refuse(f"has a field {shown(name)}, which is no name for one: take another")
        fields[name] = _field(part, f"field {shown(name)}", needed=name in required)
    title, about = (_text(schema, key, "the whole") for key in ("title", "description"))
    return create_model(title or "Profile", __doc__=about, **fields)


def read_schema(file: str) -> Mapping[str, Any]:
    """The JSON schema in a file.

    Raises:
        ConfigurationError: it cannot be read, or is no JSON object.
    """
    try:
        schema = json.loads(Path(file).expanduser().read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"The profile {file!r} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"The profile {file!r} is no JSON ({error}).") from error
    if not isinstance(schema, Mapping):
        raise ConfigurationError(f"The profile {file!r} is no JSON schema, which is an object with properties.")
    return schema


def _field(part: Any, where: str, *, needed: bool) -> tuple[Any, Any]:
    """The type of a field, and its default with what is said about it."""
    kind, nullable = _kind(part, where)
    given = "default" in part
    if nullable or not (needed or given):
        kind = kind | None
    default = part["default"] if given else ... if needed else None
    if given:
        try:
            default = TypeAdapter(kind).validate_python(default, strict=True)
        except ValidationError:
            _refuse(f"has a default of {where} that the field does not take")
    # A default that can be changed is copied for each profile.
    return kind, Field(default, description=_text(part, "description", where), title=_text(part, "title", where))


def _kind(part: Any, where: str) -> tuple[Any, bool]:
    """The type of a field or of an entry, without null, and whether it may be null."""
    if not isinstance(part, Mapping):
        _refuse(f"has no object as {where}")
    if "anyOf" in part and isinstance(part["anyOf"], list) and _NULL in part["anyOf"] and len(part["anyOf"]) == 2:
        # So pydantic writes what may be null.
        other = next(one for one in part["anyOf"] if one != _NULL)
        about = {key: value for key, value in part.items() if key != "anyOf"}
        if not isinstance(other, Mapping) or about.keys() - _ABOUT:
            _refuse(f"has an anyOf in {where}")
        return _kind({**other, **about}, where)[0], True
    kinds = part.get("type")
    kinds = list(kinds) if isinstance(kinds, list) else [] if kinds is None else [kinds]
    nullable = "null" in kinds
    named = [one for one in kinds if one != "null"]
    allowed = _ABOUT | {"type"} | ({"enum"} if "enum" in part else {"items"} if named == ["array"] else set())
    if strange := sorted(map(str, part.keys() - allowed)):
        _refuse(f"has {shown(strange[0])} in {where}")
    if "enum" in part:
        return _choice(part["enum"], where, named, nullable=nullable)
    if named == ["array"]:
        kind, empty = _kind(part.get("items"), f"the items of {where}")
        if empty or get_origin(kind) is list or "default" in part["items"]:
            _refuse(f"has lists, null or a default as the items of {where}")
        return list[kind], nullable  # type: ignore[valid-type]
    if len(named) != 1 or not isinstance(named[0], str) or named[0] not in _TYPES:
        _refuse(f"does not say what {where} is")
    return _TYPES[named[0]], nullable


def _choice(values: Any, where: str, named: list[Any], *, nullable: bool) -> tuple[Any, bool]:
    if not isinstance(values, list):
        _refuse(f"has no list as the enum of {where}")
    known = [one for one in values if one is not None]
    if not known or any(not isinstance(one, (str, int)) for one in known):
        _refuse(f"has an enum of something else in {where}")
    if named and not all(any(name in named for name in _NAMES[type(one)]) for one in known):
        _refuse(f"has an enum of another type than it says in {where}")
    return Literal[tuple(known)], nullable or len(known) < len(values)


def _text(part: Mapping[str, Any], key: str, where: str) -> str | None:
    text = part.get(key)
    if text is not None and not isinstance(text, str):
        _refuse(f"has no text as the {key} of {where}")
    return text


def _refuse(what: str) -> NoReturn:
    raise ConfigurationError(f"The JSON schema of profile= {what}. There, {_ALLOWED}.")
