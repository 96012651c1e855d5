"""Undo: what happened to a memory is taken back, and everything is as it was before, to the last number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from journal_dump import connections, open_memory, texts
from memory_kit import Extracting, call, message

from langchain_memlayer import InvalidInput, Memory, ScopeRequired
from langchain_memlayer.doctor import check
from langchain_memlayer.facts.reconciliation import RuleReconciler
from langchain_memlayer.journal import open_journal
from langchain_memlayer.journal.base import random_id
from langchain_memlayer.testing import FrozenClock
from langchain_memlayer.types import RETRACT, Candidate, Decision, Extraction, Fact, Triple, Turn

VERBS = {"tells": "UPDATE", "repeats": "NONE", "ends": "DELETE", "forgets": "DELETE", "adds": "ADD"}


class Reader(Extracting):
    """Facts of turns such as `Anna tells tea`, and what they mean for what is known of Anna, as the verb says."""

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        facts = []
        for number, turn in enumerate(turns):
            name, verb, thing = (*turn.text.split(), "", "")[:3]
            if verb in VERBS:
                triples = (Triple(name, "likes", thing),)
                metadata = {RETRACT: True} if verb == "forgets" else {"verb": verb}
                facts.append(Fact(f"{name} likes {thing}", (number,), turn.text, triples, metadata=metadata))
        return Extraction(tuple(facts))


class Decider(RuleReconciler):
    def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        decisions = []
        for number, fact in enumerate(facts):
            known = [one for one in candidates if one.text.split()[0] == fact.text.split()[0]]
            verb = "forgets" if fact.metadata.get(RETRACT) else fact.metadata["verb"]
            action: Any = VERBS[verb] if known else "ADD"
            if action == "ADD":
                decisions.append(Decision("ADD", number))
                continue
            also = tuple(one.id for one in known[1:]) if action in ("UPDATE", "DELETE") else ()
            text = fact.text if action == "UPDATE" else None
            decisions.append(Decision(action, number, known[0].id, text, also=also))
        return decisions


def opened(folder: Path | str = ":memory:", **given: Any) -> Memory:
    memory = open_memory(folder, extractor=Reader(), reconcile="rules", **{"new_id": random_id, **given})
    memory._engine.reconciler = Decider()
    return memory


@pytest.fixture
def memory() -> Iterator[Memory]:
    with opened(clock=FrozenClock()) as one:
        yield one


def seen(memory: Memory) -> list[str]:
    """Everything that a memory says of a user, as texts."""
    searches = [
        memory.search(query, user_id="u", limit=50, explain=True, **more)
        for query in ("What does Anna like?", "Bob tea", "Anna repeats tea")
        for more in ({}, {"kinds": ["turn"]}, {"include_quarantined": True})
    ]
    lists = [memory.get_all(user_id="u", limit=500, **more) for more in ({}, {"kinds": ["turn", "fact"]})]
    graph = memory.graph(user_id="u")
    whys = [memory.why(row["id"])["sources"] for row in lists[1]["results"]]
    unread = sorted([turn["id"] for turn in call["turns"]] for call in memory.unread(user_id="u"))
    parts = [*searches, *lists, list(graph.nodes(data=True)), graph.triples(), whys, unread]
    return [json.dumps(part, default=str) for part in parts]


Undo = Callable[[], Any]


def told(memory: Memory, number: int, *said: str, **given: Any) -> Undo:
    """Say something in a call of its own; returns what takes it back."""
    batch = f"b{number}"
    memory.add([{"role": "user", "content": text} for text in said], user_id="u", batch_id=batch, **given)

    def batch_undo() -> Any:
        return memory.undo(batch_id=batch, user_id="u")

    return batch_undo


def latest(memory: Memory, key: str) -> Undo:
    """What takes back the last event of a memory."""
    event = memory.history(key)[-1]["id"]
    return lambda: memory.undo(event, user_id="u")


def any_id(memory: Memory, place: int) -> str | None:
    """The id of one of a user's memories, if there are any."""
    rows = memory.get_all(user_id="u", limit=500, kinds=["turn", "fact"])["results"]
    return rows[place % len(rows)]["id"] if rows else None


def edited(memory: Memory, place: int, **changes: Any) -> Undo | None:
    if (key := any_id(memory, place)) is None:
        return None
    memory.update(key, **changes)
    return latest(memory, key)


