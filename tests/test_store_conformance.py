from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from langchain_memlayer.store import MemLayerStore
from langchain_memlayer.testing import StoreConformance
from langchain_memlayer.testing.conformance import MakeStore


class TestMemLayerStore(StoreConformance):
    distance_types = ("cosine", "inner_product", "l2", "euclidean")

    @pytest.fixture(params=["memory", "folder", pytest.param("folder with graphs", marks=pytest.mark.slow)])
    def make_store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
        with ExitStack() as stack:
            made = 0

            def make(**settings: Any) -> MemLayerStore:
                nonlocal made
                made += 1
                path = ":memory:" if request.param == "memory" else tmp_path / f"store{made}"
                if request.param == "folder with graphs":
                    settings["hnsw_threshold"] = 1
                return stack.enter_context(MemLayerStore(path, durability="fast", **settings))

            yield make
