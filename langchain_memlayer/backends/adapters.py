"""From what a caller passes as `vectorstore=` to what the package asks; stores are known by class, not by import."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from numpy.typing import NDArray

from langchain_memlayer.backends.base import Document, ForeignStore, Patience, Point, Scalar
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


def open_vectorstore(store: Any, embeddings: Any) -> tuple[ForeignStore, Any]:
    """The adapter for a store, and the embeddings to use with it.

    Args:
        store: A LangChain `VectorStore`, or an object with the methods of `ForeignStore`.
        embeddings: What the caller wants; "auto" means the store's own, where it has some.

    Raises:
        ConfigurationError: `store` is neither, or there are to be no embeddings.
    """
    if embeddings is None:
        raise ConfigurationError("A vectorstore needs embeddings: pass some, or leave embeddings='auto'.")
    if isinstance(store, ForeignStore):
        return store, embeddings
    adapter = adapt(store)
    own = getattr(store, "embeddings", None)
    return adapter, own if isinstance(embeddings, str) and embeddings == "auto" and own is not None else embeddings


class DeferredStore:
    """Opens a vector store when it is first needed: a server that is down delays only what is to be done with it.

    Args:
        kind: The backend's name.
        make: Opens the `VectorStore`; what it raises means "not now".
    """

    def __init__(self, kind: str, make: Callable[[], Any]) -> None:
        self.kind = kind
        self._make = make
        self._lock = threading.Lock()
        self._patience = Patience(self)
        self._opened: ForeignStore | None = None

    def open(self) -> ForeignStore:
        """The adapter of the store.

        Raises:
            VectorStoreError: it cannot be opened now, or not in time; an attempt that takes longer still counts.
        """
        with self._lock:
            return self._opened or self._patience.ask(self._open)

    def _open(self) -> ForeignStore:
        self._opened = adapt(self._make())
        return self._opened

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points."""
        self.open().upsert(points)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        self.open().delete(ids)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows."""
        return self.open().search(vector, k, where, text)

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        return self.open().present(ids)

    def documents(self) -> Iterator[Document]:
        """Everything in the store."""
        return self.open().documents()

    def check(self, dims: int) -> None:
        """Compare the collection with the vectors."""
        self.open().check(dims)
