"""Which memories answer a query: pure functions over arrays, without a journal or an index.

pool.py           what is known of the memories that are scored
signals.py        what each signal gives each of them
identifiers.py    what a query names exactly
versions.py       which version of a value it asks for
dates.py          the time that a question speaks of
date_words.py     by which words it is told to speak of one, or of a version
date_reading.py   where it speaks of which; date_patterns.py how times are said
calibration.py    which scripts an embedder knows
learned.py        trees over the signals, for conversations
fusion.py         signals -> score, relevance, order
"""

from langchain_memlayer.recall.calibration import PROBES, closeness, fluency_in, knowledge_of, skill_in, trust_in
from langchain_memlayer.recall.fusion import Ranking, Scored, Weights, base_shares, best, is_eligible, rank, scored
from langchain_memlayer.recall.identifiers import identifiers, is_word
from langchain_memlayer.recall.pool import Pool, Query, Spread, asking, following, memory_text, together
from langchain_memlayer.recall.signals import session_prior
from langchain_memlayer.recall.versions import others, subject_of, wanted_version

__all__ = [
    "PROBES",
    "Pool",
    "Query",
    "Ranking",
    "Scored",
    "Spread",
    "Weights",
    "asking",
    "base_shares",
    "best",
    "closeness",
    "fluency_in",
    "following",
    "identifiers",
    "is_eligible",
    "is_word",
    "knowledge_of",
    "memory_text",
    "others",
    "rank",
    "scored",
    "session_prior",
    "skill_in",
    "subject_of",
    "together",
    "trust_in",
    "wanted_version",
]
