"""Keywords: what is indexed of a text, what is asked of a query, and BM25 with statistics that the caller gives.

```
text  ── NFKC, casefold, simplified Han ──> words ──> terms: stems, bigrams and characters, identifiers ──> ids, stored
query ── the same ────────> stop words out ──> ids ──> postings (`postings.py`) ──> BM25
```
A term means the same to every journal and every release: what is stored of it is its id alone.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from importlib.resources import files
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.function_words import function_words

K1 = 1.2
B = 0.75
MOST_TERMS = 12
CHARACTER = 0.4
"""What a Han character of a query counts against a whole term."""

ENTRY = np.dtype([("id", "<u8"), ("count", "<u2")])
"""A term of a text, as the journal keeps it."""
_MOST_COUNTED = 0xFFFF
_MANY = 100

LONGEST = 64
"""Characters of a word that count."""
_SHORTEST_STEMMED = 3

# Alone they say as little as function words; a bigram with any other character stays.
_FUNCTION = frozenset(
    "的了着过吗呢吧啊呀嘛我你您他她它们咱这那哪谁什么怎样为几多少个是在有和与跟及就都也还又很把被给对从到于之而且或但因所以如果会能可要想请问里时候"
)
# As words of two they say when and how many; one of them is in every other text.
_COUNTING = frozenset("年月日号天周时点分秒〇零一二三四五六七八九十百千万两半第次上下前后今明昨")

_SILENT = str.maketrans(
    dict.fromkeys("\u00ad\u0307\u0640\u200c\u200d\u2060\ufeff", "")  # soft hyphen, dot of İ, tatweel, joiners
    | dict.fromkeys("\u2018\u2019\u02bc\u2032", "'")
    | dict.fromkeys("\u2010\u2212", "-")
)
# Scripts that put no spaces between words, and Hangul, whose words carry their particles.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3021-\u30ff\u3105-\u318f\u31a0-\u31bf"
    r"\u31f0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    r"\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_ACCENTED = ("LATIN", "GREEK", "CYRILLIC", "ARABIC")
_CLITIC = re.compile(r"(?<=\w)(?:(?<=n)'(?=t\b)|'(?:s|d|m|ll|re|ve)\b)")
_JOINER = re.compile(r"_+|[.@'-]")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")

# Over the classes of `_Classes`: (a run without spaces) | words that one joiner each binds together
_RUN = re.compile(r"(h[hm]*)|w[wm]*(?:(?:u+|j)w[wm]*)*")
_UNIT = re.compile(r"hm*")
# The same where all characters are ASCII, and small.
_ASCII_RUN = re.compile(r"[a-z0-9]+(?:(?:_+|[.@'-])[a-z0-9]+)*")


class _Classes(dict[int, str]):
    """The class of each character: w word, h unspaced script, m mark, j joiner, u underscore, or a space."""

    def __missing__(self, code: int) -> str:
        kind = _class_of(chr(code))
        if code < 0x10000:
            self[code] = kind
        return kind


def _class_of(char: str) -> str:
    if char in ".@'-":
        return "j"
    if char == "_":
        return "u"
    if unicodedata.category(char).startswith("M"):
        return "m"
    if not char.isalnum():
        return " "
    return "h" if _UNSPACED.match(char) and not char.isdecimal() else "w"


_CLASSES = _Classes()


def tokenize(text: str) -> list[str]:
    """The terms of a text, in order and with repetitions.

    Words are folded to NFKC, lower case, simplified characters, and letters without accents ("Inés", "ines"); English
    ones become Porter stems (Porter 1980, "An algorithm for suffix stripping"), and stop words are kept, so that a
    query of nothing else finds its text.
    Identifiers, numbers with points and hyphenated words give their parts and then the whole ("ERR_42": `err`, `42`,
    `err42`), so a text with the whole ranks above those that share parts. Scripts without spaces, and Hangul, give
    overlapping bigrams; of Han there are the characters too, many of which are words.

    Args:
        text: Any text; what is neither letter nor digit only separates.
    """
    return [term_of(word) for word in _words(text, characters=True)]


def words_of(text: str) -> list[str]:
    """The words of a text as `tokenize` takes them, before they become terms."""
    return list(_words(text))


def query_terms(text: str, language: str = "en") -> list[str]:
    """The distinct terms of a query in its order, without function words unless nothing else is left.

    The characters of longer runs are not among them: `query_characters` has these.

    Args:
        text: The query.
        language: Whose function words say nothing.
    """
    words, silent = words_of(text), function_words(language)
    telling = [word for word in words if word not in silent and not _FUNCTION.issuperset(word)]
    return list(dict.fromkeys(map(term_of, telling or words)))


def query_characters(text: str) -> list[str]:
    """The distinct Han characters of longer runs in a query, without those that say little.

    They find what is said in other words, such as 跑鞋 for 鞋码, and each counts `CHARACTER` of a term.
    """
    words = set(_words(text))
    alone = dict.fromkeys(word for word in _words(text, characters=True) if word not in words)
    return [term_of(char) for char in alone if char not in _FUNCTION and char not in _COUNTING]


def is_character(ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which term ids are those of a single Han character."""
    marks: NDArray[np.bool_] = (ids & np.uint64(1)).astype(np.bool_)
    return marks


