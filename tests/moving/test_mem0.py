import hashlib
import json
import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from journal_dump import dump, open_memory, texts
from typer.testing import CliRunner

from langchain_memlayer import InvalidInput, doctor
from langchain_memlayer.cli import app
from langchain_memlayer.moving import import_mem0
from langchain_memlayer.testing import DeterministicEmbeddings

FIRST, SECOND, THIRD = (f"2025-0{month}-01T10:00:00+00:00" for month in (1, 2, 3))
EMBEDDINGS = DeterministicEmbeddings()
Docs = dict[str, dict[str, Any]]


def payload(text: str, *, created: str = FIRST, updated: str | None = None, **others: Any) -> dict[str, Any]:
    return {
        **others,
        "data": text,
        "hash": hashlib.md5(text.encode()).hexdigest(),
        "created_at": created,
        "updated_at": updated or created,
        "text_lemmatized": text,
    }


DOCS: Docs = {
    "m1": payload("I live in Oslo.", updated=THIRD, user_id="u", role="user", topic="home", tags=["a", {"b": 1}]),
    "m2": payload("Nice, in Rome.", created=SECOND, user_id="u", role="assistant"),
    "m3": payload("I own a boat.", agent_id="a", run_id="r", role="user", actor_id="Bob"),
    "e1": {"data": "oslo", "entity_type": "PLACE", "linked_memory_ids": ["m1"], "user_id": "u"},
    "x1": payload("Nobody's.", role="user"),
    "x2": {"user_id": "u", "type": "user_identity"},
}
HISTORY = [
    ("m1", None, "I live in Rome.", "ADD", FIRST, FIRST),
    ("m2", None, "Nice, in Rome.", "ADD", SECOND, SECOND),
    ("d1", None, "gone", "ADD", FIRST, FIRST),
    ("m1", "I live in Rome.", "I live in Paris.", "UPDATE", FIRST, SECOND),
    ("m1", "I live in Paris.", "I live in Oslo.", "UPDATE", FIRST, THIRD),
    ("d1", "gone", None, "DELETE", FIRST, SECOND),
]


def make(folder: Path, docs: Docs, *, kind: str = "json", history: list[Any] | None = None) -> Path:
    vectors = folder / "faiss"
    vectors.mkdir(parents=True)
    index = faiss.IndexFlatIP(4)
    index.add(np.ones((len(docs), 4), np.float32))
    faiss.write_index(index, str(vectors / "mem0.faiss"))
    numbers = dict(enumerate(docs))
    if kind == "json":
        data = {"docstore": docs, "index_to_id": {str(n): key for n, key in numbers.items()}}
        (vectors / "mem0.json").write_text(json.dumps(data, indent=2), encoding="utf-8")
    else:
        (vectors / "mem0.pkl").write_bytes(pickle.dumps((docs, numbers)))
    if history is not None:
        with closing(sqlite3.connect(folder / "history.db")) as db:
            db.execute(
                "CREATE TABLE history (id TEXT PRIMARY KEY, memory_id TEXT, old_memory TEXT, new_memory TEXT, event "
                "TEXT, created_at DATETIME, updated_at DATETIME, is_deleted INTEGER, actor_id TEXT, role TEXT)"
            )
            db.executemany(
                "INSERT INTO history VALUES (?,?,?,?,?,?,?,0,NULL,NULL)",
                [(f"h{number}", *row) for number, row in enumerate(history)],
            )
            db.commit()
    return folder


