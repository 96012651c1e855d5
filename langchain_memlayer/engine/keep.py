"""Keeping: turns are durable before any model is asked, with a note of what is still to be read.

```
turns ── which are new, or say something else now ──> one commit: turns + a note in `unread`
```
The note has the turns' rows or, when turns are not kept, their words. It is there until what was read is committed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from langchain_memlayer.engine.commit import BY_HAND, Commit, Committed, Indexed, Outcome
from langchain_memlayer.engine.index_sync import Indexes
from langchain_memlayer.engine.records import batch_scope
from langchain_memlayer.engine.texts import form_of, searchable, turn_text
from langchain_memlayer.errors import EmbeddingError
from langchain_memlayer.journal import Journal
from langchain_memlayer.messages import content_hash
from langchain_memlayer.steps import Steps
from langchain_memlayer.tracing import span
from langchain_memlayer.types import OWED, Row, Scope, ToRead, Turn, Unread

if TYPE_CHECKING:
    from langchain_memlayer.journal.reader import Reader
    from langchain_memlayer.journal.writer import Writer

_LOGGER = logging.getLogger(__name__)

LEASE = 300_000_000
"""How long (microseconds) a note that somebody reads is left to them; who died meanwhile is followed by others."""

PAUSE = 60_000_000
"""The pause after the first failure; each further one is four times as long."""

MOST_ATTEMPTS = 5
CONTEXT_TURNS = 10
"""How many earlier turns are shown with those that are read."""

LONGEST_WAIT = 10
"""How many times `after_seconds` the first turn of a conversation waits at most, however long it goes on."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeping leaves for reading.

    Attributes:
        turns: All that were given, in order.
        rows: The row of each, None where its words are not kept.
        note: The note of what is to be read of them, or None.
        outcome: What was done with the turns.
    """

    scope: Scope
    turns: tuple[Turn, ...]
    rows: tuple[Row | None, ...]
    note: int | None
    outcome: Outcome


@dataclass(slots=True)
class _News:
    """What a call told anew.

    In order: what was done, its rows, words that are not kept, rows whose facts are to be found anew, what was told
    before (rows, or plain turns), and rows that were told in equal words.
    """

    done: list[Committed] = field(default_factory=list)
    rows: dict[int, None] = field(default_factory=dict)
    words: list[Turn] = field(default_factory=list)
    edited: list[int] = field(default_factory=list)
    before: list[int | Mapping[str, Any]] = field(default_factory=list)
    merged: set[int] = field(default_factory=set)


class Keeper:
    """Keeps turns.

    Args:
        reads: Whether there is somebody to read them.
        keep_turns: Whether turns are memories too; of others only the words that are not read yet are kept.
    """

    def __init__(self, journal: Journal, indexes: Indexes, *, reads: bool, keep_turns: bool) -> None:
        self.journal = journal
        self.indexes = indexes
        self.reads = reads
        self.keep_turns = keep_turns

    def keep(
        self,
        turns: Sequence[Turn],
        scope: Scope,
        *,
        infer: bool = True,
        batch: str | None = None,
        at_once: bool = True,
        again: bool = True,
        after_seconds: float = 0.0,
    ) -> Steps[Kept]:
        """Commit turns, and the note that they are to be read.

        Args:
            turns: What was said.
            scope: Whose it is.
            infer: False stores the turns as given, never to be read.
            batch: What the call is called; one that was made already changes nothing.
            at_once: Whether the caller reads them now. Then the note is the caller's, and vectors are made by reading.
            again: Whether a call that has nothing new takes the note in which something of it is still unread.
            after_seconds: How long reading waits for further turns of the conversation.

        Raises:
            EmbeddingError: the embedder failed and nobody reads the turns at once: they are kept, and what they owe is
                tried again.
        """
        known = self._replayed(scope, turns, batch)
        if known is not None:
            return known
        if not turns and batch is None:
            return Kept(scope, (), (), None, Outcome())
        reads = infer and self.reads
        forms: Mapping[str, Indexed] = {}
        failure: EmbeddingError | None = None
        if not (reads and at_once) and (self.keep_turns or not infer):
            try:
                forms = yield from searchable(self.indexes, list(map(turn_text, self._unstored(turns, scope))))
            except EmbeddingError as error:
                failure = error
        due = None if reads and at_once else round(after_seconds * 1_000_000)
        with span("keep", scope=scope, inputs=lambda: {"turns": list(turns)}) as report:
            kept = self._commit(turns, scope, forms, batch, infer=infer, again=again, due=due, failure=failure)
            report({"outcome": kept.outcome})
        if failure is not None and not reads:
            raise EmbeddingError(
                f"{failure} The messages are kept, and found by their words; their vectors are made when it answers."
            ) from failure
        return kept

    def _unstored(self, turns: Sequence[Turn], scope: Scope) -> list[Turn]:
        """The turns whose words are not stored yet."""
        if all(turn.id is None for turn in turns):
            return list(turns)
        with self.journal.read() as reader:
            found = _stored_states(reader, scope, turns)
        return [turn for turn, (row, changed) in zip(turns, found, strict=True) if row is None or changed]

    def _replayed(self, scope: Scope, turns: Sequence[Turn], batch: str | None) -> Kept | None:
        if batch is None:
            return None
        with self.journal.read() as reader:
            return self._reported(reader, scope, turns, batch)

    def _reported(self, reader: Reader, scope: Scope, turns: Sequence[Turn], batch: str) -> Kept | None:
        """What the call of a batch id reported, and its note while it was not read."""
        stored = reader.batch(batch_scope(scope), batch)
        if stored is None:
            return None
        note = None if stored["note"] is None else reader.unread_note(stored["note"])
        return Kept(scope, tuple(turns), (), None if note is None else note.id, Outcome.of(stored))

    def _commit(
        self,
        turns: Sequence[Turn],
        scope: Scope,
        forms: Mapping[str, Indexed],
        batch: str | None,
        *,
        infer: bool,
        again: bool,
        due: int | None,
        failure: EmbeddingError | None,
    ) -> Kept:
        with self.journal.write(scope.partition) as tx:
            known = None if batch is None else self._reported(tx, scope, turns, batch)
            if known is not None:
                return known
            if any(form.vector_bytes for form in forms.values()):
                self.indexes.record_embedder(tx)
            commit = Commit(tx, scope, actor="user", batch=batch, new_id=self.journal.new_id)
            rows, news = self._store(commit, turns, forms, exact=not infer)
            note = None
            if infer and (self.reads or news.words):
                note = self._note_unread(tx, scope, news, rows, batch, due=due)
                if note is None and again:
                    note = self._take_note(tx, scope, turns, rows, due=due)
            elif failure is not None and news.rows:
                note = tx.note_unread(
                    scope, list(news.rows), detail=OWED, attempts=1, next_at=tx.now + PAUSE,
                    reason=type(failure).__name__,
                )  # fmt: skip
            outcome = Outcome(tuple(news.done))
            if batch is not None:
                tx.record_batch(batch_scope(scope), batch, {"note": note, **outcome.plain()})
        return Kept(scope, tuple(turns), tuple(rows), note, outcome)

    def _store(
        self, commit: Commit, turns: Sequence[Turn], forms: Mapping[str, Indexed], *, exact: bool
    ) -> tuple[list[Row | None], _News]:
        """Store what is new of the turns and what their messages say otherwise now."""
        news, rows = _News(), list[Row | None]()
        waiting_messages: set[Any] = set()
        if not self.keep_turns and not exact:
            notes = commit.tx.unread(commit.scope, about={turn.text for turn in turns})
            waiting_messages = {one for note in notes if note.scope == commit.scope for one in _messages_in(note)}
        in_this_call: dict[tuple[str | None, str], Row | None] = {}
        stored = _stored_states(commit.tx, commit.scope, turns)
        if self.keep_turns and not exact:
            commit.expect([turn for turn, (row, _) in zip(turns, stored, strict=True) if row is None])
        for turn, (known, changed) in zip(turns, stored, strict=True):
            row = known
            if turn.id is not None and (turn.id, turn.text) in in_this_call:
                row = in_this_call[turn.id, turn.text]
            elif row is not None and not changed:
                news.before.append(row.id if self.keep_turns else plain_turn(turn))
            elif self.keep_turns or exact:
                row = _store_turn(commit, turn, known, form_of(forms, turn_text(turn)), news, exact=exact)
            elif _message_of(turn) not in waiting_messages:
                news.words.append(turn)
                news.edited += [] if row is None else [row.id]
                row = None
            in_this_call[turn.id, turn.text] = row
            rows.append(row)
        return rows, news

    def _note_unread(
        self, tx: Writer, scope: Scope, news: _News, rows: Sequence[Row | None], batch: str | None, *, due: int | None
    ) -> int | None:
        """Note what is to be read: what was told anew."""
        attempts, next_at = (1, tx.now + LEASE) if due is None else (0, tx.now + due)
        if news.merged:
            # What says the same as a turn that is still to be read is read with it.
            notes = tx.unread(scope, about=news.merged)
            waiting = {row for note in notes if not note.detail.owed for row in note.turns}
            news.rows = dict.fromkeys(row for row in news.rows if row not in news.merged or row not in waiting)
        if not news.rows and not news.words:
            return None
        session = next((row.session_id for row in rows if row), None) if news.rows else news.words[0].session_id
        turns: list[Mapping[str, Any]] = [plain_turn(turn) | ({"batch": batch} if batch else {}) for turn in news.words]
        before, edited, batches = news.before[-CONTEXT_TURNS:], news.edited, [] if batch is None else [batch]
        listed, recorded_at = list(news.rows), tx.now
        messages = {turn.id for turn in news.words if turn.id is not None}
        for note in tx.unread(scope, about=None if due else messages):
            is_own = note.scope == scope and note.detail.triples_of is None
            may_wait = due and note.attempts == 0 and note.detail.session == session
            words = [plain for plain in note.detail.turns if not _says_otherwise(plain, news.words)]
            # Words that a message has no longer are read by nobody, not even by who is at it: the note goes.
            stale = len(words) < len(note.detail.turns)
            if not (is_own and (may_wait or stale)):
                continue
            if due and may_wait:
                # One reading serves both; a conversation that never pauses is read all the same.
                next_at, recorded_at = min(next_at, note.recorded_at + LONGEST_WAIT * due), note.recorded_at
            turns, listed, batches = [*words, *turns], [*note.turns, *listed], [*note.detail.batches, *batches]
            before, edited = [*note.detail.before, *before], [*note.detail.edited, *edited]
            tx.strike_unread(note.id)
        before = [row for row in before if row not in listed]
        return tx.note_unread(
            scope, list(dict.fromkeys(listed)), attempts=attempts, next_at=next_at, recorded_at=recorded_at,
            detail=ToRead(session=session, turns=turns, before=before, edited=edited, batches=batches),
        )  # fmt: skip

    def _take_note(
        self, tx: Writer, scope: Scope, turns: Sequence[Turn], rows: Sequence[Row | None], *, due: int | None
    ) -> int | None:
        """The note in which turns that were told before are still unread; the caller's when it reads them now."""
        note = note_about(tx, scope, turns, rows)
        if note is not None and due is None:
            tx.change_unread(note.id, attempts=note.attempts + 1, next_at=tx.now + LEASE, set_aside=None, reason=None)
        return None if note is None else note.id

    # -- notes ----------------------------------------------------------------------------------------------------

    def claim(self, note: Unread, *, retry: bool = False) -> bool:
        """Take a note to read it; False when another has, or it is gone, or (but for a `retry`) it is not due."""
        with self.journal.write(note.scope.partition) as tx:
            now = tx.unread_note(note.id)
            if now is None or (now.attempts, now.next_at) != (note.attempts, note.next_at):
                return False
            attempts = 1 if retry and now.set_aside is not None else now.attempts + 1
            return tx.change_unread(note.id, attempts=attempts, next_at=tx.now + LEASE, set_aside=None, reason=None)

    def postpone(self, note: Unread, error: BaseException) -> None:
        """Note that reading failed: it is tried again after a pause, and set aside after the last attempt."""
        with self.journal.write(note.scope.partition) as tx:
            now = tx.unread_note(note.id)
            if now is None:
                return
            cause = error.__cause__
            reason = type(error).__name__ + ("" if cause is None else f" ({type(cause).__name__})")
            tx.change_unread(
                note.id,
                next_at=tx.now + PAUSE * 4 ** (min(max(now.attempts, 1), MOST_ATTEMPTS) - 1),
                reason=reason,
                set_aside=tx.now if now.attempts >= MOST_ATTEMPTS else None,
            )


