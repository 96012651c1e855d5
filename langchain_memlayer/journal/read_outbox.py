"""What is still to be brought to a foreign vector store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from langchain_memlayer.journal.read_base import VECTORS_OF_ITEM, BaseReader, chunks, marks
from langchain_memlayer.journal.read_slabs import KINDS, Area
from langchain_memlayer.journal.settings import embedder_key, purge_key


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A live row with vectors, as a foreign store is told of it.

    Attributes:
        id: The row.
        path: Its encoded namespace.
        key: The memory's id, or the item's key.
        kind: `item`, `fact` or `turn`.
        text: The memory's text, or the item's value as JSON.
        metadata: The memory's metadata as JSON, or None.
        ids: Its user_id, agent_id and run_id.
        codes: Its vectors, float16 bytes.
        dims: The size of each.
    """

    id: int
    path: str
    key: str
    kind: str
    text: str
    metadata: str | None
    ids: tuple[str | None, ...]
    codes: bytes
    dims: int


class OutboxReader(BaseReader):
    """The outbox: the journal's own events, read from the position up to which a store was brought."""

    def outgoing(self, area: Area, since: int, *, most: int) -> tuple[int, list[int]]:
        """The next events after a position, `most` of them: the position after them, and the rows they are about."""
        rows = self.db.execute(
            "SELECT seq, item, gone, kind FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (since, most)
        ).fetchall()
        return (rows[-1][0] if rows else since), about(rows, area)

    def undelivered(self, since: int) -> int:
        """How many events there are after a position."""
        return int(self.db.execute("SELECT count(*) FROM events WHERE seq > ?", (since,)).fetchone()[0])

    def later(self, area: Area, since: int, *, most: int) -> list[int] | None:
        """The rows that all events after a position are about, or None when there are more than `most` events."""
        rows = self.db.execute(
            "SELECT seq, item, gone, kind FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (since, most + 1)
        ).fetchall()
        return about(rows, area) if len(rows) <= most else None

    def vector_rows(self, area: Area, ids: Sequence[int]) -> list[VectorRow]:
        """Those of some rows that are live and have vectors. To be called in a snapshot."""
        found = []
        for chunk in chunks(ids):
            found += self.db.execute(
                "SELECT i.id, n.path, i.key, i.kind, i.value, i.metadata, i.user_id, i.agent_id, i.run_id, v.data FROM "
                f"items i JOIN namespaces n ON n.id = i.ns JOIN vectors v ON {VECTORS_OF_ITEM} "
                f"WHERE i.id IN ({marks(len(chunk))}) AND {KINDS[area]} AND i.closed IS NULL ORDER BY i.id",
                tuple(chunk),
            ).fetchall()
        record = self.meta(embedder_key(area)) if found else None
        dims = 0 if record is None else int(orjson.loads(record)["dims"])
        return [
            VectorRow(item, path, key, kind, text, metadata, (user, agent, run), codes, dims)
            for item, path, key, kind, text, metadata, user, agent, run, codes in found
        ]

    def newest(self, area: Area, *, most: int, until: int) -> list[int]:
        """The rows below a position that are live and have vectors, the newest `most` of them."""
        rows = self.db.execute(
            f"SELECT i.id FROM items i WHERE {KINDS[area]} AND i.closed IS NULL AND i.seq <= ? AND EXISTS (SELECT 1 "
            f"FROM vectors v WHERE {VECTORS_OF_ITEM}) ORDER BY i.id DESC LIMIT ?",
            (until, most),
        )
        return [row[0] for row in rows]

    def purges(self, area: Area) -> list[int]:
        """The rows of which an emptied journal still has to tell the foreign store that they are gone."""
        text = self.meta(purge_key(area))
        return [] if text is None else list(orjson.loads(text))


def about(events: Sequence[tuple[Any, ...]], area: Area) -> list[int]:
    """The rows of an area that some events (position, item, gone, kind) are about."""
    wanted = area == "items"
    return sorted({item for row in events for item in row[1:3] if item is not None and (row[3] == "item") == wanted})
