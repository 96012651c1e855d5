"""The tables of the journal, and how a file is told to be one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path

from langchain_memlayer.errors import JournalError, NotAStore, SchemaTooNew
from langchain_memlayer.journal.database import CREATED_AT, STORE_ID, Database

APPLICATION_ID = 0x4D4C5952
JOURNAL_FILE = "journal.sqlite"
DERIVED = "derived"
TABLES = (
    "meta", "namespaces", "events", "items", "vectors", "links", "triples", "unread", "batches",
)  # fmt: skip
VERSION = 4
"""The version of the tables. Those of format 1 were 1 to 3; they are refused, since what they left out is not known."""
_SMALLEST_FILE = 512
_NEIGHBOURS = ("checkpoints.sqlite", DERIVED, "maintenance.lock", JOURNAL_FILE)

TABLES_SQL = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE namespaces (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL UNIQUE);

-- One row for each thing that happened. `item` is the row it made or changed, `gone` the row it ended. The last event
-- is never removed, so no `seq` is used twice.
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    recorded_at INTEGER NOT NULL,
    ns INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    op TEXT NOT NULL,
    item INTEGER,
    gone INTEGER,
    prev TEXT,
    value TEXT,
    actor TEXT,
    sources TEXT,
    valid_at INTEGER,
    invalid_at INTEGER,
    batch TEXT,
    detail TEXT
);
CREATE INDEX events_of_memory ON events (key, seq) WHERE kind <> 'item';

-- `id` is the seq of the event that made the row, so it is never used twice. `closed` is the seq that ended it. `place`
-- orders the turns of a session: the first version's id, whatever was edited since. `fields` has the paths of what of
-- an item's value is embedded, as JSON. `terms` has the id and the count of each keyword term (`index.keywords.ENTRY`):
-- memories are found by it in memory, and their texts are never read for that.
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    ns INTEGER NOT NULL,
    key TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    closed INTEGER,
    ttl REAL,
    expires_at INTEGER,
    metadata TEXT,
    user_id TEXT,
    agent_id TEXT,
    run_id TEXT,
    session_id TEXT,
    place INTEGER,
    role TEXT,
    name TEXT,
    message_id TEXT,
    time INTEGER,
    utc_offset INTEGER,
    hash TEXT,
    sources TEXT,
    turns TEXT,
    valid_at INTEGER,
    invalid_at INTEGER,
    state INTEGER,
    asks INTEGER,
    given INTEGER,
    read INTEGER,
    count INTEGER,
    last_seen INTEGER,
    last_event TEXT,
    fields TEXT,
    terms BLOB
);
CREATE UNIQUE INDEX items_live ON items (ns, key) WHERE closed IS NULL;
CREATE INDEX items_recent ON items (ns, seq) WHERE closed IS NULL AND kind = 'item';
CREATE INDEX items_latest ON items (seq) WHERE closed IS NULL AND kind = 'item';
CREATE INDEX items_expiring ON items (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memories_by_id ON items (key) WHERE kind <> 'item';
CREATE INDEX memories_by_hash ON items (ns, hash) WHERE kind <> 'item';
CREATE INDEX memories_listed ON items (ns, kind, created_at, coalesce(place, id))
    WHERE closed IS NULL AND kind <> 'item';
CREATE INDEX memories_unsaid ON items (ns, created_at, coalesce(place, id))
    WHERE closed IS NULL AND kind <> 'item' AND (read IS NULL OR given = 1);
CREATE INDEX memories_of_agent ON items (agent_id, created_at, coalesce(place, id))
    WHERE closed IS NULL AND agent_id IS NOT NULL;
CREATE INDEX memories_of_run ON items (run_id, created_at, coalesce(place, id))
    WHERE closed IS NULL AND run_id IS NOT NULL;
CREATE INDEX memories_ending ON items (invalid_at)
    WHERE closed IS NULL AND kind <> 'item' AND invalid_at IS NOT NULL AND coalesce(state, 0) <> 3;
CREATE INDEX memories_by_message ON items (ns, message_id) WHERE message_id IS NOT NULL AND kind = 'turn';
CREATE INDEX memories_merged ON items (ns, session_id) WHERE count > 1 AND kind = 'turn';
CREATE INDEX turns_in_session ON items (ns, session_id, place) WHERE closed IS NULL AND kind = 'turn';

-- The row id is the item's, or the negative of it: the setting `vectors` has the sign of those in use, the others are
-- staged.
CREATE TABLE vectors (id INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE links (fact INTEGER NOT NULL, turn INTEGER NOT NULL, quote TEXT, PRIMARY KEY (fact, turn)) WITHOUT ROWID;
CREATE INDEX links_by_turn ON links (turn);

-- The keys are those of the names (`graph.names`), empty when a name says nothing.
CREATE TABLE triples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    item INTEGER NOT NULL,
    ns INTEGER NOT NULL,
    source TEXT NOT NULL,
    relation TEXT NOT NULL,
    destination TEXT NOT NULL,
    source_key TEXT NOT NULL,
    destination_key TEXT NOT NULL
);
CREATE INDEX triples_by_item ON triples (item);
CREATE INDEX triples_by_namespace ON triples (ns, id);

-- Turns whose facts were not looked for yet, one row for each call: their row ids, and as JSON what else reading has to
-- know, such as their words when they are not kept.
CREATE TABLE unread (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ns INTEGER NOT NULL,
    user_id TEXT,
    agent_id TEXT,
    run_id TEXT,
    turns TEXT NOT NULL,
    detail TEXT,
    attempts INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    reason TEXT,
    set_aside INTEGER,
    recorded_at INTEGER NOT NULL
);
CREATE INDEX unread_by_namespace ON unread (ns);

CREATE TABLE batches (
    scope TEXT NOT NULL,
    batch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (scope, batch)
) WITHOUT ROWID;
"""
"""The tables of both databases, as SQLite takes them."""

