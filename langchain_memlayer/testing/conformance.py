"""`StoreConformance`: what LangGraph and its users expect of a `BaseStore`, as a pytest class to subclass."""

from __future__ import annotations

from langchain_memlayer.testing.cases.base import MakeStore, StoreCalls
from langchain_memlayer.testing.cases.batch import BatchCases
from langchain_memlayer.testing.cases.concurrency import ConcurrencyCases
from langchain_memlayer.testing.cases.defects import DefectCases
from langchain_memlayer.testing.cases.filters import FilterCases
from langchain_memlayer.testing.cases.index import IndexCases
from langchain_memlayer.testing.cases.items import ItemCases
from langchain_memlayer.testing.cases.namespaces import NamespaceCases
from langchain_memlayer.testing.cases.search import SearchCases
from langchain_memlayer.testing.cases.ttl import TTLCases

__all__ = ["MakeStore", "StoreCalls", "StoreConformance"]


class StoreConformance(
    BatchCases, ConcurrencyCases, ItemCases, NamespaceCases, SearchCases, FilterCases, IndexCases, TTLCases, DefectCases
):
    """The contract of `BaseStore`, and a test for each known defect of the stores that come with LangGraph.

    Subclass it, override the fixture `make_store`, and switch off what the store does not claim to support. Each test
    runs twice, on the sync and on the async methods.

    Attributes:
        has_vectors: The store takes an `index` configuration and searches by meaning.
        supports_ttl: The store takes a `ttl` configuration and forgets items in time.
        has_clock: `make_store` takes `clock`, a function that gives the time; tests of time are skipped without.
        supports_superset_filters: `$in $nin $contains $exists $and $or $not`, beyond LangGraph's own operators.
        distance_types: The values of `index["distance_type"]` that the store knows.

    Example:
        ```python
        class TestMyStore(StoreConformance):
            @pytest.fixture
            def make_store(self):
                with ExitStack() as stack:
                    yield lambda **settings: stack.enter_context(MyStore(":memory:", **settings))
        ```
    """
