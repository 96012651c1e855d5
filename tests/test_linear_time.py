"""What anybody may send, or make a model write, is read in time that grows with its length, whatever it is made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hostile import repeated

from langchain_memlayer import as_context, json_values, messages
from langchain_memlayer.cli import show
from langchain_memlayer.facts import grounding, numerals, prompts, replies
from langchain_memlayer.facts.extraction import LLMExtractor
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.graph import names
from langchain_memlayer.index import keywords
from langchain_memlayer.recall import dates, subject_of, wanted_version
from langchain_memlayer.testing import ScriptedChatModel
from langchain_memlayer.types import Turn

SIZE = 8_000
LEAST = 0.02
"""Seconds of CPU: what takes less for 32,000 characters harms nobody, and cannot be measured."""


def _filtered(text: str) -> Any:
    found = parse_filter({text: {"$contains": text}, "$or": [{"a": text}, {"a.b": {"$gt": text}}]})
    return found is not None and found.matches({"a": text, text: [text]})


def _extracted(text: str) -> None:
    reply = '{"facts": [{"turn": 1, "quote": "x y zz", "fact": "x"}]}'
    extractor = LLMExtractor(ScriptedChatModel(), window_tokens=200)
    for window in extractor.windows([Turn(text)]):
        extractor.parse(window, reply, datetime(2025, 1, 1, tzinfo=UTC))


READERS: dict[str, Callable[[str], Any]] = {
    "name": names.read_name, "relation": names.relation_name,
    "mentions": lambda text: names.mentions(text[: len(text) // 3], lambda _: True), "self": names.speaks_of_self,
    "dates": lambda text: dates.periods(text, datetime(2025, 1, 1, tzinfo=UTC)), "version": wanted_version,
    "subject": lambda text: subject_of(text, datetime(2025, 1, 1, tzinfo=UTC)),
    "quote": lambda text: grounding.is_said(grounding.words(text), text[len(text) // 4 : len(text) // 2] + " x y z"),
    "short quote": lambda text: grounding.is_said(grounding.words(text), f"{text[:300]} and more"),
    "ellipses": lambda text: grounding.is_said(grounding.words(text), " ... ".join(text[:2000].split())),
    "long turn": _extracted,
    "facts of a fact": lambda text: grounding.says_all(text, f"{text} x"),
    "script": lambda text: grounding.keeps_script(text, text),
    "numbers": lambda text: numerals.unsaid_number(text, text[1:], [text[1:]]),
    "numbers of a quote": lambda text: numerals.unsaid_number("999999 hours", f"2 hours, {text}", [text]),
    "reply": lambda text: replies.read_entries(text, "facts", {"fact"}),
    "one name": lambda text: replies.read_entries('{' + '"a":[0],' * (len(text) // 8) + '"a":[0]}', "a", ()),
    "open reply": lambda text: replies.read_entries('{"facts":[{"fact":"' + text, "facts", {"fact"}),
    "thoughts": lambda text: replies.without_thoughts("<think>" * (len(text) // 7) + text),
    "prompt": lambda text: (prompts.shortened(text, 1000), prompts.fitting(text, 1000)),
    "context": lambda text: as_context([{"id": "1", "kind": "turn", "memory": text}], query=text),
    "recalled": lambda text: messages.without_recalled("<recalled_memories>" * (len(text) // 19) + text),
    "hash": messages.content_hash, "turns": messages.to_turns, "filter": _filtered, "terms": keywords.tokenize,
    "query": lambda text: (keywords.query_terms(text), keywords.query_characters(text)),
    "value": lambda text: json_values.loads(json_values.dumps(json_values.plain({text: text}))),
    "terminal": show.one_line,
}  # fmt: skip


def cost(reader: Callable[[str], Any], text: str) -> float:
    began = time.process_time()
    with suppress(ValueError, messages.InvalidInput, replies.ExtractionError):
        reader(text)
    return time.process_time() - began


@pytest.mark.parametrize("name", READERS)
def test_four_times_the_text_takes_about_four_times_the_work(name: str) -> None:
    short, long = repeated(SIZE), repeated(4 * SIZE)
    for kind in short:
        for attempt in range(4):  # a measurement may be disturbed; four times in a row it is not
            # Caches may know a text: each attempt has one of its own.
            much = cost(READERS[name], f"{attempt}{long[kind]}")
            if much < LEAST or much < 8 * cost(READERS[name], f"{attempt}{short[kind]}"):
                break
        else:
            pytest.fail(f"{kind}: {much:.3f} s, and less than an eighth for a quarter of the text")
