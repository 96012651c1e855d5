"""The order of steps: what `add` does between messages and commit."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from langchain_memlayer.engine.candidates import Finder
from langchain_memlayer.engine.commit import Change, Commit, Committed, Indexed, Outcome, seen_turn
from langchain_memlayer.engine.indexes import Indexes
from langchain_memlayer.engine.scopes import batch_scope, scope_of, to_turn
from langchain_memlayer.engine.steps import Request, Steps, request
from langchain_memlayer.engine.texts import fact_text, searchable, turn_text
from langchain_memlayer.facts.reconciliation import all_added
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.write import Writer
from langchain_memlayer.protocols import Extractor, Reconciler
from langchain_memlayer.tracing import parent, span, traced
from langchain_memlayer.types import RETRACT, Decision, Extraction, Fact, Rejection, Row, Scope, Triple, Turn

LOST_RACES = 2
CONTEXT_TURNS = 10
AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Prepared:
    """What extraction leaves for reconciliation.

    Attributes:
        scope: Whose turns.
        turns: Those that are new, in order.
        facts: What was found in them.
        rejected: What was refused.
        exact: The turns are stored as given.
        pending: The row of the journal's `pending` that this is the work of; its turns are stored already.
        actor: Who states the facts, when no extractor found them. What an agent states is a turn to be cited and not to
            be found: the fact says the same.
    """

    scope: Scope
    turns: tuple[Turn, ...]
    facts: tuple[Fact, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    exact: bool = False
    pending: int | None = None
    actor: str | None = None


class Engine:
    """The write path of one folder's memories.

    Args:
        journal: The truth.
        indexes: The slabs of its memories.
        finder: Finds what facts may change.
        extractor: Finds facts, or None: turns only.
        reconciler: Decides what facts mean for what is known; None adds them all.
        keep_turns: Whether turns are memories too; of others it is only noted that they were seen.
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
    ) -> None:
        self.journal = journal
        self.indexes = indexes
        self.finder = finder
        self.extractor = extractor
        self.reconciler = reconciler
        self.keep_turns = keep_turns
        self._runs: dict[int, Any] = {}

    # -- add ------------------------------------------------------------------------------------------------------

    def add(self, turns: Sequence[Turn], scope: Scope, *, infer: bool, batch: str | None) -> Steps:
        """Turns to memories, in one commit; returns an `Outcome`."""
        known = self._replayed(scope, batch)
        if known is not None:
            return known
        prepared = yield from self.extract(turns, scope, infer=infer)
        return (yield from self.reconcile(prepared, batch=batch))

    def defer(self, turns: Sequence[Turn], scope: Scope, *, batch: str | None) -> Steps:
        """Store turns, and note that their facts are still to be found; returns an `Outcome`."""
        known = self._replayed(scope, batch)
        if known is not None:
            return known
        with self.journal.read() as reader:
            fresh = [turn for turn in turns if turn.id is None or seen_turn(reader, scope, turn) is None]
        forms = yield from searchable(self.indexes, list(map(turn_text, fresh)))
        return self._commit(Prepared(scope, tuple(fresh)), (), forms, batch, since=None, defer=True)

    def finish(self, pending: int) -> Steps:
        """Find the facts of turns that were deferred, and commit; returns an `Outcome`."""
        with self.journal.read() as reader:
            rows = reader.unread_turns(pending)
            context = []
            if rows:
                before = rows[0].place or rows[0].id
                context = self._context(reader, scope_of(rows[0]), [], [to_turn(rows[0])], before=before)
        if not rows or self.extractor is None:
            with self.journal.write() as tx:
                tx.strike_unread(pending)
            return Outcome()
        turns = [replace(to_turn(row), id=row.message_id or row.key) for row in rows]
        return (
            yield from traced(
                "background",
                self._finish(self.extractor, scope_of(rows[0]), turns, context, pending),
                above=self._runs.pop(pending, None),
                scope=scope_of(rows[0]),
                inputs=lambda: {"turns": turns},
                outputs=lambda outcome: {"outcome": outcome},
            )
        )

    def _finish(
        self, extractor: Extractor, scope: Scope, turns: Sequence[Turn], context: Sequence[Turn], pending: int
    ) -> Steps:
        found = yield from _extraction(extractor, scope, turns, context)
        prepared = Prepared(scope, tuple(turns), found.facts, found.rejected, pending=pending)
        return (yield from self.reconcile(prepared, batch=None))

    def extract(self, turns: Sequence[Turn], scope: Scope, *, infer: bool = True) -> Steps:
        """The turns that were not seen before and the facts in them; returns a `Prepared`."""
        with self.journal.read() as reader:
            fresh = [turn for turn in turns if turn.id is None or seen_turn(reader, scope, turn) is None]
            context = self._context(reader, scope, turns, fresh) if self.extractor and infer and fresh else []
        found = Extraction()
        if self.extractor is not None and infer and fresh:
            found = yield from _extraction(self.extractor, scope, fresh, context)
        return Prepared(scope, tuple(fresh), found.facts, found.rejected, exact=not infer)

    def _context(
        self, reader: Reader, scope: Scope, turns: Sequence[Turn], fresh: Sequence[Turn], *, before: int = sys.maxsize
    ) -> list[Turn]:
        """Earlier turns: those of this call that were seen before, else the last ones of the session."""
        seen = [turn for turn in turns if not any(turn is other for other in fresh)]
        if seen:
            return seen[-CONTEXT_TURNS:]
        rows = reader.memories(
            "n.path = ? AND i.kind = 'turn' AND i.closed IS NULL AND i.session_id IS ? AND i.user_id IS ? AND "
            "i.agent_id IS ? AND i.run_id IS ? AND coalesce(i.state, 0) = 0 AND i.place < ?",
            (scope.partition, fresh[0].session_id, scope.user_id, scope.agent_id, scope.run_id, before),
            tail=f"ORDER BY i.place DESC LIMIT {CONTEXT_TURNS}",
        )
        return [to_turn(row) for row in reversed(rows)]

    def reconcile(self, prepared: Prepared, *, batch: str | None) -> Steps:
        """Decide what the facts mean for what is known, and commit; returns an `Outcome`."""
        known = self._replayed(prepared.scope, batch)
        if known is not None:
            return known
        turns, facts = prepared.turns, prepared.facts
        if batch is None and not turns and not facts and not prepared.rejected:
            return Outcome()
        texts = [*(map(turn_text, turns) if self._keeps(prepared) else ()), *(fact_text(fact, turns) for fact in facts)]
        forms = yield from searchable(self.indexes, texts)
        for attempt in range(LOST_RACES + 1):
            position = self.journal.last_seq()
            decisions = yield from self._reconciliation(prepared, forms)
            rewritten = [fact_text(facts[d.fact], turns, d.text) for d in decisions if _rewrites(d)]
            more = yield from searchable(self.indexes, [text for text in rewritten if text not in forms])
            forms = {**forms, **more}
            outcome = self._commit(prepared, decisions, forms, batch, since=None if attempt == LOST_RACES else position)
            if outcome is not None:
                return outcome
        raise AssertionError("the last attempt always commits")

    def _reconciliation(self, prepared: Prepared, forms: Mapping[str, Indexed]) -> Steps:
        """Decisions on the facts, as a run of its own when there are some."""
        if not prepared.facts:
            return self._decide(prepared, forms)
        return traced(
            "reconciliation",
            self._decide(prepared, forms),
            scope=prepared.scope,
            inputs=lambda: {"facts": prepared.facts},
            outputs=lambda decisions: {"decisions": decisions},
        )

    def _decide(self, prepared: Prepared, forms: Mapping[str, Indexed]) -> Steps:
        """Decisions on the facts; the reconciler is asked once, and only when something is near."""
        reconciler = self.reconciler
        if reconciler is None or not prepared.facts:
            return all_added(prepared.facts)
        facts = [replace(fact, said_at=fact.said_at or self._said_at(prepared, fact)) for fact in prepared.facts]
        own = [forms[fact_text(fact, prepared.turns)] for fact in facts]
        candidates = self.finder.find(prepared.scope, facts, own)
        if not candidates:
            return all_added(facts)
        return (
            yield Request(
                lambda: reconciler.reconcile(facts, candidates), lambda: reconciler.areconcile(facts, candidates)
            )
        )

    def _said_at(self, prepared: Prepared, fact: Fact) -> datetime:
        """When a fact was said: at the time of its first turn, or now."""
        turn = prepared.turns[fact.turns[0]] if fact.turns else None
        return (turn.time if turn else None) or self.journal.clock()

    # -- commit ---------------------------------------------------------------------------------------------------

    def _commit(
        self,
        prepared: Prepared,
        decisions: Sequence[Decision],
        forms: Mapping[str, Indexed],
        batch: str | None,
        *,
        since: int | None,
        defer: bool = False,
    ) -> Outcome | None:
        """Write everything in one transaction; None when another writer changed this scope's facts after `since`."""
        above = parent() if defer else None
        with span("commit", scope=prepared.scope, inputs=lambda: {"decisions": decisions}) as report:
            outcome = self._write(prepared, decisions, forms, batch, since=since, defer=defer, above=above)
            report({"outcome": outcome})
        return outcome

    def _write(
        self,
        prepared: Prepared,
        decisions: Sequence[Decision],
        forms: Mapping[str, Indexed],
        batch: str | None,
        *,
        since: int | None,
        defer: bool,
        above: Any,
    ) -> Outcome | None:
        scope = prepared.scope
        with self.journal.write(scope.partition) as tx:
            if batch is not None:
                stored = tx.batch(batch_scope(scope), batch)
                if stored is not None:
                    return _outcome_of(tx, stored)
            if prepared.facts and since is not None and tx.facts_changed(scope.partition, since):
                return None
            if any(form.codes for form in forms.values()):
                self.indexes.record_embedder(tx)
            actor = prepared.actor or ("extractor" if prepared.facts else "user")
            commit = Commit(tx, scope, actor=actor, batch=batch, new_id=self.journal.new_id)
            rows, turns = self._keep(commit, tx, prepared, forms)
            if prepared.pending is not None and not tx.strike_unread(prepared.pending):
                # Another process has done it meanwhile.
                return Outcome()
            if defer:
                stored = [row.id for row in rows if row is not None]
                pending = tx.note_unread(scope, stored) if stored else None
                if pending is not None and above is not None:
                    self._runs[pending] = above
            outcome = self._apply(commit, prepared, decisions, forms, rows, turns)
            if batch is not None:
                done = [(c.id, c.event, kind) for kind in ("turns", "facts") for c in getattr(outcome, kind)]
                tx.record_batch(batch_scope(scope), batch, done)
        return outcome

    def _keep(
        self, commit: Commit, tx: Writer, prepared: Prepared, forms: Mapping[str, Indexed]
    ) -> tuple[list[Row | None], list[Committed]]:
        """The rows of the turns, stored where they are not yet, and what was stored."""
        if prepared.pending is not None:
            found = {row.message_id or row.key: row for row in tx.unread_turns(prepared.pending)}
            return [found.get(turn.id or "") for turn in prepared.turns], []
        turns: list[Committed] = []
        rows: list[Row | None] = []
        cited = {place for fact in prepared.facts for place in fact.turns}
        for place, turn in enumerate(prepared.turns):
            row = commit.seen(turn)
            if row is None and self._keeps(prepared):
                row, new = commit.add_turn(turn, forms[turn_text(turn)], exact=prepared.exact)
                turns.append(Committed(row.key, "ADD" if new else "NONE", row.text))
            elif row is None and (turn.id is not None or place in cited):
                row = commit.note_turn(turn, words=prepared.actor == AGENT)
            rows.append(row)
        return rows, turns

    def _keeps(self, prepared: Prepared) -> bool:
        """Whether the turns become memories; what is given as it is to be stored always does."""
        return prepared.pending is None and prepared.actor != AGENT and (self.keep_turns or prepared.exact)

    def _apply(
        self,
        commit: Commit,
        prepared: Prepared,
        decisions: Sequence[Decision],
        forms: Mapping[str, Indexed],
        rows: Sequence[Row | None],
        turns: Sequence[Committed],
    ) -> Outcome:
        facts: list[Committed] = []
        rejected: list[Rejection] = list(prepared.rejected)
        added: list[Triple] = []
        removed: list[Triple] = []
        requests: list[Row] = []
        for refusal in prepared.rejected:
            commit.reject(refusal, [])
        prompt = getattr(self.extractor, "version", None) if prepared.actor is None else None
        versions = {"prompt": prompt, "by": getattr(self.reconciler, "version", None)}
        for decision in decisions:
            if decision.fact is None:
                refusal = Rejection(decision.text or "", decision.reason or "refused")
                commit.reject(refusal, [])
                rejected.append(refusal)
                continue
            fact = prepared.facts[decision.fact]
            cited = [row for row in (rows[k] for k in fact.turns) if row is not None]
            own = forms[fact_text(fact, prepared.turns)]
            new = forms[fact_text(fact, prepared.turns, decision.text)] if _rewrites(decision) else own
            done, ended = commit.apply(Change(fact, decision, own, new, versions), cited)
            removed += ended
            if isinstance(done, Committed):
                facts.append(done)
                added += fact.triples if done.event in ("ADD", "UPDATE") else ()
                if fact.metadata.get(RETRACT):
                    requests += cited
            else:
                rejected.append(done)
        # Only now it is known what else the same turns say.
        commit.hide_requests(requests)
        return Outcome(tuple(turns), tuple(facts), tuple(rejected), tuple(added), tuple(removed))

    def _replayed(self, scope: Scope, batch: str | None) -> Outcome | None:
        if batch is None:
            return None
        with self.journal.read() as reader:
            stored = reader.batch(batch_scope(scope), batch)
            return None if stored is None else _outcome_of(reader, stored)


def _extraction(extractor: Extractor, scope: Scope, turns: Sequence[Turn], context: Sequence[Turn]) -> Steps:
    """What an extractor finds in turns, as a run of its own; returns an `Extraction`."""
    return traced(
        "extraction",
        request(lambda: extractor.extract(turns, context), lambda: extractor.aextract(turns, context)),
        scope=scope,
        inputs=lambda: {"turns": turns},
        outputs=lambda found: {"facts": found.facts, "rejected": found.rejected},
    )


def _rewrites(decision: Decision) -> bool:
    return decision.action == "UPDATE" and bool(decision.text)


def _outcome_of(reader: Reader, stored: Sequence[Any]) -> Outcome:
    """What a batch id reported the first time; the texts are today's, so a forgotten one does not come back."""
    done: dict[str, list[Committed]] = {"turns": [], "facts": []}
    for key, event, kind in stored:
        row = reader.memory(key)
        if row is not None or event == "DELETE":
            done[kind].append(Committed(key, event, row.text if row else ""))
    return Outcome(tuple(done["turns"]), tuple(done["facts"]))
