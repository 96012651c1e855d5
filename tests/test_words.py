"""A slab's words: postings and statistics are those that a dictionary of texts gives, however rows came and went."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_memlayer.index import postings as postings_module
from langchain_memlayer.index.keywords import packed, term_ids
from langchain_memlayer.index.postings import Words
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.types import SlabBlock

TERMS = [f"t{number}" for number in range(12)]


def written(rows: dict[int, list[str]], seq: int, removed: list[int]) -> SlabBlock:
    ids = np.array(list(rows), np.int64)
    return SlabBlock(
        seq=seq,
        ids=ids,
        seqs=np.full(len(ids), seq),
        columns={},
        owners=np.empty(0, np.int64),
        vector_bytes=b"",
        removed=np.array(removed, np.int64),
        words=[packed(text) for text in rows.values()],
    )


def numbers(words: Words, terms: list[str]) -> dict[str, int]:
    found = words.numbers(term_ids(terms)).tolist()
    return dict(zip(terms, found, strict=True))


def assert_right(slab: Slab, texts: dict[int, list[str]]) -> None:
    view = slab.view
    words, known = view.words, numbers(view.words, TERMS)
    there = np.array([number for number in known.values() if number >= 0], np.int32)
    names = [term for term, number in known.items() if number >= 0]
    has = {term: {item: text.count(term) for item, text in texts.items() if term in text} for term in TERMS}
    assert all(not has[term] for term, number in known.items() if number < 0)
    postings = words.postings(there)
    for index, term in enumerate(names):
        slots, often = postings.of(index)
        live = view.live[slots]
        assert (np.diff(slots) > 0).all()
        assert dict(zip(view.ids[slots][live].tolist(), often[live].tolist(), strict=True)) == has[term]
    assert postings.frequencies(view.live).tolist() == [len(has[term]) for term in names]
    slots = np.flatnonzero(view.live)
    some = words.texts(slots)
    counts = [[texts[item].count(term) for item in view.ids[slots].tolist()] for term in names]
    assert some.counts(there).tolist() == counts
    assert some.lengths.tolist() == [len(texts[item]) for item in view.ids[slots].tolist()]
    assert [set(some.ids[some.of(k)].tolist()) for k in range(len(some))] == [
        set(term_ids(texts[item]).tolist()) for item in view.ids[slots].tolist()
    ]


texts = st.lists(st.sampled_from(TERMS), max_size=6)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.lists(texts, max_size=9), st.integers(0, 3)), min_size=1, max_size=9))
def test_after_any_writes_the_words_are_those_of_the_live_texts(steps: list[tuple[list[list[str]], int]]) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(postings_module, "_TAIL", 4)
    try:
        slab, model = Slab(dims=None), dict[int, list[str]]()
        views = []
        for seq, (new, removed) in enumerate(steps):
            gone = list(model)[:removed]
            rows = {1000 * seq + place: text for place, text in enumerate(new)}
            slab.apply(written(rows, seq, gone))
            model = {item: text for item, text in (model | rows).items() if item not in gone}
            assert_right(slab, model)
            views.append((slab.view, slab.view.words.texts(np.arange(len(slab.view))).flat.copy()))
        for view, before in views:
            assert view.words.texts(np.arange(len(view))).flat.tolist() == before.tolist()
    finally:
        patch.undo()


def test_a_text_that_is_written_again_in_other_words_is_found_by_these() -> None:
    slab = Slab(dims=None)
    slab.apply(written({1: ["t1", "t2"], 2: ["t3"]}, 0, []))
    slab.apply(written({1: ["t1", "t4"], 2: ["t3"]}, 1, []))
    assert_right(slab, {1: ["t1", "t4"], 2: ["t3"]})
    assert slab.view.dead == 1


def test_segments_are_few_and_of_every_row() -> None:
    slab = Slab(dims=None)
    for seq in range(40):
        slab.apply(written({1000 * seq + place: ["a", f"b{seq}"] for place in range(500)}, seq, []))
    words = slab.view.words
    assert len(words.segments) <= 4
    slots, _ = words.postings(words.numbers(term_ids(["a"]))).of(0)
    assert slots.tolist() == list(range(20_000))


def test_how_many_have_a_frequent_term_is_told_from_an_even_part() -> None:
    slab = Slab(dims=None)
    slab.apply(written({place: ["all", "half"][: 1 + place % 2] for place in range(60_000)}, 0, []))
    words, inside = slab.view.words, np.arange(60_000) % 3 != 0
    terms = words.numbers(term_ids(["all", "half"]))
    postings = words.postings(terms)
    assert postings.frequencies(None).tolist() == [60_000, 30_000]
    assert postings.frequencies(inside) == pytest.approx([40_000, 20_000], rel=0.03)
    assert Counter(words.texts(np.array([1, 2])).flat.tolist())[int(terms[0])] == 2
