"""Of the identifiers that questions name, how many find their note first, among notes of identifiers like them.

```sh
python -m integration_tests.benchmarks identifiers [--rows 5000] [--harness FILE]
```

With a harness (see `evidence.py`) MiniLM is measured too.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from integration_tests.benchmarks.locomo import minilm
from integration_tests.benchmarks.timing import said, table
from langchain_memlayer import Memory

ASKED = 200

_KINDS: dict[str, Callable[[Random], str]] = {
    "code": lambda rng: f"{rng.choice(('INV', 'ERR', 'PO', 'TCK'))}-{rng.randrange(10_000, 99_999)}",
    "number": lambda rng: str(rng.randrange(100_000, 9_999_999)),
    "version": lambda rng: f"v{rng.randrange(30)}.{rng.randrange(40)}.{rng.randrange(60)}",
    "path": lambda rng: (
        f"/srv/{rng.choice(('data', 'logs', 'www'))}/{rng.randrange(10_000)}/{rng.choice('abcdef')}.csv"
    ),
    "address": lambda rng: f"{rng.choice(('ann', 'bo', 'cy'))}.{rng.randrange(10_000)}@example.com",
    "name": lambda rng: f"{rng.choice(('unit', 'job', 'host'))}_{rng.randrange(10_000)}_{rng.choice('abcdef')}",
    "hash": lambda rng: f"{rng.randrange(1 << 28, 1 << 32):x}",
    "host": lambda rng: f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
}
_NOTES = (
    "{} was filed by {} and closed the week after.", "We looked into {} together with {}, it was urgent.",
    "{1} says that {0} has to be checked again.", "Nobody but {1} knows what became of {0}.",
)  # fmt: skip
_QUESTIONS = (
    "Who filed {}?", "What became of {}, was it urgent?", "Does {} have to be checked again?", "What about {}",
    "Tell me all that you know about {} and who closed it.",
)  # fmt: skip
_PEOPLE = ("Ingrid", "Tobias", "Farah", "Wendell", "Noriko")


def made(rows: int) -> tuple[list[str], list[tuple[str, str, str]]]:
    """As many notes, each of an identifier of its own, and what is asked: the kind, the question, the note."""
    rng, kinds = Random(11), list(_KINDS)
    names: dict[str, str] = {}
    while len(names) < rows:
        kind = kinds[len(names) % len(kinds)]
        names.setdefault(_KINDS[kind](rng), kind)
    notes = {name: rng.choice(_NOTES).format(name, rng.choice(_PEOPLE)) for name in names}
    asked = rng.sample(list(names), min(ASKED, rows))
    return list(notes.values()), [(names[one], rng.choice(_QUESTIONS).format(one), notes[one]) for one in asked]


def run(sizes: Sequence[int], note: Callable[[str], None], harness: Path | None = None) -> Iterator[str]:
    """A table of each size: a row for each embedder, the first hits that are right, of each kind."""
    embedders: dict[str, Any] = {"bundled": "wordllama", "none": None}
    if harness is not None:
        sys.path.insert(0, str(harness.resolve().parent))
        embedders = {"MiniLM": minilm(), **embedders}
    for rows in sizes:
        notes, asked = made(rows)
        of_kind = Counter(kind for kind, _, _ in asked)
        lines = []
        for name, embedder in embedders.items():
            with said(note, f"{rows} notes, {name}"), Memory(":memory:", model=None, embeddings=embedder) as memory:
                memory.add(notes, user_id="user", infer=False)
                right = Counter(
                    kind for kind, question, text in asked
                    if [hit["memory"] for hit in memory.search(question, user_id="user", limit=1)["results"]] == [text]
                )  # fmt: skip
            lines.append([name, f"{right.total()} of {len(asked)}", *(f"{right[k]} of {of_kind[k]}" for k in _KINDS)])
        yield f"{rows:,} notes.\n"
        yield table(["embedder", "first hits", *_KINDS], lines)
