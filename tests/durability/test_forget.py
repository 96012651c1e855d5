import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from folders import SEEDED, Echo, assert_sound, containing, files, memories, open_memory, sentence
from writer import put_checkpoint

from langchain_memlayer import checkpointer
from langchain_memlayer.doctor import check
from langchain_memlayer.errors import ExtractionError, JournalError, MemoryNotFound
from langchain_memlayer.index.keywords import term_ids, tokenize
from langchain_memlayer.types import Extraction, Fact, Triple, Turn

CANARY = "quokkazephyr7719"
TEXT = f"my secret word is {CANARY} and nobody else knows it"


FORMS = (
    CANARY.encode(),
    CANARY.upper().encode(),
    CANARY.encode("utf-16-le"),
    *(term.encode() for term in tokenize(CANARY)),
    *(term_ids([term]).tobytes() for term in tokenize(CANARY)),
)
"""What a file may have of the text: itself, in another case or encoding, its keyword terms, and their ids."""


def codes(memory: Any, key: str) -> list[bytes]:
    """The vectors of all versions of a memory and the codes of their terms, as they lie on the disk."""
    with memory._journal.read() as reader:
        rows = reader.db.execute(
            "SELECT v.data, i.terms FROM items i JOIN vectors v ON v.id = i.id WHERE i.key = ?", (key,)
        ).fetchall()
    return [part for row in rows for part in row]


def assert_gone(folder: Path, *more: bytes) -> None:
    assert containing(folder, *FORMS, *more) == []


def filled(folder: Path, others: int = 30) -> Any:
    memory = open_memory(folder)
    memory.add([{"role": "user", "content": sentence(k)} for k in range(others)], user_id="u0")
    return memory


@contextmanager
def reading(file: Path, table: str) -> Iterator[None]:
    """Somebody reads, so the log cannot be emptied."""
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {table}").fetchone()
        yield
        reader.execute("ROLLBACK")


def test_the_scan_finds_a_text_and_its_vector_while_they_are_there(tmp_path: Path) -> None:
    with filled(tmp_path) as memory:
        vectors = codes(memory, memory.add(TEXT, user_id="u0")["results"][0]["id"])
    for needle in (FORMS[0], FORMS[-1], *vectors):
        assert containing(tmp_path, needle) == ["journal.sqlite"]


def test_a_slab_of_before_a_forget_is_not_written_by_whoever_still_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path, SEEDED) as memory, open_memory(tmp_path) as other:
        key = memory.add(TEXT, user_id="u0")["results"][0]["id"]
        with monkeypatch.context() as patched:
            patched.setattr("langchain_memlayer.index.files.write", lambda *_: None)
            assert other.search(CANARY, user_id="u0")["results"][0]["id"] == key
            assert other._indexes.wait(60)
        other.add([{"role": "user", "content": sentence(9, k)} for k in range(SEEDED)], user_id="u0")
        other.search(CANARY, user_id="u0")
        assert other._indexes.wait(60)
        assert {*containing(tmp_path, FORMS[-1])} - {"journal.sqlite", "journal.sqlite-wal"} != set()
        other.add([{"role": "user", "content": sentence(8, k)} for k in range(600)], user_id="u0")
        view = other._indexes.view(".u.u0.")
        memory.forget(key)
        # It is noticeably larger than what was saved, so closing would save it.
        assert len(view) > SEEDED + 600
        other.close()
        assert_gone(tmp_path)
    assert_gone(tmp_path)


@pytest.mark.parametrize("others", [0, 30, SEEDED])
def test_a_forgotten_memory_is_in_no_file_and_the_others_stay(tmp_path: Path, others: int) -> None:
    with filled(tmp_path, others) if others else open_memory(tmp_path) as memory:
        key = memory.add(TEXT, user_id="u0", metadata={"note": CANARY})["results"][0]["id"]
        memory.update(key, f"{TEXT} still")
        memory.update(key, "harmless by now", {"more": CANARY})
        memory.search(CANARY, user_id="u0")
        memory._indexes.wait(60)
        vectors = codes(memory, key)
        assert len(vectors) == 6
        snapshots = list((tmp_path / "derived").glob("*.data"))
        assert bool(snapshots) == (others == SEEDED)
        memory.forget(key)
        assert_gone(tmp_path, *vectors)
        assert not any(path.exists() for path in snapshots)
        assert memory.get(key) is None
        assert [row["new_value"] for row in memory.history(key)] == [None] * 3
        memory.search(CANARY, user_id="u0")
        memory._indexes.wait(60)
        assert_gone(tmp_path, *vectors)
        assert sorted(text for _, text in memories(memory).values()) == sorted(sentence(k) for k in range(others))
    assert_gone(tmp_path, *vectors)
    with open_memory(tmp_path) as memory:
        if others:
            assert memory.search(sentence(3), user_id="u0")["results"][0]["memory"] == sentence(3)
        assert_gone(tmp_path, *vectors)
    assert_sound(tmp_path)


