"""The nearest vectors by the database itself: a table of pgvector's beside the journal, with an HNSW index.

What it holds is derived from the journal. It is made when it is first needed, not by the migrations; nothing is lost
with it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import psycopg
from numpy.typing import NDArray

from langchain_memlayer.journal.read_caches import KINDS, Area
from langchain_memlayer.journal.settings import SCRUB_DUE

if TYPE_CHECKING:
    from langchain_memlayer.journal.postgres import PostgresJournal
    from langchain_memlayer.journal.postgres_session import Session

MOST_DIMS = 4_000
"""The largest vectors that pgvector indexes at half precision."""

_OLDEST = (0, 8)
_LINKS, _BUILD_WIDTH = 16, 100
_FEWEST_EF, _MOST_EF = 100, 1_000
_BUILD_MEMORY = 512 << 20
_ROW_MEMORY = 800
_HANGING_SECONDS = 120

_HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)


@dataclass(frozen=True, slots=True)
class VectorRecord:
    """One vector as it lies in the table.

    Attributes:
        id: What it is replaced and removed by.
        item: The journal's row.
        space: Its encoded namespace.
        vector: Its numbers, (dims,).
    """

    id: str
    item: int
    space: str
    vector: NDArray[Any]


def extension_schema(session: Session) -> str | None:
    """Where pgvector is installed in the database, made so if it may be; None when it is missing or too old."""
    found = _installed(session)
    if found is not None:
        version, schema = found
        return schema if version >= _OLDEST else None
    row = session.execute("SELECT default_version FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    if row is None or _version(row[0]) < _OLDEST:
        return None
    try:
        # Not into a store's own schema: it serves the whole database.
        session.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
    except psycopg.DatabaseError:
        # The user lacks the right, or another host was quicker.
        if session.raw.closed:
            raise
    found = _installed(session)
    return None if found is None else found[1]


def _installed(session: Session) -> tuple[tuple[int, ...], str] | None:
    row = session.execute(
        "SELECT e.extversion, n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
        "WHERE e.extname = 'vector'"
    ).fetchone()
    return None if row is None else (_version(row[0]), row[1])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def may_make(session: Session, area: Area) -> bool:
    """Whether this user may make an area's table, and the index of one that is there."""
    ((allowed,),) = session.execute(
        "SELECT has_schema_privilege(n.oid, 'CREATE') AND NOT EXISTS (SELECT 1 FROM pg_class t WHERE t.relnamespace = "
        "n.oid AND t.relname = ? AND NOT pg_has_role(t.relowner, 'USAGE')) FROM pg_class c JOIN pg_namespace n ON "
        f"n.oid = c.relnamespace WHERE c.oid = {_regclass(session.named('items'))}",
        (table_name(area),),
    ).fetchall()
    return bool(allowed)


def table_name(area: Area) -> str:
    """The table of an area's vectors."""
    return f"pgvector_{area}"


def index_name(area: Area) -> str:
    """Its HNSW index."""
    return f"{table_name(area)}_nearest"


def present_areas(session: Session) -> list[Area]:
    """The areas that have a table."""
    known = ", ".join(f"('{area}', {_oid(session, area)})" for area in KINDS)
    found = session.execute(f"SELECT area FROM (VALUES {known}) AS known (area, relation) WHERE relation IS NOT NULL")
    return [row[0] for row in found]


def interrupt_build(session: Session, area: Area) -> None:
    """Let whoever builds the index give up: the table is to be changed by someone who cannot wait."""
    session.execute(
        "SELECT pg_cancel_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE "
        f"l.relation = {_oid(session, area)} AND l.mode = 'ShareLock' AND a.datname = current_database() AND "
        "a.usename = current_user AND l.pid <> pg_backend_pid()"
    )


def erase(session: Session, items: Mapping[Area, Sequence[int] | None]) -> None:
    """Remove rows, within the transaction that erases them from the journal; None means all of an area."""
    for area in present_areas(session):
        if area in items:
            interrupt_build(session, area)
            some = items[area]
            where, params = ("", ()) if some is None else (" WHERE item = ANY(?::bigint[])", (list(some),))
            session.execute(f"DELETE FROM {session.named(table_name(area))}{where}", params)


def _oid(session: Session, area: Area, *, index: bool = False) -> str:
    return _regclass(session.named(index_name(area) if index else table_name(area)))


