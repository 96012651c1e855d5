"""The stores that are compared, one small adapter each; all of them get the same vectors through the same embedder."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from integration_tests.benchmarks.timing import Timed, timed
from integration_tests.benchmarks.vectors import DIMS, TENANTS, Data, Precomputed
from langchain_memlayer import MemLayerStore, Memory
from langchain_memlayer.index import view

BATCH = 1000
_USERS = [f"u{tenant}" for tenant in range(TENANTS)]


class Skipped(Exception):
    """This peer cannot run here; the message says why."""


class Peer:
    """One store.

    Args:
        data: What it holds.
        folder: An empty folder of its own.
    """

    name = ""

    def __init__(self, data: Data, folder: Path) -> None:
        self.data = data
        self.folder = folder
        self.embeddings = Precomputed(data)
        self.closing = ExitStack()

    def load(self) -> None:
        """Take all rows, whichever way is quickest, and be ready for the first search."""
        for start in range(0, self.data.rows, BATCH):
            self.add(range(start, min(start + BATCH, self.data.rows)))

    def add(self, rows: Sequence[int]) -> None:
        """Take rows in one call."""
        self.adding(rows)()

    def adding(self, rows: Sequence[int]) -> Callable[[], Any]:
        """The call that takes rows, with its arguments made."""
        raise NotImplementedError

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        """What the store itself gives for a query."""
        raise NotImplementedError

    def rows_of(self, found: Any) -> list[int]:
        """The numbers of the rows in an answer."""
        raise NotImplementedError

    def put(self, row: int) -> Timed:
        """Add one row, timed."""
        return timed(self.adding([row]))

    def put_many(self, rows: Sequence[int]) -> Timed:
        """Add rows in one call, timed."""
        return timed(self.adding(rows))

    def search(self, number: int, k: int, tenant: int | None = None) -> Timed:
        """Answer query `number`, timed; gives the rows."""
        query = self.data.query(number)
        cpu, wall, found = timed(lambda: self.find(query, k, tenant))
        return cpu, wall, self.rows_of(found)

    def disk(self) -> int | None:
        """Bytes on disk once everything is written; None for a store that keeps nothing."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def reopen(self) -> Callable[[], Any] | None:
        """Close it; gives a call that opens it again and answers one query, or None for a store that keeps nothing."""
        return None

    def close(self) -> None:
        """Release what it holds."""
        self.closing.close()


def user(row: int) -> str:
    """The name of a row's tenant."""
    return _USERS[Data.tenant(row)]


class MemLayer(Peer):
    """`MemLayerStore` with one namespace for each tenant."""

    name = "MemLayerStore, 100 namespaces"

    def __init__(self, data: Data, folder: Path) -> None:
        super().__init__(data, folder)
        self.store = self.closing.enter_context(self._open())

    def _open(self) -> MemLayerStore:
        return MemLayerStore(self.folder / "store", index={"dims": DIMS, "embed": self.embeddings, "fields": ["text"]})

    def load(self) -> None:
        super().load()
        self.find(self.data.query(0), 10, None)
        self.settle()

    def settle(self) -> None:
        """Let graphs that are being built be finished, so that they are not measured along."""
        self.store._indexes.wait()

    def adding(self, rows: Sequence[int]) -> Callable[[], Any]:
        return _adding(self.store, rows, self.namespace)

    def namespace(self, row: int) -> tuple[str, ...]:
        return ("users", user(row))

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        return self.store.search(("users",) if tenant is None else ("users", user(tenant)), query=query, limit=k)

    def rows_of(self, found: Any) -> list[int]:
        return [int(item.key) for item in found]

    def reopen(self) -> Callable[[], Any]:
        self.closing.close()

        def again() -> Any:
            self.store = self.closing.enter_context(self._open())
            return self.find(self.data.query(1), 10, None)

        return again


class MemLayerOne(MemLayer):
    """`MemLayerStore` with everything in one namespace."""

    name = "MemLayerStore, one namespace"

    def namespace(self, row: int) -> tuple[str, ...]:
        return ("all", "notes")

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        return self.store.search(("all", "notes"), query=query, limit=k)


