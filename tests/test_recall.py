"""What a search must always hold, however its signals are weighed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journal_dump import ids, open_memory, query, texts
from langchain_core.messages import AIMessage, HumanMessage

from langchain_memlayer import Memory
from langchain_memlayer.embedders.own import WordLlamaEmbeddings
from langchain_memlayer.engine import scoring_pool, search
from langchain_memlayer.recall import PROBES, memory_text
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock
from langchain_memlayer.types import HIDDEN, QUARANTINED, Scope

EMBEDDINGS = pytest.mark.parametrize("embeddings", [True, False], ids=["vectors", "keywords"])


@pytest.fixture(params=[True, False], ids=["vectors", "keywords"])
def memory(folder: Path, request: pytest.FixtureRequest) -> Iterator[Memory]:
    with open_memory(folder, embeddings=DeterministicEmbeddings() if request.param else None) as opened:
        yield opened


def found(memory: Memory, text: str, **arguments: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = memory.search(text, **({"user_id": "u", "limit": 1000} | arguments))["results"]
    return results


class _ElsewhereFormatted(datetime):
    """A time as a program formats it whose locale is not English."""

    def strftime(self, _: str) -> str:
        return "Monat"

    def __format__(self, _: str) -> str:
        return "Monat"


def test_what_is_indexed_of_a_time_is_the_same_in_every_locale() -> None:
    times = [_ElsewhereFormatted(2023, month, 8, tzinfo=UTC) for month in (1, 5, 12)]
    months = [memory_text("hi", name="Ann", time=time) for time in times]
    assert months == ["Ann (08 January 2023): hi", "Ann (08 May 2023): hi", "Ann (08 December 2023): hi"]
    assert memory_text("hi", name=None, time=datetime(33, 5, 31, tzinfo=UTC)) == "(31 May 0033): hi"


def as_listed(hit: dict[str, Any]) -> dict[str, Any]:
    """A hit as `get` shows the same memory."""
    return {key: value for key, value in hit.items() if key not in ("score", "relevance", "evidence")}


CONVERSATION = [
    HumanMessage("I moved from Hamburg to Berlin in May.", id="1", name="Ann"),
    AIMessage("How do you like Berlin?", id="2"),
    HumanMessage("The rent is high, but my new job at the museum is great.", id="3", name="Ann"),
    AIMessage("What do you do at the museum?", id="4"), HumanMessage("I restore old clocks.", id="5", name="Bob"),
    HumanMessage("我住在柏林，我喜欢修理旧钟表。", id="6"), AIMessage("好的", id="7"),
    HumanMessage("Locker 12 is mine.", id="8"), HumanMessage("Locker 13 is free.", id="9"),
]  # fmt: skip
QUERIES = ["Berlin", "Where does Ann work?", "old clocks", "旧钟表", "locker 12", "the", "?!", "🦉", "xyzzy", "I",
           "May 2024", "museum museum museum", "a" * 5000, " ".join(f"word{n}" for n in range(500)),
           "Berlin OR NOT NEAR(x) *:\"'"]  # fmt: skip


def test_scores_order_the_hits_and_both_numbers_are_between_0_and_1(memory: Memory) -> None:
    memory.add(CONVERSATION[:5], user_id="u", session_id="s1", timestamp="2024-05-08")
    memory.add(CONVERSATION[5:], user_id="u", session_id="s2")
    for text in QUERIES:
        hits = found(memory, text)
        scores = [hit["score"] for hit in hits]
        assert scores == sorted(scores, reverse=True), text
        assert all(0 <= hit["score"] <= 1 and 0 <= hit["relevance"] <= 1 for hit in hits), text
        assert len({hit["id"] for hit in hits}) == len(hits), text
        assert found(memory, text) == hits, text


def test_a_limit_cuts_the_same_ranking_and_a_threshold_its_relevance(memory: Memory) -> None:
    memory.add([f"museum number {n}" for n in range(7)], user_id="u")
    memory.add(["red fox", "red wine", "blue door", "red"], user_id="u")
    everything = found(memory, "red fox, museum number 3")
    assert len(everything) == 10
    for limit in (1, 2, 3, 8, 100):
        assert found(memory, "red fox, museum number 3", limit=limit) == everything[:limit]
    everything = found(memory, "red fox")
    assert everything[0]["memory"] == "red fox"
    for threshold in (0, 0.2, 0.5, 0.9, 1):
        kept = found(memory, "red fox", threshold=threshold)
        assert kept == [hit for hit in everything if hit["relevance"] >= threshold]


def test_nonsense_makes_nothing_relevant(memory: Memory) -> None:
    memory.add(CONVERSATION, user_id="u", session_id="s")
    for nonsense in ("xyzzy plugh", "qqq", "🦉🦉", "量子纠缠", "zzz " * 50):
        assert max((hit["relevance"] for hit in found(memory, nonsense)), default=0) < 0.5
        assert found(memory, nonsense, threshold=0.5) == []


def test_neither_the_only_memory_nor_one_beside_a_foreign_one_is_relevant_for_that(memory: Memory) -> None:
    memory.add("The cat sleeps.", user_id="u")
    assert max((hit["relevance"] for hit in found(memory, "quantum gravity lecture")), default=0) < 0.5
    assert found(memory, "The cat sleeps.")[0]["relevance"] > 0.4
    before = found(memory, "xyzzy plugh")
    memory.add(["xyzzy plugh", "xyzzy"], user_id="v")
    assert found(memory, "xyzzy plugh") == before


def test_relevance_is_the_same_beside_worse_and_better_memories(folder: Path) -> None:
    with open_memory(folder) as memory:
        (key,) = ids(memory.add("red fox", user_id="u"))
        (alone,) = found(memory, "quick red wine")
        memory.add(["blue door", "green tree", "quick red wine"], user_id="u", infer=False)
        beside = next(hit for hit in found(memory, "quick red wine") if hit["id"] == key)
        # The cosine does not move; BM25's share may, with the words' frequencies.
        assert abs(alone["relevance"] - beside["relevance"]) < 0.25
        assert alone["relevance"] < 0.9


NOUNS = ["museum", "clock", "river", "garden", "letter", "train", "violin", "harbour", "lamp", "orchard", "castle"]
VERBS = ["visited", "painted", "lost", "found", "sold", "repaired", "dreamt of"]
ASKED = ["the old museum clock", "who repaired the violin", "harbour lamp", "letter 7", "garden orchard castle river",
         "nothing of this kind", " ".join(NOUNS + VERBS)]  # fmt: skip


def sentence(n: int) -> dict[str, Any]:
    text = f"I {VERBS[n % 7]} the {NOUNS[n * n % 11]} near the {NOUNS[(3 * n + 1) % 11]} {n % 13}" + " again" * (n % 3)
    return {"role": "user", "content": text, "id": f"m{n}"}


def answers(memory: Memory, **scope: Any) -> list[list[tuple[str, float, float]]]:
    return [
        [(hit["sources"][0], hit["score"], hit["relevance"])
         for hit in memory.search(text, limit=1000, **scope)["results"]]
        for text in ASKED
    ]  # fmt: skip


@pytest.fixture(params=["a small scope", "a large scope"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Scopes above a size are searched by the index of the database instead of through all their rows."""
    if request.param == "a large scope":
        monkeypatch.setattr(scoring_pool, "WHOLE_SCOPE", 20)
    return str(request.param)


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize(
    "scope", [{"user_id": "u"}, {"user_id": "u", "agent_id": "a"}, {"agent_id": "a"}, {"run_id": "r"}], ids=str
)
def test_a_tenants_keyword_ranking_is_the_same_beside_foreign_rows(tmp_path: Path, scope: dict[str, Any]) -> None:
    mine = [sentence(n) for n in range(60)]
    with open_memory(tmp_path / "alone", embeddings=None) as memory:
        memory.add(mine, **scope)
        alone = answers(memory, **scope)
    assert all(alone[k] for k in (0, 1, 2, 3, 4, 6))
    with open_memory(tmp_path / "shared", embeddings=None) as memory:
        for tenant in range(3):
            memory.add([sentence(7 * n + tenant) for n in range(50)], user_id=f"v{tenant}", infer=False)
        memory.add(mine, **scope)
        memory.add([sentence(3 * n) for n in range(100)], agent_id="other", run_id="other", infer=False)
        assert answers(memory, **scope) == alone
    with open_memory(tmp_path / "shared", embeddings=None) as memory:
        assert answers(memory, **scope) == alone


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize(("mine", "foreign"), [({"agent_id": "a"}, {"user_id": "v"}),
                                               ({"user_id": "u", "agent_id": "a"}, {"user_id": "u", "agent_id": "b"}),
                                               ({"user_id": "u"}, {"user_id": "v"})], ids=str)  # fmt: skip
