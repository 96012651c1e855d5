"""`memlayer demo`: the whole path once, on a conversation that ships with the package, without any key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from langchain_memlayer.cli import show, storytelling
from langchain_memlayer.cli.ingesting import batches, ingest
from langchain_memlayer.demo import Question, load
from langchain_memlayer.progress import bars

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from langchain_memlayer.memory import Memory

WITHIN = 5
"""An expected memory has come back when it is among so many first hits."""

SHOWN = 3

Hit = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one question, after how many seconds."""

    question: Question
    hits: Sequence[Hit]
    seconds: float

    @property
    def place(self) -> int | None:
        """The place (1 is the first) of the best expected memory, or None when none came back."""
        return next((place for place, hit in enumerate(self.hits, 1) if self.answers(hit)), None)

    def answers(self, hit: Hit) -> bool:
        """Whether a hit is one of the expected memories."""
        return not set(self.question.expected).isdisjoint(hit["sources"])


@dataclass(frozen=True, slots=True)
class Reopened:
    """What was found after closing and reopening the folder.

    Attributes:
        memories: How many memories there are.
        missing: Ids of messages of the conversation that no memory has.
        changed: Ids of memories that are gone or read differently than before.
        answers: How many questions have the same hits, in the same order with the same scores, as before.
        seconds: How long opening and the first answer took.
    """

    memories: int
    missing: list[str]
    changed: list[str]
    answers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """The whole demo."""

    folder: str
    messages: int
    sessions: int
    memories: int
    seconds: float
    answers: list[Answer]
    reopened: Reopened
    story: storytelling.Story

    @property
    def recalled(self) -> int:
        """How many questions got an expected memory back."""
        return sum(answer.place is not None for answer in self.answers)

    @property
    def kept(self) -> bool:
        """Whether nothing was lost."""
        again = self.reopened
        same = again.memories == self.memories and again.answers == len(self.answers)
        return same and not again.missing and not again.changed

    @property
    def good(self) -> bool:
        """Whether every expected memory came back, nothing was lost, and changes were understood."""
        return self.kept and self.recalled == len(self.answers) and self.story.good


def run(path: Path | None, *, scope: Mapping[str, Any], embeddings: str | None, as_json: bool) -> bool:
    """Run the demo in a folder, or in a temporary one that is removed afterwards; says whether all went well."""
    with ExitStack() as stack:
        folder = path or Path(stack.enter_context(TemporaryDirectory(prefix="memlayer-demo-")))
        out = None if as_json else show.console()
        report = _run(folder, scope, embeddings, out)
        if out is None:
            show.print_json(_as_dict(report))
        else:
            _reopened(out, report)
            storytelling.shown(out, report.story, folder, kept=path is not None)
            _summary(out, report)
    return report.good


def _run(folder: Path, scope: Mapping[str, Any], embeddings: str | None, out: Console | None) -> Report:
    from langchain_memlayer.memory import Memory

    turns, questions = load()
    if out is not None:
        _opening(out, folder, turns, len(questions))
    with Memory(folder, model=None, embeddings=embeddings) as memory:
        start = perf_counter()
        with bars(hidden=out is None) as progress:
            done = ingest(memory, batches(turns), scope, progress)
        seconds = perf_counter() - start
        before = _everything(memory, scope)
        if out is not None:
            _remembered(out, done.sentence(), len(before), seconds)
        answers = []
        for question in questions:
            answers.append(_ask(memory, question, scope))
            if out is not None:
                out.print(_answer(len(answers), answers[-1]))
    start = perf_counter()
    with Memory(folder, model=None, embeddings=embeddings) as memory:
        again = [_ask(memory, questions[0], scope)]
        opened = perf_counter() - start
        again += [_ask(memory, question, scope) for question in questions[1:]]
        after = _everything(memory, scope)
    cited = {source for memory in after.values() for source in memory["sources"]}
    reopened = Reopened(
        memories=len(after),
        missing=[turn["id"] for turn in turns if turn["id"] not in cited],
        changed=[key for key, found in before.items() if after.get(key) != found],
        answers=sum(one.hits == other.hits for one, other in zip(answers, again, strict=True)),
        seconds=opened,
    )
    told = storytelling.tell(folder, embeddings)
    return Report(str(folder), done.messages, done.sessions, len(before), seconds, answers, reopened, told)


def _ask(memory: Memory, question: Question, scope: Mapping[str, Any]) -> Answer:
    start = perf_counter()
    hits = memory.search(question.text, **scope, limit=WITHIN)["results"]
    return Answer(question, hits, perf_counter() - start)


def _everything(memory: Memory, scope: Mapping[str, Any]) -> dict[str, Hit]:
    page = 1_000
    found: dict[str, Hit] = {}
    while len(found) % page == 0:
        results = memory.get_all(**scope, limit=page, offset=len(found))["results"]
        if not results:
            break
        found.update((result["id"], result) for result in results)
    return found


