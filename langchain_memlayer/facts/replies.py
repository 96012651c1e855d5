"""Replies of chat models to the entries of the list that they were asked for.

Models put reasoning before the JSON, fences around it and prose after it, write their call out as text, wrap the list
once more or send it as a string, write Python in place of JSON, or stop in the middle. The entries that came through
whole are read; a reply without any is an error, unless it says that there are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from langchain_memlayer.errors import ExtractionError

LONGEST: Final = 400_000
"""Characters of a reply that are read."""

_MOST_WRAPPINGS: Final = 8
_MOST_WORK: Final = 2_000_000
_WORK_OF_ONE: Final = 1_000
# Repairing takes quadratic time on hostile text, so it is given short pieces, and not many.
_LONGEST_PIECE: Final = 4_000
_LONGEST_REPAIRED: Final = 100_000
_SHOWN: Final = 200

_THOUGHTS = r"(?:\w{1,20}:)?(?:ant)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad)\s*"
_THOUGHT_BEGINS = re.compile(rf"[<◁]{_THOUGHTS}[>▷]|\[THINK\]|<\|START_THINKING\|>", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(rf"[<◁]/{_THOUGHTS}[>▷]|\[/THINK\]|<\|END_THINKING\|>", re.IGNORECASE)
_FENCE = re.compile(r"^```\w{0,20}\s|```$")
_QUOTED = "\"'“”‘’「」`"
_OPENS = re.compile(r"[{\[]")
_ENTRY = re.compile(rf"\{{\s{{0,99}}[{_QUOTED}]?(\w{{1,40}})[{_QUOTED}]?\s{{0,9}}[:：]\s{{0,99}}(?![\s\[{{])")
_WIDE_COLON = re.compile(rf"(?<=[{_QUOTED}])\s*：")
# What stands between the calls of a reply: tags, and the names of functions.
_MARKUP = re.compile(r"<[^<>]{0,99}>|\[/?TOOL_CALLS?\]|\b\w+\.\w+:\d+|```\w{0,20}")
_LIST_ENDS = re.compile(r"\}[\s,]*\]")
_MOST_DIGITS: Final = 300
# What tells an entry of a list from the others; and what stands beside a list that is empty because of it.
_ABOUT: Final = frozenset({"quote", "fact", "field"})
_FAILED: Final = frozenset({"error", "refusal"})


def _integer(digits: str) -> int | str:
    # Of thousands of digits Python makes no number, which would lose the whole reply.
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; lists that have one name in it are one list."""
    made: dict[str, Any] = {}
    for name, value in members:
        before = made.get(name)
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        else:
            made[name] = value
    return made


_STRICT = json.JSONDecoder(strict=False, parse_int=_integer, object_pairs_hook=_object)


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
        reply: Its text.
        key: The member that holds the list. A list in place of the object is read too.
        marks: Members by which one entry is known when it stands alone.

    Raises:
        ExtractionError: nothing in it can be read; an empty list that was sent as such is no error.
    """
    if not reply.strip():
        raise ExtractionError(
            "The chat model replied with nothing, so no fact was written. Try again, or raise the number of tokens it "
            "may use: reasoning counts.",
            reply=reply,
        )
    reading = _read(reply[:LONGEST], key, frozenset(marks))
    if reading is None:
        raise ExtractionError(
            f'The chat model\'s reply has no JSON object with a list "{key}" in it, so no fact was written. The '
            "error's `reply` has it; try again, or use a model that follows instructions.",
            reply=reply,
        )
    return reading


def storable(text: str) -> str:
    """The text with characters that no journal can keep (NUL, lone surrogates) replaced by U+FFFD."""
    # Two escapes that are a surrogate pair are one character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")


def without_thoughts(reply: str) -> str:
    """What stands in a reply after the model's thoughts."""
    # The tag that opens the thoughts is often part of the prompt's template, and missing in the reply.
    thoughts = [match.end() for match in _THOUGHT_ENDS.finditer(reply)]
    return reply[thoughts[-1] :] if thoughts else reply


