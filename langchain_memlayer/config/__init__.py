"""Settings by name: "provider:model" strings, and mem0's configuration dictionaries, to objects.

```
{"llm":          {"provider": "openai" | "doubao" | "deepseek" | "langchain", "config": {...}},
 "embedder":     {"provider": "openai" | "doubao" | "wordllama" | "langchain", "config": {...}},
 "vector_store": {"provider": "faiss" | "qdrant" | "chroma" | "milvus" | "pgvector" | "vikingdb" | "langchain",
                  "config": {...}},
 "custom_prompt": "...", "path": "..."}
```
Keys come from the dictionary or from the environment and are kept as secrets; a mistake names the key and the choices.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from langchain_memlayer.config.models import DEFAULT_MODEL, EMBEDDERS, MODELS, resolve_model
from langchain_memlayer.config.stores import COLLECTION, STORES, Store, filled, open_store
from langchain_memlayer.config.provider import Provider, known, section
from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.errors import ConfigurationError
from langchain_memlayer.journal import is_url
from langchain_memlayer.types import Metric

__all__ = ["DEFAULT_MODEL", "Settings", "read_config", "resolve_model"]

_SECTIONS = ("llm", "embedder", "vector_store", "custom_prompt", "path", "history_db_path", "version")
_FOLDERS = ("path", "history_db_path")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration dictionary says, as arguments of `Memory`.

    Attributes:
        path: The folder, or None for the default one.
        model: The chat model, "auto" or None.
        embeddings: The embedder, "auto" or None.
        custom_prompt: The extraction instructions, when replaced.
        vectorstore: The foreign vector store, or None for our own index.
        metric: How vectors are compared, or None when it does not say.
        resources: What was opened for it, and is to be closed with the memory.
    """

    path: str | Path | None
    model: Any
    embeddings: Any
    custom_prompt: str | None
    vectorstore: Any = None
    metric: Metric | None = None
    resources: ExitStack = field(default_factory=ExitStack, repr=False)


def read_config(config: Mapping[str, Any]) -> Settings:
    """The settings in a configuration dictionary, which stays untouched.

    Raises:
        ConfigurationError: an unknown section, provider or key, a missing one, or a value of the wrong kind.
        VectorStoreError: a vector store in a folder cannot be opened.
    """
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"The configuration must be a dictionary, got {type(config).__name__}.")
    known(config, _SECTIONS, "The configuration")
    prompt = config.get("custom_prompt")
    if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
        raise ConfigurationError("custom_prompt must be a non-empty string: the instructions for extraction.")
    for key in _FOLDERS:
        if config.get(key):
            filled(config[key], COLLECTION, key)  # a mistake is told before anything is opened
    model = _made(config, "llm", MODELS) or "auto"
    embeddings = _made(config, "embedder", EMBEDDERS)
    found = section(config, "vector_store", STORES)
    if found is None:
        return Settings(_folder(config, None), model, embeddings or "auto", prompt)
    made: list[Embedder] = []

    def embedder() -> Embedder:
        made.append(cast("Embedder", resolve_embeddings(embeddings or "auto")))
        return made[-1]

    store = _checked("vector_store", found[0], lambda: open_store(*found, embedder))
    # What the store was opened with is what the memory uses.
    chosen = made[0].source if made else embeddings or "auto"
    with ExitStack() as undone:
        undone.callback(store.resources.close)
        folder = _folder(config, store)
        undone.pop_all()
    return Settings(folder, model, chosen, prompt, store.vectorstore, store.metric, store.resources)


def _made(config: Mapping[str, Any], name: str, providers: Mapping[str, Provider]) -> Any:
    found = section(config, name, providers)
    if found is None:
        return None
    provider, settings = found
    return _checked(name, provider, lambda: providers[provider].make(settings))


def _checked(name: str, provider: str, make: Callable[[], Any]) -> Any:
    from pydantic import ValidationError

    try:
        return make()
    except ValidationError as error:
        # Only the places and the reasons: the values may be secrets.
        wrong = "; ".join(f"{'.'.join(map(str, part['loc']))}: {part['msg']}" for part in error.errors())
        raise ConfigurationError(f"{name}.config of {provider} cannot be used: {wrong}.") from None


def _folder(config: Mapping[str, Any], store: Store | None) -> str | Path | None:
    """The journal's folder: the one that is named, else one of the user's own for this provider and collection.

    Collections in several places have several: what one of them knows must not show up in another.
    """
    for key in _FOLDERS:
        if config.get(key):
            return filled(config[key], COLLECTION if store is None else store.collection, key)
    if store is None or store.path is not None:
        return None if store is None else store.path
    name = f"{store.provider}-{store.collection}"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    told = name if store.place is None else f"{name} {store.place}"
    if plain != told:
        plain = f"{plain}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    home = os.environ.get("MEMLAYER_HOME")
    if home and is_url(home):
        raise ConfigurationError(
            "MEMLAYER_HOME is a database, in which no collection has a place of its own: name the journal of this one "
            "with 'path', such as a connection string with a schema of its own."
        )
    if home:
        return Path(home) / plain
    from platformdirs import user_data_path

    return user_data_path("langchain_memlayer", appauthor=False) / plain
