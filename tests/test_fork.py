"""Forks: a copy of a scope to try something in, which is merged or dropped."""

from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from journal_dump import open_memory, texts
from memory_kit import Mind, call, decided, found, message, open_with
from typer.testing import CliRunner

from langchain_memlayer import ExtractionError, InvalidInput, Memory, MemoryNotFound, ScopeRequired, doctor
from langchain_memlayer.cli import app
from langchain_memlayer.journal.base import random_id
from langchain_memlayer.moving import export_store, import_store
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock

TOLD = {
    "I live in Paris": [found("Anna lives in Paris", ("Anna", "lives_in", "Paris"))],
    "I play chess": [found("Anna plays chess", ("Anna", "plays", "chess"))],
    "I moved to Rome": [found("Anna lives in Rome", ("Anna", "lives_in", "Rome"))],
    "I moved to Oslo": [found("Anna lives in Oslo", ("Anna", "lives_in", "Oslo"))],
    "I stopped playing chess": [found("Anna does not play chess")],
    "I like tea": [found("Anna likes tea", ("Anna", "likes", "tea"))],
}


def change(action: str, about: str, text: str | None = None) -> Any:
    """A decision on the one memory that is shown with some words."""

    def decide(shown: str) -> Any:
        lines = shown.split("<memories>\n")[1].split("\n</memories>")[0].splitlines()
        number = next(n for n, line in enumerate(lines, 1) if about in line)
        return decided((1, action, number, text))

    return decide


@pytest.fixture
def memory() -> Iterator[Memory]:
    with open_with(Mind(TOLD), reconcile="rules") as opened:
        for text in ("I live in Paris", "I play chess"):
            opened.add(text, user_id="anna", session_id="s")
        yield opened


def facts(memory: Any, **ids: Any) -> list[str]:
    return texts(memory.get_all(**ids, kinds=["fact"], limit=1000))


def fact(memory: Any, text: str, **ids: Any) -> str:
    rows = memory.get_all(**ids, kinds=["fact"], limit=1000)["results"]
    return str(next(row["id"] for row in rows if row["memory"] == text))


def shown(memory: Any, **ids: Any) -> Any:
    """All that a scope shows, without ids and whose it is."""
    left_out = {"id", "user_id", "agent_id", "run_id", "sources", "updated_at", "evidence"}
    listed = memory.get_all(**ids, kinds=["fact", "turn"], limit=1000, show_expired=True)
    hits = memory.search("Where does Anna live? What does she play?", **ids, limit=50)["results"]
    return [
        [{name: value for name, value in row.items() if name not in left_out} for row in rows]
        for rows in (sorted(listed["results"], key=lambda row: (row["kind"], row["memory"])), hits)
    ] + [listed["relations"]]


async def test_a_fork_shows_what_its_original_shows_and_asks_nobody_for_it(way: str) -> None:
    mind, embeddings = Mind(TOLD, change("UPDATE", "Paris", "Anna lives in Rome")), DeterministicEmbeddings()
    with open_with(mind, embeddings=embeddings) as memory:
        for text in ("I live in Paris", "I play chess", "I moved to Rome"):
            memory.add(text, user_id="anna", session_id="s")
        memory.add("See you", user_id="anna", session_id="s", infer=False)
        before, asked, embedded = shown(memory, user_id="anna"), len(mind.asked), len(embeddings.texts)
        fork = await call(way, memory, "fork", "trial", user_id="anna")
        assert (len(mind.asked), len(embeddings.texts)) == (asked, embedded)
        assert shown(fork) == before
        assert [row["quote"] for row in fork.why(fact(fork, "Anna lives in Rome"))["sources"]] == ["I moved to Rome"]
        assert sorted(fork.graph().edges()) == sorted(memory.graph(user_id="anna").edges())
        [info] = await call(way, memory, "forks", user_id="anna")
        assert (info["name"], info["user_id"], info["run_id"]) == ("trial", "anna", None)
        assert shown(memory, **info["ids"]) == before
        # The same name gives the same fork.
        assert memory.fork("trial", user_id="anna").get_all() == fork.get_all()
        assert len(memory.forks()) == 1
        assert doctor.check(memory._journal) == []


