"""The methods of `Memory` that only read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from langchain_memlayer.dialect import scope_and_filter
from langchain_memlayer.engine.graphs import Graphs
from langchain_memlayer.engine.read import Engine
from langchain_memlayer.engine.reading import Found, Ranked, Searcher, SearchQuery
from langchain_memlayer.engine.records import record_of, result_of
from langchain_memlayer.engine.results import evidence, history_row, reasons
from langchain_memlayer.engine.scopes import missing, scope_of
from langchain_memlayer.engine.shaping import Budget, around, behind, merged, token_counter
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.facts.rewriting import Rewriter, Rewritten
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.graph.names import relation_name
from langchain_memlayer.journal import Journal
from langchain_memlayer.loops import lazy
from langchain_memlayer.memory.checks import (
    KINDS,
    checked_count,
    checked_kinds,
    checked_memory_id,
    checked_moment,
    checked_query,
    checked_threshold,
    checked_time,
)
from langchain_memlayer.messages import to_turns
from langchain_memlayer.steps import Request, Steps, awaited, request, stepped
from langchain_memlayer.tracing import documents, traced
from langchain_memlayer.types import (
    HistoryRow,
    Hit,
    Kind,
    ListResult,
    MemoryResult,
    Scope,
    SearchResult,
    Turn,
    WhyResult,
    to_micros,
)

if TYPE_CHECKING:
    from langchain_core.documents import BaseDocumentCompressor
    from langchain_core.language_models import BaseChatModel

    from langchain_memlayer.graph.networkx import MemoryGraph

MOST_RELATIONS = 20
_RERANKED = 3
_PAGE = 500


@dataclass(frozen=True, slots=True)
class _Options:
    """How the hits of a search are shaped."""

    explain: bool = False
    max_tokens: int | None = None
    expand: int = 0
    rerank: BaseDocumentCompressor | None = None


class Reading:
    """Mixed into `Memory`."""

    model: BaseChatModel | None
    _engine: Engine
    _graphs: Graphs
    _journal: Journal
    _searcher: Searcher
    _reranker: BaseDocumentCompressor | None

    @stepped
    def search(
        self,
        query: str,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        limit: int = 10,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        kinds: Sequence[Kind] | None = None,
        explain: bool = False,
        include_quarantined: bool = False,
        reference_time: datetime | None = None,
        as_of: datetime | str | None = None,
        known_at: datetime | str | None = None,
        max_tokens: int | None = None,
        expand: int = 0,
        rerank: BaseDocumentCompressor | bool | None = None,
        messages: Any = None,
        rewrite: bool = False,
        show_expired: bool = False,
    ) -> Steps[SearchResult]:
        """The memories that answer a query, best first.

        Args:
            query: A question or some words.
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            limit: How many at most.
            top_k: The same by mem0's name.
            filters: Conditions on metadata and on `kind`, `role`, `name`, `session_id`, `created_at`, ..., with `$eq`,
                `$in`, ... or in mem0's way (`{"level": {"gte": 3}}`, AND, OR, NOT). The ids may stand here too.
            threshold: Leaves out hits whose `relevance` is lower.
            kinds: `fact`, `turn` or both (the default).
            explain: Show what each signal added to a score, under `explanation`.
            include_quarantined: Let tool output come back too.
            reference_time: The present, for dates such as "last week"; the clock's by default.
            as_of: What held at a time, ended versions too.
            known_at: What had been recorded by a time.
            max_tokens: The most tokens that the texts of all hits together may have, and of what is around them. Whole
                memories only: one that does not fit is left out, and later ones may fit.
            expand: How many turns before and after to show with each hit, under `around`.
            rerank: A LangChain document compressor that orders the best hits anew; `score` stays what it was. True
                takes that of the configuration, if it names one.
            messages: The conversation that the query belongs to, for `rewrite`.
            rewrite: Let the model turn the query into ones that stand for themselves ("what about her?"), one for each
                part of it: one call. When the model fails, the query is searched for as it is.
            show_expired: Let memories come back that have ceased to count (`expiration_date`, or a last day that was
                said).

        Returns:
            `{"results": [...], "relations": [...]}`. A result is a fact with the turns that it comes from under
            `evidence`, or a turn that says what no fact says. Each has `id`, `memory`, `score` (0..1, orders the hits),
            `relevance` (0..1, absolute), `kind`, `sources`, `metadata`, the ids of its scope and its dates.

        Raises:
            ScopeRequired: no id was given.
            InvalidFilter: `filters` is no filter.
            ConfigurationError: `rewrite` without a model.
        """
        options = _options(explain, max_tokens, expand, self._reranker if rerank is True else rerank)
        scope, conditions = scope_and_filter(filters, Scope(user_id, agent_id, run_id))
        asked = SearchQuery(
            text=checked_query(query),
            scope=scope.required("search()"),
            limit=checked_count(limit if top_k is None else top_k, "limit", 1),
            filter=parse_filter(conditions),
            threshold=checked_threshold(threshold),
            kinds=checked_kinds(kinds) or frozenset(KINDS),
            # Its zone stays: "yesterday" is the caller's.
            reference_time=checked_time(reference_time, "reference_time"),
            as_of=checked_moment(as_of, "as_of"),
            known_at=checked_moment(known_at, "known_at"),
            include_quarantined=include_quarantined,
            show_expired=show_expired,
            now=to_micros(self._journal.clock()),
        )
        conversation = None
        if rewrite:
            # A memory without a model is told before anything is searched.
            _ = self._rewriter
            conversation = [] if messages is None else to_turns(messages)
        return (
            yield from traced(
                "Memory.search",
                self._search(asked, options, conversation),
                run_type="retriever",
                scope=asked.scope,
                inputs=lambda: {"query": asked.text, "limit": asked.limit},
                outputs=lambda found: documents(found["results"]),
            )
        )

    asearch = awaited(search)

    @lazy
    def _rewriter(self) -> Rewriter:
        if self.model is None:
            raise ConfigurationError("rewrite=True needs a chat model: open the memory with model=.")
        return Rewriter(self.model)

    def _search(self, asked: SearchQuery, options: _Options, conversation: list[Turn] | None) -> Steps[SearchResult]:
        rewritten = Rewritten((asked.text,))
        if conversation is not None:
            now = asked.reference_time or self._journal.clock()
            rewritten = yield Request(
                lambda: self._rewriter.rewrite(asked.text, conversation, now),
                lambda: self._rewriter.arewrite(asked.text, conversation, now),
            )
        wanted = asked.limit * (_RERANKED if options.rerank else 1)
        found: list[Found] = []
        for query in rewritten.queries:
            answer = yield from self._searcher.search(
                replace(asked, text=query, limit=wanted, entities=rewritten.entities)
            )
            found.append(answer)
        best = merged([answer.hits for answer in found], wanted)
        if options.rerank is not None:
            best = yield from _reranked(options.rerank, asked, best)
        budget = Budget(options.max_tokens, token_counter(self.model))
        best = [hit for hit in best[: asked.limit] if budget.takes(hit.row)]
        return {
            "results": self._shown(best, asked, options, budget),
            "relations": self._searcher.relations(
                replace(asked, text="\n".join(rewritten.queries)),
                list(dict.fromkeys(entity for answer in found for entity in answer.entities)),
                most=MOST_RELATIONS,
            ),
        }

    def _shown(self, hits: Sequence[Ranked], asked: SearchQuery, options: _Options, budget: Budget) -> list[Hit]:
        shown: list[Hit] = []
        with self._journal.read() as reader:
            told = behind(reader, [hit.row for hit in hits], asked)
            for hit in hits:
                own = {
                    "score": hit.score,
                    "relevance": hit.relevance,
                    "evidence": [evidence(turn, quote) for turn, quote in told.get(hit.row.id, ())],
                }
                one = cast("Hit", {**result_of(hit.row), **own})
                if options.explain:
                    one["explanation"] = dict(hit.shares)
                if options.expand:
                    near = around(reader, hit.row, options.expand, asked)
                    one["around"] = [result_of(row) for row in near if budget.takes(row)]
                shown.append(one)
        return shown

    def get(self, memory_id: str) -> MemoryResult | None:
        """One memory by its id, or None when there is none (or no longer)."""
        with self._journal.read() as reader:
            row = reader.memory(checked_memory_id(memory_id))
        return None if row is None else result_of(row)

    def _owner(self, memory_id: str) -> Scope | None:
        """Whose a memory is, ended or not; None when there was never one."""
        with self._journal.read() as reader:
            versions = reader.versions_of(checked_memory_id(memory_id))
        return scope_of(versions[0]) if versions else None

    aget = awaited(get)

    def get_all(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 100,
        top_k: int | None = None,
        offset: int = 0,
        kinds: Sequence[Kind] | None = None,
        everything: bool = False,
        show_expired: bool = False,
    ) -> ListResult:
        """The memories of a scope, oldest first.

        Args:
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            filters: As in `search`.
            limit: How many at most.
            top_k: The same by mem0's name.
            offset: How many to skip.
            kinds: `fact`, `turn` or both. By default facts, what was stored as given, and turns that were not read.
            everything: Without any id, list the memories of all.
            show_expired: As in `search`.

        Raises:
            ScopeRequired: no id was given, and not `everything`: a missing id must not list those of all.
            InvalidFilter: `filters` is no filter.
        """
        scope, conditions = scope_and_filter(filters, Scope(user_id, agent_id, run_id))
        condition = parse_filter(conditions)
        limit, offset = checked_count(limit if top_k is None else top_k, "limit", 1), checked_count(offset, "offset", 0)
        if not everything:
            scope.required("get_all() (or everything=True)")
        # No list is longer than what a machine can count.
        offset, end = (min(number, sys.maxsize) for number in (offset, offset + limit))
        with self._journal.read(snapshot=True) as reader:
            order = reader.oldest_first(scope, kinds=checked_kinds(kinds))
            now = None if show_expired else to_micros(self._journal.clock())
            if now is not None and (gone := reader.expired_memories(scope, now)):
                order = (row for row in order if row not in gone)
            if condition is None:
                rows = reader.memories_in_order(list(islice(order, offset, end)))
            else:
                chunks = iter(lambda: list(islice(order, _PAGE)), [])
                every = (row for chunk in chunks for row in reader.memories_in_order(chunk))
                matching = (row for row in every if condition.matches(record_of(row)))
                rows = list(islice(matching, offset, end))
            triples = reader.first_triples(scope, most=min(limit, sys.maxsize), at=now) if scope else []
        return {
            "results": [result_of(row) for row in rows],
            "relations": [
                {"source": row[3], "relationship": relation_name(row[4]), "destination": row[5]} for row in triples
            ],
        }

    aget_all = awaited(get_all)

    def history(self, memory_id: str) -> list[HistoryRow]:
        """What happened to a memory, in order; also of one that was deleted. Values go by mem0's names too."""
        with self._journal.read() as reader:
            events = reader.history(checked_memory_id(memory_id))
            versions = reader.versions_of(memory_id)
        first = versions[0] if versions else None  # of what was forgotten only the events stay, without texts
        return [history_row(event, events[0], first) for event in events if event.op in ("add", "update", "delete")]

    ahistory = awaited(history)

    def why(self, memory_id: str) -> WhyResult:
        """Which turns a memory comes from, with which quotes, and what was decided about it by which prompt.

        Raises:
            MemoryNotFound: no live memory has this id.
        """
        with self._journal.read() as reader:
            row = reader.memory(checked_memory_id(memory_id))
            if row is None:
                raise missing(memory_id)
            quotes: dict[int, str | None] = {row.id: row.text}
            if row.kind == "fact":
                # What was changed by hand still comes from the turns of the version before.
                cited = (dict(reader.quotes_of(version.id)) for version in reversed(reader.versions_of(row.key)))
                quotes = next(filter(None, cited), {})
            turns = reader.memories_by_row(list(quotes))
            events = reader.history(row.key)
        return reasons(row, [(turns[item], quote) for item, quote in quotes.items() if item in turns], events)

    awhy = awaited(why)

    def graph(
        self, *, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> MemoryGraph:
        """The relations of a scope as a NetworkX graph: a copy, which draws itself in a notebook.

        Raises:
            ScopeRequired: no id was given.
        """
        return self._graphs.copy(Scope(user_id, agent_id, run_id).required("graph()"))

    agraph = awaited(graph)


def _options(explain: bool, max_tokens: Any, expand: Any, rerank: Any) -> _Options:
    if rerank is False:
        rerank = None
    if rerank is not None and not callable(getattr(rerank, "compress_documents", None)):
        raise InvalidInput("rerank must be a LangChain document compressor (with compress_documents), or None.")
    most = None if max_tokens is None else checked_count(max_tokens, "max_tokens", 1)
    return _Options(explain, most, checked_count(expand, "expand", 0), rerank)


def _reranked(compressor: BaseDocumentCompressor, asked: SearchQuery, hits: Sequence[Ranked]) -> Steps[list[Ranked]]:
    """The hits that a document compressor keeps, in its order; a run of its own."""
    return traced(
        "reranking",
        _compressed(compressor, asked.text, hits),
        scope=asked.scope,
        inputs=lambda: {"query": asked.text, "ids": [hit.row.key for hit in hits]},
        outputs=lambda kept: {"ids": [hit.row.key for hit in kept]},
    )


def _compressed(compressor: BaseDocumentCompressor, query: str, hits: Sequence[Ranked]) -> Steps[list[Ranked]]:
    from langchain_core.documents import Document

    given = [Document(hit.row.text, id=hit.row.key, metadata={"place": place}) for place, hit in enumerate(hits)]
    kept = yield from request(
        lambda: compressor.compress_documents(given, query), lambda: compressor.acompress_documents(given, query)
    )
    places = [document.metadata.get("place") for document in kept]
    return [hits[place] for place in dict.fromkeys(places) if isinstance(place, int) and 0 <= place < len(hits)]
