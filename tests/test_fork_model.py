"""Whatever is done in a fork: merged, the original shows what it showed; and taken back, what it showed before."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from test_undo import any_id, changes, ends, in_session, latest, opened, places, says, sets

from langchain_memlayer import InvalidInput
from langchain_memlayer.doctor import check
from langchain_memlayer.testing import FrozenClock


def compare(one: dict[str, list[str]], other: dict[str, list[str]]) -> None:
    """Fail with what is in one only."""
    for name in one:
        more, less = (sorted((Counter(a[name]) - Counter(b[name])).elements()) for a, b in ((one, other), (other, one)))
        assert (name, more, less) == (name, [], [])


def seen(memory: Any) -> dict[str, list[str]]:
    """Everything that a memory says of a user, but for ids and for what is about the writing of it."""
    kinds = ("kind", "memory", "metadata", "role", "name", "session_id", "hash", "count", "quarantined", "ended")
    times = ("invalid_at", "created_at")
    rows = memory.get_all(user_id="u", limit=500, kinds=["turn", "fact"], show_expired=True)
    hits = [
        (hit["memory"], [(turn["text"], turn["quote"]) for turn in hit["evidence"]])
        for query in ("What does Anna like?", "Bob tea")
        for hit in memory.search(query, user_id="u", limit=50)["results"]
    ]
    return {
        "rows": sorted(str([row[name] for name in (*kinds, *times)]) for row in rows["results"]),
        "hits": sorted(map(str, hits)),
        "graph": sorted(map(str, memory.graph(user_id="u").triples())),
    }


def undoes(place: int) -> Any:
    """Takes back the last thing that happened to a memory, where that can be."""

    def step(memory: Any, number: int) -> None:
        with suppress(InvalidInput):
            _ = (key := any_id(memory, place)) and latest(memory, key)()

    return step


LATER = "2030-01-01"
steps = st.lists(st.one_of(changes, st.builds(undoes, places)), max_size=5)


@example(
    [says("Anna repeats chess", "Anna repeats Rome"), says("Anna repeats chess", "Bob forgets tea")],
    [sets(0, data="Anna repeats tea")],
)
@example([says("Anna adds Rome")], [ends(7), sets(2, expiration_date=LATER)])
@example([says("Bob repeats Rome")], [says("Bob tells chess", "Bob tells Rome")])
@example(
    [says("Anna ends chess", "Anna adds chess", "Bob tells tea")],
    [says("Anna repeats chess", "Anna adds tea"), sets(1, expiration_date=LATER)],
)
@example([says("Anna adds Rome", session_id="s")], [says("Anna ends Rome", session_id="s")])
@example([says("Anna adds tea", session_id="s"), says("Bob forgets tea"), sets(3, data="Bob tells tea")],
         [says("Bob repeats chess"), sets(2, data="Bob adds Rome")])  # fmt: skip
@example(
    [says("Bob tells tea")],
    [sets(0, data="Anna likes Rome"), undoes(0), says("Bob sees Rome"), sets(2, data="chess"), undoes(2)],
)
@example(
    [says("Anna tells tea"), says("Anna tells chess")],
    [says("Anna tells tea"), says("Anna adds chess", "Anna tells tea")],
)
@example([says("Bob tells chess", "Bob repeats Rome")], 2 * [says("Bob tells chess", "Bob repeats Rome")])
@example([in_session("Anna tells Rome"), sets(4, data="Bob repeats chess")], [undoes(9)])
@settings(max_examples=20, phases=[Phase.explicit, Phase.generate])
@given(steps, steps.filter(bool))
def test_a_merge_gives_what_the_fork_showed_and_its_undo_what_was_before(
    before: Sequence[Any], after: Sequence[Any]
) -> None:
    clock, numbers = FrozenClock(), count(1)
    with opened(clock=clock) as memory:
        for step in before:
            clock.advance(minutes=1)
            step(memory, next(numbers))
        memory.flush(60)
        was = seen(memory)
        fork: Any = memory.fork("trial", user_id="u")
        compare(seen(fork), was)
        for step in after:
            clock.advance(minutes=1)
            step(fork, next(numbers))
        memory.flush(60)
        compare(seen(memory), was)
        wanted = seen(fork)
        clock.advance(minutes=1)
        done = fork.merge()
        assert done["conflicts"] == []
        compare(seen(memory), wanted)
        assert check(memory._journal) == []
        if done["results"]:
            memory.undo(batch_id=done["batch_id"], user_id="u")
            compare(seen(memory), was)
