from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_memlayer.graph.names import (
    MOST_NAMESAKES,
    Name,
    family_of,
    is_short_for,
    mentions,
    merge,
    read_name,
    relation_name,
    speaks_of_self,
)

SAME = [
    ["Aario", "aario", "AARIO", "my friend Aario", "My best friend, Aario", "her old friend Aario", "Aario's",
     "Aario’s", "“Aario”", " Aario. ", "Ａａｒｉｏ", "A\u00adario", "my mother-in-law Aario", "our co-worker Aario"],
    ["Aario Smith", "Dr. Aario Smith", "Dr. Aario Smith's", "Prof. Dr. Aario  Smith", "doctor aario smith"],
    ["Dr. Aario", "Doctor Aario", "dr aario"],
    ["The Beatles", "beatles", "the beatles"],
    ["my mother", "mother", "the mother"],
    ["小雨", "我的朋友小雨", "我女儿小雨", "我女兒小雨", "我的小雨"],
    ["田中", "田中さん", "田中様"],
    ["臺灣師範大學", "台湾师范大学"],
    ["小麗", "小丽"],
    ["Anne-Marie", "Anne Marie", "anne marie"],
    ["O'Brien", "O’Brien"],
    ["AT&T", "at&t"],
    ["C", "C.", "(c)"],
    ["C#", "C♯"],
    ["A-", "a-", "A−"], ["-5", "−5", "–5"], ["$5", "($5)"], [".NET", ".net", "“.Net”"],
    ["🚀", " 🚀 "],
]  # fmt: skip


@pytest.mark.parametrize("spellings", SAME, ids=lambda group: group[0])
def test_spellings_of_one_name_have_one_key(spellings: list[str]) -> None:
    assert {read_name(spelling).key for spelling in spellings} == {read_name(spellings[0]).key}


def test_different_names_have_different_keys() -> None:
    groups = [group[0] for group in SAME]
    groups += ["Maria", "Mr. Smith", "Mrs. Smith", "Dr. Smith", "her mother", "his mother", "C++", "C*", "C-",
               "A", "A+", "AB-", "3.5", "35", ".5", "5", "+5", "<5", "-$5", "€5", "5%", "5‰", "5°", "√5", "≠5", "#5",
               "NET", "Ke$ha", "Kesha", "B", "B♭",
               "Anna's dog", "Anna", "node.js", "node", "कि", "का", "José", "我的",
               "my brother in law"]  # fmt: skip
    keys = [read_name(name).key for name in groups]
    assert len(set(keys)) == len(keys)


def test_only_blank_text_has_no_key_and_names_are_plain_values() -> None:
    assert all(read_name(text).key for text in ["the", "my", "my friend", "Dr.", "mr", "'s", "我", "我的", "さん", "a"])
    assert read_name("").key == read_name(" \n").key == ""
    assert read_name("Dr. Lee") == Name("dr lee", ("lee",), "dr", proper=True)


@given(st.text(alphabet="abXYZ'., éñ我友", min_size=1, max_size=20))
def test_case_and_punctuation_around_a_name_do_not_count(text: str) -> None:
    key = read_name(text).key
    assert read_name(text.lower()).key == read_name(text.upper()).key == key
    if any(char.isalnum() for char in text):
        assert read_name(f" ({text})! ").key == key
    assert key == " ".join(key.split())


@given(st.text(alphabet="ab .'-DrMsmrs小雨我的", max_size=30))
def test_a_name_is_in_the_family_of_its_first_word(text: str) -> None:
    name = read_name(text)
    if any(char.isalnum() for char in text):
        assert family_of(name.key) == name.words[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("lives in", "lives_in"), ("LIVES_IN", "lives_in"), ("livesIn", "lives_in"), (" Lives  in ", "lives_in"),
     ("住在", "住在"), ("works-at", "works_at"), ("is Anna's friend", "is_annas_friend"), ("???", "related_to"),
     ("", "related_to"), ("есть друг", "есть_друг")],
)  # fmt: skip
def test_relations_are_in_snake_case(text: str, expected: str) -> None:
    assert relation_name(text) == expected


