"""Fakes that make a test repeatable: embeddings without a model, a clock that stands still, ids in order."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class DeterministicEmbeddings(Embeddings):
    """Embeddings from hashed words: no model, no network, the same on every machine.

    The vector of a text is the sum of its words' random signs, which a hash gives (the random projection of Achlioptas
    2003). The cosine similarity of two texts is then the share of words that they have in common, with a standard error
    of `1 / sqrt(dims)`. Upper and lower case are the same. Every call is recorded.

    Args:
        dims: The size of the vectors. Below 64 texts without a common word may well look alike.

    Attributes:
        batches: The texts of each `embed_documents` call.
        queries: The text of each `embed_query` call.

    Example:
        ```python
        embeddings = DeterministicEmbeddings(dims=256)
        store = MemLayerStore(":memory:", index={"dims": 256, "embed": embeddings})
        store.put(("docs",), "a", {"text": "the blue door"})
        assert len(embeddings.batches) == 1
        ```
    """

    def __init__(self, dims: int = 256) -> None:
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
        words = _WORD.findall(text.casefold()) or [text]
        total = np.sum([_signs(word, self.dims) for word in words], axis=0)
        if not total.any():  # the signs of the words may cancel out
            total = _signs(text, self.dims)
        vector: list[float] = (total / np.linalg.norm(total)).tolist()
        return vector

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


def _signs(word: str, dims: int) -> NDArray[Any]:
    digest = hashlib.shake_128(word.encode("utf-8", "surrogatepass")).digest(-(-dims // 8))
    return np.unpackbits(np.frombuffer(digest, np.uint8), count=dims) * 2.0 - 1.0


class FrozenClock:
    """A clock that moves only when told to, for `Memory(clock=...)`. Calling it gives the time (aware UTC).

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
    """Ids in the order they were made, which look like random UUIDs, for `Memory(new_id=...)`. Calling it gives one.

    Args:
        start: The number of the first id.
    """

    def __init__(self, start: int = 1) -> None:
        self._numbers = itertools.count(start)

    def __call__(self) -> str:
        """The next id."""
        return f"00000000-0000-4000-8000-{next(self._numbers):012x}"
