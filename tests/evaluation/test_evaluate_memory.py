import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from evaluation_kit import locomo, longmemeval, memory, write
from langchain_core.messages import AIMessage, BaseMessage
from langsmith.run_helpers import tracing_context
from test_tracing import Recorder

from langchain_memlayer import ConfigurationError, ExtractionError, InvalidInput, Memory
from langchain_memlayer.evaluation import (
    Conversation,
    Dataset,
    ObservedFacts,
    Question,
    Usage,
    evaluate_memory,
    load_locomo,
    load_longmemeval,
)
from langchain_memlayer.evaluation.asker import GIVES_UP
from langchain_memlayer.evaluation.judging import ANSWERING, PROMPTS
from langchain_memlayer.evaluation.usage import UsageMeter
from langchain_memlayer.testing import DeterministicEmbeddings, ScriptedChatModel
from langchain_memlayer.types import Turn

USAGE = {"input_tokens": 100, "output_tokens": 5, "total_tokens": 105}
ANSWERS = {
    "What are Ilse's hives called?": "Juno and Bertha",
    "When was Tom stung?": "in April 2024",
    "Where are the hives, and what helps against stings?": "I do not know.",
}


@pytest.fixture
def bees(tmp_path: Path) -> Dataset:
    return load_locomo(write(tmp_path, locomo()))


def chat(messages: list[BaseMessage]) -> AIMessage:
    """Answers from the script; a lenient judge lets the date pass, a strict one does not."""
    system, human = messages
    if system.text == ANSWERING:
        return AIMessage(ANSWERS[human.text.rpartition("Question: ")[2]], usage_metadata=USAGE)
    given = json.loads(human.text)
    good = {"Juno and Bertha"} | ({"in April 2024"} if system.text == PROMPTS["lenient"] else set())
    verdict = {"reason": "so", "verdict": "correct" if given["answer"] in good else "wrong"}
    return AIMessage(json.dumps(verdict), usage_metadata=USAGE)


def many(count: int) -> Dataset:
    """A conversation with many questions."""
    turns = tuple(Turn(f"Number {n} is a prime suspect.", id=f"t{n}", session_id="s") for n in range(count))
    questions = tuple(Question(f"q{n}", f"Who is number {n}?", "who", "a suspect", (f"t{n}",)) for n in range(count))
    return Dataset("suspects", (Conversation("case", turns, questions),))


# -- recall -----------------------------------------------------------------------------------------------------------


def test_without_a_model_recall_is_measured_over_what_the_memory_gives(bees: Dataset):
    result = evaluate_memory(memory, bees, k=(1, 5))
    assert [one.question.id for one in result.outcomes] == [f"beekeepers-q{n}" for n in range(3)]
    assert (result.turns, result.accuracy, result.errors, result.experiment) == (5, {}, {}, None)
    assert all(one.answer is None and not one.verdicts and one.error is None for one in result.outcomes)
    # All five turns come back at five.
    assert result.recall["all"]["recall@5"].mean == 1.0
    assert (result.recall["all"]["recall@5"].count, result.recall["temporal"]["recall@5"].count) == (3, 1)
    called = result.outcomes[0]
    assert called.hits[0].turns == ("D1:1",)
    assert called.hits[0].sessions == ("session-1",)
    assert called.measures["recall@1"] == called.measures["MRR"] == 1.0
    assert result.outcomes[2].measures["recall@1"] <= 0.5


def test_the_recall_within_a_budget_of_tokens_is_the_same_for_any_k(bees: Dataset) -> None:
    few, many = (evaluate_memory(memory, bees, k=k, max_tokens=60) for k in (1, 50))
    shares = [[outcome.measures["recall@60t"] for outcome in result.outcomes] for result in (few, many)]
    assert shares[0] == shares[1]
    assert all(len(outcome.hits) == 1 for outcome in few.outcomes)


