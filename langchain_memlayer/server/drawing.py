"""A graph as a drawing: where its nodes stand, and the lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot
from typing import Any, Final

_LONGEST_LABEL: Final = 24
_MARGIN: Final = 80


def size(count: int) -> tuple[int, int]:
    """The width and height of a drawing: small ones fit a phone."""
    return (340, 340) if count <= 6 else (840, 600) if count <= 25 else (1200, 900)


def spots(
    places: Mapping[str, tuple[float, float]], width: int, height: int, degrees: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Where each node is drawn: the places, stretched over the whole drawing."""
    xs, ys = _stretched([x for x, _ in places.values()]), _stretched([y for _, y in places.values()])
    return {
        name: {
            "name": name,
            "label": _short(name),
            "x": round(_MARGIN + x * (width - 2 * _MARGIN), 1),
            "y": round(_MARGIN / 2 + y * (height - _MARGIN), 1),
            "size": min(16, 7 + degrees[name]),
        }
        for name, x, y in zip(places, xs, ys, strict=True)
    }


def _stretched(values: Sequence[float]) -> list[float]:
    """Numbers as they lie between the least and the largest, from 0 to 1."""
    least, most = min(values, default=0.0), max(values, default=0.0)
    return [(value - least) / (most - least) if most > least else 0.5 for value in values]


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…"


def lines(spots: Mapping[str, Mapping[str, Any]], edges: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The relations of each pair as one bent line, so that both directions are seen."""
    told: dict[tuple[str, str], list[str]] = {}
    for edge in edges:
        told.setdefault((edge["source"], edge["destination"]), []).append(edge["relation"].replace("_", " "))
    lines = []
    for (one, other), relations in told.items():
        start, end, names = spots[one], spots[other], list(dict.fromkeys(relations))
        label = names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"
        x1, y1, x2, y2 = start["x"], start["y"], end["x"], end["y"]
        if one == other:
            path, x, y = f"M{x1} {y1}c-45 45 45 45 0 0", x1, y1 + 44
        else:
            away = (end["size"] + 4) / max(1.0, hypot(x2 - x1, y2 - y1))
            x, y = (x1 + x2) / 2 + (y2 - y1) / 10, (y1 + y2) / 2 - (x2 - x1) / 10
            path = f"M{x1} {y1}Q{x:.1f} {y:.1f} {x2 - (x2 - x) * away * 1.6:.1f} {y2 - (y2 - y) * away * 1.6:.1f}"
            x, y = (x1 + 2 * x + x2) / 4, (y1 + 2 * y + y2) / 4
        lines.append({"path": path, "x": round(x, 1), "y": round(y, 1), "label": _short(label)})
    return lines
