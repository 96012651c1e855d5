# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Search: what is ranked, in which order, and that pages are complete."""

from __future__ import annotations

import pytest
from langgraph.store.base import PutOp

from langchain_memlayer.testing.cases.base import FLOAT16, NewStore, StoreCalls, StoreCases, cosine, index_of, joined
from langchain_memlayer.testing.fakes import DeterministicEmbeddings, FrozenClock

NS = ("docs",)


def _pages(store: StoreCalls, size: int, total: int, **search: object) -> list[list[str]]:
    return [store.keys(NS, limit=size, offset=offset, **search) for offset in range(0, total + size, size)]


class SearchCases(StoreCases):
    """The contract's section on search, but for filters."""

    def test_without_a_query_the_last_written_comes_first(self, new_store: NewStore, clock: FrozenClock) -> None:
        store = new_store()
        for key in "abc":
            store.put(NS, key, {"k": key})
            clock.advance(seconds=1)
        assert store.keys(NS) == ["c", "b", "a"]
        store.put(NS, "a", {"k": "again"})
        found = store.search(NS)
        assert [item.key for item in found] == ["a", "c", "b"]
        assert [item.score for item in found] == [None] * 3

    def test_items_of_one_moment_have_a_stable_order(self, new_store: NewStore) -> None:
        store = new_store()
        store.batch([PutOp(NS, str(n), {"n": n}) for n in range(20)])
        order = store.keys(NS, limit=20)
        assert sorted(order, key=int) == [str(n) for n in range(20)]
        assert store.keys(NS, limit=20) == order
        assert joined(_pages(store, 3, 20)) == order

    def test_ten_is_the_default_limit(self, new_store: NewStore) -> None:
        store = new_store()
        store.batch([PutOp(NS, str(n), {"n": n}) for n in range(12)])
        assert len(store.search(NS)) == 10
        assert len(store.search(NS, limit=100)) == 12
        assert store.search(NS, offset=12) == []
        for most in (2**63 - 1, 10**30, 10**5000):
            assert store.search(NS, offset=most) == []
            assert len(store.search(NS, limit=most, offset=2)) == 10

    def test_a_query_without_an_index_lists(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "a", {"text": "red"}, index=["text"])
        assert [(item.key, item.score) for item in store.search(NS, query="red")] == [("a", None)]

    def test_found_items_are_whole(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings))
        store.put((*NS, "x"), "a", {"text": "red", "n": [1]})
        item = store.found((*NS, "x"), "a")
        for found in (store.search(NS)[0], store.search(NS, query="red")[0]):
            assert found.dict() == {**item.dict(), "score": found.score}

    def test_the_score_is_the_cosine_similarity(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        texts = ["the blue door", "a blue car", "red wine", "the blue door is open"]
        store = new_store(index=index_of(embeddings, "text"))
        for text in texts:
            store.put(NS, text, {"text": text})
        found = store.search(NS, query="the blue door")
        assert found[0].key == "the blue door"
        assert [item.key for item in found] == sorted(
            texts, key=lambda text: -cosine(embeddings, text, "the blue door")
        )
        for item in found:
            assert item.score == pytest.approx(cosine(embeddings, item.key, "the blue door"), abs=FLOAT16)

    def test_an_item_scores_its_best_vector_and_appears_once(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "parts[*]"))
        store.put(NS, "many", {"parts": ["red", "blue", "blue sky"]})
        store.put(NS, "one", {"parts": ["blue moon"]})
        found = store.search(NS, query="blue")
        assert [item.key for item in found] == ["many", "one"]
        assert found[0].score == pytest.approx(1, abs=FLOAT16)

    def test_duplicates_go_before_offset_and_limit(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "parts[*]"))
        store.batch([PutOp(NS, str(n), {"parts": [f"blue {n}", "blue", f"blue door {n}"]}) for n in range(7)])
        pages = _pages(store, 2, 7, query="blue")
        assert [len(page) for page in pages] == [2, 2, 2, 1, 0]
        assert sorted(joined(pages)) == [str(n) for n in range(7)]

    def test_items_without_vectors_follow_the_scored_ones(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.put(NS, "plain", {"text": "blue"}, index=False)
        store.put(NS, "far", {"text": "red"})
        store.put(NS, "near", {"text": "blue"})
        store.put(NS, "other", {"title": "blue"})
        found = store.search(NS, query="blue")
        assert [item.key for item in found[:2]] == ["near", "far"]
        assert {item.key for item in found[2:]} == {"plain", "other"}
        assert [item.score is None for item in found] == [False, False, True, True]

    def test_pages_with_a_query_are_complete_and_disjoint(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch([PutOp(NS, f"v{n}", {"text": f"blue {n % 3}", "even": n % 2 == 0}) for n in range(11)])
        store.batch([PutOp(NS, f"p{n}", {"text": "blue", "even": n % 2 == 0}, index=False) for n in range(6)])
        everything = store.keys(NS, query="blue", limit=100)
        assert len(set(everything)) == 17
        for size in (1, 3, 5, 16):
            assert joined(_pages(store, size, 17, query="blue")) == everything
        even = store.keys(NS, query="blue", filter={"even": True}, limit=100)
        assert even == [key for key in everything if int(key[1:]) % 2 == 0]
        assert joined(_pages(store, 2, 9, query="blue", filter={"even": True})) == even

    def test_pages_with_a_filter_are_complete_and_disjoint(self, new_store: NewStore) -> None:
        store = new_store()
        store.batch([PutOp(NS, str(n), {"n": n, "even": n % 2 == 0}) for n in range(21)])
        pages = _pages(store, 4, 11, filter={"even": True})
        assert [len(page) for page in pages] == [4, 4, 3, 0]
        assert sorted(joined(pages), key=int) == [str(n) for n in range(0, 21, 2)]

    def test_the_namespace_applies_before_the_best_are_taken(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch([PutOp(("other", str(n % 5)), str(n), {"text": "blue door"}) for n in range(60)])
        store.batch([PutOp(NS, str(n), {"text": f"a red car {n}"}) for n in range(3)])
        assert sorted(store.keys(NS, query="blue door", limit=3)) == ["0", "1", "2"]

    def test_the_filter_applies_before_the_best_are_taken(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch([PutOp(NS, f"no{n}", {"text": "blue door", "keep": 0}) for n in range(200)])
        store.batch([PutOp(NS, f"yes{n}", {"text": f"a red car {n}", "keep": 1}) for n in range(3)])
        found = store.keys(NS, query="blue door", filter={"keep": {"$gte": 1}}, limit=3)
        assert sorted(found) == ["yes0", "yes1", "yes2"]
        assert sorted(store.keys(NS, filter={"keep": 1}, limit=3)) == ["yes0", "yes1", "yes2"]
