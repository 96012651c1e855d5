from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_memlayer.recall import wanted_version
from langchain_memlayer.recall.dates import agreement, periods

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


def days(text: str) -> list[tuple[str, str, str]]:
    def shown(micros: int) -> str:
        return str(np.datetime64(micros, "us").astype("datetime64[D]"))

    return [(period.grain, shown(period.start), shown(period.end)) for period in periods(text, NOW)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What happened on 8 May 2023?", ("day", "2023-05-08", "2023-05-09")),
        ("May 8th, 2023", ("day", "2023-05-08", "2023-05-09")),
        ("2023-05-08", ("day", "2023-05-08", "2023-05-09")),
        ("2024年04月01日去了哪里", ("day", "2024-04-01", "2024-04-02")),
        ("2024년 4월 1일", ("day", "2024-04-01", "2024-04-02")),
        ("in May 2023", ("month", "2023-05-01", "2023-06-01")),
        ("in 2023", ("year", "2023-01-01", "2024-01-01")),
        ("yesterday", ("day", "2026-11-23", "2026-11-24")),
        ("the day before yesterday", ("day", "2026-11-22", "2026-11-23")),
        ("last weekend", ("span", "2026-11-21", "2026-11-23")),
        ("three weeks ago", ("span", "2026-10-31", "2026-11-07")),
        ("上周六做了什么", ("day", "2026-11-21", "2026-11-22")),
        ("上个月", ("month", "2026-10-01", "2026-11-01")),
        ("三週間前", ("span", "2026-10-31", "2026-11-07")),
        ("先月", ("month", "2026-10-01", "2026-11-01")),
        ("지난주", ("span", "2026-11-16", "2026-11-23")),
        ("去年", ("year", "2025-01-01", "2026-01-01")),
        ("am 12. März 2025", ("day", "2025-03-12", "2025-03-13")),
        ("el 5 de mayo de 2024", ("day", "2024-05-05", "2024-05-06")),
        ("le 3 août 2025", ("day", "2025-08-03", "2025-08-04")),
        ("in maggio 2023", ("month", "2023-05-01", "2023-06-01")),
        ("em março de 2024", ("month", "2024-03-01", "2024-04-01")),
        # English
        ("the weekend before last", ("span", "2026-11-14", "2026-11-16")),
        ("the week before last", ("span", "2026-11-09", "2026-11-16")),
        ("two weekends ago", ("span", "2026-11-14", "2026-11-16")),
        ("a couple of weeks ago", ("span", "2026-11-07", "2026-11-14")),
        ("a few days ago", ("span", "2026-11-19", "2026-11-24")),
        ("several weeks ago", ("span", "2026-10-24", "2026-11-14")),
        ("a few months ago", ("month", "2026-07-01", "2026-10-01")),
        ("half a year ago", ("month", "2026-04-01", "2026-07-01")),
        ("the month before last", ("month", "2026-09-01", "2026-10-01")),
        ("the year before last", ("year", "2024-01-01", "2025-01-01")),
        ("last spring", ("month", "2026-03-01", "2026-06-01")),
        ("last winter", ("month", "2025-12-01", "2026-03-01")),
        ("in the summer of 2023", ("month", "2023-06-01", "2023-09-01")),
        ("in early May 2023", ("span", "2023-05-01", "2023-05-11")),
        ("around mid-June 2024", ("span", "2024-06-11", "2024-06-21")),
        ("at the end of October 2025", ("span", "2025-10-21", "2025-10-31")),
        ("May last year", ("month", "2025-05-01", "2025-06-01")),
        ("What are my plans for this Friday?", ("day", "2026-11-27", "2026-11-28")),
        ("this Monday", ("day", "2026-11-23", "2026-11-24")),
        ("last Tuesday", ("day", "2026-11-17", "2026-11-18")),
        ("on Tuesday", ("day", "2026-11-24", "2026-11-25")),
        ("this past Sunday", ("day", "2026-11-22", "2026-11-23")),
        ("the Saturday before last", ("day", "2026-11-14", "2026-11-15")),
        ("last night", ("day", "2026-11-23", "2026-11-24")),
        # Chinese
        ("二〇二四年四月一日", ("day", "2024-04-01", "2024-04-02")),
        ("二零二四年十二月二十五号", ("day", "2024-12-25", "2024-12-26")),
        ("２０２４年４月１日", ("day", "2024-04-01", "2024-04-02")),
        ("2024年4月", ("month", "2024-04-01", "2024-05-01")),
        ("二〇二四年十二月", ("month", "2024-12-01", "2025-01-01")),
        ("2024 年", ("year", "2024-01-01", "2025-01-01")),
        ("去年5月", ("month", "2025-05-01", "2025-06-01")),
        ("今年三月八号", ("day", "2026-03-08", "2026-03-09")),
        ("前年十二月", ("month", "2024-12-01", "2025-01-01")),
        ("去年夏天", ("month", "2025-06-01", "2025-09-01")),
        ("2023年秋天", ("month", "2023-09-01", "2023-12-01")),
        ("昨晚吃了什么", ("day", "2026-11-23", "2026-11-24")),
        ("前天", ("day", "2026-11-22", "2026-11-23")),
        ("大前天", ("day", "2026-11-21", "2026-11-22")),
        ("前几天", ("span", "2026-11-19", "2026-11-23")),
        ("几天前", ("span", "2026-11-19", "2026-11-24")),
        ("十几天前说了什么", ("span", "2026-11-05", "2026-11-14")),
        ("二十多天前", ("span", "2026-10-26", "2026-11-04")),
        ("几十天前", ("span", "2026-08-26", "2026-11-05")),
        ("十几个月前", ("month", "2025-04-01", "2026-01-01")),
        ("2024年春节我去了哪里", ("span", "2024-01-21", "2024-02-22")),
        ("2023年冬至", ("year", "2023-01-01", "2024-01-01")),
        ("二十五天前", ("day", "2026-10-30", "2026-10-31")),
        ("两个月前", ("month", "2026-09-01", "2026-10-01")),
        ("半年前", ("month", "2026-04-01", "2026-07-01")),
        ("三年以前", ("year", "2023-01-01", "2024-01-01")),
        ("上上周", ("span", "2026-11-09", "2026-11-16")),
        ("上上周日", ("day", "2026-11-15", "2026-11-16")),
        ("上个星期天", ("day", "2026-11-22", "2026-11-23")),
        ("上礼拜三", ("day", "2026-11-18", "2026-11-19")),
        ("这周一", ("day", "2026-11-23", "2026-11-24")),
        ("上周末", ("span", "2026-11-21", "2026-11-23")),
        ("上上个月", ("month", "2026-09-01", "2026-10-01")),
        ("前年", ("year", "2024-01-01", "2025-01-01")),
        # Japanese
        ("先週の土曜日", ("day", "2026-11-21", "2026-11-22")),
        ("今週の月曜", ("day", "2026-11-23", "2026-11-24")),
        ("先々週の金曜日", ("day", "2026-11-13", "2026-11-14")),
        ("先々週", ("span", "2026-11-09", "2026-11-16")),
        ("先週末", ("span", "2026-11-21", "2026-11-23")),
        ("三日前", ("day", "2026-11-21", "2026-11-22")),
        ("数日前", ("span", "2026-11-19", "2026-11-24")),
        ("2ヶ月前", ("month", "2026-09-01", "2026-10-01")),
        ("昨日", ("day", "2026-11-23", "2026-11-24")),
        ("おととい", ("day", "2026-11-22", "2026-11-23")),
        ("今朝", ("day", "2026-11-24", "2026-11-25")),
        ("先々月", ("month", "2026-09-01", "2026-10-01")),
        ("去年の夏", ("month", "2025-06-01", "2025-09-01")),
        ("一昨年", ("year", "2024-01-01", "2025-01-01")),
        # Korean
        ("어제", ("day", "2026-11-23", "2026-11-24")),
        ("그저께", ("day", "2026-11-22", "2026-11-23")),
        ("사흘 전", ("day", "2026-11-21", "2026-11-22")),
        ("3일 전", ("day", "2026-11-21", "2026-11-22")),
        ("일주일 전", ("span", "2026-11-14", "2026-11-21")),
        ("두 달 전", ("month", "2026-09-01", "2026-10-01")),
        ("지난주 토요일", ("day", "2026-11-21", "2026-11-22")),
        ("이번 주 월요일", ("day", "2026-11-23", "2026-11-24")),
        ("지지난주", ("span", "2026-11-09", "2026-11-16")),
        ("저번 주말", ("span", "2026-11-21", "2026-11-23")),
        ("지난달", ("month", "2026-10-01", "2026-11-01")),
        ("작년 여름", ("month", "2025-06-01", "2025-09-01")),
        ("재작년", ("year", "2024-01-01", "2025-01-01")),
    ],
)
def test_a_period_is_read(text: str, expected: tuple[str, str, str]) -> None:
    assert days(text) == [expected]


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [("in early May", "2023-05-05", "2023-05-20"), ("in mid May", "2023-05-15", "2023-05-05"),
     ("late May", "2023-05-28", "2023-05-11"), ("in May", "2022-05-28", "2022-07-28"),
     ("五月一号", "2021-05-01", "2021-04-01"), ("十二月", "2021-12-24", "2021-10-01"),
     ("on 31 December", "2021-12-31", "2021-11-20"), ("5月1日", "2020-05-02", "2020-08-02"),
     ("seit Juli", "2022-07-02", "2022-05-02"), ("en junio", "2022-06-02", "2022-08-02")],
)  # fmt: skip
def test_a_date_without_a_year_is_that_of_any_year(text: str, near: str, far: str) -> None:
    times = np.array([np.datetime64(day, "us").astype(int) for day in (near, far)])
    fit = agreement(times, periods(text, NOW))
    assert fit[0] == 1
    assert fit[1] < 1


