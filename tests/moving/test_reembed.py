import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import postgres_server
import pytest
from journal_dump import dump, open_memory, query, texts
from langchain_core.vectorstores import InMemoryVectorStore
from typer.testing import CliRunner

from langchain_memlayer import EmbedderMismatch, EmbeddingError, InvalidInput, JournalError, MemLayerStore, doctor
from langchain_memlayer.backends.mirror import Mirror
from langchain_memlayer.cli import app
from langchain_memlayer.errors import ConfigurationError, NotAStore, VectorStoreError
from langchain_memlayer.journal import sqlite
from langchain_memlayer.journal.database import Area
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.moving import export_store, import_store, reembed_store
from langchain_memlayer.recall import PROBES
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds
from langchain_memlayer.types import MEMORY_ROOT

QUESTIONS = ("Where do I live?", "What do I like to drink?", "boat", "the rainbow over the harbour")


class Other(DeterministicEmbeddings):
    """Another model; `before` is called with the number of each batch before it is embedded."""

    def __init__(self, dims: int = 96, before: Callable[[int], None] | None = None) -> None:
        super().__init__(dims)
        self.before = before

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self.before is not None and texts != list(PROBES):
            self.before(len(self.new_batches) + 1)
        return super().embed_documents(texts)

    def vector(self, text: str) -> list[float]:
        return super().vector(f"{text} otherwise")

    @property
    def new_batches(self) -> list[list[str]]:
        return [batch for batch in self.batches if batch != list(PROBES)]

    @property
    def new_texts(self) -> list[str]:
        return [text for batch in self.new_batches for text in batch]


def fill(folder: Path, embeddings: DeterministicEmbeddings, *, metric: Any = None) -> None:
    """Memories with history, and items of several kinds, always the same."""
    clock = FrozenClock()
    with open_memory(folder, embeddings=embeddings, metric=metric, clock=clock) as memory:
        home = memory.add("I live in Rome.", user_id="u")["results"][0]["id"]
        memory.add({"role": "user", "content": "I like tea.", "name": "Ann"}, user_id="u", timestamp="2024-05-01")
        memory.add([{"role": "user", "content": f"My boat number {k} is red."} for k in range(5)], agent_id="a")
        clock.advance(days=30)
        memory.update(home, "I live in Paris.")
        memory.store.put(("docs",), "whole", {"title": "The rainbow", "body": "It stood over the harbour."})
        memory.store.put(("docs",), "title", {"title": "The harbour", "body": "rainbow"}, index=["title"])
        memory.store.put(("docs",), "tags", {"tags": ["rainbow", "boat", "tea"]}, index=["tags[*]"])
        memory.store.put(("docs",), "none", {"title": "The rainbow"}, index=False)


def place(folder: Path) -> Path | str:
    """Where a test's folder is: on PostgreSQL, in a schema."""
    return postgres_server.current[-1].url(folder) if postgres_server.current else folder


def reembed(folder: Path, *settings: Any, **more: Any) -> int:
    return reembed_store(place(folder), *settings, **more)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    fill(tmp_path / "full", DeterministicEmbeddings())
    return tmp_path / "full"


def answers(folder: Path, embeddings: DeterministicEmbeddings) -> list[Any]:
    """What the store finds, with scores; also in the time before the update."""
    with open_memory(folder, embeddings=embeddings) as memory:
        found: list[Any] = []
        for question in QUESTIONS:
            for scope in ({"user_id": "u"}, {"agent_id": "a"}):
                for as_of in (None, "2025-01-10T00:00:00Z"):
                    hits = memory.search(question, **scope, as_of=as_of)["results"]
                    found.append([(hit["memory"], hit["score"], hit["relevance"]) for hit in hits])
            found.append([(item.key, item.score) for item in memory.store.search(("docs",), query=question)])
        return found


def problems(folder: Path) -> list[str]:
    with closing(SQLiteJournal(folder)) as journal:
        return [problem.rule for problem in doctor.check(journal)]


def staged(folder: Path) -> int:
    return int(query(folder, "SELECT count(*) FROM vectors WHERE id < 0")[0][0])


@pytest.fixture
def in_threes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_memlayer.moving.reembedding._AT_ONCE", 3)


class Stop(Exception):
    pass


def fails_at(number: int) -> Callable[[int], None]:
    def stop(batch: int) -> None:
        if batch >= number:
            raise Stop

    return stop


