"""The slabs of a folder, kept up with its journal: what they know of a row, and whose vectors they hold."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from langchain_memlayer.errors import (
    ConfigurationError,
    EmbedderMismatch,
    EmbeddingError,
    JournalError,
    SnapshotError,
    shown,
)
from langchain_memlayer.index import files
from langchain_memlayer.index.keywords import ENTRY
from langchain_memlayer.journal import Journal
from langchain_memlayer.journal.database import DAMAGED, Area, embedder_key
from langchain_memlayer.journal.schema import DERIVED
from langchain_memlayer.types import METRICS, SPENT, Metric, SlabBlock

if TYPE_CHECKING:
    from langchain_memlayer.backends.base import ForeignStore
    from langchain_memlayer.backends.mirror import Mirror
    from langchain_memlayer.embedders.embedder import Embedder
    from langchain_memlayer.index.postings import Words
    from langchain_memlayer.index.slab import Slab
    from langchain_memlayer.index.view import Read, Source, View
    from langchain_memlayer.journal.reader import Reader
    from langchain_memlayer.journal.writer import Writer

_LOGGER = logging.getLogger(__name__)

CAPACITY_BYTES = 2_000_000_000
SPREAD_FACTOR = 10
PARTS = ("rows", "hnsw")
"""What of a slab has a snapshot of its own."""


def snapshot_name(area: Area, key: str, *, part: str = "hnsw") -> str:
    """What the snapshot of a slab's graph is called, or of another of its `PARTS`."""
    return f"{part}:{area}:{key}"


