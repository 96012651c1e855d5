"""The two halves of `add` as calls of their own: extraction, and reconciliation with the commit.

What lies between them is plain data, so that a graph can keep it in its state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from langchain_memlayer.arguments import checked_time
from langchain_memlayer.engine.commit import Outcome
from langchain_memlayer.engine.read import AGENT, Engine, Prepared
from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.messages import checked_label, checked_metadata, checked_text
from langchain_memlayer.result_types import ExtractResult
from langchain_memlayer.steps import Steps
from langchain_memlayer.types import Fact, Rejection, Row, Scope, Triple, Turn

_FACT: dict[str, Any] = {"text": str, "quote": (str, type(None)), "sources": list, "triples": list}


def extract_facts(engine: Engine, turns: Sequence[Turn], scope: Scope) -> Steps[ExtractResult]:
    """Keep turns, and find the facts in those that were not read before: `facts` and `rejected`, as plain data."""
    prepared = yield from engine.extract(turns, scope)
    if prepared.note is not None and not prepared.facts:
        # Nothing is left that could end the reading.
        yield from engine.reconcile(replace(prepared, rejected=()), batch=None)
    return {
        "facts": [_plain(fact, prepared) for fact in prepared.facts],
        "rejected": [{"memory": one.text, "reason": one.reason, "quote": one.quote} for one in prepared.rejected],
    }


def reconcile_facts(
    engine: Engine,
    turns: Sequence[Turn],
    facts: Sequence[Any],
    rejected: Sequence[Mapping[str, Any]],
    scope: Scope,
    *,
    batch: str | None,
    by_agent: bool,
) -> Steps[Outcome]:
    """Decide on facts that `extract_facts` gave, and commit them with their turns."""
    refused = tuple(_rejection(one, f"rejected[{k}]") for k, one in enumerate(_listed(rejected, "rejected")))
    if by_agent:
        said = _facts(facts, turns, [None] * len(turns))
        prepared = Prepared(scope, tuple(turns), said, refused, actor=AGENT)
    else:
        kept = yield from engine.keep(turns, scope, again=False)
        prepared = engine.stated(kept, _facts(facts, turns, kept.rows), refused)
    return (yield from engine.reconcile(prepared, batch=batch))


def _source(turns: Sequence[Turn], rows: Sequence[Row | None], place: int) -> str | int:
    """What a turn is cited by: its message's id, else the memory that it is, else its place."""
    row = rows[place]
    return turns[place].id or (place if row is None else row.key)


def _facts(facts: Sequence[Any], turns: Sequence[Turn], rows: Sequence[Row | None]) -> tuple[Fact, ...]:
    places = {_source(turns, rows, place): place for place in range(len(turns))}
    return tuple(_fact(fact, f"facts[{k}]", places) for k, fact in enumerate(_listed(facts, "facts")))


def _plain(fact: Fact, prepared: Prepared) -> dict[str, Any]:
    return {
        "text": fact.text,
        "quote": fact.quote,
        "sources": [_source(prepared.turns, prepared.rows, place) for place in fact.turns],
        "triples": [[triple.source, triple.relation, triple.destination] for triple in fact.triples],
        "valid_at": None if fact.valid_at is None else fact.valid_at.isoformat(),
        "valid_until": None if fact.valid_until is None else fact.valid_until.isoformat(),
        "name": fact.name,
        "metadata": dict(fact.metadata),
        "corrects": [_source(prepared.turns, prepared.rows, place) for place in fact.corrects],
        "words": list(fact.words),
    }


def _listed(given: Any, where: str) -> Sequence[Any]:
    if isinstance(given, (list, tuple)):
        return given
    raise InvalidInput(f"{where} must be a list, got {type(given).__name__}: pass on what extract() gives under it.")


def _rejection(plain: Any, where: str) -> Rejection:
    texts = [plain.get(name) if isinstance(plain, Mapping) else None for name in ("memory", "reason", "quote")]
    if not all(isinstance(text, str) for text in texts[:2]) or not isinstance(texts[2], (str, type(None))):
        raise InvalidInput(f"{where} is no refusal: pass on what extract() gives under 'rejected'.")
    memory, reason, quote = (None if text is None else checked_text(text, where) for text in texts)
    return Rejection(memory or "", reason or "", quote)


def _fact(plain: Any, where: str, places: Mapping[Any, int]) -> Fact:
    if not isinstance(plain, Mapping) or any(not isinstance(plain.get(key), kind) for key, kind in _FACT.items()):
        raise InvalidInput(f"{where} is no fact: pass on what extract() gives under 'facts'.")
    if not plain["text"].strip():
        raise InvalidInput(f"{where} says nothing: its text is blank.")
    sources = _places(plain["sources"], places)
    if not sources:
        raise InvalidInput(
            f"{where} cites messages that are not among these: pass the messages that it was found in, before any is "
            "removed."
        )
    quote = plain["quote"]
    return Fact(
        text=checked_text(plain["text"], f"{where}['text']"),
        turns=sources,
        quote=None if quote is None else checked_text(quote, f"{where}['quote']"),
        triples=tuple(_triple(triple, f"{where}['triples'][{k}]") for k, triple in enumerate(plain["triples"])),
        valid_at=checked_time(plain.get("valid_at"), f"{where}['valid_at']"),
        name=checked_label(plain.get("name") or None, f"{where}['name']"),
        metadata=checked_metadata(plain.get("metadata"), f"{where}['metadata']"),
        valid_until=checked_time(plain.get("valid_until"), f"{where}['valid_until']"),
        corrects=_places(_listed(plain.get("corrects") or (), f"{where}['corrects']"), places),
        words=_words(plain.get("words") or (), f"{where}['words']"),
    )


def _places(sources: Sequence[Any], places: Mapping[Any, int]) -> tuple[int, ...]:
    return tuple(places[one] for one in sources if isinstance(one, (str, int)) and one in places)


def _words(plain: Any, where: str) -> tuple[str, ...]:
    return tuple(checked_text(word, f"{where}[{k}]") for k, word in enumerate(_listed(plain, where)))


def _triple(plain: Any, where: str) -> Triple:
    parts = plain if isinstance(plain, (list, tuple)) else ()
    if len(parts) != len(fields(Triple)) or not all(isinstance(part, str) and part.strip() for part in parts):
        raise InvalidInput(f"{where} is no triple: pass a list of source, relation and destination as texts.")
    return Triple(*(checked_text(part, where) for part in parts))
