"""The only place that knows the order of steps: how messages become memories, and how a query finds them again.

steps.py     a step as a generator of requests, driven plainly or awaited
indexes.py   the slabs of a folder, kept up with its journal
commit.py    what one transaction does with turns and decisions
writing.py   Engine: the write path
reading.py   Searcher: the read path
"""
