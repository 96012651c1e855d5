from __future__ import annotations

import math
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import product
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from journal_dump import Faltering, dump, ids, open_memory, query, refuses, texts, unreachable
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_memlayer import (
    ConfigurationError,
    EmbedderMismatch,
    EmbeddingError,
    InvalidFilter,
    InvalidInput,
    JournalClosed,
    JournalError,
    MemLayerError,
    Memory,
    MemoryNotFound,
    ScopeRequired,
)
from langchain_memlayer.messages import content_hash
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock

SCOPES = [{}, {"user_id": "u"}, {"agent_id": "a"}, {"run_id": "r"}, {"user_id": "u", "agent_id": "a"},
          {"user_id": "u", "run_id": "r"}, {"agent_id": "a", "run_id": "r"},
          {"user_id": "u", "agent_id": "a", "run_id": "r"}]  # fmt: skip
NAMES = ["alice@example.com", "*", "%", "_", "alice", "Alice", "al.ice", "al/ice", "al\\ice", "a b", " alice", "u",
         "\x1fa", "a\nb", "é", "e\u0301", "张三", "🦉", "' OR 1=1 --", "{}", "alice.", ".alice", "..", "u.alice",
         "a%2Eb", "x" * 500]  # fmt: skip


def add(memory: Memory, messages: Any, **arguments: Any) -> str:
    (result,) = memory.add(messages, **({"user_id": "u"} | arguments))["results"]
    return str(result["id"])


class TestInputs:
    def test_strings_dicts_and_langchain_messages_of_every_role_are_kept_verbatim(self, memory: Memory) -> None:
        memory.add("  I live in Berlin.\n", user_id="u")
        memory.add({"role": "user", "content": "one"}, user_id="u")
        memory.add([{"role": "assistant", "content": "two"}, {"role": "developer", "content": "hidden"}], user_id="u")
        memory.add([SystemMessage("hidden"), HumanMessage("three"), AIMessage("four"), HumanMessage("five", name="Ann"),
                    ToolMessage("six", tool_call_id="1")], user_id="u")  # fmt: skip
        found = memory.get_all(user_id="u")["results"]
        assert [(m["memory"], m["role"], m["name"]) for m in found] == [
            ("  I live in Berlin.\n", "user", None), ("one", "user", None), ("two", "assistant", None),
            ("three", "user", None), ("four", "assistant", None), ("five", "user", "Ann"), ("six", "tool", None),
        ]  # fmt: skip
        assert {m["kind"] for m in found} == {"turn"}

    def test_a_messages_own_id_name_and_time_are_kept(self, memory: Memory) -> None:
        message = {"role": "user", "content": "x", "id": "m1", "name": "Ann", "timestamp": "2020-02-29T23:30:00-05:00"}
        found = memory.get(add(memory, message, timestamp=0))
        assert (found["sources"], found["name"]) == (["m1"], "Ann")
        assert found["created_at"] == "2020-03-01T04:30:00+00:00"

    def test_an_import_of_old_conversations_keeps_its_dates_and_their_order(self, memory: Memory) -> None:
        memory.add("newest", user_id="u")
        memory.add([{"role": "user", "content": "second", "timestamp": "2001-01-02"},
                    {"role": "user", "content": "first", "timestamp": "1955-01-02"}], user_id="u")  # fmt: skip
        memory.add("third", user_id="u", timestamp=datetime(2010, 1, 1, tzinfo=UTC))
        add(memory, "late", timestamp="9999-12-31T23:59:59.999999")
        add(memory, "early", timestamp="0001-01-01T00:00:00")
        assert [(m["memory"], m["created_at"]) for m in memory.get_all(user_id="u")["results"]] == [
            ("early", "0001-01-01T00:00:00+00:00"), ("first", "1955-01-02T00:00:00+00:00"),
            ("second", "2001-01-02T00:00:00+00:00"), ("third", "2010-01-01T00:00:00+00:00"),
            ("newest", "2025-01-01T00:00:00+00:00"), ("late", "9999-12-31T23:59:59.999999+00:00"),
        ]  # fmt: skip

    def test_only_system_messages_store_nothing(self, memory: Memory, folder: Path) -> None:
        before = dump(folder)
        assert memory.add([SystemMessage("be kind")], user_id="u")["results"] == []
        assert dump(folder) == before

    def test_chinese_is_stored_as_said_and_found_by_its_words(self, folder: Path) -> None:
        with open_memory(folder, embeddings=None) as memory:
            wanted = add(memory, "我住在北京，喜欢吃辣的四川菜。")
            add(memory, "昨天我在上海看了一场电影。")
            (found,) = memory.search("北京的四川菜", user_id="u")["results"]
        assert (found["id"], found["memory"]) == (wanted, "我住在北京，喜欢吃辣的四川菜。")


class TestScopes:
    def test_given_ids_are_anded_and_absent_ones_mean_any(self, memory: Memory) -> None:
        for number, scope in enumerate(SCOPES[1:]):
            memory.add(f"shared word number {number}", **scope)
        for asked in SCOPES:
            expected = {
                f"shared word number {number}"
                for number, scope in enumerate(SCOPES[1:])
                if all(scope.get(name) == value for name, value in asked.items())
            }
            assert set(texts(memory.get_all(everything=not asked, **asked))) == expected
            if asked:
                assert set(texts(memory.search("shared word", limit=100, **asked))) == expected

    @pytest.mark.parametrize("kind", ["user_id", "agent_id", "run_id"])
    def test_any_text_is_an_id_and_only_its_own(self, memory: Memory, kind: str) -> None:
        for other in {"user_id", "agent_id", "run_id"} - {kind}:
            memory.add(f"hello {other}", **{other: NAMES[0]})
        for name in NAMES:
            memory.add(f"hello from {name}", **{kind: name})
        for name in NAMES:
            assert texts(memory.get_all(**{kind: name})) == [f"hello from {name}"]
            assert texts(memory.search("hello", **{kind: name})) == [f"hello from {name}"]
            assert memory.get_all(**{kind: name})["results"][0][kind] == name
        assert memory.search("hello", **{kind: "nobody"})["results"] == []

    def test_without_any_id_the_error_says_so(self, memory: Memory, folder: Path) -> None:
        for call, *arguments in (("add", "text"), ("search", "text"), ("delete_all",), ("forget",)):
            said = refuses(lambda call=call, given=arguments: getattr(memory, call)(*given), folder, ScopeRequired)
            assert call in said
            assert "user_id" in said


