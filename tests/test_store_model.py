from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.store.base import GetOp, ListNamespacesOp, MatchCondition, PutOp, SearchOp

from langchain_memlayer import MemLayerStore
from langchain_memlayer.testing import FrozenClock

LABELS = st.sampled_from(["a", "A", "b", "b%", "*", "名"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "l", "K"])
VALUES = st.fixed_dictionaries({"n": st.integers(0, 3), "t": st.sampled_from(["x", "y"])})
PUTS = st.builds(
    PutOp,
    namespace=NAMESPACES,
    key=KEYS,
    value=st.one_of(st.none(), VALUES, VALUES),
    ttl=st.sampled_from([None, None, 1.0, 5.0]),
)
READS = st.one_of(
    st.builds(GetOp, namespace=NAMESPACES, key=KEYS, refresh_ttl=st.booleans()),
    st.builds(
        SearchOp,
        namespace_prefix=st.one_of(st.just(()), NAMESPACES),
        filter=st.sampled_from([None, {"n": {"$gte": 2}}, {"t": "x"}, {"$not": {"t": "x"}}]),
        limit=st.integers(1, 4),
        offset=st.integers(0, 3),
        refresh_ttl=st.booleans(),
    ),
    st.builds(
        ListNamespacesOp,
        match_conditions=st.one_of(
            st.none(), st.builds(lambda p: (MatchCondition("prefix", p),), NAMESPACES),
            st.builds(lambda p: (MatchCondition("suffix", p),), NAMESPACES),
        ),
        max_depth=st.sampled_from([None, 1, 2]),
        limit=st.integers(1, 5),
        offset=st.integers(0, 2),
    ),
)  # fmt: skip
BATCHES = st.lists(st.tuples(st.floats(0, 3), st.lists(st.one_of(PUTS, PUTS, READS), max_size=6)), max_size=8)


@dataclass
class Entry:
    value: dict[str, Any]
    ttl: float | None
    expires: int | None
    written: tuple[int, int]


class Model:
    """What the contract says, with a dictionary and nothing clever."""

    def __init__(self) -> None:
        self.items: dict[tuple[tuple[str, ...], str], Entry] = {}
        self.minutes = 0.0
        self.writes = 0

    def micros(self, minutes: float) -> int:
        """So many minutes from now, in whole microseconds: that is how the store counts."""
        return round((self.minutes + minutes) * 60_000_000)

    def batch(self, ops: list[Any]) -> list[Any]:
        for place in [
            p for p, entry in self.items.items() if entry.expires is not None and entry.expires <= self.micros(0.0)
        ]:
            del self.items[place]
        touched: list[Entry] = []
        results = [self.read(op, touched) for op in ops]
        last = {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}
        self.writes += 1
        for number, op in enumerate(op for op in ops if isinstance(op, PutOp)):
            if last[op.namespace, op.key] is not op:
                continue
            if op.value is None:
                self.items.pop((op.namespace, op.key), None)
            else:
                expires = None if op.ttl is None else self.micros(op.ttl)
                self.items[op.namespace, op.key] = Entry(op.value, op.ttl, expires, (self.writes, number))
        for entry in touched:
            if entry.ttl is not None:
                entry.expires = self.micros(entry.ttl)
        return results

    def read(self, op: Any, touched: list[Entry]) -> Any:
        if isinstance(op, GetOp):
            entry = self.items.get((op.namespace, op.key))
            if entry is not None and op.refresh_ttl:
                touched.append(entry)
            return None if entry is None else entry.value
        if isinstance(op, SearchOp):
            size = len(op.namespace_prefix)
            found = [
                (place, entry)
                for place, entry in self.items.items()
                if place[0][:size] == op.namespace_prefix and self.passes(op.filter, entry.value)
            ]
            found.sort(key=lambda one: one[1].written, reverse=True)
            page = found[op.offset : op.offset + op.limit]
            if op.refresh_ttl:
                touched += [entry for _, entry in page]
            return [(place, entry.value) for place, entry in page]
        if isinstance(op, ListNamespacesOp):
            spaces = {space for space, _ in self.items}
            for condition in op.match_conditions or ():
                spaces = {space for space in spaces if self.matches(condition, space)}
            return sorted({space[: op.max_depth] for space in spaces})[op.offset : op.offset + op.limit]
        return None

    @staticmethod
    def passes(condition: Any, value: dict[str, Any]) -> bool:
        if condition is None:
            return True
        if "n" in condition:
            return bool(value["n"] >= 2)
        return (value["t"] == "x") is not ("$not" in condition)

    @staticmethod
    def matches(condition: MatchCondition, space: tuple[str, ...]) -> bool:
        path = tuple(condition.path)
        if len(path) > len(space):
            return False
        part = space[: len(path)] if condition.match_type == "prefix" else space[len(space) - len(path) :]
        return all(want in ("*", have) for want, have in zip(path, part, strict=True))


def shown(op: Any, result: Any) -> Any:
    if isinstance(op, GetOp):
        return None if result is None else result.value
    if isinstance(op, SearchOp):
        return [((item.namespace, item.key), item.value) for item in result]
    return result


@settings(max_examples=70, deadline=None)
@given(swept=st.booleans(), batches=BATCHES)
def test_batches_ttl_filters_and_namespaces_are_as_a_dictionary_says(swept: bool, batches: Any) -> None:
    clock, model = FrozenClock(), Model()
    with MemLayerStore(":memory:", clock=clock) as store:
        for minutes, ops in batches:
            # Whole microseconds, as the journal counts them.
            step = round(minutes * 60, 3)
            clock.advance(seconds=step)
            model.minutes = round(model.minutes + step / 60, 9)
            if swept:
                store.sweep_ttl()
            answers = store.batch(ops)
            assert [shown(op, answer) for op, answer in zip(ops, answers, strict=True)] == model.batch(ops)
