"""The graphs of a folder, kept up with its journal."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

from langchain_memlayer.errors import JournalError, SnapshotError
from langchain_memlayer.graph.names import as_relations, relation_name
from langchain_memlayer.index import files
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.schema import DERIVED
from langchain_memlayer.result_types import Relation
from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    from langchain_memlayer.graph.memory_graph import Edge, MemoryGraph, TripleGraph

_LOGGER = logging.getLogger(__name__)

CAPACITY_BYTES = 500_000_000
SNAPSHOT_EDGES = 20_000
"""From so many edges a graph is snapshotted: fewer are read from the journal in a fraction of a second."""

DRIFT = 0.2
"""A snapshot is written anew when so large a share of the edges has changed since: that costs each change little."""


class Graphs:
    """The graphs of a folder's memories, one for each scope that is asked for.

    A scope's graph has the triples of exactly that scope's memories, so names of other agents and users decide neither
    which names are one entity nor how they are spelled.

    Args:
        snapshot_edges: From how many edges on a graph is snapshotted.
        capacity_bytes: About how much the graphs may hold in memory together.
    """

    def __init__(
        self, journal: Journal, *, snapshot_edges: int = SNAPSHOT_EDGES, capacity_bytes: int = CAPACITY_BYTES
    ) -> None:
        self.journal = journal
        self._snapshot_edges = snapshot_edges
        self._capacity = capacity_bytes
        self._derived = None if journal.folder is None else journal.folder / DERIVED
        self._start()

    def _start(self) -> None:
        from langchain_memlayer.index.lru import SlabCache

        self._pid = os.getpid()
        self._cache: SlabCache[TripleGraph] = SlabCache(
            self._load, refresh=self._refresh, capacity_bytes=self._capacity
        )

    def graph(self, scope: Scope, *, include_quarantined: bool = False) -> TripleGraph:
        """The graph of a scope, complete up to the journal's last commit.

        Raises:
            ScopeRequired: The scope names nobody.
        """
        if self._pid != os.getpid():
            # Locks of the parent are of no use in a child of a fork.
            self._start()
        return self._cache.get(_key(scope.required("The graph"), quarantined=include_quarantined))

    def copy(self, scope: Scope) -> MemoryGraph:
        """A copy of the whole graph of a scope, without what has expired.

        Raises:
            ScopeRequired: The scope names nobody.
        """
        graph = self.graph(scope)
        with self.journal.read() as reader:
            expired = reader.expired_memories(scope, self.journal.now())
        return graph.copy(without=expired)

    def relations(
        self,
        scope: Scope,
        entities: Iterable[str],
        *,
        query: str = "",
        k: int = 2,
        most: int = 20,
        include_quarantined: bool = False,
        at: int | None = None,
    ) -> list[Relation]:
        """The relations around some entities as search results show them, the most relevant first, each once.

        Each is read again from the journal: what a graph says of ended, foreign or invented triples is not shown.

        Args:
            scope: Whose.
            entities: Names, as `TripleGraph.entities_in` finds them or a model gives them.
            query: What is asked; relations that it names come first.
            k: How many steps away they may end.
            most: How many at most.
            include_quarantined: Whether what tools said counts too.
            at: When what is told must not have expired, microseconds since 1970 UTC; None for what expired too.
        """
        graph = self.graph(scope, include_quarantined=include_quarantined)
        edges = graph.relations(entities, query=query, k=k, most=2 * most)
        numbers = sorted({number for edge in edges for number in (edge.id, *edge.named_by)})
        with self.journal.read() as reader:
            rows = reader.triples_among("id", numbers, scope, quarantined=include_quarantined, at=at)
        stored = {row[0]: row for row in rows}
        return as_relations(triple for edge in edges if (triple := _verified(edge, stored)) is not None)[:most]

    def close(self) -> None:
        """Drop every graph; the next use makes them anew from the journal."""
        # The locks of a parent are of no use in a child of a fork.
        if self._pid == os.getpid():
            self._cache.clear()
        else:
            self._start()

    # -- following the journal ------------------------------------------------------------------------------------

    def _load(self, key: str) -> TripleGraph:
        from langchain_memlayer.graph.memory_graph import TripleGraph

        graph = self._snapshotted(key)
        if graph is not None:
            self._refresh(key, graph)
            return graph
        graph, (scope, quarantined) = TripleGraph(), _scope_of(key)
        with self.journal.read(snapshot=True) as reader:
            graph.apply(reader.last_seq(), reader.scope_triples(scope, quarantined=quarantined))
        self._save(key, graph)
        return graph

    def _refresh(self, key: str, graph: TripleGraph) -> bool:
        since = graph.applied_seq
        if since >= self.journal.last_seq():
            return True
        scope, quarantined = _scope_of(key)
        with self.journal.read(snapshot=True) as reader:
            last = reader.last_seq()
            changed = reader.changed_triples(scope, since, quarantined=quarantined)
            if changed is None:
                changed = reader.scope_triples(scope, quarantined=quarantined), graph.items()
        graph.apply(last, changed[0], touched=changed[1])
        self._save(key, graph)
        return True

    # -- snapshots ------------------------------------------------------------------------------------------------

    def _snapshotted(self, key: str) -> TripleGraph | None:
        """The graph of the last snapshot, or None when there is none of this journal and scope."""
        from langchain_memlayer.graph.memory_graph import TripleGraph

        if self._derived is None:
            return None
        try:
            payload, meta = files.read(self._derived, _snapshot_name(key), self._origin())
            with self.journal.read() as reader:
                seq = reader.snapshot_position(meta)
            graph = TripleGraph.load(payload)
        except SnapshotError as reason:
            _LOGGER.debug("No snapshot of a graph is loaded: %s", reason)
            return None
        graph.applied_seq = seq
        return graph

    def _save(self, key: str, graph: TripleGraph) -> None:
        if self._derived is None or len(graph) < self._snapshot_edges or graph.changed <= DRIFT * len(graph):
            return
        seq, (scope, _) = graph.applied_seq, _scope_of(key)
        try:
            with files.maintenance(self._derived) as had:
                if not had:
                    return
                with self.journal.read(snapshot=True) as reader:
                    since = reader.touched(scope.search_root, seq)
                    mark = reader.mark(seq)
                # What was forgotten meanwhile must not come back in a file; `forget` drops files under the same lock.
                if since is not None:
                    meta = {**self._origin(), "seq": seq, "mark": mark}
                    files.write(self._derived, _snapshot_name(key), graph.dump(), meta)
        except JournalError as error:
            # Closed meanwhile by another thread, for example.
            _LOGGER.debug("No snapshot is written: %s", error)
        except OSError as error:
            # Derived files are a convenience: without one the graph is built anew when the store opens.
            _LOGGER.warning("A graph's snapshot could not be written (%s); make room on the disk.", error.strerror)

    def _origin(self) -> dict[str, Any]:
        """What a snapshot must have been made from to be ours."""
        from langchain_memlayer.graph.memory_graph import FORMAT

        return {"store": self.journal.store_id, "graph": FORMAT}


def _key(scope: Scope, *, quarantined: bool) -> str:
    return orjson.dumps([scope.ids(), quarantined]).decode()


def _scope_of(key: str) -> tuple[Scope, bool]:
    ids, quarantined = orjson.loads(key)
    return Scope(**ids), quarantined


def _snapshot_name(key: str) -> str:
    return f"graph:{key}"


def _verified(edge: Edge, stored: dict[int, tuple[Any, ...]]) -> tuple[str, str, str] | None:
    """An edge in the journal's own words, or None when the journal does not have it."""
    row = stored.get(edge.id)
    if row is None or (row[1], row[2], relation_name(row[4])) != (edge.item, edge.memory_id, edge.relation):
        return None
    names = []
    for spelling, key, first in ((row[3], row[7], edge.named_by[0]), (row[5], row[8], edge.named_by[1])):
        named = stored.get(first, row)
        names.append({named[8]: named[5], named[7]: named[3]}.get(key, spelling))
    return names[0], edge.relation, names[1]