@lru_cache(maxsize=1 << 16)
def term_id(term: str) -> int:
    """What stands for a term everywhere: 63 bits of its BLAKE2b, and whether it is a single Han character.

    Two of a million terms share an id once in twenty million stores; a text is found by nothing else.
    """
    hashed = int.from_bytes(blake2b(term.encode(), digest_size=8).digest(), "little")
    return hashed & ~1 | (len(term) == 1 and _HAN.match(term) is not None)


def term_ids(terms: Iterable[str]) -> NDArray[np.uint64]:
    """The id of each term, in order."""
    return np.fromiter(map(term_id, terms), np.uint64)


def plain_ids(terms: Sequence[str]) -> NDArray[np.uint64]:
    """The `term_ids` of terms of ASCII, none of which is worth remembering."""
    hashed = b"".join([blake2b(term.encode(), digest_size=8).digest() for term in terms])
    return np.frombuffer(hashed, "<u8") & ~np.uint64(1)


def packed(terms: Sequence[str]) -> bytes:
    """What the journal keeps of a text's terms: for each distinct one an `ENTRY`, by ascending id."""
    if len(terms) > _MANY:  # in a third of the time, and of the memory
        ids, numbers = np.unique(term_ids(terms), return_counts=True)
        entries = np.empty(len(ids), ENTRY)
        entries["id"], entries["count"] = ids, np.minimum(numbers, _MOST_COUNTED)
        return entries.tobytes()
    counts = Counter(map(term_id, terms))
    return _layout(len(counts)).pack(*chain.from_iterable(sorted(counts.items())))


@cache
def _layout(entries: int) -> struct.Struct:
    return struct.Struct(f"<{'QH' * entries}")


def well_formed(entries: bytes) -> bool:
    """Whether these are terms as `packed` gives them."""
    if len(entries) % ENTRY.itemsize:
        return False
    terms = np.frombuffer(entries, ENTRY)
    return bool((terms["id"][1:] > terms["id"][:-1]).all() and (terms["count"] > 0).all())


def bm25(
    counts: NDArray[Any],
    lengths: NDArray[Any],
    dfs: NDArray[np.integer[Any]],
    total: int,
    average: float,
    weights: NDArray[np.float32] | float = 1.0,
    b: float = B,
) -> NDArray[np.float32]:
    """The BM25 score of each text for a query.

    Robertson & Zaragoza (2009), "The Probabilistic Relevance Framework: BM25 and Beyond", with k1 = 1.2 and b = 0.75;
    the idf is log(1 + (N - df + .5) / (df + .5)), which unlike theirs is never negative.

    Args:
        counts: How often each term stands in each text, shape (terms, texts).
        lengths: Terms of each text, shape (texts,).
        dfs: How many texts of the scope have each term, shape (terms,).
        total: Texts in the scope.
        average: Mean length of the scope's texts, above 0.
        weights: What each term counts, shape (terms,).
        b: How much a text's length counts.

    Returns:
        One score for each text.
    """
    damping = (K1 * (1 - b) + K1 * b / average * lengths).astype(np.float32)
    scores = np.zeros(len(lengths), np.float32)
    # Term by term: a matrix product would wake BLAS's threads, which cost more than they give here.
    for count, most in zip(counts, (weights * _most(dfs, total)).astype(np.float32), strict=True):
        scores += most * (count / (count + damping)).astype(np.float32)
    return scores


