"""What comes back of the same units with the same vectors: `Memory`, LangGraph's store and mem0."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from integration_tests.benchmarks.evidence import Evidence
from integration_tests.benchmarks.locomo import Search, message, remembering, searching
from integration_tests.benchmarks.mem0_peer import mem0
from integration_tests.benchmarks.peers import Skipped
from integration_tests.benchmarks.timing import said, table
from integration_tests.benchmarks.vectors import DIMS
from langchain_memlayer.recall import memory_text

_COLUMNS = ("R@10", "R@1000t")
_USER = "user"


@dataclass(frozen=True, slots=True)
class Unit:
    """One memory.

    Attributes:
        sources: The turns that it was made from.
        text: What it says, which counts as context.
        searchable: What is embedded of it: its text with who said it and when, as `Memory` embeds it.
    """

    sources: frozenset[str]
    text: str
    searchable: str


def units_of(conversation: Any, units: str) -> list[Unit]:
    """The turns of a conversation and, with `units="both"`, its observations."""
    turns = [
        Unit(frozenset({turn.dia_id}), text, memory_text(text, name=turn.speaker or None, time=turn.date))
        for turn in conversation.turns
        for text in (message(turn)["content"],)
    ]
    if units == "turns":
        return turns
    return turns + [
        Unit(fact.dia_ids, fact.text, memory_text(fact.text, name=None, time=fact.date))
        for fact in conversation.observations
        if fact.dia_ids
    ]


# -- the systems ----------------------------------------------------------------------------------------------------

System = Callable[[Any, str, Embeddings, ExitStack], Search]


def _ours(conversation: Any, units: str, embeddings: Embeddings, stack: ExitStack) -> Search:
    return searching(stack.enter_context(remembering(conversation, units, embeddings)))


def _in_memory_store(conversation: Any, units: str, embeddings: Embeddings, stack: ExitStack) -> Search:
    from langgraph.store.base import PutOp
    from langgraph.store.memory import InMemoryStore

    known = units_of(conversation, units)
    store = InMemoryStore(index={"dims": DIMS, "embed": embeddings, "fields": ["text"]})
    store.batch([PutOp((_USER,), str(number), {"text": unit.searchable}) for number, unit in enumerate(known)])

    def search(question: str, k: int) -> list[tuple[set[str], str]]:
        found = [known[int(item.key)] for item in store.search((_USER,), query=question, limit=k)]
        return [(set(unit.sources), unit.text) for unit in found]

    return search


def _mem0(
    conversation: Any, units: str, embeddings: Embeddings, stack: ExitStack, *, kind: str, words: bool = False
) -> Search:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memlayer-bench-")))
    send = stack.enter_context(mem0(folder, kind=kind, embeddings=embeddings, words=words))
    given = units_of(conversation, units)
    ids = send(call="remember", texts=[unit.searchable for unit in given], user=_USER)["value"]
    known = dict(zip(ids, given, strict=True))

    def search(question: str, k: int) -> list[tuple[set[str], str]]:
        found = [known[key] for key in send(call="find", query=question, k=k, user=_USER)["value"]]
        return [(set(unit.sources), unit.text) for unit in found]

    return search


SYSTEMS: dict[str, System] = {
    "`Memory`": _ours,
    "LangGraph `InMemoryStore`": _in_memory_store,
    "mem0, as installed, on FAISS": partial(_mem0, kind="faiss"),
    "mem0 on Qdrant, with BM25 of lemmas": partial(_mem0, kind="qdrant", words=True),
}


def run(evidence: Evidence, note: Callable[[str], None]) -> Iterator[str]:
    """One table: a row for each system, figures for each file and its units."""
    yield f"{evidence.told()}.\n"
    head = ["system"]
    rows: dict[str, list[str]] = {name: [] for name in SYSTEMS}
    skipped: dict[str, str] = {}
    for data, units in evidence.settings():
        head += [f"{data}, {units}: {column}" for column in _COLUMNS]
        for name, system in SYSTEMS.items():
            with said(note, f"{name}: {data}, {units}"):
                try:
                    means = _measured(evidence, data, units, system)
                except Skipped as reason:
                    skipped[name] = str(reason)
                    rows[name] += ["-"] * len(_COLUMNS)
                else:
                    rows[name] += (figures := [f"{100 * means[column]:.1f}" for column in _COLUMNS])
                    note(f"{name}: {', '.join(figures)}")
    yield table(head, [[name, *row] for name, row in rows.items()])
    for name, reason in skipped.items():
        yield f"Skipped: {name} ({reason}).\n"


def _measured(evidence: Evidence, data: str, units: str, system: System) -> dict[str, float]:
    """The harness' means; what one conversation needs is given back before the next one comes."""
    with ExitStack() as every:

        def adapter(conversation: Any, units: str) -> Search:
            every.close()
            return system(conversation, units, evidence.embeddings, every)

        return evidence.evaluate(data, units, adapter)
