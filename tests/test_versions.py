"""Values that change, and what a question names exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random
from statistics import fmean

import pytest
from changing_values import changing_values
from journal_dump import open_memory, texts
from memory_kit import Extracting

from langchain_memlayer import Memory
from langchain_memlayer.recall import identifiers
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.types import Fact

FLOORS = {
    "en": {"now": 0.75, "before": 0.9, "first": 0.8, "as of": 0.8, "count": 0.9},
    "zh": {"now": 0.75, "before": 0.75, "first": 0.9, "as of": 0.7, "count": 0.9},
}
"""How often the version that is asked for is the first hit; of those before, among three; of counts, within ten."""


@pytest.mark.slow
def test_of_values_that_change_the_one_that_is_asked_for_is_found() -> None:
    right: dict[str, dict[str, list[float]]] = {language: defaultdict(list) for language in FLOORS}
    for scope in changing_values():
        with open_memory(":memory:", embeddings="wordllama") as memory:
            said = [{"role": "user", "content": text, "timestamp": time} for text, time in scope.turns]
            memory.add(said, user_id="u", session_id="s")
            for kind, (question, answers) in scope.questions.items():
                limit = {"count": 10, "before": 3}.get(kind, 1)
                now = scope.turns[-1][1]
                hits = texts(memory.search(question, user_id="u", limit=limit, reference_time=now))
                right[scope.name[:2]][kind].append(len(set(answers) & set(hits)) / len(set(answers)))
    measured = {language: {kind: fmean(rates) for kind, rates in kinds.items()} for language, kinds in right.items()}
    floors = [(language, kind, floor) for language in FLOORS for kind, floor in FLOORS[language].items()]
    assert all(measured[language][kind] >= floor for language, kind, floor in floors), measured


def test_a_version_is_chosen_by_time_and_not_by_the_order_of_being_told() -> None:
    said = [("I live in Oslo", "2024-01-05"), ("I live in Turin", "2024-03-02"), ("I live in Cork", "2024-06-01")]
    asked = [("Where do I live now?", 2), ("Where did I live before that?", 1), ("What was my first place to live?", 0),
             ("Where did I live in March?", 1)]  # fmt: skip
    with open_memory(":memory:", embeddings=None) as memory:
        for text, time in (said[2], said[0], said[1]):
            memory.add([text, "The weather is fine."], user_id="u", timestamp=time)
        now = datetime.fromisoformat(said[2][1])
        for question, answer in asked:
            assert texts(memory.search(question, user_id="u", limit=1, reference_time=now)) == [said[answer][0]]
        asked_for = "How often have I changed where I live?"
        hits = memory.search(asked_for, user_id="u", limit=6, reference_time=now, explain=True)["results"]
        part = {hit["memory"]: hit["explanation"]["version"] for hit in hits}
        assert 0 == part.pop("The weather is fine.") < min(part.values()) == max(part.values())


def test_a_version_held_from_when_it_began_whenever_it_was_told() -> None:
    said = [
        Fact(f"Ann pays {amount} of rent", (0,), valid_at=datetime(2024, month, day, tzinfo=UTC))
        for amount, month, day in ((950, 6, 1), (800, 1, 5), (900, 3, 2))
    ]
    rent = Extracting(lambda turns: (one for one in said if one.text == turns[0].text))
    with open_memory(":memory:", embeddings=None, extractor=rent, reconcile="off", keep_turns=False) as memory:
        for day, one in enumerate(said, 1):
            memory.add(one.text, user_id="u", timestamp=f"2024-07-{day:02}")
        asked = ("What was the rent in April 2024?", "What was the rent in February 2024?")
        assert [texts(memory.search(one, user_id="u", limit=1)) for one in asked] == [
            ["Ann pays 900 of rent"], ["Ann pays 800 of rent"],
        ]  # fmt: skip


def test_what_was_told_at_one_time_are_no_versions() -> None:
    told = [{"role": "user", "content": text} for text in ("The pill is for dad's blood.", "I take no pill myself.")]
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add(told, user_id="u", session_id="s", timestamp="2024-01-13")
        memory.add("He had 148 of blood on the 20th.", user_id="u", session_id="t", timestamp="2024-02-10")
        hits = memory.search("What was the pill on 20 January 2024?", user_id="u", explain=True)["results"]
    assert all("version" not in hit["explanation"] or not hit["explanation"]["version"] for hit in hits)


def test_what_is_said_of_a_sister_is_no_version_of_ones_own_but_of_hers_if_she_is_asked_about() -> None:
    said = [("My dentist is Dr. Petrov", "2024-01-05"), ("I switched to a new dentist, Dr. Sousa", "2024-03-02"),
            ("My sister has a new dentist now, Dr. Amari", "2024-06-01")]  # fmt: skip
    with open_memory(":memory:", embeddings=None) as memory:
        for text, time in said:
            memory.add([text, "The weather is fine."], user_id="u", timestamp=time)
        now = datetime.fromisoformat("2024-07-01")
        mine, hers = (
            texts(memory.search(question, user_id="u", limit=1, reference_time=now))
            for question in ("Which dentist do I have now?", "Which dentist does my sister have now?")
        )
    assert (mine, hers) == ([said[1][0]], [said[2][0]])


@pytest.mark.parametrize("question", ["What is Ann's job now?", "Which employer does Ann have now?"])
def test_what_somebody_says_of_other_things_is_no_version_of_what_is_asked_of_them(question: str) -> None:
    said = [("Ann", "I work at the bakery"), ("Ben", "I drive a bus"), ("Ann", "I teach at a school these days"),
            ("Ben", "It rains"), ("Ann", "The password is sunny")]  # fmt: skip
    with open_memory(":memory:", embeddings="wordllama") as memory:
        for day, (name, text) in enumerate(said, 1):
            told = {"role": "user", "name": name, "content": text}
            memory.add(told, user_id="u", timestamp=f"2025-06-{day:02d}", session_id=str(day))
        hits = texts(memory.search(question, user_id="u", reference_time=datetime.fromisoformat("2025-06-30")))
    assert hits[0] == "I teach at a school these days"


@pytest.fixture(scope="module")
def archive() -> Iterator[tuple[Memory, dict[str, str]]]:
    """A thousand notes, of which a hundred have an identifier, each much like another one."""
    rng = Random(7)
    forms = ("INV-{0}", "v{1}.{2}.{3}", "/srv/data/{0}.csv", "ann.{0}@example.com", "unit_{0}_b", "{0}", "SKU{0}X")
    found: dict[str, str] = {}
    for number in range(100):
        name = forms[number % len(forms)].format(30_000 + 17 * number, number, number % 7, number % 5)
        found[name] = f"The {rng.choice(('shipment', 'ticket', 'report'))} {name} was filed by {rng.choice('ABCDE')}."
    noise = [f"The {rng.choice(('shipment', 'ticket', 'report'))} of day {n} was filed, then {n * 7 % 90} more came."
             for n in range(900)]  # fmt: skip
    with open_memory(":memory:", embeddings=DeterministicEmbeddings()) as memory:
        memory.add([*noise, *found.values()], user_id="u", infer=False)
        yield memory, found


def test_an_identifier_is_found_first_whatever_the_vectors_say(archive: tuple[Memory, dict[str, str]]) -> None:
    memory, found = archive
    missed = [
        name for name, text in found.items()
        if texts(memory.search(f"Who filed the report or ticket {name}?", user_id="u", limit=1)) != [text]
    ]  # fmt: skip
    assert missed == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("What is ERR-4431-X about?", ["ERR-4431-X"]), ("Where is /etc/nginx/nginx.conf?", ["/etc/nginx/nginx.conf"]),
        ("Who is ann.lee@example.com, extension 4711?", ["ann.lee@example.com", "4711"]),
        ("Is v2.3.1 out, or A380?", ["v2.3.1", "A380"]), ("Who wrote “The Long Road” in 2019?", ["The Long Road"]),
        ("订单SZ-0091到了吗？《活着》呢？", ["活着", "SZ-0091"]), ("What happened on 2024-05-08 at 10:30?", []),
        ("Did we meet on the 3rd at 5pm, or in 12 days?", []), ("A well-known self-care routine.", []),
        ("Did J.K. say and/or?", []), ("Is it in a_1/b or python3?", ["a_1/b", "python3"]),
    ],
)  # fmt: skip
def test_what_a_question_names_exactly(text: str, named: list[str]) -> None:
    assert identifiers(text) == named


def test_what_many_texts_name_is_a_word_and_moves_less_than_what_one_has() -> None:
    rooms = [f"In B12 there is a {thing}." for thing in ("chair", "table", "lamp", "shelf")]
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add([*rooms, "In C7 there is a sofa.", "The printer stands in the hall."], user_id="u", infer=False)
        exact = [
            memory.search(f"Is the printer in {name}?", user_id="u", limit=6, explain=True)["results"]
            for name in ("B12", "C7")
        ]
    assert exact[0][0]["memory"] == "The printer stands in the hall."
    assert exact[1][0]["memory"] == "In C7 there is a sofa."
