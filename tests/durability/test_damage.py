import errno
import json
import logging
import os
import pickle
import random
import resource
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from folders import (
    EXACT,
    SEEDED,
    Echo,
    assert_sound,
    containing,
    memories,
    memory_answers,
    open_memory,
    open_store,
    recall,
    sentence,
    store_scores,
)
from hostile import UNSOUND
from journal_dump import texts
from langgraph.store.base import PutOp
from memory_kit import Mind, found, open_with

from langchain_memlayer import Memory, checkpointer, doctor
from langchain_memlayer.engine.index_sync import snapshot_name
from langchain_memlayer.errors import ExtractionError, InvalidInput, JournalError, MemLayerError, NotAStore
from langchain_memlayer.index import files
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.journal.schema import JOURNAL_FILE
from langchain_memlayer.journal.sqlite import SQLiteJournal
from langchain_memlayer.moving import export_store
from langchain_memlayer.testing import ScriptedChatModel
from langchain_memlayer.types import Extraction, SlabBlock, Turn

TENANTS = ("ann", "bob")
QUERIES = [sentence(7, k) for k in range(12)]


class Down(Echo):
    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        raise TimeoutError


@dataclass
class Stores:
    """Two stores with two tenants each, and the exact answers of the first."""

    first: Path
    second: Path
    exact: dict[str, list[list[float]]]


def fill(store: Any, tenant: str, number: int) -> None:
    """Gives a tenant so many items that it has a graph; the number tells its texts from others'."""
    texts = [sentence(10 * number + TENANTS.index(tenant), k) for k in range(SEEDED)]
    store.batch([PutOp((tenant,), f"k{k}", {"text": text}) for k, text in enumerate(texts)])


def settle(store: Any, *tenants: str) -> None:
    """Loads the slabs and waits until their graphs are built and saved."""
    for tenant in tenants:
        store.search((tenant,), query="anything")
    assert store._indexes.wait(60)


def answers(folder: Path, **settings: Any) -> dict[str, list[list[float]]]:
    with open_store(folder, **settings) as store:
        settle(store, *TENANTS)
        return {tenant: store_scores(store, (tenant,), QUERIES) for tenant in TENANTS}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    base = tmp_path_factory.mktemp("damage")
    for index, name in enumerate(("first", "second")):
        with open_store(base / name) as store:
            for tenant in TENANTS:
                fill(store, tenant, index)
            settle(store, *TENANTS)
        assert len(list((base / name / "derived").glob("*.data"))) == 2 * len(TENANTS)
    return Stores(base / "first", base / "second", answers(base / "first", hnsw_threshold=EXACT))


@pytest.fixture
def stores(template: Stores, tmp_path: Path) -> Stores:
    """Copies of both; nobody writes to the second."""
    return Stores(shutil.copytree(template.first, tmp_path / "first"), template.second, template.exact)


def derived(folder: Path, suffix: str = "data") -> list[Path]:
    return sorted((folder / "derived").glob(f"*.{suffix}"))


def of(folder: Path, tenant: str, suffix: str, part: str = "hnsw") -> Path:
    hashed = files._hashed(snapshot_name("items", f"{tenant}.", part=part))
    return next((folder / "derived").glob(f"{hashed}-*.{suffix}"))


def assert_found(stores: Stores, found: dict[str, list[list[float]]]) -> None:
    assert min(recall(found[tenant], stores.exact[tenant]) for tenant in TENANTS) >= 0.99


def assert_right(stores: Stores) -> None:
    """The answers are right, and the damage is gone afterwards."""
    for _ in range(2):
        assert_found(stores, answers(stores.first))
    assert answers(stores.first, hnsw_threshold=EXACT) == stores.exact


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_undamaged_files_are_loaded_and_not_made_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a graph was built or all rows were read although their snapshots are whole")

    monkeypatch.setattr("langchain_memlayer.index.hnsw.build", refuse)
    monkeypatch.setattr("langchain_memlayer.journal.cache_reader.CacheReader.load", refuse)
    assert_found(stores, answers(stores.first))


def flipped(content: bytes, bits: int, seed: int) -> bytes:
    rng, damaged = random.Random(seed), bytearray(content)
    for _ in range(bits):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def numpy_file(what: Any, path: Path) -> bytes:
    np.save(path, np.array([what], object), allow_pickle=True)
    return path.with_suffix(".npy").read_bytes()


def sqlite_file() -> bytes:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE t (a)")
        return db.serialize()


