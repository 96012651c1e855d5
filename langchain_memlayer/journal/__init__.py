"""The only truth: one SQL database to which everything is appended, and from which everything else can be rebuilt.

base.py          Journal: what the layers above know of it
schema.py        the tables
database.py      what all SQL builds on
reader.py        Reader: memories, events and links
item_reader.py   items of a BaseStore; cache_reader.py what is read for the caches
writer.py        Writer: everything that is written, inside one transaction
filter_sql.py    a filter as an SQL condition
positions.py     what the journal held at a position; fork_notes.py which forks there are
staging.py       a second set of vectors; transfer.py rows on their way to another journal
sqlite.py        connections, transactions and upkeep on SQLite
postgres.py      the same on PostgreSQL; postgres_sql.py what its SQL says otherwise
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from langchain_memlayer.errors import (
    ConfigurationError,
    InvalidInput,
    JournalError,
    MissingDependency,
    NotAStore,
    shown,
)
from langchain_memlayer.journal.base import Journal as Journal
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.database import IMPORT_NOTE

if TYPE_CHECKING:
    from langchain_memlayer.protocols import Clock, NewId
    from langchain_memlayer.types import Durability


def exists(path: str | Path) -> bool:
    """Whether there is a store; nothing is made or changed.

    Raises:
        NotAStore: `path` holds something else.
        JournalError: the server cannot be reached, or the folder not be looked into.
    """
    where = place(path)
    if isinstance(where, str) and is_url(where):
        return bool(_postgres().store_exists(where))
    from langchain_memlayer.journal.schema import journal_path

    try:
        # `exists` says False of what the system refuses to tell, from Python 3.14 on.
        journal_path(Path(where)).stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise JournalError(f"Cannot open {where}: {error.strerror or error}. Check the folder.") from error
    return True


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
    clock: Clock = utc_now,
    new_id: NewId = random_id,
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


# -- where a store is: a folder or a PostgreSQL database, told apart before anything is opened or made -----------------
# A mistyped connection string must become neither a folder of that name nor part of a message: it may hold a password.

_SCHEMES = ("postgresql://", "postgres://")
# libpq's form begins with one of these, or has a password behind something else; it has no semicolons between them.
_PARAMETER = re.compile(
    r"(?!.*;\s*\w+\s*=)((host|hostaddr|port|dbname|user|password|passfile|service|options|application_name"
    r"|connect_timeout|ssl\w+|target_session_attrs)\s*=|\w+\s*=.*\spassword\s*=)", re.IGNORECASE | re.DOTALL,
)  # fmt: skip
# Another scheme, the right one with a slash too few, a user with a password, or a password: no folder is called like
# that. One letter before the colon is a drive.
_NO_FOLDER = re.compile(
    r"\A[A-Za-z][A-Za-z0-9+.:-]+:/|\Apostgres(ql)?:|[^/\\]:[^/\\:@]+@|://|(pass(word|wd)?|pwd)\s*=", re.IGNORECASE
)
_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d*)?")


def is_url(path: object) -> bool:
    """Whether a path is a connection string of PostgreSQL: a URL, or libpq's `host=... user=...`."""
    return isinstance(path, str) and (path.strip().startswith(_SCHEMES) or bool(_PARAMETER.match(path.strip())))


def place(path: str | Path) -> Path | str:
    """A folder's path, `":memory:"`, or a connection string that can be read in one way only.

    Raises:
        ConfigurationError: a connection string in which a password may have been cut in two.
        InvalidInput: it is neither text nor a path, or holds a NUL.
        NotAStore: something else with a user or a scheme in it.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip() or "\x00" in str(path):
        raise InvalidInput(f"path must be a folder's path or ':memory:', got {shown(path)}.")
    text = str(path).strip()
    if isinstance(path, str) and is_url(text):
        if text.startswith(_SCHEMES):
            _check_url(text)
        return text
    if _NO_FOLDER.search(text):
        raise NotAStore(
            "A store is a folder or a PostgreSQL database, and this path is neither (it is not shown, since it may "
            "hold a password): give a folder's path, or postgresql://user:password@host:port/database."
        )
    if text == ":memory:":
        return text
    folder = Path(path)
    # Nobody means a folder of the name "~", which a shell takes for one's own too.
    return folder.expanduser() if folder.parts[:1] == ("~",) else folder


def home() -> Path | str:
    """Where all without a place of its own is: MEMLAYER_HOME (a folder, or a database), else a folder of the user's."""
    named = os.environ.get("MEMLAYER_HOME")
    if named:
        return place(named)
    from platformdirs import user_data_path

    return user_data_path("langchain_memlayer", appauthor=False)


def default_folder() -> Path | str:
    """Where a `Memory` without a path is: `default` in the home folder, so that others have room beside it."""
    where = home()
    return where / "default" if isinstance(where, Path) else where


def _check_url(url: str) -> None:
    """Refuse a URL whose `/`, `?` or `@` may belong to the password, which would then be shown as host or database."""
    authority, rest = re.fullmatch(r"[^/]*//([^/?]*)(.*)", url, re.DOTALL).groups()  # type: ignore[union-attr]
    path = rest.partition("?")[0]
    if (
        authority.count("@") > 1
        or "@" in (path if "@" in authority or not authority else rest)
        or re.search(r"=|:/|%3d|%3a", path, re.IGNORECASE)
        or not all(_PORT.fullmatch(host) for host in authority.rpartition("@")[2].split(","))
    ):
        raise ConfigurationError(
            "The connection string cannot be read in one way only. In user and password, write / as %2F, @ as %40, "
            ": as %3A, ? as %3F and % as %25; its form is postgresql://user:password@host:5432/database?option=value."
        )
