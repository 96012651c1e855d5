"""Settings by name: "provider:model" strings, and mem0's configuration dictionaries, to objects.

```
{"llm":          {"provider": "openai" | "doubao" | "deepseek" | "langchain", "config": {...}},
 "embedder":     {"provider": "openai" | "doubao" | "wordllama" | "langchain", "config": {...}},
 "vector_store": {"provider": "faiss", "config": {...}},
 "custom_prompt": "...", "path": "..."}
```
Keys come from the dictionary or from the environment and are kept as secrets; a mistake names the key and the choices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_memlayer.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from pydantic import SecretStr

DEFAULT_MODEL = "openai:gpt-4o-mini"
ARK_URL = "https://ark.cn-beijing.volces.com/api/v3"

_SECTIONS = ("llm", "embedder", "vector_store", "custom_prompt", "path", "history_db_path", "version")
_SAMPLING = ("temperature", "max_tokens", "top_p", "timeout", "max_retries")


def resolve_model(spec: Any) -> BaseChatModel | None:
    """The chat model that a caller asked for.

    Args:
        spec: A LangChain chat model; "provider:model"; "auto": OpenAI's gpt-4o-mini when `OPENAI_API_KEY` is set, else
            none; or None.

    Raises:
        ConfigurationError: it is none of these.
        MissingDependency: the provider's package is not installed.
    """
    if spec is None:
        return None
    if spec == "auto":
        return resolve_model(DEFAULT_MODEL) if os.environ.get("OPENAI_API_KEY") else None
    if isinstance(spec, str):
        return _named_model(spec)
    from langchain_core.language_models import BaseChatModel

    if isinstance(spec, BaseChatModel):
        return spec
    raise ConfigurationError(
        f"model is of type {type(spec).__name__}; pass a LangChain chat model, 'provider:model', 'auto' or None."
    )


def _named_model(name: str) -> BaseChatModel:
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise ConfigurationError(f"model must be 'provider:model', such as '{DEFAULT_MODEL}', got {name!r}.")
    if provider == "openai":
        from langchain_openai import ChatOpenAI

        _needs("OPENAI_API_KEY", os.environ.get("OPENAI_API_KEY"), "model")
        return ChatOpenAI(model=model)
    init = _imported("langchain.chat_models", "langchain").init_chat_model
    try:
        return init(name)  # type: ignore[no-any-return]
    except ImportError as error:
        raise MissingDependency(f"The model {name!r} needs another package: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"The model {name!r} cannot be made: {error}") from error


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration dictionary says, as arguments of `Memory`.

    Attributes:
        path: The folder, or None for the default one.
        model: The chat model, "auto" or None.
        embeddings: The embedder, "auto" or None.
        custom_prompt: The extraction instructions, when replaced.
    """

    path: str | Path | None
    model: Any
    embeddings: Any
    custom_prompt: str | None


