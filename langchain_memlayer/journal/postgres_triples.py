"""Triples in PostgreSQL, found by the names in them: a large scope's graph is read where it is visited.

A triple has codes (`names.code_of`) of its names' keys and families and of its relation, none when a name says nothing.
Statements reach the rows of a name by an index, and the memory of each by its id. They are written so that the planner,
which may not have counted a table yet, has no choice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_memlayer.graph.names import code_of, family_of, read_name, relation_name
from langchain_memlayer.journal.read_base import BaseReader
from langchain_memlayer.journal.read_caches import shown
from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    import psycopg

CODES = ("source_code", "source_family", "destination_code", "destination_family", "shared_family", "relation_code")
MOST_SPACES = 32
"""A scope in more namespaces than these is read whole: each would be looked at for each name."""

MOST_ROWS = 3_000
"""So many triples of a name are looked at to see whether it is next to more names than anybody walks through."""

MOST_TOUCHED = 1_000
"""When more memories changed, everything that was read before is read again where it is visited."""

_PAGE = 5_000
_COLUMNS = "ALTER TABLE triples " + ", ".join(f"ADD COLUMN {column} BIGINT" for column in CODES)
_INDEXES = """
DROP INDEX triples_by_namespace;
CREATE INDEX triples_by_source ON triples (ns, source_family, source_code, id);
CREATE INDEX triples_by_destination ON triples (ns, destination_family, destination_code, id);
CREATE INDEX triples_by_pair ON triples (ns, source_code, destination_code, id);
CREATE INDEX triples_in_family ON triples (ns, shared_family) WHERE shared_family IS NOT NULL;
"""

Key = tuple[int, int]
"""The codes of a name and of its family."""


def codes(source: str, relation: str, destination: str) -> tuple[int | None, ...]:
    """The values of `CODES` of a triple."""
    one, other = read_name(source).key, read_name(destination).key
    if not one or not other:
        return (None,) * len(CODES)
    families = code_of(family_of(one)), code_of(family_of(other))
    shared = families[0] if families[0] == families[1] else None
    return code_of(one), families[0], code_of(other), families[1], shared, code_of(relation_name(relation))


def code_triples(db: psycopg.Connection[Any]) -> None:
    """Give the triples of an older schema their codes and the indexes of these."""
    db.execute(_COLUMNS.encode())
    last = -1
    columns = ", ".join(CODES)
    types = ", ".join("%s::bigint[]" for _ in range(1 + len(CODES)))
    update = (
        f"UPDATE triples t SET ({columns}) = ({', '.join(f'n.{column}' for column in CODES)}) "
        f"FROM unnest({types}) AS n(id, {columns}) WHERE t.id = n.id"
    )
    while page := db.execute(
        "SELECT id, source, relation, destination FROM triples WHERE id > %s ORDER BY id LIMIT %s", (last, _PAGE)
    ).fetchall():
        last = page[-1][0]
        coded = [(row[0], *codes(*row[1:])) for row in page]
        db.execute(update.encode(), [list(column) for column in zip(*coded, strict=True)])
    db.execute(_INDEXES.encode())


class NamedTriples(BaseReader):
    """Reads of triples by their names."""

    def asked_triples(self, scope: Scope, *, quarantined: bool) -> ScopeTriples:
        """The triples of a scope, to be asked for by their names."""
        return ScopeTriples(self, scope, quarantined=quarantined)

    def _triples_where(
        self, column: str, numbers: Sequence[int], ids: Mapping[str, str], *, quarantined: bool
    ) -> list[tuple[Any, ...]]:
        where, values = shown(ids, quarantined=quarantined)
        rows = self.db.execute(
            "SELECT t.id, t.item, j.key, t.source, t.relation, t.destination, j.valid_at "
            "FROM unnest(?::bigint[]) AS k(number) CROSS JOIN LATERAL (SELECT t.id, t.item, t.source, t.relation, "
            f"t.destination FROM triples t WHERE {column} = k.number OFFSET 0) AS t CROSS JOIN LATERAL "
            f"(SELECT i.key, i.valid_at FROM items i WHERE i.id = t.item AND {where} OFFSET 0) AS j",
            (_array(numbers), *values),
        ).fetchall()
        return sorted(rows)


class ScopeTriples:
    """The triples of a scope's live memories. All reads of one see one state of the journal.

    Args:
        reader: What they are read through, in a transaction.
        scope: Whose.
        quarantined: Whether quarantined memories count too.
    """

    def __init__(self, reader: BaseReader, scope: Scope, *, quarantined: bool) -> None:
        self._reader = reader
        self._root = scope.search_root
        ranges = scope.spaces
        found = reader.db.execute(
            f"SELECT id FROM namespaces WHERE {' OR '.join(['path >= ? AND path < ?'] * len(ranges))}",
            [end for both in ranges for end in both],
        ).fetchall()
        self._spaces = [row[0] for row in found]
        self._where, self._values = shown(scope.ids(), quarantined=quarantined)

    def position(self) -> int:
        """The position of the last commit that they are read at."""
        return self._reader.last_seq()

    def more_than(self, count: int) -> bool:
        """Whether there are more than `count`, those of ended memories included, in no more than a few namespaces."""
        if len(self._spaces) > MOST_SPACES:
            return False
        rows = self._run(
            "SELECT count(*) FROM (SELECT 1 FROM triples t WHERE t.ns = ANY(:spaces::bigint[]) LIMIT :most) AS counted",
            most=count + 1,
        )
        return int(rows[0][0]) > count

    def families_changed(self, since: int) -> set[int] | None:
        """The families of names in triples whose memories changed after a position; None when that cannot be told."""
        touched = self._reader.touched(self._root, since)
        if touched is None or len(touched) > MOST_TOUCHED:
            return None
        if not touched:
            return set()
        rows = self._run(
            "SELECT t.source_family, t.destination_family FROM triples t WHERE t.item = ANY(:items::bigint[])",
            items=touched,
        )
        return {family for row in rows for family in row if family is not None}

    def families(self, families: Sequence[int], *, most: int) -> list[tuple[Any, ...]]:
        """The names of some families, and what relates two names of one.

        Returns:
            For each family, its namespaces and either side of triples the names there, `most` at most: the family, the
            name's code, None, its first triple, the side (0 for source) and its spelling there. For each triple between
            two names of a family: the family, their codes, the triple, 0 and the relation.
        """
        return self._run(_FAMILIES, families=list(families), most=most)

    def firsts(self, keys: Iterable[Key]) -> list[tuple[Any, ...]]:
        """Those of some names that there are: the code, its first triple on a side, the side and its spelling there."""
        return self._run(_FIRSTS, **_split(keys))

    def around(self, keys: Iterable[Key], *, most: int) -> Iterator[tuple[Any, ...]]:
        """The names next to some names.

        Args:
            keys: Whose.
            most: From how many neighbours on they need not be told.

        Returns:
            For each name, each of its namespaces and each direction: the code, whether triples lead away from it, how
            many neighbours there are at least, and lists of their codes, their families and the first triples that lead
            to them, the latest of these first; no lists when there are more than `most`.
        """
        unsure: list[Key] = []
        keys = list(keys)
        for code, family, forth, rows, *found in self._run(_AROUND, **_split(keys), most=most, rows=MOST_ROWS):
            if rows == MOST_ROWS and found[0] <= most:
                unsure.append((code, family))
            else:
                yield (code, forth, *found)
        if unsure:
            for code, _, forth, _, *found in self._run(_AROUND, **_split(unsure), most=most, rows=None):
                yield (code, forth, *found)

    def latest(self, keys: Iterable[Key], *, most: int) -> list[tuple[Any, ...]]:
        """The names next to some names whose first triples are the latest, `most` for each namespace and direction.

        Returns:
            The name's code, whether the triples lead away from it, and the neighbour's code, family and first triple.
        """
        return self._run(_LATEST, **_split(keys), most=most)

    def edges(self, pairs: Sequence[tuple[int, int]], *, most: int) -> list[tuple[int, Any]]:
        """The triples from one name to another, for some pairs of codes in their order, `most` altogether.

        Returns:
            For each triple the place of its pair, and itself as `TripleReader.scope_triples` has it.
        """
        sources, destinations = [one for one, _ in pairs], [other for _, other in pairs]
        asked = most
        while True:
            rows = self._run(_EDGES, sources=sources, destinations=destinations, most=asked)
            # One memory that says the same twice says it once.
            found: dict[Any, tuple[int, Any]] = {}
            for place, *row in rows:
                found.setdefault((place, row[1], relation_name(row[4])), (place - 1, tuple(row)))
            if len(rows) < asked or len(found) >= most:
                return list(found.values())[:most]
            asked += most

    def between(self, sources: Sequence[int], destinations: Sequence[int], *, most: int) -> list[int]:
        """The memories with triples from one of some names to one of others (codes), the latest first."""
        rows = self._run(_BETWEEN, sources=list(sources), destinations=list(destinations), most=most)
        return [row[0] for row in rows]

    def alike(self, keys: Iterable[Key], relation: int, *, most: int) -> list[int]:
        """The memories that relate one of some names in one way (the relation's code), the latest first."""
        return [row[0] for row in self._run(_ALIKE, **_split(keys), relation=relation, most=most)]

    def _run(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement with named values.

        `:shown` says that the memory `i` is a live one of the scope, `:live(t)` that the triple `t` is of such.
        """
        given: list[Any] = []
        known = {"spaces": self._spaces, **values}

        def put(mark: re.Match[str]) -> str:
            if mark[1] is None and mark[2] != "shown":
                value = known[mark[2]]
                given.append(_array(value) if isinstance(value, list) else value)
                return "?"
            given.extend(self._values)
            return (
                self._where if mark[1] is None else f"(SELECT {self._where} FROM items i WHERE i.id = {mark[1]}.item)"
            )

        text = _MARK.sub(put, statement)
        return self._reader.db.execute(text, given).fetchall()


def _array(numbers: Sequence[int]) -> str:
    # As text: the driver takes a list of integers for one of as small ones as those that it saw first.
    return f"{{{','.join(map(str, numbers))}}}"


def _split(keys: Iterable[Key]) -> Mapping[str, list[int]]:
    pairs = list(keys)
    return {"codes": [code for code, _ in pairs], "families": [family for _, family in pairs]}


_MARK = re.compile(r"(?<!:):(?:live\((\w)\)|(\w+))")

_KEYS = "unnest(:spaces::bigint[]) AS n(ns) CROSS JOIN unnest(:codes::bigint[], :families::bigint[]) AS k(code, family)"


def _of(side: str) -> str:
    """The condition for triples that have a name on a side."""
    return f"t.ns = n.ns AND t.{side}_family = k.family AND t.{side}_code = k.code AND :live(t)"


def _names(side: str) -> str:
    # From one name of the family to the next by the index, over however many triples each has.
    step = f"SELECT t.{side}_code FROM triples t WHERE t.ns = n.ns AND t.{side}_family = k.family"
    order = f"ORDER BY t.{side}_code LIMIT 1"
    return (
        f"(WITH RECURSIVE coded(code) AS (({step} {order}) UNION ALL "
        f"SELECT ({step} AND t.{side}_code > c.code {order}) FROM coded c WHERE c.code IS NOT NULL) "
        f"SELECT c.code, f.id, f.name FROM coded c CROSS JOIN LATERAL (SELECT t.id, t.{side} AS name FROM triples t "
        f"WHERE t.ns = n.ns AND t.{side}_family = k.family AND t.{side}_code = c.code AND :live(t) "
        "ORDER BY t.id LIMIT 1) AS f WHERE c.code IS NOT NULL LIMIT :most)"
    )


_FAMILY = "unnest(:spaces::bigint[]) AS n(ns) CROSS JOIN unnest(:families::bigint[]) AS k(family)"
_FAMILIES = (
    f"SELECT k.family, s.code, NULL::bigint, s.id, 0, s.name FROM {_FAMILY} CROSS JOIN LATERAL {_names('source')} AS s "
    "UNION ALL SELECT k.family, d.code, NULL::bigint, d.id, 1, d.name "
    f"FROM {_FAMILY} CROSS JOIN LATERAL {_names('destination')} AS d "
    f"UNION ALL SELECT k.family, b.source_code, b.destination_code, b.id, 0, b.relation FROM {_FAMILY} "
    "CROSS JOIN LATERAL (SELECT t.source_code, t.destination_code, t.id, t.relation FROM triples t WHERE t.ns = n.ns "
    "AND t.shared_family = k.family AND :live(t) OFFSET 0) AS b"
)

_FIRSTS = (
    f"SELECT k.code, f.id, f.side, f.name FROM {_KEYS} CROSS JOIN LATERAL ("
    f"(SELECT t.id, 0 AS side, t.source AS name FROM triples t WHERE {_of('source')} ORDER BY t.id LIMIT 1) UNION ALL "
    f"(SELECT t.id, 1, t.destination FROM triples t WHERE {_of('destination')} ORDER BY t.id LIMIT 1)) AS f"
)


def _next_to(side: str, other: str) -> str:
    told = ", ".join(
        f"CASE WHEN count(*) <= :most THEN array_agg(q.{column} ORDER BY q.first DESC) END"
        for column in ("code", "family", "first")
    )
    return (
        f"(SELECT {str(side == 'source').upper()} AS forth, sum(q.rows)::bigint AS rows, count(*) AS many, {told} FROM "
        f"(SELECT s.code, min(s.family) AS family, min(s.id) AS first, count(*) AS rows FROM (SELECT t.{other}_code AS "
        f"code, t.{other}_family AS family, t.id FROM triples t WHERE {_of(side)} LIMIT :rows::bigint) AS s "
        "GROUP BY s.code) AS q HAVING count(*) > 0)"
    )


_AROUND = (
    f"SELECT k.code, k.family, p.* FROM {_KEYS} CROSS JOIN LATERAL ({_next_to('source', 'destination')} UNION ALL "
    f"{_next_to('destination', 'source')}) AS p"
)


def _last_met(side: str, other: str) -> str:
    return (
        f"(SELECT {str(side == 'source').upper()} AS forth, t.{other}_code, t.{other}_family, t.id FROM triples t "
        f"WHERE {_of(side)} AND (SELECT TRUE FROM triples e WHERE e.ns = ANY(:spaces::bigint[]) AND e.source_code = "
        "t.source_code AND e.destination_code = t.destination_code AND e.id < t.id AND :live(e) LIMIT 1) IS NULL "
        "ORDER BY t.id DESC LIMIT :most)"
    )


_LATEST = (
    f"SELECT k.code, p.* FROM {_KEYS} CROSS JOIN LATERAL ({_last_met('source', 'destination')} UNION ALL "
    f"{_last_met('destination', 'source')}) AS p"
)

# The order is that of the nested loop over the pairs, which reads no further than it has to.
_EDGES = (
    "SELECT p.place, m.* FROM unnest(:sources::bigint[], :destinations::bigint[]) WITH ORDINALITY AS "
    "p(source, destination, place) CROSS JOIN LATERAL "
    "(SELECT t.id, t.item, j.key, t.source, t.relation, t.destination, j.valid_at FROM triples t CROSS JOIN LATERAL "
    "(SELECT i.key, i.valid_at FROM items i WHERE i.id = t.item AND :shown OFFSET 0) AS j "
    "WHERE t.ns = ANY(:spaces::bigint[]) AND t.source_code = p.source AND t.destination_code = p.destination "
    "ORDER BY t.id LIMIT :most) AS m LIMIT :most"
)
_BETWEEN = (
    "SELECT f.item FROM (SELECT m.item, max(m.id) AS last FROM unnest(:sources::bigint[]) AS s(code) CROSS JOIN "
    "unnest(:destinations::bigint[]) AS d(code) CROSS JOIN LATERAL (SELECT t.item, t.id FROM triples t WHERE t.ns = "
    "ANY(:spaces::bigint[]) AND t.source_code = s.code AND t.destination_code = d.code AND :live(t) "
    "OFFSET 0) AS m GROUP BY m.item) AS f ORDER BY f.last DESC LIMIT :most"
)
_ALIKE = (
    f"SELECT f.item FROM (SELECT m.item, max(m.id) AS last FROM {_KEYS} CROSS JOIN LATERAL (SELECT t.item, t.id FROM "
    f"triples t WHERE t.relation_code = :relation AND {_of('source')} OFFSET 0) AS m GROUP BY m.item) AS f "
    "ORDER BY f.last DESC LIMIT :most"
)
