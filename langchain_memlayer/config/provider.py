"""Reading values out of a configuration: each mistake names the key and the choices."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_memlayer.errors import ConfigurationError, MissingDependency

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Provider:
    """How the configuration of one provider becomes an object, and the keys that it knows."""

    make: Callable[..., Any]
    keys: tuple[str, ...]


def section(
    config: Mapping[str, Any], name: str, providers: Mapping[str, Provider]
) -> tuple[str, dict[str, Any]] | None:
    """The provider and the settings of a section, whose keys are known ones; None when there is no such section.

    Raises:
        ConfigurationError: an unknown provider or key, or a value of the wrong kind.
    """
    found = config.get(name)
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"{name} must be a dictionary with 'provider' and 'config', got {type(found).__name__}."
        )
    known(found, ("provider", "config"), name)
    provider = found.get("provider")
    if not isinstance(provider, str) or provider not in providers:
        raise ConfigurationError(f"{name}.provider must be one of {', '.join(sorted(providers))}; got {provider!r}.")
    settings = found.get("config") or {}
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{name}.config must be a dictionary, got {type(settings).__name__}.")
    known(settings, providers[provider].keys, f"{name}.config of {provider}")
    return provider, dict(settings)


def known(given: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Raise ConfigurationError when a key is none of the known ones."""
    unknown = [key for key in given if key not in keys]
    if unknown:
        choices = ", ".join(keys) or "none"
        raise ConfigurationError(f"{where} has the unknown key {unknown[0]!r}; known keys: {choices}.")


def required(config: dict[str, Any], key: str, where: str) -> Any:
    """Take a value out of `config` that must be there."""
    value = config.pop(key, None)
    if value is None or value == "":
        raise ConfigurationError(f"{where} needs the key {key!r}.")
    return value


def needs(variable: str, value: str | None, where: str) -> str:
    """The value, unless it is missing: then the environment variable is named."""
    if not value:
        raise ConfigurationError(f"{where} needs an API key: pass api_key or set {variable}.")
    return value


def secret(config: dict[str, Any], key: str, variable: str, where: str) -> SecretStr:
    """Take a key out of `config`, or out of the environment."""
    from pydantic import SecretStr

    value = config.pop(key, None)
    if isinstance(value, SecretStr):
        return value
    return SecretStr(needs(variable, value or os.environ.get(variable), where))


def shown(value: Any) -> Any:
    """The text of a secret, for a client that takes no other; anything else as it is."""
    from pydantic import SecretStr

    return value.get_secret_value() if isinstance(value, SecretStr) else value


def address(config: dict[str, Any], variable: str) -> str | None:
    """Take an address out of `config`, or out of the environment."""
    return config.pop("base_url", None) or os.environ.get(variable)


def integer(value: Any, where: str) -> int:
    """A whole number, which may be written as a string."""
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where} must be a whole number, got {value!r}.") from error


def imported(module: str, package: str) -> Any:
    """A module of an optional package.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependency(f"This needs the package {package}: pip install {package}") from error
