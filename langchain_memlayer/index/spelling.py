"""Words of a query that no text has, and the words one slip of the fingers away from them.

What is kept of a text's terms is their ids, so a dictionary of a scope's words could only be made by reading all its
texts. Instead the terms around the query's own are written down, and looked up as any other: some 50 for each letter.
Which English words there are at all, and how often they are used, says the list that comes with pyspellchecker.
"""

from __future__ import annotations

import gzip
import logging
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.function_words import ENGLISH
from langchain_memlayer.index.keywords import plain_ids, stem

_LOGGER = logging.getLogger(__name__)

_SHORTEST, _LONGEST = 4, 20
_WORDS_ALONE = bytes.maketrans(b'{}":,0123456789', b" " * 15)
_NUMBERS_ALONE = bytes(byte if byte in b"0123456789" else 32 for byte in range(256))
# A word of letters alone that is no part of an address, a path or a code.
_WORD = re.compile(rf"(?<![\w@./'#-])[A-Za-z]{{{_SHORTEST},{_LONGEST}}}(?![\w@/]|[-.]\w)")


def written_words(text: str) -> list[str]:
    """The distinct words of a query that may have been misspelled, in lower case, in order."""
    distinct = dict.fromkeys(word.lower() for word in _WORD.findall(text))
    return [word for word in distinct if word not in ENGLISH]


@dataclass(frozen=True, slots=True)
class Slips:
    """The words one slip away from another.

    Attributes:
        terms: What they may be kept as.
        words: The word of each term.
    """

    terms: list[str]
    words: list[str]
    ids: NDArray[np.uint64]

    def most_frequent(self, counts: NDArray[np.int64]) -> str | None:
        """The word whose term most texts have (by the `counts`), if the stemmer makes that term of it; else None."""
        ordered = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist()
        return next((self.words[at] for at in ordered if stem(self.words[at]) == self.terms[at]), None)


@lru_cache(maxsize=256)
def slips_of(word: str) -> Slips:
    """The words around one, with a slip in what the stemmer leaves of it.

    Args:
        word: In lower case, ASCII letters alone.
    """
    term = stem(word)
    kept = next((k for k, (one, other) in enumerate(zip(word, term, strict=False)) if one != other), len(term))
    ending, terms = word[kept:] if len(term) == kept else "", edits(term, len(word))
    return Slips(terms, [one + ending for one in terms], plain_ids(terms))


@cache
def word_list() -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
    """The English words, in lower case and ascending, and how often each was found in a large collection of texts.

    Only the package's file is used, which has them in order: the package would take .3 s to read it, and five times the
    memory. Without the file no word is known, and each that no text has is taken for a slip.
    """
    try:
        packed = pkgutil.get_data("spellchecker", "resources/en.json.gz")
    except OSError as error:
        _LOGGER.warning("The list of words cannot be read (%s): install pyspellchecker again.", type(error).__name__)
        packed = None
    text = gzip.decompress(packed or b"")
    words, uses = text.translate(_WORDS_ALONE).split(), text.translate(_NUMBERS_ALONE)
    # Behind all others stands what is no word, so that each has a place.
    return np.array([*words, b"\xff"], f"S{_LONGEST + 2}"), np.fromstring(uses, np.int32, sep=" ")


def english(words: Sequence[str]) -> dict[str, int]:
    """Those of some words (in lower case, ASCII letters alone) that are English, in their order, and how often used."""
    listed, uses = word_list()
    wanted = np.array(words, listed.dtype)
    places = np.searchsorted(listed, wanted)
    return {words[at]: int(uses[places[at]]) for at in np.flatnonzero(listed[places] == wanted).tolist()}


def words_around(word: str) -> list[str]:
    """The English words one slip away from another, the most used first."""
    near = english(edits(word, len(word)))
    return sorted(near, key=lambda one: -near[one])


def edits(part: str, length: int) -> list[str]:
    """What is one slip away: two letters swapped, one left out, added or another; the first is hardly ever mistyped.

    Args:
        part: A word or its stem, in lower case, ASCII letters alone.
        length: Letters of the whole word: of one of four only one may be missing, as every other slip makes another
            word of it.
    """
    words: list[str] = []
    for at in range(1, len(part) + 1):
        head, tail = part[:at], part[at:]
        words += [head + letter + tail for letter in ascii_lowercase]
        if tail and length > _SHORTEST:
            words += [head + letter + tail[1:] for letter in ascii_lowercase]
            words += [head + tail[1:], head + tail[1:2] + tail[:1] + tail[2:]]
    return words