_SQLITE_ONLY = """
CREATE INDEX events_by_namespace ON events (ns, seq);
CREATE INDEX events_by_time ON events (recorded_at, seq);
"""
_OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


def journal_path(folder: Path) -> Path:
    """The journal's file in `folder`.

    Raises:
        NotAStore: `folder` is a file, or a folder with other things in it.
    """
    if folder.exists() and not folder.is_dir():
        raise NotAStore(f"{folder} is a file; a store is a folder. Give the path of a new or empty folder.")
    file = folder / JOURNAL_FILE
    if folder.is_dir() and not file.exists():
        foreign = [p.name for p in folder.iterdir() if not p.name.startswith((".", *_NEIGHBOURS))]
        if foreign:
            raise NotAStore(
                f"{folder} is no store: it has no {JOURNAL_FILE} but other files ({min(foreign)}, ...). "
                "Give the path of a new or empty folder."
            )
    return file


def refuse_torn(file: Path) -> None:
    """Refuse a file of a folder's so short that SQLite would take it for a new one and begin anew.

    Raises:
        NotAStore: it is a link, has a pipe beside it, was cut off, or is missing beside its log. Only an empty file
            that is alone was never written.
    """
    if file.is_symlink():
        # SQLite keeps its log where the link leads to.
        raise NotAStore(f"{file} is a link; give the folder in which the file is that it leads to.")
    if (old := Path(f"{file}-journal")).is_fifo():
        # SQLite would wait until somebody writes into it.
        raise NotAStore(f"{old} is a pipe; remove it, or restore the folder from a backup.")
    log = Path(f"{file}-wal")
    logged = _size(log) > 0
    written = logged or (file.name == JOURNAL_FILE and any((file.parent / DERIVED).glob("*.json")))
    # Last: who makes the store right now writes this file before the others.
    size = _size(file)
    if size < 0 and logged:
        raise NotAStore(
            f"{file.parent} has a write-ahead log with what was committed, but no {file.name} that it belongs "
            "to. Put that back beside it, or restore both from a backup."
        )
    if 0 < size < _SMALLEST_FILE or (size == 0 and written):
        raise NotAStore(f"{file} was cut off to {size} bytes. Restore it from a backup.")


