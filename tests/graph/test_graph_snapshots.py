import logging
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from told import ALICE, Told, shown, state

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.graph import memory_graph as graphs_module
from langchain_memlayer.graph.memory_graph import TripleGraph
from langchain_memlayer.index import files
from langchain_memlayer.types import QUARANTINED, VISIBLE, Row, Scope

NAMES = ["Anna", "anna", "Anna Lee", "Anna Kim", "my friend Bob", "Bob", "Bob Smith", "Berlin", "小雨"]
TRIPLES = st.tuples(st.sampled_from(NAMES), st.sampled_from(["likes", "lives in", "is"]), st.sampled_from(NAMES))
SCOPES = (ALICE, Scope("alice", "a"), Scope("bob"))
STEPS = st.one_of(
    st.tuples(st.just("tell"), st.lists(TRIPLES, min_size=1, max_size=3), st.sampled_from(SCOPES)),
    st.tuples(st.sampled_from(["end", "again", "hide", "show", "forget"]), st.integers(0, 20), st.none()),
    st.tuples(st.sampled_from(["read", "reopen"]), st.none(), st.none()),
)


def take(told: Told, rows: list[Row], step: tuple[str, Any, Any]) -> None:
    what, which, scope = step
    if what == "tell":
        rows.append(told.tell(*which, scope=scope))
    elif what == "read":
        told.graph()
    elif what == "reopen":
        told.graphs = told.reopened()
    elif rows:
        row = rows[which % len(rows)]
        if what == "again":
            told.change(row, count=2)
        elif what in ("hide", "show"):
            told.change(row, state=QUARANTINED if what == "hide" else VISIBLE)
        else:
            rows.remove(row)
            (told.end if what == "end" else told.forget)(row)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=25))