def test_plain_systems_are_measured_on_the_same_questions_when_asked_for(bees: Dataset) -> None:
    found = evaluate_memory(memory, bees, k=(1, 5), beside=True, progress=False)
    assert list(found.beside) == ["BM25", "dense", "RRF", "mix", "latest turns"]
    for name, row in found.beside.items():
        assert row.keys() == found.recall["all"].keys()
        theirs = fmean(one.beside[name]["recall@5"] for one in found.outcomes)
        assert row["recall@5"].mean == pytest.approx(found.recall["all"]["recall@5"].mean - theirs)
    # Five turns are all that there are.
    assert {row["recall@5"].mean for row in found.beside.values()} == {0.0}
    assert "| mix | +" in found.to_markdown()
    words = evaluate_memory(lambda: memory(embeddings=None), bees, beside=True, progress=False)
    assert list(words.beside) == ["BM25", "latest turns"]
    assert not evaluate_memory(memory, bees, progress=False).beside


def test_hits_are_those_of_memory_search(bees: Dataset):
    [conversation] = bees.conversations
    result = evaluate_memory(memory, bees, k=3)
    with memory() as other:
        for session, turns in conversation.by_session():
            other.add(
                [{"role": "user", "content": t.text, "id": t.id, "name": t.name, "timestamp": t.time} for t in turns],
                user_id=conversation.id,
                session_id=session,
            )
        for one in result.outcomes:
            hits = other.search(one.question.text, user_id=conversation.id, limit=3)["results"]
            assert [hit.text for hit in one.hits] == [hit["memory"] for hit in hits]


def test_observed_facts_stand_beside_the_turns_and_cite_them(bees: Dataset):
    opened: list[Memory] = []

    def factory(conversation: Conversation) -> Memory:
        opened.append(memory(extractor=ObservedFacts(conversation.observations)))
        return opened[-1]

    result = evaluate_memory(factory, bees, k=20)
    turns = {hit.text: hit.turns for hit in result.outcomes[0].hits}
    assert turns["Ilse's hives stand behind the chapel."] == ("D1:3",)
    # Each turn that tells something once: as itself, or as the fact that tells the same.
    cited = [turn for turns in turns.values() for turn in turns if turn != "D1:2"]
    assert sorted(cited) == ["D1:1", "D1:3", "D2:1", "D2:2"]
    assert result.settings["facts"] == "ObservedFacts"
    assert len(opened) == 1


def test_each_conversation_has_a_memory_of_its_own_that_is_closed_after_its_last_question(tmp_path: Path):
    data = load_longmemeval(write(tmp_path, longmemeval()))
    opened: list[Memory] = []
    open_at_once: list[int] = []
    asked: list[Any] = []

    class Watched(Memory):
        closed = False

        def search(self, query: str, **rest: Any) -> Any:
            asked.append(rest["reference_time"])
            return super().search(query, **rest)

        def close(self) -> None:
            super().close()
            self.closed = True

    def factory() -> Memory:
        opened.append(Watched(":memory:", model=None, embeddings=DeterministicEmbeddings()))
        open_at_once.append(sum(not one.closed for one in opened))  # type: ignore[attr-defined]
        return opened[-1]

    result = evaluate_memory(factory, data, k=(1, 10))
    assert open_at_once == [1, 1]
    assert asked == [question.time for question in data.questions]
    assert all(one.closed for one in opened)  # type: ignore[attr-defined]
    tea, dog = result.outcomes
    assert tea.measures["recall@1"] == 1.0
    assert tea.measures["session recall@1"] == 1.0
    assert dog.measures == {}
    assert result.turns == 5


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_answers_are_judged_twice_and_counted_by_category(bees: Dataset, concurrency: int):
    model = ScriptedChatModel(replies=chat)
    result = evaluate_memory(memory, bees, model=model, concurrency=concurrency)
    assert [one.answer for one in result.outcomes] == list(ANSWERS.values())
    assert result.accuracy["all"]["lenient"].mean == pytest.approx(2 / 3)
    assert result.accuracy["all"]["strict"].mean == pytest.approx(1 / 3)
    assert result.accuracy["temporal"]["lenient"].mean == 1.0
    assert result.accuracy["temporal"]["strict"].mean == 0.0
    assert result.errors == {"lenient": 0, "strict": 0}
    assert (result.usage["answering"].calls, result.usage["judging"].calls, result.usage["remembering"].calls) == (
        3,
        6,
        0,
    )
    assert (result.usage["judging"].input_tokens, result.usage["judging"].output_tokens) == (600, 30)
    assert model.calls == 9


