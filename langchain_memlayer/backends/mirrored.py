"""What a foreign vector store is told of a row: one point for each of its vectors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from langchain_memlayer.backends.base import ITEM, STORE, Point, Scalar
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.read_caches import Area, VectorRow
from langchain_memlayer.journal.settings import embedder_key, outbox_key, points_key

SCOPE = "memlayer_scope"
"""The metadata key of the encoded namespace."""

_RESERVED = (ITEM, STORE, SCOPE, "memlayer_id", "memlayer_kind", "user_id", "agent_id", "run_id")
_LONGEST_VALUE = 1_000


def is_flat(value: Any) -> bool:
    """Whether a store is told of such a metadata value, and may be asked for it."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= _LONGEST_VALUE)


class Points:
    """The points of one area of a journal.

    Args:
        journal: The truth.
        area: `items` or `memories`.
    """

    def __init__(self, journal: Journal, area: Area) -> None:
        self._journal = journal
        self._area: Area = area
        self._ids = uuid.UUID(journal.store_id)

    def dims(self) -> int:
        """The size of the vectors; 0 while there are none."""
        recorded = self._journal.meta(embedder_key(self._area))
        return 0 if recorded is None else int(orjson.loads(recorded)["dims"])

    def id(self, item: int, number: int = 0) -> str:
        """The id of the point of a row's vector: the same again for the same."""
        return str(uuid.uuid5(self._ids, f"{self._area}:{item}:{number}"))

    def known(self, items: Sequence[int]) -> list[str]:
        """The ids of the points that some rows may have in the store."""
        noted = self._noted(items)
        return [self.id(item, number) for item in items for number in range(noted[item])]

    def _noted(self, items: Sequence[int]) -> dict[int, int]:
        """How many points each of some rows may have."""
        if self._area != "items":
            return dict.fromkeys(items, 1)
        with self._journal.read() as reader:
            found = reader.metas(list(map(points_key, items)))
        return {item: int(found.get(points_key(item), 1)) for item in items}

    def of(self, row: VectorRow) -> Iterator[Point]:
        """The points of a row."""
        metadata = self._metadata(row)
        for number, vector in enumerate(self._vectors(row)):
            yield Point(self.id(row.id, number), vector, row.text, metadata)

    def remember(self, rows: Sequence[VectorRow], touched: Sequence[int], settle: Callable[[int, int], int]) -> None:
        """Note how many points a row has, where it is not one: all of them have to go when it does.

        Args:
            rows: Those of the touched rows that are live and have vectors.
            touched: The rows that changed.
            settle: Of the number now and the noted one, the one to note.
        """
        if self._area != "items":
            return
        counts = {row.id: len(row.codes) // (2 * row.dims) for row in rows}
        noted = self._noted(touched)
        settled = {item: settle(counts.get(item, 1), noted[item]) for item in touched}
        changed = {item: count for item, count in settled.items() if count != noted[item]}
        if changed:
            with self._journal.write(outbox_key(self._area)) as tx:
                for item, count in changed.items():
                    if count == 1:
                        tx.drop_meta(points_key(item))
                    else:
                        tx.set_meta(points_key(item), str(count))

    def _vectors(self, row: VectorRow) -> NDArray[np.float32]:
        return np.frombuffer(row.codes, "<f2").astype(np.float32).reshape(-1, row.dims)

    def _metadata(self, row: VectorRow) -> dict[str, Scalar]:
        given = orjson.loads(row.metadata) if row.metadata else {}
        own = dict(zip(("user_id", "agent_id", "run_id"), row.ids, strict=True))
        flat = {name: value for name, value in given.items() if name not in _RESERVED and is_flat(value)}
        return {
            **flat,
            **{name: value for name, value in own.items() if value is not None},
            ITEM: row.id,
            STORE: self._journal.store_id,
            SCOPE: row.path,
            "memlayer_id": row.key,
            "memlayer_kind": row.kind,
        }
