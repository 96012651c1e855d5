from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, PIIMiddleware, SummarizationMiddleware
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime
from surfaces_kit import ALICE, Context, facts, open_with_facts, said, thread, turns

from langchain_memlayer import ConfigurationError, InvalidInput, Memory, ScopeRequired, checkpointer
from langchain_memlayer.agents.middleware import MemoryMiddleware
from langchain_memlayer.messages import RECALLED_OPEN
from langchain_memlayer.testing import ScriptedChatModel


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_with_facts() as opened:
        yield opened


@pytest.fixture(params=["invoke", "ainvoke", "stream"])
def turn(request: pytest.FixtureRequest) -> Any:
    async def take(agent: Any, text: str, *, config: Any = None, **call: Any) -> Any:
        call = {"context": ALICE, **call}
        if request.param == "invoke":
            return await asyncio.to_thread(agent.invoke, said(text), config, **call)
        if request.param == "ainvoke":
            return await agent.ainvoke(said(text), config, **call)
        parts = [part async for part in agent.astream(said(text), config, **call, stream_mode="values")]
        return parts[-1]

    return take


def agent_of(model: ScriptedChatModel, *middleware: Any, **settings: Any) -> Any:
    return create_agent(model, middleware=list(middleware), context_schema=Context, **settings)


def system_of(model: ScriptedChatModel, call: int) -> str:
    first = model.prompts[call][0]
    return str(first.text) if isinstance(first, SystemMessage) else ""


async def test_an_agent_recalls_and_remembers(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=["Noted.", "In Paris."])
    agent = agent_of(model, memory.as_middleware(), system_prompt="Be brief.", checkpointer=InMemorySaver())
    await turn(agent, "I live in Paris.", config=thread("1"))
    assert facts(memory) == ["I live in Paris."]
    state = await turn(agent, "Where do I live?", config=thread("2"))
    assert system_of(model, 0) == "Be brief."
    assert system_of(model, 1).startswith(f"Be brief.\n\n{RECALLED_OPEN}")
    assert "I live in Paris." in system_of(model, 1)
    assert turns(memory) == ["I live in Paris.", "In Paris.", "Noted.", "Where do I live?"]
    assert len(state["messages"]) == 2


