from __future__ import annotations

from typing import Any

import pytest

from langchain_memlayer.errors import InvalidFilter, InvalidInput, ScopeRequired
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.mem0_filters import scope_and_filter
from langchain_memlayer.types import Scope

RECORDS = [
    {"n": 1, "tag": "red", "parts": ["a", "b"]}, {"n": 2, "tag": "blue", "parts": ["b"]}, {"n": 3, "tag": "red"},
    {"n": 4},
]  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "held"),
    [
        ({"n": {"gte": 3}}, [3, 4]), ({"n": {"gt": 1, "lt": 4}}, [2, 3]), ({"n": {"eq": 2}}, [2]),
        ({"n": {"ne": 2}}, [1, 3, 4]), ({"n": {"in": [1, 4]}}, [1, 4]), ({"n": [1, 4]}, [1, 4]),
        ({"n": {"nin": [1, 4]}}, [2, 3]), ({"tag": {"contains": "lu"}}, [2]), ({"parts": ["a", "b"]}, [1]),
        ({"tag": "red", "n": {"$lte": 1}}, [1]), ({"AND": [{"tag": "red"}, {"n": {"gte": 2}}]}, [3]),
        ({"OR": [{"tag": "blue"}, {"n": 4}]}, [2, 4]), ({"NOT": [{"tag": "blue"}, {"n": 4}]}, [1, 3]),
        ({"NOT": {"tag": "red"}}, [2, 4]),
        ({"OR": [{"AND": [{"tag": "red"}, {"NOT": [{"n": 1}]}]}, {"n": 4}]}, [3, 4]),
        ({"user_id": "u", "AND": [{"agent_id": "a"}, {"n": {"lt": 2}}]}, [1]),
        ({"AND": [{"user_id": "u"}]}, [1, 2, 3, 4]), (None, [1, 2, 3, 4]), ({}, [1, 2, 3, 4]),
    ],
)  # fmt: skip
def test_conditions_in_either_way_of_writing_hold_for_the_same(filters: Any, held: list[int]) -> None:
    _, rest = scope_and_filter(filters, Scope())
    condition = parse_filter(rest)
    assert [record["n"] for record in RECORDS if condition is None or condition.matches(record)] == held


def test_the_ids_of_a_filter_are_the_scope_and_no_condition() -> None:
    given = {"user_id": "alice", "AND": [{"run_id": 7}, {"tag": "red"}], "OR": [{"agent_id": "x"}, {"n": 1}]}
    scope, rest = scope_and_filter(given, Scope(agent_id="bot"))
    assert scope == Scope("alice", "bot", "7")
    assert rest == {"$and": [{"tag": "red"}], "$or": [{"agent_id": "x"}, {"n": 1}]}


@pytest.mark.parametrize(
    ("filters", "error", "said"),
    [
        ({"user_id": "bob"}, InvalidInput, "name one owner"), ({"user_id": "*"}, InvalidFilter, "everything=True"),
        ({"tag": "*"}, InvalidFilter, "exists"), ({"tag": {"icontains": "R"}}, InvalidFilter, "contains"),
        ({"AND": []}, InvalidFilter, "at least one"), ({"OR": {"n": 1}}, InvalidFilter, "list"),
        ({"AND": [{"n": 1}], "$and": [{"n": 2}]}, InvalidFilter, "another word"),
        ({"tag": {"like": "r"}}, InvalidFilter, "'like'.*contains"), ({"n": {"gte": 1, "x": 2}}, InvalidFilter, "'x'"),
        ({"NOT": {"tag": {"not_in": ["red"]}}}, InvalidFilter, "nin"), ({"or": [{"n": 1}]}, InvalidFilter, "'OR'"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_says_what_to_write(filters: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_filter(scope_and_filter(filters, Scope(user_id="alice"))[1])


@pytest.mark.parametrize(
    "filters", [{"OR": [{"user_id": "a"}, {"user_id": "b"}]}, {"user_id": {"in": ["a"]}}, {"NOT": [{"user_id": "a"}]}]
)
def test_an_id_that_need_not_hold_says_where_it_has_to_stand(filters: Any) -> None:
    with pytest.raises(ScopeRequired, match="plain value, at the top or under AND"):
        scope_and_filter(filters, Scope())[0].required("search()")


@pytest.mark.parametrize("join", ["AND", "OR", "NOT", "$and"])
def test_a_filter_that_is_too_deep_is_told(join: str) -> None:
    deep: Any = {"n": 1}
    for _ in range(2000):
        deep = {join: [deep]}
    with pytest.raises(InvalidFilter, match="nested"):
        scope_and_filter(deep, Scope())
