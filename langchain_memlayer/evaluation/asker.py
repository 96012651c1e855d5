"""One question at a time: remember its conversation, recall, answer, judge. What both ways of evaluating share."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from langchain_memlayer.errors import ExtractionError, InvalidInput
from langchain_memlayer.evaluation.data import Conversation, Dataset, Question
from langchain_memlayer.evaluation.judging import Answerer, Judge, Verdict
from langchain_memlayer.evaluation.metrics import within
from langchain_memlayer.evaluation.plain import PlainSystems
from langchain_memlayer.evaluation.results import Hit, Outcome, measures

if TYPE_CHECKING:
    from langchain_memlayer.engine.answers import TokenCounter
    from langchain_memlayer.evaluation.usage import UsageMeter
    from langchain_memlayer.memory import Memory

MemoryFactory = Callable[..., "Memory"]
"""Gives a memory for one conversation; it may take the conversation."""

GIVES_UP = 5
"""When the models have failed at so many questions without one success, it is not the questions."""


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """How questions are asked.

    Attributes:
        k: How many first hits the measures look at, ascending; the last is how many are asked for.
        max_tokens: The tokens of memories that an answer is given from, and that `recall@Nt` looks at.
        count: Counts tokens.
        meters: Count the calls of models, by what they are for.
        advanced: Told how many turns more are remembered, or questions asked.
    """

    k: tuple[int, ...]
    max_tokens: int
    count: TokenCounter
    answerer: Answerer | None
    judges: Sequence[Judge]
    beside: bool
    meters: Mapping[str, UsageMeter]
    advanced: Callable[[str, int], None]


class Memories:
    """The memory of each conversation, from its first question to its last. Threads may share it."""

    def __init__(self, factory: MemoryFactory, dataset: Dataset, plan: EvaluationPlan) -> None:
        self._factory = _taking_conversation(factory)
        self._plan = plan
        self._lock = threading.Lock()
        self._remembered = {one.id: _Remembered(one) for one in dataset.conversations}
        self.settings: dict[str, str] = {}
        self.seconds = 0.0
        self.turns = 0

    @contextmanager
    def of(self, conversation: str) -> Iterator[tuple[Memory, _Remembered]]:
        """The memory of a conversation, and what is known of that, while one question is asked."""
        remembered = self._remembered[conversation]
        try:
            with remembered.lock:
                if remembered.memory is None:
                    remembered.memory = self._remember(remembered.conversation)
                memory = remembered.memory
                if self._plan.beside and remembered.plain is None:
                    remembered.plain = PlainSystems(remembered.conversation, memory.internals.indexes.embedder)
            yield memory, remembered
        finally:
            with remembered.lock:
                remembered.questions_left -= 1
                if not remembered.questions_left:
                    remembered.close()

    def close(self) -> None:
        """Close what is still open."""
        for remembered in self._remembered.values():
            with remembered.lock:
                remembered.close()

    def _remember(self, conversation: Conversation) -> Memory:
        from langchain_memlayer.memory import Memory

        memory = self._factory(conversation)
        if not isinstance(memory, Memory):
            raise InvalidInput(
                f"memory_factory must give a `Memory` for each conversation, got {type(memory).__name__}."
            )
        with ExitStack() as undone:
            undone.callback(memory.close)
            start = perf_counter()
            with self._plan.meters["remembering"].counting(), _outside_of_runs():
                for session, turns in conversation.by_session():
                    memory.add(turns, user_id=conversation.id, session_id=session)
                    self._plan.advanced("remembering", len(turns))
            with self._lock:
                self.seconds += perf_counter() - start
                self.turns += len(conversation.turns)
                self.settings = _memory_settings(memory)
            undone.pop_all()
        return memory


class Asker:
    """Asks the questions of a dataset; `failure` is what made it give up, or None. Threads may share it."""

    def __init__(self, memories: Memories, dataset: Dataset, plan: EvaluationPlan) -> None:
        self._memories = memories
        self._plan = plan
        self._lock = threading.Lock()
        self._outcomes: dict[str, Outcome] = {}
        self._failed = 0
        self._succeeded = False
        self.failure: BaseException | None = None
        self.questions: dict[str, tuple[str, Question]] = {
            question.id: (conversation.id, question)
            for conversation in dataset.conversations
            for question in conversation.questions
        }

    def ask(self, key: str) -> Outcome:
        """Recall, and answer from what came back; without verdicts yet."""
        with self._end_on_failure():
            outcome = self._recall_and_answer(*self.questions[key])
        with self._lock:
            self._outcomes[key] = outcome
        return outcome

    def judge(self, key: str) -> Outcome:
        """Judge the answer to a question that was asked."""
        outcome = self._outcomes[key]
        with self._end_on_failure():
            if self._plan.answerer is not None:
                with self._plan.meters["judging"].counting():
                    verdicts = {str(judge.leniency): _verdict(judge, outcome) for judge in self._plan.judges}
                outcome = replace(outcome, verdicts=verdicts)
            with self._lock:
                self._outcomes[key] = outcome
            self._plan.advanced("asking", 1)
            self._give_up_in_time(outcome)
        return outcome

    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of the questions, in the order of the dataset."""
        if self.failure is not None:
            raise self.failure
        return tuple(self._outcomes[key] for key in self.questions)

    def _recall_and_answer(self, conversation: str, question: Question) -> Outcome:
        with self._memories.of(conversation) as (memory, remembered):
            limit, seconds = self._plan.k[-1], 0.0
            while True:
                start = perf_counter()
                results = memory.search(question.text, user_id=conversation, limit=limit, reference_time=question.time)[
                    "results"
                ]
                seconds = seconds or perf_counter() - start
                hits = tuple(self._hit(result["memory"], result["sources"], remembered) for result in results)
                # The budget of tokens may take more hits than are counted.
                if len(hits) < limit or sum(hit.tokens for hit in hits) > self._plan.max_tokens:
                    break
                limit *= 2
            beside = dict(self._plain_measures(question, remembered))
        outcome = Outcome(
            conversation,
            question,
            hits[: self._plan.k[-1]],
            seconds,
            measures(question, hits, k=self._plan.k, max_tokens=self._plan.max_tokens),
            beside=beside,
        )
        if self._plan.answerer is None:
            return outcome
        shown = results[: within([hit.tokens for hit in hits], self._plan.max_tokens)]
        try:
            with self._plan.meters["answering"].counting():
                return replace(outcome, answer=self._plan.answerer.answer(question, shown))
        except ExtractionError as error:
            return replace(outcome, error=str(error))

    def _hit(self, text: str, turns: Sequence[str], remembered: _Remembered) -> Hit:
        told_in = dict.fromkeys(session for turn in turns if (session := remembered.sessions.get(turn)) is not None)
        return Hit(text, tuple(turns), tuple(told_in), self._plan.count(text))

    def _plain_measures(self, question: Question, remembered: _Remembered) -> Iterator[tuple[str, dict[str, float]]]:
        """The measures of plain systems, by their names."""
        if remembered.plain is None:
            return
        turns = remembered.conversation.turns
        every = [self._hit(turn.text, [turn.id] if turn.id is not None else [], remembered) for turn in turns]
        for name, order in remembered.plain.rankings(question.text):
            hits = [every[place] for place in order.tolist()]
            yield name, measures(question, hits, k=self._plan.k, max_tokens=self._plan.max_tokens)

    def _give_up_in_time(self, outcome: Outcome) -> None:
        with self._lock:
            self._succeeded = self._succeeded or not outcome.failed
            self._failed += outcome.failed
            hopeless = not self._succeeded and self._failed >= GIVES_UP
        if hopeless and self.failure is None:
            why = outcome.error or next(iter(outcome.verdicts.values())).reason
            raise ExtractionError(
                f"The chat model failed at each of the first {self._failed} questions, so the evaluation stopped. The "
                f"last time: {why}"
            )

    @contextmanager
    def _end_on_failure(self) -> Iterator[None]:
        """What fails inside ends the evaluation; LangSmith by itself would only log it."""
        try:
            yield
        except BaseException as error:
            self.failure = self.failure or error
            raise


