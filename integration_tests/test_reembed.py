"""Another embedder for a store in PostgreSQL, with several hosts at work."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from integration_tests.postgres_server import schema
from langchain_memlayer import EmbedderMismatch, Memory, doctor
from langchain_memlayer.engine.index_sync import recorded_embedder
from langchain_memlayer.journal import open_journal
from langchain_memlayer.journal import postgres as postgres_journal
from langchain_memlayer.moving import reembed_store, reembedding
from langchain_memlayer.recall import PROBES
from langchain_memlayer.testing import DeterministicEmbeddings

_numbers = count(1)
QUESTIONS = ("boat number 7", "Where do I live?", "tea")


class Other(DeterministicEmbeddings):
    """Another model; `before` is called with each batch before it is embedded."""

    def __init__(self, before: Callable[[list[str]], None] = lambda texts: None) -> None:
        super().__init__(dims=96)
        self.before = before

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if texts != list(PROBES):
            self.before(texts)
        return super().embed_documents(texts)

    def vector(self, text: str) -> list[float]:
        return super().vector(f"{text} otherwise")


@pytest.fixture
def url(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A schema of its own."""
    monkeypatch.setattr(reembedding, "_AT_ONCE", 8)
    monkeypatch.setattr(reembedding, "_REMOVED_AT_ONCE", 20)
    name = f"memlayer_reembed_{os.getpid()}_{next(_numbers)}"
    yield schema(postgres, name)
    with psycopg.connect(postgres, autocommit=True) as db:
        db.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def opened(path: str | Path, embeddings: DeterministicEmbeddings) -> Memory:
    return Memory(path, model=None, embeddings=embeddings)


def fill(path: str | Path, embeddings: DeterministicEmbeddings) -> None:
    with opened(path, embeddings) as memory:
        home = memory.add("I live in Rome.", user_id="u", timestamp="2024-05-01")["results"][0]["id"]
        memory.add([{"role": "user", "content": f"My boat number {k} is red."} for k in range(30)], user_id="u")
        memory.update(home, "I live in Paris.")
        for number in range(10):
            value = {"title": f"The boat number {number}", "body": "tea"}
            memory.store.put(("docs", f"n{number}"), "k", value, index=["title"])


def answers(path: str | Path, embeddings: DeterministicEmbeddings) -> list[Any]:
    with opened(path, embeddings) as memory:
        found: list[Any] = []
        for question in QUESTIONS:
            hits = memory.search(question, user_id="u")["results"]
            items = memory.store.search(("docs",), query=question)
            found.append([(hit["memory"], round(hit["score"], 6)) for hit in hits])
            # Items of one score stand in the order in which each database found them.
            found.append(sorted(round(item.score or 0, 6) for item in items))
        return found


def problems(url: str) -> list[str]:
    journal = open_journal(url)
    found = [problem.rule for problem in doctor.check(journal)]
    journal.close()
    return found


def test_it_answers_as_a_new_folder_of_sqlite_would(url: str, tmp_path: Path) -> None:
    fill(url, DeterministicEmbeddings())
    fill(tmp_path, Other())
    assert reembed_store(url, Other()) == 42
    assert answers(url, Other()) == answers(tmp_path, Other())
    assert problems(url) == []


def test_hosts_write_until_the_vectors_change_and_are_told_afterwards(url: str) -> None:
    fill(url, DeterministicEmbeddings())
    with opened(url, DeterministicEmbeddings()) as one, opened(url, DeterministicEmbeddings()) as two:

        def meanwhile(texts: list[str]) -> None:
            # What is embedded last is embedded while all others wait; this very thread must not.
            if len(written) < 5:
                written.append(f"I met friend number {len(written)}.")
                assert one.add(written[-1], user_id="u")["results"]
                two.store.put(("docs", "n0"), "k", {"title": f"A comet, {len(written)}"})
                found = [hit["memory"] for hit in two.search(written[-1], user_id="u")["results"]]
                assert written[-1] in found

        written: list[str] = []
        assert reembed_store(url, Other(meanwhile)) == 42 + 5
        for call in (
            lambda: one.add("I have a cat.", user_id="u"),
            lambda: two.search("cat", user_id="u"),
            lambda: two.store.search(("docs",), query="comet"),
        ):
            with pytest.raises(EmbedderMismatch, match="Open it again"):
                call()
    with opened(url, Other()) as memory:
        found = [hit["memory"] for hit in memory.search("friend number", user_id="u")["results"]]
        assert set(written) <= set(found)
        assert memory.store.search(("docs",), query='{"title": "A comet, 5"}')[0].score == pytest.approx(1, abs=1e-3)
    assert problems(url) == []


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_commit_is_gone_on_with(url: str, tmp_path: Path) -> None:
    fill(tmp_path, Other())
    expected = answers(tmp_path, Other())
    fill(url, DeterministicEmbeddings())
    before = answers(url, DeterministicEmbeddings())
    switched = set()
    # Each attempt finds what the one before has left, and makes a batch or two of it before it dies.
    for kills in count():
        if not killed_at(9 + kills % 2, lambda: reembed_store(url, Other())):
            break
        found = problems(url)
        switched.add(changed := has_changed(url))
        assert answers(url, Other() if changed else DeterministicEmbeddings()) == (expected if changed else before)
        if not found:
            break
        assert found == ["reembed"]
    assert kills >= 3
    assert switched == {False, True}
    assert answers(url, Other()) == expected
    assert problems(url) == []


def has_changed(url: str) -> bool:
    journal = open_journal(url)
    recorded = recorded_embedder(journal, "memories")
    journal.close()
    return recorded == ("Other", 96)


def killed_at(number: int, run: Callable[[], Any]) -> bool:
    """Whether a process that runs this was killed, which it is at a step of its commits."""
    child = os.fork()
    if not child:
        left = count(number, -1)
        postgres_journal._step = lambda name: os.kill(os.getpid(), signal.SIGKILL) if next(left) == 1 else None
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0
