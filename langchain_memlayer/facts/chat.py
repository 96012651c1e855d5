"""Calls of a chat model for one JSON object: as strictly as the model can, and with one error for all failures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from langchain_memlayer.errors import ConfigurationError, ExtractionError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable, RunnableConfig

Method = Literal["json_schema", "function_calling", "text"]
"""How a model is held to a schema: by the provider's structured output, by a forced function call, by the prompt."""

METHODS: Final[tuple[Method, ...]] = ("json_schema", "function_calling", "text")

# What providers answer when they do not know a schema, or a forced call.
_REFUSALS = frozenset({400, 404, 422, 501})
_SHOWN = 300


class StructuredChat:
    """A chat model that is asked for JSON objects of one schema. Threads and event loops may share it.

    The method is decided once: by the model's `profile` when it has one, else by what its class implements. A call
    that the provider refuses as invalid is repeated once as text; when that succeeds, it stays the method.

    Args:
        model: Any LangChain chat model.
        schema: A JSON schema with a title. The prompt must ask for the same form: not every method enforces it.
        run_name: The name of its runs in a trace; the run is tagged `nostream`, so that its tokens stay out of the
            stream of a graph that it is called in.
        method: The method to use, instead of deciding.

    Attributes:
        method: The method in use.
    """

    def __init__(
        self, model: BaseChatModel, schema: Mapping[str, Any], *, run_name: str, method: Method | None = None
    ) -> None:
        if method is not None and method not in METHODS:
            raise ConfigurationError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}, or None.")
        self._model = model
        self._config: RunnableConfig = {"run_name": run_name, "tags": ["nostream"]}
        self.method: Method
        self.method, self._runnable = _prepared(model, schema, _methods(model) if method is None else (method,))

    def ask(self, prompt: Sequence[BaseMessage]) -> str:
        """The model's reply as text: its content, or the arguments of its call.

        Raises:
            ExtractionError: the model failed; from the provider's own error.
        """
        try:
            with _failures():
                return _reply(self._runnable.invoke(list(prompt), self._config))
        except ExtractionError as error:
            if (reply := self._salvaged(error)) is not None:
                return reply
        with _failures():
            reply = _reply(self._model.invoke(list(prompt), self._config))
        self._settle_for_text()
        return reply

    async def aask(self, prompt: Sequence[BaseMessage]) -> str:
        """Like `ask`, awaited."""
        try:
            with _failures():
                return _reply(await self._runnable.ainvoke(list(prompt), self._config))
        except ExtractionError as error:
            if (reply := self._salvaged(error)) is not None:
                return reply
        with _failures():
            reply = _reply(await self._model.ainvoke(list(prompt), self._config))
        self._settle_for_text()
        return reply

    def _salvaged(self, error: ExtractionError) -> str | None:
        """The reply that an error came with, or None when the question is to be repeated as text; else it is raised."""
        if error.reply is None and (self.method == "text" or not _is_refusal(error.__cause__)):
            raise error
        return error.reply

    def _settle_for_text(self) -> None:
        self.method, self._runnable = "text", self._model


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


def _prepared(
    model: BaseChatModel, schema: Mapping[str, Any], methods: Sequence[Method]
) -> tuple[Method, Runnable[Any, Any]]:
    """The first of the methods that the model's class accepts, and what to call."""
    for method in methods:
        if method == "text":
            break
        try:
            return method, model.with_structured_output(dict(schema), method=method, include_raw=True)
        except (NotImplementedError, TypeError, ValueError) as error:
            if len(methods) == 1:
                raise ConfigurationError(
                    f"{type(model).__name__} does not support the method {method!r} ({error}); choose another of "
                    f"{', '.join(METHODS)}, or None."
                ) from error
    return "text", model


@contextmanager
def _failures() -> Iterator[None]:
    """Whatever a provider raises as an `ExtractionError`; cancellation and interrupts pass."""
    try:
        yield
    except Exception as error:  # providers raise classes of their own, which have no root in common
        raise ExtractionError(
            f"The chat model failed, so nothing was written ({type(error).__name__}: {str(error)[:_SHOWN]}). Try "
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


def _reply(output: Any) -> str:
    # What LangChain has parsed is not used: it closes a JSON that was cut off, in the middle of a sentence.
    message: BaseMessage = output["raw"] if isinstance(output, Mapping) else output
    calls = getattr(message, "tool_calls", None)
    if calls:
        return json.dumps(calls[0]["args"], ensure_ascii=False)
    invalid = getattr(message, "invalid_tool_calls", None)
    if invalid:
        return str(invalid[0]["args"] or "")
    return str(message.text) or str(message.additional_kwargs.get("refusal") or "")
