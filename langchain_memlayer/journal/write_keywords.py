"""What memories are found by: the terms of each, and how many have a term."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from langchain_memlayer.journal.database import Database
from langchain_memlayer.journal.write_base import BaseWriter


class KeywordWriter(BaseWriter):
    """Writes of the keyword index; the term statistics are gathered and written at the end."""

    def __init__(self, db: Database, *, now: int) -> None:
        super().__init__(db, now=now)
        self._terms: Counter[tuple[str, int]] = Counter()

    def finish(self) -> None:
        """Write what was gathered: the term statistics."""
        grown = [(term, ns, n) for (term, ns), n in self._terms.items() if n > 0]
        shrunk = [(n, term, ns) for (term, ns), n in self._terms.items() if n < 0]
        self.db.executemany(
            "INSERT INTO terms VALUES (?,?,?) ON CONFLICT (term, ns) DO UPDATE SET df = terms.df + excluded.df", grown
        )
        if shrunk:
            self.db.executemany("UPDATE terms SET df = df + ? WHERE term = ? AND ns = ?", shrunk)
            self.db.executemany("DELETE FROM terms WHERE term = ? AND ns = ? AND df <= 0", [row[1:] for row in shrunk])
        self._terms.clear()

    def index_terms(self, item: int, ns: int, tokens: Sequence[str], *, live: bool) -> None:
        """Let a memory be found by its terms; those of a live one count in the statistics."""
        self._index(item, f"n{ns}", tokens)
        if live:
            self._terms.update((term, ns) for term in set(tokens))

    def _index(self, item: int, space: str, tokens: Sequence[str]) -> None:
        """Let a row be found by its terms."""
        self.db.execute("INSERT INTO keywords (rowid, ns, tokens) VALUES (?,?,?)", (item, space, " ".join(tokens)))

    def _count_terms(self, item: int, by: int) -> None:
        found = self.db.execute("SELECT ns, tokens FROM keywords WHERE rowid = ?", (item,)).fetchone()
        if found is not None:
            ns = int(found[0][1:])
            for term in set(found[1].split()):
                self._terms[term, ns] += by

    def check_keywords(self) -> None:
        """Let SQLite compare the keyword index with its rows; a difference is a database error."""
        self.db.execute("INSERT INTO keywords (keywords) VALUES ('integrity-check')")

    def recount_terms(self) -> None:
        """Count the term statistics anew from the keyword rows of live memories."""
        self._terms.clear()
        self.db.execute("DELETE FROM terms")
        for item in self.db.execute("SELECT id FROM items WHERE closed IS NULL AND kind <> 'item'").fetchall():
            self._count_terms(item[0], 1)
