"""`memlayer eval`: how well the memory does on a data set's file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from langchain_memlayer.cli import show
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.index.files import private_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_memlayer.evaluation import Conversation, Dataset, EvaluationResult
    from langchain_memlayer.memory import Memory

app = typer.Typer(
    no_args_is_help=True,
    help="Measure how well the memory recalls, on a file of questions; with a named --model, how well it answers.",
)

_File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The data set, as JSON.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="How many questions, spread evenly over the file; else all.")]
_Judge = Annotated[
    str | None, typer.Option(metavar="provider:model", help="Judges the answers; by default the --model.")
]
_Cuts = Annotated[list[int] | None, typer.Option("--k", min=1, help="Measure at so many memories; may be repeated.")]
_Tokens = Annotated[int, typer.Option(min=1, help="Measure at, and answer from, so many tokens of memories.")]
_Beside = Annotated[bool, typer.Option("--beside", help="Measure cosine, BM25, RRF, a mix and the latest turns, too.")]
_Report = Annotated[Path | None, typer.Option(dir_okay=False, help="Write the report here, as Markdown.")]


@app.command()
def locomo(
    ctx: typer.Context,
    file: _File,
    limit: _Limit = None,
    judge: _Judge = None,
    k: _Cuts = None,
    max_tokens: _Tokens = 1000,
    facts: Annotated[
        Literal["none", "observations", "model"],
        typer.Option(help="Remember facts beside what was said: the file's observations, or what the model finds."),
    ] = "none",
    beside: _Beside = False,
    report: _Report = None,
) -> None:
    """Ask the questions of a LoCoMo file (locomo10.json), without its adversarial ones."""
    from langchain_memlayer.evaluation import load_locomo

    options = {"judge": judge, "k": k, "max_tokens": max_tokens, "beside": beside}
    _evaluate(ctx.obj, lambda: load_locomo(file), limit, facts, report, options)


@app.command()
def longmemeval(
    ctx: typer.Context,
    file: _File,
    limit: _Limit = None,
    judge: _Judge = None,
    k: _Cuts = None,
    max_tokens: _Tokens = 1000,
    facts: Annotated[
        Literal["none", "model"], typer.Option(help="Remember facts that the model finds beside what was said.")
    ] = "none",
    beside: _Beside = False,
    report: _Report = None,
) -> None:
    """Ask the questions of a LongMemEval file (longmemeval_s.json, longmemeval_oracle.json)."""
    from langchain_memlayer.evaluation import load_longmemeval

    options = {"judge": judge, "k": k, "max_tokens": max_tokens, "beside": beside}
    _evaluate(ctx.obj, lambda: load_longmemeval(file), limit, facts, report, options)


@app.command()
def scopes(
    ctx: typer.Context,
    file: _File,
    limit: _Limit = None,
    k: _Cuts = None,
    max_tokens: _Tokens = 1000,
    beside: _Beside = False,
    report: _Report = None,
) -> None:
    """Ask the questions of a file in the plain form, of your own data; only recall is measured."""
    from langchain_memlayer.evaluation import load_scopes

    options = {"k": k, "max_tokens": max_tokens, "beside": beside}
    _evaluate(replace(ctx.obj, model=None), lambda: load_scopes(file), limit, "none", report, options)


def _evaluate(
    settings: Any,
    load: Callable[[], Dataset],
    limit: int | None,
    facts: str,
    report: Path | None,
    options: dict[str, Any],
) -> None:
    """Evaluate, after what would only show when a long run has ended."""
    from langchain_memlayer.evaluation import evaluate_memory

    # To be asked here, a model must be named.
    model = None if settings.model == "auto" else settings.model
    if settings.scope:
        raise InvalidInput("Each conversation is a user of its own here: leave out --user, --agent and --run.")
    if facts == "model" and model is None:
        raise ConfigurationError("--facts model needs the --model that finds them.")
    if report is not None and not report.absolute().parent.is_dir():
        raise InvalidInput(f"There is no folder {report.absolute().parent} to write the report to.")
    dataset = load()
    given = {name: value for name, value in options.items() if value is not None}
    result = evaluate_memory(
        _memories(settings, facts, model), dataset if limit is None else dataset.sampled(limit), model=model, **given
    )
    if report is not None:
        with private_file(report) as out:
            out.write(result.to_markdown().encode())
    show.result(settings.json, result.to_dict() if settings.json else result, lambda out: _print(out, result, report))


def _memories(settings: Any, facts: str, model: str | None) -> Callable[[Conversation], Memory]:
    """What gives each conversation its memory: the folder of --path, else one that is gone afterwards."""
    from langchain_memlayer.evaluation import ObservedFacts
    from langchain_memlayer.memory import Memory

    def memory(conversation: Conversation) -> Memory:
        return Memory(
            settings.path or ":memory:",
            model=model if facts == "model" else None,
            embeddings=settings.embeddings,
            extractor=ObservedFacts(conversation.observations) if facts == "observations" else None,
        )

    return memory


def _print(out: Any, result: EvaluationResult, report: Path | None) -> None:
    """The report itself, or where it is."""
    from rich.markdown import Markdown

    if report is not None:
        out.print(f"The report is in {report}.")
    elif out.is_terminal:
        out.print(Markdown(result.to_markdown()))
    else:
        typer.echo(result.to_markdown().encode(), nl=False)
