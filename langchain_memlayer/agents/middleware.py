"""Memory for `langchain.agents.create_agent`: recall before a turn, remember after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, cast

from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.tools import BaseTool
from langgraph.types import Command

from langchain_memlayer.agents.context import as_context
from langchain_memlayer.agents.scope import (
    ScopeSource,
    batch_of,
    checked_options,
    checked_source,
    find_caller,
    find_memory,
    last_said,
    read_turns,
    spoken,
)
from langchain_memlayer.agents.tools import memory_tools
from langchain_memlayer.errors import MissingDependency
from langchain_memlayer.types import Turn

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
    )
    from langchain.agents.middleware.types import PrivateStateAttr
except ModuleNotFoundError as error:
    raise MissingDependency(
        "The middleware needs the package langchain, which has create_agent: pip install langchain"
    ) from error

if TYPE_CHECKING:
    from langgraph.runtime import Runtime

    from langchain_memlayer.memory import Memory


_NAME = "MemoryMiddleware"


class MemoryMiddlewareState(AgentState[Any]):
    """What the middleware keeps for the length of a turn.

    Attributes:
        memory_context: What was recalled, as the text for the system message.
        memory_said: What the user said in this turn: another middleware may cut it out of the messages, as summaries
            do in a turn of many steps, before it is remembered.
    """

    memory_context: NotRequired[Annotated[str, PrivateStateAttr]]
    memory_said: NotRequired[Annotated[list[dict[str, Any]], PrivateStateAttr]]


class MemoryMiddleware(AgentMiddleware[MemoryMiddlewareState, Any]):
    """Long-term memory for an agent; what `Memory.as_middleware` gives.

    Before a turn it searches once for what the user said, each call of the model has the result at the end of its
    system message, and after the turn it remembers the messages that were not seen before. A turn whose model failed is
    remembered with the next one of its thread. A middleware that replaces the whole system message, such as
    `dynamic_prompt`, comes before it in the agent's list.

    Args:
        memory: The memory; None means that of the graph's store.
        scope: Whose memories: ids by name, or a function that gives them and may take `state`, `runtime` and `config`.
            None means the run's `context`, else its `configurable`.
        limit: How many memories are recalled at most.
        search_kwargs: Further arguments of `Memory.search`.
        remember: Whether turns are remembered; False only recalls.
        background: Find the facts of a turn beside the agent, which answers without waiting.
        tools: Whether the agent gets `manage_memory` and `search_memory` too.

    Raises:
        InvalidInput: `search_kwargs` has what `search` does not take, or a limit of its own.
        ScopeRequired: (when it runs) nothing says whose memories are meant.
    """

    state_schema = MemoryMiddlewareState

    def __init__(
        self,
        memory: Memory | None = None,
        *,
        scope: ScopeSource | None = None,
        limit: int = 10,
        search_kwargs: dict[str, Any] | None = None,
        remember: bool = True,
        background: bool = False,
        tools: bool = False,
    ) -> None:
        super().__init__()
        self._memory = memory
        self._source = checked_source(scope)
        self._search = {**checked_options(_NAME, search_kwargs or {}), "limit": limit}
        self._remember = remember
        self._background = background
        self.tools: Sequence[BaseTool] = memory_tools(memory, scope=scope) if tools else []

    def before_agent(self, state: MemoryMiddlewareState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Recall for this turn."""
        memory, query, arguments = self._asked(state, runtime)
        return _recalled(memory.search(query, **arguments) if query else {})

    async def abefore_agent(self, state: MemoryMiddlewareState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Like `before_agent`."""
        memory, query, arguments = self._asked(state, runtime)
        return _recalled(await memory.asearch(query, **arguments) if query else {})

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any] | AIMessage]
    ) -> ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]:
        """Call the model with what was recalled at the end of its system message."""
        return self._noted(request, handler(_injected(request)))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any] | AIMessage]],
    ) -> ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]:
        """Like `wrap_model_call`."""
        return self._noted(request, await handler(_injected(request)))

    def after_agent(self, state: MemoryMiddlewareState, runtime: Runtime[Any]) -> None:
        """Remember this turn."""
        memory, messages, arguments = self._said(state, runtime)
        if messages:
            memory.add(messages, **arguments)

    async def aafter_agent(self, state: MemoryMiddlewareState, runtime: Runtime[Any]) -> None:
        """Like `after_agent`."""
        memory, messages, arguments = self._said(state, runtime)
        if messages:
            await memory.aadd(messages, **arguments)

    def _noted(
        self, request: ModelRequest[Any], response: ModelResponse[Any] | AIMessage
    ) -> ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]:
        # Here and not before the agent: whatever redacts the messages has done so by now.
        said = _said_now(request.state["messages"]) if self._remember else []
        if not said or said == request.state.get("memory_said"):
            return response
        if isinstance(response, AIMessage):
            response = ModelResponse(result=[response])
        return ExtendedModelResponse(model_response=response, command=Command(update={"memory_said": said}))

    def _asked(self, state: MemoryMiddlewareState, runtime: Runtime[Any]) -> tuple[Memory, str | None, dict[str, Any]]:
        memory = find_memory(_NAME, self._memory, runtime=runtime)
        caller = find_caller(_NAME, self._source, state=state, runtime=runtime)
        query, before = last_said(state.get("messages", []))
        return memory, query, {"messages": before or None, **self._search, **caller.scope.ids()}

    def _said(self, state: MemoryMiddlewareState, runtime: Runtime[Any]) -> tuple[Memory, list[Any], dict[str, Any]]:
        """What to remember, nothing when there is nothing, and the further arguments of `add`."""
        memory = find_memory(_NAME, self._memory, runtime=runtime)
        caller = find_caller(_NAME, self._source, state=state, runtime=runtime)
        messages = [*_cut_out(state), *spoken(state.get("messages", []))]
        turns = read_turns(messages, caller.session_id)
        arguments = {
            **caller.scope.ids(),
            "session_id": caller.session_id,
            "batch_id": batch_of(turns, caller.session_id),
            "background": self._background,
        }
        return memory, messages if turns and self._remember else [], arguments


def _recalled(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"memory_context": as_context(found.get("results", ()), found.get("relations", ())), "memory_said": []}


def _said_now(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """What the user said last, without an answer in between; as text, since images would be kept twice."""
    turns = read_turns(messages, None)
    while turns and turns[-1].role != "user":
        turns.pop()
    said = list(takewhile(lambda turn: turn.role == "user", reversed(turns)))
    return [_plain(turn) for turn in reversed(said) if turn.id is not None]


def _plain(turn: Turn) -> dict[str, Any]:
    time = None if turn.time is None else turn.time.isoformat()
    named = {"id": turn.id, "name": turn.name, "timestamp": time, "metadata": dict(turn.metadata)}
    return {"role": turn.role, "content": turn.text, **{key: value for key, value in named.items() if value}}


def _cut_out(state: MemoryMiddlewareState) -> list[dict[str, Any]]:
    """What the user said in this turn and is no longer among the messages."""
    there = {getattr(message, "id", None) for message in state.get("messages", [])}
    return [message for message in state.get("memory_said", []) if message["id"] not in there]


def _injected(request: ModelRequest[Any]) -> ModelRequest[Any]:
    block = cast("str | None", request.state.get("memory_context"))
    if not block:
        return request
    before = request.system_message
    if before is None:
        return request.override(system_message=SystemMessage(block))
    # Blocks of content may carry marks for the provider's prompt cache, which stay valid when a block is appended.
    content: str | list[Any] = f"{before.content}\n\n{block}"
    if not isinstance(before.content, str):
        content = [*before.content, {"type": "text", "text": f"\n\n{block}"}]
    return request.override(system_message=before.model_copy(update={"content": content}))
