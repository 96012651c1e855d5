"""Reading: the order of steps from kept turns to committed facts, the same in the caller's thread and beside it.

```
note ── its turns ── extraction ── one embedding batch ── reconciliation ── commit, and the note is taken away
```
Whatever fails on the way, the turns stay as they were kept and get their vectors, and the note says when they are tried
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from langchain_memlayer.engine.candidates import Finder
from langchain_memlayer.engine.commit import Change, Commit, Committed, Indexed, Outcome
from langchain_memlayer.engine.index_sync import Indexes
from langchain_memlayer.engine.keep import CONTEXT_TURNS, Keeper, Kept, note_about, turn_of
from langchain_memlayer.engine.profiles import Profiles
from langchain_memlayer.engine.records import batch_scope, to_turn
from langchain_memlayer.engine.texts import fact_text, searchable, stored_text, turn_text, with_words
from langchain_memlayer.errors import EmbeddingError, ExtractionError, InvalidInput, JournalError, MemLayerError
from langchain_memlayer.facts.reconciliation import all_added
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.messages import checked_text, mended_text
from langchain_memlayer.protocols import Extractor, Reconciler
from langchain_memlayer.steps import Steps, T, awaited, request
from langchain_memlayer.tracing import span, traced
from langchain_memlayer.types import RETRACT, Decision, Extraction, Fact, Rejection, Row, Scope, ToRead, Triple, Turn

if TYPE_CHECKING:
    from langsmith.run_trees import RunTree

    from langchain_memlayer.types import Unread

LOST_RACES: Final = 2
PAGE_TURNS: Final = 40
"""How many turns that were added before there was a model are read at a time."""

FAILURES: Final = 3
"""After so many notes in a row that failed, the others are left for later: the model is down."""

AGENT: Final = "agent"

ReadProgress = Callable[[int, int], None]
"""Told how many notes were tried, and how many there are."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Turns and what was found in them, to be reconciled with what is known.

    Attributes:
        rows: Where the turns are stored; those without a row are stored, or only noted as seen, with their facts.
        note: The note that this is the reading of, or None.
        owed: Those of the rows that have no vectors yet.
        kept: What was done with the turns when they were kept.
        actor: Who states the facts, when no extractor found them. What an agent states is a turn to be cited and not to
            be found: the fact says the same.
    """

    scope: Scope
    turns: tuple[Turn, ...]
    facts: tuple[Fact, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    rows: tuple[Row | None, ...] = ()
    note: Unread | None = None
    owed: frozenset[int] = frozenset()
    kept: tuple[Committed, ...] = ()
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class Readings:
    """What the readings of several notes did together, and the notes that are still unread."""

    outcome: Outcome
    failed: tuple[Unread, ...]


class Engine(Keeper):
    """The write path of one folder's memories.

    Args:
        extractor: Finds facts, or None: turns only.
        reconciler: Decides what facts mean for what is known; None adds them all.
        profiles: Follow the facts; None where nobody has a profile.
    """

    def __init__(
        self,
        journal: Journal,
        indexes: Indexes,
        finder: Finder,
        *,
        extractor: Extractor | None = None,
        reconciler: Reconciler | None = None,
        keep_turns: bool = True,
        profiles: Profiles | None = None,
    ) -> None:
        super().__init__(journal, indexes, reads=extractor is not None, keep_turns=keep_turns)
        self.finder = finder
        self.extractor = extractor
        self.reconciler = reconciler
        self.profiles = profiles

    def add(self, turns: Sequence[Turn], scope: Scope, *, infer: bool, batch: str | None) -> Steps[Outcome]:
        """Keep turns and read them.

        Raises:
            ExtractionError: the model failed; the turns are kept, and are read later or when they are added again.
            EmbeddingError: the embedder did.
        """
        kept = yield from self.keep(turns, scope, infer=infer, batch=batch)
        if kept.note is None or not self.reads:
            return kept.outcome
        outcome = yield from self.read(kept.note)
        return replace(outcome, turns=kept.outcome.turns)

    def read(self, number: int) -> Steps[Outcome]:
        """Read a note that the caller has claimed; nothing when it is gone.

        Raises:
            MemLayerError: it failed; the note says when it is tried again.
        """
        note = self._unread(number)
        if note is None:
            return Outcome()
        with self._postponing(note):
            if about := note.detail.triples_of:
                return (yield from self._read_edited(note, about))
            prepared = yield from self._extract_facts(self._prepare(note))
            return (yield from self._decide_and_commit(prepared, batch=None))

    def read_in_background(self, note: Unread, above: RunTree | None) -> Steps[Outcome]:
        """Like `read`, as a run that belongs to the one that kept the turns."""
        return traced(
            "background",
            self.read(note.id),
            above=above,
            scope=note.scope,
            inputs=lambda: {"note": note.id},
            outputs=lambda outcome: {"outcome": outcome},
        )

    def read_all(self, scope: Scope, *, retry: bool = False, progress: ReadProgress | None = None) -> Steps[Readings]:
        """Read what is due of a scope, and what was added before there was a model.

        With `retry` also what waits for its pause, is being read, or was set aside.
        """
        self._note_what_no_model_saw(scope)
        with self.journal.read() as reader:
            now = self.journal.now()
            notes = [
                note for note in reader.unread(scope)
                if retry or (note.set_aside is None and (note.next_at <= now or not note.attempts))
            ]  # fmt: skip
        done: list[Outcome] = []
        failed: list[Unread] = []
        in_a_row = 0
        for place, note in enumerate(notes, 1):
            if in_a_row == FAILURES:
                failed.append(note)
            elif self.claim(note, retry=retry):
                try:
                    done.append((yield from self.read(note.id)))
                    in_a_row = 0
                except MemLayerError:
                    failed.append(note)
                    in_a_row += 1
                    if not done and in_a_row == min(FAILURES, len(notes)):
                        raise
            if progress is not None:
                progress(place, len(notes))
        yield from self._update_profiles(scope)
        return Readings(Outcome.together(done), tuple(failed))

    def extract(self, turns: Sequence[Turn], scope: Scope) -> Steps[Prepared]:
        """Keep turns, and find the facts of those that were not read before.

        Raises:
            MemLayerError: it failed; the turns are kept, and are read later or when they are added again.
        """
        if not self.reads:
            return Prepared(scope, ())
        kept = yield from self.keep(turns, scope)
        note = None if kept.note is None else self._unread(kept.note)
        if note is None:
            return Prepared(scope, ())
        prepared = self._prepare(note)
        # What was told before in the same words is cited by the message that tells it now.
        ids = {row.id: turn.id for turn, row in zip(kept.turns, kept.rows, strict=True) if row is not None}
        turns = [
            turn if row is None else replace(turn, id=ids.get(row.id, turn.id))
            for turn, row in zip(prepared.turns, prepared.rows, strict=True)
        ]
        with self._postponing(note):
            return (yield from self._extract_facts(replace(prepared, turns=tuple(turns))))

    def stated(self, kept: Kept, facts: Sequence[Fact], rejected: Sequence[Rejection]) -> Prepared:
        """Kept turns and the facts that somebody else found in them, with the note of those that these cite.

        What was kept just now and no fact cites is left to be read: nobody has looked for facts in it.
        """
        cited = sorted({place for fact in facts for place in fact.turns})
        with self.journal.read() as reader:
            note = note_about(
                reader, kept.scope, [kept.turns[place] for place in cited], [kept.rows[place] for place in cited]
            )
            owed = self._owed(reader, kept.rows)
        if kept.note is not None and (note is None or note.id != kept.note):
            with self.journal.write(kept.scope.partition) as tx:
                tx.change_unread(kept.note, attempts=0, next_at=tx.now)
        return Prepared(
            kept.scope, kept.turns, tuple(facts), tuple(rejected), rows=kept.rows, note=note, owed=owed,
            kept=kept.outcome.turns,
        )  # fmt: skip

    def reconcile(self, prepared: Prepared, *, batch: str | None) -> Steps[Outcome]:
        """Decide what facts mean for what is known, and commit them.

        Raises:
            MemLayerError: it failed; nothing was committed.
        """
        known = self._replayed(prepared.scope, prepared.turns, batch)
        if known is not None:
            return known.outcome
        with nullcontext() if prepared.note is None else self._postponing(prepared.note):
            return (yield from self._decide_and_commit(prepared, batch=batch))

    @contextmanager
    def _postponing(self, note: Unread) -> Iterator[None]:
        """Note that a reading failed, and when it is tried again; what is not ours is an `ExtractionError`."""
        try:
            yield
        except Exception as error:
            with suppress(JournalError):
                self.postpone(note, error)
            if isinstance(error, MemLayerError):
                raise
            raise ExtractionError(
                f"Reading failed ({type(error).__name__}). The messages are kept; they are read later, or when they "
                "are added again."
            ) from error

    # -- what is read ---------------------------------------------------------------------------------------------

    def _unread(self, number: int) -> Unread | None:
        with self.journal.read() as reader:
            return reader.unread_note(number)

    def _prepare(self, note: Unread) -> Prepared:
        """The turns of a note that are still there, not yet read."""
        with self.journal.read() as reader:
            words = [turn_of(plain) for plain in note.detail.turns]
            by_row = reader.turns_of_notes([note])
            rows = [by_row[turn] for turn in note.turns if turn in by_row and by_row[turn].closed is None]
            owed = self._owed(reader, rows)
        turns = (*map(to_turn, rows), *words)
        return Prepared(note.scope, turns, rows=(*rows, *[None] * len(words)), note=note, owed=owed)

    def _owed(self, reader: Reader, rows: Sequence[Row | None]) -> frozenset[int]:
        """Those of some rows that have no vectors and are to have some."""
        live = [row.id for row in rows if row is not None and row.closed is None]
        return frozenset(() if self.indexes.embedder is None else reader.without_vectors(live))

    def _extract_facts(self, prepared: Prepared) -> Steps[Prepared]:
        """What an extractor finds in the turns, as a run of its own."""
        extractor, note = self.extractor, prepared.note
        if extractor is None or not prepared.turns or note is None or note.detail.owed:
            return prepared
        turns, context = prepared.turns, self._context(prepared, note)
        extraction = yield from traced(
            "extraction",
            self._embed_turns_on_failure(prepared, _call_extractor(extractor, turns, context)),
            scope=prepared.scope,
            inputs=lambda: {"turns": turns},
            outputs=lambda extraction: {"facts": extraction.facts, "rejected": extraction.rejected},
        )
        # In order of time, since each may change the ones before it.
        facts = sorted(extraction.facts, key=lambda fact: fact.turns[:1])
        return replace(prepared, facts=tuple(facts), rejected=extraction.rejected)

    def _embed_turns_on_failure(self, prepared: Prepared, steps: Steps[T]) -> Steps[T]:
        """What a chat model says of turns; while it fails they are found themselves, by what they mean too."""
        try:
            return (yield from steps)
        except Exception:
            with suppress(EmbeddingError, JournalError):
                yield from self._embed_turns(prepared)
            raise

    def _embed_turns(self, prepared: Prepared) -> Steps[None]:
        """Give the turns the vectors that they owe."""
        stored = {
            row.id: turn for turn, row in self._turns_and_rows(prepared) if row is not None and row.id in prepared.owed
        }
        if not stored:
            return
        forms = yield from searchable(self.indexes, [turn_text(turn) for turn in stored.values()])
        with self.journal.write(prepared.scope.partition) as tx:
            self.indexes.record_embedder(tx)
            rows = tx.memories_by_row(list(stored))
            for number in self._owed(tx, list(rows.values())):
                row, turn = rows[number], stored[number]
                if row.text == turn.text:
                    tx.read_turn(row, forms[turn_text(turn)].vector_bytes, read=row.read)

    def _context(self, prepared: Prepared, note: Unread) -> list[Turn]:
        """What is known and near to the turns, then those that come before them."""
        with self.journal.read() as reader:
            told_before = note.detail.before
            rows = reader.memories_in_order([one for one in told_before if isinstance(one, int)])
            rows = [row for row in rows if row.scope == note.scope]
            last = max((row for row in prepared.rows if row is not None), key=lambda row: row.place or 0, default=None)
            if not told_before and last is not None:
                most = CONTEXT_TURNS + len(prepared.rows)
                rows = reader.session_tail(prepared.scope, last.session_id, before=last.place or last.id, most=most)
                rows = [row for row in rows if row.id not in note.turns]
        earlier = [*map(to_turn, rows), *(turn_of(one) for one in told_before if not isinstance(one, int))]
        return [*self.finder.known_turns(prepared.scope, prepared.turns), *earlier[-CONTEXT_TURNS:]]

    def _note_what_no_model_saw(self, scope: Scope) -> None:
        """Note the turns that were added before there was a model, a page of one conversation at a time."""
        with self.journal.read() as reader:
            noted = {row for note in reader.unread(scope) for row in note.turns}
            live = sorted(reader.memories_of(scope), key=lambda row: row.place or row.id)
        rows = [row for row in live if row.kind == "turn" and not (row.read or row.given or row.id in noted)]
        pages: dict[tuple[str, Scope, str | None, int], list[int]] = {}
        sizes: dict[tuple[str, Scope, str | None], int] = {}
        for row in rows:
            owner = row.path, row.scope, row.session_id
            size = sizes[owner] = sizes.get(owner, 0) + 1
            pages.setdefault((*owner, (size - 1) // PAGE_TURNS), []).append(row.id)
        if pages:
            with self.journal.write() as tx:
                for (_, owner_scope, _, _), page in pages.items():
                    tx.note_unread(owner_scope, page, attempts=0, next_at=tx.now)

    # -- what it means --------------------------------------------------------------------------------------------

    def _decide_and_commit(self, prepared: Prepared, *, batch: str | None) -> Steps[Outcome]:
        turns, facts = prepared.turns, prepared.facts
        if batch is None and prepared.note is None and not turns and not facts and not prepared.rejected:
            return Outcome()
        texts = [
            *(turn_text(turn) for turn, row in self._turns_and_rows(prepared) if self._stores_form(prepared, row)),
            *(fact_text(fact, turns) for fact in facts),
        ]
        forms = yield from searchable(self.indexes, texts)
        for attempt in range(LOST_RACES + 1):
            position = self.journal.last_seq()
            decisions = yield from self._decide(prepared, forms)
            rewritten = [
                fact_text(facts[d.fact], turns, d.text) for d in decisions if d.fact is not None and _rewrites(d)
            ]
            new_forms = yield from searchable(self.indexes, [text for text in rewritten if text not in forms])
            forms = {**forms, **new_forms}
            since = None if attempt == LOST_RACES else position
            with span("commit", scope=prepared.scope, inputs=partial(dict, decisions=decisions)) as report:
                outcome = self._commit_decisions(prepared, decisions, forms, batch, since)
                report({"outcome": outcome})
            if outcome is not None:
                yield from self._update_profiles(prepared.scope)
                return outcome
        raise AssertionError("the last attempt always commits")

    def _update_profiles(self, scope: Scope) -> Steps[None]:
        if self.profiles is not None:
            yield from self.profiles.follow(scope)

    def _turns_and_rows(self, prepared: Prepared) -> list[tuple[Turn, Row | None]]:
        return list(zip(prepared.turns, prepared.rows or (None,) * len(prepared.turns), strict=True))

    def _stores_form(self, prepared: Prepared, row: Row | None) -> bool:
        """Whether the searchable form of a turn is written together with its facts."""
        if row is not None:
            return row.id in prepared.owed
        return prepared.note is None and prepared.actor != AGENT and self.keep_turns

    def _decide(self, prepared: Prepared, forms: Mapping[str, Indexed]) -> Steps[Sequence[Decision]]:
        """Decisions on the facts, as a run of its own when there are some."""
        if not prepared.facts:
            return ()
        return (
            yield from traced(
                "reconciliation",
                self._embed_turns_on_failure(prepared, self._ask_reconciler(prepared, forms)),
                scope=prepared.scope,
                inputs=lambda: {"facts": prepared.facts},
                outputs=lambda decisions: {"decisions": decisions},
            )
        )

    def _ask_reconciler(self, prepared: Prepared, forms: Mapping[str, Indexed]) -> Steps[Sequence[Decision]]:
        """Decisions on the facts; the reconciler is asked once, and only when there is something to compare."""
        reconciler = self.reconciler
        if reconciler is None:
            return all_added(prepared.facts)
        facts = [replace(fact, said_at=fact.said_at or self._said_at(prepared, fact)) for fact in prepared.facts]
        fact_forms = [forms[fact_text(fact, prepared.turns)] for fact in facts]
        candidates = self.finder.find(prepared.scope, facts, fact_forms)
        if not candidates and len(facts) == 1:
            return all_added(facts)
        return (
            yield from request(
                lambda: reconciler.reconcile(facts, candidates), lambda: reconciler.areconcile(facts, candidates)
            )
        )

    def _said_at(self, prepared: Prepared, fact: Fact) -> datetime:
        """When a fact was said: at the time of its first turn, or now."""
        turn = prepared.turns[fact.turns[0]] if fact.turns else None
        return (turn.time if turn else None) or self.journal.clock()

    # -- the commit -----------------------------------------------------------------------------------------------

    def _commit_decisions(
        self,
        prepared: Prepared,
        decisions: Sequence[Decision],
        forms: Mapping[str, Indexed],
        batch: str | None,
        since: int | None,
    ) -> Outcome | None:
        """Write everything in one transaction; None when another writer changed this scope's facts after `since`."""
        scope, note = prepared.scope, prepared.note
        with self.journal.write(scope.partition) as tx:
            replayed = None if batch is None else self._reported(tx, scope, prepared.turns, batch)
            if replayed is not None:
                return replayed.outcome
            note_now = None if note is None else tx.unread_note(note.id)
            if note is not None and note_now is None:
                # Another process has read it meanwhile, or it was forgotten.
                return Outcome()
            if prepared.facts and since is not None and tx.facts_changed(scope.partition, since):
                return None
            if any(form.vector_bytes for form in forms.values()):
                self.indexes.record_embedder(tx)
            detail = ToRead() if note is None else note.detail
            own_batch = batch or next(iter(detail.batches), None)
            actor = prepared.actor or ("extractor" if prepared.facts else "user")
            commit = Commit(tx, scope, actor=actor, batch=own_batch, new_id=self.journal.new_id)
            are_several = len(detail.batches) > 1
            batches = _batches_of(tx, prepared.rows, detail) if are_several else [own_batch] * len(prepared.turns)
            rows, done, stale = self._store_turns(commit, prepared, forms, batches)
            shares = self._apply_decisions(commit, prepared, decisions, forms, rows, batches)
            if note_now is not None:
                commit.end_unsaid(note_now.detail.edited)
                tx.strike_unread(note_now.id)
                if stale:
                    # Their words were changed while they were read.
                    tx.note_unread(scope, stale, detail=ToRead(edited=stale), attempts=0, next_at=tx.now)
            outcome = commit.outcome([*prepared.kept, *done])
            if batch is not None:
                tx.record_batch(batch_scope(scope), batch, {"note": None, **outcome.plain()})
            for earlier in detail.batches:
                reported = tx.batch(batch_scope(scope), earlier)
                if reported is not None:
                    share = Outcome.together(shares.get(earlier, ())) if are_several else outcome
                    turns = {"turns": reported["turns"], "note": None}
                    tx.record_batch(batch_scope(scope), earlier, {**share.plain(), **turns})
        return outcome

    def _store_turns(
        self, commit: Commit, prepared: Prepared, forms: Mapping[str, Indexed], batches: Sequence[str | None]
    ) -> tuple[list[Row | None], list[Committed], list[int]]:
        """The rows of the turns as they are now, None where they are gone; what was stored; what was changed."""
        tx, own_batch = commit.tx, commit.batch
        was_extracted = not (prepared.note and prepared.note.detail.owed)
        rows_now = tx.memories_by_row([row.id for row in prepared.rows if row is not None])
        cited = {place for fact in prepared.facts for place in fact.turns}
        rows: list[Row | None] = []
        done: list[Committed] = []
        stale: list[int] = []
        for place, (turn, stored) in enumerate(self._turns_and_rows(prepared)):
            row = None if stored is None else rows_now.get(stored.id)
            if stored is not None:
                if row is not None and row.closed not in (None, row.id):
                    # A later version whose metadata were changed says what was read.
                    later = tx.memory(row.key)
                    row = later if later is not None and later.text == stored.text else None
                if row is not None and row.text != stored.text:
                    stale += [row.id] if row.closed is None else []
                    row = None
                elif row is not None and prepared.note is not None and stored.id in prepared.note.turns:
                    vector_bytes = forms[turn_text(turn)].vector_bytes if row.id in prepared.owed else None
                    tx.read_turn(row, vector_bytes, read=row.read or was_extracted)
            elif self._stores_form(prepared, None):
                row, new = commit.add_turn(turn, forms[turn_text(turn)], exact=False)
                tx.read_turn(row, None, read=True)
                done.append(Committed(row.key, "ADD" if new else "NONE", row.text))
            elif turn.id is not None or place in cited:
                commit.batch = batches[place] or own_batch
                row = commit.note_turn(turn, words=prepared.actor == AGENT)
            rows.append(row)
        commit.batch = own_batch
        return rows, done, stale

    def _apply_decisions(
        self,
        commit: Commit,
        prepared: Prepared,
        decisions: Sequence[Decision],
        forms: Mapping[str, Indexed],
        rows: Sequence[Row | None],
        batches: Sequence[str | None],
    ) -> dict[str | None, list[Outcome]]:
        """Carry out the decisions, each as of the call that told it (`batches`, by turn); gives what is of each."""
        own_batch, shares = commit.batch, dict[str | None, list[Outcome]]()
        for refusal in prepared.rejected:
            commit.reject(refusal)
        shares[own_batch] = [commit.outcome()]
        prompt = getattr(self.extractor, "version", None) if prepared.actor is None else None
        versions = {"prompt": prompt, "by": getattr(self.reconciler, "version", None)}
        requests: list[Row] = []
        corrected: list[Row] = []
        for decision in decisions:
            if decision.fact is None:
                commit.reject(Rejection(decision.text or "", decision.reason or "refused"))
                continue
            fact = prepared.facts[decision.fact]
            cited_places = [place for place in fact.turns if rows[place] is not None]
            cited = [row for row in (rows[place] for place in cited_places) if row is not None]
            if fact.turns and not cited:
                # Its turns were forgotten, deleted or changed while they were read.
                continue
            old_text = fact_text(fact, prepared.turns)
            new_text = fact_text(fact, prepared.turns, decision.text) if _rewrites(decision) else old_text
            form, new_form = (with_words(forms[text], text, fact.words) for text in (old_text, new_text))
            commit.batch, mark = (batches[cited_places[0]] if cited_places else None) or own_batch, commit.mark()
            commit.apply(Change(fact, decision, form, new_form, versions), cited)
            shares.setdefault(commit.batch, []).append(commit.outcome(since=mark))
            requests += cited if fact.metadata.get(RETRACT) else ()
            corrected += [row for row in (rows[k] for k in fact.corrects if k < len(rows)) if row is not None]
        commit.batch = own_batch
        # Only now it is known what else the same turns say.
        commit.hide_requests(requests)
        commit.correct(corrected)
        return shares

    def _read_edited(self, note: Unread, key: str) -> Steps[Outcome]:
        """Find the triples and further words of a text that was written by hand; no fact comes of it."""
        with self.journal.read() as reader:
            row = reader.memory(key)
        extractor = self.extractor
        if row is not None and extractor is not None:
            turn = replace(to_turn(row), text=row.text)
            extraction = yield from _call_extractor(extractor, [turn], [])
            triples = dict.fromkeys(triple for fact in extraction.facts for triple in fact.triples)
            words = tuple(dict.fromkeys(word for fact in extraction.facts for word in fact.words))
        with self.journal.write(note.scope.partition) as tx:
            row_now = tx.memory(key)
            if (
                tx.strike_unread(note.id)
                and row is not None
                and extractor
                and row_now is not None
                and row_now.text == row.text
            ):
                known_triples = tx.triples_of(row_now.id)
                new_triples = [triple for triple in triples if triple not in known_triples]
                text = stored_text(row_now.text, kind=row_now.kind, name=row_now.name, time=row_now.time)
                terms = with_words(Indexed(b"", None), text, words).terms
                tx.relate(row_now, new_triples, terms or None)
                return Outcome(added=tuple(new_triples))
        return Outcome()


