"""What the journal held at a position, what changed it since, and how it is put back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_memlayer.journal.cache_reader import TRIPLES, to_triple
from langchain_memlayer.journal.database import sound
from langchain_memlayer.journal.reader import (
    EVENT_COLUMNS,
    ROW_COLUMNS,
    ROW_FROM,
    Reader,
    ended_by,
    of_scope,
    to_event,
    to_row,
)
from langchain_memlayer.journal.writer import Writer, json_text
from langchain_memlayer.types import Event, Row, Scope, Triple, prefix_bounds

CURRENT = f"i.id <= ? AND (i.closed IS NULL OR i.closed > ?) AND NOT {ended_by('1 = 1')}"
"""The SQL condition that a version was current at a position, which it takes three times."""


def changed(reader: Reader, scope: Scope, since: int, until: int) -> tuple[list[Row], list[Row]]:
    """The versions that were current at one position and not at a later one, and the other way round, in order."""
    owned, ids = of_scope(scope)
    spaces, bounds = "", tuple[str, ...]()
    if scope.user_id is not None:
        spaces, bounds = "e.ns = (SELECT id FROM namespaces WHERE path = ?) AND ", (scope.partition,)
    touched = (
        f"SELECT e.key FROM events e WHERE {spaces}e.seq > ? AND e.seq <= ? AND e.kind <> 'item' AND e.op IN ('add', "
        "'update', 'delete', 'undo')"
    )
    selected = (
        reader.db.execute(
            f"SELECT {ROW_COLUMNS} FROM {ROW_FROM} WHERE {owned} AND i.kind <> 'item' AND i.key IN ({touched}) AND "
            f"{CURRENT} ORDER BY i.id",
            (*ids, *bounds, since, until, *[at] * 3),
        )
        for at in (since, until)
    )
    before, after = ({row.id: row for row in sound(rows, to_row)} for rows in selected)
    return [before[row] for row in before if row not in after], [after[row] for row in after if row not in before]


def triples_of_all(reader: Reader, rows: Sequence[Row]) -> list[Triple]:
    """The triples of some versions, each once."""
    sql = f"SELECT t.id, t.source, t.relation, t.destination FROM {TRIPLES} WHERE t.item IN (...) ORDER BY t.id"
    return list(dict.fromkeys(sound(reader.among(sql, [row.id for row in rows]), to_triple)))


def event_at(reader: Reader, seq: int) -> Event | None:
    """The event of a memory at a position, or None."""
    events = _events(reader, "e.seq = ? AND e.kind <> 'item'", (seq,))
    return events[0] if events else None


def events_of_batch(reader: Reader, scope: Scope, batch: str) -> list[Event]:
    """The events of the calls with a batch id in the namespaces where memories of a scope may be, in order."""
    where = "e.ns IN (SELECT id FROM namespaces WHERE path >= ? AND path < ?) AND e.batch = ? AND e.kind <> 'item'"
    return _events(reader, where, (*prefix_bounds(scope.search_root), batch))


def owners_of(reader: Reader, keys: Collection[str]) -> dict[str, tuple[str, Scope]]:
    """The namespace and the ids of memories, ended or not, by their ids; of what was forgotten there are none."""
    sql = f"SELECT i.key, n.path, i.user_id, i.agent_id, i.run_id FROM {ROW_FROM} WHERE i.kind <> 'item' AND i.key IN "
    rows = reader.among(f"{sql}(...)", sorted(keys))
    return dict(sound(rows, lambda row: (row[0], (row[1], Scope(*row[2:])))))


def events_along(reader: Reader, first: Event) -> dict[int, list[Event]]:
    """What came along with one event and with each after it: the states of the turns of a fact, the facts of a turn.

    What an agent or a run has lies in many namespaces, and ends in one commit.

    Returns:
        Events in order, by the position of the one that they came along with.
    """
    along: dict[int, list[Event]] = {}
    near = f"(e.ns = (SELECT ns FROM events WHERE seq = ?) OR {reader.SAME_COMMIT})"
    where = f"{near} AND e.seq > ? AND e.kind <> 'item' AND e.detail LIKE ?"
    for one in _events(reader, where, (*[first.seq] * 3, '%"of":%')):
        if "of" in one.detail:
            along.setdefault(one.detail["of"], []).append(one)
    return along


def paths_of_commit(reader: Reader, seq: int) -> list[str]:
    """The namespaces that the commit of an event has written to, and perhaps others."""
    sql = "SELECT DISTINCT n.path FROM events e JOIN namespaces n ON n.id = e.ns WHERE "
    return [path for (path,) in reader.db.execute(sql + reader.SAME_COMMIT, (seq,))]


def _events(reader: Reader, where: str, values: Sequence[Any]) -> list[Event]:
    rows = reader.db.execute(f"SELECT {EVENT_COLUMNS} FROM events e WHERE {where} ORDER BY e.seq", values)
    return list(sound(rows, to_event))


def facts_since(reader: Reader, path: str, since: int, *, most: int) -> list[Event]:
    """The last things that happened to the facts of a namespace after a position, in order."""
    where = "e.ns = (SELECT id FROM namespaces WHERE path = ?) AND e.seq > ? AND e.kind = 'fact' AND e.op IN "
    rows = reader.db.execute(
        f"SELECT {EVENT_COLUMNS} FROM events e WHERE {where}('add', 'update', 'delete', 'undo') ORDER BY e.seq DESC "
        "LIMIT ?",
        (path, since, most),
    )
    return list(sound(rows, to_event))[::-1]


def last_of(reader: Reader, key: str, actors: Sequence[str]) -> int:
    """The position of the last event of a memory that one of some actors made; 0 when there is none."""
    sql = "SELECT max(seq) FROM events WHERE key = ? AND kind <> 'item' AND actor IN (...)"
    return int(reader.among(sql, actors, before=(key,))[0][0] or 0)


def put_back(tx: Writer, row: int, seq: int, columns: Mapping[str, Any]) -> None:
    """Give a version what its columns were, by the event at `seq`."""
    values = {
        name: json_text(value)
        if name in ("sources", "turns")
        else value or None
        if name in ("state", "read")
        else value
        for name, value in columns.items()
    }
    assignments = ", ".join(f"{name} = ?" for name in values)
    tx.db.execute(f"UPDATE items SET {assignments}, seq = ? WHERE id = ?", (*values.values(), seq, row))


def unlink(tx: Writer, fact: int, turns: Sequence[int]) -> None:
    """Let a fact cite some turns no longer."""
    tx.db.executemany("DELETE FROM links WHERE fact = ? AND turn = ?", [(fact, turn) for turn in turns])


def terms_of(reader: Reader, ids: Sequence[int]) -> dict[int, bytes]:
    """The keyword terms of some versions, as they are kept."""
    rows = reader.among("SELECT id, terms FROM items WHERE id IN (...)", ids)
    return {item: bytes(terms) for item, terms in rows if isinstance(terms, bytes)}
