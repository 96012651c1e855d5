"""What held when, and what was known when: `as_of=`, `known_at=`, and questions about the present."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from journal_dump import open_memory, texts
from memory_kit import Extracting

from langchain_memlayer import InvalidInput, ScopeRequired, Triple
from langchain_memlayer.agents.context import as_context
from langchain_memlayer.errors import ExtractionError
from langchain_memlayer.testing import FrozenClock, ScriptedChatModel
from langchain_memlayer.types import Extraction, Fact, Turn


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Story(Extracting):
    """Facts by what is said, and the one decision that the model makes of each."""

    def __init__(self) -> None:
        self.told: dict[str, Fact] = {}
        self.replies: list[dict[str, Any]] = []
        self.clock = FrozenClock(day("2024-01-01"))
        self.model = ScriptedChatModel(replies=lambda prompt: self.replies.pop(0))
        self.memory = open_memory(":memory:", model=self.model, extractor=self, clock=self.clock)

    def extract(self, turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        return Extraction(tuple(self.told[turn.text] for turn in turns if turn.text in self.told))

    def tell(
        self, at: str, said: str, fact: str, action: str = "ADD", *, since: str | None = None, user: str = "u"
    ) -> dict[str, Any]:
        """Somebody says something at a time; the one fact in it adds, changes or ends what is known."""
        self.clock.advance(days=(day(at) - self.clock()).days)
        self.told[said] = Fact(fact, (0,), quote=said, valid_at=None if since is None else day(since))
        entry = {"fact": 1, "action": action, "memory": int(action != "ADD"), "text": fact, "reason": ""}
        self.replies = [{"decisions": [entry]}]
        done: dict[str, Any] = self.memory.add(said, user_id=user, timestamp=day(at))
        return done

    def facts(self, query: str = "Where does Anna live?", **asked: Any) -> list[str]:
        return texts(self.memory.search(query, user_id="u", kinds=["fact"], limit=50, **asked))


@pytest.fixture
def story() -> Iterator[Story]:
    told = Story()
    yield told
    told.memory.close()


@pytest.mark.parametrize("since", [None, "2024-08-06"])
def test_the_day_on_which_something_began_is_that_of_who_told_it(story: Story, since: str | None) -> None:
    story.tell("2024-03-01", "first", "Anna lives in Oslo")
    story.told["then"] = Fact("Anna lives in Rome", (0,), quote="then", valid_at=since and day(since))
    story.replies = [{"decisions": [{"fact": 1, "action": "UPDATE", "memory": 1, "text": "Anna lives in Rome"}]}]
    story.clock.advance(days=200)
    story.memory.add("then", user_id="u", timestamp="2024-08-06T22:00:00-04:00")
    [memory] = story.memory.get_all(user_id="u", kinds=["fact"])["results"]
    assert memory["valid_at"] == ("2024-08-06T22:00:00-04:00" if since is None else "2024-08-06T00:00:00+00:00")
    assert "- 2024-08-06 Anna lives in Rome" in as_context([memory])
    story.tell("2024-10-01", "last", "Anna lives in Bern", "UPDATE")
    assert '"since": "2024-08-06"' in story.model.prompts[-1][-1].text


@pytest.fixture
def moves(story: Story) -> Story:
    """Anna lives in Paris, then in Berlin, then in Rome."""
    story.tell("2024-02-01", "I live in Paris", "Anna lives in Paris")
    story.tell("2024-05-13", "I moved to Berlin", "Anna lives in Berlin", "UPDATE")
    story.tell("2024-09-01", "Rome is home now", "Anna lives in Rome", "UPDATE")
    return story


def test_what_happens_at_a_time_counts_more_than_what_was_told_then(story: Story) -> None:
    story.tell("2024-04-10", "I signed up again", "Anna takes the test in Lyon anew", since="2024-07-05")
    story.tell("2024-05-20", "the letter came", "Anna took the test in Rome", since="2024-04-12")
    shares = {
        hit["memory"]: hit["explanation"]["date"]
        for hit in story.memory.search("Anna's test in April", user_id="u", kinds=["fact"], explain=True)["results"]
    }
    assert shares["Anna took the test in Rome"] > shares["Anna takes the test in Lyon anew"] > 0


def test_a_question_about_what_is_to_come_finds_what_happens_then(story: Story) -> None:
    for day, what in (("02-16", "dentist"), ("02-22", "vet"), ("03-11", "notary")):
        story.tell("2024-02-14", f"the {what} is on", f"Anna has to see the {what}", since=f"2024-{day}")
    for query, right in (("Whom will Anna see on Friday?", "dentist"), ("Whom does Anna see next week?", "vet"),
                         ("Anna 下个月有什么安排？", "notary")):  # fmt: skip
        hits = story.memory.search(
            query, user_id="u", kinds=["fact"], explain=True, reference_time="2024-02-14T12:00:00"
        )["results"]  # fmt: skip
        best = max(hits, key=lambda hit: hit["explanation"]["date"])
        assert best["explanation"]["date"] > 0
        assert right in best["memory"]


def test_a_question_about_a_month_finds_what_happens_in_it_whenever_it_was_told(story: Story) -> None:
    story.tell("2024-02-01", "the concert is on", "Anna's choir sings in a concert", since="2024-06-21")
    story.tell("2024-02-01", "the trip is on", "Anna's choir goes on a trip", since="2024-09-03")

    for query, right in (("What does the choir do in June?", "sings"), ("¿Qué hace en septiembre?", "trip")):
        hits = story.memory.search(query, user_id="u", kinds=["fact"], explain=True)["results"]
        assert [right in hit["memory"] for hit in hits if hit["explanation"]["date"] > 0] == [True]


@pytest.mark.parametrize(
    ("query", "right"),
    [("What did I do last weekend?", "canoe"), ("昨天我做了什么", "dentist"),
     ("Was habe ich gestern gemacht?", "dentist"),
     ("What is planned for the day after tomorrow?", "Oslo"), ("¿Qué hice ayer?", "dentist")],
)  # fmt: skip
def test_a_question_that_says_nothing_but_a_time_is_answered_by_what_happens_then(
    story: Story, query: str, right: str
) -> None:
    for when, what in (("12", "saw the dentist"), ("09", "bought a canoe"), ("15", "flies to Oslo")):
        story.tell("2024-05-01", what, f"Anna {what}", since=f"2024-06-{when}")
    assert right in story.facts(query, reference_time="2024-06-13T12:00:00")[0]


def differences(memory: Any, since: str, until: str | None = None, **given: Any) -> tuple[list[Any], ...]:
    """The texts that came, changed and went."""
    found = memory.diff(since, until, **(given or {"user_id": "u"}))
    assert found["since"] == day(since).isoformat()
    changed = [(one["before"]["memory"], one["after"]["memory"]) for one in found["changed"]]
    assert all(one["id"] == one["before"]["id"] == one["after"]["id"] for one in found["changed"])
    return [one["memory"] for one in found["added"]], changed, [one["memory"] for one in found["ended"]]


def test_a_diff_has_what_came_and_what_changed_between_two_instants(moves: Story) -> None:
    for since, until, expected in (
        ("2024-01-01", "2024-02-01", (["Paris"], [], [])), ("2024-02-01", "2024-09-01", ([], [("Paris", "Rome")], [])),
        ("2024-02-01", "2024-08-31", ([], [("Paris", "Berlin")], [])), ("2024-01-01", None, (["Rome"], [], [])),
        ("2024-09-01", None, ([], [], [])), ("2024-02-02", "2024-05-12", ([], [], [])),
    ):  # fmt: skip
        added, changed, ended = differences(moves.memory, since, until)
        cities = [text.removeprefix("Anna lives in ") for text in added]
        pairs = [tuple(text.removeprefix("Anna lives in ") for text in pair) for pair in changed]
        assert (cities, pairs, ended) == expected


def test_a_diff_has_what_ended_but_not_what_came_and_went_nor_what_was_forgotten(story: Story) -> None:
    story.tell("2024-02-01", "I play tennis", "Anna plays tennis")
    story.tell("2024-03-01", "I sail", "Anna sails")
    story.tell("2024-04-01", "No tennis any more", "Anna no longer plays tennis", "DELETE")
    story.clock.advance(days=30)
    story.memory.add("Stored as given", user_id="v", infer=False)
    assert differences(story.memory, "2024-02-15") == (["Anna sails"], [], ["Anna plays tennis"])
    assert differences(story.memory, "2024-01-15") == (["Anna sails"], [], [])
    assert differences(story.memory, "2024-03-15", everything=True) == (["Stored as given"], [], ["Anna plays tennis"])
    said = ["I play tennis", "I sail", "No tennis any more"]
    assert differences(story.memory, "2024-01-15", user_id="u", kinds=["turn"]) == (said, [], [])
    story.memory.forget(user_id="u")
    assert differences(story.memory, "2024-01-15") == ([], [], [])


def test_a_diff_has_the_relations_that_came_and_went() -> None:
    clock = FrozenClock(day("2024-01-01"))
    facts = {
        city: Fact(f"Anna lives in {city}", (0,), quote=city, triples=(Triple("Anna", "lives_in", city),))
        for city in ("Paris", "Berlin")
    }
    with open_memory(":memory:", extractor=(story := Story()), reconcile="rules", clock=clock) as memory:
        story.told = facts
        first = memory.add("Paris", user_id="u")["results"][0]["id"]
        clock.advance(days=1)
        memory.add("Berlin", user_id="u")
        memory.delete(first)
        found = memory.diff("2024-01-01T12:00", user_id="u")
    story.memory.close()
    assert [one["destination"] for one in found["relations"]["added_entities"]] == ["Berlin"]
    assert [one["destination"] for one in found["relations"]["deleted_entities"]] == ["Paris"]


def test_a_diff_of_no_times_is_refused(story: Story) -> None:
    for given in (("soon",), (None,), ("2024-02-01", "2024-01-01")):
        with pytest.raises(InvalidInput):
            story.memory.diff(*given, user_id="u")
    with pytest.raises(ScopeRequired):
        story.memory.diff("2024-01-01")


def test_of_a_chain_of_changes_the_one_that_held_or_was_known_is_found(moves: Story) -> None:
    before = moves.memory.search("Where does Anna live?", user_id="u")
    for as_of, *held in (("2024-01-31",), ("2024-02-01", "Paris"), ("2024-05-12T23:59", "Paris"),
                         ("2024-05-13", "Berlin"), ("2024-08-31", "Berlin"), ("2024-09-01", "Rome"),
                         ("2030-01-01", "Rome"), ("1900-01-01",)):  # fmt: skip
        assert moves.facts(as_of=as_of) == [f"Anna lives in {city}" for city in held]
    for known_at, *known in (("2024-01-31",), ("2024-02-01", "Paris"), ("2024-06-01", "Berlin"),
                             ("2024-09-01", "Rome")):  # fmt: skip
        assert moves.facts(known_at=known_at) == [f"Anna lives in {city}" for city in known]
    # A turn is said once and for all.
    said = moves.memory.search("Anna Paris Berlin Rome home", user_id="u", kinds=["turn"], as_of="2024-06-01")
    assert sorted(texts(said)) == ["I live in Paris", "I moved to Berlin"]
    # A search of the past changes no search of the present.
    assert moves.memory.search("Where does Anna live?", user_id="u") == before


def test_a_change_is_dated_by_when_it_was_told_and_the_memory_by_its_first_version(moves: Story) -> None:
    (now,) = moves.memory.search("Anna", user_id="u", kinds=["fact"])["results"]
    assert now["valid_at"] == "2024-09-01T00:00:00+00:00"
    assert now["created_at"] == "2024-02-01T00:00:00+00:00"
    assert now["invalid_at"] is None
    (then,) = moves.memory.search("Anna", user_id="u", kinds=["fact"], as_of="2024-06-01")["results"]
    assert (then["valid_at"], then["invalid_at"]) == ("2024-05-13T00:00:00+00:00", "2024-09-01T00:00:00+00:00")
    assert then["ended"]


def test_a_change_that_says_since_when_holds_from_then_on(story: Story) -> None:
    story.tell("2024-02-01", "I live in Paris", "Anna lives in Paris")
    story.tell("2024-05-13", "I left Paris last Friday", "Anna lives in Berlin", "UPDATE", since="2024-05-10")
    assert story.facts(as_of="2024-05-09") == ["Anna lives in Paris"]
    assert story.facts(as_of="2024-05-11") == ["Anna lives in Berlin"]
    # On the eleventh nobody had told it yet.
    assert story.facts(as_of="2024-05-11", known_at="2024-05-12") == ["Anna lives in Paris"]
    story.tell("2024-06-01", "I will move in July", "Anna lives in Oslo", "UPDATE", since="2024-07-01")
    assert story.facts(as_of="2024-06-02") == ["Anna lives in Berlin"]
    assert story.facts(as_of="2024-07-01") == ["Anna lives in Oslo"]
    # Without a time it is the last thing that was told.
    assert story.facts() == ["Anna lives in Oslo"]


def test_what_is_told_later_about_earlier_holds_from_earlier(moves: Story) -> None:
    moves.tell("2024-10-01", "Since March", "Anna lives in Oslo", "UPDATE", since="2024-03-01")
    assert moves.facts(as_of="2024-02-15") == ["Anna lives in Paris"]
    # The memory has one text at a time: of two versions that would hold, the last one told does.
    assert moves.facts(as_of="2024-04-01") == ["Anna lives in Oslo"]
    assert moves.facts(as_of="2024-04-01", known_at="2024-09-30") == ["Anna lives in Paris"]
    assert moves.facts() == ["Anna lives in Oslo"]


def test_more_words_about_the_same_and_other_metadata_have_held_as_long(story: Story) -> None:
    story.tell("2024-02-01", "I live in Paris", "Anna lives in Paris", since="2020-01-01")

    def now() -> dict[str, Any]:
        (hit,) = story.memory.search("Anna", user_id="u", kinds=["fact"])["results"]
        assert hit["valid_at"] == "2020-01-01T00:00:00+00:00"
        return dict(hit)

    story.memory.update(now()["id"], None, metadata={"checked": True})
    assert now()["metadata"]["checked"] is True
    for as_of in ("2020-01-01", "2024-03-01", "2026-01-01"):
        assert story.facts(as_of=as_of) == ["Anna lives in Paris"]
    story.tell("2024-05-13", "With a cat", "Anna lives in Paris with a cat", "UPDATE")
    assert now()["memory"] == "Anna lives in Paris with a cat"
    assert story.facts(as_of="2024-03-01") == ["Anna lives in Paris"]
    assert not any(hit["ended"] for hit in story.memory.search("I live in Paris", user_id="u")["results"])


def test_a_deleted_fact_held_until_then(story: Story) -> None:
    story.tell("2024-02-01", "I play tennis", "Anna plays tennis")
    story.tell("2024-06-01", "No tennis any more", "Anna no longer plays tennis", "DELETE", since="2024-05-01")
    assert story.facts("tennis") == []
    assert story.facts("tennis", as_of="2024-04-30") == ["Anna plays tennis"]
    assert story.facts("tennis", as_of="2024-05-02") == []
    assert story.facts("tennis", as_of="2024-05-02", known_at="2024-05-02") == ["Anna plays tennis"]


def test_what_is_deleted_by_hand_held_until_then_and_what_is_forgotten_never_did(story: Story) -> None:
    for sport in ("tennis", "golf"):
        story.tell("2024-02-01", f"I play {sport}", f"Anna plays {sport}")
    golf, tennis = (story.memory.search(name, user_id="u", kinds=["fact"])["results"][0] for name in ("golf", "tennis"))
    story.clock.advance(days=30)
    story.memory.delete(tennis["id"])
    story.memory.forget(golf["id"])
    assert story.facts("Anna plays") == []
    assert story.facts("Anna plays", as_of="2024-02-15") == ["Anna plays tennis"]
    assert story.facts("Anna plays", as_of="2024-03-15") == []
    assert story.facts("Anna plays", known_at="2024-02-15") == ["Anna plays tennis"]


def test_an_import_is_known_from_when_it_was_made_and_held_from_when_it_was_said(story: Story) -> None:
    story.clock.advance(days=365)
    story.memory.add("I live in Paris", user_id="u", timestamp=day("2020-06-01"))
    assert texts(story.memory.search("Paris", user_id="u", as_of="2020-06-01")) == ["I live in Paris"]
    assert texts(story.memory.search("Paris", user_id="u", as_of="2020-05-31")) == []
    assert texts(story.memory.search("Paris", user_id="u", known_at="2024-06-01")) == []
    assert texts(story.memory.search("Paris", user_id="u", as_of="2020-06-01", known_at="2024-06-01")) == []
    assert texts(story.memory.search("Paris", user_id="u", known_at=story.clock())) == ["I live in Paris"]


def test_what_was_recorded_after_a_clock_was_put_back_is_known_now_too(story: Story) -> None:
    story.memory.add("I live in Paris", user_id="u")
    story.clock.advance(days=-30)
    story.memory.add("I live in Berlin", user_id="u")
    story.clock.advance(days=60)
    known = story.memory.search("Berlin", user_id="u", known_at=story.clock())
    assert sorted(texts(known)) == ["I live in Berlin", "I live in Paris"]
    assert len(story.memory.diff("2023-01-01", user_id="u", kinds=["turn"])["added"]) == 2


BERLIN = timezone(timedelta(hours=2))


@pytest.mark.parametrize("name", ["as_of", "known_at"])
def test_a_naive_time_is_utc_and_others_are_the_moment_they_name(moves: Story, name: str) -> None:
    for early in ("2024-05-12T23:59:59", "2024-05-13T01:59:59+02:00", datetime(2024, 5, 12, 23, 59, 59),
                  datetime(2024, 5, 13, 1, 59, 59, tzinfo=BERLIN)):  # fmt: skip
        assert moves.facts(**{name: early}) == ["Anna lives in Paris"]
    for late in ("2024-05-13", "2024-05-13T02:00:00+02:00", datetime(2024, 5, 13, 2, tzinfo=BERLIN)):
        assert moves.facts(**{name: late}) == ["Anna lives in Berlin"]


@pytest.mark.parametrize("name", ["as_of", "known_at", "reference_time"])
def test_what_is_no_time_is_refused_by_name_and_the_ends_of_the_calendar_are_times(moves: Story, name: str) -> None:
    for value in ("yesterday", "", 5, 1.5, True, [], day("2024-01-01").date()):
        with pytest.raises(InvalidInput, match=name):
            moves.facts(**{name: value})
    for value in (datetime.min, datetime.max, datetime.min.replace(tzinfo=BERLIN),
                  datetime.max.replace(tzinfo=timezone.min)):  # fmt: skip
        found = moves.facts("Where did Anna live last week?", **{name: value})
        assert found == ([] if name != "reference_time" and value.year == 1 else ["Anna lives in Rome"])


def test_relative_dates_are_seen_from_the_reference_time() -> None:
    clock = FrozenClock(day("2024-06-15"))
    with open_memory(":memory:", embeddings=None, clock=clock) as memory:
        for month in range(1, 13):
            said = f"We ate {month} cakes"
            memory.add(said, user_id="u", timestamp=day(f"2024-{month:02}-20"), session_id=str(month))
        # Without one it is the clock's time.
        for reference, expected in ((None, 5), ("2024-04-20", 3), ("2024-11-01T12:00:00+09:00", 10),
                                    ("2024-11-01T03:00:00+09:00", 10), (day("2024-08-01"), 7)):  # fmt: skip
            found = memory.search("Which cakes did we eat last month?", user_id="u", reference_time=reference)
            assert texts(found)[0] == f"We ate {expected} cakes"


def test_what_ended_says_when(moves: Story) -> None:
    hits = moves.memory.search("I live in Paris, I moved to Berlin", user_id="u", kinds=["turn"])["results"]
    shown = {hit["memory"]: hit["invalid_at"] for hit in hits if hit["ended"]}
    assert shown == {"I live in Paris": "2024-05-13T00:00:00+00:00", "I moved to Berlin": "2024-09-01T00:00:00+00:00"}
    assert "2024-02-01 (held until 2024-05-13) user: I live in Paris" in as_context(hits)
    now = as_context(moves.memory.search("Anna", user_id="u", kinds=["fact"])["results"])
    assert "2024-09-01 Anna lives in Rome" in now
    then = as_context(moves.memory.search("Anna", user_id="u", kinds=["fact"], as_of="2024-06-01")["results"])
    assert "2024-05-13 (held until 2024-09-01) Anna lives in Berlin" in then


def test_what_ended_later_had_not_ended_then(moves: Story) -> None:
    def penalised(**asked: Any) -> set[str]:
        hits = moves.memory.search("I live in Paris", user_id="u", kinds=["turn"], explain=True, **asked)["results"]
        return {hit["memory"] for hit in hits if hit["explanation"]["ended"] < 0}

    assert penalised() == {"I live in Paris", "I moved to Berlin"}
    assert penalised(as_of="2024-03-01") == set()
    assert penalised(known_at="2024-03-01") == set()
    assert penalised(as_of="2024-06-01") == {"I live in Paris"}
    assert penalised(known_at="2024-06-01") == {"I live in Paris"}


@pytest.mark.parametrize(
    ("paris", "berlin", "said", "query"),
    [
        ("Anna lives in Paris", "Anna lives in Berlin", "I live in Paris now, I live there", "Where does she live now"),
        ("安娜住在巴黎", "安娜住在柏林", "我现在住在巴黎，现在住在这里", "她现在住在哪里？"),
        ("彼女はパリに住んでいる", "彼女は京都に住んでいる", "今どこに住んでいるか？パリだ", "今どこに住んでいますか"),
        ("안나는 파리에 산다", "안나는 베를린에 산다", "지금 어디 살아요? 파리", "지금 어디 살아요?"),
    ],
    ids=["English", "Chinese", "Japanese", "Korean"],
)  # fmt: skip
def test_what_no_longer_holds_comes_last(story: Story, paris: str, berlin: str, said: str, query: str) -> None:
    story.tell("2024-02-01", said, paris)
    story.tell("2024-05-13", "New address!", berlin, "UPDATE")
    story.memory.add("The weather is fine.", user_id="u")
    assert said not in texts(story.memory.search(query, user_id="u"))
    turns = story.memory.search(query, user_id="u", kinds=["turn"])["results"]
    assert [hit["memory"] for hit in turns if hit["ended"]] == [turns[-1]["memory"]] == [said]


def test_a_fact_that_was_corrected_by_hand_is_not_hidden_behind_its_turn(story: Story) -> None:
    story.tell("2024-02-01", "I live in Paris with my cat", "Anna lives in Paris")
    (fact,) = story.memory.search("Anna", user_id="u", kinds=["fact"])["results"]
    story.memory.update(fact["id"], "Anna lives in Lyon")
    assert texts(story.memory.search("Who lives in Paris with a cat?", user_id="u")) == ["Anna lives in Lyon"]
    assert texts(story.memory.search("Where does Anna live now?", user_id="u", limit=1)) == ["Anna lives in Lyon"]
    # It still says where it came from, and what it was.
    why = story.memory.why(fact["id"])
    assert [(source["text"], source["quote"]) for source in why["sources"]] == [
        ("I live in Paris with my cat", "I live in Paris with my cat")
    ]
    assert [entry["new_value"] for entry in why["decisions"]] == ["Anna lives in Paris", "Anna lives in Lyon"]


def test_a_denial_is_no_addition_and_an_addition_keeps_the_turn_of_what_was_told(story: Story) -> None:
    for number, (old, new, denied) in enumerate((
        ("Anna likes tea", "Anna no longer likes tea", True), ("安娜喜欢喝茶", "安娜不再喜欢喝茶", True),
        ("Anna eats meat", "Anna never eats meat", True), ("安娜住在巴黎。", "安娜住在巴黎，养了一只猫", False),
    )):  # fmt: skip
        story.tell("2024-02-01", f"The old way {number}", old, user=f"u{number}")
        story.tell("2024-03-01", f"The new way {number}", new, "UPDATE", user=f"u{number}")
        hits = story.memory.search(f"The old way {number}", user_id=f"u{number}", kinds=["turn"])["results"]
        assert [hit["ended"] for hit in hits if hit["memory"] == f"The old way {number}"] == [denied]


def test_turns_do_not_crowd_out_their_facts_at_small_limits(story: Story) -> None:
    walls = "The walls of Anna's {}, in the old house by the sea, have been blue for as long as anybody knows"
    for room in ("kitchen", "attic", "cellar", "garden house"):
        story.tell("2024-02-01", f"The {room} paint is blue", walls.format(room))
    asked: dict[str, Any] = {"query": "Which paint does the kitchen have?", "user_id": "u", "explain": True}
    # Its turn has more of the question's words in fewer of its own.
    turn = story.memory.search(**asked, kinds=["turn"])["results"][0]
    assert turn["memory"] == "The kitchen paint is blue"
    for limit in (1, 2, 3):
        found = story.memory.search(**asked, limit=limit)["results"]
        assert [hit["kind"] for hit in found] == ["fact"] * limit
        assert found[0]["memory"] == walls.format("kitchen")
        assert found[0]["explanation"]["stand_in"] > 0
        assert found[0]["score"] == turn["score"]


def test_a_turn_is_shown_where_it_says_what_its_facts_do_not_and_they_hide_each_other_not(story: Story) -> None:
    story.tell("2024-02-01", "I live in Paris, and my locker has the number 8812", "Anna lives in Paris", user="v")
    assert texts(story.memory.search("locker number 8812", user_id="v"))[0].endswith("8812")
    said = "I live in Paris, I have a cat, and I play chess"
    facts = ["Anna lives in Paris", "Anna has a cat", "Anna plays chess"]
    story.extract = lambda turns, context: Extraction(tuple(Fact(text, (0,), quote=said) for text in facts))
    story.memory.add(said, user_id="u")
    found = texts(story.memory.search("What does Anna do? Does Anna have a cat? Where does Anna live?", user_id="u"))
    assert set(facts) <= set(found)
    assert said not in found


def test_a_fact_shows_the_turns_that_it_comes_from(story: Story) -> None:
    told = {"role": "user", "name": "Anna", "id": "m1", "content": "I live in Paris, near the river"}
    story.told[str(told["content"])] = Fact("Anna lives in Paris", (0,), quote="I live in Paris")
    story.memory.add(told, user_id="u", session_id="s", timestamp=day("2024-02-01"))
    (hit,) = story.memory.search("Where does Anna live?", user_id="u")["results"]
    (turn,) = story.memory.search("river", user_id="u", kinds=["turn"])["results"]
    assert hit["kind"] == "fact"
    assert hit["evidence"] == [{
        "id": "m1", "memory_id": turn["id"], "text": told["content"], "quote": "I live in Paris", "role": "user",
        "name": "Anna", "session_id": "s", "time": "2024-02-01T00:00:00+00:00",
    }]  # fmt: skip
    assert turn["evidence"] == []


def test_the_day_is_that_of_who_spoke_for_the_model_and_for_the_agent(story: Story) -> None:
    evening = datetime(2024, 2, 1, 20, tzinfo=timezone(timedelta(hours=-8)))  # the next day in UTC
    story.replies = [{"decisions": [{"fact": 1, "action": "ADD", "memory": 0, "text": "", "reason": ""}]}]
    for text, fact in {"I live in Paris": "Anna lives in Paris", "I have a boat": "Anna has a boat in Paris"}.items():
        story.told[text] = Fact(fact, (0,), quote=text)
        story.memory.add(text, user_id="u", timestamp=evening)
    assert '"date": "2024-02-01", "text": "Anna lives in Paris"' in story.model.prompts[-1][-1].text
    hits = story.memory.search("Where does Anna live?", user_id="u", kinds=["fact"])["results"]
    assert [hit["time"] for hit in hits] == ["2024-02-01T20:00:00-08:00"] * 2
    assert hits[0]["evidence"][0]["time"] == "2024-02-01T20:00:00-08:00"
    assert "- 2024-02-01 Anna lives in Paris" in as_context(hits)


@pytest.mark.parametrize(
    ("asked", "unknown", "again", "said", "fact"),
    [
        ("Where do I work?", "I don't know where you work yet.", "Do you know where I work?",
         "I am employed as a nurse at Charité hospital.", "The user is employed as a nurse at Charité hospital"),
        ("我在哪里工作？", "我还不知道你在哪里工作。", "你知道我在哪里工作吗？", "我在夏里特医院当护士。",
         "用户在夏里特医院当护士"),
    ],
    ids=["English", "Chinese"],
)  # fmt: skip
def test_in_a_chat_that_searches_before_each_answer_the_fact_is_first(
    story: Story, asked: str, unknown: str, again: str, said: str, fact: str
) -> None:
    for question, answer in ((asked, unknown), (again, unknown), (said, "Noted."), (asked, "...")):
        story.told[said] = Fact(fact, (0,), quote=said)
        exchange = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        story.memory.add(exchange, user_id="u")
    hits = story.memory.search(asked, user_id="u", limit=3)["results"]
    assert hits[0]["memory"] == fact
    # What asks or answers is a hit of its own where no facts were looked for.
    story.memory.add([{"role": "user", "content": asked}], user_id="v", infer=False)
    assert texts(story.memory.search(asked, user_id="v")) == [asked]


def test_a_question_that_was_not_read_yet_says_what_no_fact_says(story: Story) -> None:
    story.tell("2024-02-01", "I live in Paris", "Anna lives in Paris")

    def failing(turns: Sequence[Turn], context: Sequence[Turn]) -> Extraction:
        raise ExtractionError("the model is down")

    read, story.extract = story.extract, failing
    with pytest.raises(ExtractionError):
        story.memory.add("Is locker 8812 mine?", user_id="u")
    (unread, *_) = story.memory.search("locker 8812", user_id="u", explain=True)["results"]
    assert (unread["memory"], unread["explanation"]["barren"]) == ("Is locker 8812 mine?", 0)
    story.extract = read
    story.memory.read(user_id="u", retry=True)
    (told,) = (
        hit for hit in story.memory.search("locker 8812", user_id="u", explain=True)["results"]
        if hit["memory"] == "Is locker 8812 mine?"
    )  # fmt: skip
    assert told["explanation"]["barren"] < 0


def test_a_statement_that_gave_no_fact_comes_after_facts_of_comparable_relevance() -> None:
    said = ["The trip to Lisbon is booked, keep that in mind", "My mum comes to Lisbon"]
    found = {"turn": 2, "quote": said[1], "fact": "User's mum comes along to Lisbon", "triples": []}
    with open_memory(":memory:", model=ScriptedChatModel(replies=[{"facts": [found]}]), embeddings=None) as memory:
        memory.add([{"role": "user", "content": text} for text in said], user_id="u")
        hits = memory.search("trip to Lisbon", user_id="u", explain=True)["results"]
    barren = {hit["memory"]: hit["explanation"]["barren"] for hit in hits}
    assert barren[said[0]] < 0
    assert all(share == 0 for text, share in barren.items() if text != said[0])