def test_nobody_else_finds_anything_of_a_fork(memory: Memory) -> None:
    memory.add("I like tea", user_id="anna", agent_id="cook")
    everything = {"everything": True, "kinds": ["fact", "turn"], "show_expired": True}
    before = memory.get_all(**everything), memory.scopes(), shown(memory, agent_id="cook")
    fork = memory.fork("trial", user_id="anna")
    fork.add("I moved to Oslo", agent_id="cook", run_id="r")
    assert facts(fork, agent_id="cook") == ["Anna likes tea", "Anna lives in Oslo"]
    assert texts(fork.search("Oslo", filters={"agent_id": "cook"}, kinds=["fact"]))[0] == "Anna lives in Oslo"
    assert facts(fork.of(run_id="r")) == ["Anna lives in Oslo"]
    assert (memory.get_all(**everything), memory.scopes(), shown(memory, agent_id="cook")) == before
    assert memory.get_all(run_id="r")["results"] == []
    assert "Oslo" not in str(memory.diff("2000-01-01", everything=True))
    assert memory.of("bob").get(fact(fork, "Anna lives in Oslo")) is None
    with pytest.raises(MemoryNotFound):
        fork.delete(fact(memory, "Anna lives in Paris", user_id="anna"))
    with pytest.raises(InvalidInput, match="user_id"):
        fork.get_all(user_id="bob")


def test_what_changed_in_a_fork_is_carried_over_and_can_be_undone(memory: Memory) -> None:
    fork = memory.fork("trial", user_id="anna")
    before = shown(memory, user_id="anna")
    fork.update(fact(fork, "Anna lives in Paris"), "Anna lives in Rome", metadata={"sure": True})
    fork.delete(fact(fork, "Anna plays chess"))
    fork.add("I like tea", session_id="s")
    fork.add("I live in Paris", session_id="t")
    fork.add("I stopped playing chess", session_id="t", background=True, after_seconds=1000)
    wanted = shown(fork)
    assert shown(memory, user_id="anna") == before
    done = fork.merge()
    assert [(row["event"], row["memory"]) for row in done["results"] if row["memory"].startswith("Anna")] == [
        ("UPDATE", "Anna lives in Rome"), ("DELETE", "Anna plays chess"), ("ADD", "Anna likes tea"),
        ("ADD", "Anna lives in Paris"),
    ]  # fmt: skip
    assert done["conflicts"] == []
    assert [one["destination"] for one in done["relations"]["added_entities"]] == ["tea", "Paris"]
    assert sorted(map(str, shown(memory, user_id="anna")[0])) == sorted(map(str, wanted[0]))
    assert shown(memory, user_id="anna")[2] == wanted[2]
    # What was written by hand is read beside other calls; nobody knows when.
    [waits] = (one for one in memory.unread(user_id="anna") if one["turns"])
    assert [turn["memory"] for turn in waits["turns"]] == ["I stopped playing chess"]
    rome = memory.why(fact(memory, "Anna lives in Rome", user_id="anna"))
    assert [row["event"] for row in rome["decisions"]] == ["add", "update"]
    assert memory.forks() == []
    memory.undo(batch_id=done["batch_id"], user_id="anna")
    assert shown(memory, user_id="anna") == before
    assert doctor.check(memory._journal) == []


def test_what_was_undone_since_is_no_change_of_the_original(memory: Memory) -> None:
    fork = memory.fork("trial", user_id="anna")
    fork.update(fact(fork, "Anna lives in Paris"), "Anna lives in Rome")
    key = fact(memory, "Anna lives in Paris", user_id="anna")
    memory.undo(memory.delete_all(user_id="anna")["event_id"])
    memory.update(key, "Anna lives in Oslo")
    memory.undo(memory.history(key)[-1]["id"])
    assert fork.merge()["conflicts"] == []
    assert sorted(facts(memory, user_id="anna")) == ["Anna lives in Rome", "Anna plays chess"]
    hits = memory.search("Paris", user_id="anna")["results"]
    assert not any("Paris" in hit["memory"] for hit in hits if not hit["ended"])


