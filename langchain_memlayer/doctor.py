"""The doctor: checks everything that must hold in a folder, and makes anew what is derived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path

import orjson

from langchain_memlayer.backends.mirror import State
from langchain_memlayer.engine.index_sync import PARTS, snapshot_name
from langchain_memlayer.errors import JournalError, MemLayerError, SnapshotError
from langchain_memlayer.index import files
from langchain_memlayer.index.keywords import well_formed
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.cache_reader import KINDS
from langchain_memlayer.journal.database import SCRUB_DUE, STAGING_NOTE, VECTORS_OF_ITEM, embedder_key, outbox_key
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.schema import DERIVED
from langchain_memlayer.journal.transfer import unsound_rows
from langchain_memlayer.types import MEMORY_ROOT

_SHOWN = 5

# (name, what is wrong, the rows or positions that it is wrong of)
_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "live key",
        "several live rows have one key",
        "SELECT min(id) FROM items WHERE closed IS NULL GROUP BY ns, key HAVING count(*) > 1 UNION ALL "
        "SELECT min(id) FROM items WHERE closed IS NULL AND kind <> 'item' GROUP BY key HAVING count(*) > 1",
    ),
    (
        "origin",
        "rows that no event made",
        "SELECT i.id FROM items i LEFT JOIN events e ON e.seq = i.id AND e.item = i.id AND e.ns = i.ns "
        "AND e.key = i.key AND e.kind = i.kind AND e.op IN ('put', 'add', 'update', 'seen') WHERE e.seq IS NULL",
    ),
    (
        "last write",
        "rows whose last write is no event",
        "SELECT i.id FROM items i LEFT JOIN events e ON e.seq = i.seq AND e.ns = i.ns AND e.key = i.key "
        "WHERE e.seq IS NULL OR i.closed > i.seq OR i.closed < i.id",
    ),
    (
        "text",
        "memories whose text is not the one of their event",
        "SELECT i.id FROM items i JOIN events e ON e.seq = i.id WHERE i.kind <> 'item' AND "
        "(e.value <> i.value OR e.value IS NULL)",
    ),
    (
        "lost item",
        "events of items that are gone without having been deleted",
        "SELECT seq FROM events WHERE kind = 'item' AND op IN ('put', 'touch') AND item NOT IN (SELECT id FROM items) "
        "AND item NOT IN (SELECT item FROM events WHERE kind = 'item' AND op = 'delete')",
    ),
    (
        "lost memory",
        "events of memories that are gone without having been forgotten",
        "SELECT seq FROM events WHERE kind <> 'item' AND op IN ('add', 'update', 'seen') "
        "AND item NOT IN (SELECT id FROM items) AND key NOT IN (SELECT key FROM events WHERE op = 'forget')",
    ),
    (
        "namespace",
        "rows of a namespace that is not there",
        "SELECT id FROM items WHERE ns NOT IN (SELECT id FROM namespaces)",
    ),
    (
        "vector owner",
        "vectors of rows that are not there",
        "SELECT v.id FROM vectors v LEFT JOIN items i ON i.id = abs(v.id) WHERE i.id IS NULL",
    ),
    (
        "link",
        "links that do not lead from a fact to a turn of the same owner",
        "SELECT l.fact FROM links l LEFT JOIN items f ON f.id = l.fact AND f.kind = 'fact' "
        "LEFT JOIN items t ON t.id = l.turn AND t.kind = 'turn' AND t.ns = f.ns WHERE f.id IS NULL OR t.id IS NULL",
    ),
    (
        "triple",
        "triples of memories that are not there",
        "SELECT t.id FROM triples t LEFT JOIN items i ON i.id = t.item AND i.ns = t.ns WHERE i.id IS NULL",
    ),
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a folder that should not be so.

    Attributes:
        rule: What is broken, in a word or two.
        message: What was found and where (numbers of rows, never their text), and what to do.
        rebuildable: Whether `rebuild` mends it.
    """

    rule: str
    message: str
    rebuildable: bool = False


