import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from langchain_memlayer.errors import InvalidFilter
from langchain_memlayer.filters import And, Comparison, Filter, Not, Or, parse_filter
from langchain_memlayer.json_values import dumps, loads, plain

BIG = 10**30
U64 = 2**64 - 1

RECORD: dict[str, Any] = {
    "one": 1, "one.0": 1.0, "half": 0.5, "true": True, "false": False, "null": None, "word": "banana",
    "odd": "100%_*?[\"\\'\u0000é中😀", "digits": "10", "empty": "", "list": [1, "x", None, True, [1], {"k": 1}, 0.1],
    "none": [], "map": {"lang": "en", "deep": {"k": 1, "": 2}}, "hollow": {}, "a.b": "literal",
    "a": {"b": "dotted", "c": "dotted"}, "null.x": None, "it's": 1, 'quo"te': 2, "back\\slash": 3, "schlüssel": 4,
    "键": {"钥": 5}, "x[0]": 6, "": 7, "u64": U64, "near": math.nextafter(0.3, 1),
}  # fmt: skip

MATRIX: list[tuple[dict[str, Any], bool]] = [
    # beside what the contract of every store asks (`testing/cases/filters.py`)
    # equality
    ({"one": 1.0}, True), ({"one.0": 1}, True), ({"one": True}, False), ({"true": True}, True),
    ({"true": 1}, False), ({"true": False}, False), ({"false": 0}, False), ({"one": "1"}, False),
    ({"odd": "100%_*?[\"\\'\u0000é中😀"}, True), ({"odd": "100%_*?[\"\\'"}, False), ({"empty": ""}, True),
    ({"empty": None}, False), ({"missing": {"$eq": None}}, True), ({"one": None}, False), ({"none": []}, True),
    ({"hollow": {}}, True), ({"none": {}}, False), ({"list": [1.0, "x", None, True, [1], {"k": 1}, 0.1]}, True),
    ({"list": [1, "x", None, 1, [1], {"k": 1}, 0.1]}, False), ({"list": [1]}, False),
    ({"map": {"deep": {"": 2, "k": 1}, "lang": "en"}}, True), ({"map": {"lang": "en"}}, False),
    ({"u64": U64}, True), ({"u64": float(U64)}, False), ({"near": 0.3}, False), ({"one": {"$ne": 1.0}}, False),
    ({"one": {"$ne": True}}, True), ({"missing": {"$ne": None}}, False), ({"null": {"$ne": None}}, False),
    ({"null": {"$ne": 1}}, True),
    # orders
    ({"near": {"$gt": 0.3}}, True), ({"near": {"$lte": 0.3}}, False), ({"u64": {"$gt": U64 - 1}}, True),
    ({"u64": {"$gt": U64}}, False), ({"u64": {"$lt": 2**63}}, False), ({"word": {"$gt": "ban"}}, True),
    ({"word": {"$gt": "Zebra"}}, True), ({"word": {"$lt": "banana"}}, False),
    # bounds that no JSON value can be
    ({"one": {"$lt": math.inf, "$gt": -math.inf}}, True), ({"one": {"$gte": math.inf}}, False),
    ({"one": {"$gt": math.nan}}, False), ({"one": math.nan}, False), ({"one": {"$ne": math.nan}}, True),
    ({"one": {"$in": [math.inf, 1]}}, True), ({"one": {"$nin": [math.nan, 1]}}, False),
    ({"word": {"$lte": "banana"}}, True), ({"odd": {"$gt": "100%_*?[\"\\'"}}, True), ({"true": {"$gt": 0}}, False),
    ({"missing": {"$gte": ""}}, False),
    # sets
    ({"one": {"$in": [True, "1"]}}, False), ({"null": {"$in": [None]}}, True),
    ({"missing": {"$in": [None]}}, False), ({"map": {"$in": [{"lang": "en", "deep": {"k": 1, "": 2}}]}}, True),
    ({"one": {"$nin": []}}, True), ({"null": {"$nin": [1]}}, True),
    # parts
    ({"list": {"$contains": 1.0}}, True), ({"list": {"$contains": False}}, False),
    ({"list": {"$contains": None}}, True), ({"list": {"$contains": [1]}}, True),
    ({"list": {"$contains": {"k": 1.0}}}, True), ({"list": {"$contains": 0.1}}, True),
    ({"none": {"$contains": None}}, False), ({"word": {"$contains": ""}}, True),
    ({"word": {"$contains": "a%a"}}, False), ({"odd": {"$contains": "%_*?["}}, True),
    ({"odd": {"$contains": "é"}}, True), ({"odd": {"$contains": "u0000"}}, False),
    ({"digits": {"$contains": 1}}, False), ({"map": {"$contains": "lang"}}, False),
    ({"one": {"$contains": 1}}, False),
    # fields
    ({"a.c": "dotted"}, True), ({"map.deep.": 2}, True), ({"map.lang.x": None}, True),
    ({"null.x": {"$exists": True}}, True), ({"null.y": {"$exists": True}}, False), ({"list.0": 1}, False),
    ({'quo"te': 2}, True), ({"back\\slash": 3}, True), ({"schlüssel": 4}, True), ({"键.钥": {"$gt": 4}}, True),
    ({"x[0]": 6}, True), ({"": 7}, True), ({".": {"$exists": False}}, True), ({"on%": {"$exists": False}}, True),
    # joins
    ({"$or": [{"one": 2}, {"word": "banana"}], "half": 1}, False), ({"$not": {"one": 1, "word": "apple"}}, True),
    ({"$not": {"missing": {"$gt": 1}}}, True), ({"$not": {"$not": {"$not": {"one": 1}}}}, False),
    ({"one": {"$not": 1}}, False), ({"one": {"$not": {"$gt": 1}}}, True),
    ({"one": {"$or": [{"$lt": 0}, {"$gte": 1}]}}, True), ({"one": {"$or": [7, 1]}}, True),
    ({"one": {"$and": [{"$gt": 0}, {"$ne": 1}]}}, False), ({"one": {"$gt": 0, "$not": {"$in": [1, 2]}}}, False),
]  # fmt: skip


