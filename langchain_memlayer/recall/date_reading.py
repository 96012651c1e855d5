"""Where a text speaks of which time: full dates, months, years and times relative to a day."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from langchain_memlayer.recall import date_patterns as patterns
from langchain_memlayer.recall.date_words import EUROPEAN_DAYS, MONTHS, WEEKDAYS, Grain, Period
from langchain_memlayer.types import to_micros

# Seen from outside of these years, "a thousand years ago" would lie outside of the calendar.
_EARLIEST, _LATEST = 1000, 9000
_SINCE_CHARS = 12

Reading = tuple[re.Match[str], "Period | tuple[Period, ...] | None"]


def read(text: str, today: datetime) -> Iterator[tuple[tuple[int, int], tuple[Period, ...]]]:
    """Where a text (NFKC) speaks of which times; what is exact comes first."""
    relative = _relative(text, today) if _EARLIEST < today.year < _LATEST else ()
    # What is exact goes first: of texts within each other the first one counts.
    for match, period in (*_of_relative_year(text, today), *_absolute(text), *relative):
        if period is not None:
            named = period if isinstance(period, tuple) else (period,)
            lasts = match.re not in patterns.INTERVAL and _is_since(match)
            yield match.span(), tuple(one for period in named for one in _until(period, today)) if lasts else named


def _is_since(match: re.Match[str]) -> bool:
    """Whether a text means all that followed: "since March", 三月以来."""
    text, start, end = match.string, *match.span()
    before = patterns.SINCE.finditer(text, max(0, start - _SINCE_CHARS), end)
    return any(start in (*one.span(), one.end(1)) for one in before) or patterns.UNTIL_NOW.match(text, end) is not None


def _until(period: Period, today: datetime) -> tuple[Period, ...]:
    """From the beginning of a period to today; of one without a year, which stays, from the last that has begun."""
    start, end = period.start, to_micros(today + timedelta(days=1))
    year: tuple[Period, ...] = ()
    if period.month is not None:
        begun = (period.month, period.day or 1) <= (today.month, today.day)
        first = _day(today.year if begun else today.year - 1, period.month, str(period.day or 1))
        start, year = end if first is None else first.start, (period,)
    if start >= end:
        return (period,)
    return (*year, Period("span" if period.grain == "day" else period.grain, start, end))


def _absolute(text: str) -> Iterator[Reading]:
    for match in _matches(patterns.INTERVAL, text):
        yield match, _interval(match)
    for match in _matches(patterns.FULL, text):
        if not _is_verb(match):
            yield match, _day(_year_of(match), _month_of(match), match["day"])
    for match in patterns.PART.finditer(text):
        yield match, _part_of_month(match)
    for match in _matches(patterns.SEASON, text):
        yield match, _season(_number(match["year"]), match["season"])
    for match in _matches(patterns.OF_YEAR, text):
        yield match, _month(_year_of(match) or 0, _month_of(match))
    for match in _matches(patterns.BARE_MONTH, text):
        month = _month_of(match)
        yield match, Period("month", month=month) if 1 <= month <= 12 else None
    for match in patterns.DECADE.finditer(text):
        yield match, _months(12 * _four_digits(_number(match["year"] or match["cjk"])), 120, "year")
    for match in _matches(patterns.BARE_YEAR, text):
        yield match, _year(_number(match["year"]))


def _of_relative_year(text: str, today: datetime) -> Iterator[Reading]:
    """Months, days, feasts and seasons of last year, this year, or the year before last."""
    for match in _matches(patterns.MONTH_BACK, text):
        year = today.year - _years_back(match["back"])
        if match.groupdict().get("day"):
            yield match, _day(year, _month_of(match), match["day"])
        else:
            yield match, _month(year, _month_of(match))
    for match in _matches(patterns.FEAST, text):
        back = match.groupdict().get("back")
        yield match, _feast(today.year - _years_back(back) if back else _year_of(match), match["feast"])
    for match in _matches(patterns.SEASON_BACK, text):
        if match["back"].casefold() != "last":
            yield match, _season(today.year - _years_back(match["back"]), match["season"])
            continue
        # The last one that has begun: in summer "last summer" is that of the year before, as it is in spring.
        first = patterns.SEASONS[match["season"].casefold()]
        yield match, _season(today.year - (today.month < first + 3), match["season"])


def _relative(text: str, today: datetime) -> Iterator[Reading]:
    monday = today - timedelta(days=today.weekday())
    for match in _matches(patterns.LATELY, text):
        yield match, _lately(match, today)
    for match in patterns.HALF_MONTH.finditer(text):
        yield match, _span("span", today - timedelta(days=18), 7)
    for match in patterns.HALF_YEAR.finditer(text):
        yield match, _months_ago(today, 6, 1)
    for match in patterns.FEW_DAYS.finditer(text):
        yield match, _span("span", today - timedelta(days=5), 4)
    for match in patterns.KOREAN_AGO.finditer(text):
        yield match, _span("day", today - timedelta(days=patterns.KOREAN_DAYS[match["n"]]), 1)
    for match in patterns.WEEKENDS_AGO.finditer(text):
        count = 3 if match["n"].casefold() in patterns.VAGUE else _number(match["n"])
        yield match, _span("span", monday + timedelta(days=5 - 7 * count), 2)
    for match in _matches(patterns.AGO, text):
        yield match, _ago(match["n"], match["unit"].casefold().replace("間", ""), today)
    for match in _matches(patterns.EUROPEAN_AGO, text) if patterns.AGO_SAID.search(text) else ():
        said = str(patterns.EUROPEAN_NUMBERS.get(match["n"].casefold(), match["n"]))
        yield match, _ago(said, patterns.EUROPEAN_UNITS[match["unit"].casefold()], today)
    for pattern, days in patterns.NAMED:
        for match in pattern.finditer(text):
            yield match, _span("day", today + timedelta(days=days), 1)
    for match in _matches(patterns.CJK_WEEKDAY, text):
        days = 7 * patterns.WEEKS_AWAY.get(match["which"], 0) + patterns.CJK_DAYS[match["name"]]
        yield match, _span("day", monday + timedelta(days=days), 1)
    for pattern, weeks, (first, last) in patterns.WEEKS:
        for match in pattern.finditer(text):
            yield match, _span("span", monday + timedelta(days=7 * weeks + first), last - first)
    for match in patterns.WEEKDAY.finditer(text):
        day = WEEKDAYS.index((match["name"] or match["earlier"]).casefold())
        which = "" if match["earlier"] else match["which"].casefold()
        yield match, _weekday(day, which, today, ahead=patterns.AHEAD.search(text) is not None)
    for match in _matches(patterns.EUROPEAN_WEEKDAY, text):
        which = next(name for name, said in match.groupdict().items() if said and name != "name")
        yield match, _weekday(EUROPEAN_DAYS[match["name"].casefold()], which, today, ahead=False)
    for pattern, months in patterns.NAMED_MONTHS:
        for match in pattern.finditer(text):
            year, month = divmod(12 * today.year + today.month - 1 - months, 12)
            date = match.groupdict().get("day")
            yield match, _day(year, month + 1, date) if date else _month(year, month + 1)
    for pattern, years in patterns.NAMED_YEARS:
        for match in pattern.finditer(text):
            yield match, _year(today.year - years)


def _matches(some: Sequence[re.Pattern[str]], text: str) -> Iterator[re.Match[str]]:
    for pattern in some:
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
    return _span("day", today - timedelta(days=back if which in ("on", "since") else back or 7), 1)


def _ago(count: str, unit: str, today: datetime) -> Period | None:
    days = patterns.UNIT_DAYS.get(unit)
    least, most = _between(count, by_days=days == 1)
    if not least:
        return None
    if days is not None:
        slack = 0 if days == 1 else 3
        length = days * (most - least) + 1 + 2 * slack
        return _span("day" if length == 1 else "span", today - timedelta(days=days * most + slack), length)
    if unit in patterns.MONTH_UNITS:
        return _months_ago(today, (least + most) // 2, (most - least) // 2)
    return _year(today.year - (least + most) // 2)


def _lately(match: re.Match[str], today: datetime) -> Period | None:
    unit = match["unit"].casefold().rstrip("間")
    grain: Grain = "year" if unit in ("year", "年", "년") else "month" if unit in patterns.MONTH_UNITS else "span"
    days = {"year": 365, "month": 31}.get(grain) or patterns.UNIT_DAYS[unit]
    _, most = _between(match["n"] or "one", by_days=days == 1)
    return _span(grain, today - timedelta(days=days * most), days * most + 1) if most else None


def _between(text: str, *, by_days: bool) -> tuple[int, int]:
    """The least and the most that a number may stand for, which is vague when it says so."""
    if text.casefold() in patterns.VAGUE:
        return (1, 5) if by_days else (2, 4)
    if text[0] in patterns.SOME:
        return 20, 90
    if text[-1] in patterns.SOME:
        tens = _number(text[:-1])
        return tens + 1, tens + 9
    return _number(text), _number(text)


def _months_ago(today: datetime, months: int, slack: int) -> Period | None:
    """The month so many before this one, with `slack` months on both sides."""
    return _months(12 * today.year + today.month - 1 - months - slack, 2 * slack + 1)


def _is_verb(match: re.Match[str]) -> bool:
    """Whether the month of a day is rather a verb: "may 5 people come"."""
    if match.groupdict().get("name") not in patterns.VERBS or patterns.SURE.search(match[0]):
        return False
    text, end = match.string, match.end()
    return text[end : end + 2].strip().islower() and not patterns.WHEN.search(
        text, max(0, match.start() - 8), match.start()
    )


def _number(text: str) -> int:
    """The number that digits or words stand for; 0 for what is none, which no date has."""
    if text.isdigit():
        return int(text)
    known = patterns.NUMBERS.get(text.casefold())
    if known is not None:
        return known
    if (parts := re.split("[- ]", text.casefold()))[0] in patterns.TENS:
        return sum(patterns.NUMBERS[part] for part in parts)
    tens, ten, ones = text.partition("十")
    if ten and len(tens) <= 1 and len(ones) <= 1:
        return 10 * patterns.DIGITS.get(tens or "一", 0) + patterns.DIGITS.get(ones or "〇", 0)
    # 三四天 is three or four days, 二〇二四年 a year.
    year = len(text) == 4 and set(text) <= patterns.DIGITS.keys()
    return int("".join(str(patterns.DIGITS[digit]) for digit in text)) if year else 0


def _month_of(match: re.Match[str]) -> int:
    name = match.groupdict().get("name")
    return MONTHS[name.casefold()] if name else _number(match["month"])


def _years_back(name: str) -> int:
    return 1 if name.casefold() == "last" else patterns.YEARS_BACK.get(name, 0)


def _part_of_month(match: re.Match[str]) -> Period:
    """The beginning, middle or end of a month; without a year, a day in it, which counts for the week after."""
    month, first = MONTHS[match["name"].casefold()], patterns.PARTS[match["part"].casefold()]
    if match["year"] is None:
        return Period("day", month=month, day=first + 2)
    return _span("span", datetime(int(match["year"]), month, first, tzinfo=UTC), 10)


def _year_of(match: re.Match[str]) -> int | None:
    """The year that a match names, of which two digits may be written."""
    year = _number(match.groupdict().get("year") or "")
    return _four_digits(year) if year else None


def _four_digits(year: int) -> int:
    return year + (2000 if year < 30 else 1900) if year < 100 else year


def _interval(match: re.Match[str]) -> Period | tuple[Period, ...] | None:
    """The months from one to another: as one span, or each when the year is open."""
    said, last, year = match["first"], _month_of(match), _year_of(match)
    first = MONTHS.get(said.casefold()) or _number(said)
    count = (last - first) % 12 + 1
    if not (1 <= first <= 12 and 1 <= last <= 12):
        return None
    if year is None:
        return tuple(Period("month", month=(first - 1 + k) % 12 + 1) for k in range(count))
    return _months(12 * year + (last - count if "name" in match.groupdict() else first - 1), count)


def _feast(year: int | None, name: str) -> Period | None:
    month, day, days = patterns.FEASTS[name]
    if year is None:
        return Period("day", month=month, day=day) if days < 30 else None
    return _span("span", datetime(year, month, day, tzinfo=UTC), days) if year > 0 else None


def _season(year: int, name: str) -> Period | None:
    return _months(12 * year + patterns.SEASONS[name.casefold()] - 1, 6 if name in patterns.HALVES else 3)


def _span(grain: Grain, start: datetime, days: int) -> Period:
    return Period(grain, to_micros(start), to_micros(start + timedelta(days=days)))


def _day(year: int | None, month: int, day: str) -> Period | None:
    number = _number(day)
    if not (1 <= month <= 12 and 1 <= number <= 31):
        return None
    if year is None:
        return Period("day", month=month, day=number)
    try:
        return _span("day", datetime(year, month, number, tzinfo=UTC), 1)
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
