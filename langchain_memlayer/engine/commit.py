"""What one transaction does with turns and decisions: merging, versions, and turns that stand behind their facts."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from langchain_memlayer.facts.grounding import fact_hash, is_said, repeats, says_all, telling_terms, words
from langchain_memlayer.index.keywords import query_terms
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer, keys_of
from langchain_memlayer.messages import content_hash
from langchain_memlayer.protocols import NewId
from langchain_memlayer.recall import asking, date_words, others
from langchain_memlayer.types import (
    DAY,
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

_NAMED = re.compile(r"(?<=[\w,] )(?!I\b)[A-ZÀ-Þ]\w+|\w*\d\w*")
"""Names (not at the beginning of a sentence, where a capital says nothing) and numbers."""
_AROUND = 8
"""How far from a turn (in turns) others may repeat what it says."""
_MOST_BESIDE = 3
"""How many telling words of its own an echo has."""
BY_HAND = "user"
"""Who changed a memory by `update`; what a message says now, and what was found, is changed by others."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """The searchable form of one text: its keyword terms (`keywords.packed`) and its vectors (float16 bytes)."""

    terms: bytes
    vector_bytes: bytes | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did to one memory; `text` and `previous` are its texts after and before."""

    id: str
    event: str
    text: str
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call did."""

    turns: tuple[Committed, ...] = ()
    facts: tuple[Committed, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    added: tuple[Triple, ...] = ()
    removed: tuple[Triple, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Itself as JSON values."""
        return {name: [astuple(one) for one in getattr(self, name)] for name in _KINDS}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Outcome:
        """The outcome that was made `plain`."""
        return cls(**{name: tuple(kind(*one) for one in plain[name]) for name, kind in _KINDS.items()})

    @classmethod
    def together(cls, outcomes: Sequence[Outcome]) -> Outcome:
        """What several calls did."""
        return cls(**{name: tuple(one for some in outcomes for one in getattr(some, name)) for name in _KINDS})