def _store_turn(commit: Commit, turn: Turn, known: Row | None, form: Indexed, news: _News, *, exact: bool) -> Row:
    """Store a turn, or give the live one of its message the words that it has now; `news` takes note of it."""
    if known is not None and known.closed is None:
        commit.tx.unlist_unread([known.id])
        row, event = commit.edit_turn(known, turn, form), "UPDATE"
        news.edited.append(row.id)
    else:
        news.edited += [] if known is None else [known.id]
        row, new = commit.add_turn(turn, form, exact=exact)
        event = "ADD" if new else "NONE"
    news.rows[row.id] = None
    news.merged.update([row.id] if event == "NONE" else [])
    news.done.append(Committed(row.key, event, row.text, known.text if event == "UPDATE" and known else None))
    return row


def _stored_states(reader: Reader, scope: Scope, turns: Sequence[Turn]) -> list[tuple[Row | None, bool]]:
    """What is stored of each turn's message, and whether it says something else now.

    A message is known by its id in its scope and session. Of several messages of one id in a call each is its own;
    several of other ids that say the same may be one turn.
    """
    states: list[tuple[Row | None, bool]] = []
    taken: dict[str, Turn] = {}
    said: dict[str, dict[str, str]] = {}
    for turn in turns:
        if turn.id is not None:
            said.setdefault(turn.id, {})[turn.text] = content_hash(turn.text)
    stored = reader.turns_of_messages(scope, {(turn.session_id, turn.id) for turn in turns if turn.id is not None})
    for turn in turns:
        known: tuple[Row | None, bool] = None, False
        if turn.id is not None:
            rows = stored[turn.session_id, turn.id]
            free = [row for row in rows if row.key not in taken or _merges(taken[row.key], turn)]
            known = _stored_as(reader, free, turn, said[turn.id])
        if known[0] is not None:
            taken[known[0].key] = turn
        states.append(known)
    return states


