"""Names of entities and relations: when two spellings mean the same, and when one name may be short for another.

    "Aario", "aario", "my friend Aario", "AARIO's"   one key, `aario`: they are one entity
    "Dr. Aario", "Aario", "Aario Smith"              short for one another: one entity while nothing speaks against it
    "Mr. Smith", "Mrs. Smith"; "Anna Lee", "Anna Kim"   never one

A key is a matter of spelling alone. Which keys are one entity (`merge`) depends on the other names around: it is worked
out whenever a graph is loaded or changed, kept nowhere, and so undone by the next name that makes it doubtful.

Snapshots of graphs have keys: when a name is read otherwise than before, their `FORMAT` is raised.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from langchain_memlayer.index.keywords import simplified_han
from langchain_memlayer.result_types import Relation

MOST_NAMESAKES = 200
"""Names with the same first word that are compared; where there are more, none of them is surely short for another."""

_TITLES = {"prof": "prof", "professor": "prof", "dr": "dr", "doctor": "dr"} | {
    title: title
    for title in ("mr", "mrs", "ms", "miss", "mx", "sir", "madam", "mme", "monsieur", "madame", "herr", "frau")
}
_KIN = (
    "friend|girlfriend|boyfriend|partner|wife|husband|spouse|fianc[eé]e?|colleague|co-?worker|boss|manager|neighbou?r|"
    "room-?mate|flat-?mate|class-?mate|team-?mate|teacher|mentor|mother|father|mom|mum|dad|parent|sister|brother|sibling|"
    "son|daughter|child|cousin|aunt|uncle|niece|nephew|grand(?:mother|father|ma|pa|son|daughter)|dog|cat|pet"
)
_LEAD = re.compile(
    rf"(?:my|our|your|his|her|their)\s+(?:(?:best|good|close|dear|old|new|late|former|little|big|elder|older|younger|"
    rf"oldest|youngest|twin|step|ex)[\s-]+)*(?:{_KIN})(?:[\s-]in[\s-]law)?+,?\s+"
    r"(?!(?:and|or|from|of|who|whose|at|in|with|on|to|for|is|was)\b)|(?:the|an?|my|our)\s+"
)
_LEAD_HAN = re.compile(
    "我们?的?(?:好|老|大|小|前)?(?:朋友|女朋友|男朋友|同事|同学|老板|邻居|室友|老师|妻子|老婆|丈夫|老公|妈妈|母亲|爸爸|父亲|姐姐|"
    "妹妹|哥哥|弟弟|女儿|儿子|孩子|狗|猫)(?![的和])(?=..)|(?:我们?的|私の|僕の|俺の)(?=.)"
)
_HONORIFICS = ("さん", "さま", "様", "くん", "ちゃん", "씨", "님")

# Lower case inside a name all the same.
_PARTICLES = frozenset("de da di do du del della der den van von zu la le el al bin ibn ter ten dos das y e".split())  # noqa: SIM905
# Names that are nobody's: in a query they refer to whoever was spoken of.
_PRONOUNS = frozenset(
    """
    i me my mine myself we us our ours you your yours he him his she her hers it its they them their theirs this that
    these those who whom whose what which when where why how there here someone something anyone anything one
    我 你 他 她 它 我们 你们 他们 她们 谁 什么 这 那
    """.split()  # noqa: SIM905 - a table of words
)

ALIASES = frozenset(
    """
    is same_as is_same_as is_the_same_as also_known_as is_also_known_as aka alias is_alias_of called is_called named
    is_named nickname nicknamed is_nicknamed has_nickname goes_by short_for is_short_for full_name has_full_name
    又名 别名 叫
    """.split()  # noqa: SIM905 - a table of words
)
"""Relations between two names, in snake case, that say that they are one."""

_QUOTES = "\"'()[]{}<>“”„«»‹›「」『』《》¿¡*_-–—:;,.!? "

_SELF = frozenset(("i", "me", "my", "mine", "myself"))
SPEAKERS = tuple(
    """
    user 用户 用戶 ユーザー 사용자 nutzer benutzer utilisateur utilisatrice usuario usuaria usuário usuária utente
    пользователь користувач gebruiker użytkownik kullanıcı المستخدم उपयोगकर्ता
    """.split()  # noqa: SIM905 - a table of words
)
"""The keys under which extraction keeps a speaker who has no name."""

_SILENT = str.maketrans(
    dict.fromkeys("\u00ad\u0640\u200b\u200c\u200d\u200e\u200f\u2060\ufe0f\ufeff", "")
    | dict.fromkeys("\u2018\u2019\u02bc\u2032", "'")
    | {"\u266f": "#", "\u2212": "-"}
)
# A sign before a number, a point before a word, what follows one letter or two: "-5", ".NET", "A-", "C*".
_SIGNED = re.compile(
    r"(?<![\w.'&+#)])(?:[-+#<>~\u00b1\u2013](?=[$\u20ac\u00a3\u00a5]?\.?\d)|\.(?=\w))"
    r"|(?<![\w.'&])[^\W\d_]{1,2}[-*]+(?![-*\w])"
)
_SIGNS = {ord(sign): 0xF0000 + ord(sign) for sign in "-+#<>~\u00b1.*"} | {0x2013: 0xF002D}
"""Signs that belong to a name, while it is taken apart, as what no text has."""
_UNSIGNS = {code: sign for sign, code in _SIGNS.items() if sign != 0x2013}
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3021-\u30ff\u3105-\u318f\u3400-\u4dbf\u4e00-\u9fff"
    "\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MOST_LEADS = 4
_LONGEST = 12
_LONGEST_UNSPACED = 20


class _Separators(dict[int, int]):
    """Maps to a space what is no letter, digit, mark or currency, nor in names such as "AT&T", "node.js" and "C++"."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        kept = char.isalnum() or char in "'.&+#%‰‱°≤≥≈≠√∞♭♮" or unicodedata.category(char) in ("Mn", "Mc", "Me", "Sc")
        kept = kept or code in _UNSIGNS
        kind = self[code] = code if kept else 32
        return kind


