"""The mirror: a foreign vector store as an index, to which what was committed is brought.

The journal's events are the outbox: its setting `outbox:<area>` is the position up to which the store was brought. A
store that is down delays this and loses nothing, and what it was not brought yet is scored from the journal's vectors.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import orjson
from numpy.typing import NDArray

from langchain_memlayer.backends.base import (
    ITEM,
    OWN_KEYS,
    SCOPE,
    STORE,
    ForeignStore,
    Patience,
    Point,
    Scalar,
    guarded,
    is_flat,
)
from langchain_memlayer.backends.generic import GenericAdapter
from langchain_memlayer.backends.proposals import Proposals
from langchain_memlayer.errors import JournalClosed, JournalError, MemLayerError, VectorStoreError
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.cache_reader import VectorRow
from langchain_memlayer.journal.database import DAMAGED, Area, embedder_key, outbox_key, points_key, purge_key, sound

_LOGGER = logging.getLogger(__name__)

_EVENTS = 512
_SAMPLE = 16
_MOST_POINTS = 10_000_000
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_CLOSING_SECONDS, _ENDING_SECONDS = 4.0, 1.0


@dataclass(frozen=True, slots=True)
class State:
    """The setting's value.

    Attributes:
        kind: The backend's name.
        position: The journal position up to which the store was brought.
        probed: Whether it was found able to keep what it is given.
    """

    kind: str
    position: int = 0
    probed: bool = False

    @classmethod
    def of(cls, text: str) -> State:
        """Read the setting; by a damaged one, or none, the store is another one, which is brought everything."""
        try:
            state = cls(**orjson.loads(text))
        except DAMAGED:
            return cls("")
        is_sound = [type(part) for part in (state.kind, state.position, state.probed)] == [str, int, bool]
        return state if is_sound and state.position >= 0 else cls("")

    def __str__(self) -> str:
        return orjson.dumps(asdict(self)).decode()


class Mirror:
    """Brings one area of a journal to a foreign store, in a thread that lives while there is something to bring.

    Attributes:
        proposals: What asks the store for candidates.
        error: Why the last attempt failed, or None.
    """

    def __init__(self, journal: Journal, store: ForeignStore, area: Area) -> None:
        self.store = store
        self._patience = Patience(store)
        self.error: MemLayerError | None = None
        self._journal = journal
        self._area: Area = area
        self._key = outbox_key(area)
        self._points = Points(journal, area)
        self.proposals = Proposals(
            journal, store, area, position=self._position, behind=self.wake, verified=lambda: self._verified
        )
        self._checked = 0
        self._start()
        with journal.write(self._key) as tx:
            text = tx.meta(self._key)
            if text is None or State.of(text).kind != store.kind:
                tx.set_meta(self._key, str(State(store.kind)))
        journal.after_commit.append(self.wake)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._news = False
        self._closing = False
        self._verified = False

    def check(self, dims: int) -> None:
        """Compare the store's collection with the vectors; when it does not answer now, that is done later.

        Raises:
            ConfigurationError: the collection is for other vectors.
        """
        try:
            self._patience.ask(lambda: self._check(dims))
        except VectorStoreError as error:
            _LOGGER.warning("%s", error)

    def _check(self, dims: int) -> None:
        if not dims or dims == self._checked:
            return
        with guarded(self.store):
            self.store.check(dims)
            state = self._state()
            if isinstance(self.store, GenericAdapter) and not state.probed and state.kind == self.store.kind:
                # Before the first memory is there: what could not be removed again would stay.
                self.store.probe(dims)
                with self._journal.write(self._key) as tx:
                    tx.swap_meta(self._key, str(state), str(replace(state, probed=True)))
        self._checked, self._verified = dims, False

    # -- bringing -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """See to it that what was committed is being brought."""
        if self._pid != os.getpid():
            # The parent's thread and locks are of no use in a child of a fork.
            self._start()
        with self._changed:
            self._news = True
            if self._closing:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="memlayer-mirror", daemon=True)
                self._thread.start()

    def flush(self, timeout: float | None = None) -> bool:
        """Bring everything now; False when that took longer than `timeout` seconds.

        Raises:
            VectorStoreError: the store failed; it is tried again by itself.
        """
        self.proposals.awake()
        with self._changed:
            self.error = None
        self.wake()
        with self._changed:
            # A worker that waits after a failure is not waited for longer than this one attempt.
            self._changed.notify_all()
            ended = self._changed.wait_for(lambda: self._thread is None or self.error is not None, timeout)
            if self.error is not None:
                raise self.error
        return ended

    def bring_soon(self) -> None:
        """Bring everything before going on, if the store allows it; what was forgotten should not lie there longer."""
        try:
            done = self.flush(_CLOSING_SECONDS)
        except MemLayerError:
            done = False
        if not done and self._state().position:
            _LOGGER.warning(
                "What was forgotten still lies in the vector store (%s), which does not answer; it is removed there as "
                "soon as it does. `memlayer doctor` tells when.",
                self.store.kind,
            )

    def close(self) -> None:
        """Stop, after an attempt to bring what is left; the next opening goes on with what could not be.

        A store that hangs is waited for five seconds in all: first to finish, then to end the request it is at.
        """
        if self.wake in self._journal.after_commit:
            self._journal.after_commit.remove(self.wake)
        if self._pid != os.getpid():
            return
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None or self.error is not None, _CLOSING_SECONDS)
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is None, _ENDING_SECONDS)

    def _work(self) -> None:
        wait = _FIRST_WAIT
        try:
            while True:
                with self._changed:
                    if self._closing or not self._news:
                        self._thread = None
                        self._changed.notify_all()
                        return
                    self._news = False
                try:
                    self._bring()
                    wait = _FIRST_WAIT
                except JournalClosed:
                    return
                except MemLayerError as error:
                    wait = self._pause(error, wait)
                except BaseException as error:  # noqa: BLE001 - the outermost one of a thread
                    wait = self._pause(
                        VectorStoreError(
                            f"What was committed could not be brought to the vector store ({self.store.kind}): "
                            f"{type(error).__name__}. The journal has everything, and it is tried again."
                        ),
                        wait,
                    )
        finally:
            with self._changed:
                # By now the place may be that of the next worker.
                if self._thread is threading.current_thread():
                    self._thread = None
                    self._changed.notify_all()

    def _pause(self, error: MemLayerError, wait: float) -> float:
        """Wait after a failure, until someone asks for another attempt or `wait` seconds; gives the next wait."""
        if wait == _FIRST_WAIT:
            _LOGGER.warning("%s", error)
        with self._changed:
            self._news, self._verified, self._checked = True, False, 0
            self.error = error
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or self.error is None, wait)
        return min(2 * wait, _LONGEST_WAIT)

    def _bring(self) -> None:
        """Bring the store up to the journal's last commit."""
        self._check(self._points.dims())
        if not self._verified:
            self._verify()
            self._verified = True
        self._purge()
        while not self._closing:
            with self._journal.read(snapshot=True) as reader:
                text, embedder = reader.meta(self._key) or "", reader.meta(embedder_key(self._area))
                state = State.of(text)
                if state.kind != self.store.kind:
                    self.proposals.displaced()
                    return
                position, touched = reader.outgoing(self._area, state.position, most=_EVENTS)
                rows = reader.vector_rows(self._area, touched)
            if position == state.position:
                with self._changed:
                    self.error = None
                return
            if rows and not state.position:
                self._tell_of_others(rows[0])
            self._deliver(touched, rows)
            with self._journal.write(self._key) as tx:
                # After a `reembed` all is brought anew; the position may then be that of before by chance.
                if tx.meta(embedder_key(self._area)) == embedder:
                    tx.swap_meta(self._key, text, str(replace(state, position=position)))
            # When another process was quicker, the loop goes on from where that one is: what was written here may be
            # older than what it wrote, so the same rows are brought once more.
            if self._state().position != position:
                with self._journal.read(snapshot=True) as reader:
                    rows = reader.vector_rows(self._area, touched)
                self._deliver(touched, rows)

    def _tell_of_others(self, row: VectorRow) -> None:
        """Say so when the first points of this journal come to those of another: its memories may be expected here."""
        vector = next(self._points.of(row)).vector

        def newest(where: dict[str, Scalar]) -> int:
            return int(max(self.store.search(vector, _SAMPLE, where, None) or (), default=-1))

        try:
            anyones = self._patience.ask(lambda: newest({}))
            ours = self._patience.ask(lambda: newest({STORE: self._journal.store_id}))
        except VectorStoreError:
            return
        if anyones >= 0 > ours:
            _LOGGER.warning(
                "The vector store (%s) has points of another journal. Several may share it, and each finds its own "
                "memories only; if you expected those that are there, open the folder in which they were written.",
                self.store.kind,
            )

    def _deliver(self, touched: Sequence[int], rows: Sequence[VectorRow]) -> None:
        if rows:
            self._check(rows[0].dims)
        points = [point for row in rows for point in self._points.of(row)]
        kept = {point.id for point in points}
        gone = [known for known in self._points.known_ids(touched) if known not in kept]
        # More points are noted before they are there, fewer when the others are gone: none is ever lost sight of.
        self._points.remember(rows, touched, max)
        with guarded(self.store):
            # In this order: some stores are made by the first point, and nothing can be removed before.
            if points:
                self.store.upsert(points)
            if gone:
                self.store.delete(gone)
        self._points.remember(rows, touched, lambda now, noted: now)

    def _purge(self) -> None:
        """Tell the store of rows whose events are gone, because the journal was emptied."""
        while rows := self._purges():
            with guarded(self.store):
                for start in range(0, len(rows), _EVENTS):
                    self.store.delete(self._points.known_ids(rows[start : start + _EVENTS]))
            with self._journal.write(self._key) as tx:
                # The journal may have been emptied once more meanwhile; then all of them are told again.
                if tx.purges(self._area) == rows:
                    for item in rows:
                        tx.drop_meta(points_key(item))
                    tx.drop_meta(purge_key(self._area))

    def _purges(self) -> list[int]:
        with self._journal.read() as reader:
            return reader.purges(self._area)

    def _verify(self) -> None:
        """Start from the beginning when the store does not have what it was brought: it is another, or was emptied."""
        text = str(state := self._state())
        if not state.position or state.kind != self.store.kind:
            return
        with self._journal.read() as reader:
            sample = reader.newest(self._area, most=_SAMPLE, until=state.position)
        ids = self._points.known_ids(sample)
        with guarded(self.store):
            present = self.store.present(ids)
        if present is not None and not present.issuperset(ids):
            _LOGGER.warning("The vector store (%s) lacks what it was given; it is filled anew.", state.kind)
            with self._journal.write(self._key) as tx:
                tx.swap_meta(self._key, text, str(replace(state, position=0)))

    def _position(self) -> int | None:
        state = self._state()
        return state.position if state.kind == self.store.kind else None

    def _state(self) -> State:
        return State.of(self._journal.meta(self._key) or "")


