"""Messages of any form to turns: strings, dictionaries, pairs and LangChain messages."""

from __future__ import annotations

import hashlib
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeGuard

from langchain_memlayer.errors import InvalidInput, shown, written
from langchain_memlayer.json_values import plain
from langchain_memlayer.types import FIRST_TIME, LAST_TIME, MOST_NAME_BYTES, NO_TEXT, Turn, from_micros, to_micros

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

RECALLED_OPEN = "<recalled_memories"
"""How a block of recalled memories begins in a prompt; attributes and `>` may follow."""

RECALLED_CLOSE = "</recalled_memories>"
"""How it ends."""

LONGEST_TEXT = 1_000_000
"""How many characters one memory has at most: what is indexed of a text takes some fifty times its size meanwhile."""

_TOO_LONG = f"it has more than {LONGEST_TEXT:,} characters"
_RECALLED = re.compile(rf"{RECALLED_OPEN}(?![\w-]).*?(?:{RECALLED_CLOSE}|\Z)", re.DOTALL | re.IGNORECASE)
# What models that think write before their answer, where nobody takes it out; in parts of their own it is none.
_THOUGHTS = re.compile(r"\s*+<(think|thinking|thought)>.*?(?:</\1>\s*|\Z)", re.DOTALL | re.IGNORECASE)

