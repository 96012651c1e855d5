"""What is read for the caches: whole areas and what changed in them, as slabs, as triples, and for foreign stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from langchain_memlayer.index.growing import Growing
from langchain_memlayer.journal.database import (
    DAMAGED,
    IN_USE,
    VECTORS_OF_ITEM,
    Area,
    BaseReader,
    chunks,
    embedder_key,
    placeholders,
    purge_key,
    sound,
)
from langchain_memlayer.types import QUARANTINED, VISIBLE, Scope, SlabBlock, Triple, prefix_bounds

ADOPTED = "adopted:"
"""How the message id of a turn begins that is a document of the user's own vector store: it is there already."""

WAS_ADOPTED = (
    "(i.kind = 'turn' AND i.message_id IS NOT NULL AND i.message_id >= 'adopted:' AND i.message_id < 'adopted;')"
)

KINDS: dict[Area, str] = {"items": "i.kind = 'item'", "memories": "i.kind <> 'item' AND i.kind <> 'profile'"}

_DATA = {True: "v.data", False: "length(v.data)"}
_HOT: dict[Area, tuple[str, ...]] = {
    "items": ("expires_at",),
    "memories": (
        "kind", "user_id", "agent_id", "run_id", "session_id", "role", "name", "time", "state", "asks",
        "read", "valid_at", "invalid_at", "turns", "terms",
    ),
}  # fmt: skip

Typed = Callable[[Mapping[str, Sequence[Any]]], tuple[dict[str, NDArray[Any]], Sequence[bytes]]]
"""Makes of the hot columns of some rows, as SQL gives them, those of a slab and the terms of their texts."""

_TRIPLE = "t.id, t.item, i.key, t.source, t.relation, t.destination, i.valid_at, t.source_key, t.destination_key"


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A live row with vectors, as a foreign store is told of it.

    Attributes:
        key: The memory's id, or the item's key.
        text: The memory's text, or the item's value as JSON.
        metadata: The memory's metadata as JSON, or None.
        ids: Its user_id, agent_id and run_id.
        vector_bytes: Its vectors, float16 bytes.
        dims: The size of each.
    """

    id: int
    path: str
    key: str
    kind: str
    text: str
    metadata: str | None
    ids: tuple[str | None, ...]
    vector_bytes: bytes
    dims: int


TRIPLES = "triples t JOIN items i ON i.id = t.item AND +i.ns = +t.ns"
"""Triples with their memories; one that is damaged is of nobody else's. By its index SQLite would go through all of a
namespace: a sign keeps it from that."""


def to_triple(row: Sequence[Any]) -> Triple:
    """The triple in a row of its number and its names; TypeError when one of these is no text."""
    if not type(row[-3]) is type(row[-2]) is type(row[-1]) is str:
        raise TypeError("a name of another type")
    return Triple(*row[-3:])


def _shown_triple(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A row of `_TRIPLE`, without a key that is no text, which is made anew; TypeError when more is damaged."""
    to_triple(row[3:6])
    if type(row[2]) is not str or type(row[6]) not in (int, type(None)):
        raise TypeError("an id or a time of another type")
    if type(row[7]) is type(row[8]) is str:
        return row
    return (*row[:7], *(key if type(key) is str else None for key in row[7:]))