class Points:
    """The points of one area of a journal."""

    def __init__(self, journal: Journal, area: Area) -> None:
        self._journal = journal
        self._area: Area = area
        try:
            self._ids = uuid.UUID(journal.store_id)
        except ValueError as error:
            raise JournalError(f"The id of the store in {journal.where} is damaged: restore a backup.") from error

    def dims(self) -> int:
        """The size of the vectors; 0 while there are none."""
        recorded = self._journal.meta(embedder_key(self._area))
        return 0 if recorded is None else int(orjson.loads(recorded)["dims"])

    def id(self, item: int, number: int = 0) -> str:
        """The id of the point of a row's vector: the same again for the same."""
        return str(uuid.uuid5(self._ids, f"{self._area}:{item}:{number}"))

    def known_ids(self, items: Sequence[int]) -> list[str]:
        """The ids of the points that some rows may have in the store."""
        noted = self._noted(items)
        return [self.id(item, number) for item in items for number in range(noted[item])]

    def _noted(self, items: Sequence[int]) -> dict[int, int]:
        """How many points each of some rows may have."""
        if self._area != "items":
            return dict.fromkeys(items, 1)
        with self._journal.read() as reader:
            noted = reader.metas(list(map(points_key, items)))
        counts = dict(sound(noted.items(), lambda row: (row[0], range(_MOST_POINTS).index(int(row[1])))))
        return {item: counts.get(points_key(item), 1) for item in items}

    def of(self, row: VectorRow) -> Iterator[Point]:
        """The points of a row."""
        metadata = self._metadata(row)
        for number, vector in enumerate(self._vectors(row)):
            yield Point(self.id(row.id, number), vector, row.text, metadata)

    def remember(self, rows: Sequence[VectorRow], touched: Sequence[int], settle: Callable[[int, int], int]) -> None:
        """Note how many points a row has, where it is not one: all of them have to go when it does.

        Args:
            rows: Those of the touched rows that are live and have vectors.
            touched: The rows that changed.
            settle: Of the number now and the noted one, the one to note.
        """
        if self._area != "items":
            return
        counts = {row.id: len(row.vector_bytes) // (2 * row.dims) for row in rows}
        noted = self._noted(touched)
        settled = {item: settle(counts.get(item, 1), noted[item]) for item in touched}
        changed = {item: count for item, count in settled.items() if count != noted[item]}
        if changed:
            with self._journal.write(outbox_key(self._area)) as tx:
                for item, count in changed.items():
                    if count == 1:
                        tx.drop_meta(points_key(item))
                    else:
                        tx.set_meta(points_key(item), str(count))

    def _vectors(self, row: VectorRow) -> NDArray[np.float32]:
        return np.frombuffer(row.vector_bytes, "<f2").astype(np.float32).reshape(-1, row.dims)

    def _metadata(self, row: VectorRow) -> dict[str, Scalar]:
        given = orjson.loads(row.metadata) if row.metadata else {}
        own = dict(zip(("user_id", "agent_id", "run_id"), row.ids, strict=True))
        flat = {name: value for name, value in given.items() if name not in OWN_KEYS and is_flat(value)}
        return {
            **flat,
            **{name: value for name, value in own.items() if value is not None},
            ITEM: row.id,
            STORE: self._journal.store_id,
            SCOPE: row.path,
            "memlayer_id": row.key,
            "memlayer_kind": row.kind,
        }
