from __future__ import annotations

import asyncio
import inspect
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster, BlockingError, blockbuster_ctx
from journal_dump import dump, ids, open_memory, texts
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage
from memory_kit import call

import langchain_memlayer
from langchain_memlayer import (
    AsyncMemory,
    EmbeddingError,
    InvalidInput,
    JournalClosed,
    Memory,
    MemoryNotFound,
    ScopeRequired,
)
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock

Call = Callable[..., Any]
ID = "00000000-0000-4000-8000-{:012x}".format


def story(clock: FrozenClock) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Calls of every kind; `SequentialIds` gives the store the first id."""
    yield "add", ("I live in Berlin. Where else?",), {"user_id": "u", "metadata": {"n": 1}}
    yield "add", ([HumanMessage("我住在北京", id="m1"), AIMessage("好的")],), {"user_id": "u", "session_id": "s"}
    old = [{"role": "user", "content": f"old {n}", "id": f"o{n}", "timestamp": f"2001-01-0{n}"} for n in range(1, 6)]
    yield "add", (old,), {"user_id": "u", "agent_id": "a", "session_id": "t"}
    yield "add", ([*old, {"role": "user", "content": "new"}],), {"user_id": "u", "agent_id": "a", "session_id": "t"}
    clock.advance(hours=1)
    yield "add", ("i live in BERLIN. Where else?",), {"user_id": "u"}
    yield "add", ("as given",), {"run_id": "r", "infer": False}
    yield "add", (["one", "two"],), {"agent_id": "a", "batch_id": "b"}
    yield "add", (["three"],), {"agent_id": "a", "batch_id": "b"}
    yield "search", ("Berlin",), {"user_id": "u"}
    yield "search", ("old things of January 2001",), {"agent_id": "a", "limit": 3, "filters": {"role": "user"}}
    clock.advance(days=1)
    yield "update", (ID(2), "I live in Rome."), {}
    yield "update", (ID(3), None, {"m": [1, "é"]}), {}
    yield "delete", (ID(4),), {}
    yield "delete_all", (), {"user_id": "u", "agent_id": "a"}
    yield "search", ("Rome",), {"user_id": "u"}
    yield "search", ("Rome",), {"user_id": "u", "as_of": "2025-01-01T12:00"}
    yield "search", ("Rome",), {"user_id": "u", "known_at": "2025-01-01T12:00"}
    yield "forget", (ID(3),), {}
    yield "get", (ID(2),), {}
    yield "get_all", (), {"everything": True, "limit": 5, "offset": 1}
    yield "history", (ID(2),), {}


def test_sync_and_async_give_the_same_journal_and_the_same_answers(tmp_path: Path) -> None:
    def plainly(folder: Path) -> list[Any]:
        clock = FrozenClock(tick=timedelta(microseconds=7))
        with open_memory(folder, clock=clock) as memory:
            return [getattr(memory, name)(*args, **kwargs) for name, args, kwargs in story(clock)]

    async def awaited(folder: Path) -> list[Any]:
        clock = FrozenClock(tick=timedelta(microseconds=7))
        async with open_memory(folder, clock=clock) as memory:
            return [await getattr(memory, f"a{name}")(*args, **kwargs) for name, args, kwargs in story(clock)]

    answers = plainly(tmp_path / "sync")
    assert answers == asyncio.run(awaited(tmp_path / "async"))
    tables = dump(tmp_path / "sync")
    assert tables == dump(tmp_path / "async")
    assert len(tables["events"]) > 20
    assert [len(answer["results"]) for answer in answers[8:10]] == [9, 3]
    assert texts(answers[-2]) == ["as given", "one", "two"]


async def test_the_errors_are_the_same(memory: Memory) -> None:
    for awaited, kind in (
        (memory.aadd("x"), ScopeRequired), (memory.asearch("x"), ScopeRequired),
        (memory.aadd([], user_id="u"), InvalidInput), (memory.aget_all(everything=True, limit=0), InvalidInput),
        (memory.aupdate("nobody", "x"), MemoryNotFound), (memory.adelete("nobody"), MemoryNotFound),
        (memory.aforget("nobody"), MemoryNotFound),
    ):  # fmt: skip
        with pytest.raises(kind):
            await awaited
    await memory.aclose()
    with pytest.raises(JournalClosed):
        await memory.aadd("x", user_id="u")


def test_one_memory_serves_several_event_loops_one_after_the_other(memory: Memory) -> None:
    for number in range(3):
        asyncio.run(memory.aadd(f"text {number}", user_id="u"))
        assert len(asyncio.run(memory.asearch("text", user_id="u"))["results"]) == number + 1


class Awaited(Embeddings):
    """Embeddings that can only be awaited, and wait for a company of callers before any of them goes on."""

    def __init__(self, company: int = 1) -> None:
        self._fake = DeterministicEmbeddings()
        self._company = company
        self._here = 0
        self.released = asyncio.Event()
        self.entered = asyncio.Event()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise AssertionError("a sync embedding call from an async path")

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("a sync embedding call from an async path")

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self._here += 1
        self.entered.set()
        if self._here >= self._company:
            self.released.set()
        await self.released.wait()
        return self._fake.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self._fake.embed_query(text)


async def test_sixty_adds_wait_for_the_embedder_together_and_all_are_stored(folder: Path) -> None:
    async with open_memory(folder, embeddings=Awaited(60)) as memory:
        adds = (memory.aadd(f"text number {n}", user_id=f"u{n % 3}") for n in range(60))
        done = await asyncio.wait_for(asyncio.gather(*adds), 60)
        told = sorted(text for result in done for text in texts(result))
        assert told == sorted(f"text number {n}" for n in range(60))
        assert len({key for result in done for key in ids(result)}) == 60
        for n in range(0, 60, 7):
            found = await memory.asearch(f"text number {n}", user_id=f"u{n % 3}")
            assert texts(found)[0] == f"text number {n}"
        assert len((await memory.aget_all(everything=True))["results"]) == 60


async def test_equal_texts_and_batches_at_once_are_stored_once(folder: Path) -> None:
    async with open_memory(folder, embeddings=Awaited(20)) as memory:
        told = [memory.aadd("yes", user_id="u") for _ in range(10)]
        batch = [memory.aadd(f"no {n}", user_id="v", batch_id="b") for n in range(10)]
        done = await asyncio.wait_for(asyncio.gather(*told, *batch), 60)
        (told_once,) = (await memory.aget_all(user_id="u"))["results"]
        (batch_once,) = (await memory.aget_all(user_id="v"))["results"]
    assert told_once["count"] == 10
    assert {texts(result)[0] for result in done[10:]} == {batch_once["memory"]}
    assert batch_once["count"] == 1


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_add_cancelled_while_it_embeds_leaves_nothing_and_can_be_repeated(folder: Path) -> None:
    embeddings = Awaited(company=2)
    async with open_memory(folder, embeddings=embeddings) as memory:
        before = dump(folder)
        task = asyncio.create_task(memory.aadd(["one", "two"], user_id="u", batch_id="b"))
        await embeddings.entered.wait()
        await cancelled(task)
        assert dump(folder) == before
        assert len(ids(await memory.aadd(["one", "two"], user_id="u", batch_id="b"))) == 2
        assert texts(await memory.aget_all(everything=True)) == ["one", "two"]


@pytest.fixture
def blockbuster() -> Iterator[BlockBuster]:
    with blockbuster_ctx(scanned_modules=langchain_memlayer) as buster:
        yield buster


@pytest.mark.parametrize("where", ["folder", "memory"])
@pytest.mark.parametrize("embeddings", [DeterministicEmbeddings(), None], ids=["vectors", "keywords"])
async def test_no_awaited_call_blocks_it(folder: Path, blockbuster: BlockBuster, where: str, embeddings: Any) -> None:
    path = folder if where == "folder" else ":memory:"
    memory = await asyncio.to_thread(open_memory, path, embeddings=embeddings, hnsw_threshold=1000)
    async with memory:
        (key,) = ids(await memory.aadd("zebra", user_id="u", batch_id="b"))
        await memory.aadd("zebra", user_id="u", batch_id="b")
        await memory.aadd([HumanMessage(f"walrus {n}", id=str(n)) for n in range(20)], user_id="u", session_id="s")
        assert ids(await memory.asearch("zebra", user_id="u"))[0] == key
        await memory.asearch("walrus", user_id="u", filters={"role": "user"}, threshold=0.1, kinds=["turn"])
        await memory.aupdate(key, "giraffe", {"n": 1})
        await memory.aget_all(everything=True, filters={"n": 1})
        for once in (memory.aget, memory.ahistory, memory.adelete, memory.aforget):
            await once(key)
        await memory.adelete_all(user_id="u")
        await memory.areset()
        await memory.aadd("again", user_id="u")


@pytest.mark.sqlite
async def test_the_blocking_call_of_a_sync_method_is_found(memory: Memory, blockbuster: BlockBuster) -> None:
    with pytest.raises(BlockingError):
        memory.get("x")
    with pytest.raises(BlockingError):
        memory.add("x", user_id="u")


async def test_what_an_embedder_blocks_is_found(folder: Path) -> None:
    class Sleepy(DeterministicEmbeddings):
        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            time.sleep(0)  # noqa: ASYNC251 - it is meant to block
            return self.embed_documents(texts)

    memory = await asyncio.to_thread(open_memory, folder, embeddings=Sleepy())
    with blockbuster_ctx():
        with pytest.raises(EmbeddingError, match="BlockingError"):
            await memory.aadd("x", user_id="u")
        await memory.aclose()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL statements of all connections opened from now on, without those that SQLite makes itself."""
    seen: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        db = connect(*args, **kwargs)
        db.set_trace_callback(lambda sql: None if sql.startswith("--") else seen.append(sql))
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    return seen