# -- what is printed --------------------------------------------------------------------------------------------------


def _opening(out: Console, folder: Path, turns: Sequence[Mapping[str, str]], questions: int) -> None:
    names = list(dict.fromkeys(turn["name"] for turn in turns))
    out.rule(show.text("memlayer demo", "bold"), style="dim")
    out.print(
        f"{len(turns)} messages of {', '.join(names[:-1])} and {names[-1]}, {turns[0]['timestamp'][:10]} to "
        f"{turns[-1]['timestamp'][:10]}, go into {folder}. Then {questions} questions: did a memory that answers come "
        f"back among the first {WITHIN}?"
    )
    out.print()


def _remembered(out: Console, sentence: str, memories: int, seconds: float) -> None:
    out.print(show.text("Remembered ", "bold green") + show.text(sentence))
    out.print(f"{memories} memories in {seconds:.2f} s, each commit on disk before the next.", style="dim")
    out.print()
    out.print("Each hit: its place, score (orders the hits), relevance (0 to 1, absolute), day, speaker.", style="dim")
    out.print()


def _answer(number: int, answer: Answer) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(width=2, justify="right")
    head.add_column(ratio=1, overflow="fold")
    head.add_column(justify="right", no_wrap=True)
    head.add_row(str(number), show.text(answer.question.text, "bold cyan"), _verdict(answer))
    head.add_row("", show.text(answer.question.note, "dim italic"), show.text(f"{answer.seconds * 1e3:.1f} ms", "dim"))
    hits = Table.grid(expand=True, padding=(0, 1))
    for width in (4, 5, 5, 10, 7):
        hits.add_column(width=width, justify="right" if width < 7 else "left", no_wrap=True)
    hits.add_column(ratio=1, overflow="fold")
    for place, hit in enumerate(answer.hits, 1):
        expected = answer.answers(hit)
        if place <= SHOWN or place == answer.place:
            style = "" if expected else "dim"
            memory = show.text(show.one_line(hit["memory"]), style)
            if place != answer.place:
                memory.no_wrap, memory.overflow = True, "ellipsis"
            hits.add_row(
                show.text(f"{'>' if expected else ' '} {place}", "bold green" if expected else "dim"),
                show.text(f"{hit['score']:.3f}", style),
                show.text(f"{hit['relevance']:.3f}", style),
                show.text(hit["created_at"][:10], style),
                show.text(hit["name"] or hit["role"] or "", style),
                memory,
            )
    return Group(head, hits, "")


def _verdict(answer: Answer) -> Text:
    if answer.place is None:
        return show.text("did not come back", "bold red")
    return show.text(f"came back at {answer.place}", "bold green")


def _reopened(out: Console, report: Report) -> None:
    again, total = report.reopened, len(report.answers)
    out.rule(show.text("closed and reopened", "bold"), style="dim")
    _line(out, again.memories == report.memories, f"{again.memories} of {report.memories} memories are there")
    if again.missing or again.changed:
        _line(out, False, f"lost: messages {again.missing}, memories {again.changed}")
    else:
        _line(out, True, f"each of the {report.messages} messages is the source of a memory, none reads differently")
    _line(out, again.answers == total, f"{again.answers} of {total} questions have the same hits with the same scores")
    out.print(f"  opening the folder and answering the first question: {again.seconds * 1e3:.0f} ms", style="dim")
    out.print()


def _summary(out: Console, report: Report) -> None:
    total = len(report.answers)
    out.rule(show.text("summary", "bold"), style="dim")
    first, *rest = (answer.seconds * 1e3 for answer in report.answers)
    _line(out, report.recalled == total, f"{report.recalled} of {total} questions got an expected memory back")
    _line(out, report.kept, "nothing was lost" if report.kept else "something was lost")
    _line(out, report.story.good, "a fact that changed is known with what it was before, and what nobody said is not")
    out.print(
        f"  a question took {median(rest):.1f} ms (median), the first one, which loads the index, {first:.0f} ms",
        style="dim",
    )


def _line(out: Console, good: bool, sentence: str) -> None:
    mark, style = ("ok", "bold green") if good else ("NO", "bold red")
    out.print(show.text(f"{mark} ", style) + show.text(sentence))


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "good": report.good,
        "folder": report.folder,
        "messages": report.messages,
        "sessions": report.sessions,
        "memories": report.memories,
        "seconds": report.seconds,
        "recalled": report.recalled,
        "questions": [
            {
                "question": answer.question.text,
                "expected": answer.question.expected,
                "place": answer.place,
                "seconds": answer.seconds,
                "hits": answer.hits,
            }
            for answer in report.answers
        ],
        "reopened": {
            "kept": report.kept,
            "memories": report.reopened.memories,
            "missing": report.reopened.missing,
            "changed": report.reopened.changed,
            "same_answers": report.reopened.answers,
            "seconds": report.reopened.seconds,
        },
        "story": report.story.as_dict(),
    }
