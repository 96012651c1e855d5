"""Vectors as embedders give them, slabs that hold them, and what numpy says of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.slab import Slab
from langchain_memlayer.index.view import View
from langchain_memlayer.types import Metric, SlabBlock

METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "euclidean")
TOPICS = 200
COLUMNS = {"expires": np.dtype(np.int64)}


class Topics:
    """A mixture of 200 clusters on the unit sphere; `topic` says which one each row is from."""

    def __init__(self, rows: int, dims: int, *, seed: int = 0, spread: float = 0.6) -> None:
        self._random = np.random.default_rng(seed)
        self._spread = spread / dims**0.5
        self.dims = dims
        self.centres = self._unit(self._random.standard_normal((TOPICS, dims)))
        self.topic = self._random.integers(0, TOPICS, rows)
        self.vectors = self.near(self.topic)
        self.codes = self.vectors.astype("<f2")

    def near(self, topics: NDArray[np.int64]) -> NDArray[np.float32]:
        noise = self._random.standard_normal((len(topics), self.dims)) * self._spread
        return self._unit(self.centres[topics] + noise)

    def queries(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        topics = self._random.integers(0, TOPICS, count)
        return self.near(topics), topics

    @staticmethod
    def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def block(
    codes: NDArray[Any] | None = None,
    *,
    seq: int,
    ids: Sequence[int] | NDArray[np.int64] | None = None,
    owners: Sequence[int] | NDArray[np.int64] | None = None,
    removed: Iterable[int] = (),
    expires: Sequence[int] | None = None,
    columns: Sequence[str] = (),
) -> SlabBlock:
    """Items written at position `seq`, one for each code unless `owners` says otherwise."""
    data = b"" if codes is None else np.asarray(codes, "<f2").tobytes()
    count = 0 if codes is None else len(codes)
    numbers = np.asarray(np.arange(count) if ids is None else ids, np.int64)
    return SlabBlock(
        seq=seq,
        ids=numbers,
        seqs=np.full(len(numbers), seq),
        columns={name: np.zeros(len(numbers), np.int64) for name in columns}
        | ({} if expires is None else {"expires": np.asarray(expires, np.int64)}),
        owners=np.asarray(np.arange(count) if owners is None else owners, np.int64),
        vector_bytes=data,
        removed=np.asarray(list(removed), np.int64),
    )


def filled(codes: NDArray[Any], *, threshold: int, metric: Metric = "cosine", save: Any = None) -> Slab:
    """A slab of `codes` under the row ids 0, 1, ...; its graph, if it gets one, is there."""
    slab = Slab(dims=codes.shape[1], metric=metric, hnsw_threshold=threshold, save=save)
    slab.apply(block(codes, seq=0))
    assert slab.wait(120)
    return slab


def exact_scores(codes: NDArray[Any], query: NDArray[Any], metric: Metric) -> NDArray[np.float64]:
    rows, vector = np.asarray(codes, np.float64), np.asarray(query, np.float64)
    if metric == "euclidean":
        return -np.linalg.norm(rows - vector, axis=1)
    if metric == "cosine":
        norm = np.linalg.norm(vector)
        vector = vector / norm if norm else vector
        return np.clip(rows @ vector, -1, 1)
    return rows @ vector


def best_rows(codes: NDArray[Any], query: NDArray[Any], k: int, mask: NDArray[np.bool_] | None = None) -> set[int]:
    """The `k` nearest rows by inner product, as their row numbers."""
    scores = codes.astype(np.float32) @ query
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    best = np.argpartition(-scores, k - 1)[:k]
    return set(best[scores[best] > -np.inf].tolist())


def recalls(
    view: View,
    codes: NDArray[Any],
    queries: NDArray[np.float32],
    *,
    mask_of: Callable[[int], NDArray[np.bool_] | None] = lambda _: None,
    live: NDArray[np.bool_] | None = None,
    k: int = 10,
) -> tuple[NDArray[np.float64], list[str]]:
    """Recall@k of each query among the rows of its mask, and the way that each search went.

    `codes[i]` is the vector of row id `i`; `live` says which ids are there.
    """
    codes32 = codes.astype(np.float32)
    out, ways = [], []
    for number, query in enumerate(queries):
        mask = mask_of(number)
        wanted = mask if live is None else live if mask is None else mask & live
        hits = view.search(query, k, mask=None if mask is None else mask[view.ids])
        assert len(set(hits.ids.tolist())) == len(hits)
        best = best_rows(codes32, query, k, wanted)
        assert wanted is None or wanted[hits.ids].all()
        # A row as near as the worst of the best is as good.
        floor = min((codes32[list(best)] @ query).tolist(), default=0.0) - 1e-5
        found = int((codes32[hits.ids] @ query >= floor).sum()) if len(hits) else 0
        out.append(min(1.0, found / len(best)) if best else 1.0)
        ways.append(hits.plan.way)
    return np.array(out), ways


def frozen_copy(view: View) -> Mapping[str, Any]:
    """What a view says now, to be compared with what it says later."""
    return {
        "ids": view.ids.copy(),
        "seqs": view.seqs.copy(),
        "live": view.live.copy(),
        "codes": view.codes.copy(),
        "owners": None if view.owners is None else view.owners.copy(),
        **{name: column.copy() for name, column in view.columns.items()},
        "positions": view.slots(np.unique(view.ids)),
    }
