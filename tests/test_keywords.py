from __future__ import annotations

import math
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from langchain_memlayer.index.keywords import (
    ENTRY,
    bm25,
    bm25_ceiling,
    is_character,
    packed,
    query_characters,
    query_terms,
    term_ids,
    tokenize,
    well_formed,
)
from langchain_memlayer.index.spelling import Slips, english, slips_of, word_list, words_around, written_words

ZWNJ, SOFT_HYPHEN, WORD_JOINER = "\u200c", "\u00ad", "\u2060"


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        # words are folded, and English ones stemmed
        ("The DOGS were running", "the dog were run"),
        ("run run", "run run"),
        ("s is as", "s is as"),
        # accents are often not typed, but where they make another letter
        ("naïve Café", "naiv cafe"),
        ("cafe\u0301", "cafe"),
        ("Inés vive en Bogotá", "ines vive en bogota"),
        ("Hà Nội, Αθήνα, ещё, Zürich", "ha noi αθηνα еще zurich"),
        ("है खाया", "है खाया"),
        ("STRASSE Straße", "strass strass"),
        ("iPhone HashMap", "iphon hashmap"),
        ("ﬁne ＡＢＣ１２", "fine abc12"),
        ("İstanbul", "istanbul"),
        (f"co{SOFT_HYPHEN}operate{WORD_JOINER}d", "cooper"),
        ("", ""),
        ("?! ... 😀❤️ — \ud800 \x00 _ '", ""),
        ("\u0301abc", "abc"),
        # apostrophes end words or bind them
        ("Caroline's", "carolin"),
        ("Caroline’s", "carolin"),
        ("the dogs' bowl", "the dog bowl"),
        ("I'd they've we're you'll I'm", "i thei we you i"),
        ("don't won’t", "dont wont"),
        ("'quoted'", "quot"),
        ("O'Brien's", "o brien obrien"),
        ("l’acqua", "l acqua lacqua"),
        # identifiers give their parts and then the whole
        ("12 007", "12 007"),
        ("3.5", "3 5 3p5"),
        ("v1.2.3", "v1 2 3 v1p2p3"),
        ("2023-05-08", "2023 05 08 20230508"),
        ("ERR_42", "err 42 err42"),
        ("locker-12", "locker 12 locker12"),
        ("foo__bar", "foo bar foobar"),
        ("__init__", "init"),
        ("a@b.com", "a b com abcom"),
        ("e-mails", "e mail email"),
        ("U.S.A.", "u s a usa"),
        ("and/or", "and or"),
        ("end--start", "end start"),
        # scripts without spaces and Hangul give bigrams, Han its characters too
        ("我的狗叫旺财", "我 的 狗 叫 旺 财 我的 的狗 狗叫 叫旺 旺财"),
        ("狗。猫", "狗 猫"),
        ("我用Python写码", "我 用 我用 python 写 码 写码"),
        ("2023年5月8日", "2023 年 5 月 8 日"),
        ("三月", "三 月 三月"),
        ("食べる", "食 食べ べる"),
        ("コーヒー", "コー ーヒ ヒー"),
        ("ｺｰﾋｰ", "コー ーヒ ヒー"),
        ("日本・東京", "日 本 日本 东 京 东京"),
        ("한국어 배워", "한국 국어 배워"),
        ("밥", "밥"),
    ],
)
def test_the_terms_of_a_text(text: str, terms: str) -> None:
    assert tokenize(text) == terms.split()


def test_words_of_other_scripts_are_letters_and_marks() -> None:
    for text, words in (
        ("Привет, мир", 2), ("مرحبا بالعالم", 2), ("हिन्दी में बात", 3), (f"می{ZWNJ}خواهم", 1), ("γειά σου", 2),
        ("བོད་ཡིག", 2),
    ):  # fmt: skip
        assert len(tokenize(text)) == words
    # A Thai bigram is two letters with their marks.
    assert tokenize("ที่นี่") == tokenize("ที่" + "นี่")
    assert len(tokenize("ที่")) == len(tokenize("ที่นี่")) == 1
    assert set(tokenize("ครับ")) < set(tokenize("สวัสดีครับ"))


def test_spellings_of_one_word_are_one_term() -> None:
    for one, other in (("ПРИВЕТ", "привет"), ("ΟΔΟΣ", "οδος"), ("مرحـــبا", "مرحبا"), (f"می{ZWNJ}خواهم", "میخواهم"),
                       ("が", "か\u3099"), ("臺灣的頭髮", "台湾的头发")):  # fmt: skip
        assert tokenize(one) == tokenize(other)


