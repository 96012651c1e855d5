from __future__ import annotations

import sys
from typing import Any

import pytest

from langchain_memlayer.config import read_config
from langchain_memlayer.errors import ConfigurationError, MissingDependency
from langchain_memlayer.testing import ScriptedChatModel

SECRET = "key-that-stays-secret"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"llms": {}}, ("llms", "embedder", "vector_store")),
        ({"llm": {"provider": "opanai"}}, ("opanai", "deepseek", "doubao", "langchain", "openai")),
        ({"embedder": {"provider": "x"}}, ("embedder.provider", "wordllama")),
        ({"vector_store": {"provider": "x"}}, ("vector_store.provider", "faiss")),
        (
            {
                "vector_store": {
                    "provider": "faiss",
                    "config": {"distance_strategy": "euclidean", "normalize_L2": False},
                }
            },
            ("distance_strategy", "cosine"),
        ),
        ({"llm": {"provider": "openai", "config": {"modle": "m"}}}, ("modle", "model", "base_url")),
        ({"embedder": {"provider": "wordllama", "config": {"model": "m"}}}, ("model", "none")),
        ({"llm": {"provider": "openai", "configs": {}}}, ("configs", "provider", "config")),
        ({"llm": {"provider": "doubao", "config": {"api_key": "k"}}}, ("llm.config of doubao", "'model'")),
        ({"llm": {"provider": "langchain"}}, ("llm.config of langchain", "'model'")),
        ({"vector_store": {"provider": "faiss", "config": {"embedding_model_dims": "wide"}}}, ("dims", "wide")),
        ({"custom_prompt": " "}, ("custom_prompt",)),
    ],
)
def test_a_mistake_names_the_key_and_the_choices(config: dict[str, Any], named: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_config(config)
    assert [name for name in named if name not in str(caught.value)] == []


@pytest.mark.parametrize(("provider", "variable"), [("openai", "OPENAI_API_KEY"), ("doubao", "ARK_API_KEY")])
@pytest.mark.parametrize("section", ["llm", "embedder"])
def test_a_key_comes_from_the_dictionary_or_the_environment_and_is_never_shown(
    section: str, provider: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variable, raising=False)
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
    "section", [SECRET, {"provider": "openai", "config": {"api_key": SECRET, "temperature": "hot"}}]
)
def test_an_error_never_shows_the_key(section: Any) -> None:
    with pytest.raises(ConfigurationError, match="llm") as caught:
        read_config({"llm": section})
    assert SECRET not in str(caught.value)


def test_sizes_may_be_strings() -> None:
    config = {"provider": "openai", "config": {"api_key": "k", "embedding_dims": "512"}}
    assert read_config({"embedder": config}).embeddings.dimensions == 512


def test_the_collection_fills_the_path_of_faiss() -> None:
    config = {"path": "store/<collection_name>", "collection_name": "notes", "embedding_model_dims": "256"}
    assert read_config({"vector_store": {"provider": "faiss", "config": config}}).path == "store/notes"


def test_langchain_takes_an_object_as_it_is() -> None:
    model = ScriptedChatModel(replies=[])
    assert read_config({"llm": {"provider": "langchain", "config": {"model": model}}}).model is model


def test_langchain_takes_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found = read_config({"llm": {"provider": "langchain", "config": {"model": "openai:gpt-x"}}}).model
    assert found.model_name == "gpt-x"


def test_deepseek_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_deepseek", None)
    with pytest.raises(MissingDependency, match="pip install langchain-deepseek"):
        read_config({"llm": {"provider": "deepseek", "config": {"api_key": "k"}}})
