"""The options of `Memory` and of its `search` that a model or another object of the caller's takes part in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journal_dump import open_memory, query, texts
from memory_kit import Extracting, Mind, call, found, open_with

from langchain_memlayer import ConfigurationError, InvalidInput, MemLayerError, Memory
from langchain_memlayer.testing import FrozenClock, ScriptedChatModel
from langchain_memlayer.types import Extraction, Fact, Turn

ANIMALS = ["The zebra is striped", "The walrus is wet", "The giraffe is tall", "The otter is quick"]


# -- the model of a memory --------------------------------------------------------------------------------------------


def test_auto_is_gpt_4o_mini_with_a_key_and_no_model_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Memory(folder, embeddings=None) as memory:
        assert memory.model is None
        assert memory.add("I like tea", user_id="u")["results"][0]["memory"] == "I like tea"
    monkeypatch.setenv("OPENAI_API_KEY", "key-1")
    with Memory(folder, embeddings=None) as memory:
        assert getattr(memory.model, "model_name", None) == "gpt-4o-mini"
    with Memory(folder, model=None, embeddings=None) as memory:
        assert memory.model is None
    with Memory(folder, model="openai:gpt-4.1-nano", embeddings=None) as memory:
        assert getattr(memory.model, "model_name", None) == "gpt-4.1-nano"


@pytest.mark.parametrize(
    "setting",
    [
        {"model": 5}, {"model": "nothing"}, {"reconcile": "sometimes"}, {"embeddings": 5}, {"metric": "l3"},
        {"hnsw_threshold": -1}, {"durability": "none"}, {"profile": 5}, {"vectorstore": 5}, {"extractor": 5},
        {"clock": 5}, {"new_id": 5},
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_refused_and_makes_no_folder(folder: Path, setting: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, InvalidInput)):
        Memory(folder, **({"model": None, "embeddings": None} | setting))
    assert not folder.exists()


def test_a_custom_prompt_reaches_the_model_and_is_named_by_why(folder: Path) -> None:
    mind = Mind({"I like tea": [found("Anna likes tea")]})
    model = mind.model
    with open_memory(folder, model=model, custom_prompt="Note only drinks.") as memory:
        [done] = memory.add("I like tea", user_id="u")["results"]
        assert str(model.prompts[0][0].content).startswith("Note only drinks.")
        assert memory.why(done["id"])["decisions"][0]["prompt"].startswith("custom")


async def test_an_extractor_of_ones_own_is_asked_in_place_of_the_model(folder: Path, way: str) -> None:
    class Recorded(Extracting):
        version = "recorded-7"

        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            return Extraction(tuple(Fact(f"Noted: {turn.text}", (k,), quote=turn.text) for k, turn in enumerate(turns)))

    model = ScriptedChatModel()
    with open_memory(folder, model=model, extractor=Recorded()) as memory:
        [done] = (await call(way, memory, "add", "I like tea", user_id="u"))["results"]
        assert done["memory"] == "Noted: I like tea"
        assert memory.why(done["id"])["decisions"][0]["prompt"] == "recorded-7"
    assert model.calls == 0


def test_what_is_told_again_is_counted_and_dated(folder: Path) -> None:
    mind = Mind({"I like tea": [found("Anna likes tea")], "Tea!": [found("Anna likes tea", quote="Tea")]})
    clock = FrozenClock()
    with open_with(mind, folder, clock=clock) as memory:
        memory.add("I like tea", user_id="u")
        clock.advance(days=7)
        memory.add("Tea!", user_id="u")
        [fact] = memory.get_all(user_id="u")["results"]
    [(seen,)] = query(folder, "SELECT last_seen FROM items WHERE kind = 'fact'")
    assert fact["count"] == 2
    assert datetime.fromtimestamp(seen / 1e6, UTC) == datetime(2025, 1, 8, tzinfo=UTC)


# -- how much is shown ------------------------------------------------------------------------------------------------


async def test_expand_shows_the_turns_around_a_hit_and_of_its_session_only(folder: Path, way: str) -> None:
    mind = Mind({"The otter is quick": [found("Otters are quick animals")]})
    with open_with(mind, folder) as memory:
        memory.add([*ANIMALS, "The end"], user_id="u", session_id="s")
        memory.add("The otter of another session", user_id="u", session_id="t")
        [fact] = (await call(way, memory, "search", "quick", user_id="u", kinds=["fact"], expand=1))["results"]
        [turn] = memory.search("giraffe", user_id="u", limit=1, kinds=["turn"], expand=2)["results"]
        assert [one["memory"] for one in fact["around"]] == ["The giraffe is tall", "The end"]
        assert [one["memory"] for one in turn["around"]] == [*ANIMALS[:2], ANIMALS[3], "The end"]
        assert "around" not in memory.search("quick", user_id="u")["results"][0]


async def test_what_was_deleted_is_no_evidence_any_more(folder: Path, way: str) -> None:
    otters = [found("Otters are quick animals")]
    with open_with(Mind({"The otter is quick": otters, "Otters run from my PIN 4711": otters}), folder) as memory:
        for said in ("The otter is quick", "Otters run from my PIN 4711"):
            memory.add(said, user_id="u")
        before = len(memory.search("otters", user_id="u")["results"][0]["evidence"])
        _, turn = memory.get_all(user_id="u", kinds=["turn"])["results"]
        await call(way, memory, "delete", turn["id"])
        [hit] = (await call(way, memory, "search", "otters", user_id="u"))["results"]
        assert (before, [turn["text"] for turn in hit["evidence"]]) == (2, ["The otter is quick"])


async def test_what_has_expired_is_shown_nowhere_unasked(folder: Path, way: str) -> None:
    clock = FrozenClock()
    away = found("Ann is in Rome", ("Ann", "is in", "Rome"))
    tea = found("Ann likes tea", ("Ann", "likes", "tea"))
    with open_with(Mind({"I am in Rome": [away], "I like tea": [tea]}), folder, clock=clock) as memory:
        memory.add("I am in Rome", user_id="u", session_id="s", expiration_date=clock().date().isoformat())
        memory.add("I like tea", user_id="u", session_id="s")

        async def shown(**more: bool) -> tuple[list[str], ...]:
            asked: dict[str, Any] = {"user_id": "u", **more}
            answer = await call(way, memory, "search", "Is Ann in Rome, or at tea?", kinds=["fact"], expand=1, **asked)
            listed = await call(way, memory, "get_all", **asked)
            ends = [[edge["destination"] for edge in result["relations"]] for result in (answer, listed)]
            [hit] = [hit for hit in answer["results"] if hit["memory"] == "Ann likes tea"]
            return texts(answer), [turn["memory"] for turn in hit["around"]], *map(sorted, ends)

        both = ["Rome", "tea"]
        before = await shown()
        clock.advance(days=2)
        assert await shown() == (["Ann likes tea"], [], ["tea"], ["tea"])
        assert set((await call(way, memory, "graph", user_id="u")).nodes) == {"Ann", "tea"}
        assert await shown(show_expired=True) == before == (before[0], ["I am in Rome"], both, both)


async def test_explain_says_what_each_signal_gave(folder: Path, way: str) -> None:
    with open_memory(folder) as memory:
        memory.add(ANIMALS, user_id="u")
        hits = (await call(way, memory, "search", "zebra", user_id="u", explain=True))["results"]
        best = hits[0]["explanation"]
        assert best["keyword"] > 0
        assert best["dense"] > 0
        for hit in hits:
            assert hit["score"] == pytest.approx(min(max(sum(hit["explanation"].values()), 0), 1), abs=1e-3)
        assert "explanation" not in memory.search("zebra", user_id="u")["results"][0]


def test_scopes_are_listed_with_their_sizes_and_only_those_of_the_given_ids(tmp_path: Path) -> None:
    with Memory(tmp_path, model=None, embeddings=None) as memory:
        gone = memory.add("I sold the boat.", user_id="ann")["results"][0]["id"]
        memory.add("I live in Lyon.", user_id="ann", agent_id="travel")
        memory.add("Answer briefly.", agent_id="travel")
        memory.delete(gone)
        memory.add(["One.", "Two."], user_id="bob")
        sizes = [(row["user_id"], row["agent_id"], row["facts"], row["turns"]) for row in memory.scopes()]
        assert sizes == [(None, "travel", 0, 1), ("ann", "travel", 0, 1), ("bob", None, 0, 2)]
        assert memory.scopes(limit=1, offset=2) == memory.scopes(user_id="bob") == memory.of(user_id="bob").scopes()
        assert len(memory.scopes(agent_id="travel")) == 2
        assert memory.scopes(user_id="nobody") == []


LONG = "x" * 100_000


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("search", {"query": "tea", "as_of": LONG}),
        ("search", {"query": "tea", "kinds": LONG}),
        ("search", {"query": "tea", "filters": {LONG: {"$in": LONG}}}),
        ("add", {"messages": [{"role": "user", "content": "tea", "timestamp": LONG}]}),
        ("add", {"messages": "tea", "metadata": {LONG: object()}}),
        ("diff", {"since": LONG}),
        ("undo", {"batch_id": LONG}),
        ("replay", {"into": LONG}),
    ],
)
def test_an_error_shows_the_beginning_of_a_long_value(folder: Path, call: str, given: dict[str, Any]) -> None:
    with open_memory(folder) as memory, pytest.raises(MemLayerError) as told:
        getattr(memory, call)(**given, user_id="u")
    assert len(str(told.value)) < 500
