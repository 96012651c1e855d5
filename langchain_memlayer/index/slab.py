"""The in-memory cache of one namespace prefix: its rows, hot columns and vectors, caught up from the journal."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.errors import InvalidInput, SnapshotError
from langchain_memlayer.index import frozen, hnsw, planner
from langchain_memlayer.index.kernel import CODE, Kernel
from langchain_memlayer.index.rows import Growing, Rows
from langchain_memlayer.index.source import Source
from langchain_memlayer.index.view import View
from langchain_memlayer.types import Metric, SlabBlock

_LOGGER = logging.getLogger(__name__)
_FEWEST_DEAD = 64
_GROWN = 1.1

_Job = Literal["build", "grow", "compact"]


class Slab:
    """All rows below one namespace prefix.

    Reading goes through `view`, an immutable state: take it once, compute masks from its `columns`, and call its
    `search`, `scores` and `position`. `apply` makes the next state and may run beside any number of readers. A graph is
    built, grown and rebuilt by a daemon thread of the slab's own, on one core, which ends when nothing is left to do;
    meanwhile searches give the exact answers of a scan, or those of the graph that was. After a fork a slab is to be
    dropped and loaded again.

    Args:
        dims: Size of the vectors; None for a store without an embedder.
        metric: How vectors are compared. Codes for cosine come normalised from the journal.
        hnsw_threshold: `rows * dims` above which the slab gets a graph.
        columns: The hot columns and their types.
        save: Called with the slab, in the worker's thread or by `close`, when it has a graph that was not dumped yet.
        source: What proposes candidates in place of a graph; one is built only when it is not trusted any more.
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
    ) -> None:
        self._dims = dims or 0
        self._kernel = None if dims is None else Kernel(dims=dims, metric=metric)
        self._threshold = hnsw_threshold
        self._save = save
        self._source = source
        self._lock = threading.RLock()
        self._worker: threading.Thread | None = None
        self._closed = False
        # Counts the rewrites that move rows, so that a graph of the old order is not taken for one of the new.
        self._order = 0
        self._applied_seq = -1
        self._rows = Rows(width=self._dims, types={name: np.dtype(kind) for name, kind in (columns or {}).items()})
        self._graph: hnsw.Graph | None = None
        self._saved: hnsw.Graph | None = None
        # The graph that `save` was last called for: when it could not, the same one is not offered over and over.
        self._offered: hnsw.Graph | None = None
        self._weighed = (-1, -1, -1, 0)
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
    def nbytes(self) -> int:
        """Bytes held, about."""
        view, graph = self._view, self._view.graph
        state = view.applied_seq, self._order, 0 if graph is None else graph.rows
        if self._weighed[:3] != state:
            owners = 0 if view.owners is None else view.owners.nbytes
            links = 0 if graph is None else graph.nbytes
            columns = sum(map(_weight, view.columns.values()))
            # Besides: id, seq, live mask and the index from ids to positions.
            self._weighed = *state, len(view) * 33 + columns + owners + view.codes.nbytes + links + 4096
        return self._weighed[3]

    def apply(self, block: SlabBlock, *, upkeep: bool = True) -> None:
        """Takes what the journal wrote; a block that was applied before changes nothing.

        Args:
            block: Written and removed rows, complete up to `block.seq` from this slab's `applied_seq` or earlier.
            upkeep: False to leave out the graph's upkeep this time, because `load_graph` follows.
        """
        width = self._dims
        if len(block.codes) != len(block.owners) * width * CODE.itemsize:
            raise InvalidInput(
                f"The journal's vectors are not of {width} dimensions: open the store with the embedder that it was "
                "written with."
            )
        codes = np.frombuffer(block.codes, dtype=CODE).reshape(len(block.owners), width)
        with self._lock:
            if block.seq <= self._applied_seq:
                return
            self._rows.remove(block.removed)
            self._rows.upsert(block, codes)
            self._applied_seq = block.seq
            self._publish()
            if upkeep:
                self.keep_up()

    def follow(self, source: Source | None, threshold: int) -> None:
        """Takes candidates from `source` from now on, above another threshold."""
        with self._lock:
            self._source, self._threshold = source, threshold
            self._publish()

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
        """Stops the upkeep and saves the graph. Views that were taken stay usable."""
        with self._lock:
            self._closed = True
        self.wait()
        if self._save is not None and self.graph_unsaved:
            self._save(self)

    def _publish(self) -> None:
        rows = self._rows
        self._view = View(
            applied_seq=self._applied_seq,
            ids=rows.ids.used,
            seqs=rows.seqs.used,
            live=rows.live.used,
            columns={name: column.used for name, column in rows.columns.items()},
            codes=rows.codes.used,
            owners=None if rows.owners is None else rows.owners.used,
            dead=rows.dead,
            dead_vectors=rows.dead_vectors,
            graph=self._graph,
            threshold=self._threshold,
            kernel=self._kernel,
            index=rows.index,
            source=self._source,
        )

    # -- upkeep --------------------------------------------------------------------------------------------------------

    def _job(self) -> _Job | None:
        """What is to be done next."""
        view = self._view
        vectors = len(view.codes)
        lacks_graph = view.graph is None and (self._source is None or not self._source.trusted)
        if lacks_graph and planner.wants_graph(vectors - view.dead_vectors, self._dims, self._threshold):
            return "build"
        if view.dead >= _FEWEST_DEAD and planner.wants_compaction(len(view), view.dead):
            return "compact"
        if view.graph is not None and planner.wants_feeding(view.graph.rows, vectors):
            return "grow"
        return None

    def keep_up(self) -> None:
        """Begins what the graph's upkeep needs: does what is quickly done, and leaves the rest to the worker."""
        with self._lock:
            if self._worker is not None or self._closed:
                return
            job, view = self._job(), self._view
            if job == "compact" and view.graph is None:
                self._compact(view, self._live_codes(view), None)
            elif job is not None:
                self._worker = threading.Thread(target=self._work, name="memlayer-graph", daemon=True)
                self._worker.start()

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    job = None if self._closed else self._job()
                    view, order = self._view, self._order
                    idle = job is None and not (self._save is not None and self._worth_saving())
                    if idle:
                        self._worker = None
                        return
                if job is not None:
                    self._do(job, view, order)
                elif self._save is not None:
                    self._offered = view.graph
                    self._save(self)
        finally:
            with self._lock:
                # Only an error, for want of memory say, leaves it here: the next write tries again.
                if self._worker is threading.current_thread():
                    self._worker = None

    def _do(self, job: _Job, view: View, order: int) -> None:
        kernel = self._kernel
        if kernel is None:
            return

        def stop() -> bool:
            return self._closed or self._order != order

        _LOGGER.debug("graph %s over %d vectors", job, len(view.codes))
        codes = None if job == "grow" or not view.dead else self._live_codes(view)
        if job == "grow" and view.graph is not None:
            graph = view.graph.grown(view.codes, stop=stop)
        elif codes is None:
            graph = hnsw.build(kernel, view.codes, stop=stop)
        elif planner.wants_graph(codes.size, kernel.dims, self._threshold):
            graph = hnsw.build(kernel, codes.used, stop=stop)
        else:
            graph = None
        with self._lock:
            if stop():
                return
            if codes is not None:
                self._compact(view, codes, graph)
            else:
                self._graph = graph
                self._publish()

    def _live_codes(self, view: View) -> Growing:
        codes = Growing(CODE, width=self._dims)
        codes.extend(view.codes[view.live if view.owners is None else view.live[view.owners]])
        return codes

    def _compact(self, view: View, codes: Growing, graph: hnsw.Graph | None) -> None:
        """Moves to new buffers without the rows that were dead in `view`.

        Args:
            view: The state when the work began; rows written since are brought along.
            codes: The vectors that were live then.
            graph: A graph over them.
        """
        now = self._view
        later = np.arange(len(view), len(now))
        kept = np.concatenate((np.flatnonzero(view.live), later[now.live[later]]))
        moved = np.full(len(now), -1, dtype=np.int64)
        moved[kept] = np.arange(len(kept))
        owners = moved if now.owners is None else moved[now.owners]
        seen = len(view.codes)
        codes.extend(now.codes[seen:][owners[seen:] >= 0])
        self._rows = self._rows.replaced(
            kept,
            ids=now.ids[kept],
            live=now.live[kept],
            codes=codes,
            owners=None if now.owners is None else owners[owners >= 0],
        )
        self._reordered(graph)

    def _reordered(self, graph: hnsw.Graph | None) -> None:
        self._graph = graph
        self._order += 1
        self._publish()

    # -- snapshots -----------------------------------------------------------------------------------------------------

    @property
    def graph_unsaved(self) -> bool:
        """Whether there is a graph other than the one last dumped or loaded."""
        graph = self._view.graph
        return graph is not None and graph is not self._saved

    def _worth_saving(self) -> bool:
        """Whether the graph grew so much since it was last dumped that another dump pays."""
        if self._closed or not self.graph_unsaved:
            return False
        graph, saved = self._view.graph, self._saved
        if graph is None or graph is self._offered:
            return False
        return saved is None or graph.rows >= _GROWN * saved.rows

    def dump_graph(self) -> tuple[bytes, dict[str, Any]] | None:
        """The bytes and the meta of the present graph, for a snapshot; None when there is none."""
        view, kernel = self._view, self._kernel
        if view.graph is None or kernel is None:
            return None
        dumped = frozen.freeze(view, view.graph, kernel)
        self._saved = view.graph
        return dumped

    def load_graph(self, payload: bytes, meta: Mapping[str, Any]) -> None:
        """Takes over a dumped graph, after the rows have been applied (`apply(block, upkeep=False)`).

        Rows written since the dump are the delta, rows removed or changed since are tombstones.

        Raises:
            SnapshotError: It is damaged, for other vectors, or knows too little of the present rows. Nothing changed.
        """
        kernel = self._kernel
        if kernel is None:
            raise SnapshotError("A graph cannot be loaded into a store without vectors.")
        thawed = frozen.thaw(payload, meta, kernel)
        with self._lock:
            view = self._view
            positions, vectors = frozen.match(thawed, view)
            if planner.wants_compaction(len(vectors), int((vectors < 0).sum())):
                raise SnapshotError("The graph's snapshot knows too few of the present rows; it is rebuilt.")
            if np.array_equal(positions, np.arange(len(positions))):
                self._reordered(hnsw.restore(kernel, thawed.links, view.codes[: len(vectors)], thawed.copies))
            else:
                rows, codes = frozen.reordered(self._rows, view, thawed, positions, vectors)
                self._rows = rows
                self._reordered(hnsw.restore(kernel, thawed.links, codes, thawed.copies))
            self._saved = self._graph
            self.keep_up()


def _weight(column: NDArray[Any]) -> int:
    """Bytes of a column; those of Python objects are judged by a sample."""
    if column.dtype != np.object_ or not len(column):
        return column.nbytes
    sample = column[:: len(column) // 32 + 1]
    return column.nbytes + sum(map(sys.getsizeof, sample)) * len(column) // len(sample)
