"""A store with a story, the inspector over it in a thread, and a headless browser; `-m` writes the pictures of docs/.

python -m integration_tests.inspector_kit docs/pictures
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from langchain_core.messages import BaseMessage
from pydantic import BaseModel, Field

from langchain_memlayer import ExtractionError, Memory
from langchain_memlayer.server import create_app
from langchain_memlayer.server.application import listen
from langchain_memlayer.testing import FrozenClock, ScriptedChatModel

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NAMED = "MEMLAYER_TEST_BROWSER"
MISSING = f"no Chromium: `apt-get install chromium` gives one, or {NAMED} names its file"


def browser_file() -> str | None:
    """Where a Chromium is: what the environment names, else the first one of the path."""
    return os.environ.get(NAMED) or next(filter(None, map(shutil.which, BROWSERS)), None)


@dataclass(frozen=True)
class Told:
    """One message and the facts in it: quote, text, triples; `changes` is the text of the memory that it changes."""

    day: str
    text: str
    facts: Sequence[tuple[str, str, Sequence[tuple[str, str, str]]]]
    changes: str | None = None


STORY = (
    Told("2026-03-02", "I live in Paris with my sister Noor.", (
        ("I live in Paris", "Ann lives in Paris", [("Ann", "lives in", "Paris")]),
        ("my sister Noor", "Noor is Ann's sister", [("Noor", "sister of", "Ann")]))),
    Told("2026-03-05", "Noor is allergic to walnuts, so no walnut bread for her.", (
        ("Noor is allergic to walnuts", "Noor is allergic to walnuts", [("Noor", "allergic to", "walnuts")]),)),
    Told("2026-04-11", "I started as a designer at Lumen, with Marek as my manager.", (
        ("I started as a designer at Lumen", "Ann works as a designer at Lumen", [("Ann", "works at", "Lumen")]),
        ("Marek as my manager", "Marek is Ann's manager at Lumen", [("Marek", "manages", "Ann")]))),
    Told("2026-05-20", "I moved to Berlin, into a flat near the canal!", (
        ("I moved to Berlin", "Ann lives in Berlin, near the canal", [("Ann", "lives in", "Berlin")]),),
        changes="Ann lives in Paris"),
    Told("2026-06-01", "Noor plays the oboe in a youth orchestra now.", (
        ("Noor plays the oboe in a youth orchestra", "Noor plays the oboe in a youth orchestra",
         [("Noor", "plays", "oboe"), ("Noor", "member of", "youth orchestra")]),)),
    Told("2026-07-15", "Yuki runs the design team at Lumen now.", (
        ("Yuki runs the design team at Lumen", "Yuki leads the design team at Lumen",
         [("Yuki", "leads", "design team"), ("Yuki", "works at", "Lumen")]),)),
    Told("2026-09-03", "我下个月要去上海出差，住在外滩附近的酒店。", (
        ("我下个月要去上海出差", "Ann 十月去上海出差", [("Ann", "travels to", "Shanghai")]),)),
)  # fmt: skip


class _Mind:
    """What the scripted model says of the message that is being told."""

    def __init__(self) -> None:
        self.told = STORY[0]
        self.asked = 0

    def __call__(self, messages: list[BaseMessage]) -> Any:
        self.asked += 1
        if self.asked == 1:
            facts = [
                {
                    "turn": 1,
                    "quote": quote,
                    "fact": text,
                    "subject": "Ann",
                    "triples": [list(triple) for triple in triples],
                }
                for quote, text, triples in self.told.facts
            ]
            return {"facts": facts}
        if self.told.changes is None:
            decisions = [{"fact": number, "action": "ADD"} for number in range(1, len(self.told.facts) + 1)]
            return {"decisions": decisions}
        line = next(line for line in str(messages[-1].content).splitlines() if self.told.changes in line)
        number = re.search(r"\d+", line)
        assert number, line
        text = self.told.facts[0][1]
        return {
            "decisions": [{"fact": 1, "action": "UPDATE", "memory": int(number[0]), "text": text, "reason": "moved"}]
        }


def tell(folder: Path) -> None:
    """Make the store: Ann's story, an agent's memories, and a message that the model failed to read."""
    clock, mind = FrozenClock(datetime(2026, 3, 1, tzinfo=UTC)), _Mind()
    with Memory(folder, model=ScriptedChatModel(replies=mind), embeddings="wordllama", clock=clock) as memory:
        for told in STORY:
            mind.told, mind.asked = told, 0
            moment = f"{told.day}T09:30:00+00:00"
            clock.advance(seconds=(datetime.fromisoformat(moment) - clock()).total_seconds())
            said = {"role": "user", "name": "Ann", "content": told.text, "timestamp": moment, "session_id": "chat"}
            memory.add(said, user_id="ann")
        memory.add("Answer briefly; the customer is in a hurry.", agent_id="support", infer=False)
        refunds = [f"Customer {number} asked for a refund of order {1_000 + 7 * number}." for number in range(12)]
        memory.add(refunds, user_id="bob", agent_id="support", infer=False)
    down = ScriptedChatModel(replies=[TimeoutError("down")] * 5)
    with Memory(folder, model=down, embeddings="wordllama", clock=clock) as memory:
        try:
            memory.add({"role": "user", "name": "Ann", "content": "My new bike is green."}, user_id="ann")
        except ExtractionError:
            return
    raise AssertionError("the model was to fail")


class Customer(BaseModel):
    city: str | None = Field(None, description="where the user lives")
    people: list[str] = Field([], description="who is close to the user")
    plan: str | None = None


def filled(messages: Any) -> Any:
    """What a model reads of Ann's facts into her profile; it finds no further facts."""
    shown = str(messages[-1].content)
    if "<fields>" not in shown:
        return {"facts": []}
    facts = [json.loads(line) for line in shown.splitlines() if line.startswith('{"fact"')]
    told = [(one["fact"], one.get("text", "")) for one in facts]
    changes = [("city", "set", "Berlin", number) for number, text in told if "Berlin" in text]
    changes += [("people", "append", text, number) for number, text in told if "Noor" in text or "Marek" in text]
    return {"changes": [dict(zip(("field", "action", "value", "facts"), one, strict=True)) for one in changes]}


