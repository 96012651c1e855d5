import random
from dataclasses import astuple

import pytest

from langchain_memlayer import InvalidInput
from langchain_memlayer.evaluation import Estimate, Hit, Question
from langchain_memlayer.evaluation.metrics import (
    difference,
    estimate,
    estimates,
    hit_at,
    ndcg_at,
    percentile,
    recall_at,
    recall_within,
    reciprocal_rank,
    within,
)
from langchain_memlayer.evaluation.results import measures

HITS = [{"x"}, {"a", "y"}, set(), {"a"}, {"b", "c"}]
GOLD = ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("k", "share", "hit"), [(0, 0, 0), (1, 0, 0), (2, 1 / 4, 1), (4, 1 / 4, 1), (5, 3 / 4, 1), (99, 3 / 4, 1)]
)
def test_recall_at_k_is_the_share_of_gold_that_the_first_k_hits_cover_and_a_hit_one_of_it(
    k: int, share: float, hit: int
):
    assert (recall_at(HITS, GOLD, k), hit_at(HITS, GOLD, k)) == (share, hit)
    assert recall_at([["a", "a"]], ["a", "a", "b"], 1) == 1 / 2


def test_the_reciprocal_rank_is_that_of_the_first_hit():
    assert reciprocal_rank(HITS, GOLD) == 1 / 2
    assert reciprocal_rank(HITS, ["b"]) == 1 / 5
    assert reciprocal_rank(HITS, ["z"]) == 0
    assert reciprocal_rank([], ["z"]) == 0


@pytest.mark.parametrize(("budget", "count"), [(9, 0), (10, 1), (29, 1), (30, 2), (35, 3), (10_000, 4)])
def test_what_fits_ends_with_the_first_hit_that_does_not(budget: int, count: int):
    assert within([10, 20, 5, 1_000], budget) == count


def test_recall_within_tokens_looks_at_the_hits_that_fit():
    tokens = [10, 10, 10, 10, 10]
    assert [recall_within(HITS, tokens, GOLD, budget) for budget in (19, 20, 49, 50)] == [0, 1 / 4, 1 / 4, 3 / 4]
    # A hit that does not fit ends it, also when a later one would.
    assert recall_within([{"x"}, {"a"}], [500, 1], ["a"], 100) == 0
    with pytest.raises(InvalidInput, match="token counts"):
        recall_within(HITS, [1], GOLD, 10)


