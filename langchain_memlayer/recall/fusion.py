"""Fusion: from signals to a score, a relevance and an order.

```
h = dense weight * cosine + keyword weight * BM25         each from 0 to 1 by the scope's own constants
s = h + neighbour + link + session + bridge + graph + speaker + date + exact + version + fact
      - question - barren - ended + what trees make of these in conversations
a fact that scores nearly as well as its turn takes the turn's place
walk down s; leave out a fact whose turns are shown already, and a turn that a fact shown stands for
```
A turn says all that its facts say, so it covers them; a fact covers its turns, but not the other facts of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.recall import signals
from langchain_memlayer.recall.learned import is_told_by_names, learned
from langchain_memlayer.recall.pool import Mask, Pool, Query, Scores, Spread
from langchain_memlayer.recall.versions import says_only_when, version
from langchain_memlayer.threads import lazy


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each signal adds to a score.

    Attributes:
        dense: Of the cosine, where the embedder knows the script and the words answer well; the rest to 1 is BM25's.
            The less of the query's words any text has, the more the cosine counts. Outside of conversations of people
            who are named also by how well the embedder tells texts apart, and less for turns that belong together.
        neighbour: Of the better one of the turns before and after, when there are facts too; less where turns are long
            or speak of something else than those around them.
        neighbour_alone: The same in a scope of turns only.
        link: Of the best linked fact or source turn.
        session: Of the mean of the session's three best; less where `neighbour` is.
        bridge: Of what is shared with the best hits beyond the query's words, by the root of what words count.
        graph: For memories near the entities that the query names.
        speaker: For memories by or about the one speaker that the query names.
        date: For memories of the time that the query names.
        date_alone: The same where the query says nothing else.
        window: What a neighbour's words count beside a turn's own, where several people speak in sessions.
        exact: For memories with the identifiers and quoted names of the query.
        version: For the version of a value that the query asks for.
        fact: For facts, which say in fewer words what their turns say.
        fact_named: The same where several people who are named speak in sessions: what they say is told in full.
        question: Taken from turns that only ask.
        barren: Taken from turns that were read and say nothing.
        ended: Taken from memories that no longer hold.
        learned: Of what the trees say.
        stand_in: By how much a turn must beat its fact in score and in relevance to be a hit of its own.
    """

    dense: float = 0.6
    neighbour: float = 0.3
    neighbour_alone: float = 0.4
    link: float = 0.1
    session: float = 0.6
    bridge: float = 0.475
    graph: float = 0.15
    speaker: float = 0.15
    date: float = 0.2
    date_alone: float = 2.0
    window: float = 0.5
    exact: float = 1.5
    version: float = 1.0
    fact: float = 0.15
    fact_named: float = 0.05
    question: float = 0.1
    barren: float = 1.0
    ended: float = 2.0
    learned: float = 1.0
    stand_in: float = 0.3


@dataclass(frozen=True, eq=False)
class Scored:
    """A pool with what its memories score for a query; sums are made once, at their first use.

    Attributes:
        pool: The memories.
        shares: What each signal adds for each of them, by name.
    """

    pool: Pool
    shares: Mapping[str, Scores]

    @lazy
    def total(self) -> Scores:
        """The sum of the shares."""
        total = np.zeros(len(self.pool), np.float32)
        for share in self.shares.values():
            total += share
        return total

    @lazy
    def relevance(self) -> Scores:
        """From 0 to 1; absolute."""
        return signals.relevance(self.pool)

    @lazy
    def unit(self) -> np.float32:
        """What a score's part of the sum is multiplied by: the best memory of the pool scores what it is relevant.

        So a good hit has a high score and a poor one a low one, whichever of them may be hits. What neither words nor
        meaning speak for, but the graph or a date does, scores what they add. Of the best that are alike the most
        relevant counts, wherever in the pool it is.
        """
        high = self.total.max(initial=0)
        return np.float32((self.relevance[self.total == high].max() or min(high, 1)) / high if high > 0 else 0)


