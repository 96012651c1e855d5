"""What turns text into vectors: a LangChain `Embeddings`, "provider:model", a function, or the bundled model.

Whatever it is, it becomes an `Embedder`, which checks every vector before anything is written, and whose name and size
are the fingerprint that the folder remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from langchain_memlayer.arguments import is_auto
from langchain_memlayer.embedders.own import (
    COMPATIBLE,
    FunctionEmbeddings,
    MultilingualEmbeddings,
    OpenAIText,
    WordLlamaEmbeddings,
    encodable,
    has_openai_key,
    matrix,
)
from langchain_memlayer.errors import ConfigurationError, EmbedderMismatch, EmbeddingError, MissingDependency, shown

__all__ = ["Embedder", "MultilingualEmbeddings", "WordLlamaEmbeddings", "resolve_embeddings"]

# A model has one name, whether it came as an object or as "provider:model".
_PROVIDERS: Final = {
    "AzureAIOpenAIApiEmbeddingsModel": "azure_ai",
    "AzureOpenAIEmbeddings": "azure_openai",
    "BedrockEmbeddings": "bedrock",
    "CohereEmbeddings": "cohere",
    "GoogleGenerativeAIEmbeddings": "google_genai",
    "HuggingFaceEmbeddings": "huggingface",
    "MistralAIEmbeddings": "mistralai",
    "OllamaEmbeddings": "ollama",
    "OpenAIEmbeddings": "openai",
    "VertexAIEmbeddings": "google_vertexai",
    "MultilingualEmbeddings": "multilingual",
    "WordLlamaEmbeddings": "wordllama",
    "OpenAIText": "openai",
}
_OPENAI_DEFAULT: Final = "text-embedding-3-small"


_LONGEST = 32_000
_AT_ONCE = 2_000


class Embedder:
    """An embedding model whose vectors have been checked.

    Args:
        source: The model.
        dims: The size that its vectors must have; None takes it from the first ones.
        origin: Who says so, for the message when they have another size.
        automatic: Whether "auto" chose it.

    Attributes:
        name: The model's name in the folder's fingerprint, such as `openai:text-embedding-3-small`.
    """

    def __init__(
        self,
        source: Embeddings,
        *,
        dims: int | None = None,
        origin: str = "its earlier vectors had",
        automatic: bool = False,
    ) -> None:
        self.automatic = automatic
        self.name = _name(source)
        self.source = source
        self._dims = dims
        self._origin = origin

    @property
    def dims(self) -> int | None:
        """The vectors' size; None while it is not known."""
        return self._dims

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of texts, of shape (number of texts, dims). No texts: no call; one for 2,000.

        Of a text beyond 32,000 characters the beginning is embedded, as hosted models take no more.

        Raises:
            EmbeddingError: what the model returned cannot be used. What the model itself raises passes unchanged.
        """
        blocks = [self._checked(self.source.embed_documents(some), len(some)) for some in _parts(texts)]
        return np.concatenate(blocks) if blocks else self._none()

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Like `embed`; the model is awaited."""
        blocks = [
            await asyncio.to_thread(self._checked, await self.source.aembed_documents(some), len(some))
            for some in _parts(texts)
        ]
        return np.concatenate(blocks) if blocks else self._none()

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query, of shape (dims,).

        Raises:
            EmbeddingError: what the model returned cannot be used. What the model itself raises passes unchanged.
        """
        vector: NDArray[np.float32] = self._checked([self.source.embed_query(encodable(text[:_LONGEST]))], 1)[0]
        return vector

    async def aembed_query(self, text: str) -> NDArray[np.float32]:
        """Like `embed_query`; the model is awaited."""
        vector: NDArray[np.float32] = self._checked([await self.source.aembed_query(encodable(text[:_LONGEST]))], 1)[0]
        return vector

    def _none(self) -> NDArray[np.float32]:
        return np.empty((0, self._dims or 0), np.float32)

    def _checked(self, vectors: Any, count: int) -> NDArray[np.float32]:
        block = matrix(vectors, count, self.name)
        width = block.shape[1]
        # Without a lock, which a forked child could find closed.
        if self._dims is None:
            self._dims = width
        elif width != self._dims:
            raise EmbeddingError(
                f"{self.name} gave vectors of {width} numbers where {self._origin} {self._dims}. "
                "Make both agree, or pass another embedder."
            )
        return block


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """What is embedded of texts, as many at once as the numbers of Python that they become do not fill the memory."""
    for start in range(0, len(texts), _AT_ONCE):
        yield [text[:_LONGEST] for text in texts[start : start + _AT_ONCE]]


def resolve_embeddings(spec: Any, *, folder: tuple[str, int] | None = None, dims: int | None = None) -> Embedder | None:
    """The embedder that a caller asked for.

    Args:
        spec: A LangChain `Embeddings`; "provider:model"; "wordllama" or "multilingual", which need no download; a
            function, plain or async, from a list of texts to a list of vectors; "auto": the folder's own, else OpenAI
            when `OPENAI_API_KEY` is set, else wordllama; or None.
        folder: Name and dims of the embedder that wrote the folder's vectors, when there are any.
        dims: The size that the caller says the vectors have.

    Raises:
        EmbedderMismatch: the folder's vectors were made by another embedder.
        MissingDependency: a package is not installed.
        ConfigurationError: `spec` names nothing known, or contradicts `dims`.
    """
    if spec is None:
        return None
    automatic = is_auto(spec)
    source = _automatic(folder) if automatic else _explicit(spec)
    own = source.dims if isinstance(source, (MultilingualEmbeddings, WordLlamaEmbeddings)) else None
    if own is not None and dims not in (None, own):
        raise ConfigurationError(
            f"{_name(source)} gives vectors of {own} numbers, but index['dims'] is {dims}: set it to {own}, or pass "
            "another embedder."
        )
    size, origin = dims, "its earlier vectors had" if dims is None else "index['dims'] says"
    if own is not None:
        size, origin = own, "it always gives"
    if folder is not None:
        if _name(source) != folder[0] or size not in (None, folder[1]):
            numbers = "" if size is None else f" ({size} numbers)"
            raise EmbedderMismatch(
                f"The folder's vectors were made with {folder[0]} ({folder[1]} numbers), not with {_name(source)}"
                f"{numbers}. Open it with that embedder or with 'auto', or give it this one: `memlayer reembed`, or "
                "`langchain_memlayer.moving.reembed_store`."
            )
        size, origin = folder[1], "the folder's vectors have"
    return Embedder(source, dims=size, origin=origin, automatic=automatic)


def _automatic(folder: tuple[str, int] | None) -> Embeddings:
    """The folder's own model; without one, the best that is at hand without a question."""
    if folder is None:
        return OpenAIText(_OPENAI_DEFAULT, None) if has_openai_key() else WordLlamaEmbeddings()
    name, dims = folder
    if name.partition(":")[0] not in _PROVIDERS.values():
        raise EmbedderMismatch(
            f"The folder's vectors were made with {name} ({dims} numbers), which cannot be made from its name: pass "
            "that embedder itself, or give it another one: `memlayer reembed`, or "
            "`langchain_memlayer.moving.reembed_store`."
        )
    return _from_name(name)