def _regclass(name: str) -> str:
    return f"to_regclass({_quoted(name)})"


def _quoted(text: str) -> str:
    """A text as a constant in a statement."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


class VectorTable:
    """The vectors of one area of a journal.

    Args:
        journal: Where.
        area: Whose vectors.
        extension: The schema that pgvector is in.
    """

    def __init__(self, journal: PostgresJournal, area: Area, extension: str) -> None:
        self._journal = journal
        self._area: Area = area
        self._extension = extension
        self._table = table_name(area)

    # -- its life -------------------------------------------------------------------------------------------------

    def fit(self, dims: int) -> None:
        """Make the table, anew when it is for vectors of another size; what was in it is then to be brought again."""
        with self._journal.session() as session:
            if self._dims(session) == dims:
                return
        with self._journal.session(alone=True) as session:
            session.begin(f"BEGIN; SELECT pg_advisory_xact_lock({self._lock})")
            # Hosts that need it at once wait for the first of them.
            if self._dims(session) == dims:
                return
            table = session.named(self._table)
            session.execute(f"DROP TABLE IF EXISTS {table}")
            session.execute(
                f"CREATE TABLE {table} (id UUID PRIMARY KEY, item BIGINT NOT NULL, "
                f'space TEXT COLLATE "C" NOT NULL, vector {self._named("halfvec")}({dims}) NOT NULL)'
            )
            # Beside the other index: a namespace of few rows among many is read whole, which is quick and exact.
            session.execute(f"CREATE INDEX {self._table}_space ON {table} (space)")
            session.commit()

    def build(self) -> None:
        """Make the HNSW index if it is missing, unless someone else is at it, or an erasure is unfinished.

        One message does it, so that it comes to its end without this process too. An erasure interrupts it.
        """
        with self._journal.session(alone=True) as session:
            if self._has_index(session):
                return
            table = session.named(self._table)
            # Parallel workers would need shared memory, of which containers have little.
            block = (
                f"BEGIN IF pg_try_advisory_xact_lock({self._lock}) AND {_oid(session, self._area, index=True)} IS NULL "
                f"AND NOT EXISTS (SELECT 1 FROM {session.named('meta')} WHERE key = '{SCRUB_DUE}') THEN "
                "PERFORM set_config('max_parallel_maintenance_workers', '0', true), set_config('maintenance_work_mem', "
                "greatest(pg_size_bytes(current_setting('maintenance_work_mem')), least("
                f"{_BUILD_MEMORY}, {_ROW_MEMORY + 2 * (self._dims(session) or 0)} * (SELECT count(*) FROM {table}))) "
                f"/ 1024 || 'kB', true); CREATE INDEX {index_name(self._area)} ON {table} USING hnsw (vector "
                f"{self._named('halfvec_cosine_ops')}) WITH (m = {_LINKS}, ef_construction = {_BUILD_WIDTH}); "
                f"ANALYZE {table}; END IF; END"
            )
            try:
                session.raw.execute(f"BEGIN; SET LOCAL statement_timeout = 0; DO {_quoted(block)}; COMMIT".encode())
            except psycopg.errors.QueryCanceled:
                # An erasure, after which the next search that misses the index asks for it.
                return

    # -- rows -----------------------------------------------------------------------------------------------------

    def put(self, records: Sequence[VectorRecord]) -> None:
        """Write vectors, replacing those with the same ids; those of rows that are no longer live are left out."""
        with self._journal.session(alone=True) as session:
            # While these locks are held nothing is erased; whoever builds the index is waited for before.
            session.begin(
                f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{_HANGING_SECONDS}s'; "
                f"LOCK TABLE {session.named(self._table)} IN ROW EXCLUSIVE MODE; "
                f"SELECT pg_advisory_xact_lock_shared({self._journal.lock('')}); "
                f"SELECT pg_advisory_xact_lock({self._writing})"
            )
            found = session.execute(
                "SELECT id FROM items WHERE id = ANY(?::bigint[]) AND closed IS NULL",
                (list({record.item for record in records}),),
            )
            live = {row[0] for row in found}
            self._delete(session, [record.id for record in records])
            table = session.named(self._table)
            with (
                session.raw.cursor() as cursor,
                cursor.copy(f"COPY {table} (id, item, space, vector) FROM STDIN (FORMAT binary)".encode()) as copy,
            ):
                copy.write(b"".join((_HEADER, *(_row(one) for one in records if one.item in live), _END)))
            session.commit()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove vectors; ids that are not there are no error."""
        with self._journal.session(alone=True) as session:
            self._delete(session, ids)

    def _delete(self, session: Session, ids: Sequence[str]) -> None:
        session.execute(f"DELETE FROM {session.named(self._table)} WHERE id = ANY(?::uuid[])", (list(ids),))

    def present(self, ids: Sequence[str]) -> set[str]:
        """Which of the ids are there."""
        with self._journal.session() as session:
            rows = session.execute(
                f"SELECT id FROM {session.named(self._table)} WHERE id = ANY(?::uuid[])", (list(ids),)
            ).fetchall()
        return {str(row[0]) for row in rows}

    # -- asking ---------------------------------------------------------------------------------------------------

    def nearest(self, vector: NDArray[Any], k: int, space: str | None) -> list[int] | None:
        """The rows of the `k` vectors that are nearest by cosine, of one encoded namespace or of all.

        Returns:
            Fewer than `k` only when there are no more; None while there is no index, or when it gave up too early.
        """
        with self._journal.session() as session:
            session.begin("BEGIN READ ONLY")
            ((_, _, ready),) = session.execute(
                "SELECT set_config('hnsw.iterative_scan', 'strict_order', true), "
                "set_config('hnsw.ef_search', ?, true), "
                f"{_oid(session, self._area, index=True)} IS NOT NULL",
                (str(min(max(k, _FEWEST_EF), _MOST_EF)),),
            ).fetchall()
            if not ready:
                return None
            # Planned for these values: how many rows the namespace has decides which index is read.
            rows = session.execute_once(*self.statement(session, vector, k, space)).fetchall()
            if len(rows) < k:
                where, values = _within(space)
                counted = f"SELECT count(*) FROM (SELECT 1 FROM {session.named(self._table)}{where} LIMIT ?) AS found"
                ((there,),) = session.execute_once(counted, (*values, k)).fetchall()
                if there > len(rows):
                    return None
        return [row[0] for row in rows]

    def statement(self, session: Session, vector: NDArray[Any], k: int, space: str | None) -> tuple[str, list[Any]]:
        """The statement that asks, and its values."""
        where, values = _within(space)
        written = "[" + ",".join(map(str, np.asarray(vector, np.float32).tolist())) + "]"
        return (
            f"SELECT item FROM {session.named(self._table)}{where} ORDER BY vector "
            f"OPERATOR({self._named('<=>', quote=False)}) ?::{self._named('halfvec')} LIMIT ?",
            [*values, written, k],
        )

    # -- names ----------------------------------------------------------------------------------------------------

    def _dims(self, session: Session) -> int | None:
        """The size of the vectors that the table is for; None without a table."""
        row = session.execute(
            f"SELECT atttypmod FROM pg_attribute WHERE attrelid = {_oid(session, self._area)} AND "
            "attname = 'vector' AND NOT attisdropped"
        ).fetchone()
        return None if row is None else int(row[0])

    def _has_index(self, session: Session) -> bool:
        ((found,),) = session.execute(f"SELECT {_oid(session, self._area, index=True)} IS NOT NULL").fetchall()
        return bool(found)

    def _named(self, name: str, *, quote: bool = True) -> str:
        """Something of pgvector's with its schema."""
        schema = '"' + self._extension.replace('"', '""') + '"'
        return f'{schema}."{name}"' if quote else f"{schema}.{name}"

    @property
    def _lock(self) -> int:
        return self._journal.lock(self._table)

    @property
    def _writing(self) -> int:
        return self._journal.lock(f"{self._table} rows")


def _within(space: str | None) -> tuple[str, list[Any]]:
    return ("", []) if space is None else (" WHERE space = ?", [space])


def _row(record: VectorRecord) -> bytes:
    """One row in the form of a binary COPY."""
    codes = np.asarray(record.vector, ">f2")
    fields = (
        UUID(record.id).bytes,
        struct.pack(">q", record.item),
        record.space.encode(),
        struct.pack(">hh", len(codes), 0) + codes.tobytes(),
    )
    return b"".join((struct.pack(">h", len(fields)), *(struct.pack(">i", len(field)) + field for field in fields)))
