"""Where a store in PostgreSQL is, and what the server's errors mean there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from langchain_memlayer.errors import ConfigurationError, InvalidInput, JournalError, MemLayerError

CONNECT_SECONDS = 15.0
POOL_SIZE = 20

_OURS = re.compile(r"[?&]pool_size=([^&]*)")
_HINTS = {
    "3D000": "there is no such database; create it",
    "40001": "another writer was quicker; nothing of this call was stored; repeat it",
    "40P01": "two calls waited for each other; nothing of this one was stored; repeat it",
    "42501": "the user lacks a right; the owner of the schema has them all",
    "42P01": "its tables are gone; open the store again",
    "25006": "it is read-only; connect to the primary server",
    "53100": "the server's disk is full; nothing of this call was stored; make room and repeat it",
    "53300": "the server has no connection left; lower `pool_size` or raise max_connections",
    "55P03": "another writer held its lock too long; nothing of this call was stored; repeat the call",
}


@dataclass(frozen=True, repr=False)
class Address:
    """A connection string, read.

    Attributes:
        settings: libpq's parameters; the password may be among them.
        pool_size: How many connections one process has at most.
        where: What messages call it; without the password.
    """

    settings: Mapping[str, Any]
    pool_size: int
    where: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a connection string.

        Raises:
            ConfigurationError: it is none.
        """
        size = str(POOL_SIZE)
        while (found := _OURS.search(url)) is not None:
            size = found[1]
            rest = url[found.end() :]
            url = url[: found.start()] + (f"{found[0][0]}{rest[1:]}" if rest else "")
        if not size.isdecimal() or int(size) < 2:
            raise ConfigurationError(f"pool_size must be a number of at least 2, got {size!r}.")
        try:
            settings: dict[str, Any] = {
                "connect_timeout": str(int(CONNECT_SECONDS)), "application_name": "memlayer", **conninfo_to_dict(url)
            }  # fmt: skip
        except psycopg.Error:
            # Its message may quote the password.
            raise ConfigurationError(
                "The connection string cannot be read. Its form is postgresql://user:password@host:5432/database"
                "?option=value, with special characters percent-encoded."
            ) from None
        return cls(settings, int(size), _shown(settings))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except psycopg.OperationalError as error:
            if isinstance(error.__context__, BaseException) and not isinstance(error.__context__, Exception):
                # The driver met an interrupt, and then that its statement was still running.
                raise error.__context__ from None
            raise self._explained(error) from error
        except psycopg.Error as error:
            # Their details quote the rows that they are about.
            raise self._explained(error) from None

    def _explained(self, error: psycopg.Error) -> MemLayerError:
        state = error.sqlstate or ""
        named = f"{type(error).__name__}, {state}" if state else type(error).__name__
        if isinstance(error, psycopg.DataError) and "NUL" in str(error):
            return InvalidInput("A text has a NUL character, which PostgreSQL cannot store; remove it.")
        hint = _HINTS.get(state)
        if state.startswith("28") or "password authentication failed" in str(error):
            hint = "it refuses the user or the password; check the connection string"
        elif hint is None and isinstance(error, psycopg.OperationalError):
            said = " ".join(str(error).split())
            secret = self.settings.get("password")
            said = said.replace(secret, "***") if secret else said
            hint = f"{said.rstrip('.')}; nothing of this call was stored; check the server and repeat it"
        return JournalError(f"The journal of {self.where} failed: {hint or 'a statement was refused'} ({named}).")


def _shown(settings: Mapping[str, Any]) -> str:
    user = f"{settings['user']}@" if settings.get("user") else ""
    port = f":{settings['port']}" if settings.get("port") else ""
    options = f"?options={settings['options']}" if settings.get("options") else ""
    return f"postgresql://{user}{settings.get('host') or ''}{port}/{settings.get('dbname') or ''}{options}"
