"""Taking in the documents that a user's vector store already has."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from langchain_memlayer.backends.base import STORE, Document, ForeignStore, guarded
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.read import Engine
from langchain_memlayer.engine.steps import awaited, run
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.journal.read_caches import ADOPTED
from langchain_memlayer.messages import checked_text
from langchain_memlayer.types import Scope, Turn

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

    aadopt = awaited(adopt)


def _foreign(store: ForeignStore) -> Iterator[Document]:
    with guarded(store):
        yield from (document for document in store.documents() if STORE not in document.metadata)


def _given(document: Any) -> Document:
    text, metadata, id_ = (getattr(document, name, None) for name in ("page_content", "metadata", "id"))
    if not isinstance(text, str) or not isinstance(metadata, Mapping):
        raise InvalidInput(f"documents must be LangChain Document objects, got {type(document).__name__}.")
    # Without an id, a document is known again by all that it has: two pages may say the same.
    whole = f"{checked_text(text, 'documents')}\n{_json(metadata).decode()}"
    return Document(id_ or str(uuid.uuid5(uuid.NAMESPACE_OID, whole)), text, metadata)


def _turn(document: Document) -> Turn:
    metadata = orjson.loads(_json(document.metadata))
    return Turn(checked_text(document.text, "documents"), id=f"{ADOPTED}{document.id}", metadata=metadata)


def _json(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as JSON; what that does not have, a date say, as its text."""
    try:
        return orjson.dumps(dict(metadata), default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidInput(
            f"The metadata of a document cannot be kept ({error}); change it, and pass the documents as documents=."
        ) from error
