# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""TTL: which items expire, what refreshes them, and the sweeper."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langgraph.store.base import PutOp, TTLConfig

from langchain_memlayer.testing.cases.base import FLOAT16, NewStore, StoreCases, index_of
from langchain_memlayer.testing.fakes import DeterministicEmbeddings, FrozenClock

NS = ("docs",)
_TEN: TTLConfig = {"default_ttl": 10}


class TTLCases(StoreCases):
    """The contract's section on TTL."""

    def test_the_store_says_that_it_supports_ttl(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN).store
        assert store.supports_ttl is True
        assert store.ttl_config == _TEN

    def test_without_configuration_nothing_expires(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1})
        time.advance(days=10_000)
        assert store.found(NS, "k").value == {"n": 1}

    def test_a_ttl_works_without_configuration(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store()
        store.put(NS, "k", {"n": 1}, ttl=5)
        time.advance(minutes=6)
        assert store.get(NS, "k") is None

    def test_not_given_means_the_default(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        store.put(NS, "k", {"n": 1})
        time.advance(minutes=9.9)
        assert store.get(NS, "k", refresh_ttl=False) is not None
        time.advance(minutes=0.2)
        assert store.get(NS, "k") is None

    def test_none_means_never_whatever_the_default(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        store.put(NS, "k", {"n": 1}, ttl=None)
        time.advance(days=365)
        assert store.get(NS, "k") is not None

    def test_minutes_may_be_fractions(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        store.put(NS, "k", {"n": 1}, ttl=0.5)
        time.advance(seconds=29)
        assert store.get(NS, "k", refresh_ttl=False) is not None
        time.advance(seconds=2)
        assert store.get(NS, "k") is None

    def test_a_write_refreshes(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl={"default_ttl": 10, "refresh_on_read": False})
        store.put(NS, "k", {"n": 1})
        time.advance(minutes=8)
        store.put(NS, "k", {"n": 2})
        time.advance(minutes=8)
        assert store.found(NS, "k").value == {"n": 2}

    def test_a_write_replaces_the_ttl(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        store.put(NS, "k", {"n": 1}, ttl=5)
        store.put(NS, "k", {"n": 2}, ttl=None)
        time.advance(days=1)
        assert store.get(NS, "k") is not None
        store.put(NS, "k", {"n": 3}, ttl=1)
        time.advance(minutes=2)
        assert store.get(NS, "k") is None

    @pytest.mark.parametrize("read", ["get", "search", "query"])
    def test_a_read_refreshes(self, new_store: NewStore, time: FrozenClock, read: str) -> None:
        index = index_of(DeterministicEmbeddings(16), "t") if self.has_vectors else None
        store = new_store(ttl=_TEN, index=index) if index else new_store(ttl=_TEN)
        store.put(NS, "k", {"t": "blue"})
        for _ in range(3):
            time.advance(minutes=8)
            if read == "get":
                assert store.get(NS, "k") is not None
            else:
                assert store.keys(NS, query="blue" if read == "query" else None) == ["k"]
        time.advance(minutes=11)
        assert store.get(NS, "k") is None

    @pytest.mark.parametrize(
        ("configured", "asked", "alive"),
        [(None, None, True), (True, None, True), (False, None, False), (True, False, False), (False, True, True)],
    )
    @pytest.mark.parametrize("read", ["get", "search"])
    def test_who_decides_whether_a_read_refreshes(
        self,
        new_store: NewStore,
        time: FrozenClock,
        configured: bool | None,
        asked: bool | None,
        alive: bool,
        read: str,
    ) -> None:
        ttl: TTLConfig = {"default_ttl": 10}
        if configured is not None:
            ttl["refresh_on_read"] = configured
        store = new_store(ttl=ttl)
        store.put(NS, "k", {"n": 1})
        time.advance(minutes=8)
        if read == "get":
            store.get(NS, "k", refresh_ttl=asked)
        else:
            store.search(NS, refresh_ttl=asked)
        time.advance(minutes=8)
        assert (store.get(NS, "k") is not None) is alive

    def test_a_search_refreshes_only_what_it_returns(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        for n in range(4):
            store.put(NS, str(n), {"n": n})
        time.advance(minutes=8)
        (returned,) = store.keys(NS, filter={"n": {"$gte": 2}}, limit=1, offset=1)
        time.advance(minutes=8)
        assert store.keys(NS) == [returned]

    def test_a_refresh_leaves_updated_at_and_vectors_alone(
        self, new_store: NewStore, time: FrozenClock, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(ttl=_TEN, index=index_of(embeddings, "t"))
        store.put(NS, "k", {"t": "blue"})
        before = store.found(NS, "k")
        time.advance(minutes=8)
        assert store.found(NS, "k") == before
        time.advance(minutes=8)
        (found,) = store.search(NS, query="blue")
        assert found.score == pytest.approx(1, abs=FLOAT16)
        assert found.updated_at == before.updated_at

    def test_the_expired_are_invisible_before_the_sweep(
        self, new_store: NewStore, time: FrozenClock, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(ttl=_TEN, index=index_of(embeddings, "t"))
        store.put(("gone",), "k", {"t": "blue"})
        store.put(("gone",), "plain", {"t": "blue"}, index=False)
        time.advance(minutes=11)
        assert store.get(("gone",), "k") is None
        assert store.search(()) == []
        assert store.search((), query="blue") == []
        assert store.search((), filter={"t": "blue"}) == []
        assert store.list_namespaces() == []

    def test_a_hundred_expired_never_hide_five_live(
        self, new_store: NewStore, time: FrozenClock, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "t"))
        store.batch([PutOp(NS, f"x{n}", {"t": "blue door"}, ttl=1) for n in range(100)])
        store.batch([PutOp(NS, f"live{n}", {"t": f"red {n}"}) for n in range(5)])
        time.advance(minutes=2)
        live = [f"live{n}" for n in range(5)]
        assert sorted(store.keys(NS, query="blue door", limit=5)) == live
        assert sorted(store.keys(NS, limit=5)) == live

    def test_a_sweep_deletes_the_expired_and_counts_them(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        sweeping: Any = store.store
        for n in range(3):
            store.put(NS, str(n), {"n": n}, ttl=1)
        store.put(NS, "live", {"n": 9})
        assert sweeping.sweep_ttl() == 0
        time.advance(minutes=2)
        assert sweeping.sweep_ttl() == 3
        assert sweeping.sweep_ttl() == 0
        assert store.keys(NS) == ["live"]

    def test_the_configuration_is_read_at_call_time(self, new_store: NewStore, time: FrozenClock) -> None:
        store = new_store(ttl=_TEN)
        configured: Any = store.store
        configured.ttl_config = {"default_ttl": 1, "refresh_on_read": False}
        store.put(NS, "k", {"n": 1})
        time.advance(minutes=0.7)
        assert store.get(NS, "k") is not None
        time.advance(minutes=0.7)
        assert store.get(NS, "k") is None

    def test_the_sweeper_is_a_daemon_thread_that_can_be_stopped(self, new_store: NewStore, time: FrozenClock) -> None:
        sweeping: Any = new_store(ttl=_TEN).store
        before = set(threading.enumerate())
        sweeping.start_ttl_sweeper(minutes=60)
        started = set(threading.enumerate()) - before
        assert started
        assert all(thread.daemon for thread in started)
        assert sweeping.stop_ttl_sweeper(timeout=10) is True
        assert not any(thread.is_alive() for thread in started)

    def test_a_sweeper_that_never_ran_is_stopped(self, new_store: NewStore, time: FrozenClock) -> None:
        sweeping: Any = new_store().store
        assert sweeping.stop_ttl_sweeper() is True

    def test_closing_stops_the_sweeper(self, new_store: NewStore, time: FrozenClock) -> None:
        sweeping: Any = new_store(ttl=_TEN).store
        before = set(threading.enumerate())
        sweeping.start_ttl_sweeper(minutes=60)
        started = set(threading.enumerate()) - before
        sweeping.close()
        assert started
        assert not any(thread.is_alive() for thread in started)
