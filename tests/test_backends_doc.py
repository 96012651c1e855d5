import inspect
import re
from pathlib import Path

import pytest

from langchain_memlayer import Memory
from langchain_memlayer.config.models import EMBEDDERS, MODELS
from langchain_memlayer.config.stores import STORES

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
# Those that open a configuration are run by integration_tests/test_backends_doc.py, which has the stores.
PLAIN = [block for block in BLOCKS if "from_config(config)" not in block]
PROMISED_OUTPUT = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
DIMS = 384


def rows(head: str) -> list[list[str]]:
    """The cells of the table that begins with a head."""
    lines = DOC[DOC.index(head) :].splitlines()[2:]
    end = next(number for number, line in enumerate(lines) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_python_block_runs_and_prints_what_its_comments_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    state: dict[str, object] = {"__name__": "backends"}
    assert len(PLAIN) == 3
    for number, block in enumerate(PLAIN, 1):
        exec(compile(block, f"docs/backends.md, python block {number}", "exec"), state)
        promised = PROMISED_OUTPUT.findall(block)
        assert capsys.readouterr().out.splitlines() == promised, f"block {number}"
        assert len(promised) == block.count("print("), f"block {number} prints something without saying what"


def test_the_table_of_providers_has_exactly_their_keys():
    told = {names(row[0])[0]: tuple(names(row[1])) for row in rows("| provider of `vector_store` | keys |")}
    assert told == {provider: known.keys for provider, known in STORES.items()}


def test_the_table_of_models_has_exactly_their_keys():
    told = {
        (names(row[0])[0], provider): names(row[2])
        for row in rows("| section | provider | keys |")
        for provider in names(row[1])
    }
    known = {("llm", name): list(provider.keys) for name, provider in MODELS.items()}
    known |= {("embedder", name): list(provider.keys) for name, provider in EMBEDDERS.items()}
    assert {key: keys[:1] if key[1] == "langchain" else keys for key, keys in told.items()} == known


def test_every_provider_has_a_block():
    shown = re.findall(r'"(vector_store|llm|embedder)": \{\s*"provider": "(\w+)"', "\n".join(BLOCKS))
    models = ("openai", "doubao", "deepseek", "langchain")
    known = {"vector_store": STORES, "llm": models, "embedder": set(models) - {"deepseek"} | {"wordllama"}}
    assert set(shown) >= {(section, name) for section, providers in known.items() for name in providers}


def test_the_size_from_which_a_store_is_asked_is_that_of_the_threshold():
    from langchain_memlayer.engine.indexes import SPREAD_FACTOR

    threshold = inspect.signature(Memory).parameters["hnsw_threshold"].default
    assert f"{threshold:,} numbers: {threshold // DIMS:,} memories of {DIMS} numbers" in DOC
    assert SPREAD_FACTOR == 10  # "ten times as many where several users are searched at once"


def test_the_extras_exist():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(re.findall(r"^(\w+) = \[", project, re.MULTILINE))
    told = {name for row in rows("| `vectorstore=` | extra |") for name in names(row[1])}
    assert told <= extras
    assert {"chroma", "qdrant", "milvus", "pgvector", "vikingdb", "community"} <= told
