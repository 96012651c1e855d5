"""The server's one application, and how it is run."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from langchain_memlayer.errors import ConfigurationError, MemLayerError
from langchain_memlayer.server import inspector, openapi, rest
from langchain_memlayer.server.access import VARIABLE, Tokens
from langchain_memlayer.server.guard import LOOPBACK, Guard, is_api, problem
from langchain_memlayer.server.mcp_tools import OverHTTP, mcp_server

if TYPE_CHECKING:
    from langchain_memlayer.memory import Memory

MAX_BYTES: Final = 4_000_000
PATIENCE: Final = 30.0
_MOST_AT_ONCE: Final = 256


def create_app(
    memory: Memory,
    *,
    where: Path | str | None = None,
    runs: Path | None = None,
    tokens: Tokens | None = None,
    hosts: Collection[str] = (),
    ids_from_model: bool = False,
    max_bytes: int = MAX_BYTES,
    patience: float = PATIENCE,
) -> Starlette:
    """REST, MCP and the inspector over one memory, as an ASGI application.

    Args:
        memory: The memory; it is not closed with the application.
        where: The folder or connection string that it was opened with, for exports; None means its folder.
        runs: A folder of evaluation runs for the inspector, as `memlayer eval --json` writes them.
        tokens: Who may call. Without any, everybody who reaches the address may see and change all.
        hosts: The names, beside those of the loopback, that requests may be addressed to.
        ids_from_model: Let the models that call MCP's tools name ids, where no token and no address says them.
        max_bytes: The longest body of a request.
        patience: How many seconds a body may take to arrive, and a piece of an answer to be sent.
    """
    tokens = Tokens() if tokens is None else tokens
    guard = Middleware(Guard, tokens=tokens, hosts={*LOOPBACK, *hosts}, max_bytes=max_bytes, patience=patience)
    mcp = OverHTTP(mcp_server(memory, ids_from_model=ids_from_model), max_bytes=max_bytes)
    app = Starlette(
        routes=[
            Route("/openapi.json", _document),
            Route("/mcp", mcp, methods=["POST"]),
            *rest.routes(),
            *inspector.routes(),
        ],
        middleware=[guard],
        exception_handlers={HTTPException: _refused, MemLayerError: _failed},
        lifespan=_lifespan,
    )
    app.state.memory = memory
    app.state.mcp = mcp
    app.state.where = memory.path if where is None else where
    app.state.tokens = tokens
    app.state.runs = runs
    return app


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with app.state.mcp.manager().run():
        yield


async def _document(request: Request) -> Response:
    return JSONResponse(openapi.document())


async def _refused(request: Request, error: Any) -> Response:
    return _error_response(request, error.status_code, error.detail, error.headers)


async def _failed(request: Request, error: Any) -> Response:
    return _error_response(request, rest.status_of(error), str(error))


def _error_response(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error for who asked: a problem for programs, a page for people."""
    if is_api(request.url.path):
        return problem(status, detail, headers)
    return inspector.error_page(request, status, detail)


# -- running it --------------------------------------------------------------------------------------------------------


class _Impatient(H11Protocol):
    """HTTP/1.1 that closes a connection whose request does not begin in time: uvicorn itself waits for ever."""

    patience = PATIENCE
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait(self) -> None:
        """Wait while there is half a request; once it has begun, the guard's patience is what counts."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.patience, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tokens: Tokens) -> None:
    """`ConfigurationError` where others could reach memories without a token."""
    if not tokens and not is_loopback(host):
        raise ConfigurationError(
            f"Without tokens only this computer is served, and {host} is reached from others: set {VARIABLE}, or give "
            "--tokens FILE."
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"Nobody can listen at {host}, port {port} ({error.strerror or error}); give another --port or --host."
        ) from error


def run(app: Starlette, listener: socket.socket, *, patience: float = PATIENCE) -> None:
    """Serve until Ctrl-C or SIGTERM; `patience` is how many seconds a request may take to begin."""
    config = uvicorn.Config(
        app,
        http=type("Impatient", (_Impatient,), {"patience": patience}),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MOST_AT_ONCE,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=10,
    )
    # Uvicorn ends well at either signal and raises it again, which must not keep the memory from being closed.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)
