import json
import sqlite3
import struct
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import numpy as np
import pytest
from journal_dump import dump, ids, open_memory, query

from langchain_memlayer import (
    ConfigurationError,
    InvalidInput,
    JournalClosed,
    JournalError,
    MemLayerStore,
    Memory,
    MissingDependency,
    NotAStore,
    SchemaTooNew,
    checkpointer,
)
from langchain_memlayer.journal import default_folder, exists, schema
from langchain_memlayer.journal.base import random_id
from langchain_memlayer.journal.postgres import Address
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds
from langchain_memlayer.types import Row, Scope, ToRead


def events(folder: Path) -> list[tuple[Any, ...]]:
    return query(folder, "SELECT * FROM events ORDER BY seq")


class TestEvents:
    def test_nothing_changes_an_event_but_forget_and_reset(self, memory: Memory, folder: Path) -> None:
        key, other = ids(memory.add(["one", {"role": "user", "content": "two", "id": "m"}], user_id="u"))
        calls: list[Callable[[], Any]] = [
            lambda: memory.add("one", user_id="u"),
            lambda: memory.add({"role": "user", "content": "Two", "id": "m2"}, user_id="u"),
            lambda: memory.add("three", agent_id="a", batch_id="b"),
            lambda: memory.update(key, "new"),
            lambda: memory.update(key, None, {"n": 1}),
            lambda: memory.delete(key),
            lambda: memory.search("one two three", user_id="u"),
            lambda: memory.delete_all(user_id="u"),
            lambda: memory.delete_all(agent_id="a"),
        ]
        before = events(folder)
        for call in calls:
            call()
            after = events(folder)
            assert after[: len(before)] == before
            before = after
        assert [row[5] for row in before] == [
            "add", "add", "none", "none", "add", "update", "update", "delete", "delete", "delete",
        ]  # fmt: skip
        memory.forget(other)
        forgotten = events(folder)
        assert [row[0] for row in forgotten[: len(before)]] == [row[0] for row in before]
        assert not any("two" in str(row).casefold() for row in forgotten)

    @pytest.mark.sqlite
    def test_a_row_is_named_by_the_event_that_made_it_and_older_versions_stay(
        self, memory: Memory, folder: Path
    ) -> None:
        (key,) = ids(memory.add("one", user_id="u"))
        memory.update(key, "two")
        memory.delete(key)
        rows = query(folder, "SELECT id, key, value, closed, last_event FROM items ORDER BY id")
        assert rows == [(1, key, "one", 2, "add"), (2, key, "two", 3, "update")]
        made = query(folder, "SELECT seq, op, item, gone, prev, value FROM events ORDER BY seq")
        assert made == [
            (1, "add", 1, None, None, "one"), (2, "update", 2, 1, "one", "two"), (3, "delete", 2, None, "two", None),
        ]  # fmt: skip

    def test_a_position_is_never_used_twice_not_even_after_a_reset(self, folder: Path) -> None:
        seen: list[int] = []
        for round_ in range(3):
            with open_memory(folder) as memory:
                memory.add(["one", "two"], user_id=f"u{round_}")
                seen += [row[0] for row in query(folder, "SELECT id FROM items ORDER BY id")]
                memory.reset()
        assert seen == sorted(set(seen))
        assert len(seen) == 6

    def test_times_are_the_clocks_and_ids_are_new(self, folder: Path) -> None:
        clock = FrozenClock()
        with open_memory(folder, clock=clock, new_id=SequentialIds(7)) as memory:
            memory.add("one", user_id="u")
            clock.advance(seconds=1)
            memory.add("two", user_id="u")
        times = [row[0] for row in query(folder, "SELECT recorded_at FROM events ORDER BY seq")]
        assert times == [1735689600000000, 1735689601000000]
        assert [row[0][-2:] for row in query(folder, "SELECT key FROM items ORDER BY id")] == ["08", "09"]

    def test_a_clock_that_goes_back_loses_no_order(self, folder: Path) -> None:
        clock = FrozenClock()
        with open_memory(folder, clock=clock) as memory:
            (key,) = ids(memory.add("one", user_id="u"))
            for number in range(3):
                clock.advance(days=-1)
                memory.update(key, f"version {number}")
            found = memory.get(key)
            assert found is not None
            assert found["memory"] == "version 2"
            assert found["updated_at"] >= found["created_at"]
            assert [row["new_value"] for row in memory.history(key)][-1] == "version 2"
            assert [hit["memory"] for hit in memory.search("version", user_id="u")["results"]] == ["version 2"]


