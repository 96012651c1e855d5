"""The side of `store_figures` that measures: one process, one tree of code, commands as JSON lines.

It is run by its path with the tree first on `PYTHONPATH`, so that it measures commits that do not have this file.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_memlayer import Memory

_DIMS = 384
_CLUSTERS = 200
_STEPS = 4_093
_LIST = 500


class LookedUp(Embeddings):
    """Vectors around 200 centres, put together of what was made in advance: a centre and three steps away from it.

    It is small, since what a process holds is measured too.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self._centres = rng.standard_normal((_CLUSTERS, _DIMS), np.float32)
        self._steps = np.float32(0.4) * rng.standard_normal((_STEPS, _DIMS), np.float32)

    def embed_query(self, text: str) -> list[float]:
        return self._of(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._of(text) for text in texts]

    def _of(self, text: str) -> Any:
        place, cluster = divmod(int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big"), _CLUSTERS)
        place, first = divmod(place, _STEPS)
        third, second = divmod(place, _STEPS)
        return self._centres[cluster] + self._steps[first] + self._steps[second] + self._steps[third % _STEPS]


def texts(seed: int) -> Iterator[str]:
    """Texts of 12 words whose frequencies fall off as those of a language do (Zipf)."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(words))))
    while True:
        yield " ".join(rng.choices(words, cum_weights=weights, k=12))


class Worker:
    """One memory of one user, filled and measured on command; every figure is CPU time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._texts = texts(3)
        self._size = 0
        self._memory = self._open()

    def _open(self) -> Memory:
        return Memory(Path(self._folder), model=None, embeddings=LookedUp(), durability="fast")

    def fill(self, size: int) -> float:
        """Adds lists until there are so many; returns the rows of a CPU second."""
        before, rows = time.process_time(), size - self._size
        while self._size < size:
            count = min(_LIST, size - self._size)
            self._memory.add([{"role": "user", "content": next(self._texts)} for _ in range(count)], user_id="u")
            self._size += count
        return rows / max(time.process_time() - before, 1e-9)

    def lists(self, times: int) -> float:
        """The rows of a CPU second over further lists of 500."""
        return self.fill(self._size + _LIST * times)

    def single(self, times: int) -> float:
        """Milliseconds of one added text."""
        self._size += times
        return self._median(lambda: self._memory.add(next(self._texts), user_id="u"), times)

    def search(self, times: int) -> float:
        """Milliseconds of one search for six words."""
        queries = [" ".join(next(self._texts).split()[:6]) for _ in range(times)]
        return self._median(lambda: self._memory.search(queries.pop(), user_id="u"), times)

    def page(self, times: int) -> float:
        """Milliseconds of a page of 100."""
        return self._median(lambda: self._memory.get_all(user_id="u", limit=100), times)

    def settle(self, _: int) -> float:
        """Waits until nothing is built in the background."""
        self._memory.search("anything", user_id="u")
        self._memory._indexes.wait()
        return 0.0

    def reopen(self, _: int) -> list[float]:
        """Of a fresh process: seconds of CPU from opening to the first answer, and megabytes in memory then."""
        self._memory.close()
        command = [sys.executable, __file__, self._folder, "first"]
        found: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        self._memory = self._open()
        return found

    def resident(self, _: int) -> float:
        """Megabytes in memory of the process that wrote all this."""
        return _resident()

    @staticmethod
    def _median(call: Callable[[], object], times: int) -> float:
        spent = []
        for _ in range(times):
            before = time.process_time()
            call()
            spent.append(time.process_time() - before)
        return 1000 * statistics.median(spent)


def _resident() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def first(folder: str) -> list[float]:
    """`Worker.reopen`, in the fresh process."""
    embeddings = LookedUp()
    before = time.process_time()
    with Memory(Path(folder), model=None, embeddings=embeddings, durability="fast") as memory:
        memory.search("first of all questions", user_id="u")
        return [time.process_time() - before, _resident()]


def main() -> None:
    if sys.argv[2:] == ["first"]:
        print(json.dumps(first(sys.argv[1])))
        return
    with tempfile.TemporaryDirectory(prefix="memlayer-figures-") as folder:
        worker = Worker(sys.argv[1] if len(sys.argv) > 1 else folder)
        for line in sys.stdin:
            name, argument = json.loads(line)
            print(json.dumps(getattr(worker, name)(argument)), flush=True)
        worker._memory.close()


if __name__ == "__main__":
    main()
