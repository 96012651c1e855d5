"""Forks and signals at random moments: no lock is left behind, no search broken, nothing lost, nothing doubled.

MATRIX multiplies the numbers: `make matrix` runs them in full, in a folder and in PostgreSQL.
"""

import os
import random
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import postgres_server
import pytest
from folders import assert_sound, forked, memories, open_memory, sentence

from langchain_memlayer import Memory

TIMES = int(os.environ.get("MATRIX", "1"))

pytestmark = pytest.mark.slow


class Interrupted(BaseException):
    """What the signal raises: a worker's time limit, or Ctrl-C."""


def _calls(memory: Memory, number: int) -> list[Callable[[], object]]:
    text = sentence(1, number)
    return [
        partial(memory.add, text, user_id="u", infer=False),
        partial(memory.search, text, user_id="u", limit=3),
        partial(memory.get_all, user_id="u"),
        partial(memory.add, [text, f"{text} again"], user_id="u", batch_id=text, infer=False),
        partial(memory.forget, user_id="nobody"),
        memory.close,
    ]


# A signal that comes while a finalizer runs is lost there; Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_signals_at_random_moments_break_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)

    def raised(*_: object) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGALRM, raised)
    memory = open_memory(tmp_path)
    known: dict[str, str] = {}
    try:
        for number in range(50 * TIMES):
            *calls, close = _calls(memory, number)
            call = chance.choice([*calls, close])
            with suppress(Interrupted):
                try:
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 8e-3))
                    call()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            if call is close:
                memory.close()
                memory = open_memory(tmp_path)
            text = sentence(2, number)
            (hit,) = memory.add(text, user_id="u", infer=False)["results"]
            known[hit["id"]] = text
            found = memory.search(text, user_id="u", limit=3)["results"]
            assert hit["id"] in [one["id"] for one in found]
        stored = memories(memory)
        assert known.items() <= {key: text for key, (_, text) in stored.items()}.items()
        texts = [text for _, text in stored.values()]
        assert len(texts) == len(set(texts))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        memory.close()
    if not postgres_server.current:
        assert_sound(tmp_path)


def test_forks_from_a_process_whose_threads_write_and_search(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.add("the first sentence", user_id="u")
        stop, failed = threading.Event(), []

        def work(number: int) -> None:
            try:
                while not stop.is_set():
                    if number % 2:
                        memory.add(f"from thread {number}", user_id="t", infer=False)
                    else:
                        memory.search("the first sentence", user_id="u", limit=1)
            except BaseException as error:
                failed.append(error)
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        codes = []
        for number in range(20 * TIMES):

            def child(number: int = number) -> bool:
                memory.add(f"from child {number}", user_id="u")
                hits = memory.search("the first sentence", user_id="u", limit=1)["results"]
                return bool(hits[0]["memory"] == "the first sentence")

            codes.append(os.waitpid(forked(child), 0)[1])
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert failed == []
        assert codes == [0] * len(codes)
        told = [text for user, text in memories(memory).values() if user == "u"]
        assert sorted(told) == sorted(["the first sentence", *(f"from child {n}" for n in range(len(codes)))])
    if not postgres_server.current:
        assert_sound(tmp_path)
