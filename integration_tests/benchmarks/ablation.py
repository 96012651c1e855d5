"""What each signal of recall is worth: all that are weighed by hand, and then each one left out.

Without the trees, whose features the signals are: what they are worth to conversations they never saw, `learn` tells.
Differences have 95 % intervals of a paired bootstrap over conversations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import fmean
from unittest.mock import patch

import numpy as np

from integration_tests.benchmarks.evidence import Evidence
from integration_tests.benchmarks.locomo import remembering, searching
from integration_tests.benchmarks.timing import said, table
from langchain_memlayer import Memory
from langchain_memlayer.engine import search
from langchain_memlayer.evaluation.metrics import difference
from langchain_memlayer.recall import Pool, Query, Scored, Weights, signals

_COLUMNS = ("R@10", "nDCG@10")


BY_HAND = Weights(learned=0.0)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to weigh the signals.

    Attributes:
        name: What is left out.
        weights: Those of the rest.
        patched: Changes what no weight says, while it is entered.
    """

    name: str
    weights: Weights = BY_HAND
    patched: Callable[[], AbstractContextManager[object]] = nullcontext


def variants() -> Iterator[Variant]:
    """All signals, and each left out."""
    yield Variant("nothing")
    yield Variant("dense (words only)", replace(BY_HAND, dense=0.0))
    yield Variant("keyword (meaning only)", replace(BY_HAND, dense=1.0), partial(_scored, _wordless))
    yield Variant("trust by script", patched=partial(_scored, _trusting))
    yield Variant("trust by what words answer", patched=partial(_signal, "saying"))
    yield Variant("less where turns are long", patched=partial(_signal, "brevity"))
    yield Variant("neighbour", replace(BY_HAND, neighbour=0.0, neighbour_alone=0.0))
    for signal in fields(Weights):
        if signal.name not in ("dense", "neighbour", "neighbour_alone", "learned"):
            yield Variant(signal.name, replace(BY_HAND, **{signal.name: 0.0}))
    yield Variant("coverage", patched=lambda: patch.object(Pool, "sources", lambda pool, index: set()))


def _scored(change: Callable[[Pool], Pool]) -> AbstractContextManager[object]:
    """While it is entered, scores are those of a changed pool."""
    real = search.scored

    def scored(pool: Pool, query: Query, weights: Weights) -> Scored:
        return real(change(pool), query, weights)

    return patch.object(search, "scored", scored)


def _signal(name: str) -> AbstractContextManager[object]:
    """While it is entered, one factor of the weights is 1."""
    return patch.object(signals, name, lambda pool: 1.0)


def _wordless(pool: Pool) -> Pool:
    return replace(pool, keyword=np.zeros(len(pool), np.float32))


def _trusting(pool: Pool) -> Pool:
    return replace(pool, dense_trust=1.0)


def run(evidence: Evidence, note: Callable[[str], None]) -> Iterator[str]:
    """A table for each file and its units: a row for each variant."""
    yield f"{evidence.told()}.\n"
    for name, units in evidence.settings():
        with said(note, f"{name}, {units}"), ExitStack() as stack:
            memories = {
                conversation.id: stack.enter_context(remembering(conversation, units, evidence.embeddings))
                for conversation in evidence.data[name]
            }
            measured = [(variant, _measured(evidence, name, units, memories, variant)) for variant in variants()]
        whole = measured[0][1]
        rows = [
            [variant.name, *(_told(figures, whole, column, alone=figures is whole) for column in _COLUMNS)]
            for variant, figures in measured
        ]
        yield f"{name}, {units}:\n"
        yield table(["left out", *_COLUMNS], rows)


def _measured(
    evidence: Evidence, name: str, units: str, memories: dict[str, Memory], variant: Variant
) -> dict[str, dict[str, float]]:
    """The harness' means of each conversation, by its id."""
    for memory in memories.values():
        memory._searcher.weights = variant.weights
    with variant.patched():
        return evidence.by_conversation(name, units, lambda one, _: searching(memories[one.id]))


def _told(figures: dict[str, dict[str, float]], whole: dict[str, dict[str, float]], column: str, *, alone: bool) -> str:
    """A mean over questions and, unless it stands `alone`, how far it is from that of all signals."""
    # All questions of a conversation have its mean: the sums that are drawn are the same.
    ids = [one for one, means in figures.items() for _ in range(int(means["n"]))]
    mine, all_ = ([of[one][column] for one in ids] for of in (figures, whole))
    apart = difference(mine, all_, ids)
    mean = f"{100 * fmean(mine):.1f}"
    return mean if alone else f"{mean} ({100 * apart.mean:+.1f}; {100 * apart.low:+.1f} to {100 * apart.high:+.1f})"