_ROLES = {
    "user": "user", "human": "user", "assistant": "assistant", "ai": "assistant", "model": "assistant",
    "tool": "tool", "function": "tool", "system": "system", "sys": "system", "developer": "system",
}  # fmt: skip
# `remove` is LangGraph's order to drop a message from the state.
_NEVER_TURNS = frozenset({"system", "remove"})
# Models and tools do answer with nothing; a person's empty message is a caller's mistake.
_MAY_BE_EMPTY = frozenset({"assistant", "tool"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
# Parts that say nothing to anybody; what else is left out is reported.
_INNER_PARTS = frozenset({
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call", "server_tool_use",
    "server_tool_call", "server_tool_call_chunk", "server_tool_result", "reasoning", "thinking", "redacted_thinking",
    "cachePoint", "cache_point", "toolUse", "reasoningContent",
})  # fmt: skip
_TIMES = ("timestamp", "created_at", "time")
_LONGEST_ROLE = 20
_MILLISECONDS_ABOVE = 10**11
_ACCEPTED = 'a string, a dict {"role": ..., "content": ...}, a pair (role, text), a Turn or a LangChain message'

DECLINED = ("memory", "off")
"""The entry of a message's `additional_kwargs`, or of its dict, by which a person declines that it is remembered."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages as turns.

    Attributes:
        turns: What was said, in order.
        skipped: What was left out of it: the `message` (its place, 0-based), its `id`, the `part` (`message`, or the
            type of a block such as `image`) and the `reason`.
    """

    turns: list[Turn]
    skipped: list[dict[str, Any]]


class _TooLongError(InvalidInput):
    """A text of more than `LONGEST_TEXT` characters."""


@dataclass(frozen=True, slots=True)
class _Call:
    """What the call says for all messages that do not say it themselves."""

    session_id: str | None
    time: datetime | None
    metadata: Mapping[str, Any]


def read_messages(
    messages: Any,
    *,
    session_id: str | None = None,
    timestamp: datetime | str | float | None = None,
    metadata: Mapping[str, Any] | None = None,
    mend: bool = False,
    without: Collection[str] | None = (),
) -> Conversation:
    """The turns in `messages`, in order, and what was left out.

    System messages, recalled blocks, what LangChain put into a conversation itself (summaries, notifications), and
    messages without any text of their own (tool calls, images) are no turns. Neither is a message with the mark
    `DECLINED`, nor what was answered to it.

    Args:
        messages: A string (said by the user), a dict with `role` and `content` (and, if known, `id`, `name`,
            `timestamp`, `session_id` and `metadata`), a pair `(role, content)`, a `Turn`, a LangChain message, or an
            iterable of these.
        session_id: The conversation, for messages that do not name theirs.
        timestamp: When they were said, for messages that do not say so: a datetime (naive means UTC), an ISO 8601
            string, or seconds (above 1e11: milliseconds) since 1970.
        metadata: Kept with each turn; a message's own wins.
        mend: Take out of a message what cannot be kept (NUL, lone surrogates, empty names and ids, unreadable times),
            and leave out blank and overlong ones, failed tool calls and what is no message, in place of an error: for
            messages that are in an agent's state already.
        without: Ids of messages that count as declined; None takes all, those with the mark too.

    Raises:
        InvalidInput: something in it is no message, or is longer than `LONGEST_TEXT`; the error names its place.
    """
    call = _Call(checked_label(session_id, "session_id"), _moment(timestamp, "timestamp"), checked_metadata(metadata))
    conversation = Conversation([], [])
    declining = False
    for place, (where, item) in enumerate(_places(messages, mend)):
        message: Mapping[str, Any] = {}
        try:
            message = _fields(item, where)
            role, turn, others = _read_or_mended(message, where, call) if mend else _read(message, where, call)
        except InvalidInput as error:
            if not mend:
                raise
            reason = _TOO_LONG if isinstance(error, _TooLongError) else "it cannot be read"
            conversation.skipped.append(_left_out(place, message, "message", reason))
            continue
        marked = without is not None and (_has_mark(message) or message.get("id") in without)
        declining = marked or (declining and role != "user")
        if marked:
            conversation.skipped.append(_left_out(place, message, "message", "it was declined"))
        elif not declining:
            conversation.skipped.extend(_left_out(place, message, kind, "only text is remembered") for kind in others)
            if turn is not None and isinstance(item, Turn):
                # What no message says of itself.
                turn = replace(turn, quarantined=turn.quarantined or item.quarantined, valid_until=item.valid_until)
            if turn is not None:
                conversation.turns.append(turn)
    return conversation


def to_turns(messages: Any, **options: Any) -> list[Turn]:
    """The turns of `read_messages`, which has the same arguments."""
    return read_messages(messages, **options).turns


def content_hash(text: str) -> str:
    """The digest of a text's normalised form: what differs only in case or whitespace is equal.

    The form is NFC and casefolded, with single spaces. Punctuation and digits count: "really?" is not "really",
    "locker 12" is not "locker 13", and "2⁵" is not "25".
    """
    # Folding can undo the normal form, hence the second time.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return hashlib.blake2b(" ".join(folded.split()).encode(), digest_size=16).hexdigest()


def checked_text(text: str, where: str) -> str:
    """`text` as a plain `str`.

    Raises:
        InvalidInput: it has more than `LONGEST_TEXT` characters, or a lone surrogate or a NUL, which no journal can
            keep.
    """
    if len(text) > LONGEST_TEXT:
        raise _TooLongError(
            f"{where} has {len(text):,} characters, and a memory at most {LONGEST_TEXT:,}: remember it in parts, or "
            "keep the document elsewhere and remember what it says."
        )
    found = NO_TEXT.search(text)
    if found is None:
        return str.__str__(text)
    what = "a NUL character" if found[0] == "\x00" else "a lone surrogate, which is no text"
    raise InvalidInput(f"{where} holds {what} at index {found.start()}; remove it, or decode the text anew.")


def checked_label(value: Any, where: str) -> str | None:
    """An id or a name as it is, or None; `InvalidInput` when it cannot be one."""
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{where} must be a non-empty string, got {shown(value)}; leave it out when there is none.")
    return checked_text(value, where)


def checked_metadata(value: Any, where: str = "metadata") -> dict[str, Any]:
    """A copy of metadata as plain JSON values; `InvalidInput` when it is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} must be a mapping, got {type(value).__name__}; pass a dict of JSON values.")
    return plain(value, where)  # type: ignore[no-any-return]


def without_recalled(text: str) -> str:
    """`text` without its blocks of recalled memories, so that what was recalled is not remembered as said."""
    kept, cuts = _RECALLED.subn("", text)
    return kept.strip() if cuts else text


# -- places and forms -------------------------------------------------------------------------------------------------


def _places(messages: Any, mend: bool) -> Iterator[tuple[str, Any]]:
    """Each message with the name of its place, for errors."""
    # A LangChain message can be iterated over (its fields), so it has to be recognised first.
    if isinstance(messages, (str, Mapping, Turn)) or _is_langchain(messages):
        yield "messages", messages
        return
    if isinstance(messages, tuple) and _is_pair(messages):
        yield "messages", messages
        return
    if isinstance(messages, (set, frozenset)):
        raise InvalidInput("messages is a set, which has no order; pass a list.")
    if isinstance(messages, (bytes, bytearray, memoryview)):
        raise _foreign("messages", messages)
    try:
        items = iter(messages)
    except TypeError as error:
        raise _foreign("messages", messages) from error
    place = -1
    for place, item in enumerate(items):
        yield f"messages[{place}]", item
    if place < 0 and not mend:
        raise InvalidInput(f"messages is empty; pass {_ACCEPTED}, or several of them.")


_Read = tuple[str, Turn | None, list[str]]


def _read(message: Mapping[str, Any], where: str, call: _Call, *, blank: bool = False) -> _Read:
    """A message's role, its turn if it says something, and the types of its parts that are left out."""
    role = _role(message, where)
    if role in _NEVER_TURNS or (role == "user" and _is_notification(message)):
        return role, None, []
    text, others = _text_and_others(message, role, where, blank)
    if not text:
        return role, None, others
    turn = Turn(
        text=text,
        role=role,
        id=_message_id(message.get("id"), f"{where}['id']"),
        name=checked_label(message.get("name"), f"{where}['name']"),
        session_id=checked_label(message.get("session_id"), f"{where}['session_id']") or call.session_id,
        time=_time(message, where) or call.time,
        metadata={**call.metadata, **checked_metadata(message.get("metadata"), f"{where}['metadata']")},
        quarantined=role == "tool",
    )
    return role, turn, others


def _read_or_mended(message: Mapping[str, Any], where: str, call: _Call) -> _Read:
    """Like `_read`, for a message that may be blank, odd, or what became of a tool that failed."""
    try:
        role, turn, others = _read(message, where, call, blank=True)
    except InvalidInput:
        role, turn, others = _read(_mended(message), where, call, blank=True)
    return role, None if message.get("status") == "error" else turn, others


def _fields(item: Any, where: str) -> Mapping[str, Any]:
    """Any form of message as the dict form."""
    if isinstance(item, Mapping):
        # As LangChain writes messages down, by `dumpd` and by `messages_to_dict`.
        path, inner = item.get("id"), item.get("kwargs", item.get("data"))
        if "content" in item or not isinstance(inner, Mapping):
            return item
        return {"role": path[-1] if isinstance(path, list) and path else item.get("type"), **inner}
    if isinstance(item, str):
        return {"role": "user", "content": item}
    if isinstance(item, Turn):
        names = ("role", "id", "name", "session_id", "time", "metadata")
        return {"content": item.text, **{name: getattr(item, name) for name in names}}
    if isinstance(item, (list, tuple)):
        if _is_pair(item):
            return {"role": item[0], "content": item[1]}
        raise InvalidInput(
            f"{where} is a {type(item).__name__} but no pair (role, content) with a role out of {sorted(_ROLES)}; pass "
            'one flat list of messages, and a dict {"role": ..., "content": ...} for another role.'
        )
    if _is_langchain(item):
        return _langchain_fields(item)
    raise _foreign(where, item)


def _is_pair(item: list[Any] | tuple[Any, ...]) -> bool:
    return len(item) == 2 and isinstance(item[0], str) and item[0].strip().casefold() in _ROLES


def _is_langchain(item: Any) -> TypeGuard[BaseMessage]:
    # Importing langchain_core.messages takes half a second; as long as nobody did, nothing can be one of its messages.
    if "langchain_core.messages" not in sys.modules:
        return False
    from langchain_core.messages import BaseMessage

    return isinstance(item, BaseMessage)


def _langchain_fields(message: BaseMessage) -> dict[str, Any]:
    from langchain_core.messages import ChatMessage

    return {
        "role": message.role if isinstance(message, ChatMessage) else message.type,
        "content": message.content,
        "id": message.id,
        "name": message.name,
        "additional_kwargs": message.additional_kwargs,
        "response_metadata": message.response_metadata,
        "status": getattr(message, "status", None),
    }


def _foreign(where: str, item: Any) -> InvalidInput:
    return InvalidInput(f"{where} is of type {type(item).__name__}, which is no message; pass {_ACCEPTED}.")


# -- parts of a message -----------------------------------------------------------------------------------------------


def _role(message: Mapping[str, Any], where: str) -> str:
    # LangChain's own dict forms say `type` for what OpenAI calls `role`.
    key = "type" if message.get("role") is None else "role"
    given = checked_label(message.get(key), f"{where}[{key!r}]")
    if given is None:
        hint = "pass state['messages'] itself" if "messages" in message else f"pass {_ACCEPTED}"
        raise InvalidInput(f"{where} is a dict without 'role'; {hint}.")
    given = given.strip()
    role = given.casefold().rstrip(" :").removesuffix("chunk").removesuffix("message")
    if role not in _ROLES and len(role) <= _LONGEST_ROLE:
        from rapidfuzz.distance import OSA

        near = (known for known in _ROLES if len(known) > 3 and OSA.distance(role, known) <= 1 + len(known) // 8)
        role = next(near, role)
    return _ROLES.get(role, given)


def _marks(message: Mapping[str, Any]) -> Mapping[str, Any]:
    marks = message.get("additional_kwargs")
    return marks if isinstance(marks, Mapping) else {}


def _has_mark(message: Mapping[str, Any]) -> bool:
    key, value = DECLINED
    return value in (_marks(message).get(key), message.get(key))


def _is_notification(message: Mapping[str, Any]) -> bool:
    # LangChain's mark for a human message that nobody typed: a summary of what was said, news of a background task.
    return isinstance(_marks(message).get("lc_source"), str)


def _text_and_others(message: Mapping[str, Any], role: str, where: str, blank: bool) -> tuple[str, list[str]]:
    """The text of a message, "" when there rightly is none, and the types of its parts that are left out."""
    if "content" not in message and not (message.get("tool_calls") or message.get("function_call")):
        raise InvalidInput(f"{where} is a dict without 'content'; pass {_ACCEPTED}.")
    text, others = _text_of(message.get("content"), f"{where}['content']", may_be_none=role in _MAY_BE_EMPTY)
    if not text.strip() and not (others or blank or role in _MAY_BE_EMPTY):
        raise InvalidInput(f"{where} is blank; leave out messages that say nothing.")
    text = without_recalled(checked_text(text, where))
    if role == "assistant" and (thoughts := _THOUGHTS.match(text)) is not None:
        text = text[thoughts.end() :]
    return text if text.strip() else "", [kind for kind in others if kind not in _INNER_PARTS]


def _text_of(content: Any, where: str, *, may_be_none: bool) -> tuple[str, list[str]]:
    """The text in a message's content, and the types of its parts of another kind (images, tool calls, reasoning)."""
    if isinstance(content, str):
        return content, []
    if content is None and may_be_none:
        return "", []
    if isinstance(content, Mapping) and "type" in content:
        # mem0's users give a single part so, an image say.
        content = [content]
    if not isinstance(content, (list, tuple)):
        raise InvalidInput(
            f"{where} is of type {type(content).__name__}; pass a string or a list of parts "
            '{"type": "text", "text": ...}.'
        )
    texts, others = [], []
    for place, part in enumerate(content):
        text = part
        if isinstance(part, Mapping):
            if not _is_text(part):
                # Bedrock's parts have no type, but one member named for what they are.
                others.append(str(part.get("type") or next(iter(part), "nothing")))
                continue
            said = _part_text(part)
            text = "" if said is None else said
        if not isinstance(text, str):
            raise InvalidInput(f'{where}[{place}] is no part; pass a string or {{"type": "text", "text": "..."}}.')
        texts.append(text)
    # Without a separator, as LangChain's own `message.text`: models split sentences into parts where they cite.
    return "".join(texts), others


def _is_text(part: Mapping[str, Any]) -> bool:
    """Whether a part of a message's content is text: it says so, or nothing else."""
    kind = part.get("type") or ("text" if isinstance(_part_text(part), str) else None)
    return isinstance(kind, str) and kind.strip().casefold() in _TEXT_PARTS


def _part_text(part: Mapping[str, Any]) -> Any:
    """What a part of text says, under whichever name it stands; None when it says nothing."""
    text = next((part[name] for name in ("text", "content", "value") if part.get(name) is not None), None)
    # OpenAI's threads have the text beside its annotations.
    return text.get("value", text) if isinstance(text, Mapping) else text


def _time(message: Mapping[str, Any], where: str) -> datetime | None:
    """When a message says that it was said."""
    for key in _TIMES:
        if (value := message.get(key)) is not None:
            return _moment(value, f"{where}[{key!r}]")
    for group in ("additional_kwargs", "response_metadata"):
        values = message.get(group)
        if not isinstance(values, Mapping):
            continue
        for key in ("timestamp", "created_at"):
            if (value := values.get(key)) is not None:
                return _moment(value, f"{where}[{group!r}][{key!r}]")
    return None


def _moment(value: Any, where: str) -> datetime | None:
    """A time in any accepted form, in the zone that it was given in (UTC when it names none)."""
    if value is None:
        return None
    try:
        # `fromisoformat` takes any character between date and time, and so a run of digits for a date and hours.
        if isinstance(value, str) and not (value.isdecimal() and len(value) != 8):
            value = datetime.fromisoformat(value.strip())
        moment = from_micros(_micros(value))
        offset = value.utcoffset() if isinstance(value, datetime) else None
        # Only the offset is kept of a zone: it says which day it was for who spoke, and survives a checkpoint.
        return moment.astimezone(timezone(offset)) if offset else moment
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(
            f"{where} is no time: {shown(value)}; pass a datetime, an ISO 8601 string such as '2024-05-01T09:30:00Z', "
            "or seconds since 1970 as a number."
        ) from error


def _micros(value: Any) -> int:
    micros = FIRST_TIME - 1
    if isinstance(value, datetime):
        micros = to_micros(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        micros = round(value * (1_000 if abs(value) > _MILLISECONDS_ABOVE else 1_000_000))
    if FIRST_TIME <= micros <= LAST_TIME:
        return micros
    raise ValueError(f"a {type(value).__name__}")


def _message_id(value: Any, where: str) -> str | None:
    # Exports number their messages; LangChain turns such ids into strings as well.
    numbered = isinstance(value, int) and not isinstance(value, bool)
    given = checked_label(written(value, where) if numbered else value, where)
    if given is not None and len(given.encode()) > MOST_NAME_BYTES:
        raise InvalidInput(f"{where} has more than {MOST_NAME_BYTES:,} bytes; shorten it, or give a hash of it.")
    return given


# -- what is in an agent's state already ------------------------------------------------------------------------------


def _left_out(place: int, message: Mapping[str, Any], part: str, reason: str) -> dict[str, Any]:
    return {"message": place, "id": message.get("id"), "part": part, "reason": reason}


def _mended(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without what reading it would refuse, as far as the rest still says what was said."""
    kept = dict(message)
    if "content" in message:
        content = message["content"]
        parts = content if isinstance(content, (list, tuple)) else [content]
        kept["content"] = [part for part in map(_mended_part, parts) if part is not None]
    for key in ("role", "type", "id", "name", "session_id"):
        if isinstance(value := kept.get(key), str):
            kept[key] = mended_text(value).strip() or None
    for key, kinds in (("name", str), ("session_id", str), ("id", (str, int))):
        if not isinstance(kept.get(key), kinds):
            kept[key] = None
    if not _is_readable(_message_id, kept["id"]):
        kept["id"] = None
    for fields in (kept, *(kept[key] for key in _mended_groups(kept))):
        for key in _TIMES:
            if not _is_readable(_moment, fields.get(key)):
                del fields[key]
    if not _is_readable(checked_metadata, kept.get("metadata")):
        kept["metadata"] = None
    return kept


def _mended_groups(kept: dict[str, Any]) -> list[str]:
    """The names of a message's groups of further fields, each now a copy."""
    names = [key for key in ("additional_kwargs", "response_metadata") if isinstance(kept.get(key), Mapping)]
    kept.update({key: dict(kept[key]) for key in names})
    return names


def _mended_part(part: Any) -> Any:
    if isinstance(part, str):
        return mended_text(part)
    if isinstance(part, Mapping) and _is_text(part):
        text = _part_text(part)
        return mended_text(text) if isinstance(text, str) else None if text is None else {"type": "text that is none"}
    return part if isinstance(part, Mapping) else None


def mended_text(text: str) -> str:
    """`text` without NUL; halves of characters that stand side by side are one, and lone ones are U+FFFD."""
    if NO_TEXT.search(text) is None:
        return text
    return text.replace("\x00", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _is_readable(read: Callable[[Any, str], Any], value: Any) -> bool:
    try:
        read(value, "")
    except InvalidInput:
        return False
    return True
