"""Tools for tests: fakes that make a run repeatable, and a conformance suite for any LangGraph `BaseStore`.

    from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, ScriptedChatModel, SequentialIds
    from langchain_memlayer.testing import StoreConformance

The fakes need no test runner; `StoreConformance` needs pytest. It and `ScriptedChatModel` are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_memlayer.testing.fakes import DeterministicEmbeddings, FrozenClock, SequentialIds

if TYPE_CHECKING:
    from langchain_memlayer.testing.conformance import StoreConformance
    from langchain_memlayer.testing.models import ScriptedChatModel

__all__ = ["DeterministicEmbeddings", "FrozenClock", "ScriptedChatModel", "SequentialIds", "StoreConformance"]


# A type checker would take it that there is any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        home = {"StoreConformance": "conformance", "ScriptedChatModel": "models"}.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{home}"), name)
