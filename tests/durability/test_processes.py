import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from folders import assert_sound, forked, items, memories, open_memory, open_store, sentence

from langchain_memlayer.errors import MemoryNotFound
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.threads import Once


def _eight(work: object) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))  # type: ignore[arg-type]


def test_eight_threads_add_12_memories_each_and_every_one_is_found_by_its_own_text(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        ids: dict[str, str] = {}

        def add(thread: int) -> None:
            for k in range(12):
                added = memory.add(sentence(thread, k), user_id=f"u{thread % 2}")["results"]
                ids[added[0]["memory"]] = added[0]["id"]

        _eight(add)
        assert len(ids) == 96
        for thread in range(8):
            for k in range(12):
                text = sentence(thread, k)
                hit = memory.search(text, user_id=f"u{thread % 2}", limit=1)["results"][0]
                assert (hit["memory"], hit["id"]) == (text, ids[text])
    assert_sound(tmp_path)


def test_eight_threads_write_and_search_one_store(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:

        def work(thread: int) -> None:
            for k in range(10):
                store.put(("docs",), f"{thread}-{k}", {"text": sentence(thread, k)})
                hits = store.search(("docs",), query=sentence(thread, k), limit=1)
                assert hits[0].value["text"] == sentence(thread, k)
                if k % 5 == 4:
                    store.delete(("docs",), f"{thread}-{k}")

        _eight(work)
        assert items(store) == {
            (("docs",), f"{thread}-{k}"): sentence(thread, k) for thread in range(8) for k in range(10) if k % 5 != 4
        }
    assert_sound(tmp_path)


def test_one_batch_id_given_by_eight_threads_at_once_is_stored_once(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        results = []
        _eight(lambda _: results.append(memory.add("said once", user_id="u", batch_id="b", infer=False)["results"]))
        assert len(memories(memory)) == 1
        assert len({json.dumps(result) for result in results}) == 1


def test_updates_and_metadata_from_eight_threads_are_all_in_the_history(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        key = memory.add("version 0", user_id="u")["results"][0]["id"]

        def change(thread: int) -> None:
            for k in range(5):
                memory.update(key, f"version {thread} {k}")
                memory.update(key, None, {f"m{thread}-{k}": k})

        _eight(change)
        rows = memory.history(key)
        # Each version follows the one before it, so no update was built on one that another had replaced.
        assert all(later["prev_value"] == earlier["new_value"] for earlier, later in pairwise(rows))
        assert len(rows) == 81
        metadata = memory.get(key)["metadata"]  # type: ignore[index]
        assert {f"m{t}-{k}" for t in range(8) for k in range(5)} <= metadata.keys()
    assert_sound(tmp_path)


def test_an_update_that_loses_against_a_delete_or_a_forget_brings_nothing_back(tmp_path: Path) -> None:
    for end in ("delete", "forget"):
        folder = tmp_path / end
        with open_memory(folder) as memory, open_memory(folder) as other:
            key = memory.add("here today", user_id="u")["results"][0]["id"]
            embedder = memory._indexes.embedder
            finish, embed = partial(getattr(other, end), key), embedder.embed
            embedder.embed = lambda texts, finish=finish, embed=embed: (finish(), embed(texts))[1]
            with pytest.raises(MemoryNotFound):
                memory.update(key, "back again")
            assert memories(memory) == {}
        assert_sound(folder)


def test_many_processes_open_a_new_folder_at_the_same_time(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / str(number)
        gate, out = os.pipe(), os.pipe()
        children = []
        for _ in range(6):
            child = os.fork()
            if not child:
                os.read(gate[0], 1)
                try:
                    journal = SQLiteJournal(folder)
                    os.write(out[1], f"{journal.store_id}\n".encode())
                finally:
                    os._exit(0)
            children.append(child)
        os.write(gate[1], b"x" * 6)
        for child in children:
            os.waitpid(child, 0)
        os.close(out[1])
        seen = b""
        while part := os.read(out[0], 4096):
            seen += part
        for descriptor in (*gate, out[0]):
            os.close(descriptor)
        assert len(seen.splitlines()) == 6
        assert len(set(seen.splitlines())) == 1


def test_a_child_makes_itself_what_a_thread_of_its_parent_was_making() -> None:
    parent, begun, go_on = os.getpid(), threading.Event(), threading.Event()

    def make() -> int:
        if os.getpid() == parent:
            begun.set()
            go_on.wait(60)
        return os.getpid()

    once = Once(make)
    thread = threading.Thread(target=once)
    thread.start()
    assert begun.wait(60)
    assert os.waitpid(forked(lambda: once() == os.getpid()), 0)[1] == 0
    go_on.set()
    thread.join()
    assert once() == parent


def test_threads_of_a_child_that_begin_at_once_open_the_store_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = threading.Barrier(8)
    reopened: list[int] = []

    with open_memory(tmp_path) as memory:
        memory.add("from the parent", user_id="u")
        journal = type(memory._journal)
        opened = journal._reconnect

        def slow(self: Any) -> None:
            reopened.append(threading.get_ident())
            time.sleep(0.05)
            opened(self)

        monkeypatch.setattr(journal, "_reconnect", slow)

        def add(number: int) -> None:
            threads.wait()
            memory.add(f"from thread {number}", user_id="u", infer=False)

        def work() -> bool:
            _eight(add)
            return len(reopened) == 1

        assert os.waitpid(forked(work), 0)[1] == 0
        assert len(memory.get_all(user_id="u", limit=100)["results"]) == 9
    assert_sound(tmp_path)
