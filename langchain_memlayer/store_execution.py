"""What a batch does once its plan has passed: it reads, ranks by meaning, and writes in one commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, Op, Result, SearchItem, SearchOp
from numpy.typing import NDArray

from langchain_memlayer.engine.fingerprints import encode_vectors
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.filters import Filter
from langchain_memlayer.journal.read import ItemRow, Reader
from langchain_memlayer.store_plan import Plan, checked_key
from langchain_memlayer.types import decode_namespace, encode_namespace, from_micros, to_micros

_RETRIES = 8
_OVER = -1
"""When an item that has expired for good does, in a view."""

Vectors = Mapping[str, NDArray[Any]]
"""What texts or queries were embedded as."""

_NONE: Vectors = {}


def execute(plan: Plan, indexes: Indexes, texts: Vectors = _NONE, queries: Vectors = _NONE) -> list[Result]:
    """Run a batch: all of its operations see the same time, its reads the state before it, its writes are one commit.

    Args:
        plan: The batch.
        indexes: The journal of the items with its vectors.
        texts: The vectors of `plan.texts`; none when nothing is embedded.
        queries: The vectors of `plan.queries`; a query without one is not ranked.
    """
    codes = _encoded(plan, indexes, texts)
    now = to_micros(indexes.journal.clock())
    # One operation that asks once for its rows sees one state anyway.
    several = len(plan.ops) > 1 or any(isinstance(op, SearchOp) and op.query not in queries for op in plan.ops)
    for attempt in range(_RETRIES):
        # Before the journal is read: one call never holds two of its connections.
        views = {prefix: indexes.view(prefix) for prefix in _ranked_prefixes(plan, queries)}
        with indexes.journal.read(snapshot=several) as reader:
            if several and attempt < _RETRIES - 1 and _later(views, reader):
                continue
            reads = _Reads(reader, views, now, expiring=indexes.expiring)
            results = [reads.result(op, plan.filters.get(number), queries) for number, op in enumerate(plan.ops)]
        if not reads.stale:
            break
    if plan.puts or reads.touched:
        _write(plan, indexes, codes, reads.touched)
    return results


def _ranked_prefixes(plan: Plan, queries: Vectors) -> set[str]:
    return {
        encode_namespace(op.namespace_prefix)
        for op in plan.ops
        if isinstance(op, SearchOp) and op.query and op.query in queries
    }


def _later(views: Mapping[str, Any], reader: Reader) -> bool:
    """Whether some view has what the journal's snapshot has not, because somebody wrote between."""
    return bool(views) and any(view.applied_seq != reader.last_seq() for view in views.values())


def _encoded(plan: Plan, indexes: Indexes, vectors: Vectors) -> dict[tuple[str, str], bytes | None]:
    if not vectors:
        return dict.fromkeys(plan.puts)
    # All in one go: one by one this takes as long as writing them.
    block = encode_vectors(list(vectors.values()), indexes.metric)
    size = len(block) // len(vectors)
    encoded = {text: block[k * size : (k + 1) * size] for k, text in enumerate(vectors)}
    return {key: b"".join(encoded[text] for text in put.texts) or None for key, put in plan.puts.items()}


