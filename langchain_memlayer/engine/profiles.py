"""Profiles: one validated object for each user, which follows the facts of each commit.

```
facts committed ── what changed since the profile's last step ── one call a page ──> one commit: the next version
```
A profile is a memory of the user's namespace with an id of its own, whose text is its fields as JSON: versions,
history, `as_of`, undo, erasing and export are those of any memory. Only its kind keeps it out of searches and lists.
What it says counts while a fact that it cites holds; that is seen to where it is read, whoever ended the fact.

The step has a transaction of its own, after that of the facts: the call takes seconds, in which nobody else could
write, and a model that fails must not take the facts along. What it has not taken in is known by its last event, so the
next step goes on there, whoever died or failed in between.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from langchain_memlayer.engine.commit import BY_HAND, Committed, closing
from langchain_memlayer.errors import ConfigurationError, ExtractionError, InvalidInput, shown
from langchain_memlayer.facts.grounding import says_all, words
from langchain_memlayer.facts.profile import (
    Cell,
    Cells,
    FactChange,
    ProfileSchema,
    ProfileUpdater,
    cited,
    filtered,
    is_cell,
    joined,
    values_of,
)
from langchain_memlayer.facts.prompts import PROFILE_VERSION
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.fork_notes import forks
from langchain_memlayer.journal.positions import facts_since, last_of
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.json_values import as_text, dumps, loads
from langchain_memlayer.messages import content_hash
from langchain_memlayer.result_types import Conflict, Profile, ProfileChange, ProfileProblem
from langchain_memlayer.steps import Steps
from langchain_memlayer.tracing import traced
from langchain_memlayer.types import QUARANTINED, Event, Row, Scope, from_micros

_LOGGER = logging.getLogger(__name__)

PAGE: Final = 60
"""How many changes of facts one call sees."""

PAGES: Final = 5
"""How many calls one step makes at most; of a user who was there before the profile the newest facts are seen."""

_EVENTS: Final = 4 * PAGE * PAGES
"""How many events are looked at for them."""

LOST_RACES: Final = 2
STEP, FORK = "profile", "fork"
"""Who made the events of the steps, and those of copies: what a copy says is what its facts say."""


def owner_of(scope: Scope) -> Scope:
    """Whose profile it is: a user has one, whichever agent and run; an agent without a user has one, or a run."""
    name, value = next(iter(scope.required("profile()").ids().items()))
    return Scope(**{name: value})


def key_of(path: str) -> str:
    """The id of the profile of a namespace."""
    return str(uuid5(NAMESPACE_OID, f"profile {path}"))


def cells_of(row: Row | None) -> Cells:
    """What a version of a profile says; of a damaged one what can be read."""
    try:
        cells = {} if row is None else loads(row.text)
    except ValueError:
        cells = {}
    return {name: cell for name, cell in cells.items() if is_cell(cell)} if isinstance(cells, dict) else {}


class Profiles:
    """The profiles of one folder.

    Args:
        journal: The truth.
        schema: What is to be known of each user; None shows what is stored and changes nothing.
        updater: Asks the model; None leaves profiles to hands.
    """

    def __init__(self, journal: Journal, schema: ProfileSchema | None, updater: ProfileUpdater | None) -> None:
        self.journal = journal
        self.schema = schema
        self.updater = updater

    # -- reading --------------------------------------------------------------------------------------------------

    def show(self, scope: Scope, *, as_of: int | None = None, known_at: int | None = None) -> Profile:
        """What is known of a user, from facts of a scope; or what was, at a time and by what was known at another."""
        owner = owner_of(scope)
        with self.journal.read(snapshot=True) as reader:
            past = as_of is not None or known_at is not None
            key, now = key_of(owner.partition), self.journal.now()
            if past:
                held = {row for row, _ in reader.versions_at(owner.partition, as_of=as_of, known_at=known_at)}
                versions = [row for row in reader.versions_of(key) if row.id in held]
                cells = cells_of(versions[-1] if versions else None)
                rows = [row for one in cited(cells) for row in reader.versions_of(one) if row.id in held]
            else:
                cells = cells_of(reader.memory(key))
                live = reader.live_by_key(cited(cells)).values()
                rows = [row for row in live if not row.expired(now)]
            changes = [] if past else self._changes(reader, owner)
            behind = self.updater is not None and self._needs_model(cells, changes)
        # What a fact says no longer does not count, though the profile has not taken in yet what it says instead.
        holding = {row.key for row in rows if scope.ids().items() <= row.scope.ids().items()}
        news = {one.id: one.after for one in changes if one.before and not says_all(one.after or "", one.before)}
        cells = filtered(cells, lambda value, facts: [
            one for one in facts if one in holding and says_all(news.get(one) or as_text(value), as_text(value))
        ] or None)  # fmt: skip
        return self._profile(key, cells, behind=behind)

    def _profile(self, key: str, cells: Cells, *, behind: bool) -> Profile:
        values = values_of(cells)
        value, wrong = (None, {}) if self.schema is None else self.schema.read(values)
        problems: list[ProfileProblem] = [
            {"field": name, "value": values.get(name or ""), "reason": reason} for name, reason in wrong.items()
        ]
        order = {name: place for place, name in enumerate(self.schema.names if self.schema else sorted(values))}
        shown = sorted(values.keys() - wrong.keys(), key=lambda name: order[name])
        return Profile(
            id=key,
            value=value,
            fields={
                name: {
                    "value": values[name],
                    "facts": _fact_ids(cells[name]["facts"]),
                    "updated_at": from_micros(cells[name]["at"]).isoformat(),
                }
                for name in shown
            },
            updated_at=max((from_micros(cells[name]["at"]).isoformat() for name in shown), default=None),
            behind=behind,
            problems=problems,
        )

    def history(self, scope: Scope) -> list[ProfileChange]:
        """Each change of each field from facts of a scope, in order; of what was forgotten nothing is left."""
        owner = owner_of(scope)
        key = key_of(owner.partition)
        with self.journal.read(snapshot=True) as reader:
            events = [event for event in reader.history(key) if event.op in ("add", "update", "delete")]
            rows = {row.id: cells_of(row) for row in reader.versions_of(key)}
            if scope != owner:
                versions = {one: reader.versions_of(one)[:1] for cells in rows.values() for one in cited(cells)}
                in_scope = {
                    one for one, some in versions.items() if some and scope.ids().items() <= some[0].scope.ids().items()
                }
                rows = {row: _held_by(cells, in_scope) for row, cells in rows.items()}
        changes: list[ProfileChange] = []
        for event in events:
            ended = event.item if event.op == "delete" else event.gone
            before, after = rows.get(ended or 0, {}), {} if event.op == "delete" else rows.get(event.item or 0, {})
            for name in dict.fromkeys((*before, *after)):
                was, now = (cells.get(name, {}).get("value") for cells in (before, after))
                if was != now:
                    facts = _fact_ids(after.get(name, {}).get("facts", ()))
                    changes.append({
                        "field": name, "before": was, "after": now, "facts": facts,
                        "timestamp": from_micros(event.recorded_at).isoformat(), "event_id": str(event.seq),
                    })  # fmt: skip
        return changes

    # -- by hand --------------------------------------------------------------------------------------------------

    def edit(self, scope: Scope, values: Mapping[str, Any]) -> None:
        """Set fields by hand, None clears one; what is told later changes them again.

        Raises:
            InvalidInput: there is no such field, or the schema does not take its value; nothing was written.
        """
        schema, owner = self.schema, owner_of(scope)
        if schema is None:
            raise ConfigurationError(
                "update_profile() needs a schema: open the memory with profile= (on the command line --profile), a "
                "pydantic model or a JSON schema."
            )
        if strange := sorted(str(name) for name in values if name not in schema.names):
            raise InvalidInput(
                f"The profile has no field {shown(strange[0])}; its fields are {', '.join(schema.names)}."
            )
        with self.journal.write(owner.partition) as tx:
            row = tx.memory(key_of(owner.partition))
            old = cells_of(row)
            cells, now = dict(old), tx.now
            for name, value in values.items():
                try:
                    said = None if value is None else schema.coerced(name, value)
                except InvalidInput as error:
                    raise InvalidInput(
                        f"{name} cannot be set: {str(error).rstrip('.')}. Nothing was changed."
                    ) from error
                entries = said if name in schema.lists and isinstance(said, list) else ()
                cells[name] = {"facts": [[] for _ in entries], "at": now, "hand": now}
                cells[name] |= {} if said is None else {"value": said}
            for field, reason in schema.refused(old, cells).items():
                raise InvalidInput(f"{field or 'The profile'} cannot be set: {reason}. Nothing was changed.")
            _write(tx, owner, row, cells, at=now, actor=BY_HAND, by=dict.fromkeys(values, ()))

    # -- following the facts --------------------------------------------------------------------------------------

    def follow(self, scope: Scope) -> Steps[None]:
        """Take in what became of facts since the last step; when the model fails, the next step does."""
        updater = self.updater
        if updater is None:
            return
        try:
            steps = self._follow(updater, owner_of(scope))
            yield from traced("profile", steps, scope=scope, inputs=dict, outputs=lambda _: {})
        except ExtractionError as error:
            # What the provider or the model said may quote facts.
            _LOGGER.warning("A profile stays as it was for now: %s.", type(error.__cause__ or error).__name__)

    def _follow(self, updater: ProfileUpdater, owner: Scope) -> Steps[None]:
        key = key_of(owner.partition)
        for _ in range(LOST_RACES + 1):
            with self.journal.read(snapshot=True) as reader:
                position, row = reader.last_seq(), reader.memory(key)
                changes = self._changes(reader, owner)
                old = cells_of(row)
                live = reader.live_by_key(cited(old))
            if not changes:
                return
            cells = _held_by(old, live.keys())
            by: dict[str, Sequence[str]] = {
                name: sorted(cited({name: cell}) - live.keys()) for name, cell in old.items() if cells.get(name) != cell
            }
            if self._needs_model(cells, changes):
                for start in range(0, len(changes), PAGE):
                    cells, told = yield from updater.patched(cells, changes[start : start + PAGE])
                    by |= {name: [*by.get(name, ()), *ids] for name, ids in told.items()}
            with self.journal.write(owner.partition) as tx:
                now = tx.memory(key)
                if (now and now.seq) == (row and row.seq) and not tx.facts_changed(owner.partition, position):
                    at = min(max((change.began for change in changes), default=tx.now), tx.now)
                    _write(tx, owner, row, cells, at=at, actor=STEP, by=by, prompt=PROFILE_VERSION)
                    return

    def _changes(self, reader: Reader, owner: Scope) -> list[FactChange]:
        """What became of the user's facts since the last step, in order; the newest, where they are very many."""
        since = last_of(reader, key_of(owner.partition), (STEP, FORK))
        said = cited(cells_of(reader.memory(key_of(owner.partition))))
        events: dict[str, list[Event]] = {}
        for event in facts_since(reader, owner.partition, since, most=_EVENTS):
            events.setdefault(event.key, []).append(event)
        live, now = reader.live_by_key(events), self.journal.now()
        changes: list[tuple[int, FactChange]] = []
        for key, some in events.items():
            row, before, last = live.get(key), some[0].prev, some[-1]
            # An undo has put back what the profile said, if it had said anything.
            undone = all(event.op == "undo" for event in some) and (row is None or key in said)
            known = undone or (row is not None and row.text == before)
            if known or (row is None and before is None):
                continue
            if row is None:
                end = last.recorded_at if last.invalid_at is None else last.invalid_at
                changes.append((last.seq, FactChange(key, before, None, last.recorded_at, end)))
            elif row.state != QUARANTINED and not row.expired(now):
                told_at = row.last_seen or row.created_at
                began = row.created_at if row.valid_at is None else row.valid_at
                changes.append((last.seq, FactChange(key, before, row.text, told_at, began, row.offset)))
        return [change for _, change in sorted(changes, key=lambda one: one[0])][-PAGE * PAGES :]

    def _needs_model(self, cells: Cells, changes: Sequence[FactChange]) -> bool:
        """Whether changes can touch a field: what only ended goes by itself, but for what was set by hand."""
        by_hand = any("hand" in cell and "value" in cell for cell in cells.values())
        return any(change.after is not None or by_hand for change in changes)


