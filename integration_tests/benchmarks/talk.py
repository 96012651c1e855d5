"""Generated conversations: a language whose word frequencies fall as a real one's do, topics, speakers and sessions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

DIMS = 384
TOPICS = 200
SESSION = 20
SPEAKERS = ("Ann", "Bert", "Clara", "Dora", "Emil", "Fred")

_VOCABULARY = 20_000
_COMMON = 400
_TOPIC_WORDS = 120
_NOISE = 0.5
_BEGIN = datetime(2023, 1, 1, tzinfo=UTC)
_LITTLE = (
    "the",
    "and",
    "to",
    "a",
    "of",
    "in",
    "is",
    "it",
    "that",
    "was",
    "for",
    "on",
    "with",
    "as",
    "at",
    "be",
    "this",
)
_ASKING = ("When did {name} tell about {words}?", "What was said of {words}?", "Where did {name} see {words}?",
           "Why is {words} so important to {name}?", "Who was there with {words}?")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """One turn: what, by whom, when, and about which topic."""

    text: str
    name: str
    time: datetime
    topic: int


class Language:
    """Made-up words: frequent ones that everybody uses, and for each topic its own."""

    def __init__(self, seed: int = 3) -> None:
        rng = random.Random(seed)
        made = ("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(4, 9))) for _ in range(_VOCABULARY))
        self.words = list(dict.fromkeys(made))
        self._common = self.words[:_COMMON]
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(_COMMON)))
        self._own = [rng.sample(self.words[_COMMON:], _TOPIC_WORDS) for _ in range(TOPICS)]
        self._own_weights = list(accumulate(1 / (rank + 3) for rank in range(_TOPIC_WORDS)))

    def own(self, rng: random.Random, topic: int, k: int) -> list[str]:
        """Words of a topic."""
        return rng.choices(self._own[topic], cum_weights=self._own_weights, k=k)

    def common(self, rng: random.Random, k: int) -> list[str]:
        """Words that everybody uses."""
        return rng.choices(self._common, cum_weights=self._weights, k=k)

    def sentence(self, rng: random.Random, topic: int) -> str:
        """Six to eighteen words: two fifths say nothing, a third belongs to the topic."""
        length = rng.randint(6, 18)
        own = max(1, length // 3)
        little = 2 * length // 5
        words = self.own(rng, topic, own) + rng.choices(_LITTLE, k=little) + self.common(rng, length - own - little)
        rng.shuffle(words)
        return " ".join(words) + ("?" if rng.random() < 0.1 else ".")

    def question(self, rng: random.Random, about: Said) -> str:
        """A question with three words of what was said, or of its topic, and one that everybody uses."""
        words = [word for word in about.text.rstrip(".?").split() if word not in _LITTLE]
        chosen = rng.sample(words, min(2, len(words))) + self.own(rng, about.topic, 1) + self.common(rng, 1)
        return rng.choice(_ASKING).format(name=about.name, words=" ".join(chosen))

    def small_talk(self, rng: random.Random) -> str:
        """A question of nothing but frequent words."""
        return f"What about {' '.join(self.common(rng, 6))}?"


def sessions(language: Language, *, seed: int) -> Iterator[list[Said]]:
    """One session after another, of two speakers about one topic, some days apart."""
    rng = random.Random(seed)
    day = _BEGIN
    while True:
        day += timedelta(hours=rng.randint(5, 60))
        topic, names = rng.randrange(TOPICS), rng.sample(SPEAKERS, 2)
        yield [
            Said(language.sentence(rng, topic), names[turn % 2], day + timedelta(minutes=turn), topic)
            for turn in range(SESSION)
        ]


class WordEmbeddings(Embeddings):
    """A text's vector is the mean of its words', which lie around their topic's centre: synonyms are near.

    Queries are kept, so that a search spends nothing on them when it is measured.
    """

    def __init__(self, language: Language, *, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((TOPICS, DIMS), dtype=np.float32)
        self._place = {word: place for place, word in enumerate(language.words)}
        self._vectors = 0.3 * rng.standard_normal((len(language.words) + 1, DIMS), dtype=np.float32)
        for topic, words in enumerate(language._own):
            places = [self._place[word] for word in words]
            self._vectors[places] = centres[topic] + _NOISE * rng.standard_normal((len(words), DIMS), dtype=np.float32)
        self._asked: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._one(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        if text not in self._asked:
            self._asked[text] = self._one(text)
        return self._asked[text]

    def _one(self, text: str) -> list[float]:
        words = "".join(char if char.isalpha() else " " for char in text).lower().split()
        places = [self._place.get(word, len(self._place)) for word in words]
        vector: NDArray[np.float32] = self._vectors[places].mean(axis=0)
        numbers: list[float] = (vector / np.linalg.norm(vector)).tolist()
        return numbers
