"""Points for the tests of vector stores."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from langchain_memlayer.backends.base import ITEM, STORE, Point

DIMS = 4
OURS = "store-1"
NASTY = 'O\'Brien "quoted" \\back\\ $where {x} %s :p \n 漢字 é'


class CountingEmbeddings(Embeddings):
    """Counts its calls: an adapter that has vectors must not have anything embedded again."""

    def __init__(self) -> None:
        self.calls = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        return [[1.0, float(len(text)), 0.5, 0.25] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def vector(*numbers: float) -> np.ndarray[Any, Any]:
    return np.array([*numbers, *[0.0] * (DIMS - len(numbers))], np.float32)


def point(
    row: int,
    at: np.ndarray[Any, Any],
    text: str = "a text",
    *,
    store: str = OURS,
    fields: dict[str, Any] | None = None,
    **metadata: Any,
) -> Point:
    return Point(point_id(row, store), at, text, {**(fields or {}), **metadata, ITEM: row, STORE: store})


def point_id(row: int, store: str = OURS) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{store}/{row}"))
