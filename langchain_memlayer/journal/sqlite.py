"""The journal on SQLite: connections, transactions and upkeep."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from langchain_memlayer.errors import InvalidInput, JournalError, MemLayerError, NotAStore
from langchain_memlayer.index import files
from langchain_memlayer.journal.base import BaseJournal, random_id, utc_now
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.schema import DERIVED, check_version, create, journal_path, refuse_torn, strangers
from langchain_memlayer.journal.settings import SCRUB_DUE
from langchain_memlayer.journal.write import Writer
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.types import Durability, to_micros

BUSY_SECONDS = 30.0
_WAL_ATTEMPTS = 100
_FORK_SECONDS = 5.0


class SQLiteJournal(BaseJournal):
    """One folder's journal: any number of readers, one writer at a time, from any thread or process.

    Args:
        path: The store's folder (made when missing), or `":memory:"`.
        durability: `full` lets an acknowledged write survive power loss, `fast` only the end of the process.
        clock: The present time.
        new_id: Fresh ids.

    Raises:
        NotAStore: `path` holds something else.
        SchemaTooNew: a newer release wrote it.
        JournalError: it cannot be opened.
    """

    def __init__(
        self, path: str | Path, *, durability: Durability = "full", clock: Clock = utc_now, new_id: NewId = random_id
    ) -> None:
        super().__init__(durability=durability, clock=clock, new_id=new_id)
        if not isinstance(path, (str, Path)) or not str(path) or "\x00" in str(path):
            raise InvalidInput(f"path must be a folder's path or ':memory:', got {path!r}.")
        self.folder = None if str(path) == ":memory:" else Path(path)
        self.where = ":memory:" if self.folder is None else str(self.folder)
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._abandoned: list[sqlite3.Connection] = []
        self._start()
        _OPENED.add(self)
        with self._errors(), ExitStack() as undo:
            undo.callback(self._disconnect)
            if self.folder is not None:
                file = journal_path(self.folder)
                refuse_torn(file)
                self._file = str(file)
                _make_folder(self.folder)
            self._writer = self._connect()
            create(self._writer, where=self.where, new_id=new_id, created_at=to_micros(clock()))
            self._opened()
            undo.pop_all()

    def _start(self) -> None:
        self._write_lock = threading.RLock()
        self._idle: list[sqlite3.Connection] = []
        self._open: list[sqlite3.Connection] = []

    def hold(self, seconds: float) -> threading.RLock | None:
        """The lock of writers, when it was got in time; nobody writes until it is released."""
        return self._write_lock if self._write_lock.acquire(timeout=seconds) else None

    def _connect(self) -> sqlite3.Connection:
        target = ":memory:" if self.folder is None else self._file
        db = sqlite3.connect(
            target, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self._open.append(db)
        db.execute(f"PRAGMA synchronous = {self._synchronous}")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA mmap_size = 1073741824")
        db.execute("PRAGMA cache_size = -16384")
        if self.folder is not None:
            # Before anything is changed: a file of something else stays as it is.
            check_version(db, self.where)
            _use_wal(db)
            db.execute("PRAGMA journal_size_limit = 67108864")
        return db

    def _reconnect(self) -> None:
        if self.folder is None:
            raise JournalError("A store in memory belongs to the process that made it; open a folder to share it.")
        self._abandoned += self._open
        self._start()
        self._writer = self._connect()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error
        except OSError as error:
            if isinstance(error, MemLayerError):
                raise
            raise JournalError(f"Cannot open {self.where}: {error.strerror or error}. Check the folder.") from error

    def _explain(self, error: sqlite3.DatabaseError) -> JournalError:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_NOTADB"):
            return NotAStore(f"{self.where} is no store: its journal is not a database. Restore it from a backup.")
        hints = {
            "SQLITE_READONLY": "it is read-only; make the folder writable",
            "SQLITE_FULL": "the disk is full; nothing of this call was stored; make room and repeat it",
            "SQLITE_IOERR": "the disk failed; nothing of this call was stored",
            "SQLITE_BUSY": f"another process held its lock for over {BUSY_SECONDS:.0f} s; repeat the call",
            "SQLITE_CANTOPEN": "the file cannot be opened; check the folder and its permissions",
            "SQLITE_CORRUPT": "the file is damaged; run `memlayer doctor` or restore a backup",
            "SQLITE_TOOBIG": "a value is too large for SQLite (1 GB)",
        }
        hint = next((text for start, text in hints.items() if name.startswith(start)), str(error))
        return JournalError(f"The journal of {self.where} failed: {hint} ({name or type(error).__name__}).")

    @contextmanager
    def read(self, *, snapshot: bool = False) -> Iterator[Reader]:
        """A reader; with `snapshot` all its reads see one state of the journal."""
        self._check()
        if self.folder is None:
            with self._write_lock, self._errors():
                yield Reader(self._writer)
            return
        with self._errors():
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._connect()
            try:
                if snapshot:
                    db.execute("BEGIN")
                yield Reader(db)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._idle.append(db)

    @contextmanager
    def write(self, *paths: str) -> Iterator[Writer]:
        """A writer whose changes are committed together when the block ends well, and undone otherwise.

        SQLite has one writer at a time, whatever namespaces (`paths`) it is about.
        """
        self._check()
        with self._write_lock, self._errors():
            db = self._writer
            db.execute("BEGIN IMMEDIATE")
            try:
                writer = Writer(db, now=to_micros(self.clock()))
                yield writer
                writer.finish()
                _step("before-commit")
                db.execute("COMMIT")
                _step("after-commit")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        self._committed()

    def scrub(self) -> None:
        """Make deletions physical: drop derived files, rewrite the keyword index and the file, and empty the log.

        Raises:
            JournalError: the disk is full, or readers of another process did not let go of the log.
        """
        self._check()
        with self._write_lock, self._errors():
            try:
                self._scrub()
            except (sqlite3.DatabaseError, OSError) as error:
                raise self._unscrubbed("files", error) from error

    def _scrub(self) -> None:
        db = self._writer
        db.execute("INSERT INTO keywords (keywords) VALUES ('rebuild')")
        if self.folder is not None:
            derived = self.folder / DERIVED
            if derived.is_dir():
                with files.maintenance(derived, timeout=BUSY_SECONDS):
                    files.drop_all(derived)
            self._close_idle()
            db.execute("VACUUM")
            if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise sqlite3.OperationalError("the write-ahead log is in use")
        db.execute("DELETE FROM meta WHERE key = ?", (SCRUB_DUE,))

    def _close_idle(self) -> None:
        # An idle reader keeps no lock, but its page cache and statements may; the pool refills by itself.
        with suppress(IndexError):
            while True:
                reader = self._idle.pop()
                self._open.remove(reader)
                reader.close()

    def check(self) -> str:
        """SQLite's own verdict on the file: `ok`, or what is wrong."""
        with self.read() as reader:
            said = str(reader.db.execute("PRAGMA quick_check(1)").fetchone()[0])
            strange = strangers(reader.db) if said == "ok" else []
        return f"it has what is not ours, or not as we make it: {', '.join(strange)}" if strange else said

    def size(self) -> int:
        """The bytes of all files in the folder."""
        return 0 if self.folder is None else sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file())

    def _disconnect(self) -> None:
        with self._write_lock:
            self._idle.clear()
            for db in self._open:
                db.close()
            self._open.clear()


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        files.sync_folder(path.parent)


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


# A child that is forked in the middle of a commit inherits SQLite's note that somebody in its process holds the lock,
# and would wait for nobody. So a fork waits for the commits that run.
_OPENED: weakref.WeakSet[SQLiteJournal] = weakref.WeakSet()
_HELD: list[threading.RLock] = []


def _before_fork() -> None:
    _HELD.extend(held for journal in tuple(_OPENED) if (held := journal.hold(_FORK_SECONDS)) is not None)


def _after_fork() -> None:
    while _HELD:
        _HELD.pop().release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
