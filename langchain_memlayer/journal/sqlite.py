"""The journal on SQLite: connections, transactions, forks and upkeep."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from langchain_memlayer.errors import JournalClosed, JournalError, NotAStore
from langchain_memlayer.index import files
from langchain_memlayer.journal.base import Journal, random_id, utc_now
from langchain_memlayer.journal.database import SCRUB_DUE
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.schema import (
    DERIVED,
    check_version,
    create,
    identity,
    journal_path,
    refuse_torn,
    strangers,
)
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.types import Durability, to_micros

_T = TypeVar("_T")

BUSY_SECONDS = 30.0
_WAL_ATTEMPTS = 100
_FORK_SECONDS = 5.0
_POLL_SECONDS = 0.02

_HINTS = {
    "SQLITE_READONLY": "it is read-only; make the folder writable",
    "SQLITE_FULL": "the disk is full; nothing of this call was stored; make room and repeat it",
    "SQLITE_IOERR": "the disk failed or is full; nothing of this call was stored; see to the disk and repeat it",
    "SQLITE_BUSY": f"another process held its lock for over {BUSY_SECONDS:.0f} s; repeat the call",
    "SQLITE_CANTOPEN": "the file cannot be opened; check the folder and its permissions",
    "SQLITE_CORRUPT": "the file is damaged; run `memlayer doctor` or restore a backup",
    "SQLITE_TOOBIG": "a value is too large for SQLite (1 GB)",
}


class _Reading:
    """A connection that is read through, with the lock of the thread that does; `db` is None once it was closed."""

    __slots__ = ("db", "lock")

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db: sqlite3.Connection | None = db
        self.lock = threading.RLock()

    def close(self) -> None:
        db, self.db = self.db, None
        if db is not None:
            db.close()


class SQLiteJournal(Journal):
    """One folder's journal: any number of readers, one writer at a time, from any thread or process.

    Args:
        path: The store's folder (made when missing), or `":memory:"`. What it is relative to is settled here: changing
            the working directory afterwards changes nothing.
        durability: `full` lets an acknowledged write survive power loss, `fast` only the end of the process.

    Raises:
        NotAStore: `path` holds something else, or an object that is none of ours.
        SchemaTooNew: a newer release wrote it.
        JournalError: it cannot be opened.
    """

    def __init__(
        self, path: str | Path, *, durability: Durability = "full", clock: Clock = utc_now, new_id: NewId = random_id
    ) -> None:
        super().__init__(durability=durability, clock=clock, new_id=new_id)
        self.folder = None if str(path) == ":memory:" else Path(path).absolute()
        self.where = ":memory:" if self.folder is None else str(self.folder)
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._file = ""
        self._identity: tuple[int, int] | None = None
        self._start()
        with self._inside(self._opening()), ExitStack() as undo:
            undo.callback(self._disconnect)
            if self.folder is not None:
                file = journal_path(self.folder)
                refuse_torn(file)
                self._file = str(file)
                _make_folder(self.folder)
                _make_file(file)
            create(self._writing(), where=self.where, new_id=new_id, created_at=to_micros(clock()))
            self._opened()
            undo.pop_all()
        with FORKS.door:
            FORKS.files.add(self)

    def _start(self) -> None:
        self._write_lock = threading.RLock()
        self._connecting = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._readings: list[_Reading] = []
        self._idle: list[_Reading] = []
        self._log: tuple[int, int] | None = None

    # -- connections ----------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self.folder is None:
            return self._prepared(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        with self._connecting:
            if self._identity is not None:
                self._check_file()
            if self._writer is None and not self._readings:
                # The last one that was closed has taken its log with it.
                self._log = None
            db = sqlite3.connect(
                self._file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            self._identity = identity(self._file)
            return self._prepared(db)

    def _prepared(self, db: sqlite3.Connection) -> sqlite3.Connection:
        with ExitStack() as undo:
            undo.callback(db.close)
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA trusted_schema = OFF")
            db.execute("PRAGMA cache_size = -16384")
            if self.folder is not None:
                # Before anything is changed: a file of something else stays as it is.
                check_version(db, self.where)
                _use_wal(db)
                db.execute("PRAGMA journal_size_limit = 67108864")
                self._log = self._log or identity(f"{self._file}-wal")
            undo.pop_all()
        return db

    def _writing(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = self._connect()
        return self._writer

    def _check_file(self) -> None:
        """Refuse a journal whose file is another one than when it was opened: what is written now would be lost."""
        if identity(self._file) != self._identity:
            self._drop_log()
            raise JournalError(
                f"The journal of {self.where} was deleted or replaced while it was open; nothing of this call was "
                "stored. Close the store and open it again."
            )

    def _drop_log(self) -> None:
        """Take the log of the file that is gone away from the one in its place, which SQLite would apply it to."""
        if self._log is not None and identity(f"{self._file}-wal") == self._log and Path(self._file).exists():
            for end in ("-wal", "-shm"):
                Path(f"{self._file}{end}").unlink(missing_ok=True)

    def _check_log(self) -> None:
        """The same of its write-ahead log, which stays as long as anybody has the journal open."""
        if self.folder is None:
            return
        log = identity(f"{self._file}-wal")
        self._log = self._log or log
        if log is None or log != self._log:
            raise JournalError(
                f"The write-ahead log of {self.where} was deleted or replaced while it was open; nothing of this call "
                "was stored. Close the store and open it again."
            )

    def _reconnect(self) -> None:
        if self.folder is None:
            raise JournalError("A store in memory belongs to the process that made it; open a folder to share it.")
        # What a fork could not close is the parent's: here it must not be used, not even closed.
        FORKS.abandoned += [self._writer, *(reading.db for reading in self._readings)]
        self._start()

    def _disconnect(self) -> None:
        until = time.monotonic() + BUSY_SECONDS
        # Who reads longer than that closes the connection itself.
        for reading in tuple(self._readings):
            if reading.lock.acquire(timeout=max(0.0, until - time.monotonic())):
                try:
                    reading.close()
                finally:
                    reading.lock.release()
        if self._write_lock.acquire(timeout=max(0.1, until - time.monotonic())):
            try:
                writer, self._writer = self._writer, None
                if writer is not None:
                    writer.close()
            finally:
                self._write_lock.release()
        if identity(self._file) != self._identity:
            self._drop_log()

    def hold(self, until: float, held: list[Any]) -> None:
        """Wait until nobody is in SQLite, and close what is open: no connection may cross a fork.

        Args:
            until: The moment of `time.monotonic` to give up at.
            held: Gets the locks that keep it so, to be released by this thread.
        """
        before = len(held)
        while not all(
            try_acquire(lock, held, 0.0)
            for lock in (self._write_lock, self._connecting, *(reading.lock for reading in tuple(self._readings)))
        ):
            # Nothing is kept while waiting: whoever is inside may need it.
            _release(held, before)
            if time.monotonic() > until:
                return
            time.sleep(0.001)
        if self.folder is not None:
            self._close_idle()
            # A thread that forks within its own transaction keeps that.
            if self._writer is not None and not self._writer.in_transaction:
                writer, self._writer = self._writer, None
                writer.close()

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                reading = self._idle.pop()
                self._readings.remove(reading)
                reading.close()

    # -- errors ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _inside(self, steps: Iterable[_T]) -> Iterator[_T]:
        """While a thread is in SQLite, whose errors become ours; what else a block raises is its own.

        Who is inside already passes by the door of forks: they wait for it.

        Args:
            steps: Gives what the block gets, and goes on when that has ended; one context takes half as long as two.
        """
        depth = getattr(FORKS.own, "depth", 0)
        if not depth:
            with FORKS.door:
                pass
        try:
            FORKS.own.depth = depth + 1
            yield from steps
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            FORKS.own.depth = depth

    def _opening(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(f"Cannot open {self.where}: {error.strerror or error}. Check the folder.") from error
        except UnicodeError as error:
            raise JournalError(f"{self.where} is damaged: {_HINTS['SQLITE_CORRUPT']}.") from error

    def _explain(self, error: sqlite3.Error) -> JournalError:
        if self._closed:
            return JournalClosed(f"The store of {self.where} is closed; open it again.")
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_NOTADB"):
            return NotAStore(f"{self.where} is no store: its journal is not a database. Restore it from a backup.")
        hint = next((text for start, text in _HINTS.items() if name.startswith(start)), None)
        if hint is None:
            # Of a damaged file SQLite says so in many ways, some without a code.
            said = str(error)
            damaged = "decode" in said or "malformed" in said
            hint = _HINTS["SQLITE_CORRUPT"] if damaged else said
        return JournalError(f"The journal of {self.where} failed: {hint} ({name or type(error).__name__}).")

    # -- transactions ---------------------------------------------------------------------------------------------

    def read(self, *, snapshot: bool = False) -> AbstractContextManager[Reader]:
        """A reader; with `snapshot` all its reads see one state of the journal."""
        return self._inside(self._read(snapshot))

    def _read(self, snapshot: bool) -> Iterator[Reader]:
        self._check()
        if self.folder is None:
            with self._write_lock:
                self._check()
                yield Reader(self._writing())
            return
        while True:
            reading = self._free()
            with reading.lock:
                # It may have been closed between.
                if (db := reading.db) is None:
                    self._check()
                    continue
                try:
                    self._check_file()
                    if snapshot:
                        db.execute("BEGIN")
                    yield Reader(db)
                finally:
                    self._leave(reading)
                return

    def _free(self) -> _Reading:
        try:
            return self._idle.pop()
        except IndexError:
            db = self._connect()
            # A slab's load fills it, and who reads by id finds the rest in the system's own cache.
            db.execute("PRAGMA cache_size = -4096")
            reading = _Reading(db)
            self._readings.append(reading)
            return reading

    def _leave(self, reading: _Reading) -> None:
        if self._pid != os.getpid():
            return
        if self._closed:
            reading.close()
        elif reading.db is not None:
            if reading.db.in_transaction:
                reading.db.execute("ROLLBACK")
            self._idle.append(reading)

    def write(self, *paths: str) -> AbstractContextManager[Writer]:
        """A writer whose changes are committed together when the block ends well, and undone otherwise.

        SQLite has one writer at a time, whatever namespaces (`paths`) it is about.
        """
        return self._inside(self._write())

    def _write(self) -> Iterator[Writer]:
        self._check()
        with self._write_lock:
            self._check()
            db = self._writing()
            # Every way out leads through the end of this, also that of an interrupt right behind BEGIN.
            try:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._check_file()
                db.execute("BEGIN IMMEDIATE")
                writer = Writer(db, now=self.now())
                yield writer
                writer.settle()
                _step("before-commit")
                self._check_file()
                self._check_log()
                db.execute("COMMIT")
                _step("after-commit")
            finally:
                if self._pid == os.getpid() and db.in_transaction:
                    db.execute("ROLLBACK")
        self._committed()

    # -- upkeep ---------------------------------------------------------------------------------------------------

    def scrub(self) -> None:
        """Make deletions physical: drop derived files, rewrite the file, and empty the log.

        Raises:
            JournalError: the disk is full, or somebody else did not let go of the derived files or of the log.
        """
        self._check()
        with self._inside((None,)), self._write_lock:
            self._check()
            try:
                self._check_file()
                self._scrub(self._writing())
            except (sqlite3.Error, OSError) as error:
                raise self._unscrubbed("files", error) from error

    def _scrub(self, db: sqlite3.Connection) -> None:
        if self.folder is not None:
            derived = self.folder / DERIVED
            if derived.is_dir():
                with files.maintenance(derived, timeout=BUSY_SECONDS) as had:
                    if not had:
                        raise TimeoutError("another process is writing derived files")
                    files.drop_all(derived)
            # An idle reader keeps no lock, but its page cache and statements may; others are opened when needed.
            self._close_idle()
            # What is deleted is cleared, but not the copies that SQLite leaves where it moves rows between pages.
            db.execute("VACUUM")
            if not empty_log(db, BUSY_SECONDS):
                raise TimeoutError("the write-ahead log is in use")
        db.execute("DELETE FROM meta WHERE key = ?", (SCRUB_DUE,))

    def check(self) -> str:
        """SQLite's own verdict on the file: `ok`, or what is wrong."""
        with self.read() as reader:
            said = str(reader.db.execute("PRAGMA quick_check(1)").fetchone()[0])
            strange = strangers(reader.db) if said == "ok" else []
        return f"it has what is not ours, or not as we make it: {', '.join(strange)}" if strange else said

    def size(self) -> int:
        """The bytes of all files in the folder."""
        return 0 if self.folder is None else sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())


