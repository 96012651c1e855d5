"""The graph of a large scope on PostgreSQL, read where it is visited: it answers what the whole graph answers."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from langchain_memlayer import Memory, names
from langchain_memlayer.engine.graphs import Graphs
from langchain_memlayer.graph import reading, sql
from langchain_memlayer.graph.networkx import TripleGraph
from langchain_memlayer.graph.sql import SQLGraph
from langchain_memlayer.journal import postgres_session, postgres_triples
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.postgres import PostgresJournal
from langchain_memlayer.moving.export import export_store
from langchain_memlayer.moving.importing import import_store
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds
from langchain_memlayer.types import QUARANTINED, VISIBLE, Extraction, Fact, Row, Scope, Triple, Turn

ALICE = Scope(user_id="alice")
SCOPES = [
    ALICE,
    Scope("alice", "a"),
    Scope("bob"),
    Scope(agent_id="a"),
    Scope(agent_id="a", run_id="r"),
    Scope(run_id="r"),
]
WRITERS = [ALICE, Scope("alice", "a"), Scope("alice", "b", "r"), Scope("bob", "a"), Scope(agent_id="a", run_id="r")]
FAMILIES = [
    ["Bob", "Bob Smith", "bob's", "Bob Jones", "Dr. Bob", "Bob J. Smith", "Mr. Smith", "Mrs. Smith", "Smith"],
    ["小雨", "我的朋友小雨", "田中さん", "田中", "北京", "北京大学"],
    ["Anna", "ANNA", "my friend Anna", "Anna Lee", "Anna Maria Lee", "Anna Kim"],
    ["Berlin", "Berlin Wall", "the Berlin Wall", "berlin"],
    ["user", "User", "work", "tea", "Tea", "🚀", "?!", " ", "AT&T", "node.js"],
]
RELATIONS = ["likes", "LIKES", "lives in", "livesIn", "is also known as", "knows", "called", "认识"]
TEXTS = [
    "Where does Bob Smith live?",
    "What does my friend Anna Lee like about the Berlin Wall and tea?",
    "小雨和田中在北京大学吗",
    "I work with Bob's Anna",
    "nothing known",
    "Mr. Smith, Dr. Bob & node.js at AT&T 🚀",
    "project 3 and Project 17",
]


@pytest.fixture
def journal(url: str) -> Iterator[PostgresJournal]:
    journal = PostgresJournal(url, durability="fast", clock=utc_now, new_id=random_id)
    yield journal
    journal.close()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so low that small graphs reach them all."""
    for module, name, limit in [
        (reading, "EPS", 0.1), (sql, "EPS", 0.1), (sql, "_MOST_NEIGHBOURS", 10), (sql, "_AT_ONCE", 2),
        (reading, "MOST_EDGES", 11), (sql, "MOST_EDGES", 11), (reading, "MOST_NODES", 6),
        (names, "MOST_NAMESAKES", 6), (sql, "MOST_NAMESAKES", 6), (postgres_triples, "MOST_ROWS", 12),
    ]:  # fmt: skip
        monkeypatch.setattr(module, name, limit)


