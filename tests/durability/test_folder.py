"""What happens to a folder that is open: it is moved, exchanged, tampered with, forked, interrupted and closed."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from folders import assert_sound, containing, forked, memories, open_memory, open_store
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.store.base import PutOp

from langchain_memlayer import JournalClosed, JournalError, MemLayerStore, NotAStore, checkpointer
from langchain_memlayer.checkpoint import CHECKPOINT_FILE
from langchain_memlayer.index import files
from langchain_memlayer.journal import sqlite
from langchain_memlayer.journal.schema import JOURNAL_FILE
from langchain_memlayer.journal.sqlite import SQLiteJournal

pytestmark = pytest.mark.sqlite


def test_a_relative_path_means_what_it_meant_when_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_memory(Path("store")) as memory:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        memory.add("said elsewhere", user_id="u")
        assert memory.search("elsewhere", user_id="u")["results"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "store"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_path_in_ones_home_is_there_and_no_folder_of_the_name_of_the_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for path in ("~/notes", Path("~/notes")):
        with open_memory(path) as memory:
            assert memory.path == tmp_path / "home" / "notes"
    assert list((tmp_path / "here").iterdir()) == []


def test_only_the_owner_can_read_what_is_made(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        store = tmp_path / "a" / "store"
        with open_memory(store, hnsw_threshold=640) as memory, checkpointer(store):
            memory.add([f"sentence {k}" for k in range(60)], user_id="u")
            memory.search("sentence", user_id="u")
            assert memory._indexes.wait(60)
            made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
            logged = {f"{name}.sqlite{log}" for name in ("journal", "checkpoints") for log in ("", "-wal")}
            assert {path.name for path in made} >= {"derived", *logged}
            for path in made:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    finally:
        os.umask(mask)


@pytest.mark.parametrize("by", ["deletion", "exchange"])
def test_a_journal_that_was_exchanged_under_the_store_is_noticed_and_the_new_one_stays_whole(
    tmp_path: Path, by: str
) -> None:
    with open_memory(tmp_path / "backup") as memory:
        memory.add("from the backup", user_id="u")
    memory = open_memory(tmp_path / "store")
    memory.add([f"old {k}" for k in range(300)], user_id="u")
    if by == "deletion":
        (tmp_path / "store" / "journal.sqlite").unlink()
    else:
        (tmp_path / "backup" / "journal.sqlite").replace(tmp_path / "store" / "journal.sqlite")
    for call in (lambda: memory.add("new", user_id="u"), lambda: memory.get_all(user_id="u")):
        with pytest.raises(JournalError, match="deleted or replaced"):
            call()
    memory.close()
    if by == "exchange":
        with open_memory(tmp_path / "store") as memory:
            assert [text for _, text in memories(memory).values()] == ["from the backup"]
        assert_sound(tmp_path / "store")
    else:
        # The log has the last commits: that there is nothing else is not hidden by beginning anew.
        with pytest.raises(NotAStore):
            open_memory(tmp_path / "store")


def test_a_log_that_was_deleted_under_the_store_is_noticed(tmp_path: Path) -> None:
    with closing(SQLiteJournal(tmp_path)) as journal:
        with journal.write() as tx:
            tx.set_meta("one", "1")
        (tmp_path / "journal.sqlite-wal").unlink()
        with pytest.raises(JournalError, match="write-ahead log"), journal.write() as tx:
            tx.set_meta("two", "2")


FILES = [(JOURNAL_FILE, open_memory), (CHECKPOINT_FILE, checkpointer)]


@pytest.mark.parametrize(("file", "opener"), FILES)
def test_a_log_without_its_file_is_refused_and_left_alone(
    file: str, opener: Callable[[Path], Any], tmp_path: Path
) -> None:
    with opener(tmp_path / "store"):
        shutil.copytree(tmp_path / "store", tmp_path / "torn")
    (tmp_path / "torn" / file).unlink()
    log = (tmp_path / "torn" / f"{file}-wal").read_bytes()
    with pytest.raises(NotAStore, match="write-ahead log"):
        opener(tmp_path / "torn")
    assert (tmp_path / "torn" / f"{file}-wal").read_bytes() == log


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(("file", "opener"), FILES)
def test_a_file_that_is_a_link_is_refused_and_nothing_is_made_where_it_leads(
    file: str, opener: Callable[[Path], Any], there: bool, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / file
    target.parent.mkdir()
    if there:
        opener(target.parent).close()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / file).symlink_to(target)
    with pytest.raises(NotAStore, match="is a link; give the folder"):
        opener(tmp_path / "store")
    assert [path.name for path in target.parent.iterdir()] == ([file] if there else [])


@pytest.mark.parametrize(("file", "opener"), FILES)
def test_a_pipe_beside_a_file_is_not_waited_for(file: str, opener: Callable[[Path], Any], tmp_path: Path) -> None:
    opener(tmp_path).close()
    os.mkfifo(tmp_path / f"{file}-journal")
    with pytest.raises(NotAStore, match="is a pipe"):
        opener(tmp_path)


@pytest.mark.parametrize(
    "planted", ["VIEW planted AS SELECT 1", "TRIGGER planted AFTER INSERT ON writes BEGIN SELECT 1; END"]
)
def test_what_somebody_planted_in_the_checkpoints_is_refused(planted: str, tmp_path: Path) -> None:
    checkpointer(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / CHECKPOINT_FILE)) as db:
        db.execute(f"CREATE {planted}")
    with pytest.raises(JournalError, match="planted"):
        checkpointer(tmp_path)


def test_what_somebody_planted_in_the_journal_is_refused_or_told(tmp_path: Path) -> None:
    trigger = "TRIGGER planted AFTER INSERT ON items BEGIN DELETE FROM links; END"
    for number, planted in enumerate(("INDEX planted ON items (value)", "VIEW planted AS SELECT 1", trigger)):
        SQLiteJournal(tmp_path / str(number)).close()
        with closing(sqlite3.connect(tmp_path / str(number) / "journal.sqlite")) as db:
            db.execute(f"CREATE {planted}")
    with closing(SQLiteJournal(tmp_path / "0")) as journal:
        assert "planted" in journal.check()
    for refused in ("1", "2"):
        with pytest.raises(JournalError, match="planted"):
            SQLiteJournal(tmp_path / refused)


def test_an_error_of_the_callers_own_within_a_transaction_stays_what_it_is(tmp_path: Path) -> None:
    with closing(SQLiteJournal(tmp_path)) as journal:
        for block in (journal.read, journal.write):
            with pytest.raises(OSError, match="theirs") as raised, block():
                raise OSError("theirs")
            assert type(raised.value) is OSError


def test_forgetting_says_so_when_somebody_holds_the_derived_files_and_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    with open_memory(tmp_path) as memory:
        memory.add("the secret", user_id="u")
        with files.maintenance(tmp_path / "derived") as had:
            assert had
            with pytest.raises(JournalError, match="may still be"):
                memory.forget(user_id="u")
            files.write(tmp_path / "derived", "late", b"the secret", {})
        assert memories(memory) == {}
    open_memory(tmp_path).close()
    assert containing(tmp_path, b"the secret") == []


WAITING = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
"""