def empty_log(db: sqlite3.Connection, seconds: float) -> bool:
    """Whether the write-ahead log could be emptied in some seconds.

    SQLite waits for readers and writers by itself, but not for a writer that is bringing the log into the file.
    """
    until = time.monotonic() + seconds
    while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        files.sync_folder(path.parent)


def _make_file(file: Path) -> None:
    # SQLite gives its logs the rights of the journal, and a journal that it makes those that the process's mask leaves.
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _use_wal(db: sqlite3.Connection) -> None:
    # SQLite does not wait for its lock here. When several processes open a new folder at once, the transaction does.
    for _ in range(_WAL_ATTEMPTS):
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY":
                raise
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        else:
            return
    db.execute("PRAGMA journal_mode = WAL")


def _step(name: str) -> None:
    """Called at each step of a commit; tests replace it to stop the process there."""


def try_acquire(lock: Any, held: list[Any], seconds: float) -> bool:
    """Whether a lock could be had in some seconds; it is noted before, since an interrupt may come right behind."""
    held.append(lock)
    if not lock.acquire(timeout=seconds):
        held.pop()
        return False
    return True


def _release(held: list[Any], most: int = 0) -> None:
    """Let go of what was noted last, until `most` are left."""
    while len(held) > most:
        # An interrupt came before it was taken, or after it was released.
        with suppress(RuntimeError):
            held[-1].release()
        held.pop()


class _Forks:
    """What a fork has to wait for, and close, in all journals and files of checkpoints of the process.

    A child inherits SQLite's notes about who in its process holds which lock, and its mutexes as they are in that
    moment; with them it would wait for nobody, or believe in locks that it does not hold. So a fork lets nobody begin,
    waits for those who are inside, and closes the connections, which are opened again when somebody needs one.
    """

    def __init__(self) -> None:
        self.files: weakref.WeakSet[Any] = weakref.WeakSet()
        self.abandoned: list[Any] = []
        self.door = threading.RLock()
        self.own = threading.local()

    def before(self) -> None:
        """Stand at the door until the fork is over, when nobody is inside."""
        held = self.own.held = []
        until = time.monotonic() + _FORK_SECONDS
        if try_acquire(self.door, held, _FORK_SECONDS):
            for file in tuple(self.files):
                file.hold(until, held)

    def after(self) -> None:
        """Let go of what this thread took, and of nothing else."""
        _release(getattr(self.own, "held", []))

    def in_child(self) -> None:
        """The other threads are gone, and whoever of them stood at the door with them."""
        self.after()
        self.door = threading.RLock()


FORKS = _Forks()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=FORKS.before, after_in_parent=FORKS.after, after_in_child=FORKS.in_child)
