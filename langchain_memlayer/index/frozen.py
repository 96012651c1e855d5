"""A slab's graph as bytes, and back.

Only the links are written: a flat run of arrays whose lengths the snapshot's meta tells. The vectors stay in the
journal. Each row is named by its item's id and a checksum of its code, so a graph is matched against whatever the
journal holds now: rows written since are the delta, rows removed or changed since are tombstones. Nothing here is
parsed by FAISS, and every number that FAISS would follow is checked, so that damaged bytes can only be refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index.copies import Copies, checksums
from langchain_memlayer.index.hnsw import EF_CONSTRUCTION, NEIGHBOURS, Graph, Links
from langchain_memlayer.index.kernel import CODE, Kernel
from langchain_memlayer.index.rows import Growing, Rows
from langchain_memlayer.index.view import View


@dataclass(frozen=True, slots=True)
class FrozenGraph:
    """A graph and the names of the rows it is over.

    Attributes:
        links: The graph itself.
        ids: Row ids of the items, in the graph's order.
        counts: How many vectors each item has.
        copies: A checksum of each vector's code, and the nodes that follow from them.
    """

    links: Links
    ids: NDArray[np.int64]
    counts: NDArray[np.int32]
    copies: Copies


def vector_counts(view: View) -> NDArray[np.int64]:
    """How many vectors each position has."""
    if view.owners is None:
        return np.ones(len(view), dtype=np.int64)
    return np.bincount(view.owners, minlength=len(view))


def freeze(view: View, graph: Graph, kernel: Kernel) -> tuple[bytes, dict[str, Any]]:
    """The bytes and the meta of the graph of `view`."""
    links = graph.links()
    items = graph.rows if view.owners is None else int(view.owners[graph.rows - 1]) + 1
    parts = (
        links.levels.astype("<i4"),
        links.neighbours.astype("<i4"),
        view.ids[:items].astype("<i8"),
        vector_counts(view)[:items].astype("<i4"),
        graph.copies.sums.astype("<u8"),
    )
    meta = {
        **_shape(kernel),
        "rows": graph.rows,
        "nodes": len(graph.copies),
        "links": len(links.neighbours),
        "items": items,
        "entry": links.entry,
        "top": links.top,
    }
    return b"".join(part.tobytes() for part in parts), meta


def thaw(payload: bytes, meta: Mapping[str, Any], kernel: Kernel) -> FrozenGraph:
    """The graph that `freeze` wrote.

    Raises:
        SnapshotError: These are not the bytes of a graph for this kernel.
    """
    if any(meta.get(name) != value for name, value in _shape(kernel).items()):
        raise SnapshotError("The graph's snapshot is for other vectors; it is rebuilt.")
    rows, nodes, links, items, entry, top = (
        _number(meta, name) for name in ("rows", "nodes", "links", "items", "entry", "top")
    )
    layout = (("<i4", nodes), ("<i4", links), ("<i8", items), ("<i4", items), ("<u8", rows))
    if not rows or sum(np.dtype(kind).itemsize * count for kind, count in layout) != len(payload):
        raise SnapshotError("The graph's snapshot has the wrong length; it is rebuilt.")
    arrays: list[NDArray[Any]] = []
    offset = 0
    for kind, count in layout:
        arrays.append(np.frombuffer(payload, dtype=kind, count=count, offset=offset))
        offset += arrays[-1].nbytes
    levels, neighbours, ids, counts, sums = arrays
    copies = Copies.of(sums)
    if counts.min(initial=0) < 0 or int(counts.sum()) != rows or len(copies) != nodes:
        raise SnapshotError("The graph's snapshot disagrees with itself; it is rebuilt.")
    frozen = Links(levels=levels, neighbours=neighbours, entry=entry, top=top)
    frozen.check()
    return FrozenGraph(frozen, ids, counts, copies)


def match(frozen: FrozenGraph, view: View) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What of `view` the graph knows.

    Returns:
        For each item of the graph its position, and for each row of the graph the vector's index; -1 where the view has
        no such item or it has other vectors now.
    """
    if not len(view):
        return np.full(len(frozen.ids), -1, dtype=np.int64), np.full(len(frozen.copies.sums), -1, dtype=np.int64)
    found = view.position(frozen.ids)
    counts = vector_counts(view)
    starts = np.cumsum(counts) - counts
    found[(found >= 0) & (counts[found] != frozen.counts)] = -1
    items = np.repeat(np.arange(len(frozen.ids)), frozen.counts)
    begins = np.cumsum(frozen.counts) - frozen.counts
    rows = np.where(found[items] >= 0, starts[found[items]] + np.arange(len(items)) - begins[items], -1)
    sums = checksums(view.codes)
    differs = (rows >= 0) & (sums[rows] != frozen.copies.sums)
    found[items[differs]] = -1
    # An item whose vectors went away and came back has several places in the graph; it may be found at one only.
    known = np.flatnonzero(found >= 0)
    again = np.ones(len(known), dtype=np.bool_)
    again[np.unique(found[known], return_index=True)[1]] = False
    found[known[again]] = -1
    return found, np.where(found[items] >= 0, rows, -1)


