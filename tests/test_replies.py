from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import json_repair
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from langchain_memlayer.errors import ExtractionError
from langchain_memlayer.facts.replies import Reading, read_entries, storable

ONE = {"fact": "Anna likes tea", "quote": "I like tea", "turn": 1, "triples": [["Anna", "likes", "tea"]]}
TWO = {"fact": "Ben has a dog", "quote": "my dog", "turn": 2, "triples": []}
BOTH = json.dumps({"facts": [ONE, TWO]}, indent=1)


def call(*entries: Any) -> str:
    return json.dumps({"name": "extraction", "arguments": json.dumps({"facts": list(entries)})})


def test_a_second_call_that_breaks_off_is_not_taken_for_all() -> None:
    reading = read(f"<tool_call>{call(ONE)}</tool_call><tool_call>{call(TWO)[:-30]}")
    assert reading.entries == (ONE,)
    assert reading.lost is not None


def read(reply: str) -> Reading:
    return read_entries(reply, "facts", {"fact", "quote"})


@pytest.mark.parametrize(
    "reply",
    [
        BOTH,
        f"```json\n{BOTH}\n```",
        f"```\n{BOTH}\n```\nI hope this helps! {{smile}} [1]",
        f"Here is the JSON you asked for:\n\n{BOTH}",
        f"<think>The user likes tea {{not coffee}}, so {json.dumps({'facts': [ONE]})} ...</think>\n{BOTH}",
        f"so I should list both facts.\n</think>\n\n{BOTH}",
        f'◁think▷Perhaps {{"facts": [{json.dumps(ONE)}]}}, no ◁/think▷{BOTH}',
        f"<thinking>[1, 2]</thinking>{BOTH}<|im_end|>",
        *(
            f'{begin}{{"facts": [{json.dumps({**ONE, "quote": "tea"})}]}}{end}{BOTH}'
            for begin, end in (
                ("<seed:think>", "</seed:think>"), ("<antThinking>", "</antThinking>"), ("[THINK]", "[/THINK]"),
                ("<|START_THINKING|>", "<|END_THINKING|>"), ("<reflection>", "</reflection>"),
            )
        ),
        f'First draft: {{"facts": [{json.dumps(ONE)}]}}\nBetter:\n{BOTH}',
        f'{BOTH}\n\n<conversation>\n[1] user: hi\n</conversation>\n{{"facts": []}}',
        json.dumps([ONE, TWO]),
        f"Facts: {json.dumps([ONE, TWO])}",
        f"{json.dumps(ONE)}\n{json.dumps(TWO)}",
        f"{json.dumps(ONE)}\n{json.dumps(dict(reversed(TWO.items())))}",
        "\n".join(f"<tool_call>{call(one)}</tool_call>" for one in (ONE, TWO)),
        "\n".join(json.dumps({"facts": [one]}) for one in (ONE, TWO)),
        "".join(f"<|call_begin|>functions.extraction:{k}<|arg|>{call(one)}" for k, one in enumerate((ONE, TWO))),
        json.dumps({"tool_calls": [{"id": "1", "type": "function", "function": json.loads(call(ONE, TWO))}]}),
        json.dumps([{"name": "extraction", "arguments": json.dumps({"facts": [one]})} for one in (ONE, TWO)]),
        json.dumps({"facts": [json.dumps(ONE), repr(TWO)]}),
        json.dumps({"facts": json.dumps([ONE, TWO])}),
        json.dumps({"facts": {"1": ONE, "2": TWO}}),
        json.dumps({"facts": [[ONE, TWO]]}),
        json.dumps({"fact": [ONE, TWO]}),
        f'{{"facts": [{json.dumps(ONE)}], "facts": [{json.dumps(TWO)}], "facts": []}}',
        json.dumps({"facts": json.dumps({"facts": [ONE, TWO]})}),
        json.dumps(BOTH),
        json.dumps({"Facts": [ONE, TWO]}),
        f"The first:\n```json\n{json.dumps({'facts': [ONE]})}\n```\nThe second:\n{json.dumps({'facts': [TWO]})}",
        json.dumps({"result": {"facts": [ONE, TWO]}}),
        json.dumps({"title": "extraction", "type": "object", "properties": {"facts": [ONE, TWO]}}),
        json.dumps({"name": "facts", "parameters": {"facts": [ONE, TWO]}}),
        json.dumps({"name": "facts", "arguments": json.dumps({"facts": [ONE, TWO]})}),
        f"<tool_call>\n{json.dumps({'name': 'facts', 'arguments': {'facts': [ONE, TWO]}})}\n</tool_call>",
        json.dumps([{"facts": [ONE]}, {"facts": [TWO]}]),
        json.dumps([{"facts": []}, json.dumps({"facts": [ONE, TWO]})]),
        repr({"facts": [ONE, TWO]}),
        BOTH.replace('"fact"', "fact").replace('"facts"', "facts"),
        BOTH.replace("}", ",}").replace("]", ",]"),
        BOTH.replace('},\n  {', "}\n  {"),
        BOTH.replace("{", "{ // one object\n", 1).replace('"turn"', '/* of the turn */ "turn"'),
        BOTH.replace('"facts"', "“facts”").replace(":", "：").replace('"Ben has a dog"', "“Ben has a dog”"),
    ],
)  # fmt: skip
def test_whatever_stands_around_the_json_both_entries_are_read(reply: str) -> None:
    assert read(reply) == Reading((ONE, TWO))