@pytest.mark.parametrize("kind", ["json", "pickle"])
def test_every_memory_arrives_with_its_id_text_metadata_owner_and_times(tmp_path: Path, kind: str) -> None:
    source = make(tmp_path / "mem0", DOCS, kind=kind, history=HISTORY)
    counts = import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)
    assert counts == {"imported": 3, "known": 0, "skipped": 2}
    with open_memory(tmp_path / "s") as memory:
        one, two, three = (memory.get(key) for key in ("m1", "m2", "m3"))
        assert (one["memory"], one["user_id"], one["role"]) == ("I live in Oslo.", "u", "user")
        assert (one["created_at"], one["updated_at"]) == (FIRST, THIRD)
        assert {k: one["metadata"][k] for k in ("topic", "tags")} == {"topic": "home", "tags": ["a", {"b": 1}]}
        assert not {"hash", "text_lemmatized", "user_id"} & set(one["metadata"])
        assert (two["role"], two["created_at"], two["updated_at"]) == ("assistant", SECOND, SECOND)
        assert (three["agent_id"], three["run_id"], three["user_id"], three["name"]) == ("a", "r", None, "Bob")
        assert texts(memory.search("Who has a boat?", agent_id="a"))[0] == "I own a boat."
        assert len(memory.get_all(user_id="u")["results"]) == 2


def test_earlier_texts_are_its_history_and_held_when_they_held(tmp_path: Path) -> None:
    import_mem0(make(tmp_path / "mem0", DOCS, history=HISTORY), tmp_path / "s", embeddings=EMBEDDINGS)
    with open_memory(tmp_path / "s") as memory:
        assert [(row["event"], row["prev_value"], row["new_value"]) for row in memory.history("m1")] == [
            ("ADD", None, "I live in Rome."),
            ("UPDATE", "I live in Rome.", "I live in Paris."),
            ("UPDATE", "I live in Paris.", "I live in Oslo."),
        ]
        for moment, city in (("2025-01-15", "Rome"), ("2025-02-15", "Paris"), ("2025-03-15", "Oslo")):
            found = texts(memory.search("Where do I live?", user_id="u", as_of=moment))
            assert [text for text in found if "live" in text] == [f"I live in {city}."]
        assert doctor.check(memory._journal) == []


def test_what_has_expired_there_is_not_found_here(tmp_path: Path) -> None:
    ends = {"past": "2020-01-01", "later": "9000-01-01", "no date": "soon", "never": None}
    docs = {key: payload(f"It is {key}.", user_id="u", expiration_date=end) for key, end in ends.items()}
    docs["m1"] = payload("Changed.", updated=THIRD, user_id="u", expiration_date="2020-01-02")
    import_mem0(make(tmp_path / "mem0", docs, history=HISTORY), tmp_path / "s", embeddings=EMBEDDINGS)
    with open_memory(tmp_path / "s") as memory:
        rows = memory.get_all(user_id="u")["results"]
        assert {row["id"]: row["metadata"].get("expiration_date") for row in rows} == {
            "later": None, "no date": "soon", "never": None,
        }  # fmt: skip
        assert len(memory.get_all(user_id="u", show_expired=True)["results"]) == 5
        assert doctor.check(memory._journal) == []


def test_a_text_that_the_history_does_not_know_is_the_last_one(tmp_path: Path) -> None:
    changes = [("m1", "I live in Rome.", "I live in Paris.", "UPDATE", FIRST, SECOND)]
    import_mem0(make(tmp_path / "mem0", DOCS, history=changes), tmp_path / "s", embeddings=EMBEDDINGS)
    with open_memory(tmp_path / "s") as memory:
        for key, known in (
            ("m1", ["I live in Rome.", "I live in Paris.", "I live in Oslo."]),
            ("m2", ["Nice, in Rome."]),
        ):
            assert [row["new_value"] for row in memory.history(key)] == known


def test_a_second_import_changes_nothing_and_an_interrupted_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "mem0", DOCS, history=HISTORY)
    monkeypatch.setattr("langchain_memlayer.moving.mem0._AT_ONCE", 2)

    def stop(kind: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS, progress=stop)
    counts = import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)
    assert counts == {"imported": 1, "known": 2, "skipped": 2}
    before = dump(tmp_path / "s")
    assert import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)["known"] == 3
    assert dump(tmp_path / "s") == before
    with open_memory(tmp_path / "s") as memory:
        memory.delete("m1")
    assert import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)["known"] == 3
    with open_memory(tmp_path / "s") as memory:
        assert texts(memory.get_all(user_id="u")) == ["Nice, in Rome."]


