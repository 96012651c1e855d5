"""The rows of a slab as bytes, and back: all that it holds but the vectors, which are read from the journal.

A snapshot is a row of plain arrays; how long each is stands in its meta. It knows the position up to which it has the
journal's rows, and what was written since is applied to it as to any slab. Every number that another array is asked by
is checked, so that forged bytes can only be refused, or propose rows that are read again anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index.postings import Segment, Terms, Words
from langchain_memlayer.index.view import View
from langchain_memlayer.types import SlabBlock

_KIND = "rows, format 1"
_KINDS = {
    "ids": "<i8", "seqs": "<i8", "owners": "<i8", "flat": "<i4", "often": "<u2", "starts": "<i8", "lengths": "<i4",
    "terms": "<u8", "segments": "<i8", "numbers": "<i4", "begins": "<i8", "slots": "<i4", "counts": "<u2",
}  # fmt: skip

Arrays = dict[str, NDArray[Any]]


def dump(view: View, columns: Mapping[str, NDArray[Any]]) -> tuple[bytes, dict[str, Any]]:
    """The bytes and the meta of a view's live rows, with other columns in the place of its own.

    The slab holds its vectors, or has none.
    """
    slots = np.flatnonzero(view.live)
    arrays: Arrays = {"ids": view.ids[slots], "seqs": view.seqs[slots]}
    if view.owners is not None:
        owners = view.owners[view.live[view.owners]]
        arrays["owners"] = (np.cumsum(view.live) - 1)[owners]
    if len(view.words.lengths):
        arrays |= _of_words(view.words, slots)
    for name, column in columns.items():
        arrays |= _of_column(name, column[slots])
    meta = {"kind": _KIND, "seq": view.applied_seq, "counts": {name: len(array) for name, array in arrays.items()}}
    kinds = _KINDS | _kinds_of(columns)
    # By their names: those of a manifest are sorted.
    return b"".join(array.astype(kinds[name], copy=False).tobytes() for name, array in sorted(arrays.items())), meta


def load(
    payload: bytes, meta: Mapping[str, Any], columns: Mapping[str, np.dtype[Any]]
) -> tuple[SlabBlock, Words | None]:
    """The rows that were dumped, without their vectors, and their words.

    Raises:
        SnapshotError: These are not the bytes of such rows.
    """
    arrays = _arrays(payload, meta, _KINDS | _kinds_of({name: np.empty(0, kind) for name, kind in columns.items()}))
    try:
        rows = len(arrays["ids"])
        named = {name: _column(name, kind, arrays) for name, kind in columns.items()}
        owners = arrays.get("owners", np.arange(rows))
        words = _words(arrays) if "flat" in arrays else None
        sound = (
            len(arrays["seqs"]) == rows
            and _are_distinct(arrays["ids"])
            and all(len(column) == rows for column in named.values())
            and _are_below(owners, rows)
            and (np.diff(owners) >= 0).all()
            and (words is None or len(words.lengths) == rows)
        )
    except (KeyError, ValueError, IndexError) as problem:
        raise SnapshotError("The rows' snapshot lacks some of them; it is rebuilt.") from problem
    if not sound:
        raise SnapshotError("The rows' snapshot disagrees with itself; it is rebuilt.")
    nothing = np.empty(0, np.int64)
    return SlabBlock(meta["seq"], arrays["ids"], arrays["seqs"], named, owners, b"", nothing), words


def _arrays(payload: bytes, meta: Mapping[str, Any], kinds: Mapping[str, str]) -> Arrays:
    counts = meta.get("counts")
    seq = meta.get("seq")
    if meta.get("kind") != _KIND or type(seq) is not int or not 0 <= seq < 2**63:
        raise SnapshotError("The rows' snapshot is of another format; it is rebuilt.")
    if not isinstance(counts, dict) or not all(
        name in kinds and type(count) is int and 0 <= count < 2**40 for name, count in counts.items()
    ):
        raise SnapshotError("The rows' snapshot has a damaged meta; it is rebuilt.")
    if sum(np.dtype(kinds[name]).itemsize * count for name, count in counts.items()) != len(payload):
        raise SnapshotError("The rows' snapshot has the wrong length; it is rebuilt.")
    arrays, offset = {}, 0
    for name, count in sorted(counts.items()):
        # A copy each: a view would hold all of the file.
        arrays[name] = np.frombuffer(payload, kinds[name], count, offset).copy()
        offset += arrays[name].nbytes
    return arrays


# -- columns; those of bytes are their sizes and what they are together ------------------------------------------------


def _kinds_of(columns: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for name, column in columns.items():
        pieces = column.dtype == np.object_
        kinds |= {f"{name}:sizes": "<i4", f"{name}:bytes": "u1"} if pieces else {f"column:{name}": column.dtype.str}
    return kinds


def _of_column(name: str, column: NDArray[Any]) -> Arrays:
    if column.dtype != np.object_:
        return {f"column:{name}": column}
    pieces: list[bytes] = column.tolist()
    sizes = np.fromiter(map(len, pieces), np.int32, len(pieces))
    return {f"{name}:sizes": sizes, f"{name}:bytes": np.frombuffer(b"".join(pieces), np.uint8)}


def _column(name: str, kind: np.dtype[Any], arrays: Arrays) -> NDArray[Any]:
    if kind != np.object_:
        return arrays[f"column:{name}"]
    sizes, together = arrays[f"{name}:sizes"], arrays[f"{name}:bytes"].tobytes()
    if (sizes < 0).any() or sizes.sum(dtype=np.int64) != len(together):
        raise ValueError(name)
    column = np.full(len(sizes), b"", object)
    some = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[some])
    for place, begin, end in zip(some.tolist(), (ends - sizes[some]).tolist(), ends.tolist(), strict=True):
        column[place] = together[begin:end]
    return column


# -- words -------------------------------------------------------------------------------------------------------------


def _of_words(words: Words, slots: NDArray[np.int64]) -> Arrays:
    texts, segments = words.texts(slots), words.segments
    if len(slots) < len(words.lengths):
        segments = (Segment.of(len(slots), texts.flat, texts.text.astype(np.int32), texts.often),)
    return {
        **{name: getattr(texts, name) for name in ("flat", "often", "starts", "lengths")},
        "terms": texts.ids,
        "segments": np.array([(segment.rows, len(segment.numbers)) for segment in segments], np.int64).reshape(-1),
        **_together("numbers", [segment.numbers for segment in segments], np.int32),
        **_together("begins", [segment.starts for segment in segments], np.int64),
        **_together("slots", [segment.slots for segment in segments], np.int32),
        **_together("counts", [segment.often for segment in segments], np.uint16),
    }


def _together(name: str, parts: list[NDArray[Any]], kind: type[np.generic]) -> Arrays:
    return {name: np.concatenate([np.empty(0, kind), *parts])}


def _words(arrays: Arrays) -> Words:
    names = ("flat", "often", "starts", "lengths", "terms")
    texts = Terms(*(arrays[name] for name in names))
    rows, terms = len(texts.lengths), len(texts.ids)
    segments: list[Segment] = []
    sealed = number = slot = 0
    for size, distinct in arrays["segments"].reshape(-1, 2).tolist():
        numbers = arrays["numbers"][number : number + distinct]
        starts = arrays["begins"][number + len(segments) :][: distinct + 1]
        slots, often = (arrays[name][slot : slot + int(starts[-1])] for name in ("slots", "counts"))
        if not (
            0 <= size <= rows - sealed
            and len(numbers) == distinct
            and _are_starts(starts, len(slots))
            and len(starts) == distinct + 1
            and len(slots) == len(often)
            and _are_below(numbers, terms)
            and (np.diff(numbers) > 0).all()
            and _are_below(slots, sealed + size)
        ):
            raise ValueError("segments")
        segments.append(Segment(size, numbers, starts, slots, often))
        sealed, number, slot = sealed + size, number + distinct, slot + len(slots)
    sound = (
        len(texts.starts) == rows + 1
        and _are_starts(texts.starts, len(texts.flat))
        and len(texts.flat) == len(texts.often)
        and _are_below(texts.flat, terms)
        and _are_distinct(texts.ids)
    )
    if not sound:
        raise ValueError("words")
    return Words.of(texts, tuple(segments))


def _are_below(numbers: NDArray[Any], end: int) -> bool:
    """Whether numbers are all from 0 and below the end."""
    return bool(numbers.min(initial=0) >= 0 and numbers.max(initial=-1) < end)


def _are_distinct(numbers: NDArray[Any]) -> bool:
    # Several times as quick as `np.unique`.
    return bool((np.diff(np.sort(numbers)) != 0).all())


def _are_starts(starts: NDArray[np.int64], end: int) -> bool:
    """Whether these are where pieces begin of what ends there."""
    return bool(len(starts) and starts[0] == 0 and starts[-1] == end and (np.diff(starts) >= 0).all())
