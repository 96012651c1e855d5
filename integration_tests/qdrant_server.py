"""A loopback server with Qdrant's paths, over its own embedded engine: it checks key, paths and bodies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models

from integration_tests.json_server import HOST, JSONMixIn, running

API_KEY = "qd-test-key"


@dataclass
class QdrantServer:
    """What it keeps, and what it was asked.

    Attributes:
        url: Its address.
        engine: The embedded engine that answers.
        asked: Method and path of each request.
        failing: Whether every request is answered with an error.
        answers: While it is not set, nothing is answered at all.
    """

    engine: QdrantClient
    url: str = ""
    asked: list[str] = field(default_factory=list)
    failing: bool = False
    answers: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        parts = path.strip("/").split("/")
        assert parts[0] == "collections", path
        name, call = parts[1], f"{method} {'/'.join(parts[2:])}".strip()
        calls: dict[str, Callable[[str, dict[str, Any]], Any]] = {
            "GET exists": lambda name, _: {"exists": self.engine.collection_exists(name)},
            "GET": lambda name, _: self.engine.get_collection(name),
            "PUT": self._create,
            "DELETE": lambda name, _: self.engine.delete_collection(name),
            "PUT points": self._upsert,
            "POST points": self._retrieve,
            "POST points/delete": self._delete,
            "POST points/query": self._query,
            "POST points/scroll": self._scroll,
        }
        return calls[call](name, body)

    def _create(self, name: str, body: dict[str, Any]) -> bool:
        asked = models.CreateCollection(**body)
        return self.engine.create_collection(name, vectors_config=asked.vectors)

    def _upsert(self, name: str, body: dict[str, Any]) -> Any:
        return self.engine.upsert(name, [models.PointStruct(**point) for point in body["points"]])

    def _retrieve(self, name: str, body: dict[str, Any]) -> Any:
        return self.engine.retrieve(name, body["ids"], with_payload=body["with_payload"])

    def _delete(self, name: str, body: dict[str, Any]) -> Any:
        return self.engine.delete(name, models.PointIdsList(**body))

    def _query(self, name: str, body: dict[str, Any]) -> Any:
        asked = models.QueryRequest(**body)
        return self.engine.query_points(
            name,
            query=asked.query,
            using=asked.using,
            query_filter=asked.filter,
            limit=asked.limit,
            with_payload=asked.with_payload,
        )

    def _scroll(self, name: str, body: dict[str, Any]) -> Any:
        page, offset = self.engine.scroll(name, limit=body["limit"], offset=body.get("offset"))
        return {"points": [json.loads(record.model_dump_json()) for record in page], "next_page_offset": offset}


@contextmanager
def serving(key: str | None = API_KEY, *, engine: QdrantClient | None = None, port: int = 0) -> Iterator[QdrantServer]:
    """The server, on its own thread; over an engine that another one had, it is that one after a restart."""
    served = QdrantServer(engine or QdrantClient(":memory:"))
    served.answers.set()
    lock = threading.Lock()

    class Handler(JSONMixIn, BaseHTTPRequestHandler):
        def _handle(self) -> None:
            body = json.loads(self.read() or b"{}")
            path = urlsplit(self.path).path
            served.asked.append(f"{self.command} {path}")
            served.answers.wait()
            if self.headers["api-key"] != key:
                self._answer(401, {"status": {"error": "Must provide an API key"}})
            elif served.failing:
                self._answer(503, {"status": {"error": "not now"}})
            else:
                with lock:
                    result = served.answer(self.command, path, body)
                plain = json.loads(result.model_dump_json()) if hasattr(result, "model_dump_json") else result
                if isinstance(result, list):
                    plain = [json.loads(one.model_dump_json()) for one in result]
                self._answer(200, {"result": plain, "status": "ok", "time": 0.0})

        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def do_PUT(self) -> None:
            self._handle()

        def do_DELETE(self) -> None:
            self._handle()

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            self.send(status, json.dumps(body).encode())

    with running(ThreadingHTTPServer((HOST, port), Handler)) as served.url:
        yield served
