"""An evidence-recall harness and its conversations: neither is part of this project, the user gives their paths."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any

from integration_tests.benchmarks.locomo import Search, minilm

Adapter = Callable[[Any, str], Search]

_HARNESS = """--harness FILE names a Python module with
  load(path)                                   -> conversations, each with id, turns, observations and questions
  evaluate(conversations, adapter, units)      -> {"all": {"R@10": ..., "R@1000t": ..., ...}, ...}, shares from 0 to 1
and beside it minilm.py with a class MiniLM, an `Embeddings` of 384 dimensions. integration_tests/benchmarks/locomo.py
shows what an adapter is and which fields of a conversation are read."""


class Missing(Exception):
    """The harness or its data is not there; the message says what to give."""


class Evidence:
    """A harness with its data.

    Args:
        harness: Its Python file.
        data: Files of conversations that it can load.

    Attributes:
        embeddings: MiniLM, with what it has embedded kept in memory.

    Raises:
        Missing: one of them is not there.
    """

    def __init__(self, harness: Path | None, data: Sequence[Path]) -> None:
        if harness is None or not harness.is_file():
            raise Missing(f"{'no harness was given' if harness is None else f'there is no {harness}'}: {_HARNESS}")
        if not data:
            raise Missing("no data was given: --data FILE names a file that the harness loads; it may be repeated")
        if missing := [str(file) for file in data if not file.is_file()]:
            raise Missing(f"there is no {', '.join(missing)}: --data FILE names a file that the harness loads")
        sys.path.insert(0, str(harness.resolve().parent))
        self._module: Any = import_module(harness.stem)
        if unknown := [name for name in ("load", "evaluate") if not hasattr(self._module, name)]:
            raise Missing(f"{harness} has no {' and no '.join(unknown)}: {_HARNESS}")
        try:
            self.embeddings = minilm()
        except ImportError as problem:
            raise Missing(f"MiniLM cannot be loaded ({problem}): {_HARNESS}") from problem
        self._digests = [blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in data]
        self.data = {file.stem: self._module.load(file) for file in data}

    def settings(self) -> list[tuple[str, str]]:
        """The names of the files with the units that make sense for each: without observations only turns."""
        return [
            (name, units)
            for name, conversations in self.data.items()
            for units in ("both", "turns")
            if units == "turns" or any(conversation.observations for conversation in conversations)
        ]

    def evaluate(self, name: str, units: str, adapter: Adapter) -> dict[str, float]:
        """The harness' means over all questions of a file, shares from 0 to 1."""
        means: dict[str, float] = self._module.evaluate(self.data[name], adapter, units)["all"]
        return means

    def by_conversation(self, name: str, units: str, adapter: Adapter) -> dict[str, dict[str, float]]:
        """The same means for each conversation of a file, by its id, with `n`, the number of its questions."""
        return {one.id: self._module.evaluate([one], adapter, units)["all"] for one in self.data[name]}

    def digest(self) -> str:
        """What tells whether the files are the same ones."""
        return " ".join(self._digests)

    def told(self) -> str:
        """What is measured, in one line."""
        return "; ".join(
            f"`{name}`: {len(conversations)} conversations, {sum(len(c.questions) for c in conversations)} questions"
            for name, conversations in self.data.items()
        )