def groups(*spellings: str, **how: object) -> list[set[str]]:
    return sorted(map(set, merge([read_name(s) for s in spellings], **how)), key=sorted)


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        # A name joins the only one that it may be short for.
        ("Bob, Bob Smith", [{"bob", "bob smith"}]),
        ("Leonardo, Leonardo da Vinci", [{"leonardo", "leonardo da vinci"}]),
        ("Dr. Aario, Aario, Aario Smith", [{"dr aario", "aario", "aario smith"}]),
        # One that may be short for two stays by itself.
        ("Bob, Bob Smith, Bob Jones", []), ("Smith, Mr. Smith, Mrs. Smith", []),
        ("Bob, Bob Smith, Bob Smith Jr, Bob Jones", [{"bob smith", "bob smith jr"}]),
        # Two people are never one.
        ("Aario, Maria", []), ("Anna Lee, Anna Kim", []), ("Anna Lee, Anna Kim, Anna Lee Kim", []),
        ("Mr. Smith, Mrs. Smith, Dr. Smith", []), ("Anna, Anna's Mother", []), ("王老师, 王先生, 王", []),
        # Nor are common nouns and models joined.
        ("coffee, coffee shop", []), ("Bank, Bank of America", []), ("Tesla, Tesla Model 3", []),
        ("York, New York", []),
    ],
)  # fmt: skip
def test_names_are_joined_where_they_surely_mean_one(names: str, joined: list[set[str]]) -> None:
    assert groups(*names.split(", ")) == joined


def test_what_is_known_to_be_two_stays_two() -> None:
    pair = {"berlin", "berlin wall"}
    assert groups("Berlin", "Berlin Wall", apart=lambda a, b: {a, b} == pair) == []


def test_a_crowd_of_namesakes_is_not_compared() -> None:
    names = ["Project", *(f"Project {chr(65 + n % 26)}{'b' * (n // 26)}" for n in range(MOST_NAMESAKES))]
    asked: list[tuple[str, str]] = []
    assert groups(*names, "Project Ab C", apart=lambda a, b: asked.append((a, b)) or False) == []
    assert asked == []


WORDS = st.lists(st.sampled_from(["Anna", "Lee", "Kim", "Bob", "Dr.", "Mrs."]), min_size=1, max_size=4).map(" ".join)


@given(st.lists(WORDS, max_size=12))
def test_merging_is_sure_and_does_not_depend_on_the_order(spellings: list[str]) -> None:
    names = {(name := read_name(s)).key: name for s in spellings}
    found = merge(list(names.values()))
    assert sorted(found) == sorted(merge(list(reversed(names.values()))))
    members = [key for group in found for key in group]
    assert len(members) == len(set(members))
    for group in found:
        for one, other in permutations(group, 2):
            assert is_short_for(names[one], names[other]) or is_short_for(names[other], names[one])


def test_a_query_mentions_known_names_the_longest_first() -> None:
    known = {"aario", "aario smith", "new york", "york", "小雨", "dr lee", "her mother", "c++", "smith"}
    for text, expected in [
        ("Where does Aario live?", ["aario"]),
        ("Is my friend Aario Smith's dog in New York?", ["aario smith", "new york"]),
        ("aario's and AARIO", ["aario"]),
        ("york, then aario", ["york", "aario"]),
        ("小雨在哪里学钢琴？", ["小雨"]),
        ("我女儿小雨和Aario", ["小雨", "aario"]),
        ("What did Doctor Lee say about C++?", ["dr lee", "c++"]),
        ("Did her mother call?", ["her mother"]),
        ("Aariology", []),
        ("", []),
    ]:
        assert mentions(text, known.__contains__) == expected, text


def test_pronouns_single_characters_and_parts_of_words_are_no_mentions() -> None:
    known = {"it", "she", "i", "that", "art", "我", "茶", "他们"}
    assert mentions("Is it art? She and I think that", known.__contains__) == ["art"]
    assert mentions("smart手机", known.__contains__) == []
    assert mentions("我喜欢喝茶,他们呢", known.__contains__) == []


def test_it_is_seen_when_a_speaker_means_himself() -> None:
    assert all(map(speaks_of_self, ["Where do I live?", "my dog", "我住哪", "I'm"]))
    assert not any(map(speaks_of_self, ["Aario is in", "mystery"]))


@pytest.mark.parametrize("name", ["C++", "C#", "A-", "-5", "$5", "€5", "5%", ".NET", "3.5", "+49 170"])
def test_a_name_with_a_sign_is_mentioned_by_itself_alone(name: str) -> None:
    known = {read_name(other).key for other in (name, name.strip("+-#$€%.").replace(".", ""))}
    assert mentions(f"And what about {name}, then?", known.__contains__) == [read_name(name).key]
    assert read_name(read_name(name).key).key == read_name(name).key
