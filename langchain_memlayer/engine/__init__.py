"""The only place that knows the order of steps: how messages become memories, and how a query finds them again.

steps.py       a step as a generator of requests, driven plainly or awaited
indexes.py     the slabs of a folder, kept up with its journal
graphs.py      the graphs of a folder, likewise
scopes.py      scopes in the journal
texts.py       what is embedded and indexed of a turn or a fact
candidates.py  what new facts may change
commit.py      what one transaction does with turns and decisions
writing.py     Engine: the write path
background.py  Background: facts that are found beside the caller
editing.py     Editor: update, delete, forget, reset
reading.py     Searcher: the read path
shaping.py     token budget, and what was said around a hit
records.py     a memory as filters and callers see it
results.py     what callers get back
"""
