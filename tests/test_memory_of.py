"""`Memory.of`: a memory whose scope is filled in; and what all surfaces refuse."""

from collections.abc import Iterator
from copy import copy
from typing import Any

import pytest
from memory_kit import call
from surfaces_kit import ALICE, facts, open_with_facts, said

from langchain_memlayer import InvalidInput, Memory, MemoryNotFound, ScopeRequired
from langchain_memlayer.agents.nodes import recall_node


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_with_facts() as opened:
        opened.add("I like coffee.", user_id="bob")
        yield opened


async def test_its_methods_need_no_ids(memory: Memory, way: str) -> None:
    alice = memory.of("alice")
    await call(way, alice, "add", "I like tea.", session_id="s")
    [row] = (await call(way, alice, "get_all", kinds=["fact"]))["results"]
    assert (row["memory"], row["user_id"], row["session_id"]) == ("I like tea.", "alice", "s")
    hits = (await call(way, alice, "search", "What do I like?", limit=50))["results"]
    assert {hit["user_id"] for hit in hits} == {"alice"}
    await call(way, alice, "update", row["id"], "I like green tea.")
    assert facts(memory) == ["I like green tea."]
    found = await call(way, alice, "extract", [{"role": "user", "content": "I hike.", "id": "m1"}])
    await call(way, alice, "reconcile", [{"role": "user", "content": "I hike.", "id": "m1"}], found["facts"])
    assert facts(memory) == ["I hike.", "I like green tea."]
    await call(way, alice, "delete_all")
    assert facts(memory) == []
    assert facts(memory, user_id="bob") == ["I like coffee."]


async def test_what_belongs_to_others_is_not_there(memory: Memory, way: str) -> None:
    [theirs] = memory.get_all(user_id="bob", kinds=["fact"])["results"]
    alice = memory.of(user_id="alice")
    assert await call(way, alice, "get", theirs["id"]) is None
    for name, more in (("update", ["x"]), ("delete", []), ("forget", []), ("why", []), ("history", [])):
        with pytest.raises(MemoryNotFound):
            await call(way, alice, name, theirs["id"], *more)
    with pytest.raises(InvalidInput, match="user_id"):
        await call(way, alice, "search", "coffee", user_id="bob")
    for name, more in (("get", []), ("delete", []), ("forget", []), ("update", ["x"])):
        # An id that the caller does not have is not all of the scope.
        with pytest.raises(InvalidInput, match="id"):
            await call(way, alice, name, None, *more)
    assert copy(alice).get_all() == alice.get_all()
    assert facts(memory, user_id="bob") == ["I like coffee."]


def test_further_ids_narrow_it(memory: Memory) -> None:
    alice = memory.of("alice")
    alice.of(agent_id="tutor").add("I like chess.")
    alice.add("I like tea.", agent_id="cook")
    assert facts(memory) == ["I like chess.", "I like tea."]
    assert facts(memory, user_id="alice", agent_id="tutor") == ["I like chess."]
    with pytest.raises(InvalidInput, match="user_id"):
        alice.of("bob")


def test_its_surfaces_have_its_scope(memory: Memory) -> None:
    alice = memory.of(**ALICE)
    alice.as_node().invoke(said("I like tea."))
    assert facts(memory) == ["I like tea."]
    manage, search = alice.as_tools()
    manage.invoke({"content": "Alice hikes."})
    assert "Alice hikes." in search.invoke({"query": "hikes"})
    assert {document.metadata["memory_kind"] for document in alice.as_retriever(kinds=["fact"]).invoke("tea")} == {
        "fact"
    }
    runtime: Any = None
    assert "tea" in alice.as_middleware().before_agent(said("Do I like tea?"), runtime)["memory_context"]
    for surface in (alice.as_middleware, alice.as_node, alice.as_tools):
        with pytest.raises(InvalidInput, match="scope="):
            surface(scope={"user_id": "bob"})
    assert alice.store is memory.store
    assert alice.embedder == memory.embedder


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda memory, option: recall_node(memory, **option), ("filter", "user_id", "k")),
        (lambda memory, option: memory.as_middleware(search_kwargs=option), ("filter", "user_id", "limit")),
        (lambda memory, option: memory.as_retriever(**ALICE, **option), ("limit", "fetch_k", "query")),
    ],
    ids=["node", "middleware", "retriever"],
)
def test_what_search_does_not_take_is_refused_where_a_surface_is_made(
    memory: Memory, make: Any, options: tuple[str, ...]
) -> None:
    for option in options:
        with pytest.raises(InvalidInput, match=f"not '{option}'"):
            make(memory, {option: 1})


def test_nobody_and_the_whole_store_are_not_its_own(memory: Memory) -> None:
    with pytest.raises(ScopeRequired):
        memory.of()
    alice = memory.of("alice")
    assert not hasattr(alice, "reset")
    assert "reset" not in dir(alice)
    assert "search" in dir(alice)
    assert repr(alice) == "<Memory(':memory:') of user_id>"  # not whose: it may get into a log