def _explicit(spec: Any) -> Embeddings:
    if isinstance(spec, Embeddings):
        return spec
    if isinstance(spec, str):
        return _from_name(spec)
    if isinstance(spec, type) or not callable(spec):
        given = f"the class {spec.__name__}, not an object of it" if isinstance(spec, type) else type(spec).__name__
        raise ConfigurationError(
            f"embeddings must be an `Embeddings` object, 'provider:model', a function, 'auto' or None; got {given}."
        )
    return FunctionEmbeddings(spec)


def _from_name(text: str) -> Embeddings:
    """The model behind "provider:model"."""
    provider, _, model = text.partition(":")
    for name, bundled in (("wordllama", WordLlamaEmbeddings), ("multilingual", MultilingualEmbeddings)):
        if provider == name:
            if model not in ("", bundled.model):
                raise ConfigurationError(f"{text}: the only model of that name is {name}:{bundled.model}.")
            return bundled()
    if not provider or not model:
        raise ConfigurationError(
            f"embeddings={shown(text)} names no model: write 'provider:model', such as 'openai:{_OPENAI_DEFAULT}', or "
            "'wordllama', 'multilingual' or 'auto'."
        )
    if provider == "openai":
        base, _, dimensions = model.rpartition("@")
        return OpenAIText(base, int(dimensions)) if base and dimensions.isdecimal() else OpenAIText(model, None)
    try:
        from langchain.embeddings import init_embeddings

        return init_embeddings(text)
    except ImportError as problem:
        raise MissingDependency(
            f"{text} needs the packages langchain and langchain-{provider.replace('_', '-')} ({problem}): install "
            "them, or pass an `Embeddings` object."
        ) from problem
    except ValueError as problem:
        raise ConfigurationError(
            f"{text} cannot be made ({problem}): pass an `Embeddings` object instead. {COMPATIBLE}"
        ) from problem


def _name(source: Embeddings) -> str:
    """The name of a model in a folder's fingerprint: one for an object and the "provider:model" that makes it."""
    if isinstance(source, FunctionEmbeddings):
        return source.name
    inner = getattr(source, "underlying_embeddings", None)
    if isinstance(inner, Embeddings):
        return _name(inner)
    kind = type(source).__name__
    names = (getattr(source, attribute, None) for attribute in ("model", "model_name", "model_id"))
    parts = [_PROVIDERS.get(kind, kind), next((name for name in names if isinstance(name, str)), "")]
    dimensions = getattr(source, "dimensions", None)
    suffix = f"@{dimensions}" if parts[0] == "openai" and dimensions is not None else ""
    return ":".join(filter(None, parts)) + suffix
