"""How far an embedder's cosines spread when it understands the texts.

The weight of meaning against words follows how much the cosines of a query differ over its scope: an embedder that does
not know the language gives everything about the same cosine. How much is much is the embedder's own: some spread
unrelated texts over half a unit, others over a tenth. So each is asked once, about questions and statements of which
each question fits one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.types import Metric

_PRIOR = 8
_UNDERSTOOD = 0.53
_SHARPNESS = 8

_STATEMENTS = (
    "I moved to a small flat near the river in March.",
    "My sister is allergic to peanuts and shellfish.",
    "We adopted a grey cat from the shelter last week.",
    "The quarterly report is due on Friday at noon.",
    "He plays the cello in an amateur orchestra.",
    "She is training for a marathon in the mountains.",
    "Our flight was cancelled because of the storm.",
    "I baked sourdough bread for the first time.",
)
_QUESTIONS = (
    "Where do I live now?",
    "What is my sister allergic to?",
    "Which pet did we get?",
    "When is the report due?",
    "Which instrument does he play?",
    "What is she training for?",
    "Why was the flight cancelled?",
    "What did I bake?",
)

PROBES: tuple[str, ...] = _STATEMENTS + _QUESTIONS
"""The texts to embed, once for each folder, together with the first texts that are stored."""


def spread_of(vectors: NDArray[np.floating], metric: Metric = "cosine") -> float:
    """The standard deviation of a question's scores over the statements, mean over the questions.

    Args:
        vectors: Those of `PROBES`, shape (16, dims).
        metric: What the scores are: cosines, inner products or negated distances.
    """
    if metric == "cosine":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    statements, questions = vectors[: len(_STATEMENTS)], vectors[len(_STATEMENTS) :]
    if metric == "euclidean":
        return float(np.linalg.norm(questions[:, None] - statements, axis=2).std(axis=1).mean())
    return float((questions @ statements.T).std(axis=1).mean())


def closeness(scores: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Scores of any metric on the scale of cosines, in the same order, so that a threshold has a meaning.

    Cosines stay. A distance d becomes 1 / (1 + d); an inner product p becomes p / (1 + |p|), so that what has nothing
    in common is at 0 as with cosine, and what points away below. NaN stays.

    Args:
        scores: Higher is nearer: a cosine, an inner product or a negated distance.
        metric: Which of them.
    """
    if metric == "euclidean":
        return np.reciprocal(1 - scores)
    return scores / (1 + np.abs(scores)) if metric == "inner_product" else scores


def trust_in(deviation: float, memories: int, able: float) -> float:
    """How far the cosines of a query are to be trusted, from 0 to 1.

    Where they spread little more than half as far as the embedder can, trust falls quickly. Few memories tell little
    about their spread, so a small scope is taken to spread as it should.

    Args:
        deviation: The standard deviation of the query's cosines over the scope.
        memories: How many the scope has.
        able: What `spread_of` gave for the embedder.
    """
    square = (memories * deviation**2 + _PRIOR * able**2) / (memories + _PRIOR)
    return float(min(1.0, square**0.5 / max(_UNDERSTOOD * able, 1e-9)) ** _SHARPNESS)
