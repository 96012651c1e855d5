import asyncio
import dataclasses
import enum
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from operator import add
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import pytest
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from pydantic import BaseModel
from typing_extensions import TypeAliasType, TypedDict

from langchain_memlayer import InvalidInput, JournalClosed, JournalError, MemLayerStore, Memory, NotAStore, checkpointer
from langchain_memlayer.checkpoint import CHECKPOINT_FILE


class State(TypedDict):
    seen: Annotated[list[str], add]


def thread(name: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


def graph(saver: Any, store: Any = None) -> Any:
    def note(state: State) -> dict[str, list[str]]:
        return {"seen": [f"{len(state['seen'])}"]}

    return StateGraph(State).add_node(note).add_edge(START, "note").compile(checkpointer=saver, store=store)


async def test_all_cases_of_the_conformance_suite_pass(tmp_path: Path) -> None:
    count = iter(range(10_000))

    @checkpointer_test(name="MemLayerSaver")
    async def saver() -> AsyncIterator[Any]:
        async with checkpointer(tmp_path / f"store-{next(count)}") as opened:
            yield opened

    report = await validate(saver)
    assert report.passed_all(), report


def test_a_graph_runs_in_invoke_and_in_two_event_loops_one_after_the_other(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        built = graph(saver)
        built.invoke({"seen": ["a"]}, thread("1"))
        for _ in range(2):
            asyncio.run(built.ainvoke({"seen": ["b"]}, thread("1")))
        assert built.get_state(thread("1")).values["seen"] == ["a", "1", "b", "3", "b", "5"]
        assert len(list(built.get_state_history(thread("1")))) == 9
        # A caller may use the saver while it lists.
        assert all(saver.get_tuple(checkpoint.config) for checkpoint in saver.list(thread("1")))
    with checkpointer(tmp_path) as again:
        assert graph(again).get_state(thread("1")).values["seen"][-1] == "5"


def test_many_threads_share_one_saver(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        built = graph(saver)
        workers = [threading.Thread(target=built.invoke, args=({"seen": [str(n)]}, thread(str(n)))) for n in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [built.get_state(thread(str(n))).values["seen"] for n in range(16)] == [[str(n), "1"] for n in range(16)]


async def test_what_waits_for_the_file_leaves_the_loops_own_threads_to_others(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with checkpointer(tmp_path) as saver:
        with saver.lock:
            waits = asyncio.ensure_future(saver.aget_tuple({"configurable": {"thread_id": "1"}}))
            await asyncio.sleep(0)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
        assert await waits is None


def test_a_closed_saver_and_a_foreign_file_say_so(tmp_path: Path) -> None:
    saver = checkpointer(tmp_path / "store")
    saver.close()
    with pytest.raises(JournalClosed, match="open it again"):
        saver.get_tuple(thread("1"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStore):
        checkpointer(tmp_path / "file")


def test_a_reader_that_waits_while_the_saver_is_closed_is_told_so(tmp_path: Path) -> None:
    saver, asked = checkpointer(tmp_path), threading.Event()

    class Lock:
        held = threading.RLock()

        def __enter__(self) -> None:
            asked.set()
            self.held.acquire()

        def __exit__(self, *_: object) -> None:
            self.held.release()

    saver._shared.locks[os.getpid()] = Lock()
    with ThreadPoolExecutor(1) as pool:
        with Lock.held:
            waits = pool.submit(saver.get_tuple, thread("1"))
            assert asked.wait(10)
            saver.close()
        with pytest.raises(JournalClosed):
            waits.result()


def test_what_is_no_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="durability"):
        checkpointer(tmp_path / "store", durability="best")  # type: ignore[arg-type]
    for given in ("Order", [1], ["Order"], int, 7):
        with pytest.raises(InvalidInput, match="allowed_types"):
            checkpointer(tmp_path / "store", allowed_types=given)  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Order(BaseModel):
    price: int
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Address:
    city: str


@dataclasses.dataclass
class Undeclared:
    made: ClassVar[list[str]] = []
    name: str

    def __post_init__(self) -> None:
        self.made.append(self.name)


class Express(Order):
    hours: int


class Stop(NamedTuple):
    address: Address


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Size(enum.Enum):
    SMALL = 1


@dataclasses.dataclass
class Note:
    text: str


class Tag(BaseModel):
    name: str


class Label(BaseModel):
    text: str


Labels = TypeAliasType("Labels", list[Label])


class Typed(TypedDict, total=False):
    orders: list[Order]
    address: Address | None
    colour: Colour
    stop: Stop
    box: Box[Note]
    size: Literal[Size.SMALL]
    tags: Mapping[str, Sequence[Tag]]
    labels: Labels
    anything: Any


def test_what_the_graphs_schema_declares_comes_back_as_itself_and_nothing_else_does(tmp_path: Path) -> None:
    written = {
        "orders": [Order(price=3), Express(price=9, hours=2)], "address": Address("Oslo"), "colour": Colour.RED,
        "stop": Stop(Address("Bergen")), "box": Box(Note("fragile")), "size": Size.SMALL,
        "tags": {"a": [Tag(name="b")]}, "labels": [Label(text="c")],
    }  # fmt: skip

    def fill(state: Typed) -> dict[str, Any]:
        return {**written, "anything": Undeclared("x")}

    def built(saver: Any) -> Any:
        return StateGraph(Typed).add_node(fill).add_edge(START, "fill").compile(checkpointer=saver)

    with checkpointer(tmp_path) as saver:
        built(saver).invoke({}, thread("1"))
        Undeclared.made.clear()
        assert built(saver).get_state(thread("1")).values == {**written, "anything": {"name": "x"}}
        assert saver.get_tuple(thread("1")).checkpoint["channel_values"]["address"] == {"city": "Oslo"}  # type: ignore[union-attr]
    assert Undeclared.made == []
    with checkpointer(tmp_path, allowed_types=[Undeclared]) as saver:
        assert built(saver).get_state(thread("1")).values["anything"] == Undeclared("x")


def test_a_function_graphs_own_types_come_back_too(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:

        def said(order: Any, *, previous: Any = None) -> Any:
            interrupt(f"{type(order).__name__} after {type(previous).__name__}")
            return order

        said.__annotations__ = {"order": Order, "previous": Order, "return": Order}  # LangGraph reads no strings
        work = entrypoint(checkpointer=saver)(said)
        work.invoke(Order(price=1), thread("1"))
        assert work.invoke(Command(resume=True), thread("1")) == Order(price=1)
        (asked,) = work.invoke(Order(price=2), thread("1"))["__interrupt__"]
        assert asked.value == "Order after Order"


@pytest.mark.parametrize("delete", ["delete_thread", "prune"])
def test_a_run_that_goes_on_does_not_bring_its_deleted_thread_back(delete: str, tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver, checkpointer(tmp_path) as other:

        def remove(state: State) -> dict[str, list[str]]:
            other.delete_thread("1") if delete == "delete_thread" else other.prune(["1"], strategy="delete")
            return {"seen": ["secret"]}

        inner = StateGraph(State).add_node("late", lambda _: {"seen": ["secret"]}).add_edge(START, "late").compile()
        steps = (
            StateGraph(State).add_node(remove).add_node("inner", inner).add_node("last", lambda _: {"seen": ["end"]})
        )
        steps.add_edge(START, "remove").add_edge("remove", "inner").add_edge("inner", "last")
        running = steps.compile(checkpointer=saver)
        assert running.invoke({"seen": []}, thread("1"))["seen"][-1] == "end"
        assert list(saver.list(None)) == []
        with saver.cursor() as cursor:
            assert cursor.execute("SELECT count(*) FROM writes").fetchone() == (0,)
        graph(saver).invoke({"seen": ["anew"]}, thread("1"))
        graph(saver).invoke({"seen": ["again"]}, thread("1"))
        assert graph(saver).get_state(thread("1")).values["seen"] == ["anew", "1", "again", "3"]


def test_a_thread_that_a_fast_clock_wrote_begins_anew_when_it_was_deleted(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        graph(saver).invoke({"seen": ["x"]}, thread("1"))
        newest = saver.get_tuple(thread("1"))
        assert newest is not None
        ahead: Any = {**newest.checkpoint, "id": f"f{newest.checkpoint['id'][1:]}"}
        place = saver.put(newest.config, ahead, newest.metadata, {})
        saver.delete_thread("1")
        saver.put(place, {**empty_checkpoint(), "id": f"f{ahead['id'][1:-1]}e"}, newest.metadata, {})
        assert list(saver.list(thread("1"))) == []
        graph(saver).invoke({"seen": ["anew"]}, thread("1"))
        assert graph(saver).get_state(thread("1")).values["seen"] == ["anew", "1"]


def test_what_a_deleted_run_saves_late_is_dropped(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        place: Any = {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}
        of_run: Any = {"source": "loop", "step": 0, "parents": {}, "run_id": "r"}
        first = saver.put(place, empty_checkpoint(), of_run, {})
        saver.delete_for_runs(["r"])
        late = saver.put(first, empty_checkpoint(), of_run, {})
        saver.put_writes(late, [("seen", "secret")], "task")
        assert list(saver.list(None)) == []
        with saver.cursor() as cursor:
            assert cursor.execute("SELECT count(*) FROM writes").fetchone() == (0,)
        assert graph(saver).invoke({"seen": ["anew"]}, thread("1"))["seen"] == ["anew", "1"]


def test_a_second_saver_leaves_the_first_its_locks_on_the_file(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as first, checkpointer(tmp_path):
        graph(first).invoke({"seen": ["a"]}, thread("1"))
        # The last process that closes the file takes its log along: this one is not the last.
        look = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('SELECT 1 FROM writes'); db.close()"
        subprocess.run([sys.executable, "-c", look, tmp_path / CHECKPOINT_FILE], check=True)
        graph(first).invoke({"seen": ["b"]}, thread("1"))
    with checkpointer(tmp_path) as again:
        assert graph(again).get_state(thread("1")).values["seen"] == ["a", "1", "b", "3"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_exchanged_under_the_saver_is_noticed_and_the_new_one_stays_whole(
    replaced: bool, tmp_path: Path
) -> None:
    with checkpointer(tmp_path / "backup") as saver:
        graph(saver).invoke({"seen": ["kept"]}, thread("1"))
    saver = checkpointer(tmp_path / "store")
    graph(saver).invoke({"seen": ["gone"]}, thread("2"))
    file = tmp_path / "store" / CHECKPOINT_FILE
    if replaced:
        (tmp_path / "backup" / CHECKPOINT_FILE).replace(file)
    else:
        file.unlink()
    for _ in range(2):
        with pytest.raises(JournalError, match="deleted or replaced while they were open"):
            graph(saver).invoke({"seen": ["lost"]}, thread("2"))
    if replaced:
        with checkpointer(tmp_path / "store") as again:
            assert graph(again).get_state(thread("1")).values["seen"] == ["kept", "1"]
    saver.close()


def test_a_copy_of_a_thread_goes_on_by_itself_even_where_one_was_deleted(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        graph(saver).invoke({"seen": ["a"]}, thread("1"))
        graph(saver).invoke({"seen": ["x"]}, thread("2"))
        saver.delete_thread("2")
        saver.copy_thread("1", "2")
        graph(saver).invoke({"seen": ["b"]}, thread("2"))
        assert graph(saver).get_state(thread("2")).values["seen"] == ["a", "1", "b", "3"]
        assert graph(saver).get_state(thread("1")).values["seen"] == ["a", "1"]


def test_a_number_that_json_does_not_have_spoils_no_look_at_other_threads(tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        built = graph(saver)
        built.invoke({"seen": ["a"]}, {**thread("odd"), "metadata": {"score": float("nan"), "run_id": "r"}})
        built.invoke({"seen": ["b"]}, thread("plain"))
        found = [one.metadata.get("score", "none") for one in saver.list(None, filter={"source": "loop", "step": 1})]
        assert found == ["none", None]
        saver.delete_for_runs(["r"])
        assert {one.config["configurable"]["thread_id"] for one in saver.list(None)} == {"plain"}


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ("checkpoints SET checkpoint = substr(checkpoint, 1, 99)", "last"),
        ("checkpoints SET checkpoint = X'80'", "last"),
        ("checkpoints SET type = 'pickle'", "middle"),
        ("checkpoints SET metadata = CAST('{' AS BLOB)", "middle"),
        ("checkpoints SET metadata = CAST('[]' AS BLOB)", "last"),
        ("writes SET value = X'C1', type = 'msgpack'", "middle"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_hides_no_other(
    damage: str, place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with checkpointer(tmp_path) as saver:
        built = graph(saver)
        for run, name in (("r", "1"), ("s", "1"), ("t", "2")):
            built.invoke({"seen": [run]}, {**thread(name), "metadata": {"run_id": run}})
        before = [one.config["configurable"]["checkpoint_id"] for one in saver.list(thread("1"))]
        harmed = before.pop(0 if place == "last" else 2)
        with saver.cursor() as cursor:
            cursor.execute(f"UPDATE {damage} WHERE checkpoint_id = ?", (harmed,))
        with pytest.raises(JournalError, match=f"'{harmed}' of thread '1' is damaged"):
            built.get_state({"configurable": {**thread("1")["configurable"], "checkpoint_id": harmed}})
        history = list(built.get_state_history(thread("1")))
        assert [one.config["configurable"]["checkpoint_id"] for one in history] == before
        assert harmed in caplog.text
        assert len(list(saver.list(None, filter={"source": "input"}))) in (2, 3)
        if place == "last":
            for call in (built.get_state, lambda config: built.invoke({"seen": ["x"]}, config)):
                with pytest.raises(JournalError, match="The last checkpoint of thread '1' is damaged"):
                    call(thread("1"))
            with pytest.raises(JournalError, match="damaged"):
                saver.prune(["1"])
        saver.copy_thread("1", "3")
        # The checkpoint before has what was written after it.
        assert built.get_state(thread("3")).values["seen"] == ["r", "1", "s", "3"]
        assert built.invoke(None, thread("3"))["seen"] == ["r", "1", "s", "3"]
        saver.delete_for_runs(["r"])
        assert built.get_state(thread("2")).values["seen"] == ["t", "1"]
        with saver.cursor() as cursor:
            cursor.execute("UPDATE checkpoints SET checkpoint = X'C1'")
        with pytest.raises(JournalError, match="of thread '1' is damaged"):
            saver.copy_thread("1", "4")
        assert list(saver.list(thread("4"))) == []


@pytest.mark.parametrize("limit", [-1, 1.5, "1"])
def test_a_limit_that_counts_nothing_is_refused_by_its_name(limit: Any, tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        graph(saver).invoke({"seen": ["a"]}, thread("1"))
        assert len(list(saver.list(None, limit=10**30))) == len(list(saver.list(None)))
        with pytest.raises(InvalidInput, match="limit must be an integer of at least 0"):
            list(saver.list(None, limit=limit))


def test_what_would_lose_more_than_was_meant_is_refused(tmp_path: Path) -> None:
    def joined(seen: list[str] | None, writes: list[list[str]]) -> list[str]:
        return [*(seen or []), *chain.from_iterable(writes)]

    class Delta(TypedDict):
        seen: Annotated[list[str], DeltaChannel(joined)]

    built = StateGraph(Delta).add_node("step", lambda _: {"seen": ["step"]}).add_edge(START, "step")
    with checkpointer(tmp_path) as saver:
        graph(saver).invoke({"seen": ["a"]}, thread("1"))
        for run in ("first", "last"):
            config = {**thread("2"), "metadata": {"run_id": run}}
            built.compile(checkpointer=saver).invoke({"seen": ["a"]}, config)
        before = list(saver.list(None))
        for refused in (lambda: saver.prune(["1", "2"]), lambda: saver.delete_for_runs(["first"])):
            with pytest.raises(InvalidInput, match="DeltaChannel"):
                refused()
        for call in (saver.prune, saver.delete_for_runs):
            with pytest.raises(InvalidInput, match="must be a list"):
                call("1")
        assert list(saver.list(None)) == before
        assert built.compile(checkpointer=saver).get_state(thread("2")).values["seen"] == ["a", "step"] * 2
        saver.delete_for_runs(["last"])
        assert built.compile(checkpointer=saver).get_state(thread("2")).values["seen"] == ["a", "step"]
        saver.prune(["2"], strategy="delete")
        assert list(saver.list(thread("2"))) == []


@pytest.mark.parametrize("erase", ["delete_thread", "prune", "delete_for_runs"])
def test_what_is_deleted_leaves_the_files(erase: str, tmp_path: Path) -> None:
    with checkpointer(tmp_path) as saver:
        config = {**thread("1"), "metadata": {"run_id": "r1"}}
        graph(saver).invoke({"seen": ["first-secret"]}, config)
        saver.put(  # the last checkpoint is without it
            {"configurable": {"thread_id": "1", "checkpoint_ns": ""}}, empty_checkpoint(), {}, {}
        )
        with pytest.raises(InvalidInput, match="keep_latest"):
            saver.prune(["1"], strategy="oldest")
        getattr(saver, erase)(*{"delete_thread": ["1"], "prune": [["1"]], "delete_for_runs": [["r1"]]}[erase])
        assert not any(b"first-secret" in file.read_bytes() for file in tmp_path.iterdir())
        assert len(list(saver.list(thread("1")))) == (0 if erase == "delete_thread" else 1)


def test_a_memory_a_store_and_a_checkpointer_share_the_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    with Memory(model=None, embeddings=None) as memory, MemLayerStore() as store, checkpointer() as saver:
        store.put(("a",), "k", {"v": 1})
        graph(saver).invoke({"seen": ["a"]}, thread("1"))
        assert memory.path == tmp_path / "home" / "default"
        assert memory.store.get(("a",), "k") is not None
        with memory.checkpointer() as same:
            assert graph(same).get_state(thread("1")).values["seen"] == ["a", "1"]
    with Memory(":memory:", model=None, embeddings=None) as memory, memory.checkpointer() as saver:
        assert memory.path is None
        assert graph(saver).invoke({"seen": []}, thread("1"))["seen"] == ["0"]
