"""`memlayer export`, `import` and `reembed`: a store as a file, and back, and to another embedder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_memlayer.cli import show

if TYPE_CHECKING:
    from langchain_memlayer.moving.format import Progress

_SHOWN_EVERY = 500


class Source(StrEnum):
    """What an import reads."""

    EXPORT = "export"
    MEM0 = "mem0"
    LANGGRAPH_SQLITE = "langgraph-sqlite"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export")(export)
    app.command("import")(import_file)
    app.command("reembed")(reembed)


def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where to; - for standard output.")] = Path("-"),
    vectors: Annotated[bool, typer.Option(help="Whether vectors go too.")] = True,
) -> None:
    """Write everything that the store holds into a file of JSON lines."""
    from langchain_memlayer.moving import export_store

    path = ctx.obj.existing()
    if str(file) == "-":
        export_store(path, sys.stdout.buffer, vectors=vectors)
        return
    with _bar(ctx.obj.json) as progress:
        rows = export_store(path, file, vectors=vectors, progress=progress)
    show.result(ctx.obj.json, {"rows": rows, "file": str(file)}, lambda out: out.print(f"{rows:,} rows are in {file}."))


def import_file(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(exists=True, readable=True, help="An export, or what --from says.")],
    source: Annotated[
        Source, typer.Option("--from", help="mem0: folders, and history.db if it lies apart; langgraph-sqlite: a file.")
    ] = Source.EXPORT,
) -> None:
    """Fill a new store with an export, or take in another program's memories; interrupted, it goes on when repeated."""
    from langchain_memlayer.moving import import_langgraph_sqlite, import_mem0, import_store

    path, embeddings = ctx.obj.folder(), ctx.obj.embeddings
    if source is not Source.MEM0 and (len(files) > 1 or not files[0].is_file()):
        raise typer.BadParameter("one file is needed.", param_hint="FILES")
    with _bar(ctx.obj.json) as progress:
        if source is Source.EXPORT:
            rows = import_store(files[0], path, embeddings=embeddings, progress=progress)
            counts, said = {"rows": rows}, f"{rows:,} rows were imported."
        else:
            if source is Source.MEM0:
                counts = import_mem0(files, path, embeddings=embeddings, progress=progress)
            else:
                counts = import_langgraph_sqlite(files[0], path, embeddings=embeddings, progress=progress)
            said = ", ".join(f"{number:,} {name}" for name, number in counts.items()) + "."
    shown = [str(file) for file in files]
    show.result(ctx.obj.json, {**counts, "file": shown[0] if len(shown) == 1 else shown}, lambda out: out.print(said))


def reembed(
    ctx: typer.Context,
    embedder: Annotated[str, typer.Argument(metavar="EMBEDDER", help="provider:model, or wordllama.")],
    fields: Annotated[
        list[str] | None,
        typer.Option("--field", help="What is embedded of items that do not say it, such as title; $ is everything."),
    ] = None,
) -> None:
    """Give the store another embedder; it can be used meanwhile. Interrupted, it goes on when repeated."""
    from langchain_memlayer.moving import reembed_store

    with _bar(ctx.obj.json) as progress:
        rows = reembed_store(ctx.obj.existing(), embedder, fields=fields or None, progress=progress)
    found = {"rows": rows, "embedder": embedder}
    show.result(ctx.obj.json, found, lambda out: out.print(f"{rows:,} rows have vectors of {embedder}."))


@contextmanager
def _bar(as_json: bool) -> Iterator[Progress | None]:
    """What shows progress on stderr, when that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    out = show.console(stderr=True)
    if as_json or not out.is_terminal:
        yield None
        return
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=out, transient=True)
    with bar:
        task = bar.add_task("")

        def told(what: str, done: int, total: int) -> None:
            if done % _SHOWN_EVERY == 0 or done == total:
                bar.update(task, description=what, completed=done, total=total or None)

        yield told