def parsed(value: dict[str, Any]) -> Filter:
    condition = parse_filter(value)
    assert condition is not None
    return condition


@pytest.mark.parametrize(("condition", "expected"), MATRIX, ids=repr)
def test_a_filter_matches_what_it_says(condition: dict[str, Any], expected: bool) -> None:
    assert parsed(condition).matches(RECORD) is expected
    assert parsed({"$not": condition}).matches(RECORD) is not expected


# -- properties -------------------------------------------------------------------------------------------------------

ROUGH = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
KEYS = [
    "a", "b", "a.b", "a.b.c", "b.a", "", ".", "a.", "%_", "*", "?[", "x[0]", "#", "é", "é.a", "中.文", "😀", "\x7f",
    'a"', '"', "a\\", "\\u0061", "a\u0000", "a\u0000b", "\u0000", "\n", "it's",
]  # fmt: skip
TEXTS = [
    "", "a", "b", "ab", "é", "中文", "😀", "\uffff", "100%", "_", "*", "?", "[", '"', "'", "\\", "\\u0000", "\\\u0000",
    "\u0000", "a\u0000", "a\u0000b", "\u0000b", "a\u0001b", "\u0001", "\x7f", "\n", "\x1f", "null", "1", "true",
    "[a,null]", "\u0080",
]  # fmt: skip
EDGES = [0, 1, -1, 10**15, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, U64, U64 + 1, BIG, 10**400]
FLOATS = [0.0, -0.0, 0.1, 0.3, 1e-5, 1e16, 1e22, 1e23, 1e300, 5e-324, 1.5, 2.0**53, 2.0**63, 9007199254740993e3]
texts = st.one_of(st.sampled_from(TEXTS), st.text('aé😀\\\u0000\u0001"%nu0', max_size=4), st.text(max_size=3))
texts = texts.filter(lambda text: not any("\ud800" <= char <= "\udfff" for char in text))


def _moved(base: float, steps: int) -> float:
    for _ in range(abs(steps)):
        base = math.nextafter(base, math.copysign(math.inf, steps))
    return base


