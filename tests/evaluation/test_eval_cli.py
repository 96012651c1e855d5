import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_kit import locomo, longmemeval, write
from langchain_core.messages import BaseMessage
from test_cli import Run, refused
from typer.testing import CliRunner, Result

from langchain_memlayer import Memory
from langchain_memlayer.cli import app
from langchain_memlayer.evaluation.judging import ANSWERING
from langchain_memlayer.testing import ScriptedChatModel


@pytest.fixture
def cli() -> Run:
    def run(*args: Any) -> Result:
        return CliRunner().invoke(app, ["eval", *map(str, args), "--embeddings", "none"])

    return run


@pytest.fixture
def bees(tmp_path: Path) -> Path:
    return write(tmp_path, locomo(), "bees.json")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ScriptedChatModel:
    """What every name of a model means."""

    def reply(messages: list[BaseMessage]) -> Any:
        if messages[0].text == ANSWERING:
            return "Behind the chapel"
        return {"facts": []} if "facts" in messages[0].text else {"reason": "", "verdict": "correct"}

    scripted = ScriptedChatModel(replies=reply)
    monkeypatch.setattr("langchain_openai.ChatOpenAI", lambda **_: scripted)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return scripted


def test_locomo_prints_the_report_and_leaves_nothing_behind(cli: Run, bees: Path):
    result = cli("locomo", bees, "--k", 1, "--k", 5)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "# Memory evaluated on LoCoMo"
    assert "|  | questions | recall@1 | recall@5 | recall@1000t |" in lines
    assert "| embeddings | none |" in lines
    assert "No chat model was called." in lines
    assert result.stderr == ""
    assert list(bees.parent.iterdir()) == [bees]


def test_longmemeval_prints_the_report(cli: Run, tmp_path: Path):
    result = cli("longmemeval", write(tmp_path, longmemeval()), "--max-tokens", 7)
    assert result.exit_code == 0, result.output
    assert "recall@7t" in result.stdout
    assert "| single-session-user | 1 |" in result.stdout
    assert "1 questions without evidence are left out" in result.stdout


def test_json_is_the_result_with_every_question(cli: Run, bees: Path):
    result = cli("locomo", bees, "--json", "--limit", 2)
    read = json.loads(result.stdout)
    assert [one["id"] for one in read["questions"]] == ["beekeepers-q0", "beekeepers-q1"]
    assert read["recall"]["all"]["recall@5"]["count"] == 2


def test_the_report_is_written_where_it_is_asked_for(cli: Run, bees: Path, tmp_path: Path):
    path = tmp_path / "report.md"
    result = cli("locomo", bees, "--report", path)
    assert result.exit_code == 0, result.output
    assert str(path) in result.stdout.replace("\n", "")
    assert path.read_text(encoding="utf-8").startswith("# Memory evaluated on LoCoMo\n\n## Evidence recall\n")
    assert path.stat().st_mode & 0o077 == 0


def test_a_model_answers_and_judges(cli: Run, bees: Path, model: ScriptedChatModel):
    result = cli("locomo", bees, "--model", "openai:gpt-4o-mini")
    assert result.exit_code == 0, result.output
    assert "| all | 3 | 100.0 (43.9 to 100.0) | 100.0 (43.9 to 100.0) |" in result.stdout
    assert "| answering | 3 | " in result.stdout
    assert "| remembering | " not in result.stdout
    assert model.calls == 9


def test_facts_come_from_the_files_observations_or_from_the_model(cli: Run, bees: Path, model: ScriptedChatModel):
    given = json.loads(cli("locomo", bees, "--facts", "observations", "--json").stdout)
    texts = {hit["text"] for one in given["questions"] for hit in one["hits"]}
    assert "Ilse's hives stand behind the chapel." in texts
    assert model.calls == 0
    found = cli("locomo", bees, "--facts", "model", "--model", "openai:gpt-4o-mini")
    assert "| facts | LLMExtractor |" in found.stdout
    assert "| remembering | 2 | " in found.stdout


def test_a_path_keeps_the_memories_and_a_second_run_remembers_nothing_twice(cli: Run, bees: Path, tmp_path: Path):
    folder = tmp_path / "store"
    tables = [cli("locomo", bees, "--path", folder).stdout.partition("## Cost")[0] for _ in range(2)]
    assert tables[0] == tables[1]
    with Memory(folder, model=None, embeddings=None) as memory:
        assert len(memory.get_all(user_id="beekeepers")["results"]) == 5


def test_what_cannot_work_is_refused_before_the_run(cli: Run, bees: Path, tmp_path: Path):
    assert "leave out --user" in refused(cli("locomo", bees, "--user", "alice"))
    assert "--facts model needs the --model" in refused(cli("locomo", bees, "--facts", "model"))
    assert "no folder" in refused(cli("locomo", bees, "--report", tmp_path / "no" / "report.md"))
    assert "OPENAI_API_KEY" in refused(cli("locomo", bees, "--model", "openai:gpt-4o-mini"))
    for command, *wrong in (("locomo", "--k", "0"), ("longmemeval", "--facts", "observations"), ("squad",)):
        assert cli(command, bees, *wrong).exit_code == 2


def test_a_broken_file_is_one_line_with_the_place(cli: Run, tmp_path: Path):
    path = write(tmp_path, locomo(lambda data: data[0]["qa"][1].pop("question")), "broken.json")
    assert 'broken.json: [0].qa[1] has no "question"' in refused(cli("locomo", path))
    assert 'broken.json: [0] has no "question_id"' in refused(cli("longmemeval", path))


def test_scopes_of_ones_own_are_asked_and_plain_systems_stand_beside(cli: Run, tmp_path: Path) -> None:
    scope = {"id": "me", "items": [["a", "The key is under the mat.", "", 0, None, "user"]],
             "questions": [["Where is the key?", "place", ["a"], None]]}  # fmt: skip
    result = cli("scopes", write(tmp_path, [scope]), "--beside")
    assert result.exit_code == 0, result.output
    assert "## Beside plain systems" in result.stdout
    assert "| BM25 | +0.0 (+0.0 to +0.0)" in result.stdout