def _batches_of(tx: Writer, rows: Sequence[Row | None], detail: ToRead) -> list[str | None]:
    """Which of several calls told each turn last."""
    histories = [[] if row is None else tx.history(row.key) for row in rows]
    told = [next((one.batch for one in reversed(events) if one.batch in detail.batches), None) for events in histories]
    return [*told[: len(told) - len(detail.turns)], *(plain.get("batch") for plain in detail.turns)]


def _call_extractor(extractor: Extractor, turns: Sequence[Turn], context: Sequence[Turn]) -> Steps[Extraction]:
    """What an extractor finds; one that has no awaited twin is called in a thread."""
    twin = getattr(extractor, "aextract", None) or awaited(extractor.extract)
    extraction = yield from request(lambda: extractor.extract(turns, context), lambda: twin(turns, context))
    if not isinstance(extraction, Extraction):
        raise ExtractionError(
            f"{type(extractor).__name__} gave a {type(extraction).__name__} in place of an Extraction. The messages "
            "are kept; they are read when it gives one."
        )
    if not all(map(_is_fact, extraction.facts)):
        raise ExtractionError(
            f"{type(extractor).__name__} gave what is no Fact: its text is a string, its triples are Triples, its "
            "times datetimes. The messages are kept; they are read when it gives such."
        )
    return _without_flawed(extraction, len(turns))


