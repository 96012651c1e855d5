from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from journal_dump import Faltering, unreachable
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore, GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from langchain_memlayer.errors import (
    ConfigurationError,
    EmbedderMismatch,
    EmbeddingError,
    InvalidInput,
    JournalClosed,
    JournalError,
)
from langchain_memlayer.journal import item_reader, reader
from langchain_memlayer.journal import sqlite as journal_module
from langchain_memlayer.store import MemLayerStore
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock

NS = ("docs",)


@pytest.fixture
def embeddings() -> DeterministicEmbeddings:
    return DeterministicEmbeddings(dims=64)


@pytest.fixture(params=["memory", "folder"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    return ":memory:" if request.param == "memory" else tmp_path / "store"


@pytest.fixture
def store(where: str | Path, embeddings: DeterministicEmbeddings) -> Iterator[MemLayerStore]:
    with open_store(where, embeddings) as opened:
        yield opened


def open_store(where: str | Path, embeddings: Embeddings, **settings: Any) -> MemLayerStore:
    index: Any = {"dims": 64, "embed": embeddings, "fields": ["text"]}
    return MemLayerStore(where, index=index, durability="fast", **settings)


def contents(store: BaseStore) -> dict[tuple[Any, ...], Any]:
    return {(*item.namespace, item.key): item.value for item in store.search((), limit=1000)}


class TestThreadsAndLoops:
    @pytest.mark.parametrize("how", ["invoke", "ainvoke"])
    def test_a_superstep_of_many_nodes(self, store: MemLayerStore, how: str) -> None:
        class State(TypedDict):
            seen: Annotated[list[str], lambda old, new: old + new]

        def node(n: int) -> Callable[..., Any]:
            def run(state: State, *, store: BaseStore) -> dict[str, list[str]]:
                store.put((*NS, str(n)), "k", {"text": f"node{n}"})
                return {"seen": [store.search((*NS, str(n)), query=f"node{n}")[0].value["text"]]}

            async def arun(state: State, *, store: BaseStore) -> dict[str, list[str]]:
                await store.aput((*NS, str(n)), "k", {"text": f"node{n}"})
                return {"seen": [(await store.asearch((*NS, str(n)), query=f"node{n}"))[0].value["text"]]}

            return run if how == "invoke" else arun

        builder = StateGraph(State)
        for n in range(21):
            builder.add_node(f"n{n}", node(n))
            builder.add_edge(START, f"n{n}")
            builder.add_edge(f"n{n}", END)
        graph = builder.compile(store=store)
        out = graph.invoke({"seen": []}) if how == "invoke" else asyncio.run(graph.ainvoke({"seen": []}))
        assert sorted(out["seen"]) == sorted(f"node{n}" for n in range(21))
        assert len(store.search(NS, limit=100)) == 21

    async def test_as_an_async_context_manager(self, where: str | Path, embeddings: DeterministicEmbeddings) -> None:
        async with open_store(where, embeddings) as store:
            await store.aput(NS, "k", {"text": "blue"})
            assert [item.key for item in await store.asearch(NS, query="blue")] == ["k"]
        with pytest.raises(JournalClosed):
            await store.aget(NS, "k")

    async def test_cancelled_calls_leave_whole_batches(self, where: str | Path) -> None:
        class Waiting(DeterministicEmbeddings):
            async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
                await asyncio.Event().wait()
                raise AssertionError

        with open_store(where, Waiting(64)) as store:
            task = asyncio.create_task(store.abatch([PutOp(NS, "a", {"text": "x"}), PutOp(NS, "b", {"n": 1})]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert contents(store) == {}


def _cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


BAD_OPS: dict[str, Any] = {
    "value is a list": PutOp(NS, "k", [1]), "value is a string": PutOp(NS, "k", "text"),
    "value is no json": PutOp(NS, "k", {"a": object()}), "value has a number as key": PutOp(NS, "k", {1: "a"}),
    "value contains itself": PutOp(NS, "k", _cyclic()), "value holds a surrogate": PutOp(NS, "k", {"a": "\ud800"}),
    "value has a surrogate as key": PutOp(NS, "k", {"\ud800": 1}),
    "key holds a surrogate": PutOp(NS, "\ud800", {"a": 1}), "key holds a NUL": PutOp(NS, "a\x00", {"a": 1}),
    "label holds a surrogate": PutOp(("\ud800",), "k", {"a": 1}),
    "label is a list": GetOp((["docs"],), "k"),
    "namespace is a string": PutOp("docs", "k", {"a": 1}), "namespace is none": PutOp(None, "k", {"a": 1}),
    "delete without namespace": PutOp((), "k", None), "ttl is zero": PutOp(NS, "k", {"a": 1}, ttl=0),
    "ttl is negative": PutOp(NS, "k", {"a": 1}, ttl=-1), "ttl is nan": PutOp(NS, "k", {"a": 1}, ttl=float("nan")),
    "ttl is infinite": PutOp(NS, "k", {"a": 1}, ttl=float("inf")), "ttl is text": PutOp(NS, "k", {"a": 1}, ttl="5"),
    "ttl is true": PutOp(NS, "k", {"a": 1}, ttl=True), "index is text": PutOp(NS, "k", {"a": 1}, index="text"),
    "index is true": PutOp(NS, "k", {"a": 1}, index=True),
    "index holds a number": PutOp(NS, "k", {"a": 1}, index=[1]), "get of a string": GetOp("docs", "k"),
    "get of a surrogate": GetOp(NS, "\ud800"), "get of a NUL": GetOp(NS, "a\x00"),
    "limit is zero": SearchOp(NS, limit=0), "limit is negative": SearchOp(NS, limit=-1),
    "limit is text": SearchOp(NS, limit="3"), "limit is none": SearchOp(NS, limit=None),
    "limit is true": SearchOp(NS, limit=True), "offset is negative": SearchOp(NS, offset=-1),
    "filter is a list": SearchOp(NS, filter=[1]), "filter is text": SearchOp(NS, filter="a = 1"),
    "query is a number": SearchOp(NS, query=5), "prefix is a string": SearchOp("docs"),
    "list limit is zero": ListNamespacesOp(limit=0), "list offset is negative": ListNamespacesOp(offset=-1),
    "max depth is zero": ListNamespacesOp(max_depth=0), "max depth is text": ListNamespacesOp(max_depth="2"),
    "match type is unknown": ListNamespacesOp((MatchCondition("infix", NS),)),
    "list prefix is a string": ListNamespacesOp((MatchCondition("prefix", "docs"),)),
    "no operation": ("put", NS, "k"), "nothing": None,
}  # fmt: skip


BROKEN: dict[str, Any] = {
    "too few": lambda texts: [[1.0] * 64][: len(texts) - 1],
    "too many": lambda texts: [[1.0] * 64] * (len(texts) + 1), "wrong size": lambda texts: [[1.0] * 63] * len(texts),
    "nan": lambda texts: [[float("nan")] * 64] * len(texts),
    "infinite": lambda texts: [[float("inf")] * 64] * len(texts), "none": lambda texts: None,
    "text": lambda texts: [["a"] * 64] * len(texts),
    "ragged": lambda texts: [[1.0] * (64 - n) for n in range(len(texts))],
}  # fmt: skip


BAD_INDEX: list[dict[str, Any]] = [
    {"dims": 0}, {"dims": -1}, {"dims": "64"}, {"dims": True}, {"dims": None}, {"embed": None}, {"embed": 7},
    {"embed": "nothing"}, {"distance_type": "hamming"}, {"fields": "text"}, {"fields": [1]},
]  # fmt: skip
BAD_TTL: list[Any] = [
    "5", {"default_ttl": -1}, {"default_ttl": "5"}, {"default_ttl": float("nan")}, {"default_ttl": True},
    {"refresh_on_read": "no"}, {"sweep_interval_minutes": 0}, {"sweep_interval_minutes": "1"},
]  # fmt: skip


class TestBadInput:
    @pytest.fixture(params=["sync", "async"])
    def batch(self, request: pytest.FixtureRequest) -> Callable[[MemLayerStore, Any], Any]:
        return MemLayerStore.batch if request.param == "sync" else lambda store, ops: asyncio.run(store.abatch(ops))

    def test_a_bad_operation_leaves_nothing_of_its_batch(self, store: MemLayerStore, batch: Any) -> None:
        store.put(NS, "before", {"text": "blue"})
        for name, bad in BAD_OPS.items():
            ops = [PutOp(NS, "first", {"text": "red"}), PutOp(NS, "before", None), bad, PutOp(NS, "last", {"n": 1})]
            with pytest.raises(ValueError, match=r"\w+ \w+"):
                batch(store, ops)
            assert contents(store) == {("docs", "before"): {"text": "blue"}}, name
            assert [item.key for item in store.search((), query="red")] == ["before"], name

    @pytest.mark.parametrize("name", BROKEN)
    def test_a_broken_embedder_leaves_nothing(self, where: str | Path, name: str, batch: Any) -> None:
        with open_store(where, Faltering(BROKEN[name], 64, broken=True)) as store:
            with pytest.raises(EmbeddingError):
                batch(
                    store, [PutOp(NS, "a", {"text": "red"}), PutOp(NS, "b", {"text": "blue"}), PutOp(NS, "c", {"n": 1})]
                )
            assert contents(store) == {}
            store.put(NS, "c", {"n": 1})
            assert contents(store) == {("docs", "c"): {"n": 1}}

    def test_what_the_embedder_raises_passes_and_leaves_nothing(self, where: str | Path, batch: Any) -> None:
        with open_store(where, Faltering(unreachable, 64, broken=True)) as store:
            for ops in ([PutOp(NS, "a", {"text": "red"})], [PutOp(NS, "c", {"n": 1}), SearchOp(NS, query="red")]):
                with pytest.raises(ConnectionError, match="no route"):
                    batch(store, ops)
            assert contents(store) == {}

    def test_a_bad_configuration_is_refused(self, tmp_path: Path, embeddings: DeterministicEmbeddings) -> None:
        index: Any = {"dims": 64, "embed": embeddings}
        for place, (given, error, says) in enumerate((
            *(({"index": index | change}, ConfigurationError, None) for change in BAD_INDEX),
            ({"index": ["text"]}, ConfigurationError, "mapping"),
            *(({"ttl": ttl}, ConfigurationError, "ttl") for ttl in BAD_TTL),
            ({"vectorstore": InMemoryVectorStore(embeddings)}, ConfigurationError, "needs index"),
            ({"durability": "none"}, InvalidInput, "durability"),
        )):  # fmt: skip
            with pytest.raises(error, match=says):
                MemLayerStore(tmp_path / str(place), **given)
            assert not (tmp_path / str(place)).exists() or "index" in given, given
        with open_store(tmp_path / "store", embeddings) as store:
            store.put(NS, "k", {"text": "blue"})
            assert [item.key for item in store.search(NS, query="blue")] == ["k"]


class TestBatches:
    def test_what_was_written_last_comes_first_whatever_the_clock_says(self, where: str | Path) -> None:
        clock = FrozenClock()
        with MemLayerStore(where, durability="fast", clock=clock) as store:
            store.put(NS, "a", {"n": 1})
            store.put(NS, "a", {"n": 2})
            store.put(("docs", "b"), "b", {"n": 3})
            clock.advance(minutes=-5)
            store.put(NS, "c", {"n": 4})
            assert [item.key for item in store.search(("docs",))] == ["c", "b", "a"]

    def test_a_failing_commit_leaves_nothing(self, store: MemLayerStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.put(NS, "before", {"text": "blue"})

        def fail(step: str) -> None:
            raise KeyboardInterrupt(step)

        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "_step", fail)
            with pytest.raises(KeyboardInterrupt):
                store.batch([PutOp(NS, "a", {"text": "red"}), PutOp(NS, "before", None)])
        assert contents(store) == {("docs", "before"): {"text": "blue"}}
        assert [item.key for item in store.search(NS, query="red")] == ["before"]
        store.put(NS, "a", {"text": "red"})
        assert [item.key for item in store.search(NS, query="red")] == ["a", "before"]

    def test_nothing_to_embed_is_no_call(self, store: MemLayerStore, embeddings: DeterministicEmbeddings) -> None:
        store.batch(
            [PutOp(NS, "a", {"n": 1}), PutOp(NS, "b", {"text": ""}), PutOp(NS, "c", {"text": "x"}, index=False)]
        )
        store.put(NS, "d", {"text": "x"}, index=[])
        store.batch([GetOp(NS, "a"), SearchOp(NS), SearchOp(NS, query=""), PutOp(NS, "a", None)])
        assert embeddings.batches == []
        assert embeddings.queries == []

    @pytest.mark.parametrize("query", [None, "blue"])
    def test_a_search_of_the_whole_store_reads_only_its_page(
        self, store: MemLayerStore, monkeypatch: pytest.MonkeyPatch, query: str | None
    ) -> None:
        store.batch([PutOp((*NS, str(n % 50)), str(n), {"text": f"blue {n % 7}"}) for n in range(1000)])
        values: list[str] = []

        def counted(text: str) -> Any:
            values.append(text)
            return json.loads(text)

        monkeypatch.setattr(item_reader, "loads", counted)
        assert len(store.search((), query=query, limit=7, offset=5)) == 7
        assert len(values) == 12

    def test_pages_over_many_namespaces_are_in_order_disjoint_and_whole(self, store: MemLayerStore) -> None:
        for n in range(120):
            store.put((*NS, str(n % 40)), str(n), {"n": n})
        for prefix, last in (((), 119), (NS, 119), ((*NS, "7"), 87)):
            found: list[str] = []
            while page := store.search(prefix, limit=7, offset=len(found)):
                found += [item.key for item in page]
            expected = [str(n) for n in range(last, -1, -40 if len(prefix) > len(NS) else -1)]
            assert found == expected

    def test_the_reads_of_a_batch_see_one_state_while_somebody_writes(
        self, tmp_path: Path, embeddings: DeterministicEmbeddings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with open_store(tmp_path / "s", embeddings) as store, open_store(tmp_path / "s", embeddings) as other:
            store.put(NS, "a", {"text": "blue", "n": 0})
            real = reader.Reader.items_by_key
            written = iter(range(1, 4))

            def between(reader: Any, *args: Any) -> Any:
                found = real(reader, *args)
                if (number := next(written, None)) is not None:
                    other.put(NS, "a", {"text": "blue", "n": number})
                return found

            monkeypatch.setattr(reader.Reader, "items_by_key", between)
            ops = [GetOp(NS, "a"), SearchOp(NS, query="blue"), SearchOp(NS), GetOp(NS, "a")]
            one, ranked, listed, again = store.batch(ops)
            assert one.value == again.value == ranked[0].value == listed[0].value
            assert ranked[0].score == pytest.approx(1, abs=1e-3)

    def test_reads_that_refresh_a_time_to_live_change_no_order_and_are_no_events(self, tmp_path: Path) -> None:
        clock = FrozenClock()
        index = {"dims": 32, "embed": DeterministicEmbeddings(32)}
        with (
            MemLayerStore(tmp_path, index=index, clock=clock, ttl={"refresh_on_read": True}) as store,
            MemLayerStore(tmp_path, index=index, clock=clock) as other,
        ):
            store.batch([PutOp(NS, key, {"text": key}, ttl=10) for key in "abc"])
            order = [item.key for item in store.search(NS, refresh_ttl=False)]
            assert other.search(NS, query="a", refresh_ttl=False)[0].key == "a"
            events = _events(store)
            clock.advance(minutes=8)
            assert store.get(NS, "a") is not None
            assert [item.key for item in store.search(NS, refresh_ttl=False)] == order
            assert _events(store) == events
            clock.advance(minutes=8)
            # The others are over; whoever saw an earlier end of "a" asks again.
            assert [item.key for item in other.search(NS, query="a", refresh_ttl=False)] == ["a"]
            assert [item.key for item in store.search(NS, query="a", refresh_ttl=False)] == ["a"]
            clock.advance(minutes=8)
            assert other.search(NS, query="a") == []

    @pytest.mark.parametrize("query", [None, "blue"])
    def test_a_page_beyond_any_type_is_a_long_one(self, store: MemLayerStore, query: str | None) -> None:
        store.batch([PutOp(NS, key, {"text": f"blue {key}"}) for key in "abc"])
        for number, condition in product((2**63 - 1, 2**63, 10**30), (None, {"text": {"$ne": "x"}})):
            assert len(store.search(NS, query=query, filter=condition, limit=number)) == 3
            assert len(store.search(NS, query=query, filter=condition, limit=number, offset=1)) == 2
            assert store.search(NS, query=query, filter=condition, offset=number) == []


def _events(store: MemLayerStore) -> int:
    with store._journal.read() as reader:
        return reader.counts()["events"]


class TestFolders:
    def test_a_reopened_folder_has_everything(self, tmp_path: Path, embeddings: DeterministicEmbeddings) -> None:
        def everything(store: MemLayerStore) -> list[Any]:
            return [store.get(NS, "a"), store.get(("other", "b"), "b"), store.search((), query="blue door")]

        with open_store(tmp_path / "s", embeddings) as store:
            store.put(NS, "a", {"text": "blue door"})
            store.put(("other", "b"), "b", {"n": 1}, index=False)
            before = everything(store)
        with open_store(tmp_path / "s", embeddings) as store:
            assert everything(store) == before
            assert store.list_namespaces() == [NS, ("other", "b")]
        assert embeddings.texts == ["blue door"]
        # Without its embedder it opens too.
        with MemLayerStore(tmp_path / "s") as plain:
            found = plain.search(NS, query="blue")
            assert [(item.key, item.score) for item in found] == [("a", None)]

    def test_two_open_stores_see_each_others_writes(self, tmp_path: Path, embeddings: DeterministicEmbeddings) -> None:
        with open_store(tmp_path / "s", embeddings) as one, open_store(tmp_path / "s", embeddings) as other:
            assert other.search(NS, query="blue") == []
            one.put(NS, "a", {"text": "blue"})
            assert [item.key for item in other.search(NS, query="blue")] == ["a"]
            other.put(NS, "b", {"text": "blue sky"})
            assert [item.key for item in one.search(NS, query="blue")] == ["a", "b"]
            one.put(NS, "a", {"text": "red"})
            assert [item.key for item in other.search(NS, query="blue")] == ["b", "a"]
            other.delete(NS, "b")
            assert [item.key for item in one.search(NS, query="blue")] == ["a"]
            assert one.get(NS, "b") is None

    def test_another_embedder_is_refused_by_name(self, tmp_path: Path, embeddings: DeterministicEmbeddings) -> None:
        class OtherEmbeddings(DeterministicEmbeddings):
            pass

        with open_store(tmp_path / "s", embeddings) as store:
            store.put(NS, "a", {"text": "blue"})
        with pytest.raises(EmbedderMismatch, match=r"(?s)DeterministicEmbeddings.*OtherEmbeddings"):
            open_store(tmp_path / "s", OtherEmbeddings(64))
        with open_store(tmp_path / "s", embeddings) as store:
            assert [item.key for item in store.search(NS, query="blue")] == ["a"]


class TestTTL:
    def test_a_put_over_an_expired_item_begins_anew(self, where: str | Path) -> None:
        clock = FrozenClock()
        with MemLayerStore(where, durability="fast", clock=clock) as store:
            store.put(NS, "k", {"n": 1}, ttl=1)
            later = clock.advance(minutes=2)
            store.put(NS, "k", {"n": 2})
            item = store.get(NS, "k")
            assert (item.value, item.created_at) == ({"n": 2}, later)

    def test_the_sweeper_sweeps(self, where: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clock, swept = FrozenClock(), threading.Event()
        with MemLayerStore(where, durability="fast", clock=clock) as store:
            store.put(NS, "k", {"n": 1}, ttl=1)
            clock.advance(minutes=2)
            counts: list[int] = []
            sweep = store.sweep_ttl

            def counted() -> int:
                counts.append(sweep())
                swept.set()
                return counts[-1]

            monkeypatch.setattr(store, "sweep_ttl", counted)
            store.start_ttl_sweeper(minutes=1e-5)
            assert swept.wait(30)
            assert store.stop_ttl_sweeper(30)
            assert counts[0] == 1
            assert sum(counts) == 1

    def test_one_sweeper_runs_and_another_after_it_was_stopped(self, where: str | Path) -> None:
        with MemLayerStore(where, durability="fast", ttl={"sweep_interval_minutes": 60}) as store:
            for minutes in (0, -1, float("nan"), float("inf"), "5"):
                with pytest.raises(InvalidInput, match="positive"):
                    store.start_ttl_sweeper(minutes)
            first = store.start_ttl_sweeper()
            assert store.start_ttl_sweeper(1) is first
            # An interval beyond any clock is a long one.
            for minutes in (1e30, 10**400):
                assert store.stop_ttl_sweeper(30)
                assert store.stop_ttl_sweeper()
                sweeper = store.start_ttl_sweeper(minutes)
                assert sweeper is not first
                sweeper.join(0.05)
                assert sweeper.is_alive()
        assert not sweeper.is_alive()

    def test_a_failing_sweep_is_tried_again(
        self, where: str | Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        again = threading.Event()
        calls: list[int] = []

        def fail_once() -> int:
            calls.append(1)
            if len(calls) == 1:
                raise JournalError("the disk is full")
            again.set()
            return 0

        with caplog.at_level(logging.WARNING), MemLayerStore(where, durability="fast") as store:
            monkeypatch.setattr(store, "sweep_ttl", fail_once)
            store.start_ttl_sweeper(minutes=1e-5)
            assert again.wait(30)
        assert [record.getMessage() for record in caplog.records] == [
            "The TTL sweep failed and will be tried again: the disk is full"
        ]


CALLS: list[Callable[[MemLayerStore], Any]] = [
    lambda store: store.get(NS, "k"), lambda store: store.put(NS, "k", {"n": 1}),
    lambda store: store.put(NS, "k", {"text": "blue"}), lambda store: store.delete(NS, "k"),
    lambda store: store.search(NS), lambda store: store.search(NS, query="blue"),
    lambda store: store.list_namespaces(), lambda store: store.sweep_ttl(),
    lambda store: store.start_ttl_sweeper(), lambda store: asyncio.run(store.aget(NS, "k")),
    lambda store: asyncio.run(store.aput(NS, "k", {"text": "blue"})),
    lambda store: asyncio.run(store.asearch(NS, query="blue")),
]  # fmt: skip


def test_every_call_says_that_the_store_is_closed(where: str | Path, embeddings: DeterministicEmbeddings) -> None:
    store = open_store(where, embeddings)
    store.put(NS, "k", {"text": "red"})
    store.search(NS, query="red")
    store.close()
    store.close()
    assert store.stop_ttl_sweeper()
    for call in CALLS:
        with pytest.raises(JournalClosed, match="closed"):
            call(store)
