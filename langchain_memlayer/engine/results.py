"""What callers of `Memory` get back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_memlayer.engine.commit import Committed, Outcome
from langchain_memlayer.graph.names import as_relations
from langchain_memlayer.journal.fork_notes import ForkNote
from langchain_memlayer.result_types import (
    AddedMemory,
    AddResult,
    Evidence,
    ForkInfo,
    HistoryRow,
    Relation,
    ScopeSize,
    UnreadCall,
    UnreadTurn,
    WhyResult,
)
from langchain_memlayer.types import Event, Row, Triple, Unread, from_micros


def add_result(outcome: Outcome, *, facts: bool) -> AddResult:
    """What an `add` reports: its facts, or its turns where none are looked for."""
    shown: AddResult = {
        "results": [_committed(done) for done in (outcome.facts if facts else outcome.turns)],
        "relations": {"added_entities": relations_of(outcome.added), "deleted_entities": relations_of(outcome.removed)},
    }
    if outcome.rejected:
        shown["rejected"] = [
            {"memory": refusal.text, "reason": refusal.reason, "quote": refusal.quote} for refusal in outcome.rejected
        ]
    return shown


def unread(note: Unread, rows: Mapping[int, Row]) -> UnreadCall:
    """A note of what is still to be read; `rows` has its turns."""
    kept = (rows[turn] for turn in note.turns if turn in rows)
    turns: list[UnreadTurn] = [{"id": row.key, "memory": row.text, "role": row.role} for row in kept]
    turns += [{"id": None, "memory": turn["text"], "role": turn["role"]} for turn in note.detail.turns]
    return {
        "id": note.id,
        "turns": turns,
        "attempts": note.attempts,
        "next_at": from_micros(note.next_at).isoformat(),
        "reason": note.reason,
        "set_aside": note.set_aside is not None,
    }


def scope_size(row: Sequence[Any]) -> ScopeSize:
    """A row of the journal's scopes."""
    user_id, agent_id, run_id, facts, turns, *times = row
    begun, written = (from_micros(time).isoformat() for time in times)
    return {
        "user_id": user_id, "agent_id": agent_id, "run_id": run_id, "facts": int(facts), "turns": int(turns),
        "created_at": begun, "updated_at": written,
    }  # fmt: skip


def fork_info(fork: ForkNote) -> ForkInfo:
    """A fork as `forks` shows it."""
    scope = fork.scope
    return {
        "name": fork.name, "user_id": scope.user_id, "agent_id": scope.agent_id, "run_id": scope.run_id,
        "ids": fork.ids.ids(), "created_at": from_micros(fork.created_at).isoformat(),
    }  # fmt: skip


def _committed(done: Committed) -> AddedMemory:
    row: AddedMemory = {"id": done.id, "memory": done.text, "event": done.event}
    if done.event == "UPDATE":
        row["previous_memory"] = done.previous
    return row


def relations_of(triples: Sequence[Triple]) -> list[Relation]:
    """Triples as results show them."""
    return as_relations((t.source, t.relation, t.destination) for t in triples)


def history_row(event: Event, began: Event, first: Row | None) -> HistoryRow:
    """One event of a memory's history, which `began` with one, and of which `first` is the first version."""
    deleted = event.op == "delete" or (event.op == "undo" and event.item is None)
    value = None if deleted else event.value
    return {
        "id": str(event.seq),
        "memory_id": event.key,
        "prev_value": event.prev,
        "new_value": value,
        "old_memory": event.prev,
        "new_memory": value,
        "event": event.op.upper(),
        "timestamp": from_micros(event.recorded_at).isoformat(),
        "created_at": from_micros(began.recorded_at if first is None else first.created_at).isoformat(),
        "updated_at": from_micros(event.recorded_at).isoformat(),
        "is_deleted": int(deleted),
        "actor_id": None if first is None else first.name,
        "role": None if first is None else first.role,
    }


def evidence(turn: Row, quote: str | None) -> Evidence:
    """A turn as what a memory comes from."""
    return {
        "id": turn.message_id or turn.key,
        "memory_id": turn.key,
        "text": turn.text or None,
        "quote": quote,
        "role": turn.role,
        "name": turn.name,
        "session_id": turn.session_id,
        "time": None if turn.time is None else from_micros(turn.time, turn.offset).isoformat(),
    }


def reasons(row: Row, turns: Sequence[tuple[Row, str | None]], events: Sequence[Event]) -> WhyResult:
    """Where a memory comes from and what was decided about it."""
    return {
        "id": row.key,
        "memory": row.text,
        "kind": row.kind,
        "sources": [evidence(turn, quote) for turn, quote in turns],
        "decisions": [
            {
                "event": event.op,
                "actor": event.actor,
                "timestamp": from_micros(event.recorded_at).isoformat(),
                "batch_id": event.batch,
                "prev_value": event.prev,
                "new_value": event.value,
                **{name: value for name, value in event.detail.items() if name not in ("was", "of")},
            }
            for event in events
        ],
    }
