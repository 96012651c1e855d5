from __future__ import annotations

import gc
import shutil
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_dump import connections
from langchain_core.embeddings import Embeddings
from langgraph.store.base import PutOp, SearchItem
from numpy.typing import NDArray

from langchain_memlayer import Memory
from langchain_memlayer.engine.index_sync import Indexes, encode_vectors
from langchain_memlayer.filters import parse_filter
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.store import MemLayerStore
from langchain_memlayer.testing import FrozenClock
from langchain_memlayer.types import encode_namespace

DIMS, TOPICS = 32, 200


class Precomputed(Embeddings):
    """The vector of the text "17" is `vectors[17]`."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.vectors[[int(text) for text in texts]].tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def clustered(rows: int, *, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centres = random.standard_normal((TOPICS, DIMS))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres[random.integers(0, TOPICS, rows)] + random.standard_normal((rows, DIMS)) * 0.1).astype(np.float32)


def open_store(where: str | Path, embeddings: Precomputed, **changed: Any) -> MemLayerStore:
    index: Any = {"dims": DIMS, "embed": embeddings, "fields": ["text"]}
    return MemLayerStore(where, index=index, durability="fast", **changed)


def scores(embeddings: Precomputed, query: int) -> NDArray[np.float64]:
    """The cosine of each vector with that of a query."""
    vectors = embeddings.vectors.astype(float)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    return vectors @ vectors[query]


def recall(found: list[SearchItem], every: NDArray[np.float64], allowed: NDArray[Any], k: int = 10) -> float:
    """The share of the `k` best of `allowed` that were found; one as near as the last of them is as good."""
    numbers = [int(item.value["text"]) for item in found]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(allowed.tolist())
    floor = np.sort(every[allowed])[-k:][0] - 2e-4
    return float((every[numbers] >= floor).sum()) / min(k, len(allowed))


def plan_of(store: MemLayerStore, namespace: tuple[str, ...], query: int) -> Any:
    store._indexes.view(encode_namespace(namespace))
    assert store._indexes.wait(120)
    view = store._indexes.view(encode_namespace(namespace))
    assert store._embedder is not None
    return view.search(store._embedder.embed_query(str(query)), 10).plan


TENANTS, EACH = 100, 50
ROWS = TENANTS * EACH
ONE, OTHER, THIRD = (str(ROWS + n) for n in (1, 2, 3))


@pytest.fixture(scope="module")
def crowd() -> Precomputed:
    return Precomputed(clustered(ROWS + 50, seed=1))


@pytest.fixture(scope="module")
def town(crowd: Precomputed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 100 tenants of 50 rows, mixed as they come."""
    folder, order = tmp_path_factory.mktemp("town") / "store", np.random.default_rng(2).permutation(ROWS)
    with open_store(folder, crowd) as store:
        for part in np.array_split(order, 10):
            store.batch([PutOp(("tenants", f"t{n % TENANTS}"), str(n), {"text": str(n)}) for n in part.tolist()])
    return folder


@pytest.fixture
def rented(town: Path, crowd: Precomputed, tmp_path: Path) -> Callable[..., MemLayerStore]:
    """Opens a copy of it."""
    return lambda **changed: open_store(shutil.copytree(town, tmp_path / "store"), crowd, **changed)


@pytest.mark.parametrize("threshold", [4_000_000, 1000])
def test_each_of_100_tenants_finds_all_of_its_own_and_nothing_else(
    crowd: Precomputed, rented: Any, threshold: int
) -> None:
    with rented(hnsw_threshold=threshold) as store:
        for tenant in range(TENANTS):
            own = np.arange(tenant, ROWS, TENANTS)
            query = ROWS + tenant % 50
            found = store.search(("tenants", f"t{tenant}"), query=str(query), limit=10)
            assert recall(found, scores(crowd, query), own) == 1.0
            assert {item.namespace for item in found} == {("tenants", f"t{tenant}")}
        assert store._indexes.wait(120)
        plan = plan_of(store, ("tenants", "t7"), 5)
        assert (plan.way, plan.candidates) == (("scan", 0) if threshold > 1000 else ("hnsw", 128))


