"""What a step may ask of the outside world, and the two ways to answer: plainly, or awaited.

A step is a generator: it yields a request and is sent the answer, or is thrown the error that the request ended with.
What lies between two requests never waits for the network, so the same generator serves `add` and `aadd`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeAlias

from typing_extensions import TypeVar

from langchain_memlayer.threads import in_thread

P = ParamSpec("P")
T = TypeVar("T", default=Any)


@dataclass(frozen=True, slots=True)
class Request:
    """A call that may leave the machine: `call` makes it and waits, `acall` makes it and is awaited."""

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
    try:
        while not isinstance(step := await in_thread(_advance, steps, answer, error), _Done):
            try:
                answer, error = await step.acall(), None
            except Exception as failure:  # noqa: BLE001 - the step decides what it means, and may raise it again
                error = failure
    except asyncio.CancelledError:
        # Now, and not when its frame is let go; where a thread is still at it, it cannot be.
        with suppress(ValueError):
            steps.close()
        raise
    value: T = step.value
    return value


def stepped(steps: Callable[P, Steps[T]]) -> Callable[P, T]:
    """A function whose body is a step, to be called plainly; `awaited` gives its twin."""

    @wraps(steps)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(steps(*args, **kwargs))

    # `help` and the like show what the caller gets.
    signature = inspect.signature(steps)
    returned = str(signature.return_annotation).removeprefix("Steps[").removesuffix("]")
    vars(call).update(steps=steps, __signature__=signature.replace(return_annotation=returned))
    return call


def awaited(plain: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The awaited twin of a function, with the same parameters; what is no step runs in a thread."""
    steps: Callable[P, Steps[T]] | None = getattr(plain, "steps", None)

    @wraps(plain)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if steps is None:
            return await in_thread(plain, *args, **kwargs)
        return await arun(steps(*args, **kwargs))

    call.__doc__ = f"Like `{plain.__name__}`."
    call.__name__ = f"a{plain.__name__}"
    call.__qualname__ = plain.__qualname__.removesuffix(plain.__name__) + call.__name__
    return call
