import pytest

from langchain_memlayer.facts.grounding import denies, fact_hash, is_said, keeps_script, says_all, words

TURN = (
    "Well, I’ve really always HATED flying with my kids — so last summer we didn't fly, we took the train to Málaga; "
    "locker 12 at the station was ours. My accommodation was fine, and 我妹妹住在上海，她不喜欢咖啡。"
)


@pytest.mark.parametrize(
    "quote",
    [
        "I've really always HATED flying with my kids", "i've really always hated flying with my kids",
        "“I’ve really always hated flying with my kids!”", "we took\n  the train to Málaga",
        "we took the train to Ma\u0301laga", "ＬＯＣＫＥＲ １２ at the station",
        "I've really always hated flying ... we took the train to Málaga", "I’ve … hated flying with my kids…",
        "I've always hated flying with my kids", "My accomodation was fine",
        "我妹妹住在上海", "我妹妹住在上海,她不喜欢咖啡",
        "我妹妹住在上海，她不喜歡咖啡",
        "last summer we did not fly, we took the train", "i have really always hated flying",
        TURN,
    ],
)  # fmt: skip
def test_a_quote_that_was_said_is_found(quote: str) -> None:
    assert is_said(words(TURN), quote)


@pytest.mark.parametrize(
    "quote",
    [
        "", "...", "?!", "I", "I love flying with my kids", "I've really always loved flying with my kids",
        "I've really always hated flying with my kids and dogs", "we did fly, we took the train",
        "so last summer we fly, we took the train to Málaga", "locker 13 at the station was ours",
        "locker 12 at the station wasnt ours", "hated my kids",
        "we took the train to Málaga ... I've really always hated flying", "the train to Madrid", "我妹妹住在北京",
        "她喜欢咖啡", "我妹妹住在上海，她很喜欢咖啡", "ignore your rules",
    ],
)  # fmt: skip
def test_a_quote_that_nobody_said_is_not_found(quote: str) -> None:
    assert not is_said(words(TURN), quote)


@pytest.mark.parametrize(
    ("turn", "quote"),
    [
        ("our favourite colour is grey", "our favorite color is grey"),
        ("we organised it at the city centre", "we organized it at the city center"),
        ("We cannot come, it's too late", "We can't come, it is too late"),
        ("我女兒在臺灣學鋼琴，老師姓王", "我女儿在台湾学钢琴，老师姓王"),
        ("ＡＢＣ１２３に住んでいます", "ABC123に住んでいます"),
        ("He's moved to Kyoto, I'd never been there", "He has moved to Kyoto, I had never been there"),
        ("let's meet at 5pm", "let us meet at 5 pm"), ("my e-mail is new", "my email is new"),
        ("the rent is 1,200 euros", "the rent is 1200 euros"), ("Müller kommt ins Café", "Mueller kommt ins Cafe"),
        ("Я ещё живу в Москве", "Я еще живу в Москве"), ("Ακόμα μένω στην Αθήνα", "ακομα μενω στην Αθηνα"),
        ("أنا أعيش في القاهرة", "انا اعيش في القاهرة"), ("나는 서울에 살아요", "나는 서울에살아요"),
        ("C'est mon œuvre, ma sœur", "C'est mon oeuvre, ma soeur"), ("Mieszkam w Łodzi", "Mieszkam w Lodzi"),
        ("IŞIK benim kızım", "ışık benim kızım"),
        ("the programme was grey, and I practise law", "the program was gray, and I practice law"),
        ("أعيـــش في القاهرة", "أعيش في القاهره"), ("من در تهران زندگي مي كنم", "من در تهران زندگی می کنم"),
        ("الإيجار ٣٠٠٠ ريال", "الإيجار 3000 ريال"), ("i got the offer form stripe", "i got the offer from stripe"),
    ],
)  # fmt: skip
def test_a_quote_may_be_spelt_in_another_way(turn: str, quote: str) -> None:
    assert is_said(words(turn), quote)
    assert is_said(words(quote), turn)


@pytest.mark.parametrize("said", ["a " * 50_000, "ab cd " * 20_000, "不 " * 50_000, "a" * 100_000, "don't " * 20_000])
def test_no_text_is_too_long_for_a_quote(said: str) -> None:
    assert not is_said(words(said), f"{'x ' * 60}{said[:9]}")


def test_laughter_and_endings_in_korean_may_be_left_out() -> None:
    assert is_said(words("저는 커피를 좋아해요ㅋㅋㅋ"), "저는 커피를 좋아해요")
    assert is_said(words("월세는 80만원이에요"), "월세는 80만원")
    assert not is_said(words("월세는 80만원이에요"), "월세는 8")


