"""What tests of `Memory` with a model share: a chat model that is asked for facts and decisions and knows which."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from journal_dump import open_memory, texts
from langchain_core.messages import BaseMessage

from langchain_memlayer import Memory
from langchain_memlayer.testing import ScriptedChatModel
from langchain_memlayer.types import Extraction, Fact, Turn

_TURN = re.compile(r"^\[(\d+)\] [^:]*: (.*)$", re.MULTILINE)


class Extracting:
    """An extractor that is awaited as it is called, and finds in turns the facts that a function gives of them."""

    def __init__(self, find: Callable[[Sequence[Turn]], Iterable[Fact]] = lambda _: ()) -> None:
        self.find = find

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return Extraction(tuple(self.find(turns)))

    async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return self.extract(turns, context)


def found(text: str, *triples: tuple[str, str, str], quote: str | None = None, **more: Any) -> dict[str, Any]:
    """A fact as a model replies it; its quote is all of its turn unless it is given."""
    return {"fact": text, "triples": [list(t) for t in triples], "subject": "", "valid_at": "", **more} | (
        {} if quote is None else {"quote": quote}
    )


def decided(*entries: tuple[Any, ...]) -> dict[str, Any]:
    """Decisions as a model replies them: (fact, action, memory, text)."""
    fields = ("fact", "action", "memory", "text")
    return {"decisions": [{**dict(zip(fields, entry, strict=False)), "reason": "said so"} for entry in entries]}


class Mind:
    """What a chat model says: of a conversation the facts that it knows are in its turns, then decisions in order.

    Of a profile it says what is given under `changes`, in order; nothing when there is no more.

    Asked once more, because its reply could not be read, it says the same again.

    Attributes:
        asked: What it was asked for, `extraction`, `reconciliation` or `profile`, in order.
        shown: The last message of each prompt.
    """

    def __init__(self, told: Mapping[str, Any], *decisions: Any, changes: Sequence[Any] = ()) -> None:
        self.told = dict(told)
        self.changes = list(changes)
        self.decisions = list(decisions)
        self.asked: list[str] = []
        self.shown: list[str] = []
        self._last: Any = None

    def __call__(self, messages: Sequence[BaseMessage]) -> Any:
        if len(messages) == 2:
            self._last = self._reply(messages)
        return self._last

    def _reply(self, messages: Sequence[BaseMessage]) -> Any:
        shown = str(messages[-1].content)
        self.shown.append(shown)
        if "<fields>" in shown:
            self.asked.append("profile")
            change = self.changes.pop(0) if self.changes else []
            return {"changes": change} if isinstance(change, list) else change
        if "<conversation>" not in shown:
            self.asked.append("reconciliation")
            decision = self.decisions.pop(0)
            return decision(shown) if callable(decision) else decision
        self.asked.append("extraction")
        entries: list[dict[str, Any]] = []
        for number, said in _TURN.findall(shown):
            known = self.told.get(said, ())
            if not isinstance(known, list | tuple):
                return known
            entries += [{"turn": int(number), "quote": said, **entry} for entry in known]
        return {"facts": entries}

    @property
    def model(self) -> ScriptedChatModel:
        """A chat model with this mind."""
        return ScriptedChatModel(replies=self)


def open_with(mind: Mind, folder: Path | str = ":memory:", **settings: Any) -> Memory:
    """A memory whose model has a mind."""
    return open_memory(folder, model=mind.model, **settings)


async def call(way: str, thing: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    """A method plainly (in a thread), or its twin."""
    if way == "awaited":
        return await getattr(thing, f"a{name}")(*args, **kwargs)
    return await asyncio.to_thread(getattr(thing, name), *args, **kwargs)


def live(memory: Memory, **scope: Any) -> list[str]:
    """The live facts of a scope."""
    return texts(memory.get_all(**(scope or {"user_id": "u"}), kinds=["fact"], limit=1_000))


def message(text: str, number: str | None, role: str = "user") -> dict[str, Any]:
    """A message with an id."""
    return {"role": role, "content": text, "id": number}
