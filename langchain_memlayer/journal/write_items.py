"""What is written of the items of a BaseStore."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langchain_memlayer.journal.write_base import BaseWriter, json_text


class ItemWriter(BaseWriter):
    """Writes of items, which keep their last value and may expire."""

    def put_item(
        self, path: str, key: str, value: str, *, ttl: float | None, codes: bytes | None, fields: Sequence[str] = ()
    ) -> None:
        """Store an item's last value.

        Args:
            path: Its encoded namespace.
            key: Its key.
            value: The value, as JSON.
            ttl: The minutes that it is to live, or None.
            codes: Its vectors (float16 bytes), if it has any.
            fields: The paths of what they were made from.
        """
        ns = self.namespace(path)
        expires = None if ttl is None else self.now + round(ttl * 60_000_000)
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
            self._vectors(ns, seq, codes)
            return
        item, created, updated, old_expires = old
        if old_expires is not None and old_expires <= self.now:
            created = self.now
        seq = self.event(ns, key, "item", "put", item=item)
        self.db.execute(
            "UPDATE items SET value=?, created_at=?, updated_at=?, seq=?, ttl=?, expires_at=?, fields=? WHERE id=?",
            (value, created, max(self.now, updated + 1), seq, ttl, expires, json_text(fields), item),
        )
        self._drop_vectors(ns, item)
        self._vectors(ns, item, codes)

    def delete_item(self, path: str, key: str) -> None:
        """Remove an item, if it is there."""
        ns = self.namespace_id(path)
        if ns is None:
            return
        row = self.db.execute("SELECT id FROM items WHERE ns = ? AND key = ? AND closed IS NULL", (ns, key)).fetchone()
        if row is not None:
            self._drop_items([(row[0], ns, key)])

    def _drop_items(self, rows: Iterable[tuple[int, int, str]]) -> None:
        for item, ns, key in rows:
            self.event(ns, key, "item", "delete", item=item)
            self.db.execute("DELETE FROM items WHERE id = ?", (item,))
            self._drop_vectors(ns, item)

    def touch_items(self, ids: Iterable[int]) -> None:
        """Give the items their full time to live again."""
        for item in ids:
            row = self.db.execute(
                "SELECT ns, key, ttl FROM items WHERE id = ? AND ttl IS NOT NULL AND expires_at > ?", (item, self.now)
            ).fetchone()
            if row is None:
                continue
            seq = self.event(row[0], row[1], "item", "touch", item=item)
            expires = self.now + round(row[2] * 60_000_000)
            self.db.execute("UPDATE items SET expires_at = ?, seq = ? WHERE id = ?", (expires, seq, item))

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
