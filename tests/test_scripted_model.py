from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from langchain_memlayer.testing import ScriptedChatModel

SCHEMA = {"title": "answer", "description": "d", "type": "object", "properties": {"n": {"type": "integer"}}}


@tool
def save(text: str) -> str:
    """Save a text."""
    return text


async def test_replies_come_in_order_plain_and_awaited_and_calls_are_recorded() -> None:
    model = ScriptedChatModel(replies=["one", {"two": 2}, AIMessage("three")])
    replies = [model.invoke("a").text, (await model.ainvoke("b")).text, model.invoke("c").text]
    assert replies == ["one", '{"two": 2}', "three"]
    assert model.prompts == [[HumanMessage("a")], [HumanMessage("b")], [HumanMessage("c")]]
    assert model.calls == 3
    with pytest.raises(AssertionError, match="has 3 replies, and this is call 4"):
        model.invoke("d")


async def test_a_stream_is_the_reply_in_pieces() -> None:
    model = ScriptedChatModel(replies=["one two\n three"] * 2)
    plain = [chunk.text for chunk in model.stream("a")]
    awaited = [chunk.text async for chunk in model.astream("a")]
    assert "".join(plain) == "".join(awaited) == "one two\n three"
    assert len([piece for piece in plain if piece]) == 3


def test_tool_calls_are_streamed_whole() -> None:
    call = {"name": "save", "args": {"text": "hi there"}, "id": "1", "type": "tool_call"}
    model = ScriptedChatModel(replies=[AIMessage("", tool_calls=[call])], structured=("function_calling",))
    chunks = list(model.bind_tools([save]).stream("a"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert whole.tool_calls == [call]
    assert model.bound[0]["tools"][0]["function"]["name"] == "save"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("include_raw", [True, False])
async def test_structured_output_gives_the_scripted_object(method: Any, include_raw: bool) -> None:
    model = ScriptedChatModel(replies=[{"n": 1}, {"n": 2}], structured=(method,))
    structured = model.with_structured_output(SCHEMA, method=method, include_raw=include_raw)
    found = [structured.invoke("a"), await structured.ainvoke("b")]
    assert [part["parsed"] if include_raw else part for part in found] == [{"n": 1}, {"n": 2}]


def test_structured_output_that_is_none_is_told_beside_the_raw_reply() -> None:
    model = ScriptedChatModel(replies=["sorry"], structured=("json_schema",))
    found = model.with_structured_output(SCHEMA, method="json_schema", include_raw=True).invoke("a")
    assert found["raw"].text == "sorry"
    assert found["parsed"] is None
    assert found["parsing_error"] is not None


def test_what_it_is_not_said_to_support_it_does_not() -> None:
    for method in ("json_schema", "function_calling"):
        with pytest.raises(NotImplementedError, match="name it in `structured`"):
            ScriptedChatModel().with_structured_output(SCHEMA, method=method)


async def test_calls_wait_for_each_other() -> None:
    model = ScriptedChatModel(replies=["x"] * 5, together=3)
    plain = [asyncio.to_thread(model.invoke, "a") for _ in range(2)]
    await asyncio.gather(model.ainvoke("b"), *plain)
    assert model.most_in_flight == 3