# -- what every process does, whether it has a schema or not ----------------------------------------------------------


def _fact_ids(facts: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(one for some in facts for one in ([some] if isinstance(some, str) else some)))


def _held_by(cells: Cells, holding: Collection[str]) -> Cells:
    """What of cells counts while some facts hold."""
    return filtered(cells, lambda _, facts: [one for one in facts if one in holding] or None)


def _write(
    tx: Writer,
    owner: Scope,
    row: Row | None,
    cells: Cells,
    *,
    at: int,
    actor: str,
    by: Mapping[str, Sequence[str]],
    batch: str | None = None,
    **more: Any,
) -> None:
    """Write the next version of a profile, or note that there is none; `by` are the facts behind each change."""
    detail = {"by": {name: list(dict.fromkeys(ids)) for name, ids in by.items()}, **more}
    path = owner.partition
    if (row is not None and cells == cells_of(row)) or not (row or cells):
        item = None if row is None else row.id
        tx.event(tx.namespace(path), key_of(path), "profile", "none", item=item, actor=actor, detail=more)
        return
    text = dumps(cells)
    # A version never begins before the one that it replaces.
    at = at if row is None else max(at, row.valid_at or 0)
    new = Row(
        id=0, seq=0, path=path, key=key_of(path), kind="profile", text=text, created_at=row.created_at if row else at,
        updated_at=tx.now, hash=content_hash(text), valid_at=at, last_seen=at, read=True, user_id=owner.user_id,
        agent_id=owner.agent_id, run_id=owner.run_id,
    )  # fmt: skip
    if row is None:
        tx.add_memory(new, terms=b"", vector_bytes=None, actor=actor, batch=batch, detail=detail)
        return
    tx.close_memory(row, invalid_at=at)
    tx.add_memory(
        new, terms=b"", vector_bytes=None, op="update", gone=row.id, prev=row.text, actor=actor, batch=batch,
        detail={**detail, **closing(row)},
    )  # fmt: skip


