"""Memories as a LangChain retriever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from pydantic import Field

from langchain_memlayer.agents.surface import QUERY_CHARS, WORD, OnError, ask, checked_on_error, checked_options
from langchain_memlayer.arguments import checked_count
from langchain_memlayer.errors import InvalidInput, shown
from langchain_memlayer.messages import mended_text
from langchain_memlayer.protocols import MemoryLike
from langchain_memlayer.steps import Steps, arun, run
from langchain_memlayer.types import Scope

SearchType = Literal["similarity", "mmr", "similarity_score_threshold"]

_SHOWN: Final = (
    "id", "kind", "score", "relevance", "sources", "role", "name", "session_id", "created_at", "updated_at", "valid_at",
    "invalid_at", "ended",
)  # fmt: skip
_ADOPTED: Final = "adopted:"
_RENAMED: Final = {"filter": "filters", "score_threshold": "threshold"}
_MMR: Final = {"fetch_k": 20, "lambda_mult": 0.5}


def memory_retriever(
    memory: MemoryLike,
    scope: Scope,
    *,
    k: int = 4,
    search_type: SearchType = "similarity",
    search_kwargs: Mapping[str, Any] | None = None,
    on_error: OnError = "log",
) -> MemoryRetriever:
    """The memories of a scope as a retriever; what `Memory.as_retriever` gives, which says what the arguments mean."""
    scope.required("as_retriever()")
    given = {_RENAMED.get(key, key): value for key, value in (search_kwargs or {}).items()}
    k = checked_count(given.pop("k", k), "k", 1)
    mmr = {key: given.pop(key, default) for key, default in _MMR.items() if search_type == "mmr"}
    if search_type not in get_args(SearchType):
        raise InvalidInput(f"search_type must be one of {list(get_args(SearchType))}, got {shown(search_type)}.")
    if search_type == "similarity_score_threshold" and given.get("threshold") is None:
        raise InvalidInput("search_type 'similarity_score_threshold' needs search_kwargs={'score_threshold': 0..1}.")
    settings: dict[str, Any] = {**scope.ids(), **mmr, "search_kwargs": checked_options("as_retriever()", given)}
    return MemoryRetriever(memory=memory, k=k, on_error=checked_on_error(on_error), **settings)


class MemoryRetriever(BaseRetriever):
    """The memories of one scope as documents, the best first; what `Memory.as_retriever` gives.

    A document's text is the memory. Its metadata are the user's own, such as `source` of a document that was adopted,
    and beside them `memory_id`, `memory_kind`, `memory_relevance` (0..1, absolute), `memory_score` (0..1, orders),
    `memory_sources` (ids of the messages it comes from), `memory_role`, `memory_name`, `memory_session_id`,
    `memory_created_at`, `memory_updated_at`, `memory_valid_at`, `memory_invalid_at` and `memory_ended`. Its id is that
    of the memory, or of the document that was adopted.

    Args:
        memory: The `Memory`.
        user_id: Whose memories.
        agent_id: Which agent's.
        run_id: Which run's.
        k: How many documents at most; `invoke(query, k=...)` overrides it.
        fetch_k: From how many MMR (maximal marginal relevance) chooses `k` that say different things; None takes the
            best `k` instead.
        lambda_mult: How MMR weighs relevance against difference: 1 is relevance alone, 0 difference alone.
        search_kwargs: Further arguments of `Memory.search`, such as `filters` or `threshold`.
        on_error: What a failing memory means: "log" finds nothing then, "raise" is for tests.

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
    fetch_k: int | None = None
    lambda_mult: float = 0.5
    search_kwargs: dict[str, Any] = Field(default_factory=dict)
    on_error: OnError = "log"

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return run(self._retrieved(query, k))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return await arun(self._retrieved(query, k))

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        params = LangSmithRetrieverParams(ls_retriever_name="memory", ls_vector_store_provider="MemLayer")
        if self.memory.embedder is not None:
            params["ls_embedding_provider"] = self.memory.embedder
        return params

    def _retrieved(self, query: str, k: int | None) -> Steps[list[Document]]:
        if not isinstance(query, str):
            raise InvalidInput(f"A retriever is asked with a text, got {type(query).__name__}: take the question out.")
        wanted, query = self.k if k is None else k, mended_text(query)[:QUERY_CHARS]
        if not query.strip():
            return []
        # Not a union: what is also among the further arguments must not be lost in silence.
        arguments = dict(
            # They may come from a run's configuration, which goes around `as_retriever`.
            **checked_options("MemoryRetriever", self.search_kwargs),
            **Scope(self.user_id, self.agent_id, self.run_id).ids(),
            limit=wanted if self.fetch_k is None else max(wanted, self.fetch_k),
        )
        answer = yield from ask(
            "MemoryRetriever", self.memory, "search", query, on_error=self.on_error, raised=(InvalidInput,), **arguments
        )
        hits = [] if answer is None else list(answer["results"])
        if self.fetch_k is not None:
            hits = _different(hits, wanted, self.lambda_mult)
        return [_document(hit) for hit in hits]


def _different(hits: Sequence[Mapping[str, Any]], k: int, weight: float) -> list[Mapping[str, Any]]:
    """Up to `k` hits by maximal marginal relevance; how alike two of them are is the share of their words in common."""
    words = [set(WORD.findall(hit["memory"].casefold())) for hit in hits]
    left, alike = list(range(len(hits))), [0.0] * len(hits)
    chosen: list[Mapping[str, Any]] = []
    while left and len(chosen) < k:
        best = max(left, key=lambda i: weight * (hits[i]["relevance"] or 0.0) - (1 - weight) * alike[i])
        left.remove(best)
        chosen.append(hits[best])
        for i in left:
            together = len(words[i] | words[best])
            alike[i] = max(alike[i], len(words[i] & words[best]) / together if together else 1.0)
    return chosen


def _document(hit: Mapping[str, Any]) -> Document:
    own = {key: value for key, value in hit["metadata"].items() if key != "data"}
    ours = {f"memory_{name}": hit[name] for name in _SHOWN}
    first = next(iter(hit["sources"]), "")
    id_ = first.removeprefix(_ADOPTED) if first.startswith(_ADOPTED) and hit["kind"] == "turn" else hit["id"]
    return Document(hit["memory"], id=id_, metadata={**own, **ours})