@dataclass(frozen=True, slots=True)
class Ranking:
    """What was found, best first.

    Attributes:
        order: Indices into the pool.
        score: From 0 to 1; orders.
        relevance: From 0 to 1; absolute, so that a threshold means the same for every query.
        scored: What they are of.
        lifted: What standing in for a turn adds to the score of each of the pool.
    """

    order: NDArray[np.int64]
    score: Scores
    relevance: Scores
    scored: Scored
    lifted: Scores

    def shares_of(self, rank: int) -> dict[str, float]:
        """What each signal added to the score of the hit at `rank`."""
        place, shares = self.order[rank], {**self.scored.shares, "stand_in": self.lifted}
        return {name: round(float(share[place] * self.scored.unit), 4) for name, share in shares.items()}


DEFAULT = Weights()
_SKILLED, _TURNS, _LONG_TURNS = 0.2, 0.15, 0.2
"""What the skill of an embedder adds to the weight of meaning, and what turns that belong together take from it."""
_BRIDGED = 0.9
"""Up to what share of the best base score bridges lift."""


def rank(scored: Scored, eligible: Mask, *, limit: int, weights: Weights = DEFAULT) -> Ranking:
    """The best memories of a pool, `limit` at most; `eligible` says which of them may be hits, shape (n,)."""
    pool = scored.pool
    total = _lifted(scored, eligible, weights)
    order = _uncovered(pool, np.flatnonzero(eligible), total, limit)
    score = np.clip(total[order] * scored.unit, 0.0, 1.0).astype(np.float32)
    return Ranking(order, score, scored.relevance[order], scored, total - scored.total)


def is_eligible(scored: Scored, allowed: Mask, threshold: float | None) -> Mask:
    """Those of `allowed` that a signal speaks for, and that are as relevant as `threshold` asks."""
    eligible = allowed & ((scored.relevance > 0) | (scored.total > 0))
    return eligible if threshold is None else eligible & (scored.relevance >= threshold)


def best(scored: Scored, eligible: Mask, most: int) -> NDArray[np.int64]:
    """The `most` of those that may be hits that score best, whether or not others cover them, and facts of these turns.

    In no order. A fact may stand for its turn however low it scores itself.
    """
    places = np.flatnonzero(eligible)
    if len(places) <= most:
        return places
    kept = places[np.argpartition(-scored.total[places], most)[:most]]
    facts, turns = scored.pool.links.T
    with_facts: NDArray[np.int64] = np.union1d(kept, facts[eligible[facts] & np.isin(turns, kept)])
    return with_facts


def base_shares(pool: Pool, weights: Weights, query: Query | None = None) -> tuple[Scores, Scores]:
    """What meaning and words add: the rest spreads it to what stands around."""
    keyword, spread = pool.keyword, pool.keyword_spread
    if query is not None and weights.window and signals.is_conversation(pool):
        keyword = signals.windowed(pool, query, weights.window)
        spread = Spread(0.0, float(keyword.max(initial=0.0)))
    meaning = of_meaning(pool, weights)
    dense = np.zeros(len(pool), np.float32)
    if pool.dense is not None:
        dense = np.float32(meaning) * pool.dense_spread.scale(pool.dense)
    return dense, np.float32(1 - meaning) * spread.scale(keyword)


def of_meaning(pool: Pool, weights: Weights) -> float:
    """What meaning counts for a query, from 0 to 1; the rest is the words'."""
    if pool.dense is None:
        return 0.0
    # Words that tell no memories apart leave the order to meaning, however little of the script the embedder knows.
    trust = 1.0 if pool.keyword_spread.flat else pool.dense_trust
    dense = weights.dense
    if not signals.is_conversation(pool):
        # A note says by itself what it means; of turns, and most of long ones, a vector has what else was spoken of.
        apart = _TURNS + _LONG_TURNS * (1 - signals.brevity(pool))
        dense = min(1.0, max(0.0, dense + _SKILLED * pool.dense_skill - apart * pool.together))
    return trust * (1 - (1 - dense * pool.dense_fluency) * signals.saying(pool))


