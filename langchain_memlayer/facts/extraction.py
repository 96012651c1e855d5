"""Turns to facts and triples, by a chat model: one call for each window of a conversation.

```
turns ── windows ──> build(window, now) ── model ──> parse(window, reply) ── checks ──> facts | rejections
```
`build` and `parse` are pure; between them is one call, plain or awaited.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.facts.chat import Method, StructuredChat
from langchain_memlayer.facts.grounding import is_said, keeps_script, words
from langchain_memlayer.facts.numerals import unsaid_number
from langchain_memlayer.facts.prompts import (
    EXTRACTION_CONTRACT,
    EXTRACTION_EXAMPLES,
    EXTRACTION_INSTRUCTIONS,
    EXTRACTION_SCHEMA,
    EXTRACTION_VERSION,
    FACT_CHARS,
    MOST_FACTS,
    MOST_TRIPLES,
    NAME_CHARS,
    QUOTE_CHARS,
    estimate_tokens,
    fitting,
    shortened,
    show_conversation,
    version_of,
)
from langchain_memlayer.facts.replies import read_entries, storable
from langchain_memlayer.messages import content_hash
from langchain_memlayer.protocols import Clock
from langchain_memlayer.types import QUARANTINE, RETRACT, Extraction, Fact, Rejection, Triple, Turn

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

WINDOW_TOKENS: Final = 4_000
WINDOW_TURNS: Final = 40
OVERLAP: Final = 4

_MARKS: Final = frozenset({"fact", "quote", "turn"})
_NOBODY: Final = frozenset({"user", "assistant", "human", "ai", "用户", "助手", "i", "me"})
_SENTENCE_ENDS: Final = ("\n", ". ", "! ", "? ", "。", "！", "？")
_TURN = re.compile(r"-?\d{1,6}")
_DATE = re.compile(r"(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2}))?)?(?![\d-])")


@dataclass(frozen=True, slots=True)
class Window:
    """What one call reads.

    Attributes:
        places: For each numbered turn its place (0-based) among the extractor's turns, ascending.
        turns: These turns.
        texts: What is shown of them: all, or one piece of a very long one.
        before: Earlier turns, which are shown but not extracted.
    """

    places: tuple[int, ...]
    turns: tuple[Turn, ...]
    texts: tuple[str, ...]
    before: tuple[Turn, ...] = ()


class LLMExtractor:
    """Finds facts and triples with a chat model; one call for each window. Threads and event loops may share it.

    A fact is refused, and the refusal recorded, when its quote is not in its turn, when it is empty, longer than 500
    characters in another script than its quote, or states a number that
    nobody said. Facts from tool output carry `quarantined` in their metadata, facts
    that the user asks to forget carry `retract`.

    Args:
        model: Any LangChain chat model.
        custom_prompt: Instructions to use in place of ours; what form the reply must have is added to them.
        window_tokens: About how many tokens of conversation one call reads. Longer turns are split; of tool output only
            the first quarter of a window is read.
        window_turns: How many turns one call reads at most.
        overlap: How many turns before a window are shown with it, for understanding. The first window is shown all the
            context that the caller gives.
        max_concurrency: How many windows `aextract` has in flight at once.
        method: How the model is held to the form of the reply; None decides by what it supports.
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
        window_tokens: int = WINDOW_TOKENS,
        window_turns: int = WINDOW_TURNS,
        overlap: int = OVERLAP,
        max_concurrency: int = 8,
        method: Method | None = None,
        clock: Clock | None = None,
    ) -> None:
        least = {"window_tokens": 200, "window_turns": 1, "overlap": 0, "max_concurrency": 1}
        given = (window_tokens, window_turns, overlap, max_concurrency)
        for (name, minimum), value in zip(least.items(), given, strict=True):
            if not isinstance(value, int) or value < minimum:
                raise InvalidInput(f"{name} must be a whole number of at least {minimum}, got {value!r}.")
        if custom_prompt is not None and not custom_prompt.strip():
            raise InvalidInput("custom_prompt is blank; leave it out to use the built-in instructions.")
        parts: tuple[str, ...] = (EXTRACTION_INSTRUCTIONS, EXTRACTION_CONTRACT, EXTRACTION_EXAMPLES)
        self.version = EXTRACTION_VERSION
        if custom_prompt is not None:
            # Our examples show what our instructions want, so they go with them.
            parts = (custom_prompt.strip(), EXTRACTION_CONTRACT)
            self.version = version_of("custom", *parts)
        self._instructions = "\n\n".join(parts)
        self._window_tokens = window_tokens
        self._window_turns = window_turns
        self._overlap = overlap
        self._max_concurrency = max_concurrency
        self._clock = clock or _utc_now
        self._chat = StructuredChat(model, EXTRACTION_SCHEMA, run_name="extraction", method=method)

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        """The facts in `turns`; `context` are earlier turns that help to understand them.

        Raises:
            ExtractionError: the model failed on a window, or its reply cannot be read; nothing of the others is kept.
        """
        now = self._clock()
        windows = self.windows(turns, context)
        return merged([self.parse(window, self._chat.ask(self.build(window, now))) for window in windows])

    async def aextract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        """Like `extract`, with the windows in flight together."""
        now = self._clock()
        slots = asyncio.Semaphore(self._max_concurrency)

        async def read(window: Window) -> Extraction:
            async with slots:
                return self.parse(window, await self._chat.aask(self.build(window, now)))

        tasks = [asyncio.ensure_future(read(window)) for window in self.windows(turns, context)]
        try:
            return merged(await asyncio.gather(*tasks))
        finally:
            # After a failure the others' replies are of no use, and must not outlive this call.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def windows(self, turns: Sequence[Turn], context: Sequence[Turn] = ()) -> list[Window]:
        """The windows that `turns` are read in, in order; each turn is in one of them, a very long one in several."""
        found: list[Window] = []
        shown: list[tuple[int, str]] = []
        room = self._window_tokens
        for place, text in self._pieces(turns):
            size = estimate_tokens(text)
            if shown and (size > room or len(shown) == self._window_turns):
                found.append(self._window(turns, context, shown))
                shown, room = [], self._window_tokens
            shown.append((place, text))
            room -= size
        if shown:
            found.append(self._window(turns, context, shown))
        return found

    def _pieces(self, turns: Sequence[Turn]) -> Iterator[tuple[int, str]]:
        """The texts to show with their turns' places, each within a window's budget."""
        for place, turn in enumerate(turns):
            if turn.quarantined:
                yield place, shortened(turn.text, self._window_tokens // 4)
                continue
            for piece in _split(turn.text, self._window_tokens):
                yield place, piece

    def _window(self, turns: Sequence[Turn], context: Sequence[Turn], shown: Sequence[tuple[int, str]]) -> Window:
        first = shown[0][0]
        before = list(turns[max(0, first - self._overlap) : first]) if first else list(context)
        places, texts = zip(*shown, strict=True)
        return Window(places, tuple(turns[place] for place in places), texts, tuple(before))

    def build(self, window: Window, now: datetime) -> list[BaseMessage]:
        """The prompt for a window: instructions and contract, then the conversation."""
        from langchain_core.messages import HumanMessage, SystemMessage

        share = self._window_tokens // 4 // max(1, len(window.before))
        before = [(turn, shortened(turn.text, max(share, 40))) for turn in window.before]
        numbered = zip(window.turns, window.texts, strict=True)
        return [SystemMessage(self._instructions), HumanMessage(show_conversation(numbered, before, now))]

    def parse(self, window: Window, reply: str) -> Extraction:
        """What a reply says of a window, with our own checks made.

        Raises:
            ExtractionError: nothing in the reply can be read.
        """
        reading = read_entries(reply, "facts", _MARKS)
        said = [words(turn.text) for turn in window.turns]
        facts: list[Fact] = []
        rejected: list[Rejection] = []
        for number, entry in enumerate(reading.entries):
            if number >= MOST_FACTS:
                rejected.append(Rejection(_shown(entry), f"more than {MOST_FACTS} facts in one reply"))
                continue
            found = _checked(entry, window, said)
            if isinstance(found, Fact):
                facts.append(found)
            else:
                rejected.append(found)
        if reading.lost is not None:
            rejected.append(Rejection(storable(reading.lost), "the reply breaks off or cannot be read from here on"))
        return Extraction(tuple(facts), tuple(rejected))


def merged(found: Sequence[Extraction]) -> Extraction:
    """The extractions of several windows as one: equal facts become one, which cites the turns of all.

    A fact from tool output never joins one that a person stated, or it would take it into quarantine; it is left out.
    """
    facts: dict[tuple[str, bool], Fact] = {}
    for fact in (fact for part in found for fact in part.facts):
        key = (content_hash(fact.text), RETRACT in fact.metadata)
        known = facts.get(key)
        if known is None or (_is_quarantined(known) and not _is_quarantined(fact)):
            facts[key] = fact
        elif _is_quarantined(known) == _is_quarantined(fact):
            facts[key] = replace(
                known,
                turns=tuple(dict.fromkeys((*known.turns, *fact.turns))),
                triples=tuple(dict.fromkeys((*known.triples, *fact.triples))),
                valid_at=known.valid_at or fact.valid_at,
                name=known.name or fact.name,
            )
    return Extraction(tuple(facts.values()), tuple(refusal for part in found for refusal in part.rejected))


def _is_quarantined(fact: Fact) -> bool:
    return bool(fact.metadata.get(QUARANTINE))


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _split(text: str, tokens: int) -> Iterator[str]:
    """A text in pieces of about `tokens` tokens, cut after a sentence or a word where there is one."""
    while estimate_tokens(text) > tokens:
        end = fitting(text, tokens)
        found = [text.rfind(mark, end // 2, end) + len(mark) for mark in _SENTENCE_ENDS if mark in text[end // 2 : end]]
        end = max(found, default=0) or text.rfind(" ", end // 2, end) + 1 or end
        yield text[:end]
        text = text[end:]
    if text.strip():
        yield text


# -- one entry of a reply ---------------------------------------------------------------------------------------------


def _checked(entry: Any, window: Window, said: Sequence[Sequence[str]]) -> Fact | Rejection:
    """One entry as a fact, or why it is none."""
    if not isinstance(entry, Mapping):
        return Rejection(_shown(entry), "it is no object with a turn and a quote")
    text, quote = _text(entry.get("fact")), _text(entry.get("quote"))
    reason = _fault(text, quote)
    if reason is not None:
        return Rejection(text[:FACT_CHARS] or _shown(entry), reason, quote[:QUOTE_CHARS] or None)
    places = _places(entry.get("turn"), quote, said)
    if isinstance(places, str):
        return Rejection(text, places, quote[:QUOTE_CHARS])
    if (number := _unsaid(text, quote, window, places)) is not None:
        return Rejection(text, f"nobody said its number {number}", quote[:QUOTE_CHARS])
    quarantined = any(window.turns[place].quarantined for place in places)
    retract = entry.get("retract") is True or str(entry.get("retract")).casefold() == "true"
    if retract and quarantined:
        return Rejection(text, "a tool's output cannot ask to forget something", quote[:QUOTE_CHARS])
    flags = {RETRACT: retract, QUARANTINE: quarantined}
    name = _text(entry.get("subject"))
    return Fact(
        text=text,
        turns=tuple(dict.fromkeys(window.places[place] for place in places)),
        quote=quote,
        triples=_triples(entry.get("triples")),
        valid_at=_date(entry.get("valid_at")),
        name=name if name and len(name) <= NAME_CHARS and name.casefold() not in _NOBODY else None,
        metadata={flag: True for flag, is_set in flags.items() if is_set},
    )


def _fault(text: str, quote: str) -> str | None:
    """What is wrong with a fact by itself."""
    if not words(text):
        return "it is empty"
    if len(text) > FACT_CHARS:
        return f"it is longer than {FACT_CHARS} characters"
    if not quote:
        return "it has no quote"
    if not keeps_script(quote, text):
        return "it is not in the language of its quote"
    return None


def _unsaid(text: str, quote: str, window: Window, places: Sequence[int]) -> str | None:
    """A number of a fact that nobody had said by the last turn that it cites."""
    heard = [*window.before, *window.turns[: max(places) + 1]]
    time = window.turns[places[0]].time
    said = [part for turn in heard for part in (turn.text, turn.name) if part]
    return unsaid_number(text, quote, said, None if time is None else time.year)


def _places(given: Any, quote: str, said: Sequence[Sequence[str]]) -> tuple[int, ...] | str:
    """The places in the window of the turns that an entry cites, that of the quote first, or why there are none."""
    numbers = [_TURN.search(str(item)) for item in (given if isinstance(given, list) else [given])]
    cited = [int(number[0]) - 1 for number in numbers if number is not None and 0 < int(number[0]) <= len(said)]
    # Without a turn the quote alone can say where it is from, when it is found once.
    holders = [place for place in cited or range(len(said)) if is_said(said[place], quote)]
    if cited:
        return (holders[0], *cited) if holders else f"its quote is not in turn {cited[0] + 1}"
    return (holders[0],) if len(holders) == 1 else f"there is no turn {given!r}"[:NAME_CHARS]


def _triples(given: Any) -> tuple[Triple, ...]:
    """The triples of an entry, without those that are none."""
    found: dict[Triple, None] = {}
    for item in given if isinstance(given, list) else ():
        parts = item
        if isinstance(item, Mapping):
            relation = item.get("relation", item.get("relationship"))
            parts = [item.get("source"), relation, item.get("destination", item.get("target"))]
        if not isinstance(parts, list) or len(parts) != 3:
            continue
        names = [_text(part) for part in parts]
        if all(name and len(name) <= NAME_CHARS for name in names):
            found[Triple(*names)] = None
    return tuple(found)[:MOST_TRIPLES]


def _date(given: Any) -> datetime | None:
    """The beginning (UTC) of the day, month or year that an entry names, or None when it names none that exists."""
    match = _DATE.match(_text(given))
    if match is None:
        return None
    try:
        return datetime(int(match[1]), int(match[2] or 1), int(match[3] or 1), tzinfo=UTC)
    except ValueError:
        return None


def _text(value: Any) -> str:
    """A string of one line, without what no journal can keep; "" for what is neither string nor number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return " ".join(storable(str(value)).split())


def _shown(entry: Any) -> str:
    return storable(" ".join(str(entry).split()))[:FACT_CHARS]
