from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError, ModelRateLimitError
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

from langchain_memlayer.errors import ConfigurationError, ExtractionError
from langchain_memlayer.facts.chat import StructuredChat
from langchain_memlayer.facts.prompts import EXTRACTION_SCHEMA
from langchain_memlayer.facts.replies import read_entries
from langchain_memlayer.testing import ScriptedChatModel

NONE: dict[str, Any] = {"facts": []}
PROMPT = [SystemMessage("rules"), HumanMessage("conversation")]


def chat(model: Any, **options: Any) -> StructuredChat:
    return StructuredChat(model, EXTRACTION_SCHEMA, run_name="extraction", **options)


def profiled(**profile: bool) -> ScriptedChatModel:
    own = {"tool_choice": True, **profile}
    return ScriptedChatModel(replies=[NONE], structured=("json_schema", "function_calling"), profile=own)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (ScriptedChatModel(replies=[NONE], structured=("json_schema", "function_calling")), "json_schema"),
        (ScriptedChatModel(replies=[NONE], structured=("function_calling",)), "function_calling"),
        (ScriptedChatModel(replies=[NONE]), "text"),
        (profiled(structured_output=True, tool_calling=True), "json_schema"),
        (profiled(structured_output=False, tool_calling=True), "function_calling"),
        (profiled(structured_output=False, tool_calling=True, tool_choice=False), "text"),
        (profiled(structured_output=False, tool_calling=False), "text"),
        (FakeListChatModel(responses=[json.dumps(NONE)]), "text"),
    ],
)
def test_the_strictest_method_that_the_model_supports_is_used(model: Any, method: str) -> None:
    asked = chat(model)
    assert asked.method == method
    assert json.loads(asked.ask(PROMPT, str)) == NONE


def test_a_method_can_be_prescribed_from_those_that_there_are() -> None:
    model = ScriptedChatModel(replies=[NONE], structured=("json_schema", "function_calling"))
    assert chat(model, method="text").ask(PROMPT, str) == json.dumps(NONE)
    assert model.bound == [{}]
    for wrong, method, says in ((ScriptedChatModel(), "json_schema", "json_schema, function_calling, text"),
                                (ScriptedChatModel(), "json", "no method 'json'"),
                                ("openai:gpt-4o-mini", "text", "init_chat_model")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=says):
            chat(wrong, method=method)


@pytest.mark.parametrize("structured", ["json_schema", "function_calling"])
async def test_a_provider_that_refuses_the_schema_is_asked_once_more_as_text_and_then_only_so(structured: Any) -> None:
    for awaited in (False, True):
        model = ScriptedChatModel(replies=[NONE, NONE, NONE], structured=(structured,), refuses=True)
        asked = chat(model)
        replies = [await asked.aask(PROMPT, str) if awaited else asked.ask(PROMPT, str) for _ in range(3)]
        assert [json.loads(reply) for reply in replies] == [NONE] * 3
        assert model.calls == 4
        assert asked.method == "text"


async def test_a_server_that_takes_no_schema_is_asked_for_a_call_before_plain_text() -> None:
    def answer(prompt: list[Any]) -> Any:
        if "response_format" in model.bound[-1]:
            raise StatusError("response_format is not supported")
        return NONE

    for awaited in (False, True):
        model = ScriptedChatModel(replies=answer, structured=("json_schema", "function_calling"))
        asked = chat(model)
        assert json.loads(await asked.aask(PROMPT, str) if awaited else asked.ask(PROMPT, str)) == NONE
        assert (asked.method, model.calls) == ("function_calling", 2)


async def test_a_model_that_hangs_is_left_alone_after_the_timeout() -> None:
    for awaited in (False, True):
        asked = chat(ScriptedChatModel(replies=[NONE, NONE], together=2), timeout=0.05)
        with pytest.raises(ExtractionError, match="TimeoutError"):
            await asked.aask(PROMPT, str) if awaited else asked.ask(PROMPT, str)
    with pytest.raises(ConfigurationError, match="timeout"):
        chat(ScriptedChatModel(), timeout=0)


