from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
import unicodedata
from collections import deque
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    message_to_dict,
    messages_to_dict,
)
from langchain_core.prompt_values import ChatPromptValue

from langchain_memlayer import Memory, messages
from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.messages import (
    RECALLED_CLOSE,
    RECALLED_OPEN,
    content_hash,
    read_messages,
    to_turns,
    without_recalled,
)
from langchain_memlayer.types import Turn

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CALL = {"name": "weather", "args": {}, "id": "c1"}
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_SECONDS = int(NOON.timestamp())
BLOCK = f"{RECALLED_OPEN} count=2>\n1. likes tea\n2. lives in Berlin\n{RECALLED_CLOSE}"


class Thing:
    pass


def text_part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


ONE_TURN: list[tuple[Any, Turn]] = [
    ("I like tea", Turn("I like tea")), ("  as it was\n", Turn("  as it was\n")), (("human", "hi"), Turn("hi")),
    (("ai", "hi"), Turn("hi", role="assistant")), (("user", [text_part("hi")]), Turn("hi")),
    ([("assistant", "hi")], Turn("hi", role="assistant")),
    ([["tool", "21 °C"]], Turn("21 °C", role="tool", quarantined=True)),
    ({"role": "user", "content": "hi"}, Turn("hi")), ({"role": "Human", "content": "hi"}, Turn("hi")),
    ({"role": "assistant", "content": "hi"}, Turn("hi", role="assistant")),
    ({"role": "ai", "content": "hi"}, Turn("hi", role="assistant")),
    ({"role": "function", "content": "x", "name": "f"}, Turn("x", role="tool", name="f", quarantined=True)),
    ({"role": " tool ", "content": "x"}, Turn("x", role="tool", quarantined=True)),
    ({"role": "Critic", "content": "x"}, Turn("x", role="Critic")),
    ({"role": "asistant", "content": "x"}, Turn("x", role="assistant")),
    ({"role": "uesr", "content": "x"}, Turn("x")), ({"role": "HumanMessage", "content": "x"}, Turn("x")),
    ({"role": "AI:", "content": "x"}, Turn("x", role="assistant")),
    ({"role": "ToolMessage", "content": "x"}, Turn("x", role="tool", quarantined=True)),
    ({"role": "mother", "content": "x"}, Turn("x", role="mother")),
    ({"role": "user", "content": [{"type": None, "text": "a"}, {"type": "Text", "text": "b"}]}, Turn("ab")),
    ({"role": "user", "content": [{"type": "text", "content": "a"}, {"content": "b"}, {"image": "c"}]}, Turn("ab")),
    ({"role": "user", "content": [{"type": "text", "text": {"value": "a", "annotations": []}}]}, Turn("a")),
    ({"role": "user", "content": [{"text": "a"}, {"type": "text", "text": "b"}]}, Turn("ab")),
    (Turn("hi", "critic", "m1", "Ann", "s", NOON, {"a": 1}), Turn("hi", "critic", "m1", "Ann", "s", NOON, {"a": 1})),
    (Turn("hi", quarantined=True, valid_until=NOON), Turn("hi", quarantined=True, valid_until=NOON)),
    ({"type": "human", "content": "hi"}, Turn("hi")),
    ({"role": "user", "type": "message", "content": "hi"}, Turn("hi")),
    ({"role": "user", "content": [text_part("a"), IMAGE, "b"]}, Turn("ab")),
    ({"role": "user", "content": [{"type": "input_text", "text": "a"}]}, Turn("a")),
    ({"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}, Turn("a", role="assistant")),
    ({"role": "assistant", "content": "wait", "tool_calls": [OPENAI_CALL]}, Turn("wait", role="assistant")),
    ({"role": "user", "content": "hi", "id": "m1", "name": "Ann"}, Turn("hi", id="m1", name="Ann")),
    ({"role": "user", "content": "hi", "id": 17}, Turn("hi", id="17")),
    ({"role": "user", "content": "hi", "id": None, "name": None, "metadata": None, "time": None}, Turn("hi")),
    ({"role": "user", "content": "hi", "session_id": "s"}, Turn("hi", session_id="s")),
    ({"role": "user", "content": "hi", "metadata": {"a": (1, 2)}}, Turn("hi", metadata={"a": [1, 2]})),
    (HumanMessage(content="hi", id="m1", name="Ann"), Turn("hi", id="m1", name="Ann")),
    (AIMessage(content="hi"), Turn("hi", role="assistant")),
    (AIMessage(content="wait", tool_calls=[CALL]), Turn("wait", role="assistant")),
    (AIMessage(content=[{"type": "thinking", "thinking": "hm"}, text_part("hi")]), Turn("hi", role="assistant")),
    (AIMessage(content="<think>Does she\nlike tea?</think>\n\nhi <think>"), Turn("hi <think>", role="assistant")),
    (HumanMessage(content="<think>hm</think>hi"), Turn("<think>hm</think>hi")),
    (HumanMessage(content=[text_part("a"), IMAGE, "b"]), Turn("ab")),
    (ToolMessage(content="x", tool_call_id="c1", name="f"), Turn("x", role="tool", name="f", quarantined=True)),
    (FunctionMessage(content="x", name="f"), Turn("x", role="tool", name="f", quarantined=True)),
    (ChatMessage(content="x", role="critic"), Turn("x", role="critic")),
    (ChatMessage(content="x", role="human"), Turn("x")),
    (ChatMessage(content="x", role="tool"), Turn("x", role="tool", quarantined=True)),
    (HumanMessageChunk(content="x"), Turn("x")), (AIMessageChunk(content="x"), Turn("x", role="assistant")),
    (ToolMessageChunk(content="x", tool_call_id="c1"), Turn("x", role="tool", quarantined=True)),
    (FunctionMessageChunk(content="x", name="f"), Turn("x", role="tool", name="f", quarantined=True)),
    (ChatMessageChunk(content="x", role="critic"), Turn("x", role="critic")),
    (HumanMessage(content="hi", id="m1").model_dump(), Turn("hi", id="m1")),
    (AIMessageChunk(content="hi").model_dump(), Turn("hi", role="assistant")),
    (ChatMessage(content="x", role="critic").model_dump(), Turn("x", role="critic")),
    (dumpd(HumanMessage(content="hi", id="m1", name="Ann")), Turn("hi", id="m1", name="Ann")),
    (dumpd(AIMessage(content="hi")), Turn("hi", role="assistant")),
    (messages_to_dict([AIMessage(content="hi", id="m1")]), Turn("hi", role="assistant", id="m1")),
    (message_to_dict(ChatMessage(content="x", role="critic")), Turn("x", role="critic")),
]  # fmt: skip


@pytest.mark.parametrize(("given_", "turn"), ONE_TURN)
def test_each_form_of_message_becomes_its_turn(given_: Any, turn: Turn) -> None:
    assert to_turns(given_) == [turn]
    assert to_turns([given_] if not isinstance(given_, list) else given_) == [turn]


@pytest.mark.parametrize(
    "silent",
    [
        SystemMessage(content="You are kind."),
        SystemMessageChunk(content="You are kind."),
        ChatMessage(content="You are kind.", role="system"),
        ("system", "You are kind."),
        {"role": "system", "content": "You are kind."},
        {"role": "developer", "content": "You are kind."},
        {"role": "SystemMessage", "content": "You are kind."},
        {"role": "sys", "content": "You are kind."},
        {"role": "sytsem", "content": "You are kind."},
        {"role": "user", "content": BLOCK.upper()},
        RemoveMessage("m1"),
        AIMessage(content="", tool_calls=[CALL]),
        AIMessage(content=""),
        AIMessage(content=[]),
        AIMessage(content=[{"type": "thinking", "thinking": "hm"}]),
        ToolMessage(content="", tool_call_id="c1"),
        HumanMessage(content=[IMAGE]),
        HumanMessage(content=[text_part(" "), IMAGE]),
        {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
        {"role": "assistant", "tool_calls": [OPENAI_CALL]},
        {"role": "assistant", "content": " \n"},
        {"role": "tool", "content": None},
        {"role": "user", "content": [IMAGE]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "21 °C"}]},
        BLOCK,
        HumanMessage(content=f" {BLOCK}\n"),
        {"role": "user", "content": [text_part(BLOCK), IMAGE]},
        HumanMessage("Here is a summary: tea.", additional_kwargs={"lc_source": "summarization"}),
        HumanMessage(
            "Task 42 has finished.", additional_kwargs={"lc_source": "task", "lc_data": {"id": 42}}
        ).model_dump(),
    ],
)
def test_messages_without_words_of_their_own_are_no_turns(silent: Any) -> None:
    assert to_turns(silent) == []
    assert to_turns([silent, "and me?"]) == [Turn("and me?")]


@pytest.mark.parametrize(
    "wrap", [list, tuple, iter, deque, lambda m: (x for x in m), lambda m: dict(enumerate(m)).values()]
)
def test_any_ordered_iterable_of_mixed_forms_keeps_its_order(wrap: Any) -> None:
    mixed = [
        "one", {"role": "assistant", "content": "two"}, ("human", "three"), AIMessage(content="four"),
        SystemMessage(content="no"),
    ]  # fmt: skip
    assert [(t.role, t.text) for t in to_turns(wrap(mixed))] == [
        ("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four"),
    ]  # fmt: skip


def test_two_strings_are_two_turns_unless_the_first_is_a_role_of_a_tuple() -> None:
    assert to_turns(("I like tea", "I like rain")) == [Turn("I like tea"), Turn("I like rain")]
    assert to_turns(["human", "hi"]) == [Turn("human"), Turn("hi")]
    assert to_turns(("human", "hi")) == [Turn("hi")]


def test_subclasses_of_messages_and_strings_are_taken_as_what_they_are() -> None:
    class Mine(HumanMessage):
        pass

    class Custom(BaseMessage):
        type: str = "observer"

    turns = to_turns([Mine(content="a"), Custom(content="b"), AIMessage(content="c").text])
    assert turns == [Turn("a"), Turn("b", role="observer"), Turn("c")]
    assert type(turns[2].text) is str


# -- what the call says, and what the message says --------------------------------------------------------------------


def test_a_message_keeps_its_own_session_time_and_metadata_and_takes_the_rest_from_the_call() -> None:
    own = {"role": "user", "content": "b", "session_id": "own", "time": NOON, "metadata": {"b": 2, "c": 3}}
    call_metadata = {"a": 1, "b": 1}
    first, second = to_turns(["a", own], session_id="call", timestamp="2020-01-01", metadata=call_metadata)
    assert (first.session_id, first.time, first.metadata) == ("call", datetime(2020, 1, 1, tzinfo=UTC), call_metadata)
    assert (second.session_id, second.time, second.metadata) == ("own", NOON, {"a": 1, "b": 2, "c": 3})
    assert first.metadata is not call_metadata


TIMES: list[tuple[Any, datetime]] = [
    *((time, NOON) for time in (
        NOON, NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=8))), "2024-05-01T12:00:00Z",
        "2024-05-01T12:00:00.000000000Z", "2024-05-01T14:00:00+02:00", " 2024-05-01 12:00:00 ", NOON_SECONDS,
        float(NOON_SECONDS), NOON_SECONDS * 1000, NOON_SECONDS * 1000.0,
    )),
    ("2024-05-01", datetime(2024, 5, 1, tzinfo=UTC)), ("20240501", datetime(2024, 5, 1, tzinfo=UTC)),
    (0, datetime(1970, 1, 1, tzinfo=UTC)), (-86_400, datetime(1969, 12, 31, tzinfo=UTC)),
    (10**11, datetime(5138, 11, 16, 9, 46, 40, tzinfo=UTC)),
    (10**11 + 1000, datetime(1973, 3, 3, 9, 46, 41, tzinfo=UTC)),
    (-200_000_000_000, datetime(1963, 8, 31, 4, 26, 40, tzinfo=UTC)),
    (1_714_564_800.25, datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)),
    (1_714_564_800_123, datetime(2024, 5, 1, 12, 0, 0, 123_000, tzinfo=UTC)),
]  # fmt: skip


