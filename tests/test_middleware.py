from __future__ import annotations

import asyncio
import contextlib
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelRequest,
    ModelRetryMiddleware,
    PIIDetectionError,
    PIIMiddleware,
    SummarizationMiddleware,
    ToolCallLimitMiddleware,
    hook_config,
)
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.runtime import Runtime
from langgraph.types import Command
from memory_kit import call
from surfaces_kit import ALICE, Context, facts, open_with_facts, said, thread, turns

from langchain_memlayer import (
    ConfigurationError,
    EmbeddingError,
    ExtractionError,
    InvalidInput,
    JournalClosed,
    Memory,
    MissingDependency,
    ScopeRequired,
    checkpointer,
)
from langchain_memlayer.agents.middleware import MemoryMiddleware
from langchain_memlayer.messages import RECALLED_OPEN
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, ScriptedChatModel


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_with_facts() as opened:
        yield opened


@pytest.fixture
def turn(way: str) -> Any:
    async def take(agent: Any, text: str, *, config: Any = None, **given: Any) -> Any:
        given = {"context": ALICE, **given}
        if way != "streamed":
            return await call(way, agent, "invoke", said(text), config, **given)
        return [part async for part in agent.astream(said(text), config, **given, stream_mode="values")][-1]

    return take


def agent_of(model: ScriptedChatModel, *middleware: Any, **settings: Any) -> Any:
    return create_agent(model, middleware=list(middleware), context_schema=Context, **settings)


def system_of(model: ScriptedChatModel, call: int = 0) -> str:
    first = model.prompts[call][0]
    return str(first.text) if isinstance(first, SystemMessage) else ""


def talk(model: Any, *middleware: Any, texts: Sequence[str], name: str = "1", **settings: Any) -> Any:
    """The state after some turns of one thread; of a model its replies may be given."""
    model = model if isinstance(model, ScriptedChatModel) else ScriptedChatModel(replies=model)
    agent = agent_of(model, *middleware, checkpointer=InMemorySaver(), **settings)
    state = None
    for text in texts:
        with contextlib.suppress(ValueError, PIIDetectionError):
            state = agent.invoke(said(text), thread(name), context=ALICE)
    return state


@pytest.mark.parametrize("way", ["plain", "awaited", "streamed"])
async def test_an_agent_recalls_and_remembers(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=["Noted.", "In Paris."])
    agent = agent_of(model, memory.as_middleware(), system_prompt="Be brief.", checkpointer=InMemorySaver())
    await turn(agent, "I live in Paris.", config=thread("1"))
    assert facts(memory) == ["I live in Paris."]
    state = await turn(agent, "Where do I live?", config=thread("2"))
    assert system_of(model) == "Be brief."
    assert system_of(model, 1).startswith(f"Be brief.\n\n{RECALLED_OPEN}")
    assert "I live in Paris." in system_of(model, 1)
    assert turns(memory) == ["I live in Paris.", "In Paris.", "Noted.", "Where do I live?"]
    assert len(state["messages"]) == 2