# -- the result -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "metric"), [(96, "cosine"), (96, "inner_product"), (256, "euclidean")])
def test_a_reembedded_store_answers_as_one_that_was_written_so(tmp_path: Path, dims: int, metric: Any) -> None:
    fill(tmp_path / "one", DeterministicEmbeddings(), metric=metric)
    fill(tmp_path / "two", Other(dims), metric=metric)
    before = answers(tmp_path / "one", DeterministicEmbeddings())
    assert reembed(tmp_path / "one", Other(dims)) == 11
    assert answers(tmp_path / "one", Other(dims)) == answers(tmp_path / "two", Other(dims)) != before
    one, two = dump(tmp_path / "one"), dump(tmp_path / "two")
    assert sorted(data for _, data in one["vectors"]) == sorted(data for _, data in two["vectors"])
    assert [row for row in one["meta"] if row[0].startswith("embedder")] == [
        row for row in two["meta"] if row[0].startswith("embedder")
    ]
    assert one["items"] == two["items"]
    assert problems(tmp_path / "one") == []


def test_there_and_back_leaves_what_was_there(full: Path) -> None:
    before, found = dump(full), answers(full, DeterministicEmbeddings())
    reembed(full, Other())
    assert staged(full) == len(before["vectors"])
    reembed(full, DeterministicEmbeddings())
    assert dump(full)["vectors"] == before["vectors"]
    assert answers(full, DeterministicEmbeddings()) == found


def test_each_text_and_field_is_embedded_once_and_ended_versions_too(full: Path, in_threes: None) -> None:
    embeddings, told = Other(), []
    reembed(full, embeddings, progress=lambda *progress: told.append(progress))
    assert len(embeddings.batches) == 1 + 4
    assert "I live in Rome." in embeddings.new_texts
    assert "Ann (01 May 2024): I like tea." in embeddings.new_texts
    assert sorted(embeddings.new_texts) == sorted(set(embeddings.new_texts))
    assert told[0] == ("reembed", 3, 11)
    assert told[-1] == ("reembed", 11, 11)
    assert {"The harbour", "rainbow", "boat", "tea"} <= set(embeddings.new_texts)
    assert not any("The harbour" in text and "body" in text for text in embeddings.new_texts)
    with open_memory(full, embeddings=Other()) as memory:
        hits = {item.key: item.score for item in memory.store.search(("docs",), query="The harbour")}
        assert hits["title"] == pytest.approx(1, abs=1e-3)
        assert hits["none"] is None


def test_what_is_written_afterwards_goes_with_the_rest(full: Path) -> None:
    reembed(full, Other())
    with open_memory(full, embeddings=Other(), new_id=SequentialIds(100)) as memory:
        memory.add("I collect stamps.", user_id="u")
        memory.store.put(("docs",), "title", {"title": "The lighthouse"})
        assert texts(memory.search("stamps", user_id="u"))[0] == "I collect stamps."
        assert memory.store.search(("docs",), query="lighthouse")[0].key == "title"
    assert query(full, "SELECT count(*) FROM vectors WHERE id > 0") == [(0,)]
    assert problems(full) == []
    with closing(SQLiteJournal(full)) as journal, journal.read() as reader:
        assert reader.counts()["vectors"] == 12


