from __future__ import annotations

import math
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds

pytest_plugins = ["pytester"]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


class TestDeterministicEmbeddings:
    @pytest.mark.parametrize("dims", [1, 2, 8, 64, 300])
    @pytest.mark.parametrize("text", ["", " ", "?!", "blue", "the blue door", "北京", "a\ud800b"])
    def test_every_text_has_a_unit_vector(self, dims: int, text: str) -> None:
        vector = DeterministicEmbeddings(dims=dims).embed_query(text)
        assert len(vector) == dims
        assert math.isclose(cosine(vector, vector), 1)

    def test_a_query_has_the_vector_of_the_same_document(self) -> None:
        embeddings = DeterministicEmbeddings()
        assert embeddings.embed_documents(["blue door"]) == [embeddings.embed_query("Blue  door!")]

    def test_the_more_words_are_shared_the_nearer(self) -> None:
        vector = DeterministicEmbeddings(dims=256).vector
        query = vector("the blue door is open")
        texts = ["the blue door was open", "a blue door", "blue sky", "red wine"]
        scores = [cosine(query, vector(text)) for text in texts]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == 4

    def test_calls_and_texts_are_recorded(self) -> None:
        embeddings = DeterministicEmbeddings(8)
        embeddings.embed_documents(["a", "b"])
        embeddings.embed_documents(["c"])
        embeddings.embed_query("q")
        embeddings.vector("unseen")
        assert embeddings.batches == [["a", "b"], ["c"]]
        assert embeddings.texts == ["a", "b", "c"]
        assert embeddings.queries == ["q"]
        embeddings.reset()
        assert (embeddings.batches, embeddings.texts, embeddings.queries) == ([], [], [])

    async def test_async_calls_are_recorded_too(self) -> None:
        embeddings = DeterministicEmbeddings(8)
        assert await embeddings.aembed_documents(["a"]) == [embeddings.vector("a")]
        assert await embeddings.aembed_query("q") == embeddings.vector("q")
        assert (embeddings.batches, embeddings.queries) == ([["a"]], ["q"])

    def test_no_dimensions_are_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            DeterministicEmbeddings(0)


class TestFrozenClock:
    def test_it_stands_still_until_advanced(self) -> None:
        clock = FrozenClock(datetime(2025, 3, 1, 12, tzinfo=UTC))
        assert clock() == clock() == datetime(2025, 3, 1, 12, tzinfo=UTC)
        assert clock.advance(days=1, hours=2, minutes=3, seconds=4, microseconds=5) == clock()
        assert clock() == datetime(2025, 3, 2, 14, 3, 4, 5, tzinfo=UTC)
        clock.advance(days=-1)
        assert clock() < datetime(2025, 3, 2, tzinfo=UTC)

    def test_it_gives_aware_utc(self) -> None:
        clock = FrozenClock(datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))))
        assert clock().utcoffset() == timedelta()
        assert clock().hour == 10
        with pytest.raises(ValueError, match="aware"):
            FrozenClock(datetime(2025, 3, 1))

    def test_it_may_tick_by_itself(self) -> None:
        clock = FrozenClock(tick=timedelta(seconds=1))
        first = clock()
        assert [clock() - first for _ in range(3)] == [timedelta(seconds=n) for n in (1, 2, 3)]


def test_ids_are_uuids_in_order_and_the_same_of_two_makers() -> None:
    new_id, other = SequentialIds(), SequentialIds()
    ids = [new_id() for _ in range(300)]
    assert ids == sorted(set(ids)) == [other() for _ in range(300)]
    assert [str(uuid.UUID(text)) for text in ids] == ids
    assert {uuid.UUID(text).version for text in ids} == {4}
    assert SequentialIds(start=1000)() not in ids


def test_elsewhere_a_text_has_the_same_vector_and_the_fakes_need_no_pytest() -> None:
    code = """
import sys
sys.modules["pytest"] = None
import langchain_memlayer.store
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds
print(DeterministicEmbeddings(8).embed_query("blue door"))
FrozenClock()(), SequentialIds()()
try:
    from langchain_memlayer.testing import StoreConformance
except ImportError as error:
    print(error.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(DeterministicEmbeddings(8).embed_query("blue door")), "pytest"]


def test_an_unknown_name_is_an_attribute_error() -> None:
    import langchain_memlayer.testing as testing

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = testing.Nothing


def test_the_suite_notices_a_store_that_breaks_the_contract(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from langgraph.store.memory import InMemoryStore
        from langchain_memlayer.testing import StoreConformance

        class TestReference(StoreConformance):
            supports_ttl = has_clock = supports_superset_filters = False

            @pytest.fixture
            def make_store(self):
                return InMemoryStore
        """
    )
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")  # nor any that lies in a folder above
    result = pytester.runpytest_inprocess(
        "-q", "-p", "no:cacheprovider", "-k", "8835 or generator or start_ttl or 8734 or superset or store_says"
    )
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 4
    assert outcomes["passed"] == 2
    assert outcomes["skipped"] == 42
    result.stdout.fnmatch_lines(["*AssertionError: assert *'n'*"])