def identity(path: str) -> tuple[int, int] | None:
    """What tells a file from another one that took its name; None when there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked twice for each commit, and a Path takes ten times as long
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _size(file: Path) -> int:
    """The bytes of a file, -1 when it is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1


def create(db: sqlite3.Connection, *, where: str, new_id: Callable[[], str], created_at: int) -> None:
    """Give a new file its tables and its store id, in one transaction.

    Raises:
        NotAStore: the file is a database of something else, or of an earlier release.
        SchemaTooNew: a newer release wrote it.
    """
    if check_version(db, where) == VERSION:
        refuse_planted(db, where)
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Of several processes that open a new folder at once only the first one finds it so.
        if _version(db, where) == 0:
            for statement in _statements(TABLES_SQL + _SQLITE_ONLY):
                db.execute(statement)
            db.executemany("INSERT INTO meta VALUES (?, ?)", ((STORE_ID, new_id()), (CREATED_AT, str(created_at))))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def refuse_planted(db: sqlite3.Connection, where: str) -> None:
    """Refuse a file in which something is carried out at each write or read that this package did not put there.

    Raises:
        JournalError: it has a trigger or a view.
    """
    planted = db.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') LIMIT 1").fetchone()
    if planted is not None:
        raise JournalError(
            f"{where} has the {planted[0]} {planted[1]!r}, which this package never makes: somebody planted it, and it "
            f"may copy or change memories. Restore a backup, or look at it and drop it: DROP {planted[0].upper()} ..."
        )


def strangers(db: Database) -> list[str]:
    """The names of tables, indexes, triggers and views of a file that are not as this package makes them."""
    objects = {(row[0], row[1]): " ".join((row[2] or "").split()) for row in db.execute(_OBJECTS)}
    return sorted(name for (kind, name), sql in (objects.items() ^ _own_objects().items()))


Column = tuple[str, str, bool, int]
"""A column's name, its type in SQLite, whether it is never NULL, and its place in the table's key, from 1."""


@cache
def columns() -> Mapping[str, tuple[Column, ...]]:
    """The columns of each table as this package makes it."""
    of_all = 'SELECT name, type, "notnull" OR pk, pk FROM pragma_table_info(?)'
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES_SQL)
        return {table: tuple(db.execute(of_all, (table,)).fetchall()) for table in TABLES}


@cache
def _own_objects() -> Mapping[tuple[str, str], str]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES_SQL + _SQLITE_ONLY)
        return {(row[0], row[1]): " ".join((row[2] or "").split()) for row in db.execute(_OBJECTS)}


def check_version(db: sqlite3.Connection, where: str) -> int:
    """The schema version of the file, 0 when it is new; nothing in it is changed.

    Raises:
        NotAStore: the file is a database of something else, or of an earlier release.
        SchemaTooNew: a newer release wrote it.
    """
    # In one transaction: another process may be making the tables right now.
    db.execute("BEGIN")
    try:
        return _version(db, where)
    finally:
        # An error of the disk has ended it, and is what is told.
        if db.in_transaction:
            db.execute("ROLLBACK")


def _version(db: sqlite3.Connection, where: str) -> int:
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        if version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise NotAStore(f"{where} is a database of something else. Give the path of a new or empty folder.")
        return 0
    check_format(version, where)
    return version


def check_format(version: int, where: str) -> None:
    """Refuse tables of a version that this release does not know.

    Raises:
        SchemaTooNew: a newer release wrote them.
        NotAStore: an earlier one did.
    """
    if version > VERSION:
        raise SchemaTooNew(
            f"{where} was written by a newer release (schema {version}, this one knows {VERSION}). "
            "Upgrade: pip install -U langchain-memlayer."
        )
    if version < VERSION:
        raise NotAStore(
            f"{where} was written by an earlier release (schema {version}, this one knows {VERSION}), whose stores "
            "this one does not open. Export it with that release (`memlayer export`); import the file into a new one."
        )


def _statements(script: str) -> list[str]:
    statements, lines = [], []
    for line in script.splitlines():
        lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            statements.append("\n".join(lines))
            lines = []
    return statements
