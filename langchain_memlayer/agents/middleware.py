"""Memory for `langchain.agents.create_agent`: recall before a turn, remember after it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final, NotRequired, TypedDict, cast

from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.tools import BaseTool
from langgraph.channels import UntrackedValue
from langgraph.runtime import Runtime
from langgraph.types import Command

from langchain_memlayer.agents.context import as_context
from langchain_memlayer.agents.exchange import (
    Exchange,
    begin_exchange,
    changed_on_the_way,
    given_to_model,
    listening,
    made_by_model,
    redacted,
    to_remember,
    with_answers,
    with_times,
)
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
    last_said,
    profile_fields,
)
from langchain_memlayer.agents.tools import memory_tools
from langchain_memlayer.arguments import checked_count, checked_flags, checked_seconds
from langchain_memlayer.errors import MissingDependency
from langchain_memlayer.protocols import MemoryLike
from langchain_memlayer.steps import Steps, arun, run
from langchain_memlayer.threads import in_thread
from langchain_memlayer.types import Scope

try:
    from langchain.agents.middleware import AgentMiddleware, ExtendedModelResponse, ModelRequest, ModelResponse
    from langchain.agents.middleware.types import OmitFromOutput, PrivateStateAttr
except ModuleNotFoundError as error:
    raise MissingDependency(
        "The middleware needs the package langchain, which has create_agent: pip install langchain"
    ) from error

_MOST_GIVEN: Final = 256
_Response = ModelResponse[Any] | ExtendedModelResponse[Any]


class MemoryMiddleware(AgentMiddleware[Any, Any]):
    """Long-term memory for an agent; what `Memory.as_middleware` gives.

    Before a turn it searches once for what the user said. Each call of the model gets the result at the end of its
    system message. After the turn it remembers the messages that are new: what the user said and the model was given,
    and what the model answered, as they stand in the state at the end. What another middleware refused, removed,
    replaced or wrote itself is not remembered. A memory that fails does not stop the agent.

    A message with `additional_kwargs={"memory": "off"}` is never remembered, and nothing of a turn that is begun by
    `agent.invoke({"messages": [...], "memory_off": True})`.

    A middleware that replaces the whole system message, such as `dynamic_prompt`, must come before it in the list.

    Args:
        memory: The memory; None means that of the graph's store.
        scope: Whose memories: ids by name, or a function that gives them and may take `state`, `runtime` and `config`.
            None means the run's `context` and `configurable` together, which have to name a user.
        name: Tells the memories of one agent apart, a user's and a team's: it is part of the middleware's name, its
            state's keys, its tools and its block. None means "agent" or "run" when `scope` names no user, else "".
        on_error: "raise" lets a failing memory stop the agent, for tests.
        **further: Those of `Memory.as_middleware`.

    Raises:
        InvalidInput: `search_kwargs` has what `search` does not take, or a limit of its own, or `after_seconds`
            is no number of seconds.
        ScopeRequired: (when it runs) nothing says whose memories are meant.
    """

    def __init__(
        self,
        memory: MemoryLike | None = None,
        *,
        scope: ScopeSource | None = None,
        name: str | None = None,
        limit: int = 10,
        search_kwargs: dict[str, Any] | None = None,
        remember: bool = True,
        background: bool = False,
        after_seconds: float = 0.0,
        tools: bool = False,
        on_error: OnError = "log",
    ) -> None:
        super().__init__()
        self._memory = memory
        self._source = checked_source(scope)
        self._label = _label(self._source) if name is None else checked_name(name)
        checked_flags(remember=remember, background=background, tools=tools)
        options = checked_options(self.name, {} if search_kwargs is None else search_kwargs)
        self._search = {**options, "limit": checked_count(limit, "limit", 1)}
        self._remember = remember
        self._background = background
        self._after_seconds = checked_seconds(after_seconds, "after_seconds")
        self._on_error = checked_on_error(on_error)
        # What the model was given in turns that have not ended, by session and message. A stream that nobody reads on
        # ends no node by an error, and what the node writes then is lost.
        self._given: OrderedDict[tuple[str | None, str], dict[str, Any]] = OrderedDict()
        self._context_key, self._exchange_key = (
            f"{key}_{self._label}".rstrip("_") for key in ("memory_context", "memory_turn")
        )
        self.state_schema = _state_schema(self._context_key, self._exchange_key)
        self.tools: Sequence[BaseTool] = (
            memory_tools(memory, scope=scope, name=self._label, on_error=on_error) if tools else []
        )

    @property
    def name(self) -> str:
        """The name of its nodes in the agent's graph."""
        return f"{type(self).__name__}_{self._label}".rstrip("_")

    def before_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any]:
        """Recall for this turn."""
        return run(self._recall(state, runtime))

    async def abefore_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any]:
        """Like `before_agent`."""
        return await arun(self._recall(state, runtime))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> _Response:
        """Call the model with what was recalled at the end of its system message."""
        with listening() as heard:
            try:
                response = handler(self._with_context(request))
            except Exception:
                run(self._keep_failed(request, heard.messages))
                raise
        return self._with_exchange(request, heard.messages, response)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> _Response:
        """Like `wrap_model_call`."""
        with listening() as heard:
            try:
                response = await handler(self._with_context(request))
            except asyncio.CancelledError:
                # Who is cancelled has no time, and may be cancelled again: a thread comes to its end all the same.
                with suppress(Exception):
                    await in_thread(run, self._keep_failed(request, heard.messages, background=True))
                raise
            except Exception:
                await arun(self._keep_failed(request, heard.messages))
                raise
        return self._with_exchange(request, heard.messages, response)

    def after_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Remember this turn."""
        return run(self._remember_messages(state, runtime))

    async def aafter_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Like `after_agent`."""
        return await arun(self._remember_messages(state, runtime))

    # -- steps ----------------------------------------------------------------------------------------------------

    def _recall(self, state: Any, runtime: Runtime[Any]) -> Steps[dict[str, Any]]:
        memory, caller = self._memory_and_caller(state, runtime)
        messages = state.get("messages", [])
        query, before = last_said(messages)
        earlier = hear(before, None, without=None).turns if self._search.get("rewrite") else []
        given = {"messages": earlier or None, **self._search, **caller.scope.ids()}
        answer: Mapping[str, Any] | None = None
        if query:
            answer = yield from ask(self.name, memory, "search", query, on_error=self._on_error, **given)
        block = ""
        if answer is not None:
            shows_ids = bool(self.tools)
            profile = yield from profile_fields(self.name, memory, given, on_error=self._on_error)
            block = as_context(
                answer["results"], answer["relations"], query=query, ids=shows_ids, name=self._label, profile=profile
            )
        update: dict[str, Any] = {self._context_key: block}
        if self._remember:
            last = self._exchange_of(state) or {}
            ids, off = caller.scope.ids(), bool(state.get(STATE_KEY))
            exchange = update[self._exchange_key] = begin_exchange(messages, last, ids, memory.clock(), off=off)
            left = self._take_given(last, caller)
            if left and not exchange["said"].keys() & last["said"].keys():
                yield from self._add(state, runtime, left, background=True, owner=last.get("owner"))
        return update

    def _take_given(self, exchange: Exchange, caller: Caller) -> list[dict[str, Any]]:
        """What the model was given in a turn that has not ended, unless it was declined; it is forgotten here."""
        keys = [(caller.session_id, key) for key in exchange.get("said", ())]
        taken = {key: self._given.pop((session, key), None) for session, key in keys}
        left = {**{key: one for key, one in taken.items() if one is not None}, **exchange.get("given", {})}
        return [] if exchange.get("off") else list(left.values())

    def _keep_failed(
        self, request: ModelRequest[Any], given: Sequence[BaseMessage] | None, *, background: bool = False
    ) -> Steps[None]:
        """Remember at once what a model was given that then failed: nobody else will know that it was not refused."""
        exchange = self._exchange_of(request.state)
        if exchange is None or given is None or exchange.get("off"):
            return
        kept = given_to_model(request.state.get("messages", []), exchange, given, answered=False)
        yield from self._add(request.state, request.runtime, list(kept.values()), background=background)

    def _remember_messages(self, state: Any, runtime: Runtime[Any]) -> Steps[dict[str, Any] | None]:
        exchange = self._exchange_of(state)
        if exchange is None:
            return None
        messages, refused = to_remember(state.get("messages", []), exchange)
        caller = self._memory_and_caller(state, runtime)[1]
        self._take_given(exchange, caller)
        yield from self._add(state, runtime, messages, refused)
        return {
            self._exchange_key: {
                "refused": refused, "redacted": sorted(redacted(exchange)), "owner": caller.scope.ids(),
            }
        }  # fmt: skip

    def _add(
        self,
        state: Any,
        runtime: Any,
        messages: Sequence[Any],
        refused: Sequence[str] = (),
        *,
        background: bool = False,
        owner: Mapping[str, str] | None = None,
    ) -> Steps[None]:
        memory, caller = self._memory_and_caller(state, runtime)
        said = hear(messages, caller.session_id, without=refused)
        given: dict[str, Any] = {
            **(owner or caller.scope.ids()),
            "session_id": caller.session_id,
            "batch_id": batch_of(said.turns, caller.session_id),
            "background": background or self._background,
            "after_seconds": self._after_seconds,
        }
        if said.turns:
            turns = with_times(said.turns, self._exchange_of(state) or {}, memory.clock())
            yield from ask(self.name, memory, "add", turns, on_error=self._on_error, **given)

    def _memory_and_caller(self, state: Any, runtime: Any) -> tuple[MemoryLike, Caller]:
        memory = find_memory(self.name, self._memory, runtime=runtime)
        return memory, find_caller(self.name, self._source, state=state, runtime=runtime)

    # -- the model's call -----------------------------------------------------------------------------------------

    def _exchange_of(self, state: Any) -> Exchange | None:
        return cast("Exchange", state.get(self._exchange_key) or {}) if self._remember else None

    def _with_exchange(
        self, request: ModelRequest[Any], given: Sequence[BaseMessage] | None, response: ModelResponse[Any]
    ) -> _Response:
        exchange = self._exchange_of(request.state)
        if not exchange:
            return response
        answered = any(made_by_model(one) for one in response.result)
        if given is None and answered:
            # Asked in a thread that knows nothing of this one.
            given = request.messages
        if given is None:
            return response
        messages = request.state.get("messages", [])
        kept = given_to_model(messages, exchange, given, answered=answered)
        session = self._memory_and_caller(request.state, request.runtime)[1].session_id
        self._given.update({(session, key): one for key, one in kept.items()})
        while len(self._given) > _MOST_GIVEN:
            self._given.popitem(last=False)
        new = with_answers(exchange, kept, changed_on_the_way(messages, given), response.result)
        return ExtendedModelResponse(model_response=response, command=Command(update={self._exchange_key: new}))

    def _with_context(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        block = cast("str | None", request.state.get(self._context_key))
        if not block:
            return request
        before = request.system_message
        if before is None:
            return request.override(system_message=SystemMessage(block))
        # Blocks of content may carry marks for the provider's prompt cache, which stay valid when one is appended.
        content: str | list[Any] = f"{before.content}\n\n{block}"
        if not isinstance(before.content, str):
            content = [*before.content, {"type": "text", "text": f"\n\n{block}"}]
        return request.override(system_message=before.model_copy(update={"content": content}))


def _label(source: ScopeSource | None) -> str:
    """What tells this memory from that of a user: nothing, or the widest thing that it belongs to."""
    if not isinstance(source, Scope) or source.user_id is not None:
        return ""
    return "agent" if source.agent_id is not None else "run"


def _state_schema(context: str, exchange: str) -> Any:
    """The state of one middleware: what was recalled, how the turn went, and whether it is declined."""
    return TypedDict(  # type: ignore[operator]
        "MemoryMiddlewareState",
        {
            context: NotRequired[Annotated[str, PrivateStateAttr]],
            exchange: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]],
            STATE_KEY: NotRequired[Annotated[bool, UntrackedValue, OmitFromOutput]],
        },
    )
