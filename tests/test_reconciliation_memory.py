"""Extraction by a script, reconciliation by a scripted chat model, and everything between them and the journal."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journal_dump import open_memory, query, texts
from langchain_core.messages import BaseMessage
from memory_kit import Extracting, Mind, decided, found, live, message, open_with

from langchain_memlayer import Memory
from langchain_memlayer.engine import scoring_pool
from langchain_memlayer.facts.reconciliation import RuleReconciler
from langchain_memlayer.graph.memory_graph import TripleGraph
from langchain_memlayer.index.keywords import packed
from langchain_memlayer.moving import export_store, import_store
from langchain_memlayer.testing import DeterministicEmbeddings, ScriptedChatModel, SequentialIds
from langchain_memlayer.types import QUARANTINE, RETRACT, Candidate, Decision, Fact, Triple

Reply = dict[str, Any]


def knowing(*facts: Fact) -> Extracting:
    """An extractor that knows what is in each turn."""
    return Extracting(lambda turns: (fact for turn in turns for fact in facts if fact.quote == turn.text))


def fact(text: str, *triples: tuple[str, str, str], said: str | None = None, **metadata: Any) -> Fact:
    return Fact(text, (0,), quote=said or text, triples=tuple(Triple(*t) for t in triples), metadata=metadata)


def shown(prompt: list[BaseMessage], block: str) -> list[str]:
    inside = str(prompt[-1].content).split(f"<{block}>\n")[1].split(f"\n</{block}>")[0]
    return [json.loads(line)["text"] for line in inside.splitlines()]


PARIS = fact("Anna lives in Paris", ("Anna", "lives in", "Paris"), said="I live in Paris")
BERLIN = fact("Anna moved to Berlin", ("Anna", "lives in", "Berlin"), said="I moved to Berlin")
LEFT = fact("Anna no longer lives in Berlin", said="I don't live in Berlin any more")
TEA = fact("Anna likes tea", said="I like tea")
STORY = knowing(PARIS, BERLIN, LEFT, TEA)


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[..., Memory]]:
    """Opens memories on one folder and closes them at the end."""
    memories: list[Memory] = []
    new_id = SequentialIds()

    def open_one(
        *replies: Any, extractor: Extracting = STORY, structured: tuple[str, ...] = (), **settings: Any
    ) -> Memory:
        given = replies[0] if len(replies) == 1 and callable(replies[0]) else replies
        model = ScriptedChatModel(replies=given, structured=structured)
        memories.append(open_memory(folder, model=model, extractor=extractor, new_id=new_id, **settings))
        return memories[-1]

    yield open_one
    for memory in memories:
        memory.close()


def model_of(memory: Memory) -> ScriptedChatModel:
    assert isinstance(memory.model, ScriptedChatModel)
    return memory.model


# -- a life -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embeddings", [DeterministicEmbeddings(), None], ids=["vectors", "keywords"])
def test_a_move_and_its_end_leave_one_live_fact_then_none(opened: Any, folder: Path, embeddings: Any) -> None:
    memory = opened(decided((1, "UPDATE", 1, "Anna lives in Berlin")), decided((1, "DELETE", 1)), embeddings=embeddings)
    [first] = memory.add("I live in Paris", user_id="u")["results"]
    assert (first["event"], live(memory), model_of(memory).calls) == ("ADD", ["Anna lives in Paris"], 0)
    moved = memory.add("I moved to Berlin", user_id="u")
    assert moved["results"] == [
        {
            "id": first["id"], "memory": "Anna lives in Berlin", "event": "UPDATE",
            "previous_memory": "Anna lives in Paris",
        }
    ]  # fmt: skip
    assert moved["relations"] == {
        "added_entities": [{"source": "Anna", "relationship": "lives_in", "destination": "Berlin"}],
        "deleted_entities": [{"source": "Anna", "relationship": "lives_in", "destination": "Paris"}],
    }
    assert (live(memory), model_of(memory).calls) == (["Anna lives in Berlin"], 1)
    presented = memory.search("Where does Anna live? Paris?", user_id="u")["results"]
    assert [(hit["memory"], hit["ended"]) for hit in presented] == [("Anna lives in Berlin", False)]
    left = memory.add("I don't live in Berlin any more", user_id="u")
    assert [(done["id"], done["event"]) for done in left["results"]] == [(first["id"], "DELETE")]
    assert (live(memory), model_of(memory).calls) == ([], 2)
    current = [hit["memory"] for hit in memory.search("Anna Berlin Paris", user_id="u")["results"] if not hit["ended"]]
    assert current == ["I don't live in Berlin any more"]
    assert [(row["event"], row["prev_value"], row["new_value"]) for row in memory.history(first["id"])] == [
        ("ADD", None, "Anna lives in Paris"),
        ("UPDATE", "Anna lives in Paris", "Anna lives in Berlin"),
        ("DELETE", "Anna lives in Berlin", None),
    ]
    sql = "SELECT t.destination, i.closed IS NULL FROM triples t JOIN items i ON i.id = t.item ORDER BY t.id"
    triples = query(folder, sql)
    assert triples == [("Paris", 0), ("Berlin", 0)]


def test_the_same_told_twice_is_one_memory_and_what_the_model_says_is_the_same_too(opened: Any) -> None:
    twice = fact("anna  likes TEA", said="I told you: I like tea")
    again = fact("Anna enjoys tea", said="Tea, as always")
    memory = opened(decided((1, "NONE", 1)), extractor=knowing(TEA, twice, again))
    for count, said in enumerate(("I like tea", "I told you: I like tea", "Tea, as always"), 1):
        [done] = memory.add(said, user_id="u", session_id=said)["results"]
        [found] = memory.get_all(user_id="u", kinds=["fact"])["results"]
        assert (done["event"], done["memory"]) == ("ADD" if count == 1 else "NONE", "Anna likes tea")
        assert (found["memory"], found["count"], len(found["sources"])) == ("Anna likes tea", count, count)
        assert model_of(memory).calls == int(count == 3)


def test_forget_that_i_ends_the_memory_and_is_not_stored(opened: Any) -> None:
    forget = fact("Anna likes tea", said="Forget that I like tea", **{RETRACT: True})
    memory = opened(extractor=knowing(TEA, forget))
    first = memory.add("Forget that I like tea", user_id="u")
    assert (first["results"], live(memory)) == ([], [])
    assert [refusal["memory"] for refusal in first["rejected"]] == ["Anna likes tea"]
    memory.add("I like tea", user_id="u")
    [done] = memory.add("Forget that I like tea", user_id="u", session_id="later")["results"]
    assert (done["event"], live(memory), model_of(memory).calls) == ("DELETE", [], 0)
    # What was asked, in vain or not, says it too.
    assert memory.search("tea", user_id="u")["results"] == []


def test_what_one_call_tells_may_be_taken_back_in_it(folder: Path) -> None:
    gone = found("Anna lives in Paris", retract=True)
    mind = Mind({"I live in Paris": [found("Anna lives in Paris")], "Forget Paris": [gone]})
    with open_with(mind, folder) as memory:
        done = memory.add([message("I live in Paris", "m1"), message("Forget Paris", "m2")], user_id="u")["results"]
        assert [(row["id"], row["event"]) for row in done] == [(done[0]["id"], "ADD"), (done[0]["id"], "DELETE")]
        assert (live(memory), memory.search("Paris", user_id="u")["results"]) == ([], [])


@pytest.mark.parametrize(("action", "text"), [("UPDATE", "Anna moved to Berlin"), ("NONE", "Anna lives in Paris")])
def test_what_one_call_tells_may_change_what_it_told_before(
    opened: Any, monkeypatch: pytest.MonkeyPatch, action: Any, text: str
) -> None:
    memory = opened(reconcile="rules", extractor=knowing(PARIS, replace(BERLIN, quote=PARIS.quote)))
    said = [Decision("ADD", 0), Decision(action, 1, text=text, earlier=(0,))]
    monkeypatch.setattr(RuleReconciler, "reconcile", lambda *given: said)
    [first, *_] = memory.add("I live in Paris", user_id="u")["results"]
    assert (live(memory), memory.get(first["id"])["count"]) == ([text], 2)


@pytest.mark.parametrize("action", ["ADD", "NONE", "MERGE"])
def test_what_is_to_be_forgotten_is_never_stored_whatever_a_reconciler_says(
    opened: Any, monkeypatch: pytest.MonkeyPatch, action: Any
) -> None:
    forget = fact("Anna likes tea", said="Forget that I like tea", **{RETRACT: True})
    memory = opened(reconcile="rules", extractor=knowing(TEA, PARIS, forget))
    [paris] = memory.add("I live in Paris", user_id="u")["results"]
    said = [Decision(action, 0, memory_id=paris["id"])]
    monkeypatch.setattr(RuleReconciler, "reconcile", lambda *given: said)
    done = memory.add("Forget that I like tea", user_id="u")
    assert [refusal["reason"] for refusal in done["rejected"]] == ["there is nothing to forget"]
    assert live(memory) == ["Anna lives in Paris"]


@pytest.mark.parametrize(
    ("action", "given", "reason"),
    [
        ("MERGE", {}, "no such action"),
        ("UPDATE", {QUARANTINE: True}, "tool output"),
        ("DELETE", {QUARANTINE: True}, "tool output"),
    ],
)
def test_a_decision_that_may_not_be_carried_out_adds_the_fact(
    opened: Any, monkeypatch: pytest.MonkeyPatch, action: Any, given: dict[str, Any], reason: str
) -> None:
    memory = opened(
        reconcile="rules", extractor=knowing(PARIS, fact("Anna lives in Rome", said="I live in Rome", **given))
    )
    [paris] = memory.add("I live in Paris", user_id="u")["results"]
    said = [Decision(action, 0, memory_id=paris["id"], text="Anna lives in Rome")]
    monkeypatch.setattr(RuleReconciler, "reconcile", lambda *given: said)
    [done] = memory.add("I live in Rome", user_id="u")["results"]
    assert (done["event"], memory.get(paris["id"])["memory"]) == ("ADD", "Anna lives in Paris")
    assert reason in memory.why(done["id"])["decisions"][0]["instead"]


def test_a_request_to_forget_stays_when_it_says_something_else_too(opened: Any) -> None:
    said = "Forget that I like tea, I live in Paris"
    memory = opened(
        reconcile="rules",
        extractor=knowing(
            TEA, fact("Anna likes tea", said=said, **{RETRACT: True}), fact("Anna lives in Paris", said=said)
        ),
    )
    memory.add("I like tea", user_id="u")
    done = memory.add(said, user_id="u")["results"]
    assert [entry["event"] for entry in done] == ["DELETE", "ADD"]
    assert texts(memory.search("tea", user_id="u", kinds=["turn"])) == [said]


def test_forgetting_a_part_leaves_the_rest_and_not_the_triple(opened: Any, folder: Path) -> None:
    forget = fact("Anna eats meat", ("Anna", "eats", "meat"), said="Forget the meat", **{RETRACT: True})
    triples = ("Anna", "eats", "meat"), ("Anna", "eats", "fish")
    both = fact("Anna eats meat and fish", *triples, said="I eat meat and fish")
    memory = opened(decided((1, "UPDATE", 1, "Anna eats fish")), extractor=knowing(both, forget))
    memory.add("I eat meat and fish", user_id="u")
    memory.add("Forget the meat", user_id="u")
    [found] = memory.get_all(user_id="u", kinds=["fact"])["results"]
    assert found["memory"] == "Anna eats fish"
    assert RETRACT not in found["metadata"]
    assert not query(folder, "SELECT 1 FROM triples t JOIN items i ON i.id = t.item WHERE i.closed IS NULL")


@pytest.mark.parametrize(("mode", "left"), [("rules", 2), ("off", 2)])
def test_without_the_model_only_equal_texts_are_one(opened: Any, mode: Any, left: int) -> None:
    memory = opened(reconcile=mode)
    for k, said in enumerate(("I live in Paris", "I moved to Berlin", "I live in Paris")):
        memory.add(said, user_id="u", session_id=str(k))
    assert (len(live(memory)), model_of(memory).calls) == (left, 0)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("filters", [None, {"town": True}], ids=["all", "filtered"])
def test_what_has_ended_takes_no_place(opened: Any, monkeypatch: pytest.MonkeyPatch, whole: bool, filters: Any) -> None:
    if not whole:
        monkeypatch.setattr(scoring_pool, "WHOLE_SCOPE", 20)
        monkeypatch.setattr(scoring_pool, "CANDIDATES", 30)
    towns = [f"Town{number}" for number in range(28)]
    moves = knowing(*(fact(f"Anna lives in {town}", said=f"I live in {town}", town=True) for town in towns))
    memory = opened(lambda asked: decided((1, "UPDATE", 1, shown(asked, "facts")[0])), extractor=moves)
    for place, town in enumerate(towns):
        memory.add(f"I live in {town}", user_id="u", session_id=f"s{place}", metadata={"town": True})
        memory.add(f"Live music in {town}", user_id="u", infer=False, metadata={"town": True})
    hits = memory.search("Where do I live, in which town?", user_id="u", limit=10, filters=filters)["results"]
    assert [hit["memory"] for hit in hits if hit["kind"] == "fact"] == [f"Anna lives in {towns[-1]}"]
    assert len(hits) == 10
    assert len(memory.search(f"I live in {towns[3]}", user_id="u", limit=10, filters=filters)["results"]) == 10


def test_an_old_conversation_that_is_imported_later_changes_nothing(opened: Any) -> None:
    memory = opened(decided((1, "UPDATE", 1, "Anna lives in Berlin")), decided((1, "UPDATE", 1, "Anna lives in Rome")),
                    extractor=knowing(PARIS, BERLIN, fact("Anna lives in Rome", said="I live in Rome")))  # fmt: skip
    memory.add("I live in Paris", user_id="u", timestamp=datetime(2019, 1, 1, tzinfo=UTC))
    memory.add("I moved to Berlin", user_id="u", timestamp=datetime(2024, 1, 1, tzinfo=UTC))
    done = memory.add("I live in Rome", user_id="u", timestamp=datetime(2021, 1, 1, tzinfo=UTC))
    assert "rejected" not in done
    assert live(memory) == ["Anna lives in Berlin"]
    [rome] = [row["id"] for row in done["results"] if row["event"] == "ADD" and row["memory"] == "Anna lives in Rome"]
    assert [event["event"] for event in memory.history(rome)] == ["ADD", "DELETE"]
    as_of = [datetime(year, 6, 1, tzinfo=UTC) for year in (2021, 2025)]
    held = [texts(memory.search("Anna lives", user_id="u", kinds=["fact"], as_of=moment)) for moment in as_of]
    # What Berlin has taken the place of takes none among the hits.
    two = memory.search("I live in Paris", user_id="u", limit=2)["results"]
    assert [(hit["memory"], hit["ended"]) for hit in two] == [("Anna lives in Berlin", False), ("I live in Rome", True)]
    assert ["Anna lives in Rome" in found for found in held] == [True, False]
    assert '"date": "2024-01-01", "since": "2024-01-01", "text": "Anna lives in Berlin"' in str(
        model_of(memory).prompts[1][-1].content
    )
    assert '"date": "2021-01-01", "text": "Anna lives in Rome"' in str(model_of(memory).prompts[1][-1].content)


def test_what_an_older_conversation_repeats_in_other_marks_does_not_end(opened: Any) -> None:
    old = fact("Anna lives in Paris.", said="Paris is home")

    def older(prompt: list[BaseMessage]) -> Reply:
        known = shown(prompt, "memories")
        return decided((1, "UPDATE", known.index("Anna moved to Berlin") + 1, "Anna lives in Paris."))

    memory = opened(
        lambda prompt: older(prompt) if "2023" in str(prompt[-1].content) else decided((1, "ADD")),
        extractor=knowing(BERLIN, PARIS, old),
    )
    for said, year in (("I moved to Berlin", 2024), ("I live in Paris", 2025), ("Paris is home", 2023)):
        memory.add({"role": "user", "content": said, "timestamp": f"{year}-05-01"}, user_id="u")
    assert live(memory) == ["Anna moved to Berlin", "Anna lives in Paris"]


def test_of_two_scopes_neither_changes_the_other(opened: Any) -> None:
    memory = opened()
    for scope in ({"user_id": "u"}, {"user_id": "v"}, {"user_id": "u", "agent_id": "a"}, {"run_id": "u"}):
        memory.add("I live in Paris", **scope)
        memory.add("I like tea", **scope)
    assert model_of(memory).calls == 0
    assert len(memory.get_all(everything=True, kinds=["fact"])["results"]) == 8


# -- what is near -----------------------------------------------------------------------------------------------------


def test_a_contradiction_outside_the_nearest_five_is_found_by_entity_and_relation(opened: Any) -> None:
    home = fact("Frau Schmidt hat ihre Wohnung an der Seine", ("Anna Schmidt", "lives in", "Paris"), said="home")
    near = [fact(f"Yesterday our colleague relocated to Berlin, floor {k}", said="crowd") for k in range(30)]
    moved = fact("Yesterday our colleague relocated to Berlin", ("anna schmidt", "LIVES_IN", "Berlin"), said="moved")
    memory = opened(lambda _: decided(), extractor=knowing(home, *near, moved))
    for said in ("home", "crowd", "moved"):
        memory.add(said, user_id="u")
    known = shown(model_of(memory).prompts[-1], "memories")
    assert known[0] == home.text
    assert 6 <= len(known) <= 40


def test_what_relates_the_same_two_is_found_whatever_the_relation(opened: Any) -> None:
    job = fact("Sie ist bei ACME angestellt", ("Anna", "works at", "Acme"), said="job")
    quit_ = fact("Anna quit", ("Anna", "left", "ACME"), said="quit")
    memory = opened(decided((1, "ADD")), extractor=knowing(job, quit_), embeddings=None)
    memory.add("job", user_id="u")
    memory.add("quit", user_id="u")
    assert shown(model_of(memory).prompts[0], "memories") == [job.text]


@pytest.mark.parametrize(
    ("known", "told"),
    [("用户2026-12-02看牙医", "用户的牙医改到下午三点"),
     ("User sees the dentist", "User found another dentist near Ostkreuz, friendly, modern, bright, open late")],
)  # fmt: skip
def test_the_rare_words_of_what_is_told_now_do_not_hide_what_it_shares_with_a_fact(known: str, told: str) -> None:
    mind = Mind({known: [found(known)], told: [found(told)]}, decided((1, "UPDATE", 1, told)))
    with open_with(mind, embeddings=None) as memory:
        memory.add(known, user_id="u")
        assert [row["event"] for row in memory.add(told, user_id="u")["results"]] == ["UPDATE"]


def test_among_thousands_of_edges_the_oldest_is_found() -> None:
    graph = TripleGraph()
    rows = [(1, 1, "m1", "User", "lives in", "Paris", None), (2, 2, "m2", "User", "works at", "Acme", None)]
    rows += [(k, k, f"m{k}", "User", "likes", f"thing {k}", None) for k in range(3, 3_000)]
    graph.apply(3_000, rows)
    assert graph.stating(Triple("user", "livesIn", "Berlin"), most=10) == [1]
    assert graph.stating(Triple("User", "quit", "ACME"), most=10) == [2]
    assert graph.stating(Triple("User", "likes", "thing 7"), most=10)[:2] == [7, 2_999]
    assert graph.stating(Triple("Nobody", "likes", "thing 7"), most=10) == []


@pytest.mark.parametrize("embeddings", [DeterministicEmbeddings(), None], ids=["vectors", "keywords"])
def test_when_nothing_is_near_the_model_is_not_asked(opened: Any, embeddings: Any) -> None:
    plants = fact("The balcony has nine tomato plants", said="plants")
    memory = opened(extractor=knowing(TEA, plants), embeddings=embeddings)
    for said in ("I like tea", "plants"):
        memory.add(said, user_id="u", timestamp=datetime(2024, 5, 13, tzinfo=UTC))
    assert (len(live(memory)), model_of(memory).calls) == (2, 0)


def test_a_reconciler_of_ones_own_is_asked_once_and_only_when_something_is_near(opened: Any) -> None:
    asked: list[tuple[int, list[str]]] = []

    class Own(RuleReconciler):
        def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
            asked.append((len(facts), [candidate.text for candidate in candidates]))
            return super().reconcile(facts, candidates)

    memory = opened(extractor=knowing(TEA, PARIS, fact("Anna likes tea with milk", said="milk")))
    memory._engine.reconciler = Own()
    memory.add("I like tea", user_id="u")
    memory.add(["I live in Paris", "milk"], user_id="u")
    assert asked == [(2, ["Anna likes tea"])]


def test_many_facts_are_one_call_and_each_has_its_nearest(opened: Any) -> None:
    old = [fact(f"Anna keeps {k} jars of honey{k}", said="old") for k in range(60)]
    new = [fact(f"Anna has no honey{k} left", said="new") for k in range(60)]
    memory = opened(lambda _: decided(), extractor=knowing(*old, *new))
    memory.add("old", user_id="u")
    memory.add("new", user_id="u")
    [prompt] = model_of(memory).prompts
    assert set(shown(prompt, "memories")) == {known.text for known in old}
    assert len(live(memory)) == 120


def test_a_fact_with_an_end_holds_until_then_but_not_where_that_hides_it(opened: Any) -> None:
    away = Fact("Anna is in Rome", (0,), quote="I am in Rome", valid_until=datetime(2024, 5, 21, tzinfo=UTC))
    # An end before it was told, or before it began.
    over = Fact("Anna's pass ran out", (0,), quote="It ran out", valid_until=datetime(2024, 3, 1, tzinfo=UTC))
    odd = Fact("Anna's visa ran out", (0,), quote="Odd", valid_at=datetime(2024, 7, 1, tzinfo=UTC),
               valid_until=datetime(2024, 6, 1, tzinfo=UTC))  # fmt: skip
    memory = opened(extractor=knowing(away, over, odd), reconcile="rules")
    for said in ("I am in Rome", "It ran out", "Odd"):
        memory.add(said, user_id="u", timestamp=datetime(2024, 5, 13, tzinfo=UTC))
    as_of = [datetime(2024, 5, day, tzinfo=UTC) for day in (1, 14, 25)]
    held = [texts(memory.search("Anna in Rome", user_id="u", kinds=["fact"], as_of=moment)) for moment in as_of]
    assert [away.text in found for found in held] == [False, True, False]
    assert {over.text, odd.text} <= set(live(memory))
    # What told it is not shown as current either.
    turns = memory.search("Anna in Rome? It ran out. Odd", user_id="u", kinds=["turn"])["results"]
    shown = {hit["memory"]: (hit["ended"], hit["invalid_at"]) for hit in turns}
    assert shown.pop("I am in Rome") == (True, "2024-05-21T00:00:00+00:00")
    assert set(shown.values()) == {(False, None)}


# -- replies that cannot be followed ----------------------------------------------------------------------------------


# -- lost races -------------------------------------------------------------------------------------------------------


def test_a_fact_that_another_call_told_meanwhile_is_not_doubled(opened: Any) -> None:
    other = opened(decided((1, "UPDATE", 1, "Anna moved to Berlin")))

    def overtaken(_: Any) -> Reply:
        other.add("I moved to Berlin", user_id="u", session_id="other")
        return decided((1, "UPDATE", 1, "Anna lives in Berlin"))

    memory = opened(overtaken)
    memory.add("I live in Paris", user_id="u")
    [done] = memory.add("I moved to Berlin", user_id="u")["results"]
    assert (done["event"], live(memory)) == ("NONE", ["Anna moved to Berlin"])
    assert model_of(memory).calls == 1


@pytest.mark.parametrize("races", [0, 1, 2, 5])
def test_each_lost_race_is_one_more_call_and_two_at_most(opened: Any, races: int) -> None:
    crowd = [fact(f"Anna has a sister called Number{k}", said=f"sister {k}") for k in range(9)]
    other = opened(extractor=knowing(*crowd), reconcile="off")
    told = iter(range(races))

    def overtaken(prompt: list[BaseMessage]) -> Reply:
        for k in told:
            other.add(f"sister {k}", user_id="u")
            break
        return decided(
            (1, "UPDATE", 1 + shown(prompt, "memories").index("Anna lives in Paris"), "Anna lives in Berlin")
        )

    memory = opened(overtaken)
    memory.add("I live in Paris", user_id="u")
    memory.add("I moved to Berlin", user_id="u")
    assert model_of(memory).calls == 1 + min(races, 2)
    assert live(memory).count("Anna lives in Berlin") == 1
    assert "Anna lives in Paris" not in live(memory)


def test_an_update_of_what_is_gone_at_the_last_moment_is_stored_as_it_was_told(opened: Any, folder: Path) -> None:
    other = opened(extractor=knowing(*(fact(f"Anna has a sister called Number{k}", said=f"s{k}") for k in range(2))))
    calls = iter(range(3))

    def overtaken(_: Any) -> Reply:
        if (call := next(calls)) < 2:
            other._engine.reconciler = None
            other.add(f"s{call}", user_id="u")
        else:
            other.delete(first["id"])
        return decided((1, "UPDATE", 1, "Anna lives in Berlin, and before that in Paris"))

    memory = opened(overtaken)
    [first] = memory.add("I live in Paris", user_id="u")["results"]
    [done] = memory.add("I moved to Berlin", user_id="u")["results"]
    [(terms,)] = query(folder, "SELECT terms FROM items WHERE key = ?", done["id"])
    assert (done["event"], done["memory"]) == ("ADD", "Anna moved to Berlin")
    assert terms == packed(["anna", "move", "to", "berlin"])


def test_two_threads_that_tell_the_same_at_once_do_not_double_it(opened: Any) -> None:
    both = threading.Barrier(2, timeout=30)
    first_calls = iter(range(2))

    def together(_: Any) -> Reply:
        if next(first_calls, None) is not None:
            both.wait()
        return decided((1, "UPDATE", 1, "Anna lives in Berlin"))

    memory = opened(together)
    memory.add("I live in Paris", user_id="u")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: memory.add("I moved to Berlin", user_id="u", session_id=name), "ab"))
    assert live(memory) == ["Anna lives in Berlin"]
    assert model_of(memory).calls == 3


def test_eight_threads_with_a_new_fact_each_and_one_that_all_tell(opened: Any) -> None:
    own = [fact(f"Anna has a cousin called Number{k}", said=f"cousin {k}") for k in range(8)]
    same = [Fact(TEA.text, (0,), quote=f"cousin {k}") for k in range(8)]
    memory = opened(lambda _: decided(*((k, "ADD") for k in range(1, 3))), extractor=knowing(*own, *same))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: memory.add(f"cousin {k}", user_id="u"), range(8)))
    assert sorted(live(memory)) == sorted([*(known.text for known in own), TEA.text])
    assert model_of(memory).calls <= 8 * 3


# -- turns that say what a fact said ----------------------------------------------------------------------------------

OUT = "the flight to Rome is on 17 May, AB12, at 14:05"
ECHO = "Noted: Rome, 17 May, flight AB12 at 14:05."
BACK = "no, that is the way back: home on 17 May, AB12, at 14:05"
LATER = "the flight home is at 16:40 now"
CONFIRMED = "Changed: the flight home on 17 May, AB12, is at 16:40, and not at 14:05."
HOME = "The user's flight home, AB12, is on 17 May at 14:05"


def flight(*decisions: Any, **last: Any) -> tuple[Memory, Mind]:
    told = {BACK: [found(HOME, corrects=[1])], LATER: [found("The user's flight home is at 16:40", **last)]}
    mind = Mind(told, *decisions)
    memory = open_with(mind)
    said = [message(OUT, "1"), message(ECHO, "2", "assistant"), message(BACK, "3"), message("Have fun!", "4", "ai")]
    memory.add(said, user_id="u", session_id="s")
    return memory, mind


def ended(memory: Memory, query: str = "flight home Rome AB12 14:05", **settings: Any) -> dict[str, bool]:
    hits = memory.search(query, user_id="u", limit=20, **settings)["results"]
    return {hit["memory"]: hit["ended"] for hit in hits}


def test_a_turn_that_was_corrected_at_once_ends_and_what_repeats_a_fact_beside_it_with_it() -> None:
    memory, _ = flight(decided((1, "UPDATE", 1, "The user's flight home, AB12, is on 17 May at 16:40")))
    with memory:
        shown = ended(memory)
        assert (shown[OUT], shown.get(ECHO), shown[HOME]) == (True, False, False)
        memory.add([message(LATER, "5"), message(CONFIRMED, "6", "assistant")], user_id="u", session_id="s")
        shown = ended(memory)
    assert [shown.get(text, True) for text in (OUT, ECHO, BACK)] == [True, True, True]
    # The answer to what changed it tells what holds now.
    assert shown[CONFIRMED] is False


def test_the_answers_about_what_is_to_be_forgotten_are_hidden_with_it() -> None:
    memory, _ = flight(decided((1, "DELETE", 1)), fact="The user's flight home is at 14:05", retract=True)
    with memory:
        memory.add([message(LATER, "5"), message(CONFIRMED, "6", "assistant")], user_id="u", session_id="s")
        assert [text for text in ended(memory) if "14:05" in text] == []


def test_a_turn_that_a_fact_cites_is_not_ended_by_a_correction() -> None:
    mind = Mind({OUT: [found("The user flies to Rome")], BACK: [found(HOME, corrects=[1, 2, 3, 9])]})
    with open_with(mind) as memory:
        memory.add([message(OUT, "1"), message(BACK, "2")], user_id="u")
        assert not any(ended(memory).values())


def test_the_answer_to_a_proposal_ends_with_it_but_not_one_that_told_something_else() -> None:
    offer, moved = "Shall I set the budget review for Sundays at 19:00?", "Mondays suit me better"
    told = {offer: [found("The budget review is on Sundays")], moved: [found("The budget review is on Mondays")]}
    change = decided((1, "UPDATE", 1, "The budget review is on Mondays"))
    answers = [("that works", False), ("fine, my cat Tom naps then", True), ("fine, at 18:30 then", False),
               ("fine for my sister", False)]  # fmt: skip
    for answer, gave in answers:
        known = {**told, answer: [found("Anna's cat is Tom", quote="my cat Tom")]} if gave else told
        with open_with(Mind(known, change)) as memory:
            said = [message(offer, "1", "assistant"), message(answer, "2"), message("Noted!", "3", "assistant")]
            said.insert(0, message("Sundays", "0"))
            memory.add(said, user_id="u", session_id="s")
            memory.add([message(moved, "4")], user_id="u", session_id="s")
            shown = ended(memory, "budget review Sundays works Tom naps noted", kinds=["turn"])
        over = answer == "that works"
        assert (shown[offer], shown["Sundays"], shown[answer], shown["Noted!"]) == (True, True, over, False)


def test_the_answer_to_a_proposal_ends_with_a_fact_that_cites_what_was_said_after_it() -> None:
    offer, answer = "How about a budget review on Sundays at 19:00?", "sunday yes, wednesday no thanks"
    done, moved = "Done: a budget review on Sundays at 19:00.", "Mondays suit me better"
    told = {
        done: [found("The budget review is on Sundays at 19:00")],
        moved: [found("The budget review is on Mondays")],
    }
    with open_with(Mind(told, decided((1, "UPDATE", 1, "The budget review is on Mondays")))) as memory:
        said = [message(offer, "1", "assistant"), message(answer, "2"), message(done, "3", "assistant")]
        memory.add([*said, message("I have a cat", "4")], user_id="u", session_id="s")
        memory.add([message(moved, "5")], user_id="u", session_id="s")
        shown = ended(memory, "budget review sunday wednesday cat", kinds=["turn"])
    assert [shown[text] for text in (offer, answer, done, "I have a cat")] == [True, True, True, False]


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_the_user_told_beside_what_ended_holds_though_no_fact_says_it(forgotten: bool) -> None:
    stated, own, sister = (
        "Your flight to Rome leaves at 9.", "My passport number is X123.", "My sister flies to Rome too",
    )  # fmt: skip
    late, agreed = "It leaves at 11", "that works"
    told = {stated: [found("Anna's flight to Rome leaves at 9")], late: [found("Anna's flight to Rome leaves at 11")]}
    for answer, over in ((own, False), ("I am allergic to nuts", False), (agreed, True)):
        with open_with(Mind(told, decided((1, "UPDATE", 1, "Anna's flight to Rome leaves at 11")))) as memory:
            said = [message(stated, "1", "assistant"), message(answer, "2"), message(sister, "3")]
            flight_home = memory.add(said, user_id="u", session_id="s")["results"][0]["id"]
            if forgotten:
                memory.delete(flight_home)
            else:
                memory.add([message(late, "4")], user_id="u", session_id="s")
            shown = ended(memory, f"{answer} sister flies to Rome", kinds=["turn"])
        assert (shown.get(answer, True), shown.get(sister, True)) == (over, False)


@pytest.mark.parametrize("session", ["s", None])
@pytest.mark.parametrize("how", ["told", "deleted", "undone", "edited", "deleted with its message", "forgotten"])
def test_what_the_assistant_only_repeats_ends_with_it(how: str, session: str | None) -> None:
    guide = "Paris has forty bridges, three opera houses and a garden of medlar trees behind the town hall."
    told = {"I live in Paris": [found("Anna lives in Paris")], "I live in Rome": [found("Anna lives in Rome")]}
    for reply, over in (("Got it, Paris! How can I help?", True), (guide, False), ("Nice to meet you", False)):
        with open_with(Mind(told, decided((1, "UPDATE", 1, "Anna lives in Rome")))) as memory:
            said = [message("I live in Paris", "1"), message(reply, "2", "ai")]
            [home] = memory.add(said, user_id="u", session_id=session)["results"]
            there = memory.why(home["id"])["sources"][0]["memory_id"]
            if how == "told":
                memory.add([message("I live in Rome", "3")], user_id="u", session_id=session)
            elif how == "edited":
                memory.add([message("I live in Rome", "1")], user_id="u", session_id=session)
            elif how == "forgotten":
                also = memory.forget(home["id"])["also"]
                assert [one["memory"] for one in also] == [reply] * over
            elif how.startswith("deleted"):
                memory.delete(home["id"] if how == "deleted" else there)
            else:
                memory.undo(memory.history(home["id"])[-1]["id"])
            assert ended(memory, f"{reply} live", kinds=["turn"]).get(reply, True) is over
            listed = {row["memory"]: row["ended"] for row in memory.get_all(user_id="u", kinds=["turn"])["results"]}
            assert (listed[reply], listed.get("I live in Paris", True)) == (over, True)


def test_what_is_forgotten_of_an_edited_message_brings_back_none_of_its_old_words() -> None:
    old, new = "I live in Paris and play the cello", "I live in Rome. Nice here"
    told = {
        old: [
            found("Anna lives in Paris", quote="I live in Paris"),
            found("Anna plays the cello", quote="play the cello"),
        ],
        new: [found("Anna lives in Rome", quote="I live in Rome")],
    }
    with open_with(Mind(told, decided((1, "UPDATE", 1, "Anna lives in Rome")))) as memory:
        for text in (old, new):
            memory.add([message(text, "1")], user_id="u", session_id="s")
        [home] = memory.get_all(user_id="u", kinds=["fact"])["results"]
        memory.forget(home["id"])
        assert list(ended(memory, "Paris Rome cello nice", kinds=["turn", "fact"])) == ["Nice here"]


@pytest.mark.parametrize(
    ("said", "told", "reply"),
    [
        ("Ich wohne in Paris", "Nutzer wohnt in Paris", "Gut, ich merke mir, dass du in Paris wohnst."),
        ("パリに住んでいます", "ユーザーはパリに住んでいる", "わかりました、パリですね！"),
        ("मैं पेरिस में रहता हूँ", "उपयोगकर्ता पेरिस में रहता है", "नोट किया: आप पेरिस में रहते हैं।"),
    ],
)
def test_a_reply_says_little_but_the_fact_in_any_language(said: str, told: str, reply: str) -> None:
    with open_with(Mind({said: [found(told)]})) as memory:
        [home] = memory.add([message(said, "1"), message(reply, "2", "assistant")], user_id="u")["results"]
        memory.delete(home["id"])
        assert ended(memory, reply) == {}


@pytest.mark.parametrize("how", ["deleted", "edited"])
def test_a_reply_that_repeats_all_of_a_message_ends_with_any_of_it(how: str) -> None:
    said, reply = "I live in Paris, am a carpenter and play the cello", "Noted with pleasure: Paris, carpenter, cello!"
    told = {said: [found("Anna lives in Paris"), found("Anna is a carpenter"), found("Anna plays the cello")]}
    with open_with(Mind(told)) as memory:
        conversation = [message(said, "1"), message(reply, "2", "assistant")]
        fact = memory.add(conversation, user_id="u", session_id="s")["results"][0]["id"]
        if how == "deleted":
            memory.delete(fact)
        else:
            memory.add(message("Never mind", "1"), user_id="u", session_id="s")
        assert reply not in ended(memory, "Paris", kinds=["turn"])


def test_the_reply_to_what_was_said_a_second_time_ends_with_it() -> None:
    with open_with(Mind({"I live in Paris": [found("Anna lives in Paris")]})) as memory:
        said = [message("I live in Paris", "1"), message("I like tea", "2"), message("I live in Paris", "3")]
        reply = message("Got it, Paris!", "4", "assistant")
        memory.delete(memory.add([*said, reply], user_id="u", session_id="s")["results"][0]["id"])
        assert list(ended(memory, "Paris tea", kinds=["turn"])) == ["I like tea"]


def test_what_an_older_message_says_when_it_is_edited_is_found_and_ends_what_was_told_after_it() -> None:
    told = {f"I live in {home}": [found(f"Anna lives in {home}")] for home in ("Paris", "Rome", "Oslo")}
    moves = [decided((1, "UPDATE", 1, f"Anna lives in {home}")) for home in ("Rome", "Oslo")]
    with open_with(Mind(told, *moves)) as memory:
        memory.add([message("I live in Paris", "1")], user_id="u", session_id="s")
        later = [message("I live in Rome", "2"), message("Got it, Rome!", "3", "assistant")]
        memory.add(later, user_id="u", session_id="s")
        memory.add([message("I live in Oslo", "1")], user_id="u", session_id="s")
        shown = ended(memory, "Anna lives in Oslo Rome")
        assert (shown["Anna lives in Oslo"], shown.get("Got it, Rome!", True)) == (False, True)
        [row] = memory.get_all(user_id="u", kinds=["fact"])["results"]
        assert (row["memory"], row["invalid_at"]) == ("Anna lives in Oslo", None)


BOTH = "I live in Paris with my sister Noor"
SISTER = "Noor is Anna's sister"


ENDS: dict[str, Callable[[Memory, str], Any]] = {
    "by the model": lambda memory, home: memory.add("I live in Berlin now", user_id="u"),
    "by hand": lambda memory, home: memory.update(home, "Anna lives in Berlin"),
    "by deletion": lambda memory, home: memory.delete(home),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_message_of_which_a_part_has_ended_is_not_shown_as_current_nor_its_rest_for_it(how: str) -> None:
    home = found("Anna lives in Paris", ("Anna", "lives in", "Paris"), quote="I live in Paris")
    told = {
        BOTH: [home, found(SISTER, quote="my sister Noor")],
        "I live in Berlin now": [found("Anna lives in Berlin")],
    }
    asked: dict[str, Any] = {"query": "Does Anna live in Paris?", "user_id": "u"}
    with open_with(Mind(told, decided((1, "UPDATE", 1, "Anna lives in Berlin")))) as memory:
        assert memory.search(**asked, kinds=["turn"])["results"] == []
        first = {row["memory"]: row["id"] for row in memory.add(BOTH, user_id="u")["results"]}
        ENDS[how](memory, first["Anna lives in Paris"])
        hits, turns = (memory.search(**asked, kinds=kinds)["results"] for kinds in (None, ["turn"]))
        known = memory.search(BOTH, user_id="u", kinds=["turn"], known_at=datetime(2100, 1, 1, tzinfo=UTC))["results"]
        [noor] = [row for row in memory.get_all(user_id="u")["results"] if row["memory"] == SISTER]
    assert [hit["memory"] for hit in hits if "Paris" in hit["memory"] and not hit["ended"]] == []
    assert [hit["memory"] for hit in (*turns, *known) if hit["memory"] == BOTH and not hit["ended"]] == []
    assert noor["ended"] is False
    assert how == "by deletion" or hits[0]["memory"] == "Anna lives in Berlin"


async def test_what_a_fact_corrects_and_its_last_day_survive_between_the_halves() -> None:
    mind = Mind({BACK: [found(HOME, corrects=[1], valid_until="2100-05-17")]})
    with open_with(mind) as memory:
        said = [message(OUT, "1"), message(BACK, "2")]
        [fact] = memory.extract(said, user_id="u")["facts"]
        assert (fact["corrects"], fact["valid_until"][:10]) == (["1"], "2100-05-18")
        memory.reconcile(said, json.loads(json.dumps([fact])), user_id="u")
        assert ended(memory)[OUT] is True
        [row] = memory.get_all(user_id="u", kinds=["fact"])["results"]
        assert (row["invalid_at"] or "")[:10] == "2100-05-18"


def test_relations_of_all_facts_that_change_a_memory_are_its_own() -> None:
    told = {
        "I live in Paris": [found("Anna lives in Paris", ("Anna", "lives in", "Paris"))],
        "I live in Berlin with Ben now": [
            found("Anna lives in Berlin", ("Anna", "lives in", "Berlin")),
            found("Anna lives with Ben", ("Anna", "lives with", "Ben"), ("anna", "has a home in", "berlin")),
        ],
    }
    mind = Mind(told, decided((1, "UPDATE", 1, "Anna lives in Berlin with Ben"), (2, "NONE", 1)))
    with open_with(mind) as memory:
        memory.add("I live in Paris", user_id="u")
        added = memory.add("I live in Berlin with Ben now", user_id="u")["relations"]["added_entities"]
        assert live(memory) == ["Anna lives in Berlin with Ben"]
        shown = [(one["relationship"], one["destination"]) for one in added]
        assert shown == [("lives_in", "Berlin"), ("lives_with", "Ben")]
        shown = memory.search("Anna", user_id="u")["relations"]
        assert sorted(one["destination"] for one in shown) == ["Ben", "Berlin"]


FURTHER = {
    "Kuno ate my shoe": [found("Kuno ate Anna's shoe", words=["dog", "Hund"])],
    "Kuno stays until June": [found("Kuno stays with Anna until June", words=["visit"])],
    "I drink tea": [found("Anna drinks tea", words=["beverage"])],
}


def first(memory: Memory, query: str) -> list[str]:
    return texts(memory.search(query, user_id="u", threshold=0.1))[:1]


def test_a_fact_is_found_by_words_that_it_does_not_have(folder: Path) -> None:
    with open_with(Mind(FURTHER), folder, reconcile="rules", embeddings=None) as memory:
        memory.add(list(FURTHER), user_id="u")
        assert first(memory, "whose Hund?") == first(memory, "dog") == ["Kuno ate Anna's shoe"]

        [dog] = (row["id"] for row in memory.get_all(user_id="u")["results"] if "shoe" in row["memory"])
        memory.update(dog, metadata={"seen": 1})
        forked = memory.fork("try", user_id="u").search("dog")
        assert first(memory, "dog") == texts(forked)[:1] == ["Kuno ate Anna's shoe"]

        # What was written by hand is found by its own words.
        memory.update(dog, text="Kuno ate Anna's boot")
        assert first(memory, "dog") == []


@pytest.mark.sqlite
def test_the_words_of_a_fact_move_with_its_store(tmp_path: Path) -> None:
    with open_with(Mind(FURTHER), tmp_path / "a", reconcile="rules", embeddings=None) as memory:
        memory.add(list(FURTHER), user_id="u")
    export_store(tmp_path / "a", tmp_path / "file")
    import_store(tmp_path / "file", tmp_path / "b")
    with open_memory(tmp_path / "b", embeddings=None) as memory:
        assert first(memory, "dog") == ["Kuno ate Anna's shoe"]


def test_a_changed_fact_is_found_by_the_words_of_what_changed_it() -> None:
    moved = {"He stays longer": [found("Kuno stays with Anna until July", words=["Verlängerung"])]}
    decision = decided((1, "UPDATE", 1, "Kuno stays with Anna until July"))
    with open_with(Mind({**FURTHER, **moved}, decision), embeddings=None) as memory:
        memory.add("Kuno stays until June", user_id="u", session_id="a")
        memory.add("He stays longer", user_id="u", session_id="b")
        [hit] = memory.search("Verlängerung", user_id="u")["results"]
        assert hit["memory"] == "Kuno stays with Anna until July"
        assert memory.search("visit", user_id="u", threshold=0.1)["results"] == []
