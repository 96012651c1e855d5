"""A second set of vectors: made beside the one in use, and put in its place all at once.

Both lie in one table, told apart by the sign of their row ids, and a setting says which sign is in use. So the change
is that of one setting, however many vectors there are, and whoever reads sees either the one set or the other. The set
that is not in use is removed afterwards, in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_memlayer.journal.cache_reader import KINDS
from langchain_memlayer.journal.database import VECTORS_OF_ITEM, VECTORS_SIGN
from langchain_memlayer.journal.item_reader import HIGHEST
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.types import Kind


@dataclass(frozen=True, slots=True)
class Unstaged:
    """A row whose vectors in use have none beside them.

    Attributes:
        vectors: Their row id.
        seq: The position of the row's last write.
        value: The memory's text, or the item's value as JSON.
        time: Microseconds since 1970 UTC.
        fields: The paths of what is embedded of an item, as JSON; None when that was not noted.
        vector_bytes: The vectors in use, float16 bytes.
    """

    vectors: int
    item: int
    seq: int
    path: str
    key: str
    kind: Kind
    value: str
    name: str | None
    time: int | None
    fields: str | None
    vector_bytes: bytes


def unstaged(reader: Reader, *, most: int, below: int | None = None) -> list[Unstaged]:
    """The next rows to stage: in the order in which what is staged lies on the disk.

    Args:
        reader: Reads the journal.
        most: How many at most.
        below: The `vectors` of the last row before; None begins anew, with what was left out or written meanwhile.
    """
    rows = reader.db.execute(
        "SELECT v.id, i.id, i.seq, n.path, i.key, i.kind, i.value, i.name, i.time, i.fields, v.data FROM vectors v "
        "JOIN items i ON i.id = abs(v.id) JOIN namespaces n ON n.id = i.ns WHERE v.id < ? AND "
        f"{_side(reader.sign())} AND NOT EXISTS (SELECT 1 FROM vectors s WHERE s.id = -v.id) "
        "ORDER BY v.id DESC LIMIT ?",
        (HIGHEST if below is None else below, most),
    ).fetchall()
    return [Unstaged(*row) for row in rows]


def count(reader: Reader) -> tuple[int, int]:
    """How many rows have staged vectors, and how many have vectors in use. In a snapshot."""
    staged, used = (
        int(reader.db.execute(f"SELECT count(*) FROM vectors v WHERE {_side(side)}").fetchone()[0])
        for side in (-reader.sign(), reader.sign())
    )
    return staged, used


def unknown_fields(reader: Reader) -> int:
    """How many items have vectors in use of which it was not noted what they were made from."""
    row = reader.db.execute(
        f"SELECT count(*) FROM items i JOIN vectors v ON {VECTORS_OF_ITEM} WHERE {KINDS['items']} AND i.fields IS NULL"
    ).fetchone()
    return int(row[0])


def stage(tx: Writer, rows: Sequence[tuple[Unstaged, bytes]]) -> None:
    """Put vectors (float16 bytes) beside those in use, but not where the row was written to, or removed, meanwhile."""
    tx.db.executemany(
        "INSERT INTO vectors (id, data) SELECT -v.id, ? FROM vectors v JOIN items i ON i.id = ? WHERE v.id = ? AND "
        "(i.seq = ? OR i.kind <> 'item') ON CONFLICT (id) DO UPDATE SET data = excluded.data",
        [(vector_bytes, row.item, row.vectors, row.seq) for row, vector_bytes in rows],
    )


def switch(tx: Writer) -> None:
    """Let the staged vectors be those in use; everything that was loaded from the others is loaded anew."""
    tx.set_meta(VECTORS_SIGN, str(-tx.sign()))
    tx.event(0, "", "item", "reset")


def discard(tx: Writer, *, most: int) -> int:
    """Remove some of the vectors that are not in use; returns how many."""
    return tx.db.execute(
        f"DELETE FROM vectors WHERE id IN (SELECT v.id FROM vectors v WHERE {_side(-tx.sign())} LIMIT ?)", (most,)
    ).rowcount


def _side(which: int) -> str:
    return "v.id > 0" if which > 0 else "v.id < 0"