@pytest.mark.parametrize(("time", "moment"), TIMES)
def test_every_form_of_time_means_its_moment(time: Any, moment: datetime) -> None:
    assert to_turns("hi", timestamp=time)[0].time == moment


@pytest.mark.parametrize(
    ("time", "day", "hours"),
    [
        ("2024-05-02T07:00:00+08:00", "2024-05-02", 8), ("2024-05-02T20:00:00-07:00", "2024-05-02", -7),
        (datetime(2024, 7, 2, 23, tzinfo=ZoneInfo("America/New_York")), "2024-07-02", -4),
        ("2024-05-02T23:00:00", "2024-05-02", 0), (NOON_SECONDS, "2024-05-01", 0),
    ],
)  # fmt: skip
def test_a_time_keeps_the_offset_of_who_spoke(time: Any, day: str, hours: int) -> None:
    (turn,) = to_turns({"role": "user", "content": "hi", "timestamp": time})
    assert turn.time is not None
    assert (f"{turn.time:%Y-%m-%d}", turn.time.utcoffset()) == (day, timedelta(hours=hours))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x", "timestamp": NOON, "created_at": 0, "time": 0},
        {"role": "user", "content": "x", "timestamp": None, "created_at": NOON_SECONDS, "time": 0},
        {"role": "user", "content": "x", "time": "2024-05-01T12:00:00Z"},
        {"role": "user", "content": "x", "additional_kwargs": {"created_at": NOON}},
        HumanMessage(content="x", additional_kwargs={"timestamp": NOON_SECONDS}),
        HumanMessage(content="x", additional_kwargs={"created_at": "2024-05-01T12:00:00Z"}),
        AIMessage(content="x", response_metadata={"created_at": float(NOON_SECONDS)}),
        AIMessage(content="x", additional_kwargs={"timestamp": NOON}, response_metadata={"timestamp": 0}),
    ],
)
def test_a_messages_own_time_is_found_where_it_may_stand_and_wins(message: Any) -> None:
    assert to_turns(message, timestamp="1999-01-01")[0].time == NOON


