# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Namespaces: what a label may be, what a prefix matches, and how namespaces are listed."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.base import ListNamespacesOp, MatchCondition

from langchain_memlayer.testing.cases.base import NewStore, StoreCalls, StoreCases, joined

_TREE = [
    ("users", "1", "prefs"),
    ("users", "1", "notes"),
    ("users", "2", "prefs"),
    ("users", "2", "prefs", "old"),
    ("teams", "1", "prefs"),
    ("users",),
]


def _filled(store: StoreCalls, namespaces: list[tuple[str, ...]]) -> StoreCalls:
    for namespace in namespaces:
        store.put(namespace, "k", {"at": list(namespace)})
    return store


class NamespaceCases(StoreCases):
    """The contract's section on namespaces."""

    @pytest.mark.parametrize(
        "namespace",
        [(), ("",), ("a", ""), ("a.b",), ("alice@example.com",), ("a\x00",), (7,), (None,), ("langgraph",)],
        ids=repr,
    )
    def test_put_refuses_what_is_no_namespace(self, new_store: NewStore, namespace: Any) -> None:
        store = new_store()
        with pytest.raises(ValueError, match=r"(?i)namespace"):
            store.put(namespace, "k", {"n": 1})
        assert store.list_namespaces() == []

    @pytest.mark.parametrize(
        "label", ["a b", "A", "北京", "a/b", "a:b", "-", "'", '"', "\\", "%", "_", "*", "?", "[a-z]"]
    )
    def test_labels_come_back_as_they_were(self, new_store: NewStore, label: str) -> None:
        store = _filled(new_store(), [(label, "x")])
        assert store.found((label, "x"), "k").namespace == (label, "x")
        assert store.search((label,))[0].namespace == (label, "x")
        assert store.list_namespaces() == [(label, "x")]

    def test_prefixes_may_be_lists(self, new_store: NewStore) -> None:
        store = _filled(new_store(), _TREE)
        assert [item.namespace for item in store.search(["teams"])] == [("teams", "1", "prefs")]
        assert store.list_namespaces(prefix=["teams"]) == [("teams", "1", "prefs")]
        assert store.list_namespaces(suffix=["old"]) == [("users", "2", "prefs", "old")]

    def test_a_prefix_matches_whole_segments(self, new_store: NewStore) -> None:
        store = _filled(new_store(), [("user",), ("users",), ("user", "1"), ("user", "10"), ("us", "er")])
        assert {item.namespace for item in store.search(("user",))} == {("user",), ("user", "1"), ("user", "10")}
        assert [item.namespace for item in store.search(("user", "1"))] == [("user", "1")]
        assert store.list_namespaces(prefix=("user",)) == [("user",), ("user", "1"), ("user", "10")]

    def test_a_prefix_is_case_sensitive(self, new_store: NewStore) -> None:
        store = _filled(new_store(), [("Users",), ("users",), ("USERS", "a")])
        assert [item.namespace for item in store.search(("users",))] == [("users",)]
        assert store.list_namespaces(prefix=("Users",)) == [("Users",)]
        assert store.list_namespaces(suffix=("USERS",)) == []

    @pytest.mark.parametrize("label", ["a%", "a_", "a*", "a?", "a[bc]", "%", "_", "*", "?", "[!x]*", "a\\"])
    def test_a_search_prefix_takes_every_metacharacter_literally(self, new_store: NewStore, label: str) -> None:
        store = _filled(new_store(), [(label,), ("ab",), ("abc",), ("b",), ("ab", "c")])
        assert [item.namespace for item in store.search((label,))] == [(label,)]

    @pytest.mark.parametrize("label", ["a%", "a_", "a*", "a?", "a[bc]", "%", "_", "?", "[!x]*"])
    def test_listing_takes_all_but_the_lone_star_literally(self, new_store: NewStore, label: str) -> None:
        store = _filled(new_store(), [(label,), ("ab",), ("abc",), ("b",), ("ab", "c")])
        assert store.list_namespaces(prefix=(label,)) == [(label,)]
        assert store.list_namespaces(suffix=(label,)) == [(label,)]

    def test_the_empty_prefix_means_everything(self, new_store: NewStore) -> None:
        store = _filled(new_store(), _TREE)
        assert {item.namespace for item in store.search(())} == set(_TREE)
        assert store.list_namespaces(prefix=()) == sorted(_TREE)
        assert store.list_namespaces() == sorted(_TREE)

    def test_a_star_in_a_list_condition_stands_for_one_segment(self, new_store: NewStore) -> None:
        store = _filled(new_store(), _TREE)
        assert store.list_namespaces(prefix=("*", "1")) == [
            ("teams", "1", "prefs"), ("users", "1", "notes"), ("users", "1", "prefs"),
        ]  # fmt: skip
        assert store.list_namespaces(prefix=("users", "*", "prefs")) == [
            ("users", "1", "prefs"), ("users", "2", "prefs"), ("users", "2", "prefs", "old"),
        ]  # fmt: skip
        assert store.list_namespaces(suffix=("*", "prefs")) == [
            ("teams", "1", "prefs"), ("users", "1", "prefs"), ("users", "2", "prefs"),
        ]  # fmt: skip
        assert store.list_namespaces(prefix=("*", "*", "*", "*")) == [("users", "2", "prefs", "old")]

    def test_conditions_are_anded(self, new_store: NewStore) -> None:
        store = _filled(new_store(), _TREE)
        assert store.list_namespaces(prefix=("users",), suffix=("prefs",)) == [
            ("users", "1", "prefs"), ("users", "2", "prefs"),
        ]  # fmt: skip
        conditions = (
            MatchCondition("prefix", ("*", "1")),
            MatchCondition("prefix", ("users",)),
            MatchCondition("suffix", ("notes",)),
        )
        assert store.batch([ListNamespacesOp(conditions)]) == [[("users", "1", "notes")]]

    def test_max_depth_cuts_and_then_removes_duplicates(self, new_store: NewStore) -> None:
        store = _filled(new_store(), _TREE)
        assert store.list_namespaces(max_depth=1) == [("teams",), ("users",)]
        assert store.list_namespaces(prefix=("users",), max_depth=2) == [("users",), ("users", "1"), ("users", "2")]
        assert store.list_namespaces(suffix=("old",), max_depth=2) == [("users", "2")]

    def test_limit_and_offset_come_last(self, new_store: NewStore) -> None:
        store = _filled(new_store(), [(f"n{a}", f"m{b}") for b in range(3) for a in range(4)])
        assert store.list_namespaces(max_depth=1, limit=2) == [("n0",), ("n1",)]
        assert store.list_namespaces(max_depth=1, limit=2, offset=2) == [("n2",), ("n3",)]
        assert store.list_namespaces(max_depth=1, limit=2, offset=4) == []
        pages = [store.list_namespaces(limit=5, offset=offset) for offset in (0, 5, 10)]
        assert [len(page) for page in pages] == [5, 5, 2]
        assert joined(pages) == sorted((f"n{a}", f"m{b}") for a in range(4) for b in range(3))

    def test_namespaces_are_listed_in_order_of_their_labels(self, new_store: NewStore) -> None:
        spaces = [("b",), ("a", "z"), ("a-b",), ("a",), ("a", "b", "c"), ("B",), ("a b",), ("é",)]
        assert _filled(new_store(), spaces).list_namespaces() == sorted(spaces)
