"""Other programs' SQLite files, read and never written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from langchain_memlayer.errors import InvalidInput


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
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
                raise InvalidInput(f"{file} is not {of}: it has no table {table!r}.")
            yield db
    except sqlite3.Error as error:
        raise InvalidInput(f"{file} cannot be read as {of} ({error}).") from error
