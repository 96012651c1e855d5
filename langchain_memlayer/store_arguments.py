"""What LangGraph's calls of the store take: nothing is written before all of a batch has passed its checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from langgraph.store.base import (
    GetOp,
    IndexConfig,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
    TTLConfig,
    get_text_at_path,
    validate_op_namespace,
)

from langchain_memlayer.arguments import checked_count
from langchain_memlayer.errors import ConfigurationError, InvalidInput, shown, written
from langchain_memlayer.filters import Filter, parse_filter
from langchain_memlayer.json_values import dumps, plain
from langchain_memlayer.messages import checked_text
from langchain_memlayer.types import Metric, encode_namespace

Fields = tuple[str, ...]
"""Paths for `get_text_at_path`, such as `"title"` or `"tags[*]"`; `"$"` is the whole value."""

EVERYTHING: Fields = ("$",)
"""The whole value, which is embedded unless a configuration says otherwise."""


class MemLayerIndexConfig(IndexConfig, total=False):
    """LangGraph's index configuration, and what this store adds to it.

    Attributes:
        distance_type: How vectors are compared; `l2` is another name for `euclidean`.
    """

    distance_type: Literal["cosine", "inner_product", "euclidean", "l2"]


_METRICS: dict[str, Metric] = {
    "cosine": "cosine",
    "inner_product": "inner_product",
    "euclidean": "euclidean",
    "l2": "euclidean",
}
_LONGEST_TTL = 1e12


@dataclass(slots=True)
class Put:
    """A put that has passed its checks.

    Attributes:
        path: The encoded namespace.
        key: The item's key.
        value: Its JSON text, or None to delete it.
        ttl: Minutes to live, or None for ever.
        texts: What of it is embedded.
        fields: Where that stands in the value.
    """

    path: str
    key: str
    value: str | None = None
    ttl: float | None = None
    texts: list[str] = field(default_factory=list)
    fields: Fields = ()


@dataclass(slots=True)
class Batch:
    """A batch that has passed its checks.

    Attributes:
        ops: The operations, in order.
        puts: What to write, by encoded namespace and key: of several puts to one key the last, in the order of these.
        texts: What the puts want embedded, each text once.
        paths: The encoded namespaces of gets and searches, by their position in `ops`.
        filters: The filters of searches, likewise.
        queries: What searches want embedded, likewise.
    """

    ops: list[Op]
    puts: dict[tuple[str, str], Put] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)
    filters: dict[int, Filter | None] = field(default_factory=dict)
    queries: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, ops: Iterable[Op], fields: Fields | None) -> Batch:
        """Check all operations; `fields` are what the store embeds by default, None when it embeds nothing.

        Raises:
            ValueError: an operation cannot be run.
        """
        batch = cls(list(ops))
        for number, op in enumerate(batch.ops):
            if isinstance(op, PutOp):
                put = _checked_put(op, fields)
                batch.puts.pop((put.path, put.key), None)
                batch.puts[put.path, put.key] = put
            elif isinstance(op, SearchOp):
                batch.paths[number] = checked_path(op.namespace_prefix)
                _check_page(op)
                batch.filters[number] = parse_filter(op.filter)
                if op.query is not None and not isinstance(op.query, str):
                    raise InvalidInput(f"query must be a string or None, got {type(op.query).__name__}.")
                if op.query and fields is not None:
                    batch.queries[number] = op.query
            elif isinstance(op, ListNamespacesOp):
                _check_conditions(op.match_conditions or ())
                _check_page(op)
                if op.max_depth is not None:
                    checked_count(op.max_depth, "max_depth", 1)
            elif isinstance(op, GetOp):
                batch.paths[number] = checked_path(op.namespace)
                checked_key(op.key)
            else:
                raise InvalidInput(
                    f"Unknown operation {type(op).__name__}; use GetOp, PutOp, SearchOp or ListNamespacesOp."
                )
        if batch.puts:
            batch.texts = list(dict.fromkeys(text for put in batch.puts.values() for text in put.texts))
        return batch


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """LangGraph's index configuration, checked.

    Attributes:
        dims: The size of the vectors.
        embed: What makes them.
        fields: What is embedded by default.
        metric: How vectors are compared.
    """

    dims: int
    embed: Any
    fields: Fields
    metric: Metric

    @classmethod
    def of(cls, index: IndexConfig) -> IndexSettings:
        """Check a configuration, which stays as it is.

        Raises:
            ConfigurationError: it cannot be used.
        """
        if not isinstance(index, Mapping):
            raise ConfigurationError(f"index must be a mapping with 'dims' and 'embed', got {type(index).__name__}.")
        dims, embed = index.get("dims"), index.get("embed")
        if not isinstance(dims, int) or isinstance(dims, bool) or dims < 1:
            raise ConfigurationError(f"index['dims'] must be the vectors' size, a positive integer; got {shown(dims)}.")
        if embed is None:
            raise ConfigurationError("index['embed'] must be an Embeddings object, a function or 'provider:model'.")
        distance = index.get("distance_type", "cosine")
        if distance not in _METRICS:
            raise ConfigurationError(
                f"index['distance_type'] must be one of {sorted(_METRICS)}, got {shown(distance)}."
            )
        fields = index.get("fields")
        if not _is_list_of_text(fields or []):
            raise ConfigurationError(f"index['fields'] must be a list of paths or None, got {shown(fields)}.")
        return cls(dims, embed, tuple(fields or EVERYTHING), _METRICS[str(distance)])


def check_ttl(ttl: TTLConfig | None) -> None:
    """Check LangGraph's TTL configuration.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if ttl is None:
        return
    if not isinstance(ttl, Mapping):
        raise ConfigurationError(f"ttl must be a mapping such as {{'default_ttl': 60}}, got {type(ttl).__name__}.")
    for name in ("default_ttl", "sweep_interval_minutes"):
        minutes = ttl.get(name)
        if minutes is not None and not _is_duration(minutes):
            raise ConfigurationError(
                f"ttl[{shown(name)}] must be a positive number of minutes or None, got {shown(minutes)}."
            )
    refresh = ttl.get("refresh_on_read", True)
    if not isinstance(refresh, bool):
        raise ConfigurationError(f"ttl['refresh_on_read'] must be True or False, got {shown(refresh)}.")


