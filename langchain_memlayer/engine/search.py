"""The order of steps of a search: signals, fusion, and every hit re-read from the journal.

```
view    the slabs of a scope at one position         index_sync
scoped  a mask of what may be a hit: scope, state, expiry, what held then
mend    the query with its misspelled words mended, embedded; the entities that it names     graph_sync
pool    what is scored: the whole scope, or each signal's best and what stands around them   scoring_pool
scored  what each signal adds                        recall.signals, recall.fusion
hits    the best that pass the filter, re-read; what another covers, or later versions supersede, is left out
```
When rows have changed since the view was made, all of it is done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.engine.graph_sync import Graphs
from langchain_memlayer.engine.index_sync import Indexes
from langchain_memlayer.engine.records import OWN_FIELDS, record_of
from langchain_memlayer.engine.scoring_pool import Keywords, Pools, Scoped, keywords, mended
from langchain_memlayer.engine.texts import embedded
from langchain_memlayer.filters import And, Comparison, Filter
from langchain_memlayer.index.keywords import query_characters, query_terms, term_id, term_ids, tokenize
from langchain_memlayer.index.view import Hints
from langchain_memlayer.journal import Journal
from langchain_memlayer.recall import (
    Pool,
    Query,
    Ranking,
    Scored,
    Weights,
    best,
    identifiers,
    is_eligible,
    is_word,
    scored,
    subject_of,
    wanted_version,
)
from langchain_memlayer.recall import rank as ranked
from langchain_memlayer.result_types import Relation
from langchain_memlayer.steps import Steps
from langchain_memlayer.types import HIDDEN, QUARANTINED, SPENT, Row, Scope

if TYPE_CHECKING:
    from langchain_memlayer.index.view import View
    from langchain_memlayer.journal.reader import Reader
    from langchain_memlayer.recall.pool import Mask

RETRIES = 8
_SCOPES = 32
WIDER = (4, 8, 16)
"""How many times the limit is read of the best memories to see which pass a filter, before SQL says it of all."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One search after its checks.

    Attributes:
        threshold: The lowest relevance.
        reference_time: The present, for relative dates; None takes the clock's.
        include_quarantined: Whether tool output may come back.
        as_of: What held then, microseconds since 1970 UTC; None for what holds.
        known_at: What had been recorded by then; None for all.
        show_expired: Whether what has ceased to count by now may come back.
        now: The clock's time, microseconds since 1970 UTC.
        entities: Whom and what it is about, beside those that the text names.
        words_only: Embed nothing.
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
    show_expired: bool = False
    now: int = 0
    entities: tuple[str, ...] = ()
    words_only: bool = False

    @property
    def asks_for_past(self) -> bool:
        """Whether ended versions are among what is asked for."""
        return self.as_of is not None or self.known_at is not None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A memory that was found, at some rank of a ranking."""

    row: Row
    ranking: Ranking
    rank: int

    @property
    def score(self) -> float:
        """From 0 to 1; orders."""
        return float(self.ranking.score[self.rank])

    @property
    def relevance(self) -> float:
        """From 0 to 1; absolute."""
        return float(self.ranking.relevance[self.rank])

    @property
    def shares(self) -> dict[str, float]:
        """What each signal gave to its score."""
        return self.ranking.shares_of(self.rank)


@dataclass(frozen=True, slots=True)
class SearchHits:
    """What a search found: hits, best first, and the entities that the query names."""

    hits: list[Ranked] = field(default_factory=list)
    entities: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reread:
    """Memories of a view as the journal has them now.

    Attributes:
        rows: Those that may be hits, by slot.
        stale: Whether one has changed since the view was made.
    """

    view: View
    rows: dict[int, Row] = field(default_factory=dict)
    stale: bool = False
    _seen: set[int] = field(default_factory=set)

    def read(self, reader: Reader, slots: NDArray[np.int64], query: SearchQuery) -> None:
        """Read those that were not read yet."""
        fresh = [slot for slot in slots.tolist() if slot not in self._seen]
        self._seen.update(fresh)
        ids, seqs = self.view.ids[fresh].tolist(), self.view.seqs[fresh].tolist()
        rows = reader.memories_by_row(ids)
        for slot, item, seq in zip(fresh, ids, seqs, strict=True):
            row = rows.get(item)
            if row is None or row.seq != seq or not _belongs(row, query):
                self.stale = True
            elif query.filter is None or query.filter.matches(record_of(row)):
                self.rows[slot] = row


class Searcher:
    """The read path of one folder's memories; `weights` are those of the signals, None for the default ones."""

    def __init__(self, journal: Journal, indexes: Indexes, graphs: Graphs, weights: Weights | None = None) -> None:
        self.journal = journal
        self.indexes = indexes
        self.graphs = graphs
        self.weights = weights or Weights()

    def search(self, query: SearchQuery) -> Steps[SearchHits]:
        """What answers a query; returns a `SearchHits`."""
        hits, before = SearchHits(), -1
        vectors: dict[str, NDArray[np.float32]] = {}
        for _ in range(RETRIES):
            hits, stale = yield from self._once(query, vectors)
            # What is damaged stays so: without a commit in between nothing comes of another look.
            if stale in (None, before):
                break
            before = stale
        return hits

    def _once(
        self, query: SearchQuery, vectors: dict[str, NDArray[np.float32]]
    ) -> Steps[tuple[SearchHits, int | None]]:
        """What is found, and where the journal was, if some of it is not as it was then.

        `vectors` are those of the texts that were embedded for it; what is embedded now is added.
        """
        view = self.indexes.view(query.scope.search_root, ended=query.asks_for_past)
        scoped = self._scoped(view, query)
        allowed = scoped.inside
        if len(query.kinds) == 1:
            allowed = allowed & (view.columns["kind"] == ("turn" in query.kinds))
        if not allowed.any():
            return SearchHits(), None
        mend = mended(scoped, query.text)
        query = replace(query, text=mend.text)
        vector = None if query.words_only else (yield from self._vector(mend.meaning, vectors))
        entities, related = self._related(view, query)
        words = keywords(scoped, mend)
        scoring_query = _scoring_query(query, words, query.reference_time or self.journal.clock())
        broad, narrow = Hints(query.scope.ids(), query.text), Hints(_equalities(query), query.text)
        vector = None if view.kernel is None else vector
        pools = Pools(
            scoped, text=query.text, words=words, vector=vector, related=related, weights=self.weights, hints=broad
        )
        if vector is not None and scoped.scores_all:
            view.audit(vector, query.limit, mask=allowed, hints=broad)
        members, pool = pools.around(allowed, broad)
        scores, reread = scored(pool, scoring_query, self.weights), _Reread(view)
        hits = self._hits(query, members, scores, allowed, reread, scores_all=scoped.scores_all)
        for surely in (False, True):
            if hits is not None:
                break
            # Few of the best pass the filter: SQL says which may, and if most of these do not, which do.
            allowed = allowed & self._passing(view, query, surely=surely)
            if not scoped.scores_all:
                members, pool = pools.around(allowed, narrow)
                scores = scored(pool, scoring_query, self.weights)
            rest = replace(query, filter=None) if surely else query
            hits = self._hits(rest, members, scores, allowed, reread, scores_all=scoped.scores_all)
        return SearchHits(hits or [], entities), view.applied_seq if reread.stale else None

    def _vector(self, text: str, known: dict[str, NDArray[np.float32]]) -> Steps[NDArray[np.float32] | None]:
        embedder = self.indexes.embedder
        if embedder is not None and text not in known:
            known[text] = yield from embedded(lambda: embedder.embed_query(text), lambda: embedder.aembed_query(text))
        return known.get(text)

    def _hits(
        self,
        query: SearchQuery,
        members: NDArray[np.int64],
        scores: Scored,
        allowed: Mask,
        reread: _Reread,
        *,
        scores_all: bool,
    ) -> list[Ranked] | None:
        """The best hits, re-read from the journal; None when too few of the best memories pass the filter."""
        eligible = is_eligible(scores, allowed[members], query.threshold)
        if query.filter is None:
            return self._ranked(query, members, scores, eligible, reread)
        for times in WIDER:
            tried = best(scores, eligible, times * query.limit)
            self._read(query, members[tried], reread)
            passed = eligible & np.isin(members, np.fromiter(reread.rows, np.int64, len(reread.rows)))
            hits = self._ranked(query, members, scores, passed, reread)
            # The end of the pool is not that of a large scope, unless most in it pass: then nothing else is better.
            ended = len(tried) < times * query.limit and (scores_all or 2 * np.count_nonzero(passed) >= len(tried))
            if len(hits) == query.limit or ended:
                return hits
        return None

    def _ranked(
        self, query: SearchQuery, members: NDArray[np.int64], scores: Scored, eligible: Mask, reread: _Reread
    ) -> list[Ranked]:
        while True:
            ranking = ranked(scores, eligible, limit=query.limit, weights=self.weights)
            slots = members[ranking.order]
            self._read(query, slots, reread)
            hits = [
                Ranked(reread.rows[slot], ranking, rank)
                for rank, slot in enumerate(slots.tolist())
                if slot in reread.rows
            ]
            gone = np.zeros(len(members), np.bool_)
            gone[ranking.order] = [slot not in reread.rows for slot in slots.tolist()]
            if scores.pool.ended[ranking.order].any():
                gone |= self._superseded(query, scores.pool, eligible, hits)
            if not gone.any():
                return hits
            # Others take their places.
            eligible = eligible & ~gone

    def _superseded(self, query: SearchQuery, pool: Pool, eligible: Mask, hits: Sequence[Ranked]) -> Mask:
        """Turns whose facts have ended, where a later version of one, or a turn that tells it, is among the hits."""
        superseded = np.zeros(len(pool), np.bool_)
        if query.kinds == {"turn"} or wanted_version(query.text) in ("before", "first", "all"):
            return superseded
        ended = np.flatnonzero(eligible & pool.ended)
        old = pool.order[ended].tolist()
        others = {hit.row.id for hit in hits}.difference(old)
        with self.journal.read() as reader:
            facts_of = reader.keys_told_by([*old, *others])
        live = {hit.row.key for hit in hits}.union(*(facts_of.get(one, ()) for one in others))
        superseded[ended] = [not live.isdisjoint(facts_of.get(turn, ())) for turn in old]
        return superseded

    def _read(self, query: SearchQuery, slots: NDArray[np.int64], reread: _Reread) -> None:
        with self.journal.read() as reader:
            reread.read(reader, slots, query)

    # -- who may be found -----------------------------------------------------------------------------------------

    def _scoped(self, view: View, query: SearchQuery) -> Scoped:
        passing = query.asks_for_past or (self.indexes.expiring and not query.show_expired)
        key = (query.scope, query.include_quarantined)
        scoped: Scoped | None = None if passing else view.memo.get(key)
        if scoped is None:
            scoped = self._scope(view, query)
            if not passing:
                # The masks of a few scopes, as long as nothing is written.
                if len(view.memo) > _SCOPES:
                    view.memo.clear()
                view.memo[key] = scoped
        return scoped

    def _scope(self, view: View, query: SearchQuery) -> Scoped:
        state = view.columns["state"]
        inside: Mask = view.live & (state != HIDDEN)
        if not query.include_quarantined:
            inside &= state != QUARANTINED
        for name, value in query.scope.ids().items():
            inside &= view.columns[name] == self.indexes.codes.find(value)
        ended = state == SPENT
        if self.indexes.expiring and not (query.asks_for_past or query.show_expired):
            until = view.columns["until"]
            inside &= (until == 0) | (until > query.now)
        if query.asks_for_past:
            held, ended = self._then(view, query)
            inside &= held
        return Scoped(self.indexes, ref(view), inside, ended, int(np.count_nonzero(inside)))

    def _then(self, view: View, query: SearchQuery) -> tuple[Mask, Mask]:
        """The versions that held, or were known, at the time that is asked about, and the turns spent by then."""
        with self.journal.read() as reader:
            versions = reader.versions_at(query.scope.search_root, as_of=query.as_of, known_at=query.known_at)
        held, ended = np.zeros(len(view), np.bool_), np.zeros(len(view), np.bool_)
        ids, spent = np.array(versions, np.int64).reshape(-1, 2).T
        slots = view.slots(ids)
        held[slots[slots >= 0]] = True
        ended[slots[slots >= 0]] = spent[slots >= 0]
        return held, ended

    def _passing(self, view: View, query: SearchQuery, *, surely: bool) -> Mask:
        """What of the scope may pass the filter as far as SQL can say it, or surely does."""
        with self.journal.read() as reader:
            if surely and query.filter is not None:
                rows = reader.memories_passing(query.scope, query.filter, ended=query.asks_for_past)
                ids = [row.id for row in rows if query.filter.matches(record_of(row))]
            else:
                ids = reader.ids_passing(query.scope, query.filter, ended=query.asks_for_past)
        passed = np.zeros(len(view), np.bool_)
        slots = view.slots(np.array(ids, np.int64))
        passed[slots[slots >= 0]] = True
        return passed

    def _related(self, view: View, query: SearchQuery) -> tuple[tuple[str, ...], dict[int, float]]:
        """The known entities that the query is about, and the memories around them, as row ids with weights."""
        if query.asks_for_past or not self._has_triples(view):
            return (), {}
        graph = self.graphs.graph(query.scope, include_quarantined=query.include_quarantined)
        entities = graph.entities_in(query.text)
        entities += [name for name in graph.entities_named(query.entities) if name not in entities]
        return tuple(entities), graph.memories_near(entities) if entities else {}

    def relations(self, query: SearchQuery, entities: Sequence[str], *, most: int) -> list[Relation]:
        """The triples around some entities, as a `SearchHits` has them, the most relevant first."""
        if not entities:
            return []
        return self.graphs.relations(
            query.scope, entities, query=query.text, most=most, include_quarantined=query.include_quarantined,
            at=None if query.show_expired else query.now,
        )  # fmt: skip

    def _has_triples(self, view: View) -> bool:
        # After the next commit it is another view.
        if (known := view.memo.get("triples")) is None:
            with self.journal.read() as reader:
                known = view.memo["triples"] = reader.has_triples()
        return bool(known)


