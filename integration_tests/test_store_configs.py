"""`Memory.from_config` with every vector store, against real engines (VikingDB: a loopback server)."""

from __future__ import annotations

import importlib.util
import logging
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from integration_tests import store_servers, viking_server
from integration_tests.conftest import Loopback
from integration_tests.json_server import HOST
from langchain_memlayer import Memory
from langchain_memlayer.backends.base import STORE
from langchain_memlayer.backends.chroma import ChromaAdapter
from langchain_memlayer.backends.milvus import MilvusAdapter
from langchain_memlayer.backends.pgvector import PGVectorStoreAdapter
from langchain_memlayer.backends.qdrant import QdrantAdapter
from langchain_memlayer.config import read_config
from langchain_memlayer.errors import ConfigurationError, VectorStoreError
from langchain_memlayer.testing import DeterministicEmbeddings

pytestmark = pytest.mark.allow_hosts([HOST])

DIMS = 32
PROVIDERS = ("chroma", "faiss", "langchain", "milvus", "pgvector", "qdrant", "vikingdb")
PACKAGES = {
    "chroma": "langchain_chroma",
    "milvus": "milvus_lite",
    "pgvector": "langchain_postgres",
    "qdrant": "langchain_qdrant",
    "vikingdb": "vikingdb",
}
PASSWORD = "word-that-stays-secret"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stores' own
        yield


def whole(provider: str, **config: Any) -> dict[str, Any]:
    embedder = {"provider": "langchain", "config": {"model": DeterministicEmbeddings(DIMS)}}
    return {"embedder": embedder, "vector_store": {"provider": provider, "config": config}}


