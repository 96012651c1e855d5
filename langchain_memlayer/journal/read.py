"""Everything that is read from the journal.

read_base.py      the connection, positions, namespaces, settings
read_items.py     items of a BaseStore
read_memories.py  memories, their events and keywords
read_triples.py   triples
read_slabs.py     what slabs are loaded from
read_outbox.py    what foreign vector stores are told
"""

from __future__ import annotations

from collections.abc import Mapping

from langchain_memlayer.journal.read_base import IN_USE
from langchain_memlayer.journal.read_items import ItemReader
from langchain_memlayer.journal.read_memories import MemoryReader
from langchain_memlayer.journal.read_outbox import OutboxReader
from langchain_memlayer.journal.read_slabs import SlabReader
from langchain_memlayer.journal.read_triples import TripleReader


class Reader(ItemReader, MemoryReader, TripleReader, SlabReader, OutboxReader):
    """Reads of one connection. Numbers of rows are what SQL returns; every method is one or two statements."""

    def counts(self) -> Mapping[str, int]:
        """Numbers for `stats`: live rows by kind, events, vectors, namespaces, triples."""
        one = "SELECT count(*) FROM "
        live = self.db.execute("SELECT kind, count(*) FROM items WHERE closed IS NULL GROUP BY kind")
        by_kind = dict(live.fetchall())
        rows = ("events", f"vectors WHERE id * {IN_USE} > 0", "namespaces", "triples")
        return {
            "items": by_kind.get("item", 0),
            "facts": by_kind.get("fact", 0),
            "turns": by_kind.get("turn", 0),
            "ended": self.db.execute(one + "items WHERE closed IS NOT NULL").fetchone()[0],
            **{some.split()[0]: self.db.execute(one + some).fetchone()[0] for some in rows},
        }