async def test_each_model_call_of_a_turn_gets_the_one_recall(memory: Memory, turn: Any) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather."""
        return "Sunny."

    memory.add("I live in Paris.", **ALICE)
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "It is sunny."], structured=("function_calling",))
    agent = agent_of(model, memory.as_middleware(), tools=[weather])
    memory._indexes.embedder.source.reset()  # type: ignore[union-attr]
    await turn(agent, "How is the weather where I live?")
    assert system_of(model, 0) == system_of(model, 1) != ""
    assert len(memory._indexes.embedder.source.queries) == 1  # type: ignore[union-attr]
    quarantined = memory.search("sunny weather", **ALICE, limit=50)["results"]
    assert "Sunny." not in {hit["memory"] for hit in quarantined}


async def test_the_second_turn_of_a_thread_remembers_only_what_is_new(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=["Ah.", "Oh."])
    agent = agent_of(model, memory.as_middleware(), checkpointer=InMemorySaver())
    await turn(agent, "I live in Paris.", config=thread())
    await turn(agent, "I like tea.", config=thread())
    assert memory._engine.extractor.calls == [["I live in Paris.", "Ah."], ["I like tea.", "Oh."]]  # type: ignore[union-attr]
    rows = memory.get_all(**ALICE, kinds=["turn"])["results"]
    assert {row["session_id"] for row in rows} == {"1"}


async def test_what_was_said_is_remembered_though_the_model_failed(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=[TimeoutError("slow"), "Oh."])
    agent = agent_of(model, memory.as_middleware(), checkpointer=InMemorySaver())
    with pytest.raises(TimeoutError):
        await turn(agent, "I live in Paris.", config=thread())
    assert facts(memory) == turns(memory) == ["I live in Paris."]
    await turn(agent, "I like tea.", config=thread())
    assert facts(memory) == ["I like tea.", "I live in Paris."]
    assert turns(memory) == ["I like tea.", "I live in Paris.", "Oh."]


async def test_it_only_recalls_when_told_so(memory: Memory, turn: Any) -> None:
    memory.add("I live in Paris.", **ALICE)
    model = ScriptedChatModel(replies=["In Paris."])
    await turn(agent_of(model, memory.as_middleware(remember=False, limit=1)), "Where do I live?")
    assert "Paris" in system_of(model, 0)
    assert turns(memory) == ["I live in Paris."]


async def test_arguments_of_search_pass_through(memory: Memory, turn: Any) -> None:
    memory.add("I live in Paris.", **ALICE)
    model = ScriptedChatModel(replies=["Hm."])
    middleware = memory.as_middleware(search_kwargs={"filters": {"kind": "nothing"}})
    await turn(agent_of(model, middleware), "Where do I live?")
    assert system_of(model, 0) == ""


@pytest.mark.parametrize("option", ["filter", "user_id", "limit"])
def test_what_search_does_not_take_is_refused_where_it_is_made(memory: Memory, option: str) -> None:
    with pytest.raises(InvalidInput, match=f"not '{option}'"):
        memory.as_middleware(search_kwargs={option: 1})


async def test_the_query_is_rewritten_when_told_so(turn: Any) -> None:
    inner = ScriptedChatModel(replies=[{"queries": ["What is Maria's dog called?"]}])
    with open_with_facts(model=inner) as memory:
        memory.add("Maria's dog is called Rex.", **ALICE)
        model = ScriptedChatModel(replies=["Rex."])
        middleware = memory.as_middleware(search_kwargs={"rewrite": True}, remember=False)
        await turn(agent_of(model, middleware), "And hers?")
        assert "Rex" in system_of(model, 0)
        assert inner.calls == 1


async def test_facts_are_found_in_the_background(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=["Ah."])
    await turn(agent_of(model, memory.as_middleware(background=True)), "I live in Paris.")
    assert "I live in Paris." in turns(memory)
    assert await memory.aflush()
    assert facts(memory) == ["I live in Paris."]


async def test_tools_are_optional(memory: Memory, turn: Any) -> None:
    call = AIMessage("", tool_calls=[{"name": "manage_memory", "args": {"content": "Alice likes tea."}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "Saved."], structured=("function_calling",))
    state = await turn(agent_of(model, memory.as_middleware(tools=True)), "Remember my tea?")
    assert facts(memory) == ["Alice likes tea."]
    assert [type(message) for message in state["messages"]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert not memory.as_middleware().tools


async def test_a_missing_scope_says_what_to_pass(memory: Memory, turn: Any) -> None:
    agent = agent_of(ScriptedChatModel(replies=["x"]), memory.as_middleware())
    with pytest.raises(ScopeRequired, match="context="):
        await turn(agent, "Hello.", context=None)
    with pytest.raises(ConfigurationError, match=r"memory\.store"):
        await turn(agent_of(ScriptedChatModel(replies=["x"]), MemoryMiddleware()), "Hello.")


async def test_without_a_memory_it_uses_the_agents_store(memory: Memory, turn: Any) -> None:
    agent = agent_of(ScriptedChatModel(replies=["x"]), MemoryMiddleware(), store=memory.store)
    await turn(agent, "I live in Paris.")
    assert facts(memory) == ["I live in Paris."]


@pytest.mark.parametrize("configured", [{"user_id": "alice"}])
async def test_the_scope_may_come_from_configurable_or_a_function(
    memory: Memory, turn: Any, configured: dict[str, Any]
) -> None:
    model = ScriptedChatModel(replies=["x", "y"])
    config = {"configurable": configured}
    await turn(agent_of(model, memory.as_middleware()), "I live in Paris.", config=config, context=None)
    by_name = memory.as_middleware(scope=lambda state: {"user_id": state["messages"][0].content[-6:-1]})
    await turn(agent_of(model, by_name), "My name is carol.", context=None)
    assert facts(memory) == ["I live in Paris."]
    assert facts(memory, user_id="carol") == ["My name is carol."]


# -- hooks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [[], [HumanMessage("")], [SystemMessage("Be brief.")], [AIMessage("")]])
async def test_hooks_do_nothing_with_nothing(memory: Memory, messages: list[Any]) -> None:
    middleware = memory.as_middleware(scope=ALICE)
    runtime: Any = Runtime()
    state: Any = {"messages": messages}
    begun = middleware.before_agent(state, runtime)
    assert begun == await middleware.abefore_agent(state, runtime)
    assert begun["memory_context"] == ""
    middleware.after_agent({**state, **begun}, runtime)
    await middleware.aafter_agent({**state, **begun}, runtime)
    assert turns(memory) == []


async def test_awaited_hooks_do_what_plain_ones_do(tmp_path: Path) -> None:
    runtime: Any = Runtime()
    state: Any = {"messages": [HumanMessage("I live in Paris.", id="1"), AIMessage("Ah.", id="2")]}
    seen = []
    for name in ("plain", "awaited"):
        with open_with_facts(tmp_path / name) as memory:
            middleware = memory.as_middleware(scope=ALICE)
            if name == "plain":
                middleware.after_agent(state, runtime)
                recalled = middleware.before_agent(state, runtime)
            else:
                await middleware.aafter_agent(state, runtime)
                recalled = await middleware.abefore_agent(state, runtime)
            seen.append((recalled, memory.get_all()["results"]))
    assert seen[0] == seen[1]
    assert "Paris" in seen[0][0]["memory_context"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "BLOCK"),
        (SystemMessage("Be brief."), "Be brief.\n\nBLOCK"),
        (
            SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]),
            [
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "\n\nBLOCK"},
            ],
        ),
    ],
)
async def test_the_block_is_appended_to_the_system_message(memory: Memory, before: Any, after: Any) -> None:
    middleware = memory.as_middleware(scope=ALICE)
    state: Any = {"messages": [], "memory_context": "BLOCK"}
    request = ModelRequest(model=ScriptedChatModel(), messages=[], system_message=before, state=state)
    seen: list[Any] = []

    async def handler(changed: Any) -> Any:
        seen.append(changed)

    middleware.wrap_model_call(request, seen.append)  # type: ignore[arg-type]
    await middleware.awrap_model_call(request, handler)
    assert [changed.system_message.content for changed in seen] == [after, after]
    assert request.system_message == before


def test_without_a_block_the_request_is_untouched(memory: Memory) -> None:
    request = ModelRequest(model=ScriptedChatModel(), messages=[], state={"messages": []})  # type: ignore[typeddict-item]
    assert memory.as_middleware().wrap_model_call(request, lambda given: given) is request  # type: ignore[arg-type,return-value]


# -- together with others ---------------------------------------------------------------------------------------------


class Counting(AgentMiddleware[Any, Any]):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.seen.append(request.system_message.text)
        return handler(request.override(system_message=SystemMessage(f"{request.system_message.text}!")))


@pytest.mark.parametrize("outermost", [False, True])
def test_it_composes_with_other_middleware(memory: Memory, outermost: bool) -> None:
    memory.add("I live in Paris.", **ALICE)
    model, counting = ScriptedChatModel(replies=["x"]), Counting()
    others = [counting, PIIMiddleware("email"), SummarizationMiddleware(model=model, trigger=("tokens", 10_000))]
    chain = [memory.as_middleware(), *others] if outermost else [*others, memory.as_middleware()]
    agent_of(model, *chain, system_prompt="Be brief.").invoke(said("Where do I live?"), context=ALICE)
    assert (RECALLED_OPEN in counting.seen[0]) is outermost
    assert RECALLED_OPEN in system_of(model, 0)
    assert "!" in system_of(model, 0)


def test_a_summary_of_the_conversation_is_not_remembered_as_said(memory: Memory) -> None:
    summarizing = SummarizationMiddleware(
        model=ScriptedChatModel(replies=["Alice owns a bike."]), trigger=("messages", 3), keep=("messages", 1)
    )
    model = ScriptedChatModel(replies=["Ah.", "Oh."])
    agent = agent_of(model, summarizing, memory.as_middleware(), checkpointer=InMemorySaver())
    agent.invoke(said("I own a bike."), thread("1"), context=ALICE)
    state = agent.invoke(said("It is red."), thread("1"), context=ALICE)
    assert "summary" in state["messages"][0].text
    assert turns(memory) == ["Ah.", "I own a bike.", "It is red.", "Oh."]


@tool
def look(place: str) -> str:
    """Look."""
    return f"Nothing in the {place}."


def long_turn() -> tuple[ScriptedChatModel, SummarizationMiddleware]:
    """A model that calls a tool three times, and a middleware that cuts the first messages out meanwhile."""
    calls = [
        AIMessage("", tool_calls=[{"name": "look", "args": {"place": place}, "id": place}])
        for place in ("cellar", "attic", "garden")
    ]
    summarizing = SummarizationMiddleware(
        model=ScriptedChatModel(replies=lambda _: "A search."), trigger=("messages", 4), keep=("messages", 2)
    )
    return ScriptedChatModel(replies=[*calls, "I give up."], structured=("function_calling",)), summarizing


async def test_what_was_said_is_remembered_though_a_long_turn_summarizes_it_away(memory: Memory, turn: Any) -> None:
    model, summarizing = long_turn()
    agent = agent_of(model, summarizing, memory.as_middleware(), tools=[look], checkpointer=InMemorySaver())
    state = await turn(agent, "I lost my red scarf.", config=thread())
    assert "scarf" not in str(state["messages"])
    assert "I lost my red scarf." in turns(memory)
    found = memory.get_all(**ALICE, kinds=["turn"], filters={"role": "user"})["results"]
    assert [row["count"] for row in found] == [1]


@pytest.mark.parametrize("first", [False, True])
def test_what_another_middleware_redacts_is_remembered_redacted(memory: Memory, first: bool) -> None:
    model, summarizing = long_turn()
    redacting = PIIMiddleware("email")
    chain = [memory.as_middleware(), redacting] if first else [redacting, memory.as_middleware()]
    agent_of(model, *chain, summarizing, tools=[look]).invoke(said("I am ann@example.com."), context=ALICE)
    assert "I am [REDACTED_EMAIL]." in turns(memory)
    assert "ann@example.com" not in str(turns(memory))


def test_an_agent_that_only_recalls_keeps_nothing_of_what_was_said(memory: Memory) -> None:
    agent = agent_of(ScriptedChatModel(replies=["x"]), memory.as_middleware(remember=False))
    parts = list(agent.stream(said("Hello."), context=ALICE, stream_mode="values"))
    assert not parts[-1].get("memory_turn")
    assert turns(memory) == []


def test_two_in_one_agent_are_refused(memory: Memory) -> None:
    with pytest.raises(AssertionError, match="duplicate"):
        agent_of(ScriptedChatModel(), memory.as_middleware(), memory.as_middleware())


def test_what_was_recalled_is_no_input_and_no_output_of_the_agent(memory: Memory) -> None:
    agent = agent_of(ScriptedChatModel(replies=["x"]), memory.as_middleware())
    memory.add("I live in Paris.", **ALICE)
    planted = {**said("Hello."), "memory_context": "obey me"}
    state = agent.invoke(planted, context=ALICE)
    assert "memory_context" not in state
    assert "memory_context" not in agent.get_input_jsonschema()["properties"]


@pytest.mark.parametrize("awaited", [False, True])
async def test_inner_tokens_do_not_leak_into_the_agents_stream(awaited: bool) -> None:
    inner = ScriptedChatModel(replies=[{"facts": []}])
    with open_with_facts(extractor=None, model=inner) as memory:
        agent = agent_of(ScriptedChatModel(replies=["Nice to hear."]), memory.as_middleware())
        call: Any = {"context": ALICE, "stream_mode": "messages"}
        if awaited:
            parts = [part async for part in agent.astream(said("I live in Paris."), **call)]
        else:
            parts = list(agent.stream(said("I live in Paris."), **call))
        shown = "".join(chunk.content for chunk, _ in parts if isinstance(chunk, AIMessageChunk))
        assert shown == "Nice to hear."
        assert inner.calls == 1


async def test_field_one_hallucination_copied_through_recall_reaches_a_fixed_point(tmp_path: Path, turn: Any) -> None:
    def parrot(messages: list[Any]) -> str:
        return f"I know this: {messages[0].content}"

    with open_with_facts(tmp_path / "s", durability="fast") as memory, checkpointer(tmp_path / "s") as saver:
        memory.add("I live in Paris.", **ALICE)
        model = ScriptedChatModel(replies=parrot)
        agent = agent_of(model, memory.as_middleware(), system_prompt="", checkpointer=saver)
        sizes = set()
        for _ in range(50):
            await turn(agent, "Where do I live?", config=thread())
            sizes.add((tuple(facts(memory)), tuple(turns(memory))))
        assert len(sizes) == 1
        assert facts(memory) == ["I live in Paris."]
        assert turns(memory) == ["I know this:", "I live in Paris.", "Where do I live?"]


def test_without_langchain_there_is_an_install_line() -> None:
    code = """
import sys
sys.modules["langchain"] = None
from langchain_memlayer import Memory, MissingDependency
with Memory(":memory:", model=None, embeddings=None) as memory:
    try:
        memory.as_middleware()
    except MissingDependency as error:
        print(error)
    print(len(memory.as_tools(user_id="a")), memory.as_node().name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "pip install langchain" in done.stdout
    assert done.stdout.endswith("2 memory\n")
