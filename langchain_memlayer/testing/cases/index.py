# ruff: noqa: S101, D102  -- a suite asserts, and a test's name says what it shows
"""Index configuration: which texts of a value are embedded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langgraph.store.base import IndexConfig

from langchain_memlayer.testing.cases.base import FLOAT16, NewStore, StoreCases, index_of
from langchain_memlayer.testing.fakes import DeterministicEmbeddings

NS = ("docs",)
_VALUE: dict[str, Any] = {
    "title": "Zürich",
    "body": {"text": "blue", "author": {"name": "Ann"}},
    "parts": [{"t": "one"}, {"t": "two"}, {"u": "three"}],
    "n": 7,
    "none": None,
}
_WHOLE = json.dumps(_VALUE, sort_keys=True, ensure_ascii=False)


class IndexCases(StoreCases):
    """The contract's section on the index configuration."""

    def test_the_users_configuration_stays_as_it_was(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        index = index_of(embeddings, "title")
        store = new_store(index=index)
        store.put(NS, "a", _VALUE)
        store.search(NS, query="x")
        assert index == {"dims": embeddings.dims, "embed": embeddings, "fields": ["title"]}

    def test_the_configuration_can_be_read(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store: Any = new_store(index=index_of(embeddings)).store
        assert store.index_config["dims"] == embeddings.dims

    def test_the_whole_value_is_the_default(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        new_store(index=index_of(embeddings)).put(NS, "a", _VALUE)
        assert embeddings.texts == [_WHOLE]

    @pytest.mark.parametrize("fields", [[], ["$"], None], ids=repr)
    def test_a_dollar_and_no_fields_mean_the_whole_value(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings, fields: list[str] | None
    ) -> None:
        index: IndexConfig = {"dims": embeddings.dims, "embed": embeddings, "fields": fields}
        new_store(index=index).put(NS, "a", _VALUE)
        assert embeddings.texts == [_WHOLE]

    @pytest.mark.parametrize("field", ["$", "body"])
    def test_a_dollar_in_a_put_means_the_whole_value(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings, field: str
    ) -> None:
        new_store(index=index_of(embeddings, field)).put(NS, "a", {**_VALUE, "$": "trap"}, index=["$"])
        assert embeddings.texts == [json.dumps({**_VALUE, "$": "trap"}, sort_keys=True, ensure_ascii=False)]

    @pytest.mark.parametrize(
        ("field", "texts"),
        [
            ("title", ["Zürich"]),
            ("body.text", ["blue"]),
            ("body.author.name", ["Ann"]),
            ("body.author", ['{"name": "Ann"}']),
            ("parts[*].t", ["one", "two"]),
            ("parts[0].t", ["one"]),
            ("parts[-1].u", ["three"]),
            ("n", ["7"]),
            ("none", []),
            ("missing", []),
            ("missing.deeper[0]", []),
        ],
    )
    @pytest.mark.parametrize("where", ["configuration", "put"])
    def test_paths_choose_what_is_embedded(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings, field: str, texts: list[str], where: str
    ) -> None:
        if where == "configuration":
            new_store(index=index_of(embeddings, field)).put(NS, "a", _VALUE)
        else:
            new_store(index=index_of(embeddings, "title")).put(NS, "a", _VALUE, index=[field])
        assert embeddings.texts == texts

    def test_several_fields_give_several_vectors(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "title", "body.text", "missing"))
        store.put(NS, "a", _VALUE)
        assert sorted(embeddings.texts) == ["Zürich", "blue"]
        for query in ("Zürich", "blue"):
            assert store.search(NS, query=query)[0].score == pytest.approx(1, abs=FLOAT16)

    def test_index_false_stores_no_vectors(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index=index_of(embeddings, "title"))
        store.put(NS, "a", _VALUE, index=False)
        assert embeddings.texts == []
        assert [item.score for item in store.search(NS, query="Zürich")] == [None]
        assert store.found(NS, "a").value == _VALUE

    def test_an_item_without_its_field_has_no_vectors(
        self, new_store: NewStore, embeddings: DeterministicEmbeddings
    ) -> None:
        store = new_store(index=index_of(embeddings, "missing"))
        store.put(NS, "a", _VALUE)
        assert [(item.key, item.score) for item in store.search(NS, query="x")] == [("a", None)]

    def test_a_plain_function_may_embed(self, new_store: NewStore, embeddings: DeterministicEmbeddings) -> None:
        store = new_store(index={"dims": embeddings.dims, "embed": embeddings.embed_documents, "fields": ["title"]})
        store.put(NS, "a", _VALUE)
        store.put(NS, "b", {"title": "Bern"})
        assert store.keys(NS, query="Bern") == ["b", "a"]

    def test_without_an_index_the_argument_is_ignored(self, new_store: NewStore) -> None:
        store = new_store()
        store.put(NS, "a", _VALUE, index=["title"])
        store.put(NS, "b", _VALUE, index=False)
        assert {item.key for item in store.search(NS)} == {"a", "b"}
