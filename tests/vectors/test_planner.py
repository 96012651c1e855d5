from typing import Any

import numpy as np
import pytest
from slabs import Topics, block, filled

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.index.view import Plan, candidates, choose, exact_way

MEASURED = 4_000_000


def chosen(rows: int, matches: int, *, dims: int = 100, k: int = 10, threshold: int = MEASURED) -> str:
    breadth = candidates(rows, matches, k)[0]
    return choose(rows=rows, dims=dims, matches=matches, breadth=breadth, threshold=threshold)


@pytest.mark.parametrize(
    ("matches", "way"), [(0, "empty"), (1, "gather"), (200, "gather"), (201, "scan"), (1000, "scan")]
)
def test_more_than_a_fifth_is_scanned_with_a_mask_and_less_gathered(matches: int, way: str) -> None:
    assert exact_way(1000, matches) == chosen(1000, matches) == way


def test_when_a_graph_is_used() -> None:
    # Above the threshold only.
    assert [chosen(40_000, 40_000), chosen(40_001, 40_001)] == ["scan", "hnsw"]
    # Up to a million elements are gathered though there is a graph; a higher threshold does not raise that limit.
    assert [chosen(100_000, matches) for matches in (0, 10_000, 10_001)] == ["empty", "gather", "hnsw"]
    assert chosen(1_000_000, 10_001, threshold=40_000_000) == "hnsw"
    # So many hits that the graph costs more than a scan are scanned.
    assert [chosen(100_000, 50_000, k=k) for k in (390, 391)] == ["hnsw", "scan"]
    # Never with the fewest candidates, however small the slab.
    assert chosen(500, 500, dims=8, threshold=0) == "hnsw"


