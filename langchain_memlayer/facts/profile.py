"""Profiles: what facts change in one form of a user, as a patch of its fields by a chat model, validated by the schema.

```
changes of facts + the fields as they are ── build ── model ── parse ── checks ──> the fields as they become
```
A field is a cell: its value, and the facts that it comes from; those of a list, for each entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_json

from langchain_memlayer.errors import ConfigurationError, ExtractionError, InvalidInput, cut, shown
from langchain_memlayer.facts.chat import Method, StructuredChat
from langchain_memlayer.facts.profile_fields import model_of, read_schema
from langchain_memlayer.facts.prompts import PROFILE_INSTRUCTIONS, PROFILE_SCHEMA, shortened, show_records
from langchain_memlayer.facts.replies import read_entries, storable
from langchain_memlayer.facts.reply_forms import FoundChange
from langchain_memlayer.json_values import dumps, loads, plain
from langchain_memlayer.steps import Steps
from langchain_memlayer.types import from_micros

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

_FACT_TOKENS: Final = 200
_VALUE_TOKENS: Final = 300
_SHOWN: Final = 120
_WRONG: Final = 10
"""How many changes that cannot be used are told to the model."""
_CHANGES: Final = 300
"""How many changes of one reply count: each is checked against the whole profile."""
_LONGEST: Final = 10_000
"""How many characters a value may have that a model writes."""
_LIST: Final = "list of "
_MARKS: Final = frozenset({"field", "action"})

Cell = dict[str, Any]
Cells = dict[str, Cell]
"""What a profile says, by field: `value`; `facts`, the ids of those that it comes from (of a list, those of each
entry), none for what was set by hand; `at`, when it was told or set; `hand`, when it was last set by hand. A field that
was cleared by hand has no value."""


@dataclass(frozen=True, slots=True)
class FactChange:
    """What became of one fact. Times are microseconds since 1970 UTC.

    Attributes:
        id: The fact.
        before: What it said; None for a new one.
        after: What it says; None for one that ended.
        told_at: When it was last told.
        began: When it began to hold.
        offset: How far the zone that it was told in is from UTC, in seconds.
    """

    id: str
    before: str | None
    after: str | None
    told_at: int
    began: int
    offset: int | None = None


def is_cell(value: Any) -> bool:
    """Whether something is a cell: what was imported may be anything."""
    facts = value.get("facts") if isinstance(value, dict) else None
    if not isinstance(facts, list) or any(type(value.get(name, 0)) is not int for name in ("at", "hand")):
        return False
    each = facts
    if any(isinstance(one, list) for one in facts):
        if not _is_by_entry(value):
            return False
        each = [key for one in facts for key in one]
    return "at" in value and all(isinstance(key, str) for key in each)


def _is_by_entry(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is a list that says of each entry where it comes from."""
    value, facts = cell.get("value"), cell["facts"]
    return isinstance(value, list) and len(facts) == len(value) and all(isinstance(one, list) for one in facts)


def cited(cells: Cells) -> set[str]:
    """The ids of all facts that cells come from."""
    fact_ids: set[str] = set()
    for cell in cells.values():
        for one in cell["facts"]:
            fact_ids.update([one] if isinstance(one, str) else one)
    return fact_ids


def filtered(cells: Cells, keep: Callable[[Any, list[str]], list[str] | None]) -> Cells:
    """Cells with what of them is kept.

    `keep` is given a value, or an entry of a list, and its facts; it gives those of them that stay, or None when it
    goes. It is not asked for what was set by hand.
    """
    filtered_cells: Cells = {}
    for name, cell in cells.items():
        value, facts = cell.get("value"), cell["facts"]
        if isinstance(value, list) and _is_by_entry(cell):
            entries = [(one, keep(one, by) if by else by) for one, by in zip(value, facts, strict=True)]
            stay = [(one, by) for one, by in entries if by is not None]
            cell = {**cell, "value": [one for one, _ in stay], "facts": [by for _, by in stay]}
            empty = bool(entries) and not stay
        else:
            left = keep(value, facts) if facts else facts
            cell, empty = {**cell, "facts": left}, left is None
        if not empty:
            filtered_cells[name] = cell
        elif "hand" in cell:
            filtered_cells[name] = {"facts": [], "at": cell["at"], "hand": cell["hand"]}
    return filtered_cells


