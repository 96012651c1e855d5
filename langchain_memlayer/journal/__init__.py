"""The only truth: one SQL database to which everything is appended, and from which everything else can be rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from langchain_memlayer.errors import JournalError, MissingDependency
from langchain_memlayer.journal.database import IMPORT_NOTE
from langchain_memlayer.journal.place import is_url, place

if TYPE_CHECKING:
    from langchain_memlayer.journal.read import Reader
    from langchain_memlayer.journal.write import Writer
    from langchain_memlayer.protocols import Clock, NewId
    from langchain_memlayer.types import Durability


class Journal(Protocol):
    """What the layers above know of a journal.

    Attributes:
        clock: The present time.
        new_id: Fresh ids.
        folder: The folder that it and its derived files are in, or None.
        where: What messages call it; never with a password.
        store_id: What tells this store from any other.
        after_commit: Called, in the writer's thread, when something was committed.
    """

    clock: Clock
    new_id: NewId
    folder: Path | None
    where: str
    store_id: str
    after_commit: list[Callable[[], None]]

    def read(self, *, snapshot: bool = False) -> AbstractContextManager[Reader]:
        """A reader; with `snapshot` all its reads see one state of the journal."""
        ...

    def write(self, *paths: str) -> AbstractContextManager[Writer]:
        """A writer whose changes are committed together when the block ends well, and undone otherwise.

        Args:
            *paths: The encoded namespaces that it reads to decide and that it changes: nobody else changes them
                meanwhile. None means all of them.
        """
        ...

    def last_seq(self) -> int:
        """The position of the last commit, of any process."""
        ...

    def meta(self, key: str) -> str | None:
        """A setting that is kept with the journal."""
        ...

    def scrub(self) -> None:
        """Make deletions physical, as far as the database lets a client do that."""
        ...

    def check(self) -> str:
        """The database's own verdict on its files: `ok`, or what is wrong."""
        ...

    def size(self) -> int:
        """The bytes that it takes, with what is derived from it."""
        ...

    def close(self) -> None:
        """Close every connection; further use raises `JournalClosed`."""
        ...


def exists(path: str | Path) -> bool:
    """Whether there is a store; nothing is made or changed.

    Raises:
        NotAStore: `path` holds something else.
        JournalError: the server cannot be reached.
    """
    where = place(path)
    if isinstance(where, str) and is_url(where):
        return bool(_postgres().store_exists(where))
    from langchain_memlayer.journal.schema import journal_path

    return journal_path(Path(where)).exists()


def _postgres() -> ModuleType:
    """The module of the journal on PostgreSQL.

    Raises:
        MissingDependency: its driver is not installed.
    """
    try:
        from langchain_memlayer.journal import postgres
    except ImportError as error:
        if (error.name or "psycopg").partition(".")[0] not in ("psycopg", "psycopg_pool"):
            raise
        raise MissingDependency(
            "A store in PostgreSQL needs its driver: pip install 'langchain-memlayer[postgres]'."
        ) from error
    return postgres


def open_journal(
    path: str | Path,
    *,
    durability: Durability = "full",
    clock: Clock,
    new_id: NewId,
    importing: bool = False,
) -> Journal:
    """The journal of a folder, of `":memory:"`, or of a PostgreSQL database by its connection string.

    Args:
        path: A folder's path, `":memory:"`, or `postgresql://user:password@host:port/database`.
        durability: `full` lets an acknowledged write survive power loss, `fast` only the end of the process.
        clock: The present time.
        new_id: Fresh ids.
        importing: Whether it may be one that an import has filled in part.

    Raises:
        NotAStore: `path` holds something else.
        MissingDependency: PostgreSQL's driver is not installed.
        JournalError: it cannot be opened, or an import into it is unfinished.
    """
    journal: Journal
    where = place(path)
    if isinstance(where, str) and is_url(where):
        journal = _postgres().PostgresJournal(where, durability=durability, clock=clock, new_id=new_id)
    else:
        from langchain_memlayer.journal.sqlite import SQLiteJournal

        journal = SQLiteJournal(where, durability=durability, clock=clock, new_id=new_id)
    if not importing and journal.meta(IMPORT_NOTE) is not None:
        journal.close()
        raise JournalError(
            f"An import into {journal.where} is unfinished. Repeat `memlayer import` with the same file."
        )
    return journal
