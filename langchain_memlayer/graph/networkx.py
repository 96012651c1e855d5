"""The graph of a scope's triples on NetworkX, kept up with the journal, and the copy of it that users get."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import networkx

from langchain_memlayer.graph import export, snapshot
from langchain_memlayer.graph.edges import Adjacency, Edge, Node, Placed, StoredTriple, edge_of, place_of
from langchain_memlayer.graph.names import Similarity, family_of, mentions, relation_name, says_same
from langchain_memlayer.graph.reading import GraphReader
from langchain_memlayer.types import from_micros

EDGE_BYTES = 1_200
"""About what an edge takes in memory, its share of the nodes and tables included."""

_MOST_DRAWN = 80


class MemoryGraph(networkx.MultiDiGraph):  # type: ignore[misc]  # networkx has no types
    """A copy of a scope's graph, to be used as any NetworkX graph; a notebook draws it.

    Nodes are names of entities as they were first spelled; the attribute `entity` is there when another name means the
    same, and is the one that was first. An edge has `relation`, `memory_id` and, when known, `valid_at` (ISO 8601).
    Changing the copy changes no memory.
    """

    def triples(self) -> list[tuple[str, str, str]]:
        """Its edges as (source, relation, destination)."""
        return [
            (str(u), str(data.get("relation", key)), str(v)) for u, v, key, data in self.edges(keys=True, data=True)
        ]

    def to_graphml(self, path: str | Path) -> None:
        """Write it as a GraphML file, for Gephi, yEd, Cytoscape and others.

        Raises:
            OSError: `path` cannot be written.
        """
        clean = networkx.MultiDiGraph()
        for node, data in self.nodes(data=True):
            clean.add_node(export.xml_text(node), **export.xml_attributes(data))
        for u, v, key, data in self.edges(keys=True, data=True):
            clean.add_edge(export.xml_text(u), export.xml_text(v), export.xml_text(key), **export.xml_attributes(data))
        networkx.write_graphml_xml(clean, str(path))

    def _repr_svg_(self) -> str:
        total = self.number_of_nodes()
        busiest = sorted(self.nodes, key=self.degree, reverse=True)[:_MOST_DRAWN]
        shown = self.subgraph(busiest)
        lines = {(str(u), str(v)): [] for u, v in shown.edges()}  # type: dict[tuple[str, str], list[str]]
        for u, v, key, data in shown.edges(keys=True, data=True):
            lines[str(u), str(v)].append(str(data.get("relation", key)))
        simple = networkx.Graph(lines.keys())
        simple.add_nodes_from(map(str, busiest))
        places = networkx.spring_layout(simple, seed=0, iterations=100, k=1.8 / max(1, len(busiest)) ** 0.5)
        return export.draw(
            {node: (float(x), float(y)) for node, (x, y) in places.items()},
            lines,
            caption=f"{len(busiest)} of {total} entities" if total > len(busiest) else "",
        )


class TripleGraph(GraphReader):
    """The triples of the live memories of one scope.

    Nodes are keys of names (`names.read_name`), edges are keyed by relation and memory, so that several relations of a
    pair stay apart and a memory takes its edges along when it ends. Names that are one entity (`names.merge`) are met
    together by every read, under the one that was first; an edge still shows the names that it was told with. Safe to
    use from several threads.

    Args:
        similarity: How alike two names are in meaning, from 0 to 1, to propose which are one entity.

    Attributes:
        applied_seq: The journal's position that it is complete up to.
        changed: Edges that came or went since it was made, loaded or dumped.
    """

    def __init__(self, *, similarity: Similarity | None = None) -> None:
        super().__init__(similarity)
        self._graph = networkx.MultiDiGraph()
        self._rows: dict[int, tuple[StoredTriple, ...]] = {}
        self._families: dict[str, set[str]] = {}
        self._size = 0
        self.applied_seq = 0
        self.changed = 0

    def __len__(self) -> int:
        """How many edges there are."""
        return self._size

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        return self._size * EDGE_BYTES

    def close(self) -> None:
        """Nothing to let go of: caches close what they drop."""

    # -- what it is read through ----------------------------------------------------------------------------------

    @property
    def _nodes(self) -> dict[str, Node]:
        return self._graph._node  # type: ignore[no-any-return]

    # Views such as `graph.succ` cost ten times what the dictionaries behind them do.
    @property
    def _after(self) -> Adjacency:
        return self._graph._succ  # type: ignore[no-any-return]

    @property
    def _before(self) -> Adjacency:
        return self._graph._pred  # type: ignore[no-any-return]

    def _reading(self) -> threading.RLock:
        return self._lock

    def _mentioned(self, text: str) -> list[str]:
        return mentions(text, self._nodes.__contains__)

    def _met(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key in self._nodes]

    def _node(self, key: str) -> Node:
        return self._nodes[key]

    def _neighbours(self, leader: str) -> Iterator[str]:
        groups = self._groups
        for key in groups.get(leader, (leader,)):
            for other in chain(reversed(self._after[key]), reversed(self._before[key])):
                group = groups.get(other)
                yield other if group is None else group[0]

    def _degree(self, leader: str) -> int:
        keys = self._groups.get(leader, (leader,))
        return sum(len(self._after[key]) + len(self._before[key]) for key in keys)

    def _edges_of(self, leader: str) -> Iterator[Placed]:
        for key in self._groups.get(leader, (leader,)):
            for other, edges in reversed(self._after[key].items()):
                yield from ((leader, data["row"], key, other) for data in edges.values())
            for other, edges in reversed(self._before[key].items()):
                yield from ((leader, data["row"], other, key) for data in edges.values())

    def _edges_around(self, leaders: Iterable[str], most: int) -> Iterator[Placed]:
        return islice(chain.from_iterable(map(self._edges_of, leaders)), most)

    def _edges(self, placed: Sequence[Placed]) -> list[Edge]:
        return [edge_of(row, self._nodes[u], self._nodes[v]) for _, row, u, v in placed]

    def _stating(self, source: str, ends: Collection[str], relation: str, most: int) -> tuple[list[int], list[int]]:
        between: list[StoredTriple] = []
        alike: list[StoredTriple] = []
        for _, row, u, v in self._edges_of(source):
            if self._leader(u) == source and self._leader(v) in ends:
                between.append(row)
            elif self._leader(u) == source and relation_name(row[4]) == relation:
                alike.append(row)
        return [row[1] for row in sorted(between, reverse=True)], [row[1] for row in sorted(alike, reverse=True)]

    # -- following the journal ------------------------------------------------------------------------------------

    def apply(self, seq: int, rows: Iterable[StoredTriple], *, touched: Iterable[int] = ()) -> None:
        """Take in what the journal has up to position `seq`.

        Args:
            seq: The position that `rows` are complete up to.
            rows: The triples of live memories that are new or touched, by id.
            touched: Rows of memories that changed or ended: of these only what is in `rows` remains.
        """
        with self._lock:
            arriving: dict[int, list[StoredTriple]] = {}
            for row in rows:
                arriving.setdefault(row[1], []).append(row)
            doubtful: set[str] = set()
            for item in touched:
                if item in self._rows and self._rows[item] != tuple(arriving.get(item, ())):
                    self._remove(item, doubtful)
            for item, triples in arriving.items():
                if item not in self._rows:
                    self._add(item, triples, doubtful)
            self._regroup(doubtful)
            self.applied_seq = seq

    def items(self) -> list[int]:
        """The rows of the memories that have edges here."""
        with self._lock:
            return list(self._rows)

    def _add(self, item: int, rows: list[StoredTriple], doubtful: set[str]) -> None:
        graph = self._graph
        self._rows[item] = tuple(rows)
        for row in rows:
            place = place_of(row)
            # One memory that says the same twice says it once; a name without a letter is none.
            if place is None or graph.has_edge(*place):
                continue
            source, destination, _ = place
            graph.add_edge(*place, row=row)
            self._size += 1
            self.changed += 1
            self._spell(source, row[0], row[3], doubtful)
            self._spell(destination, row[0], row[5], doubtful)
            if family_of(source) == family_of(destination):
                doubtful.add(family_of(source))

    def _spell(self, key: str, triple: int, spelling: str, doubtful: set[str]) -> None:
        """Let a node be displayed as the first of its triples spells it."""
        node = self._nodes[key]
        if not node:
            self._families.setdefault(family_of(key), set()).add(key)
        if not node or triple < node["first"]:
            node["first"], node["name"] = triple, spelling
            doubtful.add(family_of(key))

    def _remove(self, item: int, doubtful: set[str]) -> None:
        graph = self._graph
        for row in self._rows.pop(item):
            place = place_of(row)
            if place is None or not graph.has_edge(*place):
                continue
            graph.remove_edge(*place)
            self._size -= 1
            self.changed += 1
            doubtful.update(map(family_of, place[:2]))
            for key in {*place[:2]}:
                self._respell(key, row[0])

    def _respell(self, key: str, gone: int) -> None:
        """After a triple went: drop a node without edges, and forget a spelling that only that triple had."""
        node = self._nodes[key]
        if not self._after[key] and not self._before[key]:
            self._graph.remove_node(key)
            self._groups.pop(key, None)
            family = self._families[family_of(key)]
            family.discard(key)
            if not family:
                del self._families[family_of(key)]
        elif node["first"] == gone:
            spelled = [(row[0], 0, row[3]) for row in _rows_of(self._after[key])]
            spelled += [(row[0], 1, row[5]) for row in _rows_of(self._before[key])]
            node["first"], _, node["name"] = min(spelled)

    def _regroup(self, families: Iterable[str]) -> None:
        """Work out anew which names of some families are one entity."""
        for family in families:
            keys = self._families.get(family, set())
            for key in keys:
                self._groups.pop(key, None)
            if len(keys) > 1:
                self._merge(keys, self._are_apart)

    def _are_apart(self, one: str, other: str) -> bool:
        """Whether a triple relates two names otherwise than as names of one entity."""
        found = [*self._after[one].get(other, ()), *self._after[other].get(one, ())]
        return not all(says_same(relation) for relation, _ in found)

    # -- copies and snapshots -------------------------------------------------------------------------------------

    def triples(self) -> list[Edge]:
        """All triples, in the journal's order."""
        with self._lock:
            return sorted(
                edge_of(data["row"], self._nodes[u], self._nodes[v]) for u, v, data in self._graph.edges(data=True)
            )

    def copy(self) -> MemoryGraph:
        """A graph of its own with everything that is in this one."""
        copied = MemoryGraph()
        with self._lock:
            for key, node in self._nodes.items():
                leader = self._leader(key)
                alias = {} if leader == key else {"entity": self._nodes[leader]["name"]}
                copied.add_node(node["name"], **alias)
            for edge in self.triples():
                dated = {} if edge.valid_at is None else {"valid_at": from_micros(edge.valid_at).isoformat()}
                copied.add_edge(
                    edge.source, edge.destination, f"{edge.relation}:{edge.memory_id}",
                    relation=edge.relation, memory_id=edge.memory_id, **dated,
                )  # fmt: skip
        return copied

    def dump(self) -> bytes:
        """The graph as a pickle of plain containers."""
        with self._lock:
            self.changed = 0
            return snapshot.dump(self._nodes, self._after, self._before, self._rows)

    @classmethod
    def load(cls, payload: bytes, *, similarity: Similarity | None = None) -> TripleGraph:
        """The graph of a `dump`; which names are one entity is worked out anew.

        Raises:
            SnapshotError: The payload is none of ours. No code in it is run.
        """
        loaded = cls(similarity=similarity)
        nodes, after, before, rows, loaded._size = snapshot.load(payload)
        loaded._graph._node, loaded._graph._adj, loaded._graph._pred = nodes, after, before
        loaded._rows = rows
        for key in nodes:
            loaded._families.setdefault(family_of(key), set()).add(key)
        loaded._regroup(family for family, keys in loaded._families.items() if len(keys) > 1)
        return loaded


def _rows_of(adjacent: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> Iterator[StoredTriple]:
    return (data["row"] for edges in adjacent.values() for data in edges.values())
