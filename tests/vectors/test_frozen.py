import gc
import threading
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slabs import METRICS, Topics, block, exact_scores, filled, recalls

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index import hnsw
from langchain_memlayer.index.growing import Growing
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.types import Metric, SlabBlock

ROWS, DIMS = 2000, 12


@pytest.fixture(scope="module")
def topics() -> Topics:
    return Topics(ROWS + 500, DIMS, seed=1)


@pytest.fixture(scope="module")
def graph(topics: Topics) -> tuple[bytes, dict[str, Any]]:
    """The graph of the first 2000 rows, as it is saved."""
    return dumped(filled(topics.codes[:ROWS], threshold=ROWS * DIMS // 2))


@pytest.fixture(scope="module")
def small(topics: Topics) -> tuple[bytes, dict[str, Any]]:
    """That of 300 rows."""
    return dumped(filled(topics.codes[:300], threshold=0))


def flat(rows: SlabBlock, dims: int = DIMS, metric: Metric = "cosine") -> Slab:
    """A slab that has no graph."""
    slab = Slab(dims=dims, metric=metric, hnsw_threshold=10**9)
    slab.apply(rows)
    return slab


def dumped(slab: Slab) -> tuple[bytes, dict[str, Any]]:
    graph = slab.dump_graph()
    assert graph is not None
    return graph


def loaded(payload: bytes, meta: dict[str, Any], *blocks: SlabBlock, metric: Metric = "cosine") -> Slab:
    slab = Slab(dims=DIMS, metric=metric, hnsw_threshold=ROWS * DIMS // 2)
    for each in blocks:
        slab.apply(each, upkeep=False)
    slab.load_graph(payload, meta)
    assert slab.wait(60)
    return slab


def refused(slab: Slab, payload: bytes, meta: dict[str, Any]) -> None:
    before = slab.view
    with pytest.raises(SnapshotError, match="rebuilt"):
        slab.load_graph(payload, meta)
    assert slab.view is before


@pytest.mark.parametrize("metric", METRICS)
def test_a_loaded_graph_gives_the_same_answers(topics: Topics, metric: Metric) -> None:
    rows = block(topics.codes[:ROWS], seq=0)
    slab = filled(topics.codes[:ROWS], threshold=ROWS * DIMS // 2, metric=metric)
    assert slab.graph_unsaved
    again = loaded(*dumped(slab), rows, metric=metric)
    assert not slab.graph_unsaved
    assert not again.graph_unsaved
    assert filled(topics.codes[:10], threshold=10**9).dump_graph() is None
    assert again.view.graph is not None
    assert again.view.graph is not slab.view.graph
    for query in topics.queries(50)[0]:
        old, new = slab.view.search(query, 20), again.view.search(query, 20)
        assert (old.ids.tolist(), old.scores.tolist(), old.plan) == (new.ids.tolist(), new.scores.tolist(), new.plan)
        assert old.plan.way == "hnsw"
    assert dumped(again) == dumped(slab)


def test_only_links_and_names_of_rows_are_written(graph: Any) -> None:
    # 64 links of four bytes on the ground, a thirty-second more above; level and checksum.
    assert len(graph[0]) < ROWS * (64 * 4 * 1.1 + 12)


def test_a_dumped_graph_is_not_held_when_another_follows(topics: Topics) -> None:
    slab = filled(topics.codes[:1500], threshold=ROWS * DIMS // 2)
    dumped(slab)
    before = ref(slab.view.graph)
    slab.apply(block(topics.codes[1500:], seq=1, ids=np.arange(1500, len(topics.codes))))
    assert slab.wait(60)
    gc.collect()
    assert before() is None
    assert slab.graph_unsaved


def test_room_asked_ahead_is_what_rows_are_taken_from() -> None:
    column = Growing(np.dtype(np.int64))
    column.ahead(100)[:] = np.arange(100)
    room = column.ahead(100)
    column.extend(room)
    column.extend(np.arange(100, 110))
    assert column.used.tolist() == list(range(110))
    assert np.shares_memory(column.used, room)


def test_rows_written_since_are_the_delta_and_rows_gone_since_tombstones(topics: Topics, graph: Any) -> None:
    gone, changed = np.arange(0, ROWS, 11), np.arange(1, ROWS, 23)
    changed = np.setdiff1d(changed, gone)
    codes = topics.codes.copy()
    codes[changed] = Topics(len(changed), DIMS, seed=77).codes
    here = np.setdiff1d(np.arange(ROWS + 100), gone)
    again = loaded(*graph, block(codes[here], seq=9, ids=here))
    view = again.view
    assert view.graph is not None
    assert (len(view.graph.nodes), view.dead) == (ROWS, 0)
    live = np.zeros(len(codes), np.bool_)
    live[here] = True
    queries = np.concatenate((topics.queries(50)[0], codes[changed].astype(np.float32), topics.vectors[ROWS:][:100]))
    recall, ways = recalls(view, codes, queries, live=live)
    assert recall.mean() >= 0.99
    assert "hnsw" in ways
    hits = view.search(topics.vectors[ROWS + 3], 1)
    assert (hits.ids.tolist(), hits.plan.scanned) == ([ROWS + 3], 100 + len(changed))
    # And it goes on: written, removed, grown, dumped and loaded once more.
    again.apply(block(codes[ROWS + 100 :], seq=10, ids=np.arange(ROWS + 100, ROWS + 500), removed=[5, 6]))
    assert again.wait(60)
    live[ROWS + 100 :] = True
    live[[5, 6]] = False
    assert recalls(again.view, codes, queries, live=live)[0].mean() >= 0.99
    here = np.flatnonzero(live)
    third = loaded(*dumped(again), block(codes[here], seq=10, ids=here))
    assert recalls(third.view, codes, queries, live=live)[0].mean() >= 0.99


def test_a_loaded_graph_takes_writes_of_the_items_it_holds(topics: Topics, graph: Any) -> None:
    again = loaded(*graph, block(topics.codes[:ROWS], seq=0))
    again.apply(block(topics.codes[ROWS : ROWS + 1], seq=1, ids=[7], removed=[8]))
    hits = again.view.search(topics.vectors[ROWS], 3)
    assert hits.ids[0] == 7
    assert hits.plan.way == "hnsw"
    assert 7 not in again.view.search(topics.vectors[7], 3).ids[:1]
    assert 8 not in again.view.search(topics.vectors[8], 3).ids


def test_items_whose_vectors_came_back_are_there_once(topics: Topics) -> None:
    slab = filled(topics.codes[:ROWS], threshold=ROWS * DIMS // 2)
    slab.apply(block(topics.codes[ROWS : ROWS + 10], seq=1, ids=range(10)))
    slab.apply(block(topics.codes[:10], seq=2, ids=range(10)))
    more = topics.codes[ROWS : ROWS + 500]
    slab.apply(block(more, seq=3, ids=np.arange(ROWS, ROWS + 500)))
    assert slab.wait(60)
    graph = dumped(slab)
    again = loaded(*graph, block(topics.codes, seq=3))
    assert again.view.graph is not None
    # What was written twice is two nodes, one of which nobody is any more.
    assert (len(again.view.graph.nodes), len(again.view), again.view.dead) == (ROWS + 520, ROWS + 500, 0)
    found = again.view.search(topics.vectors[5], 50)
    assert (found.plan.way, found.ids[0]) == ("hnsw", 5)
    assert len(set(found.ids.tolist())) == 50


def test_a_graph_that_was_being_built_is_not_taken_for_the_rows_as_a_loaded_one_orders_them(
    topics: Topics, graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, go = threading.Event(), threading.Event()
    build = hnsw.build

    def waiting(*args: Any, **kwargs: Any) -> Any:
        there.set()
        assert go.wait(60)
        return build(*args, **kwargs)

    monkeypatch.setattr(hnsw, "build", waiting)
    order = np.random.default_rng(3).permutation(ROWS)
    slab = Slab(dims=DIMS, hnsw_threshold=ROWS * DIMS // 2)
    slab.apply(block(topics.codes[order], seq=0, ids=order))
    assert there.wait(60)
    slab.load_graph(*graph)
    go.set()
    assert slab.wait(60)
    recall, ways = recalls(slab.view, topics.codes[:ROWS], topics.queries(30)[0])
    assert (recall.min(), set(ways)) == (1.0, {"hnsw"})


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), several=st.booleans(), copies=st.booleans())
def test_after_any_changes_a_loaded_graph_tells_no_lies(seed: int, several: bool, copies: bool) -> None:
    random = np.random.default_rng(seed)
    pool = Topics(400, DIMS, seed=seed).codes
    if copies:
        pool = pool[random.integers(0, 60, 400)]

    def written(ids: Any, codes: dict[int, Any], seq: int) -> SlabBlock:
        parts = [codes[item] for item in ids]
        owners = np.repeat(np.arange(len(ids)), [len(part) for part in parts])
        return block(np.concatenate(parts), seq=seq, ids=ids, owners=owners)

    def some() -> Any:
        return pool[random.integers(0, 400, int(random.integers(0, 4)) if several else 1)]

    held = {item: some() for item in random.permutation(300).tolist()}
    first = Slab(dims=DIMS, hnsw_threshold=0)
    first.apply(written(list(held), held, 0))
    first.wait(60)
    graph = first.dump_graph()
    assert graph is not None
    for item in random.choice(300, random.integers(0, 25), replace=False).tolist():
        del held[item]
    for item in random.choice(list(held), random.integers(0, 25), replace=False).tolist():
        held[item] = some()
    held |= {1000 + number: some() for number in range(random.integers(0, 60))}
    again = Slab(dims=DIMS, hnsw_threshold=0)
    again.apply(written(random.permutation(list(held)).tolist(), held, 5), upkeep=False)
    try:
        again.load_graph(*graph)
    except SnapshotError:
        again.keep_up()
    for _ in range(2):
        view = again.view
        assert sorted(view.ids[view.live].tolist()) == sorted(held)
        for query in Topics(5, DIMS, seed=seed + 1).vectors:
            hits = view.search(query, 10)
            scores = {i: float(exact_scores(c, query, "cosine").max()) for i, c in held.items() if len(c)}
            assert hits.scores.tolist() == pytest.approx([scores[item] for item in hits.ids.tolist()], abs=1e-3)
            best = sorted(scores.values(), reverse=True)[:10]
            assert hits.scores.tolist() == pytest.approx(best, abs=1e-3)
        again.wait(60)


def test_a_graph_of_other_rows_is_refused(topics: Topics, graph: Any) -> None:
    for rows in (
        block(seq=0),
        block(Topics(ROWS, DIMS, seed=5).codes, seq=0),
        block(topics.codes[: ROWS * 4 // 5 - 1], seq=0),
    ):
        refused(flat(rows), *graph)


def test_four_fifths_known_are_enough(topics: Topics, graph: Any) -> None:
    enough = Slab(dims=DIMS, hnsw_threshold=0)
    enough.apply(block(topics.codes[: ROWS * 4 // 5], seq=0), upkeep=False)
    enough.load_graph(*graph)
    assert enough.view.graph is not None


@pytest.mark.parametrize(("dims", "metric"), [(DIMS, "euclidean"), (DIMS, "inner_product"), (DIMS + 4, "cosine")])
def test_a_graph_of_another_kind_is_refused(graph: Any, dims: int, metric: Metric) -> None:
    refused(flat(block(Topics(ROWS, dims).codes, seq=0), dims, metric), *graph)
    with pytest.raises(SnapshotError, match="without vectors"):
        Slab(dims=None).load_graph(*graph)


@pytest.mark.parametrize("name", ["nodes", "links", "entry", "top", "dims", "metric", "kind", "format"])
def test_a_changed_meta_is_refused(topics: Topics, small: Any, name: str) -> None:
    payload, meta = small
    for value in (None, -1, 0, 1, 10**6, 2**39, 2**70, 1.5, True, "12", [1]):
        slab = flat(block(topics.codes[:300], seq=0))
        same = meta[name] == value and type(value) is type(meta[name])
        if same or (name == "entry" and meta["top"] == 0 and type(value) is int and value in (0, 1)):
            slab.load_graph(payload, {**meta, name: value})
        else:
            refused(slab, payload, {**meta, name: value})
    refused(flat(block(topics.codes[:300], seq=0)), payload, {key: meta[key] for key in meta if key != name})


def test_a_cut_payload_is_refused(topics: Topics, small: Any) -> None:
    payload, meta = small
    slab = flat(block(topics.codes[:300], seq=0))
    for cut in (0, 1, 100, -1, -8, -1000):
        refused(slab, payload[:cut], meta)
    refused(slab, payload + b"\0", meta)


def test_damage_is_refused_or_harmless(topics: Topics, small: Any) -> None:
    # Whatever stands in the payload, nothing outside of the arrays is read and no hit is wrong.
    payload, meta = small
    random = np.random.default_rng(0)
    accepted = 0
    for _ in range(300):
        damaged = bytearray(payload)
        start = int(random.integers(len(payload)))
        size = int(random.choice([1, 4, 64, 4096]))
        damaged[start : start + size] = random.bytes(min(size, len(payload) - start))
        slab = Slab(dims=DIMS, hnsw_threshold=0)
        slab.apply(block(topics.codes[:300], seq=0), upkeep=False)
        try:
            slab.load_graph(bytes(damaged), meta)
        except SnapshotError:
            continue
        accepted += 1
        for query in topics.vectors[:3]:
            hits = slab.view.search(query, 10)
            assert len(set(hits.ids.tolist())) == len(hits) == 10
            exact = topics.codes[hits.ids].astype(np.float32) @ query
            np.testing.assert_allclose(hits.scores, exact, atol=1e-3)
        slab.close()
    assert accepted < 300


def test_a_slab_saves_its_graph_when_it_is_new_and_when_it_has_grown(topics: Topics) -> None:
    saved: list[int] = []

    def save(slab: Slab) -> None:
        assert slab.dump_graph() is not None
        slab.note_saved(len(slab.view))
        graph = slab.view.graph
        saved.append(0 if graph is None else graph.seen)

    big = Topics(8000, DIMS, seed=3)
    slab = Slab(dims=DIMS, hnsw_threshold=20_000, save=save)
    # Grown by a tenth and not yet a sixth, it is saved when it closes only.
    for seq, (start, end, expected) in enumerate(
        [(0, 6000, [6000]), (6000, 6550, [6000]), (6550, 7100, [6000, 7100]), (7100, 7650, [6000, 7100])]
    ):
        slab.apply(block(big.codes[start:end], seq=seq, ids=np.arange(start, end)))
        assert slab.wait(60)
        assert saved == expected
    for _ in range(2):
        slab.close()
        assert saved == [6000, 7100, 7650]


def test_a_save_that_could_not_be_made_is_not_tried_over_and_over(topics: Topics) -> None:
    tries: list[int] = []
    slab = Slab(dims=DIMS, hnsw_threshold=1000, save=lambda slab: tries.append(1))
    slab.apply(block(topics.codes[:ROWS], seq=0))
    assert slab.wait(60)
    assert tries == [1]
    slab.close()
    assert tries == [1, 1]
