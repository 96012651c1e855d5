"""Quotes: whether somebody said them, and whether a fact keeps the language of what was said."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

# Scripts without spaces give one word for each character.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_SILENT = re.compile("['\u2018\u2019\u02bc\u00ad\u200b-\u200f\u2060\ufeff]")
_LEFT_OUT = re.compile(r"\.{3,}|\u2026+")
_DENIALS = frozenset(
    """
    not no never none cannot cant dont didnt doesnt isnt arent wasnt werent wont wouldnt couldnt shouldnt hasnt havent
    不 没 沒 无 無 未 别 別 非 nicht kein keine nie pas jamais nunca
    """.split()  # noqa: SIM905 - a table of words reads better than their list
)
_FEWEST = 4
_EQUAL = 0.7
_ALIKE = 0.8
_SHORTEST_ALIKE = 5
_LETTERS = {"CJK": "han", "HIRAGANA": "han", "KATAKANA": "han", "BOPOMOFO": "han"}


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation, apostrophes and compatibility forms (NFKC)."""
    return _WORD.findall(_SILENT.sub("", unicodedata.normalize("NFKC", text).casefold()))


def is_said(said: Sequence[str], quote: str) -> bool:
    """Whether a quote is in a text.

    Its words must be there in one run. An ellipsis stands for words left out, and its parts follow each other. From
    four words on, up to a quarter may be left out without one (but no denial), and long words be misspelt; words and
    numbers of its own a quote never has.

    Args:
        said: The `words` of the text.
        quote: The quote.
    """
    parts = [part for part in (words(piece) for piece in _LEFT_OUT.split(quote)) if part]
    # A single letter is in every text.
    if not parts or (sum(map(len, parts[0])) < 2 and parts[0] != list(said)):
        return False
    text, start = f" {' '.join(said)} ", 0
    for part in parts:
        at = text.find(f" {' '.join(part)} ", start)
        if at >= 0:
            start = at + sum(map(len, part)) + len(part)
        elif not _is_nearly_said(text[start:].split(), part):
            return False
    return True


def says_all(text: str, other: str) -> bool:
    """Whether a text has all words of another, and no denial of its own ("no longer", 不再)."""
    mine, others = set(words(text)), set(words(other))
    return others <= mine and _DENIALS.isdisjoint(mine - others)


def _is_nearly_said(said: Sequence[str], part: list[str]) -> bool:
    if len(part) < _FEWEST:
        return False
    slack = max(1, len(part) // 4)
    window = _nearest(said, part, len(part) + slack)
    equal = omitted = 0
    for step, i, j, k, m in SequenceMatcher(None, window, part, autojunk=False).get_opcodes():
        if step == "equal":
            equal += j - i
        elif step == "insert" or (step == "replace" and not _alike("".join(window[i:j]), "".join(part[k:m]))):
            return False
        elif step == "delete" and 0 < k < len(part):
            omitted += j - i
            if not _DENIALS.isdisjoint(window[i:j]):
                return False
    return equal >= _EQUAL * len(part) and omitted <= slack


def _nearest(said: Sequence[str], part: list[str], size: int) -> Sequence[str]:
    """The `size` words in a row that have the most in common with `part`."""
    wanted = Counter(part)
    inside: Counter[str] = Counter()
    common = best = end = 0
    for at, word in enumerate(said):
        inside[word] += 1
        common += inside[word] <= wanted[word]
        if at >= size:
            gone = said[at - size]
            common -= inside[gone] <= wanted[gone]
            inside[gone] -= 1
        if common > best:
            best, end = common, at + 1
    # The words after it count too: the run may begin within the window.
    return said[max(0, end - size) : end]


def _alike(one: str, other: str) -> bool:
    if min(len(one), len(other)) < _SHORTEST_ALIKE or abs(len(one) - len(other)) > 1:
        return False
    if any(char.isdigit() for char in one + other):
        return False
    return SequenceMatcher(None, one, other, autojunk=False).ratio() > _ALIKE


def keeps_script(quote: str, fact: str) -> bool:
    """Whether a fact has a letter of the script that its quote is mostly written in; true when that cannot be told."""
    script = _main_script(unicodedata.normalize("NFKC", quote))
    return script is None or any(_script(char) == script for char in unicodedata.normalize("NFKC", fact))


def _main_script(text: str) -> str | None:
    counts = Counter(_script(char) for char in text if char.isalpha())
    if not counts:
        return None
    script, count = counts.most_common(1)[0]
    # One short foreign word says nothing of the language around it.
    enough = 2 if script == "han" else 4
    return script if count >= enough and count > 0.6 * counts.total() else None


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    first = unicodedata.name(char, "UNKNOWN").split()[0]
    return _LETTERS.get(first, first)
