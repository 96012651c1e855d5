"""The hot columns of the slabs: what searches ask of a row without reading it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from langchain_memlayer.journal.settings import Area
from langchain_memlayer.types import SPENT

_CODED = ("user_id", "agent_id", "run_id", "session_id", "role", "name")
COLUMNS: dict[Area, dict[str, np.dtype[Any]]] = {
    "items": {"expires": np.dtype(np.int64)},
    "memories": {
        "kind": np.dtype(np.int8),
        **{name: np.dtype(np.int32) for name in _CODED},
        "time": np.dtype(np.int64),
        "state": np.dtype(np.int8),
        "asks": np.dtype(np.int8),
        "read": np.dtype(np.bool_),
        "until": np.dtype(np.int64),
        "turns": np.dtype(np.object_),
    },
}


class Codes:
    """Small integers for strings, the same over all slabs of a process; None is -1."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {None: -1}
        self._lock = threading.Lock()
        self.names: list[str] = []

    def find(self, name: str | None) -> int:
        """The code of a name, or -2 when it has none yet."""
        return self._codes.get(name, -2)

    def encode(self, names: Sequence[str | None]) -> NDArray[np.int32]:
        """The codes of names, new ones made."""
        codes = self._codes
        with self._lock:
            for name in set(names).difference(codes):
                if name is not None:
                    self.names.append(name)
                    codes[name] = len(self.names) - 1
        return np.fromiter((codes[name] for name in names), np.int32, len(names))


def item_columns(raw: Mapping[str, NDArray[Any]], n: int) -> dict[str, NDArray[Any]]:
    """The columns of `n` items, from the journal's."""
    return {"expires": np.fromiter((e or 0 for e in raw["expires"]), np.int64, n)}


def memory_columns(raw: Mapping[str, NDArray[Any]], n: int, codes: Codes) -> dict[str, NDArray[Any]]:
    """The columns of `n` memories, from the journal's."""
    turns, ends = np.empty(n, object), zip(raw["invalid_at"], raw["state"], strict=True)
    turns[:] = [np.array(orjson.loads(t), "<i8").tobytes() if t else b"" for t in raw["turns"]]
    return {
        "kind": np.fromiter((k == "turn" for k in raw["kind"]), np.int8, n),
        **{name: codes.encode(raw[name].tolist()) for name in _CODED},
        "time": np.fromiter((-1 if t is None else t for t in raw["time"]), np.int64, n),
        "state": np.fromiter((s or 0 for s in raw["state"]), np.int8, n),
        "asks": np.fromiter((a or 0 for a in raw["asks"]), np.int8, n),
        "read": np.fromiter((bool(r) for r in raw["read"]), np.bool_, n),
        # A turn whose facts have ended is shown as ended; it does not expire.
        "until": np.fromiter((0 if s == SPENT else u or 0 for u, s in ends), np.int64, n),
        "turns": turns,
    }
