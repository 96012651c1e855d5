"""Dates in questions: which days a text speaks of, and how well a memory's time agrees.

Understood are full dates, months, years and times relative to a reference, in English, Chinese, Japanese and Korean:
"8 May 2023", "May 8th", "2023-05-08", "last weekend", "three weeks ago", 2024年04月01日, 上周六, 先月, 지난주.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Grain = Literal["day", "span", "month", "year"]

_DAY = 86_400_000_000
# Seen from outside of these years, "a thousand years ago" would lie outside of the calendar.
_EARLIEST, _LATEST = 1000, 9000
_MONTHS = {
    name: number
    for number, names in enumerate(
        ("january jan", "february feb", "march mar", "april apr", "may", "june jun", "july jul", "august aug",
         "september sept sep", "october oct", "november nov", "december dec"), 1,
    )
    for name in names.split()
}  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = {
    word: number
    for number, words in enumerate(
        ("", "a an one 一 한", "two couple 二 两 兩 두", "three few 三 几 세", "four 四 네", "five 五", "six 六",
         "seven 七", "eight 八", "nine 九", "ten 十", "eleven 十一", "twelve 十二"),
    )
    for word in words.split()
}  # fmt: skip
_CJK_DAYS = {
    **dict(zip("一二三四五六日天", (0, 1, 2, 3, 4, 5, 6, 6), strict=True)),
    **dict(zip("月火水木金土", range(6), strict=True)),
}
_UNIT_DAYS = {"day": 1, "week": 7, "天": 1, "日": 1, "周": 7, "週": 7, "星期": 7, "礼拜": 7, "일": 1, "주": 7}
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}

_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_NUMBER = "|".join(sorted((re.escape(word) for word in _NUMBERS), key=len, reverse=True))
_ORDINAL = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"

_FULL = (
    re.compile(rf"(?<!\d){_YEAR}[-/.](?P<month>[01]?\d)[-/.](?P<day>[0-3]?\d)(?!\d)"),
    re.compile(rf"(?<!\d){_YEAR}\s*[年년]\s*(?P<month>[01]?\d)\s*[月월]\s*(?P<day>[0-3]?\d)\s*[日号號일]"),
    re.compile(rf"\b{_ORDINAL}(?:\s+of)?\s+(?P<name>{_MONTH})\b\.?(?:,?\s+{_YEAR}\b)?", re.IGNORECASE),
    re.compile(rf"\b(?P<name>{_MONTH})\.?\s+(?:the\s+)?{_ORDINAL}\b(?!\d)(?:,?\s+{_YEAR}\b)?", re.IGNORECASE),
    re.compile(r"(?<![\d年년])(?P<month>[01]?\d)\s*[月월]\s*(?P<day>[0-3]?\d)\s*[日号號일]"),
)
_OF_YEAR = (
    re.compile(rf"(?<!\d){_YEAR}\s*[年년]\s*(?P<month>[01]?\d)\s*[月월](?!\s*[0-3]?\d\s*[日号號일])"),
    re.compile(rf"\b(?P<name>{_MONTH})\b\.?,?\s+(?:of\s+)?{_YEAR}\b", re.IGNORECASE),
    re.compile(rf"(?<!\d){_YEAR}-(?P<month>[01]\d)(?![-\d])"),
)
# "may" is a verb too, so a bare month needs its capital or a preposition.
_BARE_MONTH = (
    re.compile(
        rf"\b(?:[Ii]n|[Dd]uring|[Ss]ince|[Uu]ntil|[Bb]y|[Ll]ast|[Tt]his|[Oo]f)\s+(?P<name>(?i:{_MONTH}))\b(?!\.?\s+\d)"
    ),
    re.compile(r"(?<![\d年년个個ヶか])(?P<month>1[0-2]|[1-9])\s*[月월](?!\s*[0-3]?\d\s*[日号號일])"),
)
_BARE_YEAR = (re.compile(rf"\b(?:in|during|of|since|from|year|summer|winter|spring|autumn|fall)\s+{_YEAR}\b", re.IGNORECASE),
              re.compile(rf"(?<!\d){_YEAR}\s*[年년](?!\s*\d)"))  # fmt: skip
_AGO = (
    re.compile(
        rf"\b(?P<n>\d{{1,3}}|{_NUMBER})(?:\s+of)?\s+(?P<unit>day|week|month|year)s?\s+(?:ago|earlier|back)\b",
        re.IGNORECASE,
    ),
    re.compile(rf"(?P<n>\d{{1,3}}|{_NUMBER})\s*[个個ヶか]?\s*(?P<unit>天|日|周|週間?|星期|礼拜|月|年)(?:之?前|以前)"),
    re.compile(rf"(?P<n>\d{{1,3}}|{_NUMBER})\s*(?P<unit>일|주|개월|달|년)\s*전"),
)
_NAMED = (
    (re.compile(r"\b(?:yesterday|last night)\b|昨[天日晚]|어제", re.IGNORECASE), -1),
    (re.compile(r"\bday before yesterday\b|前天|一昨日|그저께", re.IGNORECASE), -2),
    (re.compile(r"\b(?:today|tonight|this (?:morning|afternoon|evening))\b|今[天日晚早]|오늘", re.IGNORECASE), 0),
    (re.compile(r"\btomorrow\b|明[天日]|내일", re.IGNORECASE), 1),
)
_WEEKS = (
    (re.compile(r"\blast weekend\b|上[个個]?(?:周|週|星期|礼拜)末|先週末|지난\s*주말", re.IGNORECASE), -1, (5, 7)),
    (re.compile(r"\bthis weekend\b|这[个個]?周末|這[個]?週末|本周末|今週末|이번\s*주말", re.IGNORECASE), 0, (5, 7)),
    (re.compile(r"\b(?:last|previous|past) week\b|上[个個]?(?:周|週|星期|礼拜)(?![一二三四五六日天末])|先週(?!末)|지난\s*주(?!말)", re.IGNORECASE), -1, (0, 7)),
    (re.compile(r"\bthis week\b|[这這本]个?(?:周|週|星期)(?![一二三四五六日天末])|今週(?!末)|이번\s*주(?!말)", re.IGNORECASE), 0, (0, 7)),
)  # fmt: skip
_WEEKDAY = re.compile(rf"\b(?P<which>last|this|on)\s+(?P<name>{'|'.join(_WEEKDAYS)})\b", re.IGNORECASE)
_CJK_WEEKDAY = re.compile(r"(?P<which>上|这|這|本)[个個]?(?:周|週|星期|礼拜)(?P<name>[一二三四五六日天])")
_LAST_MONTH = re.compile(r"\b(?:last|previous|past) month\b|上[个個]?月|先月|지난\s*달", re.IGNORECASE)
_THIS_MONTH = re.compile(r"\bthis month\b|[这這本][个個]?月|今月|이번\s*달", re.IGNORECASE)
_LAST_YEAR = re.compile(r"\b(?:last|previous|past) year\b|去年|昨年|작년|지난\s*해", re.IGNORECASE)
_THIS_YEAR = re.compile(r"\bthis year\b|今年|올해", re.IGNORECASE)
_SEASON = re.compile(rf"\b(?P<season>{'|'.join(_SEASONS)})(?:\s+of)?\s+{_YEAR}\b", re.IGNORECASE)


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


@lru_cache(maxsize=256)
def periods(text: str, reference: datetime) -> tuple[Period, ...]:
    """The periods that a text speaks of, relative ones seen from `reference`; a text within another is read once."""
    found: list[Period] = []
    rest = text
    for span, period in _read(text, reference):
        if rest[span[0] : span[1]] == text[span[0] : span[1]]:
            found.append(period)
            rest = rest[: span[0]] + "\x00" * (span[1] - span[0]) + rest[span[1] :]
    return tuple(dict.fromkeys(found))


def agreement(times: NDArray[np.int64], wanted: tuple[Period, ...]) -> NDArray[np.float32]:
    """How well each time agrees with the best fitting period, from 0 to 1; what happened is told some days later.

    A day: 1 from the day before to a week after, .5 within a month. A month: 1 inside, .5 in the first half of the
    next. A year: .3.

    Args:
        times: Microseconds since 1970 UTC; negative where unknown.
        wanted: What `periods` found.
    """
    best = np.zeros(len(times), np.float32)
    for period in wanted:
        np.maximum(best, _agrees(times, period), out=best)
    best[times < 0] = 0
    return best


def _agrees(times: NDArray[np.int64], period: Period) -> NDArray[np.float32]:
    out = np.zeros(len(times), np.float32)
    if period.month is not None:
        stamps = times.astype("datetime64[us]")
        months = stamps.astype("datetime64[M]").astype(np.int64) % 12 + 1
        days = (stamps.astype("datetime64[D]") - stamps.astype("datetime64[M]").astype("datetime64[D]")).astype(
            np.int64
        ) + 1
        if period.day is None:
            out[(months == period.month % 12 + 1) & (days <= 15)] = 0.5
            out[months == period.month] = 1
            return out
        offset = (months - period.month) * 31 + days - period.day
        out[(offset >= -3) & (offset <= 31)] = 0.5
        out[(offset >= -1) & (offset <= 7)] = 1
        return out
    if period.grain == "year":
        out[(times >= period.start) & (times < period.end)] = 0.3
        return out
    if period.grain == "month":
        out[(times >= period.end) & (times < period.end + 15 * _DAY)] = 0.5
        out[(times >= period.start) & (times < period.end)] = 1
        return out
    out[(times >= period.start - 3 * _DAY) & (times < period.end + 31 * _DAY)] = 0.5
    out[(times >= period.start - _DAY) & (times < period.end + 7 * _DAY)] = 1
    return out


def _read(text: str, reference: datetime) -> Iterator[tuple[tuple[int, int], Period]]:
    for readings in (_absolute(text), _relative(text, reference)):
        for match, period in readings:
            if period is not None:
                yield match.span(), period


def _absolute(text: str) -> Iterator[tuple[re.Match[str], Period | None]]:
    for pattern in _FULL:
        for match in pattern.finditer(text):
            part = match.groupdict()
            month = _MONTHS[part["name"].casefold()] if part.get("name") else int(part["month"])
            yield match, _day(part.get("year"), month, int(part["day"]))
    for match in _SEASON.finditer(text):
        first = _month(int(match["year"]), _SEASONS[match["season"].casefold()])
        if first is not None:
            yield match, Period("month", first.start, first.end + 61 * _DAY)
    for pattern in _OF_YEAR:
        for match in pattern.finditer(text):
            part = match.groupdict()
            month = _MONTHS[part["name"].casefold()] if part.get("name") else int(part["month"])
            yield match, _month(int(part["year"]), month)
    for pattern in _BARE_MONTH:
        for match in pattern.finditer(text):
            part = match.groupdict()
            month = _MONTHS[part["name"].casefold()] if part.get("name") else int(part["month"])
            yield match, Period("month", month=month)
    for pattern in _BARE_YEAR:
        for match in pattern.finditer(text):
            yield match, _year(int(match["year"]))


def _relative(text: str, reference: datetime) -> Iterator[tuple[re.Match[str], Period | None]]:
    if not _EARLIEST < reference.year < _LATEST:
        return
    today = reference.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    monday = today - timedelta(days=today.weekday())
    for pattern, days in reversed(_NAMED[:2]):
        for match in pattern.finditer(text):
            yield match, _span("day", today + timedelta(days=days), 1)
    for pattern, days in _NAMED[2:]:
        for match in pattern.finditer(text):
            yield match, _span("day", today + timedelta(days=days), 1)
    for pattern, weeks, (first, last) in _WEEKS:
        for match in pattern.finditer(text):
            yield match, _span("span", monday + timedelta(days=7 * weeks + first), last - first)
    for match in _CJK_WEEKDAY.finditer(text):
        weeks = -1 if match["which"] == "上" else 0
        yield match, _span("day", monday + timedelta(days=7 * weeks + _CJK_DAYS[match["name"]]), 1)
    for match in _WEEKDAY.finditer(text):
        back = (today.weekday() - _WEEKDAYS.index(match["name"].casefold())) % 7
        if match["which"].casefold() == "last" and not back:
            back = 7
        yield match, _span("day", today - timedelta(days=back), 1)
    for pattern in _AGO:
        for match in pattern.finditer(text):
            yield match, _ago(match, today)
    for pattern, months in ((_LAST_MONTH, -1), (_THIS_MONTH, 0)):
        for match in pattern.finditer(text):
            index = today.year * 12 + today.month - 1 + months
            yield match, _month(index // 12, index % 12 + 1)
    for pattern, years in ((_LAST_YEAR, -1), (_THIS_YEAR, 0)):
        for match in pattern.finditer(text):
            yield match, _year(today.year + years)


def _ago(match: re.Match[str], today: datetime) -> Period | None:
    count = int(match["n"]) if match["n"].isdigit() else _NUMBERS[match["n"].casefold()]
    unit = match["unit"].casefold().replace("間", "")
    if unit in _UNIT_DAYS:
        days = _UNIT_DAYS[unit]
        slack = 0 if days == 1 else 3
        return _span("span" if slack else "day", today - timedelta(days=days * count + slack), 1 + 2 * slack)
    if unit in ("month", "月", "개월", "달"):
        index = today.year * 12 + today.month - 1 - count
        return _month(index // 12, index % 12 + 1)
    return _year(today.year - count)


def _micros(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def _span(grain: Grain, start: datetime, days: int) -> Period:
    return Period(grain, _micros(start), _micros(start + timedelta(days=days)))


def _day(year: str | None, month: int, day: int) -> Period | None:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    if year is None:
        return Period("day", month=month, day=day)
    try:
        return _span("day", datetime(int(year), month, day, tzinfo=UTC), 1)
    except ValueError:  # 30 February
        return None


def _month(year: int, month: int) -> Period | None:
    if not (1 <= month <= 12 and 1 <= year <= 9998):
        return None
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return Period("month", _micros(datetime(year, month, 1, tzinfo=UTC)), _micros(after))


def _year(year: int) -> Period:
    return Period("year", _micros(datetime(year, 1, 1, tzinfo=UTC)), _micros(datetime(year + 1, 1, 1, tzinfo=UTC)))
