"""`Memory`: long-term memory in a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, cast

from langchain_memlayer.arguments import (
    KEEP,
    KINDS,
    checked_count,
    checked_event_id,
    checked_expiration,
    checked_flags,
    checked_kinds,
    checked_list,
    checked_mapping,
    checked_memory_id,
    checked_moment,
    checked_query,
    checked_reranker,
    checked_seconds,
    checked_threshold,
    checked_time,
    checked_unused,
    is_auto,
)
from langchain_memlayer.backends.base import open_vectorstore
from langchain_memlayer.bound_memory import Access, Bound, Fork
from langchain_memlayer.config import MemoryConfig, read_config, resolve_model
from langchain_memlayer.embedders.embedder import resolve_embeddings
from langchain_memlayer.engine.adopting import adopt
from langchain_memlayer.engine.answers import Answers, Shape
from langchain_memlayer.engine.background import Background
from langchain_memlayer.engine.candidates import Finder
from langchain_memlayer.engine.edit import Editor
from langchain_memlayer.engine.forks import make_fork
from langchain_memlayer.engine.graph_sync import Graphs
from langchain_memlayer.engine.halves import extract_facts, reconcile_facts
from langchain_memlayer.engine.index_sync import Indexes, check_settings, chosen_metric, recorded_embedder
from langchain_memlayer.engine.lookup import Lookup, Selection
from langchain_memlayer.engine.past import difference, undo
from langchain_memlayer.engine.profiles import Profiles
from langchain_memlayer.engine.read import Engine, Prepared, ReadProgress
from langchain_memlayer.engine.replay import replay_turns
from langchain_memlayer.engine.results import add_result
from langchain_memlayer.engine.search import Searcher, SearchQuery
from langchain_memlayer.errors import ConfigurationError, InvalidInput, MemLayerError, ScopeRequired, shown
from langchain_memlayer.facts.profile import ProfileSchema, ProfileUpdater
from langchain_memlayer.facts.reconciliation import LLMReconciler, RuleReconciler
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.journal import default_folder, open_journal
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.mem0_filters import scope_and_filter
from langchain_memlayer.messages import checked_label, checked_metadata, checked_text, read_messages, to_turns
from langchain_memlayer.protocols import Clock, Extractor, NewId, Reconciler
from langchain_memlayer.result_types import (
    AddResult,
    DiffResult,
    Done,
    ExtractResult,
    ForgetResult,
    ForkInfo,
    HistoryRow,
    ListResult,
    MemoryResult,
    MergeResult,
    Profile,
    ProfileChange,
    ReadResult,
    ReplayResult,
    ScopeSize,
    SearchResult,
    UnreadCall,
    WhyResult,
)
from langchain_memlayer.steps import Steps, T, awaited, stepped
from langchain_memlayer.threads import Closing, ForkLock
from langchain_memlayer.tracing import documents, parent, traced
from langchain_memlayer.types import Durability, Fact, Id, Kind, Metric, Scope, Turn, to_micros

if TYPE_CHECKING:
    from langchain_core.documents import BaseDocumentCompressor
    from langchain_core.language_models import BaseChatModel
    from langchain_core.tools import BaseTool
    from langchain_core.vectorstores import VectorStore
    from langgraph.graph.state import CompiledStateGraph
    from pydantic import BaseModel

    from langchain_memlayer.agents.middleware import MemoryMiddleware
    from langchain_memlayer.agents.retriever import MemoryRetriever, SearchType
    from langchain_memlayer.agents.scope import ScopeSource
    from langchain_memlayer.agents.surface import OnError
    from langchain_memlayer.checkpoint import MemLayerSaver
    from langchain_memlayer.graph.memory_graph import MemoryGraph
    from langchain_memlayer.store import MemLayerStore

# One for all memories: it is held only while a store is made.
_OPENING = ForkLock()

Reconcile = Literal["llm", "rules", "off"]


class Internals(NamedTuple):
    """The objects behind a memory's methods, for the package's own surfaces; they may change at any time."""

    extractor: Extractor | None
    indexes: Indexes
    lookup: Lookup


class Memory(Closing):
    """Long-term memory for agents: conversations go in, what matters comes back.

    Every method has an awaited twin that begins with `a`. What many of them take is said here once:

    - `user_id`, `agent_id`, `run_id`: whose memories; strings, numbers or UUIDs. Given ids are ANDed, absent ones mean
      any. `ScopeRequired` is raised where none is given, and `of` fills them in.
    - `messages`: a string, a message (a dictionary or LangChain's), or a list of messages. `session_id` is the
      conversation that they belong to.
    - `filters`: conditions on metadata and on `kind`, `role`, `name`, `session_id`, `created_at`, ..., with `$eq`,
      `$in`, ... or in mem0's way (`{"level": {"gte": 3}}`, AND, OR, NOT). The ids may stand here too. An invalid
      filter raises `InvalidFilter`.
    - `limit` (mem0's `top_k`): how many at most. `kinds`: `fact`, `turn` or both. `show_expired`: include memories that
      have expired (`expiration_date`, or a last day that was said).
    - `batch_id`: a repeated call with the same id changes nothing and reports the same.
    - `scope` of a surface: ids by name, or a function that gives them and may take `state`, `runtime` and `config`.
      None means the run's `context` and `configurable` together, which have to name a user. `on_error="raise"`: let a
      failing memory stop the agent, for tests; otherwise the agent goes on, and what was said is read later.

    Args:
        path: The folder (made when missing), `":memory:"`, or `postgresql://user:password@host:port/database` for
            many processes and hosts. None means the environment's MEMLAYER_HOME, else a folder of the user's own.
        config: A configuration dictionary as mem0's users write it, or a `MemoryConfig`: `llm`, `embedder` and
            `vector_store`, each with `provider` and `config`, prompts and `path`. Other arguments override it.
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
        profile: What is to be known of each user, a pydantic model (or "package.module:Model") or a JSON schema (or
            the path of one, "customer.json"): the chat model keeps one such object up to date, by a small call after
            each commit that adds or changes facts (`profile`, `update_profile`).
        metric: How vectors are compared: `cosine`, `inner_product` or `euclidean`. None means the
            folder's own metric, and cosine in a new folder.
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
        profile: type[BaseModel] | Mapping[str, Any] | str | None = None,
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
                read = read_config(config, model=is_auto(model))
                opened.push(read.resources)
                self._reranker = read.reranker
                path = read.path if path is None else path
                model = read.model if is_auto(model) else model
                embeddings = read.embeddings if is_auto(embeddings) else embeddings
                vectorstore = read.vectorstore if vectorstore is None else vectorstore
                custom_prompt, metric = custom_prompt or read.prompt, metric or read.metric
                custom_instructions = custom_instructions or read.instructions
                custom_update_prompt = custom_update_prompt or read.update_prompt
                profile = read.profile if profile is None else profile
            self.model = resolve_model(model)
            extractor = _extractor(self.model, extractor, custom_prompt, custom_instructions, clock)
            schema = None if profile is None else ProfileSchema(profile)
            reconciler = _reconciler(self.model, reconcile, custom_update_prompt)
            # What cannot be used is told before a folder is made for it.
            checked_flags(keep_turns=keep_turns)
            check_settings(hnsw_threshold=hnsw_threshold, metric=metric, clock=clock, new_id=new_id)
            if not is_auto(embeddings):
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
                metric=chosen_metric(self._journal, metric),
                hnsw_threshold=hnsw_threshold,
            )
            opened.callback(self._indexes.close)
            if foreign is not None:
                opened.callback(self._indexes.attach(foreign).close)
            self._build(opened, extractor, reconciler, schema, keep_turns=keep_turns)
            self._opened = opened.pop_all()

    def _build(
        self,
        opened: ExitStack,
        extractor: Extractor | None,
        reconciler: Reconciler | None,
        schema: ProfileSchema | None,
        *,
        keep_turns: bool,
    ) -> None:
        """What reads and writes the journal and its caches; what has to be closed is told to `opened`."""
        updater = None if schema is None or self.model is None else ProfileUpdater(self.model, schema)
        self._profiles = Profiles(self._journal, schema, updater)
        self._graphs = Graphs(self._journal)
        opened.callback(self._graphs.close)
        self._engine = Engine(
            self._journal,
            self._indexes,
            Finder(self._journal, self._indexes, self._graphs),
            extractor=extractor,
            reconciler=None if extractor is None else reconciler,
            keep_turns=keep_turns,
            profiles=None if updater is None else self._profiles,
        )
        self._editor = Editor(self._journal, self._indexes, reads=extractor is not None, derived=[self._graphs])
        self._searcher = Searcher(self._journal, self._indexes, self._graphs)
        self._lookup = Lookup(self._journal)
        self._answers = Answers(self._journal, self._searcher, self.model)
        self._background = Background(self._engine)
        opened.callback(self._background.close)
        self._background.resume()

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any] | MemoryConfig, **settings: Any) -> Self:
        """Open a memory from a configuration dictionary, as mem0's users write it: `Memory(config=...)`.

        Args:
            config_dict: The configuration.
            **settings: Further arguments of `Memory`, which override the configuration: `model=None` for no model.

        Raises:
            ConfigurationError: a mistake in it; the message names the key and the choices.
        """
        return cls(config=config_dict, **settings)

    def __repr__(self) -> str:
        return f"Memory({self._journal.where!r})"

    @property
    def path(self) -> Path | None:
        """The store's folder; None when it is in memory or in a database."""
        return self._journal.folder

    @property
    def reads(self) -> bool:
        """Whether there is a chat model or an extractor that finds facts."""
        return self._engine.extractor is not None

    @property
    def internals(self) -> Internals:
        """The objects behind the methods, which are not part of the public interface."""
        return Internals(self._engine.extractor, self._indexes, self._lookup)

    @property
    def clock(self) -> Clock:
        """The present time, as it was given."""
        return self._journal.clock

    @property
    def embedder(self) -> str | None:
        """The name of what makes vectors, or None."""
        embedder = self._indexes.embedder
        return None if embedder is None else embedder.name

    @property
    def profile_schema(self) -> type[BaseModel] | None:
        """The pydantic model of what is to be known of each user, or None."""
        return None if self._profiles.schema is None else self._profiles.schema.model

    def of(self, user_id: Id = None, *, agent_id: Id = None, run_id: Id = None) -> Memory:
        """This memory with its scope filled in: the same methods, which no longer need ids.

        Returns:
            A handle on this memory; closing it closes this memory. Its methods refuse other ids and the ids of other
            people's memories, and it has none of those that affect the whole store (`reset`).

        Example:
            ```python
            alice = memory.of(user_id="alice")
            alice.add("I moved to Berlin in May.")
            agent = create_agent(model, middleware=[alice.as_middleware()])
            ```
        """
        return cast("Memory", Bound(self, self._access, Scope(user_id, agent_id, run_id)))

    def close(self) -> None:
        """Stop background work and close the journal; further use raises `JournalClosed`.

        Facts that are still to be found stay noted in the journal; whoever opens the folder next goes on with them.
        """
        self._opened.close()

    aclose = awaited(close)

    # -- remembering -----------------------------------------------------------------------------------------------

    @stepped
    def add(
        self,
        messages: Any,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        timestamp: datetime | str | float | None = None,
        infer: bool = True,
        batch_id: str | None = None,
        background: bool = False,
        after_seconds: float = 0.0,
        expiration_date: date | str | None = None,
        memory_type: None = None,
        prompt: None = None,
    ) -> Steps[AddResult]:
        """Remember messages.

        Args:
            messages: What was said.
            metadata: Kept with every memory that comes from these messages; JSON values.
            timestamp: When they were said, for messages that do not say so themselves.
            infer: False stores the messages exactly as given.
            background: Store the messages now, and find their facts in the background; `flush` waits for them.
            after_seconds: With `background`, how long to wait for more of the conversation (the same scope and
                session): what comes before it pauses is read together, after ten times as long at the latest.
            expiration_date: The last day (UTC, "2025-12-31") on which what comes of these messages counts; afterwards
                it is not found or listed unless asked for.
            memory_type: Must be None; the error says what to use in place of mem0's procedural memories.
            prompt: Must be None; the error says how to set one prompt for all calls.

        Returns:
            `{"results": [{"id", "memory", "event"}], "relations": {"added_entities", "deleted_entities"}}`: what was
            committed. With a model these are facts, with `previous_memory` on updates; what was refused is under
            `rejected`, and what was left out of the messages (images, files, declined ones) under `skipped`.

        Raises:
            InvalidInput: messages or metadata that cannot be used.
            ExtractionError: the model failed. The messages are kept, and are read again after a pause (`unread` lists
                them), by `read`, or when they are added again.
            EmbeddingError: the embedder failed; the messages are kept.
        """
        checked_unused(memory_type, prompt)
        checked_flags(infer=infer, background=background)
        until = checked_expiration(expiration_date)
        pause = checked_seconds(after_seconds, "after_seconds") if background else None
        scope, batch = Scope(user_id, agent_id, run_id).required("add()"), checked_label(batch_id, "batch_id")
        said = read_messages(messages, session_id=session_id, timestamp=timestamp, metadata=metadata)
        if said.skipped and not said.turns:
            parts = ", ".join(sorted({one["part"] for one in said.skipped}))
            # The caller's line: what drives these steps lies between.
            warnings.warn(f"add() remembered nothing: only text is, and the messages have {parts}.", stacklevel=5)
        turns = said.turns if until is None else [replace(turn, valid_until=until) for turn in said.turns]
        result = yield from traced(
            "Memory.add",
            self._remember(turns, scope, infer, batch, pause),
            scope=scope,
            inputs=lambda: {"turns": said.turns},
            outputs=dict,
        )
        if said.skipped:
            result["skipped"] = said.skipped
        return result

    aadd = awaited(add)

    def _remember(
        self, turns: Sequence[Turn], scope: Scope, infer: bool, batch: str | None, pause: float | None
    ) -> Steps[AddResult]:
        reads = infer and self._engine.extractor is not None
        if pause is not None and reads:
            kept = yield from self._engine.keep(turns, scope, batch=batch, at_once=False, after_seconds=pause)
            self._background.wake(kept.note, parent())
            return add_result(kept.outcome, facts=False)
        outcome = yield from self._tried_again(self._engine.add(turns, scope, infer=infer, batch=batch))
        return add_result(outcome, facts=reads)

    def _tried_again(self, steps: Steps[T]) -> Steps[T]:
        """Steps after whose failure what was kept is tried again, whoever made the call."""
        try:
            return (yield from steps)
        except MemLayerError:
            self._background.resume()
            raise
        except GeneratorExit:
            # The call was cancelled: nobody else looks when the note that it has taken is due.
            self._background.wake()
            raise

    def unread(self, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None) -> list[UnreadCall]:
        """The messages of a scope that could not be read yet, or are being read, oldest first.

        Returns:
            `{"id", "turns", "attempts", "next_at", "reason", "set_aside"}` for each call: what was said, how often
            reading it was tried, when it is tried next, why it failed last, and whether it is not tried any more.
        """
        return self._lookup.unread(Scope(user_id, agent_id, run_id).required("unread()"))

    aunread = awaited(unread)

    @stepped
    def read(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        retry: bool = False,
        progress: ReadProgress | None = None,
    ) -> Steps[ReadResult]:
        """Find the facts of messages that were kept but not read: those that are due, and those older than the model.

        Args:
            retry: Include messages that wait after a failure, that were set aside after five, or that a process was
                reading when it died.
            progress: Called with how many calls were tried and how many there are, after each.

        Returns:
            What `add` returns, for all of them together; under `unread` those that failed, as `unread()` lists them.

        Raises:
            ConfigurationError: there is no model.
            ExtractionError: the model failed each time.
        """
        checked_flags(retry=retry)
        scope = Scope(user_id, agent_id, run_id).required("read()")
        if self._engine.extractor is None:
            raise ConfigurationError("read() needs a chat model: open the memory with model= or extractor=.")
        done = yield from self._engine.read_all(scope, retry=retry, progress=progress)
        shown = add_result(done.outcome, facts=True)
        return {
            "results": shown["results"],
            "relations": shown["relations"],
            "rejected": shown.get("rejected", []),
            "unread": self._lookup.unread(scope, among={note.id for note in done.failed}),
        }

    aread = awaited(read)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the facts of all calls with `background=True` are found, and the vector store has everything.

        If one of them fails, the other is still waited for.

        Returns:
            False when either took longer than `timeout` seconds.

        Raises:
            ExtractionError: reading failed since the last `flush`; the messages are kept, and are tried again.
            VectorStoreError: the vector store failed; it gets everything when it answers again.
        """
        mirror = self._indexes.mirror
        timeout = None if timeout is None else checked_seconds(timeout, "timeout")
        done, errors = True, list[MemLayerError]()
        for flush in (self._background.flush, *(() if mirror is None else (mirror.flush,))):
            try:
                done = flush(timeout) and done
            except MemLayerError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return done

    aflush = awaited(flush)

    @stepped
    def extract(
        self,
        messages: Any,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        session_id: str | None = None,
    ) -> Steps[ExtractResult]:
        """Keep messages and find the facts in them, without storing these: the first half of `add`.

        Args:
            messages: Like `add`; those that were read before are context.

        Returns:
            `facts`, each with `text`, `quote`, `sources` (the messages that it cites), `triples`, `valid_at`, `name`
            and `metadata`; and `rejected`. All are JSON values, for `reconcile`.

        Raises:
            ExtractionError: the model failed.
        """
        scope = Scope(user_id, agent_id, run_id).required("extract()")
        turns = to_turns(messages, session_id=session_id)
        return (yield from self._tried_again(extract_facts(self._engine, turns, scope)))

    aextract = awaited(extract)

    @stepped
    def reconcile(
        self,
        messages: Any,
        facts: Sequence[Mapping[str, Any]],
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        session_id: str | None = None,
        batch_id: str | None = None,
        rejected: Sequence[Mapping[str, Any]] = (),
        by_agent: bool = False,
    ) -> Steps[AddResult]:
        """Decide what facts mean for what is known, and commit them with their messages: the second half of `add`.

        Args:
            messages: Those that were given to `extract`.
            facts: What it gave under `facts`.
            rejected: What it gave under `rejected`, to be recorded.
            by_agent: An agent states the facts itself: its messages are kept to be cited, and no search finds them.

        Returns:
            Like `add`.

        Raises:
            InvalidInput: a fact is not valid, or cites none of the messages.
        """
        checked_flags(by_agent=by_agent)
        scope = Scope(user_id, agent_id, run_id).required("reconcile()")
        turns, batch = to_turns(messages, session_id=session_id), checked_label(batch_id, "batch_id")
        steps = reconcile_facts(self._engine, turns, facts, rejected, scope, batch=batch, by_agent=by_agent)
        outcome = yield from self._tried_again(steps)
        # Messages that came after `extract` are still to be read.
        self._background.resume()
        return add_result(outcome, facts=by_agent or self._engine.extractor is not None)

    areconcile = awaited(reconcile)

    @stepped
    def add_graph_documents(
        self, documents: Iterable[Any], *, user_id: Id = None, agent_id: Id = None, run_id: Id = None
    ) -> Steps[AddResult]:
        """Remember the relations of GraphDocument objects of any package, each with the text that it comes from.

        Raises:
            InvalidInput: an object of another shape; nothing was written.
        """
        from langchain_memlayer.graph.export import from_graph_document

        scope = Scope(user_id, agent_id, run_id).required("add_graph_documents()")
        turns: list[Turn] = []
        facts: list[Fact] = []
        for document in checked_list(documents, "documents"):
            turn, stated = from_graph_document(document)
            facts += [replace(fact, turns=(len(turns),)) for fact in stated]
            turns.append(turn)
        outcome = yield from self._engine.reconcile(
            Prepared(scope, tuple(turns), tuple(facts), actor="user"), batch=None
        )
        return add_result(outcome, facts=True)

    aadd_graph_documents = awaited(add_graph_documents)

    def adopt(
        self, documents: Iterable[Any] | None = None, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None
    ) -> dict[str, int]:
        """Take in the documents of the vector store that no memory wrote: until then they are invisible here.

        Each becomes a memory of kind `turn` and role "document" with its metadata, in the journal alone: nothing is
        written to the vector store, where the document stays as it is and other chains find it once. What was adopted
        before is left out, so that an interrupted call can be repeated.

        Args:
            documents: LangChain `Document` objects, for a store that cannot list its own; None lists them.

        Returns:
            `adopted`: how many documents were taken in; `known`: how many had been already; `skipped`: how many have no
            text.

        Raises:
            ConfigurationError: no documents were given, and there is no `vectorstore`, or none that can list its own.
            InvalidInput: a document has no text or metadata that can be kept; what was adopted so far is kept.
            VectorStoreError: the store failed; what was adopted so far is kept.
        """
        scope = Scope(user_id, agent_id, run_id).required("adopt()")
        return adopt(self._engine, self._indexes.mirror, documents, scope)

    aadopt = awaited(adopt)

    # -- changing and forgetting ------------------------------------------------------------------------------------

    @stepped
    def update(
        self,
        memory_id: str,
        data: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expiration_date: date | str | None = KEEP,
        *,
        text: str | None = None,
    ) -> Steps[Done]:
        """Give a memory a new text, further metadata, or another expiry; what it was stays in its history.

        No model is asked: relations whose names are still in the new text stay, and others are found when the text is
        read (by `read`, `flush`, or the next call with `background=True`).

        Raises:
            MemoryNotFound: no live memory has this id.
            EmbeddingError: the embedder failed; nothing was changed.
        """
        # mem0 calls it text and keeps data as an older name.
        data = data if text is None else text
        if data is not None and (not isinstance(data, str) or not data.strip()):
            raise InvalidInput("data must be the memory's new text, or None to change its metadata only.")
        if data is None and metadata is None and expiration_date == KEEP:
            raise InvalidInput("update() needs a new text, metadata, or an expiration_date.")
        until = KEEP if expiration_date == KEEP else checked_expiration(expiration_date)
        text = None if data is None else checked_text(data, "data")
        yield from self._editor.update(checked_memory_id(memory_id), text, checked_metadata(metadata), until)
        return {"message": "Memory updated successfully!"}

    aupdate = awaited(update)

    def delete(self, memory_id: str) -> Done:
        """End a memory; its history stays (`forget` removes that too).

        Raises:
            MemoryNotFound: no live memory has this id.
        """
        self._editor.delete(checked_memory_id(memory_id))
        return {"message": "Memory deleted successfully!"}

    adelete = awaited(delete)

    def delete_all(self, user_id: Id = None, agent_id: Id = None, run_id: Id = None) -> Done:
        """End all memories of a scope; their history stays (`forget` removes that too).

        Raises:
            ScopeRequired: no id was given; `reset` empties the whole folder.
        """
        count, event = self._editor.delete(Scope(user_id, agent_id, run_id).required("delete_all()"))
        done: Done = {"message": "Memories deleted successfully!", "count": count}
        return {**done, "event_id": str(event)} if event else done

    adelete_all = awaited(delete_all)

    @stepped
    def forget(
        self,
        memory_id: str | None = None,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        same_words: bool = False,
    ) -> Steps[ForgetResult]:
        """Remove a memory, or all of a scope, from every file of the store: text, history, vectors and keywords.

        Messages that only this memory cites go with it, and so do facts that come from this message alone. From a
        message that other facts cite too, only the words that this memory quotes are removed.

        Args:
            memory_id: The memory.
            same_words: Remove the other memories of its scope that hold the same words, too.

        Returns:
            `count`, how many versions were removed, and under `also` the id, text and kind of each other memory of the
            same scope that still holds the same words.

        Raises:
            MemoryNotFound: there was never a memory with this id.
            ScopeRequired: neither a memory nor an id was given.
        """
        checked_flags(same_words=same_words)
        scope = Scope(user_id, agent_id, run_id)
        if memory_id is not None and scope:
            raise InvalidInput("forget() takes either a memory's id or the ids of a scope, not both.")
        target = scope.required("forget()") if memory_id is None else checked_memory_id(memory_id)
        return (yield from self._editor.forget(target, also=same_words))

    aforget = awaited(forget)

    def reset(self) -> None:
        """Empty the whole folder, physically."""
        self._editor.reset()

    areset = awaited(reset)

    # -- finding -----------------------------------------------------------------------------------------------------

    @stepped
    def search(
        self,
        query: str,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        limit: int = 10,
        top_k: int | None = None,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        kinds: Sequence[Kind] | None = None,
        explain: bool = False,
        include_quarantined: bool = False,
        reference_time: datetime | None = None,
        as_of: datetime | str | None = None,
        known_at: datetime | str | None = None,
        max_tokens: int | None = None,
        expand: int = 0,
        rerank: BaseDocumentCompressor | bool | None = None,
        messages: Any = None,
        rewrite: bool = False,
        show_expired: bool = False,
        words_only: bool = False,
        reference_date: None = None,
    ) -> Steps[SearchResult]:
        """The memories that answer a query, best first.

        Args:
            query: A question or some words.
            threshold: Leaves out hits whose `relevance` is lower.
            explain: Show what each signal added to a score, under `explanation`.
            include_quarantined: Let tool output come back too.
            reference_time: The present, for dates such as "last week"; the clock's by default.
            as_of: What held at a time, ended versions too.
            known_at: What had been recorded by a time.
            max_tokens: The most tokens that all hits, with what is around them, may have together. Memories are not
                cut: one that does not fit is left out, and later ones may fit.
            expand: How many turns before and after to show with each hit, under `around`.
            rerank: A LangChain document compressor that orders the best hits anew; `score` stays what it was. True
                takes that of the configuration, if it names one.
            messages: The conversation that the query belongs to, for `rewrite`.
            rewrite: Let the model turn a query that needs its context ("what about her?") into complete ones, one for
                each part of it, in one call. When the model fails, the query is searched for as it is.
            words_only: Search by words, names and dates alone, without the embedder. Agents' surfaces do so while the
                embedder fails.
            reference_date: Must be None, as in mem0's own class; give `reference_time`.

        Returns:
            `{"results": [...], "relations": [...]}`. A result is a fact with the turns that it comes from under
            `evidence`, or a turn that says what no fact says. Each has `id`, `memory`, `score` (0..1, orders the hits),
            `relevance` (0..1, absolute), `kind`, `sources`, `metadata`, the ids of its scope and its dates.

        Raises:
            ConfigurationError: `rewrite` without a model.
            EmbeddingError: the embedder failed.
        """
        checked_flags(
            explain=explain,
            include_quarantined=include_quarantined,
            rewrite=rewrite,
            show_expired=show_expired,
            words_only=words_only,
        )
        if reference_date is not None:
            raise InvalidInput("reference_date: give the present as reference_time=, a datetime or an ISO 8601 text.")
        scope, conditions = scope_and_filter(filters, Scope(user_id, agent_id, run_id))
        search_query = SearchQuery(
            text=checked_query(query),
            scope=scope.required("search()"),
            limit=checked_count(limit if top_k is None else top_k, "limit", 1),
            filter=parse_filter(conditions),
            threshold=checked_threshold(threshold),
            kinds=checked_kinds(kinds) or frozenset(KINDS),
            # Its zone stays: "yesterday" is the caller's.
            reference_time=checked_time(reference_time, "reference_time"),
            as_of=checked_moment(as_of, "as_of"),
            known_at=checked_moment(known_at, "known_at"),
            include_quarantined=include_quarantined,
            show_expired=show_expired,
            words_only=words_only,
            now=self._journal.now(),
        )
        shape = Shape(
            explain=explain,
            max_tokens=None if max_tokens is None else checked_count(max_tokens, "max_tokens", 1),
            expand=checked_count(expand, "expand", 0),
            rerank=checked_reranker(rerank, self._reranker),
            conversation=None if not rewrite else [] if messages is None else to_turns(messages),
        )
        return (
            yield from traced(
                "Memory.search",
                self._answers.search(search_query, shape),
                run_type="retriever",
                scope=search_query.scope,
                inputs=lambda: {"query": search_query.text, "limit": search_query.limit},
                outputs=lambda result: documents(result["results"]),
            )
        )

    asearch = awaited(search)

    def get(self, memory_id: str) -> MemoryResult | None:
        """One memory by its id, or None when there is none (or no longer)."""
        return self._lookup.memory(checked_memory_id(memory_id))

    aget = awaited(get)

    def get_all(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 100,
        top_k: int | None = None,
        offset: int = 0,
        kinds: Sequence[Kind] | None = None,
        everything: bool = False,
        show_expired: bool = False,
    ) -> ListResult:
        """The memories of a scope, oldest first.

        Args:
            offset: How many to skip.
            kinds: By default facts, what was stored as given, and turns that were not read.
            everything: Without any id, list everybody's memories.

        Raises:
            ScopeRequired: no id was given, and not `everything`: an id that is missing by mistake must not list all.
        """
        checked_flags(everything=everything, show_expired=show_expired)
        selection = Selection.of(Scope(user_id, agent_id, run_id), filters, kinds, show_expired)
        limit, offset = checked_count(limit if top_k is None else top_k, "limit", 1), checked_count(offset, "offset", 0)
        if not everything:
            selection.scope.required("get_all() (or everything=True)")
        return self._lookup.page(selection, limit=limit, offset=offset)

    aget_all = awaited(get_all)

    def scopes(
        self, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None, limit: int = 1000, offset: int = 0
    ) -> list[ScopeSize]:
        """Whose memories there are and how many, in the order of the ids; with ids, only those that have these."""
        limit, offset = checked_count(limit, "limit", 1), checked_count(offset, "offset", 0)
        return self._lookup.scopes(Scope(user_id, agent_id, run_id), limit=limit, offset=offset)

    ascopes = awaited(scopes)

    def history(self, memory_id: str) -> list[HistoryRow]:
        """What happened to a memory, in order; also of one that was deleted. Rows have mem0's keys too."""
        return self._lookup.history(checked_memory_id(memory_id))

    ahistory = awaited(history)

    def why(self, memory_id: str) -> WhyResult:
        """Which turns a memory comes from, with which quotes, and what was decided about it by which prompt.

        Raises:
            MemoryNotFound: no live memory has this id.
        """
        return self._lookup.why(checked_memory_id(memory_id))

    awhy = awaited(why)

    def graph(self, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None) -> MemoryGraph:
        """The relations of a scope as a NetworkX graph: a copy, which draws itself in a notebook."""
        return self._graphs.copy(Scope(user_id, agent_id, run_id).required("graph()"))

    agraph = awaited(graph)

    # -- profiles ---------------------------------------------------------------------------------------------------

    def profile(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        as_of: datetime | str | None = None,
        known_at: datetime | str | None = None,
    ) -> Profile:
        """What is known of a user as one object: `profile(user_id="alice").value`.

        Each user has one, whichever agents or runs the facts belong to; further ids limit it to what their facts say
        and what was set by hand. When the facts behind a field end, so does the field.

        Args:
            as_of: What held at a time.
            known_at: What had been recorded by a time.
        """
        return self._profiles.show(
            Scope(user_id, agent_id, run_id).required("profile()"),
            as_of=checked_moment(as_of, "as_of"),
            known_at=checked_moment(known_at, "known_at"),
        )

    aprofile = awaited(profile)

    def update_profile(
        self, values: Mapping[str, Any], *, user_id: Id = None, agent_id: Id = None, run_id: Id = None
    ) -> Profile:
        """Set fields of a user's profile by hand; they override what was said before, and yield to what is said later.

        Args:
            values: New values by field; None clears one.

        Returns:
            The profile.

        Raises:
            InvalidInput: there is no such field, or the schema does not take a value; nothing was written.
            ConfigurationError: the memory was opened without `profile=`.
        """
        scope = Scope(user_id, agent_id, run_id).required("update_profile()")
        if not isinstance(values, Mapping) or not values:
            raise InvalidInput("update_profile() takes a mapping of fields and their values, None to clear one.")
        self._profiles.edit(scope, values)
        return self._profiles.show(scope)

    aupdate_profile = awaited(update_profile)

    def profile_history(self, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None) -> list[ProfileChange]:
        """Each change of each field of a user's profile, in order, with the facts that it came from."""
        return self._profiles.history(Scope(user_id, agent_id, run_id).required("profile_history()"))

    aprofile_history = awaited(profile_history)

    # -- the past ---------------------------------------------------------------------------------------------------

    def diff(
        self,
        since: datetime | str,
        until: datetime | str | None = None,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        kinds: Sequence[Kind] | None = None,
        everything: bool = False,
    ) -> DiffResult:
        """What became known, changed and ended between two instants.

        What came and went in between is in neither state, and so not shown; nor is what was forgotten, which left no
        trace.

        Args:
            since: The earlier instant, as in `known_at`.
            until: The later one; None for now.
            kinds: As in `get_all`.
            everything: Without any id, compare everybody's memories.

        Returns:
            `added` and `ended`, memories as `get` shows them; `changed`, each with its `id`, `before` and `after`;
            `relations`, those that came and went with them; `profile`, what changed in it meanwhile, if anything.

        Raises:
            ScopeRequired: no id was given, and not `everything`.
            InvalidInput: `since` is no time, or is after `until`.
        """
        checked_flags(everything=everything)
        scope = Scope(user_id, agent_id, run_id)
        if not everything:
            scope.required("diff() (or everything=True)")
        began, ended = checked_moment(since, "since"), checked_moment(until, "until")
        ended = self._journal.now() if ended is None else ended
        if began is None or began > ended:
            raise InvalidInput("diff() needs since=, a time before until= (by default the present).")
        changes = difference(self._journal, scope, began, ended, checked_kinds(kinds))
        rows = self._profiles.history(scope) if scope else []
        rows = [row for row in rows if began < to_micros(datetime.fromisoformat(row["timestamp"])) <= ended]
        return {**changes, "profile": rows} if rows else changes

    adiff = awaited(diff)

    def undo(
        self,
        event_id: int | str | None = None,
        *,
        batch_id: str | None = None,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
    ) -> AddResult:
        """Take back what happened to a memory, or all that calls with a batch id did.

        The memory becomes exactly what it was before, with the relations and messages that changed with it; a message
        that was added is removed again. The history keeps what happened; the undo is an event of its own, and can be
        undone itself.

        Args:
            event_id: The number of an ADD, UPDATE, DELETE or UNDO: the `id` of its row in `history`. A deleted message
                brings back the facts that ended with it, the `event_id` of a `delete_all` all that it ended.
            batch_id: Instead, the `batch_id` of an `add`, with exactly the ids of that call. It stays used: the same
                call made again adds nothing. Of calls that were read together (`after_seconds`), each has
                the facts of its own messages.

        Returns:
            Like `add`, what became of each memory.

        Raises:
            InvalidInput: there is no such event or batch here, it was undone already, the memory was changed since by
                another event (that one has to be undone first), or it was forgotten, which is physical.
            ScopeRequired: a batch id without the ids of its call.
        """
        scope, event = Scope(user_id, agent_id, run_id), None
        if (event_id is None) == (batch_id is None):
            raise InvalidInput("undo() takes either an event's number or batch_id=.")
        if batch_id is not None:
            scope.required("undo() of a batch")
        else:
            event = checked_event_id(event_id)
        reads = self._engine.extractor is not None
        done = undo(self._journal, scope, event=event, batch=checked_label(batch_id, "batch_id"), reads=reads)
        return add_result(done, facts=True)

    aundo = awaited(undo)

    @stepped
    def replay(
        self,
        into: str,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        extractor: Extractor | None = None,
        model: BaseChatModel | str | None = None,
        progress: ReadProgress | None = None,
    ) -> Steps[ReplayResult]:
        """Read all kept messages of a user again, by another model or prompt, into memories of another user.

        The user's own memories stay as they are. The others can be searched and compared like any; `forget` removes
        them. What was deleted is not read again.

        Args:
            into: The user id of the new memories, of whom there are none yet.
            extractor: What reads them, such as an `LLMExtractor` with another prompt; by default this memory's own.
            model: Another chat model, which reconciles and, without an extractor, extracts.
            progress: Called after each page with how many messages were read, and how many there are.

        Returns:
            `turns`, how many messages there are; `same`, how many facts both readings have; and under `results` those
            that differ: `before` and `after`, and what was `said`.

        Raises:
            ScopeRequired: no user was given.
            InvalidInput: there are memories of `into` already.
            ConfigurationError: there is no model.
            ExtractionError: the model failed; what was read so far stays under `into`, the rest is not read.
        """
        scope = Scope(user_id, agent_id, run_id)
        if scope.user_id is None:
            raise ScopeRequired("replay() needs the user_id of those whose messages are read again.")
        target, reconciler = Scope(into).required("replay(into=...)"), self._engine.reconciler
        chat = resolve_model(model)
        if chat is not None:
            from langchain_memlayer.facts.extraction import LLMExtractor

            extractor, reconciler = extractor or LLMExtractor(chat, clock=self._journal.clock), LLMReconciler(chat)
        extractor = _usable(extractor) or self._engine.extractor
        if extractor is None:
            raise ConfigurationError("replay() needs a chat model: give it model= or extractor=.")
        return (
            yield from replay_turns(
                self._engine, scope, target.user_id or "", extractor=extractor,
                reconciler=reconciler or RuleReconciler(), progress=progress,
            )
        )  # fmt: skip

    areplay = awaited(replay)

    def fork(self, name: str, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None, new: bool = True) -> Fork:
        """A copy of a scope to try something out in, then to merge or drop; made if there is none of this name.

        It has what holds, with the messages behind it, their relations and vectors: no model is asked, and nothing is
        embedded again. Nothing of it is found outside of it, `everything=True` included, and what happens in it leaves
        the original as it is.

        Args:
            name: What it is called among the forks of these ids.
            new: Whether to make it if there is none.

        Returns:
            A handle as `of` gives one, with `merge` and `drop`.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: the name is empty, the ids are those of a fork, or there is none of this name and `new` is
                False.

        Example:
            ```python
            trial = memory.fork("trial", user_id="alice")
            trial.add("I moved to Paris.")
            trial.search("Where do I live?")
            trial.merge()
            ```
        """
        checked_flags(new=new)
        scope = Scope(user_id, agent_id, run_id).required("fork()")
        if not isinstance(name, str) or not name.strip():
            raise InvalidInput("fork() needs a name: a non-empty string.")
        if scope.fork is not None:
            raise InvalidInput("This is a fork already; merge or drop it, or fork the original under another name.")
        made = make_fork(self._journal, scope, checked_text(name, "name"), new=new)
        return Fork(self, self._access, made.ids, name, scope)

    afork = awaited(fork)

    def forks(self, *, user_id: Id = None, agent_id: Id = None, run_id: Id = None) -> list[ForkInfo]:
        """The forks there are, in the order in which they were made; with ids, only those of scopes that have these.

        Returns:
            For each its `name`, whose memories it is a copy of, `created_at`, and under `ids` its own.
        """
        return self._lookup.forks(Scope(user_id, agent_id, run_id))

    aforks = awaited(forks)

    @property
    def _access(self) -> Access:
        return Access(lambda key: self._lookup.owner(checked_memory_id(key)), self._merge, self._drop)

    def _merge(self, scope: Scope, name: str) -> MergeResult:
        result = self._editor.merge(scope, name)
        self._background.resume()
        return result

    def _drop(self, scope: Scope, name: str) -> Done:
        return {"message": "Fork dropped.", "count": self._editor.drop(scope, name)}

    # -- to LangChain and LangGraph: what these give is imported when it is asked for ------------------------------

    def as_node(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        scope: ScopeSource | None = None,
        messages_key: str = "messages",
        name: str = "",
        on_error: OnError = "log",
    ) -> CompiledStateGraph[Any, Any, Any, Any]:
        """Extraction, reconciliation and commit as one compiled graph, to be a node of any `StateGraph`.

        Args:
            scope: In place of ids; a function is given no more of the state than its messages.
            messages_key: The key of the state that has the messages.
            name: Tells two memories in one graph apart: it is appended to the keys that are written.

        Example:
            ```python
            builder.add_node("remember", memory.as_node())
            graph = builder.compile(checkpointer=saver)
            graph.invoke({"messages": [...]}, {"configurable": {"thread_id": "1"}}, context={"user_id": "alice"})
            ```
        """
        from langchain_memlayer.agents.nodes import memory_graph

        scope = _bound("as_node()", Scope(user_id, agent_id, run_id), scope)
        return memory_graph(self, scope=scope, messages_key=messages_key, name=name, on_error=on_error)

    def as_tools(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        scope: ScopeSource | None = None,
        instructions: str | None = None,
        name: str = "",
        on_error: OnError = "log",
    ) -> list[BaseTool]:
        """`manage_memory` and `search_memory`, for an agent that looks after its memory itself.

        Args:
            scope: In place of ids.
            instructions: When the model should change memories, in place of ours.
            name: Tells the tools of two memories apart: `manage_NAME_memory` and `search_NAME_memory`.
            on_error: "raise" lets a failing memory stop the agent; otherwise the model is told.
        """
        from langchain_memlayer.agents.tools import memory_tools

        scope = _bound("as_tools()", Scope(user_id, agent_id, run_id), scope)
        return memory_tools(self, scope=scope, instructions=instructions, name=name, on_error=on_error)

    def as_middleware(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        scope: ScopeSource | None = None,
        name: str | None = None,
        limit: int = 10,
        search_kwargs: dict[str, Any] | None = None,
        remember: bool = True,
        background: bool = False,
        after_seconds: float = 0.0,
        tools: bool = False,
        on_error: OnError = "log",
    ) -> MemoryMiddleware:
        """Memory for `langchain.agents.create_agent`: it recalls before a turn and remembers after it.

        Args:
            scope: In place of ids.
            name: Tells the memories of one agent apart; a team's, whose `scope` names no user, needs none.
            limit: How many memories are recalled at most.
            search_kwargs: Further arguments of `search`.
            remember: Whether turns are remembered; False only recalls.
            background: Find the facts of a turn in the background: the agent answers without waiting.
            after_seconds: With `background`, how long to wait for more of the conversation: all turns until it pauses
                are then read together.
            tools: Whether the agent gets `manage_memory` and `search_memory` too.

        Raises:
            InvalidInput: `search_kwargs` has what `search` does not take.
            MissingDependency: the package langchain is not installed.
        """
        from langchain_memlayer.agents.middleware import MemoryMiddleware

        return MemoryMiddleware(
            self,
            scope=_bound("as_middleware()", Scope(user_id, agent_id, run_id), scope),
            name=name,
            limit=limit,
            search_kwargs=search_kwargs,
            remember=remember,
            background=background,
            after_seconds=after_seconds,
            tools=tools,
            on_error=on_error,
        )

    def as_retriever(
        self,
        *,
        user_id: Id = None,
        agent_id: Id = None,
        run_id: Id = None,
        k: int = 4,
        search_type: SearchType = "similarity",
        search_kwargs: Mapping[str, Any] | None = None,
        on_error: OnError = "log",
        **options: Any,
    ) -> MemoryRetriever:
        """The memories of a scope as a LangChain retriever.

        Args:
            k: How many documents at most.
            search_type: `similarity`; `mmr`, of `fetch_k` memories the `k` that say different things; or
                `similarity_score_threshold`, those whose relevance is at least `score_threshold`.
            search_kwargs: As LangChain's vector stores take them: `k`, `filter`, `score_threshold`, `fetch_k`,
                `lambda_mult`; and further arguments of `search`.
            **options: The same as `search_kwargs`, by name.

        Raises:
            InvalidInput: an option that `search` does not take.
        """
        from langchain_memlayer.agents.retriever import memory_retriever

        given = checked_mapping({} if search_kwargs is None else search_kwargs, "search_kwargs")
        scope, settings = Scope(user_id, agent_id, run_id), {**given, **options}
        return memory_retriever(self, scope, k=k, search_type=search_type, search_kwargs=settings, on_error=on_error)

    def checkpointer(self, *, allowed_types: Iterable[type] = ()) -> MemLayerSaver:
        """A LangGraph checkpointer in the same folder; see `langchain_memlayer.checkpointer`.

        Raises:
            InvalidInput: the store is in PostgreSQL, where LangGraph's own `PostgresSaver` keeps threads beside it.
        """
        from langchain_memlayer.checkpoint import checkpointer

        return checkpointer(self.path or self._journal.where, allowed_types=allowed_types)

    @property
    def store(self) -> MemLayerStore:
        """A LangGraph store in the same folder, for `compile(store=memory.store)`; it is closed with this memory.

        Nodes, tools and middleware that were built without a memory find this one through it.
        """
        from langchain_memlayer.store import MemLayerStore

        with _OPENING:
            if self._store is None:
                self._store = MemLayerStore.of(self)
                self._opened.callback(self._store.close)
            return self._store


