"""The graph: triples of live memories, for each scope a graph that is a cache of the journal.

    names.py         when two spellings mean the same
    memory_graph.py  TripleGraph: all of a scope, and its snapshots; MemoryGraph: the copy that users get
    ranking.py       what is near: k-hop and local push
    export.py        pictures, GraphML, GraphDocuments

NetworkX is imported with `graph.memory_graph`, not with this package.
"""
