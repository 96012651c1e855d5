"""Which adapter a vector store needs: known by its class, without importing its package."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from langchain_memlayer.backends.base import ForeignStore
from langchain_memlayer.errors import ConfigurationError

_HERE: Final = "langchain_memlayer.backends"
_ADAPTERS: Final = {
    ("langchain_chroma", "Chroma"): ("chroma", "ChromaAdapter"),
    ("langchain_community", "Chroma"): ("chroma", "ChromaAdapter"),
    ("langchain_community", "FAISS"): ("embedded", "FaissAdapter"),
    ("langchain_core", "InMemoryVectorStore"): ("embedded", "InMemoryAdapter"),
    ("langchain_memlayer", "VikingDBVectorStore"): ("generic", "VikingDBAdapter"),
    ("langchain_milvus", "Milvus"): ("milvus", "MilvusAdapter"),
    ("langchain_postgres", "PGVector"): ("pgvector", "PGVectorAdapter"),
    ("langchain_postgres", "PGVectorStore"): ("pgvector", "PGVectorStoreAdapter"),
    ("langchain_qdrant", "QdrantVectorStore"): ("qdrant", "QdrantAdapter"),
    ("langchain_core", "VectorStore"): ("generic", "GenericAdapter"),
}


def adapt(store: Any) -> ForeignStore:
    """The adapter for a vector store.

    Args:
        store: A LangChain `VectorStore`.

    Raises:
        ConfigurationError: it is none, or one that cannot be used as it was opened.
    """
    names = [(kind.__module__.partition(".")[0], kind.__qualname__) for kind in type(store).__mro__]
    if ("langchain_postgres", "AsyncPGVectorStore") in names:
        raise ConfigurationError("An AsyncPGVectorStore has no plain calls: pass a PGVectorStore.")
    for name in names:
        if name in _ADAPTERS:
            module, adapter = _ADAPTERS[name]
            made: ForeignStore = getattr(import_module(f"{_HERE}.{module}"), adapter)(store)
            return made
    given = f"the class {store.__name__}, not an object of it" if isinstance(store, type) else type(store).__name__
    raise ConfigurationError(
        "vectorstore must be a LangChain VectorStore, such as QdrantVectorStore, Chroma, Milvus, PGVectorStore, FAISS "
        f"or InMemoryVectorStore; got {given}."
    )