class MemLayerMemory(Peer):
    """`Memory` without a chat model, one user for each tenant and one agent for all."""

    name = "Memory (infer=False)"

    def __init__(self, data: Data, folder: Path) -> None:
        super().__init__(data, folder)
        self.memory = self.closing.enter_context(self._open())

    def _open(self) -> Memory:
        return Memory(self.folder / "memory", model=None, embeddings=self.embeddings)

    def load(self) -> None:
        for tenant in range(min(self.data.rows, 100)):
            rows = self.data.tenant_rows(tenant)
            for start in range(0, len(rows), BATCH):
                self.add(rows[start : start + BATCH].tolist())
        self.find(self.data.query(0), 10, None)
        self.memory._indexes.wait()

    def adding(self, rows: Sequence[int]) -> Callable[[], Any]:
        said = [{"role": "user", "content": self.data.text(row)} for row in rows]
        return lambda: self.memory.add(said, user_id=user(rows[0]), agent_id="a", infer=False)

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        who = {"agent_id": "a"} if tenant is None else {"user_id": user(tenant)}
        return self.memory.search(query, limit=k, **who)

    def rows_of(self, found: Any) -> list[int]:
        return [int(hit["memory"].rpartition("#")[2]) for hit in found["results"]]

    def reopen(self) -> Callable[[], Any]:
        self.closing.close()

        def again() -> Any:
            self.memory = self.closing.enter_context(self._open())
            return self.find(self.data.query(1), 10, 0)

        return again


class InMemory(Peer):
    """LangGraph's `InMemoryStore`."""

    name = "LangGraph InMemoryStore"

    def __init__(self, data: Data, folder: Path) -> None:
        super().__init__(data, folder)
        from langgraph.store.memory import InMemoryStore

        self.store: Any = InMemoryStore(index={"dims": DIMS, "embed": self.embeddings, "fields": ["text"]})

    def adding(self, rows: Sequence[int]) -> Callable[[], Any]:
        return _adding(self.store, rows, lambda row: ("users", user(row)))

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        return self.store.search(("users",) if tenant is None else ("users", user(tenant)), query=query, limit=k)

    def rows_of(self, found: Any) -> list[int]:
        return [int(item.key) for item in found]

    def disk(self) -> int | None:
        return None


class Sqlite(InMemory):
    """LangGraph's `SqliteStore`, on a Python SQLite that loads extensions."""

    name = "LangGraph SqliteStore"

    def __init__(self, data: Data, folder: Path) -> None:
        Peer.__init__(self, data, folder)
        self.store = self._open()

    def _open(self) -> Any:
        try:
            from langgraph.store.sqlite import SqliteStore
        except ImportError as problem:
            raise Skipped(f"{problem}: pip install --group bench") from problem
        driver = extensible_sqlite()
        connection = driver.connect(str(self.folder / "store.db"), check_same_thread=False, isolation_level=None)
        self.closing.callback(connection.close)
        store = SqliteStore(connection, index={"dims": DIMS, "embed": self.embeddings, "fields": ["text"]})
        store.setup()
        return store

    def disk(self) -> int | None:
        return Peer.disk(self)

    def reopen(self) -> Callable[[], Any]:
        self.closing.close()

        def again() -> Any:
            self.store = self._open()
            return self.find(self.data.query(1), 10, None)

        return again


def extensible_sqlite() -> Any:
    """A driver whose connections load extensions: the standard one where it can, else `pysqlite3`.

    Raises:
        Skipped: neither can.
    """
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3
    try:
        from pysqlite3 import dbapi2  # type: ignore[import-untyped]
    except ImportError as problem:
        raise Skipped("this Python's sqlite3 loads no extensions: pip install --group bench") from problem
    return dbapi2


