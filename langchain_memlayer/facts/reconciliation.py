"""Facts and what is known to decisions: by a chat model in one call for all facts, or by equality alone.

```
facts x candidates ── ask ──> Question ── build ── model ── parse ── checks ──> decisions
                       │
                       └── decided without the model: equal texts, tool output, nothing near
```
`build` and `parse` are pure; between them is one call, plain or awaited. Whatever the model replies, a fact ends one
memory at most, what is not understood is recorded as REJECTED, and a fact that the reply forgot is added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from langchain_memlayer.facts.chat import Method, StructuredChat
from langchain_memlayer.facts.grounding import words
from langchain_memlayer.facts.prompts import (
    FACT_CHARS,
    REASON_CHARS,
    RECONCILIATION_CONTRACT,
    RECONCILIATION_EXAMPLES,
    RECONCILIATION_INSTRUCTIONS,
    RECONCILIATION_SCHEMA,
    RECONCILIATION_VERSION,
    shortened,
    show_records,
)
from langchain_memlayer.facts.replies import read_entries, storable
from langchain_memlayer.index.keywords import query_terms
from langchain_memlayer.messages import content_hash
from langchain_memlayer.types import QUARANTINE, RETRACT, Candidate, Decision, Fact

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

MOST_STRAYS: Final = 20
"""Parts of one reply that are recorded although they name no fact; the others are counted only."""

_MARKS: Final = frozenset({"fact", "action"})
_SHOWN_TOKENS: Final = 500
_GROUNDED: Final = 0.6
_SAME_TIME: Final = timedelta(days=1)
_NUMBER = re.compile(r"[^\d-]{0,12}(\d{1,6})(?:\.0+)?[^\d]?")
# What ends something without putting anything in its place. In a language that is missing here a DELETE becomes an
# UPDATE to the fact's own words, which loses nothing.
_ENDING = r"""
    \b(?: no \s longer | any \s? more | stop(?:s|ped|ping)? | quit(?:s|ting)? | g(?:ave|iv(?:en?|es|ing)) \s up
        | cease[sd]? | ended | cancel\w* | forget | used \s to | broke \s up
        | nicht \s mehr | aufgehört | gekündigt | arrêt(?:e|é|er) | ya \s no | dej[óé] \s de | já \s não
        | deixou \s de | больше \s не | перестал\w* | бросил\w* )\b
    | 不再 | 已经不 | 停止 | 取消 | 放弃 | 戒掉 | 退出 | 注销 | 忘记 | 忘掉 | やめ | 辞め | 더 \s? 이상 | 더는 | 그만
