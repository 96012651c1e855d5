"""`memlayer add`, `search`, `list`, ...: the methods of `Memory` as commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from langchain_memlayer.cli import show
from langchain_memlayer.cli.settings import (
    Everything,
    Filter,
    Kinds,
    Limit,
    MaybeMemoryId,
    MemoryId,
    Metadata,
    Offset,
    Settings,
    Text,
    Yes,
    confirm,
    json_object,
    text_or_stdin,
)
from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index.files import private_file
from langchain_memlayer.progress import bars

_ANYWHERE = "The options of `memlayer` itself (--path, --user, --model, --json, ...) may stand here too."
_SOMEBODY = "Required: one at least of --user, --agent and --run, which say whose memory. "


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for of_somebody in (add, search, profile, unread, graph, ingest):
        app.command(epilog=_SOMEBODY + _ANYWHERE)(of_somebody)
    for command in (scopes, get, update, history, why, delete, forget):
        app.command(epilog=_ANYWHERE)(command)
    app.command("list", epilog=_ANYWHERE)(list_memories)


def add(
    ctx: typer.Context,
    text: Text,
    role: Annotated[str, typer.Option(help="Who said it: user, assistant, tool.")] = "user",
    name: Annotated[str | None, typer.Option(help="The speaker's name.")] = None,
    session: Annotated[str | None, typer.Option(help="The conversation it belongs to.")] = None,
    time: Annotated[str | None, typer.Option(help="When it was said, such as 2025-05-01T09:30:00Z.")] = None,
    metadata: Metadata = None,
    verbatim: Annotated[bool, typer.Option(help="Store exactly this, even when it is there already.")] = False,
) -> None:
    """Remember something, and say what was stored; a model, if there is one, finds the facts in it."""
    with ctx.obj.writable() as memory:
        message = {"role": role, "content": text_or_stdin(text), "name": name}
        result = memory.add(
            message, **ctx.obj.scope, metadata=metadata, session_id=session, timestamp=time, infer=not verbatim
        )
    show.result(ctx.obj.json, result, lambda out: show.added(out, result))


def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(help="A question or some words.")],
    limit: Limit = 10,
    threshold: Annotated[float | None, typer.Option(help="Leave out what is less relevant (0 to 1).")] = None,
    as_of: Annotated[str | None, typer.Option(help="What held then, such as 2025-05-01.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each signal gave to a score.")] = False,
    conditions: Filter = None,
    kinds: Kinds = None,
) -> None:
    """Find the memories that answer a question, best first."""
    with ctx.obj.searchable() as memory:
        result = memory.search(
            query,
            **ctx.obj.scope,
            limit=limit,
            filters=conditions,
            threshold=threshold,
            as_of=as_of,
            explain=explain,
            kinds=kinds or None,
        )
    show.result(ctx.obj.json, result, lambda out: show.hits(out, result["results"]))


def list_memories(
    ctx: typer.Context, limit: Limit = 100, offset: Offset = 0, conditions: Filter = None, kinds: Kinds = None
) -> None:
    """List memories, oldest first; without --user, --agent and --run those of the whole folder."""
    with ctx.obj.listed() as memory:
        result = memory.get_all(
            **ctx.obj.scope,
            limit=limit,
            offset=offset,
            filters=conditions,
            kinds=kinds or None,
            everything=not ctx.obj.scope,
        )
    show.result(ctx.obj.json, result, lambda out: show.memories(out, result["results"], limit, offset))


def scopes(ctx: typer.Context, limit: Limit = 1000, offset: Offset = 0) -> None:
    """List whose memories there are, and how many."""
    with ctx.obj.listed() as memory:
        sizes = memory.scopes(**ctx.obj.scope, limit=limit, offset=offset)
    show.result(ctx.obj.json, sizes, lambda out: show.scopes(out, sizes, limit, offset))


def get(ctx: typer.Context, memory_id: MemoryId) -> None:
    """Show one memory."""
    with ctx.obj.listed() as memory:
        result = ctx.obj.within(memory).get(memory_id)
    if result is None:
        raise show.unknown(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.memories(out, [result]))


def update(
    ctx: typer.Context,
    memory_id: MemoryId,
    text: Annotated[str | None, typer.Argument(help="Its new text; - reads it from the standard input.")] = None,
    metadata: Metadata = None,
    expires: Annotated[
        str | None, typer.Option(help="The last day on which it counts, such as 2025-12-31; `never` takes that back.")
    ] = None,
) -> None:
    """Give a memory a new text, further metadata, or a last day; what it was stays in its history."""
    changes: dict[str, Any] = {"metadata": metadata, "text": None if text is None else text_or_stdin(text)}
    if expires is not None:
        changes["expiration_date"] = None if expires == "never" else expires
    with ctx.obj.searchable() as memory:
        scoped = ctx.obj.within(memory)
        scoped.update(memory_id, **changes)
        result = scoped.get(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.memories(out, [result]))


def history(ctx: typer.Context, memory_id: MemoryId) -> None:
    """Show what happened to a memory, also to one that was deleted."""
    with ctx.obj.listed() as memory:
        rows = ctx.obj.within(memory).history(memory_id)
    if not rows:
        raise show.unknown(memory_id)
    show.result(ctx.obj.json, rows, lambda out: show.history(out, rows))


def why(ctx: typer.Context, memory_id: MemoryId) -> None:
    """Show which words a memory comes from, and what was decided about it."""
    with ctx.obj.listed() as memory:
        result = ctx.obj.within(memory).why(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.why(out, result))


def profile(
    ctx: typer.Context,
    values: Annotated[
        Any, typer.Option("--set", parser=json_object, metavar="JSON", help="Set fields by hand; null clears one.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="Show each change of each field.")] = False,
    as_of: Annotated[str | None, typer.Option(help="What held then, such as 2025-05-01.")] = None,
) -> None:
    """Show what is known of a user as one form, with the facts that each field comes from; or set fields of it."""
    with ctx.obj.listed() as memory:
        if values is not None:
            memory.update_profile(values, **ctx.obj.scope)
        if history:
            rows = memory.profile_history(**ctx.obj.scope)
            show.result(ctx.obj.json, rows, lambda out: show.profile_history(out, rows))
            return
        result = memory.profile(**ctx.obj.scope, as_of=as_of)
    show.result(ctx.obj.json, result.plain(), lambda out: show.profile(out, result))


def graph(
    ctx: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(dir_okay=False, help="Write it here: .graphml, or .svg for a picture.")
    ] = None,
) -> None:
    """Show the relations between people, places and things; in the terminal, or in a file."""
    if file is not None and file.suffix not in (".svg", ".graphml"):
        raise typer.BadParameter("must end in .svg or .graphml.", param_hint="FILE")
    from langchain_memlayer.graph.names import as_relations

    with ctx.obj.listed() as memory:
        relations = memory.graph(**ctx.obj.scope)
    triples = as_relations(relations.triples())
    if file is None:
        show.result(ctx.obj.json, triples, lambda out: show.graph(out, triples))
        return
    try:
        if file.suffix == ".svg":
            picture = relations._repr_svg_().encode()
            with private_file(file) as out:
                out.write(picture)
        else:
            relations.to_graphml(file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written ({error.strerror}). Give a file in a folder of yours.") from error
    done = {"file": str(file), "relations": len(triples)}
    show.result(ctx.obj.json, done, lambda out: out.print(f"{len(triples):,} relations are in {file}."))


def delete(
    ctx: typer.Context, memory_id: MaybeMemoryId = None, everything: Everything = False, yes: Yes = False
) -> None:
    """End a memory, or all of a scope; the history stays."""
    with ctx.obj.listed() as memory:
        if _all_of_scope(ctx.obj, memory_id, everything):
            confirm(f"Delete all memories of {show.scope(ctx.obj.scope)}?", yes)
            result = memory.delete_all(**ctx.obj.scope)
        else:
            result = ctx.obj.within(memory).delete(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.done(out, result))


def forget(
    ctx: typer.Context, memory_id: MaybeMemoryId = None, everything: Everything = False, yes: Yes = False
) -> None:
    """Remove a memory, or all of a scope, from every file, with its history; there is no way back."""
    with ctx.obj.listed() as memory:
        if _all_of_scope(ctx.obj, memory_id, everything):
            confirm(f"Remove every trace of the memories of {show.scope(ctx.obj.scope)}?", yes)
            result = memory.forget(**ctx.obj.scope)
        else:
            confirm(f"Remove every trace of {memory_id}?", yes or not sys.stdin.isatty())
            result = ctx.obj.within(memory).forget(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.done(out, result))


def _all_of_scope(settings: Settings, memory_id: str | None, everything: bool) -> bool:
    """Whether --all is meant; half of it must never be taken for the whole."""
    if everything == (memory_id is not None):
        raise typer.BadParameter("give either a memory's id, or --all with --user, --agent or --run.")
    if everything and not settings.scope:
        raise typer.BadParameter("--all needs at least one of --user, --agent and --run.")
    return everything


def ingest(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="JSON or JSONL.")],
    yes: Yes = False,
) -> None:
    """Remember the messages of a file, session by session.

    The file has objects with `role` and `content`, and, if known, `id`, `name`,
    `timestamp` and `session_id`: one in each line, or in one JSON array.
    Messages that were seen before change nothing, so an interrupted run is
    simply repeated. A model that was not named with --model is not asked before
    you have said so.
    """
    from langchain_memlayer.cli import ingesting

    batches = ingesting.read_batches(file)
    with ctx.obj.writable() as memory:
        if memory.model is not None:
            cost = ingesting.cost(memory.model, batches)
            show.console(stderr=True).print(cost)
            if ctx.obj.model == "auto" and not yes:
                if not sys.stdin.isatty():
                    raise InvalidInput("Say --yes, name a --model, or keep the messages unread with --model none.")
                confirm("Go on?", yes=False)
        with bars(hidden=ctx.obj.json) as progress:
            done = ingesting.ingest(memory, batches, ctx.obj.scope, progress)
    show.result(ctx.obj.json, done.as_dict(), lambda out: out.print(done.sentence()))


def unread(
    ctx: typer.Context,
    retry: Annotated[bool, typer.Option("--retry", help="Read them now, also what was set aside.")] = False,
) -> None:
    """List the messages whose facts were not found yet, and why; --retry reads them."""
    with ctx.obj.searchable() if retry else ctx.obj.listed() as memory:
        if retry:
            with bars(hidden=ctx.obj.json) as progress:
                memory.read(**ctx.obj.scope, retry=True, progress=lambda done, total: progress("reading", done, total))
        calls = memory.unread(**ctx.obj.scope)
    show.result(ctx.obj.json, calls, lambda out: show.unread(out, calls))
