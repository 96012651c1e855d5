"""What became of a scope between two instants."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from langchain_memlayer.engine.records import result_of
from langchain_memlayer.engine.results import relations_of
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.positions import changed, triples_of_all
from langchain_memlayer.types import DiffResult, Row, Scope, from_micros


def difference(journal: Journal, scope: Scope, since: int, until: int, kinds: Collection[str]) -> DiffResult:
    """What a scope held at one time and not at another, and the other way round; memories that held at both are paired.

    Args:
        journal: The truth.
        scope: Whose memories; of an empty one those of all.
        since: The earlier time, microseconds since 1970 UTC.
        until: The later one.
        kinds: Which kinds; of none, facts and what no fact says.
    """
    with journal.read(snapshot=True) as reader:
        positions = [reader.position_at(scope.search_root, at) for at in (since, until)]
        before, after = (_shown(rows, kinds) for rows in changed(reader, scope, *positions))
        was, became = triples_of_all(reader, before), triples_of_all(reader, after)
    old, new = {row.key: row for row in before}, {row.key: row for row in after}
    return {
        "since": from_micros(since).isoformat(),
        "until": from_micros(until).isoformat(),
        "added": [result_of(row) for row in after if row.key not in old],
        "changed": [
            {"id": row.key, "before": result_of(old[row.key]), "after": result_of(row)}
            for row in after
            if row.key in old
        ],
        "ended": [result_of(row) for row in before if row.key not in new],
        "relations": {
            "added_entities": relations_of([triple for triple in became if triple not in set(was)]),
            "deleted_entities": relations_of([triple for triple in was if triple not in set(became)]),
        },
    }


def _shown(rows: Sequence[Row], kinds: Collection[str]) -> list[Row]:
    if kinds:
        return [row for row in rows if row.kind in kinds]
    return [row for row in rows if row.kind == "fact" or row.given or not row.read]
