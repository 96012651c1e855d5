"""Long-term memory for LangChain and LangGraph agents.

     messages ──> extraction ──> reconciliation ──> JOURNAL (SQL, append-only, the only truth)
                                                        │
                                                        ├─> vectors   FAISS slabs + HNSW
                                                        ├─> keywords  BM25 with the scope's own statistics
                                                        └─> graph
     query ──> dense + keyword + graph + time ──> fusion ──> re-read from the journal ──> budget ──> result

Names are loaded when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_memlayer.checkpoint import checkpointer
    from langchain_memlayer.embeddings import WordLlamaEmbeddings
    from langchain_memlayer.errors import (
        ConfigurationError,
        EmbedderMismatch,
        EmbeddingError,
        ExtractionError,
        InvalidFilter,
        InvalidInput,
        JournalClosed,
        JournalError,
        MemLayerError,
        MemoryNotFound,
        MissingDependency,
        NotAStore,
        SchemaTooNew,
        ScopeRequired,
    )
    from langchain_memlayer.memory import Memory
    from langchain_memlayer.store import MemLayerStore

__version__ = "0.1.0"

_HOMES = {
    "ConfigurationError": "errors",
    "EmbedderMismatch": "errors",
    "EmbeddingError": "errors",
    "ExtractionError": "errors",
    "InvalidFilter": "errors",
    "InvalidInput": "errors",
    "JournalClosed": "errors",
    "JournalError": "errors",
    "MemLayerError": "errors",
    "MemLayerStore": "store",
    "Memory": "memory",
    "MemoryNotFound": "errors",
    "MissingDependency": "errors",
    "NotAStore": "errors",
    "SchemaTooNew": "errors",
    "ScopeRequired": "errors",
    "WordLlamaEmbeddings": "embeddings",
    "checkpointer": "checkpoint",
}

__all__ = [
    "ConfigurationError",
    "EmbedderMismatch",
    "EmbeddingError",
    "ExtractionError",
    "InvalidFilter",
    "InvalidInput",
    "JournalClosed",
    "JournalError",
    "MemLayerError",
    "MemLayerStore",
    "Memory",
    "MemoryNotFound",
    "MissingDependency",
    "NotAStore",
    "SchemaTooNew",
    "ScopeRequired",
    "WordLlamaEmbeddings",
    "__version__",
    "checkpointer",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
