"""Candidates of a foreign vector store: asked for, and doubted."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.backends.base import SCOPE, STORE, ForeignStore, Patience, Scalar
from langchain_memlayer.backends.points import is_flat
from langchain_memlayer.errors import VectorStoreError
from langchain_memlayer.index.source import Hints, Proposal, Source
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.read_caches import Area

_LOGGER = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_UNDELIVERED = 4_096
_FIRST_AUDITS, _AUDIT_EVERY = 3, 20
_JUDGED, _GOOD = 5, 0.9
_CROWD = 0.9


class Proposals:
    """Asks a foreign store for candidates, and stops when it is down, behind, or found wrong.

    Args:
        journal: The truth.
        store: The foreign store.
        area: `items` or `memories`.
        position: Gives the journal position up to which the store was brought; None when another has its place.
        behind: Called when the store could not be asked because it was not brought enough.

    Attributes:
        trusted: False when audits found that the store's candidates miss too much, or when another has its place.
    """

    def __init__(
        self,
        journal: Journal,
        store: ForeignStore,
        area: Area,
        *,
        position: Callable[[], int | None],
        behind: Callable[[], None],
    ) -> None:
        self.trusted = True
        self._journal = journal
        self._store = store
        self._patience = Patience(store)
        self._area: Area = area
        self._position = position
        self._behind = behind
        self._recalls: deque[float] = deque(maxlen=_JUDGED)
        self._searches = 0
        self._crowded = 0
        self._sleep, self._asleep_until = _FIRST_WAIT, 0.0

    def below(self, prefix: str) -> Source:
        """What proposes candidates below an encoded namespace."""
        return _Proposer(self, prefix)

    def awake(self) -> None:
        """Ask the store again, though it failed a moment ago."""
        self._asleep_until = 0.0

    def propose(self, vector: NDArray[np.float32], k: int, prefix: str, hints: Hints) -> Proposal | None:
        """Candidates of the store, or None when it cannot answer now, or was not brought enough yet."""
        if time.monotonic() < self._asleep_until:
            return None
        position = self._position()
        if position is None:
            self.displaced()
            return None
        with self._journal.read() as reader:
            later = reader.later(self._area, position, most=_UNDELIVERED)
            if later is None:
                self._behind()
                return None
            adopted = reader.adopted(prefix, most=_UNDELIVERED)
            if adopted is None:
                return None
            later += adopted
            leaf = reader.namespace_id(prefix) is not None and reader.namespace_count(prefix, most=2) == 1
        where: dict[str, Scalar] = {STORE: self._journal.store_id}
        where.update((name, value) for name, value in hints.where.items() if is_flat(value))
        if leaf:
            where[SCOPE] = prefix
        try:
            ids = self._patience.ask(lambda: self._store.search(vector, k, where, hints.text))
        except VectorStoreError as error:
            # A store that hangs must not make every search wait for it.
            self._sleep = min(2 * self._sleep, _LONGEST_WAIT)
            self._asleep_until = time.monotonic() + self._sleep
            _LOGGER.warning("%s Searches read the journal's own vectors meanwhile.", error)
            return None
        self._sleep = _FIRST_WAIT
        if ids is None:
            return None
        self._notice_crowd(ids, k)
        return Proposal(np.array(ids, np.int64), np.array(later, np.int64))

    def _notice_crowd(self, ids: list[int], k: int) -> None:
        """Say once that a store which does not filter answers with what others keep there."""
        if len(ids) < k or ids.count(-1) <= _CROWD * k:
            return
        self._crowded += 1
        if self._crowded == _JUDGED:
            _LOGGER.warning(
                "Most of what the vector store (%s) answers is not of the journal and scope that were asked for, since "
                "it is not filtered there; searches read the journal's own vectors then. Give each journal a "
                "collection of its own, or let the store filter by %s and %s.",
                self._store.kind,
                STORE,
                SCOPE,
            )

    def displaced(self) -> None:
        """Another process brings the vectors to another store: this one is not kept up with the journal any more."""
        if self.trusted:
            self.trusted = False
            _LOGGER.warning(
                "Another process brings the vectors to a store of its own, and no longer to %s; searches use the "
                "journal's own vectors. Open the memory with the same vectorstore everywhere.",
                self._store.kind,
            )

    def audit_due(self) -> bool:
        """Whether this search is to be compared with the exact answer: the first ones are, then one in twenty."""
        self._searches += 1
        return self._searches <= _FIRST_AUDITS or self._searches % _AUDIT_EVERY == 0

    def audited(self, recall: float) -> None:
        """Take note of a comparison; a store that keeps missing too much is not asked any more."""
        self._recalls.append(recall)
        mean = sum(self._recalls) / len(self._recalls)
        if self.trusted and len(self._recalls) >= _FIRST_AUDITS and mean < _GOOD:
            self.trusted = False
            _LOGGER.warning(
                "The vector store (%s) found %.0f %% of what an exact search finds; it is not asked any more, and "
                "searches use the journal's own vectors. Check its metric, its filters and that it keeps what it is "
                "given; opening the memory again asks it anew.",
                self._store.kind,
                100 * mean,
            )


@dataclass(frozen=True, slots=True)
class _Proposer:
    """The `Source` of one slab."""

    proposals: Proposals
    prefix: str

    @property
    def trusted(self) -> bool:
        """Whether the store is worth asking."""
        return self.proposals.trusted

    def propose(self, vector: NDArray[np.float32], k: int, hints: Hints) -> Proposal | None:
        """Candidates for the `k` nearest rows, or None when there is no answer now."""
        return self.proposals.propose(vector, k, self.prefix, hints)

    def audit_due(self) -> bool:
        """Whether this search is to be compared with the exact answer; asked once for each."""
        return self.proposals.audit_due()

    def audited(self, recall: float) -> None:
        """Take note of such a comparison."""
        self.proposals.audited(recall)