class World:
    """Memories with triples, written as the engine writes them."""

    def __init__(self, journal: PostgresJournal, seed: int) -> None:
        self.journal = journal
        self.rng = random.Random(seed)
        self.rows: list[Row] = []

    def name(self) -> str:
        if self.rng.random() < 0.15:
            return f"project {self.rng.randrange(25)}"
        return self.rng.choice(self.rng.choice(FAMILIES))

    def triple(self) -> Triple:
        # Two hubs, of which one is also a name among others of its family.
        source = self.rng.choice(["user", "Bob"]) if self.rng.random() < 0.4 else self.name()
        return Triple(source, self.rng.choice(RELATIONS), self.name())

    def tell(self, *triples: Triple, scope: Scope = ALICE, **columns: Any) -> Row:
        key = self.journal.new_id()
        row = Row(0, 0, scope.partition, key, "fact", str(triples), 1, 1, **scope.ids(), **columns)
        with self.journal.write(scope.partition) as tx:
            item = tx.add_memory(row, tokens=[], codes=None, triples=triples)
        self.rows.append(replace(row, id=item, seq=item))
        return self.rows[-1]

    def end(self, row: Row) -> None:
        with self.journal.write(row.path) as tx:
            tx.close_memory(row, invalid_at=2)
            tx.event(tx.namespace(row.path), row.key, row.kind, "delete", item=row.id)
        self.rows.remove(row)

    def forget(self, row: Row) -> None:
        with self.journal.write() as tx:
            tx.erase_memories([row])
        self.rows.remove(row)

    def set_state(self, row: Row, state: int) -> None:
        with self.journal.write(row.path) as tx:
            tx.change_memory(row, "none", state=state)

    def step(self) -> None:
        chance = self.rng.random()
        row = self.rng.choice(self.rows) if self.rows else None
        if row is None or chance < 0.65:
            triples = [self.triple() for _ in range(self.rng.choice([1, 1, 2, 4]))]
            valid_at = self.rng.choice([None, 1_700_000_000_000_000])
            state = QUARANTINED if self.rng.random() < 0.1 else VISIBLE
            self.tell(*triples, *triples[:1], scope=self.rng.choice(WRITERS), state=state, valid_at=valid_at)
        elif chance < 0.85:
            self.end(row)
        elif chance < 0.97:
            self.set_state(row, self.rng.choice([VISIBLE, QUARANTINED]))
        else:
            self.forget(row)


def answers(graph: Any, rng: random.Random) -> dict[str, Any]:
    """What a graph says, in its order."""
    every = [name for family in FAMILIES for name in family] + [f"project {n}" for n in range(25)]
    found: dict[str, Any] = {"named": graph.entities_named(every)}
    for text in rng.sample(TEXTS, 2):
        entities = graph.entities_in(text)
        found[text] = entities, graph.memories_near(entities), graph.relations(entities, query=text, most=40)
    for _ in range(2):
        some, relation = rng.sample(every, rng.choice([1, 2, 3])), rng.choice(RELATIONS)
        found[f"around {some}"] = (
            [graph.k_hop(some, k=k, most=most) for k, most in ((2, 9), (3, 100))],
            graph.local_push(some),
            graph.memories_near(some, most=7),
            [graph.relations(some, query="Who likes tea?", k=k, most=most) for k, most in ((1, 9), (3, 40))],
            graph.stating(Triple(some[0], relation, some[-1]), most=5),
        )
    return found


def said(answer: Any) -> str:
    """An answer with the order of what is in it."""
    return repr(answer)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_answer_as_they_do_in_memory_however_they_came_about(journal: PostgresJournal, seed: int) -> None:
    world, asked = World(journal, seed), Graphs(journal, sql_edges=-1)
    for round_ in range(6):
        for _ in range(20):
            world.step()
        whole = Graphs(journal, sql_edges=10**9)
        for scope in (ALICE, *world.rng.sample(SCOPES[1:], 2)):
            quarantined = world.rng.random() < 0.3
            one = asked.graph(scope, include_quarantined=quarantined)
            other = whole.graph(scope, include_quarantined=quarantined)
            assert isinstance(one, SQLGraph)
            assert isinstance(other, TripleGraph)
            here, there = (answers(graph, random.Random(f"{seed} {round_}")) for graph in (one, other))
            for question, answer in there.items():
                assert said(here[question]) == said(answer), (scope, quarantined, question)


