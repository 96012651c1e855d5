"""How often chat models are called, and with how many tokens, whoever calls them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from langchain_memlayer.evaluation.results import Usage

_METER: ContextVar[UsageMeter | None] = ContextVar("memlayer_usage_meter", default=None)


class UsageMeter(BaseCallbackHandler):
    """Counts the calls of chat models that are made inside `counting`, in this thread. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What was counted so far."""
        return self._usage

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is called inside."""
        token = _METER.set(self)
        try:
            yield
        finally:
            _METER.reset(token)

    def on_chat_model_start(self, serialized: dict[str, Any], messages: Any, **kwargs: Any) -> None:
        """A call begins; also one that fails has been made."""
        with self._lock:
            self._usage += Usage(calls=1)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """A call ends, with the tokens that the provider counted."""
        for generation in response.generations[0][:1]:
            message = generation.message if isinstance(generation, ChatGeneration) else None
            counted = message.usage_metadata if isinstance(message, AIMessage) else None
            with self._lock:
                if counted is None:
                    self._usage += Usage(uncounted=1)
                else:
                    self._usage += Usage(input_tokens=counted["input_tokens"], output_tokens=counted["output_tokens"])


register_configure_hook(_METER, inheritable=True)
