"""A foreign vector store under the memory: delivered to, asked, doubted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document as LangChainDocument
from memory_kit import Extracting
from numpy.typing import NDArray

from langchain_memlayer import MemLayerStore, Memory, doctor
from langchain_memlayer.backends import base, proposals
from langchain_memlayer.backends.base import ITEM, STORE, Document, Point, Scalar, rows
from langchain_memlayer.backends.mirror import Mirror
from langchain_memlayer.errors import ConfigurationError, ExtractionError, InvalidInput, VectorStoreError
from langchain_memlayer.index.view import Hints
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.types import Extraction, Turn

ALICE = {"user_id": "alice"}
WORDS = "apple brick cloud drum eagle flute grape house iron jewel kite lemon mango north ocean piano quartz".split()  # noqa: SIM905


class Foreign:
    """A vector store in a dictionary, exact, that filters by equality; the tests make it misbehave."""

    kind = "testing"

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}
        self.searches: list[tuple[int, dict[str, Scalar]]] = []
        self.down = False

    def _alive(self) -> None:
        if self.down:
            raise ConnectionError("nobody answers at secret:password@host")

    def upsert(self, points: Sequence[Point]) -> None:
        self._alive()
        self.points.update((point.id, point) for point in points)

    def delete(self, ids: Sequence[str]) -> None:
        self._alive()
        for point in ids:
            self.points.pop(point, None)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        self._alive()
        self.searches.append((k, dict(where)))
        able = [p for p in self.points.values() if all(p.metadata.get(n) == v for n, v in where.items())]
        able.sort(key=lambda point: -float(point.vector @ vector))
        return [int(point.metadata[ITEM]) for point in able[:k]]

    def present(self, ids: Sequence[str]) -> set[str] | None:
        self._alive()
        return self.points.keys() & set(ids)

    def documents(self) -> Iterator[Document]:
        yield from (Document(p.id, p.text, p.metadata) for p in self.points.values())

    def check(self, dims: int) -> None:
        self._alive()


def sentences(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [f"{' '.join(random.choice(WORDS, 5))} number {n}" for n in range(count)]


def opened(path: Path | str, store: Any, **settings: Any) -> Memory:
    settings = {"embeddings": DeterministicEmbeddings(64), "model": None, "hnsw_threshold": 6_400, **settings}
    return Memory(path, vectorstore=store, **settings)


def filled(memory: Memory, texts: Sequence[str], **scope: str) -> None:
    memory.add([{"role": "user", "content": text} for text in texts], infer=False, **(scope or ALICE))


@contextmanager
def mirrored(store: Any, texts: Sequence[str], path: Path | str = ":memory:", **settings: Any) -> Iterator[Memory]:
    """A memory with texts of Alice's, all of which were brought to the store."""
    with opened(path, store, **settings) as memory:
        filled(memory, texts)
        memory.flush()
        yield memory


def found(memory: Memory, query: str, limit: int = 10, **scope: str) -> list[str]:
    return [hit["memory"] for hit in memory.search(query, limit=limit, **(scope or ALICE))["results"]]


def exact(texts: Sequence[str], queries: Sequence[str]) -> list[list[str]]:
    """What a memory without a foreign store answers."""
    with Memory(":memory:", embeddings=DeterministicEmbeddings(64), model=None) as plain:
        filled(plain, texts)
        return [found(plain, query) for query in queries]


def mirror_of(memory: Memory) -> Mirror:
    assert memory._indexes.mirror is not None
    return memory._indexes.mirror


def dense(memory: Memory, query: str, k: int = 10) -> Any:
    vector = np.array(memory._indexes.embedder.embed_query(query))
    return memory._indexes.view(".u.alice.").search(vector, k)


