"""What is kept before any model is asked, what is still unread, and when it is tried again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from journal_dump import Faltering, open_memory, query, texts, unreachable
from memory_kit import Extracting, Mind, call, decided, found, live, message, open_with

from langchain_memlayer import ExtractionError, Memory, threads
from langchain_memlayer.errors import ConfigurationError, EmbeddingError, ScopeRequired
from langchain_memlayer.journal import reader
from langchain_memlayer.journal.base import random_id
from langchain_memlayer.testing import FrozenClock, ScriptedChatModel
from langchain_memlayer.types import Extraction, Fact, Turn, Unread

HOME = message("I live in Paris", "m1")
TEA = message("I like tea", "m2")
TOLD = {
    "I live in Paris": [found("Anna lives in Paris", ("Anna", "lives in", "Paris"))],
    "I live in Berlin": [found("Anna lives in Berlin", ("Anna", "lives in", "Berlin"))],
    "I like tea": [found("Anna likes tea")],
}
DOWN = {said: TimeoutError("slow") for said in TOLD}


def settle(memory: Memory) -> None:
    """Wait until the thread has seen that nothing is due: what a clock does afterwards, it does not meet."""
    with memory._background._changed:
        assert memory._background._changed.wait_for(lambda: not memory._background._busy, 60)


def fails(memory: Memory, *said: Any, **more: Any) -> None:
    with pytest.raises(ExtractionError):
        memory.add(list(said), user_id="u", **more)
    settle(memory)


class Held(Extracting):
    """An extractor that waits in the middle of a reading until it is let go."""

    def __init__(self) -> None:
        self.reading, self.go = threading.Event(), threading.Event()

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        self.reading.set()
        assert self.go.wait(60)
        return Extraction(tuple(Fact(f"It is said: {t.text}", (k,), quote=t.text) for k, t in enumerate(turns)))


@pytest.fixture
def held(folder: Path) -> Iterator[tuple[Memory, Held]]:
    extractor = Held()
    with open_memory(folder, extractor=extractor, reconcile="off") as memory:
        yield memory, extractor
        extractor.go.set()


async def test_a_message_whose_reading_fails_is_kept_found_and_listed(folder: Path, way: str) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder) as memory:
        with pytest.raises(ExtractionError):
            await call(way, memory, "add", [HOME], user_id="u")
        assert texts(memory.search("Paris", user_id="u")) == ["I live in Paris"]
        [unread] = await call(way, memory, "unread", user_id="u")
        assert [(turn["memory"], turn["role"]) for turn in unread["turns"]] == [("I live in Paris", "user")]
        assert (unread["attempts"], unread["reason"], unread["set_aside"]) == (
            1, "ExtractionError (TimeoutError)", False,
        )  # fmt: skip
        assert await call(way, memory, "unread", user_id="other") == []
        for ask in (memory.read, memory.unread):
            with pytest.raises(ScopeRequired):
                ask()
        mind.told = dict(TOLD)
        read = await call(way, memory, "read", user_id="u", retry=True)
        assert (texts(read), read["unread"]) == (["Anna lives in Paris"], [])
        assert memory.why(read["results"][0]["id"])["sources"][0]["id"] == "m1"
        assert await call(way, memory, "unread", user_id="u") == []


def test_what_fails_is_told_and_after_three_in_a_row_no_model_is_asked(folder: Path) -> None:
    said = [HOME, TEA, *(message(f"Berlin {n}", f"b{n}") for n in range(5))]
    mind = Mind({one["content"]: TimeoutError("slow") for one in said})
    with open_with(mind, folder) as memory:
        for one in said:
            fails(memory, one)
        mind.told["I like tea"] = TOLD["I like tea"]
        mind.asked.clear()
        read = memory.read(user_id="u", retry=True)
        assert texts(read) == ["Anna likes tea"]
        left = [turn["memory"] for note in read["unread"] for turn in note["turns"]]
        assert left == [one["content"] for one in said if one is not TEA]
        assert mind.asked.count("extraction") == 1 + 1 + 3
        mind.asked.clear()
        with pytest.raises(ExtractionError):
            memory.read(user_id="u", retry=True)
        assert mind.asked.count("extraction") == 3


@pytest.mark.parametrize("down", ["extraction", "reconciliation"])
def test_a_message_whose_reading_fails_is_found_by_its_meaning(folder: Path, down: str) -> None:
    mind = Mind(TOLD, TimeoutError("slow"))
    with open_with(mind, folder) as memory:
        memory.add(HOME, user_id="u")
        mind.told |= DOWN if down == "extraction" else {}
        fails(memory, message("I live in Berlin", "m3"))
        assert mind.asked[-1] == down
        assert query(folder, "SELECT count(*) FROM items WHERE id NOT IN (SELECT id FROM vectors)") == [(0,)]


def test_an_embedder_that_fails_loses_neither_message_nor_fact(folder: Path) -> None:
    embeddings = Faltering(unreachable)
    with open_with(Mind(TOLD), folder, embeddings=embeddings) as memory:
        memory.add(TEA, user_id="u")
        embeddings.broken = True
        with pytest.raises(EmbeddingError, match="ConnectionError"):
            memory.add(HOME, user_id="u")
        memory.add("Fine weather", user_id="u", background=True)
        with pytest.raises(EmbeddingError):
            memory.flush(60)
        embeddings.broken = False
        assert memory.flush(60)
        assert live(memory) == ["Anna likes tea", "Anna lives in Paris"]
        assert query(folder, "SELECT count(*) FROM items WHERE id NOT IN (SELECT id FROM vectors)") == [(0,)]


async def test_what_was_added_before_there_was_a_model_is_read_later_once(folder: Path, way: str) -> None:
    with open_memory(folder, model=None) as memory:
        with pytest.raises(ConfigurationError, match="model"):
            memory.read(user_id="u")
        memory.add([HOME, TEA], user_id="u", session_id="s")
        memory.add("I like tea", user_id="v")
        memory.add("I live in Berlin", user_id="u", infer=False)
    mind, told = Mind(TOLD), list[tuple[int, int]]()
    with open_with(mind, folder, new_id=random_id) as memory:
        for expected in (["Anna lives in Paris", "Anna likes tea"], []):
            read = await call(way, memory, "read", user_id="u", progress=lambda *numbers: told.append(numbers))
            assert texts(read) == expected
        assert (told, mind.asked) == ([(1, 1)], ["extraction"])
        assert live(memory, user_id="v") == []


def test_a_folder_lists_the_same_with_and_without_a_model(folder: Path) -> None:
    def listed(model: Any) -> list[str]:
        with open_memory(folder, model=model, new_id=random_id) as memory:
            return texts(memory.get_all(user_id="u"))

    mind = Mind(TOLD)
    with open_memory(folder, model=None) as memory:
        memory.add([HOME, message("Fine weather", "m3")], user_id="u")
        memory.add("As it is", user_id="u", infer=False)
    assert listed(None) == listed(mind.model) == ["I live in Paris", "Fine weather", "As it is"]
    with open_with(mind, folder, new_id=random_id) as memory:
        memory.read(user_id="u")
        memory.add(TEA, user_id="u")
    # What was read is in the facts, and what gave none says nothing.
    assert listed(None) == listed(mind.model) == ["As it is", "Anna lives in Paris", "Anna likes tea"]


def test_failures_are_tried_again_with_growing_pauses_and_set_aside_after_five(folder: Path) -> None:
    clock, mind = FrozenClock(), Mind(DOWN)
    with open_with(mind, folder, clock=clock) as memory:
        fails(memory, HOME)
        pauses = []
        for attempt in range(1, 5):
            [unread] = memory.unread(user_id="u")
            assert unread["attempts"] == attempt
            pauses.append(unread["next_at"])
            assert memory.read(user_id="u")["results"] == []
            assert len(mind.asked) == attempt
            clock.advance(minutes=4 ** (attempt - 1))
            with pytest.raises(ExtractionError):
                memory.read(user_id="u")
        assert len(set(pauses)) == 4
        [unread] = memory.unread(user_id="u")
        assert (unread["attempts"], unread["set_aside"]) == (5, True)
        clock.advance(days=30)
        assert memory.flush(60)
        assert memory.read(user_id="u")["results"] == []
        assert len(mind.asked) == 5
        mind.told = dict(TOLD)
        assert texts(memory.read(user_id="u", retry=True)) == ["Anna lives in Paris"]


def test_a_message_may_be_told_again_and_again_while_the_model_is_down(folder: Path) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder) as memory:
        for _ in range(40):
            fails(memory, HOME)
        assert [(note["attempts"], note["set_aside"]) for note in memory.unread(user_id="u")] == [(40, True)]
        mind.told = dict(TOLD)
        assert texts(memory.add([HOME], user_id="u")) == ["Anna lives in Paris"]


def test_a_refused_message_is_not_asked_about_again_with_every_later_one(folder: Path) -> None:
    mind = Mind({**TOLD, "I live in Paris": TimeoutError("refused")})
    with open_with(mind, folder) as memory:
        said = [HOME]
        fails(memory, *said)
        for k in range(3):
            said.append(message(f"sentence {k}", f"s{k}"))
            memory.add(said, user_id="u")
            memory.add([*said, message(f"later {k}", f"l{k}")], user_id="u", background=True)
            settle(memory)
        assert sum("I live in Paris" in shown.split("\n[")[-1] for shown in mind.shown) == 1
        [unread] = memory.unread(user_id="u")
        assert unread["attempts"] == 1


def test_of_two_processes_one_reads_a_note_and_the_other_leaves_it(folder: Path) -> None:
    clock, mind = FrozenClock(), Mind(DOWN)
    with open_with(mind, folder, clock=clock) as one, open_with(mind, folder, clock=clock) as other:
        fails(one, HOME)
        clock.advance(minutes=1)
        with one._journal.read() as reader:
            [note] = reader.unread()
        assert one._engine.claim(note)
        assert not other._engine.claim(note)
        mind.told = dict(TOLD)
        assert other.read(user_id="u")["results"] == []
        # Who died while reading is followed by others.
        clock.advance(minutes=5)
        assert texts(other.read(user_id="u")) == ["Anna lives in Paris"]
        assert live(one) == ["Anna lives in Paris"]


@pytest.mark.parametrize("kind", [RuntimeError, asyncio.CancelledError, SystemExit])
def test_any_error_of_an_extractor_is_told_by_flush_and_logged_without_its_words(
    folder: Path, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    class Broken(Extracting):
        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            raise kind(f"cannot read {turns[0].text}")

    with open_memory(folder, extractor=Broken()) as memory:
        memory.add("my PIN is 4711", user_id="u", background=True)
        with pytest.raises(ExtractionError) as told:
            memory.flush(60)
        assert isinstance(told.value.__cause__, kind)
        if issubclass(kind, Exception):
            fails(memory, "my PIN is 4711")
        assert "4711" not in f"{caplog.text}{told.value}{memory.unread(user_id='u')[0]['reason']}"


def test_turns_of_a_conversation_that_come_in_time_are_read_in_one_call(folder: Path) -> None:
    clock, mind = FrozenClock(), Mind(TOLD)
    with open_with(mind, folder, clock=clock) as memory:
        for said in (HOME, TEA, message("Fine weather", "m3")):
            memory.add(said, user_id="u", session_id="s", background=True, after_seconds=30)
            clock.advance(seconds=10)
        memory.add("I like tea", user_id="u", session_id="other", background=True, after_seconds=30)
        assert [len(unread["turns"]) for unread in memory.unread(user_id="u")] == [3, 1]
        assert mind.asked == []
        assert memory.flush(60)
        assert mind.asked == ["extraction"] * 2
        assert sorted(live(memory)) == ["Anna likes tea", "Anna lives in Paris"]
        # A conversation without a pause is read all the same.
        began = clock()
        for k in range(34):
            memory.add(message(f"sentence {k}", str(k)), user_id="v", background=True, after_seconds=30)
            [waiting] = memory.unread(user_id="v")
            assert waiting["next_at"] <= (began + timedelta(seconds=300)).isoformat()
            clock.advance(seconds=9)


def test_a_child_of_a_fork_reads_beside_itself_though_the_parents_thread_waits(folder: Path) -> None:
    with open_with(Mind(TOLD), folder, new_id=random_id) as memory:
        memory.add(HOME, user_id="u", background=True, after_seconds=1_000)

        def tell() -> None:
            memory.add(TEA, user_id="v", background=True)
            assert memory.flush(20)
            assert live(memory, user_id="v") == ["Anna likes tea"]

        child = get_context("fork").Process(target=tell)
        child.start()
        child.join(60)
        assert child.exitcode == 0


@pytest.mark.parametrize("told_at", [1, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_told_while_the_thread_looks_for_more_is_done_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, told_at: int, when: str
) -> None:
    with open_with(Mind(TOLD), folder, reconcile="off") as memory:
        background = memory._background
        real, looked = background._next, 0

        def looks() -> tuple[list[Unread], float | None]:
            nonlocal looked
            # By the first look there is the first call, by the second it is done.
            looked += 1
            found = real() if when == "after" else ([], None)
            if looked == told_at:
                memory.add(TEA, user_id="u", background=True, batch_id="tea")
            return found if when == "after" else real()

        monkeypatch.setattr(background, "_next", looks)
        memory.add(HOME, user_id="u", background=True)
        with background._changed:
            assert background._changed.wait_for(lambda: background._thread is None, 60)
        assert sorted(live(memory)) == ["Anna likes tea", "Anna lives in Paris"]


@pytest.mark.parametrize("keep_turns", [True, False])
def test_a_backlog_is_read_and_grows_without_being_looked_through_for_each_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, keep_turns: bool
) -> None:
    seen, real = 0, reader._to_unread

    def counting(row: Any) -> Unread:
        nonlocal seen
        seen += 1
        return real(row)

    monkeypatch.setattr(reader, "_to_unread", counting)
    calls, held = 60, Held()
    with open_memory(folder, extractor=held, reconcile="off", keep_turns=keep_turns) as memory:
        for k in range(calls):
            memory.add(f"sentence {k}", user_id="u", background=True)
        # The first is being read, and all others wait.
        assert len(memory.unread(user_id="u")) == calls
        assert seen < 12 * calls
        seen = 0
        held.go.set()
        assert memory.flush(60)
        assert memory.unread(user_id="u") == []
        assert seen < 12 * calls


def test_what_is_unread_outlives_the_process_and_is_read_once(folder: Path) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder) as memory:
        memory.add(HOME, user_id="u", background=True)
        with pytest.raises(ExtractionError):
            memory.flush(60)
    mind.told, mind.asked = dict(TOLD), []
    for _ in range(2):
        with open_with(mind, folder, new_id=random_id) as memory:
            memory.flush(60)
            assert live(memory) == ["Anna lives in Paris"]
    assert mind.asked == ["extraction"]


async def test_field_async_is_threads_around_sync_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads wait for the database only: calls that wait for the model hold none, or the 60 would not be in flight.
    monkeypatch.setattr(threads, "_THREADS", {})
    monkeypatch.setattr(threads, "_MOST_WAITING", 8)
    model = ScriptedChatModel(replies=[{"facts": []}] * 60, together=60)
    async with Memory(tmp_path, model=model, embeddings=None) as memory:
        before = threading.active_count()
        running = asyncio.gather(*(memory.aadd(f"note {n}", user_id=f"u{n}") for n in range(60)))
        await running
        assert model.most_in_flight == 60
        assert threading.active_count() - before < 20
        assert len(memory.get_all(everything=True, kinds=["turn"], limit=100)["results"]) == 60


async def test_what_a_cancelled_call_left_is_waited_for_by_the_thread(tmp_path: Path) -> None:
    asked = asyncio.Event()

    class Waiting(Extracting):
        async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            asked.set()
            await asyncio.Event().wait()
            return Extraction(())

        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            return Extraction((Fact("Anna likes tea", (0,), quote=turns[0].text),))

    clock = FrozenClock()
    async with open_memory(tmp_path / "m", extractor=Waiting(), clock=clock) as memory:
        task = asyncio.create_task(memory.aadd(TEA, user_id="u"))
        await asyncio.wait_for(asked.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(settle, memory)
        assert unread(memory) == [["I like tea"]]
        # It is left alone for as long as somebody else may be reading it.
        assert (memory._background._thread is not None, live(memory)) == (True, [])
        clock.advance(minutes=6)
        memory._background.wake()
        assert await asyncio.to_thread(memory.flush, 30)
        assert live(memory) == ["Anna likes tea"]


def unread(memory: Memory) -> list[list[str]]:
    return [[turn["memory"] for turn in one["turns"]] for one in memory.unread(user_id="u")]


@pytest.mark.parametrize("keep", [True, False])
def test_reconciling_ends_the_reading_that_found_the_facts_and_no_other(folder: Path, keep: bool) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder, keep_turns=keep) as memory:
        fails(memory, HOME)
        mind.told = {**TOLD, "I live in Paris": DOWN["I live in Paris"]}
        for said in ([TEA], [message("Fine weather", "m3")]):
            facts = memory.extract([HOME, *said], user_id="u")["facts"]
            memory.reconcile([HOME, *said], facts, user_id="u")
            assert unread(memory) == [["I live in Paris"]]
        assert live(memory) == ["Anna likes tea"]
        mind.told = dict(TOLD)
        assert texts(memory.read(user_id="u", retry=True)) == ["Anna lives in Paris"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_message_that_is_told_again_is_read_and_not_another(folder: Path, keep: bool) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder, keep_turns=keep) as memory:
        for said in (HOME, TEA, TEA):
            fails(memory, said)
        assert [note["attempts"] for note in memory.unread(user_id="u")] == [1, 2]
        mind.told = dict(TOLD)
        facts = memory.extract([TEA], user_id="u")["facts"]
        assert texts(memory.reconcile([TEA], facts, user_id="u")) == ["Anna likes tea"]
        assert unread(memory) == [["I live in Paris"]]


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_told_again_in_the_same_words_cites_the_message_that_tells_it_now(folder: Path, keep: bool) -> None:
    with open_with(Mind(TOLD), folder, keep_turns=keep) as memory:
        for number, event in (("m2", "ADD"), ("m7", "NONE"), (None, "NONE")):
            said = [message(TEA["content"], number)]
            [fact] = memory.extract(said, user_id="u")["facts"]
            assert number is None or fact["sources"] == [number]
            [done] = memory.reconcile(said, [fact], user_id="u")["results"]
            assert (done["event"], unread(memory)) == (event, [])


def test_a_message_that_comes_between_extraction_and_reconciliation_is_read(folder: Path) -> None:
    mind = Mind(TOLD)
    with open_with(mind, folder) as memory:
        facts = memory.extract([TEA], user_id="u")["facts"]
        memory.reconcile([TEA, HOME], facts, user_id="u")
        assert memory.flush(60)
        assert (live(memory), unread(memory)) == (["Anna likes tea", "Anna lives in Paris"], [])
        assert mind.asked == ["extraction"] * 2


@pytest.mark.parametrize("how", ["forget the scope", "forget the turn", "delete the turn", "delete all", "reset"])
def test_what_goes_while_it_is_read_gives_no_fact(held: tuple[Memory, Held], how: str) -> None:
    memory, extractor = held
    [turn] = memory.add("my PIN is 4711", user_id="u", background=True)["results"]
    assert extractor.reading.wait(60)
    {
        "forget the scope": lambda: memory.forget(user_id="u"), "forget the turn": lambda: memory.forget(turn["id"]),
        "delete the turn": lambda: memory.delete(turn["id"]), "delete all": lambda: memory.delete_all(user_id="u"),
        "reset": memory.reset,
    }[how]()  # fmt: skip
    extractor.go.set()
    assert memory.flush(60)
    assert memory.get_all(user_id="u", kinds=["fact", "turn"])["results"] == []
    assert memory.unread(user_id="u") == []


def test_what_is_forgotten_of_a_message_while_it_is_read_anew_does_not_come_back(folder: Path) -> None:
    class Sentences(Extracting):
        meanwhile: Any = None

        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            said = [(k, quote) for k, turn in enumerate(turns) for quote in turn.text.split(". ")]
            if self.meanwhile is not None:
                self.meanwhile()
            return Extraction(tuple(Fact(f"It is said: {quote}", (k,), quote=quote) for k, quote in said))

    extractor = Sentences()
    with open_memory(folder, extractor=extractor, reconcile="off") as memory:
        secret, _ = memory.add("my PIN is 4711. I like tea", user_id="u")["results"]
        [turn] = memory.get_all(user_id="u", kinds=["turn"])["results"]
        memory.update(turn["id"], "my PIN is 4711. I like tea. I like cake")
        extractor.meanwhile = lambda: memory.forget(secret["id"])
        memory.read(user_id="u")
        assert unread(memory) == [["I like tea. I like cake"]]
        extractor.meanwhile = None
        memory.read(user_id="u")
        assert live(memory) == ["It is said: I like tea", "It is said: I like cake"]


def test_a_message_whose_metadata_are_changed_while_it_is_read_gives_its_facts(held: tuple[Memory, Held]) -> None:
    memory, extractor = held
    [turn] = memory.add("my PIN is 4711", user_id="u", background=True)["results"]
    assert extractor.reading.wait(60)
    memory.update(turn["id"], metadata={"level": 1})
    extractor.go.set()
    assert memory.flush(60)
    [fact] = memory.get_all(user_id="u", kinds=["fact"])["results"]
    assert (fact["sources"], fact["metadata"]["level"]) == ([turn["id"]], 1)
    assert memory.unread(user_id="u") == []


@pytest.mark.parametrize("keep", [True, False])
def test_words_that_a_message_had_before_it_was_read_are_never_read(folder: Path, keep: bool) -> None:
    extractor, mind = Held(), Mind(DOWN)
    with open_with(mind, folder, keep_turns=keep) as memory:
        fails(memory, HOME, TEA, batch_id="b")
        fails(memory, {**HOME, "content": "I live in Berlin"})
        assert sorted(text for note in unread(memory) for text in note) == ["I like tea", "I live in Berlin"]
        mind.told, mind.decisions = dict(TOLD), [decided()] * 2
        memory.read(user_id="u", retry=True)
        assert sorted(live(memory)) == ["Anna likes tea", "Anna lives in Berlin"]
        assert "Anna likes tea" in texts(memory.add([HOME, TEA], user_id="u", batch_id="b"))
    with open_memory(folder, extractor=extractor, reconcile="off", keep_turns=keep, new_id=random_id) as memory:
        memory.add(message("one", "m"), user_id="v", background=True)
        assert extractor.reading.wait(60)
        memory.add(message("two", "m"), user_id="v", background=True)
        extractor.go.set()
        assert memory.flush(60)
        assert live(memory, user_id="v") == ["It is said: two"]


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_deleted_before_it_was_read_does_not_come_back_with_its_conversation(folder: Path, keep: bool) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder, keep_turns=keep) as memory:
        fails(memory, HOME, session_id="s")
        event = memory.delete_all(user_id="u").get("event_id")
        mind.told, mind.decisions = dict(TOLD), [decided()]
        memory.add([HOME, TEA], user_id="u", session_id="s")
        memory.read(user_id="u", retry=True)
        assert live(memory) == ["Anna likes tea"]
        assert (event is None) == (not keep)


def test_a_text_that_was_written_by_hand_is_read_beside_a_conversation_that_waits(folder: Path) -> None:
    clock = FrozenClock()
    with open_with(Mind(TOLD, decided()), folder, clock=clock) as memory:
        [tea] = memory.add(TEA, user_id="u")["results"]
        memory.update(tea["id"], "I live in Paris")
        memory.add(message("I live in Berlin", "m3"), user_id="u", background=True, after_seconds=30)
        clock.advance(seconds=60)
        assert memory.flush(60)
        assert {one["destination"] for one in memory.get_all(user_id="u")["relations"]} == {"Berlin", "Paris"}


@pytest.mark.parametrize("keep", [True, False])
def test_the_facts_of_an_edited_message_end_or_are_updated(folder: Path, keep: bool) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")))
    with open_with(mind, folder, keep_turns=keep) as memory:
        [home] = memory.add(HOME, user_id="u")["results"]
        for content, event, left in (("I live in Berlin", "UPDATE", ["Anna lives in Berlin"]),
                                     ("Never mind the blue umbrella", "DELETE", [])):  # fmt: skip
            [done] = memory.add({**HOME, "content": content}, user_id="u")["results"]
            assert (done["id"], done["event"], live(memory)) == (home["id"], event, left)
        # It is found by its new words though its facts end.
        hits = memory.search("blue umbrella", user_id="u")["results"]
        assert [(hit["memory"], hit["ended"]) for hit in hits] == [("Never mind the blue umbrella", False)] * keep


@pytest.mark.parametrize("steps", ["update", "update update", "update delete", "told update delete", "told delete"])
def test_no_turn_behind_any_version_is_shown_as_current(folder: Path, steps: str) -> None:
    mind = Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Berlin")))
    with open_with(mind, folder) as memory:
        [done] = memory.add("I live in Paris", user_id="u")["results"]
        for number, step in enumerate(steps.split()):
            if step == "told":
                memory.add("I live in Berlin", user_id="u")
            elif step == "update":
                memory.update(done["id"], f"Anna lives in house {number}")
            else:
                memory.delete(done["id"])
        hits = memory.search("Where does Anna live? Paris? Berlin?", user_id="u")["results"]
        assert [hit for hit in hits if hit["kind"] == "turn" and not hit["ended"]] == []
        if "delete" in steps:
            assert hits == []


def test_a_turn_that_a_fact_cites_again_is_shown_again(folder: Path) -> None:
    with open_with(Mind(TOLD), folder) as memory:
        [done] = memory.add(TEA, user_id="u")["results"]
        memory.delete(done["id"])
        assert memory.search("tea", user_id="u")["results"] == []
        facts = memory.extract([message("I like tea, really", "m3")], user_id="u")
        assert facts["facts"] == []
        again = {"text": "Anna likes tea", "quote": "I like tea", "sources": ["m2"], "triples": []}
        memory.reconcile([TEA], [again], user_id="u")
        hits = memory.search("tea", user_id="u")["results"]
        assert "I like tea" in [one["text"] for hit in hits for one in hit["evidence"]]


@pytest.mark.parametrize("down", [False, True])
def test_forgetting_a_fact_takes_its_words_out_of_a_message_that_stays_for_another(folder: Path, down: bool) -> None:
    said = message("My safe code is xylophone. I like tea.", "m1")
    mind = Mind({said["content"]: [
        found("The safe code is xylophone", quote="My safe code is xylophone"),
        found("Anna likes tea", quote="I like tea"),
    ]})  # fmt: skip
    embeddings, clock = Faltering(unreachable), FrozenClock()
    with open_with(mind, folder, embeddings=embeddings, clock=clock) as memory:
        code, tea = memory.add(said, user_id="u")["results"]
        embeddings.broken = down
        done = memory.forget(code["id"])
        without = "SELECT count(*) FROM items WHERE closed IS NULL AND id NOT IN (SELECT id FROM vectors)"
        assert query(folder, without) == [(int(down),)]
        embeddings.broken = False
        clock.advance(minutes=2)
        memory.read(user_id="u")
        assert query(folder, without) == [(0,)]
        assert (done["count"], done["also"]) == (1, [])
        assert texts(memory.get_all(user_id="u", kinds=["turn"])) == ["I like tea."]
        assert memory.why(tea["id"])["sources"][0]["quote"] == "I like tea"
        assert texts(memory.search("tea", user_id="u"))[0] == "Anna likes tea"
        assert "xylophone" not in str(memory.search("safe code", user_id="u"))
    assert not [file for file in folder.rglob("*") if file.is_file() and b"xylophone" in file.read_bytes()]


@pytest.mark.parametrize("kind", ["turn", "fact"])
@pytest.mark.parametrize("how", ["update", "delete", "forget", "undo"])
def test_words_by_hand_that_do_not_hold_any_longer_are_not_to_be_read(folder: Path, kind: str, how: str) -> None:
    mind = Mind({**TOLD, "Anna likes mint": TimeoutError("slow"), "Anna likes milk": TimeoutError("slow")})
    with open_with(mind, folder) as memory:
        memory.add(TEA, user_id="u")
        [key] = [row["id"] for row in memory.get_all(user_id="u", kinds=[kind])["results"]]
        memory.update(key, "Anna likes mint")
        assert len(memory.unread(user_id="u")) == 1
        {
            "update": lambda: memory.update(key, "Anna likes milk"), "delete": lambda: memory.delete(key),
            "forget": lambda: memory.forget(key), "undo": lambda: memory.undo(memory.history(key)[-1]["id"]),
        }[how]()  # fmt: skip
        assert len(memory.unread(user_id="u")) == (how == "update")


def test_a_message_of_which_nothing_is_left_goes_though_another_fact_cites_it(folder: Path) -> None:
    mind = Mind({"Tea, please": [found("Anna likes tea"), found("Anna is polite")]})
    with open_with(mind, folder, reconcile="off") as memory:
        tea, _ = memory.add("Tea, please", user_id="u")["results"]
        memory.forget(tea["id"])
        assert texts(memory.get_all(user_id="u", kinds=["turn", "fact"])) == ["Anna is polite"]


def test_forget_names_who_else_holds_the_words_and_takes_them_along_when_asked(folder: Path) -> None:
    mind = Mind({
        "My PIN is 4711": [found("The PIN is 4711")],
        "Remember: my PIN is 4711": [found("Anna asked to remember the PIN 4711")],
    })  # fmt: skip
    with open_with(mind, folder, reconcile="off") as memory:
        [first] = memory.add("My PIN is 4711", user_id="u")["results"]
        memory.add("Remember: my PIN is 4711", user_id="u", session_id="later")
        memory.add("My PIN is 4711", user_id="other", infer=False)
        # What was undone is not what it says.
        memory.update(first["id"], "Bob plays chess")
        memory.undo(memory.history(first["id"])[-1]["id"])
        also = memory.forget(first["id"])["also"]
        assert {(one["kind"], one["memory"]) for one in also} == {
            ("turn", "Remember: my PIN is 4711"), ("fact", "Anna asked to remember the PIN 4711"),
        }  # fmt: skip
        fact = next(one["id"] for one in also if one["kind"] == "fact")
        assert memory.forget(fact, same_words=True)["also"] == []
        assert memory.get_all(user_id="u", kinds=["fact", "turn"])["results"] == []
        assert texts(memory.get_all(user_id="other")) == ["My PIN is 4711"]


def test_a_message_whose_metadata_were_changed_before_it_was_read_is_read_all_the_same(folder: Path) -> None:
    mind = Mind(DOWN)
    with open_with(mind, folder) as memory:
        fails(memory, HOME)
        [turn] = memory.get_all(user_id="u")["results"]
        memory.update(turn["id"], metadata={"level": 1})
        assert [one["id"] for one in memory.unread(user_id="u")[0]["turns"]] == [turn["id"]]
        mind.told = dict(TOLD)
        [fact] = memory.read(user_id="u", retry=True)["results"]
        assert memory.get(fact["id"])["metadata"]["level"] == 1
