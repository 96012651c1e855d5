"""What each signal gives each memory of a pool; zeros where it has nothing to say."""

from __future__ import annotations

import re

import numpy as np

from langchain_memlayer.index.keywords import bm25, is_character
from langchain_memlayer.recall.calibration import closeness
from langchain_memlayer.recall.dates import agreement, periods
from langchain_memlayer.recall.pool import Pool, Query, Scores
from langchain_memlayer.types import ALSO_ASKS

BRIDGES = 5
BRIDGE_TERMS = 12
WINDOW_B = 0.6
"""How much a text's length counts in BM25 over windows."""
SHORT = 30
"""Terms of a turn that still needs what stands around it to be understood; a longer one stands for itself."""
SAYING = 0.3
"""The share of what a query's words could attain that makes the best text a good answer by its words."""
SAYING_TOGETHER = 0.2
"""The same where turns belong together, and one leaves to its neighbours what the question has to say."""
HAPPENS = 1.5
"""What happens at a time counts against what was said then."""


def relevance(pool: Pool) -> Scores:
    """Cosine (see `closeness`), or BM25 as a share of what the query could attain, whichever is higher; 0 to 1."""
    best = pool.keyword / pool.keyword_ceiling if pool.keyword_ceiling > 0 else np.zeros(len(pool), np.float32)
    if pool.dense is not None:
        best = np.fmax(best, closeness(pool.dense, pool.metric))
    clipped: Scores = np.clip(best, 0.0, 1.0).astype(np.float32)
    return clipped


def is_conversation(pool: Pool) -> bool:
    """Whether several people who are named speak in sessions."""
    return len(pool.speakers) > 1 and len(pool.following[0]) > 0


def saying(pool: Pool) -> float:
    """How far words answer a query, from 0 to 1: 0 where no text has any, 1 where one has a good part of them."""
    if pool.keyword_full_ceiling <= 0:
        return 0.0
    enough = SAYING + (SAYING_TOGETHER - SAYING) * pool.together
    return min(1.0, pool.keyword_spread.high / pool.keyword_full_ceiling / enough)


def brevity(pool: Pool) -> float:
    """How far the turns of a scope are too short to stand for themselves, up to 1."""
    lengths = pool.terms.lengths[pool.is_turn]
    return min(1.0, SHORT / max(float(lengths.mean()), 1.0)) if len(lengths) else 1.0


def windowed(pool: Pool, query: Query, share: float) -> Scores:
    """BM25 where a turn has its own words and a `share` of those of the turns just before and after."""
    counts, lengths = pool.counts, pool.terms.lengths
    before, after = pool.following
    wide, long = counts.astype(np.float32), lengths.astype(np.float32)
    wide[:, after] += share * counts[:, before]
    wide[:, before] += share * counts[:, after]
    long[after] += share * lengths[before]
    long[before] += share * lengths[after]
    return bm25(wide, long, query.frequencies, pool.total, float(long.mean()), query.weights, b=WINDOW_B)


def exact(pool: Pool, query: Query) -> Scores:
    """The share of the query's identifiers and quoted names that a memory has, each by its weight."""
    out = np.zeros(len(pool), np.float32)
    for terms, weight in query.exact:
        out += (pool.terms.counts(terms) > 0).all(axis=0) * np.float32(weight / len(query.exact))
    return out


def neighbour(pool: Pool, base: Scores) -> Scores:
    """The better base score of the turns just before and just after in the same session."""
    out = np.zeros(len(pool), np.float32)
    before, after = pool.following
    out[after] = base[before]
    out[before] = np.maximum(out[before], base[after])
    return out


def linked(pool: Pool, base: Scores) -> Scores:
    """The best base score of a fact's turns, or of a turn's facts."""
    out = np.zeros(len(pool), np.float32)
    if len(pool.links):
        facts, turns = pool.links.T
        np.maximum.at(out, facts, base[turns])
        np.maximum.at(out, turns, base[facts])
    return out


def session_prior(pool: Pool, base: Scores) -> Scores:
    """The mean of the three best base scores of each memory's session; one session is none, since all share it."""
    out = np.zeros(len(pool), np.float32)
    members = np.flatnonzero(pool.session >= 0)
    if not len(members):
        return out
    labels, sessions = np.unique(pool.session[members], return_inverse=True)
    if len(labels) < 2:
        return out
    rest = base[members].copy()
    total = np.zeros(len(labels), np.float32)
    for _ in range(3):
        best = np.zeros(len(labels), np.float32)
        np.maximum.at(best, sessions, rest)
        total += best
        # Each session's best is taken out once; of equal ones the last.
        where = np.zeros(len(labels), np.int64)
        found = np.flatnonzero(rest == best[sessions])
        where[sessions[found]] = found
        rest[where] = 0
    sizes = np.minimum(np.bincount(sessions, minlength=len(labels)), 3)
    out[members] = (total / sizes)[sessions]
    return out


