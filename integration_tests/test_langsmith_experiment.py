"""An evaluation in LangSmith, over loopback: what the real client sends, and what becomes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from langchain_core.messages import BaseMessage
from langsmith import Client

from integration_tests.json_server import HOST, JSONMixIn, running
from langchain_memlayer import ConfigurationError, ExtractionError, Memory
from langchain_memlayer.evaluation import Conversation, Dataset, Judge, Question, Verdict, evaluate_memory
from langchain_memlayer.evaluation.judging import ANSWERING
from langchain_memlayer.testing import DeterministicEmbeddings, ScriptedChatModel
from langchain_memlayer.types import Turn

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

NOW = "2025-01-01T00:00:00+00:00"
TENANT = str(uuid4())
BOATS = Dataset(
    "boats",
    tuple(
        Conversation(
            name,
            (Turn(f"{name} has a boat called {boat}.", id=f"{name}:1", session_id="s1"), Turn("Ahoy!", id=f"{name}:2")),
            (
                Question(f"{name}-1", f"What is the boat of {name} called?", "names", boat, (f"{name}:1",), ("s1",)),
                Question(f"{name}-2", f"Who is the cook of {name}?", "never", "It is not said.", answerable=False),
            ),
        )
        for name, boat in (("Nils", "Möwe"), ("Vera", "Halcyon"))
    ),
)


class LangSmith(ThreadingHTTPServer):
    """As much of LangSmith as an experiment needs, kept in memory."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), Handler)
        self.lock = threading.Lock()
        self.datasets: list[dict[str, Any]] = []
        self.examples: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.feedback: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.unknown: list[str] = []
        self.secrets: set[str | None] = set()
        self.refuses = False

    def get(self, path: str, query: dict[str, list[str]]) -> Any:
        if path == "/info":
            limits = {"scale_up_qsize_trigger": 1000, "scale_up_nthreads_limit": 4, "scale_down_nempty_trigger": 4}
            sizes = {"size_limit": 100, "size_limit_bytes": 20_000_000}
            return {"batch_ingest_config": {"use_multipart_endpoint": True, **limits, **sizes}}
        if path == "/datasets":
            return [one for one in self.datasets if one["name"] in query.get("name", [])]
        if path == "/examples":
            start = int(query.get("offset", ["0"])[0])
            return self.examples[start : start + int(query["limit"][0])]
        if path == "/sessions":
            return self.experiments
        [found] = [one for one in (*self.datasets, *self.experiments) if one["id"] == path.split("/")[-1]]
        return found

    def post(self, path: str, body: Any) -> Any:
        if path == "/datasets":
            self.datasets.append({**body, "id": str(uuid4()), "created_at": NOW, "tenant_id": TENANT})
            return self.datasets[-1]
        if path == "/examples/bulk":
            new = [{"id": str(uuid4()), "created_at": NOW, "modified_at": NOW, **one} for one in body]
            self.examples += new
            return new
        if path == "/sessions":
            self.experiments.append({"id": str(uuid4()), "tenant_id": TENANT, **body})
            return self.experiments[-1]
        if path == "/feedback":
            self.feedback.append(body)
            return {**body, "created_at": NOW, "modified_at": NOW}
        raise LookupError(path)

    def patch(self, path: str, body: Any) -> Any:
        [found] = [one for one in self.experiments if one["id"] == path.split("/")[-1]]
        found.update((name, value) for name, value in body.items() if value is not None)
        return found

    def take(self, head: bytes, body: bytes) -> None:
        for part in message_from_bytes(head + body).get_payload():
            kind, run_id, *field = part.get_param("name", header="Content-Disposition").split(".")
            value = json.loads(part.get_payload(decode=True))
            if kind == "feedback":
                self.feedback.append(value)
            else:
                self.runs.setdefault(run_id, {}).update({field[0]: value} if field else value)


class Handler(JSONMixIn, BaseHTTPRequestHandler):
    server: LangSmith

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.answer(lambda: self.server.get(url.path, parse_qs(url.query)))

    def do_POST(self) -> None:
        body = self.read()
        if self.path == "/runs/multipart":
            self.answer(
                lambda: self.server.take(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode(), body)
            )
        else:
            self.answer(lambda: self.server.post(urlsplit(self.path).path, json.loads(body)))

    def do_PATCH(self) -> None:
        body = self.read()
        self.answer(lambda: self.server.patch(urlsplit(self.path).path, json.loads(body)))

    def answer(self, make: Any) -> None:
        with self.server.lock:
            self.server.secrets.add(self.headers["x-api-key"])
            try:
                status, value = (401, {}) if self.server.refuses else (200, make())
            except (LookupError, ValueError):
                self.server.unknown.append(self.path)
                status, value = 404, {}
        self.send(status, json.dumps(value).encode())


@pytest.fixture
def langsmith(monkeypatch: pytest.MonkeyPatch) -> Iterator[LangSmith]:
    monkeypatch.setenv("LANGSMITH_DISABLE_RUN_COMPRESSION", "true")
    server = LangSmith()
    with running(server):
        yield server


@pytest.fixture
def client(langsmith: LangSmith) -> Iterator[Client]:
    made = Client(f"http://{HOST}:{langsmith.server_port}", api_key="key-7")
    yield made
    made.cleanup()


def memory() -> Memory:
    return Memory(":memory:", model=None, embeddings=DeterministicEmbeddings())