@pytest.mark.parametrize("ids", [{"user_id": "anna"}, {"agent_id": "cook"}])
def test_a_merge_is_undone_in_all_scopes_that_it_wrote_to(memory: Memory, ids: dict[str, str]) -> None:
    for given in ({}, {"user_id": "anna"}, {"user_id": "bob"}):
        memory.add("I like tea", agent_id="cook", **given)
    owners = [{"user_id": "anna"}, {"user_id": "bob"}, {"agent_id": "cook"}]
    before = [shown(memory, **owner) for owner in owners]
    fork = memory.fork("trial", **ids)
    for given in ({}, {"agent_id": "cook"}) if "user_id" in ids else ({}, {"user_id": "anna"}, {"user_id": "bob"}):
        fork.add("I moved to Oslo", **given)
    for row in fork.get_all(kinds=["fact"])["results"]:
        fork.update(row["id"], f"{row['memory']} indeed")
    done = fork.merge()
    assert [shown(memory, **owner) for owner in owners] != before
    memory.undo(batch_id=done["batch_id"], **ids)
    assert [shown(memory, **owner) for owner in owners] == before


def test_what_the_model_decides_in_a_fork_is_carried_over(memory: Memory) -> None:
    mind = Mind(
        TOLD, change("UPDATE", "Paris", "Anna lives in Rome"), change("DELETE", "chess"), change("NONE", "Rome")
    )
    with open_with(mind) as memory:
        for text in ("I live in Paris", "I play chess"):
            memory.add(text, user_id="anna", session_id="s")
        fork = memory.fork("trial", user_id="anna")
        for text in ("I moved to Rome", "I stopped playing chess"):
            fork.add(text, session_id="s")
        wanted = shown(fork)
        done = fork.merge()
        assert done["conflicts"] == []
        assert [one["destination"] for one in done["relations"]["added_entities"]] == ["Rome"]
        assert [one["destination"] for one in done["relations"]["deleted_entities"]] == ["Paris", "chess"]
        assert shown(memory, user_id="anna") == wanted
        assert memory.unread(user_id="anna") == []


@pytest.mark.parametrize(
    ("here", "there", "texts_after", "conflict"),
    [
        ("Rome", "Oslo", ["Oslo", "Rome"], {"memory": "Oslo", "fork": "Rome"}),
        ("Rome", "Rome", ["Rome"], None),
        (None, "Oslo", ["Oslo"], {"memory": "Oslo", "fork": None}),
        ("Rome", None, ["Rome"], {"memory": None, "fork": "Rome"}),
        (None, None, [], None),
    ],
)
def test_where_both_sides_changed_a_memory_the_original_stands_and_nothing_is_lost(
    memory: Memory, here: str | None, there: str | None, texts_after: list[str], conflict: dict[str, Any] | None
) -> None:
    fork = memory.fork("trial", user_id="anna")
    original = fact(memory, "Anna lives in Paris", user_id="anna")
    for side, key, text in ((fork, fact(fork, "Anna lives in Paris"), here), (memory, original, there)):
        if text is None:
            side.delete(key)
        else:
            side.update(key, text)
    done = fork.merge()
    assert sorted(text for text in facts(memory, user_id="anna") if "chess" not in text) == sorted(texts_after)
    if conflict is None:
        assert done["conflicts"] == []
    else:
        [told] = done["conflicts"]
        assert {**conflict, "id": original, "added": told["added"]} == told
        assert (None if told["added"] is None else memory.get(told["added"])["memory"]) == conflict["fork"]


@pytest.mark.parametrize("city", ["Paris", "Rome"])
def test_what_both_sides_were_told_ends_with_what_either_was_told_in(city: str) -> None:
    with open_with(Mind(TOLD, *[decided((1, "UPDATE", 1, "Anna lives in Rome"))] * 2)) as memory:
        memory.add("I live in Paris", user_id="anna", session_id="s")
        fork = memory.fork("trial", user_id="anna")
        for session, side in (("t", fork), ("m", memory.of(user_id="anna"))):
            side.add("I live in Paris" if city == "Paris" else "I moved to Rome", session_id=session)
        assert fork.merge()["conflicts"] == []
        memory.delete(fact(memory, f"Anna lives in {city}", user_id="anna"))
        assert memory.search(city, user_id="anna")["results"] == []


