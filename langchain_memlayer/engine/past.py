"""The past: what became of a scope between two instants, and taking back what happened.

Nothing that happened is removed. An undo is an event of its own, which gives the versions of a memory what their
columns were before another event: each event that changes a row notes that under `was`. So a version that comes back is
the very row that it was, and whatever reads rows (searches, lists, the graph) gives what it gave before. An event takes
along what came with it (`of`): the turns of a fact that were hidden with it, the facts of a turn.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_memlayer.engine.commit import BY_HAND, Committed, Outcome, is_echo, replies, telling_ended, tells
from langchain_memlayer.engine.keep import strike_words
from langchain_memlayer.engine.profiles import FORK, take_back
from langchain_memlayer.engine.records import result_of
from langchain_memlayer.engine.results import relations_of
from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.positions import (
    changed,
    event_at,
    events_along,
    events_of_batch,
    owners_of,
    paths_of_commit,
    put_back,
    triples_of_all,
    unlink,
)
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.result_types import DiffResult
from langchain_memlayer.types import HIDDEN, SPENT, VISIBLE, Event, Row, Scope, ToRead, Triple, Unread, from_micros


def difference(journal: Journal, scope: Scope, since: int, until: int, kinds: Collection[str]) -> DiffResult:
    """What a scope held at one time and not at another, and the other way round; memories that held at both are paired.

    Times are microseconds since 1970 UTC. An empty scope has the memories of all; of no kinds are facts and what no
    fact says.
    """
    with journal.read(snapshot=True) as reader:
        positions = [reader.position_at(scope.search_root, at) for at in (since, until)]
        before, after = (_shown(rows, kinds) for rows in changed(reader, scope, *positions))
        was, became = triples_of_all(reader, before), triples_of_all(reader, after)
    old, new = {row.key: row for row in before}, {row.key: row for row in after}
    return {
        "since": from_micros(since).isoformat(),
        "until": from_micros(until).isoformat(),
        "added": [result_of(row) for row in after if row.key not in old],
        "changed": [
            {"id": row.key, "before": result_of(old[row.key]), "after": result_of(row)}
            for row in after
            if row.key in old
        ],
        "ended": [result_of(row) for row in before if row.key not in new],
        "relations": {
            "added_entities": relations_of(_without(became, was)),
            "deleted_entities": relations_of(_without(was, became)),
        },
    }


def _without(triples: Sequence[Triple], others: Collection[Triple]) -> list[Triple]:
    others = set(others)
    return [triple for triple in triples if triple not in others]


def _shown(rows: Sequence[Row], kinds: Collection[str]) -> list[Row]:
    if kinds:
        return [row for row in rows if row.kind in kinds]
    return [row for row in rows if row.kind == "fact" or row.given or not row.read]


# -- undo -------------------------------------------------------------------------------------------------------------

_PRIMARY = ("add", "update", "delete", "none", "undo")
"""The events that can be undone by themselves; others come along with one of them."""
ALONG = ("hide", "spent", "show", "restore")
_PHYSICAL = ("forget", "redact", "reset")
_GONE = "What was forgotten is gone from every file: forget() and reset() cannot be undone."


def undo(journal: Journal, scope: Scope, *, event: int | None, batch: str | None, reads: bool) -> Outcome:
    """Take back one event of a memory, or all of the calls with a batch id, with what came along.

    Args:
        journal: The truth.
        scope: Whose the memories must be; for a batch id, exactly whose, but for what a merge did. What came along
            with an event in memories of others stays.
        event: The event's number.
        batch: The batch id.
        reads: Whether somebody reads turns that are there again.

    Raises:
        InvalidInput: there is nothing like that, it was undone already, something later has changed the same memory, or
            it was forgotten.
    """
    paths = [scope.partition] if batch is not None and scope.user_id is not None else []
    if event is not None:
        with journal.read() as reader:
            paths = paths_of_commit(reader, event)
    # What lies in several namespaces may lie anywhere.
    with journal.write(*(paths if len(paths) == 1 else ())) as tx:
        unread = batch is not None and strike_words(tx, scope, batch)
        chosen = _chosen(tx, scope, event, batch, unread=unread)
        profile_events = {one.seq: one.key for one in chosen if one.kind == "profile"}
        chosen = [one for one in chosen if one.seq not in profile_events]
        undoing = _Undoing(tx, chosen, _ended_in_forks(tx, scope, chosen, all_of=batch))
        for key in dict.fromkeys(one.key for one in chosen if one.op in _PRIMARY):
            _refuse_if_built_on(tx.history(key), undoing.chosen)
        for one in reversed(chosen):
            if one.detail.get("of") not in undoing.chosen:
                undoing.take_back(one)
        outcome = undoing.settle(reads=reads)
        facts = {one.key: one.seq for one in reversed(chosen) if one.kind == "fact" and one.op in _PRIMARY}
        owned = {row.path for key in (*facts, *profile_events.values()) for row in tx.versions_of(key)[:1]}
        profiles = [done for path in owned for done in take_back(tx, path, facts, profile_events, alone=not chosen)]
        return outcome if chosen else replace(outcome, facts=tuple(profiles))


def _chosen(tx: Writer, scope: Scope, event: int | None, batch: str | None, *, unread: bool) -> list[Event]:
    """The events to take back, in order, with those that came along; of what was still `unread` there may be none."""
    if batch is not None:
        events = [one for one in events_of_batch(tx, scope, batch) if one.op in _PRIMARY]
    else:
        events = [one for one in [event_at(tx, event or 0)] if one is not None]
    owners = owners_of(tx, {one.key for one in events})
    if (batch is None or scope.user_id is not None) and any(one.key not in owners for one in events):
        raise InvalidInput(_GONE)
    events = [one for one in events if one.key in owners]
    owned = [one for one in events if _is_of(one, owners[one.key][1], scope, exactly=batch is not None)]
    if any(one.actor == FORK for one in owned):
        # A merge of what an agent knows may have set fields of the profiles of its users.
        own_seqs = {one.seq for one in owned}
        owned = [one for one in events if one.seq in own_seqs or one.kind == "profile"]
    if unread and not owned:
        return []
    if not owned or owned[0].op not in _PRIMARY:
        wanted = f"event {event}" if batch is None else f"batch {shown(batch)}"
        raise InvalidInput(
            f"There is no {wanted} here that could be undone: give a batch_id of these ids, or the number of an ADD, "
            "UPDATE, DELETE or UNDO in a memory's history()."
        )
    return _with_companions(tx, owned, scope)


def _with_companions(tx: Writer, events: Sequence[Event], scope: Scope) -> list[Event]:
    """Some events, and what came along with them in memories of a scope, in order."""
    companions, chosen, waiting = events_along(tx, events[0]), {one.seq: one for one in events}, list(events)
    while waiting:
        more = [one for one in companions.get(waiting.pop().seq, ()) if one.seq not in chosen]
        chosen |= {one.seq: one for one in more}
        waiting += more
    owners = owners_of(tx, {one.key for one in chosen.values()})
    own_keys = {key for key, (_, owner) in owners.items() if scope.ids().items() <= owner.ids().items()}
    first_chosen = {one.seq for one in events}
    return [chosen[seq] for seq in sorted(chosen) if seq in first_chosen or chosen[seq].key in own_keys]


def _ended_in_forks(tx: Writer, scope: Scope, chosen: Sequence[Event], *, all_of: str | None) -> set[int]:
    """The versions that a merge noted to have ended in its fork, of the facts among some events or of a whole batch."""
    merges, keys = {one.batch for one in chosen if one.actor == FORK}, {one.key for one in chosen}
    events = (one for merge in merges if merge for one in events_of_batch(tx, scope, merge))
    return {one.seq for one in events if (one.op, one.kind) == ("seen", "fact") and (all_of or one.key in keys)}


def _is_of(event: Event, owner: Scope, scope: Scope, *, exactly: bool) -> bool:
    """Whether an event is of a scope; one of a batch exactly, but for what a merge did and for a user's profile."""
    if exactly and event.kind == "profile":
        return scope.ids().items() >= owner.ids().items()
    if exactly and event.actor != FORK:
        return owner == scope
    return scope.ids().items() <= owner.ids().items()


