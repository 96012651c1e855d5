"""`memlayer ingest`: the messages of a file, session by session, so that an interrupted run can be repeated."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from langchain_memlayer.cli import show
from langchain_memlayer.errors import InvalidInput, MemLayerError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_memlayer.memory import Memory
    from langchain_memlayer.progress import Progress

Message = dict[str, Any]

BATCH = 200
"""Messages in one commit at most: what an interruption costs, and how often the progress bar moves."""


@dataclass(slots=True)
class Ingested:
    """What a run did: how many messages it went through, of how many sessions, and what became of them."""

    messages: int = 0
    sessions: int = 0
    events: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"messages": self.messages, "sessions": self.sessions, "events": dict(self.events)}

    def sentence(self) -> str:
        """For people."""
        counted = show.event_counts(self.events) or "nothing new is in them"
        return f"{show.counted(self.messages, 'message')} of {show.counted(self.sessions, 'session')}: {counted}."


def read_batches(file: Path) -> list[list[Message]]:
    """The messages of a file, checked, each with an id, in batches.

    A message without an id gets one that follows from what it says and how often the file said it before, so that a
    repeated run knows it again.

    Args:
        file: A JSON array of messages, an object with the array under `messages`, or one message in each line.

    Raises:
        InvalidInput: it holds something else; the message names the place.
    """
    from langchain_memlayer.messages import to_turns

    messages = _parsed(file)
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidInput(
                f'{file.name}: message {place + 1} is no object; write {{"role": "user", "content": "..."}}.'
            )
    try:
        to_turns(messages)
    except InvalidInput as error:
        raise InvalidInput(f"{file.name}: {error}") from error
    seen: Counter[str] = Counter()
    return batches([_identified(message, seen) for message in messages])


def cost(model: BaseChatModel, batches: Sequence[Sequence[Message]]) -> str:
    """What reading the messages asks of a model, as far as it can be known before."""
    from datetime import UTC, datetime

    from langchain_memlayer.evaluation.asker import model_name
    from langchain_memlayer.facts.extraction import LLMExtractor
    from langchain_memlayer.facts.prompts import estimate_tokens
    from langchain_memlayer.messages import to_turns

    extractor, now = LLMExtractor(model), datetime.now(UTC)
    windows = [window for batch in batches for window in extractor.windows(to_turns(batch))]
    prompts = [message for window in windows for message in extractor.build(window, now)]
    tokens = sum(estimate_tokens(str(message.content)) for message in prompts)
    return (
        f"{model_name(model)} is going to be asked {len(windows):,} times for facts, with about {tokens:,} tokens in "
        f"all, and at most {len(batches):,} times what they change; less, where messages were read before. Its "
        "provider says what that costs."
    )


def ingest(
    memory: Memory, batches: Sequence[Sequence[Message]], scope: Mapping[str, Any], progress: Progress
) -> Ingested:
    """Add messages batch by batch."""
    total = sum(map(len, batches))
    done = Ingested(sessions=len({batch[0].get("session_id") for batch in batches}))
    progress("remembering", 0, total)
    try:
        for batch in batches:
            results = memory.add(batch, **scope)["results"]
            done.events.update(result["event"] for result in results)
            done.messages += len(batch)
            progress("remembering", done.messages, total)
    except (MemLayerError, KeyboardInterrupt) as error:
        if done.messages:
            error.add_note(f"{done.messages} of {total} messages are done; the same command goes on there.")
        raise
    return done


def _parsed(file: Path) -> list[Any]:
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        whole = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _lines(file.name, data)
    if isinstance(whole, dict) and isinstance(whole.get("messages"), list):
        whole = whole["messages"]
    return whole if isinstance(whole, list) else [whole]


def _lines(name: str, data: bytes) -> list[Any]:
    messages = []
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            messages.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise InvalidInput(
                f"{name}: line {number} is not JSON ({error}); give a JSON array, or one message in each line."
            ) from error
    return messages


def _identified(message: Message, seen: Counter[str]) -> Message:
    if message.get("id") is not None:
        return message
    digest = hashlib.blake2b(orjson.dumps(message, option=orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()
    seen[digest] += 1
    return {**message, "id": f"ingest-{digest}-{seen[digest]}"}


def batches(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages session by session, in pieces that are one commit each."""
    sessions: dict[Any, list[Message]] = {}
    for message in messages:
        sessions.setdefault(message.get("session_id"), []).append(message)
    return [some[start : start + BATCH] for some in sessions.values() for start in range(0, len(some), BATCH)]
