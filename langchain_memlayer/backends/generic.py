"""Every other VectorStore, through what LangChain's own interface promises."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from langchain_memlayer.backends.base import Document, Point, Scalar
from langchain_memlayer.backends.points import POINT, fields, id_batches, plain, point_batches, rows, unit
from langchain_memlayer.errors import ConfigurationError, VectorStoreError

_LOGGER = logging.getLogger(__name__)

_COLUMNS: Final = {"texts", "embeddings", "metadatas", "ids"}
_PAIRS: Final = {"text_embeddings", "metadatas", "ids"}


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
        self._keeps_ids = True
        self._told = False

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points.

        Raises:
            ConfigurationError: the store gives them ids of its own.
        """
        for batch in point_batches(points):
            if self._keeps_ids:
                ids = [point.id for point in batch]
                given = [str(id_) for id_ in self._add(batch, ids) or ids]
                self._keeps_ids = set(given) >= set(ids) or bool(self.present(ids))
                if not self._keeps_ids:
                    self._removed(given)
            if not self._keeps_ids:
                raise ConfigurationError(
                    f"The vector store ({self.kind}) gives documents ids of its own, so that they can neither be "
                    "replaced nor removed: pass a store that keeps the ids it is given. Searches use the journal's "
                    "own vectors."
                )

    def _add(self, batch: list[Point], ids: list[str]) -> Any:
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
        try:
            done: bool | None = self._store.delete(ids=ids)
        except NotImplementedError:
            if not self._told:
                self._told = True
                _LOGGER.warning(
                    "The vector store (%s) has no way to remove documents: what is deleted or forgotten stays there, "
                    "and only the journal hides it. Empty it yourself, or pass a store that can.",
                    self.kind,
                )
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
