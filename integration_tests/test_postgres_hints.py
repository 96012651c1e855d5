"""`notify=on`: what other hosts commit is read ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from integration_tests.postgres_server import Server
from integration_tests.test_postgres import children
from langchain_memlayer import Memory
from langchain_memlayer.errors import ConfigurationError
from langchain_memlayer.journal import postgres_hints
from langchain_memlayer.journal.read_caches import SlabReader
from langchain_memlayer.testing import DeterministicEmbeddings

DIMS = 32
NOTIFY = "&notify=on"


@pytest.fixture
def url(url: str) -> str:
    """A schema of its own, whose processes tell each other what they commit."""
    return f"{url}{NOTIFY}"


class Heard:
    """Counts the hints of a memory, after it has acted on them."""

    def __init__(self, memory: Memory) -> None:
        self.calls = 0
        self._more = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        memory._journal.after_hint.append(self._count)

    def _count(self) -> None:
        self.calls += 1
        self._more.release()
        self.gate.wait(60)

    def wait(self) -> None:
        """Wait for the next one."""
        assert self._more.acquire(timeout=60)


def opened(url: str, **settings: Any) -> Memory:
    return Memory(url, model=None, embeddings=DeterministicEmbeddings(DIMS), **settings)


@pytest.fixture
def pair(url: str) -> Iterator[tuple[Memory, Memory]]:
    """Two hosts of which the first listens by now."""
    with opened(url) as one, opened(url) as two:
        listening(one, two)
        yield one, two


def listening(one: Memory, two: Memory) -> None:
    heard = Heard(one)
    while not heard.calls:
        two.add("are you there?", user_id="nobody")
        heard._more.acquire(timeout=1)
    one._journal.after_hint.remove(heard._count)


def texts(memory: Memory, query: str) -> list[str]:
    return [hit["memory"] for hit in memory.search(query, user_id="u", limit=3)["results"]]


def test_after_a_hint_the_next_search_reads_no_rows(
    pair: tuple[Memory, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    two.add(["I live in Ghent", "I have a dog"], user_id="u")
    assert texts(one, "dog")
    heard = Heard(one)
    two.add([f"I met number {n}" for n in range(100)], user_id="u")
    heard.wait()
    read: list[str] = []
    changes = SlabReader.changes
    monkeypatch.setattr(
        SlabReader, "changes", lambda self, *given, **more: read.append(given[0]) or changes(self, *given, **more)
    )
    assert "I met number 77" in texts(one, "I met number 77")
    assert read == []
    one._journal.after_hint.remove(one._indexes.catch_up)
    two.add("I met number 101", user_id="u")
    assert "I met number 101" in texts(one, "I met number 101")
    assert len(read) == 1, "nobody has read it ahead"


def test_many_hints_in_a_row_become_few_calls_and_own_commits_none(pair: tuple[Memory, Memory]) -> None:
    one, two = pair
    heard = Heard(one)
    for number in range(5):
        one.add(f"mine {number}", user_id="u")
    heard.gate.clear()
    two.add("the first", user_id="u")
    heard.wait()
    for number in range(20):
        two.add(f"theirs {number}", user_id="u")
    heard.gate.set()
    two.add("the last", user_id="u")
    heard.wait()
    assert 2 <= heard.calls <= 5


def test_a_hint_says_nothing_but_who_sent_it(url: str) -> None:
    with opened(url) as memory, psycopg.connect(url.removesuffix(NOTIFY), autocommit=True) as db:
        channel = memory._journal._hints.channel
        db.execute(f'LISTEN "{channel}"')
        memory.add("my password is xylophone", user_id="u")
        assert texts(memory, "password")
        said = [hint.payload for hint in db.notifies(timeout=30, stop_after=1)]
        assert said == [memory._journal._hints.sender]
        assert "xylophone" not in said[0]


def test_without_the_setting_nobody_is_told(url: str) -> None:
    quiet = url.removesuffix(NOTIFY)
    with opened(url) as one, opened(quiet) as two, psycopg.connect(quiet, autocommit=True) as db:
        hints = one._journal._hints
        assert two._journal._hints is None
        db.execute(f'LISTEN "{hints.channel}"')
        two.add("quietly", user_id="u")
        assert texts(one, "quietly") == ["quietly"]
        one.add("aloud", user_id="u")
        assert {hint.payload for hint in db.notifies(timeout=30, stop_after=1)} == {hints.sender}, "and nothing before"
    with pytest.raises(ConfigurationError, match="notify must be"):
        opened(f"{quiet}&notify=maybe")


def test_it_goes_on_after_a_restart_of_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_hints, "_FIRST_WAIT", 0.1)
    url = f"{server.url}{NOTIFY}"
    with opened(url) as one, opened(url) as two:
        listening(one, two)
        server.restart()
        assert texts(one, "anything") == []
        listening(one, two)


def test_a_forked_child_hears_and_tells_by_itself(pair: tuple[Memory, Memory]) -> None:
    one, two = pair
    sender = one._journal._hints.sender
    heard = Heard(two)

    def work() -> Any:
        one.add("from a child", user_id="u")
        return one._journal._hints.sender != sender

    assert children(work) == [True]
    heard.wait()
    assert texts(two, "child") == ["from a child"]
    assert texts(one, "child") == ["from a child"]
    listening(one, two)