def chat(messages: list[BaseMessage]) -> Any:
    if messages[0].text == ANSWERING:
        return "Möwe"
    given = json.loads(messages[1].text)
    return {"reason": "compared", "verdict": "correct" if given["reference"] in given["answer"] else "wrong"}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_experiment_has_examples_runs_and_feedback(langsmith: LangSmith, client: Client, concurrency: int) -> None:
    model = ScriptedChatModel(replies=chat)
    result = evaluate_memory(memory, BOATS, model=model, k=1, langsmith=client, concurrency=concurrency)

    [dataset] = langsmith.datasets
    assert dataset["name"].startswith("boats ")
    assert sorted(one["inputs"]["question_id"] for one in langsmith.examples) == [
        "Nils-1",
        "Nils-2",
        "Vera-1",
        "Vera-2",
    ]
    first = next(one for one in langsmith.examples if one["inputs"]["question_id"] == "Nils-1")
    assert first["outputs"] == {"answer": "Möwe", "evidence": ["Nils:1"], "sessions": ["s1"]}
    assert first["metadata"]["category"] == "names"

    [experiment] = langsmith.experiments
    assert experiment["name"] == result.experiment
    assert experiment["reference_dataset_id"] == dataset["id"]
    assert experiment["extra"]["metadata"]["answering model"] == "ScriptedChatModel"

    roots = {one["reference_example_id"]: one for one in langsmith.runs.values() if one.get("reference_example_id")}
    assert roots.keys() == {one["id"] for one in langsmith.examples}
    nils = roots[first["id"]]
    assert nils["outputs"]["answer"] == "Möwe"
    assert nils["outputs"]["memories"][0]["turns"] == ["Nils:1"]
    children = [one for one in langsmith.runs.values() if one.get("parent_run_id") == nils["id"]]
    children.sort(key=lambda one: one["start_time"])
    # One hit leaves room in the budget of tokens, so the search is widened; the model is asked once.
    assert [(one["name"], one["inputs"].get("limit")) for one in children] == [
        ("Memory.search", 1),
        ("Memory.search", 2),
        ("answering", None),
    ]
    assert sum(prompt[0].text == ANSWERING for prompt in model.prompts) == 4
    assert model.calls == 4 * 3
    adds = [one for one in langsmith.runs.values() if one["name"] == "Memory.add"]
    assert len(adds) == 4
    assert not [one for one in adds if one.get("parent_run_id")]

    given = {(one["run_id"], one["key"]): one.get("score") for one in langsmith.feedback}
    assert given[nils["id"], "recall@1"] == 1
    assert given[nils["id"], "correct (strict)"] == 1
    never = next(one for one in langsmith.examples if one["inputs"]["question_id"] == "Nils-2")
    assert (roots[never["id"]]["id"], "recall@1") not in given
    assert given[roots[never["id"]]["id"], "correct (lenient)"] == 0
    assert langsmith.secrets == {"key-7"}
    assert langsmith.unknown == []


def test_an_experiment_finds_what_a_local_evaluation_finds(langsmith: LangSmith, client: Client) -> None:
    model = ScriptedChatModel(replies=chat)
    there = evaluate_memory(memory, BOATS, model=model, k=1, langsmith=client)
    here = evaluate_memory(memory, BOATS, model=model, k=1)
    assert (there.recall, there.accuracy, there.usage) == (here.recall, here.accuracy, here.usage)
    assert [one.question.id for one in there.outcomes] == [one.question.id for one in here.outcomes]
    assert f"LangSmith experiment: {there.experiment}" in there.to_markdown()


def test_the_same_questions_are_the_same_dataset_and_what_is_missing_is_added(
    langsmith: LangSmith, client: Client
) -> None:
    evaluate_memory(memory, BOATS, k=1, langsmith=client)
    del langsmith.examples[2]
    by_hand = {"id": str(uuid4()), "created_at": NOW, "inputs": {"question": "mine"}, "outputs": {}}
    langsmith.examples.append({**by_hand, "dataset_id": langsmith.datasets[0]["id"]})
    result = evaluate_memory(memory, BOATS, k=1, langsmith=client)
    assert (len(langsmith.datasets), len(langsmith.examples), len(langsmith.experiments)) == (1, 5, 2)
    assert len(result.outcomes) == 4
    evaluate_memory(memory, BOATS.sampled(2), k=1, langsmith=client)
    assert len(langsmith.datasets) == 2


def test_a_memory_that_fails_is_raised_and_no_partial_result_given(client: Client) -> None:
    class Failing(Memory):
        def search(self, query: str, **rest: Any) -> Any:
            raise ExtractionError("the disk is gone")

    with pytest.raises(ExtractionError, match="the disk is gone"):
        evaluate_memory(lambda: Failing(":memory:", model=None, embeddings=None), BOATS, langsmith=client)


def test_a_judge_that_fails_in_a_way_nobody_foresaw_is_raised(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(self: Judge, question: str, reference: str, answer: str) -> Verdict:
        raise ZeroDivisionError("no verdicts")

    monkeypatch.setattr(Judge, "judge", judge)
    with pytest.raises(ZeroDivisionError, match="no verdicts"):
        evaluate_memory(memory, BOATS, model=ScriptedChatModel(replies=chat), langsmith=client)


def test_a_key_that_is_refused_is_an_error_that_says_what_to_set(langsmith: LangSmith, client: Client) -> None:
    langsmith.refuses = True
    with pytest.raises(ConfigurationError, match="LANGSMITH_API_KEY"):
        evaluate_memory(memory, BOATS, langsmith=client)


def test_a_local_evaluation_asks_langsmith_nothing(langsmith: LangSmith, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_ENDPOINT", f"http://{HOST}:{langsmith.server_port}")
    monkeypatch.setenv("LANGSMITH_API_KEY", "key-8")
    evaluate_memory(memory, BOATS, model=ScriptedChatModel(replies=chat))
    assert (langsmith.secrets, langsmith.runs) == (set(), {})
