"""Hosted models for real: only when the environment asks for it, since each call costs money."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from langchain_memlayer import Memory

pytestmark = pytest.mark.enable_socket


def _openai(asked: str) -> dict[str, Any]:
    chat, _, embedding = asked.partition(",")
    return {
        "llm": {"provider": "openai", "config": {"model": chat if chat != "1" else "gpt-4o-mini"}},
        "embedder": {"provider": "openai", "config": {"model": embedding or "text-embedding-3-small"}},
    }


def _ark(asked: str) -> dict[str, Any]:
    chat, _, embedding = asked.partition(",")
    return {
        "llm": {"provider": "doubao", "config": {"model": chat}},
        "embedder": {"provider": "doubao", "config": {"model": embedding}},
    }


def _deepseek(asked: str) -> dict[str, Any]:
    return {
        "llm": {"provider": "deepseek", "config": {"model": asked if asked != "1" else "deepseek-chat"}},
        "embedder": {"provider": "wordllama"},
    }


@pytest.mark.parametrize(
    ("asks", "key", "sections"),
    [
        ("MEMLAYER_TEST_OPENAI", "OPENAI_API_KEY", _openai),
        ("MEMLAYER_TEST_ARK", "ARK_API_KEY", _ark),
        ("MEMLAYER_TEST_DEEPSEEK", "DEEPSEEK_API_KEY", _deepseek),
    ],
)
def test_what_is_said_is_remembered_changed_and_found(asks: str, key: str, sections: Any, tmp_path: Path) -> None:
    for name in (asks, key):
        if not os.environ.get(name):
            pytest.skip(f"{name} is not set (see the README beside this file)")
    with Memory.from_config({**sections(os.environ[asks]), "path": str(tmp_path / "m")}) as memory:
        told = memory.add("My name is Ana, and I live in Porto with my dog Rex.", user_id="ana")["results"]
        assert any("Porto" in entry["memory"] for entry in told)
        memory.add("We have moved: I live in Faro now.", user_id="ana")
        found = memory.search("Where does Ana live?", user_id="ana", limit=3)["results"]
        assert any("Faro" in hit["memory"] for hit in found)
        assert memory.search("Where does Ana live?", user_id="bob")["results"] == []