@pytest.mark.parametrize("cut", range(BOTH.index("},") + 1, len(BOTH) - 6))
def test_a_reply_that_breaks_off_gives_the_entries_that_are_whole(cut: int) -> None:
    reading = read(BOTH[:cut])
    assert reading.entries == (ONE,)
    assert reading.lost is not None
    assert BOTH[:cut].endswith(reading.lost)
    assert read(f"```json\n{BOTH[:cut]}").entries == (ONE,)


def test_an_entry_that_cannot_be_read_costs_only_itself_and_is_told() -> None:
    reading = read(f'{{"facts": [{json.dumps(ONE)}, {{"fact": "", broken}}, {json.dumps(TWO)}]}}')
    assert reading.entries == (ONE, TWO)
    assert reading.lost is not None
    assert "broken" in reading.lost


CAVE = {"fact": 'Anna calls it "the cave" at home', "quote": 'it is "the cave"'}
TAGS = {"fact": "Anna writes <think> and </think>", "quote": "I write </think>"}


@pytest.mark.parametrize(
    ("reply", "entries"),
    [
        (json.dumps({"facts": [CAVE]}).replace("\\", ""), (CAVE,)),
        (json.dumps({"facts": [TAGS]}), (TAGS,)),
        ('{"facts":[{"turn":1 "fact":"a" "quote":"q"} {"turn":2 "fact":"b" "quote":"r"}]}',
         ({"turn": 1, "fact": "a", "quote": "q"}, {"turn": 2, "fact": "b", "quote": "r"})),
        (f'Here: {{"facts":[{{"turn":{"9" * 5_000},"fact":"a"}}]}}', ({"turn": "9" * 5_000, "fact": "a"},)),
    ],
    ids=["quotation marks left unescaped", "tags in a quote", "no commas", "a number of thousands of digits"],
)  # fmt: skip
def test_what_is_in_an_entry_belongs_to_it(reply: str, entries: tuple[Any, ...]) -> None:
    assert read(reply).entries == entries


def test_python_words_escapes_and_raw_line_breaks_are_understood() -> None:
    reading = read("{'facts': [{'fact': 'a\nb\\u00e9\\ud83d\\ude00\\'s', 'retract': False, 'x': None, 'n': -1.5e2}]}")
    [entry] = reading.entries
    assert {**entry, "fact": storable(entry["fact"])} == {"fact": "a\nbé😀's", "retract": False, "x": None, "n": -150.0}


