"""The journal on PostgreSQL: a pool of connections, transactions, locks and upkeep."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolTimeout

from langchain_memlayer.errors import ConfigurationError, InvalidInput, JournalError, MemLayerError, shown
from langchain_memlayer.journal.base import Journal, random_id, utc_now
from langchain_memlayer.journal.database import SCRUB_DUE
from langchain_memlayer.journal.postgres_sql import (
    PostgresReader,
    PostgresWriter,
    Session,
    adapt,
    check_server,
    create,
    schema_of,
    version_of,
)
from langchain_memlayer.journal.schema import TABLES
from langchain_memlayer.protocols import Clock, NewId
from langchain_memlayer.types import Durability

LOCK_SECONDS = 30
HANGING_SECONDS = 120
MOST_LOCKS = 256
"""Namespaces that one transaction locks one by one; for more it locks the whole journal."""

_POLL_SECONDS = 0.05
_ABANDONED: list[Any] = []
"""Pools of parent processes: a child must not use, close or even forget them, since that would end the connections."""


class PostgresJournal(Journal):
    """One schema's journal: any number of readers and writers, from any thread, process or host.

    A transaction that changes some namespaces holds their advisory locks until it ends, so what it reads of them stays
    true until it is committed; writers of different namespaces do not wait for each other. All locks and settings are
    those of transactions, so a connection pooler may stand in between, if it knows prepared statements. A host that
    dies or hangs in a transaction holds its locks for two minutes at most.

    Args:
        url: `postgresql://user:password@host:port/database`, with libpq's parameters. The tables lie in the schema
            `memlayer`, or in the first of `?options=-csearch_path%3Dname`; it is made when missing. `pool_size` says
            how many connections one process has at most (20).
        durability: `full` lets an acknowledged write survive a crash of the server, `fast` only the end of the process.

    Raises:
        NotAStore: the schema holds something else.
        SchemaTooNew: a newer release wrote it.
        JournalError: the server cannot be reached, or refuses.
    """

    def __init__(
        self, url: str, *, durability: Durability = "full", clock: Clock = utc_now, new_id: NewId = random_id
    ) -> None:
        super().__init__(durability=durability, clock=clock, new_id=new_id)
        # Derived files need a folder; here they are made anew when the store opens.
        self.folder = None
        self._address = Address.of(url)
        self.where = self._address.where
        self._errors = self._address.errors
        self._commit_mode = "off" if durability == "fast" else ""
        with self._errors(), ExitStack() as undo:
            self._open()
            undo.callback(self._disconnect)
            self._opened()
            undo.pop_all()

    def _open(self) -> None:
        # By hand, because a pool would only say that it waited in vain.
        with psycopg.connect(**self._address.settings, autocommit=True) as db:
            check_server(db, self.where)
            self._schema = schema_of(db)
            create(db, self._schema, where=self.where, new_id=self.new_id, created_at=self.now())
            ((mode,),) = db.execute("SHOW synchronous_commit").fetchall()
            if mode == "off" and not self._commit_mode:
                self._commit_mode = "on"
        self._connect()

    def _connect(self) -> None:
        self._away = False
        self._pool = ConnectionPool(
            make_conninfo(**self._address.settings),
            kwargs={"autocommit": True},
            configure=adapt,
            min_size=1,
            max_size=self._address.pool_size,
            timeout=CONNECT_SECONDS,
            # Else it rests for minutes, also when the server is back, once that was gone for long.
            reconnect_timeout=CONNECT_SECONDS,
            name="memlayer",
            open=True,
        )

    def __repr__(self) -> str:
        return f"PostgresJournal({self.where!r})"

    def _reconnect(self) -> None:
        _ABANDONED.append(self._pool)
        self._connect()

    def _disconnect(self) -> None:
        self._pool.close()

    # -- sessions -------------------------------------------------------------------------------------------------

    @contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(self._connection(), self._schema)
        try:
            yield session
        finally:
            try:
                # A connection that broke has nothing left to undo; the pool replaces it.
                with suppress(psycopg.OperationalError):
                    session.undo()
            finally:
                self._pool.putconn(session.raw)

    def _connection(self) -> psycopg.Connection[Any]:
        """One that works: when one does not, as after a restart of the server, all are replaced.

        Else each would be waited for in turn. Once one call has waited in vain, the next ones fail soon, until the
        server is back: an agent's turn makes several.
        """
        until = time.monotonic() + (AWAY_SECONDS if self._away else CONNECT_SECONDS)
        failures, lost = self._failures(), False
        while True:
            try:
                connection = self._pool.getconn(max(0.0, until - time.monotonic()))
            except PoolTimeout:
                # Else all connections were in use.
                self._away = self._away or lost or self._failures() > failures
                raise
            try:
                self._pool.check_connection(connection)
            except BaseException as error:
                self._pool.putconn(connection)
                if not isinstance(error, psycopg.Error):
                    raise
                lost = True
                self._pool.drain()
            else:
                self._away = False
                return connection

    def _failures(self) -> int:
        """How many attempts to connect have failed."""
        return self._pool.get_stats().get("connections_errors", 0)

    @contextmanager
    def read(self, *, snapshot: bool = False) -> Iterator[PostgresReader]:
        """A reader; with `snapshot` all its reads see one state of the journal."""
        self._check()
        with self._errors(), self._session() as session:
            if snapshot:
                # What reads by index, as all of this does, is over before it would be compiled.
                session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL jit = off")
            yield PostgresReader(session)

    @contextmanager
    def write(self, *paths: str) -> Iterator[PostgresWriter]:
        """A writer of some namespaces; of none, nobody else writes anything meanwhile.

        Raises:
            JournalError: nothing was stored; or the server was lost during the commit, and it may have been.
        """
        self._check()
        with self._errors(), self._session() as session:
            session.begin(self._beginning(paths))
            writer = PostgresWriter(session, now=self.now())
            yield writer
            writer.settle()
            _step("before-commit")
            self._commit(session)
            _step("after-commit")
        self._committed()

    def _beginning(self, paths: tuple[str, ...]) -> str:
        """The statements that begin a write: its settings and its locks, all in one message."""
        settings = [f"lock_timeout = '{LOCK_SECONDS}s'", f"idle_in_transaction_session_timeout = '{HANGING_SECONDS}s'"]
        if self._commit_mode:
            settings.append(f"synchronous_commit = {self._commit_mode}")
        shared = 0 < len(paths) <= MOST_LOCKS
        locks = [f"pg_advisory_xact_lock{'_shared' if shared else ''}({self.lock('')})"]
        if shared:
            # In one order, so that two writers never wait for each other.
            locks += [f"pg_advisory_xact_lock({key})" for key in sorted({self.lock(path) for path in paths})]
        return "; ".join(
            [
                "BEGIN ISOLATION LEVEL READ COMMITTED",
                *(f"SET LOCAL {setting}" for setting in settings),
                *(f"SELECT {lock}" for lock in locks),
            ]
        )

    def lock(self, path: str) -> int:
        """The number of the lock of a namespace, or of the whole journal for `""`."""
        digest = blake2b(f"memlayer {self.store_id} {path}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)

    def _commit(self, session: Session) -> None:
        try:
            session.commit()
        except psycopg.OperationalError as error:
            if session.raw.closed:
                raise JournalError(
                    f"The connection to {self.where} was lost during a commit, which may or may not have happened. "
                    "Repeat the call: with the batch_id of before, what was stored is not stored again."
                ) from error
            raise

    # -- upkeep ---------------------------------------------------------------------------------------------------

    def scrub(self) -> None:
        """Make deletions physical: rewrite the tables, so that their files hold no deleted row.

        That is all a client of PostgreSQL can do. What the server wrote before stays where it went: in the write-ahead
        log until its files are used again, in archived logs, in replicas that lag and in backups. A transaction that
        began before keeps the rows that it may still read, so the end of such transactions is waited for.

        Raises:
            JournalError: another transaction did not let go of the tables, or of what they held before.
        """
        self._check()
        with self._errors(), self._session() as session:
            # Of a table of somebody else there is no more than a warning.
            passed_over: list[Any] = []
            session.raw.add_notice_handler(passed_over.append)
            try:
                session.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
                try:
                    self._wait_for_older(session)
                    for table in TABLES:
                        session.raw.execute(sql.SQL("VACUUM (FULL) {}").format(sql.Identifier(self._schema, table)))
                finally:
                    # After an interrupt there is nothing left to be reset.
                    with suppress(psycopg.Error):
                        session.execute("RESET lock_timeout")
                if passed_over:
                    raise self._unscrubbed("tables", "only the user who owns them can rewrite them")
                session.execute("DELETE FROM meta WHERE key = ?", (SCRUB_DUE,))
            except psycopg.OperationalError as error:
                raise self._unscrubbed("tables", type(error).__name__) from error
            finally:
                session.raw.remove_notice_handler(passed_over.append)

    def _wait_for_older(self, session: Session) -> None:
        """Wait until no transaction of the database sees what was there before now."""
        ((now,),) = session.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchall()
        until = time.monotonic() + LOCK_SECONDS
        while session.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND "
            "age(backend_xmin) > age(?::text::xid8::xid) LIMIT 1",
            (now,),
        ).fetchone():
            if time.monotonic() > until:
                raise psycopg.errors.LockNotAvailable("an older transaction is still running")
            time.sleep(_POLL_SECONDS)

    def check(self) -> str:
        """`ok`, or which index cannot be used, or what is carried out at each write that is not ours."""
        with self.read() as reader:
            rows = reader.db.execute(
                "SELECT 'the index ' || c.relname || ' is not valid' FROM pg_index x JOIN pg_class c ON "
                "c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? AND "
                "NOT (x.indisvalid AND x.indisready) UNION ALL "
                "SELECT 'it has what is not ours: ' || p.name FROM (SELECT tgname AS name, tgrelid AS of FROM "
                "pg_trigger WHERE NOT tgisinternal UNION ALL SELECT rulename, ev_class FROM pg_rewrite) p JOIN "
                "pg_class c ON c.oid = p.of JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ?",
                (self._schema, self._schema),
            ).fetchall()
        return rows[0][0] if rows else "ok"

    def size(self) -> int:
        """The bytes of the tables and their indexes."""
        with self.read() as reader:
            row = reader.db.execute(
                "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c JOIN pg_namespace n ON "
                "n.oid = c.relnamespace WHERE n.nspname = ? AND c.relname = ANY(?)",
                (self._schema, list(TABLES)),
            ).fetchone()
        return int(row[0])


def store_exists(url: str) -> bool:
    """Whether a database has a store.

    Raises:
        NotAStore: the schema holds something else.
        JournalError: the server cannot be reached.
    """
    address = Address.of(url)
    with address.errors(), psycopg.connect(**address.settings, autocommit=True) as db:
        return version_of(db, schema_of(db), address.where) > 0


def _step(name: str) -> None:
    """Called at each step of a commit; tests replace it to stop the process there."""


# -- where a store is, and what the server's errors mean there ---------------------------------------------------------

CONNECT_SECONDS = 15.0
AWAY_SECONDS = 1.0
# A server that cannot be reached any more says nothing: without these a statement waits for a quarter of an hour.
_LOST = {
    "tcp_user_timeout": str(int(1000 * CONNECT_SECONDS)),
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
POOL_SIZE = 20

_OURS = re.compile(r"[?&]pool_size=([^&]*)")
_HINTS = {
    "3D000": "there is no such database; create it",
    "40001": "another writer was quicker; nothing of this call was stored; repeat it",
    "40P01": "two calls waited for each other; nothing of this one was stored; repeat it",
    "42501": "the user lacks a right; the owner of the schema has them all",
    "42P01": "its tables are gone; open the store again",
    "25006": "it is read-only; connect to the primary server",
    "53100": "the server's disk is full; nothing of this call was stored; make room and repeat it",
    "53300": "the server has no connection left; lower `pool_size` or raise max_connections",
    "55P03": "another writer held its lock too long; nothing of this call was stored; repeat the call",
}


@dataclass(frozen=True, repr=False)
class Address:
    """A connection string, read.

    Attributes:
        settings: libpq's parameters; the password may be among them.
        pool_size: How many connections one process has at most.
        where: What messages call it; without the password.
    """

    settings: Mapping[str, Any]
    pool_size: int
    where: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a connection string.

        Raises:
            ConfigurationError: it is none.
        """
        size = str(POOL_SIZE)
        while (found := _OURS.search(url)) is not None:
            size = found[1]
            rest = url[found.end() :]
            url = url[: found.start()] + (f"{found[0][0]}{rest[1:]}" if rest else "")
        if not size.isdecimal() or int(size) < 2:
            raise ConfigurationError(f"pool_size must be a number of at least 2, got {shown(size)}.")
        try:
            settings: dict[str, Any] = {
                "connect_timeout": str(int(CONNECT_SECONDS)), "application_name": "memlayer", **_LOST,
                **conninfo_to_dict(url),
            }  # fmt: skip
            for host in str(settings.get("host") or "").split(","):
                if not host.startswith(("/", "@")):
                    host.encode("idna")
        except (psycopg.Error, UnicodeError):
            # Its message may quote the password.
            raise ConfigurationError(
                "The connection string cannot be read. Its form is postgresql://user:password@host:5432/database"
                "?option=value, with special characters percent-encoded."
            ) from None
        return cls(settings, int(size), _shown(settings))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except psycopg.OperationalError as error:
            if isinstance(error.__context__, BaseException) and not isinstance(error.__context__, Exception):
                # The driver met an interrupt, and then that its statement was still running.
                raise error.__context__ from None
            raise self._explained(error) from error
        except psycopg.Error as error:
            # Their details quote the rows that they are about.
            raise self._explained(error) from None

    def _explained(self, error: psycopg.Error) -> MemLayerError:
        state = error.sqlstate or ""
        named = f"{type(error).__name__}, {state}" if state else type(error).__name__
        if isinstance(error, psycopg.DataError) and "NUL" in str(error):
            return InvalidInput("A text has a NUL character, which PostgreSQL cannot store; remove it.")
        hint = _HINTS.get(state)
        if state.startswith("28") or "password authentication failed" in str(error):
            hint = "it refuses the user or the password; check the connection string"
        elif hint is None and isinstance(error, psycopg.OperationalError):
            said = " ".join(str(error).split())
            secret = self.settings.get("password")
            said = said.replace(secret, "***") if secret else said
            hint = f"{said.rstrip('.')}; nothing of this call was stored; check the server and repeat it"
        return JournalError(f"The journal of {self.where} failed: {hint or 'a statement was refused'} ({named}).")


def _shown(settings: Mapping[str, Any]) -> str:
    user = f"{settings['user']}@" if settings.get("user") else ""
    port = f":{settings['port']}" if settings.get("port") else ""
    options = f"?options={settings['options']}" if settings.get("options") else ""
    return f"postgresql://{user}{settings.get('host') or ''}{port}/{settings.get('dbname') or ''}{options}"
