"""VikingDBVectorStore against a server that checks what it receives: signatures, bodies, and every kind of failure."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from langchain_tests.integration_tests.vectorstores import EMBEDDING_SIZE
from pydantic import SecretStr

from integration_tests import viking_server
from integration_tests.conftest import Loopback
from integration_tests.json_server import HOST
from integration_tests.viking_server import AK, API_KEY, REGION, SK, Collection, VikingServer, envelope
from langchain_memlayer.backends.base import ITEM, STORE, Point, adapt
from langchain_memlayer.errors import (
    ConfigurationError,
    EmbeddingError,
    InvalidFilter,
    InvalidInput,
    MissingDependency,
    VectorStoreError,
)
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.vikingdb import VikingDBVectorStore
from langchain_memlayer.vikingdb import client as vikingdb_client

if importlib.util.find_spec("vikingdb") is None:
    pytest.skip("vikingdb-python-sdk is not installed", allow_module_level=True)
pytestmark = pytest.mark.allow_hosts([HOST])

DIMS = 64
PAIR = {"ak": AK, "sk": SK, "region": REGION}
KEY = {"api_key": API_KEY}
VARIABLES = ("VIKINGDB_HOST", "VIKINGDB_REGION", "VIKINGDB_AK", "VIKINGDB_SK", "VIKINGDB_API_KEY")
FIELDS = {
    "text": "text",
    "metadata": "text",
    "topic": "string",
    "year": "int64",
    "rating": "float32",
    "draft": "bool",
    "tags": "list<string>",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[VikingServer]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with viking_server.serving() as served:
        scalars = ("topic", "year", "rating", "draft", "tags")
        served.collections["memories"] = Collection(dims=DIMS, fields=FIELDS, scalars=scalars)
        yield served


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(vikingdb_client.time, "sleep", waited.append)
    return waited


def opened(server: VikingServer, **changes: Any) -> VikingDBVectorStore:
    settings: dict[str, Any] = {"host": server.url, "max_retries": 0, **PAIR} | changes
    return VikingDBVectorStore("memories", DeterministicEmbeddings(DIMS), **settings)


class Conformance(VectorStoreIntegrationTests):
    keys: dict[str, str]

    @pytest.fixture
    def vectorstore(self) -> Iterator[VikingDBVectorStore]:
        with viking_server.serving() as served:
            served.collections["memories"] = Collection(dims=EMBEDDING_SIZE)
            yield VikingDBVectorStore("memories", self.get_embeddings(), host=served.url, **self.keys)


class TestSigned(Conformance):
    keys = PAIR


class TestWithAnApiKey(Conformance):
    keys = KEY


def test_a_row_is_sent_with_its_text_its_metadata_and_its_vector(server: VikingServer) -> None:
    store = opened(server)
    metadata = {
        "topic": "food",
        "year": 2024,
        "rating": 0.5,
        "draft": False,
        "tags": ["a"],
        "deep": {"x": [1]},
        "no": None,
    }
    assert store.add_texts(["eats rice"], [metadata], ids=["r1"]) == ["r1"]
    [body] = server.of("/data/upsert")
    [row] = body.pop("data")
    assert body == {"collection_name": "memories", "ignore_unknown_fields": True}
    np.testing.assert_allclose(row.pop("vector"), store.embeddings.embed_query("eats rice"), rtol=1e-6)
    assert json.loads(row.pop("metadata")) == metadata
    flat = {"topic": "food", "year": 2024, "rating": 0.5, "draft": False, "tags": ["a"]}
    assert row == {"id": "r1", "text": "eats rice", **flat}


def test_a_search_names_index_vector_and_limit(server: VikingServer) -> None:
    store = opened(server, index_name="other", project_name="mine")
    server.collections["memories"].index = "other"
    condition = {"op": "must", "field": "topic", "conds": ["food"]}
    store.similarity_search("rice", k=3, filter=condition, advance={"scale_k": 2.0})
    [body] = server.of("/data/search/vector")
    np.testing.assert_allclose(body.pop("dense_vector"), store.embeddings.embed_query("rice"), rtol=1e-6)
    assert body == {
        "collection_name": "memories",
        "project_name": "mine",
        "index_name": "other",
        "limit": 3,
        "filter": condition,
        "advance": {"scale_k": 2.0},
    }


def test_keys_come_from_the_environment_and_arguments_before_it(
    server: VikingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIKINGDB_HOST", server.url)
    monkeypatch.setenv("VIKINGDB_REGION", REGION)
    monkeypatch.setenv("VIKINGDB_AK", AK)
    monkeypatch.setenv("VIKINGDB_SK", SK)
    embedding = DeterministicEmbeddings(DIMS)
    VikingDBVectorStore("memories", embedding).add_texts(["a"])
    monkeypatch.setenv("VIKINGDB_API_KEY", API_KEY)
    VikingDBVectorStore("memories", embedding).add_texts(["b"])
    VikingDBVectorStore("memories", embedding, ak=AK, sk=SecretStr(SK)).add_texts(["c"])
    monkeypatch.setenv("VIKINGDB_API_KEY", "another")
    VikingDBVectorStore("memories", embedding, api_key=SecretStr(API_KEY)).add_texts(["d"])
    schemes = [one.headers["Authorization"].split(" ")[0] for one in server.asked]
    assert schemes == ["HMAC-SHA256", "Bearer", "HMAC-SHA256", "Bearer"]


def test_a_client_of_the_callers_own_is_used(server: VikingServer) -> None:
    sdk = vikingdb_client._sdk()
    client = sdk.VikingDB(
        host=server.url.removeprefix("http://"), region="", auth=sdk.APIKey(api_key=API_KEY), scheme="http"
    )
    store = VikingDBVectorStore("memories", DeterministicEmbeddings(DIMS), client=client)
    assert store.get_by_ids(store.add_texts(["a"]))[0].page_content == "a"
    assert server.pings == 1
    with pytest.raises(ConfigurationError, match="either a client"):
        VikingDBVectorStore("memories", DeterministicEmbeddings(DIMS), client=client, api_key=API_KEY)
    with pytest.raises(ConfigurationError, match="got str"):
        VikingDBVectorStore("memories", DeterministicEmbeddings(DIMS), client="localhost")


def test_requests_hold_100_rows_or_ids_at_most(server: VikingServer) -> None:
    store = opened(server)
    ids = [f"r{number}" for number in range(250)]
    assert store.add_texts(ids, ids=ids) == ids
    assert [document.id for document in store.get_by_ids(ids)] == ids
    store.delete(ids)
    assert [len(body["data"]) for body in server.of("/data/upsert")] == [100, 100, 50]
    assert [len(body["ids"]) for body in server.of("/data/fetch_in_collection")] == [100, 100, 50]
    assert [len(body["ids"]) for body in server.of("/data/delete")] == [100, 100, 50]
    assert server.collections["memories"].rows == {}
    opened(server, batch_size=2).add_texts(["a", "b", "c"])
    assert [len(body["data"]) for body in server.of("/data/upsert")[3:]] == [2, 1]


def test_langchains_indexing_adds_skips_and_cleans(server: VikingServer) -> None:
    store = opened(server)
    records = InMemoryRecordManager("viking")
    records.create_schema()
    documents = [Document(page_content=f"text {number}", metadata={"topic": "a"}) for number in range(120)]
    settings = {"cleanup": "full", "key_encoder": "sha256", "batch_size": 500}
    assert index(documents, records, store, **settings)["num_added"] == 120
    assert index(documents[:100], records, store, **settings) == {
        "num_added": 0,
        "num_updated": 0,
        "num_skipped": 100,
        "num_deleted": 20,
    }
    assert len(server.collections["memories"].rows) == 100


def test_of_texts_with_one_id_the_last_stays(server: VikingServer) -> None:
    store = opened(server)
    assert store.add_texts(["old", "new", "other"], ids=["a", "a", "b"]) == ["a", "a", "b"]
    assert [one.page_content for one in store.get_by_ids(["a", "b", "a"])] == ["new", "other"]
    store.delete(["b", "b"])
    assert list(server.collections["memories"].rows) == ["a"]


def test_ids_are_made_where_there_is_none(server: VikingServer) -> None:
    store = opened(server)
    made = store.add_documents([Document(page_content="a", id="mine"), Document(page_content="b")])
    assert made[0] == "mine"
    assert {one.id: one.page_content for one in store.get_by_ids(made)} == {"mine": "a", made[1]: "b"}


def test_empty_calls_ask_nothing(server: VikingServer) -> None:
    store = opened(server)
    assert store.add_texts([]) == []
    assert store.add_documents([]) == []
    assert store.add_embeddings([], []) == []
    assert store.get_by_ids([]) == []
    assert store.delete([]) is True
    assert (server.asked, server.pings) == ([], 0)


def test_metadata_comes_back_as_it_was(server: VikingServer) -> None:
    store = opened(server)
    metadatas: list[dict[str, Any]] = [
        {},
        {"id": 7, "text": "t", "vector": [1], "metadata": {"metadata": "m"}},
        {
            "$weird.key": None,
            "emoji 🙂": ["", "é"],
            "big": 1 << 80,
            "mixed": [1, "a", None],
            "empty": [],
            "deep": {"a": {"b": {}}},
        },
        {"topic": "a", "year": -5, "rating": 1e-7, "draft": True, "tags": ["x", "y"], "not_a_field": "red"},
    ]
    ids = store.add_texts(["", "b", "日本語", "d"], metadatas)
    documents = store.get_by_ids(ids)
    assert [one.metadata for one in documents] == metadatas
    assert [one.page_content for one in documents] == ["", "b", "日本語", "d"]
    found = {one.id: one.metadata for one in store.similarity_search("d", k=4)}
    assert found == dict(zip(ids, metadatas, strict=True))


def test_filters_are_vikingdbs_own(server: VikingServer) -> None:
    store = opened(server)
    metadatas = [
        {"topic": "food", "year": 2020, "tags": ["x"]},
        {"topic": "food", "year": 2024, "tags": ["x", "y"]},
        {"topic": "art", "year": 2024},
    ]
    store.add_texts(["one", "two", "three"], metadatas, ids=["1", "2", "3"])

    def ids(condition: dict[str, Any] | None) -> set[str | None]:
        return {one.id for one in store.similarity_search("one", k=9, filter=condition)}

    food = {"op": "must", "field": "topic", "conds": ["food"]}
    late = {"op": "range", "field": "year", "gte": 2024}
    assert ids(None) == ids({}) == {"1", "2", "3"}
    assert ids(food) == {"1", "2"}
    assert ids({"op": "and", "conds": [food, late]}) == {"2"}
    assert ids({"op": "or", "conds": [food, late]}) == {"1", "2", "3"}
    assert ids({"op": "must", "field": "tags", "conds": ["y"]}) == {"2"}
    assert ids({"op": "must_not", "field": "topic", "conds": ["food"]}) == {"3"}
    with pytest.raises(VectorStoreError, match=r"the field color has no scalar index.*Compare its fields"):
        ids({"op": "must", "field": "color", "conds": ["red"]})
    asked = len(server.asked)
    for wrong in ({"topic": "food"}, [food], "topic = 'food'"):
        with pytest.raises(InvalidFilter, match="VikingDB's form"):
            ids(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"filter\['conds'\]\[0\] is of type object"):
        ids({"op": "must", "field": "topic", "conds": [object()]})
    assert len(server.asked) == asked


def test_rows_that_somebody_else_wrote_have_their_fields_as_metadata(server: VikingServer) -> None:
    vector = DeterministicEmbeddings(DIMS).embed_query("hello")
    rows = server.collections["memories"].rows
    rows["x"] = {"id": "x", "vector": vector, "text": "hello", "topic": "a", "year": 3}
    rows["y"] = {"id": "y", "vector": vector, "text": "hello", "metadata": "no JSON"}
    store = opened(server)
    assert [one.metadata for one in store.get_by_ids(["x", "y"])] == [
        {"topic": "a", "year": 3},
        {"metadata": "no JSON"},
    ]
    assert {one.id for one in store.similarity_search("hello")} == {"x", "y"}
    rows["z"] = {"id": "z", "vector": vector, "body": "hello"}
    with pytest.raises(VectorStoreError, match=r"'z'.*no text in the field 'text'.*`text_field`"):
        store.get_by_ids(["z"])


def test_a_collection_may_name_its_fields_otherwise(server: VikingServer) -> None:
    server.collections["memories"] = Collection(
        dims=DIMS, fields={"body": "text", "extra": "text"}, key="key", vector="embedding"
    )
    names = {"id_field": "key", "text_field": "body", "vector_field": "embedding", "metadata_field": "extra"}
    store = opened(server, **names)
    store.add_texts(["hello"], [{"text": "kept"}], ids=["1"])
    assert store.similarity_search("hello") == [Document(id="1", page_content="hello", metadata={"text": "kept"})]


def test_vectors_made_before_are_not_made_again(server: VikingServer) -> None:
    store = opened(server)
    vectors = np.eye(2, DIMS, dtype=np.float32)
    assert store.add_embeddings(["a", "b"], vectors, [{"topic": "x"}, {}], ids=["1", "2"]) == ["1", "2"]
    [(first, score), (second, other)] = store.similarity_search_by_vector_with_score(vectors[1], k=2)
    assert (first.id, score, second.id, other) == ("2", 1.0, "1", 0.0)
    assert [one.id for one in store.similarity_search_by_vector(list(vectors[0]), k=1)] == ["1"]
    assert (store.embeddings.batches, store.embeddings.queries) == ([], [])  # type: ignore[attr-defined]


def test_bad_input_is_refused_before_anything_is_sent(server: VikingServer) -> None:
    store = opened(server)
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    for texts, metadatas, ids, message in (
        (["a"], [{}, {}], None, "2 metadatas for 1 texts"),
        (["a"], None, ["1", "2"], "2 ids for 1 texts"),
        (["a"], None, "1", "1 ids for 1 texts"),
        (["a"], None, [""], "no id"),
        (["a"], None, [5], "no id"),
        ([5], None, None, r"texts\[0\] is of type int"),
        (["a", "\ud800"], None, None, r"texts\[1\] holds a lone surrogate"),
        (["a"], [{"at": object()}], None, r"metadatas\[0\]\['at'\] is of type object"),
        (["a"], [{"n": float("nan")}], None, r"metadatas\[0\]\['n'\] is nan"),
        (["a"], [{1: "x"}], None, "JSON keys are strings"),
        (["a"], [cycle], None, "nested deeper"),
        (["a"], ["topic"], None, "pass a dictionary"),
    ):
        with pytest.raises(InvalidInput, match=message):
            store.add_texts(texts, metadatas, ids=ids)  # type: ignore[arg-type]
    for vectors in ([[1.0] * DIMS], [[1.0] * DIMS, [float("nan")] * DIMS], [[1.0], [1.0, 2.0]], ["a", "b"]):
        with pytest.raises(EmbeddingError, match="check the embedder"):
            store.add_embeddings(["a", "b"], vectors)  # type: ignore[arg-type]
    for wrong in (None, "1", ["1", None]):
        with pytest.raises(InvalidInput, match=r"list of ids|no id"):
            store.delete(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="positive"):
        store.similarity_search("a", k=0)
    with pytest.raises(InvalidInput, match=r"Unknown arguments: fetch_k; this call knows partition"):
        store.similarity_search("a", fetch_k=3)
    with pytest.raises(InvalidInput, match="Unknown arguments: where"):
        store.delete(["1"], where="x")
    assert (server.asked, server.pings) == ([], 0)


def test_relevance_is_between_0_and_1_and_only_a_cosine_has_one(server: VikingServer) -> None:
    store = opened(server)
    store.add_texts(["red fox", "blue whale"], ids=["1", "2"])
    [(best, relevance), (_, other)] = store.similarity_search_with_relevance_scores("red fox", k=2)
    assert (best.id, relevance) == ("1", pytest.approx(1.0))
    assert 0 <= other < 1
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.95})
    assert [one.id for one in retriever.invoke("red fox")] == ["1"]
    hit = {"id": "1", "fields": {"text": "red fox", "metadata": "{}"}, "score": 9.9}
    server.errors.append((200, envelope("Success", "", {"data": [hit]})))
    with pytest.raises(ConfigurationError, match=r"9\.9, which is no cosine"):
        store.similarity_search_with_relevance_scores("red fox")


@pytest.mark.parametrize(
    ("changes", "secret"),
    [({"ak": "AKother"}, "AKother"), ({"sk": "wrong-secret"}, "wrong-secret"), ({"api_key": "vk-wrong"}, "vk-wrong")],
)
def test_refused_keys_are_named_by_kind_and_never_shown(
    server: VikingServer, changes: dict[str, str], secret: str
) -> None:
    store = VikingDBVectorStore(
        "memories",
        DeterministicEmbeddings(DIMS),
        host=server.url,
        **(changes if "api_key" in changes else PAIR | changes),  # type: ignore[arg-type]
    )
    with pytest.raises(VectorStoreError, match=r"refused the keys.*Check VIKINGDB_AK") as caught:
        store.similarity_search("a")
    shown = (
        "".join(traceback.format_exception(caught.value)) + repr(store) + repr(vars(store)) + repr(vars(store._client))
    )
    assert secret not in shown
    assert repr(store) == (
        "VikingDBVectorStore(collection_name='memories', index_name='memories_index', "
        f"host='{server.url.removeprefix('http://')}')"
    )


def test_keys_of_the_callers_own_client_are_not_shown_either(server: VikingServer) -> None:
    sdk, host = vikingdb_client._sdk(), server.url.removeprefix("http://")
    for auth, secret in ((sdk.APIKey(api_key="vk-wrong"), "vk-wrong"), (sdk.IAM(ak="AKother", sk=SK), "AKother")):
        client = sdk.VikingDB(host=host, region=REGION, auth=auth, scheme="http")
        store = VikingDBVectorStore("memories", DeterministicEmbeddings(DIMS), client=client)
        with pytest.raises(VectorStoreError, match="refused the keys") as caught:
            store.similarity_search("a")
        assert secret not in "".join(traceback.format_exception(caught.value))


def test_another_region_does_not_sign_for_this_one(server: VikingServer) -> None:
    with pytest.raises(VectorStoreError, match="region"):
        opened(server, region="cn-shanghai").get_by_ids(["a"])


def test_a_missing_collection_or_index_says_what_to_make(server: VikingServer) -> None:
    absent = VikingDBVectorStore("absent", DeterministicEmbeddings(DIMS), host=server.url, **KEY)  # type: ignore[arg-type]
    with pytest.raises(VectorStoreError, match=r"has not the collection 'absent'.*'absent' of VikingDB does not exist"):
        absent.add_texts(["a"])
    with pytest.raises(VectorStoreError, match=r"the index 'elsewhere'.*help\(langchain_memlayer\.vikingdb\.store\)"):
        opened(server, index_name="elsewhere").similarity_search("a")


def test_a_collection_of_another_size_is_named_by_the_server(server: VikingServer) -> None:
    server.collections["memories"].dims = 8
    with pytest.raises(VectorStoreError, match=r"vector of dim 8.*0 of 1 rows were written"):
        opened(server).add_texts(["a"])
    with pytest.raises(VectorStoreError, match="dense_vector must have dim 8"):
        opened(server).similarity_search("a")


def test_a_failure_between_two_requests_says_how_much_is_written(server: VikingServer) -> None:
    store = opened(server, batch_size=2)
    server.collections["memories"].fields = FIELDS | {"year": "int64"}
    ids = list("abcde")
    with pytest.raises(VectorStoreError, match=r"year must be of type int64.*2 of 5 rows were written"):
        store.add_texts(ids, [{}, {}, {}, {"year": "soon"}, {}], ids=ids)
    assert list(server.collections["memories"].rows) == ["a", "b"]
    store.add_texts(ids, ids=ids)
    assert list(server.collections["memories"].rows) == ids


def test_an_overloaded_server_is_asked_again(server: VikingServer, pauses: list[float]) -> None:
    busy = (429, envelope("RateLimitExceeded", "slow down", None))
    server.errors += [busy, (503, b"<html>bad gateway</html>")]
    store = opened(server, max_retries=2)
    assert store.add_texts(["a"], ids=["1"]) == ["1"]
    assert pauses == [0.5, 1.0]
    server.errors += [busy] * 3
    with pytest.raises(VectorStoreError, match=r"takes no more requests for now \(slow down.*Try again later"):
        store.get_by_ids(["1"])
    assert pauses == [0.5, 1.0, 0.5, 1.0]


def test_a_refused_request_is_not_repeated(server: VikingServer, pauses: list[float]) -> None:
    with pytest.raises(VectorStoreError, match="has no scalar index"):
        opened(server, max_retries=5).similarity_search("a", filter={"op": "must", "field": "x", "conds": [1]})
    assert (pauses, len(server.asked)) == ([], 1)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, envelope("InternalServerError", "oops", None), r"failed \(oops.*Try again later"),
        (200, b"<html>log in</html>", "did not answer as VikingDB does"),
        (200, b"{}", "did not answer as VikingDB does"),
        (200, b"[1]", "did not answer as VikingDB does"),
        (200, b'{"code": 0, "message": "success"}', "did not answer as VikingDB does"),
        (200, b'{"code": "Success", "result": {"data": [{"fields": 3}]}}', "did not answer as VikingDB does"),
        (200, envelope("Forbidden", "odd", None), r"did not answer as VikingDB does \(code Forbidden: odd"),
        (200, envelope("Success", "", {"data": [{"id": "1", "fields": {"text": "a"}}]}), "no score for the row '1'"),
    ],
)
def test_what_no_vikingdb_answers_is_an_error(server: VikingServer, status: int, body: bytes, message: str) -> None:
    server.errors.append((status, body))
    with pytest.raises(VectorStoreError, match=message):
        opened(server).similarity_search("a")


def test_a_server_that_is_down_is_an_error_until_it_is_back(server: VikingServer) -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind((HOST, 0))
        nobody = opened(server, host=f"http://{HOST}:{taken.getsockname()[1]}")
        for _ in range(2):
            with pytest.raises(VectorStoreError, match=r"gave no answer.*Check the host and the network"):
                nobody.add_texts(["a"])
    store = opened(server)
    server.errors.append((502, b""))
    with pytest.raises(VectorStoreError, match="failed"):
        store.add_texts(["a"], ids=["1"])
    assert store.add_texts(["a"], ids=["1"]) == ["1"]


def test_a_slow_server_is_given_up_after_the_timeout(server: VikingServer) -> None:
    connecting = opened(server, timeout=0.05)
    server.hold.clear()
    with pytest.raises(VectorStoreError, match=r"gave no answer.*timed out"):
        connecting.get_by_ids(["a"])
    server.hold.set()
    connected = opened(server, timeout=5)
    connected.get_by_ids(["a"])
    connected._client._connected().service_info.socket_timeout = 0.05
    server.hold.clear()
    with pytest.raises(VectorStoreError, match=r"gave no answer.*timed out"):
        connected.get_by_ids(["a"])


def test_threads_share_one_connection_and_a_forked_child_makes_its_own(
    server: VikingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(server)
    assert server.pings == 0
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: store.add_texts([f"t{number}"], ids=[str(number)])[0], range(40)))
    assert server.pings == 1
    assert {one.id for one in store.get_by_ids(ids)} == set(ids)
    child = os.getpid() + 1
    monkeypatch.setattr(vikingdb_client.os, "getpid", lambda: child)
    store.get_by_ids(ids)
    assert server.pings == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": None}, "VIKINGDB_HOST"),
        ({"host": "https://user:word@host"}, "no user or password"),
        ({"host": "ftp://host"}, "is no host"),
        ({"host": "https://host/path"}, "is no host"),
        ({"region": None}, "VIKINGDB_REGION"),
        ({"sk": None}, "VIKINGDB_AK and VIKINGDB_SK"),
        ({"ak": None, "sk": None}, "VIKINGDB_API_KEY"),
        ({"api_key": "k"}, "either `api_key`, or `ak` and `sk`"),
        ({"sk": "two words"}, "VIKINGDB_SK holds characters"),
        ({"index_name": "no-index"}, "'no-index' is no name"),
        ({"text_field": "id"}, "four different"),
        ({"batch_size": 101}, "from 1 to 100"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
    ],
)
def test_settings_that_cannot_work_say_what_to_do(server: VikingServer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        opened(server, **changes)
    assert "word@" not in str(caught.value)
    assert "two words" not in str(caught.value)


def test_names_and_embedder_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="'a b' is no name"):
        VikingDBVectorStore("a b", DeterministicEmbeddings(DIMS))
    with pytest.raises(ConfigurationError, match="got str"):
        VikingDBVectorStore("memories", "openai:text-embedding-3-small")  # type: ignore[arg-type]


def test_a_missing_sdk_names_the_extra(server: VikingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vikingdb", None)
    with pytest.raises(MissingDependency, match=r'pip install "langchain-memlayer\[vikingdb\]"'):
        opened(server)


def test_from_texts_makes_a_filled_store(server: VikingServer) -> None:
    settings = {"collection_name": "memories", "host": server.url, **PAIR}
    store = VikingDBVectorStore.from_texts(
        ["a", "b"], DeterministicEmbeddings(DIMS), [{"n": 1}, {"n": 2}], ids=["1", "2"], **settings
    )
    assert [one.metadata for one in store.get_by_ids(["2", "1", "3"])] == [{"n": 2}, {"n": 1}]
    documents = [Document(id="9", page_content="c")]
    assert VikingDBVectorStore.from_documents(documents, DeterministicEmbeddings(DIMS), **settings).get_by_ids(["9"])


@pytest.mark.parametrize("indexed", [True, False])
def test_the_journal_may_keep_its_vectors_there(server: VikingServer, indexed: bool) -> None:
    own = {ITEM: "int64", STORE: "string", "topic": "string"} if indexed else {}
    server.collections["memories"] = Collection(
        dims=2, fields={"text": "text", "metadata": "text", **own}, scalars=tuple(own)
    )
    foreign = adapt(opened(server))

    def point(row: int, x: float, y: float, topic: str) -> Point:
        metadata = {ITEM: row, STORE: "ours", "topic": topic}
        return Point(str(row), np.asarray([x, y], np.float32), f"text {row}", metadata)

    foreign.upsert([point(1, 3, 0, "a"), point(2, 3, 1, "b"), point(3, 0, 2, "a"), point(3, 0, 1, "a")])
    query = np.asarray([1, 0], np.float32)
    wanted = {STORE: "ours", "topic": "b"}
    assert foreign.search(query, 3, {STORE: "ours"}, None) == [1, 2, 3]
    # Without scalar indexes the answer is not filtered, and what does not fit counts as nobody's.
    assert foreign.search(query, 3, wanted, None) == ([2] if indexed else [-1, 2, -1])
    assert foreign.present(["1", "3", "9"]) == {"1", "3"}
    foreign.delete(["1", "9"])
    assert foreign.present(["1", "2", "3"]) == {"2", "3"}


async def test_doubao_and_vikingdb_answer_a_question_together(server: VikingServer, loopback: Loopback) -> None:
    server.collections["memories"].dims = 4  # what the loopback's embeddings have
    embedding = OpenAIEmbeddings(
        model="ep-embed",
        base_url=loopback.url,
        api_key=SecretStr("ark-key"),
        check_embedding_ctx_length=False,
        model_kwargs={"encoding_format": "float"},
    )
    model = ChatOpenAI(model="ep-chat", base_url=loopback.url, api_key=SecretStr("ark-key"))
    store = VikingDBVectorStore("memories", embedding, host=server.url, **PAIR)  # type: ignore[arg-type]
    await store.aadd_texts(["Anna lives in Berlin", "x"], [{"topic": "home"}, {"topic": "home"}], ids=["1", "2"])
    loopback.message = lambda body: {"content": "In Berlin."}
    condition = {"op": "must", "field": "topic", "conds": ["home"]}
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": condition})
    prompt = ChatPromptTemplate.from_template("Known: {known}\nQuestion: {question}")
    chain = {"known": retriever, "question": RunnablePassthrough()} | prompt | model | StrOutputParser()
    assert await chain.ainvoke("Where does Anna live?") == "In Berlin."
    [chat] = loopback.of("/chat/completions")
    assert chat.body["model"] == "ep-chat"
    assert "Anna lives in Berlin" in chat.body["messages"][0]["content"]
    assert [one.body["input"] for one in loopback.of("/embeddings")] == [
        ["Anna lives in Berlin", "x"],
        ["Where does Anna live?"],
    ]
    assert {one.authorization for one in loopback.asked} == {"Bearer ark-key"}
    [search] = server.of("/data/search/vector")
    assert search["filter"] == condition
    assert search["dense_vector"] == [1.0, float(len("Where does Anna live?")), 2.0, 3.0]


@pytest.mark.enable_socket
def test_a_real_collection_keeps_finds_and_deletes() -> None:
    given = os.environ.get("MEMLAYER_TEST_VIKINGDB", "")
    if not given:
        pytest.skip("MEMLAYER_TEST_VIKINGDB names no collection and vector size, such as 'memories:1024'")
    name, _, dims = given.partition(":")
    store = VikingDBVectorStore(name, DeterministicEmbeddings(int(dims)))
    text, metadata = f"a text of this test {uuid4()}", {"topic": "test", "deep": {"a": [1, None]}}
    ids = store.add_texts([text, "another"], [metadata, {}])
    try:
        assert [(one.page_content, one.metadata) for one in store.get_by_ids(ids)] == [
            (text, metadata),
            ("another", {}),
        ]
        until = time.monotonic() + 120  # the index follows the collection after up to 20 seconds, as a rule
        while not (found := [one.id for one in store.similarity_search(text, k=1)]) or found[0] != ids[0]:
            assert time.monotonic() < until, f"the index never showed the text: {found}"
            time.sleep(2)
    finally:
        store.delete(ids)
    assert store.get_by_ids(ids) == []
