"""What is done with hits before callers get them: one list of several, a token budget, what was said around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from langchain_memlayer.engine.reading import Ranked, SearchQuery, counts
from langchain_memlayer.facts.prompts import estimate_tokens
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.types import HIDDEN, QUARANTINED, Row

if TYPE_CHECKING:
    from langchain_core.language_models import BaseLanguageModel

TokenCounter = Callable[[str], int]


def merged(lists: Sequence[Sequence[Ranked]], limit: int) -> list[Ranked]:
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

    given = model.custom_get_token_ids
    if given is not None:
        return lambda text: len(given(text))
    own = any(
        getattr(type(model), name) is not getattr(BaseLanguageModel, name)
        for name in ("get_num_tokens", "get_token_ids")
    )
    return model.get_num_tokens if own and not model.lc_secrets else estimate_tokens


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


def behind(reader: Reader, rows: Sequence[Row], asked: SearchQuery) -> dict[int, list[tuple[Row, str | None]]]:
    """The turns that facts come from, with the words that support them, by the facts' row ids.

    A turn that is never recalled shows the words that support the fact and no others; one that was deleted, or has
    expired, shows none: the fact has others.
    """
    quotes = reader.quotes_of_all([row.id for row in rows if row.kind == "fact"])
    turns = reader.memories_by_row(list({turn for _, turn, _ in quotes}))
    told: dict[int, list[tuple[Row, str | None]]] = {}
    for fact, turn, quote in quotes:
        row = turns.get(turn)
        if row is None or (row.state == QUARANTINED and not asked.include_quarantined):
            continue
        if row.state != HIDDEN and not counts(row, asked):
            continue
        told.setdefault(fact, []).append((replace(row, text=quote or "") if row.state == HIDDEN else row, quote))
    return told


def around(reader: Reader, row: Row, distance: int, asked: SearchQuery) -> list[Row]:
    """The turns of the same session up to `distance` before and after a turn, or a fact's first turn.

    They are of the scope that is asked for, not later than the time that is, and have not expired.
    """
    turn = row if row.kind == "turn" else next(iter(reader.memories_by_row(row.turns[:1]).values()), None)
    if turn is None or turn.place is None or row.session_id is None:
        return []
    return reader.turns_around(
        asked.scope, turn, distance, quarantined=asked.include_quarantined, until=asked.as_of,
        lasting=None if asked.past or asked.show_expired else asked.now,
    )  # fmt: skip