def _read(reply: str, key: str, marks: frozenset[str]) -> Reading | None:
    for text in (reply, _FENCE.sub("", without_thoughts(reply).strip())):
        try:
            whole = _entries(_STRICT.decode(text.strip()), key, marks)
        except (ValueError, RecursionError):
            continue
        if whole is not None:
            return Reading(tuple(whole))
    return _from_parts(without_thoughts(reply), key, marks)


def _from_parts(text: str, key: str, marks: frozenset[str]) -> Reading | None:
    """The lists of a reply's calls, else the entries that stand alone, else a list that was meant to be empty."""
    listed: list[Any] = []
    alone: list[Any] = []
    empty, end, read = None, 0, 0
    for start, value, stop in _values(text):
        # A list without a name may be anything: what is cut off, or an error that lists nothing.
        entries = None if value == [] else _entries(value, key, marks)
        if entries is None:
            continue
        read = stop
        if _is_entry(value, marks):
            alone += entries
        elif entries:
            # Calls follow each other; after some words, a list that is not about other things stands in place of those
            # before it.
            before, now = _subjects(listed), _subjects(entries)
            apart = re.search(r"\w", _MARKUP.sub(" ", text[end:start]))
            listed = [*(() if apart and (before & now or not now) else listed), *entries]
            end = stop
        else:
            empty = Reading(())
    if listed:
        broken = text.find(key, read) if _OPENS.search(text, read) else -1
        return Reading(tuple(listed), text[broken : broken + _SHOWN] if broken >= 0 else None)
    repaired = _repaired(text, key, marks)
    if repaired is not None and len(repaired.entries) >= len(alone):
        return repaired
    # A list that is empty in thoughts that break off may have become another.
    return Reading(tuple(alone), _list_start(text, key)) if alone else None if _THOUGHT_BEGINS.search(text) else empty


def _subjects(entries: Collection[Any]) -> set[str]:
    """What some entries are about."""
    maps = [one for one in entries if isinstance(one, Mapping)]
    return {str(part) for one in maps for name, part in one.items() if str(name).strip().casefold() in _ABOUT}


def _list_start(text: str, key: str) -> str | None:
    """The beginning of a list that only single entries could be read from."""
    at = text.find(key)
    return text[at : at + _SHOWN] if at >= 0 else None


def _is_entry(value: Any, marks: frozenset[str]) -> bool:
    """Whether a value is one entry, by a member that holds no further entries."""
    return isinstance(value, Mapping) and any(
        str(name).strip().casefold() in marks
        and not any(isinstance(one, Mapping) for one in (part if isinstance(part, list) else [part]))
        for name, part in value.items()
    )


def _entries(value: Any, key: str, marks: frozenset[str], depth: int = 0) -> list[Any] | None:
    """The entries in a value, or None when it is something else than what was asked for."""
    if depth > _MOST_WRAPPINGS:
        return None
    if isinstance(value, str):
        return _entries(_decoded(value), key, marks, depth + 1)
    if _is_entry(value, marks):
        return [value]
    if isinstance(value, Mapping):
        named = [inner for name, inner in value.items() if isinstance(name, str) and name.casefold() == key.casefold()]
        if named:
            if not named[0] and any(value.get(name) for name in _FAILED):
                return None
            return _listed(named[0], key, marks, depth + 1)
        # The call as text, the schema's own shape, or one more object around it.
        value = [part for part in value.values() if isinstance(part, (Mapping, list, str))]
        return next((found for part in value if (found := _entries(part, key, marks, depth + 1)) is not None), None)
    if not isinstance(value, list) or (depth and not value):
        return None
    # The entries themselves, or those of several calls.
    parts = [_entries(part, key, marks, depth + 1) for part in value]
    return None if any(part is None for part in parts) else [entry for part in parts for entry in part or ()]