class TestMerging:
    def test_what_is_equal_after_normalisation_is_one_memory_told_twice(self, memory: Memory) -> None:
        first = add(memory, "I like  TEA")
        again = memory.add(" i like tea ", user_id="u")["results"]
        assert again == [{"id": first, "memory": "I like  TEA", "event": "NONE"}]
        (found,) = memory.get_all(user_id="u")["results"]
        assert found["count"] == 2
        assert len(memory.history(first)) == 1

    def test_only_in_the_same_scope_role_session_and_day(self, memory: Memory) -> None:
        add(memory, "yes", timestamp="2025-01-01T12:00:00")
        others: list[dict[str, Any]] = [
            {"user_id": "v"}, {"agent_id": "a"}, {"run_id": "r"}, {"session_id": "s"}, {"infer": False},
            {"timestamp": "2025-01-02T00:00:00"}, {"timestamp": "2024-12-31T23:59:59.999999"},
            {"messages": {"role": "assistant", "content": "yes"}},
        ]  # fmt: skip
        for other in others:
            given = {"messages": "yes", "user_id": "u", "timestamp": "2025-01-01T23:00"} | other
            [done] = memory.add(**given)["results"]
            assert done["event"] == "ADD", other
        assert len(memory.get_all(everything=True)["results"]) == 1 + len(others)

    def test_a_day_is_the_speakers_own_and_before_1970_too(self, memory: Memory) -> None:
        for number, (first, second, same) in enumerate((
            ("1969-12-31T00:00:00", "1969-12-31T23:59:59", True),
            ("1969-12-30T12:00:00", "1969-12-31T12:00:00", False),
            ("1969-12-31T23:59:59", "1970-01-01T00:00:00", False),
            ("1970-01-01T00:00:00", "1970-01-01T23:59:59.999999", True),
            ("2024-05-01T20:00:00+09:00", "2024-05-02T07:30:00+09:00", False),
            ("2024-05-01T15:30:00-08:00", "2024-05-01T17:30:00-08:00", True),
            ("2024-05-02T07:30:00+09:00", "2024-05-01T22:30:00", True),
        )):  # fmt: skip
            one, two = (add(memory, "yes", timestamp=at, session_id=str(number)) for at in (first, second))
            assert (one == two) == same

    def test_what_is_merely_similar_is_never_dropped(self, memory: Memory) -> None:
        pairs = [("locker 12", "locker 13"), ("really?", "really"), ("I like tea.", "I like tea"), ("北京", "北 京"),
                 ("3.5 km", "35 km"), ("x²", "x2"), ("I can", "I can't"), ("user: yes", "yes")]  # fmt: skip
        for number, pair in enumerate(pairs):
            memory.add(list(pair), user_id=f"u{number}")
            assert texts(memory.get_all(user_id=f"u{number}")) == list(pair)
            for text in pair:
                assert text in texts(memory.search(text, user_id=f"u{number}"))

    def test_what_was_deleted_is_told_anew_and_what_was_updated_merges_by_its_new_text(self, memory: Memory) -> None:
        first = add(memory, "yes")
        memory.delete(first)
        second = add(memory, "yes")
        assert second != first
        assert ids(memory.get_all(user_id="u")) == [second]
        memory.update(second, "no")
        assert add(memory, "no") == second
        assert add(memory, "yes") not in (first, second)

    def test_the_sources_of_a_merged_memory_are_all_its_messages(self, memory: Memory) -> None:
        first = add(memory, {"role": "user", "content": "yes", "id": "m1"})
        add(memory, {"role": "user", "content": "Yes", "id": "m2"})
        found = memory.get(first)
        assert (found["sources"], found["memory"]) == (["m1", "m2"], "yes")


class TestSeenMessages:
    @pytest.mark.parametrize("infer", [True, False])
    def test_a_message_that_was_seen_changes_nothing(self, memory: Memory, folder: Path, infer: bool) -> None:
        message = {"role": "user", "content": "yes", "id": "m1"}
        add(memory, message, infer=infer)
        before = dump(folder)
        assert memory.add(message, user_id="u", infer=infer)["results"] == []
        assert dump(folder) == before
        # It is another message in another scope or session.
        for other in ({"user_id": "v"}, {"agent_id": "a"}, {"session_id": "s"}):
            assert memory.add(message, **({"user_id": "u"} | other))["results"][0]["event"] == "ADD"

    @pytest.mark.parametrize("infer", [True, False])
    def test_a_message_that_was_edited_is_the_same_memory_with_its_new_words(self, memory: Memory, infer: bool) -> None:
        for day, text in ((1, "one"), (2, "two")):
            said = {"role": "user", "content": text, "id": text, "timestamp": f"2025-01-0{day}"}
            memory.add(said, user_id="u", infer=infer)
        first, second = memory.get_all(user_id="u")["results"]
        for text in ("three", "one", "four"):
            [done] = memory.add({"role": "user", "content": text, "id": "one"}, user_id="u", infer=infer)["results"]
            assert (done["id"], done["event"], done["memory"]) == (first["id"], "UPDATE", text)
        assert ids(memory.get_all(user_id="u")) == [first["id"], second["id"]]
        assert texts(memory.get_all(user_id="u")) == ["four", "two"]
        assert [row["new_value"] for row in memory.history(first["id"])] == ["one", "three", "one", "four"]

    def test_it_stays_seen_when_it_was_merged_corrected_by_hand_or_deleted(self, memory: Memory, folder: Path) -> None:
        first = add(memory, {"role": "user", "content": "yes", "id": "m1"})
        add(memory, {"role": "user", "content": "yes", "id": "m2"})
        memory.update(first, "maybe")
        for end in (lambda: None, lambda: memory.delete(first)):
            end()
            before = dump(folder)
            for message_id in ("m1", "m2"):
                memory.add({"role": "user", "content": "yes", "id": message_id}, user_id="u")
            assert dump(folder) == before

    def test_a_message_that_was_edited_stays_in_its_place(self, memory: Memory) -> None:
        told = [{"role": "user", "content": f"thing {number}", "id": str(number)} for number in range(150)]
        memory.add(told, user_id="u", agent_id="a", session_id="s")
        for number, words in ((0, "first"), (70, "middle"), (0, "anew")):
            told[number]["content"] = words
            memory.add(list(reversed(told)), user_id="u", agent_id="a", session_id="s")
        right = [message["content"] for message in told]
        for owner in ({"user_id": "u"}, {"agent_id": "a"}):
            pages = [memory.get_all(**owner, limit=40, offset=offset)["results"] for offset in range(0, 160, 40)]
            assert [found["memory"] for page in pages for found in page] == right

    @pytest.mark.parametrize("edited", ["m1", "m2"])
    def test_merged_messages_of_one_call_part_when_one_is_edited(self, memory: Memory, edited: str) -> None:
        says = {"m1": "yes", "m2": "yes"}
        for events in (["ADD", "NONE"], []):
            told = [{"role": "user", "content": text, "id": message_id} for message_id, text in says.items()]
            assert [done["event"] for done in memory.add(told, user_id="u")["results"]] == events
        told = [{"role": "user", "content": text, "id": key} for key, text in (says | {edited: "no"}).items()]
        for _ in range(2):
            memory.add(told, user_id="u")
            assert {hit["memory"] for hit in memory.get_all(user_id="u")["results"]} == {"yes", "no"}

    def test_a_merged_message_that_is_edited_is_a_memory_of_its_own(self, memory: Memory) -> None:
        for message_id, text in (("m1", "yes"), ("m2", "yes"), ("m2", "no"), ("m2", "no")):
            memory.add({"role": "user", "content": text, "id": message_id}, user_id="u")
        assert texts(memory.get_all(user_id="u")) == ["yes", "no"]
        # Two messages of one id in one call are both kept.
        for _ in range(2):
            memory.add([{"role": "user", "content": text, "id": "m1"} for text in ("one", "two")], user_id="v")
        assert texts(memory.get_all(user_id="v")) == ["one", "two"]

    def test_only_what_is_new_of_a_growing_conversation_is_stored(self, memory: Memory) -> None:
        conversation = [{"role": "user", "content": f"sentence {n}", "id": f"m{n}"} for n in range(5)]
        for length in range(1, 6):
            assert texts(memory.add(conversation[:length], user_id="u")) == [f"sentence {length - 1}"]
        assert len(memory.get_all(user_id="u")["results"]) == 5

    def test_without_inference_each_is_stored_exactly_as_given_each_time(self, memory: Memory) -> None:
        for _ in range(3):
            memory.add(["  Yes \n", "yes"], user_id="u", infer=False)
        assert texts(memory.get_all(user_id="u")) == ["  Yes \n", "yes"] * 3