@pytest.mark.parametrize(
    "text",
    ["what may happen", "locker 12", "", "13月40日", "2024年13月", "99月", "三四天前", "零天前", "0 weeks ago",
     "20240401", "5/8/23", "每周六", "下周六", "来週の土曜日", "다음 주 토요일", "几月几号", "the fall of man",
     "三个月", "spring rolls", "marching on", "a rover in Mars orbit", "mai più", "一二月", "二十一月"],
)  # fmt: skip
def test_what_is_no_date_or_an_ambiguous_one_gives_no_period(text: str) -> None:
    assert periods(text, NOW) == ()


def test_a_day_that_no_month_has_leaves_the_month() -> None:
    assert days("30 February 2023") == [("month", "2023-02-01", "2023-03-01")]


def test_several_dates_are_all_read() -> None:
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


@pytest.mark.parametrize(
    "text",
    ["Where does she live now?", "where is she living right now", "What is Ann's current job?",
     "Is he still vegetarian?", "现在住在哪里", "她目前在哪家公司上班？", "今どこに住んでいますか",
     "今の仕事は何ですか", "田中さんは今、何をしていますか", "지금 어디 살아요?", "요즘 뭐 해?",
     "Which phone does she use these days?"],
)  # fmt: skip
def test_a_question_about_the_present_is_known(text: str) -> None:
    assert wanted_version(text) == "now"


@pytest.mark.parametrize(
    "text",
    ["Where did she live in 2022?", "I know her", "just now", "今天吃什么", "今日の天気", "今月の予定",
     "今度会う", "今年", "今晩", "他以前住在哪里", "Now that she has moved, what did she sell?", "한 달 전",
     "What is in the snow?", "今朝の散歩"],
)  # fmt: skip
def test_other_questions_are_not(text: str) -> None:
    assert wanted_version(text) != "now"


@given(
    st.text(
        st.sampled_from(
            "0123456789 -/.年月日周上个前去今ſ三十二〇几週間の土曜夏ago dayweekmonthyearlastMay8th전달일주지난작년여름"
        )
    ),
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))])),
)
def test_no_text_and_no_reference_makes_it_fail(text: str, reference: datetime) -> None:
    for period in periods(text, reference):
        assert period.month is not None or period.start < period.end


def test_agreement_falls_with_the_distance() -> None:
    wanted = periods("on 8 May 2023", NOW)
    at = [int(np.datetime64(day, "us").astype(int)) for day in ("2023-05-08", "2023-05-14", "2023-06-01", "2023-09-01")]
    assert agreement(np.array([*at, -1]), wanted).tolist() == [1, 1, 0.5, 0, 0]
