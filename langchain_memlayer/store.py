"""`MemLayerStore`: LangGraph's `BaseStore` on the journal."""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)
from numpy.typing import NDArray

from langchain_memlayer.arguments import checked_seconds
from langchain_memlayer.backends.base import open_vectorstore
from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.engine.index_sync import Indexes, check_settings, encode_vectors, recorded_embedder
from langchain_memlayer.errors import ConfigurationError, InvalidInput, JournalClosed, JournalError, shown
from langchain_memlayer.filters import Filter
from langchain_memlayer.journal import Journal, default_folder, open_journal
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.item_reader import ItemRow
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.store_arguments import (
    EVERYTHING,
    Batch,
    Fields,
    IndexSettings,
    MemLayerIndexConfig,
    check_ttl,
    checked_key,
)
from langchain_memlayer.threads import Closing, in_thread
from langchain_memlayer.types import Durability, decode_namespace, encode_namespace, from_micros

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

_LOGGER = logging.getLogger(__name__)
_SWEEP_MINUTES = 5
_RETRIES = 8

_OVER = -1
"""When an item that has expired for good does, in a view."""

Vectors = Mapping[str, NDArray[Any]]
"""What texts or queries were embedded as."""

_NONE: Vectors = {}

Scored = list[tuple[ItemRow, float | None]]
"""Items with their scores, None where nothing ranks them."""


class MemLayerStore(Closing, BaseStore):
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
        check_settings(hnsw_threshold=hnsw_threshold, clock=clock, new_id=new_id)
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
        memories: Indexes = memory.internals.indexes
        embedder, recorded = memories.embedder, recorded_embedder(memories.journal, "items")
        if embedder is not None and recorded is not None:
            embedder = resolve_embeddings(embedder.source, folder=recorded, dims=embedder.dims)
        indexes = memories.of_area("items", embedder)
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
        batch = Batch.of(ops, self._fields)
        embedder = self._embedder
        if embedder is None:
            return _execute(batch, self._indexes)
        vectors = dict(zip(batch.texts, embedder.embed(batch.texts), strict=True)) if batch.texts else {}
        queries = {query: embedder.embed_query(query) for query in dict.fromkeys(batch.queries.values())}
        return _execute(batch, self._indexes, vectors, queries)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Like `batch`; embeddings are awaited, the rest runs in a thread."""
        batch = Batch.of(ops, self._fields)
        embedder = self._embedder
        if embedder is None:
            return await in_thread(_execute, batch, self._indexes)
        vectors = dict(zip(batch.texts, await embedder.aembed(batch.texts), strict=True)) if batch.texts else {}
        queries = {query: await embedder.aembed_query(query) for query in dict.fromkeys(batch.queries.values())}
        return await in_thread(_execute, batch, self._indexes, vectors, queries)

    def sweep_ttl(self) -> int:
        """Delete expired items; returns how many there were."""
        with self._journal.read() as reader:
            paths = reader.expired(self._journal.now())
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
        if not isinstance(minutes, (int, float)) or not 0 < minutes < math.inf:
            raise InvalidInput(f"minutes must be a positive number, got {shown(minutes)}.")
        with self._journal.read(), self._sweeper_lock:
            if self._sweeper is None or not self._sweeper.is_alive() or self._stop.is_set():
                self._stop = threading.Event()
                self._sweeper = threading.Thread(
                    target=self._sweep_until,
                    args=(self._stop, checked_seconds(minutes, "minutes") * 60),
                    name="memlayer-ttl-sweeper",
                    daemon=True,
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
        sweeper.join(None if timeout is None else checked_seconds(timeout, "timeout"))
        return not sweeper.is_alive()

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the vector store has everything; False when that took longer than `timeout` seconds.

        Raises:
            VectorStoreError: it failed; it gets everything when it answers again.
        """
        timeout = None if timeout is None else checked_seconds(timeout, "timeout")
        return self._indexes.mirror is None or self._indexes.mirror.flush(timeout)

    def close(self) -> None:
        """Stop background work and close the journal; further use raises `JournalClosed`."""
        self.stop_ttl_sweeper()
        if self._indexes.mirror is not None:
            self._indexes.mirror.close()
        self._indexes.close()
        if self._owner:
            self._journal.close()


def _open_embedder(journal: Journal, settings: IndexSettings) -> Embedder | None:
    with ExitStack() as stack:
        stack.callback(journal.close)
        embedder = resolve_embeddings(settings.embed, folder=recorded_embedder(journal, "items"), dims=settings.dims)
        stack.pop_all()
    return embedder


# -- what a batch does once it has passed -------------------------------------------------------------------------


