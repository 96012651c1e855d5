from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from integration_tests.benchmarks.mem0_peer import mem0
from integration_tests.benchmarks.peers import Skipped
from integration_tests.benchmarks.vectors import DIMS
from langchain_memlayer import Memory
from langchain_memlayer.moving import export_store, import_mem0, import_store
from langchain_memlayer.testing import DeterministicEmbeddings


def test_a_store_goes_to_postgres_and_back_byte_for_byte(tmp_path: Path, postgres: str) -> None:
    url = f"{postgres}{'&' if '?' in postgres else '?'}options=-csearch_path%3Dmoved"
    files = [tmp_path / f"{number}.jsonl" for number in range(3)]
    with Memory(tmp_path / "one", model=None, embeddings=DeterministicEmbeddings()) as memory:
        for number in range(40):
            memory.add(f"I like tea number {number}, it is é.", user_id=f"u{number % 3}", batch_id=f"b{number}")
        memory.store.put(("a",), "k", {"t": 2**70}, ttl=5)
    export_store(tmp_path / "one", files[0])
    import_store(files[0], url)
    export_store(url, files[1])
    import_store(files[1], tmp_path / "two")
    export_store(tmp_path / "two", files[2])
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()
    with Memory(url, model=None, embeddings=DeterministicEmbeddings()) as memory:
        assert memory.add("I like coffee.", user_id="u1")["results"][0]["event"] == "ADD"
        assert "coffee" in memory.search("coffee", user_id="u1")["results"][0]["memory"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faiss", "qdrant"])
def test_a_folder_that_mem0_itself_made_arrives_whole(tmp_path: Path, kind: str) -> None:
    embeddings = DeterministicEmbeddings(dims=DIMS)
    (tmp_path / "theirs").mkdir()
    try:
        with mem0(tmp_path / "theirs", embeddings=embeddings, kind=kind) as send:
            theirs = send(call="live")["value"]
    except Skipped as reason:
        pytest.skip(str(reason))
    counts = import_mem0(tmp_path / "theirs" / "store", tmp_path / "ours", embeddings=embeddings)
    assert counts == {"imported": 123, "known": 0, "skipped": 0}
    with Memory(tmp_path / "ours", model=None, embeddings=embeddings) as memory:
        assert len(theirs) == 123
        for one in theirs:
            mine = memory.get(one["id"])
            for name in ("memory", "role", "user_id", "agent_id", "run_id"):
                assert mine[name] == one.get(name), name
            assert mine["name"] == one.get("actor_id")
            for name in ("created_at", "updated_at"):
                assert datetime.fromisoformat(mine[name]) == datetime.fromisoformat(one[name])
            assert {k: v for k, v in mine["metadata"].items() if k != "data"} == (one["metadata"] or {})
            assert [(row["prev_value"], row["new_value"]) for row in memory.history(one["id"])] == [
                (row["old_memory"], row["new_memory"]) for row in one["history"]
            ]
        assert len(memory.history(theirs[0]["id"])) == 3
        assert memory.search("Where do I live?", user_id="u")["results"][0]["memory"] == "I live in Oslo."
        assert not any("tea" in hit["memory"] for hit in memory.search("tea", user_id="u")["results"])