def joined(cell: Cell, other: Cell) -> Cell:
    """A cell with the entries that another has besides; else the other, with the facts of both for the same value."""
    if _is_by_entry(cell) and _is_by_entry(other):
        entries: dict[str, tuple[Any, list[str]]] = {}
        for one, by in [*_entries_of(cell), *_entries_of(other)]:
            known, facts = entries.get(_entry_key(one), (one, []))
            entries[_entry_key(one)] = known, list(dict.fromkeys([*facts, *by]))
        return {
            **other, "value": [one for one, _ in entries.values()], "facts": [by for _, by in entries.values()],
        }  # fmt: skip
    if cell.get("value") != other["value"] or _is_by_entry(other):
        return other
    return {**other, "facts": list(dict.fromkeys([*cell["facts"], *other["facts"]]))}


def _entries_of(cell: Cell) -> list[tuple[Any, list[str]]]:
    return list(zip(cell["value"], cell["facts"], strict=True))


class ProfileSchema:
    """The fields of a profile: what they are, and what they take.

    Args:
        model: A pydantic model, or where it is to be imported from: "package.module:Model"; or a JSON schema
            (`profile_fields`), or the path of a file of one: "customer.json".

    Raises:
        ConfigurationError: it is none, has no fields, or cannot be imported or read.
    """

    def __init__(self, model: type[BaseModel] | Mapping[str, Any] | str) -> None:
        if isinstance(model, str):
            model = read_schema(model) if model.endswith(".json") else _imported(model)
        if isinstance(model, Mapping):
            model = model_of(model)
        if not (isinstance(model, type) and issubclass(model, BaseModel) and {*model.model_fields} - {"root"}):
            raise ConfigurationError(
                f"profile= takes a pydantic model (a class with fields) or a JSON schema, got {shown(model)}; its "
                "fields are what is to be known of each user."
            )
        self.model = model
        try:
            self._describe(model)
        except PydanticUserError as error:
            raise ConfigurationError(
                f"The profile {model.__name__} has a field of a type that JSON does not have ({error.code})."
            ) from error

    def _describe(self, model: type[BaseModel]) -> None:
        self._adapters: dict[str, TypeAdapter[Any]] = {
            # Without its alias, which pydantic warns of outside of a class.
            name: TypeAdapter(
                cast("Any", Annotated[(info.annotation, *info.metadata, Field(discriminator=info.discriminator))])
            )
            for name, info in model.model_fields.items()
        }
        whole = model.model_json_schema(by_alias=False)
        if '"writeOnly":true' in dumps(whole):
            raise ConfigurationError(f"The profile {model.__name__} has a secret, which JSON would not give back.")
        self._named: dict[str, Any] = whole.get("$defs", {})
        # A model that has itself in it is among the definitions.
        own = self._named[whole["$ref"].rpartition("/")[2]] if "$ref" in whole else whole
        # What the model keeps out of its schema, nobody is asked for.
        shown = own.get("properties", {})
        self._parts: dict[str, Any] = {name: shown[name] for name in model.model_fields if name in shown}
        self.lists = frozenset(name for name in self._parts if self._type(self._parts[name]).startswith(_LIST))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(self._parts)

    def coerced(self, name: str, value: Any) -> Any:
        """The value of a field, as JSON has it.

        Raises:
            InvalidInput: the field does not take it; the message is the reason.
        """
        adapter = self._adapters[name]
        try:
            taken = adapter.validate_json(to_json(value, by_alias=False), by_alias=True, by_name=True)
            return plain(adapter.dump_python(taken, mode="json", by_alias=False), name)
        except (InvalidInput, PydanticSerializationError) as error:
            raise InvalidInput(str(error)) from error
        except ValidationError as error:
            raise InvalidInput(error.errors(include_url=False)[0]["msg"]) from error
        except Exception as error:  # What checks a value is the caller's own, and may raise anything.
            raise InvalidInput(_unchecked(error)) from error

    def read(self, values: Mapping[str, Any]) -> tuple[BaseModel | None, dict[str | None, str]]:
        """An instance, and by field why its value is not in it; None, with the reasons, when there can be none.

        Under None stands why the whole is refused.
        """
        wrong: dict[str | None, str] = dict.fromkeys(values.keys() - set(self.names), "there is no such field now")
        while True:
            taken = dumps({name: value for name, value in values.items() if name not in wrong})
            try:
                return self.model.model_validate_json(taken, by_alias=False, by_name=True), wrong
            except ValidationError as error:
                reasons = _reasons(error)
                fresh = reasons.keys() & values.keys() - wrong.keys()
                wrong.update(reasons)
                if not fresh:
                    return None, wrong
            except Exception as error:  # noqa: BLE001 - what checks a profile is the caller's own, and may raise anything
                return None, {**wrong, None: _unchecked(error)}

    def refused(self, before: Cells, after: Cells) -> dict[str | None, str]:
        """Why cells are no profile that were one, by field; what is still missing counts for nothing."""
        values, old = values_of(after), values_of(before)
        wrong = {name: reason for name, reason in self.read(values)[1].items() if name is None or name in values}
        known = self.read(old)[1] if wrong else {}
        return {
            name: reason
            for name, reason in wrong.items()
            if name not in known or (name is not None and values[name] != old.get(name))
        }

    def shown(self, cells: Cells) -> list[dict[str, Any]]:
        """The fields with what they are and what they say, as the prompt shows them."""
        records = []
        for name, part in self._parts.items():
            cell = cells.get(name, {})
            record = {"field": name, "type": self._type(part), "about": part.get("description")}
            if "value" in cell:
                text = dumps(cell["value"])
                record["value"] = cell["value"] if len(text) <= 4 * _VALUE_TOKENS else shortened(text, _VALUE_TOKENS)
            if "hand" in cell:
                record["by hand"] = f"{from_micros(cell['hand']):%Y-%m-%d}"
            records.append({key: value for key, value in record.items() if value is not None})
        return records

    def _type(self, part: Mapping[str, Any], depth: int = 0) -> str:
        """The type of a field in a few words."""
        if "$ref" in part and depth < 4:
            return self._type(self._named[part["$ref"].rpartition("/")[2]], depth + 1)
        if "enum" in part or "const" in part:
            return " | ".join(dumps(one) for one in part.get("enum", [part.get("const")]))
        if "anyOf" in part:
            types = [self._type(one, depth) for one in part["anyOf"]]
            return " | ".join(dict.fromkeys(one for one in types if one != "null")) or "null"
        if part.get("type") == "array" and "items" in part:
            return f"{_LIST}{self._type(part['items'], depth + 1)}"
        if "properties" in part and depth < 4:
            return (
                f"{{{', '.join(f'{name}: {self._type(one, depth + 1)}' for name, one in part['properties'].items())}}}"
            )
        return str(part.get("format") or part.get("type") or "any")