class Hostile:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("kind", ["pickle", "qdrant"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "ran"
    if kind == "pickle":
        source = make(tmp_path / "mem0", DOCS, kind="pickle")
        (source / "faiss" / "mem0.pkl").write_bytes(pickle.dumps((DOCS, {0: Hostile(mark)})))
    else:
        source = qdrant(tmp_path / "qdrant", [Hostile(mark)])
    with pytest.raises(InvalidInput, match="nothing in it was run"):
        import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)
    assert not mark.exists()
    assert not (tmp_path / "s").exists()


def _nested(opcode: bytes, depth: int) -> bytes:
    return b"\x80\x05}" + b")" + opcode * depth + b"K\x01s."


_SHARED = b"\x80\x05]\x94" + b"".join(b"(h%ch%ct\x94" % (n, n) for n in range(60)) + b"."


@pytest.mark.parametrize(
    "data",
    [
        _nested(b"\x85", 1_000_000),  # a tuple in a tuple in ...: its hash overflows the C stack
        _SHARED,  # 2 ** 60 places from 400 bytes
        b"\x80\x05]\x94h\x00a.",  # a list in itself
        b"\x80\x05Nr\xff\xff\xff\x7f.",  # a memo of 2 ** 31 places
        b"\x80\x05(((" * 100_000,
        b"\x80\x05cos\nsystem\n.",
        b"\x80\x05\x8a\xff",
        b"\x80\x05h\x05.",
        b"\x80\x05s.",
        b"\x80\x05.",
        b"",
    ],
)  # fmt: skip
def test_a_pickle_that_would_crash_or_never_end_is_refused(tmp_path: Path, data: bytes) -> None:
    source = make(tmp_path / "mem0", DOCS, kind="pickle")
    (source / "faiss" / "mem0.pkl").write_bytes(data)
    with pytest.raises(InvalidInput, match=r"mem0\.pkl"):
        import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW history AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT 'a' memory_id, 'a' "
        "old_memory, 'b' new_memory, NULL created_at, NULL updated_at, x AS rowid FROM c",
        "CREATE VIRTUAL TABLE history USING fts5(memory_id, old_memory, new_memory, created_at, updated_at)",
        "CREATE TABLE history (memory_id, old_memory, new_memory, created_at, updated_at); CREATE TRIGGER t AFTER "
        "INSERT ON history BEGIN SELECT 1; END",
        "CREATE TABLE history (memory_id); PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 1",
        "CREATE TABLE history (memory_id, old_memory, new_memory, created_at, updated_at); INSERT INTO history VALUES "
        "(1, 2, 3, 4, 5)",
    ],
)  # fmt: skip
def test_a_history_that_is_no_plain_table_of_texts_is_refused(tmp_path: Path, sql: str) -> None:
    source = make(tmp_path / "mem0", DOCS)
    with closing(sqlite3.connect(source / "history.db")) as db:
        db.executescript(sql)
    with pytest.raises(InvalidInput, match=r"history\.db"):
        import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)


def qdrant(folder: Path, points: list[Any]) -> Path:
    collection = folder / "collection" / "mem0"
    collection.mkdir(parents=True)
    with closing(sqlite3.connect(collection / "storage.sqlite")) as db:
        db.execute("CREATE TABLE points (id TEXT PRIMARY KEY, point BLOB)")
        db.executemany("INSERT INTO points VALUES (?, ?)", [(str(n), pickle.dumps(p)) for n, p in enumerate(points)])
        db.commit()
    return folder


def test_a_local_qdrant_folder_arrives_and_its_latest_copies_count(tmp_path: Path) -> None:
    models = pytest.importorskip("qdrant_client.http.models")
    vector = {"": [1.0, 0.0], "bm25": models.SparseVector(indices=[1], values=[0.5])}
    points = [models.PointStruct(id=key, vector=vector, payload=p) for key, p in DOCS.items() if key != "m1"]
    # Qdrant itself would take these ids for UUIDs only when it serves them; a file may hold any.
    older, newer = payload("I live in Rome.", user_id="u"), DOCS["m1"]
    both = [models.PointStruct(id="m1", vector=vector, payload=p) for p in (older, newer)]
    source = qdrant(tmp_path / "qdrant", [*both, *points])
    assert import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS) == {"imported": 3, "known": 0, "skipped": 2}
    with open_memory(tmp_path / "s") as memory:
        assert sorted(texts(memory.get_all(user_id="u"))) == ["I live in Oslo.", "Nice, in Rome."]


