"""Reading beside the caller: one thread works through the notes that are due, and tries again what failed."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from langchain_memlayer.engine.read import Engine
from langchain_memlayer.errors import ExtractionError, MemLayerError
from langchain_memlayer.steps import run
from langchain_memlayer.types import Unread

if TYPE_CHECKING:
    from langsmith.run_trees import RunTree

_LOGGER = logging.getLogger(__name__)

_LONGEST_PAUSE = 60.0
_MOST_FAILURES = 8
"""After so many failures in a row that are not of one note (the journal cannot be read), the thread gives up."""


class Background:
    """The notes of one folder, read in order by a thread that lives while there are some to be tried.

    The notes are in the journal: they outlive the process, and whoever opens the folder next goes on with them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start()
        self._closing = False

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._news = False
        self._hurried: set[int] = set()
        self._error: MemLayerError | None = None
        self._above: dict[int, RunTree] = {}
        self._pid = os.getpid()

    def _restart_after_fork(self) -> None:
        """See to it that thread and locks are this process's own: those of a parent are of no use after a fork."""
        if self._pid != os.getpid():
            self._start()

    def wake(self, note: int | None = None, above: RunTree | None = None) -> None:
        """See to it that what is due is read; of a note that was made just now, as part of the run `above`."""
        self._restart_after_fork()
        with self._changed:
            if self._closing:
                return
            if note is not None and above is not None:
                self._above[note] = above
            self._news = self._busy = True
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="memlayer-reading", daemon=True)
                self._thread.start()

    def resume(self) -> None:
        """Go on with what an earlier process left unread."""
        with self._engine.journal.read() as reader:
            waits = reader.next_unread(-1, owed=not self._engine.reads) is not None
        if waits:
            self.wake()

    def flush(self, timeout: float | None = None) -> bool:
        """Try everything now that is not set aside or being read, and wait for it; False when that took too long.

        Raises:
            MemLayerError: a reading failed since the last `flush`; its turns are kept, and are tried again.
        """
        idle = {note.id for note in self._notes() if _is_idle(note)}
        self._restart_after_fork()
        with self._changed:
            self._hurried |= idle
        self.resume()
        with self._changed:
            done = self._changed.wait_for(lambda: not self._busy, timeout)
            error, self._error = self._error, None
        if error is not None:
            raise error
        return done

    def close(self) -> None:
        """Let the note that is being read be read to its end; the others stay unread."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._thread is None)

    def _next(self) -> tuple[list[Unread], float | None]:
        """The notes to read now, else the seconds until the next is due, else neither."""
        with self._changed:
            hurried = set(self._hurried)
        now, owed = self._engine.journal.now(), not self._engine.reads
        # Not all that wait: each that fails, or is told, would cost as much as there are.
        notes = self._notes(due=None if hurried else now)
        due = [note for note in notes if note.next_at <= now or (note.id in hurried and _is_idle(note))]
        self._hurried.difference_update(hurried.difference(note.id for note in due))
        if due:
            return due, None
        with self._engine.journal.read() as reader:
            after = reader.next_unread(now, owed=owed)
        return [], None if after is None else (after - now) / 1_000_000

    def _notes(self, due: int | None = None) -> list[Unread]:
        with self._engine.journal.read() as reader:
            return reader.unread(set_aside=False, due=due, owed=not self._engine.reads)

    def _work(self) -> None:
        failures = 0
        while True:
            pause: float | None = None
            try:
                with self._changed:
                    self._news = False
                    closing = self._closing
                notes, pause = ([], None) if closing else self._next()
                for note in notes:
                    if not self._closing:
                        self._read(note)
                        failures = 0
                if notes:
                    continue
            except BaseException as error:  # noqa: BLE001 - the outermost of its thread: whatever it is, flush() tells it
                self._failed(error)
                failures += 1
                pause = None if failures == _MOST_FAILURES else min(2.0**failures, _LONGEST_PAUSE)
            with self._changed:
                # What was told of since has to be looked for again: whoever told it relies on this thread.
                if self._news and not failures and not self._closing:
                    continue
                self._busy = False
                self._changed.notify_all()
                if pause is None or self._closing:
                    self._thread = None
                    return
                self._changed.wait_for(lambda: self._news or self._closing, min(pause, _LONGEST_PAUSE))
                self._busy = True

    def _read(self, note: Unread) -> None:
        self._hurried.discard(note.id)
        if not self._engine.claim(note):
            return
        try:
            run(self._engine.read_in_background(note, self._above.pop(note.id, None)))
        except MemLayerError as error:
            # The note itself says when it is tried again.
            self._failed(error)
        except BaseException as error:
            if not isinstance(error, Exception):
                # What only threads of the caller's may be ended by: here it is a failure like others.
                self._engine.postpone(note, error)
            raise

    def _failed(self, error: BaseException) -> None:
        # Not what it says: a provider's message may quote the conversation.
        _LOGGER.warning("Some turns could not be read (%s); they are kept, and tried again.", type(error).__name__)
        if not isinstance(error, MemLayerError):
            failure = ExtractionError(f"Reading beside the caller failed ({type(error).__name__}); it is tried again.")
            failure.__cause__ = error
            error = failure
        with self._changed:
            self._error = error


def _is_idle(note: Unread) -> bool:
    """Whether nobody reads a note just now."""
    return not note.attempts or note.reason is not None