def test_what_is_added_changed_deleted_forgotten_and_reset_is_so_in_the_store() -> None:
    store = Foreign()
    store.points["theirs"] = Point("theirs", np.ones(64, np.float32), "theirs", {"theirs": True})
    with mirrored(store, ["the red apple", "the blue brick", "the green cloud"]) as memory:
        own = [point for point in store.points.values() if point.id != "theirs"]
        assert {point.text for point in own} == {"the red apple", "the blue brick", "the green cloud"}
        marks = {(point.metadata[STORE], point.metadata["user_id"]) for point in own}
        assert marks == {(memory._journal.store_id, "alice")}
        assert all(abs(float(np.linalg.norm(point.vector)) - 1) < 1e-3 for point in own)
        ids = {entry["memory"]: entry["id"] for entry in memory.get_all(**ALICE)["results"]}
        memory.update(ids["the red apple"], "the golden apple")
        memory.delete(ids["the blue brick"])
        memory.forget(ids["the green cloud"])
        memory.flush()
        assert {point.text for point in store.points.values()} == {"theirs", "the golden apple"}
        # What was undone is what it was before: an earlier version is the one that goes.
        memory.undo(memory.history(ids["the red apple"])[-1]["id"])
        memory.flush()
        assert {point.text for point in store.points.values()} == {"theirs", "the red apple"}
        memory.forget(ids["the red apple"])
        memory.flush()
        assert set(store.points) == {"theirs"}
        filled(memory, ["the last apple"])
        memory.flush()
        # A reset leaves what others keep there.
        memory.reset()
        assert set(store.points) == {"theirs"}


def test_above_the_threshold_the_vectors_stay_in_the_journal_and_the_answers_are_the_same() -> None:
    store, texts, queries = Foreign(), sentences(600), sentences(6, seed=5)

    def held(memory: Memory) -> bool:
        return memory._indexes.view(".u.alice.").held

    with opened(":memory:", store) as memory:
        filled(memory, texts[:90])
        assert held(memory)
        filled(memory, texts[90:])
        memory.flush()
        assert not held(memory)
        assert [found(memory, query) for query in queries] == exact(texts, queries)
        hits = dense(memory, queries[0])
        assert (hits.plan.way, hits.plan.scanned, mirror_of(memory).proposals.trusted) == ("source", 0, True)
        exactly = sorted(float(point.vector @ embedded(queries[0])) for point in store.points.values())
        assert np.allclose(sorted(hits.scores), exactly[-10:], atol=2e-3)
        for entry in memory.get_all(**ALICE, limit=5)["results"]:
            memory.delete(entry["id"])
        left = [entry["memory"] for entry in memory.get_all(**ALICE, limit=600)["results"]]
        store.down = True
        assert not held(memory)
        assert [found(memory, query) for query in queries] == exact(left, queries)
        # A store that is not asked any more answers for nothing: a graph of our own does.
        mirror_of(memory).proposals.trusted = False
        assert held(memory)


def test_the_store_is_asked_above_the_threshold_alone_for_the_scope_and_the_filters_equalities() -> None:
    store = Foreign()
    with opened(":memory:", store, hnsw_threshold=6_400) as memory:
        filled(memory, sentences(50, seed=2), user_id="bob")
        filled(memory, sentences(20))
        memory.flush()
        store.searches.clear()
        assert dense(memory, "apple drum").plan.way == "scan"
        assert store.searches == []
        filled(memory, sentences(280, seed=4))
        memory.flush()
        dense(memory, "apple")
        wanted = {STORE: memory._journal.store_id, "memlayer_scope": ".u.alice."}
        assert store.searches[-1][1] == wanted


def test_what_is_not_delivered_yet_is_scored_from_the_journal() -> None:
    store = Foreign()
    with mirrored(store, sentences(500)) as memory:
        for query in sentences(5, seed=3):
            dense(memory, query)
        store.upsert = lambda points: None  # answers searches, and takes nothing
        mirror = mirror_of(memory)
        memory._journal.after_commit.remove(mirror.wake)
        filled(memory, ["a violet zebra sings"])
        hits = dense(memory, "a violet zebra sings", 1)
        assert hits.plan.way == "source"
        assert hits.plan.scanned == 1
        assert abs(hits.scores[0] - 1) < 1e-2


def test_a_store_that_is_down_loses_nothing_and_catches_up(caplog: pytest.LogCaptureFixture) -> None:
    store, texts = Foreign(), sentences(300)
    store.down = True
    with opened(":memory:", store) as memory:
        filled(memory, texts)
        with pytest.raises(VectorStoreError, match="brought up to date"):
            memory.flush()
        assert found(memory, texts[7])[0] == texts[7]
        assert "was not brought the last 300 changes" in doctor.check(memory._journal)[0].message
        store.down = False
        memory.flush()
        assert len(store.points) == 300
        assert doctor.check(memory._journal) == []
    assert "password" not in caplog.text