class _Remembered:
    """A conversation that is or will be remembered, and how many of its questions are left."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.questions_left = len(conversation.questions)
        self.sessions = {turn.id: turn.session_id for turn in conversation.turns if turn.id is not None}
        self.lock = threading.Lock()
        self.memory: Memory | None = None
        self.plain: PlainSystems | None = None

    def close(self) -> None:
        if self.memory is not None:
            self.memory.close()
            self.memory = self.plain = None


def _memory_settings(memory: Memory) -> dict[str, str]:
    """What a memory works with, for the report."""
    extractor = memory.internals.extractor
    return {
        "embeddings": memory.embedder or "none",
        "facts": "none" if extractor is None else type(extractor).__name__,
        "memory's model": model_name(memory.model),
    }


def model_name(model: Any) -> str:
    """What a chat model calls itself."""
    if model is None:
        return "none"
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or type(model).__name__)


def _verdict(judge: Judge, outcome: Outcome) -> Verdict:
    if outcome.answer is None:
        return Verdict("error", "There is no answer.")
    return judge.judge(outcome.question.text, outcome.question.answer, outcome.answer)


def _taking_conversation(factory: MemoryFactory) -> Callable[[Conversation], Any]:
    """The factory as a function of the conversation."""
    if not callable(factory):
        raise InvalidInput(
            "memory_factory must be a function that gives a fresh memory, such as "
            f"`lambda: Memory(':memory:')`, got {type(factory).__name__}."
        )
    needed = [
        one
        for one in inspect.signature(factory).parameters.values()
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        raise InvalidInput(
            f"memory_factory may take the conversation; it asks for {', '.join(one.name for one in needed)}."
        )
    return factory if needed else lambda _: factory()


@contextmanager
def _outside_of_runs() -> Iterator[None]:
    """What is traced inside belongs to no question: a conversation is remembered for all of them."""
    from langsmith.run_helpers import get_tracing_context, tracing_context

    context = get_tracing_context()
    client = context["parent"].client if context["parent"] is not None else context["client"]
    with tracing_context(enabled=context["enabled"], client=client, parent=False):
        yield
