"""VikingDB (Volcano Engine, BytePlus) as a LangChain vector store, over VikingDB's own SDK.

It needs nothing else of this package and serves any chain or retriever:

```python
from langchain_memlayer.vikingdb import VikingDBVectorStore

store = VikingDBVectorStore("articles", OpenAIEmbeddings())  # VIKINGDB_HOST, VIKINGDB_REGION, VIKINGDB_AK, VIKINGDB_SK
store.add_texts(["VikingDB searches vectors"], [{"topic": "search"}], ids=["a1"])
store.similarity_search("vectors", k=1, filter={"op": "must", "field": "topic", "conds": ["search"]})
```
The SDK has no call that creates a collection, so it is made once in VikingDB's console (or by its control API) with the
fields `id` (string, the primary key), `vector` (vector, of the embedder's size), `text` (text) and `metadata` (text),
and with one field for each metadata key to filter by. Its index, by default named `<collection>_index`, is over
`vector` with the distance `cosine` and has a scalar index for each of those fields. The index follows a write after up
to 20 seconds; `get_by_ids` sees it at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self, TypeVar
from uuid import uuid4

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from pydantic import SecretStr

from langchain_memlayer.embedders.own import matrix
from langchain_memlayer.errors import ConfigurationError, InvalidFilter, InvalidInput, VectorStoreError, shown
from langchain_memlayer.json_values import dumps, loads, plain
from langchain_memlayer.vikingdb.client import VikingDBClient

__all__ = ["VikingDBVectorStore"]

T = TypeVar("T")

# The server takes at most 100 rows, or ids, in a request.
_BATCH: Final = 100
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_INT64: Final = 1 << 63
_COSINE_BOUND: Final = 1.001
_SEARCH_OPTIONS: Final = ("partition", "advance", "offset", "sparse_vector")


class VikingDBVectorStore(VectorStore):
    """A collection of VikingDB and one of its indexes.

    A row with the same id is replaced. Metadata goes into `metadata_field` as one JSON text, so that it comes back as
    it was, and its strings, numbers, booleans and lists of strings or integers also go into fields of the same names,
    for filters; the server drops those that the collection does not have. A row that somebody else wrote, without that
    JSON text, has its other fields as metadata. The server is contacted at the first call, not by the constructor.
    Threads and event loops may share one object; the async methods wait in a thread.

    Args:
        collection_name: The collection, which exists (see the module's text).
        embedding: Makes the vectors of texts and queries.
        client: A `vikingdb.VikingDB` of your own; then neither host nor keys are needed.
        host: Such as `api-vikingdb.vikingdb.cn-beijing.volces.com`; with `http://` in front, without TLS. By default
            the environment variable VIKINGDB_HOST.
        region: Such as `cn-beijing`; only signatures need it. By default VIKINGDB_REGION.
        ak: The access key id of an AK/SK pair. By default VIKINGDB_AK.
        sk: Its secret access key. By default VIKINGDB_SK.
        api_key: An API key, instead of an AK/SK pair. By default VIKINGDB_API_KEY, which comes before a pair from the
            environment.
        index_name: The index to search. By default `<collection_name>_index`.
        project_name: The project of the collection; by default the account's default one.
        id_field: The collection's primary key.
        text_field: The field of the texts.
        vector_field: The field of the vectors.
        metadata_field: The field of the metadata's JSON text.
        batch_size: Rows in a request, 100 at most.
        timeout: Seconds to wait for a connection, and again for an answer.
        max_retries: How often a request is repeated when the server is unreachable, overloaded or fails.

    Raises:
        ConfigurationError: host or keys are missing or contradict each other, or a name is none.
        MissingDependency: VikingDB's SDK is not installed.
    """

    def __init__(
        self,
        collection_name: str,
        embedding: Embeddings,
        *,
        client: Any = None,
        host: str | None = None,
        region: str | None = None,
        ak: str | SecretStr | None = None,
        sk: str | SecretStr | None = None,
        api_key: str | SecretStr | None = None,
        index_name: str | None = None,
        project_name: str | None = None,
        id_field: str = "id",
        text_field: str = "text",
        vector_field: str = "vector",
        metadata_field: str = "metadata",
        batch_size: int = _BATCH,
        timeout: float = 30,
        max_retries: int = 2,
    ) -> None:
        fields = (id_field, text_field, vector_field, metadata_field)
        for name in (collection_name, *fields, *((index_name,) if index_name is not None else ())):
            if not isinstance(name, str) or not _is_name(name):
                raise ConfigurationError(
                    f"{shown(name)} is no name of VikingDB: up to 128 letters, digits and underscores, a letter first."
                )
        if len(set(fields)) < len(fields):
            raise ConfigurationError(f"The fields {', '.join(fields)} must be four different ones.")
        if not isinstance(embedding, Embeddings):
            raise ConfigurationError(f"embedding must be an `Embeddings` object, got {type(embedding).__name__}.")
        if not 1 <= batch_size <= _BATCH:
            raise ConfigurationError(f"batch_size must be from 1 to {_BATCH}, the server's limit; got {batch_size}.")
        self.collection_name = collection_name
        self.index_name = index_name or f"{collection_name}_index"
        self._embedding = embedding
        self._id, self._text, self._vector, self._metadata = fields
        self._batch_size = batch_size
        self._client = VikingDBClient(
            collection_name,
            self.index_name,
            project_name,
            client=client,
            host=host,
            region=region,
            ak=ak,
            sk=sk,
            api_key=api_key,
            timeout=timeout,
            max_retries=max_retries,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(collection_name={self.collection_name!r}, index_name={self.index_name!r}, "
            f"host={self._client.host!r})"
        )

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A store with these texts added; `kwargs` are the constructor's arguments, `collection_name` among them."""
        store = cls(embedding=embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts and write them. No texts: no call.

        Args:
            texts: The texts.
            metadatas: One dictionary for each, of JSON values.
            ids: One id for each; None, or one None, has a UUID made. Of several texts with one id the last stays.
            batch_size: Rows in a request, instead of the constructor's; more than 100 become 100.
            **kwargs: None are known.

        Returns:
            The ids, one for each text.

        Raises:
            InvalidInput: ids or metadata do not fit; nothing was written.
            EmbeddingError: the embedder's vectors cannot be used; nothing was written.
            VectorStoreError: VikingDB failed; the message says how many rows it has taken.
        """
        _no_others(kwargs, ())
        texts = list(texts)
        names = _ids_for(texts, ids)
        extras = self._extras(texts, metadatas)
        vectors = self._embedding.embed_documents(texts) if texts else []
        return self._write(texts, vectors, extras, names, min(batch_size or self._batch_size, _BATCH))

    def add_embeddings(
        self,
        texts: Iterable[str],
        embeddings: Sequence[Sequence[float]],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Like `add_texts`, with vectors that were made before: one for each text."""
        texts = list(texts)
        return self._write(texts, embeddings, self._extras(texts, metadatas), _ids_for(texts, ids), self._batch_size)

    def delete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> bool:
        """Remove rows; ids that are not there are no error.

        Raises:
            InvalidInput: no list of ids; a whole collection is emptied in VikingDB's console.
            VectorStoreError: VikingDB failed.
        """
        _no_others(kwargs, ())
        for batch in _batches(_unique(ids), _BATCH):
            self._client.ask("delete", {"ids": batch})
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents with these ids, in this order, without those that are not there."""
        documents: dict[str, Document] = {}
        wanted = _unique(ids)
        for batch in _batches(wanted, _BATCH):
            result = self._client.ask("fetch", {"ids": batch})
            documents |= {str(item.id): self._document(item) for item in (result.items if result else ())}
        return [documents[name] for name in wanted if name in documents]

    def similarity_search(
        self, query: str, k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents nearest to a query's vector; see `similarity_search_by_vector_with_score`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Like `similarity_search`, with the server's scores."""
        vector = self._embedding.embed_query(query)
        return self.similarity_search_by_vector_with_score(vector, k, filter, **kwargs)

    def similarity_search_by_vector(
        self, embedding: Sequence[float], k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents nearest to a vector; see `similarity_search_by_vector_with_score`."""
        return [document for document, _ in self.similarity_search_by_vector_with_score(embedding, k, filter, **kwargs)]

    def similarity_search_by_vector_with_score(
        self, embedding: Sequence[float], k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The documents nearest to a vector, best first, each with the server's score.

        Args:
            embedding: The vector.
            k: How many documents.
            filter: In VikingDB's own form, such as `{"op": "must", "field": "topic", "conds": ["search"]}` or
                `{"op": "and", "conds": [...]}`; each field needs a scalar index.
            **kwargs: `partition`, `advance`, `offset` and `sparse_vector` as VikingDB takes them.

        Returns:
            Documents and scores: of a cosine index the cosine.

        Raises:
            InvalidInput: `k` is no positive number.
            InvalidFilter: `filter` has not this form.
            VectorStoreError: VikingDB failed.
        """
        _no_others(kwargs, _SEARCH_OPTIONS)
        if k < 1:
            raise InvalidInput(f"k must be a positive number, got {k}.")
        [vector] = matrix([embedding], 1, "The query").tolist()
        request = kwargs | {"dense_vector": vector, "limit": k, "filter": _checked(filter)}
        result = self._client.ask("search_by_vector", request)
        return [(self._document(item), _score(item)) for item in (result.data if result else ())]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _relevance

    def _extras(self, texts: list[str], metadatas: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
        """The fields that metadata fills, for each text."""
        if metadatas is not None and len(metadatas) != len(texts):
            raise InvalidInput(f"There are {len(metadatas)} metadatas for {len(texts)} texts; pass one for each.")
        extras = []
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidInput(f"texts[{place}] is of type {type(text).__name__}; pass strings.")
            dumps(text, f"texts[{place}]")
            metadata = plain(metadatas[place] if metadatas else {}, f"metadatas[{place}]")
            if not isinstance(metadata, dict):
                raise InvalidInput(f"metadatas[{place}] is of type {type(metadata).__name__}; pass a dictionary.")
            fields = {name: value for name, value in metadata.items() if _is_name(name) and _is_value(value)}
            extras.append(fields | {self._metadata: dumps(metadata, f"metadatas[{place}]")})
        return extras

    def _write(
        self, texts: list[str], vectors: Any, extras: list[dict[str, Any]], names: list[str], size: int
    ) -> list[str]:
        if not texts and not len(vectors):
            return []
        block = matrix(vectors, len(texts), type(self._embedding).__name__).tolist()
        # The server takes an id once in a request; of several with one id the last stays.
        rows = {
            name: extra | {self._id: name, self._text: text, self._vector: vector}
            for name, text, vector, extra in zip(names, texts, block, extras, strict=True)
        }
        written = 0
        for batch in _batches(list(rows.values()), size):
            try:
                self._client.ask("upsert", {"data": batch, "ignore_unknown_fields": True})
            except VectorStoreError as error:
                raise VectorStoreError(
                    f"{error} {written} of {len(rows)} rows were written; the same ids may be written again."
                ) from error
            written += len(batch)
        return names

    def _document(self, item: Any) -> Document:
        fields = item.fields
        text = fields.get(self._text)
        if not isinstance(text, str):
            raise VectorStoreError(
                f"The row {shown(item.id)} of the collection {self.collection_name!r} has no text in the field "
                f"{self._text!r}: add that field to the collection, or pass the name of the right one as `text_field`."
            )
        metadata = _json_object(fields.get(self._metadata))
        if metadata is None:
            metadata = {
                name: value for name, value in fields.items() if name not in (self._id, self._text, self._vector)
            }
        return Document(id=str(item.id), page_content=text, metadata=metadata)


def _batches(things: list[T], size: int) -> Iterator[list[T]]:
    return (things[start : start + size] for start in range(0, len(things), size))


def _ids_for(texts: Sequence[str], ids: Sequence[str | None] | None) -> list[str]:
    """An id for each text, made where there is none."""
    if ids is None:
        return [str(uuid4()) for _ in texts]
    if isinstance(ids, str) or len(ids) != len(texts):
        raise InvalidInput(f"There are {len(ids)} ids for {len(texts)} texts; pass a list with one for each.")
    return [str(uuid4()) if name is None else _id(name) for name in ids]


def _unique(ids: Sequence[str] | None) -> list[str]:
    if ids is None or isinstance(ids, str):
        raise InvalidInput("Pass a list of ids. To empty a collection, use VikingDB's console.")
    return list(dict.fromkeys(map(_id, ids)))


def _id(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{shown(name)} is no id; ids are non-empty strings.")
    dumps(name, "an id")
    return name


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _is_value(value: Any) -> bool:
    """Whether VikingDB has a type for it: a number, a boolean, a string, or a list of strings or of integers."""
    if isinstance(value, list):
        return bool(value) and (all(isinstance(part, str) for part in value) or all(map(_is_integer, value)))
    return isinstance(value, (str, bool, float)) or _is_integer(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64


def _no_others(given: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise InvalidInput(f"Unknown arguments: {', '.join(unknown)}; this call knows {', '.join(known) or 'no more'}.")


def _checked(filter: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not filter:
        return None
    if not isinstance(filter, Mapping) or not isinstance(filter.get("op"), str):
        raise InvalidFilter(
            "A filter is a dictionary in VikingDB's form, such as "
            '{"op": "must", "field": "topic", "conds": ["search"]}; got ' + f"{shown(filter)}."
        )
    checked: Mapping[str, Any] = plain(filter, "filter")
    return checked


def _score(item: Any) -> float:
    score = item.ann_score if item.score is None else item.score
    if score is None:
        raise VectorStoreError(f"VikingDB gave no score for the row {shown(item.id)}; check proxies on the way to it.")
    return float(score)


def _relevance(score: float) -> float:
    """A cosine from -1 to 1 as a relevance from 0 to 1."""
    if abs(score) > _COSINE_BOUND:
        raise ConfigurationError(
            f"The index gave the score {score}, which is no cosine, so there is no relevance: make the index with the "
            "distance 'cosine', or use `similarity_search_with_score`."
        )
    return min(max((1 + score) / 2, 0.0), 1.0)


def _json_object(text: Any) -> dict[str, Any] | None:
    if not isinstance(text, str):
        return None
    try:
        value = loads(text)
    except ValueError:  # somebody else's field of the same name
        return None
    return value if isinstance(value, dict) else None
