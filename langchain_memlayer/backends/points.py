"""What the adapters share: how a point is written, and how an answer is read."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.backends.base import ITEM, Point, Scalar
from langchain_memlayer.errors import ConfigurationError

POINT = "memlayer_point"
"""The metadata key of a point's own id: several stores do not tell a document's id."""

BATCH = 128
"""How many points go into one request: 2,000 numbers each are some 4 MB, below every server's limit."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INT64 = 2**63
_LONGEST_VALUE = 1_000
_T = TypeVar("_T")
_LOCKS: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    """The values in lists of at most `BATCH`; none for none."""
    rest = list(values)
    for start in range(0, len(rest), BATCH):
        yield rest[start : start + BATCH]


def point_batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Like `batches`, with the last of the points that have the same id."""
    return batches({point.id: point for point in points}.values())


def id_batches(ids: Sequence[str]) -> Iterator[list[str]]:
    """Like `batches`, each id once."""
    return batches(dict.fromkeys(ids))


def lock_of(store: Any) -> threading.Lock:
    """The one lock of a store that has none of its own, whoever uses it: several memories may share it."""
    with _LOCKS_LOCK:
        return _LOCKS.setdefault(store, threading.Lock())


def unit(vector: NDArray[Any]) -> list[float]:
    """The vector with length 1, so that cosine, inner product and euclidean distance order alike."""
    wide = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(wide))
    numbers: list[float] = (wide / length if length else wide).astype(np.float32).tolist()
    return numbers


def is_plain(name: str, value: Any) -> bool:
    """Whether every store keeps such a field, and lets it be filtered on; the rest stays in the journal alone."""
    if _NAME.fullmatch(name) is None:
        return False
    if isinstance(value, str):
        return "\x00" not in value
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -_INT64 <= value < _INT64
    return isinstance(value, float) and math.isfinite(value)


def is_flat(value: Any) -> bool:
    """Whether a store is told of such a metadata value, and may be asked for it."""
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= _LONGEST_VALUE)


def fields(point: Point) -> dict[str, Scalar]:
    """The metadata that is written with a point: its plain fields and its own id."""
    return {**plain(point.metadata), POINT: point.id}


def plain(where: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The part of a filter that can be said in every store's grammar."""
    return {name: value for name, value in where.items() if is_plain(name, value)}


def rows(found: Iterable[Mapping[str, Any] | None], where: Mapping[str, Scalar]) -> list[int]:
    """The row numbers of an answer, by the metadata of its documents in order.

    A document that is not ours, or that `where` excludes, counts as -1: an answer shorter than asked is the end. What
    is not plain in `where` was not written either; it is left to the caller.
    """
    wanted = plain(where)
    return [_row(metadata or {}, wanted) for metadata in found]


def _row(metadata: Mapping[str, Any], wanted: Mapping[str, Scalar]) -> int:
    try:
        row = int(metadata[ITEM])
    except (KeyError, TypeError, ValueError):
        return -1
    return row if all(_equals(metadata.get(name), value) for name, value in wanted.items()) else -1


def _equals(found: Any, wanted: Scalar) -> bool:
    # Some stores keep every value as a string.
    return bool(found == wanted) or str(found) == str(wanted)


def require_dims(kind: str, name: str, found: int, dims: int) -> None:
    """Raise ConfigurationError when a collection is for vectors of another size."""
    if found != dims:
        raise ConfigurationError(
            f"The {kind} collection {name!r} holds vectors of {found} numbers, and the embedder makes {dims}: name "
            "another collection, or pass the embedder that it was made for."
        )


def require_metric(kind: str, name: str, found: str, known: Sequence[str]) -> None:
    """Raise ConfigurationError when a collection compares by something that cannot stand for cosine."""
    if found.lower() not in known:
        raise ConfigurationError(
            f"The {kind} collection {name!r} compares by {found}, which does not order like cosine: name another "
            f"collection, made with one of {', '.join(known)}."
        )