def _execute(batch: Batch, indexes: Indexes, texts: Vectors = _NONE, queries: Vectors = _NONE) -> list[Result]:
    """Run a batch: all of its operations see the same time, its reads the state before it, its writes are one commit.

    `texts` and `queries` are the vectors of the batch's; a query without one is not ranked.
    """
    results: list[Result] = [None] * len(batch.ops)
    touched: Mapping[int, str] = {}
    # Puts to different keys alone read nothing.
    if len(batch.puts) < len(batch.ops):
        results, touched = _read(batch, indexes, queries)
    if batch.puts or touched:
        _write(batch, indexes, _encoded(batch, indexes, texts), touched)
    return results


def _read(batch: Batch, indexes: Indexes, queries: Vectors) -> tuple[list[Result], Mapping[int, str]]:
    """What the operations of a batch return, and the rows whose time to live begins anew."""
    now = indexes.journal.now()
    prefixes = {batch.paths[number] for number in batch.queries}
    # One operation that asks once for its rows sees one state anyway.
    several = len(batch.ops) > 1 or len(batch.filters) > len(batch.queries)
    views: dict[str, Any] = {}
    for attempt in range(_RETRIES):
        if attempt:
            # Before the journal is read: one call never holds two of its connections.
            views = {prefix: indexes.view(prefix) for prefix in prefixes}
        with indexes.journal.read(snapshot=several) as reader:
            last = reader.last_seq() if prefixes and (several or not attempt) else 0
            if not attempt:
                views = {prefix: indexes.current(prefix, last) for prefix in prefixes}
            # None where a view is to be caught up first. Or somebody wrote between: it has what the snapshot has not.
            later = None in views.values() or (several and any(view.applied_seq != last for view in views.values()))
            if later and attempt < _RETRIES - 1:
                continue
            reads = _Reads(reader, views, now, expiring=indexes.expiring)
            results = [reads.result(number, op, batch, queries) for number, op in enumerate(batch.ops)]
        if not reads.stale:
            break
    return results, reads.touched


def _encoded(batch: Batch, indexes: Indexes, vectors: Vectors) -> dict[tuple[str, str], bytes | None]:
    if not vectors:
        return dict.fromkeys(batch.puts)
    # All in one go: one by one this takes as long as writing them.
    block = encode_vectors(list(vectors.values()), indexes.metric)
    size = len(block) // len(vectors)
    encoded = {text: block[k * size : (k + 1) * size] for k, text in enumerate(vectors)}
    return {key: b"".join(encoded[text] for text in put.texts) or None for key, put in batch.puts.items()}


def _write(
    batch: Batch, indexes: Indexes, vector_bytes: Mapping[tuple[str, str], bytes | None], touched: Mapping[int, str]
) -> None:
    with indexes.journal.write(*(put.path for put in batch.puts.values()), *touched.values()) as tx:
        if any(vector_bytes.values()):
            indexes.record_embedder(tx)
        for key, put in batch.puts.items():
            if put.value is None:
                tx.delete_item(*key)
            else:
                tx.put_item(
                    put.path, put.key, put.value, ttl=put.ttl, vector_bytes=vector_bytes[key], fields=put.fields
                )
        tx.touch_items(touched)


