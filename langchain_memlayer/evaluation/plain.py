"""Plain systems on the same texts and vectors, to see what the fusion gives beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.evaluation.data import Conversation
from langchain_memlayer.index.keywords import bm25, query_terms, tokenize
from langchain_memlayer.recall import Spread, memory_text

if TYPE_CHECKING:
    from langchain_memlayer.embedders.embedder import Embedder

DENSE = 0.6
"""The share of the cosine in the mix; BM25 has the rest, each from 0 to 1 over the conversation."""

RRF = 60

Scores = NDArray[np.float32]


class PlainSystems:
    """Cosine, BM25 and their mixes over the turns of a conversation, each with its speaker and date as `Memory` has it.

    The embedder is that of the memory it stands beside; without one, BM25 and the latest turns are left.
    """

    def __init__(self, conversation: Conversation, embedder: Embedder | None) -> None:
        texts = [memory_text(turn.text, name=turn.name, time=turn.time) for turn in conversation.turns]
        self._embedder = embedder
        self._vectors = None if embedder is None else _unit(embedder.embed(texts))
        self._terms = [Counter(tokenize(text)) for text in texts]
        self._lengths = np.array([sum(terms.values()) for terms in self._terms])

    def rankings(self, question: str) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """The name of each system with the turns as it orders them, the best first, as indices."""
        words = self._words(question)
        scores = {"BM25": words}
        if self._embedder is not None and self._vectors is not None:
            dense = self._vectors @ _unit(self._embedder.embed_query(question)[None])[0]
            scores |= {
                "dense": dense,
                "RRF": _reciprocal(dense) + _reciprocal(words) * (words > 0),
                "mix": DENSE * Spread.of(dense).scale(dense) + (1 - DENSE) * Spread.of(words).scale(words),
            }
        # What an agent without a memory has: the end of the whole context, as much as a budget takes.
        scores["latest turns"] = np.arange(len(self._lengths), dtype=np.float32)
        for name, values in scores.items():
            yield name, np.argsort(-values, kind="stable")

    def _words(self, question: str) -> Scores:
        terms = query_terms(question)
        counts = np.array([[counter[term] for counter in self._terms] for term in terms]).reshape(len(terms), -1)
        total = len(self._terms)
        return bm25(counts, self._lengths, (counts > 0).sum(axis=1), total, float(self._lengths.mean()) or 1.0)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: Scores = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit


def _reciprocal(scores: Scores) -> Scores:
    """One over the place of each in the order of scores, as Cormack, Clarke and Buettcher (2009) fuse rankings."""
    places = np.empty(len(scores), np.float32)
    places[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return np.reciprocal(RRF + places)
