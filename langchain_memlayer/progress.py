"""How far something is, as bars on stderr, with how fast it goes and how long it still takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is (0 while unknown)."""


@contextmanager
def bars(*, hidden: bool = False) -> Iterator[Progress]:
    """What shows progress while something runs: a bar for each thing that is told, on a terminal or in a notebook only.

    Threads may share it.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if hidden or not (console.is_terminal or console.is_jupyter):
        yield silent
        return
    tasks: dict[str, TaskID] = {}
    with _shown(console) as shown:

        def show(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = shown.add_task(task.capitalize(), total=total or None)
            shown.update(tasks[task], completed=done, total=total or None)

        yield show


def silent(what: str, done: int, total: int) -> None:
    """Shows nothing."""


def _shown(console: Console) -> RichProgress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="progress.data.speed")

    columns = TextColumn("{task.description:>11}"), BarColumn(), MofNCompleteColumn(), Rate()
    return Progress(*columns, TimeRemainingColumn(compact=True), console=console, transient=True)
