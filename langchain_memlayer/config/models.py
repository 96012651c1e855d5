"""Chat models and embedders by name: "provider:model" strings, and the sections `llm` and `embedder`.

OpenAI and what speaks its protocol is made here, from one table; any other provider by LangChain's `init_chat_model`
and `init_embeddings`, from the package of the provider, which an error names when it is missing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from langchain_memlayer.config.provider import (
    Provider,
    checked_dictionary,
    imported,
    integer,
    proxied,
    required,
    revealed,
    secret,
)
from langchain_memlayer.embedders.own import COMPATIBLE, has_openai_key
from langchain_memlayer.errors import ConfigurationError, MissingDependency, shown

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

DEFAULT_MODEL = "openai:gpt-4o-mini"


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
        return resolve_model(DEFAULT_MODEL) if has_openai_key() else None
    if isinstance(spec, str):
        provider, colon, model = spec.partition(":")
        if not (provider and colon and model):
            raise ConfigurationError(f"model must be 'provider:model', such as '{DEFAULT_MODEL}', got {shown(spec)}.")
        if provider == "openai":
            return _chat({"model": model}, provider="openai", where="model")  # type: ignore[no-any-return]
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
        raise ConfigurationError(f"{name} cannot be made: {str(error).strip()}\n\n{COMPATIBLE}") from error


# -- what speaks OpenAI's protocol ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Service:
    """Who speaks OpenAI's protocol, and where.

    Attributes:
        url: The address, unless the configuration or the environment says another; None for OpenAI's own.
        key: The environment's variable of the key; None for a server of the user's own, which may want none.
        address: The environment's variable of the address.
        chat: The chat model of a configuration that names none; `embedder` likewise.
    """

    url: str | None = None
    key: str | None = None
    address: str = ""
    chat: str | None = None
    embedder: str | None = None


SERVICES: Final = {
    "openai": _Service(None, "OPENAI_API_KEY", "OPENAI_BASE_URL", "gpt-4o-mini", "text-embedding-3-small"),
    "doubao": _Service("https://ark.cn-beijing.volces.com/api/v3", "ARK_API_KEY", "ARK_BASE_URL"),
    "minimax": _Service("https://api.minimax.io/v1", "MINIMAX_API_KEY", "MINIMAX_API_BASE"),
    "sarvam": _Service("https://api.sarvam.ai/v1", "SARVAM_API_KEY", "SARVAM_API_BASE"),
    "together": _Service("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "lmstudio": _Service("http://localhost:1234/v1", address="LMSTUDIO_BASE_URL"),
    "ollama": _Service("http://localhost:11434/v1", address="OLLAMA_BASE_URL", embedder="nomic-embed-text"),
    "vllm": _Service("http://localhost:8000/v1", address="VLLM_BASE_URL"),
    "huggingface": _Service(embedder="tei"),
}


_FEWER_TEXTS: Final = {"aliyuncs.com": 10, "siliconflow.cn": 32, "bigmodel.cn": 64}
"""How many texts of one request these hosts embed; more are refused."""


def _connection(config: dict[str, Any], provider: str, where: str) -> dict[str, Any]:
    """Key and address, taken out of `config` or the environment."""
    from pydantic import SecretStr

    service = SERVICES[provider]
    given = [config.pop(name, None) for name in (f"{provider}_base_url", "base_url")]
    url: str | None = next(filter(None, given), None) or os.environ.get(service.address) or service.url
    if url and provider == "ollama" and not urlsplit(url).path.strip("/"):
        # Ollama's own clients are given the server, not the place of this protocol on it.
        url = f"{url.rstrip('/')}/v1"
    if service.key is not None:
        return {"base_url": url, "api_key": secret(config, service.key, where)}
    return {"base_url": url, "api_key": SecretStr(revealed(config.pop("api_key", None)) or provider)}


def _chat(config: dict[str, Any], *, provider: str, where: str | None = None) -> Any:
    from langchain_openai import ChatOpenAI

    where = where or f"llm.config of {provider}"
    connection = _connection(config, provider, where)
    model = config.pop("model", None) or SERVICES[provider].chat or required(config, "model", where)
    return ChatOpenAI(model=model, **connection, **proxied(config))


def _embedder(config: dict[str, Any], *, provider: str) -> Any:
    from langchain_openai import OpenAIEmbeddings

    where = f"embedder.config of {provider}"
    connection = _connection(config, provider, where)
    model = config.pop("model", None) or SERVICES[provider].embedder or required(config, "model", where)
    # Others than OpenAI take plain texts and give plain numbers: no token ids (which need a download), no base64.
    host = urlsplit(connection["base_url"] or "").hostname or "openai.com"
    plain: dict[str, Any] = {} if host.endswith("openai.com") else {"model_kwargs": {"encoding_format": "float"}}
    most = next((number for name, number in _FEWER_TEXTS.items() if host.endswith(name)), 1000)
    own = {**connection, **plain, **_sized(config), **proxied(config)}
    return OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, chunk_size=most, **own)


def _azure_model(config: dict[str, Any]) -> Any:
    from langchain_openai import AzureChatOpenAI

    model = config.pop("model", None)
    return AzureChatOpenAI(model=model, **_azure(config, "LLM_AZURE", "llm.config of azure_openai"), **proxied(config))


def _azure_embedder(config: dict[str, Any]) -> Any:
    from langchain_openai import AzureOpenAIEmbeddings

    model = config.pop("model", None) or "text-embedding-3-small"
    given = _azure(config, "EMBEDDING_AZURE", "embedder.config of azure_openai")
    return AzureOpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **_sized(config), **given)


def _azure(config: dict[str, Any], prefix: str, where: str) -> dict[str, Any]:
    given = dict(checked_dictionary(config.pop("azure_kwargs", None) or {}, f"{where}: azure_kwargs"))
    given.setdefault("api_key", config.pop("api_key", None))
    given = {key: value for key, value in given.items() if value is not None}
    variables = {"azure_endpoint": "ENDPOINT", "azure_deployment": "DEPLOYMENT", "api_version": "API_VERSION"}
    for key, variable in variables.items():
        value = given.get(key) or os.environ.get(f"{prefix}_{variable}")
        if value is None and key != "azure_deployment":
            raise ConfigurationError(f"{where} needs {key}: put it into azure_kwargs, or set {prefix}_{variable}.")
        given[key] = value
    given["api_key"] = secret(given, f"{prefix}_OPENAI_API_KEY", where)
    return given


def _sized(config: dict[str, Any]) -> dict[str, Any]:
    dims = config.pop("embedding_dims", None)
    return {} if dims is None else {"dimensions": integer(dims, "embedder.config.embedding_dims")}


# -- other providers --------------------------------------------------------------------------------------------------


def _deepseek_model(config: dict[str, Any]) -> Any:
    deepseek = imported("langchain_deepseek", "langchain-deepseek")
    key = secret(config, "DEEPSEEK_API_KEY", "llm.config of deepseek")
    given = [config.pop(name, None) for name in ("deepseek_base_url", "base_url")]
    url = next(filter(None, given), None) or os.environ.get("DEEPSEEK_API_BASE")
    model = config.pop("model", None) or "deepseek-chat"
    return deepseek.ChatDeepSeek(model=model, api_key=key, **({"api_base": url} if url else {}), **proxied(config))


def _huggingface_embedder(config: dict[str, Any]) -> Any:
    if config.get("huggingface_base_url"):
        config.pop("model_kwargs", None)  # of sentence-transformers
        return _embedder(config, provider="huggingface")
    return _other(config, section="embedder", provider="huggingface", name="huggingface", names={})


def _fastembed_embedder(config: dict[str, Any]) -> Any:
    imported("fastembed", "fastembed")
    community = imported("langchain_community.embeddings", "langchain-memlayer[community]")
    return community.FastEmbedEmbeddings(model_name=required(config, "model", "embedder.config of fastembed"))


def _other(config: dict[str, Any], *, section: str, provider: str, name: str, names: Mapping[str, str]) -> Any:
    """What LangChain makes by name, from settings under the names that it has for them."""
    model = required(config, "model", f"{section}.config of {provider}")
    given = {names.get(key, key): revealed(value) for key, value in config.items()}
    init = ("chat_models", "init_chat_model") if section == "llm" else ("embeddings", "init_embeddings")
    return _initialised(*init, f"{name}:{model}", **given)


_AWS: Final = {
    "aws_region": "region_name",
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
    "aws_profile": "credentials_profile_name",
}
_Others = Mapping[str, tuple[str, Mapping[str, str]]]
_OTHER_MODELS: Final[_Others] = {
    "anthropic": ("anthropic", {"anthropic_base_url": "base_url"}),
    "aws_bedrock": ("bedrock_converse", {**_AWS, "model_kwargs": "additional_model_request_fields"}),
    "gemini": ("google_genai", {key: key for key in ("vertexai", "project", "location")}),
    "groq": ("groq", {}),
    "huggingface": ("huggingface", {}),
    "litellm": ("litellm", {}),
    "mistral": ("mistralai", {}),
    "together": ("together", {}),
    "xai": ("xai", {"xai_base_url": "base_url"}),
}
_OTHER_EMBEDDERS: Final[_Others] = {
    "aws_bedrock": ("bedrock", _AWS),
    "gemini": ("google_genai", {"api_key": "google_api_key"}),
    "mistral": ("mistralai", {"api_key": "api_key"}),
    "vertexai": ("google_vertexai", {}),
}
"""The provider's name in LangChain, and what mem0's keys are called there."""

_SAMPLING = ("temperature", "max_tokens", "top_p", "timeout", "max_retries")
_HOSTED = ("model", "api_key", "base_url", *_SAMPLING, "reasoning_effort", "http_client_proxies")
_UNUSED = ("enable_vision", "vision_details", "top_k", "is_reasoning_model", "store", "models", "route", "site_url",
           "app_name", "response_callback", "enable_sampling_parameters", "provider_override", "openrouter_base_url",
           "default_headers", "lmstudio_response_format")  # fmt: skip
"""What mem0's configurations say and nothing here asks: pictures are not read, and samples are the provider's."""

_CHATS: Final = ("openai", "doubao", "minimax", "sarvam", "lmstudio", "ollama", "vllm")


def _address_key(provider: str) -> tuple[str, ...]:
    """What mem0's configurations call the address of this provider's server, beside `base_url`."""
    return () if provider in ("doubao", "together") else (f"{provider}_base_url",)


_SERVED = {name: Provider(partial(_chat, provider=name), (*_HOSTED, *_address_key(name)), _UNUSED) for name in _CHATS}
_AZURE = Provider(_azure_model, (*_HOSTED, "azure_kwargs"), _UNUSED)
MODELS: Final = {
    **_SERVED,
    "openai_structured": _SERVED["openai"],
    "azure_openai": _AZURE,
    "azure_openai_structured": _AZURE,
    "deepseek": Provider(_deepseek_model, (*_HOSTED, "deepseek_base_url"), _UNUSED),
    "langchain": Provider(
        lambda config: resolve_model(required(config, "model", "llm.config of langchain")),
        ("model",),
        (*_HOSTED[1:], *_UNUSED),
    ),
    **{
        provider: Provider(
            partial(_other, section="llm", provider=provider, name=name, names=names),
            tuple(dict.fromkeys((*_HOSTED[:-2], *names))),
            (*_UNUSED, *_HOSTED[-2:]),
        )
        for provider, (name, names) in _OTHER_MODELS.items()
    },
}

_KEYS = ("model", "api_key", "base_url", "embedding_dims", "http_client_proxies")
_EXTRAS = ("memory_add_embedding_type", "memory_update_embedding_type", "memory_search_embedding_type",
           "output_dimensionality", "model_kwargs", "vertex_credentials_json")  # fmt: skip
_SIZED: Final = {"openai": True, "doubao": True, **dict.fromkeys(("together", "lmstudio", "ollama", "vllm"), False)}
"""Who embeds, and whether a size may be asked for: others have one, and may refuse to be asked."""
EMBEDDERS: Final = {
    **{
        name: Provider(
            partial(_embedder, provider=name),
            tuple(key for key in (*_KEYS, *_address_key(name)) if sized or key != "embedding_dims"),
            (*_EXTRAS, "embedding_dims"),
        )
        for name, sized in _SIZED.items()
    },
    "azure_openai": Provider(_azure_embedder, ("model", "api_key", "embedding_dims", "azure_kwargs"), _EXTRAS),
    "multilingual": Provider(lambda config: "multilingual", ()),
    "wordllama": Provider(lambda config: "wordllama", ()),
    "langchain": Provider(
        lambda config: required(config, "model", "embedder.config of langchain"), ("model",), (*_KEYS[1:], *_EXTRAS)
    ),
    "fastembed": Provider(_fastembed_embedder, ("model",), (*_KEYS[1:], *_EXTRAS)),
    "huggingface": Provider(
        _huggingface_embedder,
        ("model", "api_key", "huggingface_base_url", "model_kwargs"),
        ("embedding_dims", *_EXTRAS),
    ),
    **{
        provider: Provider(
            partial(_other, section="embedder", provider=provider, name=name, names=names),
            tuple(dict.fromkeys(("model", *names))),
            ("embedding_dims", *_EXTRAS),
        )
        for provider, (name, names) in _OTHER_EMBEDDERS.items()
    },
}
