"""Replay: all kept turns of a user are read again by another extractor, into a scope of their own.

```
turns, page by page ── copied, unread, into the other scope ── read there as ever ──> its facts, beside the old ones
```
What is there stays as it is. The copies have the vectors and words of what they are copies of, so only the model works.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice

from langchain_memlayer.engine.keep import LEASE
from langchain_memlayer.engine.read import PAGE_TURNS, Engine, ReadProgress
from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.facts.grounding import fact_hash, words
from langchain_memlayer.journal.positions import terms_of
from langchain_memlayer.protocols import Extractor, Reconciler
from langchain_memlayer.result_types import ReplayResult
from langchain_memlayer.steps import Steps
from langchain_memlayer.types import HIDDEN, QUARANTINED, VISIBLE, Row, Scope

_MOST_COMPARED = 8
"""With how many facts of a turn one that differs is compared, so that a table costs no more than its rows."""


def replay_turns(
    engine: Engine,
    scope: Scope,
    into: str,
    *,
    extractor: Extractor,
    reconciler: Reconciler | None,
    progress: ReadProgress | None,
) -> Steps[ReplayResult]:
    """Read a user's turns again, as turns of the user `into`; without a reconciler all facts are added.

    Raises:
        InvalidInput: there are memories of that user already.
        ExtractionError: the model failed; what was read so far stays.
    """
    target = Scope(into)
    with engine.journal.read(snapshot=True) as reader:
        if reader.memories_of(target, ended=True):
            raise InvalidInput(
                f"There are memories of the user {shown(into)} already: forget(user_id=...) removes those of an "
                "earlier replay, or choose another name."
            )
        # What was deleted is not told again.
        turns = [row for row in reader.memories_of(scope) if row.kind == "turn" and row.state != HIDDEN]
    turns.sort(key=lambda row: row.place or row.id)
    other = Engine(
        engine.journal, engine.indexes, engine.finder, extractor=extractor, reconciler=reconciler, keep_turns=True
    )
    origins: dict[int, Row] = {}
    for page in _pages(turns):
        note, copies = _copied(other, page, into)
        origins.update(zip(copies, page, strict=True))
        if note is not None:
            try:
                yield from other.read(note)
            except BaseException:
                # The memory's own model must not go on with it.
                with engine.journal.write(target.partition) as tx:
                    tx.strike_unread(note)
                raise
        if progress is not None:
            progress(len(origins), len(turns))
    return _compared(engine, scope, target, origins)


def _pages(turns: Sequence[Row]) -> Iterator[list[Row]]:
    for _, some in groupby(turns, key=lambda row: (row.agent_id, row.run_id, row.session_id)):
        said = list(some)
        for start in range(0, len(said), PAGE_TURNS):
            yield said[start : start + PAGE_TURNS]


def _copied(engine: Engine, page: Sequence[Row], into: str) -> tuple[int | None, list[int]]:
    """Copy turns of one session; gives the note of those that are to be read, and the rows of all."""
    owner = replace(page[0].scope, user_id=into)
    with engine.journal.write(owner.partition) as tx:
        ids = [row.id for row in page]
        terms, vectors = terms_of(tx, ids), tx.vectors_of(ids)
        copies: list[int] = []
        for row in page:
            key = engine.journal.new_id()
            own = replace(
                row, key=key, path=owner.partition, user_id=into, place=None, read=False, count=1,
                sources=(row.message_id or key,), state=QUARANTINED if row.state == QUARANTINED else VISIBLE,
                invalid_at=row.invalid_at if row.state in (VISIBLE, QUARANTINED) else None,
            )  # fmt: skip
            copies.append(
                tx.add_memory(
                    own,
                    terms=terms.get(row.id, b""),
                    vector_bytes=vectors.get(row.id),
                    actor="replay",
                    detail={"copy": row.key},
                )
            )
        unread = [copy for copy, row in zip(copies, page, strict=True) if not row.given]
        note = tx.note_unread(owner, unread, attempts=1, next_at=tx.now + LEASE) if unread else None
    return note, copies


def _compared(engine: Engine, scope: Scope, target: Scope, origins: dict[int, Row]) -> ReplayResult:
    """What the facts of two scopes have in common, and what differs: of one turn, those of like words are paired."""
    with engine.journal.read(snapshot=True) as reader:
        old = [row for row in reader.memories_of(scope) if row.kind == "fact"]
        new = [row for row in reader.memories_of(target) if row.kind == "fact"]
    common = {fact_hash(row.text) for row in old} & {fact_hash(row.text) for row in new}
    left = {row.id: row for row in old if fact_hash(row.text) not in common}
    by_turn: dict[int, dict[int, Row]] = {}
    for row in left.values():
        for turn in row.turns:
            by_turn.setdefault(turn, {})[row.id] = row
    said = {row.id: row for row in origins.values()}
    rows: list[tuple[int, str | None, str | None, str]] = []
    for row in (row for row in new if fact_hash(row.text) not in common):
        turns = [origins[turn] for turn in row.turns if turn in origins]
        near = (one for turn in turns for one in islice(by_turn.get(turn.id, {}).values(), _MOST_COMPARED))
        spoken = set(words(row.text))
        twin = max(near, key=lambda one: len(spoken.intersection(words(one.text))), default=None)
        if twin is not None:
            del left[twin.id]
            for cited in twin.turns:
                del by_turn[cited][twin.id]
        first = turns[0] if turns else row
        rows.append((first.place or first.id, None if twin is None else twin.text, row.text, first.text))
    for row in left.values():
        first = next((said[turn] for turn in row.turns if turn in said), row)
        rows.append((first.place or first.id, row.text, None, first.text if first is not row else ""))
    return {
        "into": target.user_id or "",
        "turns": len(origins),
        "same": len(common),
        "results": [
            {"before": before, "after": after, "said": words}
            for _, before, after, words in sorted(rows, key=lambda row: row[0])
        ],
    }