@given(
    st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)),
    st.none() | st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_dates_survive_as_datetime_and_as_string(local: datetime, zone: timezone | None) -> None:
    moment = local.replace(tzinfo=zone)
    expected = local.replace(tzinfo=zone or UTC).astimezone(UTC)
    for given_ in (moment, moment.isoformat()):
        assert to_turns({"role": "user", "content": "hi", "time": given_})[0].time == expected


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "critic"]), st.text("ab?1 \n", min_size=1)), min_size=1)
)
def test_order_roles_and_texts_are_kept(said: list[tuple[str, str]]) -> None:
    assume(all(text.strip() for _, text in said))
    turns = to_turns([{"role": role, "content": text, "id": k} for k, (role, text) in enumerate(said)])
    assert [(t.role, t.text, t.id) for t in turns] == [(r, x, str(k)) for k, (r, x) in enumerate(said)]


# -- what is left out, and what is mended -----------------------------------------------------------------------------


def left_out(messages: Any, **options: Any) -> list[tuple[int, str | None, str]]:
    skipped = read_messages(messages, **options).skipped
    return [(one["message"], one["id"], one["part"]) for one in skipped]


def test_what_is_no_text_is_reported_with_its_place() -> None:
    pdf = {"type": "file", "base64": "JVBERi0="}
    said = [HumanMessage([text_part("my cat"), IMAGE], id="m1"), HumanMessage([pdf], id="m2"), "hi"]
    assert left_out(said) == [(0, "m1", "image_url"), (1, "m2", "file")]
    assert left_out({"role": "user", "content": IMAGE}) == [(0, None, "image_url")]
    thinking = AIMessage([{"type": "thinking", "thinking": "hm"}, text_part("a")])
    bedrock = HumanMessage([{"text": "a"}, {"image": {"format": "png"}}, {"cachePoint": {"type": "default"}}], id="b")
    assert left_out([thinking, AIMessage("", tool_calls=[CALL]), bedrock]) == [(2, "b", "image")]
    odd = ["hi", ChatMessage("hi", role=""), Thing(), {"role": "user", "text": "hi"}]
    assert left_out(odd, mend=True) == [(place, None, "message") for place in (1, 2, 3)]
    assert left_out([], mend=True) == left_out([HumanMessage("")], mend=True) == []


