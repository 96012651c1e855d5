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
        return np.array([codes[name] for name in names], np.int32)


def item_columns(raw: Mapping[str, Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """The columns of items, from the journal's."""
    return {"expires": _numbers(raw["expires"], np.int64)}


def memory_columns(raw: Mapping[str, Sequence[Any]], codes: Codes) -> dict[str, NDArray[Any]]:
    """The columns of memories, from the journal's."""
    turns = np.empty(len(raw["turns"]), object)
    turns[:] = [np.array(orjson.loads(t), "<i8").tobytes() if t else b"" for t in raw["turns"]]
    state = _numbers(raw["state"], np.int8)
    return {
        "kind": np.array([kind == "turn" for kind in raw["kind"]], np.int8),
        **{name: codes.encode(raw[name]) for name in _CODED},
        "time": _numbers(raw["time"], np.int64, -1),
        "state": state,
        "asks": _numbers(raw["asks"], np.int8),
        "read": _numbers(raw["read"], np.bool_),
        # A turn whose facts have ended is shown as ended; it does not expire.
        "until": np.where(state == SPENT, 0, _numbers(raw["invalid_at"], np.int64)),
        "turns": turns,
    }


def _numbers(values: Sequence[Any], kind: type[np.generic], missing: int = 0) -> NDArray[Any]:
    return np.array([missing if value is None else value for value in values], kind)
