"""What the methods of `Memory` accept: each check gives a clear error before anything is done."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import numpy as np

from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.messages import checked_text
from langchain_memlayer.types import to_micros

KINDS = ("fact", "turn")
_DIGITS = 20
_LONGEST_SECONDS = 100_000_000
_LONGEST_QUERY = 100_000
KEEP = "keep"
"""The expiration date of an update that leaves it as it is."""


def is_auto(given: Any) -> bool:
    """Whether a model or an embedder is left to us; a given one may compare with a text in any way."""
    return isinstance(given, str) and given == "auto"


def checked_memory_id(memory_id: Any) -> str:
    """The id; `InvalidInput` when it cannot be one."""
    if not isinstance(memory_id, str) or not memory_id:
        raise InvalidInput(f"A memory's id is a non-empty string, got {shown(memory_id)}.")
    return checked_text(memory_id, "memory_id")


def checked_event_id(event_id: Any) -> int:
    """The event's number; `InvalidInput` when it cannot be one."""
    if isinstance(event_id, str) and event_id.isascii() and event_id.isdecimal():
        # More digits than any number of an event has are more than Python reads.
        event_id = int(event_id) if len(event_id) < _DIGITS else sys.maxsize
    return checked_count(event_id, "event_id", 1)


def checked_expiration(value: Any) -> datetime | None:
    """The end of the last day (UTC) that a date or a time names, or None; `InvalidInput` for what is neither."""
    if value is None:
        return None
    if isinstance(value, datetime):
        with suppress(OverflowError):
            value = (value if value.tzinfo is None else value.astimezone(UTC)).date()
    if isinstance(value, str):
        with suppress(ValueError):
            value = date.fromisoformat(value)
    if not isinstance(value, date) or isinstance(value, datetime):
        raise InvalidInput(f"expiration_date must be a date such as '2025-12-31', or None; got {shown(value)}.")
    if value == date.max:  # as some write that it never ends
        return datetime.max.replace(tzinfo=UTC)
    return datetime.combine(value + timedelta(days=1), time(), UTC)


def checked_unused(memory_type: Any, prompt: Any) -> None:
    """`InvalidInput` for what mem0's `add` takes and ours does not, saying what to use."""
    if memory_type is not None:
        raise InvalidInput(
            "memory_type: there are no procedural memories; store an agent's summary of its run with "
            "add(summary, agent_id=..., infer=False)."
        )
    if prompt is not None:
        raise InvalidInput(
            "prompt: extraction has one prompt for all calls; open with custom_prompt= or custom_instructions=."
        )


def checked_query(query: Any) -> str:
    """The query; `InvalidInput` when there is nothing to search for."""
    if not isinstance(query, str) or not query.strip():
        raise InvalidInput("query must be a non-empty string; get_all() lists memories without one.")
    if len(query) > _LONGEST_QUERY:
        raise InvalidInput(
            f"query has {len(query):,} characters, and at most {_LONGEST_QUERY:,} are searched for: give its question, "
            "or how it begins."
        )
    return query


def checked_flags(**flags: Any) -> None:
    """`InvalidInput` for the first that is neither true nor false: of a text, "no" too would be true."""
    for name, value in flags.items():
        if not isinstance(value, (int, np.bool_)) or value not in (0, 1):
            raise InvalidInput(f"{name} must be True or False, got {shown(value)}.")


def checked_list(values: Any, name: str) -> list[Any]:
    """What can be gone through as a list; `InvalidInput` when it cannot, or is a text or a mapping."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping)):
        raise InvalidInput(f"{name} must be a list, got {shown(values)}.")
    return list(values)


def checked_mapping(values: Any, name: str) -> Mapping[str, Any]:
    """`values`; `InvalidInput` when it is no mapping."""
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{name} must be a dictionary, got {shown(values)}.")
    return values


def checked_count(value: Any, name: str, least: int) -> int:
    """A whole number of at least `least`; `InvalidInput` names it when it is not."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name} must be an integer of at least {least}, got {shown(value)}.")
    # SQL counts to 2^63 - 1, which is more than any folder holds.
    return min(value, sys.maxsize)


def checked_seconds(value: Any, name: str) -> float:
    """A number of seconds, not negative; `InvalidInput` names it when it is not."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise InvalidInput(f"{name} must be a number of seconds of at least 0, got {shown(value)}.")
    # Threads cannot wait for ever but without a limit.
    return float(min(value, _LONGEST_SECONDS))


def checked_threshold(value: Any) -> float | None:
    """A relevance from 0 to 1, or None; `InvalidInput` otherwise."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InvalidInput(f"threshold must be a number from 0 to 1 (it cuts `relevance`), got {shown(value)}.")
    return float(value)


def checked_reranker(rerank: Any, configured: Any) -> Any:
    """What orders hits anew, for True the `configured` one; `InvalidInput` for what is no document compressor."""
    rerank = configured if rerank is True else None if rerank is False else rerank
    if rerank is not None and not callable(getattr(rerank, "compress_documents", None)):
        raise InvalidInput("rerank must be a LangChain document compressor (with compress_documents), or None.")
    return rerank


def checked_kinds(kinds: Any) -> frozenset[str]:
    """The kinds asked for, none when all are; `InvalidInput` for others."""
    if kinds is None:
        return frozenset()
    chosen = [kinds] if isinstance(kinds, str) else list(kinds) if isinstance(kinds, Collection) else []
    if not chosen or any(kind not in KINDS for kind in chosen):
        raise InvalidInput(f"kinds must be some of {list(KINDS)}, got {shown(kinds)}.")
    return frozenset(chosen)


def checked_moment(value: Any, name: str) -> int | None:
    """A time in microseconds since 1970 UTC, or None; `InvalidInput` for what is no time."""
    moment = checked_time(value, name)
    return None if moment is None else to_micros(moment)


def checked_time(value: Any, name: str) -> datetime | None:
    """A time with its zone (UTC when it has none), or None; `InvalidInput` for what is no time."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise InvalidInput(f"{name} must be a datetime or an ISO 8601 text, got {shown(value)}.") from error
    # Not a time, as pandas has it, is a datetime that equals nothing.
    if not isinstance(value, datetime) or value != value:
        raise InvalidInput(f"{name} must be a datetime or an ISO 8601 text, got {shown(value)}.")
    return value if value.tzinfo else value.replace(tzinfo=UTC)
