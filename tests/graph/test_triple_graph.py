from collections.abc import Iterator
from typing import Any

import pytest
from told import Told, near, shown, state

from langchain_memlayer.errors import ScopeRequired
from langchain_memlayer.graph.memory_graph import TripleGraph
from langchain_memlayer.types import QUARANTINED, VISIBLE, Scope


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    yield told
    told.graphs.close()
    told.journal.close()


def test_spellings_of_one_name_meet_and_the_first_is_displayed(told: Told) -> None:
    told.tell(("Aario", "lives in", "Berlin"))
    told.tell(("my friend Aario", "LIVES_IN", "berlin"), ("AARIO", "likes", "tea"))
    assert shown(told.graph()) == {("Aario", "lives_in", "Berlin"), ("Aario", "likes", "tea")}
    assert set(told.graph().copy().nodes) == {"Aario", "Berlin", "tea"}


def test_several_relations_of_a_pair_and_several_memories_are_kept_apart(told: Told) -> None:
    first = told.tell(("Anna", "works with", "Bob"), ("Anna", "likes", "Bob"), valid_at=1_700_000_000_000_000)
    second = told.tell(("Anna", "likes", "Bob"))
    copy = told.graph().copy()
    assert sorted((data["relation"], data["memory_id"]) for data in copy["Anna"]["Bob"].values()) == sorted(
        [("works_with", first.key), ("likes", first.key), ("likes", second.key)]
    )
    assert {data.get("valid_at") for data in copy["Anna"]["Bob"].values()} == {"2023-11-14T22:13:20+00:00", None}
    edge = told.graph().triples()[0]
    assert (edge.item, edge.memory_id, edge.valid_at) == (first.id, first.key, 1_700_000_000_000_000)


def test_edges_end_with_their_memory_and_other_memories_keep_theirs(told: Told) -> None:
    one = told.tell(("Anna", "lives in", "Paris"), ("Anna", "likes", "Bob"))
    told.tell(("Anna", "likes", "Bob"))
    told.graph()
    told.end(one)
    assert shown(told.graph()) == {("Anna", "likes", "Bob")}
    assert "Paris" not in told.graph().copy()
    assert told.graph().entities_in("Who lives in Paris?") == []
    assert len(told.graph()) == 1


def test_a_spelling_leaves_with_the_memory_that_told_it(told: Told) -> None:
    first = told.tell(("my secret friend Aario", "x", "aario's dog"), ("AARIO", "likes", "tea"))
    told.tell(("aario", "likes", "Tea"))
    assert ("AARIO", "likes", "tea") in shown(told.graph())
    told.end(first)
    assert shown(told.graph()) == {("aario", "likes", "Tea")}
    assert state(told.graph()) == state(told.rebuilt())


def test_forgotten_names_are_in_no_answer(told: Told) -> None:
    told.tell(("Bob", "likes", "tea"))
    row = told.tell(("Bob", "has", "Quokka"))
    told.graph()
    told.forget(row)
    assert shown(told.graph()) == {("Bob", "likes", "tea")}
    assert "quokka" not in str(vars(told.graph())).casefold()


def test_an_alias_joins_what_is_known_and_renames_nothing(told: Told) -> None:
    told.tell(("Bob", "likes", "tea"))
    told.tell(("Bob Smith", "lives in", "Paris"))
    graph = told.graph()
    assert near(graph, "Bob") == {"Bob", "tea", "Bob Smith", "Paris"} == near(graph, "Bob Smith")
    assert shown(graph) == {("Bob", "likes", "tea"), ("Bob Smith", "lives_in", "Paris")}
    assert graph.entities_in("Where is Bob Smith?") == ["Bob"]
    assert graph.copy().nodes["Bob Smith"] == {"entity": "Bob"}


def test_an_alias_is_undone_by_the_next_name_that_makes_it_doubtful(told: Told) -> None:
    told.tell(("Bob", "likes", "tea"))
    told.tell(("Bob Smith", "lives in", "Paris"))
    assert "Paris" in near(told.graph(), "Bob")
    other = told.tell(("Bob Jones", "lives in", "Rome"))
    assert near(told.graph(), "Bob") == {"Bob", "tea"}
    told.end(other)
    assert "Paris" in near(told.graph(), "Bob")


def test_names_that_a_triple_relates_are_two_unless_it_says_that_they_are_one(told: Told) -> None:
    told.tell(("Berlin Wall", "is in", "Berlin"))
    told.tell(("Anna", "is also known as", "Anna Lee"))
    copy = told.graph().copy()
    assert copy.nodes["Berlin"] == copy.nodes["Berlin Wall"] == {}
    assert copy.nodes["Anna Lee"] == {"entity": "Anna"}