@pytest.mark.parametrize("way", ["plain", "awaited", "streamed"])
async def test_each_model_call_of_a_turn_gets_the_one_recall(memory: Memory, turn: Any) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather."""
        return "Sunny."

    memory.add("I live in Paris.", **ALICE)
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "It is sunny."], structured=("function_calling",))
    agent = agent_of(model, memory.as_middleware(), tools=[weather])
    memory._indexes.embedder.source.reset()
    await turn(agent, "How is the weather where I live?")
    assert system_of(model) == system_of(model, 1) != ""
    assert len(memory._indexes.embedder.source.queries) == 1
    quarantined = memory.search("sunny weather", **ALICE, limit=50)["results"]
    assert "Sunny." not in {hit["memory"] for hit in quarantined}


async def test_the_second_turn_of_a_thread_remembers_only_what_is_new(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=["Ah.", "Oh."])
    agent = agent_of(model, memory.as_middleware(), checkpointer=InMemorySaver())
    await turn(agent, "I live in Paris.", config=thread())
    await turn(agent, "I like tea.", config=thread())
    assert memory._engine.extractor.calls == [["I live in Paris.", "Ah."], ["I like tea.", "Oh."]]
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


@pytest.mark.parametrize("times", [1, 2])
async def test_what_was_said_is_remembered_though_the_call_was_cancelled(memory: Memory, times: int) -> None:
    asked = asyncio.Event()

    class Waiting(ScriptedChatModel):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            if not asked.is_set():
                asked.set()
                await asyncio.Event().wait()
            return await super()._agenerate(*args, **kwargs)

    agent = agent_of(Waiting(replies=["Oh."]), memory.as_middleware(), checkpointer=InMemorySaver())
    task = asyncio.create_task(agent.ainvoke(said("I live in Paris."), thread(), context=ALICE))
    await asyncio.wait_for(asked.wait(), 30)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await agent.ainvoke(said("I like tea."), thread(), context=ALICE)
    assert await asyncio.to_thread(memory.flush, 30)
    assert facts(memory) == ["I like tea.", "I live in Paris."]
    assert turns(memory) == ["I like tea.", "I live in Paris.", "Oh."]


def test_what_was_said_is_remembered_though_nobody_read_the_stream_to_its_end(memory: Memory) -> None:
    model = ScriptedChatModel(replies=lambda _: "Oh, that is nice to hear.")
    refusing = PIIMiddleware("email", strategy="block")
    agent = agent_of(model, memory.as_middleware(), refusing, checkpointer=InMemorySaver())
    for text in ("I live in Paris.", "I am ann@example.com."):
        stream = agent.stream(said(text), thread(), context=ALICE, stream_mode="messages")
        with contextlib.suppress(PIIDetectionError):
            next(stream)
        stream.close()
    for text in ("I like tea.", "I like rain."):
        agent.invoke(said(text), thread(), context=ALICE)
        assert memory.flush(30)
    assert turns(memory) == ["I like rain.", "I like tea.", "I live in Paris.", "Oh, that is nice to hear."]
    assert facts(memory) == ["I like rain.", "I like tea.", "I live in Paris."]


async def test_it_only_recalls_when_told_so_and_rewrites_the_query(turn: Any) -> None:
    inner = ScriptedChatModel(replies=[{"queries": ["What is Maria's dog called?"]}])
    with open_with_facts(model=inner) as memory:
        memory.add("Maria's dog is called Rex.", **ALICE)
        model = ScriptedChatModel(replies=["Rex."])
        middleware = memory.as_middleware(search_kwargs={"rewrite": True}, remember=False, limit=1)
        state = await turn(agent_of(model, middleware), "And hers?")
        assert "Rex" in system_of(model)
        assert inner.calls == 1
        assert not state.get("memory_turn")
        assert turns(memory) == ["Maria's dog is called Rex."]


def test_one_reading_serves_the_turns_of_a_conversation_until_it_pauses(memory: Memory) -> None:
    middleware = memory.as_middleware(background=True, after_seconds=60.0)
    talk(["Nice!", "Good."], middleware, texts=("I live in Rome", "I have a dog"))
    [waiting] = memory.unread(**ALICE)
    assert len(waiting["turns"]) == 4
    assert memory.flush()
    assert facts(memory) == ["I have a dog", "I live in Rome"]


def test_a_pause_is_a_number_of_seconds(memory: Memory) -> None:
    for seconds in (-1, "soon", None, True, float("nan"), float("inf")):
        with pytest.raises(InvalidInput, match="after_seconds"):
            memory.as_middleware(background=True, after_seconds=seconds)


async def test_tools_are_optional(memory: Memory, turn: Any) -> None:
    call = AIMessage("", tool_calls=[{"name": "manage_memory", "args": {"content": "Alice likes tea."}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "Saved."], structured=("function_calling",))
    state = await turn(agent_of(model, memory.as_middleware(tools=True)), "Remember my tea?")
    assert facts(memory) == ["Alice likes tea."]
    assert [type(message) for message in state["messages"]] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert not memory.as_middleware().tools


async def test_a_missing_scope_says_what_to_pass(memory: Memory, turn: Any) -> None:
    agent = agent_of(ScriptedChatModel(replies=["x"]), memory.as_middleware())
    for context, says in (({"agent_id": "crew"}, "whoever the user"), ({}, "whoever the user"), (None, "context=")):
        with pytest.raises(ScopeRequired, match=says):
            await turn(agent, "Hello.", context=context)
    with pytest.raises(ConfigurationError, match=r"memory\.store"):
        await turn(agent_of(ScriptedChatModel(replies=["x"]), MemoryMiddleware()), "Hello.")


async def test_the_scope_comes_from_the_agents_store_from_configurable_or_a_function(memory: Memory, turn: Any) -> None:
    model = ScriptedChatModel(replies=["x"] * 3)
    await turn(agent_of(model, MemoryMiddleware(), store=memory.store), "I live in Paris.")
    config = {"configurable": {"user_id": "alice"}}
    await turn(agent_of(model, memory.as_middleware()), "I like tea.", config=config, context=None)
    by_name = memory.as_middleware(scope=lambda state: {"user_id": state["messages"][0].content[-6:-1]})
    await turn(agent_of(model, by_name), "My name is carol.", context=None)
    assert facts(memory) == ["I like tea.", "I live in Paris."]
    assert facts(memory, user_id="carol") == ["My name is carol."]


# -- hooks ------------------------------------------------------------------------------------------------------------


async def test_hooks_do_nothing_with_nothing(memory: Memory) -> None:
    middleware = memory.as_middleware(scope=ALICE)
    runtime: Any = Runtime()
    for messages in ([], [HumanMessage("")], [SystemMessage("Be brief.")], [AIMessage("")]):
        state: Any = {"messages": messages}
        begun = middleware.before_agent(state, runtime)
        assert begun == await middleware.abefore_agent(state, runtime)
        assert begun["memory_context"] == ""
        middleware.after_agent({**state, **begun}, runtime)
        await middleware.aafter_agent({**state, **begun}, runtime)
    assert turns(memory) == []


EPHEMERAL = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "BLOCK"),
        (SystemMessage("Be brief."), "Be brief.\n\nBLOCK"),
        (SystemMessage([EPHEMERAL]), [EPHEMERAL, {"type": "text", "text": "\n\nBLOCK"}]),
    ],
)
async def test_the_block_is_appended_to_the_system_message(memory: Memory, before: Any, after: Any) -> None:
    middleware = memory.as_middleware(scope=ALICE)
    state: Any = {"messages": [], "memory_context": "BLOCK"}
    request = ModelRequest(model=ScriptedChatModel(), messages=[], system_message=before, state=state)
    seen: list[Any] = []

    async def handler(changed: Any) -> Any:
        seen.append(changed)

    middleware.wrap_model_call(request, seen.append)
    await middleware.awrap_model_call(request, handler)
    assert [changed.system_message.content for changed in seen] == [after, after]
    assert request.system_message == before
    without = ModelRequest(model=ScriptedChatModel(), messages=[], state={"messages": []})
    assert middleware.wrap_model_call(without, lambda given: given) is without


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
    assert RECALLED_OPEN in system_of(model)
    assert "!" in system_of(model)


def test_a_summary_of_the_conversation_is_not_remembered_as_said(memory: Memory) -> None:
    summarizing = SummarizationMiddleware(
        model=ScriptedChatModel(replies=["Alice owns a bike."]), trigger=("messages", 3), keep=("messages", 1)
    )
    state = talk(["Ah.", "Oh."], summarizing, memory.as_middleware(), texts=("I own a bike.", "It is red."))
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


class Hook(AgentMiddleware[Any, Any]):
    """Does with the messages of a run what another middleware may do."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__()
        self.hooks = hooks

    @hook_config(can_jump_to=["end"])
    def before_model(self, state: Any, runtime: Any) -> Any:
        return self.hooks.get("before", lambda _: None)(state["messages"])

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: Any, runtime: Any) -> Any:
        return self.hooks.get("after", lambda _: None)(state["messages"])

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return self.hooks.get("wrap", lambda request, handler: handler(request))(request, handler)


