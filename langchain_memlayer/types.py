"""The words of the package as frozen types. Pure: nothing here reads a clock, a file or a network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

# Pydantic reads those of the standard library from Python 3.12 on only.
from langchain_memlayer.errors import InvalidInput, ScopeRequired, written

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["item", "fact", "turn", "profile"]
"""What a row of the journal is: a plain BaseStore item, an extracted fact, a verbatim message, or a user's profile."""

Action = Literal["ADD", "UPDATE", "DELETE", "NONE", "REJECTED"]
"""What a decision says of one fact."""

Metric = Literal["cosine", "inner_product", "euclidean"]
"""How two vectors are compared; a higher score is always nearer."""

METRICS: tuple[Metric, ...] = ("cosine", "inner_product", "euclidean")

Durability = Literal["full", "fast"]
"""`full`: an acknowledged write survives power loss. `fast`: it survives a killed process only."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC; a naive `moment` is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


DAY = 86_400_000_000
"""The microseconds of one."""

FIRST_TIME, LAST_TIME = to_micros(datetime.min), to_micros(datetime.max)
"""The ends of the calendar: no time in the journal lies beyond them."""

MOST_NAME_BYTES = 2_000
"""How long ids are at most, those of one memory together: PostgreSQL finds them by an index, which keeps no more."""


def from_micros(micros: int, offset: int | None = None) -> datetime:
    """The aware time of `micros` (since 1970 UTC), in the zone `offset` seconds from UTC; the nearest there is."""
    try:
        moment = _EPOCH + micros * _MICROSECOND
        return moment.astimezone(timezone(timedelta(seconds=offset))) if offset else moment
    except (OverflowError, ValueError):
        return _EPOCH + min(max(micros, FIRST_TIME), LAST_TIME) * _MICROSECOND


def encode_namespace(labels: Sequence[str]) -> str:
    """The journal's form of a namespace: every label followed by a dot, so that a prefix matches whole segments."""
    return ".".join((*labels, ""))


@lru_cache(maxsize=1024)
def decode_namespace(path: str) -> tuple[str, ...]:
    """The labels of an encoded namespace."""
    return tuple(path[:-1].split(".")) if path else ()


def prefix_bounds(path: str) -> tuple[str, str]:
    """The half-open range of encoded namespaces below `path`, by code point; `""` means everything of the store."""
    return path, f"{path[:-1]}/" if path else "\U0010ffff"


MEMORY_ROOT = "."
"""The encoded namespace above all memories; its empty first label is one that no BaseStore item can have."""

Id: TypeAlias = str | int | UUID | None
"""An id of a scope as it is given; None means any."""

FORK = "\u2442"
"""What the ids of a fork's memories begin with: then come its token, a slash and the id that it was copied from."""