class LangChainFAISS(Peer):
    """LangChain's FAISS vector store with the metadata filter as it comes: it looks at the 20 nearest rows only."""

    name = "LangChain FAISS"
    whole = False

    def __init__(self, data: Data, folder: Path) -> None:
        super().__init__(data, folder)
        try:
            from langchain_community.vectorstores import FAISS
        except ImportError as problem:
            raise Skipped(f"{problem}: pip install --group bench") from problem
        self._faiss = FAISS
        self.store: Any = None

    def load(self) -> None:
        self.store = self._faiss.from_texts([self.data.text(0)], self.embeddings, metadatas=[{"user": user(0)}])
        for start in range(1, self.data.rows, BATCH):
            self.add(range(start, min(start + BATCH, self.data.rows)))

    def adding(self, rows: Sequence[int]) -> Callable[[], Any]:
        texts, about = [self.data.text(row) for row in rows], [{"user": user(row)} for row in rows]
        return lambda: self.store.add_texts(texts, metadatas=about)

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        if tenant is None:
            return self.store.similarity_search_with_score(query, k=k)
        more = {"fetch_k": self.data.rows} if self.whole else {}
        return self.store.similarity_search_with_score(query, k=k, filter={"user": user(tenant)}, **more)

    def rows_of(self, found: Any) -> list[int]:
        return [int(document.page_content.rpartition("#")[2]) for document, _ in found]

    def disk(self) -> int | None:
        self.store.save_local(str(self.folder / "faiss"))
        return super().disk()

    def reopen(self) -> Callable[[], Any]:
        self.store.save_local(str(self.folder / "faiss"))

        def again() -> Any:
            self.store = self._faiss.load_local(
                str(self.folder / "faiss"), self.embeddings, allow_dangerous_deserialization=True
            )
            return self.find(self.data.query(1), 10, None)

        return again


class LangChainFAISSWhole(LangChainFAISS):
    """The same, told to look at every row."""

    name = "LangChain FAISS, fetch_k=all"
    whole = True


class RawFAISS(Peer):
    """What cannot be had cheaper: FAISS itself, and the rows of the answer read from SQLite by their ids.

    Everything at once goes the way that the planner takes: a scan, and above 4e6 numbers an HNSW graph of the same M,
    efConstruction and ef. A tenant is a scan of a block of its own.
    """

    name = "raw FAISS + rows from SQLite"

    def load(self) -> None:
        import faiss

        self._faiss = faiss
        data = self.data
        self._all = data.vectors[: data.rows]
        self._blocks = [np.ascontiguousarray(self._all[data.tenant_rows(t)]) for t in range(min(100, data.rows))]
        self._graph: Any = None
        if self._all.size > 4_000_000:
            self._graph = faiss.IndexHNSWFlat(DIMS, 32, faiss.METRIC_INNER_PRODUCT)
            self._graph.hnsw.efConstruction = 100
            self._graph.add(self._all)
        self._db = sqlite3.connect(self.folder / "rows.db")
        self.closing.callback(self._db.close)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(
            "CREATE TABLE rows (id INTEGER PRIMARY KEY, ns TEXT, key TEXT, value TEXT, created REAL, updated REAL)"
        )
        now = time.time()
        self._db.executemany(
            "INSERT INTO rows VALUES (?,?,?,?,?,?)",
            ((r, user(r), str(r), orjson.dumps(_value(r)).decode(), now, now) for r in range(data.rows)),
        )
        self._db.commit()

    def find(self, query: str, k: int, tenant: int | None) -> Any:
        faiss = self._faiss
        vector = np.asarray([self.embeddings.embed_query(query)], np.float32)
        if tenant is not None:
            found = faiss.knn(vector, self._blocks[tenant], k, metric=faiss.METRIC_INNER_PRODUCT)[1][0] * 100 + tenant
        elif self._graph is None:
            found = faiss.knn(vector, self._all, k, metric=faiss.METRIC_INNER_PRODUCT)[1][0]
        else:
            ef = view.candidates(self.data.rows, self.data.rows, k)[0]
            found = self._graph.search(vector, k, params=faiss.SearchParametersHNSW(efSearch=ef))[1][0]
        ids = found.tolist()
        marks = ",".join("?" * len(ids))
        rows = {row[0]: row for row in self._db.execute(f"SELECT * FROM rows WHERE id IN ({marks})", ids)}
        return [rows[i] for i in ids]

    def rows_of(self, found: Any) -> list[int]:
        return [row[0] for row in found]


def _value(row: int) -> dict[str, Any]:
    return {"text": Data.text(row), "number": row}


def _adding(store: Any, rows: Sequence[int], namespace: Callable[[int], tuple[str, ...]]) -> Callable[[], Any]:
    from langgraph.store.base import PutOp

    if len(rows) == 1:
        where, key, value = namespace(rows[0]), str(rows[0]), _value(rows[0])
        return lambda: store.put(where, key, value)
    puts = [PutOp(namespace(row), str(row), _value(row)) for row in rows]
    return lambda: store.batch(puts)
