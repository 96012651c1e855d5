"""What a model may do at read time: rewriting, taking apart, reranking. Off by default, counted, traced."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from journal_dump import open_memory, texts
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from memory_kit import call
from test_tracing import recorded

from langchain_memlayer import ConfigurationError, InvalidInput, Memory
from langchain_memlayer.facts.rewriting import Rewriter
from langchain_memlayer.testing import ScriptedChatModel
from langchain_memlayer.types import Turn

TALK = [{"role": "user", "content": "I met Maria."}, {"role": "assistant", "content": "Nice, from Porto?"}]
SAID = ["Maria's dog is called Rex", "Tom's dog is called Bello", "Maria plays the cello", "Tom plays chess",
        "The weather is fine"]  # fmt: skip


@pytest.fixture
def opened() -> Iterator[Callable[..., tuple[Memory, ScriptedChatModel]]]:
    memories: list[Memory] = []

    def open_one(*replies: Any, **settings: Any) -> tuple[Memory, ScriptedChatModel]:
        model = ScriptedChatModel(replies=replies, **settings)
        memories.append(open_memory(":memory:", model=model, embeddings=None))
        memories[-1].add(SAID, user_id="u", infer=False)
        return memories[-1], model

    yield open_one
    for memory in memories:
        memory.close()


async def ask(memory: Memory, query: str, *, way: str, **asked: Any) -> Any:
    return await call(way, memory, "search", query, user_id="u", **asked)


async def test_no_model_is_asked_unless_told(opened: Any, way: str) -> None:
    memory, model = opened()
    await ask(memory, "and hers?", way=way)
    await ask(memory, "and hers?", way=way, messages=TALK)
    await ask(memory, "dog", way=way, limit=1, expand=1, max_tokens=100, explain=True)
    assert model.calls == 0


async def test_a_question_is_rewritten_by_one_call(opened: Any, way: str) -> None:
    memory, model = opened({"queries": ["What is Maria's dog called?"]}, {"queries": ["x"]})
    found = await ask(memory, "and hers?", way=way, messages=TALK, rewrite=True, limit=1)
    assert texts(found) == ["Maria's dog is called Rex"]
    assert model.calls == 1
    shown = model.prompts[0][-1].text
    assert "user: I met Maria.\nassistant: Nice, from Porto?" in shown
    assert shown.endswith("Question:\nand hers?")
    # The model is told the date that the question is seen from.
    assert "Today is 2025-01-01 Wed." in shown
    memory.search("last week?", user_id="u", rewrite=True, reference_time="2024-05-13T10:00:00+02:00")
    assert "Today is 2024-05-13 Mon." in model.prompts[1][-1].text


def test_a_model_that_takes_no_schema_is_asked_plainly_from_then_on(opened: Any) -> None:
    memory, model = opened(
        {"queries": ["chess"]}, {"queries": ["cello"]}, structured=("function_calling",), refuses=True
    )
    assert texts(memory.search("what?", user_id="u", rewrite=True, limit=1)) == ["Tom plays chess"]
    assert texts(memory.search("what?", user_id="u", rewrite=True, limit=1)) == ["Maria plays the cello"]
    assert model.calls == 3


async def test_when_the_model_fails_the_question_stays(opened: Any, way: str, caplog: pytest.LogCaptureFixture) -> None:
    replies = [TimeoutError("too slow"), "", "I cannot help with that.", {"queries": []},
               {"queries": ["", "  ", 5, None]}, {"queries": "x"}, "{"]  # fmt: skip
    memory, model = opened(*replies)
    usual = await ask(memory, "Who plays chess?", way=way)
    with caplog.at_level(logging.WARNING):
        for calls in range(1, len(replies) + 1):
            assert await ask(memory, "Who plays chess?", way=way, messages=TALK, rewrite=True) == usual
            assert model.calls == calls
    # The log says that, and nothing of what was said.
    assert not any(word in caplog.text for word in ("chess", "Maria", "slow"))
    assert "TimeoutError" in caplog.text


def test_what_is_no_model_no_conversation_and_no_compressor_is_refused_before_anything_is_done(opened: Any) -> None:
    with open_memory(":memory:") as memory, pytest.raises(ConfigurationError, match="model="):
        memory.search("x", user_id="u", rewrite=True)
    memory, model = opened()
    for messages in (5, [5], [{"role": "user"}]):
        with pytest.raises(InvalidInput):
            memory.search("x", user_id="u", messages=messages, rewrite=True)
    for rerank in ("cohere", 5, object(), lambda documents: documents):
        with pytest.raises(InvalidInput, match="rerank"):
            memory.search("dog", user_id="u", rerank=rerank, rewrite=True)
    assert model.calls == 0


def test_only_the_last_turns_are_shown_and_long_ones_shortened() -> None:
    model = ScriptedChatModel(replies=[{"queries": ["x"]}])
    turns = [Turn(f"turn {n} {'long ' * 1000 if n == 19 else ''}") for n in range(20)]
    assert Rewriter(model).rewrite("q", turns, datetime(2024, 5, 1, tzinfo=UTC)).queries == ("x",)
    shown = model.prompts[0][-1].text
    assert "turn 12 " in shown
    assert "turn 11 " not in shown
    assert len(shown) < 2_000


def test_what_the_model_writes_can_be_searched_for_three_queries_at_most_and_each_once(opened: Any) -> None:
    memory, _ = opened(
        '{"queries": ["chess \\ud800\\u0000", "' + "x" * 5_000 + '"]}',
        {"queries": ["chess", "chess", "cello", "weather", "Bello", "Rex"]},
    )
    assert texts(memory.search("what?", user_id="u", rewrite=True, limit=1)) == ["Tom plays chess"]
    assert set(texts(memory.search("?", user_id="u", rewrite=True, limit=3))) == {SAID[3], SAID[2], SAID[4]}


@pytest.fixture
def related(opened: Any) -> Callable[..., tuple[Memory, ScriptedChatModel]]:
    def open_one(*replies: Any) -> tuple[Memory, ScriptedChatModel]:
        memory, model = opened(*replies)
        documents = [graph_document("Maria Silva", "lives in", "Porto"), graph_document("Tom", "lives in", "Bonn")]
        memory.add_graph_documents(documents, user_id="u")
        return memory, model

    return open_one


def graph_document(source: str, relation: str, target: str) -> SimpleNamespace:
    ends = [SimpleNamespace(id=name, type="Node", properties={}) for name in (source, target)]
    edge = SimpleNamespace(source=ends[0], target=ends[1], type=relation, properties={})
    said = Document(f"{source} {relation} {target}")
    return SimpleNamespace(nodes=ends, relationships=[edge], source=said)


IN_PORTO = {"source": "Maria Silva", "relationship": "lives_in", "destination": "Porto"}


async def test_the_entities_that_the_model_names_bring_their_relations(related: Any, way: str) -> None:
    names = ["Maria Silva", "maria silva", "my friend Maria Silva", "MARIA SILVA's"]
    memory, model = related(
        *({"queries": ["her home"], "entities": [name]} for name in names), {"queries": ["her home"]}
    )
    for _ in names:
        found = await ask(memory, "and hers?", way=way, rewrite=True, explain=True)
        assert found["relations"] == [IN_PORTO]
        (home,) = (hit for hit in found["results"] if hit["memory"] == "Maria Silva lives in Porto")
        assert home["explanation"]["graph"] > 0
    # It is the name that brought them: the queries have none.
    found = await ask(memory, "and hers?", way=way, rewrite=True, explain=True)
    assert found["relations"] == []
    assert all(hit["explanation"]["graph"] == 0 for hit in found["results"])
    assert model.calls == len(names) + 1


def test_they_stand_beside_those_that_the_queries_name_and_what_nobody_knows_brings_nothing(related: Any) -> None:
    none = [None, [], "Maria", {}, 5, ["", "  ", 5, None], ["Marta", "Mar", "x" * 5_000], [["Maria Silva"]]]
    memory, _ = related(
        {"queries": ["Tom's home", "her home"], "entities": ["Maria Silva", "Tom"]},
        *({"queries": ["Who plays chess?"], "entities": entities} for entities in none),
    )
    relations = memory.search("theirs?", user_id="u", rewrite=True)["relations"]
    assert sorted(relation["source"] for relation in relations) == ["Maria Silva", "Tom"]
    for _ in none:
        found = memory.search("and who plays that?", user_id="u", rewrite=True, limit=1)
        assert (texts(found), found["relations"]) == (["Tom plays chess"], [])


async def test_every_part_of_a_question_has_its_answer(opened: Any, way: str) -> None:
    memory, model = opened({"queries": ["What is Maria's dog called?", "Which game does Tom play? chess?"]})
    memory.add([f"Maria's dog number {n} is called Rex" for n in range(20)], user_id="u", infer=False)
    found = await ask(memory, "her dog and his game?", way=way, rewrite=True, limit=3)
    assert "Tom plays chess" in texts(found)
    assert len(texts(found)) == 3
    assert len(set(texts(found))) == 3
    scores = [hit["score"] for hit in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert model.calls == 1


class Compressor(BaseDocumentCompressor):
    """Any document compressor: a function from documents to documents."""

    change: Callable[[list[Document]], Sequence[Document]] = list
    seen: list[tuple[str, list[str]]]

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        self.seen.append((query, [document.page_content for document in documents]))
        return self.change(list(documents))


def scored(documents: list[Document]) -> list[Document]:
    """As cross-encoders do: copies with a score of their own, the best first."""
    return [
        document.model_copy(update={"metadata": {**document.metadata, "relevance_score": 1.0}})
        for document in sorted(documents, key=lambda document: document.page_content)
    ]


async def test_a_compressor_orders_the_best_hits_anew(opened: Any, way: str) -> None:
    memory, model = opened()
    usual = await ask(memory, "Maria's dog, Tom's dog", way=way)
    compressor = Compressor(change=scored, seen=[])
    found = await ask(memory, "Maria's dog, Tom's dog", way=way, rerank=compressor)
    assert compressor.seen == [("Maria's dog, Tom's dog", texts(usual))]
    assert texts(found) == sorted(texts(usual))
    assert sorted(map(str, found["results"])) == sorted(map(str, usual["results"]))
    assert model.calls == 0


def test_limit_and_budget_are_spent_on_what_the_compressor_put_first(opened: Any) -> None:
    memory, _ = opened()
    compressor = Compressor(change=lambda documents: documents[::-1], seen=[])
    found = memory.search("Maria Tom dog called plays", user_id="u", limit=1, rerank=compressor)
    assert len(compressor.seen[0][1]) == 3
    assert texts(found) == compressor.seen[0][1][:1:-1]
    compressor = Compressor(change=scored, seen=[])
    found = memory.search("Maria's dog, Tom's dog", user_id="u", rerank=compressor, max_tokens=7)
    assert texts(found) == ["Maria plays the cello"]


CHANGES: list[Callable[[list[Document]], Sequence[Document]]] = [
    lambda d: [], lambda d: d[:1], lambda d: d + d, lambda d: [*d, Document("made up")],
    lambda d: [*d, Document("made up", metadata={"place": 99})],
    lambda d: [Document(one.page_content[:3], metadata=one.metadata) for one in d],
]  # fmt: skip


def test_only_hits_come_back_each_once_and_whole_and_what_is_raised(opened: Any) -> None:
    memory, _ = opened()
    usual = memory.search("dog", user_id="u")["results"]
    for change in CHANGES:
        found = memory.search("dog", user_id="u", rerank=Compressor(change=change, seen=[]))["results"]
        assert len({hit["id"] for hit in found}) == len(found)
        assert all(hit in usual for hit in found)

    def fail(documents: list[Document]) -> list[Document]:
        raise ConnectionError("no route")

    with pytest.raises(ConnectionError, match="no route"):
        memory.search("dog", user_id="u", rerank=Compressor(change=fail, seen=[]))


async def test_rewriting_and_reranking_are_runs_below_the_search(opened: Any, way: str) -> None:
    memory, _ = opened({"queries": ["chess", "cello"]})
    with recorded() as runs:
        compressor = Compressor(change=scored, seen=[])
        found = await ask(memory, "both?", way=way, rewrite=True, messages=TALK, rerank=compressor)
    assert runs.tree() == ["Memory.search", "Memory.search > reranking", "Memory.search > rewriting"]
    assert {run["name"]: run["run_type"] for run in runs.by_id.values()} == {
        "Memory.search": "retriever", "reranking": "chain", "rewriting": "llm",
    }  # fmt: skip
    assert all(run.get("end_time") and not run.get("error") for run in runs.by_id.values())
    assert runs.named("reranking")["outputs"]["ids"] == [hit["id"] for hit in found["results"]]
    assert "nostream" in runs.named("rewriting")["tags"]


def test_a_failed_rewriting_shows_in_the_trace_of_a_search_that_went_well(opened: Any) -> None:
    memory, _ = opened(TimeoutError("too slow"))
    with recorded() as runs:
        assert texts(memory.search("chess", user_id="u", rewrite=True, limit=1)) == ["Tom plays chess"]
    assert "too slow" in runs.named("rewriting")["error"]
    assert not runs.named("Memory.search").get("error")
