import copy
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from evaluation_kit import locomo, longmemeval, write

from langchain_memlayer import InvalidInput, Turn
from langchain_memlayer.evaluation import (
    Conversation,
    Dataset,
    Observation,
    Question,
    load_locomo,
    load_longmemeval,
    load_scopes,
)


def test_locomo_gives_turns_questions_and_observations_with_what_they_cite(tmp_path: Path):
    data = load_locomo(write(tmp_path, locomo()))
    [conversation] = data.conversations
    assert (data.name, conversation.id, data.unresolved) == ("LoCoMo", "beekeepers", ())
    first, _, third, fourth, _ = conversation.turns
    assert (first.id, first.name, first.role, first.session_id) == ("D1:1", "Ilse", "user", "session-1")
    assert first.time == datetime(2024, 3, 3, 9, 5, tzinfo=UTC)
    assert fourth.time == datetime(2024, 4, 12, 12, 30, tzinfo=UTC)
    assert third.text == "Behind the chapel. [shares a photo: a stone chapel]"
    sizes = [(session, len(turns)) for session, turns in conversation.by_session()]
    assert sizes == [("session-1", 3), ("session-2", 2)]
    called, stung, both = data.questions
    assert (called.id, called.category, called.answer) == ("beekeepers-q0", "single-hop", "Juno and Bertha")
    assert (called.evidence, called.sessions) == (("D1:1",), ("session-1",))
    assert (stung.category, stung.text) == ("temporal", "When was Tom stung?")
    assert (both.evidence, both.sessions) == (("D1:3", "D2:2"), ("session-1", "session-2"))
    assert conversation.observations == (
        Observation("Ilse has two beehives, Juno and Bertha.", ("D1:1",), "Ilse"),
        Observation("Ilse's hives stand behind the chapel.", ("D1:3",), "Ilse"),
        Observation("Tom was stung on the ear in April 2024.", ("D2:1",), "Tom"),
    )
    without = write(tmp_path, locomo(lambda data: data[0].pop("observation")))
    assert load_locomo(without).conversations[0].observations == ()


def test_adversarial_questions_come_only_when_asked_for_and_cannot_be_answered(tmp_path: Path):
    path = write(tmp_path, locomo())
    assert len(load_locomo(path).questions) == 3
    last = load_locomo(path, adversarial=True).questions[-1]
    assert (last.category, last.answerable, last.evidence) == ("adversarial", False, ())
    assert "does not say" in last.answer


@pytest.mark.parametrize(
    ("given", "evidence", "unresolved"),
    [
        (["D:1:1"], ("D1:1",), 0), (["D01:03"], ("D1:3",), 0), (["D1:1", "D1:1"], ("D1:1",), 0),
        (["D1:1, D2:2"], ("D1:1", "D2:2"), 0), ("D1:1", ("D1:1",), 0), (["D9:9", "D1:1"], ("D1:1",), 1),
        (["D"], (), 1), ([], (), 0), (None, (), 0),
    ],
)  # fmt: skip
def test_evidence_is_read_as_it_is_meant_and_what_names_no_turn_is_reported(
    tmp_path: Path, given: Any, evidence: tuple[str, ...], unresolved: int
):
    data = load_locomo(write(tmp_path, locomo(lambda data: data[0]["qa"][0].update(evidence=given))))
    assert data.questions[0].evidence == evidence
    assert len(data.unresolved) == unresolved
    assert all(entry.startswith("beekeepers, question 0: ") for entry in data.unresolved)


