"""Nodes for a LangGraph `StateGraph`: extraction, reconciliation and recall, and the first two as one subgraph.

Each works plain and awaited. What they write is plain data, so any checkpointer can keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from langchain_core.runnables import RunnableLambda

from langchain_memlayer.agents.context import as_context
from langchain_memlayer.agents.scope import (
    Caller,
    ScopeSource,
    batch_of,
    checked_options,
    checked_source,
    find_caller,
    find_memory,
    last_said,
    read_turns,
)
from langchain_memlayer.engine.commit import Outcome
from langchain_memlayer.engine.results import added
from langchain_memlayer.engine.steps import Steps, arun, run
from langchain_memlayer.engine.writing import Prepared
from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.types import Fact, Rejection, Triple, Turn

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

    from langchain_memlayer.memory import Memory

REJECTED = "REJECTED"


def _latest(_: Any, new: Any) -> Any:
    return new


class MemoryState(TypedDict, total=False):
    """The keys that the nodes write; inherit it in a graph's state. Of parallel branches the last one stands.

    Attributes:
        memory_facts: What extraction found: `text`, `quote`, `sources` (ids of the messages that it cites), `triples`,
            `valid_at`, `name`, `metadata`.
        memory_decisions: What was committed: `id`, `memory`, `event`, and `previous_memory` on updates; what was
            refused has the event `REJECTED`, a `reason` and its `quote`.
        memories: What recall found, as `Memory.search` gives it.
        memory_context: The same as a block of text for a system message, "" when there is nothing.
    """

    memory_facts: Annotated[list[dict[str, Any]], _latest]
    memory_decisions: Annotated[list[dict[str, Any]], _latest]
    memories: Annotated[list[dict[str, Any]], _latest]
    memory_context: Annotated[str, _latest]


class _Written(TypedDict):
    memory_facts: list[dict[str, Any]]
    memory_decisions: list[dict[str, Any]]


def extraction_node(
    memory: Memory | None = None, *, scope: ScopeSource | None = None, messages_key: str = "messages"
) -> RunnableLambda[Any, Any]:
    """A node that finds the facts in the messages that were not seen before, and writes them to `memory_facts`.

    Nothing is stored before the reconciliation node has run; what our checks refused is handed to it under
    `memory_decisions`.

    Args:
        memory: The memory; None means that of the graph's store (`compile(store=memory.store)`).
        scope: Whose memories: ids by name, or a function that gives them and may take `state`, `runtime` and `config`.
            None means the run's `context`, else its `configurable`.
        messages_key: The key of the state that has the messages.

    Raises:
        ScopeRequired: (when it runs) nothing says whose memories are meant.
        ExtractionError: (when it runs) the model failed.
    """
    source = checked_source(scope)

    def steps(state: Any) -> Steps:
        found = find_memory("extraction_node()", memory)
        caller = find_caller("extraction_node()", source, state=state)
        turns = read_turns(_read(state, messages_key), caller.session_id)
        prepared: Prepared = yield from found._engine.extract(turns, caller.scope)
        return {
            "memory_facts": [_plain_fact(fact, prepared.turns) for fact in prepared.facts],
            "memory_decisions": [_plain_rejection(refusal) for refusal in prepared.rejected],
        }

    return _node("extraction", steps)


def reconciliation_node(
    memory: Memory | None = None, *, scope: ScopeSource | None = None, messages_key: str = "messages"
) -> RunnableLambda[Any, Any]:
    """A node that decides what `memory_facts` mean for what is known, and commits them with their messages.

    The commit is named after the thread and the ids of the messages: a graph that is resumed or tried again commits
    once, and reports the same.

    Args:
        memory: Like `extraction_node`.
        scope: Like `extraction_node`.
        messages_key: Like `extraction_node`.

    Raises:
        ScopeRequired: (when it runs) nothing says whose memories are meant.
        InvalidInput: (when it runs) the state has no `memory_facts`.
    """
    source = checked_source(scope)

    def steps(state: Any) -> Steps:
        found = find_memory("reconciliation_node()", memory)
        caller = find_caller("reconciliation_node()", source, state=state)
        turns = read_turns(_read(state, messages_key), caller.session_id)
        prepared = yield from _prepared(found, caller, turns, state)
        outcome = yield from found._engine.reconcile(prepared, batch=batch_of(turns, caller.session_id))
        return {"memory_decisions": _decisions(outcome, facts=found._engine.extractor is not None)}

    return _node("reconciliation", steps)


def recall_node(
    memory: Memory | None = None,
    *,
    scope: ScopeSource | None = None,
    messages_key: str = "messages",
    limit: int = 10,
    rewrite: bool | None = None,
    **options: Any,
) -> RunnableLambda[Any, Any]:
    """A node that searches for the last thing the user said, and writes `memories` and `memory_context`.

    Args:
        memory: Like `extraction_node`.
        scope: Like `extraction_node`.
        messages_key: Like `extraction_node`.
        limit: How many memories at most.
        rewrite: Whether the model first makes it a question that stands for itself. None means: when there is a model
            and something was said before.
        **options: Further arguments of `Memory.search`.

    Raises:
        InvalidInput: `options` has what `search` does not take.
        ScopeRequired: (when it runs) nothing says whose memories are meant.
    """
    source = checked_source(scope)
    further = checked_options("recall_node()", options)

    def prepare(state: Any) -> tuple[Memory, str | None, dict[str, Any]]:
        found = find_memory("recall_node()", memory)
        caller = find_caller("recall_node()", source, state=state)
        query, before = last_said(_read(state, messages_key))
        asks = bool(before) and found.model is not None if rewrite is None else rewrite
        given = {"limit": limit, "rewrite": asks, "messages": before or None}
        return found, query, {**given, **further, **caller.scope.ids()}

    def recall(state: Any) -> dict[str, Any]:
        found, query, arguments = prepare(state)
        return _recalled(found.search(query, **arguments) if query else {})

    async def arecall(state: Any) -> dict[str, Any]:
        found, query, arguments = prepare(state)
        return _recalled(await found.asearch(query, **arguments) if query else {})

    return RunnableLambda(recall, arecall, name="recall")


def memory_graph(
    memory: Memory | None = None, *, scope: ScopeSource | None = None, messages_key: str = "messages"
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Extraction and reconciliation as one compiled graph, to be a node of another; what `Memory.as_node` gives.

    It reads the messages and writes `memory_facts` and `memory_decisions`; a parent that does not have these keys may
    leave them out.

    Args:
        memory: Like `extraction_node`.
        scope: Like `extraction_node`; a function's `state` has the messages only.
        messages_key: Like `extraction_node`.
    """
    from langgraph.graph import END, START, StateGraph

    given: Any = TypedDict("MemoryInput", {messages_key: Any})  # type: ignore[misc]
    state: Any = TypedDict("MemoryWork", {messages_key: Any, **_Written.__annotations__})  # type: ignore[misc]
    settings: dict[str, Any] = {"scope": scope, "messages_key": messages_key}
    # The messages are read and not given back: a parent that appends what comes would have them twice.
    builder = StateGraph(state, input_schema=given, output_schema=_Written)
    builder.add_node("extraction", extraction_node(memory, **settings))
    builder.add_node("reconciliation", reconciliation_node(memory, **settings))
    builder.add_edge(START, "extraction").add_edge("extraction", "reconciliation").add_edge("reconciliation", END)
    return builder.compile(name="memory")


