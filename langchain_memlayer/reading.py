"""The order of steps of a search: signals, fusion, and every hit re-read from the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.filters import Filter
from langchain_memlayer.indexes import Indexes
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.keywords import bm25, bm25_ceiling, fts_match, query_terms, rarest
from langchain_memlayer.recall import Pool, parse_query, rank
from langchain_memlayer.steps import Request, Steps
from langchain_memlayer.types import HIDDEN, QUARANTINED, SPENT, Row, Scope, from_micros
from langchain_memlayer.values import plain

if TYPE_CHECKING:
    from langchain_memlayer.vectors.view import View

WHOLE_SCOPE = 10_000
CANDIDATES = 400
RETRIES = 8


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search after its checks."""

    text: str
    scope: Scope
    limit: int
    kinds: frozenset[str]
    filter: Filter | None = None
    threshold: float | None = None
    reference_time: datetime | None = None
    include_quarantined: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found; `shares` is what each signal gave to its score."""

    row: Row
    score: float
    relevance: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Keywords:
    """BM25 of a query over a view: scores by position (0: no match), and what the query could attain."""

    scores: NDArray[np.float32]
    ceiling: float


class Searcher:
    """The read path of one folder's memories."""

    def __init__(self, journal: SQLiteJournal, indexes: Indexes) -> None:
        self.journal = journal
        self.indexes = indexes

    def search(self, asked: SearchQuery) -> Steps:
        """The hits of a query, best first; returns a list of `Hit`."""
        embedder = self.indexes.embedder
        vector = None
        if embedder is not None:
            vector = yield Request(
                lambda: embedder.embed_query(asked.text), lambda: embedder.aembed_query(asked.text)
            )
        hits: list[Hit] = []
        for _ in range(RETRIES):
            hits, stale = self._once(asked, vector)
            if not stale:
                break
        return hits

    def _once(self, asked: SearchQuery, vector: NDArray[np.float32] | None) -> tuple[list[Hit], bool]:
        """The hits, and whether some of them changed since the slab was caught up."""
        view = self.indexes.view(asked.scope.search_root)
        scope = self._scope_mask(view, asked)
        allowed = self._allowed(view, asked, scope)
        if not allowed.any():
            return [], False
        words = self._keywords(view, asked, scope)
        members = self._members(view, vector, words, scope, allowed)
        pool = self._pool(view, members, vector, words, scope)
        query = parse_query(asked.text, speakers=pool.speakers, reference_time=asked.reference_time)
        ranking = rank(pool, query, allowed=allowed[members], limit=asked.limit, threshold=asked.threshold)
        order = members[ranking.order]
        ids = view.ids[order].tolist()
        with self.journal.read() as reader:
            rows = reader.memories_by_row(ids)
        hits = []
        for rank_, (item, seq) in enumerate(zip(ids, view.seqs[order].tolist(), strict=True)):
            row = rows.get(item)
            if row is not None and row.seq == seq and _inside(row, asked.scope):
                hits.append(
                    Hit(row, float(ranking.score[rank_]), float(ranking.relevance[rank_]), ranking.shares_of(rank_))
                )
        return hits, len(hits) < len(ids)

    # -- who may be found -----------------------------------------------------------------------------------------

    def _scope_mask(self, view: View, asked: SearchQuery) -> NDArray[np.bool_]:
        """The live memories of the scope, of all kinds: what statistics are taken over."""
        state = view.columns["state"]
        mask = view.live & (state != HIDDEN)
        if not asked.include_quarantined:
            mask &= state != QUARANTINED
        for name, value in asked.scope.ids().items():
            mask &= view.columns[name] == self.indexes.codes.find(value)
        return mask

    def _allowed(self, view: View, asked: SearchQuery, scope: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of the scope that may be hits: of the kinds asked for, and passing the filter."""
        mask = scope
        if len(asked.kinds) == 1:
            mask = mask & (view.columns["kind"] == ("turn" in asked.kinds))
        if asked.filter is None:
            return mask
        ids = view.ids[mask].tolist()
        with self.journal.read() as reader:
            rows = reader.memories_by_row(ids)
        kept = [item for item, row in rows.items() if asked.filter.matches(record_of(row))]
        passed = np.zeros(len(view), np.bool_)
        passed[view.position(np.array(kept, np.int64))] = True
        return mask & passed

    # -- signals --------------------------------------------------------------------------------------------------

    def _keywords(self, view: View, asked: SearchQuery, scope: NDArray[np.bool_]) -> _Keywords:
        """BM25 with the statistics of exactly this scope; FTS5 finds the rows."""
        scores = np.zeros(len(view), np.float32)
        terms = query_terms(asked.text)
        prefix = asked.scope.search_root
        with self.journal.read() as reader:
            leaf = asked.scope.user_id is not None
            space = reader.namespace_id(prefix) if leaf else None
            if leaf and space is None:
                return _Keywords(scores, 0.0)
            terms = rarest(terms, reader.frequencies(terms, space))
            token = None if space is None else f"n{space}"
            found = {term: reader.matches(fts_match([term], token)) for term in terms}
        postings, dfs = [], []
        texts = view.columns["tokens"]
        for term, ids in found.items():
            places = view.position(np.array(ids, np.int64))
            places = places[places >= 0]
            places = places[scope[places]]
            counts = np.fromiter((texts[p].split().count(term) for p in places), np.float32, len(places))
            postings.append((places, counts))
            dfs.append(len(places))
        lengths, total = view.columns["length"], int(scope.sum())
        average = float(lengths[scope].mean()) if total else 1.0
        return _Keywords(
            bm25(postings, dfs, lengths, total, max(average, 1.0)), bm25_ceiling(dfs, total)
        )

    def _members(
        self,
        view: View,
        vector: NDArray[np.float32] | None,
        words: _Keywords,
        scope: NDArray[np.bool_],
        allowed: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """The positions that are scored: the whole scope, or above 10,000 the best candidates and their neighbours."""
        everything = np.flatnonzero(scope)
        if len(everything) <= WHOLE_SCOPE:
            return everything
        chosen = [everything[:0]]
        if vector is not None:
            chosen.append(view.search(vector, CANDIDATES, mask=allowed).positions)
        matched = np.flatnonzero((words.scores > 0) & allowed)
        if len(matched) > CANDIDATES:
            matched = matched[np.argpartition(-words.scores[matched], CANDIDATES)[:CANDIDATES]]
        chosen.append(matched)
        return np.unique(np.concatenate(chosen))

    def _pool(
        self,
        view: View,
        members: NDArray[np.int64],
        vector: NDArray[np.float32] | None,
        words: _Keywords,
        scope: NDArray[np.bool_],
    ) -> Pool:
        columns = view.columns
        dense = None if vector is None else view.scores(vector, members)
        state = columns["state"][members]
        names = columns["name"][members]
        return Pool(
            dense=dense,
            keyword=words.scores[members],
            keyword_ceiling=words.ceiling,
            is_turn=columns["kind"][members] == 1,
            session=columns["session_id"][members],
            order=view.ids[members],
            time=columns["time"][members],
            speaker=names,
            asks=columns["asks"][members],
            ended=columns["ended"][members] | (state == SPENT),
            links=_links(view, members),
            speakers=tuple(self.indexes.codes.names[c] for c in np.unique(names[names >= 0]).tolist()),
        )


def _links(view: View, members: NDArray[np.int64]) -> NDArray[np.int32]:
    """Pairs (fact, turn) of indices into `members`."""
    facts = np.flatnonzero(view.columns["kind"][members] == 0)
    turns = view.columns["turns"][members]
    pairs = [(fact, turn) for fact in facts.tolist() for turn in turns[fact]]
    if not pairs:
        return np.empty((0, 2), np.int32)
    block = np.array(pairs, np.int64)
    places = view.position(block[:, 1])
    index = np.minimum(np.searchsorted(members, places), len(members) - 1)
    inside = (places >= 0) & (members[index] == places)
    return np.stack((block[inside, 0], index[inside]), axis=1).astype(np.int32)


def _inside(row: Row, scope: Scope) -> bool:
    """Whether a row of the journal belongs to the scope: the last word, whatever an index said."""
    return row.closed is None and all(getattr(row, name) == value for name, value in scope.ids().items())


def record_of(row: Row) -> dict[str, Any]:
    """What filters see of a memory: its own fields, and over them the user's metadata."""
    return {
        "id": row.key,
        "kind": row.kind,
        "memory": row.text,
        "user_id": row.user_id,
        "agent_id": row.agent_id,
        "run_id": row.run_id,
        "session_id": row.session_id,
        "role": row.role,
        "name": row.name,
        "created_at": from_micros(row.created_at).isoformat(),
        "updated_at": from_micros(row.updated_at).isoformat(),
        **row.metadata,
    }


def result_of(row: Row, *, score: float | None = None, relevance: float | None = None) -> dict[str, Any]:
    """A memory as `search`, `get` and `get_all` show it."""
    return {
        "id": row.key,
        "memory": row.text,
        "text": row.text,
        "kind": row.kind,
        "sources": list(row.sources),
        "score": score,
        "relevance": relevance,
        "metadata": {**plain(row.metadata), "data": row.text},
        "event": row.event,
        "user_id": row.user_id,
        "agent_id": row.agent_id,
        "run_id": row.run_id,
        "session_id": row.session_id,
        "role": row.role,
        "name": row.name,
        "hash": row.hash,
        "count": row.count,
        "valid_at": _iso(row.valid_at),
        "invalid_at": _iso(row.invalid_at),
        "ended": row.closed is not None or row.state == SPENT,
        "created_at": _iso(row.created_at),
        "updated_at": _iso(row.updated_at),
    }


def _iso(micros: int | None) -> str | None:
    return None if micros is None else from_micros(micros).isoformat()

