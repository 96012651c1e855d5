"""Signals and their fusion: which memories answer a query, as pure functions over arrays.

A `Pool` holds what the read path knows of the memories that are scored: the whole scope up to 10,000 rows, the best
candidates and their neighbours above. `rank` turns it into an order:

```
h = dense weight * cosine + keyword weight * BM25            each from 0 to 1 by the scope's own constants
s = h + neighbours + linked facts or turns + session prior + speaker - question - ended
walk down s; leave out a memory whose source turns are all covered already
```

Each signal gives zeros where it has nothing to say: notes without sessions have no neighbours and no session prior, one
speaker is no speaker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal adds to a score.

    Attributes:
        dense: Of the cosine, beside `1 - dense` for BM25.
        neighbour: Of the better one of the turns before and after, when there are facts too.
        neighbour_alone: The same in a scope of turns only.
        link: Of the best linked fact or source turn.
        session: Of the mean of the session's three best.
        speaker: For memories by or about the one speaker that the query names.
        question: Taken from turns that only ask.
        ended: Taken from memories that no longer hold.
    """

    dense: float = 0.6
    neighbour: float = 0.3
    neighbour_alone: float = 0.5
    link: float = 0.1
    session: float = 0.6
    speaker: float = 0.1
    question: float = 0.1
    ended: float = 0.3


@dataclass(frozen=True, slots=True)
class Spread:
    """The smallest and largest value that a signal has in a scope for one query."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Scores) -> Spread:
        """That of the given values; NaN ones do not count."""
        known = values[~np.isnan(values)]
        return cls(float(known.min()), float(known.max())) if len(known) else cls(0.0, 0.0)

    def scale(self, values: Scores) -> Scores:
        """`values` from 0 to 1; NaN becomes 0, and so does everything when the scope has one value only."""
        width = self.high - self.low
        if width <= 1e-9:
            return np.zeros(len(values), np.float32)
        return np.clip(np.nan_to_num((values - self.low) / width), 0.0, 1.0).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The memories that are scored; index `i` of every array is one of them, shape (n,).

    Attributes:
        dense: Cosines, NaN without a vector; None without an embedder.
        dense_spread: The scope's constants for them.
        keyword: BM25.
        keyword_spread: The scope's constants for it.
        keyword_ceiling: The BM25 that a text could attain for this query.
        is_turn: Turns, as against facts.
        session: A number for each session, negative for none.
        order: Row ids; they grow in the order in which turns were said.
        speaker: A number for each name, negative for none.
        asks: The text ends with a question mark.
        ended: No longer holds.
        links: Pairs (fact, turn) of indices, shape (m, 2).
        cited: Row ids of the turns that facts come from, those of one memory after those of another.
        starts: Where those of each memory begin in `cited`, and the end, shape (n + 1,).
        speakers: The names behind `speaker`.
    """

    dense: Scores | None
    dense_spread: Spread
    keyword: Scores
    keyword_spread: Spread
    keyword_ceiling: float
    is_turn: NDArray[np.bool_]
    session: NDArray[np.int32]
    order: NDArray[np.int64]
    speaker: NDArray[np.int32]
    asks: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    links: NDArray[np.int64]
    cited: NDArray[np.int64]
    starts: NDArray[np.int64]
    speakers: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.order)

    def sources(self, index: int) -> set[int]:
        """The row ids of the turns that a memory comes from; a turn comes from itself."""
        if self.is_turn[index]:
            return {int(self.order[index])}
        return set(self.cited[self.starts[index] : self.starts[index + 1]].tolist())


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


def memory_text(text: str, *, name: str | None, time: datetime | None) -> str:
    """What is embedded and indexed of a memory: its text with who said it and when, as `Ann (08 May 2023): text`."""
    said = f"({time:%d %B %Y})" if time is not None else ""
    head = " ".join(part for part in (name, said) if part)
    return f"{head}: {text}" if head else text


def rank(
    pool: Pool,
    query: str,
    *,
    allowed: NDArray[np.bool_],
    limit: int,
    threshold: float | None = None,
    weights: Weights = Weights(),  # noqa: B008 - frozen
) -> Ranking:
    """The best memories of a pool.

    Args:
        pool: What may be scored.
        query: The question, for the speakers it names.
        allowed: Which of the pool may be hits, shape (n,).
        limit: How many at most.
        threshold: Leaves out those of lower relevance.
        weights: Of the signals.
    """
    shares = signals(pool, query, weights)
    total = np.sum(list(shares.values()), axis=0, dtype=np.float32)
    # The sum of all that the signals could add: it does not depend on the pool, so a score means the same tomorrow.
    most = 1 + weights.neighbour_alone + weights.link + weights.session + weights.speaker
    score = np.clip(total / most, 0.0, 1.0).astype(np.float32)
    relevance = relevance_of(pool)
    able = allowed & ((relevance > 0) | (score > 0))
    if threshold is not None:
        able &= relevance >= threshold
    order = _uncovered(pool, np.flatnonzero(able), total, limit)
    return Ranking(
        order, score[order], relevance[order], {name: share[order] / np.float32(most) for name, share in shares.items()}
    )


