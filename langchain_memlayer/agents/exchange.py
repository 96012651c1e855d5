"""An agent's exchange with its user: what was said in it, and what other middleware refused or wrote itself.

An exchange may end with an error or an interrupt, and go on in another process; so what is known of it lies in the
agent's state, as plain data. Of texts it has hashes of their words only: what was redacted must not stay there.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypedDict

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tracers.context import register_configure_hook

from langchain_memlayer.agents.surface import WORD, hear, last_begins
from langchain_memlayer.messages import DECLINED
from langchain_memlayer.types import Turn

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


class Exchange(TypedDict, total=False):
    """What is known of an exchange.

    Attributes:
        said: The words of each message of the user, by the message's id.
        given: Those of these messages that the model was given, as it was given them.
        answers: The words of each of the model's own answers, by the message's id.
        refused: The ids of messages, of earlier exchanges too, that are never remembered.
        redacted: The ids of those that are remembered in other words than the state has, likewise.
        last: The id of the state's last message when it began.
        off: Whether the user declined it.
        owner: The ids of whose memories it is remembered among.
        began: When it began.
    """

    said: dict[str, list[int]]
    given: dict[str, dict[str, Any]]
    answers: dict[str, list[int]]
    refused: list[str]
    redacted: list[str]
    last: str | None
    off: bool
    owner: dict[str, str]
    began: str


def begin_exchange(
    messages: Sequence[BaseMessage], before: Exchange, owner: Mapping[str, str], began: datetime, *, off: bool
) -> Exchange:
    """The exchange that begins now; `before` is the last one, which may never have come to its end."""
    said: dict[str, list[int]] = {}
    for message in reversed(messages):
        if message.type != "human" or message.id is None:
            break
        said[message.id] = _words(_heard_text(message))
        off = off or message.additional_kwargs.get(DECLINED[0]) == DECLINED[1]
    said_before = before.get("said", {})
    # One that is tried again begins with the same message.
    said = {key: words for key, words in said.items() if key not in said_before} or said
    refused = set(before.get("refused", ()))
    if said_before and not said_before.keys() & said.keys():
        refused |= _refused_of_unended(messages, before)
    ids = {message.id for message in messages if message.id is not None}
    if before.get("owner", owner) != owner:
        # Several people may share a thread: what was said before is somebody else's, who has it.
        refused |= ids - said.keys()
    last_id = messages[-1].id if messages else None
    return {
        "said": said, "given": {}, "answers": {}, "refused": sorted(refused & ids), "last": last_id, "off": off,
        "owner": dict(owner), "began": began.isoformat(), "redacted": sorted(redacted(before) & ids),
    }  # fmt: skip


def redacted(exchange: Exchange) -> set[str]:
    """The ids of messages that were told in other words than the state has: told again, these would be their edit."""
    given = exchange.get("given", {}).items()
    return {key for key, one in given if _words(one["content"]) != one["state"]}.union(exchange.get("redacted", ()))


def _refused_of_unended(messages: Sequence[BaseMessage], exchange: Exchange) -> set[str]:
    """The ids of what is not remembered of an exchange without an end: all but what the user said to the model."""
    said = exchange["said"]
    begins = next((place for place, message in enumerate(messages) if message.id in said), len(messages))
    others = {one.id for one in messages[begins:] if one.type != "human" and one.id is not None}
    return others | (said.keys() - (set() if exchange.get("off") else exchange.get("given", {}).keys()))


def given_to_model(
    messages: Sequence[Any], exchange: Exchange, given: Sequence[BaseMessage], *, answered: bool
) -> dict[str, dict[str, Any]]:
    """What the user said in this exchange as the model was given it, by message; without what was replaced altogether.

    Args:
        messages: Those of the agent's state.
        exchange: What is known of it.
        given: What models were asked meanwhile; the agent's own, or one that judges for a middleware.
        answered: The agent's own model answered, so it was asked.
    """
    said = exchange.get("said", {})
    given_turns = {m.id: turn for m in given if m.id in said for turn in hear([m], None).turns}
    # A middleware that makes a message anew may leave out its id, or give it another.
    known = {m.id for m in messages} - {None}
    made_anew = hear([m for m in given if m.id not in known and m.type == "human"], None).turns
    kept = {}
    # By the ids of the state, some of which are none for a turn.
    for key, turn in ((m.id, turn) for m in messages if m.id in said for turn in hear([m], None).turns):
        given_turn = given_turns.get(key) or (None if not answered else made_anew[-1] if made_anew else turn)
        if given_turn is None:
            continue
        text = turn.text
        if turn.text not in given_turn.text:
            # Redacted on the way to the model.
            text = given_turn.text if _is_mostly_of(given_turn.text, _words(turn.text)) else ""
        if text and _is_mostly_of(text, said[key]):
            kept[key] = {**_message(turn, text), "state": _words(turn.text)}
    return kept


def changed_on_the_way(messages: Sequence[Any], given: Sequence[BaseMessage]) -> set[str]:
    """The ids of the user's messages, of earlier exchanges too, that the model was given in other words."""
    texts = {message.id: message.text for message in given if message.id is not None}
    return {m.id for m in messages if m.type == "human" and m.text not in texts.get(m.id, m.text)}


