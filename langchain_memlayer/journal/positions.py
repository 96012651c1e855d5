"""What the journal held at a position: the versions that were current then."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_memlayer.journal.database import whole
from langchain_memlayer.journal.read import ROW_COLUMNS, ROW_FROM, Reader, of_scope, to_row
from langchain_memlayer.types import Row, Scope, Triple

CURRENT = (
    "i.id <= ? AND (i.closed IS NULL OR i.closed > ?) AND NOT coalesce((SELECT e.op = 'delete' OR e.gone = i.id FROM "
    "events e WHERE e.key = i.key AND e.kind <> 'item' AND e.seq <= ? AND (e.item = i.id OR e.gone = i.id) AND e.op IN "
    "('add', 'update', 'delete', 'undo') ORDER BY e.seq DESC LIMIT 1), 1 = 0)"
)
"""The SQL condition that a version was current at a position, which it takes three times.

A version that an undo brought back has no end any longer; that it had one in between only its events say.
"""


def changed(reader: Reader, scope: Scope, since: int, until: int) -> tuple[list[Row], list[Row]]:
    """The versions that were current at one position and not at a later one, and the other way round, in order."""
    owned, ids = of_scope(scope)
    touched = (
        "SELECT e.key FROM events e WHERE e.seq > ? AND e.seq <= ? AND e.kind <> 'item' AND e.op IN ('add', 'update', "
        "'delete', 'undo')"
    )
    found = (
        reader.db.execute(
            f"SELECT {ROW_COLUMNS} FROM {ROW_FROM} WHERE {owned} AND i.kind <> 'item' AND i.key IN ({touched}) AND "
            f"{CURRENT} ORDER BY i.id",
            (*ids, since, until, *[at] * 3),
        )
        for at in (since, until)
    )
    before, after = ({row.id: row for row in whole(rows, to_row)} for rows in found)
    return [before[row] for row in before if row not in after], [after[row] for row in after if row not in before]


def triples_of_all(reader: Reader, rows: Sequence[Row]) -> list[Triple]:
    """The triples of some versions, each once."""
    sql = "SELECT source, relation, destination FROM triples WHERE item IN (...) ORDER BY id"
    return list(dict.fromkeys(Triple(*row) for row in reader.among(sql, [row.id for row in rows])))
