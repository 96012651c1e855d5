"""Who calls: the memory, scope and thread of the graph's run that a node, a tool or a hook is part of."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import RunnableConfig, var_child_runnable_config
from langgraph.runtime import Runtime, get_runtime

from langchain_memlayer.errors import ConfigurationError, InvalidInput, ScopeRequired
from langchain_memlayer.messages import to_turns
from langchain_memlayer.types import Scope, Turn

if TYPE_CHECKING:
    from langchain_memlayer.memory import Memory

ScopeSource = Scope | Mapping[str, Any] | Callable[..., Scope | Mapping[str, Any]]
"""Whose memories: a scope, its ids by name, or a function that gives either and may take `state`, `runtime` and
`config`."""

SEARCH_OPTIONS: Final = frozenset({
    "filters", "threshold", "kinds", "explain", "include_quarantined", "reference_time", "as_of", "known_at",
    "max_tokens", "expand", "rerank", "messages", "rewrite",
})  # fmt: skip
"""The arguments of `Memory.search` that surfaces pass on: all but the query, whose memories, and how many."""

_IDS: Final = ("user_id", "agent_id", "run_id")
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
            f'scope must be a Scope, ids by name such as {{"user_id": "alice"}}, or a function, got {source!r}.'
        )
    others = [name for name in inspect.signature(source).parameters if name not in _GIVEN]
    if others:
        raise ConfigurationError(
            f"A scope function is given `state`, `runtime` and `config` by name; it cannot ask for {', '.join(others)}."
        )
    accepted: ScopeSource = source
    return accepted


def checked_options(call: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Further arguments of `Memory.search`; `InvalidInput` for what it does not have, or `call` itself says."""
    unknown = sorted(set(options) - SEARCH_OPTIONS)
    if unknown:
        known = ", ".join(sorted(SEARCH_OPTIONS))
        raise InvalidInput(
            f"{call} passes on to search() {known}, and not {', '.join(map(repr, unknown))}; "
            "whose memories, and how many, it says by arguments of its own."
        )
    return dict(options)


def find_caller(call: str, source: ScopeSource | None, *, state: Any = None, runtime: Any = None) -> Caller:
    """Who calls; `call` is the surface to name in an error.

    Raises:
        ScopeRequired: neither the source nor the run says whose memories are meant, or the run names another user
            than the one who has signed in to the agent server.
    """
    config = var_child_runnable_config.get() or RunnableConfig()
    if runtime is None:
        runtime = _runtime()
    configurable = config.get("configurable") or {}
    context = getattr(runtime, "context", None)
    if source is not None:
        scope = _scope(source, state, runtime, config)
    else:
        scope = _named(call, context, configurable, runtime)
    if not scope:
        raise ScopeRequired(
            f"{call} does not know whose memories are meant: pass "
            f'context={{"user_id": ...}} (or an object with user_id, agent_id or run_id) when you invoke the graph, or '
            f'config={{"configurable": {{"user_id": ...}}}}, or build it with scope=.'
        )
    thread = configurable.get("thread_id")
    session = _value(context, "session_id") or configurable.get("session_id") or thread
    info = getattr(runtime, "execution_info", None)
    return Caller(scope, None if session is None else str(session), getattr(info, "task_id", None))


def find_memory(call: str, memory: Memory | None, *, runtime: Any = None) -> Memory:
    """The memory that a surface was built with, else that of the graph's store.

    Raises:
        ConfigurationError: there is none.
    """
    if memory is not None:
        return memory
    if runtime is None:
        runtime = _runtime()
    found: Memory | None = getattr(getattr(runtime, "store", None), "memory", None)
    if found is None:
        raise ConfigurationError(
            f"{call} was built without a memory and the graph has no store of one: pass the memory, or "
            "compile the graph with compile(store=memory.store)."
        )
    return found


