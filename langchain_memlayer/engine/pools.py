"""What a search scores: the whole scope while it is small, else the best of each signal and what stands around them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.keywords import (
    CHARACTER,
    bm25,
    bm25_ceiling,
    query_characters,
    query_terms,
    rarest,
    term_codes,
)
from langchain_memlayer.recall import Pool, Spread, Terms, Weights, base_shares, session_prior, trust_in
from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    from langchain_memlayer.engine.indexes import Indexes
    from langchain_memlayer.index.source import Hints
    from langchain_memlayer.index.view import View
    from langchain_memlayer.journal import Journal
    from langchain_memlayer.recall.pool import Scores

WHOLE_SCOPE = 10_000
"""The largest scope all of whose memories are scored."""

CANDIDATES = 200
"""How many of a larger one each signal proposes."""

FOUND = 5_000
"""How many texts keywords find in it at most: the rarest terms first, as long as all their texts are so few."""

SAMPLE = 10_000
"""How many stand for all where statistics are taken."""

NEAR = 4
SESSIONS = 40
REACH = 32
_OTHERS = 2_000
_SCORED_TERMS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Scoped:
    """What of a view a search is about.

    Attributes:
        view: One state of the slab.
        inside: The live memories of the scope, of all kinds, shape (len(view),): statistics are taken over them.
        ended: Those that no longer hold (at the time that is asked about).
        total: How many are inside.
    """

    view: View
    inside: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    total: int

    @property
    def whole(self) -> bool:
        """Whether all that is inside is scored."""
        return self.total <= WHOLE_SCOPE

    def sample(self, most: int) -> NDArray[np.int64]:
        """About so many positions spread evenly over the scope; the same ones for every query."""
        positions = np.flatnonzero(self.inside)
        return positions[:: max(1, len(positions) // most)]

    def average_length(self) -> float:
        """Mean number of terms of the texts inside; 1 where there are none."""
        lengths = self.view.columns["length"]
        return float(lengths[self.inside].mean()) or 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Keywords:
    """The words of a query in a scope.

    Attributes:
        codes: The query's terms as numbers, ascending.
        weights: What each counts.
        dfs: How many texts of the scope have each.
        total: Texts of the scope.
        average: Their mean length.
        positions: Texts that have some of the terms, in a large scope; all inside in a small one. Ascending.
        scores: Their BM25.
        texts: Their terms.
    """

    codes: NDArray[np.uint32]
    weights: NDArray[np.float32]
    dfs: NDArray[np.int64]
    total: int
    average: float
    positions: NDArray[np.int64]
    scores: Scores
    texts: Terms

    @property
    def ceiling(self) -> float:
        """What a text could attain."""
        return bm25_ceiling(self.dfs, self.total, self.weights)

    def best(self, view: View, allowed: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
        """The positions of the best `most` of those that are allowed, in no order."""
        if np.count_nonzero(allowed) <= WHOLE_SCOPE:
            # So few are looked through: what was found of all may have none of them.
            positions = np.flatnonzero(allowed)
            scores = self.of(texts_at(view, positions))
            positions, scores = positions[scores > 0], scores[scores > 0]
        else:
            able = allowed[self.positions]
            positions, scores = self.positions[able], self.scores[able]
        return positions if len(positions) <= most else positions[np.argpartition(-scores, most)[:most]]

    def of(self, texts: Terms) -> Scores:
        """The BM25 of any texts of the scope."""
        lengths = np.diff(texts.starts)
        return bm25(texts.counts(self.codes), lengths, self.dfs, self.total, self.average, self.weights)


def keywords(journal: Journal, scoped: Scoped, scope: Scope, text: str) -> Keywords:
    """BM25 with the statistics of exactly this scope: over all of a small one, over what the journal finds of many."""
    weights = dict.fromkeys(query_terms(text), 1.0) | dict.fromkeys(query_characters(text), CHARACTER)
    if scoped.whole:
        return _scored(scoped, np.flatnonzero(scoped.inside), weights, {}, counted=weights)
    terms = list(weights)
    with journal.read() as reader:
        space = reader.namespace_id(scope.search_root) if scope.user_id is not None else None
        own = scope.ids().keys() == {"user_id"}
        # Only then are the namespace's statistics the scope's own: nobody else's texts may choose the terms.
        counts = reader.frequencies(terms, space) if own else _estimated(scoped, terms)
        terms = rarest(terms, counts, _SCORED_TERMS)
        finding = _affordable(rarest(terms, counts) if own else terms, counts)
        ids = reader.matches(finding, space, most=FOUND if own else None) if finding else []
    positions = np.sort(scoped.view.position(np.array(ids, np.int64)))
    positions = positions[positions >= 0]
    positions = positions[scoped.inside[positions]]
    complete = len(ids) < FOUND or not own
    weights = {term: weights[term] for term in terms}
    return _scored(scoped, positions, weights, counts, counted=finding if complete else ())


def _scored(
    scoped: Scoped,
    positions: NDArray[np.int64],
    weights: Mapping[str, float],
    frequencies: Mapping[str, int],
    *,
    counted: Collection[str],
) -> Keywords:
    """The texts at some positions with the BM25 of terms that have weights.

    How many texts have the `counted` terms is what stands in these texts, and for the others is in `frequencies`.
    """
    average, texts = scoped.average_length(), texts_at(scoped.view, positions)
    terms = list(weights)
    codes, places = np.unique(_codes(terms), return_index=True)
    terms = [terms[place] for place in places.tolist()]
    weighed = np.array([weights[term] for term in terms], np.float32)
    dfs = np.array([frequencies.get(term, 0) for term in terms], np.int64)
    none = Keywords(codes, weighed, dfs, scoped.total, average, positions, np.zeros(len(positions), np.float32), texts)
    if not len(codes) or not len(positions):
        return none
    counts = texts.counts(codes)
    here = np.array([term in counted for term in terms], np.bool_)
    dfs = np.minimum(np.where(here, np.count_nonzero(counts, axis=1), dfs), scoped.total)
    scores = bm25(counts, np.diff(texts.starts), dfs, scoped.total, average, weighed)
    return replace(none, dfs=dfs, scores=scores)


def _estimated(scoped: Scoped, terms: list[str]) -> dict[str, int]:
    """How many texts of the scope have each term, by a sample of them; of one that is not in it, at least one has."""
    positions = scoped.sample(SAMPLE)
    codes, places = np.unique(_codes(terms), return_inverse=True)
    if not len(codes):
        return {}
    found = np.count_nonzero(texts_at(scoped.view, positions).counts(codes), axis=1) * scoped.total // len(positions)
    return {term: max(1, int(found[place])) for term, place in zip(terms, places.tolist(), strict=True)}


def _affordable(terms: list[str], counts: Mapping[str, int]) -> list[str]:
    """The rarest terms whose texts are `FOUND` together at most; the rarest one in any case."""
    kept: list[str] = []
    texts = 0
    for term in sorted(terms, key=lambda term: counts[term]):
        texts += counts[term]
        if kept and texts > FOUND:
            break
        kept.append(term)
    return kept


def _codes(terms: list[str]) -> NDArray[np.uint32]:
    return np.frombuffer(term_codes(terms), "<u4")


class Pools:
    """The pools of one search; what does not depend on a filter is found once.

    Args:
        indexes: What the view is of.
        scoped: Where is searched.
        text: The query.
        words: Its words there.
        vector: Its vector, or None.
        related: Memories near the entities that it names, as row ids with weights.
        weights: Those of the signals.
        hints: What a foreign store may go by, of the scope alone.
    """

    def __init__(
        self,
        indexes: Indexes,
        scoped: Scoped,
        *,
        text: str,
        words: Keywords,
        vector: NDArray[np.float32] | None,
        related: Mapping[int, float],
        weights: Weights,
        hints: Hints,
    ) -> None:
        self._indexes = indexes
        self._scoped = scoped
        self._words = words
        self._vector = vector
        self._related = related
        self._weights = weights
        self._spread, self._dense = Spread(), None
        self._nearest = np.empty(0, np.int64)
        self._others = None if scoped.whole else texts_at(scoped.view, scoped.sample(_OTHERS))
        if vector is not None and scoped.whole:
            self._dense = scoped.view.scores(vector, words.positions)
            self._spread = Spread.of(self._dense)
        elif vector is not None:
            nearest = scoped.view.search(vector, CANDIDATES, mask=scoped.inside, hints=hints)
            sampled = Spread.of(scoped.view.scores(vector, scoped.sample(SAMPLE)))
            self._nearest = nearest.positions
            # A sample knows how the cosines are spread, but hardly ever has the highest.
            self._spread = replace(sampled, high=max(sampled.high, float(nearest.scores.max(initial=-np.inf))))
        self._trust = trust_in(text, indexes.knows) if vector is not None else 0.0

    def around(self, allowed: NDArray[np.bool_], hints: Hints) -> tuple[NDArray[np.int64], Pool]:
        """The memories to be scored, as ascending positions in the view, and what is known of them.

        Args:
            allowed: Which positions may be hits.
            hints: What a foreign store may go by to find such.
        """
        members = self._words.positions if self._scoped.whole else self._candidates(allowed, hints)
        return members, self._pool(members)

    def _candidates(self, allowed: NDArray[np.bool_], hints: Hints) -> NDArray[np.int64]:
        """The signals' best, the sessions that they make lively, their neighbours, and their linked facts and turns."""
        view, inside = self._scoped.view, self._scoped.inside
        near = view.position(np.fromiter(self._related, np.int64, len(self._related)))
        chosen = [near[near >= 0], self._nearest, self._words.best(view, inside, CANDIDATES)]
        if allowed is not inside:
            chosen.append(self._words.best(view, allowed, CANDIDATES))
            if self._vector is not None:
                chosen.append(view.search(self._vector, CANDIDATES, mask=allowed, hints=hints).positions)
        best = np.unique(np.concatenate(chosen))
        best = best[inside[best]]
        around = (best[:, None] + np.arange(-NEAR, NEAR + 1)).clip(0, len(view) - 1)
        cited = _cited(self._scoped, best)[1]
        members = np.unique(np.concatenate((around.ravel(), self._lively(best), cited)))
        kept: NDArray[np.int64] = members[inside[members]]
        return kept

    def _lively(self, best: NDArray[np.int64]) -> NDArray[np.int64]:
        """What stands near `best` in those of their sessions that have the best memories."""
        pool, sessions = self._pool(best), self._scoped.view.columns["session_id"]
        dense, keyword = base_shares(pool, self._weights)
        prior = session_prior(pool, dense + keyword)
        order = np.argsort(-prior, kind="stable")
        lively = np.array(list(dict.fromkeys(pool.session[order[prior[order] > 0]].tolist()))[:SESSIONS], np.int32)
        places = best[np.isin(pool.session, lively)]
        around = np.unique((places[:, None] + np.arange(-REACH, REACH + 1)).clip(0, len(sessions) - 1))
        return around[np.isin(sessions[around], lively)]

    def _pool(self, members: NDArray[np.int64]) -> Pool:
        view, whole = self._scoped.view, self._scoped.whole
        dense = self._dense
        if self._vector is not None and dense is None:
            dense = view.scores(self._vector, members)
        columns = {name: view.columns[name][members] for name in ("kind", "session_id", "role", "name", "time", "asks")}
        texts = self._words.texts if whole else texts_at(view, members)
        flat, places, starts = _cited(self._scoped, members)
        names = columns["name"]
        return Pool(
            dense=dense,
            dense_spread=self._spread,
            dense_trust=self._trust,
            keyword=self._words.scores if whole else self._words.of(texts),
            keyword_spread=Spread(0.0, float(self._words.scores.max(initial=0.0))),
            keyword_ceiling=self._words.ceiling,
            terms=texts,
            total=self._scoped.total,
            others=self._others,
            graph=_weights(view, members, self._related),
            is_turn=columns["kind"] == 1,
            session=columns["session_id"],
            order=view.ids[members],
            speaker=names,
            time=columns["time"],
            asks=columns["asks"],
            barren=self._barren(members, columns, places),
            ended=self._scoped.ended[members],
            links=_links(members, places, starts),
            cited=flat,
            starts=starts,
            speakers={code: self._indexes.codes.names[code] for code in np.unique(names[names >= 0]).tolist()},
            metric=self._indexes.metric,
        )

    def _barren(
        self, members: NDArray[np.int64], columns: Mapping[str, NDArray[Any]], cited: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Turns that ask or answer and that no fact comes from, where facts were looked for."""
        facts = columns["kind"] == 0
        if not facts.any():
            return np.zeros(len(members), np.bool_)
        barren: NDArray[np.bool_] = ~facts & (
            (columns["asks"] == 2) | (columns["role"] == self._indexes.codes.find("assistant"))
        )
        places, known = _places(members, cited)
        barren[places[known]] = False
        if not self._scoped.whole:
            # Of a large scope the facts of a turn may not be among the candidates.
            left = np.flatnonzero(barren)
            with self._indexes.journal.read() as reader:
                told = reader.turns_with_facts(self._scoped.view.ids[members[left]].tolist())
            barren[left[np.isin(self._scoped.view.ids[members[left]], told)]] = False
        return barren


def texts_at(view: View, positions: NDArray[np.int64]) -> Terms:
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


def _cited(
    scoped: Scoped, positions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The turns that the memories cite, all in a row: row ids, positions, and where those of each begin (and the end).

    Turns that cannot be found do not count: facts that come from one whose words were not kept do not stand for it.
    """
    cited = scoped.view.columns["turns"][positions].tolist()
    starts = np.zeros(len(cited) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, cited), np.int64, len(cited)) // 8, out=starts[1:])
    flat = np.frombuffer(b"".join(cited), "<i8")
    places = scoped.view.position(flat)
    known = (places >= 0) & scoped.inside[places]
    return flat[known], places[known], np.concatenate(([0], np.cumsum(known)))[starts]


def _links(members: NDArray[np.int64], places: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (fact, turn) of indices into `members`."""
    turns, known = _places(members, places)
    facts = np.repeat(np.arange(len(members)), np.diff(starts))
    return np.stack((facts[known], turns[known]), axis=1)