def test_all_calls_of_a_reply_are_read() -> None:
    calls = [{"name": "extraction", "args": {"facts": [{"fact": name}]}, "id": name} for name in "ab"]
    broken = {"name": "extraction", "args": '{"facts": [{"fact": "c"}', "id": "c", "error": "cut"}
    message = AIMessage("", tool_calls=calls, invalid_tool_calls=[broken])
    reply = chat(ScriptedChatModel(replies=[message], structured=("function_calling",))).ask(PROMPT, str)
    assert [entry["fact"] for entry in read_entries(reply, "facts", {"fact"}).entries] == ["a", "b", "c"]


class StatusError(Exception):
    status_code = 422


@pytest.mark.parametrize("error", [StatusError("response_format"), NotImplementedError("no tools")])
def test_refusals_of_other_providers_are_known_by_their_status(error: Exception) -> None:
    model = ScriptedChatModel(replies=[error, NONE], structured=("json_schema",))
    assert json.loads(chat(model).ask(PROMPT, str)) == NONE


@pytest.mark.parametrize("error", [TimeoutError("slow"), ModelRateLimitError("429"), ContextOverflowError("long")])
def test_other_failures_are_not_repeated(error: Exception) -> None:
    model = ScriptedChatModel(replies=[error, NONE], structured=("json_schema",))
    asked = chat(model)
    with pytest.raises(ExtractionError):
        asked.ask(PROMPT, str)
    assert model.calls == 1
    assert asked.method == "json_schema"


class ProviderError(Exception):
    pass


@pytest.mark.parametrize("structured", [(), ("json_schema",), ("function_calling",)])
async def test_whatever_a_provider_raises_is_an_extraction_error_from_it(structured: Any) -> None:
    cause = ProviderError("no more credit")
    for awaited in (False, True):
        asked = chat(ScriptedChatModel(replies=[cause], structured=structured))
        says = r"ProviderError: no more credit.*nothing|no fact was written"
        with pytest.raises(ExtractionError, match=says) as caught:
            await asked.aask(PROMPT, str) if awaited else asked.ask(PROMPT, str)
        assert (caught.value.__cause__, caught.value.reply) == (cause, None)


def test_a_refusal_that_the_text_meets_too_leaves_the_method_as_it_was_and_an_interrupt_passes() -> None:
    model = ScriptedChatModel(replies=[StatusError("first"), StatusError("second")], structured=("json_schema",))
    asked = chat(model)
    with pytest.raises(ExtractionError, match="second"):
        asked.ask(PROMPT, str)
    assert asked.method == "json_schema"
    with pytest.raises(KeyboardInterrupt):
        chat(ScriptedChatModel(replies=[KeyboardInterrupt()])).ask(PROMPT, str)


async def test_cancellation_passes_and_leaves_the_model_usable() -> None:
    model = ScriptedChatModel(replies=[NONE, NONE, NONE], together=2)
    asked = chat(model)
    task = asyncio.ensure_future(asked.aask(PROMPT, str))
    while model.calls == 0:  # noqa: ASYNC110 - the model has no event to wait for
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.gather(asked.aask(PROMPT, str), asked.aask(PROMPT, str)) == [json.dumps(NONE)] * 2


REASONED = AIMessage(
    [{"type": "reasoning", "reasoning": "hm {facts}"}, {"type": "text", "text": json.dumps(NONE)}],
    additional_kwargs={"reasoning_content": "long thoughts"},
)
CLOSED = {"name": "extraction", "args": {"facts": [{"fact": "Ann m"}]}, "id": "1"}
CUT = {"name": "extraction", "args": '{"facts": [{"tu', "id": "1", "error": "cut"}


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (REASONED, json.dumps(NONE)),
        (AIMessage("", invalid_tool_calls=[CUT]), '{"facts": [{"tu'),
        (AIMessage("", additional_kwargs={"refusal": "I cannot help with that."}), "I cannot help with that."),
        (AIMessage("", additional_kwargs={"function_call": {"name": "extraction", "arguments": "{}"}}), "{}"),
        (AIMessage('{"facts": []}', response_metadata={"stop_reason": "refusal"}), ""),
        (AIMessage('{"facts": [', response_metadata={"finish_reason": "SAFETY"}), ""),
        (AIMessage('{"facts": []}', response_metadata={"stopReason": "guardrail_intervened"}), ""),
        (
            AIMessage("", tool_calls=[{**CLOSED, "args": NONE}], response_metadata={"finish_reason": "content_filter"}),
            "",
        ),
        (
            AIMessage("", tool_calls=[CLOSED], response_metadata={"finish_reason": "length"}),
            '{"facts": [{"fact": "Ann m',
        ),
    ],
    ids=[
        "reasoning is no part of it",
        "arguments that are no JSON",
        "a refusal in words",
        "a call of the old kind",
        "refused with an empty list",
        "taken away",
        "taken away by a guardrail",
        "taken away from a call",
        "a call that was cut off, which LangChain closes when it was streamed",
    ],
)
def test_what_the_reply_of_a_message_is(message: AIMessage, reply: str) -> None:
    structured: Any = ("function_calling",) if message.invalid_tool_calls or message.tool_calls else ()
    assert chat(ScriptedChatModel(replies=[message], structured=structured)).ask(PROMPT, str) == reply


