"""What callers of `Memory` get back: dictionaries whose keys a type checker knows, and a user's profile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NotRequired

# Pydantic reads those of the standard library from Python 3.12 on only.
from typing_extensions import TypedDict

from langchain_memlayer.types import Kind


class Relation(TypedDict):
    """A triple as results show it."""

    source: str
    relationship: str
    destination: str


class Evidence(TypedDict):
    """A turn that a fact comes from, and when it was said (ISO 8601); without its words where they were not kept.

    Attributes:
        id: The message's own id, else the turn's, which is `memory_id`.
        quote: The words of its text that support the fact.
    """

    id: str
    memory_id: str
    text: str | None
    quote: str | None
    role: str | None
    name: str | None
    session_id: str | None
    time: str | None


class MemoryResult(TypedDict):
    """A memory as `get` and `get_all` show it; `text`, `memory` and `metadata["data"]` are the same, times ISO 8601.

    Attributes:
        time: When it was first said, in the speaker's zone where that is known; the other times are in UTC.
    """

    id: str
    memory: str
    text: str
    kind: Kind
    sources: list[str]
    metadata: dict[str, Any]
    event: str
    user_id: str | None
    agent_id: str | None
    run_id: str | None
    session_id: str | None
    role: str | None
    name: str | None
    hash: str | None
    count: int
    time: str | None
    valid_at: str | None
    invalid_at: str | None
    ended: bool
    quarantined: bool
    created_at: str | None
    updated_at: str | None


class Hit(MemoryResult):
    """A memory as `search` shows it.

    Attributes:
        score: From 0 to 1; orders the hits.
        relevance: From 0 to 1; absolute, so that a threshold means the same for every query.
        evidence: The turns that a fact comes from; none for a turn, which is its own.
        explanation: What each signal gave to the score, on request.
        around: The turns before and after, on request.
    """

    score: float
    relevance: float
    evidence: list[Evidence]
    explanation: NotRequired[dict[str, float]]
    around: NotRequired[list[MemoryResult]]


class SearchResult(TypedDict):
    """What `search` found, best first, and the relations around the entities that the query names."""

    results: list[Hit]
    relations: list[Relation]


class ListResult(TypedDict):
    """What `get_all` lists."""

    results: list[MemoryResult]
    relations: list[Relation]


class ScopeSize(TypedDict):
    """Whose memories there are, exactly these ids, and how many; times are ISO 8601."""

    user_id: str | None
    agent_id: str | None
    run_id: str | None
    facts: int
    turns: int
    created_at: str
    updated_at: str


class AddedMemory(TypedDict):
    """What became of one fact or turn; `previous_memory` is the text before an UPDATE."""

    id: str
    memory: str
    event: str
    previous_memory: NotRequired[str | None]


class AddedRelations(TypedDict):
    """The triples that an `add` began and ended."""

    added_entities: list[Relation]
    deleted_entities: list[Relation]


class RejectedFact(TypedDict):
    """A fact or decision that our own checks refused."""

    memory: str
    reason: str
    quote: str | None


class ExtractResult(TypedDict):
    """What `extract` reports, as JSON values: the facts that `reconcile` takes, and what was refused."""

    facts: list[dict[str, Any]]
    rejected: list[RejectedFact]


class AddResult(TypedDict):
    """What an `add` reports; `skipped` is what was left out of the messages."""

    results: list[AddedMemory]
    relations: AddedRelations
    rejected: NotRequired[list[RejectedFact]]
    skipped: NotRequired[list[dict[str, Any]]]


class UnreadTurn(TypedDict):
    """A turn that is still to be read; without an id where turns are not kept."""

    id: str | None
    memory: str
    role: str | None


class UnreadCall(TypedDict):
    """Turns whose facts were not found yet.

    Attributes:
        attempts: How often reading was tried; an attempt that goes on counts. `next_at` is when it is next, ISO 8601.
        reason: Why it failed last: the kind of the error, and of its cause.
        set_aside: Whether it is not tried any more by itself.
    """

    id: int
    turns: list[UnreadTurn]
    attempts: int
    next_at: str
    reason: str | None
    set_aside: bool


class ReadResult(TypedDict):
    """What `read` found, like an `add` of all that it read, and what is still unread."""

    results: list[AddedMemory]
    relations: AddedRelations
    rejected: list[RejectedFact]
    unread: list[UnreadCall]


class HeldBy(TypedDict):
    """A memory that holds words which were forgotten elsewhere."""

    id: str
    memory: str
    kind: Kind


class ForgetResult(TypedDict):
    """What `forget` removed, how many versions, and who else holds the same words."""

    message: str
    count: int
    also: list[HeldBy]


class HistoryRow(TypedDict):
    """One thing that happened to a memory; times are ISO 8601.

    mem0 calls the text before and after it, and when it was recorded, `old_memory`, `new_memory` and `updated_at`.

    Attributes:
        id: The event's number.
        prev_value: The text before; None for ADD.
        new_value: The text after; None for DELETE.
        event: ADD, UPDATE, DELETE or UNDO.
        created_at: When the memory began.
        is_deleted: 1 for DELETE, else 0.
        actor_id: The name of who spoke, when known.
    """

    id: str
    memory_id: str
    prev_value: str | None
    new_value: str | None
    old_memory: str | None
    new_memory: str | None
    event: str
    timestamp: str
    created_at: str
    updated_at: str
    is_deleted: int
    actor_id: str | None
    role: str | None


class WhyResult(TypedDict):
    """Where a memory comes from and what was decided about it."""

    id: str
    memory: str
    kind: Kind
    sources: list[Evidence]
    decisions: list[dict[str, Any]]


class ChangedMemory(TypedDict):
    """A memory before and after a change."""

    id: str
    before: MemoryResult
    after: MemoryResult


class DiffResult(TypedDict):
    """What became of a scope between two instants, ISO 8601: what became known, changed and ended, in order.

    `profile` has what changed in the user's profile meanwhile, where something did.
    """

    since: str
    until: str
    added: list[MemoryResult]
    changed: list[ChangedMemory]
    ended: list[MemoryResult]
    relations: AddedRelations
    profile: NotRequired[list[ProfileChange]]


class ProfileField(TypedDict):
    """What a profile says in one field.

    Attributes:
        value: The value, as JSON has it.
        facts: The ids of the facts that it comes from; none for what was set by hand.
        updated_at: When it was last told or set, ISO 8601.
    """

    value: Any
    facts: list[str]
    updated_at: str


class ProfileProblem(TypedDict):
    """What of a profile the schema does not take, and why; without a field the schema refuses the whole."""

    field: str | None
    value: Any
    reason: str


class ProfileResult(TypedDict):
    """A `Profile` as JSON values."""

    id: str
    value: dict[str, Any] | None
    fields: dict[str, ProfileField]
    updated_at: str | None
    behind: bool
    problems: list[ProfileProblem]


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a user as one object.

    Attributes:
        id: The memory that it is, for `history`, `undo` and `forget`.
        value: An instance of the schema; None while there is none that is valid, or no schema.
        fields: What is filled, by field, with the facts that it comes from.
        updated_at: When something of it was last told or set, ISO 8601; None for an empty one.
        behind: Whether facts were told that it has not taken in yet, since the model failed: the next call does.
        problems: What is stored and not shown in `value`, since the schema has changed, and what it misses.
    """

    id: str
    value: Any
    fields: dict[str, ProfileField]
    updated_at: str | None = None
    behind: bool = False
    problems: list[ProfileProblem] = field(default_factory=list)

    def plain(self) -> ProfileResult:
        """Itself as JSON values; where the schema's own code cannot write them, `value` has the filled fields."""
        value = None
        if self.value is not None:
            try:
                value = self.value.model_dump(mode="json")
            except Exception:  # noqa: BLE001 - what users write, such as a computed field, raises anything
                value = {name: one["value"] for name, one in self.fields.items()}
        return {
            "id": self.id,
            "value": value,
            "fields": self.fields,
            "updated_at": self.updated_at,
            "behind": self.behind,
            "problems": self.problems,
        }


