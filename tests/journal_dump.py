"""What is in a store's journal, read by a connection of its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import postgres_server

from langchain_memlayer import Memory
from langchain_memlayer.testing import DeterministicEmbeddings, FrozenClock, SequentialIds

Dump = dict[str, list[tuple[Any, ...]]]


def dump(folder: Path) -> Dump:
    """Every row of every table, those behind the keyword index among them."""
    if postgres_server.current:
        columns = query(
            folder,
            # Transactions are numbered over all that happens on the server.
            "SELECT table_name, string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) FROM "
            "information_schema.columns WHERE table_schema = current_schema() AND column_name <> 'xid' GROUP BY 1",
        )
        return {table: sorted(query(folder, f'SELECT {names} FROM "{table}"'), key=repr) for table, names in columns}
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {table: sorted(db.execute(f'SELECT * FROM "{table}"').fetchall(), key=repr) for table in tables}


def query(folder: Path, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """The rows of one statement."""
    if postgres_server.current:
        return postgres_server.current[-1].query(folder, sql, params)
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        rows = db.execute(sql, params).fetchall()
        db.commit()
        return rows


def open_memory(folder: Path | str, **settings: Any) -> Memory:
    """A memory without a model, with offline embeddings, sequential ids and a frozen clock."""
    given: dict[str, Any] = {
        "model": None, "embeddings": DeterministicEmbeddings(), "durability": "fast", "clock": FrozenClock(),
        "new_id": SequentialIds(),
    }  # fmt: skip
    return Memory(folder, **{**given, **settings})


class Faltering(DeterministicEmbeddings):
    """Embeddings that answer otherwise: for documents in the `left`-th call from now, and always while `broken`."""

    def __init__(self, answer: Callable[[list[str]], Any], dims: int = 256, *, broken: bool = False) -> None:
        super().__init__(dims)
        self._answer, self.broken, self.left = answer, broken, 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.left -= 1
        return self._answer(texts) if self.broken or self.left == 0 else super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0] if self.broken else super().embed_query(text)


def unreachable(texts: list[str]) -> Any:
    """The answer of an embedder that cannot be reached."""
    raise ConnectionError("no route to the embedder")


def texts(result: dict[str, Any]) -> list[str]:
    """The memories of a result."""
    return [hit["memory"] for hit in result["results"]]


def ids(result: dict[str, Any]) -> list[str]:
    """The ids of a result."""
    return [hit["id"] for hit in result["results"]]


def refuses(call: Callable[[], Any], folder: Path, kind: type[BaseException]) -> str:
    """The message of the error that `call` raises; what is in the journal must be the same before and after."""
    before = dump(folder)
    try:
        call()
    except kind as error:
        assert dump(folder) == before
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def connections(journal: Any) -> list[sqlite3.Connection]:
    """The connections that are open to a folder's journal."""
    return [journal._writing(), *(reading.db for reading in journal._readings if reading.db is not None)]
