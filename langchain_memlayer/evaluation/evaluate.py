"""`evaluate_memory`: how much comes back of what answers a question, and how many answers are correct."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from contextvars import copy_context
from threading import Lock
from typing import TYPE_CHECKING, Any

from langchain_memlayer.arguments import checked_count
from langchain_memlayer.errors import ConfigurationError, InvalidInput, shown
from langchain_memlayer.evaluation.asker import Asker, EvaluationPlan, Memories, MemoryFactory, model_name
from langchain_memlayer.evaluation.data import Dataset
from langchain_memlayer.evaluation.judging import VERSIONS, Answerer, Judge, Leniency
from langchain_memlayer.evaluation.results import EvaluationResult
from langchain_memlayer.progress import bars

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langsmith import Client


def evaluate_memory(
    memory_factory: MemoryFactory,
    dataset: Dataset,
    *,
    model: BaseChatModel | str | None = None,
    judge: BaseChatModel | str | None = None,
    judges: Sequence[Leniency] = ("lenient", "strict"),
    k: int | Iterable[int] = (5, 10, 20, 50),
    max_tokens: int = 1000,
    beside: bool = False,
    concurrency: int = 4,
    langsmith: bool | Client = False,
    progress: bool = True,
) -> EvaluationResult:
    """Ask a memory the questions of a dataset, and measure what comes back.

    Each conversation is remembered session by session in a memory of its own, under its id as `user_id`. Without a
    model only the recall is measured; with one, each question is also answered from the best memories, and the answers
    are judged.

    Args:
        memory_factory: Makes a memory for each conversation, which it may take as its argument; the memory is closed
            after the conversation's last question. A memory in a folder keeps what it was told.
        dataset: What `load_locomo` or `load_longmemeval` gives, or one of your own.
        model: The chat model that answers, or "provider:model"; None measures recall only.
        judge: The chat model that judges; by default the one that answers.
        judges: How it is asked: `lenient`, `strict` or both.
        k: At how many of the first memories to measure; the largest is also how many are searched for.
        max_tokens: How many tokens of these memories an answer is given from, and `recall@Nt` counts.
        beside: Whether to measure plain systems, too, and by how much the memory is better than each: the cosine alone,
            BM25, reciprocal rank fusion, a mix of .6 and .4, and the latest turns. The turns are embedded once more.
        concurrency: How many questions are asked at once, when there is a model to wait for.
        langsmith: False runs locally and sends no trace; True, or a client, makes it an experiment in LangSmith.
        progress: Whether bars show how far it is, on a terminal or in a notebook.

    Raises:
        InvalidInput: a dataset without questions, or settings that cannot be used.
        ConfigurationError: a judge without a model, a name that means nothing, or a LangSmith that refuses.
        ExtractionError: the model failed at each of the first questions; single failures are counted.

    Example:
        ```python
        data = load_locomo("locomo10.json")
        result = evaluate_memory(lambda: Memory(":memory:", model=None), data)
        print(result.to_markdown())
        ```
    """
    from langchain_memlayer.config import resolve_model
    from langchain_memlayer.engine.answers import token_counter
    from langchain_memlayer.evaluation.usage import UsageMeter

    if not dataset.questions:
        raise InvalidInput(f"{dataset.name} has no questions to ask.")
    chat, grader = resolve_model(model), resolve_model(judge)
    if chat is None and grader is not None:
        raise ConfigurationError("judge= judges answers, so there must be a model= that gives them.")
    grader = grader or chat
    workers = checked_count(concurrency, "concurrency", 1) if chat is not None else 1
    cuts = _cuts(k)
    turns = sum(len(conversation.turns) for conversation in dataset.conversations if conversation.questions)
    with _bars(progress, turns, len(dataset.questions)) as advanced:
        plan = EvaluationPlan(
            k=cuts,
            max_tokens=checked_count(max_tokens, "max_tokens", 1),
            count=token_counter(chat),
            answerer=None if chat is None else Answerer(chat),
            judges=[] if grader is None else [Judge(grader, name) for name in _judge_names(judges)],
            beside=beside,
            meters={name: UsageMeter() for name in ("remembering", "answering", "judging")},
            advanced=advanced,
        )
        settings = _settings(plan, chat, grader, dataset, workers)
        with closing(Memories(memory_factory, dataset, plan)) as memories:
            asker = Asker(memories, dataset, plan)
            if langsmith is False:
                experiment = None
                _run_locally(asker, workers)
            else:
                from langchain_memlayer.evaluation.experiment import run_experiment

                experiment = run_experiment(asker, dataset, settings, workers, None if langsmith is True else langsmith)
            outcomes = asker.outcomes()
    return EvaluationResult(
        dataset=dataset.name,
        settings={**memories.settings, **settings},
        outcomes=outcomes,
        usage={name: meter.usage for name, meter in plan.meters.items()},
        turns=memories.turns,
        seconds=memories.seconds,
        unresolved=dataset.unresolved,
        experiment=experiment,
    )


@contextmanager
def _bars(wanted: bool, turns: int, questions: int) -> Iterator[Callable[[str, int], None]]:
    """What is told how many turns more are remembered, or questions asked, by any thread."""
    totals, done, lock = {"remembering": turns, "asking": questions}, Counter[str](), Lock()
    with bars(hidden=not wanted) as show:

        def advanced(what: str, count: int) -> None:
            with lock:
                done[what] += count
                show(what, done[what], totals[what])

        yield advanced


def _run_locally(asker: Asker, workers: int) -> None:
    from langsmith.run_helpers import tracing_context

    def one(key: str) -> None:
        if asker.failure is None:
            asker.ask(key)
            asker.judge(key)

    with tracing_context(enabled=False):
        pool = ThreadPoolExecutor(workers)
        try:
            for done in as_completed([pool.submit(copy_context().run, one, key) for key in asker.questions]):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _settings(plan: EvaluationPlan, chat: Any, grader: Any, dataset: Dataset, workers: int) -> dict[str, str]:
    from langchain_memlayer import __version__

    prompts = ["answering", *(judge.leniency for judge in plan.judges)] if chat is not None else []
    return {
        "answering model": model_name(chat),
        "judge": model_name(grader),
        "prompts": ", ".join(VERSIONS[name] for name in prompts) or "none",
        "k": ", ".join(map(str, plan.k)),
        "max_tokens": str(plan.max_tokens),
        "questions at once": str(workers),
        "conversations": str(len(dataset.conversations)),
        "questions": str(len(dataset.questions)),
        "langchain_memlayer": __version__,
    }


def _cuts(k: Any) -> tuple[int, ...]:
    given = [k] if isinstance(k, int) else list(k) if isinstance(k, Iterable) else []
    if not given:
        raise InvalidInput(f"k must be a number of memories or several, such as (5, 10), got {shown(k)}.")
    return tuple(sorted({checked_count(one, "k", 1) for one in given}))


def _judge_names(judges: Any) -> list[Any]:
    given = [judges] if isinstance(judges, str) else list(judges)
    if not given:
        raise InvalidInput("judges must name at least one of lenient and strict.")
    return list(dict.fromkeys(given))
