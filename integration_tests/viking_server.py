"""A loopback server with VikingDB's data paths: it checks the signature or key, the path and the body, and keeps rows.

What it refuses and how it answers follows VikingDB's documentation of the data interface (V2) and what its SDK parses.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from integration_tests.json_server import HOST, JSONMixIn, running

REGION = "cn-beijing"
AK, SK, API_KEY = "AKLTtest", "c2VjcmV0LXRlc3Q=", "vk-test-key"
LIMIT = 100

_PING = "/api/vikingdb/Ping"
_AUTHORIZATION = re.compile(
    r"HMAC-SHA256 Credential=(?P<ak>[^/]+)/(?P<scope>\d{8}/[^/]+/vikingdb/request), "
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)
_DEFAULTS: dict[str, Any] = {"string": "", "int64": 0, "float32": 0.0, "bool": False, "list<string>": []}
_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str) and len(value.encode()) <= 256,
    "text": lambda value: isinstance(value, str),
    "int64": lambda value: type(value) is int and -(1 << 63) <= value < 1 << 63,
    "float32": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "list<string>": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}


class Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> Refused:
    return Refused(400, "InvalidParameter", message)


@dataclass
class Collection:
    """A collection with one cosine index; `scalars` are the fields that a filter may name."""

    dims: int
    fields: dict[str, str] = field(default_factory=lambda: {"text": "text", "metadata": "text"})
    scalars: tuple[str, ...] = ()
    key: str = "id"
    vector: str = "vector"
    index: str = "memories_index"
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def row(self, given: dict[str, Any], ignore_unknown: bool) -> dict[str, Any]:
        """A row as it is kept, or a refusal."""
        if not isinstance(given.get(self.key), str) or not given[self.key]:
            raise invalid(f"the primary key {self.key} is missing")
        vector = given.get(self.vector)
        if not isinstance(vector, list) or len(vector) != self.dims:
            raise invalid(f"the field {self.vector} must be a vector of dim {self.dims}")
        row: dict[str, Any] = {self.key: given[self.key], self.vector: [float(part) for part in vector]}
        if not ignore_unknown and (unknown := set(given) - {self.key, self.vector} - set(self.fields)):
            raise invalid(f"unknown fields {sorted(unknown)}")
        for name, kind in self.fields.items():
            if name not in given and kind not in _DEFAULTS:
                raise invalid(f"the field {name} of type {kind} has no default and is missing")
            row[name] = given.get(name, _DEFAULTS.get(kind))
            if not _TYPES[kind](row[name]):
                raise invalid(f"the field {name} must be of type {kind}")
        return row

    def accepts(self, row: dict[str, Any], condition: dict[str, Any]) -> bool:
        """Whether a row passes a filter."""
        operator = condition.get("op")
        if operator in ("and", "or"):
            parts = [self.accepts(row, part) for part in condition["conds"]]
            return all(parts) if operator == "and" else any(parts)
        name = condition.get("field")
        if name not in self.scalars:
            raise invalid(f"the field {name} has no scalar index")
        value = row[str(name)]
        if operator in ("must", "must_not"):
            values = value if isinstance(value, list) else [value]
            return any(one in condition["conds"] for one in values) == (operator == "must")
        if operator == "range":
            compare: dict[str, Callable[[Any], bool]] = {
                "gt": lambda bound: value > bound,
                "gte": lambda bound: value >= bound,
                "lt": lambda bound: value < bound,
                "lte": lambda bound: value <= bound,
            }
            return all(test(condition[bound]) for bound, test in compare.items() if bound in condition)
        raise invalid(f"unknown op {operator}")


@dataclass(frozen=True)
class Asked:
    path: str
    headers: Message
    body: dict[str, Any]


@dataclass
class VikingServer:
    """The server's state, which tests read and set.

    Attributes:
        asked: The requests that passed the check of their keys.
        pings: How many clients connected.
        errors: Answers (HTTP status, body) for the next requests, before anything is looked at.
        hold: Requests wait until it is set.
    """

    url: str = ""
    collections: dict[str, Collection] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    pings: int = 0
    errors: list[tuple[int, bytes]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, ending: str) -> list[dict[str, Any]]:
        return [one.body for one in self.asked if one.path.endswith(ending)]

    def answer(self, path: str, headers: Message, raw: bytes) -> tuple[int, bytes]:
        with self.lock:
            if self.errors:
                return self.errors.pop(0)
            try:
                authenticate(path, headers, raw)
                if headers["Content-Type"] != "application/json":
                    raise invalid("the body must be application/json")
                body = json.loads(raw)
                self.asked.append(Asked(path, headers, body))
                result = self._result(path, body)
            except Refused as refusal:
                return refusal.status, envelope(refusal.code, refusal.message, None)
        return 200, envelope("Success", "The API call was executed successfully.", result)

    def _result(self, path: str, body: dict[str, Any]) -> Any:
        calls: dict[str, tuple[set[str], Callable[[Collection, dict[str, Any]], Any]]] = {
            "/api/vikingdb/data/upsert": ({"data", "ignore_unknown_fields"}, _upsert),
            "/api/vikingdb/data/delete": ({"ids"}, _delete),
            "/api/vikingdb/data/fetch_in_collection": ({"ids"}, _fetch),
            "/api/vikingdb/data/search/vector": (
                {"index_name", "dense_vector", "limit", "filter", "partition", "advance", "offset"},
                _search,
            ),
        }
        if path not in calls:
            raise Refused(404, "NotFound", f"no such path {path}")
        known, call = calls[path]
        if unknown := set(body) - known - {"collection_name", "project_name"}:
            raise invalid(f"unknown parameters {sorted(unknown)}")
        name = body.get("collection_name")
        if name not in self.collections:
            message = f"The specified collection '{name}' of VikingDB does not exist."
            raise Refused(404, "NotFound.VikingdbCollection", message)
        return call(self.collections[name], body)


def envelope(code: str, message: str, result: Any) -> bytes:
    return json.dumps({"code": code, "message": message, "request_id": "req-1", "result": result}).encode()


def authenticate(path: str, headers: Message, raw: bytes) -> None:
    """Check an API key, or a signature over the method, the path, the signed headers and the body."""
    given = headers["Authorization"] or ""
    if given == f"Bearer {API_KEY}":
        return
    if (found := _AUTHORIZATION.fullmatch(given)) is None:
        raise Refused(401, "Unauthorized", f"no valid authorization: [{given.removeprefix('Bearer ')}]")
    date, digest = headers["X-Date"], hashlib.sha256(raw).hexdigest()
    age = datetime.now(UTC) - datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    names = found["names"].split(";")
    if (
        found["ak"] != AK
        or found["scope"] != f"{date[:8]}/{REGION}/vikingdb/request"
        or abs(age) > timedelta(minutes=15)
        or headers["X-Content-Sha256"] != digest
        or not {"content-type", "x-content-sha256", "x-date"} <= set(names)
    ):
        raise Refused(401, "InvalidAccessKey", f"The accesskey [{found['ak']}] included in the request is invalid.")
    signed = "".join(f"{name}:{headers[name]}\n" for name in sorted(names))
    request = "\n".join(["POST", path, "", signed, found["names"], digest])
    text = "\n".join(["HMAC-SHA256", date, found["scope"], hashlib.sha256(request.encode()).hexdigest()])
    key = SK.encode()
    for part in found["scope"].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), found["signature"]):
        raise Refused(401, "SignatureDoesNotMatch", "The request signature we calculated does not match.")


def _upsert(collection: Collection, body: dict[str, Any]) -> dict[str, Any]:
    data = body.get("data")
    if not isinstance(data, list) or not 1 <= len(data) <= LIMIT:
        raise invalid(f"data must hold from 1 to {LIMIT} rows")
    rows = [collection.row(given, body.get("ignore_unknown_fields", False)) for given in data]
    keys = [row[collection.key] for row in rows]
    if len(set(keys)) < len(keys):
        raise invalid("a primary key comes twice")
    collection.rows |= dict(zip(keys, rows, strict=True))
    return {"token_usage": {}}


def _keys(body: dict[str, Any]) -> list[str]:
    ids = body.get("ids")
    if not isinstance(ids, list) or not 1 <= len(ids) <= LIMIT or len(set(ids)) < len(ids):
        raise invalid(f"ids must hold from 1 to {LIMIT} different keys")
    return ids


def _delete(collection: Collection, body: dict[str, Any]) -> None:
    for key in _keys(body):
        collection.rows.pop(key, None)


def _fetch(collection: Collection, body: dict[str, Any]) -> dict[str, Any]:
    ids = _keys(body)
    # The documentation promises no order.
    found = [{"id": key, "fields": collection.rows[key]} for key in sorted(ids, reverse=True) if key in collection.rows]
    return {"fetch": found, "ids_not_exist": [key for key in ids if key not in collection.rows]}


def _search(collection: Collection, body: dict[str, Any]) -> dict[str, Any]:
    if body.get("index_name") != collection.index:
        raise Refused(404, "NotFound.VikingdbIndex", f"The specified index '{body.get('index_name')}' does not exist.")
    query = body.get("dense_vector")
    if not isinstance(query, list) or len(query) != collection.dims:
        raise invalid(f"dense_vector must have dim {collection.dims}")
    if not isinstance(body["limit"], int) or not 1 <= body["limit"] <= 100_000:
        raise invalid("limit must be from 1 to 100000")
    condition = body.get("filter")
    # A filter is parsed before there is a row to try it on.
    if condition is not None:
        collection.accepts({name: _DEFAULTS.get(kind, "") for name, kind in collection.fields.items()}, condition)
    rows = [row for row in collection.rows.values() if condition is None or collection.accepts(row, condition)]
    scored = sorted(((_cosine(row[collection.vector], query), row) for row in rows), key=lambda pair: -pair[0])
    data = [
        {
            "id": row[collection.key],
            "fields": {name: value for name, value in row.items() if name != collection.vector},
            "score": score,
            "ann_score": score,
        }
        for score, row in scored[body.get("offset", 0) :][: body["limit"]]
    ]
    return {"data": data, "filter_matched_count": len(rows), "total_return_count": len(data)}


def _cosine(one: list[float], other: list[float]) -> float:
    a, b = np.asarray(one, np.float32), np.asarray(other, np.float32)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


@contextmanager
def serving() -> Iterator[VikingServer]:
    """A running server, without collections."""
    state = VikingServer()
    state.hold.set()

    class Handler(JSONMixIn, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay, as the SDK's pool expects

        def do_GET(self) -> None:
            state.hold.wait()
            state.pings += self.path == _PING
            self.send(200 if self.path == _PING else 404, b"{}")

        def do_POST(self) -> None:
            raw = self.read()
            state.hold.wait()
            self.send(*state.answer(self.path.rstrip("?"), self.headers, raw))

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that no longer waits for its answer is no error of the server's."""

    with running(Server((HOST, 0), Handler)) as state.url:
        try:
            yield state
        finally:
            state.hold.set()
