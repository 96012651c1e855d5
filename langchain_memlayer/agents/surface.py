"""What all surfaces share: they hear what was said in a state, and ask a memory without ever breaking the agent."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from traceback import extract_tb
from typing import Any, Final, Literal

from langchain_memlayer.arguments import checked_count, checked_flags, checked_kinds, checked_mapping, checked_threshold
from langchain_memlayer.errors import (
    ConfigurationError,
    EmbedderMismatch,
    EmbeddingError,
    InvalidFilter,
    InvalidInput,
    ScopeRequired,
    shown,
)
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.mem0_filters import scope_and_filter
from langchain_memlayer.messages import Conversation, read_messages
from langchain_memlayer.protocols import MemoryLike
from langchain_memlayer.steps import Request, Steps
from langchain_memlayer.types import IDS, Scope, Turn

_LOGGER = logging.getLogger(__name__)
# A pasted document is searched for by how it begins: embedders take no more.
QUERY_CHARS: Final = 8_000
WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")

OnError = Literal["log", "raise"]
"""What a surface does when the memory fails: log it and go on, or raise it (for tests)."""

STATE_KEY: Final = "memory_off"
"""The key of a graph's state by which a person declines that what is being said is remembered, now or later."""

SEARCH_OPTIONS: Final = frozenset({
    "filters", "threshold", "kinds", "explain", "include_quarantined", "reference_time", "as_of", "known_at",
    "max_tokens", "expand", "rerank", "messages", "rewrite", "show_expired",
    "words_only",
})  # fmt: skip
"""The arguments of `Memory.search` that surfaces pass on: all but the query, whose memories, and how many."""

_FLAGS: Final = ("explain", "include_quarantined", "rewrite", "show_expired", "words_only")
_COUNTS: Final = {"max_tokens": 1, "expand": 0}


def checked_options(call: str, options: Any) -> dict[str, Any]:
    """Further arguments of `Memory.search`; `InvalidInput` for what it does not have or take, or `call` itself says."""
    unknown = sorted(set(checked_mapping(options, "search_kwargs")) - SEARCH_OPTIONS)
    if unknown:
        known = ", ".join(sorted(SEARCH_OPTIONS))
        raise InvalidInput(
            f"{call} passes on to search() {known}, and not {', '.join(map(repr, unknown))}; "
            "whose memories, and how many, it says by arguments of its own."
        )
    # Told where the surface is built: what a run raises is logged, and nothing would ever be recalled.
    checked_flags(**{name: value for name, value in options.items() if name in _FLAGS})
    checked_threshold(options.get("threshold"))
    checked_kinds(options.get("kinds"))
    parse_filter(scope_and_filter(options.get("filters"), Scope())[1])
    for name, least in _COUNTS.items():
        if options.get(name) is not None:
            checked_count(options[name], name, least)
    return dict(options)


def checked_on_error(value: Any) -> OnError:
    """`value`; `InvalidInput` when it is no way to take an error."""
    if value not in ("log", "raise"):
        raise InvalidInput(f"on_error must be 'log' or 'raise', got {shown(value)}.")
    return value  # type: ignore[no-any-return]


def checked_name(value: Any) -> str:
    """`value`; `InvalidInput` when it cannot be part of the names of tools, nodes and keys."""
    if not isinstance(value, str) or (value and not value.isidentifier()):
        raise InvalidInput(f"name must be one word of letters, digits and underscores, got {shown(value)}.")
    return value


# -- asking -----------------------------------------------------------------------------------------------------------


def ask(
    surface: str,
    memory: MemoryLike,
    method: str,
    *args: Any,
    on_error: OnError,
    raised: tuple[type[Exception], ...] = (),
    **kwargs: Any,
) -> Steps:
    """Call a method of the memory, or await its twin; returns its answer, or None when the memory failed.

    What a search finds without its embedder is better than nothing: while that fails, words alone find.

    Raises:
        ConfigurationError, ScopeRequired, InvalidFilter: what the developer has to mend; and whatever `raised` names.
    """

    def calling(**more: Any) -> Request:
        given = {**kwargs, **more}
        return Request(
            lambda: getattr(memory, method)(*args, **given), lambda: getattr(memory, f"a{method}")(*args, **given)
        )

    answer = None
    with _shield(surface, on_error, raised):
        try:
            answer = yield calling()
        except EmbeddingError:
            if method != "search" or on_error == "raise":
                raise
            _LOGGER.warning("%s searches by words alone: the embedder failed", surface)
            answer = yield calling(words_only=True)
    return answer


def profile_fields(
    surface: str, memory: MemoryLike, options: Mapping[str, Any], *, on_error: OnError
) -> Steps[Mapping[str, Any]]:
    """The filled fields of a profile, for `as_context`; none where the memory keeps none.

    Whose profile, and of when, is among `options`, which are arguments of `search`.
    """
    if memory.profile_schema is None:
        return {}
    given = {name: options[name] for name in (*IDS, "as_of", "known_at") if name in options}
    profile = yield from ask(surface, memory, "profile", on_error=on_error, **given)
    return {} if profile is None else profile.fields


@contextmanager
def _shield(surface: str, on_error: OnError, raised: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        is_callers = isinstance(error, (ConfigurationError, ScopeRequired, InvalidFilter)) and not isinstance(
            error, EmbedderMismatch
        )
        if on_error == "raise" or is_callers or isinstance(error, raised):
            raise
        # No message: what a provider says may quote the conversation.
        last = extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        _LOGGER.warning("%s goes on without the memory, which failed: %s at %s", surface, type(error).__name__, place)


# -- hearing ----------------------------------------------------------------------------------------------------------


def hear(messages: Any, session_id: str | None, *, without: Collection[str] | None = ()) -> Conversation:
    """The turns in a state's messages, each with an id that stays the same when the graph is run again.

    LangGraph's `add_messages` gives ids. For messages without one it is made from the session, the text, and how many
    equal messages came before; without a session as well there is none, and every call is a new telling. `without` are
    ids of messages that are not to be heard; None hears also those that a person declined.
    """
    heard = read_messages(messages, session_id=session_id, mend=True, without=without)
    earlier: Counter[tuple[str, str | None, str]] = Counter()
    turns = []
    for turn in heard.turns:
        key = turn.role, turn.name, turn.text
        earlier[key] += 1
        if turn.id is None and turn.session_id is not None:
            turn = replace(turn, id=digest(turn.session_id, *map(str, key), str(earlier[key])))
        if turn.id not in (without or ()):
            turns.append(turn)
    return Conversation(turns, heard.skipped)


def last_said(messages: Any) -> tuple[str | None, list[Any]]:
    """The text of the last message of the user, None when there is none, and the messages before it."""
    several = list(messages) if isinstance(messages, Sequence) and not isinstance(messages, str) else [messages]
    for place in reversed(range(len(several))):
        for turn in hear([several[place]], None, without=None).turns:
            if turn.role == "user":
                return turn.text[:QUERY_CHARS], several[:place]
    return None, []


def last_begins(by_user: Sequence[bool]) -> int:
    """Where the last messages of the user begin, by which of all messages are the user's."""
    place = len(by_user)
    while place and not by_user[place - 1]:
        place -= 1
    while place and by_user[place - 1]:
        place -= 1
    return place


def batch_of(turns: Sequence[Turn], session_id: str | None) -> str | None:
    """The batch id of some turns of a session, or None when they cannot be told from other ones."""
    if any(turn.id is None for turn in turns):
        return None
    return digest("turns", session_id or "", *(turn.id or "" for turn in turns))


def digest(*parts: str) -> str:
    """A short name for some strings in order."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.hexdigest()