def test_all_memories_of_a_scope_are_forgotten_with_its_name_and_the_others_stay(tmp_path: Path) -> None:
    with filled(tmp_path) as memory:
        for k in range(20):
            ids = {"user_id": f"owner-{CANARY}", "run_id": f"r{k % 3}"}
            memory.add(f"{TEXT} {k}", **ids, batch_id=f"b{k}", metadata={"a": CANARY})
        key = memory.get_all(user_id=f"owner-{CANARY}", run_id="r1")["results"][0]["id"]
        memory.delete_all(user_id=f"owner-{CANARY}", run_id="r1")
        assert memory.history(key)[0]["new_value"].startswith(TEXT)
        assert memory.forget(user_id=f"owner-{CANARY}")["count"] == 20
        assert_gone(tmp_path)
        assert memory.get_all(user_id=f"owner-{CANARY}")["results"] == []
        assert len(memories(memory)) == 30
        # A batch id of the forgotten may be used again.
        assert len(memory.add("new", user_id=f"owner-{CANARY}", run_id="r1", batch_id="b1")["results"]) == 1
    assert_sound(tmp_path)


def test_reset_leaves_nothing_and_the_folder_goes_on(tmp_path: Path) -> None:
    with filled(tmp_path, SEEDED) as memory:
        memory.add(TEXT, user_id="u0", batch_id=CANARY)
        memory.search(CANARY, user_id="u0")
        memory._indexes.wait(60)
        before = (tmp_path / "journal.sqlite").stat().st_size + (tmp_path / "journal.sqlite-wal").stat().st_size
        memory.reset()
        assert sum(path.stat().st_size for path in files(tmp_path) if path.suffix != ".sqlite-shm") < before / 3
        assert_gone(tmp_path, b"amber", b"birch", b"raven")
        assert memories(memory) == {}
        memory.add("a new beginning", user_id="u0")
        assert [hit["memory"] for hit in memory.search("beginning", user_id="u0")["results"]] == ["a new beginning"]
    assert_gone(tmp_path, b"amber", b"birch", b"raven")
    assert_sound(tmp_path)


class Quoting(Echo):
    """Finds one fact in two turns, supported by words of the first."""

    def extract(self, turns: Any, context: Any) -> Extraction:
        fact = Fact("There is a secret.", (0, 1), quote=TEXT, triples=(Triple("user", "has", "secret"),))
        return Extraction((fact,))


def test_the_words_of_a_forgotten_turn_leave_the_fact_that_another_turn_still_supports(tmp_path: Path) -> None:
    with open_memory(tmp_path, extractor=Quoting()) as memory:
        memory.add([{"role": "user", "content": text, "id": text[:2]} for text in (TEXT, "yes")], user_id="u")
        turns = {row["memory"]: row["id"] for row in memory.get_all(everything=True, kinds=["turn"])["results"]}
        memory.forget(turns[TEXT])
        assert_gone(tmp_path)
        assert [row["memory"] for row in memory.get_all(everything=True, kinds=["fact"])["results"]] == [
            "There is a secret."
        ]
        assert [row["memory"] for row in memory.get_all(everything=True, kinds=["turn"])["results"]] == ["yes"]
    assert_gone(tmp_path)
    assert_sound(tmp_path)


def test_a_fact_goes_with_its_only_turn_and_a_turn_with_its_only_fact(tmp_path: Path) -> None:
    for kind in ("fact", "turn"):
        folder = tmp_path / kind
        with open_memory(folder, extractor=Quoting()) as memory:
            memory.add([{"role": "user", "content": TEXT}, {"role": "user", "content": f"{CANARY} again"}], user_id="u")
            for row in memory.get_all(everything=True, kinds=[kind])["results"]:
                if memory.get(row["id"]) is not None:
                    memory.forget(row["id"])
            assert memories(memory) == {}
        assert_gone(folder)
        assert_sound(folder)


def test_what_another_process_has_open_is_caught_up_after_a_forget(tmp_path: Path) -> None:
    with filled(tmp_path, SEEDED) as memory, open_memory(tmp_path) as other:
        key = memory.add(TEXT, user_id="u0")["results"][0]["id"]
        assert other.search(CANARY, user_id="u0")["results"][0]["id"] == key
        memory.forget(key)
        assert all(CANARY not in hit["memory"] for hit in other.search(CANARY, user_id="u0")["results"])
        other._indexes.wait(60)
        other.add("later", user_id="u0")
        assert_gone(tmp_path)
    assert_gone(tmp_path)


