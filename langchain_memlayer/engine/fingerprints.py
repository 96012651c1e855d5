"""Which embedder wrote the vectors of an area, how they are compared, and the form that the journal has them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from langchain_memlayer.errors import ConfigurationError, EmbedderMismatch, EmbeddingError
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.settings import Area, embedder_key
from langchain_memlayer.types import METRICS, Metric

if TYPE_CHECKING:
    from langchain_memlayer.embedders.embedder import Embedder


def encode_vectors(vectors: Sequence[NDArray[Any]], metric: Metric) -> bytes:
    """The journal's form of the vectors of one item: float16 bytes, of unit length for cosine.

    Raises:
        EmbeddingError: a number is too large for float16.
    """
    block = np.asarray(vectors, np.float32)
    if metric == "cosine":
        # By the largest number first: float32 cannot hold the squares of very large or small ones.
        block = block / np.maximum(np.abs(block).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        block = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)
    elif np.abs(block).max(initial=0.0) > 65504:
        raise EmbeddingError("A vector has numbers beyond 65504, which float16 cannot hold; scale them, or use cosine.")
    return block.astype("<f2").tobytes()


def recorded_embedder(journal: Journal, area: Area) -> tuple[str, int] | None:
    """The name and dims of the embedder that wrote the vectors of an area, or None while there are none."""
    text = journal.meta(embedder_key(area))
    if text is None:
        return None
    found = orjson.loads(text)
    return found["name"], found["dims"]


def chosen_metric(journal: Journal, area: Area, metric: Metric | None) -> Metric:
    """How the vectors of an area are compared: as is asked for, else as those that are there, else by cosine.

    Raises:
        ConfigurationError: it is no metric, or those that are there were written for another one.
    """
    if metric is not None and metric not in METRICS:
        raise ConfigurationError(f"metric must be one of {', '.join(METRICS)}, or None; got {metric!r}.")
    text = journal.meta(embedder_key(area))
    recorded: Metric | None = None if text is None else metric_in(text)
    if metric is not None and recorded not in (None, metric):
        raise ConfigurationError(
            f"The folder {journal.where} has vectors to be compared by {recorded}, not by {metric}. Open it with "
            f"metric={recorded!r} or without one, or choose another folder."
        )
    return metric or recorded or "cosine"


def metric_in(record: str) -> Metric:
    """How the vectors that a record tells of are compared."""
    # Records that do not tell it are older than the choice.
    found: Metric = orjson.loads(record).get("metric", "cosine")
    return found


def refuse_others(record: str, embedder: Embedder, metric: Metric, where: str) -> None:
    """Refuse the vectors that a record tells of, unless they are of this embedder and for this metric.

    Raises:
        EmbedderMismatch: they are not.
    """
    name, dims, recorded = embedder.name, embedder.dims, orjson.loads(record)
    if recorded["name"] != name or dims not in (None, recorded["dims"]):
        size = "" if dims is None else f" ({dims} numbers)"
        raise EmbedderMismatch(
            f"The folder {where} has vectors of {recorded['name']} ({recorded['dims']} numbers), not "
            f"of {name}{size}: another process wrote them, or `memlayer reembed` made them. Open it again with "
            "that embedder, or give it this one: `memlayer reembed`, or `langchain_memlayer.moving.reembed_store`."
        )
    if (other := metric_in(record)) != metric:
        raise EmbedderMismatch(
            f"The folder {where} has vectors to be compared by {other}, not by {metric}. Open it with metric={other!r}."
        )