CONTENTS: dict[str, Callable[[bytes, Path], bytes]] = {
    # name: (true content, what unpickling would make) -> what the file has instead
    **{f"{bits} flipped, {seed}": lambda b, _, n=bits, s=seed: flipped(b, n, s) for bits in (1, 50) for seed in (0, 1)},
    "empty": lambda b, _: b"",
    "half": lambda b, _: b[: len(b) // 2],
    "last byte": lambda b, _: b[:-1],
    "zeroed tail": lambda b, _: b[: len(b) // 2] + bytes(len(b) - len(b) // 2),
    "zeroed": lambda b, _: bytes(len(b)),
    "longer": lambda b, _: b + b"\0" * 4096,
    "twice": lambda b, _: b + b,
    "pickle": lambda _, target: pickle.dumps(Bomb(target)),
    "numpy": lambda _, target: numpy_file(Bomb(target), target),
    "faiss": lambda b, _: faiss.serialize_index(faiss.IndexHNSWFlat(32, 32)).tobytes(),
    "sqlite": lambda b, _: sqlite_file(),
    "text": lambda b, _: b"hello",
    "json": lambda b, _: b'{"a": 1}',
    "zip": lambda b, _: b"PK\x03\x04" + bytes(100),
    "deep": lambda b, _: b"[" * 200_000,
}


@pytest.mark.parametrize("content", CONTENTS)
def test_files_of_another_content_are_not_run_and_not_believed(stores: Stores, tmp_path: Path, content: str) -> None:
    target = tmp_path / "executed"
    for tenant, suffix in zip(TENANTS, ("data", "json"), strict=True):
        for part in ("hnsw", "rows"):
            path = of(stores.first, tenant, suffix, part)
            path.write_bytes(CONTENTS[content](path.read_bytes(), target))
    assert_right(stores)
    assert not target.exists()


@pytest.mark.parametrize("suffixes", [("data",), ("json",), ("data", "json")])
@pytest.mark.parametrize("other", ["namespace", "store"])
def test_files_of_another_namespace_or_store(stores: Stores, suffixes: tuple[str, ...], other: str) -> None:
    for suffix in suffixes:
        ann, bob = of(stores.first, "ann", suffix), of(stores.first, "bob", suffix)
        others = (bob, ann) if other == "namespace" else (of(stores.second, name, suffix) for name in TENANTS)
        for path, content in zip((ann, bob), [path.read_bytes() for path in others], strict=True):
            path.write_bytes(content)
    assert_right(stores)


def test_the_derived_folder_of_another_store(stores: Stores) -> None:
    shutil.rmtree(stores.first / "derived")
    shutil.copytree(stores.second / "derived", stores.first / "derived")
    assert_right(stores)


def test_the_journal_of_an_older_backup_beside_newer_derived_files(stores: Stores) -> None:
    older = (stores.first / JOURNAL_FILE).read_bytes()
    with open_store(stores.first) as store:
        store.batch([PutOp(("ann",), f"later{k}", {"text": sentence(99, k)}) for k in range(600)])
        settle(store, "ann")
    (stores.first / JOURNAL_FILE).write_bytes(older)
    assert_right(stores)


def test_the_derived_files_of_an_older_backup_beside_a_newer_journal(stores: Stores, tmp_path: Path) -> None:
    older = shutil.copytree(stores.first / "derived", tmp_path / "older")
    with open_store(stores.first) as store:
        for tenant in TENANTS:
            fill(store, tenant, 5)
    shutil.rmtree(stores.first / "derived")
    shutil.move(older, stores.first / "derived")
    assert_right(Stores(stores.first, stores.second, answers(stores.first, hnsw_threshold=EXACT)))


def forge(folder: Path, tenant: str, payload: bytes | None = None, part: str = "hnsw", **meta: Any) -> None:
    """Writes a snapshot whose digest is right and whose meta is true but for what is given."""
    name = snapshot_name("items", f"{tenant}.", part=part)
    true = json.loads(of(folder, tenant, "json", part).read_text())["meta"]
    payload = of(folder, tenant, "data", part).read_bytes() if payload is None else payload
    files.write(folder / "derived", name, payload, {**true, **meta})


def test_a_forged_pickle_with_a_true_digest_is_not_run(stores: Stores, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    for tenant in TENANTS:
        forge(stores.first, tenant, pickle.dumps(Bomb(target)))
    assert_right(stores)
    assert not target.exists()


@pytest.mark.parametrize("share", ["one", "ten", "thousand", "all"])
@pytest.mark.parametrize("part", ["hnsw", "rows"])
def test_forged_random_numbers_with_a_true_digest_show_nothing_foreign(stores: Stores, part: str, share: str) -> None:
    seed = ["one", "ten", "thousand", "all"].index(share)
    rng = np.random.default_rng(seed)
    kind, low, high = ("<i4", -(2**31), 2**31 - 1) if part == "hnsw" else ("u1", 0, 256)
    for tenant in TENANTS:
        numbers = np.frombuffer(of(stores.first, tenant, "data", part).read_bytes(), kind).copy()
        where = rng.integers(0, len(numbers), (1, 10, 1000, len(numbers))[seed])
        numbers[where] = rng.integers(low, high, len(where))
        forge(stores.first, tenant, numbers.tobytes(), part)
    # Whatever is found is checked to be of its namespace and to have the score of its text.
    found = answers(stores.first)
    if part == "hnsw":
        assert_found(stores, found)
    shutil.rmtree(stores.first / "derived")
    assert answers(stores.first, hnsw_threshold=EXACT) == stores.exact


def test_a_forged_graph_of_another_tenant_gives_none_of_its_memories(stores: Stores) -> None:
    forge(stores.first, "ann", of(stores.first, "bob", "data").read_bytes())
    assert_right(stores)


def test_forged_rows_of_another_tenant_give_none_of_its_memories(stores: Stores) -> None:
    meta = json.loads(of(stores.first, "bob", "json", "rows").read_text())["meta"]
    forge(stores.first, "ann", of(stores.first, "bob", "data", "rows").read_bytes(), "rows", **meta)
    assert answers(stores.first)["ann"] == [[]] * len(QUERIES)


@pytest.mark.parametrize(
    ("part", "ann", "bob"),
    [
        ("rows", {"seq": -1}, {"seq": 2**63}), ("rows", {"seq": 10**30}, {"seq": 1.5}), ("rows", {"seq": None}, {}),
        ("hnsw", {"rows": 2**39}, {"rows": -1}), ("hnsw", {"rows": 1.5}, {"rows": True}),
        ("hnsw", {"links": "x"}, {"entry": 10**6}), ("hnsw", {"top": 5}, {"dims": 64}),
        ("hnsw", {"metric": "euclidean"}, {"items": None}), ("hnsw", {"format": 2}, {"store": "other"}),
        ("hnsw", {"embedder": None}, {}),
    ],
)  # fmt: skip
def test_a_forged_meta_is_refused(stores: Stores, part: str, ann: dict[str, Any], bob: dict[str, Any]) -> None:
    forge(stores.first, "ann", None, part, **ann)
    forge(stores.first, "bob", None, part, **bob)
    assert_right(stores)


def test_what_was_written_since_is_all_that_is_read_of_rows(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(stores.first) as store:
        store.batch([PutOp(("ann",), f"later{k}", {"text": sentence(99, k)}) for k in range(3)])
        store.delete(("ann",), "k5")
        store.put(("ann",), "k6", {"text": "written again"})
    blocks: list[SlabBlock] = []
    apply = Slab.apply

    def counting(slab: Slab, block: SlabBlock, **settings: Any) -> None:
        blocks.append(block)
        apply(slab, block, **settings)

    monkeypatch.setattr(Slab, "apply", counting)
    with open_store(stores.first) as store:
        assert store.search(("ann",), query="written again", limit=1)[0].key == "k6"
        assert "k5" not in {item.key for item in store.search(("ann",), query=sentence(0, 5), limit=9)}
    assert [(len(block.ids), len(block.removed)) for block in blocks] == [(SEEDED, 0), (4, 1)]


def test_memories_are_found_the_same_with_and_without_their_snapshots(tmp_path: Path) -> None:
    with open_memory(tmp_path, extractor=Echo(), reconcile="off", durability="fast") as memory:
        for day in range(35):
            said = [
                {"role": ("user", "assistant")[k % 2], "name": f"n{k % 5}", "content": sentence(k)}
                for k in range(10 * day, 10 * day + 10)
            ]
            memory.add(said, user_id="u0", run_id=f"r{day % 7}", timestamp=1_700_000_000 + 50_000 * day)
        memory.delete(memory.search(sentence(3), user_id="u0")["results"][0]["id"])
        memory.search("anything", user_id="u0")
        assert memory._indexes.wait(60)
    rows = snapshot_name("memories", ".u.u0.", part="rows")
    assert files.exists(tmp_path / "derived", rows)
    with_snapshots = memory_answers(tmp_path, QUERIES, "u0")
    shutil.rmtree(tmp_path / "derived")
    assert memory_answers(tmp_path, QUERIES, "u0") == with_snapshots


def test_a_manifest_that_points_elsewhere_leads_nowhere(stores: Stores) -> None:
    for path in derived(stores.first, "json"):
        manifest = json.loads(path.read_text())
        manifest |= {"path": "/etc/passwd", "file": str(derived(stores.second)[0]), "name": "hnsw:items:bob."}
        manifest["meta"] |= {"path": "../../second", "name": "hnsw:items:bob."}
        path.write_text(json.dumps(manifest))
    assert_right(stores)


@pytest.mark.parametrize("suffix", ["data", "json", "*"])
def test_deleted_files(stores: Stores, suffix: str) -> None:
    for path in derived(stores.first, suffix):
        path.unlink()
    assert_right(stores)


def test_folders_and_links_in_the_place_of_files(stores: Stores) -> None:
    for path in derived(stores.first):
        path.unlink()
        path.mkdir()
    for path in derived(stores.first, "json"):
        path.unlink()
        path.symlink_to(derived(stores.second, "json")[0])
    assert_right(stores)


@pytest.mark.parametrize("in_the_way", ["", "maintenance.lock"])
def test_a_derived_folder_that_cannot_be_written_is_done_without(
    stores: Stores, in_the_way: str, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(stores.first / "derived")
    if in_the_way:
        (stores.first / "derived" / in_the_way).mkdir(parents=True)
    else:
        (stores.first / "derived").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert_found(stores, answers(stores.first))
    # Once for each graph in the background, and once when the store closes: not over and over.
    assert len(caplog.records) == 2 * len(TENANTS)


@pytest.mark.parametrize("what", ["os.fsync", "os.replace", "pathlib.Path.mkdir", "os.open"])
def test_a_full_disk_costs_the_snapshot_and_nothing_else(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    shutil.rmtree(stores.first / "derived")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with open_store(stores.first) as store, monkeypatch.context() as patched:
        patched.setattr(what, full)
        settle(store, *TENANTS)
        found = {tenant: store_scores(store, (tenant,), QUERIES) for tenant in TENANTS}
        assert derived(stores.first) == []
    assert_found(stores, found)
    assert_right(stores)


def test_a_store_that_is_closed_while_a_snapshot_is_made_of_it_ends_without_one(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(stores.first / "derived")
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    held = files.maintenance
    with open_store(stores.first) as store, suppress(JournalError):

        @contextmanager
        def closed(*args: Any, **kwargs: Any) -> Iterator[bool]:
            store._journal.close()
            with held(*args, **kwargs) as had:
                yield had

        monkeypatch.setattr(files, "maintenance", closed)
        settle(store, "ann")
    assert (raised, derived(stores.first)) == ([], [])


def test_an_item_that_went_away_and_came_back_is_found_once(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:

        def fill(start: int, end: int) -> None:
            store.batch([PutOp(("n",), f"k{k}", {"text": sentence(k)}) for k in range(start, end)])
            store.search(("n",), query="anything")
            assert store._indexes.wait(60)

        fill(0, 900)
        for text in ("the lost key", "another thing", "the lost key"):
            store.put(("n",), "x", {"text": text})
            store.search(("n",), query="anything")
        fill(900, 1600)
    with open_store(tmp_path) as store:
        hits = store.search(("n",), query="the lost key", limit=5)
    assert [hit.key for hit in hits].count("x") == 1
    assert hits[0].key == "x"


# -- the journal ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def journal_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journal") / "store"
    with open_memory(folder, durability="fast") as memory:
        for k in range(50):
            memory.add(sentence(k), user_id="u0")
    return folder


@pytest.fixture
def folder(journal_template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(journal_template, tmp_path / "store")


def alter(folder: Path, sql: str, *values: Any) -> None:
    """Writes to a journal what this package would not."""
    with closing(sqlite3.connect(folder / JOURNAL_FILE)) as db:
        db.execute(sql, values)
        db.commit()


OPENERS: list[Callable[[Path], Any]] = [open_memory, open_store]


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("fast", 1)])
def test_full_durability_syncs_each_commit_and_fast_does_not(tmp_path: Path, durability: Any, synchronous: int) -> None:
    names = ("synchronous", "journal_mode", "secure_delete")
    with closing(SQLiteJournal(tmp_path, durability=durability)) as journal, journal.write() as tx:
        assert [tx.db.execute(f"PRAGMA {name}").fetchone()[0] for name in names] == [synchronous, "wal", 1]


def test_the_name_of_a_new_folder_is_synced_in_the_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    SQLiteJournal(tmp_path / "a" / "b").close()
    assert synced == [tmp_path, tmp_path / "a"]
    SQLiteJournal(tmp_path / "a" / "b").close()
    assert len(synced) == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-shm", "-wal"))}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("content", [b"this is a text, not a database. " * 40, bytes(5000), b"PK\x03\x04" * 100, b"x"])
def test_a_journal_that_is_no_database_is_refused_and_left_alone(
    folder: Path, opener: Callable[[Path], Any], content: bytes
) -> None:
    (folder / JOURNAL_FILE).write_bytes(content)
    before = contents(folder)
    with pytest.raises(NotAStore, match="backup"):
        opener(folder)
    assert contents(folder) == before


def test_an_empty_journal_is_new_only_when_nothing_says_that_it_was_written(folder: Path, stores: Stores) -> None:
    (stores.first / JOURNAL_FILE).write_bytes(b"")
    with pytest.raises(NotAStore, match="cut off"):
        open_store(stores.first)
    (folder / JOURNAL_FILE).write_bytes(b"")
    with open_memory(folder) as memory:
        assert memories(memory) == {}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE orders (id)"],
        ["CREATE TABLE orders (id)", "PRAGMA application_id = 77"],
        ["PRAGMA user_version = 3"],
    ],
)
def test_a_database_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, opener: Callable[[Path], Any], statements: list[str]
) -> None:
    for sql in statements:
        alter(tmp_path, sql)
    before = contents(tmp_path)
    with pytest.raises(NotAStore, match="something else"):
        opener(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("opener", [*OPENERS, checkpointer])
def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path, opener: Callable[[Path], Any]) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"jpg")
    with pytest.raises(NotAStore, match="new or empty folder"):
        opener(tmp_path)
    assert contents(tmp_path) == {"holiday.jpg": b"jpg"}


@pytest.mark.parametrize("opener", [*OPENERS, checkpointer])
def test_a_path_that_is_a_file_or_below_one_or_none_is_refused(tmp_path: Path, opener: Callable[[Path], Any]) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(NotAStore, match="is a file"):
        opener(tmp_path / "file")
    with pytest.raises(JournalError, match="Check the folder"):
        opener(tmp_path / "file" / "below")
    with pytest.raises(InvalidInput, match="a folder's path"):
        opener(tmp_path / "a\x00b")
    assert contents(tmp_path) == {"file": b"text"}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_torn_journal_gives_a_clear_error_or_is_found_by_the_doctor(folder: Path, share: float) -> None:
    file = folder / JOURNAL_FILE
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(JournalError, match="backup"), closing(SQLiteJournal(folder)) as journal:
        raise JournalError("; ".join(problem.message for problem in doctor.check(journal)))


@pytest.mark.parametrize("seed", range(8))
def test_scrambled_pages_of_the_journal_give_a_clear_error_or_answers(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    file = folder / JOURNAL_FILE
    content = bytearray(file.read_bytes())
    page = rng.randrange(1, len(content) // 4096) * 4096
    content[page : page + 4096] = rng.randbytes(4096)
    file.write_bytes(content)
    refusals = []
    try:
        with open_memory(folder) as memory:
            memory.search(sentence(1), user_id="u0")
            memories(memory)
            memory.add("another one", user_id="u0")
    except JournalError as error:
        refusals.append(str(error))
    assert all("backup" in refusal for refusal in refusals)


@contextmanager
def no_room(memory: Any) -> Iterator[None]:
    """SQLite refuses to let the file grow, as it does when the disk is full."""
    db = memory._journal._writer
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    before = db.execute("PRAGMA max_page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    yield
    db.execute(f"PRAGMA max_page_count = {before}")


def test_a_full_disk_is_a_clear_error_and_nothing_of_the_call_is_stored(folder: Path) -> None:
    with open_memory(folder) as memory:
        before = memories(memory)
        many = [{"role": "user", "content": f"{sentence(1000, k)} {'much ' * 500}"} for k in range(30)]
        with no_room(memory):
            with pytest.raises(JournalError, match="disk is full; nothing of this call was stored"):
                memory.add(many, user_id="u0", batch_id="b")
            assert memories(memory) == before
            assert memory.search(sentence(3), user_id="u0")["results"][0]["memory"] == sentence(3)
        assert len(memory.add(many, user_id="u0", batch_id="b")["results"]) == 30
    assert_sound(folder)


def test_a_file_that_may_not_grow_is_a_clear_error_and_nothing_of_the_call_is_stored(folder: Path) -> None:
    with open_memory(folder) as memory:
        before = memories(memory)
        memory.search(sentence(3), user_id="u0")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        wal = (folder / f"{JOURNAL_FILE}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 8192, hard))
        try:
            with pytest.raises(JournalError, match="nothing of this call was stored"):
                memory.add("much " * 20_000, user_id="u0")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert memories(memory) == before
        memory.add("and on it goes", user_id="u0")
    assert_sound(folder)


@pytest.mark.parametrize("size", [0, 8192, 40_000])
def test_a_new_folder_for_which_there_is_no_room_says_so_and_is_one_afterwards(tmp_path: Path, size: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(JournalError, match="the disk failed or is full"):
            open_memory(tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with open_memory(tmp_path / "new") as memory:
        memory.add("there is room now", user_id="u0")


@contextmanager
def as_somebody_who_may_not_write(folder: Path) -> Iterator[None]:
    """Root may write whatever the mode says, so a test that is run by root looks at the folder as nobody."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_a_read_only_folder_is_a_clear_error(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as base:
        Path(base).chmod(0o755)
        store = Path(shutil.copytree(folder, Path(base) / "store"))
        before = contents(store)
        with as_somebody_who_may_not_write(store):
            for opener in OPENERS:
                with pytest.raises(JournalError, match=r"read-only|cannot be opened"):
                    opener(store)
            with pytest.raises(JournalError, match=r"Check the folder|permissions"):
                checkpointer(store)
            with pytest.raises(JournalError, match="Check the folder"):
                open_memory(store / "new")
        assert contents(store) == before
    assert_sound(folder)


@pytest.mark.parametrize(("column", "_", "value"), UNSOUND)
def test_the_doctor_names_the_row_that_reading_cannot_trust(folder: Path, column: str, _: Any, value: Any) -> None:
    with closing(SQLiteJournal(folder)) as journal:
        with journal.write() as tx:
            (row,) = tx.db.execute("SELECT min(id) FROM items WHERE kind = 'turn'").fetchone()
            tx.db.execute(f"UPDATE items SET {column} = ? WHERE id = ?", (value, row))
        found = [p for p in doctor.check(journal) if p.rule == ("last write" if column == "seq" else "row")]
        assert any(f": {row}." in problem.message for problem in found), doctor.check(journal)


@pytest.mark.parametrize("value", ["{", "[[1]]", 1.5, 90_000, 10**18, b"\xff"], ids=repr)
def test_a_damaged_memory_is_told_and_hides_no_other(
    tmp_path: Path, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    columns = (
        "turns", "sources", "metadata", "time", "state", "asks", "invalid_at", "valid_at", "terms", "read", "last_seen",
        "utc_offset", "name",
    )  # fmt: skip
    with open_memory(tmp_path) as memory:
        for k in range(len(columns) + 2):
            memory.add(f"zebra number {k}", user_id="u", session_id="s")
    for k, column in enumerate(columns):
        alter(tmp_path, f"UPDATE items SET {column} = ? WHERE value = ?", value, f"zebra number {k}")
    # Of the last but one, and of the first: a number is no size.
    alter(tmp_path, "UPDATE vectors SET data = x'0000' WHERE id = ?", len(columns) + 1)
    alter(tmp_path, "UPDATE vectors SET data = 4611686018427387904 WHERE id = 1")
    last = f"zebra number {len(columns) + 1}"
    with open_memory(tmp_path) as memory:
        for found in (memory.search(last, user_id="u", expand=2), memory.get_all(user_id="u")):
            assert last in [hit["memory"] for hit in found["results"]]
    assert "doctor" in caplog.text
    assert "zebra" not in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        *(f"triples SET {name} = x'ff00'" for name in ("source", "relation", "destination", "source_key")),
        "items SET key = x'ff00'",
        "items SET updated_at = 'noon'",
        "items SET valid_at = 'noon'",
    ],
)
def test_a_damaged_name_or_id_hides_no_other_and_can_be_forgotten(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = [("Anna likes tea", ["Anna", "likes", "tea"]), ("Anna lives in Rome", ["Anna", "lives in", "Rome"])]
    facts = [{"turn": 1, "quote": text, "fact": text, "triples": [triple]} for text, triple in told]
    with Memory(tmp_path, model=ScriptedChatModel(replies=[{"facts": facts}]), embeddings=None) as memory:
        memory.add("Anna likes tea. Anna lives in Rome.", user_id="u")
    table = damage.split()[0]
    kind = "WHERE kind = 'fact'" if table == "items" else ""
    alter(tmp_path, f"UPDATE {damage} WHERE id = (SELECT min(id) FROM {table} {kind})")
    with Memory(tmp_path, model=None, embeddings=None) as memory:
        for found in (memory.search("Where does Anna live?", user_id="u"), memory.get_all(user_id="u")):
            assert told[1][0] in [hit["memory"] for hit in found["results"]]
            assert "Rome" in [relation["destination"] for relation in found["relations"]]
        assert [scope["facts"] for scope in memory.scopes()] == [2]
        assert memory.graph(user_id="u").number_of_edges() >= 1
        named = [one.message for one in doctor.check(memory._journal) if one.rule == "row"]
        # A key is made anew of its name.
        assert bool(named) == ("source_key" not in damage)
        memory.forget(user_id="u")
        assert memory.get_all(user_id="u")["results"] == []
    assert "tea" not in caplog.text


def told(folder: Path, name: str) -> tuple[str, str]:
    """Give somebody a turn, a fact with a quote of it in two versions, a batch and a fork; returns the ids."""
    with Memory(folder, extractor=Echo(), reconcile="off", embeddings=None, durability="fast") as memory:
        (fact,) = memory.add(f"{name} likes zebras", user_id=name, batch_id="b", session_id="s")["results"]
        memory.update(fact["id"], f"{name} likes zebras a lot")
        memory.fork("f", user_id=name)
        return fact["id"], memory.get_all(user_id=name, kinds=["turn"])["results"][0]["id"]


DAMAGES = ("{", "[1]", '"s"', "{}", 1.5, b"\xff", "", "\x00", '[{"a":1}]', 2**62)


@pytest.mark.parametrize(
    "place",
    [
        *(f"events.{name}" for name in ("detail", "sources", "recorded_at")),
        *(f"items.{name}" for name in ("metadata", "sources", "turns", "session_id", "role", "created_at", "place")),
        *(f"items.{name}" for name in ("kind", "user_id", "agent_id", "run_id", "name", "asks", "seq", "terms")),
        "batches.result",
        "links.quote",
    ],
)
def test_what_is_damaged_of_one_hides_nothing_of_another_and_is_forgotten_with_the_rest(
    tmp_path: Path, place: str
) -> None:
    table, column = place.split(".")
    bob = told(tmp_path / "0", "bob")
    ids = told(tmp_path / "0", "ann")
    for number, value in enumerate(DAMAGES, 1):
        folder = shutil.copytree(tmp_path / "0", tmp_path / str(number))
        where = {"batches": "scope LIKE '%ann%'", "links": "quote LIKE 'ann%'"}.get(table, f"key IN {ids}")
        alter(folder, f"UPDATE {table} SET {column} = ? WHERE {where}", value)
        with Memory(folder, model=None, embeddings=None, durability="fast") as memory:
            memory.history(ids[0])
            memory.get_all(user_id="ann", kinds=["fact", "turn"])
            memory.fork("g", user_id="ann").drop()
            assert memory.add("ann likes zebras", user_id="ann", batch_id="b", session_id="s")["results"]
            assert [row["event"] for row in memory.history(bob[0])] == ["ADD", "UPDATE"]
            memory.why(bob[0])
            memory.forget(bob[0])
            memory.forget(user_id="ann")
        assert containing(folder, b"zebras") == []


@pytest.mark.parametrize(
    "damage",
    [
        "links SET turn = (SELECT min(turn) FROM links) WHERE fact = (SELECT max(fact) FROM links)",
        "links SET fact = (SELECT max(fact) FROM links) WHERE fact = (SELECT min(fact) FROM links)",
        "triples SET item = (SELECT max(item) FROM triples)",
        "unread SET user_id = 'bob'",
        "unread SET turns = (SELECT '[' || min(id) || ']' FROM items WHERE user_id = 'ann')",
        """batches SET result = (SELECT result FROM batches WHERE scope LIKE '%ann%')""",
    ],
)
def test_what_leads_to_anothers_memories_is_told_and_shows_none_of_them(tmp_path: Path, damage: str) -> None:
    mind = Mind({f"{name} likes {what}": [found(f"{name} likes {what}", (name, "likes", what))]
                 for name, what in (("ann", "zebras"), ("bob", "tea"))} | {"more": TimeoutError("slow")})  # fmt: skip
    with open_with(mind, tmp_path) as memory:
        for name, what in (("ann", "zebras"), ("bob", "tea")):
            memory.add(f"{name} likes {what}", user_id=name, batch_id="b", session_id="s")
            with pytest.raises(ExtractionError):
                memory.add("more", user_id=name, session_id="s")
    alter(tmp_path, f"UPDATE {damage}")
    with Memory(tmp_path, model=None, embeddings=None) as memory:
        assert doctor.check(memory._journal)
        of_bob = memory.of(user_id="bob")
        (fact,) = of_bob.get_all()["results"][:1]
        shown = [
            of_bob.search("What does bob like?", expand=2), of_bob.get_all(), of_bob.why(fact["id"]), of_bob.unread(),
            of_bob.diff("2000-01-01"), of_bob.add("bob likes tea", batch_id="b", session_id="s"),
            of_bob.fork("f").get_all(kinds=["fact", "turn"]),
        ]  # fmt: skip
        assert "zebras" not in str(shown)
        of_bob.forget()
        assert texts(memory.get_all(user_id="ann", kinds=["fact"])) == ["ann likes zebras"]
    with open_with(mind, tmp_path) as memory:
        mind.told["more"] = [found("more of ann")]
        memory.read(user_id="ann", retry=True)
        assert memory.get_all(user_id="bob", kinds=["fact", "turn"])["results"] == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((column, "noon") for column in ("value", "created_at", "updated_at", "ttl", "seq", "kind")),
        ("value", "null"), ("value", "[1]"), ("value", '{"tex'), ("ttl", 1e300), ("ttl", -(1 << 63)),
    ],
)  # fmt: skip
def test_a_damaged_item_is_told_hides_no_other_and_can_be_put_again(
    tmp_path: Path, column: str, value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path) as store:
        store.batch([PutOp(("n",), key, {"n": 1, "text": "blue"}, ttl=10) for key in "ab"])
        with store._journal.write() as tx:
            tx.db.execute(f"UPDATE items SET {column} = ? WHERE key = 'a'", (value,))
        assert "row" in [problem.rule for problem in doctor.check(store._journal)]
        for asked in ({"filter": {"n": {"$exists": True}}}, {"query": "blue"}):
            assert [item.key for item in store.search(("n",), **asked)] == ["b"]
        assert store.get(("n",), "a") is None
        assert ("doctor" in caplog.text) == (column != "kind")
        store.put(("n",), "a", {"n": 2})
        assert sorted((item.key, item.value["n"]) for item in store.search(("n",))) == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("column", ["turns", "detail", "next_at", "attempts", "recorded_at", "user_id"])
def test_a_damaged_note_of_what_is_unread_hides_no_other_and_is_forgotten(tmp_path: Path, column: str) -> None:
    with Memory(tmp_path / "0", extractor=Down(), embeddings=None, keep_turns=False, durability="fast") as memory:
        for name in ("ann", "bob"):
            with pytest.raises(ExtractionError):
                memory.add(f"{name} likes zebras", user_id=name)
    values = ("x", "{", '["', 1.5, b"\xff", 9_999, 2**63 - 1, '{"turns":[1]}', '{"turns":["zebras"]}', '{"turns":1}',
              '{"turns":[{"text":"zebras"}]}', '{"turns":[{"text":"zebras","role":"user","time":"noon"}]}')  # fmt: skip
    for number, value in enumerate(values, 1):
        folder = shutil.copytree(tmp_path / "0", tmp_path / str(number))
        alter(folder, f"UPDATE unread SET {column} = ? WHERE user_id = 'ann'", value)
        with Memory(
            folder, extractor=Echo(), embeddings=None, keep_turns=False, reconcile="off", durability="fast"
        ) as memory:
            memory.unread(user_id="ann")
            with suppress(MemLayerError):
                memory.flush(60)
            assert [hit["memory"] for hit in memory.get_all(user_id="bob")["results"]] == ["said bob likes zebras"]
            memory.add("ann likes tea", user_id="ann")
            memory.forget(user_id="ann")
            memory.forget(user_id="bob")
        assert containing(folder, b"zebras") == []


@pytest.mark.parametrize(
    "path", [".f.x.", ".f..n.1.%7B%7D.", ".f.%00.n.1.%7B%22user_id%22%3A%22a%22%7D.", ".f.t.n.one.[]."]
)
def test_a_damaged_note_of_a_fork_is_told_and_keeps_nobody_from_forking_and_forgetting(
    tmp_path: Path, path: str
) -> None:
    (bob, _), _ = told(tmp_path, "bob"), told(tmp_path, "ann")
    alter(tmp_path, "UPDATE namespaces SET path = ? WHERE path LIKE '.f.%ann%'", path)
    with Memory(tmp_path, model=None, embeddings=None) as memory:
        assert [problem.rule for problem in doctor.check(memory._journal)] == ["row"]
        assert [fork["name"] for fork in memory.forks()] == ["f"]
        memory.fork("g", user_id="ann").merge()
        memory.forget(bob)
        memory.forget(user_id="ann")
        assert memory.get_all(user_id="ann")["results"] == []
    with pytest.raises(JournalError, match="namespaces is damaged"):
        export_store(tmp_path, tmp_path.parent / "export")


def test_a_damaged_note_of_the_embedder_is_an_error_that_says_so(tmp_path: Path) -> None:
    with open_memory(tmp_path) as memory:
        memory.add("zebras", user_id="u")
    with closing(SQLiteJournal(tmp_path)) as journal:
        record = json.loads(journal.meta("embedder:memories") or "")
    others = (
        {"dims": 0},
        {"dims": 2**62},
        {"dims": "9"},
        {"knows": {"latin": "x"}},
        {"knows": [1]},
        {"metric": "far"},
        {"metric": [1]},
    )
    for value in ("{", "[]", "{}", "1", b"\xff", *(json.dumps({**record, **other}) for other in others)):
        alter(tmp_path, "UPDATE meta SET value = ? WHERE key LIKE 'embedder%'", value)
        with pytest.raises(JournalError, match="restore a backup"):
            open_memory(tmp_path)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET detail = '{' WHERE seq = 3",
        "UPDATE items SET metadata = CAST(x'ff' AS TEXT) WHERE id = 3", "UPDATE unread SET turns = '[]]'",
        "UPDATE namespaces SET path = 7", "UPDATE items SET terms = x'ff' WHERE id = 3",
        "UPDATE meta SET value = '{' WHERE key LIKE 'embedder%'", "UPDATE batches SET result = 'nothing'",
        "DROP TABLE links", "CREATE TABLE notes (a)", "CREATE INDEX mine ON items (name)",
    ],
)  # fmt: skip
def test_the_doctor_never_fails_and_says_what_it_found(folder: Path, sql: str) -> None:
    with closing(SQLiteJournal(folder)) as journal:
        with journal.write() as tx:
            tx.db.execute("INSERT INTO unread (ns, turns, attempts, next_at, recorded_at) VALUES (1, '[]', 0, 0, 0)")
            tx.db.execute("INSERT OR IGNORE INTO batches VALUES ('u', 'b', 3, '{}')")
        before = doctor.check(journal)
        with journal.write() as tx:
            tx.db.execute(sql)
        found = [problem.message for problem in doctor.check(journal) if problem not in before]
        assert found
        assert not any(sentence(3) in message for message in found)


BREAKS = {
    "origin": "DELETE FROM events WHERE seq = 3",
    "last write": "UPDATE items SET seq = 900 WHERE id = 3",
    "text": "UPDATE items SET value = 'changed' WHERE id = 3",
    "lost memory": "DELETE FROM items WHERE id = 3",
    "namespace": "DELETE FROM namespaces",
    "vector owner": "INSERT INTO vectors VALUES (4000, x'0000')",
    "vector size": "UPDATE vectors SET data = x'0000'",
    "keywords": "UPDATE items SET terms = x'00' WHERE id = 3",
    "link": "INSERT INTO links VALUES (3, 900, NULL)",
    "cited turns": "UPDATE items SET kind = 'fact', turns = '[1]' WHERE id = 3",
    "triple": "INSERT INTO triples VALUES (9, 900, 1, 'a', 'b', 'c', 'a', 'c')",
    "batch": 'INSERT INTO batches VALUES (\'u\', \'b\', 3, \'{"turns":[["nowhere","ADD","",null]],"facts":[],'
    '"rejected":[],"added":[],"removed":[]}\')',
    "forget": "INSERT INTO meta VALUES ('scrub', 'due')",
}


@pytest.mark.parametrize("rule", BREAKS)
def test_the_doctor_sees_each_broken_rule(folder: Path, rule: str) -> None:
    with closing(SQLiteJournal(folder)) as journal:
        with journal.write() as tx:
            tx.db.execute(BREAKS[rule])
        assert rule in {problem.rule for problem in doctor.check(journal)}


def test_a_snapshot_that_another_process_drops_meanwhile_is_not_damaged(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(folder: Path, name: str, expect: Any) -> Any:
        doctor.files.drop(folder, name)
        return read(folder, name, expect)

    read = doctor.files.read
    monkeypatch.setattr(doctor.files, "read", dropped)
    with closing(SQLiteJournal(stores.first)) as journal:
        assert doctor.check(journal) == []


def test_the_doctor_sees_a_damaged_snapshot_and_the_rebuild_drops_it(stores: Stores) -> None:
    derived(stores.first)[0].write_bytes(b"torn")
    with closing(SQLiteJournal(stores.first)) as journal:
        assert [problem.rule for problem in doctor.check(journal)] == ["snapshot"]
        doctor.rebuild(journal)
        assert doctor.check(journal) == []
    assert_right(stores)
