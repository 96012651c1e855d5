from __future__ import annotations

import re

import pytest

from langchain_memlayer import LLMExtractor, Turn
from langchain_memlayer.facts.numerals import as_exact, numbers, unsaid_number
from langchain_memlayer.testing import ScriptedChatModel


@pytest.mark.parametrize(
    ("quote", "fact", "number"),
    [
        ("I have 3 cats", "Ann has 4 cats", "4"), ("I have three cats", "Ann has 17 cats", "17"),
        ("my rent is 1,200 euros", "Ann's rent is 1,300 euros", "1,300"),
        ("I ran 5.5 km", "Ann ran 55.25 km", "55.25"), ("我有两只猫", "用户有15只猫", "15"),
        ("我有3只猫", "用户有5只猫", "5"), ("my locker is number 412", "Ann's locker is number 421", "421"),
        ("I paid 80 on Monday", "Ann paid 95 on 2024-05-13", "95"), ("家賃は8万円です", "家賃は9万円", "90000"),
        ("Le loyer est de 2 500 euros", "Ann paie 3 500 euros", "3500"),
        ("the book is of 1948", "The book appeared in 1984", "1984"),
        ("我2012年搬到罗马", "用户2021年搬到罗马", "2021"),
        ("I was born in 1990 and moved in 2003", "Ann moved to Rome on 2013-05-01", "2013"),
        ("I take 50 mg a day", "Ann takes 500 mg a day", "500"), ("他欠我300块", "他欠用户3000块", "3000"),
        ("I paid 50 euros", "Ann paid 100 euros", "100"), ("我月薪1w", "用户月薪2万元", "20000"),
        ("苹果三块八一斤", "苹果8.3元一斤", "8.3"), ("the car cost 15000 euros", "Ann paid 1500 euros", "1500"),
        ("it has 1000 rooms on 12 floors", "It has 100 rooms", "100"),
        ("the house was 1500000 euros", "Ann paid 150000 euros", "150000"),
    ],
)  # fmt: skip
def test_a_number_that_contradicts_its_quote_is_found(quote: str, fact: str, number: str) -> None:
    assert unsaid_number(fact, quote, [quote], 2024) == number


