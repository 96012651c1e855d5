"""LangSmith runs of the package's own steps.

While tracing is off nothing is imported, recorded or sent. A run's inputs and outputs are what its step was given and
gave; its metadata name the scope by a digest, never by an id.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import orjson

from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from langsmith.run_trees import RunTree

RunType = Literal["chain", "retriever"]
T = TypeVar("T")

_SWITCHES = ("LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING", "LANGCHAIN_TRACING")
# LangChain copies what a caller has in `configurable` into the metadata of its own runs, and runs below inherit it.
_PERSONAL = ("user_id", "agent_id", "run_id", "session_id")


class Span:
    """A run that has begun. It ends once; what comes later is ignored."""

    def __init__(self, run: RunTree, *, posts: bool) -> None:
        self._run = run
        self._posts = posts
        self._open = True
        if posts:
            run.post()

    def end(self, outputs: Mapping[str, Any] | None = None, *, error: BaseException | None = None) -> None:
        """End it, with what the step gave or why it failed."""
        if not self._open:
            return
        self._open = False
        self._run.end(outputs=None if outputs is None else dict(outputs), error=None if error is None else repr(error))
        if self._posts:
            self._run.patch()

    def within(self) -> AbstractContextManager[None]:
        """Runs that begin inside, ours and LangChain's, become children of this one."""
        from langsmith.run_helpers import tracing_context

        return tracing_context(**{**_context(), "parent": self._run})


def traced(
    name: str,
    steps: Generator[Any, Any, T],
    *,
    run_type: RunType = "chain",
    scope: Scope,
    above: RunTree | None = None,
    inputs: Callable[[], Mapping[str, Any]],
    outputs: Callable[[T], Mapping[str, Any]],
) -> Generator[Any, Any, T]:
    """A step of the engine as a run: with the same requests, and the same result.

    Whatever drives the step, in one thread or in several, the runs of its own steps and of the models that it asks are
    children of this one.

    It belongs to the run `above`, else to the one that is going on here. `inputs` and `outputs` give what to record of
    what went in and came out; they are only called while tracing is on.
    """
    span = _begin(name, run_type, scope, inputs, above)
    if span is None:
        return (yield from steps)
    answer: Any = None
    failure: Exception | None = None
    try:
        with closing(steps):
            while True:
                try:
                    with span.within():
                        request = steps.send(answer) if failure is None else steps.throw(failure)
                except StopIteration as stop:
                    value: T = stop.value
                    span.end(outputs(value))
                    return value
                calls = partial(_call, span, request.call), partial(_acall, span, request.acall)
                try:
                    answer, failure = (yield replace(request, call=calls[0], acall=calls[1])), None
                except Exception as error:  # noqa: BLE001 - the step is told, as it would be without a run
                    failure = error
    except BaseException as error:
        span.end(error=error)
        raise


@contextmanager
def span(
    name: str, *, scope: Scope, inputs: Callable[[], Mapping[str, Any]]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A run around what happens in one thread without waiting; gives a function that takes its outputs."""
    begun = _begin(name, "chain", scope, inputs)
    if begun is None:
        yield lambda outputs: None
        return
    given: dict[str, Any] = {}
    try:
        with begun.within():
            yield given.update
    except BaseException as error:
        begun.end(error=error)
        raise
    begun.end(given)


def documents(hits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The outputs of a retriever's run, as LangSmith shows them: memories without the ids of their owners."""
    kept = ("id", "kind", "score", "relevance", "sources", "created_at", "updated_at", "valid_at", "invalid_at")
    return {
        "documents": [
            {"page_content": hit["memory"], "type": "Document", "metadata": {name: hit.get(name) for name in kept}}
            for hit in hits
        ]
    }


def parent() -> RunTree | None:
    """The run that is going on, for what belongs to it but is done in another thread."""
    run: RunTree | None = _context()["parent"] if _mode() is True else None
    return run


def _begin(
    name: str, run_type: RunType, scope: Scope, inputs: Callable[[], Mapping[str, Any]], above: RunTree | None = None
) -> Span | None:
    mode = True if above is not None else _mode()
    if not mode:
        return None
    from langsmith.run_trees import RunTree

    context = _context()
    extra = {"metadata": {"scope": _digest(scope)}}
    above = above or context["parent"]
    if above is not None:
        run = above.create_child(name, run_type, inputs=dict(inputs()), extra=extra)
        for key in _PERSONAL:
            run.extra["metadata"].pop(key, None)
    else:
        project = context["project_name"]
        given: dict[str, Any] = {"client": context["client"]}
        if project is not None:
            given["project_name"] = project
        run = RunTree(name=name, run_type=run_type, inputs=dict(inputs()), extra=extra, **given)
    # "local" builds the runs for whoever looks at them, and sends nothing.
    return Span(run, posts=mode is True)


def _mode() -> bool | Literal["local"]:
    """Whether runs are recorded here and now."""
    # Importing LangSmith takes .1 s; as long as nobody did, only the environment can have switched it on.
    if "langsmith.run_helpers" not in sys.modules and not any(os.environ.get(name) == "true" for name in _SWITCHES):
        return False
    from langsmith.utils import tracing_is_enabled

    return tracing_is_enabled()


def _context() -> dict[str, Any]:
    from langsmith.run_helpers import get_tracing_context

    return get_tracing_context()


def _digest(scope: Scope) -> str:
    return hashlib.blake2b(orjson.dumps(scope.ids()), digest_size=8).hexdigest()


def _call(span: Span, call: Callable[[], Any]) -> Any:
    with span.within(), _ending(span):
        return call()


async def _acall(span: Span, acall: Callable[[], Any]) -> Any:
    with span.within(), _ending(span):
        return await acall()


@contextmanager
def _ending(span: Span) -> Iterator[None]:
    """End a run whose call is interrupted or cancelled: its driver gives the step up."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        span.end(error=error)
        raise
