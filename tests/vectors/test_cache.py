import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_memlayer.index import lru
from langchain_memlayer.index.lru import SlabCache


@dataclass
class Weight:
    nbytes: int
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class Shelf:
    """Slabs of given weights, and what was done with them."""

    weights: dict[str, int] = field(default_factory=dict)
    made: list[tuple[str, Weight]] = field(default_factory=list)
    refreshed: Counter[str] = field(default_factory=Counter)
    worn: set[str] = field(default_factory=set)

    def load(self, prefix: str) -> Weight:
        slab = Weight(self.weights.get(prefix, 10))
        self.made.append((prefix, slab))
        return slab

    def held_up(self, prefix: str) -> tuple[Callable[[str], Weight], threading.Event, threading.Event]:
        """A `load` of which that of one prefix tells that it has begun, and waits until it may go on."""
        begun, go = threading.Event(), threading.Event()

        def load(asked: str) -> Weight:
            if asked == prefix:
                begun.set()
                assert go.wait(60)
            return self.load(asked)

        return load, begun, go

    def refresh(self, prefix: str, slab: Weight) -> bool:
        self.refreshed[prefix] += 1
        slab.nbytes = self.weights.get(prefix, 10)
        return prefix not in self.worn

    def cache(self, capacity: int = 100) -> SlabCache[Weight]:
        return SlabCache(self.load, refresh=self.refresh, capacity_bytes=capacity)


def held(cache: SlabCache[Weight]) -> list[str]:
    return list(cache._entries)


def test_a_slab_is_loaded_once_caught_up_whenever_it_is_asked_for_and_loaded_anew_when_worn() -> None:
    shelf = Shelf()
    cache = shelf.cache()
    first = cache.get("a")
    assert shelf.refreshed == {}
    assert cache.get("a") is first
    assert cache.get("a") is first
    assert ([name for name, _ in shelf.made], shelf.refreshed) == (["a"], {"a": 2})
    shelf.worn = {"a"}
    second = cache.get("a")
    assert (second is first, first.closed, second.closed, cache.nbytes) == (False, 1, 0, 10)


@settings(max_examples=80, deadline=None)
@given(
    asked=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60), st.integers(0, 9)), max_size=40),
    capacity=st.integers(1, 100),
)
def test_what_is_held_is_the_longest_recent_run_that_fits(asked: list[tuple[str, int, int]], capacity: int) -> None:
    shelf = Shelf()
    cache = shelf.cache(capacity)
    model: dict[str, int] = {}
    for name, weight, chance in asked:
        if not chance:
            cache.clear()
            model.clear()
        else:
            shelf.weights[name] = weight
            cache.get(name)
            model.pop(name, None)
            model[name] = weight
            while sum(model.values()) > capacity and len(model) > 1:
                del model[next(iter(model))]
        assert held(cache) == list(model)
        assert (cache.nbytes, len(cache.slabs())) == (sum(model.values()), len(model))
        assert cache.nbytes <= capacity or len(cache.slabs()) == 1
        present = {id(slab) for slab in cache.slabs()}
        assert [slab.closed for _, slab in shelf.made] == [int(id(slab) not in present) for _, slab in shelf.made]


def test_a_peek_loads_and_catches_up_nothing_and_keeps_what_it_gives_from_being_evicted() -> None:
    shelf = Shelf({"a": 40, "b": 40, "c": 40})
    cache = shelf.cache(100)
    assert cache.peek("a") is None
    slab = cache.get("a")
    cache.get("b")
    assert cache.peek("a") is slab
    assert (len(shelf.made), shelf.refreshed.total()) == (2, 0)
    cache.get("c")
    assert held(cache) == ["a", "c"]


