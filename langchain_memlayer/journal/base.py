"""What the layers above know of a journal, and what those on SQLite and on PostgreSQL have in common."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from langchain_memlayer.errors import InvalidInput, JournalClosed, JournalError, shown
from langchain_memlayer.journal.database import SCRUB_DUE, STORE_ID
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.types import Durability, to_micros

_LOGGER = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The present time, aware UTC."""
    return datetime.now(UTC)


def random_id() -> str:
    """A UUID of version 7 (RFC 9562): those of one time lie side by side in an index, however large it has become."""
    millis, rest = divmod(time.time_ns(), 1_000_000)
    noise = int.from_bytes(os.urandom(8), "big") >> 2 | 1 << 63
    digits = f"{millis:012x}7{rest * 4096 // 1_000_000:03x}{noise:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Journal(ABC):
    """A journal: it is opened, goes on in a forked child with connections of its own, and is closed.

    Attributes:
        clock: The present time.
        new_id: Fresh ids.
        folder: The folder that it and its derived files are in, or None.
        where: What messages call it; never with a password.
        store_id: What tells this store from any other.
        after_commit: Called, in the writer's thread, when something was committed.
    """

    folder: Path | None
    where: str
    store_id: str

    def __init__(self, *, durability: Durability, clock: Clock, new_id: NewId) -> None:
        if durability not in ("full", "fast"):
            raise InvalidInput(f"durability must be 'full' or 'fast', got {shown(durability)}.")
        self.clock = clock
        self.new_id = new_id
        self.after_commit: list[Callable[[], None]] = []
        self._pid = os.getpid()
        self._reopening: dict[int, threading.Lock] = {}
        self._closed = False

    def now(self) -> int:
        """The present time, microseconds since 1970 UTC."""
        return to_micros(self.clock())

    @abstractmethod
    def read(self, *, snapshot: bool = False) -> AbstractContextManager[Reader]:
        """A reader; with `snapshot` all its reads see one state of the journal."""

    @abstractmethod
    def write(self, *paths: str) -> AbstractContextManager[Writer]:
        """A writer whose changes are committed together when the block ends well, and undone otherwise.

        Args:
            *paths: The encoded namespaces that it reads to decide and that it changes: nobody else changes them
                meanwhile. None means all of them.
        """

    @abstractmethod
    def check(self) -> str:
        """The database's own verdict on its files: `ok`, or what is wrong."""

    @abstractmethod
    def size(self) -> int:
        """The bytes that it takes, with what is derived from it."""

    @abstractmethod
    def scrub(self) -> None:
        """Make deletions physical, as far as the database lets a client do that.

        `Writer.erase_memories` and `erase_all` note in their commit that this is due; when it fails, or the process is
        killed in between, the next `scrub` or opening of the store does it.

        Raises:
            JournalError: it was not done.
        """

    @abstractmethod
    def _reconnect(self) -> None:
        """Open connections of its own in a forked child; those of the parent must not be used, not even closed."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close all connections."""

    def _opened(self) -> None:
        """What comes when the tables are there: who it is, and what a killed `forget` left undone."""
        self.store_id = self.meta(STORE_ID) or ""
        if self.meta(SCRUB_DUE) is not None:
            try:
                self.scrub()
            except JournalError as error:
                # When that is not possible now, the next opening tries again.
                _LOGGER.warning("An interrupted forget() could not be finished: %s", error)

    def _check(self) -> None:
        if self._closed:
            raise JournalClosed(f"The store of {self.where} is closed; open it again.")
        if self._pid != (pid := os.getpid()):
            # One lock a process: that of a parent may be held by a thread that is not here.
            with self._reopening.setdefault(pid, threading.Lock()):
                if self._pid != pid:
                    self._reconnect()
                    self._pid = pid

    def _committed(self) -> None:
        for listener in self.after_commit:
            listener()

    def _unscrubbed(self, files: str, cause: object) -> JournalError:
        return JournalError(
            f"What was forgotten cannot be found any more, but its bytes may still be in the {files} of {self.where} "
            f"({cause}); repeat the call, or open the store again, when nobody else uses it and the disk has room."
        )

    def last_seq(self) -> int:
        """The position of the last commit, of any process."""
        with self.read() as reader:
            return reader.last_seq()

    def meta(self, key: str) -> str | None:
        """A setting that is kept with the journal."""
        with self.read() as reader:
            return reader.meta(key)

    def close(self) -> None:
        """Close every connection; further use raises `JournalClosed`."""
        if not self._closed:
            self._closed = True
            if self._pid == os.getpid():
                self._disconnect()
