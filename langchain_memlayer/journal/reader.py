"""What is read of memories: their versions, events and links, and what is unread; `Reader` has all reads."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

import orjson

from langchain_memlayer.filters import Filter
from langchain_memlayer.journal.database import DAMAGED, IN_USE, VECTORS_OF_ITEM, placeholders, sound
from langchain_memlayer.journal.filter_sql import ANY, like, superset
from langchain_memlayer.journal.item_reader import HIGHEST, LONGEST_PAGE, PAGE, ItemReader
from langchain_memlayer.json_values import dumps, loads
from langchain_memlayer.types import (
    FORK,
    OWED,
    QUARANTINED,
    SPENT,
    VISIBLE,
    Event,
    Kind,
    Row,
    Scope,
    ToRead,
    Unread,
    prefix_bounds,
)

_OLDEST = "ORDER BY i.id"
_SPOT = "coalesce(i.place, i.id)"
"""Where a memory stands among those of the same time: a turn whose words were changed stays where it was."""
_MOST_SOUGHT = 20
ROW_COLUMNS = (
    "i.id, i.seq, n.path, i.key, i.kind, i.value, i.created_at, i.updated_at, i.closed, i.metadata, i.user_id, "
    "i.agent_id, i.run_id, i.session_id, i.role, i.name, i.message_id, i.time, i.hash, i.sources, i.turns, "
    "i.valid_at, i.invalid_at, i.state, i.asks, i.given, i.count, i.last_seen, i.last_event, i.place, i.read, "
    "i.utc_offset"
)
EVENT_COLUMNS = (
    "e.seq, e.recorded_at, e.key, e.kind, e.op, e.prev, e.value, e.actor, e.sources, e.valid_at, e.invalid_at, "
    "e.batch, e.detail, e.item, e.gone"
)
ROW_FROM = "items i JOIN namespaces n ON n.id = i.ns"
LINKS = "links l JOIN items f ON f.id = l.fact JOIN items t ON t.id = l.turn AND t.ns = f.ns"
"""Facts `f` with the turns `t` that they cite; a damaged link leads to nobody else's."""
_KINDS = ("fact", "turn", "profile")
_TEXTS = itemgetter(3, 5, 28, *range(10, 17), 18)
"""What of `ROW_COLUMNS` is text: the id, the words, the last event, the ids of the scope, names, a role, a digest."""
_NUMBERS = itemgetter(1, 6, 7, 8, 17, *range(21, 25), 26, 27, 29, 31)
_TEXT_OR_NONE, _NUMBER_OR_NONE = {str, type(None)}, {int, type(None)}

_TURN = dict.fromkeys(("text", "role", "id", "name", "session_id", "time", "valid_until", "batch"), str) | {
    "metadata": dict, "quarantined": bool,
}  # fmt: skip
_UNREAD = (
    "u.id, u.user_id, u.agent_id, u.run_id, u.turns, u.detail, u.attempts, u.next_at, u.reason, u.set_aside, "
    "u.recorded_at, (SELECT n.path FROM namespaces n WHERE n.id = u.ns)"
)

_EXACTLY = "n.path = ? AND i.user_id IS ? AND i.agent_id IS ? AND i.run_id IS ?"
_UNSAID = "(i.read IS NULL OR i.given = 1)"
"""Facts, what was stored as given, and turns that were not read: nothing that a fact says, or that says nothing."""
_UNCITED = "NOT EXISTS (SELECT 1 FROM links l JOIN items f ON f.id = l.fact WHERE l.turn = i.id AND f.closed IS NULL)"

# `created_at` is when the memory began, in its first version.
_BEGAN = (
    "coalesce(CASE WHEN i.last_event = 'update' THEN (SELECT p.invalid_at FROM items p WHERE p.key = i.key AND "
    "p.kind <> 'item' AND p.closed = i.id) END, i.valid_at, i.created_at)"
)


UNFORKED = f"substr(coalesce(i.user_id, i.agent_id, i.run_id, ''), 1, 1) <> '{FORK}'"
"""No copy in a fork. Whoever asks for given ids gets none: those of forks are others."""


def ended_by(when: str) -> str:
    """The SQL condition that a version had ended at a position, by its events.

    One that an undo brought back has no end any longer: that it had one in between only these say.

    Args:
        when: A further condition on the event that ended it.
    """
    return (
        f"coalesce((SELECT (e.op = 'delete' OR e.gone = i.id) AND {when} FROM events e WHERE e.key = i.key AND e.kind "
        "<> 'item' AND (e.item = i.id OR e.gone = i.id) AND e.op IN ('add', 'update', 'delete', 'undo') AND e.seq <= ? "
        "ORDER BY e.seq DESC LIMIT 1), 1 = 0)"
    )