def _bound(call: str, ids: Scope, scope: ScopeSource | None) -> ScopeSource | None:
    """Whose memories a surface is for, by either of the ways to say it; None when each run says it."""
    if ids and scope is not None:
        raise InvalidInput(f"{call} takes either ids or scope=, not both.")
    return ids or scope


def _usable(extractor: Extractor | None) -> Extractor | None:
    if extractor is not None and not callable(getattr(extractor, "extract", None)):
        raise ConfigurationError(f"extractor must have extract(turns, context), got {shown(extractor)}.")
    return extractor


def _extractor(
    model: BaseChatModel | None, own: Extractor | None, prompt: str | None, instructions: str | None, clock: Clock
) -> Extractor | None:
    if _usable(own) is not None or model is None:
        return own
    from langchain_memlayer.facts.extraction import LLMExtractor

    return LLMExtractor(model, custom_prompt=prompt, custom_instructions=instructions, clock=clock)


def _reconciler(model: BaseChatModel | None, reconcile: Reconcile, prompt: str | None) -> Reconciler | None:
    if reconcile not in ("llm", "rules", "off"):
        raise ConfigurationError(f"reconcile must be 'llm', 'rules' or 'off', got {shown(reconcile)}.")
    if reconcile == "off":
        return None
    if reconcile == "llm" and model is not None:
        return LLMReconciler(model, custom_prompt=prompt)
    return RuleReconciler()