@pytest.mark.parametrize("measure", [lambda: recall_at(HITS, [], 1), lambda: reciprocal_rank(HITS, [])])
def test_without_gold_there_is_nothing_to_measure(measure):
    with pytest.raises(InvalidInput, match="without evidence"):
        measure()


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # From the formula by hand; 81 of 263 is Newcombe's example (1998): .2553 to .3662.
    [
        (81, 263, 0.2553, 0.3662),
        (0, 20, 0.0, 0.1611),
        (20, 20, 0.8389, 1.0),
        (1, 29, 0.0061, 0.1718),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_the_interval_is_wilsons(correct: int, total: int, low: float, high: float):
    found = estimate([1.0] * correct + [0.0] * (total - correct))
    assert (found.mean, found.count) == (correct / total, total)
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


def test_the_interval_of_shares_covers_the_true_mean_at_least_as_often_as_it_says():
    chance = random.Random(5)
    covered = 0
    for _ in range(400):
        found = estimate([chance.choice((0, 1 / 3, 1 / 2, 1)) for _ in range(40)])
        covered += found.low <= (1 / 3 + 1 / 2 + 1) / 4 <= found.high
    assert covered >= 0.95 * 400


def test_questions_about_one_conversation_that_go_together_count_for_fewer():
    alike = [1.0] * 20 + [0.0] * 20
    named = ["a"] * 10 + ["b"] * 10 + ["c"] * 10 + ["d"] * 10
    alone, together = estimate(alike), estimate(alike, clusters=named)
    assert (together.mean, together.count) == (alone.mean, alone.count)
    assert (together.low, together.high) == pytest.approx(astuple(estimate([1.0, 1.0, 0.0, 0.0]))[1:3])
    assert estimate(alike, clusters=["a"] * 40) == estimate(alike, clusters=[str(n) for n in range(40)]) == alone


def test_a_paired_difference_is_surer_than_its_parts_and_draws_whole_conversations():
    chance = random.Random(2)
    theirs = [float(chance.random() < 0.5) for _ in range(200)]
    ours = [max(value, float(chance.random() < 0.1)) for value in theirs]
    questions = [str(n) for n in range(200)]
    found = difference(ours, theirs, questions)
    assert 0 < found.low < found.mean < found.high < 0.12
    assert found == difference(ours, theirs, questions)
    assert difference(theirs, theirs, questions) == Estimate(0.0, 0.0, 0.0, 200)
    assert astuple(difference(ours, theirs, ["one"] * 200)) == pytest.approx(astuple(found), abs=0.01)
    # Two conversations that say the opposite leave all open.
    apart = difference([1.0] * 10 + [0.0] * 10, [0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10)
    assert (apart.low, apart.mean, apart.high) == (-1, 0, 1)
    with pytest.raises(InvalidInput):
        difference([1.0], [], ["a"])


@pytest.mark.parametrize(
    ("hits", "gold", "k", "gain"),
    [([["a"], ["b"]], ["a", "b"], 10, 1.0), ([["x"], ["a"]], ["a"], 10, 0.6309), ([["x"], ["a"]], ["a"], 1, 0.0),
     ([["a"], ["a"], ["b"]], ["a", "b"], 10, 0.9197), ([["a", "b"]], ["a", "b"], 10, 1.0)],
)  # fmt: skip
def test_ndcg_discounts_by_place_and_counts_each_id_once(hits: list[list[str]], gold: list[str], k: int, gain: float):
    assert ndcg_at(hits, gold, k) == pytest.approx(gain, abs=5e-5)


@pytest.mark.parametrize(("values", "why"), [([], "at least one"), ([1.5], "0 to 1")])
def test_what_is_no_sample_is_refused(values: list[float], why: str):
    with pytest.raises(InvalidInput, match=why):
        estimate(values)


def test_estimates_are_made_for_all_and_for_each_category():
    rows = [("b", "c1", {"x": 1.0}), ("a", "c2", {"x": 0.0, "y": 0.5}), ("b", "c3", {"x": 0.5})]
    found = estimates(rows)
    assert list(found) == ["all", "a", "b"]
    assert found["all"]["x"] == estimate([1.0, 0.0, 0.5])
    assert found["b"]["x"] == estimate([1.0, 0.5])
    assert found["all"]["y"] == found["a"]["y"] == estimate([0.5])
    assert "y" not in found["b"]
    assert estimates([]) == {}
    assert estimates([("all", "c", {"x": 1.0})])["all"]["x"].count == 1


def test_percentiles_are_values_that_occurred():
    assert [percentile([4, 1, 3, 2], share) for share in (0.25, 0.5, 0.51, 0.95, 1)] == [1, 2, 3, 4, 4]
    with pytest.raises(InvalidInput):
        percentile([], 0.5)


def test_the_measures_of_a_question_and_none_without_evidence():
    hits = [Hit("one", ("t1",), ("s1",), 600), Hit("two", ("t2", "t3"), ("s2",), 600)]
    asked = Question("q", "?", "kind", "!", evidence=("t2", "t9"), sessions=("s2",))
    assert measures(asked, hits, k=(1, 2), max_tokens=1_000) == {
        "recall@1": 0.0, "recall@2": 0.5, "recall@1000t": 0.0, "hit@1": 0.0, "hit@2": 1.0, "MRR": 0.5,
        "nDCG@10": pytest.approx(0.3869, abs=5e-5), "session recall@1": 0.0, "session recall@2": 1.0,
    }  # fmt: skip
    assert measures(Question("q", "?", "kind", "!"), hits, k=(1,), max_tokens=9) == {}
    never = Question("q", "?", "kind", "!", evidence=("t2",), sessions=("s2",), answerable=False)
    assert measures(never, hits, k=(1,), max_tokens=9) == {}