_SEPARATORS = _Separators()


@dataclass(frozen=True, slots=True)
class Name:
    """A name as spelled once.

    Attributes:
        key: What all spellings of the name share; empty when there is nothing in it.
        words: Its words without title, folded.
        title: An honorific before a single word: "Mr. Smith" and "Mrs. Smith" are two.
        proper: Every word is capitalised, as the names of persons, places and makers are.
    """

    key: str
    words: tuple[str, ...]
    title: str
    proper: bool


@lru_cache(maxsize=1 << 16)
def read_name(spelling: str) -> Name:
    """What a spelling names.

    Case, width, traditional characters, punctuation and a final "'s" do not count; nor do an article, "my", whose
    friend or relative it is ("her brother Aario"), and a title before two or more words. "Her brother" alone stays:
    "my brother" is another.
    """
    plain = _simplified(spelling).strip()
    words = _folded(_without_lead(plain.casefold().lstrip(_QUOTES)))
    if not words:
        text = " ".join(plain.casefold().split())
        return Name(text, (text,) if text else (), "", proper=False)
    title = ""
    while len(words) > 1 and words[0] in _TITLES:
        title = words.pop(0)
    words[-1] = _base(words[-1])
    if len(words) > 1:
        title = ""
    key = f"{title} {words[0]}" if title else " ".join(words)
    return Name(key, tuple(words), title, _is_proper(_words(plain)[-len(words) :]))


def family_of(key: str) -> str:
    """The first word of a name after its title: names of two families are never one."""
    first, _, rest = key.partition(" ")
    return rest if rest and first in _TITLES else first


@lru_cache(maxsize=1 << 14)
def relation_name(text: str) -> str:
    """A relation in snake case: "lives in", "LIVES_IN" and "livesIn" are `lives_in`; other scripts stay."""
    words = _words(_plain(_HUMP.sub(" ", text).replace("_", " ")).casefold().replace("'", ""))
    return "_".join(words) or "related_to"


def as_relations(triples: Iterable[tuple[str, str, str]]) -> list[Relation]:
    """Triples (source, relation, destination) as results show them, each once however it is spelled."""
    shown: dict[tuple[str, str, str], Relation] = {}
    for source, text, destination in triples:
        relation = relation_name(text)
        shown.setdefault(
            (read_name(source).key, relation, read_name(destination).key),
            {"source": source, "relationship": relation, "destination": destination},
        )
    return list(shown.values())


def is_short_for(short: Name, long: Name) -> bool:
    """Whether a name may be short for another.

    Its words must be among the other's in their order, the first one included, and their titles must agree.
    """
    if short.key == long.key or short.words[:1] != long.words[:1]:
        return False
    # A title stands before a single word only.
    if short.words == long.words:
        return not short.title
    left = iter(long.words)
    return len(short.words) < len(long.words) and all(word in left for word in short.words)


def merge(
    names: Collection[Name], *, apart: Callable[[str, str], bool] = lambda one, other: False
) -> list[tuple[str, ...]]:
    """Which of some names are one entity.

    That both are proper names proposes, and shared words confirm: in a group of names that are one, each is short for
    each longer one. A name that may be short for two that are not short for one another stays by itself, as "Bob"
    between "Bob Smith" and "Bob Jones".

    Args:
        names: The names of one scope, each key once.
        apart: Whether two keys are known to be two entities.

    Returns:
        The keys of each group of at least two, the fullest name last. A name is in one group at most.
    """
    families: dict[str, list[Name]] = {}
    for name in names:
        if name.words:
            families.setdefault(name.words[0], []).append(name)
    groups: list[tuple[str, ...]] = []
    for family in families.values():
        if 1 < len(family) <= MOST_NAMESAKES:
            groups += _merge_family(family, apart)
    return groups


