import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from folders import (
    EXACT,
    SEEDED,
    Echo,
    assert_sound,
    containing,
    items,
    memories,
    memory_answers,
    open_memory,
    open_store,
    recall,
    sentence,
    store_scores,
)
from langgraph.store.base import PutOp
from writer import CANARY, put_checkpoint

from langchain_memlayer import checkpointer

pytestmark = pytest.mark.slow

Run = Callable[..., dict[str, Any]]
QUERIES = [sentence(9, k) for k in range(4)]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    command = [sys.executable, str(Path(__file__).with_name("writer.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def give(scenario: str, folder: Path, seed: int = 0, **die: Any) -> dict[str, Any]:
            order = {"scenario": scenario, "folder": str(folder), "seed": seed, "die": die}
            print(json.dumps(order), file=worker.stdin, flush=True)
            done = json.loads(worker.stdout.readline())
            assert done["killed"] or done["ended"], done
            return done

        yield give
        worker.stdin.close()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with so many memories, or items, that graphs and their snapshots are made."""
    base = tmp_path_factory.mktemp("seeded")
    with open_memory(base / "memories") as memory:
        memory.add([{"role": "user", "content": sentence(k)} for k in range(SEEDED)], user_id="u0")
        memory.search("anything", user_id="u0")
        assert memory._indexes.wait(60)
    with open_store(base / "items") as store:
        store.batch([PutOp(("docs", f"n{k % 3}"), f"k{k}", {"text": sentence(k)}) for k in range(3 * SEEDED)])
        store.search(("docs", "n0"), query="anything")
        assert store._indexes.wait(60)
    return {"memories": base / "memories", "items": base / "items"}


def acknowledged(kind: str, known: dict[Any, Any], lines: list[Any]) -> tuple[dict[Any, Any], Any]:
    """What is known after all that was acknowledged, and the last attempt, which was not; None without one."""
    known, pending = dict(known), None
    for word, what in lines:
        if word == "try":
            pending = what
        elif word == "done":
            assert pending is not None
            if kind == "items":
                known = _changed(known, pending)
            elif pending[0] == "add":
                known.update({key: (user, text) for key, user, text in what})
            elif pending[0] == "update":
                known[pending[1]] = known[pending[1]][0], pending[2]
            else:
                del known[pending[1]]
            pending = None
    return known, pending


def assert_memories(folder: Path, known: dict[str, tuple[str, str]], lines: list[Any]) -> dict[str, tuple[str, str]]:
    """Checks the memories after a kill: all that was acknowledged, and the last attempt wholly or not at all."""
    known, pending = acknowledged("memories", known, lines)
    with open_memory(folder) as memory:
        found = memories(memory)
        if pending is not None and pending[0] == "add":
            new = {key: found[key] for key in found.keys() - known.keys()}
            assert sorted(new.values()) in ([], sorted((pending[1], text) for text in pending[2]))
            known.update(new)
        elif pending is not None and pending[0] == "update":
            key = pending[1]
            assert found[key] in (known[key], (known[key][0], pending[2]))
            assert memory.history(key)[-1]["new_value"] == found[key][1]
            known[key] = found[key]
        elif pending is not None and pending[1] not in found:
            del known[pending[1]]
            assert memory.history(pending[1])[-1]["event"] == "DELETE"
        assert found == known
    return known


def assert_items(folder: Path, known: dict[Any, str], lines: list[Any]) -> dict[Any, str]:
    known, pending = acknowledged("items", known, lines)
    with open_store(folder) as store:
        found = items(store)
    assert found in (known, _changed(known, pending or [])), "a batch that is half there"
    return found


def _changed(known: dict[Any, str], changes: list[Any]) -> dict[Any, str]:
    known = dict(known)
    for namespace, key, text in changes:
        if text is None:
            known.pop((tuple(namespace), key), None)
        else:
            known[tuple(namespace), key] = text
    return known


def assert_memory_answers_are_those_of_a_rebuild(folder: Path) -> None:
    before = memory_answers(folder, QUERIES, "u0")
    shutil.rmtree(folder / "derived", ignore_errors=True)
    assert memory_answers(folder, QUERIES, "u0") == before


def store_answers(folder: Path, **settings: Any) -> list[list[float]]:
    with open_store(folder, **settings) as store:
        store.search(("docs", "n0"), query="anything")
        assert store._indexes.wait(60)
        return store_scores(store, ("docs", "n0"), QUERIES)


def assert_item_answers_are_those_of_a_rebuild(folder: Path) -> None:
    exact = store_answers(folder, hnsw_threshold=EXACT)
    assert recall(store_answers(folder), exact) >= 0.99
    shutil.rmtree(folder / "derived", ignore_errors=True)
    assert recall(store_answers(folder), exact) >= 0.99
    assert store_answers(folder, hnsw_threshold=EXACT) == exact


CHECKS = {
    "memories": (assert_memories, assert_memory_answers_are_those_of_a_rebuild),
    "items": (assert_items, assert_item_answers_are_those_of_a_rebuild),
}


def _known(kind: str, folder: Path) -> dict[Any, Any]:
    if kind == "memories":
        with open_memory(folder) as memory:
            return memories(memory)
    with open_store(folder) as store:
        return items(store)


@pytest.mark.parametrize("kind", ["memories", "items"])
@pytest.mark.parametrize("series", range(5))
def test_nothing_acknowledged_is_lost_and_nothing_is_half_there_when_killed_at_random(
    run: Run, seeded: dict[str, Path], tmp_path: Path, kind: str, series: int
) -> None:
    folder = shutil.copytree(seeded[kind], tmp_path / "store")
    check, answers = CHECKS[kind]
    known = _known(kind, folder)
    rng = random.Random(series)
    kills = acknowledged = 0
    for number in range(20):
        if rng.random() < 0.5:
            # So the graph is built and saved while the writer writes.
            shutil.rmtree(folder / "derived", ignore_errors=True)
        delay = rng.random() * rng.choice([0.002, 0.05])
        done = run(f"write_{kind}", folder, 1000 * series + number, acks=rng.randrange(8), delay=delay)
        kills += done["killed"]
        acknowledged += sum(word == "done" for word, _ in done["lines"])
        known = check(folder, known, done["lines"])
        assert_sound(folder)
    answers(folder)
    assert kills == 20
    assert acknowledged >= 20


@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("step", ["before-commit", "after-commit"])
@pytest.mark.parametrize("kind", ["memories", "items"])
def test_killed_beside_a_commit_it_is_there_wholly_or_not_at_all(
    run: Run, seeded: dict[str, Path], tmp_path: Path, kind: str, step: str, nth: int
) -> None:
    folder = shutil.copytree(seeded[kind], tmp_path / "store")
    check, answers = CHECKS[kind]
    known = _known(kind, folder)
    done = run(f"write_{kind}", folder, nth, step=step, nth=nth)
    assert done["killed"]
    found = check(folder, dict(known), done["lines"])
    assert [word for word, _ in done["lines"]].count("done") == nth - 1
    committed = found != acknowledged(kind, known, done["lines"])[0]
    assert committed == (step == "after-commit")
    assert_sound(folder)
    answers(folder)


@pytest.mark.parametrize("nth", range(1, 10))
@pytest.mark.parametrize("step", ["before-commit", "after-commit"])
def test_killed_between_keeping_and_reading_no_message_and_no_fact_is_lost_or_doubled(
    run: Run, tmp_path: Path, step: str, nth: int
) -> None:
    folder, told = tmp_path / "store", list[str]()
    for seed in range(2):
        done = run("converse", folder, seed, step=step, nth=nth)
        assert done["killed"]
        tried = [what for word, what in done["lines"] if word == "try"]
        acknowledged = tried[: sum(word == "done" for word, _ in done["lines"])]
        with open_memory(folder, extractor=Echo(), reconcile="off") as memory:
            memory.read(user_id="u0", retry=True)
            assert memory.flush(60)
            assert memory.unread(user_id="u0") == []
            kinds = {kind: sorted(hit["memory"] for hit in memory.get_all(user_id="u0", kinds=[kind])["results"])
                     for kind in ("turn", "fact")}  # fmt: skip
        assert kinds["fact"] == [f"said {text}" for text in kinds["turn"]]
        assert len(set(kinds["turn"])) == len(kinds["turn"])
        told += acknowledged
        assert set(told) <= set(kinds["turn"]) <= {*told, *tried}
        told = kinds["turn"]
    assert_sound(folder)


def killed_at_each_statement(run: Run, scenario: str, base: Path, template: Path | None = None) -> Iterator[Any]:
    """Folders, copied from a template if there is one, in which a scenario was killed, and what it had told."""

    def fresh(number: int) -> Path:
        folder = base / str(number)
        return folder if template is None else shutil.copytree(template, folder)

    lines = run(scenario, fresh(0), statement=0)["lines"]
    for number in range(1, 1 + max(what for kind, what in lines if kind == "statement")):
        folder = fresh(number)
        done = run(scenario, folder, statement=number)
        assert done["killed"]
        yield folder, [line for line in done["lines"] if line[0] != "statement"]
        shutil.rmtree(folder, ignore_errors=True)


def test_killed_at_any_statement_of_the_first_opening_and_the_first_commit(run: Run, tmp_path: Path) -> None:
    for folder, lines in killed_at_each_statement(run, "begin", tmp_path):
        assert_memories(folder, {}, lines)
        assert_sound(folder)
        with open_memory(folder) as memory:
            assert len(memory.add("after", user_id="u0")["results"]) == 1


@pytest.mark.parametrize("scenario", ["forget", "reset"])
def test_killed_at_any_statement_of_forgetting_all_is_there_or_no_byte_of_it(
    run: Run, tmp_path: Path, scenario: str
) -> None:
    template = tmp_path / "template"
    with open_memory(template) as memory:
        for number in range(3):
            memory.add(f"{sentence(number)} {CANARY} {number}", user_id="u0", metadata={"seen": f"{CANARY} {number}"})
        memory.add("the other one stays", user_id="u1")
    seen = set()
    for folder, _ in killed_at_each_statement(run, scenario, tmp_path, template):
        with open_memory(folder) as memory:
            mine = [text for user, text in memories(memory).values() if user == "u0"]
            others = [text for user, text in memories(memory).values() if user == "u1"]
            assert len(mine) in (0, 3)
            assert others == ["the other one stays"] or (scenario == "reset" and not mine)
            seen.add(len(mine))
            if not mine:
                assert containing(folder, CANARY.encode()) == []
        assert_sound(folder)
    assert seen == {0, 3}


def test_killed_at_any_statement_of_deleting_a_thread_it_is_there_or_can_be_deleted_again(
    run: Run, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    with checkpointer(template) as saver:
        for thread in ("gone", "kept", "gone"):
            put_checkpoint(saver, thread, f"{thread} {CANARY if thread == 'gone' else ''}" * 200)
    for folder, _ in killed_at_each_statement(run, "delete_thread", tmp_path, template):
        with checkpointer(folder) as saver:
            gone = list(saver.list({"configurable": {"thread_id": "gone"}}))
            kept = list(saver.list({"configurable": {"thread_id": "kept"}}))
            assert len(gone) in (0, 2)
            assert len(kept) in (1, 2)
            assert all(found.pending_writes for found in gone)
            saver.delete_thread("gone")
            assert containing(folder, CANARY.encode()) == []