def bm25_ceiling(dfs: NDArray[np.integer[Any]], total: int, weights: NDArray[np.float32] | float = 1.0) -> float:
    """What no score for these terms passes: each term without end, in a text of no length.

    A term that no text of the scope has adds nothing, so that texts of other scopes do not move it.

    Args:
        dfs: How many texts of the scope have each term, shape (terms,).
        total: Texts in the scope.
        weights: What each term counts, shape (terms,).
    """
    return float((weights * _most(dfs, total))[dfs > 0].sum())


def bm25_unheard(total: int) -> float:
    """What a whole term could give that no text of `total` has yet."""
    return float(_most(np.zeros(1, np.int64), total)[0])


def _most(dfs: NDArray[np.integer[Any]], total: int) -> NDArray[np.float64]:
    """What each term can give at most."""
    most: NDArray[np.float64] = (K1 + 1) * np.log1p((total - dfs + 0.5) / (dfs + 0.5))
    return most


def _words(text: str, *, characters: bool = False) -> Iterator[str]:
    """The words of a text before they become terms: parts, wholes and bigrams, and on request Han `characters`."""
    text = _normal(text)
    if text.isascii():
        for piece in _ASCII_RUN.findall(text):
            yield from [piece] if piece.isalnum() else _joined(piece)
        return
    for run in _RUN.finditer(text.translate(_CLASSES)):
        piece = text[run.start() : run.end()]
        if run[1]:
            units = [piece[unit.start() : unit.end()] for unit in _UNIT.finditer(run[1])]
            if characters and len(units) > 1:
                yield from filter(_HAN.match, units)
            yield from map("".join, pairwise(units)) if len(units) > 1 else units
        else:
            yield from [piece] if piece.isalnum() else _joined(piece)


def _joined(piece: str) -> Iterator[str]:
    """The parts of a word that joiners bind together, and the whole."""
    parts = _JOINER.split(piece)
    yield from parts
    if len(parts) > 1:
        # "3.5" is not 35: the point between digits stays visible in the whole.
        yield _JOINER.sub("", _DECIMAL.sub("p", piece))


def _normal(text: str) -> str:
    if text.isascii():
        text = text.lower()
    else:
        # Folding can leave what composes (and removing a joiner can), so the normal form is taken again.
        folded = unicodedata.normalize("NFKC", text).casefold()
        text = unicodedata.normalize("NFKC", folded.translate(_same_letters()))
    return _CLITIC.sub("", text) if "'" in text else text


@lru_cache(maxsize=1)
def _same_letters() -> dict[int, Any]:
    return {**_SILENT, **simplified_han()}


@lru_cache(maxsize=1)
def simplified_han() -> dict[int, str]:
    """Traditional characters with their simplified ones, for `str.translate`."""
    pairs = "".join(files(__package__).joinpath("han.txt").read_text("utf-8").splitlines()[1:])
    return str.maketrans(dict(zip(pairs[::2], pairs[1::2], strict=True)))


@lru_cache(maxsize=1 << 15)
def term_of(word: str) -> str:
    """The term of one word, folded as `tokenize` folds texts."""
    word = word[:LONGEST]
    plain = unaccented(word)
    # Of "s" Porter's rules leave nothing.
    if len(plain) < _SHORTEST_STEMMED or not (plain.isascii() and plain.isalpha()):
        return plain
    stemmed = stem(plain)
    # They are not those of a name from elsewhere: of "Inés" they leave "in".
    return plain if plain != word and len(stemmed) < _SHORTEST_STEMMED else stemmed


def unaccented(word: str) -> str:
    """A word without its accents, in scripts in which they are often not typed; in others they make another letter."""
    if word.isascii() or not unicodedata.name(word[0], "").startswith(_ACCENTED):
        return word
    return "".join(char for char in unicodedata.normalize("NFD", word) if not unicodedata.combining(char))


def stem(word: str) -> str:
    """The Porter stem of an English word in lower case."""
    from snowballstemmer.porter_stemmer import PorterStemmer

    # A stemmer keeps its word in itself, so threads must not share one; making one costs a hundredth of a stem.
    return str(PorterStemmer().stemWord(word))