def _merges(one: Turn, other: Turn) -> bool:
    return one.id != other.id and one.text == other.text


def _stored_as(reader: Reader, rows: Sequence[Row], turn: Turn, said: Mapping[str, str]) -> tuple[Row | None, bool]:
    """Which row a turn is, of those of its message, and whether it says something else; `said` are digests by text."""
    digest = said[turn.text]
    live = [row for row in rows if row.closed is None]
    for row in live:
        if row.hash == digest:
            return row, False
    if live:
        # One that was merged with an equal message has its words from that one, and is a turn of its own from now on.
        others = set(said.values()) - {digest}
        with_own_words = [row for row in live if row.message_id == turn.id and row.hash not in others]
        memory = with_own_words[-1] if with_own_words else live[-1]
        repeated, events = any(row.hash == digest for row in rows if row.key == memory.key), reader.history(memory.key)
        # What was corrected by hand stays so while the message says what it said.
        if repeated and (not with_own_words or (events and events[-1].actor == BY_HAND)):
            return memory, False
        return (memory, True) if with_own_words else (None, False)
    for row in rows:
        if row.hash == digest:
            return row, False
    noted = [row for row in rows if row.closed == row.id]
    return (noted[-1], True) if noted else (None, False)


def note_about(reader: Reader, scope: Scope, turns: Sequence[Turn], rows: Sequence[Row | None]) -> Unread | None:
    """The first note of exactly a scope in which some turns (with their rows, None without one) are unread."""
    ids = {row.id for row in rows if row is not None}
    said = {_message_of(turn) for turn, row in zip(turns, rows, strict=True) if row is None}
    for note in reader.unread(scope, about=ids | {text for _, _, text in said}):
        if note.scope == scope and not (ids.isdisjoint(note.turns) and said.isdisjoint(_messages_in(note))):
            return note
    return None


