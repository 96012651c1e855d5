"""Each hosted provider, through `Memory.from_config`: the path, the key and the body that its server receives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration_tests.conftest import Loopback
from langchain_memlayer import Memory

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

SAID = "I moved to Berlin"
FACT = {
    "turn": 1,
    "quote": SAID,
    "fact": "Anna moved to Berlin",
    "subject": "Anna",
    "valid_at": "",
    "retract": False,
    "triples": [["Anna", "lives in", "Berlin"]],
}
REPLY = json.dumps({"facts": [FACT]})


def told(config: dict[str, Any]) -> list[str]:
    with Memory.from_config(config) as memory:
        added = memory.add(SAID, user_id="anna")["results"]
        assert SAID not in [row["memory"] for row in memory.search(SAID, user_id="bob")["results"]]
    return [row["memory"] for row in added]


@pytest.mark.parametrize("provider", ["openai", "doubao"])
def test_chat_and_embeddings_reach_the_configured_server(provider: str, loopback: Loopback, tmp_path: Path) -> None:
    loopback.message = lambda body: {"content": REPLY}
    shared = {"api_key": "key-1", "base_url": loopback.url}
    config = {
        "llm": {"provider": provider, "config": {"model": "chat-x", "temperature": 0.25, **shared}},
        "embedder": {"provider": provider, "config": {"model": "embed-x", "embedding_dims": "4", **shared}},
        "path": str(tmp_path / "m"),
    }
    assert told(config) == ["Anna moved to Berlin"]
    assert {one.path for one in loopback.asked} == {"/v1/chat/completions", "/v1/embeddings"}
    assert {one.authorization for one in loopback.asked} == {"Bearer key-1"}
    [chat] = loopback.of("/chat/completions")
    assert (chat.body["model"], chat.body["temperature"]) == ("chat-x", 0.25)
    assert SAID in json.dumps(chat.body["messages"])
    for one in loopback.of("/embeddings"):
        assert (one.body["model"], one.body["dimensions"]) == ("embed-x", 4)
        assert all(isinstance(text, str) for text in one.body["input"])
        assert provider == "openai" or one.body["encoding_format"] == "float"


def test_doubao_takes_its_key_and_address_from_the_environment(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARK_API_KEY", "ark-key")
    monkeypatch.setenv("ARK_BASE_URL", loopback.url)
    loopback.message = lambda body: {"content": REPLY}
    section = {"provider": "doubao", "config": {"model": "ep-1"}}
    assert told({"llm": section, "embedder": section, "path": str(tmp_path / "m")}) == ["Anna moved to Berlin"]
    assert {one.authorization for one in loopback.asked} == {"Bearer ark-key"}


def test_the_reasoning_of_deepseek_r1_is_not_taken_for_its_answer(loopback: Loopback, tmp_path: Path) -> None:
    pytest.importorskip("langchain_deepseek")
    wrong = json.dumps({"facts": [FACT | {"fact": "Anna moved away"}]})
    loopback.message = lambda body: {
        "reasoning_content": f"Perhaps {wrong}",
        "content": f"<think>Perhaps {wrong}</think>\n```json\n{REPLY}\n```",
    }
    config = {"model": "deepseek-reasoner", "api_key": "key-2", "base_url": loopback.url}
    settings = {
        "llm": {"provider": "deepseek", "config": config},
        "embedder": {"provider": "wordllama"},
        "path": str(tmp_path / "m"),
    }
    pytest.importorskip("wordllama")
    assert told(settings) == ["Anna moved to Berlin"]
    assert {one.path for one in loopback.asked} == {"/v1/chat/completions"}
    assert {one.authorization for one in loopback.asked} == {"Bearer key-2"}
    assert {one.body["model"] for one in loopback.asked} == {"deepseek-reasoner"}
