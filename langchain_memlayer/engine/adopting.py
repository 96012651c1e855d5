"""Taking in the documents that a user's vector store already has."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from langchain_memlayer.backends.base import STORE, Document, ForeignStore, guarded
from langchain_memlayer.engine.read import Engine
from langchain_memlayer.errors import ConfigurationError, InvalidInput
from langchain_memlayer.journal.cache_reader import ADOPTED
from langchain_memlayer.messages import checked_text
from langchain_memlayer.steps import run
from langchain_memlayer.types import Scope, Turn

if TYPE_CHECKING:
    from langchain_memlayer.backends.mirror import Mirror

_AT_ONCE = 200


def adopt(engine: Engine, mirror: Mirror | None, documents: Iterable[Any] | None, scope: Scope) -> dict[str, int]:
    """Take in documents, those of the mirror's store when none are given; see `Memory.adopt`."""
    if documents is None and mirror is None:
        raise ConfigurationError("There is nothing to adopt: open the memory with vectorstore=, or pass documents.")
    if documents is not None and not isinstance(documents, Iterable):
        raise InvalidInput(f"documents must be a list of LangChain Documents, got {type(documents).__name__}.")
    incoming = _foreign(mirror.store) if documents is None and mirror is not None else map(_checked, documents or ())
    counts = {"adopted": 0, "known": 0, "skipped": 0}
    while some := list(islice(incoming, _AT_ONCE)):
        turns = [_turn(document) for document in some if document.text.strip()]
        outcome = run(engine.add(turns, scope, infer=False, batch=None))
        fresh = sum(done.event == "ADD" for done in outcome.turns)
        counts["adopted"] += fresh
        counts["known"] += len(turns) - fresh
        counts["skipped"] += len(some) - len(turns)
    return counts


def _foreign(store: ForeignStore) -> Iterator[Document]:
    with guarded(store):
        yield from (document for document in store.documents() if STORE not in document.metadata)


def _checked(document: Any) -> Document:
    text, metadata, id_ = (getattr(document, name, None) for name in ("page_content", "metadata", "id"))
    if not isinstance(text, str) or not isinstance(metadata, Mapping):
        raise InvalidInput(f"documents must be LangChain Document objects, got {type(document).__name__}.")
    # Without an id, a document is known again by all that it has: two pages may say the same.
    whole = f"{checked_text(text, 'documents')}\n{_json(metadata).decode()}"
    return Document(id_ or str(uuid.uuid5(uuid.NAMESPACE_OID, whole)), text, metadata)


def _turn(document: Document) -> Turn:
    metadata = orjson.loads(_json(document.metadata))
    text = checked_text(document.text, "documents")
    return Turn(text, role="document", id=f"{ADOPTED}{document.id}", metadata=metadata)


def _json(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as JSON; what that does not have, a date say, as its text."""
    try:
        return orjson.dumps(dict(metadata), default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise InvalidInput(
            f"The metadata of a document cannot be kept ({error}); change it, and pass the documents as documents=."
        ) from error
