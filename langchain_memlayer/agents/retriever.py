"""Memories as a LangChain retriever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import Field

from langchain_memlayer.types import Scope

_SHOWN = (
    "id", "kind", "score", "relevance", "sources", "role", "name", "session_id", "created_at", "updated_at", "valid_at",
    "invalid_at",
)  # fmt: skip


class MemoryRetriever(BaseRetriever):
    """The memories of one scope as documents, the best first; what `Memory.as_retriever` gives.

    A document's text is the memory, its id is the memory's. Its metadata are the user's own and, over them, `id`,
    `kind`, `score`, `relevance`, `source` (the id of the first message it comes from), `sources`, `role`, `name`,
    `session_id`, `created_at`, `updated_at`, `valid_at` and `invalid_at`.

    Args:
        memory: The `Memory`.
        user_id: Whose memories.
        agent_id: Which agent's.
        run_id: Which run's.
        k: How many documents at most; `invoke(query, k=...)` overrides it.
        search_kwargs: Further arguments of `Memory.search`, such as `filters` or `threshold`.

    Raises:
        ScopeRequired: (when it runs) no id was given.

    Example:
        ```python
        retriever = memory.as_retriever(user_id="alice", k=3)
        chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | model
        ```
    """

    memory: Any = Field(exclude=True, repr=False)
    user_id: str | None = None
    agent_id: str | None = None
    run_id: str | None = None
    k: int = 4
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return _documents(self.memory.search(query, **self._arguments(k)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return _documents(await self.memory.asearch(query, **self._arguments(k)))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = LangSmithRetrieverParams(ls_retriever_name="memory", ls_vector_store_provider="MemLayer")
        embedder = self.memory._indexes.embedder
        if embedder is not None:
            params["ls_embedding_provider"] = embedder.name
        return params

    def _arguments(self, k: int | None) -> dict[str, Any]:
        ids = Scope(self.user_id, self.agent_id, self.run_id).ids()
        # Not a union: what is also among the further arguments must not be lost in silence.
        return dict(**self.search_kwargs, **ids, limit=self.k if k is None else k)


def _documents(found: Mapping[str, Any]) -> list[Document]:
    documents = []
    for hit in found["results"]:
        shown = {name: hit[name] for name in _SHOWN}
        own = {key: value for key, value in hit["metadata"].items() if key != "data"}
        source = hit["sources"][0] if hit["sources"] else None
        documents.append(Document(hit["memory"], id=hit["id"], metadata={**own, **shown, "source": source}))
    return documents
