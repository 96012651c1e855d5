"""What the store adds to FAISS: the two alone, call by call (A B A B), so that nobody else empties the caches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from integration_tests.benchmarks.peers import MemLayer, MemLayerOne, Peer, RawFAISS
from integration_tests.benchmarks.timing import Timed, interleaved, said, table, timed
from integration_tests.benchmarks.vectors import DIMS, QUERIES, Data, clustered

_TENANT = 7
_ROUNDS = QUERIES


def run(sizes: list[int], note: Callable[[str], None]) -> Iterator[str]:
    """One table: for each size and search the store, FAISS with the rows from SQLite, and their ratio."""
    lines = []
    for rows in sizes:
        data = clustered(rows)
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memlayer-bench-")))
            made: list[Peer] = []
            for kind in (MemLayerOne, MemLayer, RawFAISS):
                folder = root / kind.__name__
                folder.mkdir()
                made.append(kind(data, folder))
                stack.callback(made[-1].close)
                with said(note, f"{rows} rows into {kind.name}"):
                    made[-1].load()
            one, many, raw = made
            pairs = [
                ("one namespace, k=10", one, raw, 10, None),
                ("one namespace, k=50", one, raw, 50, None),
                (f"one tenant of {rows // 100:,} rows, k=10", many, raw, 10, _TENANT),
                ("prefix of 100 namespaces, k=10", many, _Scan(data), 10, None),
            ]
            for name, store, other, k, tenant in pairs:
                ours, theirs = _pair(_searching(store, k, tenant), _searching(other, k, tenant))
                lines.append([f"{rows:,}", name, ours, theirs, ours / theirs])
    yield table(["rows", "search", "MemLayerStore, CPU ms", "FAISS + rows from SQLite, CPU ms", "ratio"], lines)
    yield "The prefix is compared with a scan of all vectors as float16 by FAISS alone, without any rows.\n"


def _searching(peer: Any, k: int, tenant: int | None) -> Callable[[int], Timed]:
    return lambda number: peer.search(number % QUERIES, k, tenant)


def _pair(ours: Callable[[int], Timed], theirs: Callable[[int], Timed]) -> tuple[float, float]:
    for number in range(5):
        ours(number)
        theirs(number)
    samples = interleaved({"ours": ours, "theirs": theirs}, most=_ROUNDS, turn=1, budget=10.0)
    return samples["ours"].ms, samples["theirs"].ms


class _Scan:
    """A scan of everything by FAISS's own float16 index."""

    def __init__(self, data: Data) -> None:
        import faiss

        self._index = faiss.IndexScalarQuantizer(DIMS, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._index.train(data.vectors[:1])
        self._index.add(data.vectors[: data.rows])
        self._queries = data.queries

    def search(self, number: int, k: int, tenant: int | None) -> Timed:
        query = np.ascontiguousarray(self._queries[number : number + 1])
        return timed(lambda: self._index.search(query, k))
