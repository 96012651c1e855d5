"""Who calls: the memory, scope and thread of the graph's run that a node, a tool or a hook is part of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from langchain_core.runnables.config import RunnableConfig, var_child_runnable_config
from langgraph.runtime import Runtime, get_runtime

from langchain_memlayer.errors import ConfigurationError, InvalidInput, ScopeRequired, shown
from langchain_memlayer.json_values import field_of
from langchain_memlayer.messages import mended_text
from langchain_memlayer.protocols import MemoryLike
from langchain_memlayer.types import IDS, Scope

ScopeSource = Scope | Mapping[str, Any] | Callable[..., Scope | Mapping[str, Any]]
"""Whose memories: a scope, its ids by name, or a function that gives either and may take `state`, `runtime` and
`config`."""

_GIVEN: Final = frozenset({"state", "runtime", "config"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose run this is.

    Attributes:
        scope: Whose memories.
        session_id: The conversation: the one that is named, else the thread.
        task: The step of the graph; the same when it is tried again, or None outside of a graph.
    """

    scope: Scope
    session_id: str | None
    task: str | None


def checked_source(source: Any) -> ScopeSource | None:
    """The scope's source; `InvalidInput` or `ConfigurationError` when it cannot be one."""
    if source is None or isinstance(source, Scope):
        return source
    if isinstance(source, Mapping):
        return _scope_of(source)
    if not callable(source):
        raise InvalidInput(
            f'scope must be a Scope, ids by name such as {{"user_id": "alice"}}, or a function, got {shown(source)}.'
        )
    others = [name for name in inspect.signature(source).parameters if name not in _GIVEN]
    if others:
        raise ConfigurationError(
            f"A scope function is given `state`, `runtime` and `config` by name; it cannot ask for {', '.join(others)}."
        )
    accepted: ScopeSource = source
    return accepted


def find_caller(call: str, source: ScopeSource | None, *, state: Any = None, runtime: Any = None) -> Caller:
    """Who calls; `call` is the surface to name in an error.

    Raises:
        ScopeRequired: neither the source nor the run says whose memories are meant, the run says two different things,
            or it names another user than the one who has signed in to the agent server.
    """
    config = var_child_runnable_config.get() or RunnableConfig()
    if runtime is None:
        runtime = _runtime()
    configurable = config.get("configurable") or {}
    context = getattr(runtime, "context", None)
    if source is not None:
        scope = _scope(call, source, state, runtime, config)
        if not scope:
            raise ScopeRequired(f"The scope= of {call} gave no id: let it name user_id, agent_id or run_id.")
    else:
        scope = _named_scope(call, context, configurable, getattr(runtime, "server_info", None))
    thread = configurable.get("thread_id")
    session = field_of(context, "session_id") or configurable.get("session_id") or thread
    info = getattr(runtime, "execution_info", None)
    session = None if session is None else mended_text(str(session)).strip() or None
    return Caller(scope, session, getattr(info, "task_id", None))


def find_memory(call: str, memory: MemoryLike | None, *, runtime: Any = None) -> MemoryLike:
    """The memory that a surface was built with, else that of the graph's store.

    Raises:
        ConfigurationError: there is none.
    """
    if memory is not None:
        return memory
    if runtime is None:
        runtime = _runtime()
    of_store: MemoryLike | None = getattr(getattr(runtime, "store", None), "memory", None)
    if of_store is None:
        raise ConfigurationError(
            f"{call} was built without a memory and the graph has no store of one: pass the memory, or "
            "compile the graph with compile(store=memory.store)."
        )
    return of_store


def _runtime() -> Runtime[Any] | None:
    return get_runtime() if var_child_runnable_config.get() else None


def _scope(call: str, source: ScopeSource, state: Any, runtime: Any, config: RunnableConfig) -> Scope:
    if callable(source):
        given = {"state": state, "runtime": runtime, "config": config}
        try:
            source = source(**{name: given[name] for name in inspect.signature(source).parameters})
        except (KeyError, AttributeError, TypeError) as error:
            raise ScopeRequired(
                f"The scope= of {call} found no id in this run ({type(error).__name__}: {error}). Of a state, "
                "as_node() gives it the messages only: take the ids from `runtime` or `config`, or use "
                "extraction_node() and reconciliation_node(), which give it all."
            ) from error
    return source if isinstance(source, Scope) else _scope_of(source)


def _scope_of(ids: Any) -> Scope:
    if not isinstance(ids, Mapping):
        raise InvalidInput(f"A scope must be a Scope or its ids by name, got {type(ids).__name__}.")
    unknown = set(ids) - set(IDS)
    if unknown:
        raise InvalidInput(f"A scope has user_id, agent_id and run_id, not {', '.join(map(repr, sorted(unknown)))}.")
    return Scope(**ids)


def _named_scope(call: str, context: Any, configurable: Mapping[str, Any], server: Any) -> Scope:
    """The scope that the run's context and its configuration name together; always somebody's, and of nobody else."""
    configured = {name: configurable.get(name) for name in IDS}
    if server is not None:
        # The agent server has the run's own number there, which is new with every call, and for nobody "".
        configured |= {"user_id": configured["user_id"] or None, "run_id": None}
    one, other = Scope(**{name: field_of(context, name) for name in IDS}), Scope(**configured)
    for name, value in one.ids().items():
        if other.ids().get(name, value) != value:
            raise ScopeRequired(
                f"{call} was given two different {name}, one in context and one in configurable: pass it in one place."
            )
    scope = Scope(**{**other.ids(), **one.ids()})
    user = getattr(server, "user", None)
    if user is not None:
        scope = _signed_in(call, scope, user.identity)
    if scope.user_id is None:
        raise ScopeRequired(
            f"{call} does not know whose memories are meant: pass "
            f'context={{"user_id": ...}} (or an object with user_id) when you invoke the graph, or '
            f'config={{"configurable": {{"user_id": ...}}}}, or build it with scope=. For the memories of an agent or '
            f'a run, whoever the user is, build it with scope={{"agent_id": ...}} or a function that gives it.'
        )
    return scope


def _signed_in(call: str, scope: Scope, identity: str) -> Scope:
    if scope.user_id not in (None, identity):
        raise ScopeRequired(
            f"{call} was asked for the memories of user_id {shown(scope.user_id)} by {shown(identity)}, who has signed "
            "in. Leave user_id out, and it is who has signed in; to let a client name other users, build it with "
            'scope=lambda runtime: {"user_id": runtime.context["user_id"]}.'
        )
    return Scope(identity, scope.agent_id, scope.run_id)
