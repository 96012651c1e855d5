"""What a query names exactly: codes, numbers, versions, paths, addresses, and names in quotes."""

from __future__ import annotations

import re
import unicodedata

_QUOTED = re.compile(r"[\"“„«「『《`]([^\"“”„«»「」『』《》`]{2,80})[\"”“»」』》`]")
_TOKEN = re.compile(r"/?[A-Za-z0-9_#+][A-Za-z0-9_./@:+#-]*[A-Za-z0-9_+#]|[0-9]")
_INNER = re.compile(r"[A-Za-z0-9][_/@.:][A-Za-z0-9]")
_PLAIN_NUMBER = re.compile(r"\d+")
_ORDINAL = re.compile(
    r"\d+(?:st|nd|rd|th|s|am|pm|h|k)|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}:\d\d(?:am|pm)?", re.IGNORECASE
)
# "and/or", "J.K", as against "a/b_1", "/srv/data".
_PROSE = re.compile(r"[A-Za-z]+(?:/[A-Za-z]+)+|(?:[A-Za-z]\.)+[A-Za-z]")
_WORD = re.compile(r"[A-Za-z]*(?:\d{1,2}[A-Za-z]*|\d[A-Za-z]*\d[A-Za-z]*)")
_YEARS = range(1900, 2101)
_SHORTEST_NUMBER = 3


def identifiers(text: str) -> list[str]:
    """The identifiers and quoted names in a text, in order; no dates, years, times and small numbers."""
    text = unicodedata.normalize("NFKC", text)
    found = [quoted.strip() for quoted in _QUOTED.findall(text)]
    for match in _TOKEN.finditer(text):
        token = match.group().rstrip(".:-")
        if _PLAIN_NUMBER.fullmatch(token):
            if len(token) >= _SHORTEST_NUMBER and (len(token) != 4 or int(token) not in _YEARS):
                found.append(token)
        elif not (_ORDINAL.fullmatch(token) or _PROSE.fullmatch(token)) and (
            re.search(r"\d", token) or _INNER.search(token)
        ):
            found.append(token)
    return list(dict.fromkeys(found))


def is_word(name: str) -> bool:
    """Whether an identifier is letters with a digit or two ("python3", "B12"), which many texts may use as a word."""
    return _WORD.fullmatch(name) is not None