def test_what_a_fork_was_told_again_and_the_original_has_changed_is_a_conflict() -> None:
    with open_with(Mind(TOLD, decided((1, "UPDATE", 1, "Anna lives in Rome")))) as memory:
        memory.add("I live in Paris", user_id="anna", session_id="s")
        fork = memory.fork("trial", user_id="anna")
        fork.add("I live in Paris", session_id="t")
        memory.add("I moved to Rome", user_id="anna", session_id="s")
        [conflict] = fork.merge()["conflicts"]
        assert (conflict["memory"], conflict["fork"]) == ("Anna lives in Rome", "Anna lives in Paris")


def test_what_is_still_to_be_read_of_the_original_stays_so_when_the_fork_changed_its_metadata() -> None:
    mind = Mind({**TOLD, "I like tea": RuntimeError("down")})
    with open_with(mind) as memory:
        with pytest.raises(ExtractionError):
            memory.add("I like tea", user_id="anna")
        fork = memory.fork("test", user_id="anna")
        [turn] = fork.get_all()["results"]
        fork.update(turn["id"], metadata={"level": 1})
        fork.merge()
        [original] = memory.get_all(user_id="anna")["results"]
        assert original["metadata"]["level"] == 1
        assert [[one["id"] for one in note["turns"]] for note in memory.unread(user_id="anna")] == [[original["id"]]]
        mind.told = dict(TOLD)
        assert texts(memory.read(user_id="anna", retry=True)) == ["Anna likes tea"]


def test_what_a_fork_has_read_of_the_original_is_read_there() -> None:
    mind = Mind({**TOLD, "I like tea": RuntimeError("down")})
    with open_with(mind) as memory:
        with pytest.raises(ExtractionError):
            memory.add("I like tea", user_id="anna")
        fork = memory.fork("test", user_id="anna")
        mind.told = dict(TOLD)
        fork.read(retry=True)
        # It may be read beside by now, or have failed there.
        with suppress(ExtractionError):
            memory.flush(30)
        assert texts(fork.get_all()) == texts(fork.merge()) == ["Anna likes tea"]
        assert memory.unread(user_id="anna") == memory.read(user_id="anna")["results"] == []


def test_an_edit_in_a_fork_that_is_still_to_be_read_is_read_of_the_original(memory: Memory) -> None:
    fork = memory.fork("test", user_id="anna")
    fork.update(fact_or_turn(fork, "I live in Paris", kinds=["turn"]), "I moved to Rome")
    fork.merge()
    # It may be read beside by now.
    memory.read(user_id="anna")
    assert memory.flush(30)
    # What only the old words told has ended.
    assert facts(memory, user_id="anna") == ["Anna plays chess", "Anna lives in Rome"]


def test_what_was_set_aside_in_a_fork_is_so_in_the_original() -> None:
    mind, clock = Mind({"I like tea": RuntimeError("down")}), FrozenClock()
    with open_with(mind, clock=clock) as memory:
        fork = memory.fork("test", user_id="anna")
        with pytest.raises(ExtractionError):
            fork.add("I like tea")
        while not fork.unread()[0]["set_aside"]:
            clock.advance(days=1)
            with suppress(ExtractionError):
                fork.read()
        names = ("attempts", "reason", "set_aside")
        told = [[note[name] for name in names] for note in fork.unread()]
        fork.merge()
        assert [[note[name] for name in names] for note in memory.unread(user_id="anna")] == told


def test_what_both_sides_were_told_in_one_message_is_there_once(memory: Memory) -> None:
    fork = memory.fork("trial", user_id="anna")
    for side in (fork, memory.of(user_id="anna")):
        side.add([message("I like tea", "m9")], session_id="t")
    assert [row["event"] for row in fork.merge()["results"]] == ["NONE"]
    said = memory.get_all(user_id="anna", kinds=["turn", "fact"])["results"]
    assert sorted(text for text in texts({"results": said}) if "tea" in text) == ["Anna likes tea", "I like tea"]
    [source] = memory.why(fact(memory, "Anna likes tea", user_id="anna"))["sources"]
    assert memory.get(source["memory_id"])["memory"] == "I like tea"