class Indexes:
    """The slabs of one area of a folder.

    Attributes:
        journal: The truth that they follow.
        area: `items` or `memories`.
        embedder: What makes the vectors, or None.
        metric: How they are compared.
        codes: The strings behind the coded columns.
        expiring: Whether any item that was loaded so far has a time to live.
        mirror: What brings the vectors to a foreign store and asks it for candidates, or None.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        area: Area,
        embedder: Embedder | None,
        metric: Metric,
        hnsw_threshold: int,
        capacity_bytes: int = CAPACITY_BYTES,
    ) -> None:
        self.journal = journal
        self.area: Area = area
        self.embedder = embedder
        self.metric: Metric = metric
        self._hnsw_threshold = hnsw_threshold
        self._capacity = capacity_bytes
        self.mirror: Mirror | None = None
        self._derived = None if journal.folder is None else journal.folder / DERIVED
        self._start()

    def _start(self) -> None:
        from langchain_memlayer.index.lru import SlabCache

        self._pid = os.getpid()
        self.measured: dict[str, float] | None = None
        self.codes = Codes()
        self.expiring = False
        self._cache = SlabCache(self._load, refresh=self._refresh, capacity_bytes=self._capacity)

    def attach(self, store: ForeignStore) -> Mirror:
        """Let a foreign vector store propose candidates from now on; gives what brings it the journal's changes.

        Raises:
            ConfigurationError: it is not searched by this metric, or its collection is for other vectors.
        """
        if self.metric != "cosine":
            raise ConfigurationError(
                f"A vectorstore is searched by cosine, not by {self.metric}: leave metric out, and choose a folder "
                "whose vectors are compared by cosine."
            )
        from langchain_memlayer.backends.mirror import Mirror

        mirror = Mirror(self.journal, store, self.area)
        mirror.check(self.dims)
        self.mirror = mirror
        mirror.wake()
        return mirror

    def of_area(self, area: Area, embedder: Embedder | None) -> Indexes:
        """The slabs of another area of the same folder, with the same settings; the metric is that of what is there."""
        record = self.journal.meta(embedder_key(area))
        return Indexes(
            self.journal,
            area=area,
            embedder=embedder,
            metric=self.metric if record is None else metric_in(record),
            hnsw_threshold=self._hnsw_threshold,
            capacity_bytes=self._capacity,
        )

    @property
    def dims(self) -> int:
        """The vectors' size; 0 while it is not known."""
        if self.embedder is None:
            return 0
        if self.embedder.dims is not None:
            return self.embedder.dims
        recorded = recorded_embedder(self.journal, self.area)
        return 0 if recorded is None else recorded[1]

    @property
    def unmeasured(self) -> bool:
        """Whether it is still to be measured which scripts the embedder knows: nothing was stored yet."""
        return self.measured is None and recorded_embedder(self.journal, self.area) is None

    @property
    def knows(self) -> dict[str, float]:
        """How well this embedder knows each script that was measured."""
        if self.measured is None:
            text = self.journal.meta(embedder_key(self.area))
            self.measured = (orjson.loads(text).get("knows") if text else None) or {}
        return self.measured

    def view(self, prefix: str, *, ended: bool = False) -> View:
        """The rows below a namespace, complete up to the journal's last commit; with `ended`, all versions."""
        if self._pid != os.getpid():
            # Locks and threads of the parent are of no use in a child of a fork.
            self._start()
        key = f"{prefix}\x00" if ended else prefix
        return self._cache.get(key).view

    def current(self, prefix: str, seq: int) -> View | None:
        """What `view` gives, where it is complete up to a position already; None where it has to be asked."""
        slab = self._cache.peek(prefix) if self._pid == os.getpid() else None
        view = None if slab is None else slab.view
        known = view is not None and view.applied_seq == seq and view.kernel is not None and view.source is None
        return view if known else None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no graph is being built; False when that took longer than `timeout` seconds."""
        return all(slab.wait(timeout) for slab in self._cache.slabs())

    def _load(self, key: str) -> Slab:
        source = self._source(key)
        if source is None:
            restored = self._from_snapshot(key)
            if restored is not None:
                return restored
        block = self._all_rows(key, vectors=source is None)
        # What a store answers for is scored from the journal's vectors, and holds none of them here.
        elsewhere = source is not None and source.trusted and len(block.owners) * self.dims > self._threshold(key)
        if source is not None and not elsewhere:
            block = self._all_rows(key)
        slab = self._slab(key, source, read=self._vectors_of if elsewhere else None)
        slab.apply(block, upkeep=False)
        return self._with_graph(key, slab)

    def _threshold(self, key: str) -> int:
        """Several namespaces below a prefix are scanned longer, since they are rarely searched as one."""
        with self.journal.read() as reader:
            spread_out = reader.namespace_count(key.removesuffix("\x00"), most=2) > 1
        return self._hnsw_threshold * (SPREAD_FACTOR if spread_out else 1)

    def _slab(self, key: str, source: Source | None = None, read: Read | None = None) -> Slab:
        from langchain_memlayer.index.slab import Slab

        return Slab(
            dims=self.dims or None,
            metric=self.metric,
            hnsw_threshold=self._threshold(key),
            columns=COLUMNS[self.area],
            save=None if self._derived is None else partial(self._save, key, self._derived),
            source=source,
            read=read,
        )

    def _source(self, key: str) -> Source | None:
        """What answers for a slab of live rows; versions that ended are in no foreign store."""
        if self.mirror is None or key.endswith("\x00"):
            return None
        return self.mirror.proposals.below(key)

    # -- snapshots --------------------------------------------------------------------------------------------------

    def _from_snapshot(self, key: str) -> Slab | None:
        """The slab of the last snapshot, with what was written since; None when there is none of this journal."""
        if self._derived is None:
            return None
        try:
            payload, meta = files.read(self._derived, snapshot_name(self.area, key, part="rows"), self._origin())
            slab = self._slab(key)
            block, words = self._rows_of(key, payload, meta, slab)
        except SnapshotError as reason:
            _LOGGER.debug("No snapshot of rows is loaded: %s", reason)
            return None
        slab.apply(block, words=words, upkeep=False)
        slab.note_saved(len(block.ids))
        # Damaged rows and vectors of another size are looked at one by one when all are read from the journal.
        return self._with_graph(key, slab) if self._refresh(key, slab, upkeep=False) else None

    def _rows_of(self, key: str, payload: bytes, meta: Mapping[str, Any], slab: Slab) -> tuple[SlabBlock, Words | None]:
        """The rows of a snapshot with their vectors as the journal has them, read into the slab's own memory.

        Raises:
            SnapshotError: It is damaged, or the journal has others.
        """
        from langchain_memlayer.index import snapshot

        block, words = snapshot.load(payload, meta, COLUMNS[self.area])
        columns = decoded(block.columns, meta.get("names"), self.codes)
        with self.journal.read(snapshot=True) as reader:
            touched = reader.touched(key.removesuffix("\x00"), reader.snapshot_position(meta))
            dims = self._dims_in(reader)
            if touched is None or meta.get("dims") != dims:
                raise SnapshotError("The journal has been emptied, or has other vectors; the snapshot is rebuilt.")
            sizes = np.bincount(block.owners, minlength=len(block.ids)) * 2 * dims
            vectors = slab.ahead(len(block.owners) if dims else 0)
            try:
                others = reader.slab_vectors(block.ids, sizes, vectors)
            except DAMAGED as problem:
                raise SnapshotError("The journal's vectors cannot be read; the snapshot is rebuilt.") from problem
        if not set(others) <= set(touched):
            raise SnapshotError("The journal has other vectors; the snapshot is rebuilt.")
        self._note_expiring(columns)
        return replace(block, columns=columns, vector_bytes=vectors.data), words

    def _with_graph(self, key: str, slab: Slab) -> Slab:
        """The slab with its graph, read from a snapshot or being built."""
        vectors = len(slab.view.codes)
        if self.mirror is None and self._derived is not None and vectors * self.dims > self._hnsw_threshold:
            try:
                slab.load_graph(*files.read(self._derived, snapshot_name(self.area, key), self._origin()))
            except SnapshotError as reason:
                _LOGGER.debug("No graph is loaded for a slab of %d vectors: %s", vectors, reason)
        slab.keep_up()
        return slab

    def _save(self, key: str, derived: Path, slab: Slab) -> None:
        from langchain_memlayer.index import snapshot

        view = slab.view
        try:
            with files.maintenance(derived) as had:
                if not had:
                    return
                with self.journal.read(snapshot=True) as reader:
                    since = reader.touched(key.removesuffix("\x00"), view.applied_seq)
                    mark = reader.mark(view.applied_seq)
                # What was forgotten meanwhile must not come back in a file; `forget` drops files under the same lock.
                if since is None:
                    return
                columns, names = encoded(view.columns, self.codes)
                payload, meta = snapshot.dump(view, columns)
                meta |= {
                    **self._origin(),
                    "mark": mark,
                    "names": names,
                    "dims": 0 if view.kernel is None else view.kernel.dims,
                }
                files.write(derived, snapshot_name(self.area, key, part="rows"), payload, meta)
                slab.note_saved(len(view))
                dumped = slab.dump_graph() if slab.graph_unsaved else None
                if dumped is not None:
                    meta = {**dumped[1], **self._origin(), "seq": slab.applied_seq}
                    files.write(derived, snapshot_name(self.area, key), dumped[0], meta)
        except JournalError as error:
            # Closed meanwhile by another thread, for example.
            _LOGGER.debug("No snapshot is written: %s", error)
        except OSError as error:
            # Derived files are a convenience: without one all is read from the journal when the store opens.
            _LOGGER.warning("A snapshot could not be written (%s); make room on the disk.", error.strerror)

    def _origin(self) -> dict[str, Any]:
        """What a snapshot must have been made from to be ours."""
        name = "" if self.embedder is None else self.embedder.name
        return {"store": self.journal.store_id, "area": self.area, "embedder": name}

    # -- the journal's rows -----------------------------------------------------------------------------------------

    def _all_rows(self, key: str, *, vectors: bool = True) -> SlabBlock:
        prefix = key.removesuffix("\x00")
        with self.journal.read(snapshot=True) as reader:
            return reader.load(
                prefix, self.area, dims=self._dims_in(reader), ended=key != prefix, vectors=vectors, typed=self._typed
            )

    def _vectors_of(self, ids: Sequence[int]) -> Mapping[int, bytes]:
        with self.journal.read() as reader:
            return reader.vectors_of(ids)

    def _refresh(self, key: str, slab: Slab, *, upkeep: bool = True) -> bool:
        since, prefix = slab.applied_seq, key.removesuffix("\x00")
        if since < self.journal.last_seq():
            with self.journal.read(snapshot=True) as reader:
                dims = self._dims_in(reader)
                block = reader.changes(
                    prefix, self.area, since, dims=dims, ended=key != prefix, vectors=slab.view.held, typed=self._typed
                )
            # A slab that was made before there were vectors has no room for them.
            if block is None or (dims and slab.view.kernel is None):
                return False
            slab.apply(block, upkeep=upkeep)
            if slab.worn:
                return False
        # One that grew beyond what is held is loaded anew, and one whose store is not asked any more.
        source, view = slab.view.source, slab.view
        return source is None or view.held != (source.trusted and view.large)

    def _typed(self, raw: Mapping[str, Sequence[Any]]) -> tuple[dict[str, NDArray[Any]], Sequence[bytes]]:
        words: Sequence[bytes] = ()
        if self.area == "memories":
            words = [terms or b"" for terms in raw["terms"]]
            if {*map(type, words)} - {bytes} or any(size % ENTRY.itemsize for size in {*map(len, words)}):
                raise ValueError("no terms")
            columns = memory_columns(raw, self.codes)
        else:
            columns = {"expires": _numbers(raw["expires_at"], np.int64)}
        self._note_expiring(columns)
        return columns, words

    def _note_expiring(self, columns: Mapping[str, NDArray[Any]]) -> None:
        # Searches ask this instead of the whole column, which takes .04 ms at 100k rows.
        self.expiring = self.expiring or bool(columns["until" if self.area == "memories" else "expires"].any())

    def _dims_in(self, reader: Reader) -> int:
        """The size of the vectors that a snapshot has, 0 where they are left alone.

        Raises:
            EmbedderMismatch: another process has put those of another embedder in their place.
        """
        if self.embedder is None:
            return 0
        text = reader.meta(embedder_key(self.area))
        if text is None:
            return self.embedder.dims or 0
        refuse_others(text, self.embedder, self.metric, self.journal.where)
        return int(orjson.loads(text)["dims"])

    def record_embedder(self, tx: Writer) -> None:
        """Note in the journal which embedder made the vectors that this transaction writes.

        Raises:
            EmbedderMismatch: another process has meanwhile written vectors of another embedder or for another metric.
        """
        if self.embedder is None:
            return
        text = tx.meta(embedder_key(self.area))
        if text is None:
            record = {"name": self.embedder.name, "dims": self.embedder.dims, "knows": self.measured}
            if self.metric != "cosine":
                record["metric"] = self.metric
            text = tx.first_meta(embedder_key(self.area), orjson.dumps(record).decode())
        refuse_others(text, self.embedder, self.metric, self.journal.where)

    def close(self) -> None:
        """Stop background work and drop every slab; the next `view` makes them anew from the journal."""
        # The locks and threads of a parent are of no use in a child of a fork.
        if self._pid == os.getpid():
            self._cache.clear()
        else:
            self._start()


# -- the hot columns: what searches ask of a row without reading it ----------------------------------------------------

_CODED = ("user_id", "agent_id", "run_id", "session_id", "role", "name")
COLUMNS: dict[Area, dict[str, np.dtype[Any]]] = {
    "items": {"expires": np.dtype(np.int64)},
    "memories": {
        "kind": np.dtype(np.int8),
        **{name: np.dtype(np.int32) for name in _CODED},
        "time": np.dtype(np.int64),
        "state": np.dtype(np.int8),
        "asks": np.dtype(np.int8),
        "read": np.dtype(np.bool_),
        "since": np.dtype(np.int64),
        "until": np.dtype(np.int64),
        "turns": np.dtype(np.object_),
    },
}


class Codes:
    """Small integers for strings, the same over all slabs of a process; None is -1."""

    def __init__(self) -> None:
        self._codes: dict[str | None, int] = {None: -1}
        self._lock = threading.Lock()
        self.names: list[str] = []

    def find(self, name: str | None) -> int:
        """The code of a name, or -2 when it has none yet."""
        return self._codes.get(name, -2)

    def encode(self, names: Sequence[str | None]) -> NDArray[np.int32]:
        """The codes of names, new ones made; TypeError when one is no text."""
        codes = self._codes
        with self._lock:
            for name in set(names).difference(codes):
                if not isinstance(name, str):
                    raise TypeError("a name of another type")
                self.names.append(name)
                codes[name] = len(self.names) - 1
        return np.array([codes[name] for name in names], np.int32)


def encoded(columns: Mapping[str, NDArray[Any]], codes: Codes) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Columns for a snapshot, whose codes are the places of names in the list beside them."""
    coded = [name for name in _CODED if name in columns]
    used = np.unique(np.concatenate([np.empty(0, np.int32), *(columns[name] for name in coded)]))
    used = used[used >= 0]
    places = np.full(used[-1] + 2 if len(used) else 1, -1, np.int32)
    places[used] = np.arange(len(used))
    return (
        {**columns, **{name: places.take(columns[name]) for name in coded}},
        [codes.names[code] for code in used.tolist()],
    )


