"""The two halves of `add` as calls of their own: extraction, and reconciliation with the commit.

What lies between them is plain data, so that a graph can keep it in its state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from langchain_memlayer.engine.commit import Outcome
from langchain_memlayer.engine.read import AGENT, Engine, Prepared
from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.result_types import ExtractResult
from langchain_memlayer.steps import Steps
from langchain_memlayer.types import Fact, Rejection, Row, Scope, Triple, Turn

_FACT: dict[str, Any] = {"text": str, "quote": (str, type(None)), "sources": list, "triples": list}


def extracted(engine: Engine, turns: Sequence[Turn], scope: Scope) -> Steps[ExtractResult]:
    """Keep turns, and find the facts in those that were not read before: `facts` and `rejected`, as plain data."""
    prepared = yield from engine.extract(turns, scope)
    if prepared.note is not None and not prepared.facts:
        # Nothing is left that could end the reading.
        yield from engine.reconcile(replace(prepared, rejected=()), batch=None)
    return {
        "facts": [_plain(fact, prepared) for fact in prepared.facts],
        "rejected": [{"memory": one.text, "reason": one.reason, "quote": one.quote} for one in prepared.rejected],
    }


def reconciled(
    engine: Engine,
    turns: Sequence[Turn],
    facts: Sequence[Any],
    rejected: Sequence[Mapping[str, Any]],
    scope: Scope,
    *,
    batch: str | None,
    by_agent: bool,
) -> Steps[Outcome]:
    """Decide on facts that `extracted` gave, and commit them with their turns."""
    refused = tuple(Rejection(one["memory"], one["reason"], one.get("quote")) for one in rejected)
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
    return tuple(_fact(fact, f"facts[{k}]", places) for k, fact in enumerate(facts))


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
    }


def _fact(plain: Any, where: str, places: Mapping[Any, int]) -> Fact:
    if not isinstance(plain, Mapping) or any(not isinstance(plain.get(key), kind) for key, kind in _FACT.items()):
        raise InvalidInput(f"{where} is no fact: pass on what extract() gives under 'facts'.")
    sources = [places[source] for source in plain["sources"] if source in places]
    if not sources:
        raise InvalidInput(
            f"{where} cites messages that are not among these: pass the messages that it was found in, before any is "
            "removed."
        )
    times = {name: datetime.fromisoformat(plain[name]) for name in ("valid_at", "valid_until") if plain.get(name)}
    return Fact(
        text=plain["text"],
        turns=tuple(sources),
        quote=plain["quote"],
        triples=tuple(Triple(*triple) for triple in plain["triples"]),
        name=plain.get("name"),
        metadata=plain.get("metadata") or {},
        corrects=tuple(places[source] for source in plain.get("corrects") or () if source in places),
        **times,
    )
