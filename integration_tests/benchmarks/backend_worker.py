"""One `Memory` over one backend in a process of its own, so that its memory is its own and peers can take turns."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from langchain_core.vectorstores import InMemoryVectorStore

from integration_tests import postgres_server
from integration_tests.benchmarks.timing import Timed, timed
from integration_tests.benchmarks.vectors import TENANTS, Data, Precomputed, clustered

_OWN = f"memlayer_bench_{os.getpid()}"
"""The schema, or the table, of this process in a PostgreSQL."""

_SERVED = {
    "PostgreSQL journal": (
        f"SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = '{_OWN}'::regnamespace "
        "AND relkind = 'r'",
        f"DROP SCHEMA {_OWN} CASCADE",
    ),
    "PGVectorStore": (f"SELECT pg_total_relation_size('{_OWN}')", f"DROP TABLE {_OWN}"),
}
"""How large it is there, and how it goes."""

AT_ONCE = 100
"""How many messages a call adds."""


def config_of(name: str, folder: Path, postgres: str | None, embeddings: Any) -> dict[str, Any]:
    """What `Memory.from_config` is given for a backend."""
    config = {
        "embedder": {"provider": "langchain", "config": {"model": embeddings}},
        "path": str(folder / "journal"),
    }
    if name == "PostgreSQL journal":
        return {**config, "path": postgres_server.schema(postgres or "", _OWN)}
    provider, settings = {
        "folder": ("faiss", dict),
        "Chroma": ("chroma", lambda: {"path": str(folder / "store")}),
        "Qdrant, path": ("qdrant", lambda: {"path": str(folder / "store")}),
        "Milvus Lite": ("milvus", lambda: {"url": str(folder / "store.db")}),
        "PGVectorStore": ("pgvector", lambda: {"connection_string": postgres, "collection_name": _OWN}),
        "community FAISS": ("langchain", lambda: {"client": _community_faiss(embeddings)}),
        "core InMemory": ("langchain", lambda: {"client": InMemoryVectorStore(embeddings)}),
    }[name]
    return {**config, "vector_store": {"provider": provider, "config": settings()}}


def _community_faiss(embeddings: Any) -> Any:
    import faiss
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    return FAISS(embeddings, faiss.IndexFlatL2(len(embeddings.embed_query("size"))), InMemoryDocstore(), {})


class Worker:
    """A memory with one user for each tenant and one agent for all.

    Args:
        name: The backend.
        rows: How many memories it is to hold.
        folder: An empty folder of its own.
        postgres: The connection string for a backend that needs a server.
    """

    def __init__(self, name: str, rows: int, folder: Path, postgres: str | None) -> None:
        from langchain_memlayer import Memory

        self.data = clustered(rows)
        embeddings = Precomputed(self.data)
        self._before = _resident()
        self._folder = folder
        self._postgres, self._served = postgres, _SERVED.get(name)
        self.memory = Memory.from_config(config_of(name, folder, postgres, embeddings))
        self._numbers: dict[int, int] = {}

    def load(self) -> Timed:
        """Add everything, until the store was brought all of it."""
        took = timed(self._everything)
        for call in (self.tenant, self.everyone, self.nearest):
            call(0)
        self.memory._indexes.wait()
        return took

    def _everything(self) -> None:
        for tenant in range(TENANTS):
            rows = self.data.tenant_rows(tenant).tolist()
            for start in range(0, len(rows), AT_ONCE):
                self._add(rows[start : start + AT_ONCE], tenant)
        self.memory.flush()

    def _add(self, rows: list[int], tenant: int) -> None:
        said = [{"role": "user", "content": self.data.text(row)} for row in rows]
        self.memory.add(said, user_id=f"u{tenant}", agent_id="a", infer=False)

    def add(self, number: int) -> Timed:
        """One more memory, which the store may still have to be brought."""
        return timed(lambda: self._add([self.data.rows + number], number % TENANTS))

    def flush(self) -> float:
        """Seconds until the store has everything."""
        begin = time.perf_counter()
        self.memory.flush()
        return time.perf_counter() - begin

    def tenant(self, number: int) -> Timed:
        """A search in a tenant."""
        return timed(
            lambda: len(self.memory.search(Data.query(number), user_id=f"u{number % TENANTS}", limit=10)["results"])
        )

    def everyone(self, number: int) -> Timed:
        """A search over all tenants."""
        return timed(lambda: len(self.memory.search(Data.query(number), agent_id="a", limit=10)["results"]))

    def nearest(self, number: int) -> Timed:
        """The ten nearest vectors of all, by the store where there is one, however few they are; gives their rows."""
        from langchain_memlayer.backends.proposals import Proposals
        from langchain_memlayer.index.view import Hints
        from langchain_memlayer.types import Scope

        indexes = self.memory._indexes
        view = indexes.view(Scope(agent_id="a").search_root)
        if view.source is not None:
            view = replace(view, threshold=0)
        # An audit gives the exact answer; here the store's own is looked at.
        with patch.object(Proposals, "audit_due", lambda proposals: False):
            cpu, wall, hits = timed(
                lambda: view.search(self.data.queries[number], 10, hints=Hints({"agent_id": "a"}, "whatsoever"))
            )
        return cpu, wall, (hits.plan.way, self._rows(hits.ids.tolist()))

    def _rows(self, ids: list[int]) -> list[int]:
        missing = [one for one in ids if one not in self._numbers]
        with self.memory._journal.read() as reader:
            found = reader.memories_by_row(missing)
        self._numbers |= {one: int(row.text.rpartition("#")[2]) for one, row in found.items()}
        return [self._numbers[one] for one in ids]

    def megabytes(self) -> tuple[float, float]:
        """What the process holds more than at its start, and what lies in its folder or on the server."""
        lying = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        if self._served:
            lying += int(self._told(self._served[0]))
        return (_resident() - self._before) / 1e6, lying / 1e6

    def close(self) -> None:
        """Close the memory, and leave nothing on a server."""
        self.memory.close()
        if self._served:
            self._told(self._served[1])

    def _told(self, statement: str) -> Any:
        import psycopg

        with psycopg.connect(self._postgres or "", autocommit=True) as db:
            cursor = db.execute(statement)
            return cursor.fetchall()[0][0] if cursor.description else None


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peer:
    """A `Worker` in a process of its own; its methods are called by name."""

    def __init__(self, ours: Connection) -> None:
        self._pipe = ours

    def __call__(self, method: str, *given: Any) -> Any:
        """What a method of the worker gives.

        Raises:
            RuntimeError: it failed; its own message was printed by the process.
        """
        self._pipe.send((method, given))
        done, value = self._pipe.recv()
        if not done:
            raise RuntimeError(value)
        return value


@contextmanager
def working(name: str, rows: int, folder: Path, postgres: str | None) -> Iterator[Peer]:
    """A process with a `Worker`."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, name, rows, folder, postgres), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Peer(ours)
    finally:
        ours.close()
        process.join()


def _work(pipe: Connection, name: str, rows: int, folder: Path, postgres: str | None) -> None:
    warnings.simplefilter("ignore")  # the stores' own
    worker: Worker | None = None
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            break
        try:
            worker = worker or Worker(name, rows, folder, postgres)
            answer = True, getattr(worker, method)(*given)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other process has to be told
            answer = False, f"{name}: {type(error).__name__}: {error}"
        pipe.send(answer)
    if worker is not None:
        worker.close()
