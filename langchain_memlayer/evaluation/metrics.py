"""How good a ranking is, and how sure that is. Pure functions.

A ranking is a list of hits, best first; a hit is what it stands for: the ids of the turns (or sessions) that a memory
comes from. Every measure lies between 0 and 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import ceil, log2, sqrt
from statistics import NormalDist, fmean
from typing import Final

import numpy as np

from langchain_memlayer.errors import InvalidInput

ALL: Final = "all"
"""The name of the group that has every question."""

LEVEL: Final = 0.95
"""How sure the intervals are."""

_DRAWS = 4_000

Hits = Sequence[Collection[str]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `count` questions, and the ends of its confidence interval."""

    mean: float
    low: float
    high: float
    count: int


def recall_at(hits: Hits, gold: Collection[str], k: int) -> float:
    """The share of the gold ids that the first `k` hits cover."""
    wanted = _wanted(gold)
    return len(wanted.intersection(chain.from_iterable(hits[:k]))) / len(wanted)


def hit_at(hits: Hits, gold: Collection[str], k: int) -> float:
    """1 when one of the first `k` hits has a gold id, else 0 (also called success at k)."""
    wanted = _wanted(gold)
    return float(any(not wanted.isdisjoint(hit) for hit in hits[:k]))


def reciprocal_rank(hits: Hits, gold: Collection[str]) -> float:
    """1 over the place of the first hit with a gold id, 0 without one.

    Its mean over questions is the MRR (Voorhees 1999, "The TREC-8 Question Answering Track Report").
    """
    wanted = _wanted(gold)
    return next((1 / place for place, hit in enumerate(hits, 1) if not wanted.isdisjoint(hit)), 0.0)


def ndcg_at(hits: Hits, gold: Collection[str], k: int) -> float:
    """The gain of the first `k` hits, each discounted by its place, as a share of the best that is possible.

    A hit gains the gold ids that none before it has (Järvelin & Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR
    Techniques").
    """
    left, gain = _wanted(gold), 0.0
    best = sum(1 / log2(place + 1) for place in range(1, min(len(left), k) + 1))
    for place, hit in enumerate(hits[:k], 1):
        gain += len(left.intersection(hit)) / log2(place + 1)
        left.difference_update(hit)
    # A hit that has several gold ids may do better than one for each.
    return min(1.0, gain / best)


def within(tokens: Sequence[int], budget: int) -> int:
    """How many of the first hits have at most `budget` tokens together."""
    return sum(total <= budget for total in accumulate(tokens))


def recall_within(hits: Hits, tokens: Sequence[int], gold: Collection[str], budget: int) -> float:
    """The share of the gold ids that the first hits cover which have at most `budget` tokens together."""
    if len(hits) != len(tokens):
        raise InvalidInput(f"{len(hits)} hits need as many token counts, got {len(tokens)}.")
    return recall_at(hits, gold, within(tokens, budget))


def estimate(values: Sequence[float], *, clusters: Sequence[str] | None = None) -> Estimate:
    """The mean of values between 0 and 1, with Wilson's score interval.

    The interval is that of Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", which
    Brown, Cai and DasGupta 2001 recommend for proportions. No value between 0 and 1 varies more than a proportion of
    the same mean does, so for shares and reciprocal ranks it is rather too wide than too narrow; and unlike a bootstrap
    it does not shrink to a point when all values agree. It says how far other questions of the same kind may differ.

    Args:
        values: At least one value between 0 and 1.
        clusters: What each value belongs to, such as its conversation: values that go together count for fewer, by
            Kish's design effect. None takes them as independent.
    """
    if not values:
        raise InvalidInput("An estimate needs at least one value.")
    if not all(0 <= value <= 1 for value in values):
        raise InvalidInput("An estimate is of values from 0 to 1.")
    count, mean = len(values), fmean(values)
    independent = count / _design_effect(values, clusters, mean)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    spread = z * z / independent
    center = (mean + spread / 2) / (1 + spread)
    half = z * sqrt(mean * (1 - mean) / independent + spread / (4 * independent)) / (1 + spread)
    return Estimate(mean, max(0.0, min(mean, center - half)), min(1.0, max(mean, center + half)), count)


def _design_effect(values: Sequence[float], clusters: Sequence[str] | None, mean: float) -> float:
    """How many times as far their mean varies as that of independent values; at least 1."""
    sums: defaultdict[str, float] = defaultdict(float)
    for value, cluster in zip(values, clusters or (), strict=clusters is not None):
        sums[cluster] += value - mean
    alone = sum((value - mean) ** 2 for value in values)
    if len(sums) < 2 or not alone:
        return 1.0
    together = sum(total * total for total in sums.values()) * len(sums) / (len(sums) - 1)
    return min(max(1.0, together / alone), len(values) / len(sums))


def difference(ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[str]) -> Estimate:
    """The mean of `ours` less that of `theirs` for the same questions, with a paired bootstrap interval.

    Whole clusters are drawn, since questions about one conversation go together; with a single one, its questions. Of
    fewer than some ten clusters the interval is rather too narrow (Cameron, Gelbach and Miller 2008).

    The values are one for each question, `clusters` the conversations of these.
    """
    if not len(ours) == len(theirs) == len(clusters) > 0:
        raise InvalidInput("A difference needs the values of both systems for the same questions, at least one.")
    apart = np.subtract(ours, theirs, dtype=np.float64)
    _, places = np.unique(np.asarray(clusters), return_inverse=True)
    if places.max() == 0:
        places = np.arange(len(apart))
    sums, sizes = np.bincount(places, apart), np.bincount(places)
    drawn = np.random.default_rng(0).integers(0, len(sums), (_DRAWS, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(apart.mean()), float(low), float(high), len(apart))


def estimates(rows: Iterable[tuple[str, str, Mapping[str, float]]]) -> dict[str, dict[str, Estimate]]:
    """Each measure over all rows, which have a question's group, its conversation and its measures by name.

    Returns:
        The estimates by group and name: `ALL` first, then the groups by their names. Nothing when there are no rows.
    """
    groups: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for group, conversation, measures in rows:
        for name, value in measures.items():
            for one in {ALL, group}:
                groups.setdefault(one, {}).setdefault(name, []).append((value, conversation))
    ordered = sorted(groups, key=lambda group: (group != ALL, group))
    return {
        group: {
            name: estimate([value for value, _ in values], clusters=[one for _, one in values])
            for name, values in groups[group].items()
        }
        for group in ordered
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` of them do not exceed (the nearest-rank percentile)."""
    if not values or not 0 < share <= 1:
        raise InvalidInput("A percentile needs at least one value, and a share above 0 and up to 1.")
    return sorted(values)[ceil(share * len(values)) - 1]


def _wanted(gold: Collection[str]) -> set[str]:
    if not gold:
        raise InvalidInput("Recall is measured against at least one gold id; leave out questions without evidence.")
    return set(gold)
