"""The conversation that `memlayer demo` remembers, and the questions that it asks of it.

A piano tuner, her partner, a friend, her mother and an assistant talk from March 2025 to January 2026, in English and
Chinese. Everybody in it is invented. What it is made of is what makes memory hard: facts that change (three cities, two
lockers, a trip that is cancelled and booked again), a belief that turns out wrong, and things said once in passing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import orjson


@dataclass(frozen=True)
class Question:
    """One question about the conversation.

    Attributes:
        text: The question, in the language of the one who asks.
        expected: Ids of the turns that answer it; recall succeeded when at least one of them came back.
        note: What makes the question worth asking.
    """

    text: str
    expected: tuple[str, ...]
    note: str


QUESTIONS = (
    Question("Where does Xiaoman live now?", ("s09-001", "s09-003"), "the third city in a year"),
    Question(
        "What is the code of her locker, now that she is in Glasgow?",
        ("s09-005", "s09-006"),
        "number 13; the note about number 12 differs by a few digits and is still there",
    ),
    Question("What was VQ7K-2M again?", ("s01-028", "s01-029", "s11-026"), "an identifier that no embedder knows"),
    Question("On what day does Idris start his new job in Edinburgh?", ("s03-001",), "a date, said once"),
    Question(
        "So what must Xiaoman not eat, if prawns are fine?",
        ("s06-001", "s06-003", "s06-009"),
        "four months after everybody had agreed that it was the prawns",
    ),
    Question(
        "Are they going to the Faroe Islands after all?",
        ("s11-023", "s11-026"),
        "booked, cancelled, and booked again for another year",
    ),
    Question(
        "How many sixpences did the tin have in it?",
        ("s01-021", "s10-015"),
        "an anecdote in passing, its number in words",
    ),
    Question(
        "Who in the building was once a cook on a boat?",
        ("s05-015",),
        "a paraphrase: the turn has a neighbour, one floor down, and a trawler",
    ),
    Question(
        "What is the policy number of the cat's insurance?", ("s09-020", "s09-021"), "a number among many numbers"
    ),
    Question("Why can't Pedal come to Bettina's wedding?", ("s07-016",), "the answer says neither Pedal nor wedding"),
    Question("Is Gerald still running the shop?", ("s10-011",), "for years he said that he was not retiring"),
    Question("妈妈的白内障手术是哪一天？", ("s04-009", "s04-011"), "a date in Chinese"),
    Question("打雷的时候汤圆躲在哪里？", ("s04-015",), "the dog's fear, said once between other news"),
    Question(
        "妈妈改签以后，几号到格拉斯哥？",
        ("s10-019", "s11-007"),
        "the flight that was changed, asked in Chinese; the old date is in the memory too",
    ),
)


def load() -> tuple[list[dict[str, str]], list[Question]]:
    """The turns, oldest first, and the questions.

    Returns:
        The messages, as `Memory.add` takes them (id, role, name, content, timestamp, session_id), and the questions.
    """
    turns: list[dict[str, str]] = orjson.loads(files(__name__).joinpath("conversation.json").read_bytes())
    return turns, list(QUESTIONS)