class ProfileChange(TypedDict):
    """One change of one field of a profile.

    Attributes:
        field: The field.
        before: Its value before; None when it had none.
        after: Its value after; None when it has none.
        facts: The ids of the facts that the value after comes from; none for what was set by hand.
        timestamp: When it was recorded, ISO 8601.
        event_id: The number of the event, for `undo`.
    """

    field: str
    before: Any
    after: Any
    facts: list[str]
    timestamp: str
    event_id: str


class ReplayedFact(TypedDict):
    """A fact that only one of two readings found, or found otherwise, and the message that it comes from."""

    before: str | None
    after: str | None
    said: str


class ReplayResult(TypedDict):
    """What a replay found.

    Attributes:
        into: The user whose memories it made.
        turns: How many messages were copied.
        same: How many facts both readings have.
        results: Those that differ, in the order of the conversation.
    """

    into: str
    turns: int
    same: int
    results: list[ReplayedFact]


class ForkInfo(TypedDict):
    """A fork.

    Attributes:
        name: What it is called.
        user_id: Whose memories it is a copy of.
        agent_id: Which agent's.
        run_id: Which run's.
        ids: The ids of its own memories, which every call takes.
        created_at: When it was made.
    """

    name: str
    user_id: str | None
    agent_id: str | None
    run_id: str | None
    ids: dict[str, str]
    created_at: str


class Conflict(TypedDict):
    """A memory, or a field of a profile, that was changed on both sides.

    Attributes:
        id: The original.
        memory: What it says, of a field "city: Rome"; None where it has ended.
        fork: What the fork says; None where it has ended there.
        added: The id of the memory that says so beside the original; None where nothing was added.
    """

    id: str
    memory: str | None
    fork: str | None
    added: str | None


class MergeResult(TypedDict):
    """What a merge did.

    Attributes:
        results: What became of the memories of the original, as `add` tells it.
        relations: The relations that came and went.
        conflicts: What was changed on both sides.
        batch_id: What `undo` takes it back by.
    """

    results: list[AddedMemory]
    relations: AddedRelations
    conflicts: list[Conflict]
    batch_id: str


class Done(TypedDict):
    """What a call that changes or ends memories reports.

    Attributes:
        message: That it is done.
        count: How many, where it may be several.
        event_id: Of a `delete_all`, the event that `undo` takes back.
    """

    message: str
    count: NotRequired[int]
    event_id: NotRequired[str]
