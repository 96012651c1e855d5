from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langsmith import Client
from langsmith.run_helpers import tracing_context
from memory_kit import call
from surfaces_kit import ALICE, Context, facts, open_with_facts, said

from langchain_memlayer import ExtractionError, Memory
from langchain_memlayer.testing import ScriptedChatModel

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
FOUND = {"facts": [{"turn": 1, "quote": "I live in Paris", "fact": "The user lives in Paris", "subject": "",
                    "valid_at": "", "retract": False, "triples": []}]}  # fmt: skip


def found() -> AIMessage:
    return AIMessage(json.dumps(FOUND), usage_metadata=USAGE)


class Runs:
    """The runs that a client was given, by their ids."""

    def __init__(self) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}

    def take(self, run: dict[str, Any]) -> None:
        known = self.by_id.setdefault(str(run["id"]), {})
        known.update({key: value for key, value in run.items() if value is not None})

    def named(self, name: str) -> dict[str, Any]:
        [run] = [run for run in self.by_id.values() if run["name"] == name]
        return run

    def path(self, run: dict[str, Any]) -> list[str]:
        names = [run["name"]]
        while run.get("parent_run_id"):
            run = self.by_id[str(run["parent_run_id"])]
            names.insert(0, run["name"])
        return names

    def tree(self) -> list[str]:
        return sorted(" > ".join(self.path(run)) for run in self.by_id.values())


class Recorder(Client):
    """A client that keeps runs and sends nothing."""

    def __init__(self) -> None:
        super().__init__(session=MagicMock(), info={}, auto_batch_tracing=False, api_key="none")
        self.__dict__["runs"] = Runs()

    def create_run(self, name: str, inputs: Any, run_type: Any, **rest: Any) -> None:
        self.__dict__["runs"].take({"name": name, "inputs": inputs, "run_type": run_type, **rest})

    def update_run(self, run_id: Any = None, **rest: Any) -> None:
        self.__dict__["runs"].take({"id": run_id, **rest})


@contextmanager
def recorded() -> Iterator[Runs]:
    """Tracing into a client that sends nothing."""
    client = Recorder()
    with tracing_context(enabled=True, client=client, project_name="tests"):
        yield client.__dict__["runs"]


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_with_facts(extractor=None, model=ScriptedChatModel(replies=lambda _: found())) as opened:
        yield opened


def sent(runs: Runs) -> str:
    return json.dumps(list(runs.by_id.values()), default=str)


async def test_add_is_a_chain_of_extraction_reconciliation_and_commit(memory: Memory, way: str) -> None:
    with recorded() as runs:
        await call(way, memory, "add", "I live in Paris.", **ALICE)
    assert runs.tree() == [
        "Memory.add", "Memory.add > commit", "Memory.add > extraction", "Memory.add > extraction > extraction",
        "Memory.add > keep", "Memory.add > reconciliation",
    ]  # fmt: skip
    chat = next(run for run in runs.by_id.values() if run["run_type"] == "llm")
    assert runs.path(chat) == ["Memory.add", "extraction", "extraction"]
    assert {run["run_type"] for run in runs.by_id.values()} == {"chain", "llm"}
    assert all(run.get("end_time") and not run.get("error") for run in runs.by_id.values())
    assert runs.named("reconciliation")["outputs"]["decisions"][0].action == "ADD"
    assert runs.named("Memory.add")["outputs"]["results"][0]["memory"] == "The user lives in Paris"
    assert "18" in json.dumps(chat["outputs"], default=str)


async def test_search_is_a_retriever_with_documents(memory: Memory, way: str) -> None:
    memory.add("I live in Paris.", **ALICE)
    with recorded() as runs:
        await call(way, memory, "search", "Paris", **ALICE)
    [run] = runs.by_id.values()
    assert (run["name"], run["run_type"]) == ("Memory.search", "retriever")
    assert run["inputs"]["query"] == "Paris"
    [first, *_] = run["outputs"]["documents"]
    assert first["type"] == "Document"
    assert "Paris" in first["page_content"]
    assert first["metadata"]["kind"] in ("fact", "turn")


def test_no_personal_id_is_in_tags_and_metadata(memory: Memory) -> None:
    scopes = {"user_id": "alice@example.com", "agent_id": "agent-7", "run_id": "run-7"}
    with recorded() as runs:
        memory.add("I live in Paris.", **scopes, session_id="session-7")
        memory.search("Paris", **scopes)
    for run in runs.by_id.values():
        labels = json.dumps([run.get("tags"), run.get("extra")], default=str)
        assert not [name for name in (*scopes.values(), "session-7") if name in labels]
        assert "Paris" not in labels
    assert len({run["extra"]["metadata"].get("scope") for run in runs.by_id.values()} - {None}) == 1
    # Another scope has another digest.
    with recorded() as runs:
        for scope in ({"user_id": "alice"}, {"user_id": "bob"}, {"agent_id": "alice"}):
            memory.search("Paris", **scope)
    assert len({run["extra"]["metadata"]["scope"] for run in runs.by_id.values()}) == 3