def signals(pool: Pool, query: str, weights: Weights) -> dict[str, Scores]:
    """What each signal adds for each memory of the pool, by name."""
    dense, keyword = _base(pool, weights)
    base = dense + keyword
    alone = bool(pool.is_turn.all())
    return {
        "dense": dense,
        "keyword": keyword,
        "neighbour": (weights.neighbour_alone if alone else weights.neighbour) * neighbour(pool, base),
        "link": weights.link * linked(pool, base),
        "session": weights.session * session_prior(pool, base),
        "speaker": weights.speaker * speaker(pool, query),
        "question": -weights.question * (pool.asks & pool.is_turn).astype(np.float32),
        "ended": -weights.ended * pool.ended.astype(np.float32),
    }


def relevance_of(pool: Pool) -> Scores:
    """Cosine, or BM25 as a share of what the query could attain, whichever is higher; from 0 to 1."""
    best = pool.keyword / pool.keyword_ceiling if pool.keyword_ceiling > 0 else np.zeros(len(pool), np.float32)
    if pool.dense is not None:
        best = np.fmax(best, pool.dense)
    return np.clip(best, 0.0, 1.0).astype(np.float32)


def neighbour(pool: Pool, base: Scores) -> Scores:
    """The better base score of the turns just before and just after in the same session."""
    out = np.zeros(len(pool), np.float32)
    turns = np.flatnonzero(pool.is_turn & (pool.session >= 0))
    if len(turns) < 2:
        return out
    turns = turns[np.lexsort((pool.order[turns], pool.session[turns]))]
    together = pool.session[turns[1:]] == pool.session[turns[:-1]]
    before, after = turns[:-1][together], turns[1:][together]
    out[after] = base[before]
    out[before] = np.maximum(out[before], base[after])
    return out


def linked(pool: Pool, base: Scores) -> Scores:
    """The best base score of a fact's turns, or of a turn's facts."""
    out = np.zeros(len(pool), np.float32)
    if len(pool.links):
        facts, turns = pool.links.T
        np.maximum.at(out, facts, base[turns])
        np.maximum.at(out, turns, base[facts])
    return out


def session_prior(pool: Pool, base: Scores) -> Scores:
    """The mean of the three best base scores of each memory's session."""
    out = np.zeros(len(pool), np.float32)
    members = np.flatnonzero(pool.session >= 0)
    if not len(members):
        return out
    ranked = members[np.lexsort((-base[members], pool.session[members]))]
    starts = np.flatnonzero(np.diff(pool.session[ranked], prepend=-1))
    sizes = np.diff(starts, append=len(ranked))
    if len(starts) < 2:
        # One session is none: what all share tells nothing.
        return out
    place = np.arange(len(ranked)) - np.repeat(starts, sizes)
    best = np.where(place < 3, base[ranked], 0.0)
    mean = np.add.reduceat(best, starts) / np.minimum(sizes, 3)
    out[ranked] = np.repeat(mean, sizes)
    return out


def speaker(pool: Pool, query: str) -> Scores:
    """1 for memories by or about the one known speaker that the query names."""
    named = [code for code, name in pool.speakers.items() if len(pool.speakers) > 1 and _names(query, name)]
    if len(named) != 1:
        return np.zeros(len(pool), np.float32)
    return (pool.speaker == named[0]).astype(np.float32)


def _names(query: str, name: str) -> bool:
    if not name.isascii():
        return name in query
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", query, re.IGNORECASE) is not None


def _base(pool: Pool, weights: Weights) -> tuple[Scores, Scores]:
    keyword = pool.keyword_spread.scale(pool.keyword)
    if pool.dense is None:
        return np.zeros(len(pool), np.float32), keyword
    dense = pool.dense_spread.scale(pool.dense)
    return weights.dense * dense, (1 - weights.dense) * keyword


def _uncovered(pool: Pool, able: NDArray[np.int64], total: Scores, limit: int) -> NDArray[np.int64]:
    """The best `limit` of `able`, without those whose source turns are all covered by better ones."""
    ranked = able[np.lexsort((pool.order[able], -total[able]))]
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
    return np.array(chosen, np.int64)