def checked_key(key: Any) -> str:
    """A key as text.

    Raises:
        InvalidInput: it cannot be stored.
    """
    return checked_text(key if isinstance(key, str) else written(key, "The key"), "The key")


def checked_path(namespace: Any) -> str:
    """The journal's form of a namespace.

    Raises:
        ValueError: it is none, or cannot be stored.
    """
    # A string would pass for a sequence of one-letter labels.
    if not isinstance(namespace, (tuple, list)):
        raise InvalidInput(f"A namespace must be a tuple of labels such as ('users', '1'), got {shown(namespace)}.")
    labels = tuple(namespace)
    try:
        return _path(labels)
    except TypeError:
        # A label without a hash is no text; this says so.
        return _path.__wrapped__(labels)


@lru_cache(maxsize=1024)
def _path(labels: tuple[str, ...]) -> str:
    validate_op_namespace(SearchOp(labels))
    for label in labels:
        checked_text(label, "A namespace label")
    return encode_namespace(labels)


def _check_conditions(conditions: Sequence[MatchCondition]) -> None:
    kinds = {condition.match_type for condition in conditions}
    if not kinds <= {"prefix", "suffix"}:
        raise InvalidInput(f"A match condition is of type 'prefix' or 'suffix', got {sorted(map(str, kinds))}.")
    for condition in conditions:
        checked_path(condition.path)


def _checked_put(op: PutOp, fields: Fields | None) -> Put:
    put = Put(checked_path(op.namespace), checked_key(op.key))
    if not put.path:
        raise InvalidInput("A put needs a namespace of at least one label.")
    if op.value is None:
        return put
    if not isinstance(op.value, Mapping):
        raise InvalidInput(f"A value must be a mapping (or None to delete), got {type(op.value).__name__}.")
    if op.ttl is not None and not _is_duration(op.ttl):
        raise InvalidInput(f"ttl must be a positive number of minutes or None, got {shown(op.ttl)}.")
    value = plain(op.value)
    put.value, put.ttl = dumps(value), op.ttl
    if fields is not None and op.index is not False:
        if op.index is not None:
            if not _is_list_of_text(op.index):
                raise InvalidInput(f"index must be None, False or a list of paths, got {shown(op.index)}.")
            fields = tuple(op.index)
        put.texts = texts_at(value, fields)
        put.fields = fields if put.texts else ()
    return put


def _is_duration(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _LONGEST_TTL


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)


def texts_at(value: Any, fields: Sequence[str]) -> list[str]:
    """What is embedded of an item's value: each text gets a vector of its own."""
    return [text for path in fields for text in get_text_at_path(value, path) if text]


def _check_page(op: SearchOp | ListNamespacesOp) -> None:
    checked_count(op.limit, "limit", 1)
    checked_count(op.offset, "offset", 0)
