"""What is known of the memories that are scored for a query."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.keywords import term_ids, term_of
from langchain_memlayer.index.postings import Terms
from langchain_memlayer.types import ALSO_ASKS, ONLY_ASKS, STATES_ONLY, Metric

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]
_FEW, _PAIRS = 16, 100
_RARE = 20
_TOGETHER = 0.1
"""By how much of their words turns that belong together share more."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """How a signal is spread over a scope for one query: its smallest and largest value."""

    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, values: Scores) -> Spread:
        """That of the given values; NaN ones do not count."""
        known = values[~np.isnan(values)]
        return cls(float(known.min()), float(known.max())) if len(known) else cls()

    @property
    def flat(self) -> bool:
        """Whether the scope has one value only, so that the signal tells no memories apart."""
        return self.high - self.low <= 1e-9

    def scale(self, values: Scores) -> Scores:
        """`values` from 0 to 1; NaN becomes 0. Where the scope has one value only, those that have it are at 1."""
        if self.flat:
            return np.asarray(~np.isnan(values) & (values != 0), np.float32)
        width = self.high - self.low
        scaled: Scores = np.minimum(np.fmax((values - self.low) / width, 0.0), 1.0).astype(np.float32)
        return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The memories that are scored: the whole scope up to 10,000 rows, the best candidates and their neighbours above.

    Index `i` of every array is one of them, shape (n,).

    Attributes:
        dense: Cosines, or other scores by `metric`, higher is nearer; NaN without a vector; None without an embedder.
        dense_spread: The scope's constants for them.
        dense_trust: From 0 to 1: how well the embedder knows the script of the query.
        dense_skill: From 0 to 1: how much better than it must to be trusted.
        dense_fluency: From 0 to 1: how well it knows the language that query and scope have in common.
        keyword: BM25.
        keyword_spread: The scope's constants for it.
        keyword_ceiling: The BM25 that a text could attain for this query.
        keyword_full_ceiling: The BM25 that one could attain if each of the query's words were said in the scope.
        terms: The keyword terms of each.
        counts: How often each of the query's terms stands in each, shape (terms, n).
        total: How many memories the scope has.
        counted: In how many memories of the scope some terms stand, where the pool is not all of it; else None.
        graph: From 0 to 1: how near it is to the entities that the query names.
        is_turn: Turns, as against facts.
        session: A number for each session, negative for none.
        order: Row ids; they grow in the order in which turns were said.
        following: The turns of sessions, each with the one that follows it there.
        together: From 0 to 1: how far such turns speak of the same; 0 without sessions.
        speaker: A number for each name, negative for none.
        time: When it was said, microseconds since 1970 UTC, negative where unknown.
        since: When what it says began or happens, negative where unknown.
        asks: What `asking` says of the text.
        barren: How surely a turn says nothing, since it was read and gave no fact, from 0 to 1.
        ended: No longer holds.
        links: Pairs (fact, turn) of indices, shape (m, 2).
        cited: Row ids of the turns that facts come from, those of one memory after those of another.
        starts: Where those of each memory begin in `cited`, and the end, shape (n + 1,).
        speakers: The names behind `speaker`.
        metric: What `dense` is made by.
    """

    dense: Scores | None
    dense_spread: Spread
    dense_trust: float
    dense_skill: float
    dense_fluency: float
    keyword: Scores
    keyword_spread: Spread
    keyword_ceiling: float
    keyword_full_ceiling: float
    terms: Terms
    counts: NDArray[np.int64]
    total: int
    counted: Callable[[NDArray[np.int32]], NDArray[np.int64]] | None
    graph: Scores
    is_turn: NDArray[np.bool_]
    session: NDArray[np.int32]
    order: NDArray[np.int64]
    following: tuple[NDArray[np.int64], NDArray[np.int64]]
    together: float
    speaker: NDArray[np.int32]
    time: NDArray[np.int64]
    since: NDArray[np.int64]
    asks: NDArray[np.int8]
    barren: NDArray[np.float32]
    ended: NDArray[np.bool_]
    links: NDArray[np.int64]
    cited: NDArray[np.int64]
    starts: NDArray[np.int64]
    speakers: Mapping[int, str]
    metric: Metric = "cosine"

    def __len__(self) -> int:
        return len(self.order)

    def frequencies(self, terms: NDArray[np.int32], inside: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many memories of the scope have each of some terms; `inside` is how many of the pool do."""
        # Those that were proposed have the query's topic in common: its words are rarer than they seem there.
        return inside if self.counted is None else np.maximum(self.counted(terms), inside)

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
        terms: Its keyword terms, as the pool numbers them.
        weights: What each of them counts, shape (terms,).
        frequencies: How many memories of the scope have each, shape (terms,).
        subject: Which of them do not say when or how often, shape (terms,).
        exact: The terms of each identifier and of each name in quotes that some memory may have, and what it counts: 1,
            or less for one that is written like a word ("python3"), the more memories have it.
        reference: The present, for relative dates.
    """

    text: str
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]
    frequencies: NDArray[np.int64]
    subject: NDArray[np.bool_]
    exact: Sequence[tuple[NDArray[np.int32], float]]
    reference: datetime


