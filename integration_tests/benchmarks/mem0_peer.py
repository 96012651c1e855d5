"""mem0 as a peer: installed on demand into `.venv-peers`, run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from integration_tests.benchmarks.peers import Peer, Skipped, user
from integration_tests.benchmarks.timing import Timed
from integration_tests.benchmarks.vectors import DIMS, TENANTS, Data

_ENVIRONMENT = Path(__file__).resolve().parents[2] / ".venv-peers"
_PACKAGES = ("mem0ai>=2.2", "faiss-cpu>=1.15", "numpy>=2.0")


@cache
def _python() -> Path:
    """The interpreter of an environment that has mem0, made when missing.

    Raises:
        Skipped: it cannot be made.
    """
    python = _ENVIRONMENT / "bin" / "python"
    done = _ENVIRONMENT / "installed"
    if not done.exists():
        for command in (
            [sys.executable, "-m", "venv", str(_ENVIRONMENT)],
            [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir", *_PACKAGES],
        ):
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise Skipped(
                    f"mem0ai cannot be installed: {(made.stderr or 'no reason given').strip().splitlines()[-1]}"
                )
        done.touch()
    return python


class _Mem0(Peer):
    """mem0 with `infer=False`; the rows are loaded through its vector store, added rows through `Memory.add`."""

    kind = ""

    def load(self) -> None:
        np.save(self.folder / "vectors.npy", self.data.vectors)
        np.save(self.folder / "queries.npy", self.data.queries)
        texts = self.folder / "texts.txt"
        texts.write_text("\n".join(self.data.text(row) for row in range(self.data.rows)))
        (self.folder / "store").mkdir()
        environment = {**os.environ, "MEM0_TELEMETRY": "False", "MEM0_DIR": str(self.folder / "mem0")}
        self._log = self.closing.enter_context((self.folder / "log").open("w"))
        self._worker = subprocess.Popen(
            [_python(), Path(__file__).with_name("mem0_worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
        )  # fmt: skip
        self.closing.callback(self._stop)
        self._send(
            kind=self.kind, dims=DIMS, folder=str(self.folder / "store"), vectors=str(self.folder / "vectors.npy"),
            queries=str(self.folder / "queries.npy"),
        )  # fmt: skip
        self._send(call="load", texts=str(texts), tenants=TENANTS)

    def _send(self, **request: Any) -> dict[str, Any]:
        stdin, stdout = self._worker.stdin, self._worker.stdout
        if stdin is None or stdout is None or self._worker.poll() is not None:
            raise Skipped("the mem0 process has ended")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            last = (self.folder / "log").read_text().strip().splitlines()
            raise Skipped(f"the mem0 process failed: {last[-1] if last else 'no reason given'}")
        return dict(json.loads(line))

    def _stop(self) -> None:
        if self._worker.stdin is not None:
            self._worker.stdin.close()
        self._worker.wait(timeout=60)
        if self._worker.stdout is not None:
            self._worker.stdout.close()

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
