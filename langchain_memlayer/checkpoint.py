"""`checkpointer`: LangGraph's threads in the same folder as the memories, in a file of their own."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_origin

from langchain_core.runnables import RunnableConfig
from langgraph._internal import _serde
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.utils import search_where
from pydantic import BaseModel

from langchain_memlayer.arguments import checked_count
from langchain_memlayer.errors import InvalidInput, JournalClosed, JournalError, NotAStore, shown
from langchain_memlayer.journal import default_folder, is_url, place
from langchain_memlayer.journal.database import DAMAGED
from langchain_memlayer.journal.schema import identity, journal_path, refuse_planted, refuse_torn
from langchain_memlayer.journal.sqlite import FORKS, empty_log, try_acquire
from langchain_memlayer.steps import awaited
from langchain_memlayer.threads import Closing, in_thread
from langchain_memlayer.types import Durability

CHECKPOINT_FILE = "checkpoints.sqlite"
_BUSY_SECONDS = 30.0
_LOGGER = logging.getLogger(__name__)

# A graph tells its checkpointer which classes its schemas declare (`with_allowlist`) when LangGraph is told to be
# strict. A saver that allows every class, LangGraph's default, is not changed by what it is told.
_serde.STRICT_MSGPACK_ENABLED = True  # type: ignore[attr-defined]
_collect: Any = getattr(_serde, "_collect_from_type", None)


def _collect_all(typ: Any, allowlist: set[tuple[str, ...]], seen: set[Any], seen_ids: set[int]) -> None:
    """What a schema declares: LangGraph passes over abstract and own generics, named tuples, aliases and subclasses."""
    known = len(seen) + len(seen_ids)
    _collect(typ, allowlist, seen, seen_ids)
    if known == len(seen) + len(seen_ids):
        return
    parts = [get_origin(typ), *get_args(typ), getattr(typ, "__value__", None)]
    if isinstance(typ, type):
        name = typ.__module__, typ.__name__
        if issubclass(typ, tuple) and hasattr(typ, "_fields"):
            allowlist.add(name)
            parts += _serde._safe_get_type_hints(typ).values()
        if name in allowlist and typ is not BaseModel:
            parts += typ.__subclasses__()
    for part in parts:
        _collect_all(type(part) if isinstance(part, Enum) else part, allowlist, seen, seen_ids)


# A later LangGraph may do it another way: then only what that finds is known.
if _collect is not None:
    _serde._collect_from_type = _collect_all

_KEY = "thread_id, checkpoint_ns, checkpoint_id"
_NAMES, _NEWEST = f"SELECT {_KEY} FROM checkpoints", "ORDER BY checkpoint_id DESC"

# What was deleted up to which checkpoint, and the checkpoints of runs that went on all the same; ids sort by time.
_DELETED = """CREATE TABLE IF NOT EXISTS deleted (
    thread_id TEXT NOT NULL, up_to INTEGER NOT NULL, checkpoint_id TEXT NOT NULL,
    PRIMARY KEY (thread_id, up_to, checkpoint_id)
) WITHOUT ROWID"""
_LATE = "SELECT 1 FROM deleted WHERE thread_id = ? AND (checkpoint_id = ? OR (up_to AND checkpoint_id >= ?)) LIMIT 1"
# Damaged metadata of one checkpoint fail no look at others.
_TEXT = "CAST(metadata AS TEXT)"
_METADATA = f"CASE WHEN json_valid({_TEXT}) THEN {_TEXT} END"
_FOLLOWING = f"""SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? AND (parent_checkpoint_id = ?
    OR EXISTS (SELECT 1 FROM json_each({_METADATA}, '$.parents') WHERE value = ?))"""
_DELTA = f"json_type({_METADATA}, '$.counters_since_delta_snapshot') IS NOT NULL"
_OF_DELTAS = f"SELECT 1 FROM checkpoints WHERE thread_id = ? AND {_DELTA} LIMIT 1"
_BUILT_ON = f"""SELECT thread_id FROM checkpoints later WHERE {_DELTA} AND EXISTS (SELECT 1 FROM deleted
    WHERE thread_id = later.thread_id AND up_to = 0 AND checkpoint_id = later.parent_checkpoint_id) LIMIT 1"""
_OLD = """FROM checkpoints WHERE thread_id = ? AND checkpoint_id <> (
    SELECT max(last.checkpoint_id) FROM checkpoints last
    WHERE last.thread_id = checkpoints.thread_id AND last.checkpoint_ns = checkpoints.checkpoint_ns)"""


def checkpointer(
    path: str | Path | None = None, *, durability: Durability = "full", allowed_types: Iterable[type] = ()
) -> MemLayerSaver:
    """A LangGraph checkpointer in a store's folder; sync and async methods both work, in any event loop and thread.

    Args:
        path: The folder (made when missing), which a `MemLayerStore` or `Memory` may use too, or `":memory:"`. None
            means the folder that a `Memory` without a path has.
        durability: `full` lets a saved checkpoint survive power loss; `fast` only a killed process.
        allowed_types: Further classes of your own that a graph's state holds. Messages, documents, dates and the like
            are always allowed, and so are the classes that the graph's own schemas declare, with their subclasses. An
            object of any other class (what a `@task` returns, an agent's `response_format`) comes back as its plain
            data, because a checkpoint file that may name any class may also name one that runs code.

    Returns:
        The checkpointer; close it, or use it as a context manager (`with` or `async with`).

    Raises:
        NotAStore: `path` holds something else.
        JournalError: the file cannot be opened.

    Example:
        ```python
        with checkpointer("memories") as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke(inputs, {"configurable": {"thread_id": "1"}})
        ```
    """
    return MemLayerSaver(path, durability=durability, allowed_types=allowed_types)


class _SharedConnection:
    """The connection, shared by the copies that LangGraph makes of a saver (`with_allowlist`)."""

    def __init__(self) -> None:
        self.conn: sqlite3.Connection | None = None
        self.files: tuple[Any, Any] = None, None
        self.pid = os.getpid()
        # Whoever holds that of a parent is not here.
        self.locks: dict[int, Any] = {}
        self.ready = self.used = self.closed = False
        self.abandoned: tuple[Any, ...] = ()

    @property
    def lock(self) -> Any:
        return self.locks.setdefault(os.getpid(), threading.RLock())

    def hold(self, until: float, held: list[Any]) -> None:
        """Wait until nobody is in SQLite, and close what is open, as a journal does; see there."""
        if not try_acquire(self.lock, held, max(0.0, until - time.monotonic())):
            return
        # A thread that forks while it reads or writes itself keeps that.
        if self.conn is not None and self.ready and self.files[0] and self.pid == os.getpid() and not self.used:
            self.ready = False
            self.conn.close()


class MemLayerSaver(Closing, SqliteSaver):
    """What `checkpointer` returns: LangGraph's `SqliteSaver` with async methods that are bound to no event loop."""

    def __init__(
        self, path: str | Path | None = None, *, durability: Durability = "full", allowed_types: Iterable[type] = ()
    ) -> None:
        if durability not in ("full", "fast"):
            raise InvalidInput(f"durability must be 'full' or 'fast', got {shown(durability)}.")
        where = default_folder() if path is None else place(path)
        if is_url(where):
            raise InvalidInput(
                "Checkpoints in PostgreSQL are LangGraph's own: langgraph.checkpoint.postgres.PostgresSaver takes the "
                "same connection string, and its tables may lie beside the store's."
            )
        classes = _classes(allowed_types)
        self._folder = None if str(where) == ":memory:" else Path(where).absolute()
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        self._held = threading.local()
        self._shared = _SharedConnection()
        with self._errors():
            super().__init__(self._connect(), serde=JsonPlusSerializer(allowed_msgpack_modules=classes))
            self._prepare()
        with FORKS.door:
            FORKS.files.add(self._shared)

    # -- the file -------------------------------------------------------------------------------------------------

    @property
    def conn(self) -> sqlite3.Connection:
        """The connection, where it is open."""
        return self._shared.conn  # type: ignore[return-value]

    @conn.setter
    def conn(self, conn: sqlite3.Connection) -> None:
        self._shared.conn = conn

    @property
    def lock(self) -> Any:
        """Who has it uses the connection."""
        return self._shared.lock

    @lock.setter
    def lock(self, lock: Any) -> None:
        # That of SqliteSaver may be released by anybody.
        pass

    def _connect(self) -> sqlite3.Connection:
        target: str | Path = ":memory:"
        if self._folder is not None:
            journal_path(self._folder)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = self._folder / CHECKPOINT_FILE
            refuse_torn(target)
            # SQLite gives its log the mode of the file. One that is there is not touched: who closes it a second time
            # ends the locks that the process has on it.
            with suppress(FileExistsError):
                os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return sqlite3.connect(target, timeout=_BUSY_SECONDS, check_same_thread=False)

    def _prepare(self) -> None:
        try:
            self.conn.execute(f"PRAGMA synchronous = {self._synchronous}")
            self.conn.execute("PRAGMA secure_delete = ON")
            refuse_planted(self.conn, str(self._folder and self._folder / CHECKPOINT_FILE))
            self.setup()
            self.conn.execute(_DELETED)
            self._shared.files = self._files()
            self._shared.ready = True
        except (sqlite3.DatabaseError, JournalError):
            self.conn.close()
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        where = ":memory:" if self._folder is None else str(self._folder / CHECKPOINT_FILE)
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            if name == "SQLITE_NOTADB":
                raise NotAStore(f"{where} is no database of checkpoints; restore it from a backup.") from error
            raise JournalError(
                f"The checkpoints in {where} cannot be read or written: {error} ({name}). "
                "Check the folder's permissions and free space, then repeat the call."
            ) from error
        except OSError as error:
            raise JournalError(f"Cannot open {where}: {error.strerror or error}. Check the folder.") from error

    def _files(self) -> tuple[Any, Any]:
        """What the checkpoints' file and its log are now."""
        file = "" if self._folder is None else str(self._folder / CHECKPOINT_FILE)
        return identity(file), identity(f"{file}-wal")

    def _check_file(self) -> None:
        """Refuse a file that is another one than when it was opened: what is written now would be lost."""
        (file, log), was = self._files(), self._shared.files
        if self._folder is None or (file, log) == was or (file == was[0] and not self._shared.ready):
            return
        if file is not None and file != was[0] and log == was[1]:
            # The log of the file that is gone, which SQLite would apply to the one in its place.
            for end in ("-wal", "-shm"):
                Path(self._folder, f"{CHECKPOINT_FILE}{end}").unlink(missing_ok=True)
        raise JournalError(
            f"The checkpoints in {self._folder} were deleted or replaced while they were open; nothing of this call "
            "was stored. Close the checkpointer and open it again."
        )

    def _check(self) -> None:
        shared = self._shared
        if shared.closed:
            raise JournalClosed("The checkpointer is closed; open it again with `checkpointer(path)`.")
        if shared.pid != os.getpid():
            if self._folder is None:
                raise JournalError(
                    "Checkpoints in memory belong to the process that made them; use a folder to share them."
                )
            # What a fork could not close is the parent's: here it must not be used, not even closed.
            shared.abandoned += (shared.conn,)
            shared.ready, shared.pid = False, os.getpid()
        self._check_file()
        if not shared.ready:
            shared.conn, self.is_setup = self._connect(), False
            self._prepare()

    @contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        """A cursor under the lock; what it wrote is kept whole, or not at all when the body raises."""
        held = getattr(self._held, "cursor", None)
        if held is not None:
            yield held
            return
        with self._errors(), self.lock:
            self._check()
            self._shared.used = True
            try:
                with closing(self.conn.cursor()) as cursor, self.conn:
                    yield cursor
                    self._check_file()
            finally:
                self._shared.used = False

    @contextmanager
    def _holding(self) -> Iterator[sqlite3.Cursor]:
        """A cursor that SqliteSaver's own methods use when called inside."""
        with self.cursor() as cursor:
            self._held.cursor = cursor
            try:
                yield cursor
            finally:
                self._held.cursor = None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """The same, beside which nobody else writes."""
        with self._holding() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            yield cursor

    def close(self) -> None:
        """Close the file; further use raises `JournalClosed`. Closing twice is fine."""
        shared = self._shared
        with shared.lock:
            if shared.conn is not None and shared.pid == os.getpid():
                shared.conn.close()
            shared.closed = True

    # -- the contract ---------------------------------------------------------------------------------------------

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first; one that is damaged is told of and left out, so that it hides no other.

        They are read before the first one is given out: a caller that uses the saver inside the loop would wait for
        its lock.
        """

        def readable(rows: Iterable[Sequence[str]]) -> Iterator[CheckpointTuple]:
            for row in rows:
                try:
                    checkpoint = self.get_tuple(_config(row))
                except JournalError as error:
                    _LOGGER.warning("%s It was left out.", error)
                else:
                    yield from [checkpoint] if checkpoint else []

        most = None if limit is None else checked_count(limit, "limit", 0)
        where, values = search_where(config, filter, before)
        with self._holding(), closing(self.conn.cursor()) as cursor:
            rows = cursor.execute(f"{_NAMES} {where.replace(_TEXT, _METADATA)} {_NEWEST}", values)
            checkpoints = tuple(islice(readable(rows), most))
        yield from checkpoints

    @contextmanager
    def _read(self, config: RunnableConfig) -> Iterator[None]:
        """Reads a checkpoint, of which LangGraph does not say that it is damaged."""
        thread, one = config["configurable"]["thread_id"], get_checkpoint_id(config)
        try:
            yield
        except (*DAMAGED, AttributeError, NotImplementedError) as error:
            named = f"Checkpoint {shown(one)} of thread" if one else "The last checkpoint of thread"
            raise JournalError(
                f"{named} {shown(thread)} is damaged ({type(error).__name__}); restore a backup, or go on before "
                "it in a copy of the thread (`copy_thread`)."
            ) from error

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A checkpoint, by default the last one of its thread; `JournalError` when it is damaged."""
        with self._read(config):
            checkpoint = super().get_tuple(config)
            one = checkpoint and get_checkpoint_id(checkpoint.config)
            if checkpoint and not (isinstance(checkpoint.metadata, dict) and checkpoint.checkpoint["id"] == one):
                raise ValueError("no checkpoint of this id")
            return checkpoint

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What a `DeltaChannel` is put together from; `JournalError` when part of it is damaged."""
        with self._read(config):
            return super().get_delta_channel_history(config=config, channels=channels)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint; one of a run that began before its thread was deleted is dropped."""
        # A NaN is no JSON: SQLite could look into no checkpoint's metadata any more.
        text = json.dumps(get_checkpoint_metadata(config, metadata))
        metadata = json.loads(text, parse_constant=lambda name: None)
        parents = [config["configurable"].get("checkpoint_id"), *metadata.get("parents", {}).values()]
        before = [parent for parent in parents if parent] or [checkpoint["id"]]
        with self._writing() as cursor:
            if self._is_late(cursor, config, before):
                self._bury(cursor, config, checkpoint["id"])
                return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}
            return super().put(config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save what a task wrote; that of a run that began before its thread was deleted is dropped."""
        with self._writing() as cursor:
            if not self._is_late(cursor, config, [config["configurable"]["checkpoint_id"]]):
                super().put_writes(config, writes, task_id, task_path)

    @staticmethod
    def _is_late(cursor: sqlite3.Cursor, config: RunnableConfig, before: Sequence[str]) -> bool:
        """Whether one of the checkpoints before was deleted with its thread."""
        thread = str(config["configurable"]["thread_id"])
        return any(cursor.execute(_LATE, (thread, one, one)).fetchone() for one in before)

    @staticmethod
    def _bury(cursor: sqlite3.Cursor, config: RunnableConfig, checkpoint_id: str) -> None:
        """Note that a checkpoint counts as deleted, and remove what follows it: a run saves in several threads."""
        thread, late = str(config["configurable"]["thread_id"]), [checkpoint_id]
        for one in late:
            late += [row[0] for row in cursor.execute(_FOLLOWING, (thread, one, one))]
            for table in ("checkpoints", "writes"):
                cursor.execute(f"DELETE FROM {table} WHERE thread_id = ? AND checkpoint_id = ?", (thread, one))
            cursor.execute("INSERT OR IGNORE INTO deleted VALUES (?, 0, ?)", (thread, one))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread's checkpoints and writes physically: their bytes leave the files too.

        It stays deleted when a run of it is still at work: what that saves is dropped. A new run begins it anew.
        """
        self._delete_threads([thread_id])

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that some runs made, and their writes, physically; what they save late is dropped.

        Raises:
            InvalidInput: a later checkpoint has a `DeltaChannel`, whose value is put together from them; nothing is
                deleted.
        """
        with self._erasing() as cursor:
            for run_id in _several(run_ids):
                of_run = f"FROM checkpoints WHERE json_extract({_METADATA}, '$.run_id') = ?"
                # What such a run saves late is dropped.
                noted = f"INSERT OR IGNORE INTO deleted SELECT thread_id, 0, checkpoint_id {of_run}"
                cursor.execute(noted, (run_id,))
                self._delete(cursor, of_run, run_id)
            if built := cursor.execute(_BUILT_ON).fetchone():
                raise _needed(built[0])

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads physically.

        Args:
            thread_ids: The threads.
            strategy: `keep_latest` keeps the last checkpoint of each namespace; `delete` keeps none.

        Raises:
            InvalidInput: `strategy` is none of these, or the last checkpoint alone is not what a thread holds, because
                its graph has a `DeltaChannel`; nothing is deleted.
        """
        if strategy == "delete":
            self._delete_threads(thread_ids)
        elif strategy == "keep_latest":
            with self._erasing() as cursor:
                threads = _several(thread_ids)
                for thread in threads:
                    # Of the last one alone nothing could be read if it is damaged.
                    self.get_tuple({"configurable": {"thread_id": thread}})
                    if cursor.execute(_OF_DELTAS, (thread,)).fetchone():
                        raise _needed(thread)
                for thread in threads:
                    self._delete(cursor, _OLD, thread)
        else:
            raise InvalidInput(f"strategy must be 'keep_latest' or 'delete', got {shown(strategy)}.")

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one, which gets what it has not.

        What is damaged at its end is left out, so that the copy can be gone on with.

        Raises:
            JournalError: Nothing of it can be read, as with another key; nothing is copied.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        with self._writing() as cursor:
            cursor.execute("DELETE FROM deleted WHERE thread_id = ?", (target,))
            for table in ("checkpoints", "writes"):
                names = [row[1] for row in cursor.execute(f"PRAGMA table_info({table})")][1:]
                cursor.execute(
                    f"INSERT OR IGNORE INTO {table} (thread_id, {', '.join(names)}) "
                    f"SELECT ?, {', '.join(names)} FROM {table} WHERE thread_id = ?",
                    (target, source),
                )
            whole: set[str] = set()
            damaged: dict[str, JournalError] = {}
            for names in cursor.execute(f"{_NAMES} WHERE thread_id = ? {_NEWEST}", (target,)).fetchall():
                if names[1] not in whole:
                    try:
                        self.get_tuple(_config((source, *names[1:])))
                        whole.add(names[1])
                    except JournalError as error:
                        damaged[names[1]] = error
                        self._delete(cursor, f"FROM checkpoints WHERE ({_KEY}) = (?, ?, ?)", *names)
            if lost := damaged.keys() - whole:
                raise damaged[min(lost)]

    def _delete_threads(self, thread_ids: Sequence[str]) -> None:
        with self._erasing() as cursor:
            for thread in _several(thread_ids):
                now = str(uuid6())
                cursor.execute("DELETE FROM deleted WHERE thread_id = ?", (thread,))
                cursor.execute("INSERT INTO deleted VALUES (?, 1, ?)", (thread, now))
                # What a clock wrote that was fast: a run that begins now has ids before these.
                cursor.execute(
                    "INSERT OR IGNORE INTO deleted SELECT thread_id, 0, checkpoint_id FROM checkpoints "
                    "WHERE thread_id = ? AND checkpoint_id > ?",
                    (thread, now),
                )
                for table in ("checkpoints", "writes"):
                    cursor.execute(f"DELETE FROM {table} WHERE thread_id = ?", (thread,))

    @staticmethod
    def _delete(cursor: sqlite3.Cursor, chosen: str, *values: str) -> None:
        """Delete the checkpoints that a `FROM ... WHERE` chooses, and their writes."""
        cursor.execute(f"DELETE FROM writes WHERE ({_KEY}) IN (SELECT {_KEY} {chosen})", values)
        cursor.execute(f"DELETE {chosen}", values)

    @contextmanager
    def _erasing(self) -> Iterator[sqlite3.Cursor]:
        """A cursor; what is deleted with it leaves the write-ahead log too."""
        with self._writing() as cursor:
            yield cursor
        with self.cursor(transaction=False):
            if not empty_log(self.conn, _BUSY_SECONDS):
                raise JournalError(
                    f"What was deleted is gone, but its bytes may still be in the write-ahead log of {self._folder}, "
                    "which another process reads; repeat the call."
                )

    # mypy takes `self` for the class in which the overridden method stands.
    aget_tuple = awaited(SqliteSaver.get_tuple)  # type: ignore[arg-type]
    aput = awaited(put)  # type: ignore[arg-type]
    aput_writes = awaited(put_writes)  # type: ignore[arg-type]
    adelete_thread = awaited(delete_thread)  # type: ignore[arg-type]
    adelete_for_runs = awaited(delete_for_runs)  # type: ignore[arg-type]
    acopy_thread = awaited(copy_thread)  # type: ignore[arg-type]
    aprune = awaited(prune)  # type: ignore[arg-type]
    aget_delta_channel_history = awaited(SqliteSaver.get_delta_channel_history)  # type: ignore[arg-type]

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Like `list`."""
        checkpoints = await in_thread(lambda: tuple(self.list(config, filter=filter, before=before, limit=limit)))
        for checkpoint in checkpoints:
            yield checkpoint


def _config(names: Iterable[str]) -> RunnableConfig:
    return {"configurable": dict(zip(_KEY.split(", "), names, strict=True))}


def _needed(thread: str) -> InvalidInput:
    return InvalidInput(
        f"Thread {shown(thread)} has a DeltaChannel, whose value is put together from older checkpoints: leave them or "
        "delete all of it (`delete_thread`)."
    )


def _several(ids: Iterable[str]) -> list[str]:
    # A text would pass for the ids that its characters are.
    if isinstance(ids, str):
        raise InvalidInput(f"Ids must be a list, such as [{shown(ids)}], got {shown(ids)}.")
    return [str(one) for one in ids]


def _classes(given: Any) -> tuple[type, ...]:
    # An Enum is a class that can be iterated over.
    several = isinstance(given, Iterable) and not isinstance(given, type)
    classes = tuple(given) if several else (None,)
    if not all(isinstance(one, type) for one in classes):
        raise InvalidInput(f"allowed_types must be a list of classes, such as [Order], got {shown(given)}.")
    return classes
