"""Search, recall, puts, opening and bytes on disk, at several sizes, against the peers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from integration_tests.benchmarks.mem0_peer import Mem0FAISS, Mem0Qdrant
from integration_tests.benchmarks.peers import (
    InMemory,
    LangChainFAISS,
    LangChainFAISSWhole,
    MemLayer,
    MemLayerMemory,
    MemLayerOne,
    Peer,
    RawFAISS,
    Skipped,
    Sqlite,
)
from integration_tests.benchmarks.timing import Samples, figure, interleaved, said, table, timed
from integration_tests.benchmarks.vectors import Data, clustered

PEERS: tuple[type[Peer], ...] = (
    MemLayerOne, MemLayer, RawFAISS, MemLayerMemory, InMemory, Sqlite, LangChainFAISS, LangChainFAISSWhole, Mem0FAISS,
    Mem0Qdrant,
)  # fmt: skip
_OWN = (MemLayerOne.name, MemLayer.name, MemLayerMemory.name)
_TENANT = 7
_SEARCHES = 300
_PUTS = 100
_AFTER = 20
_BATCHES = 5

Note = Callable[[str], None]


def run(sizes: list[int], note: Note) -> Iterator[str]:
    """The tables, one size after the other."""
    for rows in sizes:
        with ExitStack() as stack:
            data = clustered(rows)
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memlayer-bench-")))
            peers, skipped = _loaded(data, root, stack, note)
            yield f"### {rows:,} rows of {data.vectors.shape[1]} dimensions\n"
            yield from _searches(data, peers, note)
            yield from _writes(data, peers, note)
            yield from _openings(peers, note)
            for name, reason in skipped.items():
                yield f"Skipped: {name} ({reason}).\n"


def _loaded(data: Data, root: Path, stack: ExitStack, note: Note) -> tuple[dict[str, Peer], dict[str, str]]:
    peers: dict[str, Peer] = {}
    skipped: dict[str, str] = {}
    for number, kind in enumerate(PEERS):
        folder = root / str(number)
        folder.mkdir()
        with said(note, f"{data.rows} rows into {kind.name}"):
            try:
                peer = kind(data, folder)
                stack.callback(peer.close)
                peer.load()
            except Skipped as reason:
                skipped[kind.name] = str(reason)
            else:
                peers[kind.name] = peer
    return peers, skipped


# -- search -------------------------------------------------------------------------------------------------------


def _searches(data: Data, peers: dict[str, Peer], note: Note) -> Iterator[str]:
    tenants = {name: peer for name, peer in peers.items() if name != MemLayerOne.name}
    with said(note, "searches"):
        every = {k: _search(peers, k, None) for k in (10, 50)}
        one = _search(tenants, 10, _TENANT)
    lines = []
    for name in peers:
        line: list[Any] = [name]
        for samples, k, tenant in ((every[10], 10, None), (every[50], 50, None), (one, 10, _TENANT)):
            line += _told(data, name, samples, k, tenant)
        lines.append(line)
    yield table(
        ["CPU ms, p50", "all, k=10", "recall@10", "all, k=50", "recall@50", "one tenant of 100, k=10", "recall@10"],
        lines,
    )
    yield _ratios(every[10], one)


def _search(peers: dict[str, Peer], k: int, tenant: int | None) -> dict[str, Samples]:
    def call(peer: Peer) -> Callable[[int], Any]:
        return lambda number: peer.search(number, k, tenant)

    for peer in peers.values():
        for number in range(3):
            peer.search(number, k, tenant)
    return interleaved({name: call(peer) for name, peer in peers.items()}, most=_SEARCHES)


def _told(data: Data, name: str, all_samples: dict[str, Samples], k: int, tenant: int | None) -> tuple[Any, str]:
    samples = all_samples.get(name)
    if samples is None:
        return "", ""
    # `Memory` ranks by more than the vectors.
    return samples.ms, "fused" if name == MemLayerMemory.name else _recall(data, samples, k, tenant)


def _recall(data: Data, samples: Samples, k: int, tenant: int | None) -> str:
    shares = []
    for number, found in enumerate(samples.values):
        wanted = data.exact(number, k, tenant)
        shares.append(len(wanted & set(found[:k])) / len(wanted))
    low = sum(share < 0.5 for share in shares) / len(shares)
    return f"{sum(shares) / len(shares):.4f}" + (f" ({low:.1%} below .5)" if low else "")


def _ratios(every: dict[str, Samples], one: dict[str, Samples]) -> str:
    """How many times as long the others take."""
    store, tenant = every[MemLayerOne.name], one[MemLayer.name]
    return "".join(
        f"- {name} / MemLayerStore: all {figure(samples.ms / store.ms)}, tenant {figure(one[name].ms / tenant.ms)}\n"
        for name, samples in every.items()
        if name not in (*_OWN, RawFAISS.name)
    )


# -- writes -------------------------------------------------------------------------------------------------------


def _writes(data: Data, peers: dict[str, Peer], note: Note) -> Iterator[str]:
    writers = {name: peer for name, peer in peers.items() if name not in (RawFAISS.name, LangChainFAISSWhole.name)}
    first = data.rows

    def put(peer: Peer) -> Callable[[int], Any]:
        return lambda number: peer.put(first + number)

    def again(peer: Peer) -> Callable[[int], Any]:
        def call(number: int) -> Any:
            peer.put(first + 8_000 + 100 * number + _TENANT)
            return peer.search(number, 10, _TENANT)

        return call

    def many(peer: Peer) -> Callable[[int], Any]:
        return lambda number: peer.put_many(range(first + 1000 * (number + 1), first + 1000 * (number + 2)))

    with said(note, "writes"):
        single = interleaved({name: put(peer) for name, peer in writers.items()}, most=_PUTS)
        after = interleaved({name: again(peer) for name, peer in writers.items()}, most=_AFTER)
        batch = interleaved(
            {name: many(peer) for name, peer in writers.items() if not isinstance(peer, (Mem0FAISS, Mem0Qdrant))},
            most=_BATCHES,
            budget=8.0,
        )
    yield table(
        ["p50", "put, CPU ms", "put, ms on the clock", "search of a tenant after a put to it, CPU ms",
         "batch of 1000, CPU ms", "rows/s of CPU"],
        [
            [
                name, samples.ms, samples.wall_ms, after[name].ms,
                *((batch[name].ms, f"{1e6 / batch[name].ms:,.0f}") if name in batch else ("one by one", "")),
            ]
            for name, samples in single.items()
        ],
    )  # fmt: skip
    for peer in writers.values():
        if isinstance(peer, MemLayer):
            peer.settle()


# -- opening ------------------------------------------------------------------------------------------------------


def _openings(peers: dict[str, Peer], note: Note) -> Iterator[str]:
    rows: list[list[Any]] = []
    for name, peer in peers.items():
        if name in (RawFAISS.name, LangChainFAISSWhole.name):
            continue
        with said(note, f"opening {name}"):
            again = peer.reopen()
            size = peer.disk()
            if again is None:
                rows.append([name, "keeps nothing", "", size])
                continue
            cpu, wall, value = timed(again)
            if isinstance(peer, (Mem0FAISS, Mem0Qdrant)):
                cpu, wall = value
            rows.append([name, cpu, wall, None if size is None else f"{size / 1e6:,.1f}"])
            if name == MemLayerOne.name:
                rows.append(_without_snapshot(peer))
    yield table(["until the first answer", "CPU s", "s on the clock", "MB on disk"], rows)


def _without_snapshot(peer: Peer) -> list[Any]:
    again = peer.reopen()
    for file in (peer.folder / "store" / "derived").glob("*.*"):
        file.unlink()
    if again is None:
        return []
    _, wall, _ = timed(again)
    return [f"{peer.name}, snapshot removed", "", wall, ""]
