"""What an evaluation found, as values and as a report in Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from langchain_memlayer.evaluation.data import Question
from langchain_memlayer.evaluation.judging import Verdict
from langchain_memlayer.evaluation.metrics import (
    LEVEL,
    Estimate,
    difference,
    estimates,
    hit_at,
    ndcg_at,
    percentile,
    recall_at,
    recall_within,
    reciprocal_rank,
)

NDCG = 10
"""How many first hits nDCG looks at."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls of chat models, with tokens as the provider counted them; for `uncounted` of the calls it told none."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    uncounted: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Hit:
    """One hit of a question: the memory's text and tokens, and the ids of the turns and sessions that it comes from."""

    text: str
    turns: tuple[str, ...]
    sessions: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one question.

    Attributes:
        conversation: The id of the conversation.
        hits: What was recalled, best first.
        seconds: How long the search took.
        measures: The measures of the ranking by name; none when the question has no evidence.
        answer: The model's answer; None without a model, or when it failed.
        verdicts: What the judges say of the answer, by their names.
        beside: The measures of plain systems, by the names of these.
        error: Why there is no answer, when the model failed.
    """

    conversation: str
    question: Question
    hits: tuple[Hit, ...]
    seconds: float
    measures: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: str | None = None

    @property
    def failed(self) -> bool:
        """Whether a model gave nothing that could be used: no answer, or no verdict."""
        labels = [verdict.label for verdict in self.verdicts.values()]
        return self.error is not None or (bool(labels) and all(label == "error" for label in labels))


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What an evaluation found.

    Attributes:
        settings: What was evaluated and how, by name.
        outcomes: One for each question, in the order of the dataset.
        usage: The calls of chat models by what they were for: `remembering`, `answering`, `judging`.
        turns: How many turns were remembered.
        seconds: How long remembering them took.
        unresolved: Evidence that names no turn, and counts nowhere.
        experiment: The name of the LangSmith experiment, when there is one.
    """

    dataset: str
    settings: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    usage: Mapping[str, Usage]
    turns: int
    seconds: float
    unresolved: tuple[str, ...] = ()
    experiment: str | None = None

    @property
    def recall(self) -> dict[str, dict[str, Estimate]]:
        """The measures of the rankings by category and name, over the questions that have evidence."""
        return estimates((one.question.category, one.conversation, one.measures) for one in self.outcomes)

    @property
    def beside(self) -> dict[str, dict[str, Estimate]]:
        """By how much the measures are higher than those of each plain system, by its name and theirs."""
        measured = [one for one in self.outcomes if one.measures]
        conversations = [one.conversation for one in measured]
        return {
            system: {
                name: difference(
                    [one.measures[name] for one in measured],
                    [one.beside[system][name] for one in measured],
                    conversations,
                )
                for name in measures
            }
            for system, measures in (measured[0].beside if measured else {}).items()
        }

    @property
    def accuracy(self) -> dict[str, dict[str, Estimate]]:
        """The share of correct answers by category and judge, over all questions; a missing verdict is not correct."""
        return estimates(
            (one.question.category, one.conversation, {name: verdict.score for name, verdict in one.verdicts.items()})
            for one in self.outcomes
        )

    @property
    def errors(self) -> dict[str, int]:
        """How many verdicts of each judge are errors."""
        names = dict.fromkeys(name for one in self.outcomes for name in one.verdicts)
        return {name: sum(one.verdicts[name].label == "error" for one in self.outcomes) for name in names}

    def latency(self, share: float) -> float:
        """The seconds within which this share of the searches came back; .5 gives the median."""
        return percentile([one.seconds for one in self.outcomes], share)

    def to_markdown(self) -> str:
        """The report: tables with confidence intervals, settings, calls of models, latency."""
        parts = [f"# Memory evaluated on {_cell(self.dataset)}", *_recall(self), *_accuracy(self), *_cost(self)]
        parts += ["## Settings", _table(("setting", "value"), self.settings.items(), numbers=False)]
        if self.experiment is not None:
            parts.append(f"LangSmith experiment: {self.experiment}")
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "dataset": self.dataset,
            "settings": dict(self.settings),
            "recall": _plain(self.recall),
            "beside": _plain(self.beside),
            "accuracy": _plain(self.accuracy),
            "errors": self.errors,
            "usage": {name: asdict(usage) for name, usage in self.usage.items()},
            "turns": self.turns,
            "seconds": self.seconds,
            "latency": {"p50": self.latency(0.5), "p95": self.latency(0.95)},
            "unresolved": list(self.unresolved),
            "experiment": self.experiment,
            "questions": [_outcome(one) for one in self.outcomes],
        }


