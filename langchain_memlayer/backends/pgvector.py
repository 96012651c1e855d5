"""PostgreSQL with pgvector: both stores of langchain-postgres."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

import orjson

from langchain_memlayer.backends.base import Adapter, Document, Point, Scalar, fields, unit
from langchain_memlayer.errors import ConfigurationError

_MOST_EF: Final = 1_000
_FEWEST_EF: Final = 100
_OPERATORS: Final = {"l2": "<->", "cosine": "<=>", "inner": "<#>"}
_Params = dict[str, Any]
_Rows = list[Mapping[str, Any]]


class _PostgresAdapter(Adapter):
    """What the two have in common: a table with an id, a text, a vector and metadata as JSON.

    Searches are asked for in SQL of our own: a graph index with a filter gives too few rows, or none, unless it is told
    to go on, and neither store tells it.
    """

    kind = "postgres"
    _name: str
    _table: str
    _id: str
    _text: str
    _vector: str
    _metadata: str
    _operator: str

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._goes_on: bool | None = None

    def _run(self, *statements: tuple[str, _Params]) -> _Rows:
        """The rows of the last statement, all of them in one transaction."""
        raise NotImplementedError

    def _conditions(self, where: Mapping[str, Scalar]) -> tuple[list[str], _Params]:
        raise NotImplementedError

    def _key(self, id_: str) -> str:
        """A point's id in the table."""
        return id_

    def _remove(self, batch: list[str]) -> None:
        self._store.delete([self._key(id_) for id_ in batch])

    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        conditions, params = self._conditions(where)
        sql = (
            f"SELECT {self._selected()} FROM {self._table} WHERE {' AND '.join(conditions)} "
            f"ORDER BY {self._vector} {self._operator} CAST(:query AS vector) LIMIT :k"
        )
        rows = self._run(*self._settings(k), (sql, {**params, "query": str(vector), "k": k}))
        return map(self._read, rows)

    def _settings(self, k: int) -> list[tuple[str, _Params]]:
        """Let an approximate index go on until `k` rows pass the filter, where it can."""
        if self._goes_on is None:
            extensions = self._run(("SELECT extversion FROM pg_extension WHERE extname = 'vector'", {}))
            version = str(extensions[0]["extversion"]) if extensions else "0"
            self._goes_on = [int(part) for part in version.split(".")[:2] if part.isdecimal()] >= [0, 8]
        if not self._goes_on:
            return []
        sql = (
            "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), "
            "set_config('ivfflat.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', :ef, true)"
        )
        return [(sql, {"ef": str(min(max(k, _FEWEST_EF), _MOST_EF))})]

    def _selected(self) -> str:
        return f"{self._metadata} AS metadata"

    def _read(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row's metadata."""
        return row["metadata"] or {}

    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        keys = {self._key(id_): id_ for id_ in batch}
        return (keys[str(document.id)] for document in self._store.get_by_ids(list(keys)))

    def documents(self) -> Iterator[Document]:
        """Everything in the store."""
        conditions, params = self._conditions({})
        sql = (
            f"SELECT CAST({self._id} AS text) AS id, {self._text} AS text, {self._selected()} "
            f"FROM {self._table} WHERE {' AND '.join(conditions)} ORDER BY {self._id}"
        )
        for row in self._run((sql, params)):
            yield Document(row["id"], row["text"] or "", self._read(row))

    def check(self, dims: int) -> None:
        """Compare the columns' types, and the size of the vectors that are there."""
        sql = (
            "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
            "WHERE attrelid = to_regclass(:table) AND attnum > 0 AND NOT attisdropped"
        )
        types = {f'"{row["name"]}"': str(row["type"]) for row in self._run((sql, {"table": self._table}))}
        if not types[self._id].startswith(("text", "char", "uuid")):
            raise ConfigurationError(
                f"The id column of the PostgreSQL table {self._name!r} is {types[self._id]}; ours are UUIDs: make the "
                "table with an id column of type TEXT or UUID."
            )
        declared = types[self._vector].partition("(")[2].rstrip(")")
        if declared:
            self._require_dims(self._name, int(declared), dims)
            return
        conditions, params = self._conditions({})
        sql = f"SELECT vector_dims({self._vector}) AS dims FROM {self._table} WHERE {' AND '.join(conditions)} LIMIT 1"
        for row in self._run((sql, params)):
            self._require_dims(self._name, row["dims"], dims)


class PGVectorAdapter(_PostgresAdapter):
    """`PGVector`: the collections share one table.

    Raises:
        ConfigurationError: it is bound to asyncio.
    """

    _id, _text, _vector, _metadata = '"id"', '"document"', '"embedding"', '"cmetadata"'

    def __init__(self, store: Any) -> None:
        if store.async_mode:
            raise ConfigurationError("The PGVector store is in async_mode, which has no plain calls: open it without.")
        super().__init__(store)
        self._name = store.collection_name
        self._table = f'"{store.EmbeddingStore.__tablename__}"'
        self._collections = f'"{store.CollectionStore.__tablename__}"'
        strategy = store._distance_strategy
        self._operator = _OPERATORS[str(getattr(strategy, "value", strategy))]

    def _write(self, batch: list[Point]) -> None:
        self._store.add_embeddings(
            texts=[point.text for point in batch],
            embeddings=[unit(point.vector) for point in batch],
            metadatas=[fields(point) for point in batch],
            ids=[self._key(point.id) for point in batch],
        )

    def _key(self, id_: str) -> str:
        # Ids are unique over all collections: the same in another one would be changed there, and be missing here.
        return str(uuid.uuid5(uuid.UUID(id_), self._name))

    def _run(self, *statements: tuple[str, _Params]) -> _Rows:
        text = import_module("sqlalchemy").text
        with self._store._engine.begin() as connection:
            for sql, params in statements:
                result = connection.execute(text(sql), params)
            found: _Rows = list(result.mappings())
        return found

    def _conditions(self, where: Mapping[str, Scalar]) -> tuple[list[str], _Params]:
        params: _Params = {"collection": self._name}
        conditions = [f"collection_id = (SELECT uuid FROM {self._collections} WHERE name = :collection)"]
        if where:
            # What the column's index is made for.
            conditions.append(f"{self._metadata} @> CAST(:wanted AS jsonb)")
            params["wanted"] = orjson.dumps(where).decode()
        return conditions, params


class PGVectorStoreAdapter(_PostgresAdapter):
    """`PGVectorStore`: a table of its own, with columns that may be declared for single metadata fields.

    Raises:
        ConfigurationError: it cannot be called without asyncio, or keeps no metadata as JSON.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self._engine = store._engine
        if self._engine._loop is None:
            raise ConfigurationError(
                "The PGVectorStore's engine has no loop of its own: make it with PGEngine.from_connection_string."
            )
        inner = store._PGVectorStore__vs
        if inner.metadata_json_column is None:
            raise ConfigurationError(
                f"The PostgreSQL table {inner.table_name!r} has no JSON column for metadata: make it with "
                "store_metadata=True."
            )
        self._name = inner.table_name
        self._table = f"{_quoted(inner.schema_name)}.{_quoted(inner.table_name)}"
        self._id = _quoted(inner.id_column)
        self._text = _quoted(inner.content_column)
        self._vector = _quoted(inner.embedding_column)
        self._metadata = _quoted(inner.metadata_json_column)
        self._columns = list(inner.metadata_columns)
        self._words = _words(inner.hybrid_search_config)
        self._operator = inner.distance_strategy.operator

    def _write(self, batch: list[Point]) -> None:
        # The store's own way is a connection and a commit for each.
        values = {self._id: ":id", self._text: ":text", self._vector: "CAST(:vector AS vector)"}
        values |= {self._metadata: "CAST(:metadata AS json)"}
        values |= {_quoted(name): f":column{place}" for place, name in enumerate(self._columns)} | self._words
        changed = ", ".join(f"{column} = EXCLUDED.{column}" for column in values if column != self._id)
        sql = (
            f"INSERT INTO {self._table} ({', '.join(values)}) VALUES ({', '.join(values.values())}) "
            f"ON CONFLICT ({self._id}) DO UPDATE SET {changed}"
        )
        text, given = import_module("sqlalchemy").text, [self._row(point) for point in batch]

        async def run() -> None:
            async with self._engine._pool.begin() as connection:
                await connection.execute(text(sql), given)

        self._engine._run_as_sync(run())

    def _row(self, point: Point) -> _Params:
        metadata = fields(point)
        declared = {f"column{place}": metadata.pop(name, None) for place, name in enumerate(self._columns)}
        return {
            "id": point.id,
            "text": point.text,
            "vector": str(unit(point.vector)),
            "metadata": orjson.dumps(metadata).decode(),
            **declared,
        }

    def _run(self, *statements: tuple[str, _Params]) -> _Rows:
        text = import_module("sqlalchemy").text

        async def run() -> _Rows:
            async with self._engine._pool.begin() as connection:
                for sql, params in statements:
                    result = await connection.execute(text(sql), params)
                return list(result.mappings())

        found: _Rows = self._engine._run_as_sync(run())
        return found

    def _conditions(self, where: Mapping[str, Scalar]) -> tuple[list[str], _Params]:
        conditions, params = ["true"], {}
        for place, (name, value) in enumerate(where.items()):
            if name in self._columns:
                conditions.append(f"{_quoted(name)} = :value{place}")
                params[f"value{place}"] = value
            elif not isinstance(value, float):
                # As text: a cast would fail on rows in which the field has another type. Fractions have many spellings.
                conditions.append(f"{self._metadata} ->> '{name}' = :value{place}")
                params[f"value{place}"] = value if isinstance(value, str) else orjson.dumps(value).decode()
        return conditions, params

    def _selected(self) -> str:
        return ", ".join([super()._selected(), *(_quoted(name) for name in self._columns)])

    def _read(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        declared = {name: row[name] for name in self._columns if row[name] is not None}
        return {**super()._read(row), **declared}


def _words(hybrid: Any) -> dict[str, str]:
    """The column of the words to search for, when the table has one, and what fills it."""
    if hybrid is None or not hybrid.tsv_column:
        return {}
    language = (hybrid.tsv_lang or "").replace("'", "''")
    return {_quoted(hybrid.tsv_column): f"to_tsvector('{language}', :text)" if language else "to_tsvector(:text)"}


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