def deleted(memory: Memory, place: int) -> Undo | None:
    if (key := any_id(memory, place)) is None:
        return None
    memory.delete(key)
    return latest(memory, key)


def emptied(memory: Memory, number: int) -> Undo | None:
    event = memory.delete_all(user_id="u").get("event_id")
    return None if event is None else lambda: memory.undo(event, user_id="u")


def says(*said: str, **given: Any) -> Callable[[Memory, int], Undo]:
    return lambda memory, number: told(memory, number, *said, **given)


def sets(place: int, **changes: Any) -> Callable[[Memory, int], Undo | None]:
    return lambda memory, number: edited(memory, place, **changes)


def ends(place: int) -> Callable[[Memory, int], Undo | None]:
    return lambda memory, number: deleted(memory, place)


def in_session(said: str) -> Callable[[Memory, int], Undo]:
    return says(said, session_id="s", timestamp="2024-05-01T10:00:00Z")


sentences = st.tuples(
    st.sampled_from(["Anna", "Bob"]), st.sampled_from([*VERBS, "sees"]), st.sampled_from(["tea", "chess", "Rome"])
).map(" ".join)
places = st.integers(0, 9)
changes = st.one_of(
    st.lists(sentences, min_size=1, max_size=3).map(lambda said: says(*said)),
    sentences.map(lambda said: says(said, infer=False)),
    sentences.map(in_session),
    st.builds(lambda at, text: sets(at, data=text), places, sentences),
    places.map(lambda at: lambda memory, number: edited(memory, at, metadata={"level": number})),
    places.map(lambda at: sets(at, expiration_date="2030-01-01")),
    places.map(ends),
    st.just(emptied),
)


@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
@example([says("Anna ends chess", "Anna tells chess"), ends(3)])
@example([in_session("Bob ends tea"), in_session("Anna sees Rome"), ends(4)])
@example([in_session("Anna ends tea"), says("Bob tells chess", infer=False), says("Bob tells chess")])
@example([says("Bob repeats Rome", "Bob tells chess"), sets(3, data="Bob tells tea"), ends(3)])
@example([says("Anna tells chess"), sets(1, metadata={"level": 2}), sets(1, data="Bob tells Rome")])
@example([says("Bob adds tea"), sets(0, data="Bob ends Rome"), emptied])
@example([says("Anna tells Rome"), sets(0, data="Anna adds tea"), ends(0)])
@given(st.lists(changes, min_size=1, max_size=7))
def test_each_undo_in_turn_gives_everything_that_was_before_and_its_undo_what_came_after(steps: Sequence[Any]) -> None:
    clock, numbers = FrozenClock(), count(1)
    with TemporaryDirectory() as name, opened(Path(name) / "s", clock=clock) as memory:
        past: list[tuple[list[str], list[str], Undo]] = []
        for step in steps:
            clock.advance(minutes=1)
            before = seen(memory)
            undo = step(memory, next(numbers))
            if undo is not None:
                past.append((before, seen(memory), undo))
        for before, after, undo in reversed(past):
            clock.advance(minutes=1)
            [done, *_] = undo()["results"]
            assert seen(memory) == before
            if "batch" not in undo.__qualname__:
                again = memory.history(done["id"])[-1]["id"]
                memory.undo(again)
                assert seen(memory) == after
                memory.undo(memory.history(done["id"])[-1]["id"])
                assert seen(memory) == before
        # A cache that is made anew says what those say that followed each change.
        final = seen(memory)
        with opened(Path(name) / "s", clock=clock) as anew:
            assert seen(anew) == final
        with closing(open_journal(Path(name) / "s")) as journal:
            assert check(journal) == []
        assert memory.get_all(user_id="u", kinds=["turn", "fact"])["results"] == []


def fact(memory: Memory, said: str = "Anna adds tea", **given: Any) -> str:
    return str(memory.add(said, **{"user_id": "u", **given})["results"][0]["id"])