def test_a_graph_that_followed_says_what_a_rebuilt_one_says(steps: list[tuple[str, Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        told = Told(Path(folder) / "store", snapshot_edges=1)
        rows: list[Row] = []
        for step in steps:
            take(told, rows, step)
        for scope in SCOPES:
            assert state(told.graph(scope)) == state(told.rebuilt(scope))
            assert state(told.reopened().graph(scope)) == state(told.rebuilt(scope))
        told.journal.close()


@pytest.fixture
def told(tmp_path: Path) -> Any:
    told = Told(tmp_path / "store", snapshot_edges=1)
    for n in range(20):
        told.tell((f"Anna {chr(65 + n)}", "likes", f"thing {n}"))
    told.graph()
    yield told
    told.journal.close()


def derived(told: Told) -> Path:
    assert told.journal.folder is not None
    return told.journal.folder / "derived"


def name_of(scope: Scope = ALICE) -> str:
    from langchain_memlayer.engine import graph_sync

    return graph_sync._snapshot_name(graph_sync._key(scope, quarantined=False))


def count_rebuilds(monkeypatch: pytest.MonkeyPatch) -> list[Scope]:
    from langchain_memlayer.journal.cache_reader import CacheReader

    rebuilt: list[Scope] = []
    everything = CacheReader.scope_triples

    def counted(reader: CacheReader, scope: Scope, *, quarantined: bool) -> list[tuple[Any, ...]]:
        rebuilt.append(scope)
        return everything(reader, scope, quarantined=quarantined)

    monkeypatch.setattr(CacheReader, "scope_triples", counted)
    return rebuilt


def test_a_snapshot_and_what_came_after_it_are_the_graph(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    told.tell(("Bob", "likes", "tea"))
    rebuilt = count_rebuilds(monkeypatch)
    graph = told.reopened().graph(ALICE)
    assert rebuilt == []
    assert state(graph) == state(told.rebuilt())
    assert ("Bob", "likes", "tea") in shown(graph)


def test_small_graphs_have_no_snapshot(tmp_path: Path) -> None:
    told = Told(tmp_path / "store")
    told.tell(("Anna", "likes", "tea"))
    assert len(told.graph()) == 1
    assert not derived(told).exists()
    told.journal.close()


def test_a_snapshot_is_written_anew_when_a_fifth_has_changed(told: Told) -> None:
    def seq() -> Any:
        return files.read(derived(told), name_of(), {})[1]["seq"]

    first = seq()
    for n in range(4):
        told.tell(("Bob", "likes", f"tea {n}"))
        told.graph()
    assert seq() == first
    for n in range(2):
        told.tell(("Bob", "likes", f"rum {n}"))
        told.graph()
    assert seq() > first


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> Any:
        return exec, (f"__import__('pathlib').Path({self.target!r}).write_text('run')",)


HOSTILE = {
    "nothing": b"", "noise": b"\x80\x05noise", "cut": pickle.dumps(([], [], []))[:-4], "a number": pickle.dumps(7),
    "four parts": pickle.dumps(([], [], [], [])), "numbers": pickle.dumps((1, 2, 3)),
    "relations of nothing": pickle.dumps(([], ["likes"], [])),
    "names of nothing": pickle.dumps(([], [], [["anna", "anna lee"]])),
    "a class": pickle.dumps((Scope("x"), [], [])),
    "an attribute set on a list": b"\x80\x02]}X\x01\x00\x00\x00ak\x01sb.", "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02K\x01Q.", "a call without a function": b"\x80\x02K\x01)R.",
    "a deep list": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
}  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_graph_is_refused(payload: bytes) -> None:
    with pytest.raises(SnapshotError, match="rebuilt"):
        TripleGraph.load(payload)


def spoiled(place: int, change: Any) -> Any:
    """Changes one part of a snapshot: 0 the columns of its triples, 1 its relations, 2 its groups."""
    return lambda parts: change(parts[place])


SPOILED = {
    "a column too few": spoiled(0, lambda columns: columns.pop()),
    "a column that is shorter": spoiled(0, lambda columns: columns[2].pop()),
    "a name that is a number": spoiled(0, lambda columns: columns[3].__setitem__(0, 7)),
    "a row that is a text": spoiled(0, lambda columns: columns[1].__setitem__(0, "1")),
    "a row that is no number": spoiled(0, lambda columns: columns[1].__setitem__(0, True)),
    "a key that is a list": spoiled(0, lambda columns: columns[7].__setitem__(0, [])),
    "a relation too few": spoiled(1, lambda relations: relations.pop()),
    "a relation without a name": spoiled(1, lambda relations: relations.__setitem__(0, None)),
    "a name that is not there": spoiled(2, lambda groups: groups[0].append("anna kim")),
    "a name twice": spoiled(2, lambda groups: groups[0].append(groups[0][0])),
    "a group of one": spoiled(2, lambda groups: groups[0].pop()),
    "names of two families": spoiled(2, lambda groups: groups[0].append("tea")),
    "a name in two groups": spoiled(2, lambda groups: groups.append(groups[0])),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED.keys())
def test_parts_that_do_not_fit_together_are_refused(spoil: Any) -> None:
    graph = TripleGraph()
    graph.apply(1, [(1, 1, "m1", "Anna", "likes", "Bob", None), (2, 2, "m2", "Anna Lee", "likes", "tea", 5)])
    parts = pickle.loads(graph.dump())
    assert state(TripleGraph.load(pickle.dumps(parts))) == state(graph)
    spoil(parts)
    with pytest.raises(SnapshotError):
        TripleGraph.load(pickle.dumps(parts))


def test_loading_works_out_no_name_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = TripleGraph()
    told = [("Anna", "livesIn", "Berlin"), ("Anna Lee", "likes", "tea"), ("Bob", "likes", "Tea")]
    graph.apply(1, [(n, n, f"m{n}", *triple, None) for n, triple in enumerate(told, 1)])
    payload, expected = graph.dump(), state(graph)
    worked: list[str] = []
    for name in ("read_name", "relation_name", "merge"):
        monkeypatch.setattr(graphs_module, name, lambda *args, name=name, **kwargs: worked.append(name))
    loaded = TripleGraph.load(payload)
    assert worked == []
    monkeypatch.undo()
    assert state(loaded) == expected


def forge(told: Told, payload: bytes, **meta: Any) -> None:
    """A newest generation that has the right digest, position and origin."""
    found = files.read(derived(told), name_of(), {})[1]
    files.write(derived(told), name_of(), payload, {**found, **meta})


def test_code_in_a_snapshot_is_not_run_and_the_graph_is_rebuilt(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "run"
    payload = pickle.dumps((Bomb(target), [], []))
    pickle.loads(payload)
    assert target.read_text() == "run"
    target.unlink()
    forge(told, payload)
    expected = state(told.rebuilt())
    rebuilt = count_rebuilds(monkeypatch)
    assert state(told.reopened().graph(ALICE)) == expected
    assert len(rebuilt) == 1
    assert not target.exists()


def test_a_snapshot_of_another_store_is_refused(told: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = Told(tmp_path / "other", snapshot_edges=1)
    for n in range(20):
        other.tell(("Eve", "stole", f"thing {n}"))
    other.graph()
    for path in derived(other).glob("*-*"):
        (derived(told) / path.name).write_bytes(path.read_bytes())
    with caplog.at_level(logging.DEBUG):
        assert state(told.reopened().graph(ALICE)) == state(told.rebuilt())
    assert "made from something else (store)" in caplog.text
    assert "Eve" not in caplog.text
    other.journal.close()


@pytest.mark.parametrize("change", [{"seq": 10**6}, {"seq": None}, {"seq": "1"}, {"mark": "0" * 32}, {"mark": None}])
def test_a_snapshot_of_another_course_of_the_journal_is_refused(
    told: Told, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    forge(told, files.read(derived(told), name_of(), {})[0], **change)
    rebuilt = count_rebuilds(monkeypatch)
    told.reopened().graph(ALICE)
    assert len(rebuilt) == 1


def test_what_another_process_forgot_is_not_written_again(told: Told) -> None:
    row = told.tell(("Bob", "has", "quokkazephyr"))
    stale = told.reopened()
    graph = stale.graph(ALICE)
    told.forget(row)
    graph.changed = 10**6
    stale._save(next(iter(stale._cache._entries)), graph)
    assert list(derived(told).glob("*.data")) == []
    stale.graph(ALICE)
    written = list(derived(told).glob("*.data"))
    assert len(written) == 1
    assert b"quokka" not in written[0].read_bytes().lower()


def test_a_folder_that_cannot_be_written_costs_the_snapshot_only(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    for n in range(20):
        told.tell(("Bob", "likes", f"tea {n}"))
    assert len(told.graph()) == 40
    assert "No space left on device" in caplog.text
