"""What decisions from outside may and may not do to a memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from langchain_memlayer import Memory
from langchain_memlayer.facts.reconciliation import RuleReconciler
from langchain_memlayer.testing import DeterministicEmbeddings
from langchain_memlayer.types import Candidate, Decision, Extraction, Fact, Turn


class Echo:
    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return Extraction(tuple(Fact(turn.text, (n,), quote=turn.text) for n, turn in enumerate(turns)))

    async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return self.extract(turns, context)


@pytest.mark.parametrize("action", ["UPDATE", "DELETE", "NONE"])
def test_a_decision_about_another_tenants_memory_only_adds_the_fact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Any
) -> None:
    with Memory(
        tmp_path, model=None, extractor=Echo(), reconcile="rules", embeddings=DeterministicEmbeddings()
    ) as memory:
        victim = memory.add("Anna lives in Paris", user_id="victim")["results"][0]["id"]
        memory.add("Anna lives in Paris", user_id="hostile")
        before = (memory.get(victim), memory.history(victim))

        def decide(self: Any, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
            return [Decision(action, 0, memory_id=victim, text="Anna lives nowhere")]

        monkeypatch.setattr(RuleReconciler, "reconcile", decide)
        answer = memory.add("Anna lives in Paris now", user_id="hostile")
        [done] = answer["results"]
        assert (done["event"], done["memory"]) == ("ADD", "Anna lives in Paris now")
        assert "another scope" in memory.why(done["id"])["decisions"][0]["instead"]
        assert (memory.get(victim), memory.history(victim)) == before
