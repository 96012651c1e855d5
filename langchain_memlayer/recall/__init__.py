"""Which memories answer a query: pure functions over arrays, without a journal or an index.

pool.py         what is known of the memories that are scored
signals.py      what each signal gives each of them
dates.py        the time that a question speaks of
calibration.py  how far an embedder's cosines spread when it understands the texts
fusion.py       signals -> score, relevance, order
"""

from langchain_memlayer.recall.calibration import PROBES, spread_of, trust_in
from langchain_memlayer.recall.fusion import Ranking, Weights, rank
from langchain_memlayer.recall.pool import Pool, Query, Spread, Terms, memory_text

__all__ = [
    "PROBES",
    "Pool",
    "Query",
    "Ranking",
    "Spread",
    "Terms",
    "Weights",
    "memory_text",
    "rank",
    "spread_of",
    "trust_in",
]
