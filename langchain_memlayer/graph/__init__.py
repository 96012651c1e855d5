"""The graph: triples of live memories, for each scope a graph that is a cache of the journal.

    edges.py      a triple in the journal, and as an edge
    reading.py    what is read out of a graph
    networkx.py   TripleGraph: all of a scope in memory; MemoryGraph: the copy that users get
    sql.py        SQLGraph: what a read visits, asked of the database
    ranking.py    what is near: k-hop and local push
    snapshot.py   the graph as plain data
    export.py     pictures, GraphML, GraphDocuments

NetworkX is imported with `graph.networkx`, not with this package.
"""

from __future__ import annotations

from langchain_memlayer.graph.export import from_graph_document

__all__ = ["from_graph_document"]
