"""Chat models and embedders by name: "provider:model" strings, and the sections `llm` and `embedder`.

OpenAI and what speaks its protocol is made here; any other provider by LangChain's `init_chat_model` and
`init_embeddings`, from the package of the provider, which an error names when it is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from langchain_memlayer.config.provider import (
    Provider,
    address,
    imported,
    integer,
    proxied,
    renamed,
    required,
    secret,
    shown,
)
from langchain_memlayer.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DEFAULT_MODEL = "openai:gpt-4o-mini"
_TOGETHER_URL = "https://api.together.xyz/v1"
ARK_URL = "https://ark.cn-beijing.volces.com/api/v3"

_SAMPLING = ("temperature", "max_tokens", "top_p", "timeout", "max_retries")
_UNUSED = ("enable_vision", "vision_details", "top_k", "is_reasoning_model", "store", "models", "route", "site_url",
           "app_name", "response_callback", "enable_sampling_parameters", "provider_override")  # fmt: skip
"""What mem0's configurations say and nothing here asks: pictures are not read, and samples are the provider's."""


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
        provider, colon, model = spec.partition(":")
        if not (provider and colon and model):
            raise ConfigurationError(f"model must be 'provider:model', such as '{DEFAULT_MODEL}', got {spec!r}.")
        if provider == "openai":
            return _openai_model({"model": model}, where="model")  # type: ignore[no-any-return]
        return _initialised("chat_models", "init_chat_model", spec)  # type: ignore[no-any-return]
    from langchain_core.language_models import BaseChatModel

    if isinstance(spec, BaseChatModel):
        return spec
    raise ConfigurationError(
        f"model is of type {type(spec).__name__}; pass a LangChain chat model, 'provider:model', 'auto' or None."
    )


def _initialised(module: str, function: str, name: str, **settings: Any) -> Any:
    init = getattr(imported(f"langchain.{module}", "langchain"), function)
    try:
        return init(name, **settings)
    except ImportError as error:
        raise MissingDependency(f"{name} needs another package: {error}") from error
    except ValueError as error:
        from pydantic import ValidationError

        if isinstance(error, ValidationError):
            raise  # `read_config` names the places and hides the values
        raise ConfigurationError(f"{name} cannot be made: {error}") from error


# -- llm --------------------------------------------------------------------------------------------------------------


def _openai_model(config: dict[str, Any], *, where: str = "llm.config of openai") -> Any:
    from langchain_openai import ChatOpenAI

    key = secret(config, "api_key", "OPENAI_API_KEY", where)
    url = address(config, "openai_base_url", "OPENAI_BASE_URL")
    model = config.pop("model", None) or "gpt-4o-mini"
    return ChatOpenAI(model=model, api_key=key, base_url=url, **proxied(config))


def _served_model(config: dict[str, Any], *, provider: str) -> Any:
    """A model behind a server of the user's own that speaks OpenAI's protocol, and may want no key."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    url = _served_at(config, provider)
    model = required(config, "model", f"llm.config of {provider}")
    return ChatOpenAI(
        model=model, api_key=SecretStr(shown(config.pop("api_key", None)) or provider), base_url=url, **proxied(config)
    )


def _served_at(config: dict[str, Any], provider: str) -> str:
    url = address(config, f"{provider}_base_url", f"{provider.upper()}_BASE_URL") or _SERVED[provider]
    # Ollama's own clients are given the server, not the place of this protocol on it.
    return f"{url.rstrip('/')}/v1" if provider == "ollama" and not urlsplit(url).path.strip("/") else url


def _azure_model(config: dict[str, Any]) -> Any:
    from langchain_openai import AzureChatOpenAI

    where = "llm.config of azure_openai"
    model = config.pop("model", None)
    return AzureChatOpenAI(model=model, **_azure(config, "LLM_AZURE", where), **proxied(config))


def _azure(config: dict[str, Any], prefix: str, where: str) -> dict[str, Any]:
    given = dict(config.pop("azure_kwargs", None) or {})
    given.setdefault("api_key", config.pop("api_key", None))
    given = {key: value for key, value in given.items() if value is not None}
    variables = {"azure_endpoint": "ENDPOINT", "azure_deployment": "DEPLOYMENT", "api_version": "API_VERSION"}
    for key, variable in variables.items():
        value = given.get(key) or os.environ.get(f"{prefix}_{variable}")
        if value is None and key != "azure_deployment":
            raise ConfigurationError(f"{where} needs {key}: put it into azure_kwargs, or set {prefix}_{variable}.")
        given[key] = value
    given["api_key"] = secret(given, "api_key", f"{prefix}_OPENAI_API_KEY", where)
    return given


