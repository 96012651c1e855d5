"""What is written of memories: their versions, and what links them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_memlayer.index.keywords import term_codes
from langchain_memlayer.journal.read_base import marks
from langchain_memlayer.journal.write_base import json_text
from langchain_memlayer.journal.write_keywords import KeywordWriter
from langchain_memlayer.types import Row, Triple

_MEMORY = (
    "INSERT INTO items (id, ns, key, kind, value, created_at, updated_at, seq, metadata, user_id, agent_id, run_id, "
    "session_id, role, name, message_id, time, hash, sources, turns, valid_at, invalid_at, state, asks, given, count, "
    "last_seen, last_event, terms) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


class MemoryWriter(KeywordWriter):
    """Writes of memories. A version is a row of its own; the live one has no end."""

    def add_memory(
        self,
        row: Row,
        *,
        tokens: Sequence[str],
        codes: bytes | None,
        triples: Sequence[Triple] = (),
        quotes: Sequence[tuple[int, str | None]] = (),
        op: str = "add",
        gone: int | None = None,
        prev: str | None = None,
        actor: str | None = None,
        batch: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Store one memory version and its event; `row.id` and `row.seq` are ignored. Returns the new row id.

        Args:
            row: The version.
            tokens: Its keyword terms.
            codes: Its vectors, float16 bytes.
            triples: The relations it states.
            quotes: For facts, the rows of its turns, each with the words that support it.
            op: What happened.
            gone: The row of the version that this one replaces.
            prev: The text of that version.
            actor: Who decided it.
            batch: The batch id.
            detail: What else to keep with the event.
        """
        ns = self.namespace(row.path)
        item = self.event(
            ns, row.key, row.kind, op, item=self.upcoming(), gone=gone, prev=prev, value=row.text, actor=actor,
            sources=row.sources, valid_at=row.valid_at, invalid_at=row.invalid_at, batch=batch, detail=detail,
        )  # fmt: skip
        self.db.execute(
            _MEMORY,
            (item, ns, row.key, row.kind, row.text, row.created_at, row.updated_at, item, json_text(row.metadata),
             row.user_id, row.agent_id, row.run_id, row.session_id, row.role, row.name, row.message_id, row.time,
             row.hash, json_text(row.sources), json_text([turn for turn, _ in quotes]), row.valid_at, row.invalid_at,
             row.state or None, int(row.asks) or None, int(row.given) or None, row.count, row.last_seen, op,
             term_codes(tokens)),
        )  # fmt: skip
        self._vectors(ns, item, codes)
        if tokens:
            self.index_terms(item, ns, tokens, live=True)
        self.link(item, quotes)
        self.store_triples(
            ("item", "ns", "source", "relation", "destination"),
            [(item, ns, t.source, t.relation, t.destination) for t in triples],
        )
        return item

    def store_triples(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        """Store triples as rows of some columns, of which the last three are source, relation and destination."""
        self.db.executemany(f"INSERT INTO triples ({', '.join(columns)}) VALUES ({marks(len(columns))})", rows)

    def add_seen(self, row: Row, *, actor: str | None = None, batch: str | None = None) -> int:
        """Store a turn that ended as it began: nothing finds it, and facts may cite it."""
        item = self.add_memory(
            replace(row, invalid_at=row.created_at), tokens=(), codes=None, op="seen", actor=actor, batch=batch
        )
        self.db.execute("UPDATE items SET closed = id WHERE id = ?", (item,))
        return item

    def close_memory(self, row: Row, *, invalid_at: int) -> None:
        """End a version with the event that comes next; its keywords leave the statistics, its row stays."""
        self.db.execute(
            "UPDATE items SET closed = ?, invalid_at = ?, seq = ? WHERE id = ?",
            (self.upcoming(), invalid_at, self.upcoming(), row.id),
        )
        self._count_terms(row.id, -1)

    def change_memory(
        self,
        row: Row,
        op: str,
        *,
        actor: str | None = None,
        batch: str | None = None,
        detail: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> None:
        """Change a version in place (`state`, `count`, `last_seen`, `invalid_at`, `sources`, `turns`) with an event."""
        seq = self.event(
            self.namespace(row.path), row.key, row.kind, op, item=row.id, actor=actor, batch=batch, detail=detail
        )
        columns = {k: json_text(v) if k in ("sources", "turns") else v for k, v in columns.items()}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        self.db.execute(f"UPDATE items SET {assignments}, seq = ? WHERE id = ?", (*columns.values(), seq, row.id))

    def link(self, fact: int, quotes: Sequence[tuple[int, str | None]]) -> None:
        """Let a fact cite further turns."""
        rows = [(fact, turn, quote) for turn, quote in quotes]
        self.db.executemany("INSERT INTO links VALUES (?,?,?) ON CONFLICT DO NOTHING", rows)

    def relink(self, old: int, new: int) -> None:
        """Let the facts that cite one version of a turn cite the next."""
        for (fact,) in self.db.execute("SELECT fact FROM links WHERE turn = ?", (old,)).fetchall():
            row = self.memories_by_row([fact]).get(fact)
            self.db.execute(
                "UPDATE links SET turn = ? WHERE fact = ? AND turn = ? AND NOT EXISTS "
                "(SELECT 1 FROM links WHERE fact = ? AND turn = ?)",
                (new, fact, old, fact, new),
            )
            if row is not None and row.closed is None:
                self.change_memory(row, "relink", turns=[new if turn == old else turn for turn in row.turns])
