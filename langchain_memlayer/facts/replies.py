"""Replies of chat models to values: as strict JSON when it is, else what can be read of it.

Models put reasoning before the JSON, fences around it and prose after it, send a list in place of the object, write
Python in place of JSON, or stop in the middle. The entries that came through whole are read; a reply without any is an
error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_memlayer.errors import ExtractionError

LONGEST = 400_000
"""Characters of a reply that are read."""

_DEEPEST = 24
_WORK = 2_000_000
_WORK_OF_ONE = 1_000
_SHOWN = 200

_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning)\s*>", re.IGNORECASE)
_GAP = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?(?![\w.])")
_NAME = re.compile(r"[^\W\d]\w*")
_OPENS = re.compile(r"[{\[]")
_ESCAPED = re.compile(r"u([0-9a-fA-F]{4})", re.DOTALL)
_UNSTORABLE = re.compile("[\ud800-\udfff\x00]")

_QUOTES = {'"': '"', "'": "'", "“": "”", "「": "」"}
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None, "NaN": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_STRICT = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read of a reply.

    Attributes:
        entries: The entries of its list, of any JSON type.
        lost: The beginning of what could not be read, or None when all was read.
    """

    entries: tuple[Any, ...]
    lost: str | None = None


def read_entries(reply: str, key: str, marks: Collection[str]) -> Reading:
    """The entries of the list that a reply was asked for, as `{"<key>": [...]}`.

    Args:
        reply: The reply's text.
        key: The member that holds the list. A list in place of the object is read too.
        marks: Members by which one entry is known when it stands alone.

    Raises:
        ExtractionError: nothing in it can be read; an empty list that was sent as such is no error.
    """
    if not reply.strip():
        raise ExtractionError(
            "The chat model replied with nothing, so nothing was written. Try again, or raise the number of tokens it "
            "may use: reasoning counts.",
            reply=reply,
        )
    found = _read(reply[:LONGEST], key, frozenset(marks))
    if found is None:
        raise ExtractionError(
            f"The chat model's reply has no JSON with a list \"{key}\" in it, so nothing was written. The error's "
            "`reply` has it; try again, or use a model that follows instructions.",
            reply=reply,
        )
    return found


def storable(text: str) -> str:
    """The text with characters that no journal can keep (NUL, lone surrogates) replaced by U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", text)


def without_thoughts(reply: str) -> str:
    """What stands in a reply after the model's thoughts."""
    # The tag that opens the thoughts is often part of the prompt's template, and missing in the reply.
    thoughts = [match.end() for match in _THOUGHT_ENDS.finditer(reply)]
    return reply[thoughts[-1] :] if thoughts else reply


def _read(reply: str, key: str, marks: frozenset[str]) -> Reading | None:
    try:
        whole = _entries(_STRICT.decode(reply.strip()), key, marks)
    except (ValueError, RecursionError):
        whole = None
    if whole is not None:
        return Reading(tuple(whole))
    return _chosen(without_thoughts(reply), key, marks)


def _chosen(text: str, key: str, marks: frozenset[str]) -> Reading | None:
    """The last list with something in it, else the entries that stand alone, else a list that was meant to be empty."""
    last, empty, alone, lost = None, None, [], None
    for value, complete, start in _values(text):
        entries = _entries(value, key, marks)
        if entries is None:
            continue
        if isinstance(value, Mapping) and key not in value:
            alone += entries if complete else []
            lost = lost or (None if complete else text[start : start + _SHOWN])
        elif entries:
            last = Reading(tuple(entries), None if complete else text[-_SHOWN:])
        elif complete:
            empty = Reading(())
    if last is not None:
        return last
    if alone:
        return Reading(tuple(alone), lost or _unread(text, key))
    return empty


def _unread(text: str, key: str) -> str | None:
    """The beginning of a list that only single entries could be read from."""
    at = text.find(key)
    return text[at : at + _SHOWN] if at >= 0 else None


def _entries(value: Any, key: str, marks: frozenset[str]) -> list[Any] | None:
    """The entries in a value, or None when it is something else than what was asked for."""
    if isinstance(value, list):
        fits = all(isinstance(entry, Mapping) and marks & entry.keys() for entry in value)
        return value if fits else None
    if not isinstance(value, Mapping):
        return None
    if key in value:
        inner = value[key]
        if isinstance(inner, Mapping):
            return [inner]
        return inner if isinstance(inner, list) else ([] if inner is None else None)
    return [value] if marks & value.keys() else None


