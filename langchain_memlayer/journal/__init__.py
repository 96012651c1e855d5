"""The only truth: one SQL database to which everything is appended, and from which everything else can be rebuilt."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from langchain_memlayer.errors import JournalError, MissingDependency
from langchain_memlayer.journal.base import Journal as Journal
from langchain_memlayer.journal.database import IMPORT_NOTE
from langchain_memlayer.journal.place import is_url, place

if TYPE_CHECKING:
    from langchain_memlayer.protocols import Clock, NewId
    from langchain_memlayer.types import Durability


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
