"""Candidates of a foreign vector store: asked for, and doubted."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.backends.base import SCOPE, STORE, ForeignStore, Patience, Scalar, is_flat
from langchain_memlayer.errors import VectorStoreError
from langchain_memlayer.index.view import Hints, Hits, Plan, Source, View, candidates
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.database import Area

_LOGGER = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_UNDELIVERED = 4_096
_FIRST_AUDITS, _AUDIT_EVERY = 3, 20
_JUDGED, _GOOD = 5, 0.9
_CROWD = 0.9
_FEW_READ = 4
"""The share of the threshold up to which what matches is read: a store answers later than that takes."""
_ALIKE = 1e-4
_FEW_ASKED, _READ_RATIO, _WIDEST = 256, 512, 4_096


@dataclass(frozen=True, slots=True)
class Proposal:
    """The rows that a store thinks are nearest, and those of which it may not know the last state yet."""

    ids: NDArray[np.int64]
    later: NDArray[np.int64]


class Proposals:
    """Asks a foreign store for candidates, and stops when it is down, behind, or found wrong.

    Args:
        position: Gives the journal position up to which the store was brought; None when another has its place.
        behind: Called when the store could not be asked because it was not brought enough.
        verified: Whether the store was found to have what it was brought: one that was emptied is filled, not judged.

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
        verified: Callable[[], bool],
    ) -> None:
        self.trusted = True
        self._journal = journal
        self._store = store
        self._patience = Patience(store)
        self._area: Area = area
        self._position = position
        self._behind = behind
        self._verified, self._sure = verified, False
        self._recalls: deque[float] = deque(maxlen=_JUDGED)
        self._searches = 0
        self._crowded = 0
        self._sleep, self._asleep_until = _FIRST_WAIT, 0.0

    def below(self, prefix: str) -> Source | None:
        """What proposes candidates below an encoded namespace; None where most was adopted and is not in the store."""
        with self._journal.read() as reader:
            adopted = reader.adopted(prefix, most=_UNDELIVERED)
        return None if adopted is None else _Proposer(self, prefix)

    def awake(self) -> None:
        """Ask the store again, though it failed a moment ago."""
        self._asleep_until = 0.0

    def propose(self, vector: NDArray[np.float32], k: int, prefix: str, hints: Hints) -> Proposal | None:
        """Candidates of the store, or None when it cannot answer now, or was not brought enough yet."""
        if time.monotonic() < self._asleep_until:
            return None
        self._sure = self._verified()
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

        def answer() -> NDArray[np.int64] | None:
            ids = self._store.search(vector, k, where, hints.text)
            return None if ids is None else np.array(ids, np.int64).reshape(-1)

        try:
            ids = self._patience.ask(answer)
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
        return Proposal(ids, np.array(later, np.int64))

    def _notice_crowd(self, ids: NDArray[np.int64], k: int) -> None:
        """Say once that a store which does not filter answers with what others keep there."""
        if len(ids) < k or np.count_nonzero(ids == -1) <= _CROWD * k:
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
        if not self._sure:
            return
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
    """The `Source` of one slab: what the store proposes, scored from the vectors here, and doubted now and then."""

    proposals: Proposals
    prefix: str

    @property
    def trusted(self) -> bool:
        """Whether the store is worth asking."""
        return self.proposals.trusted

    def nearest(
        self, view: View, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hints: Hints
    ) -> Hits | None:
        """The best of the store's candidates, or None when they are too few or reading what matches is quicker."""
        total = view.count_findable(mask)
        rows, dims = len(view.codes), len(vector)
        breadth = candidates(rows, 0, k)[0]
        quicker = view.held and breadth > _FEW_ASKED and breadth * _READ_RATIO > rows
        if quicker or total * dims <= view.threshold // _FEW_READ:
            return None
        hits = self._proposed(view, vector, k, mask, hints, total)
        due = hits is not None and self.proposals.audit_due()
        return self._compared(view, vector, k, mask, hits) if hits is not None and due else hits

    def audit(
        self, view: View, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hints: Hints
    ) -> None:
        """Now and then compare what the store proposes, though no search needs it."""
        if self.proposals.audit_due():
            hits = self._proposed(view, vector, k, mask, hints, view.count_findable(mask))
            if hits is not None:
                self._compared(view, vector, k, mask, hits)

    def _compared(
        self, view: View, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hits: Hits
    ) -> Hits:
        """The exact answer where it is at hand, after note was taken of how much of it the store had found."""
        if not view.held:
            # Reading all of them would take seconds: those of the sample that are nearer should have been found.
            slots, scores = view.sampled(vector)
            allowed = view.live if mask is None else mask & view.live
            near = slots[allowed[slots] & (scores > hits.scores[-1] + _ALIKE)] if len(hits) == k else slots[:0]
            if len(near):
                self.proposals.audited(float(np.isin(near, hits.slots).mean()))
            return hits
        exact = view.exact(vector, k, mask=mask, plan=hits.plan)
        in_common = len(np.intersect1d(exact.ids, hits.ids))
        self.proposals.audited(in_common / max(len(exact.ids), 1))
        return exact

    def _proposed(
        self, view: View, vector: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None, hints: Hints, total: int
    ) -> Hits | None:
        allowed = view.live if mask is None else mask & view.live
        breadth = candidates(len(view.codes), 0, k)[0]
        while True:
            proposal = self.proposals.propose(vector, breadth, self.prefix, hints)
            if proposal is None:
                return None
            near, later = (_inside(view, ids, allowed) for ids in (proposal.ids, proposal.later))
            slots = np.union1d(near, later)
            raw = view.raw(vector, slots)
            slots, raw = slots[~np.isnan(raw)], raw[~np.isnan(raw)]
            ended = len(proposal.ids) < breadth
            enough = len(near) >= max(2 * k, breadth / 4) or (ended and len(near) >= k)
            if enough or (ended and len(slots) == total > 0):
                order = np.lexsort((view.ids[slots], -raw))[:k]
                return view.hits(slots[order], raw[order], Plan("source", len(later), breadth, len(near)))
            if ended and total:
                # What it may not know yet is not what it missed.
                self.proposals.audited(min(len(slots) / min(k, total), 1.0))
            if ended or 4 * breadth > max(_WIDEST, 16 * k):
                return None
            breadth *= 4


def _inside(view: View, ids: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    slots = np.unique(view.slots(ids))
    slots = slots[slots >= 0]
    kept: NDArray[np.int64] = slots[allowed[slots]]
    return kept
