"""Nodes for a LangGraph `StateGraph`: extraction, reconciliation and recall, and the first two as one subgraph.

Each works plain and awaited. What they write is plain data, so any checkpointer can keep it. A memory that fails does
not stop the graph: the messages are kept unread, and their facts are found later.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

# LangGraph's own states are made of this one: a class cannot inherit both kinds.
from typing_extensions import TypedDict

from langchain_memlayer.agents.context import as_context
from langchain_memlayer.agents.scope import Caller, ScopeSource, checked_source, find_caller, find_memory
from langchain_memlayer.agents.surface import (
    STATE_KEY,
    OnError,
    ask,
    batch_of,
    checked_name,
    checked_on_error,
    checked_options,
    hear,
    last_begins,
    last_said,
    profile_fields,
)
from langchain_memlayer.arguments import checked_count
from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.json_values import field_of
from langchain_memlayer.messages import Conversation
from langchain_memlayer.protocols import MemoryLike
from langchain_memlayer.steps import Steps, awaited, stepped

_REJECTED, _UNREAD, _SKIPPED = "REJECTED", "UNREAD", "SKIPPED"


def _latest(_: Any, new: Any) -> Any:
    return new


def _union(old: list[str], new: list[str]) -> list[str]:
    return [*old, *(one for one in new if one not in old)]


_Declined = Annotated[list[str], _union]
_Owners = Annotated[dict[str, dict[str, Any]], operator.or_]


class MemoryState(TypedDict, total=False):
    """The keys that the nodes write; inherit it in a graph's state. Of parallel branches the last one stands.

    A node with a name writes `memory_facts_NAME` and so on, which the state then declares itself.

    Attributes:
        memory_facts: What extraction found: `text`, `quote`, `sources` (ids of the messages that it cites), `triples`,
            `valid_at`, `name`, `metadata`.
        memory_decisions: What was committed: `id`, `memory`, `event`, and `previous_memory` on updates. What was
            refused has the event `REJECTED`, a `reason` and its `quote`; what was left out of a message `SKIPPED`; and
            `UNREAD` says that the memory failed, so that the messages are read later.
        memories: What recall found, as `Memory.search` gives it.
        memory_context: The same as a block of text for a system message, "" when there is nothing.
        memory_off: True declines: what is being said is never remembered.
        memory_declined: Ids of the messages that were declined so, or were said by somebody else.
        memory_owners: By the node's name, which user the last run was about (`user_id`) and how far it came (`last`):
            several people may share a thread.
    """

    memory_facts: Annotated[list[dict[str, Any]], _latest]
    memory_decisions: Annotated[list[dict[str, Any]], _latest]
    memories: Annotated[list[dict[str, Any]], _latest]
    memory_context: Annotated[str, _latest]
    memory_off: Annotated[bool, _latest]
    memory_declined: _Declined
    memory_owners: _Owners


def extraction_node(
    memory: MemoryLike | None = None,
    *,
    scope: ScopeSource | None = None,
    messages_key: str = "messages",
    name: str = "",
    on_error: OnError = "log",
) -> RunnableLambda[Any, Any]:
    """A node that finds the facts in the messages that were not seen before, and writes them to `memory_facts`.

    The messages are kept, but no fact is stored before the reconciliation node has run; what our checks refused is
    handed to it under `memory_decisions`.

    Args:
        memory: The memory; None means that of the graph's store (`compile(store=memory.store)`).
        scope: Whose memories: ids by name, or a function that gives them and may take `state`, `runtime` and `config`.
            None means the run's `context` and `configurable` together, which have to name a user.
        messages_key: The key of the state that has the messages.
        name: Tells two memories in one graph apart: what is written has the name at the end of its key.
        on_error: "raise" lets a failing memory stop the graph, for tests.

    Raises:
        ScopeRequired: (when it runs) nothing says whose memories are meant.
    """
    source, on_error = checked_source(scope), checked_on_error(on_error)
    call, keys = "extraction_node()", _keys(name)

    def steps(state: Any) -> Steps:
        target, caller = find_memory(call, memory), find_caller(call, source, state=state)
        said, declined, last = _heard(state, messages_key, caller, name)
        answer: Any = {"facts": [], "rejected": []}
        if said.turns:
            answer = yield from ask(call, target, "extract", said.turns, on_error=on_error, **_ids(caller))
        facts, decisions = [], [{"event": _UNREAD}]
        if answer is not None:
            facts, decisions = answer["facts"], [{"event": _REJECTED, **one} for one in answer["rejected"]]
        written = {keys["memory_facts"]: facts, keys["memory_decisions"]: decisions}
        user = caller.scope.user_id
        owners = {} if None in (user, last) else {"memory_owners": {name: {"user_id": user, "last": last}}}
        return written | owners | ({"memory_declined": declined} if declined else {})

    return _node("extraction", steps)


def reconciliation_node(
    memory: MemoryLike | None = None,
    *,
    scope: ScopeSource | None = None,
    messages_key: str = "messages",
    name: str = "",
    on_error: OnError = "log",
) -> RunnableLambda[Any, Any]:
    """A node that decides what `memory_facts` mean for what is known, and commits them with their messages.

    The commit is named after the thread and the ids of the messages: a graph that is resumed or tried again commits
    once, and reports the same. The arguments are those of `extraction_node`.

    Raises:
        ScopeRequired: (when it runs) nothing says whose memories are meant.
        InvalidInput: (when it runs) the state has no `memory_facts`.
    """
    source, on_error = checked_source(scope), checked_on_error(on_error)
    call, keys = "reconciliation_node()", _keys(name)

    def steps(state: Any) -> Steps:
        target, caller = find_memory(call, memory), find_caller(call, source, state=state)
        said = _heard(state, messages_key, caller, name)[0]
        facts = field_of(state, keys["memory_facts"])
        # Other nodes may write there too.
        before = [one for one in _several(state, keys["memory_decisions"]) if isinstance(one, Mapping)]
        if facts is None:
            raise InvalidInput(
                f"The graph's state has no {keys['memory_facts']!r}: put extraction_node() before "
                "reconciliation_node(), and inherit MemoryState in the state; or use memory.as_node(), which is both."
            )
        given = {**_ids(caller), "batch_id": batch_of(said.turns, caller.session_id), "on_error": on_error}
        answer: Any = None if said.turns else {}
        if said.turns and all(one.get("event") != _UNREAD for one in before):
            rejected = [one for one in before if one.get("event") == _REJECTED]
            answer = yield from ask(call, target, "reconcile", said.turns, facts, rejected=rejected, **given)
        unread = [{"event": _UNREAD}] if answer is None else []
        if unread:
            answer = yield from ask(call, target, "add", said.turns, background=True, **given)
        return {keys["memory_decisions"]: [*_decisions(answer or {}, said), *unread]}

    return _node("reconciliation", steps)


def recall_node(
    memory: MemoryLike | None = None,
    *,
    scope: ScopeSource | None = None,
    messages_key: str = "messages",
    name: str = "",
    limit: int = 10,
    rewrite: bool | None = None,
    on_error: OnError = "log",
    **options: Any,
) -> RunnableLambda[Any, Any]:
    """A node that searches for the last thing the user said, and writes `memories` and `memory_context`.

    Args:
        memory: Like `extraction_node`.
        scope: Like `extraction_node`.
        messages_key: Like `extraction_node`.
        name: Like `extraction_node`.
        limit: How many memories at most.
        rewrite: Whether the model first makes it a question that stands for itself. None means: when there is a model
            and something was said before.
        on_error: "raise" lets a failing memory stop the graph, for tests; else nothing is recalled then.
        **options: Further arguments of `Memory.search`.

    Raises:
        InvalidInput: `options` has what `search` does not take.
        ScopeRequired: (when it runs) nothing says whose memories are meant.
    """
    source, on_error = checked_source(scope), checked_on_error(on_error)
    call, keys = "recall_node()", _keys(name)
    further, limit = checked_options(call, options), checked_count(limit, "limit", 1)

    def steps(state: Any) -> Steps:
        target, caller = find_memory(call, memory), find_caller(call, source, state=state)
        query, before = last_said(_messages(state, messages_key))
        earlier = hear(before, None, without=None).turns if rewrite is not False and target.model is not None else []
        asks = bool(earlier) if rewrite is None else rewrite
        given = {"limit": limit, "rewrite": asks, "messages": earlier or None, **further, **caller.scope.ids()}
        answer = (yield from ask(call, target, "search", query, on_error=on_error, **given)) if query else None
        results, relations = (list(answer["results"]), answer["relations"]) if answer else ([], [])
        profile = (yield from profile_fields(call, target, given, on_error=on_error)) if query else {}
        block = as_context(results, relations, query=query, name=name, profile=profile)
        return {keys["memories"]: results, keys["memory_context"]: block}

    return _node("recall", steps)


def memory_graph(
    memory: MemoryLike | None = None,
    *,
    scope: ScopeSource | None = None,
    messages_key: str = "messages",
    name: str = "",
    on_error: OnError = "log",
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Extraction and reconciliation as one compiled graph, to be a node of another; what `Memory.as_node` gives.

    It reads the messages (and `memory_off`, by which they are declined) and writes `memory_facts` and
    `memory_decisions`; a parent that does not have these keys may leave them out. The arguments are those of
    `extraction_node`; the `state` that a function as `scope` is given has the messages only.
    """
    facts, decisions = (_keys(name)[key] for key in ("memory_facts", "memory_decisions"))
    hearing = {"memory_declined": _Declined, "memory_owners": _Owners}
    declining = {STATE_KEY: bool, **hearing}
    written = {facts: list[dict[str, Any]], decisions: list[dict[str, Any]], **hearing}
    given: Any = TypedDict("MemoryInput", {messages_key: Any, **declining}, total=False)  # type: ignore[misc]
    state: Any = TypedDict("MemoryWork", {messages_key: Any, **written, **declining}, total=False)  # type: ignore[misc]
    output: Any = TypedDict("MemoryOutput", written, total=False)  # type: ignore[misc]
    settings: dict[str, Any] = {"scope": scope, "messages_key": messages_key, "name": name, "on_error": on_error}
    # The messages are read and not given back: a parent that appends what comes would have them twice.
    builder = StateGraph(state, input_schema=given, output_schema=output)
    builder.add_node("extraction", extraction_node(memory, **settings))
    builder.add_node("reconciliation", reconciliation_node(memory, **settings))
    builder.add_edge(START, "extraction").add_edge("extraction", "reconciliation").add_edge("reconciliation", END)
    return builder.compile(name="_".join(filter(None, ("memory", name))))