def _node(name: str, steps: Callable[[Any], Steps]) -> RunnableLambda[Any, Any]:
    def plain(state: Any) -> Any:
        return run(steps(state))

    async def awaited(state: Any) -> Any:
        return await arun(steps(state))

    return RunnableLambda(plain, awaited, name=name)


def _read(state: Any, key: str) -> Any:
    """What a state has under a key, be it a mapping or an object with attributes."""
    missing = object()
    found = state.get(key, missing) if isinstance(state, Mapping) else getattr(state, key, missing)
    if found is missing:
        raise InvalidInput(f"The graph's state has no {key!r}: name the key that has the messages with messages_key=.")
    return found


def _recalled(found: Mapping[str, Any]) -> dict[str, Any]:
    results = list(found.get("results", ()))
    return {"memories": results, "memory_context": as_context(results, found.get("relations", ()))}


# -- facts as plain data ----------------------------------------------------------------------------------------------


def _plain_fact(fact: Fact, turns: Sequence[Turn]) -> dict[str, Any]:
    return {
        "text": fact.text,
        "quote": fact.quote,
        "sources": [turns[place].id if turns[place].id is not None else place for place in fact.turns],
        "triples": [[triple.source, triple.relation, triple.destination] for triple in fact.triples],
        "valid_at": None if fact.valid_at is None else fact.valid_at.isoformat(),
        "name": fact.name,
        "metadata": dict(fact.metadata),
    }


def _plain_rejection(refusal: Rejection) -> dict[str, Any]:
    return {"event": REJECTED, "memory": refusal.text, "reason": refusal.reason, "quote": refusal.quote}


def _prepared(memory: Memory, caller: Caller, turns: Sequence[Turn], state: Any) -> Steps:
    """What the extraction node left in the state, as the engine's `Prepared`."""
    found = state.get("memory_facts") if isinstance(state, Mapping) else getattr(state, "memory_facts", None)
    if found is None:
        raise InvalidInput(
            "The graph's state has no 'memory_facts': put extraction_node() before reconciliation_node(), and inherit "
            "MemoryState in the state; or use memory.as_node(), which is both in one."
        )
    refused = state.get("memory_decisions") if isinstance(state, Mapping) else getattr(state, "memory_decisions", None)
    fresh: Prepared = yield from memory._engine.extract(turns, caller.scope, infer=False)
    # A turn without an id is always new, so its place among the new ones is the one it had in extraction.
    places: dict[Any, int] = {}
    kept = list(fresh.turns)
    for place, turn in enumerate(kept):
        places[place if turn.id is None else turn.id] = place
    for turn in turns:
        cited = any(turn.id in fact["sources"] for fact in found)
        if turn.id is not None and turn.id not in places and cited:
            places[turn.id] = len(kept)
            kept.append(turn)
    return replace(
        fresh,
        turns=tuple(kept),
        facts=tuple(_fact(fact, places) for fact in found),
        rejected=tuple(
            Rejection(one["memory"], one["reason"], one.get("quote"))
            for one in refused or ()
            if one["event"] == REJECTED
        ),
        exact=False,
    )


def _fact(plain: Mapping[str, Any], places: Mapping[Any, int]) -> Fact:
    sources = [places[source] for source in plain["sources"] if source in places]
    if not sources:
        raise InvalidInput(
            "A fact in 'memory_facts' cites messages that are no longer in the state: let the reconciliation node "
            "follow the extraction node before messages are removed."
        )
    return Fact(
        text=plain["text"],
        turns=tuple(sources),
        quote=plain["quote"],
        triples=tuple(Triple(*triple) for triple in plain["triples"]),
        valid_at=None if plain["valid_at"] is None else datetime.fromisoformat(plain["valid_at"]),
        name=plain["name"],
        metadata=plain["metadata"],
    )


def _decisions(outcome: Outcome, *, facts: bool) -> list[dict[str, Any]]:
    shown = added(outcome, facts=facts)
    refused = [{"event": REJECTED, **one} for one in shown.get("rejected", ())]
    return [*map(dict, shown["results"]), *refused]