class _Reads:
    """The reads of a batch: of one state of the journal, at one time.

    Args:
        reader: Reads that state.
        views: The vectors below the prefixes that are searched by a query.
        now: The time.
        expiring: Whether any item has a time to live.

    Attributes:
        touched: The rows of items whose time to live begins anew, with their encoded namespaces.
        stale: Whether a view had what is not, or no longer, in that state.
    """

    def __init__(self, reader: Reader, views: Mapping[str, Any], now: int, *, expiring: bool) -> None:
        self._reader = reader
        self._views = views
        self._now = now
        self._expiring = expiring
        self.touched: dict[int, str] = {}
        self.stale = False

    def result(self, number: int, op: Op, batch: Batch, queries: Vectors) -> Result:
        """What an operation returns; None for a put."""
        if isinstance(op, SearchOp):
            query = queries[batch.queries[number]] if number in batch.queries else None
            return self._search(op, batch.paths[number], batch.filters[number], query)
        if isinstance(op, GetOp):
            return self._get(op, batch.paths[number])
        if isinstance(op, ListNamespacesOp):
            return self._list(op)
        return None

    def _get(self, op: GetOp, path: str) -> Item | None:
        pair = path, checked_key(op.key)
        row = self._reader.items_by_key([pair], self._now).get(pair)
        if row is None:
            return None
        number, _, path, key, value, created, updated, ttl = row
        if op.refresh_ttl and ttl is not None:
            self.touched[number] = path
        first, last = from_micros(created), from_micros(updated)
        return Item(value=value, key=key, namespace=decode_namespace(path), created_at=first, updated_at=last)

    def _list(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = list(op.match_conditions or ())
        prefix = next((_literal(c.path) for c in conditions if c.match_type == "prefix"), ())
        paths = self._reader.namespaces(encode_namespace(prefix), self._now)
        namespaces = [decode_namespace(path) for path in paths]
        kept = (labels for labels in namespaces if all(_matches(c, labels) for c in conditions))
        distinct = sorted({labels[: op.max_depth] for labels in kept})
        return distinct[op.offset : op.offset + op.limit]

    def _search(
        self, op: SearchOp, prefix: str, condition: Filter | None, query: NDArray[Any] | None
    ) -> list[SearchItem]:
        # No store has more items than that, and nothing counts further.
        offset = min(op.offset, sys.maxsize)
        need = min(op.offset + op.limit, sys.maxsize)
        if query is None:
            page: Scored = [(row, None) for row in islice(self._listed(prefix, condition), offset, need)]
        else:
            page = self._rank(prefix, query, need, condition)
            if len(page) < need:
                rest = self._listed(prefix, condition, unindexed=True)
                page += [(row, None) for row in islice(rest, need - len(page))]
            page = page[offset:]
        items = []
        for (number, _, path, key, value, created, updated, ttl), score in page:
            if ttl is not None and op.refresh_ttl:
                self.touched[number] = path
            first = from_micros(created)
            last = first if updated == created else from_micros(updated)
            items.append(SearchItem(decode_namespace(path), key, value, first, last, score))
        return items

    def _listed(self, prefix: str, condition: Filter | None, *, unindexed: bool = False) -> Iterator[ItemRow]:
        rows = self._reader.items_below(prefix, self._now, unindexed=unindexed)
        return rows if condition is None else (row for row in rows if condition.matches(row[4]))

    def _rank(self, prefix: str, query: NDArray[Any], need: int, condition: Filter | None) -> Scored:
        """The best `need` items by their vectors, each re-read."""
        view = self._views[prefix]
        alive = self._alive(view) if self._expiring else None
        if condition is None:
            return self._hydrated(prefix, view.search(query, need, mask=alive))
        for factor in (4, 8, 16):
            rows = self._hydrated(prefix, view.search(query, factor * need, mask=alive))
            kept = [(row, score) for row, score in rows if condition.matches(row[4])]
            if self.stale or len(kept) >= need or len(rows) < factor * need:
                return kept[:need]
        ids = [row[0] for row in self._listed(prefix, condition)]
        wanted = np.zeros(len(view), np.bool_)
        slots = view.slots(np.array(ids, np.int64))
        wanted[slots[slots >= 0]] = True
        return self._hydrated(prefix, view.search(query, need, mask=wanted))

    def _alive(self, view: Any) -> NDArray[np.bool_]:
        """What has not expired. Reads that refresh a time to live tell no cache, so what seems to be over is asked."""
        expires: NDArray[np.int64] = view.columns["expires"]
        over = np.flatnonzero((expires > 0) & (expires <= self._now))
        if len(over):
            later = self._reader.expiries(view.ids[over].tolist(), self._now)
            expires[over] = [later.get(item, _OVER) for item in view.ids[over].tolist()]
        alive: NDArray[np.bool_] = (expires == 0) | (expires > self._now)
        return alive

    def _hydrated(self, prefix: str, hits: Any) -> Scored:
        """The items of hits as they are in this state; whatever a cache says, they are below the prefix."""
        ids = hits.ids.tolist()
        rows = self._reader.items_by_id(ids, self._now)
        scored: Scored = []
        for item, seq, score in zip(ids, hits.seqs.tolist(), hits.scores.tolist(), strict=True):
            row = rows.get(item)
            if row is not None and row[1] == seq and row[2].startswith(prefix):
                scored.append((row, score))
        self.stale = self.stale or len(scored) < len(ids)
        return scored


def _literal(path: Sequence[str]) -> tuple[str, ...]:
    labels = tuple(path)
    return labels[: labels.index("*")] if "*" in labels else labels


def _matches(condition: MatchCondition, labels: tuple[str, ...]) -> bool:
    pattern = tuple(condition.path)
    if len(pattern) > len(labels):
        return False
    part = labels[: len(pattern)] if condition.match_type == "prefix" else labels[len(labels) - len(pattern) :]
    return all(want in ("*", have) for want, have in zip(pattern, part, strict=True))