def bridge(pool: Pool, query: Query, base: Scores) -> Scores:
    """How much a memory shares with the best hits beyond the query's own words.

    A question about "the estate I live in" finds the note that names it, and through that name the notes about it.
    Each of the five best hits lends its base score to memories with its rarest terms, by the share of their idf.
    """
    out = np.zeros(len(pool), np.float32)
    # A sort of all would cost more than the rest of it.
    best = np.flatnonzero(base > 0)
    if len(best) > BRIDGES:
        best = best[base[best] >= np.partition(base[best], -BRIDGES)[-BRIDGES]]
    best = best[np.argsort(-base[best], kind="stable")[:BRIDGES]]
    if not len(best) or not len(pool.terms.flat):
        return out
    further = np.zeros(len(pool.terms.ids), np.bool_)
    for index in best.tolist():
        further[pool.terms.of(index)] = True
    further[query.terms] = False
    further_terms = np.flatnonzero(further).astype(np.int32)
    ids = pool.terms.ids[further_terms]
    by_id = np.argsort(ids)
    # Single characters are shared by texts that have nothing else in common.
    further_terms = further_terms[by_id[~is_character(ids[by_id])]]
    if not len(further_terms):
        return out
    term_numbers, texts, _ = pool.terms.occurrences(further_terms)
    has_term = np.zeros((len(further_terms), len(pool)), np.bool_)
    has_term[term_numbers, texts] = True
    frequencies = pool.frequencies(further_terms, np.bincount(term_numbers, minlength=len(further_terms)))
    frequencies = np.minimum(frequencies, pool.total)
    idf = np.log1p((pool.total - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    rare = np.log1p((pool.total - 1.5) / 2.5)
    for index in best.tolist():
        own_terms = np.flatnonzero(has_term[:, index] & (frequencies > 1))
        own_terms = own_terms[np.argsort(frequencies[own_terms], kind="stable")[:BRIDGE_TERMS]]
        if len(own_terms):
            # What shares one word that half of the memories have, shares little.
            shared = idf[own_terms] @ has_term[own_terms] / max(idf[own_terms].sum(), rare)
            shared[index] = 0
            np.maximum(out, base[index] * shared, out=out)
    if not is_conversation(pool):
        # A long text has words of everything. Where meaning is understood, that is no reason to lift it.
        lengths = np.maximum(pool.terms.lengths, 1)
        out *= np.minimum(1, lengths.mean() / lengths) ** (pool.dense_trust / 2)
    return out


def named_speakers(pool: Pool, query: Query) -> list[int]:
    """The numbers of those of several speakers whom the query names."""
    return [code for code, name in pool.speakers.items() if len(pool.speakers) > 1 and _names(query.text, name)]


def speaker(pool: Pool, query: Query) -> Scores:
    """1 for memories by or about the one known speaker that the query names."""
    named = named_speakers(pool, query)
    if len(named) != 1:
        return np.zeros(len(pool), np.float32)
    by: Scores = (pool.speaker == named[0]).astype(np.float32)
    return by


def date(pool: Pool, query: Query) -> Scores:
    """How well the time of what a memory says agrees with that of the query; where it has none, when it was said."""
    wanted = periods(query.text, query.reference)
    if not wanted:
        return np.zeros(len(pool), np.float32)
    fit, known = agreement(pool.time, wanted), np.flatnonzero(pool.since >= 0)
    # What was said then is meant less often than what happened.
    fit[known] = np.maximum(fit[known] / 2, HAPPENS * agreement(pool.since[known], wanted, told=False))
    return fit


def fact(pool: Pool) -> Scores:
    """1 for facts, where there are turns too."""
    return (~pool.is_turn).astype(np.float32) if pool.is_turn.any() else np.zeros(len(pool), np.float32)


def question(pool: Pool) -> Scores:
    """1 for turns that ask; less for long ones that state before they do."""
    long = np.maximum(pool.terms.lengths, SHORT)
    asks: Scores = np.where(pool.asks == ALSO_ASKS, np.float32(SHORT) / long, pool.asks > 0).astype(np.float32)
    return asks * pool.is_turn


def _names(query: str, name: str) -> bool:
    if not name.isascii():
        return name in query
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", query, re.IGNORECASE) is not None
