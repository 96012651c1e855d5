"""Profiles: one validated object for each user beside the facts, which follows what is told and never outlives it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from journal_dump import dump, ids, open_memory, query, refuses, texts
from langchain_core.messages import HumanMessage
from langgraph.runtime import Runtime
from memory_kit import Mind, call, decided, found, open_with
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    create_model,
    field_validator,
)
from pydantic.json_schema import SkipJsonSchema
from test_undo import opened
from typer.testing import CliRunner

from langchain_memlayer import ConfigurationError, InvalidInput, Memory, MemoryConfig, recall_node
from langchain_memlayer.cli import app
from langchain_memlayer.doctor import check
from langchain_memlayer.journal import open_journal
from langchain_memlayer.moving import export_store, import_store
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, ScriptedChatModel


class Pet(BaseModel):
    name: str
    kind: str = "cat"


class Card(BaseModel):
    name: str | None = None
    city: str | None = Field(None, description="where the user lives")
    born: date | None = None
    languages: list[str] = []
    pets: list[Pet] = []
    level: int | None = Field(None, ge=1, le=5)


class Node(BaseModel):
    name: str | None = None
    nick: str | None = None
    age: int | None = None
    tags: list[str] = []
    knows: list[Node] = []


TOLD = {
    "I live in Berlin": [found("Anna lives in Berlin")], "I moved to Rome": [found("Anna lives in Rome")],
    "I speak Greek": [found("Anna speaks Greek")], "I speak Thai": [found("Anna speaks Thai")],
    "Forget Berlin": [found("Anna lives in Berlin", retract=True)],
    "My cat is Tom": [found("Anna has a cat named Tom")], "nothing": [],
}  # fmt: skip


def change(field: str, action: str = "set", value: str = "", *facts: int) -> dict[str, Any]:
    return {"field": field, "action": action, "value": value, "facts": list(facts or (1,))}


def city(memory: Memory, **given: Any) -> Any:
    return memory.profile(**{"user_id": "u", **given}).value.city


def told(memory: Memory, *said: str, **given: Any) -> list[dict[str, Any]]:
    return list(memory.add(list(said), **{"user_id": "u", **given})["results"])


ADDED = decided((1, "ADD", 0))
UPDATED = decided((1, "UPDATE", 1, "Anna lives in Rome"))
BERLIN, ROME = [change("city", "set", "Berlin")], [change("city", "set", "Rome")]


# -- the step after a commit -------------------------------------------------------------------------------------------


async def test_a_profile_follows_the_facts_and_each_field_cites_its_own(way: str) -> None:
    mind = Mind(
        TOLD, UPDATED,
        changes=[
            [
                change("city", "set", "Berlin", 1), change("languages", "append", "Greek", 2),
                change("pets", "append", '{"name": "Tom"}', 3),
            ],
            ROME,
        ],
    )  # fmt: skip
    with open_with(mind, profile=Card) as memory:
        said = ["I live in Berlin", "I speak Greek", "My cat is Tom"]
        added = await call(way, memory, "add", said, user_id="u", run_id="r")
        berlin, greek, tom = (row["id"] for row in added["results"])
        profile = await call(way, memory, "profile", user_id="u")
        assert profile.value == Card(city="Berlin", languages=["Greek"], pets=[Pet(name="Tom")])
        assert {name: field["facts"] for name, field in profile.fields.items()} == {
            "city": [berlin], "languages": [greek], "pets": [tom],
        }  # fmt: skip
        assert profile.fields["city"]["value"] == "Berlin"
        assert not profile.behind
        when = "2025-03-01T20:00-08:00"  # the next day in UTC
        await call(way, memory, "add", "I moved to Rome", user_id="u", run_id="r", timestamp=when)
        assert city(memory) == "Rome"
        assert mind.asked == ["extraction", "profile", "extraction", "reconciliation", "profile"]
        assert '"date": "2025-03-01", "was": "Anna lives in Berlin", "text": "Anna lives in Rome"' in mind.shown[-1]
        assert '"value": "Berlin"' in mind.shown[-1]
        rows = await call(way, memory, "profile_history", user_id="u")
        cities = [(row["before"], row["after"], row["facts"]) for row in rows if row["field"] == "city"]
        assert cities == [(None, "Berlin", [berlin]), ("Berlin", "Rome", [berlin])]


def test_a_schema_may_have_itself_in_it_and_entries_that_a_model_writes_anyhow() -> None:
    said = [
        change("knows", "append", '{"name": "Bo", "knows": []}'), change("Name", "SET", '"Anna"'),
        change("age", "set", " 42 "), change("tags", "set", "one"), change("tags", "append", '["two", "One"]'),
        change("nick", "set", "null"), change("tags", "remove", "ONE"),
    ]  # fmt: skip
    with open_with(Mind(TOLD, changes=[said]), profile=Node) as memory:
        told(memory, "I live in Berlin")
        value = memory.profile(user_id="u").value
    assert value == Node(name="Anna", age=42, knows=[Node(name="Bo")], tags=["two"])


class Checked(BaseModel):
    """What users write: other names outside, strict types, checks that raise anything."""

    model_config = ConfigDict(strict=True, alias_generator=str.upper, serialize_by_alias=True)
    city: str | None = None
    born: date | None = None
    nick: str | None = Field(None, validation_alias=AliasChoices("alias", "handle"))
    home: Checked | None = None
    size: float | None = None
    CITY: str | None = Field(None, alias="other")
    internal: SkipJsonSchema[str] = "ours"

    @field_validator("city")
    @classmethod
    def known(cls, city: str) -> str:
        return {"Berlin": "Berlin", "Bonn": "Bonn"}[city]


@pytest.mark.filterwarnings("error")
def test_a_schema_may_have_other_names_strict_types_and_checks_that_fail(caplog: pytest.LogCaptureFixture) -> None:
    said = [
        change("city", "set", "Atlantis"), change("born", "set", "2001-02-03"), change("nick", "set", "Tom"),
        change("home", "set", '{"city": "Bonn"}'), change("size", "set", "1e999"), change("CITY", "set", "both"),
    ]  # fmt: skip
    with open_with(Mind(TOLD, changes=[said, said]), profile=Checked) as memory:
        assert told(memory, "I live in Berlin")[0]["event"] == "ADD"
        for wrong in ({"city": "Atlantis"}, {"size": float("inf")}, {"size": object()}, {"internal": "x"}):
            with pytest.raises(InvalidInput, match=r"cannot be set|has no field"):
                memory.update_profile(wrong, user_id="u")
        profile = memory.update_profile({"city": "Berlin"}, user_id="u")
        assert profile.value.model_dump(by_alias=False, exclude_defaults=True) == {
            "city": "Berlin", "born": date(2001, 2, 3), "nick": "Tom", "home": {"city": "Bonn"}, "CITY": "both",
        }  # fmt: skip
        assert (profile.problems, profile.behind, caplog.text) == ([], False, "")


def test_a_computed_field_that_fails_keeps_no_profile_from_being_shown() -> None:
    class Computed(BaseModel):
        city: str | None = None

        @computed_field
        def shout(self) -> str:
            raise ZeroDivisionError

    with open_memory(":memory:", profile=Computed) as memory:
        shown = memory.update_profile({"city": "Rome"}, user_id="u").plain()
        assert (shown["value"], shown["fields"]["city"]["value"]) == ({"city": "Rome"}, "Rome")


def test_without_a_profile_or_a_change_of_facts_no_model_is_asked() -> None:
    mind = Mind(TOLD, decided((1, "NONE", 1)))
    with open_with(mind) as memory:
        told(memory, "I live in Berlin")
        assert mind.asked == ["extraction"]
        assert memory.profile(user_id="u").fields == {}
    mind = Mind(TOLD, decided((1, "NONE", 1)), decided((1, "DELETE", 1)), changes=[BERLIN])
    with open_with(mind, profile=Card) as memory:
        told(memory, "I live in Berlin")
        told(memory, "nothing")
        assert mind.asked == ["extraction", "profile", "extraction"]
        # Told once more.
        told(memory, "I live in Berlin", session_id="other")
        # What only ends takes its field along by itself.
        told(memory, "Forget Berlin")
        assert "profile" not in mind.asked[3:]
        assert city(memory) is None
        assert [row["after"] for row in memory.profile_history(user_id="u")] == ["Berlin", None]


def test_a_reply_that_the_schema_refuses_is_shown_with_the_reason_once() -> None:
    replies: list[Any] = [
        {"facts": [{"turn": 1, "quote": "I live in Berlin", "fact": "Anna lives in Berlin"}]},
        {"changes": [change("level", "set", "9"), change("town", "set", "x"), change("city", "set", "Berlin")]},
        {"changes": [change("level", "set", "9"), change("city", "set", "Berlin"), change("born", "set", "", 7)]},
    ]
    model = ScriptedChatModel(replies=replies)
    with open_memory(":memory:", model=model, profile=Card) as memory:
        told(memory, "I live in Berlin")
        # The second reply counts as far as it can be used.
        assert memory.profile(user_id="u").value == Card(city="Berlin")
        assert model.calls == 3
        said = str(model.prompts[-1][-1].content)
        assert "level: Input should be less than or equal to 5" in said
        assert "there is no such field, only name, city" in said


def test_a_reply_without_measure_costs_no_more_than_a_long_one() -> None:
    many = [change("languages", "append", f"L{number}") for number in range(3_000)]
    odd = [
        change("name", "set", "x" * 10_001), change("city", "set", '{"city": "Berlin"}'), change("level", "set", "3"),
    ]  # fmt: skip
    strange = [change(f"f{number}") for number in range(3_000)]
    mind = Mind(TOLD, decided((1, "ADD")), decided((1, "ADD")), changes=[many, odd, strange])
    model = mind.model
    with open_memory(":memory:", model=model, profile=Card) as memory:
        told(memory, "I live in Berlin")
        assert len(memory.profile(user_id="u").value.languages) == 300
        told(memory, "I speak Greek")
        value = memory.profile(user_id="u").value
        assert value.model_dump(exclude={"languages"}, exclude_defaults=True) == {"level": 3}
        told(memory, "I speak Thai")
        assert len(str(model.prompts[-1][-1].content)) < 2_000


@pytest.mark.parametrize("broken", [TimeoutError("Anna lives in Berlin"), "no idea", ""])
def test_a_model_that_fails_leaves_the_profile_behind_for_a_while(
    broken: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mind = Mind(TOLD, decided((1, "ADD")), changes=[broken, [*BERLIN, change("languages", "append", "Greek", 2)]])
    with open_with(mind, profile=Card) as memory:
        [berlin] = told(memory, "I live in Berlin")
        assert (berlin["event"], city(memory)) == ("ADD", None)
        assert memory.profile(user_id="u").behind
        assert "profile stays as it was" in caplog.text
        assert "Anna" not in caplog.text
        told(memory, "I speak Greek")
        profile = memory.profile(user_id="u")
        assert (profile.value.city, profile.value.languages, profile.behind) == ("Berlin", ["Greek"], False)
        assert profile.fields["city"]["facts"] == [berlin["id"]]


def test_read_catches_up_with_a_step_that_nobody_took_and_with_what_was_changed_by_hand(tmp_path: Path) -> None:
    with open_with(Mind(TOLD, changes=[KeyboardInterrupt()]), tmp_path, profile=Card) as memory:
        with pytest.raises(KeyboardInterrupt):
            told(memory, "I live in Berlin")
        assert memory.unread(user_id="u") == []
    mind = Mind(TOLD, changes=[BERLIN, ROME])
    with open_with(mind, tmp_path, profile=Card) as memory:
        [row] = memory.get_all(user_id="u", kinds=["fact"])["results"]
        for place in ("Berlin", "Rome"):
            if place == "Rome":
                memory.update(row["id"], "Anna lives in Berlin, in a flat")
                assert city(memory) == "Berlin"
                memory.update(row["id"], "Anna lives in Rome")
            assert (city(memory), memory.profile(user_id="u").behind) == (None, True)
            memory.read(user_id="u")
            assert (city(memory), memory.profile(user_id="u").behind) == (place, False)
        before = len(mind.asked)
        memory.read(user_id="u")
        assert len(mind.asked) == before


def test_a_user_has_one_profile_and_an_agent_sees_of_it_what_its_own_facts_say() -> None:
    mind = Mind(TOLD, changes=[BERLIN, [change("languages", "append", "Greek")]])
    with open_with(mind, profile=Card) as memory:
        told(memory, "I live in Berlin", agent_id="a")
        told(memory, "I speak Greek", agent_id="b")
        assert memory.profile(user_id="u").value == Card(city="Berlin", languages=["Greek"])
        assert memory.profile(user_id="u", agent_id="a").value == Card(city="Berlin")
        assert memory.profile(user_id="u", agent_id="b").value == Card(languages=["Greek"])
        assert memory.of(user_id="u", agent_id="b").profile().value == Card(languages=["Greek"])
        assert memory.profile(user_id="other").value == Card()
        own = memory.profile_history(user_id="u", agent_id="b")
        assert [(row["field"], row["before"], row["after"]) for row in own] == [("languages", None, ["Greek"])]


def test_background_and_the_two_halves_take_the_same_step() -> None:
    mind = Mind(TOLD, changes=[BERLIN, [change("languages", "append", "Greek")]])
    with open_with(mind, profile=Card) as memory:
        memory.add("I live in Berlin", user_id="u", background=True)
        assert memory.flush(10)
        assert city(memory) == "Berlin"
        said = [{"role": "user", "content": "I speak Greek", "id": "m"}]
        facts = memory.extract(said, user_id="u")["facts"]
        mind.decisions.append(decided((1, "ADD")))
        memory.reconcile(said, facts, user_id="u")
        assert memory.profile(user_id="u").value.languages == ["Greek"]


# -- a profile is no hit ----------------------------------------------------------------------------------------------


def test_a_profile_is_no_hit_in_no_list_and_in_no_count(tmp_path: Path) -> None:
    mind = Mind(TOLD, changes=[BERLIN])
    with open_with(mind, tmp_path / "s", profile=Card) as memory:
        told(memory, "I live in Berlin", infer=True)
        memory.update_profile({"name": "Anna lives in Berlin"}, user_id="u")
        key = memory.profile(user_id="u").id
        for query in ("Berlin", "Anna lives in Berlin", key):
            for more in ({}, {"as_of": "2030-01-01"}, {"known_at": "2030-01-01"}, {"filters": {"kind": "profile"}}):
                assert key not in ids(memory.search(query, user_id="u", **more))
        for more in ({"user_id": "u"}, {"everything": True}, {"user_id": "u", "kinds": ["fact", "turn"]}):
            assert key not in ids(memory.get_all(**more))
        assert [(row["facts"], row["turns"]) for row in memory.scopes()] == [(1, 1)]
        assert memory.delete_all(user_id="u")["count"] == 2
        assert memory.profile(user_id="u").value == Card()
    with open_memory(tmp_path / "s") as memory:
        assert check(memory._journal) == []


# -- ends, forgetting, undo -------------------------------------------------------------------------------------------


def test_a_field_does_not_come_back_with_what_its_fact_said_before_it_changed_and_ended() -> None:
    with open_with(Mind(TOLD, changes=[BERLIN, ROME]), profile=Card) as memory:
        [berlin] = told(memory, "I live in Berlin")
        memory.update(berlin["id"], "Anna lives in Rome")
        memory.delete(berlin["id"])
        memory.read(user_id="u")
        memory.undo(memory.history(berlin["id"])[-1]["id"])
        assert (city(memory), memory.profile(user_id="u").behind) == (None, True)
        memory.read(user_id="u")
        assert city(memory) == "Rome"


def test_a_field_goes_with_its_fact_and_comes_back_with_it() -> None:
    changes = [[change("city", "set", "Berlin"), change("languages", "append", "Greek", 2)], []]
    mind = Mind(TOLD, changes=changes)
    with open_with(mind, profile=Card) as memory:
        berlin, greek = told(memory, "I live in Berlin", "I speak Greek")
        before = memory.profile(user_id="u")
        memory.delete(greek["id"])
        assert memory.profile(user_id="u").value == Card(city="Berlin")
        memory.delete(berlin["id"])
        assert memory.profile(user_id="u").fields == {}
        memory.undo(memory.history(berlin["id"])[-1]["id"])
        memory.undo(memory.history(greek["id"])[-1]["id"])
        assert memory.profile(user_id="u") == before
        memory.update(greek["id"], expiration_date="2020-01-01")
        assert memory.profile(user_id="u").value == Card(city="Berlin")


def test_forget_leaves_nothing_of_what_only_the_forgotten_fact_said(tmp_path: Path) -> None:
    told_all = {
        "I live in Berlin": [found("Anna lives in Berlin")], "Secretly I am Xanthippe": [found("Anna is Xanthippe")],
        "Xanthippe it is": [found("User is called Xanthippe")], "I moved to Rome": [found("Anna lives in Rome")],
    }  # fmt: skip
    changes = [
        [*BERLIN, change("name", "set", "Xanthippe", 2), change("languages", "append", "Greek", 1, 2)],
        [change("name", "set", "Xanthippe")], ROME,
    ]  # fmt: skip
    mind = Mind(told_all, decided((1, "ADD")), UPDATED, changes=changes)
    with open_with(mind, tmp_path / "s", profile=Card) as memory:
        berlin, name = told(memory, "I live in Berlin", "Secretly I am Xanthippe")
        [again] = told(memory, "Xanthippe it is")
        told(memory, "I moved to Rome")
        assert memory.profile(user_id="u").fields["name"]["facts"] == [name["id"], again["id"]]
        memory.forget(berlin["id"])
        profile = memory.profile(user_id="u")
        # No word of the fact that is left says that she speaks Greek.
        assert profile.value == Card(name="Xanthippe")
        assert [row["after"] for row in memory.profile_history(user_id="u")] == ["Xanthippe"]
        memory.forget(name["id"])
        assert memory.profile(user_id="u").fields["name"]["facts"] == [again["id"]]
        memory.forget(again["id"])
        assert memory.profile(user_id="u").fields == {}
        assert check(memory._journal) == []
    for file in (tmp_path / "s").rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert not [word for word in (b"Xanthippe", b"Berlin", b"Greek") if word in data], file


@pytest.mark.parametrize("keep_turns", [True, False])
def test_words_of_a_forgotten_fact_go_also_where_another_fact_was_cited_for_them(keep_turns: bool) -> None:
    changes = [[change("name", "set", "Berlin", 2), change("languages", "append", "Greek", 2)]]
    with open_with(Mind(TOLD, changes=changes), profile=Card, keep_turns=keep_turns) as memory:
        berlin, greek = told(memory, "I live in Berlin", "I speak Greek")
        assert memory.profile(user_id="u").fields["name"]["facts"] == [greek["id"]]
        memory.delete(berlin["id"])
        fork = memory.fork("try", user_id="u")
        memory.forget(berlin["id"])
        assert memory.profile(user_id="u").value == fork.profile().value == Card(languages=["Greek"])


def follow(messages: Any) -> Any:
    """Each fact `X likes Y` sets the field of X, and its Y is one entry of the list."""
    shown = str(messages[-1].content)
    facts = [json.loads(line) for line in shown.split("<facts>\n")[1].split("\n</facts>")[0].splitlines()]
    changes = []
    for one in facts:
        person, _, thing = (one.get("text") or one["ended"]).split()
        if "text" in one:
            if "was" in one:
                changes.append(change("things", "remove", one["was"].split()[2], one["fact"]))
            changes += [change(person, "set", thing, one["fact"]), change("things", "append", thing, one["fact"])]
    return {"changes": changes}


class Likes(BaseModel):
    anna: str | None = None
    bob: str | None = None
    things: list[str] = []


verbs = st.sampled_from(["adds", "tells", "ends", "repeats", "sees"])
sentences = st.tuples(st.sampled_from(["Anna", "Bob"]), verbs, st.sampled_from(["tea", "chess", "Rome"]))
steps = st.one_of(
    st.tuples(st.just("say"), st.lists(sentences.map(" ".join), min_size=1, max_size=3)),
    st.tuples(st.just("change"), st.tuples(st.integers(0, 9), st.sampled_from(["Anna likes art", "Bob likes art"]))),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("hand"), st.sampled_from([{"anna": "hand"}, {"things": ["hand"]}, {"bob": None}])),
    st.tuples(st.just("empty"), st.none()),
)


def done(memory: Memory, kind: str, what: Any, batch: str) -> Any:
    """One step, and what takes it back."""
    key = ""
    if kind == "say":
        memory.add(what, user_id="u", batch_id=batch)
        return lambda: memory.undo(batch_id=batch, user_id="u")
    if kind == "empty":
        event = memory.delete_all(user_id="u").get("event_id")
        return event and (lambda: memory.undo(event))
    if kind == "hand":
        key = memory.update_profile(what, user_id="u").id
    elif rows := memory.get_all(user_id="u", kinds=["fact"])["results"]:
        place = what if kind == "delete" else what[0]
        key = rows[place % len(rows)]["id"]
        if kind == "delete":
            memory.delete(key)
        elif memory.get(key)["memory"] != what[1]:
            memory.update(key, what[1])
        else:
            return None
    event = memory.history(key)[-1]["id"] if key else None
    return event and (lambda: memory.undo(event))


@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
@given(st.lists(steps, min_size=1, max_size=7))
def test_undo_gives_the_profile_that_was_before_to_the_last_byte(said: Any) -> None:
    clock = FrozenClock()
    model = ScriptedChatModel(replies=follow)
    with opened(clock=clock, model=model, profile=Likes) as memory:
        past = []
        for number, (kind, what) in enumerate(said):
            clock.advance(minutes=1)
            before = memory.profile(user_id="u")
            undo = done(memory, kind, what, f"b{number}")
            # What was changed by hand is taken in now, not with the next step.
            memory.read(user_id="u")
            if undo is not None:
                past.append((before, undo))
        for before, undo in reversed(past):
            clock.advance(minutes=1)
            undo()
            assert memory.profile(user_id="u") == before
        assert check(memory._journal) == []
        assert memory.profile(user_id="u").fields == {}
        # Nothing is left for the model to look at.
        calls = model.calls
        memory.read(user_id="u")
        assert model.calls == calls


def test_an_event_of_a_profile_is_undone_field_by_field() -> None:
    mind = Mind(TOLD, changes=[BERLIN])
    with open_with(mind, profile=Card) as memory:
        memory.update_profile({"city": "Bonn", "level": 2}, user_id="u")
        [bonn, *_] = memory.profile_history(user_id="u")
        memory.update_profile({"level": 3}, user_id="u")
        with pytest.raises(InvalidInput, match="has changed level of this profile since"):
            memory.undo(bonn["event_id"])
        last = memory.profile_history(user_id="u")[-1]["event_id"]
        [row] = memory.undo(last)["results"]
        assert (json.loads(row["memory"]), row["event"]) == ({"city": "Bonn", "level": 2}, "UPDATE")
        with pytest.raises(InvalidInput, match="undone already"):
            memory.undo(last)
        memory.undo(bonn["event_id"])
        assert memory.profile(user_id="u").fields == {}


@pytest.mark.sqlite
def test_a_profile_is_deleted_brought_back_and_forgotten_by_its_id(tmp_path: Path) -> None:
    with open_with(Mind(TOLD, changes=[BERLIN]), tmp_path / "s", profile=Card) as memory:
        told(memory, "I live in Berlin")
        before = memory.profile(user_id="u")
        assert json.loads(memory.get(before.id)["memory"])["city"]["value"] == "Berlin"
        memory.delete(before.id)
        assert (memory.get(before.id), memory.profile(user_id="u").fields) == (None, {})
        memory.undo(memory.history(before.id)[-1]["id"])
        assert memory.profile(user_id="u") == before
        counts = run_stats(tmp_path / "s")
        assert (counts["facts"], counts["turns"], counts["ended"]) == (1, 1, 0)
        memory.update_profile({"name": "Xanthippe"}, user_id="u")
        assert memory.forget(before.id)["also"] == []
        assert memory.profile_history(user_id="u") == []
        assert texts(memory.get_all(user_id="u", kinds=["fact"])) == ["Anna lives in Berlin"]
        # What is still known is there again with the next step.
        memory.read(user_id="u")
        assert memory.profile(user_id="u").behind is False
        assert check(memory._journal) == []
    assert not any(b"Xanthippe" in file.read_bytes() for file in (tmp_path / "s").rglob("*") if file.is_file())


def run_stats(folder: Path) -> Any:
    with closing(open_journal(folder)) as journal, journal.read() as reader:
        return reader.counts()


# -- by hand -----------------------------------------------------------------------------------------------------------


async def test_what_is_set_by_hand_stays_until_something_newer_is_said(way: str) -> None:
    clock = FrozenClock()
    mind = Mind(
        TOLD, decided((1, "ADD")),
        changes=[[*BERLIN, change("languages", "append", "Greek")], ROME, [change("languages", "remove", "Thai")]],
    )  # fmt: skip
    with open_with(mind, profile=Card, clock=clock) as memory:
        profile = await call(way, memory, "update_profile", {"city": "Bonn", "languages": ["Thai"]}, user_id="u")
        assert profile.value == Card(city="Bonn", languages=["Thai"])
        assert profile.fields["city"]["facts"] == []
        # Said a year before it was set.
        told(memory, "I live in Berlin", timestamp="2024-01-01T10:00:00Z")
        assert memory.profile(user_id="u").value == Card(city="Bonn", languages=["Thai"])
        assert '"value": "Bonn", "by hand": "2025-01-01"' in mind.shown[-1]
        clock.advance(days=1)
        told(memory, "I moved to Rome")
        told(memory, "I speak Thai")
        assert memory.profile(user_id="u").value == Card(city="Rome")


def test_by_hand_a_field_is_cleared_and_older_facts_do_not_bring_it_back() -> None:
    mind = Mind(TOLD, changes=[BERLIN, BERLIN])
    with open_with(mind, profile=Card) as memory:
        told(memory, "I live in Berlin")
        assert memory.update_profile({"city": None}, user_id="u").value == Card()
        told(memory, "I speak Greek", timestamp="2024-01-01T10:00:00Z")
        assert city(memory) is None


def test_by_hand_what_the_schema_does_not_take_is_refused_and_nothing_written(tmp_path: Path) -> None:
    with open_memory(tmp_path, profile=Card) as memory:
        memory.update_profile({"city": "Bonn"}, user_id="u")
        for wrong, match in (
            ({"town": "x"}, "no field 'town'; its fields are name, city"),
            ({"city": "Rome", "level": 9}, "level cannot be set: Input should be less than or equal to 5"),
            ({"pets": [{"kind": "dog"}]}, "pets cannot be set"), ({"name": "a\ud800"}, "surrogate"),
            ({}, "takes a mapping"), ("city", "takes a mapping"),
        ):  # fmt: skip
            said = refuses(lambda given=wrong: memory.update_profile(given, user_id="u"), tmp_path, InvalidInput)
            assert match in said
        with pytest.raises(InvalidInput, match="update_profile"):
            memory.update(memory.profile(user_id="u").id, "x")


def test_a_profile_needs_a_schema() -> None:
    callback = create_model("Callback", call=(Callable[[], int], ...))
    secret = create_model("Login", password=(SecretStr | None, None))
    match = r"pydantic model|'package.module:Model'|JSON does not have|JSON would not give back"
    for wrong in (dict, Card(), BaseModel, RootModel[int], "Card", "json:loads", callback, secret):
        with pytest.raises(ConfigurationError, match=match):
            Memory(":memory:", model=None, embeddings=None, profile=wrong)
    with open_memory(":memory:") as memory, pytest.raises(ConfigurationError, match="profile="):
        memory.update_profile({"city": "Rome"}, user_id="u")


# -- time, other schemas, other places ---------------------------------------------------------------------------------


def test_a_profile_is_shown_as_it_was_and_as_it_was_known() -> None:
    clock = FrozenClock()
    mind = Mind(TOLD, UPDATED, changes=[BERLIN, ROME])
    with open_with(mind, profile=Card, clock=clock) as memory:
        told(memory, "I live in Berlin", timestamp="2023-05-01T10:00:00Z")
        clock.advance(days=10)
        [row] = told(memory, "I moved to Rome", timestamp="2024-05-01T10:00:00Z")
        asked = {
            "2023-04-01": None, "2023-06-01": "Berlin", "2024-04-30": "Berlin", "2024-05-02": "Rome",
            "2030-01-01": "Rome",
        }  # fmt: skip
        assert {day: city(memory, as_of=day) for day in asked} == asked
        assert city(memory, known_at="2025-01-05") == "Berlin"
        assert city(memory, known_at="2025-01-05", as_of="2024-06-01") == "Berlin"
        assert city(memory, known_at="2024-12-31") is None
        assert [row["after"] for row in memory.diff("2025-01-05", user_id="u")["profile"]] == ["Rome"]
        assert "profile" not in memory.diff("2025-01-11", user_id="u")
        clock.advance(days=10)
        memory.delete(row["id"])
        assert city(memory) is city(memory, as_of="2025-01-22") is None
        assert city(memory, as_of="2025-01-12") == city(memory, known_at="2025-01-12") == "Rome"


def test_what_fits_another_schema_is_shown_and_the_rest_is_told_and_not_lost(tmp_path: Path) -> None:
    class Later(BaseModel):
        city: str
        level: str = "none"
        born: date | None = None
        plan: str | None = None

    with open_memory(tmp_path, profile=Card) as memory:
        memory.update_profile({"level": 3, "languages": ["Thai"], "name": "Anna"}, user_id="u")
        history = memory.profile_history(user_id="u")
    with open_memory(tmp_path, profile=Later) as memory:
        profile = memory.profile(user_id="u")
        assert profile.value is None
        assert {one["field"]: one["value"] for one in profile.problems} == {
            "level": 3, "languages": ["Thai"], "name": "Anna", "city": None
        }  # fmt: skip
        of_nobody = memory.profile(user_id="somebody new").problems
        assert of_nobody == [{"field": "city", "value": None, "reason": "Field required"}]
        profile = memory.update_profile({"city": "Rome", "level": "high"}, user_id="u")
        assert profile.value == Later(city="Rome", level="high")
        assert {one["field"] for one in profile.problems} == {"languages", "name"}
        assert memory.profile_history(user_id="u")[: len(history)] == history
        assert memory.diff("2024-01-01", user_id="u")["added"] == []
    with open_memory(tmp_path, profile=Card) as memory:
        assert memory.profile(user_id="u").value == Card(name="Anna", city="Rome", languages=["Thai"])
    with open_memory(tmp_path) as memory:
        profile = memory.profile(user_id="u")
        assert (profile.value, profile.fields["level"]["value"]) == (None, "high")


@pytest.mark.parametrize(
    ("action", "langs", "nick"),
    [("append", ["Greek", "Thai"], None), ("set", ["Thai"], "Thai"), ("remove", ["Greek"], None)],
)
def test_what_was_one_value_begins_the_list(tmp_path: Path, action: str, langs: list[str], nick: str | None) -> None:
    before = create_model("Before", langs=(str | None, None), nick=(list[int], []))
    after = create_model("After", langs=(list[str], []), nick=(str | None, None))
    said = [change("langs", "set", "Greek"), change("nick", "set", "[1, 2]")]
    with open_with(Mind(TOLD, changes=[said]), tmp_path, profile=before) as memory:
        [row] = told(memory, "I live in Berlin")
    said = [change("langs", action, "Thai"), change("nick", action, "Thai")]
    mind = Mind(TOLD, decided((1, "ADD")), changes=[said, said])
    with open_with(mind, tmp_path, profile=after, new_id=lambda: str(uuid4())) as memory:
        told(memory, "I speak Thai")
        value = memory.profile(user_id="u").value.model_dump()
        assert value == {"langs": langs, "nick": "Thai" if action == "append" else nick}
        memory.forget(row["id"])
        assert memory.profile(user_id="u").value.langs == [one for one in langs if one == "Thai"]


def test_a_damaged_profile_is_an_empty_one_and_is_written_anew(tmp_path: Path) -> None:
    with open_memory(tmp_path, profile=Card) as memory:
        for number, text in enumerate((
            "no JSON", "[1]", '{"city": 7}', '{"city": {"facts": [1], "at": 2}}',
            '{"city": {"value": "Rome", "facts": [["a"]], "at": 2}}',
            '{"languages": {"value": ["a"], "facts": ["b", []], "at": 2}}',
        )):  # fmt: skip
            user = f"u{number}"
            memory.update_profile({"city": "Rome"}, user_id=user)
            query(tmp_path, "UPDATE items SET value = ? WHERE kind = 'profile' AND user_id = ?", text, user)
            assert memory.profile(user_id=user).fields == {}
            assert memory.update_profile({"city": "Bonn"}, user_id=user).value == Card(city="Bonn")
            assert [row["after"] for row in memory.profile_history(user_id=user)] == ["Bonn"]


@pytest.mark.sqlite
def test_an_export_takes_the_profile_along_with_its_history(tmp_path: Path) -> None:
    mind = Mind(TOLD, UPDATED, changes=[BERLIN, ROME])
    with open_with(mind, tmp_path / "a", profile=Card) as memory:
        told(memory, "I live in Berlin")
        told(memory, "I moved to Rome")
        memory.update_profile({"level": 3}, user_id="u")
        profile, history = memory.profile(user_id="u"), memory.profile_history(user_id="u")
    export_store(tmp_path / "a", tmp_path / "file")
    import_store(tmp_path / "file", tmp_path / "b")
    with open_memory(tmp_path / "b", profile=Card) as memory:
        assert memory.profile(user_id="u") == profile
        assert memory.profile_history(user_id="u") == history
        assert texts(memory.search("Rome", user_id="u", kinds=["fact"])) == ["Anna lives in Rome"]
        memory.forget(user_id="u")
        assert memory.profile(user_id="u").fields == {}
        assert memory.profile_history(user_id="u") == []
        assert check(memory._journal) == []


def test_what_another_process_changed_meanwhile_is_asked_anew(tmp_path: Path) -> None:
    with open_with(Mind({}), tmp_path, profile=Card) as other:
        mind = Mind(TOLD, changes=[BERLIN, BERLIN])

        def reply(messages: Any) -> Any:
            answer = mind(messages)
            if mind.asked.count("profile") == 1:
                other.update_profile({"level": 4}, user_id="u")
            return answer

        with open_memory(tmp_path, model=ScriptedChatModel(replies=reply), profile=Card) as memory:
            told(memory, "I live in Berlin")
            assert memory.profile(user_id="u").value == Card(city="Berlin", level=4)
            assert mind.asked == ["extraction", "profile", "profile"]
            assert '"value": 4' in mind.shown[-1]


def test_a_fork_has_a_profile_of_its_own_that_cites_its_own_facts(tmp_path: Path) -> None:
    mind = Mind(TOLD, UPDATED, changes=[BERLIN, ROME])
    with open_with(mind, tmp_path, profile=Card) as memory:
        [row] = told(memory, "I live in Berlin")
        memory.update_profile({"level": 3}, user_id="u")
        fork = memory.fork("try", user_id="u")
        assert fork.profile().value == Card(city="Berlin", level=3)
        assert fork.profile().fields["city"]["facts"] != [row["id"]]
        fork.add("I moved to Rome")
        assert (fork.profile().value.city, city(memory)) == ("Rome", "Berlin")
        assert [shown.count('"fact":') for shown in mind.shown if "<fields>" in shown] == [1, 1]
        # What the merge made of the facts the original's profile takes in with its next step.
        mind.changes = [ROME]
        fork.merge()
        assert memory.profile(user_id="u").behind
        memory.read(user_id="u")
        assert memory.profile(user_id="u").value == Card(city="Rome", level=3)
        again = memory.fork("again", user_id="u")
        memory.forget(row["id"])
        assert again.profile().value == Card(level=3)
        assert check(memory._journal) == []


def test_of_facts_that_were_read_together_one_is_undone_without_what_the_others_say() -> None:
    said = [
        change("languages", "append", "Greek", 1), change("languages", "append", "Thai", 2),
        change("name", "set", "Anna", 1), change("name", "set", "Anna", 2), change("city", "set", "Athens", 1),
    ]  # fmt: skip
    with open_with(Mind(TOLD, changes=[said]), profile=Card) as memory:
        memory.update_profile({"languages": ["Latin"]}, user_id="u")
        greek, thai = told(memory, "I speak Greek", "I speak Thai", timestamp="2030-01-01")
        before = memory.profile(user_id="u")
        memory.undo(memory.history(greek["id"])[-1]["id"])
        after = memory.profile(user_id="u")
        assert after.value == Card(name="Anna", languages=["Latin", "Thai"])
        assert after.fields["name"]["facts"] == after.fields["languages"]["facts"] == [thai["id"]]
        memory.undo(memory.history(greek["id"])[-1]["id"])
        assert memory.profile(user_id="u") == before
        memory.undo(memory.history(thai["id"])[-1]["id"])
        assert memory.profile(user_id="u").value == Card(name="Anna", city="Athens", languages=["Latin", "Greek"])


@pytest.mark.parametrize("whose", [{"user_id": "u", "agent_id": "a"}, {"agent_id": "a"}])
@pytest.mark.parametrize("end", ["drop", "merge", "forget"])
def test_a_fork_of_an_agents_has_the_users_profile_and_ends_it(tmp_path: Path, whose: dict[str, str], end: str) -> None:
    with open_with(Mind(TOLD, changes=[BERLIN]), tmp_path, profile=Card) as memory:
        told(memory, "I live in Berlin", agent_id="a")
        fork = memory.fork("try", **whose)
        assert fork.of(user_id="u").profile().value == Card(city="Berlin")
        assert not fork.of(user_id="u").profile().behind
        fork.of(user_id="u").update_profile({"name": "Xanthippe"})
        memory.forget(**whose) if end == "forget" else getattr(fork, end)()
        assert memory.forks() == []
        # What a merge takes over of the fork's profile is the user's.
        carried = end == "merge"
        assert memory.profile(user_id="u").fields.get("name", {}).get("value") == ("Xanthippe" if carried else None)
    [(left,)] = query(tmp_path, "SELECT count(*) FROM items WHERE value LIKE '%Xanthippe%'")
    assert left == carried
    files = [one for one in tmp_path.rglob("*") if one.is_file() and b"Xanthippe" in one.read_bytes()]
    assert carried or not files


def test_a_merge_takes_over_what_was_set_by_hand_where_the_original_says_nothing_newer() -> None:
    mind = Mind(TOLD, decided(), UPDATED, changes=[BERLIN, [change("languages", "append", "Greek")], ROME])
    with open_with(mind, profile=Card) as memory:
        told(memory, "I live in Berlin", timestamp="2030-01-01")
        memory.update_profile({"level": 1, "name": "Anna", "born": "2000-01-01"}, user_id="u")
        fork = memory.fork("try", user_id="u")
        fork.update_profile({"level": 3, "name": None, "languages": ["Thai"], "pets": [{"name": "Tom"}]})
        fork.add("I speak Greek", timestamp="2040-01-01")
        assert fork.profile().value.languages == ["Thai", "Greek"]
        memory.update_profile({"pets": [{"name": "Rex"}], "level": 2, "born": "2001-01-01"}, user_id="u")
        memory.update_profile({"level": 1}, user_id="u")
        before = memory.profile(user_id="u")
        done = fork.merge()
        after = memory.profile(user_id="u")
        assert after.value == Card(
            city="Berlin", born=date(2001, 1, 1), level=3, languages=["Thai", "Greek"], pets=[Pet(name="Rex")]
        )
        # What a fact of the fork said cites it where it is now.
        assert [memory.get(one)["memory"] for one in after.fields["languages"]["facts"]] == ["Anna speaks Greek"]
        [conflict] = done["conflicts"]
        assert (conflict["id"], conflict["added"]) == (after.id, None)
        assert ("Rex" in str(conflict["memory"]), "Tom" in str(conflict["fork"])) == (True, True)
        # What is told later changes it, as it does what was set by hand here.
        memory.undo(batch_id=done["batch_id"], user_id="u")
        assert memory.profile(user_id="u").fields == before.fields
        told(memory, "I moved to Rome", timestamp="2041-01-01")
        assert city(memory) == "Rome"
        assert check(memory._journal) == []


def test_a_merge_makes_a_profile_of_what_was_set_by_hand_in_a_fork_alone() -> None:
    with open_memory(":memory:", profile=Card) as memory:
        told(memory, "I live in Berlin", agent_id="a")
        fork = memory.fork("try", user_id="u", agent_id="a")
        fork.update_profile({"city": "Rome"})
        assert memory.profile(user_id="u").fields == {}
        done = fork.merge()
        assert [(row["event"], row["memory"]) for row in done["results"]] == [("ADD", '{"city":"Rome"}')]
        assert city(memory) == "Rome"
        memory.undo(batch_id=done["batch_id"], user_id="u", agent_id="a")
        assert memory.profile(user_id="u").fields == {}


async def test_plain_and_awaited_the_journal_is_the_same(tmp_path: Path) -> None:
    dumps = []
    for way in ("plain", "awaited"):
        changes: Any = [TimeoutError("down"), [*BERLIN, change("languages", "append", "Greek", 2)], ROME]
        with open_with(Mind(TOLD, ADDED, UPDATED, changes=changes), tmp_path / way, profile=Card) as memory:
            for said in ("I live in Berlin", "I speak Greek", "I moved to Rome"):
                await call(way, memory, "add", said, user_id="u")
            await call(way, memory, "update_profile", {"level": 2}, user_id="u")
            assert (await call(way, memory, "profile", user_id="u")).value.level == 2
        found = dump(tmp_path / way)
        dumps.append({table: rows for table, rows in found.items() if table != "meta"})
    assert dumps[0] == dumps[1]


def test_many_facts_are_shown_a_page_at_a_time_and_committed_at_once() -> None:
    told_all = {f"fact {k}": [found(f"Anna has thing {k}")] for k in range(70)}
    mind = Mind(told_all, changes=[BERLIN, [change("level", "set", "2", 3)]])
    with open_with(mind, profile=Card, reconcile="off") as memory:
        told(memory, *told_all)
        assert mind.asked.count("profile") == 2
        assert [shown.count('"fact":') for shown in mind.shown if "<fields>" in shown] == [60, 10]
        assert memory.profile(user_id="u").value == Card(city="Berlin", level=2)
        assert len(memory.history(memory.profile(user_id="u").id)) == 1


# -- surfaces ----------------------------------------------------------------------------------------------------------


async def test_agents_are_shown_the_profile_before_the_memories(way: str) -> None:
    mind = Mind(TOLD, changes=[[*BERLIN, change("pets", "append", '{"name": "Tom"}')]])
    with open_with(mind, profile=Card) as memory, open_with(Mind(TOLD)) as other:
        for one in (memory, other):
            told(one, "I live in Berlin")
        state, asked = {"messages": [HumanMessage("Berlin?", id="m")]}, {"query": "Berlin"}
        config: Any = {"configurable": {"user_id": "u"}}
        run = memory.as_middleware(scope={"user_id": "u"}, tools=True)
        node, search = recall_node(memory, kinds=["fact"]), memory.as_tools(user_id="u")[1]
        states = await call(way, node, "invoke", state, config), await call(way, run, "before_agent", state, Runtime())
        for block in (*(one["memory_context"] for one in states), await call(way, search, "invoke", asked)):
            lines = block.splitlines()
            at = lines.index("- city: Berlin")
            assert lines[at + 1] == '- pets: {"name":"Tom","kind":"cat"}'
            assert "Anna lives in Berlin" in lines[at + 2]
        assert "- city: Berlin" not in search.invoke({**asked, "offset": 1})
        assert "- city" not in recall_node(other).invoke(state, config)["memory_context"]


def test_a_profile_that_fails_leaves_the_block_without_it(caplog: pytest.LogCaptureFixture) -> None:
    with open_with(Mind(TOLD, changes=[BERLIN]), profile=Card) as memory:
        told(memory, "I live in Berlin")
        memory.profile = lambda **_: 1 / 0
        state = {"messages": [{"role": "user", "content": "Berlin?", "id": "m"}]}
        block = recall_node(memory).invoke(state, {"configurable": {"user_id": "u"}})["memory_context"]
        assert ("Anna lives in Berlin" in block, "- city" in block) == (True, False)
        assert "ZeroDivisionError" in caplog.text


@pytest.mark.sqlite
def test_the_command_line_shows_and_sets_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cards.py").write_text("import pydantic\n\n\nclass Note(pydantic.BaseModel):\n    city: str = ''\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*given: str) -> Any:
        arguments = ["--path", str(tmp_path / "s"), "--user", "u", "--model", "none", "--embeddings", "none", *given]
        return CliRunner().invoke(app, arguments)

    assert run("add", "I live in Berlin").exit_code == 0
    assert "Nothing is known" in run("profile").stdout
    assert "open the memory with profile=" in run("profile", "--set", '{"city": "Rome"}').stderr
    assert "by hand" in run("profile", "--profile", "cards:Note", "--set", '{"city": "Rome"}').stdout
    shown = json.loads(run("profile", "--profile", "cards:Note", "--json").stdout)
    assert (shown["value"], shown["fields"]["city"]["value"]) == ({"city": "Rome"}, "Rome")
    assert "Rome" in run("profile", "--history").stdout
    assert run("profile", "--profile", "cards:Nothing").exit_code == 2
    (tmp_path / "card.json").write_text(json.dumps({"properties": {"city": {"type": "string"}}}), encoding="utf-8-sig")
    assert json.loads(run("profile", "--profile", "card.json", "--json").stdout)["value"] == {"city": "Rome"}
    for name, text in (("none.json", None), ("list.json", "[]"), ("half.json", "{")):
        if text is not None:
            (tmp_path / name).write_text(text)
        assert f"The profile '{name}' " in run("profile", "--profile", name).stderr


def test_a_configuration_names_the_schema(tmp_path: Path) -> None:
    embedder = {"provider": "langchain", "config": {"model": DeterministicEmbeddings(8)}}
    config = {"embedder": embedder, "path": str(tmp_path)}
    with Memory.from_config({**config, "profile": f"{__name__}:Card"}, model=None) as memory:
        assert memory.update_profile({"city": "Rome"}, user_id="u").value.city == "Rome"
    with Memory(tmp_path, config=MemoryConfig(embedder=embedder, profile=Card), model=None) as memory:
        assert city(memory) == "Rome"
    with pytest.raises(ConfigurationError, match="cannot be imported"):
        Memory.from_config({**config, "profile": "no.module:Card"}, model=None)


SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Customer",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "city": {"type": "string", "description": "where the user lives"},
        "seats": {"type": ["integer", "null"], "default": None},
        "rate": {"type": "number", "default": 1},
        "plan": {"enum": ["free", "team", 7, None]},
        "paid": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None, "title": "Paid"},
        "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        "days": {"type": "array", "items": {"enum": ["sat", "sun"]}},
    },
}


def test_a_json_schema_is_a_profile_too(tmp_path: Path) -> None:
    mind = Mind(TOLD, changes=[[*BERLIN, change("tags", "append", "new")]])
    config = {"llm": {"provider": "langchain", "config": {"model": mind.model}}, "path": str(tmp_path)}
    with Memory.from_config({**config, "profile": SCHEMA}, embeddings=None) as memory:
        told(memory, "I live in Berlin")
        memory.update_profile({"seats": 3, "plan": "team", "days": ["sat"]}, user_id="u")
        assert memory.profile(user_id="u").plain()["value"] == {
            "city": "Berlin", "seats": 3, "rate": 1.0, "plan": "team", "paid": None, "tags": ["new"], "days": ["sat"]
        }  # fmt: skip
        for wrong in ({"plan": "gold"}, {"seats": "many"}, {"days": ["mon"]}, {"paid": "perhaps"}):
            with pytest.raises(InvalidInput, match="cannot be set"):
                memory.update_profile(wrong, user_id="u")
        schema = memory.profile_schema
    # What pydantic writes of it is read as the same.
    with open_memory(":memory:", profile=schema.model_json_schema()) as memory:
        assert memory.profile_schema is not None
        assert memory.profile_schema.model_json_schema() == schema.model_json_schema()
    needed = {"required": ["city"], "properties": {"city": {"type": "string"}}}
    with open_memory(":memory:", profile=needed) as memory:
        memory.update_profile({"city": "Rome"}, user_id="u")
        assert memory.profile(user_id="u").value.city == "Rome"
        memory.update_profile({"city": None}, user_id="u")
        assert memory.profile(user_id="u").value is None


# Of one field "a" what it is, and else the whole schema.
BAD_SCHEMAS: list[tuple[Any, dict[str, Any], str]] = [
    (None, {}, "has no fields"), ({"type": "string"}, {"allOf": []}, "'allOf' at its top"),
    ({"type": "string"}, {"required": ["b"]}, "'required'"), ({"type": "string"}, {"required": [{}]}, "'required'"),
    (None, {"properties": {"a\ud800": {"type": "string"}}}, "is no JSON"),
    ({"type": "number", "default": float("nan")}, {}, "is no JSON"),
    (None, {"properties": {"copy": {"type": "string"}}}, "'copy', which is no name"),
    (None, {"properties": {"_a": {"type": "string"}}}, "'_a', which is no name"),
    ({"type": "object"}, {}, "does not say what field 'a' is"), ({}, {}, "does not say what field 'a' is"),
    ("string", {}, "no object as field 'a'"),
    ({"type": ["string", "integer"]}, {}, "does not say what field 'a' is"),
    ({"type": "integer", "minimum": 1}, {}, "'minimum' in field 'a'"), ({"$ref": "#/x"}, {}, "'\\$ref' in field 'a'"),
    ({"type": "array"}, {}, "no object as the items of field 'a'"),
    ({"type": "array", "items": {"type": "array", "items": {"type": "string"}}}, {}, "lists, null"),
    ({"enum": []}, {}, "enum of something else"), ({"enum": [1.5]}, {}, "enum of something else"),
    ({"type": "string", "enum": ["x", 1]}, {}, "another type than it says"),
    ({"type": "integer", "default": "x"}, {}, "a default of field 'a' that"),
    ({"type": "string", "description": 7}, {}, "no text as the description of field 'a'"),
]  # fmt: skip


def test_a_json_schema_that_says_more_than_a_form_needs_is_refused_with_what_is_allowed() -> None:
    for field, more, match in BAD_SCHEMAS:
        wrong = ({} if field is None else {"properties": {"a": field}}) | more
        with pytest.raises(ConfigurationError, match=match) as told:
            Memory(":memory:", model=None, embeddings=None, profile=wrong)
        assert "a field has a type (string, integer, number, boolean, or array" in str(told.value)