def _exact(scope: Scope) -> tuple[str | None, ...]:
    """The values of `_EXACTLY`."""
    return scope.partition, scope.user_id, scope.agent_id, scope.run_id


def _passing(scope: Scope, condition: Filter | None, *, ended: bool) -> tuple[str, tuple[Any, ...]]:
    where, values = of_scope(scope)
    wanted, more = ANY if condition is None else superset(condition)
    return f"{where} AND {wanted}{'' if ended else ' AND i.closed IS NULL'}", (*values, *more)


def of_scope(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """The condition for all memories of a scope, and its values; absent ids mean any."""
    ids = scope.ids()
    conditions = [f"i.{name} = ?" for name in ids]
    if scope.user_id is not None:
        return " AND ".join(["n.path = ?", *conditions]), (scope.partition, *ids.values())
    return " AND ".join(conditions) or UNFORKED, tuple(ids.values())


def _of_items(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """The same, as what is appended to a condition on items alone."""
    ids = scope.ids()
    where = "".join(f" AND i.{name} = ?" for name in ids) or f" AND {UNFORKED}"
    if scope.user_id is None:
        return where, tuple(ids.values())
    return f"{where} AND i.ns = (SELECT id FROM namespaces WHERE path = ?)", (*ids.values(), scope.partition)


def to_row(r: Sequence[Any]) -> Row:
    """The memory version in one row of `ROW_COLUMNS`.

    Raises:
        ValueError: it is damaged; or TypeError.
    """
    texts = _TEXTS(r)
    if not ({*map(type, texts)} <= _TEXT_OR_NONE and {*map(type, _NUMBERS(r))} <= _NUMBER_OR_NONE):
        raise TypeError("a text or a number of another type")
    if r[4] not in _KINDS or None in (r[1], r[3], r[5], r[6], r[7]) or not {"", " "}.isdisjoint(r[10:13]):
        raise TypeError("another kind, an id that is none, or what is missing")
    if "\x00" in "".join(filter(None, texts)):
        raise ValueError("a NUL, which no text has")
    metadata = loads(r[9]) if r[9] else {}
    sources, turns = (tuple(orjson.loads(one)) if one else () for one in r[19:21])
    if not (isinstance(metadata, dict) and {*map(type, sources)} <= {str} and {*map(type, turns)} <= {int}):
        raise TypeError("metadata or sources of another type")
    fields: list[Any] = [
        *r[:9], metadata, *r[10:19], sources, turns, *r[21:23],
        r[23] or 0, r[24] or 0, bool(r[25]), r[26] or 1, r[27], r[28] or "add", r[29], bool(r[30]), r[31],
    ]  # fmt: skip
    return Row(*fields)


def _to_any_row(r: Sequence[Any]) -> Row:
    """The same, of a damaged one no more than its numbers say: enough to erase it."""
    try:
        return to_row(r)
    except DAMAGED:
        given = (one if isinstance(one, str) and "\x00" not in one else None for one in (r[3], *r[10:13]))
        key, *ids = (one if one and one.strip() else None for one in given)
        kind: Kind = r[4] if r[4] in _KINDS else "turn"
        return Row(
            id=r[0], seq=0, path=r[2], key=key or "", kind=kind, text="", created_at=0, updated_at=0, user_id=ids[0],
            agent_id=ids[1], run_id=ids[2],
        )  # fmt: skip


def to_event(r: Sequence[Any]) -> Event:
    """The event in one row of `EVENT_COLUMNS`.

    Raises:
        ValueError: it is damaged; or TypeError.
    """
    sources, detail = tuple(orjson.loads(r[8])) if r[8] else (), orjson.loads(r[12]) if r[12] else {}
    if not (isinstance(r[1], int) and isinstance(detail, dict)):
        raise TypeError("a time or details of another type")
    fields: list[Any] = [*r[:8], sources, *r[9:12], detail, *r[13:]]
    return Event(*fields)


def _to_quote(r: Any) -> Any:
    """A row that ends with a quote; one that is damaged is empty."""
    return (*r[:-1], r[-1] if r[-1] is None or isinstance(r[-1], str) else "")


def are_turns(plain: Any) -> bool:
    """Whether these are turns whose words are kept until they are read."""
    try:
        for one in plain:
            for name in one.keys() & {"time", "valid_until"}:
                datetime.fromisoformat(one[name])
        known = all(type(value) is _TURN.get(name) for one in plain for name, value in one.items())
        return known and all(one.keys() >= {"text", "role"} for one in plain)
    except (*DAMAGED, AttributeError):
        return False


def _to_unread(r: Sequence[Any]) -> Unread:
    detail, turns = ToRead.of(orjson.loads(r[5]) if r[5] else {}), orjson.loads(r[4])
    numbers = all(isinstance(one, int) and one < HIGHEST for one in (*turns, r[6], r[7], r[10]))
    if not (numbers and are_turns(detail.turns)):
        raise TypeError("details, turns or a number of another type")
    scope = Scope(*r[1:4])
    if scope.partition != r[11]:
        # What is found in it would be told to somebody else.
        raise ValueError("ids of another namespace")
    return Unread(r[0], scope, tuple(turns), detail, *r[6:11])


class Reader(ItemReader):
    """Reads of one connection. Numbers of rows are what SQL returns; every method is one or two statements."""

    def counts(self) -> Mapping[str, int]:
        """Numbers for `stats`: live rows by kind, events, vectors, namespaces, triples."""
        one = "SELECT count(*) FROM "
        live = self.db.execute("SELECT kind, count(*) FROM items WHERE closed IS NULL GROUP BY kind")
        by_kind = dict(live.fetchall())
        rows = ("events", f"vectors WHERE id * {IN_USE} > 0", "namespaces", "triples")
        return {
            "items": by_kind.get("item", 0),
            "facts": by_kind.get("fact", 0),
            "turns": by_kind.get("turn", 0),
            "ended": self.db.execute(one + "items WHERE closed IS NOT NULL AND kind <> 'profile'").fetchone()[0],
            **{some.split()[0]: self.db.execute(one + some).fetchone()[0] for some in rows},
        }

    def scopes(self, scope: Scope, *, most: int, offset: int) -> list[tuple[Any, ...]]:
        """Whose memories there are, by their ids: the ids, live facts, live turns, first begun, last written."""
        where, owners = _of_items(scope)
        names = ("i.user_id", "i.agent_id", "i.run_id")
        counts = ", ".join(f"sum(CASE WHEN i.kind = '{kind}' THEN 1 ELSE 0 END)" for kind in ("fact", "turn"))
        # What is no time is beyond all numbers.
        times = (
            f"coalesce({most}(CASE WHEN i.{name} < {HIGHEST} THEN i.{name} END), 0)"
            for most, name in (("min", "created_at"), ("max", "updated_at"))
        )
        order = ", ".join(f"coalesce({name}, '')" for name in names)
        rows = self.db.execute(
            f"SELECT {', '.join((*names, counts, *times))} FROM items i WHERE i.closed IS NULL AND "
            f"i.kind <> 'item' AND i.kind <> 'profile'{where} GROUP BY {', '.join(names)} "
            f"ORDER BY {order} LIMIT ? OFFSET ?",
            (*owners, most, offset),
        )
        return rows.fetchall()

    # -- memories; a version is a row of its own, and the live one has no end -------------------------------------

    def _memories(
        self,
        where: str,
        params: Sequence[Any],
        *,
        tail: str = "",
        source: str = ROW_FROM,
        read: Callable[[Any], Row] = to_row,
    ) -> list[Row]:
        """Memory versions by an SQL condition on `i` and `n`."""
        rows = self.db.execute(
            f"SELECT {ROW_COLUMNS} FROM {source} WHERE i.kind <> 'item' AND ({where}) {tail}", tuple(params)
        )
        return list(sound(rows, read))

    def _memories_among(self, where: str, ids: Sequence[Any]) -> list[Row]:
        """Memory versions by a condition with any number of rows or keys for its `(...)`."""
        sql = f"SELECT {ROW_COLUMNS} FROM {ROW_FROM} WHERE i.kind <> 'item' AND {where}"
        return list(sound(self.among(sql, ids), to_row))

    def _matching(self, column: str, values: Collection[str], where: str, params: Sequence[Any]) -> list[Row]:
        """The memory versions by a condition whose column has one of some values; it is looked up for each of these.

        Of a list in the statement SQLite believes that it has more entries than a namespace has rows.
        """
        if not values:
            return []
        source = f"{self.EACH.format('?')} CROSS JOIN namespaces n CROSS JOIN items i"
        sought = orjson.dumps(list(values)).decode()
        return self._memories(
            f"i.ns = n.id AND {column} = one.value AND {where}", (sought, *params), tail=_OLDEST, source=source
        )

    def memories_passing(self, scope: Scope, condition: Filter | None, *, ended: bool) -> list[Row]:
        """The live memories of a scope (with `ended`, all versions) of which SQL cannot say that a filter fails."""
        where, values = _passing(scope, condition, ended=ended)
        return self._memories(where, values)

    def ids_passing(self, scope: Scope, condition: Filter | None, *, ended: bool) -> list[int]:
        """The row ids of `memories_passing`."""
        where, values = _passing(scope, condition, ended=ended)
        rows = self.db.execute(f"SELECT i.id FROM {ROW_FROM} WHERE i.kind <> 'item' AND {where}", values)
        return [row[0] for row in rows]

    def oldest_first(
        self, scope: Scope, *, kinds: Collection[str], lasting: int | None = None, after: tuple[int, int] | None = None
    ) -> Iterator[int]:
        """The rows of a scope's live memories in order: those of some kinds, or (of none) all but turns that were read.

        They are read page by page, so what is not taken costs nothing. To be called in a snapshot. With `lasting` only
        those that have not ceased to count by a time, with `after` those behind a row, given by when it began and its
        place (its number when it has none).
        """
        ids = scope.ids()
        after = (-HIGHEST, 0) if after is None else after
        where = "".join(f" AND i.{name} = ?" for name in ids) or f" AND {UNFORKED}"
        values: tuple[Any, ...] = tuple(ids.values())
        if lasting is not None:
            where += f" AND (i.invalid_at IS NULL OR i.invalid_at > ? OR i.state = {SPENT})"
            values += (lasting,)
        # SQLite does not see that a turn is no item, which is what the index is of.
        parts = [f"i.kind = '{kind}' AND i.kind <> 'item'" for kind in sorted(kinds)] or [_UNSAID]
        if scope.user_id is None:
            yield from (row for _, row in self._ordered(f"({' OR '.join(parts)}){where}", values, after))
            return
        space = self.namespace_id(scope.partition)
        pages = [self._ordered(f"i.ns = ? AND {part}{where}", (space, *values), after) for part in parts]
        yield from (row for _, row in heapq.merge(*pages))

    def expired_memories(self, scope: Scope, now: int) -> set[int]:
        """The rows of a scope's live memories that have ceased to count by a time."""
        where, owners = _of_items(scope)
        rows = self.db.execute(
            f"SELECT i.id FROM items i WHERE i.closed IS NULL AND i.kind <> 'item' AND i.invalid_at IS NOT NULL AND "
            f"coalesce(i.state, 0) <> {SPENT} AND i.invalid_at <= ?{where}",
            (now, *owners),
        )
        return {row[0] for row in rows}

    def _ordered(self, where: str, values: Sequence[Any], after: tuple[int, int]) -> Iterator[tuple[Any, int]]:
        # SQLite takes a partial index only where its condition is written out.
        sql = (
            f"SELECT i.created_at, {_SPOT}, i.id FROM items i WHERE {where} AND i.closed IS NULL AND i.kind <> 'item' "
            f"AND {{}} ORDER BY i.created_at, {_SPOT} LIMIT ?"
        )
        # In two steps: of a pair with an expression in it SQLite seeks the first part only.
        beside, behind = sql.format(f"i.created_at = ? AND {_SPOT} > ?"), sql.format("i.created_at > ?")
        # They are numbers alone, and mostly a hundred memories are asked for.
        (created, spot), size = after, 2 * PAGE
        while True:
            page = [] if created == -HIGHEST else self.db.execute(beside, (*values, created, spot, size)).fetchall()
            if len(page) < size:
                page += self.db.execute(behind, (*values, created, size - len(page))).fetchall()
            # What is no number comes last, and is told when the row is read.
            yield from ((one[:2] if {*map(type, one)} == {int} else (HIGHEST, HIGHEST), one[2]) for one in page)
            if len(page) < size:
                return
            (created, spot), size = page[-1][:2], min(4 * size, LONGEST_PAGE)

    def memory(self, key: str) -> Row | None:
        """The current version of a memory, or None."""
        rows = self._memories("i.key = ? AND i.closed IS NULL", (key,))
        return rows[0] if rows else None

    def live_by_key(self, keys: Collection[str]) -> dict[str, Row]:
        """The current versions of some memories, by id."""
        return {row.key: row for row in self._memories_among("i.key IN (...) AND i.closed IS NULL", list(keys))}

    def memories_by_row(self, ids: Sequence[int]) -> dict[int, Row]:
        """Memory versions by row id, ended ones too."""
        return {row.id: row for row in self._memories_among("i.id IN (...)", ids)}

    def memories_in_order(self, ids: Sequence[int]) -> list[Row]:
        """Memory versions by row id, in the order of these."""
        by_row = self.memories_by_row(ids)
        return [by_row[row] for row in ids if row in by_row]

    def unread(
        self,
        scope: Scope | None = None,
        *,
        due: int | None = None,
        set_aside: bool | None = None,
        owed: bool = False,
        about: Collection[int | str] | None = None,
    ) -> list[Unread]:
        """The calls whose facts were not looked for yet, oldest first.

        Args:
            scope: Whose; None for all of the store.
            due: Only those that are to be tried by this time, microseconds since 1970 UTC.
            set_aside: Only those that were set aside, or only the others.
            owed: Only those that owe no facts but vectors.
            about: Those that may be of one of some turns, each given by its row or, when not kept, by its words or
                its message's id.
        """
        if about is not None and not about:
            return []
        where: list[str] = ["1 = 1"]
        values: list[Any] = []
        for name, value in (scope.ids() if scope is not None else {}).items():
            where.append(f"u.{name} = ?")
            values.append(value)
        if due is not None:
            where.append("u.next_at <= ?")
            values.append(due)
        if set_aside is not None:
            where.append(f"u.set_aside IS {'NOT ' if set_aside else ''}NULL")
        if owed:
            where.append("u.detail = ?")
            values.append(dumps(OWED.plain()))
        if about is not None and len(about) <= _MOST_SOUGHT:
            # Whoever tells one thing after the other while the model is down does not read all that waits each time.
            sought = [("turns", str(one)) if isinstance(one, int) else ("detail", dumps(one)[1:-1]) for one in about]
            where.append(" OR ".join(f"u.{column} LIKE ? ESCAPE '!'" for column, _ in sought).join("()"))
            values += [like(part) for _, part in sought]
        rows = self.db.execute(
            f"SELECT {_UNREAD} FROM unread u WHERE {' AND '.join(where)} ORDER BY u.id", tuple(values)
        ).fetchall()
        return list(sound(rows, _to_unread))

    def unread_note(self, note: int) -> Unread | None:
        """One of these calls by its number; None when it is gone."""
        rows = self.db.execute(f"SELECT {_UNREAD} FROM unread u WHERE u.id = ?", (note,)).fetchall()
        return next(sound(rows, _to_unread), None)

    def turns_of_notes(self, notes: Sequence[Unread]) -> dict[int, Row]:
        """The turns of notes, by row; none of somebody else, which a damaged note may have."""
        rows = self.memories_by_row([row for note in notes for row in note.turns])
        own = ((rows[turn], note) for note in notes for turn in note.turns if turn in rows)
        return {row.id: row for row, note in own if row.scope == note.scope}

    def next_unread(self, after: int, *, owed: bool) -> int | None:
        """When, behind a time, the first of these calls is to be tried that were not set aside; None when none is."""
        which, values = (" AND detail = ?", (dumps(OWED.plain()),)) if owed else ("", ())
        # In SQLite a damaged time may be no number.
        time = "CAST(next_at AS BIGINT)"
        row = self.db.execute(
            f"SELECT min({time}) FROM unread WHERE set_aside IS NULL AND {time} > ?{which}", (after, *values)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def history(self, key: str) -> list[Event]:
        """Every event of one memory, in order."""
        rows = self.db.execute(
            f"SELECT {EVENT_COLUMNS} FROM events e WHERE e.key = ? AND e.kind <> 'item' ORDER BY e.seq", (key,)
        )
        return list(sound(rows, to_event))

    def versions_at(self, prefix: str, *, as_of: int | None, known_at: int | None) -> list[tuple[int, bool]]:
        """The memory versions below a namespace that held at one time, by what was known at another.

        A version that replaced another began to hold when that one ceased to. Where several of one memory would hold,
        the one that was recorded last does.

        Args:
            prefix: The namespace.
            as_of: When they held, microseconds since 1970 UTC; None for what had not been ended.
            known_at: What was recorded later does not count; None for everything.

        Returns:
            Row ids, each with whether it is a turn and what it told had ended.
        """
        position = sys.maxsize
        if known_at is not None:
            position = self.position_at(prefix, known_at)
        where, values = "(i.closed IS NULL OR i.closed > ?)", [position]
        if as_of is not None:
            lives = f"i.invalid_at IS NULL OR i.invalid_at > ? OR i.state = {SPENT}"
            where = f"{_BEGAN} <= ? AND ((i.closed IS NULL AND ({lives})) OR i.closed > ? OR i.invalid_at > ?)"
            values = [as_of, as_of, position, as_of]
        if known_at is not None:
            where = f"{where} AND NOT {ended_by('1 = 1' if as_of is None else 'e.invalid_at <= ?')}"
            values += [position] if as_of is None else [as_of, position]
        return self.db.execute(
            # By the events that made them rows are read in the order in which they lie.
            "WITH found AS (SELECT i.id AS id, i.state AS state, row_number() OVER (PARTITION BY i.ns, i.key ORDER BY "
            "i.id DESC) AS place FROM namespaces n JOIN events o ON o.ns = n.id JOIN items i ON i.id = o.seq AND "
            f"i.ns = n.id WHERE n.path >= ? AND n.path < ? AND i.kind <> 'item' AND i.id <= ? AND {where}), held AS "
            "(SELECT id, state FROM found WHERE place = 1) "
            f"SELECT id, coalesce(state, 0) = {SPENT} AND NOT EXISTS (SELECT 1 FROM links l JOIN held f ON f.id = "
            "l.fact JOIN items i ON i.id = f.id WHERE l.turn = held.id AND i.closed IS NOT NULL) FROM held",
            (*prefix_bounds(prefix), position, *values),
        ).fetchall()

    def position_at(self, prefix: str, known_at: int) -> int:
        """The last event, below a namespace or of all, that was recorded by a time."""
        # Where nothing was recorded later it is the last one of all: a clock that was put back wrote those at the end.
        row = self.db.execute(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM events WHERE recorded_at > ?) THEN (SELECT seq FROM events WHERE "
            "recorded_at <= ? ORDER BY recorded_at DESC, seq DESC LIMIT 1) ELSE (SELECT max(seq) FROM events) END",
            (known_at, known_at),
        ).fetchone()
        return int(row[0] or 0)

    def quotes_of(self, fact: int) -> list[tuple[int, str | None]]:
        """The turns that a fact cites, each with the words that support it."""
        return [(turn, quote) for _, turn, quote in self.quotes_of_all([fact])]

    def quotes_of_all(self, facts: Sequence[int]) -> list[tuple[int, int, str | None]]:
        """The turns that facts cite, each with the words that support it: (fact, turn, quote)."""
        rows = self.among(
            f"SELECT l.fact, l.turn, l.quote FROM {LINKS} WHERE l.fact IN (...) ORDER BY l.fact, l.turn", facts
        )
        return [_to_quote(row) for row in rows]

    def turns_with_facts(self, turns: Sequence[int]) -> list[int]:
        """Those of some turns that a fact cites or cited."""
        return [row[0] for row in self.among(f"SELECT DISTINCT l.turn FROM {LINKS} WHERE l.turn IN (...)", turns)]

    def keys_told_by(self, turns: Sequence[int]) -> dict[int, set[str]]:
        """The ids of the facts of which some version cites a turn, by turn."""
        keys: dict[int, set[str]] = {}
        sql = f"SELECT l.turn, f.key FROM {LINKS} WHERE l.turn IN (...)"
        for turn, key in self.among(sql, turns):
            keys.setdefault(turn, set()).add(key)
        return keys

    def quotes_from(self, turn: int) -> list[tuple[int, str | None]]:
        """The facts that cite a turn, each with the words that support it."""
        rows = self.db.execute(f"SELECT l.fact, l.quote FROM {LINKS} WHERE l.turn = ? ORDER BY l.fact", (turn,))
        return [_to_quote(row) for row in rows]

    def facts_changed(self, path: str, since: int) -> bool:
        """Whether facts of a namespace were added, changed, ended or forgotten after a position."""
        row = self.db.execute(
            "SELECT 1 FROM events WHERE seq > ? AND (op = 'reset' OR (ns = (SELECT id FROM namespaces WHERE path = ?) "
            "AND kind = 'fact' AND op IN ('add', 'update', 'delete', 'undo'))) LIMIT 1",
            (since, path),
        ).fetchone()
        return row is not None

    # -- what the write path asks ---------------------------------------------------------------------------------

    def memories_of(self, scope: Scope, *, ended: bool = False) -> list[Row]:
        """The live memories of a scope (with `ended`, all versions); absent ids mean any."""
        return self.memories_passing(scope, None, ended=ended)

    def versions_of(self, key: str) -> list[Row]:
        """All versions of a memory in the order in which they ended, the live one last."""
        return sorted(self._memories("i.key = ?", (key,), tail=_OLDEST), key=lambda row: row.until)

    def turns_of_messages(
        self, scope: Scope, messages: Collection[tuple[str | None, str]]
    ) -> dict[tuple[str | None, str], list[Row]]:
        """The turns of messages, each given by its session and id, in exactly a scope and in all versions.

        A turn that was merged with an equal one left its id among the sources of that one.
        """
        by_message: dict[tuple[str | None, str], list[Row]] = {one: [] for one in messages}
        where, values = f"{_EXACTLY} AND i.kind = 'turn'", _exact(scope)
        for row in self._matching("i.message_id", {message for _, message in messages}, where, values):
            by_message.get((row.session_id, row.message_id or ""), []).append(row)
        missing: dict[str | None, list[str]] = {}
        for (session, message), rows in by_message.items():
            if not rows:
                missing.setdefault(session, []).append(message)
        sources = f"SELECT value FROM {self.EACH.format('i.sources')}"
        merged = f"i.count > 1 AND EXISTS ({sources} WHERE value IN (SELECT value FROM {self.EACH.format('?')}))"
        for session, ids in missing.items():
            sought = orjson.dumps(ids).decode()
            for row in self._memories(f"{where} AND i.session_id IS ? AND {merged}", (*values, session, sought)):
                for message in set(ids).intersection(row.sources):
                    by_message[session, message].append(row)
        return by_message

    def equal_memories(self, scope: Scope, kind: Kind, digests: Collection[str]) -> dict[str, list[Row]]:
        """The live memories of a kind and of exactly a scope whose texts have digests, by digest."""
        by_hash: dict[str, list[Row]] = {digest: [] for digest in digests}
        # The kind is no condition: SQLite would go through all of that kind.
        for row in self._matching("i.hash", by_hash, f"{_EXACTLY} AND i.closed IS NULL", _exact(scope)):
            if row.kind == kind:
                by_hash[row.hash or ""].append(row)
        return by_hash

    def session_tail(self, scope: Scope, session: str | None, *, before: int, most: int) -> list[Row]:
        """The last visible turns of a session of exactly a scope before a place in it, in order."""
        rows = self._memories(
            f"{_EXACTLY} AND i.kind = 'turn' AND i.closed IS NULL AND i.session_id IS ? AND coalesce(i.state, 0) = 0 "
            "AND i.place < ?",
            (*_exact(scope), session, before),
            tail=f"ORDER BY i.place DESC LIMIT {most}",
        )
        return rows[::-1]

    def turns_around(
        self, scope: Scope, turn: Row, distance: int, *, quarantined: bool, until: int | None, lasting: int | None
    ) -> list[Row]:
        """The turns of a scope up to `distance` before and after one in its session, in order; none that is hidden.

        Turns without a session count as one session.

        With `until` only those that were there by a time, with `lasting` those that have not expired by one
        (microseconds since 1970 UTC).
        """
        owned, ids = of_scope(scope)
        states = [VISIBLE, SPENT, *([QUARANTINED] if quarantined else [])]
        session, said_in = ("IS NULL", ()) if turn.session_id is None else ("= ?", (turn.session_id,))
        where = (
            f"{owned} AND n.path = ? AND i.session_id {session} AND i.kind = 'turn' AND i.closed IS NULL AND "
            f"coalesce(i.state, {VISIBLE}) IN ({', '.join(map(str, states))}) AND i.created_at <= ? AND "
            f"(i.invalid_at IS NULL OR i.invalid_at > ? OR i.state = {SPENT})"
        )
        latest, expired = HIGHEST if until is None else until, -HIGHEST if lasting is None else lasting
        values = (*ids, turn.path, *said_in, latest, expired, turn.place)
        before = self._memories(f"{where} AND i.place < ?", values, tail=f"ORDER BY i.place DESC LIMIT {distance}")
        after = self._memories(f"{where} AND i.place > ?", values, tail=f"ORDER BY i.place LIMIT {distance}")
        return [*reversed(before), *after]

    def without_vectors(self, ids: Sequence[int]) -> list[int]:
        """Those of some rows that have no vectors."""
        sql = f"SELECT i.id FROM items i JOIN vectors v ON {VECTORS_OF_ITEM} WHERE i.id IN (...)"
        with_vectors = {row[0] for row in self.among(sql, ids)}
        return [item for item in ids if item not in with_vectors]

    def uncited(self, turns: Sequence[int]) -> list[Row]:
        """Those of some turns that are live and that no live fact cites."""
        return self._memories_among(f"i.id IN (...) AND i.closed IS NULL AND {_UNCITED}", turns)

    def turns_behind(self, key: str) -> list[Row]:
        """The turns behind any version of a fact, but for those that its live version cites."""
        # That it is no item is said because the index of ids is of memories alone.
        cited = f"i.id IN (SELECT l.turn FROM {LINKS} WHERE f.key = ? AND f.kind <> 'item'{{}})"
        return self._memories(f"{cited.format('')} AND NOT {cited.format(' AND f.closed IS NULL')}", (key, key))

    def quotes_of_ended(self, turns: Sequence[int]) -> list[tuple[int, str | None, int]]:
        """Those of some turns that told what has ended, with its quote and row: no live version of it cites them."""
        return self.among(
            f"SELECT l.turn, l.quote, l.fact FROM {LINKS} WHERE f.closed IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM links m JOIN items g ON g.id = m.fact WHERE m.turn = l.turn AND g.key = f.key AND g.closed "
            "IS NULL) AND l.turn IN (...)",
            turns,
        )

    def told_until(self, turns: Sequence[int], now: int) -> dict[int, int]:
        """When what some turns told expired (microseconds since 1970 UTC), for those of which something has by now."""
        over = f"SELECT l.turn, f.invalid_at FROM {LINKS} WHERE f.closed IS NULL AND f.invalid_at <= ?"
        return dict(self.among(f"{over} AND l.turn IN (...)", turns, before=(now,)))

    def facts_of(self, turns: Sequence[int]) -> list[Row]:
        """The live facts that cite some of these turns and no others, but for such as were deleted themselves."""
        if not turns:
            return []
        these = placeholders(len(turns))
        return self._memories(
            f"i.kind = 'fact' AND i.closed IS NULL AND i.id IN (SELECT l.fact FROM {LINKS} WHERE l.turn IN "
            f"({these})) AND NOT EXISTS (SELECT 1 FROM {LINKS} WHERE l.fact = i.id AND "
            # What was only noted was closed as it was made.
            f"l.turn NOT IN ({these}) AND (t.closed IS NULL OR t.closed = t.id))",
            (*turns, *turns),
        )

    def having_all(self, scope: Scope, terms: Sequence[str]) -> list[Row]:
        """The live memories of exactly a scope whose texts have the beginnings of the longest of some terms."""
        longest = sorted((term for term in set(terms) if term.isascii()), key=len)[-4:]
        wanted = "".join(" AND lower(i.value) LIKE ? ESCAPE '!'" for _ in longest)
        return self._memories(f"{_EXACTLY} AND i.closed IS NULL{wanted}", (*_exact(scope), *map(like, longest)))

    def erasable(self, target: str | Scope) -> list[Row]:
        """All versions of a memory, or of a scope's, those too that are damaged; of these only whose they are."""
        where, values = ("i.key = ?", (target,)) if isinstance(target, str) else of_scope(target)
        if isinstance(target, Scope) and target.ids().keys() == {"user_id"}:
            # Those too whose ids are damaged.
            where, values = "n.path = ?", (target.partition,)
        return self._memories(where, values, tail=_OLDEST, read=_to_any_row)

    def with_relatives(self, rows: Sequence[Row]) -> list[Row]:
        """All versions of the given memories, of the turns that only they cite, and of facts that cite only these."""
        by_row = {row.id: row for row in rows}
        fresh = list(rows)
        while fresh:
            keys = {row.key for row in by_row.values()}
            versions = [r for key in {row.key for row in fresh} for r in self.erasable(key)]
            linked = [r for row in versions for r in self._sole_relatives(row, keys)]
            fresh = [r for r in (*versions, *linked) if r.id not in by_row]
            by_row.update((r.id, r) for r in fresh)
        return list(by_row.values())

    def _sole_relatives(self, row: Row, keys: set[str]) -> list[Row]:
        column, other = ("fact", "turn") if row.kind == "fact" else ("turn", "fact")
        linked = self._memories(f"i.id IN (SELECT {other} FROM links WHERE {column} = ?)", (row.id,), read=_to_any_row)
        sole: list[Row] = []
        # No condition of the statement: for that SQLite would go through all of the namespace.
        for relative in (one for one in linked if one.path == row.path):
            where = f"i.id IN (SELECT {column} FROM links WHERE {other} = ?)"
            beside = self._memories(where, (relative.id,), read=_to_any_row)
            if all(b.key in keys for b in beside):
                sole.append(relative)
        return sole
