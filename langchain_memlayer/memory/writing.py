"""The methods of `Memory` that change something."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from langchain_memlayer.engine.background import Background
from langchain_memlayer.engine.edit import Editor, Forgotten
from langchain_memlayer.engine.halves import extracted, reconciled
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.read import Engine, Prepared, Progress
from langchain_memlayer.engine.results import added, unread
from langchain_memlayer.errors import ConfigurationError, InvalidInput, MemLayerError
from langchain_memlayer.graph import from_graph_document
from langchain_memlayer.journal import Journal
from langchain_memlayer.memory.adopting import adopted
from langchain_memlayer.memory.checks import (
    KEEP,
    checked_batch_id,
    checked_expiration,
    checked_memory_id,
    checked_metadata,
    checked_seconds,
    checked_unused,
)
from langchain_memlayer.messages import checked_text, read_messages, to_turns
from langchain_memlayer.steps import Steps, T, awaited, stepped
from langchain_memlayer.tracing import parent, traced
from langchain_memlayer.types import (
    AddResult,
    Done,
    ExtractResult,
    Fact,
    ForgetResult,
    HeldBy,
    ReadResult,
    Scope,
    Turn,
    UnreadCall,
)


class Writing:
    """Mixed into `Memory`."""

    _engine: Engine
    _editor: Editor
    _background: Background
    _indexes: Indexes
    _journal: Journal

    @stepped
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
        background: bool = False,
        after_seconds: float = 0.0,
        expiration_date: date | str | None = None,
        memory_type: None = None,
        prompt: None = None,
    ) -> Steps[AddResult]:
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
            background: Store the messages now, and find their facts beside the caller; `flush` waits for them.
            after_seconds: With `background`, how long to wait for more of the conversation (the same scope and
                session): one reading then serves all that comes until it pauses, ten times as long at most.
            expiration_date: The last day (UTC, "2025-12-31") on which what comes of these messages counts; afterwards
                it is not found or listed unless asked for.
            memory_type: Refused unless None, with what to use in place of mem0's procedural memories.
            prompt: Likewise, for prompts of one call.

        Returns:
            `{"results": [{"id", "memory", "event"}], "relations": {"added_entities", "deleted_entities"}}`: what was
            committed. With a model these are facts, with `previous_memory` on updates; what was refused is under
            `rejected`, and what was left out of the messages (images, files, declined ones) under `skipped`.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: messages or metadata that cannot be used.
            ExtractionError: the model failed. The messages are kept, and are read again after a pause (`unread` lists
                them), by `read`, or when they are added again.
            EmbeddingError: the embedder failed; the messages are kept.
        """
        checked_unused(memory_type, prompt)
        until = checked_expiration(expiration_date)
        beside = checked_seconds(after_seconds, "after_seconds") if background else None
        scope, batch = Scope(user_id, agent_id, run_id).required("add()"), checked_batch_id(batch_id)
        said = read_messages(messages, session_id=session_id, timestamp=timestamp, metadata=checked_metadata(metadata))
        if said.skipped and not said.turns:
            parts = ", ".join(sorted({one["part"] for one in said.skipped}))
            warnings.warn(f"add() remembered nothing: only text is, and the messages have {parts}.", stacklevel=2)
        turns = said.turns if until is None else [replace(turn, valid_until=until) for turn in said.turns]
        result = yield from traced(
            "Memory.add",
            self._remember(turns, scope, infer, batch, beside),
            scope=scope,
            inputs=lambda: {"turns": said.turns},
            outputs=dict,
        )
        if said.skipped:
            result["skipped"] = said.skipped
        return result

    aadd = awaited(add)

    def _remember(
        self, turns: Sequence[Turn], scope: Scope, infer: bool, batch: str | None, beside: float | None
    ) -> Steps[AddResult]:
        reads = infer and self._engine.extractor is not None
        if beside is not None and reads:
            kept = yield from self._engine.keep(turns, scope, batch=batch, at_once=False, after_seconds=beside)
            self._background.wake(kept.note, parent())
            return added(kept.outcome, facts=False)
        outcome = yield from self._tried_again(self._engine.add(turns, scope, infer=infer, batch=batch))
        return added(outcome, facts=reads)

    def _tried_again(self, steps: Steps[T]) -> Steps[T]:
        """Steps after whose failure what was kept is tried again, whoever made the call."""
        try:
            return (yield from steps)
        except MemLayerError:
            self._background.resume()
            raise

    def unread(
        self, *, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None
    ) -> list[UnreadCall]:
        """The messages of a scope that could not be read yet, or are being read, oldest first.

        Returns:
            `{"id", "turns", "attempts", "next_at", "reason", "set_aside"}` for each call: what was said, how often
            reading it was tried, when it is tried next, why it failed last, and whether it is not tried any more.

        Raises:
            ScopeRequired: no id was given.
        """
        scope = Scope(user_id, agent_id, run_id).required("unread()")
        with self._journal.read() as reader:
            notes = reader.unread(scope)
            rows = reader.memories_by_row([row for note in notes for row in note.turns])
        return [unread(note, rows) for note in notes]

    aunread = awaited(unread)

    @stepped
    def read(
        self,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        retry: bool = False,
        progress: Progress | None = None,
    ) -> Steps[ReadResult]:
        """Find the facts of messages that were kept but not read: those that are due, and those from before the model.

        Args:
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            retry: Also what waits for a pause after a failure, what was set aside after five, and what a process that
                died was reading.
            progress: Called with how many calls were tried and how many there are, after each.

        Returns:
            What `add` returns, for all of them together; under `unread` those that failed, as `unread()` lists them.

        Raises:
            ScopeRequired: no id was given.
            ConfigurationError: there is no model.
            ExtractionError: the model failed each time.
        """
        scope = Scope(user_id, agent_id, run_id).required("read()")
        if self._engine.extractor is None:
            raise ConfigurationError("read() needs a chat model: open the memory with model= or extractor=.")
        done = yield from self._engine.read_all(scope, retry=retry, progress=progress)
        with self._journal.read() as reader:
            failed = [note for note in reader.unread(scope) if note.id in {one.id for one in done.failed}]
            rows = reader.memories_by_row([row for note in failed for row in note.turns])
        shown = added(done.outcome, facts=True)
        return {
            "results": shown["results"],
            "relations": shown["relations"],
            "rejected": shown.get("rejected", []),
            "unread": [unread(note, rows) for note in failed],
        }

    aread = awaited(read)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the facts of all calls with `background=True` are found, and the vector store was brought all.

        Returns:
            False when either took longer than `timeout` seconds.

        Raises:
            ExtractionError: reading failed since the last `flush`; the messages are kept, and are tried again.
            VectorStoreError: the vector store failed; it is brought everything when it answers again.
        """
        mirror = self._indexes.mirror
        return self._background.flush(timeout) and (mirror is None or mirror.flush(timeout))

    aflush = awaited(flush)

    @stepped
    def extract(
        self,
        messages: Any,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session_id: str | None = None,
    ) -> Steps[ExtractResult]:
        """Keep messages and find the facts in them, without storing these: the first half of `add`.

        Args:
            messages: Like `add`; those that were read before are context.
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            session_id: The conversation that the messages belong to.

        Returns:
            `facts`, each with `text`, `quote`, `sources` (what it cites),
            `triples`, `valid_at`, `name` and `metadata`; and `rejected`. JSON values, for `reconcile`.

        Raises:
            ScopeRequired: no id was given.
            ExtractionError: the model failed.
        """
        scope = Scope(user_id, agent_id, run_id).required("extract()")
        turns = to_turns(messages, session_id=session_id)
        return (yield from self._tried_again(extracted(self._engine, turns, scope)))

    aextract = awaited(extract)

    @stepped
    def reconcile(
        self,
        messages: Any,
        facts: Sequence[Mapping[str, Any]],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        session_id: str | None = None,
        batch_id: str | None = None,
        rejected: Sequence[Mapping[str, Any]] = (),
        by_agent: bool = False,
    ) -> Steps[AddResult]:
        """Decide what facts mean for what is known, and commit them with their messages: the second half of `add`.

        Args:
            messages: Those that were given to `extract`.
            facts: What it gave under `facts`.
            user_id: Whose memory.
            agent_id: Which agent's.
            run_id: Which run's.
            session_id: The conversation that the messages belong to.
            batch_id: A repeated call with the same id changes nothing and reports the same.
            rejected: What it gave under `rejected`, to be recorded.
            by_agent: An agent states the facts itself: the messages are there to be cited and not to be found.

        Returns:
            Like `add`.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: a fact that is none, or that cites none of the messages.
        """
        scope = Scope(user_id, agent_id, run_id).required("reconcile()")
        turns, batch = to_turns(messages, session_id=session_id), checked_batch_id(batch_id)
        steps = reconciled(self._engine, turns, facts, rejected, scope, batch=batch, by_agent=by_agent)
        outcome = yield from self._tried_again(steps)
        # Messages that came after `extract` are still to be read.
        self._background.resume()
        return added(outcome, facts=by_agent or self._engine.extractor is not None)

    areconcile = awaited(reconcile)

    @stepped
    def add_graph_documents(
        self,
        documents: Iterable[Any],
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> Steps[AddResult]:
        """Remember the relations of GraphDocument objects of any package, each with the text that it comes from.

        Raises:
            ScopeRequired: no id was given.
            InvalidInput: an object of another shape; nothing was written.
        """
        scope = Scope(user_id, agent_id, run_id).required("add_graph_documents()")
        turns: list[Turn] = []
        facts: list[Fact] = []
        for document in documents:
            turn, found = from_graph_document(document)
            facts += [replace(fact, turns=(len(turns),)) for fact in found]
            turns.append(turn)
        outcome = yield from self._engine.reconcile(
            Prepared(scope, tuple(turns), tuple(facts), actor="user"), batch=None
        )
        return added(outcome, facts=True)

    aadd_graph_documents = awaited(add_graph_documents)

    def adopt(
        self,
        documents: Iterable[Any] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> dict[str, int]:
        """Take in the documents of the vector store that no memory wrote: until then they are invisible here.

        Each becomes a memory of kind `turn` with its metadata, in the journal alone: nothing is written to the vector
        store, where the document stays as it is and other chains find it once. What was adopted before is left out, so
        that an interrupted call can be repeated.

        Args:
            documents: LangChain `Document` objects, for a store that cannot list its own; None lists them.
            user_id: Whose memories they become.
            agent_id: Which agent's.
            run_id: Which run's.

        Returns:
            `adopted`: how many documents were taken in; `known`: how many had been already; `skipped`: how many have no
            text.

        Raises:
            ConfigurationError: no documents were given, and there is no `vectorstore`, or none that can list its own.
            InvalidInput: a document has no text or metadata that can be kept; what was adopted so far is kept.
            ScopeRequired: no id was given.
            VectorStoreError: the store failed; what was adopted so far is kept.
        """
        scope = Scope(user_id, agent_id, run_id).required("adopt()")
        return adopted(self._engine, self._indexes.mirror, documents, scope)

    aadopt = awaited(adopt)

    @stepped
    def update(
        self,
        memory_id: str,
        data: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        text: str | None = None,
        expiration_date: date | str | None = KEEP,
    ) -> Steps[Done]:
        """Give a memory a new text, further metadata, or another expiry; what it was stays in its history.

        No model is asked: the relations whose names the new text still has stay, others are found when the text is
        read (`read`, `flush`, or beside the next call with `background=True`).

        Raises:
            MemoryNotFound: no live memory has this id.
            EmbeddingError: the embedder failed; nothing was changed.
        """
        data = text if data is None else data
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

    def delete_all(self, *, user_id: str | None = None, agent_id: str | None = None, run_id: str | None = None) -> Done:
        """End all memories of a scope; their history stays (`forget` removes that too).

        Raises:
            ScopeRequired: no id was given; `reset` empties the whole folder.
        """
        count = self._editor.delete(Scope(user_id, agent_id, run_id).required("delete_all()"))
        return {"message": "Memories deleted successfully!", "count": count}

    adelete_all = awaited(delete_all)

    @stepped
    def forget(
        self,
        memory_id: str | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
        same_words: bool = False,
    ) -> Steps[ForgetResult]:
        """Remove a memory, or all of a scope, from every file of the store: text, history, vectors and keywords.

        The messages that only this memory cites go with it, and so do facts that come from this message alone. Of a
        message that other facts cite too, the words go that this one quotes.

        Args:
            memory_id: The memory.
            user_id: Whose memories.
            agent_id: Which agent's.
            run_id: Which run's.
            same_words: With a memory, whether the others of its scope that hold the same words go too.

        Returns:
            `count`, how many versions were removed, and under `also` the id, text and kind of each other memory of the
            same scope that still holds the same words.

        Raises:
            MemoryNotFound: there was never a memory with this id.
            ScopeRequired: neither a memory nor an id was given.
        """
        scope = Scope(user_id, agent_id, run_id)
        if memory_id is not None and scope:
            raise InvalidInput("forget() takes either a memory's id or the ids of a scope, not both.")
        what = scope.required("forget()") if memory_id is None else checked_memory_id(memory_id)
        done: Forgotten = yield from self._editor.forget(what, also=same_words)
        also: list[HeldBy] = [{"id": row.key, "memory": row.text, "kind": row.kind} for row in done.also]
        return {"message": "Memories forgotten.", "count": done.count, "also": also}

    aforget = awaited(forget)

    def reset(self) -> None:
        """Empty the whole folder, physically."""
        self._editor.reset()

    areset = awaited(reset)
