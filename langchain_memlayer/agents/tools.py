"""Tools with which an agent manages and searches its own memory; names and arguments are those of langmem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from langchain_memlayer.agents.context import as_context, fenced
from langchain_memlayer.agents.scope import Caller, ScopeSource, checked_source, digest, find_caller, find_memory
from langchain_memlayer.engine.commit import Outcome
from langchain_memlayer.engine.steps import Steps, arun, run
from langchain_memlayer.engine.writing import AGENT, Prepared
from langchain_memlayer.errors import InvalidInput, MemoryNotFound
from langchain_memlayer.messages import checked_text, without_recalled
from langchain_memlayer.types import Fact, Hit, Scope, SearchResult, Turn

if TYPE_CHECKING:
    from langchain_memlayer.memory import Memory

Action = Literal["create", "update", "delete"]

MANAGE_INSTRUCTIONS: Final = (
    "Call it when the user states a lasting preference or fact, asks you to remember or to forget something, or when a "
    "memory turns out to be wrong or outdated."
)
_MOST: Final = 100
_TOLD: Final = {"ADD": "Stored", "UPDATE": "Updated", "DELETE": "Deleted", "NONE": "Known already"}


class ManageMemory(BaseModel):
    """Create, update or delete a memory."""

    content: str | None = Field(default=None, description="What to remember, as one statement; not needed to delete.")
    action: Action = Field(default="create", description="What to do.")
    id: str | None = Field(default=None, description="The memory to update or delete; leave it out to create one.")


class SearchMemory(BaseModel):
    """Search memories."""

    query: str = Field(description="What to look for.")
    limit: int = Field(default=10, ge=1, le=_MOST, description="How many memories at most.")
    offset: int = Field(default=0, ge=0, description="How many of the best ones to pass over.")
    filter: dict[str, Any] | None = Field(default=None, description="Conditions on the memories' metadata.")


def memory_tools(
    memory: Memory | None = None, *, scope: ScopeSource | None = None, instructions: str = MANAGE_INSTRUCTIONS
) -> list[BaseTool]:
    """`manage_memory` and `search_memory`; what `Memory.as_tools` gives.

    The model never says whose memories it means: both tools reach those of the run's scope only, whatever ids it
    names. What they answer is fenced as recalled, so that it is not remembered as if it had been said.

    Args:
        memory: The memory; None means that of the graph's store (`compile(store=memory.store)`).
        scope: Whose memories: ids by name, or a function that gives them and may take `runtime` and `config`. None
            means the run's `context`, else its `configurable`.
        instructions: When the model should change memories.

    Raises:
        ScopeRequired: (when called) nothing says whose memories are meant.
    """
    source = checked_source(scope)
    return [_manage_tool(memory, source, instructions), _search_tool(memory, source)]


def _manage_tool(memory: Memory | None, source: ScopeSource | None, instructions: str) -> BaseTool:
    def steps(content: str | None, action: Action, id: str | None) -> Steps:
        found = find_memory("manage_memory", memory)
        return _managed(found, find_caller("manage_memory", source), content, action, id)

    def manage(content: str | None = None, action: Action = "create", id: str | None = None) -> Any:
        called = steps(content, action, id)
        with _told_to_the_model():
            return run(called)

    async def amanage(content: str | None = None, action: Action = "create", id: str | None = None) -> Any:
        called = steps(content, action, id)
        with _told_to_the_model():
            return await arun(called)

    return StructuredTool.from_function(
        manage,
        amanage,
        name="manage_memory",
        description=f"Create, update or delete a memory that is kept for later conversations. {instructions}".strip(),
        args_schema=ManageMemory,
        handle_tool_error=_shown,
    )


def _search_tool(memory: Memory | None, source: ScopeSource | None) -> BaseTool:
    def prepare(limit: int, offset: int, filter: dict[str, Any] | None) -> tuple[Memory, dict[str, Any]]:
        found = find_memory("search_memory", memory)
        scope = find_caller("search_memory", source).scope
        return found, {**scope.ids(), "limit": limit + offset, "filters": filter}

    def search(query: str, limit: int = 10, offset: int = 0, filter: dict[str, Any] | None = None) -> Any:
        found, arguments = prepare(limit, offset, filter)
        with _told_to_the_model():
            return _page(found.search(_asked(query), **arguments), offset)

    async def asearch(query: str, limit: int = 10, offset: int = 0, filter: dict[str, Any] | None = None) -> Any:
        found, arguments = prepare(limit, offset, filter)
        with _told_to_the_model():
            return _page(await found.asearch(_asked(query), **arguments), offset)

    return StructuredTool.from_function(
        search,
        asearch,
        name="search_memory",
        description="Search what is remembered from earlier conversations; it shows each memory with its id.",
        args_schema=SearchMemory,
        response_format="content_and_artifact",
        handle_tool_error=_shown,
    )


def _asked(query: str) -> str:
    if not query.strip():
        raise InvalidInput("query must say what to look for.")
    return query


def _page(found: SearchResult, offset: int) -> tuple[str, list[Hit]]:
    results = found["results"][offset:]
    return as_context(results) or fenced("Nothing is remembered about this."), results


# -- manage -----------------------------------------------------------------------------------------------------------


def _managed(memory: Memory, caller: Caller, content: str | None, action: Action, id: str | None) -> Steps:
    """One action; returns what to tell the model."""
    if action == "create":
        if id is not None:
            raise InvalidInput("A new memory has no id yet: leave out the id, or use the action 'update'.")
        return (yield from _create(memory, caller, _statement(content)))
    if not id:
        raise InvalidInput(f"The action {action!r} needs the id of a memory; search_memory shows the ids.")
    _own(memory, caller.scope, id)
    if action == "delete":
        memory.delete(id)
        return fenced(f"Deleted [{id}].")
    text = _statement(content)
    yield from memory._update(id, text, None)
    return fenced(f"Updated [{id}] {text}")


def _create(memory: Memory, caller: Caller, text: str) -> Steps:
    """A statement as a fact, reconciled with what is known.

    It cites the statement itself, as a turn of the agent. To cite what the user said would note that message as seen,
    and what else is in it would then never be found.
    """
    turn = Turn(text, role="assistant", session_id=caller.session_id, metadata={"source": "manage_memory"})
    prepared = Prepared(caller.scope, (turn,), (Fact(text, (0,), quote=text),), actor=AGENT)
    # A step of the graph has the same name when it is tried again.
    batch = None if caller.task is None else digest("manage_memory", caller.task, text)
    outcome: Outcome = yield from memory._engine.reconcile(prepared, batch=batch)
    told = [f"{_TOLD[done.event]} [{done.id}] {done.text}" for done in outcome.facts]
    return fenced("\n".join(told + [f"Refused: {refusal.reason}." for refusal in outcome.rejected]))


def _statement(content: str | None) -> str:
    text = without_recalled(checked_text(content or "", "content")).strip()
    if not text:
        raise InvalidInput("content must say what to remember.")
    return text


def _own(memory: Memory, scope: Scope, id: str) -> None:
    """`MemoryNotFound`, in the same words, for a memory that does not exist and for one of somebody else."""
    known = memory.get(id)
    if known is None or any(known.get(name) != value for name, value in scope.ids().items()):
        raise MemoryNotFound(f"There is no memory with the id {id!r}; search_memory shows the ids.")


@contextmanager
def _told_to_the_model() -> Iterator[None]:
    """What a model's arguments may cause, as an answer that it can act on; anything else is the developer's."""
    try:
        yield
    except (InvalidInput, MemoryNotFound) as error:
        raise ToolException(str(error)) from error


def _shown(error: ToolException) -> str:
    return fenced(str(error))