class TestBatches:
    def test_a_repeated_batch_changes_nothing_and_reports_the_same(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            first = memory.add(["one", "two"], user_id="u", batch_id="b")
            before = dump(folder)
            assert memory.add(["one", "two"], user_id="u", batch_id="b") == first
            assert memory.add("something else", user_id="u", batch_id="b") == first
            assert memory.add("something else", user_id="u", batch_id="b", infer=False) == first
        with open_memory(folder) as memory:
            assert memory.add(["one", "two"], user_id="u", batch_id="b") == first
        assert dump(folder) == before

    def test_a_batch_counts_once_and_telling_again_is_an_event(self, memory: Memory, folder: Path) -> None:
        for _ in range(2):
            add(memory, "yes")
        assert query(folder, "SELECT op FROM events ORDER BY seq") == [("add",), ("none",)]
        first = memory.add("yes", user_id="u", batch_id="b")
        assert memory.add("yes", user_id="u", batch_id="b") == first
        assert memory.get_all(user_id="u")["results"][0]["count"] == 3
        # One that stored nothing is done too.
        message = {"role": "user", "content": "no", "id": "m1"}
        memory.add(message, user_id="u")
        for said in (message, "something else"):
            assert memory.add(said, user_id="u", batch_id="c")["results"] == []
        assert texts(memory.get_all(user_id="u")) == ["yes", "no"]

    def test_batches_of_different_scopes_are_different(self, memory: Memory) -> None:
        memory.add("secret", user_id="u", agent_id="a", batch_id="b")
        for other in ({"user_id": "v"}, {"user_id": "u", "run_id": "r"}, {"user_id": "u\x1fagent_id=a"},
                      {"user_id": 'u","agent_id":"a'}, {"agent_id": "a"}):  # fmt: skip
            assert texts(memory.add("mine", batch_id="b", **other)) == ["mine"]
            assert "mine" in texts(memory.get_all(**other))

    def test_a_batch_id_ends_with_what_it_wrote(self, memory: Memory, folder: Path) -> None:
        first = add(memory, "secret", batch_id="b")
        add(memory, "another", batch_id="c")
        memory.forget(first)
        assert [row[0] for row in query(folder, "SELECT batch FROM batches")] == ["c"]
        [again] = memory.add("something else", user_id="u", batch_id="b")["results"]
        assert (again["event"], again["memory"]) == ("ADD", "something else")
        memory.reset()
        assert texts(memory.add("new", user_id="u", batch_id="c")) == ["new"]


class TestShapes:
    KEYS = frozenset(
        {"id", "memory", "text", "kind", "sources", "score", "relevance", "metadata", "event"}
        | {"user_id", "agent_id", "run_id", "created_at", "updated_at"}
    )
    MORE = frozenset(
        {"session_id", "role", "name", "hash", "count", "time", "valid_at", "invalid_at", "ended"}
        | {"quarantined", "evidence"}
    )

    def test_add_update_and_deletes(self, memory: Memory) -> None:
        result = memory.add(["one", "two"], user_id="u")
        assert list(result) == ["results", "relations"]
        assert [(r["memory"], r["event"], sorted(r)) for r in result["results"]] == [
            ("one", "ADD", ["event", "id", "memory"]), ("two", "ADD", ["event", "id", "memory"]),
        ]  # fmt: skip
        key = result["results"][0]["id"]
        assert memory.update(key, "three") == {"message": "Memory updated successfully!"}
        assert memory.delete(key) == {"message": "Memory deleted successfully!"}
        done = memory.delete_all(user_id="u")
        assert (done["message"], done["count"]) == ("Memories deleted successfully!", 1)
        assert str(done["event_id"]).isdecimal()

    def test_search_get_all_and_get(self, memory: Memory) -> None:
        key = add(memory, "one", agent_id="a", metadata={"n": 1, "data": "the user's own"}, session_id="s")
        for result in (memory.search("one", user_id="u"), memory.get_all(user_id="u")):
            assert list(result) == ["results", "relations"]
            assert result["relations"] == []
        (searched,), (listed,) = memory.search("one", user_id="u")["results"], memory.get_all(user_id="u")["results"]
        own = {name: value for name, value in searched.items() if name not in ("score", "relevance", "evidence")}
        assert listed == memory.get(key) == own
        assert set(searched) == self.KEYS | self.MORE
        expected = {"id": key, "memory": "one", "text": "one", "kind": "turn", "sources": [key], "event": "add",
                    "metadata": {"n": 1, "data": "one"}, "user_id": "u", "agent_id": "a", "run_id": None,
                    "created_at": "2025-01-01T00:00:00+00:00", "updated_at": "2025-01-01T00:00:00+00:00"}  # fmt: skip
        assert {name: searched[name] for name in expected} == expected
        assert isinstance(searched["score"], float)
        assert isinstance(searched["relevance"], float)

    def test_history_rows(self, folder: Path) -> None:
        clock = FrozenClock()
        with open_memory(folder, clock=clock) as memory:
            key = add(memory, "one", timestamp="2001-01-01")
            clock.advance(hours=1)
            memory.update(key, "two")
            clock.advance(hours=1)
            memory.delete(key)
            rows = memory.history(key)
        assert len({row.pop("id") for row in rows}) == 3
        told = [("ADD", None, "one", 0), ("UPDATE", "one", "two", 0), ("DELETE", "two", None, 1)]
        assert rows == [
            {"memory_id": key, "prev_value": before, "old_memory": before, "new_value": after, "new_memory": after,
             "event": event, "timestamp": f"2025-01-01T0{hour}:00:00+00:00", "is_deleted": gone,
             "created_at": "2001-01-01T00:00:00+00:00", "updated_at": f"2025-01-01T0{hour}:00:00+00:00",
             "actor_id": None, "role": "user"}
            for hour, (event, before, after, gone) in enumerate(told)
        ]  # fmt: skip

    def test_a_result_is_a_copy(self, memory: Memory) -> None:
        key = add(memory, "one", metadata={"tags": ["a"]})
        found = memory.get(key)
        found["metadata"]["tags"].append("b")
        assert memory.get(key) == found | {"metadata": {"tags": ["a"], "data": "one"}}


class TestReading:
    def test_what_is_not_there_is_none_or_empty(self, memory: Memory) -> None:
        assert memory.get("nobody") is None
        assert memory.history("nobody") == []
        assert memory.get_all(user_id="nobody") == {"results": [], "relations": []}
        assert memory.search("anything", user_id="nobody") == {"results": [], "relations": []}

    def test_pages_are_complete_and_disjoint(self, memory: Memory) -> None:
        for number in range(21):
            memory.add(f"text {number}", user_id=f"u{number % 3}", metadata={"odd": bool(number % 2)})
        for size, filters in product([1, 3, 7, 100], [None, {"odd": False}]):
            pages = [
                texts(memory.get_all(everything=True, limit=size, offset=start, filters=filters))
                for start in range(0, 24, size)
            ]
            expected = [f"text {number}" for number in range(21) if filters is None or number % 2 == 0]
            assert [text for page in pages for text in page] == expected
            assert all(len(page) <= size for page in pages)

    def test_get_all_shows_a_hundred_unless_told(self, memory: Memory) -> None:
        memory.add([f"text {number}" for number in range(130)], user_id="u")
        assert len(memory.get_all(everything=True)["results"]) == 100
        assert len(memory.get_all(everything=True, limit=1000)["results"]) == 130
        assert memory.get_all(user_id="u", limit=2**200, offset=2**200)["results"] == []

    def test_metadata_never_stand_for_whose_memory_it_is_or_what(self, memory: Memory) -> None:
        false = dict.fromkeys(("user_id", "agent_id", "run_id", "kind", "id", "session_id", "created_at"), "evil")
        memory.add("the secret", user_id="alice", metadata={**false, "name": "report"}, infer=False)
        for name in false:
            assert memory.get_all(user_id="alice", filters={name: {"$eq": "evil"}})["results"] == []
            assert memory.search("secret", user_id="alice", filters={name: {"$eq": "evil"}})["results"] == []
        assert len(memory.get_all(user_id="alice", filters={"name": "report", "kind": "turn"})["results"]) == 1
        assert memory.get_all(filters={"user_id": "evil"})["results"] == []
        assert len(memory.get_all(filters={"user_id": "alice"})["results"]) == 1

    @pytest.mark.parametrize("field", ["created_at", "due"])
    def test_times_compare_as_instants_in_any_spelling_zone_and_type(self, memory: Memory, field: str) -> None:
        when = "2024-05-01T12:00:00+02:00"
        memory.add("to be done", user_id="u", timestamp=when, metadata={"due": when, "size": 10**400}, infer=False)
        same = datetime(2024, 5, 1, 10, tzinfo=UTC)
        spellings: list[Any] = [same, same.replace(tzinfo=None), same.astimezone(timezone(timedelta(hours=-9)))]
        if field == "created_at":
            spellings += [when, "2024-05-01T10:00:00Z", "20240501T100000Z", "2024-05-01 10:00:00.000"]
            spellings += [" 2024-05-01T10:00Z ", int(same.timestamp()), same.timestamp(), "2024-05-01t10:00:00z"]
            spellings += ["2024-05-01 10:00:00 UTC", "2024-05-01 12:00 +02:00", "2024-05-01T08:00:00\u221202:00"]
        for now in spellings:
            right: list[Any] = [now, {"$gte": now}, {"$lte": now}, {"$in": ["x", now]}, {"$not": {"$ne": now}}]
            for condition in (*right, {"$lt": now}, {"$gt": now}, {"$ne": now}, {"$nin": [now]}):
                found = memory.get_all(user_id="u", filters={"$and": [{field: condition}, {"size": 10**400}]})
                assert bool(found["results"]) == (condition in right), condition
        later = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=1)))
        assert len(memory.search("done", user_id="u", filters={field: {"$lt": later}})["results"]) == 1
        assert len(memory.get_all(user_id="u", filters={field: {"$contains": "2024-05"}})["results"]) == 1
        for condition in ({"$gte": same.date()}, {"$lt": date(2024, 5, 2)}, {"$nin": [date(2024, 5, 1)]}):
            assert len(memory.get_all(user_id="u", filters={field: condition})["results"]) == 1
        for nothing in ({"$gte": date(2024, 5, 2)}, {"$gt": 1e300}, {"$lt": -(10**20)}):
            assert memory.get_all(user_id="u", filters={field: nothing})["results"] == []
        for no_time in ("size", "role"):
            assert memory.get_all(user_id="u", filters={no_time: {"$gt": same}})["results"] == []

    def test_filters_see_metadata_and_the_memorys_own_fields_and_kinds_its_kind(self, memory: Memory) -> None:
        add(memory, "one", metadata={"place": {"city": "Rome"}}, session_id="s1")
        add(memory, {"role": "assistant", "content": "two"}, timestamp="2020-01-01")
        for filters, expected in [
            ({"place": {"city": "Rome"}}, ["one"]), ({"session_id": "s1"}, ["one"]), ({"role": "assistant"}, ["two"]),
            ({"kind": "turn"}, ["two", "one"]), ({"created_at": {"$lt": "2021"}}, ["two"]),
            ({"created_at": {"$gt": -math.inf, "$lt": math.inf}}, ["two", "one"]),
        ]:  # fmt: skip
            assert texts(memory.get_all(everything=True, filters=filters)) == expected
            assert set(texts(memory.search("one two", user_id="u", filters=filters))) == set(expected)
        for kinds, count in [(["turn"], 2), (("fact",), 0), ({"fact", "turn"}, 2), ("turn", 2), (None, 2)]:
            assert len(memory.get_all(everything=True, kinds=kinds)["results"]) == count
            assert len(memory.search("one two", user_id="u", kinds=kinds)["results"]) == count


