"""Whether conversations in one folder, each of a user of its own, are found as in folders of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

from integration_tests.benchmarks.evidence import Evidence
from integration_tests.benchmarks.locomo import opened, sessions
from integration_tests.benchmarks.timing import said, table
from langchain_memlayer import Memory

_USERS = 10
_LIMIT = 50
_NOW = datetime(2024, 6, 1, tzinfo=UTC)

Told = list[tuple[str, Any]]


def run(evidence: Evidence, note: Callable[[str], None]) -> Iterator[str]:
    """One table: for each file, its units and each embedder, how many answers are equal in every hit and number."""
    rows = []
    for name, units in evidence.settings():
        conversations = evidence.data[name]
        told = [(f"user-{n}", conversations[n % len(conversations)]) for n in range(max(_USERS, len(conversations)))]
        for embedder, embeddings in (("MiniLM", evidence.embeddings), ("none", None)):
            with said(note, f"{name}, {units}, {embedder}"), tempfile.TemporaryDirectory() as folder:
                one = _one_folder(Path(folder) / "one", told, units, embeddings)
                own = _own_folders(Path(folder) / "own", told, units, embeddings)
            equal = sum(one[key] == own[key] for key in own)
            hits = sum(map(len, own.values()))
            rows.append([name, units, embedder, len(told), f"{len(own):,}", f"{hits:,}", f"{len(own) - equal:,}"])
    yield table(["data", "units", "embedder", "users", "questions", "hits", "questions whose hits differ"], rows)


def _one_folder(path: Path, told: Told, units: str, embeddings: Any) -> dict[Any, Any]:
    """The hits of all users; their sessions came in turns, each user's through a `Memory` of its own."""
    with ExitStack() as stack:
        memories = {user: stack.enter_context(opened(talk, units, embeddings, path)) for user, talk in told}
        for turn in zip_longest(*(sessions(talk) for _, talk in told)):
            for (user, _), session in zip(told, turn, strict=True):
                if session is not None:
                    memories[user].add(session[0], user_id=user, session_id=session[1])
    with Memory(path, model=None, embeddings=embeddings) as memory:
        return {key: hits for user, talk in told for key, hits in _answers(memory, user, talk).items()}


def _own_folders(path: Path, told: Told, units: str, embeddings: Any) -> dict[Any, Any]:
    found = {}
    for user, talk in told:
        with opened(talk, units, embeddings, path / user) as memory:
            for messages, session in sessions(talk):
                memory.add(messages, user_id=user, session_id=session)
            found |= _answers(memory, user, talk)
    return found


def _answers(memory: Memory, user: str, conversation: Any) -> dict[tuple[str, int], list[Any]]:
    """For each question its hits with their numbers, without what differs by the clock: ids and times of storage."""
    return {
        (user, number): [
            (hit["kind"], hit["memory"], hit["sources"], hit["score"], hit["relevance"])
            for hit in memory.search(question.text, user_id=user, limit=_LIMIT, reference_time=_NOW)["results"]
        ]
        for number, question in enumerate(conversation.questions)
    }
