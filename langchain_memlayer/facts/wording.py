"""What texts say beyond their words: that something ended, repeats, or is another number; what two have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final

from langchain_memlayer.facts.grounding import denies, scripts_differ, simplified, telling_terms, words
from langchain_memlayer.facts.numerals import DAY, days, is_among, numbers, worked_out
from langchain_memlayer.graph.names import SPEAKERS
from langchain_memlayer.types import RETRACT, Fact

_GROUNDED_SHARE: Final = 0.6
_FEWEST_NEW_WORDS: Final = 2
_ALIKE_RATIO: Final = 60
_TOLD_SHARE: Final = 0.4
_FEWEST_NEW_CHARS: Final = 4
_HIRAGANA: Final = re.compile("[\u3041-\u3096]")
_MOST_ENDINGS: Final = 2
_FIRST_AFTER_VERB: Final = 2
# What ends something without putting anything in its place. In a language that is missing here a DELETE becomes an
# UPDATE to the fact's own words, which loses nothing.
_ENDING = r"""
    \b(?: no \s longer | any \s? more | stop(?:s|ped|ping)? | quit(?:s|ting)? | g(?:ave|iv(?:en?|es|ing)) \s up
        | cease[sd]? | ended | cancel\w* | called \s off | forget | used \s to | broke \s up
        | nicht \s mehr | aufgehört | gekündigt | arrêt(?:e|é|er) | ya \s no | dej[óé] \s de | já \s não
        | deixou \s de | больше \s не | перестал\w* | бросил\w* | більше \s не | niet \s (?:meer|langer)
        | inte \s längre | ikke \s l(?:æ|e)ng(?:e|r)re? | już \s nie | không \s còn
        | tidak \s lagi | כבר \s לא | لم \s [يتأن]عد\w* )\b
    | キャンセル | 취소 | \b(?: storniert | abgesagt | annul(?:é|ée|er) | cancelad[oa] | отмен\w* )\b
    | [不唔冇]再 | 已[经經]不 | 停(?:[止用了]|(?=[药藥课課])) | 取消 | 放[弃棄]
    | 戒掉 | 退(?:[出订訂了]|(?=[租课課群货貨会會])) | 注[销銷] | 忘[记記] | 忘掉
    | やめ | 辞め | なくなっ | 더 \s? 이상 | 더는 | 그만
