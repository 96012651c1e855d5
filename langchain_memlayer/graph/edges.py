"""A triple in the journal, and as an edge of a graph."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

from langchain_memlayer.graph.names import read_name, relation_name

StoredTriple = tuple[int, int, str, str, str, str, int | None]
"""A triple as the journal has it: its id, the row and the id of its memory, source, relation, destination, valid_at."""

Adjacency = dict[str, dict[str, dict[tuple[str, int], dict[str, Any]]]]
"""By node and neighbour the edges between them, by relation and memory; `row` of each is its `StoredTriple`."""

Placed = tuple[str, StoredTriple, str, str]
"""A triple among those of an entity: that one's leading key, the triple, the keys of its source and destination."""


class Node(TypedDict, total=False):
    """A name in a graph: how it is displayed, and the triple that first spelled it so; empty until it is spelled."""

    name: str
    first: int


class Edge(NamedTuple):
    """One triple of a live memory.

    Attributes:
        id: Its number among the journal's triples, in the order of their commits.
        item: The row of the memory that supports it.
        memory_id: That memory's id.
        source: The source's name as it was first spelled.
        relation: The relation in snake case.
        destination: The destination's name as it was first spelled.
        valid_at: When the memory began to hold (microseconds since 1970 UTC), when known.
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

    def as_relation(self) -> dict[str, str]:
        """It as search results show it."""
        return {"source": self.source, "relationship": self.relation, "destination": self.destination}


def edge_of(row: StoredTriple, source: Node, destination: Node) -> Edge:
    """A triple between two nodes, as it is shown."""
    return Edge(
        row[0], row[1], row[2], source["name"], relation_name(row[4]), destination["name"], row[6],
        (source["first"], destination["first"]),
    )  # fmt: skip


def place_of(row: StoredTriple) -> tuple[str, str, tuple[str, int]] | None:
    """The nodes and the key of a triple's edge; None when a name says nothing."""
    source, destination = read_name(row[3]).key, read_name(row[5]).key
    return (source, destination, (relation_name(row[4]), row[1])) if source and destination else None