def test_a_request_that_ended_nothing_is_shown_again_when_its_call_is_undone(memory: Memory) -> None:
    kept = memory.add("Bob repeats chess", user_id="u", infer=False)["results"][0]["id"]
    memory.update(kept, "Bob forgets Rome")
    before = texts(memory.search("Bob", user_id="u"))
    memory.add("Bob forgets Rome", user_id="u", batch_id="b")
    assert (before, texts(memory.search("Bob", user_id="u"))) == (["Bob forgets Rome"], [])
    memory.undo(batch_id="b", user_id="u")
    assert texts(memory.search("Bob", user_id="u")) == before


def test_an_undo_says_what_became_of_each_memory_and_stays_in_the_history(memory: Memory) -> None:
    key = fact(memory)
    memory.add("Anna tells chess", user_id="u")
    done = memory.undo(memory.history(key)[-1]["id"])
    changed = {"event": "UPDATE", "previous_memory": "Anna likes chess"}
    assert done["results"] == [{"id": key, "memory": "Anna likes tea", **changed}]
    assert [one["destination"] for one in done["relations"]["added_entities"]] == ["tea"]
    assert [one["destination"] for one in done["relations"]["deleted_entities"]] == ["chess"]
    memory.delete(key)
    assert memory.undo(memory.history(key)[-1]["id"])["results"][0]["event"] == "ADD"
    memory.undo(memory.history(key)[-1]["id"])
    told = [(row["event"], row["new_value"], row["is_deleted"]) for row in memory.history(key)]
    assert told == [
        ("ADD", "Anna likes tea", 0), ("UPDATE", "Anna likes chess", 0), ("UNDO", "Anna likes tea", 0),
        ("DELETE", None, 1), ("UNDO", "Anna likes tea", 0), ("UNDO", None, 1),
    ]  # fmt: skip
    assert not {"was", "of"} & set().union(*memory.why(fact(memory, "Bob adds tea"))["decisions"])


@pytest.mark.parametrize("how", ["event", "batch"])
def test_what_told_only_what_is_taken_back_is_not_shown_as_current(memory: Memory, how: str) -> None:
    def half(said: str, batch: str) -> str:
        found = memory.extract(said, user_id="u")["facts"]
        return str(memory.reconcile(said, found, user_id="u", batch_id=batch)["results"][0]["id"])

    def undo(key: str, batch: str) -> None:
        memory.undo(memory.history(key)[-1]["id"]) if how == "event" else memory.undo(batch_id=batch, user_id="u")

    key, seen_before = half("Anna adds tea", "b1"), seen(memory)
    told = {"b2": ("Anna tells chess", "Anna likes chess"), "b3": ("Bob adds Rome", "Bob likes Rome")}
    for batch, (said, fact) in told.items():
        new = half(said, batch)
        shown = texts(memory.search("chess Rome", user_id="u"))
        undo(new, batch)
        assert shown[0] == fact
        assert not {said, fact} & {*texts(memory.search("chess Rome", user_id="u"))}
        memory.undo(memory.history(new)[-1]["id"])
        assert texts(memory.search("chess Rome", user_id="u")) == shown
        memory.undo(memory.history(new)[-1]["id"])
    assert texts(memory.search("chess Rome tea", user_id="u")) == ["Anna likes tea"]
    assert (memory.get(key) or {})["memory"] == "Anna likes tea"
    assert json.loads(seen_before[0])["results"] == json.loads(seen(memory)[0])["results"]


@pytest.mark.parametrize("ending", ["delete", "update"])
def test_a_message_is_not_shown_as_current_while_something_else_that_it_told_has_ended(
    memory: Memory, ending: str
) -> None:
    said = "Anna likes tea, Bob likes chess"
    found = [
        {"text": text, "quote": text, "sources": ["m"], "triples": [], "metadata": {"verb": "adds"}}
        for text in said.split(", ")
    ]
    talk = [message(said, "m"), message(f"Noted: {said}!", "r", "assistant")]
    keys = [done["id"] for done in memory.reconcile(talk, found, user_id="u", session_id="s")["results"]]
    end = {"delete": memory.delete, "update": lambda key: memory.update(key, "It rains")}[ending]
    for key in keys:
        end(key)

    def current() -> list[str]:
        hits = memory.search("Anna tea, Bob chess", user_id="u", kinds=["turn"])["results"]
        return sorted(hit["memory"] for hit in hits if not hit["ended"])

    undone = [latest(memory, key) for key in keys]
    undone[0]()
    assert current() == []
    undone[1]()
    assert said in current()


