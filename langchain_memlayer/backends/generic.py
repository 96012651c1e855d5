"""Stores without an interface of their own: those that live in this process, VikingDB, and every other VectorStore."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.backends.base import (
    ITEM,
    OWN_KEYS,
    POINT,
    Adapter,
    Document,
    Point,
    Scalar,
    fields,
    lock_of,
    rows,
    unit,
)
from langchain_memlayer.errors import ConfigurationError, VectorStoreError

_LOGGER = logging.getLogger(__name__)

_COLUMNS: Final = {"texts", "embeddings", "metadatas", "ids"}
_PAIRS: Final = {"text_embeddings", "metadatas", "ids"}
_OWN_IDS: Final = {"DocArrayIndex", "SQLiteVec", "SQLiteVSS"}
_PROBE: Final = str(uuid.uuid5(uuid.NAMESPACE_OID, "memlayer.probe"))
_NEAREST: Final = 4
_FIRST_FETCH: Final = 64
_KNOWN: Final = {"DuckDB", "LanceDB", "SKLearnVectorStore", "SurrealDBStore"}
_WITHOUT_IDS: Final = "gives documents ids of its own, so that they can neither be replaced nor removed"


class GenericAdapter(Adapter):
    """A store that is known only as a `VectorStore`.

    Its filters and scores are not used, since every store has others. Where it has an `add_embeddings` of one of the
    usual shapes it is given our vectors; otherwise it embeds the texts itself. The journal hides what it
    cannot remove. It is given our own fields alone, and all of them: many take the first document's for all.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.kind = type(store).__name__
        taken = set(inspect.signature(store.add_embeddings).parameters) if hasattr(store, "add_embeddings") else set()
        self._columns, self._pairs = taken >= _COLUMNS, taken >= _PAIRS

    def probe(self, dims: int) -> None:
        """Write a point that is no memory, read it, write it again and remove it; some classes are known already.

        Raises:
            ConfigurationError: the store gives ids of its own, is bound to a thread, or cannot be written to.
        """
        names = {kind.__name__ for kind in type(self._store).__mro__}
        if names & _OWN_IDS:
            raise self._unfit(_WITHOUT_IDS)
        if "LanceDB" in names and self._store.mode == "overwrite":
            _LOGGER.warning(
                "The vector store (LanceDB) was opened with mode='overwrite', its default: each write removes all that "
                "was there before. Open it with mode='append'."
            )
        lacks = "" if names & _KNOWN else self._tried(dims)
        if not self._removes:
            lacks = "has no way to remove documents"
        if lacks:
            _LOGGER.warning(
                "The vector store (%s) %s: what is deleted or forgotten will stay there, and only the journal hides "
                "it. Empty it yourself then, or pass a store that can.",
                self.kind,
                lacks,
            )

    def _tried(self, dims: int) -> str:
        """What the store was found to lack when it was written to."""
        vector = np.full(dims, dims**-0.5, np.float32)
        point = Point(_PROBE, vector, "A probe of memlayer's.", {ITEM: -1})
        try:
            given = self._put([point])
        except NotImplementedError as error:
            raise self._unfit("takes no documents once it is made") from error
        except Exception as error:
            if "thread" not in str(error):
                raise
            raise self._unfit(
                "may be used only in the thread that opened it, and memories are brought to it in another (for SQLite: "
                "open its connection with check_same_thread=False)"
            ) from error
        if point.id not in given and not self.present([point.id]):
            self._removed(given)
            raise self._unfit(_WITHOUT_IDS)
        self._put([replace(point, text="A second probe of memlayer's.")])
        try:
            self.delete([point.id])
            left = self.present([point.id])
            kept = self._has(point) if left is None else bool(left)
        except VectorStoreError:
            kept = True
        return "does not remove what it is asked to" if kept else ""

    def _unfit(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"The vector store ({self.kind}) {why}: pass another one, such as QdrantVectorStore, Chroma, Milvus or "
            "PGVectorStore. No memory was written to it, and searches use the journal's own vectors."
        )

    @property
    def _removes(self) -> bool:
        """Whether the store's class has a way to remove documents."""
        from langchain_core.vectorstores import VectorStore

        return type(self._store).delete is not VectorStore.delete

    def _write(self, batch: list[Point]) -> None:
        self._put(batch)

    def _put(self, batch: list[Point]) -> list[str]:
        """The ids under which some points are there now."""
        ids = [point.id for point in batch]
        # Many stores would have both otherwise.
        there = self.present(ids) if self._removes else set()
        if there:
            self._removed(sorted(there))
        elif there is None:
            # It does not tell what it has, and of what it has not each client complains in its own way.
            with suppress(Exception):
                self._removed(ids)
        try:
            return [str(id_) for id_ in self._add(batch) or ids]
        except NotImplementedError:
            raise
        except Exception:
            # A store that removes nothing may refuse an id again; what it has of a row never differs.
            new = [] if self._removes else [point for point in batch if not self._has(point)]
            if len(new) == len(batch) or self._removes:
                raise
            if new:
                self._add(new)
            return ids

    def _has(self, point: Point) -> bool:
        """Whether a point is there, as far as can be told from what is nearest to it."""
        try:
            hits = self._nearest(unit(point.vector), _NEAREST, {})
        except NotImplementedError:
            hits = self._worded(point.text, _NEAREST)
        return any((metadata or {}).get(POINT) == point.id for metadata in hits)

    def _add(self, batch: list[Point]) -> Any:
        """The ids that the store says it gave them, or None."""
        ids = [point.id for point in batch]
        texts = [point.text for point in batch]
        metadatas = [self._fields(point) for point in batch]
        vectors = [unit(point.vector) for point in batch]
        if self._columns:
            return self._store.add_embeddings(texts=texts, embeddings=vectors, metadatas=metadatas, ids=ids)
        if self._pairs:
            pairs = list(zip(texts, vectors, strict=True))
            return self._store.add_embeddings(text_embeddings=pairs, metadatas=metadatas, ids=ids)
        from langchain_core.documents import Document as LangChainDocument

        documents = [
            LangChainDocument(id=point.id, page_content=point.text, metadata=metadata)
            for point, metadata in zip(batch, metadatas, strict=True)
        ]
        return self._store.add_documents(documents, ids=ids)

    def _fields(self, point: Point) -> dict[str, Scalar]:
        return {POINT: point.id, **{name: point.metadata.get(name, "") for name in OWN_KEYS}}

    def _sayable(self, where: dict[str, Scalar]) -> dict[str, Scalar]:
        return {name: value for name, value in where.items() if name in OWN_KEYS}

    def _remove(self, batch: list[str]) -> None:
        there = self.present(batch)
        gone = batch if there is None else [id_ for id_ in batch if id_ in there]
        if gone and self._removed(gone) is False and self.present(gone):
            raise VectorStoreError(
                f"The vector store ({self.kind}) did not remove {len(gone)} documents; the journal hides them, and "
                "removing them is tried again."
            )

    def _removed(self, ids: list[str]) -> bool | None:
        """What the store says of it; None when it says nothing, or cannot."""
        try:
            done: bool | None = self._store.delete(ids=ids)
        except NotImplementedError:
            return None
        return done

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows, by vector where the store can, else by the query's words."""
        try:
            return super().search(vector, k, where, text)
        except NotImplementedError:
            return None if text is None else rows(self._worded(text, k), where)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        return [document.metadata for document in self._store.similarity_search_by_vector(vector, k=k)]

    def _worded(self, text: str, k: int) -> Iterable[Mapping[str, Any] | None]:
        return [document.metadata for document in self._store.similarity_search(text, k=k)]

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store; None where it does not tell."""
        try:
            return super().present(ids)
        except NotImplementedError:
            return None

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        documents = self._store.get_by_ids(batch)
        ids = {str(document.id or (document.metadata or {}).get(POINT)) for document in documents}
        return ids.intersection(batch)

    def documents(self) -> Iterator[Document]:
        """Refuse: LangChain's interface has no way to list.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            f"The documents of a {self.kind} cannot be listed; pass them to `memory.adopt(documents=...)` yourself."
        )

    def check(self, dims: int) -> None:
        """Nothing can be compared: the interface tells neither size nor metric."""