def test_a_fork_that_is_merged_or_dropped_takes_nothing_more(memory: Memory) -> None:
    fork, again = (memory.fork("trial", user_id="anna") for _ in range(2))
    fork.add("I like tea")
    assert fork.drop()["count"] > 2
    for late in (lambda: again.add("I moved to Oslo"), again.merge, again.drop):
        with pytest.raises(InvalidInput, match="fork"):
            late()
    assert facts(again) == []
    assert "Anna likes tea" not in facts(memory, user_id="anna")
    fresh = memory.fork("trial", user_id="anna")
    assert facts(fresh) == ["Anna lives in Paris", "Anna plays chess"]
    for wrong in (lambda: fresh.fork("deeper"), lambda: memory.fork(" ", user_id="anna")):
        with pytest.raises(InvalidInput):
            wrong()
    with pytest.raises(ScopeRequired):
        memory.fork("trial")
    memory.reset()
    assert memory.forks() == []


@pytest.mark.parametrize("what", ["memory", "user", "drop", "merge"])
def test_forget_leaves_no_byte_in_forks_either(tmp_path: Path, what: str) -> None:
    secret = "my locker is 4711zebra"
    with open_memory(tmp_path / "s") as memory:
        memory.add(secret, user_id="anna", infer=False)
        memory.add("The bike is in the cellar", user_id="anna", infer=False)
        fork = memory.fork("trial9zebra", user_id="anna")
        fork.update(fact_or_turn(fork, secret), f"{secret}, I think")
        fork.add("my bag is 815zebra", infer=False)
        if what == "memory":
            memory.forget(fact_or_turn(memory, secret, user_id="anna"))
            assert len(texts(fork.get_all())) == 2
            gone = b"4711zebra"
        elif what == "user":
            memory.forget(user_id="anna")
            assert memory.forks() == []
            gone = b"zebra"
        else:
            fork.update(fact_or_turn(fork, "my bag is 815zebra"), "my bag is red")
            (fork.drop if what == "drop" else fork.merge)()
            gone = b"trial9zebra" if what == "drop" else b"815zebra"
    for file in (tmp_path / "s").rglob("*"):
        assert file.is_dir() or gone not in file.read_bytes(), file


def test_a_message_that_goes_with_its_fact_goes_in_forks_too_in_which_it_says_something_else(memory: Memory) -> None:
    fork = memory.fork("trial", user_id="anna")
    said = next(row for row in fork.get_all(kinds=["turn"])["results"] if "Paris" in row["memory"])
    fork.update(said["id"], "I moved to Rome")
    memory.flush()
    memory.forget(fact(memory, "Anna lives in Paris", user_id="anna"))
    assert texts(fork.get_all(kinds=["turn", "fact"])) == ["I play chess", "Anna plays chess"]
    assert fork.merge()["results"] == []
    assert facts(memory, user_id="anna") == ["Anna plays chess"]
    assert doctor.check(memory._journal) == []


def test_what_goes_for_its_words_goes_in_forks_too(memory: Memory) -> None:
    memory.add("I like tea", user_id="anna", session_id="a", infer=False)
    fork = memory.fork("trial", user_id="anna")
    [later] = memory.add("I like tea", user_id="anna", session_id="b", infer=False)["results"]
    assert memory.forget(later["id"], same_words=True)["also"] == []
    assert "I like tea" not in texts(fork.get_all(kinds=["turn"]))


def _write_until_merged(folder: str, number: int, acknowledged: Any) -> None:
    with open_memory(folder, new_id=random_id) as memory:
        fork = memory.fork("trial", user_id="anna")
        for n in range(200):
            memory.add(f"original {number} {n}", user_id="anna", infer=False)
            acknowledged.append(f"original {number} {n}")
            try:
                fork.add(f"fork {number} {n}", infer=False)
                acknowledged.append(f"fork {number} {n}")
            except InvalidInput:
                break


def _merge(folder: str, done: Any) -> None:
    with open_memory(folder, new_id=random_id) as memory:
        fork = memory.fork("trial", user_id="anna")
        done.append("opened")
        while len(done) < 4:
            sleep(0.01)
        try:
            fork.merge()
            done.append("merged")
        except InvalidInput:
            done.append("refused")