def _scoring_query(query: SearchQuery, words: Keywords, reference: datetime) -> Query:
    """What a search asks of the memories that are scored."""
    about = subject_of(query.text, reference)
    subject = set(map(term_id, (*query_terms(about), *query_characters(about))))
    heard = dict(zip(words.terms.tolist(), words.dfs.tolist(), strict=True))
    named = []
    for name in identifiers(query.text):
        terms = words.words.numbers(np.unique(term_ids(tokenize(name))))
        if len(terms) and (terms >= 0).all():
            held = min(heard.get(term, 1) for term in terms.tolist()) if is_word(name) else 1
            named.append((terms, max(1, held) ** -2.0))
    return Query(
        query.text,
        words.terms,
        words.weights,
        words.dfs,
        np.array([term in subject for term in words.words.ids[words.terms].tolist()], np.bool_),
        named,
        reference,
    )


def _equalities(query: SearchQuery) -> dict[str, str]:
    """What a foreign store may filter by: the scope's ids, and the metadata that must be equal to a short string."""
    equal = {
        part.field: part.value
        for part in (query.filter.parts if isinstance(query.filter, And) else (query.filter,))
        if isinstance(part, Comparison) and part.op == "eq" and isinstance(part.value, str)
    }
    return {name: value for name, value in equal.items() if name not in OWN_FIELDS} | query.scope.ids()


def _belongs(row: Row, query: SearchQuery) -> bool:
    """Whether a row of the journal may be a hit: the last word, whatever an index said."""
    if row.state == HIDDEN or (row.state == QUARANTINED and not query.include_quarantined):
        return False
    return is_asked_for(row, query) and all(getattr(row, name) == value for name, value in query.scope.ids().items())


def is_asked_for(row: Row, query: SearchQuery) -> bool:
    """Whether a version is one that is asked about: live and not expired, unless the past is."""
    return query.asks_for_past or (row.closed is None and (query.show_expired or not row.expired(query.now)))