def test_an_edited_message_is_not_shown_as_current_when_what_it_says_now_is_taken_back(memory: Memory) -> None:
    memory.add(message("Anna adds tea", "m"), user_id="u", session_id="s")
    memory.add(message("Anna tells chess", "m"), user_id="u", session_id="s")
    [row] = memory.get_all(user_id="u", kinds=["fact"])["results"]
    for facts, turns in ((["Anna likes tea"], []), (["Anna likes chess"], ["Anna tells chess"])):
        memory.undo(memory.history(row["id"])[-1]["id"])
        assert texts(memory.get_all(user_id="u", kinds=["fact"])) == facts
        assert texts(memory.search("Anna tells chess", user_id="u", kinds=["turn"])) == turns


def test_what_was_known_in_between_stays_known(memory: Memory) -> None:
    clock: Any = memory._journal.clock

    def known(**at: Any) -> list[str]:
        return texts(memory.search("Anna", user_id="u", kinds=["fact"], **at))

    key = fact(memory)
    for between, change in ([["Anna likes chess"], lambda: memory.update(key, "Anna likes chess")],
                            [[], lambda: memory.delete(key)]):  # fmt: skip
        clock.advance(days=1)
        change()
        changed = clock()
        clock.advance(days=1)
        memory.undo(memory.history(key)[-1]["id"])
        assert known() == known(as_of=clock()) == known(as_of=changed) == ["Anna likes tea"]
        assert known(known_at=changed) == known(known_at=changed, as_of=changed) == between
        assert known(known_at="2025-01-01T12:00") == ["Anna likes tea"]
    # What was ended by then had held before.
    assert known(known_at=changed, as_of="2025-01-02T12:00") == ["Anna likes tea"]
    assert [one["memory"] for one in memory.diff(changed, user_id="u")["added"]] == ["Anna likes tea"]
    assert memory.diff("2025-01-01T12:00", user_id="u")["added"] == []


async def test_a_call_is_taken_back_with_its_messages_and_stays_done(memory: Memory, way: str) -> None:
    memory.add(["Anna adds tea", "Bob adds tea"], user_id="u", batch_id="b")
    memory.add("Anna adds tea", user_id="v", batch_id="b")
    done = await call(way, memory, "undo", batch_id="b", user_id="u")
    assert {row["event"] for row in done["results"]} == {"DELETE"}
    assert len(done["results"]) == 4
    assert memory.get_all(user_id="u", kinds=["turn", "fact"])["results"] == []
    memory.add(["Anna adds tea", "Bob adds tea"], user_id="u", batch_id="b")
    assert memory.get_all(user_id="u", kinds=["turn", "fact"])["results"] == []
    assert len(memory.get_all(user_id="v", kinds=["turn", "fact"])["results"]) == 2


def test_what_something_later_builds_on_is_not_undone_alone(memory: Memory) -> None:
    key = fact(memory, batch_id="b")
    memory.update(key, "Anna likes chess")
    memory.update(key, "Anna likes Rome")
    first, second, third = (row["id"] for row in memory.history(key))
    before = seen(memory)
    for refused in ({"event_id": first}, {"event_id": second}, {"batch_id": "b", "user_id": "u"}):
        with pytest.raises(InvalidInput, match=f"event (?:{second}|{third}) "):
            memory.undo(**refused)
    assert seen(memory) == before
    memory.undo(third)
    with pytest.raises(InvalidInput, match="undone already"):
        memory.undo(third)
    memory.undo(second)
    memory.undo(batch_id="b", user_id="u")
    with pytest.raises(InvalidInput, match="undone already"):
        memory.undo(batch_id="b", user_id="u")


@pytest.mark.parametrize("changed", ["text", "metadata"])
def test_a_fact_comes_back_with_its_message_as_it_is_now_unless_that_says_something_else(
    memory: Memory, changed: str
) -> None:
    told(memory, 1, "Bob adds tea")
    [turn, fact] = (row["id"] for row in memory.get_all(user_id="u", kinds=["turn", "fact"])["results"])
    told(memory, 2, "Bob tells chess")
    back = latest(memory, fact)
    memory.update(turn, "Anna adds chess" if changed == "text" else None, metadata={"level": 1})
    memory.flush()
    if changed == "text":
        with pytest.raises(InvalidInput, match="message that this comes from was changed"):
            back()
    else:
        back()
        assert texts(memory.get_all(user_id="u", kinds=["fact"])) == ["Bob likes tea"]
        assert [source["quote"] for source in memory.why(fact)["sources"]] == ["Bob adds tea"]
    assert check(memory._journal) == []