def read_turns(messages: Any, session_id: str | None) -> list[Turn]:
    """The turns in a state's messages, each with an id that stays the same when the graph is run again.

    LangGraph's `add_messages` gives ids. For messages without one it is made from the session, the text, and how many
    equal messages came before; without a session as well there is none, and every call is a new telling.
    """
    messages = spoken(messages)
    turns = to_turns(messages, session_id=session_id) if messages else []
    earlier: Counter[tuple[str, str | None, str]] = Counter()
    found = []
    for turn in turns:
        key = turn.role, turn.name, turn.text
        earlier[key] += 1
        if turn.id is None and turn.session_id is not None:
            turn = replace(turn, id=digest(turn.session_id, *map(str, key), str(earlier[key])))
        found.append(turn)
    return found


def spoken(messages: Any) -> list[Any]:
    """The messages that say something, as a list.

    An empty one that once got into a thread must not stop every turn that comes after it.
    """
    several = isinstance(messages, Sequence) and not isinstance(messages, str)
    return [message for message in (messages if several else [messages]) if not _is_blank(message)]


def last_said(messages: Any) -> tuple[str | None, list[dict[str, Any]]]:
    """The text of the last message of the user, None when there is none, and the messages before it."""
    turns = read_turns(messages, None)
    places = [place for place, turn in enumerate(turns) if turn.role == "user"]
    if not places:
        return None, []
    before = [{"role": turn.role, "content": turn.text, "name": turn.name} for turn in turns[: places[-1]]]
    return turns[places[-1]].text, before


def batch_of(turns: Sequence[Turn], session_id: str | None) -> str | None:
    """The batch id of some turns of a session, or None when they cannot be told from other ones."""
    if any(turn.id is None for turn in turns):
        return None
    return digest("turns", session_id or "", *(turn.id or "" for turn in turns))


def digest(*parts: str) -> str:
    """A short name for some strings in order."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        hashed.update(len(raw).to_bytes(8, "big") + raw)
    return hashed.hexdigest()


def _runtime() -> Runtime[Any] | None:
    return get_runtime() if var_child_runnable_config.get() else None


def _scope(source: ScopeSource, state: Any, runtime: Any, config: RunnableConfig) -> Scope:
    if callable(source):
        given = {"state": state, "runtime": runtime, "config": config}
        source = source(**{name: given[name] for name in inspect.signature(source).parameters})
    return source if isinstance(source, Scope) else _scope_of(source)


def _scope_of(ids: Any) -> Scope:
    if not isinstance(ids, Mapping):
        raise InvalidInput(f"A scope must be a Scope or its ids by name, got {type(ids).__name__}.")
    unknown = set(ids) - set(_IDS)
    if unknown:
        raise InvalidInput(f"A scope has user_id, agent_id and run_id, not {', '.join(map(repr, sorted(unknown)))}.")
    return Scope(**ids)


def _named(call: str, context: Any, configurable: Mapping[str, Any], runtime: Any) -> Scope:
    """The scope that the run's context names, else its configuration; never another user's than who has signed in."""
    ids = {name: _value(context, name) for name in _IDS}
    server = getattr(runtime, "server_info", None)
    if not Scope(**ids):
        ids = {name: configurable.get(name) for name in _IDS}
        if server is not None:
            # The agent server has the run's own number there, which is new with every call, and for nobody "".
            ids = {**ids, "user_id": ids["user_id"] or None, "run_id": None}
    user = getattr(server, "user", None)
    if user is not None and ids["user_id"] != user.identity:
        if ids["user_id"] is not None:
            raise ScopeRequired(
                f"{call} was asked for the memories of user_id {ids['user_id']!r} by {user.identity!r}, who has signed "
                "in. Leave user_id out, and it is who has signed in; to let a client name other users, build it with "
                'scope=lambda runtime: {"user_id": runtime.context["user_id"]}.'
            )
        ids["user_id"] = user.identity
    return Scope(**ids)


def _value(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _is_blank(message: Any) -> bool:
    content = message
    if isinstance(message, (BaseMessage, Mapping)):
        content = message.get("content") if isinstance(message, Mapping) else message.content
    return not (content.strip() if isinstance(content, str) else content)
