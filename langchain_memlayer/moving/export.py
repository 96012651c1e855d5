"""A store as a file of JSON lines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from langchain_memlayer.errors import InvalidInput, NotAStore
from langchain_memlayer.journal import Journal, exists, open_journal, transfer
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.read import Reader
from langchain_memlayer.moving.format import HEADER, VERSION, digest, end, line
from langchain_memlayer.progress import Progress, silent


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
    with closing(open_journal(path, clock=utc_now, new_id=random_id)) as journal:
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
    # A name that nobody can have planted; only the owner can read it.
    number, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(number, "wb") as out:
            total = _write(journal, out, vectors, progress)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return total


def _write(journal: Journal, out: BinaryIO, vectors: bool, progress: Progress) -> int:
    hashed, done = digest(), -1
    with journal.read(snapshot=True) as reader:
        total = transfer.count(reader)
        for one in _lines(reader, vectors):
            out.write(one)
            hashed.update(one)
            done += 1
            progress("export", done, total)
    out.write(end(done, hashed))
    return done


def _lines(reader: Reader, vectors: bool) -> Iterator[bytes]:
    yield line(HEADER, {"version": VERSION, "vectors": vectors, **transfer.settings(reader)})
    for name, section in transfer.SECTIONS.items():
        for values in transfer.rows(reader, section):
            if not vectors and values.pop("vectors", None) is not None:
                values["indexed"] = True
            yield line(name, values)
