"""Another embedder for a store that is there: its vectors are made beside the old ones, and change places with them.

Who reads and writes with the old embedder goes on until then; what is written meanwhile is embedded too. From then on
such a process gets an `EmbedderMismatch`, for reading and for writing, until it opens the store with the new embedder.

    nothing noted -> target noted, vectors staged -> in use (one commit), clearing noted, old ones removed -> nothing

Wherever it stops, the store is whole, and another run with the same embedder goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import orjson

from langchain_memlayer.arguments import is_auto
from langchain_memlayer.backends.mirror import State
from langchain_memlayer.embedders.embedder import Embedder, resolve_embeddings
from langchain_memlayer.engine.index_sync import encode_vectors
from langchain_memlayer.engine.texts import stored_text
from langchain_memlayer.errors import ConfigurationError, InvalidInput, JournalError, NotAStore
from langchain_memlayer.index import files
from langchain_memlayer.journal import Journal, exists, open_journal, staging
from langchain_memlayer.journal.cache_reader import KINDS
from langchain_memlayer.journal.database import STAGING_NOTE, Area, embedder_key, outbox_key
from langchain_memlayer.journal.reader import Reader
from langchain_memlayer.journal.schema import DERIVED
from langchain_memlayer.journal.staging import Unstaged
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.json_values import loads
from langchain_memlayer.progress import Progress, silent
from langchain_memlayer.recall import PROBES, knowledge_of
from langchain_memlayer.store_arguments import texts_at

_LOGGER = logging.getLogger(__name__)

_AT_ONCE = 500
_REMOVED_AT_ONCE = 5_000
_PATIENT = 3
_CLEARING = "clearing"
_MAINTENANCE_SECONDS = 30.0

Records = Mapping[Area, Mapping[str, Any]]
"""The embedder of each area that has vectors, as the journal keeps it."""


def reembed_store(
    path: str | Path, embeddings: Any, *, fields: Sequence[str] | None = None, progress: Progress = silent
) -> int:
    """Give a store another embedder: vectors of everything that has some, memories in all versions and items alike.

    The store is read and written as before meanwhile. When all new vectors are there, they take the place of the old
    ones in one commit; processes that have the old embedder then get an `EmbedderMismatch` until they open the store
    with the new one. An interrupted run goes on where it stopped when it is repeated with the same embedder; repeated
    with another one it drops what it has made, and with the store's own it does no more than that. Vector stores get
    the new vectors when the store is opened with them.

    Args:
        path: The store's folder, or the connection string of PostgreSQL.
        embeddings: What makes the vectors from now on: an `Embeddings`, "provider:model", "wordllama" or a function.
        fields: What to embed of items that were written before stores noted it, as in LangGraph's index configuration.
            `["$"]` is the whole value.
        progress: Called with `reembed`, the rows that are done, and their number.

    Returns:
        How many memories, in all versions, and items have vectors of the new embedder.

    Raises:
        NotAStore: there is no store in `path`.
        InvalidInput: it has no vectors, or has those of this embedder already, or `fields` are needed or wrong.
        ConfigurationError: `embeddings` names nothing known.
        EmbeddingError: what the embedder gave cannot be used; what it raises itself passes unchanged.
        JournalError: the store cannot be written, or another run is at work.
    """
    embedder = None if is_auto(embeddings) else resolve_embeddings(embeddings)
    if embedder is None:
        raise ConfigurationError("Name the embedder that makes the vectors from now on, such as 'wordllama'.")
    if not exists(path):
        raise NotAStore("There is no store: give the folder of one, or its connection string.")
    with closing(open_journal(path)) as journal:
        return _Run(journal, embedder, fields, progress).run()


class _Run:
    """One attempt."""

    def __init__(self, journal: Journal, embedder: Embedder, fields: Sequence[str] | None, progress: Progress) -> None:
        self._journal = journal
        self._embedder = embedder
        self._fields = fields
        self._progress = progress
        self._staged = self._total = 0

    def run(self) -> int:
        """See `reembed_store`."""
        self._probes = self._embedder.embed(PROBES)
        self._note = orjson.dumps({"name": self._embedder.name, "dims": self._embedder.dims}).decode()
        if self._begin():
            for attempt in count(1):
                self._stage_all()
                # What others keep writing is in the end embedded while they wait.
                if self._switch(wait=attempt >= _PATIENT):
                    break
            self._clear()
        with self._journal.write() as tx:
            if tx.meta(STAGING_NOTE) == _CLEARING:
                tx.drop_meta(STAGING_NOTE)
            _, used = staging.count(tx)
        self._drop_snapshots()
        return used

    # -- begin ----------------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Note what is to be made, and remove what another run has left; False when nothing else was to be done."""
        with self._journal.write() as tx:
            note, records = tx.meta(STAGING_NOTE), _records(tx)
            if not records:
                raise InvalidInput(
                    f"{self._journal.where} has no vectors. Open it with this embedder: what is written then has some."
                )
            needless = all(map(self._is_ours, records.values()))
            if needless and note is None:
                raise InvalidInput(f"{self._journal.where} has vectors of {self._embedder.name} already.")
            if not needless:
                self._check_fields(tx, records)
            if needless or note != self._note:
                tx.set_meta(STAGING_NOTE, _CLEARING)
        self._clear()
        if needless:
            return False
        with self._journal.write() as tx:
            if not tx.swap_meta(STAGING_NOTE, _CLEARING, self._note):
                self._check_current(tx)
            self._staged, self._total = staging.count(tx)
        return True

    def _is_ours(self, record: Mapping[str, Any]) -> bool:
        return (record["name"], record["dims"]) == (self._embedder.name, self._embedder.dims)

    def _check_current(self, tx: Writer) -> None:
        """Refuse to go on when another run has begun, or has finished."""
        if tx.meta(STAGING_NOTE) != self._note:
            raise JournalError(
                f"Another run has begun or finished re-embedding {self._journal.where} meanwhile; only one can. "
                "`memlayer stats` names its embedder."
            )

    def _check_fields(self, reader: Reader, records: Records) -> None:
        if self._fields is None and "items" in records and (keys := staging.unknown_fields(reader)):
            raise InvalidInput(
                f"What is embedded of {keys} items was not noted when they were written. Say it with fields "
                "(--field on the command line): what their store's index says, or '$', the whole value."
            )

    # -- vectors --------------------------------------------------------------------------------------------------

    def _stage_all(self) -> None:
        below = None
        while True:
            with self._journal.read(snapshot=True) as reader:
                rows, records = staging.unstaged(reader, most=_AT_ONCE, below=below), _records(reader)
            if not rows:
                return
            made = self._embedded(rows, records)
            with self._journal.write(*sorted({row.path for row in rows})) as tx:
                self._check_current(tx)
                staging.stage(tx, made)
            below = rows[-1].vectors
            self._report(len(rows))

    def _report(self, more: int) -> None:
        self._staged += more
        self._total = max(self._total, self._staged)
        self._progress("reembed", self._staged, self._total)

    def _embedded(self, rows: Sequence[Unstaged], records: Records) -> list[tuple[Unstaged, bytes]]:
        """The new vectors of rows; one call for all distinct texts. Those of an area that has them already are kept."""
        texts = {row.item: self._texts(row, record) for row in rows if not self._is_ours(record := records[_area(row)])}
        distinct = list(dict.fromkeys(text for some in texts.values() for text in some))
        vectors = dict(zip(distinct, self._embedder.embed(distinct), strict=True))
        return [
            (row, row.vector_bytes if row.item not in texts else encode_vectors(
                [vectors[text] for text in texts[row.item]], records[_area(row)].get("metric", "cosine")
            ))
            for row in rows
        ]  # fmt: skip

    def _texts(self, row: Unstaged, record: Mapping[str, Any]) -> list[str]:
        if row.kind != "item":
            return [stored_text(row.value, kind=row.kind, name=row.name, time=row.time)]
        fields = self._fields if row.fields is None else orjson.loads(row.fields)
        texts = texts_at(loads(row.value), fields or ())
        if len(texts) != (known := len(row.vector_bytes) // (2 * record["dims"])):
            raise InvalidInput(
                f"The item {row.key!r} has {known} vectors, and {len(texts)} texts at {list(fields or ())}: these are "
                "not the fields that it was embedded by. Give those of its store's index, or put it anew."
            )
        return texts

    # -- the change -----------------------------------------------------------------------------------------------

    def _switch(self, *, wait: bool) -> bool:
        """Put the new vectors in the place of the old ones; False when there are rows that have none yet.

        With `wait` the last of these are embedded here, while nobody else can write.
        """
        with self._journal.write() as tx:
            self._check_current(tx)
            rows, records = staging.unstaged(tx, most=_AT_ONCE), _records(tx)
            if rows and (not wait or len(rows) == _AT_ONCE):
                return False
            staging.stage(tx, self._embedded(rows, records))
            for area, record in records.items():
                if not self._is_ours(record):
                    self._record(tx, area, record)
            staging.switch(tx)
            tx.set_meta(STAGING_NOTE, _CLEARING)
            # Others may have written meanwhile.
            self._staged = self._total = staging.count(tx)[1]
        self._report(0)
        return True

    def _record(self, tx: Writer, area: Area, record: Mapping[str, Any]) -> None:
        new = {**record, "name": self._embedder.name, "dims": self._embedder.dims}
        if record["knows"] is not None:
            new["knows"] = knowledge_of(self._probes, record.get("metric", "cosine"))
        tx.set_meta(embedder_key(area), orjson.dumps(new).decode())
        brought = tx.meta(outbox_key(area))
        if brought is not None:
            tx.set_meta(outbox_key(area), str(State(State.of(brought).kind, 0)))

    def _clear(self) -> None:
        """Remove the vectors that are not in use, if that is what is noted."""
        removed = _REMOVED_AT_ONCE
        while removed:
            with self._journal.write() as tx:
                noted = tx.meta(STAGING_NOTE) == _CLEARING
                removed = staging.discard(tx, most=_REMOVED_AT_ONCE) if noted else 0

    def _drop_snapshots(self) -> None:
        """Remove derived files: they were made from the old vectors, and nobody would load them any more."""
        if self._journal.folder is not None:
            derived = self._journal.folder / DERIVED
            try:
                with files.maintenance(derived, timeout=_MAINTENANCE_SECONDS) as had:
                    if had:
                        files.drop_all(derived)
            except OSError as error:
                _LOGGER.warning("Files made from the old vectors could not be removed (%s).", error.strerror)


def _area(row: Unstaged) -> Area:
    return "items" if row.kind == "item" else "memories"


def _records(reader: Reader) -> Records:
    texts = {area: reader.meta(embedder_key(area)) for area in KINDS}
    return {area: orjson.loads(text) for area, text in texts.items() if text is not None}
