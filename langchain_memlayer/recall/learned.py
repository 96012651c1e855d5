"""What the sum of the signals misses in conversations: trees over the signals of its best memories.

The trees are learned on top of the sum (LambdaMART; `integration_tests/benchmarks/learn.py` makes `learned.npz`), so
they add to it as one more signal. They know conversations of people who are named, in sessions and in Latin script,
and say nothing elsewhere: there the weights of the signals, which people chose, stand alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.recall import signals
from langchain_memlayer.recall.calibration import is_latin
from langchain_memlayer.recall.pool import Pool, Query, Scores
from langchain_memlayer.threads import Once, lazy

FILE = Path(__file__).with_name("learned.npz")

BEST = 80
"""How many memories are looked at: those with the highest sums."""

FEATURES = (
    "dense", "keyword", "words", "cosine", "neighbour", "link", "session", "bridge", "speaker", "date", "turn", "asks",
    "length", "before", "after", "further", "matched", "of_session", "of_best", "dense_rank", "keyword_rank", "answers",
    "other", "best_of_session", "facts", "named", "dated",
)  # fmt: skip


@dataclass(frozen=True)
class Trees:
    """Regression trees; node `j` of tree `i` is at `[i, j]` of every array, and the root is node 0.

    Attributes:
        feature: What a node looks at, as an index into `FEATURES`; shape (trees, nodes).
        threshold: Up to which value it goes to the left.
        left: The node on the left; of a leaf itself.
        right: The node on the right; of a leaf itself.
        value: What a leaf gives.
        depth: How many steps lead to the farthest leaf.
    """

    feature: NDArray[np.uint8]
    threshold: NDArray[np.float32]
    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    value: NDArray[np.float32]
    depth: int

    @classmethod
    def load(cls, file: Path = FILE) -> Trees:
        """Those of a file that `learn.py` wrote."""
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("feature", "threshold", "left", "right", "value")}
            return cls(**arrays, depth=int(data["depth"]))

    def sums(self, rows: NDArray[np.float32]) -> Scores:
        """What all trees give together for each row of features, shape (rows, features)."""
        roots, feature, threshold, below, value = self._nodes
        values, starts = np.ascontiguousarray(rows).ravel(), (np.arange(len(rows)) * rows.shape[1])[:, None]
        at = np.broadcast_to(roots, (len(rows), len(roots)))
        for _ in range(self.depth):
            at = below.take(2 * at + (values.take(starts + feature.take(at)) <= threshold.take(at)))
        total: Scores = value.take(at).sum(axis=1, dtype=np.float32)
        return total

    @lazy
    def _nodes(self) -> tuple[NDArray[Any], ...]:
        """The nodes of all trees in a row: the roots, and of each node what it looks at, up to where, what is below."""
        trees, nodes = self.feature.shape
        roots = np.arange(trees) * nodes
        below = np.stack((self.right, self.left), axis=-1) + roots[:, None, None]
        return roots, self.feature.ravel().astype(np.intp), self.threshold.ravel(), below.ravel(), self.value.ravel()


_TREES = Once(Trees.load)


def learned(pool: Pool, query: Query, shares: Mapping[str, Scores], *, named: bool) -> Scores:
    """What the trees add to the sum of the shares for the best memories of a conversation; 0 for all others.

    They say nothing of a pool that is not `named` (`is_told_by_names`).
    """
    out = np.zeros(len(pool), np.float32)
    if named and is_latin(query.text):
        best, rows = features(pool, query, shares)
        out[best] = _TREES().sums(rows)
    return out


def is_told_by_names(pool: Pool) -> bool:
    """Whether a pool is a conversation, and most of its turns are said by people who are named, in sessions."""
    by_named = pool.is_turn & (pool.session >= 0) & (pool.speaker >= 0)
    return signals.is_conversation(pool) and bool(2 * np.count_nonzero(by_named) > np.count_nonzero(pool.is_turn))


def features(pool: Pool, query: Query, shares: Mapping[str, Scores]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The memories of a pool that the shares put first, in no order, with what the trees look at.

    Returns:
        Their indices into the pool, and a row of `FEATURES` for each.
    """
    total: Scores = np.sum([*shares.values()], axis=0, dtype=np.float32)
    best = np.argpartition(-total, BEST)[:BEST] if len(pool) > BEST else np.arange(len(pool))
    base, turns = shares["dense"] + shares["keyword"], pool.is_turn[best]
    before, after, answers = (np.zeros(len(pool), np.float32) for _ in range(3))
    first, second = pool.following
    before[second], after[first], answers[second] = base[first], base[second], pool.asks[first]
    further = np.zeros(len(pool), np.float32)
    further[second] = before[first]
    further[first] = np.maximum(further[first], after[second])
    lively = np.zeros(int(pool.session.max(initial=-1)) + 2, np.float32)
    np.maximum.at(lively, pool.session, base)
    cosine = np.zeros(len(pool), np.float32) if pool.dense is None else np.nan_to_num(pool.dense)
    idf = np.log1p((pool.total - query.frequencies + 0.5) / (query.frequencies + 0.5))
    matched = idf @ (pool.counts > 0) / max(float(idf.sum()), 1e-9)
    speakers = signals.named_speakers(pool, query)
    other = (pool.speaker[best] >= 0) & (pool.speaker[best] != speakers[0]) if len(speakers) == 1 else 0
    lengths = pool.terms.lengths
    columns = {
        **{name: shares[name][best] for name in FEATURES if name in shares},
        "words": pool.keyword[best] / (pool.keyword_ceiling or 1),
        "cosine": cosine[best],
        "turn": turns,
        "asks": pool.asks[best],
        "length": np.log1p(lengths[best]) - np.log1p(lengths.mean()),
        "before": before[best],
        "after": after[best],
        "further": further[best],
        "matched": matched[best],
        "of_session": base[best] / np.maximum(lively[pool.session[best]], 1e-9),
        "of_best": total[best] / max(float(total.max(initial=0)), 1e-9),
        "dense_rank": _ranks(cosine, best),
        "keyword_rank": _ranks(pool.keyword, best),
        "answers": answers[best],
        "other": other,
        "best_of_session": lively[pool.session[best]],
        "facts": not pool.is_turn.all(),
        "named": len(speakers),
        "dated": shares["date"].max(initial=0) > 0,
    }
    rows = np.empty((len(best), len(FEATURES)), np.float32)
    for place, name in enumerate(FEATURES):
        rows[:, place] = columns[name]
    return best, rows


def _ranks(values: Scores, best: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many memories of the pool have a higher value than each of the best."""
    return len(values) - np.searchsorted(np.sort(values), values[best], side="right")
