import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from langchain_memlayer.recall import date_patterns, wanted_version
from langchain_memlayer.recall.date_words import speaks_of_time
from langchain_memlayer.recall.dates import agreement, periods

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


def days(text: str) -> list[tuple[str, str, str]]:
    def shown(micros: int) -> str:
        return str(np.datetime64(micros, "us").astype("datetime64[D]"))

    return [(period.grain, shown(period.start), shown(period.end)) for period in periods(text, NOW)]


PERIODS: dict[tuple[str, str, str], list[str]] = {
    # (grain, start, end) of what is said on Tuesday, 24 November 2026
    ("year", "1990-01-01", "2000-01-01"): ["in the 90s", "the '90s", "music of the 1990s", "上世纪90年代", "九十年代"],
    ("year", "2010-01-01", "2020-01-01"): ["in the 2010s", "the 10s"],
    ("year", "2023-01-01", "2024-01-01"): ["in 2023", "2023年冬至", "三年以前", "大前年"],
    ("span", "2023-05-01", "2023-05-11"): ["in early May 2023"],
    ("month", "2023-05-01", "2023-06-01"): ["in May 2023", "in maggio 2023"],
    ("day", "2023-05-08", "2023-05-09"): [
        "What happened on 8 May 2023?", "May 8th, 2023", "2023-05-08", "am 8.5.2023",
        "8 мая 2023 года",
    ],
    ("month", "2024-03-01", "2024-07-01"): [
        "What did I do from March to June 2024?", "von März bis Juni 2024", "de marzo a junio de 2024",
        "с марта по июнь 2024", "2024年3月到6月", "2024年三月至六月", "2024年3月から6月まで",
        "2024년 3월부터 6월까지", "2024年3-6月",
    ],
    ("span", "2023-05-08", "2026-11-25"): ["since 8 May 2023", "seit dem 8. Mai 2023", "2023年5月8日以来"],
    ("span", "2026-11-16", "2026-11-25"): ["What has changed since last week?", "上周开始"],
    ("span", "2026-11-20", "2026-11-25"): ["What has changed since Friday?"],
    ("month", "2026-03-01", "2026-11-25"): ["What did I say since March 2026?", "今年三月以后"],
    ("month", "2030-05-01", "2030-06-01"): ["since May 2030"],
    ("year", "1990-01-01", "2026-11-25"): ["since the 90s"],
    ("month", "2023-11-01", "2024-03-01"): ["between November and February 2024", "2023年11月到2月"],
    ("month", "2023-06-01", "2023-09-01"): ["in the summer of 2023", "summer 2023"],
    ("month", "2023-09-01", "2023-12-01"): ["2023年秋天"],
    ("year", "2024-01-01", "2025-01-01"): ["the year before last", "2024 年", "前年", "一昨年", "재작년"],
    ("span", "2024-01-21", "2024-02-22"): ["2024年春节我去了哪里", "前年春节", "재작년 설날"],
    ("month", "2024-03-01", "2024-04-01"): ["em março de 2024"],
    ("day", "2024-04-01", "2024-04-02"): [
        "2024年04月01日去了哪里", "24年4月1号（周三）", "2024년 4월 1일", "二〇二四年四月一日", "２０２４年４月１日",
    ],
    ("month", "2024-04-01", "2024-05-01"): ["2024年4月", "24年4月"],
    ("day", "2024-05-05", "2024-05-06"): ["el 5 de mayo de 2024"],
    ("span", "2024-06-11", "2024-06-21"): ["around mid-June 2024"],
    ("month", "2024-12-01", "2025-01-01"): ["二〇二四年十二月", "前年十二月"],
    ("day", "2024-12-25", "2024-12-26"): ["二零二四年十二月二十五号"],
    ("year", "2025-01-01", "2026-01-01"): ["去年", "去年底薪多少"],
    ("month", "2025-07-01", "2026-01-01"): ["去年下半年"],
    ("span", "2025-09-07", "2025-10-09"): ["去年中秋", "2025年中秋节"],
    ("span", "2025-10-01", "2025-10-08"): ["去年国庆去哪玩了", "2025年國慶"],
    ("month", "2025-10-01", "2026-01-01"): ["去年底", "去年年底", "2025年四季度"],
    ("day", "2025-03-12", "2025-03-13"): ["am 12. März 2025"],
    ("month", "2025-04-01", "2026-01-01"): ["十几个月前"],
    ("month", "2025-05-01", "2025-06-01"): ["May last year", "last year in May", "去年5月", "去年的五月"],
    ("month", "2025-06-01", "2025-09-01"): ["去年夏天", "去年の夏", "작년 여름"],
    ("day", "2025-08-03", "2025-08-04"): ["le 3 août 2025"],
    ("span", "2025-10-21", "2025-10-31"): ["at the end of October 2025"],
    ("month", "2025-12-01", "2026-03-01"): ["last winter"],
    ("month", "2026-03-01", "2026-06-01"): ["last spring"],
    ("day", "2026-03-08", "2026-03-09"): ["今年三月八号"],
    ("month", "2026-04-01", "2026-07-01"): ["half a year ago", "半年前"],
    ("month", "2026-07-01", "2026-10-01"): ["a few months ago"],
    ("span", "2026-08-26", "2026-11-05"): ["几十天前"],
    ("year", "2025-11-24", "2026-11-25"): ["over the past year", "过去一年"],
    ("month", "2026-08-23", "2026-11-25"): ["in the last three months", "近三个月", "過去3ヶ月", "최근 3개월"],
    ("span", "2026-11-10", "2026-11-25"): ["the past two weeks", "最近两周"],
    ("day", "2026-11-03", "2026-11-04"): ["twenty-one days ago", "twenty one days ago"],
    ("month", "2026-09-01", "2026-10-01"): [
        "the month before last", "两个月前", "上上个月", "2ヶ月前", "先々月", "두 달 전",
    ],
    ("month", "2026-10-01", "2026-11-01"): [
        "上个月", "先月", "上个月底", "지난달", "letzten Monat", "il mese scorso",
        "в прошлом месяце",
    ],
    ("span", "2026-10-24", "2026-11-14"): ["several weeks ago"],
    ("span", "2026-10-26", "2026-11-04"): ["二十多天前"],
    ("day", "2026-10-30", "2026-10-31"): ["二十五天前"],
    ("day", "2026-11-26", "2026-11-27"): [
        "what is on the day after tomorrow?", "后天有什么安排", "明後日", "모레", "übermorgen", "pasado mañana",
    ],
    ("span", "2026-10-31", "2026-11-07"): [
        "three weeks ago", "three weeks ago today", "my friend June 3 weeks ago", "三週間前",
        "vor drei Wochen", "il y a 3 semaines", "hace tres semanas", "tre settimane fa", "três semanas atrás",
        "три недели назад",
    ],
    ("span", "2026-11-05", "2026-11-14"): ["十几天前说了什么"],
    ("span", "2026-11-06", "2026-11-13"): ["半个月前", "보름 전", "a fortnight ago"],
    ("span", "2026-11-07", "2026-11-14"): ["a couple of weeks ago"],
    ("span", "2026-11-09", "2026-11-16"): ["the week before last", "上上周", "先々週", "지지난주"],
    ("day", "2026-11-13", "2026-11-14"): ["先々週の金曜日"],
    ("day", "2026-11-14", "2026-11-15"): ["the Saturday before last"],
    ("span", "2026-11-14", "2026-11-16"): ["the weekend before last", "two weekends ago"],
    ("span", "2026-11-14", "2026-11-21"): ["일주일 전"],
    ("day", "2026-11-15", "2026-11-16"): ["上上周日"],
    ("span", "2026-11-16", "2026-11-23"): [
        "지난주", "letzte Woche", "la semana pasada", "la semaine dernière", "semana passada", "на прошлой неделе",
    ],
    ("day", "2026-11-17", "2026-11-18"): ["last Tuesday", "letzten Dienstag", "mardi dernier"],
    ("day", "2026-11-18", "2026-11-19"): ["上礼拜三"],
    ("span", "2026-11-19", "2026-11-23"): ["前几天"],
    ("span", "2026-11-19", "2026-11-24"): ["a few days ago", "几天前", "数日前"],
    ("day", "2026-11-21", "2026-11-22"): [
        "上周六做了什么", "大前天", "先週の土曜日", "三日前", "사흘 전", "3일 전", "지난주 토요일",
    ],
    ("span", "2026-11-21", "2026-11-23"): [
        "last weekend", "上周末", "先週末", "저번 주말", "letztes Wochenende", "lo scorso weekend",
        "le week-end dernier",
    ],
    ("day", "2026-11-22", "2026-11-23"): [
        "the day before yesterday", "this past Sunday", "前天", "上个星期天", "おととい", "그저께",
    ],
    ("day", "2026-11-23", "2026-11-24"): [
        "yesterday", "this Monday", "last night", "昨晚吃了什么", "这周一", "今週の月曜", "昨日", "어제",
        "이번 주 월요일",
        "вчера", "gestern", "hier soir", "¿Qué hice ayer?", "ieri", "ontem",
    ],
    ("day", "2026-11-24", "2026-11-25"): ["on Tuesday", "今朝", "周二下午有什么会", "禮拜二"],
    ("day", "2026-11-25", "2026-11-26"): ["明早几点出发", "聽日", "星期三"],
    ("day", "2026-11-27", "2026-11-28"): [
        "大后天有什么安排", "しあさって", "글피",
        "What are my plans for this Friday?", "What is on for Friday?", "Who is coming on Friday?",
        "this coming Friday", "Was muss ich bis Freitag tun?", "hasta el viernes", "до пятницы",
    ],
    ("span", "2026-11-27", "2026-12-05"): [
        "Am I free next Friday?", "nächsten Freitag", "vendredi prochain", "venerdì prossimo", "el viernes que viene",
    ],
    ("span", "2026-11-28", "2026-12-07"): [
        "next weekend", "下周末去哪儿", "来週末", "다음 주말", "kommendes Wochenende",
    ],
    ("span", "2026-11-30", "2026-12-07"): [
        "What do I have next week?", "下周有什么安排", "下周天气怎么样", "来週", "다음 주",
    ],
    ("day", "2026-12-05", "2026-12-06"): ["下周六", "来週の土曜日", "다음 주 토요일"],
    ("day", "2026-12-03", "2026-12-04"): ["下个月3号", "来月3日"],
    ("span", "2026-12-07", "2026-12-14"): ["下下周", "再来週"],
    ("day", "2026-12-12", "2026-12-13"): ["下下周六", "再来週の土曜日"],
    ("month", "2026-12-01", "2027-01-01"): [
        "next month", "下个月", "来月", "다음 달", "nächsten Monat", "le mois prochain", "el mes que viene",
    ],
    ("month", "2027-03-01", "2027-04-01"): ["明年三月", "来年3月", "내년 3월"],
    ("year", "2028-01-01", "2029-01-01"): ["后年", "再来年"],
    ("year", "2027-01-01", "2028-01-01"): ["the coming year", "明年", "来年", "내년", "nächstes Jahr", "ano que vem"],
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [(text, period) for period, texts in PERIODS.items() for text in texts])
def test_a_period_is_read(text: str, expected: tuple[str, str, str]) -> None:
    assert days(text) == [expected]


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [("in early May", "2023-05-05", "2023-05-20"), ("in mid May", "2023-05-15", "2023-05-05"),
     ("late May", "2023-05-28", "2023-05-11"), ("in May", "2022-05-28", "2022-07-28"),
     ("五月一号", "2021-05-01", "2021-04-01"), ("十二月", "2021-12-24", "2021-10-01"),
     ("on 31 December", "2021-12-31", "2021-11-20"), ("5月1日", "2020-05-02", "2020-08-02"),
     ("国庆", "2022-10-03", "2022-11-03"), ("双十一买了什么", "2022-11-11", "2022-12-01"),
     ("seit Juli", "2022-07-02", "2022-05-02"), ("depuis juillet", "2022-07-02", "2022-05-02"),
     ("desde julio", "2022-07-02", "2022-05-02"), ("до июля", "2022-07-02", "2022-05-02"),
     ("en junio", "2022-06-02", "2022-08-02"), ("between May and July", "2022-06-15", "2022-09-15"),
     ("zwischen Mai und Juli", "2022-05-02", "2022-09-15"), ("entre mai et juillet", "2022-06-15", "2022-04-15"),
     ("since March", "2026-09-15", "2025-12-15"), ("12月から", "2026-09-15", "2025-11-15"),
     ("seit dem 8. Mai", "2026-09-15", "2026-03-15"), ("с марта", "2026-09-15", "2026-02-15"),
     ("3월부터", "2026-09-15", "2026-02-15"), ("十一月到一月", "2022-12-15", "2022-10-15"),
     ("3월부터 5월까지 뭐 했어", "2022-04-15", "2022-02-15")],
)  # fmt: skip
def test_a_date_without_a_year_is_that_of_any_year(text: str, near: str, far: str) -> None:
    times = np.array([np.datetime64(day, "us").astype(int) for day in (near, far)])
    fit = agreement(times, periods(text, NOW))
    assert fit[0] == 1
    assert fit[1] < 1


