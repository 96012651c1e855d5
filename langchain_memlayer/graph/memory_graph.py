"""The graph of a scope's triples on NetworkX: kept up with the journal, read by adjacency, snapshotted and copied."""

from __future__ import annotations

import gc
import io
import pickle
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import networkx

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.graph import export
from langchain_memlayer.graph.names import (
    ALIASES,
    SPEAKERS,
    family_of,
    mentions,
    merge,
    read_name,
    relation_name,
    speaks_of_self,
)
from langchain_memlayer.graph.ranking import k_hop, local_push
from langchain_memlayer.index.files import private_file
from langchain_memlayer.index.keywords import query_terms, tokenize
from langchain_memlayer.types import Triple, from_micros

FORMAT = 2
"""Of snapshots; to be raised whenever names are read or kept otherwise."""

MOST_NODES = 200
MOST_EDGES = 2_000
EPS = 1e-3
"""How much of a walk may stay unsettled for each edge: what has more than 1 / EPS edges is walked through by nobody."""

EDGE_BYTES = 1_200
"""About what an edge takes in memory, its share of the nodes and tables included."""

_MOST_DRAWN = 80


class StoredTriple(NamedTuple):
    """A triple as the journal has it.

    Attributes:
        id: Its number, in the order of commits.
        item: The row of the memory that supports it.
        source, relation, destination: As they were spelled.
        valid_at: When the memory began to hold (microseconds since 1970 UTC), when known.
        source_key: What all spellings of the source share; worked out where it is empty.
        destination_key: The same of the destination.
    """

    id: int
    item: int
    memory_id: str
    source: str
    relation: str
    destination: str
    valid_at: int | None
    source_key: str = ""
    destination_key: str = ""


class Edge(NamedTuple):
    """A `StoredTriple` as it is shown: names as they were first spelled, the relation in snake case.

    Attributes:
        named_by: The triples in which source and destination were first spelled.
    """

    id: int
    item: int
    memory_id: str
    source: str
    relation: str
    destination: str
    valid_at: int | None
    named_by: tuple[int, int]


class _Node(TypedDict, total=False):
    """A name in a graph: how it is displayed, and the triple that first spelled it so."""

    name: str
    first: int


_Adjacency = dict[str, dict[str, dict[tuple[str, int], dict[str, StoredTriple]]]]
"""By node and neighbour the edges between them, by relation and memory; `row` of each is its triple."""


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
        """Write it as a GraphML file that only its owner can read, for Gephi, yEd, Cytoscape and others.

        Raises:
            OSError: `path` cannot be written.
        """
        clean = networkx.MultiDiGraph()
        for node, data in self.nodes(data=True):
            clean.add_node(export.xml_text(node), **export.xml_attributes(data))
        for u, v, key, data in self.edges(keys=True, data=True):
            clean.add_edge(export.xml_text(u), export.xml_text(v), export.xml_text(key), **export.xml_attributes(data))
        with private_file(Path(path)) as out:
            networkx.write_graphml_xml(clean, out)

    def places(self, nodes: Collection[Any]) -> dict[str, tuple[float, float]]:
        """Where to draw some of its nodes, the same each time: related ones near each other, from -1 to 1 both ways."""
        simple = networkx.Graph((str(u), str(v)) for u, v in self.subgraph(nodes).edges())
        simple.add_nodes_from(map(str, nodes))
        spring = networkx.spring_layout(simple, seed=0, iterations=100, k=1.8 / max(1, len(nodes)) ** 0.5)
        return {node: (float(x), float(y)) for node, (x, y) in spring.items()}

    def _repr_svg_(self) -> str:
        total = self.number_of_nodes()
        busiest = sorted(self.nodes, key=self.degree, reverse=True)[:_MOST_DRAWN]
        shown = self.subgraph(busiest)
        lines: dict[tuple[str, str], list[str]] = {}
        for u, v, key, data in shown.edges(keys=True, data=True):
            lines.setdefault((str(u), str(v)), []).append(str(data.get("relation", key)))
        caption = f"{len(busiest)} of {total} entities" if total > len(busiest) else ""
        return export.draw(self.places(busiest), lines, caption=caption)


