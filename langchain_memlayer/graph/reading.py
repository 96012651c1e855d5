"""What is read out of a graph by adjacency: its entities, what is near some of them, the triples around them."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from langchain_memlayer.graph.edges import Edge, Node, Placed
from langchain_memlayer.graph.names import SPEAKERS, Similarity, merge, read_name, relation_name, speaks_of_self
from langchain_memlayer.graph.ranking import k_hop, local_push
from langchain_memlayer.index.keywords import query_terms, tokenize
from langchain_memlayer.types import Triple

MOST_NODES = 200
MOST_EDGES = 2_000
EPS = 1e-3
"""How much of a walk may stay unsettled for each edge: what has more than 1 / EPS edges is walked through by nobody."""


class GraphReader(ABC):
    """The reads of a graph, whether it is in memory or asked of a database.

    Names that are one entity are met together, under the one that was first; see `_leader`.

    Args:
        similarity: How alike two names are in meaning, from 0 to 1, to propose which are one entity.
    """

    def __init__(self, similarity: Similarity | None) -> None:
        self._lock = threading.RLock()
        self._similarity = similarity
        # Of each name that is one entity with others all of them, the first known first.
        self._groups: dict[str, tuple[str, ...]] = {}

    # -- what a graph is read through -----------------------------------------------------------------------------

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Any]:
        """While one read goes on: the graph stays as it is."""

    @abstractmethod
    def _mentioned(self, text: str) -> list[str]:
        """The keys of the graph that a text mentions (`names.mentions`)."""

    @abstractmethod
    def _met(self, keys: Iterable[str]) -> list[str]:
        """Those of some keys that the graph has; who they are is known from now on."""

    @abstractmethod
    def _node(self, key: str) -> Node:
        """The node of a key that the graph has."""

    @abstractmethod
    def _neighbours(self, leader: str) -> Iterable[str]:
        """The entities next to one, those that came last first: once for each of its names and each of theirs."""

    @abstractmethod
    def _degree(self, leader: str) -> int:
        """How many those are; of more than 1 / EPS it is enough to say that they are more."""

    @abstractmethod
    def _edges_around(self, leaders: Iterable[str], most: int) -> Iterator[Placed]:
        """The triples of some entities, those of late neighbours first; `most` altogether."""

    @abstractmethod
    def _edges(self, placed: Sequence[Placed]) -> list[Edge]:
        """Triples as they are shown."""

    @abstractmethod
    def _stating(self, source: str, ends: Collection[str], relation: str, most: int) -> tuple[list[int], list[int]]:
        """The memories whose triples go from an entity to one of others, and those that relate it in one way.

        Each list has the latest triples first, and at least `most` memories where there are so many.
        """

    _walk_ahead: Callable[[Sequence[str], int], None] | None = None
    """Told of entities whose neighbours come next, and how many of each, where that saves something."""

    _push_ahead: Callable[[Mapping[str, float]], None] | None = None
    """Told of entities that wait in `local_push`, with what they have, where that saves something."""

    # -- reads ----------------------------------------------------------------------------------------------------

    def entities_in(self, text: str) -> list[str]:
        """The entities that a text mentions, by their displayed names; "I" and "my" mean the nameless user."""
        with self._reading():
            found = self._mentioned(text)
            if speaks_of_self(text):
                found += self._met(SPEAKERS)
            return self._displayed(map(self._leader, found))

    def entities_named(self, names: Iterable[str]) -> list[str]:
        """The entities that some names are of, by their displayed names; names of none are left out."""
        with self._reading():
            return self._displayed(self._known(names))

    def k_hop(self, entities: Iterable[str], *, k: int = 2, most: int = MOST_NODES) -> dict[str, int]:
        """The entities within `k` steps of some and how many steps each is away, nearest first, `most` at most.

        No more than `MOST_EDGES` neighbours of an entity are looked at.
        """
        with self._reading():
            near = k_hop(
                self._neighbours, self._known(entities), k=k, most=min(most, MOST_EDGES), ahead=self._walk_ahead
            )
            return {self._node(key)["name"]: steps for key, steps in near.items()}

    def local_push(self, entities: Iterable[str]) -> dict[str, float]:
        """Personalised PageRank of the entities around some, the nearest first; see `ranking.local_push`."""
        with self._reading():
            return {self._node(key)["name"]: weight for key, weight in self._ranked(entities)}

    def memories_near(self, entities: Iterable[str], *, most: int = 100) -> dict[int, float]:
        """The memories that relate the entities around some, as row ids with weights in 0..1, best first.

        A memory weighs as much as a walk from `entities` with restarts (`local_push`) stands at an end of its best
        edge, to leave by that edge. So what is known of a rarely named entity weighs more than what is known of a hub.
        """
        weights: dict[int, float] = {}
        with self._reading():
            ranked = self._ranked(entities)
            flow = {key: weight / max(1, self._degree(key)) for key, weight in ranked}
            for _, row, u, v in self._edges_around(flow, MOST_EDGES):
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
        with self._reading():
            known = self._known(entities)
            seeds = frozenset(known)
            near = k_hop(self._neighbours, known, k=max(0, k - 1), most=MOST_NODES, ahead=self._walk_ahead)
            found: dict[int, tuple[tuple[int, int, int, int], Placed]] = {}
            for placed in self._edges_around(near, MOST_EDGES):
                leader, row, u, v = placed
                ends = (self._leader(u) in seeds) + (self._leader(v) in seeds)
                said = len(asked & _terms_of(relation_name(row[4])))
                found.setdefault(row[0], ((-ends, -said, near[leader], -row[0]), placed))
            return self._edges([placed for _, placed in sorted(found.values())[:most]])

    def stating(self, triple: Triple, *, most: int) -> list[int]:
        """The memories (as rows) that relate the two entities of a triple, then those that relate its source alike.

        All edges of the source are looked at: what contradicts a new fact may be its oldest. Each half has the latest
        first; `most` altogether.
        """
        between: list[int] = []
        alike: list[int] = []
        with self._reading():
            ends = self._known([triple.destination])
            for source in self._known([triple.source]):
                between, alike = self._stating(source, ends, relation_name(triple.relation), most)
        return list(dict.fromkeys((*between, *alike)))[:most]

    # -- who is who -----------------------------------------------------------------------------------------------

    def _leader(self, key: str) -> str:
        """The first known of the names that are one entity with this one; of a name that no read came by, itself."""
        group = self._groups.get(key)
        return key if group is None else group[0]

    def _merge(self, keys: Iterable[str], apart: Callable[[str, str], bool]) -> None:
        """Note which of the names of a family are one entity."""
        names = [read_name(self._node(key)["name"]) for key in keys]
        for group in merge(names, similarity=self._similarity, apart=apart):
            known = tuple(sorted(group, key=lambda key: self._node(key)["first"]))
            self._groups.update(dict.fromkeys(known, known))

    def _displayed(self, leaders: Iterable[str]) -> list[str]:
        return [self._node(key)["name"] for key in dict.fromkeys(leaders)]

    def _known(self, entities: Iterable[str]) -> list[str]:
        keys = (read_name(name).key for name in entities)
        return list(dict.fromkeys(map(self._leader, self._met(keys))))

    def _ranked(self, entities: Iterable[str]) -> list[tuple[str, float]]:
        weights = local_push(self._neighbours, self._degree, self._known(entities), eps=EPS, ahead=self._push_ahead)
        return sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))


@lru_cache(maxsize=1 << 12)
def _terms_of(relation: str) -> frozenset[str]:
    """The keyword terms of a relation."""
    return frozenset(tokenize(relation.replace("_", " ")))
