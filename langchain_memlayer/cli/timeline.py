"""`memlayer diff` and `undo`: what became of a memory, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_memlayer.cli import show

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command()(diff)
    app.command()(undo)


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
