"""README and the pages of docs/: their code runs and prints what it promises, what they name exists."""

import ast
import gc
import inspect
import json
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import documents
import pytest
import typer
from documents import DOCS, PAGES, README, ROOT, blocks, lines_of, name_of, table

from langchain_memlayer import Memory, errors
from langchain_memlayer.cli import app
from langchain_memlayer.config.models import EMBEDDERS, MODELS
from langchain_memlayer.config.stores import STORES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BACKENDS = DOCS / "backends.md"
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"|!\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Where a page's code runs. What it left open goes at the end of its test, and not in the middle of another."""
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    yield module
    vars(module).clear()
    gc.collect()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # other packages' own
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # a page may leave its memory open
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=name_of)
def test_every_python_block_of_a_page_runs_and_prints_what_it_promises(
    page: Path,
    module: types.ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    for block in blocks(page):
        if block.note.startswith("needs: "):
            missing = [
                name for name in re.findall(r"\w+", block.note.removeprefix("needs: ")) if find_spec(name) is None
            ]
            if missing:
                pytest.skip(f"{', '.join(missing)} is not installed; `make docs` installs the group `docs`")
        if not block.runs:
            continue
        documents.run(block, vars(module))
        said = capsys.readouterr().out.splitlines()
        if block.language == "python":
            assert said == block.promised, block
    if page == README:
        assert {path.name for path in tmp_path.iterdir()} <= {"memories", "facts"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_can_be_parsed_and_what_it_imports_exists(page: Path):
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.code, str(block))
            for module, name in documents.imported(block.code):
                assert hasattr(import_module(module), name), f"{block}: {module} has no {name}"
        elif block.language == "json":
            json.loads(block.code)
        elif block.language == "toml":
            tomllib.loads(block.code)
        if block.note.startswith("run by "):
            assert (ROOT / block.note.removeprefix("run by ").strip("`")).is_file(), block
        assert not block.note.startswith("not run:") or len(block.note) > len("not run: ") + 8, f"{block}: no reason"


def test_every_command_of_the_pages_exists_with_its_options_and_every_command_is_on_one():
    group: Any = typer.main.get_command(app)
    common = {option for parameter in group.params for option in parameter.opts}
    named: set[str] = set()
    for page in PAGES:
        for line in lines_of(page):
            words = line.partition(" #")[0].split()
            if "memlayer" not in words[:1]:
                continue
            given = [word for word in words[1:] if word in group.commands]
            if not given and common.issuperset(words[1:]):
                continue
            assert given, f"{name_of(page)}: no command in {line!r}"
            own = {option for parameter in group.commands[given[0]].params for option in parameter.opts}
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            if not hasattr(group.commands[given[0]], "commands"):
                assert options <= common | own, f"{name_of(page)}: {line}"
            named.add(given[0])
    assert named == group.commands.keys()


def test_every_make_target_of_the_pages_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for target in (line.split()[1] for line in lines_of(page) if line.startswith("make ")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name_of(page)}: make {target}"


def test_every_extra_of_the_pages_exists_and_the_table_of_extras_is_that_of_the_project():
    extras = PROJECT["project"]["optional-dependencies"]
    for page in PAGES:
        for named in re.findall(r"\.\[([\w,]+)\]|langchain-memlayer\[([\w,]+)\]", page.read_text(encoding="utf-8")):
            assert set("".join(named).split(",")) <= extras.keys(), name_of(page)
    told = {
        names(row[0])[0]: re.findall(r"`([^`]+)`", row[1]) for row in table(DOCS / "install.md", "| extra | brings |")
    }
    assert told == {extra: sorted(brings) for extra, brings in extras.items() if extra != "all"}
    stores = {name for row in table(BACKENDS, "| `vectorstore=` | extra |") for name in names(row[1])}
    assert {"chroma", "qdrant", "milvus", "pgvector", "vikingdb", "community"} <= stores <= extras.keys()


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    found = {re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", head).lower()).strip().replace(" ", "-") for head in heads}
    return found | set(re.findall(r'id="([^"]+)"', page.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted((ROOT / "cookbook").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))], ids=name_of
)
def test_links_are_whole(page: Path):
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in (next(filter(None, found)) for found in _LINK.findall(text)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{name_of(page)}: {link} is no heading"


def test_every_file_that_the_guide_for_contributors_names_exists():
    guide = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", guide)
    assert len(named) >= 10
    for name in named:
        beside = (ROOT, ROOT / "langchain_memlayer", ROOT / "integration_tests")
        assert any((folder / name).is_file() for folder in beside), name


def test_every_page_stands_in_the_navigation_once():
    text = (DOCS / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": ([\w/.-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS).as_posix()) for page in PAGES if page != README)


def test_the_readme_begins_with_the_two_commands_and_stays_short():
    found = blocks(README)
    assert [block.language for block in found[:2]] == ["sh", "python"]
    assert [line.split()[1] for line in found[0].code.splitlines()] == ["demo", "test"]
    assert len(found[1].code.splitlines()) <= 16
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 200


def test_the_figures_that_the_readme_compares_are_those_of_the_measurements():
    measured = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("performance.md", "recall.md"))
    told = [
        figure
        for row in table(README, "| | langchain_memlayer |")[:4]
        for figure in re.findall(r"[\d,]*\.?\d+", " ".join(row[1:]))
    ]
    assert len(told) >= 12
    for figure in told:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d])", measured), f"{figure} is in no measurement"