def test_an_answer_that_is_a_number_and_a_byte_order_mark_are_read(tmp_path: Path):
    path = write(tmp_path, locomo(lambda data: data[0]["qa"][0].update(answer=2)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_locomo(path).questions[0].answer == "2"


def test_the_hour_of_a_locomo_session(tmp_path: Path):
    for clock, hour in (("12:01 am", 0), ("12:01 pm", 12), ("1:01 PM", 13), ("11:01 am", 11), ("1:01 p.m.", 13)):
        change = _set(0, "conversation", "session_1_date_time", value=f"{clock} on 3 march 2024")
        [conversation] = load_locomo(write(tmp_path, locomo(change))).conversations
        assert conversation.turns[0].time == datetime(2024, 3, 3, hour, 1, tzinfo=UTC)


def _at(data: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys[:-1]:
        data = data[key]
    return data


def _set(*keys: Any, value: Any) -> Callable[[Any], None]:
    return lambda data: _at(data, keys).__setitem__(keys[-1], value)


def _drop(*keys: Any) -> Callable[[Any], None]:
    return lambda data: _at(data, keys).__delitem__(keys[-1])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (_drop(0, "sample_id"), '[0] has no "sample_id"'),
        (_drop(0, "qa"), '[0] has no "qa"'),
        (_set(0, "qa", value={}), "[0].qa must be a list"),
        (_drop(0, "qa", 1, "question"), '[0].qa[1] has no "question"'),
        (_set(0, "qa", 1, "question", value=["?"]), "[0].qa[1].question must be a text"),
        (_set(0, "qa", 1, "question", value=" "), "[0].qa[1].question must be a text that is not empty"),
        (_drop(0, "qa", 0, "answer"), '[0].qa[0] has no "answer"'),
        (_set(0, "qa", 2, "category", value=6), "[0].qa[2].category must be a number from 1 to 5"),
        (_set(0, "conversation", value=[]), "[0].conversation must be an object"),
        (_set(0, "conversation", value={"speaker_a": "Ilse"}), "[0].conversation has no session"),
        (_drop(0, "conversation", "session_2_date_time"), '[0].conversation has no "session_2_date_time"'),
        (_set(0, "conversation", "session_2_date_time", value="yesterday"), "session_2_date_time must be a time such"),
        (_set(0, "conversation", "session_2_date_time", value="1:00 pm on 31 June, 2024"), "session_2_date_time is no"),
        (_set(0, "conversation", "session_1", 1, value="hi"), "[0].conversation.session_1[1] must be an object"),
        (_drop(0, "conversation", "session_1", 1, "speaker"), '[0].conversation.session_1[1] has no "speaker"'),
        (_set(0, "conversation", "session_2", 0, "dia_id", value="D1:1"), "session_2[0].dia_id must be an id that no"),
        (
            _set(0, "observation", "session_1_observation", "Ilse", 0, value=["x"]),
            "session_1_observation.Ilse[0] must be",
        ),
        (_set(0, value=3), '[0] must be an object with "sample_id", got int'),
    ],
)
def test_a_broken_locomo_file_is_refused_with_the_place(tmp_path: Path, change: Callable[[Any], None], place: str):
    path = write(tmp_path, locomo(change), "talk.json")
    with pytest.raises(InvalidInput) as refused:
        load_locomo(path)
    assert str(refused.value).startswith("talk.json: ")
    assert place in str(refused.value)


def test_a_file_that_is_no_list_or_not_there_is_refused(tmp_path: Path):
    for load in (load_locomo, load_longmemeval):
        for text, why in (("[{", "is not JSON"), ("", "is not JSON"), ("{}", "a JSON list"), ("[]", "a JSON list")):
            with pytest.raises(InvalidInput, match=why):
                load(write(tmp_path, text))
        with pytest.raises(InvalidInput, match="no-such-file"):
            load(tmp_path / "no-such-file.json")
        with pytest.raises(InvalidInput, match="cannot be read"):
            load(tmp_path)


def test_longmemeval_gives_each_question_its_conversation_oldest_session_first(tmp_path: Path):
    data = load_longmemeval(write(tmp_path, longmemeval()))
    tea, dog = data.conversations
    assert [turn.id for turn in tea.turns] == ["tea:1", "tea:2", "later:1", "later:2"]
    assert [turn.role for turn in tea.turns] == ["user", "assistant"] * 2
    assert tea.turns[0].time == datetime(2024, 5, 2, 19, 40, tzinfo=UTC)
    [question] = tea.questions
    assert question == Question(
        id="tea-1",
        text="Which tea did I order?",
        category="single-session-user",
        answer="gunpowder green tea",
        evidence=("tea:1",),
        sessions=("tea",),
        time=datetime(2024, 6, 30, 10, tzinfo=UTC),
    )
    assert (dog.questions[0].answerable, dog.questions[0].evidence, dog.questions[0].sessions) == (False, (), ())


def test_a_session_that_stands_in_a_haystack_twice_is_told_twice(tmp_path: Path):
    change = _set(0, "haystack_session_ids", value=["tea", "tea"])
    question = load_longmemeval(write(tmp_path, longmemeval(change))).conversations[0]
    assert [turn.id for turn in question.turns] == ["tea#2:1", "tea#2:2", "tea:1", "tea:2"]
    assert question.questions[0].sessions == ("tea", "tea#2")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (_drop(0, "haystack_dates"), '[0] has no "haystack_dates"'),
        (_drop(0, "haystack_dates", 0), "[0] has 2 haystack_session_ids, 1 haystack_dates and 2 haystack_sessions"),
        (_set(0, "haystack_dates", 0, value="June"), "[0].haystack_dates[0] must be a time such as"),
        (_set(0, "haystack_dates", 0, value="2024/13/01"), "[0].haystack_dates[0] is no date"),
        (_set(0, "haystack_sessions", 1, 0, "role", value="system"), '[0].haystack_sessions[1][0].role must be "user"'),
        (_drop(0, "haystack_sessions", 1, 0, "content"), '[0].haystack_sessions[1][0] has no "content"'),
        (_drop(1, "answer_session_ids"), '[1] has no "answer_session_ids"'),
        (_drop(1, "question_type"), '[1] has no "question_type"'),
    ],
)
def test_a_broken_longmemeval_file_is_refused_with_the_place(tmp_path: Path, change: Callable[[Any], None], place: str):
    with pytest.raises(InvalidInput) as refused:
        load_longmemeval(write(tmp_path, longmemeval(change)))
    assert place in str(refused.value)


