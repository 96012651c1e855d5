"""The package as users get it: built, installed into a fresh environment, used, and typed as seen from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from langchain_memlayer import __version__

ROOT = Path(__file__).parent.parent
NAME = f"langchain_memlayer-{__version__}"
pytestmark = pytest.mark.slow

USE = """
from langchain_memlayer import Memory

with Memory("memories", model=None) as memory:
    memory.add("The spare key hangs behind the clock.", user_id="alice")
    assert memory.search("spare key", user_id="alice")["results"][0]["memory"].startswith("The spare key")
"""

TYPED = """
from langchain_memlayer import Memory
from langchain_memlayer.result_types import Hit


async def use(memory: Memory) -> list[str]:
    hits: list[Hit] = memory.search("key", user_id="alice")["results"]
    reveal_type(memory.add("x", user_id="alice")["results"][0]["memory"])
    reveal_type((await memory.asearch("key", user_id="alice"))["results"][0]["score"])
    return [hit["memory"] for hit in hits]
"""

WRONG = """
from langchain_memlayer import Memory

Memory(":memory:").search("key", user="alice")
Memory(":memory:").add("x", user_id="alice")["result"]
"""


def run(*command: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL", "OPENAI"))}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env={**kept, **env}, capture_output=True, text=True, timeout=540, check=False
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with sdist and wheel, made as a release makes them: the wheel from the sdist."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("dist")
    kept = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, kept.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    done = run(sys.executable, "-m", "build", "--outdir", out, source, cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new environment with the wheel and the extra `local` in it; gives its folder of programs."""
    folder = tmp_path_factory.mktemp("fresh")
    assert run(sys.executable, "-m", "venv", folder, cwd=folder).returncode == 0
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    done = run(programs / "python", "-m", "pip", "install", "-q", f"{built / NAME}-py3-none-any.whl[local]", cwd=folder)
    assert done.returncode == 0, done.stderr
    yield programs
    shutil.rmtree(folder)


def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    tracked = run("git", "ls-files", "langchain_memlayer", cwd=ROOT).stdout.split()
    info = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")}
    assert names == set(tracked) | info | {f"{NAME}.dist-info/licenses/LICENSE"}
    assert {"langchain_memlayer/py.typed", "langchain_memlayer/demo/conversation.json"} <= names
    assert "License-Expression: MIT" in metadata
    assert "Requires-Python: >=3.11" in metadata


def test_the_sdist_has_what_builds_and_tests_it(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        names = {name.removeprefix(f"{NAME}/") for name in sdist.getnames()}
    roots = {name.partition("/")[0] for name in names} - {"langchain_memlayer", "tests"}
    assert roots == {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    assert set(run("git", "ls-files", "langchain_memlayer", "tests", cwd=ROOT).stdout.split()) <= names


def test_the_installed_package_works_without_the_source(fresh: Path, tmp_path: Path) -> None:
    used = run(fresh / "python", "-W", "error", "-c", USE, cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    assert run(fresh / "memlayer", "--version", cwd=tmp_path).stdout.strip() == __version__
    found = run(fresh / "memlayer", "--path", "memories", "list", "--user", "alice", cwd=tmp_path)
    assert "The spare key hangs behind the clock." in found.stdout
    assert run(fresh / "memlayer", "--path", "memories", "doctor", cwd=tmp_path).returncode == 0


def test_mypy_and_pyright_see_the_types_from_outside(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED, encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    python = fresh / "python"
    checkers = {
        "mypy": (sys.executable, "-m", "mypy", "--strict", "--python-executable", python),
        "pyright": (sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", python),
    }
    for name, command in checkers.items():
        good = run(*command, "typed.py", cwd=tmp_path)
        assert good.returncode == 0, name + good.stdout + good.stderr
        bad = run(*command, "wrong.py", cwd=tmp_path)
        assert bad.returncode != 0, name
        assert '"user"' in bad.stdout, name + bad.stdout
        assert "result" in bad.stdout, name + bad.stdout
    revealed = run(*checkers["mypy"], "typed.py", cwd=tmp_path).stdout
    assert '"str"' in revealed
    assert '"float"' in revealed


def test_workflows_name_what_exists_and_pin_what_they_use() -> None:
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, path.name
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 90, name
            for step in job["steps"]:
                assert "uses" not in step or "@" in step["uses"], step
                for word in step.get("run", "").split():
                    assert not word.startswith(".ci/") or (ROOT / word).is_file(), word


@pytest.mark.parametrize(
    ("tool", "files"), [("hadolint", "cookbook/server/Dockerfile"), ("actionlint", ".github/workflows/*.yml")]
)
def test_the_dockerfile_and_the_workflows_have_no_lint(tool: str, files: str) -> None:
    found = shutil.which(tool, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{tool} is not installed: the group `integration` has it for Linux")
    done = run(found, *ROOT.glob(files), cwd=ROOT)
    assert done.returncode == 0, done.stdout
