"""`memlayer diff`, `undo` and `replay`: what became of a memory, taking it back, and reading it anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_memlayer.cli import show
from langchain_memlayer.progress import bars

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command()(diff)
    app.command()(undo)
    app.command()(replay)


def diff(
    ctx: typer.Context,
    since: Annotated[str, typer.Argument(help="The earlier instant, such as 2025-05-01 or 2025-05-01T09:30:00Z.")],
    until: Annotated[str | None, typer.Option(help="The later one; by default now.")] = None,
) -> None:
    """Show what became known, changed and ended since an instant."""
    with ctx.obj.listed() as memory:
        found = memory.diff(since, until, **ctx.obj.scope, everything=not ctx.obj.scope)
    show.result(ctx.obj.json, found, lambda out: _differences(out, found))


def undo(
    ctx: typer.Context,
    event_id: Annotated[
        str | None, typer.Argument(help="The number of an event, as `memlayer history` shows it.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="In its place, the batch id of calls of --user, --agent, --run.")
    ] = None,
) -> None:
    """Take back what happened to a memory, or all that calls with a batch id did; this is an event too."""
    with ctx.obj.listed() as memory:
        done = memory.undo(event_id, batch_id=batch, **ctx.obj.scope)
    show.result(ctx.obj.json, done, lambda out: show.added(out, done))


def replay(
    ctx: typer.Context, into: Annotated[str, typer.Argument(help="The user of the new memories; nobody's yet.")]
) -> None:
    """Read all messages of --user again by --model, into memories of another user, and show which facts differ."""
    with ctx.obj.searchable() as memory, bars(hidden=ctx.obj.json) as told:
        found = memory.replay(into, **ctx.obj.scope, progress=lambda done, total: told("reading", done, total))
    show.result(ctx.obj.json, found, lambda out: _replayed(out, found))


def _replayed(out: Console, found: Any) -> None:
    out.print(f"{found['turns']} messages were read again, into {found['into']}; {found['same']} facts are the same.")
    if found["results"]:
        rows = show.table(("said", False), ("before", False), ("now", False))
        for row in found["results"]:
            rows.add_row(show.text(row["said"], "dim"), show.text(row["before"] or "-"), show.text(row["after"] or "-"))
        out.print(rows)


def _differences(out: Console, found: Any) -> None:
    if not (found["added"] or found["changed"] or found["ended"]):
        out.print("Nothing changed.")
        return
    rows = show.table(("", True), ("memory", False))
    for mark, style, memories in (("+", "green", found["added"]), ("-", "red", found["ended"])):
        for memory in memories:
            rows.add_row(show.text(mark, style), show.text(memory["memory"]))
    for change in found["changed"]:
        rows.add_row(show.text("-", "red"), show.text(change["before"]["memory"]))
        rows.add_row(show.text("+", "green"), show.text(change["after"]["memory"]))
    out.print(rows)