class TestTransactions:
    def test_what_fails_in_between_is_undone(self, folder: Path) -> None:
        journal = SQLiteJournal(folder, durability="fast")

        def fail() -> None:
            with journal.write() as tx:
                tx.set_meta("x", "y")
                tx.event(tx.namespace(".u.a."), "key", "turn", "add", value="text")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert journal.meta("x") is None
        assert query(folder, "SELECT * FROM events") == []
        assert query(folder, "SELECT * FROM namespaces") == []
        with journal.write() as tx:
            tx.set_meta("x", "z")
        assert journal.meta("x") == "z"
        journal.close()

    def test_readers_see_the_last_commit_and_one_state_in_a_snapshot(self, folder: Path) -> None:
        journal = SQLiteJournal(folder, durability="fast")
        with journal.read(snapshot=True) as old:
            assert old.meta("x") is None
            with journal.write() as tx:
                tx.set_meta("x", "y")
                with journal.read() as reader:
                    assert reader.meta("x") is None
            assert old.meta("x") is None
        assert journal.meta("x") == "y"
        journal.close()

    @pytest.mark.sqlite
    def test_a_lock_that_another_holds_too_long_is_said(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("langchain_memlayer.journal.sqlite.BUSY_SECONDS", 0)
        with open_memory(folder) as memory:
            memory.add("one", user_id="u")
            other = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match="repeat the call"):
                memory.add("two", user_id="u")
            assert len(memory.search("one", user_id="u")["results"]) == 1
            other.execute("ROLLBACK")
            other.close()
            memory.add("two", user_id="u")
            assert len(memory.get_all(everything=True)["results"]) == 2

    @pytest.mark.sqlite
    def test_after_close_it_says_so_and_no_file_of_a_log_stays(self, folder: Path) -> None:
        journal = SQLiteJournal(folder)
        journal.close()
        journal.close()
        for call in (journal.last_seq, lambda: journal.meta("x"), journal.scrub, journal.write().__enter__):
            with pytest.raises(JournalClosed):
                call()
        assert [file.name for file in folder.iterdir() if file.name.startswith("journal")] == ["journal.sqlite"]


