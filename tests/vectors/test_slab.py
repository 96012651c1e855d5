import gc
import multiprocessing
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slabs import COLUMNS, METRICS, Topics, block, exact_scores, filled, frozen_copy, recalls

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index import slab as slab_module
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.index.view import Hits, View
from langchain_memlayer.types import Metric, SlabBlock


@dataclass
class Model:
    """What a slab should hold: the vectors and the column of each live row id."""

    metric: Metric
    items: dict[int, tuple[int, NDArray[np.float16], int]] = field(default_factory=dict)

    def search(self, query: NDArray[Any], k: int, inside: set[int]) -> list[tuple[float, int]]:
        ranked = [
            (-float(exact_scores(codes, query, self.metric).max()), item)
            for item, (_, codes, _) in self.items.items()
            if len(codes) and item in inside
        ]
        # Cosine scores are of numbers that float32 rounds: the seventh digit decides nothing.
        digits = 5 if self.metric == "cosine" else 12
        return [(-score, item) for score, item in sorted((round(s, digits), item) for s, item in ranked)][:k]


class Writing:
    """Random writes, made to a slab and to the model."""

    def __init__(self, slab: Slab, model: Model, seed: int, dims: int, *, several: bool) -> None:
        self.slab, self.model, self.dims, self.several = slab, model, dims, several
        self.random = np.random.default_rng(seed)
        self.seq = 0
        self.blocks: list[SlabBlock] = []

    def codes(self, count: int) -> NDArray[np.float16]:
        # Few different whole numbers: exact sums, zero vectors, duplicates and ties.
        return self.random.integers(-1, 2, (count, self.dims)).astype("<f2")

    def step(self, largest: int) -> None:
        self.seq += 1
        ids = self.random.permutation(40)[: self.random.integers(0, largest + 1)]
        held = list(self.model.items)
        gone = self.random.permutation([*held, *range(1000, 1003)])[: self.random.integers(0, largest + 1)]
        gone = np.array([item for item in gone.tolist() if item not in ids.tolist()], np.int64)
        owners: list[int] = []
        parts: list[NDArray[np.float16]] = []
        for place, item in enumerate(ids.tolist()):
            count = int(self.random.integers(0, 4)) if self.several else 1
            codes = self.codes(count)
            if item in self.model.items and self.random.random() < 0.3:
                codes = self.model.items[item][1]
            owners += [place] * len(codes)
            parts.append(codes)
        expires = self.random.integers(0, 100, len(ids))
        written = block(
            np.concatenate(parts) if parts else None,
            seq=self.seq, ids=ids, owners=owners, removed=gone.tolist(), expires=expires.tolist(),
        )  # fmt: skip
        for item in gone.tolist():
            self.model.items.pop(item, None)
        for place, item in enumerate(ids.tolist()):
            self.model.items[item] = self.seq, parts[place], int(expires[place])
        self.slab.apply(written)
        self.blocks.append(written)


def assert_holds(view: View, model: Model) -> None:
    """The rows, positions and columns are those of the model."""
    live = view.ids[view.live]
    assert sorted(live.tolist()) == sorted(model.items)
    wanted = np.array([*model.items, 5555], np.int64)
    positions = view.slots(wanted)
    assert positions[-1] == -1
    assert view.ids[positions[:-1]].tolist() == list(model.items)
    assert view.live[positions[:-1]].all()
    for item, position in zip(model.items, positions.tolist(), strict=False):
        seq, codes, expires = model.items[item]
        assert (view.seqs[position], view.columns["expires"][position]) == (seq, expires)
        mine = view.codes[[position]] if view.owners is None else view.codes[view.owners == position]
        assert mine.tolist() == codes.tolist()
    assert view.dead == int((~view.live).sum())
    dead = ~view.live if view.owners is None else ~view.live[view.owners]
    assert view.dead_vectors == int(dead.sum())