def _is_fact(given: object) -> bool:
    if not isinstance(given, Fact) or not isinstance(given.text, str):
        return False
    times = all(isinstance(time, datetime | None) for time in (given.valid_at, given.valid_until))
    return times and all(isinstance(triple, Triple) for triple in given.triples)


def _without_flawed(extraction: Extraction, turns: int) -> Extraction:
    """What an extractor found, without what no turn supports that it was given, or what cannot be kept."""
    kept, rejected = [], [*extraction.rejected]
    for fact in extraction.facts:
        if (flaw := _flaw(fact, turns)) is None:
            kept.append(fact)
        else:
            quote = None if fact.quote is None else mended_text(fact.quote)
            rejected.append(Rejection(mended_text(fact.text), flaw, quote))
    return Extraction(tuple(kept), tuple(rejected))


def _flaw(fact: Fact, turns: int) -> str | None:
    if not fact.turns or not all(0 <= place < turns for place in fact.turns):
        return "it cites a turn that was not given" if fact.turns else "it cites no turn"
    if not fact.text.strip():
        return "it says nothing"
    try:
        for text in (
            fact.text,
            fact.quote or "",
            *fact.words,
            *(name for triple in fact.triples for name in astuple(triple)),
        ):
            checked_text(text, "it")
    except InvalidInput:
        return "it has what is no text, or too much of it"
    return None


def _rewrites(decision: Decision) -> bool:
    return decision.action == "UPDATE" and bool(decision.text)
