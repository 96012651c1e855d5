"""What lies near some nodes of a graph: by steps, and by personalised PageRank without visiting the rest.

Both read nothing but the neighbours of the nodes that they visit, so their cost does not grow with the graph. (Of
100,000 edges `nx.ego_graph` and `nx.pagerank` need half a second and more.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

Neighbours = Callable[[str], Iterable[str]]

RESTART = 0.15
"""How likely a walk returns to its seeds at each step."""


def k_hop(neighbours: Neighbours, seeds: Iterable[str], *, k: int, most: int) -> dict[str, int]:
    """The nodes within `k` steps of the seeds and how many steps each is away, nearest first.

    Args:
        neighbours: The nodes next to a node, the most telling first.
        seeds: Where to begin.
        k: Steps.
        most: How many nodes to return at most, and how many neighbours to look at of each.
    """
    distance = dict.fromkeys(islice(seeds, most), 0)
    frontier = list(distance)
    for step in range(1, k + 1):
        if len(distance) >= most:
            break
        reached: list[str] = []
        for node in frontier:
            for other in islice(neighbours(node), most):
                if len(distance) >= most:
                    return distance
                if other not in distance:
                    distance[other] = step
                    reached.append(other)
        frontier = reached
    return distance


def local_push(
    neighbours: Neighbours, degree: Callable[[str], int], seeds: Iterable[str], *, eps: float = 1e-3
) -> dict[str, float]:
    """Personalised PageRank around the seeds, as far as it can be told by looking at their surroundings only.

    Andersen, Chung & Lang (2006), "Local Graph Partitioning using PageRank Vectors": what has not settled at a node is
    pushed on to its neighbours while it is at least `eps` for each of its edges; first in, first out. The work is at
    most 1 / (eps * RESTART) edges, whatever the size of the graph. Their walk is lazy; ours is not, which changes
    only the meaning of RESTART.

    Args:
        neighbours: The nodes next to a node, one for each of its edges.
        degree: How many those are, without walking through them.
        seeds: Where walks begin, each as often as it is named.
        eps: How much may stay unsettled for each edge.

    Returns:
        The nodes that got something, at most 1 altogether. Seeds with more than 1 / eps edges get nothing: what is next
        to almost everything tells nothing.
    """
    starts = list(seeds)
    settled: dict[str, float] = {}
    waiting: dict[str, float] = {}
    for seed in starts:
        waiting[seed] = waiting.get(seed, 0.0) + 1 / len(starts)
    queue = deque(waiting)
    queued = set(waiting)
    while queue:
        node = queue.popleft()
        queued.discard(node)
        edges = degree(node)
        if waiting[node] < eps * max(edges, 1):
            continue
        left = waiting.pop(node)
        settled[node] = settled.get(node, 0.0) + RESTART * left
        if not edges:
            continue
        share = (1 - RESTART) * left / edges
        for other in neighbours(node):
            waiting[other] = waiting.get(other, 0.0) + share
            if other not in queued and waiting[other] >= eps:
                queued.add(other)
                queue.append(other)
    return settled
