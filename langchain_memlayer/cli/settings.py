"""The options that all commands of `memlayer` share, and how values on a command line are read."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_memlayer.errors import NotAStore

if TYPE_CHECKING:
    from langchain_memlayer.journal import Journal
    from langchain_memlayer.memory import Memory


@dataclass(frozen=True, slots=True)
class Settings:
    """The common options.

    Attributes:
        path: The store's folder, or the connection string of its database; None for the default one.
        scope: The given ids by the names that `Memory` has for them.
        json: Whether results are printed as JSON.
        embeddings: `auto`, "provider:model", or None for keywords only.
        model: `auto`, "provider:model", or None for none.
        profile: Where the schema of profiles is to be imported from; None for none.
    """

    path: Path | str | None
    scope: Mapping[str, Any]
    json: bool
    embeddings: str | None
    model: str | None = "auto"
    profile: str | None = None

    def folder(self) -> Path | str:
        """The store's folder, or the connection string of its database."""
        if self.path is not None:
            return self.path
        from langchain_memlayer.journal import default_folder

        return default_folder()

    def existing(self) -> Path | str:
        """The same, where there has to be a store already: a mistyped path must not become a new one."""
        from langchain_memlayer.journal import exists, is_url

        folder = self.folder()
        if not exists(folder):
            where = "that schema" if is_url(folder) else folder
            raise NotAStore(f"There is no store in {where}: `memlayer add` makes one, --path names another.")
        return folder

    def writable(self) -> Memory:
        """The folder's memory, made when missing."""
        from langchain_memlayer.memory import Memory

        return Memory(self.folder(), model=self.model, embeddings=self.embeddings, profile=self.schema())

    def schema(self) -> str | None:
        """The schema of profiles, which may stand in a file of the folder that the command is called in."""
        if self.profile is not None and "" not in sys.path:
            sys.path.insert(0, "")
        return self.profile

    def searchable(self) -> Memory:
        """The memory of a folder that exists."""
        self.existing()
        return self.writable()

    def listed(self) -> Memory:
        """The same for commands that ask no model and embed nothing, so that they need neither these nor their keys."""
        from langchain_memlayer.memory import Memory

        return Memory(self.existing(), model=None, embeddings=None, profile=self.schema())

    def within(self, memory: Memory) -> Any:
        """The memory of the given ids, for which what is somebody else's is not there."""
        return memory.of(**self.scope) if self.scope else memory

    def journal(self) -> Journal:
        """The journal of a store that exists."""
        from langchain_memlayer.journal import open_journal

        return open_journal(self.existing())


def json_object(text: str) -> Any:
    """A JSON object from the command line."""
    import orjson

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f'not JSON ({error}); write something like \'{{"city": "Paris"}}\'.') from error
    if not isinstance(value, dict):
        raise typer.BadParameter('not a JSON object; write something like \'{"city": "Paris"}\'.')
    return value


def text_or_stdin(text: str) -> str:
    """A text of the command line; `-` is the standard input."""
    return sys.stdin.read().rstrip("\n") if text == "-" else text


def confirm(question: str, yes: bool) -> None:
    """Ask, unless the answer was given; a no ends the command."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


MemoryId = Annotated[str, typer.Argument(metavar="MEMORY_ID")]
MaybeMemoryId = Annotated[str | None, typer.Argument(metavar="MEMORY_ID")]
Text = Annotated[str, typer.Argument(help="What is to be remembered; - reads it from the standard input.")]
Limit = Annotated[int, typer.Option(help="How many at most.")]
Offset = Annotated[int, typer.Option(help="How many to skip.")]
Filter = Annotated[
    Any, typer.Option("--filter", parser=json_object, metavar="JSON", help="Conditions on metadata, role, ...")
]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only `fact` or `turn`; may be repeated.")]
Metadata = Annotated[Any, typer.Option(parser=json_object, metavar="JSON", help="Kept with it.")]
Everything = Annotated[bool, typer.Option("--all", help="All memories of --user, --agent, --run.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