def test_a_declined_message_and_its_answer_are_left_out() -> None:
    off = {"additional_kwargs": {"memory": "off"}}
    said = [HumanMessage("one"), AIMessage("a"), HumanMessage("two", id="m2", **off), AIMessage("b"),
            ToolMessage("c", tool_call_id="1"), HumanMessage("three")]  # fmt: skip
    assert [turn.text for turn in to_turns(said)] == ["one", "a", "three"]
    assert left_out(said) == [(2, "m2", "message")]
    assert [turn.text for turn in to_turns([*said, {"role": "user", "content": "x", "id": "m9"}], without={"m9"})] == [
        "one", "a", "three",
    ]  # fmt: skip
    assert to_turns([{"role": "user", "content": "x", **own} for own in (off, {"memory": "off"})]) == []


ODD: list[tuple[Any, list[Turn]]] = [
    (HumanMessage("a\x00b"), [Turn("ab")]),
    (AIMessage("ok \ud83d"), [Turn("ok \ufffd", role="assistant")]),
    ("\ud83d\ude00", [Turn("😀")]),
    (HumanMessage([text_part("a\x00"), "b\ud83d"]), [Turn("ab\ufffd")]),
    (HumanMessage("hi", id="", name=" "), [Turn("hi")]),
    (HumanMessage("hi", id="m\x001", name="Ann\x00"), [Turn("hi", id="m1", name="Ann")]),
    ({"role": "user", "content": "hi", "id": 1.5, "name": 7, "metadata": {1: 2}, "time": "soon"}, [Turn("hi")]),
    (HumanMessage("hi", additional_kwargs={"timestamp": "10 AM", "created_at": NOON_SECONDS}), [Turn("hi", time=NOON)]),
    (AIMessage("ok", response_metadata={"created_at": "Wed, 01 May 2024"}), [Turn("ok", role="assistant")]),
    ({"role": "user", "content": [text_part("a"), 5, {"type": "text", "text": 5}, None]}, [Turn("a")]),
    (ChatMessage("hi", role=""), []),
    (HumanMessage(""), []),
    ({"role": "user", "content": None}, []),
    ({"content": "x"}, []),
    (Thing(), []),
    (None, []),
    (ToolMessage("refused", tool_call_id="1", status="error"), []),
]  # fmt: skip


