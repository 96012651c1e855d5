"""A whole search as callers get it: rewritten, searched for, reranked, cut to a token budget, and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

from langchain_memlayer.engine.records import result_of
from langchain_memlayer.engine.results import evidence
from langchain_memlayer.engine.search import Ranked, Searcher, SearchHits, SearchQuery, is_asked_for
from langchain_memlayer.errors import ConfigurationError
from langchain_memlayer.facts.prompts import estimate_tokens
from langchain_memlayer.journal import Journal
from langchain_memlayer.result_types import Hit, SearchResult
from langchain_memlayer.steps import Request, Steps, request
from langchain_memlayer.threads import lazy
from langchain_memlayer.tracing import traced
from langchain_memlayer.types import HIDDEN, QUARANTINED, SPENT, VISIBLE, Row, Turn

if TYPE_CHECKING:
    from langchain_core.documents import BaseDocumentCompressor
    from langchain_core.language_models import BaseChatModel, BaseLanguageModel

    from langchain_memlayer.facts.rewriting import Rewriter
    from langchain_memlayer.journal.reader import Reader

TokenCounter = Callable[[str], int]

_RELATIONS = 20
_RERANKED = 3
"""How many times the limit a reranker is given to choose from."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a question is put, and how its hits are shown; see `Memory.search`.

    Attributes:
        conversation: What the question is rewritten by; None leaves it as it is.
    """

    explain: bool = False
    max_tokens: int | None = None
    expand: int = 0
    rerank: BaseDocumentCompressor | None = None
    conversation: Sequence[Turn] | None = None


class Answers:
    """Whole searches of one folder: the question rewritten, searched for, reranked, cut to a budget, and shown."""

    def __init__(self, journal: Journal, searcher: Searcher, model: BaseChatModel | None) -> None:
        self._journal = journal
        self._searcher = searcher
        self._model = model

    @lazy
    def rewriter(self) -> Rewriter:
        """What rewrites questions; `ConfigurationError` without a model."""
        if self._model is None:
            raise ConfigurationError("rewrite=True needs a chat model: open the memory with model=.")
        from langchain_memlayer.facts.rewriting import Rewriter

        return Rewriter(self._model)

    def search(self, query: SearchQuery, shape: Shape) -> Steps[SearchResult]:
        """The hits of a question, and the relations around the entities that it names."""
        texts, entities, conversation = (query.text,), query.entities, shape.conversation
        if conversation is not None:
            now = query.reference_time or self._journal.clock()
            rewritten = yield Request(
                lambda: self.rewriter.rewrite(query.text, conversation, now),
                lambda: self.rewriter.arewrite(query.text, conversation, now),
            )
            texts, entities = rewritten.queries, rewritten.entities
        wanted = query.limit * (_RERANKED if shape.rerank else 1)
        answers: list[SearchHits] = []
        for text in texts:
            answer = yield from self._searcher.search(replace(query, text=text, limit=wanted, entities=entities))
            answers.append(answer)
        best = merged_hits([answer.hits for answer in answers], wanted)
        if shape.rerank is not None:
            best = yield from _reranked(shape.rerank, query, best)
        budget = Budget(shape.max_tokens, token_counter(self._model))
        best = [hit for hit in best[: query.limit] if budget.takes(hit.row)]
        return {
            "results": self._shown(best, query, shape, budget),
            "relations": self._searcher.relations(
                replace(query, text="\n".join(texts)),
                list(dict.fromkeys(entity for answer in answers for entity in answer.entities)),
                most=_RELATIONS,
            ),
        }

    def _shown(self, hits: Sequence[Ranked], query: SearchQuery, shape: Shape, budget: Budget) -> list[Hit]:
        shown: list[Hit] = []
        with self._journal.read() as reader:
            sources = sources_behind(reader, [hit.row for hit in hits], query)
            turns = [hit.row.id for hit in hits if hit.row.kind == "turn" and hit.row.read and not query.asks_for_past]
            until = reader.told_until(turns, query.now)
            for hit in hits:
                of_search = {
                    "score": hit.score,
                    "relevance": hit.relevance,
                    "evidence": [evidence(turn, quote) for turn, quote in sources.get(hit.row.id, ())],
                }
                row = hit.row
                if row.id in until and row.state == VISIBLE:
                    row = replace(row, state=SPENT, invalid_at=until[row.id])
                shown_one = cast("Hit", {**result_of(row, query.now), **of_search})
                if shape.explain:
                    shown_one["explanation"] = dict(hit.shares)
                if shape.expand:
                    near = around(reader, hit.row, shape.expand, query)
                    shown_one["around"] = [result_of(row, query.now) for row in near if budget.takes(row)]
                shown.append(shown_one)
        return shown


def _reranked(compressor: BaseDocumentCompressor, query: SearchQuery, hits: Sequence[Ranked]) -> Steps[list[Ranked]]:
    """The hits that a document compressor keeps, in its order; a run of its own."""
    return traced(
        "reranking",
        _compressed(compressor, query.text, hits),
        scope=query.scope,
        inputs=lambda: {"query": query.text, "ids": [hit.row.key for hit in hits]},
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


# -- what is done with hits before they are shown ----------------------------------------------------------------------


def merged_hits(lists: Sequence[Sequence[Ranked]], limit: int) -> list[Ranked]:
    """The hits of several queries as one list by score; the best of each query are among the `limit`.

    A question that was taken apart needs an answer to every part, whichever part has the better scores.
    """
    if len(lists) == 1:
        return list(lists[0][:limit])
    chosen: dict[int, Ranked] = {}
    for rank in zip_longest(*lists):
        for hit in sorted((hit for hit in rank if hit is not None), key=lambda hit: -hit.score):
            known = chosen.get(hit.row.id)
            if (known is None and len(chosen) < limit) or (known is not None and known.score < hit.score):
                chosen[hit.row.id] = hit
    return sorted(chosen.values(), key=lambda hit: -hit.score)


def token_counter(model: BaseLanguageModel[Any] | None) -> TokenCounter:
    """The model's own tokenizer when it is at hand, else an estimate.

    At hand is a tokenizer that was given to the model, or one that its class has itself. A hosted model's is a request
    or a download away, and LangChain's default one is a download too.
    """
    if model is None:
        return estimate_tokens
    from langchain_core.language_models import BaseLanguageModel

    custom = model.custom_get_token_ids
    if custom is not None:
        return lambda text: len(custom(text))
    has_tokenizer = any(
        getattr(type(model), name) is not getattr(BaseLanguageModel, name)
        for name in ("get_num_tokens", "get_token_ids")
    )
    return model.get_num_tokens if has_tokenizer and not model.lc_secrets else estimate_tokens


class Budget:
    """What is left of a token ceiling. Whole memories only, each of which counts once.

    Args:
        most: The ceiling, or None for none.
        count: How many tokens a text has.
    """

    def __init__(self, most: int | None, count: TokenCounter) -> None:
        self._left = most
        self._count = count
        self._taken: set[int] = set()

    def takes(self, row: Row) -> bool:
        """Whether a memory still fits; then it is taken. What is smaller and comes later may fit all the same."""
        if self._left is None or row.id in self._taken:
            return True
        cost = self._count(row.text)
        if cost > self._left:
            return False
        self._left -= cost
        self._taken.add(row.id)
        return True


def sources_behind(reader: Reader, rows: Sequence[Row], query: SearchQuery) -> dict[int, list[tuple[Row, str | None]]]:
    """The turns that facts come from, as they were said, with the words that support them, by the facts' row ids.

    A turn that is never recalled shows the words that support the fact and no others; one that was deleted, or has
    expired, shows none: the fact has others.
    """
    quotes = reader.quotes_of_all([row.id for row in rows if row.kind == "fact"])
    turns = reader.memories_by_row(list({turn for _, turn, _ in quotes}))
    sources: dict[int, list[tuple[Row, str | None]]] = {}
    said = [(turns[turn], fact, quote) for fact, turn, quote in quotes if turn in turns]
    for row, fact, quote in sorted(said, key=lambda one: one[0].place or one[0].id):
        if row.state == QUARANTINED and not query.include_quarantined:
            continue
        if row.state != HIDDEN and not is_asked_for(row, query):
            continue
        sources.setdefault(fact, []).append((replace(row, text=quote or "") if row.state == HIDDEN else row, quote))
    return sources


def around(reader: Reader, row: Row, distance: int, query: SearchQuery) -> list[Row]:
    """The turns of the same session up to `distance` before and after a turn, or a fact's first turn.

    They are of the scope that is asked for, not later than the time that is, and have not expired.
    """
    turn = row if row.kind == "turn" else next(iter(reader.memories_by_row(row.turns[:1]).values()), None)
    if turn is None or turn.place is None or row.session_id is None:
        return []
    return reader.turns_around(
        query.scope, turn, distance, quarantined=query.include_quarantined, until=query.as_of,
        lasting=None if query.asks_for_past or query.show_expired else query.now,
    )  # fmt: skip
