"""The options of `Memory` and of its `search` that a model or another object of the caller's takes part in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journal_dump import open_memory, query, texts
from langchain_core.documents import BaseDocumentCompressor, Document
from memory_kit import WAYS, Mind, call, decided, found, open_with
from pydantic import Field

from langchain_memlayer import ConfigurationError, InvalidInput, Memory
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, ScriptedChatModel
from langchain_memlayer.types import Extraction, Fact, Turn

ANIMALS = ["The zebra is striped", "The walrus is wet", "The giraffe is tall", "The otter is quick"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- the model of a memory --------------------------------------------------------------------------------------------


def test_auto_is_gpt_4o_mini_with_a_key_and_no_model_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
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


@pytest.mark.parametrize("setting", [{"model": 5}, {"model": "nothing"}, {"reconcile": "sometimes"}])
def test_a_model_or_mode_that_is_none_is_refused_and_makes_no_folder(folder: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Memory(folder, embeddings=None, **({"model": None} | setting))
    assert not folder.exists()


def test_a_custom_prompt_reaches_the_model_and_is_named_by_why(folder: Path) -> None:
    mind = Mind({"I like tea": [found("Anna likes tea")]})
    model = mind.model
    with open_memory(folder, model=model, custom_prompt="Note only drinks.") as memory:
        [done] = memory.add("I like tea", user_id="u")["results"]
        assert str(model.prompts[0][0].content).startswith("Note only drinks.")
        assert memory.why(done["id"])["decisions"][0]["prompt"].startswith("custom")


async def test_an_extractor_of_ones_own_is_asked_in_place_of_the_model(folder: Path, way: str) -> None:
    class Recorded:
        version = "recorded-7"

        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            return Extraction(tuple(Fact(f"Noted: {turn.text}", (k,), quote=turn.text) for k, turn in enumerate(turns)))

        async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            return self.extract(turns, context)

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


# -- rewriting --------------------------------------------------------------------------------------------------------

SAID = [{"role": "user", "content": "Maria moved to Porto."}, {"role": "assistant", "content": "Nice!"}]


class Rewriting(Mind):
    """A mind that rewrites queries too, with given replies."""

    def __init__(self, *replies: Any) -> None:
        triples = [("Maria", "lives in", "Porto")]
        super().__init__({"Maria moved to Porto": [found("Maria lives in Porto", *triples)], "Bob has a boat": [
            found("Bob has a boat", ("Bob", "has", "boat"))]})  # fmt: skip
        self.replies = list(replies)

    def __call__(self, messages: Any) -> Any:
        if "Question:" in str(messages[-1].content):
            self.asked.append("rewriting")
            self.shown.append(str(messages[-1].content))
            return self.replies.pop(0)
        return super().__call__(messages)


async def test_a_rewritten_query_finds_memories_and_relations_of_those_it_names(folder: Path, way: str) -> None:
    mind = Rewriting({"queries": ["Where does Maria live?"]})
    with open_with(mind, folder) as memory:
        memory.add(["Maria moved to Porto", "Bob has a boat"], user_id="u")
        mind.asked.clear()
        given = {"user_id": "u", "messages": SAID, "rewrite": True, "limit": 1}
        hits = await call(way, memory, "search", "and where does she live?", **given)
        assert texts(hits)[0] in ("Maria lives in Porto", "Maria moved to Porto")
        assert hits["relations"] == [{"source": "Maria", "relationship": "lives_in", "destination": "Porto"}]
        assert mind.asked == ["rewriting"]
        assert "user: Maria moved to Porto." in mind.shown[-1]
        assert memory.search("and where does she live?", user_id="u")["relations"] == []


async def test_several_queries_are_one_result_without_doubles_best_first(folder: Path, way: str) -> None:
    mind = Rewriting({"queries": ["Where does Maria live?", "Bob's boat", "Maria in Porto"]})
    with open_with(mind, folder) as memory:
        memory.add(["Maria moved to Porto", "Bob has a boat"], user_id="u")
        hits = (await call(way, memory, "search", "they?", user_id="u", rewrite=True))["results"]
        assert len({hit["id"] for hit in hits}) == len(hits)
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        assert {"Maria", "Bob"} <= {hit["memory"].split()[0] for hit in hits}


@pytest.mark.parametrize("reply", ["I cannot.", json.dumps({"queries": []}), json.dumps({"queries": [7, ""]})])
async def test_a_reply_that_cannot_be_read_leaves_the_query_as_it_is(folder: Path, way: str, reply: str) -> None:
    with open_with(Rewriting(reply), folder) as memory:
        memory.add(["Maria moved to Porto", "Bob has a boat"], user_id="u")
        assert await call(way, memory, "search", "Porto", user_id="u", rewrite=True) == memory.search(
            "Porto", user_id="u"
        )


async def test_rewriting_that_fails_searches_for_the_query_and_without_a_model_says_so(folder: Path, way: str) -> None:
    with open_with(Rewriting(TimeoutError("slow")), folder) as memory:
        memory.add("Maria moved to Porto", user_id="u")
        hits = await call(way, memory, "search", "Porto", user_id="u", rewrite=True)
        assert hits == memory.search("Porto", user_id="u")
    with open_memory(folder) as memory, pytest.raises(ConfigurationError, match="model="):
        await call(way, memory, "search", "Porto", user_id="u", rewrite=True)


# -- reranking --------------------------------------------------------------------------------------------------------


class Backwards(BaseDocumentCompressor):
    """The last ones first, and one of its own."""

    asked: list[tuple[str, list[str]]] = Field(default_factory=list)

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        self.asked.append((query, [document.page_content for document in documents]))
        invented = [Document("The unicorn is real"), Document("x", metadata={"place": 99})]
        return [*invented, *reversed(documents), *documents]


async def test_a_reranker_orders_the_hits_anew_and_adds_none(folder: Path, way: str) -> None:
    reranker = Backwards()
    with open_memory(folder, embeddings=DeterministicEmbeddings()) as memory:
        memory.add(ANIMALS, user_id="u")
        plain = texts(memory.search("The zebra", user_id="u", limit=4))
        hits = await call(way, memory, "search", "The zebra", user_id="u", limit=2, rerank=reranker)
        assert texts(hits) == plain[::-1][:2]
    # It chooses from more than it may give.
    assert reranker.asked == [("The zebra", plain)]


@pytest.mark.parametrize("reranker", ["cohere", 5, object()])
async def test_something_else_than_a_reranker_is_refused(folder: Path, way: str, reranker: Any) -> None:
    with open_memory(folder) as memory:
        memory.add(ANIMALS, user_id="u")
        with pytest.raises(InvalidInput, match="rerank"):
            await call(way, memory, "search", "zebra", user_id="u", rerank=reranker)


# -- how much is shown ------------------------------------------------------------------------------------------------


async def test_max_tokens_keeps_the_best_that_fit_whole(folder: Path, way: str) -> None:
    with open_memory(folder) as memory:
        memory.add([*ANIMALS, "The zebra " + "runs and " * 200], user_id="u")
        everything = texts(memory.search("The zebra runs", user_id="u"))
        for most in (1, 8, 20, 10_000):
            shown = texts(await call(way, memory, "search", "The zebra runs", user_id="u", max_tokens=most))
            assert [text for text in everything if text in shown] == shown
            assert bool(shown) == (most > 1)
        assert shown == everything
        small = texts(memory.search("The zebra runs", user_id="u", max_tokens=20))
        assert 0 < len(small) < len(everything)
        assert all(len(text) < 100 for text in small)


@pytest.mark.parametrize("most", [0, -1, 1.5, "10", True])
async def test_a_budget_that_is_none_is_refused(folder: Path, way: str, most: Any) -> None:
    with open_memory(folder) as memory:
        for name in ("max_tokens", "expand") if most != 0 else ("max_tokens",):
            with pytest.raises(InvalidInput, match=name):
                await call(way, memory, "search", "x", user_id="u", **{name: most})


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


# -- forgetting by saying so ------------------------------------------------------------------------------------------


async def test_forget_that_i_ends_the_memory_through_the_whole_of_it(folder: Path, way: str) -> None:
    forget = "Please forget that I like tea"
    told = {
        "I like tea": [found("Anna likes tea", ("Anna", "likes", "tea"))],
        forget: [found("Anna likes tea", quote="forget that I like tea", retract=True)],
        "Forget my coffee": [found("Anna likes coffee", quote="Forget my coffee", retract=True)],
    }
    mind = Mind(told, decided((1, "DELETE", 1)))
    with open_with(mind, folder) as memory:
        await call(way, memory, "add", "I like tea", user_id="u")
        done = await call(way, memory, "add", forget, user_id="u")
        assert [row["event"] for row in done["results"]] == ["DELETE"]
        assert len(done["relations"]["deleted_entities"]) == 1
        assert memory.get_all(user_id="u")["results"] == []
        assert "I like tea" not in texts(memory.search("tea", user_id="u"))
        nothing = await call(way, memory, "add", "Forget my coffee", user_id="u")
        assert (nothing["results"], len(nothing["rejected"])) == ([], 1)
        assert mind.asked == ["extraction"] * 3


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
