"""Forks: a copy of a scope to try something in, which is merged or dropped.

```
scope ── what holds, with its turns, vectors and words ──> fork, a scope of its own ── what changed in it ──> scope
```
The ids of a fork's memories begin with a mark and its token, so that nobody who asks for other ids, or for all, is
given them. Making one is one transaction, and so is merging: nobody writes to either side meanwhile. Where both sides
have changed the same memory, the original stands, and what the fork says is added beside it: nothing that was said is
lost, and which of the two is right nobody knows here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_memlayer.engine.commit import Commit, Committed, Indexed, Outcome
from langchain_memlayer.engine.past import ALONG, standing
from langchain_memlayer.engine.profiles import FORK, key_of, merge_profile, recited
from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.database import chunks
from langchain_memlayer.journal.fork_notes import ForkNote, copies, ended_citing, forks, note_fork, profiles_in
from langchain_memlayer.journal.positions import terms_of
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.protocols import NewId
from langchain_memlayer.result_types import Conflict
from langchain_memlayer.types import HIDDEN, SPENT, Row, Scope, Unread

_CHANGES = ("update", "delete", "none", "undo", "restore")
_KINDS = ("turn", "fact", "profile")
"""In the order in which they are made: a fact that was told again cites turns that are younger than it."""


def make_fork(journal: Journal, scope: Scope, name: str, *, new: bool) -> ForkNote:
    """The fork of a scope with a name, with `new` made if there is none.

    Raises:
        InvalidInput: there is none, and none is to be made.
    """
    with journal.read() as reader:
        if not new or forks(reader, scope, name):
            return fork_of(reader, scope, name)
    with journal.write(*([scope.partition] if scope.user_id is not None else [])) as tx:
        if existing := forks(tx, scope, name):
            return existing[0]
        fork = note_fork(tx, name, scope, journal.new_id())
        live = tx.memories_of(scope)
        # What a turn told that has ended since: by that it is known not to be shown as current.
        live += tx.memories_by_row(ended_citing(tx, [row.id for row in live if row.kind == "turn"])).values()
        quotes: dict[int, dict[int, str | None]] = {}
        for fact, turn, quote in tx.quotes_of_all([row.id for row in live if row.kind != "turn"]):
            quotes.setdefault(fact, {})[turn] = quote
        cited = {turn for told in quotes.values() for turn in told}.difference(row.id for row in live)
        # A user's profile is of no agent and of no run.
        profiles = tx.live_by_key([key_of(path) for path in dict.fromkeys(row.path for row in live)])
        rows = [row for row in live if row.kind != "profile"]
        rows += [*tx.memories_by_row(sorted(cited)).values(), *profiles.values()]
        rows.sort(key=lambda row: (_KINDS.index(row.kind), row.place or row.id))
        made = _Copies(tx, fork, journal.new_id, quotes)
        for page in chunks(rows):
            made.add(page)
    return fork


@dataclass(slots=True)
class _Copies:
    """Copies rows into a fork: turns before the facts that cite them."""

    tx: Writer
    fork: ForkNote
    new_id: NewId
    quotes: Mapping[int, Mapping[int, str | None]]
    rows: dict[int, int] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)

    def add(self, page: Sequence[Row]) -> None:
        """Copy some, with their words, vectors and triples."""
        ids = [row.id for row in page]
        terms, vectors = terms_of(self.tx, ids), self.tx.vectors_of(ids)
        triples = self.tx.triples_by_row(ids)
        began = {row.id: self._began(row) for row in page if row.event == "update"}
        for row in page:
            owner = _owner(row.scope.forked(self.fork.token))
            key = self.keys.setdefault(row.key, self.new_id())
            if row.kind == "profile":
                key, row = key_of(owner["path"]), recited(row, self.keys)
            copy = replace(
                row, **owner, key=key, place=None, closed=None,
                valid_at=began.get(row.id, row.valid_at), sources=tuple(self.keys.get(one, one) for one in row.sources),
            )  # fmt: skip
            cited = self.quotes.get(row.id, {})
            links: dict[str, Any] = {
                "actor": FORK, "detail": {"copy": row.key},
                "quotes": [(self.rows[turn], cited[turn]) for turn in _ordered(row, cited) if turn in self.rows],
            }  # fmt: skip
            if row.closed is not None:
                self.rows[row.id] = self.tx.add_seen(copy, **links)
                continue
            self.rows[row.id] = self.tx.add_memory(
                copy, terms=terms.get(row.id, b""), vector_bytes=vectors.get(row.id), triples=triples.get(row.id, ()),
                **links,
            )  # fmt: skip

    def _began(self, row: Row) -> int | None:
        """When a later version began to hold, which else the one before it says."""
        before = (one.invalid_at for one in self.tx.versions_of(row.key) if one.closed == row.id)
        return row.valid_at if row.valid_at is not None else next(before, None)


def _owner(scope: Scope) -> dict[str, Any]:
    """The columns that say whose a memory is."""
    return {"path": scope.partition, "user_id": None, "agent_id": None, "run_id": None, **scope.ids()}


def _ordered(row: Row, cited: Mapping[int, Any]) -> list[int]:
    return [*(turn for turn in row.turns if turn in cited), *(turn for turn in cited if turn not in row.turns)]


def fork_of(reader: Reader, scope: Scope, name: str) -> ForkNote:
    """The fork of exactly a scope with a name.

    Raises:
        InvalidInput: there is none, or not any more.
    """
    for fork in forks(reader, scope, name):
        return fork
    raise InvalidInput(f"There is no fork {shown(name)} of these ids; forks() lists those there are.")


# -- merging -----------------------------------------------------------------------------------------------------------


def batch_of(fork: ForkNote) -> str:
    """The batch id of what merging a fork did."""
    return f"merge {fork.token}"


def merge_fork(tx: Writer, scope: Scope, name: str, new_id: NewId) -> tuple[ForkNote, Outcome, list[Conflict]]:
    """Carry over what changed in a fork; the fork itself stays.

    Raises:
        InvalidInput: there is no such fork.
    """
    fork = fork_of(tx, scope, name)
    merging = _Merging(tx, fork, new_id)
    merging.run()
    done = [commit.outcome() for commit in merging.commits.values()]
    return fork, Outcome.together([*done, Outcome(facts=tuple(merging.profiles))]), merging.conflicts


def _up_to_last(versions: list[Row]) -> list[Row]:
    """A memory's versions up to its last one: those that were made after it were undone."""
    return versions[: versions.index(max(versions, key=lambda row: row.until)) + 1]