def mailing(messages: list[Any]) -> bool:
    return "@" in messages[-1].text


def refuse(messages: list[Any]) -> None:
    if mailing(messages):
        raise ValueError("refused")


def reword(text: str) -> Any:
    """Another text in the place of the last message that has an address."""

    def change(messages: list[Any]) -> Any:
        return {"messages": [messages[-1].model_copy(update={"content": text})]} if mailing(messages) else None

    return change


def remove(messages: list[Any]) -> Any:
    return {"messages": [RemoveMessage(messages[-1].id)]} if mailing(messages) else None


def end(messages: list[Any]) -> Any:
    return {"jump_to": "end", "messages": [AIMessage("This was refused.")]} if mailing(messages) else None


def guard(request: Any, handler: Any) -> Any:
    return AIMessage("This was refused.") if mailing(request.messages) else handler(request)


def raising(request: Any, handler: Any) -> Any:
    refuse(request.messages)
    return handler(request)


def judge(request: Any, handler: Any) -> Any:
    model = ScriptedChatModel(replies=["no" if mailing(request.messages) else "yes"])
    verdict = model.invoke(request.messages[-1].text)
    return handler(request) if verdict.text == "yes" else AIMessage("This was refused.")


MAIL = "my address is ann@example.com"
REFUSING = {
    "raised before the model": Hook(before=refuse), "PII": PIIMiddleware("email", strategy="block"),
    "ended before the model": Hook(before=end), "answered in the model's place": Hook(wrap=guard),
    "raised in the model's place": Hook(wrap=raising), "another model judged": Hook(wrap=judge),
    "another text": Hook(before=reword("This content was removed by a filter.")), "taken out": Hook(before=remove),
}  # fmt: skip


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("what", REFUSING)
def test_what_another_middleware_refused_is_never_remembered(memory: Memory, what: str, first: bool) -> None:
    chain = [REFUSING[what], memory.as_middleware()]
    talk(lambda _: "Ah.", *(chain if first else reversed(chain)), texts=("I hike.", MAIL, "I like tea."))
    assert set(turns(memory)) == {"I hike.", "I like tea.", "Ah."}
    assert facts(memory) == ["I hike.", "I like tea."]


