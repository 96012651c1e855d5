"""What callers do to memories by hand: update, delete, forget, reset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from langchain_memlayer.engine.commit import BY_HAND, Commit, Indexed
from langchain_memlayer.engine.forks import batch_of, fork_of, merge_fork
from langchain_memlayer.engine.index_sync import Indexes
from langchain_memlayer.engine.keep import PAUSE, turn_of
from langchain_memlayer.engine.profiles import redact
from langchain_memlayer.engine.records import batch_scope, missing
from langchain_memlayer.engine.results import add_result
from langchain_memlayer.engine.texts import form_of, searchable, stored_text, unembedded
from langchain_memlayer.errors import EmbeddingError, InvalidInput
from langchain_memlayer.facts.grounding import fact_hash, words
from langchain_memlayer.index.keywords import query_terms
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.database import SCRUB_DUE
from langchain_memlayer.journal.fork_notes import ForkNote, copied, end_fork, forks, forks_of, profiles_in
from langchain_memlayer.journal.positions import terms_of
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.messages import content_hash
from langchain_memlayer.protocols import NewId
from langchain_memlayer.recall import asking
from langchain_memlayer.result_types import ForgetResult, HeldBy, MergeResult
from langchain_memlayer.steps import Steps
from langchain_memlayer.types import HIDDEN, OWED, STATES_ONLY, Row, Scope, ToRead, Triple, to_micros

MOST_NAMED = 20
"""How many other memories of the same words `forget` names."""


class Editor:
    """Changes of one folder's memories that no conversation asked for.

    Args:
        reads: Whether somebody reads what was changed.
        derived: Closed before files are scrubbed, besides the slabs.
    """

    def __init__(self, journal: Journal, indexes: Indexes, *, reads: bool, derived: Sequence[Any] = ()) -> None:
        self.journal = journal
        self.indexes = indexes
        self.reads = reads
        self._derived = derived

    def update(
        self, key: str, text: str | None, metadata: Mapping[str, Any] | None, until: datetime | str | None
    ) -> Steps[None]:
        """Give a memory a new text, new metadata or another end (a text leaves it); the version before stays.

        No model is asked. The triples whose names the new text has stay; what else it says is noted to be read.

        Raises:
            MemoryNotFound: no live memory has this id.
            EmbeddingError: the embedder failed; nothing was changed.
        """
        while True:
            with self.journal.read() as reader:
                row = _existing(reader, key)
            if row.kind == "profile":
                raise InvalidInput("This memory is a profile: update_profile() sets its fields.")
            changed = replace(
                row, text=row.text if text is None else text, metadata={**row.metadata, **(metadata or {})}
            )
            if not isinstance(until, str):
                changed = replace(changed, invalid_at=None if until is None else to_micros(until))
            digest = content_hash if row.kind == "turn" else fact_hash
            changed = replace(
                changed, asks=asking(changed.text) if row.kind == "turn" else STATES_ONLY, hash=digest(changed.text),
                read=row.read and changed.text == row.text,
            )  # fmt: skip
            form = stored_text(changed.text, kind=row.kind, name=row.name, time=row.time)
            forms = yield from searchable(self.indexes, [form])
            if self._replace(row, changed, forms[form]):
                return

    def _replace(self, row: Row, changed: Row, form: Indexed) -> bool:
        """Commit the next version of a memory; False when another call has written to it since `row` was read."""
        with self.journal.write(row.path) as tx:
            current = _existing(tx, row.key)
            if current.seq != row.seq:
                return False
            self.indexes.record_embedder(tx)
            commit = _by_hand(tx, row, self.journal.new_id)
            rewritten = changed.text != row.text
            triples = tx.triples_of(row.id)
            kept = tuple(triple for triple in triples if _names_both(triple, changed.text)) if rewritten else triples
            if not rewritten:  # with the further words that a fact is found by
                form = replace(form, terms=terms_of(tx, [row.id]).get(row.id, form.terms))
            # What was written by hand says more than what was said: search would show that in its place.
            commit.replace(row, changed, form, at=max(tx.now, row.created_at), triples=kept, kept=not rewritten)
            if rewritten and self.reads and not row.given:
                self._note(tx, row)
            elif not rewritten:
                tx.relist_unread(row.id, commit.cause)
        return True

    def _note(self, tx: Writer, row: Row) -> None:
        """Note that a text which was written by hand is to be read: a message's facts anew, a fact's triples only."""
        now = tx.memory(row.key)
        if now is None:
            return
        if row.kind == "turn":
            tx.unlist_unread([row.id])
            tx.note_unread(row.scope, [now.id], detail=ToRead(edited=[now.id]), attempts=0, next_at=tx.now)
        else:
            tx.strike_written([row.key])
            tx.note_unread(row.scope, [], detail=ToRead(triples_of=row.key), attempts=0, next_at=tx.now)

    def delete(self, target: str | Scope) -> tuple[int, int]:
        """End one memory by its id (with a turn, the facts that cite no other that is left), or a scope's.

        Returns:
            How many, and the event that the others came along with, for `undo`.
        """
        paths: tuple[str, ...] = ()
        if isinstance(target, str):
            with self.journal.read() as reader:
                paths = (_existing(reader, target).path,)
        elif target.user_id is not None:
            paths = (target.partition,)
        with self.journal.write(*paths) as tx:
            if isinstance(target, Scope):
                rows = tx.memories_of(target)
                rows.sort(key=lambda row: row.kind == "profile")
                for note in tx.unread(target):
                    # What was only waiting to be read must not come back with the next turn of its conversation.
                    commit = Commit(tx, note.scope, actor=BY_HAND, batch=None, new_id=self.journal.new_id)
                    for turn in map(turn_of, note.detail.turns):
                        if turn.id is not None:
                            commit.note_turn(turn)
                tx.strike_unread_of(target)
            else:
                row = _existing(tx, target)
                # A message takes along what was found in it alone; else what it said would still be recalled.
                rows = [row, *(tx.facts_of([row.id]) if row.kind == "turn" else ())]
                tx.unlist_unread([row.id] if row.kind == "turn" else [])
                tx.strike_written([one.key for one in rows])
            first = 0
            for row in rows:
                commit, along = _by_hand(tx, row, self.journal.new_id), {"of": first} if first else None
                if row.kind == "fact":
                    commit.end_fact(row, HIDDEN, at=tx.now, detail=along)
                else:
                    commit.end(row, at=tx.now, detail=along)
                first = first or commit.cause
        return _count(rows), first

    # -- forget ---------------------------------------------------------------------------------------------------

    def forget(self, target: str | Scope, *, also: bool = False) -> Steps[ForgetResult]:
        """Remove one memory or a scope's, and what stands behind them, from every file.

        A message that other facts cite too stays for them, without the words that stood for the forgotten one.

        Args:
            target: An id, or a scope.
            also: Whether the other memories of the same scope that hold the same words go too.

        Raises:
            MemoryNotFound: there was never a memory with this id.
        """
        texts: list[str] = []
        if isinstance(target, str) and self.indexes.embedder is not None:
            with self.journal.read() as reader:
                rows = reader.with_relatives(reader.erasable(target))
                texts = [_searched_text(row, text) for row, text in _turns_that_stay(reader, rows) if text]
        forms = unembedded(texts)
        # A vector is owed rather than that a text stays.
        with suppress(EmbeddingError):
            forms = yield from searchable(self.indexes, texts)
        with self.journal.write() as tx:
            named: list[Row] = []
            if isinstance(target, Scope):
                scopes = (target, *(target.forked(one.token) for one in forks_of(tx, target)))
                count = sum(self._erase_scope(tx, scope) for scope in scopes)
                for fork in forks(tx, target):
                    self._end_fork(tx, fork)
            else:
                rows = _with_copies(tx, tx.erasable(target))
                # A call that erased it but could not scrub is repeated like this.
                if not rows and tx.meta(SCRUB_DUE) is None:
                    raise missing(target)
                echoes = self._end_facts(tx, rows)
                if also:
                    others = (row for row in _of_the_same_words(tx, rows) if row.kind != "profile")
                    rows = _with_copies(tx, [*rows, *others, *echoes])
                self._redact_turns(tx, _turns_that_stay(tx, rows), forms)
                gone = {row.key for row in rows}
                named = [*_of_the_same_words(tx, rows), *(row for row in echoes if row.key not in gone)]
                tx.erase_batches([batch_scope(row.scope) for row in rows], {row.key for row in rows})
                self._erase_rows(tx, rows)
                count = _count(rows)
        self._scrub()
        held: dict[str, HeldBy] = {row.key: {"id": row.key, "memory": row.text, "kind": row.kind} for row in named}
        return {"message": "Memories forgotten.", "count": count, "also": list(held.values())}

    def _end_facts(self, tx: Writer, rows: Sequence[Row]) -> list[Row]:
        """End the facts among some rows; gives what repeats them and is no longer shown for that, as after `delete`."""
        stays = [turn.id for turn, _ in _turns_that_stay(tx, rows)]
        echoes: list[Row] = []
        for fact in (row for row in rows if row.kind == "fact" and row.closed is None):
            commit = _by_hand(tx, fact, self.journal.new_id)
            commit.end_fact(fact, HIDDEN, at=tx.now, but=stays)
            echoes += commit.settled
        gone = {row.id for row in rows}
        return [row for row in echoes if row.id not in gone]

    def _erase_scope(self, tx: Writer, scope: Scope) -> int:
        rows = tx.erasable(scope)
        batches = tx.erase_batches(list({batch_scope(scope), *(batch_scope(row.scope) for row in rows)}))
        if tx.strike_unread_of(scope) + batches:
            tx.set_meta(SCRUB_DUE, "due")
        rows = tx.with_relatives(rows)
        self._erase_rows(tx, rows)
        return _count(rows)

    def _erase_rows(self, tx: Writer, rows: Sequence[Row]) -> None:
        if rows:
            redact(tx, rows)
            tx.unlist_unread([row.id for row in rows])
            tx.strike_written({row.key for row in rows})
            tx.erase_memories(rows)

    def merge(self, scope: Scope, name: str) -> MergeResult:
        """Carry over what changed in a fork, and remove the fork.

        Raises:
            InvalidInput: there is no such fork.
        """
        with self.journal.write() as tx:
            fork, outcome, conflicts = merge_fork(tx, scope, name, self.journal.new_id)
            self._end_fork(tx, fork)
        self._scrub()
        shown = add_result(outcome, facts=True)
        return {
            "results": shown["results"], "relations": shown["relations"], "conflicts": conflicts,
            "batch_id": batch_of(fork),
        }  # fmt: skip

    def drop(self, scope: Scope, name: str) -> int:
        """Remove a fork from every file; returns how many versions of memories it had.

        Raises:
            InvalidInput: there is no such fork.
        """
        with self.journal.write() as tx:
            count = self._end_fork(tx, fork_of(tx, scope, name))
        self._scrub()
        return count

    def _end_fork(self, tx: Writer, fork: ForkNote) -> int:
        count = self._erase_scope(tx, fork.ids)
        self._erase_rows(tx, profiles_in(tx, fork))
        end_fork(tx, fork)
        tx.set_meta(SCRUB_DUE, "due")
        return count

    def _redact_turns(self, tx: Writer, turns: Sequence[tuple[Row, str]], forms: Mapping[str, Indexed]) -> None:
        for row, text in turns:
            form = form_of(forms, _searched_text(row, text))
            tx.redact(row, text, content_hash(text), terms=form.terms if text else b"", vector_bytes=form.vector_bytes)
            if text and row.closed is None and form.vector_bytes is None and self.indexes.embedder is not None:
                tx.note_unread(row.scope, [row.id], detail=OWED, attempts=1, next_at=tx.now + PAUSE)

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
        if self.indexes.mirror is not None:
            self.indexes.mirror.bring_soon()


def _with_copies(reader: Reader, rows: Sequence[Row]) -> list[Row]:
    """Some memories with what goes when they are forgotten, in forks too."""
    rows = reader.with_relatives(rows)
    return reader.with_relatives([*rows, *copied(reader, rows)])


def _existing(reader: Reader, key: str) -> Row:
    row = reader.memory(key)
    if row is None:
        raise missing(key)
    return row


def _count(rows: Sequence[Row]) -> int:
    """How many of some rows are memories that lists and counts show: a profile is none."""
    return sum(row.kind != "profile" for row in rows)


def _by_hand(tx: Writer, row: Row, new_id: NewId) -> Commit:
    return Commit(tx, row.scope, actor=BY_HAND, batch=None, new_id=new_id)


def _names_both(triple: Triple, text: str) -> bool:
    """Whether a text still has both names of a triple."""
    said = f" {' '.join(words(text))} "
    return all(f" {' '.join(words(name))} " in said for name in (triple.source, triple.destination))


def _searched_text(row: Row, text: str) -> str:
    return stored_text(text, kind=row.kind, name=row.name, time=row.time)


def _turns_that_stay(reader: Reader, rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """The versions of turns that stay although forgotten facts cite them, each with the words that are left."""
    gone = {row.id for row in rows}
    cuts: dict[int, list[str]] = {}
    for fact in (row for row in rows if row.kind == "fact"):
        for cited, quote in reader.quotes_of(fact.id):
            if cited not in gone and quote:
                cuts.setdefault(cited, []).append(quote)
    kept: list[tuple[Row, str]] = []
    for turn in reader.memories_by_row(list(cuts)).values():
        versions = reader.versions_of(turn.key)
        for version in versions:
            text = version.text
            for quote in cuts[turn.id]:
                cut = _without(text, quote)
                if _is_of_another(quote, version, versions):
                    continue
                # Words that are not found as they were quoted: only those that other facts cite are sure to be others.
                if cut is None:
                    others = (one for fact, one in reader.quotes_from(version.id) if one and fact not in gone)
                    cut = " ".join(one for one in dict.fromkeys(others) if not _is_of_another(one, version, versions))
                text = cut
            kept.append((version, text))
    return kept


def _without(text: str, quote: str) -> str | None:
    """A text without the words of a quote, whatever stands between them; None when it does not have them."""
    said = re.findall(r"\w+", quote)
    if not said:
        return text
    rest, cuts = re.subn(r"\W+".join(map(re.escape, said)) + r"[.!?,;。！？，；]*\s*", "", text, flags=re.IGNORECASE)
    if not cuts:
        return None
    return rest.strip() if words(rest) else ""


def _is_of_another(quote: str, version: Row, versions: Sequence[Row]) -> bool:
    """Whether a quote is of what a turn said before or after an edit, and not of this version."""
    return _without(version.text, quote) is None and any(_without(one.text, quote) is not None for one in versions)


def _of_the_same_words(reader: Reader, rows: Sequence[Row]) -> list[Row]:
    """The live memories of the same scope that have all telling words of what is forgotten, or of its quotes."""
    keys = {row.key for row in rows}
    others: dict[str, Row] = {}
    for row in {row.key: row for row in sorted(rows, key=lambda row: row.until)}.values():
        said = [row.text, *(quote for _, quote in reader.quotes_of(row.id) if quote)] if row.kind == "fact" else []
        for text in said or [row.text]:
            terms = query_terms(text)
            if not terms:
                continue
            for other in reader.having_all(row.scope, terms):
                if other.key not in keys and set(terms) <= set(query_terms(other.text)):
                    others[other.key] = other
    return list(others.values())[:MOST_NAMED]
