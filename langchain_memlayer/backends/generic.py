"""Stores without an interface of their own: those that live in this process, VikingDB, and every other VectorStore."""

from __future__ import annotations

import inspect
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.backends.base import (
    ITEM,
    POINT,
    SCOPE,
    STORE,
    Document,
    Point,
    Scalar,
    fields,
    id_batches,
    lock_of,
    plain,
    point_batches,
    require_dims,
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


class GenericAdapter:
    """A store that is known only as a `VectorStore`.

    Its filters and scores are not used, since every store has others. Where it has an `add_embeddings` of one of the
    usual shapes it is given our vectors; otherwise it embeds the texts itself.

    Args:
        store: The store.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
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
        # Some stores learn from the first document which fields there are.
        names = (STORE, SCOPE, "memlayer_id", "memlayer_kind", "user_id", "agent_id", "run_id")
        point = Point(_PROBE, vector, "A probe of memlayer's.", {ITEM: -1, **dict.fromkeys(names, "")})
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

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points in place of those with the same ids."""
        for batch in point_batches(points):
            self._put(batch)

    def _put(self, batch: list[Point]) -> list[str]:
        """The ids under which some points are there now."""
        ids = [point.id for point in batch]
        if self._removes and (there := self.present(ids)) != set():
            # Many stores would have both otherwise; and some complain of ids that are not there.
            with suppress(Exception):
                self._removed(ids if there is None else sorted(there))
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
            found = self._nearest(unit(point.vector), _NEAREST, {})
        except NotImplementedError:
            found = self._store.similarity_search(point.text, k=_NEAREST)
        return any((document.metadata or {}).get(POINT) == point.id for document in found)

    def _add(self, batch: list[Point]) -> Any:
        """The ids that the store says it gave them, or None."""
        ids = [point.id for point in batch]
        texts = [point.text for point in batch]
        metadatas = [fields(point) for point in batch]
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

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points, where the store can; what it keeps, the journal hides.

        Raises:
            VectorStoreError: the store says that it could not, and still has them.
        """
        for batch in id_batches(ids):
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
            found = self._nearest(unit(vector), k, where)
        except NotImplementedError:
            if text is None:
                return None
            found = self._store.similarity_search(text, k=k)
        return rows((document.metadata for document in found), where)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Any:
        return self._store.similarity_search_by_vector(vector, k=k)

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        found: set[str] = set()
        try:
            for batch in id_batches(ids):
                for document in self._store.get_by_ids(batch):
                    found.add(str(document.id or (document.metadata or {}).get(POINT)))
        except NotImplementedError:
            return None
        return found.intersection(ids)

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
    """Our own `VikingDBVectorStore`, which filters by the fields that its collection has and its index knows.

    Args:
        store: The store.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.kind = "vikingdb"
        self._filters = True

    def probe(self, dims: int) -> None:
        """Nothing is to be tried: it is ours, and its index follows a write after seconds only."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; the server replaces those with the same ids."""
        for batch in point_batches(points):
            self._add(batch)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Any:
        conditions = [
            {"op": "must", "field": name, "conds": [value]}
            for name, value in plain(where).items()
            if not isinstance(value, float)
        ]
        if conditions and self._filters:
            try:
                return self._store.similarity_search_by_vector(vector, k=k, filter={"op": "and", "conds": conditions})
            except VectorStoreError:
                # A field without an index is refused; a server that does not answer refuses what follows, too.
                found = super()._nearest(vector, k, where)
                self._filters = False
                return found
        return super()._nearest(vector, k, where)


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
