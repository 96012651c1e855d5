"""What one transaction does with turns and decisions: merging, versions, and turns that stand behind their facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_memlayer.engine.scopes import scope_ids, scope_of
from langchain_memlayer.facts.grounding import says_all
from langchain_memlayer.journal.write import Writer
from langchain_memlayer.messages import content_hash
from langchain_memlayer.recall import asking
from langchain_memlayer.types import (
    HIDDEN,
    QUARANTINE,
    QUARANTINED,
    RETRACT,
    SPENT,
    VISIBLE,
    Decision,
    Fact,
    Rejection,
    Row,
    Scope,
    Triple,
    Turn,
    to_micros,
)

DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Indexed:
    """The searchable form of one text: its keyword terms and its vectors (float16 bytes)."""

    tokens: Sequence[str]
    codes: bytes | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did to one memory; `text` and `previous` are its texts after and before."""

    id: str
    event: str
    text: str
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one commit did."""

    turns: tuple[Committed, ...] = ()
    facts: tuple[Committed, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    added: tuple[Triple, ...] = ()
    removed: tuple[Triple, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One fact, what was decided of it, the searchable form of its text, and (for UPDATE) that of the new text."""

    fact: Fact
    decision: Decision
    indexed: Indexed
    rewritten: Indexed
    detail: Mapping[str, Any] = field(default_factory=dict)