def read_config(config: Mapping[str, Any]) -> Settings:
    """The settings in a configuration dictionary, which stays untouched.

    Raises:
        ConfigurationError: an unknown section, provider or key, a missing one, or a value of the wrong kind.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"The configuration must be a dictionary, got {type(config).__name__}.")
    _known(config, _SECTIONS, "The configuration")
    prompt = config.get("custom_prompt")
    if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
        raise ConfigurationError("custom_prompt must be a non-empty string: the instructions for extraction.")
    store = _section(config, "vector_store", _STORES)
    path = config.get("path") or config.get("history_db_path") or (store.path if store else None)
    embeddings = _section(config, "embedder", _EMBEDDERS)
    return Settings(
        path=path,
        model=_section(config, "llm", _MODELS) or "auto",
        embeddings=embeddings or "auto",
        custom_prompt=prompt,
    )


@dataclass(frozen=True, slots=True)
class _Store:
    path: str | Path | None = None


@dataclass(frozen=True, slots=True)
class _Provider:
    """How the configuration of one provider becomes an object, and the keys that it knows."""

    make: Callable[[dict[str, Any]], Any]
    keys: tuple[str, ...]


def _section(config: Mapping[str, Any], name: str, providers: Mapping[str, _Provider]) -> Any:
    section = config.get(name)
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise ConfigurationError(
            f"{name} must be a dictionary with 'provider' and 'config', got {type(section).__name__}."
        )
    _known(section, ("provider", "config"), name)
    provider = section.get("provider")
    if not isinstance(provider, str) or provider not in providers:
        raise ConfigurationError(f"{name}.provider must be one of {', '.join(sorted(providers))}; got {provider!r}.")
    settings = section.get("config") or {}
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{name}.config must be a dictionary, got {type(settings).__name__}.")
    _known(settings, providers[provider].keys, f"{name}.config of {provider}")
    from pydantic import ValidationError

    try:
        return providers[provider].make(dict(settings))
    except ValidationError as error:
        # Only the places and the reasons: the values may be secrets.
        wrong = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors())
        raise ConfigurationError(f"{name}.config of {provider} cannot be used: {wrong}.") from None


# -- llm --------------------------------------------------------------------------------------------------------------


def _openai_model(config: dict[str, Any]) -> Any:
    from langchain_openai import ChatOpenAI

    key = _secret(config, "api_key", "OPENAI_API_KEY", "llm.config of openai")
    return ChatOpenAI(
        model=config.pop("model", "gpt-4o-mini"), api_key=key, base_url=_url(config, "OPENAI_BASE_URL"), **config
    )


def _doubao_model(config: dict[str, Any]) -> Any:
    from langchain_openai import ChatOpenAI

    key = _secret(config, "api_key", "ARK_API_KEY", "llm.config of doubao")
    model = _required(config, "model", "llm.config of doubao")
    return ChatOpenAI(model=model, api_key=key, base_url=_url(config, "ARK_BASE_URL") or ARK_URL, **config)


def _deepseek_model(config: dict[str, Any]) -> Any:
    deepseek = _imported("langchain_deepseek", "langchain-deepseek")
    key = _secret(config, "api_key", "DEEPSEEK_API_KEY", "llm.config of deepseek")
    url = _url(config, "DEEPSEEK_API_BASE")
    return deepseek.ChatDeepSeek(
        model=config.pop("model", "deepseek-chat"), api_key=key, **({"api_base": url} if url else {}), **config
    )


def _langchain_model(config: dict[str, Any]) -> Any:
    return resolve_model(_required(config, "model", "llm.config of langchain"))


_HOSTED = ("model", "api_key", "base_url", *_SAMPLING)
_MODELS = {
    "openai": _Provider(_openai_model, _HOSTED),
    "doubao": _Provider(_doubao_model, _HOSTED),
    "deepseek": _Provider(_deepseek_model, _HOSTED),
    "langchain": _Provider(_langchain_model, ("model",)),
}


# -- embedder ---------------------------------------------------------------------------------------------------------


def _openai_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings

    key = _secret(config, "api_key", "OPENAI_API_KEY", "embedder.config of openai")
    dims = config.pop("embedding_dims", None)
    return OpenAIEmbeddings(
        model=config.pop("model", "text-embedding-3-small"),
        api_key=key,
        base_url=_url(config, "OPENAI_BASE_URL"),
        dimensions=None if dims is None else _integer(dims, "embedder.config.embedding_dims"),
        check_embedding_ctx_length=False,  # token ids need a download, and compatible servers refuse them
    )


def _doubao_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings

    dims = config.pop("embedding_dims", None)
    # Ark takes plain texts and gives plain numbers: no token ids (which need a download), no base64.
    return OpenAIEmbeddings(
        model=_required(config, "model", "embedder.config of doubao"),
        api_key=_secret(config, "api_key", "ARK_API_KEY", "embedder.config of doubao"),
        base_url=_url(config, "ARK_BASE_URL") or ARK_URL,
        dimensions=None if dims is None else _integer(dims, "embedder.config.embedding_dims"),
        check_embedding_ctx_length=False,
        model_kwargs={"encoding_format": "float"},
    )


def _wordllama_embedder(config: dict[str, Any]) -> Any:
    return "wordllama"


def _langchain_embedder(config: dict[str, Any]) -> Any:
    return _required(config, "model", "embedder.config of langchain")


_EMBEDDERS = {
    "openai": _Provider(_openai_embedder, ("model", "api_key", "base_url", "embedding_dims")),
    "doubao": _Provider(_doubao_embedder, ("model", "api_key", "base_url", "embedding_dims")),
    "wordllama": _Provider(_wordllama_embedder, ()),
    "langchain": _Provider(_langchain_embedder, ("model",)),
}


# -- vector_store -----------------------------------------------------------------------------------------------------


def _faiss_store(config: dict[str, Any]) -> _Store:
    path = config.get("path")
    name = config.get("collection_name")
    if (dims := config.get("embedding_model_dims")) is not None:
        _integer(dims, "vector_store.config.embedding_model_dims")
    strategy, normal = config.get("distance_strategy", "cosine"), config.get("normalize_L2", True)
    if strategy not in ("cosine", "euclidean", "inner_product") or (strategy != "cosine" and normal is not True):
        # Vectors of unit length are ordered the same by all three.
        raise ConfigurationError(
            "vector_store.config of faiss compares by cosine: leave distance_strategy out, set it to 'cosine', or to "
            f"'euclidean' or 'inner_product' with normalize_L2 true; got {strategy!r}."
        )
    return _Store(path=str(path).replace("<collection_name>", str(name or "mem0")) if path else None)


_STORES = {
    "faiss": _Provider(
        _faiss_store, ("collection_name", "path", "distance_strategy", "normalize_L2", "embedding_model_dims")
    ),
}


# -- values -----------------------------------------------------------------------------------------------------------


def _known(given: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown = [key for key in given if key not in keys]
    if unknown:
        choices = ", ".join(keys) or "none"
        raise ConfigurationError(f"{where} has the unknown key {unknown[0]!r}; known keys: {choices}.")


def _required(config: dict[str, Any], key: str, where: str) -> Any:
    value = config.pop(key, None)
    if value is None or value == "":
        raise ConfigurationError(f"{where} needs the key {key!r}.")
    return value


def _needs(variable: str, value: str | None, where: str) -> str:
    if not value:
        raise ConfigurationError(f"{where} needs an API key: pass api_key or set {variable}.")
    return value


def _secret(config: dict[str, Any], key: str, variable: str, where: str) -> SecretStr:
    from pydantic import SecretStr

    value = config.pop(key, None)
    if isinstance(value, SecretStr):
        return value
    return SecretStr(_needs(variable, value or os.environ.get(variable), where))


def _url(config: dict[str, Any], variable: str) -> str | None:
    return config.pop("base_url", None) or os.environ.get(variable)


def _integer(value: Any, where: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where} must be a whole number, got {value!r}.") from error


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(f"This needs the package {package}: pip install {package}") from error
