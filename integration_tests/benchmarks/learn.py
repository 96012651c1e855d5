"""Learns the trees of `langchain_memlayer.recall.learned`, and says what they give to conversations they never saw.

```sh
python -m integration_tests.benchmarks learn --harness FILE --data FILE
```

Every conversation is searched with turns alone and with turns and facts, with MiniLM and with the bundled embedder. A
row of features is right if its memory comes from a turn that answers the question. First each conversation is left out
once and measured with the trees of the others; then all of them make the file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from integration_tests.benchmarks.evidence import Evidence
from integration_tests.benchmarks.locomo import remembering, searching
from integration_tests.benchmarks.timing import said, table
from langchain_memlayer import Memory
from langchain_memlayer.engine import search
from langchain_memlayer.recall import Pool, Query, Scored, Weights, learned

TREES = 150
SCALE = 6.0
"""What the sums are multiplied by for LightGBM, whose loss expects differences of about one."""

PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank", "lambdarank_truncation_level": 30, "learning_rate": 0.05, "num_leaves": 15,
    "max_depth": 7, "min_data_in_leaf": 100, "lambda_l2": 5.0, "feature_fraction": 0.7, "bagging_fraction": 0.7,
    "bagging_freq": 1, "max_bin": 63, "seed": 0, "num_threads": 1, "deterministic": True, "force_row_wise": True,
    "verbosity": -1,
}  # fmt: skip
BY_HAND = Weights(learned=0.0)
_COLUMNS = ("R@5", "R@10", "nDCG@10", "R@1000t")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question's best memories: their features, sums, and which of them answer it."""

    rows: NDArray[np.float32]
    sums: NDArray[np.float32]
    right: NDArray[np.bool_]


def run(evidence: Evidence, note: Callable[[str], None]) -> Iterator[str]:
    """The figures of conversations left out, and the file."""
    yield f"{evidence.told()}.\n"
    with ExitStack() as stack:
        memories: dict[tuple[str, str, str], dict[str, Memory]] = {}
        for data, units in evidence.settings():
            for name, embedder in (("MiniLM", evidence.embeddings), ("bundled", "wordllama")):
                with said(note, f"{data}, {units}, {name}"):
                    memories[data, units, name] = {
                        one.id: stack.enter_context(remembering(one, units, embedder)) for one in evidence.data[data]
                    }
        asked: dict[str, list[Asked]] = defaultdict(list)
        for (data, _, _), kept in memories.items():
            for conversation in evidence.data[data]:
                asked[conversation.id] += _asked(kept[conversation.id], conversation.questions)
        left_out = {}
        for out in asked:
            with said(note, f"trees without {out}"):
                left_out[out] = trees_of(fitted([one for name, some in asked.items() if name != out for one in some]))
        rows = []
        for (data, units, name), kept in memories.items():
            cells = []
            for weights in (BY_HAND, Weights()):
                for memory in kept.values():
                    memory._searcher.weights = weights
                means = evidence.evaluate(data, units, lambda one, _: _searching(kept[one.id], left_out[one.id]))  # noqa: B023
                cells += [f"{100 * means[column]:.1f}" for column in _COLUMNS]
            rows.append([data, units, name, *cells])
        yield table(
            ["data", "units", "embedder", *(f"{c} by hand" for c in _COLUMNS), *(f"{c} with trees" for c in _COLUMNS)],
            rows,
        )
        save(learned.FILE, fitted([one for some in asked.values() for one in some]), evidence.digest())
        yield f"{learned.FILE.name}: {learned.FILE.stat().st_size:,} bytes.\n"


def _searching(memory: Memory, trees: learned.Trees) -> Callable[[str, int], list[tuple[set[str], str]]]:
    search = searching(memory)

    def found(question: str, k: int) -> list[tuple[set[str], str]]:
        with patch.object(learned, "_TREES", lambda: trees):
            return search(question, k)

    return found


def _asked(memory: Memory, questions: Sequence[Any]) -> Iterator[Asked]:
    """What the trees look at when questions are asked by hand-written weights alone."""
    pools: list[tuple[Pool, Query]] = []
    real = search.scored

    def spy(pool: Pool, query: Query, weights: Weights) -> Scored:
        pools.append((pool, query))
        return real(pool, query, weights)

    memory._searcher.weights = BY_HAND
    sources: dict[int, set[str]] = {}
    with patch.object(search, "scored", spy):
        for question in questions:
            memory.search(question.text, user_id="user", limit=1)
            pool, query = pools.pop()
            if not sources:
                with memory._journal.read() as reader:
                    rows = reader.memories_by_row(pool.order.tolist())
                sources = {item: set(row.sources) for item, row in rows.items()}
            shares = real(pool, query, BY_HAND).shares
            best, features = learned.features(pool, query, shares)
            sums = np.sum([share[best] for share in shares.values()], axis=0)
            right = np.array([not question.gold.isdisjoint(sources[item]) for item in pool.order[best].tolist()])
            if right.any():
                yield Asked(features, sums, right)


def fitted(asked: Sequence[Asked]) -> Any:
    """A LightGBM booster on top of the sums."""
    import lightgbm

    data = lightgbm.Dataset(
        np.concatenate([one.rows for one in asked]),
        np.concatenate([one.right for one in asked]),
        group=[len(one.rows) for one in asked],
        init_score=SCALE * np.concatenate([one.sums for one in asked]),
    )
    return lightgbm.train(PARAMETERS, data, TREES)


def trees_of(booster: Any) -> learned.Trees:
    """A booster as the package reads it: values per sum of the signals, thresholds that 32 bits hold."""
    told = booster.dump_model()["tree_info"]
    shape = (len(told), 2 * max(tree["num_leaves"] for tree in told) - 1)
    trees = learned.Trees(
        np.zeros(shape, np.uint8), np.full(shape, np.inf, np.float32), np.zeros(shape, np.uint8),
        np.zeros(shape, np.uint8), np.zeros(shape, np.float32), 0,
    )  # fmt: skip
    depths = [_put(trees, number, tree["tree_structure"], [0]) for number, tree in enumerate(told)]
    return replace(trees, depth=max(depths))


def _put(trees: learned.Trees, tree: int, node: dict[str, Any], free: list[int]) -> int:
    """Writes a node and those below it into the next free places; returns how deep they go."""
    at = free[0]
    free[0] += 1
    if "leaf_value" in node and "left_child" not in node:
        trees.left[tree, at] = trees.right[tree, at] = at
        trees.value[tree, at] = node["leaf_value"] / SCALE
        return 0
    threshold = np.float32(node["threshold"])
    # Of the numbers that 32 bits hold the same ones go to the left.
    trees.threshold[tree, at] = (
        threshold if threshold <= node["threshold"] else np.nextafter(threshold, np.float32(-np.inf))
    )
    trees.feature[tree, at] = node["split_feature"]
    trees.left[tree, at] = free[0]
    left = _put(trees, tree, node["left_child"], free)
    trees.right[tree, at] = free[0]
    return 1 + max(left, _put(trees, tree, node["right_child"], free))


def save(file: Path, booster: Any, data: str) -> None:
    """Writes the trees with what they were made of: the names of the features, the parameters, a digest of the data."""
    trees = trees_of(booster)
    np.savez_compressed(
        file,
        feature=trees.feature,
        threshold=trees.threshold,
        left=trees.left,
        right=trees.right,
        value=trees.value,
        depth=np.int64(trees.depth),
        features=np.array(learned.FEATURES),
        parameters=np.array(json.dumps(PARAMETERS | {"trees": TREES, "scale": SCALE, "best": learned.BEST})),
        data=np.array(data),
    )
