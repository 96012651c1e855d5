"""`Memory`: the facade.

facade.py   opening and closing, settings, `from_config`
writing.py  add, update, delete, delete_all, forget, reset, flush
reading.py  search, get, get_all, history, why, graph
checks.py   what arguments are accepted
results.py  what callers get back
"""

from langchain_memlayer.memory.facade import Memory

__all__ = ["Memory"]
