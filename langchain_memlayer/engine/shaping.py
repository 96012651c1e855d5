"""What is done with hits before callers get them: a token budget, and what was said around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_memlayer.journal.read import Reader
from langchain_memlayer.prompts import estimate_tokens
from langchain_memlayer.types import Row

TokenCounter = Callable[[str], int]


def token_counter(model: Any) -> TokenCounter:
    """The model's own tokenizer when it has one that needs no download, else an estimate."""
    own = getattr(model, "custom_get_token_ids", None)
    return (lambda text: len(own(text))) if callable(own) else estimate_tokens


def packed(texts: Sequence[str], most: int, count: TokenCounter) -> list[int]:
    """The places of the texts that fit under `most` tokens together, best first; whole texts only."""
    left, chosen = most, []
    for place, text in enumerate(texts):
        cost = count(text)
        if cost <= left:
            left -= cost
            chosen.append(place)
    return chosen


def around(reader: Reader, row: Row, distance: int) -> list[Row]:
    """The turns of the same session up to `distance` before and after a turn, or a fact's first turn."""
    turn = row.id if row.kind == "turn" else next(iter(row.turns), None)
    if turn is None or row.session_id is None:
        return []
    before = reader.session_turns(row.path, row.session_id, below=turn, most=distance)
    after = reader.session_turns(row.path, row.session_id, above=turn, most=distance)
    return [other for other in (*reversed(before), *after) if other.state == row.state or not other.state]