def with_answers(
    exchange: Exchange, given: Mapping[str, Any], changed: set[str], answers: Sequence[BaseMessage]
) -> Exchange:
    """The exchange after a call of the model."""
    own = {one.id: _words(one.text) for one in answers if one.id is not None and made_by_model(one)}
    given, answered = {**exchange.get("given", {}), **given}, {**exchange.get("answers", {}), **own}
    changed = changed.union(exchange.get("redacted", ()))
    return {**exchange, "given": given, "answers": answered, "redacted": sorted(changed)}


def with_times(turns: Sequence[Turn], exchange: Exchange, now: datetime) -> list[Turn]:
    """Turns with the time when what the user said on another day was said: an exchange may wait for a person."""
    said, began = exchange.get("said", {}), exchange.get("began")
    # A time that is told is found by its words, too: usual turns are told as all messages without one.
    if began is None or (then := datetime.fromisoformat(began)).date() == now.date():
        return list(turns)
    return [replace(turn, time=then) if turn.id in said and turn.time is None else turn for turn in turns]


def made_by_model(message: BaseMessage) -> bool:
    """Whether a model answered this: LangChain gives each answer of a model an id, and nobody else does."""
    return isinstance(message, AIMessage) and message.id is not None


def to_remember(messages: Sequence[BaseMessage], exchange: Exchange) -> tuple[list[Any], list[str]]:
    """The messages that are to be remembered at the end of an exchange, and the ids of those that never are."""
    said, given, answers = exchange.get("said", {}), exchange.get("given", {}), exchange.get("answers", {})
    refused: set[str | None] = set(exchange.get("refused", ()))
    told = set(exchange.get("redacted", ())) - said.keys()
    ids = [message.id for message in messages]
    if "said" not in exchange:
        # Another middleware ended the exchange before ours began: it refused what was said in it.
        refused |= set(ids[last_begins([message.type == "human" for message in messages]) :])
    begins = [ids.index(key) for key in said if key in ids]
    if (last := exchange.get("last")) in ids[:-1]:
        begins.append(ids.index(last) + 1)
    first = min(begins, default=0)
    summarized = any("lc_source" in message.additional_kwargs for message in messages)
    kept: list[Any] = [_without_state(one) for key, one in given.items() if key not in ids and summarized]
    for place, message in enumerate(messages):
        if message.id in refused or message.id in told:
            continue
        one: Any = message
        if message.id in said:
            one = _as_said(message, given.get(message.id))
        elif place >= first and isinstance(message, AIMessage):
            # What a middleware puts after an answer stands in its place.
            after = messages[place + 1] if place + 1 < len(messages) else None
            replaced = isinstance(after, AIMessage) and after.id not in answers
            own = message.id in answers and _is_mostly_of(message.text, answers[message.id])
            one = message if own and not replaced else None
        if (exchange.get("off") and place >= first) or one is None:
            refused.add(message.id)
        else:
            kept.append(one)
    return kept, sorted(key for key in refused if key in ids and key is not None)


def _as_said(message: BaseMessage, given: Mapping[str, Any] | None) -> Any:
    """What the user said, in the form that it has at the end; None when no model was given it, or it was replaced."""
    if given is None:
        return None
    text = _heard_text(message)
    if _words(text) == given["state"]:
        return _without_state(given)
    return message if _is_mostly_of(text, given["state"]) else None


def _message(turn: Turn, text: str) -> dict[str, Any]:
    time = None if turn.time is None else turn.time.isoformat()
    named = {"id": turn.id, "name": turn.name, "timestamp": time, "metadata": dict(turn.metadata)}
    return {"role": turn.role, "content": text, **{key: value for key, value in named.items() if value}}


def _without_state(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "state"}


def _heard_text(message: BaseMessage) -> str:
    """What is heard of a message: LangChain's own `text` leaves out the parts that it does not know."""
    return "".join(turn.text for turn in hear([message], None, without=None).turns)


def _words(text: str) -> list[int]:
    """Hashes of the words of a text, each once."""
    hashes = {zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in WORD.findall(text[:100_000].casefold())}
    return sorted(hashes)[:_MOST_WORDS]


def _is_mostly_of(text: str, words: Sequence[int]) -> bool:
    """Whether at least half of a text's words are some of these: it is what was said, shortened or redacted."""
    own = _words(text)
    return 2 * len(set(own).intersection(words)) >= len(own)
