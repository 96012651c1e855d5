"""The journal's SQL on PostgreSQL: the same tables and statements, and what PostgreSQL says otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int8BinaryDumper

from langchain_memlayer.errors import ConfigurationError, JournalError, NotAStore
from langchain_memlayer.journal.cache_reader import KINDS, WAS_ADOPTED, rows_about
from langchain_memlayer.journal.database import CREATED_AT, STORE_ID, VECTORS_OF_ITEM, Area, BaseReader, rows_touched
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.schema import TABLES, TABLES_SQL, VERSION, check_format
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.types import prefix_bounds

_CANCEL_SECONDS = 5.0
POSITIONS = 32
"""How many positions a transaction takes at once; the increment of the sequence in the schema."""

_NAMED = re.compile(rf"\b(FROM|JOIN|INTO|UPDATE) +({'|'.join(TABLES)})\b")


def adapt(db: psycopg.Connection[Any]) -> None:
    """Let integers be sent as BIGINT, however small, so that a statement has one form and its plan is found again."""
    db.adapters.register_dumper(int, Int8BinaryDumper)


@lru_cache(maxsize=1024)
def translated(statement: str, schema: str) -> str:
    """A statement for SQLite as one for PostgreSQL, its tables named with their schema."""
    qualified = _NAMED.sub(lambda match: f"{match[1]} {_identifier(schema)}.{match[2]}", statement.replace("%", "%%"))
    return qualified.replace(" IS ?", " IS NOT DISTINCT FROM ?").replace("?", "%s")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Position(int):
    """A position of the journal: how many transactions had ended, with the snapshot that says which.

    Of two snapshots of one server the later has ended transactions that the earlier has not, or they are the same. So
    positions compare as SQLite's do, and what came after one is what its snapshot does not see.
    """

    snapshot: str

    @classmethod
    def of(cls, snapshot: str) -> Position:
        """The position of a `pg_snapshot`: xmin, xmax and the transactions between that run."""
        _, following, running = snapshot.split(":")
        position = cls(int(following) - (running.count(",") + 1 if running else 0))
        position.snapshot = snapshot
        return position


class Session:
    """One connection, spoken to as one to SQLite is.

    Args:
        raw: The connection, in autocommit mode.
        schema: Where the tables are.
    """

    def __init__(self, raw: psycopg.Connection[Any], schema: str) -> None:
        self.raw = raw
        self._schema = schema

    def named(self, name: str) -> str:
        """A table or sequence with its schema."""
        return f"{_identifier(self._schema)}.{name}"

    def execute(self, statement: str, params: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """Run one statement."""
        return self.raw.execute(translated(statement, self._schema), params, binary=True)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Run one statement for each row of values."""
        parameters = list(rows)
        if len(parameters) == 1:
            self.execute(statement, parameters[0])
        elif parameters:
            with self.raw.cursor() as cursor:
                cursor.executemany(translated(statement, self._schema), parameters)

    def begin(self, statements: str) -> None:
        """Begin a transaction with statements that take no values."""
        self.raw.execute(statements.encode())

    def commit(self) -> None:
        """Commit; a transaction in which a statement failed is an error, never silently undone."""
        if self.raw.execute("COMMIT").statusmessage != "COMMIT":
            raise JournalError("A statement of this call failed, so nothing of it was stored; repeat it.")

    def undo(self) -> None:
        """Roll back what was begun and not committed; a statement that an interrupt left running goes with all else."""
        if self.raw.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                self.raw.cancel_safe(timeout=_CANCEL_SECONDS)
            self.raw.close()
        elif not self.raw.closed and self.raw.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.raw.execute("ROLLBACK")