@pytest.mark.parametrize(
    ("quote", "fact"),
    [
        ("I have two cats", "Ann has 2 cats"), ("I have twenty-five cats", "Ann has 25 cats"),
        ("a dozen eggs and 3 hens", "Ann has 12 eggs"), ("我有两只猫", "用户有2只猫"),
        ("三百五十块", "用户付了350块"), ("三百五", "用户付了350块"), ("十个", "用户有10个"),
        ("一万二", "用户付了12000"), ("1.2万", "用户付了12000"), ("it costs 5k", "It costs 5,000"),
        ("2 million people", "There are 2000000 people"), ("１２ at the station", "Locker 12 is Ann's"),
        ("call me at 555 1234", "Ann's number is 5551234"), ("call me at 5551234", "Ann's number is 555-1234"),
        ("3 weeks ago", "Ann moved on 2024-04-22"), ("3 weeks ago", "Ann moved on 22 April 2024"),
        ("3 weeks ago", "Ann moved on April 22"), ("3 weeks ago", "Ann moved on 22.04.2024"),
        ("三周前", "用户在4月22日搬家"), ("2 years ago", "Ann moved in 2022"),
        ("at 3 in the afternoon", "Ann comes at 15:00"), ("at 3 in the afternoon", "Ann comes at 3 pm"),
        ("on the 14th, for 2 days", "Ann comes on the 14th until the 16th"),
        ("I was born in 1990", "Ann is 34 years old"), ("I was born in May 1990", "Ann is 33 years old"),
        ("born in '85", "Ann is 38 years old"), ("我是85年的", "用户39岁"),
        ("I was born in 1990", "Ann is in her 30s"), ("我1990年出生", "用户30多岁"),
        ("I turn 40 next year", "Ann is 39 years old"), ("明年我四十岁", "用户39岁"),
        ("2 dogs and 14 hens", "Ann has 16 animals"), ("5 km each way", "Ann rides 10 km a day"),
        ("骑车往返,单程5公里", "用户每天骑10公里"), ("一刻钟", "用户走15分钟"),
        ("Ich habe drei Hunde und 20 Hennen", "Anna hat 3 Hunde und 20 Hennen"),
        ("mam cztery psy i 20 kur", "Ania ma 4 psy i 20 kur"), ("I have cats", "Ann has 17 cats"),
        ("half of it", "50% of it"), ("I paid one hundred and fifty dollars for 2", "Ann paid 150 dollars for two"),
        ("I earn three thousand five hundred a month, for 2 years", "Ann earns 3500 a month"),
        ("I run for half an hour, 3 times", "Ann runs 30 minutes"),
        ("my visa lasts two weeks from the 3 offices", "Ann's visa lasts 14 days"),
        ("工资涨了百分之十二点五，有3个人", "工资涨了12.5%"), ("J'ai trente-cinq ans et 2 enfants", "Ann a 35 ans"),
        ("저는 서른다섯 살이고 동생이 2명 있어요", "사용자는 35살이고 동생이 2명 있다"),
        ("my rent is 1200 euros", "Ann's rent of 1200 euros went up by 150 euros"),
        ("three quarters of an hour", "it takes 45 minutes"), ("奖金3万5", "奖金35000"), ("3 years", "36 months"),
        ("Je gagne deux mille cinq cents euros et j'ai 2 chats", "Elle gagne 2 500 €"),
        ("le prix est 1\u202f299 €", "1299 €"),
        ("J'habite ici depuis deux ans et demi", "depuis 2,5 ans"),
        ("Vivo aquí desde hace dos años y medio", "2,5 años"),
        ("my PIN is oh four two one", "Ann's PIN is 0421"), ("it is five five five, one two three four", "555-1234"),
        ("我一米八三", "用户身高183cm"), ("尾号幺二三", "车牌尾号123"), ("打了八折", "便宜了20%"),
        ("我体重一百二十斤", "60公斤"),
        ("两周后我去北京", "14天后去北京"), ("我每天走一个半小时", "每天走90分钟"),
        ("the way is 1h30", "it takes 90 minutes"),
        ("a third of my income", "33% of her income"), ("I have two boys and a girl", "Ann has 3 children"),
        ("The warranty lasts 24 months", "It lasts 2 years"), ("I'll be 40 in June", "Ann is 39"),
        ("Le train part à huit heures moins le quart", "Le train part à 7h45"), ("two and a half hours", "150 minutes"),
        ("born in 1990, in Rome from 12 on", "Ann lives in Rome since 2002"),
        ("in 1999, and last year", "on 2023-05-01"),
        ("from 1999 to 2003", "until 2003"), ("the year after 2010", "in 2011"),
        ("since the winter of 2009/10", "in 2010"),
        ("aged 20 in 1980", "born in 1960"), ("built in 1948, sold for 1984 marks", "It was sold for 1984 marks"),
        ("½ cup, or 1/4", "0.5 cup, or 0.25"), ("1½ cups", "1.5 cups"), ("三分之一", "1/3"),
        ("they doubled my dose of 50", "Ann takes 100 mg"), ("they halved my 50 mg dose", "Ann takes 25 mg"),
        ("a 10% raise on 80k", "Ann earns 88,000"), ("20% off the 150 euro jacket", "a jacket for 120 euros"),
        ("一万五六", "15000到16000元"), ("一打啤酒", "12瓶啤酒"), ("1,5 Std", "90 Minuten"),
        ("我九零年生的", "用户34岁"), ("월세 80만원", "월세는 800,000원"), ("연봉이 5천만원", "연봉은 50,000,000원"),
        ("плачу 45 тысяч", "платит 45 000"), ("身高一米八", "身高180厘米"), ("we split 90 three ways", "Ann paid 30"),
        ("苹果三块八一斤", "苹果每斤3.8元"), ("停车两毛", "停车0.2元"), ("重六斤八两", "重6.8斤"),
        ("年终奖3w5", "年终奖35000元"), ("3w5", "年终奖35000元"),
        ("转账壹万贰仟叁佰元", "转账12300元"), ("五号楼三单元十二零一", "5号楼3单元1201"), ("儿子三岁半", "儿子42个月"),
        ("等了一个钟头", "等了60分钟"),
    ],
)  # fmt: skip
def test_what_was_said_or_can_be_worked_out_is_no_contradiction(quote: str, fact: str) -> None:
    assert unsaid_number(fact, quote, [quote], 2024) is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("User paid one hundred and fifty euros for the 2 of them", {150, 2}),
        ("the rent is 18k, once a month", {18_000}), ("用户付了三百五十块，12只猫", {350, 12}),
        ("75元一片，10块3张", {75, 10, 3}), ("三块五买的", {3.5}), ("苹果3块1", {3.1}),
        ("用户付了1.2万", {12_000}), ("②6万2千円のほう", {2, 62_000}), ("3万2百元", {30_200}), ("3块5个人分", {3, 5}),
        ("10元3件", {10, 3}),
        ("每斤二十五块八毛", {25.8}), ("大陆的陆先生付了3W", {30_000}), ("贰拾万", {200_000}),
        ("两点二十出发，血糖七点八", {7.8}),
        ("1亿2千万", {120_000_000}),
        ("12만 5천 원", {120_000, 5000}), ("3천만원", {30_000_000}), ("3万5", {35_000}), ("2½ 3千克", {2, 0.5, 3000}),
        ("百分之十二点五", {12.5}), ("User has a two-bedroom flat", {2}),
        ("Anna moved on 2024-05-13 at 19:00, on May 3", set()), ("she is one of us, the rent is due", set()),
        ("下午三点半开会，九点零五散", set()),
    ],
)  # fmt: skip
def test_the_numbers_of_a_text_are_those_in_digits_and_in_words_of_its_language(text: str, values: set[float]) -> None:
    assert numbers(text) >= values
    assert values or not numbers(text)


