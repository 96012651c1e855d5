"""`MemLayerStore`: LangGraph's `BaseStore` on the journal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    get_text_at_path,
    tokenize_path,
    validate_op_namespace,
)
import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.embeddings import Embedder, resolve_embeddings
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.filters import Filter, parse_filter
from langchain_memlayer.engine.indexes import Indexes, encode_vectors, recorded_embedder
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.sqlite import SQLiteJournal, random_id, utc_now
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.types import Durability, Metric, decode_namespace, encode_namespace, from_micros, to_micros
from langchain_memlayer.values import dumps, loads, plain

_METRICS: dict[str, Metric] = {
    "cosine": "cosine",
    "inner_product": "inner_product",
    "euclidean": "euclidean",
    "l2": "euclidean",
}
_RETRIES = 8

ItemRow = tuple[Any, ...]
"""id, seq, path, key, value, created_at, updated_at, ttl"""


@dataclass(slots=True)
class _Put:
    path: str
    key: str
    value: str | None
    ttl: float | None
    texts: list[str]


@dataclass(slots=True)
class _Plan:
    """A batch after all its checks: what to read, what to embed, what to write."""

    ops: list[Op]
    puts: dict[tuple[str, str], _Put] = field(default_factory=dict)
    filters: dict[int, Filter | None] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(text for put in self.puts.values() for text in put.texts))


class MemLayerStore(BaseStore):
    """A LangGraph store that keeps everything in one folder and finds it by meaning.

    Args:
        path: The folder (made when missing), or `":memory:"`.
        index: LangGraph's index configuration: `dims`, `embed`, `fields`, and optionally `distance_type`
            (`cosine`, `inner_product`, `l2`). None stores no vectors.
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
        ttl: TTLConfig | None = None,
        durability: Durability = "full",
        hnsw_threshold: int = 4_000_000,
        clock: Clock = utc_now,
        new_id: NewId = random_id,
    ) -> None:
        settings = _IndexSettings.of(index)
        journal = SQLiteJournal(path, durability=durability, clock=clock, new_id=new_id)
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
            ttl=ttl,
            owner=True,
        )

    @classmethod
    def _sharing(cls, indexes: Indexes, *, index: IndexConfig | None) -> Self:
        """A store on a journal that somebody else opened and will close."""
        store = cls.__new__(cls)
        store._setup(indexes, index=index, ttl=None, owner=False)
        return store

    def _setup(self, indexes: Indexes, *, index: IndexConfig | None, ttl: TTLConfig | None, owner: bool) -> None:
        self.index_config = index
        self.ttl_config = ttl
        self._indexes = indexes
        self._journal = indexes.journal
        self._embedder = indexes.embedder
        self._fields = _IndexSettings.of(index).fields if index else ()  # type: ignore[union-attr]
        self._owner = owner
        self._sweeper: threading.Thread | None = None
        self._stop = threading.Event()

    # -- the contract ---------------------------------------------------------------------------------------------

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations: reads see the state before the batch, writes are one commit."""
        plan = self._plan(ops)
        embedder = self._embedder
        if embedder is None:
            return self._run(plan, {}, {})
        texts = plan.texts
        vectors = dict(zip(texts, embedder.embed(texts), strict=True)) if texts else {}
        return self._run(plan, vectors, {query: embedder.embed_query(query) for query in plan.queries})

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Like `batch`; embeddings are awaited, the rest runs in a thread."""
        plan = self._plan(ops)
        embedder = self._embedder
        if embedder is None:
            return await asyncio.to_thread(self._run, plan, {}, {})
        texts = plan.texts
        vectors = dict(zip(texts, await embedder.aembed(texts), strict=True)) if texts else {}
        queries = {query: await embedder.aembed_query(query) for query in plan.queries}
        return await asyncio.to_thread(self._run, plan, vectors, queries)

    def sweep_ttl(self) -> int:
        """Delete expired items; returns how many there were."""
        with self._journal.write() as tx:
            return tx.sweep_items()

    def start_ttl_sweeper(self, minutes: float | None = None) -> threading.Thread:
        """Sweep in the background, every `minutes` (default: the configuration's `sweep_interval_minutes`, or 5)."""
        interval = minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or 5
        if self._sweeper is not None and self._sweeper.is_alive():
            return self._sweeper
        self._stop.clear()

        def sweep() -> None:
            while not self._stop.wait(interval * 60):
                self.sweep_ttl()

        self._sweeper = threading.Thread(target=sweep, name="memlayer-ttl-sweeper", daemon=True)
        self._sweeper.start()
        return self._sweeper

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop the sweeper; True when it has ended within `timeout` seconds."""
        self._stop.set()
        if self._sweeper is not None:
            self._sweeper.join(timeout)
        return self._sweeper is None or not self._sweeper.is_alive()

    def close(self) -> None:
        """Stop background work and close the journal; further use raises `JournalClosed`."""
        self.stop_ttl_sweeper()
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

    # -- checks ---------------------------------------------------------------------------------------------------

    def _plan(self, ops: Iterable[Op]) -> _Plan:
        plan = _Plan(list(ops))
        queries: dict[str, None] = {}
        for number, op in enumerate(plan.ops):
            validate_op_namespace(op)
            if isinstance(op, PutOp):
                put = self._checked_put(op)
                plan.puts[put.path, put.key] = put
            elif isinstance(op, SearchOp):
                _check_page(op.limit, op.offset)
                plan.filters[number] = parse_filter(op.filter)
                if op.query and self._embedder is not None:
                    queries[op.query] = None
            elif isinstance(op, ListNamespacesOp):
                _check_page(op.limit, op.offset)
                if op.max_depth is not None and op.max_depth < 1:
                    raise InvalidInput(f"max_depth must be at least 1, got {op.max_depth}.")
            elif not isinstance(op, GetOp):
                raise InvalidInput(f"Unknown operation {type(op).__name__}; use GetOp, PutOp, SearchOp or ListNamespacesOp.")
        plan.queries = list(queries)
        return plan

    def _checked_put(self, op: PutOp) -> _Put:
        if not op.namespace:
            raise InvalidInput("A put needs a namespace of at least one label.")
        if any("\x00" in label for label in op.namespace):
            raise InvalidInput("Namespace labels must not contain NUL characters.")
        put = _Put(encode_namespace(op.namespace), _key(op.key), None, None, [])
        if op.value is None:
            return put
        if not isinstance(op.value, Mapping):
            raise InvalidInput(f"A value must be a mapping (or None to delete), got {type(op.value).__name__}.")
        if op.ttl is not None and not (isinstance(op.ttl, (int, float)) and 0 < op.ttl < 1e12):
            raise InvalidInput(f"ttl must be a positive number of minutes or None, got {op.ttl!r}.")
        value = plain(op.value)
        put.value = dumps(value)
        put.ttl = op.ttl
        if self._embedder is not None and op.index is not False:
            fields = self._fields if op.index is None else _tokenized(op.index)
            put.texts = [text for path in fields for text in get_text_at_path(value, path) if text]  # type: ignore[arg-type]
        return put

    # -- execution ------------------------------------------------------------------------------------------------

    def _run(
        self, plan: _Plan, vectors: Mapping[str, NDArray[Any]], queries: Mapping[str, NDArray[Any]]
    ) -> list[Result]:
        now = to_micros(self._journal.clock())
        results: list[Result] = []
        touched: dict[int, None] = {}
        codes = {
            key: encode_vectors([vectors[text] for text in put.texts], self._indexes.metric) if put.texts else None
            for key, put in plan.puts.items()
        }
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

    def _write(self, plan: _Plan, codes: Mapping[tuple[str, str], bytes | None], touched: Iterable[int]) -> None:
        with self._journal.write() as tx:
            if any(codes.values()):
                self._indexes.record_embedder(tx)
            for key, put in plan.puts.items():
                if put.value is None:
                    tx.delete_item(*key)
                else:
                    tx.put_item(put.path, put.key, put.value, ttl=put.ttl, codes=codes[key])
            tx.touch_items(touched)

    def _get(self, op: GetOp, now: int, touched: dict[int, None]) -> Item | None:
        pair = encode_namespace(op.namespace), _key(op.key)
        with self._journal.read() as reader:
            row = reader.items_by_key([pair], now).get(pair)
        if row is None:
            return None
        if op.refresh_ttl and row[7] is not None:
            touched[row[0]] = None
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
        self, op: SearchOp, condition: Filter | None, query: NDArray[Any] | None, now: int, touched: dict[int, None]
    ) -> list[SearchItem]:
        prefix = encode_namespace(op.namespace_prefix)
        need = op.offset + op.limit
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
            touched.update((row[0], None) for row, _ in page if row[7] is not None)
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
        alive = (expires == 0) | (expires > now) if expires.any() else None
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


@dataclass(frozen=True, slots=True)
class _IndexSettings:
    dims: int
    embed: Any
    fields: tuple[Any, ...]
    metric: Metric

    @classmethod
    def of(cls, index: IndexConfig | None) -> _IndexSettings | None:
        if index is None:
            return None
        dims, embed = index.get("dims"), index.get("embed")
        if not isinstance(dims, int) or isinstance(dims, bool) or dims < 1:
            raise ConfigurationError(f"index['dims'] must be the vectors' size, a positive integer; got {dims!r}.")
        if embed is None:
            raise ConfigurationError("index['embed'] must be an Embeddings object, a function or 'provider:model'.")
        distance = index.get("distance_type", "cosine")
        if distance not in _METRICS:
            raise ConfigurationError(f"index['distance_type'] must be one of {sorted(_METRICS)}, got {distance!r}.")
        return cls(dims, embed, _tokenized(index.get("fields") or ["$"]), _METRICS[str(distance)])


def _open_embedder(journal: SQLiteJournal, settings: _IndexSettings) -> Embedder:
    with ExitStack() as stack:
        stack.callback(journal.close)
        embedder = resolve_embeddings(settings.embed, folder=recorded_embedder(journal, "items"), dims=settings.dims)
        stack.pop_all()
    assert embedder is not None
    return embedder


def _tokenized(fields: Sequence[str]) -> tuple[Any, ...]:
    """Paths for `get_text_at_path`; `"$"`, the whole value, stays as it is."""
    if isinstance(fields, str) or not all(isinstance(name, str) for name in fields):
        raise InvalidInput(f"index must be None, False or a list of paths, got {fields!r}.")
    return tuple(name if name == "$" else tokenize_path(name) for name in (fields or ["$"]))


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key)


def _check_page(limit: Any, offset: Any) -> None:
    if not isinstance(limit, int) or limit < 1:
        raise InvalidInput(f"limit must be an integer of at least 1, got {limit!r}.")
    if not isinstance(offset, int) or offset < 0:
        raise InvalidInput(f"offset must be an integer of at least 0, got {offset!r}.")


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
    sql = condition.to_sql("i.value") if condition is not None else None
    if sql is not None:
        return reader.items_below(prefix, now, where=sql[0], params=sql[1], unindexed=unindexed)
    rows = reader.items_below(prefix, now, unindexed=unindexed)
    return rows if condition is None else (row for row in rows if condition.matches(loads(row[4])))
