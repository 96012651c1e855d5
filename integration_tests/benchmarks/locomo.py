"""Evidence recall on conversations in the shape of LoCoMo and MemDaily, through the public API only.

`adapter(conversation, units)` stores a conversation in a fresh, empty memory and returns `search(question, k)`. Turns
are added as they are, with their name and timestamp; with `units="both"` the conversation's observations enter through
`Memory(extractor=...)`, in place of what a chat model would extract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from langchain_memlayer import Memory
from langchain_memlayer.types import Extraction, Fact, Turn

Search = Callable[[str, int], list[tuple[set[str], str]]]


class RecordedExtractor:
    """An extractor that gives what was recorded for each turn's id.

    Args:
        observations: Each with `text`, `dia_ids` and `speaker`.
    """

    def __init__(self, observations: Sequence[Any]) -> None:
        self._observations = observations

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        positions = {turn.id: position for position, turn in enumerate(turns)}
        facts = []
        for observation in self._observations:
            cited = sorted(positions[i] for i in observation.dia_ids if i in positions)
            if cited:
                facts.append(Fact(observation.text, tuple(cited), name=observation.speaker or None))
        return Extraction(tuple(facts))

    async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return self.extract(turns, context)


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


def remember(memory: Memory, conversation: Any, user_id: str) -> None:
    """Add a conversation session by session; notes of session 0 belong to none."""
    for session, turns in groupby(conversation.turns, key=lambda turn: turn.session):
        label = f"session-{session}" if session else None
        memory.add([message(turn) for turn in turns], user_id=user_id, session_id=label)


def _adapter(conversation: Any, units: str, embeddings: Any) -> Search:
    extractor = RecordedExtractor(conversation.observations) if units == "both" else None
    memory = Memory(":memory:", model=None, embeddings=embeddings, extractor=extractor)
    remember(memory, conversation, "user")

    def search(question: str, k: int) -> list[tuple[set[str], str]]:
        hits = memory.search(question, user_id="user", limit=k)["results"]
        return [(set(hit["sources"]), hit["memory"]) for hit in hits]

    return search


_minilm: list[Any] = []


def adapter(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2; `minilm` must be importable."""
    if not _minilm:
        from minilm import MiniLM

        _minilm.append(MiniLM())
    return _adapter(conversation, units, _minilm[0])


def adapter_wordllama(conversation: Any, units: str) -> Search:
    """With the bundled offline embedder."""
    return _adapter(conversation, units, "wordllama")


def adapter_keyword(conversation: Any, units: str) -> Search:
    """With keywords only."""
    return _adapter(conversation, units, None)
