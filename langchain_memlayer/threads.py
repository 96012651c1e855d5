"""Locks and values for all threads, also after a fork, and an event loop for what must not depend on the caller's."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Closing:
    """What is closed where a `with` or an `async with` ends."""

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await in_thread(self.close)


class ForkLock:
    """A lock that a forked child finds open, whoever held it in its parent: of the parent's threads it has only one."""

    _all: ClassVar[weakref.WeakSet[ForkLock]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all.add(self)

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._held = lock

    def __exit__(self, *raised: object) -> None:
        self._held.release()

    @classmethod
    def open_all(cls) -> None:
        """What a forked child begins with."""
        for one in tuple(cls._all):
            one._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ForkLock.open_all)


class Once(Generic[T]):
    """A value that is made at its first use, by one thread, while the others wait."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = ForkLock()
        self._values: list[T] = []

    def __call__(self) -> T:
        """The value."""
        if not self._values:
            with self._lock:
                if not self._values:
                    self._values.append(self._make())
        return self._values[0]


class lazy(Generic[T]):  # noqa: N801 - it stands where `functools.cached_property` would
    """A property that is made at its first use; of threads that meet there each makes it.

    That of `functools` has until Python 3.12 one lock for all instances: threads wait there for each other, and a
    forked child for ever, when a thread of its parent was inside.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> T:
        # What is in the instance's own dictionary comes before this from now on.
        value = vars(instance)[self._name] = self._make(instance)
        return value


_MOST_WAITING = 256
_THREADS: dict[int, ThreadPoolExecutor] = {}
"""By process: a forked child inherits the executor, but not its threads."""


async def in_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, in threads of our own.

    What waits for another process's lock waits in its thread, for half a minute at worst. In the loop's own few threads
    everything else of the application, name lookups too, would wait behind it.
    """
    pid = os.getpid()
    if pid not in _THREADS:
        _THREADS.setdefault(pid, ThreadPoolExecutor(_MOST_WAITING, thread_name_prefix="memlayer"))
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_THREADS[pid], partial(context.run, call, *args, **kwargs))


def beside(call: Callable[[], T], *, name: str) -> Future[T]:
    """The result of a call in a thread of its own, which keeps no process from ending, for those who may give it up."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            result.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    return result


class PrivateLoop:
    """An event loop in a thread of its own, on which async functions run for plain code and for short-lived loops.

    It stays from call to call, because clients keep connections that belong to the loop that opened them, and ends with
    this object.
    """

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def run(self, awaitable: Awaitable[T]) -> T:
        """Wait in this thread for what the awaitable gives."""
        future = asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._started())
        try:
            return future.result()
        finally:
            future.cancel()

    async def arun(self, awaitable: Awaitable[T]) -> T:
        """Like `run`, awaited in the caller's loop."""
        loop = await asyncio.to_thread(self._started)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(awaitable), loop))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            # A forked child inherits the loop, but not the thread that runs it.
            if self._loop is None or self._pid != os.getpid():
                ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
                thread = threading.Thread(target=_serve, args=(ready,), name="memlayer-embeddings", daemon=True)
                thread.start()
                (self._loop, stop), self._pid = ready.result(), os.getpid()
                weakref.finalize(self, _stop, thread, self._loop, stop)
            return self._loop


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _serve(ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    async def wait() -> None:
        stop = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    asyncio.run(wait())


def _stop(thread: threading.Thread, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    if thread.is_alive():
        loop.call_soon_threadsafe(stop.set)
        if thread is not threading.current_thread():
            thread.join(timeout=1)