def test_a_turn_that_ended_before_the_memory_was_asked_is_not_remembered(memory: Memory) -> None:
    class First(AgentMiddleware[Any, Any]):
        @hook_config(can_jump_to=["end"])
        def before_agent(self, state: Any, runtime: Any) -> Any:
            return end(state["messages"])

    said_all = ("mail ann@example.com", "I live in Rome", "mail bob@example.com", "I have a dog")
    talk(["Nice!", "Good."], First(), memory.as_middleware(), texts=said_all)
    assert turns(memory) == ["Good.", "I have a dog", "I live in Rome", "Nice!"]


def test_a_refused_answer_and_what_takes_its_place_are_not_remembered(memory: Memory) -> None:
    for number, after in enumerate((refuse, end, reword("That was removed by a filter."))):
        chain, texts = (Hook(after=after), memory.as_middleware()), ("Whom do I write to?", "I like tea.")
        talk(["Write to ann@example.com.", "Ah."], *chain, texts=texts, name=str(number))
    assert set(turns(memory)) == {"Whom do I write to?", "I like tea.", "Ah."}


def test_notices_of_limits_and_rejected_calls_are_not_remembered(memory: Memory) -> None:
    calls = [AIMessage("", tool_calls=[{"name": "look", "args": {"place": str(k)}, "id": str(k)}]) for k in range(4)]
    limits = [ModelCallLimitMiddleware(run_limit=2), ToolCallLimitMiddleware(run_limit=1)]
    model = ScriptedChatModel(replies=calls, structured=("function_calling",))
    agent = agent_of(model, *limits, memory.as_middleware(), tools=[look])
    state = agent.invoke(said("I lost my red scarf."), context=ALICE)
    assert "limit" in state["messages"][-1].text
    rows = memory.get_all(**ALICE, kinds=["turn"])["results"]
    assert [row["memory"] for row in rows if not row["quarantined"]] == ["I lost my red scarf."]
    assert "limit" not in str(turns(memory))


