"""How many cases of `StoreConformance` each store passes: ours, and those that come with LangGraph."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from integration_tests.benchmarks.timing import table
from langchain_memlayer.testing import StoreConformance

_CASES = Path(__file__).with_name("conformance_stores.py")
_STORES = {"TestMemLayerStore": "MemLayerStore", "TestInMemoryStore": "LangGraph InMemoryStore"}


def run(sizes: list[int], note: Callable[[str], None]) -> Iterator[str]:
    """A table of the parts of the contract, each with passed of all; the sizes do not matter here."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", str(_CASES), "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
             "--override-ini=addopts=", f"--junitxml={report}"],
            capture_output=True, check=False,
        )  # fmt: skip
        cases = ElementTree.parse(report).getroot().iter("testcase")
        parts = {
            name: part.__name__.removesuffix("Cases")
            for part in reversed(StoreConformance.__mro__)
            for name in vars(part)
            if name.startswith("test_")
        }
        results: dict[str, dict[str, Counter[str]]] = {}
        failed: dict[str, set[str]] = {}
        for case in cases:
            store = str(case.get("classname")).rpartition(".")[2]
            name = str(case.get("name")).partition("[")[0]
            outcomes = {child.tag for child in case} & {"failure", "error", "skipped"}
            outcome = "skipped" if outcomes == {"skipped"} else "failed" if outcomes else "passed"
            results.setdefault(parts[name], {}).setdefault(store, Counter())[outcome] += 1
            if outcome == "failed":
                failed.setdefault(store, set()).add(name)
    yield table(
        ["part of the contract", *_STORES.values()],
        [
            [part, *(_told(stores.get(store, Counter())) for store in _STORES)]
            for part, stores in sorted(results.items())
        ],
    )
    for store, names in failed.items():
        listed = ", ".join(f"`{name.removeprefix('test_')}`" for name in sorted(names))
        yield f"Failed by {_STORES[store]}: {listed}.\n"


def _told(count: Counter[str]) -> str:
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    return f"{count['passed']} of {count['passed'] + count['failed']}{skipped}"
