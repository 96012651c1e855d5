"""What every request passes before anything reads it: host, origin, token, size, patience; and what leaves with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from langchain_memlayer.server.access import Grant, Tokens

logger = logging.getLogger("langchain_memlayer.server")

COOKIE: Final = "memlayer"
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN: Final = ("/v1/health", "/openapi.json", "/login", "/static/")
_API: Final = ("/v1/", "/mcp", "/openapi.json")
_SAFE: Final = frozenset({"GET", "HEAD"})
_METHODS: Final = frozenset({*_SAFE, "POST", "PATCH", "DELETE"})
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # With none at all, a browser says of its own forms that they come from nowhere.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class StreamBroken(Exception):
    """An answer that had begun cannot be finished: the connection is closed. It says nothing of why."""


class Refused(Exception):
    """A request that goes no further: with which HTTP status, and what to do instead."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as RFC 9457 has it."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def is_api(path: str) -> bool:
    """Whether a path is for programs, which want problems and not pages."""
    return path.startswith(_API)


class Guard:
    """The outermost layer of the application.

    Args:
        app: What is guarded.
        tokens: Who may come; where there are none, everybody who reaches the address.
        hosts: The names, without ports, that a request may be addressed to: others were rebound by DNS.
        max_bytes: The longest body.
        patience: How many seconds a body may take to come, and a piece of an answer to go.
    """

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens, hosts: Collection[str], max_bytes: int, patience: float
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_bytes = max_bytes
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        began, sent = time.monotonic(), _Sent(send, self._patience)
        try:
            headers = Headers(scope=scope)
            self._check_address(scope, headers)
            grant = self._grant(scope, headers)
            if grant is None:
                await self._ask_for_token(scope)(scope, receive, sent)
            else:
                scope.setdefault("state", {})["grant"] = grant
                await self._app(scope, await self._read(headers, receive), sent)
        except Refused as error:
            # What was not read is not waited for.
            await problem(error.status, error.detail, {"connection": "close"})(scope, receive, sent)
        except Exception as error:  # noqa: BLE001 - the outermost one: what it says may have texts, so its kind is told
            logger.error("%s %.200r failed: %s", scope["method"], scope["path"], type(error).__name__)  # noqa: TRY400
            if sent.status is not None:
                raise StreamBroken from None
            detail = "The server failed; its log names the kind of the error."
            await problem(500, detail, {"connection": "close"})(scope, receive, sent)
        finally:
            took = 1000 * (time.monotonic() - began)
            logger.info("%s %.200r %s %.0f ms", scope["method"], scope["path"], sent.status, took)

    def _check_address(self, scope: Scope, headers: Headers) -> None:
        method, host, origin = scope["method"], headers.get("host", ""), headers.get("origin")
        if method not in _METHODS:
            raise Refused(405, "Use GET, POST, PATCH or DELETE; /openapi.json says which.")
        if _name(host) not in self._hosts:
            raise Refused(421, "This server does not go by that name; --allow-host adds one.")
        if origin is not None and _netloc(origin) != host.lower():
            raise Refused(403, "The request comes from a page of another site.")
        if method in _SAFE:
            return
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none"):
            raise Refused(403, "The request comes from a page of another site.")
        is_form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
        if origin is None and site is None and is_form and is_api(scope["path"]):
            raise Refused(
                415, "Send JSON, with the header 'Content-Type: application/json': this says that it is a form."
            )
        if origin is None and site is None and not is_api(scope["path"]):
            raise Refused(403, "A form is sent by a browser that says which page it is from; programs use /v1/.")

    def _grant(self, scope: Scope, headers: Headers) -> Grant | None:
        """What the caller may reach; None when a token is needed."""
        if not self._tokens:
            return Grant()
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._tokens.grant(token.strip())
        if (session := session_of(headers)) and (grant := self._tokens.session(session)):
            return grant
        # Nothing there is anybody's; what would be is asked for with this grant, which reaches nobody's memories.
        return Grant() if scope["path"].startswith(_OPEN) else None

    def _ask_for_token(self, scope: Scope) -> ASGIApp:
        if is_api(scope["path"]):
            detail = "Send the header 'Authorization: Bearer TOKEN' with a token of this server."
            return problem(401, detail, {"www-authenticate": "Bearer", "connection": "close"})
        return RedirectResponse("/login", 303)

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """The whole body, which is short and in time, to be received by the application."""
        said = headers.get("content-length", "0")
        if not said.isdecimal() or int(said) > self._max_bytes:
            raise Refused(413, f"The body may have {self._max_bytes:,} bytes; send the messages in several calls.")
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._patience):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _replay(message, receive)
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._max_bytes:
                        raise Refused(413, f"The body may have {self._max_bytes:,} bytes; send several calls.")
        except TimeoutError as error:
            raise Refused(408, f"The body did not come within {self._patience:g} seconds.") from error
        return _replay({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _name(host: str) -> str:
    """The name of a Host header, without its port."""
    name, _, _ = host[1:].partition("]") if host.startswith("[") else host.partition(":")
    return name.lower()


def _netloc(origin: str) -> str:
    """The host and port of an Origin header; none for one that cannot be read."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def session_of(headers: Headers) -> str | None:
    """The session's secret that a browser sent."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if cookie is None else cookie.value


def _replay(first: Message, receive: Receive) -> Receive:
    waiting = [first]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


class _Sent:
    """What goes out: with the headers of all answers, and in time."""

    def __init__(self, send: Send, patience: float) -> None:
        self._send = send
        self._patience = patience
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: Any = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        async with asyncio.timeout(self._patience):
            await self._send(message)