@pytest.mark.parametrize(
    "text",
    ["三周一次", "两个星期一次", "五一路", "之后年年如此", "李国庆住在哪里", "聪明儿子", "钢琴日常练习", "每月底还款",
     "what may happen", "locker 12", "", "13月40日", "2024年13月", "99月", "三四天前", "零天前", "0 weeks ago",
     "20240401", "5/8/23", "每周六", "几月几号", "the fall of man", "in her 30s", "the 905s", "1.2.2020.3",
     "三个月", "spring rolls", "marching on", "a rover in Mars orbit", "mai più", "un paseo de mar", "一二月",
     "二十一月", "一月一次", "3 years and 2 months ago", "for the last time", "最近三次",
     "This may be odd", "on this march", "may 5 people join us?", "I can march 3 miles", "14 may be enough",
     "call Jan 3 times", "in June's car", "the last year of school", "der letzte Monat vor der Prüfung", "am Morgen",
     "por la mañana", "hier ist es", "三年零两个月前", "一百零一天前",
     "农历八月十五日", "阴历七月", "闰六月", "음력 8월", "一个半月前", "上上上周",
     "the next week of my diet", "삼십 일 전", "십이 년 전", "열두 달 전", "三个月到五个月", "20-30月"],
)  # fmt: skip
def test_what_is_no_date_or_an_ambiguous_one_gives_no_period(text: str) -> None:
    assert periods(text, NOW) == ()