class PostgresReads(BaseReader):
    """What PostgreSQL says otherwise when the journal is read."""

    EACH = "jsonb_array_elements_text({}::jsonb) AS one (value)"
    SAME_COMMIT = "e.xid = (SELECT xid FROM events WHERE seq = ?)"

    def last_seq(self) -> int:
        """The position of the last commit."""
        return Position.of(self.db.execute("SELECT pg_current_snapshot()::text").fetchone()[0])

    def touched(self, prefix: str, since: int, last: int | None = None) -> list[int] | None:
        """The items below a namespace that events after position `since` are about; None when one was a reset."""
        if not isinstance(since, Position):
            return None
        rows = self.db.execute(
            "SELECT item, gone, op FROM events WHERE xid >= pg_snapshot_xmin(?::pg_snapshot) AND "
            "NOT pg_visible_in_snapshot(xid, ?::pg_snapshot) AND "
            "ns IN (SELECT id FROM namespaces WHERE path >= ? AND path < ? UNION ALL SELECT 0)",
            (since.snapshot, since.snapshot, *prefix_bounds(prefix)),
        ).fetchall()
        return rows_touched(rows)

    def facts_changed(self, path: str, since: int) -> bool:
        """Whether facts of a namespace were added, changed or ended after a position."""
        if not isinstance(since, Position):
            return True
        row = self.db.execute(
            "SELECT 1 FROM events WHERE ns = (SELECT id FROM namespaces WHERE path = ?) AND kind = 'fact' AND op IN "
            "('add', 'update', 'delete', 'undo') AND xid >= pg_snapshot_xmin(?::pg_snapshot) AND "
            "NOT pg_visible_in_snapshot(xid, ?::pg_snapshot) LIMIT 1",
            (path, since.snapshot, since.snapshot),
        ).fetchone()
        return row is not None

    def outgoing(self, area: Area, since: int, *, most: int) -> tuple[int, list[int]]:
        """The next events after a position, about `most`: the position after them, and the rows they are about.

        Here this position is the number of a transaction below which none runs any more: nothing comes in before it.
        """
        rows = self.db.execute(
            "SELECT xid::text::bigint, item, gone, kind FROM events WHERE xid > ?::text::xid8 AND "
            "xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid FETCH FIRST ? ROWS WITH TIES",
            (str(since), most),
        ).fetchall()
        return (rows[-1][0] if rows else since), rows_about(rows, area)

    def undelivered(self, since: int) -> int:
        """How many events there are after a position of `outgoing`."""
        row = self.db.execute("SELECT count(*) FROM events WHERE xid > ?::text::xid8", (str(since),)).fetchone()
        return int(row[0])

    def later(self, area: Area, since: int, *, most: int) -> list[int] | None:
        """The rows that all events after a position of `outgoing` are about; None for more than `most` events."""
        rows = self.db.execute(
            "SELECT seq, item, gone, kind FROM events WHERE xid > ?::text::xid8 LIMIT ?", (str(since), most + 1)
        ).fetchall()
        return rows_about(rows, area) if len(rows) <= most else None

    def newest(self, area: Area, *, most: int, until: int) -> list[int]:
        """The `vector_rows` below a position of `outgoing`, the newest `most` of them."""
        rows = self.db.execute(
            f"SELECT i.id FROM items i JOIN events e ON e.seq = i.seq WHERE {KINDS[area]} AND i.closed IS NULL AND "
            f"NOT {WAS_ADOPTED} AND e.xid <= ?::text::xid8 AND EXISTS (SELECT 1 FROM vectors v WHERE "
            f"{VECTORS_OF_ITEM}) ORDER BY i.id DESC LIMIT ?",
            (str(until), most),
        )
        return [row[0] for row in rows]

    def position_at(self, prefix: str, known_at: int) -> int:
        """The last event below a namespace that was recorded by a time."""
        # Only within a namespace do positions follow the times, unless a clock was put back.
        row = self.db.execute(
            "SELECT max(CASE WHEN EXISTS (SELECT 1 FROM events WHERE ns = n.id AND recorded_at > ?) THEN e.seq ELSE "
            "(SELECT max(seq) FROM events WHERE ns = n.id) END) FROM namespaces n CROSS JOIN LATERAL (SELECT seq FROM "
            "events WHERE ns = n.id AND recorded_at <= ? ORDER BY recorded_at DESC, seq DESC LIMIT 1) AS e "
            "WHERE n.path >= ? AND n.path < ?",
            (known_at, known_at, *prefix_bounds(prefix)),
        ).fetchone()
        return int(row[0] or 0)


