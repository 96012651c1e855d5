"""The tables of the journal, and how a file is told to be one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from langchain_memlayer.errors import NotAStore, SchemaTooNew
from langchain_memlayer.journal.settings import CREATED_AT, STORE_ID

APPLICATION_ID = 0x4D4C5952
JOURNAL_FILE = "journal.sqlite"
DERIVED = "derived"
TABLES = (
    "meta", "namespaces", "events", "items", "vectors", "links", "keywords", "terms", "triples", "pending", "batches",
)  # fmt: skip
_SMALLEST_FILE = 512
_NEIGHBOURS = ("checkpoints.sqlite", DERIVED, "maintenance.lock", JOURNAL_FILE)

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE namespaces (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE);

-- One row for each thing that happened. `item` is the row it made or changed, `gone` the row it ended.
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
CREATE INDEX events_by_namespace ON events (ns, seq);
CREATE INDEX events_of_memory ON events (key) WHERE kind <> 'item';

-- `id` is the seq of the event that made the row, so it is never used twice. `closed` is the seq that ended it. `terms`
-- has the CRC-32 of each keyword term in order (uint32, little-endian): BM25 counts with it and never reads texts.
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
    role TEXT,
    name TEXT,
    message_id TEXT,
    time INTEGER,
    hash TEXT,
    sources TEXT,
    turns TEXT,
    valid_at INTEGER,
    invalid_at INTEGER,
    state INTEGER,
    asks INTEGER,
    given INTEGER,
    count INTEGER,
    last_seen INTEGER,
    last_event TEXT,
    terms BLOB
);
CREATE UNIQUE INDEX items_live ON items (ns, key) WHERE closed IS NULL;
CREATE INDEX items_recent ON items (ns, updated_at) WHERE closed IS NULL;
CREATE INDEX items_expiring ON items (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memories_by_id ON items (key) WHERE kind <> 'item';
CREATE INDEX memories_by_hash ON items (ns, hash) WHERE hash IS NOT NULL;
CREATE INDEX memories_by_message ON items (ns, message_id) WHERE message_id IS NOT NULL AND kind = 'turn';
CREATE INDEX memories_merged ON items (ns) WHERE count > 1 AND kind = 'turn';

-- The row id is namespace * 2^40 + item, which keeps the vectors of one namespace together on disk, or the negative of
-- that: the setting `vectors` has the sign of those in use, the others are staged.
CREATE TABLE vectors (id INTEGER PRIMARY KEY, data BLOB NOT NULL);

CREATE TABLE links (fact INTEGER NOT NULL, turn INTEGER NOT NULL, quote TEXT, PRIMARY KEY (fact, turn)) WITHOUT ROWID;
CREATE INDEX links_by_turn ON links (turn);

CREATE VIRTUAL TABLE keywords USING fts5 (
    ns, tokens, tokenize = 'unicode61 remove_diacritics 0', detail = column, columnsize = 0
);
CREATE TABLE terms (term TEXT NOT NULL, ns INTEGER NOT NULL, df INTEGER NOT NULL, PRIMARY KEY (term, ns)) WITHOUT ROWID;

CREATE TABLE triples (
    id INTEGER PRIMARY KEY,
    item INTEGER NOT NULL,
    ns INTEGER NOT NULL,
    source TEXT NOT NULL,
    relation TEXT NOT NULL,
    destination TEXT NOT NULL
);
CREATE INDEX triples_by_item ON triples (item);
CREATE INDEX triples_by_namespace ON triples (ns);

-- Turns whose facts are still to be found, as the row ids of one call.
CREATE TABLE pending (id INTEGER PRIMARY KEY, turns TEXT NOT NULL);

CREATE TABLE batches (
    scope TEXT NOT NULL,
    batch TEXT NOT NULL,
    seq INTEGER NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (scope, batch)
) WITHOUT ROWID;
"""

# What of an item's value is embedded, as a JSON list of paths; NULL when nothing is, or it was not noted yet.
_FIELDS = "ALTER TABLE items ADD COLUMN fields TEXT;"

MIGRATIONS: tuple[str, ...] = (_FIRST, _FIELDS)
"""Script n brings a file from version n to n + 1; a new file runs them all."""

VERSION = len(MIGRATIONS)


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
    """Refuse a journal so short that SQLite would take it for a new one and begin anew.

    Raises:
        NotAStore: it was cut off. Only an empty file without anything beside it is one that was never written.
    """
    size = file.stat().st_size if file.exists() else -1
    log = Path(f"{file}-wal")
    written = (log.exists() and log.stat().st_size > 0) or any((file.parent / DERIVED).glob("*.json"))
    if 0 < size < _SMALLEST_FILE or (size == 0 and written):
        raise NotAStore(f"{file.parent} has a journal that was cut off to {size} bytes. Restore it from a backup.")


def migrate(db: sqlite3.Connection, *, where: str, new_id: Callable[[], str], created_at: int) -> None:
    """Bring the file to `VERSION`, all steps in one transaction; a new file gets its tables and its store id.

    Raises:
        NotAStore: the file is a database of something else.
        SchemaTooNew: a newer release wrote it.
    """
    if check_version(db, where) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db, where)
        for script in MIGRATIONS[version:]:
            for statement in _statements(script):
                db.execute(statement)
        if version == 0:
            db.executemany("INSERT INTO meta VALUES (?, ?)", ((STORE_ID, new_id()), (CREATED_AT, str(created_at))))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def check_version(db: sqlite3.Connection, where: str) -> int:
    """The schema version of the file, 0 when it is new; nothing in it is changed.

    Raises:
        NotAStore: the file is a database of something else.
        SchemaTooNew: a newer release wrote it.
    """
    # In one transaction: another process may be making the tables right now.
    db.execute("BEGIN")
    try:
        return _version(db, where)
    finally:
        db.execute("ROLLBACK")


def _version(db: sqlite3.Connection, where: str) -> int:
    found = int(db.execute("PRAGMA application_id").fetchone()[0])
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found != APPLICATION_ID:
        if version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise NotAStore(f"{where} is a database of something else. Give the path of a new or empty folder.")
        return 0
    refuse_newer(version, VERSION, where)
    return version


def refuse_newer(version: int, known: int, where: str) -> None:
    """Refuse tables of a version that this release does not know.

    Raises:
        SchemaTooNew: a newer release wrote them.
    """
    if version > known:
        raise SchemaTooNew(
            f"{where} was written by a newer release (schema {version}, this one knows {known}). "
            "Upgrade: pip install -U langchain-memlayer."
        )


def _statements(script: str) -> list[str]:
    statements, lines = [], []
    for line in script.splitlines():
        lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            statements.append("\n".join(lines))
            lines = []
    return statements