def test_another_model_judges_when_there_is_one_and_one_judge_is_enough(bees: Dataset):
    model = ScriptedChatModel(replies=chat)
    judge = ScriptedChatModel(replies=lambda _: {"reason": "", "verdict": "correct"})
    result = evaluate_memory(memory, bees, model=model, judge=judge, judges=["strict"])
    assert (model.calls, judge.calls) == (3, 3)
    assert list(result.accuracy["all"]) == ["strict"]
    assert result.accuracy["all"]["strict"].mean == 1.0


def test_calls_of_the_memorys_own_model_are_counted_as_remembering(bees: Dataset):
    finder = ScriptedChatModel(replies=lambda _: AIMessage('{"facts": []}'))
    result = evaluate_memory(lambda: memory(model=finder), bees)
    assert finder.calls == 2
    assert (result.usage["remembering"].calls, result.usage["remembering"].uncounted) == (2, 2)
    assert result.usage["answering"].calls == 0


def test_only_calls_inside_are_counted_each_by_its_innermost_meter():
    model = ScriptedChatModel(replies=lambda _: AIMessage("hi", usage_metadata=USAGE))
    outer, inner = UsageMeter(), UsageMeter()
    model.invoke("before")
    with outer.counting():
        model.invoke("outer")
        with inner.counting():
            model.invoke("inner")
        model.invoke("outer again")
    model.invoke("after")
    assert outer.usage == Usage(calls=2, input_tokens=200, output_tokens=10)
    assert inner.usage == Usage(calls=1, input_tokens=100, output_tokens=5)


def test_an_answer_is_given_from_the_best_memories_within_the_budget(bees: Dataset):
    model = ScriptedChatModel(replies=chat)
    result = evaluate_memory(memory, bees, model=model, judges=["lenient"], max_tokens=12, concurrency=1)
    prompts = [messages[1].text for messages in model.prompts if messages[0].text == ANSWERING]
    for one, prompt in zip(result.outcomes, prompts, strict=True):
        assert one.hits[0].tokens <= 12 < sum(hit.tokens for hit in one.hits[:2])
        assert one.hits[0].text in prompt
        assert one.hits[1].text not in prompt


def test_an_unreadable_verdict_and_a_failed_answer_count_as_errors_and_as_not_correct(bees: Dataset):
    def troubled(messages: list[BaseMessage]) -> Any:
        if messages[0].text == ANSWERING:
            return TimeoutError("too slow") if "stung" in messages[1].text.splitlines()[-1] else "Juno"
        return "Hm." if messages[0].text == PROMPTS["strict"] else {"reason": "", "verdict": "correct"}

    result = evaluate_memory(memory, bees, model=ScriptedChatModel(replies=troubled))
    assert result.errors == {"lenient": 1, "strict": 3}
    assert result.accuracy["all"]["lenient"].mean == pytest.approx(2 / 3)
    assert result.accuracy["all"]["strict"].mean == 0.0
    assert {estimate.count for estimate in result.accuracy["all"].values()} == {3}
    stung = result.outcomes[1]
    assert (stung.answer, stung.verdicts["lenient"].reason) == (None, "There is no answer.")
    assert "too slow" in str(stung.error)
    assert "1 (lenient), 3 (strict)" in result.to_markdown()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_model_that_never_works_ends_the_evaluation_soon(concurrency: int):
    model = ScriptedChatModel(replies=lambda _: PermissionError("no such key"))
    with pytest.raises(ExtractionError, match=r"each of the first 5 questions.*no such key"):
        evaluate_memory(memory, many(40), model=model, concurrency=concurrency)
    assert GIVES_UP <= model.calls <= GIVES_UP + concurrency


