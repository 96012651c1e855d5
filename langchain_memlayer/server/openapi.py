"""The document that describes the REST calls, from the same table that serves them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

from langchain_memlayer import __version__
from langchain_memlayer.server.rest import NDJSON, OPERATIONS, Operation

_REF: Final = "#/components/schemas/{model}"
_PROBLEM: Final = {
    "type": "object",
    "required": ["title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What to do next."},
    },
}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    adapters: dict[int, TypeAdapter[Any]] = {
        place: TypeAdapter(one.gives) for place, one in enumerate(OPERATIONS) if one.gives is not None
    }
    schemas, shared = TypeAdapter.json_schemas(
        [(place, "serialization", adapter) for place, adapter in adapters.items()], ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    bodies: dict[str, Any] = {}
    for place, one in enumerate(OPERATIONS):
        schema = one.takes.model_json_schema(ref_template=_REF)
        schema.pop("$defs", None)
        if one.has_body:
            bodies[one.takes.__name__] = schema
        answer = schemas.get((place, "serialization"))
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schema, answer)
    return {
        "openapi": "3.1.0",
        "info": {"title": "langchain_memlayer", "version": __version__, "summary": "Long-term memory for agents."},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**shared.get("$defs", {}), **bodies, "Problem": _PROBLEM},
        },
    }


def _operation(one: Operation, schema: dict[str, Any], answer: dict[str, Any] | None) -> dict[str, Any]:
    content: dict[str, Any] = {} if answer is None else {"application/json": {"schema": answer}}
    if one.streams:
        content[NDJSON] = {"schema": {"type": "string", "description": f"Each line is JSON: {one.streams}."}}
    names = re.findall(r"{(\w+)}", one.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    shown: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.does,
        "responses": {
            "200": {"description": "Done.", "content": content},
            "default": {
                "description": "Refused, or failed.",
                "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}},
            },
        },
    }
    if one.has_body:
        body = {"schema": {"$ref": _REF.format(model=one.takes.__name__)}}
        shown["requestBody"] = {"required": bool(schema.get("required")), "content": {"application/json": body}}
    else:
        required = schema.get("required", ())
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": value}
            for name, value in schema["properties"].items()
        ]
    return {**shown, "parameters": parameters} if parameters else shown