class TestChanging:
    def test_an_update_keeps_id_date_scope_and_sources(self, folder: Path) -> None:
        clock = FrozenClock()
        with open_memory(folder, clock=clock) as memory:
            key = add(memory, {"role": "user", "content": "one", "id": "m1"}, agent_id="a", metadata={"n": 1, "m": 1})
            before = memory.get(key)
            clock.advance(days=1)
            memory.update(key, "two", {"m": 2})
            after = memory.get(key)
            memory.update(key, None, {"n": 2})
            found = memory.get(key)
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {"memory", "text", "metadata", "event", "updated_at", "hash"}
        assert (after["event"], after["updated_at"]) == ("update", "2025-01-02T00:00:00+00:00")
        assert after["metadata"] == {"n": 1, "m": 2, "data": "two"}
        assert after["hash"] == content_hash("two")
        assert (found["memory"], found["metadata"]) == ("two", {"n": 2, "m": 2, "data": "two"})

    def test_the_old_text_is_no_longer_found_and_the_new_one_is(self, memory: Memory, folder: Path) -> None:
        key = add(memory, "Where is the zebra?")
        add(memory, "giraffe")
        memory.search("zebra", user_id="u")
        memory.update(key, "walrus")
        assert ids(memory.search("walrus", user_id="u"))[0] == key
        assert "Where is the zebra?" not in texts(memory.search("zebra", user_id="u"))
        assert memory.search("zebra", user_id="u", threshold=0.5)["results"] == []
        # A question that becomes a statement is none any more.
        assert query(folder, "SELECT asks FROM items WHERE closed IS NULL") == [(None,)] * 2

    def test_what_is_not_there_cannot_be_changed(self, memory: Memory, folder: Path) -> None:
        deleted = add(memory, "one")
        memory.delete(deleted)
        for call, *given in (("update", "nobody", "new text"), ("update", deleted, "new text"), ("delete", "nobody"),
                             ("delete", deleted), ("forget", "nobody")):  # fmt: skip
            said = refuses(lambda call=call, given=given: getattr(memory, call)(*given), folder, MemoryNotFound)
            assert given[0] in said
            assert "get_all" in said

    def test_delete_all_ends_the_scope_and_only_it(self, memory: Memory) -> None:
        for scope in SCOPES[1:]:
            memory.add("text", **scope)
        assert memory.delete_all(agent_id="a", user_id="u")["count"] == 2
        assert len(memory.get_all(everything=True)["results"]) == 5
        assert memory.delete_all(user_id="u")["count"] == 2
        assert memory.delete_all(user_id="u")["count"] == 0
        assert {(m["user_id"], m["agent_id"], m["run_id"]) for m in memory.get_all(everything=True)["results"]} == {
            (None, "a", None), (None, None, "r"), (None, "a", "r"),
        }  # fmt: skip

    def test_a_forgotten_message_may_be_told_again(self, memory: Memory) -> None:
        message = {"role": "user", "content": "yes", "id": "m1"}
        memory.forget(add(memory, message))
        assert memory.get(add(memory, message)) is not None