NO_TEXT = re.compile("[\ud800-\udfff\x00]")
_SCOPE_MARKS = (("user_id", "u"), ("agent_id", "a"), ("run_id", "r"))
IDS = tuple(name for name, _ in _SCOPE_MARKS)
"""The names of the ids of a scope."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Who a memory belongs to. Given ids are ANDed, absent ones mean any; no id is a wildcard or a pattern.

    Numbers and UUIDs are taken as their text.
    """

    user_id: str | None
    agent_id: str | None
    run_id: str | None

    def __init__(self, user_id: Id = None, agent_id: Id = None, run_id: Id = None) -> None:
        for (name, _), value in zip(_SCOPE_MARKS, (user_id, agent_id, run_id), strict=True):
            if isinstance(value, (int, UUID)) and not isinstance(value, bool):
                value = written(int(value) if isinstance(value, int) else value, name)
            if value is not None and not isinstance(value, str):
                raise InvalidInput(f"{name} must be a string, got {type(value).__name__}; pass str(id) instead.")
            if value is not None and (not value.strip() or NO_TEXT.search(value)):
                raise InvalidInput(f"{name} must be a non-empty string without NUL characters and lone surrogates.")
            # Plain text: what enums and numpy make of it, each database and each format takes otherwise.
            object.__setattr__(self, name, None if value is None else str.__str__(value))

    def __bool__(self) -> bool:
        return any((self.user_id, self.agent_id, self.run_id))

    def required(self, call: str) -> Scope:
        """Itself, or `ScopeRequired` when it names nobody; `call` is the method to name in the message."""
        if not self:
            raise ScopeRequired(
                f"{call} needs at least one of user_id, agent_id and run_id: say whose memory is meant. In filters an "
                "id counts as a plain value, at the top or under AND."
            )
        return self

    def ids(self) -> dict[str, str]:
        """The given ids by name."""
        return {name: value for name, _ in _SCOPE_MARKS if (value := getattr(self, name)) is not None}

    @property
    def partition(self) -> str:
        """The encoded leaf namespace a memory of this scope is stored in: its user_id, else agent_id, else run_id."""
        for name, mark in _SCOPE_MARKS:
            if (value := getattr(self, name)) is not None:
                return f"{MEMORY_ROOT}{mark}.{quote(value, safe='@+ ').replace('.', '%2E')}."
        raise ScopeRequired("A memory needs at least one of user_id, agent_id and run_id.")

    def forked(self, token: str) -> Scope:
        """The same ids in a fork."""
        return Scope(**{name: f"{FORK}{token}/{value}" for name, value in self.ids().items()})

    def beside(self, others: Scope) -> Scope:
        """The same ids in the fork that others lie in: what is one's own is one's own there, too."""
        return self if self.fork is not None or others.fork is None else self.forked(others.fork)

    @property
    def fork(self) -> str | None:
        """The token of the fork that it lies in, or None."""
        first = next(iter(self.ids().values()), "")
        return first[1:].partition("/")[0] if first.startswith(FORK) else None

    @property
    def original(self) -> Scope:
        """The ids that those of a fork were copied from; itself outside of one."""
        ids = self.ids().items()
        return self if self.fork is None else Scope(**{name: value.partition("/")[2] for name, value in ids})

    @property
    def spaces(self) -> list[tuple[str, str]]:
        """Ranges of encoded namespaces that hold every memory of this scope.

        They are its partition and, where a memory of it may have an id that goes before, all that are named by such.
        """
        found: list[tuple[str, str]] = []
        for name, mark in _SCOPE_MARKS:
            if getattr(self, name) is not None:
                return [*found, prefix_bounds(self.partition)]
            found.append(prefix_bounds(f"{MEMORY_ROOT}{mark}."))
        return found

    @property
    def search_root(self) -> str:
        """The encoded namespace that surely holds every memory of this scope: the user's own, else that of all."""
        return self.partition if self.user_id is not None else MEMORY_ROOT


def fork_of(path: str) -> str | None:
    """The token of the fork that an encoded namespace lies in, or None."""
    label = unquote(decode_namespace(path)[-1]) if path.startswith(MEMORY_ROOT) else ""
    return label[1:].partition("/")[0] if label.startswith(FORK) else None


@dataclass(frozen=True, slots=True)
class Turn:
    """One source message.

    Attributes:
        text: What was said, verbatim.
        role: `user`, `assistant`, `tool` or another role of the sender; system messages are never turns. `memory` is
            the role of what is known, in the context that an extractor is given: a fact, with when it was told.
        id: The message's own id, or None when it had none.
        name: Who spoke, when the message says so.
        session_id: The conversation it belongs to, when known.
        time: When it was said, when the message or the caller says so; aware, in the speaker's own zone where it is
            known, since "tomorrow" counts from the speaker's day.
        metadata: The user's metadata.
        quarantined: True for tool output, which is never recalled unless asked for.
        valid_until: When it ceases to count, with the facts in it; None for never.
    """

    text: str
    role: str = "user"
    id: str | None = None
    name: str | None = None
    session_id: str | None = None
    time: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    quarantined: bool = False
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Triple:
    """(source, relation, destination), tied to the memory that supports it."""

    source: str
    relation: str
    destination: str


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement that the extractor found.

    Attributes:
        text: The statement, in the language of the conversation.
        turns: Positions (0-based) in the extractor's turns that it was found in; at least one.
        quote: The words of the first of these turns that support it, or None when the extractor gives none.
        triples: The relations that it states.
        valid_at: When it begins to hold, when the text says so.
        name: Whom it is about or by, when known.
        metadata: Further keys to keep with the memory. Two have a meaning here: `RETRACT` and `QUARANTINE`.
        said_at: When it was said; reconcilers are given it, and extractors need not set it.
        valid_until: The end of its last day, when the text says so.
        corrects: Positions of turns before it that it says were wrong.
        words: Further words that it is found by, such as what a thing that it names is.
    """

    text: str
    turns: tuple[int, ...]
    quote: str | None = None
    triples: tuple[Triple, ...] = ()
    valid_at: datetime | None = None
    name: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    said_at: datetime | None = None
    valid_until: datetime | None = None
    corrects: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


RETRACT = "retract"
"""The key in a fact's metadata which says that the user asked to forget what the fact states."""

