import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx
import pytest

from langchain_memlayer.errors import InvalidInput
from langchain_memlayer.graph.export import from_graph_document
from langchain_memlayer.graph.memory_graph import MemoryGraph, TripleGraph
from langchain_memlayer.types import Triple

SVG = "{http://www.w3.org/2000/svg}"


def graph_of(*triples: tuple[str, str, str], valid_at: int | None = None) -> MemoryGraph:
    graph = TripleGraph()
    graph.apply(1, [(n, n, f"m{n}", *triple, valid_at) for n, triple in enumerate(triples, 1)])
    return graph.copy()


def test_the_copy_is_a_networkx_graph_of_its_own() -> None:
    graph = TripleGraph()
    graph.apply(1, [(1, 1, "m1", "Anna", "likes", "Bob", 0)])
    copy = graph.copy()
    assert isinstance(copy, networkx.MultiDiGraph)
    assert copy.triples() == [("Anna", "likes", "Bob")]
    assert copy.edges["Anna", "Bob", "likes:m1"] == {
        "relation": "likes", "memory_id": "m1", "valid_at": "1970-01-01T00:00:00+00:00",
    }  # fmt: skip
    copy.remove_node("Anna")
    copy.add_edge("X", "Y")
    assert len(graph) == 1
    assert graph.copy().triples() == [("Anna", "likes", "Bob")]
    assert isinstance(graph.copy().copy(), MemoryGraph)
    assert networkx.shortest_path(graph.copy(), "Anna", "Bob") == ["Anna", "Bob"]


def test_graphml_is_read_back_as_it_was(tmp_path: Path) -> None:
    graph = graph_of(("Anna", "likes", "Bob"), ("Anna", "lives in", "小雨 & <Co>"), valid_at=1_700_000_000_000_000)
    graph.to_graphml(tmp_path / "graph.graphml")
    again = networkx.read_graphml(tmp_path / "graph.graphml", force_multigraph=True)
    assert dict(again.nodes(data=True)) == dict(graph.nodes(data=True))
    assert sorted(again.edges(data=True), key=str) == sorted(graph.edges(data=True), key=str)


def test_what_xml_cannot_hold_becomes_a_space(tmp_path: Path) -> None:
    graph = graph_of(("An\x01na", "li\x0bkes", "B\ufffeob"))
    graph.to_graphml(tmp_path / "graph.graphml")
    assert set(networkx.read_graphml(tmp_path / "graph.graphml")) == {"An na", "B ob"}
    ET.fromstring(graph._repr_svg_())


def test_the_picture_has_every_name_and_relation_and_is_always_the_same() -> None:
    triples = [("Anna", "likes", "Bob"), ("Bob", "likes", "Anna"), ("Anna", "knows", "Bob"), ("<b>", "is", "<b>")]
    graph = graph_of(*triples)
    root = ET.fromstring(graph._repr_svg_())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"Anna", "Bob", "<b>", "likes", "is", "likes, knows"} == set(texts)
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert graph._repr_svg_() == graph_of(*triples)._repr_svg_()


def test_a_large_graph_is_drawn_by_its_busiest_entities_and_an_empty_one_as_nothing() -> None:
    graph = graph_of(*[("Hub", "has", f"x{n}") for n in range(120)])
    root = ET.fromstring(graph._repr_svg_())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "Hub" in texts
    assert "80 of 121 entities" in texts
    assert list(ET.fromstring(MemoryGraph()._repr_svg_()).iter(f"{SVG}circle")) == []
    # Long names are cut, and told in full beside it.
    root = ET.fromstring(graph_of(("x" * 100, "is", "y"))._repr_svg_())
    assert "x" * 31 + "…" in [element.text for element in root.iter(f"{SVG}text")]
    assert "x" * 100 in [element.text for element in root.iter(f"{SVG}title")]


@dataclass
class Node:
    id: Any
    type: str = "Node"
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass
class Relationship:
    source: Any
    target: Any
    type: Any
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass
class Document:
    page_content: Any = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


@dataclass
class GraphDocument:
    nodes: Any
    relationships: Any
    source: Any = None


def test_a_graph_document_is_a_turn_and_facts_that_cite_it() -> None:
    anna, city = Node("Anna", "Person", {"age": 30, "nicknames": ["Ann", "Anni"]}), Node("Berlin", "City")
    document = GraphDocument(
        [anna, city],
        [Relationship(anna, city, "LIVES_IN", {"since": 2020})],
        Document("Anna, 30, is in Berlin.", {"page": 1}, "d1"),
    )
    turn, facts = from_graph_document(document)
    assert (turn.text, turn.role, turn.id, turn.metadata) == ("Anna, 30, is in Berlin.", "document", "d1", {"page": 1})
    assert [(fact.text, fact.triples) for fact in facts] == [
        ("Anna age 30", (Triple("Anna", "age", "30"),)),
        ("Anna nicknames Ann", (Triple("Anna", "nicknames", "Ann"),)),
        ("Anna nicknames Anni", (Triple("Anna", "nicknames", "Anni"),)),
        ("Anna lives in Berlin", (Triple("Anna", "LIVES_IN", "Berlin"),)),
    ]
    assert facts[3].metadata == {"since": 2020, "source_type": "Person", "destination_type": "City"}
    assert {fact.turns for fact in facts} == {(0,)}


def test_mappings_numbers_and_documents_without_a_source_are_read_too() -> None:
    turn, facts = from_graph_document(
        {"nodes": [{"id": 1}], "relationships": [{"source": {"id": 1}, "target": "二", "type": "knows"}]}
    )
    assert facts[0].triples == (Triple("1", "knows", "二"),)
    assert turn.text == "1 knows 二"
    assert turn.id is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "list of nodes"),
        ("text", "list of nodes"),
        (GraphDocument([], None), "list of relationships"),
        (GraphDocument([], []), "empty"),
        (GraphDocument([Node("")], []), r"nodes\[0\].id"),
        (GraphDocument([Node(None)], []), r"nodes\[0\].id"),
        (GraphDocument([], [Relationship(Node("a"), Node(" "), "x")]), r"relationships\[0\].target.id"),
        (GraphDocument([], [Relationship(Node("a"), None, "x")]), r"relationships\[0\].target.id"),
        (GraphDocument([], [Relationship(Node("a"), Node("b"), None)]), r"relationships\[0\].type"),
        (GraphDocument([Node("a", properties={"b": {"c": 1}})], []), r"nodes\[0\].properties\['b'\]"),
        (GraphDocument([Node("a", properties={"b": object()})], []), "JSON"),
        (GraphDocument([], [Relationship(Node("a"), Node("b"), "x", {"y": {1}})]), "JSON"),
        (GraphDocument([], [Relationship(Node("a"), Node("b"), "x", [1])]), "no mapping"),  # type: ignore[arg-type]
        (GraphDocument([], [], Document(page_content=b"x")), "page_content"),
        (GraphDocument([], [], Document(page_content="a \ud800")), "page_content holds a lone surrogate"),
        (GraphDocument([], [Relationship(Node("a"), Node("b"), "x\x00")]), r"relationships\[0\].type holds a NUL"),
        (GraphDocument([], [], Document("x", [1])), "no mapping"),  # type: ignore[arg-type]
    ],
)
def test_another_shape_is_an_error_that_names_the_place(document: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_graph_document(document)
