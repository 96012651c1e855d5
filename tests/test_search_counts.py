"""What a search looks at: statements, texts and vectors, in scopes of which all is scored and in larger ones."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, product
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any
from weakref import ref

import pytest
from journal_dump import connections, ids, open_memory
from langgraph.store.base import PutOp
from memory_kit import Extracting

from langchain_memlayer import MemLayerStore, Memory
from langchain_memlayer.engine import scoring_pool
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.index.postings import Words
from langchain_memlayer.index.view import View
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.types import Fact, Scope, Triple

LIMIT = 10
NAMES = ("Ann", "Bob", "Clara", "Deniz", "Emil")
EMBEDDINGS = pytest.mark.parametrize("embeddings", [True, False], ids=["vectors", "keywords"])


class Talk:
    """Sessions of ten turns about one of fifty topics, each with words of its own among those that everybody uses."""

    def __init__(self) -> None:
        self.rng = Random(11)
        made = ["".join(self.rng.choices("bcdfghklmnprstvz", k=6)) for _ in range(3000)]
        self.common, self.own = made[:200], [made[200 + 50 * topic : 250 + 50 * topic] for topic in range(50)]
        self.weights = list(accumulate(1 / (rank + 3) for rank in range(200)))
        self.said: list[tuple[str, int]] = []

    def text(self, topic: int) -> str:
        return " ".join(self.rng.choices(self.own[topic], k=4) + self.frequent(6))

    def frequent(self, k: int) -> list[str]:
        return self.rng.choices(self.common, cum_weights=self.weights, k=k)

    def tell(self, memory: Memory, rows: int) -> None:
        for session in range(rows // 10):
            topic, names = self.rng.randrange(50), self.rng.sample(NAMES, 2)
            turns = [(self.text(topic), topic) for _ in range(10)]
            memory.add(
                [{"role": "user", "content": text, "name": names[k % 2]} for k, (text, _) in enumerate(turns)],
                user_id="u",
                session_id=f"s{session}",
                timestamp=f"2024-{1 + session % 12:02}-{1 + session % 28:02}",
                metadata={"quarter": f"q{session % 4}", "ticket": session % 100},
            )
            self.said += turns

    def questions(self, n: int) -> list[str]:
        asked = []
        for _ in range(n):
            text, topic = self.rng.choice(self.said)
            words = [*self.rng.sample(text.split()[:4], 2), self.rng.choice(self.own[topic]), *self.frequent(2)]
            asked.append(f"What did {self.rng.choice(NAMES)} say of {' '.join(words)}?")
        return asked


class Watched:
    """What was asked of a memory since it is watched.

    Attributes:
        statements: The SQL that was run.
        reread: How many memories were read again, by each call.
        worded: Of how many texts the terms were taken, by each call.
        compared: Of how many vectors the cosine was asked for, by each call.
        pools: How many memories were scored, by each pool.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.reread: list[int] = []
        self.worded: list[int] = []
        self.compared: list[int] = []
        self.pools: list[int] = []

    def ran(self, statement: str) -> None:
        self.statements.append(statement)


@contextmanager
def watched(memory: Memory) -> Iterator[Watched]:
    seen = Watched()
    with pytest.MonkeyPatch.context() as patch:
        by_row, texts, scores, around = Reader.memories_by_row, Words.texts, View.scores, scoring_pool.Pools.around

        def count_rows(reader: Reader, ids: Sequence[int]) -> Any:
            # Of nothing there is nothing to ask.
            seen.reread += [len(ids)] if ids else []
            return by_row(reader, ids)

        def count_texts(words: Words, slots: Any) -> Any:
            seen.worded.append(len(slots))
            return texts(words, slots)

        def count_scores(view: View, query: Any, positions: Any) -> Any:
            seen.compared.append(len(positions))
            return scores(view, query, positions)

        def count_pool(made: scoring_pool.Pools, *asked: Any) -> Any:
            members, pool = around(made, *asked)
            seen.pools.append(len(members))
            return members, pool

        patch.setattr(Reader, "memories_by_row", count_rows)
        patch.setattr(Words, "texts", count_texts)
        patch.setattr(View, "scores", count_scores)
        patch.setattr(scoring_pool.Pools, "around", count_pool)
        opened_ones = connections(memory._journal)
        for db in opened_ones:
            db.set_trace_callback(seen.ran)
        yield seen
        for db in opened_ones:
            db.set_trace_callback(None)