def recited(row: Row, copies: Mapping[str, str]) -> Row:
    """A profile that cites the copies of facts in their place."""
    cells = filtered(cells_of(row), lambda _, facts: [copies[one] for one in facts if one in copies] or None)
    return replace(row, text=dumps(cells))


def merge_profile(
    tx: Writer, versions: Sequence[Row], originals: Mapping[str, str], batch: str
) -> tuple[list[Committed], list[Conflict]]:
    """Set in a profile what was set by hand in its copy in a fork; what facts say of it follows them by itself.

    `versions` are those of the copy, in order; `originals` has by memory of the fork that of the original.

    Returns:
        What was done, and the fields that the original's side has changed too, which stay as they are there.
    """
    copy, last = versions[0], versions[-1]
    events = tx.history(last.key)
    was, since = (cells_of(copy), copy.id) if events[0].actor == FORK else ({}, 0)
    by_hand = {name for event in events if event.actor == BY_HAND for name in _changed_fields(event, {})}
    owner = Scope(**last.scope.ids()).original
    key = key_of(owner.partition)
    rows, row = {one.id: one for one in tx.versions_of(key)}, tx.memory(key)
    old = cells_of(row)
    moved = {name for event in tx.history(key) if event.seq > since for name in _changed_fields(event, rows)}
    cells, conflicts = dict(old), list[Conflict]()
    said = filtered(cells_of(last), lambda _, facts: [originals[one] for one in facts if one in originals] or None)
    for name, cell in said.items() if last.closed is None else ():
        if name not in by_hand or "hand" not in cell or cell == was.get(name):
            continue
        mine, before, theirs = (one.get("value") for one in (cell, was.get(name, {}), old.get(name, {})))
        if name in moved and theirs not in (mine, before):
            texts = [None if value is None else f"{name}: {as_text(value)}" for value in (theirs, mine)]
            conflicts.append({"id": key, "memory": texts[0], "fork": texts[1], "added": None})
        else:
            cells[name] = cell
    changed = [name for name, cell in cells.items() if cell != old.get(name)]
    if not changed:
        return [], conflicts
    at = max(cells[name]["at"] for name in changed)
    _write(tx, owner, row, cells, at=at, actor=BY_HAND, by=dict.fromkeys(changed, ()), batch=batch)
    text, previous = (dumps(values_of(one)) for one in (cells, old))
    return [Committed(key, "UPDATE" if row else "ADD", text, previous if row else None)], conflicts