def test_triples_as_objects_are_no_entries_of_a_damaged_list() -> None:
    triple = {"source": "Anna", "relation": "likes", "destination": "tea"}
    entries = [{**ONE, "triples": [triple, triple]}, {**TWO, "triples": [triple]}]
    damaged = json.dumps({"facts": entries}).replace('"fact"', "'fact'")
    assert read(damaged) == Reading(tuple(entries))
    assert read(damaged[:-5]).entries == (entries[0],)


def test_a_damaged_list_of_texts_is_repaired() -> None:
    for reply in ("{'queries': ['tea', 'cake',]}", '{"queries": ["tea", "cake"]'):
        assert read_entries(reply, "queries", ()).entries == ("tea", "cake")


HOSTILE = [
    '{"facts":["' + '" /*' * 25_000, "/*" * 50_000, '{"fact":"x" "quote":" /*' * 4_000, "{" * 100_000,
    '{"fact": "' + '" /* "' * 16_000 + '"}', '{"fact":"' + "}]" * 50_000, '{"facts":[{"fact":"x" "quote":"' * 3_000,
    '{"fact": "x", "quote": "' + '" /* ' * 700 + '"}, ' * 100, '{"fact"' + " " * 100_000, '"' * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("reply", HOSTILE)
def test_of_hostile_replies_little_is_repaired(reply: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    loads = json_repair.loads
    monkeypatch.setattr(json_repair, "loads", lambda text: given.append(len(text)) or loads(text))
    with suppress(ExtractionError):
        read(reply)
    # What a piece costs is bounded by its length, so all of them cost no more than linear time.
    assert max(given, default=0) <= 4_000
    assert sum(given) <= 100_000


@pytest.mark.parametrize("reply", ['{"facts": []}', "[]", '```json\n{"facts": []}\n```', 'Nothing. {"facts": null}'])
def test_an_empty_list_is_no_error(reply: str) -> None:
    assert read(reply) == Reading(())


@pytest.mark.parametrize(
    "reply",
    [
        "", " \n", "I am sorry, I cannot help with that.", f"<think>maybe {BOTH}</think>\n",
        '<think>At first sight {"facts": []}, but there is',
        "I am sorry, I cannot help with that. (details: [])",
        '{"error": "upstream returned no choices", "choices": []}', '{"error": {"message": "busy"}, "facts": []}',
        BOTH[: BOTH.index('"triples"') + 20], "{}",
        "null", "[1, 2, 3]", '{"memories": "none"}', '{"facts": "none"}', '{"facts": [{"turn": 1, "quote": "I li',
        '{"facts": [', '{"facts": {"quote": "tea", "fact": "Anna lik', '{"quote": "tea", "fact": "Anna lik',
        "[" * 100_000, '{"a' * 50_000, "{" * 50_000 + '"', "[[{'" * 30_000,
    ],
)  # fmt: skip
def test_a_reply_with_nothing_to_read_is_an_error_with_the_reply(reply: str) -> None:
    with pytest.raises(ExtractionError) as caught:
        read(reply)
    assert caught.value.reply == reply
    assert "no fact was written" in str(caught.value)


def test_what_no_journal_can_keep_is_replaced() -> None:
    assert storable("a\x00b\ud800c😀") == "a�b�c😀"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@examples(st.lists(JSON, max_size=5), st.booleans())
def test_strict_json_is_read_as_what_it_is(entries: list[Any], ascii_only: bool) -> None:
    reply = json.dumps({"facts": entries}, ensure_ascii=ascii_only)
    assert read(reply) == Reading(tuple(entries))


@examples(st.text(alphabet="{}[]\"':,\\ a1factsé\n"))
def test_any_reply_is_read_or_refused(reply: str) -> None:
    with suppress(ExtractionError):
        assert isinstance(read(reply).entries, tuple)
