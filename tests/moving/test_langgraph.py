import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journal_dump import dump
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from typer.testing import CliRunner

from langchain_memlayer import InvalidInput, MemLayerStore, Memory
from langchain_memlayer.cli import app
from langchain_memlayer.moving import import_langgraph, import_langgraph_sqlite
from langchain_memlayer.testing import DeterministicEmbeddings

VALUES: list[dict[str, Any]] = [{"text": "I like tea."}, {"n": 2**70, "x": [1.5, None, True, {"é": "中"}]}, {}]


def fill(store: Any) -> dict[tuple[tuple[str, ...], str], Any]:
    for label in ("one", "two"):
        for number in range(25):
            store.put(("users", label), f"k{number}", {**VALUES[0], "number": number})
    store.put(("users",), "above", VALUES[0])
    store.put(("users", "one", "deep"), "below", VALUES[2])
    return contents(store)


def contents(store: Any) -> dict[tuple[tuple[str, ...], str], Any]:
    return {(tuple(item.namespace), item.key): item.value for item in store.search((), limit=100_000)}


def test_every_item_of_every_namespace_arrives_with_its_exact_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = InMemoryStore()
    fill(source)
    source.put(("rich",), "k", VALUES[1])
    # Pages smaller than the namespaces, and than their number.
    monkeypatch.setattr("langchain_memlayer.moving.langgraph._PAGE", 2)
    monkeypatch.setattr("langchain_memlayer.moving.langgraph._AT_ONCE", 7)
    told: list[tuple[str, int, int]] = []
    counts = import_langgraph(
        source, tmp_path / "s", embeddings=DeterministicEmbeddings(), progress=lambda *one: told.append(one)
    )
    assert counts == {"imported": 53, "known": 0}
    assert told[0] == ("check", 1, 0)
    assert told[-1] == ("import", 53, 53)
    with Memory(tmp_path / "s", model=None, embeddings=DeterministicEmbeddings()) as memory:
        assert contents(memory.store) == contents(source)
        found = memory.store.search(("users", "two"), query="I like tea. 7", limit=3)
        assert found
        assert all(hit.score is not None for hit in found)


def test_a_second_import_changes_nothing_and_an_interrupted_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = InMemoryStore()
    fill(source)
    monkeypatch.setattr("langchain_memlayer.moving.langgraph._AT_ONCE", 10)

    def stop(kind: str, done: int, total: int) -> None:
        if kind == "import" and done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_langgraph(source, tmp_path / "s", embeddings=None, progress=stop)
    assert import_langgraph(source, tmp_path / "s", embeddings=None) == {"imported": 32, "known": 20}
    before = dump(tmp_path / "s")
    assert import_langgraph(source, tmp_path / "s", embeddings=None) == {"imported": 0, "known": 52}
    assert dump(tmp_path / "s") == before


def test_what_the_target_has_under_a_key_stays(tmp_path: Path) -> None:
    source = InMemoryStore()
    source.put(("a",), "k", {"v": 1})
    source.put(("a",), "l", {"v": 1})
    with MemLayerStore(tmp_path / "s") as target:
        target.put(("a",), "k", {"v": 2})
        assert import_langgraph(source, target) == {"imported": 1, "known": 1}
        assert contents(target) == {(("a",), "k"): {"v": 2}, (("a",), "l"): {"v": 1}}


def test_a_value_that_json_does_not_have_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = InMemoryStore()
    source.put(("a",), "good", {"v": 1})
    source.put(("b",), "bad", {"when": datetime(2025, 1, 1, tzinfo=UTC)})
    with pytest.raises(InvalidInput, match=r"\['when'\] is of type datetime") as refused:
        import_langgraph(source, tmp_path / "s", embeddings=None)
    assert "'bad' in ('b',)" in refused.value.__notes__[0]
    assert not (tmp_path / "s").exists()


def test_a_sqlite_store_arrives_whole_and_its_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "langgraph.sqlite"
    with SqliteStore.from_conn_string(str(file)) as source:
        source.setup()
        expected = fill(source)
    before = file.read_bytes()
    arguments = ["--path", str(tmp_path / "s"), "--json", "import", "--from", "langgraph-sqlite", str(file)]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout) == {"imported": 52, "known": 0, "file": str(file)}
    assert file.read_bytes() == before
    with MemLayerStore(tmp_path / "s") as store:
        assert contents(store) == expected


@pytest.mark.parametrize("made", ["text", "database", "nothing", "folder", "damaged"])
def test_a_file_that_is_no_langgraph_store_or_a_damaged_one_is_refused(tmp_path: Path, made: str) -> None:
    file = tmp_path / "x"
    if made == "text":
        file.write_text("no database at all, but long enough to be read as one " * 20)
    elif made == "database":
        with closing(sqlite3.connect(file)) as db:
            db.execute("CREATE TABLE other (x)")
    elif made == "folder":
        file.mkdir()
    elif made == "damaged":
        with SqliteStore.from_conn_string(str(file)) as source:
            source.setup()
            source.put(("users",), "k7", VALUES[0])
            source.conn.execute("UPDATE store SET value = '{' WHERE key = 'k7'")
    with pytest.raises(InvalidInput, match="no JSON" if made == "damaged" else "SqliteStore"):
        import_langgraph_sqlite(file, tmp_path / "s", embeddings=None)
    assert not (tmp_path / "s").exists()