@pytest.fixture(params=PROVIDERS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    provider = request.param
    if provider in PACKAGES and importlib.util.find_spec(PACKAGES[provider]) is None:
        pytest.skip(f"{PACKAGES[provider]} is not installed")
    if provider == "vikingdb":
        with viking_server.serving() as served:
            own = dict.fromkeys(("memlayer_store", "memlayer_scope"), "string")
            served.collections["notes"] = viking_server.Collection(
                dims=DIMS,
                fields={"text": "text", "metadata": "text", **own},
                scalars=tuple(own),
                index="notes_index",
            )
            yield whole("vikingdb", collection_name="notes", host=served.url, api_key=viking_server.API_KEY)
        return
    folder = str(tmp_path / "<collection_name>")
    settings: dict[str, dict[str, Any]] = {
        "chroma": {"path": folder},
        "faiss": {"path": folder, "distance_strategy": "euclidean", "normalize_L2": True},
        "langchain": {"client": InMemoryVectorStore(DeterministicEmbeddings(DIMS))},
        "milvus": {"url": f"{tmp_path}/<collection_name>.db", "metric_type": "L2", "embedding_model_dims": str(DIMS)},
        "qdrant": {"path": folder, "embedding_model_dims": str(DIMS), "on_disk": True},
    }
    if provider == "pgvector":
        collection = f"notes {uuid.uuid4().hex}"
        yield whole("pgvector", connection_string=request.getfixturevalue("postgres"), collection_name=collection)
        return
    named = {} if provider == "langchain" else {"collection_name": "notes"}
    yield whole(provider, **named, **settings[provider])


def texts(memory: Memory, query: str, user_id: str = "ana") -> list[str]:
    return [hit["memory"] for hit in memory.search(query, user_id=user_id, limit=3)["results"]]


def delivered(memory: Memory) -> bool:
    return memory._indexes.mirror is None or memory._indexes.mirror.flush(60)


def test_every_provider_adds_searches_updates_deletes_and_reopens(config: dict[str, Any]) -> None:
    # Above the threshold candidates come from the store.
    with Memory.from_config(config, hnsw_threshold=0) as memory:
        for row in range(40):
            memory.add(f"Note {row} is about subject{row}.", user_id="ana", infer=False)
        memory.add("Ben has subject7 too.", user_id="ben", infer=False)
        assert delivered(memory)
        if memory._indexes.mirror is not None:
            vector = DeterministicEmbeddings(DIMS).embed_query("subject7")
            where = {STORE: memory._journal.store_id}
            asked = memory._indexes.mirror.store.search(np.array(vector, np.float32), 41, where, None)
            assert len(set(asked or []) - {-1}) == 41
        found = memory.search("subject7", user_id="ana", limit=3)["results"]
        assert found[0]["memory"] == "Note 7 is about subject7."
        memory.update(found[0]["id"], "Note 7 is about cooking.")
        [last] = [hit for hit in memory.search("subject9", user_id="ana")["results"] if "subject9." in hit["memory"]]
        memory.delete(last["id"])
        assert delivered(memory)
        assert texts(memory, "cooking")[0] == "Note 7 is about cooking."
        folder = memory._journal.folder
    with Memory.from_config(config, hnsw_threshold=0) as memory:
        assert memory._journal.folder == folder
        assert texts(memory, "cooking")[0] == "Note 7 is about cooking."
        assert "Note 9 is about subject9." not in texts(memory, "Note 9 is about subject9.")
        assert texts(memory, "subject7", user_id="ben") == ["Ben has subject7 too."]
        memory.add("A late note about subject99.", user_id="ana", infer=False)
        assert delivered(memory)
        assert texts(memory, "subject99")[0] == "A late note about subject99."


def test_nothing_that_lies_in_a_collection_is_lost(config: dict[str, Any]) -> None:
    settings = read_config(config)
    if settings.vectorstore is None:
        pytest.skip("the folder is ours alone")
    own = str(uuid.uuid4())
    settings.vectorstore.add_texts(["theirs"], [{"source": "book"}], ids=[own])
    settings.resources.close()
    with Memory.from_config(config) as memory:
        memory.add("ours", user_id="ana", infer=False)
        assert delivered(memory)
    settings = read_config(config)
    found = settings.vectorstore.similarity_search("theirs", k=9)
    assert sorted(document.page_content for document in found) == ["ours", "theirs"]
    settings.resources.close()


def test_a_collection_for_other_vectors_is_told_and_kept(config: dict[str, Any], tmp_path: Path) -> None:
    provider = config["vector_store"]["provider"]
    if provider in ("faiss", "vikingdb"):
        pytest.skip("tells no size")
    with Memory.from_config(config) as memory:
        memory.add("ours", user_id="ana", infer=False)
        assert delivered(memory)
    other = {"provider": "langchain", "config": {"model": DeterministicEmbeddings(DIMS * 2)}}
    config["vector_store"]["config"].pop("embedding_model_dims", None)
    with Memory.from_config(config | {"embedder": other, "path": str(tmp_path / "new")}) as memory:
        memory._indexes.embedder.embed_query("its size is known now")  # type: ignore[union-attr]
        with pytest.raises(ConfigurationError, match=f"vectors of {DIMS} numbers, and the embedder makes {DIMS * 2}"):
            memory._indexes.mirror.store.check(memory._indexes.dims)  # type: ignore[union-attr]


@pytest.mark.parametrize(("own", "told"), [({"provider": "wordllama"}, r"wordllama:\S+ .* 256"), (None, f" {DIMS} ")])
def test_a_size_that_contradicts_the_embedder_is_told_before_a_collection_has_it(
    tmp_path: Path, own: dict[str, Any] | None, told: str
) -> None:
    pytest.importorskip("langchain_qdrant")
    config = whole("qdrant", path=str(tmp_path / "q"), embedding_model_dims="1536")
    with pytest.raises(ConfigurationError, match=f"embedding_model_dims is 1536, but .*{told}"):
        read_config(config | ({} if own is None else {"embedder": own}))
    with Memory.from_config(whole("qdrant", path=str(tmp_path / "q"))) as memory:
        memory.add("ours", user_id="ana", infer=False)
        assert delivered(memory)


def test_a_folder_that_another_has_open_is_told(tmp_path: Path) -> None:
    pytest.importorskip("langchain_qdrant")
    config = whole("qdrant", path=str(tmp_path / "q"))
    first = read_config(config)
    with pytest.raises(VectorStoreError, match="qdrant"):
        read_config(config)
    first.resources.close()
    read_config(config).resources.close()


@pytest.mark.parametrize(
    ("provider", "settings", "kind"),
    [
        ("qdrant", {"url": "http://127.0.0.1:{port}", "api_key": PASSWORD}, QdrantAdapter.kind),
        ("chroma", {"host": HOST, "port": "{port}"}, ChromaAdapter.kind),
        ("milvus", {"url": "http://127.0.0.1:{port}", "token": PASSWORD}, MilvusAdapter.kind),
        (
            "pgvector",
            {"connection_string": f"postgresql://ana:{PASSWORD}@127.0.0.1:{{port}}/d"},
            PGVectorStoreAdapter.kind,
        ),
    ],
)
def test_a_server_that_is_down_delays_only_its_index_and_no_secret_is_shown(
    provider: str, settings: dict[str, str], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip(PACKAGES[provider])
    port = str(store_servers.free_port())
    config = whole(provider, **{key: value.replace("{port}", port) for key, value in settings.items()})
    with caplog.at_level(logging.INFO, logger="langchain_memlayer"), Memory.from_config(config) as memory:
        memory.add("I live in Porto.", user_id="ana", infer=False)
        assert texts(memory, "Porto") == ["I live in Porto."]
        # Another kind than when it is up would have the mirror begin anew each time.
        assert memory._indexes.mirror.store.kind == kind  # type: ignore[union-attr]
        with pytest.raises(VectorStoreError, match=kind) as caught:
            memory._indexes.mirror.flush(60)  # type: ignore[union-attr]
        shown = [str(caught.value), repr(caught.value), repr(read_config(config)), *caplog.messages]
    assert [text for text in shown if PASSWORD in text] == []
    assert any(kind in text for text in caplog.messages)


def test_a_server_that_comes_up_later_is_brought_everything(tmp_path: Path) -> None:
    pytest.importorskip("langchain_chroma")
    port = store_servers.free_port()
    config = whole("chroma", host=HOST, port=port, collection_name="notes")
    with Memory.from_config(config, hnsw_threshold=0) as memory:
        memory.add("I live in Porto.", user_id="ana", infer=False)
        with store_servers.chroma(tmp_path / "served", port):
            assert delivered(memory)
            import chromadb

            with chromadb.HttpClient(HOST, port, settings=chromadb.Settings(anonymized_telemetry=False)) as client:
                there = client.get_collection("notes")
                assert there.get()["documents"] == ["I live in Porto."]
                assert there.configuration["hnsw"]["space"] == "cosine"
            assert texts(memory, "Porto") == ["I live in Porto."]


@pytest.mark.parametrize("how", ["url", "host"])
def test_qdrant_over_http(how: str) -> None:
    pytest.importorskip("langchain_qdrant")
    from integration_tests import qdrant_server

    key = qdrant_server.API_KEY if how == "url" else None
    with qdrant_server.serving(key) as served:
        port = served.url.rpartition(":")[2]
        place = {"url": served.url, "api_key": key} if how == "url" else {"host": HOST, "port": port}
        config = whole("qdrant", collection_name="notes", on_disk=True, **place)
        with Memory.from_config(config, hnsw_threshold=0) as memory:
            memory.add("I live in Porto.", user_id="ana", infer=False)
            memory.add("I like plums.", user_id="ana", infer=False)
            assert delivered(memory)
            assert served.engine.count("notes").count == 2
            assert served.engine.get_collection("notes").config.params.vectors.on_disk  # type: ignore[union-attr]
            served.failing = True
            memory.add("I swim.", user_id="ana", infer=False)
            assert texts(memory, "I swim.")[0] == "I swim."
            with pytest.raises(VectorStoreError, match="qdrant"):
                memory._indexes.mirror.flush(60)  # type: ignore[union-attr]
            served.failing = False
            assert delivered(memory)
            assert served.engine.count("notes").count == 3
            assert sorted(document.text for document in memory._indexes.mirror.store.documents()) == [  # type: ignore[union-attr]
                "I like plums.",
                "I live in Porto.",
                "I swim.",
            ]
        assert "POST /collections/notes/points/query" in served.asked


def test_settings_that_qdrant_refuses_are_told_at_once() -> None:
    pytest.importorskip("langchain_qdrant")
    with pytest.raises(VectorStoreError, match=r"qdrant\) failed with ValueError"):
        read_config(whole("qdrant", host=f"http://{HOST}", port=1))


def test_a_wrong_key_for_qdrant_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("langchain_qdrant")
    from integration_tests import qdrant_server

    with qdrant_server.serving() as served:
        with Memory.from_config(whole("qdrant", url=served.url, api_key=PASSWORD)) as memory:
            memory.add("I live in Porto.", user_id="ana", infer=False)
            assert texts(memory, "Porto") == ["I live in Porto."]
        assert any("qdrant" in text for text in caplog.messages)
        assert [text for text in caplog.messages if PASSWORD in text] == []


def test_the_example_of_vikingdb_and_doubao_in_one_dictionary(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vikingdb")
    monkeypatch.setenv("ARK_API_KEY", PASSWORD)
    monkeypatch.setenv("ARK_BASE_URL", loopback.url)
    for name in [name for name in os.environ if name.startswith("VIKINGDB_")]:
        monkeypatch.delenv(name)
    with viking_server.serving() as served:
        served.collections["memories"] = viking_server.Collection(dims=4)
        monkeypatch.setenv("VIKINGDB_HOST", served.url)
        monkeypatch.setenv("VIKINGDB_REGION", viking_server.REGION)
        monkeypatch.setenv("VIKINGDB_AK", viking_server.AK)
        monkeypatch.setenv("VIKINGDB_SK", viking_server.SK)
        config = {
            "vector_store": {"provider": "vikingdb", "config": {"collection_name": "memories"}},
            "llm": {"provider": "doubao", "config": {"model": "ep-chat"}},
            "embedder": {"provider": "doubao", "config": {"model": "ep-embed"}},
            "custom_prompt": "Note only what is said of food.",
        }
        with Memory.from_config(config) as memory:
            memory.add("I like plums.", user_id="ana")
            assert delivered(memory)
            assert texts(memory, "plums") == ["I like plums."]
        [row] = served.collections["memories"].rows.values()
    assert row["text"] == "I like plums."
    assert "Note only what is said of food." in str(loopback.of("/chat/completions")[0].body)
    assert {asked.body["model"] for asked in loopback.of("/embeddings")} == {"ep-embed"}
    assert {asked.authorization for asked in loopback.asked} == {f"Bearer {PASSWORD}"}