def test_a_month_in_small_letters_is_one_where_a_word_says_when() -> None:
    for text in ("on may 5 we met", "may 5, a party", "who came may 5th?", "the last Friday of may 2023"):
        assert [period.start > 0 or period.month == 5 for period in periods(text, NOW)] == [True]


def test_several_dates_are_all_read_and_a_day_that_no_month_has_leaves_the_month() -> None:
    assert days("30 February 2023") == [("month", "2023-02-01", "2023-03-01")]
    assert days("between 2023-05-08 and 2024年4月1日, or 上周六") == [
        ("day", "2023-05-08", "2023-05-09"), ("day", "2024-04-01", "2024-04-02"), ("day", "2026-11-21", "2026-11-22"),
    ]  # fmt: skip


@pytest.mark.parametrize("hours", [0, 9, -8])
def test_a_day_begins_where_the_reference_is(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    reference = datetime(2026, 11, 24, 0, 30, tzinfo=zone)
    (period,) = periods("yesterday", reference)
    assert period.start == (datetime(2026, 11, 23, tzinfo=zone) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(
        microseconds=1
    )


def test_equal_moments_of_two_zones_are_two_references() -> None:
    east, west = (datetime(2026, 11, 24, 12, tzinfo=UTC).astimezone(timezone(timedelta(hours=h))) for h in (9, -8))
    assert east == west
    assert periods("today", east) != periods("today", west)


PRESENT = [
    "Where does she live now?", "where is she living right now", "What is Ann's current job?",
    "Is he still vegetarian?", "现在住在哪里", "她目前在哪家公司上班？", "今どこに住んでいますか", "今の仕事は何ですか",
    "田中さんは今、何をしていますか", "지금 어디 살아요?", "요즘 뭐 해?", "Which phone does she use these days?",
]  # fmt: skip
OTHERS = [
    "Where did she live in 2022?", "I know her", "just now", "今天吃什么", "今日の天気", "今月の予定", "今度会う",
    "今年", "今晩", "他以前住在哪里", "Now that she has moved, what did she sell?", "한 달 전",
    "What is in the snow?", "今朝の散歩",
]  # fmt: skip


@pytest.mark.parametrize("text", [*PRESENT, *OTHERS])
def test_a_question_about_the_present_is_known(text: str) -> None:
    assert (wanted_version(text) == "now") is (text in PRESENT)


@example("前年春节", datetime(2, 1, 1, tzinfo=UTC))
@given(
    st.lists(
        st.sampled_from(
            [*"0123456789 -/.年月日周上个前去今ſ三十二〇几週間の土曜夏전달일주지난작년여름", *chain(*PERIODS.values())]
        ),
        max_size=6,
    ).map("".join),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))])),
)
def test_no_text_and_no_reference_makes_it_fail(text: str, reference: datetime) -> None:
    for period in periods(text, reference):
        assert period.month is not None or period.start < period.end


