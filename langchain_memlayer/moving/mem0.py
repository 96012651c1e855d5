"""An installation of mem0's as memories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_memlayer.arguments import checked_expiration
from langchain_memlayer.embedders.embedder import resolve_embeddings
from langchain_memlayer.engine.commit import Indexed
from langchain_memlayer.engine.index_sync import Indexes, chosen_metric, recorded_embedder
from langchain_memlayer.engine.texts import searchable, stored_text
from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.journal import Journal, open_journal
from langchain_memlayer.journal.writer import Writer
from langchain_memlayer.json_values import plain
from langchain_memlayer.messages import checked_text, content_hash
from langchain_memlayer.moving import mem0_files
from langchain_memlayer.moving.mem0_files import Change, Payload
from langchain_memlayer.progress import Progress, silent
from langchain_memlayer.recall import asking
from langchain_memlayer.steps import run
from langchain_memlayer.types import IDS, Row, Scope, from_micros, to_micros

_AT_ONCE = 200
_ACTOR = "mem0"
# What becomes something else than metadata, or follows from the text.
_FIELDS = {*IDS, "data", "hash", "text_lemmatized", "created_at", "updated_at", "role", "actor_id"}


@dataclass(frozen=True, slots=True)
class _Version:
    """One text of a memory, and when it began to hold, microseconds since 1970 UTC; None when nothing tells."""

    text: str
    began: int | None


@dataclass(frozen=True, slots=True)
class _Memory:
    """A memory of mem0's; its versions are in order, and the last one is current."""

    id: str
    scope: Scope
    role: str
    name: str | None
    created_at: int | None
    updated_at: int | None
    until: int | None
    metadata: Mapping[str, Any]
    versions: tuple[_Version, ...]

    def form(self, version: _Version) -> str:
        """What is embedded and indexed of a version."""
        return stored_text(version.text, kind="turn", name=self.name, time=self.created_at)


def import_mem0(
    source: str | Path | Sequence[str | Path],
    path: str | Path,
    *,
    embeddings: Any = "auto",
    progress: Progress = silent,
) -> dict[str, int]:
    """Take in the memories of a mem0 installation: texts, ids, metadata, owners, times, and earlier texts as history.

    Each becomes a memory of kind `turn` under mem0's own id, stored as given; nothing is extracted. Everything is read
    and checked before anything is written. What the store has already, or has ever had, stays as it is, so that an
    interrupted import is simply repeated. mem0's files are only read; a Chroma folder is opened by Chroma itself.

    Args:
        source: A folder with mem0's vector store (FAISS, local Qdrant or Chroma) and its `history.db`, or several paths
            where they lie apart. Without a history, memories have only their last text.
        path: The store: a folder (made when missing), or the connection string of PostgreSQL.
        embeddings: What makes the vectors, as for `Memory`.
        progress: Called with `import`, the memories that are done, and their number.

    Returns:
        `imported`: how many memories were taken in; `known`: how many were there already; `skipped`: how many have no
        text or no owner. The history of deleted memories does not say whose they were, so it stays behind.

    Raises:
        InvalidInput: there is no vector store of mem0's, or a file is damaged or would run code.
        MissingDependency: the folder is Chroma's, and Chroma is not installed.
        EmbedderMismatch: the store was written with another embedder.
    """
    given = [source] if isinstance(source, (str, Path)) else list(source)
    memories, skipped = _read(mem0_files.find([Path(one) for one in given]))
    counts = {"imported": 0, "known": 0, "skipped": skipped}
    with closing(open_journal(path)) as journal:
        embedder = resolve_embeddings(embeddings, folder=recorded_embedder(journal, "memories"))
        metric = chosen_metric(journal, None)
        # Nothing is searched here, so how large a scope may grow without a graph does not matter.
        indexes = Indexes(journal, area="memories", embedder=embedder, metric=metric, hnsw_threshold=0)
        for start in range(0, len(memories), _AT_ONCE):
            some = memories[start : start + _AT_ONCE]
            written = _store(journal, indexes, _unknown(journal, some))
            counts["imported"] += written
            counts["known"] += len(some) - written
            progress("import", start + len(some), len(memories))
    return counts


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(files: mem0_files.Files) -> tuple[list[_Memory], int]:
    """The memories, and how many payloads can be none."""
    history, skipped = mem0_files.history(files), 0
    memories: dict[str, _Memory] = {}
    for key, payload in mem0_files.payloads(files):
        if "entity_type" in payload and "linked_memory_ids" in payload:
            # mem0's own index of names, which follows from the memories.
            continue
        memory = _memory(checked_text(key, "a memory's id"), payload, history.get(key, ()))
        if memory is None:
            skipped += 1
        else:
            memories.setdefault(key, memory)
    return list(memories.values()), skipped


