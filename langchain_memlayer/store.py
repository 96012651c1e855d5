"""`MemLayerStore`: LangGraph's `BaseStore` on the journal."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langgraph.store.base import BaseStore, IndexConfig, Op, Result, TTLConfig

from langchain_memlayer.backends.adapters import open_vectorstore
from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.engine.fingerprints import recorded_embedder
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.errors import ConfigurationError, InvalidInput, JournalClosed, JournalError
from langchain_memlayer.journal import Journal, open_journal
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.place import default_folder
from langchain_memlayer.loops import in_thread
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.store_execution import execute
from langchain_memlayer.store_plan import EVERYTHING, Fields, IndexSettings, MemLayerIndexConfig, Plan, check_ttl
from langchain_memlayer.types import Durability, to_micros

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

_LOGGER = logging.getLogger(__name__)
_SWEEP_MINUTES = 5


class MemLayerStore(BaseStore):
    """A LangGraph store that keeps everything in one folder and finds it by meaning.

    It answers as LangGraph's `InMemoryStore` does, but:

    - Values are JSON: a datetime, a set or NaN is an error, and a tuple comes back as a list. What a caller does with a
      value afterwards does not reach the store.
    - Filters also have `$in`, `$nin`, `$contains`, `$exists`, `$and`, `$or` and `$not`, and dotted paths
      (`{"user.city": "Rome"}`). A mapping without operators has to equal the whole value, `True` is not 1, and values
      that have no order, or are missing, are neither more nor less than any other.
    - Without a query the item that was written last comes first. With one, items without vectors follow those that have
      some; an empty text has none.
    - `list_namespaces` lists namespaces that have items. `limit` is at least 1.

    Args:
        path: The folder (made when missing), `":memory:"`, or `postgresql://user:password@host:port/database` for
            many processes and hosts. None means the environment's MEMLAYER_HOME, else a folder of the user's own.
        index: LangGraph's index configuration: `dims`, `embed`, `fields`, and optionally `distance_type`
            (`cosine`, `inner_product`, `l2`). None stores no vectors.
        vectorstore: A LangChain `VectorStore` that proposes candidates in place of the package's own index; the folder
            stays the truth. Needs `index`.
        ttl: LangGraph's TTL configuration (minutes). Expired items are never returned, swept or not.
        durability: `full` lets an acknowledged write survive power loss; `fast` only a killed process.
        hnsw_threshold: The size (rows x dims) above which a namespace gets an HNSW graph.
        clock: The present time; for tests.
        new_id: Fresh ids; for tests.

    Raises:
        NotAStore: `path` holds something else.
        SchemaTooNew: a newer release wrote the folder.
        ConfigurationError: the configuration of index or TTL cannot be used.

    Example:
        ```python
        with MemLayerStore("memories", index={"dims": 256, "embed": embeddings}) as store:
            graph = builder.compile(store=store)
        ```
    """

    supports_ttl = True

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        index: IndexConfig | MemLayerIndexConfig | None = None,
        vectorstore: VectorStore | None = None,
        ttl: TTLConfig | None = None,
        durability: Durability = "full",
        hnsw_threshold: int = 4_000_000,
        clock: Clock = utc_now,
        new_id: NewId = random_id,
    ) -> None:
        settings = None if index is None else IndexSettings.of(index)
        check_ttl(ttl)
        foreign = None
        if vectorstore is not None:
            if settings is None:
                raise ConfigurationError("vectorstore needs index, which says what is embedded: pass both.")
            foreign, _ = open_vectorstore(vectorstore, settings.embed)
        journal = open_journal(
            default_folder() if path is None else path, durability=durability, clock=clock, new_id=new_id
        )
        embedder = None if settings is None else _open_embedder(journal, settings)
        self._setup(
            Indexes(
                journal,
                area="items",
                embedder=embedder,
                metric="cosine" if settings is None else settings.metric,
                hnsw_threshold=hnsw_threshold,
            ),
            index=index,
            fields=None if settings is None or embedder is None else settings.fields,
            ttl=ttl,
            owner=True,
        )
        if foreign is not None:
            self._indexes.attach(foreign)

    @classmethod
    def of(cls, memory: Any) -> Self:
        """The store in the folder of an open `Memory`, with its embedder; it ends with that memory.

        Raises:
            EmbedderMismatch: the folder's items were written with another embedder.
        """
        memories: Indexes = memory._indexes
        embedder, recorded = memories.embedder, recorded_embedder(memories.journal, "items")
        if embedder is not None and recorded is not None:
            embedder = resolve_embeddings(embedder.source, folder=recorded, dims=embedder.dims)
        indexes = memories.beside("items", embedder)
        store = cls.__new__(cls)
        index: IndexConfig | None = None
        if embedder is not None and embedder.dims is not None:
            index = {"dims": embedder.dims, "embed": embedder.source, "fields": ["$"]}
        store._setup(indexes, index=index, fields=EVERYTHING if embedder else None, ttl=None, owner=False)
        store.memory = memory
        return store

    def _setup(
        self, indexes: Indexes, *, index: IndexConfig | None, fields: Fields | None, ttl: TTLConfig | None, owner: bool
    ) -> None:
        self.memory: Any = None
        """The `Memory` that this is the store of, or None."""
        self.index_config = index
        self.ttl_config = ttl
        self._indexes = indexes
        self._journal = indexes.journal
        self._embedder = indexes.embedder
        self._fields = fields
        self._owner = owner
        self._sweeper: threading.Thread | None = None
        self._stop = threading.Event()
        self._sweeper_lock = threading.Lock()

    # -- the contract ---------------------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations: reads see the state before the batch, writes are one commit."""
        plan = Plan.of(ops, self._fields)
        embedder = self._embedder
        if embedder is None:
            return execute(plan, self._indexes)
        texts = plan.texts
        vectors = dict(zip(texts, embedder.embed(texts), strict=True)) if texts else {}
        queries = {query: embedder.embed_query(query) for query in plan.queries}
        return execute(plan, self._indexes, vectors, queries)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Like `batch`; embeddings are awaited, the rest runs in a thread."""
        plan = Plan.of(ops, self._fields)
        embedder = self._embedder
        if embedder is None:
            return await in_thread(execute, plan, self._indexes)
        texts = plan.texts
        vectors = dict(zip(texts, await embedder.aembed(texts), strict=True)) if texts else {}
        queries = {query: await embedder.aembed_query(query) for query in plan.queries}
        return await in_thread(execute, plan, self._indexes, vectors, queries)

    def sweep_ttl(self) -> int:
        """Delete expired items; returns how many there were."""
        with self._journal.read() as reader:
            paths = reader.expired(to_micros(self._journal.clock()))
        if not paths:
            return 0
        with self._journal.write(*paths) as tx:
            return tx.sweep_items(paths)

    def start_ttl_sweeper(self, minutes: float | None = None) -> threading.Thread:
        """Sweep in the background, every `minutes` (default: the configuration's `sweep_interval_minutes`, or 5).

        Returns:
            The daemon thread that does it; the one that already runs, if there is one.

        Raises:
            InvalidInput: `minutes` is not positive.
            JournalClosed: the store is closed.
        """
        if minutes is None:
            minutes = (self.ttl_config or {}).get("sweep_interval_minutes") or _SWEEP_MINUTES
        if not minutes > 0:
            raise InvalidInput(f"minutes must be a positive number, got {minutes!r}.")
        with self._journal.read(), self._sweeper_lock:
            if self._sweeper is None or not self._sweeper.is_alive() or self._stop.is_set():
                self._stop = threading.Event()
                self._sweeper = threading.Thread(
                    target=self._sweep_until, args=(self._stop, minutes * 60), name="memlayer-ttl-sweeper", daemon=True
                )
                self._sweeper.start()
            return self._sweeper

    def _sweep_until(self, stop: threading.Event, seconds: float) -> None:
        while not stop.wait(seconds):
            try:
                self.sweep_ttl()
            except JournalClosed:
                return
            except JournalError as error:
                _LOGGER.warning("The TTL sweep failed and will be tried again: %s", error)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop the sweeper; True when it has ended within `timeout` seconds."""
        with self._sweeper_lock:
            sweeper = self._sweeper
            self._stop.set()
        if sweeper is None:
            return True
        sweeper.join(timeout)
        return not sweeper.is_alive()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the vector store was brought everything; False when that took longer than `timeout` seconds.

        Raises:
            VectorStoreError: it failed; it is brought everything when it answers again.
        """
        return self._indexes.outbox is None or self._indexes.outbox.flush(timeout)

    def close(self) -> None:
        """Stop background work and close the journal; further use raises `JournalClosed`."""
        self.stop_ttl_sweeper()
        if self._indexes.outbox is not None:
            self._indexes.outbox.close()
        self._indexes.close()
        if self._owner:
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await in_thread(self.close)


def _open_embedder(journal: Journal, settings: IndexSettings) -> Embedder | None:
    with ExitStack() as stack:
        stack.callback(journal.close)
        embedder = resolve_embeddings(settings.embed, folder=recorded_embedder(journal, "items"), dims=settings.dims)
        stack.pop_all()
    return embedder