def test_a_judge_that_never_works_ends_the_evaluation_soon():
    model = ScriptedChatModel(replies=lambda _: "Somebody.")
    judge = ScriptedChatModel(replies=lambda _: "Hm.")
    with pytest.raises(ExtractionError, match="no verdict"):
        evaluate_memory(memory, many(40), model=model, judge=judge, concurrency=1)
    assert model.calls == GIVES_UP


def test_failures_after_a_success_do_not_end_it():
    replies = iter(["Somebody.", *[TimeoutError("slow")] * 11])

    def one(messages: list[BaseMessage]) -> Any:
        return next(replies) if messages[0].text == ANSWERING else {"reason": "", "verdict": "correct"}

    result = evaluate_memory(memory, many(12), model=ScriptedChatModel(replies=one), concurrency=1)
    assert sum(one.error is not None for one in result.outcomes) == 11


def test_a_memory_that_fails_ends_it_and_everything_is_closed():
    opened: list[Memory] = []

    class Failing(Memory):
        closed = False

        def search(self, query: str, **rest: Any) -> Any:
            if "number 3" in query:
                raise RuntimeError("the disk is gone")
            return super().search(query, **rest)

        def close(self) -> None:
            self.closed = True
            super().close()

    def factory() -> Memory:
        opened.append(Failing(":memory:", model=None, embeddings=None))
        return opened[-1]

    with pytest.raises(RuntimeError, match="the disk is gone"):
        evaluate_memory(factory, many(9))
    assert [one.closed for one in opened] == [True]  # type: ignore[attr-defined]


def test_questions_are_asked_at_once_by_threads_that_end_with_it():
    # As many answers as threads: nobody is left to wait for others at the end.
    data, before = many(4), set(threading.enumerate())
    model = ScriptedChatModel(replies=lambda _: AIMessage("a suspect"), together=4)
    judge = ScriptedChatModel(replies=lambda _: AIMessage("correct"))
    result = evaluate_memory(memory, data, model=model, judge=judge, judges=["lenient"], concurrency=4)
    assert model.most_in_flight == 4
    assert set(threading.enumerate()) <= before
    assert [one.question for one in result.outcomes] == data.questions
    assert result.turns == 4


