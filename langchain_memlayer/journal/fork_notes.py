"""Which forks there are, and which of their memories are copies of which.

A fork is noted by a namespace without memories, whose labels say what it is: its token, its name, when it was made, and
the ids that it was copied from. Where that is gone, nothing can be written to the fork (`Writer.namespace`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

import orjson

from langchain_memlayer.journal.database import sound
from langchain_memlayer.journal.reader import (
    EVENT_COLUMNS,
    LINKS,
    ROW_COLUMNS,
    ROW_FROM,
    Reader,
    of_scope,
    to_event,
    to_row,
)
from langchain_memlayer.journal.writer import Writer, fork_path
from langchain_memlayer.json_values import dumps
from langchain_memlayer.types import FORK, MEMORY_ROOT, Row, Scope, decode_namespace, prefix_bounds

NOTES = f"{MEMORY_ROOT}f."
"""The encoded namespace above those that note forks."""


@dataclass(frozen=True, slots=True)
class ForkNote:
    """A fork: its token, its name, whose memories it is a copy of, and when it was made (microseconds)."""

    token: str
    name: str
    scope: Scope
    created_at: int

    @property
    def ids(self) -> Scope:
        """Whose its own memories are."""
        return self.scope.forked(self.token)


def forks(reader: Reader, scope: Scope | None = None, name: str | None = None) -> list[ForkNote]:
    """The forks in the order in which they were made: of all, or of those that have some ids; or one of exactly these.

    That is with a name: then absent ids mean none, and any otherwise.
    """
    rows = reader.db.execute(
        "SELECT id, path FROM namespaces WHERE path >= ? AND path < ? ORDER BY id", prefix_bounds(NOTES)
    )
    notes = list(sound(rows, lambda row: to_fork(row[1])))
    ids = {} if scope is None else scope.ids()
    if name is not None:
        return [fork for fork in notes if fork.name == name and fork.scope.ids() == ids]
    return [fork for fork in notes if ids.items() <= fork.scope.ids().items()]


def to_fork(path: str) -> ForkNote:
    """The fork that an encoded namespace notes.

    Raises:
        ValueError: it is damaged; or TypeError.
    """
    _, _, token, name, made, ids = (unquote(label) for label in decode_namespace(path))
    fork = ForkNote(token, name, Scope(**orjson.loads(ids)).required("a fork"), int(made))
    if fork.ids.fork != token:
        raise ValueError("no token")
    return fork


def note_fork(tx: Writer, name: str, scope: Scope, token: str) -> ForkNote:
    """Note that there is a fork from now on.

    Raises:
        InvalidInput: its name and the ids are longer than what a database finds by an index.
    """
    fork = ForkNote(token.replace("/", "-").replace(".", "-"), name, scope, tx.now)
    labels = (quote(part, safe=" ").replace(".", "%2E") for part in (name, str(tx.now), dumps(scope.ids())))
    tx.namespace(f"{fork_path(fork.token)}{'.'.join(labels)}.")
    return fork


def end_fork(tx: Writer, fork: ForkNote) -> None:
    """Note that there is no such fork any more."""
    tx.db.execute("DELETE FROM namespaces WHERE path >= ? AND path < ?", prefix_bounds(fork_path(fork.token)))


def copies(reader: Reader, fork: ForkNote) -> dict[str, str]:
    """The ids of a fork's copies, each with that of its original."""
    owned, ids = of_scope(fork.ids)
    rows = reader.db.execute(f"SELECT i.id FROM {ROW_FROM} WHERE {owned} AND i.kind <> 'item'", ids)
    sql = f"SELECT {EVENT_COLUMNS} FROM events e WHERE e.actor = 'fork' AND e.seq IN (...)"
    events = sound(reader.among(sql, [row for (row,) in rows]), to_event)
    return {one.key: one.detail["copy"] for one in events if "copy" in one.detail}


def profiles_in(reader: Reader, fork: ForkNote) -> list[Row]:
    """All versions of a fork's profiles, of which a copy of an agent's memories has one for each user."""
    profiles: list[Row] = []
    for name in ("user_id", "agent_id", "run_id"):
        begin = Scope(**{name: f"{FORK}{fork.token}/"}).partition.removesuffix(".")
        # That it is no item is said because the index is of memories alone.
        where = "n.path >= ? AND n.path < ? AND i.kind = 'profile' AND i.kind <> 'item'"
        sql = f"SELECT {ROW_COLUMNS} FROM {ROW_FROM} WHERE {where}"
        profiles += sound(reader.db.execute(sql, (begin, f"{begin}\U0010ffff")), to_row)
    return profiles


def forks_of(reader: Reader, scope: Scope) -> list[ForkNote]:
    """The forks that may have copies of what a scope has: those whose ids do not contradict it."""
    ids = scope.ids()
    return [one for one in forks(reader) if all(ids.get(name, id_) == id_ for name, id_ in one.scope.ids().items())]


def copied(reader: Reader, rows: Sequence[Row]) -> list[Row]:
    """All versions of the copies of some memories, in all forks."""
    keys, owners = {row.key for row in rows}, {row.scope for row in rows}
    near = {fork.token: fork for owner in owners for fork in forks_of(reader, owner)}
    copied_keys = [key for fork in near.values() for key, origin in copies(reader, fork).items() if origin in keys]
    sql = f"SELECT {ROW_COLUMNS} FROM {ROW_FROM} WHERE i.kind <> 'item' AND i.key IN (...)"
    return list(sound(reader.among(sql, copied_keys), to_row))


def ended_citing(reader: Reader, turns: Sequence[int]) -> list[int]:
    """The ended versions of facts that cite some turns."""
    sql = f"SELECT DISTINCT l.fact FROM {LINKS} WHERE f.closed IS NOT NULL AND f.kind = 'fact' AND l.turn IN (...)"
    return sorted({fact for (fact,) in reader.among(sql, turns)})
