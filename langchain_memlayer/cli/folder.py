"""`memlayer stats`, `doctor`, `export`, `import` and `reembed`: what is done with a whole store."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from langchain_memlayer.cli import show
from langchain_memlayer.progress import bars


class Source(StrEnum):
    """What an import reads."""

    EXPORT = "export"
    MEM0 = "mem0"
    LANGGRAPH_SQLITE = "langgraph-sqlite"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (stats, doctor, export, reembed):
        app.command()(command)
    app.command("import")(import_file)


def stats(ctx: typer.Context) -> None:
    """Count what the folder holds."""
    from langchain_memlayer.engine.index_sync import recorded_embedder

    with closing(ctx.obj.journal()) as journal:
        with journal.read(snapshot=True) as reader:
            counts = {**reader.counts(), "last_seq": reader.last_seq()}
        embedder = recorded_embedder(journal, "memories")
        size = journal.size()
    summary = {
        "path": journal.where,
        **counts,
        "embedder": None if embedder is None else {"name": embedder[0], "dims": embedder[1]},
        "bytes": size,
    }
    show.result(ctx.obj.json, summary, lambda out: show.stats(out, summary))


def doctor(
    ctx: typer.Context, rebuild: Annotated[bool, typer.Option(help="Make anew what is derived, then check.")] = False
) -> None:
    """Check everything that must hold in a folder, and rebuild what is derived."""
    from langchain_memlayer import doctor

    with closing(ctx.obj.journal()) as journal, bars(hidden=ctx.obj.json) as progress:
        if rebuild:
            progress("rebuilding", 0, 0)
            doctor.rebuild(journal)
        progress("checking", 0, 0)
        problems = doctor.check(journal)
    summary = {"path": journal.where, "rebuilt": rebuild, "problems": [asdict(problem) for problem in problems]}
    show.result(ctx.obj.json, summary, lambda out: show.problems(out, summary))
    if problems:
        raise typer.Exit(1)


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
    with bars(hidden=ctx.obj.json) as progress:
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
    with bars(hidden=ctx.obj.json) as progress:
        if source is Source.MEM0:
            counts = import_mem0(files, path, embeddings=embeddings, progress=progress)
        elif source is Source.LANGGRAPH_SQLITE:
            counts = import_langgraph_sqlite(files[0], path, embeddings=embeddings, progress=progress)
        else:
            counts = {"rows": import_store(files[0], path, embeddings=embeddings, progress=progress)}
    shown = [str(file) for file in files]
    said = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    summary = {**counts, "file": shown[0] if len(shown) == 1 else shown}
    show.result(ctx.obj.json, summary, lambda out: out.print(f"{said}."))


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

    with bars(hidden=ctx.obj.json) as progress:
        rows = reembed_store(ctx.obj.existing(), embedder, fields=fields or None, progress=progress)
    summary = {"rows": rows, "embedder": embedder}
    show.result(ctx.obj.json, summary, lambda out: out.print(f"{rows:,} rows have vectors of {embedder}."))
