"""`Memory` over every backend that runs here without a container: adding, delivering, searching, room.

Each backend is opened by the dictionary that `Memory.from_config` takes, in a process of its own.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from integration_tests import postgres_server
from integration_tests.benchmarks.backend_worker import AT_ONCE, Peer, working
from integration_tests.benchmarks.timing import Samples, Timed, figure, interleaved, said, table
from integration_tests.benchmarks.vectors import TENANTS, Data, clustered

_PACKAGES = {
    "folder": None,
    "PostgreSQL journal": "psycopg",
    "Chroma": "langchain_chroma",
    "Qdrant, path": "langchain_qdrant",
    "Milvus Lite": "milvus_lite",
    "community FAISS": "langchain_community",
    "core InMemory": None,
    "PGVectorStore": "langchain_postgres",
}
_SERVED = ("PostgreSQL journal", "PGVectorStore")
_IN_PYTHON = ("Qdrant, path", "core InMemory")
_MOST_IN_PYTHON = 20_000
_ADDS = 20
_SEARCHES = 60

Note = Callable[[str], None]


def run(sizes: list[int], note: Note) -> Iterator[str]:
    """Two tables for each size: what writing costs, and what reading does."""
    for rows in sizes:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memlayer-bench-")))
            peers, skipped = _started(rows, root, stack)
            loaded = {}
            for name, peer in peers.items():
                with said(note, f"{rows} memories into {name}"):
                    loaded[name] = peer("load")
            yield f"### {rows:,} memories of 384 numbers, {TENANTS} users\n"
            with said(note, "writes"):
                yield _writes(rows, peers, loaded)
            with said(note, "searches"):
                # With those that were added meanwhile.
                yield _searches(replace(clustered(rows), rows=rows + _ADDS), peers)
            for name, reason in skipped.items():
                yield f"Skipped: {name} ({reason}).\n"


def _started(rows: int, root: Path, stack: ExitStack) -> tuple[dict[str, Peer], dict[str, str]]:
    skipped = {
        name: f"{package} is not installed"
        for name, package in _PACKAGES.items()
        if package is not None and importlib.util.find_spec(package) is None
    }
    if rows > _MOST_IN_PYTHON:
        skipped |= dict.fromkeys(_IN_PYTHON, f"compares in Python, vector by vector: up to {_MOST_IN_PYTHON:,} only")
    if not postgres_server.available():
        skipped |= dict.fromkeys(_SERVED, postgres_server.MISSING)
    served = [name for name in _SERVED if name not in skipped]
    url = stack.enter_context(postgres_server.serving()) if served else None
    peers = {}
    for number, name in enumerate(_PACKAGES):
        if name not in skipped:
            folder = root / str(number)
            folder.mkdir()
            peers[name] = stack.enter_context(working(name, rows, folder, url))
    return peers, skipped


def _writes(rows: int, peers: dict[str, Peer], loaded: dict[str, Timed]) -> str:
    lines = []
    for name, peer in peers.items():
        added, delivered = Samples(), []
        for number in range(_ADDS):
            cpu, wall, _ = peer("add", number)
            added.cpu.append(cpu)
            added.wall.append(wall)
            delivered.append(1000 * peer("flush"))
        held, lying = peer("megabytes")
        lines.append(
            [
                name,
                *(f"{rows / seconds:,.0f}" for seconds in loaded[name][:2]),
                added.ms,
                added.wall_ms,
                statistics.median(delivered),
                held,
                lying,
            ]
        )
    return table(
        ["backend", f"{AT_ONCE} a call, until delivered: memories/s of CPU", "on the clock", "one add, CPU ms",
         "on the clock", "then until delivered", "MB in RAM", "MB on disk"],
        lines,
    )  # fmt: skip


def _searches(data: Data, peers: dict[str, Peer]) -> str:
    found = {
        method: interleaved(
            {name: partial(_call, peer, method) for name, peer in peers.items()}, most=_SEARCHES, budget=10.0
        )
        for method in ("tenant", "everyone", "nearest")
    }
    lines = []
    for name in peers:
        line: list[Any] = [name]
        for method, samples in found.items():
            line += [samples[name].ms, samples[name].wall_ms]
            if method == "nearest":
                line += _judged(data, samples[name])
        lines.append(line)
    return table(
        ["backend", "search in a user's, CPU ms", "on the clock", "over all, CPU ms", "on the clock",
         "ten nearest vectors, CPU ms", "on the clock", "by", "recall@10"],
        lines,
    )  # fmt: skip


def _call(peer: Peer, method: str, number: int) -> Any:
    return peer(method, number)


def _judged(data: Data, samples: Samples) -> list[str]:
    """Who found the nearest, and which share of the exact ones."""
    shares = [len(data.exact(number, 10, None) & set(rows)) / 10 for number, (_, rows) in enumerate(samples.values)]
    ways = {way for way, _ in samples.values}
    return [" and ".join(sorted(ways)), figure(statistics.mean(shares))]
