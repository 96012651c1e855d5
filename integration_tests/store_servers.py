"""Servers of vector stores, as processes of their own: Chroma's, and that of Milvus Lite."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from integration_tests.json_server import HOST

_POLLS, _POLL_SECONDS = 600, 0.05


@dataclass
class StoreServer:
    """A server that runs."""

    port: int
    process: subprocess.Popen[bytes]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it take connections, and answer nothing until the block ends."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind((HOST, 0))
        port: int = one.getsockname()[1]
        return port


def let_clients_close() -> None:
    """Have a client of Chroma that is closed close its connections too, which it forgets."""
    from chromadb.api.fastapi import FastAPI

    def stop(self: FastAPI) -> None:
        self._session.close()

    FastAPI.stop = stop  # type: ignore[method-assign]


@contextmanager
def chroma(folder: Path, port: int | None = None) -> Iterator[StoreServer]:
    """A Chroma server over a folder; it runs until the block ends."""
    let_clients_close()
    port = port or free_port()
    with _process("chroma", "run", "--host", HOST, "--port", str(port), "--path", str(folder)) as process:
        _wait(process, lambda: urllib.request.urlopen(f"http://{HOST}:{port}/api/v2/heartbeat").close())
        yield StoreServer(port, process)


@contextmanager
def milvus(folder: Path, port: int | None = None) -> Iterator[StoreServer]:
    """A Milvus Lite server over a folder; it runs until the block ends."""
    port = port or free_port()
    with _process("milvus-lite", "server", "--data-dir", str(folder), "--host", HOST, "--port", str(port)) as process:
        _wait(process, lambda: socket.create_connection((HOST, port)).close())
        yield StoreServer(port, process)


@contextmanager
def _process(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    environment = {**os.environ, "ANONYMIZED_TELEMETRY": "False"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], ask: Callable[[], None]) -> None:
    for _ in range(_POLLS):
        assert process.poll() is None, "the server ended while it started"
        try:
            return ask()
        except OSError:
            time.sleep(_POLL_SECONDS)
    raise TimeoutError("the server does not answer")
