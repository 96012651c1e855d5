"""What all cases share: the capability switches, the fixtures, and one way to call a store, sync or async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, TypeVar, cast

import pytest
from langgraph.store.base import BaseStore, IndexConfig, Item, Op, SearchItem

from langchain_memlayer.testing.fakes import DeterministicEmbeddings, FrozenClock

T = TypeVar("T")

MakeStore = Callable[..., BaseStore]
"""Makes a new empty store; called with some of the keywords `index`, `ttl` and `clock`."""


FLOAT16 = 2e-3
"""How far a score may be off in a store that keeps half-precision vectors."""


class StoreCalls:
    """One store, called through its sync or through its async methods.

    Attributes:
        store: The store itself.
    """

    def __init__(self, store: BaseStore, runner: asyncio.Runner | None) -> None:
        self.store = store
        self._runner = runner

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._runner is None:
            return getattr(self.store, name)(*args, **kwargs)
        return self._runner.run(getattr(self.store, f"a{name}")(*args, **kwargs))

    def batch(self, ops: Iterable[Op]) -> list[Any]:
        """`batch` or `abatch`."""
        return cast("list[Any]", self._call("batch", ops))

    def put(self, *args: Any, **kwargs: Any) -> None:
        """`put` or `aput`."""
        self._call("put", *args, **kwargs)

    def get(self, *args: Any, **kwargs: Any) -> Item | None:
        """`get` or `aget`."""
        return cast("Item | None", self._call("get", *args, **kwargs))

    def found(self, *args: Any, **kwargs: Any) -> Item:
        """`get` or `aget` of an item that must be there."""
        item = self.get(*args, **kwargs)
        if item is None:
            pytest.fail(f"The store has no item {args!r}.")
        return item

    def delete(self, *args: Any) -> None:
        """`delete` or `adelete`."""
        self._call("delete", *args)

    def search(self, *args: Any, **kwargs: Any) -> list[SearchItem]:
        """`search` or `asearch`."""
        return cast("list[SearchItem]", self._call("search", *args, **kwargs))

    def keys(self, *args: Any, **kwargs: Any) -> list[str]:
        """The keys that `search` or `asearch` finds, in order."""
        return [item.key for item in self.search(*args, **kwargs)]

    def list_namespaces(self, **kwargs: Any) -> list[tuple[str, ...]]:
        """`list_namespaces` or `alist_namespaces`."""
        return cast("list[tuple[str, ...]]", self._call("list_namespaces", **kwargs))


NewStore = Callable[..., StoreCalls]
"""Makes a new empty store; called with some of the keywords `index` and `ttl`."""


def index_of(embeddings: DeterministicEmbeddings, *fields: str) -> IndexConfig:
    """An index configuration; without fields the default ones."""
    index: IndexConfig = {"dims": embeddings.dims, "embed": embeddings}
    if fields:
        index["fields"] = list(fields)
    return index


def cosine(embeddings: DeterministicEmbeddings, a: str, b: str) -> float:
    """The cosine similarity of two texts."""
    return sum(x * y for x, y in zip(embeddings.vector(a), embeddings.vector(b), strict=True))


def joined(pages: Iterable[list[T]]) -> list[T]:
    """All pages as one list."""
    return [entry for page in pages for entry in page]


class StoreCases:
    """The switches and fixtures of `StoreConformance`, which documents them."""

    has_vectors: ClassVar[bool] = True
    supports_ttl: ClassVar[bool] = True
    has_clock: ClassVar[bool] = True
    supports_superset_filters: ClassVar[bool] = True
    distance_types: ClassVar[tuple[str, ...]] = ("cosine",)

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """To override: a function that makes a new empty store from keywords; the fixture closes what it made."""
        raise NotImplementedError("Override the fixture `make_store` in the subclass of StoreConformance.")

    @pytest.fixture
    def clock(self) -> FrozenClock:
        """The time of the stores of this test."""
        return FrozenClock()

    @pytest.fixture(params=["sync", "async"])
    def mode(self, request: pytest.FixtureRequest) -> str:
        """Which methods the test calls."""
        return str(request.param)

    @pytest.fixture
    def new_store(self, make_store: MakeStore, clock: FrozenClock, mode: str) -> Iterator[NewStore]:
        """Makes stores on the test's clock."""
        with asyncio.Runner() as runner:

            def new(**settings: Any) -> StoreCalls:
                if self.has_clock:
                    settings["clock"] = clock
                return StoreCalls(make_store(**settings), runner if mode == "async" else None)

            yield new

    @pytest.fixture
    def embeddings(self) -> DeterministicEmbeddings:
        """Embeddings that record their calls; tests that use them are skipped for stores without vectors."""
        if not self.has_vectors:
            pytest.skip("the store has no vectors")
        return DeterministicEmbeddings()

    @pytest.fixture
    def time(self, clock: FrozenClock) -> FrozenClock:
        """The clock of tests of TTL, which are skipped for stores without TTL or clock."""
        if not (self.supports_ttl and self.has_clock):
            pytest.skip("the store has no TTL, or takes no clock")
        return clock
