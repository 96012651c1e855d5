"""Facts and what is known to decisions: by a chat model in one call for all facts, or by equality alone.

```
facts x (candidates, earlier facts) ── ask ──> Question ── build ── model ── parse ── checks ──> decisions
                                        │
                                        └── decided without the model: equal texts, tool output, nothing near
```
`build` and `parse` are pure; between them is one call, plain or awaited. No fact is lost by what the model replies:
what cannot be carried out becomes an ADD that says so in its reason, and a fact that the reply forgot is added. Only
what asks to forget something is REJECTED instead, since stored it would say the opposite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.facts.chat import Method, StructuredChat
from langchain_memlayer.facts.grounding import denies, fact_hash, scripts_differ, telling_terms, words
from langchain_memlayer.facts.prompts import (
    RECONCILIATION_CONTRACT,
    RECONCILIATION_EXAMPLES,
    RECONCILIATION_INSTRUCTIONS,
    RECONCILIATION_SCHEMA,
    RECONCILIATION_VERSION,
    shortened,
    show_records,
    version_of,
)
from langchain_memlayer.facts.replies import read_entries, storable
from langchain_memlayer.facts.reply_forms import FACT_CHARS, MOST_ENDED, REASON_CHARS, FoundDecision
from langchain_memlayer.facts.wording import (
    ENDS,
    are_logged,
    are_several,
    differs,
    gives_day,
    has_in_common,
    is_grounded,
    is_name,
    is_replaced,
    is_retraction,
    is_untold,
    matter_of,
    only_ends,
    says,
    says_little,
    terms,
    terms_but_speaker,
)
from langchain_memlayer.steps import Steps, awaited, stepped
from langchain_memlayer.types import QUARANTINE, Action, Candidate, Decision, Fact

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

MOST_STRAYS: Final = 20
"""Parts of one reply that are recorded although they name no fact; the others are counted only."""
MOST_EARLIER: Final = 20
"""Facts of the same call that are shown as what later ones may change."""

_MARKS: Final = frozenset({"fact", "action"})
_SHOWN_TOKENS: Final = 500
_MOST_UNRELATED: Final = 3
_IN_NEW_TEXT: Final = "another fact's new text says it"
_SAME_TIME: Final = timedelta(days=1)
_OWN_WORDS: Final = "the fact's own words: those of the reply say what nobody said"
_SAME_TALK: Final = 20
"""Turns that are that near are read together, so the extractor has compared what they say."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a fact may change: a memory, or a fact of the same call that was told before it.

    Attributes:
        text: What it says.
        id: The memory; None for a fact.
        fact: The position of the fact; None for a memory.
        last_told: When it was told last.
        since: When it began to hold.
        name: Whom it is about, when that is known.
    """

    text: str
    id: str | None = None
    fact: int | None = None
    last_told: datetime | None = None
    since: datetime | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What is decided of some facts before a model is asked, and what it is to be asked.

    Attributes:
        facts: All facts.
        known: What they may change; the prompt numbers them from 1.
        decided: Decisions that need no model, by the fact's position.
        undecided: Positions of the facts to ask about; the prompt numbers them from 1.
    """

    facts: tuple[Fact, ...]
    known: tuple[Known, ...]
    decided: Mapping[int, Decision]
    undecided: tuple[int, ...]


