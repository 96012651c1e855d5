"""The chat loop of mem0's quickstart runs with only its import changed, and recalls on the next turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from integration_tests.conftest import Loopback
from langchain_memlayer import Memory

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

SAID = "I am allergic to peanuts"


def reply(body: dict[str, Any]) -> dict[str, Any]:
    if "response_format" not in body:
        return {"content": "Noted."}
    entry = {
        "turn": 1,
        "quote": SAID,
        "fact": "User is allergic to peanuts",
        "subject": "user",
        "valid_at": "",
        "retract": False,
        "triples": [],
    }
    return {"content": json.dumps({"facts": [entry] if SAID in json.dumps(body["messages"][-1]) else []})}


def test_the_next_turn_of_the_quickstart_knows_the_last_one(
    loopback: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-3")
    monkeypatch.setenv("OPENAI_BASE_URL", loopback.url)
    loopback.message = reply

    with Memory(tmp_path / "m") as memory, OpenAI() as client:

        def chat(message: str, user_id: str) -> str:
            found = memory.search(query=message, user_id=user_id, limit=3)
            known = "\n".join(f"- {entry['memory']}" for entry in found["results"])
            messages = [
                {"role": "system", "content": f"Answer by the memories.\n{known}"},
                {"role": "user", "content": message},
            ]
            answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages).choices[0].message.content
            messages.append({"role": "assistant", "content": answer})
            memory.add(messages, user_id=user_id)
            return answer

        chat(SAID, "anna")
        chat("What must I not eat?", "anna")
        chat("What must I not eat?", "bob")

    systems = [
        one.body["messages"][0]["content"]
        for one in loopback.asked
        if "response_format" not in one.body and one.path.endswith("/chat/completions")
    ]
    assert ["peanuts" in system for system in systems] == [False, True, False]
    assert {one.authorization for one in loopback.asked} == {"Bearer key-3"}
