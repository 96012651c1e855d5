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
from langchain_memlayer.agents.course import (
    Course,
    begun,
    given_of,
    listening,
    made_by_model,
    remembered,
    timed,
    with_answers,
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

_MOST_ASKED: Final = 256
_Response = ModelResponse[Any] | ExtendedModelResponse[Any]


class MemoryMiddleware(AgentMiddleware[Any, Any]):
    """Long-term memory for an agent; what `Memory.as_middleware` gives.

    Before a turn it searches once for what the user said, each call of the model has the result at the end of its
    system message, and after the turn it remembers the messages that were not seen before: what the user said and the
    model was given, and what the model answered, as they stand in the state at the end. What another middleware
    refused, removed, replaced or wrote itself is not remembered. A memory that fails does not stop the agent.

    A person declines that a message is remembered, now or later, by `additional_kwargs={"memory": "off"}`, or all of a
    turn by `agent.invoke({"messages": [...], "memory_off": True})`.

    A middleware that replaces the whole system message, such as `dynamic_prompt`, comes before it in the agent's list.

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
        self._asked: OrderedDict[tuple[str | None, str], dict[str, Any]] = OrderedDict()
        self._context, self._course = (f"{key}_{self._label}".rstrip("_") for key in ("memory_context", "memory_turn"))
        self.state_schema = _state_schema(self._context, self._course)
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
                response = handler(self._injected(request))
            except Exception:
                run(self._keep(request, heard.messages))
                raise
        return self._noted(request, heard.messages, response)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> _Response:
        """Like `wrap_model_call`."""
        with listening() as heard:
            try:
                response = await handler(self._injected(request))
            except asyncio.CancelledError:
                # Who is cancelled has no time, and may be cancelled again: a thread comes to its end all the same.
                with suppress(Exception):
                    await in_thread(run, self._keep(request, heard.messages, background=True))
                raise
            except Exception:
                await arun(self._keep(request, heard.messages))
                raise
        return self._noted(request, heard.messages, response)

    def after_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Remember this turn."""
        return run(self._remembering(state, runtime))

    async def aafter_agent(self, state: Any, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Like `after_agent`."""
        return await arun(self._remembering(state, runtime))

    # -- steps ----------------------------------------------------------------------------------------------------

    def _recall(self, state: Any, runtime: Runtime[Any]) -> Steps[dict[str, Any]]:
        memory, caller = self._called(state, runtime)
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
        update: dict[str, Any] = {self._context: block}
        if self._remember:
            last = self._course_of(state) or {}
            ids, off = caller.scope.ids(), bool(state.get(STATE_KEY))
            course = update[self._course] = begun(messages, last, ids, memory.clock(), off=off)
            left = self._left(last, caller)
            if left and not course["said"].keys() & last["said"].keys():
                yield from self._add(state, runtime, left, background=True, owner=last.get("owner"))
        return update

    def _left(self, course: Course, caller: Caller) -> list[dict[str, Any]]:
        """What the model was given in a turn that has not ended, unless it was declined; it is forgotten here."""
        keys = [(caller.session_id, key) for key in course.get("said", ())]
        taken = {key: self._asked.pop((session, key), None) for session, key in keys}
        left = {**{key: one for key, one in taken.items() if one is not None}, **course.get("given", {})}
        return [] if course.get("off") else list(left.values())

    def _keep(
        self, request: ModelRequest[Any], given: Sequence[BaseMessage] | None, *, background: bool = False
    ) -> Steps[None]:
        """Remember at once what a model was given that then failed: nobody else will know that it was not refused."""
        course = self._course_of(request.state)
        if course is None or given is None or course.get("off"):
            return
        kept = given_of(request.messages, course, given, answered=False)
        yield from self._add(request.state, request.runtime, list(kept.values()), background=background)

    def _remembering(self, state: Any, runtime: Runtime[Any]) -> Steps[dict[str, Any] | None]:
        course = self._course_of(state)
        if course is None:
            return None
        messages, refused = remembered(state.get("messages", []), course)
        caller = self._called(state, runtime)[1]
        self._left(course, caller)
        yield from self._add(state, runtime, messages, refused)
        return {self._course: {"refused": refused, "owner": caller.scope.ids()}}

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
        memory, caller = self._called(state, runtime)
        said = hear(messages, caller.session_id, without=refused)
        given: dict[str, Any] = {
            **(owner or caller.scope.ids()),
            "session_id": caller.session_id,
            "batch_id": batch_of(said.turns, caller.session_id),
            "background": background or self._background,
            "after_seconds": self._after_seconds,
        }
        if said.turns:
            turns = timed(said.turns, self._course_of(state) or {}, memory.clock())
            yield from ask(self.name, memory, "add", turns, on_error=self._on_error, **given)

    def _called(self, state: Any, runtime: Any) -> tuple[MemoryLike, Caller]:
        memory = find_memory(self.name, self._memory, runtime=runtime)
        return memory, find_caller(self.name, self._source, state=state, runtime=runtime)

    # -- the model's call -----------------------------------------------------------------------------------------

    def _course_of(self, state: Any) -> Course | None:
        return (state.get(self._course) or {}) if self._remember else None

    def _noted(
        self, request: ModelRequest[Any], given: Sequence[BaseMessage] | None, response: ModelResponse[Any]
    ) -> _Response:
        course = self._course_of(request.state)
        if not course:
            return response
        answered = any(made_by_model(one) for one in response.result)
        if given is None and answered:
            # Asked in a thread that knows nothing of this one.
            given = request.messages
        if given is None:
            return response
        kept = given_of(request.messages, course, given, answered=answered)
        session = self._called(request.state, request.runtime)[1].session_id
        self._asked.update({(session, key): one for key, one in kept.items()})
        while len(self._asked) > _MOST_ASKED:
            self._asked.popitem(last=False)
        new = with_answers(course, kept, response.result)
        return ExtendedModelResponse(model_response=response, command=Command(update={self._course: new}))

    def _injected(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        block = cast("str | None", request.state.get(self._context))
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


def _state_schema(context: str, course: str) -> Any:
    """The state of one middleware: what was recalled, how the turn went, and whether it is declined."""
    return TypedDict(  # type: ignore[operator]
        "MemoryMiddlewareState",
        {
            context: NotRequired[Annotated[str, PrivateStateAttr]],
            course: NotRequired[Annotated[dict[str, Any], PrivateStateAttr]],
            STATE_KEY: NotRequired[Annotated[bool, UntrackedValue, OmitFromOutput]],
        },
    )