def _memory(key: str, payload: Payload, changes: Iterable[Change]) -> _Memory | None:
    where = f"mem0's memory {key}"
    text = payload.get("data")
    scope = Scope(**{name: payload[name] for name in IDS if payload.get(name) not in (None, "")})
    if not isinstance(text, str) or not text.strip() or not scope:
        return None
    created, updated = _time(payload.get("created_at"), where), _time(payload.get("updated_at"), where)
    role, name = payload.get("role"), payload.get("actor_id")
    until, own = None, _FIELDS
    with suppress(InvalidInput):  # what is no date ends nothing in mem0 either
        if end := checked_expiration(payload.get("expiration_date")):
            until, own = to_micros(end), _FIELDS | {"expiration_date"}
    return _Memory(
        id=key,
        scope=scope,
        role=checked_text(role, where) if isinstance(role, str) and role else "user",
        name=checked_text(name, where) if isinstance(name, str) and name else None,
        created_at=created,
        updated_at=updated,
        until=until,
        metadata=plain({k: v for k, v in payload.items() if k not in own}, where),
        versions=_versions(checked_text(text, where), created, updated, changes, where),
    )


def _versions(
    text: str, created: int | None, updated: int | None, changes: Iterable[Change], where: str
) -> tuple[_Version, ...]:
    """The texts in order; the payload has the last word, since a history may be lost or of another time."""
    versions: list[_Version] = []
    for change in changes:
        at = _time(change.updated_at or change.created_at, where)
        if not versions and change.old:
            versions.append(_Version(checked_text(change.old, where), created))
        if change.new and (not versions or change.new != versions[-1].text):
            versions.append(_Version(checked_text(change.new, where), at if versions else created))
    if not versions or versions[-1].text != text:
        versions.append(_Version(text, updated if versions else created))
    return tuple(versions)


def _time(value: Any, where: str) -> int | None:
    if value is None or value == "":
        return None
    try:
        moment = datetime.fromisoformat(value)
        return to_micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where} has {shown(value)} for a time, which is no ISO 8601 text.") from error


# -- writing ----------------------------------------------------------------------------------------------------------


def _unknown(journal: Journal, memories: Sequence[_Memory]) -> list[_Memory]:
    with journal.read() as reader:
        return [memory for memory in memories if not reader.versions_of(memory.id)]


def _store(journal: Journal, indexes: Indexes, memories: Sequence[_Memory]) -> int:
    """Write memories in one commit; gives how many of them no other import has written meanwhile."""
    if not memories:
        return 0
    forms = run(searchable(indexes, [memory.form(one) for memory in memories for one in memory.versions]))
    written = 0
    with journal.write(*sorted({memory.scope.partition for memory in memories})) as tx:
        if any(form.vector_bytes for form in forms.values()):
            indexes.record_embedder(tx)
        for memory in memories:
            if not tx.versions_of(memory.id):
                _write(tx, memory, forms)
                written += 1
    return written


def _write(tx: Writer, memory: _Memory, forms: Mapping[str, Indexed]) -> None:
    """All versions of one memory; what mem0 does not keep of earlier ones, their metadata, they are without."""
    created = tx.now if memory.created_at is None else memory.created_at
    message = f"{_ACTOR}:{memory.id}"
    ids: dict[str, Any] = {**memory.scope.ids()}
    base = Row(
        id=0, seq=0, path=memory.scope.partition, key=memory.id, kind="turn", text="", created_at=created,
        updated_at=created, role=memory.role, name=memory.name, message_id=message, time=memory.created_at,
        sources=(message,), given=True, last_seen=created, **ids,
    )  # fmt: skip
    old: Row | None = None
    for version in memory.versions:
        last = version is memory.versions[-1]
        began = max(created if version.began is None else version.began, created if old is None else old.updated_at)
        row = replace(
            base, text=version.text, hash=content_hash(version.text), asks=asking(version.text),
            updated_at=max(began, memory.updated_at or 0) if last else began, metadata=memory.metadata if last else {},
            invalid_at=memory.until if last else None,
        )  # fmt: skip
        if old is not None:
            tx.close_memory(old, invalid_at=began)
        form = forms[memory.form(version)]
        item = tx.add_memory(
            row, terms=form.terms, vector_bytes=form.vector_bytes, op="add" if old is None else "update",
            gone=None if old is None else old.id, prev=None if old is None else old.text, actor=_ACTOR,
            detail={"at": from_micros(began).isoformat()},
        )  # fmt: skip
        old = replace(row, id=item, seq=item)
