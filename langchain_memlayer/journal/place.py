"""Where a store is: a folder or a PostgreSQL database, told apart before anything is opened or made.

A mistyped connection string must become neither a folder of that name nor a part of a message: it may hold a password.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from langchain_memlayer.errors import ConfigurationError, InvalidInput, NotAStore

_SCHEMES = ("postgresql://", "postgres://")
_PARAMETER = re.compile(
    r"(host|hostaddr|port|dbname|user|password|passfile|service|options|application_name|connect_timeout|ssl\w+"
    r"|target_session_attrs)\s*=", re.IGNORECASE,
)  # fmt: skip
# Another scheme, the right one with a slash too few, or a user with a password: no folder is called like that. One
# letter before the colon is a drive.
_NO_FOLDER = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+:/|postgres(ql)?:|[^/\\]+:[^/\\]+@|.*://", re.IGNORECASE | re.DOTALL)
_PORT = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(:\d*)?")


def is_url(path: object) -> bool:
    """Whether a path is a connection string of PostgreSQL: a URL, or libpq's `host=... user=...`."""
    return isinstance(path, str) and (path.strip().startswith(_SCHEMES) or bool(_PARAMETER.match(path.strip())))


def place(path: str | Path) -> Path | str:
    """A folder's path, `":memory:"`, or a connection string that can be read in one way only.

    Raises:
        ConfigurationError: a connection string in which a password may have been cut in two.
        InvalidInput: it is neither text nor a path.
        NotAStore: something else with a user or a scheme in it.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path).strip():
        raise InvalidInput(f"path must be a folder's path or ':memory:', got {path!r}.")
    text = str(path).strip()
    if isinstance(path, str) and is_url(text):
        if text.startswith(_SCHEMES):
            _check_url(text)
        return text
    if _NO_FOLDER.match(text):
        raise NotAStore(
            "A store is a folder or a PostgreSQL database, and this path is neither (it is not shown, since it may "
            "hold a password): give a folder's path, or postgresql://user:password@host:port/database."
        )
    return path if text == ":memory:" else Path(path)


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
        or "@" in (path if "@" in authority else authority and rest)
        or re.search(r"=|:/|%3d|%3a", path, re.IGNORECASE)
        or not all(_PORT.fullmatch(host) for host in authority.rpartition("@")[2].split(","))
    ):
        raise ConfigurationError(
            "The connection string cannot be read in one way only. In user and password, write / as %2F, @ as %40, "
            ": as %3A, ? as %3F and % as %25; its form is postgresql://user:password@host:5432/database?option=value."
        )