class TestLife:
    CALLS: ClassVar[list[Callable[[Memory], Any]]] = [
        lambda m: m.add("x", user_id="u"), lambda m: m.search("x", user_id="u"), lambda m: m.get("x"),
        lambda m: m.get_all(user_id="u"), lambda m: m.update("x", "y"), lambda m: m.delete("x"),
        lambda m: m.delete_all(user_id="u"), lambda m: m.history("x"), lambda m: m.forget("x"), lambda m: m.reset(),
    ]  # fmt: skip

    @pytest.mark.parametrize("where", ["folder", "memory"])
    def test_after_close_every_call_says_so(self, folder: Path, where: str) -> None:
        memory = open_memory(folder if where == "folder" else ":memory:")
        memory.add("x", user_id="u")
        memory.search("x", user_id="u")
        memory.close()
        memory.close()
        for call in self.CALLS:
            with pytest.raises(JournalClosed, match="open it again"):
                call(memory)

    def test_a_context_manager_closes_also_after_an_error(self, folder: Path) -> None:
        with pytest.raises(KeyError), open_memory(folder) as memory:
            raise KeyError
        with pytest.raises(JournalClosed):
            memory.get_all(everything=True)

    def test_everything_is_there_again_after_reopening(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            memory.add([f"text number {n}" for n in range(20)], user_id="u", metadata={"n": 1})
            listed, found = memory.get_all(everything=True), memory.search("text number 7", user_id="u")
        with open_memory(folder) as memory:
            assert memory.get_all(everything=True) == listed
            assert memory.search("text number 7", user_id="u") == found

    def test_a_store_in_memory_is_its_own(self) -> None:
        with open_memory(":memory:") as one, open_memory(":memory:") as two:
            key = add(one, "yes")
            assert ids(one.search("yes", user_id="u")) == [key]
            assert two.get_all(everything=True)["results"] == []

    def test_two_objects_on_one_folder_see_each_others_writes(self, folder: Path) -> None:
        with open_memory(folder) as one, open_memory(folder, new_id=iter(f"x{n}" for n in range(9)).__next__) as two:
            key = add(one, "zebra")
            assert ids(two.search("zebra", user_id="u")) == [key]
            two.update(key, "walrus")
            assert texts(one.search("walrus", user_id="u")) == ["walrus"]
            one.delete(key)
            assert two.search("walrus", user_id="u")["results"] == []

    @pytest.mark.sqlite
    @pytest.mark.parametrize("home", ["home", ""])
    def test_without_a_path_the_folder_is_memlayer_home_or_one_of_the_users(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
    ) -> None:
        monkeypatch.setenv("MEMLAYER_HOME", home and str(tmp_path / home))
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))
        with Memory(model=None, embeddings=None) as memory:
            memory.add("yes", user_id="u")
        (journal,) = tmp_path.rglob("journal.sqlite")
        assert (
            journal == tmp_path / "home" / "default" / "journal.sqlite"
            if home
            else "langchain_memlayer" in journal.parts
        )