def opened(folder: Path, embeddings: bool) -> Memory:
    return open_memory(folder, embeddings=DeterministicEmbeddings() if embeddings else None)


def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"WHOLE_SCOPE": 500, "SAMPLE": 500, "FOUND": 250, "CANDIDATES": 20, "MOST_LIVELY": 4}
    for name, value in limits.items():
        monkeypatch.setattr(scoring_pool, name, value)


@EMBEDDINGS
@pytest.mark.parametrize("rows", [100, 1000])
def test_a_small_scope_is_scored_once_and_asks_two_statements(tmp_path: Path, embeddings: bool, rows: int) -> None:
    talk = Talk()
    with opened(tmp_path / "m", embeddings) as memory:
        talk.tell(memory, rows)
        for place, question in enumerate(talk.questions(6)):
            with watched(memory) as seen:
                hits = memory.search(question, user_id="u", limit=LIMIT)["results"]
            assert seen.pools == [rows]
            assert seen.compared == ([rows] if embeddings else [])
            assert seen.reread == [len(hits)] == [LIMIT]
            # What does not depend on the question is known from the search before.
            assert seen.worded == ([] if place else [rows])
            if place:
                # The last commit's position, and the hits.
                assert len(seen.statements) == 2, seen.statements
        # A write makes it anew, and with it whether there are triples.
        memory.add("Something else", user_id="u")
        with watched(memory) as seen:
            memory.search("Something else", user_id="u", limit=LIMIT)
        assert seen.worded == [rows + 1]
        assert any("triples" in statement for statement in seen.statements)


@pytest.mark.parametrize("rows", [100, 1000])
def test_a_search_of_a_store_asks_two_statements_and_reads_its_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    index: Any = {"dims": 64, "embed": DeterministicEmbeddings(64)}
    with MemLayerStore(tmp_path / "s", index=index) as store:
        store.batch([PutOp(("notes", "u"), str(row), {"text": f"note {row}"}) for row in range(rows)])
        store.search(("notes", "u"), query="note", limit=LIMIT)
        statements: list[str] = []
        reread: list[int] = []
        by_id = Reader.items_by_id
        monkeypatch.setattr(
            Reader, "items_by_id", lambda self, ids, now: (reread.append(len(ids)), by_id(self, ids, now))[1]
        )
        for db in connections(store._journal):
            db.set_trace_callback(statements.append)
        assert len(store.search(("notes", "u"), query="note 7", limit=LIMIT)) == LIMIT
    # The last commit's position, and the hits.
    assert (len(statements), reread) == (2, [LIMIT])


def test_what_a_search_leaves_behind_goes_with_the_next_write(tmp_path: Path) -> None:
    with opened(tmp_path / "m", embeddings=True) as memory:
        gc.disable()
        try:
            Talk().tell(memory, 50)
            memory.search("anything", user_id="u")
            before = ref(memory._indexes.view(Scope("u").search_root))
            memory.add("Something else", user_id="u")
            memory.search("anything", user_id="u")
            assert before() is None
        finally:
            gc.enable()


def test_a_filter_of_a_small_scope_reads_few_memories_again_and_finds_all_that_passes(tmp_path: Path) -> None:
    talk = Talk()
    with opened(tmp_path / "m", embeddings=True) as memory:
        talk.tell(memory, 1000)
        memory.search("warm", user_id="u")
        for question in talk.questions(5):
            with watched(memory) as seen:
                hits = memory.search(question, user_id="u", limit=LIMIT, filters={"quarter": "q1"})["results"]
            assert len(hits) == LIMIT
            assert {hit["metadata"]["quarter"] for hit in hits} == {"q1"}
            assert sum(seen.reread) <= 16 * LIMIT + LIMIT
            assert seen.pools == [1000]
        # However far it ranks.
        memory.add("something quite different", user_id="u", metadata={"rare": "yes"})
        for filters in ({"rare": "yes"}, {"rare": {"$contains": "e"}}, {"$not": {"rare": {"$exists": False}}}):
            hits = memory.search(talk.questions(1)[0], user_id="u", filters=filters)["results"]
            assert [hit["memory"] for hit in hits] == ["something quite different"]