def test_an_area_that_has_the_embedder_already_is_not_embedded_again(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    with open_memory(folder) as memory:
        memory.add("I live in Rome.", user_id="u")
    with MemLayerStore(folder, index={"dims": 96, "embed": Other()}) as store:
        store.put(("docs",), "k", {"text": "boat"})
    embeddings = Other()
    assert reembed(folder, embeddings) == 2
    assert embeddings.new_texts == ["I live in Rome."]
    with open_memory(folder, embeddings=Other()) as memory:
        assert memory.store.search(("docs",), query="boat")[0].score > 0.3
        assert texts(memory.search("Rome", user_id="u"))


def test_a_reembedded_store_is_exported_and_imported_as_any(tmp_path: Path, full: Path) -> None:
    # Without vectors an import embeds the same fields.
    export_store(place(full), tmp_path / "0.jsonl", vectors=False)
    import_store(tmp_path / "0.jsonl", place(tmp_path / "bare"), embeddings=DeterministicEmbeddings())
    assert dump(tmp_path / "bare")["vectors"] == dump(full)["vectors"]
    reembed(full, Other())
    export_store(place(full), tmp_path / "1.jsonl")
    import_store(tmp_path / "1.jsonl", place(tmp_path / "copy"))
    export_store(place(tmp_path / "copy"), tmp_path / "2.jsonl")
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert answers(tmp_path / "copy", Other()) == answers(full, Other())


# -- others at work meanwhile -----------------------------------------------------------------------------------------


def test_others_read_and_write_until_the_change_and_are_told_afterwards(full: Path, in_threes: None) -> None:
    with open_memory(full, new_id=SequentialIds(100)) as memory:
        boats = memory.get_all(agent_id="a")["results"]

        def meanwhile(batch: int) -> None:
            assert texts(memory.search("Where do I live?", user_id="u"))[0] == "I live in Paris."
            # Later ones would wait for the lock that this very thread holds.
            if batch <= 4:
                memory.add(f"I met friend number {batch}.", user_id="u")
            if batch == 2:
                memory.update(boats[0]["id"], "My boat is blue.")
                memory.delete(boats[1]["id"])
                memory.store.put(("docs",), "whole", {"title": "A comet"})

        reembed(full, Other(before=meanwhile))
        for call in (
            lambda: memory.search("Where do I live?", user_id="u"),
            lambda: memory.add("I have a cat.", user_id="u"),
            lambda: memory.update(boats[0]["id"], "My boat is green."),
            lambda: memory.store.search(("docs",), query="comet"),
            lambda: memory.store.put(("docs",), "new", {"title": "A comet"}),
        ):
            with pytest.raises(EmbedderMismatch, match="Open it again"):
                call()
        assert memory.get(boats[0]["id"])["memory"] == "My boat is blue."
        assert memory.store.get(("docs",), "whole").value == {"title": "A comet"}
        assert len(memory.history(boats[0]["id"])) == 2
    assert problems(full) == []
    with open_memory(full, embeddings=Other()) as memory:
        assert texts(memory.search("blue boat", agent_id="a"))[0] == "My boat is blue."
        found = texts(memory.search("I met friend number", user_id="u"))
        assert {f"I met friend number {k}." for k in (1, 2, 3, 4)} <= set(found)
        assert next(item.key for item in memory.store.search(("docs",), query="comet")) == "whole"
    owners = "abs(v.id) & ((1 << 40) - 1)"
    assert query(full, f"SELECT count(*) FROM vectors v WHERE {owners} NOT IN (SELECT id FROM items)") == [(0,)]
    assert set(query(full, "SELECT length(data) FROM vectors")) == {(192,), (3 * 192,)}


def test_an_item_that_is_written_while_its_old_value_is_embedded_gets_the_vector_of_the_new_one(full: Path) -> None:
    with open_memory(full) as memory:

        def meanwhile(batch: int) -> None:
            if batch == 1:
                memory.store.put(("docs",), "whole", {"title": "A comet"})

        embeddings = Other(before=meanwhile)
        reembed(full, embeddings)
    assert [len(batch) for batch in embeddings.new_batches] == [13, 1]
    with open_memory(full, embeddings=Other()) as memory:
        found = memory.store.search(("docs",), query='{"title": "A comet"}')[0]
        assert (found.key, found.score) == ("whole", pytest.approx(1, abs=1e-3))


def test_writers_that_never_rest_do_not_keep_it_from_its_end(full: Path) -> None:
    with open_memory(full, new_id=SequentialIds(100)) as memory:
        written: list[str] = []

        def meanwhile(batch: int) -> None:
            # The writer of the last round would wait for the lock that this very thread holds.
            if batch <= 3:
                written.append(f"I met friend number {batch}.")
                memory.add(written[-1], user_id="u")

        embeddings = Other(before=meanwhile)
        reembed(full, embeddings)
    assert len(written) == 3
    assert len(embeddings.new_batches) == 4
    assert staged(full) == 11 + len(written)


def test_who_has_no_embedder_goes_on(full: Path) -> None:
    with open_memory(full, embeddings=None, new_id=SequentialIds(100)) as memory:
        assert texts(memory.search("tea", user_id="u"))[0] == "I like tea."
        reembed(full, Other())
        assert texts(memory.search("tea", user_id="u"))[0] == "I like tea."
        memory.add("I like coffee.", user_id="u")
        assert texts(memory.search("coffee", user_id="u"))[0] == "I like coffee."


def test_what_was_embedded_before_the_change_is_not_stored_after_it(full: Path) -> None:
    embeddings = DeterministicEmbeddings()
    with open_memory(full, embeddings=embeddings) as memory:
        real = embeddings.embed_documents

        def late(asked: list[str]) -> list[list[float]]:
            found = real(asked)
            reembed(full, Other())
            return found

        embeddings.embed_documents = late  # type: ignore[method-assign]
        with pytest.raises(EmbedderMismatch):
            memory.add("I have a cat.", user_id="u")
        assert sorted(texts(memory.get_all(user_id="u"))) == ["I like tea.", "I live in Paris."]


def test_forgotten_memories_have_no_staged_vectors(full: Path, in_threes: None) -> None:
    with open_memory(full) as memory:

        def meanwhile(batch: int) -> None:
            if batch == 3:
                assert staged(full) == 6
                assert memory.forget(user_id="u")["message"]
                assert memory.forget(agent_id="a")["message"]
                memory.store.delete(("docs",), "tags")
                assert staged(full) == 2

        reembed(full, Other(before=meanwhile))
    assert query(full, "SELECT count(*) FROM vectors") == [(2,)]
    assert problems(full) == []


def test_a_reset_meanwhile_leaves_an_empty_store_of_the_new_embedder(full: Path, in_threes: None) -> None:
    with open_memory(full) as memory:
        assert reembed(full, Other(before=lambda batch: memory.reset() if batch == 2 else None)) == 0
    assert query(full, "SELECT count(*) FROM vectors") == [(0,)]
    with open_memory(full, embeddings=Other()) as memory:
        memory.add("I have a cat.", user_id="u")
        assert texts(memory.search("cat", user_id="u")) == ["I have a cat."]
    assert problems(full) == []


@pytest.mark.sqlite
def test_graphs_of_the_old_vectors_are_not_used(tmp_path: Path) -> None:
    def filled(folder: Path, embeddings: Any) -> list[Any]:
        with open_memory(folder, embeddings=embeddings, hnsw_threshold=0) as memory:
            if not memory.get_all(user_id="u")["results"]:
                memory.add(
                    [{"role": "user", "content": f"My boat number {k} is {k % 7}."} for k in range(60)], user_id="u"
                )
            memory.search("boat", user_id="u")
            assert memory._indexes.wait(30)
            return [(h["memory"], h["score"]) for h in memory.search("boat number 7 is", user_id="u")["results"]]

    one, two = tmp_path / "one", tmp_path / "two"
    filled(one, DeterministicEmbeddings(96))
    assert list((one / "derived").glob("*.data"))
    reembed(one, Other(96))
    assert not list((one / "derived").glob("*.data"))
    assert filled(one, Other(96)) == filled(two, Other(96))


def test_a_vector_store_is_brought_the_new_vectors(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    foreign = InMemoryVectorStore(DeterministicEmbeddings(96))
    with open_memory(folder, embeddings=DeterministicEmbeddings(96), vectorstore=foreign) as memory:
        memory.add([{"role": "user", "content": f"My boat number {k} is red."} for k in range(5)], user_id="u")
        assert memory.flush()
        before = {key: entry["vector"] for key, entry in foreign.store.items()}
    assert len(before) == 5
    reembed(folder, Other(96))
    with open_memory(folder, embeddings=Other(96), vectorstore=foreign) as memory:
        assert memory.flush()
        after = {key: entry["vector"] for key, entry in foreign.store.items()}
        assert after.keys() == before.keys()
        assert all(after[key] != before[key] for key in before)
        assert problems(folder) == []


def test_what_is_being_brought_while_the_vectors_change_is_brought_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    foreign = InMemoryVectorStore(DeterministicEmbeddings(96))
    real, done = Mirror._deliver, threading.Event()

    def deliver(self: Mirror, *given: Any) -> None:
        if not done.is_set():
            done.set()
            reembed(folder, Other(96))
        real(self, *given)

    monkeypatch.setattr(Mirror, "_deliver", deliver)
    with open_memory(folder, embeddings=DeterministicEmbeddings(96), vectorstore=foreign) as memory:
        memory.add("My boat is red.", user_id="u")
        assert memory.flush()
    (found,) = foreign.store.values()
    assert found["vector"] == pytest.approx(Other(96).vector("My boat is red."), abs=1e-3)
    assert problems(folder) == []


def test_a_collection_of_another_size_is_not_filled(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    foreign = InMemoryVectorStore(DeterministicEmbeddings(96))
    with open_memory(folder, embeddings=DeterministicEmbeddings(96), vectorstore=foreign) as memory:
        memory.add("My boat is red.", user_id="u")
        assert memory.flush()
        reembed(folder, Other(128))
        with pytest.raises((ConfigurationError, VectorStoreError)):
            memory.flush()
    assert [len(entry["vector"]) for entry in foreign.store.values()] == [96]
    with pytest.raises(ConfigurationError, match="another collection"):
        open_memory(folder, embeddings=Other(128), vectorstore=foreign)
    new = InMemoryVectorStore(Other(128))
    with open_memory(folder, embeddings=Other(128), vectorstore=new) as memory:
        assert memory.flush()
    assert [len(entry["vector"]) for entry in new.store.values()] == [128]


def test_who_reads_one_state_reads_its_vectors(full: Path) -> None:
    journal = SQLiteJournal(full)
    areas: list[tuple[str, Area]] = [("", "items"), (MEMORY_ROOT, "memories")]
    with journal.read(snapshot=True) as reader:
        before = [reader.load(prefix, area, dims=256, typed=lambda raw: ({}, ())) for prefix, area in areas]
        reembed(full, Other())
        after = [reader.load(prefix, area, dims=256, typed=lambda raw: ({}, ())) for prefix, area in areas]
        assert [block.vector_bytes for block in after] == [block.vector_bytes for block in before]
        assert json.loads(reader.meta("embedder:items") or "")["dims"] == 256
    with journal.read() as reader:
        assert len(reader.load("", "items", dims=96, typed=lambda raw: ({}, ())).vector_bytes) == 5 * 192
        assert reader.changes("", "items", before[0].seq, dims=96, typed=lambda raw: ({}, ())) is None
    journal.close()


# -- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 4])
def test_a_run_that_failed_is_gone_on_with(tmp_path: Path, full: Path, in_threes: None, batch: int) -> None:
    before = answers(full, DeterministicEmbeddings())
    with pytest.raises(Stop):
        reembed(full, Other(before=fails_at(batch)))
    assert staged(full) == 3 * (batch - 1)
    assert answers(full, DeterministicEmbeddings()) == before
    assert problems(full) == ["reembed"]
    rest = Other()
    assert reembed(full, rest) == 11
    assert len(rest.new_batches) == 4 - (batch - 1)
    fill(tmp_path / "two", Other())
    assert answers(full, Other()) == answers(tmp_path / "two", Other())
    assert problems(full) == []


def test_what_was_written_between_two_runs_is_embedded_anew(full: Path, in_threes: None) -> None:
    with pytest.raises(Stop):
        reembed(full, Other(before=fails_at(4)))
    with open_memory(full, new_id=SequentialIds(100)) as memory:
        memory.add("I have a cat.", user_id="u")
        memory.store.put(("docs",), "whole", {"title": "A comet"})
    assert staged(full) == 8
    reembed(full, Other())
    with open_memory(full, embeddings=Other()) as memory:
        assert texts(memory.search("cat", user_id="u"))[0] == "I have a cat."
        assert memory.store.search(("docs",), query='{"title": "A comet"}')[0].score == pytest.approx(1, abs=1e-3)


def test_a_run_with_a_third_embedder_drops_what_was_staged_and_one_with_the_stores_own_all(
    full: Path, in_threes: None
) -> None:
    before = dump(full)
    for embeddings in (DeterministicEmbeddings(), Other(128)):
        with pytest.raises(Stop):
            reembed(full, Other(before=fails_at(3)))
        assert reembed(full, embeddings) == 11
        assert embeddings.dims == 128 or dump(full) == before
    assert len(embeddings.new_texts) > 11
    assert query(full, "SELECT DISTINCT length(data) % 256 FROM vectors") == [(0,)]


def test_two_runs_at_once_are_refused(full: Path, in_threes: None) -> None:
    def meanwhile(batch: int) -> None:
        if batch == 2:
            reembed(full, Other(128))

    with pytest.raises(JournalError, match="Another run"):
        reembed(full, Other(before=meanwhile))
    with open_memory(full, embeddings=Other(128)) as memory:
        assert texts(memory.search("Paris", user_id="u"))[0] == "I live in Paris."
    assert problems(full) == []


@pytest.mark.slow
@pytest.mark.sqlite
def test_a_run_that_is_killed_at_any_commit_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "whole", DeterministicEmbeddings())
    fill(tmp_path / "fresh", Other())
    before, after = answers(tmp_path / "whole", DeterministicEmbeddings()), answers(tmp_path / "fresh", Other())
    monkeypatch.setattr("langchain_memlayer.moving.reembedding._AT_ONCE", 3)
    monkeypatch.setattr("langchain_memlayer.moving.reembedding._REMOVED_AT_ONCE", 5)
    seen = set()
    for number in count(1):
        folder = tmp_path / f"killed{number}"
        shutil.copytree(tmp_path / "whole", folder)
        if not killed_at(number, lambda folder=folder: reembed(folder, Other())):
            break
        switched = json.loads(dict(dump(folder)["meta"])["embedder:memories"])["dims"] == 96
        assert answers(folder, Other() if switched else DeterministicEmbeddings()) == (after if switched else before)
        found = problems(folder)
        assert set(found) <= {"reembed"}
        embeddings, kept = Other(), staged(folder)
        seen.add((switched, bool(found)))
        if found or not switched:
            assert reembed(folder, embeddings) == 11
        assert len(embeddings.new_texts) == (0 if switched else 13 - kept - 2 * (kept > 0))
        assert answers(folder, Other()) == after
        assert problems(folder) == []
        assert len(query(folder, "SELECT id FROM vectors")) == 11
    assert seen == {(False, False), (False, True), (True, True), (True, False)}


def killed_at(number: int, run: Callable[[], Any]) -> bool:
    """Whether a process that runs this was killed, which it is at a step of its commits."""
    child = os.fork()
    if not child:
        left = count(number, -1)
        sqlite._step = lambda name: os.kill(os.getpid(), signal.SIGKILL) if next(left) == 1 else None
        try:
            run()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


# -- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_done_is_refused_and_changes_nothing(tmp_path: Path, full: Path) -> None:
    before = dump(full)
    for embeddings, kind, said in (
        (DeterministicEmbeddings(), InvalidInput, "already"),
        (None, ConfigurationError, "Name the embedder"),
        ("auto", ConfigurationError, "Name the embedder"),
        ("nobody:model", ConfigurationError, "nobody"),
        (lambda asked: [[1.0]] * (len(asked) - 1), EmbeddingError, "vectors for"),
    ):
        with pytest.raises(kind, match=said):
            reembed(full, embeddings)
        assert dump(full) == before
    with pytest.raises(NotAStore):
        reembed(tmp_path / "nothing", Other())
    assert not (tmp_path / "nothing").exists()
    with open_memory(tmp_path / "words", embeddings=None) as memory:
        memory.add("I live in Rome.", user_id="u")
    with pytest.raises(InvalidInput, match="no vectors"):
        reembed(tmp_path / "words", Other())


def test_an_embedder_that_gives_nonsense_on_the_way_leaves_the_store_as_it_was(full: Path, in_threes: None) -> None:
    before = answers(full, DeterministicEmbeddings())

    class Odd(Other):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            found = super().embed_documents(texts)
            return [[*vector, 1.0] for vector in found] if len(self.batches) > 3 else found

    with pytest.raises(EmbeddingError, match="numbers"):
        reembed(full, Odd())
    assert answers(full, DeterministicEmbeddings()) == before


def test_items_that_do_not_say_what_is_embedded_need_to_be_told(full: Path) -> None:
    query(full, "UPDATE items SET fields = NULL WHERE key IN ('title', 'tags')")
    with pytest.raises(InvalidInput, match="2 items"):
        reembed(full, Other())
    with pytest.raises(InvalidInput, match="'tags' has 3 vectors, and 1 texts"):
        reembed(full, Other(), fields=["$"])
    embeddings = Other()
    assert reembed(full, embeddings, fields=["title", "tags[*]"]) == 11
    assert {"The harbour", "tea"} <= set(embeddings.new_texts)


def test_the_command_line_reembeds(full: Path) -> None:
    pytest.importorskip("wordllama")
    run = CliRunner().invoke
    same = run(app, ["--path", str(place(full)), "--json", "reembed", "wordllama"])
    assert json.loads(same.stdout) == {"rows": 11, "embedder": "wordllama"}
    assert json.loads(run(app, ["--path", str(place(full)), "--json", "stats"]).stdout)["embedder"]["dims"] == 256
    found = run(app, ["--path", str(place(full)), "--user", "u", "--json", "search", "city"])
    assert json.loads(found.stdout)["results"]
    with pytest.raises(EmbedderMismatch, match="memlayer reembed"):
        open_memory(full, embeddings=DeterministicEmbeddings())
    refused = run(app, ["--path", str(place(full)), "reembed", "wordllama"])
    assert refused.exit_code == 2
    assert "already" in refused.stderr
    assert run(app, ["--path", str(full / "nothing"), "reembed", "wordllama"]).exit_code == 1
