"""`memlayer diff`, `undo`, `replay`, `fork`: what became of a memory, taking it back, reading it anew, trying out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_memlayer.cli import show
from langchain_memlayer.cli.settings import Yes, confirm
from langchain_memlayer.progress import bars

if TYPE_CHECKING:
    from rich.console import Console

    from langchain_memlayer.bound_memory import Fork


def register(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command()(diff)
    app.command()(undo)
    app.command()(replay)
    forks = typer.Typer(no_args_is_help=True, help="Copies of --user, --agent, --run to try something in.")
    for command in (create, merge, drop):
        forks.command()(command)
    forks.command("list")(list_forks)
    app.add_typer(forks, name="fork")


def diff(
    ctx: typer.Context,
    since: Annotated[str, typer.Argument(help="The earlier instant, such as 2025-05-01 or 2025-05-01T09:30:00Z.")],
    until: Annotated[str | None, typer.Option(help="The later one; by default now.")] = None,
) -> None:
    """Show what became known, changed and ended since an instant."""
    with ctx.obj.listed() as memory:
        result = memory.diff(since, until, **ctx.obj.scope, everything=not ctx.obj.scope)
    show.result(ctx.obj.json, result, lambda out: _differences(out, result))


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
    with ctx.obj.searchable() as memory, bars(hidden=ctx.obj.json) as progress:
        result = memory.replay(into, **ctx.obj.scope, progress=lambda done, total: progress("reading", done, total))
    show.result(ctx.obj.json, result, lambda out: _replayed(out, result))


def _replayed(out: Console, result: Any) -> None:
    out.print(
        f"{result['turns']} messages were read again, into {result['into']}; {result['same']} facts are the same."
    )
    if result["results"]:
        rows = show.table(("said", False), ("before", False), ("now", False))
        for row in result["results"]:
            rows.add_row(show.text(row["said"], "dim"), show.text(row["before"] or "-"), show.text(row["after"] or "-"))
        out.print(rows)


Name = Annotated[str, typer.Argument(metavar="NAME", help="What the fork is called.")]


def create(ctx: typer.Context, name: Name) -> None:
    """Make a fork; with --fork NAME every command works in it, and what it holds is found nowhere else."""
    with ctx.obj.listed() as memory:
        fork = memory.fork(name, **ctx.obj.scope)
        rows = memory.scopes(**fork.ids)
    facts, turns = sum(row["facts"] for row in rows), sum(row["turns"] for row in rows)
    result = {"name": name, "ids": fork.ids, "facts": facts, "turns": turns}
    held = f"{show.counted(facts, 'fact')} and {show.counted(turns, 'turn')}"
    sentence = f"{name} has {held}; --fork {name} lets any command work in it."
    show.result(ctx.obj.json, result, lambda out: out.print(sentence))


def list_forks(ctx: typer.Context) -> None:
    """Show which forks there are."""
    with ctx.obj.listed() as memory:
        result = memory.forks(**ctx.obj.scope)
    show.result(ctx.obj.json, result, lambda out: _forks(out, result))


def merge(ctx: typer.Context, name: Name, yes: Yes = False) -> None:
    """Carry over what was added, changed and ended in a fork, and remove it."""
    done = _ended(ctx, name, f"Carry over what changed in {name}, and remove it?", yes, lambda fork: fork.merge())
    show.result(ctx.obj.json, done, lambda out: _merged(out, done, ctx.obj.scope))


def drop(ctx: typer.Context, name: Name, yes: Yes = False) -> None:
    """Remove a fork from every file; the original stays as it is."""
    question = f"Remove the fork {name} and all that was added in it? There is no way back."
    done = _ended(ctx, name, question, yes, lambda fork: fork.drop())
    show.result(ctx.obj.json, done, lambda out: show.done(out, done))


def _ended(ctx: typer.Context, name: str, question: str, yes: bool, end: Callable[[Fork], Any]) -> Any:
    with ctx.obj.listed() as memory:
        fork = memory.fork(name, **ctx.obj.scope, new=False)
        confirm(question, yes)
        return end(fork)


def _forks(out: Console, result: Any) -> None:
    if not result:
        out.print("There are no forks.")
        return
    rows = show.table(("name", False), ("of", False), ("made", True))
    for fork in result:
        ids = {name: fork[name] for name in ("user_id", "agent_id", "run_id") if fork[name]}
        rows.add_row(show.text(fork["name"]), show.text(show.scope(ids)), fork["created_at"][:19].replace("T", " "))
    out.print(rows)


def _merged(out: Console, done: Any, scope: Mapping[str, str]) -> None:
    show.added(out, done)
    for one in done["conflicts"]:
        original, fork = (one[side] or "(ended)" for side in ("memory", "fork"))
        out.print(show.text(f"changed on both sides: {original!r} stays; the fork said {fork!r}", "yellow"))
    whose = " ".join(f"--{name.removesuffix('_id')} {quote(value)}" for name, value in scope.items())
    out.print(show.text(f"memlayer undo --batch '{done['batch_id']}' {whose} takes it back", "dim"))


def _differences(out: Console, result: Any) -> None:
    if not (result["added"] or result["changed"] or result["ended"]):
        out.print("Nothing changed.")
        return
    rows = show.table(("", True), ("memory", False))
    for mark, style, memories in (("+", "green", result["added"]), ("-", "red", result["ended"])):
        for memory in memories:
            rows.add_row(show.text(mark, style), show.text(memory["memory"]))
    for change in result["changed"]:
        rows.add_row(show.text("-", "red"), show.text(change["before"]["memory"]))
        rows.add_row(show.text("+", "green"), show.text(change["after"]["memory"]))
    out.print(rows)