def _merge_family(family: list[Name], apart: Callable[[str, str], bool]) -> Iterator[tuple[str, ...]]:
    def allowed(short: Name, long: Name) -> bool:
        return short.proper and long.proper and not apart(short.key, long.key)

    longer = {
        short.key: {long.key for long in family if is_short_for(short, long) and allowed(short, long)}
        for short in family
    }

    def are_same(a: str, b: str) -> bool:
        return a == b or b in longer[a] or a in longer[b]

    shorter: dict[str, list[str]] = {}
    for key, above in longer.items():
        fullest = [top for top in above if not longer[top]]
        if len(fullest) == 1 and all(are_same(a, b) for a in above for b in above):
            shorter.setdefault(fullest[0], []).append(key)
    for top, below in shorter.items():
        sure = [key for key in below if all(are_same(key, other) for other in below)]
        if sure:
            yield (*sorted(sure, key=lambda key: (-len(longer[key]), key)), top)


def mentions(text: str, known: Callable[[str], bool]) -> list[str]:
    """The known keys that a text mentions, in its order; of overlapping ones the longest.

    Args:
        text: Any text, such as a query.
        known: Whether a key is known.
    """
    words = _folded(_simplified(text).casefold())
    mentioned: list[tuple[int, int, int, str]] = []
    for start, first in enumerate(words):
        if _UNSPACED.search(first):
            mentioned += ((start, at, at + len(key), key) for at, key in _inside(first, known))
        for size in range(1, min(_LONGEST, len(words) - start) + 1):
            # Offsets inside a word are from 0 to 10**6; a mention of whole words covers all of them.
            window = words[start : start + size]
            for last in dict.fromkeys((window[-1], _base(window[-1]))):
                key = " ".join((*window[:-1], last))
                if key not in _PRONOUNS and known(key):
                    mentioned.append((start, 0, size * 1_000_000, key))
    taken: list[tuple[int, int, str]] = []
    for start, low, high, key in sorted(mentioned, key=lambda m: (m[1] - m[2], m[0], m[1])):
        begin, end = start * 1_000_000 + low, start * 1_000_000 + high
        at = bisect(taken, (begin,))
        if (at == 0 or taken[at - 1][1] <= begin) and (at == len(taken) or end <= taken[at][0]):
            taken.insert(at, (begin, end, key))
    return list(dict.fromkeys(key for _, _, key in taken))


def speaks_of_self(text: str) -> bool:
    """Whether a text has an "I", "my" or "我"."""
    plain = _plain(text).casefold()
    return "我" in plain or not _SELF.isdisjoint(plain.replace("'", " ").translate(_SEPARATORS).split())


def _inside(word: str, known: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    """Known keys inside a run without spaces, with their places; a single character is too common to be a mention."""
    for start in range(len(word)):
        for end in range(start + 2, min(len(word), start + _LONGEST_UNSPACED) + 1):
            part = word[start:end]
            if part not in _PRONOUNS and known(part) and not (_cuts_word(word, start) or _cuts_word(word, end)):
                yield start, part


def _cuts_word(word: str, at: int) -> bool:
    """Whether a place lies within a spaced word: "art" is not in "smart手机"."""
    return 0 < at < len(word) and not (_UNSPACED.match(word[at - 1]) or _UNSPACED.match(word[at]))


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(_SILENT)
    return _SIGNED.sub(lambda found: found[0].translate(_SIGNS), plain)


def _simplified(text: str) -> str:
    return _plain(text) if text.isascii() else _plain(text).translate(simplified_han())


def _without_lead(text: str) -> str:
    # A name has one or two; a text of articles alone would be read again for each.
    for _ in range(_MOST_LEADS):
        match = _LEAD.match(text) or _LEAD_HAN.match(text)
        if match is None:
            break
        rest = text[match.end() :].strip()
        if not _words(rest):
            break
        text = rest
    return text


def _words(text: str) -> list[str]:
    pieces = (piece.strip("'.&").lstrip("+#") for piece in text.translate(_SEPARATORS).split())
    return [piece if piece.isascii() else piece.translate(_UNSIGNS) for piece in pieces if piece]


def _folded(text: str) -> list[str]:
    """The words of a folded text, titles in their short form."""
    return [_TITLES.get(word, word) for word in _words(text)]


def _base(word: str) -> str:
    """A word without its possessive ending, or the honorific that some languages add."""
    if word.endswith("'s") and len(word) > 2:
        return word[:-2]
    for ending in _HONORIFICS:
        if word.endswith(ending) and len(word) >= len(ending) + 2:
            return word[: -len(ending)]
    return word


def _is_proper(words: list[str]) -> bool:
    """Whether words (in their case) are all capitalised and without digits, as far as they are no particles."""
    return bool(words) and all(
        (word[0].isupper() or (at > 0 and word in _PARTICLES)) and not any(char.isdigit() for char in word)
        for at, word in enumerate(words)
    )
