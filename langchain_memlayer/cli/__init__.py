"""`memlayer`, the command line. The package proper is imported by the commands that need it, so that help is quick."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from langchain_memlayer import __version__
from langchain_memlayer.cli import evaluating, moving, serving, show, timeline
from langchain_memlayer.errors import ConfigurationError, InvalidInput, MemLayerError, NotAStore, ScopeRequired

if TYPE_CHECKING:
    from langchain_memlayer.journal import Journal
    from langchain_memlayer.memory import Memory

_USAGE, _FAILED, _INTERRUPTED = 2, 1, 130
_OPTIONS_ANYWHERE = "The options of `memlayer` itself (--path, --user, --json, ...) may stand behind the command too."


class _Group(TyperGroup):
    """The commands: their common options may stand anywhere, and their errors are one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
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
                if not value:
                    ctx.fail(f"Option '{name}' requires an argument.")
                common += value
        return super().parse_args(ctx, common + rest)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _expected_errors() as error:
            hint = " On the command line: --user, --agent or --run." if isinstance(error, ScopeRequired) else ""
            usage = isinstance(error, (InvalidInput, ConfigurationError, ScopeRequired))
            _stop(error, str(error) + hint, _USAGE if usage else _FAILED)
        except KeyboardInterrupt as error:
            _stop(error, "Interrupted; what had been stored stays.", _INTERRUPTED)


def _expected_errors() -> tuple[type[Exception], ...]:
    """The package's errors, and those of the provider's client, which only one that was loaded can have raised."""
    openai = sys.modules.get("openai")
    return (MemLayerError,) if openai is None else (MemLayerError, openai.OpenAIError)


def _stop(error: BaseException, message: str, code: int) -> NoReturn:
    line = " ".join([message, *getattr(error, "__notes__", ())])
    typer.echo(f"memlayer: {show.one_line(line)}", err=True)
    raise typer.Exit(code) from error


@dataclass(frozen=True, slots=True)
class Settings:
    """The common options.

    Attributes:
        path: The store's folder, or the connection string of its database; None for the default one.
        scope: The given ids by the names that `Memory` has for them.
        json: Whether results are printed as JSON.
        embeddings: `auto`, "provider:model", or None for keywords only.
        model: `auto`, "provider:model", or None for none.
    """

    path: Path | str | None
    scope: Mapping[str, Any]
    json: bool
    embeddings: str | None
    model: str | None = "auto"

    def folder(self) -> Path | str:
        """The store's folder, or the connection string of its database."""
        if self.path is not None:
            return self.path
        from langchain_memlayer.journal.place import default_folder

        return default_folder()

    def existing(self) -> Path | str:
        """The same, where there has to be a store already: a mistyped path must not become a new one."""
        from langchain_memlayer.journal import exists
        from langchain_memlayer.journal.place import is_url

        folder = self.folder()
        if not exists(folder):
            where = "that schema" if is_url(folder) else folder
            raise NotAStore(f"There is no store in {where}: `memlayer add` makes one, --path names another.")
        return folder

    def writable(self) -> Memory:
        """The folder's memory, made when missing."""
        from langchain_memlayer.memory import Memory

        return Memory(self.folder(), model=self.model, embeddings=self.embeddings)

    def searchable(self) -> Memory:
        """The memory of a folder that exists."""
        self.existing()
        return self.writable()

    def listed(self) -> Memory:
        """The same for commands that ask no model and embed nothing, so that they need neither these nor their keys."""
        from langchain_memlayer.memory import Memory

        return Memory(self.existing(), model=None, embeddings=None)

    def within(self, memory: Memory) -> Any:
        """The memory of the given ids, for which what is somebody else's is not there."""
        return memory.of(**self.scope) if self.scope else memory

    def journal(self) -> Journal:
        """The journal of a store that exists."""
        from langchain_memlayer.journal import open_journal
        from langchain_memlayer.journal.base import random_id, utc_now

        return open_journal(self.existing(), clock=utc_now, new_id=random_id)


def _object(text: str) -> Any:
    """A JSON object from the command line."""
    import orjson

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f'not JSON ({error}); write something like \'{{"city": "Paris"}}\'.') from error
    if not isinstance(value, dict):
        raise typer.BadParameter('not a JSON object; write something like \'{"city": "Paris"}\'.')
    return value


app = typer.Typer(
    cls=_Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, epilog=_OPTIONS_ANYWHERE
)
app.add_typer(evaluating.app, name="eval")
moving.register(app)
serving.register(app)
timeline.register(app)