def cost(statements: list[str], call: Callable[[], Any]) -> int:
    statements.clear()
    call()
    return len(statements)


@pytest.mark.sqlite
async def test_calls_are_few_statements_whatever_the_size(folder: Path, statements: list[str]) -> None:
    async with open_memory(folder) as memory:
        (first, *_) = ids(await memory.aadd([f"text number {n}" for n in range(300)], user_id="u"))
        await memory.asearch("warm up", user_id="u")
        statements.clear()
        await memory.asearch("text number 7", user_id="u")
        assert len(statements) <= 6
        assert cost(statements, lambda: memory.get(first)) == 1
        # A snapshot, what is over, the namespace, pages in order, the rows, the relations.
        assert cost(statements, lambda: memory.get_all(user_id="u")) <= 6
        assert cost(statements, lambda: memory.history(first)) == 2


async def test_one_embedding_call_for_each_add_and_each_search(folder: Path, way: str) -> None:
    embeddings = DeterministicEmbeddings()
    with open_memory(folder, embeddings=embeddings) as memory:
        await call(way, memory, "add", [f"text {n}" for n in range(50)], user_id="u")
        # The first call also carries the sentences that a new embedder is measured with.
        (first,) = embeddings.batches
        assert [text for text in first if "text " in text] == [f"text {n}" for n in range(50)]
        await call(way, memory, "search", "text 7", user_id="u", filters={"role": "user"})
        assert (len(embeddings.batches), embeddings.queries) == (1, ["text 7"])
        await call(way, memory, "add", ["same", "same", "Same"], user_id="u")
        assert embeddings.batches[1:] == [["same", "Same"]]
        (key,) = ids(await call(way, memory, "add", "x", user_id="u"))
        await call(way, memory, "update", key, "y")
        assert len(embeddings.batches) == 4
        for name in ("get", "history", "delete"):
            await call(way, memory, name, key)
        await call(way, memory, "get_all", user_id="u")
        assert (len(embeddings.batches), len(embeddings.queries)) == (4, 1)


