"""Recall over conversations in Chinese, Japanese, Korean and in several languages at once."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from journal_dump import open_memory, texts
from numpy.typing import NDArray

from langchain_memlayer import Memory
from langchain_memlayer.index import keywords
from langchain_memlayer.index.function_words import language_of
from langchain_memlayer.recall import PROBES, Weights, fluency_in, knowledge_of, others, trust_in
from langchain_memlayer.recall.calibration import PROBED
from langchain_memlayer.testing import DeterministicEmbeddings

FOLDER = Path(__file__).parent / "fixtures" / "languages"
SATURDAY = datetime(2024, 8, 10, 12, tzinfo=UTC)
_SAID = re.compile(r"(?:(?P<mark>[a-f]\d+) )?(?P<name>[^：]+)：(?P<text>.+)")


@dataclass
class Talk:
    """Turns by session, what each question of a group is, and which turns answer it."""

    sessions: dict[str, list[dict[str, str]]] = field(default_factory=lambda: defaultdict(list))
    questions: dict[str, list[tuple[str, set[str]]]] = field(default_factory=lambda: defaultdict(list))


def read_talk() -> Talk:
    talk, day = Talk(), ""
    for number, line in enumerate((FOLDER / "chinese.txt").read_text("utf-8").splitlines()):
        if line.startswith("@ "):
            day = line[2:]
        elif line.startswith("? "):
            asked, marks = line[2:].split(" = ")
            group, question = asked.split(" ", 1)
            talk.questions[group].append((question, set(marks.split())))
        elif found := _SAID.fullmatch(line):
            turn = {"role": "user", "name": found["name"], "content": found["text"], "timestamp": day}
            talk.sessions[day].append({**turn, "id": found["mark"] or f"line{number}"})
    return talk


TALK = read_talk()


@pytest.fixture(scope="module", params=["keywords", "fake vectors", "bundled vectors"])
def memory(request: pytest.FixtureRequest) -> Iterator[Memory]:
    if request.param == "bundled vectors":
        pytest.importorskip("wordllama")
    embeddings = {"keywords": None, "fake vectors": DeterministicEmbeddings(), "bundled vectors": "wordllama"}
    with open_memory(":memory:", embeddings=embeddings[request.param]) as opened:
        for day, turns in TALK.sessions.items():
            opened.add(turns, user_id="u", session_id=day)
        yield opened


def recall(memory: Memory, group: str, *, weights: Weights | None = None) -> float:
    """The mean share of the evidence that is among the best, in %."""
    usual = memory._searcher.weights
    memory._searcher.weights = weights or usual
    try:
        shares = []
        for question, evidence in TALK.questions[group]:
            hits = memory.search(question, user_id="u", limit=DEPTHS.get(group, 10), reference_time=SATURDAY)["results"]
            found = {source for hit in hits for source in hit["sources"]}
            shares.append(len(found & evidence) / len(evidence))
    finally:
        memory._searcher.weights = usual
    return 100 * fmean(shares)


# Of how many hits, if not ten: among ten, bundled vectors find what is asked of a speaker without that signal too.
DEPTHS = {"speaker": 8}

# What these have of the evidence, in %, less about two points for other weights.
FLOORS: dict[str, dict[str, float]] = {
    "keywords": {"words": 98, "speaker": 79, "date": 98, "question": 94, "noisy": 98},
    "fake vectors": {"words": 94, "speaker": 64, "date": 84, "question": 94, "noisy": 98},
    "bundled vectors": {"words": 98, "speaker": 79, "date": 98, "question": 94, "noisy": 98},
}


@pytest.fixture
def floors(request: pytest.FixtureRequest, memory: Memory) -> dict[str, float]:
    return FLOORS[request.node.callspec.params["memory"]]


def test_the_conversations_are_whole() -> None:
    marks = {turn["id"] for turns in TALK.sessions.values() for turn in turns}
    asked = [question for questions in TALK.questions.values() for question, _ in questions]
    assert len(TALK.sessions) == 18
    assert sum(map(len, TALK.sessions.values())) == 195
    assert len(asked) == len(set(asked)) == 51
    assert all(evidence <= marks for questions in TALK.questions.values() for _, evidence in questions)


@pytest.mark.parametrize("group", list(TALK.questions))
def test_chinese_recall_keeps_its_floor(memory: Memory, floors: dict[str, float], group: str) -> None:
    assert recall(memory, group) >= floors[group]


@pytest.mark.parametrize(("signal", "group"), [("speaker", "speaker"), ("date", "date"), ("question", "speaker")])
def test_a_floor_falls_without_its_signal(memory: Memory, floors: dict[str, float], signal: str, group: str) -> None:
    assert recall(memory, group, weights=replace(Weights(window=0.0), **{signal: 0.0})) < floors[group]


def test_the_floors_fall_without_bigrams(monkeypatch: pytest.MonkeyPatch) -> None:
    others()  # what is kept for all searches is made of bigrams, for the tests that follow
    monkeypatch.setattr(keywords, "_UNSPACED", re.compile("(?!)"))
    monkeypatch.setattr(keywords, "_CLASSES", type(keywords._CLASSES)())
    with open_memory(":memory:", embeddings=None) as opened:
        for day, turns in TALK.sessions.items():
            opened.add(turns, user_id="u", session_id=day)
        for group in ("words", "question", "noisy"):
            assert recall(opened, group) < FLOORS["keywords"][group]


def test_what_is_said_in_other_words_is_found_by_single_characters() -> None:
    said = [
        "买跑鞋要四十二码半的。", "家里养了两只猫。", "门锁的密码换过了。", "我的手机屏幕裂了。", "你喜欢什么颜色？",
    ]  # fmt: skip
    with open_memory(":memory:", embeddings=None) as opened:
        opened.add(said, user_id="u")
        assert texts(opened.search("我的鞋码是多大？", user_id="u", limit=1)) == said[:1]
        assert texts(opened.search("小明的猫叫什么？", user_id="u", limit=1)) == said[1:2]


MIXED: list[dict[str, Any]] = json.loads((FOLDER / "mixed.json").read_text("utf-8"))
ASKED = [(part["language"], *asked) for part in MIXED for asked in part["asked"]]


@pytest.fixture(scope="module", params=["keywords", "fake vectors"])
def several(request: pytest.FixtureRequest) -> Iterator[Memory]:
    """All of them in one scope."""
    embeddings = None if request.param == "keywords" else DeterministicEmbeddings()
    with open_memory(":memory:", embeddings=embeddings) as opened:
        for part in MIXED:
            for day, name, text in part["turns"]:
                turn = {"role": "user", "name": name, "content": text, "timestamp": day}
                opened.add(turn, user_id="u", session_id=f"{part['language']} {day}")
        yield opened


@pytest.mark.parametrize(("language", "question", "answers"), ASKED, ids=[f"{a[0]} {k}" for k, a in enumerate(ASKED)])
def test_an_answer_is_among_the_three_best(several: Memory, language: str, question: str, answers: list[str]) -> None:
    reference = datetime(2024, 6, 12, tzinfo=UTC)
    found = texts(several.search(question, user_id="u", limit=3, reference_time=reference))
    assert set(answers) & set(found), (language, found)


def knowing(*scripts: str) -> NDArray[np.float64]:
    """Vectors of the probes by an embedder to which all texts but those of some scripts are the same."""
    pairs = len(PROBES) // len(PROBED) // 2
    vectors = np.zeros((len(PROBED), 2, pairs, pairs + 1))
    vectors[..., -1] = 1
    for script in scripts:
        vectors[PROBED.index(script), :, range(pairs), range(pairs)] = 2
    return vectors.reshape(len(PROBES), -1)


@pytest.mark.parametrize(
    ("words", "language"),
    [
        ("wie lange ist der hund noch da", "de"), ("qué come la perra por la mañana", "es"), ("où est le chat", "fr"),
        ("quando parte il treno per la montagna", "it"), ("onde está o gato da minha irmã", "pt"),
        ("hoe heet de kat van mijn zus", "nl"), ("when did the cat die", "en"), ("die hard on dvd", "en"),
        ("kuno hund", "en"), ("", "en"),
    ],
)  # fmt: skip
def test_two_function_words_tell_the_language_of_a_query(words: str, language: str) -> None:
    assert language_of(words.split()) == language


def test_what_an_embedder_knows_of_a_language_is_measured_or_guessed_from_the_others() -> None:
    known = knowledge_of(knowing("latin", "de"))
    assert [fluency_in(language, known) for language in ("en", "de", "es", "it")] == [1, 1, 0, pytest.approx(1 / 3)]
    assert fluency_in("es", {"latin": 0.9}) == 1, "no language was measured"


GERMAN = ["Kuno ist der Hund von Ava und bleibt bis Juni", "Wie der Plan ist, ist noch nicht da", "Ava mag Tee"]


@pytest.mark.parametrize(
    ("told", "question", "first"),
    [(GERMAN, "Wie lange ist der Hund noch da?", GERMAN[0]),
     (["Ava lives in Paris", "The plan is made"], "Donde está la casa de Ava?", "Ava lives in Paris")],
)  # fmt: skip
def test_function_words_of_a_scopes_own_language_find_nothing(told: list[str], question: str, first: str) -> None:
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add([{"role": "user", "content": text} for text in told], user_id="u")
        assert texts(memory.search(question, user_id="u"))[0] == first


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def test_words_decide_in_a_script_that_the_embedder_does_not_know(metric: Any) -> None:
    known = knowledge_of(knowing("latin", "han"), metric)
    texts = ("Where?", "¿Dónde?", "在哪里？", "12 + 7", "どこですか", "어디예요?", "Где?", "που;")
    assert {text: trust_in(text, known) for text in texts} == {
        "Where?": 1, "¿Dónde?": 1, "在哪里？": 1, "12 + 7": 1, "どこですか": 0, "어디예요?": 0, "Где?": 0, "που;": 0,
    }  # fmt: skip
    assert 0 < trust_in("Where is どこ?", known) < 1
    assert trust_in("何処ですか", known) == 0, "kanji among kana are Japanese"
    assert trust_in("Где?", {}) == 1, "nothing was measured"
