"""An agent for LangGraph's agent server: what a user says in one thread is known in all of that user's threads."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage, SystemMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from langchain_memlayer import MemLayerStore, Memory
from langchain_memlayer.agents.nodes import MemoryState, memory_graph, recall_node


class State(MemoryState):
    messages: Annotated[list[AnyMessage], add_messages]


class Context(TypedDict, total=False):
    user_id: str


def scripted(messages: list[BaseMessage]) -> str | dict[str, Any]:
    """What a model would say: sentences that begin with "I" are facts, and the answer is what was recalled of them."""
    asked = messages[-1].text
    if asked.endswith("</conversation>"):  # which facts are in it?
        said = re.findall(r"^\[(\d+)\] [^:]+, user: (I (.+?)[.!]?)$", asked, re.MULTILINE)
        rest = {"subject": "User", "valid_at": "", "retract": False, "triples": []}
        return {"facts": [{"turn": int(n), "quote": quote, "fact": f"User {fact}", **rest} for n, quote, fact in said]}
    if asked.endswith("</facts>"):  # what do they do to what is known?
        add = {"action": "ADD", "memory": 0, "text": "", "reason": "new"}
        return {"decisions": [{"fact": int(n), **add} for n in re.findall(r'^{"fact": (\d+)', asked, re.MULTILINE)]}
    if "\n\nQuestion:\n" in asked:  # what is to be searched for?
        return {"queries": [asked.rpartition("\n")[2]], "entities": []}
    known = dict.fromkeys(re.findall(r"^- \S+ (?:User|user: I) (.+?)\.?$", messages[0].text, re.MULTILINE))
    return f"You {' and '.join(known)}." if known else "I know nothing of that."


def choose_model() -> BaseChatModel:
    if os.environ.get("OPENAI_API_KEY"):
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model="gpt-4o-mini")
    from langchain_memlayer.testing import ScriptedChatModel

    return ScriptedChatModel(replies=scripted)


model = choose_model()


def open_store() -> MemLayerStore:
    store = Memory(model=model).store  # in MEMLAYER_HOME: a folder, or a postgresql:// URL
    store.start_ttl_sweeper()  # the server does so for its own store only
    return store


@asynccontextmanager
async def make_store() -> AsyncIterator[MemLayerStore]:
    # Opening waits for the disk or the network, and the server's event loop must not.
    store = await asyncio.to_thread(open_store)
    async with store.memory:
        yield store


async def answer(state: State) -> dict[str, Any]:
    known = SystemMessage("Answer in one sentence.\n\n" + state["memory_context"])
    return {"messages": [await model.ainvoke([known, *state["messages"]])]}


# The server brings the store and the checkpointer, and the nodes find the memory through the store.
builder = StateGraph(State, context_schema=Context)
builder.add_node("recall", recall_node())
builder.add_node("answer", answer)
builder.add_node("remember", memory_graph())
builder.add_edge(START, "recall")
builder.add_edge("recall", "answer")
builder.add_edge("answer", "remember")
builder.add_edge("remember", END)
graph = builder.compile()
