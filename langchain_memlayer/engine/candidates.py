"""What new facts may change: the nearest live facts of exactly their scope."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.engine.commit import Indexed
from langchain_memlayer.engine.graph_sync import Graphs
from langchain_memlayer.engine.index_sync import Indexes
from langchain_memlayer.index.keywords import query_terms, term_ids
from langchain_memlayer.journal import Journal
from langchain_memlayer.recall import closeness
from langchain_memlayer.types import HIDDEN, IDS, QUARANTINED, RETRACT, Candidate, Fact, Row, Scope, Turn, from_micros

if TYPE_CHECKING:
    from langchain_memlayer.index.view import View

NEAREST = 5
FAR = 20
"""How many memories what asks to forget something is compared with: "my health" has no word of what it takes back."""

LEAST_COSINE = 0.4
MOST_CANDIDATES = 40
COMMON = 500
"""A word that more memories have finds none: it says little, and reading them all would take long."""

_MOST_WORDS = 6


class Finder:
    """Finds candidates by vector, by keyword, by entity under any name, and by relation."""

    def __init__(self, journal: Journal, indexes: Indexes, graphs: Graphs) -> None:
        self._journal = journal
        self._indexes = indexes
        self._graphs = graphs

    def find(self, scope: Scope, facts: Sequence[Fact], forms: Sequence[Indexed]) -> list[Candidate]:
        """The candidates of all facts together, those of the facts interleaved, the nearest first.

        There are forty at most; with more facts than that, as many as facts.
        """
        view = self._indexes.view(scope.partition)
        mask = self._facts(scope, view)
        if not mask.any():
            return []
        word_lists = [_by_words(view, mask, fact.text) for fact in facts]
        name_lists = self._by_name(scope, facts)
        lists = []
        for fact, form, words, names in zip(facts, forms, word_lists, name_lists, strict=True):
            if fact.metadata.get(RETRACT):
                near = [*_by_vector(view, mask, form, most=FAR, least=-1.0), *view.ids[mask][::-1][:FAR].tolist()]
            else:
                near = _by_vector(view, mask, form)
            near_rows = list(dict.fromkeys(_interleaved((self._by_relation(scope, fact), near, words))))
            # Whom a fact names, others do too: alone that makes nothing near.
            lists.append(list(dict.fromkeys(_interleaved((near_rows, names)))) if near_rows else [])
        near = list(dict.fromkeys(_interleaved(lists)))[: max(MOST_CANDIDATES, len(facts))]
        with self._journal.read() as reader:
            rows = reader.memories_by_row(near)
        return [_candidate(rows[item]) for item in near if item in rows and _is_of(rows[item], scope)]

    def known_turns(self, scope: Scope, turns: Sequence[Turn]) -> list[Turn]:
        """What is known and near to turns by words, names and time, as turns of the role `memory`, the oldest first."""
        # Before the first vector is stored, nothing is known; a slab would be made without room for them.
        if not turns or (self._indexes.embedder is not None and not self._indexes.dims):
            return []
        view = self._indexes.view(scope.partition)
        mask = self._facts(scope, view)
        if not mask.any():
            return []
        said = [turn.text for turn in turns if not turn.quarantined]
        lists = [
            *(_by_words(view, mask, text) for text in said),
            *self._by_name(scope, [Fact(text, ()) for text in said]),
        ]
        # "The guest list grew" names no wedding: what was told last fills up what is near.
        latest = view.ids[np.flatnonzero(mask)[: -2 * NEAREST : -1]].tolist()
        near = list(dict.fromkeys((*_interleaved(lists), *latest)))[: 2 * NEAREST]
        with self._journal.read() as reader:
            rows = reader.memories_by_row(near)
        best = [rows[item] for item in near if item in rows and _is_of(rows[item], scope)][:NEAREST]
        return [
            Turn(row.text, role="memory", time=from_micros(row.last_seen or row.created_at))
            for row in sorted(best, key=lambda row: row.last_seen or row.created_at)
        ]

    def _facts(self, scope: Scope, view: View) -> NDArray[np.bool_]:
        """The live facts of exactly a scope that may be changed."""
        state = view.columns["state"]
        mask: NDArray[np.bool_] = view.live & (view.columns["kind"] == 0) & (state != HIDDEN) & (state != QUARANTINED)
        for name in IDS:
            mask &= view.columns[name] == self._indexes.codes.find(getattr(scope, name))
        return mask

    def _by_name(self, scope: Scope, facts: Sequence[Fact]) -> list[list[int]]:
        """For each fact the rows of facts about whom it names, under any of their names."""
        with self._journal.read() as reader:
            if not reader.has_triples():
                return [[] for _ in facts]
        graph = self._graphs.graph(scope)
        lists: list[list[int]] = []
        for fact in facts:
            names = [*graph.entities_in(fact.text), *graph.entities_named([fact.name] if fact.name else [])]
            weights = graph.memories_near(dict.fromkeys(names), most=2 * NEAREST) if names else {}
            lists.append(sorted(weights, key=lambda item: -weights[item])[:NEAREST])
        return lists

    def _by_relation(self, scope: Scope, fact: Fact) -> list[int]:
        """The rows of facts that relate the same two entities, or the same one in the same way."""
        if not fact.triples:
            return []
        graph = self._graphs.graph(scope)
        return list(_interleaved([graph.stating(triple, most=2 * NEAREST) for triple in fact.triples]))


def _by_vector(
    view: View, mask: NDArray[np.bool_], form: Indexed, *, most: int = NEAREST, least: float = LEAST_COSINE
) -> list[int]:
    if form.vector_bytes is None or view.kernel is None:
        return []
    hits = view.search(np.frombuffer(form.vector_bytes, "<f2").astype(np.float32), most, mask=mask)
    near: list[int] = hits.ids[closeness(hits.scores, view.kernel.metric) >= least].tolist()
    return near


def _by_words(view: View, mask: NDArray[np.bool_], text: str) -> list[int]:
    """The rows that have one of a text's rarest telling words, and share most of all of them."""
    words = query_terms(text)
    terms = np.unique(view.words.numbers(term_ids(words)))
    terms = terms[terms >= 0]
    postings = view.words.postings(terms)
    # Of facts alone: the turn that tells it has all of its words, the rarest of which would be its own.
    counts = postings.frequencies(mask)
    rare = np.argsort(counts, kind="stable")
    rare = rare[(counts[rare] > 0) & (counts[rare] <= COMMON)][:_MOST_WORDS]
    if not len(rare):
        return []
    slots = postings.texts_with(rare)
    slots = slots[mask[slots]]
    shared = np.count_nonzero(view.words.texts(slots).counts(terms), axis=0)
    best = np.lexsort((-slots, -shared))[:NEAREST]
    return [int(view.ids[slots[k]]) for k in best if shared[k] >= min(2, len(words))]


def _interleaved(lists: Sequence[list[int]]) -> Iterator[int]:
    for place in range(max(map(len, lists), default=0)):
        yield from (rows[place] for rows in lists if place < len(rows))


def _is_of(row: Row, scope: Scope) -> bool:
    return row.closed is None and all(getattr(row, name) == getattr(scope, name) for name in IDS)


def _candidate(row: Row) -> Candidate:
    seen = row.last_seen if row.last_seen is not None else row.created_at
    valid = None if row.valid_at is None else from_micros(row.valid_at, row.zone)
    return Candidate(row.key, row.text, from_micros(seen, row.offset), valid, row.name)
