"""What is known of the memories that are scored for a query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
_BUCKETS = 1 << 16


@dataclass(frozen=True, slots=True)
class Spread:
    """How a signal is spread over a scope for one query: its smallest and largest value and its standard deviation."""

    low: float = 0.0
    high: float = 0.0
    deviation: float = 0.0

    @classmethod
    def of(cls, values: Scores) -> Spread:
        """That of the given values; NaN ones do not count."""
        known = values[~np.isnan(values)]
        return cls(float(known.min()), float(known.max()), float(known.std())) if len(known) else cls()

    def scale(self, values: Scores) -> Scores:
        """`values` from 0 to 1; NaN becomes 0, and so does everything when the scope has one value only."""
        width = self.high - self.low
        if width <= 1e-9:
            return np.zeros(len(values), np.float32)
        scaled: Scores = np.clip(np.nan_to_num((values - self.low) / width), 0.0, 1.0).astype(np.float32)
        return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """The keyword terms of texts, as numbers.

    Attributes:
        flat: The terms of one text after those of another, uint32.
        starts: Where those of each text begin, and the end, shape (texts + 1,).
    """

    flat: NDArray[np.uint32]
    starts: NDArray[np.int64]

    def of(self, index: int) -> NDArray[np.uint32]:
        """The terms of one text."""
        return self.flat[self.starts[index] : self.starts[index + 1]]

    def counts(self, codes: NDArray[np.uint32]) -> NDArray[np.int32]:
        """How often each of some distinct terms stands in each text, shape (terms, texts)."""
        texts = len(self.starts) - 1
        # Most terms are none of those asked for: a small table of their lower halves lets few through.
        table = np.zeros(_BUCKETS, np.bool_)
        table[codes & (_BUCKETS - 1)] = True
        places = np.flatnonzero(table[self.flat & (_BUCKETS - 1)])
        order = np.argsort(codes)
        slots = np.minimum(np.searchsorted(codes[order], self.flat[places]), len(codes) - 1)
        real = codes[order][slots] == self.flat[places]
        rows = np.searchsorted(self.starts, places[real], side="right") - 1
        counted = np.bincount(order[slots[real]] * texts + rows, minlength=len(codes) * texts)
        return counted.reshape(len(codes), texts).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The memories that are scored: the whole scope up to 10,000 rows, the best candidates and their neighbours above.

    Index `i` of every array is one of them, shape (n,).

    Attributes:
        dense: Cosines, NaN without a vector; None without an embedder.
        dense_spread: The scope's constants for them.
        dense_trust: From 0 to 1: how well the cosines of this query discriminate, against what this embedder can.
        keyword: BM25.
        keyword_spread: The scope's constants for it.
        keyword_ceiling: The BM25 that a text could attain for this query.
        terms: The keyword terms of each.
        graph: From 0 to 1: how near it is to the entities that the query names.
        is_turn: Turns, as against facts.
        session: A number for each session, negative for none.
        order: Row ids; they grow in the order in which turns were said.
        speaker: A number for each name, negative for none.
        time: When it was said, microseconds since 1970 UTC, negative where unknown.
        asks: The text ends with a question mark.
        ended: No longer holds.
        links: Pairs (fact, turn) of indices, shape (m, 2).
        cited: Row ids of the turns that facts come from, those of one memory after those of another.
        starts: Where those of each memory begin in `cited`, and the end, shape (n + 1,).
        speakers: The names behind `speaker`.
    """

    dense: Scores | None
    dense_spread: Spread
    dense_trust: float
    keyword: Scores
    keyword_spread: Spread
    keyword_ceiling: float
    terms: Terms
    graph: Scores
    is_turn: NDArray[np.bool_]
    session: NDArray[np.int32]
    order: NDArray[np.int64]
    speaker: NDArray[np.int32]
    time: NDArray[np.int64]
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
class Query:
    """What is asked.

    Attributes:
        text: The question.
        codes: Its keyword terms as numbers.
        reference: The present, for relative dates.
    """

    text: str
    codes: NDArray[np.uint32]
    reference: datetime


def memory_text(text: str, *, name: str | None, time: datetime | None) -> str:
    """What is embedded and indexed of a memory: its text with who said it and when, as `Ann (08 May 2023): text`."""
    said = f"({time:%d %B %Y})" if time is not None else ""
    head = " ".join(part for part in (name, said) if part)
    return f"{head}: {text}" if head else text
