"""A foreign store that could not be opened yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from langchain_memlayer.backends.adapters import adapt
from langchain_memlayer.backends.base import Document, ForeignStore, Patience, Point, Scalar


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