def test_thousands_are_one_number_however_they_are_written() -> None:
    assert numbers("User earns 75k, or 2.5万, and 2 500 more") == {75_000, 25_000, 2500}
    assert numbers("涨了百分之二十") == numbers("涨了20%")


@pytest.mark.parametrize("noise", ["六" * 5000, "9" * 5000, "六" * 41, "6." * 500 + "6"])
def test_a_run_that_is_no_number_is_passed_over(noise: str) -> None:
    assert unsaid_number("Ann has 17 cats", f"3 cats {noise}", [f"3 cats {noise}"], 2024) == "17"
    assert unsaid_number("Ann has 3 cats", "3 cats", [f"3 cats {noise}"], 2024) is None


def test_a_long_list_of_numbers_contradicts_nothing() -> None:
    numbers = " ".join(str(number) for number in range(1000, 1060))
    assert unsaid_number("Ann has 987654 stamps", numbers, [numbers]) == "987654"
    assert unsaid_number("Ann has 987654 stamps", f"{numbers} 7", [numbers]) is None


def test_a_number_may_stand_elsewhere_in_what_was_said() -> None:
    said = ["I take bus 42, it takes 30 minutes"]
    assert unsaid_number("Bus 42 takes Ann 30 minutes", "it takes 30 minutes", said) is None
    assert unsaid_number("Bus 42 takes Ann an hour", "it takes 30 minutes", ["I take bus 42"]) is None
    assert unsaid_number("Bus 43 takes Ann an hour", "it takes 30 minutes", ["I take bus 42"]) == "43"
    assert unsaid_number("Ann's dog is 5", "he is 2 years older", ["My cat is 3, and he is 2 years older"]) is None
    assert unsaid_number("Ann did 10 push-ups", "another 5 today", ["I did 5 yesterday", "another 5 today"]) is None


def test_a_fact_with_a_hallucinated_number_is_rejected_and_the_rejection_recorded() -> None:
    quote = "we have 3 cats"
    entry = {"turn": 2, "quote": quote, "subject": "", "valid_at": "", "retract": False, "triples": []}
    texts = ["The user has 3 cats", "The user has 5 cats", "The user has 3 cats at number 48", "The user lives at 48"]
    model = ScriptedChatModel(replies=[{"facts": [{**entry, "fact": text} for text in texts]}])
    turns = [Turn("We live at number 48."), Turn("Oh, and we have 3 cats!"), Turn("And 5 dogs.")]
    found = LLMExtractor(model).extract(turns, [])
    assert [fact.text for fact in found.facts] == [texts[0], texts[2], texts[3]]
    assert [(refused.text, refused.reason, refused.quote) for refused in found.rejected] == [
        (texts[1], "nobody said its number 5", quote)
    ]


@pytest.mark.parametrize(
    ("quote", "fact"),
    [
        ("her birthday is in March", "Ana's birthday is in 2025-03"),
        ("im März ziehen wir um", "Nutzer zieht 2025-03 um"), ("三月搬家", "用户2025-03搬家"),
        ("3月に引っ越す", "ユーザーは2025-03に引っ越す"),
        ("3월에 이사해요", "사용자는 2025-03에 이사"), ("em março eu mudo", "Usuário muda em 2025-03"),
        ("переезжаю в марте", "Пользователь переезжает 2025-03"), ("3월 1일에 이사해요", "사용자는 2025-03-01에 이사"),
        ("from the first of March", "User works there from 2025-03-01"),
        ("at the beginning of March", "User moves on 2025-03-01"), ("on March 1", "User moves on 2025-03-01"),
        ("3月1号搬家", "用户2025-03-01搬家"), ("三月一日搬家", "用户2025-03-01搬家"),
        ("I married Mark yesterday", "User married Mark on 2025-03-01"),
        ("I may move tomorrow", "User may move on 2025-03-01"),
    ],
)  # fmt: skip
def test_a_month_that_was_said_without_a_day_gets_none(quote: str, fact: str) -> None:
    assert as_exact(re.sub(r"2025-03(?!-)", "2025-03-01", fact), quote) == fact