def check(journal: Journal) -> list[Problem]:
    """Everything that is wrong in a folder; nothing is changed.

    A part that is too damaged to be checked is a problem too; the others are checked all the same.
    """
    problems = _tried("file", lambda: _files(journal))
    try:
        with journal.read(snapshot=True) as reader:
            for name, part in (
                ("row", _rows), ("rules", _rules), ("vectors", _vectors), ("keywords", _keywords), ("notes", _notes),
                ("vector store", _outboxes), ("snapshots", lambda reader: _snapshots(journal, _prefixes(reader))),
            ):  # fmt: skip
                problems += _tried(name, partial(part, reader))
    except JournalError as error:
        problems.append(Problem("file", str(error)))
    return problems


def _tried(name: str, part: Callable[[], Iterable[Problem]]) -> list[Problem]:
    """What a part finds; that it fails is a problem of the folder's, whatever the database says of its damage."""
    problems: list[Problem] = []
    try:
        problems.extend(part())
    except Exception as error:  # noqa: BLE001 (a damaged file fails in any way; texts of errors may quote rows)
        said = str(error) if isinstance(error, MemLayerError) else type(error).__name__
        problems.append(Problem(name, f"This cannot be checked: the file is damaged ({said}). Restore a backup."))
    return problems


def _files(journal: Journal) -> Iterator[Problem]:
    if (damage := journal.check()) != "ok":
        yield Problem("file", f"The database says: {damage}. Restore a backup.")


def _rows(reader: Reader) -> Iterator[Problem]:
    """Rows that reading cannot trust, by what is wrong with them."""
    unusable: dict[tuple[str, str], list[str]] = {}
    for table, key, wrong in unsound_rows(reader):
        unusable.setdefault((table, wrong), []).append(key)
    for (table, wrong), keys in unusable.items():
        yield Problem("row", f"Rows of {table} cannot be used ({wrong}): {_listed(keys)}. Restore a backup.")


def _notes(reader: Reader) -> Iterator[Problem]:
    if reader.meta(SCRUB_DUE) is not None:
        yield Problem("forget", "A forget() was interrupted; its bytes may still be in the files. Rebuild.", True)
    if reader.meta(STAGING_NOTE) is not None:
        yield Problem(
            "reembed",
            "A `memlayer reembed` is running, or was interrupted; nothing is lost. Repeat it with the same embedder to "
            "finish it, or with the store's own to give it up.",
        )
    if aside := reader.db.execute("SELECT count(*) FROM unread WHERE set_aside IS NOT NULL").fetchone()[0]:
        yield Problem(
            "unread",
            f"Reading {aside} calls failed too often; they are kept. `memlayer unread` shows why, and retries.",
        )


def rebuild(journal: Journal) -> None:
    """Make anew what is derived, the snapshots; also finishes a `forget`.

    Raises:
        JournalError: the disk is full, or another process holds the folder.
    """
    journal.scrub()


def _rules(reader: Reader) -> Iterator[Problem]:
    selected = ((rule, wrong, (row for (row,) in reader.db.execute(sql))) for rule, wrong, sql in _RULES)
    computed = (
        ("cited turns", "live facts that name other turns than their links do", _unlike_links(reader)),
        ("batch", "batches that report what was never committed, or is another's", _uncommitted(reader)),
        ("unread turns", "notes of what is unread with turns of somebody else", _unread_of_others(reader)),
    )
    for rule, wrong, rows_found in chain(selected, computed):
        if rows := list(islice(rows_found, _SHOWN + 1)):
            yield Problem(rule, f"There are {wrong}: {_listed(rows)}. Restore a backup.")


def _unlike_links(reader: Reader) -> Iterator[int]:
    """The live facts whose turns are not those of their links."""
    linked: dict[int, set[int]] = {}
    for fact, turn in reader.db.execute("SELECT fact, turn FROM links"):
        linked.setdefault(fact, set()).add(turn)
    for fact, turns in reader.db.execute("SELECT id, turns FROM items WHERE kind = 'fact' AND closed IS NULL"):
        if set(orjson.loads(turns or "[]")) != linked.get(fact, set()):
            yield fact


