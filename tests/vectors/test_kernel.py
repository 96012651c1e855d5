from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from slabs import METRICS, exact_scores

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index.kernel import Kernel
from langchain_memlayer.types import Metric


def integers(seed: int, rows: int, dims: int) -> NDArray[np.float16]:
    # Small whole numbers: float32 sums of their products are exact, so ties are ties.
    return np.random.default_rng(seed).integers(-3, 4, (rows, dims)).astype("<f2")


def seen(kernel: Kernel, raw: NDArray[np.float32]) -> list[float]:
    return np.sort(kernel.finish(raw).astype(np.float64))[::-1].tolist()


@settings(max_examples=80, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    dims=st.integers(1, 70),
    rows=st.integers(0, 150),
    k=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_way_of_scanning_gives_the_scores_of_numpy(
    metric: Metric, dims: int, rows: int, k: int, seed: int
) -> None:
    codes = integers(seed, rows, dims)
    random = np.random.default_rng(seed)
    query = random.integers(-3, 4, dims)
    keep = random.random(rows) < random.random()
    kernel = Kernel(dims=dims, metric=metric)
    vector = kernel.prepare(query)
    scores = exact_scores(codes, query, metric)

    np.testing.assert_allclose(kernel.finish(kernel.every(vector, codes)), scores, atol=2e-6, rtol=1e-6)
    for mask in (None, keep):
        inside = scores if mask is None else scores[mask]
        found, raw = kernel.top(vector, codes, k, mask)
        assert len(set(found.tolist())) == len(found) == min(k, len(inside))
        assert mask is None or mask[found].all()
        np.testing.assert_allclose(kernel.finish(raw), scores[found], atol=2e-6, rtol=1e-6)
        np.testing.assert_allclose(seen(kernel, raw), np.sort(inside)[::-1][:k], atol=2e-6, rtol=1e-6)
    places = np.flatnonzero(keep)
    found, raw = kernel.gather(vector, codes, places, k)
    assert set(found.tolist()) <= set(places.tolist())
    np.testing.assert_allclose(kernel.finish(raw), scores[found], atol=2e-6, rtol=1e-6)
    np.testing.assert_allclose(seen(kernel, raw), np.sort(scores[keep])[::-1][:k], atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [4095, 4096, 4097, 12_289])
def test_a_gather_of_several_chunks_names_the_right_rows(metric: Metric, count: int) -> None:
    codes = np.random.default_rng(count).uniform(-0.1, 0.1, (20_000, 3)).astype("<f2")
    rows = np.sort(np.random.default_rng(1).choice(20_000, count, replace=False))
    kernel = Kernel(dims=3, metric=metric)
    found, raw = kernel.gather(kernel.prepare([0.3, -1, 2]), codes, rows, 50)
    scores = exact_scores(codes, [0.3, -1, 2], metric)  # type: ignore[arg-type]
    assert set(found.tolist()) == set(rows[np.argsort(-scores[rows])[:50]].tolist())
    np.testing.assert_allclose(kernel.finish(raw), scores[found], rtol=1e-4, atol=1e-5)


def test_a_scan_reads_the_codes_where_they_lie_in_a_longer_buffer() -> None:
    buffer = integers(1, 500, 7)
    kernel = Kernel(dims=7, metric="inner_product")
    query = kernel.prepare(np.arange(7))
    part = buffer[100:300]
    np.testing.assert_array_equal(kernel.every(query, part), part.astype(np.float32) @ np.arange(7, dtype=np.float32))
    assert set(kernel.top(query, part, 200)[0].tolist()) == set(range(200))


@pytest.mark.parametrize("metric", METRICS)
def test_a_zero_query_scores_every_row(metric: Metric) -> None:
    codes = integers(3, 40, 5)
    kernel = Kernel(dims=5, metric=metric)
    vector = kernel.prepare(np.zeros(5))
    assert not vector.any()
    scores = exact_scores(codes, np.zeros(5), metric)
    np.testing.assert_allclose(kernel.finish(kernel.every(vector, codes)), scores, rtol=1e-6)
    assert len(kernel.top(vector, codes, 40)[0]) == 40


def test_cosine_does_not_depend_on_the_length_of_the_query_which_stays_as_it_was() -> None:
    query = np.array([1.0, -1.0, 1.0, 1.0])
    for scale in (1e-40, 1e-30, 1e-20, 1e-3, 1.0, 1e10, 1e19, 1e25, 3e38):
        vector = Kernel(dims=4, metric="cosine").prepare(query * scale)
        np.testing.assert_allclose(vector, query / 2, rtol=1e-3)
    given = query.astype(np.float32)
    Kernel(dims=4, metric="cosine").prepare(given)
    assert given.tolist() == query.tolist()


@pytest.mark.parametrize("metric", ["inner_product", "euclidean"])
def test_a_long_query_finds_every_row_and_one_too_long_for_its_scores_is_refused(metric: Metric) -> None:
    codes = integers(5, 30, 6) * np.float16(1e4)
    kernel = Kernel(dims=6, metric=metric)
    found, raw = kernel.top(kernel.prepare(np.full(6, 1e15)), codes, 30)
    assert len(found) == 30
    assert np.isfinite(kernel.finish(raw)).all()
    for size in (1e19, 1e25, 1e38):
        with pytest.raises(InvalidInput, match="embedder"):
            kernel.prepare(np.full(6, size))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "query",
    [
        [1.0, 2.0], [[1.0, 2.0, 3.0]], [], 1.0, None, "abc", ["a", "b", "c"], [1.0, None, 2.0], [1.0, [2.0], 3.0],
        [1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0], [1e39, 0.0, 0.0], [10**400, 0, 0], [1j, 0, 0], {"a": 1},
    ],
    ids=lambda query: repr(query)[:20],
)  # fmt: skip
def test_what_is_no_query_vector_is_refused(metric: Metric, query: Any) -> None:
    with pytest.raises(InvalidInput, match="embedder"):
        Kernel(dims=3, metric=metric).prepare(query)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how many pages are resident")
def test_scans_leave_nothing_behind() -> None:
    kernel = Kernel(dims=8, metric="cosine")
    codes, query = np.ones((4, 8), "<f2"), kernel.prepare(np.ones(8))
    mask = np.ones(4, np.bool_)

    def pages_after(scans: int) -> int:
        for _ in range(scans):
            kernel.top(query, codes, 2, mask)
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = pages_after(1_000)
    # A scanner takes 100 bytes at least: 300 pages would be missing here.
    assert pages_after(12_000) - before < 100
