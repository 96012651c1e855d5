"""Replay: kept messages are read again by another extractor, beside the old facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from journal_dump import open_memory, texts
from memory_kit import Extracting
from typer.testing import CliRunner

from langchain_memlayer import ConfigurationError, ExtractionError, InvalidInput, Memory, ScopeRequired
from langchain_memlayer.cli import app
from langchain_memlayer.engine import replay
from langchain_memlayer.types import Extraction, Fact, Triple, Turn

SAID = ["I live in Paris", "I play chess", "Hello"]
OLD = {"I live in Paris": "Anna lives in Paris", "I play chess": "Anna plays chess"}
NEW = {"I live in Paris": "Anna lives in Paris, France", "I play chess": "Anna plays chess", "Hello": "Anna is polite"}


class Told(Extracting):
    def __init__(self, facts: Mapping[str, str]) -> None:
        self.facts, self.shown = facts, list[list[str]]()

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        self.shown.append([turn.text for turn in turns])
        if not self.facts:
            raise ExtractionError("the model is down")
        return Extraction(
            tuple(
                Fact(self.facts[turn.text], (n,), quote=turn.text, triples=(Triple("Anna", "said", turn.text),))
                for n, turn in enumerate(turns)
                if turn.text in self.facts
            )
        )


def opened(**given: Any) -> Memory:
    memory = open_memory(":memory:", extractor=Told(OLD), reconcile="rules", **given)
    memory.add([{"role": "user", "content": text} for text in SAID], user_id="u", session_id="s")
    return memory


def listed(memory: Memory, user: str, **given: Any) -> list[str]:
    return texts(memory.get_all(user_id=user, **given))


def test_other_facts_stand_beside_the_old_ones_and_a_table_says_what_differs() -> None:
    with opened() as memory:
        before = memory.get_all(user_id="u", kinds=["fact", "turn"])
        seen: list[tuple[int, int]] = []
        other = Told(NEW)
        found = memory.replay("trial", user_id="u", extractor=other, progress=lambda *at: seen.append(at))
        assert found == {
            "into": "trial", "turns": 3, "same": 1,
            "results": [
                {"before": "Anna lives in Paris", "after": "Anna lives in Paris, France", "said": "I live in Paris"},
                {"before": None, "after": "Anna is polite", "said": "Hello"},
            ],
        }  # fmt: skip
        assert seen == [(3, 3)]
        assert memory.get_all(user_id="u", kinds=["fact", "turn"]) == before
        assert listed(memory, "trial", kinds=["turn"]) == SAID
        [hit, *_] = memory.search("Where does Anna live?", user_id="trial")["results"]
        assert (hit["memory"], hit["evidence"][0]["quote"]) == ("Anna lives in Paris, France", "I live in Paris")
        assert memory.unread(user_id="trial") == []
        with pytest.raises(InvalidInput, match="already"):
            memory.replay("trial", user_id="u")
        memory.forget(user_id="trial")
        assert memory.replay("trial", user_id="u")["results"] == []


def test_pages_are_of_one_session_and_what_was_deleted_or_stored_as_given_is_not_read() -> None:
    with opened() as memory:
        memory.add([f"Note {n}" for n in range(50)], user_id="u", session_id="t")
        memory.add("As it is", user_id="u", infer=False)
        gone = next(row["id"] for row in memory.get_all(user_id="u", kinds=["fact"])["results"])
        memory.delete(gone)
        other = Told({"Hello": "Anna is polite"})
        found = memory.replay("trial", user_id="u", extractor=other)
        assert [len(page) for page in other.shown] == [2, 40, 10]
        assert found["turns"] == 53
        assert "I live in Paris" not in listed(memory, "trial", kinds=["turn"])
        assert "As it is" in listed(memory, "trial")


def test_what_fails_is_not_read_later_by_the_memorys_own_model() -> None:
    with opened() as memory:
        with pytest.raises(ExtractionError):
            memory.replay("trial", user_id="u", extractor=Told({}))
        assert memory.unread(user_id="trial") == []
        assert listed(memory, "trial", kinds=["fact"]) == []


def test_who_and_by_what_has_to_be_said() -> None:
    with opened() as memory, pytest.raises(ScopeRequired):
        memory.replay("trial", run_id="r")
    with open_memory(":memory:") as memory, pytest.raises(ConfigurationError):
        memory.replay("trial", user_id="u")


class Several(Told):
    """Finds all facts of a turn that are written in it, last first, each with an ending."""

    def __init__(self, ending: str) -> None:
        super().__init__({"all": ""})
        self.ending = ending

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        said = turns[0].text.split(". ")
        parts = said if self.ending else said[::-1]
        return Extraction(tuple(Fact(f"{part}{self.ending}", (0,), quote=part) for part in parts))


def test_facts_of_one_message_are_paired_at_a_cost_that_grows_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for size in (3, 40, 80):
        parts = [f"Thing {n} of Anna is a{n}" for n in range(size)]
        calls = 0

        def counted(text: str, own: Any = replay.words) -> Any:
            nonlocal calls
            calls += 1
            return own(text)

        with open_memory(":memory:", extractor=Several(""), reconcile="off") as memory:
            memory.add(". ".join(parts), user_id="u")
            with monkeypatch.context() as patch:
                patch.setattr(replay, "words", counted)
                found = memory.replay("trial", user_id="u", extractor=Several(" now"))
            assert (found["same"], len(found["results"])) == (0, size)
            if size == 3:
                assert all(row["after"] == f"{row['before']} now" for row in found["results"])
            counts.append(calls)
    assert counts[2] <= 2.1 * counts[1]


async def test_an_awaited_replay_is_the_same() -> None:
    with opened() as memory:
        assert (await memory.areplay("trial", user_id="u", extractor=Told(NEW)))["same"] == 1


def test_the_command_prints_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Memory(tmp_path / "s", model=None, extractor=Told(OLD), reconcile="rules", embeddings=None) as memory:
        memory.add("I live in Paris", user_id="u")
    own = Memory.__init__
    monkeypatch.setattr(Memory, "__init__", lambda self, *a, **k: own(self, *a, **{**k, "extractor": Told(NEW)}))
    args = ["--path", str(tmp_path / "s"), "--embeddings", "none", "--model", "none", "--user", "u"]
    said = CliRunner().invoke(app, [*args, "replay", "trial"])
    assert said.exit_code == 0, said.output
    assert "0 facts are the same" in said.stdout
    assert "Anna lives in Paris, France" in said.stdout
