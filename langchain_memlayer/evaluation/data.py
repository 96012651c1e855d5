"""What an evaluation asks: conversations, and questions about them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.types import Extraction, Fact, Turn


@dataclass(frozen=True, slots=True)
class Observation:
    """A fact about `name` that came with a conversation, in place of one that a chat model would extract.

    `turns` are the ids of those that it comes from.
    """

    text: str
    turns: tuple[str, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a conversation.

    Attributes:
        id: Its id, unique in the dataset.
        category: What kind of question it is, in the dataset's words.
        answer: The answer that is expected; for an unanswerable question, why there is none.
        evidence: Ids of the turns that answer it.
        sessions: Ids of the sessions that answer it.
        time: When it is asked, when known.
        answerable: Whether the conversation answers it; recall of others is not measured.
    """

    id: str
    text: str
    category: str
    answer: str
    evidence: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    time: datetime | None = None
    answerable: bool = True


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said, oldest first, and what is asked about it. Each turn has an id of its own.

    Attributes:
        id: Its id, unique in the dataset.
        turns: Those of one session stand together.
        observations: Facts that came with it.
    """

    id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]
    observations: tuple[Observation, ...] = ()

    def by_session(self) -> Iterator[tuple[str | None, list[Turn]]]:
        """The sessions, each with its id and its turns."""
        for session, turns in groupby(self.turns, key=lambda turn: turn.session_id):
            yield session, list(turns)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Conversations with questions.

    Attributes:
        unresolved: Evidence that names no turn of its conversation, as the file has it; it counts nowhere.
    """

    name: str
    conversations: tuple[Conversation, ...]
    unresolved: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _distinct("conversations", (conversation.id for conversation in self.conversations))
        _distinct("questions", (question.id for question in self.questions))

    @property
    def questions(self) -> list[Question]:
        """All questions, in the order of their conversations."""
        return [question for conversation in self.conversations for question in conversation.questions]

    def sampled(self, count: int) -> Dataset:
        """The dataset with `count` of its questions, evenly spread, and the conversations that they are about."""
        if count < 1:
            raise InvalidInput(f"At least one question is needed, got {count}.")
        questions = self.questions
        total = len(questions)
        if count >= total:
            return self
        return self._with({questions[place * total // count].id for place in range(count)})

    def _with(self, kept: Collection[str]) -> Dataset:
        conversations = []
        for conversation in self.conversations:
            questions = tuple(question for question in conversation.questions if question.id in kept)
            if questions:
                conversations.append(replace(conversation, questions=questions))
        return replace(self, conversations=tuple(conversations))


class ObservedFacts:
    """An extractor that gives the observations of a conversation, each when its turns are added.

    Example:
        ```python
        def memory(conversation):
            return Memory(":memory:", model=None, extractor=ObservedFacts(conversation.observations))
        ```
    """

    def __init__(self, observations: Iterable[Observation]) -> None:
        self._observations = tuple(observations)

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        """The observations of `turns`."""
        places = {turn.id: place for place, turn in enumerate(turns)}
        return Extraction(tuple(self._facts(places)))

    def _facts(self, places: Mapping[str | None, int]) -> Iterator[Fact]:
        for observation in self._observations:
            cited = tuple(sorted(places[turn] for turn in observation.turns if turn in places))
            if cited:
                yield Fact(observation.text, cited, name=observation.name)


def _distinct(what: str, ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise InvalidInput(f"Two {what} have the id {shown(one)}; give each an id of its own.")
        seen.add(one)