@pytest.mark.parametrize("interrupted", [KeyboardInterrupt, MemoryError])
def test_a_slab_whose_catching_up_was_interrupted_is_loaded_anew(interrupted: type[BaseException]) -> None:
    shelf = Shelf()

    def refresh(prefix: str, slab: Weight) -> bool:
        slab.nbytes = 99
        raise interrupted

    cache = SlabCache(shelf.load, refresh=refresh, capacity_bytes=100)
    torn = cache.get("a")
    with pytest.raises(interrupted):
        cache.get("a")
    again = cache.get("a")
    assert again is not torn
    assert (torn.closed, again.closed, cache.nbytes) == (1, 0, 10)


def test_a_load_that_failed_is_tried_again() -> None:
    answers = iter([OSError("gone"), Weight(10)])

    def load(prefix: str) -> Weight:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    cache = SlabCache(load, refresh=lambda prefix, slab: None, capacity_bytes=100)
    with pytest.raises(OSError, match="gone"):
        cache.get("a")
    assert cache.slabs() == []
    assert (cache.get("a").nbytes, cache.nbytes) == (10, 10)


def test_threads_that_ask_for_one_slab_wait_for_one_load() -> None:
    shelf = Shelf()
    load, loading, go = shelf.held_up("a")
    cache = SlabCache(load, refresh=shelf.refresh, capacity_bytes=100)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.get, "a") for _ in range(8)]
        assert loading.wait(60)
        go.set()
        assert len({id(slab.result(60)) for slab in asked}) == 1
    assert (len(shelf.made), shelf.refreshed["a"]) == (1, 7)


def test_loading_one_slab_holds_up_no_other() -> None:
    shelf = Shelf()
    load, loading, go = shelf.held_up("slow")
    cache = SlabCache(load, refresh=shelf.refresh, capacity_bytes=100)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(cache.get, "slow")
        assert loading.wait(60)
        assert cache.get("quick").nbytes == 10
        assert not slow.done()
        go.set()
        assert slow.result(60).nbytes == 10
    assert cache.nbytes == 20


def test_a_slab_evicted_while_it_loads_is_given_out_closed_once_and_loaded_anew() -> None:
    shelf = Shelf({"huge": 1000})
    load, loading, go = shelf.held_up("slow")
    cache = SlabCache(load, refresh=shelf.refresh, capacity_bytes=100)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(cache.get, "slow")
        assert loading.wait(60)
        huge = pool.submit(cache.get, "huge")
        go.set()
        first = slow.result(60)
        assert huge.result(60).nbytes == 1000
    assert cache.nbytes == sum(slab.nbytes for slab in cache.slabs())
    assert cache.get("slow").closed == 0
    assert first.closed in (0, 1)
    assert cache.nbytes == 10


def test_a_slab_that_is_dropped_before_its_load_begins_is_closed() -> None:
    shelf = Shelf()
    cache = shelf.cache()

    class Late:
        """A lock before which somebody else drops the slab."""

        def __init__(self) -> None:
            self.lock, self.first = threading.Lock(), True

        def __enter__(self) -> None:
            first, self.first = self.first, False
            if first:
                cache.clear()
            self.lock.acquire()

        def __exit__(self, *raised: object) -> None:
            self.lock.release()

    cache._entries["a"] = lru._Entry(lock=Late())  # type: ignore[arg-type]
    assert cache.get("a").closed == 1
    assert (len(shelf.made), cache.slabs(), cache.nbytes) == (1, [], 0)
    assert cache.get("a").closed == 0


def test_many_threads_keep_the_books_right() -> None:
    shelf = Shelf({str(n): 7 + n for n in range(20)})
    cache = shelf.cache(60)

    def work(seed: int) -> None:
        for turn in range(300):
            name = str((seed * 7 + turn * turn) % 20)
            if turn % 17 == 0:
                cache.clear()
            else:
                assert cache.get(name).nbytes == 7 + int(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert cache.nbytes == sum(slab.nbytes for slab in cache.slabs())
    assert cache.nbytes <= 60
    open_slabs = {id(slab) for slab in cache.slabs()}
    assert all(slab.closed == int(id(slab) not in open_slabs) for _, slab in shelf.made)
