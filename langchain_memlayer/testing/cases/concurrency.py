# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Threads and event loops: LangGraph calls one store from many of both at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from langgraph.store.base import BaseStore, PutOp

from langchain_memlayer.testing.cases.base import MakeStore, NewStore, StoreCases

NS = ("docs",)
NODES = 51


class ConcurrencyCases(StoreCases):
    """The contract's lines on threads and event loops."""

    def test_51_threads_at_once_lose_nothing(self, new_store: NewStore, mode: str) -> None:
        store = new_store().store
        start = threading.Barrier(NODES)

        async def awork(n: int) -> int:
            await store.aput((*NS, str(n)), "k", {"n": n})
            await store.asearch(NS, limit=100)
            await store.alist_namespaces()
            item = await store.aget((*NS, str(n)), "k")
            return -1 if item is None else int(item.value["n"])

        def work(n: int) -> int:
            start.wait()
            if mode == "async":
                return asyncio.run(awork(n))
            store.put((*NS, str(n)), "k", {"n": n})
            store.search(NS, limit=100)
            store.list_namespaces()
            item = store.get((*NS, str(n)), "k")
            return -1 if item is None else int(item.value["n"])

        with ThreadPoolExecutor(NODES) as pool:
            assert list(pool.map(work, range(NODES))) == list(range(NODES))
        assert len(store.search(NS, limit=100)) == NODES

    def test_51_tasks_at_once_lose_nothing(self, make_store: MakeStore) -> None:
        store = make_store()

        async def main() -> int:
            await asyncio.gather(*(store.aput(NS, str(n), {"n": n}) for n in range(NODES)))
            return len(await store.asearch(NS, limit=100))

        assert asyncio.run(main()) == NODES

    def test_a_store_works_in_one_event_loop_after_another(self, make_store: MakeStore) -> None:
        store = make_store()

        async def add(n: int) -> int:
            await store.aput(NS, str(n), {"n": n})
            return len(await store.asearch(NS))

        assert [asyncio.run(add(n)) for n in range(3)] == [1, 2, 3]

    def test_sync_and_async_calls_see_each_other(self, make_store: MakeStore) -> None:
        store = make_store()

        async def inside() -> tuple[int, int]:
            await store.aput(NS, "async", {"n": 1})
            store.put(NS, "sync", {"n": 2})  # a sync node of a graph that runs in a loop
            return len(store.search(NS)), len(await store.asearch(NS))

        store.put(NS, "before", {"n": 0})
        assert asyncio.run(inside()) == (3, 3)
        assert len(store.search(NS)) == 3

    def test_a_failing_operation_fails_only_its_own_call(self, make_store: MakeStore) -> None:
        store: BaseStore = make_store()

        async def main() -> tuple[object, object, object]:
            return await asyncio.gather(
                store.aput(NS, "a", {"n": 1}),
                store.abatch([PutOp(("bad.label",), "b", {"n": 2})]),
                store.aput(NS, "c", {"n": 3}),
                return_exceptions=True,
            )

        first, second, third = asyncio.run(main())
        assert first is None
        assert isinstance(second, ValueError)
        assert third is None
        assert sorted(item.key for item in store.search(())) == ["a", "c"]

    @pytest.mark.parametrize("method", ["batch", "abatch"])
    def test_both_kinds_of_batch_are_the_stores_own(self, make_store: MakeStore, method: str) -> None:
        assert getattr(type(make_store()), method) is not getattr(BaseStore, method)
