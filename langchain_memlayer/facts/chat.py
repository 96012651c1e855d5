"""Calls of a chat model for one JSON object: as strictly as the model can, and with one error for all failures."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from langchain_memlayer.errors import ConfigurationError, ExtractionError, shown
from langchain_memlayer.steps import Steps, awaited, request, stepped
from langchain_memlayer.threads import beside

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable, RunnableConfig

Method = Literal["json_schema", "function_calling", "text"]
"""How a model is held to a schema: by the provider's structured output, by a forced function call, by the prompt."""

METHODS: Final[tuple[Method, ...]] = ("json_schema", "function_calling", "text")

T = TypeVar("T")

# What providers answer when they do not know a schema, or a forced call.
_REFUSALS = frozenset({400, 404, 422, 501})
_SHOWN = 300
_STOPS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_TAKEN = frozenset({
    "content_filter", "content_filtered", "guardrail_intervened", "sensitive", "safety", "refusal",
    "prohibited_content", "blocklist", "spii", "recitation", "error_toxic",
})  # fmt: skip
_CUT_OFF = frozenset({"length", "max_tokens", "model_length"})
_EMPTY = re.compile(r'[\s\w`{}\[\]":]*')
_SHOWN_AGAIN = 4_000


class StructuredChat:
    """A chat model that is asked for JSON objects of one schema. Threads and event loops may share it.

    The methods are tried from the strictest on: those of the model's `profile` when it has one, else those that its
    class implements. A call that the provider refuses as invalid is repeated with the next, which stays if it succeeds.

    Args:
        model: Any LangChain chat model.
        schema: A JSON schema with a title. The prompt must ask for the same form: not every method enforces it, and
            not every provider shows it to the model.
        run_name: The name of its runs in a trace; the run is tagged `nostream`, so that its tokens stay out of the
            stream of a graph that it is called in.
        method: The method to use, instead of deciding.
        timeout: Seconds after which a call counts as failed; None leaves that to the model.
    """

    def __init__(
        self,
        model: BaseChatModel,
        schema: Mapping[str, Any],
        *,
        run_name: str,
        method: Method | None = None,
        timeout: float | None = None,
    ) -> None:
        if method is not None and method not in METHODS:
            raise ConfigurationError(
                f"There is no method {shown(method)}; choose one of {', '.join(METHODS)}, or None."
            )
        if timeout is not None and not timeout > 0:
            raise ConfigurationError(f"timeout is a number of seconds above 0, or None; got {shown(timeout)}.")
        self._config: RunnableConfig = {"run_name": run_name, "tags": ["nostream"]}
        self._timeout = timeout
        self._ways = _ways(model, schema, method)
        self._way = 0

    @property
    def method(self) -> Method:
        """The method in use."""
        return self._ways[self._way][0]

    def asking(self, prompt: Sequence[BaseMessage], read: Callable[[str], T]) -> Steps[T]:
        """A step that gives what `read` makes of the model's reply: of its content, or of the arguments of its calls.

        A reply that `read` raises an `ExtractionError` for is shown to the model with the error, once.

        Raises:
            ExtractionError: the model failed (from the provider's own error), or its second reply cannot be read.
        """
        from langchain_core.messages import AIMessage, HumanMessage

        reply = yield from self._answered(list(prompt))
        try:
            return read(reply)
        except ExtractionError as error:
            fault = str(error).partition(", so no fact was written")[0]
            said = AIMessage(reply[:_SHOWN_AGAIN].strip() or "(nothing)")
            try:
                reply = yield from self._answered([*prompt, said, HumanMessage(f"{fault}. Send it once more.")])
            except ExtractionError:
                raise error from None
        return read(reply)

    ask = stepped(asking)
    aask = awaited(ask)

    def ask_all(
        self, prompts: Sequence[Sequence[BaseMessage]], reads: Sequence[Callable[[str], T]], most: int
    ) -> list[T]:
        """Like `ask` for several prompts, at most `most` of them at once; in their order."""
        if len(prompts) < 2:
            return [self.ask(prompt, read) for prompt, read in zip(prompts, reads, strict=True)]
        from langchain_core.runnables.config import ContextThreadPoolExecutor

        with ContextThreadPoolExecutor(min(most, len(prompts))) as pool:
            tasks = [pool.submit(self.ask, prompt, read) for prompt, read in zip(prompts, reads, strict=True)]
            try:
                return [task.result() for task in tasks]
            finally:
                # After a failure the others' replies are of no use.
                for task in tasks:
                    task.cancel()

    async def aask_all(
        self, prompts: Sequence[Sequence[BaseMessage]], reads: Sequence[Callable[[str], T]], most: int
    ) -> list[T]:
        """Like `ask_all`, awaited."""
        slots = asyncio.Semaphore(most)

        async def one(prompt: Sequence[BaseMessage], read: Callable[[str], T]) -> T:
            async with slots:
                return await self.aask(prompt, read)

        tasks = [asyncio.ensure_future(one(*pair)) for pair in zip(prompts, reads, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            # What is still asked must not outlive this call.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _answered(self, messages: list[BaseMessage]) -> Steps[str]:
        """The model's reply, by the first method that its provider does not refuse."""
        for way in range(self._way, len(self._ways)):
            call = self._ways[way][1], messages
            try:
                reply = yield from request(partial(self._reply, *call), partial(self._areply, *call))
            except ExtractionError as error:
                if error.reply is not None:
                    return error.reply
                if way + 1 < len(self._ways) and _is_refusal(error.__cause__):
                    continue
                raise
            self._way = way
            return reply
        raise AssertionError("the last method answers or raises")

    def _reply(self, model: Runnable[Any, Any], messages: list[BaseMessage]) -> str:
        call = partial(model.invoke, messages, self._config)
        with _failures():
            # A model that hangs is left alone.
            wait = self._timeout is not None
            return _text_of(beside(call, name="memlayer-model").result(self._timeout) if wait else call())

    async def _areply(self, model: Runnable[Any, Any], messages: list[BaseMessage]) -> str:
        with _failures():
            async with asyncio.timeout(self._timeout):
                return _text_of(await model.ainvoke(messages, self._config))


def _methods(model: BaseChatModel) -> tuple[Method, ...]:
    """The methods that a model may have, the strictest first."""
    from langchain_core.language_models import BaseChatModel

    if not isinstance(model, BaseChatModel):
        raise ConfigurationError(
            f"The model is of type {type(model).__name__}; pass a LangChain chat model, such as "
            '`init_chat_model("openai:gpt-4o-mini")`.'
        )
    profile = model.profile
    own = type(model).with_structured_output is not BaseChatModel.with_structured_output
    calls = own or type(model).bind_tools is not BaseChatModel.bind_tools
    if profile:
        own = bool(profile.get("structured_output")) and own
        calls = bool(profile.get("tool_calling")) and profile.get("tool_choice", True) and calls
    return (*(("json_schema",) if own else ()), *(("function_calling",) if calls else ()), "text")


def _ways(
    model: BaseChatModel, schema: Mapping[str, Any], method: Method | None
) -> list[tuple[Method, Runnable[Any, Any]]]:
    """The methods that the model's class accepts, with what to call for each; the last is text."""
    ways: list[tuple[Method, Runnable[Any, Any]]] = []
    methods = _methods(model)
    # Others pass what they do not know on to their provider, which refuses it.
    knows_strict = "strict" in inspect.signature(type(model).with_structured_output).parameters
    for name in methods if method is None else (method, "text"):
        if name == "text":
            return [*ways, ("text", model)]
        try:
            options = {"strict": True} if knows_strict else {}
            ways.append((name, model.with_structured_output(dict(schema), method=name, include_raw=True, **options)))
        except (NotImplementedError, TypeError, ValueError) as error:
            if method is not None:
                raise ConfigurationError(
                    f"{type(model).__name__} does not support the method {name!r} ({error}); choose another of "
                    f"{', '.join(METHODS)}, or None."
                ) from error
    raise AssertionError("text is the last method")


@contextmanager
def _failures() -> Iterator[None]:
    """Whatever a provider raises as an `ExtractionError`; cancellation and interrupts pass."""
    try:
        yield
    except Exception as error:  # providers raise classes of their own, which have no root in common
        raise ExtractionError(
            f"The chat model failed, so no fact was written ({type(error).__name__}: {str(error)[:_SHOWN]}). Try "
            "again, or check the model's name, key and address.",
            reply=_partial(error),
        ) from error


def _is_refusal(error: BaseException | None) -> bool:
    """Whether a provider refused the request as such, and might take it without a schema."""
    from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError

    if isinstance(error, ContextOverflowError):
        return False
    if isinstance(error, (NotImplementedError, ModelInvalidRequestError)):
        return True
    response = getattr(error, "response", None)
    return getattr(error, "status_code", getattr(response, "status_code", None)) in _REFUSALS


def _partial(error: Exception) -> str | None:
    """The beginning of a reply that was cut off, which OpenAI's client raises with the reply inside."""
    choices = getattr(getattr(error, "completion", None), "choices", None)
    if not choices:
        return None
    content = choices[0].message.content
    return content if isinstance(content, str) and content else None


def _text_of(output: Any) -> str:
    """The text of a reply, or the arguments of its calls: as a list when there are several."""
    # What LangChain has parsed is not used: it closes a JSON that was cut off, in the middle of a sentence.
    message: BaseMessage = output["raw"] if isinstance(output, Mapping) else output
    calls = [*(getattr(message, "tool_calls", None) or ()), *(getattr(message, "invalid_tool_calls", None) or ())]
    # Some models make a call of nothing and say it in words.
    arguments = [call["args"] for call in calls if call["args"] or not message.text]
    stopped = {str(message.response_metadata.get(name)).casefold() for name in _STOPS}
    more = message.additional_kwargs
    old = more.get("function_call")
    if len(arguments) == 1 and isinstance(arguments[0], str):
        text = arguments[0]
    elif arguments:
        text = json.dumps(arguments if len(arguments) > 1 else arguments[0], ensure_ascii=False)
        # Those of a stream LangChain has closed, too.
        text = text.rstrip('}] "') if stopped & _CUT_OFF else text
    else:
        text = str(message.text) or str(old.get("arguments") or "" if isinstance(old, Mapping) else "")
    # A list that is empty since the provider took it away says nothing of the conversation.
    if stopped & _TAKEN and _EMPTY.fullmatch(text):
        return ""
    return text or str(more.get("refusal") or "")