near_floats = st.builds(_moved, st.sampled_from(FLOATS), st.integers(-5, 5))
all_floats = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(
    st.sampled_from(EDGES), st.integers(-3, 3), st.integers(), near_floats, near_floats.map(lambda n: -n), all_floats
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
keys = st.one_of(st.sampled_from(KEYS), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=6,
)
records = st.dictionaries(keys, values, max_size=6)


@st.composite
def conditions(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    """A filter that often speaks of what the record holds, and of its neighbours."""
    here: list[tuple[str, Any]] = list(record.items())
    for key, value in record.items():
        if isinstance(value, dict):
            here += [(f"{key}.{inner}", found) for inner, found in value.items()]
    known = st.sampled_from(here) if here else st.nothing()
    field, found = draw(st.one_of(known, st.tuples(keys, values)))
    field = field.lstrip("$")
    pools = [values, st.just(found)]
    if isinstance(found, list) and found:
        pools.append(st.sampled_from(found))
    if isinstance(found, str):
        cut = draw(st.integers(0, len(found)))
        pools += [st.just(found[:cut]), st.just(found[cut:]), st.just(found + "a")]
    if isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) < 1e300:
        pools += [st.just(found + 1), st.just(int(found)), st.integers(-4, 4).map(lambda n: _moved(float(found), n))]
    operand = st.one_of(pools)
    ordered = operand.filter(lambda value: isinstance(value, (int, float, str)) and not isinstance(value, bool))
    op = draw(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$contains", "$exists"]))
    if op in ("$gt", "$gte", "$lt", "$lte"):
        value = draw(st.one_of(ordered, numbers, texts))
    elif op in ("$in", "$nin"):
        value = draw(st.lists(operand, max_size=4))
    else:
        value = draw(st.booleans() if op == "$exists" else operand)
    leaf = {field: {op: value}}
    join = draw(st.sampled_from(["", "", "", "$and", "$or", "$not"]))
    if join == "$not":
        return {"$not": draw(conditions(record))}
    return {join: [leaf, draw(conditions(record))]} if join else leaf


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    record = draw(records)
    return [record, {**record, "big": BIG}, draw(records)], draw(conditions(record))


def naive(condition: dict[str, Any], record: dict[str, Any]) -> bool:
    """The contract again, by canonical JSON instead of a recursive comparison."""

    def canonical(value: Any) -> Any:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, list):
            return [canonical(item) for item in value]
        return {key: canonical(item) for key, item in value.items()} if isinstance(value, dict) else value

    def same(left: Any, right: Any) -> bool:
        return json.dumps(canonical(left), sort_keys=True) == json.dumps(canonical(right), sort_keys=True)

    (field, test), *_ = condition.items()
    if field in ("$and", "$or"):
        return (all if field == "$and" else any)([naive(item, record) for item in test])
    if field == "$not":
        return not naive(test, record)
    there, found = True, record
    for key in [field] if field in record else field.split("."):
        there = there and isinstance(found, dict) and key in found
        found = found[key] if there else {}
    (op, value), *_ = test.items()
    kind = str if isinstance(value, str) else (int, float)
    comparable = there and isinstance(found, kind) and not isinstance(found, bool)
    member = isinstance(found, list) and any(same(item, value) for item in found)
    equal = same(found, value) if there else value is None
    return {
        "$eq": lambda: equal,
        "$ne": lambda: not equal,
        "$gt": lambda: comparable and found > value,
        "$gte": lambda: comparable and found >= value,
        "$lt": lambda: comparable and found < value,
        "$lte": lambda: comparable and found <= value,
        "$in": lambda: there and any(same(found, item) for item in value),
        "$nin": lambda: there and not any(same(found, item) for item in value),
        "$contains": lambda: there and (member or (comparable and kind is str and value in found)),
        "$exists": lambda: there is value,
    }[op]()


def check(written: list[dict[str, Any]], condition: dict[str, Any]) -> None:
    tree = parsed(condition)
    stored = [loads(dumps(plain(record))) for record in written]
    expected = [naive(condition, record) for record in stored]
    assert [tree.matches(record) for record in stored] == expected


@settings(ROUGH, max_examples=25)
@given(cases())
@example(([{"a\u0000b": 1}], {"a": {"$exists": True}}))
@example(([{"a": "x\u0000y"}], {"a": {"$eq": "x"}}))
@example(([{"a": "x\u0000y"}], {"a": {"$contains": "y"}}))
@example(([{"a": "\\u0000"}], {"a": {"$contains": "u0000"}}))
@example(([{"a": 2.0**53}], {"a": {"$lt": 2**53 + 1}}))
@example(([{"a": 1e16}, {"a": 10**16}, {"a": 1e16, "b": BIG}], {"a": {"$eq": 10**16}}))
@example(([{"a": 0}, {"a": 1}], {"a": {"$gte": 0.5}}))
@example(([{"a": -0.0}, {"a": 0}, {"a": 0.0}], {"a": {"$eq": 0}}))
@example(([{"a": -0.0}, {"a": 5e-324}, {"a": -5e-324}], {"a": {"$gte": 0}}))
@example(([{"a": 1e-7}, {"a": 1e-7, "b": BIG}], {"a": {"$eq": 1e-7}}))
@example(([{"a": 2.0**63}, {"a": 2**63}, {"a": 2**63 - 1}], {"a": {"$gt": 2**63 - 1}}))
@example(([{"a": -(2**63)}, {"a": -(2**63) - 1}, {"a": -(2.0**63)}], {"a": {"$lt": -(2**63) + 1}}))
@example(([{"a": "\\"}, {"a": "\\", "b": "\0"}, {"a": "\\", "b": "\0", "c": BIG}], {"a": {"$eq": "\\"}}))
@example(([{"é": "中", "b": BIG}, {"é": "中"}], {"é": {"$eq": "中"}}))
def test_predicate_and_contract_agree(case: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    check(*case)


@pytest.mark.slow
@settings(ROUGH, max_examples=2000)
@given(cases())
def test_predicate_and_contract_agree_at_length(case: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
    check(*case)


anything = st.recursive(
    st.one_of(scalars, st.just(math.nan), st.binary(max_size=2), st.just({1}), st.just("$gt")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["$and", "$or", "$not", "$in", "$gt", "$x", "a", 1, None]), keys),
            inner,
            max_size=3,
        ),
    ),
)


