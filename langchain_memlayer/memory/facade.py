"""`Memory`: long-term memory in a folder."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from uuid import UUID

from langchain_memlayer.backends.adapters import open_vectorstore
from langchain_memlayer.config import MemoryConfig, read_config, resolve_model
from langchain_memlayer.embedders.embedder import resolve_embeddings
from langchain_memlayer.engine.background import Background
from langchain_memlayer.engine.candidates import Finder
from langchain_memlayer.engine.edit import Editor
from langchain_memlayer.engine.fingerprints import chosen_metric, recorded_embedder
from langchain_memlayer.engine.graphs import Graphs
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.read import Engine
from langchain_memlayer.engine.reading import Searcher
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.facts.extraction import LLMExtractor
from langchain_memlayer.facts.reconciliation import LLMReconciler, RuleReconciler
from langchain_memlayer.journal import open_journal
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.place import default_folder
from langchain_memlayer.loops import in_thread
from langchain_memlayer.memory.bound import Bound
from langchain_memlayer.memory.reading import Reading
from langchain_memlayer.memory.writing import Writing
from langchain_memlayer.protocols import Clock, Extractor, NewId, Reconciler
from langchain_memlayer.types import Durability, Metric, Scope

if TYPE_CHECKING:
    from langchain_core.documents import BaseDocumentCompressor
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool
    from langchain_core.vectorstores import VectorStore
    from langgraph.graph.state import CompiledStateGraph

    from langchain_memlayer.agents.middleware import MemoryMiddleware
    from langchain_memlayer.agents.retriever import MemoryRetriever, SearchType
    from langchain_memlayer.agents.scope import ScopeSource
    from langchain_memlayer.agents.surface import OnError
    from langchain_memlayer.checkpoint import MemLayerSaver
    from langchain_memlayer.store import MemLayerStore

# One for all memories: it is held only while a store is made.
_OPENING = threading.Lock()

Reconcile = Literal["llm", "rules", "off"]


class Memory(Writing, Reading):
    """Long-term memory for agents: conversations go in, what matters comes back.

    Every method has an async twin that begins with `a`. A memory belongs to a `user_id`, an `agent_id`, a `run_id`, or
    several of them; given ids are ANDed and absent ones mean any.

    Args:
        path: The folder (made when missing), `":memory:"`, or `postgresql://user:password@host:port/database` for
            many processes and hosts. None means the environment's MEMLAYER_HOME, else a folder of the user's own.
        config: A configuration dictionary as mem0's users write it, or a `MemoryConfig`: `llm`, `embedder` and
            `vector_store`, each with `provider` and `config`, prompts and `path`. Further arguments come before it.
        model: The chat model that extracts and reconciles facts: a LangChain chat model, "provider:model", "auto"
            (OpenAI's gpt-4o-mini when OPENAI_API_KEY is set, else none) or None for none.
        vectorstore: A LangChain `VectorStore` that proposes candidates in place of the package's own index; the folder
            stays the truth. With `embeddings="auto"` its own embeddings are used.
        embeddings: What makes vectors: a LangChain `Embeddings`, "provider:model", a function, "auto" (the folder's
            own; in a new folder OpenAI's when OPENAI_API_KEY is set, else the bundled offline one) or None for
            keywords only.
        extractor: An own `Extractor` in place of the model's.
        reconcile: Who decides what a new fact means for what is known: `llm`, `rules` (equal texts are one; also
            without a model) or `off` (every fact is added).
        custom_prompt: Replaces the instructions of the extraction prompt, not its output format.
        custom_instructions: Further instructions for extraction, such as what to leave out.
        custom_update_prompt: Replaces the instructions of the reconciliation prompt, not its output format.
        keep_turns: Whether messages are kept as memories too.
        metric: How vectors are compared: `cosine`, `inner_product` or `euclidean`. None means as in the folder, in a
            new one by cosine.
        durability: `full` lets an acknowledged write survive power loss; `fast` only a killed process.
        hnsw_threshold: The size (rows x dims) above which a scope gets an HNSW graph.
        clock: The present time; for tests.
        new_id: Fresh ids; for tests.

    Raises:
        NotAStore: `path` holds something else.
        ConfigurationError: settings that cannot be used.

    Example:
        ```python
        memory = Memory("memories")
        memory.add("I moved to Berlin in May.", user_id="alice")
        memory.search("Where does she live?", user_id="alice")["results"][0]["memory"]
        ```
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: Mapping[str, Any] | MemoryConfig | None = None,
        model: BaseChatModel | str | None = "auto",
        embeddings: Any = "auto",
        vectorstore: VectorStore | None = None,
        extractor: Extractor | None = None,
        reconcile: Reconcile = "llm",
        custom_prompt: str | None = None,
        custom_instructions: str | None = None,
        custom_update_prompt: str | None = None,
        keep_turns: bool = True,
        metric: Metric | None = None,
        durability: Durability = "full",
        hnsw_threshold: int = 4_000_000,
        clock: Clock = utc_now,
        new_id: NewId = random_id,
    ) -> None:
        self._reranker: BaseDocumentCompressor | None = None
        self._store: MemLayerStore | None = None
        if isinstance(path, (Mapping, MemoryConfig)):
            raise ConfigurationError("A configuration is given as config=..., or to Memory.from_config(...).")
        # What was opened is closed with the memory, the last first; here when there will be none.
        with ExitStack() as opened:
            if config is not None:
                read = read_config(config, model=_is_auto(model))
                opened.push(read.resources)
                self._reranker = read.reranker
                path = read.path if path is None else path
                model = read.model if _is_auto(model) else model
                embeddings = read.embeddings if _is_auto(embeddings) else embeddings
                vectorstore = read.vectorstore if vectorstore is None else vectorstore
                custom_prompt, metric = custom_prompt or read.prompt, metric or read.metric
                custom_instructions = custom_instructions or read.instructions
                custom_update_prompt = custom_update_prompt or read.update_prompt
            self.model = resolve_model(model)
            if self.model is not None and extractor is None:
                extractor = LLMExtractor(
                    self.model, custom_prompt=custom_prompt, custom_instructions=custom_instructions, clock=clock
                )
            reconciler = _reconciler(self.model, reconcile, custom_update_prompt)
            if isinstance(embeddings, str) and not _is_auto(embeddings):
                # A name that means nothing is told before a folder is made for it.
                resolve_embeddings(embeddings)
            foreign = None
            if vectorstore is not None:
                foreign, embeddings = open_vectorstore(vectorstore, embeddings)
            self._journal = open_journal(
                default_folder() if path is None else path, durability=durability, clock=clock, new_id=new_id
            )
            opened.callback(self._journal.close)
            self._indexes = Indexes(
                self._journal,
                area="memories",
                embedder=resolve_embeddings(embeddings, folder=recorded_embedder(self._journal, "memories")),
                metric=chosen_metric(self._journal, "memories", metric),
                hnsw_threshold=hnsw_threshold,
            )
            opened.callback(self._indexes.close)
            if foreign is not None:
                opened.callback(self._indexes.attach(foreign).close)
            self._graphs = Graphs(self._journal)
            opened.callback(self._graphs.close)
            self._engine = Engine(
                self._journal,
                self._indexes,
                Finder(self._journal, self._indexes, self._graphs),
                extractor=extractor,
                reconciler=None if extractor is None else reconciler,
                keep_turns=keep_turns,
            )
            self._editor = Editor(self._journal, self._indexes, reads=extractor is not None, derived=[self._graphs])
            self._searcher = Searcher(self._journal, self._indexes, self._graphs)
            self._background = Background(self._engine)
            opened.callback(self._background.close)
            self._background.resume()
            self._opened = opened.pop_all()

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any] | MemoryConfig, **settings: Any) -> Self:
        """Open a memory by a configuration dictionary, as mem0's users write it: `Memory(config=...)`.

        Args:
            config_dict: The configuration.
            **settings: Further arguments of `Memory`, which come before what it says: `model=None` for no model.

        Raises:
            ConfigurationError: a mistake in it; the message names the key and the choices.
        """
        return cls(config=config_dict, **settings)

    @property
    def path(self) -> Path | None:
        """The store's folder; None when it is in memory or in a database."""
        return self._journal.folder

    def checkpointer(self, *, allowed_types: Iterable[type] = ()) -> MemLayerSaver:
        """A LangGraph checkpointer in the same folder; see `langchain_memlayer.checkpointer`.

        Raises:
            InvalidInput: the store is in PostgreSQL, where LangGraph's own `PostgresSaver` keeps threads beside it.
        """
        from langchain_memlayer.checkpoint import checkpointer

        return checkpointer(self.path or self._journal.where, allowed_types=allowed_types)

    def close(self) -> None:
        """Stop background work and close the journal; further use raises `JournalClosed`.

        Facts that are still to be found stay noted in the journal; whoever opens the folder next goes on with them.
        """
        self._opened.close()

    async def aclose(self) -> None:
        """Like `close`."""
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- to LangChain and LangGraph: what these give is imported when it is asked for ------------------------------

    def of(
        self,
        user_id: str | int | UUID | None = None,
        *,
        agent_id: str | int | UUID | None = None,
        run_id: str | int | UUID | None = None,
    ) -> Memory:
        """This memory with its scope filled in: the same methods, which need no ids any more.

        Args:
            user_id: Whose memories.
            agent_id: Which agent's.
            run_id: Which run's.

        Returns:
            A handle on this memory: what is closed is this. A method that is given other ids, or an id of a memory that
            belongs to others, says so; what is about the whole store (`reset`) it does not have.

        Raises:
            ScopeRequired: no id was given.

        Example:
            ```python
            alice = memory.of(user_id="alice")
            alice.add("I moved to Berlin in May.")
            agent = create_agent(model, middleware=[alice.as_middleware()])
            ```
        """
        return cast("Memory", Bound(self, Scope(user_id, agent_id, run_id)))  # type: ignore[arg-type]

    @property
    def embedder(self) -> str | None:
        """The name of what makes vectors, or None."""
        embedder = self._indexes.embedder
        return None if embedder is None else embedder.name

    def as_node(
        self,
        *,
        scope: ScopeSource | None = None,
        messages_key: str = "messages",
        name: str = "",
        on_error: OnError = "log",
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Extraction, reconciliation and commit as one compiled graph, to be a node of any `StateGraph`.

        Args:
            scope: Whose memories: ids by name, or a function that gives them and may take `state` (its messages only),
                `runtime` and `config`. None means the run's `context` and `configurable` together, which have to name a
                user.
            messages_key: The key of the state that has the messages.
            name: Tells two memories in one graph apart: it ends the keys that are written.
            on_error: "raise" lets a failing memory stop the graph, for tests; else its messages are read later.

        Example:
            ```python
            builder.add_node("remember", memory.as_node())
            graph = builder.compile(checkpointer=saver)
            graph.invoke({"messages": [...]}, {"configurable": {"thread_id": "1"}}, context={"user_id": "alice"})
            ```
        """
        from langchain_memlayer.agents.nodes import memory_graph

        return memory_graph(self, scope=scope, messages_key=messages_key, name=name, on_error=on_error)

    def as_tools(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        scope: ScopeSource | None = None,
        instructions: str | None = None,
        name: str = "",
        on_error: OnError = "log",
    ) -> list[BaseTool]:
        """`manage_memory` and `search_memory`, for an agent that looks after its memory itself.

        Args:
            user_id: Whose memories; without any id and `scope` the run's `context` and `configurable` say it.
            agent_id: Which agent's.
            run_id: Which run's.
            scope: In place of ids, a function that gives them and may take `runtime` and `config`.
            instructions: When the model should change memories, in place of ours.
            name: Tells the tools of two memories apart: `manage_NAME_memory` and `search_NAME_memory`.
            on_error: "raise" lets a failing memory stop the agent, for tests; else the model is told.
        """
        from langchain_memlayer.agents.tools import memory_tools

        bound = Scope(user_id, agent_id, run_id)
        if bound and scope is not None:
            raise InvalidInput("as_tools() takes either ids or scope=, not both.")
        return memory_tools(self, scope=bound or scope, instructions=instructions, name=name, on_error=on_error)

    def as_middleware(
        self,
        *,
        scope: ScopeSource | None = None,
        name: str | None = None,
        limit: int = 10,
        search_kwargs: dict[str, Any] | None = None,
        remember: bool = True,
        background: bool = False,
        tools: bool = False,
        on_error: OnError = "log",
    ) -> MemoryMiddleware:
        """Memory for `langchain.agents.create_agent`: it recalls before a turn and remembers after it.

        Args:
            scope: Whose memories: ids by name, or a function that gives them and may take `state`, `runtime` and
                `config`. None means the run's `context` and `configurable` together, which have to name a user.
            name: Tells the memories of one agent apart; by itself a team's is, whose `scope` names no user.
            limit: How many memories are recalled at most.
            search_kwargs: Further arguments of `search`.
            remember: Whether turns are remembered; False only recalls.
            background: Find the facts of a turn beside the agent, which answers without waiting.
            tools: Whether the agent gets `manage_memory` and `search_memory` too.
            on_error: "raise" lets a failing memory stop the agent, for tests; else the agent goes on without it.

        Raises:
            InvalidInput: `search_kwargs` has what `search` does not take.
            MissingDependency: the package langchain is not installed.
        """
        from langchain_memlayer.agents.middleware import MemoryMiddleware

        return MemoryMiddleware(
            self,
            scope=scope,
            name=name,
            limit=limit,
            search_kwargs=search_kwargs,
            remember=remember,
            background=background,
            tools=tools,
            on_error=on_error,
        )

    def as_retriever(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        k: int = 4,
        search_type: SearchType = "similarity",
        search_kwargs: Mapping[str, Any] | None = None,
        on_error: OnError = "log",
        **options: Any,
    ) -> MemoryRetriever:
        """The memories of a scope as a LangChain retriever.

        Args:
            user_id: Whose memories.
            agent_id: Which agent's.
            run_id: Which run's.
            k: How many documents at most.
            search_type: `similarity`; `mmr`, of `fetch_k` memories the `k` that say different things; or
                `similarity_score_threshold`, those whose relevance is at least `score_threshold`.
            search_kwargs: As LangChain's vector stores take them: `k`, `filter`, `score_threshold`, `fetch_k`,
                `lambda_mult`; and further arguments of `search`.
            on_error: "raise" lets a failing memory stop the chain, for tests; else nothing is found then.
            **options: The same as `search_kwargs`, by name.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: an option that `search` does not take.
        """
        from langchain_memlayer.agents.retriever import memory_retriever

        scope, settings = Scope(user_id, agent_id, run_id), {**(search_kwargs or {}), **options}
        return memory_retriever(self, scope, k=k, search_type=search_type, search_kwargs=settings, on_error=on_error)

    @property
    def store(self) -> MemLayerStore:
        """A LangGraph store in the same folder, for `compile(store=memory.store)`; it ends with this memory.

        Nodes, tools and middleware that were built without a memory find this one through it.
        """
        from langchain_memlayer.store import MemLayerStore

        with _OPENING:
            if self._store is None:
                self._store = MemLayerStore.of(self)
                self._opened.callback(self._store.close)
            return self._store


def _is_auto(given: Any) -> bool:
    return isinstance(given, str) and given == "auto"


def _reconciler(model: BaseChatModel | None, reconcile: Reconcile, prompt: str | None) -> Reconciler | None:
    if reconcile not in ("llm", "rules", "off"):
        raise ConfigurationError(f"reconcile must be 'llm', 'rules' or 'off', got {reconcile!r}.")
    if reconcile == "off":
        return None
    if reconcile == "llm" and model is not None:
        return LLMReconciler(model, custom_prompt=prompt)
    return RuleReconciler()