# -- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"k": 0}, InvalidInput, "k must be an integer of at least 1"),
        ({"k": ()}, InvalidInput, "k must be a number"),
        ({"k": "ten"}, InvalidInput, "k must be an integer"),
        ({"max_tokens": 0}, InvalidInput, "max_tokens"),
        ({"model": ScriptedChatModel(), "concurrency": 0}, InvalidInput, "concurrency"),
        ({"model": ScriptedChatModel(), "judges": ()}, InvalidInput, "judges"),
        ({"model": ScriptedChatModel(), "judges": ["harsh"]}, ConfigurationError, "lenient, strict"),
        ({"judge": ScriptedChatModel()}, ConfigurationError, "there must be a model="),
        ({"model": 3}, ConfigurationError, "model is of type int"),
        ({"memory_factory": 3}, InvalidInput, "memory_factory must be a function"),
        ({"memory_factory": lambda a, b: None}, InvalidInput, "it asks for a, b"),
        ({"memory_factory": lambda: None}, InvalidInput, "must give a `Memory`"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(bees: Dataset, settings: dict[str, Any], error: Any, why: str):
    given = {"memory_factory": memory, **settings}
    with pytest.raises(error, match=why):
        evaluate_memory(given.pop("memory_factory"), bees, **given)


# -- nothing leaves the machine ---------------------------------------------------------------------------------------


def test_a_local_evaluation_traces_nothing_even_where_tracing_is_on(bees: Dataset):
    client = Recorder()
    model = ScriptedChatModel(replies=chat)
    with tracing_context(enabled=True, client=client):
        evaluate_memory(lambda: memory(model=None), bees, model=model)
        assert client.__dict__["runs"].by_id == {}
        with memory() as other:
            other.search("hives", user_id="a")
    assert len(client.__dict__["runs"].by_id) == 1


def test_the_package_stays_light_and_the_evaluation_imports_no_memory_backend():
    code = (
        "import sys, langchain_memlayer\n"
        "assert not [name for name in sys.modules if name.startswith('langchain_memlayer.evaluation')]\n"
        "import langchain_memlayer.evaluation\n"
        "print([name for name in ('faiss', 'networkx', 'langsmith', 'rich', 'langchain_core', 'openai') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_report_has_tables_with_intervals_settings_calls_and_latency(bees: Dataset):
    result = evaluate_memory(memory, bees, model=ScriptedChatModel(replies=chat), k=(1, 5))
    report = result.to_markdown()
    lines = report.splitlines()
    assert lines[0] == "# Memory evaluated on LoCoMo"
    recall = lines[lines.index("## Evidence recall") + 2 :]
    assert recall[0] == "|  | questions | recall@1 | recall@5 | recall@1000t |"
    assert recall[2].startswith("| all | 3 | ")
    assert "100.0 (43.9 to 100.0)" in recall[2]
    judged = lines[lines.index("## Answers judged correct") + 2 :]
    assert judged[0] == "|  | questions | lenient | strict |"
    assert judged[2] == "| all | 3 | 66.7 (20.8 to 93.9) | 33.3 (6.1 to 79.2) |"
    assert "| judging | 6 | 600 | 30 |" in lines
    assert "| answering model | ScriptedChatModel |" in lines
    assert "Wilson" in report
    assert "5 turns remembered" in report
    assert "ms (median)" in report
    for table in report.split("\n\n"):
        if table.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1


def test_tokens_that_a_provider_did_not_count_are_not_told_as_none():
    def half(messages: list[BaseMessage]) -> Any:
        counted = messages[0].text == ANSWERING and "number 0?" in messages[1].text
        return AIMessage("correct", usage_metadata=USAGE if counted else None)

    report = evaluate_memory(memory, many(2), model=ScriptedChatModel(replies=half)).to_markdown()
    assert "| answering | 2 | 100 (of 1 calls) | 5 (of 1 calls) |" in report
    assert "| judging | 4 | not told | not told |" in report


def test_questions_without_evidence_are_left_out_of_recall_and_said_so():
    data = many(2)
    [conversation] = data.conversations
    questions = tuple(replace(question, evidence=()) for question in conversation.questions)
    without = replace(data, conversations=(replace(conversation, questions=questions),))
    # A category cannot break a table.
    first = replace(conversation.questions[0], category="a | b\nc")
    half = replace(data, conversations=(replace(conversation, questions=(first, questions[1])),))
    assert "recall was not measured" in evaluate_memory(memory, without).to_markdown()
    result = evaluate_memory(memory, half)
    assert "1 questions without evidence are left out" in result.to_markdown()
    assert "| a \\| b c | 1 |" in result.to_markdown()
    assert result.recall["all"]["MRR"].count == 1
    with pytest.raises(InvalidInput, match="no questions"):
        evaluate_memory(memory, replace(data, conversations=(replace(conversation, questions=()),)))


def test_the_result_is_plain_values_for_json(bees: Dataset):
    result = evaluate_memory(memory, bees, model=ScriptedChatModel(replies=chat))
    read = json.loads(json.dumps(result.to_dict()))
    assert read["accuracy"]["all"]["strict"]["count"] == 3
    assert read["questions"][0]["hits"][0]["turns"] == ["D1:1"]
    assert read["questions"][0]["verdicts"]["strict"] == {"label": "correct", "reason": "so"}
    assert read["usage"]["judging"]["calls"] == 6


def test_progress_is_shown_on_a_terminal_only(bees: Dataset, capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    evaluate_memory(memory, bees)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    evaluate_memory(memory, bees, progress=False)
    assert capsys.readouterr().err == ""
    evaluate_memory(memory, bees)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Remembering" in shown.err
    assert "Asking" in shown.err
