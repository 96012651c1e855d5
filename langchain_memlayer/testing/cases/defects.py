# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""A test for each known defect of the stores that come with LangGraph, named after its issue where there is one."""

from __future__ import annotations

import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest
from langgraph.store.base import PutOp

from langchain_memlayer.testing.cases.base import FLOAT16, NewStore, StoreCases, cosine, index_of, joined
from langchain_memlayer.testing.fakes import DeterministicEmbeddings, FrozenClock

NS = ("docs",)


class DefectCases(StoreCases):
    """What InMemoryStore, SqliteStore and PostgresStore get wrong."""

    # -- InMemoryStore --------------------------------------------------------------------------------------------

    def test_identical_texts_in_one_batch_langgraph_8822(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text", "title"))
        store.batch([PutOp(NS, key, {"text": "blue", "title": "blue"}) for key in "abc"])
        found = store.search(NS, query="blue")
        assert sorted(item.key for item in found) == ["a", "b", "c"]
        assert [item.score for item in found] == [pytest.approx(1, abs=FLOAT16)] * 3

    def test_live_references_langgraph_8835(self, new_store: NewStore) -> None:
        store = new_store()
        value: dict[str, Any] = {"n": 1, "list": [1], "map": {"a": 1}}
        store.put(NS, "k", value)
        value["n"] = 2
        value["list"].append(2)
        value["map"]["a"] = 2
        expected = {"n": 1, "list": [1], "map": {"a": 1}}
        for item in (store.found(NS, "k"), store.search(NS)[0]):
            assert item.value == expected
            item.value["list"].append(3)
            item.value["new"] = True
        assert store.found(NS, "k").value == expected

    @pytest.mark.parametrize(("index", "embedded"), [(None, "red"), (["title"], "black"), (False, None)])
    def test_stale_vectors_after_a_put_again_langgraph_8214(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings, index: Any, embedded: str | None
    ) -> None:
        store = new_store(index=index_of(embeddings, "parts[*]"))
        store.put(NS, "k", {"parts": ["blue", "green", "white"]})
        store.put(NS, "k", {"parts": ["red"], "title": "black"}, index=index)
        for query in ("blue", "green", "white", "red", "black"):
            (found,) = store.search(NS, query=query)
            if embedded is None:
                assert found.score is None
            else:
                assert found.score == pytest.approx(cosine(embeddings, embedded, query), abs=FLOAT16)

    def test_offset_ignored_for_unindexed_items_langgraph_8871(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch([PutOp(NS, f"v{n}", {"text": f"blue {n}"}) for n in range(3)])
        store.batch([PutOp(NS, f"p{n}", {"text": "blue"}, index=False) for n in range(5)])
        pages = [store.keys(NS, query="blue", limit=2, offset=offset) for offset in range(0, 10, 2)]
        assert [len(page) for page in pages] == [2, 2, 2, 2, 0]
        assert len(set(joined(pages))) == 8

    def test_ghost_namespaces_langgraph_8734(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(("real",), "k", {"n": 1})
        store.put(("left",), "k", {"n": 1})
        store.delete(("left",), "k")
        store.get(("ghost",), "k")
        store.delete(("ghost", "too"), "k")
        assert store.list_namespaces() == store.list_namespaces(max_depth=1) == [("real",)]

    @pytest.mark.parametrize("operator", ["$gt", "$gte", "$lt", "$lte"])
    def test_comparing_a_missing_key_raises(self, new_store: NewStore, operator: str) -> None:
        store = new_store()
        store.put(NS, "k", {"m": 1})
        assert store.search(NS, filter={"n": {operator: 1}}) == []

    def test_runtime_error_under_threads(self, new_store: NewStore) -> None:
        store = new_store().store

        def work(n: int) -> int:
            for k in range(30):
                store.put((*NS, str(n), str(k)), "k", {"n": n})
                store.search(NS, filter={"n": n}, limit=5)
            return len(store.search((*NS, str(n)), limit=100))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(work, range(8))) == [30] * 8

    # -- SqliteStore ----------------------------------------------------------------------------------------------

    def test_fields_ignored_langgraph_8808(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.put(NS, "k", {"text": "blue", "secret": "red"})
        assert embeddings.texts == ["blue"]
        assert store.search(NS, query="blue")[0].score == pytest.approx(1, abs=FLOAT16)

    def test_truncated_pages_langgraph_8977(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings, "parts[*]"))
        store.batch([PutOp(NS, str(n), {"parts": [f"blue {k}" for k in range(8)]}) for n in range(9)])
        pages = [store.keys(NS, query="blue", limit=4, offset=offset) for offset in (0, 4, 8)]
        assert [len(page) for page in pages] == [4, 4, 1]
        assert len(set(joined(pages))) == 9

    def test_orphaned_vectors_after_a_delete(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.put(NS, "k", {"text": "blue"})
        store.put(NS, "far", {"text": "red"})
        store.delete(NS, "k")
        assert store.keys(NS, query="blue", limit=1) == ["far"]
        store.put(NS, "k", {"text": "blue"}, index=False)
        assert [(item.key, item.score is None) for item in store.search(NS, query="blue")] == [
            ("far", False), ("k", True),
        ]  # fmt: skip

    def test_timestamps_of_whole_seconds_without_zone(self, new_store: NewStore, clock: FrozenClock) -> None:
        store = new_store()
        clock.advance(microseconds=500_001)
        store.put(NS, "a", {"n": 1})
        clock.advance(microseconds=1)
        store.put(NS, "b", {"n": 2})
        first, second = store.found(NS, "a").created_at, store.found(NS, "b").created_at
        assert first.tzinfo is not None
        assert second > first

    def test_some_distance_types_sort_the_farthest_first(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        for distance in self.distance_types:
            index: Any = {**index_of(embeddings, "text"), "distance_type": distance}
            store = new_store(index=index)
            store.batch([PutOp(NS, text, {"text": text}) for text in ("red wine", "blue door", "the blue door")])
            found = store.search(NS, query="blue door")
            assert [item.key for item in found] == ["blue door", "the blue door", "red wine"], distance
            scores = [item.score for item in found if item.score is not None]
            assert scores == sorted(scores, reverse=True), distance

    def test_no_async(self, new_store: NewStore) -> None:
        store = new_store()
        assert store.batch([PutOp(NS, "k", {"n": 1})]) == [None]
        assert store.found(NS, "k").value == {"n": 1}

    def test_omit_expired_ignored_langgraph_8902(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl={"default_ttl": 1, "omit_expired": True})
        store.put(NS, "k", {"n": 1})
        time.advance(minutes=2)
        assert store.get(NS, "k") is None
        assert store.search(NS) == []
        assert store.list_namespaces() == []

    def test_needs_a_loadable_sqlite_extension(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sqlite = pytest.importorskip("sqlite3")

        def refuse(self: object, enable: bool, /) -> NoReturn:
            raise AttributeError("this Python's sqlite3 was built without loadable extensions")

        limited = type("Limited", (sqlite.Connection,), {"enable_load_extension": refuse})
        monkeypatch.setattr(sqlite, "connect", functools.partial(sqlite.connect, factory=limited))
        monkeypatch.setitem(sys.modules, "sqlite_vec", None)
        store = new_store(index=index_of(embeddings, "text"))
        store.put(NS, "k", {"text": "blue"})
        assert store.keys(NS, query="blue") == ["k"]

    # -- PostgresStore --------------------------------------------------------------------------------------------

    def test_numbers_compared_as_text_langgraph_7684(self, new_store: NewStore) -> None:
        store = new_store()
        store.batch([PutOp(NS, str(n), {"n": n}) for n in (-3, 2, 9, 10, 100, 9.5)])
        assert sorted(store.keys(NS, filter={"n": {"$gt": 9}})) == ["10", "100", "9.5"]
        assert sorted(store.keys(NS, filter={"n": {"$lte": 9}})) == ["-3", "2", "9"]

    def test_small_tenants_starve_among_large_ones(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch([PutOp(("large", str(n % 3)), str(n), {"text": f"blue door {n}"}) for n in range(500)])
        store.batch([PutOp(("small",), str(n), {"text": f"red car {n}"}) for n in range(5)])
        assert sorted(store.keys(("small",), query="blue door", limit=5)) == ["0", "1", "2", "3", "4"]

    def test_pages_cut_short_by_a_filter(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch([PutOp(NS, str(n), {"text": f"blue {n}", "third": n % 3 == 0}) for n in range(90)])
        pages = [
            store.keys(NS, query="blue", filter={"third": True}, limit=7, offset=offset) for offset in range(0, 35, 7)
        ]
        assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
        assert len(set(joined(pages))) == 30