def test_processes_that_write_and_merge_at_once_lose_nothing(tmp_path: Path) -> None:
    folder = str(tmp_path / "s")
    with open_memory(folder) as memory:
        memory.add("before", user_id="anna", infer=False)
        memory.fork("trial", user_id="anna")
    processes = get_context("fork")
    with processes.Manager() as shared:
        acknowledged, done = shared.list(), shared.list()
        writers = [processes.Process(target=_write_until_merged, args=(folder, n, acknowledged)) for n in range(2)]
        mergers = [processes.Process(target=_merge, args=(folder, done)) for _ in range(2)]
        for process in (*writers, *mergers):
            process.start()
        while len(done) < 2 or len(acknowledged) < 20:
            sleep(0.01)
        done.extend(["go", "go"])
        for process in (*writers, *mergers):
            process.join(60)
            assert process.exitcode == 0
        assert sorted(done)[2:] == ["merged", "opened", "opened", "refused"]
        said = list(acknowledged)
    with open_memory(folder) as memory:
        assert sorted(texts(memory.get_all(user_id="anna", limit=10_000))) == sorted(["before", *said])
        assert memory.forks() == []


def fact_or_turn(memory: Any, text: str, **ids: Any) -> str:
    rows = memory.get_all(**ids)["results"]
    return str(next(row["id"] for row in rows if row["memory"] == text))


def test_memories_of_an_agent_are_forked_whoever_they_are_of(memory: Memory) -> None:
    memory.add("I like tea", user_id="anna", agent_id="cook")
    memory.add("I play chess", agent_id="cook")
    fork = memory.fork("trial", agent_id="cook")
    assert facts(fork) == ["Anna likes tea", "Anna plays chess"]
    fork.update(fact(fork, "Anna likes tea"), "Anna likes mint")
    fork.add("I moved to Oslo")
    fork.merge()
    assert facts(memory, user_id="anna", agent_id="cook") == ["Anna likes mint"]
    assert facts(memory, agent_id="cook") == ["Anna plays chess", "Anna likes mint", "Anna lives in Oslo"]


@pytest.mark.sqlite
def test_a_fork_moves_with_its_store(tmp_path: Path) -> None:
    with open_memory(tmp_path / "s") as memory:
        memory.add("The bike is in the cellar", user_id="anna.b/c", infer=False)
        memory.fork("a. trial/%", user_id="anna.b/c").add("The key is under the mat", infer=False)
    export_store(tmp_path / "s", tmp_path / "export")
    import_store(tmp_path / "export", tmp_path / "t", embeddings=DeterministicEmbeddings())
    with open_memory(tmp_path / "t", new_id=random_id) as memory:
        [info] = memory.forks()
        assert (info["name"], info["user_id"]) == ("a. trial/%", "anna.b/c")
        memory.fork(info["name"], user_id="anna.b/c", new=False).merge()
        assert texts(memory.get_all(everything=True)) == ["The bike is in the cellar", "The key is under the mat"]


@pytest.mark.sqlite
def test_the_commands_make_use_merge_and_drop_forks(tmp_path: Path) -> None:
    def said(*args: str, code: int = 0, answer: str = "") -> str:
        common = ["--path", str(tmp_path / "s"), "--embeddings", "none", "--model", "none", "--user", "anna"]
        ran = CliRunner().invoke(app, [*common, *args], input=answer)
        assert ran.exit_code == code, ran.output
        return ran.output

    said("add", "The bike is in the cellar")
    assert "0 facts and 1 turn;" in said("fork", "create", "trial")
    said("--fork", "trial", "add", "The key is under the mat")
    assert "user anna ·" in said("list", "--fork", "trial")
    assert "key" in said("search", "key", "--fork", "trial")
    assert "key" not in said("list")
    assert "trial" in said("fork", "list")
    assert "There is no fork 'other'" in said("list", "--fork", "other", code=2)
    assert "There is no fork" in said("fork", "drop", "other", code=2)
    assert "There is no way back" in said("fork", "drop", "trial", code=1, answer="n\n")
    assert "--user anna takes it back" in " ".join(said("fork", "merge", "trial", "--yes").split())
    assert "key" in said("list")
    said("fork", "create", "trial")
    said("fork", "drop", "trial", "--yes")
    assert "There are no forks" in said("fork", "list")
