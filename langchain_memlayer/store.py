"""`MemLayerStore`: LangGraph's `BaseStore` on the journal."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
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

from langchain_memlayer.embeddings import Embedder, resolve_embeddings
from langchain_memlayer.engine.indexes import Indexes, encode_vectors, recorded_embedder
from langchain_memlayer.errors import InvalidInput, JournalClosed, JournalError
from langchain_memlayer.filters import Filter
from langchain_memlayer.journal import Journal, open_journal
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.sqlite import random_id, utc_now
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.store_plan import EVERYTHING, Fields, IndexSettings, Plan, checked_key
from langchain_memlayer.types import Durability, decode_namespace, encode_namespace, from_micros, to_micros
from langchain_memlayer.values import loads
from langchain_memlayer.vectors.vectorstore.opening import open_vectorstore

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

_LOGGER = logging.getLogger(__name__)
_RETRIES = 8
_SWEEP_MINUTES = 5

ItemRow = tuple[Any, ...]
"""id, seq, path, key, value, created_at, updated_at, ttl"""


class MemLayerStore(BaseStore):
    """A LangGraph store that keeps everything in one folder and finds it by meaning.

    Args:
        path: The folder (made when missing), `":memory:"`, or `postgresql://user:password@host:port/database` for
            many processes and hosts.
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
        ConfigurationError: the index configuration cannot be used.

    Example:
        ```python
        with MemLayerStore("memories", index={"dims": 256, "embed": embeddings}) as store:
            graph = builder.compile(store=store)
        ```
    """

    supports_ttl = True

    def __init__(
        self,
        path: str | Path,
        *,
        index: IndexConfig | None = None,
        vectorstore: VectorStore | None = None,
        ttl: TTLConfig | None = None,
        durability: Durability = "full",
        hnsw_threshold: int = 4_000_000,
        clock: Clock = utc_now,
        new_id: NewId = random_id,
    ) -> None:
        settings = None if index is None else IndexSettings.of(index)
        foreign = None
        if vectorstore is not None:
            foreign, _ = open_vectorstore(vectorstore, None if index is None else index.get("embed"))
        journal = open_journal(path, durability=durability, clock=clock, new_id=new_id)
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
            return self._run(plan, {}, {})
        texts = plan.texts
        vectors = dict(zip(texts, embedder.embed(texts), strict=True)) if texts else {}
        return self._run(plan, vectors, {query: embedder.embed_query(query) for query in plan.queries})

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Like `batch`; embeddings are awaited, the rest runs in a thread."""
        plan = Plan.of(ops, self._fields)
        embedder = self._embedder
        if embedder is None:
            return await asyncio.to_thread(self._run, plan, {}, {})
        texts = plan.texts
        vectors = dict(zip(texts, await embedder.aembed(texts), strict=True)) if texts else {}
        queries = {query: await embedder.aembed_query(query) for query in plan.queries}
        return await asyncio.to_thread(self._run, plan, vectors, queries)

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
        await asyncio.to_thread(self.close)

    # -- execution ------------------------------------------------------------------------------------------------

    def _run(
        self, plan: Plan, vectors: Mapping[str, NDArray[Any]], queries: Mapping[str, NDArray[Any]]
    ) -> list[Result]:
        now = to_micros(self._journal.clock())
        results: list[Result] = []
        touched: dict[int, str] = {}
        codes = self._encoded(plan, vectors)
        for number, op in enumerate(plan.ops):
            if isinstance(op, GetOp):
                results.append(self._get(op, now, touched))
            elif isinstance(op, SearchOp):
                query = queries.get(op.query) if op.query else None
                results.append(self._search(op, plan.filters[number], query, now, touched))
            elif isinstance(op, ListNamespacesOp):
                results.append(self._list(op, now))
            else:
                results.append(None)
        if plan.puts or touched:
            self._write(plan, codes, touched)
        return results

    def _encoded(self, plan: Plan, vectors: Mapping[str, NDArray[Any]]) -> dict[tuple[str, str], bytes | None]:
        if not vectors:
            return dict.fromkeys(plan.puts)
        # All in one go: one by one this takes as long as writing them.
        block = encode_vectors(list(vectors.values()), self._indexes.metric)
        size = len(block) // len(vectors)
        encoded = {text: block[k * size : (k + 1) * size] for k, text in enumerate(vectors)}
        return {key: b"".join(encoded[text] for text in put.texts) or None for key, put in plan.puts.items()}

    def _write(self, plan: Plan, codes: Mapping[tuple[str, str], bytes | None], touched: Mapping[int, str]) -> None:
        with self._journal.write(*(put.path for put in plan.puts.values()), *touched.values()) as tx:
            if any(codes.values()):
                self._indexes.record_embedder(tx)
            for key, put in plan.puts.items():
                if put.value is None:
                    tx.delete_item(*key)
                else:
                    tx.put_item(put.path, put.key, put.value, ttl=put.ttl, codes=codes[key])
            tx.touch_items(touched)

    def _get(self, op: GetOp, now: int, touched: dict[int, str]) -> Item | None:
        pair = encode_namespace(op.namespace), checked_key(op.key)
        with self._journal.read() as reader:
            row = reader.items_by_key([pair], now).get(pair)
        if row is None:
            return None
        if op.refresh_ttl and row[7] is not None:
            touched[row[0]] = row[2]
        return Item(
            value=loads(row[4]), key=row[3], namespace=decode_namespace(row[2]), created_at=from_micros(row[5]),
            updated_at=from_micros(row[6]),
        )  # fmt: skip

    def _list(self, op: ListNamespacesOp, now: int) -> list[tuple[str, ...]]:
        conditions = list(op.match_conditions or ())
        prefix = next((_literal(c.path) for c in conditions if c.match_type == "prefix"), ())
        with self._journal.read() as reader:
            paths = reader.namespaces(encode_namespace(prefix), now)
        found = [decode_namespace(path) for path in paths]
        kept = (labels for labels in found if all(_matches(c, labels) for c in conditions))
        distinct = sorted({labels[: op.max_depth] for labels in kept})
        return distinct[op.offset : op.offset + op.limit]

    def _search(
        self, op: SearchOp, condition: Filter | None, query: NDArray[Any] | None, now: int, touched: dict[int, str]
    ) -> list[SearchItem]:
        prefix = encode_namespace(op.namespace_prefix)
        need = op.offset + op.limit
        page: list[tuple[ItemRow, float | None]]
        if query is None:
            with self._journal.read() as reader:
                page = [(row, None) for row in islice(_listed(reader, prefix, condition, now), op.offset, need)]
        else:
            scored: list[tuple[ItemRow, float | None]] = list(self._ranked(prefix, query, need, condition, now))
            if len(scored) < need:
                with self._journal.read() as reader:
                    rest = _listed(reader, prefix, condition, now, unindexed=True)
                    scored += [(row, None) for row in islice(rest, need - len(scored))]
            page = scored[op.offset :]
        if op.refresh_ttl:
            touched.update((row[0], row[2]) for row, _ in page if row[7] is not None)
        return [
            SearchItem(
                namespace=decode_namespace(row[2]), key=row[3], value=loads(row[4]), created_at=from_micros(row[5]),
                updated_at=from_micros(row[6]), score=score,
            )
            for row, score in page
        ]  # fmt: skip

    def _ranked(
        self, prefix: str, query: NDArray[Any], need: int, condition: Filter | None, now: int
    ) -> list[tuple[ItemRow, float]]:
        """The best `need` items by their vectors, each re-read; rows that changed meanwhile mean another try."""
        for _ in range(_RETRIES):
            found, stale = self._rank_once(prefix, query, need, condition, now)
            if not stale:
                break
        return found

    def _rank_once(
        self, prefix: str, query: NDArray[Any], need: int, condition: Filter | None, now: int
    ) -> tuple[list[tuple[ItemRow, float]], bool]:
        view = self._indexes.view(prefix)
        expires = view.columns["expires"]
        alive = (expires == 0) | (expires > now) if self._indexes.expiring else None
        if condition is None:
            return self._hydrated(view.search(query, need, mask=alive), now)
        for factor in (4, 8, 16):
            hits = view.search(query, factor * need, mask=alive)
            rows, stale = self._hydrated(hits, now)
            kept = [(row, score) for row, score in rows if condition.matches(loads(row[4]))]
            if stale or len(kept) >= need or len(rows) < factor * need:
                return kept[:need], stale
        with self._journal.read() as reader:
            ids = [row[0] for row in _listed(reader, prefix, condition, now)]
        wanted = np.zeros(len(view), np.bool_)
        positions = view.position(np.array(ids, np.int64))
        wanted[positions[positions >= 0]] = True
        return self._hydrated(view.search(query, need, mask=wanted), now)

    def _hydrated(self, hits: Any, now: int) -> tuple[list[tuple[ItemRow, float]], bool]:
        ids = hits.ids.tolist()
        with self._journal.read() as reader:
            rows = reader.items_by_id(ids, now)
        found = []
        for item, seq, score in zip(ids, hits.seqs.tolist(), hits.scores.tolist(), strict=True):
            row = rows.get(item)
            if row is not None and row[1] == seq:
                found.append((row, score))
        return found, len(found) < len(ids)


def _open_embedder(journal: Journal, settings: IndexSettings) -> Embedder | None:
    with ExitStack() as stack:
        stack.callback(journal.close)
        embedder = resolve_embeddings(settings.embed, folder=recorded_embedder(journal, "items"), dims=settings.dims)
        stack.pop_all()
    return embedder


def _literal(path: Sequence[str]) -> tuple[str, ...]:
    labels = tuple(path)
    return labels[: labels.index("*")] if "*" in labels else labels


def _matches(condition: MatchCondition, labels: tuple[str, ...]) -> bool:
    pattern = tuple(condition.path)
    if len(pattern) > len(labels):
        return False
    part = labels[: len(pattern)] if condition.match_type == "prefix" else labels[len(labels) - len(pattern) :]
    return all(want in ("*", have) for want, have in zip(pattern, part, strict=True))


def _listed(
    reader: Reader, prefix: str, condition: Filter | None, now: int, *, unindexed: bool = False
) -> Iterator[ItemRow]:
    rows = reader.items_below(prefix, now, unindexed=unindexed)
    return rows if condition is None else (row for row in rows if condition.matches(loads(row[4])))