def decoded(columns: Mapping[str, NDArray[Any]], names: object, codes: Codes) -> dict[str, NDArray[Any]]:
    """The columns of a snapshot, with this process's codes.

    Raises:
        SnapshotError: They have codes that no name stands for.
    """
    coded = [name for name in _CODED if name in columns]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SnapshotError("The rows' snapshot lacks its names; it is rebuilt.")
    here = codes.encode([*names, None])
    for name in coded:
        if columns[name].min(initial=-1) < -1 or columns[name].max(initial=-1) >= len(names):
            raise SnapshotError("The rows' snapshot has names that are nobody's; it is rebuilt.")
    return {**columns, **{name: here.take(columns[name]) for name in coded}}


def memory_columns(raw: Mapping[str, Sequence[Any]], codes: Codes) -> dict[str, NDArray[Any]]:
    """The columns of memories, from the journal's."""
    turns = np.empty(len(raw["turns"]), object)
    turns[:] = [np.array(orjson.loads(t), "<i8").tobytes() if t else b"" for t in raw["turns"]]
    state = _numbers(raw["state"], np.int8)
    return {
        "kind": np.array([kind == "turn" for kind in raw["kind"]], np.int8),
        **{name: codes.encode(raw[name]) for name in _CODED},
        "time": _numbers(raw["time"], np.int64, -1),
        "state": state,
        "asks": _numbers(raw["asks"], np.int8),
        "read": _numbers(raw["read"], np.bool_),
        "since": _numbers(raw["valid_at"], np.int64, -1),
        # A turn whose facts have ended is shown as ended; it does not expire.
        "until": np.where(state == SPENT, 0, _numbers(raw["invalid_at"], np.int64)),
        "turns": turns,
    }


