import json
import os
import shutil
import sqlite3
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import pytest
from hostile import UNSOUND
from journal_dump import dump, open_memory, texts
from typer.testing import CliRunner

from langchain_memlayer import EmbedderMismatch, InvalidInput, JournalError, Memory, doctor
from langchain_memlayer.cli import app
from langchain_memlayer.moving import export_store, import_store
from langchain_memlayer.testing import DeterministicEmbeddings


@pytest.fixture
def full(tmp_path: Path) -> Path:
    folder = tmp_path / "full"
    with open_memory(folder) as memory:
        one = memory.add("I live in Rome.", user_id="u", metadata={"n": 2**70, "x": [1.5, None]}, batch_id="b")
        memory.add(["I like tea.", "Shall I?", "I like tea as much as anybody here. Do you?"], user_id="u")
        memory.add("I own a boat.", agent_id="a")
        memory.update(one["results"][0]["id"], "I live in Paris.")
        memory.store.put(("a", "b"), "k", {"t": "é", "big": 2**80}, ttl=5)
    return folder


def test_export_import_export_is_byte_identical(tmp_path: Path, full: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    total = export_store(full, first)
    assert import_store(first, tmp_path / "copy") == total
    export_store(tmp_path / "copy", second)
    assert first.read_bytes() == second.read_bytes()
    before, after = dump(full), dump(tmp_path / "copy")
    assert {name: rows for name, rows in before.items() if name in ("items", "terms", "events", "vectors")} == {
        name: rows for name, rows in after.items() if name in ("items", "terms", "events", "vectors")
    }
    with open_memory(tmp_path / "copy") as memory:
        assert texts(memory.search("Where does she live?", user_id="u"))[0] == "I live in Paris."
        assert doctor.check(memory._journal) == []


def test_an_interrupted_import_goes_on_where_it_stopped(
    tmp_path: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, copy = tmp_path / "1.jsonl", tmp_path / "copy"
    export_store(full, file)
    monkeypatch.setattr("langchain_memlayer.moving.export._ROWS", 3)

    def stop(kind: str, done: int, total: int) -> None:
        if kind == "import" and done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_store(file, copy, progress=stop)
    with pytest.raises(JournalError, match="unfinished"):
        open_memory(copy)
    other = tmp_path / "other.jsonl"
    export_store(full, other, vectors=False)
    with pytest.raises(InvalidInput, match="another file"):
        import_store(other, copy, embeddings=DeterministicEmbeddings())
    seen: list[int] = []
    import_store(file, copy, progress=lambda kind, done, total: seen.append(done) if kind == "import" else None)
    assert seen[0] == 9
    export_store(copy, tmp_path / "2.jsonl")
    assert file.read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_a_damaged_file_is_refused_with_its_line_and_nothing_is_made(tmp_path: Path, full: Path) -> None:
    file = tmp_path / "1.jsonl"
    export_store(full, file)
    whole = file.read_bytes().splitlines(keepends=True)
    for damaged, said in (
        (whole[:-1], f"line {len(whole)}: the end is missing"),
        ([*whole[:3], b"{\n", *whole[4:]], "line 4: it is not JSON"),
        ([whole[0], whole[2], whole[1], *whole[3:]], "line 3: the rows are not in order"),
        ([one.replace(b"boat", b"goat") for one in whole], "not those that were exported"),
        ([*whole[:3], b'{"type": ["item"]}\n', *whole[3:]], "line 4: a row of the type"),
        ([whole[0].replace(b'"dims":', b'"dims":-'), *whole[1:]], "line 1: it is no header"),
        ([whole[0].replace(b'"knows":', b'"knows":[0],"then":'), *whole[1:]], "line 1: it is no header"),
        ([b"{}\n"], "no export"),
    ):
        file.write_bytes(b"".join(damaged))
        with pytest.raises(InvalidInput, match=said):
            import_store(file, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
    for none in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidInput, match="is no file"):
            import_store(none, tmp_path / "copy")


def signed(rows: list[dict[str, Any]]) -> bytes:
    body = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    digest = blake2b(body, digest_size=32).hexdigest()
    return body + orjson.dumps({"type": "end", "rows": len(rows) - 1, "digest": digest}) + b"\n"


@pytest.mark.parametrize(("column", "value", "_"), UNSOUND)
def test_a_row_that_reading_could_not_trust_is_refused_whoever_signed_it(
    tmp_path: Path, column: str, value: Any, _: Any
) -> None:
    with open_memory(tmp_path / "two") as memory:
        memory.add("one", user_id="u", metadata={"a": 1})
        memory.add("two", user_id="v")
    export_store(tmp_path / "two", tmp_path / "1.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "1.jsonl").read_bytes().splitlines()[:-1]]
    place = next(n for n, row in enumerate(rows) if row["type"] == "item")
    rows[place][column] = value
    (tmp_path / "2.jsonl").write_bytes(signed(rows))
    with pytest.raises(InvalidInput, match=f"line {place + 1}: "):
        import_store(tmp_path / "2.jsonl", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("kind", "column", "value"),
    [("event", "seq", 2**63 - 1), ("namespace", "id", 2**62), ("namespace", "path", ".f.x.")],
)
def test_a_row_behind_which_nothing_could_be_written_is_refused(
    tmp_path: Path, kind: str, column: str, value: Any
) -> None:
    with open_memory(tmp_path / "one") as memory:
        memory.add("one", user_id="u")
    export_store(tmp_path / "one", tmp_path / "1.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "1.jsonl").read_bytes().splitlines()[:-1]]
    last = max(n for n, row in enumerate(rows) if row["type"] == kind)
    key = "id" if kind == "namespace" else "seq"
    rows.insert(last + 1, {**rows[last], key: rows[last][key] + 1, column: value})
    (tmp_path / "2.jsonl").write_bytes(signed(rows))
    with pytest.raises(InvalidInput, match=f"line {last + 2}: '{column}' is"):
        import_store(tmp_path / "2.jsonl", tmp_path / "copy")


def test_an_export_is_its_owners_and_is_written_through_nothing_that_was_planted(tmp_path: Path, full: Path) -> None:
    target, victim = tmp_path / "1.jsonl", tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "1.jsonl.part").symlink_to(victim)
    target.symlink_to(victim)
    mask = os.umask(0)
    try:
        export_store(full, target)
    finally:
        os.umask(mask)
    assert victim.read_text() == "precious"
    assert not target.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"full", "victim", "1.jsonl", "1.jsonl.part"}


def test_a_place_where_no_file_can_be_is_one_line(tmp_path: Path, full: Path) -> None:
    logged = full / "journal.sqlite-wal"
    for place in (tmp_path / "missing" / "1.jsonl", tmp_path, Path(os.devnull), full / "journal.sqlite", logged):
        answer = CliRunner().invoke(app, ["--path", str(full), "export", str(place)])
        assert answer.exit_code == 2
        assert len(answer.stderr.splitlines()) == 1
        assert str(place) in answer.stderr
    assert export_store(full, tmp_path / "1.jsonl") > 0
    for command in (["export", str(tmp_path / "2.jsonl")], ["stats"]):
        # The system cannot even say whether this store is there.
        answer = CliRunner().invoke(app, ["--path", str(tmp_path / ("x" * 300)), *command])
        assert (answer.exit_code, len(answer.stderr.splitlines())) == (1, 1)
        assert "Check the folder" in answer.stderr


def test_without_vectors_an_import_makes_them_anew(tmp_path: Path, full: Path) -> None:
    file = tmp_path / "1.jsonl"
    export_store(full, file, vectors=False)
    import_store(file, tmp_path / "copy", embeddings=DeterministicEmbeddings())
    assert dump(full)["vectors"] == dump(tmp_path / "copy")["vectors"]
    with pytest.raises(EmbedderMismatch, match="cannot be made from its name"):
        import_store(file, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    import_store(file, tmp_path / "other", embeddings=DeterministicEmbeddings(dims=64))
    with open_memory(tmp_path / "other", embeddings=DeterministicEmbeddings(dims=64)) as memory:
        assert texts(memory.search("tea", user_id="u"))[0] == "I like tea."


def test_the_command_line_moves_a_store(tmp_path: Path, full: Path) -> None:
    run, file = CliRunner().invoke, str(tmp_path / "1.jsonl")
    assert json.loads(run(app, ["--path", str(full), "--json", "export", file]).stdout)["rows"] > 10
    assert run(app, ["--path", str(full), "export", "-"]).stdout_bytes == Path(file).read_bytes()
    assert run(app, ["--path", str(tmp_path / "copy"), "import", file]).exit_code == 0
    before = dump(full)
    refused = run(app, ["--path", str(full), "import", file])
    assert (refused.exit_code, "not empty" in refused.stderr) == (2, True)
    assert dump(full) == before


DAMAGE = ("'{'", "x'ff'", "1.5")


@pytest.mark.sqlite
def test_a_store_with_damaged_rows_is_told_and_written_to_no_file(tmp_path: Path) -> None:
    with Memory(tmp_path / "0", model=None, embeddings=DeterministicEmbeddings(8), durability="fast") as memory:
        memory.add("zebras", user_id="u", batch_id="b", metadata={"a": 1})
    for damage in (
        *(f"items SET {column} = {value}" for column in ("metadata", "created_at", "terms") for value in DAMAGE),
        *(f"events SET {column} = {value}" for column in ("detail", "recorded_at") for value in DAMAGE),
        *(f"items SET {change}" for change in ("role = x'ff'", "user_id = 'v'", "ns = 9", "seq = 999")),
        "batches SET result = '{'",
        "batches SET seq = 'x'",
        "vectors SET data = 'abc'",
        "meta SET value = '{'",
    ):
        store = shutil.copytree(tmp_path / "0", tmp_path / "store")
        with closing(sqlite3.connect(store / "journal.sqlite")) as db:
            db.execute(f"UPDATE {damage}")
            db.commit()
        with pytest.raises(JournalError, match=r"memlayer doctor") as told:
            export_store(store, tmp_path / "file")
        assert "zebras" not in str(told.value)
        shutil.rmtree(store)
        assert [path.name for path in tmp_path.iterdir()] == ["0"], damage