def assert_answers(view: View, model: Model, query: NDArray[Any], k: int, inside: set[int] | None) -> None:
    mask = None if inside is None else np.isin(view.ids, list(inside))
    hits = view.search(query, k, mask=mask)
    expected = model.search(query, k, set(model.items) if inside is None else inside)
    digits = 5 if model.metric == "cosine" else 4
    got = list(zip(np.round(hits.scores.astype(float), digits).tolist(), hits.ids.tolist(), strict=True))
    if model.metric == "cosine":
        assert [score for score, _ in got] == pytest.approx([score for score, _ in expected], abs=2e-5)
        every = {item: score for score, item in model.search(query, 10**6, set(model.items))}
        assert [every[item] for _, item in got] == pytest.approx([score for score, _ in expected], abs=2e-5)
        pairs = list(zip((-hits.scores).tolist(), hits.ids.tolist(), strict=True))
        # The clamp to [-1, 1] and the seventh digit may join what was apart, never disorder it.
        assert [score for score, _ in pairs] == sorted(score for score, _ in pairs)
    else:
        assert [item for _, item in got] == [item for _, item in expected]
        assert [score for score, _ in got] == pytest.approx([score for score, _ in expected], abs=1e-3)
    assert hits.seqs.tolist() == [model.items[item][0] for item in hits.ids.tolist()]
    assert view.ids[hits.slots].tolist() == hits.ids.tolist()
    items = np.array(list(model.items), np.int64)
    scored = view.scores(query, view.slots(items))
    for item, score in zip(items.tolist(), scored.tolist(), strict=True):
        codes = model.items[item][1]
        wanted = float(exact_scores(codes, query, model.metric).max()) if len(codes) else float("nan")
        assert score == pytest.approx(wanted, abs=1e-4, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    dims=st.integers(1, 70),
    several=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 12),
    largest=st.sampled_from([1, 5, 30]),
    k=st.sampled_from([1, 3, 10, 100]),
)
def test_after_any_writes_a_slab_answers_as_numpy_does(
    metric: Metric, dims: int, several: bool, seed: int, steps: int, largest: int, k: int
) -> None:
    slab = Slab(dims=dims, metric=metric, columns=COLUMNS)
    writing = Writing(slab, model := Model(metric), seed, dims, several=several)
    for _ in range(steps):
        writing.step(largest)
        assert slab.applied_seq == writing.seq
        assert_holds(slab.view, model)
        query = writing.random.integers(-1, 2, dims)
        inside = set(np.flatnonzero(writing.random.random(40) < writing.random.random()).tolist())
        assert_answers(slab.view, model, query, k, None)
        assert_answers(slab.view, model, query, k, inside)
    last = slab.view
    for again in writing.blocks:
        slab.apply(again)
    assert slab.view is last


