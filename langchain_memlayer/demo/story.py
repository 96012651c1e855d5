"""What `memlayer demo` shows of a memory with a chat model: a life that changes, told in three conversations.

The model is scripted: it says what a chat model would say of these words, one statement too many included, so that
nothing is paid for and everybody sees the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_memlayer.testing.models import ScriptedChatModel


@dataclass(frozen=True, slots=True)
class Told:
    """What is said, and what the scripted model makes of it.

    Attributes:
        time: When it is said.
        text: What is said.
        facts: The facts that the model finds: quote, statement, triple.
        replaces: By a statement, the one of a memory that it takes the place of.
    """

    time: str
    text: str
    facts: tuple[tuple[str, str, tuple[str, str, str]], ...]
    replaces: tuple[tuple[str, str], ...] = ()


SPEAKER = "Xiaoman"
STORY = (
    Told(
        "2025-03-08T10:14:00+00:00",
        "I live in Bristol, with my partner Idris and a one-eyed cat called Pedal.",
        (
            ("I live in Bristol", "Xiaoman lives in Bristol", ("Xiaoman", "lives in", "Bristol")),
            ("my partner Idris", "Xiaoman's partner is Idris", ("Xiaoman", "partner", "Idris")),
            ("a one-eyed cat called Pedal", "Xiaoman's one-eyed cat is Pedal", ("Xiaoman", "cat", "Pedal")),
        ),
    ),
    Told(
        "2025-06-02T19:30:00+01:00",
        "We moved to Edinburgh on Saturday! Idris works at the river authority now.",
        (
            ("We moved to Edinburgh", "Xiaoman lives in Edinburgh", ("Xiaoman", "lives in", "Edinburgh")),
            (
                "Idris works at the river authority",
                "Idris works at the river authority",
                ("Idris", "works at", "river authority"),
            ),
            ("we bought a boat", "Xiaoman owns a boat", ("Xiaoman", "owns", "boat")),
        ),
        (("Xiaoman lives in Edinburgh", "Xiaoman lives in Bristol"),),
    ),
    Told(
        "2025-11-20T08:05:00+00:00",
        "Third city in a year: we live in Glasgow, and Pedal has found the radiator.",
        (("we live in Glasgow", "Xiaoman lives in Glasgow", ("Xiaoman", "lives in", "Glasgow")),),
        (("Xiaoman lives in Glasgow", "Xiaoman lives in Edinburgh"),),
    ),
)
QUESTION = "Where does Xiaoman live?"
LIVED = (
    (None, "Xiaoman lives in Glasgow"),
    ("2025-08-01", "Xiaoman lives in Edinburgh"),
    ("2025-04-01", "Xiaoman lives in Bristol"),
)
"""Where she lives now, and where she lived at a time."""


def model() -> ScriptedChatModel:
    """The chat model of the story."""
    return ScriptedChatModel(replies=_reply)


def _reply(messages: Sequence[Any]) -> dict[str, Any]:
    asked = str(messages[-1].content)
    return {"decisions": list(_decisions(asked))} if "<memories>" in asked else {"facts": list(_facts(asked))}


def _facts(prompt: str) -> Iterator[dict[str, Any]]:
    for number, said in re.findall(r"^\[(\d+)\] .*? \(user\): (.*)$", prompt, re.MULTILINE):
        for quote, fact, triple in next((told.facts for told in STORY if told.text == said), ()):
            yield {"turn": int(number), "quote": quote, "fact": fact, "subject": triple[0], "triples": [list(triple)]}


def _decisions(prompt: str) -> Iterator[dict[str, Any]]:
    records = [json.loads(line) for line in prompt.splitlines() if line.startswith(('{"memory"', '{"fact"'))]
    known = {record["text"]: record["memory"] for record in records if "memory" in record}
    replaces = dict(pair for told in STORY for pair in told.replaces)
    for record in records:
        if "memory" in record:
            continue
        fact = record["text"]
        same, old = known.get(fact), known.get(replaces.get(fact, ""))
        action = "NONE" if same else "UPDATE" if old else "ADD"
        yield {"fact": record["fact"], "action": action, "memory": same or old or 0, "text": fact if old else ""}
