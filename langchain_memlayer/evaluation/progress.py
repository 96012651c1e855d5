"""How far an evaluation is, as bars on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


class Bars:
    """Two bars: turns remembered, questions asked. Threads may share them.

    Args:
        progress: What shows them, or None to show nothing.
        turns: How many turns there are.
        questions: How many questions there are.
    """

    def __init__(self, progress: Progress | None, turns: int, questions: int) -> None:
        self._progress = progress
        if progress is not None:
            self._turns = progress.add_task("Remembering", total=turns)
            self._questions = progress.add_task("Asking", total=questions)

    def remembered(self, count: int) -> None:
        """So many turns more."""
        if self._progress is not None:
            self._progress.advance(self._turns, count)

    def asked(self) -> None:
        """One question more."""
        if self._progress is not None:
            self._progress.advance(self._questions)


@contextmanager
def bars(wanted: bool, turns: int, questions: int) -> Iterator[Bars]:
    """The bars while something runs; they are shown on a terminal and in a notebook only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not wanted or not (console.is_terminal or console.is_jupyter):
        yield Bars(None, turns, questions)
        return
    columns = TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True)
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bars(progress, turns, questions)
