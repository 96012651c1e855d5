"""What mem0 leaves on a disk: a vector store's payloads, and its history; read without running anything in them."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

from langchain_memlayer.config.provider import imported
from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.moving.databases import read_only

Payload = Mapping[str, Any]
_PAGE = 1000
_DEEPEST = 100
_POINTS = "qdrant_client.http.models.models"
_CHROMA = "chroma.sqlite3"
_QDRANT = "storage.sqlite"
_HISTORY = "history.db"
# What the unpickler raises for damaged bytes, and taking the parts of other shapes.
_UNREADABLE = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError, ArithmeticError,
    MemoryError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One row of mem0's history."""

    old: str | None
    new: str | None
    created_at: str | None
    updated_at: str | None


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an installation.

    Attributes:
        docstores: What FAISS collections have beside their vectors.
        points: The databases of local Qdrant collections.
        chromas: The folders of Chroma.
        histories: The databases of changes.
    """

    docstores: tuple[Path, ...]
    points: tuple[Path, ...]
    chromas: tuple[Path, ...]
    histories: tuple[Path, ...]


def find(given: Sequence[Path]) -> Files:
    """The files of mem0 in some folders, or among some files.

    Raises:
        InvalidInput: a path is not there, or there are no memories.
    """
    for path in given:
        if not path.exists():
            raise InvalidInput(f"{path} does not exist. Give the folder of mem0's vector store, and its {_HISTORY}.")
    every = sorted({f for p in given for f in (p.rglob("*") if p.is_dir() else (p,)) if f.is_file()})
    indexes = [f for f in every if f.suffix == ".faiss"]
    docstores = [next(filter(Path.is_file, (f.with_suffix(".json"), f.with_suffix(".pkl"))), None) for f in indexes]
    files = Files(
        tuple(f for f in docstores if f is not None),
        tuple(f for f in every if f.name == _QDRANT),
        tuple(f.parent for f in every if f.name == _CHROMA),
        tuple(f for f in every if f.name == _HISTORY or (f in given and f.suffix in (".db", ".sqlite"))),
    )
    if not (files.docstores or files.points or files.chromas):
        raise InvalidInput(
            f"There is no mem0 vector store in {', '.join(map(str, given))}: neither a FAISS collection (.faiss beside "
            f".json or .pkl), nor a local Qdrant folder ({_QDRANT}), nor a Chroma folder ({_CHROMA})."
        )
    return files


def payloads(files: Files) -> Iterator[tuple[str, Payload]]:
    """All stored payloads with their ids; also those that are no memories.

    Raises:
        InvalidInput: a file is damaged, or it would run code.
        MissingDependency: there is a Chroma folder, and Chroma is not installed.
    """
    yield from chain.from_iterable(map(_docstore, files.docstores))
    yield from chain.from_iterable(map(_points, files.points))
    yield from chain.from_iterable(map(_chroma, files.chromas))


def history(files: Files) -> dict[str, list[Change]]:
    """The changes of each memory in order.

    Raises:
        InvalidInput: a file is damaged, or something else.
    """
    changes: dict[str, list[Change]] = {}
    for file in files.histories:
        with read_only(file, "history", of="mem0's history") as db:
            for key, *values in db.execute(
                "SELECT memory_id, old_memory, new_memory, created_at, updated_at FROM history ORDER BY rowid"
            ):
                if not all(value is None or isinstance(value, str) for value in values):
                    raise InvalidInput(f"{file} is not mem0's history: it has something else than texts.")
                changes.setdefault(key, []).append(Change(*values))
    return changes


class _Inert:
    """What any class of Qdrant's is read as: it keeps what it is given, and does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads containers, strings and numbers; a name of Qdrant's models is `_Inert`, any other is refused."""

    def __init__(self, data: bytes, *, points: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._with_points = points

    def find_class(self, module: str, name: str) -> Any:
        if self._with_points and module == _POINTS and name in ("PointStruct", "SparseVector"):
            return _Inert
        raise pickle.UnpicklingError(f"it names {module}.{name}")


_CLASSES = frozenset({"GLOBAL", "STACK_GLOBAL", "NEWOBJ", "BUILD"})
_LEAVES = frozenset((
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "EMPTY_TUPLE", "GLOBAL",
))  # fmt: skip
_EMPTY = frozenset({"EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"})
_TAKE_MARKED = frozenset({"TUPLE", "APPENDS", "SETITEMS", "ADDITEMS"})
_TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2, "BUILD": 1, "NEWOBJ": 2, "STACK_GLOBAL": 2}
_INTO = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"})


def _check_pickle(data: bytes, *, points: bool) -> None:
    """Refuse what the unpickler could crash on, or take more than linear time for, before it sees it.

    These are tuples in tuples in tuples (hashing one overflows the C stack), containers that are in several places or
    in themselves, and numbers of the memo that nothing has. So each value's depth is followed, and nothing is made.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: list[int] = []
    for opcode, given, _ in pickletools.genops(data):
        name = opcode.name
        if name in _CLASSES and not points:
            raise pickle.UnpicklingError("it names a class")
        if name in _LEAVES or name in _EMPTY:
            stack.append(0 if name in _LEAVES else 1)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            if name != "MEMOIZE" and given != len(memo):
                raise pickle.UnpicklingError("its memo has gaps")
            memo.append(stack[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            if memo[cast("int", given)]:
                raise pickle.UnpicklingError("a container is in several places")
            stack.append(0)
        elif name in _TAKES or name in _TAKE_MARKED:
            at = len(stack) - _TAKES[name] if name in _TAKES else marks.pop()
            depth = 0 if name == "STACK_GLOBAL" else 1 + max(stack[at:], default=0)
            del stack[at:]
            if depth > _DEEPEST:
                raise pickle.UnpicklingError("it is nested too deeply")
            if name in _INTO:
                stack[-1] = max(stack[-1], depth)
            else:
                stack.append(depth)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise pickle.UnpicklingError(f"it has the instruction {name}")


def _unpickled(data: bytes, file: Path, *, points: bool) -> Any:
    try:
        _check_pickle(data, points=points)
        return _Unpickler(data, points=points).load()
    except _UNREADABLE as error:
        raise InvalidInput(
            f"{file} holds a pickle that is none of mem0's ({error}); nothing in it was run, nothing was imported."
        ) from error


def _docstore(file: Path) -> Iterator[tuple[str, Payload]]:
    if file.suffix == ".json":
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{file} is no JSON ({error}); restore it, or let mem0 write it again.") from error
        data = data.get("docstore") if isinstance(data, dict) else None
    else:
        data = _unpickled(file.read_bytes(), file, points=False)
        data = data[0] if isinstance(data, tuple) and len(data) == 2 else None
    if not isinstance(data, dict):
        raise InvalidInput(f"{file} is no docstore of mem0's.")
    return _checked(data.items(), file)


def _points(file: Path) -> Iterator[tuple[str, Payload]]:
    with read_only(file, "points", of="a local Qdrant collection") as db:
        # Some versions left older copies of a point behind.
        payloads = {}
        for (data,) in db.execute("SELECT point FROM points ORDER BY rowid"):
            point = _unpickled(data, file, points=True)
            try:
                fields = point.state["__dict__"]
                payloads[str(fields["id"])] = fields["payload"] or {}
            except (AttributeError, LookupError, TypeError) as error:
                raise InvalidInput(f"{file} holds something that is no point of Qdrant's.") from error
    return _checked(payloads.items(), file)


def _chroma(folder: Path) -> Iterator[tuple[str, Payload]]:
    chromadb = imported("chromadb", "langchain-memlayer[chroma]")
    settings = imported("chromadb.config", "langchain-memlayer[chroma]").Settings(anonymized_telemetry=False)
    try:
        client = chromadb.PersistentClient(str(folder), settings=settings)
    except (chromadb.errors.ChromaError, ValueError) as error:
        raise InvalidInput(f"{folder} cannot be opened as a Chroma folder ({error}).") from error
    try:
        for collection in client.list_collections():
            for start in range(0, collection.count(), _PAGE):
                page = collection.get(include=["metadatas"], limit=_PAGE, offset=start)
                rows = zip(page["ids"], page["metadatas"], strict=True)
                yield from _checked(((key, payload or {}) for key, payload in rows), folder)
    except chromadb.errors.ChromaError as error:
        raise InvalidInput(f"{folder} cannot be read as a Chroma folder ({error}).") from error
    finally:
        client.close()


def _checked(rows: Iterable[tuple[Any, Any]], file: Path) -> Iterator[tuple[str, Payload]]:
    for key, payload in rows:
        if not isinstance(key, str) or not key or not isinstance(payload, dict):
            raise InvalidInput(f"{file} holds something that is no memory of mem0's.")
        yield key, payload
