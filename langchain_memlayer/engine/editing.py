"""What callers do to memories by hand: update, delete, forget, reset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_memlayer.engine.commit import Commit, Committed, Indexed
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.scopes import batch_scope, missing, scope_of, scope_sql, to_turn
from langchain_memlayer.engine.steps import Request, Steps
from langchain_memlayer.engine.texts import searchable, stored_text
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.settings import SCRUB_DUE
from langchain_memlayer.messages import content_hash
from langchain_memlayer.protocols import Extractor
from langchain_memlayer.recall import asking
from langchain_memlayer.types import HIDDEN, Row, Scope, Triple

_FROM_ONE_TURN = (
    "i.kind = 'fact' AND i.closed IS NULL AND i.id IN (SELECT fact FROM links WHERE turn = ?) AND NOT EXISTS "
    "(SELECT 1 FROM links l WHERE l.fact = i.id AND l.turn != ?)"
)


class Editor:
    """Changes of one folder's memories that no conversation asked for.

    Args:
        journal: The truth.
        indexes: The slabs of its memories.
        extractor: Finds the triples of a new text, or None.
        derived: Closed before files are scrubbed, besides the slabs.
    """

    def __init__(
        self,
        journal: Journal,
        indexes: Indexes,
        *,
        extractor: Extractor | None = None,
        derived: Sequence[Any] = (),
    ) -> None:
        self.journal = journal
        self.indexes = indexes
        self.extractor = extractor
        self._derived = derived

    def update(self, key: str, text: str | None, metadata: Mapping[str, Any] | None) -> Steps:
        """Give a memory a new text, new metadata or both; the version before stays in its history.

        The triples of a new text are extracted anew.
        """
        triples: tuple[Triple, ...] = ()
        if text is not None and text != self._existing(key).text and self.extractor is not None:
            extractor, turn = self.extractor, replace(to_turn(self._existing(key)), text=text)
            found = yield Request(lambda: extractor.extract([turn], []), lambda: extractor.aextract([turn], []))
            triples = tuple(dict.fromkeys(triple for fact in found.facts for triple in fact.triples))
        while True:
            row = self._existing(key)
            changed = replace(
                row, text=row.text if text is None else text, metadata={**row.metadata, **(metadata or {})}
            )
            changed = replace(changed, asks=asking(changed.text) if row.kind == "turn" else 0)
            form = stored_text(changed.text, kind=row.kind, name=row.name, time=row.time)
            forms = yield from searchable(self.indexes, [form])
            if self._replace(row, replace(changed, hash=content_hash(changed.text)), forms[form], triples):
                return Committed(key, "UPDATE", changed.text, row.text)

    def _replace(self, row: Row, changed: Row, form: Indexed, triples: Sequence[Triple]) -> bool:
        """Commit the next version of a memory; False when another call has written to it since `row` was read."""
        with self.journal.write(row.path) as tx:
            current = tx.memory(row.key)
            if current is None:
                raise missing(row.key)
            if current.seq != row.seq:
                return False
            self.indexes.record_embedder(tx)
            commit = Commit(tx, scope_of(row), actor="user", batch=None, new_id=self.journal.new_id)
            kept = tx.triples_of(row.id) if changed.text == row.text else tuple(triples)
            commit.replace(row, changed, form, at=max(tx.now, row.created_at), triples=kept, by_hand=True)
        return True

    def delete(self, what: str | Scope) -> int:
        """End one memory by its id (with a turn, the facts that cite no other), or a scope's; returns how many."""
        if isinstance(what, Scope):
            paths = () if what.user_id is None else (what.partition,)
        else:
            paths = (self._existing(what).path,)
        with self.journal.write(*paths) as tx:
            if isinstance(what, Scope):
                where, params = scope_sql(what)
                rows = tx.memories(f"{where} AND i.closed IS NULL", params)
            else:
                row = tx.memory(what)
                if row is None:
                    raise missing(what)
                # A message takes along what was found in it alone; else what it said would still be recalled.
                rows = [row, *tx.memories(_FROM_ONE_TURN, (row.id, row.id))]
            for row in rows:
                commit = Commit(tx, scope_of(row), actor="user", batch=None, new_id=self.journal.new_id)
                commit.end(row, at=max(tx.now, row.created_at))
                if row.kind == "fact":
                    commit.settle_turns(row, HIDDEN)
        return len(rows)

    def forget(self, what: str | Scope) -> int:
        """Remove one memory or a scope's, and what stands behind them, from every file; returns how many versions."""
        with self.journal.write() as tx:
            if isinstance(what, Scope):
                where, params = scope_sql(what)
                rows = tx.memories(where, params)
                tx.erase_batches(list({batch_scope(what), *(batch_scope(scope_of(row)) for row in rows)}))
                rows = tx.with_relatives(rows)
            else:
                rows = tx.with_relatives(tx.memories("i.key = ?", (what,)))
                # A call that erased it but could not scrub is repeated like this.
                if not rows and tx.meta(SCRUB_DUE) is None:
                    raise missing(what)
            if rows:
                tx.erase_memories(rows)
        self._scrub()
        return len(rows)

    def reset(self) -> None:
        """Empty the whole folder, physically."""
        with self.journal.write() as tx:
            tx.erase_all()
        self._scrub()

    def _scrub(self) -> None:
        # First what is in memory: what it saves on the way out is among the files that go.
        for cache in (self.indexes, *self._derived):
            cache.close()
        self.journal.scrub()
        if self.indexes.outbox is not None:
            self.indexes.outbox.bring_soon()

    def _existing(self, key: str) -> Row:
        with self.journal.read() as reader:
            row = reader.memory(key)
        if row is None:
            raise missing(key)
        return row
