"""The stores that `conformance` reports on; pytest runs this file, no test run collects it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from langchain_memlayer import MemLayerStore
from langchain_memlayer.testing import StoreConformance
from langchain_memlayer.testing.conformance import MakeStore


class TestMemLayerStore(StoreConformance):
    distance_types = ("cosine", "inner_product", "l2", "euclidean")

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> Iterator[MakeStore]:
        with ExitStack() as stack:
            made: list[MemLayerStore] = []

            def make(**settings: Any) -> MemLayerStore:
                made.append(stack.enter_context(MemLayerStore(tmp_path / str(len(made)), **settings)))
                return made[-1]

            yield make


class TestInMemoryStore(StoreConformance):
    supports_ttl = False
    has_clock = False
    supports_superset_filters = False

    @pytest.fixture
    def make_store(self) -> MakeStore:
        return lambda **settings: InMemoryStore(**settings)
