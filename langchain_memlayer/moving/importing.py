"""A file of JSON lines as a store again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import orjson

from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.engine.indexes import encode_vectors
from langchain_memlayer.engine.texts import stored_text
from langchain_memlayer.errors import InvalidInput, JournalError
from langchain_memlayer.journal import Journal, open_journal, transfer
from langchain_memlayer.journal.base import random_id, utc_now
from langchain_memlayer.journal.database import IMPORT_NOTE
from langchain_memlayer.journal.transfer import Section, Values
from langchain_memlayer.moving.format import Lines
from langchain_memlayer.progress import Progress, silent
from langchain_memlayer.recall import PROBES, knowledge_of
from langchain_memlayer.store_plan import EVERYTHING, texts_at

_ROWS = 1000


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
    lines = Lines(Path(file))
    for number, _ in enumerate(lines.rows(), 1):
        progress("check", number, 0)
    embedder = _embedder(lines, embeddings)
    with closing(open_journal(path, clock=utc_now, new_id=random_id, importing=True)) as journal:
        done = _begin(journal, lines)
        for rows in _batches(islice(lines.rows(), done, None)):
            if embedder is not None:
                missing = [values for _, values in rows if values.pop("indexed", False)]
                _embed(embedder, missing, lines.header["embedders"])
            _write(journal, lines, rows, done)
            done += len(rows)
            progress("import", done, lines.total)
        with journal.write() as tx:
            tx.renumber()
            tx.drop_meta(IMPORT_NOTE)
    return done


def _embedder(lines: Lines, embeddings: Any) -> Embedder | None:
    """What makes the vectors that the file lacks; its name and size take the place of the header's."""
    records = lines.header["embedders"]
    if lines.header["vectors"] or not records:
        return None
    first = next(iter(records.values()))
    recorded = (first["name"], first["dims"])
    automatic = isinstance(embeddings, str) and embeddings == "auto"
    embedder = resolve_embeddings(embeddings, folder=recorded if automatic else None)
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


def _begin(journal: Journal, lines: Lines) -> int:
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


def _batches(rows: Iterator[tuple[Section, Values]]) -> Iterator[list[tuple[Section, Values]]]:
    while batch := list(islice(rows, _ROWS)):
        yield batch


def _write(journal: Journal, lines: Lines, rows: list[tuple[Section, Values]], done: int) -> None:
    with journal.write() as tx:
        if not tx.swap_meta(IMPORT_NOTE, _note(lines, done), _note(lines, done + len(rows))):
            raise JournalError(f"Another import into {journal.where} is running; wait for it.")
        for section, some in groupby(rows, key=lambda row: row[0].name):
            transfer.write_rows(tx, transfer.SECTIONS[section], [values for _, values in some])


def _note(lines: Lines, done: int) -> str:
    made = lines.header["embedders"]
    return orjson.dumps({"digest": lines.digest, "done": done, "embedders": made}, option=orjson.OPT_SORT_KEYS).decode()