class LLMReconciler:
    """Decides with a chat model; one call for all facts. Threads and event loops may share it.

    The model sees numbers, never ids, and its reply is only a proposal: a fact can end only what it has something in
    common with, and nothing that was told after it; one with another number, or a denial, is no repetition. A DELETE of
    nothing that was to be forgotten, which says more than that something ended, counts as an UPDATE. Tool output is
    added as it is, without asking: it never ends what a person said.

    Args:
        model: Any LangChain chat model.
        method: How the model is held to the form of the reply; None decides by what it supports.
        timeout: Seconds after which the call counts as failed; None leaves that to the model.

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

    def __init__(
        self,
        model: BaseChatModel,
        *,
        custom_prompt: str | None = None,
        method: Method | None = None,
        timeout: float | None = None,
    ) -> None:
        if custom_prompt is not None and not (isinstance(custom_prompt, str) and custom_prompt.strip()):
            raise InvalidInput("The prompt of reconciliation must be a text; leave it out to use the built-in one.")
        parts: tuple[str, ...] = (RECONCILIATION_INSTRUCTIONS, RECONCILIATION_CONTRACT, RECONCILIATION_EXAMPLES)
        self.version = RECONCILIATION_VERSION
        if custom_prompt is not None:
            # Our examples show what our instructions want, so they go with them.
            parts = (custom_prompt.strip(), RECONCILIATION_CONTRACT)
            self.version = version_of("custom", *parts)
        self._instructions = "\n\n".join(parts)
        self._chat = StructuredChat(
            model, RECONCILIATION_SCHEMA, run_name="reconciliation", method=method, timeout=timeout
        )

    @stepped
    def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> Steps[list[Decision]]:
        """One decision for each fact, in order; then a REJECTED one for each part of the reply that names no fact.

        The facts are in order of time; the candidates are the memories that they may change.

        Raises:
            ExtractionError: the model failed, or its reply cannot be read.
        """
        question = ask(facts, candidates)
        if not question.undecided:
            return self.parse(question, None)
        return (yield from self._chat.asking(self.build(question), lambda reply: self.parse(question, reply)))

    areconcile = awaited(reconcile)

    def build(self, question: Question) -> list[BaseMessage]:
        """The prompt: instructions, contract and examples, then memories and facts as fenced JSON."""
        from langchain_core.messages import HumanMessage, SystemMessage

        numbered = {position: number for number, position in enumerate(question.undecided, 1)}
        memories = (
            {
                "memory": number,
                **({} if memory.fact not in numbered else {"fact": numbered[memory.fact]}),
                **_dated(memory.last_told, memory.since),
                "text": _short(memory.text),
            }
            for number, memory in enumerate(question.known, 1)
        )
        facts = (
            {
                "fact": number,
                **_dated(fact.said_at, fact.valid_at),
                **({"retract": True} if is_retraction(fact) else {}),
                "text": _short(fact.text),
            }
            for number, fact in enumerate((question.facts[k] for k in question.undecided), 1)
        )
        shown = (show_records("memories", memories), show_records("facts", facts))
        return [SystemMessage(self._instructions), HumanMessage("\n".join(shown))]

    def parse(self, question: Question, reply: str | None) -> list[Decision]:
        """The decisions in a reply, with our own checks made; None is no reply, as nothing was asked.

        Raises:
            ExtractionError: nothing in the reply can be read.
        """
        forms: dict[int, FoundDecision] = {}
        strays: list[Decision] = []
        if reply is not None:
            reading = read_entries(reply, "decisions", _MARKS)
            for entry in reading.entries:
                form = FoundDecision.model_validate(entry) if isinstance(entry, Mapping) else None
                position, reason = _fact_of(form, question.undecided, forms)
                if form is None or position is None:
                    strays.append(Decision("REJECTED", None, text=_line(entry, FACT_CHARS), reason=reason))
                else:
                    forms[position] = form
            if reading.lost is not None:
                cut = "the reply breaks off or cannot be read from here on"
                strays.append(Decision("REJECTED", None, text=_line(reading.lost, FACT_CHARS), reason=cut))
        decided = {**question.decided, **{position: _checked(position, forms, question) for position in forms}}
        for position, fact in enumerate(question.facts):
            if position not in decided:
                decided[position] = _added(position, fact, "the reply did not decide about it")
        for position, again in question.decided.items():
            for k in range(position) if again.action == "NONE" else ():
                if decided[k].action in ("UPDATE", "DELETE") and _target(decided[k]) == _target(again):
                    fact, reason = question.facts[k], "the memory was told again after it"
                    decided[k] = replace(_added(k, fact, reason), until=question.facts[position].said_at)
        decisions = _claimed([decided[k] for k in range(len(question.facts))], question)
        return [*_repeated(decisions, question), *_bounded(strays)]


class RuleReconciler:
    """Decides without a model: a fact whose text equals a memory's says it again, any other is new.

    Equal means equal but for how it is written (`fact_hash`), never similar. A retraction ends what it equals.
    """

    def reconcile(self, facts: Sequence[Fact], candidates: Sequence[Candidate]) -> list[Decision]:
        """One decision for each fact, in order."""
        question = ask(facts, candidates)
        added = {k: _added(k, question.facts[k], None) for k in question.undecided}
        decided = {**question.decided, **added}
        return _claimed([decided[k] for k in range(len(facts))], question)

    areconcile = awaited(reconcile)


def all_added(facts: Sequence[Fact]) -> list[Decision]:
    """The decisions where nobody decides: ADD, and REJECTED for what asks to forget something."""
    return [_added(k, fact, None) for k, fact in enumerate(facts)]


# -- what needs no model ----------------------------------------------------------------------------------------------


def ask(facts: Sequence[Fact], candidates: Sequence[Candidate]) -> Question:
    """What needs no model is decided here: tool output, texts that equal what is known, and what nothing is near to."""
    memories = [Known(m.text, m.id, None, m.last_seen, m.valid_at, m.name) for m in candidates]
    equal = {fact_hash(memory.text): memory for memory in reversed(memories)}
    own = [Known(fact.text, None, k, fact.said_at, fact.valid_at, fact.name) for k, fact in enumerate(facts)]
    decided: dict[int, Decision] = {}
    shown: dict[int, Known] = {}
    # Each is compared with all before it: what one says by itself is asked for once.
    telling = [terms_but_speaker(fact.text) for fact in facts]
    for k, fact in enumerate(facts):
        if fact.metadata.get(QUARANTINE):
            decided[k] = _added(k, fact, None)
            continue
        fresh = [i for i in range(k) if i not in decided or decided[i].action == "ADD"]
        mine = telling[k] - terms_but_speaker(fact.name or "")
        near = {i: shared for i in fresh if (shared := _nearness(fact, facts[i], len(mine & telling[i])))}
        ends = ENDS.search(fact.text) is not None and not is_retraction(fact)
        if (twin := equal.get(fact_hash(fact.text))) is not None:
            decided[k] = _ended_or_told(k, fact, twin)
        elif ended := [i for i in near if ends and _takes_back(fact, facts[i])]:
            reason = "it says that what was told before has ended"
            decided[k] = _about("UPDATE", k, [own[i] for i in ended], fact.text, reason)
            equal = {text: known for text, known in equal.items() if known.fact not in ended}
        else:
            most = MOST_EARLIER if is_retraction(fact) else 2
            best = sorted(near, key=near.__getitem__, reverse=True)[:most]
            shown.update((i, own[i]) for i in best[: MOST_EARLIER - len(shown)])
            if not candidates and shown.keys().isdisjoint(near):
                decided[k] = _added(k, fact, None)
        if not is_retraction(fact):
            equal.setdefault(fact_hash(fact.text), own[k])
    known = (*memories, *shown.values())
    return Question(tuple(facts), known, decided, tuple(k for k in range(len(facts)) if k not in decided))


def _nearness(fact: Fact, before: Fact, shared: int) -> int:
    """How much a fact is to be compared with one told before it in the same call, by how many telling words they share.

    What asks to forget something may mean anything; other facts, what shares telling words with them and was told so
    far from them that the extractor cannot have compared the two.
    """
    if before.metadata.get(QUARANTINE) or is_retraction(before):
        return 0
    if is_retraction(fact):
        return 1 + shared
    turns = fact.turns[:1] and before.turns[-1:] and fact.turns[0] - before.turns[-1] >= _SAME_TALK
    times = fact.said_at is not None and before.said_at is not None and fact.said_at - before.said_at >= _SAME_TIME
    return shared if turns or times else 0


def _takes_back(fact: Fact, before: Fact) -> bool:
    """Whether a fact that tells an end says all that an earlier one does ("in Berlin, no longer in Paris")."""
    return fact.name == before.name and not denies(before.text) and terms(before.text) <= terms(fact.text)


def _ended_or_told(position: int, fact: Fact, twin: Known) -> Decision:
    if not is_retraction(fact):
        return _about("NONE", position, [twin], reason="equal texts")
    if _is_older(fact, twin):
        return _refused(position, "the memory was told after it")
    return _about("DELETE", position, [twin], reason="taken back")


def _about(
    action: Action, position: int, targets: Sequence[Known], text: str | None = None, reason: str | None = None
) -> Decision:
    """A decision about the first of its targets, which ends the others."""
    first = targets[0]
    others = [target.id for target in targets if target.id is not None and target.id != first.id]
    earlier = [target.fact for target in targets if target.fact is not None]
    return Decision(action, position, first.id, text, reason, also=tuple(others), earlier=tuple(earlier))


def _added(position: int, fact: Fact, reason: str | None) -> Decision:
    # What a retraction states is what is to be forgotten: stored, it would say the opposite.
    if is_retraction(fact):
        return _refused(position, reason or "nothing that is known says what it asks to forget")
    return Decision("ADD", position, reason=reason)


def _refused(position: int, reason: str) -> Decision:
    return Decision("REJECTED", position, reason=reason)


def _is_older(fact: Fact, memory: Known) -> bool:
    """Whether a fact was said clearly before the memory was told last."""
    if fact.said_at is None or memory.last_told is None:
        return False
    return fact.said_at + _SAME_TIME < memory.last_told


# -- the prompt -------------------------------------------------------------------------------------------------------


def _dated(date: datetime | None, since: datetime | None) -> dict[str, str]:
    dates = {"date": date, "since": since}
    return {name: f"{moment:%Y-%m-%d}" for name, moment in dates.items() if moment is not None}


def _short(text: str) -> str:
    return shortened(storable(text), _SHOWN_TOKENS)


# -- one entry of a reply ---------------------------------------------------------------------------------------------


def _fact_of(form: FoundDecision | None, undecided: Sequence[int], forms: Mapping[int, Any]) -> tuple[int | None, str]:
    """The position of the fact that an entry decides about, or None and why it is none."""
    if form is None:
        return None, "it is no object with a fact and an action"
    number = form.fact[0] if len(form.fact) == 1 else 0
    if not 0 < number <= len(undecided):
        return None, "it names no fact that was asked about"
    if undecided[number - 1] in forms:
        return None, f"fact {number} was decided before"
    return undecided[number - 1], ""


def _checked(position: int, forms: Mapping[int, FoundDecision], question: Question) -> Decision:
    """The entry about a fact as the decision that our own checks make of it."""
    form, fact = forms[position], question.facts[position]
    reason = form.reason[:REASON_CHARS] or None
    if form.action == "ADD":
        return _added(position, fact, reason)
    if form.action not in ("UPDATE", "DELETE", "NONE"):
        return _added(position, fact, f"there is no action {form.action!r}")
    shown = {
        number: known for number, known in enumerate(question.known, 1) if known.fact is None or known.fact < position
    }
    targets = [shown[number] for number in dict.fromkeys((*form.memory, *form.also)) if number in shown]
    if not targets:
        return _added(position, fact, f"{form.action} names no memory that it was shown")
    if form.action == "NONE" and not is_retraction(fact):
        return _about("NONE", position, targets[:1], reason=reason)
    if form.action == "NONE" and not terms(fact.text) <= terms(targets[0].text):
        return _added(position, fact, None)
    if _is_older(fact, targets[0]):
        return _older(position, fact, targets[0], form)
    targets = _spoken_of(fact, targets, question)
    if not targets:
        return _added(position, fact, f"it has nothing in common with the memory of its {form.action}")
    if _is_of_another(fact, targets[0], form.text):
        other = "the memory is about somebody else"
        return _refused(position, other) if is_retraction(fact) else _added(position, fact, other)
    if form.action == "UPDATE" and are_logged(fact.text, targets[0].text):
        return _added(position, fact, "what was measured on another day")
    if form.action == "UPDATE":
        # A text says what all facts do that the reply has of this memory.
        of_it = [k for k, other in forms.items() if other.memory == form.memory and other.action in ("UPDATE", "NONE")]
        return _updated(position, fact, targets, form.text, reason, [question.facts[k] for k in of_it])
    claimed = {number for other in forms.values() for number in (*other.memory, *other.also)}
    return _deleted(position, fact, targets, reason, [known.text for n, known in shown.items() if n not in claimed])


def _older(position: int, fact: Fact, memory: Known, form: FoundDecision) -> Decision:
    """What a fact does that was said before the memory was told: it may add to it, and else is history."""
    if is_retraction(fact):
        return _refused(position, "the memory was told after it")
    if form.action == "UPDATE" and terms(memory.text) <= terms(form.text):
        return _updated(position, fact, [memory], form.text, form.reason or None)
    return Decision("ADD", position, reason="the memory was told after it", until=memory.since or memory.last_told)


def _spoken_of(fact: Fact, targets: Sequence[Known], question: Question) -> list[Known]:
    """Of what a decision would end, what its fact speaks about."""
    first, *others = targets
    if not is_retraction(fact):
        others = [other for other in others if not _says_of_another(fact, first, other)]
        # What most of the memories say tells none of them, such as the name of whom they are about.
        usual = Counter(term for known in question.known for term in set(telling_terms(known.text)))
        few = {term for term, count in usual.items() if count < max(5, len(question.known) * 0.75)}
        said = few.intersection(telling_terms(f"{matter_of(fact, fact.text)} {matter_of(fact, first.text)}"))
        # What is said in another language shares no word; of much of it a model that ends everything is more likely.
        foreign = [other for other in others if scripts_differ(fact.text, other.text)]
        spoken = [
            other
            for other in others
            if (other in foreign and len(foreign) <= _MOST_UNRELATED) or not said.isdisjoint(telling_terms(other.text))
        ]
        return [first, *spoken][:MOST_ENDED]
    if fact.name is None and words(matter_of(fact, fact.text)) and is_name(fact):
        return list(targets)
    # Words that share nothing with a memory may still mean it, in another language say, but not most of what is known.
    strangers = [target for target in targets if not has_in_common(fact, target.text)]
    if len(strangers) <= max(_MOST_UNRELATED, len(question.known) // 2) and not is_name(fact):
        return list(targets)[:MOST_ENDED]
    return [target for target in targets if target not in strangers]


def _is_of_another(fact: Fact, memory: Known, text: str) -> bool:
    """Whether a fact about one, whose name it begins with, would stand in place of what is known of another."""
    name, known_name = fact.name or "", memory.name or ""
    return (
        _are_proper(name, known_name)
        and fact.text.casefold().startswith(name.casefold())
        and memory.text.casefold().startswith(known_name.casefold())
        and terms(name).isdisjoint(terms(memory.text))
        and terms(known_name).isdisjoint(terms(f"{fact.text} {text}"))
    )


def _says_of_another(fact: Fact, first: Known, other: Known) -> bool:
    """Whether a memory says of somebody whom the fact is not about what the first one says: it holds on."""
    if other.name is None or other.name == first.name or are_several(fact.text):
        return False
    who, said = terms(matter_of(fact, other.name)), terms(matter_of(fact, first.text)) - terms(first.name or "")
    return bool(who and said) and who.isdisjoint(terms(f"{fact.text} {first.text}")) and said <= terms(other.text)


def _updated(
    position: int, fact: Fact, targets: Sequence[Known], text: str, reason: str | None, of_it: Sequence[Fact] = ()
) -> Decision:
    memory = targets[0]
    if not words(text):
        return _added(position, fact, "UPDATE has no text")
    if len(text) > FACT_CHARS:
        return _added(position, fact, f"the text of UPDATE is longer than {FACT_CHARS} characters")
    if len(memory.text) > FACT_CHARS:
        return _added(position, fact, "the memory is too long to be written anew")
    if is_retraction(fact):
        if not terms(text) < terms(memory.text) or terms(fact.text) <= terms(text):
            return _refused(position, "the text of UPDATE is not the rest of the memory")
    elif not is_grounded(text, fact, of_it, [target.text for target in targets]):
        text, reason = fact.text, _OWN_WORDS
    elif any(terms(text) <= terms(one.text) and is_untold(fact.text, one.text, dated=False) for one in targets):
        return _added(position, fact, "the text of UPDATE does not say it")
    if fact_hash(text) == fact_hash(memory.text):
        return _about("NONE", position, [memory], reason="the text of UPDATE is the memory's")
    return _about("UPDATE", position, targets, text, reason)


def _deleted(
    position: int, fact: Fact, targets: Sequence[Known], reason: str | None, unclaimed: Sequence[str]
) -> Decision:
    if is_retraction(fact):
        return _about("DELETE", position, targets, reason=reason)
    said = terms(matter_of(fact, fact.text))
    if not has_in_common(fact, targets[0].text):
        return _added(position, fact, "it has nothing in common with the memory to delete")
    if not said <= terms(targets[0].text) and any(said <= terms(text) for text in unclaimed):
        return _added(position, fact, "it takes back another memory")
    if not only_ends(fact, [target.text for target in targets]):
        reason = "it says more than that the memory ended"
        return _about("UPDATE", position, targets, fact.text, reason)
    return _about("DELETE", position, targets, reason=reason)


def _claimed(decisions: Sequence[Decision], question: Question) -> list[Decision]:
    """The decisions, with each memory changed by one fact only: of those that its new text tells, one that dates it.

    What else the new text says is NONE, and comes after it, so that it supports what holds now.
    """
    kept, holders = _changed_once(decisions, question)
    late: list[int] = []
    for target, k in holders.items():
        with_it = [i for i, other in enumerate(kept) if other.action == "NONE" and _target(other) == target]
        before = next((known.text for known in question.known if target in (known.id, known.fact)), "")
        text = kept[k].text or ""
        best = max((k, *with_it), key=lambda i: _part_in(question.facts[i], text, before))
        if best != k and kept[k].reason != _OWN_WORDS:
            kept[best], kept[k] = replace(kept[k], fact=best), replace(kept[best], fact=k)
            fact = question.facts[k]
            if k < best and is_replaced(fact.text, text):
                added = _added(k, fact, "another fact of the same memory came after it")
                kept[k] = replace(added, until=question.facts[best].said_at)
            elif has_in_common(fact, text) and not is_untold(fact.text, f"{text}\n{before}"):
                kept[k] = _told_by(kept[k], kept[best])
        for i in (k, *with_it):
            said = question.facts[i].text
            # What was told again before it changed is over with it.
            if i < best and (_covers(text, said) or not _covers(before, said)):
                late.append(i)
    return [*(one for i, one in enumerate(kept) if i not in late), *(kept[i] for i in late)]


def _changed_once(decisions: Sequence[Decision], question: Question) -> tuple[list[Decision], dict[str | int, int]]:
    """The decisions, with each memory changed by one fact only; and by memory which fact gives it a new text."""
    kept = list(decisions)
    holders: dict[str | int, int] = {}
    taken: set[str | int] = set()
    for k, decision in enumerate(decisions):
        if decision.action not in ("UPDATE", "DELETE"):
            continue
        target = _target(decision)
        holder = holders.get(target)
        others = tuple(other for other in decision.also if other not in taken)
        if target not in taken:
            kept[k] = replace(decision, also=others)
            taken |= {target, *others}
            holders |= {target: k} if decision.action == "UPDATE" else {}
        elif holder is None or decision.action == "DELETE" or is_retraction(question.facts[k]):
            kept[k] = _instead(decision, question, "another fact changes the same memory")
        elif _covers(kept[holder].text, decision.text):
            kept[k] = _told_by(decision, kept[holder])
            kept[holder] = replace(kept[holder], also=(*kept[holder].also, *others))
            taken |= {*others}
        elif _covers(decision.text, kept[holder].text):
            whole = replace(decision, also=(*kept[holder].also, *others))
            kept[k], kept[holder], holders[target] = whole, _told_by(kept[holder], decision), k
            taken |= {*others}
        else:
            kept[k] = _instead(decision, question, "another fact changes the same memory")
    return kept, holders


def _repeated(decisions: Sequence[Decision], question: Question) -> list[Decision]:
    """The decisions; what repeats nothing, since it shares no word, has another number or denies it, is added."""
    before = {known.fact if known.id is None else known.id: known for known in question.known}
    updates = {_target(decision): decision for decision in decisions if decision.action == "UPDATE"}

    def repeats(decision: Decision) -> bool:
        fact, target = question.facts[decision.fact or 0], _target(decision)
        if decision.reason == _IN_NEW_TEXT:
            return True
        one, update = before.get(target), updates.get(target)
        known = one.text if one else fact.text
        if update is not None:
            # The model had it in view when it wrote a new text that says it too, whatever else that denies.
            if not denies(fact.text) and says(update.text or "", fact.text):
                return True
            # What only the text said that was not taken would be lost.
            if update.reason == _OWN_WORDS:
                return False
            known = f"{known}\n{update.text}"
            if says_little(known, fact) or is_untold(fact.text, known):
                return False
        # In another language the same is said in other words.
        foreign = scripts_differ(fact.text, known)
        if update is None and not foreign and is_untold(fact.text, known, dated=False):
            return False
        alike = foreign or has_in_common(fact, known)
        # Of 小雅 is said the same as of 小丽; "User's daughter" may have a name.
        name, known_name = fact.name or "", (one and one.name) or ""
        same = name not in known and fact.text.replace(name, "") == known.replace(known_name, "")
        return alike and not (_are_proper(name, known_name) and same) and not differs(fact.text, known)

    return [
        decision
        if decision.action != "NONE" or repeats(decision)
        else _instead(decision, question, "NONE of a memory that says something else")
        for decision in decisions
    ]


def _are_proper(name: str, other: str) -> bool:
    """Whether two are called by names, and not by what they are to who speaks."""
    return bool(name and other) and terms_but_speaker(f"{name} {other}") == {*telling_terms(f"{name} {other}")}


def _covers(text: str | None, other: str | None) -> bool:
    whole, part = text or "", other or ""
    return terms(part) <= terms(whole) and denies(whole) == denies(part)


def _told_by(decision: Decision, update: Decision) -> Decision:
    """The decision that a fact is told by another one's new text."""
    repeated = replace(update, action="NONE", fact=decision.fact, text=None, also=(), earlier=update.earlier[:1])
    return replace(repeated, reason=_IN_NEW_TEXT)


def _part_in(fact: Fact, text: str, before: str) -> tuple[bool, bool]:
    """Whether a fact gives a text its day, and whether it gives it anything that it did not say before."""
    return gives_day(fact, text), not (terms(text) - terms(before)).isdisjoint(terms(fact.text))


def _target(decision: Decision) -> str | int:
    """The memory or the earlier fact that a decision is about."""
    return decision.earlier[0] if decision.memory_id is None else decision.memory_id


def _instead(decision: Decision, question: Question, reason: str) -> Decision:
    position = decision.fact or 0
    return _added(position, question.facts[position], reason)


def _bounded(strays: Sequence[Decision]) -> list[Decision]:
    kept = list(strays[:MOST_STRAYS])
    if more := len(strays) - len(kept):
        kept.append(Decision("REJECTED", None, text="", reason=f"{more} more parts of the reply name no fact"))
    return kept


def _line(value: Any, most: int) -> str:
    """Anything as one line of at most `most` characters."""
    return "" if value is None else " ".join(storable(str(value)).split())[:most]
