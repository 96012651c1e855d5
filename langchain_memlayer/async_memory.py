"""`AsyncMemory`: the awaited methods of `Memory` under the plain names."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from langchain_memlayer.config import MemoryConfig
from langchain_memlayer.memory import Memory


class AsyncMemory:
    """A `Memory` whose methods are awaited, as mem0's users know it: `await memory.add(...)`.

    Each method is the twin of `Memory` that begins with `a`, and takes and gives the same.

    Args:
        path: As in `Memory`.
        **settings: Further arguments of `Memory`.

    Attributes:
        memory: The memory itself, with all that has no awaited twin.
    """

    def __init__(self, path: str | Path | None = None, **settings: Any) -> None:
        self.memory = Memory(path, **settings)
        self.add = self.memory.aadd
        self.search = self.memory.asearch
        self.adopt = self.memory.aadopt
        self.add_graph_documents = self.memory.aadd_graph_documents
        self.extract = self.memory.aextract
        self.reconcile = self.memory.areconcile
        self.read = self.memory.aread
        self.unread = self.memory.aunread
        self.get = self.memory.aget
        self.get_all = self.memory.aget_all
        self.scopes = self.memory.ascopes
        self.update = self.memory.aupdate
        self.delete = self.memory.adelete
        self.delete_all = self.memory.adelete_all
        self.history = self.memory.ahistory
        self.forget = self.memory.aforget
        self.reset = self.memory.areset
        self.why = self.memory.awhy
        self.profile = self.memory.aprofile
        self.update_profile = self.memory.aupdate_profile
        self.profile_history = self.memory.aprofile_history
        self.diff = self.memory.adiff
        self.undo = self.memory.aundo
        self.replay = self.memory.areplay
        self.fork = self.memory.afork
        self.forks = self.memory.aforks
        self.graph = self.memory.agraph
        self.flush = self.memory.aflush
        self.close = self.memory.aclose

    @classmethod
    def from_config(cls, config_dict: Mapping[str, Any] | MemoryConfig, **settings: Any) -> Self:
        """Open a memory by a configuration, as `Memory.from_config` does; awaiting the result is allowed."""
        return cls(config=config_dict, **settings)

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
