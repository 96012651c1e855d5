"""From what a caller passes as `vectorstore=` to what the package asks."""

from __future__ import annotations

from typing import Any

from langchain_memlayer.backends.base import ForeignStore
from langchain_memlayer.errors import ConfigurationError


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
    from langchain_memlayer.backends.adapters import adapt

    adapter = adapt(store)
    own = getattr(store, "embeddings", None)
    return adapter, own if isinstance(embeddings, str) and embeddings == "auto" and own is not None else embeddings