SCOPES: list[dict[str, Any]] = [
    {
        "id": "bees",
        "items": [
            ["a", "The hives stand behind the chapel.", "Ilse", 1, "2024-03-03T09:05", "user"],
            ["b", "A note of nobody's.", "", 0, None, "user"],
        ],
        "questions": [
            ["Where are the hives?", "place", ["a"], None],
            ["Since when?", "time", ["a", "b"], "2024-05-01"],
        ],
    }
]


def test_scopes_in_the_plain_form_give_turns_and_questions(tmp_path: Path):
    data = load_scopes(write(tmp_path, SCOPES, "mine.json"))
    [bees] = data.conversations
    assert (data.name, bees.id) == ("mine", "bees")
    assert bees.turns == (
        Turn("The hives stand behind the chapel.", id="a", name="Ilse", session_id="session-1",
             time=datetime(2024, 3, 3, 9, 5, tzinfo=UTC)),
        Turn("A note of nobody's.", id="b"),
    )  # fmt: skip
    first, second = bees.questions
    assert (first.text, first.category, first.evidence, first.sessions, first.time) == (
        "Where are the hives?", "place", ("a",), ("session-1",), None,
    )  # fmt: skip
    assert second.time == datetime(2024, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda scope: scope["items"][0].pop(), r"\[0\]\.items\[0\] must be a list of id text name"),
        (lambda scope: scope["items"][0].__setitem__(4, "May"), r"items\[0\]\[4\] must be an ISO time"),
        (lambda scope: scope["questions"][0].__setitem__(2, ["z"]), r"questions\[0\]\[2\] must be ids of items \(z"),
    ],
)
def test_a_broken_file_of_scopes_is_refused_with_the_place(tmp_path: Path, change: Callable[[Any], None], place: str):
    data = copy.deepcopy(SCOPES)
    change(data[0])
    with pytest.raises(InvalidInput, match=place):
        load_scopes(write(tmp_path, data))


def test_two_conversations_or_questions_with_one_id_are_refused(tmp_path: Path):
    twice = locomo()
    twice.append(twice[0])
    with pytest.raises(InvalidInput, match="Two conversations have the id 'beekeepers'"):
        load_locomo(write(tmp_path, twice))
    question = Question("q", "?", "kind", "!")
    with pytest.raises(InvalidInput, match="Two questions have the id 'q'"):
        Dataset("own", (Conversation("c", (), (question, question)),))


def test_a_sample_is_spread_evenly_and_drops_conversations_without_questions():
    conversations = tuple(
        Conversation(name, (), tuple(Question(f"{name}{n}", "?", "kind", "!") for n in range(4))) for name in "abc"
    )
    data = Dataset("own", conversations)
    assert [question.id for question in data.sampled(3).questions] == ["a0", "b0", "c0"]
    assert [question.id for question in data.sampled(5).questions] == ["a0", "a2", "b0", "b3", "c1"]
    assert [conversation.id for conversation in data.sampled(2).conversations] == ["a", "b"]
    assert data.sampled(12) is data
    with pytest.raises(InvalidInput, match="At least one question"):
        data.sampled(0)
