"""Tools with which an agent manages and searches its own memory; names and arguments are those of langmem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from langchain_memlayer.agents.context import as_context, fenced
from langchain_memlayer.agents.scope import Caller, ScopeSource, checked_source, find_caller, find_memory
from langchain_memlayer.agents.surface import OnError, ask, checked_name, checked_on_error, digest, profile_fields
from langchain_memlayer.errors import InvalidFilter, InvalidInput, MemoryNotFound, shown
from langchain_memlayer.messages import checked_text, without_recalled
from langchain_memlayer.protocols import MemoryLike
from langchain_memlayer.steps import Steps, awaited, stepped
from langchain_memlayer.types import Turn

ToolAction = Literal["create", "update", "delete"]

MANAGE_INSTRUCTIONS: Final = (
    "Call it when the user states a lasting preference or fact, asks you to remember or to forget something, or when a "
    "memory turns out to be wrong or outdated."
)
_MOST: Final = 100
_TOLD: Final = {"ADD": "Stored", "UPDATE": "Updated", "DELETE": "Deleted", "NONE": "Known already"}
# What a model's arguments may cause is an answer that it can act on.
_ARGUMENTS: Final = (InvalidInput, InvalidFilter, MemoryNotFound)


class ManageMemory(BaseModel):
    """Create, update or delete a memory."""

    content: str | None = Field(default=None, description="What to remember, as one statement; not needed to delete.")
    action: ToolAction = Field(default="create", description="What to do.")
    id: str | None = Field(default=None, description="The memory to update or delete; leave it out to create one.")


class SearchMemory(BaseModel):
    """Search memories."""

    query: str = Field(description="What to look for.")
    limit: int = Field(default=10, ge=1, le=_MOST, description="How many memories at most.")
    offset: int = Field(default=0, ge=0, description="How many of the best ones to pass over.")
    filter: dict[str, Any] | None = Field(default=None, description="Conditions on the memories' metadata.")


def memory_tools(
    memory: MemoryLike | None = None,
    *,
    scope: ScopeSource | None = None,
    instructions: str | None = None,
    name: str = "",
    on_error: OnError = "log",
) -> list[BaseTool]:
    """`manage_memory` and `search_memory`; what `Memory.as_tools` gives.

    The model never says whose memories it means: both tools reach those of the run's scope only, whatever ids it
    names. What they answer is fenced as recalled, so that it is not remembered as if it had been said. A memory that
    fails is an answer too, which tells the model to go on without it.

    Args:
        memory: The memory; None means that of the graph's store (`compile(store=memory.store)`).
        scope: Whose memories: ids by name, or a function that gives them and may take `runtime` and `config`. None
            means the run's `context` and `configurable` together, which have to name a user.
        instructions: When the model should change memories, in place of ours.
        name: Tells the tools of two memories apart: `manage_NAME_memory` and `search_NAME_memory`.
        on_error: "raise" lets a failing memory stop the agent, for tests.

    Raises:
        ScopeRequired: (when called) nothing says whose memories are meant.
    """
    made = _Tools(
        memory, checked_source(scope), f"{name}_memory" if checked_name(name) else "memory", checked_on_error(on_error)
    )
    return [made.manage(MANAGE_INSTRUCTIONS if instructions is None else instructions), made.search()]


class _Tools:
    """The two tools of one memory."""

    def __init__(self, memory: MemoryLike | None, source: ScopeSource | None, noun: str, on_error: OnError) -> None:
        self._memory = memory
        self._source = source
        self._noun = noun
        self._on_error = on_error

    def manage(self, instructions: str) -> BaseTool:
        def steps(content: str | None = None, action: ToolAction = "create", id: str | None = None) -> Steps[str]:
            memory, caller = self._called(f"manage_{self._noun}")
            if action == "create":
                if id is not None:
                    raise InvalidInput("A new memory has no id yet: leave out the id, or use the action 'update'.")
                return (yield from self._create(memory, caller, _statement(content)))
            if not id:
                raise InvalidInput(
                    f"The action {shown(action)} needs the id of a memory; search_{self._noun} shows the ids."
                )
            text = "" if action == "delete" else _statement(content)
            try:
                yield from self._ask(memory.of(**caller.scope.ids()), action, id, *([text] if text else []))
            except MemoryNotFound as error:
                # In the same words for a memory that does not exist and for one of somebody else.
                raise MemoryNotFound(f"There is no memory with the id {shown(id)}; a search shows the ids.") from error
            return fenced(f"Updated [{id}] {text}" if text else f"Deleted [{id}].")

        purpose = "Create, update or delete a memory that is kept for later conversations."
        return _tool(f"manage_{self._noun}", f"{purpose} {instructions}".strip(), steps, ManageMemory)

    def search(self) -> BaseTool:
        def steps(query: str, limit: int = 10, offset: int = 0, filter: dict[str, Any] | None = None) -> Steps[Any]:
            memory, caller = self._called(f"search_{self._noun}")
            if not query.strip():
                raise InvalidInput("query must say what to look for.")
            given = {**caller.scope.ids(), "limit": limit + offset, "filters": filter}
            answer = yield from self._ask(memory, "search", checked_text(query, "query"), **given)
            results = list(answer["results"])[offset:]
            filled = profile_fields(f"The tools of {self._noun}", memory, given, on_error=self._on_error)
            profile = {} if offset else (yield from filled)
            block = as_context(results, query=query, ids=True, profile=profile)
            return block or fenced("Nothing is remembered about this."), results

        purpose = "Search what is remembered from earlier conversations; it shows each memory with its id."
        return _tool(f"search_{self._noun}", purpose, steps, SearchMemory, response_format="content_and_artifact")

    def _called(self, tool: str) -> tuple[MemoryLike, Caller]:
        return find_memory(tool, self._memory), find_caller(tool, self._source)

    def _ask(self, memory: MemoryLike, method: str, *args: Any, **kwargs: Any) -> Steps:
        """Like `ask`; a memory that fails is told to the model."""
        answer = yield from ask(
            f"The tools of {self._noun}", memory, method, *args, on_error=self._on_error, raised=_ARGUMENTS, **kwargs
        )
        if answer is None:
            raise ToolException("The memory cannot be reached now; go on without it, and do not try again this turn.")
        return answer

    def _create(self, memory: MemoryLike, caller: Caller, text: str) -> Steps[str]:
        """A statement as a fact, reconciled with what is known.

        It cites the statement itself, as a turn of the agent. To cite what the user said would note that message as
        seen, and what else is in it would then never be found.
        """
        turn = Turn(text, role="assistant", session_id=caller.session_id, metadata={"source": f"manage_{self._noun}"})
        fact = {"text": text, "quote": text, "sources": [0], "triples": []}
        # A step of the graph has the same name when it is tried again.
        batch = None if caller.task is None else digest(f"manage_{self._noun}", caller.task, text)
        answer = yield from self._ask(
            memory, "reconcile", [turn], [fact], by_agent=True, batch_id=batch, **caller.scope.ids()
        )
        lines = [f"{_TOLD[done['event']]} [{done['id']}] {done['memory']}" for done in answer["results"]]
        return fenced("\n".join(lines + [f"Refused: {one['reason']}." for one in answer.get("rejected", ())]))


def _tool(name: str, description: str, steps: Callable[..., Steps], schema: type[BaseModel], **more: Any) -> BaseTool:
    @stepped
    def call(**arguments: Any) -> Steps:
        try:
            return (yield from steps(**arguments))
        except _ARGUMENTS as error:
            raise ToolException(str(error)) from error

    return StructuredTool.from_function(
        call, awaited(call), name=name, description=description, args_schema=schema, handle_tool_error=_shown, **more
    )


def _statement(content: str | None) -> str:
    text = without_recalled(checked_text(content or "", "content")).strip()
    if not text:
        raise InvalidInput("content must say what to remember.")
    return text


def _shown(error: ToolException) -> str:
    return fenced(str(error))
