"""How long a scope's graph takes to be there: from the journal's rows, and from a snapshot. CPU time of one process."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from langchain_memlayer.graph.memory_graph import TripleGraph
from langchain_memlayer.graph.names import read_name, relation_name


def run(sizes: list[int], note: Callable[[str], None]) -> Iterator[str]:
    yield "| triples | read from the journal | from rows without keys | dumped | from a snapshot | snapshot |"
    yield "|---|---|---|---|---|---|"
    for size in sizes:
        rows = list(_rows(size))
        bare, _ = _timed(lambda rows=rows: _applied([row[:7] for row in rows]))
        keyed, graph = _timed(lambda rows=rows: _applied(rows))
        dumped, payload = _timed(graph.dump)
        del graph
        loaded, again = _timed(lambda payload=payload: TripleGraph.load(payload))
        note(f"{len(again)} triples")
        times = " | ".join(f"{seconds:.2f} s" for seconds in (keyed, bare, dumped, loaded))
        yield f"| {size:,} | {times} | {len(payload) / 1e6:.1f} MB |"


def _rows(size: int) -> Iterator[tuple[Any, ...]]:
    """Triples of a fifth as many people and places, as the journal has them."""
    rng = random.Random(0)
    for number in range(1, size + 1):
        person = f"Person{rng.randrange(size // 5)} Smith{rng.randrange(50)}"
        place = f"Place{rng.randrange(size // 5)}"
        keys = read_name(person).key, read_name(place).key
        yield (number, number, f"m{number}", person, "lives in", place, None, *keys)


def _applied(rows: list[tuple[Any, ...]]) -> TripleGraph:
    # What was read before is not to be found again in their caches.
    read_name.cache_clear()
    relation_name.cache_clear()
    graph = TripleGraph()
    graph.apply(1, rows)
    return graph


def _timed(what: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    began = time.process_time()
    made = what()
    return time.process_time() - began, made
