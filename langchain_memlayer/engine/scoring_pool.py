"""What a search scores: the whole scope while it is small, else the best of each signal and what stands around them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.function_words import ENGLISH, function_words, language_of
from langchain_memlayer.index.keywords import (
    CHARACTER,
    MOST_TERMS,
    bm25,
    bm25_ceiling,
    bm25_unheard,
    query_characters,
    query_terms,
    term_ids,
    term_of,
    words_of,
)
from langchain_memlayer.index.spelling import Slips, english, slips_of, words_around, written_words
from langchain_memlayer.recall import (
    Pool,
    Spread,
    Weights,
    base_shares,
    fluency_in,
    following,
    session_prior,
    skill_in,
    together,
    trust_in,
)
from langchain_memlayer.threads import lazy
from langchain_memlayer.types import ONLY_ASKS

if TYPE_CHECKING:
    from langchain_memlayer.engine.index_sync import Indexes
    from langchain_memlayer.index.postings import Postings, Terms, Words
    from langchain_memlayer.index.view import Hints, View
    from langchain_memlayer.recall.pool import Scores

WHOLE_SCOPE = 10_000
"""The largest scope all of whose memories are scored."""

_SPOKEN = 0.5
"""Function words of a language for each text of a scope that speaks it; of another there are a tenth of that."""

CANDIDATES = 200
"""How many of a larger one each signal proposes."""

FOUND = 5_000
"""How many texts keywords find in it at most: the rarest terms first, as long as all their texts are so few."""

SAMPLE = 2_000
"""How many stand for all, at least, where their spread is taken, and how far turns belong together."""

_RUNS = 16
"""In how many runs of neighbours they are taken for the latter."""

_COLUMNS = ("kind", "session_id", "role", "name", "time", "since", "asks", "read")
CANDIDATE_REACH = 4
MOST_LIVELY = 40

STATEMENT = 0.05
"""How surely a person's statement says nothing that was read and gave no fact: its facts may have been overlooked."""

SESSION_REACH = 32

MOST_MENDED = 3
"""How many words of a query are looked for under other spellings at most."""

_TELLING = 6
"""How long a word of another language must be for an English one a slip away to be the same ("restaurante")."""

_SCORED_TERMS = 64


