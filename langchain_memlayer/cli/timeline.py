"""`memlayer diff`: what became of a memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_memlayer.cli import show

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command()(diff)


def diff(
    ctx: typer.Context,
    since: Annotated[str, typer.Argument(help="The earlier instant, such as 2025-05-01 or 2025-05-01T09:30:00Z.")],
    until: Annotated[str | None, typer.Option(help="The later one; by default now.")] = None,
) -> None:
    """Show what became known, changed and ended since an instant."""
    with ctx.obj.listed() as memory:
        found = memory.diff(since, until, **ctx.obj.scope, everything=not ctx.obj.scope)
    show.result(ctx.obj.json, found, lambda out: _differences(out, found))


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
