"""Every configuration in docs/backends.md is opened as it stands there, and used; servers that it names run here."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore

from integration_tests import qdrant_server, store_servers, viking_server
from integration_tests.conftest import Loopback
from integration_tests.json_server import HOST
from langchain_memlayer import Memory, WordLlamaEmbeddings
from langchain_memlayer.index.view import Hints
from langchain_memlayer.types import Scope

pytestmark = pytest.mark.allow_hosts([HOST])

DOC = (Path(__file__).parent.parent / "docs" / "backends.md").read_text(encoding="utf-8")
BLOCKS = [
    block
    for block in re.findall(r"^```python\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)
    if "from_config(config)" in block
]
PACKAGES = {
    "chroma": "langchain_chroma",
    "deepseek": "langchain_deepseek",
    "milvus": "milvus_lite",
    "pgvector": "langchain_postgres",
    "qdrant": "langchain_qdrant",
    "vikingdb": "vikingdb",
}
FIELDS = dict(re.findall(r"^\| `(\w+)` \| (string|int64|text)[^|]*\| (?:yes)? ?\|$", DOC, re.MULTILINE))
SCALARS = re.findall(r"^\| `(\w+)` \| \w+ \| yes \|$", DOC, re.MULTILINE)


def title(block: str) -> str:
    """Which providers a block names, and where they are."""
    words = [*re.findall(r'"provider": "(\w+)"', block), *re.findall(r'"(path|url|host|connection_string)": ', block)]
    return "-".join(words)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loopback: Loopback) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMLAYER_HOME", str(tmp_path / "home"))
    for name in ("OPENAI_API_KEY", "ARK_API_KEY", "DEEPSEEK_API_KEY"):
        monkeypatch.setenv(name, "test-key")
    for name in ("OPENAI_BASE_URL", "ARK_BASE_URL", "DEEPSEEK_API_BASE"):
        monkeypatch.setenv(name, loopback.url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stores' own
        yield


def served(block: str, stack: ExitStack, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The block with the addresses of servers that run."""
    if "localhost:6333" in block:
        qdrant = stack.enter_context(qdrant_server.serving(re.findall(r'"api_key": "(.+?)"', block)[0]))
        return block.replace("http://localhost:6333", qdrant.url)
    if '"host": "localhost", "port": 8000' in block:
        port = stack.enter_context(store_servers.chroma(tmp_path / "served")).port
        return block.replace('"host": "localhost", "port": 8000', f'"host": "{HOST}", "port": {port}')
    if "postgresql://" in block:
        url = request.getfixturevalue("postgres")
        return re.sub(r'"postgresql://[^"]+"', repr(url), block)
    if '"vikingdb"' in block:
        viking = stack.enter_context(viking_server.serving())
        viking.collections["memories"] = viking_collection()
        monkeypatch = request.getfixturevalue("monkeypatch")
        for name, value in (
            ("HOST", viking.url),
            ("REGION", viking_server.REGION),
            ("AK", viking_server.AK),
            ("SK", viking_server.SK),
        ):
            monkeypatch.setenv(f"VIKINGDB_{name}", value)
        monkeypatch.delenv("VIKINGDB_API_KEY", raising=False)
    return block


def viking_collection() -> viking_server.Collection:
    """The collection whose fields the document lists."""
    fields = {name: kind for name, kind in FIELDS.items() if name != "id"}
    return viking_server.Collection(dims=4, fields=fields, scalars=tuple(SCALARS), index="memories_index")


@pytest.mark.parametrize("block", BLOCKS, ids=title)
def test_every_configuration_opens_keeps_and_finds(block: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for provider, package in PACKAGES.items():
        if f'"{provider}"' in block and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    names: dict[str, Any] = {
        "Memory": Memory,
        "InMemoryVectorStore": InMemoryVectorStore,
        "WordLlamaEmbeddings": WordLlamaEmbeddings,
    }
    with ExitStack() as stack:
        exec(compile(served(block, stack, request, tmp_path), "docs/backends.md", "exec"), names)
        memory = stack.enter_context(names["memory"])
        memory.add("The spare key hangs behind the clock.", user_id="alice", infer=False)
        memory.add("The kiln must cool for twelve hours.", user_id="alice", infer=False)
        assert memory.flush(60)
        found = memory.search("Where does the spare key hang?", user_id="alice", limit=1)["results"]
        assert [hit["memory"] for hit in found] == ["The spare key hangs behind the clock."]
        if '"vector_store"' in block and '"faiss"' not in block:
            assert len(asked(memory)) == 2
        else:
            assert '"vector_store"' not in block or memory._journal.folder == Path("memories/notes").absolute()


def asked(memory: Memory) -> list[int]:
    """What the store itself proposes in a scope, by the way that searches take."""
    embedder, mirror = memory._indexes.embedder, memory._indexes.mirror
    assert embedder is not None
    assert mirror is not None
    vector = np.array(embedder.embed_query("the spare key"), np.float32)
    prefix = Scope(user_id="alice").search_root
    proposal = mirror.proposals.propose(vector, 10, prefix, Hints({"user_id": "alice"}, "the spare key"))
    assert proposal is not None
    return [row for row in proposal.ids.tolist() if row >= 0]


def test_the_fields_that_the_document_lists_let_vikingdb_filter_by_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vikingdb")
    from langchain_memlayer.testing import DeterministicEmbeddings

    assert {"memlayer_item": "int64", "memlayer_store": "string"}.items() <= FIELDS.items()
    embedder = {"provider": "langchain", "config": {"model": DeterministicEmbeddings(4)}}
    with viking_server.serving() as viking:
        viking.collections["memories"] = viking_collection()
        place = {"collection_name": "memories", "host": viking.url, "api_key": viking_server.API_KEY}
        config = {"vector_store": {"provider": "vikingdb", "config": place}, "embedder": embedder}
        with Memory.from_config(config) as memory:
            for number in range(12):
                memory.add(f"Ben's note {number}.", user_id="ben", infer=False)
            memory.add("Alice's note.", user_id="alice", infer=False)
            assert memory.flush(60)
            # Unfiltered, the twelve of Ben would be in the answer, as -1.
            mirror = memory._indexes.mirror
            assert mirror is not None
            prefix = Scope(user_id="alice").search_root
            proposal = mirror.proposals.propose(np.ones(4, np.float32), 10, prefix, Hints({"user_id": "alice"}))
            assert proposal is not None
            assert len(proposal.ids) == 1
            assert proposal.ids[0] >= 0
