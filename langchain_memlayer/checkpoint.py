"""`checkpointer`: LangGraph's threads in the same folder as the memories, in a file of their own."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from langchain_memlayer.errors import InvalidInput, JournalClosed, JournalError, NotAStore
from langchain_memlayer.journal import is_url
from langchain_memlayer.journal.schema import journal_path
from langchain_memlayer.types import Durability

CHECKPOINT_FILE = "checkpoints.sqlite"
_BUSY_SECONDS = 30.0


def checkpointer(
    path: str | Path, *, durability: Durability = "full", allowed_types: Iterable[type] = ()
) -> MemLayerSaver:
    """A LangGraph checkpointer in a store's folder; sync and async methods both work, in any event loop and thread.

    Args:
        path: The folder (made when missing), which a `MemLayerStore` or `Memory` may use too, or `":memory:"`.
        durability: `full` lets a saved checkpoint survive power loss; `fast` only a killed process.
        allowed_types: Classes of your own that the graph's state holds. Messages, documents, dates and the like are
            always allowed. An object of any other class comes back as its plain data, because a checkpoint file that
            may name any class may also name one that runs code.

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


class MemLayerSaver(SqliteSaver):
    """What `checkpointer` returns: LangGraph's `SqliteSaver` with async methods that are bound to no event loop."""

    def __init__(
        self, path: str | Path, *, durability: Durability = "full", allowed_types: Iterable[type] = ()
    ) -> None:
        if durability not in ("full", "fast"):
            raise InvalidInput(f"durability must be 'full' or 'fast', got {durability!r}.")
        if is_url(path):
            raise InvalidInput(
                "Checkpoints in PostgreSQL are LangGraph's own: langgraph.checkpoint.postgres.PostgresSaver takes the "
                "same connection string, and its tables may lie beside the store's."
            )
        classes = _classes(allowed_types)
        self._folder = None if str(path) == ":memory:" else Path(path)
        self._synchronous = "FULL" if durability == "full" else "NORMAL"
        # LangGraph copies a saver (`with_allowlist`); copies share the connection, so they share its end too.
        self._closed = threading.Event()
        self._abandoned: tuple[sqlite3.Connection, ...] = ()
        self._pid = os.getpid()
        with self._errors():
            super().__init__(self._connect(), serde=JsonPlusSerializer(allowed_msgpack_modules=classes))
            self._prepare()

    # -- the file -------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        target: str | Path = ":memory:"
        if self._folder is not None:
            journal_path(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            target = self._folder / CHECKPOINT_FILE
        return sqlite3.connect(target, timeout=_BUSY_SECONDS, check_same_thread=False)

    def _prepare(self) -> None:
        try:
            self.conn.execute(f"PRAGMA synchronous = {self._synchronous}")
            self.conn.execute("PRAGMA secure_delete = ON")
            self.setup()
        except sqlite3.DatabaseError:
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

    def _check(self) -> None:
        if self._closed.is_set():
            raise JournalClosed("The checkpointer is closed; open it again with `checkpointer(path)`.")
        if self._pid == os.getpid():
            return
        if self._folder is None:
            raise JournalError(
                "Checkpoints in memory belong to the process that made them; use a folder to share them."
            )
        # A connection must not be used, not even closed, by a child of the process that opened it.
        self._abandoned += (self.conn,)
        self.conn, self.lock, self.is_setup = self._connect(), threading.Lock(), False
        self._prepare()
        self._pid = os.getpid()

    @contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        """A cursor under the lock; what it wrote is kept whole, or not at all when the body raises."""
        with self._errors():
            self._check()
            with self.lock, closing(self.conn.cursor()) as cursor, self.conn:
                yield cursor

    def close(self) -> None:
        """Close the file; further use raises `JournalClosed`. Closing twice is fine."""
        with self.lock:
            if not self._closed.is_set() and self._pid == os.getpid():
                self.conn.close()
            self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # -- the contract ---------------------------------------------------------------------------------------------

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest first.

        They are read before the first one is given out: SqliteSaver holds its lock while it is iterated, and a caller
        that uses the saver inside the loop would wait for itself.
        """
        yield from tuple(super().list(config, filter=filter, before=before, limit=limit))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread's checkpoints and writes physically: their bytes leave the files too."""
        super().delete_thread(thread_id)
        with self.cursor(transaction=False) as cursor:
            if cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise JournalError(
                    f"The thread is deleted, but its bytes may still be in the write-ahead log of {self._folder}, "
                    "which another process reads; repeat the call."
                )

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Like `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Like `list`."""
        found = await asyncio.to_thread(lambda: tuple(self.list(config, filter=filter, before=before, limit=limit)))
        for checkpoint in found:
            yield checkpoint

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Like `put`."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Like `put_writes`."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Like `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Like `get_delta_channel_history`."""
        return await asyncio.to_thread(lambda: self.get_delta_channel_history(config=config, channels=channels))


def _classes(given: Any) -> tuple[type, ...]:
    # An Enum is a class that can be iterated over.
    several = isinstance(given, Iterable) and not isinstance(given, type)
    classes = tuple(given) if several else (None,)
    if not all(isinstance(one, type) for one in classes):
        raise InvalidInput(f"allowed_types must be a list of classes, such as [Order], got {given!r}.")
    return classes