def _numbers(values: Sequence[Any], kind: type[np.generic], missing: int = 0) -> NDArray[Any]:
    return np.array([missing if value is None else value for value in values], kind)


# -- vectors: the form that the journal has them in, which embedder wrote them, and how they are compared --------------


def encode_vectors(vectors: NDArray[Any] | Sequence[NDArray[Any]], metric: Metric) -> bytes:
    """The journal's form of the vectors of one item: float16 bytes, of unit length for cosine.

    Raises:
        EmbeddingError: a number is too large for float16.
    """
    block = np.asarray(vectors, np.float32)
    if metric == "cosine":
        # float32 cannot hold the squares of very large or small numbers.
        squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)[:, None]
        block = block / np.maximum(np.sqrt(squares), 1e-100)
    elif np.abs(block).max(initial=0.0) > 65504:
        raise EmbeddingError("A vector has numbers beyond 65504, which float16 cannot hold; scale them, or use cosine.")
    return block.astype("<f2").tobytes()


def recorded_embedder(journal: Journal, area: Area) -> tuple[str, int] | None:
    """The name and dims of the embedder that wrote the vectors of an area, or None while there are none."""
    text = journal.meta(embedder_key(area))
    if text is None:
        return None
    try:
        record = orjson.loads(text)
        if not is_embedder(record):
            raise TypeError("no record of an embedder")
        return record["name"], record["dims"]
    except DAMAGED as error:
        raise JournalError(
            f"The store's note of what embedded its {area} is damaged ({type(error).__name__}): restore a backup."
        ) from error


