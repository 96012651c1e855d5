"""The lines of an export: a header, one line for each row, and an end with the digest of everything before it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.index.keywords import well_formed
from langchain_memlayer.journal.transfer import ITEMS, SECTIONS, Section, Values, wrong_owner, wrong_values
from langchain_memlayer.values import dumps, loads

VERSION = 1
HEADER, END = "memlayer", "end"


def line(kind: str, values: Values) -> bytes:
    """One line; the same values give the same bytes."""
    shown = {"type": kind, **values}
    for name in ("terms", "vectors") if kind == ITEMS.name else ():
        if name in shown:
            shown[name] = base64.b64encode(shown[name]).decode()
    return dumps(shown).encode() + b"\n"


def digest() -> Any:
    """What the end's digest is made with."""
    return blake2b(digest_size=32)


class Lines:
    """A file of lines, checked while it is read.

    Attributes:
        header: The first line.
        total: How many rows there are; known when all were read.
        digest: That of the end; known then too.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._known = file, _Known()
        self.header: Values = {}
        self.total = 0
        self.digest = ""

    def rows(self) -> Iterator[tuple[Section, Values]]:
        """All rows in order.

        Raises:
            InvalidInput: a line is not what it should be; the message has its number.
        """
        hashed, order, self._known = digest(), list(SECTIONS), _Known()
        at, last, ended, number = 0, None, False, 0
        with self._file.open("rb") as opened:
            for number, raw in enumerate(opened, 1):
                values = self._parsed(raw, number)
                kind = values.pop("type", None)
                if ended:
                    raise self._wrong(number, "there is something behind the end")
                if number == 1:
                    self._check_header(kind, values)
                elif kind == END:
                    self._check_end(values, number, hashed.hexdigest())
                    ended = True
                elif kind not in SECTIONS or order.index(kind) < at:
                    raise self._wrong(number, f"a row of the type {kind!r} cannot stand here")
                else:
                    section = SECTIONS[kind]
                    self._check_row(section, values, number)
                    key = (order.index(kind), *(values[name] for name in section.key))
                    if last is not None and key <= last:
                        raise self._wrong(number, "the rows are not in order")
                    at, last = key[0], key
                    self.total = number - 1
                    yield section, values
                hashed.update(raw)
        if not ended:
            raise self._wrong(number + 1, "the end is missing: the file was cut off")

    def _parsed(self, raw: bytes, number: int) -> Values:
        try:
            values = loads(raw.decode())
        except ValueError as error:
            raise self._wrong(number, "it is not JSON") from error
        if not isinstance(values, dict):
            raise self._wrong(number, "it is no JSON object")
        return values

    def _check_header(self, kind: Any, values: Values) -> None:
        if kind != HEADER:
            raise InvalidInput(f"{self._file.name} is no export of a memlayer store; `memlayer export` writes one.")
        version = values.get("version")
        if isinstance(version, int) and version > VERSION:
            raise InvalidInput(
                f"{self._file.name} was written by a newer release (format {version}, this one knows {VERSION}). "
                "Upgrade: pip install -U langchain-memlayer."
            )
        embedders = values.get("embedders")
        good = version == VERSION and isinstance(values.get("vectors"), bool) and type(values.get("created_at")) is int
        if not good or not isinstance(embedders, dict) or not all(map(_is_embedder, embedders.values())):
            raise self._wrong(1, "it is no header")
        self.header = self.header or values

    def _check_end(self, values: Values, number: int, found: str) -> None:
        if values != {"rows": number - 2, "digest": found}:
            raise self._wrong(number, "the rows before it are not those that were exported")
        self.digest = found

    def _check_row(self, section: Section, values: Values, number: int) -> None:
        extra = {"terms", "vectors", "indexed"} if section is ITEMS else set()
        if not set(values) <= set(section.columns) | extra:
            raise self._wrong(number, f"a row of the type {section.name!r} has other fields")
        plain = {name: value for name, value in values.items() if name not in extra}
        wrong = wrong_values(section, plain) or self._known.wrong(section, plain)
        for name in ("terms", "vectors"):
            if wrong is None and name in values:
                try:
                    values[name] = base64.b64decode(values[name], validate=True)
                except (binascii.Error, TypeError, ValueError):
                    wrong = f"{name!r} is not base64"
        if wrong is None and not well_formed(values.get("terms", b"")):
            wrong = "'terms' are none"
        if wrong is not None:
            raise self._wrong(number, wrong)

    def _wrong(self, number: int, what: str) -> InvalidInput:
        return InvalidInput(
            f"{self._file.name}: line {number}: {what}. The file is damaged, or was changed; export the store again."
        )


class _Known:
    """What the rows before said, as far as those behind refer to it."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._events: set[int] = set()
        self._items: dict[int, str] = {}
        self._live: set[tuple[int, str]] = set()

    def wrong(self, section: Section, values: Values) -> str | None:
        """What a row refers to that is not there, or is another's; None when nothing is wrong."""
        match section.name:
            case "namespace":
                self._paths[values["id"]] = values["path"]
                return None if values["path"].endswith(".") else "'path' is no namespace"
            case "event":
                self._events.add(values["seq"])
            case "item":
                return self._wrong_item(values)
            case "link":
                ends = self._items.get(values["fact"]), self._items.get(values["turn"])
                return None if ends == ("fact", "turn") else "it does not lead from a fact to a turn"
            case "triple":
                return None if values["item"] in self._items else "its memory is not there"
        return None

    def _wrong_item(self, values: Values) -> str | None:
        if not {values["id"], values["seq"]} <= self._events:
            return "no event made it"
        live = (values["ns"], values["key"])
        if "closed" not in values:
            if live in self._live:
                return "there are two current rows of its key"
            self._live.add(live)
        self._items[values["id"]] = values["kind"]
        return wrong_owner(values, self._paths.get(values["ns"]))


def _is_embedder(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("name"), str) and type(record.get("dims")) is int


def end(total: int, hashed: Any) -> bytes:
    """The last line."""
    return orjson.dumps({"type": END, "rows": total, "digest": hashed.hexdigest()}) + b"\n"