def test_a_person_who_rejects_a_call_said_so_to_the_agent_alone(memory: Memory) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {"place": "attic"}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "Then not."], structured=("function_calling",))
    chain = [HumanInTheLoopMiddleware(interrupt_on={"look": True}), memory.as_middleware()]
    agent = agent_of(model, *chain, tools=[look], checkpointer=InMemorySaver())
    agent.invoke(said("I lost my red scarf."), thread(), context=ALICE)
    assert turns(memory) == []
    rejected = Command(resume={"decisions": [{"type": "reject", "message": "Keep out of there."}]})
    agent.invoke(rejected, thread(), context=ALICE)
    assert turns(memory) == ["I lost my red scarf.", "Then not."]


def test_what_waits_for_a_person_was_said_when_its_turn_began() -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {"place": "attic"}, "id": "1"}])
    model = ScriptedChatModel(replies=[call, "It is there."], structured=("function_calling",))
    clock = FrozenClock()
    with Memory(":memory:", model=None, embeddings=None, clock=clock) as memory:
        chain = [HumanInTheLoopMiddleware(interrupt_on={"look": True}), memory.as_middleware()]
        agent = agent_of(model, *chain, tools=[look], checkpointer=InMemorySaver())
        agent.invoke(said("My exam is tomorrow."), thread(), context=ALICE)
        clock.advance(days=2)
        agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), thread(), context=ALICE)
        rows = memory.get_all(**ALICE, kinds=["turn"])["results"]
    days = {row["memory"]: row["created_at"][:10] for row in rows}
    assert (days["My exam is tomorrow."], days["It is there."]) == ("2025-01-01", "2025-01-03")


def test_a_model_that_was_asked_in_vain_leaves_what_was_said(memory: Memory) -> None:
    retry = ModelRetryMiddleware(max_retries=0, on_failure="continue")
    for number, chain in enumerate(([retry, memory.as_middleware()], [memory.as_middleware(), retry])):
        talk([TimeoutError("x")], *chain, texts=[f"I have {number + 2} dogs."])
    assert turns(memory) == facts(memory) == ["I have 2 dogs.", "I have 3 dogs."]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("change", "anew", "left"),
    [
        (lambda text: text.replace("ann@example.com", "[X]"), {}, "my address is [X]"),
        (lambda text: text.replace("ann@example.com", "[X]"), {"id": None}, "my address is [X]"),
        (lambda text: text.replace("ann@example.com", "[X]"), {"id": "another"}, "my address is [X]"),
        (lambda text: f"From the shelf: tea is green.\n{text}", {}, MAIL),
    ],
    ids=["redacted", "redacted in new messages", "redacted under another id", "added to"],
)
def test_what_is_redacted_on_its_way_to_the_model_is_remembered_so_and_what_is_added_is_not(
    memory: Memory, change: Any, anew: Any, left: str, first: bool
) -> None:
    def wrap(request: Any, handler: Any) -> Any:
        changed = [m.model_copy(update={"content": change(m.text), **anew}) for m in request.messages]
        return handler(request.override(messages=changed))

    chain = [memory.as_middleware(), Hook(wrap=wrap)]
    talk(["Ah.", "So."], *(chain if first else chain[::-1]), texts=[MAIL, "I hike."])
    assert facts(memory) == ["I hike.", left]
    assert turns(memory) == ["Ah.", "I hike.", "So.", left]


def test_what_is_redacted_stays_so_in_an_agent_that_is_given_the_whole_conversation_each_time(memory: Memory) -> None:
    def wrap(request: Any, handler: Any) -> Any:
        hidden = [m.model_copy(update={"content": m.text.replace("ann@example.com", "[X]")}) for m in request.messages]
        return handler(request.override(messages=hidden))

    agent = agent_of(ScriptedChatModel(replies=["Ah.", "So."]), memory.as_middleware(), Hook(wrap=wrap))
    agent.invoke({"messages": [("user", MAIL)]}, context=ALICE)
    agent.invoke({"messages": [("user", MAIL), ("assistant", "Ah."), ("user", "I hike.")]}, context=ALICE)
    assert facts(memory) == ["I hike.", "my address is [X]"]


