"""Fusion: from signals to a score, a relevance and an order.

```
h = dense weight * cosine + keyword weight * BM25         each from 0 to 1 by the scope's own constants
s = h + neighbour + link + session + bridge + graph + speaker + date + fact - question - ended
walk down s; leave out a memory whose source turns are all covered already
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.recall import signals
from langchain_memlayer.recall.pool import Pool, Query, Scores


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal adds to a score.

    Attributes:
        dense: Of the cosine, where it discriminates as well as the embedder can; the rest to 1 is BM25's.
        neighbour: Of the better one of the turns before and after, when there are facts too.
        neighbour_alone: The same in a scope of turns only.
        link: Of the best linked fact or source turn.
        session: Of the mean of the session's three best.
        bridge: Of what is shared with the best hits beyond the query's words.
        graph: For memories near the entities that the query names.
        speaker: For memories by or about the one speaker that the query names.
        date: For memories of the time that the query names.
        fact: For facts, which say in fewer words what their turns say.
        question: Taken from turns that only ask.
        ended: Taken from memories that no longer hold.
    """

    dense: float = 0.6
    neighbour: float = 0.3
    neighbour_alone: float = 0.4
    link: float = 0.1
    session: float = 0.6
    bridge: float = 0.3
    graph: float = 0.15
    speaker: float = 0.15
    date: float = 0.2
    fact: float = 0.05
    question: float = 0.1
    ended: float = 0.3

    @property
    def most(self) -> float:
        """What all signals together could add. It does not depend on a pool, so a score means the same tomorrow."""
        near = self.neighbour_alone + self.link + self.session + self.bridge + self.graph
        return 1 + near + self.speaker + self.date + self.fact


@dataclass(frozen=True, slots=True)
class Ranking:
    """What was found, best first.

    Attributes:
        order: Indices into the pool.
        score: From 0 to 1; orders.
        relevance: From 0 to 1; absolute, so that a threshold means the same for every query.
        shares: What each signal added to the score, by name.
    """

    order: NDArray[np.int64]
    score: Scores
    relevance: Scores
    shares: Mapping[str, Scores] = field(default_factory=dict)

    def shares_of(self, rank: int) -> dict[str, float]:
        """What each signal added to the score of the hit at `rank`."""
        return {name: round(float(share[rank]), 4) for name, share in self.shares.items()}


DEFAULT = Weights()


def rank(
    pool: Pool,
    query: Query,
    *,
    allowed: NDArray[np.bool_],
    limit: int,
    threshold: float | None = None,
    weights: Weights = DEFAULT,
) -> Ranking:
    """The best memories of a pool.

    Args:
        pool: What may be scored.
        query: The question.
        allowed: Which of the pool may be hits, shape (n,).
        limit: How many at most.
        threshold: Leaves out those of lower relevance.
        weights: Of the signals.
    """
    shares = weighed(pool, query, weights)
    total = np.zeros(len(pool), np.float32)
    for share in shares.values():
        total += share
    relevance = signals.relevance(pool)
    able = allowed & ((relevance > 0) | (total > 0))
    if threshold is not None:
        able &= relevance >= threshold
    order = _uncovered(pool, np.flatnonzero(able), total, limit)
    most = np.float32(weights.most)
    score = np.clip(total[order] / most, 0.0, 1.0).astype(np.float32)
    return Ranking(order, score, relevance[order], {name: share[order] / most for name, share in shares.items()})


def weighed(pool: Pool, query: Query, weights: Weights) -> dict[str, Scores]:
    """What each signal adds for each memory of the pool, by name."""
    dense_weight = weights.dense * pool.dense_trust if pool.dense is not None else 0.0
    dense = np.zeros(len(pool), np.float32)
    if pool.dense is not None:
        dense = np.float32(dense_weight) * pool.dense_spread.scale(pool.dense)
    keyword = np.float32(1 - dense_weight) * pool.keyword_spread.scale(pool.keyword)
    base = dense + keyword
    near = weights.neighbour_alone if pool.is_turn.all() else weights.neighbour
    return {
        "dense": dense,
        "keyword": keyword,
        "neighbour": np.float32(near) * signals.neighbour(pool, base),
        "link": np.float32(weights.link) * signals.linked(pool, base),
        "session": np.float32(weights.session) * signals.session_prior(pool, base),
        "bridge": np.float32(weights.bridge) * signals.bridge(pool, query, base),
        "graph": np.float32(weights.graph) * pool.graph,
        "speaker": np.float32(weights.speaker) * signals.speaker(pool, query),
        "date": np.float32(weights.date) * signals.date(pool, query),
        "fact": np.float32(weights.fact) * signals.fact(pool),
        "question": -np.float32(weights.question) * signals.question(pool),
        "ended": -np.float32(weights.ended) * signals.ended(pool),
    }


def _uncovered(pool: Pool, able: NDArray[np.int64], total: Scores, limit: int) -> NDArray[np.int64]:
    """The best `limit` of `able`, without those whose source turns are all covered by better ones."""
    values = total[able]
    want = 4 * limit + 32
    while True:
        # A full sort of ten thousand costs more than the signals; the best few nearly always suffice.
        part = able[values >= np.partition(values, -want)[-want]] if want < len(able) else able
        chosen = _walk(pool, part[np.lexsort((pool.order[part], -total[part]))], limit)
        if len(chosen) == limit or want >= len(able):
            return np.array(chosen, np.int64)
        want *= 8


def _walk(pool: Pool, ranked: NDArray[np.int64], limit: int) -> list[int]:
    covered: set[int] = set()
    chosen: list[int] = []
    for index in ranked.tolist():
        sources = pool.sources(index)
        if sources and covered >= sources:
            continue
        covered.update(sources)
        chosen.append(index)
        if len(chosen) == limit:
            break
    return chosen
