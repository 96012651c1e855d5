"""Several journals that keep their vectors in one collection: each finds its own memories, as if it were alone."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integration_tests.json_server import HOST
from integration_tests.points import point
from integration_tests.test_vectorstores import BACKENDS, made
from langchain_memlayer import Memory
from langchain_memlayer.backends.base import STORE, adapt
from langchain_memlayer.backends.proposals import Proposals
from langchain_memlayer.engine import scoring_pool
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock

pytestmark = pytest.mark.allow_hosts([HOST])

DIMS = 64
ANN = {"user_id": "ann"}
TEXTS = (
    [f"Ann keeps {what}." for what in ("bees", "a boat", "old maps", "three cats")],
    [f"Ann likes {what}." for what in ("plums", "the sea", "old maps", "tea")],
)
MORE = [f"Ann met {who} at the market." for who in ("Bo", "Cy")]
QUERIES = ("What does Ann keep?", "old maps", "Ann likes tea", "the market", "bees and plums")
ONE_OBJECT = ("memory", "faiss", "pgvectorstore")


def _opened(store: Any = None) -> Memory:
    return Memory(
        ":memory:", model=None, embeddings=DeterministicEmbeddings(DIMS), vectorstore=store, hnsw_threshold=DIMS * 3,
        clock=FrozenClock(),
    )  # fmt: skip


def _lived(memory: Memory, texts: list[str]) -> None:
    memory.add([{"role": "user", "content": text} for text in texts + MORE], infer=False, **ANN)
    known = {entry["memory"]: entry["id"] for entry in memory.get_all(limit=99, **ANN)["results"]}
    memory.update(known[texts[0]], f"{texts[0]} No more.")
    memory.delete(known[texts[1]])
    memory.forget(known[MORE[0]])
    memory.flush()


def _answers(memory: Memory) -> list[Any]:
    found = [memory.search(query, limit=5, **ANN)["results"] for query in QUERIES]
    return [[(hit["memory"], round(hit["score"], 3)) for hit in hits] for hits in found]


def _way(memory: Memory) -> str:
    vector = DeterministicEmbeddings(DIMS).vector("old maps")
    return memory._indexes.view(".u.ann.").search(vector, 5).plan.way


@pytest.mark.parametrize("name", BACKENDS)
def test_memories_that_share_a_collection_answer_as_with_one_each(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_pool, "WHOLE_SCOPE", 3)
    monkeypatch.setattr(scoring_pool, "CANDIDATES", 20)
    monkeypatch.setattr(Proposals, "audit_due", lambda self: False)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stores' own
        backend = made(name, tmp_path, stack, request)
        first = backend.open("shared", DIMS)
        second = first if name in ONE_OBJECT else backend.open("shared", DIMS)
        # A hundred times as many points of somebody else, all of them nearer than ours; the embedded Qdrant is slow.
        many = 400 if name != "qdrant" else 40
        near, noise = DeterministicEmbeddings(DIMS), np.random.default_rng(3)
        around = [np.array(near.vector(QUERIES[row % len(QUERIES)]), np.float32) for row in range(many)]
        crowd = [
            point(row, at + noise.normal(0, 0.01, DIMS).astype(np.float32), store="third", memlayer_scope=".u.ann.")
            for row, at in enumerate(around)
        ]
        adapt(first).upsert(crowd)
        shared = [stack.enter_context(_opened(store)) for store in (first, second)]
        alone = [stack.enter_context(_opened()) for _ in TEXTS]
        for memories in (shared, alone):
            for memory, texts in zip(memories, TEXTS, strict=True):
                _lived(memory, texts)
        expected = [_answers(memory) for memory in alone]
        assert [_way(memory) for memory in shared] == ["source", "source"]
        assert [_answers(memory) for memory in shared] == expected
        assert shared[0].adopt(user_id="eve") == {"adopted": 0, "known": 0, "skipped": 0}
        shared[0].reset()
        shared[0].flush()
        assert _answers(shared[1]) == expected[1]
        assert _way(shared[1]) == "source"
        left = [document.metadata[STORE] for document in adapt(first).documents()]
        assert left.count("third") == many
        assert set(left) == {"third", shared[1]._journal.store_id}
