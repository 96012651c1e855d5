"""A configuration dictionary, as mem0's users write it, to objects.

```
{"llm":          {"provider": "openai" | "doubao" | "deepseek" | "ollama" | ... | "langchain", "config": {...}},
 "embedder":     {"provider": "openai" | "doubao" | "wordllama" | "ollama" | ... | "langchain", "config": {...}},
 "vector_store": {"provider": "faiss" | "qdrant" | "chroma" | "milvus" | "pgvector" | "vikingdb" | "langchain",
                  "config": {...}},
 "custom_instructions": "...", "profile": {"properties": {...}} | "package.module:Model", "path": "..."}
```
Keys come from the dictionary or from the environment and are kept as secrets; a mistake names the key and the choices.
What says nothing here (a graph store: the folder has a graph of its own) is accepted, and told in the log.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, cast

from langchain_memlayer.config.models import DEFAULT_MODEL, EMBEDDERS, MODELS, resolve_model
from langchain_memlayer.config.provider import Provider, check_keys, checked_dictionary, required, section
from langchain_memlayer.config.stores import COLLECTION, STORES, Store, checked_dims, filled, open_store, room
from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.errors import ConfigurationError
from langchain_memlayer.journal import is_url
from langchain_memlayer.types import Metric

__all__ = ["DEFAULT_MODEL", "MemoryConfig", "Settings", "read_config", "resolve_model"]

_LOGGER = logging.getLogger(__name__)
_PARTS = ("llm", "embedder", "vector_store", "graph_store", "reranker")

_FOLDERS = ("path", "history_db_path")
_PROMPTS = ("custom_prompt", "custom_fact_extraction_prompt", "custom_update_memory_prompt", "custom_instructions")
_FILES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True, slots=True)
class MemoryConfig:
    """A configuration as an object, for `Memory(config=...)`: the keys of a configuration dictionary as arguments.

    Attributes:
        vector_store: `{"provider": ..., "config": {...}}`, or an object with these attributes; so are `llm`, `embedder`
            and `reranker`.
        graph_store: Accepted and not used: the folder has a graph of its own.
        history_db_path: The folder; the path of a file gets a folder beside it.
        custom_instructions: Further instructions for extraction.
        custom_fact_extraction_prompt: Replaces the instructions of the extraction prompt.
        custom_update_memory_prompt: Replaces the instructions of the reconciliation prompt.
        profile: What is to be known of each user: a pydantic model or "package.module:Model", or a JSON schema or the
            path of one that ends with .json.
        version: Accepted and not used.
    """

    vector_store: Any = None
    llm: Any = "auto"
    embedder: Any = None
    reranker: Any = None
    graph_store: Any = None
    history_db_path: str | None = None
    custom_instructions: str | None = None
    custom_fact_extraction_prompt: str | None = None
    custom_update_memory_prompt: str | None = None
    profile: Any = None
    version: str | None = None


_SECTIONS = (*(one.name for one in fields(MemoryConfig)), "custom_prompt", "path")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration says, as arguments of `Memory`.

    Attributes:
        path: The folder, or None for the default one.
        model: The chat model, "auto" or None.
        embeddings: The embedder, "auto" or None.
        prompt: What replaces the instructions for extraction.
        instructions: What is added to them.
        update_prompt: What replaces the instructions for reconciliation.
        profile: What is to be known of each user.
        vectorstore: The foreign vector store, or None for our own index.
        metric: How vectors are compared, or None when it does not say.
        reranker: A document compressor for `search(rerank=True)`, or None.
        resources: What was opened for it, and is to be closed with the memory.
    """

    path: str | Path | None
    model: Any
    embeddings: Any
    prompt: str | None = None
    instructions: str | None = None
    update_prompt: str | None = None
    profile: Any = None
    vectorstore: Any = None
    metric: Metric | None = None
    reranker: Any = None
    resources: ExitStack = field(default_factory=ExitStack, repr=False)