def test_every_signal_has_a_row():
    with Memory(":memory:", model=None) as memory:
        for text in ("Runa keeps the lighthouse.", "The cat is with Aksel."):
            memory.add({"role": "user", "name": text[:4], "content": text}, user_id="ann", session_id="1")
        [hit, *_] = memory.search("Who has the cat?", user_id="ann", explain=True)["results"]
    for page, head in (("why-first.md", "| signal | speaks for"), ("zh/howto.md", "| 信号 |")):
        told = {name for row in table(DOCS / page, head) for name in names(row[0])}
        assert told - {"learned"} == hit["explanation"].keys() - {"learned"}  # the trees speak of conversations only


def test_every_error_has_a_row_that_says_what_to_do():
    told = [names(row[0])[0] for row in table(DOCS / "errors.md", "| error |")]
    tree = [
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.MemLayerError)
    ]
    assert told == [name for name in tree if name != "SnapshotError"]  # callers never see it


def test_every_environment_variable_of_the_package_is_in_the_table():
    told = {name for row in table(DOCS / "environment.md", "| variable |") for name in names(row[0])}
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "langchain_memlayer").rglob("*.py"))
    kinds = "API_KEY|API_BASE|BASE_URL|ENDPOINT|DEPLOYMENT|API_VERSION|HOME|TOKENS|HOST|REGION|AK|SK|TRACING(?:_V2)?"
    read = set(re.findall(rf'"([A-Z]+(?:_[A-Z]+)*_(?:{kinds}))"', code))
    assert len(read) >= 10
    assert read <= told


def test_every_public_name_is_in_the_reference():
    import langchain_memlayer
    from langchain_memlayer import testing

    shown = re.findall(
        r"^::: ([\w.]+)$", "\n".join(p.read_text("utf-8") for p in (DOCS / "reference").glob("*.md")), re.MULTILINE
    )
    assert len(shown) == len(set(shown))
    wanted = {f"langchain_memlayer.{name}" for name in langchain_memlayer.__all__ if name != "__version__"}
    wanted |= {f"langchain_memlayer.testing.{name}" for name in testing.__all__}
    assert wanted <= set(shown)


# -- docs/backends.md -------------------------------------------------------------------------------------------------


def test_the_tables_of_providers_have_exactly_their_keys_and_each_has_a_block():
    rows = table(BACKENDS, "| provider of `vector_store` | keys |")
    told = {names(row[0])[0]: tuple(names(row[1])) for row in rows}
    assert told == {provider: known.keys for provider, known in STORES.items()}
    models = {
        (names(row[0])[0], provider): names(row[2])
        for row in table(BACKENDS, "| section | provider | keys |")
        for provider in names(row[1])
    }
    known = {("llm", name): list(provider.keys) for name, provider in MODELS.items()}
    known |= {("embedder", name): list(provider.keys) for name, provider in EMBEDDERS.items()}
    assert {key: keys[:1] if key[1] == "langchain" else keys for key, keys in models.items()} == known
    code = "\n".join(block.code for block in blocks(BACKENDS))
    shown = set(re.findall(r'"(vector_store|llm|embedder)": \{\s*"provider": "(\w+)"', code))
    usual = {"openai", "doubao", "deepseek", "langchain"}
    wanted = {"vector_store": STORES, "llm": usual, "embedder": usual - {"deepseek"} | {"wordllama"}}
    assert shown >= {(section, name) for section, providers in wanted.items() for name in providers}


def test_the_size_from_which_a_store_is_asked_is_that_of_the_threshold():
    from langchain_memlayer.engine.index_sync import SPREAD_FACTOR

    threshold, dims = inspect.signature(Memory).parameters["hnsw_threshold"].default, 384
    assert f"{threshold:,} numbers: {threshold // dims:,} memories of {dims} numbers" in BACKENDS.read_text("utf-8")
    assert SPREAD_FACTOR == 10  # "ten times as many where several users are searched at once"


@pytest.mark.parametrize("notebook", sorted((ROOT / "cookbook").glob("*.ipynb")), ids=lambda path: path.name)
def test_what_a_notebook_keeps_names_no_path_of_the_machine_that_ran_it(notebook: Path):
    assert not re.search(r"site-packages|/tmp/|/home/|/root/", notebook.read_text(encoding="utf-8"))
