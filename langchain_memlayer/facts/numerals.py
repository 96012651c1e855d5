"""Numbers in texts, in digits and in words, and whether a fact states one that nobody said.

Numbers are compared by their significant digits: "5k", "5,000" and "5 thousand" have the same. What is found is a clear
contradiction only: a date is worked out from the turn's time, and a sum may be, so neither counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Final

_DIGITS: Final = re.compile(r"\d+(?:[.,]\d+)*")
_WORD: Final = re.compile(r"[^\W\d_]+")
_HAN: Final = re.compile("[零〇一二两兩三四五六七八九十百千万萬亿億廿]+")
_LONGEST_HAN: Final = 40
"""Longer runs are no numeral, but laughter (六六六…) or noise."""
_HAN_DIGITS: Final = {
    char: value for value, chars in enumerate(("零〇", "一", "二两兩", *"三四五六七八九")) for char in chars
}
_HAN_UNITS: Final = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}

_UNITS: Final = (
    "one once first single eins ein eine un une uno una",
    "two twice second couple both pair double zwei deux dos",
    "three third triple drei trois tres",
    "four fourth vier quatre cuatro",
    "five fifth fünf cinq cinco",
    "six sixth sechs seis",
    "seven seventh sieben sept siete",
    "eight eighth acht huit ocho",
    "nine ninth neun neuf nueve",
    "ten tenth zehn dix diez",
    "eleven elf onze",
    "twelve dozen zwölf douze doce",
    "thirteen",
    "fourteen fortnight",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS: Final = {
    **{word: value for value, words in enumerate(_UNITS, 1) for word in words.split()},
    **{word: value for value, word in enumerate(_TENS, 2)},
    "half": 5,
    "quarter": 25,
    "hundred": 1,
    "thousand": 1,
    "million": 1,
}

_MONTHS: Final = re.compile(
    r"\b(?:jan|feb|fév|mar|mär|apr|avr|abr|may|mai|jun|juin|jul|juil|aug|août|ago|sep|oct|okt|nov|dec|dez|déc|dic|ene)"
    r"|[年月日号號]",
    re.IGNORECASE,
)
_YEAR: Final = re.compile(r"(?<!\d)(?:1[6-9]|20|21)\d\d(?!\d)")
_DATES_AND_TIMES: Final = re.compile(
    r"\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d{1,2}:\d\d(?::\d\d)?"
    r"|\d+(?=st\b|nd\b|rd\b|th\b|\s*(?:[ap]\.?m\b|o'clock|uhr\b|h\b|[点點时時]))",
    re.IGNORECASE,
)
_LAST_DAY: Final = 31
_SMALL: Final = 12
_FEWEST_DIGITS: Final = 3
_MOST_NUMBERS: Final = 60
"""Of more numbers nearly every other is a sum or a product of two."""


def unsaid_number(fact: str, quote: str, said: Sequence[str], year: int | None = None) -> str | None:
    """A number of a fact that contradicts its quote, as the fact writes it; None when there is none.

    It is in digits, is no date or time of day, and neither in what was said (in digits or words: "two", 两) nor a sum,
    difference or product of two numbers of the quote. Up to twelve, which any language has short words for, it must
    stand in the place of a number of the quote that the fact does not have.

    Args:
        fact: The statement.
        quote: What it is said to come from; without a number in it, or with more than 60, nothing is contradicted.
        said: The texts in which the number may stand too, such as the cited turns.
        year: When the quote was said: an age is worked out from a year of birth.
    """
    fact, quote = _plain(fact), _plain(quote)
    quoted = [match[0] for match in _DIGITS.finditer(quote)]
    values = [*map(_value, quoted), *_in_words(quote)]
    if not 0 < len(values) <= _MOST_NUMBERS:
        return None
    known = {_significant(match[0]) for text in (quote, *map(_plain, said)) for match in _DIGITS.finditer(text)}
    known |= {_significant(str(value)) for text in (quote, *map(_plain, said)) for value in _in_words(text)}
    known |= set(_worked_out(values if year is None else [*values, year]))
    digits = re.sub(r"\D", "", quote)
    stated = {_significant(match[0]) for match in _DIGITS.finditer(fact)}
    replaced = any(_significant(number) not in stated for number in quoted)
    for number in _numbers(fact):
        run = re.sub(r"\D", "", number)
        if _significant(number) in known or (len(run) >= _FEWEST_DIGITS and run in digits):
            continue
        if replaced or _value(number) > _SMALL:
            return number
    return None


def _numbers(fact: str) -> Iterator[str]:
    """The numbers in digits that are no part of a date or a time."""
    rest = _YEAR.sub(" ", _DATES_AND_TIMES.sub(" ", fact))
    dated = _YEAR.search(fact) or _DATES_AND_TIMES.search(fact) or _MONTHS.search(fact)
    for match in _DIGITS.finditer(rest):
        if _significant(match[0]) and not (dated and _value(match[0]) <= _LAST_DAY):
            yield match[0]


def _worked_out(values: Sequence[float]) -> Iterator[str]:
    for a, b in permutations(values, 2):
        for value in (a + b, a - b, a * b):
            yield _significant(f"{value:.6g}" if value % 1 else str(int(value)))


def _in_words(text: str) -> list[int]:
    """The numbers that a text has in words, and those that its words may be parts of."""
    found: list[int] = []
    before = 0
    for match in _WORD.finditer(text):
        value = _NUMBER_WORDS.get(match[0], 0)
        if value:
            found += [value, before * 10 + value]
        before = value
    for match in _HAN.finditer(text):
        if len(match[0]) <= _LONGEST_HAN:
            found += [_han(match[0]), *(_HAN_DIGITS[char] for char in match[0] if char in _HAN_DIGITS)]
    return [value for value in found if value]


def _han(text: str) -> int:
    """The value of a Chinese numeral; that of its digits in a row when it has no unit (二〇二四)."""
    total = section = digit = 0
    unit = 0
    if not any(char in _HAN_UNITS for char in text):
        return int("".join(str(_HAN_DIGITS.get(char, 2)) for char in text))
    for char in text:
        if char == "廿":
            section, digit, unit = section + 20, 0, 10
        elif char in _HAN_DIGITS:
            digit = _HAN_DIGITS[char]
            unit = unit if digit else 0
        elif (unit := _HAN_UNITS[char]) < 10**4:
            section, digit = section + (digit or 1) * unit, 0
        else:
            total, section, digit = total + (section + digit or 1) * unit, 0, 0
    # 三百五 is 350: a last digit is of the next lower unit.
    return total + section + digit * (unit // 10 if unit > 10 else 1)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _significant(number: str) -> str:
    """The digits of a number between its first and its last that is not 0."""
    return "".join(str(unicodedata.digit(char)) for char in number if char.isdigit()).strip("0")


def _value(number: str) -> float:
    """About what a number is worth; three digits after a comma or a point are thousands."""
    whole = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", number).replace(",", ".")
    head, *rest = whole.split(".")
    return float(f"{head}.{''.join(rest)}") if rest else float(head)