# -- what a person declines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [{"additional_kwargs": {"memory": "off"}}, None], ids=["mark", "state"])
async def test_a_declined_message_is_not_remembered_now_or_later(memory: Memory, off: Any) -> None:
    model = ScriptedChatModel(replies=lambda messages: f"You said: {messages[-1].text}")
    agent = agent_of(model, memory.as_middleware(), checkpointer=InMemorySaver())
    declined = said("My pin is 1234.", **off) if off else {**said("My pin is 1234."), "memory_off": True}
    for messages in (said("I like tea."), declined, said("I hike.")):
        state = await agent.ainvoke(messages, thread(), context=ALICE)
    assert "1234" in str(state["messages"])
    assert turns(memory) == ["I hike.", "I like tea.", "You said: I hike.", "You said: I like tea."]
    assert facts(memory) == ["I hike.", "I like tea."]


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("way", ["failed", "left", "interrupted"])
def test_a_turn_that_never_ended_is_remembered_unless_it_was_declined(memory: Memory, way: str, off: bool) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {"place": "attic"}, "id": "1"}])
    replies = {"failed": ValueError("down"), "left": "Oh, that is nice.", "interrupted": call}
    model = ScriptedChatModel(replies=[replies[way], "Yes.", "No."], structured=("function_calling",))
    cutting = SummarizationMiddleware(
        model=ScriptedChatModel(replies=lambda _: "A talk."), trigger=("messages", 3), keep=("messages", 1)
    )
    asking = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    agent = agent_of(model, cutting, memory.as_middleware(), asking, tools=[look], checkpointer=InMemorySaver())
    with contextlib.suppress(ValueError):
        given = {**said("My pin is 1234."), "memory_off": off}
        stream = agent.stream(given, thread(), context=ALICE, stream_mode="messages")
        for _ in stream:
            if way == "left":
                break
        stream.close()
    for text in ("I hike.", "I like tea."):
        agent.invoke(said(text), thread(), context=ALICE)
        assert memory.flush(30)
    assert facts(memory) == ["I hike.", "I like tea.", *([] if off else ["My pin is 1234."])]


@pytest.mark.parametrize("interrupted", [False, True])
def test_in_a_thread_of_several_people_each_is_remembered_for_what_they_said(memory: Memory, interrupted: bool) -> None:
    call = AIMessage("", tool_calls=[{"name": "look", "args": {"place": "attic"}, "id": "1"}])
    replies = [call if interrupted else "Oh.", "Yes.", "No."]
    model = ScriptedChatModel(replies=replies, structured=("function_calling",))
    asking = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    agent = agent_of(model, memory.as_middleware(), asking, tools=[look], checkpointer=InMemorySaver())
    for user, text in (("alice", "I live in Oslo."), ("bob", "I like tea."), ("alice", "I have a dog.")):
        agent.invoke(said(text), thread(), context={"user_id": user})
    assert memory.flush(30)
    assert facts(memory) == ["I have a dog.", "I live in Oslo."]
    assert turns(memory, user_id="bob") == ["I like tea.", "Yes."]


# -- a memory that fails ----------------------------------------------------------------------------------------------


ODD = [
    HumanMessage("a\x00b"), HumanMessage("lone \ud83d"), HumanMessage("hi", id="", name=""),
    HumanMessage("hi", additional_kwargs={"timestamp": "10:32 AM"}), ChatMessage("hi", role=""),
    HumanMessage([{"type": "hologram", "data": "x"}, {"type": "text", "text": 5}]), HumanMessage("hi", id="漢" * 800),
    HumanMessage("I have a cat.", id=""), HumanMessage("I hike.", id="c\x00"), HumanMessage("I ski.", id="漢" * 900),
]  # fmt: skip


def test_odd_messages_stop_neither_their_own_turn_nor_later_ones(memory: Memory) -> None:
    model = ScriptedChatModel(replies=lambda _: "ok \udc00")
    agent = agent_of(model, memory.as_middleware(on_error="raise"), checkpointer=InMemorySaver())
    for message in [*ODD, HumanMessage("I live in Oslo.")]:
        agent.invoke({"messages": [message]}, thread(), context=ALICE)
    assert {"I have a cat.", "I hike.", "I live in Oslo.", "I ski."} <= set(facts(memory))


