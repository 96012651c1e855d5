"""What new facts may change: the nearest live facts of exactly their scope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.engine.commit import Indexed
from langchain_memlayer.engine.graphs import Graphs
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.scopes import scope_ids
from langchain_memlayer.index.keywords import query_terms, term_ids
from langchain_memlayer.journal import Journal
from langchain_memlayer.recall import closeness
from langchain_memlayer.types import HIDDEN, QUARANTINED, Candidate, Fact, Row, Scope, from_micros

if TYPE_CHECKING:
    from langchain_memlayer.index.view import View

NEAREST = 5
NEAR = 0.4
MOST = 40
COMMON = 500
"""A word that more memories have finds none: it says little, and reading them all would take long."""

_WORDS = 6


class Finder:
    """Finds candidates by vector, by keyword, and by entity and relation.

    Args:
        journal: The truth.
        indexes: The slabs of its memories.
        graphs: Their graphs.
    """

    def __init__(self, journal: Journal, indexes: Indexes, graphs: Graphs) -> None:
        self._journal = journal
        self._indexes = indexes
        self._graphs = graphs

    def find(self, scope: Scope, facts: Sequence[Fact], forms: Sequence[Indexed]) -> list[Candidate]:
        """The candidates of all facts together, those of each fact by turns, the nearest first.

        There are forty at most; with more facts than that, as many as facts.

        Args:
            scope: Whose facts.
            facts: The new ones.
            forms: Their searchable forms.
        """
        view = self._indexes.view(scope.partition)
        state = view.columns["state"]
        mask = view.live & (view.columns["kind"] == 0) & (state != HIDDEN) & (state != QUARANTINED)
        for name, value in zip(("user_id", "agent_id", "run_id"), scope_ids(scope), strict=True):
            mask &= view.columns[name] == self._indexes.codes.find(value)
        if not mask.any():
            return []
        worded = [_by_words(view, mask, fact) for fact in facts]
        lists = [
            list(dict.fromkeys(_by_turns((self._by_relation(scope, fact), _by_vector(view, mask, form), words))))
            for fact, form, words in zip(facts, forms, worded, strict=True)
        ]
        near = list(dict.fromkeys(_by_turns(lists)))[: max(MOST, len(facts))]
        with self._journal.read() as reader:
            rows = reader.memories_by_row(near)
        return [_candidate(rows[item]) for item in near if item in rows and _is_of(rows[item], scope)]

    def _by_relation(self, scope: Scope, fact: Fact) -> list[int]:
        """The rows of facts that relate the same two entities, or the same one in the same way."""
        if not fact.triples:
            return []
        graph = self._graphs.graph(scope)
        return list(_by_turns([graph.stating(triple, most=2 * NEAREST) for triple in fact.triples]))


def _by_vector(view: View, mask: NDArray[np.bool_], form: Indexed) -> list[int]:
    if form.codes is None or view.kernel is None:
        return []
    hits = view.search(np.frombuffer(form.codes, "<f2").astype(np.float32), NEAREST, mask=mask)
    near: list[int] = hits.ids[closeness(hits.scores, view.kernel.metric) >= NEAR].tolist()
    return near


def _by_words(view: View, mask: NDArray[np.bool_], fact: Fact) -> list[int]:
    """The rows that have one of a fact's rarest telling words, and share most of all of them."""
    asked = query_terms(fact.text)
    terms = np.unique(view.words.numbers(term_ids(asked)))
    terms = terms[terms >= 0]
    # Of all that the slab has: words of other scopes only leave more rows to be looked at.
    counts = view.words.frequencies(terms, view.live)
    rare = np.argsort(counts, kind="stable")
    rare = rare[(counts[rare] > 0) & (counts[rare] <= COMMON)][:_WORDS]
    if not len(rare):
        return []
    slots = np.unique(np.concatenate([slots for slots, _ in view.words.postings(terms[rare])]))
    slots = slots[mask[slots]]
    shared = np.count_nonzero(view.words.texts(slots).counts(terms), axis=0)
    best = np.lexsort((-slots, -shared))[:NEAREST]
    return [int(view.ids[slots[k]]) for k in best if shared[k] >= min(2, len(asked))]


def _by_turns(lists: Sequence[list[int]]) -> Iterator[int]:
    for place in range(max(map(len, lists), default=0)):
        yield from (rows[place] for rows in lists if place < len(rows))


def _is_of(row: Row, scope: Scope) -> bool:
    ids: Iterable[str | None] = (row.user_id, row.agent_id, row.run_id)
    return row.closed is None and tuple(ids) == scope_ids(scope)


def _candidate(row: Row) -> Candidate:
    seen = row.last_seen if row.last_seen is not None else row.created_at
    valid = None if row.valid_at is None else from_micros(row.valid_at)
    return Candidate(row.key, row.text, from_micros(seen), valid)