"""
_ENDING_AROUND = r"""
    \b(?: kein\w* \s .{1,30} \b mehr | n[e'’] .{1,30} \b plus | não \s .{1,30} \b mais | non \s .{1,30} \b più )\b
    | [不没戒] [^，。]{1,10} 了 | もう .{1,20} な[いくか]
"""
_ENDS = re.compile(f"{_ENDING}|{_ENDING_AROUND}", re.VERBOSE | re.IGNORECASE)
_SPEAKER = r"\buser\b|用户|用戶|ユーザー|사용자"


@dataclass(frozen=True, slots=True)
class Question:
    """What is decided of some facts before a model is asked, and what it is to be asked.

    Attributes:
        facts: All facts.
        candidates: What they may change; the prompt numbers them from 1.
        decided: Decisions that need no model, by the fact's position.
        asked: Positions of the facts to ask about; the prompt numbers them from 1.
    """

    facts: tuple[Fact, ...]
    candidates: tuple[Candidate, ...]
    decided: Mapping[int, Decision]
    asked: tuple[int, ...]


class LLMReconciler:
    """Decides with a chat model; one call for all facts. Threads and event loops may share it.

    The model sees numbers, never ids, and its reply is only a proposal. REJECTED is what names an unknown memory, ends
    a memory that another fact has claimed, lacks the new text, or would end a memory that the fact has no word in
    common with, or that was told after it. A DELETE without a retraction is taken as the UPDATE that it is. Tool output
    is added as it is, without asking: it never ends what a person said.

    Args:
        model: Any LangChain chat model.
        method: How the model is held to the form of the reply; None decides by what it supports.

    Attributes:
        version: Says which prompt is used; it changes with every word of it.

    Raises:
        ConfigurationError: `model` is no chat model, or does not support `method`.

    Example:
        ```python
        reconciler = LLMReconciler(init_chat_model("openai:gpt-4o-mini"))
        reconciler.reconcile([Fact("Anna moved to Berlin", (0,))], [Candidate("m1", "Anna lives in Paris")])
        ```
    """

    version: Final = RECONCILIATION_VERSION

    def __init__(self, model: BaseChatModel, *, method: Method | None = None) -> None:
        self._chat = StructuredChat(model, RECONCILIATION_SCHEMA, run_name="reconciliation", method=method)

    def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """One decision for each fact, in order; then a REJECTED one for each part of the reply that names no fact.

        Raises:
            ExtractionError: the model failed, or its reply cannot be read.
        """
        question = ask(facts, candidates)
        return self.parse(question, self._chat.ask(self.build(question)) if question.asked else None)

    async def areconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """Like `reconcile`."""
        question = ask(facts, candidates)
        return self.parse(question, await self._chat.aask(self.build(question)) if question.asked else None)

    def build(self, question: Question) -> list[BaseMessage]:
        """The prompt: instructions, contract and examples, then memories and facts as fenced JSON."""
        from langchain_core.messages import HumanMessage, SystemMessage

        memories = (
            {"memory": number, **_dated(memory.last_seen, memory.valid_at), "text": _short(memory.text)}
            for number, memory in enumerate(question.candidates, 1)
        )
        facts = (
            {
                "fact": number,
                **_dated(fact.said_at, fact.valid_at),
                **({"retract": True} if _is_retraction(fact) else {}),
                "text": _short(fact.text),
            }
            for number, fact in enumerate((question.facts[k] for k in question.asked), 1)
        )
        instructions = (RECONCILIATION_INSTRUCTIONS, RECONCILIATION_CONTRACT, RECONCILIATION_EXAMPLES)
        shown = (show_records("memories", memories), show_records("facts", facts))
        return [SystemMessage("\n\n".join(instructions)), HumanMessage("\n".join(shown))]

    def parse(self, question: Question, reply: str | None) -> list[Decision]:
        """The decisions in a reply, with our own checks made; None is no reply, as nothing was asked.

        Raises:
            ExtractionError: nothing in the reply can be read.
        """
        found = dict(question.decided)
        strays: list[Decision] = []
        if reply is not None:
            reading = read_entries(reply, "decisions", _MARKS)
            for entry in reading.entries:
                position, reason = _fact_of(entry, question.asked, found)
                if position is None:
                    strays.append(Decision("REJECTED", None, text=_line(entry, FACT_CHARS), reason=reason))
                else:
                    found[position] = _checked(entry, position, question)
            if reading.lost is not None:
                cut = "the reply breaks off or cannot be read from here on"
                strays.append(Decision("REJECTED", None, text=_line(reading.lost, FACT_CHARS), reason=cut))
        for position, fact in enumerate(question.facts):
            if position not in found:
                found[position] = _added(position, fact, "the reply did not decide about it")
        return [*_claimed(found[k] for k in range(len(question.facts))), *_bounded(strays)]


class RuleReconciler:
    """Decides without a model: a fact whose text equals a memory's says it again, any other is new.

    Equal means equal but for case and whitespace, never similar. A retraction ends the memory that it equals.
    """

    def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """One decision for each fact, in order."""
        question = ask(facts, candidates)
        added = {k: _added(k, question.facts[k], None) for k in question.asked}
        found = {**question.decided, **added}
        return list(_claimed(found[k] for k in range(len(facts))))

    async def areconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """Like `reconcile`."""
        return self.reconcile(facts, candidates)


def all_added(facts: Sequence[Fact]) -> list[Decision]:
    """The decisions where nothing is known or nobody decides: ADD, and REJECTED for what asks to forget something."""
    return [_added(k, fact, None) for k, fact in enumerate(facts)]


def ask(facts: Sequence[Fact], candidates: Sequence[Candidate]) -> Question:
    """What needs no model is decided here: tool output, texts that equal a memory's, and all when there is none."""
    equal = {content_hash(memory.text): memory for memory in reversed(candidates)}
    decided: dict[int, Decision] = {}
    for k, fact in enumerate(facts):
        twin = equal.get(content_hash(fact.text))
        if fact.metadata.get(QUARANTINE) or not candidates:
            decided[k] = _added(k, fact, None)
        elif twin is not None:
            decided[k] = _ended_or_told(k, fact, twin)
    return Question(tuple(facts), tuple(candidates), decided, tuple(k for k in range(len(facts)) if k not in decided))


def _ended_or_told(position: int, fact: Fact, twin: Candidate) -> Decision:
    if not _is_retraction(fact):
        return Decision("NONE", position, twin.id, reason="equal texts")
    if _is_older(fact, twin):
        return _refused(position, "the memory was told after it")
    return Decision("DELETE", position, twin.id, reason="taken back")


def _added(position: int, fact: Fact, reason: str | None) -> Decision:
    # What a retraction states is what is to be forgotten: stored, it would say the opposite.
    if _is_retraction(fact):
        return _refused(position, reason or "nothing that is known says what it asks to forget")
    return Decision("ADD", position, reason=reason)


def _refused(position: int, reason: str) -> Decision:
    return Decision("REJECTED", position, reason=reason)


def _is_retraction(fact: Fact) -> bool:
    return bool(fact.metadata.get(RETRACT))


def _is_older(fact: Fact, memory: Candidate) -> bool:
    """Whether a fact was said clearly before the memory was told last."""
    if fact.said_at is None or memory.last_seen is None:
        return False
    return fact.said_at + _SAME_TIME < memory.last_seen


# -- the prompt -------------------------------------------------------------------------------------------------------


def _dated(told: datetime | None, since: datetime | None) -> dict[str, str]:
    dates = {"date": told, "since": since}
    return {name: f"{moment:%Y-%m-%d}" for name, moment in dates.items() if moment is not None}


def _short(text: str) -> str:
    return shortened(storable(text), _SHOWN_TOKENS)


# -- one entry of a reply ---------------------------------------------------------------------------------------------


def _fact_of(entry: Any, asked: Sequence[int], found: Mapping[int, Decision]) -> tuple[int | None, str]:
    """The position of the fact that an entry decides about, or None and why it is none."""
    if not isinstance(entry, Mapping):
        return None, "it is no object with a fact and an action"
    number = _number(entry.get("fact"))
    if number is None or not 0 < number <= len(asked):
        return None, "it names no fact that was asked about"
    if asked[number - 1] in found:
        return None, f"fact {number} was decided before"
    return asked[number - 1], ""


def _checked(entry: Mapping[str, Any], position: int, question: Question) -> Decision:
    """One entry as the decision that our own checks make of it."""
    fact, reason = question.facts[position], _line(entry.get("reason"), REASON_CHARS) or None
    action = _line(entry.get("action"), 20).upper()
    if action == "ADD":
        return _added(position, fact, reason)
    if action not in ("UPDATE", "DELETE", "NONE"):
        return _refused(position, f"there is no action {action!r}")
    number = _number(entry.get("memory"))
    if number is None or not 0 < number <= len(question.candidates):
        return _refused(position, f"{action} names no memory that it was shown: {_line(entry.get('memory'), 40)!r}")
    memory = question.candidates[number - 1]
    if action == "NONE":
        if _is_retraction(fact):
            return _refused(position, "nothing that is known says what it asks to forget")
        return Decision("NONE", position, memory.id, reason=reason)
    if action == "UPDATE":
        return _updated(position, fact, memory, _text(entry.get("text")), reason)
    return _deleted(position, fact, memory, reason)


def _updated(position: int, fact: Fact, memory: Candidate, text: str, reason: str | None) -> Decision:
    if not words(text):
        return _refused(position, "UPDATE has no text")
    if len(text) > FACT_CHARS:
        return _refused(position, f"the text of UPDATE is longer than {FACT_CHARS} characters")
    if len(memory.text) > FACT_CHARS:
        return _added(position, fact, "the memory is too long to be written anew")
    if _is_retraction(fact):
        if not _terms(text) < _terms(memory.text) or _terms(fact.text) <= _terms(text):
            return _refused(position, "the text of UPDATE is not the rest of the memory")
    elif not _is_grounded(text, (fact.text, fact.quote or "", memory.text)):
        text, reason = fact.text, "the fact's own words: those of the reply say what nobody said"
    if content_hash(text) == content_hash(memory.text):
        return Decision("NONE", position, memory.id, reason="the text of UPDATE is the memory's")
    if _is_older(fact, memory) and not _terms(memory.text) <= _terms(text):
        return _refused(position, "the memory was told after it")
    return Decision("UPDATE", position, memory.id, text, reason)


def _deleted(position: int, fact: Fact, memory: Candidate, reason: str | None) -> Decision:
    if _is_older(fact, memory):
        return _refused(position, "the memory was told after it")
    if not _has_in_common(fact, memory):
        return _refused(position, "it has nothing in common with the memory to delete")
    if not (_is_retraction(fact) or _only_ends(fact, memory)):
        return Decision("UPDATE", position, memory.id, fact.text, "it contradicts the memory, and takes nothing back")
    return Decision("DELETE", position, memory.id, reason=reason)


def _claimed(decisions: Iterator[Decision]) -> Iterator[Decision]:
    """The decisions, with the second one to change a memory refused."""
    taken: set[str | None] = set()
    for decision in decisions:
        if decision.action in ("UPDATE", "DELETE") and decision.memory_id in taken:
            yield Decision("REJECTED", decision.fact, reason="another fact changes the same memory")
            continue
        if decision.action in ("UPDATE", "DELETE"):
            taken.add(decision.memory_id)
        yield decision


def _bounded(strays: Sequence[Decision]) -> list[Decision]:
    kept = list(strays[:MOST_STRAYS])
    if more := len(strays) - len(kept):
        kept.append(Decision("REJECTED", None, text="", reason=f"{more} more parts of the reply name no fact"))
    return kept


# -- what is said -----------------------------------------------------------------------------------------------------


def _only_ends(fact: Fact, memory: Candidate) -> bool:
    """Whether a fact says that something ended, and no more: what it states must be the memory's."""
    if not _ENDS.search(fact.text):
        return False
    known = _terms(memory.text)
    return all(not (new := _terms(triple.destination)) or new & known for triple in fact.triples)


def _has_in_common(fact: Fact, memory: Candidate) -> bool:
    """Whether a fact and a memory share a word beyond whom they are about, and beyond "no longer"."""
    for name in ([fact.name] if fact.name else []) + [None]:
        subject = _SPEAKER if name is None else f"{_SPEAKER}|{re.escape(name)}"
        about = re.compile(f"{subject}|{_ENDING}", re.VERBOSE | re.IGNORECASE)
        mine, other = about.sub(" ", fact.text), about.sub(" ", memory.text)
        # What is to be forgotten may be the person itself.
        if words(mine):
            return _shares_words(mine, other)
    return False


def _shares_words(mine: str, other: str) -> bool:
    """Whether one telling word is common; without spaces, two characters in a row, or half of all characters."""
    if not set(query_terms(mine)).isdisjoint(query_terms(other)):
        return True
    single = _terms(mine)
    return 2 * len(single & _terms(other)) >= len(single)


def _is_grounded(text: str, sources: Sequence[str]) -> bool:
    """Whether most of what a text says stands in its sources."""
    said = _terms(text)
    return len(said & _terms(" ".join(sources))) >= _GROUNDED * len(said)


def _terms(text: str) -> set[str]:
    """The telling words of a text: stems, and single characters where a script has no spaces."""
    return set(query_terms(" ".join(words(text))))


def _number(given: Any) -> int | None:
    """A number as models write it (2, "2", "[2]", [2]); None for anything else, also for several."""
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    match = _NUMBER.fullmatch(str(given).strip()) if isinstance(given, (int, float, str)) else None
    return None if match is None else int(match[1])


def _text(value: Any) -> str:
    """A string of one line, without what no journal can keep; "" for anything else."""
    return " ".join(storable(value).split()) if isinstance(value, str) else ""


def _line(value: Any, most: int) -> str:
    """Anything as one line of at most `most` characters."""
    return "" if value is None else " ".join(storable(str(value)).split())[:most]
