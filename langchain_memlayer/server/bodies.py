"""What the REST calls take, checked by Pydantic: the arguments of `Memory`'s methods that JSON has.

Only what a call gives is passed on, so defaults are those of the methods.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Json

from langchain_memlayer.types import Scope

Kinds = list[Literal["fact", "turn"]]
Metadata = dict[str, Any]
LONGEST_QUERY = 10_000
"""Characters of a query: a longer one says nothing more, and would keep the server from others."""
Page = Annotated[int, Field(ge=1, le=1000)]


class Nothing(BaseModel):
    """A call without arguments."""

    model_config = ConfigDict(extra="forbid")


class Ids(Nothing):
    """Whose memories; ids that the token is bound to may be left out."""

    user_id: Annotated[str | None, Field(description="Whose memories.")] = None
    agent_id: Annotated[str | None, Field(description="Which agent's.")] = None
    run_id: Annotated[str | None, Field(description="Which run's.")] = None

    def scope(self) -> Scope:
        """The ids."""
        return Scope(self.user_id, self.agent_id, self.run_id)

    def rest(self) -> dict[str, Any]:
        """What was given beside the ids, by name."""
        return self.model_dump(exclude_unset=True, exclude={"user_id", "agent_id", "run_id"})


class Add(Ids):
    """Messages to remember."""

    messages: Annotated[
        str | dict[str, Any] | list[str | dict[str, Any]],
        Field(description="A string, a message with `role` and `content`, or a list of these."),
    ]
    metadata: Metadata | None = None
    session_id: Annotated[str | None, Field(description="The conversation that the messages belong to.")] = None
    timestamp: Annotated[str | float | None, Field(description="When they were said: ISO 8601, or seconds.")] = None
    infer: Annotated[bool, Field(description="False stores the messages exactly as given.")] = True
    batch_id: Annotated[str | None, Field(description="A repeated call with the same id changes nothing.")] = None
    background: Annotated[bool, Field(description="Answer when the messages are kept; read them afterwards.")] = False
    after_seconds: Annotated[float, Field(ge=0, description="With `background`: wait for more to be said.")] = 0.0
    expiration_date: Annotated[str | None, Field(description="The last day that it counts: 2026-12-31.")] = None


class Search(Ids):
    """What to look for."""

    query: Annotated[str, Field(max_length=LONGEST_QUERY, description="A question or some words.")]
    limit: Page = 10
    filters: Annotated[dict[str, Any] | None, Field(description="Conditions on metadata, role, ...")] = None
    threshold: Annotated[float | None, Field(ge=0, le=1, description="The least relevance.")] = None
    kinds: Kinds | None = None
    explain: Annotated[bool, Field(description="Tell what each signal gave.")] = False
    include_quarantined: bool = False
    reference_time: Annotated[str | None, Field(description="The present, for words such as yesterday.")] = None
    as_of: Annotated[str | None, Field(description="What held at this time, ISO 8601.")] = None
    known_at: Annotated[str | None, Field(description="What had been recorded by this time, ISO 8601.")] = None
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    expand: Annotated[int, Field(ge=0, le=100, description="How many turns around each hit.")] = 0
    rewrite: Annotated[bool, Field(description="Let the model make the query stand for itself.")] = False
    show_expired: bool = False


class Listing(Ids):
    """A page of a scope's memories, oldest first."""

    limit: Page = 100
    offset: Annotated[int, Field(ge=0)] = 0
    kinds: Kinds | None = None
    filters: Annotated[Json[dict[str, Any]] | None, Field(description="Conditions, as JSON.")] = None
    show_expired: bool = False


class Diff(Ids):
    """Two instants."""

    since: Annotated[str, Field(description="The earlier one, ISO 8601.")]
    until: Annotated[str | None, Field(description="The later one; by default now.")] = None
    kinds: Kinds | None = None


class Profile(Ids):
    """Whose profile, and of when."""

    as_of: Annotated[str | None, Field(description="What held at this time, ISO 8601.")] = None
    known_at: Annotated[str | None, Field(description="What had been recorded by this time, ISO 8601.")] = None


class UpdateProfile(Ids):
    """What to set in a profile by hand."""

    values: Annotated[dict[str, Any], Field(description="New values by field; null clears one.")]


class Undo(Ids):
    """What is taken back: an event, or in its place all that calls with a batch id did."""

    event_id: Annotated[int | str | None, Field(description="The `id` of a row of a history.")] = None
    batch_id: Annotated[str | None, Field(description="The batch id of `add`, or of a merge.")] = None


class Fork(Ids):
    """A fork of a scope."""

    name: Annotated[str, Field(description="What it is called.")]


class Scopes(Ids):
    """A page of the scopes."""

    limit: Page = 100
    offset: Annotated[int, Field(ge=0)] = 0


class Update(Nothing):
    """What to change of a memory."""

    text: Annotated[str | None, Field(description="Its new text.")] = None
    metadata: Annotated[Metadata | None, Field(description="Further metadata.")] = None
    expiration_date: Annotated[str | None, Field(description="The last day that it counts; null takes it away.")] = None


class Forget(Nothing):
    """How much to forget with a memory."""

    same_words: Annotated[bool, Field(description="Also the others of its scope with the same words.")] = False


class Read(Ids):
    """Which messages to read."""

    retry: Annotated[bool, Field(description="Also those that failed, and those set aside.")] = False


class Export(Nothing):
    """How the store is written."""

    vectors: bool = True