class TripleGraph:
    """The triples of the live memories of one scope.

    Nodes are keys of names (`names.read_name`), edges are keyed by relation and memory, so that several relations of a
    pair stay apart and a memory takes its edges along when it ends. Names that are one entity (`names.merge`) are met
    together by every read, under the one that was first; an edge still shows the names that it was told with. Safe to
    use from several threads.

    Attributes:
        applied_seq: The journal's position that it is complete up to.
        changed: Edges that came or went since it was made, loaded or dumped.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._graph = networkx.MultiDiGraph()
        self._rows: dict[int, tuple[StoredTriple, ...]] = {}
        self._families: dict[str, set[str]] = {}
        # Of each name that is one entity with others all of them, the first known first.
        self._groups: dict[str, tuple[str, ...]] = {}
        self._size = 0
        self.applied_seq = 0
        self.changed = 0

    def __len__(self) -> int:
        """How many edges there are."""
        return self._size

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        return (self._size + 1) * EDGE_BYTES

    def close(self) -> None:
        """Nothing to let go of: caches close what they drop."""

    # -- reads ----------------------------------------------------------------------------------------------------

    def entities_in(self, text: str) -> list[str]:
        """The entities that a text mentions, by their displayed names; "I" and "my" mean the nameless user."""
        with self._lock:
            named = mentions(text, self._nodes.__contains__)
            if speaks_of_self(text):
                named += [key for key in SPEAKERS if key in self._nodes]
            return self._displayed(map(self._leader, named))

    def entities_named(self, names: Iterable[str]) -> list[str]:
        """The entities that some names are of, by their displayed names; names of none are left out."""
        with self._lock:
            return self._displayed(self._known_leaders(names))

    def memories_near(self, entities: Iterable[str], *, most: int = 100) -> dict[int, float]:
        """The memories that relate the entities around some, as row ids with weights in 0..1, best first.

        A memory weighs as much as a walk from `entities` with restarts (`local_push`) stands at an end of its best
        edge, to leave by that edge. So what is known of a rarely named entity weighs more than what is known of a hub.
        """
        weights: dict[int, float] = {}
        with self._lock:
            walk = local_push(self._neighbours, self._degree, self._known_leaders(entities), eps=EPS)
            nearest = sorted(walk.items(), key=lambda pair: (-pair[1], pair[0]))
            flow = {key: weight / max(1, self._degree(key)) for key, weight in nearest}
            for _, row in self._edges_around(flow):
                ends = map(self._leader, (row.source_key, row.destination_key))
                weights[row.item] = max(weights.get(row.item, 0.0), sum(flow.get(end, 0.0) for end in ends))
        best = sorted(weights, key=lambda item: (-weights[item], -item))[:most]
        return {item: min(1.0, weights[item]) for item in best}

    def relations(self, entities: Iterable[str], *, query: str = "", k: int = 2, most: int = 20) -> list[Edge]:
        """The triples around some entities, the most relevant first.

        First those between two of the entities, then those of one whose relation has a word of the query, then by
        distance, then the latest.

        Args:
            entities: Names; unknown ones are left out.
            query: What is asked.
            k: How many steps away triples may end.
            most: How many to return at most.
        """
        wanted = frozenset(query_terms(query))
        with self._lock:
            known = self._known_leaders(entities)
            seeds = frozenset(known)
            near = k_hop(self._neighbours, known, k=max(0, k - 1), most=MOST_NODES)
            rows: dict[int, tuple[tuple[int, int, int, int], StoredTriple]] = {}
            for leader, row in self._edges_around(near):
                ends = (self._leader(row.source_key) in seeds) + (self._leader(row.destination_key) in seeds)
                said = len(wanted & _terms_of(relation_name(row.relation)))
                rows.setdefault(row.id, ((-ends, -said, near[leader], -row.id), row))
            return [self._edge(row) for _, row in sorted(rows.values())[:most]]

    def stating(self, triple: Triple, *, most: int) -> list[int]:
        """The memories (as rows) that relate the two entities of a triple, then those that relate its source alike.

        All edges of the source are looked at: what contradicts a new fact may be its oldest. Each half has the latest
        first; `most` altogether.
        """
        between: list[StoredTriple] = []
        alike: list[StoredTriple] = []
        with self._lock:
            ends, relation = self._known_leaders([triple.destination]), relation_name(triple.relation)
            for source in self._known_leaders([triple.source]):
                for _, row in self._edges_of(source):
                    if self._leader(row.source_key) != source:
                        continue
                    if self._leader(row.destination_key) in ends:
                        between.append(row)
                    elif relation_name(row.relation) == relation:
                        alike.append(row)
        rows = (*sorted(between, reverse=True), *sorted(alike, reverse=True))
        return list(dict.fromkeys(row.item for row in rows))[:most]

    def triples(self) -> list[Edge]:
        """All triples, in the journal's order."""
        with self._lock:
            return sorted(map(self._edge, chain.from_iterable(map(_rows_of, self._successors.values()))))

    def copy(self, *, without: Collection[int] = ()) -> MemoryGraph:
        """A graph of its own with everything that is in this one, but for the triples of some memories (as rows)."""
        copied = MemoryGraph()
        with self._lock:
            edges = [edge for edge in self.triples() if edge.item not in without]
            # In the journal's order, whatever came and went before.
            named = dict.fromkeys(name for edge in edges for name in (edge.source, edge.destination))
            keys = {node["name"]: key for key, node in self._nodes.items()}
            for name in named:
                first = self._nodes[self._leader(keys[name])]["name"]
                copied.add_node(name, **({"entity": first} if first != name and first in named else {}))
            for edge in edges:
                dated = {} if edge.valid_at is None else {"valid_at": from_micros(edge.valid_at).isoformat()}
                copied.add_edge(
                    edge.source, edge.destination, f"{edge.relation}:{edge.memory_id}",
                    relation=edge.relation, memory_id=edge.memory_id, **dated,
                )  # fmt: skip
        return copied

    # -- following the journal ------------------------------------------------------------------------------------

    def apply(self, seq: int, rows: Iterable[tuple[Any, ...]], *, touched: Iterable[int] = ()) -> None:
        """Take in what the journal has up to position `seq`.

        Args:
            seq: The position that `rows` are complete up to.
            rows: The triples (see `StoredTriple`) of live memories that are new or touched, by id.
            touched: Rows of memories that changed or ended: of these only what is in `rows` remains.
        """
        with self._lock:
            arriving: dict[int, list[StoredTriple]] = {}
            for row in rows:
                arriving.setdefault(row[1], []).append(_keyed(row))
            doubtful: set[str] = set()
            for item in touched:
                if item in self._rows and self._rows[item] != tuple(arriving.get(item, ())):
                    self._remove(item, doubtful)
            for item, triples in arriving.items():
                if item not in self._rows:
                    self._add(item, triples, map(relation_name, (row.relation for row in triples)), doubtful)
            self._regroup(doubtful)
            self.applied_seq = seq

    def items(self) -> list[int]:
        """The rows of the memories that have edges here."""
        with self._lock:
            return list(self._rows)

    def _add(self, item: int, rows: Sequence[StoredTriple], relations: Iterable[str], doubtful: set[str]) -> None:
        nodes, successors, predecessors = self._nodes, self._successors, self._predecessors
        self._rows[item] = tuple(rows)
        for row, relation in zip(rows, relations, strict=True):
            number, _, _, source, _, destination, _, source_key, destination_key = row
            if not source_key or not destination_key:
                # A name without a letter is none.
                continue
            edges = successors[source_key].get(destination_key) if source_key in nodes else None
            if edges is not None and (relation, item) in edges:
                # One memory that says the same twice says it once.
                continue
            for key, spelling in ((source_key, source), (destination_key, destination)):
                node = nodes.get(key)
                if node is None or number < node["first"]:
                    self._spell(key, number, spelling, doubtful)
            if edges is None:
                edges = successors[source_key][destination_key] = predecessors[destination_key][source_key] = {}
            edges[relation, item] = {"row": row}
            self._size += 1
            self.changed += 1
            if source_key[0] == destination_key[0] and family_of(source_key) == family_of(destination_key):
                doubtful.add(family_of(source_key))

    def _spell(self, key: str, triple: int, spelling: str, doubtful: set[str]) -> None:
        """Let a node be displayed as one of its triples spells it."""
        family = family_of(key)
        if key not in self._nodes:
            self._successors[key], self._predecessors[key] = {}, {}
            self._families.setdefault(family, set()).add(key)
        self._nodes[key] = {"name": spelling, "first": triple}
        doubtful.add(family)

    def _remove(self, item: int, doubtful: set[str]) -> None:
        for row in self._rows.pop(item):
            source_key, destination_key = row.source_key, row.destination_key
            edges = self._successors.get(source_key, {}).get(destination_key, {})
            if edges.pop((relation_name(row.relation), item), None) is None:
                continue
            if not edges:
                del self._successors[source_key][destination_key], self._predecessors[destination_key][source_key]
            self._size -= 1
            self.changed += 1
            doubtful.update((family_of(source_key), family_of(destination_key)))
            for key in {source_key, destination_key}:
                self._respell(key, row.id)

    def _respell(self, key: str, gone: int) -> None:
        """After a triple went: drop a node without edges, and forget a spelling that only that triple had."""
        node = self._nodes[key]
        if not self._successors[key] and not self._predecessors[key]:
            del self._nodes[key], self._successors[key], self._predecessors[key]
            self._groups.pop(key, None)
            family = self._families[family_of(key)]
            family.discard(key)
            if not family:
                del self._families[family_of(key)]
        elif node["first"] == gone:
            spelled = [(row.id, 0, row.source) for row in _rows_of(self._successors[key])]
            spelled += [(row.id, 1, row.destination) for row in _rows_of(self._predecessors[key])]
            node["first"], _, node["name"] = min(spelled)

    def _regroup(self, families: Iterable[str]) -> None:
        """Work out anew which names of some families are one entity."""
        for family in families:
            keys = self._families.get(family, set())
            for key in keys:
                self._groups.pop(key, None)
            if len(keys) > 1:
                names = [read_name(self._nodes[key]["name"]) for key in keys]
                for group in merge(names, apart=self._are_apart):
                    self._group(group)

    def _group(self, keys: Iterable[str]) -> None:
        known = tuple(sorted(keys, key=lambda key: self._nodes[key]["first"]))
        self._groups.update(dict.fromkeys(known, known))

    def _are_apart(self, one: str, other: str) -> bool:
        """Whether a triple relates two names otherwise than as names of one entity."""
        between = [*self._successors[one].get(other, ()), *self._successors[other].get(one, ())]
        return not all(relation in ALIASES for relation, _ in between)

    # -- snapshots ------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """The graph as a pickle of plain containers: the columns of its triples, their relations' names, its groups."""
        with self._lock:
            self.changed = 0
            rows = [row for triples in self._rows.values() for row in triples]
            once: dict[Any, Any] = {}
            columns = [[once.setdefault(value, value) for value in column] for column in zip(*rows, strict=True)]
            relations = [once.setdefault(name, name) for name in map(relation_name, (row.relation for row in rows))]
            groups = [list(group) for key, group in self._groups.items() if key == group[0]]
            return pickle.dumps((columns, relations, groups), protocol=5)

    @classmethod
    def load(cls, payload: bytes) -> TripleGraph:
        """The graph of a `dump`. Nothing of a name is worked out anew.

        Raises:
            SnapshotError: The payload is none of ours. No code in it is run.
        """
        # Counting references of hundreds of thousands of new containers again and again takes most of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            loaded = cls()
            loaded._restore(*_PlainUnpickler(io.BytesIO(payload)).load())
        except _UNREADABLE as problem:
            raise SnapshotError(
                f"The graph's snapshot is none of ours ({type(problem).__name__}); it is rebuilt."
            ) from problem
        else:
            return loaded
        finally:
            if collecting:
                gc.enable()

    def _restore(self, columns: Any, relations: Any, groups: Any) -> None:
        """Take in the parts of a snapshot, or raise one of `_UNREADABLE` when they do not fit together."""
        types = [set(map(type, column)) for column in (*columns, relations)]
        if columns and not all(types_found <= known for types_found, known in zip(types, _TYPES, strict=True)):
            raise TypeError("no columns of triples")
        arriving: dict[int, tuple[list[StoredTriple], list[str]]] = {}
        for row, relation in zip(map(StoredTriple._make, zip(*columns, strict=True)), relations, strict=True):
            triples, names = arriving.setdefault(row.item, ([], []))
            triples.append(row)
            names.append(relation)
        for item, (triples, names) in arriving.items():
            self._add(item, triples, names, set())
        for group in groups:
            new = set(group) - self._groups.keys()
            if len(new) < 2 or len(new) != len(group) or len(set(map(family_of, group))) > 1:
                raise ValueError("no names of one entity")
            self._group(group)
        self.changed = 0

    # -- nodes and edges ------------------------------------------------------------------------------------------

    # Views such as `graph.succ` cost ten times what the dictionaries behind them do.
    @property
    def _nodes(self) -> dict[str, _Node]:
        return self._graph._node  # type: ignore[no-any-return]

    @property
    def _successors(self) -> _Adjacency:
        return self._graph._succ  # type: ignore[no-any-return]

    @property
    def _predecessors(self) -> _Adjacency:
        return self._graph._pred  # type: ignore[no-any-return]

    def _leader(self, key: str) -> str:
        """The first known of the names that are one entity with this one."""
        group = self._groups.get(key)
        return key if group is None else group[0]

    def _displayed(self, leaders: Iterable[str]) -> list[str]:
        return [self._nodes[key]["name"] for key in dict.fromkeys(leaders)]

    def _known_leaders(self, entities: Iterable[str]) -> list[str]:
        keys = (read_name(name).key for name in entities)
        return list(dict.fromkeys(self._leader(key) for key in keys if key in self._nodes))

    def _neighbours(self, leader: str) -> Iterator[str]:
        """The entities next to one, those that came last first: once for each of its names and each of theirs."""
        groups = self._groups
        for key in groups.get(leader, (leader,)):
            for other in chain(reversed(self._successors[key]), reversed(self._predecessors[key])):
                group = groups.get(other)
                yield other if group is None else group[0]

    def _degree(self, leader: str) -> int:
        """How many those are."""
        keys = self._groups.get(leader, (leader,))
        return sum(len(self._successors[key]) + len(self._predecessors[key]) for key in keys)

    def _edges_of(self, leader: str) -> Iterator[tuple[str, StoredTriple]]:
        for key in self._groups.get(leader, (leader,)):
            for adjacent in (self._successors[key], self._predecessors[key]):
                for edges in reversed(adjacent.values()):
                    yield from ((leader, data["row"]) for data in edges.values())

    def _edges_around(self, leaders: Iterable[str]) -> Iterator[tuple[str, StoredTriple]]:
        """The triples of some entities with whose they are, those of late neighbours first; `MOST_EDGES` altogether."""
        return islice(chain.from_iterable(map(self._edges_of, leaders)), MOST_EDGES)

    def _edge(self, row: StoredTriple) -> Edge:
        """A triple as it is shown."""
        source, destination = self._nodes[row.source_key], self._nodes[row.destination_key]
        return Edge(
            row.id, row.item, row.memory_id, source["name"], relation_name(row.relation), destination["name"],
            row.valid_at, (source["first"], destination["first"]),
        )  # fmt: skip