def _values(text: str) -> Iterator[tuple[Any, bool, int]]:
    """The objects and lists in a text, whether each came to its end, and where it begins; none lies within another."""
    at = work = 0
    # What cannot be read may be tried again from each of its brackets, so the work is bounded.
    while work < _WORK and (opening := _OPENS.search(text, at)) is not None:
        start = opening.start()
        try:
            value, at = _STRICT.raw_decode(text, start)
        except (ValueError, RecursionError):
            reader = _Lenient(text, start)
        else:
            yield value, True, start
            continue
        try:
            value, complete = reader.value()
        except _UnreadableError:
            complete = False
        else:
            yield value, complete, start
        at = reader.at if complete else start + 1
        work += reader.at - start + _WORK_OF_ONE


class _UnreadableError(ValueError):
    """This is no JSON, even leniently."""


class _Lenient:
    """JSON as models write it: other quotes, bare keys, commas too many or too few, comments, or cut off.

    Each method gives a value and whether it came to its end. In a list, what did not is left out; in an object, a list
    that did not is kept with the entries it has.
    """

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def value(self, depth: int = 0) -> tuple[Any, bool]:
        char = self._peek()
        if char in "{[":
            if depth == _DEEPEST:
                raise _UnreadableError
            self.at += 1
            return self._object(depth) if char == "{" else self._list(depth)
        if char in _QUOTES:
            return self._string(_QUOTES[char])
        if (number := _NUMBER.match(self.text, self.at)) is not None:
            self.at = number.end()
            return json.loads(
                number[0].lstrip("0") if number[0].isdigit() and number[0].strip("0") else number[0]
            ), True
        if (name := _NAME.match(self.text, self.at)) is not None and name[0] in _WORDS:
            self.at = name.end()
            return _WORDS[name[0]], True
        if not char:
            return None, False
        raise _UnreadableError

    def _peek(self) -> str:
        """The next character that is no gap, or "" at the end."""
        gap = _GAP.match(self.text, self.at)
        if gap is not None:
            self.at = gap.end()
        return self.text[self.at : self.at + 1]

    def _members(self, closing: str, member: Callable[[], bool]) -> bool:
        """Read members up to `closing`; whether it came."""
        while True:
            char = self._peek()
            if char in (closing, ""):
                self.at += len(char)
                return bool(char)
            if char in ",，、;":
                self.at += 1
            elif not member():
                return False

    def _list(self, depth: int) -> tuple[list[Any], bool]:
        out: list[Any] = []

        def entry() -> bool:
            value, complete = self.value(depth + 1)
            if complete:
                out.append(value)
            return complete

        return out, self._members("]", entry)

    def _object(self, depth: int) -> tuple[dict[str, Any], bool]:
        out: dict[str, Any] = {}

        def entry() -> bool:
            key = self._key()
            if key is None or not self._peek():
                return False
            if self.text[self.at] not in ":：":
                raise _UnreadableError
            self.at += 1
            value, complete = self.value(depth + 1)
            if complete or isinstance(value, list):
                out[key] = value
            return complete

        return out, self._members("}", entry)

    def _key(self) -> str | None:
        if (closing := _QUOTES.get(self.text[self.at])) is not None:
            key, complete = self._string(closing)
            return key if complete else None
        if (name := _NAME.match(self.text, self.at)) is None:
            raise _UnreadableError
        self.at = name.end()
        return name[0]

    def _string(self, closing: str) -> tuple[str, bool]:
        out: list[str] = []
        text, at = self.text, self.at + 1
        while at < len(text):
            char = text[at]
            at += 1
            if char == "\\" and at < len(text):
                escaped = _ESCAPED.match(text, at)
                out.append(chr(int(escaped[1], 16)) if escaped else _ESCAPES.get(text[at], text[at]))
                at = escaped.end() if escaped else at + 1
            elif char == closing and self._ends(at):
                self.at = at
                return _joined(out), True
            else:
                out.append(char)
        self.at = at
        return _joined(out), False

    def _ends(self, at: int) -> bool:
        """Whether a quotation mark before `at` ends its string: marks within it are often left unescaped."""
        gap = _GAP.match(self.text, at)
        end = gap.end() if gap else at
        return end == len(self.text) or self.text[end] in ",，、:：}];"


def _joined(chars: list[str]) -> str:
    """The string of its characters; two escapes that are a surrogate pair become one character."""
    return "".join(chars).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
