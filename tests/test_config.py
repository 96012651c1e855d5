import copy
import sqlite3
import sys
import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import BaseModel

from langchain_memlayer import Memory
from langchain_memlayer.config import MemoryConfig, read_config, stores
from langchain_memlayer.engine.commit import Indexed
from langchain_memlayer.engine.index_sync import encode_vectors
from langchain_memlayer.errors import ConfigurationError, EmbedderMismatch, MissingDependency
from langchain_memlayer.testing import DeterministicEmbeddings, ScriptedChatModel
from langchain_memlayer.types import METRICS, Fact, Scope

SECRET = "key-that-stays-secret"
EMBEDDER = {"embedder": {"provider": "langchain", "config": {"model": DeterministicEmbeddings(8)}}}


def store(provider: str, **config: Any) -> dict[str, Any]:
    return {"vector_store": {"provider": provider, "config": config}}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"llms": {}}, ("llms", "embedder", "vector_store")),
        ({"llm": {"provider": "opanai"}}, ("opanai", "deepseek", "doubao", "langchain", "openai")),
        ({"llm": {"provider": "qwen"}}, ("'qwen'", "OpenAI's protocol", "base_url")),
        ({"llm": {"provider": "langchain", "config": {"model": "qwen:qwen-max"}}}, ("OpenAI's protocol", "base_url")),
        ({"embedder": {"provider": "x"}}, ("embedder.provider", "wordllama", "OpenAI's protocol")),
        (
            {"vector_store": {"provider": "x"}},
            ("vector_store.provider", "chroma, faiss, langchain, milvus, pgvector, qdrant, vikingdb"),
        ),
        (store("faiss", distance_strategy="manhattan"), ("distance_strategy", "cosine, inner_product, euclidean")),
        (store("faiss", normalize_L2="yes"), ("normalize_L2", "true or false", "'yes'")),
        ({"llm": {"provider": "openai", "config": {"modle": "m"}}}, ("modle", "model", "base_url")),
        ({"embedder": {"provider": "wordllama", "config": {"model": "m"}}}, ("model", "none")),
        ({"llm": {"provider": "openai", "configs": {}}}, ("configs", "provider", "config")),
        ({"llm": {"provider": "doubao", "config": {"api_key": "k"}}}, ("llm.config of doubao", "'model'")),
        ({"llm": {"provider": "langchain"}}, ("llm.config of langchain", "'model'")),
        (store("faiss", embedding_model_dims="wide"), ("dims", "wide")),
        *(
            (store("faiss", embedding_model_dims=dims), ("dims", "whole number"))
            for dims in (0, -1, 1.5, True, float("inf"), 10**5000, "9" * 5000, [256])
        ),
        (
            {**store("faiss", embedding_model_dims="1536"), "embedder": {"provider": "wordllama"}},
            ("embedding_model_dims is 1536", "vectors of 256"),
        ),
        ({"llm": {"provider": "azure_openai", "config": {"azure_kwargs": "k"}}}, ("azure_kwargs", "dictionary")),
        ({"reranker": "cohere"}, ("reranker", "dictionary")),
        ({"reranker": {"provider": "langchain", "config": "c"}}, ("reranker.config", "dictionary")),
        ({"custom_prompt": " "}, ("custom_prompt",)),
        (store("faiss", path=7), ("faiss: path", "int")),
        ({"path": 7}, ("path must be a path", "int")),
        (store("qdrant", path="q", port=1), ("port without a host",)),
        (store("qdrant", host="h", api_key=SECRET, port="x"), ("port", "'x'")),
        (store("qdrant", distance="dot"), ("distance", "on_disk", "embedding_model_dims")),
        (store("chroma", host="h", port="x"), ("port", "'x'")),
        (store("chroma", metric="cosine"), ("metric", "collection_name, client, path, host, port")),
        (store("milvus", url="http://h", token=SECRET, metric_type="HAMMING"), ("COSINE, L2, IP", "HAMMING")),
        (store("langchain"), ("langchain", "'client'")),
        (store("langchain", client=7), ("LangChain VectorStore", "int")),
        (store("pgvector"), ("pgvector", "'user'")),
        (store("pgvector", connection_string=f"mysql://u:{SECRET}@h/d"), ("begins with postgresql://",)),
        (store("qdrant", collection_name=7), ("collection_name", "int")),
        (store("vikingdb", ak=SECRET, sk=SECRET, url="u"), ("url", "collection_name", "region")),
    ],
)
def test_a_mistake_names_the_key_and_the_choices(config: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config(config)
    assert [name for name in named if name not in str(caught.value)] == []
    assert SECRET not in str(caught.value)


AZURE = {"azure_endpoint": "http://a", "azure_deployment": "d", "api_version": "1", "api_key": SECRET}
HOSTED = {"model": "m", "api_key": SECRET, "temperature": 0.1, "max_tokens": 9, "top_p": 0.1, "top_k": 1}


@pytest.mark.parametrize(
    ("provider", "config", "kind", "expected"),
    [
        ("openai", {**HOSTED, "openai_base_url": "http://h/v1"}, "ChatOpenAI", {"openai_api_base": "http://h/v1"}),
        ("openai", {**HOSTED, "enable_vision": False, "vision_details": "auto"}, "ChatOpenAI", {"max_tokens": 9}),
        ("openai", {**HOSTED, "reasoning_effort": "low"}, "ChatOpenAI", {"reasoning_effort": "low"}),
        ("openai_structured", HOSTED, "ChatOpenAI", {"temperature": 0.1}),
        ("azure_openai", {"model": "m", "azure_kwargs": AZURE}, "AzureChatOpenAI", {"deployment_name": "d"}),
        ("lmstudio", {"model": "m"}, "ChatOpenAI", {"openai_api_base": "http://localhost:1234/v1"}),
        ("ollama", {"model": "m"}, "ChatOpenAI", {"openai_api_base": "http://localhost:11434/v1"}),
        ("ollama", {"model": "m", "ollama_base_url": "http://o:1"}, "ChatOpenAI", {"openai_api_base": "http://o:1/v1"}),
        ("deepseek", {**HOSTED, "deepseek_base_url": "http://d/v1"}, "ChatDeepSeek", {"api_base": "http://d/v1"}),
        ("vllm", {"model": "m", "vllm_base_url": "http://v/v1"}, "ChatOpenAI", {"openai_api_base": "http://v/v1"}),
        ("doubao", HOSTED, "ChatOpenAI", {"model_name": "m"}),
        ("minimax", HOSTED, "ChatOpenAI", {"openai_api_base": "https://api.minimax.io/v1"}),
        ("sarvam", {**HOSTED, "sarvam_base_url": "http://s/v1"}, "ChatOpenAI", {"openai_api_base": "http://s/v1"}),
        ("langchain", {"model": "openai:gpt-x"}, "ChatOpenAI", {"model_name": "gpt-x"}),
        ("openai", {"api_key": SECRET, "http_client_proxies": "http://127.0.0.1:9"}, "ChatOpenAI", {}),
        ("openai", {"api_key": SECRET, "http_client_proxies": {"https://": "http://127.0.0.1:9"}}, "ChatOpenAI", {}),
    ],
)
def test_the_models_of_other_memories_keep_their_keys(
    provider: str, config: dict[str, Any], kind: str, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    model = read_config({"llm": {"provider": provider, "config": config}}).model
    assert type(model).__name__ == kind
    assert {key: getattr(model, key) for key in expected} == expected
    assert SECRET not in repr(model)


@pytest.mark.parametrize(
    ("provider", "config", "kind", "expected"),
    [
        ("openai", {"api_key": SECRET, "openai_base_url": "http://h/v1", "embedding_dims": "8"}, "OpenAIEmbeddings",
         {"openai_api_base": "http://h/v1", "dimensions": 8}),
        ("openai", {"api_key": SECRET, "base_url": "https://dashscope.aliyuncs.com/compatible-mode/v1"},
         "OpenAIEmbeddings", {"chunk_size": 10, "model_kwargs": {"encoding_format": "float"}}),
        ("openai", {"api_key": SECRET}, "OpenAIEmbeddings", {"chunk_size": 1000, "model_kwargs": {}}),
        ("azure_openai", {"model": "m", "azure_kwargs": AZURE}, "AzureOpenAIEmbeddings", {"deployment": "d"}),
        ("lmstudio", {"model": "m"}, "OpenAIEmbeddings", {"openai_api_base": "http://localhost:1234/v1"}),
        ("ollama", {}, "OpenAIEmbeddings", {"model": "nomic-embed-text"}),
        ("ollama", {"embedding_dims": 768, "ollama_base_url": "http://o:1"}, "OpenAIEmbeddings",
         {"dimensions": None, "openai_api_base": "http://o:1/v1"}),
        ("huggingface", {"huggingface_base_url": "http://t/v1", "model_kwargs": {"device": "cpu"}}, "OpenAIEmbeddings",
         {"model": "tei", "openai_api_base": "http://t/v1"}),
        ("together", {"model": "m", "api_key": SECRET}, "OpenAIEmbeddings", {"model": "m"}),
    ],
)  # fmt: skip
def test_the_embedders_of_other_memories_keep_their_keys(
    provider: str, config: dict[str, Any], kind: str, expected: dict[str, Any]
) -> None:
    source = read_config({"embedder": {"provider": provider, "config": config}}).embeddings
    assert type(source).__name__ == kind
    assert {key: getattr(source, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("section", "provider", "package"),
    [
        ("llm", "anthropic", "langchain-anthropic"), ("llm", "gemini", "langchain-google-genai"),
        ("llm", "groq", "langchain-groq"), ("llm", "together", "langchain-together"),
        ("llm", "mistral", "langchain-mistralai"), ("llm", "huggingface", "langchain-huggingface"),
        ("llm", "aws_bedrock", "langchain-aws"), ("llm", "deepseek", "langchain-deepseek"),
        ("embedder", "gemini", "langchain-google-genai"), ("embedder", "huggingface", "langchain-huggingface"),
        ("embedder", "fastembed", "fastembed"),
        ("embedder", "aws_bedrock", "langchain-aws"),
    ],
)  # fmt: skip
def test_a_provider_without_its_package_says_what_to_install(
    section: str, provider: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(MissingDependency, match=package):
        read_config({section: {"provider": provider, "config": {"model": "m"}}})


def test_what_says_nothing_here_is_accepted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    read = read_config(
        {
            "graph_store": {"provider": "neo4j", "config": {"url": "bolt://h", "password": SECRET}},
            "reranker": {"provider": "cohere", "config": {"api_key": SECRET}},
            "llm": {"provider": "openai", "config": {"api_key": SECRET, "top_k": 1}},
            "version": "v1.1",
        }
    )
    assert read.reranker is None
    assert all(word in caplog.text for word in ("graph_store is not used", "cohere is not used", "top_k"))
    assert SECRET not in caplog.text


def test_a_configuration_may_be_an_object() -> None:
    class Part(BaseModel):
        provider: str
        config: dict[str, Any] = {}

    class Whole(BaseModel):
        embedder: Part = Part(provider="openai")
        llm: Part = Part(provider="openai")
        version: str = "v1.1"

    own = read_config(MemoryConfig(embedder={"provider": "wordllama"}, llm=None))
    assert (own.embeddings, own.model) == ("wordllama", None)
    assert read_config(MemoryConfig(embedder=Part(provider="wordllama"))).model in ("auto", None)
    # What another package's class has by default was not asked for.
    assert read_config(Whole(embedder=Part(provider="wordllama"))).embeddings == "wordllama"


def test_the_file_of_another_memorys_history_stays_as_it_is(tmp_path: Path) -> None:
    history = tmp_path / "history.db"
    with closing(sqlite3.connect(history)) as db:
        db.execute("CREATE TABLE history (id TEXT)")
    before = history.read_bytes()
    with Memory.from_config({"history_db_path": str(history), "embedder": {"provider": "wordllama"}}, model=None) as m:
        m.add("I like tea.", user_id="u")
    assert history.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"history.db", "history.db.memlayer"}


def test_of_two_places_of_a_store_the_server_wins_and_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langchain_qdrant")
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    block = {
        "collection_name": "demo", "embedding_model_dims": "256", "client": None, "host": "localhost", "port": 6333,
        "path": str(tmp_path / "qdrant"), "url": None, "api_key": None, "on_disk": False,
    }  # fmt: skip
    with Memory.from_config({**store("qdrant", **block), "embedder": {"provider": "wordllama"}}, model=None) as memory:
        memory.add("I like tea.", user_id="u")
        assert memory.search("tea", user_id="u")["results"]
    assert "host says where the store is, so path is not used" in caplog.text
    assert not (tmp_path / "qdrant").exists()


def test_no_model_can_be_asked_for_although_there_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    offline = {"path": str(tmp_path), "embedder": {"provider": "wordllama"}}
    for memory in (Memory.from_config(offline, model=None), Memory(config={**offline, "llm": None})):
        with memory:
            assert memory.model is None
    with pytest.raises(ConfigurationError, match="config="):
        Memory(offline)  # type: ignore[arg-type]


@pytest.mark.parametrize(("provider", "variable"), [("openai", "OPENAI_API_KEY"), ("doubao", "ARK_API_KEY")])
@pytest.mark.parametrize("section", ["llm", "embedder"])
def test_a_key_comes_from_the_dictionary_or_the_environment_and_is_never_shown(
    section: str, provider: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "model" if section == "llm" else "embeddings"
    field = "openai_api_key"
    with pytest.raises(ConfigurationError, match=variable):
        read_config({section: {"provider": provider, "config": {"model": "m"}}})
    given = read_config({section: {"provider": provider, "config": {"model": "m", "api_key": SECRET}}})
    monkeypatch.setenv(variable, SECRET)
    found = read_config({section: {"provider": provider, "config": {"model": "m"}}})
    for settings in (given, found):
        assert getattr(getattr(settings, place), field).get_secret_value() == SECRET
        assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    "more", [{}, {"path": "mine/<collection_name>"}, {"history_db_path": "mine/<collection_name>"}]
)
def test_the_collection_fills_the_path_and_the_folder_that_is_named_comes_first(more: dict[str, str]) -> None:
    config = store("faiss", path="store/<collection_name>", collection_name="notes", embedding_model_dims="256") | more
    before = copy.deepcopy(config)
    assert read_config(config).path == ("mine/notes" if more else "store/notes")
    assert config == before


@pytest.mark.parametrize("name", ["mallory/../bob", "../bob", "..", ".", "a\\b", "c:", "/etc", "a\nb"])
@pytest.mark.parametrize("key", ["path", "history_db_path", None])
def test_a_collections_name_cannot_leave_its_place_in_a_path(name: str, key: str | None, tmp_path: Path) -> None:
    template = str(tmp_path / "tenants" / "<collection_name>")
    own = {"collection_name": name} | ({} if key else {"path": template})
    with pytest.raises(ConfigurationError, match="collection_name must be"):
        read_config(store("faiss", **own) | ({key: template} if key else {}))


def test_without_a_folder_there_is_one_of_the_users_own_for_each_provider_and_collection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path))
    foreign = InMemoryVectorStore(DeterministicEmbeddings(8))
    folders = [
        read_config(config).path
        for config in (
            store("faiss"),
            store("faiss", collection_name="notes"),
            store("langchain", client=foreign),
            store("faiss", collection_name="a/../b"),
            store("faiss", collection_name="a_.._b"),
        )
    ]
    assert folders[:3] == [tmp_path / name for name in ("faiss-mem0", "faiss-notes", "langchain-InMemoryVectorStore")]
    assert len(set(folders)) == len(folders)
    assert {Path(str(folder)).parent for folder in folders} == {tmp_path}
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("MEMLAYER_HOME")
    assert Path(str(read_config(store("faiss")).path)).parts[-2:] == ("langchain_memlayer", "faiss-mem0")


def test_collections_of_one_name_in_several_places_have_journals_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("langchain_qdrant")
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))

    def folder(place: str) -> str:
        read = read_config(store("qdrant", path=place) | EMBEDDER)
        read.resources.close()
        return Path(str(read.path)).name

    monkeypatch.chdir(tmp_path)
    first, second = (folder(place) for place in ("a", "b/<collection_name>"))
    assert first != second
    assert first.startswith("qdrant-mem0-")
    assert folder(str(tmp_path / "a")) == first
    assert folder("b/mem0") == second