class CacheReader(BaseReader):
    """Reads of whole areas, for the caches that are kept up with them."""

    # -- slabs ----------------------------------------------------------------------------------------------------

    def load(
        self, prefix: str, area: Area, *, dims: int, ended: bool = False, vectors: bool = True, typed: Typed
    ) -> SlabBlock:
        """Everything live below a namespace (with `ended`: every version). To be called in a snapshot.

        Vectors are left out where `dims` is 0, and only counted without `vectors`; rows for which `typed` raises one of
        `DAMAGED` are left out.
        """
        sql = (
            f"SELECT i.id FROM namespaces n JOIN items i ON i.ns = n.id WHERE n.path >= ? AND n.path < ? AND "
            f"{KINDS[area]}{'' if ended else ' AND i.closed IS NULL'}"
        )
        # In the order in which they were written, whichever index SQLite took: neighbours of a turn lie beside it.
        rows = sorted(map(itemgetter(0), self.db.execute(sql, prefix_bounds(prefix))))
        return self._slab(area, self.last_seq(), rows, [], typed, dims=dims, ended=ended, vectors=vectors)

    def changes(
        self, prefix: str, area: Area, since: int, *, dims: int, ended: bool = False, vectors: bool = True, typed: Typed
    ) -> SlabBlock | None:
        """What changed below a namespace after position `since`; None when a reset was among it. In a snapshot."""
        last = self.last_seq()
        touched = self.touched(prefix, since, last)
        if touched is None:
            return None
        return self._slab(area, last, touched, touched, typed, dims=dims, ended=ended, vectors=vectors)

    def _slab(
        self,
        area: Area,
        seq: int,
        ids: Sequence[int],
        gone: Sequence[int],
        typed: Typed,
        *,
        dims: int,
        ended: bool,
        vectors: bool,
    ) -> SlabBlock:
        """The block of some rows; those of `gone` that are not in it are removed.

        It is put together of many, so that hardly anything is held twice, or as SQL gave it.
        """
        sql = (
            f"SELECT i.id, i.seq, {', '.join(f'i.{name}' for name in _HOT[area])}, {_DATA[vectors]} FROM items i "
            f"LEFT JOIN vectors v ON {VECTORS_OF_ITEM} WHERE "
            f"{KINDS[area]}{'' if ended else ' AND i.closed IS NULL'} AND i.id IN "
        )
        blocks: list[SlabBlock] = []
        # Memory of NumPy's, which the slab goes on with: it lies in large pages, where searches find rows sooner.
        vector_bytes = Growing(np.dtype(np.uint8))
        vector_bytes.ahead(2 * dims * len(ids) if vectors else 0)
        for chunk in chunks(ids):
            rows = self.db.execute(f"{sql}({placeholders(len(chunk))})", tuple(chunk)).fetchall()
            rows.sort(key=itemgetter(0))
            for block in _readable(rows, area, typed, dims=dims, form=bytes if vectors else int):
                vector_bytes.extend(np.frombuffer(block.vector_bytes, np.uint8))
                blocks.append(replace(block, vector_bytes=b""))
        blocks = blocks or [_block([], area, typed, dims=dims)]
        starts = np.cumsum([0, *(len(block.ids) for block in blocks[:-1])])
        written = np.concatenate([block.ids for block in blocks])
        return SlabBlock(
            seq=seq,
            ids=written,
            seqs=np.concatenate([block.seqs for block in blocks]),
            columns={name: np.concatenate([block.columns[name] for block in blocks]) for name in blocks[0].columns},
            owners=np.concatenate([block.owners + start for block, start in zip(blocks, starts, strict=True)]),
            vector_bytes=vector_bytes.used.data,
            removed=np.setdiff1d(np.array(gone, np.int64), written),
            words=[words for block in blocks for words in block.words],
        )

    def vectors_of(self, ids: Sequence[int]) -> dict[int, bytes]:
        """The vectors in use of some rows, float16 bytes; rows without any are left out."""
        return dict(self._vectors_in(ids, self.sign())) if ids else {}

    def slab_vectors(self, ids: NDArray[np.int64], sizes: NDArray[np.int64], out: NDArray[np.uint8]) -> list[int]:
        """Writes the vectors in use of some rows into `out`, one after another, each row's of a known size in bytes.

        Returns:
            The rows that have others, which stand there as zeros.
        """
        sign, end, others = self.sign(), 0, []
        for rows, wanted in zip(chunks(ids.tolist()), chunks(sizes.tolist()), strict=True):
            numbers, pieces = zip(*self._vectors_in(rows, sign) or [(0, b"")], strict=True)
            if list(numbers) != rows:
                by_row = dict(zip(numbers, pieces, strict=True))
                pieces = tuple(by_row.get(row, b"") for row in rows)
            if list(map(len, pieces)) != wanted:
                bad = [place for place, size in enumerate(wanted) if len(pieces[place]) != size]
                others += [rows[place] for place in bad]
                pieces = tuple(
                    piece if len(piece) == size else bytes(size) for piece, size in zip(pieces, wanted, strict=True)
                )
            begin, end = end, end + sum(wanted)
            out[begin:end] = np.frombuffer(b"".join(pieces), np.uint8)
        return others

    def sign(self) -> int:
        """The sign of the row ids of the vectors in use."""
        return int(self.db.execute(f"SELECT {IN_USE}").fetchone()[0])

    def _vectors_in(self, ids: Sequence[int], sign: int) -> list[tuple[int, bytes]]:
        """Rows and their vectors, mostly by ascending row; some that lie between them may be among them."""
        numbers = ids if sign > 0 else [-item for item in ids]
        between = min(numbers), max(numbers)
        if between[1] - between[0] < 2 * len(numbers):
            # What lies side by side is read in half the time that it takes to look for each.
            pairs = self.db.execute(
                "SELECT id, data FROM vectors WHERE id BETWEEN ? AND ? ORDER BY id", between
            ).fetchall()
        else:
            pairs = self.among("SELECT id, data FROM vectors WHERE id IN (...) ORDER BY id", numbers)
        return pairs if sign > 0 else [(-item, data) for item, data in reversed(pairs)]

    # -- triples; those of ended memories are not shown -----------------------------------------------------------

    def has_triples(self) -> bool:
        """Whether the folder has any triples."""
        return self.db.execute("SELECT 1 FROM triples LIMIT 1").fetchone() is not None

    def scope_triples(self, scope: Scope, *, quarantined: bool) -> list[tuple[Any, ...]]:
        """The triples that a scope's graph shows, as rows of `graph.memory_graph.StoredTriple`."""
        where, values = visible(scope.ids(), quarantined=quarantined)
        rows = self.db.execute(
            f"SELECT {_TRIPLE} FROM namespaces n JOIN triples t ON t.ns = n.id JOIN items i ON i.id = t.item WHERE "
            f"n.path >= ? AND n.path < ? AND {where} ORDER BY t.id",
            (*prefix_bounds(scope.search_root), *values),
        )
        return list(sound(rows, _shown_triple))

    def first_triples(self, scope: Scope, *, most: int, at: int | None) -> list[tuple[Any, ...]]:
        """The first of the `scope_triples` of a scope; with `at`, of those whose memories have not expired by then."""
        where, values = visible(scope.ids(), quarantined=False, at=at)
        owned = "" if scope.user_id is None else "t.ns = (SELECT id FROM namespaces WHERE path = ?) AND "
        # A cross join is one that SQLite makes in this order, which ends with the last row that is wanted.
        rows = self.db.execute(
            f"SELECT {_TRIPLE} FROM triples t CROSS JOIN items i WHERE i.id = t.item AND {owned}{where} "
            "ORDER BY t.id LIMIT ?",
            (*((scope.partition,) if owned else ()), *values, most),
        )
        return list(sound(rows, _shown_triple))

    def changed_triples(
        self, scope: Scope, since: int, *, quarantined: bool
    ) -> tuple[list[tuple[Any, ...]], list[int]] | None:
        """The `scope_triples` of what changed after position `since`, and all items that did; None after a reset."""
        touched = self.touched(scope.search_root, since)
        if touched is None:
            return None
        return self.triples_among("item", touched, scope, quarantined=quarantined), touched

    def triples_among(
        self,
        of: Literal["id", "item"],
        numbers: Sequence[int],
        scope: Scope,
        *,
        quarantined: bool,
        at: int | None = None,
    ) -> list[tuple[Any, ...]]:
        """Those of some triples (their `id`), or of some memories' (their `item`), that a scope's graph shows.

        They have the shape of `scope_triples`; `at` is as in `visible`.
        """
        where, values = visible(scope.ids(), quarantined=quarantined, at=at)
        sql = f"SELECT {_TRIPLE} FROM triples t JOIN items i ON i.id = t.item WHERE {where} AND t.{of} IN (...)"
        return sorted(sound(self.among(sql, numbers, before=values), _shown_triple))

    def triples_of(self, item: int) -> tuple[Triple, ...]:
        """The triples of one memory version."""
        return tuple(self.triples_by_row([item]).get(item, ()))

    def triples_by_row(self, items: Sequence[int]) -> dict[int, list[Triple]]:
        """The triples of some memory versions, by row."""
        triples: dict[int, list[Triple]] = {}
        sql = f"SELECT t.item, t.source, t.relation, t.destination FROM {TRIPLES} WHERE t.item IN (...) ORDER BY t.id"
        for item, triple in sound(self.among(sql, items), lambda row: (row[0], to_triple(row))):
            triples.setdefault(item, []).append(triple)
        return triples

    # -- the outbox: the journal's own events, read from the position up to which a store was brought -------------

    def outgoing(self, area: Area, since: int, *, most: int) -> tuple[int, list[int]]:
        """The next events after a position, `most` of them: the position after them, and the rows they are about."""
        rows = self._behind(since, most)
        return (rows[-1][0] if rows else since), rows_about(rows, area)

    def _behind(self, since: int, most: int) -> list[tuple[Any, ...]]:
        sql = "SELECT seq, item, gone, kind FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
        return self.db.execute(sql, (since, most)).fetchall()

    def undelivered(self, since: int) -> int:
        """How many events there are after a position."""
        return int(self.db.execute("SELECT count(*) FROM events WHERE seq > ?", (since,)).fetchone()[0])

    def later(self, area: Area, since: int, *, most: int) -> list[int] | None:
        """The rows that all events after a position are about, or None when there are more than `most` events."""
        rows = self._behind(since, most + 1)
        return rows_about(rows, area) if len(rows) <= most else None

    def vector_rows(self, area: Area, ids: Sequence[int]) -> list[VectorRow]:
        """Those of some rows that are live, have vectors and belong into a store. To be called in a snapshot."""
        rows = self.among(
            "SELECT i.id, n.path, i.key, i.kind, i.value, i.metadata, i.user_id, i.agent_id, i.run_id, v.data FROM "
            f"items i JOIN namespaces n ON n.id = i.ns JOIN vectors v ON {VECTORS_OF_ITEM} WHERE i.id IN (...) AND "
            f"{KINDS[area]} AND i.closed IS NULL AND NOT {WAS_ADOPTED} ORDER BY i.id",
            ids,
        )
        record = self.meta(embedder_key(area)) if rows else None
        dims = 0 if record is None else int(orjson.loads(record)["dims"])
        return [
            VectorRow(item, path, key, kind, text, metadata, (user, agent, run), vector_bytes, dims)
            for item, path, key, kind, text, metadata, user, agent, run, vector_bytes in rows
        ]

    def newest(self, area: Area, *, most: int, until: int) -> list[int]:
        """The `vector_rows` below a position, the newest `most` of them."""
        rows = self.db.execute(
            f"SELECT i.id FROM items i WHERE {KINDS[area]} AND i.closed IS NULL AND i.seq <= ? AND NOT "
            f"{WAS_ADOPTED} AND EXISTS (SELECT 1 FROM vectors v WHERE {VECTORS_OF_ITEM}) ORDER BY i.id DESC LIMIT ?",
            (until, most),
        )
        return [row[0] for row in rows]

    def adopted(self, prefix: str, *, most: int) -> list[int] | None:
        """The live rows below a namespace that were adopted, or None when there are more than `most`."""
        rows = self.db.execute(
            "SELECT i.id FROM namespaces n JOIN items i ON i.ns = n.id WHERE n.path >= ? AND n.path < ? AND "
            f"i.closed IS NULL AND {WAS_ADOPTED} LIMIT ?",
            (*prefix_bounds(prefix), most + 1),
        ).fetchall()
        return [row[0] for row in rows] if len(rows) <= most else None

    def purges(self, area: Area) -> list[int]:
        """The rows of which an emptied journal still has to tell the foreign store that they are gone."""
        text = self.meta(purge_key(area))
        return [] if text is None else next(sound([(purge_key(area), text)], _row_numbers), [])