def test_an_interrupt_while_a_writer_waits_for_its_lock_leaves_none_behind(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.add("before", user_id="u")
        command = [sys.executable, "-c", WAITING, str(tmp_path / "journal.sqlite")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout
            assert holder.stdin
            assert holder.stdout.readline() == "held\n"
            release = holder.stdin

            def interrupt() -> None:
                os.kill(os.getpid(), signal.SIGINT)
                print(file=release, flush=True)

            timer = threading.Timer(0.3, interrupt)
            timer.start()
            with suppress(KeyboardInterrupt):
                memory.add("interrupted", user_id="u")
            timer.join()
        memory.add("after", user_id="u")
        with closing(sqlite3.connect(tmp_path / "journal.sqlite", timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")
        texts = {text for _, text in memories(memory).values()}
    assert texts - {"interrupted"} == {"before", "after"}


CLOSING = """
import sys, threading
from langchain_memlayer import MemLayerError, MemLayerStore

for _ in range(6):
    store = MemLayerStore(sys.argv[1], durability="fast")
    ready = threading.Barrier(4)

    def read():
        try:
            ready.wait()
            while True:
                store.search(("n",), filter={"k": -1})
        except MemLayerError as error:
            assert type(error).__name__ == "JournalClosed", error

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    store.close()
    for thread in threads:
        thread.join()
print("whole")
"""


def test_closing_waits_for_those_who_read_and_the_others_are_told(tmp_path: Path) -> None:
    with MemLayerStore(tmp_path, durability="fast") as store:
        store.batch([PutOp(("n",), str(k), {"k": k, "text": "x" * 200}) for k in range(500)])
    ended = subprocess.run([sys.executable, "-c", CLOSING, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "whole\n"), ended.stderr
    journal = SQLiteJournal(tmp_path)
    with journal.read() as reader:
        journal.close()
        with pytest.raises(JournalClosed), journal.read():
            pass
        del reader


def test_two_threads_that_fork_at_once_leave_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: raised.append(found.exc_value))
    stores = [open_store(tmp_path / str(number)) for number in range(3)]

    def fork() -> None:
        forked = 0
        while forked < 20:
            try:
                child = os.fork()
            except RuntimeError:  # of filelock, where it sees that another thread is forking
                time.sleep(0.001)
                continue
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            forked += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=fork) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(10):
            for store in stores:
                store.put(("n",), str(number), {"text": "between"})
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        sys.setswitchinterval(interval)
    assert raised == []
    for number, store in enumerate(stores):
        store.put(("n",), "after", {"text": "after"})
        store.close()
        assert_sound(tmp_path / str(number))


def test_forks_from_a_process_with_a_thread_that_saves_checkpoints(tmp_path: Path) -> None:
    def save(saver: Any, thread: str) -> None:
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        saver.put(config, empty_checkpoint(), {"source": "loop", "step": 0, "parents": {}}, {})

    with checkpointer(tmp_path) as saver, ThreadPoolExecutor(1) as pool:
        copy, stop = saver.with_allowlist([("a", "b")]), threading.Event()

        def work() -> int:
            saved = 0
            while not stop.is_set() or not saved:
                save(copy, "parent")
                saved += 1
            return saved

        working, codes = pool.submit(work), []
        for number in range(10):

            def child(number: int = number) -> bool:
                save((saver, copy)[number % 2], "child")
                return saver.get_tuple({"configurable": {"thread_id": "child"}}) is not None

            codes.append(os.waitpid(forked(child), 0)[1])
        stop.set()
        assert codes == [0] * len(codes)
        for thread, count in (("parent", working.result(60)), ("child", len(codes))):
            assert len(list(saver.list({"configurable": {"thread_id": thread}}))) == count


def test_a_connection_that_was_interrupted_while_it_was_opened_leaves_a_store_that_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = SQLiteJournal._prepared

    def interrupted(self: SQLiteJournal, db: sqlite3.Connection) -> sqlite3.Connection:
        prepared(self, db).close()
        # They take the numbers that the log and its index had.
        for name in (".one", ".two"):
            (tmp_path / name).touch()
        raise KeyboardInterrupt

    with open_store(tmp_path) as store:
        # A fork closes the connections, and the first one that is opened then makes the log anew.
        assert os.waitpid(forked(lambda: True), 0)[1] == 0
        monkeypatch.setattr(SQLiteJournal, "_prepared", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.put(("n",), "k", {"text": "one"})
        monkeypatch.undo()
        store.put(("n",), "k", {"text": "two"})
    assert_sound(tmp_path)


def test_a_child_of_a_fork_keeps_its_log_when_its_parent_closes(tmp_path: Path) -> None:
    memory = open_memory(tmp_path)
    memory.add("from the parent", user_id="u")
    gate, done = os.pipe(), os.pipe()

    def work() -> bool:
        memory.add("first", user_id="u")
        os.write(done[1], b"x")
        os.read(gate[0], 1)
        return bool(memory.add("second", user_id="u"))

    child = forked(work)
    os.read(done[0], 1)
    memory.close()
    os.write(gate[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (*gate, *done):
        os.close(descriptor)
    with open_memory(tmp_path) as memory:
        assert {text for _, text in memories(memory).values()} == {"from the parent", "first", "second"}


@pytest.mark.parametrize("moment", range(1, 12))
def test_a_folder_that_another_process_makes_meanwhile_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    folder, real, looked, others = tmp_path / "store", Path.stat, 0, list[SQLiteJournal]()

    def stat_(path: Path, **how: bool) -> os.stat_result:
        nonlocal looked
        if path.parent == folder and not others:
            looked += 1
            try:
                return real(path, **how)
            finally:
                if looked == moment:
                    others.append(None)  # type: ignore[arg-type]  # what it looks at itself is not counted
                    others[0] = SQLiteJournal(folder)
        return real(path, **how)

    monkeypatch.setattr(Path, "stat", stat_)
    with closing(SQLiteJournal(folder)) as journal:
        for other in others:
            assert other.store_id == journal.store_id
            other.close()
