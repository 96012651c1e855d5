"""Dates in questions: which days a text speaks of, and how well a memory's time agrees.

Understood are full dates, months and spans of months, years and times relative to a reference, in English, Chinese,
Japanese and Korean: "8 May 2023", "May 8th", "from March to June", "since May", "next Friday", "three weeks ago",
2024年04月01日, 上周六, 来月. In six more languages of Europe full dates, months, and what is beside today are: "am 8.
Mai", "en mayo de 2023", "gestern", "la semana pasada".
"""

from __future__ import annotations

import unicodedata
from datetime import datetime, timedelta, timezone
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.recall.date_words import Period, speaks_of_time
from langchain_memlayer.types import DAY


def periods(text: str, reference: datetime) -> tuple[Period, ...]:
    """The periods that a text speaks of; a text within another is read once.

    Relative times are seen from the reference. Its zone says when a day begins; UTC without one.
    """
    return _read_once(text, reference)[0]


def without_periods(text: str, reference: datetime) -> str:
    """A text (NFKC) with blanks for the periods that it speaks of."""
    return _read_once(text, reference)[1]


def _read_once(text: str, reference: datetime) -> tuple[tuple[Period, ...], str]:
    offset = reference.utcoffset() or timedelta()
    # Of the moment only the day counts, so that questions of one day are read once. Equal moments of two zones are
    # equal keys, hence the offset beside it.
    text = unicodedata.normalize("NFKC", text)
    return _periods(text, reference.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None), offset)


@lru_cache(maxsize=256)
def _periods(text: str, today: datetime, offset: timedelta) -> tuple[tuple[Period, ...], str]:
    if not speaks_of_time(text):
        return (), text
    # Compiling its patterns takes a sixth of what importing `Memory` does, and most questions need none.
    from langchain_memlayer.recall.date_reading import read

    found: list[Period] = []
    rest = text
    for span, named in read(text, today.replace(tzinfo=timezone(offset))):
        if rest[span[0] : span[1]] == text[span[0] : span[1]]:
            found += named
            rest = rest[: span[0]] + "\x00" * (span[1] - span[0]) + rest[span[1] :]
    return tuple(dict.fromkeys(found)), rest.replace("\x00", " ")


def agreement(times: NDArray[np.int64], wanted: tuple[Period, ...], *, told: bool = True) -> NDArray[np.float32]:
    """How well each time agrees with the best fitting period, from 0 to 1.

    A day: 1 from the day before to a day after, .5 within a week. A month: 1 inside. A year: .3. What is told is told
    some days later: 1 to a week after a day, and .5 within a month, or in the first half of the next one.

    Args:
        times: Microseconds since 1970 UTC; negative where unknown.
        wanted: What `periods` found.
        told: Whether it is then that something was told; else it happens then, or begins.
    """
    best = np.zeros(len(times), np.float32)
    for period in wanted:
        np.maximum(best, _agrees(times, period, told=told), out=best)
    best[times < 0] = 0
    return best


def _agrees(times: NDArray[np.int64], period: Period, *, told: bool) -> NDArray[np.float32]:
    out = np.zeros(len(times), np.float32)
    whole, half, days_into = (7, 31, 15) if told else (1, 7, 0)
    if period.month is not None:
        stamps = times.astype("datetime64[us]")
        months = stamps.astype("datetime64[M]").astype(np.int64) % 12 + 1
        days = (stamps.astype("datetime64[D]") - stamps.astype("datetime64[M]").astype("datetime64[D]")).astype(
            np.int64
        ) + 1
        if period.day is None:
            out[(months == period.month % 12 + 1) & (days <= days_into)] = 0.5
            out[months == period.month] = 1
            return out
        offset = (months - period.month) * 31 + days - period.day
        out[(offset >= -3) & (offset <= half)] = 0.5
        out[(offset >= -1) & (offset <= whole)] = 1
        return out
    if period.grain == "year":
        out[(times >= period.start) & (times < period.end)] = 0.3
        return out
    if period.grain == "month":
        out[(times >= period.end) & (times < period.end + days_into * DAY)] = 0.5
        out[(times >= period.start) & (times < period.end)] = 1
        return out
    out[(times >= period.start - 3 * DAY) & (times < period.end + half * DAY)] = 0.5
    out[(times >= period.start - DAY) & (times < period.end + whole * DAY)] = 1
    return out
