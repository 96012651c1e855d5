"""What is read out of a graph by adjacency: its entities, what is near some of them, the triples around them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from langchain_memlayer.graph.edges import Adjacency, Edge, StoredTriple
from langchain_memlayer.graph.names import SPEAKERS, mentions, read_name, relation_name, speaks_of_self
from langchain_memlayer.graph.ranking import k_hop, local_push
from langchain_memlayer.keywords import query_terms, tokenize
from langchain_memlayer.types import Triple

MOST_NODES = 200
MOST_EDGES = 2_000


class GraphReader:
    """The reads of a graph. Each holds the lock, as whatever changes the graph must.

    Args:
        graph: A NetworkX `MultiDiGraph`. Each node has `name`, which it is displayed by, and `first`, the triple that
            spelled it so; its edges by node are an `Adjacency`.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._lock = threading.RLock()
        # Of each name that is one entity with others all of them, the first known first.
        self._groups: dict[str, tuple[str, ...]] = {}

    def entities_in(self, text: str) -> list[str]:
        """The entities that a text mentions, by their displayed names; "I" and "my" mean the nameless user."""
        with self._lock:
            found = mentions(text, self._nodes.__contains__)
            if speaks_of_self(text):
                found += [key for key in SPEAKERS if key in self._nodes]
            return [self._nodes[key]["name"] for key in dict.fromkeys(map(self._leader, found))]

    def entities_named(self, names: Iterable[str]) -> list[str]:
        """The entities that some names are of, by their displayed names; names of none are left out."""
        with self._lock:
            return [self._nodes[key]["name"] for key in self._known(names)]

    def k_hop(self, entities: Iterable[str], *, k: int = 2, most: int = MOST_NODES) -> dict[str, int]:
        """The entities within `k` steps of some and how many steps each is away, nearest first, `most` at most."""
        with self._lock:
            near = k_hop(self._neighbours, self._known(entities), k=k, most=most)
            return {self._nodes[key]["name"]: steps for key, steps in near.items()}

    def local_push(self, entities: Iterable[str], *, eps: float = 1e-3) -> dict[str, float]:
        """Personalised PageRank of the entities around some, the nearest first; see `ranking.local_push`."""
        with self._lock:
            ranked = self._ranked(entities, eps)
            return {self._nodes[key]["name"]: weight for key, weight in ranked}

    def memories_near(self, entities: Iterable[str], *, most: int = 100, eps: float = 1e-3) -> dict[int, float]:
        """The memories that relate the entities around some, as row ids with weights in 0..1, best first.

        A memory weighs as much as a walk from `entities` with restarts (`local_push`) stands at an end of its best
        edge, to leave by that edge. So what is known of a rarely named entity weighs more than what is known of a hub.
        """
        weights: dict[int, float] = {}
        with self._lock:
            ranked = self._ranked(entities, eps)
            flow = {key: weight / max(1, self._degree(key)) for key, weight in ranked}
            left = MOST_EDGES
            for key, _ in ranked:
                for row, u, v in islice(self._edges_of(key), left):
                    left -= 1
                    weight = flow.get(self._leader(u), 0.0) + flow.get(self._leader(v), 0.0)
                    weights[row[1]] = max(weights.get(row[1], 0.0), weight)
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
        asked = frozenset(query_terms(query))
        with self._lock:
            known = self._known(entities)
            seeds = frozenset(known)
            near = k_hop(self._neighbours, known, k=max(0, k - 1), most=MOST_NODES)
            found: dict[int, tuple[tuple[int, int, int, int], StoredTriple, str, str]] = {}
            left = MOST_EDGES
            for key, steps in near.items():
                for row, u, v in islice(self._edges_of(key), left):
                    left -= 1
                    ends = (self._leader(u) in seeds) + (self._leader(v) in seeds)
                    said = len(asked & _terms_of(relation_name(row[4])))
                    found.setdefault(row[0], ((-ends, -said, steps, -row[0]), row, u, v))
            best = sorted(found.values())[:most]
            return [self._edge(row, u, v) for _, row, u, v in best]

    def stating(self, triple: Triple) -> list[int]:
        """The memories (as rows) that relate the two entities of a triple, then those that relate its source alike.

        All edges of the source are looked at: what contradicts a new fact may be its oldest. Each half has the latest
        first.
        """
        relation = relation_name(triple.relation)
        between: list[StoredTriple] = []
        alike: list[StoredTriple] = []
        with self._lock:
            ends = frozenset(self._known([triple.destination]))
            for source in self._known([triple.source]):
                for row, u, v in self._edges_of(source):
                    if self._leader(u) == source and self._leader(v) in ends:
                        between.append(row)
                    elif self._leader(u) == source and relation_name(row[4]) == relation:
                        alike.append(row)
        return list(dict.fromkeys(row[1] for rows in (between, alike) for row in sorted(rows, reverse=True)))

    def triples(self) -> list[Edge]:
        """All triples, in the journal's order."""
        with self._lock:
            edges = [self._edge(data["row"], u, v) for u, v, data in self._graph.edges(data=True)]
        return sorted(edges)

    @property
    def _nodes(self) -> dict[str, dict[str, Any]]:
        return self._graph._node  # type: ignore[no-any-return]

    # Views such as `graph.succ` cost ten times what the dictionaries behind them do.
    @property
    def _after(self) -> Adjacency:
        return self._graph._succ  # type: ignore[no-any-return]

    @property
    def _before(self) -> Adjacency:
        return self._graph._pred  # type: ignore[no-any-return]

    def _leader(self, key: str) -> str:
        """The first known of the names that are one entity with this one."""
        group = self._groups.get(key)
        return key if group is None else group[0]

    def _known(self, entities: Iterable[str]) -> list[str]:
        keys = (read_name(name).key for name in entities)
        return list(dict.fromkeys(self._leader(key) for key in keys if key in self._nodes))

    def _ranked(self, entities: Iterable[str], eps: float) -> list[tuple[str, float]]:
        weights = local_push(self._neighbours, self._degree, self._known(entities), eps=eps)
        return sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))

    def _neighbours(self, leader: str) -> Iterator[str]:
        groups = self._groups
        for key in groups.get(leader, (leader,)):
            for other in chain(reversed(self._after[key]), reversed(self._before[key])):
                group = groups.get(other)
                yield other if group is None else group[0]

    def _degree(self, leader: str) -> int:
        keys = self._groups.get(leader, (leader,))
        return sum(len(self._after[key]) + len(self._before[key]) for key in keys)

    def _edges_of(self, leader: str) -> Iterator[tuple[StoredTriple, str, str]]:
        """The triples of an entity with their nodes, late neighbours first."""
        for key in self._groups.get(leader, (leader,)):
            for other, edges in reversed(self._after[key].items()):
                yield from ((data["row"], key, other) for data in edges.values())
            for other, edges in reversed(self._before[key].items()):
                yield from ((data["row"], other, key) for data in edges.values())

    def _edge(self, row: StoredTriple, u: str, v: str) -> Edge:
        source, destination = self._nodes[u], self._nodes[v]
        return Edge(
            row[0], row[1], row[2], source["name"], relation_name(row[4]), destination["name"], row[6],
            (source["first"], destination["first"]),
        )  # fmt: skip


@lru_cache(maxsize=1 << 12)
def _terms_of(relation: str) -> frozenset[str]:
    """The keyword terms of a relation."""
    return frozenset(tokenize(relation.replace("_", " ")))
