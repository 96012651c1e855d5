"""Scopes in the journal: whose rows, whose batches, and rows as what they stand for."""

from __future__ import annotations

from datetime import timedelta, timezone

import orjson

from langchain_memlayer.errors import MemoryNotFound
from langchain_memlayer.types import QUARANTINED, SPENT, Row, Scope, Turn, from_micros


def missing(key: str) -> MemoryNotFound:
    """The error for an id that no memory has."""
    return MemoryNotFound(f"There is no memory with the id {key!r}; get_all() and search() return the ids there are.")


def scope_ids(scope: Scope) -> tuple[str | None, str | None, str | None]:
    """The three ids, None where absent."""
    return scope.user_id, scope.agent_id, scope.run_id


def batch_scope(scope: Scope) -> str:
    """What batch ids are kept under: exactly this scope."""
    # JSON, because an id may hold any separator.
    return orjson.dumps(scope.ids()).decode()


def scope_of(row: Row) -> Scope:
    """Who a memory belongs to."""
    return Scope(row.user_id, row.agent_id, row.run_id)


def to_turn(row: Row) -> Turn:
    """A stored turn as the extractor sees it."""
    time = None if row.time is None else from_micros(row.time)
    if time is not None and row.offset is not None:
        time = time.astimezone(timezone(timedelta(seconds=row.offset)))
    return Turn(
        text=row.text, role=row.role or "user", id=row.message_id, name=row.name, session_id=row.session_id,
        time=time, metadata=row.metadata,
        quarantined=row.state == QUARANTINED,
        valid_until=None if row.invalid_at is None or row.state == SPENT else from_micros(row.invalid_at),
    )  # fmt: skip
