"""The graph: triples of live memories as a NetworkX graph for each scope, a cache of the journal.

    names.py      which spellings are one name, which names one entity
    edges.py      a triple in the journal, and as an edge
    networkx.py   TripleGraph: follows the journal; MemoryGraph: the copy that users get
    reading.py    what is read out of a TripleGraph
    ranking.py    what is near: k-hop and local push
    snapshot.py   the graph as plain data
    export.py     pictures, GraphML, GraphDocuments

NetworkX is imported with `graph.networkx`, not with this package.
"""

from __future__ import annotations

from langchain_memlayer.graph.export import from_graph_document
from langchain_memlayer.graph.names import Name, merge, read_name, relation_name

__all__ = ["Name", "from_graph_document", "merge", "read_name", "relation_name"]