def test_a_chroma_folder_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chromadb = pytest.importorskip("chromadb")
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(tmp_path / "chroma"), settings=Settings(anonymized_telemetry=False))
    flat = {key: {k: v for k, v in p.items() if not isinstance(v, list)} for key, p in DOCS.items() if key != "e1"}
    client.get_or_create_collection("mem0", embedding_function=None).add(
        ids=list(flat), embeddings=[[1.0, 0.0]] * len(flat), metadatas=list(flat.values())
    )
    client.close()
    monkeypatch.setattr("langchain_memlayer.moving.mem0_files._PAGE", 2)
    assert import_mem0(tmp_path / "chroma", tmp_path / "s", embeddings=EMBEDDINGS) == {
        "imported": 3, "known": 0, "skipped": 2,
    }  # fmt: skip
    with open_memory(tmp_path / "s") as memory:
        assert memory.get("m1")["memory"] == "I live in Oslo."
        assert memory.get("m1")["metadata"]["topic"] == "home"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no docstore"),
        (json.dumps({"docstore": {"m": "text"}}), "no memory of mem0's"),
        (json.dumps({"docstore": {"m": payload("x", created="soon", user_id="u")}}), "no ISO 8601"),
        (json.dumps({"docstore": {"m": payload("x", user_id="u", n=float("nan"))}}), "JSON does not have"),
        (json.dumps({"docstore": {"m": payload("x\x00", user_id="u")}}), "NUL"),
        (json.dumps({"docstore": {"m": payload("x", user_id=["u"])}}), "must be a string"),
    ],
)
def test_a_damaged_docstore_is_refused_and_nothing_is_made(tmp_path: Path, damage: str, said: str) -> None:
    source = make(tmp_path / "mem0", DOCS)
    (source / "faiss" / "mem0.json").write_text(damage)
    with pytest.raises(InvalidInput, match=said):
        import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)
    assert not (tmp_path / "s").exists()


def test_a_history_of_something_else_and_a_folder_without_memories_are_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "mem0", DOCS)
    (source / "history.db").write_text("no database, but long enough to be read as one " * 20)
    with pytest.raises(InvalidInput, match="mem0's history"):
        import_mem0(source, tmp_path / "s", embeddings=EMBEDDINGS)
    (tmp_path / "empty" / "mem0.json").mkdir(parents=True)
    (tmp_path / "empty" / "mem0.faiss").write_bytes(b"x")
    os.mkfifo(tmp_path / "empty" / "mem0.pkl")
    with pytest.raises(InvalidInput, match="no mem0 vector store"):
        import_mem0(tmp_path / "empty", tmp_path / "s", embeddings=EMBEDDINGS)
    with pytest.raises(InvalidInput, match="does not exist"):
        import_mem0(tmp_path / "missing", tmp_path / "s", embeddings=EMBEDDINGS)
    assert not (tmp_path / "s").exists()


def test_the_command_line_takes_in_folders_that_lie_apart(tmp_path: Path) -> None:
    source = make(tmp_path / "mem0", DOCS, history=HISTORY)
    apart = (source / "history.db").rename(tmp_path / "old.db")
    arguments = ["--path", str(tmp_path / "s"), "--embeddings", "none", "--json", "import", "--from", "mem0"]
    answer = CliRunner().invoke(app, [*arguments, str(source), str(apart)])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout) == {"imported": 3, "known": 0, "skipped": 2, "file": [str(source), str(apart)]}
    with open_memory(tmp_path / "s", embeddings=None) as memory:
        assert len(memory.history("m1")) == 3
    refused = CliRunner().invoke(app, ["--path", str(tmp_path / "s"), "import", str(source)])
    assert refused.exit_code == 2
    assert "one file is needed" in refused.stderr
