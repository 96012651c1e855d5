import importlib.util
import json
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from langchain_memlayer import Memory, __version__
from langchain_memlayer.cli import app, demonstration, ingesting
from langchain_memlayer.demo import Question, load
from langchain_memlayer.engine.index_sync import snapshot_name
from langchain_memlayer.errors import EmbeddingError, ExtractionError, InvalidInput
from langchain_memlayer.index import files
from langchain_memlayer.testing import ScriptedChatModel

Run = Callable[..., Result]


@pytest.fixture
def cli(folder: Path) -> Run:
    def run(*args: str, embeddings: str = "none", typed: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--path", str(folder), "--embeddings", embeddings, *args], input=typed)

    return run


def data(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def added(cli: Run, text: str, *args: str) -> str:
    return str(data(cli("add", text, "--user", "alice", "--json", *args))["results"][0]["id"])


def refused(result: Result, code: int = 2) -> str:
    """The one line that says why."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("memlayer: ")
    return line


# -- one command each -------------------------------------------------------------------------------------------------


def test_what_was_added_is_found_with_its_score_and_id(cli: Run):
    key = added(cli, "I moved to Berlin in May.")
    added(cli, "The cat is called Pedal.")
    shown = cli("search", "Berlin", "--user", "alice")
    assert shown.exit_code == 0
    titles, first, about = shown.stdout.splitlines()[:3]
    place, score, relevance, text = first.split(maxsplit=3)
    assert titles.split() == ["score", "relevance", "memory"]
    assert (place, text.strip()) == ("1", "I moved to Berlin in May.")
    assert 0 < float(score) <= 1
    assert 0 < float(relevance) <= 1
    assert about.split(" · ")[1:] == ["user", "turn", key]
    explained = cli("search", "Berlin", "--user", "alice", "--explain").stdout
    assert "keyword +" in explained
    assert "0.000" not in explained.splitlines()[3]  # what says nothing is left out


def test_json_output_is_what_memory_returns(cli: Run, folder: Path):
    berlin = added(cli, "Berlin in May.", "--metadata", '{"place": "canal"}', "--time", "2024-05-01T09:00:00Z")
    added(cli, "Paris in June.", "--role", "assistant", "--name", "Fig", "--session", "s1")
    with Memory(folder, embeddings=None) as memory:
        memory.add("Rome in July.", user_id="bob", metadata={"huge": 10**24})
        assert data(cli("list", "--json")) == memory.get_all(everything=True)
        assert data(cli("get", berlin, "--json")) == memory.get(berlin)
        found = memory.search("berlin", user_id="alice", limit=1)
        assert data(cli("search", "berlin", "--user", "alice", "--limit", "1", "--json")) == found
        key = found["results"][0]["id"]
        assert data(cli("history", key, "--json")) == memory.history(key)
    assert "Berlin in May." in cli("get", berlin).stdout
    row = found["results"][0]
    assert (row["metadata"]["place"], row["created_at"]) == ("canal", "2024-05-01T09:00:00+00:00")


def test_list_shows_pages_filters_and_kinds(cli: Run):
    for number in range(5):
        added(cli, f"Memory number {number}.", "--session", f"s{number % 2}")
    page = data(cli("list", "--limit", "2", "--offset", "2", "--json"))["results"]
    assert [row["memory"] for row in page] == ["Memory number 2.", "Memory number 3."]
    odd = data(cli("list", "--filter", '{"session_id": "s1"}', "--json"))["results"]
    assert [row["memory"] for row in odd] == ["Memory number 1.", "Memory number 3."]
    assert data(cli("list", "--kind", "fact", "--json"))["results"] == []
    assert "--offset 4" in cli("list", "--limit", "2", "--offset", "2").stdout
    assert "--offset" not in cli("list").stdout
    assert cli("list", "--user", "bob").stdout == "No memories.\n"


def test_common_options_may_stand_before_or_behind_the_command(cli: Run):
    added(cli, "Berlin.")
    before = cli("--user", "alice", "--json", "search", "berlin")
    behind = cli("search", "berlin", "--json", "--user=alice")
    assert data(before) == data(behind)
    assert len(data(before)["results"]) == 1


def test_after_two_dashes_everything_is_text_and_one_is_what_is_piped_in(cli: Run):
    assert cli("add", "--user", "alice", "--", "--json").exit_code == 0
    assert cli("add", "-", "--user", "alice", typed="第一行\nthe second line\n").exit_code == 0
    assert [row["memory"] for row in data(cli("list", "--json"))["results"]] == ["--json", "第一行\nthe second line"]


def test_saying_it_again_adds_nothing_unless_verbatim(cli: Run):
    key = added(cli, "Berlin.")
    assert "there already" in cli("add", "Berlin.", "--user", "alice").stdout
    assert added(cli, "Berlin.") == key
    assert added(cli, "Berlin.", "--verbatim") != key


@pytest.mark.parametrize("command", ["get", "delete", "forget", "history", "why"])
def test_an_id_of_somebody_else_is_not_found(cli: Run, command: str) -> None:
    kept, ended = added(cli, "The safe is behind the piano"), added(cli, "The key is in the clock")
    cli("delete", ended, "--user", "alice")
    said = f"{'never a' if command == 'get' else 'no'} memory with the id"
    for key in (kept, ended):
        assert said in refused(cli(command, key, "--user", "bob"), 1)
        assert said in refused(cli(command, key, "--user", "alice", "--agent", "x"), 1)
    assert [one["id"] for one in data(cli("list", "--json"))["results"]] == [kept]
    assert len(data(cli("history", ended, "--json", "--user", "alice"))) == 2
    assert cli(command, kept, "--user", "alice").exit_code == 0


def test_deleted_memories_keep_their_history_and_forgotten_ones_leave_no_text(cli: Run, folder: Path):
    key = added(cli, "The safe opens with xylophone.")
    assert "deleted" in cli("delete", key).stdout
    assert data(cli("list", "--json"))["results"] == []
    assert "xylophone" in cli("history", key).stdout
    assert cli("forget", key).exit_code == 0
    assert "(forgotten)" in cli("history", key).stdout
    assert not any(b"xylophone" in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_undo_takes_back_an_event_of_the_history_or_a_batch(cli: Run, folder: Path):
    key = added(cli, "The blue door", "--verbatim")
    cli("delete", key)
    event = cli("history", key).stdout.splitlines()[-1].split()[0]
    assert "The blue door" in cli("undo", event).stdout
    assert "The blue door" in cli("list").stdout
    assert [row["event"] for row in data(cli("history", key, "--json"))] == ["ADD", "DELETE", "UNDO"]
    with Memory(folder, model=None, embeddings=None) as memory:
        memory.add("The red door", user_id="alice", batch_id="b")
    assert data(cli("undo", "--batch", "b", "--user", "alice", "--json"))["results"][0]["event"] == "DELETE"
    assert "was undone already" in refused(cli("undo", event))


def test_diff_shows_what_came_changed_and_went(cli: Run):
    added(cli, "The blue door", "--verbatim")
    found = data(cli("diff", "2020-01-01", "--user", "alice", "--json"))
    assert [one["memory"] for one in found["added"]] == ["The blue door"]
    assert "+  The blue door" in cli("diff", "2020-01-01").stdout
    assert cli("diff", "2020-01-01", "--user", "bob").stdout == "Nothing changed.\n"


@pytest.mark.parametrize("command", ["delete", "forget"])
def test_all_of_a_scope_goes_only_after_a_yes(cli: Run, command: str):
    added(cli, "One.")
    added(cli, "Two.")
    assert cli("add", "Three.", "--user", "bob").exit_code == 0
    assert cli(command, "--all", "--user", "alice", typed="n\n").exit_code == 1
    assert len(data(cli("list", "--json"))["results"]) == 3
    assert data(cli(command, "--all", "--user", "alice", "--yes", "--json"))["count"] == 2
    assert [row["memory"] for row in data(cli("list", "--json"))["results"]] == ["Three."]


def test_stats_count_what_is_there(cli: Run, folder: Path):
    added(cli, "One.")
    cli("delete", added(cli, "Two."))
    found = data(cli("stats", "--json"))
    assert {"turns": 1, "ended": 1, "events": 3, "vectors": 0, "last_seq": 3}.items() <= found.items()
    assert (found["path"], found["embedder"]) == (str(folder), None)
    assert found["bytes"] >= (folder / "journal.sqlite").stat().st_size
    assert "none yet" in cli("stats").stdout


def test_the_doctor_finds_nothing_wrong_and_mends_what_is_derived(cli: Run, folder: Path):
    added(cli, "Berlin.")
    assert data(cli("doctor", "--json")) == {"path": str(folder), "rebuilt": False, "problems": []}
    files.write(folder / "derived", snapshot_name("memories", ""), b"", {"store": "another"})
    found = cli("doctor")
    assert found.exit_code == 1
    assert "snapshot" in found.stdout
    assert "doctor --rebuild" in found.stdout
    [problem] = json.loads(cli("doctor", "--json").stdout)["problems"]
    assert problem["rebuildable"]
    assert cli("doctor", "--rebuild").exit_code == 0
    assert "nothing is wrong" in cli("doctor").stdout


def test_the_default_folder_is_that_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    assert CliRunner().invoke(app, ["add", "Berlin.", "--user", "a", "--embeddings", "none"]).exit_code == 0
    assert (tmp_path / "home" / "default" / "journal.sqlite").is_file()
    assert data(CliRunner().invoke(app, ["stats", "--json"]))["turns"] == 1


def test_a_remembered_escape_sequence_does_not_reach_the_terminal_and_brackets_are_no_markup(cli: Run):
    added(cli, "red \x1b[31m alert [bold]not bold[/bold]")
    for command in (("list",), ("search", "alert", "--user", "alice")):
        shown = cli(*command).stdout
        assert "\x1b" not in shown
        assert "[bold]not bold[/bold]" in shown


# -- errors -----------------------------------------------------------------------------------------------------------


def test_errors_of_the_package_are_one_line_and_their_kind_is_the_exit_code(cli: Run, folder: Path):
    added(cli, "Berlin.")
    assert "--user" in refused(cli("search", "berlin"))
    assert "limit" in refused(cli("list", "--limit", "0"))
    assert "$nope" in refused(cli("list", "--filter", '{"a": {"$nope": 1}}'))
    assert "names no model" in refused(cli("--embeddings", "foo", "add", "x", "--user", "a"))
    for command in ("history", "delete", "forget"):
        assert "no-such-id" in refused(cli(command, "no-such-id"), 1)
    (folder / "journal.sqlite").write_bytes(b"this is no database" * 100)
    assert "no store" in refused(cli("list"), 1)


@pytest.mark.parametrize(
    "command", ["list", "search x --user a", "history x", "delete x", "forget x", "stats", "doctor"]
)
def test_a_mistyped_path_is_an_error_and_no_new_store(cli: Run, folder: Path, command: str):
    assert str(folder) in refused(cli(*command.split()), 1)
    assert not folder.exists()


def test_a_wrong_call_is_a_usage_error_that_changes_nothing(cli: Run):
    added(cli, "Berlin.")
    for call in (
        "delete", "delete some-id --all --user a", "forget --all", "add x --user a --metadata [1]",
        "export --user a", "serve --agent a", "stats --run a",
        "add x --user a --metadata {", "add x --user", "ingest no-such-file.json --user a", "nonsense",
    ):  # fmt: skip
        result = cli(*call.split())
        assert (result.exit_code, result.stdout, "Traceback" in result.stderr) == (2, "", False), call
    assert data(cli("stats", "--json"))["events"] == 1


def test_commands_that_embed_nothing_work_without_the_folders_embedder(cli: Run, folder: Path):
    with Memory(folder, embeddings=lambda texts: [[1.0, 0.0] for _ in texts]) as memory:
        key = memory.add("Berlin.", user_id="alice")["results"][0]["id"]
    assert "cannot be made from its name" in refused(cli("search", "x", "--user", "alice", embeddings="auto"))
    assert [row["id"] for row in data(cli("list", "--json", embeddings="auto"))["results"]] == [key]
    assert data(cli("stats", "--json", embeddings="auto"))["embedder"]["dims"] == 2
    assert cli("forget", key, embeddings="auto").exit_code == 0


def test_without_the_local_extra_the_demo_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    there = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "wordllama" else there(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    result = CliRunner().invoke(app, ["demo", "--json"])
    assert 'pip install "langchain-memlayer[local]"' in refused(result)


def test_an_interruption_ends_with_130_and_one_line(cli: Run, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Memory, "add", interrupted)
    assert "Interrupted" in refused(cli("add", "x", "--user", "a"), 130)


def test_help_version_and_no_command_at_all():
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in ("demo", "ingest", "doctor", "--path", "--embeddings"))
    search = CliRunner().invoke(app, ["search", "--help"]).stdout
    assert "--threshold" in search
    assert "Required: one at least of --user" in search
    assert "Required" not in CliRunner().invoke(app, ["stats", "--help"]).stdout
    assert CliRunner().invoke(app, ["--version"]).stdout == f"{__version__}\n"
    assert "Usage" in CliRunner().invoke(app, []).output


def test_help_imports_neither_the_engine_nor_langchain():
    heavy = ("langchain_core", "langgraph", "numpy", "faiss", "sqlite3", "langchain_memlayer.memory")
    code = (
        "import sys\nfrom langchain_memlayer.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    assert done.stderr == "[]\n"


# -- ingest -----------------------------------------------------------------------------------------------------------

MESSAGES: list[dict[str, Any]] = [
    {"id": f"{session}-{n}", "role": "user", "content": f"Thing {n} of {session}.", "session_id": session,
     "timestamp": f"2025-01-0{n + 1}T10:00:00Z"}
    for n in range(3)
    for session in ("a", "b")
]  # fmt: skip


def write(path: Path, messages: list[Any], form: str) -> Path:
    lines = [json.dumps(message, ensure_ascii=False) for message in messages]
    text = {
        "jsonl": "\n\n".join(lines),
        "array": f"[{', '.join(lines)}]",
        "object": f'{{"messages": [{",".join(lines)}]}}',
    }
    path.write_text(text[form], encoding="utf-8-sig" if form == "jsonl" else "utf-8")
    return path


@pytest.mark.parametrize("form", ["jsonl", "array", "object"])
def test_ingest_takes_json_and_jsonl_session_by_session(cli: Run, tmp_path: Path, form: str):
    file = write(tmp_path / "chat.json", [{"role": "system", "content": "Be kind."}, *MESSAGES], form)
    done = data(cli("ingest", str(file), "--user", "alice", "--json"))
    assert done == {"messages": 7, "sessions": 3, "events": {"ADD": 6}}
    stored = data(cli("list", "--json"))["results"]
    assert {(row["sources"][0], row["created_at"]) for row in stored} == {
        (message["id"], message["timestamp"].replace("Z", "+00:00")) for message in MESSAGES
    }
    assert len(data(cli("list", "--json", "--filter", '{"session_id": "a"}'))["results"]) == 3


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_repeated_ingest_changes_nothing_and_a_longer_file_adds_only_what_is_new(
    cli: Run, tmp_path: Path, with_ids: bool
):
    messages = [*MESSAGES, {**MESSAGES[0], "id": "again"}]
    if not with_ids:
        messages = [{name: value for name, value in message.items() if name != "id"} for message in messages]
    file = write(tmp_path / "chat.jsonl", messages, "jsonl")
    first = data(cli("ingest", str(file), "--user", "alice", "--json"))
    assert first["events"] == {"ADD": 6, "NONE": 1}
    stored, counts = data(cli("list", "--json")), data(cli("stats", "--json"))
    assert "nothing new" in cli("ingest", str(file), "--user", "alice").stdout
    assert data(cli("list", "--json")) == stored
    assert data(cli("stats", "--json"))["events"] == counts["events"]
    write(file, [*messages, {"role": "user", "content": "New.", "session_id": "b"}], "jsonl")
    assert data(cli("ingest", str(file), "--user", "alice", "--json"))["events"] == {"ADD": 1}


def test_what_was_deleted_does_not_come_back_with_the_same_file(cli: Run, tmp_path: Path):
    messages = [{"id": f"m{n}", "role": "user", "content": "Yes.", "session_id": "a"} for n in range(3)]
    file = write(tmp_path / "chat.json", messages, "array")
    assert data(cli("ingest", str(file), "--user", "alice", "--json"))["events"] == {"ADD": 1, "NONE": 2}
    [memory] = data(cli("list", "--json"))["results"]
    assert memory["sources"] == ["m0", "m1", "m2"]
    assert cli("delete", memory["id"]).exit_code == 0
    assert data(cli("ingest", str(file), "--user", "alice", "--json"))["events"] == {}
    assert data(cli("list", "--json"))["results"] == []


@pytest.mark.parametrize(
    ("failure", "code"), [(KeyboardInterrupt(), 130), (EmbeddingError("The embedder is down."), 1)], ids=["^C", "error"]
)
def test_an_ingest_that_stops_half_way_says_how_far_it_came_and_goes_on_there(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, code: int
):
    monkeypatch.setattr(ingesting, "BATCH", 2)
    file = write(tmp_path / "chat.jsonl", MESSAGES, "jsonl")
    add, calls = Memory.add, []

    def failing(self: Memory, messages: Any, **scope: Any) -> Any:
        calls.append(messages)
        if len(calls) == 3:
            raise failure
        return add(self, messages, **scope)

    with monkeypatch.context() as patched:
        patched.setattr(Memory, "add", failing)
        assert "3 of 6 messages" in refused(cli("ingest", str(file), "--user", "alice"), code)
    assert len(data(cli("list", "--json"))["results"]) == 3
    assert data(cli("ingest", str(file), "--user", "alice", "--json"))["events"] == {"ADD": 3}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"role": "user", "content": "Good."}\n{"role": "user", "content":', "line 2"),
        ('["just a string"]', "message 1"),
        ('[{"role": "user", "content": "Good."}, {"role": "user"}]', "messages[1]"),
        (
            '[{"role": "user", "content": "Good."}, {"role": "user", "content": "x", "timestamp": "soon"}]',
            "messages[1]",
        ),
        ("[]", "empty"),
        ("", "empty"),
    ],
)
def test_a_bad_file_is_refused_whole_with_the_place(cli: Run, folder: Path, tmp_path: Path, text: str, place: str):
    file = tmp_path / "bad.jsonl"
    file.write_text(text, encoding="utf-8")
    line = refused(cli("ingest", str(file), "--user", "alice"))
    assert "bad.jsonl" in line
    assert place in line
    assert not folder.exists()


def test_messages_without_ids_get_ids_that_depend_on_what_they_say_only(tmp_path: Path):
    told = [
        {"role": "user", "content": "Yes."},
        {"content": "Yes.", "role": "user"},
        {"role": "user", "content": "No."},
    ]
    [batch] = ingesting.read_batches(write(tmp_path / "a.json", told, "array"))
    ids = [message["id"] for message in batch]
    assert len(set(ids)) == 3
    [batch] = ingesting.read_batches(write(tmp_path / "b.json", told[::-1], "array"))
    later = [message["id"] for message in batch]
    assert set(later) == set(ids)
    with pytest.raises(InvalidInput, match="message 1"):
        ingesting.read_batches(write(tmp_path / "c.json", [["user", "hi"]], "array"))


# -- demo -------------------------------------------------------------------------------------------------------------


def test_the_demo_recalls_every_expected_memory_loses_nothing_and_reads_well(folder: Path):
    arguments = ["demo", "--path", str(folder), "--json"]
    report = data(CliRunner().invoke(app, arguments))
    turns, questions = load()
    assert report["good"]
    assert report["messages"] == len(turns)
    assert report["recalled"] == len(questions) == len(report["questions"])
    for asked in report["questions"]:
        hit = asked["hits"][asked["place"] - 1]
        assert asked["place"] <= demonstration.WITHIN
        assert set(hit["sources"]) & set(asked["expected"])
    assert report["reopened"]["missing"] == report["reopened"]["changed"] == []
    assert report["reopened"]["same_answers"] == len(questions)
    story = report["story"]
    assert [one["event"] for added in story["added"] for one in added["results"]] == [
        "ADD", "ADD", "ADD", "UPDATE", "ADD", "UPDATE"
    ]  # fmt: skip
    assert story["lived"] == {
        "now": "Xiaoman lives in Glasgow",
        "2025-08-01": "Xiaoman lives in Edinburgh",
        "2025-04-01": "Xiaoman lives in Bristol",
    }
    assert [row["new_value"] for row in story["history"]] == list(reversed(story["lived"].values()))
    assert {"source": "Xiaoman", "relationship": "lives_in", "destination": "Glasgow"} in story["relations"]
    # Again, over the same folder: nothing is doubled, and it reads well in a pipe.
    shown = CliRunner().invoke(app, arguments[:-1])
    assert shown.exit_code == 0
    assert "{0} of {0} memories are there".format(report["memories"]) in " ".join(shown.stdout.split())
    assert "\x1b" not in shown.stdout
    for question in load()[1]:
        assert question.text in shown.stdout
    assert "nothing was lost" in shown.stdout
    assert "│   └── works at river authority" in shown.stdout
    assert "Xiaoman owns a boat  (its quote is not in turn 1)" in shown.stdout
    assert shown.stdout.count("came back at") == len(load()[1])
    assert {cell_len(line) for line in shown.stdout.splitlines()} <= set(range(demonstration.show.PIPE_WIDTH + 1))


def test_the_memory_that_answers_is_shown_in_full_also_without_any_space_to_break_at(monkeypatch: pytest.MonkeyPatch):
    turns, questions = load()
    [thunder] = [question for question in questions if question.text.startswith("打雷")]
    [answer] = [turn["content"] for turn in turns if turn["id"] in thunder.expected]
    few = [turn for turn in turns if turn["content"] == answer or turn in turns[:20]]
    monkeypatch.setattr(demonstration, "load", lambda: (few, [thunder, thunder]))
    shown = CliRunner().invoke(app, ["demo"]).stdout
    assert cell_len(answer) > demonstration.show.PIPE_WIDTH - 35
    assert answer in "".join(shown.split())


def test_the_demo_fails_when_an_expected_memory_does_not_come_back(monkeypatch: pytest.MonkeyPatch):
    turns, _ = load()
    impossible = Question("Where does Xiaoman live now?", ("no-such-turn",), "nobody said it")
    monkeypatch.setattr(demonstration, "load", lambda: (turns[:40], [impossible]))
    shown = CliRunner().invoke(app, ["demo"])
    assert shown.exit_code == 1
    assert "did not come back" in shown.stdout
    assert "0 of 1 questions" in shown.stdout
    assert "nothing was lost" in shown.stdout


def test_the_demo_fails_when_a_memory_is_lost_between_closing_and_reopening(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    turns, questions = load()
    close, closed = Memory.close, []

    def losing(self: Memory) -> None:
        if not closed:
            closed.append(self.delete(self.get_all(everything=True, limit=1, offset=7)["results"][0]["id"]))
        close(self)

    monkeypatch.setattr(Memory, "close", losing)
    monkeypatch.setattr(demonstration, "load", lambda: (turns[:40], questions[2:3]))
    shown = CliRunner().invoke(app, ["demo", "--path", str(folder)])
    assert shown.exit_code == 1
    assert "39 of 40 memories" in shown.stdout
    assert turns[7]["id"] in shown.stdout
    assert "something was lost" in shown.stdout


# -- as a program -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_share_a_folder_and_an_interrupted_one_exits_with_130(folder: Path, tmp_path: Path):
    memlayer = [sys.executable, "-c", "from langchain_memlayer.cli import app; app()", "--path", str(folder)]
    file = write(tmp_path / "chat.jsonl", [{"role": "user", "content": f"Thing {n}."} for n in range(100_000)], "jsonl")
    with Memory(folder, embeddings=None) as memory:
        memory.add("Said here.", user_id="alice")
        with subprocess.Popen(
            [*memlayer, "--embeddings", "none", "ingest", str(file), "--user", "alice"],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while len(memory.get_all(everything=True, limit=2)["results"]) < 2 and process.poll() is None:
                pass
            while True:
                process.send_signal(signal.SIGINT)
                # Python itself drops an interrupt that falls into a finalizer; whoever waits presses the keys again.
                with suppress(subprocess.TimeoutExpired):
                    _, errors = process.communicate(timeout=5)
                    break
        assert process.returncode == 130
        assert errors.startswith("memlayer: Interrupted")
        assert errors.count("\n") == 1
        assert memory.search("Thing 7", user_id="alice", limit=1)["results"][0]["memory"] == "Thing 7."
    listed = subprocess.run(
        [*memlayer, "search", "said here", "--user", "alice"], capture_output=True, text=True, check=True
    )
    assert "Said here." in listed.stdout
    gone = subprocess.run([*memlayer, "delete", "nothing"], capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)
    assert gone.stderr.startswith("memlayer: There is no memory with the id 'nothing'")


def test_json_is_utf_8_in_any_terminal_and_a_place_that_takes_nothing_is_told_in_one_line(folder: Path):
    with Memory(folder, model=None, embeddings=None) as memory:
        memory.add("我喜欢茶。", user_id="alice")

    def listed(out: Any, *args: str, first: str = "pass") -> "subprocess.CompletedProcess[bytes]":
        code = f"import sys; {first}; from langchain_memlayer.cli import app; app()"
        memlayer = [sys.executable, "-c", code, "--path", str(folder), "list", "--user", "alice", *args]
        env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
        return subprocess.run(memlayer, stdout=out, stderr=subprocess.PIPE, check=False, env=env)

    assert json.loads(listed(subprocess.PIPE, "--json").stdout)["results"][0]["memory"] == "我喜欢茶。"
    assert listed(None, first="sys.stdout = None").returncode == 0
    with Path("/dev/full").open("wb") as nowhere:
        for form in ((), ("--json",)):
            full = listed(nowhere, *form)
            assert (full.returncode, full.stderr.splitlines()[0][:21]) == (1, b"memlayer: [Errno 28] ")
            assert b"Traceback" not in full.stderr


def test_a_terminal_is_asked_before_a_memory_is_forgotten_for_good(folder: Path):
    with Memory(folder, model=None, embeddings=None) as memory:
        key = memory.add("I like tea.", user_id="alice")["results"][0]["id"]
    for answer, left in ((b"n\n", 1), (b"y\n", 0)):
        child, terminal = pty.fork()
        if not child:
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
            try:
                app(["--path", str(folder), "forget", key])
            finally:
                os._exit(0)
        os.write(terminal, answer)
        os.waitpid(child, 0)
        os.close(terminal)
        with Memory(folder, model=None, embeddings=None) as memory:
            assert len(memory.get_all(user_id="alice")["results"]) == left


def test_what_was_not_read_is_listed_with_the_reason(cli: Run, folder: Path):
    broken = ScriptedChatModel(replies=["no facts, only prose", "and again"])
    with Memory(folder, model=broken, embeddings=None) as memory, pytest.raises(ExtractionError):
        memory.add("I moved to Lisbon.", user_id="alice")
    shown = cli("unread", "--user", "alice").stdout
    assert "I moved to Lisbon." in shown
    assert "ExtractionError" in shown
    assert data(cli("unread", "--user", "alice", "--json"))[0]["attempts"] == 1
    assert "Everything was read." in cli("unread", "--user", "bob").stdout
    assert cli("unread", "--user", "alice", "--retry", "--model", "none").exit_code == 2


def test_a_memory_is_updated_by_its_id_and_only_by_its_owner(cli: Run):
    key = added(cli, "I like tea.")
    assert "I like mate." in cli("update", key, "I like mate.", "--metadata", '{"kind_of": "drink"}').stdout
    assert data(cli("update", key, "-", "--json", typed="I like water.\n"))["memory"] == "I like water."
    assert cli("update", key, "--expires", "2001-01-01", "--user", "alice").exit_code == 0
    assert data(cli("list", "--json"))["results"] == []
    assert data(cli("update", key, "--expires", "never", "--json"))["metadata"]["kind_of"] == "drink"
    assert [row["event"] for row in data(cli("history", key, "--json"))] == ["ADD", *["UPDATE"] * 4]
    assert "expiration_date" in refused(cli("update", key))
    assert "no memory with the id" in refused(cli("update", key, "x", "--user", "bob"), 1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("list", "--limit", "0"), "--limit must be an integer of at least 1, got 0."),
        (("search", "x", "--user", "a", "--as-of=soon"), "--as-of must be a datetime or an ISO 8601 text, got 'soon'."),
        (("search", "x"), "Say whose memory is meant: --user, --agent or --run."),
        (("delete", "x"), "There is no memory with the id 'x'; `memlayer list` and `memlayer search` return the ids "
         "there are."),
        (("undo",), "`memlayer undo` takes either an event's number or --batch."),
        (("search", "", "--user", "a"), "The text must be a non-empty string; `memlayer list` lists memories without "
         "one."),
        (("add", "", "--user", "a"), "The text is blank; leave out messages that say nothing."),
        (("replay", "b", "--user", "a"), "`memlayer replay` needs a chat model: give it --model."),
    ],
)  # fmt: skip
def test_an_error_names_options_and_commands_and_nothing_of_python(cli: Run, args: tuple[str, ...], said: str):
    assert cli("add", "I like tea.", "--user", "a").exit_code == 0
    assert refused(cli(*args), 1 if args[0] == "delete" else 2) == f"memlayer: {said}"


@pytest.fixture
def told(folder: Path) -> str:
    """The id of a fact that a model found, with its relations."""
    facts = [{"turn": 1, "quote": "I work at Acme in Lyon", "fact": "User works at Acme in Lyon",
              "triples": [["Ann", "works at", "Acme"], ["Acme", "is in", "Lyon"]]}]  # fmt: skip
    with Memory(folder, model=ScriptedChatModel(replies=[{"facts": facts}]), embeddings=None) as memory:
        said = {"role": "user", "name": "Ann", "content": "Hello! I work at Acme in Lyon, you know."}
        return str(memory.add(said, user_id="alice")["results"][0]["id"])


def test_why_shows_the_words_who_said_them_and_what_was_decided(cli: Run, told: str):
    shown = cli("why", told).stdout
    assert [word for word in ("User works at Acme", "Ann", "in: Hello!", "add") if word not in shown] == []
    assert data(cli("why", told, "--json"))["sources"][0]["quote"] == "I work at Acme in Lyon"


@pytest.mark.usefixtures("told")
def test_the_graph_is_shown_or_written_to_a_file(cli: Run, tmp_path: Path):
    shown = cli("graph", "--user", "alice").stdout
    assert "works at Acme" in shown
    assert {"source": "Acme", "relationship": "is_in", "destination": "Lyon"} in data(
        cli("graph", "--user", "alice", "--json")
    )
    assert "No relations." in cli("graph", "--user", "bob").stdout
    for name, beginning in (("g.svg", "<svg"), ("g.graphml", "<?xml")):
        assert "2 relations" in cli("graph", "--user", "alice", str(tmp_path / name)).stdout
        assert (tmp_path / name).read_text().startswith(beginning)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert cli("graph", "--user", "alice", str(tmp_path / "g.png")).exit_code == 2
    for name in ("g.svg", "g.graphml"):
        done = cli("graph", "--user", "alice", str(tmp_path / "nowhere" / name))
        assert (done.exit_code, "folder of yours" in done.stderr) == (2, True)


def test_scopes_say_whose_memories_there_are(cli: Run):
    added(cli, "I like tea.")
    cli("add", "I like coffee.", "--user", "bob", "--agent", "cook")
    shown = cli("scopes").stdout
    assert "user alice" in shown
    assert "user bob, agent cook" in shown
    assert [one["user_id"] for one in data(cli("scopes", "--json", "--user", "bob"))] == ["bob"]
    assert "--offset 1" in cli("scopes", "--limit", "1").stdout


def test_a_model_that_was_not_named_is_asked_only_after_a_yes(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = write(tmp_path / "chat.json", MESSAGES, "array")
    monkeypatch.setattr("langchain_memlayer.memory.resolve_model", lambda spec: spec and ScriptedChatModel())
    asked = cli("ingest", str(file), "--user", "alice")
    assert (asked.exit_code, "--yes" in asked.stderr.splitlines()[-1]) == (2, True)
    assert data(cli("list", "--json"))["results"] == []
    assert "asked 2 times for facts" in cli("ingest", str(file), "--user", "alice", "--yes").stderr
    assert cli("ingest", str(file), "--user", "alice", "--model", "openai:x").exit_code == 1  # nothing is scripted
    assert data(cli("ingest", str(file), "--user", "alice", "--model", "none", "--json"))["messages"] == 6


def test_a_shell_completes_commands_and_options(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("_MEMLAYER_COMPLETE", "complete_bash")
    for line, expected in (
        ("memlayer for", "forget"),
        ("memlayer search --thr", "--threshold"),
        ("memlayer --us", "--user"),
    ):
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert expected in CliRunner().invoke(app, [], prog_name="memlayer").stdout