class VikingDBAdapter(GenericAdapter):
    """Our own `VikingDBVectorStore`, which filters by the fields that its collection has and its index knows."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.kind = "vikingdb"
        self._filters = True

    def probe(self, dims: int) -> None:
        """Nothing is to be tried: it is ours, and its index follows a write after seconds only."""

    def _write(self, batch: list[Point]) -> None:
        # The server replaces those with the same ids.
        self._add(batch)

    def _fields(self, point: Point) -> dict[str, Scalar]:
        return fields(point)

    def _sayable(self, where: dict[str, Scalar]) -> dict[str, Scalar]:
        return where

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        conditions = [
            {"op": "must", "field": name, "conds": [value]}
            for name, value in where.items()
            if not isinstance(value, float)
        ]
        if not conditions or not self._filters:
            return super()._nearest(vector, k, where)
        try:
            documents = self._store.similarity_search_by_vector(vector, k=k, filter={"op": "and", "conds": conditions})
        except VectorStoreError:
            # A field without an index is refused; a server that does not answer refuses what follows, too.
            unfiltered = super()._nearest(vector, k, where)
            self._filters = False
            return unfiltered
        return [document.metadata for document in documents]


class InMemoryAdapter(Adapter):
    """`InMemoryVectorStore` of langchain-core: a dictionary by id."""

    kind = "memory"

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._lock = lock_of(store)

    def _write(self, batch: list[Point]) -> None:
        new = {
            point.id: {"id": point.id, "vector": unit(point.vector), "text": point.text, "metadata": fields(point)}
            for point in batch
        }
        with self._lock:
            self._store.store.update(new)

    def _remove(self, batch: list[str]) -> None:
        with self._lock:
            self._store.delete(batch)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        with self._lock:
            documents = self._store.similarity_search_by_vector(vector, k, filter=partial(_matches, where=where))
        return [document.metadata for document in documents]

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        return set(batch).intersection(self._store.store)

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
            self._require_dims(type(self._store).__name__, len(first["vector"]), dims)


class FaissAdapter(Adapter):
    """`FAISS` of langchain-community, which is not made for several threads, nor for an id that comes twice."""

    kind = "faiss"

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._lock = lock_of(store)

    def _write(self, batch: list[Point]) -> None:
        ids = [point.id for point in batch]
        with self._lock:
            # The index asserts this after it has changed; the message must come before anything was removed.
            for point in batch:
                self._require_dims("index", self._store.index.d, len(point.vector))
            # Adding an id again would corrupt the index.
            self._drop(ids)
            self._store.add_embeddings(
                [(point.text, unit(point.vector)) for point in batch],
                metadatas=[fields(point) for point in batch],
                ids=ids,
            )

    def _remove(self, batch: list[str]) -> None:
        with self._lock:
            self._drop(batch)

    def _drop(self, ids: Sequence[str]) -> None:
        # One id that is not there makes the store remove nothing at all.
        there = sorted(set(ids).intersection(self._store.index_to_docstore_id.values()))
        if there:
            self._store.delete(there)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        query, keep = np.array(vector, np.float32), partial(_matches, where=where)
        with self._lock:
            total, fetch = self._store.index.ntotal, max(k, _FIRST_FETCH)
            while True:
                # The store filters afterwards: more are fetched until `k` of them match.
                scored = self._store.similarity_search_with_score_by_vector(query, k, filter=keep, fetch_k=fetch)
                if len(scored) >= k or fetch >= total:
                    return [document.metadata for document, _ in scored]
                fetch *= 4

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        with self._lock:
            return set(batch).intersection(self._store.index_to_docstore_id.values())

    def documents(self) -> Iterator[Document]:
        """Everything in the store."""
        with self._lock:
            entries = [(id_, self._store.docstore.search(id_)) for id_ in self._store.index_to_docstore_id.values()]
        return (Document(id_, document.page_content, document.metadata) for id_, document in entries)

    def check(self, dims: int) -> None:
        """Compare the index's vector size, and whether it can forget."""
        index = self._store.index
        self._require_dims("index", index.d, dims)
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


def _matches(document: Any, where: Mapping[str, Scalar]) -> bool:
    # FAISS gives a filter the metadata, the other store the document.
    return rows([getattr(document, "metadata", document)], where)[0] >= 0
