"""`python -m integration_tests.benchmarks [raw store memory conformance] [--rows 1000,100000]` prints Markdown."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module

# Before NumPy and FAISS are loaded. Everyone has one thread: threads that wait for each other count as CPU time.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_TITLES = {
    "raw": "MemLayerStore and raw FAISS",
    "store": "Stores",
    "memory": "Memory, keywords only",
    "conformance": "Conformance",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m integration_tests.benchmarks")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which benchmarks: {', '.join(_TITLES)} (default: all)"
    )
    parser.add_argument("--rows", default="1000,10000,100000", help="sizes, separated by commas")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.rows.split(",")]
    if unknown := set(arguments.names) - set(_TITLES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(_TITLES)}")
    for name in arguments.names or _TITLES:
        print(f"## {_TITLES[name]}\n", flush=True)
        for part in import_module(f"integration_tests.benchmarks.{name}").run(sizes, _note):
            print(part, flush=True)


def _note(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