def test_what_was_told_anew_since_it_ended_is_there_twice_when_that_is_undone(memory: Memory) -> None:
    told(memory, 1, "Anna adds tea")
    event = memory.delete_all(user_id="u")["event_id"]
    memory.clock.advance(days=2)  # type: ignore[attr-defined]
    told(memory, 2, "Anna adds tea")
    memory.undo(event)
    assert texts(memory.get_all(user_id="u", kinds=["fact"])) == ["Anna likes tea"] * 2
    assert check(memory._journal) == []


def test_a_message_is_not_taken_from_what_was_found_in_it(memory: Memory) -> None:
    key = fact(memory)
    [turn] = memory.why(key)["sources"]
    with pytest.raises(InvalidInput, match="What was found in this message stands"):
        memory.undo(memory.history(turn["memory_id"])[0]["id"])
    memory.update(turn["memory_id"], "Anna adds Rome")
    memory.read(user_id="u")
    with pytest.raises(InvalidInput, match="What was found in this message stands"):
        memory.undo(memory.history(turn["memory_id"])[-1]["id"])


def test_of_a_text_that_is_taken_back_nothing_is_read(memory: Memory) -> None:
    key = fact(memory)
    [turn] = memory.why(key)["sources"]
    before = seen(memory)
    for changed in (key, turn["memory_id"]):
        memory.update(changed, "Anna adds Rome")
        assert len(memory.unread(user_id="u")) == 1
        memory.undo(memory.history(changed)[-1]["id"])
        memory.read(user_id="u", retry=True)
        assert seen(memory) == before
    # What was still to be read is noted again when all of a scope comes back.
    memory.update(key, "Anna likes Rome")
    before = seen(memory)
    event = memory.delete_all(user_id="u")["event_id"]
    assert memory.unread(user_id="u") == []
    memory.undo(event)
    assert seen(memory) == before
    assert len(memory.unread(user_id="u")) == 1


def test_what_ended_of_an_agent_comes_back_for_all_its_users_and_for_one_who_asks_only_the_own(memory: Memory) -> None:
    for user in ("v", "w"):
        memory.add("Anna adds tea", user_id=user, agent_id="a")
    rows = memory.get_all(agent_id="a", kinds=["fact", "turn"])["results"]
    users = lambda: [row["user_id"] for row in memory.get_all(agent_id="a", kinds=["fact", "turn"])["results"]]  # noqa: E731
    memory.undo(memory.delete_all(agent_id="a")["event_id"])
    assert users() == ["v", "v", "w", "w"]
    event = memory.delete_all(agent_id="a")["event_id"]
    [first] = [row["user_id"] for row in rows if memory.history(row["id"])[-1]["id"] == event]
    with pytest.raises(InvalidInput, match="here that could be undone"):
        memory.of("w" if first == "v" else "v").undo(event)
    memory.of(first).undo(event)
    assert users() == [first, first]