def test_flush_tells_of_a_reading_that_failed_when_all_was_brought() -> None:
    class Broken(Extracting):
        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            raise RuntimeError

    store = Foreign()
    brought, upsert = threading.Event(), store.upsert
    store.upsert = lambda points: brought.wait(30) and upsert(points)  # type: ignore[method-assign,assignment]
    with opened(":memory:", store, extractor=Broken()) as memory:
        memory.add("the apple is red", **ALICE, background=True)
        threading.Timer(0.2, brought.set).start()
        with pytest.raises(ExtractionError):
            memory.flush(60)
        assert [point.text for point in store.points.values()] == ["the apple is red"]


def test_a_store_that_dies_during_searches_is_left_alone_for_a_while() -> None:
    store, texts = Foreign(), sentences(500)
    with mirrored(store, texts) as memory:
        store.down = True
        before = len(store.searches)
        for query in texts[:5]:
            hits = dense(memory, query)
            assert abs(hits.scores[0] - 1) < 1e-2
            assert hits.plan.fell_back
        assert len(store.searches) == before
        store.down = False
        memory.flush()
        assert dense(memory, texts[0]).plan.candidates > 0


def test_what_a_store_does_not_have_is_delivered_by_the_next_opening(tmp_path: Path) -> None:
    down, emptied = Foreign(), Foreign()
    down.down = True
    with opened(tmp_path / "m", down) as memory:
        filled(memory, sentences(20))
    down.down = False
    with opened(tmp_path / "m", down) as memory:
        memory.flush()
        assert len(down.points) == 20
        filled(memory, sentences(300, seed=2))
    with opened(tmp_path / "m", emptied) as memory:
        memory.flush()
        assert len(emptied.points) == 320


@pytest.mark.parametrize(
    "damaged", ["", "{", "[1]", '{"position":3}', '{"kind":7}', '{"kind":"testing","position":"x"}']
)
def test_by_a_damaged_note_of_what_it_was_brought_a_store_is_brought_everything(tmp_path: Path, damaged: str) -> None:
    texts, store = sentences(20), Foreign()
    with mirrored(store, texts, tmp_path) as memory, memory._journal.write() as tx:
        for key in ("outbox:memories", "purge:memories"):
            tx.set_meta(key, damaged)
    store.points.clear()
    with opened(tmp_path, store) as memory:
        assert memory.flush()
        assert len(store.points) == 20
        memory.reset()
        memory.flush()
        assert store.points == {}


def test_a_store_that_was_emptied_is_filled_anew_and_not_judged_by_what_it_lacked(tmp_path: Path) -> None:
    class Waiting(Foreign):
        frees = threading.Event()

        def present(self, ids: Sequence[str]) -> set[str] | None:
            self.frees.wait()
            return super().present(ids)

    texts, emptied = sentences(300), Waiting()
    with mirrored(Foreign(), texts, tmp_path / "m") as memory:
        wanted = [found(memory, text) for text in texts[:5]]
    with opened(tmp_path / "m", emptied) as memory:
        assert [found(memory, text) for text in texts[:5]] == wanted
        emptied.frees.set()
        memory.flush()
        assert len(emptied.points) == 300
        assert mirror_of(memory).proposals.trusted


def test_a_forget_while_the_store_is_down_says_so_and_is_done_later(caplog: pytest.LogCaptureFixture) -> None:
    store = Foreign()
    with mirrored(store, ["a secret"]) as memory:
        store.down = True
        with caplog.at_level(logging.WARNING):
            memory.forget(**ALICE)
        assert "still lies in the vector store" in caplog.text
        store.down = False
        memory.flush()
        assert store.points == {}


def test_what_was_forgotten_while_the_store_was_down_goes_though_the_journal_was_emptied_since() -> None:
    store = Foreign()
    with mirrored(store, ["a secret", "a word"]) as memory:
        store.down = True
        memory.forget(memory.get_all(**ALICE)["results"][0]["id"])
        memory.reset()
        store.down = False
        memory.flush()
        assert store.points == {}


