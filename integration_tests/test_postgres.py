"""PostgreSQL as the journal: many processes and hosts on one store."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, TypedDict

import numpy as np
import psycopg
import pytest
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import END, START, StateGraph
from langgraph.store.base import BaseStore, PutOp
from psycopg_pool import ConnectionPool

from integration_tests.postgres_server import Server
from langchain_memlayer import MemLayerStore, Memory, doctor
from langchain_memlayer.errors import (
    ConfigurationError,
    EmbedderMismatch,
    InvalidInput,
    JournalClosed,
    JournalError,
    NotAStore,
    SchemaTooNew,
)
from langchain_memlayer.facts.reconciliation import RuleReconciler
from langchain_memlayer.journal import open_journal, postgres_sql
from langchain_memlayer.journal import postgres as postgres_journal
from langchain_memlayer.journal.postgres import PostgresJournal
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds
from langchain_memlayer.types import Extraction, Fact, Turn, encode_namespace

DIMS = 32


class Echo:
    """Every turn is a fact."""

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return Extraction(tuple(Fact(turn.text, (n,), quote=turn.text) for n, turn in enumerate(turns)))


def opened(url: str, **settings: Any) -> Memory:
    return Memory(url, **{"model": None, "embeddings": DeterministicEmbeddings(DIMS), **settings})


def stored(memory: Memory, **scope: Any) -> list[str]:
    return [row["memory"] for row in memory.get_all(everything=not scope, limit=100_000, **scope)["results"]]


def children(*works: Callable[[], Any]) -> list[Any]:
    """What some functions return, each called in a process of its own; None of one that died."""
    readers = []
    for work in works:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, json.dumps(work()).encode())
            finally:
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                os._exit(0)
        os.close(writing)
        readers.append((child, reading))
    answers = []
    for child, reading in readers:
        said = b""
        while part := os.read(reading, 65536):
            said += part
        os.close(reading)
        os.waitpid(child, 0)
        answers.append(json.loads(said) if said else None)
    return answers


def assert_sound(url: str) -> None:
    journal = open_journal(url)
    assert doctor.check(journal) == []
    journal.close()


# -- many processes -----------------------------------------------------------------------------------------------


def test_six_processes_that_search_think_and_add_on_one_scope_double_and_lose_nothing(url: str) -> None:
    opened(url).close()
    began = time.time() + 2

    def work(seed: int) -> int:
        rng, asked, reconcile = random.Random(seed), [0], RuleReconciler.reconcile

        def think(self: Any, *given: Any) -> Any:
            asked[0] += 1
            time.sleep(rng.random() * 0.01)
            return reconcile(self, *given)

        RuleReconciler.reconcile = think  # type: ignore[method-assign]
        with opened(url, extractor=Echo(), reconcile="rules") as memory:
            for number in range(25):
                text = f"Statement number {number} holds"
                # All six at once: left to themselves they drift apart.
                time.sleep(max(0.0, began + 0.1 * number - time.time()))
                memory.search(text, user_id="u")
                memory.add(text, user_id="u")
        return asked[0]

    asked = children(*(lambda seed=seed: work(seed) for seed in range(6)))
    assert None not in asked
    with opened(url, extractor=Echo(), reconcile="rules") as memory:
        facts = memory.get_all(user_id="u", kinds=["fact"], limit=1000)["results"]
    # Each was said by all six at about the same time; what is told again while it is read is read once.
    assert sorted(f["memory"] for f in facts) == sorted(f"Statement number {number} holds" for number in range(25))
    assert all(1 <= f["count"] <= 6 for f in facts)
    # A lost race costs another decision, and two at most.
    assert sum(asked) <= 3 * 150
    assert_sound(url)


def test_a_process_killed_at_any_statement_of_a_commit_loses_nothing_that_was_acknowledged(url: str) -> None:
    def work(nth: int) -> None:
        execute, left = postgres_sql.Session.execute, [nth]
        with opened(url) as memory:
            memory.add(f"acknowledged {nth}", user_id="u")

            def counted(self: Any, *given: Any) -> Any:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                return execute(self, *given)

            postgres_sql.Session.execute = counted  # type: ignore[method-assign]
            memory.add([f"doomed {nth}", f"doomed too {nth}"], user_id="u")
            os.kill(os.getpid(), signal.SIGKILL)

    def step(name: str) -> None:
        def die(reached: str) -> None:
            if reached == name:
                os.kill(os.getpid(), signal.SIGKILL)

        with opened(url) as memory:
            memory.add(f"acknowledged {name}", user_id="u")
            postgres_journal._step = die  # type: ignore[assignment]
            memory.add([f"doomed {name}", f"doomed too {name}"], user_id="u")

    statements = range(1, 26)
    for nth in statements:
        assert children(lambda nth=nth: work(nth)) == [None]
    for name in ("before-commit", "after-commit"):
        assert children(lambda name=name: step(name)) == [None]
    with opened(url) as memory:
        texts = set(stored(memory))
        assert {f"acknowledged {nth}" for nth in (*statements, "before-commit", "after-commit")} <= texts
        for nth in (*statements, "before-commit", "after-commit"):
            assert (f"doomed {nth}" in texts) == (f"doomed too {nth}" in texts)
        assert "doomed 1" not in texts
        assert "doomed before-commit" not in texts
        assert "doomed after-commit" in texts
        # What the dead held is free.
        memory.add("still writable", user_id="u")
    assert_sound(url)


def test_two_hosts_see_each_others_writes_at_once(url: str) -> None:
    waits = []
    with opened(url) as here, opened(url) as there:
        there.search("warm", user_id="u")
        for number in range(10):
            writer, reader = (here, there) if number % 2 else (there, here)
            writer.add(f"written {number} by one", user_id="u")
            began = time.perf_counter()
            hits = reader.search(f"written {number} by one", user_id="u", limit=1)["results"]
            waits.append(time.perf_counter() - began)
            assert [hit["memory"] for hit in hits] == [f"written {number} by one"]
        key = here.search("written 3 by one", user_id="u", limit=1)["results"][0]["id"]
        there.delete(key)
        assert key not in [hit["id"] for hit in here.search("written 3 by one", user_id="u")["results"]]
        here.forget(user_id="u")
        assert there.search("written 4 by one", user_id="u")["results"] == []
    assert min(waits) < 0.1


def test_a_transaction_that_commits_late_is_never_skipped(url: str) -> None:
    early, late = encode_namespace(("early",)), encode_namespace(("late",))
    with MemLayerStore(url) as store, MemLayerStore(url) as other:
        assert store.search(()) == []
        journal: Any = other._journal
        writing = journal.write(early)
        tx = writing.__enter__()
        tx.put_item(early, "k", '{"n":1}', ttl=None, vector_bytes=None)
        # It took its position first, and commits last.
        other.put(("late",), "k", {"n": 2})
        with journal.read() as reader:
            assert reader.outgoing("items", 0, most=100)[1] == []
            assert len(reader.later("items", 0, most=100)) == 1
        before = store._indexes.view("")
        assert len(before.ids) == 1
        position = store._journal.last_seq()
        writing.__exit__(None, None, None)
        after = store._indexes.view("")
        assert len(after.ids) == 2
        assert after.applied_seq > position > 0
        with journal.read() as reader:
            assert len(reader.outgoing("items", 0, most=100)[1]) == 2
            assert reader.namespace_id(late) is not None


def test_a_running_transaction_of_somebody_else_makes_nobody_read_things_again(url: str, postgres: str) -> None:
    with MemLayerStore(url) as store, psycopg.connect(postgres) as idle:
        idle.execute("SELECT pg_current_xact_id()")
        for number in range(5):
            store.put(("n",), str(number), {"n": number})
            assert len(store.search(("n",))) == number + 1
        view = store._indexes.view("")
        with store._journal.read(snapshot=True) as reader:
            assert reader.touched("", view.applied_seq) == []


# -- tenants and answers ------------------------------------------------------------------------------------------


def test_a_small_tenant_among_300_gets_ten_of_ten_with_full_recall(url: str) -> None:
    embeddings = DeterministicEmbeddings(DIMS)
    index: Any = {"dims": DIMS, "embed": embeddings, "fields": ["text"]}
    words = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch"]
    rng = random.Random(5)
    texts = {tenant: [" ".join(rng.choices(words, k=5)) for _ in range(15)] for tenant in range(300)}
    with MemLayerStore(url, index=index, durability="fast") as store:
        puts = [
            PutOp(("tenants", str(tenant)), str(k), {"text": text})
            for tenant, some in texts.items()
            for k, text in enumerate(some)
        ]
        store.batch(puts)
    with MemLayerStore(url, index=index) as store:
        for tenant in rng.sample(range(300), 10):
            query = " ".join(rng.choices(words, k=5))
            exact = sorted(float(np.dot(embeddings.vector(query), embeddings.vector(t))) for t in texts[tenant])
            hits = store.search(("tenants", str(tenant)), query=query, limit=10)
            assert len(hits) == 10
            assert np.allclose([hit.score for hit in hits], exact[::-1][:10], atol=3e-3)
            assert {hit.namespace for hit in hits} == {("tenants", str(tenant))}


@pytest.mark.parametrize("whole", [True, False], ids=["a small scope", "a large one"])
def test_it_ranks_exactly_as_sqlite(url: str, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    if not whole:
        monkeypatch.setattr("langchain_memlayer.engine.scoring_pool.WHOLE_SCOPE", 20)
    rng = random.Random(3)
    words = ["fox", "dog", "bank", "river", "北京", "东京", "heron", "inlet", "jetty"]
    texts = [" ".join(rng.choices(words, k=rng.randint(2, 6))) for _ in range(120)]
    answers = []
    for path in (url, ":memory:"):
        with opened(path, clock=FrozenClock(), new_id=SequentialIds()) as memory:
            memory.add(texts[:60], user_id="u")
            memory.add(texts[60:], user_id="v")
            for row in memory.get_all(user_id="u", limit=10)["results"]:
                memory.delete(row["id"])
            found = [memory.search(query, user_id="u")["results"] for query in ("fox river", "北京 bank", "heron")]
            answers.append([[(h["memory"], h["score"], h["relevance"]) for h in hits] for hits in found])
    assert answers[0] == answers[1]


def test_a_checkpointer_of_langgraph_and_our_store_share_a_database_and_a_graph(url: str, postgres: str) -> None:
    class State(TypedDict):
        said: str

    def remember(state: State, *, store: BaseStore) -> State:
        store.put(("said",), "last", {"text": state["said"]})
        return state

    builder = StateGraph(State)
    builder.add_node("remember", remember)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    with PostgresSaver.from_conn_string(url) as saver, MemLayerStore(url) as store:
        saver.conn.execute(f'SET search_path = "{url.rsplit("%3D", 1)[1]}"')
        saver.setup()
        graph = builder.compile(checkpointer=saver, store=store)
        config: Any = {"configurable": {"thread_id": "1"}}
        graph.invoke({"said": "hello"}, config)
        assert graph.get_state(config).values == {"said": "hello"}
        item = store.get(("said",), "last")
        assert item is not None
        assert item.value == {"text": "hello"}
    with MemLayerStore(url) as store:
        assert len(store.search(("said",))) == 1
    assert_sound(url)


# -- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_waited_for_once_and_asked_as_soon_as_it_is_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pool(ConnectionPool[Any]):
        def getconn(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().getconn(timeout)

    waits: list[float | None] = []
    monkeypatch.setattr(postgres_journal, "ConnectionPool", Pool)
    monkeypatch.setattr(postgres_journal, "CONNECT_SECONDS", 3.0)
    monkeypatch.setattr(postgres_journal, "AWAY_SECONDS", 0.25)
    with opened(server.url) as memory:
        memory.add("before", user_id="u")
        server.stop()
        try:
            for longest in (3.0, *[0.25] * 8):
                waits.clear()
                with pytest.raises(JournalError):
                    memory.search("before", user_id="u")
                assert longest - 0.2 < waits[0] <= longest
        finally:
            server.restart()
        for _ in range(100):
            with suppress(JournalError):
                assert stored(memory, user_id="u") == ["before"]
                break
        waits.clear()
        memory.search("before", user_id="u")
        assert waits[0] > 2


def test_a_restarted_server_costs_no_search_and_no_memory(server: Server) -> None:
    with opened(server.url) as memory:
        memory.add("before the restart", user_id="u")
        memory.search("before", user_id="u")
        with ExitStack() as others:
            for _ in range(8):
                others.enter_context(memory._journal.read())
        server.restart()
        assert stored(memory, user_id="u") == ["before the restart"]
        server.restart()
        memory.add("after the restart", user_id="u")
        assert memory.search("after the restart", user_id="u", limit=1)["results"][0]["memory"] == "after the restart"
    assert_sound(server.url)


@pytest.mark.parametrize("step", ["before-commit", "after-commit"])
def test_a_connection_that_is_lost_in_a_commit_is_said_and_the_batch_id_makes_it_safe(
    url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with opened(url) as memory, psycopg.connect(url, autocommit=True) as other:

        def lose(reached: str) -> None:
            if reached == "before-commit":
                other.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND state = 'idle in transaction'"
                )

        def commit(self: Any) -> None:
            kept(self)
            lose("before-commit")
            self.raw.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        kept = postgres_sql.Session.commit
        with monkeypatch.context() as patch:
            if step == "before-commit":
                patch.setattr(postgres_journal, "_step", lose)
            else:
                patch.setattr(postgres_sql.Session, "commit", commit)
            with pytest.raises(JournalError, match="batch_id"):
                memory.add("said once", user_id="u", batch_id="b")
        memory.add("said once", user_id="u", batch_id="b")
        (row,) = memory.get_all(user_id="u")["results"]
        assert row["count"] == 1
        assert len(memory.history(row["id"])) == 1


def test_two_hosts_with_different_embedders_are_told_apart(url: str) -> None:
    class Other(DeterministicEmbeddings):
        pass

    with opened(url) as one, opened(url, embeddings=Other(DIMS)) as two:
        one.add("hello", user_id="u")
        with pytest.raises(EmbedderMismatch):
            two.add("hello", user_id="v")
        assert stored(one) == ["hello"]
    with pytest.raises(EmbedderMismatch):
        opened(url, embeddings=Other(DIMS))


def test_what_cannot_be_opened_is_said_without_the_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, kind in (
        ("postgresql://me:hunter2@127.0.0.1:1/db?connect_timeout=2", JournalError),
        ("postgresql://me:hunter2@127.0.0.1:1/db?colour=hunter2", ConfigurationError),
        ("postgresql://me:hunter2@127.0.0.1:1/db?pool_size=one", ConfigurationError),
    ):
        with pytest.raises(kind) as refused:
            Memory(wrong, model=None, embeddings=None)
        assert "hunter2" not in "".join(traceback.format_exception(refused.value))
    with opened(f"{url}&password=hunter2") as memory:
        assert "hunter2" not in f"{memory._journal!r} {memory._journal.where} {memory!r}"


def test_schemas_of_something_else_and_of_later_releases_are_refused_and_left_alone(url: str) -> None:
    name = url.rsplit("%3D", 1)[1]
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f'CREATE SCHEMA "{name}"')
        db.execute(f'CREATE TABLE "{name}".items (mine TEXT)')
        with pytest.raises(NotAStore, match="search_path"):
            opened(url)
        assert db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", (name,)).fetchone() == (1,)
        db.execute(f'DROP TABLE "{name}".items')
        opened(url).close()
        db.execute(f"UPDATE \"{name}\".meta SET value = '99' WHERE key = 'schema_version'")
        with pytest.raises(SchemaTooNew, match="pip install -U"):
            opened(url)


def test_a_nul_is_refused_and_leaves_nothing_behind(url: str) -> None:
    with MemLayerStore(url) as store:
        with pytest.raises(InvalidInput, match="NUL"):
            store.batch([PutOp(("a",), "k", {"n": 1}), PutOp(("a",), "k\x00", {"n": 2})])
        assert store.search(()) == []
        store.put(("a",), "k", {"text": "a\x00b"})
        item = store.get(("a",), "k")
        assert item is not None
        assert item.value == {"text": "a\x00b"}


def test_a_lock_that_another_holds_too_long_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_journal, "LOCK_SECONDS", 1)
    with MemLayerStore(url) as one, MemLayerStore(url) as two:
        with one._journal.write(encode_namespace(("a",))):
            with pytest.raises(JournalError, match="repeat the call"):
                two.put(("a",), "k", {"n": 1})
            two.put(("b",), "k", {"n": 1})
            with pytest.raises(JournalError, match="repeat the call"), two._journal.write():
                raise AssertionError("two writers of one namespace")
        two.put(("a",), "k", {"n": 1})
        assert len(two.search(())) == 2


@pytest.mark.parametrize(
    "planted",
    [
        "TRIGGER planted BEFORE UPDATE ON {}.items FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "RULE planted AS ON DELETE TO {}.links DO ALSO NOTIFY gone",
        "VIEW {}.planted AS SELECT 1",
    ],
)
def test_the_doctor_sees_what_somebody_planted(url: str, planted: str) -> None:
    with opened(url) as memory, psycopg.connect(url, autocommit=True) as db:
        assert doctor.check(memory._journal) == []
        db.execute(f"CREATE {planted.format(memory._journal._schema)}")
        [problem] = doctor.check(memory._journal)
        assert "not ours" in problem.message


def test_a_user_who_only_reads_by_default_writes_nothing(url: str) -> None:
    with opened(url) as memory:
        memory.add("known", user_id="u")
    with opened(f"{url}%20-cdefault_transaction_read_only%3Don") as memory:
        assert stored(memory, user_id="u") == ["known"]
        for call in (lambda: memory.add("more", user_id="u"), lambda: memory.forget(user_id="u")):
            with pytest.raises(JournalError, match="read-only"):
                call()
        assert stored(memory, user_id="u") == ["known"]


def test_after_close_it_says_so(url: str) -> None:
    journal = PostgresJournal(url)
    journal.close()
    journal.close()
    for call in (journal.last_seq, lambda: journal.meta("x"), journal.scrub, journal.write().__enter__):
        with pytest.raises(JournalClosed):
            call()


def test_what_was_forgotten_is_in_no_file_of_a_table(server: Server) -> None:
    canary = "xylophone-canary-8841"

    def holding() -> list[str]:
        with psycopg.connect(server.url, autocommit=True) as db:
            db.execute("CHECKPOINT")
        files = [path for path in (server.folder / "base").rglob("*") if path.is_file()]
        return [path.name for path in files if canary.encode() in path.read_bytes()]

    with opened(server.url) as memory:
        memory.add(["kept", f"my password is {canary}"], user_id="u")
        memory.update(memory.search(canary, user_id="u", limit=1)["results"][0]["id"], f"it was {canary}")
        assert holding()
        memory.forget(user_id="u")
        assert holding() == []
    assert_sound(server.url)


def test_a_transaction_that_still_sees_what_was_forgotten_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_journal, "LOCK_SECONDS", 1)
    with opened(server.url) as memory, psycopg.connect(server.url) as older:
        memory.add("a secret", user_id="u")
        older.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        older.execute("SELECT 1")
        with pytest.raises(JournalError, match="repeat the call"):
            memory.forget(user_id="u")
        assert stored(memory) == []
        assert memory._journal.meta("scrub") is not None
        older.rollback()
        memory.forget(user_id="u")
        assert memory._journal.meta("scrub") is None
    assert_sound(server.url)


def test_who_does_not_own_the_tables_is_told_that_what_was_forgotten_is_still_in_their_files(server: Server) -> None:
    with opened(server.url) as memory, psycopg.connect(server.url, autocommit=True) as db:
        memory.add("a secret", user_id="u")
        schema = memory._journal._schema
        db.execute("CREATE ROLE guest LOGIN")
        db.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO guest')
        db.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO guest')
        db.execute(f'GRANT USAGE ON ALL SEQUENCES IN SCHEMA "{schema}" TO guest')
        with opened(f"{server.url}&user=guest") as guest:
            with pytest.raises(JournalError, match="only the user who owns them"):
                guest.forget(user_id="u")
            assert stored(guest) == []
        assert memory._journal.meta("scrub") is not None
        memory.forget(user_id="u")
        assert memory._journal.meta("scrub") is None


def test_a_dump_restored_into_another_server_goes_on(url: str) -> None:
    name = url.rsplit("%3D", 1)[1]
    with MemLayerStore(url) as store:
        store.put(("a",), "k", {"n": 1})
    with psycopg.connect(url, autocommit=True) as db:
        # As if the other server had seen more transactions than this one.
        db.execute(f"UPDATE \"{name}\".events SET xid = '99999999999'::xid8")
    with MemLayerStore(url) as store:
        assert len(store.search(())) == 1
        position = store._journal.last_seq()
        with store._journal.read(snapshot=True) as reader:
            assert reader.touched("", position) == []
        store.put(("a",), "l", {"n": 2})
        with store._journal.read(snapshot=True) as reader:
            assert len(reader.touched("", position) or ()) == 1