def test_people_without_a_shared_first_word_are_never_joined(told: Told) -> None:
    told.tell(("Aario", "knows", "Anna Lee"), ("Maria", "knows", "Anna Kim"), ("Mr. Smith", "knows", "Mrs. Smith"))
    assert all(entity is None for _, entity in told.graph().copy().nodes(data="entity"))
    assert near(told.graph(), "Anna Lee", k=9) == {"Anna Lee", "Aario"}


def test_names_without_letters_are_kept_and_empty_ones_left_out(told: Told) -> None:
    told.tell(("Anna", "sent", "🚀"), (" ", "likes", "Anna"), ("Anna", "", "Bob"))
    assert shown(told.graph()) == {("Anna", "sent", "🚀"), ("Anna", "related_to", "Bob")}


def test_a_scope_sees_the_memories_of_its_ids_only(told: Told) -> None:
    told.tell(("ANNA", "likes", "tea"), scope=Scope("u", "a", "r1"))
    told.tell(("Anna", "likes", "rum"), scope=Scope("u", "b", "r2"))
    told.tell(("Anna", "likes", "gin"), scope=Scope("u"))
    told.tell(("Anna", "likes", "ale"), scope=Scope("v", "a"))
    told.tell(("anna", "likes", "mead"), scope=Scope(agent_id="a"))
    for scope, drinks in [
        (Scope("u"), {"tea", "rum", "gin"}),
        (Scope("u", "a"), {"tea"}),
        (Scope("u", "b"), {"rum"}),
        (Scope("u", None, "r1"), {"tea"}),
        (Scope(agent_id="a"), {"tea", "ale", "mead"}),
        (Scope("w"), set()),
        (Scope("u*"), set()),
    ]:
        assert {d for _, _, d in shown(told.graph(scope))} == drinks, scope
    assert {s for s, _, _ in shown(told.graph(Scope("u", "b")))} == {"Anna"}
    with pytest.raises(ScopeRequired, match="user_id"):
        told.graph(Scope())


def test_names_of_another_agent_do_not_decide_who_is_who(told: Told) -> None:
    told.tell(("Bob", "likes", "tea"), ("Bob Smith", "likes", "rum"), scope=Scope("u", "a"))
    told.tell(("Bob Jones", "likes", "gin"), scope=Scope("u", "b"))
    assert "rum" in near(told.graph(Scope("u", "a")), "Bob")
    assert "rum" not in near(told.graph(Scope("u")), "Bob")


def test_quarantined_memories_count_only_when_asked_for(told: Told) -> None:
    row = told.tell(("Bank", "is", "X"), state=QUARANTINED)
    told.tell(("Bank", "is", "Y"))
    assert shown(told.graph()) == {("Bank", "is", "Y")}
    assert shown(told.graph(include_quarantined=True)) == {("Bank", "is", "X"), ("Bank", "is", "Y")}
    told.change(row, state=VISIBLE)
    assert len(told.graph()) == 2
    told.change(row, state=QUARANTINED)
    assert len(told.graph()) == 1


def test_a_memory_told_again_changes_no_edge(told: Told) -> None:
    first = told.tell(("Anna", "likes", "tea"))
    told.tell(("Anna", "likes", "rum"))
    changed = told.graph().changed
    told.change(first, count=2, last_seen=5)
    assert told.graph().changed == changed


def test_relations_between_the_entities_and_those_that_the_query_names_come_first(told: Told) -> None:
    told.tell(("Anna", "likes", "Bob"))
    told.tell(("Anna", "lives in", "Paris"))
    for place in ("Rome", "Oslo", "Kyiv"):
        told.tell(("Anna", "visited", place))
    told.tell(("Paris", "is in", "France"))
    graph = told.graph()
    found = [tuple(e[3:6]) for e in graph.relations(["anna", "BOB"], query="Where does Anna live?")]
    assert found[:2] == [("Anna", "likes", "Bob"), ("Anna", "lives_in", "Paris")]
    assert found[2:] == [
        ("Anna", "visited", "Kyiv"), ("Anna", "visited", "Oslo"), ("Anna", "visited", "Rome"),
        ("Paris", "is_in", "France"),
    ]  # fmt: skip
    assert len(graph.relations(["Anna"], most=2)) == 2
    assert graph.relations(["Nobody"]) == graph.relations([]) == []
    assert ("Paris", "is_in", "France") not in [tuple(e[3:6]) for e in graph.relations(["Anna"], k=1)]


