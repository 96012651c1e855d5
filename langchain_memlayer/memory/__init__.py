"""`Memory`: the facade.

facade.py    opening and closing, settings, `from_config`, what LangChain and LangGraph are given
writing.py   add, read, extract, reconcile, adopt, update, delete, delete_all, forget, reset, flush
reading.py   search, get, get_all, history, why, graph
adopting.py  documents that a vector store has already
bound.py     a memory whose scope is filled in
checks.py    what arguments are accepted
"""

from langchain_memlayer.memory.facade import Memory

__all__ = ["Memory"]
