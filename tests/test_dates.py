from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ],
)
def test_a_period_is_read(text: str, expected: tuple[str, str, str]) -> None:
    assert days(text) == [expected]


@pytest.mark.parametrize("text", ["what may happen", "locker 12", ""])
def test_what_is_no_date_gives_no_period(text: str) -> None:
    assert days(text) == []


def test_a_day_that_no_month_has_leaves_the_month() -> None:
    assert days("30 February 2023") == [("month", "2023-02-01", "2023-03-01")]


@given(
    st.text(st.sampled_from("0123456789 -/.年月日周上个前去今ſ三週間ago dayweekmonthyearlastMay8th")), st.datetimes()
)
def test_no_text_and_no_reference_makes_it_fail(text: str, reference: datetime) -> None:
    periods(text, reference.replace(tzinfo=UTC))


def test_agreement_falls_with_the_distance() -> None:
    wanted = periods("on 8 May 2023", NOW)
    at = [int(np.datetime64(day, "us").astype(int)) for day in ("2023-05-08", "2023-05-14", "2023-06-01", "2023-09-01")]
    assert agreement(np.array([*at, -1]), wanted).tolist() == [1, 1, 0.5, 0, 0]
