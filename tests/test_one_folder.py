"""Ten users in one folder find what they would find in folders of their own: the same hits with the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import pytest
from journal_dump import open_memory
from memory_kit import Extracting

from langchain_memlayer import Memory
from langchain_memlayer.engine import scoring_pool
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.types import Extraction, Fact, Triple, Turn

NOW = datetime(2024, 9, 16, 9, tzinfo=UTC)
PLACES = ["the harbour", "the museum", "Lisbon", "the allotment", "the climbing hall", "Vera's house", "the archive"]
THINGS = ["violin", "kayak", "sourdough", "telescope", "bicycle", "greenhouse", "chess club", "lighthouse", "old maps"]
DOINGS = ["repaired", "sold", "painted", "borrowed", "dreamt of", "argued about", "photographed", "won a prize for"]
ASKING = ["How was that?", "And what did {name} say?", "Will you go back to {place}?", "Really?"]
NOTES = [
    "周三下午三点去{place}见{name}，记得带{thing}", "{name}的{thing}坏了，要送到{place}修",
    "在{place}买了新的{thing}，花了两百块", "{name}下个月要搬到{place}", "今天没有去{place}，因为{name}感冒了",
    "妹妹{name}最喜欢{thing}",
]  # fmt: skip
PLACES_ZH = ["图书馆", "苏州", "游泳馆", "公司", "外婆家", "火车站"]
THINGS_ZH = ["小提琴", "自行车", "望远镜", "茶具", "雨伞", "相机"]
NAMES = ["Ann", "Bob", "Clara", "Deniz", "Emil"]
NAMES_ZH = ["李娜", "王伟", "陈静", "赵磊"]
ASKED = [
    "Who repaired the violin?", "What did Ann do at the harbour?", "When was Bob in Lisbon?",
    "What happened in May 2024?", "What did Clara tell last week?", "xyzzy plugh",
    f"Which of them told of {', '.join(THINGS)} at {', '.join(PLACES)}, and who {', '.join(DOINGS)} them?",
    "小提琴在哪里修？", "李娜下个月搬到哪里？", "上周王伟去了苏州吗？", "Ann 的自行车",
]  # fmt: skip

Session = tuple[list[dict[str, Any]], str | None]


class EachStatement(Extracting):
    """Everything that is no question is a fact about who says it, with a relation where an English text has one."""

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        facts = []
        for position, turn in enumerate(turns):
            if turn.text.endswith(("?", "？")):
                continue
            words = turn.text.rstrip(".").split()
            triples = (Triple(words[1], words[2], words[-1]),) if len(words) > 5 else ()
            facts.append(Fact(f"{turn.name}: {turn.text}", (position,), triples=triples, name=turn.name))
        return Extraction(tuple(facts))


def dialogue(user: int) -> Iterator[Session]:
    """Four dated sessions of two people; ids, session names and many texts are those of other users too."""
    rng = Random(user)
    pair = rng.sample(NAMES, 2)
    for session in range(4):
        day = datetime(2024, 4, 20, 18, tzinfo=UTC) + timedelta(days=37 * session + user)
        messages = []
        for turn in range(8):
            name, other = (pair[turn % 2], pair[1 - turn % 2])
            said = f"Then {other} {rng.choice(DOINGS)} the {rng.choice(THINGS)} at {rng.choice(PLACES)}."
            text = rng.choice(ASKING).format(name=other, place=rng.choice(PLACES)) if turn % 4 == 3 else said
            when = day + timedelta(minutes=turn)
            messages.append({"role": "user", "content": text, "id": f"D{session}:{turn}", "name": name, "time": when})
        yield messages, f"session-{session}"


def notes(user: int) -> Iterator[Session]:
    """Chinese notes of one person, in no session."""
    rng = Random(user)
    for start in range(0, 24, 6):
        messages = []
        for number in range(start, start + 6):
            text = rng.choice(NOTES).format(
                place=rng.choice(PLACES_ZH), thing=rng.choice(THINGS_ZH), name=rng.choice(NAMES_ZH)
            )
            when = datetime(2024, 8, 20, 7, tzinfo=UTC) + timedelta(days=number)
            messages.append({"role": "user", "content": text, "id": f"N{number}", "timestamp": when})
        yield messages, None


CONVERSATIONS = {f"user-{n}": list((dialogue if n < 6 else notes)(n)) for n in range(10)}


def hits(memory: Memory, user: str) -> list[list[dict[str, Any]]]:
    """All that is told of each hit but its id, which is random outside of tests."""
    found = []
    for question in ASKED:
        results = memory.search(question, user_id=user, limit=1000, explain=True, reference_time=NOW)["results"]
        for hit in results:
            hit["evidence"] = [{**turn, "memory_id": ""} for turn in hit["evidence"]]
        found.append([{key: value for key, value in hit.items() if key != "id"} for hit in results])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("facts", "embeddings", "whole_scope"),
    [
        pytest.param(True, "wordllama", 10_000, id="facts, bundled embedder"),
        pytest.param(False, DeterministicEmbeddings(), 10_000, id="turns, hashed words"),
        pytest.param(True, None, 10_000, id="facts, no embedder"),
        pytest.param(True, DeterministicEmbeddings(), 20, id="facts, hashed words, large scopes"),
        pytest.param(False, None, 20, id="turns, no embedder, large scopes"),
    ],
)
def test_ten_users_in_one_folder_find_the_same_as_in_ten_folders(
    tmp_path: Path, facts: bool, embeddings: Any, whole_scope: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring_pool, "WHOLE_SCOPE", whole_scope)
    settings = {"embeddings": embeddings, "extractor": EachStatement() if facts else None}
    own = {}
    for user, sessions in CONVERSATIONS.items():
        with open_memory(tmp_path / user, **settings) as memory:
            for messages, session in sessions:
                memory.add(messages, user_id=user, session_id=session)
            own[user] = hits(memory, user)
    with open_memory(tmp_path / "one", **settings) as memory:
        for turn in zip_longest(*CONVERSATIONS.values()):
            for user, (messages, session) in zip(CONVERSATIONS, turn, strict=True):
                memory.add(messages, user_id=user, session_id=session)
        for user in CONVERSATIONS:
            assert hits(memory, user) == own[user]
    with open_memory(tmp_path / "one", **settings) as memory:
        for user in reversed(CONVERSATIONS):
            assert hits(memory, user) == own[user]
    answered = [hit for found in own.values() for results in found for hit in results]
    assert {hit["kind"] for hit in answered} == ({"fact", "turn"} if facts else {"turn"})
    shares: set[str] = set().union(*({name for name, share in h["explanation"].items() if share} for h in answered))
    # Beside facts, those turns are hits of their own that say nothing: nothing that stands around lifts them.
    lifted = {"bridge"} if facts else {"bridge", "neighbour", "session"}
    assert shares >= {"keyword", "speaker", "date", "question"} | lifted
    assert shares >= ({"graph", "link", "fact"} if facts else set())
    assert shares >= ({"dense"} if embeddings else set())


def test_how_sessions_are_numbered_changes_nothing(tmp_path: Path) -> None:
    # Few sessions keep to their subject, so it counts which turns tell how far they belong together.
    random, words = Random(3), [f"word{number}" for number in range(60)]
    sessions = {
        f"s{number}": [
            " ".join([f"topic{number if number % 6 == 1 else random.randrange(99)}", *random.choices(words, k=3)])
            for _ in range(9)
        ]
        for number in range(24)
    }
    answers = []
    for before in ([], reversed(sessions)):
        with open_memory(tmp_path / str(len(answers)), embeddings=None) as memory:
            for session in before:
                memory.add("Of somebody else", user_id="other", session_id=session)
                memory.search("anything", user_id="other")  # numbers the name
            for session, texts in sessions.items():
                memory.add([{"role": "user", "content": text} for text in texts], user_id="u", session_id=session)
            results = memory.search("topic7 and word7", user_id="u", limit=30)["results"]
            answers.append([(hit["memory"], hit["score"]) for hit in results])
    assert answers[0] == answers[1]
