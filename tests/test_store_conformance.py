from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from langchain_memlayer.store import MemLayerStore
from langchain_memlayer.testing import StoreConformance
from langchain_memlayer.testing.conformance import MakeStore


def _pairs() -> Iterator[Any]:
    """Where a store is, and how it is called: quickly one pair of each, the others and stores with graphs slowly."""
    for where, mode in product(("memory", "folder", "folder with graphs"), ("sync", "async")):
        quick = (where, mode) in (("memory", "sync"), ("folder", "async"))
        yield pytest.param((where, mode), id=f"{where}-{mode}", marks=() if quick else pytest.mark.slow)


class TestMemLayerStore(StoreConformance):
    distance_types = ("cosine", "inner_product", "l2", "euclidean")

    @pytest.fixture(params=[*_pairs()])
    def pair(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def mode(self, pair: tuple[str, str]) -> str:
        return pair[1]

    @pytest.fixture
    def make_store(self, pair: tuple[str, str], tmp_path: Path) -> Iterator[MakeStore]:
        with ExitStack() as stack:
            numbers = count()

            def make(**settings: Any) -> MemLayerStore:
                path = ":memory:" if pair[0] == "memory" else tmp_path / f"store{next(numbers)}"
                if pair[0] == "folder with graphs":
                    settings["hnsw_threshold"] = 1
                return stack.enter_context(MemLayerStore(path, durability="fast", **settings))

            yield make
