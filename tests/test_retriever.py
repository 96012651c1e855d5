from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests
from memory_kit import call
from surfaces_kit import ALICE, open_with_facts

from langchain_memlayer import EmbeddingError, InvalidFilter, InvalidInput, JournalClosed, Memory, ScopeRequired
from langchain_memlayer.agents.retriever import MemoryRetriever
from langchain_memlayer.testing import DeterministicEmbeddings, ScriptedChatModel


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_with_facts() as opened:
        said = [{"role": "user", "content": "I like tea.", "id": "m1", "timestamp": "2024-05-01T10:00:00Z"}]
        opened.add(said, **ALICE, session_id="s1", metadata={"topic": "drinks", "score": "mine"})
        opened.add(["I live in Paris.", "I have a dog.", "I play chess."], **ALICE)
        opened.add("I like coffee.", user_id="bob")
        yield opened


class TestStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def opened(self, memory: Memory) -> None:
        self.memory = memory

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return MemoryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"memory": self.memory, "user_id": "alice"}

    @property
    def retriever_query_example(self) -> str:
        return "What do I like?"


async def test_a_document_says_where_it_is_from(memory: Memory, way: str) -> None:
    retriever = memory.as_retriever(**ALICE, k=1, kinds=["fact"])
    query = "Do I like tea?"
    [found] = await call(way, retriever, "invoke", query)
    [hit] = memory.search(query, **ALICE, limit=1, kinds=["fact"])["results"]
    assert found.page_content == "I like tea."
    assert found.id == found.metadata["memory_id"] == hit["id"]
    assert found.metadata["memory_kind"] == "fact"
    assert found.metadata["memory_sources"] == ["m1"]
    assert found.metadata["memory_created_at"] == "2024-05-01T10:00:00+00:00"
    for name in ("score", "relevance", "updated_at", "valid_at", "invalid_at"):
        assert found.metadata[f"memory_{name}"] == hit[name]
    own = {key: value for key, value in found.metadata.items() if not key.startswith("memory_")}
    assert own == {"topic": "drinks", "score": "mine"}


def test_a_document_that_was_adopted_keeps_its_metadata_and_its_id() -> None:
    own = {"source": "manual.pdf", "id": "p7", "name": "Handbook", "role": "public", "created_at": "2020", "page": 3}
    shelf = InMemoryVectorStore(DeterministicEmbeddings(64))
    shelf.add_documents([Document("The keeper is called Ilse.", metadata={**own, "memory_id": "another"}, id="d1")])
    with Memory(":memory:", model=None, vectorstore=shelf) as memory:
        memory.adopt(**ALICE)
        [found] = memory.as_retriever(**ALICE, k=1).invoke("Who is the keeper?")
        assert {key: value for key, value in found.metadata.items() if not key.startswith("memory_")} == own
        assert found.id == "d1"
        assert memory.get(found.metadata["memory_id"]) is not None


def test_marginal_relevance_chooses_what_says_different_things(memory: Memory) -> None:
    said = ["Ann likes tea.", "Ann likes tea very much.", "Ann likes tea a lot.", "Ann plays chess."]
    memory.add([{"role": "user", "content": text} for text in said], user_id="ann", infer=False)
    query, options = "What does Ann like, tea?", {"kinds": ["turn"]}

    def found(search_type: Any, **more: Any) -> list[str]:
        retriever = memory.as_retriever(user_id="ann", search_type=search_type, search_kwargs={**options, **more})
        return [document.page_content for document in retriever.invoke(query)]

    assert "Ann plays chess." not in found("similarity", k=2)
    assert found("mmr", k=2, lambda_mult=0.3) == [found("similarity", k=1)[0], "Ann plays chess."]
    assert found("mmr", k=3, lambda_mult=1) == found("similarity", k=3)
    assert "Ann plays chess." not in found("mmr", k=2, fetch_k=2, lambda_mult=0)


