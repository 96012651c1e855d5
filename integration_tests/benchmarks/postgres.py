"""The journal in PostgreSQL beside one in a folder: the same memories of a thousand tenants, told and searched."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from integration_tests import postgres_server
from integration_tests.benchmarks.talk import SESSION, Language, Said, WordEmbeddings, sessions
from integration_tests.benchmarks.timing import interleaved, said, table, timed
from langchain_memlayer import Memory

_TENANTS = 1_000
_AT_ONCE = 5 * SESSION
_QUESTIONS = 100


def run(sizes: list[int], note: Callable[[str], None]) -> Iterator[str]:
    """One table for each size; the clock counts, since the server's work is none of this process."""
    for size in sizes:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="memlayer-bench-"))
            url = stack.enter_context(postgres_server.own_schema(stack.enter_context(postgres_server.serving())))
            yield _compared({"PostgreSQL": url, "folder": Path(folder)}, size, note)


def _compared(places: dict[str, Any], size: int, note: Callable[[str], None]) -> str:
    language, rng = Language(), random.Random(9)
    embeddings = WordEmbeddings(language)
    tenants = min(_TENANTS, size // _AT_ONCE)
    told = _told(language, size)
    asked = [(f"u{k % tenants}", language.question(rng, rng.choice(told[k % tenants]))) for k in range(_QUESTIONS)]
    # What an embedder takes is no matter of the journal.
    embeddings.embed_documents([turn.text for turns in told for turn in turns])
    for _, question in asked:
        embeddings.embed_query(question)

    rates, fresh = [], count()
    for name, place in places.items():
        with said(note, f"{size:,} told, {name}"), _opened(place, embeddings) as memory:
            seconds = timed(lambda memory=memory: _tell(memory, told, tenants))[1]
            rates.append(size / seconds)
    with ExitStack() as stack:
        memories = [stack.enter_context(_opened(place, embeddings)) for place in places.values()]
        first = [1000 * timed(_searching(memory, asked[0][1], agent_id="a"))[1] for memory in memories]
        kinds: dict[str, Callable[[Memory, str, str], Callable[[], Any]]] = {
            f"search in a tenant of {size // tenants}, ms": lambda memory, who, text: _searching(
                memory, text, user_id=who
            ),
            f"search over all {size:,}, ms": lambda memory, who, text: _searching(memory, text, agent_id="a"),
            "one add, ms": lambda memory, who, text: (
                lambda: memory.add(f"{text} {next(fresh)}", user_id=who, agent_id="a")
            ),
        }
        times = [[title, *_middle(memories, asked, made)] for title, made in kinds.items()]
    lines = [
        [f"told a second, {_AT_ONCE} a call", *rates],
        ["first search over all after opening, ms", *first],
        *times,
    ]
    return table([f"{size:,} memories of {tenants:,} tenants, 384 dimensions", *places], lines)


def _tell(memory: Memory, told: list[list[Said]], tenants: int) -> None:
    for number, turns in enumerate(told):
        messages = [{"role": "user", "content": one.text, "name": one.name, "timestamp": one.time} for one in turns]
        memory.add(messages, user_id=f"u{number % tenants}", agent_id="a", session_id=f"s{number}")


def _middle(
    memories: list[Memory], asked: list[tuple[str, str]], made: Callable[[Memory, str, str], Callable[[], Any]]
) -> list[float]:
    """What the middle call takes on the clock, milliseconds, when what it needs is loaded."""
    for memory in memories:
        for who, text in asked:
            made(memory, who, text)()
    calls = {
        str(place): lambda number, memory=memory: timed(made(memory, *asked[number]))
        for place, memory in enumerate(memories)
    }
    return [sample.wall_ms for sample in interleaved(calls, most=len(asked), budget=30.0).values()]


def _told(language: Language, size: int) -> list[list[Said]]:
    stream = sessions(language, seed=1)
    return [[turn for _ in range(_AT_ONCE // SESSION) for turn in next(stream)] for _ in range(size // _AT_ONCE)]


def _opened(place: Any, embeddings: WordEmbeddings) -> Memory:
    return Memory(place, model=None, embeddings=embeddings)


def _searching(memory: Memory, query: str, **scope: str) -> Callable[[], Any]:
    return lambda: memory.search(query, limit=10, **scope)