def _refuse_if_built_on(events: Sequence[Event], chosen: set[int]) -> None:
    """Refuse to undo events of a memory that were undone already, or that something later builds on."""
    standing = {one.seq for one in events}
    for one in reversed(events):
        if one.op == "undo" and one.seq in standing:
            standing.discard(one.detail["undoes"])
    first = min(one.seq for one in events if one.seq in chosen)
    for one in events:
        if one.op in _PHYSICAL and one.seq > first:
            raise InvalidInput(_GONE)
        if one.seq in chosen and one.seq not in standing:
            raise InvalidInput(f"Event {one.seq} was undone already.")
        later = one.seq > first and one.seq not in chosen and one.seq in standing
        # An undo that stands is of one that does not: together they change nothing.
        if later and one.op in _PRIMARY and one.op != "undo":
            raise InvalidInput(
                f"Event {first} cannot be undone alone: event {one.seq} ({one.op.upper()}) has changed the same memory "
                "since; undo that one first."
            )


def standing(reader: Reader, events: Iterable[Event]) -> list[Event]:
    """Some events of a memory in order, without those that were taken back since and what took them back."""
    kept: list[Event] = []
    for one in events:
        undone = None
        if one.op == "undo":
            undone = next((event for event in kept if event.seq == one.detail.get("undoes")), None)
        elif one.op == "restore" and (undoes := _undoes(reader, one)) is not None:
            undone = next((event for event in kept if event.detail.get("of") == undoes), None)
        elif one.op == "restore" and kept and kept[-1].op in ALONG:
            undone = kept[-1]
        if undone is None:
            kept.append(one)
        else:
            kept.remove(undone)
    return kept


