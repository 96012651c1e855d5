"""Hints that another process committed: LISTEN in a thread of its own. Nothing depends on them."""

from __future__ import annotations

import logging
import os
import selectors
import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from langchain_memlayer.journal.postgres_address import Address

_LOGGER = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_CLOSING_SECONDS = 1.0


class Hints:
    """Hears of the commits of other processes, on one connection beside the pool.

    A hint says who sent it and nothing more. What was heard while it was being told comes to one more call; what was
    missed, because the server was restarted or a pooler does not pass it on, changes no answer.

    Args:
        address: Where the journal is.
        store_id: Which journal of that database.
        told: Called in the thread that listens.
    """

    def __init__(self, address: Address, store_id: str, told: Callable[[], None]) -> None:
        self.channel = f"memlayer_{store_id.replace('-', '')}"
        self.sender = uuid4().hex
        self._address = address
        self._told = told
        self._closing = threading.Event()
        self._waking, self._wake = os.pipe()
        # Kept, so that a forked child never forgets it: that could end the parent's connection.
        self._db: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._work, name="memlayer-hints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a thread that waits for a server to answer ends when it did."""
        self._closing.set()
        os.write(self._wake, b"x")
        self._thread.join(_CLOSING_SECONDS)
        if not self._thread.is_alive():
            os.close(self._waking)
            os.close(self._wake)

    def _work(self) -> None:
        wait = _FIRST_WAIT
        while not self._closing.is_set():
            try:
                with psycopg.connect(**self._address.settings, autocommit=True) as db:
                    self._db = db
                    db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self.channel)))
                    wait = _FIRST_WAIT
                    self._listen(db)
            except psycopg.OperationalError as error:
                _LOGGER.debug("No hints for now (%s).", type(error).__name__)
                self._closing.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            except psycopg.Error as error:
                _LOGGER.info("There are no hints of what other hosts write (%s).", type(error).__name__)
                return

    def _listen(self, db: psycopg.Connection[Any]) -> None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(db.fileno(), selectors.EVENT_READ)
            waiting.register(self._waking, selectors.EVENT_READ)
            while not self._closing.is_set():
                waiting.select()
                if self._closing.is_set():
                    return
                db.pgconn.consume_input()
                heard = set()
                while (hint := db.pgconn.notifies()) is not None:
                    heard.add(hint.extra.decode())
                if heard - {self.sender}:
                    self._told()
