import errno
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import SNAPSHOT_STEPS

from langchain_memlayer.errors import SnapshotError
from langchain_memlayer.index import files

META = {"store": "s1", "dims": 3}


def names(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[1] for path in folder.iterdir())


def test_the_last_two_generations_stay_and_the_newest_is_read(tmp_path: Path) -> None:
    for number in range(4):
        files.write(tmp_path, "a", b"%d" % number, META)
    assert names(tmp_path) == ["0000000003.data", "0000000003.json", "0000000004.data", "0000000004.json"]
    assert files.read(tmp_path, "a", META)[0] == b"3"


def test_any_text_is_a_name_and_names_do_not_meet(tmp_path: Path) -> None:
    odd = ["", "a", "A", "../../etc/passwd", "名", "a\x00", "\ud800", "x" * 5000]
    for number, name in enumerate(odd):
        files.write(tmp_path, name, b"%d" % number, META)
    assert [files.read(tmp_path, name, META)[0] for name in odd] == [b"%d" % n for n in range(len(odd))]


def test_each_file_is_synced_before_it_gets_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def named(path: Any) -> str:
        return "folder" if Path(path) == tmp_path else Path(path).name.split(".", 1)[1]

    def synced(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        path = next(p for p in (tmp_path, *tmp_path.iterdir()) if p.stat().st_ino == inode)
        assert path == tmp_path or path.stat().st_size > 0
        calls.append(("fsync", named(path)))
        fsync(descriptor)

    def replaced(source: Any, target: Any) -> None:
        calls.append(("rename", named(target)))
        replace(source, target)

    steps: list[str] = []
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(files, "_step", steps.append)
    files.write(tmp_path, "a", b"payload", META)
    assert steps == SNAPSHOT_STEPS
    assert calls == [
        ("fsync", "data.tmp"), ("fsync", "json.tmp"), ("rename", "data"), ("rename", "json"), ("fsync", "folder"),
    ]  # fmt: skip


def _write_and_die(folder: Path, step: str, number: int) -> None:
    def at(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    files._step = at
    files.write(folder, "a", b"%d" % number, {**META, "n": number})


@pytest.mark.parametrize("earlier", [0, 1, 3])
@pytest.mark.parametrize("step", SNAPSHOT_STEPS)
def test_killed_at_any_step_a_whole_generation_is_read(tmp_path: Path, step: str, earlier: int) -> None:
    for number in range(earlier):
        files.write(tmp_path, "a", b"%d" % number, {**META, "n": number})
    child = multiprocessing.get_context("fork").Process(target=_write_and_die, args=(tmp_path, step, earlier))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    finished = SNAPSHOT_STEPS.index(step) >= SNAPSHOT_STEPS.index("manifest-replaced")
    if earlier or finished:
        payload, meta = files.read(tmp_path, "a", META)
        assert payload == b"%d" % (earlier if finished else earlier - 1)
        assert meta["n"] == int(payload)
    else:
        with pytest.raises(SnapshotError):
            files.read(tmp_path, "a", META)
    files.write(tmp_path, "a", b"next", META)
    assert files.read(tmp_path, "a", META)[0] == b"next"
    assert not [name for name in names(tmp_path) if name.endswith("tmp")]


@pytest.mark.parametrize("part", ["data", "json"])
@pytest.mark.parametrize("place", range(0, 100, 9))
def test_a_changed_byte_is_noticed_and_the_generation_before_is_read(tmp_path: Path, part: str, place: int) -> None:
    for number in range(2):
        files.write(tmp_path, "a", b"payload %d" % number, META)
    file = next(tmp_path.glob(f"*2.{part}"))
    content = bytearray(file.read_bytes())
    content[place * len(content) // 100] ^= 0x10
    file.write_bytes(content)
    assert files.read(tmp_path, "a", META)[0] == b"payload 0"


def test_what_was_made_from_something_else_or_by_a_later_format_is_refused(tmp_path: Path) -> None:
    files.write(tmp_path / "derived", "a", b"payload", META)
    assert files.read(tmp_path / "derived", "a", {"store": "s1"}) == (b"payload", META)
    with pytest.raises(SnapshotError, match="store"):
        files.read(tmp_path / "derived", "a", {"store": "s2"})
    with pytest.raises(SnapshotError, match="embedder"):
        files.read(tmp_path / "derived", "a", {**META, "embedder": None})
    file = next((tmp_path / "derived").glob("*.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(SnapshotError):
        files.read(tmp_path / "derived", "a", META)


def test_links_folders_and_pipes_are_not_followed(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "derived", tmp_path / "elsewhere"
    files.write(elsewhere, "a", b"payload", META)
    folder.mkdir()
    for path in elsewhere.iterdir():
        (folder / path.name).symlink_to(path)
    name = next(elsewhere.glob("*.data")).name
    os.mkfifo(folder / name.replace("0001", "0002"))
    (folder / name.replace("0001", "0003")).mkdir()
    with pytest.raises(SnapshotError, match="link"):
        files.read(folder, "a", META)
    files.drop_all(folder)
    assert files.read(elsewhere, "a", META)[0] == b"payload"


def test_a_link_in_the_way_of_a_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    folder, target = tmp_path / "derived", tmp_path / "precious"
    folder.mkdir()
    target.write_text("mine")
    (folder / f"{files._hashed('a')}-0000000001.data.tmp").symlink_to(target)
    files.write(folder, "a", b"payload", META)
    assert target.read_text() == "mine"
    assert files.read(folder, "a", META)[0] == b"payload"


def test_a_generation_number_of_any_size_is_counted_on(tmp_path: Path) -> None:
    files.write(tmp_path, "a", b"old", META)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("0000000001", "9999999999"))
    files.write(tmp_path, "a", b"new", META)
    assert files.read(tmp_path, "a", META)[0] == b"new"
    files.drop_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", range(5))
def test_a_full_disk_leaves_the_generation_before_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    files.write(tmp_path, "a", b"old", META)
    made = [0]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any) -> Any:
            made[0] += 1
            if made[0] > call:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        return instead

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(os.fsync))
        patched.setattr(os, "replace", failing(os.replace))
        with pytest.raises(OSError, match="No space"):
            files.write(tmp_path, "a", b"new", META)
    # The last call is the folder's sync: by then the new generation is in place.
    assert files.read(tmp_path, "a", META)[0] == (b"new" if call == 4 else b"old")
    assert not list(tmp_path.glob("*.tmp"))


def test_one_name_or_all_are_dropped_and_what_is_not_ours_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "0123-1.data").write_text("mine too")
    for name in "ab":
        files.write(tmp_path, name, name.encode(), META)
    files.drop(tmp_path, "a")
    assert not files.exists(tmp_path, "a")
    assert files.read(tmp_path, "b", META)[0] == b"b"
    files.drop_all(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0123-1.data", "notes.txt"]


def test_maintenance_is_for_one_at_a_time_and_ends_with_a_killed_holder(tmp_path: Path) -> None:
    with files.maintenance(tmp_path) as mine, files.maintenance(tmp_path) as second:
        assert mine
        assert not second
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with files.maintenance(tmp_path):
            os.write(writing, b"x")
            signal.pause()
        os._exit(0)
    os.read(reading, 1)
    with files.maintenance(tmp_path) as had:
        assert not had
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with files.maintenance(tmp_path) as had:
        assert had
    os.close(reading)
    os.close(writing)


def test_no_snapshot_and_no_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no snapshot"):
        files.read(tmp_path / "none", "a", META)
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(SnapshotError):
        files.read(tmp_path / "file", "a", META)
