"""CPU time, one peer after the other in small turns, and Markdown tables."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Samples:
    """What the calls of one peer took, seconds.

    Attributes:
        cpu: CPU time of the process, all of its threads.
        wall: Time on the clock.
        values: What the calls gave.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    @property
    def ms(self) -> float:
        """CPU milliseconds of the middle call."""
        return 1000 * statistics.median(self.cpu)

    @property
    def wall_ms(self) -> float:
        """Milliseconds on the clock of the middle call."""
        return 1000 * statistics.median(self.wall)


Timed = tuple[float, float, Any]
"""CPU seconds, wall seconds, result."""


def timed(call: Callable[[], Any]) -> Timed:
    """Run a call; what its process spent on it and what it gave."""
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return time.process_time() - cpu, time.perf_counter() - wall, value


def interleaved(
    calls: dict[str, Callable[[int], Timed]], *, most: int, least: int = 3, budget: float = 4.0, turn: int = 5
) -> dict[str, Samples]:
    """Let the peers take turns of a few calls each, the same numbers for all, until each has had enough.

    Args:
        calls: For each peer a function from the number of the call.
        most: How many calls at most.
        least: How many at least, however long they take.
        budget: CPU seconds after which a peer has had enough.
        turn: How many calls a peer makes in its turn.
    """
    samples = {name: Samples() for name in calls}
    for start in range(0, most, turn):
        for name, call in calls.items():
            mine = samples[name]
            for number in range(start, min(start + turn, most)):
                if len(mine.cpu) >= least and sum(mine.cpu) > budget:
                    break
                cpu, wall, value = call(number)
                mine.cpu.append(cpu)
                mine.wall.append(wall)
                mine.values.append(value)
    return samples


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    return "" if value is None else figure(value) if isinstance(value, float) else str(value)


def figure(value: float) -> str:
    """A number with three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"


@contextmanager
def said(note: Callable[[str], None], what: str) -> Iterator[None]:
    """Tell how long something took, for whoever waits."""
    start = time.perf_counter()
    yield
    note(f"{what}: {time.perf_counter() - start:.1f} s")
