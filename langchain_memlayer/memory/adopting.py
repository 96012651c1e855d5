"""Taking in the documents that a user's vector store already has."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.steps import run
from langchain_memlayer.engine.writing import Engine
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.messages import checked_text
from langchain_memlayer.types import Scope, Turn
from langchain_memlayer.vectors.vectorstore.base import STORE, Document, ForeignStore, guarded

_AT_ONCE = 200


class Adopting:
    """Mixed into `Memory`."""

    _engine: Engine
    _indexes: Indexes

    def adopt(
        self,
        documents: Iterable[Any] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> dict[str, int]:
        """Take in the documents of the vector store that no memory wrote: until then they are invisible here.

        Each becomes a memory of kind `turn` with its metadata; the document itself stays as it is. What was adopted
        before is left out, so that an interrupted call can be repeated.

        Args:
            documents: LangChain `Document` objects, for a store that cannot list its own; None lists them.
            user_id: Whose memories they become.
            agent_id: Which agent's.
            run_id: Which run's.

        Returns:
            `adopted`: how many documents were taken in; `known`: how many had been already; `skipped`: how many have no
            text.

        Raises:
            ConfigurationError: the memory was opened without `vectorstore`, or its backend cannot list documents.
            ScopeRequired: no id was given.
            VectorStoreError: the store failed; what was adopted so far is kept.
        """
        scope = Scope(user_id, agent_id, run_id).required("adopt()")
        outbox = self._indexes.outbox
        if documents is None and outbox is None:
            raise ConfigurationError("There is nothing to adopt: open the memory with vectorstore=, or pass documents.")
        found = _foreign(outbox.store) if documents is None and outbox is not None else map(_given, documents or ())
        counts = {"adopted": 0, "known": 0, "skipped": 0}
        while some := list(islice(found, _AT_ONCE)):
            turns = [_turn(document) for document in some if document.text.strip()]
            outcome = run(self._engine.add(turns, scope, infer=False, batch=None))
            fresh = sum(done.event == "ADD" for done in outcome.turns)
            counts["adopted"] += fresh
            counts["known"] += len(turns) - fresh
            counts["skipped"] += len(some) - len(turns)
        return counts

    async def aadopt(
        self,
        documents: Iterable[Any] | None = None,
        *,
        user_id: str | None = None,
        agent_id: str | None = None,
        run_id: str | None = None,
    ) -> dict[str, int]:
        """Like `adopt`."""
        return await asyncio.to_thread(self.adopt, documents, user_id=user_id, agent_id=agent_id, run_id=run_id)


def _foreign(store: ForeignStore) -> Iterator[Document]:
    with guarded(store):
        yield from (document for document in store.documents() if STORE not in document.metadata)


def _given(document: Any) -> Document:
    text, metadata = getattr(document, "page_content", None), getattr(document, "metadata", None)
    if not isinstance(text, str) or not isinstance(metadata, Mapping):
        raise InvalidInput(f"documents must be LangChain Document objects, got {type(document).__name__}.")
    return Document(document.id or str(uuid.uuid5(uuid.NAMESPACE_OID, text)), text, metadata)


def _turn(document: Document) -> Turn:
    # What JSON does not have, a date say, is kept as its text.
    metadata = orjson.loads(orjson.dumps(dict(document.metadata), default=str, option=orjson.OPT_NON_STR_KEYS))
    return Turn(checked_text(document.text, "documents"), id=f"adopted:{document.id}", metadata=metadata)