def read_config(config: Any, *, model: bool = True) -> Settings:
    """The settings in a configuration, which stays untouched.

    Args:
        config: A dictionary, a `MemoryConfig`, or an object with such attributes or a `model_dump` of them.
        model: Whether its chat model is to be made.

    Raises:
        ConfigurationError: an unknown section, provider or key, a missing one, or a value of the wrong kind.
        VectorStoreError: a vector store in a folder cannot be opened.
    """
    given = _sections(config)
    prompts = {key: given.get(key) for key in _PROMPTS}
    for key, prompt in prompts.items():
        if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
            raise ConfigurationError(f"{key} must be a non-empty string: the instructions.")
    for key in _FOLDERS:
        if given.get(key):
            filled(given[key], COLLECTION, key)  # a mistake is told before anything is opened
    if given.get("graph_store"):
        _LOGGER.info("graph_store is not used: relations are kept with the memories, in a graph of the folder's own.")
    chat = None if not model else _make(given, "llm", MODELS) if "llm" in given else "auto"
    embeddings = _make(given, "embedder", EMBEDDERS)
    settings = Settings(
        path=None,
        model=chat,
        embeddings=embeddings or "auto",
        prompt=prompts["custom_prompt"] or prompts["custom_fact_extraction_prompt"],
        instructions=prompts["custom_instructions"],
        update_prompt=prompts["custom_update_memory_prompt"],
        profile=given.get("profile"),
        reranker=_reranker(given),
    )
    found = section(given, "vector_store", STORES)
    if found is None:
        return replace(settings, path=_folder(given, None))
    made: list[Embedder] = []

    def embedder() -> Embedder:
        if not made:
            made.append(cast("Embedder", resolve_embeddings(embeddings or "auto")))
        return made[0]

    dims = found[1].get("embedding_model_dims")
    if embeddings is not None and dims is not None:
        checked_dims(dims, embedder(), f"vector_store.config of {found[0]}")
    store = _with_clear_errors("vector_store", found[0], lambda: open_store(*found, embedder))
    with ExitStack() as undone:
        undone.callback(store.resources.close)
        folder = _folder(given, store)
        undone.pop_all()
    return replace(
        settings,
        path=folder,
        # What the store was opened with is what the memory uses.
        embeddings=made[0].source if made else embeddings or "auto",
        vectorstore=store.vectorstore,
        metric=store.metric,
        resources=store.resources,
    )


def _sections(config: Any) -> dict[str, Any]:
    """The sections of a configuration as dictionaries."""
    if isinstance(config, MemoryConfig):
        given = {f.name: getattr(config, f.name) for f in fields(config)}
        config = {key: value for key, value in given.items() if value is not None or key == "llm"}
        if config["llm"] == "auto":
            del config["llm"]
    elif callable(dump := getattr(config, "model_dump", None)):
        # A default of mem0's own class is no wish.
        config = dump(exclude_unset=True)
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"The configuration must be a dictionary, got {type(config).__name__}.")
    check_keys(config, _SECTIONS, "The configuration")
    return {key: _as_section(value) if key in _PARTS else value for key, value in config.items()}


def _as_section(part: Any) -> Any:
    if part is None or isinstance(part, Mapping) or not hasattr(part, "provider"):
        return part
    settings = getattr(part, "config", None)
    if callable(dump := getattr(settings, "model_dump", None)):
        settings = dump(exclude_unset=True)
    return {"provider": part.provider, "config": settings}


def _reranker(config: Mapping[str, Any]) -> Any:
    """The document compressor of a section `reranker`; of other providers it is only told that they are not used."""
    part = config.get("reranker")
    if not part:
        return None
    check_keys(checked_dictionary(part, "reranker"), ("provider", "config"), "reranker")
    if part.get("provider") == "langchain":
        where = "reranker.config of langchain"
        return required(dict(checked_dictionary(part.get("config") or {}, where)), "compressor", where)
    _LOGGER.warning(
        "reranker: %.80s is not used. Give a LangChain document compressor as {'provider': 'langchain', 'config': "
        "{'compressor': ...}}, or to search(rerank=...).",
        part.get("provider"),
    )
    return None


def _make(config: Mapping[str, Any], name: str, providers: Mapping[str, Provider]) -> Any:
    part = section(config, name, providers)
    if part is None:
        return None
    provider, settings = part
    return _with_clear_errors(name, provider, lambda: providers[provider].make(settings))


def _with_clear_errors(name: str, provider: str, make: Callable[[], Any]) -> Any:
    from pydantic import ValidationError

    try:
        return make()
    except ValidationError as error:
        # Only the places and the reasons: the values may be secrets.
        wrong = "; ".join(
            ": ".join(filter(None, (".".join(map(str, part["loc"])), part["msg"]))) for part in error.errors()
        )
        raise ConfigurationError(f"{name}.config of {provider} cannot be used: {wrong}.") from None


def _folder(config: Mapping[str, Any], store: Store | None) -> str | Path | None:
    """The journal's folder: the one that is named, else one of the user's own for this provider and collection.

    Collections in several places have several: what one of them knows must not show up in another.
    """
    for key in _FOLDERS:
        if config.get(key):
            given = filled(config[key], COLLECTION if store is None else store.collection, key)
            # mem0 keeps its history in a file; what is kept here needs a folder, which leaves such a file alone.
            is_file = key == "history_db_path" and (given.endswith(_FILES) or Path(given).is_file())
            return f"{given}.memlayer" if is_file and not is_url(given) else given
    if store is None or store.path is not None:
        return None if store is None else store.path
    name = f"{store.provider}-{store.collection}"
    file_name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    full_name = name if store.place is None else f"{name} {store.place}"
    if file_name != full_name:
        file_name = f"{file_name}-{hashlib.sha256(full_name.encode()).hexdigest()[:8]}"
    return room() / file_name
