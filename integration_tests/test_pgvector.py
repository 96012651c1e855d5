"""The database itself as the index of a journal in PostgreSQL: a table of pgvector's, kept up like a foreign store."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.store.base import PutOp

from integration_tests import test_congruence as congruence
from integration_tests.postgres_server import Server, own_schema
from integration_tests.test_postgres import children
from langchain_memlayer import MemLayerStore, Memory, doctor
from langchain_memlayer.engine.indexes import DATABASE_FACTOR
from langchain_memlayer.engine.outbox import State
from langchain_memlayer.engine.proposals import Proposals
from langchain_memlayer.errors import ConfigurationError
from langchain_memlayer.journal import pgvector, postgres_schema
from langchain_memlayer.journal.base import random_id
from langchain_memlayer.journal.pgvector import VectorTable
from langchain_memlayer.moving.export import export_store
from langchain_memlayer.moving.reembedding import reembed_store
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds
from langchain_memlayer.types import Scope, encode_namespace

DIMS = 32


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each search got from the database; audits, which give the exact answer, are left out."""
    answers: list[int] = []
    nearest = VectorTable.nearest

    def noted(self: VectorTable, *given: Any) -> list[int] | None:
        found = nearest(self, *given)
        if found is not None:
            answers.append(len(found))
        return found

    monkeypatch.setattr(VectorTable, "nearest", noted)
    monkeypatch.setattr(Proposals, "audit_due", lambda self: False)
    congruence._small(monkeypatch)
    return answers


def opened(url: str, **settings: Any) -> Memory:
    return Memory(url, **{"model": None, "embeddings": DeterministicEmbeddings(DIMS), "hnsw_threshold": 1, **settings})


def told(memory: Memory, many: int = 40, user: str = "u") -> list[str]:
    """Memories that are so many that the database is asked, and in its table."""
    added = memory.add([f"{user} has {number} of {number % 7}" for number in range(many)], user_id=user, infer=False)
    memory.search("of 3", user_id=user)
    assert memory.flush(60)
    return [row["id"] for row in added["results"]]


def texts(memory: Memory, query: str, **scope: Any) -> list[str]:
    return [hit["memory"] for hit in memory.search(query, **scope)["results"]]


def rows(url: str, area: str = "memories") -> list[int]:
    with psycopg.connect(url) as db:
        return [row[0] for row in db.execute(f"SELECT item FROM pgvector_{area} ORDER BY item")]


def live(memory: Memory) -> list[int]:
    with memory._journal.read() as reader:
        found = reader.db.execute("SELECT id FROM items WHERE closed IS NULL AND kind <> 'item' ORDER BY id")
        return [row[0] for row in found]


def state(memory: Memory) -> State:
    return State.of(memory._journal.meta("outbox:memories") or "")


def unnumbered(answer: Any) -> Any:
    """An answer without the positions of events, which are a matter of the database."""
    if isinstance(answer, list) and answer and "prev_value" in answer[0]:
        return [{name: value for name, value in event.items() if name != "id"} for event in answer]
    return answer


