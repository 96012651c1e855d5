from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from operator import add
from pathlib import Path
from typing import Annotated, Any

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from langchain_memlayer import InvalidInput, JournalClosed, MemLayerStore, NotAStore, checkpointer


class State(TypedDict):
    seen: Annotated[list[str], add]


def thread(name: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def graph(saver: Any, store: Any = None) -> Any:
    def note(state: State) -> dict[str, list[str]]:
        return {"seen": [f"{len(state['seen'])}"]}

    return StateGraph(State).add_node(note).add_edge(START, "note").compile(checkpointer=saver, store=store)


async def test_all_base_cases_of_the_conformance_suite_pass(tmp_path: Path) -> None:
    count = iter(range(10_000))

    @checkpointer_test(name="MemLayerSaver")
    async def saver() -> AsyncIterator[Any]:
        async with checkpointer(tmp_path / f"store-{next(count)}") as opened:
            yield opened

    report = await validate(saver)
    assert report.passed_all_base(), report


def test_a_graph_runs_in_invoke_and_in_two_event_loops_one_after_the_other(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        built = graph(saver)
        built.invoke({"seen": ["a"]}, thread("1"))
        for _ in range(2):
            asyncio.run(built.ainvoke({"seen": ["b"]}, thread("1")))
        assert built.get_state(thread("1")).values["seen"] == ["a", "1", "b", "3", "b", "5"]
        assert len(list(built.get_state_history(thread("1")))) == 9
    with checkpointer(tmp_path) as again:
        assert graph(again).get_state(thread("1")).values["seen"][-1] == "5"


def test_it_lives_beside_a_store_in_one_folder(tmp_path: Path) -> None:
    with MemLayerStore(tmp_path) as store, checkpointer(tmp_path) as saver:
        store.put(("a",), "k", {"v": 1})
        graph(saver, store).invoke({"seen": []}, thread("1"))
        assert store.get(("a",), "k").value == {"v": 1}  # type: ignore[union-attr]
    assert {"checkpoints.sqlite", "journal.sqlite"} <= {file.name for file in tmp_path.iterdir()}


def test_many_threads_share_one_saver(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        built = graph(saver)
        workers = [threading.Thread(target=built.invoke, args=({"seen": [str(n)]}, thread(str(n)))) for n in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [built.get_state(thread(str(n))).values["seen"] for n in range(16)] == [[str(n), "1"] for n in range(16)]


def test_a_caller_may_use_the_saver_while_it_lists(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        graph(saver).invoke({"seen": ["a"]}, thread("1"))
        found = [saver.get_tuple(checkpoint.config) for checkpoint in saver.list(thread("1"))]
        assert len(found) == 3
        assert all(found)


def test_a_closed_saver_and_a_foreign_file_say_so(tmp_path: Path) -> None:
    saver = checkpointer(tmp_path / "store")
    saver.close()
    with pytest.raises(JournalClosed, match="open it again"):
        saver.get_tuple(thread("1"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStore):
        checkpointer(tmp_path / "file")


@pytest.mark.parametrize("given", ["Order", [1], ["Order"], int, 7], ids=repr)
def test_allowed_types_that_are_no_classes_are_refused(tmp_path: Path, given: Any) -> None:
    with pytest.raises(InvalidInput, match="allowed_types"):
        checkpointer(tmp_path / "store", allowed_types=given)
    assert not (tmp_path / "store").exists()
