"""What an engine's step may ask of the outside world, and the two ways to answer: plainly, or awaited.

A step is a generator: it yields a request and is sent the answer, or is thrown the error that the request ended with.
What lies between two requests never waits for the network, so the same generator serves `add` and `aadd`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeAlias

from typing_extensions import TypeVar

from langchain_memlayer.loops import in_thread

T = TypeVar("T", default=Any)


@dataclass(frozen=True, slots=True)
class Request:
    """A call that may leave the machine.

    Attributes:
        call: Makes the call and waits for it.
        acall: Makes the call and is awaited.
    """

    call: Callable[[], Any]
    acall: Callable[[], Awaitable[Any]]


Steps: TypeAlias = Generator[Request, Any, T]
"""A step that returns a `T`."""


def request(call: Callable[[], T], acall: Callable[[], Awaitable[T]]) -> Steps[T]:
    """A step that only makes a request, and returns the answer."""
    answer: T = yield Request(call, acall)
    return answer


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any


def _advance(steps: Steps[Any], answer: Any, error: Exception | None) -> Request | _Done:
    try:
        return steps.send(answer) if error is None else steps.throw(error)
    except StopIteration as stop:
        return _Done(stop.value)


def run(steps: Steps[T]) -> T:
    """Drive a step to its end in this thread; gives what it returns."""
    answer, error = None, None
    with closing(steps):
        while not isinstance(step := _advance(steps, answer, error), _Done):
            try:
                answer, error = step.call(), None
            except Exception as failure:  # noqa: BLE001 - the step decides what it means, and may raise it again
                error = failure
    value: T = step.value
    return value


async def arun(steps: Steps[T]) -> T:
    """Drive a step to its end: requests are awaited in this event loop, the rest runs in a thread."""
    answer, error = None, None
    while not isinstance(step := await in_thread(_advance, steps, answer, error), _Done):
        try:
            answer, error = await step.acall(), None
        except Exception as failure:  # noqa: BLE001 - the step decides what it means, and may raise it again
            error = failure
    value: T = step.value
    return value
