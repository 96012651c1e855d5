"""Chat models and embedders by name: "provider:model" strings, and the sections `llm` and `embedder`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from langchain_memlayer.config.provider import Provider, address, imported, integer, needs, required, secret
from langchain_memlayer.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DEFAULT_MODEL = "openai:gpt-4o-mini"
ARK_URL = "https://ark.cn-beijing.volces.com/api/v3"

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

        needs("OPENAI_API_KEY", os.environ.get("OPENAI_API_KEY"), "model")
        return ChatOpenAI(model=model)
    init = imported("langchain.chat_models", "langchain").init_chat_model
    try:
        return init(name)  # type: ignore[no-any-return]
    except ImportError as error:
        raise MissingDependency(f"The model {name!r} needs another package: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"The model {name!r} cannot be made: {error}") from error


# -- llm --------------------------------------------------------------------------------------------------------------


def _openai_model(config: dict[str, Any]) -> Any:
    from langchain_openai import ChatOpenAI

    key = secret(config, "api_key", "OPENAI_API_KEY", "llm.config of openai")
    return ChatOpenAI(
        model=config.pop("model", "gpt-4o-mini"), api_key=key, base_url=address(config, "OPENAI_BASE_URL"), **config
    )


def _doubao_model(config: dict[str, Any]) -> Any:
    from langchain_openai import ChatOpenAI

    key = secret(config, "api_key", "ARK_API_KEY", "llm.config of doubao")
    model = required(config, "model", "llm.config of doubao")
    return ChatOpenAI(model=model, api_key=key, base_url=address(config, "ARK_BASE_URL") or ARK_URL, **config)


def _deepseek_model(config: dict[str, Any]) -> Any:
    deepseek = imported("langchain_deepseek", "langchain-deepseek")
    key = secret(config, "api_key", "DEEPSEEK_API_KEY", "llm.config of deepseek")
    url = address(config, "DEEPSEEK_API_BASE")
    return deepseek.ChatDeepSeek(
        model=config.pop("model", "deepseek-chat"), api_key=key, **({"api_base": url} if url else {}), **config
    )


def _langchain_model(config: dict[str, Any]) -> Any:
    return resolve_model(required(config, "model", "llm.config of langchain"))


_HOSTED = ("model", "api_key", "base_url", *_SAMPLING)
MODELS = {
    "openai": Provider(_openai_model, _HOSTED),
    "doubao": Provider(_doubao_model, _HOSTED),
    "deepseek": Provider(_deepseek_model, _HOSTED),
    "langchain": Provider(_langchain_model, ("model",)),
}


# -- embedder ---------------------------------------------------------------------------------------------------------


def _openai_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings

    key = secret(config, "api_key", "OPENAI_API_KEY", "embedder.config of openai")
    dims = config.pop("embedding_dims", None)
    return OpenAIEmbeddings(
        model=config.pop("model", "text-embedding-3-small"),
        api_key=key,
        base_url=address(config, "OPENAI_BASE_URL"),
        dimensions=None if dims is None else integer(dims, "embedder.config.embedding_dims"),
        check_embedding_ctx_length=False,  # token ids need a download, and compatible servers refuse them
    )


def _doubao_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings

    dims = config.pop("embedding_dims", None)
    # Ark takes plain texts and gives plain numbers: no token ids (which need a download), no base64.
    return OpenAIEmbeddings(
        model=required(config, "model", "embedder.config of doubao"),
        api_key=secret(config, "api_key", "ARK_API_KEY", "embedder.config of doubao"),
        base_url=address(config, "ARK_BASE_URL") or ARK_URL,
        dimensions=None if dims is None else integer(dims, "embedder.config.embedding_dims"),
        check_embedding_ctx_length=False,
        model_kwargs={"encoding_format": "float"},
    )


def _wordllama_embedder(config: dict[str, Any]) -> Any:
    return "wordllama"


def _langchain_embedder(config: dict[str, Any]) -> Any:
    return required(config, "model", "embedder.config of langchain")


EMBEDDERS = {
    "openai": Provider(_openai_embedder, ("model", "api_key", "base_url", "embedding_dims")),
    "doubao": Provider(_doubao_embedder, ("model", "api_key", "base_url", "embedding_dims")),
    "wordllama": Provider(_wordllama_embedder, ()),
    "langchain": Provider(_langchain_embedder, ("model",)),
}