class Hostile(Foreign):
    """Drops every second write, ignores filters, answers with other tenants' and deleted rows, worst first."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[Point] = []

    def upsert(self, points: Sequence[Point]) -> None:
        super().upsert([point for place, point in enumerate(points) if place % 2])

    def delete(self, ids: Sequence[str]) -> None:
        self.deleted += [self.points[point] for point in ids if point in self.points]

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        able = sorted(self.points.values(), key=lambda point: float(point.vector @ vector))
        rows = [int(point.metadata[ITEM]) for point in (*self.deleted, *able)]
        return [*rows[: k - 3], 10**12, -1, 0]

    def present(self, ids: Sequence[str]) -> set[str] | None:
        return None


def test_a_hostile_store_leaks_nothing_returns_nothing_dead_and_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    store, texts, others = Hostile(), sentences(1_000), sentences(1_000, seed=9)
    with opened(":memory:", store) as memory:
        filled(memory, texts)
        filled(memory, [f"bob's {text}" for text in others], user_id="bob")
        gone = memory.get_all(limit=50, **ALICE)["results"]
        for entry in gone:
            memory.delete(entry["id"])
        memory.flush()
        dead = {entry["memory"] for entry in gone}
        left = [text for text in texts if text not in dead]
        queries = sentences(100, seed=3)
        assert [found(memory, query) for query in queries] == exact(left, queries)
        assert not mirror_of(memory).proposals.trusted
        assert "it is not asked any more" in caplog.text


@pytest.mark.parametrize("answer", [[], [10**30], [None], ["x"], 7])
def test_a_store_that_gives_nothing_of_ours_lowers_no_recall(answer: Any) -> None:
    class Useless(Foreign):
        def search(self, *args: Any) -> list[int] | None:
            return answer  # type: ignore[no-any-return]

    texts = sentences(600)
    with mirrored(Useless(), texts) as memory:
        queries = sentences(10, seed=4)
        assert [found(memory, query) for query in queries] == exact(texts, queries)


def test_what_cannot_be_a_mirror_is_refused(tmp_path: Path) -> None:
    class Small(Foreign):
        def check(self, dims: int) -> None:
            raise ConfigurationError(f"The collection is for vectors of 8 numbers, not {dims}.")

    with mirrored(Foreign(), sentences(3), path=tmp_path / "m"):
        pass
    with pytest.raises(ConfigurationError, match="of 8 numbers, not 64"):
        opened(tmp_path / "m", Small())
    with pytest.raises(ConfigurationError, match="needs embeddings"):
        Memory(":memory:", vectorstore=Foreign(), embeddings=None, model=None)
    plain = Memory(":memory:", model=None, embeddings=None)
    with plain, pytest.raises(ConfigurationError, match="vectorstore="):
        plain.adopt(**ALICE)


def test_documents_that_were_there_before_are_invisible_until_adopted() -> None:
    store = Foreign()
    for place, text in enumerate(["the lighthouse keeper", "  ", "a copper kettle"]):
        store.points[f"their-{place}"] = Point(f"their-{place}", np.ones(64, np.float32), text, {"page": place})
    with mirrored(store, ["something of ours"]) as memory:
        assert found(memory, "lighthouse keeper") == ["something of ours"]
        assert memory.adopt(**ALICE) == {"adopted": 2, "known": 0, "skipped": 1}
        hits = memory.search("lighthouse keeper", **ALICE)["results"]
        assert hits[0]["memory"] == "the lighthouse keeper"
        assert (hits[0]["metadata"]["page"], hits[0]["role"]) == (0, "document")  # no user said it
        assert memory.adopt(**ALICE) == {"adopted": 0, "known": 2, "skipped": 1}


def test_what_is_adopted_is_not_written_into_the_store_that_it_came_from() -> None:
    store = Foreign()
    theirs = [Point(f"their-{n}", np.ones(64, np.float32), text, {}) for n, text in enumerate(sentences(3, seed=9))]
    store.points = {point.id: point for point in theirs}
    with mirrored(store, sentences(200)) as memory:
        before = set(store.points)
        memory.adopt(**ALICE)
        memory.flush()
        assert set(store.points) == before
        # It is found all the same, also where the store is asked for what is near.
        assert found(memory, theirs[1].text, limit=1) == [theirs[1].text]
        for _ in range(4):
            hits = dense(memory, theirs[1].text)
        assert hits.plan.way == "source"
        assert hits.scores[0] > 0.99
        adopted = memory.search(theirs[1].text, limit=1, **ALICE)["results"][0]["id"]
        memory.update(adopted, "the lighthouse keeper")
        memory.forget(adopted)
        memory.flush()
        assert set(store.points) == before


async def test_documents_may_be_given_for_a_store_that_cannot_list_them() -> None:
    lamp = LangChainDocument("a brass lamp", metadata={"when": date(2024, 5, 1)})
    given = [lamp, LangChainDocument("a clock", id="c")]
    with opened(":memory:", Foreign()) as memory:
        assert (await memory.aadopt(given, **ALICE))["adopted"] == 2
        assert memory.search("brass lamp", **ALICE)["results"][0]["metadata"]["when"] == "2024-05-01"
        with pytest.raises(InvalidInput, match="Document objects, got int"):
            memory.adopt([1], **ALICE)


def test_documents_without_ids_that_say_the_same_of_two_pages_are_two_memories() -> None:
    given = [LangChainDocument("Yes.", metadata={"page": page}) for page in (1, 2, 1)]
    with Memory(":memory:", model=None, embeddings=None) as memory:
        for unkept in (LangChainDocument("a lamp", metadata={"n": 2**70}), LangChainDocument("a \ud800 lamp"),
                       LangChainDocument("a lamp", metadata={"n": "\ud800"})):  # fmt: skip
            with pytest.raises(InvalidInput, match=r"surrogate|64-bit"):
                memory.adopt([unkept], **ALICE)
        assert memory.get_all(**ALICE)["results"] == []
        assert memory.adopt(given, **ALICE) == {"adopted": 2, "known": 1, "skipped": 0}
        assert memory.adopt(given, **ALICE) == {"adopted": 0, "known": 3, "skipped": 0}
        assert {row["metadata"]["page"] for row in memory.get_all(**ALICE)["results"]} == {1, 2}


def test_a_store_of_items_brings_its_vectors_and_takes_them_back() -> None:
    store, embeddings = Foreign(), DeterministicEmbeddings(64)
    index: Any = {"dims": 64, "embed": embeddings, "fields": ["a", "b"]}
    with MemLayerStore(":memory:", index=index, vectorstore=store, hnsw_threshold=6_400) as items:
        items.put(("docs",), "two", {"a": "red apple", "b": "blue brick"})
        items.put(("docs",), "one", {"a": "green cloud"})
        items.flush()
        assert len(store.points) == 3
        items.put(("docs",), "two", {"a": "red apple"})
        items.flush()
        assert len(store.points) == 2
        items.put(("docs",), "two", {"a": "red apple", "b": "blue brick"})
        items.flush()
        for damaged in ("x", "-1", "9" * 30):
            with items._journal.write() as tx:
                (row,) = tx.db.execute("SELECT id FROM items WHERE key = 'two'").fetchone()
                tx.set_meta(f"points:{row}", damaged)
            items.put(("docs",), "two", {"a": "red apple", "b": "blue brick"})
            assert items.flush(60)
        items.delete(("docs",), "two")
        items.flush()
        assert [point.text for point in store.points.values()] == ['{"a":"green cloud"}']


def test_items_are_found_through_the_store_below_any_prefix() -> None:
    store, embeddings = Foreign(), DeterministicEmbeddings(64)
    index: Any = {"dims": 64, "embed": embeddings}
    with MemLayerStore(":memory:", index=index, vectorstore=store, hnsw_threshold=640) as items:
        for number, text in enumerate(sentences(400)):
            items.put(("docs", "even" if number % 2 == 0 else "odd"), str(number), {"text": text})
        items.flush()
        store.searches.clear()
        text = sentences(400)[7]
        for query in [*sentences(5, seed=8), text]:
            below = items.search(("docs",), query=query, limit=5)
            inside = items.search(("docs", "odd"), query=query, limit=5)
        assert below[0].key == inside[0].key == "7"
        assert store.searches[0][1].get("memlayer_scope") is None
        assert any(where.get("memlayer_scope") == "docs.odd." for _, where in store.searches)


def test_a_process_that_dies_while_it_brings_an_item_leaves_no_point_that_nobody_knows() -> None:
    class Dying(Foreign):
        dies = True

        def upsert(self, points: Sequence[Point]) -> None:
            super().upsert(points)
            if self.dies:
                raise ConnectionResetError("after the write")

    store = Dying()
    index: Any = {"dims": 64, "embed": DeterministicEmbeddings(64), "fields": ["a", "b"]}
    with MemLayerStore(":memory:", index=index, vectorstore=store) as items:
        items.put(("docs",), "two", {"a": "red apple", "b": "blue brick"})
        with pytest.raises(VectorStoreError):
            items.flush()
        assert len(store.points) == 2
        items.delete(("docs",), "two")
        store.dies = False
        items.flush()
        assert store.points == {}


def test_a_second_reset_while_the_first_is_told_is_told_too() -> None:
    store = Foreign()
    with mirrored(store, sentences(5)) as memory:
        mirror, delete = mirror_of(memory), store.delete
        memory._journal.after_commit.remove(mirror.wake)

        def delete_and_reset(ids: Sequence[str]) -> None:
            store.delete = delete
            filled(memory, sentences(3, seed=2))
            with memory._journal.write() as tx:
                tx.erase_all()
            delete(ids)

        store.delete = delete_and_reset
        with memory._journal.write() as tx:
            tx.erase_all()
        with memory._journal.read() as reader:
            first = reader.purges("memories")
        memory.flush()
        with memory._journal.read() as reader:
            assert reader.purges("memories") == []
        assert len(first) == 5
        assert store.points == {}


class Hanging(Foreign):
    """Takes everything, and does not come back from what it is asked while `frees` is not set."""

    def __init__(self) -> None:
        super().__init__()
        self.frees = threading.Event()
        self.frees.set()
        self.hangs = threading.Event()
        self.asked = 0

    def _alive(self) -> None:
        self.asked += 1
        if not self.frees.is_set():
            self.hangs.set()
        self.frees.wait()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE_SECONDS", 0.05)


@pytest.mark.usefixtures("hurried")
def test_a_store_that_hangs_holds_no_search_up_and_is_asked_again_later(caplog: pytest.LogCaptureFixture) -> None:
    store, texts = Hanging(), sentences(500)
    with mirrored(store, texts) as memory:
        mirror = mirror_of(memory)
        store.frees.clear()
        before = store.asked
        for query in texts[:5]:
            mirror.proposals.awake()
            hits = dense(memory, query)
            assert abs(hits.scores[0] - 1) < 1e-2
            assert hits.plan.fell_back
        assert store.asked == before + 1  # more would be more threads that wait
        assert "does not answer within 0.05 seconds" in caplog.text
        store.frees.set()
        mirror.proposals._patience._given_up.result()
        memory.flush()
        assert dense(memory, texts[0]).plan.candidates > 0


@pytest.mark.usefixtures("hurried")
def test_a_store_that_hangs_holds_no_opening_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path / "m", Foreign()) as memory:
        filled(memory, sentences(3))
    store = Hanging()
    store.frees.clear()
    with opened(tmp_path / "m", store) as memory:
        assert found(memory, sentences(3)[1])[0] == sentences(3)[1]
        assert "does not answer within" in caplog.text
        store.frees.set()
        memory.flush()
        assert len(store.points) == 3


def test_closing_waits_once_for_a_store_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, waits = Hanging(), []
    memory = opened(tmp_path / "m", store)
    mirror = mirror_of(memory)
    waiting = mirror._changed.wait_for

    def noted(done: Callable[[], bool], timeout: float | None = None) -> bool:
        waits.append(timeout)
        return waiting(done, 0)

    store.frees.clear()
    filled(memory, sentences(3))
    store.hangs.wait()
    monkeypatch.setattr(mirror._changed, "wait_for", noted)
    thread = mirror._thread
    memory.close()
    assert sum(waits) <= 5
    assert thread.is_alive()
    store.frees.set()
    thread.join()
    with opened(tmp_path / "m", store) as memory:
        memory.flush()
        assert {point.text for point in store.points.values()} == set(sentences(3))


def test_a_store_that_lost_a_later_vector_of_an_item_is_filled_anew(tmp_path: Path) -> None:
    store = Foreign()
    index: Any = {"dims": 64, "embed": DeterministicEmbeddings(64), "fields": ["a", "b", "c"]}
    with MemLayerStore(tmp_path / "m", index=index, vectorstore=store) as items:
        items.put(("docs",), "three", {"a": "red apple", "b": "blue brick", "c": "green cloud"})
        items.put(("docs",), "one", {"a": "violet drum"})
        items.flush()
        assert len(store.points) == 4
    [last] = [id_ for id_, point in store.points.items() if point.vector @ embedded("green cloud") > 0.99]
    del store.points[last]
    with MemLayerStore(tmp_path / "m", index=index, vectorstore=store) as items:
        items.flush()
        assert len(store.points) == 4


def embedded(text: str) -> NDArray[Any]:
    return np.array(DeterministicEmbeddings(64).vector(text), np.float32)


class Shared(Foreign):
    """One collection of several journals."""

    filters = True

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        if self.filters:
            return super().search(vector, k, where, text)
        near = sorted(self.points.values(), key=lambda point: -float(point.vector @ vector))
        return rows((point.metadata for point in near[:k]), where)


@pytest.mark.parametrize("filters", [True, False])
def test_two_journals_in_one_collection_do_not_mix(
    filters: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, few, many = Shared(), sentences(110), [f"{text} too" for text in sentences(1_200)]
    store.filters = filters
    queries = sentences(12, seed=7)
    with opened(":memory:", store) as small, opened(":memory:", store) as large:
        filled(large, many)
        filled(small, few)
        large.flush()
        small.flush()
        assert [found(small, query) for query in queries] == exact(few, queries)
        for query in queries:
            dense(small, query)
        assert ("collection of its own" in caplog.text) == (not filters)
        assert mirror_of(small).proposals.trusted
        for entry in small.get_all(limit=5, **ALICE)["results"]:
            small.delete(entry["id"])
        small.flush()
        assert small.adopt(user_id="eve")["adopted"] == 0
        assert len(store.points) == 1_305
        small.reset()
        assert {point.metadata[STORE] for point in store.points.values()} == {large._journal.store_id}
        assert len(store.points) == 1_200


def test_a_new_journal_over_the_points_of_another_says_where_these_are(caplog: pytest.LogCaptureFixture) -> None:
    store = Shared()
    with opened(":memory:", store) as first:
        filled(first, sentences(3))
        first.flush()
        assert "another journal" not in caplog.text
    with opened(":memory:", store) as second:
        filled(second, sentences(3))
        second.flush()
    assert "another journal" in caplog.text


def test_who_has_no_store_leaves_deliveries_to_who_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "_UNDELIVERED", 5)
    store = Foreign()
    with opened(tmp_path, store) as memory, opened(tmp_path, None) as without:
        filled(memory, sentences(120))
        memory.flush()
        filled(without, sentences(8, seed=3))
        assert len(store.points) == 120
        mirror = mirror_of(memory)
        assert dense(memory, "apple").plan.way == "scan"
        with mirror._changed:
            assert mirror._changed.wait_for(lambda: mirror._thread is None, 30)
        assert len(store.points) == 128


def test_a_store_that_lost_its_place_is_not_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Other(Foreign):
        kind = "other"

    first, second = Foreign(), Other()
    with opened(tmp_path, first) as memory, opened(tmp_path, second) as later:
        filled(memory, sentences(60))
        memory.flush()
        later.flush()
        assert (len(first.points), len(second.points)) == (0, 60)
        assert not mirror_of(memory).proposals.trusted
        assert "Another process brings the vectors" in caplog.text
        assert found(memory, "apple brick") == found(later, "apple brick")
        assert first.searches == []


def test_what_a_store_was_not_brought_yet_is_not_what_it_missed() -> None:
    store = Foreign()
    with mirrored(store, sentences(100), hnsw_threshold=640) as memory:
        mirror, before = mirror_of(memory), memory._journal.last_seq()
        memory._journal.after_commit.remove(mirror.wake)
        told = [{"role": "user", "content": f"{text} later"} for text in sentences(60)]
        memory.add(told, infer=False, metadata={"batch": "new"}, **ALICE)
        view = memory._indexes.view(".u.alice.")
        for text in sentences(6):
            hits = view.search(embedded(text), 10, mask=view.seqs > before, hints=Hints({"batch": "new"}))
            assert len(hits.ids) == 10
        assert hits.plan.way == "source"
        assert mirror.proposals.trusted
