"""What the server's tests share: a memory with a story, and clients of an application over it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from langchain_memlayer import Memory
from langchain_memlayer.server import Tokens, create_app
from langchain_memlayer.testing import ScriptedChatModel

ADDRESS = "http://127.0.0.1:8765"
ALICE, OPS = "token-of-alice-0001", "token-of-operators-0002"
TOKENS = {ALICE: {"user_id": "alice"}, OPS: "*"}


def fact(quote: str, text: str, *triples: tuple[str, str, str]) -> dict[str, Any]:
    return {
        "facts": [{"turn": 1, "quote": quote, "fact": text, "subject": "Ann", "triples": [list(t) for t in triples]}]
    }


MOVED = [
    fact("I live in Paris", "Ann lives in Paris", ("Ann", "lives in", "Paris")),
    fact("I moved to Berlin", "Ann lives in Berlin", ("Ann", "lives in", "Berlin")),
    {"decisions": [{"fact": 1, "action": "UPDATE", "memory": 1, "text": "Ann lives in Berlin"}]},
]
"""Replies of a model to someone who lives in Paris, then moves to Berlin."""


def told(folder: Path | str = ":memory:", **settings: Any) -> Memory:
    """A memory in which Ann lived in Paris, and moved to Berlin."""
    memory = Memory(folder, model=ScriptedChatModel(replies=MOVED), embeddings=None, **settings)
    for said in ("I live in Paris.", "I moved to Berlin!"):
        memory.add({"role": "user", "name": "Ann", "content": said}, user_id="ann")
    return memory


@contextmanager
def serving(
    memory: Memory, *, tokens: dict[str, Any] | None = None, **options: Any
) -> Iterator[Callable[..., TestClient]]:
    """What makes clients of an application over a memory: each with a token, or none."""
    app = create_app(memory, tokens=Tokens(tokens), **options)

    def client(token: str | None = None) -> TestClient:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return TestClient(app, base_url=ADDRESS, headers=headers, follow_redirects=False)

    with TestClient(app, base_url=ADDRESS):
        yield client