def _row_numbers(setting: tuple[str, str]) -> list[int]:
    rows = orjson.loads(setting[1])
    if type(rows) is not list or not {*map(type, rows)} <= {int}:
        raise TypeError("no list of rows")
    return rows


def _readable(
    rows: list[tuple[Any, ...]], area: Area, typed: Typed, *, dims: int, form: type[bytes | int]
) -> list[SlabBlock]:
    """The block of some rows; where some are damaged, one of each other row."""
    try:
        return [_block(rows, area, typed, dims=dims, form=form)]
    except DAMAGED:
        return list(sound(rows, lambda row: _block([row], area, typed, dims=dims, form=form)))


def _block(
    rows: list[tuple[Any, ...]], area: Area, typed: Typed, *, dims: int, form: type[bytes | int] = bytes
) -> SlabBlock:
    """The block of rows that end with vectors, or (where `form` is a number) with how many bytes these have."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(_HOT[area]) + 3)
    # Without an embedder the vectors of an earlier one are left where they are.
    stored: Sequence[bytes | int | None] = columns[-1] if dims else (None,) * len(rows)
    sizes = np.array([len(d) if isinstance(d, bytes) else d or 0 for d in stored], np.int64)
    if dims and ((sizes % (2 * dims)).any() or not {*map(type, stored)} <= {form, type(None)}):
        raise ValueError(f"vectors of another form or size than {dims}")
    hot, words = typed(dict(zip(_HOT[area], columns[2:], strict=False)))
    return SlabBlock(
        seq=0,
        ids=np.array(columns[0], np.int64),
        seqs=np.array(columns[1], np.int64),
        columns=hot,
        owners=np.repeat(np.arange(len(rows)), sizes // (2 * dims or 1)),
        vector_bytes=b"".join([d for d in stored if isinstance(d, bytes)]),
        removed=np.empty(0, np.int64),
        words=words,
    )


def visible(ids: Mapping[str, str], *, quarantined: bool, at: int | None = None) -> tuple[str, list[Any]]:
    """The condition for live memories of a scope whose triples are shown, and its values.

    With `at`, microseconds since 1970 UTC, those that have expired by then are left out.
    """
    states = f"{VISIBLE}, {QUARANTINED}" if quarantined else str(VISIBLE)
    wanted = "".join(f" AND i.{name} = ?" for name in ids)
    lasting = "" if at is None else " AND (i.invalid_at IS NULL OR i.invalid_at > ?)"
    return (
        f"i.closed IS NULL AND coalesce(i.state, {VISIBLE}) IN ({states}){wanted}{lasting}",
        [*ids.values(), *(() if at is None else (at,))],
    )


def rows_about(events: Sequence[tuple[Any, ...]], area: Area) -> list[int]:
    """The rows of an area that some events (position, item, gone, kind) are about."""
    of_items = area == "items"
    of_area = (row for row in events if row[3] != "profile" and (row[3] == "item") == of_items)
    return sorted({item for row in of_area for item in row[1:3] if item is not None})
