"""The forms of replies: what each field is, said once; how it is sent to a provider, and how it is read leniently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from langchain_memlayer.facts.replies import storable
from langchain_memlayer.json_values import dumps

FACT_CHARS: Final = 500
QUOTE_CHARS: Final = 300
NAME_CHARS: Final = 100
QUERY_CHARS: Final = 300
REASON_CHARS: Final = 200
WORD_CHARS: Final = 40
MOST_FACTS: Final = 50
MOST_TRIPLES: Final = 8
MOST_WORDS: Final = 8
MOST_QUERIES: Final = 3
MOST_ENDED: Final = 20

# What models write for an action.
_ACTIONS: Final = {
    "CREATE": "ADD", "INSERT": "ADD", "NEW": "ADD", "CHANGE": "UPDATE", "MODIFY": "UPDATE", "REPLACE": "UPDATE",
    "MERGE": "UPDATE", "REMOVE": "DELETE", "FORGET": "DELETE", "NOOP": "NONE", "NO_OP": "NONE", "NOTHING": "NONE",
    "IGNORE": "NONE", "SKIP": "NONE", "KEEP": "NONE", "NO CHANGE": "NONE", "NULL": "NONE",
}  # fmt: skip
_NUMBER = re.compile(r"[^\d-]{0,12}(\d{1,6})(?:\.0+)?[^\d]?")


def one_line(value: Any) -> str:
    """A string of one line, without what no journal can keep; "" for what is neither string nor number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return " ".join(storable(str(value)).split())


def _numbers(value: Any) -> tuple[int, ...]:
    """The numbers that a model gives (2, "2", "[2]", [2, 3]), without what is none."""
    parts = (
        value if isinstance(value, (list, tuple)) else re.split("[,;、]", value) if isinstance(value, str) else [value]
    )
    matches = [_NUMBER.fullmatch(one_line(part)) for part in parts]
    return tuple(dict.fromkeys(int(match[1]) for match in matches if match))


def _truth(value: Any) -> bool:
    return value is True or one_line(value).casefold() in ("true", "yes", "1")


def _triples(value: Any) -> tuple[tuple[str, str, str], ...]:
    """The triples of an entry, without those that are none."""
    triples: dict[tuple[str, str, str], None] = {}
    for item in value if isinstance(value, (list, tuple)) else ():
        parts = item
        if isinstance(item, Mapping):
            relation = item.get("relation", item.get("relationship"))
            parts = [item.get("source"), relation, item.get("destination", item.get("target"))]
        if not isinstance(parts, (list, tuple)) or len(parts) != 3:
            continue
        source, relation, destination = map(one_line, parts)
        if all(name and len(name) <= NAME_CHARS for name in (source, relation, destination)):
            triples[source, relation, destination] = None
    return tuple(triples)[:MOST_TRIPLES]


def _action(value: Any) -> str:
    word = one_line(value).upper()[:20]
    return _ACTIONS.get(word, word)


def _texts(value: Any) -> tuple[str, ...]:
    """The strings of a list that say something, each once."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return tuple(dict.fromkeys(text for part in parts if isinstance(part, str) and (text := one_line(part))))


def _written(value: Any) -> str:
    """A value as it is asked for: a text, or JSON."""
    return storable(value if isinstance(value, str) else "" if value is None else dumps(value))


_STRINGS: Final = {"type": "array", "items": {"type": "string"}}
Line = Annotated[str, BeforeValidator(one_line)]
Number = Annotated[tuple[int, ...], BeforeValidator(_numbers), WithJsonSchema({"type": "integer"})]
Numbers = Annotated[
    tuple[int, ...], BeforeValidator(_numbers), WithJsonSchema({"type": "array", "items": {"type": "integer"}})
]
Truth = Annotated[bool, BeforeValidator(_truth)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts), WithJsonSchema(_STRINGS)]
Triples = Annotated[
    tuple[tuple[str, str, str], ...], BeforeValidator(_triples), WithJsonSchema({"type": "array", "items": _STRINGS})
]
ActionWord = Annotated[str, BeforeValidator(_action)]
Written = Annotated[str, BeforeValidator(_written)]


class Form(BaseModel):
    """The form of one entry. Any object can be read: what is missing or of another kind is left blank."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, entry: Any) -> Any:
        """The entry with its fields named as they are here, in whatever case the model writes them."""
        named = entry.items() if isinstance(entry, Mapping) else ()
        return {str(name).strip().casefold(): value for name, value in named} or entry