def _doubao_model(config: dict[str, Any]) -> Any:
    from langchain_openai import ChatOpenAI

    key = secret(config, "api_key", "ARK_API_KEY", "llm.config of doubao")
    model = required(config, "model", "llm.config of doubao")
    return ChatOpenAI(
        model=model, api_key=key, base_url=address(config, "base_url", "ARK_BASE_URL") or ARK_URL, **proxied(config)
    )


def _deepseek_model(config: dict[str, Any]) -> Any:
    deepseek = imported("langchain_deepseek", "langchain-deepseek")
    key = secret(config, "api_key", "DEEPSEEK_API_KEY", "llm.config of deepseek")
    url = address(config, "deepseek_base_url", "DEEPSEEK_API_BASE")
    model = config.pop("model", None) or "deepseek-chat"
    return deepseek.ChatDeepSeek(model=model, api_key=key, **({"api_base": url} if url else {}), **proxied(config))


def _langchain_model(config: dict[str, Any]) -> Any:
    return resolve_model(required(config, "model", "llm.config of langchain"))


def _other_model(config: dict[str, Any], *, provider: str, name: str, names: Mapping[str, str]) -> Any:
    model = required(config, "model", f"llm.config of {provider}")
    given = {key: shown(value) for key, value in renamed(config, names).items()}
    return _initialised("chat_models", "init_chat_model", f"{name}:{model}", **given)


_AWS: Final = {
    "aws_region": "region_name",
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
    "aws_profile": "credentials_profile_name",
}
_OTHER_MODELS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "anthropic": ("anthropic", {"anthropic_base_url": "base_url"}),
    "aws_bedrock": ("bedrock_converse", {**_AWS, "model_kwargs": "additional_model_request_fields"}),
    "gemini": ("google_genai", {}),
    "groq": ("groq", {}),
    "huggingface": ("huggingface", {}),
    "litellm": ("litellm", {}),
    "mistral": ("mistralai", {}),
    "together": ("together", {}),
    "xai": ("xai", {"xai_base_url": "base_url"}),
}
"""The provider's name in LangChain, and what mem0's keys are called there."""

_HOSTED = ("model", "api_key", "base_url", *_SAMPLING, "reasoning_effort", "http_client_proxies")
_SERVED: Final = {
    "lmstudio": "http://localhost:1234/v1",
    "ollama": "http://localhost:11434/v1",
    "vllm": "http://localhost:8000/v1",
}
"""Servers on the user's own machine, and where they are by default."""
_OPENAI = Provider(
    _openai_model, (*_HOSTED, "openai_base_url"), (*_UNUSED, "openrouter_base_url", "default_headers")
)  # fmt: skip
_AZURE = Provider(_azure_model, (*_HOSTED, "azure_kwargs"), _UNUSED)
MODELS = {
    "openai": _OPENAI,
    "openai_structured": _OPENAI,
    "azure_openai": _AZURE,
    "azure_openai_structured": _AZURE,
    "doubao": Provider(_doubao_model, _HOSTED, _UNUSED),
    "deepseek": Provider(_deepseek_model, (*_HOSTED, "deepseek_base_url"), _UNUSED),
    "langchain": Provider(_langchain_model, ("model",), (*_HOSTED[1:], *_UNUSED)),
    **{
        provider: Provider(
            partial(_served_model, provider=provider),
            (*_HOSTED, f"{provider}_base_url"),
            (*_UNUSED, "lmstudio_response_format"),
        )
        for provider in _SERVED
    },
    **{
        provider: Provider(
            partial(_other_model, provider=provider, name=name, names=names),
            tuple(dict.fromkeys((*_HOSTED[:-2], *names))),
            (*_UNUSED, *_HOSTED[-2:]),
        )
        for provider, (name, names) in _OTHER_MODELS.items()
    },
}


# -- embedder ---------------------------------------------------------------------------------------------------------


def _openai_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings

    key = secret(config, "api_key", "OPENAI_API_KEY", "embedder.config of openai")
    return OpenAIEmbeddings(
        model=config.pop("model", None) or "text-embedding-3-small",
        api_key=key,
        base_url=address(config, "openai_base_url", "OPENAI_BASE_URL"),
        check_embedding_ctx_length=False,  # token ids need a download, and compatible servers refuse them
        **_sized(config),
        **proxied(config),
    )


def _azure_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import AzureOpenAIEmbeddings

    where = "embedder.config of azure_openai"
    model = config.pop("model", None) or "text-embedding-3-small"
    given = _azure(config, "EMBEDDING_AZURE", where)
    return AzureOpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **_sized(config), **given)