def following(
    is_turn: NDArray[np.bool_], session: NDArray[np.int32], order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`Pool.following`, of what is a turn, in which session, and in which order."""
    turns = np.flatnonzero(is_turn & (session >= 0))
    sessions = session[turns]
    if (np.diff(sessions) < 0).any() or (np.diff(order[turns]) < 0).any():
        # Mostly rows come in the order in which they were said, one session after another.
        turns = turns[np.lexsort((order[turns], sessions))]
        sessions = session[turns]
    together = sessions[1:] == sessions[:-1]
    return turns[:-1][together], turns[1:][together]


def together(terms: Terms, following: tuple[NDArray[np.int64], NDArray[np.int64]]) -> float:
    """`Pool.together`, by how many of their rare words turns share with the next one, and how many with one far away.

    What was put into one session without being said in answer to what stands before it, shares no more with it than
    with any other text: nothing of it follows from its neighbours. The words of dates do not count.
    """
    before, after = following
    if len(before) < _FEW:
        return float(len(before) > 0)
    # By where they stand: the numbers of sessions, and so the order of these pairs, are another process's otherwise.
    chosen = np.argsort(before)[:: -(-len(before) // _PAIRS)]
    before, after = before[chosen], after[chosen]
    frequencies = np.bincount(terms.flat)
    rare = (frequencies > 1) & (frequencies <= max(2, len(terms) // _RARE))
    some, pairs, wide = terms.among(np.concatenate((before, after))), len(before), len(rare)
    kept = np.flatnonzero(rare[some.flat])
    kept = kept[~np.isin(some.ids[some.flat[kept]], _date_ids())]
    texts, words, sizes = some.text[kept], some.flat[kept], np.bincount(some.text[kept], minlength=2 * pairs)
    middle = np.searchsorted(texts, pairs)
    # A word is another number in each pair.
    first = texts[:middle] * wide + words[:middle]

    def shared(shift: int) -> float:
        second = (texts[middle:] + shift) % pairs * wide + words[middle:]
        both = np.bincount(np.intersect1d(first, second, assume_unique=True) // wide, minlength=pairs)
        fewest = np.minimum(sizes[:pairs], np.roll(sizes[pairs:], shift))
        return float(sum((both / np.maximum(1, fewest)).tolist()) / pairs)

    more = shared(0) - shared(pairs // 2)
    return min(1.0, max(0.0, more / _TOGETHER))


@cache
def _date_ids() -> NDArray[np.uint64]:
    """The terms of the dates that `memory_text` writes before a text."""
    numbers = (f"{number:02}" for number in (*range(1, 32), *range(1970, 2101)))
    return term_ids((*map(term_of, map(str.lower, _MONTHS)), *numbers))


_QUESTION_MARKS = "?？؟;⁇⁈︖"
_SENTENCE = re.compile(rf"[^.!。！…{_QUESTION_MARKS}]+[.!。！…{_QUESTION_MARKS}]*")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
_REMARK = 6


def asking(text: str) -> int:
    """STATES_ONLY, ALSO_ASKS or ONLY_ASKS; a question ends with a question mark of any script."""
    text = text.rstrip(" \t\n\"'”’」』)）")
    if not text.endswith(tuple(_QUESTION_MARKS)):
        return STATES_ONLY
    stated = [one for one in _SENTENCE.findall(text) if not one.endswith(tuple(_QUESTION_MARKS))]
    return ONLY_ASKS if sum(len(_WORD.findall(one)) for one in stated) < _REMARK else ALSO_ASKS


def memory_text(text: str, *, name: str | None, time: datetime | None) -> str:
    """What is embedded and indexed of a memory: its text with who said it and when, as `Ann (08 May 2023): text`."""
    # In UTC, as the journal has it: the form of a stored memory is that of the turn it was. Not by strftime's %B, which
    # follows the locale of whatever program this runs in.
    day = None if time is None else time.astimezone(UTC)
    said = "" if day is None else f"({day.day:02} {_MONTHS[day.month - 1]} {day.year:04})"
    head = " ".join(part for part in (name, said) if part)
    return f"{head}: {text}" if head else text