def _patterns(value: Any) -> list[re.Pattern[str]]:
    nested = value if isinstance(value, tuple) else [value] if isinstance(value, re.Pattern) else []
    return [pattern for one in nested for pattern in ([one] if isinstance(one, re.Pattern) else _patterns(one))]


SAID = [(name, one) for name, value in vars(date_patterns).items() for one in _patterns(value)]
BESIDE = {"SURE", "WHEN", "AHEAD", "AGO_SAID", "SINCE", "UNTIL_NOW"}
"""What is looked for beside a time."""


@pytest.mark.parametrize("pattern", [one for name, one in SAID if name not in BESIDE], ids=lambda one: one.pattern[:40])
@settings(max_examples=20)
@given(data=st.data())
def test_whatever_names_a_time_is_told_by_a_figure_or_a_word(pattern: re.Pattern[str], data: st.DataObject) -> None:
    found = pattern.search(unicodedata.normalize("NFKC", data.draw(st.from_regex(pattern))))
    assert found is None or speaks_of_time(found[0])


def test_agreement_falls_with_the_distance() -> None:
    wanted = periods("on 8 May 2023", NOW)
    at = [int(np.datetime64(day, "us").astype(int)) for day in ("2023-05-08", "2023-05-14", "2023-06-01", "2023-09-01")]
    assert agreement(np.array([*at, -1]), wanted).tolist() == [1, 1, 0.5, 0, 0]
    in_the_year = agreement(np.array(at), periods("in 2023", NOW))
    assert 0 < in_the_year[0] < 0.5
    assert in_the_year.tolist() == [in_the_year[0]] * 4