@dataclass(frozen=True, eq=False)
class Scoped:
    """What of a view a search is about: the same for all searches of a scope until something is written to it.

    The view keeps it, so it must not keep the view: whoever searches does.

    Attributes:
        indexes: What the view is of.
        inside: The live memories of the scope, of all kinds, shape (len(view),): statistics are taken over them.
        ended: Those that no longer hold (at the time that is asked about).
        total: How many are inside.
    """

    indexes: Indexes
    _view: ref[View]
    inside: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    total: int

    @property
    def view(self) -> View:
        """One state of the slab."""
        view = self._view()
        if view is None:
            raise RuntimeError("The state of a scope is asked for after its search.")
        return view

    @property
    def scores_all(self) -> bool:
        """Whether all that is inside is scored."""
        return self.total <= (WHOLE_SCOPE if self.view.held else SAMPLE)

    @lazy
    def whole_pool(self) -> Pool:
        """The pool of all that is inside, before anything is asked."""
        return _bare_pool(self, self.slots)

    @lazy
    def slots(self) -> NDArray[np.int64]:
        """The slots that are inside, ascending."""
        return np.flatnonzero(self.inside)

    @lazy
    def average_length(self) -> float:
        """Mean number of terms of the texts inside; 1 where there are none."""
        lengths = self.view.words.lengths
        return float(lengths.mean() if self.is_whole_view else lengths[self.inside].mean()) or 1.0

    @property
    def is_whole_view(self) -> bool:
        """Whether all of the view is inside."""
        return self.total == len(self.view)

    def frequencies(self, terms: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many texts inside have each of some terms."""
        return self.view.words.postings(terms).frequencies(None if self.is_whole_view else self.inside)

    @lazy
    def together(self) -> float:
        """`Pool.together` of a large scope, by runs of neighbours spread evenly over it."""
        starts = np.arange(_RUNS) * (self.total // _RUNS)
        slots, view = self.slots[(starts[:, None] + np.arange(SAMPLE // _RUNS)).ravel()], self.view
        columns = view.columns
        follows = following(columns["kind"][slots] == 1, columns["session_id"][slots], view.ids[slots])
        return together(view.words.texts(slots), follows)

    def speaks(self, language: str) -> bool:
        """Whether the texts inside are in a language, told by how many of its function words they have."""
        if language not in self._spoken:
            own = function_words(language) - ENGLISH
            said = int(_frequencies(self, term_ids(map(term_of, own))).sum())
            self._spoken[language] = said >= _SPOKEN * self.total
        return self._spoken[language]

    @lazy
    def _spoken(self) -> dict[str, bool]:
        return {"en": True}

    def sampled(self, vector: NDArray[np.float32]) -> Scores:
        """The scores of memories spread evenly over the scope; the same ones for every query."""
        slots, scores = self.view.sampled(vector)
        scores = scores[self.inside[slots]]
        if len(scores) >= min(SAMPLE, self.total):
            return scores
        return self.view.scores(vector, self.slots[:: max(1, self.total // SAMPLE)])


@dataclass(frozen=True, slots=True, eq=False)
class Keywords:
    """The words of a query in a scope.

    Attributes:
        words: The words of the slab.
        terms: The numbers of the query's terms that some text of the slab has, by ascending id.
        weights: What each counts.
        dfs: How many texts of the scope have each.
        unheard: What those count together that no text of the scope has.
        total: Texts of the scope.
        average: Their mean length.
        language: In which it is asked, if the scope speaks it; else English.
        slots: Texts that have some of the terms, in a large scope; all inside in a small one. Ascending.
        counts: How often each of the terms stands in each of these.
        scores: Their BM25.
    """

    words: Words
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]
    dfs: NDArray[np.int64]
    unheard: float
    total: int
    average: float
    language: str
    slots: NDArray[np.int64]
    counts: NDArray[np.int64]
    scores: Scores

    @property
    def ceiling(self) -> float:
        """What a text could attain."""
        return bm25_ceiling(self.dfs, self.total, self.weights)

    @property
    def full_ceiling(self) -> float:
        """What a text could attain if each of the query's words were said in the scope."""
        return self.ceiling + self.unheard * bm25_unheard(self.total)

    def best(self, allowed: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
        """The slots of the best `most` of those that are allowed, in no order."""
        if np.count_nonzero(allowed) <= WHOLE_SCOPE:
            # So few are looked through: what was found of all may have none of them.
            slots = np.flatnonzero(allowed)
            scores = self.of(self.words.texts(slots))[1]
            slots, scores = slots[scores > 0], scores[scores > 0]
        else:
            is_allowed = allowed[self.slots]
            slots, scores = self.slots[is_allowed], self.scores[is_allowed]
        return slots if len(slots) <= most else slots[np.argpartition(-scores, most)[:most]]

    def of(self, texts: Terms, counts: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Scores]:
        """How often any texts of the scope have each of the terms (which may be known), and their BM25."""
        counts = texts.counts(self.terms) if counts is None else counts
        return counts, bm25(counts, texts.lengths, self.dfs, self.total, self.average, self.weights)


@dataclass(frozen=True, slots=True)
class Mended:
    """A query whose misspelled words were looked for.

    Attributes:
        text: The query with what they may mean at its end. They stay, since one may be a word that nobody has said.
        meaning: What is to be embedded: without them.
        slips: How many were found.
    """

    text: str
    meaning: str
    slips: int


def mended(scoped: Scoped, text: str) -> Mended:
    """A query with the word that each one which no text of the scope has was meant to be.

    An English one is looked for where no list of words has it, and is the word of the list, a slip away, that most
    texts of the scope have, else what most texts have (names are in no list), else the most used one. Which words there
    are in other languages nobody says here: those are looked for anyway.
    """
    words = written_words(text)
    ids = term_ids(map(term_of, words))
    # Where all of the slab is inside, its words are those of the scope, and nothing has to be counted.
    known = scoped.view.words.numbers(ids) >= 0 if scoped.is_whole_view else _frequencies(scoped, ids) > 0
    unheard = [word for word, is_known in zip(words, known.tolist(), strict=True) if not is_known]
    if not unheard:
        return Mended(text, text, 0)
    if language_of(words_of(text)) != "en":
        related = [meant_word for word in unheard[:MOST_MENDED] if (meant_word := _other_form(scoped, word))]
        with_them = " ".join((text, *related))
        return Mended(with_them, with_them, len(related))
    meant, without_slips = [], text
    listed = english(unheard)
    for word in [word for word in unheard if word not in listed][:MOST_MENDED]:
        if meant_word := _intended(scoped, word):
            meant.append(meant_word)
            without_slips = re.sub(rf"\b{word}\b", "", without_slips, flags=re.IGNORECASE)
    return Mended(" ".join((text, *meant)), " ".join((without_slips, *meant)), len(meant))


def _intended(scoped: Scoped, word: str) -> str | None:
    """What a mistyped English word was meant to be."""
    near = words_around(word)
    said = _frequencies(scoped, term_ids(map(term_of, near)))
    return near[said.argmax()] if said.any() else _most_frequent(scoped, slips_of(word)) or next(iter(near), None)


def _other_form(scoped: Scoped, word: str) -> str | None:
    """Another form of a word that is not English, mostly a slip apart, which is said; or the English word that is."""
    if (found := _most_frequent(scoped, slips_of(word))) or len(word) < _TELLING or english([word]):
        return found
    return next(iter(words_around(word)), None)


def _most_frequent(scoped: Scoped, slips: Slips) -> str | None:
    """The most frequent word of those around one that texts of the scope have."""
    return slips.most_frequent(_frequencies(scoped, slips.ids))


def _frequencies(scoped: Scoped, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many texts of the scope have each of some terms, which may repeat."""
    distinct, places = np.unique(ids, return_inverse=True)
    numbers = scoped.view.words.numbers(distinct)
    counts, known = np.zeros(len(numbers), np.int64), numbers >= 0
    # Mostly none is, and then the newest texts are not looked through for them.
    if known.any():
        counts[known] = scoped.frequencies(numbers[known])
    return counts[places]


def keywords(scoped: Scoped, query: Mended) -> Keywords:
    """BM25 with the statistics of exactly this scope: over all of a small one, over the rarest terms' texts of many."""
    text, language = query.text, language_of(words_of(query.text))
    if not scoped.speaks(language):
        # What they share are names: all other words are unheard of, and meaning has to find the texts.
        language = "en"
    weights = dict.fromkeys(query_terms(text, language), 1.0) | dict.fromkeys(query_characters(text), CHARACTER)
    words = scoped.view.words
    # By their ids: numbers, and so the order of sums, follow from whatever else the slab has.
    ids, places = np.unique(term_ids(weights), return_index=True)
    terms, weighed = words.numbers(ids), np.fromiter(weights.values(), np.float32, len(weights))[places]
    terms, weighed = terms[terms >= 0], weighed[terms >= 0]
    postings = words.postings(terms)
    dfs = np.minimum(postings.frequencies(None if scoped.is_whole_view else scoped.inside), scoped.total)
    unheard = max(0.0, sum(weights.values()) - float(weighed[dfs > 0].sum()) - query.slips)
    bare = Keywords(
        words, terms, weighed, dfs, unheard, scoped.total, scoped.average_length, language,
        np.empty(0, np.int64), np.empty((len(terms), 0), np.int64), np.empty(0, np.float32),
    )  # fmt: skip
    if scoped.scores_all:
        known = None if 4 * scoped.total < len(scoped.view) else _counts_inside(postings, scoped)
        counts, scores = bare.of(scoped.whole_pool.terms, known)
        return replace(bare, slots=scoped.slots, counts=counts, scores=scores)
    # At most so many terms are counted, and at most so many texts looked at: those of the rarest ones.
    rare = np.sort(np.argsort(dfs, kind="stable")[:_SCORED_TERMS])
    rare = rare[dfs[rare] > 0]
    bare = replace(bare, terms=terms[rare], weights=weighed[rare], dfs=dfs[rare])
    if not len(rare):
        return bare
    slots = postings.texts_with(rare[_affordable(dfs[rare])])
    slots = slots[scoped.inside[slots]]
    counts, scores = bare.of(words.texts(slots))
    return replace(bare, slots=slots, counts=counts, scores=scores)


def _counts_inside(postings: Postings, scoped: Scoped) -> NDArray[np.int64]:
    """How often every text inside has each of some terms, from the postings alone."""
    counts = np.zeros((postings.count, len(scoped.view)), np.int64)
    for index, row in enumerate(counts):
        slots, often = postings.of(index)
        row[slots] = often
    return counts if scoped.is_whole_view else counts[:, scoped.slots]


def _affordable(dfs: NDArray[np.int64]) -> NDArray[np.intp]:
    """The rarest terms whose texts are `FOUND` together at most; the rarest one in any case."""
    rarest = np.argsort(dfs, kind="stable")[:MOST_TERMS]
    return rarest[: max(1, int(np.searchsorted(np.cumsum(dfs[rarest]), FOUND, side="right")))]


class Pools:
    """The pools of one search; what does not depend on a filter is found once.

    `related` are memories near the entities that the query names, as row ids with weights; the hints are of the scope
    alone.
    """

    def __init__(
        self,
        scoped: Scoped,
        *,
        text: str,
        words: Keywords,
        vector: NDArray[np.float32] | None,
        related: Mapping[int, float],
        weights: Weights,
        hints: Hints,
    ) -> None:
        self._scoped = scoped
        self._words = words
        self._vector = vector
        self._related = related
        self._weights = weights
        self._spread, self._dense = Spread(), None
        self._nearest = np.empty(0, np.int64)
        if vector is not None and scoped.scores_all:
            self._dense = scoped.view.scores(vector, words.slots)
            self._spread = Spread.of(self._dense)
        elif vector is not None:
            nearest = scoped.view.search(vector, CANDIDATES, mask=scoped.inside, hints=hints)
            sampled = Spread.of(scoped.sampled(vector))
            self._nearest = nearest.slots
            # A sample knows how the cosines are spread, but hardly ever has the highest.
            self._spread = replace(sampled, high=max(sampled.high, float(nearest.scores.max(initial=-np.inf))))
        knows = scoped.indexes.knows
        self._trust, self._skill = (0.0, 0.0) if vector is None else (trust_in(text, knows), skill_in(text, knows))
        self._fluency = fluency_in(words.language, knows)

    def around(self, allowed: NDArray[np.bool_], hints: Hints) -> tuple[NDArray[np.int64], Pool]:
        """The memories to be scored, as ascending slots of the view, and what is known of them.

        `allowed` says which slots may be hits, the hints what a foreign store may go by to find such.
        """
        members = self._words.slots if self._scoped.scores_all else self._candidates(allowed, hints)
        return members, self._pool(members)

    def _candidates(self, allowed: NDArray[np.bool_], hints: Hints) -> NDArray[np.int64]:
        """The signals' best, the sessions that they make lively, their neighbours, and their linked facts and turns."""
        view, inside = self._scoped.view, self._scoped.inside
        near = view.slots(np.fromiter(self._related, np.int64, len(self._related)))
        chosen = [near[near >= 0], self._nearest, self._words.best(inside, CANDIDATES)]
        if allowed is not inside:
            chosen.append(self._words.best(allowed, CANDIDATES))
            if self._vector is not None:
                chosen.append(view.search(self._vector, CANDIDATES, mask=allowed, hints=hints).slots)
        best = np.unique(np.concatenate(chosen))
        best = best[inside[best]]
        around = self._neighbours(best, CANDIDATE_REACH)
        cited = _cited(self._scoped, best)[1]
        members = np.unique(np.concatenate((best, around, self._lively(best), cited)))
        kept: NDArray[np.int64] = members[inside[members]]
        return kept

    def _lively(self, best: NDArray[np.int64]) -> NDArray[np.int64]:
        """What stands near `best` in those of their sessions that have the best memories."""
        sessions = self._scoped.view.columns["session_id"]
        best = best[sessions[best] >= 0]
        if not len(best):
            return best
        pool = self._pool(best)
        dense, keyword = base_shares(pool, self._weights)
        prior = session_prior(pool, dense + keyword)
        order = np.argsort(-prior, kind="stable")
        lively = np.array(list(dict.fromkeys(pool.session[order[prior[order] > 0]].tolist()))[:MOST_LIVELY], np.int32)
        places = best[np.isin(pool.session, lively)]
        around = self._neighbours(places, SESSION_REACH)
        return around[np.isin(sessions[around], lively)]

    def _neighbours(self, slots: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
        """What stands so near to some slots that are of a session."""
        slots = slots[self._scoped.view.columns["session_id"][slots] >= 0]
        return np.unique((slots[:, None] + np.arange(-reach, reach + 1)).clip(0, len(self._scoped.view) - 1))

    def _pool(self, members: NDArray[np.int64]) -> Pool:
        scoped, words, dense = self._scoped, self._words, self._dense
        if self._vector is not None and dense is None:
            dense = scoped.view.scores(self._vector, members)
        pool = scoped.whole_pool if scoped.scores_all else _bare_pool(scoped, members)
        counts, keyword = (words.counts, words.scores) if scoped.scores_all else words.of(pool.terms)
        return replace(
            pool,
            dense=dense,
            dense_spread=self._spread,
            dense_trust=self._trust,
            dense_skill=self._skill,
            dense_fluency=self._fluency,
            keyword=keyword,
            keyword_spread=Spread(0.0, float(words.scores.max(initial=0.0))),
            keyword_ceiling=words.ceiling,
            keyword_full_ceiling=words.full_ceiling,
            counts=counts,
            graph=_graph_weights(scoped.view, members, self._related),
        )


def _bare_pool(scoped: Scoped, members: NDArray[np.int64]) -> Pool:
    """What is known of some memories, given by their ascending slots, before anything is asked."""
    view, codes = scoped.view, scoped.indexes.codes
    columns = {name: view.columns[name][members] for name in _COLUMNS}
    flat, places, starts = _cited(scoped, members)
    names, nothing = columns["name"], np.zeros(len(members), np.float32)
    is_turn, order = columns["kind"] == 1, view.ids[members]
    terms, follows = view.words.texts(members), following(is_turn, columns["session_id"], order)
    return Pool(
        dense=None,
        dense_spread=Spread(),
        dense_trust=0.0,
        dense_skill=0.0,
        dense_fluency=1.0,
        keyword=nothing,
        keyword_spread=Spread(),
        keyword_ceiling=0.0,
        keyword_full_ceiling=0.0,
        terms=terms,
        counts=np.empty((0, len(members)), np.int64),
        total=scoped.total,
        counted=None if scoped.scores_all else scoped.frequencies,
        graph=nothing,
        is_turn=is_turn,
        session=columns["session_id"],
        order=order,
        following=follows,
        together=scoped.together if scoped.total > SAMPLE else together(terms, follows),
        speaker=names,
        time=columns["time"],
        since=columns["since"],
        asks=columns["asks"],
        barren=_barren(scoped, members, columns, places),
        ended=scoped.ended[members],
        links=_links(members, places, starts),
        cited=flat,
        starts=starts,
        speakers={code: codes.names[code] for code in np.unique(names[names >= 0]).tolist()},
        metric=scoped.indexes.metric,
    )


def _barren(
    scoped: Scoped, members: NDArray[np.int64], columns: Mapping[str, NDArray[Any]], cited: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How surely turns say nothing, whose facts were looked for in vain, where there are facts."""
    facts = columns["kind"] == 0
    if not facts.any():
        return np.zeros(len(members), np.float32)
    says_nothing = (columns["asks"] == ONLY_ASKS) | (columns["role"] == scoped.indexes.codes.find("assistant"))
    barren: NDArray[np.bool_] = ~facts & columns["read"]
    places, known = _places(members, cited)
    barren[places[known]] = False
    if not scoped.scores_all:
        # Of a large scope the facts of a turn may not be among the candidates.
        doubtful = np.flatnonzero(barren)
        with scoped.indexes.journal.read() as reader:
            with_facts = reader.turns_with_facts(scoped.view.ids[members[doubtful]].tolist())
        barren[doubtful[np.isin(scoped.view.ids[members[doubtful]], with_facts)]] = False
    sure: NDArray[np.float32] = np.where(says_nothing, 1.0, STATEMENT).astype(np.float32)
    return sure * barren


def _places(members: NDArray[np.int64], slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each slot stands in the ascending `members`, and whether it does."""
    if not len(members):
        return np.zeros(len(slots), np.int64), np.zeros(len(slots), np.bool_)
    places = np.minimum(np.searchsorted(members, slots), len(members) - 1)
    return places, members[places] == slots


def _graph_weights(view: View, members: NDArray[np.int64], related: Mapping[int, float]) -> NDArray[np.float32]:
    """The graph's weights of the members, as shares of the highest."""
    out = np.zeros(len(members), np.float32)
    if related:
        places, known = _places(members, view.slots(np.fromiter(related, np.int64, len(related))))
        values = np.fromiter(related.values(), np.float32, len(related))
        out[places[known]] = values[known] / max(float(values.max()), 1e-9)
    return out


def _cited(scoped: Scoped, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The turns that the memories cite, all in a row: row ids, slots, and where those of each begin (and the end).

    Turns that cannot be found do not count: facts that come from one whose words were not kept do not stand for it.
    """
    facts = np.flatnonzero(scoped.view.columns["kind"][slots] == 0)
    cited = scoped.view.columns["turns"][slots[facts]].tolist()
    starts = np.zeros(len(slots) + 1, np.int64)
    starts[facts + 1] = np.fromiter(map(len, cited), np.int64, len(cited)) // 8
    np.cumsum(starts, out=starts)
    flat = np.frombuffer(b"".join(cited), "<i8")
    places = scoped.view.slots(flat)
    known = (places >= 0) & scoped.inside[places]
    return flat[known], places[known], np.concatenate(([0], np.cumsum(known)))[starts]


def _links(members: NDArray[np.int64], places: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (fact, turn) of indices into `members`."""
    turns, known = _places(members, places)
    facts = np.repeat(np.arange(len(members)), np.diff(starts))
    return np.stack((facts[known], turns[known]), axis=1)