class _Merging:
    """Brings the original of each memory that was added, changed or ended in a fork to what the fork says.

    Attributes:
        commits: What was done to each of the original's scopes.
        profiles: What was done to profiles.
        conflicts: What both sides have changed.
    """

    def __init__(self, tx: Writer, fork: ForkNote, new_id: NewId) -> None:
        self.tx, self.fork, self.new_id = tx, fork, new_id
        self.commits: dict[Scope, Commit] = {}
        self._batch = batch_of(fork)
        self.profiles: list[Committed] = []
        self.conflicts: list[Conflict] = []
        self._origins = copies(tx, fork)
        self._versions: dict[str, list[Row]] = {}
        for row in sorted(tx.memories_of(fork.ids, ended=True), key=lambda row: row.id):
            if row.kind == "turn" or (row.kind == "fact" and row.event != "seen"):
                self._versions.setdefault(row.key, []).append(row)
        self._versions = {key: _up_to_last(versions) for key, versions in self._versions.items()}
        self._rows: dict[int, int] = {}
        self._keys = dict(self._origins)

    def run(self) -> None:
        """Carry all over in order, then whether turns are recalled, and what is still to be read."""
        kept = [versions for versions in self._versions.values() if self._is_changed(versions)]
        kept.sort(key=self._sort_key)
        for versions in kept:
            live = versions[-1] if versions[-1].closed is None else None
            if versions[0].key in self._origins:
                self._carry(versions, live)
            elif live is not None:
                self._add(live)
            else:
                self._note_ended(versions, self.new_id())
        turns = [some[-1] for some in self._versions.values() if some[-1].kind == "turn" and some[-1].closed is None]
        originals = self.tx.live_by_key([self._origins[live.key] for live in turns if live.key in self._origins])
        for live in turns:
            if (original := originals.get(self._origins.get(live.key, ""))) is not None:
                self._carry_state(live, original)
        for note in self.tx.unread(self.fork.ids):
            self._carry_note(note)
        profiles: dict[str, list[Row]] = {}
        for row in sorted(profiles_in(self.tx, self.fork), key=lambda row: row.id):
            profiles.setdefault(row.key, []).append(row)
        for versions in profiles.values():
            done, conflicts = merge_profile(self.tx, _up_to_last(versions), self._keys, self._batch)
            self.profiles += done
            self.conflicts += conflicts

    def _sort_key(self, versions: Sequence[Row]) -> tuple[int, bool, int]:
        """Where a memory stands among others: turns before the facts that cite them, what changed before what is new.

        What is new may say what another said until it changed.
        """
        last = versions[-1]
        at = last.seq if last.closed is not None else last.place or last.id
        return _KINDS.index(last.kind), last.key not in self._origins, at

    def _is_changed(self, versions: Sequence[Row]) -> bool:
        """Whether anything happened to a memory of the fork that is no untouched copy."""
        first = versions[0]
        return first.key not in self._origins or len(versions) > 1 or first.seq != first.id

    def _commit(self, row: Row) -> Commit:
        owner = row.scope.original
        if owner not in self.commits:
            self.commits[owner] = Commit(self.tx, owner, actor=FORK, batch=self._batch, new_id=self.new_id)
        return self.commits[owner]

    def _carry(self, versions: Sequence[Row], live: Row | None) -> None:
        """Bring the original of a copy to what became of the copy."""
        first, commit = versions[0], self._commit(versions[0])
        key = self._origins[first.key]
        original = self.tx.memory(key)
        moved = self._has_changed_since(key, first, _CHANGES)
        if live is None:
            if first.event == "seen" or original is None:
                return
            if moved:
                self._conflict(key, original, None, None)
            elif original.kind == "turn":
                commit.end(original, at=versions[-1].invalid_at or self.tx.now)
            else:
                self._note_ended(versions, key, original)
                commit.end_fact(original, self._state_left(versions), at=versions[-1].invalid_at or self.tx.now)
            return
        changed = len(versions) > 1
        again = sum(one.op == "none" for one in standing(self.tx, self.tx.history(live.key)))
        if moved and (changed or again > 0):
            # Of what was only told again the metadata are the copy's: they say nothing.
            known = original and (original.hash, original.metadata if changed else live.metadata)
            if known != (live.hash, live.metadata):
                self._conflict(key, original, live, self._add(replace(live, message_id=None)))
            elif original is not None and live.kind == "fact":
                self._tell_again(commit, live, original, again)
        elif original is not None and not moved:
            if changed:
                self._replace(commit, versions, live, original)
            elif again > 0:
                self._tell_again(commit, live, original, again)
            else:
                self._relate(live, original)

    def _has_changed_since(self, key: str, copy: Row, ops: Sequence[str]) -> bool:
        """Whether something of a kind happened to an original since it was copied, that is not of this merge."""
        events = standing(self.tx, (one for one in self.tx.history(key) if one.seq > copy.id))
        return any(one.op in ops and one.batch != self._batch for one in events)

    def _note_ended(self, versions: Sequence[Row], key: str, original: Row | None = None) -> None:
        """Note which turns told what ended in the fork; nothing finds it. What the original says is noted there."""
        # A version that was told again in the fork has turns there that the original's has not.
        ended = versions if original is None or versions[0].count > original.count else versions[1:]
        for row in ended:
            if row.kind == "fact" and (quotes := self._quotes(row)):
                self.tx.add_seen(self._as_original(row, key), quotes=quotes, actor=FORK, batch=self._batch)

    def _conflict(self, key: str, original: Row | None, live: Row | None, added: str | None) -> None:
        texts = [None if row is None else row.text for row in (original, live)]
        self.conflicts.append({"id": key, "memory": texts[0], "fork": texts[1], "added": added})

    def _state_left(self, versions: Sequence[Row]) -> int:
        """What the turns behind a fact became that ended in the fork."""
        turns = self.tx.memories_by_row([turn for row in versions for turn in row.turns]).values()
        return SPENT if any(turn.state == SPENT for turn in turns) else HIDDEN

    def _as_original(self, row: Row, key: str) -> Row:
        sources = tuple(self._keys.get(one, one) for one in row.sources)
        return replace(row, **_owner(row.scope.original), key=key, place=None, sources=sources)

    def _add(self, row: Row) -> str:
        """Add a memory of the fork to the original, where it is not there already; returns its id."""
        commit = self._commit(row)
        twin = self._twin(commit, row)
        if twin is not None:
            self._keys[row.key], self._rows[row.id] = twin.key, twin.id
            if row.kind != "turn":
                self._tell_again(commit, row, twin, row.count)
            return twin.key
        self._keys[row.key] = self._origins[row.key] = key = commit.new_id()
        self._note_ended(self._versions[row.key][:-1], key)
        triples, quotes, form = self.tx.triples_of(row.id), self._quotes(row), self._form(row)
        commit.cause = self._rows[row.id] = self.tx.add_memory(
            replace(self._as_original(row, key), event="add"), terms=form.terms, vector_bytes=form.vector_bytes,
            triples=triples, quotes=quotes, actor=FORK, batch=commit.batch, detail={"fork": self.fork.name},
        )  # fmt: skip
        commit.done.append(Committed(key, "ADD", row.text))
        commit.added += triples
        return key

    def _form(self, row: Row) -> Indexed:
        """The words and the vector of a version in the fork."""
        return Indexed(terms_of(self.tx, [row.id]).get(row.id, b""), self.tx.vectors_of([row.id]).get(row.id))

    def _twin(self, commit: Commit, row: Row) -> Row | None:
        """What says the same in the original: the same message, or the same fact."""
        if row.kind == "turn":
            if row.message_id is None:
                return None
            message = row.session_id, row.message_id
            found = self.tx.turns_of_messages(commit.scope, [message])[message]
            return max(found, key=lambda row: row.until, default=None)
        return next(iter(self.tx.equal_memories(commit.scope, row.kind, [row.hash or ""])[row.hash or ""]), None)

    def _quotes(self, row: Row) -> list[tuple[int, str | None]]:
        told = dict(self.tx.quotes_of(row.id))
        return [(self._original_turn(turn), told[turn]) for turn in _ordered(row, told)]

    def _original_turn(self, turn: int) -> int:
        """The original's row of a turn of the fork; one that nobody finds any more is added as such."""
        if turn not in self._rows:
            row = self.tx.memories_by_row([turn])[turn]
            key = self._origins.get(row.key, "")
            now = self.tx.memory(key) or next(reversed(self.tx.versions_of(key)), None)
            self._rows[turn] = now.id if now else self.tx.add_seen(self._as_original(row, self.new_id()), actor=FORK)
        return self._rows[turn]

    def _replace(self, commit: Commit, versions: Sequence[Row], live: Row, original: Row) -> None:
        same = live.text == original.text
        new = replace(
            self._as_original(live, original.key), place=original.place, created_at=original.created_at,
            valid_at=original.valid_at if live.valid_at == versions[0].valid_at else live.valid_at,
            state=original.state if live.kind == "turn" else live.state, turns=(),
            read=live.read or (same and original.read),
        )  # fmt: skip
        self._note_ended(versions[:-1], original.key, original)
        triples, quotes, ended = self.tx.triples_of(live.id), self._quotes(live), versions[0].invalid_at
        commit.replace(
            original, new, self._form(live), at=self.tx.now if ended is None else ended,
            triples=triples, quotes=quotes, kept={*original.turns} <= {turn for turn, _ in quotes},
            detail={"fork": self.fork.name},
        )  # fmt: skip
        if live.kind == "turn":
            if same and not live.read:
                self.tx.relist_unread(original.id, commit.cause)
            else:
                self.tx.unlist_unread([original.id])
        commit.added += triples
        commit.done.append(Committed(original.key, "UPDATE", live.text, original.text))

    def _tell_again(self, commit: Commit, row: Row, original: Row, times: int) -> None:
        quotes = [(turn, quote) for turn, quote in self._quotes(row) if turn not in original.turns]
        sources = tuple(dict.fromkeys((*original.sources, *(self._keys.get(one, one) for one in row.sources))))
        self.tx.change_memory(
            original, "none", actor=FORK, batch=commit.batch, detail={"fork": self.fork.name},
            count=original.count + times, last_seen=max(row.last_seen or 0, original.last_seen or 0) or None,
            sources=sources, turns=[*original.turns, *(turn for turn, _ in quotes)],
        )  # fmt: skip
        commit.cause = self.tx.seq
        self.tx.link(original.id, quotes)
        self._relate(row, original)
        commit.done.append(Committed(original.key, "NONE", original.text))

    def _relate(self, row: Row, original: Row) -> None:
        known = set(self.tx.triples_of(original.id))
        more = [triple for triple in self.tx.triples_of(row.id) if triple not in known]
        self.tx.relate(original, more)
        self._commit(row).added += more

    def _carry_state(self, live: Row, original: Row) -> None:
        """Let the original of a turn be read, hidden or shown as the fork's is, where only that says so."""
        if live.read and not original.read:
            self.tx.read_turn(original, None, read=True)
            self.tx.unlist_unread([original.id])
        if (original.state, original.invalid_at) == (live.state, live.invalid_at):
            return
        ops = ALONG if original.state != live.state else (*ALONG, *_CHANGES)
        if not self._has_changed_since(original.key, self._versions[live.key][0], ops):
            commit = self._commit(live)
            op = {HIDDEN: "hide", SPENT: "spent"}.get(live.state, "show")
            self.tx.change_memory(
                original, op, actor=FORK, batch=commit.batch, detail={"of": commit.cause} if commit.cause else None,
                state=live.state or None, invalid_at=live.invalid_at,
            )  # fmt: skip

    def _carry_note(self, note: Unread) -> None:
        """Let what is still to be read of the fork be read of the original."""
        before = [self._original_turn(row) if isinstance(row, int) else row for row in note.detail.before]
        edited = [self._original_turn(row) if isinstance(row, int) else row for row in note.detail.edited]
        about = note.detail.triples_of and self._keys.get(note.detail.triples_of, note.detail.triples_of)
        detail = replace(note.detail, before=before, edited=edited, triples_of=about)
        turns = [self._original_turn(turn) for turn in note.turns]
        made = self.tx.note_unread(
            note.scope.original, turns, detail=detail, attempts=note.attempts, next_at=note.next_at, reason=note.reason
        )
        if note.set_aside is not None:
            self.tx.change_unread(made, set_aside=note.set_aside)