async def test_a_failure_ends_the_runs_with_its_error(way: str) -> None:
    model = ScriptedChatModel(replies=[TimeoutError("slow")])
    with open_with_facts(extractor=None, model=model) as memory, recorded() as runs, pytest.raises(ExtractionError):
        await call(way, memory, "add", "I live.", **ALICE)
    ended = {run["name"]: run.get("error") for run in runs.by_id.values() if run["run_type"] == "chain"}
    assert not ended.pop("keep")
    assert set(ended) == {"Memory.add", "extraction"}
    assert all("slow" in str(error) for error in ended.values())


async def test_a_cancelled_add_ends_its_runs() -> None:
    asked = asyncio.Event()

    class Waiting(ScriptedChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            asked.set()
            return await super()._agenerate(*args, **kwargs)

    with (
        open_with_facts(extractor=None, model=Waiting(replies=lambda _: found(), together=2)) as memory,
        recorded() as runs,
    ):
        task = asyncio.ensure_future(memory.aadd("I live in Paris.", **ALICE))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert facts(memory) == []
    ended = [run for run in runs.by_id.values() if run["run_type"] == "chain"]
    assert [run["name"] for run in ended] == ["Memory.add", "keep", "extraction"]
    assert ["CancelledError" in str(run.get("error")) for run in ended] == [True, False, True]


async def test_adds_at_once_keep_their_own_children() -> None:
    model = ScriptedChatModel(replies=lambda _: found(), together=10)
    with open_with_facts(extractor=None, model=model) as memory, recorded() as runs:
        await asyncio.gather(*(memory.aadd("I live in Paris.", user_id=f"u{k}") for k in range(10)))
    adds = [run for run in runs.by_id.values() if run["name"] == "Memory.add"]
    assert len(adds) == 10
    for add in adds:
        children = [run["name"] for run in runs.by_id.values() if str(run.get("parent_run_id")) == str(add["id"])]
        assert sorted(children) == ["commit", "extraction", "keep", "reconciliation"]


def test_background_work_stays_below_the_call_that_caused_it(memory: Memory) -> None:
    with recorded() as runs:
        memory.add("I live in Paris.", **ALICE, background=True)
        assert memory.flush()
    assert runs.tree() == [
        "Memory.add", "Memory.add > background", "Memory.add > background > commit",
        "Memory.add > background > extraction", "Memory.add > background > extraction > extraction",
        "Memory.add > background > reconciliation", "Memory.add > keep",
    ]  # fmt: skip


def test_switched_off_nothing_is_imported_and_nothing_recorded() -> None:
    code = """
import sys
from langchain_memlayer import Memory
with Memory(":memory:", model=None, embeddings=None) as memory:
    memory.add("I live in Paris.", user_id="alice")
    memory.search("Paris", user_id="alice")
print(sorted(name for name in sys.modules if name.partition(".")[0] == "langsmith" and "run" in name))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_trace_does_not_change_what_is_stored() -> None:
    stored = []
    for traced in (False, True):
        with open_with_facts(extractor=None, model=ScriptedChatModel(replies=lambda _: found())) as memory:
            with recorded() if traced else tracing_context(enabled=False):
                memory.add("I live in Paris.", **ALICE)
            stored.append(memory.get_all(everything=True, kinds=["fact", "turn"]))
    assert stored[0] == stored[1]


async def test_an_agents_turn_is_one_tree(memory: Memory, way: str) -> None:
    outer = ScriptedChatModel(replies=[AIMessage("Nice.", usage_metadata=USAGE)])
    agent = create_agent(outer, middleware=[memory.as_middleware()], context_schema=Context, name="agent")
    with recorded() as runs:
        await call(way, agent, "invoke", said("I live in Paris."), context=ALICE)
    before, after = (["agent", f"MemoryMiddleware.{hook}_agent"] for hook in ("before", "after"))
    assert runs.path(runs.named("agent")) == ["agent"]
    assert runs.path(runs.named("Memory.search")) == [*before, "Memory.search"]
    assert runs.path(runs.named("Memory.add")) == [*after, "Memory.add"]
    for name in ("reconciliation", "commit"):
        assert runs.path(runs.named(name)) == [*after, "Memory.add", name]
    [model] = [run for run in runs.by_id.values() if run["run_type"] == "llm" and run["name"] == "extraction"]
    assert runs.path(model) == [*after, "Memory.add", "extraction", "extraction"]
    assert runs.named("Memory.search")["run_type"] == "retriever"
    assert len({str(run["trace_id"]) for run in runs.by_id.values()}) == 1
    assert all(run.get("end_time") for run in runs.by_id.values())
    assert '"total_tokens": 18' in json.dumps(model["outputs"], default=str)
    assert "alice" not in json.dumps([run.get("tags") for run in runs.by_id.values()])