class Commit:
    """The changes of one call to one scope, inside one transaction."""

    def __init__(self, tx: Writer, scope: Scope, *, actor: str, batch: str | None, new_id: Any) -> None:
        self.tx = tx
        self.scope = scope
        self.path = scope.partition
        self.ids: dict[str, Any] = {**scope.ids()}
        self.actor = actor
        self.batch = batch
        self.new_id = new_id
        self.ns = tx.namespace(self.path)

    # -- turns ----------------------------------------------------------------------------------------------------

    def seen(self, turn: Turn) -> Row | None:
        """The turn with the same message id in the same scope and session, or None."""
        if turn.id is None:
            return None
        return seen_turn(self.tx, self.scope, turn)

    def add_turn(self, turn: Turn, indexed: Indexed, *, exact: bool) -> tuple[Row, bool]:
        """Store a turn, or reinforce the equal one of the same scope, role, session and day; says whether it is new."""
        at = self.tx.now if turn.time is None else to_micros(turn.time)
        digest = content_hash(turn.text)
        if not exact:
            twin = self._twin(turn, digest, at)
            if twin is not None:
                sources = tuple(dict.fromkeys((*twin.sources, *([turn.id] if turn.id else []))))
                self.tx.change_memory(
                    twin, "none", actor=self.actor, batch=self.batch, count=twin.count + 1,
                    last_seen=max(at, twin.last_seen or 0), sources=sources,
                )  # fmt: skip
                return twin, False
        row = replace(
            self._turn(turn, at), text=turn.text, hash=digest, asks=asking(turn.text), given=exact,
            state=QUARANTINED if turn.quarantined else VISIBLE,
        )  # fmt: skip
        item = self.tx.add_memory(row, tokens=indexed.tokens, codes=indexed.codes, actor=self.actor, batch=self.batch)
        return replace(row, id=item, seq=item), True

    def note_turn(self, turn: Turn, *, words: bool = False) -> Row:
        """Note that a turn was seen, and who said it when (with `words` also what), for facts to cite."""
        row = self._turn(turn, self.tx.now if turn.time is None else to_micros(turn.time))
        row = replace(row, text=turn.text if words else "")
        item = self.tx.add_seen(row, actor=self.actor, batch=self.batch)
        return replace(row, id=item, seq=item, closed=item)

    def _turn(self, turn: Turn, at: int) -> Row:
        """A turn as a row, still without its words."""
        key = self.new_id()
        return Row(
            id=0, seq=0, path=self.path, key=key, kind="turn", text="", created_at=at, updated_at=at,
            metadata=turn.metadata, session_id=turn.session_id, role=turn.role, name=turn.name, message_id=turn.id,
            time=None if turn.time is None else at, sources=(turn.id or key,), last_seen=at,
            state=QUARANTINED if turn.quarantined else HIDDEN, **self.ids,
        )  # fmt: skip

    def _twin(self, turn: Turn, digest: str, at: int) -> Row | None:
        day = at // DAY * DAY
        rows = self.tx.memories(
            "i.ns = ? AND i.hash = ? AND i.closed IS NULL AND i.kind = 'turn' AND i.user_id IS ? AND i.agent_id IS ? "
            "AND i.run_id IS ? AND i.session_id IS ? AND i.role IS ? AND i.name IS ? AND i.created_at BETWEEN ? AND ?",
            (self.ns, digest, self.scope.user_id, self.scope.agent_id, self.scope.run_id, turn.session_id, turn.role,
             turn.name, day, day + DAY - 1),
        )  # fmt: skip
        # What has ended or was deleted is told anew: its turn stays as it is.
        return next((row for row in rows if row.state not in (HIDDEN, SPENT)), None)

    # -- facts ----------------------------------------------------------------------------------------------------

    def apply(self, change: Change, turns: Sequence[Row]) -> tuple[Committed | Rejection, tuple[Triple, ...]]:
        """Carry out one decision; `turns` are the stored turns that the fact cites. Also the triples that ended."""
        decision, fact = change.decision, change.fact
        if decision.action == "REJECTED":
            return self._refuse(fact, decision.reason or "refused", turns), ()
        target = self.tx.memory(decision.memory_id) if decision.memory_id else None
        # Decisions may come from outside, through the state of a graph.
        if target is not None and scope_ids(scope_of(target)) != scope_ids(self.scope):
            return self._refuse(fact, "the memory to change belongs to another scope", turns), ()
        if target is not None and target.kind != "fact":
            return self._refuse(fact, "only a fact can be changed by what is said", turns), ()
        if decision.action == "DELETE" and target is None:
            return self._refuse(fact, "the memory to delete is gone already", turns), ()
        if fact.metadata.get(RETRACT) and (target is None or decision.action not in ("DELETE", "UPDATE")):
            return self._refuse(fact, "there is nothing to forget", turns), ()
        if decision.action == "ADD" or target is None:
            return self._add(change, turns), ()
        if decision.action != "NONE" and _from_tools(fact, turns) and target.state != QUARANTINED:
            return self._refuse(fact, "tool output may not change what was told", turns), ()
        if decision.action == "NONE":
            return self._reinforce(target, change, turns), ()
        if decision.action == "DELETE":
            ended = self.end(target, at=_began(fact, turns, self.tx.now), detail=self._detail(change))
            self.settle_turns(target, HIDDEN)
            return Committed(target.key, "DELETE", target.text, target.text), ended
        return self._update(target, change, turns)

    def _refuse(self, fact: Fact, reason: str, turns: Sequence[Row]) -> Rejection:
        refusal = Rejection(fact.text, reason, fact.quote)
        self.reject(refusal, turns)
        return refusal

    def _detail(self, change: Change) -> dict[str, Any]:
        detail = {"reason": change.decision.reason, "quote": change.fact.quote, **change.detail}
        return {name: value for name, value in detail.items() if value}

    def _new_fact(self, change: Change, turns: Sequence[Row], *, key: str, text: str) -> Row:
        fact, first = change.fact, (turns[0] if turns else None)
        at = self.tx.now if first is None else first.created_at
        names = {turn.name for turn in turns}
        quarantined = _from_tools(fact, turns)
        metadata = {k: v for k, v in fact.metadata.items() if k not in (QUARANTINE, RETRACT)}
        return Row(
            id=0, seq=0, path=self.path, key=key, kind="fact", text=text, created_at=at,
            updated_at=at, metadata={**(first.metadata if first else {}), **metadata},
            session_id=first.session_id if first else None,
            name=fact.name or (names.pop() if len(names) == 1 else None), time=first.time if first else None,
            hash=content_hash(text), sources=tuple(dict.fromkeys(s for turn in turns for s in turn.sources)),
            valid_at=None if fact.valid_at is None else to_micros(fact.valid_at), last_seen=at,
            state=QUARANTINED if quarantined else VISIBLE, **self.ids,
        )  # fmt: skip

    def _add(self, change: Change, turns: Sequence[Row]) -> Committed:
        row = self._new_fact(change, turns, key=self.new_id(), text=change.fact.text)
        twin = self._same_fact(row)
        if twin is not None:
            return self._reinforce(twin, change, turns)
        self.tx.add_memory(
            row, tokens=change.indexed.tokens, codes=change.indexed.codes, triples=change.fact.triples,
            quotes=[(turn.id, change.fact.quote) for turn in turns], actor=self.actor, batch=self.batch,
            detail=self._detail(change),
        )  # fmt: skip
        return Committed(row.key, "ADD", row.text)

    def _same_fact(self, row: Row) -> Row | None:
        rows = self.tx.memories(
            "i.ns = ? AND i.hash = ? AND i.closed IS NULL AND i.kind = 'fact' AND i.user_id IS ? AND i.agent_id IS ? "
            "AND i.run_id IS ?",
            (self.ns, row.hash, row.user_id, row.agent_id, row.run_id),
        )
        return rows[0] if rows else None

    def _reinforce(self, target: Row, change: Change, turns: Sequence[Row]) -> Committed:
        seen = max([self.tx.now if t.time is None else t.time for t in turns], default=self.tx.now)
        sources = tuple(dict.fromkeys((*target.sources, *(s for turn in turns for s in turn.sources))))
        fresh = [turn.id for turn in turns if turn.id not in target.turns]
        # What somebody tells is no tool's word any longer.
        state = target.state if _from_tools(change.fact, turns) or target.state != QUARANTINED else VISIBLE
        self.tx.change_memory(
            target, "none", actor=self.actor, batch=self.batch, detail=self._detail(change), count=target.count + 1,
            last_seen=max(seen, target.last_seen or 0), sources=sources, turns=[*target.turns, *fresh],
            state=state or None,
        )  # fmt: skip
        self.tx.link(target.id, [(turn, change.fact.quote) for turn in fresh])
        return Committed(target.key, "NONE", target.text)

    def _update(
        self, target: Row, change: Change, turns: Sequence[Row]
    ) -> tuple[Committed | Rejection, tuple[Triple, ...]]:
        text = change.decision.text or change.fact.text
        row = self._new_fact(change, turns, key=target.key, text=text)
        at = _began(change.fact, turns, self.tx.now)
        # What only adds to a memory has held as long as it; what changes one begins where the old text ends.
        began = target.valid_at if says_all(text, target.text) else at
        ended = self.replace(
            target,
            replace(
                row, created_at=target.created_at, metadata={**target.metadata, **row.metadata},
                valid_at=row.valid_at if row.valid_at is not None else began,
                sources=tuple(dict.fromkeys((*target.sources, *row.sources))), count=target.count + 1,
            ),
            change.rewritten,
            at=at,
            # What is to be forgotten is not what the memory goes on to say.
            triples=() if change.fact.metadata.get(RETRACT) else change.fact.triples,
            quotes=[(turn.id, change.fact.quote) for turn in turns],
            detail=self._detail(change),
        )  # fmt: skip
        return Committed(target.key, "UPDATE", text, target.text), ended

    # -- versions -------------------------------------------------------------------------------------------------

    def replace(
        self,
        old: Row,
        new: Row,
        indexed: Indexed,
        *,
        at: int,
        triples: Sequence[Triple] = (),
        quotes: Sequence[tuple[int, str | None]] = (),
        detail: Mapping[str, Any] | None = None,
        by_hand: bool = False,
    ) -> tuple[Triple, ...]:
        """Close one version and open the next under the same id; returns the triples that ended with the old one."""
        ended = self.tx.triples_of(old.id)
        new = replace(new, updated_at=max(self.tx.now, old.updated_at + 1))
        # A text that says all that the old one said is still supported by the old one's turns. What was written by hand
        # says more than they do: where they stood for it, search would show them in its place.
        kept = new.text == old.text or (not by_hand and says_all(new.text, old.text))
        links = dict(self.tx.quotes_of(old.id)) if kept else {}
        self.tx.close_memory(old, invalid_at=at)
        item = self.tx.add_memory(
            new, tokens=indexed.tokens, codes=indexed.codes, triples=triples,
            quotes=list({**links, **dict(quotes)}.items()), op="update", gone=old.id, prev=old.text, actor=self.actor,
            batch=self.batch, detail=detail,
        )  # fmt: skip
        if new.kind == "turn":
            self.tx.relink(old.id, item)
        elif not kept:
            self.settle_turns(old, SPENT, at=at)
        return ended

    def end(self, row: Row, *, at: int, detail: Mapping[str, Any] | None = None) -> tuple[Triple, ...]:
        """Close a memory for good; its history stays. Returns the triples that ended with it."""
        ended = self.tx.triples_of(row.id)
        self.tx.close_memory(row, invalid_at=at)
        self.tx.event(
            self.tx.namespace(row.path), row.key, row.kind, "delete", item=row.id, prev=row.text, actor=self.actor,
            sources=row.sources, invalid_at=at, batch=self.batch, detail=detail,
        )  # fmt: skip
        return ended

    def settle_turns(self, fact: Row, state: int, *, at: int | None = None) -> None:
        """Mark the turns that no live fact cites any longer, after `fact`, which held until `at`, was closed."""
        for turn in self._uncited("i.id IN (SELECT turn FROM links WHERE fact = ?)", fact.id):
            if turn.state in (VISIBLE, SPENT):
                op = "spent" if state == SPENT else "hide"
                self.tx.change_memory(turn, op, actor=self.actor, state=state, invalid_at=at)

    def hide_requests(self, turns: Sequence[Row]) -> None:
        """Hide the turns that asked to forget something, since they say it too; not those that a live fact cites."""
        for row in turns:
            for turn in self._uncited("i.id = ?", row.id):
                if turn.state == VISIBLE:
                    self.tx.change_memory(turn, "hide", actor=self.actor, batch=self.batch, state=HIDDEN)

    def _uncited(self, which: str, value: int) -> list[Row]:
        """Those of some live turns that no live fact cites."""
        return self.tx.memories(
            f"{which} AND i.closed IS NULL AND NOT EXISTS (SELECT 1 FROM links l JOIN items f ON f.id = l.fact "
            "WHERE l.turn = i.id AND f.closed IS NULL)",
            (value,),
        )

    def reject(self, rejection: Rejection, turns: Sequence[Row]) -> None:
        """Record what our own checks refused, under the turn it comes from."""
        self.tx.event(
            self.ns, turns[0].key if turns else "", "fact", "rejected", value=rejection.text, actor=self.actor,
            batch=self.batch, detail={"reason": rejection.reason, "quote": rejection.quote},
        )  # fmt: skip


def _began(fact: Fact, turns: Sequence[Row], now: int) -> int:
    if fact.valid_at is not None:
        return to_micros(fact.valid_at)
    return turns[0].created_at if turns else now


def _from_tools(fact: Fact, turns: Sequence[Row]) -> bool:
    return bool(fact.metadata.get(QUARANTINE)) or any(turn.state == QUARANTINED for turn in turns)


def seen_turn(reader: Any, scope: Scope, turn: Turn) -> Row | None:
    """The stored turn with the message id of `turn` in the same scope and session, or None.

    A turn that was merged with an equal one left its id among the sources of that one, in any of its versions.
    """
    where = (
        "n.path = ? AND {} AND i.kind = 'turn' AND i.user_id IS ? AND i.agent_id IS ? AND i.run_id IS ? AND "
        "i.session_id IS ?"
    )
    ids = (scope.user_id, scope.agent_id, scope.run_id, turn.session_id)
    rows = reader.memories(where.format("i.message_id = ?"), (scope.partition, turn.id, *ids))
    if not rows:
        merged = f"i.count > 1 AND {reader.listed('i.sources')}"
        rows = reader.memories(where.format(merged), (scope.partition, turn.id, *ids))
    return rows[0] if rows else None
