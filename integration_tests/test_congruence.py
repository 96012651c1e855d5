"""One sequence of operations on every backend: each answer is the one that the default gives."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration_tests.json_server import HOST
from integration_tests.test_vectorstores import BACKENDS, made
from langchain_memlayer import Memory
from langchain_memlayer.backends.proposals import Proposals
from langchain_memlayer.engine import scoring_pool
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds

pytestmark = pytest.mark.allow_hosts([HOST])

DIMS = 64
OPERATIONS = 300
USERS = ("ann", "bo", "陈晨")
WORDS = (
    "amber",
    "birch",
    "canal",
    "dune",
    "ember",
    "fjord",
    "glade",
    "harbor",
    "inlet",
    "jade",
    "kelp",
    "lagoon",
    "meadow",
    "night",
    "opal",
    "pine",
)
KINDS = ("note", "plan", "list")


def _small(patch: pytest.MonkeyPatch) -> None:
    """Let scopes of this test count as large ones, in which stores are asked."""
    patch.setattr(scoring_pool, "WHOLE_SCOPE", 8)
    patch.setattr(scoring_pool, "SAMPLE", 8)
    patch.setattr(scoring_pool, "CANDIDATES", 20)


def _opened(store: Any = None) -> Memory:
    return Memory(
        ":memory:", model=None, embeddings=DeterministicEmbeddings(DIMS), vectorstore=store, hnsw_threshold=DIMS * 8,
        clock=FrozenClock(), new_id=SequentialIds(),
    )  # fmt: skip


def _said(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=5))


def _answers(memory: Memory, seed: int) -> Iterator[Any]:
    """What a sequence of operations answers; the seed decides what they are."""
    chance = random.Random(seed)
    for number in range(OPERATIONS):
        user = chance.choice(USERS)
        scope = {"user_id": user} if chance.random() < 0.9 else {"user_id": user, "run_id": "r1"}
        known = [entry["id"] for entry in memory.get_all(limit=200, **scope)["results"]]
        draw = chance.random()
        if draw < 0.4 or not known:
            told = [{"role": "user", "content": f"{_said(chance)} {number}.{k}"} for k in range(chance.randint(1, 4))]
            yield memory.add(told, infer=False, metadata={"kind": chance.choice(KINDS), "n": number}, **scope)[
                "results"
            ]
        elif draw < 0.5:
            yield memory.update(chance.choice(known), f"{_said(chance)} changed {number}")
        elif draw < 0.58:
            yield memory.delete(chance.choice(known))
        elif draw < 0.6:
            yield memory.forget(chance.choice(known))
        elif draw < 0.61:
            yield memory.delete_all(**scope)["count"]
        elif draw < 0.65:
            yield memory.history(chance.choice(known))
        else:
            if chance.random() < 0.5:
                memory.flush()
            filters = chance.choice(
                [None, {"kind": "plan"}, {"n": {"$gt": number // 2}}, {"$or": [{"kind": "note"}, {"n": {"$lt": 50}}]}]
            )
            hits = memory.search(_said(chance), limit=chance.choice([1, 5, 20]), filters=filters, **scope)["results"]
            yield [(hit["id"], hit["memory"], round(hit["score"], 3), round(hit["relevance"], 3)) for hit in hits]


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    with pytest.MonkeyPatch.context() as patch, _opened() as memory:
        _small(patch)
        return list(_answers(memory, 7))


@pytest.mark.parametrize("name", BACKENDS)
def test_every_answer_is_that_of_the_default(
    name: str, expected: list[Any], tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    _small(monkeypatch)
    # An audit gives the exact answer; here the stores' own are looked at.
    monkeypatch.setattr(Proposals, "audit_due", lambda self: False)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stores' own
        memory = stack.enter_context(_opened(made(name, tmp_path, stack, request).open("congruence", DIMS)))
        assert memory._indexes.mirror is not None
        asked, search = [], memory._indexes.mirror.store.search
        monkeypatch.setattr(
            memory._indexes.mirror.store, "search", lambda *given: asked.append(None) or search(*given), raising=True
        )
        for number, (answer, wanted) in enumerate(zip(_answers(memory, 7), expected, strict=True)):
            assert answer == wanted, f"operation {number}"
        assert len(asked) > 30
