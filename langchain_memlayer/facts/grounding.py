"""Quotes: whether somebody said them, and whether a fact keeps the language of what was said."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from langchain_memlayer.index.function_words import language_of
from langchain_memlayer.index.keywords import query_terms, simplified_han, unaccented, words_of
from langchain_memlayer.messages import content_hash

# Scripts without spaces give one word for each character.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# So do single letters in Korean: laughter (ㅋㅋ), which hangs on words.
_SINGLE = f"\u1100-\u11ff{_UNSPACED}"
# The vowels of Indian scripts are marks, and no letters.
_WORD = re.compile(rf"[{_SINGLE}]|(?:[^\W_{_SINGLE}]|[\u0900-\u0963\u0971-\u0dff])+")
# So are those of Arabic and Hebrew, which are mostly left out.
_SILENT = re.compile("['\u0640\u2018\u2019\u02bc\u00ad\u200b-\u200f\u2060\ufeff\u0591-\u05bd\u064b-\u0652]")
_AROUND = " \t\n.!,;:¡…。、،؛۔।"
_LEFT_OUT = re.compile(r"\.{3,}|\u2026+")
_DENIALS = frozenset(
    """
    not no never none cannot cant dont didnt doesnt isnt arent wasnt werent wont wouldnt couldnt shouldnt hasnt havent
    without stopped quit nor neither nobody nothing ohne sans sin sem senza zonder без
    niet geen nooit inte ikke keiner keinem ні δεν όχι לא אין لا ليس ليست لم لن değil yok không chẳng chưa tidak bukan
    不 没 沒 无 無 未 别 別 非 戒 勿 甭 拒 唔 冇
    nicht nichts kein keine keinen nie niemals niemand niemanden weder nirgends
    pas jamais aucun aucune rien no nunca jamás tampoco ningún ninguna ninguno não nem nenhum nenhuma ninguém
    non mai nessun nessuna nessuno niente не нет нельзя никогда никто ничего aint بدون غير
    """.split()  # noqa: SIM905 - a table of words reads better than their list
)
_DENYING = re.compile(
    r"\bn(?:e\s|['\u2019])\w+(?:\s\w+)?\splus\b|\bni \w+ ni\b"
    r"|避免|禁止|(?<![士妒顾顧])忌(?![廉惮憚日])|ない|なく|(?<!は)なし|ずに|ません|なかっ|않|(?<!\w)안\s|못|없|아니|नहीं|बिना|ไม่"
)
# Words that have such a part and deny nothing.
_AFFIRMING = re.compile(
    r"\b(?:not only|nicht nur|pas seulement|no s[oó]lo|não só|non solo|не только|no doubt|without (?:a )?doubt|"
    r"can(?:not|['\u2019]?t) wait|stopped by|no\.? ?\d+)\b|"
    "[特区性级个分告离识鉴區個識]别|[特區性個分識]別|[别別](?:人|墅|名|克)|南?非(?:常|洲|营利|政府|遗)|南非|戒指|未婚[妻夫]|"
    "[无無](?:论|論|锡|线|線|数|數|人|印)|未[来來]|差不多|了不起|[对對]不起|[没沒]事|[没沒冇](?:[关關][系係]|[问問][题題]|错|錯)|[无無]所[谓謂]|[没沒]完[没沒]了|"
    "(?P<a>.)[不没沒唔](?P=a)|唔[该該]|不(?:少|好意思|客[气氣]|一[会會样樣]|[停时時](?=[地的])|定期|限|错|錯|仅|僅|但|过|過|断|斷|久|同|止|管|得不|如|论|論|只|列|二|丹|[锈鏽])|"
    "(?:少|すく|危|あぶ|つまら|もったい|切|きた)な[いく]|ま[も間]?もなく|間もなく|なくし[たて]|亡くな|"
    "연못|잘못|못(?=[을이] ?박)|아니메",
    re.IGNORECASE,
)
# Words that only Portuguese has, in which "no" is "in the".
_PORTUGUESE = frozenset("um uma em ao é são não usuário usuária você".split())  # noqa: SIM905 - a row of words
# What "don't", "I'm" and "let's" stand for, by what `words` makes of them; "he's" may be "he is" or "he has".
_SHORT = {
    **{f"{verb}nt": (verb, "not") for verb in "do does did is are was were would could should have has had".split()},  # noqa: SIM905
    **{f"{who}s": (who, "s") for who in ("he", "she", "it", "that", "there", "what", "who")},
    **{f"{who}d": (who, "d") for who in ("i", "he", "she", "it", "we", "you", "they")},
    **{f"{who}ve": (who, "have") for who in ("i", "we", "you", "they")},
    **{f"{who}ll": (who, "will") for who in ("i", "he", "she", "it", "we", "you", "they")},
    **{f"{who}re": (who, "are") for who in ("you", "they")}, "is": ("s",), "has": ("s",), "had": ("d",),
    "would": ("d",), "cant": ("can", "not"), "cannot": ("can", "not"), "wont": ("will", "not"), "im": ("i", "am"),
    "lets": ("let", "us"), "gonna": ("going", "to"), "wanna": ("want", "to"),
}  # fmt: skip
# British spellings, and German ones without umlauts.
_BRITISH = (("(?<=pract)is", "ic"), ("ou(?=r)", "o"), ("(?<=[lrnmtg])is(?=e[drs]?$|ing$|ation)", "iz"),
            ("tre(?=s?$)", "ter"), ("ll(?=ed$|ing$|er$)", "l"), ("n[cs]e$", "ns"), ("ogue$", "og"), ("^grey", "gray"),
            ("amme(?=s?$)", "am"), ("(?<=[aou])e", ""))  # fmt: skip
_FEWEST, _MOST = 4, 200
"""Words of a quote that may differ a little; comparing takes their number times that of the text's."""
_EQUAL_SHARE = 0.7
_ALIKE_RATIO = 80
_SHORTEST_ALIKE = 5
_SHORTEST_RESPELT = 4
# Latin letters that are no others with an accent, and are often typed as others.
_LIGATURES = {"œ": "oe", "æ": "ae", "ł": "l", "ø": "o", "đ": "d", "ı": "i"}
# Letters that Arabic and Persian keyboards have two of, and the two spellings of an ending.
_ARABIC = "\u064a\u06cc\u0649\u06cc\u0643\u06a9\u0629\u0647"
# The digits of Arabic, Persian, Hindi and Thai.
_ZEROS = (0x660, 0x6F0, 0x966, 0xE50)
_LETTERS = {"CJK": "han", "HIRAGANA": "han", "KATAKANA": "han", "BOPOMOFO": "han"}


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation, apostrophes and compatibility forms (NFKC)."""
    return _WORD.findall(_SILENT.sub("", unicodedata.normalize("NFKC", text).casefold()))


def fact_hash(text: str) -> str:
    """The digest of a fact: one that is written otherwise, or has other quotes or marks at its ends, is the same."""
    return content_hash(text.translate(simplified()).replace('"', "").strip(_AROUND))


def telling_terms(text: str) -> list[str]:
    """The distinct terms of a text, without the function words of its language unless nothing else is left."""
    return query_terms(text, language_of(words_of(text)))


def is_said(said: Sequence[str], quote: str) -> bool:
    """Whether a quote is in a text.

    Its words must be there in one run, in whatever spelling (contractions, traditional or simplified characters,
    British or American). An ellipsis stands for words left out, and its parts follow each other. From four words on, up
    to a quarter may be left out without one (but no denial), and long words be misspelt; words and numbers of its own a
    quote never has. The text is given as its `words`.
    """
    parts = [part for part in (words(piece) for piece in _LEFT_OUT.split(quote)) if part]
    # A single letter is in every text.
    if not parts or (sum(map(len, parts[0])) < 2 and parts[0] != list(said)):
        return False
    return _follow(said, parts) or _follow(_spelt(said), [_spelt(part) for part in parts], nearly=True)


def says_all(text: str, other: str) -> bool:
    """Whether a text has all words of another, and no denial of its own ("no longer", 不再)."""
    own_words, other_words = set(words(text)), set(words(other))
    denies_more = denies(text) and not denies(other)
    return other_words <= own_words and not denies_more and _DENIALS.isdisjoint(own_words - other_words)


def repeats(text: str, fact: str) -> bool:
    """Whether a text has half of the telling words of a fact, and two at least, or no other ("120", "in Rome")."""
    telling, said = set(telling_terms(fact)), set(telling_terms(text))
    return len(telling & said) >= max(2, len(telling) / 2) or (bool(said) and said <= telling)


def denies(text: str) -> bool:
    """Whether a text has a word that denies or ends something."""
    text = _AFFIRMING.sub(" ", text)
    said = set(words(text))
    denials = _DENIALS - {"no"} if said & _PORTUGUESE else _DENIALS
    return not denials.isdisjoint(said) or _DENYING.search(text) is not None


def _follow(said: Sequence[str], parts: Sequence[Sequence[str]], *, nearly: bool = False) -> bool:
    """Whether the parts are said one after the other."""
    text, start = f" {' '.join(said)} ", 0
    for part in parts:
        # Of a Korean word its particle or ending may be left out.
        at = re.compile(rf" {re.escape(' '.join(part))}(?=[ \uac00-\ud7a3])").search(text, start)
        if at is not None:
            start = at.end()
        elif not (nearly and (_is_joined(text[start:].split(), part) or _is_nearly_said(text[start:].split(), part))):
            return False
    return True


def _is_joined(said: Sequence[str], part: Sequence[str]) -> bool:
    """Whether words are said that are only written apart ("e-mail", "1,200", "5 pm"), from one's begin to one's end."""
    ends = {0, *accumulate(map(len, said))}
    text, joined = "".join(said), "".join(part)
    at = text.find(joined)
    while at >= 0 and not (at in ends and at + len(joined) in ends):
        at = text.find(joined, at + 1)
    return at >= 0


def _spelt(said: Sequence[str]) -> list[str]:
    """The words with contractions written out, in simplified characters, and as Americans spell them."""
    return [plain for word in said for plain in _SHORT.get(word, (_plainly(word),))]


@lru_cache(maxsize=4096)
def _plainly(word: str) -> str:
    word = unaccented(word.translate(simplified()))
    if len(word) < _SHORTEST_RESPELT or not word.isascii():
        return word
    for british, american in _BRITISH:
        word = re.sub(british, american, word)
    return word


@lru_cache(maxsize=1)
def simplified() -> dict[int, str]:
    """Traditional characters with their simplified ones, and what else is written in two ways, for `str.translate`."""
    pairs = "".join(f"{chr(code + 0xFEE0)}{chr(code)}" for code in range(0x21, 0x7F))
    pairs += "".join(f'{mark}"' for mark in "“”„«»「」『』") + "‘'’'ʼ'"
    pairs += _ARABIC + "".join(f"{chr(zero + digit)}{digit}" for zero in _ZEROS for digit in range(10))
    return simplified_han() | str.maketrans(_LIGATURES | dict(zip(pairs[::2], pairs[1::2], strict=True)))


def _is_nearly_said(said: Sequence[str], part: Sequence[str]) -> bool:
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.fuzz import partial_ratio_alignment

    alignment = partial_ratio_alignment(part, said) if _FEWEST <= len(part) <= _MOST else None
    if alignment is None:
        return False
    slack = max(1, len(part) // 4)
    window = said[max(0, alignment.dest_start - slack) : alignment.dest_end + slack]
    equal = omitted = 0
    for edit in Levenshtein.opcodes(window, part):
        said_words, quoted_words = window[edit.src_start : edit.src_end], part[edit.dest_start : edit.dest_end]
        if edit.tag == "equal":
            equal += len(quoted_words)
        elif edit.tag == "insert" or (edit.tag == "replace" and not all(map(_are_alike, said_words, quoted_words))):
            return False
        elif edit.tag == "delete" and 0 < edit.dest_start < len(part):
            omitted += len(said_words)
            if not _DENIALS.isdisjoint(said_words):
                return False
    return equal >= _EQUAL_SHARE * len(part) and omitted <= slack


def _are_alike(one: str, other: str) -> bool:
    from rapidfuzz.fuzz import ratio

    # "Form" for "from", "teh" for "the".
    if len(one) > 2 and sorted(one) == sorted(other) and one.isalpha() and _DENIALS.isdisjoint((one, other)):
        return True
    if min(len(one), len(other)) < _SHORTEST_ALIKE or abs(len(one) - len(other)) > 1:
        return False
    return not any(char.isdigit() for char in one + other) and ratio(one, other) > _ALIKE_RATIO


def scripts_differ(text: str, other: str) -> bool:
    """Whether two texts are mostly written in different scripts, so that they can hardly share a word."""
    scripts = {_main_script(_scripts(unicodedata.normalize("NFKC", one))) for one in (text, other)}
    return len(scripts) == 2 and None not in scripts


def keeps_script(quote: str, fact: str) -> bool:
    """Whether a fact has a letter of the script that its quote is mostly written in; true when that cannot be told."""
    counts = _scripts(unicodedata.normalize("NFKC", quote))
    script = _main_script(counts)
    # English words are set into sentences of other languages, and those have fewer letters.
    fitting = set(counts) if script == "LATIN" else {script}
    return script is None or any(_script(char) in fitting for char in unicodedata.normalize("NFKC", fact))


def _scripts(text: str) -> Counter[str]:
    """How many letters a text has of each script; none of one of which it has a short word only."""
    counts = Counter(_script(char) for char in text if char.isalpha())
    return Counter({script: count for script, count in counts.items() if count >= (2 if script == "han" else 4)})


def _main_script(counts: Counter[str]) -> str | None:
    return next((script for script, count in counts.items() if count > 0.6 * counts.total()), None)


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    first = unicodedata.name(char, "UNKNOWN").split()[0]
    return _LETTERS.get(first, first)
