"""A stored memory as others see it: filters, callers, the extractor; and whose it is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from langchain_memlayer.errors import MemoryNotFound, shown
from langchain_memlayer.json_values import plain
from langchain_memlayer.result_types import MemoryResult
from langchain_memlayer.types import HIDDEN, QUARANTINED, SPENT, Row, Scope, Turn, from_micros

OWN_FIELDS = frozenset(
    ("id", "kind", "memory", "user_id", "agent_id", "run_id", "session_id", "role", "name", "created_at", "updated_at")
)
"""What filters see of a memory besides the user's metadata."""


def record_of(row: Row) -> dict[str, Any]:
    """What filters see of a memory: the user's metadata, and over them its own fields.

    Metadata never stand for whose memory it is, or what; only where it has no name or role of its own for these.
    """
    named = {"role": row.role, "name": row.name}
    return {
        **named,
        **row.metadata,
        **{name: value for name, value in named.items() if value is not None},
        "id": row.key,
        "kind": row.kind,
        "memory": row.text,
        "user_id": row.user_id,
        "agent_id": row.agent_id,
        "run_id": row.run_id,
        "session_id": row.session_id,
        "created_at": from_micros(row.created_at),
        "updated_at": from_micros(row.updated_at),
    }


def result_of(row: Row, now: int = 0) -> MemoryResult:
    """A memory as `get` and `get_all` show it; what has expired by `now` has ended."""
    return {
        "id": row.key,
        "memory": row.text,
        "text": row.text,
        "kind": row.kind,
        "sources": list(row.sources),
        "metadata": {**plain(row.metadata), "data": row.text},
        "event": row.event,
        "user_id": row.user_id,
        "agent_id": row.agent_id,
        "run_id": row.run_id,
        "session_id": row.session_id,
        "role": row.role,
        "name": row.name,
        "hash": row.hash,
        "count": row.count,
        "time": _iso(row.time, row.offset),
        "valid_at": _iso(row.valid_at, row.zone),
        "invalid_at": _iso(row.invalid_at),
        "ended": row.closed is not None or row.state in (HIDDEN, SPENT) or row.expired(now),
        "quarantined": row.state == QUARANTINED,
        "created_at": _iso(row.created_at),
        "updated_at": _iso(row.updated_at),
    }


@lru_cache(maxsize=256)
def _iso(micros: int | None, offset: int | None = 0) -> str | None:
    # Mostly those of one memory are one time, and so are those of one list.
    return None if micros is None else from_micros(micros, offset).isoformat()


def missing(key: str) -> MemoryNotFound:
    """The error for an id that no memory has."""
    return MemoryNotFound(
        f"There is no memory with the id {shown(key)}; get_all() and search() return the ids there are."
    )


def batch_scope(scope: Scope) -> str:
    """What batch ids are kept under: exactly this scope."""
    # JSON, because an id may hold any separator.
    return orjson.dumps(scope.ids()).decode()


def to_turn(row: Row) -> Turn:
    """A stored turn as the extractor sees it."""
    return Turn(
        text=row.text, role=row.role or "user", id=row.message_id, name=row.name, session_id=row.session_id,
        time=None if row.time is None else from_micros(row.time, row.offset), metadata=row.metadata,
        quarantined=row.state == QUARANTINED,
        valid_until=None if row.invalid_at is None or row.state == SPENT else from_micros(row.invalid_at),
    )  # fmt: skip
