"""Derived files: generations with a digest, the manifest written last, so that a torn one is never taken for whole.

A snapshot of the name `n` is, for each generation `g`, a payload `<hash of n>-<g>.data` and a manifest
`<hash of n>-<g>.json`. The manifest has a BLAKE2b over name, payload and meta, and the meta itself: what the payload
was made from (store id, format, dims, embedder, journal position, as the caller gives it). Writing goes

    payload to a temporary file, fsync -> manifest to a temporary file, fsync -> payload renamed -> manifest renamed
    -> folder fsync -> generations older than the last but one removed

so that a crash at any instant leaves the previous generation readable. Reading takes the newest generation whose digest
agrees and whose meta is what the caller expects; nothing is parsed before that. Whatever is wrong with a derived file,
the answer is `SnapshotError`, and the caller rebuilds from the journal.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import EEXIST
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from langchain_memlayer.errors import SnapshotError

FORMAT = 1
_LOCK_NAME = "maintenance.lock"
_OF_STORES = "journal.sqlite", "checkpoints.sqlite", _LOCK_NAME
_OURS = re.compile(r"([0-9a-f]{32})-([0-9]{10,})\.(data|json)(\.tmp)?")


def _unwatched(step: str) -> None:
    """Does nothing."""


_step: Callable[[str], None] = _unwatched
"""Called with the name of each step of a write once it is done: `temp-written`, `temp-synced`, `manifest-written`,
`manifest-synced`, `payload-replaced`, `manifest-replaced`, `folder-synced`, `old-removed`. Tests kill here."""


def write(folder: Path, name: str, payload: bytes, meta: Mapping[str, Any]) -> None:
    """Writes the next generation of the snapshot `name`, and removes all but the one before it.

    Hold `maintenance` meanwhile: two writers of one name would take the same generation.

    Args:
        folder: Where derived files lie; made when missing.
        name: What the snapshot is of; any text.
        payload: Its bytes.
        meta: What it was made from; JSON values.

    Raises:
        OSError: The disk is full or the folder cannot be written. Older generations stay as they were.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    generations = _generations(folder, name)
    data = folder / f"{_hashed(name)}-{(generations[0] if generations else 0) + 1:010}.data"
    manifest = data.with_suffix(".json")
    text = json.dumps({"format": FORMAT, "digest": _digest(name, payload, meta), "meta": meta}, sort_keys=True)
    temporary = [Path(f"{path}.tmp") for path in (data, manifest)]
    try:
        _write_synced(temporary[0], payload, "temp")
        _write_synced(temporary[1], text.encode(), "manifest")
        temporary[0].replace(data)
        _step("payload-replaced")
        temporary[1].replace(manifest)
        _step("manifest-replaced")
    except OSError:
        for path in temporary:
            path.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    _step("folder-synced")
    _prune(folder, name)
    _step("old-removed")