def test_every_answer_is_that_of_the_default(url: str, asked: list[int]) -> None:
    settings: dict[str, Any] = {"model": None, "embeddings": DeterministicEmbeddings(congruence.DIMS)}

    def answers(path: str, threshold: int) -> list[Any]:
        fixed = {"clock": FrozenClock(), "new_id": SequentialIds(), "hnsw_threshold": threshold}
        with Memory(path, **settings, **fixed) as memory:
            found = [unnumbered(answer) for answer in congruence._answers(memory, 7)]
            if path == url:
                memory.flush(60)
                assert rows(url) == live(memory)
                assert doctor.check(memory._journal) == []
            return found

    expected = answers(":memory:", congruence.DIMS * 8)
    for number, (answer, wanted) in enumerate(
        zip(answers(url, congruence.DIMS * 8 // DATABASE_FACTOR), expected, strict=True)
    ):
        assert answer == wanted, f"operation {number}"
    assert len(asked) > 30


@pytest.fixture(scope="module")
def tenants(postgres: str) -> Iterator[MemLayerStore]:
    """300 small tenants beside a large one."""
    index: Any = {"dims": DIMS, "embed": DeterministicEmbeddings(DIMS)}
    with own_schema(postgres) as url, MemLayerStore(url, index=index, hnsw_threshold=0) as store:
        puts = [
            PutOp(("tenant", f"t{tenant}"), f"k{k}", {"text": f"of {tenant} number {k}"})
            for tenant in range(300)
            for k in range(10)
        ]
        puts += [PutOp(("large",), f"k{k}", {"text": f"large {k}"}) for k in range(3_000)]
        for start in range(0, len(puts), 1_000):
            store.batch(puts[start : start + 1_000])
        store.search(("large",), query="large 5")
        assert store.flush(240)
        yield store


class TestTenants:
    @pytest.mark.slow
    def test_a_small_one_gets_all_of_its_own_and_a_large_one_the_nearest(
        self, tenants: MemLayerStore, asked: list[int]
    ) -> None:
        for tenant in range(0, 300, 10):
            hits = tenants.search(("tenant", f"t{tenant}"), query=f"number {tenant}", limit=10)
            assert sorted(hit.key for hit in hits) == sorted(f"k{k}" for k in range(10))
        assert asked == [10] * 30
        asked.clear()
        view = tenants._indexes.view(encode_namespace(("large",)))
        found = []
        for number in range(20):
            vector = np.array(DeterministicEmbeddings(DIMS).embed_query(f"large {number} again"), np.float32)
            hits, exact = view.search(vector, 10), np.argsort(-view.scores(vector, np.arange(len(view))))[:10]
            assert hits.plan.way == "source"
            found.append(len(set(hits.positions) & set(exact)))
        assert len(asked) == 20
        assert sum(found) >= 0.98 * 200

    @pytest.mark.slow
    def test_the_namespaces_index_is_read_for_a_small_one_and_the_graph_for_a_large_one(
        self, tenants: MemLayerStore
    ) -> None:
        journal = tenants._journal
        table = journal.vector_table("items", DIMS)
        assert table is not None
        vector = np.array(DeterministicEmbeddings(DIMS).embed_query("large 7"), np.float32)

        def plan(*space: str) -> str:
            with journal.session() as session:  # type: ignore[attr-defined]
                asking, values = table.statement(session, vector, 10, encode_namespace(space))
                return "\n".join(row[0] for row in session.execute_once(f"EXPLAIN {asking}", values))

        small, large = plan("tenant", "t7"), plan("large")
        assert "pgvector_items_space" in small
        assert "pgvector_items_nearest" not in small
        assert "pgvector_items_nearest" in large


def test_another_host_goes_on_at_once_and_sees_what_this_one_wrote(url: str, asked: list[int]) -> None:
    with opened(url) as memory:
        told(memory)

    def work() -> Any:
        with opened(url) as other:
            attached = other._indexes.outbox is not None
            before = len(asked)
            found = texts(other, "has 5 of 5", user_id="u", limit=3)
            other.add("u has 5 of 5 and more", user_id="u", infer=False)
            return attached, len(asked) > before, found

    ((attached, by_database, found),) = children(work)
    assert attached
    assert by_database
    assert "u has 5 of 5" in found
    with opened(url) as memory:
        assert texts(memory, "has 5 of 5 and more", user_id="u", limit=1) == ["u has 5 of 5 and more"]
        memory.flush(60)
        assert rows(url) == live(memory)


def test_what_ends_or_is_forgotten_leaves_no_row(url: str, asked: list[int]) -> None:
    with opened(url) as memory:
        ids = told(memory)
        memory.delete(ids[0])
        memory.update(ids[1], "something else")
        memory.flush(60)
        assert rows(url) == live(memory)
        assert len(rows(url)) == 39
        memory.forget(ids[2])
        assert rows(url) == live(memory)
        assert len(rows(url)) == 38
        assert memory.flush(60)
        asked.clear()
        assert "u has 2 of 2" not in texts(memory, "has 2 of 2", user_id="u")
        assert asked, "its index was made anew"
        memory.delete_all(user_id="u")
        memory.flush(60)
        assert rows(url) == []
        told(memory, user="v")
        memory.reset()
        assert rows(url) == []
        assert doctor.check(memory._journal) == []


def test_a_forgotten_vector_is_in_no_file_of_a_table(server: Server) -> None:
    def holding(vector: bytes) -> list[str]:
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("CHECKPOINT")
        files = [path for path in (server.folder / "base").rglob("*") if path.is_file()]
        return [path.name for path in files if vector in path.read_bytes()]

    with opened(server.url) as memory:
        ids = told(memory)
        with memory._journal.read() as reader:
            (row,) = reader.memories("i.key = ?", (ids[3],))
            (found,) = reader.vector_rows("memories", [row.id])
        assert len(holding(found.codes)) == 3, "the journal's, the table's and its index's"
        memory.forget(ids[3])
        assert holding(found.codes) == []


def test_a_forget_does_not_wait_for_an_index_that_is_being_built(url: str) -> None:
    with opened(url) as memory, psycopg.connect(url) as builder:
        ids = told(memory)
        builder.execute("LOCK TABLE pgvector_memories IN SHARE MODE")
        interrupted: list[bool] = []

        def build() -> None:
            try:
                builder.execute("SELECT pg_sleep(600)")
            except psycopg.errors.QueryCanceled:
                builder.rollback()
                interrupted.append(True)

        thread = threading.Thread(target=build)
        thread.start()
        memory.forget(ids[0])
        thread.join(30)
        assert interrupted == [True]
        assert rows(url) == live(memory)


class TestWithoutIt:
    """A server that has no pgvector for us: a graph of the process's own, as ever."""

    def test_the_extension_is_missing_or_too_old(
        self, url: str, asked: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pgvector, "_OLDEST", (99, 0))
        with opened(url) as memory:
            told(memory)
            assert memory._indexes.wait(30)
            assert memory._indexes.outbox is None
            assert memory._indexes.view(Scope(user_id="u").search_root).graph is not None
            assert texts(memory, "has 5 of 5", user_id="u", limit=1) == ["u has 5 of 5"]
        assert asked == []

    def test_the_user_may_not_install_it(self, server: Server, asked: list[int]) -> None:
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("CREATE ROLE tenant LOGIN")
            db.execute("CREATE DATABASE theirs OWNER tenant")
        theirs = server.url.replace("postgres:@/postgres", "tenant:@/theirs")
        with opened(theirs) as memory:
            told(memory)
            assert memory._indexes.outbox is None
            assert texts(memory, "has 5 of 5", user_id="u", limit=1) == ["u has 5 of 5"]
            assert asked == []
        with psycopg.connect(server.url.replace("/postgres?", "/theirs?"), autocommit=True) as db:
            db.execute("CREATE EXTENSION vector")
        with opened(theirs) as memory:
            memory.search("of 3", user_id="u")
            assert memory.flush(60)
            assert texts(memory, "has 5 of 5", user_id="u", limit=1) == ["u has 5 of 5"]
            assert asked

    def test_another_metric_is_not_for_it(self, url: str, asked: list[int]) -> None:
        with opened(url, metric="euclidean") as memory:
            told(memory)
            assert memory._indexes.outbox is None
        assert asked == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_is_killed_while_it_delivers_loses_nothing(
    url: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = VectorTable.put

    def work() -> None:
        def dying(self: VectorTable, records: Any) -> None:
            if moment == "after":
                put(self, records[: len(records) // 2])
            os._exit(9)

        monkeypatch.setattr(VectorTable, "put", dying)
        with opened(url) as memory:
            told(memory)

    assert children(work) == [None]
    with opened(url) as memory:
        assert memory._indexes.outbox is not None
        assert memory.flush(60)
        assert rows(url) == live(memory)
        assert len(rows(url)) == 40


def test_a_store_that_was_chosen_is_left_alone(url: str, asked: list[int]) -> None:
    embeddings = DeterministicEmbeddings(DIMS)
    with opened(url, vectorstore=InMemoryVectorStore(embeddings)) as memory:
        told(memory)
        chosen = state(memory)
        with opened(url) as other:
            assert texts(other, "has 5 of 5", user_id="u", limit=1) == ["u has 5 of 5"]
            assert other._indexes.outbox is None
            assert state(other) == chosen
    assert asked == []


def test_a_store_that_is_chosen_later_takes_over(url: str, asked: list[int], caplog: pytest.LogCaptureFixture) -> None:
    embeddings = DeterministicEmbeddings(DIMS)
    with opened(url) as memory:
        told(memory)
        with opened(url, vectorstore=InMemoryVectorStore(embeddings)) as other:
            other.flush(60)
            there = state(other)
            assert there.kind != "pgvector"
            memory.add("u has 5 of 5 and more", user_id="u", infer=False)
            memory.flush(60)
            asked.clear()
            assert texts(memory, "has 5 of 5 and more", user_id="u", limit=1) == ["u has 5 of 5 and more"]
            assert asked == []
            assert "Another process brings the vectors" in caplog.text
            assert state(other) == there
            assert texts(other, "has 5 of 5 and more", user_id="u", limit=1) == ["u has 5 of 5 and more"]


def test_a_table_of_another_size_is_filled_anew(url: str, asked: list[int]) -> None:
    with opened(url) as memory:
        told(memory)
        table = memory._journal.vector_table("memories", DIMS)
        assert table is not None
        table.fit(DIMS + 1)
    assert rows(url) == []
    with opened(url) as memory:
        assert memory.flush(60)
        assert rows(url) == live(memory)
        asked.clear()
        assert texts(memory, "has 5 of 5", user_id="u", limit=1) == ["u has 5 of 5"]
        assert asked


def test_another_embedder_fills_it_anew(url: str, asked: list[int]) -> None:
    with opened(url) as memory:
        told(memory)
    other = DeterministicEmbeddings(2 * DIMS)
    reembed_store(url, other)
    with opened(url, embeddings=other) as memory:
        assert memory.flush(60)
        assert rows(url) == live(memory)
        asked.clear()
        assert texts(memory, "has 5 of 5", user_id="u", limit=1) == ["u has 5 of 5"]
        assert asked
        assert doctor.check(memory._journal) == []


def test_two_connections_are_enough(url: str) -> None:
    with opened(f"{url}&pool_size=2") as memory:
        told(memory)
        store = memory.store
        store.batch([PutOp(("a",), f"k{k}", {"text": f"item {k}"}) for k in range(40)])

        def work() -> None:
            for number in range(5):
                memory.add(f"u has another {number}", user_id="u", infer=False)
                texts(memory, "another", user_id="u")
                store.search(("a",), query="item 3")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.flush(60)
        assert memory.flush(60)
        assert rows(url) == live(memory)
        assert len(rows(url, "items")) == 40


def test_a_dump_that_is_restored_elsewhere_is_delivered_anew(url: str) -> None:
    name = url.rsplit("%3D", 1)[1]
    with opened(url) as memory:
        told(memory)
        with psycopg.connect(url, autocommit=True) as db:
            # As if the other server had seen more transactions than this one.
            db.execute("UPDATE events SET xid = '99999999999'::xid8")
            position = State("pgvector", 99999999999)
            db.execute("UPDATE meta SET value = %s WHERE key = 'outbox:memories'", (str(position),))
            db.execute("TRUNCATE pgvector_memories")
            postgres_schema.migrate(db, name, where="here", new_id=random_id, created_at=0)
        assert state(memory).position == 0
    with opened(url) as memory:
        assert memory.flush(60)
        assert rows(url) == live(memory)
        assert len(rows(url)) == 40


def test_there_is_nothing_to_adopt_from_it(url: str) -> None:
    with opened(url) as memory:
        told(memory)
        with pytest.raises(ConfigurationError, match="nothing to adopt"):
            memory.adopt(user_id="u")


def test_an_export_has_nothing_of_it(url: str, tmp_path: Path) -> None:
    with opened(url) as memory:
        told(memory)
    export_store(url, tmp_path / "all.jsonl")
    assert "pgvector" not in (tmp_path / "all.jsonl").read_text()
