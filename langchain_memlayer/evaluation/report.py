"""An evaluation's result as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from langchain_memlayer.evaluation.metrics import LEVEL, Estimate
from langchain_memlayer.evaluation.results import EvaluationResult, Usage


def markdown(result: EvaluationResult) -> str:
    """The report of a result."""
    parts = [f"# Memory evaluated on {_cell(result.dataset)}", *_recall(result), *_accuracy(result)]
    parts += [*_cost(result), "## Settings", _table(("setting", "value"), result.settings.items(), numbers=False)]
    if result.experiment is not None:
        parts.append(f"LangSmith experiment: {result.experiment}")
    return "\n\n".join(parts) + "\n"


def _recall(result: EvaluationResult) -> Iterable[str]:
    found = result.recall
    if not found:
        return ["No question has evidence, so recall was not measured."]
    names = list(next(iter(found.values())))
    sections = [
        ("## Evidence recall", [name for name in names if name.startswith("recall")]),
        ("## Hit rate and mean reciprocal rank", [name for name in names if name.startswith("hit") or name == "MRR"]),
        ("## Session recall", [name for name in names if name.startswith("session")]),
    ]
    out = []
    for title, columns in sections:
        if columns:
            out += [title, _estimates(found, columns)]
    left = sum(not one.measures for one in result.outcomes)
    notes = [
        "`recall@k`: the share of the turns that answer a question which the first k memories come from; "
        "`recall@Nt`: those within N tokens of them; `hit@k`: at least one of them; MRR: 1 over the first one's place. "
        f"In %, with {LEVEL:.0%} confidence intervals (Wilson's score interval, wider than needed for shares)."
    ]
    if left:
        notes.append(f"{left} questions without evidence are left out.")
    if result.unresolved:
        notes.append(f"In the file, {len(result.unresolved)} entries of evidence name no turn; they count nowhere.")
    return [*out, " ".join(notes)]


def _accuracy(result: EvaluationResult) -> Iterable[str]:
    found = result.accuracy
    if not found:
        return []
    names = list(next(iter(found.values())))
    errors = ", ".join(f"{count} ({name})" for name, count in result.errors.items())
    return [
        "## Answers judged correct",
        _estimates(found, names),
        f"Verdicts that are errors (no answer, or no readable verdict) count as not correct: {errors}.",
    ]


def _cost(result: EvaluationResult) -> Iterable[str]:
    calls = [(name, *_usage(usage)) for name, usage in result.usage.items() if usage.calls]
    p50, p95 = (1000 * result.latency(share) for share in (0.5, 0.95))
    titles = ("chat model", "calls", "tokens in", "tokens out")
    return [
        "## Cost",
        _table(titles, calls) if calls else "No chat model was called.",
        f"{result.turns:,} turns remembered in {result.seconds:.1f} s. A search took {p50:.1f} ms (median) and "
        f"{p95:.1f} ms (95 % of them took less), its query's embedding included.",
    ]


def _usage(usage: Usage) -> tuple[str, str, str]:
    counted = usage.calls - usage.uncounted
    if not counted:
        return f"{usage.calls:,}", "not told", "not told"
    of = f" (of {counted:,} calls)" if usage.uncounted else ""
    return f"{usage.calls:,}", f"{usage.input_tokens:,}{of}", f"{usage.output_tokens:,}{of}"


def _estimates(found: Mapping[str, Mapping[str, Estimate]], names: Sequence[str]) -> str:
    rows = []
    for group, row in found.items():
        if not any(name in row for name in names):
            continue
        shown = [_percent(row[name]) if name in row else "" for name in names]
        rows.append((group, str(max(row[name].count for name in names if name in row)), *shown))
    return _table(("", "questions", *names), rows)


def _percent(value: Estimate) -> str:
    return f"{100 * value.mean:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """A table; all columns but the first hold numbers, unless they don't."""
    rules = ["---", *(["---:" if numbers else "---"] * (len(titles) - 1))]
    lines = (titles, rules, *([_cell(value) for value in row] for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A text that stays in its cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