def scored(pool: Pool, query: Query, weights: Weights) -> Scored:
    """A pool with what each signal adds for each of its memories."""
    dense, keyword = base_shares(pool, weights, query)
    base = dense + keyword
    near = weights.neighbour_alone if pool.is_turn.all() else weights.neighbour
    named = is_told_by_names(pool)
    short, by_words = signals.brevity(pool), sqrt(max(0.0, 1 - of_meaning(pool, weights)))
    date = signals.date(pool, query)
    alone = date.any() and says_only_when(query.text, query.reference)
    shares = {
        "dense": dense,
        "keyword": keyword,
        "neighbour": np.float32(near * short * pool.together) * signals.neighbour(pool, base),
        "link": np.float32(weights.link) * signals.linked(pool, base),
        "session": np.float32(weights.session * short * pool.together) * signals.session_prior(pool, base),
        "bridge": _bridged(pool, base, np.float32(weights.bridge * by_words) * signals.bridge(pool, query, base)),
        "graph": np.float32(weights.graph) * pool.graph,
        "speaker": np.float32(weights.speaker) * signals.speaker(pool, query),
        "date": np.float32(weights.date_alone if alone else weights.date) * date,
        "exact": np.float32(weights.exact) * signals.exact(pool, query),
        "version": np.float32(weights.version) * version(pool, query, base),
        "fact": np.float32(weights.fact_named if named else weights.fact) * signals.fact(pool),
        "question": -np.float32(weights.question) * signals.question(pool),
        "barren": -np.float32(weights.barren) * pool.barren,
        "ended": -np.float32(weights.ended) * pool.ended,
    }
    if weights.learned:
        shares["learned"] = np.float32(weights.learned) * learned(pool, query, shares, named=named)
    # What surely says nothing is not lifted by what stands around it, or by what repeats it.
    if (idle := pool.barren >= 1).any():
        shares |= {name: np.where(idle, np.float32(0), shares[name]) for name in ("neighbour", "session", "bridge")}
    return Scored(pool, shares)


def _bridged(pool: Pool, base: Scores, bridge: Scores) -> Scores:
    """What bridges add: outside of conversations they lift to just below what the query itself found best."""
    if signals.is_conversation(pool):
        return bridge
    room: Scores = np.maximum(np.float32(_BRIDGED) * base.max(initial=0) - base, 0).astype(np.float32)
    return np.minimum(bridge, room)


def _lifted(scored: Scored, eligible: Mask, weights: Weights) -> Scores:
    """The scores, where the best fact of a turn has the turn's score if it answers nearly as well.

    A fact says what matters of its turn in fewer words. A turn that scores much better and is much more relevant says
    something that it does not.
    """
    pool, total, margin = scored.pool, scored.total, weights.stand_in
    facts, turns = pool.links[eligible[pool.links].all(axis=1)].T
    if not len(facts):
        return total
    best_fact = np.full(len(pool), -np.inf, np.float32)
    np.maximum.at(best_fact, turns, total[facts])
    by_relevance = scored.relevance[turns] - scored.relevance[facts]
    answers_nearly = (total[turns] - total[facts] <= np.float32(margin)) | (by_relevance <= np.float32(margin))
    stands = (total[facts] == best_fact[turns]) & answers_nearly
    lifted = total.copy()
    np.maximum.at(lifted, facts[stands], total[turns[stands]])
    return lifted


def _uncovered(pool: Pool, places: NDArray[np.int64], total: Scores, limit: int) -> NDArray[np.int64]:
    """The best `limit` of some places, without those that better ones cover."""
    values = total[places]
    fetched = 4 * limit + 32
    while True:
        # A full sort of ten thousand costs more than the signals; the best few nearly always suffice.
        top = places[values >= np.partition(values, -fetched)[-fetched]] if fetched < len(places) else places
        # Of equal ones the facts first: one of them may stand for its turn.
        chosen = _walk(pool, top[np.lexsort((pool.order[top], pool.is_turn[top], -total[top]))], limit)
        if len(chosen) == limit or fetched >= len(places):
            return np.array(chosen, np.int64)
        fetched *= 8


def _walk(pool: Pool, ranked: NDArray[np.int64], limit: int) -> list[int]:
    shown_turns: set[int] = set()
    covered: set[int] = set()
    chosen: list[int] = []
    for index, turn in zip(ranked.tolist(), pool.is_turn[ranked].tolist(), strict=True):
        sources = pool.sources(index)
        if sources and (covered if turn else shown_turns) >= sources:
            continue
        covered |= sources
        if turn:
            shown_turns |= sources
        chosen.append(index)
        if len(chosen) == limit:
            break
    return chosen
