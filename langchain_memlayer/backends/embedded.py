"""Stores that live in this process: LangChain's own in-memory one, and FAISS of langchain-community."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.backends.base import Document, Point, Scalar
from langchain_memlayer.backends.points import fields, lock_of, point_batches, require_dims, rows, unit
from langchain_memlayer.errors import ConfigurationError

_FIRST_FETCH: Final = 64


class InMemoryAdapter:
    """`InMemoryVectorStore` of langchain-core: a dictionary by id.

    Args:
        store: The store.
    """

    kind = "memory"

    def __init__(self, store: Any) -> None:
        self._store = store
        self._lock = lock_of(store)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points."""
        new = {
            point.id: {"id": point.id, "vector": unit(point.vector), "text": point.text, "metadata": fields(point)}
            for point in points
        }
        with self._lock:
            self._store.store.update(new)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        with self._lock:
            self._store.delete(list(ids))

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows."""
        with self._lock:
            found = self._store.similarity_search_by_vector(
                unit(vector), k, filter=lambda document: _matches(document.metadata, where)
            )
        return rows((document.metadata for document in found), where)

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        return set(ids).intersection(self._store.store)

    def documents(self) -> Iterator[Document]:
        """Everything in the store."""
        with self._lock:
            entries = list(self._store.store.values())
        return (Document(entry["id"], entry["text"], entry["metadata"] or {}) for entry in entries)

    def check(self, dims: int) -> None:
        """Compare the size of the vectors that are there."""
        with self._lock:
            first = next(iter(self._store.store.values()), None)
        if first is not None:
            require_dims(self.kind, type(self._store).__name__, len(first["vector"]), dims)


class FaissAdapter:
    """`FAISS` of langchain-community, which is not made for several threads, nor for an id that comes twice.

    Args:
        store: The store.
    """

    kind = "faiss"

    def __init__(self, store: Any) -> None:
        self._store = store
        self._lock = lock_of(store)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points: what is there is removed first, since adding an id again would corrupt the index."""
        for batch in point_batches(points):
            with self._lock:
                # The index asserts this after it has changed; the message must come before anything was removed.
                for point in batch:
                    require_dims(self.kind, "index", self._store.index.d, len(point.vector))
                self._remove([point.id for point in batch])
                self._store.add_embeddings(
                    [(point.text, unit(point.vector)) for point in batch],
                    metadatas=[fields(point) for point in batch],
                    ids=[point.id for point in batch],
                )

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        with self._lock:
            self._remove(ids)

    def _remove(self, ids: Sequence[str]) -> None:
        # One id that is not there makes the store remove nothing at all.
        there = sorted(set(ids).intersection(self._store.index_to_docstore_id.values()))
        if there:
            self._store.delete(there)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows; more are fetched until `k` of them match, since the store filters afterwards."""
        query = np.array(unit(vector), np.float32)
        keep = partial(_matches, where=where)
        with self._lock:
            total = self._store.index.ntotal
            fetch = max(k, _FIRST_FETCH)
            while True:
                found = self._store.similarity_search_with_score_by_vector(query, k, filter=keep, fetch_k=fetch)
                if len(found) >= k or fetch >= total:
                    return rows((document.metadata for document, _ in found), where)
                fetch *= 4

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        with self._lock:
            return set(ids).intersection(self._store.index_to_docstore_id.values())

    def documents(self) -> Iterator[Document]:
        """Everything in the store."""
        with self._lock:
            found = [(id_, self._store.docstore.search(id_)) for id_ in self._store.index_to_docstore_id.values()]
        return (Document(id_, document.page_content, document.metadata) for id_, document in found)

    def check(self, dims: int) -> None:
        """Compare the index's vector size, and whether it can forget."""
        index = self._store.index
        require_dims(self.kind, "index", index.d, dims)
        if "HNSW" in type(index).__name__:
            raise ConfigurationError(
                f"The FAISS index is an {type(index).__name__}, out of which nothing can be removed: make the store "
                "with IndexFlatL2 or IndexFlatIP."
            )
        strategy = str(self._store.distance_strategy)
        if not strategy.endswith(("EUCLIDEAN_DISTANCE", "COSINE", "MAX_INNER_PRODUCT")):
            raise ConfigurationError(
                f"The FAISS store compares by {strategy}, which does not order like cosine: make it with "
                "EUCLIDEAN_DISTANCE, COSINE or MAX_INNER_PRODUCT."
            )


def _matches(metadata: Mapping[str, Any], where: Mapping[str, Scalar]) -> bool:
    return rows([metadata], where)[0] >= 0
