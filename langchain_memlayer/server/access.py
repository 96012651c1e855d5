"""Who may reach whose memories: bearer tokens, each bound to ids, and the sessions of browsers that showed one."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from starlette.exceptions import HTTPException

from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    from langchain_memlayer.memory import Memory

VARIABLE: Final = "MEMLAYER_TOKENS"
_FORM: Final = (
    'a JSON object of tokens and the ids that each is bound to: {"TOKEN": {"user_id": "alice"}, "sha256:HEX": "*"}; '
    "* means the whole store"
)
_SHORTEST: Final = 16
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_SESSION_SECONDS: Final = 12 * 3600.0
_MOST_SESSIONS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller may reach: the memories that have these ids; those of the whole store where there is no id."""

    scope: Scope = Scope()  # noqa: RUF009 - it is frozen

    def within(self, given: Scope) -> dict[str, str]:
        """The ids of a call with those of the grant.

        Raises:
            HTTPException: 403, the call names others.
        """
        named, own = given.ids(), self.scope.beside(given).ids()
        if any(named.get(name, value) != value for name, value in own.items()):
            raise HTTPException(403, "This token is bound to other ids; leave them out, or use a token of theirs.")
        return {**own, **named}

    def of(self, memory: Memory) -> Memory:
        """The memory as this caller sees it: what is somebody else's is not there."""
        return memory.of(**self.scope.ids()) if self.scope else memory


class Tokens:
    """The tokens of a server, kept as digests, and the sessions that were opened with one.

    Args:
        given: The ids that each token is bound to, by the token or `sha256:` and its digest in hex; `"*"` is bound to
            none.

    Raises:
        ConfigurationError: tokens of another form, or one that is easily guessed. No token is shown.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        if not isinstance(given or {}, Mapping):
            raise ConfigurationError(f"The tokens are no {_FORM}.")
        self._grants = {_digest_of(token): _grant(ids) for token, ids in (given or {}).items()}
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()

    @classmethod
    def read(cls, file: Path | None = None) -> Tokens:
        """Those of a file, else of the environment's MEMLAYER_TOKENS, else none.

        Raises:
            ConfigurationError: they cannot be read.
        """
        where, text = "The environment's " + VARIABLE, os.environ.get(VARIABLE, "")
        if file is not None:
            where = str(file)
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{where} cannot be read; --tokens names a file with {_FORM}.") from error
        elif not text.strip():
            return cls()
        try:
            given = orjson.loads(text)
        except orjson.JSONDecodeError:
            # The text is not shown, nor is what failed to read it, which has it.
            given = None
        if not isinstance(given, dict) or not given:
            raise ConfigurationError(f"{where} has no tokens; give {_FORM}.")
        return cls(given)

    def __bool__(self) -> bool:
        return bool(self._grants)

    def grant(self, token: str) -> Grant | None:
        """What a token may reach; None for an unknown one."""
        return self._grants.get(_digest(token))

    def open_session(self, token: str) -> str | None:
        """A session's secret for a browser that showed a token; None for an unknown one."""
        digest = _digest(token)
        if digest not in self._grants:
            return None
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session)] = (digest, time.monotonic() + _SESSION_SECONDS)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def session(self, secret: str) -> Grant | None:
        """What a session may reach; None when there is none, or its time is over."""
        digest, until = self._sessions.get(_digest(secret), ("", 0.0))
        return self._grants.get(digest) if time.monotonic() < until else None

    def close_session(self, secret: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(secret), None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _digest_of(token: str) -> str:
    if token.startswith("sha256:"):
        if not _DIGEST.fullmatch(token):
            raise ConfigurationError("A token's digest is sha256: and 64 characters of 0-9 and a-f.")
        return token.removeprefix("sha256:")
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"A token has at least {_SHORTEST} printable ASCII characters and no space; "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'` makes one."
        )
    return _digest(token)


def _grant(ids: Any) -> Grant:
    if ids == "*":
        return Grant()
    try:
        scope = Scope(**cast("Any", ids)) if isinstance(ids, dict) else Scope()
    except (TypeError, InvalidInput):
        scope = Scope()
    if not scope:
        raise ConfigurationError(f"A token is bound to nothing that can be read; give {_FORM}.")
    return Grant(scope)
