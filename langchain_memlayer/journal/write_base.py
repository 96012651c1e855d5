"""What every part of the writing side builds on: one transaction, positions, settings, namespaces, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from langchain_memlayer.journal.database import Database
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.journal.read_base import IN_USE, VECTOR_SHIFT
from langchain_memlayer.types import Kind
from langchain_memlayer.values import dumps

_EVENT = (
    "INSERT INTO events (seq, recorded_at, ns, key, kind, op, item, gone, prev, value, actor, sources, valid_at, "
    "invalid_at, batch, detail) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


def json_text(value: Any) -> str | None:
    """A value as JSON; nothing for an empty one."""
    return dumps(value) if value else None


class BaseWriter(Reader):
    """Writes of one transaction; reads through it see them.

    Attributes:
        now: The time of the commit, microseconds since 1970 UTC.
        seq: The position of the last event so far.
    """

    def __init__(self, db: Database, *, now: int) -> None:
        super().__init__(db)
        self.now = now
        self.seq = self._first_seq()
        self._namespaces: dict[str, int] = {}

    def _first_seq(self) -> int:
        """The position before the one that the first event will have."""
        return self.last_seq()

    def upcoming(self) -> int:
        """The position that the next event will have."""
        return self.seq + 1

    def renumber(self) -> None:
        """Let new positions and row numbers follow those that came from another journal."""
        # SQLite goes on behind the highest ones by itself.
        self.seq = self._first_seq()

    def _inserted(self, sql: str, params: Sequence[Any]) -> int:
        """Insert one row; returns its `id`."""
        self.db.execute(sql, params)
        return int(self.db.execute("SELECT last_insert_rowid()").fetchone()[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keep a setting with the journal."""
        self.db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def first_meta(self, key: str, value: str) -> str:
        """Keep a setting unless there is one already, of another writer; returns what is kept."""
        self.db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, value))
        return self.meta(key) or value

    def swap_meta(self, key: str, old: str, new: str) -> bool:
        """Change a setting if it still is what the caller has seen; says whether it was."""
        return self.db.execute("UPDATE meta SET value = ? WHERE key = ? AND value = ?", (new, key, old)).rowcount == 1

    def drop_meta(self, key: str) -> None:
        """Drop a setting, if it is there."""
        self.db.execute("DELETE FROM meta WHERE key = ?", (key,))

    def namespace(self, path: str) -> int:
        """The number of an encoded namespace, made when new."""
        found = self._namespaces.get(path)
        if found is None:
            found = self.namespace_id(path)
            if found is None:
                found = self._inserted("INSERT INTO namespaces (path) VALUES (?)", (path,))
            self._namespaces[path] = found
        return found

    def event(
        self,
        ns: int,
        key: str,
        kind: Kind,
        op: str,
        *,
        item: int | None = None,
        gone: int | None = None,
        prev: str | None = None,
        value: str | None = None,
        actor: str | None = None,
        sources: Sequence[str] = (),
        valid_at: int | None = None,
        invalid_at: int | None = None,
        batch: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Append one event; returns its position."""
        self.seq = self.upcoming()
        self.db.execute(
            _EVENT,
            (self.seq, self.now, ns, key, kind, op, item, gone, prev, value, actor, json_text(sources), valid_at,
             invalid_at, batch, json_text(detail)),
        )  # fmt: skip
        return self.seq

    def record_batch(self, scope: str, batch: str, result: Sequence[Any]) -> None:
        """Remember what this commit reports, so that the same batch id reports it again and writes nothing."""
        self.db.execute(
            "INSERT INTO batches VALUES (?,?,?,?)", (scope, batch, self.seq, orjson.dumps(list(result)).decode())
        )

    def defer(self, turns: Sequence[int]) -> int | None:
        """Note that the facts of these turns are still to be found; returns the note's number, None without turns."""
        if not turns:
            return None
        return self._inserted("INSERT INTO pending (turns) VALUES (?)", (orjson.dumps(list(turns)).decode(),))

    def settle(self, pending: int) -> bool:
        """Strike out such a note; False when it is gone already."""
        return self.db.execute("DELETE FROM pending WHERE id = ?", (pending,)).rowcount == 1

    def _vectors(self, ns: int, item: int, codes: bytes | None) -> None:
        if codes:
            self.db.execute(
                f"INSERT INTO vectors VALUES (? * {IN_USE}, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data",
                (ns << VECTOR_SHIFT | item, codes),
            )

    def _drop_vectors(self, ns: int, item: int) -> None:
        """Remove the vectors of a row, those that are staged too: they are of what it was."""
        row = ns << VECTOR_SHIFT | item
        self.db.execute("DELETE FROM vectors WHERE id IN (?, ?)", (row, -row))
