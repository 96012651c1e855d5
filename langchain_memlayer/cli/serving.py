"""`memlayer serve` and `memlayer mcp`."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated

import typer

from langchain_memlayer.errors import MissingDependency


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)
    app.command()(mcp)


_FromModel = Annotated[
    bool, typer.Option("--ids-from-model", help="Let models name the user, agent or run that they mean.")
]


def serve(
    ctx: typer.Context,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8765,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bearer tokens and the ids that each is bound to, as JSON.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that the server goes by; may be repeated.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="A folder of evaluation runs, to be compared.")
    ] = None,
    ids_from_model: _FromModel = False,
    patience: Annotated[
        float, typer.Option(min=0.1, help="How many seconds a request may take to come, and an answer to be taken.")
    ] = 30.0,
    log: Annotated[bool, typer.Option("--log", help="A line for each request, without texts and tokens.")] = False,
) -> None:
    """Serve the inspector, REST and MCP until Ctrl-C; without tokens to this computer only."""
    try:
        from langchain_memlayer.server import application
        from langchain_memlayer.server.access import Tokens
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    known = Tokens.read(tokens)
    application.check_exposure(host, known)
    if log:
        logging.basicConfig(format="%(asctime)s %(name)s %(message)s")
        logging.getLogger("langchain_memlayer.server").setLevel(logging.INFO)
    with application.listen(host, port) as listener, ctx.obj.writable() as memory:
        app = application.create_app(
            memory,
            runs=runs,
            where=ctx.obj.folder(),
            tokens=known,
            hosts=[host, *(allow_host or ())],
            ids_from_model=ids_from_model,
            patience=patience,
        )
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"http://{shown}:{listener.getsockname()[1]}/ serves until Ctrl-C.", err=True)
        application.run(app, listener, patience=patience)


def mcp(ctx: typer.Context, ids_from_model: _FromModel = False) -> None:
    """Serve the tools of MCP over stdin and stdout, for the memories of --user, --agent and --run."""
    try:
        from langchain_memlayer.server import mcp_tools
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    from langchain_memlayer.types import Scope

    scope = Scope(**ctx.obj.scope)
    if not ids_from_model:
        scope.required("memlayer mcp")
    with ctx.obj.writable() as memory:
        asyncio.run(mcp_tools.over_stdio(mcp_tools.mcp_server(memory, scope=scope, ids_from_model=ids_from_model)))


def _missing(error: ModuleNotFoundError) -> MissingDependency:
    return MissingDependency(f'{error.name} is not installed: pip install "langchain-memlayer[server]".')