def _undoes(reader: Reader, event: Event) -> int | None:
    """What the undo that an event came along with took back; None for one that came alone, or was forgotten."""
    undoing = event_at(reader, event.detail.get("of", 0))
    return None if undoing is None else undoing.detail.get("undoes")


class _Undoing:
    """Takes back events inside one transaction.

    Attributes:
        chosen: The numbers of all that are taken back.
    """

    def __init__(self, tx: Writer, events: Sequence[Event], noted: set[int]) -> None:
        self.tx = tx
        self.chosen = {one.seq for one in events}
        # Versions of facts that have never held, once this is done: no turn has told what ended by them.
        self._unheld = self.chosen | noted
        self._keys = {one.key for one in events}
        self._untold: list[tuple[int, Row]] = []
        self._along: dict[int, list[Event]] = {}
        for one in events:
            if "of" in one.detail:
                self._along.setdefault(one.detail["of"], []).append(one)
        self._before: dict[str, Row | None] = {}
        self._closed: list[Row] = []
        self._restored: set[str] = set()

    def take_back(self, event: Event, of: int | None = None) -> None:
        """Undo one event, then those that came along with it."""
        seq = self._put_back(event, of)
        if seq is None:
            return
        for other in reversed(self._along.get(event.seq, ())):
            self.take_back(other, seq)

    def _put_back(self, event: Event, of: int | None) -> int | None:
        """Give the rows of an event what they were; returns the position of the undo, or None where it is moot."""
        tx, primary = self.tx, event.op in _PRIMARY
        was: dict[int, dict[str, Any]] = {int(row): dict(old) for row, old in event.detail.get("was", {}).items()}
        rows = tx.memories_by_row([*was, event.seq])
        if not rows or not (primary or self._may_go_back(event, rows[min(rows)], was)):
            return None
        if event.seq in rows:
            # It made this version, which therefore never held.
            made = rows[event.seq]
            was[made.id] = {"closed": 0, "invalid_at": made.created_at if made.valid_at is None else made.valid_at}
        before, seq = tx.memory(event.key), tx.upcoming()
        closed = [rows[row] for row, old in was.items() if old.get("closed") is not None]
        opened = [rows[row] for row in was if rows[row] not in closed]
        for row, old in sorted(was.items(), key=lambda one: rows[one[0]] not in closed):
            if "turns" in old:
                old["turns"] = self._restore_citations(rows[row], old["turns"], event)
            elif rows[row].kind == "fact" and rows[row] not in closed and (cited := self._citations_now(rows[row])):
                old["turns"] = cited
            if rows[row].given and event.op == "none" and self._read_since(event):
                old["read"] = False
            put_back(tx, row, seq, {**old, "closed": seq} if rows[row] in closed else old)
        after = tx.memory(event.key)
        noted: dict[str, Any] = {
            "was": {str(row): {name: getattr(rows[row], name) for name in old} for row, old in was.items()},
            **({"undoes": event.seq} if primary else {}),
            **({} if of is None else {"of": of}),
        }
        tx.event(
            tx.namespace(rows[min(rows)].path), event.key, event.kind, "undo" if primary else "restore",
            item=opened[0].id if opened else None, gone=closed[0].id if closed else None,
            prev=None if before is None else before.text, value=None if after is None else after.text, actor=BY_HAND,
            invalid_at=was[closed[0].id]["invalid_at"] if closed else None, detail=noted,
        )  # fmt: skip
        if event.kind == "turn" and closed and opened:
            if closed[0].text != opened[0].text:
                self._refuse_orphans(closed[0], since=event.seq)
            tx.relink(closed[0].id, opened[0].id)
        if primary:
            self._before.setdefault(event.key, before)
            self._closed += closed
            self._untold += [(seq, before)] if event.kind == "fact" and before is not None else []
            self._restored |= {event.key} if event.op == "undo" or before is None else set()
        return seq

    def _may_go_back(self, event: Event, turn: Row, was: Mapping[int, Mapping[str, Any]]) -> bool:
        """Whether nothing later says what the state of a turn is, and nothing else that it told has ended."""
        later = any(
            one.seq > event.seq and one.op in ALONG and one.seq not in self.chosen
            for one in standing(self.tx, self.tx.history(event.key))
        )
        recalled = was[turn.id].get("state") not in (HIDDEN, SPENT)
        ended = bool(telling_ended(self.tx, [turn.id], but=self._unheld))
        ended = ended or (recalled and self._repeats_ended(event, turn))
        fits = not ended if recalled else ended or bool(self.tx.uncited([turn.id]))
        return turn.closed is None and not later and fits

    def _repeats_ended(self, event: Event, reply: Row) -> bool:
        """Whether a reply to a message that told a fact repeats what else was told in it and has ended."""
        cause = event_at(self.tx, event.detail.get("of", 0))
        fact = None if cause is None or reply.role != "assistant" else self.tx.memory(cause.key)
        turns = set() if fact is None else telling_ended(self.tx, fact.turns)
        for turn in self.tx.memories_by_row(sorted(turns)).values():
            facts = self.tx.memories_by_row([fact for fact, _ in self.tx.quotes_from(turn.id)]).values()
            held = {one.key for one in facts if one.closed is None}
            if any(one.key not in held and is_echo(reply, turn, one) for one in facts if one.id not in self._unheld):
                return True
        return False

    def _read_since(self, event: Event) -> bool:
        """Whether a turn that was to be kept only was read because an event told it again."""
        read = [one for one in self.tx.history(event.key) if one.op == "read"]
        return bool(read) and read[0].seq > event.seq

    def _restore_citations(self, fact: Row, turns: Sequence[int], event: Event) -> list[int]:
        """Let a fact cite the turns that it cited, whatever was edited since; gives their rows."""
        tx = self.tx
        keys = {row.key for row in tx.memories_by_row(turns).values()}
        cited = {row.key: row.id for row in tx.memories_by_row(fact.turns).values()}
        kept = [row for key, row in cited.items() if key in keys]
        if gone := [row for key, row in cited.items() if key not in keys]:
            unlink(tx, fact.id, gone)
        fresh = [tx.versions_of(key)[-1].id for key in sorted(keys.difference(cited))]
        if fresh:
            while event.op == "undo":
                event = event_at(tx, event.detail["undoes"]) or event
            tx.link(fact.id, [(row, event.detail.get("quote")) for row in fresh])
        return [*sorted(kept, key=fact.turns.index), *fresh]

    def _citations_now(self, fact: Row) -> list[int]:
        """The turns that a version that comes back cites, as they are now; none where they are what they were."""
        was, linked = self.tx.memories_by_row(fact.turns), [turn for turn, _ in self.tx.quotes_of(fact.id)]
        now = {row.key: row for row in self.tx.memories_by_row(linked).values()}
        for turn in was.values():
            if now.get(turn.key, turn).text != turn.text:
                raise InvalidInput(
                    f"Event {fact.closed} cannot be undone alone: the message that this comes from was changed since; "
                    "undo that first."
                )
        turns = [now.get(was[turn].key, was[turn]).id for turn in fact.turns if turn in was]
        return [] if turns == list(fact.turns) else turns

    def _refuse_orphans(self, turn: Row, *, since: int = 0) -> None:
        """Refuse to take a version of a turn from facts that were found in it."""
        facts_told = self.tx.memories_by_row([fact for fact, _ in self.tx.quotes_from(turn.id)]).values()
        facts = sorted(row.id for row in facts_told if row.closed is None and row.id > since)
        if facts:
            raise InvalidInput(
                f"What was found in this message stands (events {', '.join(map(str, facts))}): undo that first, or the "
                "whole batch; or delete() the message with it."
            )

    def _hide_tellers(self, seq: int, before: Row, now: Row | None) -> None:
        """Hide the turns that a fact cites no longer, with their echoes; what is taken back, too, is as it was."""
        tx = self.tx
        for turn in tx.memories_by_row(before.turns).values():
            if now is not None and self._tells(turn, now):
                continue
            if turn.closed is not None or turn.state != VISIBLE or turn.key in self._keys:
                continue
            for row in (turn, *tx.uncited([row.id for row in replies(tx, turn, before)])):
                if row.state == VISIBLE and row.key not in self._keys:
                    tx.change_memory(row, "hide", actor=BY_HAND, detail={"of": seq}, state=HIDDEN)

    def settle(self, *, reads: bool) -> Outcome:
        """Put in order what belongs to the rows that went and came; returns what was done."""
        tx = self.tx
        now = {key: tx.memory(key) for key in self._before}
        closed = [row for row in self._closed if row.kind == "turn"]
        for turn in closed:
            self._settle_closed(turn, now[turn.key])
        tx.unlist_unread([turn.id for turn in closed])
        for seq, fact in self._untold:
            self._hide_tellers(seq, fact, now[fact.key])
        tx.strike_written([key for key, row in now.items() if row is None])
        facts, turns = ([row for row in now.values() if row and row.kind == kind] for kind in ("fact", "turn"))
        waiting = tx.unread()
        self._settle_words(facts, waiting, reads=reads)
        for fact in facts:
            self._show_tellers(fact)
        listed = {row for note in waiting for row in note.turns}
        for turn in turns:
            if reads and not turn.read and not turn.given and turn.id not in listed:
                made = _origin_of_words(tx, turn)
                edited = [turn.id] if made is not None and made.op == "update" else []
                tx.note_unread(turn.scope, [turn.id], detail=ToRead(edited=edited), attempts=0, next_at=tx.now)
        return self._outcome(now)

    def _settle_closed(self, turn: Row, now: Row | None) -> None:
        """Let what is still to be read of a version that went be read of the one that is there now, if there is one."""
        # What took it away before took along what was found in it alone.
        if now is None and (turn.key not in self._restored or self.tx.facts_of([turn.id])):
            self._refuse_orphans(turn)
        if now is not None and not now.read:
            self.tx.relist_unread(turn.id, now.id)

    def _settle_words(self, facts: Sequence[Row], waiting: Sequence[Unread], *, reads: bool) -> None:
        """Note whose triples are still to be found: those of facts whose words were written by hand, and no others."""
        noted = {note.detail.triples_of: note.id for note in waiting if note.detail.triples_of is not None}
        for fact in facts:
            made = _origin_of_words(self.tx, fact)
            by_hand = made is not None and (made.op, made.actor) == ("update", BY_HAND)
            if not by_hand and fact.key in noted:
                self.tx.strike_unread(noted[fact.key])
            elif by_hand and reads and fact.key in self._restored - noted.keys():
                self.tx.note_unread(fact.scope, [], detail=ToRead(triples_of=fact.key), attempts=0, next_at=self.tx.now)

    def _tells(self, turn: Row, fact: Row) -> bool:
        """Whether a fact cites a turn, in words that it has: it may have been edited since, and say what was undone."""
        quote = dict(self.tx.quotes_of(fact.id)).get(turn.id)
        return turn.id in fact.turns and tells(turn, quote)

    def _show_tellers(self, fact: Row) -> None:
        """Let turns be recalled again that a fact cites, but for those that told what has ended."""
        ended = telling_ended(self.tx, fact.turns)
        for turn in self.tx.memories_by_row([turn for turn in fact.turns if turn not in ended]).values():
            if turn.closed is None and turn.state in (HIDDEN, SPENT) and self._tells(turn, fact):
                self.tx.change_memory(turn, "restore", actor=BY_HAND, state=None, invalid_at=None)

    def _outcome(self, now: Mapping[str, Row | None]) -> Outcome:
        was = triples_of_all(self.tx, [row for row in self._before.values() if row is not None])
        became = triples_of_all(self.tx, [row for row in now.values() if row is not None])
        return Outcome(
            facts=tuple(_done(key, self._before[key], row) for key, row in now.items()),
            added=tuple(_without(became, was)),
            removed=tuple(_without(was, became)),
        )


def _origin_of_words(reader: Reader, row: Row) -> Event | None:
    """What gave a memory the words of a version of it."""
    made = event_at(reader, row.id)
    while made is not None and made.op == "update" and made.prev == made.value and made.gone is not None:
        made = event_at(reader, made.gone)
    return made


def _done(key: str, before: Row | None, after: Row | None) -> Committed:
    text, previous = ("" if row is None else row.text for row in (after, before))
    if after is None:
        return Committed(key, "DELETE", previous, previous)
    if before is None:
        return Committed(key, "ADD", text)
    return Committed(key, "NONE" if after.id == before.id else "UPDATE", text, previous)
