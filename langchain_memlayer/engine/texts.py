"""The searchable forms of texts: what is embedded and indexed of a turn, a fact or a memory."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.engine.commit import Indexed
from langchain_memlayer.engine.index_sync import Indexes, encode_vectors
from langchain_memlayer.errors import EmbeddingError, MemLayerError
from langchain_memlayer.index.keywords import packed, tokenize
from langchain_memlayer.recall import PROBES, knowledge_of, memory_text, trust_in
from langchain_memlayer.steps import Steps, request
from langchain_memlayer.types import Fact, Kind, Turn, from_micros

_LOGGER = logging.getLogger(__name__)

_TRUSTED = 0.5


def turn_text(turn: Turn) -> str:
    """What is embedded and indexed of a turn."""
    return memory_text(turn.text, name=turn.name, time=turn.time)


def fact_text(fact: Fact, turns: Sequence[Turn], text: str | None = None) -> str:
    """What is embedded and indexed of a fact, or of the `text` that it gave a memory."""
    turn = turns[fact.turns[0]] if fact.turns else None
    return memory_text(fact.text if text is None else text, name=None, time=turn.time if turn else None)


def with_words(form: Indexed, text: str, words: Sequence[str]) -> Indexed:
    """The searchable form of a fact's text with further words that it is found by; they move no vector."""
    return replace(form, terms=packed(tokenize(" \n ".join((text, *words))))) if words else form


def stored_text(text: str, *, kind: Kind, name: str | None, time: int | None) -> str:
    """What is embedded and indexed of a stored memory; `time` in microseconds since 1970 UTC."""
    said = None if time is None else from_micros(time)
    return memory_text(text, name=name if kind == "turn" else None, time=said)


def unembedded(texts: Sequence[str]) -> dict[str, Indexed]:
    """The searchable forms of texts without vectors."""
    return {text: Indexed(packed(tokenize(text)), None) for text in texts}


def form_of(forms: Mapping[str, Indexed], text: str) -> Indexed:
    """The searchable form of a text; one that is not among those that were made has no vectors."""
    return forms.get(text) or unembedded([text])[text]


def embedded(
    call: Callable[[], NDArray[np.float32]], acall: Callable[[], Awaitable[NDArray[np.float32]]]
) -> Steps[NDArray[np.float32]]:
    """What the embedder gives, anybody's code.

    Raises:
        EmbeddingError: it failed.
    """
    try:
        return (yield from request(call, acall))
    except MemLayerError:
        raise
    except Exception as error:
        raise EmbeddingError(
            f"The embedder failed ({type(error).__name__}); repeat the call when it answers."
        ) from error


def searchable(indexes: Indexes, texts: Sequence[str]) -> Steps[dict[str, Indexed]]:
    """The searchable forms of texts by text, with one embedding call for those that are distinct.

    Raises:
        EmbeddingError: the embedder failed.
    """
    distinct = list(dict.fromkeys(texts))
    embedder = indexes.embedder
    if embedder is None or not distinct:
        return unembedded(distinct)
    # A new embedder shows once, beside the first texts, which scripts it knows.
    inputs = [*distinct, *(PROBES if indexes.unmeasured else ())]
    vectors = yield from embedded(lambda: embedder.embed(inputs), lambda: embedder.aembed(inputs))
    if len(inputs) > len(distinct):
        indexes.measured = knowledge_of(vectors[len(distinct) :], indexes.metric)
        if embedder.automatic and trust_in(" ".join(distinct), indexes.measured) < _TRUSTED:
            _LOGGER.warning(
                "The embedder that embeddings='auto' took, %s, does not know the script of the first texts: words "
                "alone find them. embeddings='multilingual' knows a hundred languages and needs no download: "
                "pip install 'langchain-memlayer[multilingual]'.",
                embedder.name,
            )
    # All in one go: one by one this takes a tenth of what adding does.
    block = encode_vectors(vectors[: len(distinct)], indexes.metric)
    size = len(block) // len(distinct)
    forms = unembedded(distinct).items()
    return {text: Indexed(form.terms, block[k * size : (k + 1) * size]) for k, (text, form) in enumerate(forms)}
