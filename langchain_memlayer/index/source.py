"""Candidates that come from elsewhere than a graph of our own: the seam between a slab and a foreign vector store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Hints:
    """What a source may use to propose fewer rows in vain; nothing depends on it.

    Attributes:
        where: What a row's metadata must equal.
        text: The query's words, for stores that cannot be asked by vector.
    """

    where: Mapping[str, Any] = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """An answer of a source.

    Attributes:
        ids: The row ids that it thinks are nearest.
        later: The row ids of which it may not know the last state yet.
    """

    ids: NDArray[np.int64]
    later: NDArray[np.int64]


class Source(Protocol):
    """Proposes candidates, which are scored from the stored vectors; it may be stale, wrong or hostile."""

    @property
    def trusted(self) -> bool:
        """Whether it is worth asking: it was not found wrong."""
        ...

    def propose(self, vector: NDArray[np.float32], k: int, hints: Hints) -> Proposal | None:
        """Candidates for the `k` nearest rows, or None when there is no answer now."""
        ...

    def audit_due(self) -> bool:
        """Whether this search is to be compared with the exact answer; asked once for each."""
        ...

    def audited(self, recall: float) -> None:
        """Takes note of such a comparison: which share of the exact answer was proposed."""
        ...
