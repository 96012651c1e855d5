"""Whether recall is the same through PostgreSQL and through Chroma, also where these are asked for candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from integration_tests.benchmarks.evidence import Evidence
from integration_tests.benchmarks.locomo import (
    LARGE,
    Search,
    in_chroma,
    in_postgres,
    remembering,
    searching,
    searching_large,
)
from integration_tests.benchmarks.timing import said, table
from langchain_memlayer import Memory

_COLUMNS = ("R@10", "R@1000t")
_BACKENDS: dict[str, tuple[Callable[..., Memory], dict[str, Any]]] = {
    "our own": (remembering, LARGE),
    "PostgreSQL's": (in_postgres, LARGE),
    "Chroma's": (in_chroma, LARGE),
}
"""What opens a memory, and with what it counts as a large one."""


def run(evidence: Evidence, note: Callable[[str], None]) -> Iterator[str]:
    """One table for each file and its units: as it is, and as if conversations were large scopes."""
    yield f"{evidence.told()}.\n"
    for name, units in evidence.settings():
        lines = []
        for setting, enlarged in (("as it is", False), ("as if large", True)):
            whole: dict[str, float] = {}
            for backend, (remembered, settings) in _BACKENDS.items():
                with said(note, f"{name}, {units}, {setting}, {backend}"):
                    means, counts = _measured(evidence, name, units, remembered, settings if enlarged else None)
                whole = whole or means
                figures = [_told(means[column], whole[column]) for column in _COLUMNS]
                ways = ", ".join(f"{way}: {count:,}" for way, count in counts.items()) or "all were scored"
                lines.append([setting, backend, *figures, ways])
        yield f"`{name}`, {units}:\n"
        yield table(["scopes", "index", *_COLUMNS, "the nearest by"], lines)


def _measured(
    evidence: Evidence, name: str, units: str, remembered: Callable[..., Memory], large: dict[str, Any] | None
) -> tuple[dict[str, float], Counter[str]]:
    """The harness' means, and how the nearest vectors were found."""
    counts: Counter[str] = Counter()
    with ExitStack() as every:

        def adapter(conversation: Any, units: str) -> Search:
            every.close()
            memory = every.enter_context(remembered(conversation, units, evidence.embeddings, **(large or {})))
            return searching(memory) if large is None else searching_large(memory, counts)

        return evidence.evaluate(name, units, adapter), counts


def _told(value: float, whole: float) -> str:
    return f"{100 * value:.1f} ({100 * (value - whole):+.1f})"
