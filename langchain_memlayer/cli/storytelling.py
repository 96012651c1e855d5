"""The second half of `memlayer demo`: a fact that changes, what it was, why it is believed, what is related to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_memlayer.cli import show
from langchain_memlayer.demo import story

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from langchain_memlayer.types import Relation

USER = "demo-story"


@dataclass(frozen=True, slots=True)
class Story:
    """What the memory made of the story.

    Attributes:
        added: What each `add` reported.
        lived: The first hit for each time that was asked about.
        why: Why the newest value is believed.
        history: What the value was before.
        relations: What is related to what.
    """

    added: Sequence[Mapping[str, Any]]
    lived: Sequence[str]
    why: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    relations: Sequence[Relation]

    @property
    def good(self) -> bool:
        """Whether it knows where she lives and lived, and was not talked into what nobody said."""
        refused = [one["memory"] for added in self.added for one in added.get("rejected", ())]
        return list(self.lived) == [place for _, place in story.LIVED] and refused == ["Xiaoman owns a boat"]

    def as_dict(self) -> dict[str, Any]:
        """The story as JSON values."""
        return {
            "good": self.good,
            "added": self.added,
            "lived": dict(zip((when or "now" for when, _ in story.LIVED), self.lived, strict=True)),
            "why": self.why,
            "history": self.history,
            "relations": self.relations,
        }


def tell(folder: Path, embeddings: str | None) -> Story:
    """Tell the story to a memory with the scripted model, and ask it."""
    from langchain_memlayer.memory import Memory

    with Memory(folder, model=story.model(), embeddings=embeddings) as opened:
        memory = opened.of(user_id=USER)
        added = [
            memory.add(
                {"role": "user", "name": story.SPEAKER, "content": told.text},
                timestamp=told.time,
                session_id=told.time[:10],
                batch_id=told.time,
            )
            for told in story.STORY
        ]
        hits = [memory.search(story.QUESTION, limit=1, as_of=when)["results"][0] for when, _ in story.LIVED]
        home = hits[0]["id"]
        return Story(
            added=added,
            lived=[hit["memory"] for hit in hits],
            why=memory.why(home),
            history=memory.history(home),
            relations=memory.get_all(kinds=["fact"])["relations"],
        )


def shown(out: Console, told: Story, folder: Path, *, kept: bool) -> None:
    """Print it."""
    out.rule(show.text("with a chat model: a fact that changes", "bold"), style="dim")
    out.print(
        "A scripted model stands in for one with a key. What it finds is checked against what was said.", style="dim"
    )
    out.print()
    for said, added in zip(story.STORY, told.added, strict=True):
        out.print(show.text(f"{said.time[:10]}  ", "dim") + show.text(f"“{said.text}”", "cyan"))
        out.print(_decisions(added))
    out.print()
    out.print(show.text(story.QUESTION, "bold cyan"))
    for (when, _), place in zip(story.LIVED, told.lived, strict=True):
        out.print(show.text(f"  {'now' if when is None else f'as_of {when}':<18}", "dim") + show.text(place))
    out.print(show.text("Why is that believed?", "bold cyan"))
    for source in told.why["sources"]:
        out.print(f"  {source['name']} said “{source['quote']}” on {(source['time'] or '')[:10]}.")
    last = told.why["decisions"][-1]
    out.print(f"  Found by the prompt {last['prompt']}, decided by {last['by']}.", style="dim")
    out.print(show.text("What was it before?", "bold cyan"))
    out.print("  " + " -> ".join(str(row["new_value"]) for row in told.history))
    out.print(show.text("What is related to it?", "bold cyan"))
    out.print(show.relations(told.relations, story.SPEAKER))
    out.print()
    if kept:
        extra = "   (with the extra `server`)" if find_spec("starlette") is None else ""
        out.print(f"In a browser: memlayer serve --path {folder}{extra}")
        out.print(f"In the terminal: memlayer list --path {folder} --user {USER}")
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
