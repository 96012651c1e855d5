"""The pages of the documentation as tests read them: their code blocks, tables and links.

A comment right before a block says what is done with it:

    <!-- not run: REASON -->   it is only parsed, and what it imports of this package is looked up
    <!-- run by FILE -->       another test runs it
    <!-- needs: PACKAGE, ... --> the page is run where these are installed (the group `docs` has them)

and a comment that begins with `setup` is code of the test's own, which readers do not see: the scripted model in place
of one with a key. A block prints what the comments behind its calls of `print` promise, or all of the `text` block that
follows it.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from langchain_memlayer.testing import ScriptedChatModel

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|(?:^ *<!-- (?P<note>[^\n]*) -->\n\n?)?^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_PROMISED = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a page.

    Attributes:
        page: The file.
        line: Where its code begins.
        language: What stands behind the fence; `setup` for what readers do not see.
        code: The text, without the indentation of the block.
        note: The comment right before it, or "".
        output: The `text` block right behind it, or None.
    """

    page: Path
    line: int
    language: str
    code: str
    note: str = ""
    output: str | None = None

    @property
    def runs(self) -> bool:
        return self.language in ("python", "setup") and not self.note.startswith(("not run: ", "run by "))

    @property
    def promised(self) -> list[str]:
        """The lines that running it prints."""
        return _PROMISED.findall(self.code) if self.output is None else self.output.splitlines()

    def __str__(self) -> str:
        return f"{name_of(self.page)}, line {self.line}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    made = []
    for match, following in zip_longest(found, found[1:]):
        kind = "setup" if match["setup"] is not None else "code"
        output = None
        if (
            following is not None
            and following["language"] == "text"
            and not text[match.end() : following.start()].strip()
        ):
            output = textwrap.dedent(following["code"])
        line = text.count("\n", 0, match.start(kind)) + 1
        made.append(
            Block(page, line, match["language"] or "setup", textwrap.dedent(match[kind]), match["note"] or "", output)
        )
    return made


def lines_of(page: Path, language: str = "sh") -> Iterator[str]:
    """The lines of all blocks of a language, with continued ones joined."""
    for block in blocks(page):
        if block.language == language and not block.note.startswith("not run: "):
            yield from (line.strip() for line in block.code.replace("\\\n", " ").splitlines() if line.strip())


def run(block: Block, names: dict[str, Any]) -> None:
    """Execute a block; its errors name the page's lines, and annotations find what they name."""
    exec(compile("\n" * (block.line - 1) + block.code, name_of(block.page), "exec", dont_inherit=True), names)


def imported(code: str) -> Iterator[tuple[str, str]]:
    """The (module, name) pairs of this package that some code imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("langchain_memlayer"):
            yield from ((str(node.module), alias.name) for alias in node.names)


def table(page: Path, head: str) -> list[list[str]]:
    """The cells of the table that begins with a head."""
    text = page.read_text(encoding="utf-8")
    lines = text[text.index(head) :].splitlines()[2:]
    end = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines[:end]]


# -- a chat model for pages --------------------------------------------------------------------------------------------

_TURN = re.compile(r"^\[(\d+)\] [^:\n]*: (.*)$", re.MULTILINE)
_RECORD = re.compile(r'^(\{"(?:memory|fact)": .*\})$', re.MULTILINE)


def played(
    facts: Mapping[str, str | tuple[str, Sequence[str]]],
    *,
    updates: Mapping[str, str] | None = None,
    changes: Mapping[str, tuple[str, str, str]] | None = None,
    answers: Sequence[Any] = (),
    **settings: Any,
) -> ScriptedChatModel:
    """A chat model that finds known facts, decides known updates, and else answers in order.

    Args:
        facts: By the words that say it, each fact, with its triple if it has one.
        updates: By the new fact's text, the memory's text that it takes the place of.
        changes: By the fact's text, what it changes in a profile: field, action and value.
        answers: The replies to all calls of other kinds.
        **settings: Of `ScriptedChatModel`.
    """
    rest = iter(answers)

    def reply(messages: Sequence[Any]) -> Any:
        last = str(messages[-1].content)
        if "<facts>" in last and "<memories>" in last:
            return {"decisions": _decided(last, updates or {})}
        if "<fields>" in last:
            return {"changes": list(_changed(last, changes or {}))}
        if "<conversation>" in last:
            return {"facts": list(_found(last, facts))}
        return next(rest)

    return ScriptedChatModel(replies=reply, **settings)


def _found(prompt: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, said in _TURN.findall(prompt):
        for quote, fact in facts.items():
            if quote in said:
                text, triple = (fact, ()) if isinstance(fact, str) else fact
                yield {"turn": int(number), "quote": quote, "fact": text, "triples": [list(triple)] if triple else []}


def _changed(prompt: str, changes: Mapping[str, tuple[str, str, str]]) -> Iterator[dict[str, Any]]:
    import json

    for record in map(json.loads, _RECORD.findall(prompt)):
        if change := changes.get(record.get("text", "")):
            yield {**dict(zip(("field", "action", "value"), change, strict=True)), "facts": [record["fact"]]}


def _decided(prompt: str, updates: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    import json

    records = [json.loads(line) for line in _RECORD.findall(prompt)]
    known = {record["text"]: record["memory"] for record in records if "memory" in record}
    return [
        {"fact": record["fact"], "action": "UPDATE", "memory": known[old], "text": record["text"]}
        if (old := updates.get(record["text"])) in known
        else {"fact": record["fact"], "action": "NONE", "memory": known[record["text"]]}
        if record["text"] in known
        else {"fact": record["fact"], "action": "ADD"}
        for record in records
        if "memory" not in record
    ]