def test_a_score_threshold_cuts_by_relevance(memory: Memory) -> None:
    query = "I like tea."
    relevant = [hit["relevance"] for hit in memory.search(query, **ALICE, limit=50)["results"]]
    middle = sorted(relevant)[len(relevant) // 2]
    retriever = memory.as_retriever(
        **ALICE, search_type="similarity_score_threshold", search_kwargs={"score_threshold": middle, "k": 50}
    )
    kept = [document.metadata["memory_relevance"] for document in retriever.invoke(query)]
    assert kept == [relevance for relevance in relevant if relevance >= middle] != []
    with pytest.raises(InvalidInput, match="score_threshold"):
        memory.as_retriever(**ALICE, search_type="similarity_score_threshold")
    with pytest.raises(InvalidInput, match="search_type"):
        memory.as_retriever(**ALICE, search_type="nearest")


async def test_a_memory_that_fails_finds_nothing(memory: Memory, way: str) -> None:
    retriever, strict = memory.as_retriever(**ALICE), memory.as_retriever(**ALICE, on_error="raise")
    memory.close()
    assert await call(way, retriever, "invoke", "tea") == []
    with pytest.raises(JournalClosed):
        await call(way, strict, "invoke", "tea")


async def test_words_find_while_the_embedder_fails(way: str, caplog: pytest.LogCaptureFixture) -> None:
    class Down(DeterministicEmbeddings):
        def embed_query(self, text: str) -> list[float]:
            raise ConnectionError("4711")

    query = "Who likes tea?"
    with Memory(":memory:", embeddings=Down(64)) as memory:
        memory.add(["I like tea.", "I have a dog."], infer=False, **ALICE)
        with pytest.raises(EmbeddingError):
            memory.search(query, **ALICE)
        assert [hit["memory"] for hit in memory.search(query, **ALICE, limit=1, words_only=True)["results"]] == [
            "I like tea."
        ]
        [document] = await call(way, memory.as_retriever(**ALICE, k=1), "invoke", query)
        assert document.page_content == "I like tea."
        assert "I like tea." in await call(way, memory.as_tools(scope=ALICE)[1], "invoke", {"query": query})
    assert caplog.text.count("by words alone") == 2
    assert "4711" not in caplog.text


def test_only_the_scope_is_found_and_arguments_of_search_pass_through(memory: Memory) -> None:
    assert {d.page_content for d in memory.as_retriever(user_id="bob", k=50).invoke("I like")} == {"I like coffee."}
    assert "I like coffee." not in {d.page_content for d in memory.as_retriever(**ALICE, k=50).invoke("I like")}
    retriever = memory.as_retriever(**ALICE, k=10, filter={"topic": "drinks"}, kinds=["turn"])
    assert [d.metadata["memory_kind"] for d in retriever.invoke("What do I drink?")] == ["turn"]


def test_what_cannot_be_meant_is_told(memory: Memory) -> None:
    with pytest.raises(InvalidFilter):
        memory.as_retriever(**ALICE, filters={"$bad": 1})
    with pytest.raises(ScopeRequired, match="user_id"):
        memory.as_retriever()
    for given in ("limit", "fliter"):
        with pytest.raises(InvalidInput, match=given):
            MemoryRetriever(memory=memory, **ALICE, search_kwargs={given: 1}).invoke("x")
    for k in (0, -1, 2.5, "three"):
        with pytest.raises((InvalidInput, ValueError)):
            memory.as_retriever(**ALICE, k=k).invoke("x")
    with pytest.raises(InvalidInput, match="dict"):
        memory.as_retriever(user_id="alice").invoke({"query": "tea"})


def test_it_is_the_context_of_a_rag_chain(memory: Memory) -> None:
    model = ScriptedChatModel(replies=["Tea."])
    prompt = ChatPromptTemplate.from_template("{context}\n{question}")
    chain = {"context": memory.as_retriever(**ALICE), "question": RunnablePassthrough()} | prompt | model
    assert chain.invoke("What do I like?").content == "Tea."
    assert "I like tea." in str(model.prompts[0][0].content)


def test_the_trace_names_store_and_embedder_and_nobody(memory: Memory) -> None:
    retriever = memory.as_retriever(**ALICE)
    params = retriever._get_ls_params()
    assert params["ls_retriever_name"] == "memory"
    assert params["ls_vector_store_provider"] == "MemLayer"
    assert "DeterministicEmbeddings" in params["ls_embedding_provider"]
    assert "alice" not in str(params)
    assert retriever.is_lc_serializable() is False
    assert "Memory object" not in dumps(retriever)


def test_an_odd_question_breaks_no_chain() -> None:
    with open_with_facts() as memory:
        memory.add("tea", user_id="alice")
        retriever = memory.as_retriever(user_id="alice", on_error="raise")
        found = [len(retriever.invoke(query)) for query in ("", " \n", "te\x00a", "tea \ud800", "tea " * 9_000)]
        assert found == [0, 0, 1, 1, 1]
