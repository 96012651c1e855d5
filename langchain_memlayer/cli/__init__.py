"""`memlayer`, the command line. The package proper is imported by the commands that need it, so that help is quick.

settings.py       the common options, and what they open
memories.py       the methods of `Memory`
folder.py         what is done with a whole store
evaluating.py     eval; ingesting.py, serving.py, timeline.py, demonstration.py: the commands that these are named for
show.py           how results look
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Collection
from dataclasses import replace
from itertools import islice
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from langchain_memlayer import __version__
from langchain_memlayer.cli import evaluating, folder, memories, serving, show, timeline
from langchain_memlayer.cli.settings import Settings
from langchain_memlayer.errors import ConfigurationError, InvalidInput, MemLayerError, ScopeRequired

_USAGE, _FAILED, _INTERRUPTED = 2, 1, 130
_OF_ALL = "stats", "doctor", "export", "import", "reembed", "serve"
_GIVEN = "memlayer.given"
_SAID_HERE = (
    (r"\bget_all\(\)", "`memlayer list`"), (r"\b(\w+)\(\)", r"`memlayer \1`"), ("model= or extractor=", "--model"),
    (r"\bbatch_id\b=?", "--batch"), ("^timestamp ", "--time "), ("^(?:messages|query) ", "The text "),
)  # fmt: skip
"""What `Memory` calls something, and what that is called here."""
_OPTIONS_ANYWHERE = "The options of `memlayer` itself (--path, --user, --json, ...) may stand behind the command too."


class _Group(TyperGroup):
    """The commands: their common options may stand anywhere, and their errors are one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_GIVEN] = {arg.partition("=")[0] for arg in args}
        takes_value = {name: not getattr(p, "is_flag", False) for p in self.params for name in p.opts}
        common: list[str] = []
        rest: list[str] = []
        queue = iter(args)
        for arg in queue:
            if arg == "--":
                rest += [arg, *queue]
                break
            name, has_value, _ = arg.partition("=")
            if name not in takes_value:
                rest.append(arg)
                continue
            common.append(arg)
            if takes_value[name] and not has_value:
                value = list(islice(queue, 1))
                if not value and not ctx.resilient_parsing:
                    ctx.fail(f"Option '{name}' requires an argument.")
                common += value
        return super().parse_args(ctx, common + rest)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _expected_errors() as error:
            usage = isinstance(error, (InvalidInput, ConfigurationError, ScopeRequired))
            _stop(error, _in_own_words(error, ctx.meta[_GIVEN]), _USAGE if usage else _FAILED)
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Nobody reads on, which Typer takes as the end.
                raise
            _give_up_stdout()
            _stop(error, str(error), _FAILED)
        except KeyboardInterrupt as error:
            _stop(error, "Interrupted; what had been stored stays.", _INTERRUPTED)


def _in_own_words(error: Exception, given: Collection[str]) -> str:
    """What an error of `Memory` says, with the names of options and commands for those of arguments and methods."""
    if isinstance(error, ScopeRequired):
        return "Say whose memory is meant: --user, --agent or --run."
    first, space, rest = str(error).partition(" ")
    option = f"--{first.replace('_', '-')}"
    said = f"{option if option in given else first}{space}{rest}"
    for python, here in _SAID_HERE:
        said = re.sub(python, here, said)
    return said


def _expected_errors() -> tuple[type[Exception], ...]:
    """The package's errors, and those of the provider's client, which only one that was loaded can have raised."""
    openai = sys.modules.get("openai")
    return (MemLayerError,) if openai is None else (MemLayerError, openai.OpenAIError)


def _give_up_stdout() -> None:
    """Let go of what stdout did not take: Python tries once more when it ends, and ends with a code of its own."""
    try:
        typer.echo(nl=False)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(error: BaseException, message: str, code: int) -> NoReturn:
    line = " ".join([message, *getattr(error, "__notes__", ())])
    typer.echo(f"memlayer: {show.one_line(line)}", err=True)
    raise typer.Exit(code) from error


app = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, epilog=_OPTIONS_ANYWHERE)
for part in (memories, folder, timeline, serving):
    part.register(app)
app.add_typer(evaluating.app, name="eval")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    path: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|URL",
            help="Where the store is, a folder or postgresql://...; by default MEMLAYER_HOME, else your own folder.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose memory.")] = None,
    agent: Annotated[str | None, typer.Option(help="Which agent's memory.")] = None,
    run: Annotated[str | None, typer.Option(help="Which run's memory.")] = None,
    fork: Annotated[str | None, typer.Option(help="Work in this fork of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    embeddings: Annotated[
        str, typer.Option(metavar="NAME", help="What makes vectors: auto, none, or provider:model.")
    ] = "auto",
    model: Annotated[
        str, typer.Option(metavar="NAME", help="What finds facts, in eval what answers: auto, none, or provider:model.")
    ] = "auto",
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEMA",
            help="What is to be known of each user: a JSON schema (form.json), or a pydantic model (module:Model).",
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Long-term memory for agents, in a folder."""
    from langchain_memlayer.journal import place

    given = {"user_id": user, "agent_id": agent, "run_id": run}
    ctx.obj = Settings(
        path=None if path is None else place(path),
        scope={name: value for name, value in given.items() if value is not None},
        json=as_json,
        embeddings=None if embeddings == "none" else embeddings,
        model=None if model == "none" else model,
        profile=profile,
    )
    if ctx.obj.scope and ctx.invoked_subcommand in _OF_ALL:
        raise InvalidInput(f"{ctx.invoked_subcommand} is about the whole store: leave out --user, --agent and --run.")
    if fork is not None:
        with ctx.obj.listed() as memory:
            ctx.obj = replace(ctx.obj, scope=memory.fork(fork, **ctx.obj.scope, new=False).ids)


@app.command()
def demo(ctx: typer.Context) -> None:
    """Remember a conversation of some hundred turns, ask questions about it, and look whether anything was lost."""
    from langchain_memlayer.cli.demonstration import run

    embeddings = "wordllama" if ctx.obj.embeddings == "auto" else ctx.obj.embeddings
    good = run(ctx.obj.path, scope=ctx.obj.scope or {"user_id": "demo"}, embeddings=embeddings, as_json=ctx.obj.json)
    if not good:
        raise typer.Exit(_FAILED)
