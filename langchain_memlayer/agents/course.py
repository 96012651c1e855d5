"""The course of an agent's turn: what of its messages was said, and what other middleware refused or wrote itself.

A turn may end with an error or an interrupt, and go on in another process; so what is known of it lies in the agent's
state, as plain data. Of texts it has numbers for their words only: what was redacted must not stay there.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tracers.context import register_configure_hook

from langchain_memlayer.agents.surface import hear, last_begins
from langchain_memlayer.messages import DECLINED
from langchain_memlayer.types import Turn

Course = dict[str, Any]
"""`said`: the words of what the user said in this turn, by message; `given`: what of it the model was given, as
messages; `answers`: the words of the model's own answers; `refused`: ids of messages, of earlier turns too, that are
never remembered; `last`: the message that the turn began with; `off`: the user declined this turn; `owner`: the ids of
whose memories it is remembered among; `began`: when it began."""

_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
_MOST_WORDS: Final = 2_000


class _Listener(BaseCallbackHandler):
    """Hears what the model is really given: a middleware may answer, refuse or redact between us and it."""

    run_inline = True

    def __init__(self, outer: _Listener | None) -> None:
        self.messages: list[BaseMessage] | None = None
        self._outer = outer

    def on_chat_model_start(self, serialized: Any, messages: list[list[BaseMessage]], **kwargs: Any) -> None:
        self.messages = [*(self.messages or ()), *messages[0]]
        if self._outer is not None:
            self._outer.on_chat_model_start(serialized, messages)


_LISTENER: ContextVar[_Listener | None] = ContextVar("memlayer_listener", default=None)
register_configure_hook(_LISTENER, inheritable=True)


@contextmanager
def listening() -> Iterator[_Listener]:
    """Hear the calls of chat models that are made meanwhile; `messages` is None when there was none."""
    listener = _Listener(_LISTENER.get())
    token = _LISTENER.set(listener)
    try:
        yield listener
    finally:
        _LISTENER.reset(token)


def begun(
    messages: Sequence[BaseMessage], before: Course, owner: Mapping[str, str], began: datetime, *, off: bool
) -> Course:
    """The course of a turn that begins; `before` is that of the last one, which may never have come to its end."""
    refused = set(before.get("refused", ()))
    last = before.get("said", {})
    said: dict[str, list[int]] = {}
    for message in reversed(messages):
        if message.type != "human" or message.id is None:
            break
        said[message.id] = _words(_heard(message))
        off = off or message.additional_kwargs.get(DECLINED[0]) == DECLINED[1]
    # A turn that is tried again begins with the same message.
    said = {key: words for key, words in said.items() if key not in last} or said
    if last and not last.keys() & said.keys():
        refused |= last.keys() - (set() if before.get("off") else before.get("given", {}).keys())
        started = False
        for message in messages:
            started = started or message.id in last
            if started and message.type != "human" and message.id is not None:
                refused.add(message.id)
    there = {message.id for message in messages if message.id is not None}
    if before.get("owner", owner) != owner:
        # Several people may share a thread: what was said before is somebody else's, who has it.
        refused |= there - said.keys()
    last_id = messages[-1].id if messages else None
    refused_here = sorted(refused & there)
    return {
        "said": said, "given": {}, "answers": {}, "refused": refused_here, "last": last_id, "off": off,
        "owner": dict(owner), "began": began.isoformat(),
    }  # fmt: skip


def given_of(
    messages: Sequence[Any], course: Course, given: Sequence[BaseMessage], *, answered: bool
) -> dict[str, dict[str, Any]]:
    """What the user said in this turn as the model was given it, by message; without what was replaced altogether.

    Args:
        messages: Those of the agent's state.
        course: The course of the turn.
        given: What models were asked meanwhile; the agent's own, or one that judges for a middleware.
        answered: The agent's own model answered, so it was asked.
    """
    said = course.get("said", {})
    shown = {turn.id: turn for turn in hear([m for m in given if m.id in said], None).turns}
    # A middleware that makes a message anew may leave out its id.
    anew = hear([m for m in given if m.id is None and m.type == "human"], None).turns
    found = {}
    for turn in hear([m for m in messages if m.id in said], None).turns:
        mine = shown.get(turn.id) or (None if not answered else anew[-1] if anew else turn)
        if mine is None:
            continue
        text = turn.text
        if turn.text not in mine.text:
            # Redacted on the way to the model.
            text = mine.text if _mostly(mine.text, _words(turn.text)) else ""
        if text and turn.id is not None and _mostly(text, said[turn.id]):
            found[turn.id] = {**_message(turn, text), "state": _words(turn.text)}
    return found


def with_answers(course: Course, given: Mapping[str, Any], answers: Sequence[BaseMessage]) -> Course:
    """The course after a call of the model."""
    own = {one.id: _words(one.text) for one in answers if made_by_model(one)}
    return {**course, "given": {**course.get("given", {}), **given}, "answers": {**course.get("answers", {}), **own}}


def timed(turns: Sequence[Turn], course: Course, now: datetime) -> list[Turn]:
    """Turns with the time when what the user said on another day was said: a turn may wait for a person."""
    said, began = course.get("said", ()), course.get("began")
    # A time that is told is found by its words, too: usual turns are told as all messages without one.
    if began is None or (then := datetime.fromisoformat(began)).date() == now.date():
        return list(turns)
    return [replace(one, time=then) if one.id in said and one.time is None else one for one in turns]


def made_by_model(message: BaseMessage) -> bool:
    """Whether a model answered this: LangChain gives each answer of a model an id, and nobody else does."""
    return isinstance(message, AIMessage) and message.id is not None


def remembered(messages: Sequence[BaseMessage], course: Course) -> tuple[list[Any], list[str]]:
    """The messages that are to be remembered at the end of a turn, and the ids of those that never are."""
    said, given, answers = (course.get(key, {}) for key in ("said", "given", "answers"))
    refused = set(course.get("refused", ()))
    there = [message.id for message in messages]
    if "said" not in course:
        # Another middleware ended the turn before ours began: it refused what was said in it.
        refused |= set(there[last_begins([message.type == "human" for message in messages]) :])
    began = [there.index(key) for key in said if key in there]
    if course.get("last") in there[:-1]:
        began.append(there.index(course["last"]) + 1)
    first = min(began, default=0)
    summarized = any("lc_source" in message.additional_kwargs for message in messages)
    kept: list[Any] = [_plain(one) for key, one in given.items() if key not in there and summarized]
    for place, message in enumerate(messages):
        after = messages[place + 1] if place + 1 < len(messages) else None
        if message.id in refused:
            continue
        one: Any = message
        if message.id in said:
            one = _as_said(message, given.get(message.id))
        elif place >= first and isinstance(message, AIMessage):
            # What a middleware puts after an answer stands in its place.
            replaced = isinstance(after, AIMessage) and after.id not in answers
            own = message.id in answers and _mostly(message.text, answers[message.id])
            one = message if own and not replaced else None
        if (course.get("off") and place >= first) or one is None:
            refused.add(message.id)
        else:
            kept.append(one)
    return kept, sorted(key for key in refused if key in there and key is not None)


def _as_said(message: BaseMessage, given: Mapping[str, Any] | None) -> Any:
    """What the user said, in the form that it has at the end; None when no model was given it, or it was replaced."""
    if given is None:
        return None
    text = _heard(message)
    if _words(text) == given["state"]:
        return _plain(given)
    return message if _mostly(text, given["state"]) else None


def _message(turn: Turn, text: str) -> dict[str, Any]:
    time = None if turn.time is None else turn.time.isoformat()
    named = {"id": turn.id, "name": turn.name, "timestamp": time, "metadata": dict(turn.metadata)}
    return {"role": turn.role, "content": text, **{key: value for key, value in named.items() if value}}


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "state"}


def _heard(message: BaseMessage) -> str:
    """What is heard of a message: LangChain's own `text` leaves out the parts that it does not know."""
    return "".join(turn.text for turn in hear([message], None, without=None).turns)


def _words(text: str) -> list[int]:
    """Numbers for the words of a text, each once."""
    found = {zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in _WORD.findall(text[:100_000].casefold())}
    return sorted(found)[:_MOST_WORDS]


def _mostly(text: str, words: Sequence[int]) -> bool:
    """Whether at least half of a text's words are some of these: it is what was said, shortened or redacted."""
    own = _words(text)
    return 2 * len(set(own).intersection(words)) >= len(own)
