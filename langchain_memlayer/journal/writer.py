"""Everything that is written to the journal, inside one transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.graph.names import read_name
from langchain_memlayer.journal.cache_reader import KINDS
from langchain_memlayer.journal.database import (
    DAMAGED,
    IN_USE,
    SCRUB_DUE,
    Database,
    Gathering,
    outbox_key,
    placeholders,
    purge_key,
    sound,
    to_report,
)
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.schema import TABLES
from langchain_memlayer.json_values import dumps
from langchain_memlayer.types import LAST_TIME, MEMORY_ROOT, MOST_NAME_BYTES, Kind, Row, Scope, ToRead, Triple, fork_of

_EVENT = (
    "INSERT INTO events (seq, recorded_at, ns, key, kind, op, item, gone, prev, value, actor, sources, valid_at, "
    "invalid_at, batch, detail) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_MEMORY = (
    "INSERT INTO items (id, ns, key, kind, value, created_at, updated_at, seq, closed, metadata, user_id, agent_id, "
    "run_id, session_id, place, role, name, message_id, time, utc_offset, hash, sources, turns, valid_at, invalid_at, "
    "state, asks, given, read, count, last_seen, last_event, terms) VALUES "
    "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_VECTORS = f"INSERT INTO vectors VALUES (? * {IN_USE}, ?) ON CONFLICT (id) DO UPDATE SET data = excluded.data"
_TRIPLE = (
    "INSERT INTO triples (item, ns, source, relation, destination, source_key, destination_key) VALUES (?,?,?,?,?,?,?)"
)


def json_text(value: Any) -> str | None:
    """A value as JSON; nothing for an empty one."""
    return dumps(value) if value else None


def fork_path(token: str) -> str:
    """The encoded namespace that says that there is a fork; `journal.fork_notes` says what it is."""
    return f"{MEMORY_ROOT}f.{token}."


def keys_of(source: str, destination: str) -> tuple[str, str]:
    """The keys of two names (`graph.names`), by which spellings of one meet."""
    return read_name(source).key, read_name(destination).key


def check_storable(what: str, *names: str | None, texts: Sequence[str | None] = ()) -> None:
    """Refuse what one of the databases could not keep, so that both take the same.

    Args:
        what: What the names are of, for the message.
        *names: Ids and keys, which are found by an index: PostgreSQL's takes so many bytes of them together.
        texts: Other texts.

    Raises:
        InvalidInput: they are too long, or have what is no text.
    """
    try:
        size = sum(len(name.encode()) for name in names if name is not None)
        for text in texts:
            if text is not None and not text.isascii():
                text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} has a lone surrogate, which is no character; remove it.") from None
    if any(text is not None and "\x00" in text for text in (*names, *texts)):
        raise InvalidInput(f"{what} has a NUL character, which no database keeps; remove it.")
    if size > MOST_NAME_BYTES:
        raise InvalidInput(
            f"{what} has ids of {size} bytes; {MOST_NAME_BYTES} together are the most. Shorten them, or give a hash "
            "of each."
        )


class Writer(Reader):
    """Writes of one transaction; reads through it see them.

    Attributes:
        now: The time of the commit, microseconds since 1970 UTC.
        seq: The position of the last event so far.
    """

    def __init__(self, db: Database, *, now: int) -> None:
        self._inserts = Gathering(db)
        super().__init__(self._inserts)
        self.now = now
        self.seq = self._first_seq()
        self._namespaces: dict[str, int] = {}

    def settle(self) -> None:
        """Hand everything to the database, before the commit."""
        self._inserts.settle()

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
        number = self._namespaces.get(path)
        if number is None:
            number = self.namespace_id(path)
            token = fork_of(path)
            if token is not None and not self.namespace_count(fork_path(token), most=1):
                raise InvalidInput("This fork was merged or dropped meanwhile; nothing more can be written to it.")
            if number is None:
                check_storable("A namespace", path)
                number = self._inserted("INSERT INTO namespaces (path) VALUES (?)", (path,))
            self._namespaces[path] = number
        return number

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
        check_storable("A memory or item", key, batch, texts=(value, prev, actor))
        self.seq = self.upcoming()
        self._inserts.insert(
            _EVENT,
            (self.seq, self.now, ns, key, kind, op, item, gone, prev, value, actor, json_text(sources), valid_at,
             invalid_at, batch, json_text(detail)),
        )  # fmt: skip
        return self.seq

    def record_batch(self, scope: str, batch: str, result: Mapping[str, Any]) -> None:
        """Remember what this commit reports, so that the same batch id reports it again and writes nothing."""
        check_storable("A batch", scope, batch)
        self.db.execute(
            "INSERT INTO batches VALUES (?,?,?,?) ON CONFLICT (scope, batch) DO UPDATE SET result = excluded.result",
            (scope, batch, self.seq, dumps(result)),
        )

    def note_unread(
        self,
        scope: Scope,
        turns: Sequence[int],
        *,
        detail: ToRead | None = None,
        attempts: int,
        next_at: int,
        reason: str | None = None,
        recorded_at: int | None = None,
    ) -> int:
        """Note that something of a call is still to be read; returns the note's number.

        `turns` are rows. The attempt that begins with this commit counts among the `attempts`.
        """
        return self._inserted(
            "INSERT INTO unread (ns, user_id, agent_id, run_id, turns, detail, attempts, next_at, reason, recorded_at) "
            "VALUES (?,?,?,?,?,?,?,?,?,?)",
            (self.namespace(scope.partition), scope.user_id, scope.agent_id, scope.run_id,
             orjson.dumps(list(turns)).decode(), json_text(detail and detail.plain()), attempts, next_at, reason,
             self.now if recorded_at is None else recorded_at),
        )  # fmt: skip

    def change_unread(self, note: int, **columns: Any) -> bool:
        """Change such a note (`attempts`, `next_at`, `reason`, `set_aside`); False when it is gone."""
        assignments = ", ".join(f"{name} = ?" for name in columns)
        return self.db.execute(f"UPDATE unread SET {assignments} WHERE id = ?", (*columns.values(), note)).rowcount == 1

    def strike_unread(self, note: int) -> bool:
        """Strike out such a note, when its turns were read; False when it is gone already."""
        return self.db.execute("DELETE FROM unread WHERE id = ?", (note,)).rowcount == 1

    def strike_unread_of(self, scope: Scope) -> int:
        """Strike out all notes of a scope, and count them; absent ids mean any."""
        ids = scope.ids()
        where = " AND ".join(f"{name} = ?" for name in ids) or "1 = 1"
        values = [*ids.values()]
        if ids.keys() == {"user_id"}:
            # Those too whose ids are damaged.
            where = f"{where} OR ns = (SELECT id FROM namespaces WHERE path = ?)"
            values.append(scope.partition)
        return int(self.db.execute(f"DELETE FROM unread WHERE {where}", tuple(values)).rowcount)

    def unlist_unread(self, turns: Sequence[int]) -> None:
        """Take turns off every note; a note of nothing else goes."""
        gone = set(turns)
        for note in self.unread(about=gone):
            if gone.isdisjoint(note.turns):
                continue
            left = [turn for turn in note.turns if turn not in gone]
            if left or note.detail.turns:
                self.change_unread(note.id, turns=orjson.dumps(left).decode())
            else:
                self.strike_unread(note.id)

    def strike_written(self, keys: Collection[str]) -> None:
        """Strike out the notes that the words of facts were written by hand."""
        for note in self.unread(about=keys):
            if note.detail.triples_of in keys:
                self.strike_unread(note.id)

    def relist_unread(self, old: int, new: int) -> None:
        """Let notes of one version of a turn be of another."""
        for note in self.unread(about=[old]):
            if old in note.turns:
                turns = [new if turn == old else turn for turn in note.turns]
                detail = replace(note.detail, edited=[new if turn == old else turn for turn in note.detail.edited])
                self.change_unread(note.id, turns=orjson.dumps(turns).decode(), detail=json_text(detail.plain()))

    def read_turn(self, row: Row, vector_bytes: bytes | None, *, read: bool) -> None:
        """Give a turn the vectors that it was stored without, and (with `read`) note that its facts were looked for."""
        self._vectors(row.id, vector_bytes)
        self.change_memory(row, "read", read=int(read) or None)

    def relate(self, row: Row, triples: Sequence[Triple], terms: bytes | None = None) -> None:
        """Give a memory version further triples, and other terms that it is found by."""
        if triples or terms is not None:
            self._relate(row.id, self.namespace(row.path), triples)
            self.change_memory(row, "relate", state=row.state or None)
        if terms is not None:
            self.db.execute("UPDATE items SET terms = ? WHERE id = ?", (terms, row.id))

    def _vectors(self, item: int, vector_bytes: bytes | None) -> None:
        if vector_bytes:
            self._inserts.insert(_VECTORS, (item, vector_bytes))

    def _drop_vectors(self, item: int) -> None:
        """Remove the vectors of a row, those that are staged too: they are of what it was."""
        self.db.execute("DELETE FROM vectors WHERE id IN (?, ?)", (item, -item))

    # -- items of a BaseStore -------------------------------------------------------------------------------------

    def put_item(
        self,
        path: str,
        key: str,
        value: str,
        *,
        ttl: float | None,
        vector_bytes: bytes | None,
        fields: Sequence[str] = (),
    ) -> None:
        """Store an item's last value (JSON), for `ttl` minutes, with vectors (float16 bytes) of some `fields` of it."""
        ns = self.namespace(path)
        expires = self._expiry(ttl)
        old = self.db.execute(
            "SELECT id, created_at, updated_at, expires_at FROM items WHERE ns = ? AND key = ? AND closed IS NULL",
            (ns, key),
        ).fetchone()
        if old is None:
            seq = self.event(ns, key, "item", "put", item=self.upcoming())
            self.db.execute(
                "INSERT INTO items (id, ns, key, kind, value, created_at, updated_at, seq, ttl, expires_at, fields) "
                "VALUES (?,?,?,'item',?,?,?,?,?,?,?)",
                (seq, ns, key, value, self.now, self.now, seq, ttl, expires, json_text(fields)),
            )
            self._vectors(seq, vector_bytes)
            return
        item, created, updated, old_expires = old
        updated = updated if isinstance(updated, int) and updated < LAST_TIME else 0
        if not isinstance(created, int) or (isinstance(old_expires, int) and old_expires <= self.now):
            created = self.now
        seq = self.event(ns, key, "item", "put", item=item)
        self.db.execute(
            "UPDATE items SET kind='item', value=?, created_at=?, updated_at=?, seq=?, ttl=?, expires_at=?, fields=? "
            "WHERE id=?",
            (value, created, max(self.now, updated + 1), seq, ttl, expires, json_text(fields), item),
        )
        self._drop_vectors(item)
        self._vectors(item, vector_bytes)

    def delete_item(self, path: str, key: str) -> None:
        """Remove an item, if it is there."""
        row = self.db.execute(
            "SELECT i.id, i.ns, i.key FROM items i JOIN namespaces n ON n.id = i.ns WHERE n.path = ? AND i.key = ? AND "
            "i.closed IS NULL",
            (path, key),
        ).fetchone()
        if row is not None:
            self._drop_items([row])

    def _drop_items(self, rows: Iterable[tuple[int, int, str]]) -> None:
        for item, ns, key in rows:
            self.event(ns, key, "item", "delete", item=item)
            self.db.execute("DELETE FROM items WHERE id = ?", (item,))
            self._drop_vectors(item)

    def touch_items(self, ids: Iterable[int]) -> None:
        """Give the items their full time to live again.

        That is no event: caches that follow the events know an earlier end, and ask again when that has come.
        """
        for item in ids:
            row = self.db.execute("SELECT ttl FROM items WHERE id = ? AND expires_at > ?", (item, self.now)).fetchone()
            if row is not None:
                self.db.execute("UPDATE items SET expires_at = ? WHERE id = ?", (self._expiry(row[0]), item))

    def _expiry(self, ttl: float | None) -> int | None:
        return None if ttl is None else min(self.now + round(ttl * 60_000_000), LAST_TIME)

    def sweep_items(self, paths: Sequence[str]) -> int:
        """Remove the expired items of some namespaces; returns how many there were."""
        rows = self.db.execute(
            "SELECT i.id, i.ns, i.key, n.path FROM items i JOIN namespaces n ON n.id = i.ns WHERE i.expires_at <= ? "
            "AND i.kind = 'item'",
            (self.now,),
        ).fetchall()
        swept = set(paths)
        expired = [row[:3] for row in rows if row[3] in swept]
        self._drop_items(expired)
        return len(expired)

    # -- memories -------------------------------------------------------------------------------------------------

    def add_memory(
        self,
        row: Row,
        *,
        terms: bytes,
        vector_bytes: bytes | None,
        triples: Sequence[Triple] = (),
        quotes: Sequence[tuple[int, str | None]] = (),
        op: str = "add",
        gone: int | None = None,
        prev: str | None = None,
        actor: str | None = None,
        batch: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> int:
        """Store one memory version and its event; `row.id` and `row.seq` are ignored. Returns the new row id.

        The terms are as `keywords.packed` gives them, the vectors float16 bytes. Quotes are the rows of a fact's turns,
        each with the words that support it. `gone` is the row of the version that this one replaces, `prev` its text.
        """
        ns = self.namespace(row.path)
        item = self.event(
            ns, row.key, row.kind, op, item=self.upcoming(), gone=gone, prev=prev, value=row.text, actor=actor,
            sources=row.sources, valid_at=row.valid_at, invalid_at=row.invalid_at, batch=batch, detail=detail,
        )  # fmt: skip
        place = row.place or item if row.kind == "turn" else None
        updated = min(row.updated_at, LAST_TIME)
        check_storable("A memory", row.session_id, texts=(row.role, row.name))
        check_storable("A memory", row.message_id)
        check_storable("A memory", row.user_id, row.agent_id, row.run_id)
        self._inserts.insert(
            _MEMORY,
            (item, ns, row.key, row.kind, row.text, row.created_at, updated, item,
             item if op == "seen" else None, json_text(row.metadata),
             row.user_id, row.agent_id, row.run_id, row.session_id, place, row.role, row.name, row.message_id, row.time,
             row.offset, row.hash, json_text(row.sources), json_text([turn for turn, _ in quotes]), row.valid_at,
             row.invalid_at, row.state or None, int(row.asks) or None, int(row.given) or None, int(row.read) or None,
             row.count, row.last_seen, row.event if op == "add" else op, terms),
        )  # fmt: skip
        self._vectors(item, vector_bytes)
        self.link(item, quotes)
        self._relate(item, ns, triples)
        return item

    def _relate(self, item: int, ns: int, triples: Sequence[Triple]) -> None:
        for t in triples:
            keys = keys_of(t.source, t.destination)
            self._inserts.insert(_TRIPLE, (item, ns, t.source, t.relation, t.destination, *keys))

    def add_seen(self, row: Row, **given: Any) -> int:
        """Store what ended as it began (`actor`, `batch`, `detail`, `quotes`): nothing finds it."""
        return self.add_memory(
            replace(row, invalid_at=row.created_at), terms=b"", vector_bytes=None, op="seen", **given
        )

    def close_memory(self, row: Row, *, invalid_at: int) -> None:
        """End a version with the event that comes next; its row stays."""
        self.db.execute(
            "UPDATE items SET closed = ?, invalid_at = ?, seq = ? WHERE id = ?",
            (self.upcoming(), invalid_at, self.upcoming(), row.id),
        )

    def change_memory(
        self,
        row: Row,
        op: str,
        *,
        actor: str | None = None,
        batch: str | None = None,
        detail: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> None:
        """Change a version in place (`state`, `count`, `last_seen`, `invalid_at`, `sources`, `turns`) with an event."""
        was = {str(row.id): {name: getattr(row, name) for name in columns}}
        detail = {**(detail or {}), "was": was}
        seq = self.event(
            self.namespace(row.path), row.key, row.kind, op, item=row.id, actor=actor, batch=batch, detail=detail
        )
        columns = {k: json_text(v) if k in ("sources", "turns") else v for k, v in columns.items()}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        self.db.execute(f"UPDATE items SET {assignments}, seq = ? WHERE id = ?", (*columns.values(), seq, row.id))

    def link(self, fact: int, quotes: Sequence[tuple[int, str | None]]) -> None:
        """Let a fact cite further turns."""
        for turn, quote in quotes:
            self._inserts.insert("INSERT INTO links VALUES (?,?,?) ON CONFLICT DO NOTHING", (fact, turn, quote))

    def relink(self, old: int, new: int) -> None:
        """Let the facts that cite one version of a turn cite the next."""
        for (fact,) in self.db.execute("SELECT fact FROM links WHERE turn = ?", (old,)).fetchall():
            row = self.memories_by_row([fact]).get(fact)
            self.db.execute(
                "UPDATE links SET turn = ? WHERE fact = ? AND turn = ? AND NOT EXISTS "
                "(SELECT 1 FROM links WHERE fact = ? AND turn = ?)",
                (new, fact, old, fact, new),
            )
            if row is not None and row.closed is None:
                self.change_memory(row, "relink", turns=[new if turn == old else turn for turn in row.turns])

    # -- erasing, the one exception to appending; each commit that does it notes that a `scrub` is due ------------

    def erase_memories(self, rows: Sequence[Row]) -> None:
        """Remove every trace of memory versions but that there was something: texts of events are blanked.

        Slabs of all processes load anew afterwards, since a namespace that is gone can no longer be followed. The bytes
        go with the journal's `scrub` that is to follow.
        """
        self.set_meta(SCRUB_DUE, "due")
        spaces = {row.path: self.namespace(row.path) for row in rows}
        # Others hear of the end of a memory by its last version.
        for key, row in {row.key: row for row in sorted(rows, key=lambda row: row.until)}.items():
            # One at a time: of both together SQLite makes a look through all events.
            for column, value in (("key", key), ("seq", row.id)):
                self.db.execute(
                    "UPDATE events SET prev = NULL, value = NULL, sources = NULL, detail = NULL, actor = NULL "
                    f"WHERE {column} = ? AND kind <> 'item'",
                    (value,),
                )
            self.event(spaces[row.path], key, row.kind, "forget", item=row.id)
        for ns in spaces.values():
            self.db.execute("UPDATE events SET value = NULL, detail = NULL WHERE ns = ? AND op = 'rejected'", (ns,))
        self._unquote([row.id for row in rows])
        for row in rows:
            self._drop_vectors(row.id)
            self.db.execute("DELETE FROM triples WHERE item = ?", (row.id,))
            self.db.execute("DELETE FROM links WHERE fact = ? OR turn = ?", (row.id, row.id))
            self.db.execute("DELETE FROM items WHERE id = ?", (row.id,))
        used = {
            ns for table, memories in (("items", " AND i.kind <> 'item'"), ("unread", ""))
            for (ns,) in self.among(
                f"SELECT n.id FROM namespaces n WHERE EXISTS (SELECT 1 FROM {table} i WHERE i.ns = n.id{memories}) "
                "AND n.id IN (...)",
                list(spaces.values()),
            )
        }  # fmt: skip
        for path, ns in spaces.items():
            if ns not in used:
                self.db.execute("DELETE FROM namespaces WHERE id = ?", (ns,))
                self._namespaces.pop(path, None)
        self.event(0, "", "item", "reset")

    def _unquote(self, turns: Sequence[int]) -> None:
        """Take the words of turns that go, and the turns themselves, out of the facts that stay."""
        gone = set(turns)
        facts = {
            fact for turn in turns for (fact,) in self.db.execute("SELECT fact FROM links WHERE turn = ?", (turn,))
        } - gone
        for row in sorted(facts):
            self.db.execute("UPDATE links SET quote = NULL WHERE fact = ?", (row,))
            self._unquote_events(row)
        for fact in self.memories_by_row(sorted(facts)).values():
            left = [turn for turn in fact.turns if turn not in gone]
            self.db.execute("UPDATE items SET turns = ? WHERE id = ?", (json_text(left), fact.id))

    def redact(self, row: Row, text: str, digest: str, *, terms: bytes, vector_bytes: bytes | None) -> None:
        """Give a version of a turn or profile another text as if it had always had it; without a text it ends.

        What facts quote of it and is not in the text any longer is taken out of them.
        """
        self.set_meta(SCRUB_DUE, "due")
        self._drop_vectors(row.id)
        seq = self.event(self.namespace(row.path), row.key, row.kind, "redact", item=row.id)
        self.db.execute(
            "UPDATE items SET value = ?, hash = ?, terms = ?, seq = ? WHERE id = ?", (text, digest, terms, seq, row.id)
        )
        self.db.execute(
            "UPDATE events SET prev = NULL, value = (SELECT i.value FROM items i WHERE i.id = events.seq) "
            "WHERE key = ? AND kind <> 'item'",
            (row.key,),
        )
        if text:
            self._vectors(row.id, vector_bytes)
        elif row.closed is None:
            self.db.execute("UPDATE items SET closed = ?, invalid_at = ? WHERE id = ?", (seq, self.now, row.id))
        for fact, quote in self.quotes_from(row.id):
            if quote is not None and not (quote and quote in text):
                self.db.execute("UPDATE links SET quote = NULL WHERE fact = ? AND turn = ?", (fact, row.id))
                self._unquote_events(fact)

    def _unquote_events(self, fact: int) -> None:
        """Take quotes out of the events of a fact (given by a row), and what is damaged, which may have some."""
        rows = self.db.execute(
            "SELECT e.seq, e.detail FROM items i JOIN events e ON e.key = i.key AND e.kind <> 'item' WHERE i.id = ? "
            "AND e.detail IS NOT NULL",
            (fact,),
        ).fetchall()
        for seq, text in rows:
            try:
                detail = {name: value for name, value in orjson.loads(text).items() if name != "quote"}
            except (*DAMAGED, AttributeError):
                detail = {}
            self.db.execute("UPDATE events SET detail = ? WHERE seq = ?", (json_text(detail), seq))

    def erase_batches(self, scopes: Sequence[str], keys: Collection[str] | None = None) -> int:
        """Forget the batch ids of scopes: all, or those that reported some memories; of others what was refused.

        Returns:
            How many there were.
        """
        found = self.db.execute(
            f"SELECT seq, scope, batch, result FROM batches WHERE scope IN ({placeholders(len(scopes))})", tuple(scopes)
        ).fetchall()
        for seq, scope, batch, text in found:
            # What cannot be read may say anything.
            result = next(sound([(seq, text)], lambda row: to_report(row[1])), None)
            done = {one[0] for kind in ("turns", "facts") for one in result[kind]} if result else set()
            if keys is None or result is None or not done.isdisjoint(keys):
                self.db.execute("DELETE FROM batches WHERE scope = ? AND batch = ?", (scope, batch))
            elif result["rejected"]:
                self.record_batch(scope, batch, {**result, "rejected": []})
        return len(found)

    def erase_all(self) -> None:
        """Empty the journal: every row and every text, keeping only the position and the store's settings."""
        self.set_meta(SCRUB_DUE, "due")
        self._keep_purges()
        for table in TABLES:
            if table != "meta":
                self.db.execute(f"DELETE FROM {table}")
        self._namespaces.clear()
        self.event(0, "", "item", "reset")

    def _keep_purges(self) -> None:
        """Remember which rows a foreign vector store has to be told of: the events that say so go."""
        for area in KINDS:
            if self.meta(outbox_key(area)) is not None:
                # Those too that were erased before, of which it may not know yet.
                gone = sorted({*self.purges(area), *(self.later(area, 0, most=1 << 62) or ())})
                self.set_meta(purge_key(area), orjson.dumps(gone).decode())