class Counted:
    """The statements that a connection was asked to run, but those that every read begins with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        run = postgres_session.Session.execute

        def execute(session: Any, statement: str, params: Any = (), /) -> Any:
            if "triples" in statement:
                self.statements.append(statement)
            return run(session, statement, params)

        monkeypatch.setattr(postgres_session.Session, "execute", execute)

    def of(self, read: Any) -> int:
        self.statements.clear()
        read()
        return len(self.statements)


@pytest.mark.parametrize("size", [20, 200])
def test_a_read_takes_a_statement_or_two_for_each_level_however_many_edges_there_are(
    journal: PostgresJournal, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    world = World(journal, 0)
    ring = [Triple(f"n{k}", "next to", f"n{(k + 1) % size}") for k in range(size)]
    world.tell(*ring, *(Triple("user", "likes", f"n{k}") for k in range(size)))
    world.tell(*(Triple("Anna", f"relation {k}", "Paris") for k in range(10 * size)))
    graph, counted = Graphs(journal, sql_edges=-1).graph(ALICE), Counted(monkeypatch)
    assert counted.of(lambda: graph.entities_in("What of n3?")) == 2
    # Degrees and neighbours, and who the neighbours are.
    assert counted.of(lambda: graph.k_hop(["n3"], k=1)) == 2
    assert counted.of(lambda: graph.k_hop(["n3"], k=1)) == 0
    assert counted.of(lambda: graph.k_hop(["n3"], k=2)) == 2
    assert counted.of(lambda: graph.relations(["Paris"])) <= 6
    assert counted.of(lambda: graph.relations(["Paris"])) == 0
    assert counted.of(lambda: graph.memories_near(["Anna"])) <= 3
    graph = Graphs(journal, sql_edges=-1).graph(ALICE)
    assert counted.of(lambda: graph.relations(["user", "n1", "n2"])) <= 9


def test_what_others_commit_changes_the_next_answer_and_only_what_it_touches_is_read_again(
    journal: PostgresJournal, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(journal, 0)
    world.tell(Triple("Bob", "likes", "tea"))
    world.tell(Triple("Anna", "lives in", "Paris"))
    graph, counted = Graphs(journal, sql_edges=-1).graph(ALICE), Counted(monkeypatch)
    assert graph.k_hop(["Bob"]) == {"Bob": 0, "tea": 1}
    assert graph.k_hop(["Anna"]) == {"Anna": 0, "Paris": 1}
    other = PostgresJournal(url, durability="fast", clock=utc_now, new_id=random_id)
    told = World(other, 0)
    row = told.tell(Triple("Bob Smith", "knows", "Maria"))
    assert graph.k_hop(["Bob"]) == {"Bob": 0, "Maria": 1, "tea": 1}
    row2 = told.tell(Triple("Bob Smith", "likes", "rum"))
    # One that says which families changed.
    assert counted.of(lambda: graph.k_hop(["Anna"])) == 1
    assert counted.of(lambda: graph.k_hop(["Bob"])) >= 2
    told.end(row2)
    assert counted.of(lambda: graph.k_hop(["Anna"])) == 1
    told.tell(Triple("Bob Jones", "knows", "Eve"), scope=Scope("bob"))
    assert counted.of(lambda: graph.k_hop(["Anna"])) == 0
    told.tell(Triple("Bob Jones", "knows", "Eve"))
    assert graph.k_hop(["Bob"]) == {"Bob": 0, "tea": 1}
    told.end(row)
    assert set(graph.k_hop(["Bob"])) == {"Bob", "tea", "Eve"}
    told.forget(told.rows[-1])
    assert graph.k_hop(["Bob"]) == {"Bob": 0, "tea": 1}
    assert "eve" not in str(vars(graph))
    other.close()


def test_threads_share_a_graph(journal: PostgresJournal) -> None:
    world = World(journal, 3)
    for _ in range(40):
        world.step()
    graph, found = Graphs(journal, sql_edges=-1).graph(ALICE), []
    threads = [threading.Thread(target=lambda: found.append(said(answers(graph, random.Random(5))))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Graphs(journal, sql_edges=10**9).graph(ALICE)
    assert found == [said(answers(whole, random.Random(5)))] * 4


def test_names_of_any_length_are_found(journal: PostgresJournal) -> None:
    long = "Anna " + "very " * 3_000 + "Lee"
    World(journal, 0).tell(Triple(long, "likes", "x" * 20_000))
    graph = Graphs(journal, sql_edges=-1).graph(ALICE)
    assert graph.k_hop([long.upper()], k=1) == {long: 0, "x" * 20_000: 1}


def test_only_large_scopes_are_read_so(journal: PostgresJournal) -> None:
    world = World(journal, 0)
    world.tell(*(Triple("user", "likes", f"thing {k}") for k in range(30)))
    world.tell(Triple("user", "likes", "tea"), scope=Scope("bob"))
    graphs = Graphs(journal, sql_edges=20)
    assert isinstance(graphs.graph(ALICE), SQLGraph)
    assert isinstance(graphs.graph(Scope("bob")), TripleGraph)
    assert isinstance(graphs.graph(Scope(agent_id="a")), SQLGraph)
    for user in range(postgres_triples.MOST_SPACES):
        world.tell(Triple("user", "likes", "tea"), scope=Scope(f"u{user}", "a"))
    # An agent of many users: each would have to be looked at for each name.
    agents = Graphs(journal, sql_edges=20).graph(Scope(agent_id="a"))
    assert isinstance(agents, TripleGraph)
    assert len(agents) == postgres_triples.MOST_SPACES
    # Whoever has it read so already gets the same from it.
    assert graphs.graph(Scope(agent_id="a")).k_hop(["user"]) == agents.k_hop(["user"]) == {"user": 0, "tea": 1}
    assert len(graphs.copy(ALICE).nodes) == 31


class Relating:
    """An extractor that finds one fact in each turn: its first word, its second, and the rest."""

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn] = ()) -> Extraction:
        facts = []
        for place, turn in enumerate(turns):
            source, relation, destination = turn.text.split(" ", 2)
            facts.append(Fact(turn.text, (place,), quote=turn.text, triples=(Triple(source, relation, destination),)))
        return Extraction(tuple(facts))

    async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn] = ()) -> Extraction:
        return self.extract(turns)


TOLD = ["Anna knows Bob Smith", "Bob likes tea", "Maria lives_in Paris", "Anna visited Paris", "tea comes_from China"]


def opened(path: str | Path) -> Memory:
    return Memory(
        path, extractor=Relating(), embeddings=DeterministicEmbeddings(16), durability="fast",
        clock=FrozenClock(), new_id=SequentialIds(),
    )  # fmt: skip


def found(memory: Memory) -> list[Any]:
    results = [memory.search(q, user_id="u") for q in ("What does Bob like?", "Whom does Anna know?", "China")]
    return [([(hit["memory"], hit["score"]) for hit in result["results"]], result["relations"]) for result in results]


def test_searches_are_those_of_a_folder(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Graphs.__init__.__kwdefaults__, "sql_edges", 2)
    with opened(url) as memory, opened(tmp_path / "folder") as folder:
        for store in (memory, folder):
            store.add(TOLD, user_id="u")
            store.add("Bob Jones is here", user_id="u")
        assert found(memory) == found(folder)
        assert any(relations for _, relations in found(memory))
        assert isinstance(memory._graphs.graph(Scope("u")), SQLGraph)
        assert memory.graph(user_id="u").triples() == folder.graph(user_id="u").triples()


def test_a_store_of_the_first_release_is_brought_forward(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_triples, "_PAGE", 2)
    with opened(url) as memory:
        memory.add(TOLD, user_id="u")
        before = found(memory)
    name = url.rpartition("%3D")[2]
    described = (
        "SELECT indexdef FROM pg_indexes WHERE schemaname = %s UNION ALL SELECT column_name || data_type FROM "
        "information_schema.columns WHERE table_schema = %s ORDER BY 1"
    )
    with psycopg.connect(url, autocommit=True) as db:
        fresh = db.execute(described, (name, name)).fetchall()
        coded = db.execute("SELECT * FROM triples ORDER BY id").fetchall()
        for column in postgres_triples.CODES:
            db.execute(f"ALTER TABLE triples DROP COLUMN {column}".encode())
        db.execute("CREATE INDEX triples_by_namespace ON triples (ns)")
        db.execute("ALTER TABLE items DROP COLUMN fields")
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    monkeypatch.setitem(Graphs.__init__.__kwdefaults__, "sql_edges", 2)
    with opened(url) as memory:
        assert found(memory) == before
        assert isinstance(memory._graphs.graph(Scope("u")), SQLGraph)
    with psycopg.connect(url) as db:
        assert db.execute(described, (name, name)).fetchall() == fresh
        assert db.execute("SELECT * FROM triples ORDER BY id").fetchall() == coded


def test_what_is_imported_is_found_by_name(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Graphs.__init__.__kwdefaults__, "sql_edges", 2)
    with opened(tmp_path / "folder") as folder:
        folder.add(TOLD, user_id="u")
        expected = found(folder)
    export_store(tmp_path / "folder", tmp_path / "export")
    import_store(tmp_path / "export", url)
    with opened(url) as memory:
        assert found(memory) == expected
        assert isinstance(memory._graphs.graph(Scope("u")), SQLGraph)
