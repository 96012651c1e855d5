"""A store as a file of JSON lines, and back.

The file has a header, one line for each row, and an end with the digest of everything before it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import closing
from hashlib import blake2b
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from langchain_memlayer.arguments import is_auto
from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.engine.index_sync import encode_vectors, is_embedder
from langchain_memlayer.engine.texts import stored_text
from langchain_memlayer.errors import InvalidInput, JournalError, NotAStore
from langchain_memlayer.index.files import private_file
from langchain_memlayer.index.keywords import well_formed
from langchain_memlayer.journal import Journal, exists, open_journal, transfer
from langchain_memlayer.journal.database import IMPORT_NOTE
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.transfer import ITEMS, SECTIONS, Section, Values, wrong_owner, wrong_values
from langchain_memlayer.json_values import dumps, loads
from langchain_memlayer.progress import Progress, silent
from langchain_memlayer.recall import PROBES, knowledge_of
from langchain_memlayer.store_arguments import EVERYTHING, texts_at

VERSION = 1
HEADER, END = "memlayer", "end"
_ROWS = 1000


def export_store(
    path: str | Path, file: str | Path | BinaryIO, *, vectors: bool = True, progress: Progress = silent
) -> int:
    """Write everything that a store holds into a file: items, memories in all versions, history, triples, sources.

    The file is one state of the store, whoever writes to it meanwhile, and the same state always gives the same bytes.
    A file that is there is replaced when the new one is whole; only its owner can read it.

    Args:
        path: The store's folder, or the connection string of PostgreSQL.
        file: Where to; a path, or a binary stream.
        vectors: Whether vectors go too; without them the import has to make them anew.
        progress: Called with `export`, the rows that are done, and their number.

    Returns:
        The number of rows.

    Raises:
        NotAStore: there is no store in `path`.
        JournalError: it cannot be read.
        InvalidInput: the file cannot be written.
    """
    if not exists(path):
        raise NotAStore("There is no store to export: give the folder of one, or its connection string.")
    with closing(open_journal(path)) as journal:
        if not isinstance(file, (str, Path)):
            return _write(journal, file, vectors, progress)
        try:
            return _write_file(journal, Path(file), vectors, progress)
        except OSError as error:
            raise InvalidInput(
                f"{file} cannot be written ({error.strerror}). Give a file in a folder of yours."
            ) from error


def _write_file(journal: Journal, target: Path, vectors: bool, progress: Progress) -> int:
    if target.exists() and not target.is_file():
        raise InvalidInput(f"{target} is no file but a folder or a device; give the path of a file.")
    with private_file(target) as out:
        return _write(journal, out, vectors, progress)


def _write(journal: Journal, out: BinaryIO, vectors: bool, progress: Progress) -> int:
    hashed, done = _digest(), -1
    with journal.read(snapshot=True) as reader:
        total = transfer.count(reader)
        for one in _lines(reader, vectors):
            out.write(one)
            hashed.update(one)
            done += 1
            progress("export", done, total)
    out.write(orjson.dumps({"type": END, "rows": done, "digest": hashed.hexdigest()}) + b"\n")
    return done


def _lines(reader: Reader, vectors: bool) -> Iterator[bytes]:
    yield _line(HEADER, {"version": VERSION, "vectors": vectors, **transfer.settings(reader)})
    known = _Known()
    for name, section in transfer.SECTIONS.items():
        for values in transfer.rows(reader, section):
            if wrong := known.wrong(section, values):
                raise transfer.damaged_row(f"Row {values[section.key[0]]} of {section.table}", wrong)
            if not vectors and values.pop("vectors", None) is not None:
                values["indexed"] = True
            yield _line(name, values)


def _line(kind: str, values: Values) -> bytes:
    """One line; the same values give the same bytes."""
    shown = {"type": kind, **values}
    for name in ("terms", "vectors") if kind == ITEMS.name else ():
        if name in shown:
            shown[name] = base64.b64encode(shown[name]).decode()
    return dumps(shown).encode() + b"\n"


def _digest() -> Any:
    """What the end's digest is made with."""
    return blake2b(digest_size=32)


# -- and back ---------------------------------------------------------------------------------------------------------


def import_store(file: str | Path, path: str | Path, *, embeddings: Any = "auto", progress: Progress = silent) -> int:
    """Fill a new store with what `export_store` wrote; it is a store of its own, with an id of its own.

    The whole file is checked before anything is written. An interrupted import goes on where it stopped when it is
    repeated with the same file; until it has finished, the store is not to be used.

    Args:
        file: The export.
        path: A new or empty folder, or the connection string of PostgreSQL.
        embeddings: What makes the vectors anew when the file has none; "auto" means the model that made the store's.
            Of BaseStore items the whole value is embedded.
        progress: Called with `check` or `import`, the rows that are done, and their number (0 while unknown).

    Returns:
        The number of rows.

    Raises:
        InvalidInput: the file is damaged or something else, or the store is not empty.
        EmbedderMismatch: the store's model cannot be made from its name.
        JournalError: the store cannot be written.
    """
    lines = _Lines(Path(file))
    for number, _ in enumerate(lines.rows(), 1):
        progress("check", number, 0)
    embedder = _embedder(lines, embeddings)
    with closing(open_journal(path, importing=True)) as journal:
        done = _begin(journal, lines)
        given = islice(lines.rows(), done, None)
        while rows := list(islice(given, _ROWS)):
            if embedder is not None:
                missing = [values for _, values in rows if values.pop("indexed", False)]
                _embed(embedder, missing, lines.header["embedders"])
            _take_in(journal, lines, rows, done)
            done += len(rows)
            progress("import", done, lines.total)
        with journal.write() as tx:
            tx.renumber()
            tx.drop_meta(IMPORT_NOTE)
    return done


