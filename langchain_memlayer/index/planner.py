"""Which way a search goes, and what upkeep a slab needs: the measured rules, as pure functions of a few numbers.

```
no graph, or rows * dims <= threshold : exact scan (mask when more than 20 % is kept, else gather)
matches * dims <= 1e6                 : exact gather
else                                  : HNSW with K = ef = max(128, 4k), 256 above 200k rows; no selector; mask after;
                                        accepted iff survivors >= max(2k, K/4), else exact
```
One refinement: where a large k makes `ef` so large that walking the graph costs more than scanning the slab (measured:
from about one candidate in 64 rows), the scan is taken. It is quicker there, and exact. A foreign store takes longer to
answer than a graph: there it is one in 512 rows, and a gather goes on to a quarter of the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Way = Literal["empty", "scan", "gather", "hnsw", "source"]
"""How rows are found: not at all, by scanning every row or only the matching ones, by the graph, by a foreign store."""

GATHER_LIMIT = 1_000_000
_MASK_SHARE = 0.2
_DEAD_SHARE = 0.2
_MANY_ROWS = 200_000
_FEW_ASKED = 128
_MANY_ASKED = 256
_SCAN_RATIO = 64
_FOREIGN_RATIO = 512
_SMALLEST_DELTA = 512
_WIDEST = 4_096


@dataclass(frozen=True, slots=True)
class Plan:
    """What a search did.

    Attributes:
        way: How the rows of the answer were found.
        scanned: Rows whose score was computed outside of the graph.
        candidates: Rows that the graph, or a foreign store, was asked for.
        survivors: Those of them that were live and in the mask.
        fell_back: True when the candidates were too few, or there were none, and an exact way was taken.
    """

    way: Way
    scanned: int = 0
    candidates: int = 0
    survivors: int = 0
    fell_back: bool = False


def exact_way(rows: int, matches: int) -> Way:
    """How to look at `matches` of `rows` rows exactly."""
    if not matches:
        return "empty"
    return "scan" if matches > _MASK_SHARE * rows else "gather"


def choose(*, rows: int, dims: int, matches: int, k: int, graph: bool, threshold: int, foreign: bool = False) -> Way:
    """The way to begin with; `foreign` says that a store stands for the graph."""
    if not graph or rows * dims <= threshold or not matches:
        return exact_way(rows, matches)
    # A threshold set lower than the measured one (4e6) takes this limit along, so that the graph is used at all.
    if matches * dims <= (threshold // 4 if foreign else min(GATHER_LIMIT, threshold // 4)):
        return "gather"
    asked = candidates(rows, k)
    if asked > _MANY_ASKED and asked * (_FOREIGN_RATIO if foreign else _SCAN_RATIO) > rows:
        return exact_way(rows, matches)
    return "hnsw"


def candidates(rows: int, k: int) -> int:
    """How many candidates to ask a graph over `rows` rows for; it is `efSearch` too."""
    return max(_MANY_ASKED if rows > _MANY_ROWS else _FEW_ASKED, 4 * k)


def wider(asked: int, k: int) -> int | None:
    """How many candidates to ask a foreign store for next, when `asked` were too few; None for no more."""
    more = 4 * asked
    return more if more <= max(_WIDEST, 16 * k) else None


def accepts(survivors: int, k: int, asked: int) -> bool:
    """Whether enough of the `asked` candidates survived the mask for the `k` best to be among them."""
    return survivors >= max(2 * k, asked / 4)


def wants_graph(rows: int, dims: int, threshold: int) -> bool:
    """Whether a slab of that size gets a graph."""
    return rows * dims > threshold


def wants_feeding(graph_rows: int, rows: int) -> bool:
    """Whether the rows beside the graph are so many that they should go into it."""
    return rows - graph_rows >= max(_SMALLEST_DELTA, graph_rows // 50)


def wants_compaction(rows: int, dead: int) -> bool:
    """Whether so many rows are dead that the slab, and its graph, should be written anew without them."""
    return dead > _DEAD_SHARE * rows