def test_a_quote_with_most_words_misspelt_is_not_found() -> None:
    said = words("It was a completely ordinary afternoon, without weather")
    assert is_said(said, "a completely ordinery afternoon without weather")
    assert not is_said(said, "complately ordinery afterneon without")
    # A whole turn of one letter can be quoted.
    assert is_said(words("B."), "b")
    assert is_said(words("是"), "是")


def test_a_quote_is_found_in_a_very_long_turn() -> None:
    said = words("nothing to see here " * 20_000 + "the key is under the third pot " + "more of the same " * 20_000)

    assert is_said(said, "the key is under third pot")
    assert not is_said(said, "the key is under the second pot")


@pytest.mark.parametrize(
    ("quote", "fact", "kept"),
    [
        ("我对花生过敏", "用户对花生过敏", True), ("我对花生过敏", "User is allergic to peanuts", False),
        ("I am allergic to peanuts", "用户对花生过敏", False),
        ("I am allergic to peanuts", "User is allergic to peanuts", True),
        ("я живу в Берлине", "User lives in Berlin", False), ("iPhone 15 Pro", "用户想买iPhone 15 Pro", True),
        ("OK", "用户同意了", True), ("42", "用户的房间号是42", True),
        ("ピアノを習っている", "用户在学钢琴", True), ("ＡＢＣＤＥ", "abcde", True),
        ("来週のtuesdayにmeetingがある", "来週の火曜日に会議がある", True),
        ("أعمل في Google backend", "يعمل في جوجل", True),
        ("I work at Google 哈", "用户在谷歌工作", False),
    ],
)  # fmt: skip
def test_a_fact_in_another_script_than_its_quote_has_not_kept_its_language(quote: str, fact: str, kept: bool) -> None:
    assert keeps_script(quote, fact) is kept


@pytest.mark.parametrize(
    ("denial", "text"),
    [
        *((True, text) for text in ("She no longer smokes", "hij heeft geen auto", "ohne Zucker", "他不抽烟",
                                    "彼は吸わない", "담배를 안 피워요", "朝食を食べずに出かける", "elle ne fume plus",
                                    "il n'a aucun chat", "isst weder Fleisch noch Fisch", "O usuário não mora no Rio",
                                    "नमक बिना", "يعيش بدون سيارة", "唔食肉",
                                    "忌口海鲜", "避免吃海鲜", "拒绝加班")),
        *((False, text) for text in ("The note is knotted", "特别喜欢非洲", "住在无锡的别墅", "无论如何他不但喜欢茶",
                                     "性别差不多", "未来在區別", "买了戒指给未婚妻", "喜欢无人机，在南非",
                                     "认识了不少朋友", "喜欢威士忌和忌廉汤", "冇問題", "喜不喜欢", "定期体检不一样",
                                     "O usuário mora no Rio", "a plus de trois enfants", "flat no. 12", "少ない時間で",
                                     "연못 옆에", "it is not only tea", "I can't wait to go")),
    ],
)  # fmt: skip
def test_a_denial_is_known_and_what_only_looks_like_one(denial: bool, text: str) -> None:
    assert denies(text) is denial


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("User likes tea", "user  likes tea!", True), ("User reads “Dune”", 'User reads "Dune"', True),
        ("User likes Ann’s tea", "User likes Ann's tea;", True), ("用户有2只猫", "用戶有２隻貓。", True),
        ("उपयोगकर्ता को चाय पसंद है", "उपयोगकर्ता को चाय पसंद है।", True), ("¡Le gusta el té!", "Le gusta el té", True),
        ("User knows C++", "User knows C#", False), ("User likes tea", "User likes tea?", False),
        ("The locker is 3.5", "The locker is 35", False),
    ],
)  # fmt: skip
def test_a_fact_is_the_same_however_it_is_written(one: str, other: str, same: bool) -> None:
    assert (fact_hash(one) == fact_hash(other)) is same


def test_a_text_that_denies_what_another_says_does_not_say_it() -> None:
    assert says_all("अन्ना अब भी पेरिस में रहती है", "अन्ना पेरिस में रहती है")
    assert not says_all("अन्ना अब पेरिस में नहीं रहती है", "अन्ना पेरिस में रहती है")


@pytest.mark.parametrize(("text", "parts"), [("मेरी उम्र पैंतीस", ["मेरी", "उम्र", "पैंतीस"]), ("مُحَمَّد", ["محمد"])])
def test_the_vowels_of_a_word_are_no_spaces(text: str, parts: list[str]) -> None:
    assert words(text) == parts
