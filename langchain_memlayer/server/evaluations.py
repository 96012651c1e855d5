"""Evaluation runs side by side: what `memlayer eval --json` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException

_LONGEST: Final = 200_000_000
_MOST_COMPARED: Final = 4
_MOST_QUESTIONS: Final = 100
_ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one run.

    Attributes:
        text: The figure.
        range: Its confidence interval.
        count: How many questions it is the mean of.
        change: How it differs from the first run's.
        better: Whether that is better; None where it is neither.
    """

    text: str
    range: str = ""
    count: str = ""
    change: str = ""
    better: bool | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the name of its file, and what `EvaluationResult.to_dict` gave."""

    name: str
    found: Mapping[str, Any]

    def estimates(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """Means with their intervals, by group and measure: recall, then accuracy."""
        tables = (self.found.get("recall", {}), self.found.get("accuracy", {}))
        return {
            ("" if group == _ALL else group, measure): estimate
            for table in tables
            for group, row in table.items()
            for measure, estimate in row.items()
        }

    def verdicts(self) -> dict[str, tuple[str, bool]]:
        """Each question by its id: its text, and whether it was answered, or else found, well."""
        return {one["id"]: (one["question"], _is_good(one)) for one in self.found.get("questions", ())}


def files(folder: Path) -> list[str]:
    """The names of the files of runs in a folder, in order."""
    return sorted(file.name for file in folder.glob("*.json") if file.is_file())


def read(folder: Path, names: Sequence[str]) -> list[Run]:
    """The runs of some of these files, the first few.

    Raises:
        HTTPException: a file is none of a run.
    """
    known = files(folder)
    return [_read(folder / name) for name in list(dict.fromkeys(names))[:_MOST_COMPARED] if name in known]


def _read(file: Path) -> Run:
    try:
        content = orjson.loads(file.read_bytes()) if file.stat().st_size < _LONGEST else None
    except (OSError, orjson.JSONDecodeError):
        content = None
    if not isinstance(content, dict) or not {"dataset", "recall", "questions"} <= content.keys():
        raise HTTPException(422, f"{file.name} is no evaluation run; `memlayer eval ... --json` writes one.")
    return Run(file.name.removesuffix(".json"), content)


def table(runs: Sequence[Run]) -> Iterable[tuple[str, str, list[Cell | None]]]:
    """The rows of a comparison: the group ("" for all questions), the measure, and each run's figure."""
    yield "", "dataset", [Cell(str(run.found["dataset"])) for run in runs]
    yield "", "turns remembered", [Cell(f"{run.found.get('turns', 0):,}") for run in runs]
    medians = [run.found.get("latency", {}).get("p50") for run in runs]
    yield "", "search, median", [None if one is None else Cell(f"{1000 * one:.1f} ms") for one in medians]
    estimates = [run.estimates() for run in runs]
    for key in dict.fromkeys(key for one in estimates for key in one):
        yield *key, [_cell(one.get(key), estimates[0].get(key)) for one in estimates]


def _cell(one: Mapping[str, Any] | None, first: Mapping[str, Any] | None) -> Cell | None:
    if one is None:
        return None
    text = f"{100 * one['mean']:.1f} %"
    spread, count = f"{100 * one['low']:.1f} - {100 * one['high']:.1f}", f"n = {one['count']:,}"
    if first is None or one is first:
        return Cell(text, spread, count)
    change = 100 * (one["mean"] - first["mean"])
    return Cell(text, spread, count, f"{change:+.1f}", None if abs(change) < 0.05 else change > 0)


def differing(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The first questions that some runs answered, or found, and others did not."""
    verdicts = [run.verdicts() for run in runs]
    shared = [key for key in verdicts[0] if all(key in one for one in verdicts)] if verdicts else []
    apart = (key for key in shared if len({one[key][1] for one in verdicts}) > 1)
    names = [run.name for run in runs]
    return [
        {"question": verdicts[0][key][0], "verdicts": list(zip(names, (one[key][1] for one in verdicts), strict=True))}
        for key in islice(apart, _MOST_QUESTIONS)
    ]


def _is_good(question: Mapping[str, Any]) -> bool:
    """By the judges where there are some, else whether all of the evidence was among the hits."""
    if verdicts := question.get("verdicts"):
        return all(verdict["label"] == "correct" for verdict in verdicts.values())
    recalls = [value for name, value in question.get("measures", {}).items() if name.startswith("recall@")]
    return bool(recalls) and max(recalls) >= 1