@pytest.mark.sqlite
def test_what_ends_a_fact_or_brings_it_back_goes_through_no_table(memory: Memory) -> None:
    key = fact(memory)
    ran: list[str] = []
    [db, *_] = connections(memory._journal)
    db.set_trace_callback(ran.append)
    memory.update(key, "Anna likes chess")
    memory.delete(key)
    memory.undo(memory.history(key)[-1]["id"])
    db.set_trace_callback(None)
    selects = [sql for sql in ran if sql.startswith("SELECT") and " links " in sql]
    steps = [row[3] for sql in selects for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert "SEARCH f USING INDEX memories_by_id (key=?)" in steps
    assert [step for step in steps if step.startswith("SCAN")] == []


@pytest.mark.sqlite
def test_what_is_forgotten_goes_through_no_table_for_each_memory_or_user(memory: Memory) -> None:
    for user in ("v", "w", "x"):
        memory.add("Anna adds tea", user_id=user, agent_id="a")
        memory.fork("trial", user_id=user, agent_id="b")
    key = fact(memory, user_id="v")
    ran: list[str] = []
    [db, *_] = connections(memory._journal)
    db.set_trace_callback(ran.append)
    memory.forget(key)
    assert memory.forget(agent_id="a")["count"] == 6
    # Forks of other agents have no copies.
    assert [sql for sql in ran if "'fork'" in sql or "profile'" in sql] == []
    db.set_trace_callback(None)
    assert sum("SELECT n.id FROM namespaces n WHERE EXISTS" in sql for sql in ran) == 2 * 2
    changes = [sql for sql in ran if sql.startswith(("UPDATE events", "DELETE FROM items", "DELETE FROM links"))]
    steps = [row[3] for sql in changes for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert [step for step in steps if step.startswith("SCAN")] == []


@pytest.mark.sqlite
def test_however_much_came_along_the_events_are_gone_through_once(memory: Memory) -> None:
    memory.add([f"{name} adds tea" for name in ("Anna", "Bob", "Carl", "Dora")], user_id="u")
    event = memory.delete_all(user_id="u")["event_id"]
    ran: list[str] = []
    for db in connections(memory._journal):
        db.set_trace_callback(ran.append)
    assert len(memory.undo(event)["results"]) == 8
    assert sum("LIKE" in sql for sql in ran) == 1


def test_what_was_forgotten_cannot_be_undone(memory: Memory) -> None:
    fact(memory, "Bob adds tea")
    key = fact(memory, batch_id="b")
    memory.delete(key)
    event = memory.history(key)[-1]["id"]
    memory.forget(key)
    for refused in ({"event_id": event}, {"batch_id": "b", "user_id": "u"}):
        with pytest.raises(InvalidInput, match="forget"):
            memory.undo(**refused)


def test_what_was_forgotten_of_a_message_stops_no_undo_of_what_else_it_told(memory: Memory) -> None:
    said = "Anna likes tea, Bob likes chess"
    found = [
        {"text": text, "quote": text, "sources": ["m"], "triples": [], "metadata": {"verb": "adds"}}
        for text in said.split(", ")
    ]
    anna, bob = (done["id"] for done in memory.reconcile(message(said, "m"), found, user_id="u")["results"])
    for key in (bob, anna):
        memory.delete(key)
        latest(memory, key)()
        memory.forget(bob) if key == bob else None
    assert texts(memory.get_all(user_id="u", kinds=["fact"])) == ["Anna likes tea"]


def test_what_is_no_event_is_refused(memory: Memory) -> None:
    fact(memory)
    for wrong in ({}, {"event_id": 0}, {"event_id": "x"}, {"event_id": 999}, {"event_id": True}, {"event_id": 1.5},
                  {"event_id": 1, "batch_id": "b"}, {"batch_id": "", "user_id": "u"},
                  {"batch_id": "none", "user_id": "u"}):  # fmt: skip
        with pytest.raises(InvalidInput):
            memory.undo(**wrong)


def test_nobody_undoes_what_is_somebody_elses(memory: Memory) -> None:
    key = fact(memory, batch_id="b")
    event = memory.history(key)[0]["id"]
    for other in (memory.of("v"), memory.of("u", agent_id="a")):
        for wrong in ({"event_id": event}, {"batch_id": "b"}):
            with pytest.raises(InvalidInput, match="here that could be undone"):
                other.undo(**wrong)
    with pytest.raises(ScopeRequired):
        memory.undo(batch_id="b")
    assert memory.of("u").undo(event)["results"][0]["id"] == key


@pytest.mark.parametrize("keep", [True, False])
def test_of_calls_that_were_read_together_each_reports_and_undoes_its_own(keep: bool) -> None:
    with opened(clock=FrozenClock(), keep_turns=keep) as memory:
        said = {"b1": "Anna adds tea", "b2": "Bob adds tea", "b3": "Bob adds milk"}
        given: dict[str, Any] = {"user_id": "u", "session_id": "s", "background": True, "after_seconds": 30}
        for batch, text in said.items():
            memory.add(text, batch_id=batch, **given)
        assert [len(one["turns"]) for one in memory.unread(user_id="u")] == [3]
        assert memory.flush(60)
        facts = {"b1": "Anna likes tea", "b2": "Bob likes tea", "b3": "Bob likes milk"}
        assert {batch: texts(memory.add(text, batch_id=batch, user_id="u")) for batch, text in said.items()} == {
            batch: [fact] for batch, fact in facts.items()
        }
        whole = texts(memory.get_all(user_id="u", kinds=["fact", "turn"]))
        done = memory.undo(batch_id="b2", user_id="u")
        assert {row["event"] for row in done["results"]} == {"DELETE"}
        left = texts(memory.get_all(user_id="u", kinds=["fact", "turn"]))
        assert [text for text in whole if text not in left] == [*(["Bob adds tea"] if keep else []), "Bob likes tea"]
        memory.undo(batch_id="b1", user_id="u")
        assert all("Anna" not in text for text in texts(memory.get_all(user_id="u", kinds=["fact", "turn"])))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("others", [{}, {"b1": "Anna adds tea"}])
def test_a_call_that_is_not_read_yet_is_never_read_once_it_was_undone(keep: bool, others: dict[str, str]) -> None:
    with opened(clock=FrozenClock(), keep_turns=keep) as memory:
        for batch, text in {**others, "b2": "Bob adds tea"}.items():
            given: dict[str, Any] = {"user_id": "u", "background": True, "after_seconds": 30}
            memory.add([message(text, batch)], batch_id=batch, **given)
        memory.undo(batch_id="b2", user_id="u")
        assert [[turn["memory"] for turn in one["turns"]] for one in memory.unread(user_id="u")] == [
            [text] for text in others.values()
        ]
        assert memory.flush(60)
        assert texts(memory.get_all(user_id="u")) == ["Anna likes tea"] * len(others)
        with pytest.raises(InvalidInput, match=r"no batch|already"):
            memory.undo(batch_id="b2", user_id="u")
        memory.add([message("Bob adds tea", "b2")], batch_id="b2", user_id="u")
        assert texts(memory.get_all(user_id="u")) == ["Anna likes tea"] * len(others)


@pytest.mark.sqlite
@pytest.mark.parametrize(
    "ask",
    [
        lambda memory: memory.diff("2000-01-01", user_id="u"),
        lambda memory: memory.search("tea", user_id="u", as_of="2100-01-01"),
        lambda memory: memory.search("tea", user_id="u", known_at="2100-01-01"),
        lambda memory: memory.fork("trial", user_id="u").drop(),
        lambda memory: memory.forget(user_id="u"),
    ],
    ids=["diff", "as_of", "known_at", "fork", "forget"],
)
def test_what_is_about_one_user_goes_through_the_rows_of_no_other(memory: Memory, ask: Callable[[Memory], Any]) -> None:
    for number in range(10):
        memory.add(f"Anna adds {number}", user_id="u")
    ran: list[str] = []
    [db, *_] = connections(memory._journal)
    db.set_trace_callback(ran.append)
    ask(memory)
    db.set_trace_callback(None)
    asked = [sql for sql in ran if sql.startswith(("SELECT", "WITH", "UPDATE", "DELETE")) and " items " in sql]
    steps = [row[3] for sql in asked for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
    tables = ("SCAN i", "SCAN e", *(f"SEARCH {one} USING INTEGER PRIMARY KEY (rowid" for one in "ie"))
    assert [step for step in steps if step.startswith(tables) and "(rowid=?)" not in step] == []
    # Nor for each memory through all of the user's.
    scopes = [step for step in steps if " memories_by_hash (ns=?)" in step or " events_by_namespace (ns=?" in step]
    assert 1 <= len(scopes) < 10, scopes


def test_a_damaged_turn_keeps_no_fact_from_coming_back(memory: Memory) -> None:
    told(memory, 1, "Anna repeats chess", "Bob tells Rome")
    [one, other] = memory.get_all(user_id="u", kinds=["fact"])["results"]
    with memory._journal.write() as tx:
        [turn] = tx.versions_of(tx.memory(one["id"]).sources[0])
        tx.link(tx.memory(other["id"]).id, [(turn.id, None)])
    memory.delete(other["id"])
    memory.delete(one["id"])
    with memory._journal.write() as tx:
        tx.db.execute("UPDATE items SET sources = '{' WHERE id = ?", (turn.id,))
    latest(memory, one["id"])()
    assert [row["memory"] for row in memory.get_all(user_id="u", kinds=["fact"])["results"]] == [one["memory"]]