@settings(max_examples=15, deadline=None)
@given(metric=st.sampled_from(METRICS), several=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_old_views_stay_as_they_were_through_writes_and_compactions(metric: Metric, several: bool, seed: int) -> None:
    slab = Slab(dims=6, metric=metric, columns=COLUMNS)
    writing = Writing(slab, Model(metric), seed, 6, several=several)
    kept: list[tuple[View, Mapping[str, Any], NDArray[Any], Hits]] = []
    for _ in range(25):
        writing.step(20)
        query = writing.random.integers(-1, 2, 6)
        kept.append((slab.view, frozen_copy(slab.view), query, slab.view.search(query, 7)))
    for view, copy, query, hits in kept:
        for name, now in frozen_copy(view).items():
            np.testing.assert_array_equal(now, copy[name], err_msg=name)
        again = view.search(query, 7)
        assert (again.ids.tolist(), again.seqs.tolist()) == (hits.ids.tolist(), hits.seqs.tolist())
        assert again.scores.tolist() == hits.scores.tolist()


@settings(max_examples=10, deadline=None)
@given(metric=st.sampled_from(METRICS), several=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_with_a_graph_hits_are_live_inside_and_rightly_scored(metric: Metric, several: bool, seed: int) -> None:
    slab = Slab(dims=5, metric=metric, hnsw_threshold=0, columns=COLUMNS)
    writing = Writing(slab, model := Model(metric), seed, 5, several=several)
    for _ in range(8):
        writing.step(30)
        assert slab.wait(60)
        assert_holds(slab.view, model)
        query = writing.random.integers(-1, 2, 5)
        inside = set(np.flatnonzero(writing.random.random(40) < 0.7).tolist())
        # So few rows that the graph's candidates are all of them.
        assert_answers(slab.view, model, query, 5, None)
        assert_answers(slab.view, model, query, 5, inside)


def test_equal_scores_are_ordered_by_row_id_and_none_is_cut_off() -> None:
    slab = Slab(dims=4)
    ids = np.random.default_rng(0).permutation(5000)
    slab.apply(block(np.tile(np.array([1, 0, 0, 0], "<f2"), (5000, 1)), seq=0, ids=ids))
    assert slab.view.search([1, 0, 0, 0], 20).ids.tolist() == list(range(20))
    assert slab.view.search([0, 1, 0, 0], 20).ids.tolist() == list(range(20))
    mask = slab.view.ids % 7 == 3
    assert slab.view.search([1, 0, 0, 0], 20, mask=mask).ids.tolist() == list(range(3, 143, 7))


def test_an_item_of_many_vectors_crowds_nobody_out() -> None:
    near = np.tile(np.array([1, 0.01], "<f2"), (3000, 1))
    others = np.stack([np.array([0.5, 0.5 - n / 100], "<f2") for n in range(20)])
    slab = Slab(dims=2, metric="inner_product")
    slab.apply(block(np.concatenate((near, others)), seq=0, ids=range(1, 22), owners=[*[0] * 3000, *range(1, 21)]))
    hits = slab.view.search([1, 0.5], 10)
    assert hits.ids.tolist() == list(range(1, 11))


def test_vectors_of_another_size_are_refused_and_nothing_changes() -> None:
    slab = filled(np.eye(4, dtype="<f2"), threshold=10**9)
    with pytest.raises(InvalidInput, match="embedder"):
        slab.apply(block(np.ones((2, 3)), seq=9, ids=[1, 2]))
    assert slab.applied_seq == 0
    assert slab.view.live.all()


def test_only_its_columns_changed_and_an_item_keeps_its_place() -> None:
    slab = Slab(dims=2, columns=COLUMNS)
    slab.apply(block(np.eye(2), seq=1, ids=[5, 6], expires=[10, 20]))
    before = slab.view
    slab.apply(block([[1.0, 0.0]], seq=2, ids=[5], expires=[99]))
    assert slab.view.dead == 0
    assert slab.view.columns["expires"].tolist() == [99, 20]
    assert slab.view.seqs.tolist() == [2, 1]
    assert before.columns["expires"].tolist() == [10, 20]
    assert before.seqs.tolist() == [1, 1]


@pytest.mark.parametrize(("rows", "dead"), [(1000, 200), (100, 63)])
def test_a_slab_is_worn_when_more_than_a_fifth_of_its_rows_are_dead(rows: int, dead: int) -> None:
    slab = filled(Topics(rows, 8).codes, threshold=10**9)
    slab.apply(block(seq=1, removed=range(dead)))
    assert not slab.worn
    slab.apply(block(seq=2, removed=[dead]))
    assert slab.worn


def test_everything_removed_leaves_a_slab_that_finds_nothing_and_takes_new_rows() -> None:
    slab = filled(Topics(300, 8).codes, threshold=100)
    slab.apply(block(seq=1, removed=range(300)))
    assert len(slab.view.search(np.ones(8), 5)) == 0
    slab.apply(block(Topics(300, 8, seed=1).codes, seq=2))
    assert slab.wait(60)
    assert len(slab.view.search(np.ones(8), 5)) == 5


def test_what_a_slab_weighs_grows_with_what_it_holds() -> None:
    topics = Topics(4000, 16)
    slab = Slab(dims=16, hnsw_threshold=50_000)
    empty = slab.nbytes
    slab.apply(block(topics.codes[:3000], seq=0))
    flat = slab.nbytes
    assert flat >= empty + 3000 * 2 * 16
    slab.apply(block(topics.codes[3000:], seq=1, ids=np.arange(3000, 4000)))
    assert slab.wait(60)
    assert slab.view.graph is not None
    assert slab.nbytes >= 4000 * (2 * 16 + 64 * 4)


# -- beside each other -------------------------------------------------------------------------------------------------


def hold_up(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[threading.Event, threading.Event]:
    """Makes the worker stop before `hnsw.<name>`: it says that it is there, and waits until it may go on."""
    there, go = threading.Event(), threading.Event()
    real = getattr(slab_module.hnsw, name)

    def waiting(*args: Any, **kwargs: Any) -> Any:
        there.set()
        assert go.wait(60)
        return real(*args, **kwargs)

    monkeypatch.setattr(slab_module.hnsw, name, waiting)
    return there, go


def test_while_a_graph_is_built_writes_go_on_and_answers_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(3000, 16)
    there, go = hold_up(monkeypatch, "build")
    slab = Slab(dims=16, hnsw_threshold=20_000)
    slab.apply(block(topics.codes[:2000], seq=0))
    assert there.wait(60)
    assert not slab.wait(0.0)
    slab.apply(block(topics.codes[2000:], seq=1, ids=np.arange(2000, 3000), removed=range(100)))
    hits = slab.view.search(topics.vectors[2500], 10)
    assert hits.plan.way == "scan"
    assert hits.ids[0] == 2500
    go.set()
    assert slab.wait(60)
    view = slab.view
    assert view.graph is not None
    assert view.graph.seen == 3000
    live = np.arange(3000) >= 100
    recall, ways = recalls(view, topics.codes, topics.queries(50)[0], live=live)
    assert recall.mean() == 1.0
    assert "hnsw" in ways


def test_a_graph_lets_go_of_vectors_that_moved_when_others_followed() -> None:
    topics = Topics(2010, 16)
    slab = filled(topics.codes[:2000], threshold=20_000)
    slab.dump_graph()
    # The memory that they lie in, of which a view has a part.
    before = ref(np.asarray(slab.view.codes).base)
    slab.apply(block(topics.codes[2000:], seq=1, ids=np.arange(2000, 2010)))
    assert slab.wait(60)
    gc.collect()
    assert before() is None
    assert not slab.graph_unsaved
    assert slab.view.graph is not None
    assert slab.view.graph.seen == 2000
    recall, ways = recalls(slab.view, topics.codes, topics.queries(50)[0])
    assert recall.mean() == 1.0
    assert "hnsw" in ways


def test_closing_ends_a_build_and_views_stay_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(3000, 8)
    there, go = hold_up(monkeypatch, "build")
    slab = Slab(dims=8, hnsw_threshold=1000)
    slab.apply(block(topics.codes, seq=0))
    assert there.wait(60)
    view = slab.view
    closing = threading.Thread(target=slab.close)
    closing.start()
    go.set()
    closing.join(60)
    assert not closing.is_alive()
    assert slab.view.graph is None
    slab.apply(block(topics.codes[:1], seq=1, ids=[9000]))
    assert slab.wait(0.0)
    assert view.search(topics.vectors[17], 1).ids.tolist() == [17]


def test_waiting_begins_before_the_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start
    problems: list[BaseException] = []

    def wait() -> None:
        try:
            slab.wait(0.0)
        except RuntimeError as problem:
            problems.append(problem)

    def start(thread: threading.Thread) -> None:
        if thread.name == "memlayer-graph":
            waiting = threading.Thread(target=wait)
            real(waiting)
            # It either waits for the write to end or is done.
            waiting.join(0.2)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    slab = Slab(dims=8, hnsw_threshold=100)
    slab.apply(block(Topics(300, 8).codes, seq=0))
    assert slab.wait(60)
    assert problems == []
    assert slab.view.graph is not None


@pytest.mark.parametrize("threshold", [10**9, 6000])
def test_readers_and_a_writer_at_once(threshold: int) -> None:
    topics = Topics(4000, 12, seed=3)
    slab = Slab(dims=12, hnsw_threshold=threshold, columns=COLUMNS)
    slab.apply(block(topics.codes[:500], seq=0, expires=[0] * 500))
    done = threading.Event()
    codes32 = topics.codes.astype(np.float32)

    def write() -> None:
        random = np.random.default_rng(1)
        try:
            for step in range(1, 71):
                fresh = np.arange(450 + step * 50, 500 + step * 50)
                again = random.choice(450 + step * 50, 10, replace=False)
                gone = np.setdiff1d(random.choice(450 + step * 50, 20, replace=False), again)
                ids = np.concatenate((fresh, again))
                written = block(
                    topics.codes[ids], seq=step, ids=ids, removed=gone.tolist(), expires=[step] * len(ids)
                )  # fmt: skip
                slab.apply(written)
        finally:
            done.set()

    def read(seed: int) -> int:
        random = np.random.default_rng(seed)
        searches = 0
        while not done.is_set() or searches < 20:
            view = slab.view
            copy = frozen_copy(view)
            query = topics.vectors[random.integers(4000)]
            mask = random.random(len(view)) < 0.8
            for inside in (None, mask):
                hits = view.search(query, 5, mask=inside)
                assert len(hits) == 5
                np.testing.assert_allclose(hits.scores, codes32[hits.ids] @ query, atol=1e-3)
                scores = codes32[view.ids] @ query
                inside = view.live if inside is None else view.live & inside
                assert inside[hits.slots].all()
                if hits.plan.way != "hnsw":
                    np.testing.assert_allclose(hits.scores, np.sort(scores[inside])[::-1][:5], atol=1e-3)
            for name, now in frozen_copy(view).items():
                np.testing.assert_array_equal(now, copy[name], err_msg=name)
            searches += 1
        return searches

    with ThreadPoolExecutor(5) as pool:
        readers = [pool.submit(read, seed) for seed in range(4)]
        pool.submit(write).result(120)
        assert all(reader.result(120) >= 20 for reader in readers)
    assert slab.wait(60)
    assert slab.applied_seq == 70
    assert (slab.view.graph is not None) == (threshold == 6000)
    live = np.zeros(4000, np.bool_)
    live[slab.view.ids[slab.view.live]] = True
    assert recalls(slab.view, topics.codes, topics.queries(50)[0], live=live)[0].mean() >= 0.99


def _searched_in_child(codes: NDArray[np.float16], query: NDArray[np.float32], answers: Any) -> None:
    fresh = filled(codes, threshold=codes.size // 2)
    hits = fresh.view.search(query, 10)
    answers.send((hits.ids.tolist(), hits.plan.way))
    answers.close()


def test_a_forked_child_builds_and_searches_slabs_of_its_own() -> None:
    topics = Topics(3000, 16)
    parent = filled(topics.codes, threshold=topics.codes.size // 2)
    expected = parent.view.search(topics.vectors[8], 10).ids.tolist()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_searched_in_child, args=(topics.codes, topics.vectors[8], theirs))
    child.start()
    assert ours.poll(60)
    assert ours.recv() == (expected, "hnsw")
    child.join(60)
    assert child.exitcode == 0


def test_a_slab_that_reads_its_vectors_answers_as_one_that_holds_them() -> None:
    random, written = np.random.default_rng(5), dict[int, NDArray[np.float16]]()
    slabs = Slab(dims=4), Slab(dims=4, read=lambda ids: {item: written[item].tobytes() for item in ids})
    for seq in range(12):
        ids = random.permutation(60)[:20]
        for item in ids.tolist():
            written.setdefault(item, random.standard_normal((random.integers(0, 3) if seq % 2 else 1, 4)).astype("<f2"))
        owners = np.repeat(np.arange(20), [len(written[item]) for item in ids.tolist()])
        codes = np.concatenate([written[item] for item in ids.tolist()])
        made = block(codes, seq=seq, ids=ids, owners=owners, removed=np.setdiff1d(random.permutation(60)[:5], ids))
        slabs[0].apply(made)
        slabs[1].apply(replace(made, vector_bytes=b""))
        holding, reading = (slab.view for slab in slabs)
        assert (holding.held, reading.held) == (True, False)
        assert holding.ids.tolist() == reading.ids.tolist()
        for query in random.standard_normal((5, 4)):
            for mask in (None, random.random(len(holding)) < 0.4, np.zeros(len(holding), bool)):
                hits, others = holding.search(query, 7, mask=mask), reading.search(query, 7, mask=mask)
                assert hits.ids.tolist() == others.ids.tolist()
                assert hits.scores.tolist() == others.scores.tolist()
            slots = np.flatnonzero(holding.live)
            assert np.array_equal(holding.scores(query, slots), reading.scores(query, slots), equal_nan=True)
    for item in written:
        written[item] = written[item][:0]
    # What is gone from the journal is as far from everything as nothing is; whoever shows it reads it again.
    assert not reading.search(np.ones(4), 3).scores.any()
