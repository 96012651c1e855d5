"""Clustered vectors, computed once and given to everyone by an embedder that only looks them up."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

DIMS = 384
CLUSTERS = 200
QUERIES = 400
EXTRA = 20_000
TENANTS = 100
SPREAD = 0.4
_NUMBER = re.compile(r"([#?])(\d+)")
WORDS = ("berlin", "canal", "locker", "walnut", "oboe", "train", "ticket", "garden", "bicycle", "cellar", "harbour")


@dataclass(frozen=True, slots=True)
class Data:
    """Rows and queries from one mixture of 200 clusters.

    Attributes:
        rows: How many rows are loaded before anything is measured.
        vectors: Their vectors, and after them those of rows that are added while measuring; unit length.
        queries: Fresh vectors from the same mixture.
    """

    rows: int
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]

    @staticmethod
    def text(row: int) -> str:
        """The text of a row: words, and its number."""
        words = (WORDS[(row * 7 + k * k * 3) % len(WORDS)] for k in range(8))
        return f"{' '.join(words)} #{row}"

    @staticmethod
    def query(number: int) -> str:
        """The text of a query; no row has its words."""
        return f"whatsoever ?{number}"

    @staticmethod
    def tenant(row: int) -> int:
        """Whose row it is; the clusters are spread evenly over the tenants."""
        return row % TENANTS

    def tenant_rows(self, tenant: int) -> NDArray[np.int64]:
        """The loaded rows of a tenant."""
        return np.arange(tenant, self.rows, TENANTS)

    def exact(self, number: int, k: int, tenant: int | None) -> set[int]:
        """The `k` rows nearest to a query."""
        rows = np.arange(self.rows) if tenant is None else self.tenant_rows(tenant)
        scores = self.vectors[rows] @ self.queries[number]
        k = min(k, len(rows))
        return set(rows[np.argpartition(-scores, k - 1)[:k]].tolist())


def clustered(rows: int, *, seed: int = 7) -> Data:
    """Seeded data: cluster centres from the unit normal, points around them, everything normalised."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, DIMS), dtype=np.float32)

    def draw(count: int) -> NDArray[np.float32]:
        points = centres[rng.integers(CLUSTERS, size=count)]
        points += SPREAD * rng.standard_normal((count, DIMS), dtype=np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return points

    return Data(rows, draw(rows + EXTRA), draw(QUERIES))


class Precomputed(Embeddings):
    """Looks vectors up by the number that a text carries; a text without one gets some row's vector."""

    def __init__(self, data: Data) -> None:
        self._vectors = data.vectors
        self._queries = data.queries

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        found = _NUMBER.search(text)
        if found is None:
            vector = self._vectors[zlib.crc32(text.encode()) % len(self._vectors)]
        else:
            vector = (self._queries if found[1] == "?" else self._vectors)[int(found[2])]
        numbers: list[float] = vector.tolist()
        return numbers
