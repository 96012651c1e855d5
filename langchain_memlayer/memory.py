"""`Memory`: long-term memory in a folder."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from langchain_memlayer.embeddings import resolve_embeddings
from langchain_memlayer.engine.commit import Outcome
from langchain_memlayer.engine.indexes import Indexes, recorded_embedder
from langchain_memlayer.engine.reading import Searcher, SearchQuery, record_of, result_of
from langchain_memlayer.engine.steps import Steps, arun, run
from langchain_memlayer.engine.writing import Engine, scope_sql
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.journal.sqlite import SQLiteJournal, random_id, utc_now
from langchain_memlayer.messages import checked_text, to_turns
from langchain_memlayer.protocols import Clock, Extractor, NewId
from langchain_memlayer.types import Durability, Event, Kind, Scope, from_micros
from langchain_memlayer.values import plain

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Result = dict[str, Any]
_KINDS = ("fact", "turn")


class Memory:
    """Long-term memory for agents: conversations go in, what matters comes back.

    Every method has an async twin that begins with `a`. A memory belongs to a `user_id`, an `agent_id`, a `run_id`, or
    several of them; given ids are ANDed and absent ones mean any.

    Args:
        path: The folder (made when missing), or `":memory:"`. None means the environment's MEMLAYER_HOME, else a
            folder of the user's own.
        model: The chat model that extracts and reconciles facts: a LangChain chat model, "provider:model", "auto"
            (OpenAI's gpt-4o-mini when OPENAI_API_KEY is set, else none) or None for none.
        embeddings: What makes vectors: a LangChain `Embeddings`, "provider:model", a function, "auto" (the folder's own;
            in a new folder OpenAI's when OPENAI_API_KEY is set, else the bundled offline one) or None for keywords only.
        extractor: An own `Extractor` in place of the model's.
        reconcile: Who decides what a new fact means for what is known: `llm`, `rules` (equal texts are one) or `off`.
        custom_prompt: Replaces the instructions of the extraction prompt, not its output format.
        keep_turns: Whether messages are kept as memories too.
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
        model: BaseChatModel | str | None = "auto",
        embeddings: Any = "auto",
        extractor: Extractor | None = None,
        reconcile: Literal["llm", "rules", "off"] = "llm",
        custom_prompt: str | None = None,
        keep_turns: bool = True,
        durability: Durability = "full",
        hnsw_threshold: int = 4_000_000,
        clock: Clock = utc_now,
        new_id: NewId = random_id,
    ) -> None:
        self._journal = SQLiteJournal(
            default_folder() if path is None else path, durability=durability, clock=clock, new_id=new_id
        )
        try:
            embedder = resolve_embeddings(embeddings, folder=recorded_embedder(self._journal, "memories"))
            self._indexes = Indexes(
                self._journal, area="memories", embedder=embedder, metric="cosine", hnsw_threshold=hnsw_threshold
            )
            self._extractor = extractor
        except ConfigurationError:
            self._journal.close()
            raise
        self._engine = Engine(self._journal, self._indexes, extractor=extractor, reconciler=None, keep_turns=keep_turns)
        self._searcher = Searcher(self._journal, self._indexes)

    # -- writing --------------------------------------------------------------------------------------------------

    def add(
        self,
        messages: Any,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        timestamp: datetime | str | float | None = None,
        infer: bool = True,
        batch_id: str | None = None,
    ) -> Result:
        """Remember messages.

        Args:
            messages: A string, a message (dict or LangChain), or a list of messages.
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            metadata: Kept with every memory that comes from these messages; JSON values.
            session_id: The conversation that the messages belong to.
            timestamp: When they were said, for messages that do not say so themselves.
            infer: False stores the messages exactly as given.
            batch_id: A repeated call with the same id changes nothing and reports the same.

        Returns:
            `{"results": [{"id", "memory", "event"}], "relations": ...}`: what was committed.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: messages or metadata that cannot be used.
        """
        scope = Scope(user_id, agent_id, run_id)
        return _added(run(self._add(messages, scope, metadata, session_id, timestamp, infer, batch_id)))

    async def aadd(
        self,
        messages: Any,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        timestamp: datetime | str | float | None = None,
        infer: bool = True,
        batch_id: str | None = None,
    ) -> Result:
        """Like `add`."""
        scope = Scope(user_id, agent_id, run_id)
        return _added(await arun(self._add(messages, scope, metadata, session_id, timestamp, infer, batch_id)))

    def _add(
        self, messages: Any, scope: Scope, metadata: Any, session_id: Any, timestamp: Any, infer: bool, batch: Any
    ) -> Steps:
        scope.required("add()")
        batch = _batch_id(batch)
        turns = to_turns(messages, session_id=session_id, timestamp=timestamp, metadata=_metadata(metadata))
        return (yield from self._engine.add(turns, scope, infer=infer, batch=batch))

    def update(self, memory_id: str, data: str | None, metadata: Mapping[str, Any] | None = None) -> Result:
        """Give a memory a new text, further metadata, or both; what it was stays in its history.

        Raises:
            MemoryNotFound: no live memory has this id.
        """
        run(self._update(memory_id, data, metadata))
        return {"message": "Memory updated successfully!"}

    async def aupdate(self, memory_id: str, data: str | None, metadata: Mapping[str, Any] | None = None) -> Result:
        """Like `update`."""
        await arun(self._update(memory_id, data, metadata))
        return {"message": "Memory updated successfully!"}

    def _update(self, memory_id: str, data: str | None, metadata: Mapping[str, Any] | None) -> Steps:
        if data is not None and (not isinstance(data, str) or not data.strip()):
            raise InvalidInput("data must be the memory's new text, or None to change its metadata only.")
        if data is None and metadata is None:
            raise InvalidInput("update() needs a new text, metadata, or both.")
        text = None if data is None else checked_text(data, "data")
        return (yield from self._engine.update(_memory_id(memory_id), text, _metadata(metadata)))

    def delete(self, memory_id: str) -> Result:
        """End a memory; its history stays (`forget` removes that too).

        Raises:
            MemoryNotFound: no live memory has this id.
        """
        self._engine.delete([_memory_id(memory_id)])
        return {"message": "Memory deleted successfully!"}

    async def adelete(self, memory_id: str) -> Result:
        """Like `delete`."""
        return await asyncio.to_thread(self.delete, memory_id)

    def delete_all(
        self, *, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> Result:
        """End all memories of a scope; their history stays (`forget` removes that too).

        Raises:
            ScopeRequired: no id was given; `reset` empties the whole folder.
        """
        count = self._engine.delete(None, Scope(user_id, agent_id, run_id).required("delete_all()"))
        return {"message": "Memories deleted successfully!", "count": count}

    async def adelete_all(
        self, *, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> Result:
        """Like `delete_all`."""
        return await asyncio.to_thread(self.delete_all, user_id=user_id, agent_id=agent_id, run_id=run_id)

    def forget(
        self,
        memory_id: str | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Result:
        """Remove a memory, or all of a scope, from every file of the store: text, history, vectors and keywords.

        The messages that only this memory cites go with it, and so do facts that come from this message alone.

        Raises:
            MemoryNotFound: there was never a memory with this id.
            ScopeRequired: neither a memory nor an id was given.
        """
        scope = Scope(user_id, agent_id, run_id)
        if memory_id is None:
            count = self._engine.forget(None, scope.required("forget()"))
        elif scope:
            raise InvalidInput("forget() takes either a memory's id or the ids of a scope, not both.")
        else:
            count = self._engine.forget(_memory_id(memory_id), None)
        return {"message": "Memories forgotten.", "count": count}

    async def aforget(
        self,
        memory_id: str | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Result:
        """Like `forget`."""
        return await asyncio.to_thread(self.forget, memory_id, user_id=user_id, agent_id=agent_id, run_id=run_id)

    def reset(self) -> None:
        """Empty the whole folder, physically."""
        self._engine.reset()

    async def areset(self) -> None:
        """Like `reset`."""
        await asyncio.to_thread(self.reset)

    # -- reading --------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        limit: int = 10,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        kinds: Sequence[Kind] | None = None,
    ) -> Result:
        """The memories that answer a query, best first.

        Args:
            query: A question or some words.
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            limit: How many at most.
            filters: Conditions on metadata and on `kind`, `role`, `name`, `session_id`, `created_at`, ...
            threshold: Leaves out hits whose `relevance` is lower.
            kinds: `fact`, `turn` or both (the default).

        Returns:
            `{"results": [...], "relations": [...]}`; each result has `id`, `memory`, `score` (0..1, orders the hits),
            `relevance` (0..1, absolute), `kind`, `sources`, `metadata`, the ids of its scope and its dates.

        Raises:
            ScopeRequired: no id was given.
            InvalidFilter: `filters` is no filter.
        """
        scope = Scope(user_id, agent_id, run_id)
        return run(self._search(query, scope, limit, filters, threshold, kinds))  # type: ignore[no-any-return]

    async def asearch(
        self,
        query: str,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        limit: int = 10,
        filters: Mapping[str, Any] | None = None,
        threshold: float | None = None,
        kinds: Sequence[Kind] | None = None,
    ) -> Result:
        """Like `search`."""
        scope = Scope(user_id, agent_id, run_id)
        return await arun(self._search(query, scope, limit, filters, threshold, kinds))  # type: ignore[no-any-return]

    def _search(self, query: str, scope: Scope, limit: int, filters: Any, threshold: float | None, kinds: Any) -> Steps:
        scope.required("search()")
        asked = SearchQuery(
            text=_query(query), scope=scope, limit=_count(limit, "limit", 1), filter=parse_filter(filters),
            threshold=_threshold(threshold), kinds=_kinds(kinds) or frozenset(_KINDS),
        )  # fmt: skip
        hits = yield from self._searcher.search(asked)
        return {
            "results": [result_of(hit.row, score=hit.score, relevance=hit.relevance) for hit in hits],
            "relations": [],
        }

    def get(self, memory_id: str) -> Result | None:
        """One memory by its id, or None when there is none (or no longer)."""
        with self._journal.read() as reader:
            row = reader.memory(_memory_id(memory_id))
        return None if row is None else result_of(row)

    async def aget(self, memory_id: str) -> Result | None:
        """Like `get`."""
        return await asyncio.to_thread(self.get, memory_id)

    def get_all(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 100,
        offset: int = 0,
        kinds: Sequence[Kind] | None = None,
    ) -> Result:
        """The memories of a scope, or of the whole folder when no id is given, oldest first.

        Args:
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            filters: As in `search`.
            limit: How many at most.
            offset: How many to skip.
            kinds: `fact`, `turn` or both. By default, with a model, facts and what was stored as given; else both.
        """
        condition = parse_filter(filters)
        limit, offset = _count(limit, "limit", 1), _count(offset, "offset", 0)
        where, params = scope_sql(Scope(user_id, agent_id, run_id))
        chosen = _kinds(kinds)
        if chosen:
            where += f" AND i.kind IN ({', '.join(repr(kind) for kind in sorted(chosen))})"
        elif self._extractor is not None:
            where += " AND (i.kind = 'fact' OR i.given)"
        page = f"LIMIT {limit} OFFSET {offset}" if condition is None else ""
        with self._journal.read() as reader:
            rows = reader.memories(f"{where} AND i.closed IS NULL", params, tail=f"ORDER BY i.created_at, i.id {page}")
        if condition is not None:
            rows = [row for row in rows if condition.matches(record_of(row))][offset : offset + limit]
        return {"results": [result_of(row) for row in rows], "relations": []}

    async def aget_all(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        filters: Mapping[str, Any] | None = None,
        limit: int = 100,
        offset: int = 0,
        kinds: Sequence[Kind] | None = None,
    ) -> Result:
        """Like `get_all`."""
        return await asyncio.to_thread(
            self.get_all, user_id=user_id, agent_id=agent_id, run_id=run_id, filters=filters, limit=limit,
            offset=offset, kinds=kinds,
        )  # fmt: skip

    def history(self, memory_id: str) -> list[Result]:
        """What happened to a memory, in order; also of one that was deleted."""
        with self._journal.read() as reader:
            events = reader.history(_memory_id(memory_id))
        return [_history_row(event) for event in events if event.op in ("add", "update", "delete")]

    async def ahistory(self, memory_id: str) -> list[Result]:
        """Like `history`."""
        return await asyncio.to_thread(self.history, memory_id)

    # -- life -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop background work and close the journal; further use raises `JournalClosed`."""
        self._indexes.close()
        self._journal.close()

    async def aclose(self) -> None:
        """Like `close`."""
        await asyncio.to_thread(self.close)

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


def default_folder() -> Path:
    """The folder of a `Memory` without a path: MEMLAYER_HOME, else one of the user's own."""
    home = os.environ.get("MEMLAYER_HOME")
    if home:
        return Path(home)
    from platformdirs import user_data_path

    return user_data_path("langchain_memlayer", appauthor=False) / "default"


def _metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise InvalidInput(f"metadata must be a mapping, got {type(metadata).__name__}.")
    return plain(metadata, "metadata")  # type: ignore[no-any-return]


def _memory_id(memory_id: Any) -> str:
    if not isinstance(memory_id, str) or not memory_id:
        raise InvalidInput(f"A memory's id is a non-empty string, got {memory_id!r}.")
    return checked_text(memory_id, "memory_id")


def _batch_id(batch_id: Any) -> str | None:
    if batch_id is None:
        return None
    if not isinstance(batch_id, str) or not batch_id:
        raise InvalidInput(f"batch_id must be a non-empty string, got {batch_id!r}; leave it out when there is none.")
    return checked_text(batch_id, "batch_id")


def _query(query: Any) -> str:
    if not isinstance(query, str) or not query.strip():
        raise InvalidInput("query must be a non-empty string; get_all() lists memories without one.")
    return query


def _count(value: Any, name: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidInput(f"{name} must be an integer of at least {least}, got {value!r}.")
    # SQL counts to 2^63 - 1, which is more than any folder holds.
    return min(value, sys.maxsize)


def _threshold(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InvalidInput(f"threshold must be a number from 0 to 1 (it cuts `relevance`), got {value!r}.")
    return float(value)


def _kinds(kinds: Any) -> frozenset[str]:
    if kinds is None:
        return frozenset()
    chosen = [kinds] if isinstance(kinds, str) else list(kinds) if isinstance(kinds, Collection) else []
    if not chosen or any(kind not in _KINDS for kind in chosen):
        raise InvalidInput(f"kinds must be some of {list(_KINDS)}, got {kinds!r}.")
    return frozenset(chosen)


def _added(outcome: Outcome) -> Result:
    shown = outcome.facts or outcome.turns
    return {"results": [{"id": c.id, "memory": c.text, "event": c.event} for c in shown], "relations": []}


def _history_row(event: Event) -> Result:
    deleted = event.op == "delete"
    return {
        "id": str(event.seq),
        "memory_id": event.key,
        "prev_value": event.prev,
        "new_value": None if deleted else event.value,
        "event": event.op,
        "timestamp": from_micros(event.recorded_at).isoformat(),
        "is_deleted": int(deleted),
    }