def test_a_prefix_is_the_union_of_its_namespaces(crowd: Precomputed, rented: Any) -> None:
    with rented() as store:
        # Names that begin alike are others.
        store.put(("tenants", "t7", "deep"), ONE, {"text": ONE})
        store.put(("tenants2",), OTHER, {"text": OTHER})
        store.put(("tenant",), THIRD, {"text": THIRD})
        rows = ROWS
        for query in range(rows, rows + 12):
            every = scores(crowd, query)
            whole = np.array([*range(rows), rows + 1])
            found = store.search(("tenants",), query=str(query), limit=10)
            assert recall(found, every, whole) == 1.0
            assert recall(store.search((), query=str(query), limit=10), every, np.r_[whole, rows + 2, rows + 3]) == 1.0
            own = np.array([*range(7, rows, TENANTS), rows + 1])
            assert recall(store.search(("tenants", "t7"), query=str(query), limit=10), every, own) == 1.0
            own_scores = [(item.key, item.score) for item in store.search(("tenants",), query=str(query), limit=30)]
            united = [
                (item.key, item.score)
                for tenant in range(TENANTS)
                for item in store.search(("tenants", f"t{tenant}"), query=str(query), limit=5)
            ]
            assert set(own_scores[:5]) <= set(united)
        plan = plan_of(store, ("tenants",), rows)
        assert (plan.way, plan.scanned) == ("scan", rows + 1)


@pytest.mark.parametrize(("factor", "way"), [(1, "scan"), (9.99, "scan"), (10.01, "hnsw")])
def test_many_namespaces_as_one_are_scanned_up_to_ten_times_the_threshold(factor: float, way: str) -> None:
    rows = 2000
    embeddings = Precomputed(clustered(rows, seed=3))
    with open_store(":memory:", embeddings, hnsw_threshold=int(rows * DIMS / factor)) as store:
        store.batch([PutOp(("many", str(n % 40)), str(n), {"text": str(n)}) for n in range(rows)])
        plan = plan_of(store, ("many",), 7)
        assert plan.way == way
        found = store.search(("many",), query="7", limit=10)
        assert recall(found, scores(embeddings, 7), np.arange(rows)) == 1.0
        store.batch([PutOp(("one",), str(n), {"text": str(n)}) for n in range(rows)])
        assert plan_of(store, ("one",), 7).way == ("hnsw" if factor > 1 else "scan")


def test_slabs_beyond_the_bound_in_bytes_are_dropped_and_come_back(rented: Any) -> None:
    with rented() as store:
        assert store._embedder is not None
        one = Indexes(
            store._journal, area="items", embedder=store._embedder, metric="cosine", hnsw_threshold=4_000_000
        )  # fmt: skip
        one.view(encode_namespace(("tenants", "t0")))
        weight = one._cache.nbytes
        small = Indexes(
            store._journal, area="items", embedder=store._embedder, metric="cosine", hnsw_threshold=4_000_000,
            capacity_bytes=5 * weight,
        )  # fmt: skip
        query = store._embedder.embed_query(THIRD)
        for turn in range(2):
            for tenant in range(TENANTS):
                view = small.view(encode_namespace(("tenants", f"t{tenant}")))
                assert len(view) == EACH + turn * (tenant < 20)
                assert len(view.search(query, 10)) == 10
                assert small._cache.nbytes <= 5 * weight
                assert len(small._cache.slabs()) <= 5
            if not turn:
                store.batch([PutOp(("tenants", f"t{n}"), "new", {"text": str(n)}) for n in range(20)])
        small.close()