@pytest.mark.parametrize("mistake", [{"reconcile": "maybe"}, {"model": "nothing"}, {"metric": "euclidean"}])
def test_a_memory_that_cannot_be_opened_leaves_nothing_open(mistake: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("langchain_qdrant")
    config = store("qdrant", path=str(tmp_path / "points")) | EMBEDDER | {"path": str(tmp_path / "store"), "llm": None}
    with pytest.raises(ConfigurationError) as told:
        Memory(config=config, **mistake)
    # A folder of Qdrant's is one client's, as long as that is open.
    Memory(config=config).close()
    assert "qdrant" not in str(told.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"url": "http://a:1"}, {"url": "http://b:1"}),
        ({"host": "a", "port": 1}, {"host": "a", "port": 2}),
        ({"connection_string": "postgresql://u:x@h/d"}, {"connection_string": "postgresql://u:x@h/e"}),
    ],
)
def test_a_server_is_a_place_and_its_credentials_are_not(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert stores._place(one, "c") != stores._place(other, "c")
    secret = {key: str(value).replace("u:x@", "v:y@") for key, value in one.items()}
    assert stores._place(secret, "c") == stores._place(one, "c")


def test_a_database_as_home_has_no_place_for_a_collection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMLAYER_HOME", "postgresql://u:secret@h/d")
    with pytest.raises(ConfigurationError, match="name the journal of this one with 'path'") as caught:
        read_config(store("langchain", client=InMemoryVectorStore(DeterministicEmbeddings(8))))
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_chroma_is_opened_without_telemetry_and_closed(tmp_path: Path) -> None:
    pytest.importorskip("langchain_chroma")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Chroma's own
        read = read_config(store("chroma", path=str(tmp_path / "c")) | EMBEDDER)
        client = read.vectorstore._client
        assert not client.get_settings().anonymized_telemetry
        read.resources.close()
        assert client._closed


def test_a_store_of_langchain_is_used_as_it_is_with_its_own_embeddings(tmp_path: Path) -> None:
    own = DeterministicEmbeddings(8)
    foreign = InMemoryVectorStore(own)
    config = store("langchain", client=foreign) | {"path": str(tmp_path / "m")}
    assert read_config(config).vectorstore is foreign
    # An embedder that is named comes before the store's own.
    named = DeterministicEmbeddings(4)
    other = config | {"embedder": {"provider": "langchain", "config": {"model": named}}}
    assert read_config(other).embeddings is named
    with Memory.from_config(config) as memory:
        memory.add("I live in Porto.", user_id="ana", infer=False)
        assert [hit["memory"] for hit in memory.search("Porto", user_id="ana")["results"]] == ["I live in Porto."]
    assert [entry["text"] for entry in foreign.store.values()] == ["I live in Porto."]
    assert [len(entry["vector"]) for entry in foreign.store.values()] == [8]


@pytest.mark.parametrize(
    ("provider", "config", "module", "extra"),
    [
        ("qdrant", {"path": "q"}, "langchain_qdrant", "qdrant"),
        ("chroma", {"host": "127.0.0.1", "port": "8000"}, "langchain_chroma", "chroma"),
        ("milvus", {"url": "m.db", "token": SECRET}, "langchain_milvus", "milvus"),
        ("pgvector", {"connection_string": f"postgresql://u:{SECRET}@h/d"}, "langchain_postgres", "pgvector"),
    ],
)
def test_a_missing_driver_says_which_extra_to_install(
    provider: str, config: dict[str, Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency, match=rf"pip install 'langchain-memlayer\[{extra}\]'") as caught:
        read_config(store(provider, **config))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        store("pgvector", connection_string=f"postgresql://u:{SECRET}@h/d", table="t"),
        store("pgvector", connection_string=f"postgresql://u:1/{SECRET}@h/d"),
        store("pgvector", connection_string=f"host=h password={SECRET}"),
        store("pgvector", connection_string=[SECRET]),
        store("vikingdb", ak=SECRET, sk=[SECRET]),
        store("faiss", path=[SECRET]),
        {"llm": {"provider": "openai", "config": {"api_key": SECRET, "temperature": "warm"}}},
        {"llm": {"provider": "openai", "config": {"api_key": [SECRET]}}},
        {"embedder": {"provider": "openai", "config": {"api_key": SECRET, "embedding_dims": "many"}}},
        {"llm": SECRET},
    ],
)
def test_a_mistake_never_shows_a_secret(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config(config)
    assert SECRET not in str(caught.value)


# -- how vectors are compared -----------------------------------------------------------------------------------------


def lengths(text: str) -> list[float]:
    """A vector for each text, none of them of unit length; the same for the same text."""
    generator = np.random.default_rng(list(text.split(": ")[-1].encode()))
    direction = generator.normal(size=6) + 2
    return list(direction * 4 ** generator.uniform(-2, 2))


def by_brute_force(metric: str, texts: Sequence[str], query: str) -> list[str]:
    rows = np.array([lengths(text) for text in texts], np.float32).astype(np.float16).astype(np.float32)
    asked = np.array(lengths(query), np.float32)
    scores = {
        "euclidean": -np.linalg.norm(rows - asked, axis=1),
        "inner_product": rows @ asked,
        "cosine": rows @ asked / np.linalg.norm(rows, axis=1),
    }[metric]
    return [texts[place] for place in np.argsort(-scores)]


@pytest.mark.parametrize("normal", [None, False, True])
@pytest.mark.parametrize("strategy", [None, *METRICS])
def test_faiss_compares_as_it_is_told(strategy: str | None, normal: bool | None, tmp_path: Path) -> None:
    config = store("faiss", path=str(tmp_path / "m"), distance_strategy=strategy, normalize_L2=normal)
    config |= {"embedder": {"provider": "langchain", "config": {"model": Lengths()}}}
    texts = [f"word{n}" for n in range(40)]
    with Memory.from_config(config) as memory:
        memory.add(texts, user_id="ana", infer=False)
    with Memory.from_config(config) as memory:
        found = memory.search("nothing", user_id="ana", limit=40)["results"]
    expected = by_brute_force("cosine" if normal or strategy is None else strategy, texts, "nothing")
    # What is farther than everything else has no share in a score, nor has what points away a relevance.
    told = [hit["memory"] for hit in found]
    assert told == expected[: len(told)]
    assert len(told) >= 39
    relevance = [hit["relevance"] for hit in found]
    assert relevance == sorted(relevance, reverse=True)
    assert all(0 <= value <= 1 for value in relevance)
    assert len(set(relevance)) > 30


@pytest.mark.parametrize("metric", METRICS)
def test_a_large_scope_compares_alike(metric: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_memlayer.engine.scoring_pool.WHOLE_SCOPE", 10)
    texts = [f"word{n}" for n in range(40)]
    with Memory(tmp_path / "m", model=None, embeddings=Lengths(), metric=metric, hnsw_threshold=0) as memory:
        memory.add(texts, user_id="ana", infer=False)
        found = memory.search("nothing", user_id="ana", limit=30)["results"]
    assert [hit["memory"] for hit in found] == by_brute_force(metric, texts, "nothing")[:30]
    assert len({tuple(by_brute_force(each, texts, "nothing")) for each in METRICS}) == 3


@pytest.mark.parametrize(
    ("metric", "near"),
    [("cosine", ["near", "beyond"]), ("euclidean", ["near", "across"]), ("inner_product", ["beyond"])],
)
def test_candidates_are_near_by_the_metric(metric: Any, near: list[str], tmp_path: Path) -> None:
    vectors = {"near": [0.5, 0.0], "beyond": [9.0, 0.0], "across": [0.0, 0.5], "away": [-9.0, 0.0], "new": [0.5, 0.1]}
    embed = Named(vectors)
    replies = [{"facts": [{"turn": 1, "quote": text, "fact": text}]} for text in list(vectors)[:-1]]
    model = ScriptedChatModel(replies=replies)
    with Memory(tmp_path / "m", model=model, embeddings=embed, metric=metric, reconcile="off") as memory:
        for text in list(vectors)[:-1]:
            memory.add(text, user_id="ana")
        form = Indexed(b"", encode_vectors([np.array(vectors["new"])], metric))
        found = memory._engine.finder.find(Scope("ana"), [Fact("new", (0,), "new")], [form])
    assert sorted(candidate.text for candidate in found) == sorted(near)


def test_a_threshold_cuts_at_one_distance(tmp_path: Path) -> None:
    texts = [f"word{n}" for n in range(40)]
    order = by_brute_force("euclidean", texts, "nothing")
    tenth, next_one = (np.linalg.norm(np.subtract(lengths(text), lengths("nothing"))) for text in order[9:11])
    threshold = 1 / (1 + (tenth + next_one) / 2)
    with Memory(tmp_path / "m", model=None, embeddings=Lengths(), metric="euclidean") as memory:
        memory.add(texts, user_id="ana", infer=False)
        found = memory.search("nothing", user_id="ana", limit=40, threshold=threshold)["results"]
    assert {hit["memory"] for hit in found} == set(order[:10])


def test_a_folder_keeps_its_metric(tmp_path: Path) -> None:
    with Memory(tmp_path / "m", model=None, embeddings=Lengths(), metric="inner_product") as memory:
        memory.add("one", user_id="ana", infer=False)
    for settings in ({"metric": "cosine"}, {"metric": "euclidean"}):
        with pytest.raises(ConfigurationError, match=r"inner_product.*" + settings["metric"]):
            Memory(tmp_path / "m", model=None, embeddings=Lengths(), **settings)
    with Memory(tmp_path / "m", model=None, embeddings=Lengths()) as memory:
        assert memory._indexes.metric == "inner_product"
    with Memory(tmp_path / "n", model=None, embeddings=Lengths()) as memory:
        memory.add("one", user_id="ana", infer=False)
    with pytest.raises(ConfigurationError, match=r"cosine.*euclidean"):
        Memory(tmp_path / "n", model=None, embeddings=Lengths(), metric="euclidean")


def test_two_that_open_a_new_folder_with_two_metrics_cannot_both_write(tmp_path: Path) -> None:
    with (
        Memory(tmp_path / "m", model=None, embeddings=Lengths(), metric="inner_product") as one,
        Memory(tmp_path / "m", model=None, embeddings=Lengths(), metric="euclidean") as other,
    ):
        one.add("one", user_id="ana", infer=False)
        with pytest.raises(EmbedderMismatch, match=r"inner_product.*euclidean"):
            other.add("two", user_id="ana", infer=False)
        assert [hit["memory"] for hit in one.get_all(user_id="ana")["results"]] == ["one"]


def test_what_is_no_metric_and_another_than_a_foreign_stores_are_refused(tmp_path: Path) -> None:
    for metric in ("manhattan", 5, ""):
        with pytest.raises(ConfigurationError, match="cosine, inner_product, euclidean"):
            Memory(tmp_path / "m", model=None, embeddings=Lengths(), metric=metric)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"cosine.*euclidean"):
        Memory(tmp_path / "m", model=None, vectorstore=InMemoryVectorStore(Lengths()), metric="euclidean")


class Lengths(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [lengths(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return lengths(text)


class Named(Embeddings):
    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vectors.get(text.split(": ")[-1], [0.3, 0.4])


def test_the_prompts_of_a_configuration_are_what_the_model_is_given(tmp_path: Path) -> None:
    def found(said: str) -> dict[str, Any]:
        return {"facts": [{"turn": 1, "quote": said, "fact": f"User: {said}", "triples": []}]}

    decided = {"decisions": [{"fact": 1, "action": "ADD"}]}
    model = ScriptedChatModel(replies=[found("I like tea"), found("I like green tea"), decided])
    config = {
        "path": str(tmp_path), **EMBEDDER, "llm": {"provider": "langchain", "config": {"model": model}},
        "custom_fact_extraction_prompt": "Only drinks.", "custom_instructions": "In capitals.",
        "custom_update_memory_prompt": "Never delete.",
    }  # fmt: skip
    with Memory.from_config(config) as memory:
        memory.add("I like tea", user_id="u")
        memory.add("I like green tea", user_id="u")
    first, _, third = (str(prompt[0].content) for prompt in model.prompts)
    assert first.startswith("Only drinks.")
    assert "In capitals." in first
    assert third.startswith("Never delete.")
