"""How results look: JSON for programs, and tables that fit a terminal and survive a pipe."""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from langchain_memlayer.errors import MemoryNotFound, shown
from langchain_memlayer.json_values import as_text
from langchain_memlayer.types import IDS, Scope

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from rich.tree import Tree

    from langchain_memlayer.result_types import Profile, Relation

Result = dict[str, Any]
PIPE_WIDTH = 100
_EVENTS = {"ADD": "added", "UPDATE": "updated", "DELETE": "ended", "NONE": "there already"}


def result(as_json: bool, value: Any, pretty: Callable[[Console], None]) -> None:
    """Print a value as JSON, or in the way that suits it."""
    if as_json:
        print_json(value)
    else:
        pretty(console())


def print_json(value: Any) -> None:
    """One JSON document on stdout, in UTF-8 whatever the terminal has."""
    # Not by orjson, which stops at 64 bits.
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False).encode())


def console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console without markup in what it is given; in a pipe without control codes and `PIPE_WIDTH` columns wide."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        # A terminal of another encoding shows question marks rather than nothing.
        stream.reconfigure(errors="replace")
    width = None if stream is None or stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(stderr=stderr, width=width, quiet=quiet, highlight=False, markup=False, emoji=False)


def clean(text: str) -> str:
    """`text` without control characters: a remembered escape sequence must not steer the terminal."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def one_line(text: str) -> str:
    """`text` on one line."""
    return clean(" ".join(text.split()))


def text(value: str, style: str = "") -> Text:
    """Remembered text in a style."""
    from rich.text import Text

    return Text(clean(value), style=style)


def scope(ids: Mapping[str, str]) -> str:
    """Whose memory, in words: `user alice, agent bob`."""
    return ", ".join(f"{name.removesuffix('_id')} {value}" for name, value in ids.items())


def unknown(memory_id: str) -> MemoryNotFound:
    """The error of an id that no memory ever had."""
    return MemoryNotFound(
        f"There was never a memory with the id {shown(memory_id)}; `memlayer list` shows the ids there are."
    )


def counted(number: int, noun: str) -> str:
    """How many of something, in words: "1 turn", "2 turns"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(*columns: tuple[str, bool]) -> Table:
    """A table without lines; each column has a title and says whether it holds numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title, number in columns:
        made.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return made


def relations(triples: Sequence[Relation], root: str, drawn: set[str] | None = None) -> Tree:
    """The relations around an entity as a tree; each name branches once, and not at all where it is `drawn` already."""
    from rich.tree import Tree

    leaving: dict[str, list[Relation]] = {}
    for triple in triples:
        leaving.setdefault(triple["source"], []).append(triple)
    tree = Tree(text(root, "bold"), guide_style="dim")
    around = [(root, tree)]
    drawn = set() if drawn is None else drawn
    drawn.add(root)
    for name, branch in around:
        for triple in leaving.get(name, ()):
            relation = triple["relationship"].replace("_", " ")
            leaf = branch.add(text(f"{relation} ", "dim") + text(triple["destination"], "bold"))
            if triple["destination"] not in drawn:
                drawn.add(triple["destination"])
                around.append((triple["destination"], leaf))
    return tree


# -- memories ---------------------------------------------------------------------------------------------------------


def hits(out: Console, results: Sequence[Result]) -> None:
    """The hits of a search, best first."""
    if not results:
        out.print("Nothing found.")
        return
    rows = table(("", True), ("score", True), ("relevance", True), ("memory", False))
    for number, hit in enumerate(results, 1):
        shown = _memory(hit)
        shares = sorted(hit.get("explanation", {}).items(), key=lambda share: -abs(share[1]))
        if spoken := [f"{name} {share:+.3f}" for name, share in shares if abs(share) >= 0.0005]:
            shown.append("\n" + " ".join(spoken), style="dim")
        rows.add_row(str(number), f"{hit['score']:.3f}", f"{hit['relevance']:.3f}", shown)
    out.print(rows)


def memories(out: Console, results: Sequence[Result], limit: int = 0, offset: int = 0) -> None:
    """One page of a list, or some memories."""
    if not results:
        out.print("No memories." if offset == 0 else f"No memories after the first {offset}.")
        return
    rows = table(("", True), ("memory", False))
    for number, memory in enumerate(results, offset + 1):
        rows.add_row(str(number), _memory(memory, owner=True))
    out.print(rows)
    _more(out, results, limit, offset)


def _more(out: Console, shown: Sequence[Result], limit: int, offset: int) -> None:
    if len(shown) == limit:
        out.print(f"There may be more: --offset {offset + limit}", style="dim")


def scopes(out: Console, sizes: Sequence[Result], limit: int, offset: int) -> None:
    """Whose memories there are."""
    if not sizes:
        out.print("There are no memories.")
        return
    rows = table(("whose", False), ("facts", True), ("turns", True), ("last written", True))
    for one in sizes:
        whose = text(scope({name: one[name] for name in IDS if one[name] is not None}))
        rows.add_row(whose, f"{one['facts']:,}", f"{one['turns']:,}", one["updated_at"][:19].replace("T", " "))
    out.print(rows)
    _more(out, sizes, limit, offset)


def _memory(memory: Result, *, owner: bool = False) -> Text:
    # Of a fork it shows whose it is a copy of: the fork itself was asked for.
    ids = Scope(*(memory[name] for name in IDS)).original.ids() if owner else {}
    about = [memory["created_at"][:10], memory["name"] or memory["role"], memory["kind"], scope(ids), memory["id"]]
    shown = text(memory["memory"])
    shown.append(clean("\n" + " · ".join(filter(None, about))), style="dim")
    return shown


def added(out: Console, outcome: Result) -> None:
    """What an add committed, what was refused, and what was left out."""
    if outcome["results"]:
        rows = table(("event", False), ("id", True), ("memory", False))
        for row in outcome["results"]:
            rows.add_row(_EVENTS[row["event"]], text(row["id"], "dim"), text(row["memory"]))
        out.print(rows)
    else:
        out.print("Kept; there is no new fact in it.")
    for refused in outcome.get("rejected", ()):
        out.print(text(f"refused: {refused['memory']} ({refused['reason']})", "yellow"))
    for skipped in outcome.get("skipped", ()):
        out.print(text(f"left out: {skipped['part']}", "yellow"))


def event_counts(counts: Counter[str]) -> str:
    """How often each event happened, in words."""
    return ", ".join(f"{counts[event]:,} {word}" for event, word in _EVENTS.items() if counts[event])


def history(out: Console, rows: Sequence[Result]) -> None:
    """The events of a memory."""
    shown = table(("id", True), ("when", True), ("event", False), ("text", False))
    for row in rows:
        gone = "" if row["is_deleted"] else "(forgotten)"
        became = text(gone, "dim") if row["new_value"] is None else text(row["new_value"])
        shown.add_row(row["id"], row["timestamp"][:19].replace("T", " "), row["event"].lower(), became)
    out.print(shown)


def why(out: Console, answer: Result) -> None:
    """Where a memory comes from, and what was decided about it."""
    out.print(text(answer["memory"], "bold"))
    sources = table(("said", True), ("by", False), ("words", False))
    for source in answer["sources"]:
        words = text(source["quote"] or source["text"] or "(not kept)")
        if source["text"] and source["quote"] and source["text"] != source["quote"]:
            words.append(clean(f"\nin: {source['text']}"), style="dim")
        sources.add_row((source["time"] or "")[:10], text(source["name"] or source["role"] or ""), words)
    out.print(sources)
    decisions = table(("when", True), ("decision", False), ("by", False), ("why", False))
    for event in answer["decisions"]:
        reason = event.get("reason") or event["new_value"] or ""
        when = event["timestamp"][:19].replace("T", " ")
        decisions.add_row(when, event["event"], text(event["actor"] or ""), text(reason))
    out.print(decisions)


def profile(out: Console, answer: Profile) -> None:
    """What is known of a user, and what of it the schema does not take."""
    if answer.behind:
        out.print(text("It has not taken in all facts yet; the next reading does.", "yellow"))
    if not answer.fields:
        out.print("Nothing is known of this user yet.")
    rows = table(("field", False), ("value", False), ("since", True), ("from", False))
    for name, field in answer.fields.items():
        facts = text("\n".join(field["facts"]), "dim") if field["facts"] else text("by hand")
        rows.add_row(text(name), text(as_text(field["value"])), field["updated_at"][:10], facts)
    if answer.fields:
        out.print(rows)
    for problem in answer.problems:
        out.print(text(f"{problem['field'] or 'the profile'}: {problem['reason']}", "yellow"))


def profile_history(out: Console, rows: Sequence[Result]) -> None:
    """Each change of each field of a profile."""
    if not rows:
        out.print("Nothing was ever known of this user.")
        return
    shown = table(("id", True), ("when", True), ("field", False), ("before", False), ("after", False))
    for row in rows:
        before, after = (text("-" if row[side] is None else as_text(row[side])) for side in ("before", "after"))
        shown.add_row(row["event_id"], row["timestamp"][:19].replace("T", " "), text(row["field"]), before, after)
    out.print(shown)


def graph(out: Console, triples: Sequence[Relation]) -> None:
    """Relations as trees, from the names of which most is told."""
    if not triples:
        out.print("No relations.")
        return
    drawn: set[str] = set()
    for source, _ in Counter(triple["source"] for triple in triples).most_common():
        if source not in drawn:
            out.print(relations(triples, source, drawn))


def unread(out: Console, calls: Sequence[Result]) -> None:
    """What was kept and not read."""
    if not calls:
        out.print("Everything was read.")
        return
    rows = table(("tried", True), ("next", True), ("why not", False), ("said", False))
    for call in calls:
        after = "set aside" if call["set_aside"] else call["next_at"][:19].replace("T", " ")
        said = "\n".join(turn["memory"] for turn in call["turns"])
        rows.add_row(str(call["attempts"]), after, text(call["reason"] or ""), text(said))
    out.print(rows)


# -- the folder -------------------------------------------------------------------------------------------------------


def done(out: Console, outcome: Result) -> None:
    """What a delete or forget says."""
    count = f" ({outcome['count']})" if "count" in outcome else ""
    out.print(outcome["message"] + count)


def stats(out: Console, answer: Result) -> None:
    """The counts of a folder."""
    rows = table(("", False), ("", False))
    rows.show_header = False
    embedder = answer["embedder"]
    shown = {
        **answer,
        "embedder": f"{embedder['name']} ({embedder['dims']} numbers)" if embedder else "none yet",
        "bytes": size(answer["bytes"]),
    }
    for name, value in shown.items():
        rows.add_row(text(name.replace("_", " "), "dim"), text(f"{value:,}" if isinstance(value, int) else value))
    out.print(rows)


def size(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 1_000_000:.1f} MB" if count >= 100_000 else f"{count / 1_000:.1f} kB"


def problems(out: Console, answer: Result) -> None:
    """What the doctor found."""
    if not answer["problems"]:
        out.print(text("ok ", "bold green") + text(f"nothing is wrong with {answer['path']}"))
        return
    rows = table(("rule", True), ("problem", False))
    for problem in answer["problems"]:
        rows.add_row(text(problem["rule"], "bold red"), text(problem["message"]))
    out.print(rows)
    if any(problem["rebuildable"] for problem in answer["problems"]):
        out.print("What can be rebuilt: memlayer doctor --rebuild", style="dim")