def test_a_scope_that_nobody_wrote_to_weighs_what_it_takes() -> None:
    with Memory(":memory:", model=None, embeddings=None) as memory:
        cache = memory.internals.indexes._cache
        for number in range(200):
            if number == 100:
                gc.collect()
                tracemalloc.start()
                weighed = cache.nbytes
            memory.search("tea", user_id=f"nobody {number}")
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert taken <= cache.nbytes - weighed


@pytest.mark.parametrize("threshold", [4_000_000, 500])
@pytest.mark.parametrize("condition", [None, {"kind": "note"}])
def test_100_expired_rows_never_hide_5_live_ones(threshold: int, condition: dict[str, Any] | None) -> None:
    vectors = np.zeros((400, DIMS), np.float32)
    vectors[:, 0] = 1
    vectors[:, 1] = np.arange(400) / 100
    vectors[300:] = clustered(100, seed=4)
    clock = FrozenClock()
    embeddings = Precomputed(vectors)
    with open_store(":memory:", embeddings, clock=clock, hnsw_threshold=threshold) as store:
        expired = [PutOp(("n",), str(n), {"text": str(n), "kind": "note"}, ttl=10) for n in range(1, 101)]
        live = [PutOp(("n",), str(n), {"text": str(n), "kind": "note"}, ttl=30 + n) for n in range(200, 205)]
        store.batch(
            [*expired, *live, *(PutOp(("n",), str(n), {"text": str(n), "kind": "x"}, ttl=9) for n in (300, 301))]
        )
        assert len(store.search(("n",), query="0", limit=5, filter=condition, refresh_ttl=False)) == 5
        assert store._indexes.wait(60)
        clock.advance(minutes=11)
        for limit in (5, 3, 50):
            found = store.search(("n",), query="0", limit=limit, filter=condition, refresh_ttl=False)
            assert [item.key for item in found] == [str(n) for n in range(200, 205)][:limit]
        pages = [store.search(("n",), query="0", limit=2, offset=o, filter=condition) for o in (0, 2, 4, 6)]
        assert [[item.key for item in page] for page in pages] == [["200", "201"], ["202", "203"], ["204"], []]
        # What was read lives on: its clock began anew.
        clock.advance(minutes=225)
        assert len(store.search(("n",), query="0", limit=50, refresh_ttl=False)) == 5
        clock.advance(minutes=7)
        assert [i.key for i in store.search(("n",), query="0", limit=50, refresh_ttl=False)] == ["203", "204"]
        store.put(("n",), "1", {"text": "1", "kind": "note"}, ttl=None)
        assert store.search(("n",), query="0", limit=1, filter=condition)[0].key == "1"