def read(folder: Path, name: str, expect: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The newest whole generation of the snapshot `name`.

    Args:
        folder: Where derived files lie.
        name: What the snapshot is of.
        expect: What its meta must say; further keys may say anything.

    Returns:
        The payload and the meta.

    Raises:
        SnapshotError: There is none, or each is torn, damaged, foreign or of something else.
    """
    reasons = []
    for generation in _listed(folder, name):
        try:
            return _read_one(folder / f"{_hashed(name)}-{generation:010}.data", name, expect)
        except SnapshotError as problem:
            reasons.append(str(problem))
    raise SnapshotError("; ".join(reasons) or "There is no snapshot; it is made again.")


def exists(folder: Path, name: str) -> bool:
    """Whether there is a finished generation of the snapshot `name`, whole or not.

    Raises:
        SnapshotError: The folder cannot be read.
    """
    return bool(_listed(folder, name, manifest=True))


def drop(folder: Path, name: str) -> None:
    """Removes every generation of the snapshot `name`."""
    _remove(folder, lambda match: match[1] == _hashed(name))


def drop_all(folder: Path) -> None:
    """Removes every derived file, and what killed writers left."""
    _remove(folder, lambda match: True)


@contextmanager
def maintenance(folder: Path, *, timeout: float = 0.0) -> Iterator[bool]:
    """Holds the folder's maintenance lock, against other threads and processes.

    Args:
        folder: Where derived files lie; made when missing.
        timeout: Seconds to wait for whoever has it; 0 does not wait, negative waits for ever.

    Yields:
        Whether the lock was had. Optional work is left out when it was not.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK_NAME, timeout=timeout, mode=0o600, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _listed(folder: Path, name: str, *, manifest: bool = False) -> list[int]:
    try:
        return _generations(folder, name, manifest=manifest)
    except OSError as problem:
        raise SnapshotError(f"The snapshots cannot be read ({type(problem).__name__}); they are rebuilt.") from problem


def _read_one(data: Path, name: str, expect: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    described = data.with_suffix(".json")
    if data.is_symlink() or described.is_symlink():
        raise SnapshotError("The snapshot is a link to elsewhere; it is rebuilt.")
    try:
        manifest = json.loads(described.read_bytes())
        payload = data.read_bytes()
    except (OSError, ValueError, RecursionError) as problem:
        raise SnapshotError(f"The snapshot cannot be read ({type(problem).__name__}); it is rebuilt.") from problem
    meta = manifest.get("meta") if isinstance(manifest, dict) else None
    if not isinstance(meta, dict) or manifest.get("format") != FORMAT:
        raise SnapshotError("The snapshot's manifest is none of ours; it is rebuilt.")
    if manifest.get("digest") != _digest(name, payload, meta):
        raise SnapshotError("The snapshot is torn or damaged: its digest is not its manifest's; it is rebuilt.")
    for key, value in expect.items():
        if key not in meta or meta[key] != value:
            raise SnapshotError(f"The snapshot was made from something else ({key}); it is rebuilt.")
    return payload, meta


def _write_synced(path: Path, content: bytes, step: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        _step(f"{step}-written")
        os.fsync(file.fileno())
    _step(f"{step}-synced")


@contextmanager
def private_file(target: Path) -> Iterator[BinaryIO]:
    """A new file that only the owner can read, and that takes the place of `target` when the body ended without error.

    Raises:
        OSError: it cannot be written, or would take the place of a store.
    """
    if target.name.startswith(_OF_STORES):
        raise FileExistsError(EEXIST, "its name is that of a store's own file", str(target))
    # A name that nobody can have planted.
    number, name = tempfile.mkstemp(prefix=f".{target.name[:99]}.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: what was made, renamed or removed in it survives power loss."""
    # Windows cannot open a folder; there a rename is durable by itself.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hashed(name: str) -> str:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _digest(name: str, payload: bytes, meta: Mapping[str, Any]) -> str:
    digest = blake2b(payload, digest_size=32)
    digest.update(json.dumps([name, meta], sort_keys=True).encode())
    return digest.hexdigest()


def _ours(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """Our files in `folder`; whatever else lies there is never touched."""
    if folder.is_dir():
        for path in folder.iterdir():
            match = _OURS.fullmatch(path.name)
            # A folder or a pipe with such a name is none of ours, and reading it would fail, or never end.
            if match is not None and (path.is_symlink() or path.is_file()):
                yield path, match


def _generations(folder: Path, name: str, *, manifest: bool = False) -> list[int]:
    """The generations of `name` that have a payload or a manifest, newest first; with `manifest` only the latter."""
    hashed = _hashed(name)
    numbers = {
        int(match[2])
        for _, match in _ours(folder)
        if match[1] == hashed and not match[4] and (match[3] == "json" or not manifest)
    }
    return sorted(numbers, reverse=True)


def _prune(folder: Path, name: str) -> None:
    # A payload without a manifest is what a killed writer left: it must not take the place of a whole generation.
    keep = set(_generations(folder, name, manifest=True)[:2])
    hashed = _hashed(name)
    _remove(folder, lambda match: match[1] == hashed and (bool(match[4]) or int(match[2]) not in keep))


def _remove(folder: Path, unwanted: Callable[[re.Match[str]], bool]) -> None:
    removed = False
    for path, match in list(_ours(folder)):
        if unwanted(match):
            path.unlink(missing_ok=True)
            removed = True
    if removed:
        sync_folder(folder)
