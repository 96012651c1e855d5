"""The in-memory cache of one namespace prefix: its rows, hot columns, vectors and words, caught up from the journal."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import InvalidInput, SnapshotError
from langchain_memlayer.index import hnsw
from langchain_memlayer.index.kernel import CODE, kernel_for
from langchain_memlayer.index.postings import Words
from langchain_memlayer.index.rows import Rows
from langchain_memlayer.index.view import Read, Source, Stored, View
from langchain_memlayer.types import Metric, SlabBlock

_LOGGER = logging.getLogger(__name__)
_FEWEST_DEAD = 64
_DEAD_SHARE = 0.2
_SMALLEST_DELTA = 512
_GROWN = 1.1
_MANY = 10_000

_Job = Literal["build", "grow", "move"]


class Slab:
    """All rows below one namespace prefix.

    Reading goes through `view`, an immutable state: take it once, compute masks from its `columns`, and call its
    `search`, `scores` and `slots`. `apply` makes the next state and may run beside any number of readers. A graph is
    built and grown by a daemon thread of the slab's own, on one core, which ends when nothing is left to do; meanwhile
    searches give the exact answers of a scan, or those of the graph that was. After a fork, when it is `worn`, and when
    anything was raised from `apply`, a slab is to be dropped and loaded again.

    Args:
        dims: Size of the vectors; None for a store without an embedder.
        metric: How vectors are compared. Codes for cosine come normalised from the journal.
        hnsw_threshold: `rows * dims` above which the slab gets a graph.
        columns: The hot columns and their types.
        save: Called with the slab, in the worker's thread or by `close`, when a snapshot of what it has now pays.
        source: What answers in place of a graph; one is built only when it is not trusted any more.
        read: Reads vectors from the journal, so that they are not held here; blocks come without them then.
    """

    def __init__(
        self,
        *,
        dims: int | None,
        metric: Metric = "cosine",
        hnsw_threshold: int = 4_000_000,
        columns: Mapping[str, np.dtype[Any]] | None = None,
        save: Callable[[Slab], None] | None = None,
        source: Source | None = None,
        read: Read | None = None,
    ) -> None:
        self._dims = dims or 0
        self._kernel = None if dims is None else kernel_for(dims, metric)
        self._threshold = hnsw_threshold
        self._save = save
        self._source = source
        self._lock = threading.RLock()
        self._worker: threading.Thread | None = None
        self._closed = False
        self._applied_seq = -1
        self._read = read
        self._rows = Rows(
            width=self._dims, held=read is None, types={name: np.dtype(kind) for name, kind in (columns or {}).items()}
        )
        self._graph: hnsw.Graph | None = None
        # Held, it would keep the links and vectors of a graph that has long been followed by another.
        self._saved: ref[hnsw.Graph] | None = None
        self._saved_rows = 0
        # What `save` was last called for, a graph and how many rows: when it could not, it is not asked over and over.
        self._offered = (False, 0)
        self._weighed = (-1, -1, 0)
        self._publish()

    @property
    def view(self) -> View:
        """The present state."""
        return self._view

    @property
    def applied_seq(self) -> int:
        """The journal position that the slab is complete up to; -1 before the first block."""
        return self._view.applied_seq

    @property
    def worn(self) -> bool:
        """Whether so many rows are dead that loading it again, without them, pays."""
        rows = self._rows
        return rows.dead >= _FEWEST_DEAD and rows.dead > _DEAD_SHARE * rows.ids.size

    @property
    def nbytes(self) -> int:
        """Bytes held, about."""
        view, graph = self._view, self._view.graph
        state = view.applied_seq, 0 if graph is None else graph.seen
        if self._weighed[:2] != state:
            owners = 0 if view.owners is None else view.owners.nbytes
            links = 0 if graph is None else graph.nbytes
            columns = sum(map(_weight, view.columns.values())) + self._rows.words.nbytes
            # Besides: id, seq, live mask and the index from ids to slots.
            self._weighed = *state, len(view) * 33 + columns + owners + view.codes.nbytes + links + 16_384
        return self._weighed[2]

    def ahead(self, vectors: int) -> NDArray[np.uint8]:
        """Room for the bytes of the vectors of a first block: read there, they are not moved when others follow."""
        codes = self._rows.codes
        return np.empty(0, np.uint8) if codes is None else codes.ahead(vectors).reshape(-1).view(np.uint8)

    def apply(self, block: SlabBlock, *, words: Words | None = None, upkeep: bool = True) -> None:
        """Takes what the journal wrote; a block that was applied before changes nothing.

        Args:
            block: Written and removed rows, complete up to `block.seq` from this slab's `applied_seq` or earlier.
            words: For the first block of a slab: the words of its rows, where they were dumped.
            upkeep: False to leave out the graph's upkeep this time, because `load_graph` follows.
        """
        width = self._dims
        if self._read is None and len(block.vector_bytes) != len(block.owners) * width * CODE.itemsize:
            raise InvalidInput(
                f"The journal's vectors are not of {width} dimensions: open the store with the embedder that it was "
                "written with."
            )
        codes = (
            np.frombuffer(block.vector_bytes, dtype=CODE).reshape(len(block.owners), width)
            if self._read is None
            else Stored(self._read, block.ids, block.owners, width)
        )
        with self._lock:
            if block.seq <= self._applied_seq:
                return
            if words is not None:
                self._rows.words.restore(words)
            self._rows.remove(block.removed)
            self._rows.upsert(block, codes)
            self._applied_seq = block.seq
            self._publish()
            if upkeep:
                self.keep_up()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the graph's upkeep has nothing left to do; False when that took longer than `timeout` seconds."""
        while True:
            # Under the lock: a thread that `keep_up` has not started yet cannot be joined.
            with self._lock:
                worker = self._worker
            if worker is None:
                return True
            worker.join(timeout)
            if worker.is_alive():
                return False

    def close(self) -> None:
        """Stops the upkeep and saves what is not saved yet. Views that were taken stay usable."""
        with self._lock:
            self._closed = True
        self.wait()
        if self._save is not None and self.unsaved:
            self._save(self)

    def _publish(self) -> None:
        rows = self._rows
        self._view = View(
            applied_seq=self._applied_seq,
            ids=rows.ids.used,
            seqs=rows.seqs.used,
            live=rows.live.used,
            columns={name: column.used for name, column in rows.columns.items()},
            codes=self._stored() if rows.codes is None else rows.codes.used,
            owners=None if rows.owners is None else rows.owners.used,
            dead=rows.dead,
            dead_vectors=rows.dead_vectors,
            graph=self._graph,
            threshold=self._threshold,
            kernel=self._kernel,
            index=rows.index,
            words=rows.words.state(),
            sample=rows.sample.state(),
            source=self._source,
        )

    def _stored(self) -> Stored:
        rows = self._rows
        if self._read is None:
            raise InvalidInput("A slab without vectors needs a way to read them.")
        return Stored(self._read, rows.ids.used, None if rows.owners is None else rows.owners.used, self._dims)

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def _job(self) -> _Job | None:
        """What is to be done next."""
        view, vectors = self._view, len(self._view.codes)
        if view.graph is not None:
            beside = vectors - view.graph.seen + len(view.graph.nodes.rest)
            if beside >= max(_SMALLEST_DELTA, view.graph.seen // 50):
                return "grow"
            return None if isinstance(view.codes, Stored) or view.graph.lies_in(view.codes) else "move"
        lacks_graph = view.held and (self._source is None or not self._source.trusted)
        return "build" if lacks_graph and (vectors - view.dead_vectors) * self._dims > self._threshold else None

    def keep_up(self) -> None:
        """Begins what the graph's upkeep needs, in a thread of its own."""
        with self._lock:
            if self._closed or self._worker is not None:
                return
            if self._job() is None and not (self._save is not None and self._worth_saving()):
                return
            self._worker = threading.Thread(target=self._work, name="memlayer-graph", daemon=True)
            self._worker.start()

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    job = None if self._closed else self._job()
                    view = self._view
                    if job is None and not (self._save is not None and self._worth_saving()):
                        self._worker = None
                        break
                if job is not None:
                    self._do(job, view)
                elif self._save is not None:
                    self._offered = (view.graph is not None, len(view))
                    self._save(self)
            del view
            _give_back()
        finally:
            with self._lock:
                # Only an error, for want of memory say, leaves it here: the next write tries again.
                if self._worker is threading.current_thread():
                    self._worker = None

    def _do(self, job: _Job, view: View) -> None:
        if self._kernel is None or isinstance(view.codes, Stored):
            return
        _LOGGER.debug("graph %s over %d vectors", job, len(view.codes))

        def stop() -> bool:
            return self._closed or self._graph is not view.graph

        if view.graph is None:
            graph = hnsw.build(self._kernel, view.codes, stop=stop)
        elif job == "grow":
            graph = view.graph.grown(view.codes, stop=stop)
        else:
            graph = view.graph.over(view.codes)
        with self._lock:
            if not stop():
                if job == "move" and graph is not None and not self.graph_unsaved:
                    self._saved = ref(graph)
                self._graph = graph
                self._publish()

    # -- snapshots -----------------------------------------------------------------------------------------------------

    @property
    def graph_unsaved(self) -> bool:
        """Whether there is a graph other than the one last dumped or loaded."""
        graph = self._view.graph
        return graph is not None and (self._saved is None or graph is not self._saved())

    @property
    def unsaved(self) -> bool:
        """Whether opening it again would take noticeably longer than it had to, were nothing saved now."""
        rows, large = len(self._view), self._large()
        return self.graph_unsaved or (large and rows - self._saved_rows >= max(_SMALLEST_DELTA, rows // 50))

    def note_saved(self, rows: int) -> None:
        """Say that a snapshot of the rows was written or loaded when there were so many."""
        self._saved_rows = rows

    def _large(self) -> bool:
        """Whether reading its rows from the journal takes long."""
        return self._view.held and (self._view.graph is not None or len(self._view) >= _MANY)

    def _worth_saving(self) -> bool:
        """Whether it grew so much since a snapshot was last made, or could not be made, that another one pays."""
        if self._closed or not self._large():
            return False
        new = self._view.graph is not None and not self._offered[0]
        return new or len(self._view) >= _GROWN * max(self._offered[1], self._saved_rows)

    def dump_graph(self) -> tuple[bytes, dict[str, Any]] | None:
        """The bytes and the meta of the present graph, for a snapshot; None when there is none."""
        graph = self._view.graph
        if graph is None:
            return None
        dumped = graph.dumped()
        self._saved = ref(graph)
        return dumped

    def load_graph(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Takes over a dumped graph, after the rows have been applied (`apply(block, upkeep=False)`).

        Raises:
            SnapshotError: It is damaged, for other vectors, or knows too little of the present rows. Nothing changed.
        """
        if self._kernel is None or isinstance(self._view.codes, Stored):
            raise SnapshotError("A graph cannot be loaded into a store without vectors.")
        graph = hnsw.restore(self._kernel, self._view.codes, payload, meta)
        with self._lock:
            self._graph, self._saved = graph, ref(graph)
            self._offered = (True, self._offered[1])
            self._publish()
            self.keep_up()


def _weight(column: NDArray[Any]) -> int:
    """Bytes of a column; those of Python objects are judged by a sample."""
    if column.dtype != np.object_ or not len(column):
        return column.nbytes
    sample = column[:: len(column) // 32 + 1]
    return column.nbytes + sum(map(sys.getsizeof, sample)) * len(column) // len(sample)


def _give_back() -> None:
    """Let the C library give the system what is free between what is used, where it can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
