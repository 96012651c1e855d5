# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Filters: LangGraph's operators, the superset, and filters that are none."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import PutOp

from langchain_memlayer.testing.cases.base import NewStore, StoreCases, index_of
from langchain_memlayer.testing.fakes import DeterministicEmbeddings

NS = ("docs",)
_ITEMS: dict[str, dict[str, Any]] = {
    "a": {
        "n": 9, "s": "apple", "tags": ["x", "y"], "meta": {"lang": "en", "deep": {"k": 1}}, "flag": True, "none": None,
    },
    "b": {"n": 10, "s": "banana", "tags": ["y"], "meta": {"lang": "de"}, "flag": False},
    "c": {"n": 10.5, "s": "Cherry", "meta.lang": "fr", "meta": {"lang": "en"}},
    "d": {"n": "10", "s": "10"},
    "e": {"it's": 1, "s": "100%_"},
}  # fmt: skip
_BASE: list[tuple[dict[str, Any], str]] = [
    ({}, "abcde"),
    ({"n": 10}, "b"),
    ({"n": 10.0}, "b"),
    ({"n": "10"}, "d"),
    ({"s": "apple"}, "a"),
    ({"s": "Apple"}, ""),
    ({"s": "100%_"}, "e"),
    ({"s": "1%"}, ""),
    ({"it's": 1}, "e"),
    ({"flag": True}, "a"),
    ({"flag": False}, "b"),
    ({"tags": ["y"]}, "b"),
    ({"tags": ["y", "x"]}, ""),
    ({"meta": {"lang": "de"}}, "b"),
    ({"n": {"$eq": 10}}, "b"),
    ({"n": {"$ne": 10}}, "acde"),
    ({"n": {"$gt": 9}}, "bc"),
    ({"n": {"$gte": 9}}, "abc"),
    ({"n": {"$lt": 10}}, "a"),
    ({"n": {"$lte": 10}}, "ab"),
    ({"n": {"$gt": 9, "$lt": 10.5}}, "b"),
    ({"n": 10, "s": "banana"}, "b"),
    ({"n": 10, "s": "apple"}, ""),
    ({"s": {"$gt": "apple"}}, "b"),
    ({"s": {"$lt": "9"}}, "de"),
    ({"meta.lang": "fr"}, "c"),
    ({"meta.lang": "en"}, "a"),
    ({"meta.deep.k": {"$gte": 1}}, "a"),
    ({"missing": 1}, ""),
    ({"missing": {"$eq": 1}}, ""),
    ({"missing": {"$gt": 1}}, ""),
    ({"missing": {"$gte": 1}}, ""),
    ({"missing": {"$lt": 1}}, ""),
    ({"missing": {"$lte": "x"}}, ""),
    ({"missing": {"$ne": 1}}, "abcde"),
    ({"missing.deeper": {"$ne": 1}}, "abcde"),
    ({"n": {"$eq": None}}, "e"),
    ({"n": None}, "e"),
    ({"none": None}, "abcde"),
    ({"meta.deep.k.deeper": {"$eq": None}}, "abcde"),
]
_MIXED: list[tuple[dict[str, Any], str]] = [
    ({"n": {"$gt": "0"}}, "d"),
    ({"n": {"$lt": "zzz"}}, "d"),
    ({"s": {"$gt": 1}}, ""),
    ({"tags": {"$gt": 1}}, ""),
    ({"meta": {"$lte": "zzz"}}, ""),
    ({"none": {"$gt": 0}}, ""),
]
_SUPERSET: list[tuple[dict[str, Any], str]] = [
    ({"n": {"$in": [9, 10]}}, "ab"),
    ({"n": {"$in": ["10", 10.5]}}, "cd"),
    ({"n": {"$in": []}}, ""),
    ({"n": {"$nin": [9, 10]}}, "cd"),
    ({"missing": {"$in": [1]}}, ""),
    ({"missing": {"$nin": [1]}}, ""),
    ({"tags": {"$contains": "y"}}, "ab"),
    ({"tags": {"$contains": "z"}}, ""),
    ({"s": {"$contains": "an"}}, "b"),
    ({"s": {"$contains": "%"}}, "e"),
    ({"missing": {"$contains": "x"}}, ""),
    ({"n": {"$exists": True}}, "abcd"),
    ({"n": {"$exists": False}}, "e"),
    ({"none": {"$exists": True}}, "a"),
    ({"meta.deep.k": {"$exists": True}}, "a"),
    ({"$and": [{"n": {"$gt": 9}}, {"s": "banana"}]}, "b"),
    ({"$or": [{"s": "apple"}, {"n": 10.5}]}, "ac"),
    ({"$or": [{"s": "apple"}, {"n": 10.5}], "tags": {"$contains": "x"}}, "a"),
    ({"$not": {"s": "apple"}}, "bcde"),
    ({"$or": [{"$and": [{"n": {"$gte": 9}}, {"$not": {"flag": True}}]}, {"it's": 1}]}, "bce"),
]


class FilterCases(StoreCases):
    """The contract's lines on filters."""

    @pytest.mark.parametrize(("condition", "keys"), _BASE, ids=repr)
    def test_filters_match(self, new_store: NewStore, condition: dict[str, Any], keys: str) -> None:
        self._check(new_store, condition, keys)

    @pytest.mark.parametrize(("condition", "keys"), _MIXED, ids=repr)
    def test_mixed_types_match_nothing_and_never_raise(
        self, new_store: NewStore, condition: dict[str, Any], keys: str
    ) -> None:
        self._check(new_store, condition, keys)

    @pytest.mark.parametrize(("condition", "keys"), _SUPERSET, ids=repr)
    def test_the_superset_matches(self, new_store: NewStore, condition: dict[str, Any], keys: str) -> None:
        if not self.supports_superset_filters:
            pytest.skip("the store has LangGraph's own operators only")
        self._check(new_store, condition, keys)

    def _check(self, new_store: NewStore, condition: dict[str, Any], keys: str) -> None:
        """With a query as without, the same items match."""
        queries: list[str | None] = [None]
        if self.has_vectors:
            queries.append("apple")
        settings = {"index": index_of(DeterministicEmbeddings(dims=16), "s")} if self.has_vectors else {}
        store = new_store(**settings)
        store.batch([PutOp(NS, key, value) for key, value in _ITEMS.items()])
        for query in queries:
            assert "".join(sorted(store.keys(NS, query=query, filter=condition))) == keys

    @pytest.mark.parametrize(
        "condition",
        [{"n": {"$regex": "x"}}, {"n": {"$gt": 1, "$near": 2}}, {"$where": "1"}, {1: "x"}, {None: 1}, {("a",): 1}],
        ids=repr,
    )
    def test_a_filter_that_is_none_is_an_error(self, new_store: NewStore, condition: dict[Any, Any]) -> None:
        for items in ({}, _ITEMS):
            store = new_store()
            store.batch([PutOp(NS, key, value) for key, value in items.items()])
            with pytest.raises(ValueError, match=r"^Invalid filter key|\$regex|\$near|\$where"):
                store.search(NS, filter=condition)
