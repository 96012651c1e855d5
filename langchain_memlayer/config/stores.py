"""The section `vector_store`: our own index in a folder, or a LangChain VectorStore over a client.

Nothing that exists is changed or emptied: collections are made when they are absent, and compared when they are not.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from langchain_memlayer.config.provider import Provider, imported, integer, required, revealed
from langchain_memlayer.errors import ConfigurationError, VectorStoreError, shown
from langchain_memlayer.journal import home, place
from langchain_memlayer.types import METRICS, Metric

if TYPE_CHECKING:
    from langchain_memlayer.embedders.embedder import Embedder

_LOGGER = logging.getLogger(__name__)

COLLECTION: Final = "mem0"
"""The collection of a configuration that names none, as in mem0."""

_METRICS: Final = ("COSINE", "L2", "IP")
_PART: Final = re.compile(r"(?!\.{1,2}$)[^/\\:\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class Store:
    """What the section says.

    Attributes:
        path: The journal's folder, when the provider's settings name it.
        vectorstore: The foreign store, or None for our own index.
        metric: How our own index compares vectors, or None when the settings do not say.
        resources: What was opened for it, and is to be closed.
        place: Where the collection is, without credentials; None when the settings do not say.
    """

    provider: str
    collection: str
    path: str | None = None
    vectorstore: Any = None
    metric: Metric | None = None
    resources: ExitStack = field(default_factory=ExitStack, repr=False)
    place: str | None = None


def filled(path: Any, collection: str, where: str) -> str:
    """A path with the collection's name in the place that is kept for it.

    Raises:
        ConfigurationError: it is no path, or the name is no part of one.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise ConfigurationError(f"{where} must be a path, got {type(path).__name__}.")
    if "<collection_name>" in str(path) and not _PART.fullmatch(collection):
        raise ConfigurationError(
            f"{where} has a place for the collection's name, so collection_name must be the name of a folder: without "
            "/, \\ and :, and neither '.' nor '..'."
        )
    return str(path).replace("<collection_name>", collection)


def open_store(provider: str, config: dict[str, Any], embedder: Callable[[], Embedder]) -> Store:
    """What the section `vector_store` names; most stores need the embedder.

    Raises:
        ConfigurationError: settings that cannot be used.
        MissingDependency: the store's package is not installed.
        VectorStoreError: a store in a folder cannot be opened.
    """
    where = f"vector_store.config of {provider}"
    name = config.pop("collection_name", None)
    if name is not None and (not isinstance(name, str) or not name):
        raise ConfigurationError(f"{where} needs a string as collection_name, got {type(name).__name__}.")
    settings = {key: value for key, value in config.items() if value is not None}
    if provider in _PLACES:
        _choose_place(settings, _PLACES[provider], name or COLLECTION, where)
    place = None if provider == "faiss" or "client" in settings else _place(settings, name or COLLECTION)
    made: Store = STORES[provider].make(settings, name or COLLECTION, where, embedder)
    return replace(made, place=place)


def room() -> Path:
    """The folder in which collections without a place of their own have theirs.

    Raises:
        ConfigurationError: MEMLAYER_HOME is a database.
    """
    where = home()
    if isinstance(where, Path):
        return where
    raise ConfigurationError(
        "MEMLAYER_HOME is a database, in which no collection has a place of its own: name the journal of this one "
        "with 'path', such as a connection string with a schema of its own."
    )


def _place(config: Mapping[str, Any], name: str) -> str:
    """The server or the folder of a collection: two of the same name in two places are two collections."""
    given = (config.get(key) for key in ("url", "host", "connection_string", "path"))
    # VikingDB's may be named by the environment alone.
    place = str(revealed(next((value for value in given if value), os.environ.get("VIKINGDB_HOST", ""))))
    if "path" in config or ("url" in config and "://" not in place):
        return str(Path(filled(place, name, "path")).resolve())
    return f"{re.sub(r'//[^/]*@', '//', place)} {config.get('port', '')}"


