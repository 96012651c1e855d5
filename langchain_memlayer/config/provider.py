"""Reading values out of a configuration: each mistake names the key and the choices."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_memlayer.embedders.own import COMPATIBLE
from langchain_memlayer.errors import ConfigurationError, MissingDependency, shown

if TYPE_CHECKING:
    from pydantic import SecretStr

_LOGGER = logging.getLogger(__name__)
_MOST = 1 << 31
"""What a port, or how many numbers a vector has, is always below."""


@dataclass(frozen=True, slots=True)
class Provider:
    """How the configuration of one provider becomes an object.

    `unused` are keys that other memories know, and that change nothing here: they are accepted, and told in the log.
    """

    make: Callable[..., Any]
    keys: tuple[str, ...]
    unused: tuple[str, ...] = ()


def section(
    config: Mapping[str, Any], name: str, providers: Mapping[str, Provider]
) -> tuple[str, dict[str, Any]] | None:
    """The provider and the settings of a section, whose keys are known ones; None when there is no such section.

    Raises:
        ConfigurationError: an unknown provider or key, or a value of the wrong kind.
    """
    part = config.get(name)
    if part is None:
        return None
    if not isinstance(part, Mapping):
        raise ConfigurationError(
            f"{name} must be a dictionary with 'provider' and 'config', got {type(part).__name__}."
        )
    check_keys(part, ("provider", "config"), name)
    provider = part.get("provider")
    if not isinstance(provider, str) or provider not in providers:
        raise ConfigurationError(
            f"{name}.provider must be one of {', '.join(sorted(providers))}; got {shown(provider)}. 'langchain' takes "
            "an object of any class that LangChain has for it." + (f" {COMPATIBLE}" if "openai" in providers else "")
        )
    settings = part.get("config") or {}
    checked_dictionary(settings, f"{name}.config")
    keys, unused = providers[provider].keys, providers[provider].unused
    where = f"{name}.config of {provider}"
    check_keys(settings, (*keys, *unused), where, choices=keys)
    # What is None is not given: mem0's own configuration objects say so of everything.
    given = {key: value for key, value in settings.items() if value is not None}
    if without_effect := sorted(key for key in given if key not in keys):
        _LOGGER.info("%s: nothing here depends on %s.", where, ", ".join(without_effect))
    return provider, {key: value for key, value in given.items() if key in keys}


def checked_dictionary(value: Any, where: str) -> Mapping[str, Any]:
    """`value`; `ConfigurationError` when it is no dictionary."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where} must be a dictionary, got {type(value).__name__}.")
    return value


def check_keys(
    given: Mapping[str, Any], keys: Sequence[str], where: str, *, choices: Sequence[str] | None = None
) -> None:
    """Raise ConfigurationError when a key is none of the known ones, of which `choices` are worth telling."""
    unknown = [key for key in given if key not in keys]
    if unknown:
        named = ", ".join(keys if choices is None else choices) or "none"
        raise ConfigurationError(f"{where} has the unknown key {shown(unknown[0])}; known keys: {named}.")


def required(config: dict[str, Any], key: str, where: str) -> Any:
    """Take a value out of `config` that must be there."""
    value = config.pop(key, None)
    if value is None or value == "":
        raise ConfigurationError(f"{where} needs the key {key!r}.")
    return value


def secret(config: dict[str, Any], variable: str, where: str) -> SecretStr:
    """Take the API key out of `config`, or out of the environment."""
    from pydantic import SecretStr

    value = config.pop("api_key", None)
    if isinstance(value, SecretStr):
        return value
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{where}: api_key must be a string, got {type(value).__name__}.")
    if not (found := value or os.environ.get(variable)):
        raise ConfigurationError(f"{where} needs an API key: pass api_key or set {variable}.")
    return SecretStr(found)


def revealed(value: Any) -> Any:
    """The text of a secret, for a client that takes no other; anything else as it is."""
    from pydantic import SecretStr

    return value.get_secret_value() if isinstance(value, SecretStr) else value


def proxied(config: dict[str, Any]) -> dict[str, Any]:
    """The settings, with `http_client_proxies` (an address, or addresses by scheme) as HTTP clients."""
    proxies = config.pop("http_client_proxies", None)
    if proxies is None:
        return config
    import httpx

    if isinstance(proxies, str):
        proxies = {"all://": proxies}
    if not isinstance(proxies, Mapping):
        raise ConfigurationError("http_client_proxies must be an address, or a dictionary such as {'https://': ...}.")
    return {
        **config,
        "http_client": httpx.Client(mounts={k: httpx.HTTPTransport(proxy=v) for k, v in proxies.items()}),
        "http_async_client": httpx.AsyncClient(
            mounts={k: httpx.AsyncHTTPTransport(proxy=v) for k, v in proxies.items()}
        ),
    }


def integer(value: Any, where: str) -> int:
    """A whole number, which may be written as a string."""
    try:
        number = int(value)
        # What is cut off, or is no size of anything, is a slip.
        if not isinstance(value, bool) and 0 < number < _MOST and (isinstance(value, str) or number == value):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigurationError(f"{where} must be a whole number, got {shown(value)}.")


def imported(module: str, package: str) -> Any:
    """A module of an optional package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(f"This needs the package {package}: pip install '{package}'") from error