def test_what_is_frequent_elsewhere_moves_nothing(
    tmp_path: Path, mine: dict[str, Any], foreign: dict[str, Any]
) -> None:
    words = [f"word{n}" for n in range(100)]
    said = [{"role": "user", "content": " ".join(words[n : n + 9]), "id": f"m{n}"} for n in range(0, 90, 3)]
    rankings = []
    for shared in (False, True):
        with open_memory(tmp_path / str(shared), embeddings=None) as memory:
            memory.add(said, **mine)
            if shared:
                memory.add([" ".join(words[:60])] * 40, **foreign, infer=False)
            hits = memory.search(" ".join(words), limit=1000, **mine)["results"]
            rankings.append([(hit["sources"][0], hit["score"], hit["relevance"]) for hit in hits])
    assert rankings[0] == rankings[1]


@EMBEDDINGS
def test_a_search_shows_all_of_its_scope_and_nothing_else(folder: Path, embeddings: bool) -> None:
    asked = [{"user_id": "u1"}, {"agent_id": "a1"}, {"run_id": "r1"}, {"user_id": "u1", "agent_id": "a0"},
             {"agent_id": "a1", "run_id": "r0"}, {"user_id": "u0", "agent_id": "a0", "run_id": "r1"}]  # fmt: skip
    with open_memory(folder, embeddings=DeterministicEmbeddings() if embeddings else None) as memory:
        for n in range(64):
            place = {"user_id": f"u{n % 2}", "agent_id": f"a{n // 2 % 2}", "run_id": f"r{n // 4 % 2}"}
            given = [name for k, name in enumerate(place) if n < 8 or n >> (3 + k) & 1]
            memory.add(f"museum {n}", **{name: place[name] for name in given})
        for scope in asked:
            expected = set(ids(memory.get_all(limit=1000, **scope)))
            hits = memory.search("museum", limit=1000, **scope)["results"]
            assert expected
            assert {hit["id"] for hit in hits} == expected
            assert all(hit[name] == value for hit in hits for name, value in scope.items())