class PostgresReader(PostgresReads, Reader):
    """Reads of one connection to PostgreSQL."""


class PostgresWriter(PostgresReads, Writer):
    """Writes of one transaction of PostgreSQL."""

    def __init__(self, db: Session, *, now: int) -> None:
        super().__init__(db, now=now)
        self._session = db
        self._named = db.named
        self._last = 0

    def _first_seq(self) -> int:
        return 0

    def upcoming(self) -> int:
        """The position that the next event will have."""
        if self.seq >= self._last:
            # Past what waits to be inserted, which it has nothing to do with.
            row: Any = self._session.execute("SELECT nextval(?::regclass)", (self._named("positions"),)).fetchone()
            first = int(row[0])
            self.seq, self._last = first - 1, first + POSITIONS - 1
        return self.seq + 1

    def _inserted(self, sql: str, params: Sequence[Any]) -> int:
        return int(self.db.execute(f"{sql} RETURNING id", params).fetchone()[0])

    def renumber(self) -> None:
        """Let new positions and row numbers follow those that came from another journal."""
        self.db.execute(
            "SELECT setval(?::regclass, greatest(last, (SELECT coalesce(max(seq), 0) + 1 FROM events)), false) FROM "
            "(SELECT nextval(?::regclass) AS last) AS used",
            (self._named("positions"), self._named("positions")),
        )
        for table in ("namespaces", "triples", "unread"):
            self.db.execute(
                "SELECT setval(pg_get_serial_sequence(?, 'id')::regclass, "
                f"(SELECT coalesce(max(id), 0) + 1 FROM {table}), false)",
                (self._named(table),),
            )
        self.seq = self._last = 0


# -- the tables, and how a schema is told to be one --------------------------------------------------------------------

DEFAULT_SCHEMA = "memlayer"
OLDEST_SERVER = 130000
_SCHEMA_VERSION = "schema_version"

_OWN_TYPES = (
    ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"),
    ("INTEGER", "BIGINT"),
    ("BLOB", "BYTEA"),
    ("REAL", "DOUBLE PRECISION"),
    # Texts compare by code point, as in SQLite, whatever the database's language is.
    ("TEXT", 'TEXT COLLATE "C"'),
    (" WITHOUT ROWID", ""),
)

_POSTGRES_ONLY = """
-- A transaction takes positions in blocks. They follow the order in which the writers of one namespace got its lock,
-- but not the order of commits: whether a reader has seen an event is told by `xid`, the transaction that wrote it.
CREATE SEQUENCE positions AS BIGINT INCREMENT BY 32;
ALTER TABLE events ADD COLUMN xid XID8 NOT NULL DEFAULT pg_current_xact_id();
CREATE INDEX events_by_transaction ON events (xid);
CREATE INDEX events_by_namespace ON events (ns, xid);
CREATE INDEX events_by_time ON events (ns, recorded_at, seq);
CREATE INDEX items_by_namespace ON items (ns, id);
-- float16 vectors do not shrink: what does not fit into a row is stored as it is.
ALTER TABLE vectors ALTER COLUMN data SET STORAGE EXTERNAL;
"""


def schema_of(db: psycopg.Connection[Any]) -> str:
    """The schema that a connection's store is in: the first of a search path of its own, else `memlayer`."""
    ((path, source),) = db.execute("SELECT setting, source FROM pg_settings WHERE name = 'search_path'").fetchall()
    if source not in ("default", "configuration file"):
        for entry in path.split(","):
            name = entry.strip()
            name = name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
            if name and name != "$user":
                return str(name)
    return DEFAULT_SCHEMA