def _keyed(row: tuple[Any, ...]) -> StoredTriple:
    """A row of the journal with the keys of its names."""
    triple = StoredTriple._make(row) if len(row) == len(StoredTriple._fields) else StoredTriple(*row)
    if triple.source_key and triple.destination_key:
        return triple
    one, other = read_name(triple.source).key, read_name(triple.destination).key
    return triple._replace(source_key=one, destination_key=other)


def _rows_of(adjacent: Mapping[str, Mapping[Any, Mapping[str, StoredTriple]]]) -> Iterator[StoredTriple]:
    return (data["row"] for edges in adjacent.values() for data in edges.values())


@lru_cache(maxsize=1 << 12)
def _terms_of(relation: str) -> frozenset[str]:
    """The keyword terms of a relation."""
    return frozenset(tokenize(relation.replace("_", " ")))


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, strings and numbers only: without globals nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a snapshot names {module}.{name}")


# What the unpickler raises for damaged bytes, and unpacking and comparing for other shapes.
_UNREADABLE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError, ArithmeticError,
    MemoryError,
)  # fmt: skip
_TYPES: tuple[set[type], ...] = (
    {int}, {int}, {str}, {str}, {str}, {str}, {int, type(None)}, {str}, {str}, {str},
)  # fmt: skip
