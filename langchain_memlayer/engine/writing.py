"""The order of steps: what `add` does between messages and commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from langchain_memlayer.engine.commit import (
    Change,
    Commit,
    Committed,
    Indexed,
    Outcome,
    is_question,
    seen_turn,
)
from langchain_memlayer.engine.indexes import Indexes, encode_vectors
from langchain_memlayer.engine.steps import Request, Steps
from langchain_memlayer.errors import MemoryNotFound
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.journal.write import SCRUB_DUE
from langchain_memlayer.keywords import term_codes, tokenize
from langchain_memlayer.messages import content_hash
from langchain_memlayer.protocols import Extractor, Reconciler
from langchain_memlayer.recall import PROBES, memory_text, spread_of
from langchain_memlayer.types import (
    HIDDEN,
    Candidate,
    Decision,
    Extraction,
    Fact,
    Rejection,
    Row,
    Scope,
    Triple,
    Turn,
    from_micros,
    to_micros,
)

NEAREST = 5
NEAR = 0.4
LOST_RACES = 2
CONTEXT_TURNS = 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """What extraction leaves for reconciliation: turns in order, which of them are new, and the facts found in them."""

    scope: Scope
    turns: tuple[Turn, ...]
    facts: tuple[Fact, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    exact: bool = False


class Engine:
    """The write path of one folder's memories.

    Args:
        journal: The truth.
        indexes: The slabs of its memories.
        extractor: Finds facts, or None: turns only.
        reconciler: Decides what facts mean for what is known; None adds them all.
        keep_turns: Whether turns are memories too.
    """

    def __init__(
        self,
        journal: SQLiteJournal,
        indexes: Indexes,
        *,
        extractor: Extractor | None = None,
        reconciler: Reconciler | None = None,
        keep_turns: bool = True,
    ) -> None:
        self.journal = journal
        self.indexes = indexes
        self.extractor = extractor
        self.reconciler = reconciler
        self.keep_turns = keep_turns

    # -- add ------------------------------------------------------------------------------------------------------

    def add(self, turns: Sequence[Turn], scope: Scope, *, infer: bool, batch: str | None) -> Steps:
        """Turns to memories, in one commit; returns an `Outcome`."""
        known = self._replayed(scope, batch)
        if known is not None:
            return known
        prepared = yield from self.extract(turns, scope, infer=infer)
        return (yield from self.reconcile(prepared, batch=batch))

    def extract(self, turns: Sequence[Turn], scope: Scope, *, infer: bool = True) -> Steps:
        """The turns that were not seen before and the facts in them; returns a `Prepared`."""
        with self.journal.read() as reader:
            fresh = [turn for turn in turns if turn.id is None or seen_turn(reader, scope, turn) is None]
            context = self._context(reader, scope, turns, fresh) if self.extractor and infer and fresh else []
        found = Extraction()
        if self.extractor is not None and infer and fresh:
            extractor = self.extractor
            found = yield Request(lambda: extractor.extract(fresh, context), lambda: extractor.aextract(fresh, context))
        return Prepared(scope, tuple(fresh), found.facts, found.rejected, exact=not infer)

    def _context(self, reader: Any, scope: Scope, turns: Sequence[Turn], fresh: Sequence[Turn]) -> list[Turn]:
        """Earlier turns: those of this call that were seen before, else the last ones of the session."""
        seen = [turn for turn in turns if not any(turn is other for other in fresh)]
        if seen:
            return seen[-CONTEXT_TURNS:]
        rows = reader.memories(
            "n.path = ? AND i.kind = 'turn' AND i.closed IS NULL AND i.session_id IS ? AND i.user_id IS ? AND "
            "i.agent_id IS ? AND i.run_id IS ? AND coalesce(i.state, 0) = 0",
            (scope.partition, fresh[0].session_id, scope.user_id, scope.agent_id, scope.run_id),
            tail=f"ORDER BY i.id DESC LIMIT {CONTEXT_TURNS}",
        )
        return [to_turn(row) for row in reversed(rows)]

    def reconcile(self, prepared: Prepared, *, batch: str | None) -> Steps:
        """Decide what the facts mean for what is known, and commit; returns an `Outcome`."""
        facts = prepared.facts
        if batch is None and not prepared.turns and not facts and not prepared.rejected:
            return Outcome()
        forms = yield from self._searchable(
            [*map(self._turn_text, prepared.turns), *(self._fact_text(prepared, f) for f in facts)]
        )
        for attempt in range(LOST_RACES + 1):
            position = self.journal.last_seq()
            decisions = yield from self._decide(prepared, forms)
            rewritten = [d.text for d in decisions if d.action == "UPDATE" and d.text]
            more = yield from self._searchable([text for text in rewritten if text not in forms])
            forms = {**forms, **more}
            outcome = self._commit(prepared, decisions, forms, batch, since=None if attempt == LOST_RACES else position)
            if outcome is not None:
                return outcome
        raise AssertionError("the last attempt always commits")

    def _turn_text(self, turn: Turn) -> str:
        return memory_text(turn.text, name=turn.name, time=turn.time)

    def _fact_text(self, prepared: Prepared, fact: Fact) -> str:
        turn = prepared.turns[fact.turns[0]] if fact.turns else None
        return memory_text(fact.text, name=None, time=turn.time if turn else None)

    def _searchable(self, texts: Sequence[str]) -> Steps:
        """The searchable forms of texts by text, with one embedding call for those that are distinct."""
        distinct = list(dict.fromkeys(texts))
        embedder = self.indexes.embedder
        codes: Sequence[bytes | None] = [None] * len(distinct)
        if embedder is not None and distinct:
            # A new embedder shows once, beside the first texts, how far its cosines spread.
            asked = [*distinct, *(PROBES if self.indexes.unmeasured else ())]
            vectors = yield Request(lambda: embedder.embed(asked), lambda: embedder.aembed(asked))
            if len(asked) > len(distinct):
                self.indexes.measured_spread = spread_of(vectors[len(distinct) :])
            codes = [encode_vectors(vectors[k : k + 1], self.indexes.metric) for k in range(len(distinct))]
        return {text: Indexed(tokenize(text), code) for text, code in zip(distinct, codes, strict=True)}

    # -- decisions ------------------------------------------------------------------------------------------------

    def _decide(self, prepared: Prepared, forms: Mapping[str, Indexed]) -> Steps:
        """One decision for each fact; the reconciler is asked once, and only about facts that something is near to."""
        facts, reconciler = prepared.facts, self.reconciler
        if not facts:
            return []
        candidates = self._candidates(prepared, forms)
        if reconciler is None or not candidates:
            return [Decision("ADD", k) for k in range(len(facts))]
        return (
            yield Request(
                lambda: reconciler.reconcile(facts, candidates), lambda: reconciler.areconcile(facts, candidates)
            )
        )

    def _candidates(self, prepared: Prepared, forms: Mapping[str, Indexed]) -> list[Candidate]:
        """The facts' nearest live facts of exactly this scope: by vector, by keywords, by entity and relation."""
        scope = prepared.scope
        view = self.indexes.view(scope.partition)
        mask = view.live & (view.columns["kind"] == 0) & (view.columns["state"] != HIDDEN)
        for name in ("user_id", "agent_id", "run_id"):
            mask &= view.columns[name] == self.indexes.codes.find(getattr(scope, name))
        if not mask.any():
            return []
        near: dict[int, None] = {}
        places = np.flatnonzero(mask)
        for fact in prepared.facts:
            form = forms[self._fact_text(prepared, fact)]
            if form.codes is not None:
                scores = view.scores(np.frombuffer(form.codes, "<f2").astype(np.float32), places)
                best = np.argsort(-scores)[:NEAREST]
                near.update((int(view.ids[places[k]]), None) for k in best if scores[k] >= NEAR)
            own = set(np.frombuffer(term_codes(form.tokens), "<u4").tolist())
            terms = view.columns["terms"]
            shared = [
                (len(own.intersection(np.frombuffer(terms[p], "<u4").tolist())), int(view.ids[p])) for p in places
            ]
            near.update((i, None) for n, i in sorted(shared, reverse=True)[:NEAREST] if n >= max(2, len(own) / 2))
        with self.journal.read() as reader:
            near.update((item, None) for item in self._by_entity(reader, scope, prepared.facts))
            rows = reader.memories_by_row(list(near))
        return [
            Candidate(row.key, row.text, from_micros(row.created_at))
            for row in (rows[item] for item in near if item in rows)
            if row.closed is None
        ]

    def _by_entity(self, reader: Any, scope: Scope, facts: Sequence[Fact]) -> list[int]:
        """Live facts that state the same relation of the same entity as one of `facts`."""
        wanted = {(t.source.casefold(), t.relation.casefold()) for fact in facts for t in fact.triples}
        if not wanted:
            return []
        rows = reader.triples(scope.partition)
        items = [row[0] for row in rows if (row[2].casefold(), row[3].casefold()) in wanted]
        found = reader.memories_by_row(list(dict.fromkeys(items)))
        return [i for i, row in found.items() if (row.user_id, row.agent_id, row.run_id) == tuple(_ids(scope))]

    # -- commit ---------------------------------------------------------------------------------------------------

    def _commit(
        self,
        prepared: Prepared,
        decisions: Sequence[Decision],
        forms: Mapping[str, Indexed],
        batch: str | None,
        *,
        since: int | None,
    ) -> Outcome | None:
        """Write everything in one transaction; None when another writer changed this scope's facts after `since`."""
        scope = prepared.scope
        with self.journal.write() as tx:
            if batch is not None:
                stored = tx.batch(_batch_scope(scope), batch)
                if stored is not None:
                    return self._outcome_of(tx, stored)
            if prepared.facts and since is not None and tx.facts_changed(scope.partition, since):
                return None
            if any(form.codes for form in forms.values()):
                self.indexes.record_embedder(tx)
            commit = Commit(
                tx, scope, actor="extractor" if prepared.facts else "user", batch=batch, new_id=self.journal.new_id
            )
            outcome = self._apply(commit, prepared, decisions, forms)
            if batch is not None:
                done = [(c.id, c.event, kind) for kind in ("turns", "facts") for c in getattr(outcome, kind)]
                tx.record_batch(_batch_scope(scope), batch, done)
        return outcome

    def _apply(
        self, commit: Commit, prepared: Prepared, decisions: Sequence[Decision], forms: Mapping[str, Indexed]
    ) -> Outcome:
        turns: list[Committed] = []
        rows: list[Row | None] = []
        facts: list[Committed] = []
        rejected: list[Rejection] = list(prepared.rejected)
        added: list[Triple] = []
        removed: list[Triple] = []
        for turn in prepared.turns:
            row = commit.seen(turn)
            if row is None and self.keep_turns:
                row, new = commit.add_turn(turn, forms[self._turn_text(turn)], exact=prepared.exact)
                turns.append(Committed(row.key, "ADD" if new else "NONE", row.text))
            rows.append(row)
        for refusal in prepared.rejected:
            commit.reject(refusal, [])
        for decision in decisions:
            fact = prepared.facts[decision.fact]
            cited = [row for row in (rows[k] for k in fact.turns) if row is not None]
            text = decision.text if decision.action == "UPDATE" and decision.text else self._fact_text(prepared, fact)
            done, ended = commit.apply(Change(fact, decision, forms[text]), cited)
            removed += ended
            if isinstance(done, Committed):
                facts.append(done)
                added += fact.triples if done.event in ("ADD", "UPDATE") else ()
            else:
                rejected.append(done)
        return Outcome(tuple(turns), tuple(facts), tuple(rejected), tuple(added), tuple(removed))

    def _replayed(self, scope: Scope, batch: str | None) -> Outcome | None:
        if batch is None:
            return None
        with self.journal.read() as reader:
            stored = reader.batch(_batch_scope(scope), batch)
            return None if stored is None else self._outcome_of(reader, stored)

    def _outcome_of(self, reader: Any, stored: Sequence[Any]) -> Outcome:
        """What a batch id reported the first time; the texts are today's, so a forgotten one does not come back."""
        done: dict[str, list[Committed]] = {"turns": [], "facts": []}
        for key, event, kind in stored:
            row = reader.memory(key)
            if row is not None or event == "DELETE":
                done[kind].append(Committed(key, event, row.text if row else ""))
        return Outcome(tuple(done["turns"]), tuple(done["facts"]))

    # -- single memories ------------------------------------------------------------------------------------------

    def update(
        self, key: str, text: str | None, metadata: Mapping[str, Any] | None, triples: Sequence[Triple] = ()
    ) -> Steps:
        """Give a memory a new text, new metadata or both; the version before stays in its history."""
        while True:
            row = self._existing(key)
            changed = replace(
                row, text=row.text if text is None else text, metadata={**row.metadata, **(metadata or {})}
            )
            changed = replace(changed, asks=row.kind == "turn" and is_question(changed.text))
            time = None if row.time is None else from_micros(row.time)
            form = memory_text(changed.text, name=row.name if row.kind == "turn" else None, time=time)
            forms = yield from self._searchable([form])
            if self._replace(row, replace(changed, hash=content_hash(changed.text)), forms[form], triples):
                return Committed(key, "UPDATE", changed.text, row.text)

    def _replace(self, row: Row, changed: Row, form: Indexed, triples: Sequence[Triple]) -> bool:
        """Commit the next version of a memory; False when another call has written to it since `row` was read."""
        with self.journal.write() as tx:
            current = tx.memory(row.key)
            if current is None:
                raise _missing(row.key)
            if current.seq != row.seq:
                return False
            self.indexes.record_embedder(tx)
            commit = Commit(tx, scope_of(row), actor="user", batch=None, new_id=self.journal.new_id)
            kept = tx.triples_of(row.id) if changed.text == row.text else tuple(triples)
            commit.replace(row, changed, form, at=tx.now, triples=kept, quotes=tx.quotes_of(row.id))
        return True

    def delete(self, keys: Sequence[str] | None, scope: Scope | None = None) -> int:
        """End memories by id, or all live ones of a scope; returns how many."""
        with self.journal.write() as tx:
            if keys is None:
                assert scope is not None
                where, params = scope_sql(scope)
                rows = tx.memories(f"{where} AND i.closed IS NULL", params)
            else:
                rows = [row for row in map(tx.memory, keys) if row is not None]
                if len(rows) < len(keys):
                    raise _missing(keys[0])
            for row in rows:
                commit = Commit(tx, scope_of(row), actor="user", batch=None, new_id=self.journal.new_id)
                commit.end(row, at=max(tx.now, row.created_at))
                if row.kind == "fact":
                    commit.settle_turns(row, HIDDEN)
        return len(rows)

    def forget(self, key: str | None, scope: Scope | None) -> int:
        """Remove memories and what stands behind them from every file; returns how many versions went."""
        with self.journal.write() as tx:
            if key is not None:
                rows = tx.with_relatives(tx.memories("i.key = ?", (key,)))
                # A call that erased it but could not scrub is repeated like this.
                if not rows and tx.meta(SCRUB_DUE) is None:
                    raise _missing(key)
            else:
                assert scope is not None
                where, params = scope_sql(scope)
                rows = tx.memories(where, params)
                tx.erase_batches(list({_batch_scope(scope), *(_batch_scope(scope_of(row)) for row in rows)}))
                rows = tx.with_relatives(rows)
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
        # First the slabs: what they save on the way out is among the files that go.
        self.indexes.close()
        self.journal.scrub()

    def _existing(self, key: str) -> Row:
        with self.journal.read() as reader:
            row = reader.memory(key)
        if row is None:
            raise _missing(key)
        return row


