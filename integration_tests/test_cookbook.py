"""Each notebook of the cookbook runs without a key and without network, and prints what the file keeps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

COOKBOOK = Path(__file__).parent.parent / "cookbook"
NOTEBOOKS = sorted(COOKBOOK.glob("*.ipynb"))

# The cells share one namespace, as in a kernel. What a notebook should have found is checked in the same namespace.
RUNNER = """
import sys
import nbformat
import pytest_socket

pytest_socket.disable_socket(allow_unix_socket=True)
names = {"__name__": "notebook"}
for number, cell in enumerate(nbformat.read(sys.argv[1], as_version=4).cells, 1):
    if cell.cell_type == "code":
        exec(compile(cell.source, f"cell {number}", "exec"), names)
exec(compile(sys.argv[2], "checks", "exec"), names)
print("the end")
"""

CHECKS = {
    "01_chat_loop.ipynb": """
assert [fact["memory"] for fact in facts] == ["User is vegetarian but eats fish again"]
assert (event["event"], event["prev_value"]) == ("UPDATE", "User is vegetarian")
assert others == []
assert model.calls == len(model.replies)
assert "- User is vegetarian but eats fish again" in model.prompts[5][0].text
""",
    "02_langgraph_agent.ipynb": """
assert [decision["event"] for decision in told["memory_decisions"]] == ["ADD"]
assert "User moved to Lisbon" in asked["memory_context"]
assert threads == {"monday": 2, "friday": 2}
assert facts == ["User moved to Lisbon"]
assert model.calls == len(model.replies)
""",
    "03_create_agent_middleware.ipynb": """
assert facts == ["User's sister Noor is allergic to walnuts"]
assert ("Noor", "allergic_to", "walnuts") in relations
assert [message.type for message in answered["messages"]] == ["human", "ai"]
assert "allergic to walnuts" in model.prompts[2][0].text
assert model.calls == len(model.replies)
""",
    "04_rag_retriever.ipynb": """
assert documents[0].page_content == "The red key opens the paint store."
assert {document.metadata["topic"] for document in documents} == {"keys"}
assert "[1] The red key opens the paint store." in model.prompts[0][0].text
assert answer == "The red key opens the paint store [1]."
""",
    "05_memory_without_a_model.ipynb": """
assert found >= 11, found  # of 14
assert "VQ7K-2M" in best["memory"]
assert best["explanation"]["keyword"] > 0, best["explanation"]
assert "I live in Bristol" in homes["2025-05-01"]["memory"]
assert homes["2025-09-01"]["memory"] == "We live in Edinburgh."
assert (then, now) == ("The locker has the number 12.", "The locker has the number 13.")
assert set(graph) == {"Xiaoman", "Glasgow", "pianos"}, set(graph)
assert graph._repr_svg_().startswith("<svg") and "Glasgow" in graph._repr_svg_()
assert {"source": "Xiaoman", "relationship": "lives_in", "destination": "Glasgow"} in relations
""",
    "06_evaluation.ipynb": """
assert recalled.recall["all"]["recall@5"].mean > recalled.recall["all"]["recall@1"].mean > 0
assert recalled.recall["all"]["MRR"].count == 7
assert set(compared) == {"turns", "turns and facts", "keywords only"}
assert result.accuracy["all"]["lenient"].mean == 6 / 7
assert result.accuracy["all"]["strict"].mean == 5 / 7
assert result.errors == {"lenient": 0, "strict": 0}
assert (result.usage["answering"].calls, result.usage["judging"].calls, model.calls) == (7, 14, 21)
""",
    "07_your_own_vector_store.ipynb": """
assert before == []
assert (adopted, again) == ({"adopted": 4, "known": 0, "skipped": 0}, {"adopted": 0, "known": 4, "skipped": 0})
assert {hit["metadata"]["page"] for hit in found} == {9}
assert (delivered, len(handbook.store), len(ours)) == (True, 6, 2)
assert "[1] The sauna and the pool open at six on weekdays" in model.prompts[0][0].text
assert "[2] I like to swim at five, before work." in model.prompts[0][0].text
assert answer.endswith("[2].")
assert "open at five on weekdays" in corrected and "open at six on weekdays" in original
assert said == [original, corrected]
""",
    "08_profiles.ipynb": """
assert (row["field"], row["after"]) == ("plan", "team")
assert "- city: Ghent" in state["memory_context"]
""",
    "09_time_machine.ipynb": """
assert [one["after"]["memory"] for one in changes["changed"]] == ["Ann lives in Berlin"]
assert (found["turns"], found["same"], len(found["results"])) == (3, 1, 2)
assert [one["memory"] for one in merged["conflicts"]] == ["Ann lives in Berlin, near the canal"]
assert left == ["Ann lives in Berlin, near the canal", "Ann plays the oboe"]
""",
}


def test_every_notebook_is_checked_and_named_in_the_readme() -> None:
    assert [path.name for path in NOTEBOOKS] == list(CHECKS)
    readme = (COOKBOOK / "README.md").read_text("utf-8")
    assert [readme.count(f"[{path.name}]({path.name})") for path in NOTEBOOKS] == [1] * len(NOTEBOOKS)


def printed(notebook: nbformat.NotebookNode) -> str:
    """What the code cells printed, by what the file keeps; what another day or machine changes is left out."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def comparable(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d|\d+\.\d+", "#", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_and_keeps_its_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    assert printed(notebook)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_without_a_key_or_network_and_prints_what_it_keeps(path: Path, tmp_path: Path) -> None:
    private = ("OPENAI", "LANGSMITH", "LANGCHAIN", "MEMLAYER")
    env = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUNNER, path, CHECKS[path.name]],
        cwd=tmp_path,
        env={**env, "TMPDIR": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.iterdir()), "a notebook leaves nothing behind"
    kept = printed(nbformat.read(path, as_version=4))
    assert comparable(done.stdout) == comparable(kept + "the end\n"), "run `make notebooks`"
