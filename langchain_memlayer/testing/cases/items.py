# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Items: what may be stored, what comes back, and how the times of an item move."""

from __future__ import annotations

import math
from collections import UserDict
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from langgraph.store.base import PutOp

from langchain_memlayer.testing.cases.base import NewStore, StoreCases
from langchain_memlayer.testing.fakes import FrozenClock

NS = ("docs", "a")


class ItemCases(StoreCases):
    """The contract's section on items."""

    def test_an_item_comes_back_with_its_place_and_times(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1})
        item = store.found(NS, "k")
        assert (item.namespace, item.key, item.value) == (NS, "k", {"n": 1})
        assert item.created_at <= item.updated_at

    @pytest.mark.parametrize(
        "value",
        [
            {},
            {
                "none": None,
                "true": True,
                "false": False,
                "int": -7,
                "float": 0.1,
                "text": "naïve 北京 🙂",
                "": "empty key",
            },
            {"nested": {"list": [1, [2, {"deep": None}], "x"], "map": {"a.b": {"c": []}}}},
            {"large": 2**63 - 1, "larger": 2**70, "small": 1e-300},
            {"quotes": "'\"\\ \n\t", "nul": "a\x00b"},
        ],
        ids=["empty", "scalars", "nested", "numbers", "characters"],
    )
    def test_json_values_come_back_equal(self, new_store: NewStore, value: dict[str, Any]) -> None:
        store = new_store()
        store.put(NS, "k", value)
        got = store.found(NS, "k").value
        assert got == value
        assert {k: type(v) for k, v in got.items()} == {k: type(v) for k, v in value.items()}

    @pytest.mark.parametrize("kind", [MappingProxyType, UserDict])
    def test_values_may_be_any_mapping(self, new_store: NewStore, kind: Any) -> None:
        store = new_store()
        store.put(NS, "k", kind({"n": 1}))
        value = store.found(NS, "k").value
        assert value == {"n": 1}
        assert type(value) is dict

    @pytest.mark.parametrize(
        "bad",
        [object(), {1, 2}, b"bytes", datetime(2025, 1, 1, tzinfo=UTC), math.nan, math.inf, 1j],
        ids=["object", "set", "bytes", "datetime", "nan", "infinity", "complex"],
    )
    def test_a_value_that_is_no_json_is_rejected(self, new_store: NewStore, bad: object) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1})
        with pytest.raises((TypeError, ValueError)):
            store.put(NS, "k", {"list": [{"bad": bad}]})
        with pytest.raises((TypeError, ValueError)):
            store.batch([PutOp(NS, "other", {"bad": bad})])
        assert store.found(NS, "k").value == {"n": 1}
        assert store.get(NS, "other") is None

    def test_keys_are_strings(self, new_store: NewStore) -> None:
        store = new_store()
        key: Any = 7
        store.put(NS, key, {"n": 1})
        assert store.found(NS, "7").key == "7"
        assert store.found(NS, key).value == {"n": 1}
        store.delete(NS, key)
        assert store.get(NS, "7") is None

    def test_keys_are_taken_literally(self, new_store: NewStore) -> None:
        store = new_store()
        keys = ["a", "A", "a.b", "%", "_", "*", "'; --", "a b", "北京"]
        for n, key in enumerate(keys):
            store.put(NS, key, {"n": n})
        assert [store.found(NS, key).value["n"] for key in keys] == list(range(len(keys)))

    def test_a_key_belongs_to_its_namespace(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(("a",), "k", {"n": 1})
        store.put(("a", "b"), "k", {"n": 2})
        store.delete(("a",), "k")
        assert store.get(("a",), "k") is None
        assert store.found(("a", "b"), "k").value == {"n": 2}

    def test_what_is_missing_is_none_and_may_be_deleted(self, new_store: NewStore) -> None:
        store = new_store()
        assert store.get(NS, "missing") is None
        store.delete(NS, "missing")
        assert store.list_namespaces() == []

    def test_a_deleted_item_is_nowhere(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1})
        store.delete(NS, "k")
        assert store.get(NS, "k") is None
        assert store.search(NS) == []
        assert store.list_namespaces() == []

    def test_a_put_again_keeps_created_at_and_moves_updated_at(self, new_store: NewStore, clock: FrozenClock) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1})
        first = store.found(NS, "k")
        clock.advance(seconds=1)
        store.put(NS, "k", {"n": 2})
        second = store.found(NS, "k")
        assert second.value == {"n": 2}
        assert second.created_at == first.created_at
        assert second.updated_at > first.updated_at

    def test_updated_at_is_strictly_later_on_a_clock_that_stands_still(self, new_store: NewStore) -> None:
        store = new_store()
        seen = []
        for n in range(5):
            store.put(NS, "k", {"n": n})
            seen.append(store.found(NS, "k").updated_at)
        assert seen == sorted(set(seen))

    def test_times_are_aware_utc(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1})
        item = store.found(NS, "k")
        assert item.created_at.utcoffset() == item.updated_at.utcoffset() == timedelta(0)

    def test_times_keep_their_microseconds(self, new_store: NewStore, clock: FrozenClock) -> None:
        if not self.has_clock:
            pytest.skip("the store takes no clock")
        store = new_store()
        now = clock.advance(microseconds=123_457)
        store.put(NS, "k", {"n": 1})
        assert store.found(NS, "k").created_at == now