def _embedder(lines: _Lines, embeddings: Any) -> Embedder | None:
    """What makes the vectors that the file lacks; its name and size take the place of the header's."""
    records = lines.header["embedders"]
    if lines.header["vectors"] or not records:
        return None
    first = next(iter(records.values()))
    recorded = (first["name"], first["dims"])
    embedder = resolve_embeddings(embeddings, folder=recorded if is_auto(embeddings) else None)
    if embedder is None:
        raise InvalidInput("The file has no vectors: pass embeddings, or export the store with them.")
    probed = embedder.embed(PROBES)
    for record in records.values():
        if (record["name"], record["dims"]) != (embedder.name, embedder.dims):
            knows = knowledge_of(probed, record.get("metric", "cosine"))
            record.update(name=embedder.name, dims=embedder.dims, knows=knows)
    return embedder


def _embed(embedder: Embedder, rows: list[Values], records: Values) -> None:
    texts = [_texts(values) for values in rows]
    vectors = iter(embedder.embed([text for some in texts for text in some]))
    for values, some in zip(rows, texts, strict=True):
        record = records.get("items" if values["kind"] == "item" else "memories", {})
        values["vectors"] = encode_vectors(list(islice(vectors, len(some))), record.get("metric", "cosine"))


def _texts(values: Values) -> list[str]:
    """What is embedded of a row; of an item of which that is not known, the whole value."""
    if values["kind"] == "item":
        return texts_at(values["value"], values.setdefault("fields", list(EVERYTHING)))
    name, time = values.get("name"), values.get("time")
    return [stored_text(values["value"], kind=values["kind"], name=name, time=time)]


def _begin(journal: Journal, lines: _Lines) -> int:
    """Note that an import has begun; gives how many rows an earlier attempt has written."""
    with journal.write() as tx:
        text = tx.meta(IMPORT_NOTE)
        if text is not None:
            note = orjson.loads(text)
            if note["digest"] != lines.digest:
                raise InvalidInput(
                    f"{journal.where} has an unfinished import of another file. Repeat it with that file, or remove "
                    "the store and begin anew."
                )
            if note["embedders"] != lines.header["embedders"]:
                raise InvalidInput("The unfinished import has begun with another embedder; repeat it with that one.")
            return int(note["done"])
        if not transfer.is_empty(tx):
            raise InvalidInput(f"{journal.where} is not empty. Import into a new folder or schema.")
        transfer.write_settings(tx, lines.header)
        tx.set_meta(IMPORT_NOTE, _note(lines, 0))
    return 0


def _take_in(journal: Journal, lines: _Lines, rows: list[tuple[Section, Values]], done: int) -> None:
    with journal.write() as tx:
        if not tx.swap_meta(IMPORT_NOTE, _note(lines, done), _note(lines, done + len(rows))):
            raise JournalError(f"Another import into {journal.where} is running; wait for it.")
        for section, some in groupby(rows, key=lambda row: row[0].name):
            transfer.write_rows(tx, transfer.SECTIONS[section], [values for _, values in some])


def _note(lines: _Lines, done: int) -> str:
    made = lines.header["embedders"]
    return orjson.dumps({"digest": lines.digest, "done": done, "embedders": made}, option=orjson.OPT_SORT_KEYS).decode()


class _Lines:
    """A file of lines, checked while it is read.

    Attributes:
        header: The first line.
        total: How many rows there are; known when all were read.
        digest: That of the end; known then too.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise InvalidInput(f"{file} is no file; give that of an export.")
        self._file, self._known = file, _Known()
        self.header: Values = {}
        self.total = 0
        self.digest = ""

    def rows(self) -> Iterator[tuple[Section, Values]]:
        """All rows in order.

        Raises:
            InvalidInput: a line is not what it should be; the message has its number.
        """
        hashed, order, self._known = _digest(), list(SECTIONS), _Known()
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
                elif kind not in order or order.index(kind) < at:
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
        if not good or not isinstance(embedders, dict) or not all(map(is_embedder, embedders.values())):
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

    def _wrong(self, number: int, fault: str) -> InvalidInput:
        return InvalidInput(
            f"{self._file.name}: line {number}: {fault}. The file is damaged, or was changed; export the store again."
        )


class _Known:
    """What the rows before said, as far as those behind refer to it."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._events: set[int] = set()
        self._items: dict[int, tuple[str, int]] = {}
        self._live: set[tuple[int, str]] = set()

    def wrong(self, section: Section, values: Values) -> str | None:
        """What a row refers to that is not there, or is another's; None when nothing is wrong."""
        match section.name:
            case "namespace":
                self._paths[values["id"]] = values["path"]
            case "event":
                self._events.add(values["seq"])
            case "item":
                return self._wrong_item(values)
            case "link":
                (fact, of), (turn, by) = (self._items.get(values[end], ("", 0)) for end in ("fact", "turn"))
                right = (fact, turn, of) == ("fact", "turn", by)
                return None if right else "it does not lead from a fact to a turn of the same owner"
            case "triple":
                _, owner = self._items.get(values["item"], ("", None))
                return None if owner == values["ns"] else "its memory is not there, or another's"
            case "unread":
                return wrong_owner({"kind": "turn", **values}, self._paths.get(values["ns"]))
        return None

    def _wrong_item(self, values: Values) -> str | None:
        if not {values["id"], values["seq"]} <= self._events:
            return "no event made it"
        live = (values["ns"], values["key"])
        if "closed" not in values:
            if live in self._live:
                return "there are two current rows of its key"
            self._live.add(live)
        self._items[values["id"]] = values["kind"], values["ns"]
        return wrong_owner(values, self._paths.get(values["ns"]))
