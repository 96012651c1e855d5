"""The order of steps of a search: signals, fusion, and every hit re-read from the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.engine.graphs import Graphs
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.records import record_of
from langchain_memlayer.engine.steps import Request, Steps
from langchain_memlayer.filters import Filter
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.keywords import bm25, bm25_ceiling, fts_match, query_terms, rarest, term_codes
from langchain_memlayer.recall import Pool, Query, Spread, Terms, Weights, rank, trust_in
from langchain_memlayer.types import HIDDEN, QUARANTINED, SPENT, Row, Scope

if TYPE_CHECKING:
    from langchain_memlayer.vectors.view import View

WHOLE_SCOPE = 10_000
CANDIDATES = 100
NEAR = 4
SAMPLE = 1_000
RETRIES = 8


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search after its checks.

    Attributes:
        text: The question.
        scope: Whose memories.
        limit: How many at most.
        kinds: Which kinds.
        filter: What they must be like.
        threshold: The lowest relevance.
        reference_time: The present, for relative dates; None takes the clock's.
        include_quarantined: Whether tool output may come back.
        as_of: What held then, microseconds since 1970 UTC; None for what holds.
        known_at: What had been recorded by then; None for all.
    """

    text: str
    scope: Scope
    limit: int
    kinds: frozenset[str]
    filter: Filter | None = None
    threshold: float | None = None
    reference_time: datetime | None = None
    include_quarantined: bool = False
    as_of: int | None = None
    known_at: int | None = None

    @property
    def past(self) -> bool:
        """Whether ended versions are among what is asked for."""
        return self.as_of is not None or self.known_at is not None


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory that was found; `shares` is what each signal gave to its score."""

    row: Row
    score: float
    relevance: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class _Scoped:
    """What of a view a search is about.

    Attributes:
        view: One state of the slab.
        inside: The live memories of the scope, of all kinds, shape (len(view),): statistics are taken over them.
        allowed: Those of them that may be hits.
        total: How many are inside.
    """

    view: View
    inside: NDArray[np.bool_]
    allowed: NDArray[np.bool_]
    total: int


@dataclass(frozen=True, slots=True)
class _Keywords:
    """BM25 of a query.

    Attributes:
        positions: Where the texts are in the view, ascending.
        scores: Theirs.
        ceiling: What a text could attain.
        query: The query's terms as numbers.
        texts: The terms of the texts.
    """

    positions: NDArray[np.int64]
    scores: NDArray[np.float32]
    ceiling: float
    query: NDArray[np.uint32]
    texts: Terms


class Searcher:
    """The read path of one folder's memories; `weights` are those of the signals, None for the default ones."""

    def __init__(
        self, journal: SQLiteJournal, indexes: Indexes, graphs: Graphs, weights: Weights | None = None
    ) -> None:
        self.journal = journal
        self.indexes = indexes
        self.graphs = graphs
        self.weights = weights or Weights()

    def search(self, asked: SearchQuery) -> Steps:
        """The hits of a query, best first; returns a list of `Hit`."""
        embedder = self.indexes.embedder
        vector = None
        if embedder is not None:
            vector = yield Request(lambda: embedder.embed_query(asked.text), lambda: embedder.aembed_query(asked.text))
        hits: list[Hit] = []
        for _ in range(RETRIES):
            hits, stale = self._once(asked, vector)
            if not stale:
                break
        return hits

    def _once(self, asked: SearchQuery, vector: NDArray[np.float32] | None) -> tuple[list[Hit], bool]:
        """The hits, and whether some of them changed since the slab was caught up."""
        view = self.indexes.view(asked.scope.search_root, ended=asked.past)
        inside = self._inside(view, asked)
        if asked.past:
            inside &= self._then(view, asked)
        scoped = _Scoped(view, inside, self._allowed(view, asked, inside), int(np.count_nonzero(inside)))
        if not scoped.allowed.any():
            return [], False
        if view.kernel is None:
            vector = None
        related = {} if asked.past else self._related(asked)
        members = np.flatnonzero(inside) if scoped.total <= WHOLE_SCOPE else None
        words = self._keywords(scoped, asked, members)
        if members is None:
            members = self._candidates(scoped, vector, words, related)
        if not len(members):
            return [], False
        query = Query(asked.text, words.query, asked.reference_time or self.journal.clock())
        pool = self._pool(scoped, members, vector, words, related)
        able = scoped.allowed[members]
        ranking = rank(pool, query, allowed=able, limit=asked.limit, threshold=asked.threshold, weights=self.weights)
        order = members[ranking.order]
        ids, seqs = view.ids[order].tolist(), view.seqs[order].tolist()
        with self.journal.read() as reader:
            rows = reader.memories_by_row(ids)
        hits = []
        for place, (item, seq) in enumerate(zip(ids, seqs, strict=True)):
            row = rows.get(item)
            if row is not None and row.seq == seq and _belongs(row, asked):
                shares = ranking.shares_of(place)
                hits.append(Hit(row, float(ranking.score[place]), float(ranking.relevance[place]), shares))
        return hits, len(hits) < len(ids)

    # -- who may be found -----------------------------------------------------------------------------------------

    def _inside(self, view: View, asked: SearchQuery) -> NDArray[np.bool_]:
        state = view.columns["state"]
        mask: NDArray[np.bool_] = view.live & (state != HIDDEN)
        if not asked.include_quarantined:
            mask &= state != QUARANTINED
        for name, value in asked.scope.ids().items():
            mask &= view.columns[name] == self.indexes.codes.find(value)
        return mask

    def _then(self, view: View, asked: SearchQuery) -> NDArray[np.bool_]:
        """The versions that held, or were known, at the time that is asked about."""
        with self.journal.read() as reader:
            ids = reader.versions_at(asked.scope.search_root, as_of=asked.as_of, known_at=asked.known_at)
        mask = np.zeros(len(view), np.bool_)
        positions = view.position(np.array(ids, np.int64))
        mask[positions[positions >= 0]] = True
        return mask

    def _allowed(self, view: View, asked: SearchQuery, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those inside that are of the kinds asked for and pass the filter."""
        mask = inside
        if len(asked.kinds) == 1:
            mask = mask & (view.columns["kind"] == ("turn" in asked.kinds))
        if asked.filter is None:
            return mask
        ids = view.ids[mask].tolist()
        with self.journal.read() as reader:
            rows = reader.memories_by_row(ids)
        kept = [item for item, row in rows.items() if asked.filter.matches(record_of(row))]
        passed = np.zeros(len(view), np.bool_)
        positions = view.position(np.array(kept, np.int64))
        passed[positions[positions >= 0]] = True
        return mask & passed

    def _related(self, asked: SearchQuery) -> dict[int, float]:
        """The memories around the entities that the query names, as row ids with weights."""
        if not self._has_triples():
            return {}
        graph = self.graphs.graph(asked.scope, include_quarantined=asked.include_quarantined)
        entities = graph.entities_in(asked.text)
        return graph.memories_near(entities) if entities else {}

    def relations(self, asked: SearchQuery, *, most: int) -> list[dict[str, str]]:
        """The triples around the entities that the query names, the most relevant first."""
        if asked.past or not self._has_triples():
            return []
        graph = self.graphs.graph(asked.scope, include_quarantined=asked.include_quarantined)
        entities = graph.entities_in(asked.text)
        if not entities:
            return []
        return self.graphs.relations(
            asked.scope, entities, query=asked.text, most=most, include_quarantined=asked.include_quarantined
        )

    def _has_triples(self) -> bool:
        with self.journal.read() as reader:
            return reader.has_triples()

    # -- signals --------------------------------------------------------------------------------------------------

    def _keywords(self, scoped: _Scoped, asked: SearchQuery, members: NDArray[np.int64] | None) -> _Keywords:
        """BM25 with the statistics of exactly this scope: over all its members, or over what FTS5 finds of many."""
        view, terms, positions = scoped.view, query_terms(asked.text), members
        if positions is None:
            terms, positions = self._found(scoped, asked, terms)
        codes = np.unique(np.frombuffer(term_codes(terms), "<u4"))
        texts = _terms(view, positions)
        if not len(codes) or not len(positions):
            return _Keywords(positions, np.zeros(len(positions), np.float32), 0.0, codes, texts)
        counts = texts.counts(codes)
        dfs = np.count_nonzero(counts, axis=1)
        lengths = view.columns["length"]
        average = float(lengths[scoped.inside].mean()) or 1.0
        scores = bm25(counts, lengths[positions], dfs, scoped.total, average)
        return _Keywords(positions, scores, bm25_ceiling(dfs, scoped.total), codes, texts)

    def _found(self, scoped: _Scoped, asked: SearchQuery, terms: list[str]) -> tuple[list[str], NDArray[np.int64]]:
        """The query's rarest terms, and the positions inside that have one of them."""
        scope = asked.scope
        with self.journal.read() as reader:
            space = reader.namespace_id(scope.search_root) if scope.user_id is not None else None
            if scope.ids().keys() == {"user_id"}:
                # Only then are the namespace's statistics the scope's own: nobody else's texts may choose the terms.
                terms = rarest(terms, reader.frequencies(terms, space))
            ids = reader.matches(fts_match(terms, None if space is None else f"n{space}")) if terms else []
        positions = np.sort(scoped.view.position(np.array(ids, np.int64)))
        positions = positions[positions >= 0]
        return terms, positions[scoped.inside[positions]]

    def _pool(
        self,
        scoped: _Scoped,
        members: NDArray[np.int64],
        vector: NDArray[np.float32] | None,
        words: _Keywords,
        related: Mapping[int, float],
    ) -> Pool:
        view = scoped.view
        dense, spread, trust = None, Spread(), 0.0
        if vector is not None:
            dense = view.scores(vector, members)
            spread = Spread.of(dense if members is words.positions else view.scores(vector, _sample(scoped.inside)))
            trust = trust_in(spread.deviation, scoped.total, self.indexes.spread)
        keyword = np.zeros(len(members), np.float32)
        places, known = _places(members, words.positions)
        keyword[places[known]] = words.scores[known]
        columns = {
            name: view.columns[name][members] for name in ("kind", "session_id", "name", "time", "asks", "state")
        }
        flat, starts = _cited(view, members)
        names = columns["name"]
        return Pool(
            dense=dense,
            dense_spread=spread,
            dense_trust=trust,
            keyword=keyword,
            keyword_spread=Spread(0.0, float(words.scores.max(initial=0.0))),
            keyword_ceiling=words.ceiling,
            terms=words.texts if members is words.positions else _terms(view, members),
            graph=_weights(view, members, related),
            is_turn=columns["kind"] == 1,
            session=columns["session_id"],
            order=view.ids[members],
            speaker=names,
            time=columns["time"],
            asks=columns["asks"],
            ended=columns["state"] == SPENT,
            links=_links(view, members, flat, starts),
            cited=flat,
            starts=starts,
            speakers={code: self.indexes.codes.names[code] for code in np.unique(names[names >= 0]).tolist()},
        )

    def _candidates(
        self,
        scoped: _Scoped,
        vector: NDArray[np.float32] | None,
        words: _Keywords,
        related: Mapping[int, float],
    ) -> NDArray[np.int64]:
        """The signals' best, with their neighbours in the session and their linked facts and turns."""
        view = scoped.view
        near = view.position(np.fromiter(related, np.int64, len(related)))
        chosen = [near[near >= 0]]
        if vector is not None:
            chosen.append(view.search(vector, CANDIDATES, mask=scoped.allowed).positions)
        able = np.flatnonzero(scoped.allowed[words.positions])
        if len(able) > CANDIDATES:
            able = able[np.argpartition(-words.scores[able], CANDIDATES)[:CANDIDATES]]
        chosen.append(words.positions[able])
        best = np.unique(np.concatenate(chosen))
        around = np.unique((best[:, None] + np.arange(-NEAR, NEAR + 1)).clip(0, len(view) - 1))
        cited = view.position(_cited(view, best)[0])
        members = np.unique(np.concatenate((around, cited[cited >= 0])))
        kept: NDArray[np.int64] = members[scoped.inside[members]]
        return kept


def _sample(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """About a thousand positions spread evenly over the scope; the same ones for every query."""
    positions = np.flatnonzero(inside)
    return positions[:: max(1, len(positions) // SAMPLE)]


def _terms(view: View, positions: NDArray[np.int64]) -> Terms:
    """The keyword terms of the texts at some positions."""
    starts = np.zeros(len(positions) + 1, np.int64)
    np.cumsum(view.columns["length"][positions], out=starts[1:])
    return Terms(np.frombuffer(b"".join(view.columns["terms"][positions].tolist()), "<u4"), starts)


def _places(members: NDArray[np.int64], positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each position stands in the ascending `members`, and whether it does."""
    if not len(members):
        return np.zeros(len(positions), np.int64), np.zeros(len(positions), np.bool_)
    places = np.minimum(np.searchsorted(members, positions), len(members) - 1)
    return places, members[places] == positions


def _weights(view: View, members: NDArray[np.int64], related: Mapping[int, float]) -> NDArray[np.float32]:
    """The graph's weights of the members, as shares of the highest."""
    out = np.zeros(len(members), np.float32)
    if related:
        places, known = _places(members, view.position(np.fromiter(related, np.int64, len(related))))
        values = np.fromiter(related.values(), np.float32, len(related))
        out[places[known]] = values[known] / max(float(values.max()), 1e-9)
    return out


def _cited(view: View, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The row ids of the turns that the memories cite, all in a row, and where those of each begin (and the end)."""
    cited = view.columns["turns"][positions].tolist()
    starts = np.zeros(len(cited) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, cited), np.int64, len(cited)) // 8, out=starts[1:])
    return np.frombuffer(b"".join(cited), "<i8"), starts


def _links(
    view: View, members: NDArray[np.int64], flat: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Pairs (fact, turn) of indices into `members`."""
    turns, known = _places(members, view.position(flat))
    facts = np.repeat(np.arange(len(members)), np.diff(starts))
    return np.stack((facts[known], turns[known]), axis=1)


def _belongs(row: Row, asked: SearchQuery) -> bool:
    """Whether a row of the journal may be a hit: the last word, whatever an index said."""
    if row.state == HIDDEN or (row.state == QUARANTINED and not asked.include_quarantined):
        return False
    live = row.closed is None or asked.past
    return live and all(getattr(row, name) == value for name, value in asked.scope.ids().items())
