"""`memlayer demo`: the whole path once, on a conversation that ships with the package, without any key.

First what was said is asked for, and again after closing and reopening the folder. Then a story is told to a memory
with a scripted model: a fact that changes, what it was, why it is believed, what is related to it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from langchain_memlayer.cli import show
from langchain_memlayer.cli.ingesting import batches, ingest
from langchain_memlayer.demo import Question, load, story
from langchain_memlayer.progress import bars

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from langchain_memlayer.memory import Memory

WITHIN = 5
"""An expected memory has come back when it is among so many first hits."""

SHOWN = 3
STORY_USER = "demo-story"

Report = dict[str, Any]
"""What `--json` prints: of the whole demo, of one question, of what reopening found, of the story."""


def run(path: Path | None, *, scope: Mapping[str, Any], embeddings: str | None, as_json: bool) -> bool:
    """Run the demo in a folder, or in a temporary one that is removed afterwards.

    Returns:
        Whether every expected memory came back, nothing was lost, and changes were understood.
    """
    with ExitStack() as stack:
        folder = path or Path(stack.enter_context(TemporaryDirectory(prefix="memlayer-demo-")))
        out = show.console(quiet=as_json)
        report = _run(folder, scope, embeddings, out)
        if as_json:
            show.print_json(report)
        _reopened(out, report)
        _story(out, report["story"], folder, kept=path is not None)
        _summary(out, report)
    return bool(report["good"])


def _run(folder: Path, scope: Mapping[str, Any], embeddings: str | None, out: Console) -> Report:
    from langchain_memlayer.memory import Memory

    turns, questions = load()
    _opening(out, folder, turns, len(questions))
    with Memory(folder, model=None, embeddings=embeddings) as memory:
        start = perf_counter()
        with bars(hidden=out.quiet) as progress:
            done = ingest(memory, batches(turns), scope, progress)
        seconds = perf_counter() - start
        before = _everything(memory, scope)
        _remembered(out, done.sentence(), len(before), seconds)
        answers = []
        for number, question in enumerate(questions, 1):
            answers.append(_ask(memory, question, scope))
            out.print(_answer(number, question, answers[-1]))
    start = perf_counter()
    with Memory(folder, model=None, embeddings=embeddings) as memory:
        again = [_ask(memory, questions[0], scope)]
        opened = perf_counter() - start
        again += [_ask(memory, question, scope) for question in questions[1:]]
        after = _everything(memory, scope)
    cited = {source for memory in after.values() for source in memory["sources"]}
    missing = [turn["id"] for turn in turns if turn["id"] not in cited]
    changed = [key for key, found in before.items() if after.get(key) != found]
    same = sum(one["hits"] == other["hits"] for one, other in zip(answers, again, strict=True))
    kept = len(after) == len(before) and same == len(answers) and not missing and not changed
    recalled, story_report = sum(answer["place"] is not None for answer in answers), _tell(folder, embeddings)
    return {
        "good": kept and recalled == len(answers) and story_report["good"],
        "folder": str(folder),
        "messages": done.messages,
        "sessions": done.sessions,
        "memories": len(before),
        "seconds": seconds,
        "recalled": recalled,
        "questions": answers,
        "reopened": {
            "kept": kept,
            "memories": len(after),
            "missing": missing,
            "changed": changed,
            "same_answers": same,
            "seconds": opened,
        },
        "story": story_report,
    }


def _ask(memory: Memory, question: Question, scope: Mapping[str, Any]) -> Report:
    start = perf_counter()
    hits = memory.search(question.text, **scope, limit=WITHIN)["results"]
    seconds = perf_counter() - start
    place = next((place for place, hit in enumerate(hits, 1) if _answers(question, hit)), None)
    return {
        "question": question.text, "expected": question.expected, "place": place, "seconds": seconds, "hits": hits
    }  # fmt: skip


def _answers(question: Question, hit: Mapping[str, Any]) -> bool:
    """Whether a hit is one of the expected memories."""
    return not set(question.expected).isdisjoint(hit["sources"])


def _everything(memory: Memory, scope: Mapping[str, Any]) -> dict[str, Any]:
    return {row["id"]: row for row in memory.get_all(**scope, limit=1_000_000)["results"]}


def _tell(folder: Path, embeddings: str | None) -> Report:
    """Tell the story to a memory with the scripted model, and ask it."""
    from langchain_memlayer.memory import Memory

    with Memory(folder, model=story.model(), embeddings=embeddings) as opened:
        memory = opened.of(user_id=STORY_USER)
        added = [
            memory.add(
                {"role": "user", "name": story.SPEAKER, "content": told.text},
                timestamp=told.time,
                session_id=told.time[:10],
                batch_id=told.time,
            )
            for told in story.STORY
        ]
        hits = {when: memory.search(story.QUESTION, limit=1, as_of=when)["results"][0] for when, _ in story.LIVED}
        home = hits[None]["id"]
        refused = [one["memory"] for result in added for one in result.get("rejected", ())]
        lived = {when: hit["memory"] for when, hit in hits.items()}
        return {
            # It knows where she lives and lived, and was not talked into what nobody said.
            "good": lived == dict(story.LIVED) and refused == ["Xiaoman owns a boat"],
            "added": added,
            "lived": {when or "now": place for when, place in lived.items()},
            "why": memory.why(home),
            "history": memory.history(home),
            "relations": memory.get_all(kinds=["fact"])["relations"],
        }


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
    out.print(
        "Each hit: its place, > where it answers; score (orders the hits), relevance (0 to 1, absolute), day, speaker.",
        style="dim",
    )
    out.print()


def _answer(number: int, question: Question, answer: Report) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(width=2, justify="right")
    head.add_column(ratio=1, overflow="fold")
    head.add_column(justify="right", no_wrap=True)
    head.add_row(str(number), show.text(question.text, "bold cyan"), _verdict(answer["place"]))
    head.add_row("", show.text(question.note, "dim italic"), show.text(f"{answer['seconds'] * 1e3:.1f} ms", "dim"))
    hits = Table.grid(expand=True, padding=(0, 1))
    for width in (4, 5, 5, 10, 7):
        hits.add_column(width=width, justify="right" if width < 7 else "left", no_wrap=True)
    hits.add_column(ratio=1, overflow="fold")
    for place, hit in enumerate(answer["hits"], 1):
        expected = _answers(question, hit)
        if place <= SHOWN or place == answer["place"]:
            style = "" if expected else "dim"
            memory = show.text(show.one_line(hit["memory"]), style)
            if place != answer["place"]:
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


def _verdict(place: int | None) -> Text:
    if place is None:
        return show.text("did not come back", "bold red")
    return show.text(f"came back at {place}", "bold green")


def _reopened(out: Console, report: Report) -> None:
    again, total = report["reopened"], len(report["questions"])
    same, memories, messages = again["same_answers"], report["memories"], report["messages"]
    out.rule(show.text("closed and reopened", "bold"), style="dim")
    _line(out, again["memories"] == memories, f"{again['memories']} of {memories} memories are there")
    if again["missing"] or again["changed"]:
        _line(out, False, f"lost: messages {again['missing']}, memories {again['changed']}")
    else:
        _line(out, True, f"each of the {messages} messages is the source of a memory, none reads differently")
    _line(out, same == total, f"{same} of {total} questions have the same hits with the same scores")
    out.print(f"  opening the folder and answering the first question: {again['seconds'] * 1e3:.0f} ms", style="dim")
    out.print()


def _story(out: Console, report: Report, folder: Path, *, kept: bool) -> None:
    out.rule(show.text("with a chat model: a fact that changes", "bold"), style="dim")
    out.print(
        "A scripted model stands in for one with a key. What it finds is checked against what was said.", style="dim"
    )
    out.print()
    for said, added in zip(story.STORY, report["added"], strict=True):
        out.print(_hanging(show.text(f"{said.time[:10]} ", "dim"), show.text(f"“{said.text}”", "cyan")))
        out.print(_decisions(added))
    out.print()
    out.print(show.text(story.QUESTION, "bold cyan"))
    for when, place in report["lived"].items():
        out.print(show.text(f"  {when if when == 'now' else f'as_of {when}':<18}", "dim") + show.text(place))
    out.print(show.text("Why is that believed?", "bold cyan"))
    for source in report["why"]["sources"]:
        out.print(f"  {source['name']} said “{source['quote']}” on {(source['time'] or '')[:10]}.")
    last = report["why"]["decisions"][-1]
    out.print(f"  Found by the prompt {last['prompt']}, decided by {last['by']}.", style="dim")
    out.print(show.text("What was it before?", "bold cyan"))
    out.print(_hanging(show.text(" "), show.text(" -> ".join(str(row["new_value"]) for row in report["history"]))))
    out.print(show.text("What is related to it?", "bold cyan"))
    out.print(show.relations(report["relations"], story.SPEAKER))
    out.print()
    if kept:
        command = "memlayer" if which("memlayer") else sys.argv[0]
        out.print(f"In the terminal: {command} list --path {folder} --user {STORY_USER}")
        out.print(f"In a browser: {command} serve --path {folder}")
        if find_spec("starlette") is None:
            out.print('  (with the extra `server`: pip install ".[server]")', style="dim")
        out.print()


def _decisions(added: Mapping[str, Any]) -> Table:
    rows = show.table(("", False), ("", False))
    rows.show_header = False
    rows.columns[0].min_width = 19
    for one in added["results"]:
        was = f"  (was: {one['previous_memory']})" if one.get("previous_memory") else ""
        rows.add_row(
            show.text(f"            {one['event']}", "green"), show.text(one["memory"]) + show.text(was, "dim")
        )
    for one in added.get("rejected", ()):
        reason = show.text(f"  ({one['reason']})", "dim")
        rows.add_row(show.text("            refused", "red"), show.text(one["memory"]) + reason)
    return rows


def _summary(out: Console, report: Report) -> None:
    total, kept = len(report["questions"]), report["reopened"]["kept"]
    out.rule(show.text("summary", "bold"), style="dim")
    first, *rest = (answer["seconds"] * 1e3 for answer in report["questions"])
    _line(out, report["recalled"] == total, f"{report['recalled']} of {total} questions got an expected memory back")
    _line(out, kept, "nothing was lost" if kept else "something was lost")
    _line(out, report["story"]["good"], "what changed is known with what it was before; what nobody said is not")
    usual = median(rest or [first])
    out.print(
        f"  a question took {usual:.1f} ms (median), the first one, which loads the index, {first:.0f} ms", style="dim"
    )


def _line(out: Console, good: bool, sentence: str) -> None:
    mark, style = ("ok", "bold green") if good else ("NO", "bold red")
    out.print(_hanging(show.text(mark, style), show.text(sentence)))


def _hanging(mark: Text, words: Text) -> Table:
    """Words behind a mark, their further lines below the first."""
    from rich.table import Table

    made = Table.grid(padding=(0, 1))
    made.add_row(mark, words)
    return made
