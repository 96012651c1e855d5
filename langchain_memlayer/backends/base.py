"""What the package asks of a foreign vector store, whichever it is, and what its adapters share."""

from __future__ import annotations

import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.arguments import is_auto
from langchain_memlayer.errors import ConfigurationError, MemLayerError, VectorStoreError, shown
from langchain_memlayer.threads import beside

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

OWN_KEYS = (ITEM, STORE, SCOPE, "memlayer_id", "memlayer_kind", "user_id", "agent_id", "run_id")
"""The metadata keys that the package itself sets."""


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
    """

    def __init__(self, store: ForeignStore) -> None:
        self._store = store
        self._given_up: Future[Any] | None = None

    def ask(self, call: Callable[[], _T]) -> _T:
        """What a call gives.

        Raises:
            VectorStoreError: the store failed, or did not answer in time.
        """
        if self._given_up is not None and not self._given_up.done():
            raise self._late()

        def guarded_call() -> _T:
            with guarded(self._store):
                return call()

        answer = beside(guarded_call, name="memlayer-ask")
        try:
            return answer.result(PATIENCE_SECONDS)
        except TimeoutError as error:
            self._given_up = answer
            raise self._late() from error

    def _late(self) -> VectorStoreError:
        return VectorStoreError(
            f"The vector store ({self._store.kind}) does not answer within {PATIENCE_SECONDS:g} seconds. The journal "
            "has everything; check that the store runs and can be reached, and it will be brought up to date."
        )


# -- how a point is written, and how an answer is read ----------------------------------------------------------------

POINT = "memlayer_point"
"""The metadata key of a point's own id: several stores do not tell a document's id."""

BATCH = 128
"""How many points go into one request: 2,000 numbers each are some 4 MB, below every server's limit."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INT64 = 2**63
_LONGEST_VALUE = 1_000
_LOCKS: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    """The values in lists of at most `BATCH`; none for none."""
    rest = list(values)
    for start in range(0, len(rest), BATCH):
        yield rest[start : start + BATCH]


def lock_of(store: Any) -> threading.Lock:
    """The one lock of a store that has none of its own, whoever uses it: several memories may share it."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(store, threading.Lock())


def unit(vector: NDArray[Any]) -> list[float]:
    """The vector with length 1, so that cosine, inner product and euclidean distance order alike."""
    wide = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(wide))
    numbers: list[float] = (wide / length if length else wide).astype(np.float32).tolist()
    return numbers


def is_plain(name: str, value: Any) -> bool:
    """Whether every store keeps such a field, and lets it be filtered on; the rest stays in the journal alone."""
    if _NAME.fullmatch(name) is None:
        return False
    if isinstance(value, str):
        return "\x00" not in value
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -_INT64 <= value < _INT64
    return isinstance(value, float) and math.isfinite(value)


def is_flat(value: Any) -> bool:
    """Whether a store is told of such a metadata value, and may be asked for it."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= _LONGEST_VALUE)


def fields(point: Point) -> dict[str, Scalar]:
    """The metadata that is written with a point: its plain fields and its own id."""
    return {**plain(point.metadata), POINT: point.id}