_SIZES = range(1, 1 << 20)


def is_embedder(record: Any) -> bool:
    """Whether this is what `Indexes.record_embedder` notes, or an export of it."""
    if not isinstance(record, dict) or not isinstance(record.get("name"), str) or type(record.get("dims")) is not int:
        return False
    knows = record.get("knows") or {}
    measured = isinstance(knows, dict) and {*map(type, knows.values())} <= {int, float}
    return record["dims"] in _SIZES and measured and record.get("metric", "cosine") in METRICS


def check_settings(*, hnsw_threshold: Any, metric: Any = None, **functions: Any) -> None:
    """Refuse settings that nothing can be opened with, before a folder is made for it."""
    if not isinstance(hnsw_threshold, int) or isinstance(hnsw_threshold, bool) or hnsw_threshold < 0:
        raise ConfigurationError(f"hnsw_threshold must be an integer of at least 0, got {shown(hnsw_threshold)}.")
    if metric is not None and metric not in METRICS:
        raise ConfigurationError(f"metric must be one of {', '.join(METRICS)}, or None; got {shown(metric)}.")
    for name, function in functions.items():
        if not callable(function):
            raise ConfigurationError(f"{name} must be a function, got {shown(function)}.")


def chosen_metric(journal: Journal, metric: Metric | None) -> Metric:
    """How the vectors of memories are compared: as is asked for, else as those that are there, else by cosine.

    Raises:
        ConfigurationError: those that are there were written for another one.
    """
    text = journal.meta(embedder_key("memories"))
    recorded: Metric | None = None if text is None else metric_in(text)
    if metric is not None and recorded not in (None, metric):
        raise ConfigurationError(
            f"The folder {journal.where} has vectors to be compared by {recorded}, not by {metric}. Open it with "
            f"metric={recorded!r} or without one, or choose another folder."
        )
    return metric or recorded or "cosine"


def metric_in(record: str) -> Metric:
    """How the vectors that a record tells of are compared."""
    # Records that do not tell it are older than the choice.
    metric: Metric = orjson.loads(record).get("metric", "cosine")
    return metric


def refuse_others(record: str, embedder: Embedder, metric: Metric, where: str) -> None:
    """Refuse the vectors that a record tells of, unless they are of this embedder and for this metric.

    Raises:
        EmbedderMismatch: they are not.
    """
    name, dims, recorded = embedder.name, embedder.dims, orjson.loads(record)
    if recorded["name"] != name or dims not in (None, recorded["dims"]):
        size = "" if dims is None else f" ({dims} numbers)"
        raise EmbedderMismatch(
            f"The folder {where} has vectors of {recorded['name']} ({recorded['dims']} numbers), not "
            f"of {name}{size}: another process wrote them, or `memlayer reembed` made them. Open it again with "
            "that embedder, or give it this one: `memlayer reembed`, or `langchain_memlayer.moving.reembed_store`."
        )
    if (other := metric_in(record)) != metric:
        raise EmbedderMismatch(
            f"The folder {where} has vectors to be compared by {other}, not by {metric}. Open it with metric={other!r}."
        )