CONDITIONS: list[dict[str, Any] | None] = [
    None, {"tag": "a"}, {"tag": {"$ne": "a"}}, {"n": {"$gt": 20}}, {"n": {"$lt": 3}}, {"tag": "nobody"},
]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), seed=st.integers(0, 2**32 - 1), size=st.integers(1, 9), threshold=st.sampled_from([4_000_000, 0])
)
def test_pages_are_complete_and_disjoint(data: st.DataObject, seed: int, size: int, threshold: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.integers(-1, 2, (60, DIMS)).astype(np.float32)
    vectors[random.integers(0, 60, 12)] = vectors[0]
    embeddings = Precomputed(vectors)
    model: dict[str, tuple[dict[str, Any], bool]] = {}
    clock = FrozenClock()
    with open_store(":memory:", embeddings, hnsw_threshold=threshold, clock=clock) as store:
        for _ in range(data.draw(st.integers(1, 4))):
            ops = []
            for number in random.choice(60, random.integers(1, 40), replace=False).tolist():
                value = {"text": str(number), "tag": "abc"[random.integers(3)], "n": int(random.integers(40))}
                if random.random() < 0.2:
                    ops.append(PutOp(("p", str(number % 3)), str(number), None))
                    model.pop(str(number), None)
                else:
                    indexed = bool(random.random() < 0.7)
                    ops.append(PutOp(("p", str(number % 3)), str(number), value, index=None if indexed else False))
                    model.pop(str(number), None)
                    model[str(number)] = value, indexed
            store.batch(ops)
            clock.advance(seconds=1)
            condition, query = data.draw(st.sampled_from(CONDITIONS)), int(random.integers(60))
            wanted = parse_filter(condition)
            passed = {k: (v, i) for k, (v, i) in model.items() if wanted is None or wanted.matches(v)}
            pages: list[SearchItem] = []
            for offset in range(0, 70, size):
                page = store.search(("p",), query=str(query), filter=condition, limit=size, offset=offset)
                assert len(page) == min(size, max(0, len(passed) - offset))
                pages += page
            scored = [item for item in pages if item.score is not None]
            rest = [item for item in pages if item.score is None]
            assert pages == scored + rest
            assert {item.key: item.value for item in pages} == {k: v for k, (v, _) in passed.items()}
            assert len(pages) == len(passed)
            assert {item.key for item in scored} == {k for k, (_, indexed) in passed.items() if indexed}
            points = [item.score for item in scored if item.score is not None]
            assert points == sorted(points, reverse=True)
            exact = scores(embeddings, query)
            assert points == pytest.approx([float(exact[int(item.key)]) for item in scored], abs=2e-3)
            updated = [item.updated_at for item in rest]
            assert updated == sorted(updated, reverse=True)


@pytest.mark.slow
def test_filters_of_every_width_find_the_best_through_the_store(tmp_path: Path) -> None:
    rows = 12_000
    embeddings = Precomputed(clustered(rows + 40, seed=6))
    shares = [0.9, 0.5, 0.2, 0.1, 0.01, 0.001]
    random = np.random.default_rng(7)
    place = random.permutation(rows) / rows
    near = np.argsort(np.argsort(-scores(embeddings, rows)[:rows])) / rows
    with open_store(tmp_path / "store", embeddings, hnsw_threshold=rows * DIMS // 4) as store:
        for part in np.array_split(np.arange(rows), 6):
            values = [{"text": str(n), "random": place[n], "topical": near[n]} for n in part.tolist()]
            store.batch([PutOp(("n",), value["text"], value) for value in values])
        assert plan_of(store, ("n",), rows).way == "hnsw"
        for name, values in (("random", place), ("topical", near)):
            for share in shares:
                for condition, inside in (
                    ({name: {"$lt": share}}, values < share),
                    ({name: {"$gte": 1 - share}}, values >= 1 - share),
                ):
                    got = [
                        recall(
                            store.search(("n",), query=str(query), filter=condition, limit=10),
                            scores(embeddings, query),
                            np.flatnonzero(inside),
                        )
                        for query in range(rows, rows + 4)
                    ]
                    assert np.mean(got) >= 0.98, (name, share)


@pytest.fixture
def counted(rented: Any) -> Iterator[tuple[MemLayerStore, list[str]]]:
    with rented() as store:
        store.search(("tenants",), query=ONE)
        store.search(("tenants", "t3"), query=ONE)
        # What is written beside the journal is written by a thread, which reads too.
        for thread in [one for one in threading.enumerate() if one.name == "memlayer-graph"]:
            thread.join()
        statements: list[str] = []
        for connection in connections(store._journal):
            connection.set_trace_callback(statements.append)
        yield store, statements


@pytest.mark.parametrize("namespace", [("tenants",), ("tenants", "t3")])
def test_a_search_of_a_warm_slab_is_two_statements_and_reads_only_its_hits(
    counted: tuple[MemLayerStore, list[str]], namespace: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, statements = counted
    hydrated: list[int] = []
    real = Reader.items_by_id

    def counting(reader: Any, ids: Any, now: int) -> Any:
        rows = real(reader, ids, now)
        hydrated.append(len(rows))
        return rows

    readings: list[None] = []
    read = store._journal.read
    monkeypatch.setattr(Reader, "items_by_id", counting)
    monkeypatch.setattr(store._journal, "read", lambda **how: (readings.append(None), read(**how))[1])
    assert len(store.search(namespace, query=OTHER, limit=10)) == 10
    assert len(statements) == 2, statements
    assert (hydrated, len(readings)) == ([10], 1)
    assert statements[0] == "SELECT max(seq) FROM events"
    assert statements[1].startswith("SELECT i.id, i.seq")


def test_a_search_after_a_write_reads_what_is_new_and_nothing_more(
    counted: tuple[MemLayerStore, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, statements = counted
    store.put(("tenants", "t3"), "new", {"text": OTHER})
    statements.clear()
    whole: list[str] = []
    monkeypatch.setattr(Reader, "load", lambda *args, **kwargs: whole.append("load"))
    found = store.search(("tenants", "t3"), query=OTHER, limit=10)
    assert (found[0].key, found[0].score) == ("new", pytest.approx(1.0, abs=1e-3))
    assert whole == []
    assert len(statements) <= 9, statements
    statements.clear()
    store.search(("tenants", "t3"), query=OTHER, limit=10)
    assert len(statements) == 2, statements


def test_a_filter_that_keeps_much_reads_four_times_the_limit(counted: tuple[MemLayerStore, list[str]]) -> None:
    store, statements = counted
    found = store.search(("tenants", "t3"), query=OTHER, limit=10, filter={"text": {"$ne": "3"}})
    assert len(found) == 10
    assert len(statements) == 2, statements


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-15, 1.0, 1e15, 1e25, 3e38])
def test_cosine_keeps_the_direction_of_any_vector(scale: float) -> None:
    vector = np.array([[1.0, -1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    codes = np.frombuffer(encode_vectors(list(vector * scale), "cosine"), "<f2").reshape(2, 4)
    np.testing.assert_allclose(codes[0], np.array([1, -1, 1, 0]) / 3**0.5, atol=1e-3)
    assert not codes[1].any()


def test_searches_beside_writes_see_whole_answers(crowd: Precomputed, tmp_path: Path) -> None:
    with open_store(tmp_path / "store", crowd, hnsw_threshold=10_000) as store:
        store.batch([PutOp(("n",), str(n), {"text": str(n), "round": 0}) for n in range(600)])

        def write(part: int) -> None:
            for turn in range(1, 16):
                numbers = range(part * 100 + 600, part * 100 + 600 + 6 * turn)
                ops = [PutOp(("n",), str(n), {"text": str(n), "round": turn}) for n in numbers]
                store.batch([*ops, PutOp(("n",), str(part * 50 + turn), None)])

        def read(seed: int) -> None:
            for turn in range(30):
                found = store.search(("n",), query=str(4000 + seed * 31 + turn), limit=10)
                assert len({item.key for item in found}) == 10
                exact = scores(crowd, 4000 + seed * 31 + turn)[[int(item.key) for item in found]]
                assert [item.score for item in found] == pytest.approx(exact.tolist(), abs=2e-3)

        with ThreadPoolExecutor(6) as pool:
            jobs = [pool.submit(write, part) for part in range(3)] + [pool.submit(read, seed) for seed in range(3)]
            for job in jobs:
                job.result(120)
        gone = {part * 50 + turn for part in range(3) for turn in range(1, 16)}
        here = np.array(sorted((set(range(600)) - gone) | {p * 100 + 600 + n for p in range(3) for n in range(90)}))
        assert store._indexes.wait(60)
        got = [recall(store.search(("n",), query=str(q), limit=10), scores(crowd, q), here) for q in range(4000, 4050)]
        assert np.mean(got) >= 0.99


def test_a_journal_that_is_closed_ends_the_indexes_quietly(tmp_path: Path) -> None:
    journal = SQLiteJournal(tmp_path / "store")
    indexes = Indexes(journal, area="items", embedder=None, metric="cosine", hnsw_threshold=1)
    assert len(indexes.view("")) == 0
    assert indexes.wait(1)
    indexes.close()
    journal.close()
