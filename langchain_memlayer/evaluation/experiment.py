"""An evaluation as an experiment in LangSmith: questions as examples and runs, measures and verdicts as feedback."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from langchain_memlayer.errors import ConfigurationError, MemLayerError
from langchain_memlayer.evaluation.asker import Asker
from langchain_memlayer.evaluation.data import Dataset, Question
from langchain_memlayer.threads import PrivateLoop

if TYPE_CHECKING:
    from uuid import UUID

    from langsmith import Client
    from langsmith.schemas import Example, Run

_SHOWN = 300


def run_experiment(
    asker: Asker, dataset: Dataset, settings: Mapping[str, str], workers: int, client: Client | None
) -> str:
    """Ask all questions as runs of one experiment, and give its name.

    The dataset is uploaded when LangSmith does not have it yet; its name follows from its questions, so that the same
    questions are always the same dataset.
    """
    from langsmith.run_trees import get_cached_client

    client = client or get_cached_client()

    async def memory(inputs: dict[str, Any]) -> dict[str, Any]:
        if asker.failure is not None:
            raise MemLayerError("The evaluation has stopped at an earlier question.")
        outcome = await asyncio.to_thread(asker.ask, inputs["question_id"])
        memories = [asdict(hit) for hit in outcome.hits]
        return {"answer": outcome.answer, "error": outcome.error, "memories": memories, "measures": outcome.measures}

    # LangSmith's client sends the feedback of evaluators behind their backs: `evaluate` loses some at its end, and
    # `aevaluate` does not wait for it. So these send their own.
    def tell(run: Run, key: str, **given: Any) -> None:
        client.create_feedback(run.id, key, session_id=project.id, start_time=run.start_time, **given)

    async def recall(run: Run, outputs: dict[str, Any] | None) -> dict[str, Any]:
        for key, value in (outputs or {}).get("measures", {}).items():
            await asyncio.to_thread(tell, run, key, score=value)
        return {"results": []}

    async def verdicts(run: Run, inputs: dict[str, Any]) -> dict[str, Any]:
        # LangSmith evaluates failed runs too; what made one fail is raised when all are through.
        judged = {} if asker.failure else (await asyncio.to_thread(asker.judge, inputs["question_id"])).verdicts
        for name, verdict in judged.items():
            feedback = {"score": verdict.score, "value": verdict.label, "comment": verdict.reason}
            await asyncio.to_thread(tell, run, f"correct ({name})", **feedback)
        return {"results": []}

    evaluators: list[Any] = [recall, verdicts]
    with _refusals():
        examples = _examples(client, dataset)
        name = f"memlayer-{dataset.name}-{uuid4().hex[:8]}"
        project = client.create_project(name, metadata=dict(settings), reference_dataset_id=examples[0].dataset_id)
        PrivateLoop().run(
            client.aevaluate(memory, data=examples, evaluators=evaluators, experiment=project, max_concurrency=workers)
        )
        client.flush()
    return name


@contextmanager
def _refusals() -> Iterator[None]:
    """The errors of LangSmith's client as one of ours."""
    from langsmith.utils import LangSmithError

    try:
        yield
    except LangSmithError as error:
        raise ConfigurationError(
            f"LangSmith refused, or could not be reached ({type(error).__name__}: {str(error)[:_SHOWN]}). Set "
            "LANGSMITH_API_KEY and LANGSMITH_ENDPOINT, pass a client, or evaluate locally with langsmith=False."
        ) from error


def _examples(client: Client, dataset: Dataset) -> list[Example]:
    """The examples of a dataset in LangSmith; what it lacks is uploaded."""
    rows = [_example(question) for question in dataset.questions]
    digest = hashlib.blake2b(orjson.dumps(rows, option=orjson.OPT_SORT_KEYS), digest_size=4).hexdigest()
    name = f"{dataset.name} {digest}"
    if client.has_dataset(dataset_name=name):
        record = client.read_dataset(dataset_name=name)
    else:
        record = client.create_dataset(name, description=f"{len(rows)} questions about what was said.")
    wanted = {row["inputs"]["question_id"]: row for row in rows}
    uploaded = _listed(client, record.id, wanted)
    missing = [row for key, row in wanted.items() if key not in uploaded]
    if missing:
        client.create_examples(dataset_id=record.id, examples=missing)
        uploaded = _listed(client, record.id, wanted)
    return list(uploaded.values())


def _listed(client: Client, dataset: UUID, wanted: Collection[str]) -> dict[str, Example]:
    """The examples that are questions of ours, by their ids; others were added by hand."""
    listed = ((str((one.inputs or {}).get("question_id")), one) for one in client.list_examples(dataset_id=dataset))
    return {key: one for key, one in listed if key in wanted}


def _example(question: Question) -> dict[str, Any]:
    return {
        "inputs": {
            "question_id": question.id,
            "question": question.text,
            "time": None if question.time is None else question.time.isoformat(),
        },
        "reference_outputs": {
            "answer": question.answer,
            "evidence": list(question.evidence),
            "sessions": list(question.sessions),
        },
        "metadata": {"category": question.category, "answerable": question.answerable},
    }
