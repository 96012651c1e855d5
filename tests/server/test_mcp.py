"""The tools of MCP, called by the SDK's own client."""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import ClientSession
from mcp.shared.memory import create_connected_server_and_client_session
from server_kit import ALICE, OPS, TOKENS, serving, told
from starlette.testclient import TestClient

from langchain_memlayer import Memory, Scope
from langchain_memlayer.server.mcp_tools import mcp_server


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(":memory:", model=None, embeddings=None) as memory:
        yield memory


@asynccontextmanager
async def session(memory: Memory, scope: Scope = Scope("ann"), **options: Any) -> AsyncIterator[ClientSession]:  # noqa: B008
    async with create_connected_server_and_client_session(mcp_server(memory, scope=scope, **options)) as client:
        yield client


async def asked(client: ClientSession, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert not answer.isError, answer
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def refused(client: ClientSession, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.isError, answer
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def test_what_is_remembered_is_recalled_updated_explained_and_forgotten(memory: Memory) -> None:
    async with session(memory) as client:
        said = await asked(client, "remember", content="Ann's locker is number 12.")
        one = memory.get_all(user_id="ann", kinds=["fact"])["results"][0]["id"]
        assert f"Stored [{one}]" in said
        assert "number 12" in await asked(client, "recall", query="locker")
        await asked(client, "update", id=one, content="Ann's locker is number 13.")
        recalled = await asked(client, "recall", query="locker", limit=1)
        assert "number 13" in recalled
        assert recalled.startswith("<recalled_memories")
        assert "number 12" in await asked(client, "history", id=one)
        assert '"decisions"' in await asked(client, "why", id=one)
        await asked(client, "forget", id=one)
        assert memory.get(one) is None
        assert memory.history(one)[0]["new_value"] == "Ann's locker is number 12."
        await asked(client, "forget", id=one, everywhere=True)
        assert memory.history(one)[0]["new_value"] is None
        assert "Nothing is remembered" in await asked(client, "recall", query="passport")


async def test_recall_tells_what_held_at_a_time() -> None:
    with told() as memory:
        first = memory.history(memory.get_all(user_id="ann")["results"][0]["id"])[0]
        async with session(memory) as client:
            assert "Berlin" in await asked(client, "recall", query="Where does Ann live?")
            assert "Paris" in await asked(client, "recall", query="Where does Ann live?", as_of=first["timestamp"])


async def test_the_tools_say_what_they_change(memory: Memory) -> None:
    async with session(memory) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["remember", "recall", "update", "forget", "history", "why"]
    reading = [name for name, tool in tools.items() if tool.annotations and tool.annotations.readOnlyHint]
    ending = [name for name, tool in tools.items() if tool.annotations and tool.annotations.destructiveHint]
    assert (reading, ending) == (["recall", "history", "why"], ["update", "forget"])
    assert not any("user_id" in tool.inputSchema["properties"] for tool in tools.values())


async def test_a_model_reaches_nobody_else(memory: Memory) -> None:
    theirs = memory.add("Bob's key is under the mat.", user_id="bob")["results"][0]["id"]
    async with session(memory) as client:
        assert "Nothing is remembered" in await asked(client, "recall", query="key under the mat")
        assert "user_id" in await refused(client, "recall", query="key", user_id="bob")
        for tool, more in (
            ("history", {}),
            ("why", {}),
            ("forget", {"everywhere": True}),
            ("update", {"content": "x"}),
        ):
            assert "no memory" in await refused(client, tool, id=theirs, **more)
    assert memory.get(theirs) is not None


async def test_a_model_that_may_name_ids_names_none_but_those_that_are_open(memory: Memory) -> None:
    memory.add("Bob's key is under the mat.", user_id="bob", agent_id="butler")
    async with session(memory, Scope(agent_id="butler"), ids_from_model=True) as client:
        assert "mat" in await asked(client, "recall", query="key", user_id="bob")
        assert "Nothing is remembered" in await asked(client, "recall", query="key", user_id="ann")
        assert "other ids" in await refused(client, "recall", query="key", agent_id="cook")
    async with session(memory, Scope(), ids_from_model=True) as client:
        assert "Nothing says whose" in await refused(client, "recall", query="key")


async def test_what_cannot_be_used_is_an_answer_that_a_model_can_act_on(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with session(memory) as client:
        assert "as_of" in await refused(client, "recall", query="x", as_of="last summer")
        assert "content" in await refused(client, "remember", content="  ")
        assert "there are remember" in await refused(client, "reset")

        async def broken(*args: Any, **given: Any) -> Any:
            raise RuntimeError("number 12")

        monkeypatch.setattr(memory, "asearch", broken)
        with caplog.at_level(logging.DEBUG, "langchain_memlayer"):
            assert "go on without it" in await refused(client, "recall", query="x")
    assert "RuntimeError" in caplog.text
    assert "number 12" not in caplog.text


def called(client: TestClient, address: str, tool: str, **arguments: Any) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    answer = client.post(address, json=body, headers={"accept": "application/json, text/event-stream"})
    assert answer.status_code == 200, answer.text
    return answer.json()["result"]


def test_over_http_the_token_and_the_address_say_whose_memories_are_meant(memory: Memory) -> None:
    memory.add("Alice keeps the key under the mat.", user_id="alice")
    with serving(memory, tokens=TOKENS) as clients:
        assert "mat" in called(clients(ALICE), "/mcp", "recall", query="key")["content"][0]["text"]
        assert "mat" in called(clients(OPS), "/mcp?user_id=alice", "recall", query="key")["content"][0]["text"]
        for client, address, says in (
            (clients(ALICE), "/mcp?user_id=bob", "other ids"),
            (clients(OPS), "/mcp", "Nothing says whose"),
        ):
            answer = called(client, address, "recall", query="key")
            assert answer["isError"]
            assert says in answer["content"][0]["text"]


def test_a_page_of_another_site_calls_no_tool(memory: Memory) -> None:
    with serving(memory) as clients:
        for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
            assert clients().post("/mcp?user_id=a", json={}, headers=headers).status_code in (403, 421)
        # There is nothing to be waited for: a stream that the server never writes to would only hold a connection.
        assert clients().get("/mcp?user_id=a", headers={"accept": "text/event-stream"}).status_code == 405


def test_a_message_that_cannot_be_read_leaves_no_text_in_the_logs(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    called = {"method": "tools/call", "params": {"name": "remember", "arguments": "locker 12"}}
    wrong = {"jsonrpc": "2.0", "id": 1, **called}
    told = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"message": "locker 12"}}
    with serving(memory) as clients, caplog.at_level("DEBUG"):
        for body in (wrong, told):
            clients().post("/mcp?user_id=a", json=body, headers={"accept": "application/json, text/event-stream"})
    assert any("could not be served (session," in record.getMessage() for record in caplog.records)
    assert "locker 12" not in caplog.text