def _faiss(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    if (dims := config.get("embedding_model_dims")) is not None:
        integer(dims, f"{where}: embedding_model_dims")
    strategy, normal = config.get("distance_strategy"), config.get("normalize_L2", False)
    if strategy not in (None, *METRICS):
        raise ConfigurationError(
            f"{where}: distance_strategy must be one of {', '.join(METRICS)}; got {shown(strategy)}."
        )
    if not isinstance(normal, bool):
        raise ConfigurationError(f"{where}: normalize_L2 must be true or false; got {shown(normal)}.")
    # Vectors of unit length are ordered the same by all three.
    metric: Metric | None = "cosine" if normal else strategy
    path = config.get("path")
    return Store("faiss", name, path=None if path is None else filled(path, name, f"{where}: path"), metric=metric)


def _langchain(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    from langchain_memlayer.backends.base import adapt

    store = required(config, "client", where)
    adapt(store)  # a wrong object is told before a folder is made
    named = getattr(store, "collection_name", None) or getattr(store, "_collection_name", None)
    return Store("langchain", named if isinstance(named, str) else type(store).__name__, vectorstore=store)


def _qdrant(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    langchain, qdrant = (
        imported(module, "langchain-memlayer[qdrant]") for module in ("langchain_qdrant", "qdrant_client")
    )
    source, resources = embedder(), ExitStack()
    dims = partial(checked_dims, config.pop("embedding_model_dims", None), source, where, makes=True)
    on_disk = config.pop("on_disk", None)

    client = config.get("client")
    if client is None:
        given = {key: revealed(value) for key, value in config.items()}
        # It contacts no server yet: what it refuses is a mistake in the settings, or a folder that is in use.
        client = _opened(
            "qdrant", lambda _: qdrant.QdrantClient(**given, check_compatibility=False), ExitStack(), server=False
        )
        resources.callback(client.close)

    def make(_: ExitStack) -> Any:
        models = qdrant.models
        if not client.collection_exists(name):
            vectors = models.VectorParams(size=dims(), distance=models.Distance.COSINE, on_disk=on_disk)
            client.create_collection(name, vectors_config=vectors)
        return langchain.QdrantVectorStore(client, name, source.source, validate_collection_config=False)

    with ExitStack() as undone:
        undone.callback(resources.close)
        opened = _opened("qdrant", make, resources, server=not {"client", "path"} & set(config))
        undone.pop_all()
    return Store("qdrant", name, vectorstore=opened, resources=resources)


def _chroma(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    for key, here in (("path", "persist_directory"), ("api_key", "chroma_cloud_api_key")):
        if key in config:
            config[here] = revealed(config.pop(key))
    langchain, chroma = (imported(module, "langchain-memlayer[chroma]") for module in ("langchain_chroma", "chromadb"))
    source, resources = embedder(), ExitStack()
    own = "client" not in config
    if own:
        config["client_settings"] = chroma.Settings(anonymized_telemetry=False)

    def make(opened: ExitStack) -> Any:
        store = langchain.Chroma(name, source.source, collection_configuration={"hnsw": {"space": "cosine"}}, **config)
        if own:
            opened.callback(store._client.close)
        return store

    opened = _opened("chroma", make, resources, server="host" in config or "chroma_cloud_api_key" in config)
    return Store("chroma", name, vectorstore=opened, resources=resources)


def _milvus(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    metric = str(config.get("metric_type", "COSINE")).upper()
    if metric not in _METRICS:
        raise ConfigurationError(f"{where}: metric_type must be one of {', '.join(_METRICS)}; got {shown(metric)}.")
    uri = filled(config.get("url") or "http://localhost:19530", name, f"{where}: url")
    langchain = imported("langchain_milvus", "langchain-memlayer[milvus]")
    source, resources = embedder(), ExitStack()
    if (dims := config.get("embedding_model_dims")) is not None:
        checked_dims(dims, source, where)
    connection = {"uri": uri, **{key: revealed(config[key]) for key in ("token", "db_name") if config.get(key)}}

    def make(opened: ExitStack) -> Any:
        store = langchain.Milvus(
            source.source,
            collection_name=name,
            connection_args=connection,
            index_params={"metric_type": metric, "index_type": "AUTOINDEX", "params": {}},
            auto_id=False,
            enable_dynamic_field=True,
        )
        opened.callback(store.client.close)
        return store

    opened = _opened("milvus", make, resources, server="://" in uri)
    return Store("milvus", name, vectorstore=opened, resources=resources)


def _vikingdb(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    from langchain_memlayer.vikingdb import VikingDBVectorStore

    return Store("vikingdb", name, vectorstore=VikingDBVectorStore(name, embedder().source, **config))


def _pgvector(config: dict[str, Any], name: str, where: str, embedder: Callable[[], Embedder]) -> Store:
    address = revealed(
        config["connection_string"] if "connection_string" in config else _postgres_address(config, where)
    )
    address = address.strip() if isinstance(address, str) else ""
    scheme, _, rest = address.partition("://")
    if not re.fullmatch(r"postgres(ql(\+\w+)?)?", scheme) or not rest:
        raise ConfigurationError(f"{where} needs a connection_string that begins with postgresql://.")
    place(f"postgresql://{rest}")
    if "+" not in scheme:
        address = f"postgresql+psycopg://{rest}"
    langchain, sql = (
        imported(module, "langchain-memlayer[pgvector]") for module in ("langchain_postgres", "sqlalchemy")
    )
    source, resources = embedder(), ExitStack()
    dims = partial(checked_dims, config.pop("embedding_model_dims", None), source, where, makes=True)

    def make(opened: ExitStack) -> Any:
        engine = langchain.PGEngine.from_connection_string(address)
        opened.callback(lambda: engine._run_as_sync(engine._pool.dispose()))

        async def table_exists() -> bool:
            quoted = name.replace('"', '""')
            async with engine._pool.connect() as connection:
                found = await connection.execute(
                    sql.text("SELECT to_regclass(:name)"), {"name": f'"public"."{quoted}"'}
                )
                return found.scalar() is not None

        if not engine._run_as_sync(table_exists()):
            key = {"name": "langchain_id", "data_type": "TEXT", "nullable": False}
            engine.init_vectorstore_table(name, dims(), id_column=key)
        return langchain.PGVectorStore.create_sync(engine, source.source, name)

    opened = _opened("postgres", make, resources, server=True)
    return Store("pgvector", name, vectorstore=opened, resources=resources)


def _postgres_address(config: dict[str, Any], where: str) -> str:
    """The connection string of a database that is given in parts."""
    user, password = (quote(str(revealed(required(config, key, where))), safe="") for key in ("user", "password"))
    host, port = (required(config, key, where) for key in ("host", "port"))
    mode = f"?sslmode={config['sslmode']}" if config.get("sslmode") else ""
    database = quote(str(config.get("dbname") or "postgres"), safe="")
    return f"postgresql://{user}:{password}@{host}:{integer(port, f'{where}: port')}/{database}{mode}"


_PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "chroma": ("client", "api_key", "host", "path"),
    "qdrant": ("client", "url", "host", "path"),
}
"""Where a store may be, the first that is given is where it is."""

STORES: Final[Mapping[str, Provider]] = {
    "chroma": Provider(
        _chroma, ("collection_name", "client", "path", "host", "port", "api_key", "tenant"), ("embedding_model_dims",)
    ),
    "faiss": Provider(_faiss, ("collection_name", "path", "distance_strategy", "normalize_L2", "embedding_model_dims")),
    "langchain": Provider(_langchain, ("client", "collection_name"), ("embedding_model_dims",)),
    "milvus": Provider(_milvus, ("url", "token", "collection_name", "embedding_model_dims", "metric_type", "db_name")),
    "pgvector": Provider(
        _pgvector,
        ("connection_string", "collection_name", "embedding_model_dims", "user", "password", "host", "port", "dbname",
         "sslmode"),
        ("diskann", "hnsw", "minconn", "maxconn", "connection_pool"),
    ),
    "qdrant": Provider(
        _qdrant,
        ("collection_name", "embedding_model_dims", "client", "host", "port", "path", "url", "api_key", "https",
         "on_disk"),
    ),
    "vikingdb": Provider(_vikingdb, ("collection_name", "host", "region", "ak", "sk", "api_key")),
}  # fmt: skip


def _choose_place(config: dict[str, Any], places: tuple[str, ...], name: str, where: str) -> None:
    """Leave one place of those that are given, or name one; a path gets the collection's name."""
    given = [key for key in places if config.get(key)] or ["path"]
    for key in given[1:]:
        del config[key]
    if given[1:]:
        _LOGGER.warning("%s: %s says where the store is, so %s is not used.", where, given[0], " and ".join(given[1:]))
    if "host" not in config and config.pop("port", None) is not None and given[0] not in ("client", "url"):
        raise ConfigurationError(f"{where} has a port without a host.")
    if "port" in config:
        config["port"] = integer(config["port"], f"{where}: port")
    if given[0] == "path":
        kind = where.rpartition(" ")[2]
        config["path"] = filled(config.get("path") or str(room() / f"{kind}-data"), name, f"{where}: path")


def checked_dims(given: Any, embedder: Embedder, where: str, *, makes: bool = False) -> int | None:
    """The size of the vectors of a collection as it is known; one that is to be made (`makes`) has the embedder's."""
    size = None if given is None else integer(given, f"{where}: embedding_model_dims")
    real = embedder.dims or (len(embedder.embed_query("size")) if makes else None)
    if None not in (size, real) and size != real:
        raise ConfigurationError(
            f"{where}: embedding_model_dims is {size}, but {embedder.name} makes vectors of {real} numbers: leave it "
            "out, or name another embedder."
        )
    return real or size


def _opened(kind: str, make: Callable[[ExitStack], Any], resources: ExitStack, *, server: bool) -> Any:
    """The store; when it is a server that does not answer, one that is opened later.

    The kind is that of the store's adapter: the journal notes what it was brought by it, and would begin anew.
    """
    from langchain_memlayer.backends.base import DeferredStore, guarded

    stores: list[Any] = []

    def attempt() -> Any:
        with ExitStack() as opened:
            stores.append(make(opened))
            resources.push(opened.pop_all())
        return stores[-1]

    deferred = DeferredStore(kind, attempt)
    try:
        if server:
            deferred.open()
            return stores[-1]
        with guarded(deferred):
            return attempt()
    except VectorStoreError as error:
        if not server:
            raise
        _LOGGER.warning("%s", error)
        return deferred
