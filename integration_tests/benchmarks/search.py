"""`Memory.search` without the query's embedding: what it costs by size, with filters, and signal by signal.

Above 10,000 memories not all are scored, so the hits are compared with those of a search that does.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from integration_tests.benchmarks.talk import SESSION, Language, Said, WordEmbeddings, sessions
from integration_tests.benchmarks.timing import interleaved, said, table, timed
from langchain_memlayer import Memory
from langchain_memlayer.engine import scoring_pool, search
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.recall import signals

_QUESTIONS = 60
_EXACT = 40
_SCOPES = 1000
_FILTERS = {"a quarter passes": {"project": "p1"}, "one in 200 passes": {"ticket": 7}}
_SIGNALS = {"neighbour": "neighbour", "linked": "link", "session_prior": "session", "bridge": "bridge",
            "speaker": "speaker", "date": "date", "exact": "exact", "fact": "fact", "question": "question",
            "barren": "barren", "ended": "ended"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Told:
    """What a folder was told, and what is asked about it."""

    path: Path
    embeddings: WordEmbeddings
    questions: list[str]
    small_talk: list[str]


def run(sizes: list[int], note: Callable[[str], None]) -> Iterator[str]:
    """Tables: one scope of each size, many scopes in one folder, the hits of large ones, and what each signal costs."""
    times, agreeing, costs = [], [], {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="memlayer-bench-") as folder, said(note, f"one scope of {size}"):
            told = _tell(Path(folder), size, 1)
            with _opened(told) as memories:
                times += [[f"{size:,}", *line] for line in _times(memories, told, filters=True)]
                costs[size] = _costs(memories["meaning and words"], told)
                if size > scoring_pool.WHOLE_SCOPE:
                    agreeing += [[f"{size:,}", *line] for line in _agreement(memories, told)]
    largest = max(sizes)
    if largest >= _SCOPES * SESSION:
        with tempfile.TemporaryDirectory(prefix="memlayer-bench-") as folder, said(note, f"{_SCOPES} scopes"):
            told = _tell(Path(folder), largest, _SCOPES)
            with _opened(told) as memories:
                each = f"{largest // _SCOPES:,} in each of {_SCOPES:,}"
                times += [[each, *line] for line in _times(memories, told, filters=False)]
    yield table(["memories of the scope", "signals", "asked", "CPU ms", "p90", "ms on the clock"], times)
    if agreeing:
        yield table(["memories", "signals", "asked", "of the exact ten best found", "the same first"], agreeing)
    yield _cost_table(costs)


def _tell(folder: Path, size: int, users: int) -> _Told:
    """Tell a folder so many turns, session by session, by turns to its users."""
    language, rng = Language(), random.Random(9)
    stream = sessions(language, seed=1)
    embeddings = WordEmbeddings(language)
    first: list[Said] = []
    with Memory(folder, model=None, embeddings=embeddings, durability="fast") as memory:
        for number in range(size // SESSION):
            turns = next(stream)
            if number % users == 0:
                first += turns
            memory.add(
                [{"role": "user", "content": turn.text, "name": turn.name, "timestamp": turn.time} for turn in turns],
                user_id=f"u{number % users}",
                session_id=f"s{number}",
                metadata={"project": f"p{turns[0].topic % 4}", "ticket": number % 200},
            )
    asked = [language.question(rng, rng.choice(first)) for _ in range(_QUESTIONS)]
    return _Told(folder, embeddings, asked, [language.small_talk(rng) for _ in range(_QUESTIONS // 2)])


@contextmanager
def _opened(told: _Told) -> Iterator[dict[str, Memory]]:
    """The folder with vectors and without, ready."""
    with (
        Memory(told.path, model=None, embeddings=told.embeddings, durability="fast") as fused,
        Memory(told.path, model=None, embeddings=None, durability="fast") as words,
    ):
        memories = {"meaning and words": fused, "words": words}
        for memory in memories.values():
            for query in (*told.questions, *told.small_talk):
                told.embeddings.embed_query(query)
            _ids(memory, told.questions[0])
            memory._indexes.wait()
            _ids(memory, told.questions[0])
        yield memories


def _ids(memory: Memory, query: str, **asked: Any) -> list[str]:
    return [hit["id"] for hit in memory.search(query, user_id="u0", **asked)["results"]]


def _kinds(told: _Told, *, filters: bool) -> list[tuple[str, list[str], dict[str, Any]]]:
    kinds: list[tuple[str, list[str], dict[str, Any]]] = [
        ("questions", told.questions, {}),
        ("frequent words only", told.small_talk, {}),
    ]
    if filters:
        kinds += [(f"filter: {name}", told.questions[:20], {"filters": given}) for name, given in _FILTERS.items()]
    return kinds


def _times(memories: dict[str, Memory], told: _Told, *, filters: bool) -> Iterator[list[object]]:
    for kind, queries, asked in _kinds(told, filters=filters):

        def call(memory: Memory, number: int, queries: list[str] = queries, asked: Any = asked) -> Any:
            return timed(lambda: _ids(memory, queries[number], **asked))

        samples = interleaved(
            {name: partial(call, memory) for name, memory in memories.items()}, most=len(queries), budget=15.0
        )
        for name, sample in samples.items():
            high = 1000 * sorted(sample.cpu)[int(0.9 * len(sample.cpu))]
            yield [name, kind, sample.ms, high, sample.wall_ms]


def _agreement(memories: dict[str, Memory], told: _Told) -> Iterator[list[object]]:
    """How many of the ten best of a search that scores all are found."""
    for name, memory in memories.items():
        for kind, queries, asked in _kinds(told, filters=True):
            shares, first = [], []
            for query in queries[:_EXACT]:
                found = _ids(memory, query, **asked)
                with patch.object(scoring_pool, "WHOLE_SCOPE", 1 << 40):
                    exact = _ids(memory, query, **asked)
                shares.append(len(set(found) & set(exact)) / max(1, len(exact)))
                first.append(found[:1] == exact[:1])
            yield [name, kind, f"{statistics.mean(shares):.3f}", f"{statistics.mean(first):.2f}"]


def _costs(memory: Memory, told: _Told) -> dict[str, float]:
    """CPU milliseconds of a search by part, each with all that it calls; mean over the questions."""
    spent: Counter[str] = Counter()
    parts = [
        (search.Searcher, "_scoped", "who is in the scope"),
        (search, "keywords", "words: find and score"),
        (scoring_pool.Pools, "__init__", "meaning: nearest and spread"),
        (scoring_pool.Pools, "around", "pool: candidates and columns"),
        *((signals, name, f"signal: {title}") for name, title in _SIGNALS.items()),
        (search, "ranked", "order and coverage"),
        (Reader, "memories_by_row", "hits from the journal"),
    ]
    with ExitStack() as undo:
        for owner, name, title in parts:
            undo.enter_context(patch.object(owner, name, _watch(getattr(owner, name), title, spent)))
        begin = time.process_time()
        for query in told.questions:
            _ids(memory, query)
        spent["all"] = time.process_time() - begin
    return {title: 1000 * spent[title] / len(told.questions) for title in (*(part[2] for part in parts), "all")}


def _watch(call: Callable[..., Any], title: str, spent: Counter[str]) -> Callable[..., Any]:
    def watched(*given: Any, **named: Any) -> Any:
        begin = time.process_time()
        value = call(*given, **named)
        spent[title] += time.process_time() - begin
        return value

    return watched


def _cost_table(costs: dict[int, dict[str, float]]) -> str:
    titles = next(iter(costs.values()))
    return table(
        ["CPU ms of a search, meaning and words", *(f"{size:,}" for size in costs)],
        [[title, *(costs[size][title] for size in costs)] for title in titles],
    )
