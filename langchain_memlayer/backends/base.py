"""What the package asks of a foreign vector store, whichever it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from langchain_memlayer.errors import MemLayerError, VectorStoreError

Scalar = str | int | float | bool
_T = TypeVar("_T")

PATIENCE_SECONDS: Final = 5.0
"""How long an answer of a store is waited for: some clients would wait for ever."""

ITEM = "memlayer_item"
"""The metadata key of the journal's row number."""

STORE = "memlayer_store"
"""The metadata key of the id of the store (the journal) that wrote a point."""

SCOPE = "memlayer_scope"
"""The metadata key of the encoded namespace."""


@dataclass(frozen=True, slots=True)
class Point:
    """One vector as it lies in a foreign store.

    Attributes:
        id: A UUID, made of the store's id, the row and the vector's number in it: the same again for the same.
        vector: float32, (dims,).
        text: What it says.
        metadata: Flat scalars only, with `ITEM` and `STORE` among them.
    """

    id: str
    vector: NDArray[Any]
    text: str
    metadata: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Document:
    """A document that lies in a foreign store, ours or not.

    Attributes:
        id: The id that it has there.
        text: What it says.
        metadata: As the store gives it.
    """

    id: str
    text: str
    metadata: Mapping[str, Any]


@runtime_checkable
class ForeignStore(Protocol):
    """A vector store as a generator of candidates: whatever it answers is checked against the journal.

    Every method may raise what the store's client raises; callers treat any of that as "not now".

    Attributes:
        kind: The backend's name, for messages and `doctor`.
    """

    kind: str

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those with the same ids; nothing for none."""
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; ids that are not there are no error; nothing for none."""
        ...

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The row numbers (`ITEM`) of the `k` nearest points, in the store's order.

        Args:
            vector: float32, (dims,).
            k: How many points.
            where: What metadata must equal, as far as this backend can filter; the caller filters again.
            text: The query's words, for stores that cannot be asked by vector.

        Returns:
            The rows; -1 for a document that is not ours or that `where` excludes, so that fewer than `k` mean the end.
            None when this store cannot be asked this way.
        """
        ...

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of these point ids lie in the store, or None when this backend cannot tell."""
        ...

    def documents(self) -> Iterator[Document]:
        """Everything that lies in the store (for `adopt`).

        Raises:
            ConfigurationError: this backend cannot list its documents.
        """
        ...

    def check(self, dims: int) -> None:
        """Compare the collection that exists with what will be written.

        Raises:
            ConfigurationError: it has another vector size, or a metric that cannot stand for cosine.
        """
        ...


@runtime_checkable
class Probed(Protocol):
    """A foreign store of which nobody knows what it can do before it was tried."""

    def probe(self, dims: int) -> None:
        """Write a point that is no memory, read it, write it again and remove it.

        Raises:
            ConfigurationError: it cannot be kept up with a journal.
        """
        ...


@contextmanager
def guarded(store: ForeignStore) -> Iterator[None]:
    """Whatever a store's client raises as a `VectorStoreError`; interrupts pass."""
    try:
        yield
    except MemLayerError:
        raise
    except Exception as error:  # every client raises classes of its own, which have no root in common
        # The message may hold an address with a password; the cause is there for whoever debugs.
        raise VectorStoreError(
            f"The vector store ({store.kind}) failed with {type(error).__name__}. The journal has everything; check "
            "that the store runs and can be reached, and it will be brought up to date."
        ) from error


class Patience:
    """Asks a store in threads of their own, and gives one up that does not come back in time.

    Only for what may be done late, or twice. While a thread that was given up still waits, the store is not asked
    again, so that there are never more of them than callers at one time.

    Args:
        store: The store.
    """

    def __init__(self, store: ForeignStore) -> None:
        self._store = store
        self._given_up: threading.Thread | None = None

    def ask(self, call: Callable[[], _T]) -> _T:
        """What a call gives.

        Raises:
            VectorStoreError: the store failed, or did not answer in time.
        """
        if self._given_up is not None and self._given_up.is_alive():
            raise self._late()
        answer: Future[_T] = Future()

        def run() -> None:
            try:
                with guarded(self._store):
                    answer.set_result(call())
            except MemLayerError as error:
                answer.set_exception(error)

        thread = threading.Thread(target=run, name="memlayer-ask", daemon=True)
        thread.start()
        try:
            return answer.result(PATIENCE_SECONDS)
        except TimeoutError as error:
            self._given_up = thread
            raise self._late() from error

    def _late(self) -> VectorStoreError:
        return VectorStoreError(
            f"The vector store ({self._store.kind}) does not answer within {PATIENCE_SECONDS:g} seconds. The journal "
            "has everything; check that the store runs and can be reached, and it will be brought up to date."
        )