_KINDS: Mapping[str, Callable[..., Any]] = {
    "turns": Committed, "facts": Committed, "rejected": Rejection, "added": Triple, "removed": Triple,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One fact, what was decided of it, the searchable form of its text, and (for UPDATE) that of the new text."""

    fact: Fact
    decision: Decision
    indexed: Indexed
    rewritten: Indexed
    detail: Mapping[str, Any] = field(default_factory=dict)


class Commit:
    """The changes of one call to one scope, inside one transaction.

    Attributes:
        done: What was done to facts so far; `rejected`, `added` and `removed` are as in its `Outcome`.
        settled: The turns that went along with what ended.
        cause: The event of the last memory that was added, changed or ended.
    """

    def __init__(self, tx: Writer, scope: Scope, *, actor: str, batch: str | None, new_id: NewId) -> None:
        self.tx = tx
        self.scope = scope
        self.path = scope.partition
        self.ids: dict[str, Any] = {**scope.ids()}
        self.actor = actor
        self.batch = batch
        self.new_id = new_id
        self.ns = tx.namespace(self.path)
        self.done: list[Committed] = []
        self.rejected: list[Rejection] = []
        self.added: list[Triple] = []
        self.removed: list[Triple] = []
        self.settled: list[Row] = []
        self._became: dict[int, str] = {}
        self._retracts = False
        self.cause = self._request = 0
        self._said: Sequence[Row] = ()
        self._equal: dict[str, list[Row]] = {}

    def outcome(self, turns: Sequence[Committed] = (), *, since: Sequence[int] = (0, 0, 0, 0)) -> Outcome:
        """What was done, after a `mark`."""
        lists = zip(self._lists(), since, strict=True)
        return Outcome(tuple(turns), *(tuple(some[first:]) for some, first in lists))

    def mark(self) -> list[int]:
        """How much was done to facts so far."""
        return [len(some) for some in self._lists()]

    def _lists(self) -> tuple[list[Any], ...]:
        return self.done, self.rejected, self.added, self.removed

    # -- turns ----------------------------------------------------------------------------------------------------

    def expect(self, turns: Sequence[Turn]) -> None:
        """Look up at once what is equal to turns that will be added."""
        self._equal = self.tx.equal_memories(self.scope, "turn", {content_hash(turn.text) for turn in turns})

    def add_turn(self, turn: Turn, indexed: Indexed, *, exact: bool) -> tuple[Row, bool]:
        """Store a turn, or reinforce the equal one of the same scope, role, session and day; says whether it is new."""
        at = self.tx.now if turn.time is None else to_micros(turn.time)
        digest = content_hash(turn.text)
        twins = [] if exact else self._twins(digest)
        twin = next((row for row in twins if _merges(row, turn, at)), None)
        if twin is None:
            state = QUARANTINED if turn.quarantined else VISIBLE
            row = self._turn(turn, at, digest, text=turn.text, asks=asking(turn.text), given=exact, state=state)
            self.tx.add_memory(
                row, terms=indexed.terms, vector_bytes=indexed.vector_bytes, actor=self.actor, batch=self.batch
            )
            twins.append(row)
            return row, True
        counted: dict[str, Any] = {
            "count": twin.count + 1, "last_seen": max(at, twin.last_seen or 0),
            "sources": tuple(dict.fromkeys((*twin.sources, *([turn.id] if turn.id else [])))),
        }  # fmt: skip
        self.tx.change_memory(twin, "none", actor=self.actor, batch=self.batch, **counted)
        twins[twins.index(twin)] = replace(twin, **counted)
        return twin, False

    def edit_turn(self, old: Row, turn: Turn, indexed: Indexed) -> Row:
        """Give a turn the words that its message has now; it stays the memory that it was, in its place."""
        at = self.tx.now
        changed = replace(
            old, text=turn.text, hash=content_hash(turn.text), asks=asking(turn.text), read=False,
            metadata={**old.metadata, **turn.metadata},
        )  # fmt: skip
        if old.state in (HIDDEN, SPENT):
            # Until when its old words held says nothing of the new ones.
            changed = replace(changed, state=VISIBLE, invalid_at=_last_moment(turn))
        self.actor = "message"
        self.replace(old, changed, indexed, at=at)
        self._equal.clear()
        return self.tx.memory(old.key) or changed

    def note_turn(self, turn: Turn, *, words: bool = False) -> Row:
        """Note that a turn was seen, and who said it when (with `words` also what), for facts to cite."""
        at = self.tx.now if turn.time is None else to_micros(turn.time)
        state = QUARANTINED if turn.quarantined else HIDDEN
        row = self._turn(turn, at, content_hash(turn.text), text=turn.text if words else "", state=state)
        self.tx.add_seen(row, actor=self.actor, batch=self.batch)
        return replace(row, closed=row.id)

    def _turn(self, turn: Turn, at: int, digest: str, **own: Any) -> Row:
        """A turn as the row that comes next, but for its `own` columns."""
        key, item = self.new_id(), self.tx.upcoming()
        offset = None if turn.time is None or turn.time.tzinfo is None else turn.time.utcoffset()
        return Row(
            id=item, seq=item, place=item, path=self.path, key=key, kind="turn", created_at=at, updated_at=at,
            metadata=turn.metadata, session_id=turn.session_id, role=turn.role, name=turn.name, message_id=turn.id,
            time=None if turn.time is None else at, offset=None if offset is None else round(offset.total_seconds()),
            hash=digest, sources=(turn.id or key,), last_seen=at,
            invalid_at=_last_moment(turn), **self.ids, **own,
        )  # fmt: skip

    def _twins(self, digest: str) -> list[Row]:
        """The live turns of the scope with a digest, those of this commit among them."""
        if digest not in self._equal:
            self._equal.update(self.tx.equal_memories(self.scope, "turn", [digest]))
        return self._equal[digest]

    # -- facts ----------------------------------------------------------------------------------------------------

    def apply(self, change: Change, turns: Sequence[Row]) -> None:
        """Carry out one decision; `turns` are the stored turns that the fact cites.

        What cannot be carried out is added in its place: a fact whose words were said is never lost.
        """
        fact, decision = change.fact, change.decision
        self._retracts, self._said = bool(fact.metadata.get(RETRACT)), turns
        if decision.action == "REJECTED":
            self.reject(Rejection(fact.text, decision.reason or "refused", fact.quote), turns)
            return
        target, others = self._targets(decision)
        obstacle = self._obstacle(change, target, turns)
        if fact.metadata.get(RETRACT):
            if obstacle is not None or target is None or decision.action not in ("DELETE", "UPDATE"):
                if not others:
                    self.reject(Rejection(fact.text, "there is nothing to forget", fact.quote), turns)
                    return
                target = None
        elif decision.action == "ADD" or target is None or obstacle is not None:
            if obstacle is not None:
                change = replace(change, detail={**change.detail, "instead": f"{decision.action}: {obstacle}"})
            target = self._add(change, turns)
            others = [] if obstacle is not None else others
            if decision.until is not None and target.count == 1:
                self._said = ()  # its words are not what ended it
                self.end_fact(target, SPENT, at=to_micros(decision.until), detail=self._detail(change))
        elif decision.action == "NONE":
            target = self._reinforce(target, change, turns)
        at = _began(fact, turns, self.tx.now)
        if target is not None and decision.fact is not None:
            self._became[decision.fact] = target.key
        if target is not None and obstacle is None and decision.action in ("UPDATE", "DELETE"):
            if decision.action == "UPDATE":
                self._update(target, change, turns)
            else:
                self.end_fact(target, HIDDEN, at=at, detail=self._detail(change))
        for other in others:
            if target is None or other.key != target.key:
                self.end_fact(
                    other, HIDDEN if decision.action == "DELETE" else SPENT, at=at, detail=self._detail(change)
                )
        self._request = self.cause

    def _targets(self, decision: Decision) -> tuple[Row | None, list[Row]]:
        """The live facts of this scope that a decision is about: the one that it names first, and the others."""
        earlier = [self._became[fact] for fact in decision.earlier if fact in self._became]
        named = decision.memory_id
        if named is None and decision.action != "ADD" and earlier:
            named = earlier.pop(0)
        others = [self._own_fact(key) for key in dict.fromkeys((*decision.also, *earlier)) if key != named]
        return (None if named is None else self.tx.memory(named)), [row for row in others if row is not None]

    def _own_fact(self, key: str) -> Row | None:
        row = self.tx.memory(key)
        return row if row is not None and row.kind == "fact" and row.scope == self.scope else None

    def _obstacle(self, change: Change, target: Row | None, turns: Sequence[Row]) -> str | None:
        """Why a decision cannot be carried out, or None."""
        decision = change.decision
        if decision.action == "ADD":
            return None
        if decision.action not in ("UPDATE", "DELETE", "NONE"):
            return "there is no such action"
        if target is None:
            return "the memory is gone" if decision.memory_id or decision.earlier else "it names no memory"
        # Decisions may come from outside, through the state of a graph.
        if target.scope != self.scope:
            return "the memory to change belongs to another scope"
        if target.kind != "fact":
            return "only a fact can be changed by what is said"
        if decision.action != "NONE" and _is_from_tools(change.fact, turns) and target.state != QUARANTINED:
            return "tool output may not change what was told"
        return None

    def reject(self, rejection: Rejection, turns: Sequence[Row] = ()) -> None:
        """Record what our own checks refused, under the turn it comes from."""
        self.rejected.append(rejection)
        self.tx.event(
            self.ns, turns[0].key if turns else "", "fact", "rejected", value=rejection.text, actor=self.actor,
            batch=self.batch, detail={"reason": rejection.reason, "quote": rejection.quote},
        )  # fmt: skip

    def _detail(self, change: Change) -> dict[str, Any]:
        detail = {"reason": change.decision.reason, "quote": change.fact.quote, **change.detail}
        return {name: value for name, value in detail.items() if value}

    def _new_fact(self, change: Change, turns: Sequence[Row], *, key: str, text: str) -> Row:
        fact, first = change.fact, (turns[0] if turns else None)
        at = self.tx.now if first is None else first.created_at
        names = {turn.name for turn in turns}
        quarantined = _is_from_tools(fact, turns)
        metadata = {k: v for k, v in fact.metadata.items() if k not in (QUARANTINE, RETRACT)}
        return Row(
            id=0, seq=0, path=self.path, key=key, kind="fact", text=text, created_at=at,
            updated_at=at, metadata={**(first.metadata if first else {}), **metadata},
            session_id=first.session_id if first else None,
            name=fact.name or (names.pop() if len(names) == 1 else None), time=first.time if first else None,
            offset=first.offset if first else None,
            hash=fact_hash(text), sources=tuple(dict.fromkeys(s for turn in turns for s in turn.sources)),
            valid_at=None if fact.valid_at is None else to_micros(fact.valid_at), last_seen=at,
            invalid_at=_until(fact, first, self.tx.now), state=QUARANTINED if quarantined else VISIBLE, **self.ids,
        )  # fmt: skip

    def _add(self, change: Change, turns: Sequence[Row]) -> Row:
        """Store a fact, or reinforce the one that says it already; returns which."""
        row = self._new_fact(change, turns, key=self.new_id(), text=change.fact.text)
        digest = row.hash or ""
        twins = self.tx.equal_memories(self.scope, "fact", [digest])[digest]
        if twins:
            return self._reinforce(twins[0], change, turns)
        self.cause = item = self.tx.add_memory(
            row, terms=change.indexed.terms, vector_bytes=change.indexed.vector_bytes, triples=change.fact.triples,
            quotes=[(turn.id, change.fact.quote) for turn in turns], actor=self.actor, batch=self.batch,
            detail=self._detail(change),
        )  # fmt: skip
        self._show(turns)
        self.done.append(Committed(row.key, "ADD", row.text))
        self.added += change.fact.triples
        return replace(row, id=item, seq=item)

    def _reinforce(self, target: Row, change: Change, turns: Sequence[Row]) -> Row:
        told_at = max([self.tx.now if t.time is None else t.time for t in turns], default=self.tx.now)
        sources = tuple(dict.fromkeys((*target.sources, *(s for turn in turns for s in turn.sources))))
        new_turns = [turn.id for turn in turns if turn.id not in target.turns]
        # What somebody tells is no tool's word any longer.
        state = target.state if _is_from_tools(change.fact, turns) or target.state != QUARANTINED else VISIBLE
        self.tx.change_memory(
            target, "none", actor=self.actor, batch=self.batch, detail=self._detail(change), count=target.count + 1,
            last_seen=max(told_at, target.last_seen or 0), sources=sources, turns=[*target.turns, *new_turns],
            state=state or None,
        )  # fmt: skip
        self.cause = self.tx.seq
        self.tx.link(target.id, [(turn, change.fact.quote) for turn in new_turns])
        self._show(turns)
        events_so_far = {done.event for done in self.done if done.id == target.key}
        if not events_so_far:
            self.done.append(Committed(target.key, "NONE", target.text))
        if "UPDATE" in events_so_far and not _is_from_tools(change.fact, turns):
            # The new text says this fact too: its relations are the memory's.
            related = {keys_of(one.source, one.destination) for one in self.tx.triples_of(target.id)}
            new_triples = [one for one in change.fact.triples if keys_of(one.source, one.destination) not in related]
            self.tx.relate(target, new_triples)
            self.added += new_triples
        return replace(target, count=target.count + 1)

    def _update(self, target: Row, change: Change, turns: Sequence[Row]) -> None:
        text = change.decision.text or change.fact.text
        row = self._new_fact(change, turns, key=target.key, text=text)
        at = _began(change.fact, turns, self.tx.now)
        # What only adds to a memory has held as long as it; what changes one begins where the old text ends.
        began = target.valid_at if says_all(text, target.text) else at
        # What is to be forgotten is not what the memory goes on to say.
        triples = () if change.fact.metadata.get(RETRACT) else change.fact.triples
        self.replace(
            target,
            replace(
                row, created_at=target.created_at, metadata={**target.metadata, **row.metadata},
                valid_at=row.valid_at if row.valid_at is not None else began,
                sources=tuple(dict.fromkeys((*target.sources, *row.sources))), count=target.count + 1,
            ),
            change.rewritten,
            at=at,
            triples=triples,
            quotes=[(turn.id, change.fact.quote) for turn in turns],
            detail=self._detail(change),
        )  # fmt: skip
        self._show(turns)
        self.done.append(Committed(target.key, "UPDATE", text, target.text))
        self.added += triples

    def end_unsaid(self, turns: Sequence[int]) -> None:
        """End the facts that only turns of which the words were changed support, unless this commit has told them."""
        told_keys = {done.id for done in self.done}
        for fact in self.tx.facts_of(turns):
            if fact.key not in told_keys:
                detail = {"reason": "its message was changed"}
                self.end_fact(fact, HIDDEN, at=self.tx.now, detail=detail, but=turns)

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
        kept: bool | None = None,
    ) -> None:
        """Close one version and open the next under the same id, which the old one's turns support, too, if `kept`.

        That is found out where it is not said: a text that says all that the old one said is supported by them still.
        """
        self.removed += self.tx.triples_of(old.id)
        new = replace(new, updated_at=max(self.tx.now, old.updated_at + 1))
        if kept is None:
            kept = new.text == old.text or says_all(new.text, old.text)
        links = dict(self.tx.quotes_of(old.id)) if kept else {}
        self.tx.close_memory(old, invalid_at=at)
        self.cause = item = self.tx.add_memory(
            new, terms=indexed.terms, vector_bytes=indexed.vector_bytes, triples=triples,
            quotes=list({**links, **dict(quotes)}.items()), op="update", gone=old.id, prev=old.text, actor=self.actor,
            batch=self.batch, detail={**(detail or {}), **closing(old)},
        )  # fmt: skip
        if new.kind == "turn":
            self.tx.relink(old.id, item)
        elif not kept:
            self._settle(old, SPENT, at=at)

    def end_fact(
        self, row: Row, state: int, *, at: int, detail: Mapping[str, Any] | None = None, but: Sequence[int] = ()
    ) -> None:
        """End a fact; the turns behind all its versions go into `state`, `but` for those with other words now."""
        self.end(row, at=at, detail=detail)
        self._settle(row, state, at=at if state == SPENT else None, but=but)
        self.done.append(Committed(row.key, "DELETE", row.text, row.text))

    def end(self, row: Row, *, at: int, detail: Mapping[str, Any] | None = None) -> None:
        """Close a memory for good; its history stays."""
        at = max(at, row.created_at)
        self.removed += self.tx.triples_of(row.id)
        self.tx.close_memory(row, invalid_at=at)
        self.cause = self.tx.event(
            self.tx.namespace(row.path), row.key, row.kind, "delete", item=row.id, prev=row.text, actor=self.actor,
            sources=row.sources, invalid_at=at, batch=self.batch, detail={**(detail or {}), **closing(row)},
        )  # fmt: skip

    def _settle(self, fact: Row, state: int, *, at: int | None = None, but: Sequence[int] = ()) -> None:
        """Mark the turns behind any version of a fact, which held until `at`, whatever else they tell: facts say that.

        With them goes what was said around them and repeats the fact, and what the user answered to the assistant's,
        but for what speaks of somebody else or of something of its own.
        """
        behind = self.tx.turns_behind(fact.key)
        # What comes after the words that ended it speaks of what holds now, unless these were to forget it.
        end_place = None if self._retracts or not self._said else self._said[0].place
        along: set[int] = set()
        for turn in (*behind, *(self._said if self._retracts else ())):
            along |= self._repeated_around(self._all_words(turn) if turn.id in but else turn, fact, end_place)
        for turn in (row for row in self._said if row.id in {*fact.turns, *but}):
            # A message that told the fact and says something else now: what was replied before answered its old words.
            along |= {row.id for row in replies(self.tx, self._all_words(turn), fact) if row.id < turn.id and row.read}
        for turn in (*behind, *self.tx.uncited(sorted(along.difference(row.id for row in behind)))):
            shown = turn.closed is None and (turn.state == VISIBLE or (turn.state, state) == (SPENT, HIDDEN))
            if shown and turn.id not in but:
                self._mark(turn, state, at=at)
                self.settled.append(turn)

    def _repeated_around(self, turn: Row, fact: Row, end_place: int | None) -> set[int]:
        """What was said around a turn, before a place, and repeats a fact, with what the user answered to it."""
        if turn.place is None or not turn.text:
            return set()
        around = self.tx.turns_around(self.scope, turn, _AROUND, quarantined=False, until=None, lasting=None)
        # What ended it may be an earlier message that says something else now.
        last = None if end_place is None or end_place < turn.place else end_place
        around = [row for row in around if row.read and (last is None or (row.place or 0) < last)]
        told_text = f"{fact.text} {turn.text}"
        later = [row for row in around if (row.place or 0) > turn.place]
        # What was said more than once is one turn, and had a reply each time.
        echoes = {row.id for row in (later if turn.count > 1 else later[:1]) if is_echo(row, turn, fact)}
        repeating = [row for row in around if row.id in echoes or repeats(row.text, fact.text)]
        repeating = [row for row in repeating if not _is_of_others(row.text, told_text)]
        rows = {row.id for row in repeating}
        for said in (turn, *repeating):
            after = next((row for row in around if (row.place or 0) > (said.place or 0)), None)
            if said.role == "assistant" and after and after.role == "user" and _answers(after, said, told_text):
                rows.add(after.id)
        return rows

    def _all_words(self, turn: Row) -> Row:
        """A turn with the words of all its versions: what was replied to one answered those."""
        return replace(turn, text=" ".join(row.text for row in self.tx.versions_of(turn.key)))

    def correct(self, turns: Sequence[Row]) -> None:
        """Let turns that were said to be wrong be recalled below others, but for those that a live fact cites."""
        for turn in self.tx.uncited([row.id for row in turns]):
            if turn.state == VISIBLE:
                self._mark(turn, SPENT, at=self.tx.now)

    def _mark(self, turn: Row, state: int, *, at: int | None) -> None:
        op = "spent" if state == SPENT else "hide"
        self._change_along(turn, op, state=state, invalid_at=at)

    def _change_along(self, turn: Row, op: str, *, of: int | None = None, **columns: Any) -> None:
        """Change a turn along with the fact that it told, so that both are undone together."""
        detail = {"of": self.cause if of is None else of}
        self.tx.change_memory(turn, op, actor=self.actor, batch=self.batch, detail=detail, **columns)

    def _show(self, turns: Sequence[Row]) -> None:
        """Let turns be found again that a fact cites which holds, where nothing else that they told has ended."""
        ended = telling_ended(self.tx, [row.id for row in turns])
        for turn in self.tx.memories_by_row([row.id for row in turns if row.id not in ended]).values():
            if turn.closed is None and turn.state in (HIDDEN, SPENT):
                self._change_along(turn, "show", state=None, invalid_at=None)

    def hide_requests(self, turns: Sequence[Row]) -> None:
        """Hide the turns that asked to forget something, since they say it too; not those that a live fact cites."""
        for turn in self.tx.uncited([row.id for row in turns]):
            if turn.state == VISIBLE:
                # Where it ended nothing, it goes along with its being told.
                seqs = (one.seq for one in reversed(self.tx.history(turn.key)) if one.op in ("add", "update", "none"))
                self._change_along(turn, "hide", of=self._request or next(seqs, 0), state=HIDDEN)


def tells(turn: Row, quote: str | None) -> bool:
    """Whether a turn has the words that a fact was found in: it may have been edited since."""
    return not quote or is_said(words(turn.text), quote)


def telling_ended(reader: Reader, turns: Sequence[int], *, but: Collection[int] = ()) -> set[int]:
    """Those of some turns that tell something that has ended, `but` for some versions of facts."""
    ended = [(turn, quote) for turn, quote, fact in reader.quotes_of_ended(turns) if fact not in but]
    # One that is damaged may tell anything.
    rows = reader.memories_by_row(sorted({turn for turn, _ in ended}))
    return {turn for turn, quote in ended if turn not in rows or tells(rows[turn], quote)}


def closing(row: Row) -> dict[str, Any]:
    """What an event that ends a version notes of it, so that it can be undone."""
    return {"was": {str(row.id): {"closed": row.closed, "invalid_at": row.invalid_at}}}


def _merges(row: Row, turn: Turn, at: int) -> bool:
    """Whether a stored turn with the words of a new one will do for both."""
    zone = (row.offset or 0) * 1_000_000
    # What has ended or was deleted is told anew: its turn stays as it is.
    return (
        (row.session_id, row.role, row.name) == (turn.session_id, turn.role, turn.name)
        and (row.created_at + zone) // DAY == (at + zone) // DAY
        and row.state not in (HIDDEN, SPENT)
    )


def _last_moment(turn: Turn) -> int | None:
    return None if turn.valid_until is None else to_micros(turn.valid_until)


def _began(fact: Fact, turns: Sequence[Row], now: int) -> int:
    if fact.valid_at is not None:
        return to_micros(fact.valid_at)
    return turns[0].created_at if turns else now


def _until(fact: Fact, turn: Row | None, now: int) -> int | None:
    """When a fact ceases to hold by what is said of it, at the latest when its turn ceases to count."""
    said = None if fact.valid_until is None else to_micros(fact.valid_until)
    began = 0 if fact.valid_at is None else to_micros(fact.valid_at)
    # What had ended before it was told ("the pass ran out in March") is told as what was, and no void offer.
    if said is not None and said <= max(began, now if turn is None else turn.created_at):
        said = None
    limits = [said, turn.invalid_at if turn is not None and turn.state != SPENT else None]
    return min((limit for limit in limits if limit is not None), default=None)


def replies(reader: Reader, turn: Row, fact: Row) -> list[Row]:
    """The assistant's reply right behind a turn, if it says little but a part of a fact that the turn told."""
    beside = reader.turns_around(turn.scope, turn, 1, quarantined=False, until=None, lasting=None)
    return [row for row in beside if (row.place or 0) > (turn.place or 0) and is_echo(row, turn, fact)]


def is_echo(reply: Row, turn: Row, fact: Row) -> bool:
    """Whether an assistant's reply to a turn says little but a part of a fact that it told ("Got it, Paris!")."""
    telling = set(telling_terms(fact.text)).difference(telling_terms(fact.name or ""))
    said = set(telling_terms(reply.text))
    # In Japanese what is written in hiragana alone says as little as a function word.
    beside = {term for term in said - telling if not "\u3041" <= min(term) <= max(term) <= "\u309f"}
    beside -= set(telling_terms(turn.text))
    return reply.role == "assistant" and not telling.isdisjoint(said) and len(beside) <= _MOST_BESIDE


def _answers(row: Row, turn: Row, known: str) -> bool:
    """Whether a user's turn says only what it thinks of the assistant's one before."""
    if _is_of_others(row.text, known) or not {*_NAMED.findall(row.text)} <= {*_NAMED.findall(known)}:
        return False
    # Where nothing was asked, what one says of oneself is no answer.
    return bool(turn.asks) or not date_words.OWN.search(row.text)


def _is_of_others(text: str, known: str) -> bool:
    """Whether a text speaks of one's family or friends, and what is known does not."""
    return not (others() & set(query_terms(text))) <= set(query_terms(known))


def _is_from_tools(fact: Fact, turns: Sequence[Row]) -> bool:
    return bool(fact.metadata.get(QUARANTINE)) or any(turn.state == QUARANTINED for turn in turns)
