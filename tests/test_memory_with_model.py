"""What `Memory` gives with a chat model, and how often that and the embedder are asked by each call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journal_dump import connections, dump, open_memory, query, refuses, texts
from langgraph.checkpoint.memory import InMemorySaver
from memory_kit import Extracting, Mind, call, decided, found, live, message, open_with
from surfaces_kit import chat_graph, said, thread

from langchain_memlayer import ExtractionError, InvalidInput, Memory
from langchain_memlayer.doctor import check
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.types import Fact, Triple, Turn

LIKES = "Green tea is the favourite drink"
WHEN = datetime(2025, 1, 1, tzinfo=UTC)
HOME = message("I live in Paris", "m1")
TEA = message("I like tea", "m2")
NOTHING = message("How are you today, my friend", "m3")
TOLD = {
    "I live in Paris": [found("Anna lives in Paris", ("Anna", "lives in", "Paris"))],
    "I moved to Berlin": [found("Anna moved to Berlin", ("Anna", "lives in", "Berlin"))],
    "I left Berlin for good": [found("Anna no longer lives in Berlin")],
    "I like tea": [found(LIKES, ("tea", "is", "favourite"))],
    "Tea it is": [found("The favourite drink is tea")],
}


@pytest.mark.parametrize("keep", [True, False])
async def test_messages_told_again_are_not_extracted_again(folder: Path, way: str, keep: bool) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder, keep_turns=keep) as memory:
        first = await call(way, memory, "add", [HOME, TEA, NOTHING], user_id="u")
        before = dump(folder)
        again = [await call(way, memory, "add", told, user_id="u") for told in ([HOME], [NOTHING, TEA], [HOME, TEA])]
        assert texts(first) == ["Anna lives in Paris", LIKES]
        assert [texts(result) for result in again] == [[], [], []]
        assert dump(folder) == before
    with open_with(mind, folder, keep_turns=keep) as memory:
        assert (await call(way, memory, "add", [HOME, TEA, NOTHING], user_id="u"))["results"] == []
        assert live(memory) == ["Anna lives in Paris", LIKES]
    assert mind.asked == ["extraction"]


@pytest.mark.parametrize("keep", [True, False])
async def test_of_a_growing_conversation_each_message_is_read_once(folder: Path, keep: bool) -> None:
    said = [message(f"sentence number {k}", str(k)) for k in range(6)]
    mind = Mind({})
    with open_with(mind, folder, keep_turns=keep) as memory:
        for length in range(1, 7):
            memory.add(said[:length], user_id="u", session_id="s")
    # What is new has a number, what was seen a dash.
    assert [shown.count("\n[") for shown in mind.shown] == [1] * 6
    assert [shown.count("\n- ") for shown in mind.shown] == list(range(6))


def test_without_kept_turns_a_message_is_another_one_in_another_scope_or_session(folder: Path) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder, keep_turns=False) as memory:
        for other in ({}, {"user_id": "v"}, {"agent_id": "a"}, {"session_id": "s"}):
            memory.add(HOME, **({"user_id": "u"} | other))
        assert mind.asked == ["extraction"] * 4
        for _ in range(2):
            memory.add(["I like tea", "Fine weather"], user_id="w")
        [fact] = memory.get_all(user_id="w")["results"]
        assert (fact["count"], len(fact["sources"]), mind.asked) == (2, 2, ["extraction"] * 6)
        # It is noted only if it is cited.
        assert query(folder, "SELECT count(*) FROM items WHERE kind = 'turn' AND user_id = 'w'") == [(2,)]
        assert texts(memory.add("Exactly this.", user_id="x", infer=False)) == ["Exactly this."]
        assert texts(memory.search("exactly", user_id="x")) == texts(memory.get_all(user_id="x")) == ["Exactly this."]
    assert mind.asked == ["extraction"] * 6


async def test_without_kept_turns_a_repeated_batch_asks_nothing_and_reports_the_same(folder: Path, way: str) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder, keep_turns=False) as memory:
        first = await call(way, memory, "add", [HOME, NOTHING], user_id="u", batch_id="b")
        before = dump(folder)
        again = await call(way, memory, "add", [HOME, NOTHING], user_id="u", batch_id="b")
        other = await call(way, memory, "add", [NOTHING, HOME], user_id="u", batch_id="c")
        assert [texts(result) for result in (first, again, other)] == [["Anna lives in Paris"]] * 2 + [[]]
    assert mind.asked == ["extraction"]
    assert dump(folder)["items"] == before["items"]


@pytest.mark.parametrize("keep", [True, False])
def test_messages_whose_reading_failed_are_read_when_they_are_added_again(folder: Path, keep: bool) -> None:
    mind = Mind({**TOLD, "I like tea": TimeoutError("slow")})
    with open_with(mind, folder, keep_turns=keep) as memory:
        with pytest.raises(ExtractionError):
            memory.add([HOME, TEA], user_id="u")
        mind.told = dict(TOLD)
        assert texts(memory.add([HOME, TEA], user_id="u")) == ["Anna lives in Paris", LIKES]


def test_of_a_message_that_is_not_kept_only_the_quote_stays_and_its_fact_says_where_it_is_from(folder: Path) -> None:
    said = {**message("By the way, I like tea, and hate the xylophone", "m7"), "name": "Anna", "metadata": {"n": 1}}
    mind = Mind({said["content"]: [found("Anna likes tea", quote="I like tea")]})
    with open_with(mind, folder, keep_turns=False) as memory:
        [done] = memory.add(said, user_id="u", session_id="s", timestamp=WHEN)["results"]
        fact, why = memory.get(done["id"]), memory.why(done["id"])
        assert memory.get_all(user_id="u", kinds=["turn"])["results"] == []
        assert texts(memory.search("xylophone tea", user_id="u")) == ["Anna likes tea"]
        assert texts(memory.search("tea", user_id="u", as_of=datetime(2026, 1, 1, tzinfo=UTC))) == ["Anna likes tea"]
        assert memory.history(why["sources"][0]["memory_id"]) == []
        assert check(memory._journal) == []
    assert (fact["sources"], fact["session_id"], fact["created_at"]) == (["m7"], "s", "2025-01-01T00:00:00+00:00")
    assert fact["metadata"] == {"n": 1, "data": "Anna likes tea"}
    [source] = why["sources"]
    assert {name: source[name] for name in ("id", "text", "quote", "role", "name", "session_id")} == {
        "id": "m7", "text": None, "quote": "I like tea", "role": "user", "name": "Anna", "session_id": "s",
    }  # fmt: skip
    assert not [file for file in folder.rglob("*") if file.is_file() and b"xylophone" in file.read_bytes()]


def test_facts_of_one_message_that_is_not_kept_do_not_hide_each_other(folder: Path) -> None:
    both = "I like green tea and black coffee"
    mind = Mind({both: [found("Anna likes green tea"), found("Anna likes black coffee")]})
    with open_with(mind, folder, keep_turns=False) as memory:
        memory.add(both, user_id="u")
        assert sorted(texts(memory.search("What does Anna like?", user_id="u"))) == [
            "Anna likes black coffee", "Anna likes green tea",
        ]  # fmt: skip


def test_without_kept_turns_words_of_a_tool_stay_in_quarantine_whatever_an_extractor_says(folder: Path) -> None:
    naive = Extracting(lambda turns: (Fact(turn.text, (k,), quote=turn.text) for k, turn in enumerate(turns)))
    with open_memory(folder, extractor=naive, keep_turns=False) as memory:
        memory.add(message("The account has 12 points", "t", role="tool"), user_id="u")
        assert memory.search("account points", user_id="u")["results"] == []
        found = memory.search("account points", user_id="u", include_quarantined=True)
        assert texts(found) == ["The account has 12 points"]


def test_a_forgotten_fact_takes_the_note_of_its_message_along_and_may_be_told_again(folder: Path) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder, keep_turns=False) as memory:
        [first] = memory.add(HOME, user_id="u")["results"]
        memory.forget(first["id"])
        assert query(folder, "SELECT count(*) FROM items") == [(0,)]
        [again] = memory.add(HOME, user_id="u")["results"]
        memory.forget(user_id="u")
        assert query(folder, "SELECT count(*) FROM items") == [(0,)]
        assert (again["event"], mind.asked) == ("ADD", ["extraction"] * 2)


async def test_in_the_background_a_message_told_again_is_not_extracted_again(folder: Path, way: str) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder) as memory:
        for _ in range(3):
            await call(way, memory, "add", [HOME, NOTHING], user_id="u", background=True)
        assert await call(way, memory, "flush", 60)
        await call(way, memory, "add", [HOME, NOTHING, TEA], user_id="u", background=True)
        assert await call(way, memory, "flush", 60)
        await call(way, memory, "add", [HOME, TEA], user_id="u")
        assert live(memory) == ["Anna lives in Paris", LIKES]
    assert mind.asked == ["extraction"] * 2
    assert [shown.count("\n[") for shown in mind.shown] == [2, 1]


async def test_without_kept_turns_the_background_keeps_the_words_until_they_are_read(folder: Path, way: str) -> None:
    mind = Mind({HOME["content"]: TimeoutError("slow")})
    with open_with(mind, folder, keep_turns=False) as memory:
        await call(way, memory, "add", HOME, user_id="u", background=True)
        with pytest.raises(ExtractionError):
            await call(way, memory, "flush", 60)
        [waiting] = memory.unread(user_id="u")
        assert waiting["turns"] == [{"id": None, "memory": HOME["content"], "role": "user"}]
        mind.told = dict(TOLD)
        assert await call(way, memory, "flush", 60)
        assert (live(memory), memory.unread(user_id="u")) == (["Anna lives in Paris"], [])
    assert HOME["content"] not in str(query(folder, "SELECT turns, detail FROM unread"))


def test_what_ended_and_is_told_again_is_current_again(folder: Path) -> None:
    mind = Mind(TOLD, *(decided((1, "UPDATE", 1, f"Anna lives in {city}")) for city in ("Berlin", "Paris")))
    with open_with(mind, folder) as memory:
        for said in ("I live in Paris", "I moved to Berlin", "I live in Paris"):
            memory.add(said, user_id="u", timestamp=WHEN)
        turns = memory.get_all(user_id="u", kinds=["turn"])["results"]
        [fact] = memory.get_all(user_id="u")["results"]
        assert fact["memory"] == "Anna lives in Paris"
        *_, source = memory.why(fact["id"])["sources"]
        assert [(turn["memory"], turn["ended"]) for turn in turns] == [
            ("I live in Paris", True), ("I moved to Berlin", True), ("I live in Paris", False),
        ]  # fmt: skip
        assert source["memory_id"] == turns[2]["id"]


@pytest.mark.parametrize(("turns", "windows"), [(1, 1), (40, 1), (41, 2), (100, 3)])
async def test_an_add_is_a_call_for_each_window_and_one_more(folder: Path, way: str, turns: int, windows: int) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")))
    with open_with(mind, folder) as memory:
        await call(way, memory, "add", "I live in Paris", user_id="u")
        assert mind.asked == ["extraction"]
        mind.asked.clear()
        said = [*(f"small talk of the day {k}" for k in range(turns - 1)), "I moved to Berlin"]
        await call(way, memory, "add", said, user_id="u")
        assert mind.asked == ["extraction"] * windows + ["reconciliation"]
        assert live(memory) == ["Anna lives in Berlin"]


async def test_nothing_near_nothing_said_or_nothing_new_is_no_reconciliation(folder: Path, way: str) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder) as memory:
        for said in ("I live in Paris", "I like tea", "Small talk"):
            await call(way, memory, "add", said, user_id="u")
        assert mind.asked == ["extraction"] * 3
        mind.asked.clear()
        await call(way, memory, "add", "I like tea", user_id="u", session_id="later")
        # Equal texts need no model to be told equal.
        assert mind.asked == ["extraction"]
        mind.asked.clear()
        await call(way, memory, "add", "Exactly this about Anna and tea", user_id="u", infer=False)
        await call(way, memory, "search", "tea", user_id="u")
        assert mind.asked == []


@pytest.mark.parametrize("keep", [True, False])
async def test_an_add_is_one_embedding_batch_and_a_second_for_new_words(folder: Path, way: str, keep: bool) -> None:
    embeddings = DeterministicEmbeddings()
    mind = Mind(
        TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")), decided((1, "DELETE", 1)),
        decided((1, "NONE", 1)), decided((1, "UPDATE", 1, "Anna moved to Berlin")),
    )  # fmt: skip
    batches = {}
    with open_with(mind, folder, embeddings=embeddings, keep_turns=keep) as memory:
        await call(way, memory, "add", "The very first words", user_id="u")
        for said in ("I live in Paris", "I moved to Berlin", "I left Berlin for good", "I like tea", "Tea it is"):
            embeddings.reset()
            await call(way, memory, "add", ["Well.", said], user_id="u")
            batches[said] = len(embeddings.batches)
            if not keep:
                # Of what is not kept nothing is embedded either.
                assert not [text for text in embeddings.texts if said in text or "Well" in text]
        await call(way, memory, "add", "I live in Paris", user_id="u", session_id="again")
        embeddings.reset()
        await call(way, memory, "add", "I moved to Berlin", user_id="u", session_id="again")
        batches["the fact's own words"] = len(embeddings.batches)
    assert batches == {
        "I live in Paris": 1, "I moved to Berlin": 2, "I left Berlin for good": 1, "I like tea": 1, "Tea it is": 1,
        "the fact's own words": 1,
    }  # fmt: skip
    assert mind.decisions == []


def test_seen_messages_and_nothing_to_store_are_no_batch(folder: Path) -> None:
    embeddings = DeterministicEmbeddings()
    with open_with(Mind(TOLD), folder, embeddings=embeddings) as memory:
        memory.add([HOME, TEA], user_id="u", batch_id="b")
        embeddings.reset()
        memory.add([HOME, TEA], user_id="u")
        memory.add([HOME, TEA], user_id="u", batch_id="b")
        memory.add([("assistant", "")], user_id="u")
    assert embeddings.batches == []


PARIS = {"source": "Anna", "relationship": "lives_in", "destination": "Paris"}
BERLIN = {"source": "Anna", "relationship": "lives_in", "destination": "Berlin"}


async def test_relations_are_those_that_came_and_those_that_ended(folder: Path, way: str) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")), decided((1, "DELETE", 1)))
    relations: list[Any] = []
    with open_with(mind, folder) as memory:
        for said in ("I live in Paris", "I live in Paris", "I moved to Berlin", "I left Berlin for good"):
            done = await call(way, memory, "add", said, user_id="u", session_id=str(len(relations)))
            relations.append(done["relations"])
            current = [destination for _, destination in memory.graph(user_id="u").edges()]
            assert len(current) == (len(relations) < 4)
    assert relations == [
        {"added_entities": [PARIS], "deleted_entities": []},
        {"added_entities": [], "deleted_entities": []},
        {"added_entities": [BERLIN], "deleted_entities": [PARIS]},
        {"added_entities": [], "deleted_entities": [BERLIN]},
    ]


def test_metadata_of_a_change_is_merged_into_what_the_memory_has(folder: Path) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")))
    with open_with(mind, folder) as memory:
        memory.add("I live in Paris", user_id="u", metadata={"a": 1, "b": {"x": 1}})
        [done] = memory.add("I moved to Berlin", user_id="u", metadata={"b": 2, "c": 3})["results"]
        memory.update(done["id"], None, {"c": 4})
        [fact] = memory.get_all(user_id="u", filters={"c": 4})["results"]
        assert fact["metadata"] == {"a": 1, "b": 2, "c": 4, "data": "Anna lives in Berlin"}


def test_get_all_shows_facts_and_what_was_stored_as_given_and_kinds_widen_it(folder: Path) -> None:
    with open_with(Mind(TOLD), folder) as memory:
        memory.add(["I like tea", "Small talk"], user_id="u")
        memory.add("As given", user_id="u", infer=False)
        asked: list[Any] = [None, ["fact"], "turn", ["fact", "turn"]]
        shown = {str(kinds): sorted(texts(memory.get_all(user_id="u", kinds=kinds))) for kinds in asked}
        assert {LIKES, "Small talk"} <= set(texts(memory.search("favourite drink, small talk", user_id="u")))
    assert shown == {
        "None": ["As given", LIKES], "['fact']": [LIKES], "turn": ["As given", "I like tea", "Small talk"],
        "['fact', 'turn']": ["As given", LIKES, "I like tea", "Small talk"],
    }  # fmt: skip


async def test_an_update_by_hand_asks_no_model_and_its_triples_are_found_by_reading(folder: Path, way: str) -> None:
    embeddings = DeterministicEmbeddings()
    mind = Mind(
        {**TOLD, "Anna lives in Rome": [found("Anna lives in Rome", ("Anna", "lives in", "Rome"), words=["home"])]}
    )
    with open_with(mind, folder, embeddings=embeddings) as memory:
        [done] = (await call(way, memory, "add", "I live in Paris", user_id="u"))["results"]
        mind.asked.clear()
        embeddings.reset()
        await call(way, memory, "update", done["id"], "Anna loves living in Paris")
        assert memory.graph(user_id="u").number_of_edges() == 1
        await call(way, memory, "update", done["id"], "Anna lives in Rome")
        assert (mind.asked, len(embeddings.batches)) == ([], 2)
        assert memory.graph(user_id="u").number_of_edges() == 0
        # Metadata, and the same text again, say nothing new.
        await call(way, memory, "update", done["id"], None, {"a": 1})
        await call(way, memory, "update", done["id"], "Anna lives in Rome")
        read = await call(way, memory, "read", user_id="u")
        assert (read["results"], live(memory)) == ([], ["Anna lives in Rome"])
        assert memory.search("Where is Anna?", user_id="u")["relations"] == [
            {"source": "Anna", "relationship": "lives_in", "destination": "Rome"}
        ]
        assert memory.unread(user_id="u") == []
        [hit] = memory.search("home", user_id="u", explain=True, kinds=["fact"])["results"]
        assert hit["explanation"]["keyword"] > 0


def test_after_an_update_by_hand_the_new_text_is_found_and_the_old_message_is_not_current(folder: Path) -> None:
    mind = Mind({**TOLD, "Anna lives in Rome": TimeoutError("slow")})
    with open_with(mind, folder) as memory:
        [done] = memory.add("I live in Paris", user_id="u")["results"]
        for text in ("Anna lives in Paris, in the Rue Xylophone", "Anna lives in Rome"):
            memory.update(done["id"], text)
            for asked in ("Where do I live?", "I live in Paris", text):
                hits = memory.search(asked, user_id="u")["results"]
                assert [hit["memory"] for hit in hits if not hit["ended"]] == [text]
            assert memory.get(done["id"])["sources"]
        assert [event["actor"] for event in memory.why(done["id"])["decisions"]] == ["extractor", "user", "user"]
        # So it is while the model is down.
        with pytest.raises(ExtractionError):
            memory.read(user_id="u")
        assert live(memory) == ["Anna lives in Rome"]


def test_why_says_turn_quote_decision_and_prompts(folder: Path) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")))
    with open_with(mind, folder) as memory:
        memory.add(HOME, user_id="u", session_id="s")
        [done] = memory.add(message("I moved to Berlin", "m9"), user_id="u", session_id="s", batch_id="b")["results"]
        why = memory.why(done["id"])
        turn = memory.why(why["sources"][-1]["memory_id"])
        versions = (memory._engine.extractor.version, memory._engine.reconciler.version)
    assert (why["memory"], why["kind"]) == ("Anna lives in Berlin", "fact")
    assert [(source["id"], source["text"], source["quote"]) for source in why["sources"]] == [
        ("m9", "I moved to Berlin", "I moved to Berlin")
    ]
    added, updated = why["decisions"]
    assert (added["event"], added["new_value"], added["quote"]) == ("add", "Anna lives in Paris", "I live in Paris")
    assert (updated["event"], updated["prev_value"], updated["batch_id"]) == ("update", "Anna lives in Paris", "b")
    assert (updated["prompt"], updated["by"], updated["reason"]) == (*versions, "said so")
    assert (turn["kind"], turn["sources"][0]["text"]) == ("turn", "I moved to Berlin")


class Document:
    def __init__(self, text: str) -> None:
        self.nodes: list[Any] = []
        self.relationships = [{"source": {"id": "Anna"}, "target": {"id": "Rome"}, "type": "LIVES_IN"}]
        self.source = {"page_content": text, "metadata": {"page": 7}}


@pytest.mark.parametrize("keep", [True, False])
async def test_graph_documents_are_facts_that_cite_their_text(folder: Path, way: str, keep: bool) -> None:
    mind = Mind({})
    with open_with(mind, folder, keep_turns=keep) as memory:
        done = await call(way, memory, "add_graph_documents", [Document("Anna has a flat in Rome.")], user_id="u")
        [result] = done["results"]
        why = await call(way, memory, "why", result["id"])
        assert (result["event"], result["memory"]) == ("ADD", "Anna lives in Rome")
        assert [source["text"] for source in why["sources"]] == ["Anna has a flat in Rome." if keep else None]
        assert "prompt" not in why["decisions"][0]
        assert why["decisions"][0]["actor"] == "user"
        assert [edge[:2] for edge in memory.graph(user_id="u").edges()] == [("Anna", "Rome")]
        assert memory.get(result["id"])["metadata"]["page"] == 7
    assert mind.asked == []


def test_a_bad_graph_document_among_good_ones_stores_nothing(folder: Path) -> None:
    with open_with(Mind({}), folder) as memory:
        refuses(lambda: memory.add_graph_documents([Document("fine"), {"nodes": 5}], user_id="u"), folder, InvalidInput)


@pytest.fixture(params=[False, True], ids=["without ids", "with ids"])
def named(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def told(named: bool) -> Any:
    def said(first: int, count: int) -> list[dict[str, Any]]:
        return [message(f"sentence {k}", f"m{k}" if named else None) for k in range(first, first + count)]

    return said


@pytest.mark.sqlite
def test_a_list_costs_three_inserts_a_turn_and_what_one_turn_costs(folder: Path, told: Any, named: bool) -> None:
    with open_memory(folder) as memory:
        memory.add(told(0, 1), user_id="u")
        asked: list[str] = []
        for db in connections(memory._journal):
            db.set_trace_callback(asked.append)
        costs = []
        for first, count in ((1, 1), (2, 400), (500, 400)):
            asked.clear()
            memory.add(told(first, count), user_id="u")
            inserts = [sql for sql in asked if sql.startswith("INSERT")]
            assert len(inserts) == 3 * count
            costs.append(len(asked) - len(inserts))
        assert costs[0] == costs[1] == costs[2] <= (12 if named else 6)
        told_again = told(2, 400)
        asked.clear()
        memory.add(told_again, user_id="u")
        # Who has an id is known by it; who has none is counted once more, by an event and a change.
        assert len(asked) <= (7 if named else 2 * 400 + 6)


@pytest.mark.sqlite
def test_adding_costs_sqlite_as_much_in_a_large_scope_as_in_a_small_one(folder: Path, told: Any) -> None:
    with open_memory(folder, embeddings=None) as memory:
        ticks: list[None] = []
        costs = []
        for first, until in ((0, 200), (1000, 4000)):
            memory.add(told(first, until - first), user_id="u")
            memory.add(["yes", "yes"], user_id="u")
            for db in connections(memory._journal):
                db.set_progress_handler(lambda: ticks.append(None), 10)
            for count in (1, 100):
                ticks.clear()
                memory.add(told(until, count), user_id="u")
                costs.append(len(ticks))
                until += count
            for db in connections(memory._journal):
                db.set_progress_handler(None, 0)
    assert costs[2] <= 1.3 * costs[0]
    assert costs[3] <= 1.3 * costs[1]


@pytest.mark.sqlite
def test_changing_one_memory_or_looking_back_costs_as_much_in_a_large_scope_and_forgetting_all_as_much_for_each() -> (
    None
):
    def seen(turns: Sequence[Turn]) -> Iterator[Fact]:
        for k, turn in enumerate(turns):
            yield Fact(turn.text, (k,), turn.text, (Triple("User", "saw", turn.text),))

    def known_then(memory: Memory) -> None:
        with memory._journal.read() as reader:
            reader.position_at("", 1)

    def costs(memory: Memory, user: str, size: int) -> list[float]:
        memory.add([f"heron {k}" for k in range(size)], user_id=user)
        one = memory.get_all(user_id=user, limit=1)["results"][0]["id"]
        ticks: list[None] = []
        spent = []
        for db in connections(memory._journal):
            db.set_progress_handler(lambda: ticks.append(None), 10)
        for count, step in (
            (1, lambda: known_then(memory)),
            (1, lambda: memory.update(one, "a stork")), (1, lambda: memory.delete(one)),
            (size, lambda: memory.diff("2020-01-01", user_id=user)),
            (size, lambda: memory.fork("trial", user_id=user).merge()), (size, lambda: memory.forget(user_id=user)),
        ):  # fmt: skip
            ticks.clear()
            step()
            spent.append(len(ticks) / count)
        return spent

    with open_memory(":memory:", embeddings=None, extractor=Extracting(seen), reconcile="off") as memory:
        few, many = costs(memory, "few", 40), costs(memory, "many", 640)
    assert all(later <= 1.5 * earlier for earlier, later in zip(few, many, strict=True)), (few, many)


@pytest.mark.parametrize("keep", [True, False])
async def test_in_a_thread_the_node_reads_each_message_once(folder: Path, keep: bool, way: str) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")))
    with open_with(mind, folder, keep_turns=keep) as memory:
        graph = chat_graph(memory, checkpointer=InMemorySaver())
        for text, event in (("I live in Paris", "ADD"), ("I like tea", "ADD"), ("I moved to Berlin", "UPDATE")):
            state = await call(way, graph, "invoke", said(text), thread(), context={"user_id": "u"})
            assert [decision["event"] for decision in state["memory_decisions"]] == [event]
        assert sorted(live(memory)) == ["Anna lives in Berlin", LIKES]
        sources = [memory.why(fact["id"])["sources"][-1] for fact in memory.get_all(everything=True)["results"]]
        assert [source["session_id"] for source in sources] == ["1"] * 2
    # Of each turn the user's message and the answer.
    read = [shown for shown in mind.shown if "<conversation>" in shown]
    assert [shown.count("\n[") for shown in read] == [2] * 3
    assert mind.asked.count("reconciliation") == 1