_Filter = Annotated[
    Any, typer.Option("--filter", parser=_object, metavar="JSON", help="Conditions on metadata, role, session_id, ...")
]
_Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only `fact` or `turn`; may be repeated.")]
_Id = Annotated[str, typer.Argument(metavar="MEMORY_ID")]
_MaybeId = Annotated[str | None, typer.Argument(metavar="MEMORY_ID")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


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
            metavar="FOLDER|postgresql://...",
            help="Where the store is; by default MEMLAYER_HOME, else your own folder.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="Whose memory.")] = None,
    agent: Annotated[str | None, typer.Option(help="Which agent's memory.")] = None,
    run: Annotated[str | None, typer.Option(help="Which run's memory.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    embeddings: Annotated[str, typer.Option(metavar="auto|none|provider:model", help="What makes vectors.")] = "auto",
    model: Annotated[
        str, typer.Option(metavar="auto|none|provider:model", help="What finds facts; in eval, what answers.")
    ] = "auto",
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Long-term memory for agents, in a folder."""
    from langchain_memlayer.journal.place import place

    given = {"user_id": user, "agent_id": agent, "run_id": run}
    ctx.obj = Settings(
        path=None if path is None else place(path),
        scope={name: value for name, value in given.items() if value is not None},
        json=as_json,
        embeddings=None if embeddings == "none" else embeddings,
        model=None if model == "none" else model,
    )


@app.command()
def add(
    ctx: typer.Context,
    text: Annotated[str, typer.Argument(help="What was said; - reads it from the standard input.")],
    role: Annotated[str, typer.Option(help="Who said it: user, assistant, tool.")] = "user",
    name: Annotated[str | None, typer.Option(help="The speaker's name.")] = None,
    session: Annotated[str | None, typer.Option(help="The conversation it belongs to.")] = None,
    time: Annotated[str | None, typer.Option(help="When it was said, such as 2025-05-01T09:30:00Z.")] = None,
    metadata: Annotated[Any, typer.Option(parser=_object, metavar="JSON", help="Kept with it.")] = None,
    verbatim: Annotated[bool, typer.Option(help="Store exactly this, even when it is there already.")] = False,
) -> None:
    """Remember something."""
    with ctx.obj.writable() as memory:
        message = {"role": role, "content": sys.stdin.read().rstrip("\n") if text == "-" else text, "name": name}
        result = memory.add(
            message, **ctx.obj.scope, metadata=metadata, session_id=session, timestamp=time, infer=not verbatim
        )
    show.result(ctx.obj.json, result, lambda out: show.events(out, result["results"]))


@app.command()
def search(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(help="A question or some words.")],
    limit: Annotated[int, typer.Option(help="How many at most.")] = 10,
    threshold: Annotated[float | None, typer.Option(help="Leave out what is less relevant (0 to 1).")] = None,
    conditions: _Filter = None,
    kinds: _Kinds = None,
) -> None:
    """Find the memories that answer a question, best first."""
    with ctx.obj.searchable() as memory:
        result = memory.search(
            query, **ctx.obj.scope, limit=limit, filters=conditions, threshold=threshold, kinds=kinds or None
        )
    show.result(ctx.obj.json, result, lambda out: show.hits(out, result["results"]))


@app.command("list")
def list_memories(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 100,
    offset: Annotated[int, typer.Option(help="How many to skip.")] = 0,
    conditions: _Filter = None,
    kinds: _Kinds = None,
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


@app.command()
def get(ctx: typer.Context, memory_id: _Id) -> None:
    """Show one memory."""
    with ctx.obj.listed() as memory:
        found = ctx.obj.within(memory).get(memory_id)
    if found is None:
        raise show.unknown(memory_id)
    show.result(ctx.obj.json, found, lambda out: show.memories(out, [found], 0, 0))


@app.command()
def history(ctx: typer.Context, memory_id: _Id) -> None:
    """Show what happened to a memory, also to one that was deleted."""
    with ctx.obj.listed() as memory:
        rows = ctx.obj.within(memory).history(memory_id)
    if not rows:
        raise show.unknown(memory_id)
    show.result(ctx.obj.json, rows, lambda out: show.history(out, rows))


@app.command()
def delete(
    ctx: typer.Context,
    memory_id: _MaybeId = None,
    everything: Annotated[bool, typer.Option("--all", help="All memories of --user, --agent, --run.")] = False,
    yes: _Yes = False,
) -> None:
    """End a memory, or all of a scope; the history stays."""
    with ctx.obj.listed() as memory:
        if _all_of_scope(ctx.obj, memory_id, everything):
            _confirm(f"Delete all memories of {show.scope(ctx.obj.scope)}?", yes)
            result = memory.delete_all(**ctx.obj.scope)
        else:
            result = ctx.obj.within(memory).delete(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.done(out, result))


@app.command()
def forget(
    ctx: typer.Context,
    memory_id: _MaybeId = None,
    everything: Annotated[bool, typer.Option("--all", help="All memories of --user, --agent, --run.")] = False,
    yes: _Yes = False,
) -> None:
    """Remove a memory, or all of a scope, from every file, with its history; there is no way back."""
    with ctx.obj.listed() as memory:
        if _all_of_scope(ctx.obj, memory_id, everything):
            _confirm(f"Remove every trace of the memories of {show.scope(ctx.obj.scope)}?", yes)
            result = memory.forget(**ctx.obj.scope)
        else:
            if sys.stdin.isatty():
                _confirm(f"Remove every trace of {memory_id}?", yes)
            result = ctx.obj.within(memory).forget(memory_id)
    show.result(ctx.obj.json, result, lambda out: show.done(out, result))


def _all_of_scope(settings: Settings, memory_id: str | None, everything: bool) -> bool:
    """Whether --all is meant; half of it must never be taken for the whole."""
    if everything == (memory_id is not None):
        raise typer.BadParameter("give either a memory's id, or --all with --user, --agent or --run.")
    if everything and not settings.scope:
        raise typer.BadParameter("--all needs at least one of --user, --agent and --run.")
    return everything


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


@app.command()
def ingest(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="JSON or JSONL.")],
) -> None:
    """Remember the messages of a file, session by session.

    The file has objects with `role` and `content`, and, if known, `id`, `name`, `timestamp` and `session_id`: one in
    each line, or in one JSON array. Messages that were seen before change nothing, so an interrupted run is simply
    repeated.
    """
    from langchain_memlayer.cli import ingesting

    messages = ingesting.read_messages(file)
    with ctx.obj.writable() as memory:
        done = ingesting.ingest(memory, messages, ctx.obj.scope)
    show.result(ctx.obj.json, done.as_dict(), lambda out: out.print(done.sentence()))


@app.command()
def unread(
    ctx: typer.Context,
    retry: Annotated[bool, typer.Option("--retry", help="Read them now, also what was set aside.")] = False,
) -> None:
    """List the messages whose facts were not found yet, and why; --retry reads them."""
    with ctx.obj.searchable() if retry else ctx.obj.listed() as memory:
        if retry:
            memory.read(**ctx.obj.scope, retry=True)
        calls = memory.unread(**ctx.obj.scope)
    show.result(ctx.obj.json, calls, lambda out: show.unread(out, calls))


@app.command()
def stats(ctx: typer.Context) -> None:
    """Count what the folder holds."""
    from langchain_memlayer.engine.fingerprints import recorded_embedder

    journal = ctx.obj.journal()
    try:
        with journal.read(snapshot=True) as reader:
            counts = {**reader.counts(), "last_seq": reader.last_seq()}
        embedder = recorded_embedder(journal, "memories")
        size = journal.size()
    finally:
        journal.close()
    found = {
        "path": journal.where,
        **counts,
        "embedder": None if embedder is None else {"name": embedder[0], "dims": embedder[1]},
        "bytes": size,
    }
    show.result(ctx.obj.json, found, lambda out: show.stats(out, found))


@app.command()
def doctor(
    ctx: typer.Context,
    rebuild: Annotated[bool, typer.Option(help="Make anew what is derived, then check.")] = False,
) -> None:
    """Check everything that must hold in a folder, and rebuild what is derived."""
    from langchain_memlayer import doctor

    journal = ctx.obj.journal()
    try:
        if rebuild:
            doctor.rebuild(journal)
        problems = doctor.check(journal)
    finally:
        journal.close()
    found = {"path": journal.where, "rebuilt": rebuild, "problems": [asdict(problem) for problem in problems]}
    show.result(ctx.obj.json, found, lambda out: show.problems(out, found))
    if problems:
        raise typer.Exit(_FAILED)


@app.command()
def demo(ctx: typer.Context) -> None:
    """Remember a conversation of some hundred turns, ask questions about it, and look whether anything was lost."""
    from langchain_memlayer.cli.demonstration import run

    embeddings = "wordllama" if ctx.obj.embeddings == "auto" else ctx.obj.embeddings
    good = run(ctx.obj.path, scope=ctx.obj.scope or {"user_id": "demo"}, embeddings=embeddings, as_json=ctx.obj.json)
    if not good:
        raise typer.Exit(_FAILED)
