"""Other programs' SQLite files, read and never written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from langchain_memlayer.errors import InvalidInput

_AT_ONCE = 10_000
_LEAST_STEPS = 1_000
_BYTES_A_STEP = 100
"""Steps are counted in ten thousands of SQLite's own: a row of some hundred bytes takes a few of those."""


@contextmanager
def read_only(file: Path, table: str, *, of: str) -> Iterator[sqlite3.Connection]:
    """A connection to a file that has a certain table.

    Args:
        file: The database.
        table: The table.
        of: What has it, for the message.

    Raises:
        InvalidInput: there is no such file, or it is damaged, or a database of something else.
    """
    if not file.is_file():
        raise InvalidInput(f"{file} is no file; give that of {of}.")
    uri = f"{file.resolve().as_uri()}?mode=ro"
    # Errors of what is done with the connection come through here too; those of the journal are no `sqlite3.Error`.
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)) as db:
            # Reading takes steps in proportion to the file; a hostile one may ask for endlessly many.
            budget = iter(range(_LEAST_STEPS + file.stat().st_size // _BYTES_A_STEP))
            db.set_progress_handler(lambda: next(budget, None) is None, _AT_ONCE)
            db.execute("PRAGMA trusted_schema = OFF")
            made = db.execute("SELECT type, name, sql LIKE '%VIRTUAL%' FROM sqlite_master").fetchall()
            if ("table", table, 0) not in made:
                raise InvalidInput(f"{file} is not {of}: it has no table {table!r}.")
            if any(kind not in ("table", "index") for kind, *_ in made):
                raise InvalidInput(f"{file} is not {of}: it has views or triggers, which {of} has not.")
            yield db
    except sqlite3.Error as error:
        raise InvalidInput(f"{file} cannot be read as {of} ({error}).") from error