def _missing(key: str) -> MemoryNotFound:
    return MemoryNotFound(f"There is no memory with the id {key!r}; get_all() and search() return the ids there are.")


def _ids(scope: Scope) -> tuple[str | None, str | None, str | None]:
    return scope.user_id, scope.agent_id, scope.run_id


def _batch_scope(scope: Scope) -> str:
    # JSON, because an id may hold any separator.
    return orjson.dumps(scope.ids()).decode()


def scope_of(row: Row) -> Scope:
    """Who a memory belongs to."""
    return Scope(row.user_id, row.agent_id, row.run_id)


def scope_sql(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """The SQL condition (on `i` and `n`) and its parameters for all memories of a scope; absent ids mean any."""
    ids = scope.ids()
    conditions = [f"i.{name} = ?" for name in ids]
    if scope.user_id is not None:
        return " AND ".join(["n.path = ?", *conditions]), (scope.partition, *ids.values())
    return " AND ".join(conditions) or "1", tuple(ids.values())


def to_turn(row: Row) -> Turn:
    """A stored turn as the extractor sees it."""
    return Turn(
        text=row.text, role=row.role or "user", id=row.message_id, name=row.name, session_id=row.session_id,
        time=None if row.time is None else from_micros(row.time), metadata=row.metadata,
    )  # fmt: skip


def now_micros(journal: SQLiteJournal) -> int:
    """The present time of a journal's clock."""
    return to_micros(journal.clock())
