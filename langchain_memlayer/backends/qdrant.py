"""Qdrant, embedded or as a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

from langchain_memlayer.backends.base import BATCH, Adapter, Document, Point, Scalar, fields, lock_of, unit
from langchain_memlayer.errors import ConfigurationError


class QdrantAdapter(Adapter):
    """`QdrantVectorStore` of langchain-qdrant, through its client, so that nothing is embedded again.

    Raises:
        ConfigurationError: it has no dense vectors.
    """

    kind = "qdrant"

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._client = store.client
        self._models = import_module("qdrant_client.models")
        if str(getattr(store.retrieval_mode, "value", "")) == "sparse":
            raise ConfigurationError(
                "The Qdrant store has sparse vectors only: open it with RetrievalMode.DENSE or HYBRID."
            )
        # The embedded client has no locks of its own; a server needs none.
        embedded = type(getattr(self._client, "_client", None)).__name__ == "QdrantLocal"
        self._lock: AbstractContextManager[Any] = lock_of(self._client) if embedded else nullcontext()

    def _write(self, batch: list[Point]) -> None:
        store = self._store
        structs = [
            self._models.PointStruct(
                id=point.id,
                vector={store.vector_name: unit(point.vector)},
                payload={store.content_payload_key: point.text, store.metadata_payload_key: fields(point)},
            )
            for point in batch
        ]
        with self._lock:
            self._client.upsert(store.collection_name, points=structs, wait=True)

    def _remove(self, batch: list[str]) -> None:
        with self._lock:
            self._client.delete(self._store.collection_name, points_selector=batch, wait=True)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        key = self._store.metadata_payload_key
        with self._lock:
            answer = self._client.query_points(
                self._store.collection_name,
                query=vector,
                using=self._store.vector_name,
                query_filter=self._filter(where),
                limit=k,
                with_payload=[key],
                with_vectors=False,
            )
        return ((point.payload or {}).get(key) for point in answer.points)

    def _filter(self, where: Mapping[str, Scalar]) -> Any:
        models, key = self._models, self._store.metadata_payload_key
        conditions = []
        for name, value in where.items():
            # Fractions have no exact match there.
            said = {"range": models.Range(gte=value, lte=value)} if isinstance(value, float) else None
            said = said or {"match": models.MatchValue(value=value)}
            conditions.append(models.FieldCondition(key=f"{key}.{name}", **said))
        return models.Filter(must=conditions) if conditions else None

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        with self._lock:
            records = self._client.retrieve(self._store.collection_name, batch, with_payload=False)
        return (str(record.id) for record in records)

    def documents(self) -> Iterator[Document]:
        """Everything in the store, page by page."""
        store, offset = self._store, None
        while True:
            with self._lock:
                page, offset = self._client.scroll(
                    store.collection_name, limit=BATCH, offset=offset, with_payload=True, with_vectors=False
                )
            for record in page:
                payload = dict(record.payload or {})
                text = str(payload.pop(store.content_payload_key, None) or "")
                # Whoever wrote it otherwise than LangChain has the fields side by side.
                yield Document(str(record.id), text, payload.get(store.metadata_payload_key) or payload)
            if offset is None:
                return

    def check(self, dims: int) -> None:
        """Compare the collection's vector size and metric."""
        name, vectors = self._store.collection_name, self._vectors()
        self._require_dims(name, vectors.size, dims)
        self._require_metric(name, str(vectors.distance.value), ("cosine", "dot", "euclid"))

    def _vectors(self) -> Any:
        with self._lock:
            vectors = self._client.get_collection(self._store.collection_name).config.params.vectors
        wanted = self._store.vector_name
        if isinstance(vectors, dict):
            vectors = vectors.get(wanted)
        if vectors is None:
            raise ConfigurationError(
                f"The qdrant collection {self._store.collection_name!r} has no dense vector named {wanted!r}: open the "
                "store with the vector_name that the collection has, in a dense or hybrid mode."
            )
        return vectors