def test_the_entities_of_a_query_are_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_memlayer.graph.memory_graph import TripleGraph

    fact = Fact("Ann owns a kayak", (0,), triples=(Triple("Ann", "owns", "kayak"),))
    calls, entities_in = [], TripleGraph.entities_in
    with open_memory(tmp_path / "m", embeddings=None, extractor=Extracting(lambda _: [fact])) as memory:
        memory.add("Ann owns a kayak", user_id="u")
        monkeypatch.setattr(TripleGraph, "entities_in", lambda *asked: calls.append(1) or entities_in(*asked))
        found = memory.search("What does Ann own?", user_id="u")
    assert [relation["destination"] for relation in found["relations"]] == ["kayak"]
    assert len(calls) == 1


def test_a_page_is_read_by_an_index_and_costs_the_page(tmp_path: Path) -> None:
    steps: list[int] = []
    with opened(tmp_path / "m", embeddings=False) as memory:
        for rows in (300, 2000):
            Talk().tell(memory, rows)
            memory.get_all(user_id="u", limit=10)
            steps.append(0)
            for db in connections(memory._journal):
                db.set_progress_handler(lambda: steps.append(steps.pop() + 1), 100)
            memory.get_all(user_id="u", limit=10)
            for db in connections(memory._journal):
                db.set_progress_handler(None, 0)
        assert steps[1] <= steps[0] + 2
        (db, *_) = connections(memory._journal)
        for kinds in (None, ["turn"], ["fact"]):
            with watched(memory) as seen:
                memory.get_all(user_id="u", limit=10, kinds=kinds)
            pages = [statement for statement in seen.statements if "ORDER BY i.created_at" in statement]
            assert pages
            for statement in pages:
                plan = [row[-1] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()]
                assert len(plan) == 1, plan
                assert "INDEX memories_" in plan[0]


