"""A query as it stands in a conversation, to queries that stand for themselves: one call of a chat model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from langchain_memlayer.errors import ExtractionError
from langchain_memlayer.facts.chat import StructuredChat
from langchain_memlayer.facts.prompts import REWRITING_INSTRUCTIONS, REWRITING_SCHEMA, day, shortened
from langchain_memlayer.facts.replies import read_entries
from langchain_memlayer.facts.reply_forms import MOST_QUERIES, NAME_CHARS, QUERY_CHARS, FoundQueries
from langchain_memlayer.steps import Steps, awaited, stepped
from langchain_memlayer.types import Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

_LOGGER = logging.getLogger(__name__)

SHOWN_TURNS: Final = 8
MOST_ENTITIES: Final = 10
_TURN_TOKENS: Final = 200


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What to search for.

    Attributes:
        queries: Queries that stand for themselves; one at least.
        entities: Whom and what they are about, as the model names them; none when it does not say.
    """

    queries: tuple[str, ...]
    entities: tuple[str, ...] = ()


class Rewriter:
    """Rewrites queries with any LangChain chat model. Threads and event loops may share it."""

    def __init__(self, model: BaseChatModel) -> None:
        self._chat = StructuredChat(model, REWRITING_SCHEMA, run_name="rewriting")

    @stepped
    def rewrite(self, query: str, turns: Sequence[Turn], now: datetime) -> Steps[Rewritten]:
        """What to search for; the query itself when the model fails or its reply cannot be read."""
        try:
            return (yield from self._chat.asking(_build(query, turns, now), lambda reply: _parse(reply, query)))
        except ExtractionError as error:
            return _as_asked(query, error)

    arewrite = awaited(rewrite)


def _build(query: str, turns: Sequence[Turn], now: datetime) -> list[BaseMessage]:
    from langchain_core.messages import HumanMessage, SystemMessage

    said = [f"{turn.name or turn.role}: {shortened(turn.text, _TURN_TOKENS)}" for turn in turns[-SHOWN_TURNS:]]
    shown = "\n".join(said) or "(none)"
    return [
        SystemMessage(REWRITING_INSTRUCTIONS),
        HumanMessage(f"Today is {day(now)}.\n\nConversation:\n{shown}\n\nQuestion:\n{query}"),
    ]


def _parse(reply: str, query: str) -> Rewritten:
    # A list alone is one of queries; a model that names no entities has done its task.
    lists: dict[str, Sequence[Any]] = {}
    for name in ("queries", "entities"):
        try:
            lists[name] = read_entries(reply, name, ()).entries
        except ExtractionError as error:
            if name == "queries":
                # Asking once more would take longer than the search.
                return _as_asked(query, error)
    read = FoundQueries.model_validate(lists)
    queries = tuple(text[:QUERY_CHARS] for text in read.queries)[:MOST_QUERIES] or (query,)
    return Rewritten(queries, tuple(name for name in read.entities if len(name) <= NAME_CHARS)[:MOST_ENTITIES])


def _as_asked(query: str, error: ExtractionError) -> Rewritten:
    """The question as it was asked is a query too: what is remembered must not be lost with the model."""
    # What the provider or the model said may quote the conversation.
    _LOGGER.warning("A query is searched for as it was asked: %s.", type(error.__cause__ or error).__name__)
    return Rewritten((query,))
