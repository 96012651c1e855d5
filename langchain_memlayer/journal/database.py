"""What the journal's SQL needs of a connection; both drivers give it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows of one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """One connection.

    Statements are written as SQLite takes them, with `?` for values, and PostgreSQL takes most of them too; where it
    does not, `PostgresReader` and `PostgresWriter` say it otherwise.
    """

    def execute(self, sql: str, params: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row of values; it returns no rows."""
        ...


class Gathering:
    """A connection whose inserts wait until anything else is asked of it: then each statement runs once for its rows.

    So a list of turns costs three statements, and whatever is read sees all that was written before.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[str, list[Sequence[Any]]] = {}

    def insert(self, sql: str, row: Sequence[Any]) -> None:
        """Insert a row, at the latest before the next statement."""
        self._waiting.setdefault(sql, []).append(row)

    def settle(self) -> None:
        """Insert what waits."""
        waiting, self._waiting = self._waiting, {}
        for sql, rows in waiting.items():
            self._db.executemany(sql, rows)

    def execute(self, sql: str, params: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""
        self.settle()
        return self._db.execute(sql, params)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row of values."""
        self.settle()
        return self._db.executemany(sql, rows)