def test_a_speaker_without_a_name_is_meant_by_i(told: Told) -> None:
    told.tell(("User", "lives in", "Paris"), ("用户", "女儿", "小雨"))
    assert told.graph().entities_in("Where do I live?") == ["User", "用户"]
    assert told.graph().entities_in("小雨多大了") == ["小雨"]


def test_memories_near_a_rare_entity_weigh_more_than_those_of_a_hub(told: Told) -> None:
    hub = [told.tell(("User", "likes", f"thing {n}")) for n in range(30)]
    rare = told.tell(("User", "knows", "Anna"))
    next_to = told.tell(("Anna", "lives in", "Paris"))
    far = told.tell(("X", "y", "Z"))
    near = told.graph().memories_near(["Anna"])
    assert list(near)[:2] == [next_to.id, rare.id] or list(near)[:2] == [rare.id, next_to.id]
    assert far.id not in near
    assert all(0 < weight <= 1 for weight in near.values())
    assert max(near.get(row.id, 0) for row in hub) < min(near[rare.id], near[next_to.id]) / 5
    assert len(told.graph().memories_near(["User", "Anna"], most=3)) == 3
    assert told.graph().memories_near(["Nobody"]) == {}


def test_relations_in_results_are_read_again_from_the_journal(told: Told) -> None:
    ended = told.tell(("Anna", "lives in", "Paris"))
    told.tell(("anna", "likes", "tea"))
    told.tell(("ANNA", "likes", "Tea"))
    foreign = told.tell(("Eve", "likes", "Anna"), scope=Scope("eve"))
    said = told.tell(("Anna", "fears", "Bank"), state=QUARANTINED)
    graph = told.graph()
    # What a stale or hostile graph might say:
    graph.apply(10**6, [(10**6, 10**6, "m", "Anna", "owns", "Moon", None),
                        (4, foreign.id, foreign.key, "Eve", "likes", "Anna", None),
                        (5, said.id, said.key, "Anna", "fears", "Bank", None),
                        (99, ended.id, ended.key, "Anna", "robbed", "Bank", None)])  # fmt: skip
    told.end(ended)
    graph.applied_seq = 10**6
    assert ("Anna", "owns", "Moon") in shown(graph)
    found = told.graphs.relations(Scope("alice"), ["Anna"])
    # The name was first spelled by what has ended, so the latest triple is shown in its own spelling.
    assert found == [{"source": "ANNA", "relationship": "likes", "destination": "tea"}]


def test_relations_are_shown_once_however_they_are_spelled(told: Told) -> None:
    for relation in ("lives in", "livesIn", "LIVES_IN", "lives-in"):
        told.tell(("Anna", relation, "Paris"), ("my friend anna", relation, "PARIS"))
    assert told.graphs.relations(Scope("alice"), ["Anna"]) == [
        {"source": "Anna", "relationship": "lives_in", "destination": "Paris"}
    ]


def test_graphs_of_other_scopes_leave_when_they_grow_too_many() -> None:
    told = Told(capacity_bytes=2_000)
    for user in "abc":
        told.tell(("Anna", "likes", user), ("Bob", "likes", user), scope=Scope(user))
        told.graph(Scope(user))
    assert len(told.graphs._cache.slabs()) == 1
    for number in range(5):
        told.graph(Scope(f"nobody {number}"))
    assert len(told.graphs._cache.slabs()) == 1
    assert shown(told.graph(Scope("a"))) == {("Anna", "likes", "a"), ("Bob", "likes", "a")}
    told.journal.close()


def rows_of(n: int, nodes: int) -> list[tuple[Any, ...]]:
    """`n` triples over `nodes` names, every tenth of them at one of ten hubs."""
    ends = (f"n{i * 104729 % nodes}" if i % 10 else f"hub{i % 10}" for i in range(1, n + 1))
    return [(i, i, f"m{i}", f"n{i * 7919 % nodes}", f"r{i % 20}", end, None) for i, end in enumerate(ends, 1)]


class Counting(dict[str, Any]):
    """An adjacency that counts the nodes that are looked at."""

    seen: set[str]

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)


@pytest.mark.slow
def test_reads_of_a_large_graph_visit_a_bounded_number_of_nodes() -> None:
    graph = TripleGraph()
    graph.apply(1, rows_of(100_000, 30_000))
    assert len(graph) == 100_000
    counted = Counting(graph._successors)
    counted.seen = set()
    graph._graph._adj = counted
    for seeds in (["n7"], ["hub0"], ["hub0", "n7", "n8"]):
        counted.seen.clear()
        graph.relations(seeds)
        graph.memories_near(seeds)
        assert len(counted.seen) <= 10_000