@pytest.mark.parametrize(
    ("rows", "k", "breadth"),
    [(100_000, 1, 128), (100_000, 32, 128), (100_000, 33, 132), (200_000, 10, 128), (200_001, 10, 256),
     (200_001, 64, 256), (200_001, 65, 260)],
)  # fmt: skip
def test_how_many_candidates_a_graph_is_asked_for(rows: int, k: int, breadth: int) -> None:
    assert candidates(rows, rows // 2, k)[0] == breadth
    # Where nearly all is kept, half as many beyond the fewest.
    assert candidates(rows, rows * 9 // 10 + 1, 2 * k)[0] == breadth
    # How many survivors are enough.
    assert candidates(rows, rows // 2, k)[1] == max(2 * k, breadth // 4)
    assert candidates(100_000, 100_000, 200) == (400, 300)


# -- what searches report ----------------------------------------------------------------------------------------------

ROWS, DIMS = 3000, 16


@pytest.fixture(scope="module")
def topics() -> Topics:
    return Topics(ROWS, DIMS, seed=1)


@pytest.fixture(scope="module")
def graphed(topics: Topics) -> Slab:
    return filled(topics.codes, threshold=ROWS * DIMS - 1)


def share(count: int) -> np.ndarray:
    """A mask of `count` positions spread evenly."""
    mask = np.zeros(ROWS, np.bool_)
    mask[np.linspace(0, ROWS - 1, count).astype(int)] = True
    assert mask.sum() == count
    return mask


def test_a_slab_at_the_threshold_is_scanned(topics: Topics) -> None:
    slab = filled(topics.codes, threshold=ROWS * DIMS)
    assert slab.view.graph is None
    assert slab.view.search(topics.vectors[0], 10).plan == Plan("scan", scanned=ROWS)
    assert slab.view.search(topics.vectors[0], 10, mask=share(601)).plan == Plan("scan", scanned=ROWS)
    assert slab.view.search(topics.vectors[0], 10, mask=share(600)).plan == Plan("gather", scanned=600)
    assert slab.view.search(topics.vectors[0], 10, mask=share(1)).plan == Plan("gather", scanned=1)


def test_a_slab_above_the_threshold_goes_through_its_graph(topics: Topics, graphed: Slab) -> None:
    def plan(k: int = 10, mask: Any = None, slab: Slab = graphed) -> Plan:
        return slab.view.search(topics.vectors[0], k, mask=mask).plan

    assert plan() == Plan("hnsw", scanned=0, candidates=128, survivors=128)
    assert plan(80) == Plan("hnsw", candidates=160, survivors=160)
    # Nothing to find is told as empty.
    assert plan(mask=np.zeros(ROWS, np.bool_)) == plan(slab=Slab(dims=DIMS)) == Plan("empty")


@pytest.mark.parametrize(("survivors", "k"), [(31, 10), (32, 10), (39, 20), (40, 20)])
def test_too_few_survivors_mean_an_exact_search(topics: Topics, graphed: Slab, survivors: int, k: int) -> None:
    view, query = graphed.view, topics.vectors[7]
    assert view.graph is not None
    kernel = view.kernel
    assert kernel is not None
    near = view.graph.search(kernel.prepare(query), 128)[0]
    mask = np.ones(ROWS, np.bool_)
    mask[near[survivors:]] = False
    hits = view.search(query, k, mask=mask)
    if survivors >= max(2 * k, 32):
        assert hits.plan == Plan("hnsw", candidates=128, survivors=survivors)
    else:
        assert hits.plan == Plan("scan", scanned=ROWS, candidates=128, survivors=survivors, fell_back=True)
    scores = np.where(mask, topics.codes.astype(np.float32) @ query, -np.inf)
    assert hits.ids.tolist() == np.argsort(-scores, kind="stable")[:k].tolist()


def test_falling_back_to_few_matches_gathers_them(topics: Topics) -> None:
    # No gather limit: with a threshold of 0 everything goes to the graph first.
    slab = filled(topics.codes, threshold=0)
    query = topics.vectors[7]
    scores = topics.codes.astype(np.float32) @ query
    mask = np.zeros(ROWS, np.bool_)
    mask[np.argsort(scores)[:600]] = True
    hits = slab.view.search(query, 10, mask=mask)
    assert hits.plan == Plan("gather", scanned=600, candidates=128, survivors=0, fell_back=True)
    assert hits.ids.tolist() == np.argsort(-np.where(mask, scores, -np.inf))[:10].tolist()


def test_the_dead_are_no_survivors(topics: Topics) -> None:
    slab = filled(topics.codes, threshold=ROWS * DIMS // 2)
    query = topics.vectors[7]
    nearest = np.argsort(-(topics.codes.astype(np.float32) @ query))[:110]
    slab.apply(block(seq=1, removed=nearest.tolist()))
    hits = slab.view.search(query, 10)
    assert hits.plan.way == "scan"
    assert (hits.plan.candidates, hits.plan.fell_back) == (128, True)
    assert hits.plan.survivors < 32
    assert not set(hits.ids.tolist()) & set(nearest.tolist())


def test_rows_beside_the_graph_are_scanned_too(topics: Topics, graphed: Slab) -> None:
    slab = filled(topics.codes, threshold=ROWS * DIMS - 1)
    more = Topics(511, DIMS, seed=2)
    slab.apply(block(more.codes, seq=1, ids=np.arange(10_000, 10_511)))
    assert slab.wait(60)
    assert slab.view.graph is not None
    assert slab.view.graph.seen == ROWS
    hits = slab.view.search(more.vectors[3], 10)
    assert hits.plan == Plan("hnsw", scanned=511, candidates=128, survivors=128)
    assert hits.ids[0] == 10_003
    slab.apply(block(more.codes[:1], seq=2, ids=[20_000]))
    assert slab.wait(60)
    assert slab.view.graph.seen == ROWS + 512
    assert slab.view.search(more.vectors[3], 10).plan == Plan("hnsw", candidates=128, survivors=128)


def test_survivors_are_items_not_vectors(topics: Topics) -> None:
    # Each item has 12 vectors in one place: 128 candidates are about 11 items, too few for 10 hits.
    items = ROWS // 12
    base = np.repeat(topics.codes[:items], 12, axis=0)
    codes = (base.astype(np.float32) + np.random.default_rng(0).normal(0, 0.002, base.shape)).astype("<f2")
    slab = Slab(dims=DIMS, hnsw_threshold=ROWS * DIMS // 2)
    slab.apply(block(codes, seq=0, ids=np.arange(items), owners=np.repeat(np.arange(items), 12)))
    assert slab.wait(60)
    hits = slab.view.search(topics.vectors[7], 10)
    assert hits.plan.candidates == 128
    assert hits.plan.survivors < 32
    assert hits.plan.fell_back
    scores = (codes.astype(np.float32) @ topics.vectors[7]).reshape(items, 12).max(axis=1)
    assert hits.ids.tolist() == np.argsort(-scores)[:10].tolist()


def test_a_limit_below_one_and_a_mask_of_another_view_are_refused(graphed: Slab) -> None:
    for k in (0, -1):
        with pytest.raises(InvalidInput, match="at least 1"):
            graphed.view.search(np.ones(DIMS), k)
    with pytest.raises(InvalidInput, match="from this view"):
        graphed.view.search(np.ones(DIMS), 10, mask=np.ones(ROWS - 1, np.bool_))


def test_a_slab_without_vectors_says_how_to_get_them() -> None:
    slab = Slab(dims=None)
    slab.apply(block(seq=0, ids=[1, 2]))
    assert slab.view.slots(np.array([2, 3])).tolist() == [1, -1]
    with pytest.raises(InvalidInput, match="embedder"):
        slab.view.search([1.0], 1)
