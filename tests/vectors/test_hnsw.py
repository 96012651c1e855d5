from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from slabs import METRICS, Topics, block, filled, recalls

from langchain_memlayer.index.hnsw import Nodes, checksums, restore
from langchain_memlayer.index.kernel import kernel_for
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.types import Metric


def recall_at_10(
    codes: NDArray[np.float16], queries: NDArray[np.float32], metric: Metric, *, threshold: int | None = None
) -> tuple[NDArray[np.float64], Counter[str]]:
    """How much of the exact ten the graph finds; a row as near as the tenth is as good."""
    view = filled(codes, threshold=codes.size - 1 if threshold is None else threshold, metric=metric).view
    assert view.graph is not None
    codes32, out, ways = codes.astype(np.float32), [], Counter[str]()
    for query in queries:
        scores = codes32 @ query if metric != "euclidean" else -np.linalg.norm(codes32 - query, axis=1)
        hits = view.search(query, 10)
        out.append(float((scores[hits.ids] >= np.sort(scores)[-10] - 1e-4).sum()) / 10)
        ways[hits.plan.way] += 1
    return np.array(out), ways


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "varied"), [*((m, False) for m in METRICS), *((m, True) for m in METRICS[1:])])
def test_recall_at_20_000_rows_of_one_length_and_of_many(metric: Metric, varied: bool) -> None:
    topics = Topics(20_000, 48, seed=5)
    lengths = np.random.default_rng(0).lognormal(0, 0.5, (20_000, 1)) if varied else 1
    recall, ways = recall_at_10((topics.vectors * lengths).astype("<f2"), topics.queries(1000)[0], metric)
    assert ways == {"hnsw": 1000}
    assert recall.mean() >= 0.99
    assert (recall < 0.5).sum() == 0


@pytest.mark.slow
@pytest.mark.parametrize(("different", "copies"), [(1, 6000), (5, 1000), (20, 200), (100, 70), (2000, 5)])
@pytest.mark.parametrize("noise", [0.0, 2e-4])
def test_many_equal_vectors_are_no_trap(different: int, copies: int, noise: float) -> None:
    # More equal rows than a node has links would link to each other only.
    random = np.random.default_rng(1)
    topics = Topics(20_000, 32, seed=5)
    places = random.permutation(20_000)[: different * copies]
    vectors = topics.vectors.copy()
    vectors[places] = np.repeat(vectors[places[:different]], copies, axis=0)
    vectors[places] += random.standard_normal((len(places), 32)) * noise
    queries = np.concatenate((topics.queries(400)[0], vectors[random.choice(places, 100)]))
    recall, ways = recall_at_10(vectors.astype("<f2"), queries, "cosine")
    assert recall.mean() >= 0.99
    assert (recall < 0.5).sum() == 0
    assert ways["hnsw"] >= 400


def test_of_equal_rows_few_are_nodes_and_all_are_found() -> None:
    topics = Topics(1000, 8, seed=2)
    codes = topics.codes[np.arange(3000) % 60]
    slab = filled(codes, threshold=0)
    graph = slab.view.graph
    assert graph is not None
    assert (graph.seen, len(graph.nodes)) == (3000, 480)
    hits = slab.view.search(codes[7].astype(np.float32), 5)
    assert hits.plan.way == "hnsw"
    assert hits.ids.tolist() == [7, 67, 127, 187, 247]
    # Growing the graph adds copies of old nodes and new nodes, and the old ones keep their places.
    more = np.concatenate((topics.codes[:30], topics.codes[600:900]))
    slab.apply(block(more, seq=1, ids=np.arange(3000, 3330)))
    slab.apply(block(topics.codes[300:600], seq=2, ids=np.arange(3330, 3630)))
    assert slab.wait(60)
    grown = slab.view.graph
    assert grown is not None
    assert (grown.seen, len(grown.nodes)) == (3630, 1080)
    hits = slab.view.search(codes[7].astype(np.float32), 51)
    assert hits.ids.tolist() == [*range(7, 3000, 60), 3007]
    assert slab.view.search(topics.vectors[650], 1).ids.tolist() == [3080]
    # A copy that is removed leaves the others.
    slab.apply(block(seq=3, removed=[7, 127]))
    assert slab.view.search(codes[7].astype(np.float32), 3).ids.tolist() == [67, 187, 247]


def test_where_few_are_equal_the_codes_are_not_copied() -> None:
    codes = Topics(600, 8, seed=2).codes[np.arange(1200) % 600]
    graph = filled(codes, threshold=0).view.graph
    assert graph is not None
    assert graph.nodes.members is None
    again = restore(kernel_for(8, "cosine"), np.concatenate((codes, codes[:50])), *graph.dumped())
    assert (again.nodes.members, again.seen) == (None, 1200)


@pytest.mark.parametrize("dims", [1, 3, 4, 64, 384])
def test_checksums_tell_codes_apart_that_differ_in_little(dims: int) -> None:
    random = np.random.default_rng(dims)
    values = np.arange(0x10000, dtype=np.uint16).view(np.float16)
    one_hot = np.zeros((min(dims, 400) * 3, dims), np.float16)
    one_hot[np.arange(len(one_hot)), np.arange(len(one_hot)) % dims] = np.repeat([1.0, 0.5, -1.0], dims)[: len(one_hot)]
    sparse = random.integers(-1, 2, (20_000, dims)).astype(np.float16)
    single = np.zeros((len(values), dims), np.float16)
    single[:, -1] = values
    for codes in (one_hot, sparse, single):
        assert len(np.unique(checksums(codes))) == len(set(map(bytes, codes)))
    np.testing.assert_array_equal(checksums(sparse[::2]), checksums(sparse)[::2])


def test_nodes_of_more_rows_begin_with_those_of_fewer() -> None:
    sums = np.random.default_rng(3).integers(0, 20, 200).astype(np.uint64)
    known = Nodes.of(sums[:0])
    for rows in range(1, 201):
        nodes = Nodes.of(sums[:rows], known.sums)
        assert nodes.sums[: len(known)].tolist() == known.sums.tolist()
        assert (
            len(set(nodes.sums.tolist()))
            == len(nodes)
            == sum(min(8, n) for n in Counter(sums[:rows].tolist()).values())
        )
        every, places = nodes.spread(np.arange(len(nodes)), np.arange(len(nodes), dtype=np.float32))
        assert sorted(every.tolist()) == list(range(rows))
        of_node = dict(zip(places.tolist(), sums[every].tolist(), strict=True))
        assert [of_node[place] for place in places.tolist()] == sums[every].tolist()
        known = nodes


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_forgetting_whole_topics_hides_nothing_else(share: float) -> None:
    topics = Topics(20_000, 32, seed=10)
    slab = Slab(dims=32, hnsw_threshold=topics.codes.size // 2)
    slab.apply(block(topics.codes, seq=0))
    assert slab.wait(120)
    gone = np.isin(topics.topic, np.arange(round(200 * share)))
    slab.apply(block(seq=1, removed=np.flatnonzero(gone).tolist()))
    # Half of the queries are about what was forgotten.
    queries = np.concatenate((topics.queries(200)[0], topics.near(np.arange(200) % round(200 * share))))
    recall, ways = recalls(slab.view, topics.codes, queries, live=~gone)
    assert recall.mean() >= 0.98
    assert (recall < 0.5).sum() == 0
    assert "hnsw" in ways or share == 0.5
