"""Servers of vectors that hang, restart in the middle, or drop their connections: nothing waits, nothing is lost."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from integration_tests import store_servers
from integration_tests.json_server import HOST
from langchain_memlayer import Memory
from langchain_memlayer.backends import base
from langchain_memlayer.errors import VectorStoreError
from langchain_memlayer.testing import DeterministicEmbeddings

pytestmark = pytest.mark.allow_hosts([HOST])

ANA = {"user_id": "ana"}


class Server:
    """A server under a memory.

    Attributes:
        provider: Of the configuration.
        settings: Of the configuration.
        hanging: While its block lasts, the server answers nothing.
        restart: Ends it, calls its argument, and starts it again over what it had.
    """

    def __init__(
        self,
        provider: str,
        settings: dict[str, Any],
        hanging: Callable[[], AbstractContextManager[Any]],
        restart: Callable[[Callable[[], None]], None],
    ) -> None:
        self.provider, self.settings = provider, settings
        self.hanging, self.restart = hanging, restart


@contextmanager
def _chroma(folder: Path) -> Iterator[Server]:
    port, stack = store_servers.free_port(), ExitStack()
    running = [stack.enter_context(store_servers.chroma(folder / "served", port))]

    def restart(meanwhile: Callable[[], None]) -> None:
        stack.close()
        meanwhile()
        running[0] = stack.enter_context(store_servers.chroma(folder / "served", port))

    with stack:
        yield Server("chroma", {"host": HOST, "port": port}, lambda: running[0].hanging(), restart)


@contextmanager
def _qdrant(folder: Path) -> Iterator[Server]:
    from integration_tests import qdrant_server

    port, stack = store_servers.free_port(), ExitStack()
    running = [stack.enter_context(qdrant_server.serving(None, port=port))]

    @contextmanager
    def hanging() -> Iterator[None]:
        running[0].answers.clear()
        try:
            yield
        finally:
            running[0].answers.set()

    def restart(meanwhile: Callable[[], None]) -> None:
        stack.close()
        meanwhile()
        running[0] = stack.enter_context(qdrant_server.serving(None, engine=running[0].engine, port=port))

    with stack:
        yield Server("qdrant", {"host": HOST, "port": port}, hanging, restart)


@contextmanager
def _pgvector(address: str) -> Iterator[Server]:
    import psycopg

    name = f"notes_{uuid4().hex}"
    # The server serves other tests too: ours are the connections with this name.
    settings = {"connection_string": f"{address}{'&' if '?' in address else '?'}application_name={name}"}

    @contextmanager
    def hanging() -> Iterator[None]:
        with psycopg.connect(address) as connection:
            connection.execute(f'LOCK TABLE "{name}" IN ACCESS EXCLUSIVE MODE')
            yield

    def restart(meanwhile: Callable[[], None]) -> None:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (name,)
            )
        meanwhile()

    yield Server("pgvector", {**settings, "collection_name": name}, hanging, restart)


@pytest.fixture(params=["chroma", "qdrant", "pgvector"])
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    pytest.importorskip("langchain_postgres" if request.param == "pgvector" else f"langchain_{request.param}")
    opened = {
        "chroma": lambda: _chroma(tmp_path),
        "qdrant": lambda: _qdrant(tmp_path),
        "pgvector": lambda: _pgvector(request.getfixturevalue("postgres")),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stores' own
        with opened[request.param]() as made:
            yield made
        gc.collect()  # connections that could not be closed while nobody answered


def _memory(server: Server) -> Memory:
    embedder = {"provider": "langchain", "config": {"model": DeterministicEmbeddings(32)}}
    store = {"provider": server.provider, "config": {"collection_name": "notes", **server.settings}}
    return Memory.from_config({"embedder": embedder, "vector_store": store}, hnsw_threshold=0)


def _told(memory: Memory, number: int) -> None:
    memory.add(f"Note {number} is about subject{number}.", infer=False, **ANA)


def _first(memory: Memory, number: int) -> bool:
    found = memory.search(f"subject{number}", limit=3, **ANA)["results"]
    return bool(found[0]["memory"] == f"Note {number} is about subject{number}.")


def _brought(memory: Memory) -> list[str]:
    """What lies in the store when everything was brought; a connection that was lost may fail once."""
    mirror = memory._indexes.mirror
    assert mirror is not None
    for _ in range(600):
        try:
            assert mirror.flush(60)
            break
        except VectorStoreError:
            time.sleep(0.1)
    return sorted(document.text for document in mirror.store.documents())


def test_a_server_that_hangs_holds_nobody_up_and_gets_everything(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _memory(server) as memory:
        for number in range(5):
            _told(memory, number)
        assert len(_brought(memory)) == 5
        with server.hanging(), monkeypatch.context() as hurried:
            hurried.setattr(base, "PATIENCE_SECONDS", 0.3)
            _told(memory, 5)
            assert [_first(memory, number) for number in (5, 0, 3)] == [True] * 3
            with _memory(server) as another:
                assert _first(another, 5)
        assert len(_brought(memory)) == 6
        assert _first(memory, 5)


def test_a_server_that_restarts_in_the_middle_has_everything_in_the_end(server: Server) -> None:
    with _memory(server) as memory:
        for number in range(5):
            _told(memory, number)
        assert len(_brought(memory)) == 5

        def meanwhile() -> None:
            _told(memory, 5)
            memory.delete(next(iter(memory.search("subject3", **ANA)["results"]))["id"])
            assert [_first(memory, number) for number in (5, 0)] == [True] * 2

        server.restart(meanwhile)
        assert _brought(memory) == [f"Note {number} is about subject{number}." for number in (0, 1, 2, 4, 5)]
        assert [_first(memory, number) for number in (4, 5)] == [True] * 2
