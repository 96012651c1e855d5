"""Chroma, embedded or as a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from langchain_memlayer.backends.base import (
    BATCH,
    Document,
    Point,
    Scalar,
    fields,
    id_batches,
    plain,
    point_batches,
    require_dims,
    rows,
    unit,
)


class ChromaAdapter:
    """`Chroma` of langchain-chroma (or -community), through its collection, so that nothing is embedded again.

    Args:
        store: The store.
    """

    kind = "chroma"

    def __init__(self, store: Any) -> None:
        self._store = store

    @property
    def _collection(self) -> Any:
        # `reset_collection` puts another one there.
        return self._store._collection

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points."""
        for batch in point_batches(points):
            self._collection.upsert(
                ids=[point.id for point in batch],
                embeddings=[unit(point.vector) for point in batch],
                documents=[point.text for point in batch],
                metadatas=[fields(point) for point in batch],
            )

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; without ids Chroma would refuse."""
        for batch in id_batches(ids):
            self._collection.delete(ids=batch)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows."""
        answer = self._collection.query(
            query_embeddings=[unit(vector)], n_results=k, where=_where(where), include=["metadatas"]
        )
        return rows(answer["metadatas"][0], where)

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        found: set[str] = set()
        for batch in id_batches(ids):
            found.update(self._collection.get(ids=batch, include=[])["ids"])
        return found

    def documents(self) -> Iterator[Document]:
        """Everything in the store, page by page."""
        start = 0
        while True:
            page = self._collection.get(limit=BATCH, offset=start, include=["documents", "metadatas"])
            for id_, text, metadata in zip(page["ids"], page["documents"], page["metadatas"], strict=True):
                yield Document(id_, text or "", metadata or {})
            start += len(page["ids"])
            if len(page["ids"]) < BATCH:
                return

    def check(self, dims: int) -> None:
        """Compare the size of the vectors that are there; each of Chroma's metrics orders ours alike."""
        there = self._collection.get(limit=1, include=["embeddings"])["embeddings"]
        if len(there):
            require_dims(self.kind, self._collection.name, len(there[0]), dims)


def _where(where: Mapping[str, Scalar]) -> dict[str, Any] | None:
    """One condition as it is, several under `$and`; an empty one is refused there."""
    conditions = [{name: {"$eq": value}} for name, value in plain(where).items()]
    if len(conditions) < 2:
        return conditions[0] if conditions else None
    return {"$and": conditions}
