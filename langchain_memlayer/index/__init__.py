"""Caches of the journal, in memory and on disk: slabs of vectors, HNSW graphs, keywords, and their files."""