def _node(name: str, steps: Callable[[Any], Steps]) -> RunnableLambda[Any, Any]:
    plain = stepped(steps)
    return RunnableLambda(plain, awaited(plain), name=name)


def _keys(name: str) -> dict[str, str]:
    """The keys that a node of this name writes, by those of a node without one."""
    keys = ("memory_facts", "memory_decisions", "memories", "memory_context")
    return {key: f"{key}_{name}" if checked_name(name) else key for key in keys}


def _ids(caller: Caller) -> dict[str, Any]:
    return {**caller.scope.ids(), "session_id": caller.session_id}


def _several(state: Any, key: str) -> Collection[Any]:
    """What a state has under a key, where that is a list."""
    value = field_of(state, key)
    return value if isinstance(value, (list, tuple)) else ()


def _messages(state: Any, key: str) -> Any:
    messages = field_of(state, key)
    if messages is None and not (key in state if isinstance(state, Mapping) else hasattr(state, key)):
        raise InvalidInput(
            f"The graph's state has no {shown(key)}: name the key that has the messages with messages_key=."
        )
    return [] if messages is None else messages


def _heard(state: Any, key: str, caller: Caller, name: str) -> tuple[Conversation, list[str], str | None]:
    """What is to be remembered of a state's messages, the ids of those that are not, and of the last one of all."""
    messages, declined = _messages(state, key), _several(state, "memory_declined")
    said = hear(messages, caller.session_id, without=declined)
    turns, ids = said.turns, [turn.id for turn in said.turns]
    owners = field_of(state, "memory_owners")
    owner = owners.get(name) if isinstance(owners, Mapping) else None
    first, place = 0, len(turns)
    owner = owner if isinstance(owner, Mapping) else {}
    if owner.get("last", "") in ids and caller.scope.user_id not in (None, owner.get("user_id")):
        # Somebody else's turn ends with what was answered.
        first = ids.index(owner["last"]) + 1
        while first < len(turns) and turns[first].role != "user":
            first += 1
    if field_of(state, STATE_KEY):
        # What was said last, and what was answered; before it the answer of an earlier turn ends.
        place = last_begins([turn.role == "user" for turn in turns])
    left_out = [one for one in (*ids[:first], *ids[place:]) if one is not None]
    return Conversation(turns[first:place], said.skipped), left_out, ids[-1] if ids else None


def _decisions(answer: Mapping[str, Any], said: Conversation) -> list[dict[str, Any]]:
    refused = [{"event": _REJECTED, **one} for one in answer.get("rejected", ())]
    return [*answer.get("results", ()), *refused, *({"event": _SKIPPED, **one} for one in said.skipped)]
