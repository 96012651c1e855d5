"""VikingDB (Volcano Engine, BytePlus) as a LangChain vector store; it needs nothing else of this package."""

from __future__ import annotations

from langchain_memlayer.vikingdb.store import VikingDBVectorStore

__all__ = ["VikingDBVectorStore"]
