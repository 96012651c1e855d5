"""`Memory` without a model in one scope, beside another commit: what adding, finding, listing and opening cost.

Each tree has a process of its own (`figures_worker.py`), and the commands go to them by turns, so that both have the
same weather. Every figure is CPU time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from integration_tests.benchmarks.timing import said, table

_WORKER = Path(__file__).with_name("figures_worker.py")
_TREE = Path(__file__).parents[2]
_ROUNDS = 3
_MEASURED = (("lists", 1), ("single", 40), ("search", 40), ("page", 20))


class _Tree:
    """A worker over the code of one tree."""

    def __init__(self, tree: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, name: str, argument: int = 0) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, argument]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def run(sizes: list[int], note: Callable[[str], None], *, beside: Path | None = None) -> Iterator[str]:
    """One row for each size and tree; `beside` is a checkout of the commit to compare with."""
    trees = {"this commit": _TREE} | ({"the other": beside} if beside is not None else {})
    lines = []
    with ExitStack() as stack:
        workers = {name: _Tree(tree) for name, tree in trees.items()}
        for worker in workers.values():
            stack.callback(worker.close)
        for size in sizes:
            with said(note, f"{size} memories of one user"):
                lines += _figures(workers, size)
    yield table(
        ["memories", "tree", "lists of 500, rows/s", "one add, ms", "search, ms", "page of 100, ms",
         "first answer of a fresh process, s", "it holds, MB", "the one that wrote holds, MB"],
        lines,
    )  # fmt: skip


def _figures(workers: dict[str, _Tree], size: int) -> Iterator[list[object]]:
    for worker in workers.values():
        worker.ask("fill", size)
        worker.ask("settle")
    found: dict[str, dict[str, list[float]]] = {tree: {name: [] for name, _ in _MEASURED} for tree in workers}
    for _ in range(_ROUNDS):
        for name, times in _MEASURED:
            for tree, worker in workers.items():
                found[tree][name].append(worker.ask(name, times))
    for tree, worker in workers.items():
        best = {name: (max if name == "lists" else min)(values) for name, values in found[tree].items()}
        # At rest: while a graph is grown there are two.
        worker.ask("settle")
        written = worker.ask("resident")
        opened, resident = worker.ask("reopen")
        yield [
            f"{size:,}", tree, f"{best['lists']:,.0f}", f"{best['single']:.2f}", f"{best['search']:.2f}",
            f"{best['page']:.2f}", f"{opened:.2f}", f"{resident:,.0f}", f"{written:,.0f}",
        ]  # fmt: skip
