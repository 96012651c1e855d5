"""A memory whose scope is filled in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

from langchain_memlayer.errors import InvalidInput, MemoryNotFound, shown
from langchain_memlayer.mem0_filters import scope_and_filter
from langchain_memlayer.result_types import Done, MergeResult
from langchain_memlayer.steps import awaited
from langchain_memlayer.threads import in_thread
from langchain_memlayer.types import IDS, Scope

# What is about one memory: who holds an id of somebody else's learns nothing by it.
_BY_ID: Final = frozenset({"get", "update", "delete", "forget", "history", "why"})
_NONE_GIVEN: Final = object()
"""No id at all, which is for `forget` all of the scope; None is an id that the caller does not have."""
_WHOLE: Final = frozenset({"reset", "areset"})


@dataclass(frozen=True, slots=True)
class Access:
    """What a handle needs of a memory beside its methods.

    Attributes:
        owner: Whose a memory is, ended or not; None when there was never one.
        merge: Merges the fork of a scope that has a name.
        drop: Drops it.
    """

    owner: Callable[[Any], Scope | None]
    merge: Callable[[Scope, str], MergeResult]
    drop: Callable[[Scope, str], Done]


class Bound:
    """What `Memory.of` gives: the methods of a memory with its ids filled in.

    Args:
        memory: The memory.
        access: What else of it is needed.
        scope: Whose memories.

    Raises:
        ScopeRequired: the scope names nobody.
    """

    def __init__(self, memory: Any, access: Access, scope: Scope) -> None:
        self._memory = memory
        self._access = access
        self._scope = scope.required("of()")

    def __repr__(self) -> str:
        return f"<{self._memory!r} of {', '.join(self._scope.ids())}>"

    def __dir__(self) -> list[str]:
        return sorted(set(dir(self._memory)) - _WHOLE)

    def of(self, user_id: Any = None, **ids: Any) -> Bound:
        """The same memory with further ids filled in."""
        return Bound(self._memory, self._access, Scope(**self._with({"user_id": user_id, **ids})))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            # What copies or pickles an object asks for these before it has anything.
            raise AttributeError(name)
        if name in _WHOLE:
            raise AttributeError(f"{name}() is about the whole store; forget() removes what belongs to these ids.")
        value = getattr(self._memory, name)
        if not inspect.ismethod(value):
            return value
        names = inspect.signature(value).parameters
        if name.removeprefix("a") in _BY_ID or name in _BY_ID:
            return self._checked(value, awaited=name not in _BY_ID)
        if "user_id" in names:
            return wraps(value)(lambda *args, **given: value(*args, **self._with(given)))
        return value

    def _with(self, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments with these ids among them."""
        named = Scope(**{name: given.get(name) for name in IDS})
        own = self._scope.beside(named).ids()
        for name, value in own.items():
            if named.ids().get(name, value) != value:
                raise InvalidInput(f"{name} is given here, and another one to of(); ask the memory itself for others.")
        return {**given, **named.ids(), **own}

    def _checked(self, method: Callable[..., Any], *, awaited: bool) -> Callable[..., Any]:
        """A method about one memory, for those of this scope only."""

        async def acall(memory_id: Any = _NONE_GIVEN, *args: Any, **given: Any) -> Any:
            if memory_id is _NONE_GIVEN:
                return await method(**self._with(given))
            known = await in_thread(self._access.owner, memory_id)
            return await method(memory_id, *args, **given) if self._holds(known, memory_id, method) else None

        def call(memory_id: Any = _NONE_GIVEN, *args: Any, **given: Any) -> Any:
            if memory_id is _NONE_GIVEN:
                return method(**self._with(given))
            known = self._access.owner(memory_id)
            return method(memory_id, *args, **given) if self._holds(known, memory_id, method) else None

        return wraps(method)(acall if awaited else call)

    def _holds(self, known: Scope | None, memory_id: Any, method: Callable[..., Any]) -> bool:
        own = self._scope.ids().items()
        # A fork of one's own memories is one's own.
        if known is not None and (own <= known.ids().items() or own <= known.original.ids().items()):
            return True
        if method.__name__ in ("get", "aget"):
            return False
        raise MemoryNotFound(
            f"There is no memory with the id {shown(memory_id)} here; get_all() and search() return the ids."
        )


class Fork(Bound):
    """A copy of a scope to try something out in: what `Memory.fork` gives. All methods of a memory work in it.

    What happens in it leaves the original as it is, until `merge` carries it over; `drop` removes it. Ids that are
    given are those of the original.

    Attributes:
        name: What it is called.
        ids: Those of its own memories, for whatever is no method of the handle.
    """

    def __init__(self, memory: Any, access: Access, scope: Scope, name: str, of: Scope) -> None:
        super().__init__(memory, access, scope)
        self.name, self.ids = name, scope.ids()
        self._of = of

    def of(self, user_id: Any = None, **ids: Any) -> Fork:
        """The same fork with further ids filled in."""
        ids = self._with({"user_id": user_id, **ids})
        return Fork(self._memory, self._access, Scope(**ids), self.name, self._of)

    def _with(self, given: dict[str, Any]) -> dict[str, Any]:
        named = Scope(**{name: given.get(name) for name in IDS})
        if given.get("filters") is not None:
            named, given["filters"] = scope_and_filter(given["filters"], named)
        if named.fork is None:
            named = named.forked(self._scope.fork or "")
        return super()._with({**given, **named.ids()})

    def merge(self) -> MergeResult:
        """Carry over what was added, changed and ended here, and remove the fork.

        A memory that was changed on both sides stays as the original has it, and what the fork says is added beside it;
        one that was ended here and changed there stays. Both are told under `conflicts`.

        Returns:
            `results` and `relations` as `add` returns them, `conflicts`, and the `batch_id` by which `undo` takes the
            merge back.

        Raises:
            InvalidInput: the fork was merged or dropped already.
        """
        return self._access.merge(self._of, self.name)

    amerge = awaited(merge)

    def drop(self) -> Done:
        """Remove the fork from every file; the original stays as it is.

        Raises:
            InvalidInput: the fork was merged or dropped already.
        """
        return self._access.drop(self._of, self.name)

    adrop = awaited(drop)
