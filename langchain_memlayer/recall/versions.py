"""Which of several versions of a value a question asks for: what holds now, what held before, first or at a time.

Turns tell a value anew whenever it changes, and all of them answer a question about it about equally well. So those
that speak of what the question is about are put in the order of time, and the one that is asked for is lifted. They are
compared with each other only: a preference for what is recent would cost every other question.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.function_words import function_words, language_of
from langchain_memlayer.index.keywords import query_terms, term_ids, tokenize, words_of
from langchain_memlayer.recall import date_words as words
from langchain_memlayer.recall.date_words import Period
from langchain_memlayer.recall.dates import periods, without_periods
from langchain_memlayer.recall.pool import Pool, Query, Scores
from langchain_memlayer.recall.signals import named_speakers
from langchain_memlayer.types import ONLY_ASKS

Asked = Literal["now", "before", "first", "all", "then"]

_PATTERNS: tuple[tuple[Asked, re.Pattern[str]], ...] = (
    ("all", words.HOW_OFTEN),
    ("first", words.FIRST),
    ("before", words.BEFORE),
    ("now", words.NOW),
)
# What binds words in Chinese and Japanese: with it, bigrams are of the question's grammar and not of its subject.
_PARTICLE = re.compile(
    "[的了着过吗呢吧啊呀我你您他她它们咱这那哪谁什么怎样为几多少个個是在有和与跟及就都也还又很把被给对从到于\u3041-\u309f]"
)
_NEARLY_BEST, _SUBJECT_SHARE = 0.85, 0.6
_FALL = 0.3
_FALL_BEFORE = 0.5
"""How fast what is asked for is told from the versions beside it; "before" may be off by one that is none."""
_MOST_VERSIONS = 24


def subject_of(text: str, reference: datetime) -> str:
    """A question without the words that say when, how often, and that something changed."""
    text = without_periods(text, reference)
    for pattern in (words.HOW_OFTEN, words.FIRST, words.BEFORE, words.NOW, words.CHANGE):
        text = pattern.sub(" ", text)
    return _PARTICLE.sub(" ", text)


def says_only_when(text: str, reference: datetime) -> bool:
    """Whether a question says nothing but a time: "What did I do last weekend?", 昨天我做了什么."""
    said = words_of(subject_of(text, reference))
    return not {*said} - function_words(language_of(said)) - words.DOES


def wanted_version(text: str) -> Asked | None:
    """Which version of a value a question asks for by its words alone."""
    text = unicodedata.normalize("NFKC", text)
    return next((asked for asked, pattern in _PATTERNS if pattern.search(text)), None)


def version(pool: Pool, query: Query, base: Scores) -> Scores:
    """From 0 to 1: how near each memory is, in the order of versions, to the one that is asked for."""
    out = np.zeros(len(pool), np.float32)
    asked = wanted_version(query.text)
    wanted = periods(query.text, query.reference) if asked is None else ()
    if asked is None and (len(wanted) != 1 or not words.HELD.search(query.text)):
        return out
    chain = _chain(pool, query, base, sure=asked is not None)
    # A fact and the turn that it comes from are one version.
    if len({frozenset(pool.sources(one)) or one for one in chain.tolist()}) < 2:
        return out
    if asked == "all":
        out[chain] = 1
        return out
    last = len(chain) - 1
    place = {"now": last, "before": last - 1, "first": 0}.get(asked or "")
    if place is None:
        # What held then began before, whenever it was told.
        began = np.where(pool.since[chain] >= 0, pool.since[chain], pool.time[chain])
        chain = chain[np.argsort(began, kind="stable")]
        place = int(np.count_nonzero(began < _end(wanted[0], query))) - 1
        # What was told at one time was not one after the other.
        if place < 0 or began.min() == began.max():
            return out
    fall = _FALL_BEFORE if asked == "before" else _FALL
    out[chain] = fall ** np.abs(np.arange(len(chain)) - place)
    return out


def _chain(pool: Pool, query: Query, base: Scores, *, sure: bool) -> NDArray[np.int64]:
    """The memories that speak of what the query is about, in the order of time.

    They have its words, or (with `sure`, where no date among them misleads) answer it nearly as well as the best.
    """
    usable = (pool.barren < 1) & (pool.asks < ONLY_ASKS) & (pool.time >= 0)
    top = float(base.max(initial=0.0))
    if top <= 0 or not query.subject.any():
        return np.empty(0, np.int64)
    has_word = pool.counts[query.subject] > 0
    frequencies = query.frequencies[query.subject]
    idf = np.log1p((pool.total - frequencies + 0.5) / (frequencies + 0.5)) * (frequencies > 0)
    share = idf @ has_word
    speaks_of_it = (share >= _SUBJECT_SHARE * share.max(initial=0.0)) & (share > 0)
    if len(named := named_speakers(pool, query)) == 1:
        name = np.isin(pool.terms.ids[query.terms], term_ids(tokenize(pool.speakers[named[0]])))
        if not (query.subject & ~name & (query.frequencies > 0)).any():
            # A name says whose value it is: where no other word is heard, all that somebody says were versions of it.
            speaks_of_it &= base >= _NEARLY_BEST * base.max(initial=0.0, where=usable)
    chain = np.flatnonzero((speaks_of_it | (sure & (base >= _NEARLY_BEST * top))) & usable)
    if len(chain) > _MOST_VERSIONS:
        chain = chain[np.argsort(-base[chain], kind="stable")[:_MOST_VERSIONS]]
    if words.OWN.search(query.text):
        # What is said of a sister's dentist is no version of one's own.
        theirs = np.setdiff1d(_other_ids(), pool.terms.ids[query.terms])
        own = np.array([not np.isin(pool.terms.ids[pool.terms.of(one)], theirs).any() for one in chain.tolist()], bool)
        if np.count_nonzero(own) > 1:
            chain = chain[own]
    ordered: NDArray[np.int64] = chain[np.lexsort((pool.order[chain], pool.time[chain]))]
    return ordered


@cache
def others() -> frozenset[str]:
    """The terms that name one's family and friends."""
    return frozenset(query_terms(words.OTHERS))


@cache
def _other_ids() -> NDArray[np.uint64]:
    return np.unique(term_ids(others()))


def _end(period: Period, query: Query) -> int:
    """When a period ends; of a month of any year that of the last one that has begun."""
    if period.month is None:
        return period.end
    now = query.reference
    year = now.year - (period.month > now.month)
    day = np.datetime64(f"{year + period.month // 12:04d}-{period.month % 12 + 1:02d}-01", "us")
    return int(day.astype(np.int64))
