"""The options of `Memory` and of its `search` that a model or another object of the caller's takes part in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from journal_dump import open_memory, query, texts
from memory_kit import Extracting, Mind, call, found, open_with

from langchain_memlayer import ConfigurationError, ExtractionError, Extractor, InvalidInput, MemLayerError, Memory
from langchain_memlayer.testing import FrozenClock, ScriptedChatModel
from langchain_memlayer.types import Extraction, Fact, Triple, Turn

ANIMALS = ["The zebra is striped", "The walrus is wet", "The giraffe is tall", "The otter is quick"]


def test_auto_is_gpt_4o_mini_with_a_key_and_no_model_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
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


def test_a_setting_that_cannot_be_used_is_refused_and_makes_no_folder(folder: Path) -> None:
    for setting in (
        {"model": 5}, {"model": "nothing"}, {"reconcile": "sometimes"}, {"embeddings": 5}, {"metric": "l3"},
        {"hnsw_threshold": -1}, {"durability": "none"}, {"profile": 5}, {"vectorstore": 5}, {"extractor": 5},
        {"clock": 5}, {"new_id": 5}, {"keep_turns": "no"}, {"model": ScriptedChatModel(), "custom_prompt": ["a"]},
        {"model": ScriptedChatModel(), "custom_update_prompt": 5}, {"path": f"postgresql://u@{'h' * 80}/d"},
    ):  # fmt: skip
        with pytest.raises((ConfigurationError, InvalidInput)):
            Memory(**({"path": folder, "model": None, "embeddings": None} | setting))
        assert not folder.exists(), setting


def test_a_custom_prompt_reaches_the_model_and_is_named_by_why(folder: Path) -> None:
    mind = Mind({"I like tea": [found("Anna likes tea")]})
    model = mind.model
    with open_memory(folder, model=model, custom_prompt="Note only drinks.") as memory:
        [done] = memory.add("I like tea", user_id="u")["results"]
        assert str(model.prompts[0][0].content).startswith("Note only drinks.")
        assert memory.why(done["id"])["decisions"][0]["prompt"].startswith("custom")


def test_what_an_extractor_found_nowhere_or_in_no_words_is_refused_and_the_rest_kept(folder: Path) -> None:
    flawed = [Fact("a", ()), Fact("b", (1,)), Fact(" ", (0,)), Fact("c\0", (0,)), Fact("d", (0,), quote="\ud800")]
    flawed.append(Fact("e", (0,), triples=(Triple("e", "is\0", "f"),)))
    with open_memory(folder, extractor=Extracting(lambda _: [*flawed, Fact("Anna likes tea", (0,))])) as memory:
        done = memory.add("I like tea", user_id="u")
        assert texts(done) == texts(memory.get_all(user_id="u", kinds=["fact"])) == ["Anna likes tea"]
        assert len(done["rejected"]) == len(flawed)
        assert memory.unread(user_id="u") == []


async def test_an_extractor_of_ones_own_is_asked_in_place_of_the_model(folder: Path, way: str) -> None:
    class Recorded:
        version = "recorded-7"

        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            return Extraction(tuple(Fact(f"Noted: {turn.text}", (k,), quote=turn.text) for k, turn in enumerate(turns)))

    model, extractor = ScriptedChatModel(), Recorded()
    assert isinstance(extractor, Extractor)  # so that a type checker takes it
    with open_memory(folder, model=model, extractor=extractor) as memory:
        [done] = (await call(way, memory, "add", "I like tea", user_id="u"))["results"]
        assert done["memory"] == "Noted: I like tea"
        assert memory.why(done["id"])["decisions"][0]["prompt"] == "recorded-7"
    assert model.calls == 0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([Fact("Anna likes tea", (0,))], "a list in place of an Extraction"),
        (Extraction(cast("Any", ("Anna likes tea",))), "what is no Fact"),
        (Extraction((Fact("Anna likes tea", (0,), triples=cast("Any", (("Anna", "likes", "tea"),))),)), "are Triples"),
        (Extraction((Fact("Anna likes tea", (0,), valid_at=cast("Any", "2025-01-01")),)), "times datetimes"),
    ],
)
async def test_an_extractor_that_gives_something_else_is_told_what_is_wanted(
    folder: Path, way: str, given: Any, wanted: str
) -> None:
    class Own:
        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Any:
            return given

    with open_memory(folder, extractor=cast("Any", Own())) as memory:
        with pytest.raises(ExtractionError, match=f"Own gave .*{wanted}"):
            await call(way, memory, "add", "I like tea", user_id="u")
        assert len(memory.unread(user_id="u")) == 1


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
TEA = {"role": "user", "content": "tea"}
STATED = {"text": "Anna likes tea", "quote": "tea", "sources": ["1"], "triples": []}


LONG_ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    ("search", {"query": "tea", "as_of": LONG}), ("search", {"query": "tea", "kinds": LONG}),
    ("search", {"query": "tea", "filters": {LONG: {"$in": LONG}}}),
    ("add", {"messages": [{"role": "user", "content": "tea", "timestamp": LONG}]}),
    ("add", {"messages": "tea", "metadata": {LONG: object()}}), ("diff", {"since": LONG}),
    ("undo", {"batch_id": LONG}), ("replay", {"into": LONG}), ("replay", {"into": "bob", "model": LONG}),
    ("as_middleware", {"search_kwargs": LONG}), ("from_config", {"config_dict": {"llm": {"provider": LONG}}}),
    ("from_config", {"config_dict": {"llm": {"provider": "openai", "config": {LONG: 1}}}}),
    ("from_config", {"config_dict": {"profile": LONG}}),
]  # fmt: skip


def test_an_error_shows_the_beginning_of_a_long_value(folder: Path) -> None:
    with open_memory(folder) as memory:
        for call, given in LONG_ARGUMENTS:
            owner = {} if call in ("from_config", "as_middleware") else {"user_id": "u"}
            with pytest.raises(MemLayerError) as told:
                getattr(memory, call)(**given, **owner)
            assert len(str(told.value)) < 600


class NotATime(datetime):
    """As pandas has it."""

    def __ne__(self, other: object) -> bool:
        return True


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


BAD_ARGUMENTS: list[tuple[str, dict[str, Any]]] = [
    *(("add", {"messages": "tea", name: "no"}) for name in ("infer", "background")),
    *(("search", {"query": "tea", name: []}) for name in ("explain", "include_quarantined", "show_expired")),
    *(("search", {"query": "tea", name: Unshowable()}) for name in ("limit", "threshold", "as_of", "kinds")),
    *(("search", {"query": "tea", name: NotATime(2026, 1, 1)}) for name in ("reference_time", "known_at")),
    ("get_all", {"everything": "no"}), ("diff", {"since": "2020-01-01", "everything": "false"}),
    ("forget", {"memory_id": "1", "same_words": "no"}), ("fork", {"name": "f", "new": "no"}),
    ("add_graph_documents", {"documents": None}), ("adopt", {"documents": 3}),
    ("reconcile", {"messages": "tea", "facts": None}),
    *(
        ("reconcile", {"messages": [{**TEA, "id": "1"}], "facts": [{**STATED, name: value}], "by_agent": by_agent})
        for by_agent in (False, True)
        for name, value in (
            ("text", " "), ("text", "a\0"), ("quote", "\ud800"), ("sources", [["1"]]), ("triples", [["a", "b"]]),
            ("triples", ["abc"]), ("triples", [["a", "b", ""]]), ("valid_at", "soon"), ("valid_until", 3),
            ("name", 3), ("metadata", [1]), ("metadata", {"a": object()}), ("corrects", 3),
        )
    ),
    *(("reconcile", {"messages": "tea", "facts": [], "rejected": [one]}) for one in (3, {}, {"memory": 3})),
    ("as_middleware", {"limit": 0}), ("as_middleware", {"tools": "no"}),
    ("as_middleware", {"search_kwargs": {"threshold": 7}}), ("as_middleware", {"search_kwargs": {"kinds": "all"}}),
    ("as_middleware", {"search_kwargs": {"filters": {"a": {"$nope": 1}}}}),
    ("as_retriever", {"k": "4"}), ("as_retriever", {"search_kwargs": [1]}), ("as_retriever", {"expand": -1}),
    ("replay", {"into": "bob", "extractor": "mine"}),
]  # fmt: skip


def test_what_an_argument_cannot_be_is_told_where_it_is_given(folder: Path) -> None:
    with open_memory(folder) as memory:
        for call, given in BAD_ARGUMENTS:
            unowned = call == "as_middleware" or "everything" in given or "memory_id" in given
            with pytest.raises((InvalidInput, ConfigurationError)):
                getattr(memory, call)(**given, **({} if unowned else {"user_id": "u"}))
            assert memory.get_all(everything=True, kinds=["fact"])["results"] == [], (call, given.keys())


class Tenant(str, Enum):  # noqa: UP042 - one whose text is its name and not its value
    ALICE = "alice"


class Number(int, Enum):
    THREE = 3


def test_ids_are_plain_text_whatever_kind_of_text_or_number_they_are(folder: Path) -> None:
    with open_memory(folder) as memory:
        for one in (Tenant.ALICE, Number.THREE, np.str_("bob")):
            memory.add("I like tea", user_id=one)
        assert [row["user_id"] for row in memory.scopes()] == ["3", "alice", "bob"]
        assert len(memory.fork("trial", user_id=Tenant.ALICE).get_all()["results"]) == 1
        assert memory.search("tea", user_id="alice", filters={"user_id": Tenant.ALICE})["results"]
