"""The graph of a scope's triples on NetworkX, kept up with the journal, and the copy of it that users get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import networkx

from langchain_memlayer.graph import export, snapshot
from langchain_memlayer.graph.edges import StoredTriple, place_of
from langchain_memlayer.graph.names import family_of, merge, read_name
from langchain_memlayer.graph.reading import GraphReader
from langchain_memlayer.types import from_micros

EDGE_BYTES = 1_200
"""About what an edge takes in memory, its share of the nodes and tables included."""

_MOST_DRAWN = 80

# Relations between two names that say that they are one.
_ALIASES = frozenset(
    """
    is same_as is_same_as is_the_same_as also_known_as is_also_known_as aka alias is_alias_of called is_called named
    is_named nickname nicknamed is_nicknamed has_nickname goes_by short_for is_short_for full_name has_full_name
    又名 别名 叫
    """.split()  # noqa: SIM905 - a table of words
)

Similarity = Callable[[str, str], float]


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
        super().__init__(networkx.MultiDiGraph())
        self._similarity = similarity
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
            if len(keys) < 2:
                continue
            names = [read_name(self._nodes[key]["name"]) for key in keys]
            for group in merge(names, similarity=self._similarity, apart=self._are_apart):
                known = tuple(sorted(group, key=lambda key: int(self._nodes[key]["first"])))
                self._groups.update(dict.fromkeys(known, known))

    def _are_apart(self, one: str, other: str) -> bool:
        """Whether a triple relates two names otherwise than as names of one entity."""
        found = [*self._after[one].get(other, ()), *self._after[other].get(one, ())]
        return any(relation not in _ALIASES for relation, _ in found)

    # -- copies and snapshots -------------------------------------------------------------------------------------

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