def redact(tx: Writer, rows: Sequence[Row]) -> None:
    """Take out of profiles, in all their versions, what they say from facts that are being forgotten.

    What other facts say too stays, where these have its words. What cites others only and has no words but theirs goes
    too: a model may have cited another fact than it read.
    """
    gone = {row.key for row in rows}
    secret = [set(words(row.text)) for row in rows if row.kind == "fact"]

    @cache
    def words_of_versions(key: str) -> list[set[str]]:
        return [set(words(version.text)) for version in tx.versions_of(key)]

    def keep(value: Any, facts: list[str]) -> list[str] | None:
        remaining, said = [one for one in facts if one not in gone], set(words(as_text(value)))
        has_words = any(said <= some for one in remaining for some in words_of_versions(one))
        touched = len(remaining) < len(facts) or any(said <= some for some in secret)
        return remaining if has_words or not touched else None

    owners = {row.path: row.scope for row in rows if row.kind == "fact"}
    # A fork that was made when the fact had ended has no copy of it, but may have its words.
    known = [one for one in owners.values() if one and one.fork is None]
    copies = (one.forked(fork.token).partition for fork in forks(tx) for one in known)
    for path in dict.fromkeys((*owners, *copies)):
        key = key_of(path)
        for version in () if key in gone else tx.versions_of(key):
            text = dumps(filtered(cells_of(version), keep))
            if text != version.text:
                tx.redact(version, text, content_hash(text), terms=b"", vector_bytes=None)