def _listed(inner: Any, key: str, marks: frozenset[str], depth: int) -> list[Any] | None:
    """The entries in what stands under the list's name; what is none stays among them, to be refused."""
    if depth > _MOST_WRAPPINGS:
        return None
    if inner is None:
        return []
    if isinstance(inner, str):
        return _listed(opened, key, marks, depth + 1) if (opened := _decoded(inner)) is not None else None
    if isinstance(inner, Mapping):
        numbered = not _is_entry(inner, marks) and all(_is_entry(part, marks) for part in inner.values())
        return list(inner.values()) if inner and numbered else _entries(inner, key, marks, depth + 1)
    if not isinstance(inner, list) or not marks:
        return inner if isinstance(inner, list) else None
    # An entry may be written as a string, or stand in a list of its own.
    return [one for part in inner for one in _entries(part, key, marks, depth + 1) or [part]]


def _decoded(text: str) -> Any:
    """The object or list that a string holds, or None."""
    if not text.lstrip().startswith(("{", "[", '"')) or len(text) > LONGEST:
        return None
    try:
        return _STRICT.decode(text.strip())
    except (ValueError, RecursionError):
        return _repaired_value(text)


def _values(text: str) -> Iterator[tuple[int, Any, int]]:
    """The objects and lists of strict JSON in a text, each with where it begins and ends; none is within another."""
    at = work = 0
    # What cannot be read is tried again from each of its brackets, so the work is bounded.
    while work < _MOST_WORK and (opening := _OPENS.search(text, at)) is not None:
        at = opening.start()
        try:
            value, stop = _STRICT.raw_decode(text, at)
        except json.JSONDecodeError as error:
            work += error.pos - at + _WORK_OF_ONE
            at += 1
        except RecursionError:
            return
        else:
            yield at, value, stop
            at = stop


def _repaired(text: str, key: str, marks: frozenset[str]) -> Reading | None:
    """The entries of a damaged list, each repaired by itself; those that did not come to their end are lost."""
    if not marks:
        return _repaired_list(text, key)
    opened = list(_ENTRY.finditer(text))
    # All entries begin with the same member; what else is opened lies around or within them.
    first = next((match[1] for match in opened if match[1] in marks), opened[0][1] if opened else "")
    begins = [match.start() for match in opened if match[1] == first]
    entries, lost, work = [], None, 0
    for begin, end in pairwise([*begins, len(text)]):
        piece = _up_to_end(text[begin:end], last=end == len(text))
        work += len(piece or "")
        entry = _repaired_value(piece) if piece is not None and work <= _LONGEST_REPAIRED else None
        if isinstance(entry, Mapping) and marks & entry.keys() and any(entry.values()):
            entries.append(entry)
        else:
            lost = lost or text[begin : begin + _SHOWN]
    # What breaks off between two entries is not closed.
    if entries and lost is None and key in text and not _LIST_ENDS.search(text, begins[-1]):
        lost = text[begins[-1] : begins[-1] + _SHOWN]
    return Reading(tuple(entries), lost) if entries else None


def _repaired_list(text: str, key: str) -> Reading | None:
    """The list in a short damaged reply whose entries are no objects."""
    at = _OPENS.search(text)
    value = None if at is None else _repaired_value(text[at.start() :])
    inner = value.get(key) if isinstance(value, Mapping) else None
    return Reading(tuple(inner)) if isinstance(inner, list) and inner else None


def _up_to_end(piece: str, *, last: bool) -> str | None:
    """An entry without what follows it, or None when it breaks off."""
    ends = [match.start() for match in _LIST_ENDS.finditer(piece)] if last else []
    end = ends[-1] if ends else piece.rfind("}")
    piece = piece[: end + 1]
    return piece if end > 0 and piece.count("}") >= piece.count("{") else None


def _repaired_value(text: str) -> Any:
    """The first value of a damaged JSON text, or None."""
    if len(text) > _LONGEST_PIECE:
        return None
    import json_repair

    try:
        value = json_repair.loads(_WIDE_COLON.sub(":", text))
    except (ValueError, RecursionError):
        return None
    return value if value != "" else None
