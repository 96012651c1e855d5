import re
from pathlib import Path

import pytest
import typer

from langchain_memlayer.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROMISED_OUTPUT = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)


def lines_of(language: str) -> list[str]:
    return [line for kind, block in BLOCKS if kind == language for line in block.splitlines() if line.strip()]


def test_every_python_block_runs_and_prints_what_its_comments_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    state: dict[str, object] = {"__name__": "readme"}
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    assert len(blocks) >= 6
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README.md, python block {number}", "exec"), state)
        promised = PROMISED_OUTPUT.findall(block)
        assert capsys.readouterr().out.splitlines() == promised, f"block {number}"
        assert len(promised) == block.count("print("), f"block {number} prints something without saying what"
    assert {path.name for path in tmp_path.iterdir()} == {"memories", "facts"}


def test_every_command_of_the_readme_exists_with_its_options_and_every_command_is_in_the_readme():
    group = typer.main.get_command(app)
    common = {option for parameter in group.params for option in parameter.opts}
    named = set()
    for line in (line for line in lines_of("sh") if line.startswith("memlayer ")):
        words = line.partition("#")[0].split()
        command = group.commands[words[1]]
        own = {option for parameter in command.params for option in parameter.opts}
        options = set(re.findall(r"--[a-z-]+", line))
        assert options <= common | own, line
        named.add(words[1])
    assert named == group.commands.keys()


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in lines_of("sh") if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_extra_of_the_readme_exists():
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r'"\.\[([\w,]+)\]"', README)) <= extras


def test_the_readme_begins_with_the_two_commands_and_stays_short():
    assert [kind for kind, _ in BLOCKS[:2]] == ["sh", "python"]
    assert len(BLOCKS[1][1].splitlines()) <= 16
    assert len(README.splitlines()) <= 280