def _reasons(error: ValidationError) -> dict[str | None, str]:
    reasons: dict[str | None, str] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        reasons.setdefault(str(one["loc"][0]) if one["loc"] else None, one["msg"])
    return reasons


def _unchecked(error: Exception) -> str:
    """Why a value is refused whose check failed; what the error says may quote anything."""
    return f"it could not be checked ({type(error).__name__})"


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"profile={shown(name)} cannot be imported ({cut(str(error))}): write it as "
            "'package.module:Model', of a module that Python finds, or as the path of a JSON schema that "
            "ends with .json."
        ) from error


class ProfileUpdater:
    """Asks a chat model what facts change in a profile. Threads and event loops may share it.

    Args:
        model: Any LangChain chat model.
        schema: The fields.
        method: How the model is held to the form of the reply; None decides by what it supports.
    """

    def __init__(self, model: BaseChatModel, schema: ProfileSchema, *, method: Method | None = None) -> None:
        self._chat = StructuredChat(model, PROFILE_SCHEMA, run_name="profile", method=method)
        self._schema = schema

    def patched(self, cells: Cells, changes: Sequence[FactChange]) -> Steps[tuple[Cells, dict[str, list[str]]]]:
        """The cells as the changes of facts make them, and by field the facts that changed it: one call.

        A reply that the schema refuses is shown to the model with the reason, once; what is still wrong then is left
        out.

        Raises:
            ExtractionError: the model failed, or its reply cannot be read.
        """
        patches: list[_Patch] = []

        def read(reply: str) -> _Patch:
            patches.append(_Patch(self._schema, cells, changes))
            return patches[-1].read(reply, strict=len(patches) == 1)

        patch: _Patch = yield from self._chat.asking(self.build(cells, changes), read)
        return patch.cells, patch.by

    def build(self, cells: Cells, changes: Sequence[FactChange]) -> list[BaseMessage]:
        """The prompt: instructions, then the fields and the facts as fenced JSON."""
        from langchain_core.messages import HumanMessage, SystemMessage

        facts: list[dict[str, Any]] = []
        for number, change in enumerate(changes, 1):
            was = None if change.before is None else shortened(change.before, _FACT_TOKENS)
            if change.after is None:
                facts.append({"fact": number, "ended": was})
                continue
            date, text = f"{from_micros(change.told_at, change.offset):%Y-%m-%d}", shortened(change.after, _FACT_TOKENS)
            facts.append({"fact": number, "date": date, **({} if was is None else {"was": was}), "text": text})
        shown = show_records("fields", self._schema.shown(cells)), show_records("facts", facts)
        return [SystemMessage(PROFILE_INSTRUCTIONS), HumanMessage("\n".join(shown))]


