# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Batches: order, visibility, what is embedded, and the checks that `batch` must make itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, Op, PutOp, SearchOp

from langchain_memlayer.testing.cases.base import NewStore, StoreCases, index_of
from langchain_memlayer.testing.fakes import DeterministicEmbeddings

NS = ("docs",)


class BatchCases(StoreCases):
    """The contract's section on batches."""

    def test_results_keep_the_order_of_operations(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "a", {"n": 1})
        store.put(("other",), "b", {"n": 2})
        got, none, found, spaces, missing = store.batch(
            [GetOp(NS, "a"), PutOp(NS, "c", {"n": 3}), SearchOp(("other",)), ListNamespacesOp(), GetOp(NS, "x")]
        )
        assert got.value == {"n": 1}
        assert none is None
        assert [item.key for item in found] == ["b"]
        assert spaces == [NS, ("other",)]
        assert missing is None

    def test_operations_may_come_from_a_generator(self, new_store: NewStore) -> None:
        store = new_store()
        assert store.batch(PutOp(NS, str(n), {"n": n}) for n in range(3)) == [None] * 3
        got = store.batch(GetOp(NS, str(n)) for n in range(3))
        assert [item.value["n"] for item in got] == [0, 1, 2]

    def test_an_empty_batch_gives_nothing(self, new_store: NewStore) -> None:
        assert new_store().batch([]) == []

    def test_reads_see_the_state_before_the_batch(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "old", {"n": 1})
        _, _, new, old, found, spaces = store.batch(
            [
                PutOp(("new",), "k", {"n": 2}),
                PutOp(NS, "old", None),
                GetOp(("new",), "k"),
                GetOp(NS, "old"),
                SearchOp(()),
                ListNamespacesOp(),
            ]
        )
        assert new is None
        assert old.value == {"n": 1}
        assert [item.key for item in found] == ["old"]
        assert spaces == [NS]
        assert store.list_namespaces() == [("new",)]

    def test_of_several_puts_to_a_key_the_last_wins(self, new_store: NewStore) -> None:
        store = new_store()
        store.batch([PutOp(NS, "k", {"n": n}) for n in range(3)])
        assert store.found(NS, "k").value == {"n": 2}
        assert store.keys(NS) == ["k"]

    def test_only_the_last_of_several_puts_is_embedded(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.batch(
            [
                PutOp(NS, "k", {"text": "first"}),
                PutOp(NS, "k", {"text": "second"}),
                PutOp(NS, "gone", {"text": "third"}),
                PutOp(NS, "gone", None),
            ]
        )
        assert embeddings.texts == ["second"]

    def test_a_delete_takes_part_in_last_wins(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "kept", {"n": 0})
        store.batch(
            [PutOp(NS, "gone", {"n": 1}), PutOp(NS, "gone", None), PutOp(NS, "kept", None), PutOp(NS, "kept", {"n": 2})]
        )
        assert store.get(NS, "gone") is None
        assert store.found(NS, "kept").value == {"n": 2}

    def test_a_batch_is_embedded_in_one_call_and_each_text_once(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "text", "title"))
        store.batch(
            [
                PutOp(NS, "a", {"text": "red", "title": "blue"}),
                PutOp(NS, "b", {"text": "red"}),
                PutOp(("other",), "c", {"text": "green", "title": "red"}),
            ]
        )
        assert len(embeddings.batches) == 1
        assert sorted(embeddings.texts) == ["blue", "green", "red"]

    def test_queries_use_embed_query(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings, "text"))
        store.put(NS, "a", {"text": "red"})
        embeddings.reset()
        store.batch([SearchOp(NS, query="red"), SearchOp(NS, query="blue"), SearchOp(NS)])
        assert sorted(set(embeddings.queries)) == ["blue", "red"]
        assert embeddings.batches == []

    @pytest.mark.parametrize("label", ["a.b", "", "a\x00b", 7])
    @pytest.mark.parametrize(
        "make",
        [
            lambda ns: GetOp(ns, "k"),
            lambda ns: PutOp(ns, "k", {"n": 1}),
            lambda ns: PutOp(ns, "k", None),
            SearchOp,
            lambda ns: ListNamespacesOp((MatchCondition("prefix", ns),)),
            lambda ns: ListNamespacesOp((MatchCondition("suffix", ns),)),
        ],
        ids=["get", "put", "delete", "search", "prefix", "suffix"],
    )
    def test_batch_checks_labels_itself(self, new_store: NewStore, make: Callable[[Any], Op], label: object) -> None:
        store = new_store()
        with pytest.raises(ValueError, match="label"):
            store.batch([make(("a", label))])
        assert store.list_namespaces() == []

    def test_a_label_with_a_dot_cannot_address_another_namespace(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(("a", "b"), "k", {"n": 1})
        with pytest.raises(ValueError, match="label"):
            store.batch([PutOp(("a.b",), "k", {"n": 2})])
        assert store.found(("a", "b"), "k").value == {"n": 1}

    def test_the_root_langgraph_works_through_batch_only(self, new_store: NewStore) -> None:
        store = new_store()
        store.batch([PutOp(("langgraph", "x"), "k", {"n": 1})])
        assert store.found(("langgraph", "x"), "k").value == {"n": 1}
        with pytest.raises(ValueError, match="langgraph"):
            store.put(("langgraph", "x"), "k", {"n": 2})