@pytest.mark.parametrize(("odd", "left"), ODD)
def test_a_surface_mends_what_it_can_and_leaves_out_the_rest(odd: Any, left: list[Turn]) -> None:
    assert to_turns(["before", odd, "after"], mend=True) == [Turn("before"), *left, Turn("after")]


# -- recalled blocks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{BLOCK}\n\nWhat do I like?", "What do I like?"), (f"What do I like?\n{BLOCK}", "What do I like?"),
        (f"One\n{BLOCK}\nTwo\n{BLOCK}\nThree", "One\n\nTwo\n\nThree"),
        (f"Mine. {RECALLED_OPEN}>\n1. likes tea", "Mine."), (f"Mine. {RECALLED_OPEN}", "Mine."),
        (f"{RECALLED_OPEN}/>{RECALLED_CLOSE}Mine.", "Mine."), (" no block \n", " no block \n"),
        (f"a stray {RECALLED_CLOSE} stays", f"a stray {RECALLED_CLOSE} stays"),
        (f"{RECALLED_OPEN}_of_mine> stay", f"{RECALLED_OPEN}_of_mine> stay"),
    ],
)  # fmt: skip
def test_recalled_blocks_are_cut_out(text: str, left: str) -> None:
    assert without_recalled(text) == left
    assert [t.text for t in to_turns([text])] == [left]
    assert [t.text for t in to_turns(HumanMessage(content=[text_part(text), IMAGE]))] == [left]


