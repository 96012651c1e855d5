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
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_memlayer.agents.context import as_context
    from langchain_memlayer.agents.middleware import MemoryMiddleware
    from langchain_memlayer.agents.nodes import MemoryState, extraction_node, recall_node, reconciliation_node
    from langchain_memlayer.agents.retriever import MemoryRetriever
    from langchain_memlayer.async_memory import AsyncMemory
    from langchain_memlayer.checkpoint import checkpointer
    from langchain_memlayer.config import MemoryConfig
    from langchain_memlayer.embedders.own import WordLlamaEmbeddings
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
        VectorStoreError,
    )
    from langchain_memlayer.facts.extraction import LLMExtractor
    from langchain_memlayer.facts.reconciliation import LLMReconciler, RuleReconciler
    from langchain_memlayer.memory import Memory
    from langchain_memlayer.protocols import Extractor, Reconciler
    from langchain_memlayer.result_types import Profile
    from langchain_memlayer.store import MemLayerStore
    from langchain_memlayer.types import Candidate, Decision, Extraction, Fact, Rejection, Scope, Triple, Turn

__version__ = "0.1.0"

_HOMES = {
    name: home
    for home, names in {
        "agents.context": "as_context",
        "agents.middleware": "MemoryMiddleware",
        "agents.nodes": "MemoryState extraction_node recall_node reconciliation_node",
        "agents.retriever": "MemoryRetriever",
        "async_memory": "AsyncMemory",
        "checkpoint": "checkpointer",
        "config": "MemoryConfig",
        "embedders.own": "WordLlamaEmbeddings",
        "errors": "ConfigurationError EmbedderMismatch EmbeddingError ExtractionError InvalidFilter "
        "InvalidInput JournalClosed JournalError MemLayerError MemoryNotFound MissingDependency "
        "NotAStore SchemaTooNew ScopeRequired VectorStoreError",
        "facts.extraction": "LLMExtractor",
        "facts.reconciliation": "LLMReconciler RuleReconciler",
        "memory": "Memory",
        "protocols": "Extractor Reconciler",
        "result_types": "Profile",
        "store": "MemLayerStore",
        "types": "Candidate Decision Extraction Fact Rejection Scope Triple Turn",
    }.items()
    for name in names.split()
}

__all__ = [
    "AsyncMemory",
    "Candidate",
    "ConfigurationError",
    "Decision",
    "EmbedderMismatch",
    "EmbeddingError",
    "Extraction",
    "ExtractionError",
    "Extractor",
    "Fact",
    "InvalidFilter",
    "InvalidInput",
    "JournalClosed",
    "JournalError",
    "LLMExtractor",
    "LLMReconciler",
    "MemLayerError",
    "MemLayerStore",
    "Memory",
    "MemoryConfig",
    "MemoryMiddleware",
    "MemoryNotFound",
    "MemoryRetriever",
    "MemoryState",
    "MissingDependency",
    "NotAStore",
    "Profile",
    "Reconciler",
    "Rejection",
    "RuleReconciler",
    "SchemaTooNew",
    "Scope",
    "ScopeRequired",
    "Triple",
    "Turn",
    "VectorStoreError",
    "WordLlamaEmbeddings",
    "__version__",
    "as_context",
    "checkpointer",
    "extraction_node",
    "recall_node",
    "reconciliation_node",
]

# A type checker would take it that there is any name.
if not TYPE_CHECKING:
    if find_spec("langchain") is None:
        # `import *`, `help` and `inspect` get every name that is listed.
        __all__.remove("MemoryMiddleware")

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
