"""What each signal of recall is worth: all of them, and then each one left out.

The trees have seen the conversations that they were learned on: what they are worth to others, `learn` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from unittest.mock import patch

import numpy as np

from integration_tests.benchmarks.evidence import Evidence
from integration_tests.benchmarks.locomo import remembering, searching
from integration_tests.benchmarks.timing import said, table
from langchain_memlayer import Memory
from langchain_memlayer.engine import reading
from langchain_memlayer.recall import Pool, Query, Scored, Weights

_COLUMNS = ("R@10", "R@1000t")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to weigh the signals.

    Attributes:
        name: What is left out.
        weights: Those of the rest.
        patched: Changes what no weight says, while it is entered.
    """

    name: str
    weights: Weights = field(default_factory=Weights)
    patched: Callable[[], AbstractContextManager[object]] = nullcontext


def variants() -> Iterator[Variant]:
    """All signals, and each left out."""
    yield Variant("nothing")
    yield Variant("dense (words only)", Weights(dense=0.0))
    yield Variant("keyword (meaning only)", Weights(dense=1.0), partial(_scored, _wordless))
    yield Variant("dense trust (a fixed .6)", patched=partial(_scored, _trusting))
    yield Variant("neighbour", Weights(neighbour=0.0, neighbour_alone=0.0))
    for signal in fields(Weights):
        if signal.name not in ("dense", "neighbour", "neighbour_alone"):
            yield Variant(signal.name, Weights(**{signal.name: 0.0}))
    yield Variant("coverage", patched=lambda: patch.object(Pool, "sources", lambda pool, index: set()))


def _scored(change: Callable[[Pool], Pool]) -> AbstractContextManager[object]:
    """While it is entered, scores are those of a changed pool."""
    real = reading.scored

    def scored(pool: Pool, query: Query, weights: Weights) -> Scored:
        return real(change(pool), query, weights)

    return patch.object(reading, "scored", scored)


def _wordless(pool: Pool) -> Pool:
    return replace(pool, keyword=np.zeros(len(pool), np.float32))


def _trusting(pool: Pool) -> Pool:
    return replace(pool, dense_trust=1.0)


def run(evidence: Evidence, note: Callable[[str], None]) -> Iterator[str]:
    """One table: a row for each variant, figures for each file and its units."""
    yield f"{evidence.told()}.\n"
    cells: dict[str, list[str]] = {variant.name: [] for variant in variants()}
    head = ["left out"]
    for name, units in evidence.settings():
        head += [f"{name}, {units}: {column}" for column in _COLUMNS]
        with said(note, f"{name}, {units}"), ExitStack() as stack:
            memories = {
                conversation.id: stack.enter_context(remembering(conversation, units, evidence.embeddings))
                for conversation in evidence.data[name]
            }
            whole: dict[str, float] = {}
            for variant in variants():
                means = _measured(evidence, name, units, memories, variant)
                whole = whole or means
                cells[variant.name] += [_told(means[column], whole[column], variant) for column in _COLUMNS]
    yield table(head, [[name, *row] for name, row in cells.items()])


def _measured(
    evidence: Evidence, name: str, units: str, memories: dict[str, Memory], variant: Variant
) -> dict[str, float]:
    for memory in memories.values():
        memory._searcher.weights = variant.weights
    with variant.patched():
        return evidence.evaluate(name, units, lambda conversation, _: searching(memories[conversation.id]))


def _told(value: float, whole: float, variant: Variant) -> str:
    if variant.name == "nothing":
        return f"{100 * value:.1f}"
    return f"{100 * value:.1f} ({100 * (value - whole):+.1f})"
