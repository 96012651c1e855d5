"""A graph as a pickle of plain containers, read without running anything that is in it."""

from __future__ import annotations

import gc
import io
import pickle
from typing import Any

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.graph.edges import Adjacency, Node, StoredTriple, place_of
from langchain_memlayer.graph.names import read_name

FORMAT = 1
"""To be raised whenever names are read or kept otherwise."""

Nodes = dict[str, Node]
Rows = dict[int, tuple[StoredTriple, ...]]


def dump(nodes: Nodes, after: Adjacency, before: Adjacency, rows: Rows) -> bytes:
    """The containers of a graph: its nodes, the edges by their first and by their second node, the triples."""
    return pickle.dumps((nodes, after, before, rows), protocol=5)


def load(payload: bytes) -> tuple[Nodes, Adjacency, Adjacency, Rows, int]:
    """What was given to `dump`, and the number of edges.

    Raises:
        SnapshotError: The payload is none of ours, or its parts do not fit together. No code in it is run.
    """
    # Counting references of hundreds of thousands of new containers again and again takes most of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        nodes, after, before, rows = _PlainUnpickler(io.BytesIO(payload)).load()
        return nodes, after, before, rows, _check(nodes, after, before, rows)
    except _UNREADABLE as problem:
        raise SnapshotError(
            f"The graph's snapshot is none of ours ({type(problem).__name__}); it is rebuilt."
        ) from problem
    finally:
        if collecting:
            gc.enable()


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, strings and numbers only: without globals nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a snapshot names {module}.{name}")


# What the unpickler raises for damaged bytes, and unpacking and comparing for other shapes.
_UNREADABLE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError, ArithmeticError,
    MemoryError,
)  # fmt: skip
_ROW = (int, int, str, str, str, str, int)
_UNDATED = (int, int, str, str, str, str, type(None))


def _check(nodes: Any, after: Any, before: Any, rows: Any) -> int:
    """The number of edges, when all fits together; else one of `_UNREADABLE`."""
    for known in rows.values():
        for row in known:
            if tuple(map(type, row)) not in (_ROW, _UNDATED):
                raise ValueError("no triple")
    count = 0
    for u, others in after.items():
        for v, edges in others.items():
            if before[v][u] is not edges or not edges:
                raise ValueError("no edges")
            for key, data in edges.items():
                row = data["row"]
                if (u, v, key) != place_of(row) or row not in rows[row[1]]:
                    raise ValueError("an edge of nothing")
            count += len(edges)
    pairs = sum(map(len, after.values()))
    if not nodes.keys() == after.keys() == before.keys() or pairs != sum(map(len, before.values())):
        raise ValueError("nodes without edges")
    for key, node in nodes.items():
        if type(node["first"]) is not int or read_name(node["name"]).key != key or not (after[key] or before[key]):
            raise ValueError("no node")
    return count
