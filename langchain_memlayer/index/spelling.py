"""Words of a query that no text has, and the words one slip of the fingers away from them.

What is kept of a text's terms is their ids, so a dictionary of a scope's words could only be made by reading all its
texts. Instead the terms around the query's own are written down, and looked up as any other: some 50 for each letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.keywords import STOP_WORDS, stem, term_ids

_SHORTEST, _LONGEST = 4, 20
_STEM, _ENDING = 5, 6
# A word of letters alone that is no part of an address, a path or a code.
_WORD = re.compile(rf"(?<![\w@./'#-])[A-Za-z]{{{_SHORTEST},{_LONGEST}}}(?![\w@/]|[-.]\w)")


def written_words(text: str) -> list[str]:
    """The distinct words of a query that may have been misspelled, in lower case, in order."""
    found = dict.fromkeys(word.lower() for word in _WORD.findall(text))
    return [word for word in found if word not in STOP_WORDS]


@lru_cache(maxsize=256)
def ids_around(word: str) -> NDArray[np.uint64]:
    """The ids of the terms one slip away from a word's, in the order of `slipped`.

    A slip swaps two letters, or leaves one out, adds one or writes another; the first letter is hardly ever mistyped.
    One in the ending hides from the stemmer that it is one: so the word without its last letters counts, too.

    Args:
        word: In lower case, ASCII letters alone.
    """
    return term_ids(term for term, _ in _slips(word))


def slipped(word: str, number: int) -> str | None:
    """The word of that number among `ids_around`, or None where the stemmer makes another term of it."""
    term, one = next(islice(_slips(word), number, None))
    return one if stem(one) == term else None


def _slips(word: str) -> Iterator[tuple[str, str]]:
    """Terms and words; of a word of four letters one may be missing, as every other slip makes another word of it."""
    term = stem(word)
    kept = next((k for k, (one, other) in enumerate(zip(word, term, strict=False)) if one != other), len(term))
    ending = word[kept:] if len(term) == kept else ""
    for at in range(1, len(term) + 1):
        head, tail = term[:at], term[at:]
        changed = [letter + tail for letter in ascii_lowercase]
        if tail and len(word) > _SHORTEST:
            changed += [letter + tail[1:] for letter in ascii_lowercase]
            changed += [tail[1:], tail[1:2] + tail[:1] + tail[2:]]
        yield from ((head + one, head + one + ending) for one in changed)
    for size in range(max(_STEM, len(word) - _ENDING), len(word)):
        yield word[:size], word[:size]
