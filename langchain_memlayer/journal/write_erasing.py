"""What is taken out of the journal for good."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from langchain_memlayer.journal.read_base import marks
from langchain_memlayer.journal.read_slabs import KINDS
from langchain_memlayer.journal.schema import TABLES
from langchain_memlayer.journal.settings import SCRUB_DUE, outbox_key, purge_key
from langchain_memlayer.journal.write_base import json_text
from langchain_memlayer.journal.write_keywords import KeywordWriter
from langchain_memlayer.types import Row


class ErasingWriter(KeywordWriter):
    """Erasing, the one exception to appending; each commit that does it notes that a `scrub` is due."""

    def erase_memories(self, rows: Sequence[Row]) -> None:
        """Remove every trace of memory versions but that there was something: texts of events are blanked.

        Slabs of all processes load anew afterwards, since a namespace that is gone can no longer be followed. The bytes
        go with the journal's `scrub` that is to follow.
        """
        self.set_meta(SCRUB_DUE, "due")
        spaces = {row.path: self.namespace(row.path) for row in rows}
        for key, row in {row.key: row for row in rows}.items():
            self.db.execute(
                "UPDATE events SET prev = NULL, value = NULL, sources = NULL, detail = NULL, actor = NULL "
                "WHERE key = ? AND kind <> 'item'",
                (key,),
            )
            self.event(spaces[row.path], key, row.kind, "forget", item=row.id)
        for ns in spaces.values():
            self.db.execute("UPDATE events SET value = NULL, detail = NULL WHERE ns = ? AND op = 'rejected'", (ns,))
        self._unquote([row.id for row in rows])
        for row in rows:
            if row.closed is None:
                self._count_terms(row.id, -1)
            self.db.execute("DELETE FROM keywords WHERE rowid = ?", (row.id,))
            self._drop_vectors(spaces[row.path], row.id)
            self.db.execute("DELETE FROM triples WHERE item = ?", (row.id,))
            self.db.execute("DELETE FROM links WHERE fact = ? OR turn = ?", (row.id, row.id))
            self.db.execute("DELETE FROM items WHERE id = ?", (row.id,))
        for path, ns in spaces.items():
            if not self.db.execute("SELECT 1 FROM items WHERE ns = ? LIMIT 1", (ns,)).fetchone():
                self.db.execute("DELETE FROM namespaces WHERE id = ?", (ns,))
                self._namespaces.pop(path, None)
        self.event(0, "", "item", "reset")

    def _unquote(self, turns: Sequence[int]) -> None:
        """Take the words of turns that go, and the turns themselves, out of the facts that stay."""
        gone = set(turns)
        facts = {
            fact for turn in turns for (fact,) in self.db.execute("SELECT fact FROM links WHERE turn = ?", (turn,))
        } - gone
        for fact in self.memories_by_row(sorted(facts)).values():
            self.db.execute("UPDATE links SET quote = NULL WHERE fact = ?", (fact.id,))
            for event in self.history(fact.key):
                detail = {name: value for name, value in event.detail.items() if name != "quote"}
                self.db.execute("UPDATE events SET detail = ? WHERE seq = ?", (json_text(detail), event.seq))
            left = [turn for turn in fact.turns if turn not in gone]
            self.db.execute("UPDATE items SET turns = ? WHERE id = ?", (json_text(left), fact.id))

    def erase_batches(self, scopes: Sequence[str]) -> None:
        """Forget the batch ids of scopes."""
        self.db.execute(f"DELETE FROM batches WHERE scope IN ({marks(len(scopes))})", tuple(scopes))

    def erase_all(self) -> None:
        """Empty the journal: every row and every text, keeping only the position and the store's settings."""
        self.set_meta(SCRUB_DUE, "due")
        self._keep_purges()
        for table in TABLES:
            if table != "meta":
                self.db.execute(f"DELETE FROM {table}")
        self._terms.clear()
        self._namespaces.clear()
        self.event(0, "", "item", "reset")

    def _keep_purges(self) -> None:
        """Remember which rows a foreign vector store has to be told of: the events that say so go."""
        for area in KINDS:
            if self.meta(outbox_key(area)) is not None:
                rows = self.db.execute(f"SELECT i.id FROM items i WHERE {KINDS[area]}").fetchall()
                gone = sorted({*self.purges(area), *(row[0] for row in rows)})
                self.set_meta(purge_key(area), orjson.dumps(gone).decode())
