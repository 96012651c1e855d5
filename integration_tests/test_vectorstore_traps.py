"""What single vector stores are peculiar in, over the real ones."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integration_tests.points import DIMS, NASTY, OURS, CountingEmbeddings, point, point_id, vector
from langchain_memlayer.backends.base import STORE, adapt
from langchain_memlayer.errors import ConfigurationError


class TestQdrant:
    def test_a_metric_that_orders_otherwise_is_told(self, tmp_path: Path) -> None:
        qdrant = pytest.importorskip("langchain_qdrant")
        client, models = _qdrant(tmp_path)
        for name, distance in (("a", models.Distance.MANHATTAN), ("b", models.Distance.EUCLID)):
            client.create_collection(name, vectors_config=models.VectorParams(size=DIMS, distance=distance))
        stores = [qdrant.QdrantVectorStore(client, name, None, **UNCHECKED) for name in ("a", "b")]
        with pytest.raises(ConfigurationError, match="'a' compares by Manhattan, which does not order like cosine"):
            adapt(stores[0]).check(DIMS)
        adapt(stores[1]).check(DIMS)
        client.close()

    def test_a_named_vector_and_named_payload_keys_are_used(self, tmp_path: Path) -> None:
        qdrant = pytest.importorskip("langchain_qdrant")
        client, models = _qdrant(tmp_path)
        sizes = {"dense": models.VectorParams(size=DIMS, distance=models.Distance.COSINE)}
        client.create_collection("a", vectors_config=sizes)
        names = {"vector_name": "dense", "content_payload_key": "body", "metadata_payload_key": "meta"}
        foreign = adapt(qdrant.QdrantVectorStore(client, "a", None, **names, **UNCHECKED))
        foreign.check(DIMS)
        foreign.upsert([point(1, vector(1), "first", kind="fact"), point(2, vector(1), kind="turn")])
        assert foreign.search(vector(1), 9, {STORE: OURS, "kind": "fact"}, None) == [1]
        assert client.retrieve("a", [point_id(1)])[0].payload["body"] == "first"
        with pytest.raises(ConfigurationError, match="no dense vector named 'other'"):
            adapt(qdrant.QdrantVectorStore(client, "a", None, vector_name="other", **UNCHECKED)).check(DIMS)
        client.close()

    def test_sparse_vectors_alone_are_not_enough(self, tmp_path: Path) -> None:
        qdrant = pytest.importorskip("langchain_qdrant")
        client, _ = _qdrant(tmp_path)
        store = qdrant.QdrantVectorStore(client, "a", None, retrieval_mode=qdrant.RetrievalMode.SPARSE, **UNCHECKED)
        with pytest.raises(ConfigurationError, match=r"RetrievalMode\.DENSE or HYBRID"):
            adapt(store)
        client.close()


UNCHECKED = {"validate_embeddings": False, "validate_collection_config": False}


def _qdrant(folder: Path) -> tuple[Any, Any]:
    import qdrant_client

    return qdrant_client.QdrantClient(path=str(folder / "qdrant")), qdrant_client.models


@pytest.mark.parametrize("space", ["cosine", "ip", "l2"])
def test_every_space_of_chroma_can_stand_for_cosine(space: str, tmp_path: Path) -> None:
    chroma = pytest.importorskip("langchain_chroma")
    configuration = {"hnsw": {"space": space}}
    store = chroma.Chroma("aaa", None, persist_directory=str(tmp_path / "c"), collection_configuration=configuration)
    foreign = adapt(store)
    foreign.upsert([point(1, vector(9)), point(2, vector(5, 5)), point(3, vector(0, 0.1))])
    foreign.check(DIMS)
    assert foreign.search(vector(3), 3, {STORE: OURS}, None) == [1, 2, 3]


class TestMilvus:
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Callable[..., Any]]:
        langchain = pytest.importorskip("langchain_milvus")
        with ExitStack() as stack, warnings.catch_warnings():
            warnings.simplefilter("ignore")

            def make(name: str = "a", **settings: Any) -> Any:
                uri = {"uri": str(tmp_path / "milvus.db")}
                store = langchain.Milvus(CountingEmbeddings(), name, connection_args=uri, **settings)
                stack.callback(store.client.close)
                return store

            yield make

    def test_fixed_fields_are_told_before_anything_is_written(self, opened: Callable[..., Any]) -> None:
        store = opened()
        with pytest.raises(ConfigurationError, match="enable_dynamic_field=True, on a new collection"):
            adapt(store).check(DIMS)
        store.add_texts(["theirs"], [{"source": "book"}], ids=["x"])
        with pytest.raises(ConfigurationError, match="takes only the fields that it was made with"):
            adapt(opened(enable_dynamic_field=True)).check(DIMS)

    def test_fields_that_must_be_filled_are_named(self, opened: Callable[..., Any]) -> None:
        store = opened(enable_dynamic_field=True, partition_key_field="tenant")
        store.add_texts(["theirs"], [{"tenant": "t"}], ids=["x"])
        with pytest.raises(ConfigurationError, match="needs the fields tenant, which memories do not have"):
            adapt(opened(enable_dynamic_field=True)).check(DIMS)

    def test_metadata_in_one_column_is_filtered_too(self, opened: Callable[..., Any]) -> None:
        foreign = adapt(opened(metadata_field="meta"))
        foreign.check(DIMS)
        near = [point(row, vector(1, row / 1000), text="t", kind="turn") for row in range(50)]
        foreign.upsert([*near, point(90, vector(0, 1), fields={"text": NASTY}, kind="fact")])
        assert foreign.search(vector(1), 2, {STORE: OURS, "kind": "fact", "text": NASTY}, None) == [90]
        assert len(list(foreign.documents())) == 51

    @pytest.mark.parametrize("metric", ["L2", "IP"])
    def test_other_metrics_order_the_same(self, metric: str, opened: Callable[..., Any]) -> None:
        foreign = adapt(opened(enable_dynamic_field=True, index_params={"metric_type": metric}))
        foreign.check(DIMS)
        foreign.upsert([point(1, vector(9)), point(2, vector(5, 5)), point(3, vector(0, 0.1))])
        foreign.check(DIMS)
        assert foreign.search(vector(3), 3, {STORE: OURS}, None) == [1, 2, 3]


class TestFaiss:
    def test_an_index_that_cannot_forget_is_told(self) -> None:
        faiss = pytest.importorskip("faiss")
        with pytest.raises(ConfigurationError, match="IndexHNSWFlat, out of which nothing can be removed"):
            adapt(_faiss(faiss.IndexHNSWFlat(DIMS, 8))).check(DIMS)

    def test_vectors_of_another_size_leave_the_index_as_it_was(self) -> None:
        faiss = pytest.importorskip("faiss")
        foreign = adapt(_faiss(faiss.IndexFlatL2(DIMS)))
        foreign.upsert([point(1, vector(1))])
        with pytest.raises(ConfigurationError, match="vectors of 4 numbers, and the embedder makes 2"):
            foreign.upsert([point(1, np.ones(2, np.float32))])
        assert foreign.search(vector(1), 3, {STORE: OURS}, None) == [1]

    def test_inner_products_order_the_same(self) -> None:
        faiss = pytest.importorskip("faiss")
        foreign = adapt(_faiss(faiss.IndexFlatIP(DIMS), distance_strategy="MAX_INNER_PRODUCT"))
        foreign.check(DIMS)
        foreign.upsert([point(1, vector(9)), point(2, vector(5, 5)), point(3, vector(0, 0.1))])
        assert foreign.search(vector(3), 3, {STORE: OURS}, None) == [1, 2, 3]


def _faiss(index: Any, **settings: Any) -> Any:
    pytest.importorskip("langchain_community")
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS

    return FAISS(CountingEmbeddings(), index, InMemoryDocstore(), {}, **settings)


class TestPostgres:
    @pytest.fixture
    def engine(self, postgres: str) -> Iterator[Any]:
        langchain = pytest.importorskip("langchain_postgres")
        address = postgres.replace("postgresql://", "postgresql+psycopg://", 1)
        # A small table would be scanned; a large one has its graph asked.
        address += f"{'&' if '?' in address else '?'}options=-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff"
        engine = langchain.PGEngine.from_connection_string(address)
        yield engine
        engine._run_as_sync(engine._pool.dispose())

    def test_a_graph_index_goes_on_until_enough_rows_pass_the_filter(self, engine: Any) -> None:
        from langchain_postgres import PGVectorStore
        from langchain_postgres.v2.indexes import HNSWIndex

        name = f"t{uuid.uuid4().hex}"
        engine.init_vectorstore_table(name, DIMS)
        store = PGVectorStore.create_sync(engine, CountingEmbeddings(), name)
        store.apply_vector_index(HNSWIndex())
        foreign = adapt(store)
        foreign.upsert([point(row, vector(1, row / 4000), user_id="large") for row in range(1_500)])
        foreign.upsert([point(2_000 + row, vector(row / 40, 1), user_id="small") for row in range(20)])
        found = foreign.search(vector(1), 10, {STORE: OURS, "user_id": "small"}, None)
        assert found == list(range(2_019, 2_009, -1))
        assert len(foreign.search(vector(1), 200, {STORE: OURS}, None) or []) == 200

    def test_declared_columns_are_written_filtered_and_read(self, engine: Any) -> None:
        from langchain_postgres import Column, PGVectorStore

        name = f"t{uuid.uuid4().hex}"
        columns = [Column("user_id", "TEXT"), Column("n", "BIGINT")]
        engine.init_vectorstore_table(name, DIMS, id_column=Column("key", "TEXT"), metadata_columns=columns)
        store = PGVectorStore.create_sync(
            engine, CountingEmbeddings(), name, id_column="key", metadata_columns=["user_id", "n"]
        )
        foreign = adapt(store)
        foreign.check(DIMS)
        near = [point(row, vector(1, row / 1000), user_id="else", n=1, kind="turn") for row in range(50)]
        foreign.upsert([*near, point(90, vector(0, 1), user_id=NASTY, n=2, kind="fact")])
        assert foreign.search(vector(1), 2, {STORE: OURS, "user_id": NASTY, "n": 2, "kind": "fact"}, None) == [90]
        assert foreign.search(vector(1), 1, {STORE: OURS, "user_id": "else", "n": 1}, None) == [0]
        assert {one.metadata["n"] for one in foreign.documents()} == {1, 2}

    def test_the_words_of_a_hybrid_table_are_kept(self, engine: Any) -> None:
        from langchain_postgres import PGVectorStore
        from langchain_postgres.v2.hybrid_search_config import HybridSearchConfig

        name, hybrid = f"t{uuid.uuid4().hex}", HybridSearchConfig(tsv_lang="pg_catalog.english")
        engine.init_vectorstore_table(name, DIMS, hybrid_search_config=hybrid)
        store = PGVectorStore.create_sync(engine, CountingEmbeddings(), name, hybrid_search_config=hybrid)
        foreign = adapt(store)
        foreign.upsert([point(1, vector(1), "They walked"), point(2, vector(0, 1), "They swam")])
        foreign.upsert([point(row, vector(1, row), "x") for row in range(3, 9)])
        foreign.upsert([point(2, vector(0, 1), "They were walking")])
        found = store.similarity_search("walk", k=9)
        assert {"They walked", "They were walking"} <= {document.page_content for document in found}
        assert foreign.search(vector(1), 9, {STORE: OURS}, None) == [1, 3, 4, 5, 6, 7, 8, 2]

    def test_what_cannot_hold_our_ids_or_metadata_is_told(self, engine: Any) -> None:
        from langchain_postgres import Column, PGEngine, PGVectorStore

        numbered, bare = (f"t{uuid.uuid4().hex}" for _ in range(2))
        engine.init_vectorstore_table(numbered, DIMS, id_column=Column("langchain_id", "BIGINT"))
        with pytest.raises(ConfigurationError, match="is bigint; ours are UUIDs"):
            adapt(PGVectorStore.create_sync(engine, CountingEmbeddings(), numbered)).check(DIMS)
        engine.init_vectorstore_table(bare, DIMS, store_metadata=False)
        with pytest.raises(ConfigurationError, match="store_metadata=True"):
            adapt(PGVectorStore.create_sync(engine, CountingEmbeddings(), bare))
        store = PGVectorStore.create_sync(engine, CountingEmbeddings(), numbered)
        store._engine = PGEngine.from_engine(engine._pool)
        with pytest.raises(ConfigurationError, match=r"PGEngine\.from_connection_string"):
            adapt(store)