class TestSchema:
    @pytest.mark.sqlite
    def test_a_new_folder_has_the_version_and_a_store_id_of_its_own(self, tmp_path: Path) -> None:
        stores = []
        for name in ("one", "two"):
            Memory(tmp_path / name, model=None, embeddings=None).close()
            assert query(tmp_path / name, "PRAGMA user_version") == [(schema.VERSION,)]
            assert query(tmp_path / name, "PRAGMA application_id") == [(schema.APPLICATION_ID,)]
            stores.append(query(tmp_path / name, "SELECT value FROM meta WHERE key = 'store_id'"))
        assert stores[0] != stores[1]

    def test_opening_and_reading_write_nothing(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            (key,) = ids(memory.add("one", user_id="u"))
        before = dump(folder)
        with open_memory(folder) as memory:
            memory.search("one", user_id="u")
            memory.search("one", user_id="nobody")
            memory.get(key)
            memory.get_all(agent_id="nobody")
            memory.history(key)
        assert dump(folder) == before


@pytest.mark.sqlite
class TestFormats:
    @pytest.mark.parametrize(("version", "error"), [(2, NotAStore), (schema.VERSION + 1, SchemaTooNew)])
    def test_other_formats_are_refused_and_stay_as_they_are(self, folder: Path, version: int, error: type) -> None:
        with open_memory(folder) as memory:
            memory.add(["one", "two"], user_id="u")
        query(folder, f"PRAGMA user_version = {version}")
        before = dump(folder)
        with pytest.raises(error, match="release"):
            open_memory(folder)
        assert dump(folder) == before

    def test_no_row_number_is_used_twice(self, folder: Path) -> None:
        scope = Scope(user_id="u")
        journal = SQLiteJournal(folder, durability="fast")
        with journal.write() as tx:
            first = tx.note_unread(
                scope, [1], detail=ToRead(turns=[{"text": "said", "role": "user"}]), attempts=0, next_at=0
            )
            (note,) = tx.unread()
            assert (note.scope, note.turns, note.detail, note.attempts) == (
                scope,
                (1,),
                ToRead(turns=[{"text": "said", "role": "user"}]),
                0,
            )
            assert tx.change_unread(first, attempts=1, reason="down")
            assert tx.unread(Scope(user_id="other")) == []
            assert tx.strike_unread(first)
            assert not tx.strike_unread(first)
            assert tx.note_unread(scope, [2], attempts=0, next_at=0) > first
            path = tx.namespace("a.")
            tx.db.execute("DELETE FROM namespaces WHERE id = ?", (path,))
        with journal.write() as tx:
            assert tx.namespace("b.") > path
        journal.close()


class TestWhatIsTaken:
    @pytest.mark.parametrize(
        ("key", "value"), [("k" * 3000, "v"), ("k", "a\x00b"), ("k", "\ud800"), ("\ud800", "v"), ("a\x00b", "v")]
    )
    def test_both_databases_refuse_the_same_and_nothing_is_half_written(
        self, folder: Path, key: str, value: str
    ) -> None:
        with open_memory(folder) as memory:
            journal = memory._journal

            def write() -> None:
                with journal.write() as tx:
                    tx.put_item("a.", "first", "{}", ttl=None, vector_bytes=None)
                    row = Row(0, 0, ".u.u.", key, "turn", value, created_at=1, updated_at=1, user_id="u")
                    tx.add_memory(row, terms=b"", vector_bytes=None)

            with pytest.raises(InvalidInput):
                write()
            with journal.read() as reader:
                assert reader.counts()["items"] == reader.counts()["events"] == 0

    def test_times_end_with_the_calendar(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            last = {"role": "user", "content": "see you", "timestamp": "9999-12-31T23:59:59.999999Z"}
            (key,) = ids(memory.add(last, user_id="u"))
            memory.update(key, "see you then")
            assert [m["memory"] for m in memory.get_all(user_id="u")["results"]] == ["see you then"]
            assert memory.search("then", user_id="u")["results"]

    def test_a_turn_keeps_its_place_when_it_is_edited(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            keys = ids(memory.add(["one", "two", "three"], user_id="u", session_id="s"))
            memory.update(keys[0], "first of all")
            (hit,) = memory.search("two", user_id="u", limit=1, expand=2)["results"]
            assert [near["memory"] for near in hit["around"]] == ["first of all", "three"]


class TestVectors:
    def test_they_are_float16_of_unit_length_with_their_embedders_fingerprint(self, folder: Path) -> None:
        class Long(DeterministicEmbeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [[1000.0 * x for x in vector] for vector in super().embed_documents(texts)]

        embeddings = Long(64)
        with open_memory(folder, embeddings=embeddings) as memory:
            memory.add(["zebra", "walrus"], user_id="u")
            memory.add("giraffe", agent_id="a")
            (hit,) = memory.search("giraffe", agent_id="a")["results"]
        assert 0 <= hit["relevance"] <= 1
        (fingerprint,) = query(folder, "SELECT value FROM meta WHERE key = 'embedder:memories'")
        recorded = json.loads(fingerprint[0])
        assert (recorded["name"], recorded["dims"]) == ("Long", 64)
        rows = query(folder, "SELECT i.value, v.data FROM items i JOIN vectors v ON v.id = i.id ORDER BY i.id")
        assert [text for text, _ in rows] == ["zebra", "walrus", "giraffe"]
        for text, data in rows:
            assert len(data) == 2 * 64
            numbers = struct.unpack("<64e", data)
            assert np.isclose(np.linalg.norm(numbers), 1, atol=1e-3)
            assert np.allclose(numbers, embeddings.vector(text), atol=1e-3)

    def test_each_version_keeps_its_own_and_forget_takes_them_all(self, memory: Memory, folder: Path) -> None:
        (key,) = ids(memory.add("one", user_id="u"))
        memory.update(key, "two")
        assert len(query(folder, "SELECT data FROM vectors GROUP BY data")) == 2
        memory.forget(key)
        for table in ("vectors", "items", "links", "triples"):
            assert query(folder, f"SELECT count(*) FROM {table}") == [(0,)], table


class TestPostgresqlUrls:
    URL = "postgresql://me:hunter2@127.0.0.1:1/db"

    def test_without_the_driver_there_is_an_install_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg", None)
        monkeypatch.delitem(sys.modules, "langchain_memlayer.journal.postgres", raising=False)
        monkeypatch.delattr("langchain_memlayer.journal.postgres", raising=False)
        with pytest.raises(MissingDependency, match=r"langchain-memlayer\[postgres\]"):
            Memory(self.URL, model=None, embeddings=None)

    def test_one_that_cannot_be_read_is_refused_without_the_password(self) -> None:
        for wrong in (f"{self.URL}?colour=hunter2", f"{self.URL}?pool_size=one", f"{self.URL}?pool_size=1&x=hunter2"):
            with pytest.raises(ConfigurationError) as refused:
                Memory(wrong, model=None, embeddings=None)
            assert "hunter2" not in "".join(traceback.format_exception(refused.value))

    def test_memlayer_home_may_be_one_and_a_checkpointer_in_it_is_langgraphs_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEMLAYER_HOME", self.URL)
        assert default_folder() == self.URL
        with pytest.raises(InvalidInput, match="PostgresSaver"):
            checkpointer(self.URL)


_WRONG_PLACES = [
    "sqlite:///memories", "postgresql+psycopg://user:secret@host/db", "s3://bucket", "postgresql:/user:secret@host/db",
    "postgres:user:secret@host/db", "user:secret@host/db", "jdbc:postgresql://user:secret@host/db",
    *(f"postgresql://user:{cut}secret@127.0.0.1:1/db" for cut in ("1/", "1@", "1?", "1?a=", "a/")),
    "postgresql://user:1@h/secret@127.0.0.1:1/db", "postgresql://127.0.0.1:1/host=h password=secret",
    "postgresql:///user:secret@host/db", "postgresql//user:secret@host/db", "//user:secret@host/db",
    "jdbc:postgresql:db?password=secret", "user=me;password=secret;host=h", "Server=h;Password=secret",
]  # fmt: skip


@pytest.mark.parametrize("made", [Memory, MemLayerStore, checkpointer, exists])
@pytest.mark.parametrize("place", _WRONG_PLACES)
def test_a_string_that_is_no_place_makes_no_folder_and_shows_no_password(
    place: str, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in (place, f" {place}", Path(place)):
        with pytest.raises((NotAStore, ConfigurationError), match="postgresql://") as caught:
            made(given)
        assert "secret" not in "".join(traceback.format_exception_only(caught.value))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "place",
    [
        "keepalives=1 password=secret user=me host=127.0.0.1 port=1",
        " postgresql://me:secret@127.0.0.1:1/db ", "host=127.0.0.1 port=1 user=me password=secret dbname=db",
        "postgres://me:se%2Fcr%40et@127.0.0.1:1,127.0.0.1:2/db", "postgresql://me:secret@[::1]:1/db?connect_timeout=2",
    ],
)  # fmt: skip
def test_every_form_of_a_connection_string_is_one(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError, match="me@") as caught:
        Memory(place, model=None, embeddings=None)
    assert "secret" not in str(caught.value)
    assert "se/cr@et" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_connection_to_a_host_that_fell_silent_is_given_up_as_the_connection_string_says() -> None:
    url = "postgresql://127.0.0.1:1/db"
    assert Address.of(url).settings["tcp_user_timeout"] == "15000"
    assert Address.of(f"{url}?tcp_user_timeout=2000").settings["tcp_user_timeout"] == "2000"


def test_ids_that_are_made_are_uuids_that_sort_by_when_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(range(1_764_000_000_000_000_000, 1_764_000_001_000_000_000, 500_000))
    monkeypatch.setattr("time.time_ns", lambda: next(moments))
    made = [random_id() for _ in range(2000)]
    assert made == sorted(made)
    assert len({one[19:] for one in made}) == len(made)
    assert {(one.version, one.variant) for one in map(UUID, made)} == {(7, RFC_4122)}
    assert int(made[0].replace("-", "")[:12], 16) == 1_764_000_000_000


@pytest.mark.parametrize("every", [1, 2, 3])
def test_vectors_are_the_same_whether_rows_lie_side_by_side_or_others_lie_between(folder: Path, every: int) -> None:
    with closing(SQLiteJournal(folder, durability="fast")) as journal:
        with journal.write() as tx:
            for row in range(1, 25):
                tx.put_item(
                    f"n{row % 3}.", str(row), "{}", ttl=None, vector_bytes=None if row == 7 else bytes([row, 1])
                )
        with journal.read() as reader:
            rows = np.arange(1, 25, every)
            out = np.empty(2 * len(rows), np.uint8)
            assert reader.slab_vectors(rows, np.full(len(rows), 2), out) == [7] * (7 in rows)
            assert out[::2].tolist() == [row * (row != 7) for row in rows.tolist()]
            found = reader.vectors_of(rows.tolist())
            assert [found.get(row) for row in rows.tolist()] == [
                None if row == 7 else bytes([row, 1]) for row in rows.tolist()
            ]
            assert reader.vectors_of([]) == {}