@settings(ROUGH, max_examples=60)
@given(anything, records)
def test_anything_parses_or_is_an_invalid_filter(value: Any, record: dict[str, Any]) -> None:
    try:
        tree = parse_filter(value)
    except InvalidFilter:
        return
    assert tree is None or tree.matches(record) in (True, False)


# -- the tree ---------------------------------------------------------------------------------------------------------


def test_no_condition_is_no_filter() -> None:
    assert parse_filter(None) is parse_filter({}) is None


def test_the_tree_of_a_filter() -> None:
    tree = parsed({"a": 1, "b": {"$gt": 2, "$in": [3]}, "$or": [{"c": 4}, {"$not": {"d": None}}], "$and": [{"e": {}}]})
    assert tree == And(
        (
            Comparison("a", "eq", 1),
            Comparison("b", "gt", 2),
            Comparison("b", "in", [3]),
            Or((Comparison("c", "eq", 4), Not(Comparison("d", "eq", None)))),
            Comparison("e", "eq", {}),
        )
    )


def test_the_tree_is_immutable_and_shares_nothing_with_the_callers_dict() -> None:
    value: dict[str, Any] = {"a": {"$in": [1]}}
    tree = parsed(value)
    value["a"]["$in"].append(2)
    assert not tree.matches({"a": 2})
    with pytest.raises(FrozenInstanceError):
        tree.field = "b"  # type: ignore[attr-defined]


# -- errors -----------------------------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"a": 1}
    for _ in range(levels):
        value = {"$not": value}
    return value


