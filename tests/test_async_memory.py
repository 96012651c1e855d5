from __future__ import annotations

import inspect
from pathlib import Path

from langchain_memlayer import AsyncMemory, Memory


async def test_methods_are_awaited_under_their_plain_names(tmp_path: Path) -> None:
    async with AsyncMemory(tmp_path, model=None, embeddings=None) as memory:
        added = await memory.add("I like green tea.", user_id="alice")
        key = added["results"][0]["id"]
        await memory.update(key, "I like black tea.")
        assert [hit["memory"] for hit in (await memory.search("tea", user_id="alice"))["results"]] == [
            "I like black tea."
        ]
        assert len(await memory.history(key)) == 2
        await memory.delete_all(user_id="alice")
        assert await memory.get(key) is None


async def test_a_configuration_may_be_awaited_or_not(tmp_path: Path) -> None:
    config = {"path": str(tmp_path), "llm": None, "embedder": {"provider": "wordllama"}}
    for memory in (AsyncMemory.from_config(config), await AsyncMemory.from_config(config_dict=config)):
        assert memory.memory.model is None
        await memory.close()


def test_every_awaited_twin_has_its_plain_name(tmp_path: Path) -> None:
    twins = {name for name, _ in inspect.getmembers(Memory, inspect.iscoroutinefunction) if name.startswith("a")}
    memory = AsyncMemory(tmp_path, model=None, embeddings=None)
    missing = {name for name in twins if not hasattr(memory, name[1:])}
    memory.memory.close()
    assert missing == set()
