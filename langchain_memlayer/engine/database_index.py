"""The journal's own database as the index of its vectors: brought to and asked like a foreign vector store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from langchain_memlayer.backends.base import ITEM, Document, Point, Scalar
from langchain_memlayer.engine.points import SCOPE
from langchain_memlayer.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from langchain_memlayer.journal.pgvector import VectorTable

KIND: Final = "pgvector"
"""What the outbox calls it."""


class DatabaseIndex:
    """A `ForeignStore` over a table beside the journal; it filters by namespace alone, the rest is left to the caller.

    Args:
        table: The table.
    """

    kind = KIND

    def __init__(self, table: VectorTable) -> None:
        self._table = table

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points."""
        from langchain_memlayer.journal.pgvector import VectorRecord

        # Of an id that comes twice the last counts.
        records = {
            point.id: VectorRecord(point.id, int(point.metadata[ITEM]), str(point.metadata[SCOPE]), point.vector)
            for point in points
        }
        if records:
            self._table.put(list(records.values()))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        if ids:
            self._table.delete(ids)

    def search(self, vector: NDArray[Any], k: int, where: Mapping[str, Scalar], text: str | None) -> list[int] | None:
        """The nearest points' rows."""
        space = where.get(SCOPE)
        return self._table.nearest(vector, k, None if space is None else str(space))

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids lie in the table."""
        return self._table.present(ids)

    def documents(self) -> Iterator[Document]:
        """Nothing that could be adopted: the journal has it all."""
        raise ConfigurationError("There is nothing to adopt: open the memory with vectorstore=, or pass documents.")

    def check(self, dims: int) -> None:
        """Make the table, anew when it is for vectors of another size."""
        self._table.fit(dims)

    def settle(self) -> None:
        """Make the index when it is missing, as after the first filling."""
        self._table.build()
