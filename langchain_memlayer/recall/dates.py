"""Dates in questions: which days a text speaks of, and how well a memory's time agrees.

Understood are full dates, months, years and times relative to a reference, in English, Chinese, Japanese and Korean:
"8 May 2023", "May 8th", "2023-05-08", "next Friday", "three weeks ago", 2024年04月01日, 上周六, 来月. In six
more languages of Europe full dates, months, and what is beside today are: "am 8. Mai", "en mayo de 2023", "gestern",
"la semana pasada".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.recall import date_words as words
from langchain_memlayer.types import to_micros

Grain = Literal["day", "span", "month", "year"]

_DAY = 86_400_000_000
_WORD = re.compile(r"\w+")
# Seen from outside of these years, "a thousand years ago" would lie outside of the calendar.
_EARLIEST, _LATEST = 1000, 9000


@dataclass(frozen=True, slots=True)
class Period:
    """Days that a text speaks of.

    Attributes:
        grain: How exactly it does.
        start: The first day's beginning, microseconds since 1970 UTC; 0 when the year is open.
        end: The end of the last day.
        month: The month, when the year is open.
        day: The day of that month, or None for all of it.
    """

    grain: Grain
    start: int = 0
    end: int = 0
    month: int | None = None
    day: int | None = None


Reading = tuple[re.Match[str], "Period | None"]


def periods(text: str, reference: datetime) -> tuple[Period, ...]:
    """The periods that a text speaks of; a text within another is read once.

    Args:
        text: A question.
        reference: The present that relative times are seen from. Its zone says when a day begins; UTC without one.
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
    found: list[Period] = []
    rest = text
    for span, period in _read(text, today.replace(tzinfo=timezone(offset))):
        if rest[span[0] : span[1]] == text[span[0] : span[1]]:
            found.append(period)
            rest = rest[: span[0]] + "\x00" * (span[1] - span[0]) + rest[span[1] :]
    return tuple(dict.fromkeys(found)), rest.replace("\x00", " ")


def speaks_of_time(text: str) -> bool:
    """Whether a text (NFKC) may speak of a time; most do not, which their words tell sooner than eighty patterns."""
    return words.FIGURE.search(text) is not None or not words.SIGNS.isdisjoint(_WORD.findall(text.casefold()))


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
        out[(times >= period.end) & (times < period.end + days_into * _DAY)] = 0.5
        out[(times >= period.start) & (times < period.end)] = 1
        return out
    out[(times >= period.start - 3 * _DAY) & (times < period.end + half * _DAY)] = 0.5
    out[(times >= period.start - _DAY) & (times < period.end + whole * _DAY)] = 1
    return out


def _read(text: str, today: datetime) -> Iterator[tuple[tuple[int, int], Period]]:
    if not speaks_of_time(text):
        return
    relative = _relative(text, today) if _EARLIEST < today.year < _LATEST else ()
    # What is exact goes first: of texts within each other the first one counts.
    for match, period in (*_of_relative_year(text, today), *_absolute(text), *relative):
        if period is not None:
            yield match.span(), period


def _absolute(text: str) -> Iterator[Reading]:
    for match in _matches(words.FULL, text):
        if not _is_verb(match):
            yield match, _day(match["year"] if "year" in match.re.groupindex else None, _month_of(match), match["day"])
    for match in words.PART.finditer(text):
        yield match, _part(match)
    for match in _matches(words.SEASON, text):
        yield match, _season(_number(match["year"]), match["season"])
    for match in words.NEW_YEAR.finditer(text):
        # The second new moon after the winter solstice.
        yield match, _lunar_new_year(_number(match["year"]))
    for match in _matches(words.OF_YEAR, text):
        yield match, _month(_number(match["year"]), _month_of(match))
    for match in _matches(words.BARE_MONTH, text):
        month = _month_of(match)
        yield match, Period("month", month=month) if 1 <= month <= 12 else None
    for match in words.DECADE.finditer(text):
        yield match, _decade(_number(match["year"] or match["cjk"]))
    for match in _matches(words.BARE_YEAR, text):
        yield match, _year(_number(match["year"]))


def _of_relative_year(text: str, today: datetime) -> Iterator[Reading]:
    """Months, days and seasons of last year, this year, or the year before last."""
    for match in _matches(words.MONTH_BACK, text):
        year = today.year - _years_back(match["back"])
        if match.groupdict().get("day"):
            yield match, _day(str(year), _month_of(match), match["day"])
        else:
            yield match, _month(year, _month_of(match))
    for match in words.NEW_YEAR_BACK.finditer(text):
        yield match, _lunar_new_year(today.year - _years_back(match["back"]))
    for match in _matches(words.SEASON_BACK, text):
        if match["back"].casefold() != "last":
            yield match, _season(today.year - _years_back(match["back"]), match["season"])
            continue
        # The last one that has begun: in summer "last summer" is that of the year before, as it is in spring.
        first = words.SEASONS[match["season"].casefold()]
        yield match, _season(today.year - (today.month < first + 3), match["season"])