def test_a_reader_that_holds_the_log_is_an_error_that_says_so_and_repeating_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_memlayer.journal.sqlite.BUSY_SECONDS", 0.05)
    with filled(tmp_path) as memory:
        key = memory.add(TEXT, user_id="u0")["results"][0]["id"]
        with reading(tmp_path / "journal.sqlite", "items"):
            with pytest.raises(JournalError, match="may still be in the files"):
                memory.forget(key)
            assert memory.get(key) is None
        memory.forget(key)
        assert_gone(tmp_path)
        with pytest.raises(MemoryNotFound):
            memory.forget("never-there")
    assert_sound(tmp_path)


@pytest.mark.sqlite
@pytest.mark.parametrize("file", ["journal.sqlite", "checkpoints.sqlite"])
def test_a_writer_that_brings_the_log_into_the_file_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    # The lock that SQLite has meanwhile.
    hold = (
        "import fcntl, sys; log = open(sys.argv[1], 'r+b'); fcntl.lockf(log, fcntl.LOCK_EX, 1, 121); print(); input()"
    )
    with filled(tmp_path) as memory, checkpointer(tmp_path) as saver:
        put_checkpoint(saver, "gone", CANARY)
        key = memory.add(TEXT, user_id="u0")["results"][0]["id"]
        command = [sys.executable, "-c", hold, f"{tmp_path / file}-shm"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            monkeypatch.setattr("time.sleep", lambda seconds: other.poll() is None and other.communicate(b"\n"))
            memory.forget(key)
            saver.delete_thread("gone")
            assert other.poll() == 0
        assert_gone(tmp_path)


def test_words_that_were_not_read_yet_are_noted_as_not_gone_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Down:
        def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
            raise ConnectionError

    monkeypatch.setattr("langchain_memlayer.journal.sqlite.BUSY_SECONDS", 0.05)
    with open_memory(tmp_path, extractor=Down(), keep_turns=False) as memory:
        with pytest.raises(ExtractionError):
            memory.add(TEXT, user_id="u0")
        with reading(tmp_path / "journal.sqlite", "items"), pytest.raises(JournalError, match="repeat the call"):
            memory.forget(user_id="u0")
        assert memory.unread(user_id="u0") == []
        assert [one.rule for one in check(memory._journal)] == ["forget"]
    with open_memory(tmp_path) as memory:
        assert check(memory._journal) == []
        assert_gone(tmp_path)


def test_a_full_disk_while_forgetting_is_finished_by_the_next_opening(tmp_path: Path) -> None:
    with filled(tmp_path) as memory:
        key = memory.add(TEXT, user_id="u0")["results"][0]["id"]
        vacuum = memory._journal._close_idle

        def full() -> None:
            raise OSError(28, "No space left on device")

        memory._journal._close_idle = full
        with pytest.raises(JournalError, match="No space left"):
            memory.forget(key)
        memory._journal._close_idle = vacuum
        assert containing(tmp_path, CANARY.encode()) != []
    with open_memory(tmp_path) as memory:
        assert_gone(tmp_path)
        assert memory.get(key) is None
    assert_sound(tmp_path)


def test_forgetting_beside_writers_and_readers(tmp_path: Path) -> None:
    with filled(tmp_path) as memory:
        stop = threading.Event()
        failures: list[BaseException] = []

        def work(number: int) -> None:
            count = 0
            try:
                while not stop.is_set():
                    memory.add(sentence(number, count), user_id="u0")
                    memory.search(sentence(number, count), user_id="u0")
                    count += 1
            except BaseException as error:  # noqa: BLE001 - the test shows it
                failures.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in (100, 101, 102)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            memory.forget(memory.add(TEXT, user_id="u0")["results"][0]["id"])
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert_gone(tmp_path)
    assert_gone(tmp_path)
    assert_sound(tmp_path)


@pytest.mark.parametrize("size", [1, 40, 3000])
def test_a_deleted_thread_is_in_no_file(tmp_path: Path, size: int) -> None:
    with checkpointer(tmp_path) as saver:
        for number in range(30):
            put_checkpoint(saver, "kept", f"kept {number} " * (number % 7 + 1) * size)
            put_checkpoint(saver, "gone", f"{CANARY} {number} " * (number % 5 + 1) * size)
        saver.delete_thread("gone")
        assert containing(tmp_path, CANARY.encode()) == []
        assert list(saver.list({"configurable": {"thread_id": "gone"}})) == []
        assert len(list(saver.list({"configurable": {"thread_id": "kept"}}))) == 30
    assert containing(tmp_path, CANARY.encode()) == []


def test_a_thread_whose_log_is_held_says_so_and_can_be_deleted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_memlayer.checkpoint._BUSY_SECONDS", 0.05)
    with checkpointer(tmp_path) as saver:
        put_checkpoint(saver, "gone", CANARY)
        with (
            reading(tmp_path / "checkpoints.sqlite", "checkpoints"),
            pytest.raises(JournalError, match="repeat the call"),
        ):
            saver.delete_thread("gone")
        saver.delete_thread("gone")
        assert containing(tmp_path, CANARY.encode()) == []
