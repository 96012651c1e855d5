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
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.store_plan import Plan, checked_key
from langchain_memlayer.types import decode_namespace, encode_namespace, from_micros, to_micros
from langchain_memlayer.values import loads

_RETRIES = 8

ItemRow = tuple[Any, ...]
"""id, seq, path, key, value, created_at, updated_at, ttl"""

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
    reads = _Reads(indexes)
    codes = _encoded(plan, indexes, texts)
    results = [reads.result(op, plan.filters.get(number), queries) for number, op in enumerate(plan.ops)]
    if plan.puts or reads.touched:
        _write(plan, indexes, codes, reads.touched)
    return results


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
    """The reads of a batch, at the time when it began.

    Attributes:
        touched: The rows of items whose time to live begins anew, with their encoded namespaces.
    """

    def __init__(self, indexes: Indexes) -> None:
        self._indexes = indexes
        self._journal = indexes.journal
        self._now = to_micros(indexes.journal.clock())
        self.touched: dict[int, str] = {}

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
        with self._journal.read() as reader:
            row = reader.items_by_key([pair], self._now).get(pair)
        if row is None:
            return None
        if op.refresh_ttl and row[7] is not None:
            self.touched[row[0]] = row[2]
        return Item(
            value=loads(row[4]), key=row[3], namespace=decode_namespace(row[2]), created_at=from_micros(row[5]),
            updated_at=from_micros(row[6]),
        )  # fmt: skip

    def _list(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = list(op.match_conditions or ())
        prefix = next((_literal(c.path) for c in conditions if c.match_type == "prefix"), ())
        with self._journal.read() as reader:
            paths = reader.namespaces(encode_namespace(prefix), self._now)
        found = [decode_namespace(path) for path in paths]
        kept = (labels for labels in found if all(_matches(c, labels) for c in conditions))
        distinct = sorted({labels[: op.max_depth] for labels in kept})
        return distinct[op.offset : op.offset + op.limit]

    def _search(self, op: SearchOp, condition: Filter | None, query: NDArray[Any] | None) -> list[SearchItem]:
        prefix = encode_namespace(op.namespace_prefix)
        need = op.offset + op.limit
        page: list[tuple[ItemRow, float | None]]
        if query is None:
            with self._journal.read() as reader:
                page = [(row, None) for row in islice(self._listed(reader, prefix, condition), op.offset, need)]
        else:
            scored: list[tuple[ItemRow, float | None]] = list(self._ranked(prefix, query, need, condition))
            if len(scored) < need:
                with self._journal.read() as reader:
                    rest = self._listed(reader, prefix, condition, unindexed=True)
                    scored += [(row, None) for row in islice(rest, need - len(scored))]
            page = scored[op.offset :]
        if op.refresh_ttl:
            self.touched.update((row[0], row[2]) for row, _ in page if row[7] is not None)
        return [
            SearchItem(
                namespace=decode_namespace(row[2]), key=row[3], value=loads(row[4]), created_at=from_micros(row[5]),
                updated_at=from_micros(row[6]), score=score,
            )
            for row, score in page
        ]  # fmt: skip

    def _listed(
        self, reader: Reader, prefix: str, condition: Filter | None, *, unindexed: bool = False
    ) -> Iterator[ItemRow]:
        rows = reader.items_below(prefix, self._now, unindexed=unindexed)
        return rows if condition is None else (row for row in rows if condition.matches(loads(row[4])))

    def _ranked(
        self, prefix: str, query: NDArray[Any], need: int, condition: Filter | None
    ) -> list[tuple[ItemRow, float]]:
        """The best `need` items by their vectors, each re-read; rows that changed meanwhile mean another try."""
        for _ in range(_RETRIES):
            found, stale = self._rank_once(prefix, query, need, condition)
            if not stale:
                break
        return found

    def _rank_once(
        self, prefix: str, query: NDArray[Any], need: int, condition: Filter | None
    ) -> tuple[list[tuple[ItemRow, float]], bool]:
        view = self._indexes.view(prefix)
        expires = view.columns["expires"]
        alive = (expires == 0) | (expires > self._now) if self._indexes.expiring else None
        if condition is None:
            return self._hydrated(view.search(query, need, mask=alive))
        for factor in (4, 8, 16):
            hits = view.search(query, factor * need, mask=alive)
            rows, stale = self._hydrated(hits)
            kept = [(row, score) for row, score in rows if condition.matches(loads(row[4]))]
            if stale or len(kept) >= need or len(rows) < factor * need:
                return kept[:need], stale
        with self._journal.read() as reader:
            ids = [row[0] for row in self._listed(reader, prefix, condition)]
        wanted = np.zeros(len(view), np.bool_)
        slots = view.slots(np.array(ids, np.int64))
        wanted[slots[slots >= 0]] = True
        return self._hydrated(view.search(query, need, mask=wanted))

    def _hydrated(self, hits: Any) -> tuple[list[tuple[ItemRow, float]], bool]:
        """The items of hits as they are now, and whether some are no longer what was found."""
        ids = hits.ids.tolist()
        with self._journal.read() as reader:
            rows = reader.items_by_id(ids, self._now)
        found = []
        for item, seq, score in zip(ids, hits.seqs.tolist(), hits.scores.tolist(), strict=True):
            row = rows.get(item)
            if row is not None and row[1] == seq:
                found.append((row, score))
        return found, len(found) < len(ids)


def _literal(path: Sequence[str]) -> tuple[str, ...]:
    labels = tuple(path)
    return labels[: labels.index("*")] if "*" in labels else labels


def _matches(condition: MatchCondition, labels: tuple[str, ...]) -> bool:
    pattern = tuple(condition.path)
    if len(pattern) > len(labels):
        return False
    part = labels[: len(pattern)] if condition.match_type == "prefix" else labels[len(labels) - len(pattern) :]
    return all(want in ("*", have) for want, have in zip(pattern, part, strict=True))