def _relative(text: str, today: datetime) -> Iterator[Reading]:
    monday = today - timedelta(days=today.weekday())
    for match in _matches(words.LATELY, text):
        yield match, _lately(match, today)
    for match in words.HALF_MONTH.finditer(text):
        yield match, _span("span", today - timedelta(days=18), 7)
    for match in words.HALF_YEAR.finditer(text):
        yield match, _months_ago(today, 6, 1)
    for match in words.FEW_DAYS.finditer(text):
        yield match, _span("span", today - timedelta(days=5), 4)
    for match in words.KOREAN_AGO.finditer(text):
        yield match, _span("day", today - timedelta(days=words.KOREAN_DAYS[match["n"]]), 1)
    for match in words.WEEKENDS_AGO.finditer(text):
        count = 3 if match["n"].casefold() in words.VAGUE else _number(match["n"])
        yield match, _span("span", monday + timedelta(days=5 - 7 * count), 2)
    for match in _matches(words.AGO, text):
        yield match, _ago(match["n"], match["unit"].casefold().replace("間", ""), today)
    for match in _matches(words.EUROPEAN_AGO, text) if words.AGO_SAID.search(text) else ():
        said = str(words.EUROPEAN_NUMBERS.get(match["n"].casefold(), match["n"]))
        yield match, _ago(said, words.EUROPEAN_UNITS[match["unit"].casefold()], today)
    for pattern, days in words.NAMED:
        for match in pattern.finditer(text):
            yield match, _span("day", today + timedelta(days=days), 1)
    for match in _matches(words.CJK_WEEKDAY, text):
        days = 7 * words.WEEKS_AWAY.get(match["which"], 0) + words.CJK_DAYS[match["name"]]
        yield match, _span("day", monday + timedelta(days=days), 1)
    for pattern, weeks, (first, last) in words.WEEKS:
        for match in pattern.finditer(text):
            yield match, _span("span", monday + timedelta(days=7 * weeks + first), last - first)
    for match in words.WEEKDAY.finditer(text):
        day = words.WEEKDAYS.index((match["name"] or match["earlier"]).casefold())
        which = "" if match["earlier"] else match["which"].casefold()
        yield match, _weekday(day, which, today, ahead=words.AHEAD.search(text) is not None)
    for match in _matches(words.EUROPEAN_WEEKDAY, text):
        which = next(name for name, said in match.groupdict().items() if said and name != "name")
        yield match, _weekday(words.EUROPEAN_DAYS[match["name"].casefold()], which, today, ahead=False)
    for pattern, months in words.NAMED_MONTHS:
        for match in pattern.finditer(text):
            yield match, _months_ago(today, months, 0)
    for pattern, years in words.NAMED_YEARS:
        for match in pattern.finditer(text):
            yield match, _year(today.year - years)


def _matches(patterns: Sequence[re.Pattern[str]], text: str) -> Iterator[re.Match[str]]:
    for pattern in patterns:
        yield from pattern.finditer(text)


def _weekday(day: int, which: str, today: datetime, *, ahead: bool) -> Period:
    """The day of a name that is meant, "" before last; `ahead` says whether a text speaks of what is to come."""
    back = (today.weekday() - day) % 7
    if not which:
        return _span("day", today - timedelta(days=(back or 7) + 7), 1)
    if which == "next":
        # The coming one, or that of next week.
        return _span("span", today + timedelta(days=-back % 7), 8)
    if which in ("this coming", "coming", "upcoming", "for", "by") or (which == "on" and ahead):
        return _span("day", today + timedelta(days=-back % 7), 1)
    if which == "this":
        # That of this week, which may be still to come.
        return _span("day", today + timedelta(days=day - today.weekday()), 1)
    return _span("day", today - timedelta(days=back if which == "on" else back or 7), 1)