class FoundFact(Form):
    """One fact, as an extractor's model writes it."""

    turn: Number = Field((), description="number of the turn that says it.")
    quote: Line = Field("", description="its words that say it, copied exactly, at most 30.")
    fact: Line = Field("", description="the statement, at most 60 words, or 120 Chinese characters.")
    subject: Line = Field("", description="whom or what it is about.")
    valid_at: Line = Field(
        "", description='when it begins or happens: YYYY-MM-DD, YYYY-MM or YYYY; "" if not said.'
    )  # fmt: skip
    valid_until: Line = Field(
        "", description='the last day of what is void afterwards (an offer, a pass); "" for trips and stays.'
    )
    words: Texts = Field(
        (), description="up to 4 more to ask with, in each language spoken: what a name is (dog, drug), other words."
    )
    corrects: Numbers = Field((), description="numbers of the turns that it says were wrong.")
    retract: Truth = Field(False, description="true only if the user asks to forget something; the fact says what.")
    triples: Triples = Field(
        (), description=f"its relations as they are now, [source, relation, destination], short, at most "
        f"{MOST_TRIPLES}."
    )  # fmt: skip


class FoundDecision(Form):
    """One decision, as a reconciler's model writes it."""

    fact: Number = Field((), description="the fact's number; one decision for each.")
    action: Annotated[ActionWord, WithJsonSchema({"type": "string", "enum": ["ADD", "UPDATE", "DELETE", "NONE"]})] = (
        Field("", description="see above.")
    )
    memory: Number = Field((), description="the number of the memory that UPDATE, DELETE or NONE is about; 0 for ADD.")
    also: Numbers = Field((), description="the numbers of further memories that it ends.")
    text: Line = Field("", description="for UPDATE only.")
    reason: Line = Field("", description="at most 6 words.")


class FoundQueries(Form):
    """What to look up, as a rewriter's model writes it."""

    queries: Texts = Field((), description=f"the queries, at most {MOST_QUERIES}.")
    entities: Texts = Field(
        (), description="the people, places and things that they are about, by their names; [] if there are none."
    )  # fmt: skip


class FoundChange(Form):
    """One change of a profile, as its model writes it."""

    field: Line = Field("", description="the field's name.")
    action: Annotated[Line, WithJsonSchema({"type": "string", "enum": ["set", "append", "remove", "clear"]})] = Field(
        "", description="see above."
    )
    value: Written = Field("", description='the text itself, or JSON of the field\'s type; "" to clear.')
    facts: Numbers = Field((), description="the numbers of the facts that say it.")


def contract(form: type[Form]) -> str:
    """What each field is, one a line, for the prompt: not every provider shows the schema to its model."""
    return "\n".join(f"- {name}: {field.description}" for name, field in form.model_fields.items())


def schema_of(form: type[Form], title: str, listed: str | None = None) -> dict[str, Any]:
    """A JSON schema as strict providers take it: every field required, no bounds; descriptions are in the prompt.

    It is of a list of entries under the name `listed`; of one entry as it is when that is None.
    """
    found = form.model_json_schema()["properties"]
    kept = ("type", "items", "enum")
    fields = {name: {key: part[key] for key in kept if key in part} for name, part in found.items()}
    entry = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    if listed is None:
        return {"title": title, **entry}
    properties = {listed: {"type": "array", "items": entry}}
    whole = {"type": "object", "properties": properties, "required": [listed], "additionalProperties": False}
    return {"title": title, **whole}