class TestEmbedder:
    def test_it_is_recorded_and_another_is_refused_with_both_names(self, folder: Path) -> None:
        with open_memory(folder) as memory, open_memory(folder, embeddings=Faltering(len)) as late:
            add(memory, "one")
            # One that came first in the meantime is a mismatch.
            refuses(lambda: late.add("two", user_id="u"), folder, EmbedderMismatch)
            memory._indexes.embedder.source.embed_query = unreachable
            with pytest.raises(EmbeddingError, match="ConnectionError"):
                memory.search("one", user_id="u")
        before = dump(folder)
        with pytest.raises(EmbedderMismatch) as refused:
            open_memory(folder, embeddings=Faltering(len))
        for word in ("DeterministicEmbeddings", "Faltering", "memlayer reembed"):
            assert word in str(refused.value)
        assert dump(folder) == before

    def test_one_of_another_size_writes_no_vector(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            add(memory, "one")
        with open_memory(folder, embeddings=DeterministicEmbeddings(64)) as memory:
            with pytest.raises(EmbeddingError, match=r"64 .* 256") as refused:
                memory.add("two", user_id="u")
            assert "kept" in str(refused.value)
            with pytest.raises(EmbeddingError):
                memory.search("one", user_id="u")

    def test_a_folder_with_vectors_opens_without_an_embedder(self, folder: Path) -> None:
        with open_memory(folder) as memory:
            first = add(memory, "zebra")
        with open_memory(folder, embeddings=None, new_id=lambda: "second") as memory:
            add(memory, "zebra giraffe")
            assert ids(memory.search("zebra", user_id="u")) == [first, "second"]
        with open_memory(folder) as memory:
            assert set(ids(memory.search("zebra", user_id="u"))) == {first, "second"}

    def test_with_none_only_what_shares_a_word_is_found(self, folder: Path) -> None:
        with open_memory(folder, embeddings=None) as memory:
            memory.add(["zebra crossing", "walrus"], user_id="u")
            assert texts(memory.search("a zebra?", user_id="u")) == ["zebra crossing"]
            assert memory.search("giraffe", user_id="u")["results"] == []
        assert query(folder, "SELECT count(*) FROM vectors") == [(0,)]
        assert query(folder, "SELECT value FROM meta WHERE key LIKE 'embedder%'") == []

    @pytest.mark.parametrize(
        "answer",
        [lambda t: [], lambda t: [[1.0] * 256] * (len(t) + 1), lambda t: [[1.0] * 255] * len(t), lambda t: None,
         lambda t: [[float("nan")] * 256] * len(t), lambda t: [[float("inf")] * 256] * len(t),
         lambda t: [["x"] * 256] * len(t), lambda t: [[]] * len(t), lambda t: "vectors", unreachable],
        ids=["none", "too many", "wrong size", "None", "NaN", "inf", "strings", "empty", "a string", "an error"],
    )  # fmt: skip
    def test_vectors_that_cannot_be_used_are_owed(self, folder: Path, answer: Callable[[list[str]], Any]) -> None:
        embeddings = Faltering(answer)
        with open_memory(folder, embeddings=embeddings) as memory:
            key = add(memory, "one")
            embeddings.broken = True
            with pytest.raises(EmbeddingError, match="kept"):
                memory.add(["two", "three"], user_id="u", batch_id="b")
            refuses(lambda: memory.update(key, "two"), folder, EmbeddingError)
            assert texts(memory.get_all(user_id="u")) == ["one", "two", "three"]
            assert query(folder, "SELECT count(*) FROM vectors") == [(1,)]
            [call] = memory.unread(user_id="u")
            assert [turn["memory"] for turn in call["turns"]] == ["two", "three"]
            embeddings.broken = False
            assert texts(memory.add(["two", "three"], user_id="u", batch_id="b")) == ["two", "three"]
            assert memory.flush(60)
            assert memory.unread(user_id="u") == []
            assert query(folder, "SELECT count(*) FROM vectors") == [(3,)]
            assert texts(memory.search("one", user_id="u"))[0] == "one"


LOOP: list[Any] = []
LOOP.append(LOOP)
SURROGATE = "\ud800"

BAD_ADD: dict[str, dict[str, Any]] = {
    "None": {"messages": None}, "empty list": {"messages": []}, "blank": {"messages": " \n"}, "number": {"messages": 5},
    "bytes": {"messages": b"text"}, "object": {"messages": object()}, "list of None": {"messages": ["good", None]},
    "dict without role": {"messages": {"content": "x"}}, "dict without content": {"messages": {"role": "user"}},
    "last one blank": {"messages": ["good", "also good", ""]}, "nul": {"messages": "a\x00b"},
    "surrogate": {"messages": SURROGATE}, "a set": {"messages": {"x"}},
    "message id": {"messages": {"role": "user", "content": "x", "id": 1.5}},
    "message time": {"messages": {"role": "user", "content": "x", "timestamp": "noon"}},
    "user list": {"user_id": [5]}, "user empty": {"user_id": ""}, "user blank": {"user_id": " "},
    "user nul": {"user_id": "a\x00"}, "user surrogate": {"user_id": SURROGATE}, "agent list": {"agent_id": ["a"]},
    "run bytes": {"run_id": b"r"}, "metadata list": {"metadata": [1]}, "metadata text": {"metadata": "x"},
    "metadata object": {"metadata": {"x": object()}}, "metadata NaN": {"metadata": {"x": float("nan")}},
    "metadata key": {"metadata": {1: "x"}}, "metadata loop": {"metadata": {"x": LOOP}},
    "metadata surrogate": {"metadata": {"x": SURROGATE}}, "metadata date": {"metadata": {"x": datetime.now(UTC)}},
    "session int": {"session_id": 5}, "session empty": {"session_id": ""},
    "session surrogate": {"session_id": SURROGATE},
    "timestamp text": {"timestamp": "yesterday"}, "timestamp NaN": {"timestamp": float("nan")},
    "timestamp bool": {"timestamp": True}, "timestamp huge": {"timestamp": 1e300},
    "user of many digits": {"user_id": 10**5000}, "metadata of many digits": {"metadata": {"x": -(10**5000)}},
    "timestamp of many digits": {"timestamp": 10**5000}, "batch of many digits": {"batch_id": 10**5000},
    "id of many digits": {"messages": {"role": "user", "content": "x", "id": 10**5000}},
    "batch int": {"batch_id": 5}, "batch empty": {"batch_id": ""}, "batch blank": {"batch_id": " "},
    "batch list": {"batch_id": []},
    "batch surrogate": {"batch_id": SURROGATE}, "batch bytes": {"batch_id": b"b"},
}  # fmt: skip
BAD_SEARCH: dict[str, dict[str, Any]] = {
    "query None": {"query": None}, "query blank": {"query": " "}, "query list": {"query": ["x"]},
    "query long": {"query": "x " * 50_001},
    "limit 0": {"limit": 0}, "limit -1": {"limit": -1}, "limit float": {"limit": 1.0}, "limit bool": {"limit": True},
    "limit text": {"limit": "3"}, "limit None": {"limit": None}, "threshold 2": {"threshold": 2},
    "threshold NaN": {"threshold": float("nan")}, "threshold text": {"threshold": "high"},
    "threshold bool": {"threshold": True}, "kinds unknown": {"kinds": ["note"]}, "kinds empty": {"kinds": []},
    "kinds int": {"kinds": 5}, "kinds nested": {"kinds": [["turn"]]}, "user list": {"user_id": [5]},
    "user surrogate": {"user_id": SURROGATE}, "limit of many digits": {"limit": -(10**5000)},
}  # fmt: skip
BAD_CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *(("search", (), {"query": "x", "user_id": "u"} | given) for given in BAD_SEARCH.values()),
    *(("get_all", (), {"everything": True} | given) for given in (
        {"limit": 0}, {"limit": "3"}, {"offset": -1}, {"offset": 1.0}, {"offset": None}, {"kinds": 5}, {"kinds": []},
        {"kinds": [None]}, {"user_id": True}, {"agent_id": ""}, {"run_id": SURROGATE},
    )),
    *((call, (key, *given), {}) for call, *given in (("get",), ("delete",), ("history",), ("update", "text"))
      for key in (None, "", 5, b"x", ["x"], SURROGATE)),
    *(("forget", (key,), {}) for key in ("", 5, b"x", ["x"], SURROGATE)),
]  # fmt: skip
BAD_FILTERS = ["x", 5, ["a"], {"a": 1j}, {"a": {"$near": 1}}, {"$or": {}}, {1: 2}, {"a": SURROGATE},
               {"$and": []}]  # fmt: skip
