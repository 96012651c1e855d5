"""The words of a slab's texts: which terms each has, and which texts have each, both with counts.

Terms come as 64-bit ids and are numbered in the order in which they are first seen. A text's terms lie in one row of
numbers; the way back, from a term to its texts, lies in segments that are never changed once they are made. The newest
rows are in none yet and are looked through. Segments are merged as they pile up, so that a row is moved a few times in
all, however many come after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langchain_memlayer.index.growing import Growing, KeyIndex
from langchain_memlayer.index.keywords import ENTRY
from langchain_memlayer.threads import lazy

_TAIL = 2048
# Where in a long posting is looked: multiples of the golden ratio, which no pattern of the rows falls in step with.
_LOOKED_AT = (np.arange(8192) * 0.6180339887498949) % 1
_NUMBER, _COUNT = np.dtype(np.int32), np.dtype(np.uint16)

Often = NDArray[np.uint16]
Posting = tuple[NDArray[np.int32], Often]
"""The slots whose texts have a term, ascending, and how often."""


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of some texts, as numbers.

    Attributes:
        flat: The distinct terms of one text after those of another.
        often: How often each stands in its text.
        starts: Where those of each text begin, and the end, shape (texts + 1,).
        lengths: How many terms each text has, repetitions counted, shape (texts,).
        ids: The 64-bit ids by number.
    """

    flat: NDArray[np.int32]
    often: Often
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    ids: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @lazy
    def text(self) -> NDArray[np.int64]:
        """The text that each term of `flat` stands in."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def of(self, index: int) -> NDArray[np.int32]:
        """The terms of one text."""
        return self.flat[self.starts[index] : self.starts[index + 1]]

    def among(self, texts: NDArray[np.int64]) -> Terms:
        """Those of some of the texts."""
        begins = self.starts[texts]
        counts = self.starts[texts + 1] - begins
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(counts, out=starts[1:])
        places = np.arange(starts[-1]) + np.repeat(begins - starts[:-1], counts)
        return Terms(self.flat[places], self.often[places], starts, self.lengths[texts], self.ids)

    def occurrences(self, numbers: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int64], Often]:
        """Where some distinct terms stand: for each pair the index into `numbers`, the text, and how often."""
        table = np.full(len(self.ids), -1, np.int16)
        table[numbers] = np.arange(len(numbers))
        # By numbers of 32 bits, `take` needs a quarter of the time that brackets do.
        indexes = table.take(self.flat)
        places = np.flatnonzero(indexes >= 0)
        return indexes[places].astype(np.intp), self.text[places], self.often[places]

    def counts(self, numbers: NDArray[np.int32]) -> NDArray[np.int64]:
        """How often each of some distinct terms stands in each text, shape (terms, texts)."""
        which, texts, often = self.occurrences(numbers)
        out = np.zeros((len(numbers), len(self)), np.int64)
        out[which, texts] = often
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The postings of some rows in a sequence.

    Attributes:
        rows: How many rows it is of.
        numbers: Its terms, ascending.
        starts: Where the postings of each (`slots` and how `often`) begin, and the end.
    """

    rows: int
    numbers: NDArray[np.int32]
    starts: NDArray[np.int64]
    slots: NDArray[np.int32]
    often: Often

    @classmethod
    def of(cls, rows: int, numbers: NDArray[np.int32], slots: NDArray[np.int32], often: Often) -> Segment:
        """That of postings whose slots ascend within each term."""
        # Whole numbers sort several times as fast as their indices do.
        keys = numbers.astype(np.int64) << 32 | np.arange(len(numbers))
        keys.sort()
        order = keys & 0xFFFFFFFF
        ordered = numbers[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1, append=-1) != 0) if len(ordered) else np.zeros(1, np.int64)
        return cls(rows, ordered[starts[:-1]], starts, slots[order], often[order])

    def merged(self, other: Segment) -> Segment:
        """This one and the one of the rows behind it."""
        numbers = np.concatenate([np.repeat(part.numbers, np.diff(part.starts)) for part in (self, other)])
        slots, often = np.concatenate((self.slots, other.slots)), np.concatenate((self.often, other.often))
        return Segment.of(self.rows + other.rows, numbers, slots, often)

    def spans(self, numbers: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the postings of some terms begin and end here; nowhere for a term that it does not have."""
        if not len(self.numbers):
            return np.zeros((2, len(numbers)), np.int64)[0], np.zeros(len(numbers), np.int64)
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        begins = self.starts[places]
        return begins, np.where(self.numbers[places] == numbers, self.starts[places + 1], begins)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.numbers.nbytes + self.starts.nbytes + self.slots.nbytes + self.often.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """One state of a slab's words.

    Attributes:
        flat, often, starts: Of all slots, as in `Terms`.
        lengths: How many terms each text has, repetitions counted.
        ids: The 64-bit ids by number.
        vocabulary: The numbers by id.
        segments: The postings of the first rows.
    """

    flat: NDArray[np.int32]
    often: Often
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    ids: NDArray[np.uint64]
    vocabulary: KeyIndex
    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, terms: Terms, segments: tuple[Segment, ...]) -> Words:
        """Those of all texts, the first of which are in segments."""
        vocabulary = KeyIndex.of(terms.ids.view(np.int64), np.arange(len(terms.ids)))
        return cls(terms.flat, terms.often, terms.starts, terms.lengths, terms.ids, vocabulary, segments)

    def numbers(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The numbers of those of some distinct terms that any text has, -1 for the others."""
        numbers = self.vocabulary.find(ids.view(np.int64))
        numbers[numbers >= len(self.ids)] = -1
        return numbers.astype(_NUMBER)

    def texts(self, slots: NDArray[np.int64]) -> Terms:
        """The terms of the texts at some slots."""
        terms = Terms(self.flat, self.often, self.starts, self.lengths, self.ids)
        every = len(slots) == len(self.lengths) and len(slots) and slots[0] == 0 and slots[-1] == len(slots) - 1
        return terms if every else terms.among(slots)

    def postings(self, numbers: NDArray[np.int32]) -> Postings:
        """Where some distinct terms stand."""
        sealed = sum(segment.rows for segment in self.segments)
        begin = int(self.starts[sealed])
        tail = Terms(
            self.flat[begin:], self.often[begin:], self.starts[sealed:] - begin, self.lengths[sealed:], self.ids
        )
        which, texts, often = tail.occurrences(numbers)
        spans = [(segment, *segment.spans(numbers)) for segment in self.segments]
        return Postings(len(numbers), spans, which, (texts + sealed).astype(_NUMBER), often)


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """Where some distinct terms stand; the dead slots are among them.

    Attributes:
        count: How many terms these are.
        spans: Each segment, with where the postings of each term begin and end there.
        which, texts, often: In the rows behind the segments: the term, the slot, and how often.
    """

    count: int
    spans: list[tuple[Segment, NDArray[np.int64], NDArray[np.int64]]]
    which: NDArray[np.intp]
    texts: NDArray[np.int32]
    often: Often

    def of(self, index: int) -> Posting:
        """The slots that have one of the terms, ascending."""
        parts = [
            (segment.slots[begins[index] : ends[index]], segment.often[begins[index] : ends[index]])
            for segment, begins, ends in self.spans
            if begins[index] < ends[index]
        ]
        here = np.flatnonzero(self.which == index)
        if len(here) or not parts:
            parts.append((self.texts[here], self.often[here]))
        slots, counts = zip(*parts, strict=True)
        return parts[0] if len(parts) == 1 else (np.concatenate(slots), np.concatenate(counts))

    def texts_with(self, indices: NDArray[np.intp]) -> NDArray[np.int64]:
        """The slots that have any of some of the terms, ascending."""
        return np.unique(np.concatenate([self.of(index)[0] for index in indices.tolist()])).astype(np.int64)

    def frequencies(self, inside: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """How many texts have each; `inside` says which slots count, None all of them.

        Of terms that very many have it is told from 8,192 of these, to a hundredth or so.
        """
        newest = self.which if inside is None else self.which[inside.take(self.texts)]
        counts = np.bincount(newest, minlength=self.count)
        for segment, begins, ends in self.spans:
            if inside is None:
                counts += ends - begins
                continue
            for index, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
                part = segment.slots[begin:end]
                if len(part) > len(_LOOKED_AT):
                    part = part[(_LOOKED_AT * len(part)).astype(np.intp)]
                counts[index] += np.count_nonzero(inside.take(part)) * (end - begin) // max(len(part), 1)
        return counts


class WordRows:
    """The words of a slab's rows as they grow; only the slab's writer uses it."""

    def __init__(self) -> None:
        self._flat, self._often = Growing(_NUMBER), Growing(_COUNT)
        self._starts, self._lengths = Growing(np.dtype(np.int64)), Growing(_NUMBER)
        self._starts.extend(np.zeros(1, np.int64))
        self._ids = Growing(np.dtype(np.uint64))
        self._vocabulary = KeyIndex.of(np.empty(0, np.int64), np.empty(0, np.int64))
        self._segments: tuple[Segment, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes held, about."""
        rows = self._flat.used.nbytes + self._often.used.nbytes + 12 * self._lengths.size
        return rows + 24 * self._ids.size + sum(segment.nbytes for segment in self._segments)

    def extend(self, entries: Sequence[bytes]) -> None:
        """Appends rows with the given terms, each text's as `keywords.packed` gave them."""
        counts = np.fromiter(map(len, entries), np.int64, len(entries)) // ENTRY.itemsize
        joined = np.frombuffer(b"".join(entries), ENTRY)
        often = joined["count"].astype(_COUNT)
        ends = np.cumsum(counts)
        totals = np.concatenate(([0], np.cumsum(often, dtype=np.int64)))
        self._lengths.extend((totals[ends] - totals[ends - counts]).astype(_NUMBER))
        self._flat.extend(self._numbered(np.ascontiguousarray(joined["id"])))
        self._often.extend(often)
        self._starts.extend(ends + self._starts.used[-1])
        self._seal()

    def restore(self, words: Words) -> None:
        """Takes over what was dumped, as long as there are no rows; nobody else may change it afterwards."""
        self._starts = Growing(np.dtype(np.int64))
        self._starts.extend(words.starts)
        self._flat.extend(words.flat)
        self._often.extend(words.often)
        self._lengths.extend(words.lengths)
        self._ids.extend(words.ids)
        self._vocabulary, self._segments = words.vocabulary, words.segments

    def has(self, slot: int, entries: bytes) -> bool:
        """Whether the text at a slot has just these terms."""
        span = slice(*self._starts.used[slot : slot + 2])
        stored = np.frombuffer(entries, ENTRY)
        same = np.array_equal(self._ids.used[self._flat.used[span]], stored["id"])
        return same and np.array_equal(self._often.used[span], stored["count"])

    def state(self) -> Words:
        """The present state."""
        return Words(
            self._flat.used, self._often.used, self._starts.used, self._lengths.used, self._ids.used, self._vocabulary,
            self._segments,
        )  # fmt: skip

    def _numbered(self, ids: NDArray[np.uint64]) -> NDArray[np.int32]:
        distinct = np.unique(ids)
        numbers = self._vocabulary.find(distinct.view(np.int64))
        new = np.flatnonzero(numbers < 0)
        if len(new):
            numbers[new] = np.arange(self._ids.size, self._ids.size + len(new))
            self._ids.extend(distinct[new])
            self._vocabulary.set(distinct[new].view(np.int64), numbers[new])
            if self._vocabulary.loose:
                self._vocabulary = KeyIndex.of(self._ids.used.view(np.int64), np.arange(self._ids.size))
        return numbers[np.searchsorted(distinct, ids)].astype(_NUMBER)

    def _seal(self) -> None:
        sealed = sum(segment.rows for segment in self._segments)
        rows = self._lengths.size - sealed
        if rows < _TAIL:
            return
        starts = self._starts.used[sealed:]
        slots = np.repeat(np.arange(sealed, sealed + rows, dtype=np.int32), np.diff(starts))
        segments = [
            *self._segments,
            Segment.of(rows, self._flat.used[starts[0] :], slots, self._often.used[starts[0] :]),
        ]
        while len(segments) > 1 and segments[-2].rows < 2 * segments[-1].rows:
            last = segments.pop()
            segments[-1] = segments[-1].merged(last)
        self._segments = tuple(segments)