def test_filters_apply_before_the_best_are_chosen_and_change_no_score(memory: Memory) -> None:
    memory.add([f"red fox {n}" for n in range(200)], user_id="u", metadata={"wanted": False})
    memory.add([f"a fox of some other colour {n}" for n in range(5)], user_id="u", metadata={"wanted": True})
    assert len(found(memory, "red fox", limit=5, filters={"wanted": True})) == 5
    assert found(memory, "red fox", filters={"wanted": "neither"}) == []
    everything = found(memory, "red fox")
    for wanted in (False, True):
        kept = [hit for hit in everything if hit["metadata"]["wanted"] is wanted]
        assert found(memory, "red fox", filters={"wanted": wanted}) == kept


def test_a_stale_index_returns_neither_what_ended_nor_old_versions_nor_what_is_hidden(
    memory: Memory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slabs, once loaded, notice nothing any more.
    monkeypatch.setattr(memory._indexes._cache, "_refresh", lambda key, slab: True)
    keys = ids(memory.add(["red fox", "red wine", "red door", "red lamp", "red hat"], user_id="u"))
    assert len(found(memory, "red")) == 5
    with open_memory(folder, embeddings=memory._indexes.embedder and DeterministicEmbeddings()) as other:
        other.delete(keys[0])
        other.update(keys[1], "blue sky")
        other.forget(keys[2])
        other.add("red sky", user_id="u", infer=False)
        with other._journal.write() as tx:
            tx.change_memory(tx.memory(keys[4]), "hide", state=HIDDEN)
    assert len(memory._indexes.view(".u.u.")) == 5
    assert texts({"results": found(memory, "red")}) == ["red lamp"]


def test_what_cannot_be_read_takes_nobodys_place_and_is_looked_for_twice_at_most(
    memory: Memory, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory.add(["red fox runs", "red wine"], user_id="u")
    assert texts({"results": found(memory, "red fox", limit=1)}) == ["red fox runs"]
    query(folder, "UPDATE items SET turns = '{' WHERE value = ?", "red fox runs")
    caplog.clear()
    assert texts({"results": found(memory, "red fox", limit=1)}) == ["red wine"]
    assert 1 <= len(caplog.records) <= 2


def scramble(memory: Memory, scope_root: str, change: Any) -> None:
    view = memory._indexes.view(scope_root)
    for array in (view.ids, view.seqs, *view.columns.values()):
        array.flags.writeable = True
    change(view)


@pytest.mark.parametrize("asked", [{"user_id": "u"}, {"agent_id": "a"}, {"user_id": "u", "agent_id": "a"}], ids=str)
@pytest.mark.parametrize("harm", ["owner", "rows", "seqs"])
def test_a_hostile_index_returns_no_foreign_memory(memory: Memory, asked: dict[str, Any], harm: str) -> None:
    mine = ids(memory.add([f"red fox {n}" for n in range(3)], user_id="u", agent_id="a"))
    memory.add([f"red secret {n}" for n in range(3)], user_id="v", agent_id="b")
    memory.add([f"red secret {n}" for n in range(3, 6)], agent_id="c")
    foreign = [row.id for row in _rows(memory) if "secret" in row.text]
    root = ".u.u." if "user_id" in asked else "."

    def change(view: Any) -> None:
        if harm == "owner":
            for name in asked:
                view.columns[name][:] = memory._indexes.codes.find(asked[name])
        elif harm == "rows":
            view.ids[: len(foreign[:3])] = sorted(foreign[:3])
        else:
            view.seqs[:] = view.seqs + 1

    scramble(memory, root, change)
    hits = memory.search("red secret", limit=100, **asked)["results"]
    assert {hit["id"] for hit in hits} <= set(mine)
    for hit in hits:
        assert memory.get(hit["id"]) == as_listed(hit)


@pytest.mark.parametrize(("column", "value"), [("state", HIDDEN), ("state", QUARANTINED), ("invalid_at", 1)])
def test_a_hostile_index_shows_nothing_hidden_quarantined_or_expired(
    memory: Memory, folder: Path, column: str, value: int
) -> None:
    memory.add(["red fox", "red secret"], user_id="u")
    query(folder, f"UPDATE items SET {column} = ? WHERE value = 'red secret'", value)

    def change(view: Any) -> None:
        for name in ("state", "until"):
            view.columns[name][:] = 0

    scramble(memory, ".u.u.", change)
    assert texts({"results": found(memory, "red secret")}) == ["red fox"]


def test_what_changes_while_it_is_looked_for_is_found_as_it_is_now(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    [key] = ids(memory.add("red fox", user_id="u"))
    read = search._Reread.read

    def changed(self: Any, *given: Any) -> None:
        monkeypatch.setattr(search._Reread, "read", read)
        memory.update(key, "red wolf")
        read(self, *given)

    monkeypatch.setattr(search._Reread, "read", changed)
    assert texts({"results": found(memory, "red")}) == ["red wolf"]


@EMBEDDINGS
def test_what_has_expired_takes_nobodys_place_in_a_large_scope(
    folder: Path, monkeypatch: pytest.MonkeyPatch, embeddings: bool
) -> None:
    for name, value in (("WHOLE_SCOPE", 20), ("CANDIDATES", 10), ("FOUND", 10)):
        monkeypatch.setattr(scoring_pool, name, value)
    clock = FrozenClock()
    with open_memory(folder, clock=clock, embeddings=DeterministicEmbeddings() if embeddings else None) as memory:
        memory.add([f"red fox {n}" for n in range(60)], user_id="u", expiration_date=clock() + timedelta(days=1))
        memory.add("Somebody has seen a red animal, perhaps a fox, near the old mill", user_id="u")
        clock.advance(days=2)
        assert len(found(memory, "red fox")) == 1


def _rows(memory: Memory) -> list[Any]:
    with memory._journal.read() as reader:
        return reader.memories_of(Scope(), ended=True)


def test_vectors_of_another_memory_bring_only_true_texts(folder: Path) -> None:
    with open_memory(folder) as memory:
        first, second = ids(memory.add(["red fox", "blue door"], user_id="u"))
    rows = query(folder, "SELECT id, data FROM vectors ORDER BY id")
    for (row, _), (_, data) in zip(rows, reversed(rows), strict=True):
        query(folder, "UPDATE vectors SET data = ? WHERE id = ?", data, row)
    with open_memory(folder) as memory:
        for hit in found(memory, "red fox"):
            assert memory.get(hit["id"]) == as_listed(hit)
        assert {hit["id"] for hit in found(memory, "red fox")} <= {first, second}


def test_hits_are_complete_again_after_many_changes(memory: Memory) -> None:
    live: dict[str, Any] = {}
    chosen = np.random.default_rng(7)
    for n in range(120):
        action = chosen.integers(4)
        key = list(live)[chosen.integers(len(live))] if live else None
        if key is None or action < 2:
            (new,) = ids(memory.add(f"museum {n}", user_id="u"))
            live[new] = f"museum {n}"
        elif action == 2:
            memory.update(key, f"museum number {n}")
            live[key] = f"museum number {n}"
        else:
            memory.delete(key)
            del live[key]
        if n % 10 == 0:
            assert {hit["id"]: hit["memory"] for hit in found(memory, "museum")} == live
    assert {hit["id"]: hit["memory"] for hit in found(memory, "museum")} == live


def test_a_search_above_the_hnsw_threshold_finds_own_texts(folder: Path) -> None:
    with open_memory(folder, embeddings=DeterministicEmbeddings(64), hnsw_threshold=1000) as memory:
        memory.add([f"text number {n} of {n * 7 % 101}" for n in range(300)], user_id="u")
        memory._indexes.view(".u.u.")
        assert memory._indexes.wait(60)
        for n in range(0, 300, 30):
            [first, *_] = found(memory, f"text number {n} of {n * 7 % 101}", limit=3)
            assert first["memory"].startswith(f"text number {n} ")


def test_a_number_of_any_length_can_be_asked_for() -> None:
    from langchain_memlayer.recall import identifiers

    assert identifiers("where is " + "7" * 5_000) == ["7" * 5_000]


def test_misspelled_words_find_what_they_mean_in_their_own_scope_only_and_words_only_themselves() -> None:
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add("The restaurant opens at noon", user_id="ann", infer=False)
        memory.add(["The restaurand burnt down", "A piano fell"], user_id="bob", infer=False)
        nothing = memory.search("Whose pjano?", user_id="ann")["results"]
        known = memory.search("Which restaurant?", user_id="ann")["results"]
        again = memory.search("Which restaurnat?", user_id="ann")["results"]
        memory.add("Der Hund ist in der Schule", user_id="udo", infer=False)
        words = {"ann": "Which soon?", "bob": "Who has a plane?", "udo": "Wo ist der Hand?"}
        others = [memory.search(query, user_id=user)["results"] for user, query in words.items()]
        german = memory.search("Wo ist die Schlue?", user_id="udo")["results"]
    assert (nothing, others) == ([], [[], [], []])
    assert [hit["memory"] for hit in german] == ["Der Hund ist in der Schule"]
    assert [hit["memory"] for hit in again] == ["The restaurant opens at noon"]
    assert again[0]["relevance"] == known[0]["relevance"]


def test_the_bundled_model_embeds_what_a_misspelled_word_means_in_its_place() -> None:
    pytest.importorskip("wordllama")

    class Listening(WordLlamaEmbeddings):
        def embed_query(self, text: str) -> list[float]:
            self.asked = text
            return super().embed_query(text)

    model = Listening()
    with open_memory(":memory:", embeddings=model) as memory:
        memory.add("The piano is out of tune", user_id="u", infer=False)
        memory.search("Whose Piaon is it, and who is Ingrid?", user_id="u")
    assert sorted(model.asked.split()) == sorted(["Whose", "is", "it,", "and", "who", "is", "Ingrid?", "piano"])


def _about(texts: list[str]) -> list[list[float]]:
    """Vectors of what is meant: one axis for each probe and its answer, one for food, and between them what is good."""

    def one(text: str) -> list[float]:
        vector = [0.0] * 8
        if text in PROBES:
            vector[PROBES.index(text) % 6] = 1.0
        else:
            vector[6] = 1.0 if "dinner" in text or "meat" in text else 0.9 if "good" in text else 0.0
            vector[7] = float(np.sqrt(1 - vector[6] ** 2))
        return vector

    return [one(text) for text in texts]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Suggest some good cheap place for dinner tonight", "I never eat meat."),  # one of its words is said, of many
        ("A good swim before dinner?", "We had a good swim."),  # all of them
    ],
)  # fmt: skip
def test_meaning_counts_more_the_less_of_a_questions_words_is_said(question: str, answer: str) -> None:
    said = ["I never eat meat.", "We had a good swim.", "It rained.", "Dinner was late.", "Ann called."]
    with open_memory(":memory:", embeddings=_about) as memory:
        memory.add(said, user_id="u", infer=False)
        assert texts(memory.search(question, user_id="u", limit=1)) == [answer]


def test_long_turns_take_less_from_their_neighbours_and_sessions() -> None:
    taken = []
    for length in (1, 12):
        told = [f"{text} {'and so on with what happened then ' * (length - 1)}"
                for text in ("The boat sank.", "We swam ashore.", "It was cold.", "Nobody came.")]  # fmt: skip
        with open_memory(":memory:", embeddings=None) as memory:
            for session in (0, 2):
                memory.add(told[session : session + 2], user_id="u", session_id=str(session), infer=False)
            best, *rest = (hit["explanation"] for hit in found(memory, "Which boat sank?", limit=4, explain=True))
            taken.append([rest[0][signal] / best["keyword"] for signal in ("neighbour", "session")])
    assert (np.array(taken[0]) > 2 * np.array(taken[1])).all()
    assert min(taken[1]) > 0


def test_what_stands_around_a_turn_lifts_it_only_where_turns_speak_of_the_same() -> None:
    starts, ends = ("lam", "vent", "corb", "dill"), ("ona", "ask", "urim", "epto", "ixa")
    things = [f"{start}{end}" for start in starts for end in ends]
    told = [text for thing in things for text in (f"The {thing} came", f"So where is this {thing} now", "Fine")]
    around = []
    for step in (1, 7):  # as told, and each turn far from those that it belongs to
        with open_memory(":memory:", embeddings=None) as memory:
            for part in (0, 30):
                turns = [told[place * step % 60] for place in range(part, part + 30)]
                memory.add(turns, user_id="u", session_id=str(part), infer=False)
            hits = found(memory, "Who brought the corbask?", limit=20, explain=True)
            around.append(max(hit["explanation"]["neighbour"] + hit["explanation"]["session"] for hit in hits))
    assert around[0] > 0 == around[1]


def test_what_shares_rare_words_with_the_best_note_does_not_pass_it() -> None:
    said = ["Ann plays the cello in Oslo", "Cello strings in Oslo: Ann buys Thomastik, Larsen and Jargar",
            "Thomastik, Larsen and Jargar", "It rains"]  # fmt: skip
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add(said, user_id="u", infer=False)
        first, second, third = found(memory, "Does Ann play the cello in Oslo?", limit=3, explain=True)
    assert [first["memory"], second["memory"], third["memory"]] == said[:3]
    assert third["explanation"]["bridge"] > 0 == first["explanation"]["bridge"]


def test_in_a_small_scope_a_word_that_half_of_it_has_does_not_outdo_those_of_the_question() -> None:
    said = ["Maria's dog is called Rex", "Tom's dog is called Bello", "Maria plays the cello", "Tom plays chess",
            "The weather is fine"]  # fmt: skip
    with open_memory(":memory:", embeddings=None) as memory:
        memory.add(said, user_id="u", infer=False)
        assert texts(memory.search("What is Maria's dog called?", user_id="u", limit=1)) == said[:1]
