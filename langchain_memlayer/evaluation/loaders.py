"""Files of LoCoMo and LongMemEval to conversations. The files are the user's; none comes with the package.

LoCoMo: Maharana et al. 2024, "Evaluating Very Long-Term Conversational Memory of LLM Agents".
LongMemEval: Wu et al. 2024, "LongMemEval: Benchmarking Chat Assistants on Long-Term Interactive Memory".

Slips of LoCoMo are read as they are meant: turn ids such as `D:11:26` and `D30:05`, and several ids in one text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson

from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.evaluation.data import Conversation, Dataset, Observation, Question
from langchain_memlayer.recall.date_words import MONTHS
from langchain_memlayer.types import Turn

LOCOMO_CATEGORIES: Final = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}

_SESSION = re.compile(r"session_(\d+)")
_TURN_ID = re.compile(r"D:?(\d+):(\d+)")
_LOCOMO_TIME = re.compile(r"(\d{1,2}):(\d{2})\s*([ap])\.?m\.?\s+on\s+(\d{1,2})\s+([a-z]+),?\s+(\d{4})", re.IGNORECASE)
_LONGMEMEVAL_TIME = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(?:\D+(\d{1,2}):(\d{2}))?")
_NEVER_SAID = "The conversation does not say this."


def load_locomo(path: str | Path, *, adversarial: bool = False) -> Dataset:
    """The conversations of a LoCoMo file, such as `locomo10.json`.

    Args:
        path: A JSON list of conversations, each with `sample_id`, `conversation` and `qa`, and perhaps `observation`.
        adversarial: Whether the questions of category 5, which nothing answers, are asked too. Published figures mostly
            leave them out.

    Raises:
        InvalidInput: there is no such file, or it has another form; the message names the place.
    """
    unresolved: list[str] = []
    conversations = [_locomo(place, adversarial, unresolved) for place in _read(Path(path)).items()]
    return Dataset("LoCoMo", tuple(conversations), tuple(unresolved))


def load_longmemeval(path: str | Path) -> Dataset:
    """The questions of a LongMemEval file, such as `longmemeval_s.json`, each with a conversation of its own.

    The evidence of a question are the turns that the file marks with `has_answer`. Questions whose id ends with `_abs`
    cannot be answered.

    Args:
        path: A JSON list of questions, each with its haystack of sessions.

    Raises:
        InvalidInput: there is no such file, or it has another form; the message names the place.
    """
    return Dataset("LongMemEval", tuple(_longmemeval(place) for place in _read(Path(path)).items()))


def load_scopes(path: str | Path) -> Dataset:
    """The scopes of a file in the plain form, for data of your own.

    The file is a JSON list of objects with `id`, `items`: lists of an id, a text, a name ("" for none), a number of the
    session (0 for none), an ISO time or null, and a role; and `questions`: lists of a text, a category, the ids of the
    items that answer it, and when it is asked, or null.

    Raises:
        InvalidInput: there is no such file, or it has another form; the message names the place.
    """
    file = Path(path)
    return Dataset(file.stem, tuple(_scope(place) for place in _read(file).items()))


# -- places in a file -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """A value in a file, and where it stands."""

    file: str
    where: str
    value: Any

    def wrong(self, expected: str) -> NoReturn:
        shown = "nothing" if self.value is None else f"{type(self.value).__name__} {str(self.value)[:40]!r}"
        raise InvalidInput(f"{self.file}: {self.where} must be {expected}, got {shown}.")

    def has(self, key: str) -> bool:
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key: str) -> _Place:
        if not isinstance(self.value, dict):
            self.wrong(f'an object with "{key}"')
        if key not in self.value:
            raise InvalidInput(
                f'{self.file}: {self.where or "the file"} has no "{key}"; it has {", ".join(map(repr, self.value))}.'
            )
        return _Place(self.file, f"{self.where}.{key}", self.value[key])

    def items(self) -> list[_Place]:
        if not isinstance(self.value, list):
            self.wrong("a list")
        return [_Place(self.file, f"{self.where}[{number}]", value) for number, value in enumerate(self.value)]

    def members(self) -> list[tuple[str, _Place]]:
        if not isinstance(self.value, dict):
            self.wrong("an object")
        return [(key, _Place(self.file, f"{self.where}.{key}", value)) for key, value in self.value.items()]

    def text(self) -> str:
        """A text, or a number as one."""
        if isinstance(self.value, bool) or not isinstance(self.value, (str, int, float)):
            self.wrong("a text")
        return str(self.value).strip()

    def filled(self) -> str:
        text = self.text()
        return text or self.wrong("a text that is not empty")


def _read(path: Path) -> _Place:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}); give the path of a data set.") from error
    try:
        value = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"{path.name} is not JSON: {error}. Is the file complete?") from error
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{path.name} must hold a JSON list with at least one entry, got {type(value).__name__}.")
    return _Place(path.name, "", value)


def _fields(place: _Place, names: str) -> list[_Place]:
    """The entries of a list that has one for each of some names."""
    items = place.items()
    if len(items) != len(names.split()):
        place.wrong(f"a list of {names}")
    return items


# -- the plain form ---------------------------------------------------------------------------------------------------


def _scope(place: _Place) -> Conversation:
    name = place["id"].filled()
    turns = tuple(_scope_turn(entry) for entry in place["items"].items())
    sessions = {turn.id: turn.session_id for turn in turns}
    questions = []
    for number, entry in enumerate(place["questions"].items()):
        text, category, gold, moment = _fields(entry, "text category gold asked")
        evidence = tuple(one.text() for one in gold.items())
        if unknown := [one for one in evidence if one not in sessions]:
            gold.wrong(f"ids of items ({unknown[0]} is none)")
        told_in = dict.fromkeys(session for one in evidence if (session := sessions[one]) is not None)
        questions.append(
            Question(
                f"{name}-q{number}", text.filled(), category.text(), "", evidence, tuple(told_in), _iso_time(moment)
            )
        )
    return Conversation(name, turns, tuple(questions))


def _scope_turn(entry: _Place) -> Turn:
    key, text, name, session, time, role = _fields(entry, "id text name session time role")
    told_in = session.text()
    return Turn(
        text.filled(), id=key.filled(), role=role.filled(), name=name.text() or None, time=_iso_time(time),
        session_id=None if told_in in ("", "0") else f"session-{told_in}",
    )  # fmt: skip


def _iso_time(place: _Place) -> datetime | None:
    if place.value in (None, ""):
        return None
    try:
        time = datetime.fromisoformat(place.text())
    except ValueError:
        place.wrong("an ISO time, such as 2024-05-08T13:56, or null")
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _times(year: str, month: int, day: str, hour: int, minute: str, place: _Place) -> datetime:
    try:
        return datetime(int(year), month, int(day), hour, int(minute), tzinfo=UTC)
    except ValueError as error:
        raise InvalidInput(f"{place.file}: {place.where} is no date ({error}): {shown(place.value)}.") from error


# -- LoCoMo -----------------------------------------------------------------------------------------------------------


def _locomo(place: _Place, adversarial: bool, unresolved: list[str]) -> Conversation:
    name = place["sample_id"].filled()
    turns = list(_locomo_turns(place["conversation"]))
    known = {turn.id: turn.session_id for turn in turns if turn.id is not None}
    questions = (_locomo_question(entry, name, known, unresolved) for entry in place["qa"].items())
    return Conversation(
        name,
        tuple(turns),
        tuple(question for question in questions if question.answerable or adversarial),
        tuple(_locomo_observations(place, known)),
    )


def _locomo_turns(place: _Place) -> Iterator[Turn]:
    sessions = {int(m[1]): value for key, value in place.members() if (m := _SESSION.fullmatch(key))}
    if not sessions:
        raise InvalidInput(f'{place.file}: {place.where} has no session; "session_1" would be the first.')
    seen: set[str] = set()
    for number, session in sorted(sessions.items()):
        time = _locomo_time(place[f"session_{number}_date_time"])
        for entry in session.items():
            key = entry["dia_id"].filled()
            if key in seen:
                entry["dia_id"].wrong("an id that no turn before it has")
            seen.add(key)
            text = _locomo_text(entry)
            if text:
                name = entry["speaker"].filled()
                yield Turn(text, id=key, name=name, session_id=f"session-{number}", time=time)


def _locomo_text(entry: _Place) -> str:
    """What was said; a shared photo is told in words."""
    said = entry["text"].text() if entry.has("text") else ""
    photo = f"[shares a photo: {entry['blip_caption'].text()}]" if entry.has("blip_caption") else ""
    return f"{said} {photo}".strip()


def _locomo_time(place: _Place) -> datetime:
    match = _LOCOMO_TIME.fullmatch(place.text())
    if match is None or match[5].lower() not in MONTHS:
        place.wrong('a time such as "1:56 pm on 8 May, 2023"')
    hour, minute, half, day, month, year = match.groups()
    return _times(year, MONTHS[month.lower()], day, int(hour) % 12 + 12 * (half in "pP"), minute, place)


def _locomo_question(entry: _Place, conversation: str, known: dict[str, str | None], unresolved: list[str]) -> Question:
    number = entry["category"].value
    if number not in LOCOMO_CATEGORIES:
        entry["category"].wrong(f"a number from 1 to {len(LOCOMO_CATEGORIES)}")
    place = entry.where[entry.where.rindex("[") + 1 : -1]
    answerable = LOCOMO_CATEGORIES[number] != "adversarial"
    evidence: list[str] = []
    for named in _locomo_ids(entry["evidence"]) if answerable and entry.has("evidence") else ():
        turns_named = _resolved(named, known)
        evidence += turns_named
        if not turns_named:
            unresolved.append(f"{conversation}, question {place}: {named}")
    evidence = list(dict.fromkeys(evidence))
    return Question(
        id=f"{conversation}-q{place}",
        text=entry["question"].filled(),
        category=LOCOMO_CATEGORIES[number],
        answer=entry["answer"].filled() if answerable else _NEVER_SAID,
        evidence=tuple(evidence),
        sessions=tuple(dict.fromkeys(session for turn in evidence if (session := known[turn]) is not None)),
        answerable=answerable,
    )


def _locomo_observations(place: _Place, known: Collection[str]) -> Iterator[Observation]:
    if not place.has("observation"):
        return
    for _, session in place["observation"].members():
        for name, facts in session.members() if session.value is not None else ():
            for fact in facts.items():
                parts = fact.items()
                if len(parts) != 2:
                    fact.wrong("a pair of a text and the ids of its turns")
                cited = (turn for named in _locomo_ids(parts[1]) for turn in _resolved(named, known))
                yield Observation(parts[0].filled(), tuple(dict.fromkeys(cited)), name)


def _locomo_ids(place: _Place) -> list[str]:
    """What stands for ids of turns: one text, or a list of texts."""
    return [one.text() for one in (place.items() if isinstance(place.value, list) else [place])]


def _resolved(named: str, known: Collection[str]) -> list[str]:
    """The turns that a text names, none when it names none."""
    if named in known:
        return [named]
    meant = (f"D{int(session)}:{int(turn)}" for session, turn in _TURN_ID.findall(named))
    return [turn for turn in meant if turn in known]


# -- LongMemEval ------------------------------------------------------------------------------------------------------


def _longmemeval(place: _Place) -> Conversation:
    key = place["question_id"].filled()
    ids, dates, sessions = (place[f"haystack_{name}"].items() for name in ("session_ids", "dates", "sessions"))
    if not len(ids) == len(dates) == len(sessions):
        raise InvalidInput(
            f"{place.file}: {place.where} has {len(ids)} haystack_session_ids, {len(dates)} haystack_dates and "
            f"{len(sessions)} haystack_sessions; there must be one of each for every session."
        )
    names = [session.filled() for session in ids]
    labels = _numbered(names)
    dated = sorted(
        (
            (_longmemeval_time(date), label, session)
            for date, label, session in zip(dates, labels, sessions, strict=True)
        ),
        key=lambda one: one[0],
    )
    turns: list[Turn] = []
    evidence: list[str] = []
    for time, label, session in dated:
        for number, entry in enumerate(session.items(), 1):
            turn = _longmemeval_turn(entry, f"{label}:{number}", label, time)
            if turn is not None:
                turns.append(turn)
                if entry.has("has_answer") and entry["has_answer"].value is True:
                    evidence.append(f"{label}:{number}")
    named = {session.filled() for session in place["answer_session_ids"].items()}
    answering = [label for name, label in zip(names, labels, strict=True) if name in named]
    answerable = not key.endswith("_abs")
    question = Question(
        id=key,
        text=place["question"].filled(),
        category=place["question_type"].filled(),
        answer=place["answer"].filled(),
        evidence=tuple(evidence) if answerable else (),
        sessions=tuple(answering) if answerable else (),
        time=_longmemeval_time(place["question_date"]) if place.has("question_date") else None,
        answerable=answerable,
    )
    return Conversation(key, tuple(turns), (question,))


def _longmemeval_turn(entry: _Place, key: str, session: str, time: datetime) -> Turn | None:
    role = entry["role"].filled()
    if role not in ("user", "assistant"):
        entry["role"].wrong('"user" or "assistant"')
    text = entry["content"].text()
    return Turn(text, role=role, id=key, session_id=session, time=time) if text else None


def _longmemeval_time(place: _Place) -> datetime:
    match = _LONGMEMEVAL_TIME.match(place.text())
    if match is None:
        place.wrong('a time such as "2023/05/20 (Sat) 02:21"')
    year, month, day, hour, minute = match.groups()
    return _times(year, int(month), day, int(hour or 0), minute or "0", place)


def _numbered(names: Iterable[str]) -> list[str]:
    """The names, made distinct: a session that stands in a haystack twice is told twice."""
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return labels
