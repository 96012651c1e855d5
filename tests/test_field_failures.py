"""Failures that users of other memories reported, each as a test of `Memory` with a model, named after its failure.

Those of single parts stand beside the tests of these parts; their names begin with `test_field_` too.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from journal_dump import texts
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from memory_kit import WAYS, Mind, call, decided, found, live, message, open_with

SAID = "Xenia Quagmire plays the theremin in Ouagadougou"
ENTITIES = ("Quagmire", "theremin", "Ouagadougou")


def mind() -> Mind:
    triples = [("Xenia Quagmire", "plays", "theremin"), ("Xenia Quagmire", "lives in", "Ouagadougou")]
    return Mind({SAID: [found(SAID, *triples)], "I like tea": [found("The user likes tea")]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_field_delete_keeps_relations_entity_names_and_raw_messages(folder: Path, way: str) -> None:
    with open_with(mind(), folder) as memory:
        [told] = (await call(way, memory, "add", SAID, user_id="u"))["results"]
        await call(way, memory, "add", "I like tea", user_id="u")
        assert len(memory.graph(user_id="u").nodes()) == 3
        await call(way, memory, "delete", told["id"])
        assert list(memory.graph(user_id="u").nodes()) == []
        for asked in (SAID, *ENTITIES):
            shown = await call(way, memory, "search", asked, user_id="u", include_quarantined=True)
            assert shown["relations"] == []
            assert set(texts(shown)) <= {"I like tea", "The user likes tea"}
        assert (await call(way, memory, "get_all", user_id="u"))["relations"] == []


async def test_field_delete_keeps_history_and_forget_leaves_none_of_it(folder: Path, way: str) -> None:
    with open_with(mind(), folder) as memory:
        [told] = (await call(way, memory, "add", SAID, user_id="u"))["results"]
        await call(way, memory, "add", "I like tea", user_id="u")
        memory.search("theremin", user_id="u")
        await call(way, memory, "delete", told["id"])
        assert [row["event"] for row in memory.history(told["id"])] == ["ADD", "DELETE"]
        await call(way, memory, "forget", told["id"])
        assert not any(row["prev_value"] or row["new_value"] for row in memory.history(told["id"]))
        assert live(memory) == ["The user likes tea"]
        for name in ENTITIES:
            assert name.encode() not in bytes_of(folder)


async def test_field_langchain_messages_crash_add_and_tool_text_is_dropped(folder: Path, way: str) -> None:
    calls = [{"name": "look", "args": {"at": "points"}, "id": "c1"}]
    said = [
        SystemMessage("Be kind."),
        HumanMessage(
            [{"type": "text", "text": "I like tea"}, {"type": "image_url", "image_url": {"url": "x"}}], id="1"
        ),
        AIMessage("", tool_calls=calls, id="2"),
        ToolMessage("You have 12 points", tool_call_id="c1", id="3"),
        AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "You have 12 points."}], id="4"),
    ]
    told = {"I like tea": [found("The user likes tea")], "You have 12 points": [found("The account has 12 points")]}
    with open_with(Mind(told), folder) as memory:
        assert texts(await call(way, memory, "add", said, user_id="u")) == [
            "The user likes tea", "The account has 12 points",
        ]  # fmt: skip
        kept = memory.get_all(user_id="u", kinds=["turn"])["results"]
        assert [(turn["role"], turn["memory"], turn["quarantined"]) for turn in kept] == [
            ("user", "I like tea", False), ("tool", "You have 12 points", True),
            ("assistant", "You have 12 points.", False),
        ]  # fmt: skip
        for asked in (False, True):
            shown = texts(memory.search("points", user_id="u", include_quarantined=asked))
            assert bool({"You have 12 points", "The account has 12 points"} & set(shown)) == asked


async def test_field_slow_adds_two_calls_at_most_and_none_that_the_caller_waits_for(folder: Path, way: str) -> None:
    answer = threading.Event()

    def slowly(prompt: str) -> dict[str, Any]:
        assert answer.wait(60)
        return decided((1, "ADD"))

    model = Mind(
        {"I like tea": [found("Anna likes tea")], "Tea with milk": [found("Anna likes tea with milk")]}, slowly
    )
    with open_with(model, folder) as memory:
        await call(way, memory, "add", "I like tea", user_id="u")
        model.asked.clear()
        shown = await call(way, memory, "add", "Tea with milk", user_id="u", background=True)
        # The model has not answered yet, and what was said can be recalled.
        assert texts(shown) == ["Tea with milk"]
        assert "Tea with milk" in texts(memory.search("tea milk", user_id="u"))
        assert live(memory) == ["Anna likes tea"]
        answer.set()
        assert await call(way, memory, "flush", 60)
        assert live(memory) == ["Anna likes tea", "Anna likes tea with milk"]
        assert model.asked == ["extraction", "reconciliation"]


async def test_field_queued_payloads_of_a_thread_are_dropped(folder: Path, way: str) -> None:
    told = {f"Friend number {k} called": [found(f"Friend number {k} called the user")] for k in range(8)}
    with open_with(Mind(told), folder, reconcile="rules") as memory:
        for k, said in enumerate(told):
            await call(way, memory, "add", message(said, str(k)), user_id="u", session_id="t", background=True)
        assert await call(way, memory, "flush", 60)
        assert sorted(live(memory)) == [f"Friend number {k} called the user" for k in range(8)]


async def test_field_one_hallucination_is_copied_through_recall(folder: Path, way: str) -> None:
    told = {"What do I like?": [found("The user likes tea", quote="The user likes tea")]}
    model = Mind({**told, "I like tea": [found("The user likes tea")]})
    with open_with(model, folder) as memory:
        await call(way, memory, "add", "I like tea", user_id="u")
        sizes = set()
        for turn in range(10):
            known = memory.search("What do I like?", user_id="u")["results"]
            block = "<recalled_memories>\n" + "\n".join(hit["memory"] for hit in known) + "\n</recalled_memories>"
            said = [message(f"{block}\nWhat do I like?", f"q{turn}"), message(block, f"a{turn}", role="assistant")]
            await call(way, memory, "add", said, user_id="u")
            [fact] = memory.get_all(user_id="u")["results"]
            sizes.add((fact["memory"], fact["count"], len(memory.get_all(user_id="u", kinds=["turn"])["results"])))
        assert sizes == {("The user likes tea", 1, 2)}
        assert not [shown for shown in model.shown if "recalled_memories" in shown]