@EMBEDDINGS
def test_no_pass_over_a_large_scope(tmp_path: Path, embeddings: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    small_limits(monkeypatch)
    talk = Talk()
    with opened(tmp_path / "m", embeddings) as memory:
        talk.tell(memory, 3000)
        memory.search("warm", user_id="u")
        for question in [*talk.questions(5), " ".join(talk.common[:5]), " ".join(talk.common)]:
            with watched(memory) as seen:
                memory.search(question, user_id="u", limit=LIMIT)
            # As in a small one: the words are in memory too.
            assert len(seen.statements) == 2, seen.statements
            assert seen.reread == [LIMIT]
            assert max(seen.worded) < 1200
            assert max(seen.pools) < 1200
            assert len(seen.compared) == (2 if embeddings else 0)
            assert sum(seen.compared) < 2200


FILTERS: list[tuple[dict[str, Any], int]] = [
    ({"quarter": "q1"}, LIMIT), ({"ticket": 7}, LIMIT), ({"ticket": 1000}, 0), ({"ticket": {"$in": [7, 8]}}, LIMIT),
    ({"$or": [{"ticket": 7}, {"quarter": "none"}]}, LIMIT), ({"$not": {"ticket": {"$ne": 7}}}, LIMIT),
]  # fmt: skip


@EMBEDDINGS
def test_a_filter_of_a_large_scope_finds_all(tmp_path: Path, embeddings: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    small_limits(monkeypatch)
    talk = Talk()
    with opened(tmp_path / "m", embeddings) as memory:
        talk.tell(memory, 2000)
        memory.search("warm", user_id="u")
        for question, (filters, least) in product(talk.questions(2), FILTERS):
            condition = parse_filter(filters)
            with watched(memory) as seen:
                hits = memory.search(question, user_id="u", limit=LIMIT, filters=filters)["results"]
            assert len(hits) >= least
            assert all(condition.matches(hit["metadata"]) for hit in hits)
            assert sum(seen.reread) <= 2 * (4 + 8 + 16) * LIMIT
            assert max(seen.pools) < 1200


METADATA: list[dict[str, Any]] = [
    {"a": "x"}, {"a": "X"}, {"a": 1}, {"a": 1.0}, {"a": 10}, {"a": True}, {"a": False}, {"a": 0}, {"a": -0.0},
    {"a": None}, {"a": ["x"]}, {"a": {"b": "x"}}, {"a.b": "x"}, {"b": "x"}, {"a": '"a":"x"'}, {"a": "50%_!"},
    {"a": "é\n\u0000"}, {"a": 1 << 70}, {"a": "x", "n": 1 << 70}, {"role": "x"}, {"role": None}, {"name": "Ann"}, {},
    {"a": 12345678901234567890}, {"a": 1e300}, {"a": "y" * 2000}, {"kind": "x"}, {"A": "x"}, {"a": [1, 2]},
]  # fmt: skip
CONDITIONS: list[dict[str, Any]] = [
    *({"a": value} for value in ("x", 1, 1.0, 10, True, False, 0, None, ["x"], {"b": "x"}, '"a":"x"', "50%_!",
                                 "é\n\u0000", 1 << 70, 12345678901234567890, 1e300, "y" * 2000, -1, "")),
    *({"a": {op: value}} for op in ("$gt", "$gte", "$lt", "$lte", "$ne") for value in (1, "w")),
    {"a": {"$in": ["x", 1, None]}}, {"a": {"$in": ["x", 10]}}, {"a": {"$in": []}}, {"a": {"$nin": ["x"]}},
    {"a": {"$in": list(range(5000))}}, {"a": {"$contains": "x"}}, {"a": {"$contains": 2}}, {"a": {"$exists": True}},
    {"a": {"$exists": False}}, {"a.b": "x"}, {"role": "x"}, {"role": "user"}, {"role": None}, {"kind": "turn"},
    {"kind": {"$in": ["turn", "x"]}}, {"name": {"$exists": True}}, {"name": "Ann"}, {"memory": "note 3"},
    {"$or": [{"a": "x"}, {"b": "x"}]}, {"$or": [{"a": "x"}, {"a": {"$ne": "x"}}]}, {"a": "x", "n": 1 << 70},
    {"$not": {"a": "x"}}, {"$and": [{"a": {"$gt": 0}}, {"a": {"$lt": 5}}]}, {"user_id": "u"},
]  # fmt: skip


def test_sql_finds_whatever_passes_a_filter(tmp_path: Path) -> None:
    with open_memory(tmp_path / "m", embeddings=None) as memory:
        for number, metadata in enumerate(METADATA):
            memory.add(f"note {number}", user_id="u", metadata=metadata)
        for given in CONDITIONS:
            condition = parse_filter(given)
            assert condition is not None
            with memory._journal.read() as reader:
                passing = {row.text for row in reader.memories_passing(Scope("u"), condition, ended=False)}
            kept = {hit["memory"] for hit in memory.get_all(user_id="u", filters=given)["results"]}
            assert kept <= passing, (given, kept - passing)
            if given == {"a": "x"}:
                assert len(passing) < len(METADATA) / 2


def overlaps(memory: Memory, questions: Sequence[str], monkeypatch: pytest.MonkeyPatch, **asked: Any) -> list[float]:
    """For each question the share of the best ten of the whole scope that are found without a pass over it."""
    whole, shares = scoring_pool.WHOLE_SCOPE, []
    for question in questions:
        found = set(ids(memory.search(question, user_id="u", limit=LIMIT, **asked)))
        with monkeypatch.context() as patch:
            patch.setattr(scoring_pool, "WHOLE_SCOPE", 1 << 40)
            exact = set(ids(memory.search(question, user_id="u", limit=LIMIT, **asked)))
        assert whole == scoring_pool.WHOLE_SCOPE
        shares.append(len(found & exact) / len(exact))
    return shares


@pytest.mark.slow
@EMBEDDINGS
def test_a_large_scope_ranks_as_a_whole(tmp_path: Path, embeddings: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk()
    with opened(tmp_path / "m", embeddings) as memory:
        talk.tell(memory, 12_000)
        assert mean(overlaps(memory, talk.questions(40), monkeypatch)) >= 0.95
        assert mean(overlaps(memory, talk.questions(10), monkeypatch, filters={"quarter": "q2"})) >= 0.9
        assert mean(overlaps(memory, talk.questions(10), monkeypatch, filters={"ticket": 33})) >= 0.95
