"""The seams: what may be replaced, by the package itself or by a user's own object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from langchain_memlayer.types import Candidate, Decision, Extraction, Fact, Turn

Clock = Callable[[], datetime]
"""Gives the present time, aware UTC."""

NewId = Callable[[], str]
"""Gives a fresh id, unique over all stores."""


@runtime_checkable
class Extractor(Protocol):
    """Finds facts in turns; `Memory(extractor=...)` accepts any object with this method.

    Awaited calls take its `aextract` where it has one, else `extract` in a thread.
    """

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        """The facts in `turns`; `context` helps to understand them and is not extracted again.

        The context is what is known from earlier sessions and near to the turns, as turns of the role `memory`, then
        the turns before these.
        """
        ...


@runtime_checkable
class Reconciler(Protocol):
    """Decides what new facts mean for what is known."""

    def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """One decision for each fact, in order (and REJECTED ones for parts of a reply that name no fact).

        The facts come in order of time. It is asked whenever there are candidates or several facts: facts of one call
        may change each other (`Decision.earlier`).
        """
        ...

    async def areconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """Like `reconcile`."""
        ...


class MemoryLike(Protocol):
    """What nodes, tools, middleware and retriever need of a `Memory`; each method has an awaited twin, with `a`."""

    @property
    def model(self) -> Any:
        """The chat model, or None."""

    @property
    def embedder(self) -> str | None:
        """The name of what makes vectors, or None."""

    @property
    def clock(self) -> Clock:
        """The present time."""

    @property
    def profile_schema(self) -> Any:
        """What is to be known of each user, a pydantic model, or None."""

    def profile(self, *args: Any, **kwargs: Any) -> Any:
        """What is known of a user as one object."""

    def search(self, *args: Any, **kwargs: Any) -> Any:
        """The memories that answer a query."""

    def add(self, *args: Any, **kwargs: Any) -> Any:
        """Remember messages."""

    def extract(self, *args: Any, **kwargs: Any) -> Any:
        """Keep messages, and find the facts in them."""

    def reconcile(self, *args: Any, **kwargs: Any) -> Any:
        """Decide what facts mean for what is known, and commit them with their messages."""

    def of(self, *args: Any, **kwargs: Any) -> Any:
        """The same memory with its scope filled in."""

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """Give a memory a new text."""

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """End a memory."""
