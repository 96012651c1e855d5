"""Words of a query that no text has, and the words one slip of the fingers away from them.

What is kept of a text's terms is their ids, so a dictionary of a scope's words could only be made by reading all its
texts. Instead the terms around the query's own are written down, and looked up as any other: some 50 for each letter.
"""

from __future__ import annotations

import re
from functools import lru_cache
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.function_words import ENGLISH
from langchain_memlayer.index.keywords import plain_ids, stem

_SHORTEST, _LONGEST = 4, 20
_STEM, _ENDING = 5, 6
# A word of letters alone that is no part of an address, a path or a code.
_WORD = re.compile(rf"(?<![\w@./'#-])[A-Za-z]{{{_SHORTEST},{_LONGEST}}}(?![\w@/]|[-.]\w)")


def written_words(text: str) -> list[str]:
    """The distinct words of a query that may have been misspelled, in lower case, in order."""
    found = dict.fromkeys(word.lower() for word in _WORD.findall(text))
    return [word for word in found if word not in ENGLISH]


@lru_cache(maxsize=256)
def ids_around(word: str) -> NDArray[np.uint64]:
    """The ids of the terms one slip away from a word's, in the order of `slipped`.

    A slip swaps two letters, or leaves one out, adds one or writes another; the first letter is hardly ever mistyped.
    One in the ending hides from the stemmer that it is one: so the word without its last letters counts, too.

    Args:
        word: In lower case, ASCII letters alone.
    """
    slips, _, shorter = _slips(word)
    return plain_ids([*slips, *shorter])


def slipped(word: str, number: int) -> str | None:
    """The word of that number among `ids_around`, or None where the stemmer makes another term of it."""
    slips, ending, shorter = _slips(word)
    term, ending = (slips[number], ending) if number < len(slips) else (shorter[number - len(slips)], "")
    return term + ending if stem(term + ending) == term else None


def _slips(word: str) -> tuple[list[str], str, list[str]]:
    """The terms around a word's, what makes words of them, and the word without its last letters.

    Of a word of four letters one may be missing, as every other slip makes another word of it.
    """
    term = stem(word)
    kept = next((k for k, (one, other) in enumerate(zip(word, term, strict=False)) if one != other), len(term))
    slips: list[str] = []
    for at in range(1, len(term) + 1):
        head, tail = term[:at], term[at:]
        slips += [head + letter + tail for letter in ascii_lowercase]
        if tail and len(word) > _SHORTEST:
            slips += [head + letter + tail[1:] for letter in ascii_lowercase]
            slips += [head + tail[1:], head + tail[1:2] + tail[:1] + tail[2:]]
    shorter = [word[:size] for size in range(max(_STEM, len(word) - _ENDING), len(word))]
    return slips, word[kept:] if len(term) == kept else "", shorter
