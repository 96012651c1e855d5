"""Vectors: slabs with exact scans and HNSW graphs (FAISS), caches of the journal."""

from __future__ import annotations

from langchain_memlayer.vectors.cache import SlabCache
from langchain_memlayer.vectors.planner import Plan
from langchain_memlayer.vectors.slab import Slab
from langchain_memlayer.vectors.view import Hits, View

__all__ = ["Hits", "Plan", "Slab", "SlabCache", "View"]
