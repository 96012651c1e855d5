"""The adapters over the real stores: each test runs over every backend that can be had without a container.

Those whose names end in `-real` are servers that the environment names.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from integration_tests.json_server import HOST
from integration_tests.points import DIMS, NASTY, OURS, CountingEmbeddings, point, point_id, vector
from langchain_memlayer.backends.base import ITEM, POINT, STORE, ForeignStore, adapt
from langchain_memlayer.errors import ConfigurationError

pytestmark = pytest.mark.allow_hosts([HOST])

PACKAGES = {
    "qdrant": "langchain_qdrant",
    "chroma": "langchain_chroma",
    "milvus": "milvus_lite",
    "faiss": "langchain_community",
    "pgvector": "langchain_postgres",
    "pgvectorstore": "langchain_postgres",
}
SERVERS = {
    "qdrant-http": "qdrant_http",
    "chroma-http": "chroma_http",
    "milvus-http": "milvus_http",
    "pgvector": "postgres",
    "pgvectorstore": "postgres",
}
"""Backends with a server, and the fixture that has its address."""

REAL = {
    "qdrant-real": "MEMLAYER_TEST_QDRANT",
    "chroma-real": "MEMLAYER_TEST_CHROMA",
    "milvus-real": "MEMLAYER_TEST_MILVUS",
}
"""Backends with a server that is not started here, and the variable that has its address."""

BACKENDS = (
    "memory",
    "qdrant",
    "qdrant-http",
    "chroma",
    "chroma-http",
    "milvus",
    "milvus-http",
    "faiss",
    "pgvector",
    "pgvectorstore",
    *(pytest.param(name, marks=pytest.mark.enable_socket) for name in REAL),
)

Opener = Callable[[str, int], Any]
"""Opens the collection of a name for vectors of a size; the same again for the same name."""


class Backend:
    """One backend with its stores.

    Attributes:
        name: Which it is.
        open: Opens a collection.
        embeddings: What its stores embed with.
    """

    def __init__(self, name: str, folder: Path, address: str | None, stack: ExitStack) -> None:
        self.name = name
        self.embeddings = CountingEmbeddings()
        self._folder, self._stack, self._address = folder, stack, address or ""
        self._dropped: set[str] = set()
        self.open: Opener = getattr(self, f"_{name.partition('-')[0]}")

    def _memory(self, name: str, dims: int) -> Any:
        return InMemoryVectorStore(self.embeddings)

    def _qdrant(self, name: str, dims: int) -> Any:
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient, models

        name = self._unique(name)
        if not hasattr(self, "_client"):
            place = {"url": self._address, "api_key": os.environ.get("MEMLAYER_TEST_QDRANT_KEY")}
            place = place if self._address else {"path": str(self._folder / "qdrant")}
            self._client = QdrantClient(**place, check_compatibility=False)
            self._stack.callback(self._client.close)
        if not self._client.collection_exists(name):
            vectors = models.VectorParams(size=dims, distance=models.Distance.COSINE)
            self._client.create_collection(name, vectors_config=vectors)
            self._once(name, self._client.delete_collection)
        return QdrantVectorStore(self._client, name, self.embeddings, validate_collection_config=False)

    def _chroma(self, name: str, dims: int) -> Any:
        from langchain_chroma import Chroma

        if not self._address:
            return Chroma(name, self.embeddings, persist_directory=str(self._folder / "chroma"))
        import chromadb

        client = chromadb.HttpClient(self._address, settings=chromadb.Settings(anonymized_telemetry=False))
        self._stack.callback(client.close)
        store = Chroma(self._unique(name), self.embeddings, client=client)
        self._once(self._unique(name), client.delete_collection)
        return store

    def _milvus(self, name: str, dims: int) -> Any:
        from langchain_milvus import Milvus

        uri = self._address or str(self._folder / "milvus.db")
        token = os.environ.get("MEMLAYER_TEST_MILVUS_TOKEN", "") if self.name == "milvus-real" else ""
        store = Milvus(
            self.embeddings,
            collection_name=self._unique(name),
            # All clients share one connection, which pings while idle; the server of Milvus Lite hangs up on that.
            connection_args={"uri": uri, "token": token, "grpc_options": {"grpc.keepalive_time_ms": 3_600_000}},
            index_params={"metric_type": "COSINE"},
            enable_dynamic_field=True,
            consistency_level="Strong",
        )
        self._stack.callback(store.client.close)
        if self._address:
            self._once(self._unique(name), store.client.drop_collection)
        return store

    def _faiss(self, name: str, dims: int) -> Any:
        import faiss
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS

        return FAISS(self.embeddings, faiss.IndexFlatL2(dims), InMemoryDocstore(), {})

    def _pgvector(self, name: str, dims: int) -> Any:
        from langchain_postgres import PGVector

        store = PGVector(self.embeddings, connection=self._psycopg(), collection_name=self._unique(name))
        self._stack.callback(store._engine.dispose)
        return store

    def _pgvectorstore(self, name: str, dims: int) -> Any:
        from langchain_postgres import PGEngine, PGVectorStore

        engine = PGEngine.from_connection_string(self._psycopg())
        self._stack.callback(engine._run_as_sync, engine._pool.dispose())
        engine.init_vectorstore_table(self._unique(name), dims)
        return PGVectorStore.create_sync(engine, self.embeddings, self._unique(name))

    def _psycopg(self) -> str:
        return self._address.replace("postgresql://", "postgresql+psycopg://", 1)

    def _unique(self, name: str) -> str:
        # A server serves all tests.
        return f"{name}_{uuid.uuid5(uuid.NAMESPACE_URL, str(self._folder)).hex}" if self._address else name

    def _once(self, name: str, drop: Callable[[str], Any]) -> None:
        """Have a server's collection dropped in the end, however often it is opened."""
        if name not in self._dropped:
            self._dropped.add(name)
            self._stack.callback(drop, name)


