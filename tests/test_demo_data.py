import re

import pytest

from langchain_memlayer import demo

CHINESE = re.compile("[\u4e00-\u9fff]")
TURNS, QUESTIONS = demo.load()
BY_ID = {turn["id"]: turn for turn in TURNS}


def test_every_turn_has_the_fields_of_a_message_and_an_id_of_its_own():
    assert len(BY_ID) == len(TURNS)
    for turn in TURNS:
        assert turn.keys() == {"id", "role", "name", "content", "timestamp", "session_id"}
        assert all(value == value.strip() != "" for value in turn.values())
        assert turn["role"] == ("assistant" if turn["name"] == "Fig" else "user")


def test_the_conversation_has_the_size_and_the_languages_that_the_demo_promises():
    assert 260 <= len(TURNS) <= 330
    assert 10 <= len({turn["session_id"] for turn in TURNS}) <= 12
    chinese = [turn for turn in TURNS if CHINESE.search(turn["content"])]
    assert len(chinese) >= 50
    assert len({turn["session_id"] for turn in chinese}) >= 2
    assert sum(CHINESE.search(question.text) is not None for question in QUESTIONS) >= 3


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.expected[0])
def test_a_question_points_at_turns_that_exist_and_is_not_their_text(question: demo.Question):
    assert question.note
    assert question.expected
    assert set(question.expected) <= BY_ID.keys()
    bare = question.text.rstrip("?？").casefold()
    assert all(bare not in turn["content"].casefold() for turn in TURNS)


def test_no_question_is_asked_twice_and_turns_are_fresh_every_time():
    assert len({question.text for question in QUESTIONS}) == len(QUESTIONS) == 14
    turns, _ = demo.load()
    turns[0]["content"] = "something else"
    assert demo.load()[0][0]["content"] == TURNS[0]["content"]