def _ago(count: str, unit: str, today: datetime) -> Period | None:
    days = words.UNIT_DAYS.get(unit)
    least, most = _between(count, by_days=days == 1)
    if not least:
        return None
    if days is not None:
        slack = 0 if days == 1 else 3
        length = days * (most - least) + 1 + 2 * slack
        return _span("day" if length == 1 else "span", today - timedelta(days=days * most + slack), length)
    if unit in words.MONTH_UNITS:
        return _months_ago(today, (least + most) // 2, (most - least) // 2)
    return _year(today.year - (least + most) // 2)


def _lately(match: re.Match[str], today: datetime) -> Period | None:
    unit = match["unit"].casefold().rstrip("間")
    grain: Grain = "year" if unit in ("year", "年", "년") else "month" if unit in words.MONTH_UNITS else "span"
    days = {"year": 365, "month": 31}.get(grain) or words.UNIT_DAYS[unit]
    _, most = _between(match["n"] or "one", by_days=days == 1)
    return _span(grain, today - timedelta(days=days * most), days * most + 1) if most else None


def _between(text: str, *, by_days: bool) -> tuple[int, int]:
    """The least and the most that a number may stand for, which is vague when it says so."""
    if text.casefold() in words.VAGUE:
        return (1, 5) if by_days else (2, 4)
    if text[0] in words.SOME:
        return 20, 90
    if text[-1] in words.SOME:
        tens = _number(text[:-1])
        return tens + 1, tens + 9
    return _number(text), _number(text)


def _months_ago(today: datetime, months: int, slack: int) -> Period | None:
    """The month so many before this one, with `slack` months on both sides."""
    return _months(12 * today.year + today.month - 1 - months - slack, 2 * slack + 1)


def _is_verb(match: re.Match[str]) -> bool:
    """Whether the month of a day is rather a verb: "may 5 people come"."""
    if match.groupdict().get("name") not in words.VERBS or words.SURE.search(match[0]):
        return False
    text, end = match.string, match.end()
    return text[end : end + 2].strip().islower() and not words.WHEN.search(
        text, max(0, match.start() - 8), match.start()
    )


def _number(text: str) -> int:
    """The number that digits or words stand for; 0 for what is none, which no date has."""
    if text.isdigit():
        return int(text)
    known = words.NUMBERS.get(text.casefold())
    if known is not None:
        return known
    if (parts := re.split("[- ]", text.casefold()))[0] in words.TENS:
        return sum(words.NUMBERS[part] for part in parts)
    tens, ten, ones = text.partition("十")
    if ten and len(tens) <= 1 and len(ones) <= 1:
        return 10 * words.DIGITS.get(tens or "一", 0) + words.DIGITS.get(ones or "〇", 0)
    # 三四天 is three or four days, 二〇二四年 a year.
    year = len(text) == 4 and set(text) <= words.DIGITS.keys()
    return int("".join(str(words.DIGITS[digit]) for digit in text)) if year else 0


def _month_of(match: re.Match[str]) -> int:
    name = match.groupdict().get("name")
    return words.MONTHS[name.casefold()] if name else _number(match["month"])


def _years_back(name: str) -> int:
    return 1 if name.casefold() == "last" else words.YEARS_BACK.get(name, 0)


def _part(match: re.Match[str]) -> Period:
    """The beginning, middle or end of a month; without a year, a day in it, which counts for the week after."""
    month, first = words.MONTHS[match["name"].casefold()], words.PARTS[match["part"].casefold()]
    if match["year"] is None:
        return Period("day", month=month, day=first + 2)
    return _span("span", datetime(int(match["year"]), month, first, tzinfo=UTC), 10)


def _lunar_new_year(year: int) -> Period:
    return _span("span", datetime(year, 1, 21, tzinfo=UTC), 32)


def _decade(year: int) -> Period | None:
    if year < 100:
        year += 2000 if year < 30 else 1900
    return _months(12 * year, 120, "year")


def _season(year: int, name: str) -> Period | None:
    return _months(12 * year + words.SEASONS[name.casefold()] - 1, 3)


def _span(grain: Grain, start: datetime, days: int) -> Period:
    return Period(grain, to_micros(start), to_micros(start + timedelta(days=days)))


def _day(year: str | None, month: int, day: str) -> Period | None:
    number = _number(day)
    if not (1 <= month <= 12 and 1 <= number <= 31):
        return None
    if year is None:
        return Period("day", month=month, day=number)
    try:
        return _span("day", datetime(_number(year), month, number, tzinfo=UTC), 1)
    except ValueError:  # 30 February
        return None


def _month(year: int, month: int) -> Period | None:
    return _months(12 * year + month - 1) if 1 <= month <= 12 else None


def _year(year: int) -> Period | None:
    return _months(12 * year, 12, "year")


def _months(first: int, count: int = 1, grain: Grain = "month") -> Period | None:
    """So many months from one on, which is counted from January of the year 0; None outside of the calendar."""
    if not 12 <= first < 12 * datetime.max.year:
        return None
    start, end = (datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in (first, first + count))
    return Period(grain, to_micros(start), to_micros(end))
