"""Moving a store: to a file and back, between SQLite and PostgreSQL, from other programs, and to another embedder.

export.py      a store <-> a file
databases.py   other programs' SQLite files
mem0_files.py  what mem0 leaves on a disk
mem0.py        an installation of mem0's -> memories
langgraph.py   any LangGraph store -> items
reembedding.py a store's vectors -> those of another embedder
"""

from __future__ import annotations

from langchain_memlayer.moving.export import export_store, import_store
from langchain_memlayer.moving.langgraph import import_langgraph, import_langgraph_sqlite
from langchain_memlayer.moving.mem0 import import_mem0
from langchain_memlayer.moving.reembedding import reembed_store

__all__ = [
    "export_store",
    "import_langgraph",
    "import_langgraph_sqlite",
    "import_mem0",
    "import_store",
    "reembed_store",
]
