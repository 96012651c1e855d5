"""Benchmarks that print Markdown.

```sh
python -m integration_tests.benchmarks [raw store memory graph search store_figures conformance] [--rows 1000,100000]
python -m integration_tests.benchmarks store_figures --beside CHECKOUT --rows 2000,60000,200000
python -m integration_tests.benchmarks backends [--rows 10000,50000]
python -m integration_tests.benchmarks postgres [--rows 100000]
python -m integration_tests.benchmarks identifiers [--rows 5000] [--harness FILE]
python -m integration_tests.benchmarks recall recall_backends ablation one_folder learn --harness FILE --data FILE ...
```
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

# Before NumPy and FAISS are loaded. Everyone has one thread: threads that wait for each other count as CPU time.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_TITLES = {
    "raw": "MemLayerStore and raw FAISS",
    "store": "Stores",
    "memory": "Memory, keywords only",
    "graph": "Graphs of triples",
    "search": "Memory.search",
    "store_figures": "Memory beside another commit",
    "conformance": "Conformance",
}
_STORES = {
    "backends": "Memory over other backends",
    "postgres": "The journal in PostgreSQL",
    "identifiers": "Identifiers",
}
_SIZES = {
    "backends": "10000,50000",
    "graph": "20000,100000",
    "identifiers": "5000",
    "postgres": "100000",
    "store_figures": "2000,60000",
}
_EVIDENCE = {
    "recall": "Recall, beside others",
    "recall_backends": "Recall through other backends",
    "ablation": "Recall, one signal left out",
    "one_folder": "All conversations in one folder",
    "learn": "Trees over the signals",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m integration_tests.benchmarks")
    every = _TITLES | _STORES | _EVIDENCE
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which benchmarks: {', '.join(_TITLES)} (default: these), {', '.join(_STORES)}, "
        f"and, with a harness, {', '.join(_EVIDENCE)}",
    )
    parser.add_argument("--rows", help="sizes, separated by commas; each benchmark has its own")
    parser.add_argument("--beside", type=Path, help="a checkout of another commit, for store_figures")
    parser.add_argument("--harness", type=Path, help="an evidence-recall harness, a Python file")
    parser.add_argument("--data", type=Path, action="append", default=[], help="conversations for it; repeatable")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(every):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    names = arguments.names or list(_TITLES)
    evidence = _evidence(parser, arguments) if set(names) & set(_EVIDENCE) else None
    for name in names:
        print(f"## {every[name]}\n", flush=True)
        rows = arguments.rows or _SIZES.get(name, "1000,10000,100000")
        sizes = [int(size) for size in rows.split(",")]
        own = {"store_figures": {"beside": arguments.beside}, "identifiers": {"harness": arguments.harness}}
        parts: Iterator[str] = import_module(f"integration_tests.benchmarks.{name}").run(
            evidence if name in _EVIDENCE else sizes, _note, **own.get(name, {})
        )
        for part in parts:
            print(part, flush=True)


def _evidence(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> object:
    from integration_tests.benchmarks.evidence import Evidence, Missing

    try:
        return Evidence(arguments.harness, arguments.data)
    except Missing as problem:
        parser.exit(2, f"{problem}\n")


def _note(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