class _Patch:
    """What one reply makes of cells."""

    def __init__(self, schema: ProfileSchema, cells: Cells, changes: Sequence[FactChange]) -> None:
        self.cells = dict(cells)
        self.by: dict[str, list[str]] = {}
        self._schema = schema
        self._changes = changes
        self._wrong: list[str] = []

    def read(self, reply: str, *, strict: bool) -> _Patch:
        """Itself with what a reply says; with `strict` an `ExtractionError` says what of it cannot be used."""
        for entry in read_entries(reply, "changes", _MARKS).entries[:_CHANGES]:
            if isinstance(entry, Mapping):
                self._apply(FoundChange.model_validate(entry))
        if strict and self._wrong:
            raise ExtractionError(f"These changes cannot be used: {'; '.join(self._wrong[:_WRONG])}", reply=reply)
        return self

    def _apply(self, change: FoundChange) -> None:
        known = {one.casefold(): one for one in self._schema.names} | {one: one for one in self._schema.names}
        name = known.get(change.field) or known.get(change.field.casefold())
        facts = [self._changes[k - 1] for k in change.facts if 0 < k <= len(self._changes)]
        action = change.action.casefold()
        if action == "set" and change.value.strip() in ("", "null"):
            action = "clear"
        if name is None:
            self._refuse(change.field, f"there is no such field, only {', '.join(self._schema.names)}")
        elif not facts:
            self._refuse(name, "it names no fact by its number")
        elif action not in ("set", "append", "remove", "clear"):
            self._refuse(name, "there is no such action")
        elif max(one.told_at for one in facts) > self.cells.get(name, {}).get("hand", -1):
            self._change(name, action, change.value, facts)

    def _refuse(self, field: str, reason: str) -> None:
        self._wrong.append(f"{shortened(field, 10) or '(no field)'}: {shortened(reason, _SHOWN)}")

    def _change(self, name: str, action: str, text: str, facts: Sequence[FactChange]) -> None:
        old = self.cells.get(name, {})
        try:
            cell = None if action == "clear" else self._new_cell(name, action, text, facts, old)
        except InvalidInput as error:
            self._refuse(name, str(error))
            return
        if cell is old:
            return
        made = {other: one for other, one in self.cells.items() if other != name}
        if cell is not None:
            made[name] = {**cell, "at": max(one.told_at for one in facts)}
            if self._is_listed(name, cell["value"]) and "hand" in old and action != "set":
                made[name]["hand"] = old["hand"]
        if wrong := self._schema.refused(self.cells, made):
            self._refuse(name, next(iter(wrong.values())))
            return
        if values_of(made).get(name) != old.get("value") or made.get(name, {}).get("facts") != old.get("facts"):
            self.cells = made
            self.by.setdefault(name, []).extend(one.id for one in facts)

    def _new_cell(self, name: str, action: str, text: str, facts: Sequence[FactChange], old: Cell) -> Cell | None:
        """What a field says after a change, and by which facts: None for nothing more, `old` for nothing else."""
        # What ended says nothing of what holds.
        ids = [one.id for one in facts if one.after is not None]
        if not ids and action != "remove":
            return old
        value = self._value(name, text, listed=name in self._schema.lists)
        if self._is_listed(name, value):
            entries = _entries(self._before(name), value, ids, action)
            return {"value": [one for one, _ in entries], "facts": [by for _, by in entries]} if entries else None
        if action == "remove":
            return None if old.get("value") == value else old
        # What is told once more has one more fact.
        same = old.get("value") == value and old.get("facts")
        return {"value": value, "facts": list(dict.fromkeys([*(old["facts"] if same else ()), *ids]))}

    def _is_listed(self, name: str, value: Any) -> bool:
        return name in self._schema.lists and isinstance(value, list)

    def _before(self, name: str) -> list[tuple[Any, list[str]]]:
        """The entries of a list, each with its facts; of what it was under another schema those that it takes."""
        cell = self.cells.get(name, {"facts": []})
        value = cell.get("value")
        values = value if isinstance(value, list) else [] if value is None else [value]
        facts = cell["facts"] if _is_by_entry(cell) else [sorted(cited({name: cell}))] * len(values)
        if name not in self._schema.read({name: values})[1]:
            return list(zip(values, facts, strict=True))
        entries = []
        for one, by in zip(values, facts, strict=True):
            with suppress(InvalidInput):
                entries += [(taken, by) for taken in self._schema.coerced(name, [one])]
        return entries

    def _value(self, name: str, text: str, *, listed: bool) -> Any:
        """The value that a reply writes, JSON or the text itself, as the field has it; entries as a list."""
        given: list[Any] = [storable(text)]
        if len(text) > _LONGEST:
            raise InvalidInput(f"a value has {_LONGEST:,} characters at most")
        with suppress(ValueError):
            given.insert(0, loads(given[0].strip()))
            if isinstance(given[0], (list, dict)):
                # What is written as an object or list is meant as one, not as the text of it.
                given.pop()
        for one in given:
            try:
                return self._schema.coerced(name, one if not listed or isinstance(one, list) else [one])
            except InvalidInput as error:
                failure = error
        raise failure


def values_of(cells: Cells) -> dict[str, Any]:
    """What cells say, by field."""
    return {name: cell["value"] for name, cell in cells.items() if "value" in cell}


def _entries(
    entries: Sequence[tuple[Any, list[str]]], value: Sequence[Any], ids: Sequence[str], action: str
) -> list[tuple[Any, list[str]]]:
    """The entries of a list, each with its facts, after a change."""
    said = [_entry_key(one) for one in value]
    if action == "remove":
        return [(one, by) for one, by in entries if _entry_key(one) not in said]
    known = {_entry_key(one): (one, by) for one, by in entries}
    changed = {}
    for one, mark in zip(value, said, strict=True):
        before, by = known.get(mark, (one, None))
        # What stands there by hand, or is told by others, stays theirs.
        changed[mark] = (before, [*ids] if by is None else list(dict.fromkeys([*by, *ids])) if by else [])
    return list((changed if action == "set" else {**known, **changed}).values())


def _entry_key(value: Any) -> str:
    return value.casefold().strip() if isinstance(value, str) else dumps(value)