@pytest.mark.parametrize(
    "part", [{"type": "input_text", "text": "I have a cat."}, {"text": "I have a cat."}, {"content": "I have a cat."}]
)
def test_what_is_said_in_parts_of_a_providers_own_is_remembered(memory: Memory, part: dict[str, str]) -> None:
    agent = agent_of(ScriptedChatModel(replies=["Noted."]), memory.as_middleware())
    agent.invoke({"messages": [HumanMessage([part])]}, context=ALICE)
    assert facts(memory) == ["I have a cat."]


async def test_a_memory_that_fails_is_logged_without_texts_and_the_answer_goes_out(
    memory: Memory, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_of(ScriptedChatModel(replies=["Fine.", "Fine."]), memory.as_middleware())
    strict = agent_of(ScriptedChatModel(replies=["Fine."]), memory.as_middleware(on_error="raise"))
    memory.close()
    pin = said("My pin is 1234.")
    state = await call(way, agent, "invoke", pin, context=ALICE)
    assert state["messages"][-1].text == "Fine."
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "JournalClosed" in caplog.text
    assert "1234" not in caplog.text
    with pytest.raises(JournalClosed):
        await call(way, strict, "invoke", pin, context=ALICE)


class Flaky:
    """Fails a third of its calls, drawn anew for each, until it has recovered."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.recovered = False

    def strike(self) -> None:
        if not self.recovered and self._draw.random() < 1 / 3:
            raise ConnectionError("down")


class FlakyEmbeddings(DeterministicEmbeddings):
    def __init__(self, flaky: Flaky) -> None:
        super().__init__(64)
        self._flaky = flaky

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self._flaky.strike()
        return super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        self._flaky.strike()
        return super().embed_query(text)


class FlakyStore(InMemoryVectorStore):
    flaky: Flaky

    def add_documents(self, documents: Any, ids: Any = None, **kwargs: Any) -> Any:
        self.flaky.strike()
        return super().add_documents(documents, ids, **kwargs)

    def similarity_search_with_score_by_vector(self, *args: Any, **kwargs: Any) -> Any:
        self.flaky.strike()
        return super().similarity_search_with_score_by_vector(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_two_hundred_turns_with_all_that_can_fail_failing_lose_nothing(tmp_path: Path, background: bool) -> None:
    model, embedder, shelf = (Flaky(seed) for seed in (1, 2, 3))

    def reply(messages: list[Any]) -> Any:
        model.strike()
        numbered = re.findall(r"^\[(\d+)\] [^:]*: (.*)$", messages[-1].text, re.MULTILINE)
        entries = [{"turn": int(n), "quote": text, "fact": text, "subject": "", "valid_at": "", "retract": False,
                    "triples": []} for n, text in numbered if text.startswith("My ")]  # fmt: skip
        return {"facts": entries}

    store = FlakyStore(FlakyEmbeddings(embedder))
    store.flaky = shelf
    said_all = [f"My key number {number} hangs in room {number * 7}." for number in range(200)]
    with Memory(
        tmp_path / "m", model=ScriptedChatModel(replies=reply), vectorstore=store, reconcile="rules", durability="fast"
    ) as memory:
        agent = agent_of(
            ScriptedChatModel(replies=lambda messages: f"Noted: {messages[-1].text}"),
            memory.as_middleware(background=background),
            checkpointer=InMemorySaver(),
        )
        answers = []
        for number, text in enumerate(said_all):
            config = thread(str(number // 20))
            answers.append(agent.invoke(said(text), config, context=ALICE)["messages"][-1].text)
        assert answers == [f"Noted: {text}" for text in said_all]
        for flaky in (model, embedder, shelf):
            flaky.recovered = True
        with contextlib.suppress(ExtractionError, EmbeddingError):  # what failed last, before the recovery
            memory.flush()
        memory.read(**ALICE, retry=True)
        assert memory.flush()
        assert memory.unread(**ALICE) == []
        rows = memory.get_all(**ALICE, kinds=["turn"], limit=1000)["results"]
        assert sorted(row["memory"] for row in rows) == sorted([*said_all, *answers])
        kept = memory.get_all(**ALICE, kinds=["fact"], limit=1000)["results"]
        assert sorted((row["memory"], row["count"]) for row in kept) == sorted((text, 1) for text in said_all)


@pytest.mark.parametrize("first", [False, True])
def test_what_another_middleware_redacts_is_remembered_redacted(memory: Memory, first: bool) -> None:
    model, summarizing = long_turn()
    redacting = PIIMiddleware("email")
    chain = [memory.as_middleware(), redacting] if first else [redacting, memory.as_middleware()]
    talk(model, *chain, summarizing, tools=[look], texts=["I am ann@example.com."])
    assert "I am [REDACTED_EMAIL]." in turns(memory)
    assert "ann@example.com" not in str(turns(memory))


def test_two_of_one_name_in_one_agent_are_refused(memory: Memory) -> None:
    with pytest.raises(AssertionError, match="duplicate"):
        agent_of(ScriptedChatModel(), memory.as_middleware(), memory.as_middleware())
    with pytest.raises(InvalidInput, match="name"):
        memory.as_middleware(name="my team")


async def test_a_users_and_a_teams_memory_go_together(memory: Memory, turn: Any) -> None:
    memory.add("I live in Paris.", **ALICE)
    memory.add("We meet on Mondays.", agent_id="crew")
    model = ScriptedChatModel(replies=["x", "y"], structured=("function_calling",))
    team = memory.as_middleware(agent_id="crew", tools=True)
    agent = agent_of(model, memory.as_middleware(tools=True), team, checkpointer=InMemorySaver())
    await turn(agent, "Where do I live, and when do we meet on Mondays?", config=thread())
    shown = system_of(model)
    assert shown.count(RECALLED_OPEN) == 2
    assert "I live in Paris." in shown.split('of="agent"')[0]
    assert "We meet on Mondays." in shown.split('of="agent"')[1]
    assert {tool.name for tool in [*team.tools]} == {"manage_agent_memory", "search_agent_memory"}
    await turn(agent, "I like tea.", config=thread())
    assert "I like tea." in facts(memory)
    assert "I like tea." in facts(memory, agent_id="crew")


def test_the_agents_graph_stays_what_it_is_but_for_two_nodes_and_a_switch(memory: Memory) -> None:
    plain, agent = agent_of(ScriptedChatModel()), agent_of(ScriptedChatModel(replies=["x"]), memory.as_middleware())
    memory.add("I live in Paris.", **ALICE)
    # What was recalled is no input and no output of the agent.
    state = agent.invoke({**said("Hello."), "memory_context": "obey me"}, context=ALICE)
    assert "memory_context" not in state
    assert agent.get_output_jsonschema()["properties"].keys() == plain.get_output_jsonschema()["properties"].keys()
    given = [set(graph.get_input_jsonschema()["properties"]) for graph in (plain, agent)]
    assert given[1] - given[0] == {"memory_off"}
    nodes = [set(graph.get_graph().nodes) for graph in (plain, agent)]
    assert nodes[1] - nodes[0] == {"MemoryMiddleware.before_agent", "MemoryMiddleware.after_agent"}


async def test_field_one_hallucination_copied_through_recall_reaches_a_fixed_point(tmp_path: Path, turn: Any) -> None:
    def parrot(messages: list[Any]) -> str:
        return f"I know this: {messages[0].content}"

    with open_with_facts(tmp_path / "s", durability="fast") as memory, checkpointer(tmp_path / "s") as saver:
        memory.add("I live in Paris.", **ALICE)
        model = ScriptedChatModel(replies=parrot)
        agent = agent_of(model, memory.as_middleware(), system_prompt="", checkpointer=saver)
        sizes = set()
        for _ in range(12):
            await turn(agent, "Where do I live?", config=thread())
            sizes.add((tuple(facts(memory)), tuple(turns(memory))))
        assert len(sizes) == 1
        assert facts(memory) == ["I live in Paris."]
        assert turns(memory) == ["I know this:", "I live in Paris.", "Where do I live?"]


def test_without_langchain_there_is_an_install_line(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "langchain"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "langchain_memlayer.agents.middleware")
    with pytest.raises(MissingDependency, match="pip install langchain"):
        memory.as_middleware()
    assert (len(memory.as_tools(user_id="a")), memory.as_node().name) == (2, "memory")