@given(st.text("abc \n", max_size=20), st.text(max_size=30), st.text("abc \n", max_size=20))
def test_nothing_inside_a_block_is_left(before: str, inside: str, after: str) -> None:
    assume(RECALLED_CLOSE not in inside)
    text = f"{before}{RECALLED_OPEN}>{inside}{RECALLED_CLOSE}{after}"
    assert without_recalled(text) == (before + after).strip()


# -- errors -----------------------------------------------------------------------------------------------------------


async def _agen() -> Any:
    yield "hi"


BAD: list[tuple[Any, str]] = [
    ("", "messages is blank"),
    (" \n", "messages is blank"),
    ([], "messages is empty"),
    ((), "messages is empty"),
    (iter(()), "messages is empty"),
    (None, "messages is of type NoneType"),
    (7, "messages is of type int"),
    (1.5, "messages is of type float"),
    (True, "messages is of type bool"),
    (b"hi", "messages is of type bytes"),
    (bytearray(b"hi"), "messages is of type bytearray"),
    (Thing(), "messages is of type Thing"),
    (_agen(), "messages is of type async_generator"),
    ({"a", "b"}, "messages is a set"),
    (frozenset("a"), "messages is a set"),
    (["hi", None], r"messages\[1\] is of type NoneType"),
    (["hi", 7], r"messages\[1\] is of type int"),
    (["hi", b"x"], r"messages\[1\] is of type bytes"),
    (["hi", Thing()], r"messages\[1\] is of type Thing"),
    (["hi", {"a"}], r"messages\[1\] is of type set"),
    (["hi", ""], r"messages\[1\] is blank"),
    (["hi", "\t"], r"messages\[1\] is blank"),
    ([HumanMessage(content="")], r"messages\[0\] is blank"),
    ([HumanMessage(content=[])], r"messages\[0\] is blank"),
    ([ChatMessage(content=" ", role="critic")], r"messages\[0\] is blank"),
    ({"role": "user", "content": ""}, "messages is blank"),
    ({"role": "user", "content": [text_part(" ")]}, "messages is blank"),
    ({"role": "user", "content": [{"type": "text"}]}, "messages is blank"),
    (["hi", ["human", "a", "b"]], r"messages\[1\] is a list but no pair"),
    ([("critic", "a")], r"messages\[0\] is a tuple but no pair"),
    ([(1, "a")], r"messages\[0\] is a tuple but no pair"),
    ([[HumanMessage(content="a")]], r"messages\[0\] is a list but no pair"),
    (ChatPromptValue(messages=[HumanMessage(content="a")]), r"messages\[0\] is a tuple but no pair"),
    ({}, "messages is a dict without 'role'; pass a string"),
    ({"messages": [HumanMessage(content="a")]}, r"pass state\['messages'\] itself"),
    ({"content": "hi"}, "messages is a dict without 'role'"),
    ({"role": "user"}, "messages is a dict without 'content'"),
    ({"role": "user", "text": "hi"}, "messages is a dict without 'content'"),
    ({"role": 3, "content": "hi"}, r"messages\['role'\] must be a non-empty string"),
    ({"role": " ", "content": "hi"}, r"messages\['role'\] must be a non-empty string"),
    ({"type": 3, "content": "hi"}, r"messages\['type'\] must be a non-empty string"),
    ({"role": "user", "content": None}, r"messages\['content'\] is of type NoneType"),
    ({"role": "user", "content": 5}, r"messages\['content'\] is of type int"),
    ({"role": "assistant", "content": b"x"}, r"messages\['content'\] is of type bytes"),
    (("user", {"text": "hi"}), r"messages\['content'\] is of type dict"),
    ([{"role": "user", "content": ["a", 5]}], r"messages\[0\]\['content'\]\[1\] is no part"),
    ({"role": "user", "content": [{"type": "text", "text": 5}]}, r"messages\['content'\]\[0\] is no part"),
    ({"role": "user", "content": "hi", "id": ""}, r"messages\['id'\] must be a non-empty string"),
    ({"role": "user", "content": "hi", "id": True}, r"messages\['id'\] must be a non-empty string"),
    ({"role": "user", "content": "hi", "id": 1.5}, r"messages\['id'\] must be a non-empty string"),
    ({"role": "user", "content": "hi", "id": "i" * 2_001}, r"messages\['id'\] has more than 2,000 bytes"),
    ({"role": "user", "content": "hi", "name": 5}, r"messages\['name'\] must be a non-empty string"),
    ({"role": "user", "content": "hi", "name": "A\x00"}, r"messages\['name'\] holds a NUL"),
    ({"role": "user", "content": "hi", "session_id": ""}, r"messages\['session_id'\] must be a non-empty string"),
    ({"role": "user", "content": "hi", "metadata": []}, r"messages\['metadata'\] must be a mapping"),
    ({"role": "user", "content": "hi", "metadata": {1: 2}}, r"messages\['metadata'\] has the key 1"),
    ({"role": "user", "content": "hi", "metadata": {"x": math.nan}}, r"messages\['metadata'\]\['x'\] is nan"),
    ({"role": "user", "content": "hi", "metadata": {"x": Thing()}}, r"messages\['metadata'\]\['x'\] is of type Thing"),
    ({"role": "user", "content": "hi", "time": "soon"}, r"messages\['time'\] is no time: 'soon'"),
    (
        HumanMessage(content="hi", additional_kwargs={"timestamp": "x"}),
        r"\['additional_kwargs'\]\['timestamp'\] is no time",
    ),
    (["hi", "a\x00b"], r"messages\[1\] holds a NUL character at index 1"),
    (["hi", "ab\ud83d"], r"messages\[1\] holds a lone surrogate, which is no text at index 2"),
    ([ToolMessage(content="a\x00", tool_call_id="c1")], r"messages\[0\] holds a NUL character"),
]