@pytest.mark.parametrize("structured", [(), ("json_schema",), ("function_calling",)])
async def test_inner_calls_stay_out_of_the_stream_of_a_graph(structured: Any) -> None:
    model = ScriptedChatModel(replies=[NONE, "hello you", NONE, "hello you"], structured=structured)
    asked = chat(model)

    def node(state: MessagesState) -> dict[str, Any]:
        asked.ask(PROMPT, str)
        return {"messages": [model.invoke("hi")]}

    async def anode(state: MessagesState) -> dict[str, Any]:
        await asked.aask(PROMPT, str)
        return {"messages": [await model.ainvoke("hi")]}

    streams = []
    for function in (node, anode):
        graph = StateGraph(MessagesState).add_node("n", function).add_edge(START, "n").add_edge("n", END).compile()
        parts = [part async for part, _ in graph.astream({"messages": []}, stream_mode="messages")]
        streams.append("".join(str(part.text) for part in parts))
    assert streams == ["hello you", "hello you"]


def test_runs_are_named_and_tagged() -> None:
    runs: list[tuple[str, list[str]]] = []

    class Recorder(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: Any, messages: Any, *, tags: Any = None, **kwargs: Any) -> None:
            runs.append((kwargs["name"], tags))

    model = ScriptedChatModel(replies=[NONE], callbacks=[Recorder()])
    chat(model).ask(PROMPT, str)
    assert runs == [("extraction", ["nostream"])]


def openai(answer: Callable[[dict[str, Any]], httpx.Response]) -> ChatOpenAI:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer(json.loads(request.content))

    transport = httpx.MockTransport(handle)
    return ChatOpenAI(
        model="gpt-4o-mini", api_key="k", max_retries=0, http_client=httpx.Client(transport=transport),
        http_async_client=httpx.AsyncClient(transport=transport),
    )  # fmt: skip


def completion(content: str, finish: str = "stop") -> httpx.Response:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return httpx.Response(200, json=body)


async def test_openai_is_asked_for_the_schema_itself() -> None:
    sent: list[dict[str, Any]] = []
    model = openai(lambda body: sent.append(body) or completion(json.dumps(NONE)))
    asked = chat(model)
    assert [asked.ask(PROMPT, str), await asked.aask(PROMPT, str)] == [json.dumps(NONE)] * 2
    for body in sent:
        form = body["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["strict"] is True
        assert form["json_schema"]["schema"] == {k: v for k, v in EXTRACTION_SCHEMA.items() if k != "title"}


async def test_a_server_behind_openais_client_that_knows_no_schema_gets_the_plain_prompt() -> None:
    def answer(body: dict[str, Any]) -> httpx.Response:
        if "response_format" in body or "tools" in body:
            return httpx.Response(400, json={"error": {"message": "This response_format type is unavailable now"}})
        return completion(json.dumps(NONE))

    asked = chat(openai(answer))
    assert [asked.ask(PROMPT, str), await asked.aask(PROMPT, str)] == [json.dumps(NONE)] * 2
    assert asked.method == "text"


async def test_a_reply_that_openais_client_refuses_because_it_broke_off_is_kept() -> None:
    asked = chat(openai(lambda _: completion('{"facts": [{"turn": 1', finish="length")))
    assert [asked.ask(PROMPT, str), await asked.aask(PROMPT, str)] == ['{"facts": [{"turn": 1'] * 2
    assert asked.method == "json_schema"


def test_a_wrong_key_is_an_extraction_error_that_names_it() -> None:
    asked = chat(openai(lambda _: httpx.Response(401, json={"error": {"message": "Incorrect API key"}})))
    with pytest.raises(ExtractionError, match="check the model's name, key and address"):
        asked.ask(PROMPT, str)
