"""What slabs are loaded from: ids, vectors and hot columns, all of them or those that changed."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from langchain_memlayer.journal.read_base import VECTORS_OF_ITEM, BaseReader, chunks, marks
from langchain_memlayer.types import SlabBlock, prefix_bounds

Area = Literal["items", "memories"]
KINDS: dict[Area, str] = {"items": "i.kind = 'item'", "memories": "i.kind <> 'item'"}

_HOT = {
    "items": "i.id, i.seq, i.expires_at",
    "memories": "i.id, i.seq, i.kind, i.user_id, i.agent_id, i.run_id, i.session_id, i.name, i.time, "
    "i.state, i.asks, i.turns, i.terms",
}
HOT_NAMES: dict[Area, tuple[str, ...]] = {
    "items": ("expires",),
    "memories": (
        "kind", "user_id", "agent_id", "run_id", "session_id", "name", "time", "state", "asks", "turns",
        "terms",
    ),
}  # fmt: skip


class SlabReader(BaseReader):
    """Reads of whole areas, for the caches that are kept up with them."""

    def load(self, prefix: str, area: Area, *, dims: int, ended: bool = False) -> SlabBlock:
        """Everything live below a namespace (with `ended`: every version). To be called in a snapshot."""
        low, high = prefix_bounds(prefix)
        sql = (
            f"SELECT {_HOT[area]}, v.data FROM namespaces n JOIN items i ON i.ns = n.id LEFT JOIN "
            f"vectors v ON {VECTORS_OF_ITEM} WHERE n.path >= ? AND n.path < ? AND {KINDS[area]}"
        )
        rows = self.db.execute(sql if ended else f"{sql} AND i.closed IS NULL", (low, high)).fetchall()
        # In the order in which they were written, whichever index SQLite took: neighbours of a turn lie beside it.
        rows.sort(key=itemgetter(0))
        return _block(self.last_seq(), rows, area, dims=dims, removed=[])

    def changes(self, prefix: str, area: Area, since: int, *, dims: int, ended: bool = False) -> SlabBlock | None:
        """What changed below a namespace after position `since`; None when a reset was among it. In a snapshot."""
        last, touched = self.last_seq(), self.touched(prefix, since)
        if touched is None:
            return None
        found: list[tuple[Any, ...]] = []
        for chunk in chunks(touched):
            found += self.db.execute(
                f"SELECT {_HOT[area]}, v.data FROM items i LEFT JOIN vectors v ON {VECTORS_OF_ITEM} "
                f"WHERE i.id IN ({marks(len(chunk))}) AND {KINDS[area]}" + ("" if ended else " AND i.closed IS NULL"),
                tuple(chunk),
            ).fetchall()
        present = {row[0] for row in found}
        return _block(last, found, area, dims=dims, removed=[i for i in touched if i not in present])


def _block(seq: int, rows: list[tuple[Any, ...]], area: Area, *, dims: int, removed: list[int]) -> SlabBlock:
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(HOT_NAMES[area]) + 3)
    # Without an embedder the vectors of an earlier one are left where they are.
    stored: Sequence[bytes | None] = columns[-1] if dims else (None,) * len(rows)
    owners = np.fromiter((k for k, d in enumerate(stored) if d is not None), np.int64)
    data = [d for d in stored if d is not None]
    if dims and any(len(d) != 2 * dims for d in data):
        owners = np.repeat(owners, [len(d) // (2 * dims) for d in data])
    return SlabBlock(
        seq=seq,
        ids=np.array(columns[0], np.int64),
        seqs=np.array(columns[1], np.int64),
        columns={name: _column(columns[k + 2]) for k, name in enumerate(HOT_NAMES[area])},
        owners=owners,
        codes=b"".join(data),
        removed=np.array(removed, np.int64),
    )


def _column(values: Sequence[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    column = np.empty(len(values), object)
    column[:] = values
    return column