BAD_UPDATES: list[tuple[Any, ...]] = [
    (None,), ("",), (" \n",), (5,), (SURROGATE,), ("a\x00b",), (["x"],), ("x", 5), ("x", {"a": 1j}),
    (None, {"a": float("inf")}), (None, {"a": SURROGATE}), ("x", {2: 1}),
]  # fmt: skip


class TestBadInput:
    @pytest.mark.parametrize("infer", [True, False])
    def test_add(self, memory: Memory, folder: Path, infer: bool) -> None:
        add(memory, "one")
        for name, arguments in BAD_ADD.items():
            given = {"messages": ["good", "better"], "user_id": "u", "infer": infer} | arguments
            said = refuses(lambda given=given: memory.add(**given), folder, MemLayerError)
            assert len(said) > 20, name
            assert "Traceback" not in said, name
        assert texts(memory.search("one", user_id="u")) == ["one"]

    def test_calls(self, memory: Memory, folder: Path) -> None:
        key = add(memory, "one", metadata={"n": 1})
        calls = [
            *BAD_CALLS,
            *(("update", (key, *given), {}) for given in BAD_UPDATES),
            ("forget", (key,), {"user_id": "u"}),
        ]
        for name, given, named in calls:
            said = refuses(lambda: getattr(memory, name)(*given, **named), folder, InvalidInput)  # noqa: B023 - called here
            assert len(said) > 20, (name, given, named)

    def test_filters(self, memory: Memory) -> None:
        add(memory, "one")
        for filters in BAD_FILTERS:
            with pytest.raises(InvalidFilter):
                memory.search("one", user_id="u", filters=filters)
            with pytest.raises(InvalidFilter):
                memory.get_all(everything=True, filters=filters)

    @pytest.mark.sqlite
    def test_paths_and_settings(self, folder: Path) -> None:
        for path in ("", 5, b"x", "a\x00b"):
            with pytest.raises(InvalidInput):
                open_memory(path)
        for setting in ({"durability": "none"}, {"hnsw_threshold": -1}, {"hnsw_threshold": "1"},
                        {"hnsw_threshold": None}, {"embeddings": 5}, {"embeddings": "nothing"},
                        {"embeddings": DeterministicEmbeddings}):  # fmt: skip
            with pytest.raises((InvalidInput, ConfigurationError)):
                open_memory(folder, **setting)
        # A name that is no embedder makes no folder.
        with pytest.raises(ConfigurationError):
            open_memory(folder / "other", embeddings="nonsense")
        assert not (folder / "other").exists()

    @pytest.mark.sqlite
    def test_a_read_only_disk_is_said_and_leaves_nothing_behind(self, memory: Memory, folder: Path) -> None:
        key = add(memory, "one")
        memory._journal._writer.execute("PRAGMA query_only = ON")
        for call in (lambda: memory.add("two", user_id="u"), lambda: memory.update(key, "two"),
                     lambda: memory.delete(key), lambda: memory.delete_all(user_id="u"),
                     lambda: memory.forget(key), memory.reset):  # fmt: skip
            assert "read-only" in refuses(call, folder, JournalError)
        assert texts(memory.search("one", user_id="u")) == ["one"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
    def test_a_folder_that_cannot_be_made_is_said(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(JournalError):
            open_memory(tmp_path / "store")

    @pytest.mark.sqlite
    def test_a_late_error_leaves_nothing_behind(
        self, memory: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = add(memory, "one")

        def fail(step: str) -> None:
            raise sqlite3.OperationalError("pulled out")

        monkeypatch.setattr("langchain_memlayer.journal.sqlite._step", fail)
        for call in (lambda: memory.add(["two", "three"], user_id="u"), lambda: memory.update(key, "two"),
                     lambda: memory.delete(key)):  # fmt: skip
            refuses(call, folder, JournalError)
        monkeypatch.undo()
        assert texts(memory.search("one two", user_id="u")) == ["one"]


WORDS = ["zebra", "walrus", "giraffe", "otter", "lynx", "heron", "badger"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)
USERS = st.sampled_from(["ann", "*", "bob@example.com"])
METADATA = st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2)


class MemoryMachine(RuleBasedStateMachine):
    """Memory against a dictionary: every call, with reopening in between."""

    keys: Bundle[str] = Bundle("keys")

    @initialize(embeddings=st.booleans())
    def open(self, embeddings: bool) -> None:
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "store"
        self.embeddings = DeterministicEmbeddings() if embeddings else None
        self.memory = Memory(self.folder, model=None, embeddings=self.embeddings, durability="fast")
        self.live: dict[str, dict[str, Any]] = {}
        self.told: dict[str, list[tuple[str, str | None, str | None]]] = {}

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.memory.close()
            self.stack.close()

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = Memory(self.folder, model=None, embeddings=self.embeddings, durability="fast")

    @rule(target=keys, text=TEXTS, user=USERS, metadata=METADATA, infer=st.booleans())
    def add(self, text: str, user: str, metadata: dict[str, int] | None, infer: bool) -> str:
        (done,) = self.memory.add(text, user_id=user, metadata=metadata, infer=infer)["results"]
        twins = [key for key, m in self.live.items() if (m["user"], m["text"]) == (user, text)]
        if infer and twins:
            assert done["event"] == "NONE"
            assert done["id"] in twins
            self.live[done["id"]]["count"] += 1
        else:
            assert done["event"] == "ADD"
            assert done["id"] not in self.told
            self.live[done["id"]] = {"user": user, "text": text, "metadata": metadata or {}, "count": 1, "event": "add"}
            self.told[done["id"]] = [("ADD", None, text)]
        return str(done["id"])

    @rule(key=keys, text=st.none() | TEXTS, metadata=METADATA)
    def update(self, key: str, text: str | None, metadata: dict[str, int] | None) -> None:
        if text is None and metadata is None:
            return
        if key not in self.live:
            with pytest.raises(MemoryNotFound):
                self.memory.update(key, text, metadata)
            return
        self.memory.update(key, text, metadata)
        found = self.live[key]
        new = found["text"] if text is None else text
        self.told[key].append(("UPDATE", found["text"], new))
        found.update(text=new, metadata={**found["metadata"], **(metadata or {})}, event="update")

    @rule(key=keys)
    def delete(self, key: str) -> None:
        if key not in self.live:
            with pytest.raises(MemoryNotFound):
                self.memory.delete(key)
            return
        self.memory.delete(key)
        self.told[key].append(("DELETE", self.live.pop(key)["text"], None))

    @rule(user=USERS)
    def delete_all(self, user: str) -> None:
        ended = [key for key, m in self.live.items() if m["user"] == user]
        assert self.memory.delete_all(user_id=user)["count"] == len(ended)
        for key in ended:
            self.told[key].append(("DELETE", self.live.pop(key)["text"], None))

    @rule(key=consumes(keys))
    def forget(self, key: str) -> None:
        if key in self.told:
            self.memory.forget(key)
            self.live.pop(key, None)
            del self.told[key]
        assert self.memory.get(key) is None

    @rule(key=keys)
    def get_and_history(self, key: str) -> None:
        found, expected = self.memory.get(key), self.live.get(key)
        if expected is None:
            assert found is None
        else:
            assert found is not None
            assert self.seen(found) == expected
        if key in self.told:
            rows = self.memory.history(key)
            assert [(row["event"], row["prev_value"], row["new_value"]) for row in rows] == self.told[key]
            assert [row["is_deleted"] for row in rows] == [int(event == "DELETE") for event, *_ in self.told[key]]

    @rule(key=keys)
    def search_by_own_text(self, key: str) -> None:
        expected = self.live.get(key)
        if expected is None:
            return
        result = self.memory.search(expected["text"], user_id=expected["user"], limit=1000)["results"]
        assert key in [hit["id"] for hit in result]
        assert len({hit["id"] for hit in result}) == len(result)
        for hit in result:
            assert self.seen(hit) == self.live[hit["id"]]
            assert hit["user_id"] == expected["user"]
        top = {frozenset(hit["memory"].split()) for hit in result if hit["score"] == result[0]["score"]}
        assert set(expected["text"].split()) & set().union(*top)

    @invariant()
    def lists_exactly_the_live_ones(self) -> None:
        if hasattr(self, "memory"):
            found = self.memory.get_all(everything=True, limit=1000)["results"]
            assert {m["id"]: self.seen(m) for m in found} == self.live
            assert len(found) == len(self.live)

    @staticmethod
    def seen(found: dict[str, Any]) -> dict[str, Any]:
        metadata = dict(found["metadata"])
        assert metadata.pop("data") == found["memory"] == found["text"]
        return {"user": found["user_id"], "text": found["memory"], "metadata": metadata, "count": found["count"],
                "event": found["event"]}  # fmt: skip


TestMemoryAgainstADictionary = pytest.mark.slow(MemoryMachine.TestCase)
MemoryMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def test_turns_lie_in_the_order_in_which_they_were_said_after_a_reopening_and_in_the_past(tmp_path: Path) -> None:
    with Memory(tmp_path, embeddings=None, model=None) as memory:
        memory.add([f"turn {n}" for n in range(200)], user_id="u", session_id="s")
    with Memory(tmp_path, embeddings=None, model=None) as memory:
        for ended in (False, True):
            ids = memory._indexes.view(".u.u.", ended=ended).ids
            assert ids.tolist() == sorted(ids.tolist())


def test_numbers_and_uuids_are_ids_by_their_text_and_a_search_of_nothing_does_no_harm(memory: Memory) -> None:
    for scope in ({"user_id": 7}, {"user_id": UUID("00000000-0000-4000-8000-000000000007")}, {"agent_id": "a"}):
        assert memory.search("tea", **scope)["results"] == []
        memory.add("I like tea", **scope)
        assert texts(memory.search("tea", **{kind: str(number) for kind, number in scope.items()})) == ["I like tea"]
        assert texts(memory.get_all(**scope)) == ["I like tea"]


def test_an_image_is_reported_and_one_alone_is_warned_of() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with open_memory(":memory:") as memory:
        done = memory.add(HumanMessage([{"type": "text", "text": "my cat"}, image], id="m1"), user_id="u")
        assert [row["memory"] for row in done["results"]] == ["my cat"]
        assert [(one["id"], one["part"]) for one in done["skipped"]] == [("m1", "image_url")]
        with pytest.warns(UserWarning, match="image_url") as warned:
            assert memory.add(HumanMessage([image]), user_id="u")["skipped"]
        assert warned[0].filename == __file__
        assert "skipped" not in memory.add("my dog", user_id="u")
