"""How good a ranking is, and how sure that is. Pure functions.

A ranking is a list of hits, best first; a hit is what it stands for: the ids of the turns (or sessions) that a memory
comes from. Every measure lies between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from math import ceil, sqrt
from statistics import NormalDist, fmean
from typing import Final

from langchain_memlayer.errors import InvalidInput

ALL: Final = "all"
"""The name of the group that has every question."""

LEVEL: Final = 0.95

Hits = Sequence[Collection[str]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions with its confidence interval.

    Attributes:
        mean: The mean.
        low: The interval's lower end.
        high: The interval's upper end.
        count: How many questions it is the mean of.
    """

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


def within(tokens: Sequence[int], budget: int) -> int:
    """How many of the first hits have at most `budget` tokens together."""
    return sum(total <= budget for total in accumulate(tokens))


def recall_within(hits: Hits, tokens: Sequence[int], gold: Collection[str], budget: int) -> float:
    """The share of the gold ids that the first hits cover which have at most `budget` tokens together."""
    if len(hits) != len(tokens):
        raise InvalidInput(f"{len(hits)} hits need as many token counts, got {len(tokens)}.")
    return recall_at(hits, gold, within(tokens, budget))


def estimate(values: Sequence[float], *, level: float = LEVEL) -> Estimate:
    """The mean of values between 0 and 1, with Wilson's score interval.

    The interval is that of Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference", which
    Brown, Cai and DasGupta 2001 recommend for proportions. No value between 0 and 1 varies more than a proportion of
    the same mean does, so for shares and reciprocal ranks it is rather too wide than too narrow; and unlike a bootstrap
    it does not shrink to a point when all values agree. It says how far other questions of the same kind may differ;
    questions about the same conversation are taken as independent.

    Args:
        values: At least one value between 0 and 1.
        level: How sure the interval is.
    """
    if not values:
        raise InvalidInput("An estimate needs at least one value.")
    if not all(0 <= value <= 1 for value in values):
        raise InvalidInput("An estimate is of values from 0 to 1.")
    if not 0 < level < 1:
        raise InvalidInput(f"level must lie between 0 and 1, such as .95, got {level!r}.")
    count, mean = len(values), fmean(values)
    z = NormalDist().inv_cdf((1 + level) / 2)
    spread = z * z / count
    center = (mean + spread / 2) / (1 + spread)
    half = z * sqrt(mean * (1 - mean) / count + spread / (4 * count)) / (1 + spread)
    return Estimate(mean, max(0.0, min(mean, center - half)), min(1.0, max(mean, center + half)), count)


def estimates(rows: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, dict[str, Estimate]]:
    """Each measure over all rows and over those of each group.

    Args:
        rows: For each question its group and its measures by name.

    Returns:
        The estimates by group and name: `ALL` first, then the groups by their names. Nothing when there are no rows.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for group, measures in rows:
        for name, value in measures.items():
            for one in {ALL, group}:
                groups.setdefault(one, {}).setdefault(name, []).append(value)
    ordered = sorted(groups, key=lambda group: (group != ALL, group))
    return {group: {name: estimate(values) for name, values in groups[group].items()} for group in ordered}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` of them do not exceed (the nearest-rank percentile)."""
    if not values or not 0 < share <= 1:
        raise InvalidInput("A percentile needs at least one value, and a share above 0 and up to 1.")
    return sorted(values)[ceil(share * len(values)) - 1]


def _wanted(gold: Collection[str]) -> set[str]:
    if not gold:
        raise InvalidInput("Recall is measured against at least one gold id; leave out questions without evidence.")
    return set(gold)