@pytest.mark.parametrize(("bad", "says"), BAD)
def test_what_is_no_message_is_refused_and_its_place_named(bad: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        to_turns(bad)


@pytest.mark.parametrize(
    "time",
    ["", "soon", "2024", "2024-13-01", "1712121212123", "1714564800", math.nan, math.inf, -math.inf, True, b"2024",
     [2024, 5, 1], 10**15, -(10**15), 10**400, 1e300, datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))],
)  # fmt: skip
def test_what_is_no_time_is_refused(time: Any) -> None:
    with pytest.raises(InvalidInput, match=r"timestamp is no time.*ISO 8601"):
        to_turns("hi", timestamp=time)


BAD_CALL = [("session_id", value) for value in ("", " ", 5, b"s", "a\x00", "\ud800")]
BAD_CALL += [("metadata", value) for value in ([], "x", {1: 1}, {"x": math.inf}, {"x": {1}})]


@pytest.mark.parametrize(("name", "value"), BAD_CALL)
def test_what_the_call_says_of_its_messages_is_checked_and_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=name):
        to_turns("hi", **{name: value})


def test_the_text_of_a_message_is_not_repeated_in_errors() -> None:
    for bad in (["my secret\x00"], [("my secret", "my secret")], {"content": "my secret"}):
        with pytest.raises(InvalidInput) as caught:
            to_turns(bad)
        assert "secret" not in str(caught.value)


