"""`memlayer serve` and `memlayer mcp` as processes, reached by REST, sockets, MCP's own SDK and LangChain agents."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from integration_tests.json_server import HOST
from integration_tests.memlayer_server import MEMLAYER, serving
from langchain_memlayer import Memory

pytestmark = pytest.mark.allow_hosts([HOST])

CLIENTS, ROUNDS = 50, 6

AGENT = """
import asyncio, sys
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_memlayer.testing import ScriptedChatModel

async def main(address, tool, argument, text):
    client = MultiServerMCPClient({"memory": {"transport": "streamable_http", "url": address}})
    tools = await client.get_tools()
    call = {"name": tool, "args": {argument: text}, "id": "1", "type": "tool_call"}
    model = ScriptedChatModel(replies=[AIMessage("", tool_calls=[call]), "Done."], structured=("function_calling",))
    agent = create_agent(model, tools=tools)
    said = await agent.ainvoke({"messages": [("user", "Go on.")]})
    print([message.text for message in said["messages"] if message.type == "tool"][0])

asyncio.run(main(*sys.argv[1:]))
"""


def test_fifty_clients_at_once_lose_nothing_and_see_nobody_else(tmp_path: Path) -> None:
    tokens = {f"token-of-client-{number:04}": {"user_id": f"user-{number}"} for number in range(CLIENTS)}
    took: list[float] = []

    def client(number: int, address: str) -> None:
        headers = {"authorization": f"Bearer token-of-client-{number:04}"}
        with httpx.Client(base_url=address, headers=headers, timeout=120) as http:
            for turn in range(ROUNDS):
                began = time.perf_counter()
                said = {"messages": f"The code of box {turn} is {number:03}{turn}.", "batch_id": f"call-{turn}"}
                assert http.post("/v1/memories", json=said).status_code == 200
                found = http.post("/v1/search", json={"query": f"code of box {turn}", "limit": 50}).json()["results"]
                took.append((time.perf_counter() - began) / 2)
                assert {hit["user_id"] for hit in found} == {f"user-{number}"}
            assert http.get("/v1/memories", params={"user_id": f"user-{(number + 1) % CLIENTS}"}).status_code == 403

    with serving(tmp_path / "store", tokens=tokens) as address, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS), [address] * CLIENTS))
    with Memory(tmp_path / "store", model=None, embeddings=None) as memory:
        kept = {row["user_id"]: row["turns"] for row in memory.scopes()}
    assert kept == {f"user-{number}": ROUNDS for number in range(CLIENTS)}
    took.sort()
    print(f"{CLIENTS} clients, {2 * len(took)} calls: median {1e3 * took[len(took) // 2]:.0f} ms, "
          f"p95 {1e3 * took[int(0.95 * len(took))]:.0f} ms a call")  # fmt: skip


def test_slow_and_greedy_clients_are_sent_away_while_others_are_served(tmp_path: Path) -> None:
    with serving(tmp_path / "store", "--patience", "1") as address:
        parts = urlsplit(address)

        def opened(text: str) -> socket.socket:
            connection = socket.create_connection((parts.hostname, parts.port), timeout=20)
            connection.sendall(text.encode())
            return connection

        post = f"POST /v1/search HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        silent, halfway = opened(""), opened("GET /v1/health HTTP/1.1\r\nHost: 127")
        slow, greedy = opened(f"{post}Content-Length: 100\r\n\r\n{{"), opened(f"{post}Content-Length: 64000000\r\n\r\n")
        endless = opened(f"{post}Transfer-Encoding: chunked\r\n\r\n")
        assert httpx.get(f"{address}/v1/health").json() == {"status": "ok"}
        # It is told before any of it was sent.
        assert greedy.recv(1000).startswith(b"HTTP/1.1 413")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        assert (silent.recv(1000), halfway.recv(1000)) == (b"", b"")
        sent, piece = 0, b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        with suppress(OSError):
            while sent < 64_000_000:
                endless.sendall(piece)
                sent += 65_536
        assert sent < 64_000_000
        assert httpx.get(f"{address}/v1/health").json() == {"status": "ok"}
        for connection in (silent, halfway, slow, greedy, endless):
            connection.close()


def test_an_export_is_one_state_while_others_write(tmp_path: Path) -> None:
    with serving(tmp_path / "store") as address, httpx.Client(base_url=address, timeout=60) as http:
        texts = [f"Line {number} of the log." for number in range(2_000)]
        http.post("/v1/memories", json={"messages": texts, "user_id": "ann", "infer": False}).raise_for_status()
        lines = 0
        with http.stream("GET", "/v1/export") as answer:
            for number, line in enumerate(answer.iter_lines()):
                if number == 10:
                    httpx.post(f"{address}/v1/memories", json={"messages": "One more.", "user_id": "bob"})
                lines += 1
                last = json.loads(line)
        assert (last["type"], last["rows"]) == ("end", lines - 2)
        # Nobody reads this one to its end.
        with http.stream("GET", "/v1/export") as answer:
            next(answer.iter_lines())
        assert len(http.get("/v1/scopes").json()) == 2


async def _recalled(session: ClientSession) -> str:
    await session.initialize()
    names = [tool.name for tool in (await session.list_tools()).tools]
    assert names == ["remember", "recall", "update", "forget", "history", "why"]
    await session.call_tool("remember", {"content": "Ann plays the oboe."})
    answer = await session.call_tool("recall", {"query": "oboe"})
    assert not answer.isError
    return str(answer.content[0].text)  # type: ignore[union-attr]


async def test_the_sdks_client_over_stdio(tmp_path: Path) -> None:
    arguments = ["--path", str(tmp_path / "store"), "--model", "none", "--embeddings", "none", "mcp", "--user", "ann"]
    server = StdioServerParameters(command=MEMLAYER, args=arguments)
    async with asyncio.timeout(90), stdio_client(server) as streams, ClientSession(*streams) as session:
        assert "Ann plays the oboe." in await _recalled(session)
    with Memory(tmp_path / "store", model=None, embeddings=None) as memory:
        assert [row["memory"] for row in memory.get_all(user_id="ann", kinds=["fact"])["results"]] == [
            "Ann plays the oboe."
        ]


@pytest.mark.parametrize("thread", [0, 1])
def test_ctrl_c_ends_mcp_while_nothing_is_said(tmp_path: Path, thread: int) -> None:
    """Whichever of its threads the system gives the signal to."""
    arguments = ["--path", str(tmp_path / "store"), "--model", "none", "--embeddings", "none", "mcp", "--user", "ann"]
    asks = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    with subprocess.Popen(
        [MEMLAYER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(json.dumps(asks) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == 1
            threads = Path(f"/proc/{process.pid}/task")
            numbers = sorted(int(one.name) for one in threads.iterdir()) if threads.exists() else [process.pid] * 2
            os.kill(numbers[thread], signal.SIGINT)
            assert process.wait(30) == 130
            assert process.stderr.read() == "memlayer: Interrupted; what had been stored stays.\n"
        finally:
            process.kill()


async def test_the_sdks_client_over_http(tmp_path: Path) -> None:
    token = "token-of-ann-000001"
    with serving(tmp_path / "store", tokens={token: {"user_id": "ann"}}) as address:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            asyncio.timeout(90),
            httpx.AsyncClient(headers=headers) as http,
            streamable_http_client(f"{address}/mcp", http_client=http) as (reading, writing, _),
            ClientSession(reading, writing) as session,
        ):
            assert "Ann plays the oboe." in await _recalled(session)


@pytest.mark.skipif(
    importlib.util.find_spec("langchain_mcp_adapters") is None, reason="langchain-mcp-adapters is missing"
)
def test_an_agent_learns_in_one_process_and_another_recalls_it(tmp_path: Path) -> None:
    def agent(address: str, *given: str) -> str:
        command = [sys.executable, "-c", AGENT, f"{address}/mcp?user_id=ann", *given]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    with serving(tmp_path / "store") as address:
        assert "Stored" in agent(address, "remember", "content", "Ann is allergic to walnuts.")
    with serving(tmp_path / "store") as address:
        assert "Ann is allergic to walnuts." in agent(address, "recall", "query", "What is Ann allergic to?")
        assert "Nothing is remembered" in agent(f"{address}/mcp?user_id=bob#", "recall", "query", "walnuts")