def take_back(tx: Writer, path: str, facts: Mapping[str, int], own: Collection[int], *, alone: bool) -> list[Committed]:
    """Give a profile's fields what they were before some events; a field that others changed since stays as it is.

    Args:
        tx: The transaction of the undo.
        path: The profile's namespace.
        facts: By fact the position of the first of its events that were undone: what followed them is taken back.
        own: The positions of the profile's own events that are to be undone.
        alone: Whether nothing else is undone.

    Raises:
        InvalidInput: one of its own events was undone already, or changed since.
    """
    key = key_of(path)
    events = [event for event in tx.history(key) if event.op in ("add", "update", "delete")]
    rows = {row.id: row for row in tx.versions_of(key)}
    row = tx.memory(key)
    cells, causes, undoes = cells_of(row), dict[str, Sequence[str]](), dict[str, list[int]]()
    for name in {name for event in events for name in _changed_fields(event, rows)}:
        standing = _standing_changes(events, rows, name)
        undone = [event for event in standing if event.seq in own or _follows(event, name, facts)]
        if not undone:
            continue
        first = undone[0]
        # What was changed and taken back in between is as it was.
        later = [e.seq for e in standing if e.seq > first.seq and min(_undone(e, name), default=0) < first.seq]
        if later := sorted(set(later).difference(event.seq for event in undone)):
            if alone:
                raise InvalidInput(f"Event {later[-1]} has changed {name} of this profile since; undo that one first.")
            continue
        version = (first.item if first.op == "delete" else first.gone) or 0
        before = _still_said(tx, version, name, cells_of(rows.get(version)).get(name), facts)
        causes[name] = sorted({one for event in undone for one in event.detail.get("by", {}).get(name, ())})
        if not any(event.seq in own for event in undone):
            # What the same step took from facts that stay, stays.
            before = _joined_with(before, cells.get(name), set(causes[name]).difference(facts))
        cells = {other: cell for other, cell in cells.items() if other != name}
        cells |= {name: before} if before is not None else {}
        undoes[name] = [event.seq for event in undone]
    if alone and not undoes:
        raise InvalidInput("This event of a profile was undone already, or changed nothing.")
    if not undoes:
        return []
    owner = next(one.scope for one in rows.values())
    _write(tx, owner, row, cells, at=tx.now, actor=BY_HAND, by=causes, undoes=undoes)
    return [Committed(key, "UPDATE", dumps(values_of(cells)), dumps(values_of(cells_of(row))))]


def _standing_changes(events: Sequence[Event], rows: Mapping[int, Row], name: str) -> list[Event]:
    """The events of a profile that changed a field and were not taken back, in order."""
    standing = {event.seq: event for event in events if name in _changed_fields(event, rows)}
    for event in reversed(list(standing.values())):
        for gone in _undone(event, name) if event.seq in standing else ():
            standing.pop(gone, None)
    return list(standing.values())


def _still_said(tx: Writer, version: int, name: str, cell: Cell | None, facts: Collection[str]) -> Cell | None:
    """A field as a version had it, without what facts say otherwise that were changed before they ended."""
    newer = {key: live.text for key, live in tx.live_by_key(facts).items() if live.id > version}
    said = filtered({} if cell is None else {name: cell}, lambda value, told: [
        one for one in told if says_all(newer.get(one) or as_text(value), as_text(value))
    ] or None)  # fmt: skip
    return said.get(name)


def _joined_with(before: Cell | None, now: Cell | None, facts: Collection[str]) -> Cell | None:
    """A field as it was before, with what some facts say in it now."""
    left = filtered({"": now} if now else {}, lambda _, told: [one for one in told if one in facts] or None).get("")
    if left is None or "value" not in left or not any(one in facts for one in cited({"": left})):
        return before
    return left if before is None else joined(before, left)


def _changed_fields(event: Event, rows: Mapping[int, Row]) -> Iterable[str]:
    """The fields that an event of a profile changed."""
    return cells_of(rows.get(event.item or 0)) if event.op == "delete" else event.detail.get("by", ())


def _undone(event: Event, name: str) -> list[int]:
    """The events that an event took back for a field."""
    found: list[int] = event.detail.get("undoes", {}).get(name, [])
    return found


def _follows(event: Event, name: str, facts: Mapping[str, int]) -> bool:
    """Whether an event followed one of some events of facts; what took back later ones did not."""
    earliest = min(_undone(event, name), default=0)
    return any(earliest < facts[one] < event.seq for one in event.detail.get("by", {}).get(name, ()) if one in facts)