def _write(
    plan: Plan, indexes: Indexes, codes: Mapping[tuple[str, str], bytes | None], touched: Mapping[int, str]
) -> None:
    with indexes.journal.write(*(put.path for put in plan.puts.values()), *touched.values()) as tx:
        if any(codes.values()):
            indexes.record_embedder(tx)
        for key, put in plan.puts.items():
            if put.value is None:
                tx.delete_item(*key)
            else:
                tx.put_item(put.path, put.key, put.value, ttl=put.ttl, codes=codes[key], fields=put.fields)
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

    def result(self, op: Op, condition: Filter | None, queries: Vectors) -> Result:
        """What an operation returns; None for a put."""
        if isinstance(op, GetOp):
            return self._get(op)
        if isinstance(op, SearchOp):
            return self._search(op, condition, queries.get(op.query) if op.query else None)
        if isinstance(op, ListNamespacesOp):
            return self._list(op)
        return None

    def _get(self, op: GetOp) -> Item | None:
        pair = encode_namespace(op.namespace), checked_key(op.key)
        row = self._reader.items_by_key([pair], self._now).get(pair)
        if row is None:
            return None
        if op.refresh_ttl and row[7] is not None:
            self.touched[row[0]] = row[2]
        return Item(
            value=row[4], key=row[3], namespace=decode_namespace(row[2]), created_at=from_micros(row[5]),
            updated_at=from_micros(row[6]),
        )  # fmt: skip

    def _list(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = list(op.match_conditions or ())
        prefix = next((_literal(c.path) for c in conditions if c.match_type == "prefix"), ())
        paths = self._reader.namespaces(encode_namespace(prefix), self._now)
        found = [decode_namespace(path) for path in paths]
        kept = (labels for labels in found if all(_matches(c, labels) for c in conditions))
        distinct = sorted({labels[: op.max_depth] for labels in kept})
        return distinct[op.offset : op.offset + op.limit]

    def _search(self, op: SearchOp, condition: Filter | None, query: NDArray[Any] | None) -> list[SearchItem]:
        prefix = encode_namespace(op.namespace_prefix)
        need = op.offset + op.limit
        page: list[tuple[ItemRow, float | None]]
        if query is None:
            page = [(row, None) for row in islice(self._listed(prefix, condition), op.offset, need)]
        else:
            scored: list[tuple[ItemRow, float | None]] = list(self._rank(prefix, query, need, condition))
            if len(scored) < need:
                rest = self._listed(prefix, condition, unindexed=True)
                scored += [(row, None) for row in islice(rest, need - len(scored))]
            page = scored[op.offset :]
        if op.refresh_ttl:
            self.touched.update((row[0], row[2]) for row, _ in page if row[7] is not None)
        return [
            SearchItem(
                namespace=decode_namespace(row[2]), key=row[3], value=row[4], created_at=from_micros(row[5]),
                updated_at=from_micros(row[6]), score=score,
            )
            for row, score in page
        ]  # fmt: skip

    def _listed(self, prefix: str, condition: Filter | None, *, unindexed: bool = False) -> Iterator[ItemRow]:
        rows = self._reader.items_below(prefix, self._now, unindexed=unindexed)
        return rows if condition is None else (row for row in rows if condition.matches(row[4]))

    def _rank(
        self, prefix: str, query: NDArray[Any], need: int, condition: Filter | None
    ) -> list[tuple[ItemRow, float]]:
        """The best `need` items by their vectors, each re-read."""
        view = self._views[prefix]
        alive = self._alive(view) if self._expiring else None
        if condition is None:
            return self._hydrated(view.search(query, need, mask=alive))
        for factor in (4, 8, 16):
            rows = self._hydrated(view.search(query, factor * need, mask=alive))
            kept = [(row, score) for row, score in rows if condition.matches(row[4])]
            if self.stale or len(kept) >= need or len(rows) < factor * need:
                return kept[:need]
        ids = [row[0] for row in self._listed(prefix, condition)]
        wanted = np.zeros(len(view), np.bool_)
        slots = view.slots(np.array(ids, np.int64))
        wanted[slots[slots >= 0]] = True
        return self._hydrated(view.search(query, need, mask=wanted))

    def _alive(self, view: Any) -> NDArray[np.bool_]:
        """What has not expired. Reads that refresh a time to live tell no cache, so what seems to be over is asked."""
        expires: NDArray[np.int64] = view.columns["expires"]
        over = np.flatnonzero((expires > 0) & (expires <= self._now))
        if len(over):
            later = self._reader.expiries(view.ids[over].tolist(), self._now)
            expires[over] = [later.get(item, _OVER) for item in view.ids[over].tolist()]
        alive: NDArray[np.bool_] = (expires == 0) | (expires > self._now)
        return alive

    def _hydrated(self, hits: Any) -> list[tuple[ItemRow, float]]:
        """The items of hits as they are in this state."""
        ids = hits.ids.tolist()
        rows = self._reader.items_by_id(ids, self._now)
        found = []
        for item, seq, score in zip(ids, hits.seqs.tolist(), hits.scores.tolist(), strict=True):
            row = rows.get(item)
            if row is not None and row[1] == seq:
                found.append((row, score))
        self.stale = self.stale or len(found) < len(ids)
        return found


def _literal(path: Sequence[str]) -> tuple[str, ...]:
    labels = tuple(path)
    return labels[: labels.index("*")] if "*" in labels else labels


def _matches(condition: MatchCondition, labels: tuple[str, ...]) -> bool:
    pattern = tuple(condition.path)
    if len(pattern) > len(labels):
        return False
    part = labels[: len(pattern)] if condition.match_type == "prefix" else labels[len(labels) - len(pattern) :]
    return all(want in ("*", have) for want, have in zip(pattern, part, strict=True))
