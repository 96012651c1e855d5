"""Caches of the journal, in memory and on disk: slabs of vectors, HNSW graphs, keywords, and their files.

slab.py      one namespace prefix: rows, hot columns, vectors and words, caught up from the journal
view.py      one state of a slab, and the planner of a search in it
rows.py      the rows of a slab in order; growing.py the arrays that they are kept in
kernel.py    exact scores of a query
hnsw.py      the graph of a large slab
keywords.py  terms of a text or a query, and BM25
function_words.py  words that say little, and the language that they tell
postings.py  which terms each text has, and which texts have each term
spelling.py  words that are a slip of the fingers away
lru.py       the slabs in memory
snapshot.py  a slab's rows as bytes; files.py generations of derived files
"""
