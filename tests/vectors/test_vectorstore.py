import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_memlayer.backends.base import ITEM, POINT, STORE, DeferredStore, ForeignStore, Point, adapt
from langchain_memlayer.errors import ConfigurationError, VectorStoreError
from langchain_memlayer.testing import DeterministicEmbeddings

OURS = "store-1"
QUERY = np.array([1, 0, 0], np.float32)


class Plain(VectorStore):
    """Only what LangChain demands: texts go in with ids, and are found by text."""

    def __init__(self) -> None:
        self.kept: dict[str, Document] = {}
        self.asked: list[tuple[Any, int]] = []

    def add_texts(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None = None, *, ids: Any = None, **kwargs: Any
    ) -> list[str]:
        for id_, text, metadata in zip(ids, texts, metadatas or [], strict=True):
            self.kept[id_] = Document(id=id_, page_content=text, metadata=metadata)
        return list(ids)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        self.asked.append((query, k))
        return list(self.kept.values())[:k]

    @classmethod
    def from_texts(cls, texts: list[str], embedding: Embeddings, metadatas: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError


class ByVector(Plain):
    """Takes vectors in columns, tells no ids, and says what it removed."""

    def __init__(self, *, removes: bool = True) -> None:
        super().__init__()
        self.vectors: dict[str, list[float]] = {}
        self.removes = removes
        self.deletions: list[list[str]] = []

    def add_embeddings(
        self,
        texts: list[str],
        embeddings: list[list[float]],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
    ) -> None:
        self.add_texts(texts, metadatas, ids=ids)
        self.vectors.update(zip(ids or [], embeddings, strict=True))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        assert not kwargs, "a filter that the store does not know"
        nearest = sorted(self.vectors, key=lambda id_: -float(np.dot(self.vectors[id_], embedding)))
        return [self.kept[id_] for id_ in nearest[:k]]

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        assert ids, "an empty call"
        found = [self.kept[id_] for id_ in ids if id_ in self.kept]
        return [Document(page_content=one.page_content, metadata=one.metadata) for one in found]

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        assert ids, "an empty call"
        assert all(id_ in self.kept for id_ in ids), "an id that is not there"
        self.deletions.append(ids)
        if self.removes:
            for id_ in ids:
                del self.kept[id_], self.vectors[id_]
        return self.removes


class Pairs(Plain):
    """Takes vectors in pairs with their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, list[float]]] = []

    def add_embeddings(
        self,
        text_embeddings: Iterable[tuple[str, list[float]]],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
    ) -> None:
        self.pairs += text_embeddings
        self.add_texts([text for text, _ in self.pairs], metadatas, ids=ids)


def point_id(row: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(row)))


def point(row: int, *numbers: float, text: str = "a text", store: str = OURS, **metadata: Any) -> Point:
    return Point(point_id(row), np.array(numbers, np.float32), text, {**metadata, ITEM: row, STORE: store})


# -- which adapter ----------------------------------------------------------------------------------------------------


def _class(module: str, name: str, *bases: type) -> type:
    return type(name, bases or (Plain,), {"__module__": module, "__init__": lambda self: None})


def test_a_store_is_known_by_its_class_and_by_those_it_is_made_of() -> None:
    class Mine(InMemoryVectorStore):
        pass

    assert adapt(InMemoryVectorStore(DeterministicEmbeddings(3))).kind == "memory"
    assert adapt(Mine(DeterministicEmbeddings(3))).kind == "memory"
    faiss = _class("langchain_community.vectorstores.faiss", "FAISS")
    assert adapt(object.__new__(faiss)).kind == "faiss"
    assert adapt(object.__new__(_class("mine", "Better", faiss))).kind == "faiss"
    assert adapt(object.__new__(_class("langchain_chroma.vectorstores", "Chroma"))).kind == "chroma"
    viking = object.__new__(_class("langchain_memlayer.vikingdb.store", "VikingDBVectorStore"))
    assert adapt(viking).kind == "vikingdb"
    assert adapt(object.__new__(_class("elsewhere", "FAISS"))).kind == "FAISS"
    assert adapt(Plain()).kind == "Plain"
    for foreign in (adapt(InMemoryVectorStore(DeterministicEmbeddings(3))), adapt(Plain()), DeferredStore("x", Plain)):
        assert isinstance(foreign, ForeignStore)


@pytest.mark.parametrize("given", [None, "qdrant", {}, object(), InMemoryVectorStore])
def test_what_is_no_store_is_told_what_to_pass(given: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="must be a LangChain VectorStore, such as QdrantVectorStore"
    ) as caught:
        adapt(given)
    named = "the class InMemoryVectorStore, not an object" if isinstance(given, type) else type(given).__name__
    assert named in str(caught.value)


def test_stores_that_were_opened_in_a_way_that_cannot_work_are_told_how_to_open_them() -> None:
    asynchronous = object.__new__(_class("langchain_postgres.v2.async_vectorstore", "AsyncPGVectorStore"))
    with pytest.raises(ConfigurationError, match="pass a PGVectorStore"):
        adapt(asynchronous)
    old = object.__new__(_class("langchain_postgres.vectorstores", "PGVector"))
    old.async_mode = True
    with pytest.raises(ConfigurationError, match="open it without"):
        adapt(old)
    milvus = object.__new__(_class("langchain_milvus.vectorstores.milvus", "Milvus"))
    milvus.auto_id = True
    with pytest.raises(ConfigurationError, match="without auto_id"):
        adapt(milvus)


# -- InMemoryVectorStore ----------------------------------------------------------------------------------------------


@pytest.fixture
def embeddings() -> DeterministicEmbeddings:
    return DeterministicEmbeddings(3)


@pytest.fixture
def memory(embeddings: DeterministicEmbeddings) -> InMemoryVectorStore:
    return InMemoryVectorStore(embeddings)


def test_nothing_is_embedded_again(memory: InMemoryVectorStore, embeddings: DeterministicEmbeddings) -> None:
    foreign = adapt(memory)
    foreign.upsert([point(1, 3, 0, 0), point(2, 1, 1, 0), point(3, 0, 0, 9)])
    foreign.upsert([point(2, 0.1, 0, 0.01)])
    assert foreign.search(QUERY, 3, {STORE: OURS}, "words") == [1, 2, 3]
    assert (embeddings.texts, embeddings.queries) == ([], [])
    assert foreign.present([point_id(1), point_id(9)]) == {point_id(1)}
    foreign.delete([point_id(1), point_id(9), point_id(1)])
    assert foreign.search(QUERY, 3, {STORE: OURS}, None) == [2, 3]


def test_a_filter_is_complete_before_the_limit(memory: InMemoryVectorStore) -> None:
    foreign = adapt(memory)
    foreign.upsert([point(row, 1, row / 100, 0, kind="turn") for row in range(50)])
    foreign.upsert([point(90, 0, 1, 0, kind="fact"), point(91, 1, 0, 0), point(92, 1, 0, 0, kind=7)])
    assert foreign.search(QUERY, 2, {STORE: OURS, "kind": "fact"}, None) == [90]
    assert foreign.search(QUERY, 2, {STORE: OURS, "kind": 7}, None) == [92]
    # What a field of this name never gets is left to the caller, who filters again.
    assert foreign.search(QUERY, 1, {STORE: OURS, "kind": "fact", "$odd": 1}, None) == [90]


def test_the_users_own_documents_are_listed_and_never_rows(memory: InMemoryVectorStore) -> None:
    foreign = adapt(memory)
    [own] = memory.add_texts(["theirs"], [{"source": "book", ITEM: "no number"}])
    foreign.upsert([point(4, 1, 0, 0, text="ours")])
    assert foreign.search(QUERY, 9, {}, None) == [4]
    assert {(one.id, one.text) for one in foreign.documents()} == {(own, "theirs"), (point_id(4), "ours")}


def test_vectors_of_another_size_are_told_before_anything_is_written(memory: InMemoryVectorStore) -> None:
    foreign = adapt(memory)
    foreign.check(7)
    memory.add_texts(["theirs"])
    foreign.check(3)
    with pytest.raises(ConfigurationError, match="vectors of 3 numbers, and the embedder makes 7: name another"):
        foreign.check(7)


# -- any other store --------------------------------------------------------------------------------------------------


def test_a_store_that_takes_vectors_is_given_them() -> None:
    store = ByVector()
    foreign = adapt(store)
    foreign.upsert([point(1, 5, 0, 0), point(2, 0, 2, 0), point(1, 0, 0, 4)])
    assert store.vectors == {point_id(1): [0, 0, 1], point_id(2): [0, 1, 0]}
    kept = store.kept[point_id(1)].metadata
    assert {name: value for name, value in kept.items() if value} == {ITEM: 1, STORE: OURS, POINT: point_id(1)}
    pairs = Pairs()
    adapt(pairs).upsert([point(1, 5, 0, 0, text="t")])
    assert pairs.pairs == [("t", [1, 0, 0])]
    assert list(pairs.kept) == [point_id(1)]


def test_a_store_that_takes_the_fields_of_its_first_document_for_all_is_given_the_same_of_each() -> None:
    class Columns(ByVector):
        def add_embeddings(self, texts: Any, embeddings: Any, metadatas: Any = None, ids: Any = None) -> list[str]:
            known = [one.metadata for one in self.kept.values()]
            forms = {tuple((name, type(value)) for name, value in one.items()) for one in [*known, *metadatas]}
            if len(forms) > 1:
                raise TypeError("fields of another type")
            return super().add_embeddings(texts, embeddings, metadatas, ids)

    store = Columns()
    foreign = adapt(store)
    foreign.upsert([point(1, 1, 0, 0, user_id="a", level=1)])
    foreign.upsert([point(2, 0.9, 0.1, 0, user_id="b", agent_id="x", level="high"), point(3, 0, 1, 0)])
    assert foreign.search(QUERY, 9, {STORE: OURS, "level": 1}, None) == [1, 2, 3]
    assert foreign.search(QUERY, 9, {STORE: OURS, "user_id": "b"}, None) == [-1, 2, -1]


def test_a_store_that_takes_texts_only_is_given_those_and_asked_by_words() -> None:
    store = Plain()
    foreign = adapt(store)
    foreign.upsert([point(1, 1, 0, 0, text="first"), point(2, 0, 1, 0)])
    assert [one.page_content for one in store.kept.values()] == ["first", "a text"]
    assert foreign.search(QUERY, 5, {STORE: OURS}, "words") == [1, 2]
    assert store.asked == [("words", 5)]
    assert foreign.search(QUERY, 5, {STORE: OURS}, None) is None
    assert foreign.present([point_id(1)]) is None
    foreign.delete([point_id(1)])  # it has no way to; the journal hides what it keeps
    assert len(store.kept) == 2
    with pytest.raises(ConfigurationError, match="Plain cannot be listed"):
        foreign.documents()


def test_what_a_store_gives_and_we_did_not_write_counts_and_is_nobodys() -> None:
    store = ByVector()
    foreign = adapt(store)
    foreign.upsert([point(1, 1, 0, 0), point(2, 1, 0.1, 0, store="store-2"), point(3, 0, 1, 0, memlayer_kind="turn")])
    store.add_embeddings(["theirs"], [[1.0, 0.01, 0.0]], [{}], ["own"])
    assert foreign.search(QUERY, 9, {STORE: OURS}, None) == [1, -1, -1, 3]
    assert foreign.search(QUERY, 9, {STORE: OURS, "memlayer_kind": "turn"}, None) == [-1, -1, -1, 3]


def test_values_that_a_store_made_strings_are_understood() -> None:
    store = ByVector()
    foreign = adapt(store)
    foreign.upsert([point(17, 1, 0, 0, user_id="7")])
    found = store.kept[point_id(17)]
    found.metadata = {name: str(value) for name, value in found.metadata.items()}
    assert foreign.search(QUERY, 1, {STORE: OURS, ITEM: 17, "user_id": "7"}, None) == [17]
    assert foreign.search(QUERY, 1, {STORE: OURS, ITEM: 18}, None) == [-1]


def test_only_what_is_there_is_removed_and_empty_calls_are_not_made() -> None:
    store = ByVector()
    foreign = adapt(store)
    foreign.upsert([])
    foreign.delete([])
    assert foreign.present([]) == set()
    foreign.upsert([point(1, 1, 0, 0), point(2, 0, 1, 0)])
    foreign.delete([point_id(2), point_id(7), point_id(2)])
    foreign.delete([point_id(7)])
    assert store.deletions == [[point_id(2)]]
    assert foreign.present([point_id(1), point_id(2)]) == {point_id(1)}
    # What a store did not remove is asked for again later.
    store.removes = False
    with pytest.raises(VectorStoreError, match="did not remove 1 documents"):
        foreign.delete([point_id(1)])


class Numbered(ByVector):
    """Numbers what it is given."""

    def add_embeddings(self, texts: Any, embeddings: Any, metadatas: Any = None, ids: Any = None) -> list[str]:
        numbers = [str(len(self.kept) + place) for place in range(len(texts))]
        super().add_embeddings(texts, embeddings, metadatas, numbers)
        return numbers


class Sealed(ByVector):
    """Takes nothing once it is made, as Annoy."""

    def add_embeddings(self, texts: Any, embeddings: Any, metadatas: Any = None, ids: Any = None) -> None:
        raise NotImplementedError


class Bound(ByVector):
    """Belongs to the thread that opened it, as a connection of SQLite."""

    def add_embeddings(self, texts: Any, embeddings: Any, metadatas: Any = None, ids: Any = None) -> None:
        raise RuntimeError("SQLite objects created in a thread can only be used in that same thread.")


class SQLiteVec(ByVector):
    """By its name it is known to ignore ids."""


@pytest.mark.parametrize(
    ("store", "why"),
    [
        (Numbered(), "ids of its own"),
        (SQLiteVec(), "ids of its own"),
        (Sealed(), "takes no documents"),
        (Bound(), "only in the thread that opened it"),
    ],
)
def test_what_a_store_cannot_do_is_found_out_by_a_probe_that_leaves_nothing(store: ByVector, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        adapt(store).probe(3)  # type: ignore[attr-defined]
    assert store.kept == {}


@pytest.mark.parametrize(
    ("store", "told"),
    [
        (ByVector(), []),
        (Plain(), ["has no way to remove documents"]),
        (ByVector(removes=False), ["does not remove what it is asked to"]),
    ],
)
def test_a_store_that_keeps_ids_is_taken_and_what_it_cannot_remove_said_before(
    store: Plain, told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    adapt(store).probe(3)  # type: ignore[attr-defined]
    assert [one.message.partition(") ")[2].partition(":")[0] for one in caplog.records] == told
    assert bool(store.kept) == bool(told)


def test_a_point_that_is_there_is_replaced_and_not_doubled() -> None:
    class Refusing(ByVector):
        def add_embeddings(self, texts: Any, embeddings: Any, metadatas: Any = None, ids: Any = None) -> None:
            assert not set(ids) & set(self.kept), "an id that is there"
            super().add_embeddings(texts, embeddings, metadatas, ids)

    store = Refusing()
    foreign = adapt(store)
    foreign.upsert([point(1, 1, 0, 0, text="old")])
    foreign.upsert([point(1, 0, 1, 0, text="new"), point(2, 0, 0, 1)])
    assert [one.page_content for one in store.kept.values()] == ["new", "a text"]


def test_a_store_may_call_documents_otherwise_in_its_answer_if_it_knows_them_by_our_ids() -> None:
    class Rowids(ByVector):
        def add_embeddings(self, texts: Any, embeddings: Any, metadatas: Any = None, ids: Any = None) -> list[int]:
            super().add_embeddings(texts, embeddings, metadatas, ids)
            return [7]

    store = Rowids()
    store.add_embeddings(["x"], [[0.0, 0.0, 1.0]], [{}], ["theirs"])
    foreign = adapt(store)
    foreign.upsert([point(1, 1, 0, 0)])
    foreign.upsert([point(2, 0, 1, 0)])
    assert sorted(foreign.search(QUERY, 5, {STORE: OURS}, None) or []) == [-1, 1, 2]


# -- a store that cannot be opened yet --------------------------------------------------------------------------------


def test_a_store_is_opened_when_it_can_be_and_once(memory: InMemoryVectorStore) -> None:
    attempts: list[bool] = [False, False, True]
    opened = 0

    def make() -> VectorStore:
        nonlocal opened
        opened += 1
        if not attempts[opened - 1]:
            raise ConnectionError
        return memory

    foreign = DeferredStore("qdrant", make)
    for _ in range(2):
        with pytest.raises(VectorStoreError, match="ConnectionError"):
            foreign.upsert([point(1, 1, 0, 0)])
    foreign.check(3)
    foreign.upsert([point(1, 1, 0, 0), point(2, 1, 1, 0)])
    foreign.delete([point_id(2)])
    assert foreign.search(QUERY, 3, {STORE: OURS}, None) == [1]
    assert foreign.present([point_id(1), point_id(2)]) == {point_id(1)}
    assert [one.id for one in foreign.documents()] == [point_id(1)]
    assert opened == 3
