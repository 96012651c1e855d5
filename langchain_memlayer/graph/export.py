"""A graph's picture and its GraphML texts, and GraphDocuments read as turns and facts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.graph.names import relation_name
from langchain_memlayer.json_values import field_of, plain
from langchain_memlayer.messages import checked_text
from langchain_memlayer.types import Fact, Triple, Turn

_WIDTH, _HEIGHT, _MARGIN = 900, 600, 60
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LONGEST_LABEL = 32

# -- pictures and files -----------------------------------------------------------------------------------------------


def xml_text(value: Any) -> str:
    """A value as text that XML can hold; what it cannot becomes a space."""
    return _NOT_XML.sub(" ", str(value))


def xml_attributes(data: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as GraphML can hold them: numbers and texts; None is left out."""
    return {
        xml_text(name): value if isinstance(value, (bool, int, float)) else xml_text(value)
        for name, value in data.items()
        if value is not None
    }


def draw(
    places: Mapping[str, tuple[float, float]], lines: Mapping[tuple[str, str], Sequence[str]], *, caption: str = ""
) -> str:
    """A picture as SVG.

    Args:
        places: Where each node is, both coordinates from -1 to 1.
        lines: The relations of each pair of nodes, from the first to the second.
        caption: A line below.
    """
    spots = {
        node: (_MARGIN + (x + 1) / 2 * (_WIDTH - 2 * _MARGIN), _MARGIN + (y + 1) / 2 * (_HEIGHT - 2 * _MARGIN))
        for node, (x, y) in places.items()
    }
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        'font-family="sans-serif" font-size="12">',
        '<defs><marker id="to" viewBox="0 0 10 10" refX="16" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 10 5 0 10z" fill="#888"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for (source, destination), relations in lines.items():
        parts += _line(spots[source], spots[destination], ", ".join(dict.fromkeys(relations)))
    for node, (x, y) in spots.items():
        label = escape(_short(xml_text(node)))
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="#3b6fb6"><title>{escape(xml_text(node))}</title></circle>'
        )
        parts.append(f'<text x="{x:.1f}" y="{y - 10:.1f}" text-anchor="middle" fill="#111">{label}</text>')
    if caption:
        parts.append(f'<text x="{_MARGIN}" y="{_HEIGHT - 10}" fill="#666">{escape(caption)}</text>')
    return "".join((*parts, "</svg>"))


def _line(start: tuple[float, float], end: tuple[float, float], relations: str) -> list[str]:
    (x1, y1), (x2, y2) = start, end
    label = escape(_short(xml_text(relations)))
    if start == end:
        path = f"M{x1:.1f} {y1:.1f}c-40 40 40 40 0 0"
        x, y = x1, y1 + 40
    else:
        # Bent to one side, so that both directions of a pair are seen.
        x, y = (x1 + x2) / 2 + (y2 - y1) / 12, (y1 + y2) / 2 - (x2 - x1) / 12
        path = f"M{x1:.1f} {y1:.1f}Q{x:.1f} {y:.1f} {x2:.1f} {y2:.1f}"
        x, y = (x1 + 2 * x + x2) / 4, (y1 + 2 * y + y2) / 4
    return [
        f'<path d="{path}" fill="none" stroke="#bbb" marker-end="url(#to)"/>',
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" font-size="10" fill="#777">{label}</text>',
    ]


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


# -- graph documents --------------------------------------------------------------------------------------------------


def from_graph_document(document: Any) -> tuple[Turn, tuple[Fact, ...]]:
    """A GraphDocument of any package as the turn that its source is and the facts that cite it.

    Each relationship is a fact with one triple and the relationship's properties as metadata, and so is each property
    of a node. A relationship's ends have their types as `source_type` and `destination_type` in the metadata. Without a
    source text the turn has the facts' own.

    Args:
        document: An object (or mapping) with `nodes` (`id`, `type`, `properties`), `relationships` (`source`, `target`,
            `type`, `properties`) and `source` (`page_content`, `metadata`, perhaps `id`).

    Raises:
        InvalidInput: It has another shape, or values that JSON does not have; the message names the place.
    """
    facts = []
    for at, node in enumerate(_listed(document, "nodes")):
        name, where = _entity(node, f"nodes[{at}]"), f"nodes[{at}].properties"
        for key, value in _properties(node, where).items():
            values = value if isinstance(value, list) else [value]
            facts += [_fact(name, key, _scalar(single, f"{where}[{key!r}]"), {}) for single in values]
    for at, relationship in enumerate(_listed(document, "relationships")):
        where = f"relationships[{at}]"
        source, target = field_of(relationship, "source"), field_of(relationship, "target")
        kind = _text(field_of(relationship, "type"), f"{where}.type")
        types = {"source_type": field_of(source, "type"), "destination_type": field_of(target, "type")}
        metadata = _properties(relationship, f"{where}.properties") | {
            name: value for name, value in types.items() if isinstance(value, str) and value
        }
        facts.append(_fact(_entity(source, f"{where}.source"), kind, _entity(target, f"{where}.target"), metadata))
    return _source(field_of(document, "source"), facts), tuple(facts)


def _source(source: Any, facts: Sequence[Fact]) -> Turn:
    text = field_of(source, "page_content")
    if text is not None and not isinstance(text, str):
        raise InvalidInput(f"The graph document's source.page_content is a {type(text).__name__}; give its text.")
    if not text or not text.strip():
        text = "\n".join(fact.text for fact in facts)
    if not text:
        raise InvalidInput(
            "The graph document is empty: it has neither relationships nor properties nor a source text."
        )
    text = checked_text(text, "source.page_content")
    metadata = plain(field_of(source, "metadata") or {}, "source.metadata")
    if not isinstance(metadata, dict):
        raise InvalidInput("The graph document's source.metadata is no mapping; give a dict of JSON values.")
    source_id = field_of(source, "id")
    return Turn(text, role="document", id=None if source_id is None else str(source_id), metadata=metadata)


def _fact(source: str, relation: str, destination: str, metadata: Mapping[str, Any]) -> Fact:
    text = f"{source} {relation_name(relation).replace('_', ' ')} {destination}"
    return Fact(text, turns=(0,), triples=(Triple(source, relation, destination),), metadata=metadata)


def _listed(document: Any, name: str) -> Sequence[Any]:
    entries = field_of(document, name)
    if not isinstance(entries, (list, tuple)):
        raise InvalidInput(
            f"A graph document has a list of {name}, but this {type(document).__name__} has none; give objects such as "
            "langchain_community.graphs.graph_document.GraphDocument."
        )
    return entries


def _properties(thing: Any, where: str) -> dict[str, Any]:
    properties = plain(field_of(thing, "properties") or {}, where)
    if not isinstance(properties, dict):
        raise InvalidInput(f"{where} is no mapping; give a dict of JSON values.")
    return properties


def _entity(node: Any, where: str) -> str:
    entity_id = node if isinstance(node, (str, int)) else field_of(node, "id")
    return _text(str(entity_id) if isinstance(entity_id, int) else entity_id, f"{where}.id")


def _scalar(value: Any, where: str) -> str:
    if isinstance(value, (dict, list)) or value is None:
        raise InvalidInput(
            f"{where} is a {type(value).__name__}; a node's property is a text, a number or a list of these."
        )
    return _text(str(value), where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidInput(f"{where} of the graph document is {shown(value)}; give a text that is not empty.")
    return checked_text(value.strip(), where)
