"""The items of any LangGraph store in a store of ours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from langgraph.store.base import BaseStore, GetOp, PutOp, SearchItem

from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.memory import Memory
from langchain_memlayer.moving.databases import read_only
from langchain_memlayer.progress import Progress, silent
from langchain_memlayer.store import MemLayerStore
from langchain_memlayer.store_arguments import Batch

_AT_ONCE = 200
_PAGE = 1000


def import_langgraph(
    store: BaseStore, target: str | Path | MemLayerStore, *, embeddings: Any = "auto", progress: Progress = silent
) -> dict[str, int]:
    """Take in all items of all namespaces of a LangGraph store; their values stay exactly what they are.

    The whole store is read and checked before anything is written. What the target has already under a key stays as it
    is, so that an interrupted import is simply repeated. Write times and times to live begin anew in the target, since
    another store does not report them all.

    Args:
        store: Any store with LangGraph's interface; nothing else should write to it meanwhile.
        target: An open store, or the path of one: a folder (made when missing), or the connection string of PostgreSQL.
        embeddings: For a path: what makes the vectors, as for `Memory`; the whole value is embedded.
        progress: Called with `check` or `import`, the items that are done, and their number (0 while unknown).

    Returns:
        `imported`: how many items were taken in; `known`: how many keys were there already.

    Raises:
        InvalidInput: a value is not JSON, or a namespace or key cannot be used here.
        EmbedderMismatch: the target was written with another embedder.
    """
    total = 0
    for total, item in enumerate(_items(store), 1):
        _check(item)
        progress("check", total, 0)
    if isinstance(target, MemLayerStore):
        return _fill(target, store, total, progress)
    with Memory(target, model=None, embeddings=embeddings) as memory:
        return _fill(memory.store, store, total, progress)


def import_langgraph_sqlite(
    file: str | Path, target: str | Path | MemLayerStore, *, embeddings: Any = "auto", progress: Progress = silent
) -> dict[str, int]:
    """Like `import_langgraph`, from the file of a LangGraph `SqliteStore`, which is only read.

    Raises:
        InvalidInput: the file is damaged or something else.
    """
    from langgraph.store.sqlite import SqliteStore

    with read_only(Path(file), "store", of="a LangGraph SqliteStore") as db:
        try:
            return import_langgraph(SqliteStore(db), target, embeddings=embeddings, progress=progress)
        except orjson.JSONDecodeError as error:
            raise InvalidInput(f"{file} is no LangGraph SqliteStore: a value in it is no JSON ({error}).") from error


def _check(item: SearchItem) -> None:
    try:
        Batch.of([PutOp(item.namespace, item.key, item.value)], None)
    except ValueError as error:
        error.add_note(f"This is about the item {shown(item.key)} in {shown(item.namespace)}; nothing was written.")
        raise


def _fill(target: MemLayerStore, store: BaseStore, total: int, progress: Progress) -> dict[str, int]:
    counts, items = {"imported": 0, "known": 0}, _items(store)
    while some := list(islice(items, _AT_ONCE)):
        there_already = target.batch([GetOp(item.namespace, item.key, refresh_ttl=False) for item in some])
        fresh = [item for item, known in zip(some, there_already, strict=True) if known is None]
        target.batch([PutOp(item.namespace, item.key, item.value) for item in fresh])
        counts["imported"] += len(fresh)
        counts["known"] += len(some) - len(fresh)
        progress("import", sum(counts.values()), total)
    return counts


def _items(store: BaseStore) -> Iterator[SearchItem]:
    for namespace in _namespaces(store):
        limit = _PAGE
        # A larger page from the start instead of the next one: with an offset, items of one time may change places.
        while len(items_found := store.search(namespace, limit=limit, refresh_ttl=False)) >= limit:
            limit *= 2
        yield from (item for item in items_found if tuple(item.namespace) == namespace)


def _namespaces(store: BaseStore) -> list[tuple[str, ...]]:
    limit = _PAGE
    while len(found := store.list_namespaces(limit=limit)) >= limit:
        limit *= 2
    return sorted(map(tuple, found))
