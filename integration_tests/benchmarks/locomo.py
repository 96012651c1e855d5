"""Evidence recall on conversations in the shape of LoCoMo and MemDaily, through the public API only.

`adapter(conversation, units)` stores a conversation in a fresh, empty memory and returns `search(question, k)`. Turns
are added as they are, with their name and timestamp; with `units="both"` the conversation's observations enter through
`Memory(extractor=...)`, in place of what a chat model would extract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from typing import Any

from langchain_memlayer import Memory
from langchain_memlayer.evaluation import Observation, ObservedFacts

Search = Callable[[str, int], list[tuple[set[str], str]]]


def message(turn: Any) -> dict[str, Any]:
    """A turn as a message; a shared photo is told in words."""
    text = f"{turn.text} [shares a photo: {turn.caption}]" if turn.caption else turn.text
    return {
        "role": "user",
        "id": turn.dia_id,
        "content": text,
        "timestamp": turn.date,
        **({"name": turn.speaker} if turn.speaker else {}),
    }


def sessions(conversation: Any) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """The messages of each session with its name; notes of session 0 belong to none."""
    for session, turns in groupby(conversation.turns, key=lambda turn: turn.session):
        yield [message(turn) for turn in turns], f"session-{session}" if session else None


def opened(conversation: Any, units: str, embeddings: Any, path: Any = ":memory:") -> Memory:
    """A memory whose extractor gives the conversation's observations, or none with `units="turns"`."""
    observed = (Observation(one.text, tuple(one.dia_ids), one.speaker or None) for one in conversation.observations)
    extractor = ObservedFacts(observed) if units == "both" else None
    return Memory(path, model=None, embeddings=embeddings, extractor=extractor, durability="fast")


def remembering(conversation: Any, units: str, embeddings: Any) -> Memory:
    """A memory in RAM that was told a conversation, session by session."""
    memory = opened(conversation, units, embeddings)
    for messages, session in sessions(conversation):
        memory.add(messages, user_id="user", session_id=session)
    return memory


def searching(memory: Memory) -> Search:
    """The harness' search over a memory."""

    def search(question: str, k: int) -> list[tuple[set[str], str]]:
        hits = memory.search(question, user_id="user", limit=k)["results"]
        return [(set(hit["sources"]), hit["memory"]) for hit in hits]

    return search


@cache
def minilm() -> Any:
    """all-MiniLM-L6-v2; `minilm` must be importable, as it is when the harness runs."""
    from minilm import MiniLM

    return MiniLM()


def adapter(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2."""
    return searching(remembering(conversation, units, minilm()))


def adapter_wordllama(conversation: Any, units: str) -> Search:
    """With the bundled offline embedder."""
    return searching(remembering(conversation, units, "wordllama"))


def adapter_keyword(conversation: Any, units: str) -> Search:
    """With keywords only."""
    return searching(remembering(conversation, units, None))