@contextmanager
def inspecting(memory: Memory, **options: Any) -> Iterator[str]:
    """The address of the inspector over a memory, in a thread."""
    with listen("127.0.0.1", 0) as listener:
        config = uvicorn.Config(create_app(memory, **options), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def browsing() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_file(), args=["--no-sandbox"])
        yield browser
        browser.close()


def main(folder: Path) -> None:
    """Write the pictures."""
    shots = (
        ("facts", 1280, "light", "/facts?user_id=ann"),
        ("search", 1280, "light", "/search?user_id=ann&q=Where+does+Ann+live+now%3F"),
        ("graph", 1280, "dark", "/graph?user_id=ann"),
        ("memory", 390, "light", ""),
        ("forks", 390, "light", "/forks?user_id=ann"),
        ("scopes-zh", 390, "dark", "/?lang=zh"),
    )
    with tempfile.TemporaryDirectory() as place, browsing() as browser:
        tell(Path(place) / "store")

        def shoot(address: str, name: str, width: int, scheme: str, path: str) -> None:
            context = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme)
            page = context.new_page()
            page.goto(address + path)
            page.screenshot(path=folder / f"inspector-{name}.png")
            context.close()

        with Memory(Path(place) / "store", model=None) as memory, inspecting(memory) as address:
            known = memory.get_all(user_id="ann", kinds=["fact"])["results"]
            moved = next(row["id"] for row in known if "Berlin, near" in row["memory"])
            memory.fork("another prompt", user_id="ann")
            for name, width, scheme, path in shots:
                shoot(address, name, width, scheme, path or f"/memory/{moved}")
        model = ScriptedChatModel(replies=filled)
        with Memory(Path(place) / "store", model=model, profile=Customer) as memory, inspecting(memory) as address:
            memory.read(user_id="ann", retry=True)
            memory.update_profile({"plan": "team"}, user_id="ann")
            shoot(address, "profile", 1280, "light", "/profile?user_id=ann")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
