"""Milvus, as a file (Lite) or as a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from langchain_memlayer.backends.base import BATCH, ITEM, STORE, Adapter, Document, Point, Scalar, fields, unit
from langchain_memlayer.errors import ConfigurationError

_MOST_ROWS: Final = 16_384
_MOST_METADATA_BYTES: Final = 60_000
_SHORT: Final = 256
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})


@dataclass(frozen=True, slots=True)
class _Schema:
    """A collection as it is.

    Attributes:
        dims: The size of its vectors.
        dynamic: Whether it takes fields that it was not made with.
        text_bytes: How long a text may be.
        declared: The fields that it was made with.
        unfilled: Those that need a value which memories do not have.
    """

    dims: int
    dynamic: bool
    text_bytes: int
    declared: frozenset[str]
    unfilled: tuple[str, ...]


class MilvusAdapter(Adapter):
    """`Milvus` of langchain-milvus, through its client: the store itself logs the texts of a batch that fails.

    Raises:
        ConfigurationError: it makes ids itself, or has several vectors.
    """

    kind = "milvus"

    def __init__(self, store: Any) -> None:
        if store.auto_id:
            raise ConfigurationError(
                "The Milvus store makes its own ids: open it, on a new collection, without auto_id."
            )
        embedded = list(store._vector_fields_from_embedding)
        if len(embedded) != 1:
            raise ConfigurationError(f"The Milvus store must embed into one vector field; it has {len(embedded)}.")
        super().__init__(store)
        self._client = store.client
        self._vector_field = embedded[0]
        self._known: _Schema | None = None

    def _write(self, batch: list[Point]) -> None:
        # The collection is made with the first ones.
        if not self._client.has_collection(self._store.collection_name):
            self._make(batch[0])
        schema = self._schema()
        self._client.upsert(self._store.collection_name, [self._row(point, schema) for point in batch])

    def _make(self, point: Point) -> None:
        index = self._store._index_param_map.get(self._vector_field)
        if index:
            index.setdefault("index_type", "AUTOINDEX")  # Lite refuses an index without a type
        self._known = None
        self._store._init(embeddings=[[unit(point.vector)]], metadatas=[fields(point)])

    def _row(self, point: Point, schema: _Schema) -> dict[str, Any]:
        store = self._store
        metadata = fields(point)
        if len(orjson.dumps(metadata)) > _MOST_METADATA_BYTES:
            # The server refuses the row; long values are not filtered on either.
            metadata = {name: value for name, value in metadata.items() if not _is_long(value)}
        own = {
            store._primary_field: point.id,
            store._text_field: point.text.encode()[: schema.text_bytes].decode(errors="ignore"),
            self._vector_field: unit(point.vector),
        }
        return {store._metadata_field: metadata, **own} if store._metadata_field else {**metadata, **own}

    def _remove(self, batch: list[str]) -> None:
        # The store's own `delete` would not tell of a failure.
        if self._exists():
            self._client.delete(self._store.collection_name, ids=batch)

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        if not self._exists():
            return []
        column = self._store._metadata_field
        answer = self._client.search(
            self._store.collection_name,
            data=[vector],
            anns_field=self._vector_field,
            search_params=self._search_params(k),
            limit=min(k, _MOST_ROWS),
            filter=" and ".join(f"{self._place(name)} == {_literal(value)}" for name, value in where.items()),
            output_fields=[column] if column else [ITEM, STORE, *where],
        )
        entities = (hit["entity"] for hit in answer[0])
        return (entity.get(column) if column else entity for entity in entities)

    def _search_params(self, k: int) -> dict[str, Any] | None:
        params = self._store.search_params
        if not isinstance(params, dict):
            return None
        inner = dict(params.get("params") or {})
        if "ef" in inner:
            inner["ef"] = max(inner["ef"], min(k, _MOST_ROWS))  # a server refuses to search less than it shall give
        return {**params, "params": inner}

    def _sayable(self, where: dict[str, Scalar]) -> dict[str, Scalar]:
        # What was written as it is (see `_row`).
        column = self._store._metadata_field
        own = () if column else (self._store._primary_field, self._store._text_field, self._vector_field)
        return {name: value for name, value in where.items() if not _is_long(value) and name not in own}

    def _place(self, name: str) -> str:
        column = self._store._metadata_field
        if column:
            return f'{column}["{name}"]'
        # By its plain name, a field called `in` or `like` would be an operator.
        return name if name in self._schema().declared else f'$meta["{name}"]'

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        if not self._exists():
            return []
        key = self._store._primary_field
        answer = self._client.query(self._store.collection_name, ids=batch, output_fields=[key])
        return (str(entity[key]) for entity in answer)

    def documents(self) -> Iterator[Document]:
        """Everything in the store, page by page."""
        if not self._exists():
            return
        store = self._store
        pages = self._client.query_iterator(store.collection_name, batch_size=BATCH, output_fields=["*"])
        try:
            while page := pages.next():
                for entity in page:
                    text = str(entity.pop(store._text_field, None) or "")
                    id_ = str(entity.pop(store._primary_field))
                    entity.pop(self._vector_field, None)
                    yield Document(
                        id_, text, entity.get(store._metadata_field) or {} if store._metadata_field else entity
                    )
        finally:
            pages.close()

    def check(self, dims: int) -> None:
        """Compare the collection's fields, vector size and metric."""
        store, name = self._store, self._store.collection_name
        schema = self._schema() if self._exists() else None
        dynamic = store.enable_dynamic_field if schema is None else schema.dynamic
        if not (dynamic or store._metadata_field):
            raise ConfigurationError(
                f"The Milvus collection {name!r} takes only the fields that it was made with: open the store with "
                "enable_dynamic_field=True, on a new collection."
            )
        index = (store._index_param_map.get(self._vector_field) or {}).get("metric_type", "L2")
        if schema is not None:
            self._require_dims(name, schema.dims, dims)
            if schema.unfilled:
                raise ConfigurationError(
                    f"The Milvus collection {name!r} needs the fields {', '.join(schema.unfilled)}, which memories do "
                    "not have: name another collection."
                )
            index = self._client.describe_index(name, self._vector_field)["metric_type"]
        self._require_metric(name, index, ("cosine", "ip", "l2"))

    def _exists(self) -> bool:
        return self._known is not None or bool(self._client.has_collection(self._store.collection_name))

    def _schema(self) -> _Schema:
        if self._known is None:
            collection = self._client.describe_collection(self._store.collection_name)
            described = {field["name"]: field for field in collection["fields"]}
            store = self._store
            filled = {
                store._primary_field,
                store._text_field,
                store._metadata_field,
                self._vector_field,
                *store._vector_fields_from_function,
            }
            self._known = _Schema(
                dims=int(described[self._vector_field]["params"]["dim"]),
                dynamic=bool(collection.get("enable_dynamic_field")),
                text_bytes=int(described[store._text_field]["params"].get("max_length", 65_535)),
                declared=frozenset(described),
                unfilled=tuple(
                    name
                    for name, field in described.items()
                    if name not in filled and not field.get("nullable") and field.get("default_value") is None
                ),
            )
        return self._known


def _is_long(value: Scalar) -> bool:
    return isinstance(value, str) and len(value) > _SHORT


def _literal(value: Scalar) -> str:
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)
