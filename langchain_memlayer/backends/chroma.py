"""Chroma, embedded or as a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_memlayer.backends.base import BATCH, Adapter, Document, Point, Scalar, fields, unit


class ChromaAdapter(Adapter):
    """`Chroma` of langchain-chroma (or -community), through its collection, so that nothing is embedded again."""

    kind = "chroma"

    @property
    def _collection(self) -> Any:
        # `reset_collection` puts another one there.
        return self._store._collection

    def _write(self, batch: list[Point]) -> None:
        self._collection.upsert(
            ids=[point.id for point in batch],
            embeddings=[unit(point.vector) for point in batch],
            documents=[point.text for point in batch],
            metadatas=[fields(point) for point in batch],
        )

    def _remove(self, batch: list[str]) -> None:
        self._collection.delete(ids=batch)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        # One condition as it is, several under `$and`; an empty one is refused there.
        conditions = [{name: {"$eq": value}} for name, value in where.items()]
        answer = self._collection.query(
            query_embeddings=[vector],
            n_results=k,
            where={"$and": conditions} if len(conditions) > 1 else next(iter(conditions), None),
            include=["metadatas"],
        )
        metadata: list[Mapping[str, Any] | None] = answer["metadatas"][0]
        return metadata

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        ids: list[str] = self._collection.get(ids=batch, include=[])["ids"]
        return ids

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
            self._require_dims(self._collection.name, len(there[0]), dims)
