import random
from collections.abc import Iterable

import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_memlayer.graph.ranking import RESTART, k_hop, local_push


class Adjacency(dict[str, list[str]]):
    """An undirected graph as lists of neighbours that counts its edges when they are walked."""

    def __init__(self, edges: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self.walked = 0
        for one, other in edges:
            self.setdefault(one, []).append(other)
            self.setdefault(other, []).append(one)

    def next_to(self, node: str) -> Iterable[str]:
        for other in self[node]:
            self.walked += 1
            yield other

    def degree(self, node: str) -> int:
        return len(self[node])


def grid(n: int, seed: int = 0, size: int = 40) -> Adjacency:
    rng = random.Random(seed)
    return Adjacency([(f"n{rng.randrange(size)}", f"n{rng.randrange(size)}") for _ in range(n)])


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_k_hop_agrees_with_networkx(k: int) -> None:
    graph = grid(60)
    seed = next(iter(graph))
    expected = networkx.single_source_shortest_path_length(networkx.Graph(dict(graph)), seed, cutoff=k)
    assert k_hop(graph.next_to, [seed], k=k, most=1000) == expected


def test_k_hop_returns_the_nearest_when_there_are_too_many() -> None:
    star = Adjacency([("hub", f"n{i}") for i in range(1000)] + [("hub", "x"), ("x", "y")])
    assert len(k_hop(star.next_to, ["hub"], k=2, most=50)) == 50
    assert star.walked <= 100
    assert k_hop(star.next_to, ["y", "x"], k=1, most=1) == {"y": 0}
    assert k_hop(star.next_to, [], k=2, most=5) == {}


def test_local_push_comes_near_to_pagerank() -> None:
    graph = grid(120)
    exact = pagerank(graph, "n1")
    found = local_push(graph.next_to, graph.degree, ["n1"], eps=1e-6)
    assert max(abs(found.get(node, 0.0) - exact[node]) for node in exact) < 1e-3
    assert sorted(found, key=found.__getitem__)[-5:] == sorted(exact, key=exact.__getitem__)[-5:]


def pagerank(graph: Adjacency, seed: str) -> dict[str, float]:
    """Personalised PageRank by iteration until nothing moves."""
    weights = {node: float(node == seed) for node in graph}
    for _ in range(500):
        fresh = {node: RESTART * (node == seed) for node in graph}
        for node, others in graph.items():
            for other in others:
                fresh[other] += (1 - RESTART) * weights[node] / len(others)
        weights = fresh
    return weights


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1e-2, 1e-3]))
def test_local_push_gives_at_most_one_and_walks_a_bounded_number_of_edges(seed: int, eps: float) -> None:
    graph = grid(400, seed, size=200)
    found = local_push(graph.next_to, graph.degree, ["n1", "n2"] if "n1" in graph and "n2" in graph else [], eps=eps)
    assert sum(found.values()) <= 1 + 1e-9
    assert graph.walked <= 1 / (eps * RESTART)


def test_what_is_next_to_almost_everything_tells_nothing() -> None:
    star = Adjacency([("hub", f"n{i}") for i in range(2000)])
    assert local_push(star.next_to, star.degree, ["hub"], eps=1e-3) == {}
    assert star.walked == 0


def test_a_lone_seed_keeps_its_share_and_none_gives_none() -> None:
    assert local_push(lambda node: [], lambda node: 0, ["a"]) == {"a": RESTART}
    assert local_push(lambda node: [], lambda node: 0, []) == {}
