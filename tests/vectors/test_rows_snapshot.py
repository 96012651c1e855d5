"""A slab's rows as bytes: what is loaded again answers as the slab did, and forged bytes are refused or harm nobody."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slabs import Topics

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index import postings as postings_module
from langchain_memlayer.index import snapshot
from langchain_memlayer.index.keywords import packed, term_ids
from langchain_memlayer.index.slab import Slab
from langchain_memlayer.types import SlabBlock

DIMS = 8
COLUMNS = {"time": np.dtype(np.int64), "read": np.dtype(np.bool_), "turns": np.dtype(np.object_)}
TERMS = [f"t{number}" for number in range(9)]


def written(random: np.random.Generator, seq: int, ids: list[int], *, several: bool, removed: list[int]) -> SlabBlock:
    count = len(ids)
    owners = np.repeat(np.arange(count), random.integers(0, 3, count) if several else 1)
    turns = np.empty(count, object)
    turns[:] = [random.bytes(8 * int(size)) for size in random.integers(0, 3, count)]
    return SlabBlock(
        seq=seq,
        ids=np.array(ids, np.int64),
        seqs=np.full(count, seq),
        columns={"time": random.integers(0, 99, count), "read": random.integers(0, 2, count) > 0, "turns": turns},
        owners=owners,
        vector_bytes=Topics(len(owners), DIMS, seed=seq).codes.tobytes(),
        removed=np.array(removed, np.int64),
        words=[packed(random.choice(TERMS, int(size)).tolist()) for size in random.integers(0, 6, count)],
    )


def again(slab: Slab, payload: bytes, meta: dict[str, Any]) -> Slab:
    """A slab of what was dumped, with the vectors that the first one has."""
    block, words = snapshot.load(payload, meta, COLUMNS)
    codes = np.asarray(slab.view.codes)
    owners = np.arange(len(codes)) if slab.view.owners is None else slab.view.owners
    other = Slab(dims=DIMS, hnsw_threshold=10**9, columns=COLUMNS)
    other.apply(replace(block, vector_bytes=codes[slab.view.live[owners]].tobytes()), words=words)
    return other


def answers(slab: Slab) -> list[Any]:
    """What can be asked of the live rows, by their ids."""
    view = slab.view
    slots = np.flatnonzero(view.live)
    texts, ids = view.words.texts(slots), term_ids(TERMS)
    there = view.words.numbers(ids)
    postings = view.words.postings(there[there >= 0])
    found = [postings.of(index) for index in range(postings.count)]
    has = iter([sorted(view.ids[slots[view.live[slots]]].tolist()) for slots, _ in found])
    hits = view.search(np.ones(DIMS), 5)
    return [
        view.applied_seq, view.ids[slots].tolist(), view.seqs[slots].tolist(),
        {name: column[slots].tolist() for name, column in view.columns.items()},
        [{int(texts.ids[n]) for n in texts.of(k).tolist()} for k in range(len(texts))], texts.lengths.tolist(),
        [next(has) if number >= 0 else [] for number in there.tolist()],
        view.ids[view.slots(view.ids[slots])].tolist(), hits.ids.tolist(), hits.scores.tolist(),
    ]  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), several=st.booleans(), steps=st.integers(1, 5))
def test_what_is_loaded_answers_as_what_was_dumped_and_goes_on_as_that_does(
    seed: int, several: bool, steps: int
) -> None:
    random = np.random.default_rng(seed)
    patch = pytest.MonkeyPatch()
    patch.setattr(postings_module, "_TAIL", 4)
    try:
        slab, model = Slab(dims=DIMS, hnsw_threshold=10**9, columns=COLUMNS), set[int]()
        for seq in range(steps):
            gone = [item for item in model if random.random() < 0.2]
            new = [*range(100 * seq, 100 * seq + int(random.integers(0, 9)))]
            back = [item for item in model if item not in gone and random.random() < 0.2]
            slab.apply(written(random, seq, [*new, *back], several=several, removed=gone))
            model = (model - {*gone}) | {*new}
        other = again(slab, *snapshot.dump(slab.view, slab.view.columns))
        assert other.view.dead == 0
        assert answers(other) == answers(slab)
        later = written(random, 9, [900, 901, *list(model)[:2]], several=several, removed=list(model)[2:3])
        for one in (slab, other):
            one.apply(later)
        assert answers(other) == answers(slab)
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def slab() -> Slab:
    slab = Slab(dims=DIMS, hnsw_threshold=10**9, columns=COLUMNS)
    slab.apply(written(np.random.default_rng(0), 0, list(range(2100)), several=True, removed=[]))
    slab.apply(written(np.random.default_rng(1), 1, list(range(2100, 2150)), several=True, removed=[3, 4]))
    return slab


def test_forged_bytes_are_refused_or_harmless(slab: Slab) -> None:
    payload, meta = snapshot.dump(slab.view, slab.view.columns)
    random, refused = np.random.default_rng(0), 0
    for _ in range(150):
        forged = bytearray(payload)
        start, size = int(random.integers(len(payload))), int(random.choice([1, 4, 64, 4096]))
        forged[start : start + size] = random.bytes(min(size, len(payload) - start))
        try:
            answers(again(slab, bytes(forged), meta))
        except SnapshotError:
            refused += 1
    assert 0 < refused < 150


@pytest.mark.parametrize("cut", [0, 1, 100, -1, -8])
def test_a_cut_payload_is_refused(slab: Slab, cut: int) -> None:
    payload, meta = snapshot.dump(slab.view, slab.view.columns)
    for other in (payload[:cut], payload + b"\0"):
        with pytest.raises(SnapshotError, match="rebuilt"):
            snapshot.load(other, meta, COLUMNS)


@pytest.mark.parametrize("value", [None, -1, 0, 10**6, 2**39, 2**70, 1.5, True, "12", [1]], ids=repr)
def test_a_changed_meta_is_refused(slab: Slab, value: Any) -> None:
    payload, meta = snapshot.dump(slab.view, slab.view.columns)
    counts = meta["counts"]
    forged = [{**meta, name: value} for name in ("kind", "seq", "counts") if (name, type(value)) != ("seq", int)]
    forged += [{**meta, "counts": {**counts, name: value}} for name in counts]
    forged += [{**meta, "counts": {key: kept for key, kept in counts.items() if key != name}} for name in counts]
    forged += [{**meta, "counts": {**counts, "ids": counts["seqs"] - 1, "seqs": counts["seqs"] + 1}}]
    for other in forged:
        with pytest.raises(SnapshotError, match="rebuilt"):
            snapshot.load(payload, other, COLUMNS)