def _messages_in(note: Unread) -> set[tuple[str | None, str | None, str]]:
    """The messages whose words wait in a note to be read."""
    return {(turn.get("id"), turn.get("session_id"), turn["text"]) for turn in note.detail.turns}


def strike_words(tx: Writer, scope: Scope, batch: str) -> bool:
    """Take the words of a call that are not kept off the notes in which they wait to be read; False without any."""
    struck = False
    for note in tx.unread(scope, about={batch}):
        left = [plain for plain in note.detail.turns if plain.get("batch") != batch]
        if note.scope != scope or len(left) == len(note.detail.turns):
            continue
        # Not even who is at it reads them: the note goes, and what others said is noted anew.
        struck = tx.strike_unread(note.id)
        if left or note.turns:
            gone = {(plain.get("id"), plain.get("session_id")) for plain in note.detail.turns if plain not in left}
            rows = tx.memories_by_row(note.detail.edited).values()
            edited = [row.id for row in rows if (row.message_id, row.session_id) not in gone]
            batches = [one for one in note.detail.batches if one != batch]
            detail = replace(note.detail, turns=left, edited=edited, batches=batches)
            next_at = tx.now if note.attempts else note.next_at
            tx.note_unread(scope, note.turns, detail=detail, attempts=0, next_at=next_at, recorded_at=note.recorded_at)
    return struck


def _says_otherwise(plain: Mapping[str, Any], turns: Sequence[Turn]) -> bool:
    """Whether the message of a turn that waits to be read says something else now."""
    message = plain.get("id"), plain.get("session_id")
    now = [turn.text for turn in turns if turn.id is not None and (turn.id, turn.session_id) == message]
    return bool(now) and plain["text"] not in now


def _message_of(turn: Turn) -> tuple[str | None, str | None, str]:
    return turn.id, turn.session_id, turn.text


def plain_turn(turn: Turn) -> dict[str, Any]:
    """A turn as JSON values."""
    values: dict[str, Any] = {
        "text": turn.text, "role": turn.role, "id": turn.id, "name": turn.name, "session_id": turn.session_id,
        "time": None if turn.time is None else turn.time.isoformat(), "metadata": dict(turn.metadata),
        "quarantined": turn.quarantined,
        "valid_until": None if turn.valid_until is None else turn.valid_until.isoformat(),
    }  # fmt: skip
    return {name: value for name, value in values.items() if value}


def turn_of(plain: Mapping[str, Any]) -> Turn:
    """The turn that was made plain, of whichever call it is."""
    times = {name: datetime.fromisoformat(plain[name]) for name in ("time", "valid_until") if plain.get(name)}
    return Turn(**{name: value for name, value in {**plain, **times}.items() if name != "batch"})