"""
_ENDING_AROUND = r"""
    \b(?: kein\w* \s .{1,30} \b mehr | n(?:e\s|['’]) .{1,30} \b plus | não \s .{1,30} \b mais
        | non \s .{1,30} \b più )\b
    | [不没沒唔冇戒] [^，。]{1,10} [了喇啦] | 戒咗 | もう .{1,20} (?: な[いくか] | ません )
"""
ENDS = re.compile(f"{_ENDING}|{_ENDING_AROUND}", re.VERBOSE | re.IGNORECASE)
_REASON = re.compile(
    r"\b(?:because|due to|weil|wegen|parce que|à cause|porque|perché|потому)\b|因为|由于|ので|ため|から|때문",
    re.IGNORECASE,
)
_EVERYTHING = re.compile(
    r"\b(?:everything|anything|all|alles|tout|todo|tudo|tutto|всё|about|about it|über|sur|sobre|su|о|that|what|is|was|"
    r"known|said|told|me|my|i|the)\b|一切|所有|全部|关于|關於|的|事情|すべて|全て|について|모든\s?것|모두",
    re.IGNORECASE,
)
# What is measured or paid again and again.
_LOGGED = re.compile(
    r"\b(?:weigh(?:s|ed|t)?|wiegt|wog|gewogen|gewicht|pes[aóo]|pèse|paid|spent|bezahlt|ran|walked|slept|measured|"
    r"blood pressure|blutdruck)\b|体重|體重|血压|血壓|花了|付了|跑了|走了|睡了",
    re.IGNORECASE,
)
_STILL = re.compile(
    r"\b(?:still|as of|remains?|noch|weiterhin|toujours|encore|todavía|aún|sigue|ainda|continua|ancora|"
    r"всё ещё|по-прежнему)\b|仍|依然|依旧|还是|还在|まだ|いまだ|여전히|아직",
    re.IGNORECASE,
)
# A word within a sentence, which is a name when it has a capital.
_NAME = re.compile(r"(?<=\w )[^\W\d_a-z][\w'\u2019-]+")
# What is before a name in Chinese, Japanese and Korean, the name, and how the text goes on.
_UNCASED: Final = "[\u4e00-\u9fff]{2,20}?|[\u30a1-\u30fa\u30fc]{2,20}?"
_PLACED: Final = (
    re.compile(f"(?:[在叫是到去于於姓]|喜[欢歡])({_UNCASED})"),
    re.compile(f"[はがをにでのら]({_UNCASED})(?=(?:(?!は)[\u3041-\u3096].*)?$)"),
    re.compile(r"\s([\uac00-\ud7a3]{2,20}?)(?=(?:에서?|를|을|로|가|이)\s.*$)"),
)
# What is said of more people than it names.
_SEVERAL = re.compile(
    r"\b(?:famil\w*|together|both|we|everyone|with|mit|zusammen|avec|ensemble|con|juntos|com|insieme|вместе)\b"
    r"|一家|全家|一起|和|跟|家族|一緒|가족|함께",
    re.IGNORECASE,
)
# Of "User's" and "Anna's" no "s" is left, which any two of them would share.
_OWNS = r"(?:['’]s\b)?"
_OWNER: Final = re.compile(r"\w+['’]s\b")
# With the endings that other languages give the word for who speaks.
_SPEAKER = rf"\buser\b{_OWNS}|" + "|".join(
    rf"\b{word.removesuffix('ь')}\w{{0,2}}\b" if word.upper() != word else rf"{word}(?:[은는의가를]|에게)?"
    for word in SPEAKERS[1:]
)


def is_retraction(fact: Fact) -> bool:
    """Whether the user asked to forget what the fact states."""
    return bool(fact.metadata.get(RETRACT))


@lru_cache(maxsize=4096)
def terms_but_speaker(text: str) -> frozenset[str]:
    """The telling words of a text, without those for its speaker."""
    return frozenset(telling_terms(re.sub(_SPEAKER, " ", text, flags=re.IGNORECASE)))


def differs(text: str, memory: str) -> bool:
    """Whether a text has a number that a memory lacks, another name or day, a denial where it has none, or more."""
    if _are_swapped(text, memory) or numbers(text) - numbers(memory, dated=True) or denies(text) != denies(memory):
        return True
    # What "still" holds on another day is no other fact. Where all else is the same, a time is another one, too.
    same_but_numbers = text != memory and re.sub(r"\d", "", text) == re.sub(r"\d", "", memory)
    # What says all of the memory and more is new.
    new_terms = terms(ENDS.sub(" ", DAY.sub(" ", text))) - terms(memory)
    says_more = terms(memory) <= terms(text) and not _is_little(new_terms)
    return (same_but_numbers or says_more or _are_of_other_days(text, memory)) and not _STILL.search(text)


def _is_little(new: Collection[str]) -> bool:
    """Whether telling words make hardly a statement."""
    chars = sum(len(term) == 1 and not term.isascii() for term in new)
    return chars < _FEWEST_NEW_CHARS and len(new) - chars < _FEWEST_NEW_WORDS


def _are_swapped(text: str, memory: str) -> bool:
    """Whether two texts are the same but for a word of each after the verb: what is liked, drunk, or when."""
    from rapidfuzz.fuzz import ratio

    text_words, memory_words = words(text), words(memory)
    unlike = [(k, *pair) for k, pair in enumerate(zip(text_words, memory_words, strict=False)) if pair[0] != pair[1]]
    if len(text_words) != len(memory_words) or len(unlike) != 1:
        return False
    place, one, other = unlike[0]
    # Without capitals the verb ends the sentence, if words are parted at all; "User's sister" is no verb.
    if one.upper() == one or other.upper() == other:
        placed = len(text_words) == len(text.split()) and 0 < place < len(text_words) - 1
    else:
        placed = place >= _FIRST_AFTER_VERB - bool(_OWNER.match(text))
    # Of "in" and "at" neither tells anything, though each would alone; what has digits is a number.
    text_terms, memory_terms = terms_but_speaker(text), terms_but_speaker(memory)
    swapped = not (text_terms <= memory_terms or memory_terms <= text_terms or re.search(r"\d", one + other))
    return placed and swapped and ratio(one, other) < _ALIKE_RATIO


def is_unnamed(told: str, text: str) -> bool:
    """Whether a text lacks a name with a capital of what was told."""
    from rapidfuzz.fuzz import ratio

    said = words(text)
    named = [part for name in _NAME.findall(told) if name[0].isupper() for part in words(name) if part not in SPEAKERS]
    # "NYC" is New York City.
    known = f"{text.casefold()} {''.join(word[0] for word in said)}"
    return any(part not in known and all(ratio(part, one) < _ALIKE_RATIO for one in said) for part in named)


def is_untold(told: str, text: str, *, dated: bool = True) -> bool:
    """Whether a text lacks a name, or all days, of what was told."""
    if is_unnamed(told, text):
        return True
    placed = (set(match[1]) for form in _PLACED for match in form.finditer(told.rstrip(".。")))
    # Half the characters of one that is written by its sound are in any other.
    if any(2 * len(name & set(text)) < len(name) + (max(name) < "\u3100") for name in placed):
        return True
    return dated and bool(days(told)) and not _share_a_day(days(told), days(text))


def is_replaced(told: str, text: str) -> bool:
    """Whether a text says half of what was told, with other numbers, names or days."""
    told_terms = terms(told)
    says_half = 2 * len(told_terms & terms(text)) >= len(told_terms) and denies(told) == denies(text)
    both_ways = ((told, text), (text, told))
    return says_half and all(differs(*pair) or is_untold(*pair, dated=False) for pair in both_ways)


def are_logged(text: str, memory: str) -> bool:
    """Whether two texts are entries of one log, of different days."""
    return _are_of_other_days(text, memory) and all(map(_LOGGED.search, (text, memory)))


def _are_of_other_days(text: str, memory: str) -> bool:
    """Whether two texts name days or months, and none that is the same."""
    text_days, memory_days = days(text), days(memory)
    return bool(text_days and memory_days) and text_days.isdisjoint(memory_days)


def are_several(text: str) -> bool:
    """Whether a text may speak of more people than it names."""
    return _SEVERAL.search(text) is not None


def only_ends(fact: Fact, memories: Sequence[str]) -> bool:
    """Whether a fact says that something ended, and no more."""
    if not ENDS.search(fact.text) or _REASON.search(fact.text):
        return False
    known = terms(" ".join(memories))
    if any((new := terms(triple.destination)) and not new & known for triple in fact.triples):
        return False
    new = terms(ENDS.sub(" ", matter_of(fact, fact.text))) - known
    return _is_little(new) and days(fact.text) <= days(" ".join(memories))


def has_in_common(fact: Fact, memory: str) -> bool:
    """Whether a fact and a memory share a word beyond whom they are about, and beyond "no longer"."""
    matter = _own_matter(fact)
    if words(matter):
        return _shares_words(matter, matter_of(fact, memory))
    # What is to be forgotten may be the person itself.
    return _shares_words(fact.text, memory)


def is_name(fact: Fact) -> bool:
    """Whether a fact says nothing but whom it is about."""
    return not words(_own_matter(fact))


def _own_matter(fact: Fact) -> str:
    """What a fact says beyond whom it is about, and beyond that all of it is to be forgotten."""
    said = matter_of(fact, fact.text)
    return _EVERYTHING.sub(" ", said) if is_retraction(fact) else said


def matter_of(fact: Fact, said: str) -> str:
    """What is said beyond whom the fact is about, and beyond that something ended."""
    name = re.escape(fact.name or "")
    # Where words are written apart, "Ann" is no part of "Annabel".
    name = rf"(?<!\w){name}(?!\w)" if name.isascii() else name
    subject = rf"{_SPEAKER}|{name}{_OWNS}" if fact.name else _SPEAKER
    return re.sub(f"{subject}|{_ENDING}", " ", said, flags=re.VERBOSE | re.IGNORECASE)


def _shares_words(text: str, other: str) -> bool:
    """Whether one telling word is common; without spaces, two characters in a row, or half of all characters."""
    if not set(telling_terms(text)).isdisjoint(telling_terms(other)):
        return True
    text_terms = terms(text)
    return bool(text_terms) and 2 * len(text_terms & terms(other)) >= len(text_terms)


def is_grounded(text: str, fact: Fact, others: Sequence[Fact], memories: Sequence[str]) -> bool:
    """Whether a text says what its facts and the memories do: most of its words, all its numbers, its denials."""
    sources = [part or "" for one in (fact, *others) for part in (one.text, one.quote)]
    sources += memories
    undated = DAY.sub(" ", text)
    text_terms = terms(undated)
    source_text = "\n".join(sources)
    if len(text_terms & terms(source_text)) < _GROUNDED_SHARE * len(text_terms) or is_unnamed(text, source_text):
        return False
    added = numbers(fact.text) - numbers(memories[0], dated=True)
    literal = {number for source in sources for number in numbers(source, dated=True)}
    allowed = literal | worked_out(DAY.sub(" ", source_text))
    if not added:
        # Who counts a list anew names no number.
        allowed |= {value + step for value in numbers(memories[0]) for step in (-2, -1, 1, 2)}
    if not all(is_among(value, allowed) for value in numbers(text)):
        return False
    counted = numbers(undated, dated=True)
    # "For two months" is rightly told as the day when it began, "150 more" or "a week later" as what that makes.
    new_days, invented = days(fact.text) - days(memories[0]), days(text) - days(source_text)
    dated = gives_day(fact, text)
    carried = not added.isdisjoint(counted) or counted - literal or (not days(fact.text) and (dated or invented))
    # Another fact may tell of a later change.
    if added and not carried and not any(is_replaced(fact.text, one.text) for one in others):
        return False
    # A day that nobody told is not the one that the fact tells.
    if new_days and invented and not dated and not _share_a_day(new_days, days(text)):
        return False
    if not denies(text) or any(map(denies, sources)):
        return True
    # What was replaced may be told, too: "lives in Bath, no longer in Leeds".
    new, old = terms(fact.text) - terms(memories[0]), terms(memories[0]) - terms(fact.text)
    return bool(ENDS.search(text) and text_terms & new and text_terms & old)


def _share_a_day(some: Collection[str], others: Collection[str]) -> bool:
    """Whether two sets of days and months have one in common, which one may tell by its month only."""
    return any(one.startswith(other) or other.startswith(one) for one in some for other in others)


def gives_day(fact: Fact, text: str) -> bool:
    """Whether a text names the day, or the month, from which a fact holds."""
    return fact.valid_at is not None and any(f"{fact.valid_at:%Y-%m-%d}".startswith(day) for day in days(text))


def says(text: str, told: str) -> bool:
    """Whether a text has all telling words of what was told, but for particles and endings of Japanese."""
    missing = terms(told) - terms(text)
    return not missing or (len(missing) <= _MOST_ENDINGS and all(_HIRAGANA.fullmatch(term) for term in missing))


def says_little(text: str, fact: Fact) -> bool:
    """Whether a text has few of a fact's telling words, or not the name that it begins with."""
    fact_terms, text_terms = terms(matter_of(fact, fact.text)), terms(text)
    name_terms = terms(fact.name or "") & terms(fact.text)
    few = len(fact_terms & text_terms) < _TOLD_SHARE * len(fact_terms) and not scripts_differ(fact.text, text)
    return few or (bool(name_terms) and name_terms.isdisjoint(text_terms))


def terms(text: str) -> set[str]:
    """The telling words of a text: stems, and single characters where a script has no spaces, simplified."""
    return set(telling_terms(" ".join(words(text)).translate(simplified())))
