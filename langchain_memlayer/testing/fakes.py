"""Fakes that make a test repeatable: embeddings without a model, a clock that stands still, ids in order."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import threading
from datetime import UTC, datetime, timedelta

from langchain_core.embeddings import Embeddings

_WORD = re.compile(r"\w+")
_FEATURES = 4


class DeterministicEmbeddings(Embeddings):
    """Embeddings from hashed words: no model, no network, the same on every machine.

    Each word sets a few signed coordinates (the hashing trick of Weinberger et al. 2009), so texts that share words
    have a higher cosine similarity than texts that do not. Upper and lower case are the same. Every call is recorded.

    Args:
        dims: The size of the vectors.

    Attributes:
        batches: The texts of each `embed_documents` call.
        queries: The text of each `embed_query` call.

    Example:
        ```python
        embeddings = DeterministicEmbeddings(dims=64)
        store = MemLayerStore(":memory:", index={"dims": 64, "embed": embeddings})
        store.put(("docs",), "a", {"text": "the blue door"})
        assert len(embeddings.batches) == 1
        ```
    """

    def __init__(self, dims: int = 64) -> None:
        if dims < 1:
            raise ValueError(f"dims must be at least 1, got {dims}.")
        self.dims = dims
        self.batches: list[list[str]] = []
        self.queries: list[str] = []

    @property
    def texts(self) -> list[str]:
        """All texts that `embed_documents` was given, in order."""
        return [text for batch in self.batches for text in batch]

    def reset(self) -> None:
        """Forget the recorded calls."""
        self.batches.clear()
        self.queries.clear()

    def vector(self, text: str) -> list[float]:
        """The unit vector of a text; nothing is recorded."""
        numbers = [0.0] * self.dims
        for word in _WORD.findall(text.casefold()) or [text]:
            digest = _digest(word)
            for k in range(_FEATURES):
                part = int.from_bytes(digest[4 * k : 4 * k + 4], "little")
                numbers[(part >> 1) % self.dims] += 1.0 if part & 1 else -1.0
        length = math.sqrt(sum(x * x for x in numbers))
        if not length:  # the signs of a text's words may cancel out
            numbers[int.from_bytes(_digest(text), "little") % self.dims] = length = 1.0
        return [x / length for x in numbers]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One unit vector for each text."""
        self.batches.append(list(texts))
        return [self.vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a query: the one that the same text has as a document."""
        self.queries.append(text)
        return self.vector(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like `embed_documents`, recorded in the same place."""
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Like `embed_query`, recorded in the same place."""
        return self.embed_query(text)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4 * _FEATURES).digest()


class FrozenClock:
    """A clock that moves only when told to. Calling it gives the time (aware UTC).

    Args:
        start: The first time it gives; must be aware.
        tick: What it moves forward by itself after each call.
    """

    def __init__(self, start: datetime = datetime(2025, 1, 1, tzinfo=UTC), *, tick: timedelta = timedelta()) -> None:
        if start.tzinfo is None:
            raise ValueError("start must be an aware datetime: give it a tzinfo, such as datetime.UTC.")
        self._now = start.astimezone(UTC)
        self._tick = tick
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        """The present time."""
        with self._lock:
            now = self._now
            self._now += self._tick
            return now

    def advance(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0, microseconds: float = 0
    ) -> datetime:
        """Move the clock (backwards when negative); returns the new time."""
        step = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=microseconds)
        with self._lock:
            self._now += step
            return self._now


class SequentialIds:
    """Ids that look like random UUIDs and sort in the order they were made. Calling it gives the next one.

    Args:
        start: The number of the first id.
    """

    def __init__(self, start: int = 1) -> None:
        self._numbers = itertools.count(start)

    def __call__(self) -> str:
        """The next id."""
        return f"00000000-0000-4000-8000-{next(self._numbers):012x}"