def looped() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["$not"] = value
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "A filter must be a mapping such as {'field': value}, got list."),
        ({10**5000: 1}, "Invalid filter key of type int; keys are strings"),
        ({"$and": 10**5000}, "Filter operator '$and' needs a list of at least one filter, got int."),
        ({"AND": [{"a": 1}]}, "Filter operator 'AND' is written '$and'; for a field, use $eq."),
        ({"NOT": {"a": 1}}, "Filter operator 'NOT' is written '$not'; for a field, use $eq."),
        ({"a": {"in": ["x"]}}, "The operators of 'a' need a '$' ($eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, "),
        ({"a": {"icontains": "X"}}, "The operators of 'a' need a '$' ("),
        ({1: "x"}, "Invalid filter key of type int; keys are strings, the names of fields or operators."),
        (
            {"a": {"$gt": 1, 2: 3}},
            "Invalid filter key of type int; keys are strings, the names of fields or operators.",
        ),
        ({"\ud800": 1}, "Invalid filter key '\\ud800': it holds a lone surrogate, which is no text."),
        (
            {"a": {"$gt": 1, "b": 2}},
            "Invalid filter key 'b' beside the operators of 'a'; write 'a.b' as a field of its own, or compare the "
            "whole value with $eq.",
        ),
        (
            {"a": {"b": {"$gt": 2}}},
            "Invalid filter key '$gt' inside the value of 'a.b'; write 'a.b' as a field of its own, or compare the "
            "whole value with $eq.",
        ),
        (
            {"a": {"$regex": "x"}},
            "Unknown filter operator '$regex'; use one of $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $contains, "
            "$exists, $and, $or, $not.",
        ),
        ({"$nor": []}, "Unknown filter operator '$nor'; use one of $eq"),
        ({"$gt": 1}, "Filter operator '$gt' needs a field: write {'field': {'$gt': ...}}."),
        ({"$and": {"a": 1}}, "Filter operator '$and' needs a list of at least one filter, got dict."),
        ({"$or": []}, "Filter operator '$or' needs a list of at least one filter, got an empty list."),
        ({"$or": [{}]}, "An empty filter inside $and, $or or $not has no meaning; remove it."),
        ({"$not": [1]}, "A filter must be a mapping such as {'field': value}, got list."),
        ({"$and": [1]}, "A filter must be a mapping such as {'field': value}, got int."),
        ({"a": {"$in": "abc"}}, "Filter operator '$in' on 'a' needs a list, got 'abc'."),
        ({"a": {"$nin": {"b": 1}}}, "Filter operator '$nin' on 'a' needs a list, got {'b': 1}."),
        ({"a": {"$exists": 1}}, "Filter operator '$exists' on 'a' needs True or False, got 1."),
        ({"a": {"$gt": {}}}, "Filter operator '$gt' on 'a' needs a number or a string, got {}."),
        ({"a": {"$lt": True}}, "Filter operator '$lt' on 'a' needs a number or a string, got True."),
        (
            {"a": {1, 2}},
            "Invalid filter value for 'a': value is of type set, which JSON does not have; convert it first.",
        ),
        ({"a": [[math.nan]]}, "Invalid filter value for 'a': value[0][0] is nan, which JSON does not have"),
        ({"a": {"$in": [b"x"]}}, "Invalid filter value for 'a': value[0] is of type bytes"),
        ({"a": {"$eq": {1: 2}}}, "Invalid filter value for 'a': value has the key 1; JSON keys are strings."),
        ({"a": "\udc00"}, "Invalid filter value for 'a': value holds a lone surrogate"),
        ({"a": 10**5000}, "Invalid filter value for 'a': value has thousands of digits"),
        (nested(33), "The filter is nested deeper than 32 levels, or contains itself; flatten it."),
        (looped(), "The filter is nested deeper than 32 levels, or contains itself; flatten it."),
    ],
    ids=lambda part: part[:50] if isinstance(part, str) else type(part).__name__,
)
def test_a_filter_that_is_none_is_an_error_that_says_what_to_do(value: Any, message: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(value)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).startswith(message)


def test_what_reads_like_an_operator_can_be_a_field_or_a_value_compared_whole() -> None:
    assert parsed({"AND": "x", "in": 1}).matches({"AND": "x", "in": 1})
    assert parsed({"a": {"gt": 1, "unit": "m"}}).matches({"a": {"gt": 1, "unit": "m"}})
    for key in ("gt", "$gt"):
        assert parsed({"a": {"$eq": {key: 1}}}).matches({"a": {key: 1}})
