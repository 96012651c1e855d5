"""Rows with the same code, which a graph holds as one node.

A row of an HNSW graph has 64 links. When more rows than that are equal (a "thanks" in every conversation), they link to
each other only, and searches that come near find no way out: with 200 copies of each of 20 codes among 20,000 rows,
6.5 % of all queries lost more than half of their hits. One node for all copies has no such trap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXER = np.uint64(0xBF58476D1CE4E5B9)
_CHUNK = 4096


def checksums(codes: NDArray[np.float16]) -> NDArray[np.uint64]:
    """One 64-bit checksum per code; equal codes have equal ones, others do not (but for one pair in 2^64)."""
    word = np.dtype("<u8") if codes.shape[1] % 4 == 0 else np.dtype("<u2")
    words = np.ascontiguousarray(codes).view(word)
    places = np.arange(1, words.shape[1] + 1, dtype=np.uint64) * _GAMMA
    out = np.empty(len(words), dtype=np.uint64)
    for start in range(0, len(words), _CHUNK):
        # SplitMix64's steps (Steele, Lea, Flood 2014): a sum of plain products would not tell one-hot codes apart.
        mixed = words[start : start + _CHUNK] * _MIXER + places
        mixed ^= mixed >> np.uint64(29)
        mixed *= _GAMMA
        mixed ^= mixed >> np.uint64(32)
        out[start : start + _CHUNK] = mixed.sum(axis=1, dtype=np.uint64)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Which rows are one node.

    Nodes are in the order of their first rows, so that the nodes of more rows begin with the nodes of fewer.

    Attributes:
        sums: The checksum of each row.
        first: The first row of each node.
        members: The rows of node 0, of node 1 and so on; None when each row is a node of its own.
        starts: Where the rows of each node begin in `members`, and the end of the last.
    """

    sums: NDArray[np.uint64]
    first: NDArray[np.int64]
    members: NDArray[np.int64] | None
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, sums: NDArray[np.uint64]) -> Copies:
        """The nodes of rows with these checksums."""
        first, inverse = np.unique(sums, return_index=True, return_inverse=True)[1:]
        starts = np.arange(len(sums) + 1)
        if len(first) == len(sums):
            return cls(sums, starts[:-1], None, starts)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        nodes = rank[inverse]
        starts = np.concatenate(([0], np.cumsum(np.bincount(nodes))))
        return cls(sums, np.sort(first), np.argsort(nodes, kind="stable"), starts)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.sums.nbytes + self.first.nbytes + self.starts.nbytes + (len(self.sums) * 8 if self.several else 0)

    @property
    def several(self) -> bool:
        """Whether any node has several rows."""
        return self.members is not None

    @property
    def nodes(self) -> NDArray[np.int64]:
        """The node of each row."""
        if self.members is None:
            return self.first
        out = np.empty(len(self.sums), dtype=np.int64)
        out[self.members] = np.repeat(np.arange(len(self)), np.diff(self.starts))
        return out

    def codes(self, codes: NDArray[np.float16]) -> NDArray[np.float16]:
        """The nodes' codes, from those of the rows; without a copy when each row is a node."""
        return codes[self.first] if self.several else codes

    def spread(
        self, nodes: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """All rows of some nodes, each with its node's score."""
        if self.members is None:
            return nodes, scores
        counts = self.starts[nodes + 1] - self.starts[nodes]
        ends = np.cumsum(counts)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.starts[nodes] - ends + counts, counts)
        return self.members[places], np.repeat(scores, counts)