def measures(question: Question, hits: Sequence[Hit], *, k: Collection[int], max_tokens: int) -> dict[str, float]:
    """The measures of a ranking by name; none when the question has no evidence, or cannot be answered.

    Of the hits, best first, it looks at the first `k`, and at the first of together `max_tokens`.
    """
    values: dict[str, float] = {}
    if question.answerable and question.evidence:
        turns = [hit.turns for hit in hits]
        values |= {f"recall@{n}": recall_at(turns, question.evidence, n) for n in k}
        tokens = [hit.tokens for hit in hits]
        values[f"recall@{max_tokens}t"] = recall_within(turns, tokens, question.evidence, max_tokens)
        values |= {f"hit@{n}": hit_at(turns, question.evidence, n) for n in k}
        values["MRR"] = reciprocal_rank(turns, question.evidence)
        values[f"nDCG@{NDCG}"] = ndcg_at(turns, question.evidence, NDCG)
    if question.answerable and question.sessions:
        sessions = [hit.sessions for hit in hits]
        values |= {f"session recall@{n}": recall_at(sessions, question.sessions, n) for n in k}
    return values


def _plain(table: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    return {group: {name: asdict(value) for name, value in row.items()} for group, row in table.items()}


def _outcome(one: Outcome) -> dict[str, Any]:
    return {
        "id": one.question.id,
        "conversation": one.conversation,
        "question": one.question.text,
        "category": one.question.category,
        "reference": one.question.answer,
        "evidence": list(one.question.evidence),
        "answer": one.answer,
        "error": one.error,
        "verdicts": {name: asdict(verdict) for name, verdict in one.verdicts.items()},
        "measures": dict(one.measures),
        "seconds": one.seconds,
        "hits": [asdict(hit) for hit in one.hits],
    }


# -- the report -------------------------------------------------------------------------------------------------------


def _recall(result: EvaluationResult) -> Iterable[str]:
    estimates = result.recall
    if not estimates:
        return ["No question has evidence, so recall was not measured."]
    names = list(next(iter(estimates.values())))
    sections = {
        "## Evidence recall": ("recall",),
        "## Hit rate, mean reciprocal rank, nDCG": ("hit", "MRR", "nDCG"),
        "## Session recall": ("session",),
    }
    out = []
    for title, begin in sections.items():
        if columns := [name for name in names if name.startswith(begin)]:
            out += [title, _estimates(estimates, columns)]
    if beside := result.beside:
        names = [name for name in names if name.startswith(("recall", "nDCG"))]
        rows = [(system, *(_percent(row[name], "+") for name in names)) for system, row in beside.items()]
        out += [
            "## Beside plain systems",
            _table(("", *names), rows),
            "By how many points the memory is better on the same questions, with paired bootstrap intervals over "
            "conversations (over questions, where there is one).",
        ]
    left = sum(not one.measures for one in result.outcomes)
    notes = [
        "`recall@k`: the share of the turns that answer a question which the first k memories come from; "
        "`recall@Nt`: those within N tokens of them; `hit@k`: at least one of them; MRR: 1 over the first one's place; "
        "nDCG: all of them, discounted by place. "
        f"In %, with {LEVEL:.0%} confidence intervals (Wilson's score interval, wider than needed for shares; "
        "questions about one conversation count for fewer where they go together)."
    ]
    if left:
        notes.append(f"{left} questions without evidence are left out.")
    if result.unresolved:
        notes.append(f"In the file, {len(result.unresolved)} entries of evidence name no turn; they count nowhere.")
    return [*out, " ".join(notes)]


def _accuracy(result: EvaluationResult) -> Iterable[str]:
    estimates = result.accuracy
    if not estimates:
        return []
    names = list(next(iter(estimates.values())))
    errors = ", ".join(f"{count} ({name})" for name, count in result.errors.items())
    return [
        "## Answers judged correct",
        _estimates(estimates, names),
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


def _estimates(estimates: Mapping[str, Mapping[str, Estimate]], names: Sequence[str]) -> str:
    rows = []
    for group, row in estimates.items():
        if not any(name in row for name in names):
            continue
        shown = [_percent(row[name]) if name in row else "" for name in names]
        rows.append((group, str(max(row[name].count for name in names if name in row)), *shown))
    return _table(("", "questions", *names), rows)


def _percent(value: Estimate, sign: str = "") -> str:
    return f"{100 * value.mean:{sign}.1f} ({100 * value.low:{sign}.1f} to {100 * value.high:{sign}.1f})"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """A table; all columns but the first hold numbers, unless they don't."""
    rules = ["---", *(["---:" if numbers else "---"] * (len(titles) - 1))]
    lines = (titles, rules, *([_cell(value) for value in row] for row in rows))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A text that stays in its cell."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")
