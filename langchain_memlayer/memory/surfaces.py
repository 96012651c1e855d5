"""The methods of `Memory` that give it to LangChain and LangGraph: nodes, tools, middleware, retriever, store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool
    from langgraph.graph.state import CompiledStateGraph

    from langchain_memlayer.agents.middleware import MemoryMiddleware
    from langchain_memlayer.agents.retriever import MemoryRetriever
    from langchain_memlayer.agents.scope import ScopeSource
    from langchain_memlayer.memory import Memory
    from langchain_memlayer.store import MemLayerStore

# One for all memories: it is held only while a store is made.
_OPENING = threading.Lock()


class Surfaces:
    """Mixed into `Memory`. What the methods give imports LangGraph and LangChain, so they are imported when called."""

    _store: MemLayerStore | None = None

    def as_node(
        self, *, scope: ScopeSource | None = None, messages_key: str = "messages"
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Extraction, reconciliation and commit as one compiled graph, to be a node of any `StateGraph`.

        Args:
            scope: Whose memories: ids by name, or a function that gives them and may take `state` (its messages only),
                `runtime` and `config`. None means the run's `context`, else its `configurable`.
            messages_key: The key of the state that has the messages.

        Example:
            ```python
            builder.add_node("remember", memory.as_node())
            graph = builder.compile(checkpointer=saver)
            graph.invoke({"messages": [...]}, {"configurable": {"thread_id": "1"}}, context={"user_id": "alice"})
            ```
        """
        from langchain_memlayer.agents.nodes import memory_graph

        return memory_graph(self._memory, scope=scope, messages_key=messages_key)

    def as_tools(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        scope: ScopeSource | None = None,
        instructions: str | None = None,
    ) -> list[BaseTool]:
        """`manage_memory` and `search_memory`, for an agent that looks after its memory itself.

        Args:
            user_id: Whose memories; without any id and `scope` the run's `context` says it, else its `configurable`.
            agent_id: Which agent's.
            run_id: Which run's.
            scope: In place of ids, a function that gives them and may take `runtime` and `config`.
            instructions: When the model should change memories, in place of ours.
        """
        from langchain_memlayer.agents.tools import MANAGE_INSTRUCTIONS, memory_tools

        bound = Scope(user_id, agent_id, run_id)
        if bound and scope is not None:
            raise InvalidInput("as_tools() takes either ids or scope=, not both.")
        return memory_tools(
            self._memory,
            scope=bound or scope,
            instructions=MANAGE_INSTRUCTIONS if instructions is None else instructions,
        )

    def as_middleware(
        self,
        *,
        scope: ScopeSource | None = None,
        limit: int = 10,
        search_kwargs: dict[str, Any] | None = None,
        remember: bool = True,
        background: bool = False,
        tools: bool = False,
    ) -> MemoryMiddleware:
        """Memory for `langchain.agents.create_agent`: it recalls before a turn and remembers after it.

        Args:
            scope: Whose memories: ids by name, or a function that gives them and may take `state`, `runtime` and
                `config`. None means the run's `context`, else its `configurable`.
            limit: How many memories are recalled at most.
            search_kwargs: Further arguments of `search`.
            remember: Whether turns are remembered; False only recalls.
            background: Find the facts of a turn beside the agent, which answers without waiting.
            tools: Whether the agent gets `manage_memory` and `search_memory` too.

        Raises:
            InvalidInput: `search_kwargs` has what `search` does not take.
            MissingDependency: the package langchain is not installed.
        """
        from langchain_memlayer.agents.middleware import MemoryMiddleware

        return MemoryMiddleware(
            self._memory,
            scope=scope,
            limit=limit,
            search_kwargs=search_kwargs,
            remember=remember,
            background=background,
            tools=tools,
        )

    def as_retriever(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        k: int = 4,
        **search_kwargs: Any,
    ) -> MemoryRetriever:
        """The memories of a scope as a LangChain retriever.

        Args:
            user_id: Whose memories.
            agent_id: Which agent's.
            run_id: Which run's.
            k: How many documents at most.
            **search_kwargs: Further arguments of `search`, such as `filters` or `threshold`.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: `search_kwargs` has what `search` does not take.
        """
        from langchain_memlayer.agents.retriever import MemoryRetriever
        from langchain_memlayer.agents.scope import checked_options

        Scope(user_id, agent_id, run_id).required("as_retriever()")
        search_kwargs = checked_options("as_retriever()", search_kwargs)
        return MemoryRetriever(
            memory=self, user_id=user_id, agent_id=agent_id, run_id=run_id, k=k, search_kwargs=search_kwargs
        )

    @property
    def store(self) -> MemLayerStore:
        """A LangGraph store in the same folder, for `compile(store=memory.store)`; it ends with this memory.

        Nodes, tools and middleware that were built without a memory find this one through it.
        """
        from langchain_memlayer.store import MemLayerStore

        with _OPENING:
            if self._store is None:
                self._store = MemLayerStore.of(self)
            return self._store

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()

    @property
    def _memory(self) -> Memory:
        return cast("Memory", self)
