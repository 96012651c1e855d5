"""What the tests of nodes, tools, middleware and retriever share: a memory, scripted replies, small graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from journal_dump import open_memory
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from memory_kit import Extracting

from langchain_memlayer import Memory
from langchain_memlayer.agents.nodes import MemoryState
from langchain_memlayer.types import Extraction, Fact, Turn

ALICE = {"user_id": "alice"}


class Context(TypedDict, total=False):
    user_id: str
    agent_id: str
    session_id: str


class State(MemoryState, total=False):
    messages: Annotated[list[AnyMessage], add_messages]


class Sentences(Extracting):
    """An extractor that takes every turn of a user for a fact, and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        self.calls.append([turn.text for turn in turns])
        return Extraction(
            tuple(
                Fact(turn.text, (place,), quote=turn.text)
                for place, turn in enumerate(turns)
                if turn.role == "user" and not turn.text.endswith("?")
            )
        )


def open_with_facts(folder: Any = ":memory:", **settings: Any) -> Memory:
    """A memory whose facts are the statements of the user."""
    return open_memory(folder, **{"extractor": Sentences(), **settings})


def said(text: str, **fields: Any) -> dict[str, list[HumanMessage]]:
    """The input of a turn."""
    return {"messages": [HumanMessage(text, **fields)]}


def thread(name: str = "1", **configurable: Any) -> dict[str, Any]:
    """The configuration of a thread."""
    return {"configurable": {"thread_id": name, **configurable}}


def chat_graph(memory: Memory, *nodes: Any, answer: Any = "Noted.", **compiled: Any) -> Any:
    """A chat turn: an answer, then the given nodes in order."""

    def reply(state: State) -> dict[str, Any]:
        text = answer(state) if callable(answer) else answer
        return {"messages": [AIMessage(text)]}

    return graph_of(reply, *(nodes or (memory.as_node(),)), **compiled)


def graph_of(*nodes: Any, state: Any = State, **compiled: Any) -> Any:
    """A graph of nodes in a row, named `node0`, `node1` and so on."""
    builder = StateGraph(state, context_schema=Context)
    builder.add_sequence([(f"node{number}", node) for number, node in enumerate(nodes)])
    return builder.add_edge(START, "node0").compile(**compiled)


def facts(memory: Memory, **scope: Any) -> list[str]:
    """The texts of the live facts of a scope, sorted."""
    return sorted(row["memory"] for row in memory.get_all(**(scope or ALICE), kinds=["fact"])["results"])


def turns(memory: Memory, **scope: Any) -> list[str]:
    """The texts of the kept turns of a scope, sorted."""
    return sorted(row["memory"] for row in memory.get_all(**(scope or ALICE), kinds=["turn"])["results"])


def plain(value: Any) -> bool:
    """Whether a value is made of JSON's own types only."""
    if isinstance(value, Mapping):
        return type(value) is dict and all(type(k) is str and plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(plain, value))
    return value is None or type(value) in (str, int, float, bool)