def made(name: str, folder: Path, stack: ExitStack, request: pytest.FixtureRequest) -> Backend:
    """The backend of a name; skips when something that it needs is missing."""
    package = PACKAGES.get(name.partition("-")[0])
    if package and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    address = request.getfixturevalue(SERVERS[name]) if name in SERVERS else None
    if name in REAL and not (address := os.environ.get(REAL[name])):
        pytest.skip(f"{REAL[name]} names no server")
    return Backend(name, folder, address, stack)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stores' own
        yield made(request.param, tmp_path, stack, request)


@pytest.fixture
def foreign(backend: Backend) -> ForeignStore:
    return adapt(backend.open("memories", DIMS))


class TestEveryStore:
    def test_the_nearest_come_first(self, foreign: ForeignStore, backend: Backend) -> None:
        foreign.upsert([point(3, vector(0, 1)), point(1, vector(1)), point(2, vector(1, 1)), point(4, vector(-1))])
        assert foreign.search(vector(2), 4, {STORE: OURS}, None) == [1, 2, 3, 4]
        assert foreign.search(vector(2), 2, {STORE: OURS}, None) == [1, 2]
        assert backend.embeddings.calls == 0

    def test_lengths_do_not_matter(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(1, vector(0.01)), point(2, vector(50, 50)), point(3, vector(0, 0.1))])
        assert foreign.search(vector(30), 3, {STORE: OURS}, None) == [1, 2, 3]

    def test_the_same_id_again_replaces(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(1, vector(1), "old", color="red"), point(2, vector(0, 1))])
        foreign.upsert([point(1, vector(0, 0, 1), "new", color="blue")])
        assert foreign.search(vector(1, 0, 0.1), 9, {STORE: OURS}, None) == [1, 2]
        assert foreign.search(vector(1), 9, {STORE: OURS, "color": "red"}, None) == []
        assert sorted((document.text, document.metadata.get("color")) for document in foreign.documents()) == [
            ("a text", None),
            ("new", "blue"),
        ]

    def test_of_an_id_that_comes_twice_the_last_stays(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(1, vector(1), "first"), point(2, vector(0, 1)), point(1, vector(0, 0, 1), "last")])
        assert [document.text for document in foreign.documents() if document.metadata[ITEM] == 1] == ["last"]

    def test_nothing_is_nothing(self, foreign: ForeignStore) -> None:
        foreign.upsert([])
        foreign.delete([])
        assert foreign.present([]) == set()
        assert foreign.search(vector(1), 5, {STORE: OURS}, None) == []
        assert list(foreign.documents()) == []
        foreign.delete([point_id(1)])
        assert foreign.present([point_id(1)]) == set()

    def test_absent_and_repeated_ids_are_no_error_in_a_deletion(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(row, vector(1, row)) for row in range(4)])
        foreign.delete([point_id(1), point_id(77), point_id(1), point_id(3)])
        assert foreign.search(vector(1), 9, {STORE: OURS}, None) == [0, 2]
        assert foreign.present([point_id(row) for row in (0, 1, 2, 3, 77)]) == {point_id(0), point_id(2)}

    def test_many_go_in_several_requests(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(row, vector(1, row / 100)) for row in range(300)])
        ids = [point_id(row) for row in range(300)]
        assert foreign.present(ids) == set(ids)
        assert foreign.search(vector(1), 300, {STORE: OURS}, None) == list(range(300))
        assert {document.metadata[POINT] for document in foreign.documents()} == set(ids)
        foreign.delete(ids[:290])
        assert foreign.search(vector(1), 300, {STORE: OURS}, None) == list(range(290, 300))

    @pytest.mark.parametrize(
        ("name", "value", "other"),
        [
            ("word", NASTY, "O'Brien"),
            ("whole", 7, 8),
            ("large", 1_750_000_000_000_000, 1),
            ("fraction", 1.5, 2.5),
            ("flag", True, False),
            ("in", "an operator's name", "x"),
            ("text", "a column's name", "x"),
        ],
    )
    def test_a_filter_reaches_past_nearer_points(
        self, foreign: ForeignStore, name: str, value: Any, other: Any
    ) -> None:
        near = [point(row, vector(1, row / 1000), fields={name: other}) for row in range(120)]
        foreign.upsert([*near, point(900, vector(0.1, 1), fields={name: value}), point(901, vector(0, 1))])
        found = foreign.search(vector(1), 200, {STORE: OURS, name: value}, None) or []
        if name == "text" and foreign.kind == "milvus":
            # A column of its own has the name; this is left to the caller, who filters again.
            assert found == [*range(120), 900, 901]
        else:
            assert [row for row in found if row >= 0] == [900]

    def test_filters_compile(self, foreign: ForeignStore) -> None:
        near = [point(row, vector(1, row / 1000), user_id="else", memlayer_kind="turn", n=1) for row in range(120)]
        wanted = point(900, vector(0, 1), user_id=NASTY, memlayer_kind="fact", n=2)
        foreign.upsert([*near, wanted])
        where = {STORE: OURS, "user_id": NASTY, "memlayer_kind": "fact", "n": 2}
        assert foreign.search(vector(1), 3, where, None) == [900]

    def test_another_stores_points_are_nobodys(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(1, vector(1), store="store-2"), point(1, vector(0, 1)), point(2, vector(0, 0, 1))])
        assert [row for row in foreign.search(vector(1, 0.2, 0.1), 9, {STORE: OURS}, None) or [] if row >= 0] == [1, 2]

    def test_documents_of_the_user_are_listed_and_not_found(self, foreign: ForeignStore, backend: Backend) -> None:
        store = foreign._store  # type: ignore[attr-defined]
        foreign.upsert([point(1, vector(0, 1), "ours")])
        own = str(uuid.uuid4())
        store.add_texts(["theirs"], [{"source": "a book"}], ids=[own])
        documents = {document.text: document for document in foreign.documents()}
        assert set(documents) == {"ours", "theirs"}
        assert documents["theirs"].id == own
        assert documents["theirs"].metadata["source"] == "a book"
        assert documents["ours"].metadata[ITEM] == 1
        assert [row for row in foreign.search(vector(1), 9, {}, None) or [] if row >= 0] == [1]
        assert [row for row in foreign.search(vector(1), 9, {STORE: OURS}, None) or [] if row >= 0] == [1]

    def test_what_a_store_cannot_keep_stays_out(self, foreign: ForeignStore) -> None:
        odd = {"$key": 1, "a b": 2, "huge": 2**70, "nul": "a\x00b", "漢": "x", "chroma:x": 1, "empty": ""}
        foreign.upsert([point(1, vector(1), "t", fine="yes", fields=odd)])
        assert foreign.search(vector(1), 9, {STORE: OURS, "fine": "yes", **odd}, None) == [1]

    def test_long_texts_and_values(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(1, vector(1), "漢" * 70_000, long="y" * 100_000, short="z")])
        assert foreign.search(vector(1), 9, {STORE: OURS, "short": "z", "long": "y" * 100_000}, None) == [1]

    def test_the_right_size_passes_and_another_does_not(self, foreign: ForeignStore) -> None:
        foreign.check(DIMS)
        foreign.upsert([point(1, vector(1))])
        foreign.check(DIMS)
        with pytest.raises(ConfigurationError, match=rf"vectors of {DIMS} numbers, and the embedder makes {DIMS + 1}"):
            foreign.check(DIMS + 1)

    def test_collections_are_apart(self, backend: Backend) -> None:
        first, second = (adapt(backend.open(name, DIMS)) for name in ("memories", "others"))
        first.upsert([point(1, vector(1), "first"), point(2, vector(0, 1))])
        second.upsert([point(1, vector(1), "second")])
        second.delete([point_id(2)])
        assert first.search(vector(1), 9, {STORE: OURS}, None) == [1, 2]
        assert second.search(vector(1), 9, {STORE: OURS}, None) == [1]
        assert second.present([point_id(1), point_id(2)]) == {point_id(1)}

    def test_threads_may_share_it(self, foreign: ForeignStore) -> None:
        foreign.upsert([point(row, vector(1, row / 100)) for row in range(20)])

        def work(number: int) -> None:
            mine = [point(1_000 * number + row, vector(0, 0, 1, row / 100)) for row in range(10)]
            foreign.upsert(mine)
            assert foreign.search(vector(1), 20, {STORE: OURS}, None) == list(range(20))
            assert len(foreign.present([one.id for one in mine]) or ()) == 10
            foreign.delete([one.id for one in mine[5:]])

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(work, number) for number in range(1, 5)]:
                done.result()
        found = foreign.search(vector(0, 0, 1), 20, {STORE: OURS}, None) or []
        assert sorted(found) == [1_000 * number + row for number in range(1, 5) for row in range(5)]

    async def test_a_running_loop_does_not_matter(self, backend: Backend) -> None:
        foreign = adapt(backend.open("memories", DIMS))
        foreign.upsert([point(1, vector(1))])
        await asyncio.to_thread(foreign.upsert, [point(2, vector(0, 1))])
        assert await asyncio.to_thread(foreign.search, vector(1), 9, {STORE: OURS}, None) == [1, 2]
        assert foreign.search(vector(0, 1), 9, {STORE: OURS}, None) == [2, 1]

    def test_what_was_written_is_there_for_another_object(self, backend: Backend) -> None:
        if backend.name in ("memory", "faiss"):
            pytest.skip("lives in one object")
        if backend.name == "pgvectorstore":
            pytest.skip("the helper makes its table")
        adapt(backend.open("memories", DIMS)).upsert([point(1, vector(1)), point(2, vector(0, 1))])
        again = adapt(backend.open("memories", DIMS))
        assert again.search(vector(1), 9, {STORE: OURS}, None) == [1, 2]
        again.upsert([point(3, vector(1, 1))])
        again.delete([point_id(1)])
        assert again.search(vector(1), 9, {STORE: OURS}, None) == [3, 2]