QUARANTINE = "quarantined"
"""The key which says that a fact comes from tool output."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A fact or a decision that our own checks refused, and why."""

    text: str
    reason: str
    quote: str | None = None


@dataclass(frozen=True, slots=True)
class Extraction:
    """What an extractor found in some turns."""

    facts: tuple[Fact, ...] = ()
    rejected: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A live memory that a new fact may change.

    Attributes:
        id: The memory.
        text: What it says.
        last_seen: When it was last told, which a change counts as.
        valid_at: When what it says began to hold, when known.
        name: Whom it is about, when known.
    """

    id: str
    text: str
    last_seen: datetime | None = None
    valid_at: datetime | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the reconciler says of one fact.

    Attributes:
        action: ADD, UPDATE, DELETE, NONE or REJECTED.
        fact: Position (0-based) of the fact it is about; None when REJECTED is about a part of a reply that names none.
        memory_id: The memory that UPDATE, DELETE or NONE is about; None when `earlier` names it.
        text: The memory's new text, for UPDATE; without a fact, the part of the reply.
        reason: Why, in a few words; for an ADD, what could not be carried out in its place.
        also: Further memories that UPDATE or DELETE ends.
        earlier: Positions of earlier facts of the same call. Without a `memory_id`, what the first of them became is
            the memory that UPDATE, DELETE or NONE is about; UPDATE and DELETE end what the others became.
        until: For an ADD, when the fact had ceased to hold, since what was told after it says otherwise: it is history.
    """

    action: Action
    fact: int | None
    memory_id: str | None = None
    text: str | None = None
    reason: str | None = None
    also: tuple[str, ...] = ()
    earlier: tuple[int, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SlabBlock:
    """What a slab takes from the journal: all rows below a namespace prefix, or those written since a position.

    Attributes:
        seq: The journal position that the block is complete up to.
        ids: Row ids of the items, shape (n,), each once.
        seqs: The position of each item's last write, shape (n,).
        columns: The hot columns by name, each of shape (n,).
        owners: For each vector the index into `ids` of its item, shape (m,), ascending; items may have none or several.
        vector_bytes: The vectors, m * dims little-endian float16 numbers.
        removed: Row ids of items that are no longer live, shape (r,); they may be unknown to the slab.
        words: The terms of each item's text, as `keywords.packed` gives them; empty where no item has any.
    """

    seq: int
    ids: NDArray[np.int64]
    seqs: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    owners: NDArray[np.int64]
    vector_bytes: bytes | bytearray | memoryview
    removed: NDArray[np.int64]
    words: Sequence[bytes] = ()


VISIBLE, QUARANTINED, HIDDEN, SPENT = 0, 1, 2, 3
"""States of a memory: recalled; recalled only when asked for (tool output); never recalled (the fact it told was
deleted); recalled below others (all facts that it told have ended)."""


STATES_ONLY, ALSO_ASKS, ONLY_ASKS = 0, 1, 2
"""What a text does: it states, it states and then asks, or it only asks, but for a remark before."""


@dataclass(slots=True)
class Row:
    """One version of one memory, as the journal keeps it. Times are microseconds since 1970 UTC.

    Nobody changes one: frozen, it would take five times as long to make, and a page has a hundred.

    Attributes:
        id: The row; another version of the same memory, whose id is `key`, is another row.
        seq: The position of the last write to it.
        path: Its encoded namespace.
        text: What is remembered; of a profile its fields as JSON (`facts.profile.Cells`).
        created_at: When the memory began; for a turn with a time of its own, that time.
        closed: The position that ended this version, or None while it is current.
        name: Who spoke, or whom the fact is about.
        message_id: For turns, the message's own id.
        hash: Of the normalised text.
        sources: The ids of the messages it comes from.
        turns: For facts, the rows of its turns.
        valid_at: When it began to hold, when known; `invalid_at` when it ceased to.
        state: VISIBLE, QUARANTINED, HIDDEN or SPENT.
        asks: STATES_ONLY, ALSO_ASKS or ONLY_ASKS.
        given: Stored as given (`infer=False`).
        count: How often it was told, at `last_seen` last.
        event: The last thing that happened to it (`add`, `update`, `delete`).
        place: For turns, what orders those of a session; every version has that of the first. None for a new one.
        read: For turns, whether their facts were looked for.
        offset: For turns with a time, how far its zone is from UTC, in seconds, when that is known.
    """

    id: int
    seq: int
    path: str
    key: str
    kind: Kind
    text: str
    created_at: int
    updated_at: int
    closed: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    session_id: str | None = None
    role: str | None = None
    name: str | None = None
    message_id: str | None = None
    time: int | None = None
    hash: str | None = None
    sources: tuple[str, ...] = ()
    turns: tuple[int, ...] = ()
    valid_at: int | None = None
    invalid_at: int | None = None
    state: int = VISIBLE
    asks: int = STATES_ONLY
    given: bool = False
    count: int = 1
    last_seen: int | None = None
    event: str = "add"
    place: int | None = None
    read: bool = False
    offset: int | None = None

    @property
    def scope(self) -> Scope:
        """Who it belongs to."""
        return Scope(self.user_id, self.agent_id, self.run_id)

    @property
    def until(self) -> float:
        """The position that ended it, endless while it is current: an undo lets an earlier version be the last."""
        return math.inf if self.closed is None else self.closed

    @property
    def zone(self) -> int | None:
        """Where `valid_at` is seen from, seconds from UTC: a moment from where it was told, a day from UTC."""
        return self.offset if self.valid_at is not None and self.valid_at % DAY else None

    def expired(self, now: int) -> bool:
        """Whether a live version has ceased to count by a time, microseconds since 1970 UTC."""
        return self.invalid_at is not None and self.invalid_at <= now and self.state != SPENT


@dataclass(frozen=True, slots=True)
class Event:
    """One row of the journal's events.

    `prev` and `value` are the texts before and after, `item` is the row that it made or changed, `gone` the one that it
    ended. `detail` says under `was` what the columns that it changed were, by row, and under `of` which event it came
    along with.
    """

    seq: int
    recorded_at: int
    key: str
    kind: Kind
    op: str
    prev: str | None
    value: str | None
    actor: str | None
    sources: tuple[str, ...]
    valid_at: int | None
    invalid_at: int | None
    batch: str | None
    detail: Mapping[str, Any]
    item: int | None = None
    gone: int | None = None


@dataclass(frozen=True, slots=True)
class ToRead:
    """What reading a call has to know beside the rows of its turns. The journal's JSON has the same names.

    Attributes:
        session: The session of its turns.
        turns: The turns that are not kept, as JSON values; `batch` is the call that told each.
        before: What was told before them: rows, or turns that are not kept.
        edited: The rows of which the words were changed, and facts may be no longer said.
        batches: The ids of the calls that are read together.
        owed: Whether only vectors are to be made.
        triples_of: The memory that was written by hand, of which only triples and further words are to be found.
        others: What else the JSON says; it is kept.
    """

    session: str | None = None
    turns: Sequence[Mapping[str, Any]] = ()
    before: Sequence[int | Mapping[str, Any]] = ()
    edited: Sequence[int] = ()
    batches: Sequence[str] = ()
    owed: bool = False
    triples_of: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ToRead:
        """What a JSON object says, unchecked; a TypeError where it is none."""
        others = {**plain}
        return cls(**{one.name: others.pop(one.name) for one in fields(cls)[:-1] if one.name in plain}, others=others)

    def plain(self) -> dict[str, Any]:
        """It as JSON values, without what is empty."""
        return {one.name: value for one in fields(self)[:-1] if (value := getattr(self, one.name))} | dict(self.others)


OWED = ToRead(owed=True)


@dataclass(frozen=True, slots=True)
class Unread:
    """A call whose facts were not looked for yet. Times are microseconds since 1970 UTC.

    Attributes:
        id: The note's number; no other note will ever have it.
        turns: The rows of the turns.
        set_aside: When it was given up, or None.
    """

    id: int
    scope: Scope
    turns: tuple[int, ...]
    detail: ToRead
    attempts: int
    next_at: int
    reason: str | None
    set_aside: int | None
    recorded_at: int