def check_server(db: psycopg.Connection[Any], where: str) -> None:
    """Refuse a server that lacks what the journal is built on.

    Raises:
        ConfigurationError: it is too old, or its texts are not UTF-8.
    """
    if db.info.server_version < OLDEST_SERVER:
        raise ConfigurationError(f"{where} is PostgreSQL {db.info.server_version // 10000}; 13 or later is needed.")
    encoding = db.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The database of {where} is encoded in {encoding}, which cannot hold every text; "
            "use one that was created with ENCODING 'UTF8'."
        )


def create(db: psycopg.Connection[Any], schema: str, *, where: str, new_id: Callable[[], str], created_at: int) -> None:
    """Give a new schema its tables and its store id, in one transaction; an earlier one is made good after a restore.

    Raises:
        NotAStore: the schema has tables of something else, or of an earlier release.
        SchemaTooNew: a newer release wrote it.
    """
    if version_of(db, schema, where) == VERSION and not _foreign_xids(db, schema):
        return
    with db.transaction():
        # Hosts that open a new store at once wait for the first of them.
        db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"memlayer schema {schema}",))
        version = version_of(db, schema, where)
        if version == 0 and not _exists(db, schema):
            db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        db.execute(sql.SQL("SET LOCAL search_path = {}, pg_catalog").format(sql.Identifier(schema)))
        if version == 0:
            db.execute(_tables().encode())
            rows = [(_SCHEMA_VERSION, str(VERSION)), (STORE_ID, new_id()), (CREATED_AT, str(created_at))]
            with db.cursor() as cursor:
                cursor.executemany("INSERT INTO meta VALUES (%s, %s)", rows)
        # A dump that was restored into another server brings transaction numbers that have not come yet there, and
        # positions that are such numbers.
        moved = db.execute(
            "UPDATE events SET xid = pg_current_xact_id() WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())"
        )
        if moved.rowcount:
            db.execute(
                "UPDATE meta SET value = jsonb_set(value::jsonb, '{position}', '0')::text WHERE key LIKE 'outbox:%'"
            )


def _tables() -> str:
    script = TABLES_SQL
    for sqlite, postgres in _OWN_TYPES:
        script = script.replace(sqlite, postgres)
    return script + _POSTGRES_ONLY


def _exists(db: psycopg.Connection[Any], schema: str) -> bool:
    return db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone() is not None


def version_of(db: psycopg.Connection[Any], schema: str, where: str) -> int:
    """The version of a schema's tables, 0 when it has none; nothing in it is changed.

    Raises:
        NotAStore: it has tables of something else, or of an earlier release.
        SchemaTooNew: a newer release wrote it.
    """
    rows = db.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s "
        "AND c.relname = ANY(%s)",
        (schema, list(TABLES)),
    ).fetchall()
    if not rows:
        return 0
    record = None
    if ("meta",) in rows:
        meta = sql.SQL("SELECT value FROM {}.meta WHERE key = %s").format(sql.Identifier(schema))
        try:
            record = db.execute(meta, (_SCHEMA_VERSION,)).fetchone()
        except (psycopg.errors.UndefinedColumn, psycopg.errors.InsufficientPrivilege):
            record = None
    if record is None:
        raise NotAStore(
            f"The schema {schema} of {where} has tables of something else ({min(rows)[0]}, ...). Choose another one "
            "with ?options=-csearch_path%3Dname at the end of the connection string."
        )
    version = int(record[0])
    check_format(version, where)
    if len(rows) < len(TABLES):
        raise NotAStore(f"The schema {schema} of {where} lacks tables of its store. Restore a backup.")
    return version


def _foreign_xids(db: psycopg.Connection[Any], schema: str) -> bool:
    query = sql.SQL("SELECT 1 FROM {}.events WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 1")
    return db.execute(query.format(sql.Identifier(schema))).fetchone() is not None
