"""What is looked up without a query: a memory, pages of a list, history, reasons, whose it is, and what is unread."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from langchain_memlayer.arguments import checked_kinds
from langchain_memlayer.engine.records import missing, record_of, result_of
from langchain_memlayer.engine.results import fork_info, history_row, reasons, scope_size, unread
from langchain_memlayer.filters import Filter, parse_filter
from langchain_memlayer.graph.names import as_relations
from langchain_memlayer.journal import Journal, fork_notes
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.mem0_filters import scope_and_filter
from langchain_memlayer.result_types import (
    ForkInfo,
    HistoryRow,
    ListResult,
    MemoryResult,
    ScopeSize,
    UnreadCall,
    WhyResult,
)
from langchain_memlayer.types import Row, Scope

PAGE = 500


@dataclass(frozen=True, slots=True)
class Selection:
    """Which memories of a scope are listed: those of some kinds that pass a filter and have not expired.

    Attributes:
        scope: Whose; of an empty one those of all.
        kinds: Which kinds; of none, facts and what no fact says.
        filter: What they must be like.
        show_expired: Whether what has ceased to count is among them.
    """

    scope: Scope
    kinds: frozenset[str]
    filter: Filter | None
    show_expired: bool

    @classmethod
    def of(cls, scope: Scope, filters: Mapping[str, Any] | None, kinds: Any, show_expired: bool) -> Selection:
        """The list that a caller asks for.

        Raises:
            InvalidFilter: the filter is none.
        """
        scope, conditions = scope_and_filter(filters, scope)
        return cls(scope, checked_kinds(kinds), parse_filter(conditions), show_expired)


class Lookup:
    """Reads one folder's journal for callers."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def memory(self, key: str) -> MemoryResult | None:
        """A live memory, or None."""
        with self._journal.read() as reader:
            row = reader.memory(key)
        return None if row is None else result_of(row, self._journal.now())

    def owner(self, key: str) -> Scope | None:
        """Whose a memory is, ended or not; None when there was never one."""
        with self._journal.read() as reader:
            versions = reader.versions_of(key)
        return versions[0].scope if versions else None

    def page(self, selection: Selection, *, limit: int, offset: int) -> ListResult:
        """A part of a list, oldest first, with the first relations of its scope."""
        # No list is longer than what a machine can count.
        offset, end, most = (min(number, sys.maxsize) for number in (offset, offset + limit, limit))
        with self._journal.read(snapshot=True) as reader:
            now = self._journal.now()
            rows = _listed(reader, selection, now, slice(offset, end))
            lasting = None if selection.show_expired else now
            triples = reader.first_triples(selection.scope, most=most, at=lasting) if selection.scope else []
        return {
            "results": [result_of(row, now) for row in rows],
            "relations": as_relations(row[3:6] for row in triples),
        }

    def pages(self, selection: Selection) -> Iterator[list[MemoryResult]]:
        """A whole list in pages: each begins behind the last row of the one before, whatever ended since."""
        after: tuple[int, int] | None = None
        while True:
            with self._journal.read(snapshot=True) as reader:
                now = self._journal.now()
                rows = _listed(reader, selection, now, slice(0, PAGE), after)
            if not rows:
                return
            yield [result_of(row, now) for row in rows]
            after = rows[-1].created_at, rows[-1].place or rows[-1].id

    def scopes(self, scope: Scope, *, limit: int, offset: int) -> list[ScopeSize]:
        """Whose memories there are, and how many."""
        with self._journal.read() as reader:
            return [scope_size(row) for row in reader.scopes(scope, most=limit, offset=offset)]

    def forks(self, scope: Scope) -> list[ForkInfo]:
        """The forks of scopes that have these ids."""
        with self._journal.read() as reader:
            return [fork_info(fork) for fork in fork_notes.forks(reader, scope)]

    def unread(self, scope: Scope, *, among: Collection[int] | None = None) -> list[UnreadCall]:
        """The notes of what is unread, oldest first; with `among`, those that have one of these numbers."""
        with self._journal.read() as reader:
            notes = [note for note in reader.unread(scope) if among is None or note.id in among]
            rows = reader.turns_of_notes(notes)
        return [unread(note, rows) for note in notes]

    def history(self, key: str) -> list[HistoryRow]:
        """What happened to a memory, in order; of what was forgotten only the events are left, without texts."""
        with self._journal.read() as reader:
            events = reader.history(key)
            versions = reader.versions_of(key)
        first = versions[0] if versions else None
        shown = (
            event
            for event in events
            if event.op in ("add", "update", "delete")
            # What was told once more and is taken back changes no text.
            or (event.op == "undo" and (event.gone is not None or event.prev != event.value))
        )
        return [history_row(event, events[0], first) for event in shown]

    def why(self, key: str) -> WhyResult:
        """Where a memory comes from, and what was decided about it.

        Raises:
            MemoryNotFound: no live memory has this id.
        """
        with self._journal.read() as reader:
            row = reader.memory(key)
            if row is None:
                raise missing(key)
            quotes: dict[int, str | None] = {row.id: row.text}
            if row.kind == "fact":
                # What was changed by hand still comes from the turns of the version before.
                versions = [version for version in reader.versions_of(row.key) if version.id <= row.id]
                cited = (dict(reader.quotes_of(version.id)) for version in reversed(versions))
                quotes = next(filter(None, cited), {})
            turns = sorted(reader.memories_by_row(list(quotes)).values(), key=lambda turn: turn.place or turn.id)
            events = reader.history(row.key)
        return reasons(row, [(turn, quotes[turn.id]) for turn in turns], events)


def _listed(
    reader: Reader, selection: Selection, now: int, part: slice, after: tuple[int, int] | None = None
) -> list[Row]:
    """A part of a list, without what has expired by `now`, unless that is to be shown.

    With `after`, the part of those behind the row that began then and has that place (or number).
    """
    condition, lasting = selection.filter, None if selection.show_expired else now
    order = reader.oldest_first(selection.scope, kinds=selection.kinds, lasting=lasting, after=after)
    if condition is None:
        return reader.memories_in_order(list(islice(order, part.start, part.stop)))
    chunks = iter(lambda: list(islice(order, PAGE)), [])
    every = (row for chunk in chunks for row in reader.memories_in_order(chunk))
    return list(islice((row for row in every if condition.matches(record_of(row))), part.start, part.stop))
