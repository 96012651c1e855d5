"""Finding facts beside the caller: one thread works through the calls that the journal has as pending."""

from __future__ import annotations

import logging
import os
import threading

from langchain_memlayer.engine.steps import run
from langchain_memlayer.engine.writing import Engine
from langchain_memlayer.errors import MemLayerError

_LOGGER = logging.getLogger(__name__)


class Background:
    """The pending calls of one folder, done in order by a thread that lives while there are some.

    What is pending is in the journal: it outlives the process, and whoever opens the folder next goes on with it.

    Args:
        engine: Does the work.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: MemLayerError | None = None
        self._news = False
        self._closing = False
        self._pid = os.getpid()

    def wake(self) -> None:
        """See to it that what is pending is being done."""
        if self._pid != os.getpid():
            # The parent's thread and locks are of no use in a child of a fork.
            self._changed, self._thread, self._pid = threading.Condition(), None, os.getpid()
        with self._changed:
            self._news = True
            if self._thread is None and not self._closing:
                self._error = None
                self._thread = threading.Thread(target=self._work, name="memlayer-extraction", daemon=True)
                self._thread.start()

    def resume(self) -> None:
        """Go on with what an earlier process left pending."""
        if self._pending():
            self.wake()

    def _pending(self) -> list[int]:
        with self._engine.journal.read() as reader:
            return [note.id for note in reader.unread()]

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is pending; False when that took longer than `timeout` seconds.

        Raises:
            ExtractionError: the model failed; its turns are kept, and their facts are tried again by the next call.
        """
        self.resume()
        with self._changed:
            done = self._changed.wait_for(lambda: self._thread is None, timeout)
            error, self._error = self._error, None
        if error is not None:
            raise error
        return done

    def close(self) -> None:
        """Let the call that is being worked on end; the others stay pending."""
        if self._pid != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: self._thread is None)

    def _work(self) -> None:
        failed: set[int] = set()
        try:
            while True:
                with self._changed:
                    self._news = False
                waiting = [pending for pending in self._pending() if pending not in failed]
                with self._changed:
                    # What was told of since has to be looked for again: whoever told it relies on this thread.
                    if self._closing or not (waiting or self._news):
                        self._thread = None
                        self._changed.notify_all()
                        return
                for pending in waiting[:1]:
                    try:
                        run(self._engine.finish(pending))
                    except MemLayerError as error:
                        _LOGGER.warning("The facts of some turns could not be found (%s); they stay pending.", error)
                        self._error = error
                        failed.add(pending)
        finally:
            with self._changed:
                # By now the place may be that of the next worker.
                if self._thread is threading.current_thread():
                    self._thread = None
                    self._changed.notify_all()
