"""What the durability tests share: how stores are opened, what must hold in a folder, and scans of its bytes."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from langchain_memlayer import Extraction, Fact, MemLayerStore, Memory, Turn, doctor
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.testing import DeterministicEmbeddings

DIMS = 32
THRESHOLD = 20_000  # 625 rows get a graph
SEEDED = 700
EXACT = 1 << 40
SNAPSHOT_STEPS = [
    "temp-written", "temp-synced", "manifest-written", "manifest-synced", "payload-replaced", "manifest-replaced",
    "folder-synced", "old-removed",
]  # fmt: skip

_WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch", "maple",
    "north", "otter", "pearl", "quartz", "raven",
)  # fmt: skip


def sentence(*numbers: int) -> str:
    """Five words that depend on the numbers, and the numbers themselves."""
    rng = np.random.default_rng(numbers)
    return f"{' '.join(rng.choice(_WORDS, 5))} {'-'.join(map(str, numbers))}"


class Echo:
    """An extractor that finds in each turn that it was said."""

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return Extraction(tuple(Fact(f"said {turn.text}", (k,), quote=turn.text) for k, turn in enumerate(turns)))


def open_memory(folder: Path, **settings: Any) -> Memory:
    return Memory(
        folder, **{"model": None, "embeddings": DeterministicEmbeddings(DIMS), "hnsw_threshold": THRESHOLD, **settings}
    )


def open_store(folder: Path, **settings: Any) -> MemLayerStore:
    index = {"dims": DIMS, "embed": DeterministicEmbeddings(DIMS), "fields": ["text"]}
    return MemLayerStore(folder, **{"index": index, "hnsw_threshold": THRESHOLD, **settings})


def memories(memory: Memory) -> dict[str, tuple[str, str]]:
    """Every live memory: its id, whose it is and its text."""
    return {
        row["id"]: (row["user_id"], row["memory"])
        for row in memory.get_all(everything=True, limit=1_000_000)["results"]
    }


def items(store: MemLayerStore) -> dict[tuple[tuple[str, ...], str], str]:
    """Every item: namespace, key and text."""
    return {(item.namespace, item.key): item.value["text"] for item in store.search((), limit=1_000_000)}


def assert_sound(folder: Path) -> None:
    with closing(SQLiteJournal(folder)) as journal:
        assert doctor.check(journal) == []
        with journal.read() as reader:
            bare = "SELECT count(*) FROM items i LEFT JOIN vectors v ON v.id = i.id WHERE v.id IS NULL"
            assert reader.db.execute(bare).fetchone()[0] == 0, "a row without its vector"


def forked(work: Callable[[], bool]) -> int:
    """A child that does some work, and ends well only where it gives True."""
    child = os.fork()
    if not child:
        signal.alarm(60)  # one that waits for nobody ends here
        good = False
        try:
            good = work()
        finally:
            os._exit(0 if good else 1)
    return child


def memory_answers(folder: Path, queries: list[str], user: str) -> list[list[tuple[str, float, float]]]:
    """Ids, scores and relevances of searches, once with graphs as they are when the folder opens."""
    with open_memory(folder) as memory:
        found = [memory.search(query, user_id=user)["results"] for query in queries]
        assert memory._indexes.wait(60)
        again = [memory.search(query, user_id=user)["results"] for query in queries]
        assert found == again
    return [[(hit["id"], hit["score"], hit["relevance"]) for hit in hits] for hits in found]


def store_scores(store: MemLayerStore, namespace: tuple[str, ...], queries: list[str]) -> list[list[float]]:
    """The scores of searches; every hit must lie in the namespace, once, with the score that its text has."""
    answers = []
    for query in queries:
        hits = store.search(namespace, query=query, limit=10)
        assert len({hit.key for hit in hits}) == len(hits)
        for hit in hits:
            assert hit.namespace[: len(namespace)] == namespace
            assert abs(hit.score - np.dot(_vector(query), _vector(hit.value["text"]))) < 2e-3
        answers.append([hit.score for hit in hits])
    return answers


def recall(found: list[list[float]], exact: list[list[float]]) -> float:
    """The share of the exact answers that was found; hits of equal score are as good as each other."""
    good = total = 0
    for some, all_ in zip(found, exact, strict=True):
        good += sum(score >= all_[-1] - 1e-6 for score in some)
        total += len(all_)
    return good / total


_vector = cache(DeterministicEmbeddings(DIMS).vector)


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def containing(folder: Path, *needles: bytes) -> list[str]:
    """The files that hold one of the byte strings."""
    return [path.name for path in files(folder) if any(needle in path.read_bytes() for needle in needles)]