def test_of_a_long_word_the_first_64_characters_count() -> None:
    assert tokenize("x7" * 50_000) == ["x7" * 32]
    assert [len(term) for term in tokenize("-".join("ab" * 100))][-1] == 64


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("What did Caroline say about her dogs?", "carolin sai dog"), ("dogs and dogs, a dog", "dog"),
        ("The Who", "the who"), ("to be or not to be", "to be or not"), ("don't you remember?", "rememb"),
        ("What happened in May?", "happen mai"), ("a doe", "doe"), ("我的狗是什么？", "的狗 狗是"),
        ("是什么", "是什 什么"), ("是什么 dog", "dog"), ("", ""), ("?!", ""),
    ],
)  # fmt: skip
def test_a_query_drops_stop_words_unless_nothing_remains(query: str, terms: str) -> None:
    assert query_terms(query) == terms.split()


@pytest.mark.parametrize(
    ("query", "characters"),
    [
        ("我的鞋码是多大？", "鞋 码 大"), ("猫叫什么猫", "猫 叫"), ("猫，养猫", "养"),
        ("上周三下午两点开会", "午 开"), ("2024年3月2日", ""), ("食べる", "食"), ("한국어", ""), ("dogs", ""),
    ],
)  # fmt: skip
def test_a_query_asks_for_the_characters_of_its_runs_that_are_no_terms_already(query: str, characters: str) -> None:
    assert query_characters(query) == characters.split()
    assert set(query_characters(query)).isdisjoint(query_terms(query))


def test_codes_of_single_characters_are_told_from_those_of_terms() -> None:
    terms = ["猫", "养猫", "dog", "龟", "a", "犬"]
    found = is_character(term_ids(terms))
    assert found.tolist() == [True, False, False, True, False, True]
    assert is_character(np.empty(0, np.uint64)).tolist() == []


_alphabet = st.one_of(
    st.characters(),
    st.sampled_from(
        "aAsSeEzuZU019_-.@' \"*:()^’İßſάΣœʼ\u0301\u0307\u093f\u0e31\u3099\u00ad\u200d我的カ가ก한क़ی٣①½ꭰᏸ\ue000\U00020000"
    ),
)


@settings(deadline=None)
@given(st.text(_alphabet, max_size=60))
def test_a_text_asked_for_as_it_stands_is_found(text: str) -> None:
    terms = tokenize(text)
    assert set(query_terms(text)) <= set(terms)
    assert bool(query_terms(text)) == bool(terms)
    assert " ".join(terms).split() == terms


@pytest.mark.parametrize("wrong", [b"x", packed(["a"])[:-1], packed(["a"]) * 2, bytes(10)], ids=range(4))
def test_what_are_no_terms_is_told(wrong: bytes) -> None:
    assert not well_formed(wrong)
    assert well_formed(packed(["a", "b", "a"]))
    assert well_formed(b"")


def test_threads_get_the_same_terms() -> None:
    words = [f"{stem}{ending}" for stem in ("relat", "nation", "hop") for ending in ("ional", "ing", "izations", "es")]
    texts = [" ".join(f"{word}{chr(97 + i)}{word}" for word in words) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: [tokenize(text) for text in texts], range(8)))
    assert all(result == seen[0] for result in seen)


