"""A chat model that answers from a script: no provider, no network, every call recorded."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, PrivateAttr

Reply: TypeAlias = str | Mapping[str, Any] | AIMessage | Exception
"""What one call gives: a text, JSON (in a forced call, its arguments), a message, or an exception to raise."""

_PATIENCE = 60.0


class ScriptedChatModel(BaseChatModel):
    """A LangChain chat model that gives its replies in order and records what it was asked.

    It works plain and awaited, streams word by word, and may be shared by threads and event loops.

    Args:
        replies: The replies, one for each call; or a function from the messages of a call to its reply.
        structured: What it supports beyond text: `json_schema` (structured output), `function_calling` (tools). Without
            `function_calling`, `bind_tools` raises `NotImplementedError`.
        refuses: Refuse each call that comes with a schema or tools, as a provider does with status 400.
        together: Each call waits until this many are in flight at once (60 seconds at most).

    Attributes:
        prompts: The messages of each call, in order.
        bound: What each call was bound to: `tools`, `tool_choice`, `response_format` and the like.
        most_in_flight: How many calls were in flight at once, at most.

    Example:
        ```python
        model = ScriptedChatModel(replies=[{"facts": []}, "I did not understand.", TimeoutError("too slow")])
        memory = Memory(":memory:", model=model)
        memory.add("hello", user_id="ann")
        assert model.calls == 1
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    replies: Sequence[Any] | Callable[[list[BaseMessage]], Any] = ()
    structured: tuple[Literal["json_schema", "function_calling"], ...] = ()
    refuses: bool = False
    together: int = 1

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _prompts: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _bound: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _given: int = PrivateAttr(default=0)
    _in_flight: int = PrivateAttr(default=0)
    _most_in_flight: int = PrivateAttr(default=0)
    _waiting: list[Future[None]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        """The messages of each call."""
        return self._prompts

    @property
    def bound(self) -> list[dict[str, Any]]:
        """What each call was bound to."""
        return self._bound

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return len(self._prompts)

    @property
    def most_in_flight(self) -> int:
        """How many calls were in flight at once, at most."""
        return self._most_in_flight

    # -- LangChain's side -----------------------------------------------------------------------------------------

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools; `tool_choice` forces a call of one."""
        if "function_calling" not in self.structured:
            raise NotImplementedError("This ScriptedChatModel has no function_calling; name it in `structured`.")
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """The model held to a schema, by `method="json_schema"` or "function_calling" (the default)."""
        if kwargs.get("method", "function_calling") != "json_schema":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        if "json_schema" not in self.structured:
            raise NotImplementedError("This ScriptedChatModel has no json_schema; name it in `structured`.")
        raw = self.bind(response_format={"type": "json_schema", "json_schema": schema})
        if not include_raw:
            return raw | JsonOutputParser()
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | JsonOutputParser(), parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=raw) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply, waiting = self._enter(messages, kwargs)
        try:
            waiting.result(_PATIENCE)
            return _result(self._message(reply, messages, kwargs))
        finally:
            self._leave()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply, waiting = self._enter(messages, kwargs)
        try:
            await asyncio.wait_for(asyncio.wrap_future(waiting), _PATIENCE)
            return _result(self._message(reply, messages, kwargs))
        finally:
            self._leave()

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._generate(messages, stop, run_manager, **kwargs).generations[0].message
        for chunk in _chunks(message):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        message = (await self._agenerate(messages, stop, run_manager, **kwargs)).generations[0].message
        for chunk in _chunks(message):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    # -- the script -----------------------------------------------------------------------------------------------

    def _enter(self, messages: list[BaseMessage], bound: dict[str, Any]) -> tuple[Any, Future[None]]:
        """Record a call; gives its reply and what it has to wait for."""
        waiting: Future[None] = Future()
        with self._lock:
            self._prompts.append(list(messages))
            self._bound.append(bound)
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            reply = None if self._is_refused(bound) else self._next()
            self._waiting.append(waiting)
            released = list(self._waiting) if self._in_flight >= self.together else []
            if released:
                self._waiting.clear()
        for other in released:
            # One that was cancelled while it waited is done already.
            if not other.cancelled():
                other.set_result(None)
        return reply, waiting

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _next(self) -> Any:
        if callable(self.replies):
            return self.replies
        self._given += 1
        if self._given > len(self.replies):
            return AssertionError(f"The script has {len(self.replies)} replies, and this is call {self._given}.")
        return self.replies[self._given - 1]

    def _is_refused(self, bound: Mapping[str, Any]) -> bool:
        return self.refuses and bool(bound.get("tools") or bound.get("response_format"))

    def _message(self, reply: Any, messages: list[BaseMessage], bound: Mapping[str, Any]) -> AIMessage:
        if self._is_refused(bound):
            raise ModelInvalidRequestError("This model takes neither tools nor a schema (400).")
        if callable(reply) and not isinstance(reply, (BaseMessage, BaseException)):
            reply = reply(messages)
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, AIMessage):
            return reply.model_copy()
        if isinstance(reply, Mapping):
            if bound.get("tool_choice"):
                name = bound["tools"][0]["function"]["name"]
                return AIMessage("", tool_calls=[{"name": name, "args": dict(reply), "id": f"call-{self.calls}"}])
            reply = json.dumps(reply, ensure_ascii=False)
        return AIMessage(str(reply))


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _chunks(message: Any) -> Iterator[ChatGenerationChunk]:
    """A message as a stream: word by word, and at last its tool calls."""
    parts = re.findall(r"\S*\s*", message.content)[:-1] if isinstance(message.content, str) else [message.content]
    for part in parts[:-1]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=part, id=message.id))
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=k)
        for k, call in enumerate(message.tool_calls)
    ]
    last = AIMessageChunk(
        content=parts[-1] if parts else "", id=message.id, tool_call_chunks=calls, usage_metadata=message.usage_metadata
    )
    yield ChatGenerationChunk(message=last)
