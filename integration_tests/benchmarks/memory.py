"""`Memory.add` and `Memory.search` without a chat model: what keywords, journal and checks cost by themselves."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate
from pathlib import Path

from integration_tests.benchmarks.timing import interleaved, said, table, timed
from langchain_memlayer import Memory

_SINGLE = 200
_BATCHES = 8
_BATCH = 1000


def _texts(seed: int) -> Iterator[str]:
    """Sentences of 6 to 18 words, whose frequencies fall off as those of a language do (Zipf)."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(words))))
    while True:
        yield " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(6, 18)))


def run(sizes: list[int], note: Callable[[str], None]) -> Iterator[str]:
    """One row for each size: what is added to a scope that has so many memories already."""
    lines = []
    for size in sizes:
        with (
            tempfile.TemporaryDirectory(prefix="memlayer-bench-") as folder,
            Memory(Path(folder) / "full", model=None, embeddings=None) as full,
            Memory(Path(folder) / "fast", model=None, embeddings=None, durability="fast") as fast,
            said(note, f"Memory with {size} memories"),
        ):
            texts = _texts(3)
            for memory in (full, fast):
                for start in range(0, size, _BATCH):
                    memory.add([_said(next(texts)) for _ in range(min(_BATCH, size - start))], user_id="u")
            lines.append([f"{size:,}", *_adds({"full": full, "fast": fast}, texts), *_search(fast, texts)])
    yield table(
        ["memories of the user", "add, CPU ms", "add, ms on the clock", 'the same, `durability="fast"`',
         "search by keywords, CPU ms", "list of 1000, messages/s of CPU", "messages/s on the clock"],
        [[*line[:4], line[6], *line[4:6]] for line in lines],
    )  # fmt: skip


def _said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _adds(memories: dict[str, Memory], texts: Iterator[str]) -> list[object]:
    def add(memory: Memory) -> Callable[[int], tuple[float, float, object]]:
        def call(number: int) -> tuple[float, float, object]:
            text = next(texts)
            return timed(lambda: memory.add(text, user_id="u"))

        return call

    for memory in memories.values():
        memory.add(next(texts), user_id="u")
    single = interleaved({name: add(memory) for name, memory in memories.items()}, most=_SINGLE)
    batches = []
    for _ in range(_BATCHES):
        messages = [_said(next(texts)) for _ in range(_BATCH)]
        batches.append(timed(partial(memories["full"].add, messages, user_id="u")))
    cpu, wall = (statistics.median(batch[k] for batch in batches) for k in (0, 1))
    return [
        single["full"].ms,
        single["full"].wall_ms,
        single["fast"].wall_ms,
        f"{_BATCH / cpu:,.0f}",
        f"{_BATCH / wall:,.0f}",
    ]


def _search(memory: Memory, texts: Iterator[str]) -> list[object]:
    queries = [" ".join(next(texts).split()[:6]) for _ in range(60)]
    for query in queries[:3]:
        memory.search(query, user_id="u")
    return [
        interleaved({"": lambda n: timed(lambda: memory.search(queries[n], user_id="u"))}, most=len(queries))[""].ms
    ]
