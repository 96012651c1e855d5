"""What an engine's step may ask of the outside world, and the two ways to answer: plainly, or awaited.

A step is a generator: it yields a request and is sent the answer. What lies between two requests never waits for the
network, so the same generator serves `add` and `aadd`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

Steps = Generator["Request", Any, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """A call that may leave the machine.

    Attributes:
        call: Makes the call and waits for it.
        acall: Makes the call and is awaited.
    """

    call: Callable[[], Any]
    acall: Callable[[], Awaitable[Any]]


def request(call: Callable[[], Any], acall: Callable[[], Awaitable[Any]]) -> Steps:
    """A step that only makes a request, and returns the answer."""
    return (yield Request(call, acall))


@dataclass(frozen=True, slots=True)
class _Done:
    value: Any


def _advance(steps: Steps, answer: Any) -> Request | _Done:
    try:
        request: Request = steps.send(answer)
    except StopIteration as stop:
        return _Done(stop.value)
    return request


def run(steps: Steps) -> Any:
    """Drive a step to its end in this thread; gives what it returns."""
    answer = None
    with closing(steps):
        while not isinstance(step := _advance(steps, answer), _Done):
            answer = step.call()
    return step.value


async def arun(steps: Steps) -> Any:
    """Drive a step to its end: requests are awaited in this event loop, the rest runs in a thread."""
    answer = None
    while not isinstance(step := await asyncio.to_thread(_advance, steps, answer), _Done):
        answer = await step.acall()
    return step.value