def _uncommitted(reader: Reader) -> Iterator[int]:
    """The positions of batches that report memories of which there is no event."""
    last = reader.db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0
    known = {key for (key,) in reader.db.execute("SELECT DISTINCT key FROM events")}
    for seq, result, scope, batch in reader.db.execute("SELECT seq, result, scope, batch FROM batches"):
        report = orjson.loads(result)
        reported = {done[0] for done in (*report["turns"], *report["facts"])}
        if seq > last or reported - known or reader.batch(scope, batch) is None:
            yield seq


def _unread_of_others(reader: Reader) -> Iterator[int]:
    for note in reader.unread():
        if reader.memories_by_row(note.turns).keys() != reader.turns_of_notes([note]).keys():
            yield note.id


def _vectors(reader: Reader) -> Iterator[Problem]:
    for area, kinds in KINDS.items():
        text = reader.meta(embedder_key(area))
        embedder = None if text is None else orjson.loads(text)
        # A memory has one vector, an item any number.
        size = 0 if embedder is None else 2 * embedder["dims"]
        wrong = f"length(v.data) % {size} <> 0" if area == "items" else f"length(v.data) <> {size}"
        rows = reader.db.execute(
            f"SELECT i.id FROM items i JOIN vectors v ON {VECTORS_OF_ITEM} WHERE {kinds} AND "
            f"({wrong if size else '1 = 1'} OR length(v.data) = 0) LIMIT {_SHOWN + 1}"
        ).fetchall()
        if rows:
            said = f"the embedder {embedder['name']} ({embedder['dims']} numbers)" if embedder else "no embedder"
            yield Problem(
                "vector size", f"The folder names {said}, but vectors are not of it: {_listed([r[0] for r in rows])}."
            )


def _keywords(reader: Reader) -> Iterator[Problem]:
    rows = reader.db.execute("SELECT id, terms FROM items WHERE kind <> 'item' AND terms IS NOT NULL")
    strange = (row for row, terms in rows if not (isinstance(terms, bytes) and well_formed(terms)))
    if wrong := list(islice(strange, _SHOWN + 1)):
        yield Problem("keywords", f"There are terms that are none: {_listed(wrong)}. Restore a backup.")


def _outboxes(reader: Reader) -> Iterator[Problem]:
    for area in KINDS:
        text = reader.meta(outbox_key(area))
        state = None if text is None else State.of(text)
        if state is not None and (lag := reader.undelivered(state.position)):
            yield Problem(
                "vector store",
                f"The vector store ({state.kind}) was not brought the last {lag} changes of the {area}; nothing is "
                "lost. Open the folder with it and call `flush()`.",
            )


def _prefixes(reader: Reader) -> set[str]:
    """Every namespace prefix that may have a slab."""
    paths = [row[0] for row in reader.db.execute("SELECT path FROM namespaces")]
    labels = ([f"{label}." for label in path[:-1].split(".")] for path in paths)
    return {"", MEMORY_ROOT, *(prefix for path in labels for prefix in accumulate(path))}


def _snapshots(journal: Journal, prefixes: set[str]) -> Iterator[Problem]:
    if journal.folder is None:
        return
    folder = journal.folder / DERIVED
    for area in KINDS:
        keys = sorted({*prefixes, *(f"{prefix}\x00" for prefix in prefixes)})
        for name in (snapshot_name(area, key, part=part) for key in keys for part in PARTS):
            # Asked twice: meanwhile another process may have put a new one in its place, or dropped it.
            if _unreadable(folder, name, journal) and (said := _unreadable(folder, name, journal)):
                yield Problem("snapshot", f"{said} It will be made anew by itself, or by a rebuild.", True)


def _unreadable(folder: Path, name: str, journal: Journal) -> str:
    try:
        if files.exists(folder, name):
            files.read(folder, name, {"store": journal.store_id})
    except SnapshotError as error:
        return str(error)
    return ""


def _listed(rows: Sequence[object]) -> str:
    return ", ".join(map(str, rows[:_SHOWN])) + (" and more" if len(rows) > _SHOWN else "")