def _doubao_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import OpenAIEmbeddings

    # Ark takes plain texts and gives plain numbers: no token ids (which need a download), no base64.
    return OpenAIEmbeddings(
        model=required(config, "model", "embedder.config of doubao"),
        api_key=secret(config, "api_key", "ARK_API_KEY", "embedder.config of doubao"),
        base_url=address(config, "base_url", "ARK_BASE_URL") or ARK_URL,
        check_embedding_ctx_length=False,
        model_kwargs={"encoding_format": "float"},
        **_sized(config),
        **proxied(config),
    )


def _served_embedder(config: dict[str, Any], *, provider: str, url: str | None = None, model: str | None = None) -> Any:
    """Likewise of an embedder."""
    from langchain_openai import OpenAIEmbeddings
    from pydantic import SecretStr

    return OpenAIEmbeddings(
        model=config.pop("model", None) or model or required(config, "model", f"embedder.config of {provider}"),
        api_key=SecretStr(shown(config.pop("api_key", None)) or provider),
        base_url=url or _served_at(config, provider),
        check_embedding_ctx_length=False,
        model_kwargs={"encoding_format": "float"},
        **proxied(config),
    )


def _together_embedder(config: dict[str, Any]) -> Any:
    config["api_key"] = secret(config, "api_key", "TOGETHER_API_KEY", "embedder.config of together")
    return _served_embedder(config, provider="together", url=config.pop("base_url", None) or _TOGETHER_URL)


def _huggingface_embedder(config: dict[str, Any]) -> Any:
    if url := config.pop("huggingface_base_url", None):
        return _served_embedder(config, provider="huggingface", url=url, model="tei")
    return _other_embedder(config, provider="huggingface", name="huggingface", names={})


def _fastembed_embedder(config: dict[str, Any]) -> Any:
    community = imported("langchain_community.embeddings", "langchain-memlayer[community]")
    return community.FastEmbedEmbeddings(model_name=required(config, "model", "embedder.config of fastembed"))


def _other_embedder(config: dict[str, Any], *, provider: str, name: str, names: Mapping[str, str]) -> Any:
    model = required(config, "model", f"embedder.config of {provider}")
    given = {key: shown(value) for key, value in renamed(config, names).items()}
    return _initialised("embeddings", "init_embeddings", f"{name}:{model}", **given)


def _sized(config: dict[str, Any]) -> dict[str, Any]:
    dims = config.pop("embedding_dims", None)
    return {} if dims is None else {"dimensions": integer(dims, "embedder.config.embedding_dims")}


def _langchain_embedder(config: dict[str, Any]) -> Any:
    return required(config, "model", "embedder.config of langchain")


_OTHER_EMBEDDERS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "aws_bedrock": ("bedrock", _AWS),
    "gemini": ("google_genai", {"api_key": "google_api_key"}),
    "mistral": ("mistralai", {"api_key": "api_key"}),
    "vertexai": ("google_vertexai", {}),
}
_KEYS = ("model", "api_key", "base_url", "embedding_dims", "http_client_proxies")
_EXTRAS = ("memory_add_embedding_type", "memory_update_embedding_type", "memory_search_embedding_type",
           "output_dimensionality")  # fmt: skip
EMBEDDERS = {
    "openai": Provider(_openai_embedder, (*_KEYS, "openai_base_url"), (*_EXTRAS, "model_kwargs")),
    "azure_openai": Provider(_azure_embedder, ("model", "api_key", "embedding_dims", "azure_kwargs"), _EXTRAS),
    "doubao": Provider(_doubao_embedder, _KEYS, _EXTRAS),
    "multilingual": Provider(lambda config: "multilingual", ()),
    "wordllama": Provider(lambda config: "wordllama", ()),
    "langchain": Provider(_langchain_embedder, ("model",), (*_KEYS[1:], *_EXTRAS)),
    "fastembed": Provider(_fastembed_embedder, ("model",), (*_KEYS[1:], *_EXTRAS)),
    "huggingface": Provider(
        _huggingface_embedder,
        ("model", "api_key", "huggingface_base_url", "model_kwargs"),
        ("embedding_dims", *_EXTRAS),
    ),
    "together": Provider(_together_embedder, ("model", "api_key", "base_url"), ("embedding_dims", *_EXTRAS)),
    **{
        provider: Provider(
            partial(_served_embedder, provider=provider, model="nomic-embed-text" if provider == "ollama" else None),
            ("model", "api_key", "base_url", "http_client_proxies", f"{provider}_base_url"),
            ("embedding_dims", "model_kwargs", *_EXTRAS),
        )
        for provider in _SERVED
    },
    **{
        provider: Provider(
            partial(_other_embedder, provider=provider, name=name, names=names),
            tuple(dict.fromkeys(("model", *names))),
            ("embedding_dims", "vertex_credentials_json", *_EXTRAS),
        )
        for provider, (name, names) in _OTHER_EMBEDDERS.items()
    },
}
