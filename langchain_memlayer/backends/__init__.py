"""Any LangChain VectorStore as a generator of candidates.

base.py       what is asked of a store, and what its adapters share
generic.py    any store; those in this process, and VikingDB
chroma.py     qdrant.py, milvus.py, pgvector.py: stores with an interface of their own
mirror.py     the outbox by which a store is brought what was committed
proposals.py  its candidates, and how far they are believed
"""
