"""A journal that is told triples, for the tests of its graphs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_memlayer.engine.graph_sync import Graphs
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.types import Row, Scope, Triple

ALICE = Scope(user_id="alice")


class Told:
    """Facts with triples, written as the engine writes them; `graphs` follows."""

    def __init__(self, path: Path | str = ":memory:", **settings: Any) -> None:
        self.journal = SQLiteJournal(path, durability="fast")
        self.settings = settings
        self.graphs = Graphs(self.journal, **settings)

    def tell(self, *triples: tuple[str, str, str], scope: Scope = ALICE, **columns: Any) -> Row:
        key = self.journal.new_id()
        row = Row(0, 0, scope.partition, key, "fact", str(triples), 1, 1, **scope.ids(), **columns)
        with self.journal.write() as tx:
            item = tx.add_memory(row, terms=b"", vector_bytes=None, triples=[Triple(*t) for t in triples])
        return replace(row, id=item, seq=item)

    def end(self, row: Row) -> None:
        with self.journal.write() as tx:
            tx.close_memory(row, invalid_at=2)
            tx.event(tx.namespace(row.path), row.key, row.kind, "delete", item=row.id)

    def change(self, row: Row, **columns: Any) -> None:
        with self.journal.write() as tx:
            tx.change_memory(row, "none", **columns)

    def forget(self, row: Row) -> None:
        with self.journal.write() as tx:
            tx.erase_memories([row])
        self.journal.scrub()

    def graph(self, scope: Scope = ALICE, **how: Any) -> Any:
        return self.graphs.graph(scope, **how)

    def rebuilt(self, scope: Scope = ALICE) -> Any:
        """The graph as it is made without snapshots and earlier states."""
        graphs = Graphs(self.journal, snapshot_edges=10**9)
        graphs._derived = None
        return graphs.graph(scope)

    def reopened(self) -> Graphs:
        return Graphs(self.journal, **self.settings)


def state(graph: Any) -> Any:
    """All that a graph says."""
    copy = graph.copy()
    names = sorted(copy.nodes)
    return (
        graph.triples(),
        sorted(copy.nodes(data="entity"), key=str),
        {name: graph.relations([name], k=2, most=10**6) for name in names},
        {name: {item: round(weight, 9) for item, weight in graph.memories_near([name]).items()} for name in names},
        len(graph),
    )


def near(graph: Any, *names: str, k: int = 1) -> set[str]:
    """The names within `k` steps of some."""
    return {end for edge in graph.relations(names, k=k) for end in (edge.source, edge.destination)}


def shown(graph: Any) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.relation, edge.destination) for edge in graph.triples()}
