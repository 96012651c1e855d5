"""Numbers in texts, in digits and in words, and whether a fact states one that contradicts what was said.

English, French, German, Spanish, Portuguese, Italian and Dutch words are read by text2num, Chinese ones here; whatever
else a language may call a number is not known, and so contradicts nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import permutations, product
from typing import Final

from langchain_memlayer.facts.grounding import words
from langchain_memlayer.index.function_words import function_words
from langchain_memlayer.recall.date_words import MONTHS

_DIGITS: Final = re.compile(r"\d+(?:[.,]\d+)*")
_MULTIPLIED: Final = re.compile(
    r"(?<!\d)(\d++(?:[.,]\d++)*+)\s?(?:k\b|тыс\w*|"
    r"([十百千万萬亿億십백천만억](?:\d*[十百千万萬亿億십백천만억])*+(?:(?<=[百千万萬亿億])\d(?![\d.,]))?))"
)
_NUMBER_OR_UNIT: Final = re.compile(r"\d+(?:[.,]\d+)*|.")
_FRACTION: Final = re.compile(r"(?<![\d/])(\d{1,3})[/\u2044](\d{1,3})(?![\d/])")
_AND_A_PART: Final = re.compile(
    "(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])|(?<=[\u2460-\u24ff\u2776-\u2793])(?=\\d)"
)  # 1½, ②6
# Thousands may be apart: 2 500, 2'500.
_APART: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:[ '\u2019]\d{3})+(?!\d)")
_HAN: Final = re.compile(
    "(?<![\\d千万萬亿億])([零〇一二两兩三四五六七八九十百千万萬亿億廿]+)(?:[点點]([零〇一二三四五六七八九]+))?"
)
_PARTS: Final = re.compile("([二两三四五六七八九十百千]{1,4})分之([一二两三四五六七八九十百千]{1,4})")
# What goes on in the next lower unit: 一米八三, 三块五, 一斤二两.
_UNIT_AND_PART: Final = re.compile(
    r"(?<![\d.])(\d++|[一二两兩三四五六七八九十百]++)(?:(米)([\d一二三四五六七八九]{1,2})(?![\d十百千万])"
    r"|([块塊元斤尺])([1-9一二三四五六七八九])(?:[毛角两兩寸]|(?=$|\W|[钱錢的一每左买買卖賣])))"
)
# As cheques write them, and as people type thousands; watts are written in other languages.
_FORMAL: Final = re.compile("[零壹贰貳叁參肆伍陆陸柒捌玖拾佰仟万萬亿億]{2,}")
_INFORMAL: Final = dict(zip(map(ord, "壹贰貳叁參肆伍陆陸柒捌玖拾佰仟"), "一二二三三四五六六七八九十百千", strict=True))
_TYPED: Final = re.compile(r"(?<=\d)([wk])(?=\d?(?![\da-z]))")
_THOUSANDS: Final = {"w": "万", "k": "千"}
_HAS_HAN: Final = re.compile("[\u4e00-\u9fff]|^[\\d.wk\\s]+$")
# Times of day, of which 七点八 is none: 三点, 三点半, 三点一刻, 九点五十, 九点零五.
_CLOCK: Final = re.compile(
    "(?<![零〇百千万萬分之一二两兩三四五六七八九十])([一二两兩三四五六七八九十]{1,3})[点點]"
    "(?:(半|[一三]刻|[零〇][一二三四五六七八九]|[一二三四五]?十[一二三四五六七八九]?)分?|(?![零〇一二三四五六七八九\\d]))"
)
_MINUTES: Final = {"半": 30, "一刻": 15, "三刻": 45}
_TENS: Final = re.compile("[一二三四五六七八九]?十[一二三四五六七八九]?")
_LONGEST_HAN: Final = 40
"""Longer runs are no numeral, but laughter (六六六…) or noise."""
_LONGEST_WORDS: Final = 20_000
_HAN_DIGITS: Final = {
    char: value for value, chars in enumerate(("零〇", "一幺", "二两兩", *"三四五六七八九")) for char in chars
}
_UNIT_BEGINS: Final = re.compile(r"(?<=\d)(?=[^\W\d_])|(?<=[^\W\d_])(?=\d)")
_HAN_READ: Final = {ord(char): str(value) for char, value in _HAN_DIGITS.items()}
_OH: Final = re.compile(r"\boh?\b")
_HAN_UNITS: Final = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8,
                      "십": 10, "백": 100, "천": 1000, "만": 10**4, "억": 10**8}  # fmt: skip


def _valued(*rows: tuple[tuple[float, ...], str]) -> dict[str, tuple[float, ...]]:
    return {word: values for values, said in rows for word in said.split()}


# What else may stand for a number.
_LOOSELY: Final = _valued(
    ((12,), "dozen dutzend douzaine docena dozzina dúzia 打"), ((3,), "triple tripled"),
    ((2,), "couple pair both each round twice double doubled halved paar par je hin verdoppelt halbiert cada 倍 翻 返"),
    ((0.5, 30), "half halb halbe halben demi demie medio media mezzo mezza meio meia 半"), ((14,), "fortnight"),
    ((0.25, 15), "quarter quarters viertel quart quarts cuarto cuartos quarto 刻"), ((5,), "mitte"), ((10,), "折"),
    ((33,), "third thirds drittel tiers tercio"), ((1.5,), "anderthalb eineinhalb полтора"),
)  # fmt: skip
# What a number may be of: how many smaller ones it has, or larger ones it is a part of.
_UNITS: Final = _valued(
    ((12,), "year years jahr jahre jahren an ans année années año años anno anni ano anos 年 岁 歲"),
    ((12, 30), "month months monat monate monaten mois mes meses mese mesi mês 月"), ((0.5,), "斤 重"),
    ((7, 4), "week weeks woche wochen semaine semaines semana semanas settimana settimane 周 週 期"),
    ((0.1,), "毛 角"), ((7, 24), "day days tag tage tagen jour jours día días giorni dias 天"),
    ((60,), "h hour hours std stunde stunden heure heures hora horas ora ore 时 時 钟 鐘"),
)  # fmt: skip
# Those that text2num reads; in Spanish only "once" is 11.
_LANGUAGES: Final = ("en", "fr", "de", "es", "pt", "it", "nl")

_MONTHS: Final = re.compile(
    r"\b(?:jan|feb|fév|mar|mär|apr|avr|abr|may|mai|jun|juin|jul|juil|aug|août|ago|sep|oct|okt|nov|dec|dez|déc|dic|ene)"
    r"|[年月日号號]",
    re.IGNORECASE,
)
# A month that is said without a day; "Jan" is a name, and "mar" the sea.
_ONLY_MONTH: Final = re.compile(
    rf"\b(?:{'|'.join(name for name in MONTHS if len(name) > 3)}|may|mai)\b|"
    r"\b(?:январ|феврал|март|апрел|ма[йея]\b|июн|июл|август|сентябр|октябр|ноябр|декабр)|[月월](?!\s*[初底末초말])",
    re.IGNORECASE,
)
_SAID_DAY: Final = re.compile(
    r"(?<!\d)(?:[12]?\d|3[01])(?![\d年月년월])|today|yesterday|tomorrow|tonight|first|begin|start|early|erste|anfang|premier|début|primero|inicio|principio|primeiro|início|começo|primo|inizio|перв|начал|[日号號初]|\d일|초",
    re.IGNORECASE,
)
_FIRST_DAY: Final = re.compile(r"(?<!\d)(\d{4}-\d\d)-01(?!\d)")
DAY: Final = re.compile(r"\d{4}-\d\d(?:-\d\d)?")
_YEAR: Final = re.compile(r"(?<!\d)(?:1[6-9]|20|21)\d\d(?!\d)")
_DATES_AND_TIMES: Final = re.compile(
    r"\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d{1,2}:\d\d(?::\d\d)?"
    r"|(?<!\d)\d{1,2}h\d\d|(?<!\d)\d++(?=st\b|nd\b|rd\b|th\b|\s*(?:[ap]\.?m\b|o'clock|uhr\b|h\b|[点點时時]))",
    re.IGNORECASE,
)
# What is told by a year more or less ("turning 40 next year"), a year of two digits, and what is about a number.
_BY_ONE: Final = re.compile(
    r"\b(?:next|last|this) (?:year|birthday|month|week|summer|spring|winter|autumn|fall)|\bturn(?:s|ed|ing)?\b|"
    r"(?:\bwill|['\u2019]ll) be\b|\b(?:and|but|plus) (?:an?|one)\b|\b(?:an?|one) \w+ (?:older|younger|more|less)\b|"
    r"\bund eine?\w?\b|\bet une?\b|\by una?\b|\be u[nm]\w?\b|"
    r"\b(?:almost|nearly|soon|nächste\w*|letzte\w*|bald|fast|prochaine?|dernière?|presque|bientôt|próxim[oa]|"
    r"pasad[oa]|casi|quase|pross?im[oa]|scors[oa])\b|明年|去年|来年|來年|快要?|就要|内年|내년|작년|곧"
)
_SHORT_YEAR: Final = re.compile(r"(?<![\w'\u2019])['\u2019](\d\d)(?!\d)|(?<!\d)(\d\d)年")
_HYPHEN: Final = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
# What is told in tens: 八折, 三割, 三成.
_BY_TENS: Final = re.compile("[折割成]")
_FEW_NUMBERS: Final = 6
"""Of that many the sums with those of other turns are counted, too."""
_PERCENT: Final = re.compile("%|percent|prozent|百分")
_ABOUT: Final = re.compile(r"(?<!\d)\d++(?:s\b|\s?(?:多|代|几|幾|余|餘))")
_LAST_DAY: Final = 31
_FEWEST_DIGITS: Final = 3
# Of 15000 the first four digits are another number; what is longer, and no amount, may be told in parts.
_LONG: Final = re.compile(r"\d{7,}+(?<!000)")
_YEARS_NEAR: Final = 2
_MOST_NUMBERS: Final = 60
"""Of more numbers nearly every other is a sum or a product of two."""


def numbers(text: str, *, dated: bool = False) -> set[float]:
    """The values of the numbers in a text, in digits and in the words of its own language.

    With `dated` those count that may be parts of dates and times: in a text with a date, all up to 31 may.
    """
    text = _normalized(text)
    digits = _DIGITS.findall(text) if dated else _undated(text)
    return {*map(_exact, (*map(_value, digits), *_in_words(text, _spoken(text), parts=False)))}


def days(text: str) -> set[str]:
    """The days and months that a text names as YYYY-MM-DD or YYYY-MM."""
    return set(DAY.findall(text))


def as_exact(fact: str, quote: str) -> str:
    """A fact whose dates are no more exact than its quote: of "in March" models make the first of it."""
    said = _normalized(quote)
    return _FIRST_DAY.sub(r"\1", fact) if _ONLY_MONTH.search(said) and not _SAID_DAY.search(said) else fact


def unsaid_number(fact: str, quote: str, said: Sequence[str], year: int | None = None) -> str | None:
    """A number of a fact that contradicts its quote, as the fact writes it; None when there is none.

    It stands in the place of a number of the quote that the fact does not have. It is in digits, is no date, time of
    day or decade ("30s"), and neither in what was said (in digits or words: "two", 两) nor worked out
    of numbers of the quote: a sum, a difference, a product, a half, minutes of hours.

    Args:
        fact: The statement.
        quote: What it is said to come from; without a number in it, or with more than 60, nothing is contradicted.
        said: The texts in which the number may stand too, such as the cited turns.
        year: When the quote was said: an age is worked out from a year of birth, before or after the birthday.
    """
    fact, quote = _normalized(fact), _normalized(quote)
    quoted = _stated(quote, _spoken(quote))
    # Any language's word for a number of the quote will do.
    stated = {*map(_exact, _stated(fact, _LANGUAGES))}
    tens = _BY_TENS.search(quote) is not None
    if len(quoted) > _MOST_NUMBERS or all(is_among(value, stated, tens=tens) for value in quoted):
        return None
    known = worked_out(quote, year)
    around = [_exact(value) for text in map(_normalized, said) for value in _stated(text, _LANGUAGES)]
    heard = {*around, *map(_exact, _stated(quote, _LANGUAGES))}
    known |= heard
    if len(heard) <= _FEW_NUMBERS:
        # Twice a number is another one, unless it was said twice.
        sums = ((one, value) for one in quoted for value in heard if one != value or around.count(value) > 1)
        known |= {_exact(one + sign * value) for one, value in sums for sign in (1, -1)}
    unknown = [n for n in _undated(_ABOUT.sub(" ", fact)) if not is_among(_value(n), known, tens=tens)]
    years, named_years = ({*map(int, _YEAR.findall(text))} for text in (_ABOUT.sub(" ", fact), quote))
    if not named_years <= years:
        # A year in the place of another; one that is near is told as "the year after", or of what is to come.
        near = {*named_years, year or 0}
        far = (one for one in years if all(abs(one - other) > _YEARS_NEAR for other in near))
        unknown += sorted(str(one) for one in far if not is_among(one, known))
    runs = [_LONG.sub(lambda match: " ".join(match[0]), run) for run in _digit_runs(quote)] if unknown else []
    return next((number for number in unknown if not _is_dictated(number, runs)), None)


def worked_out(quote: str, year: int | None = None) -> set[float]:
    """The numbers of a text, and their sums, products, parts, ages in a year; nothing of too many."""
    quote = _normalized(quote)
    quoted = _stated(quote, _spoken(quote) or _LANGUAGES)
    if len(quoted) > _MOST_NUMBERS:
        return set()
    named = set(words(_UNIT_BEGINS.sub(" ", quote)))
    loose, units = ({value for word in named for value in of.get(word, ())} for of in (_LOOSELY, _UNITS))
    years = [] if year is None else [year, year - 1]
    quoted += [1900 + int(one or other) for one, other in _SHORT_YEAR.findall(quote.translate(_HAN_READ))]
    known = [*quoted, *loose, *units, *_combined([*quoted, *loose], units)]
    known += [one - value for one in years for value in (*quoted, *loose)]
    if _BY_ONE.search(quote):
        known += [value + step for value in quoted for step in (-1, 1)]
    if _PERCENT.search(quote):
        known += [a + sign * a * b / 100 for a, b in permutations(quoted, 2) for sign in (-1, 1)]
    return {*map(_exact, known)}


def _stated(text: str, languages: Iterable[str]) -> list[float]:
    return [*map(_value, _DIGITS.findall(text)), *_in_words(text, languages)]


def _digit_runs(quote: str) -> Iterator[str]:
    """The digits of a text one after the other, as they are written and as they are said."""
    # The room 十二零一 is 1201.
    for text in (quote, _TENS.sub(lambda match: f"{_han(match[0]):.0f}", quote)):
        yield re.sub(r"\D+", " ", text.translate(_HAN_READ))
    if len(quote) <= _LONGEST_WORDS:
        yield from (" ".join(_worded(_OH.sub("zero", quote), name)) for name in _LANGUAGES)


def _is_dictated(number: str, runs: Sequence[str]) -> bool:
    digits = re.sub(r"\D", "", number)
    whole = re.compile(rf"(?<!\d){' ?'.join(digits)}(?!\d)")
    return len(digits) >= _FEWEST_DIGITS and any(map(whole.search, runs))


def _undated(text: str) -> Iterator[str]:
    """The numbers in digits that are no part of a date or a time."""
    rest = _YEAR.sub(" ", _DATES_AND_TIMES.sub(" ", text))
    dated = _YEAR.search(text) or _DATES_AND_TIMES.search(text) or _MONTHS.search(text)
    for match in _DIGITS.findall(rest):
        if _value(match) and not (dated and _value(match) <= _LAST_DAY):
            yield match


def _combined(values: Sequence[float], units: Iterable[float]) -> list[float]:
    # "Two and a half hours" are twice 60 minutes, and 30 more.
    parts = [value * unit for value in (1, *values) for unit in units]
    combined = [*parts, *(part + value for part in parts for value in values)]
    for a, b in permutations(values, 2):
        combined += (a + b, a - b, a * b)
    # The half of it, or a quarter, but not all that dividing may give.
    combined += [a / b for a, b in (*permutations(values, 2), *product(values, units)) if b and a * 4 % b == 0]
    return combined


def _spoken(text: str) -> list[str]:
    """The languages that a text may be in, as far as its small words tell."""
    said = set(words(text))
    counts = {name: len(said & function_words(name)) for name in _LANGUAGES}
    best = max(counts.values())
    return [name for name, count in counts.items() if count == best > 0]


@lru_cache(maxsize=256)
def _worded(text: str, language: str) -> tuple[str, ...]:
    """The numbers in digits that a text has more of when its words for numbers are read."""
    from text_to_num import alpha2digit

    # "A two-bedroom flat" has two, too.
    apart = _HYPHEN.sub(" ", _DIGITS.sub("#", text))
    return tuple(_DIGITS.findall(alpha2digit(apart, language, threshold=0.0)))


def _in_words(text: str, languages: Iterable[str], *, parts: bool = True) -> list[float]:
    """The numbers that a text has in words; with `parts` those that its Chinese ones may be parts of."""
    values: list[float] = []
    if len(text) <= _LONGEST_WORDS:
        # "one" is a pronoun more often than a number.
        values += [value for name in languages for part in _worded(text, name) if (value := _value(part)) != 1]
    values += map(_multiplied, _MULTIPLIED.finditer(text))
    values += [int(above) / int(below) for above, below in _FRACTION.findall(text) if int(below)]
    for match in _HAN.finditer(text):
        if len(match[0]) <= _LONGEST_HAN:
            values.append(_han(match[1]) + (float(f"0.{_han(match[2])}") if match[2] else 0))
            # 一万五六 are 15,000 to 16,000.
            values += [*(_HAN_DIGITS.get(char, 0) for char in match[0]), _han(match[1][:-1] or "零")] if parts else []
    return [value for value in values if value]


def _han(text: str) -> float:
    """The value of a Chinese numeral (also 6万2千); that of its digits in a row when it has no unit (二〇二四)."""
    total: float = 0
    section: float = 0
    digit: float = 0
    unit = 0
    if not any(char in _HAN_UNITS for char in text):
        return int("".join(str(_HAN_DIGITS.get(char, 2)) for char in text))
    for char in _NUMBER_OR_UNIT.findall(text):
        if char == "廿":
            section, digit, unit = section + 20, 0, 10
        elif char not in _HAN_UNITS:
            digit = _HAN_DIGITS[char] if char in _HAN_DIGITS else _value(char)
            unit = unit if digit else 0
        elif (unit := _HAN_UNITS[char]) < 10**4:
            section, digit = section + (digit or 1) * unit, 0
        else:
            total, section, digit = total + (section + digit or 1) * unit, 0, 0
    # 三百五 is 350: a last digit is of the next lower unit.
    return total + section + digit * (unit // 10 if unit > 10 else 1)


def _normalized(text: str) -> str:
    # A wide comma parts two numbers, but those in wide digits.
    text = re.sub("(?<=[0-9])，", ", ", _AND_A_PART.sub(" ", text))
    text = unicodedata.normalize("NFKC", text).casefold().replace("百分之", "%")
    if _HAS_HAN.search(text):
        text = _TYPED.sub(lambda match: _THOUSANDS[match[1]], text)
    text = _CLOCK.sub(_as_time, text)
    text = _FORMAL.sub(lambda match: match[0].translate(_INFORMAL), text)
    text = _UNIT_AND_PART.sub(_in_one_unit, text)
    return _joined(_PARTS.sub(lambda match: f"{_han(match[2])}/{_han(match[1])}", text))


def _as_time(match: re.Match[str]) -> str:
    minutes = _MINUTES.get(match[2] or "") or _han(match[2] or "零")
    return f"{_han(match[1]):.0f}:{minutes:02.0f}"


def _in_one_unit(match: re.Match[str]) -> str:
    whole = match[1] if match[1].isdecimal() else f"{_han(match[1]):.0f}"
    return f"{whole}.{(match[3] or match[5]).translate(_HAN_READ)}{match[2] or match[4]}"


def _multiplied(match: re.Match[str]) -> float:
    return _han(match[1] + match[2]) if match[2] else _value(match[1]) * 1000


def _joined(text: str) -> str:
    """A text with each number as one: 2 500 and 2.5k are 2500."""
    text = _APART.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    return _MULTIPLIED.sub(lambda match: f" {_multiplied(match):.0f} ", text)


def _exact(value: float) -> float:
    return round(abs(value), 6)


def is_among(value: float, known: Collection[float], *, tens: bool = False) -> bool:
    """Whether a number is known, in whatever unit: 5k are 5,000 and 1.8 m 180 cm; ten times a dose is another one."""
    scaled = (_exact(value * 10.0**power) for power in range(-8, 9) if tens or abs(power) != 1)
    return not value or any(one and one in known for one in scaled)


def _value(number: str) -> float:
    """About what a number is worth; three digits after a comma or a point are thousands."""
    whole = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    head, *rest = whole.split(".")
    return float(f"{head}.{''.join(rest)}") if rest else float(head)