def reordered(
    current: Rows, view: View, frozen: FrozenGraph, positions: NDArray[np.int64], vectors: NDArray[np.int64]
) -> tuple[Rows, NDArray[np.float16]]:
    """The rows in the graph's order, with tombstones for those that it alone knows, and the others after.

    Args:
        current: The slab's rows.
        view: Their present state.
        frozen: The graph.
        positions: What `match` gave.
        vectors: What `match` gave.

    Returns:
        The new rows, and their codes as far as the graph reaches.
    """
    rest = view.live.copy()
    rest[positions[positions >= 0]] = False
    codes = Growing(CODE, width=view.codes.shape[1])
    codes.extend(_graph_codes(frozen, view, vectors))
    codes.extend(view.codes[rest if view.owners is None else rest[view.owners]])
    counts = np.concatenate((frozen.counts.astype(np.int64), vector_counts(view)[rest]))
    single = view.owners is None and bool((frozen.counts == 1).all())
    rows = current.replaced(
        np.concatenate((np.maximum(positions, 0), np.flatnonzero(rest))),
        ids=np.concatenate((frozen.ids, view.ids[rest])),
        live=np.concatenate((positions >= 0, np.ones(int(rest.sum()), dtype=np.bool_))),
        codes=codes,
        owners=None if single else np.repeat(np.arange(len(counts)), counts),
    )
    return rows, codes.used[: len(vectors)]


def _graph_codes(frozen: FrozenGraph, view: View, vectors: NDArray[np.int64]) -> NDArray[np.float16]:
    """The codes for the graph's rows; a tombstone, whose own is gone, gets that of a copy or of a live neighbour.

    Searches walk through tombstones, so these need a place that is about right. Nobody ever finds them.
    """
    rows = frozen.copies.nodes
    there = np.full(len(frozen.copies), -1, dtype=np.int64)
    there[rows[vectors >= 0]] = vectors[vectors >= 0]
    codes = view.codes[np.maximum(there, 0)]
    gone = np.flatnonzero(there < 0)
    if len(gone):
        linked = frozen.links.ground(gone)
        usable = np.logical_and(linked >= 0, there[linked] >= 0)
        first = linked[np.arange(len(gone)), usable.argmax(axis=1)]
        codes[gone] = np.where(usable.any(axis=1, keepdims=True), codes[first], np.float16(0))
    return codes[rows]


def _number(meta: Mapping[str, Any], name: str) -> int:
    number = meta.get(name)
    if type(number) is not int or not 0 <= number < 2**40:
        raise SnapshotError("The graph's snapshot has a damaged meta; it is rebuilt.")
    return number


def _shape(kernel: Kernel) -> dict[str, Any]:
    return {
        "kind": "hnsw",
        "format": 1,
        "dims": kernel.dims,
        "metric": kernel.metric,
        "neighbours": NEIGHBOURS,
        "ef_construction": EF_CONSTRUCTION,
    }