@pytest.mark.sqlite
async def test_awaited_adds_that_wait_for_another_process_keep_no_search_waiting(folder: Path) -> None:
    with open_memory(folder) as memory:
        await memory.aadd("tea", user_id="u")
        await memory.asearch("tea", user_id="u")
        other = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(memory.aadd(f"text {n}", user_id="u")) for n in range(60)]
        await asyncio.sleep(0)
        try:
            found = await asyncio.wait_for(memory.asearch("tea", user_id="u"), 20)
            assert [hit["memory"] for hit in found["results"]] == ["tea"]
            assert await asyncio.wait_for(asyncio.to_thread(int, "1"), 20) == 1
            assert not any(task.done() for task in waiting)
        finally:
            other.execute("ROLLBACK")
            other.close()
        await asyncio.gather(*waiting)
        assert len(memory.get_all(user_id="u")["results"]) == 61


async def test_methods_are_awaited_under_their_plain_names(tmp_path: Path) -> None:
    async with AsyncMemory(tmp_path, model=None, embeddings=None) as memory:
        added = await memory.add("I like green tea.", user_id="alice")
        key = added["results"][0]["id"]
        await memory.update(key, "I like black tea.")
        assert texts(await memory.search("tea", user_id="alice")) == ["I like black tea."]
        assert len(await memory.history(key)) == 2
        await memory.delete_all(user_id="alice")
        assert await memory.get(key) is None


async def test_a_configuration_may_be_awaited_or_not(tmp_path: Path) -> None:
    config = {"path": str(tmp_path), "llm": None, "embedder": {"provider": "wordllama"}}
    for memory in (AsyncMemory.from_config(config), await AsyncMemory.from_config(config_dict=config)):
        assert memory.memory.model is None
        await memory.close()


def test_every_awaited_twin_has_its_plain_name(tmp_path: Path) -> None:
    twins = {name for name, _ in inspect.getmembers(Memory, inspect.iscoroutinefunction) if name.startswith("a")}
    memory = AsyncMemory(tmp_path, model=None, embeddings=None)
    missing = {name for name in twins if not hasattr(memory, name[1:])}
    memory.memory.close()
    assert missing == set()