def plain(where: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The part of a filter that can be said in every store's grammar."""
    return {name: value for name, value in where.items() if is_plain(name, value)}


def rows(given: Iterable[Mapping[str, Any] | None], where: Mapping[str, Scalar]) -> list[int]:
    """The row numbers of an answer, by the metadata of its documents in order.

    A document that is not ours, or that `where` excludes, counts as -1: an answer shorter than asked is the end. What
    is not plain in `where` was not written either; it is left to the caller.
    """
    wanted = plain(where)
    return [_row(metadata or {}, wanted) for metadata in given]


def _row(metadata: Mapping[str, Any], wanted: Mapping[str, Scalar]) -> int:
    try:
        row = int(metadata[ITEM])
    except (KeyError, TypeError, ValueError, OverflowError):
        return -1
    if not 0 <= row < _INT64:
        return -1
    pairs = ((metadata.get(name), value) for name, value in wanted.items())
    # Some stores keep every value as a string.
    return row if all(bool(have == want) or str(have) == str(want) for have, want in pairs) else -1


class Adapter(ABC):
    """A `ForeignStore` over a LangChain `VectorStore`: points go in batches, each id once, and none is no request.

    Raises:
        ConfigurationError: it cannot be used as it was opened.
    """

    kind: str

    def __init__(self, store: Any) -> None:
        self._store = store

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing those with the same ids."""
        for batch in batches({point.id: point for point in points}.values()):
            self._write(batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; ids that are not there are no error."""
        for batch in batches(dict.fromkeys(ids)):
            self._remove(batch)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows; see `ForeignStore`."""
        where = self._sayable(plain(where))
        return rows(self._nearest(unit(vector), k, where), where)

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        return {id_ for batch in batches(dict.fromkeys(ids)) for id_ in self._present_ids(batch)}

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Everything in the store."""

    @abstractmethod
    def check(self, dims: int) -> None:
        """Compare what is there with vectors of a size."""

    def _require_dims(self, name: str, size: int, dims: int) -> None:
        """Raise ConfigurationError when a collection is for vectors of another size."""
        if size != dims:
            raise ConfigurationError(
                f"The {self.kind} collection {shown(name)} holds vectors of {size} numbers, and the embedder makes "
                f"{dims}: name another collection, or pass the embedder that it was made for."
            )

    def _require_metric(self, name: str, metric: str, known: Sequence[str]) -> None:
        """Raise ConfigurationError when a collection compares by something that cannot stand for cosine."""
        if metric.lower() not in known:
            raise ConfigurationError(
                f"The {self.kind} collection {shown(name)} compares by {metric}, which does not order like cosine: "
                f"name another collection, made with one of {', '.join(known)}."
            )

    @abstractmethod
    def _write(self, batch: list[Point]) -> None:
        """Write some points."""

    @abstractmethod
    def _remove(self, batch: list[str]) -> None:
        """Remove some points."""

    def _sayable(self, where: dict[str, Scalar]) -> dict[str, Scalar]:
        """The part of plain fields that this store can be asked for, and tells."""
        return where

    @abstractmethod
    def _nearest(self, vector: list[float], k: int, where: Mapping[str, Scalar]) -> Iterable[Mapping[str, Any] | None]:
        """The metadata of the nearest documents, in order; `where` is what is sayable."""

    @abstractmethod
    def _present_ids(self, batch: list[str]) -> Iterable[str]:
        """Those of some ids that are there."""


# -- from what a caller passes to an adapter: stores are known by class, not by import -------------------------------

_HERE: Final = "langchain_memlayer.backends"
_ADAPTERS: Final = {
    ("langchain_chroma", "Chroma"): ("chroma", "ChromaAdapter"),
    ("langchain_community", "Chroma"): ("chroma", "ChromaAdapter"),
    ("langchain_community", "FAISS"): ("generic", "FaissAdapter"),
    ("langchain_core", "InMemoryVectorStore"): ("generic", "InMemoryAdapter"),
    ("langchain_memlayer", "VikingDBVectorStore"): ("generic", "VikingDBAdapter"),
    ("langchain_milvus", "Milvus"): ("milvus", "MilvusAdapter"),
    ("langchain_postgres", "PGVector"): ("pgvector", "PGVectorAdapter"),
    ("langchain_postgres", "PGVectorStore"): ("pgvector", "PGVectorStoreAdapter"),
    ("langchain_qdrant", "QdrantVectorStore"): ("qdrant", "QdrantAdapter"),
    ("langchain_core", "VectorStore"): ("generic", "GenericAdapter"),
}


def adapt(store: Any) -> ForeignStore:
    """The adapter for a vector store.

    Args:
        store: A LangChain `VectorStore`.

    Raises:
        ConfigurationError: it is none, or one that cannot be used as it was opened.
    """
    names = [(kind.__module__.partition(".")[0], kind.__qualname__) for kind in type(store).__mro__]
    if ("langchain_postgres", "AsyncPGVectorStore") in names:
        raise ConfigurationError("An AsyncPGVectorStore has no plain calls: pass a PGVectorStore.")
    for name in names:
        if name in _ADAPTERS:
            module, adapter = _ADAPTERS[name]
            made: ForeignStore = getattr(import_module(f"{_HERE}.{module}"), adapter)(store)
            return made
    given = f"the class {store.__name__}, not an object of it" if isinstance(store, type) else type(store).__name__
    raise ConfigurationError(
        "vectorstore must be a LangChain VectorStore, such as QdrantVectorStore, Chroma, Milvus, PGVectorStore, FAISS "
        f"or InMemoryVectorStore; got {given}."
    )


def open_vectorstore(store: Any, embeddings: Any) -> tuple[ForeignStore, Any]:
    """The adapter for a store, and the embeddings to use with it.

    Args:
        store: A LangChain `VectorStore`, or an object with the methods of `ForeignStore`.
        embeddings: What the caller wants; "auto" means the store's own, where it has some.

    Raises:
        ConfigurationError: `store` is neither, or there are to be no embeddings.
    """
    if embeddings is None:
        raise ConfigurationError("A vectorstore needs embeddings: pass some, or leave embeddings='auto'.")
    if isinstance(store, ForeignStore):
        return store, embeddings
    adapter = adapt(store)
    own = getattr(store, "embeddings", None)
    return adapter, own if is_auto(embeddings) and own is not None else embeddings


class DeferredStore:
    """Opens a vector store when it is first needed: a server that is down delays only what is to be done with it.

    Args:
        kind: The backend's name.
        make: Opens the `VectorStore`; what it raises means "not now".
    """

    def __init__(self, kind: str, make: Callable[[], Any]) -> None:
        self.kind = kind
        self._make = make
        self._lock = threading.Lock()
        self._patience = Patience(self)
        self._opened: ForeignStore | None = None

    def open(self) -> ForeignStore:
        """The adapter of the store.

        Raises:
            VectorStoreError: it cannot be opened now, or not in time; an attempt that takes longer still counts.
        """
        with self._lock:
            return self._opened or self._patience.ask(self._open)

    def _open(self) -> ForeignStore:
        self._opened = adapt(self._make())
        return self._opened

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points."""
        self.open().upsert(points)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        self.open().delete(ids)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows."""
        return self.open().search(vector, k, where, text)

    def present(self, ids: Sequence[str]) -> set[str] | None:
        """Which of the ids lie in the store."""
        return self.open().present(ids)

    def documents(self) -> Iterator[Document]:
        """Everything in the store."""
        return self.open().documents()

    def check(self, dims: int) -> None:
        """Compare the collection with the vectors."""
        self.open().check(dims)
