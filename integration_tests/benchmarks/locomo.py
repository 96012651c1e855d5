"""Evidence recall on conversations in the shape of LoCoMo and MemDaily, through the public API only.

`adapter(conversation, units)` stores a conversation in a fresh, empty memory and returns `search(question, k)`. Turns
are added as they are, with their name and timestamp; with `units="both"` the conversation's observations enter through
`Memory(extractor=...)`, in place of what a chat model would extract.

A conversation is a small scope, in which all memories are scored and no index proposes candidates. With the adapters
that end in `_large` it counts as a large one, in which the graph, or the vector store, is asked for them.
"""

from __future__ import annotations

import atexit
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import groupby
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from integration_tests import postgres_server
from integration_tests.benchmarks.vectors import DIMS
from langchain_memlayer import Memory
from langchain_memlayer.backends.proposals import Proposals
from langchain_memlayer.engine import scoring_pool
from langchain_memlayer.evaluation import Observation, ObservedFacts
from langchain_memlayer.index.view import Hits, View

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


def opened(conversation: Any, units: str, embeddings: Any, path: Any = ":memory:", **settings: Any) -> Memory:
    """A memory whose extractor gives the conversation's observations, or none with `units="turns"`."""
    observed = (Observation(one.text, tuple(one.dia_ids), one.speaker or None) for one in conversation.observations)
    extractor = ObservedFacts(observed) if units == "both" else None
    return Memory(path, model=None, embeddings=embeddings, extractor=extractor, durability="fast", **settings)


def remembering(conversation: Any, units: str, embeddings: Any, path: Any = ":memory:", **settings: Any) -> Memory:
    """A memory, in RAM when no path is given, that was told a conversation, session by session."""
    memory = opened(conversation, units, embeddings, path, **settings)
    for messages, session in sessions(conversation):
        memory.add(messages, user_id="user", session_id=session)
    return memory


def in_postgres(conversation: Any, units: str, embeddings: Any, **settings: Any) -> Memory:
    """The same with the journal in a schema of its own of a PostgreSQL."""
    path = postgres_server.schema(_postgres(), f"talk_{uuid4().hex}")
    return remembering(conversation, units, embeddings, path, **settings)


def in_chroma(conversation: Any, units: str, embeddings: Any, **settings: Any) -> Memory:
    """The same with the vectors in an embedded Chroma, which was brought all of them."""
    from langchain_chroma import Chroma

    folder = _until_exit().enter_context(tempfile.TemporaryDirectory(prefix="memlayer-bench-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Chroma's own
        store = Chroma("talk", embeddings, persist_directory=folder)
    memory = remembering(conversation, units, embeddings, vectorstore=store, **settings)
    memory.flush()
    return memory


@cache
def _until_exit() -> ExitStack:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack


@cache
def _postgres() -> str:
    return _until_exit().enter_context(postgres_server.serving())


LARGE: dict[str, Any] = {"hnsw_threshold": 100 * DIMS}
"""What a memory is opened with to be searched `as_if_large`: a hundred vectors are worth asking an index."""


@contextmanager
def as_if_large(counts: Counter[str]) -> Iterator[None]:
    """While it is entered, conversations are large scopes; counts how the nearest vectors were found."""
    search = View.search

    def counting(view: View, *given: Any, **named: Any) -> Hits:
        hits = search(view, *given, **named)
        counts[hits.plan.way] += 1
        return hits

    with (
        # An audit gives the exact answer; here the stores' own are looked at.
        patch.object(Proposals, "audit_due", lambda self: False),
        patch.object(scoring_pool, "WHOLE_SCOPE", 200),
        # With more of them the planner would rather scan so few vectors.
        patch.object(scoring_pool, "CANDIDATES", 50),
        patch.object(View, "search", counting),
    ):
        yield


def searching(memory: Memory) -> Search:
    """The harness' search over a memory."""

    def search(question: str, k: int) -> list[tuple[set[str], str]]:
        hits = memory.search(question, user_id="user", limit=k)["results"]
        return [(set(hit["sources"]), hit["memory"]) for hit in hits]

    return search


def searching_large(memory: Memory, counts: Counter[str] | None = None) -> Search:
    """The harness' search over a memory that was opened with `LARGE`, `as_if_large`, once its index stands."""
    search, counts = searching(memory), Counter() if counts is None else counts
    search("warm", 1)
    memory._indexes.wait()
    memory.flush()

    def found(question: str, k: int) -> list[tuple[set[str], str]]:
        with as_if_large(counts):
            return search(question, k)

    return found


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


def adapter_postgres(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2, the journal in PostgreSQL."""
    return searching(in_postgres(conversation, units, minilm()))


def adapter_chroma(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2, the vectors in an embedded Chroma."""
    return searching(in_chroma(conversation, units, minilm()))


def adapter_large(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2 and an HNSW graph."""
    return searching_large(remembering(conversation, units, minilm(), **LARGE))


def adapter_postgres_large(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2, the journal in PostgreSQL, whose index is asked for the nearest."""
    return searching_large(in_postgres(conversation, units, minilm(), **LARGE))


def adapter_chroma_large(conversation: Any, units: str) -> Search:
    """With all-MiniLM-L6-v2 and an embedded Chroma, which is asked for the nearest."""
    return searching_large(in_chroma(conversation, units, minilm(), **LARGE))
