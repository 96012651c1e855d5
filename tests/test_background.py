from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from langchain_memlayer import ExtractionError, Memory, loops
from langchain_memlayer.testing import ScriptedChatModel
from langchain_memlayer.types import Unread


def reply(quote: str, text: str) -> dict[str, Any]:
    return {"facts": [{"turn": 1, "quote": quote, "fact": text, "subject": "Ann", "valid_at": "", "retract": False}]}


def facts(memory: Memory) -> list[str]:
    return [hit["memory"] for hit in memory.get_all(user_id="ann", kinds=["fact"])["results"]]


def test_the_turn_is_there_at_once_and_its_fact_after_a_flush(tmp_path: Path) -> None:
    model = ScriptedChatModel(replies=[reply("I live in Paris", "Ann lives in Paris")])
    with Memory(tmp_path, model=model, embeddings=None) as memory:
        shown = memory.add("I live in Paris.", user_id="ann", background=True)
        assert [row["memory"] for row in shown["results"]] == ["I live in Paris."]
        assert memory.search("Paris", user_id="ann", kinds=["turn"])["results"][0]["memory"] == "I live in Paris."
        assert memory.flush(60)
        assert facts(memory) == ["Ann lives in Paris"]
        (fact,) = memory.get_all(user_id="ann", kinds=["fact"])["results"]
        assert memory.why(fact["id"])["sources"][0]["quote"] == "I live in Paris"
        assert len(memory.get_all(user_id="ann", kinds=["turn"])["results"]) == 1


@pytest.mark.parametrize("told_at", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_told_while_the_thread_looks_for_more_is_done_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told_at: int, when: str
) -> None:
    model = ScriptedChatModel(
        replies=[reply("I live in Paris", "Ann lives in Paris"), reply("I like tea", "Ann likes tea")]
    )
    with Memory(tmp_path, model=model, embeddings=None, reconcile="off") as memory:
        background = memory._background
        real, looked = background._notes, 0

        def notes() -> list[Unread]:
            nonlocal looked
            # By the first look there is the first call, by the second it is done.
            looked += 1
            found = real() if when == "after" else []
            if looked == told_at:
                memory.add("I like tea.", user_id="ann", background=True, batch_id="tea")
            return found if when == "after" else real()

        monkeypatch.setattr(background, "_notes", notes)
        memory.add("I live in Paris.", user_id="ann", background=True)
        with background._changed:
            assert background._changed.wait_for(lambda: background._thread is None, 60)
        assert sorted(facts(memory)) == ["Ann likes tea", "Ann lives in Paris"]


def test_a_failing_model_keeps_it_pending_until_one_answers(tmp_path: Path) -> None:
    late = [TimeoutError("slow"), TimeoutError("slow"), reply("I live in Paris", "Ann lives in Paris")]
    model = ScriptedChatModel(replies=late)
    failures = 0
    with Memory(tmp_path, model=model, embeddings=None) as memory:
        memory.add("I live in Paris.", user_id="ann", background=True)
        # The first failure may be over before anybody waits; each flush that waits for one tells it.
        while not facts(memory):
            try:
                memory.flush(60)
            except ExtractionError:
                failures += 1
        assert failures in (1, 2)
        assert model.calls == 3


def test_what_is_pending_outlives_the_process_and_is_done_once(tmp_path: Path) -> None:
    with Memory(tmp_path, model=ScriptedChatModel(replies=[TimeoutError("slow")] * 2), embeddings=None) as memory:
        memory.add("I live in Paris.", user_id="ann", background=True)
        with pytest.raises(ExtractionError):
            memory.flush(60)
    model = ScriptedChatModel(replies=[reply("I live in Paris", "Ann lives in Paris")])
    for _ in range(2):
        with Memory(tmp_path, model=model, embeddings=None) as memory:
            memory.flush(60)
            assert facts(memory) == ["Ann lives in Paris"]
    assert model.calls == 1


def test_a_forgotten_turn_gives_no_fact(tmp_path: Path) -> None:
    with Memory(tmp_path, model=ScriptedChatModel(replies=[TimeoutError("slow")] * 2), embeddings=None) as memory:
        shown = memory.add("I live in Paris.", user_id="ann", background=True)
        with pytest.raises(ExtractionError):
            memory.flush(60)
        memory.forget(shown["results"][0]["id"])
    with Memory(tmp_path, model=ScriptedChatModel(replies=[]), embeddings=None) as memory:
        memory.flush(60)
        assert memory.get_all(user_id="ann", kinds=["fact", "turn"])["results"] == []


async def test_field_async_is_threads_around_sync_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads wait for the database only: calls that wait for the model hold none, or the 60 would not be in flight.
    monkeypatch.setattr(loops, "_THREADS", {})
    monkeypatch.setattr(loops, "_MOST_WAITING", 8)
    model = ScriptedChatModel(replies=[{"facts": []}] * 60, together=60)
    async with Memory(tmp_path, model=model, embeddings=None) as memory:
        before = threading.active_count()
        running = asyncio.gather(*(memory.aadd(f"note {n}", user_id=f"u{n}") for n in range(60)))
        await running
        assert model.most_in_flight == 60
        assert threading.active_count() - before < 20
        assert len(memory.get_all(everything=True, kinds=["turn"], limit=100)["results"]) == 60
