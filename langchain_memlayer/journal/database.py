"""What all of the journal's SQL builds on: a connection, the settings that are kept by name, positions, namespaces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, Protocol, TypeVar

import orjson

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.types import Scope, prefix_bounds


class Cursor(Protocol):
    """The rows of one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Database(Protocol):
    """One connection.

    Statements are written as SQLite takes them, with `?` for values, and PostgreSQL takes most of them too; where it
    does not, `PostgresReader` and `PostgresWriter` say it otherwise.
    """

    def execute(self, sql: str, params: Sequence[Any] = ..., /) -> Cursor:
        """Run one statement."""
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row of values; it returns no rows."""
        ...


class Gathering:
    """A connection whose inserts wait until anything else is asked of it: then each statement runs once for its rows.

    So a list of turns costs three statements, and whatever is read sees all that was written before.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: dict[str, list[Sequence[Any]]] = {}

    def insert(self, sql: str, row: Sequence[Any]) -> None:
        """Insert a row, at the latest before the next statement."""
        self._waiting.setdefault(sql, []).append(row)

    def settle(self) -> None:
        """Insert what waits."""
        waiting, self._waiting = self._waiting, {}
        for sql, rows in waiting.items():
            self._db.executemany(sql, rows)

    def execute(self, sql: str, params: Sequence[Any] = (), /) -> Cursor:
        """Run one statement."""
        self.settle()
        return self._db.execute(sql, params)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Any:
        """Run one statement for each row of values."""
        self.settle()
        return self._db.executemany(sql, rows)


# -- settings ----------------------------------------------------------------------------------------------------------

Area = Literal["items", "memories"]
"""The two halves of a journal: items of a BaseStore, and memories. Each has an embedder of its own."""

STORE_ID = "store_id"
CREATED_AT = "created_at"

SCRUB_DUE = "scrub"
"""It is there from an erasing commit until the journal's `scrub` has made it physical."""

IMPORT_NOTE = "import"
"""It is there while an import is unfinished; such a journal is opened for nothing else."""

VECTORS_SIGN = "vectors"
"""The sign of the row ids of the vectors that are in use, "1" when it is not there; `staging` says why."""

STAGING_NOTE = "reembed"
"""It is there while vectors of another embedder are staged, or those that were in use before are removed."""


def embedder_key(area: Area) -> str:
    """The embedder that wrote the vectors of an area."""
    return f"embedder:{area}"


def outbox_key(area: Area) -> str:
    """How far a foreign vector store was brought."""
    return f"outbox:{area}"


def purge_key(area: Area) -> str:
    """The rows of which an emptied journal still has to tell the foreign store that they are gone."""
    return f"purge:{area}"


def points_key(item: int) -> str:
    """How many points a row has in the foreign store, where it is not one."""
    return f"points:{item}"


# -- reading -----------------------------------------------------------------------------------------------------------

IN_USE = f"coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = '{VECTORS_SIGN}'), 1)"
"""The SQL of the sign of the vectors in use: those with the other one are staged."""
VECTORS_OF_ITEM = f"v.id = i.id * {IN_USE}"
"""The SQL condition that vectors belong to a row of items and are in use."""
_CHUNK = 500

_T = TypeVar("_T")
_LOGGER = logging.getLogger(__name__)


DAMAGED = (ValueError, TypeError, OverflowError, KeyError)
"""What is raised where the values of a row are not what they should be."""


def placeholders(n: int) -> str:
    """`n` placeholders."""
    return ",".join("?" * n)


def chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """The values in pieces that one statement takes."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]


def sound(rows: Iterable[Any], read: Callable[[Any], _T]) -> Iterator[_T]:
    """What rows say; one that is damaged is told of and left out, so that it hides no other."""
    for row in rows:
        try:
            yield read(row)
        except DAMAGED as error:
            _LOGGER.warning(
                "Row %s of the journal is damaged (%s) and was left out; run `memlayer doctor`.",
                row[0], type(error).__name__,
            )  # fmt: skip


def rows_touched(events: Sequence[tuple[int | None, int | None, str]]) -> list[int] | None:
    """The rows that some events (item, gone, op) are about; None when one was a reset."""
    if any(op == "reset" for _, _, op in events):
        return None
    return sorted({row for item, gone, _ in events for row in (item, gone) if row is not None})


def is_report(report: Any) -> bool:
    """Whether this is what a batch reported: the lists of what it did, with texts and ids in them."""
    kinds = ("turns", "facts", "rejected", "added", "removed")
    listed = isinstance(report, dict) and "note" in report and all(isinstance(report.get(kind), list) for kind in kinds)
    done = [*report["turns"], *report["facts"]] if listed else []
    return listed and all(isinstance(one, list) and len(one) == 4 and isinstance(one[0], str) for one in done)


def to_report(text: Any) -> dict[str, Any]:
    """What a batch reported.

    Raises:
        ValueError: it is damaged; or TypeError.
    """
    report: dict[str, Any] = orjson.loads(text)
    if not is_report(report):
        raise TypeError("no report of a batch")
    return report


class BaseReader:
    """Reads of one connection. Numbers of rows are what SQL returns; every method is one or two statements."""

    EACH = "json_each({}) AS one"
    """The SQL that makes rows `one`, each with a `value`, of a list in JSON."""

    SAME_COMMIT = "e.recorded_at = (SELECT recorded_at FROM events WHERE seq = ?)"
    """The condition that holds for all events of the commit that an event is of, and perhaps for others."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def among(
        self, sql: str, values: Sequence[Any], before: Sequence[Any] = (), after: Sequence[Any] = ()
    ) -> list[Any]:
        """The rows of a statement with some values for its `(...)`, in pieces that one statement takes.

        The values of its other placeholders stand `before` and `after` these.
        """
        rows: list[Any] = []
        for chunk in chunks(values):
            rows += self.db.execute(
                sql.replace("(...)", f"({placeholders(len(chunk))})"), (*before, *chunk, *after)
            ).fetchall()
        return rows

    def last_seq(self) -> int:
        """The position of the last commit."""
        return int(self.db.execute("SELECT max(seq) FROM events").fetchone()[0] or 0)

    def meta(self, key: str) -> str | None:
        """A setting that is kept with the journal."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def metas(self, keys: Sequence[str]) -> dict[str, str]:
        """Those of some settings that are kept with the journal."""
        return dict(self.among("SELECT key, value FROM meta WHERE key IN (...)", keys))

    def mark(self, seq: int) -> str | None:
        """What tells the event at a position from any other that might stand there in a restored journal."""
        row = self.db.execute("SELECT recorded_at, ns, key, op FROM events WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else blake2b(orjson.dumps(row), digest_size=16).hexdigest()

    def snapshot_position(self, meta: Mapping[str, Any]) -> int:
        """The position, by its `seq` and `mark`, that a derived file was made at.

        Raises:
            SnapshotError: The journal has another history, as after the loss of its end or the return of an old copy.
        """
        seq = meta.get("seq")
        mark = self.mark(seq) if type(seq) is int else None
        if mark is None or mark != meta.get("mark") or seq is None:
            raise SnapshotError("The snapshot is of another history of the journal; it is rebuilt.")
        return int(seq)

    def batch(self, scope: str, batch: str) -> dict[str, Any] | None:
        """What the commit of this batch id reported, or None when there was none."""
        sql = "SELECT seq, result FROM batches WHERE scope = ? AND batch = ?"
        return next(sound(self.db.execute(sql, (scope, batch)), lambda row: self._own_report(scope, row[1])), None)

    def _own_report(self, scope: str, text: Any) -> dict[str, Any]:
        """What a batch reported, unless it is of somebody else's memories."""
        report = to_report(text)
        keys = [done[0] for done in (*report["turns"], *report["facts"])]
        path = Scope(**orjson.loads(scope)).partition
        sql = "SELECT n.path FROM items i JOIN namespaces n ON n.id = i.ns WHERE i.kind <> 'item' AND i.key IN (...)"
        if any(owner != path for (owner,) in self.among(sql, keys)):
            raise ValueError("a report of others")
        return report

    def namespace_id(self, path: str) -> int | None:
        """The number of an encoded namespace."""
        row = self.db.execute("SELECT id FROM namespaces WHERE path = ?", (path,)).fetchone()
        return None if row is None else int(row[0])

    def namespace_count(self, prefix: str, *, most: int) -> int:
        """How many namespaces there are below a prefix, counted up to `most`."""
        low, high = prefix_bounds(prefix)
        row = self.db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM namespaces WHERE path >= ? AND path < ? LIMIT ?) AS found",
            (low, high, most),
        ).fetchone()
        return int(row[0])

    def touched(self, prefix: str, since: int, last: int | None = None) -> list[int] | None:
        """The items below a namespace that events after position `since` are about; None when one was a reset.

        `last` is the last position, where it is known.
        """
        low, high = prefix_bounds(prefix)
        last = self.last_seq() if last is None else last
        below = "SELECT id FROM namespaces WHERE path >= ? AND path < ?"
        # A short tail is read through; a long one by namespace. The unary plus keeps SQLite from choosing otherwise.
        column = "+ns" if last - since <= 4096 else "ns"
        rows = self.db.execute(
            f"SELECT item, gone, op FROM events WHERE seq > ? AND ({column} IN ({below}) OR op = 'reset')"
            if column == "+ns"
            else f"SELECT item, gone, op FROM events WHERE ns IN ({below}) AND seq > ? UNION ALL "
            "SELECT item, gone, op FROM events WHERE ns = 0 AND seq > ?",
            (since, low, high) if column == "+ns" else (low, high, since, since),
        ).fetchall()
        return rows_touched(rows)