# -- content_hash -----------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, st.sampled_from(["NFC", "NFD"]))
def test_the_hash_ignores_normal_forms_and_case(text: str, form: Any) -> None:
    assert content_hash(unicodedata.normalize(form, text)) == content_hash(text)
    # The Greek iota subscript folds to a letter, and marks that follow it then belong to that letter.
    if "\u0345" not in unicodedata.normalize("NFD", text):
        assert content_hash(text.casefold()) == content_hash(text)


@given(st.lists(st.text("aB1?é漢", min_size=1), min_size=1), st.data())
def test_the_hash_ignores_how_much_whitespace_there_is(words: list[str], data: st.DataObject) -> None:
    gaps = [data.draw(st.text(" \t\n\u00a0\u3000\r", min_size=1)) for _ in words]
    spaced = "".join(gap + word for gap, word in zip(gaps, words, strict=True)) + gaps[0]
    assert content_hash(spaced) == content_hash(" ".join(words))


@given(TEXT, st.integers(0, 10**9), st.integers(0, 10**9), TEXT)
def test_the_hash_tells_numbers_apart(before: str, one: int, other: int, after: str) -> None:
    assume(one != other)
    assert content_hash(f"{before}{one}{after}") != content_hash(f"{before}{other}{after}")


def test_the_hash_tells_apart_what_is_merely_similar_and_does_not_change_between_releases() -> None:
    texts = ["locker 12", "locker 13", "locker 1 2", "lockers 12", "2⁵", "25"]
    texts += ["really", "really?", "really!", "re ally", "réally"]
    assert len({content_hash(text) for text in texts}) == len(texts)
    assert content_hash("  Straße\tABC ") == content_hash("STRASSE abc") == "0634e7472904a18fc3ad25e4d637381c"
    # What lower() leaves different, and what folding takes out of its normal form.
    for one, other in (("Straße", "STRASSE"), ("ＡＢＣ", "ａｂｃ"), ("ΐ", "Ϊ́"), ("ǰ", "J̌")):
        assert content_hash(one) == content_hash(other)


# -- imports ----------------------------------------------------------------------------------------------------------


def test_langchain_is_not_imported_for_plain_messages() -> None:
    code = """
import sys
from langchain_memlayer.messages import to_turns
to_turns(iter(["hi", ("ai", "ho"), {"role": "user", "content": "x"}]))
print(sorted(name for name in sys.modules if name.startswith("langchain_core")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_text_that_is_too_long_is_refused_and_a_surface_reports_it() -> None:
    long = "word " * (messages.LONGEST_TEXT // 5)
    assert [len(turn.text) for turn in to_turns(long)] == [messages.LONGEST_TEXT]
    for message in (f"{long}!", [{"role": "tool", "content": [{"type": "text", "text": long}, "!"]}]):
        with pytest.raises(InvalidInput, match=r"1,000,001 characters.*in parts"):
            to_turns(message)
    read = messages.read_messages(["hello", f"{long}!", "bye"], mend=True)
    assert [turn.text for turn in read.turns] == ["hello", "bye"]
    [left] = read.skipped
    assert (left["message"], left["reason"]) == (1, "it has more than 1,000,000 characters")


@pytest.mark.parametrize("text", ["w{0} ", "两百{0}的春节，"])
def test_a_long_message_takes_a_small_multiple_of_its_size(text: str) -> None:
    parts = [text.format(number) for number in range(4_000)]
    other, long = "".join(parts), "".join(reversed(parts))
    with Memory(":memory:", model=None, embeddings=None) as memory:
        memory.add(other, user_id="u")  # fills the caches, which have a size of their own
        tracemalloc.start()
        try:
            memory.add(long, user_id="u")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 60 * len(long)
