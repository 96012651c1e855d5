"""Calls as mem0's users write them (its README, documentation and examples, 0.1 to 2.x), and what they give here.

Each is an expression over an open memory `m` in which alice has said things; it must be true. `INSTEAD` has the calls
that do not do the same here: each must say what to use.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from langchain_memlayer import AsyncMemory, Memory, MemoryConfig, as_context
from langchain_memlayer.errors import MemLayerError
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock

SAID = [
    ("I love hiking in the Alps.", {"category": "hobby", "level": 3}),
    ("I am allergic to peanuts.", {"category": "health", "level": 5}),
    ("I work as a nurse in Lyon.", {"category": "job", "level": 1}),
]
CONVERSATION = [
    {"role": "user", "content": "I'm planning to watch a movie tonight."},
    {"role": "assistant", "content": "How about a thriller?"},
    {"role": "user", "content": "I'm not a big fan of thrillers but I love sci-fi."},
]
KEYS = {"id", "memory", "hash", "metadata", "score", "created_at", "updated_at", "user_id"}
HISTORY = {"id", "memory_id", "old_memory", "new_memory", "event", "created_at", "updated_at", "is_deleted", "actor_id"}
OFFLINE = {"embedder": {"provider": "langchain", "config": {"model": DeterministicEmbeddings(8)}}, "llm": None}
CHANGING = re.compile(r"\b(add|update|delete|delete_all|reset|spoken|opened)\(")

CALLS = """
list(m.add("I like tea", user_id="bob")) == ["results", "relations"]
{**m.add("I like tea", user_id="bob")["results"][0], "id": 0} == {"id": 0, "memory": "I like tea", "event": "ADD"}
m.add(messages="I like tea", user_id="bob")["results"]
m.add({"role": "user", "content": "I like tea"}, user_id="bob")["results"]
len(m.add(CONVERSATION, user_id="bob", infer=False)["results"]) == 3
m.add(CONVERSATION, user_id="bob", agent_id="film-bot")["results"]
m.add(CONVERSATION, user_id="bob", agent_id="film-bot", run_id="session-1")["results"]
m.add(CONVERSATION, agent_id="film-bot")["results"]
m.add(CONVERSATION, run_id="session-1")["results"]
m.add("I like tea", user_id=42)["results"]
m.add("I like tea", user_id="bob", metadata={"app_id": "x"})["results"]
m.add([{"role": "user", "name": "Ann", "content": "I like tea"}], user_id="bob")["results"]
m.add("I like tea", user_id="bob", metadata=None)["results"]
m.add("I like tea", user_id="bob", memory_type=None, prompt=None)["results"]
list(m.search("hiking", user_id="alice")) == ["results", "relations"]
like(m.search("hiking", user_id="alice")["results"][0], KEYS, memory=SAID[0][0], user_id="alice")
like(m.search("hiking", user_id="alice")["results"][0]["metadata"], set(), category="hobby")
all(0 <= hit["score"] <= 1 for hit in m.search("hiking", user_id="alice")["results"])
m.search(query="hiking", user_id="alice")["results"]
m.search("hiking", filters={"user_id": "alice"})["results"][0]["memory"] == SAID[0][0]
m.search("hiking", filters={"user_id": "alice"}, top_k=1)["results"][0]["memory"] == SAID[0][0]
len(m.search("I love work", user_id="alice", limit=2)["results"]) == 2
len(m.search("I love work", user_id="alice", top_k=2)["results"]) == 2
m.search("hiking", user_id="alice", threshold=0.1)["results"]
m.search("hiking", user_id="alice", threshold=1.0)["results"] == []
m.search("hiking", user_id="bob")["results"] == []
m.search("hiking", filters={"user_id": "bob"})["results"] == []
m.search("hiking", user_id="alice", rerank=True)["results"]
m.search("hiking", user_id="alice", rerank=False)["results"]
m.search("hiking", filters={"user_id": "alice"}, explain=True)["results"][0]["explanation"]
len(m.search("I", user_id="alice", filters={"category": "job"})["results"]) == 1
len(m.search("I", filters={"user_id": "alice", "category": "job"})["results"]) == 1
len(m.search("I", filters={"user_id": "alice", "category": {"eq": "job"}})["results"]) == 1
len(m.search("I", filters={"user_id": "alice", "category": {"ne": "job"}})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "category": {"in": ["job", "hobby"]}})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "category": ["job", "hobby"]})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "category": {"nin": ["job", "hobby"]}})["results"]) == 1
len(m.search("I", filters={"user_id": "alice", "level": {"gt": 1}})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "level": {"gte": 1}})["results"]) == 3
len(m.search("I", filters={"user_id": "alice", "level": {"lt": 5}})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "level": {"lte": 5}})["results"]) == 3
len(m.search("I", filters={"user_id": "alice", "level": {"gt": 1, "lt": 5}})["results"]) == 1
len(m.search("I", filters={"user_id": "alice", "category": {"contains": "ob"}})["results"]) == 2
len(m.search("I", filters={"AND": [{"user_id": "alice"}, {"category": "job"}]})["results"]) == 1
len(m.search("I", filters={"user_id": "alice", "OR": [{"category": "job"}, {"level": 5}]})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "NOT": [{"category": "job"}]})["results"]) == 2
len(m.search("I", filters={"AND": [{"user_id": "alice"}, {"OR": [{"level": 1}, {"level": 3}]}]})["results"]) == 2
len(m.search("I", filters={"user_id": "alice", "actor_id": "Ann"})["results"]) == 0
(spoken(m), len(m.search("tea", filters={"user_id": "alice", "actor_id": "Ann"})["results"]))[1] == 1
(spoken(m), m.search("tea", filters={"AND": [{"user_id": "alice"}, {"actor_id": {"in": ["Ann"]}}]}))[1]["results"]
(spoken(m), len(m.get_all(filters={"user_id": "alice", "actor_id": "Ann", "category": "x"})["results"]))[1] == 0
len(m.get_all(user_id="alice")["results"]) == 3
len(m.get_all(filters={"user_id": "alice"})["results"]) == 3
len(m.get_all(filters={"user_id": "alice"}, top_k=2)["results"]) == 2
len(m.get_all(user_id="alice", limit=2)["results"]) == 2
m.get_all(user_id="nobody")["results"] == []
len(m.get_all(user_id="alice", filters={"category": "health"})["results"]) == 1
len(m.get_all(filters={"user_id": "alice", "level": {"gte": 3}})["results"]) == 2
"relations" in m.get_all(user_id="alice")
KEYS - {"score"} <= set(m.get_all(user_id="alice")["results"][0])
m.get(memory_id=key)["id"] == key
like(m.get(key), KEYS - {"score"}, memory=SAID[0][0])
m.get("no-such-id") is None
m.update(key, "I love climbing.") == {"message": "Memory updated successfully!"}
m.update(memory_id=key, data="I love climbing.")["message"]
m.update(memory_id=key, text="I love climbing.")["message"]
m.update(key, "I love climbing.", {"category": "sport"})["message"]
m.update(key, data="I love climbing.", metadata={"category": "sport"})["message"]
m.update(key, "I love climbing.", {"category": "sport"}, "2999-01-01")["message"]
m.update(key, metadata={"category": "sport"})["message"]
(m.update(key, "I love climbing."), m.get(key)["memory"])[1] == "I love climbing."
m.delete(key) == {"message": "Memory deleted successfully!"}
m.delete(memory_id=key)["message"]
(m.delete(key), m.get(key))[1] is None
m.delete_all(user_id="alice")["message"] == "Memories deleted successfully!"
(m.delete_all(user_id="alice"), m.get_all(user_id="alice")["results"])[1] == []
(m.delete_all("alice"), m.get_all(user_id="alice")["results"])[1] == []
m.delete_all(agent_id="film-bot")["message"]
m.delete_all(run_id="session-1")["message"]
like(m.history(memory_id=key)[0], HISTORY, event="ADD", old_memory=None, new_memory=SAID[0][0])
like((m.update(key, "I climb."), m.history(key)[1])[1], set(), event="UPDATE", old_memory=SAID[0][0])
like((m.delete(key), m.history(key)[-1])[1], set(), event="DELETE", is_deleted=1)
m.add("Offer ends soon", user_id="bob", expiration_date="2999-01-01")["results"]
m.search("hiking", filters={"user_id": "alice"}, show_expired=True)["results"]
m.search("hiking", filters={"user_id": "alice"}, show_expired=False)["results"]
len(m.get_all(filters={"user_id": "alice"}, show_expired=True)["results"]) == 3
m.update(key, expiration_date="2999-01-01")["message"]
m.add("Offer ends soon", user_id="bob", expiration_date=datetime(2999, 1, 1, 12))["results"]
m.update(key, expiration_date=datetime.fromisoformat("2999-01-01T12:00+08:00"))["message"]
m.search("hiking", filters={"user_id": "alice"}, reference_date=None)["results"]
(m.update(key, text="I climb.", data="I ski."), m.get(key)["memory"])[1] == "I climb."
m.history("no-such-id") == []
(m.reset(), m.get_all(user_id="alice")["results"])[1] == []
raises(ValueError, lambda: m.delete("no-such-id"))
raises(ValueError, lambda: m.update("no-such-id", "x"))
raises(ValueError, lambda: m.add("x"))
raises(ValueError, lambda: m.search("x"))
raises(ValueError, lambda: m.get_all())
raises(ValueError, lambda: m.delete_all())
raises(ValueError, lambda: m.search("x", user_id="alice", threshold=2))
opened(Memory.from_config(OFFLINE))
opened(Memory.from_config(config_dict=OFFLINE))
opened(Memory(config=MemoryConfig(embedder={"provider": "wordllama"}, llm=None)))
opened(Memory.from_config({**OFFLINE, "version": "v1.1"}))
opened(Memory.from_config({**OFFLINE, "history_db_path": "history.db"}))
opened(Memory.from_config({**OFFLINE, "graph_store": {"provider": "neo4j", "config": {"url": "neo4j://h"}}}))
opened(Memory.from_config({**OFFLINE, "reranker": {"provider": "cohere", "config": {"model": "rerank-v3"}}}))
opened(Memory.from_config({**OFFLINE, "custom_fact_extraction_prompt": "Only food."}))
opened(Memory.from_config({**OFFLINE, "custom_update_memory_prompt": "Never delete."}))
opened(Memory.from_config({**OFFLINE, "custom_instructions": "Only food."}))
opened(Memory.from_config({**OFFLINE, "vector_store": {"provider": "faiss", "config": {"path": "vectors"}}}))
opened(Memory.from_config({**OFFLINE, "llm": {"provider": "ollama", "config": {"model": "llama3.1"}}}))
opened(AsyncMemory.from_config(OFFLINE).memory)
""".strip().splitlines()

INSTEAD = {
    'm.add("x", user_id="bob", memory_type="procedural_memory")': "infer=False",
    'm.add("x", user_id="bob", prompt="Only food.")': "custom_instructions",
    'm.search("x", filters={"user_id": "alice"}, reference_date="2025-01-01")': "reference_time",
    'm.search("x", filters={"user_id": "*"})': "everything=True",
    'm.search("x", filters={"user_id": "alice", "category": "*"})': "exists",
    'm.search("x", filters={"user_id": "alice", "category": {"icontains": "J"}})': "contains",
}


def raises(kind: type[Exception], call: Any) -> bool:
    with pytest.raises(kind):
        call()
    return True


def like(found: dict[str, Any], names: set[str], **values: Any) -> bool:
    return names <= set(found) and {name: found[name] for name in values} == values


def spoken(memory: Memory) -> None:
    memory.add([{"role": "user", "name": "Ann", "content": "I like tea"}], user_id="alice")


def opened(memory: Memory) -> bool:
    with memory:
        return memory.add("I like tea.", user_id="u", infer=False)["results"][0]["event"] == "ADD"


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    with Memory(tmp_path / "alice", model=None, embeddings=None) as memory:
        keys = [memory.add(text, user_id="alice", metadata=more)["results"][0]["id"] for text, more in SAID]
        yield {**globals(), "AsyncMemory": AsyncMemory, "MemoryConfig": MemoryConfig, "m": memory, "key": keys[0]}


@pytest.mark.parametrize("call", [call for call in CALLS if CHANGING.search(call)])
def test_a_call_of_mem0s_users_does_the_same_here(call: str, names: dict[str, Any]) -> None:
    assert eval(call, names)


def test_a_reading_call_of_mem0s_users_does_the_same_here(names: dict[str, Any]) -> None:
    assert [call for call in CALLS if not CHANGING.search(call) and not eval(call, names)] == []


def test_what_does_not_do_the_same_says_what_to_use(names: dict[str, Any]) -> None:
    for call, said in INSTEAD.items():
        with pytest.raises((MemLayerError, NotImplementedError, AttributeError), match=said):
            eval(call, names)


def test_a_memory_that_has_expired_is_not_recalled(tmp_path: Path) -> None:
    clock = FrozenClock()
    with Memory(tmp_path, model=None, embeddings=None, clock=clock) as memory:
        day = clock().date().isoformat()
        key = memory.add("The code of the door is 4711", user_id="u", expiration_date=day)["results"][0]["id"]
        memory.add("The door is green", user_id="u")
        found = lambda **more: [hit["memory"] for hit in memory.search("door", user_id="u", **more)["results"]]  # noqa: E731
        assert len(found()) == 2  # through the day that is named
        clock.advance(days=1)
        assert found() == ["The door is green"]
        assert len(found(show_expired=True)) == 2
        assert "(held until 2025-01-02) " in as_context(
            memory.search("door", user_id="u", show_expired=True)["results"]
        )
        assert memory.get(key)["ended"]
        assert [row["memory"] for row in memory.get_all(user_id="u")["results"]] == ["The door is green"]
        assert len(memory.get_all(user_id="u", show_expired=True)["results"]) == 2
        for never in (None, "9999-12-31", datetime.max):
            memory.update(key, expiration_date=day)
            assert len(found()) == 1
            memory.update(key, expiration_date=never)
            assert len(found()) == 2


def test_what_is_no_date_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    with Memory(tmp_path, model=None, embeddings=None) as memory:
        for date in ("soon", "2025-13-01", 7):
            with pytest.raises(ValueError, match="expiration_date"):
                memory.add("x", user_id="u", expiration_date=date)
        assert memory.get_all(user_id="u")["results"] == []
