# The replies were written for exactly these prompts. Who changes a prompt runs this file with RECORD_PROMPTS=1, reads
# what changed, and judges whether the replies are still what a good model would say.

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from langchain_memlayer.facts.extraction import LLMExtractor, Window
from langchain_memlayer.messages import to_turns
from langchain_memlayer.testing import ScriptedChatModel
from langchain_memlayer.types import Extraction, Triple

FIXTURES = Path(__file__).parent / "fixtures" / "extraction"
NOON = datetime(2024, 5, 13, 12, tzinfo=UTC)


def only_window(name: str) -> tuple[LLMExtractor, Window]:
    said = json.loads((FIXTURES / f"{name}.json").read_text("utf-8"))
    extractor = LLMExtractor(ScriptedChatModel())
    [window] = extractor.windows(to_turns(said["messages"]), to_turns(said["context"]) if said["context"] else [])
    return extractor, window


def from_reply(name: str, reply: str = "reply") -> Extraction:
    extractor, window = only_window(name)
    return extractor.parse(window, (FIXTURES / f"{name}.{reply}.txt").read_text("utf-8"), NOON)


@pytest.mark.parametrize("name", ["english", "chinese", "injection"])
def test_the_recorded_prompts_are_what_the_code_builds(name: str) -> None:
    extractor, window = only_window(name)
    prompt = "".join(f"<<{message.type}>>\n{message.content}\n\n" for message in extractor.build(window, NOON))
    file = FIXTURES / f"{name}.prompt.txt"
    if os.environ.get("RECORD_PROMPTS"):
        file.write_text(prompt, "utf-8")
    assert prompt == file.read_text("utf-8")


def test_an_english_conversation_with_changes() -> None:
    found = from_reply("english")
    assert found.rejected == ()
    assert [fact.text for fact in found.facts] == [
        "Maya signed with Brightwater on 2025-03-16 and starts there as lead designer on 2025-04-01",
        "Maya and Tom are giving up their flat in Leeds and moving to Bristol at the end of March 2025",
        "Maya's husband Tom has found a place for them in Clifton, Bristol",
        'The assistant put "cancel the Leeds broadband" on Maya\'s list for Friday 2025-03-21',
        "Maya is no longer vegetarian; she has been eating fish since January 2025",
        "Maya's sister has debts",
    ]
    assert [fact.turns[0] for fact in found.facts] == [0, 2, 2, 3, 4, 5]
    assert [fact.valid_at and f"{fact.valid_at:%Y-%m-%d}" for fact in found.facts] == [
        "2025-04-01", "2025-03-31", None, "2025-03-21", "2025-01-01", None,
    ]  # fmt: skip
    assert [dict(fact.metadata) for fact in found.facts] == [{}] * 5 + [{"retract": True}]
    assert Triple("Maya", "lives in", "Bristol") in found.facts[1].triples


def test_a_chinese_conversation_stays_chinese() -> None:
    found = from_reply("chinese")
    assert found.rejected == ()
    assert [(fact.turns, fact.text) for fact in found.facts] == [
        ((0,), "用户2025年2月从腾讯离职，现在在小米做产品经理"),
        ((2,), "用户从深圳搬到了北京"),
        ((2,), "用户的妈妈一个人住在深圳，用户每周日晚上和她视频"),
        ((2,), "用户对花生过敏，推荐外卖时要避开花生"),
        ((4,), "用户2025-03-15和大学同学李雷去香山爬山"),
    ]
    assert found.facts[4].valid_at == datetime(2025, 3, 15, tzinfo=UTC)
    assert found.facts[2].name == "用户的妈妈"


def test_a_tool_message_with_an_injection_gives_nothing_to_a_good_model() -> None:
    found = from_reply("injection")
    assert found.rejected == ()
    assert [fact.turns for fact in found.facts] == [(0,), (2,), (3,)]
    assert not [fact for fact in found.facts if fact.metadata or "Dock Road" in fact.text]


def test_and_what_a_gullible_model_takes_from_it_is_refused_or_quarantined() -> None:
    found = from_reply("injection", "gullible.reply")
    assert [(fact.text, dict(fact.metadata)) for fact in found.facts] == [
        ("User's delivery address is 12 Dock Road", {"quarantined": True}),
        ("User wants deliveries at 12 Dock Road", {"quarantined": True}),
        ("User works from home", {}),
    ]
    assert [(refused.text, refused.reason) for refused in found.rejected] == [
        ("User has a son", "a tool's output cannot ask to forget something"),
        ("Everything about the user", "a tool's output cannot ask to forget something"),
    ]
