"""The only place that knows the order of steps: how messages become memories, and how a query finds them again.

keep.py          Keeper: turns that are durable before any model is asked, with a note of what is unread
read.py          Engine: from kept turns to committed facts
halves.py        its two halves as calls of their own, extraction and reconciliation
background.py    Background: facts that are found beside the caller
candidates.py    what new facts may change
commit.py        what one transaction does with turns and decisions
edit.py          Editor: update, delete, forget, reset
profiles.py      Profiles: one validated object for each user, which follows the facts
past.py          what became of a scope between two instants, and undo
replay.py        kept turns read again by another extractor
forks.py         copies of a scope to try something in
adopting.py      documents that a vector store has already
search.py        Searcher: the read path
scoring_pool.py  what a search scores
answers.py       whole searches, as callers get them, within a token budget
lookup.py        Lookup: what is read without a query: a memory, a list, history, reasons
index_sync.py    the slabs of a folder, kept up with its journal; which embedder wrote their vectors
graph_sync.py    the graphs of a folder, likewise
texts.py         what is embedded and indexed of a turn or a fact
records.py       a stored memory as filters, callers and the extractor see it
results.py       what callers get back
"""
