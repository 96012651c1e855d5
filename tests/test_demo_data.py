import re
from datetime import datetime, timedelta
from importlib.resources import files
from itertools import pairwise
from zoneinfo import ZoneInfo

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


def test_ids_count_up_within_their_session_and_sessions_do_not_interleave():
    sessions = list(dict.fromkeys(turn["session_id"] for turn in TURNS))
    expected = [
        f"{session}-{number:03d}"
        for session in sessions
        for number in range(1, 1 + sum(turn["session_id"] == session for turn in TURNS))
    ]
    assert [turn["id"] for turn in TURNS] == expected
    assert sessions == sorted(sessions)


def test_time_only_moves_forward_in_british_local_time_and_a_session_fits_in_one_day():
    times = [datetime.fromisoformat(turn["timestamp"]) for turn in TURNS]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert {time.utcoffset() for time in times} == {timedelta(0), timedelta(hours=1)}
    for turn, time in zip(TURNS, times, strict=True):
        assert time.utcoffset() == time.astimezone(ZoneInfo("Europe/London")).utcoffset(), turn["id"]
    days = {(turn["session_id"], time.date()) for turn, time in zip(TURNS, times, strict=True)}
    assert len(days) == len({session for session, _ in days})


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


def test_no_question_is_asked_twice():
    assert len({question.text for question in QUESTIONS}) == len(QUESTIONS) == 14


def test_each_turn_is_one_line_of_the_file_so_that_a_change_is_a_readable_diff():
    lines = files(demo).joinpath("conversation.json").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(TURNS) + 2
    assert all(
        turn["id"] in line and turn["content"][:1] in line for turn, line in zip(TURNS, lines[1:-1], strict=True)
    )


def test_load_gives_fresh_turns_every_time():
    turns, _ = demo.load()
    turns[0]["content"] = "something else"
    assert demo.load()[0][0]["content"] == TURNS[0]["content"]
