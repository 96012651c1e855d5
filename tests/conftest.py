from __future__ import annotations

import functools
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import journal_dump
import postgres_server
import pytest
import typer.testing
from hypothesis import HealthCheck, settings

from langchain_memlayer import Memory
from langchain_memlayer.embedders.own import WordLlamaEmbeddings
from langchain_memlayer.testing import fakes

# The same examples each time, so that a change is judged by what it changed. `make fuzz` asks for others: `fuzz`.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile(
    "fuzz", deadline=None, derandomize=False, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("same")

# No test asks a service: neither a key nor the terminal of whoever runs them makes a difference.
for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "ARK_API_KEY", "DEEPSEEK_API_KEY", "COLUMNS"):
    os.environ.pop(variable, None)

# A shell that runs tests behind itself has them ignore interrupts, and with them the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before any test module has it: what opens a folder opens a schema.
if postgres_server.WANTED:
    import langchain_memlayer.journal.postgres as postgres_journal
    import langchain_memlayer.journal.sqlite as sqlite_journal

    sqlite_journal.SQLiteJournal = lambda path, **given: postgres_server.current[-1].open(path, **given)  # type: ignore[assignment,misc]
    postgres_journal._step = lambda name: sqlite_journal._step(name)  # type: ignore[assignment]


_read_model, _models = WordLlamaEmbeddings._load, dict[Any, Any]()


@functools.wraps(_read_model)
def _load(model: WordLlamaEmbeddings) -> Any:
    """The bundled model, which each worker reads once, and not each memory that a test opens."""
    if model._files not in _models:
        _models[model._files] = _read_model(model)
    return _models[model._files]


WordLlamaEmbeddings._load = _load  # type: ignore[method-assign]


# Words have their numbers worked out once.
fakes._signs = functools.cache(fakes._signs)

# The commands are put together once, and not for each call of one.
typer.testing._get_command = functools.cache(typer.testing._get_command)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: about SQLite's own files, so it is not run on PostgreSQL")


def pytest_collection_finish() -> None:
    # What is imported by now stays, so no collection has to look through it.
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if postgres_server.WANTED:
        for item in items:
            if item.get_closest_marker("sqlite"):
                item.add_marker(pytest.mark.skip(reason="about SQLite's own files"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test's store is, which nobody has made yet."""
    return tmp_path / "store"


@pytest.fixture
def memory(folder: Path) -> Iterator[Memory]:
    """A memory there, without a model."""
    with journal_dump.open_memory(folder) as opened:
        yield opened


@pytest.fixture(params=["plain", "awaited"])
def way(request: pytest.FixtureRequest) -> str:
    """How a test calls what has an awaited twin, by `memory_kit.call`."""
    return str(request.param)


@pytest.fixture(scope="session")
def _server() -> Iterator[str]:
    with postgres_server.served() as url:
        yield url


@pytest.fixture(autouse=bool(postgres_server.WANTED))
def _postgres(_server: str) -> Iterator[None]:
    postgres_server.current.append(postgres_server.Schemas(_server))
    yield
    postgres_server.current.pop().drop()