def test_the_stemmer_is_imported_at_the_first_word_only() -> None:
    code = (
        "import sys, langchain_memlayer.index.keywords as k; before = 'snowballstemmer' in sys.modules;"
        "k.tokenize('dogs'); print(before, 'snowballstemmer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def scores_of(texts: list[str], query: str) -> tuple[NDArray[np.float32], float]:
    documents = [tokenize(text) for text in texts]
    lengths = np.array([len(document) for document in documents], np.int64)
    terms = query_terms(query)
    counts = np.array([[document.count(term) for document in documents] for term in terms], np.int32)
    dfs = np.count_nonzero(counts, axis=1)
    return bm25(counts, lengths, dfs, len(texts), float(lengths.mean()) or 1.0), bm25_ceiling(dfs, len(texts))


def test_bm25_is_what_the_formula_gives_by_hand() -> None:
    # N = 3, lengths 2, 4, 3, average 3; "dog" is in the first (once) and the second (twice), "cat" in the third.
    counts, lengths, dfs = np.array([[1, 2, 0], [0, 0, 1]]), np.array([2, 4, 3]), np.array([2, 1])
    scores = bm25(counts, lengths, dfs, 3, 3.0)
    dog, cat = math.log(1.6), math.log(1 + 2.5 / 1.5)
    by_hand = [dog * 2.2 / (1 + 1.2 * 0.75), dog * 4.4 / (2 + 1.2 * 1.25), cat * 2.2 / 2.2]
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(by_hand, rel=1e-6)
    assert bm25_ceiling(dfs, 3) == pytest.approx(2.2 * (dog + cat))
    # Of some texts it is what all of them get, and a term counts its weight in scores and in the ceiling.
    assert bm25(counts[:, 1:], lengths[1:], dfs, 3, 3.0).tolist() == scores[1:].tolist()
    weights = np.array([0.5, 1], "f4")
    assert bm25(counts, lengths, dfs, 3, 3.0, weights).tolist() == pytest.approx((scores * [0.5, 0.5, 1]).tolist())
    assert bm25_ceiling(dfs, 3, weights) == pytest.approx(2.2 * (0.5 * dog + cat))


def test_bm25_leaves_what_says_nothing_at_zero() -> None:
    scores, _ = scores_of(["dog cat", "dog bird", "fish tank"], "dog cat")
    assert scores[0] > scores[1] > scores[2] == 0
    no_terms = np.empty(0, np.int64)
    assert bm25(np.empty((0, 2), np.int32), np.array([3, 4]), no_terms, 2, 3.5).tolist() == [0, 0]
    assert bm25(np.empty((1, 0), np.int32), np.empty(0, np.int64), np.array([0]), 0, 1.0).shape == (0,)
    assert bm25_ceiling(no_terms, 0) == 0
    assert bm25_ceiling(np.array([2, 0]), 3) == bm25_ceiling(np.array([2]), 3) > 0


def test_a_texts_terms_are_kept_by_id_with_their_counts() -> None:
    entries = np.frombuffer(packed(["dog", "cat", "dog", ""]), ENTRY)
    counts = dict(zip(entries["id"].tolist(), entries["count"].tolist(), strict=True))
    assert counts == dict(zip(term_ids(["dog", "cat", ""]).tolist(), [2, 1, 1], strict=True))
    assert (np.diff(entries["id"].astype(object)) > 0).all()
    assert packed([]) == b""
    assert np.frombuffer(packed(["a"] * 70_000), ENTRY)["count"].tolist() == [65_535]
    # These two have the same CRC-32, which stood for terms once.
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    assert len(set(term_ids(["plumless", "buckeroo"]).tolist())) == 2


def test_an_exact_identifier_ranks_above_a_partial_one() -> None:
    for query, right, near in (
        ("ERR_42", "saw ERR_42 today", "saw ERR_43 today 42 times"),
        ("v1.2.3", "runs v1.2.3 now ok", "runs v1.3.2 now ok"),
        ("locker-12", "uses locker 12 or locker-12", "locker 12 and locker 13 too"),
        ("3.5 stars", "gave 3.5 stars here today", "gave 35 stars here in 3 visits to 5 places"),
    ):
        scores, _ = scores_of([near, right, "nothing of it"], query)
        assert scores[1] > scores[0]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["dog", "cat", "bird", "fish"])).map(" ".join), min_size=1, max_size=12))
def test_no_score_passes_the_ceiling(texts: list[str]) -> None:
    scores, ceiling = scores_of(texts, "dog cat bird")
    assert scores.min() >= 0
    assert scores.max() <= ceiling


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("restaurnat", "restaurant"), ("hapened", "happened"), ("gardden", "garden"), ("pjano", "piano"),
        ("paintign", "painting"), ("adoptoin", "adoption"), ("considrring", "considering"), ("decgmals", "decimals"),
        ("previvous", "previous"), ("nueric", "numeric"),
    ],
)  # fmt: skip
def test_a_swapped_missing_superfluous_or_wrong_letter_is_a_slip(wrong: str, right: str) -> None:
    assert right in words_around(wrong)


def _only(slips: Slips, term: str) -> str | None:
    return slips.most_frequent((slips.ids == term_ids([term])[0]).astype(np.int64))


@given(st.text("aeinrst", min_size=5, max_size=9))
def test_a_word_a_slip_away_has_the_term_it_was_found_by(word: str) -> None:
    slips = slips_of(word)
    for term in slips.terms[::7]:
        one = _only(slips, term)
        assert one is None or tokenize(one) == [term]


def test_a_list_of_words_knows_its_own_and_those_around_another() -> None:
    words = ["furniture", "xqzkv", "a", "concerts", "furntiure", "zyzzyva" * 3, "schule", "zulu"]
    assert list(english(words)) == ["furniture", "a", "concerts", "zulu"]
    assert english(["the"])["the"] > english(["furniture"])["furniture"] > 50
    assert sum(part.nbytes for part in word_list()) < 5_000_000, "as a dictionary they take 20 MB"
    assert [words_around(word)[:1] for word in ("furntiure", "outdor", "xqzkv")] == [["furniture"], ["outdoor"], []]


def test_without_the_list_no_word_is_known(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("pkgutil.get_data", lambda *_: Path("/nowhere").read_bytes())
    word_list.cache_clear()
    assert (english(["furniture"]), words_around("furntiure")) == ({}, [])
    assert "pyspellchecker" in caplog.text
    word_list.cache_clear()


def test_only_words_of_letters_alone_are_taken_for_misspelled() -> None:
    text = "Where did Bethany put unit_alpha, /srv/letters.csv, well-known, 'INV-abcde' and ann.letters@example.com?"
    assert written_words(text) == ["bethany"]
