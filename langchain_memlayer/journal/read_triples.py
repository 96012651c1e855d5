"""What is read of the triples that memories support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_memlayer.journal.read_base import BaseReader, chunks, marks
from langchain_memlayer.types import QUARANTINED, VISIBLE, Scope, Triple, prefix_bounds

if TYPE_CHECKING:
    from langchain_memlayer.journal.postgres_triples import ScopeTriples

_TRIPLE = "t.id, t.item, i.key, t.source, t.relation, t.destination, i.valid_at"


class TripleReader(BaseReader):
    """Reads of triples; those of ended memories are not shown."""

    def has_triples(self) -> bool:
        """Whether the folder has any triples."""
        return self.db.execute("SELECT 1 FROM triples LIMIT 1").fetchone() is not None

    def scope_triples(self, prefix: str, ids: Mapping[str, str], *, quarantined: bool) -> list[tuple[Any, ...]]:
        """The triples that a scope's graph shows: id, item, memory id, source, relation, destination, valid_at.

        Args:
            prefix: The namespace that the scope's memories lie below.
            ids: What `user_id`, `agent_id` and `run_id` must be, as far as given.
            quarantined: Whether quarantined memories count too.
        """
        low, high = prefix_bounds(prefix)
        where, values = shown(ids, quarantined=quarantined)
        return self.db.execute(
            f"SELECT {_TRIPLE} FROM namespaces n JOIN triples t ON t.ns = n.id JOIN items i ON i.id = t.item WHERE "
            f"n.path >= ? AND n.path < ? AND {where} ORDER BY t.id",
            (low, high, *values),
        ).fetchall()

    def asked_triples(self, scope: Scope, *, quarantined: bool) -> ScopeTriples | None:
        """A scope's triples, to be asked for by their names; None where they are at hand and read all at once."""
        return None

    def changed_triples(
        self, prefix: str, ids: Mapping[str, str], since: int, *, quarantined: bool
    ) -> tuple[list[tuple[Any, ...]], list[int]] | None:
        """The `scope_triples` of what changed after position `since`, and all items that did; None after a reset."""
        touched = self.touched(prefix, since)
        if touched is None:
            return None
        return self._triples_where("t.item", touched, ids, quarantined=quarantined), touched

    def triples_by_id(
        self, triples: Sequence[int], ids: Mapping[str, str], *, quarantined: bool
    ) -> list[tuple[Any, ...]]:
        """Those of some triples that a scope's graph shows, in the shape of `scope_triples`."""
        return self._triples_where("t.id", triples, ids, quarantined=quarantined)

    def _triples_where(
        self, column: str, numbers: Sequence[int], ids: Mapping[str, str], *, quarantined: bool
    ) -> list[tuple[Any, ...]]:
        where, values = shown(ids, quarantined=quarantined)
        found: list[tuple[Any, ...]] = []
        for chunk in chunks(numbers):
            found += self.db.execute(
                f"SELECT {_TRIPLE} FROM triples t JOIN items i ON i.id = t.item WHERE {where} "
                f"AND {column} IN ({marks(len(chunk))})",
                (*values, *chunk),
            ).fetchall()
        return sorted(found)

    def triples_of(self, item: int) -> tuple[Triple, ...]:
        """The triples of one memory version."""
        rows = self.db.execute("SELECT source, relation, destination FROM triples WHERE item = ? ORDER BY id", (item,))
        return tuple(Triple(*row) for row in rows)


def shown(ids: Mapping[str, str], *, quarantined: bool) -> tuple[str, list[str]]:
    """The condition for live memories of a scope whose triples are shown, and its values."""
    states = f"{VISIBLE}, {QUARANTINED}" if quarantined else str(VISIBLE)
    wanted = "".join(f" AND i.{name} = ?" for name in ids)
    return f"i.closed IS NULL AND coalesce(i.state, {VISIBLE}) IN ({states}){wanted}", list(ids.values())
