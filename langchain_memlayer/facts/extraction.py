"""Turns to facts and triples, by a chat model: one call for each window of a conversation.

```
turns ── windows ──> build(window, now) ── model ──> parse(window, reply) ── checks ──> facts | rejections
```
`build` and `parse` are pure; between them are the calls, side by side, plain or awaited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from langchain_memlayer.errors import ExtractionError, InvalidInput, shown
from langchain_memlayer.facts.chat import Method, StructuredChat
from langchain_memlayer.facts.grounding import denies, fact_hash, is_said, keeps_script, words
from langchain_memlayer.facts.numerals import as_exact, unsaid_number
from langchain_memlayer.facts.prompts import (
    EXTRACTION_CONTRACT,
    EXTRACTION_EXAMPLES,
    EXTRACTION_INSTRUCTIONS,
    EXTRACTION_SCHEMA,
    EXTRACTION_VERSION,
    KNOWN,
    estimate_tokens,
    fitting,
    shortened,
    show_conversation,
    speaker,
    version_of,
)
from langchain_memlayer.facts.replies import read_entries, storable
from langchain_memlayer.facts.reply_forms import FACT_CHARS, MOST_WORDS, NAME_CHARS, QUOTE_CHARS, WORD_CHARS, FoundFact
from langchain_memlayer.facts.wording import ENDS, terms
from langchain_memlayer.graph.names import SPEAKERS
from langchain_memlayer.protocols import Clock
from langchain_memlayer.steps import Steps, awaited, request, stepped
from langchain_memlayer.types import QUARANTINE, RETRACT, Extraction, Fact, Rejection, Triple, Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

WINDOW_TOKENS: Final = 4_000
WINDOW_TURNS: Final = 40
OVERLAP: Final = 4

_MARKS: Final = frozenset(FoundFact.model_fields)
_NOBODY: Final = frozenset(SPEAKERS).union(
    """
    assistant human ai i me 助手 l'utilisateur l’utilisateur l'utilisatrice l’utilisatrice l'utente
    """.split()  # noqa: SIM905 - a table of words reads better than their list
)
_ARTICLES: Final = frozenset({"the", "der", "el", "la", "le", "il", "o", "a", "de"})
_CUT: Final = "the reply breaks off or cannot be read from here on"
_SENTENCE_ENDS: Final = ("\n", ". ", "! ", "? ", "。", "！", "？")
_NUMBER = re.compile(r"\[\d+\]\s*")
_LABEL = re.compile(r"(?:[\d-]{10}\s\w{3},\s*)?([^:：]{1,210})[:：]\s*")
# What is not known of a date is "XX" or "00".
_DATE = re.compile(
    r"(\d{4})(?:[-/.\u2010\u2011年](\d{1,2})(?:[-/.\u2010\u2011月](\d{1,2}))?)?(?:-[xX?]{1,2})*(?![\d\u2010-\u2014-])"
)


@dataclass(frozen=True, slots=True)
class Window:
    """What one call reads.

    Attributes:
        places: For each numbered turn its place (0-based) among the extractor's turns, ascending.
        turns: What is shown of these turns: all, or one piece of a very long one. Quotes are sought in it alone.
        before: Earlier turns, which are shown but not extracted.
    """

    places: tuple[int, ...]
    turns: tuple[Turn, ...]
    before: tuple[Turn, ...] = ()


class LLMExtractor:
    """Finds facts and triples with a chat model; one call for each window. Threads and event loops may share it.

    A fact is refused, and the refusal recorded, when nobody said its quote, when it is empty, longer than 500
    characters, in another script than its quote, or states a number that contradicts it. Facts from tool output carry
    `quarantined` in their metadata, facts that the user asks to forget carry `retract`.

    Args:
        model: Any LangChain chat model.
        custom_prompt: Instructions to use in place of ours; what form the reply must have is added to them.
        custom_instructions: Further instructions, such as what to look for and what to leave out.
        window_tokens: About how many tokens of conversation one call reads. Longer turns are split; of tool output only
            the first quarter of a window is read.
        window_turns: How many turns one call reads at most.
        overlap: How many turns before a window are shown with it, for understanding. The first window is shown all the
            context that the caller gives.
        max_concurrency: How many windows are in flight at once.
        method: How the model is held to the form of the reply; None decides by what it supports.
        timeout: Seconds after which a call counts as failed; None leaves that to the model.
        clock: The present time, for turns that do not tell theirs.

    Attributes:
        version: Says which prompt is used; it changes with every word of it.

    Raises:
        InvalidInput: a setting is out of range.
        ConfigurationError: `model` is no chat model, or does not support `method`.

    Example:
        ```python
        extractor = LLMExtractor(init_chat_model("openai:gpt-4o-mini"))
        extractor.extract([Turn("I moved to Berlin.", name="Anna")], []).facts[0].text
        ```
    """

    def __init__(
        self,
        model: BaseChatModel,
        *,
        custom_prompt: str | None = None,
        custom_instructions: str | None = None,
        window_tokens: int = WINDOW_TOKENS,
        window_turns: int = WINDOW_TURNS,
        overlap: int = OVERLAP,
        max_concurrency: int = 8,
        method: Method | None = None,
        timeout: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        least = {"window_tokens": 200, "window_turns": 1, "overlap": 0, "max_concurrency": 1}
        given = (window_tokens, window_turns, overlap, max_concurrency)
        for (name, minimum), value in zip(least.items(), given, strict=True):
            if not isinstance(value, int) or value < minimum:
                raise InvalidInput(f"{name} must be a whole number of at least {minimum}, got {shown(value)}.")
        for name, text in (("custom_prompt", custom_prompt), ("custom_instructions", custom_instructions)):
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise InvalidInput(
                    f"{name} must be a text, got {shown(text)}; leave it out to use the built-in instructions."
                )
        parts: tuple[str, ...] = (EXTRACTION_INSTRUCTIONS, EXTRACTION_CONTRACT, EXTRACTION_EXAMPLES)
        self.version = EXTRACTION_VERSION
        if custom_prompt is not None:
            # Our examples show what our instructions want, so they go with them.
            parts = (custom_prompt.strip(), EXTRACTION_CONTRACT)
        if custom_instructions is not None:
            parts = (parts[0], f"Further instructions:\n{custom_instructions.strip()}", *parts[1:])
        if custom_prompt is not None or custom_instructions is not None:
            self.version = version_of("custom", *parts)
        self._instructions = "\n\n".join(parts)
        self._window_tokens = window_tokens
        self._window_turns = window_turns
        self._overlap = overlap
        self._max_concurrency = max_concurrency
        self._clock = clock or partial(datetime.now, UTC)
        self._chat = StructuredChat(model, EXTRACTION_SCHEMA, run_name="extraction", method=method, timeout=timeout)

    @stepped
    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Steps[Extraction]:
        """The facts in `turns`, in their order.

        A window whose reply broke off is read once more, in two halves.

        Args:
            turns: What to read.
            context: What helps to understand them: what is known (turns of the role `memory`), then earlier turns.

        Raises:
            ExtractionError: the model failed on a window, or its reply cannot be read; nothing of the others is kept.
        """
        now = self._clock()
        windows = self.windows(turns, context)
        kept, halves = _split_broken(windows, (yield from self._read(windows, now)))
        return merged([*kept, *(yield from self._read(halves, now))])

    aextract = awaited(extract)

    def _read(self, windows: Sequence[Window], now: datetime) -> Steps[list[Extraction]]:
        """What the model finds in each window."""
        prompts = [self.build(window, now) for window in windows]
        calls = prompts, [partial(self.parse, window, now=now) for window in windows], self._max_concurrency
        return request(lambda: self._chat.ask_all(*calls), lambda: self._chat.aask_all(*calls))

    def windows(self, turns: Sequence[Turn], context: Sequence[Turn] = ()) -> list[Window]:
        """The windows that `turns` are read in, in order; each turn is in one of them, a very long one in several."""
        windows: list[Window] = []
        shown: list[tuple[int, Turn]] = []
        room = self._window_tokens
        for place, turn in self._pieces(turns):
            size = estimate_tokens(turn.text)
            if shown and (size > room or len(shown) == self._window_turns):
                windows.append(self._window(turns, context, shown))
                shown, room = [], self._window_tokens
            shown.append((place, turn))
            room -= size
        if shown:
            windows.append(self._window(turns, context, shown))
        return windows

    def _pieces(self, turns: Sequence[Turn]) -> Iterator[tuple[int, Turn]]:
        """What is shown of the turns, with their places, each within a window's budget."""
        for place, turn in enumerate(turns):
            if turn.quarantined:
                yield place, replace(turn, text=shortened(turn.text, self._window_tokens // 4))
                continue
            for piece in _split(turn.text, self._window_tokens):
                yield place, replace(turn, text=piece)

    def _window(self, turns: Sequence[Turn], context: Sequence[Turn], shown: Sequence[tuple[int, Turn]]) -> Window:
        first = shown[0][0]
        known = [turn for turn in context if turn.role == KNOWN]
        before = [*known, *turns[max(0, first - self._overlap) : first]] if first else list(context)
        places, read = zip(*shown, strict=True)
        return Window(places, read, tuple(before))

    def build(self, window: Window, now: datetime) -> list[BaseMessage]:
        """The prompt for a window: instructions and contract, then the conversation."""
        from langchain_core.messages import HumanMessage, SystemMessage

        share = self._window_tokens // 4 // max(1, len(window.before))
        before = [(turn, shortened(turn.text, max(share, 40))) for turn in window.before]
        numbered = [(turn, turn.text) for turn in window.turns]
        return [SystemMessage(self._instructions), HumanMessage(show_conversation(numbered, before, now))]

    def parse(self, window: Window, reply: str, now: datetime) -> Extraction:
        """What a reply says of a window, with our own checks made; `now` is the time of turns that do not tell theirs.

        Raises:
            ExtractionError: nothing in the reply can be read.
        """
        reading = read_entries(reply, "facts", _MARKS)
        if reading.entries and all(isinstance(entry, str) for entry in reading.entries):
            raise ExtractionError(
                "The chat model's reply lists sentences in place of objects with a turn and a quote, so no fact was "
                "written. The error's `reply` has it; try again, use a model that follows instructions, or take the "
                "examples of replies out of your own prompt.",
                reply=reply,
            )
        said = [words(turn.text) for turn in window.turns]
        checked = [_checked(entry, window, said, now) for entry in reading.entries]
        rejected = [one for one in checked if isinstance(one, Rejection)]
        if reading.lost is not None:
            rejected.append(Rejection(storable(reading.lost), _CUT))
        return Extraction(tuple(one for one in checked if isinstance(one, Fact)), tuple(rejected))


def _split_broken(windows: Sequence[Window], parts: Sequence[Extraction]) -> tuple[list[Extraction], list[Window]]:
    """What was read of windows that need not be read again, and the halves of the others."""
    kept: list[Extraction] = []
    halves: list[Window] = []
    for window, part in zip(windows, parts, strict=True):
        half = len(window.turns) // 2
        if not half or all(refusal.reason != _CUT for refusal in part.rejected):
            kept.append(part)
            continue
        first = Window(window.places[:half], window.turns[:half], window.before)
        known = [turn for turn in window.before if turn.role == KNOWN]
        before = (*known, *first.turns[-OVERLAP:])
        halves += [first, Window(window.places[half:], window.turns[half:], before)]
    return kept, halves


def merged(parts: Sequence[Extraction]) -> Extraction:
    """The extractions of several windows as one, in the order of turns.

    Equal facts (`fact_hash`) become one that cites the turns of all. What comes from tool output never joins one that a
    person stated, or it would take it into quarantine; it is left out.
    """
    facts: dict[tuple[str, bool], Fact] = {}
    for fact in (fact for part in parts for fact in part.facts):
        key = (fact_hash(fact.text), RETRACT in fact.metadata)
        known = facts.get(key)
        if known is None or (_is_quarantined(known) and not _is_quarantined(fact)):
            facts[key] = fact
        elif _is_quarantined(known) == _is_quarantined(fact):
            facts[key] = replace(
                known,
                turns=tuple(dict.fromkeys((*known.turns, *fact.turns))),
                triples=tuple(dict.fromkeys((*known.triples, *fact.triples))),
                valid_at=known.valid_at or fact.valid_at,
                valid_until=known.valid_until or fact.valid_until,
                name=known.name or fact.name,
                corrects=tuple(dict.fromkeys((*known.corrects, *fact.corrects))),
                words=tuple(dict.fromkeys((*known.words, *fact.words))),
            )
    ordered = sorted(facts.values(), key=lambda fact: fact.turns[0])
    return Extraction(tuple(ordered), tuple(refusal for part in parts for refusal in part.rejected))


def _is_quarantined(fact: Fact) -> bool:
    return bool(fact.metadata.get(QUARANTINE))


def _split(text: str, tokens: int) -> Iterator[str]:
    """A text in pieces of about `tokens` tokens, cut after a sentence or a word where there is one."""
    # So many characters are more than these tokens, whatever comes after them.
    while estimate_tokens(text[: 4 * tokens + 1]) > tokens:
        end = fitting(text, tokens)
        ends = [text.rfind(mark, end // 2, end) + len(mark) for mark in _SENTENCE_ENDS if mark in text[end // 2 : end]]
        end = max(ends, default=0) or text.rfind(" ", end // 2, end) + 1 or end
        yield text[:end]
        text = text[end:]
    if text.strip():
        yield text


# -- one entry of a reply ---------------------------------------------------------------------------------------------


def _checked(entry: Any, window: Window, said: Sequence[Sequence[str]], now: datetime) -> Fact | Rejection:
    """One entry as a fact, or why it is none."""
    if not isinstance(entry, Mapping):
        return Rejection(_shown(entry), "it is no object with a turn and a quote")
    form = FoundFact.model_validate(entry)
    quote, refused = _unlabelled(form.quote, window), form.quote[:QUOTE_CHARS] or None
    if (reason := _fault(form.fact, quote)) is not None:
        return Rejection(form.fact[:FACT_CHARS] or _shown(entry), reason, refused)
    places = _places(form.turn, quote, window, said)
    if isinstance(places, str):
        return Rejection(form.fact, places, refused)
    # In a Chinese message English words may be all that is quoted.
    if not any(keeps_script(said, form.fact) for said in (quote, *(window.turns[place].text for place in places))):
        return Rejection(form.fact, "it is not in the language of its quote", refused)
    if (number := _contradicting_number(form.fact, quote, window, places, now)) is not None:
        return Rejection(form.fact, f"nobody said its number {number}", refused)
    quarantined = any(window.turns[place].quarantined for place in places)
    retract = form.retract and _may_be_forgotten(form.fact, window, places)
    if retract and quarantined:
        return Rejection(form.fact, "a tool's output cannot ask to forget something", refused)
    flags = {RETRACT: retract, QUARANTINE: quarantined}
    name = form.subject
    wrong = (number - 1 for number in form.corrects if 0 < number <= places[0] and number - 1 not in places)
    return Fact(
        text=as_exact(form.fact, quote),
        turns=tuple(dict.fromkeys(window.places[place] for place in places)),
        quote=quote,
        triples=tuple(Triple(*parts) for parts in form.triples),
        valid_at=_date(form.valid_at),
        valid_until=_date(form.valid_until, last=True),
        name=name if name and len(name) <= NAME_CHARS and not _is_nobody(name) else None,
        metadata={flag: True for flag, is_set in flags.items() if is_set},
        # A tool corrects nobody.
        corrects=() if quarantined else tuple(dict.fromkeys(window.places[place] for place in wrong)),
        words=tuple(word for word in form.words if len(word) <= WORD_CHARS)[:MOST_WORDS],
    )


def _is_nobody(name: str) -> bool:
    """Whether a name is only the word for who speaks, in whatever language."""
    *articles, word = name.casefold().split()
    return word in _NOBODY and _ARTICLES.issuperset(articles)


def _may_be_forgotten(fact: str, window: Window, places: Sequence[int]) -> bool:
    """Whether a fact may be what was asked to be forgotten: who asks that says more than it, or denies or ends it.

    Small models set the flag for plain statements too, which would then be lost. Who says yes need not say it himself.
    """
    before = [*window.before, *window.turns[: min(places)]][-1:]
    heard = [turn.text for turn in before if turn.role == "assistant"]
    said = "\n".join([*heard, *(window.turns[place].text for place in places)])
    return denies(said) or ENDS.search(said) is not None or not terms(said) or not terms(said) < terms(fact)


def _fault(text: str, quote: str) -> str | None:
    """What is wrong with a fact by itself."""
    if not words(text):
        return "it is empty"
    if len(text) > FACT_CHARS:
        return f"it is longer than {FACT_CHARS} characters"
    if not quote:
        return "it has no quote"
    return None


def _unlabelled(quote: str, window: Window) -> str:
    """A quote without its turn's number, day and speaker, which models copy too."""
    quote = quote[match.end() :] if (match := _NUMBER.match(quote)) else quote
    names = {name.casefold() for turn in window.turns for name in (speaker(turn), turn.role, turn.name) if name}
    match = _LABEL.match(quote)
    return quote[match.end() :] if match and match[1].strip().casefold() in names else quote


def _contradicting_number(text: str, quote: str, window: Window, places: Sequence[int], now: datetime) -> str | None:
    """A number of a fact that contradicts its quote, and that nobody had said by the last turn that it cites."""
    heard = [*window.before, *window.turns[: max(places) + 1]]
    said = [part for turn in heard for part in (turn.text, turn.name) if part]
    return unsaid_number(text, quote, said, (window.turns[places[0]].time or now).year)


def _places(numbers: Sequence[int], quote: str, window: Window, said: Sequence[Sequence[str]]) -> tuple[int, ...] | str:
    """The places in the window of the turns that an entry cites, that of the quote first, or why there are none."""
    cited = [number - 1 for number in numbers if 0 < number <= len(said)]
    holders = [place for place in cited if is_said(said[place], quote)]
    if holders:
        return (holders[0], *cited)
    holders = [place for place in range(len(said)) if place not in cited and is_said(said[place], quote)]
    # Models count wrongly by one; what a person said comes before what a tool repeats.
    holders.sort(key=lambda place: (window.turns[place].quarantined, min((abs(place - k) for k in cited), default=0)))
    if holders:
        return tuple(holders[:1])
    for place in cited or range(len(said)):
        # A quote may begin in one message and end in the next, also of the same speaker.
        for run in _runs(place, window):
            if is_said([word for k in run for word in said[k]], quote):
                return tuple(run)
    # It may be the proposal that was read before, and that the first turn says yes to.
    proposal = window.before[-1] if window.before else None
    if proposal is not None and proposal.role != KNOWN and 0 in (cited or (0,)):
        own, agrees = words(proposal.text), proposal.role == "assistant" and window.turns[0].role == "user"
        if is_said([*own, *said[0]], quote) and (agrees or not is_said(own, quote)):
            return (0,)
    return f"its quote is not in turn {cited[0] + 1}" if cited else "nobody said its quote"


def _runs(place: int, window: Window) -> Iterator[Sequence[int]]:
    """Places of turns that a message may go on in: those beside it, and two further ones of its speaker."""
    speaker = window.turns[place].role, window.turns[place].name
    own = [k for k, turn in enumerate(window.turns) if (turn.role, turn.name) == speaker]
    here = own.index(place)
    yield from (range(at, at + 2) for at in (place - 1, place) if 0 <= at < len(window.turns) - 1)
    yield from (own[max(0, here - before) : here + after] for before, after in ((1, 1), (0, 2), (2, 1), (1, 2), (0, 3)))


def _date(given: str, *, last: bool = False) -> datetime | None:
    """The beginning (UTC) of the day, month or year that an entry names, or its end; None when none exists."""
    match = _DATE.match(given)
    if match is None:
        return None
    month = int(match[2] or 0) or None
    day = month and (int(match[3] or 0) or None)
    try:
        begin = datetime(int(match[1]), month or 1, day or 1, tzinfo=UTC)
        if not last:
            return begin
        if day is None:
            month = month or 12
            begin = datetime(begin.year + month // 12, month % 12 + 1, 1, tzinfo=UTC) - timedelta(days=1)
        return begin + timedelta(days=1)
    except (ValueError, OverflowError):
        return None


def _shown(entry: Any) -> str:
    return storable(" ".join(str(entry).split()))[:FACT_CHARS]
