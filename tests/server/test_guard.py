"""Who is let in, and what is refused before anything reads it."""

import asyncio
import gc
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_kit import ADDRESS, ALICE, OPS, TOKENS, serving
from starlette.testclient import TestClient
from typer.testing import CliRunner

from langchain_memlayer import ConfigurationError, Memory
from langchain_memlayer.cli import app
from langchain_memlayer.server import Tokens, create_app, rest
from langchain_memlayer.server.application import check_exposure, listen

Clients = Callable[..., TestClient]


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory(":memory:", model=None, embeddings=None) as memory:
        memory.add("My locker is number 12.", user_id="alice")
        memory.add("The key is under the mat.", user_id="bob")
        yield memory


@pytest.fixture
def bound(memory: Memory) -> Iterator[Clients]:
    """Clients of a server with tokens."""
    with serving(memory, tokens=TOKENS) as clients:
        yield clients


@pytest.fixture
def open_client(memory: Memory) -> Iterator[TestClient]:
    """A client of a server without tokens."""
    with serving(memory, max_bytes=10_000) as clients:
        yield clients()


def test_without_a_token_nothing_is_served_but_what_is_nobodys(bound: Clients) -> None:
    for token in (None, "guessed-token-000000", ""):
        client = bound(token)
        answer = client.get("/v1/memories", params={"user_id": "alice"})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post("/mcp", json={}).status_code == 401
    assert bound().get("/v1/health").json() == {"status": "ok"}
    assert bound().get("/openapi.json").status_code == 200


def test_a_token_reaches_its_own_ids_only_and_need_not_name_them(bound: Clients, memory: Memory) -> None:
    alice = bound(ALICE)
    assert [row["user_id"] for row in alice.get("/v1/memories").json()["results"]] == ["alice"]
    assert alice.get("/v1/memories", params={"user_id": "bob"}).status_code == 403
    assert alice.post("/v1/search", json={"query": "key", "user_id": "bob"}).status_code == 403
    assert alice.post("/v1/search", json={"query": "key mat"}).json()["results"] == []
    assert [row["user_id"] for row in alice.get("/v1/scopes").json()] == ["alice"]
    assert alice.get("/v1/export").status_code == 403
    theirs = memory.get_all(user_id="bob")["results"][0]["id"]
    for call in ("GET", "PATCH", "DELETE"):
        body = {"json": {"text": "mine"}} if call == "PATCH" else {}
        assert alice.request(call, f"/v1/memories/{theirs}", **body).status_code == 404
    assert alice.post(f"/v1/memories/{theirs}/forget").status_code == 404
    assert alice.get(f"/v1/memories/{theirs}/history").status_code == 404
    assert alice.post("/v1/forget", json={"user_id": "bob"}).status_code == 403
    assert memory.get(theirs) is not None
    assert len(bound(OPS).get("/v1/scopes").json()) == 2


def test_a_token_works_in_the_forks_of_its_own_and_is_as_narrow_there() -> None:
    tutor = "token-of-a-tutor-0003"
    grants = {**TOKENS, tutor: {"user_id": "alice", "agent_id": "tutor"}}
    with Memory(":memory:", model=None, embeddings=None) as memory, serving(memory, tokens=grants) as clients:
        memory.add("The key is under the mat.", user_id="alice", agent_id="tutor")
        memory.add("The safe is behind the stove.", user_id="alice", agent_id="cook")
        memory.add("The dog bites.", user_id="bob")
        alice, narrow = clients(ALICE), clients(tutor)
        trial = alice.post("/v1/forks", json={"name": "trial"}).json()["ids"]
        assert alice.post("/v1/memories", json={"messages": "The key was lost.", **trial}).status_code == 200
        assert len(alice.get("/v1/memories", params=trial).json()["results"]) == 3
        assert len(alice.get("/v1/memories").json()["results"]) == 2
        for client in (alice, narrow):
            theirs = memory.fork("his", user_id="bob").ids
            assert client.post("/v1/search", json={"query": "dog", **theirs}).status_code == 403
        shown = [row["memory"] for row in narrow.get("/v1/memories", params=trial).json()["results"]]
        assert shown == ["The key is under the mat."]
        assert "stove" not in narrow.get("/facts", params=trial).text + narrow.get("/turns", params=trial).text


@pytest.mark.parametrize(
    ("status", "hosts"),
    [
        (421, ["evil.example", "127.0.0.1.evil.example", "localhost.", "", "[::2]:80", "2130706433"]),
        (200, ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"]),
    ],
)
def test_only_a_request_to_a_name_of_ours_is_answered(open_client: TestClient, status: int, hosts: list[str]) -> None:
    for host in hosts:
        assert open_client.get("/v1/scopes", headers={"host": host}).status_code == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://["},
        {"origin": "http://127.0.0.1:9999"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
        {"content-type": "application/x-www-form-urlencoded"},
    ],
)  # fmt: skip
def test_a_page_of_another_site_changes_nothing(
    open_client: TestClient, memory: Memory, headers: dict[str, str]
) -> None:
    body = json.dumps({"user_id": "alice"})
    answer = open_client.post("/v1/forget", content=body, headers={"content-type": "application/json", **headers})
    assert answer.status_code == (415 if "content-type" in headers else 403)
    assert len(memory.get_all(user_id="alice")["results"]) == 1


def test_no_site_may_read_an_answer(open_client: TestClient) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert open_client.options("/v1/forget", headers=asked).status_code == 405
    own = open_client.get("/v1/scopes", headers={"origin": ADDRESS})
    assert own.status_code == 200
    assert not [name for name in own.headers if name.startswith("access-control")]
    assert own.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in own.headers["content-security-policy"]


class Caller:
    """An ASGI caller that counts how much of its body was asked for."""

    def __init__(self, headers: dict[str, str], pieces: Any) -> None:
        named = {"host": "127.0.0.1", "content-type": "application/json", **headers}
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/search", "raw_path": b"/v1/search", "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip
        self.pieces = pieces
        self.read = 0
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        self.read += 1
        return await self.pieces(self.read)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def call(self, app: Any) -> int:
        await app(self.scope, self.receive, self.send)
        return int(self.sent[0]["status"])


async def test_a_body_that_says_it_is_too_long_is_not_read(memory: Memory) -> None:
    caller = Caller({"content-length": "64000000"}, None)
    assert await caller.call(create_app(memory)) == 413
    assert caller.read == 0
    assert (b"connection", b"close") in caller.sent[0]["headers"]


async def test_a_body_that_does_not_say_how_long_it_is_is_read_up_to_the_limit(memory: Memory) -> None:
    async def pieces(number: int) -> Any:
        return {"type": "http.request", "body": b"x" * 4_000, "more_body": True}

    caller = Caller({}, pieces)
    assert await caller.call(create_app(memory, max_bytes=10_000)) == 413
    assert caller.read == 3


async def test_a_body_that_does_not_come_is_not_waited_for(memory: Memory) -> None:
    async def pieces(number: int) -> Any:
        if number == 1:
            return {"type": "http.request", "body": b"{", "more_body": True}
        return await asyncio.get_running_loop().create_future()

    assert await Caller({}, pieces).call(create_app(memory, patience=0.05)) == 408


async def test_a_caller_who_reads_nothing_is_not_waited_for(memory: Memory) -> None:
    async def pieces(number: int) -> Any:
        return {"type": "http.request", "body": b'{"query": "locker", "user_id": "alice"}', "more_body": False}

    caller = Caller({}, pieces)

    async def stuck(message: Any) -> None:
        caller.sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.get_running_loop().create_future()

    caller.send = stuck  # type: ignore[method-assign]
    with pytest.raises(Exception, match=r"^$"):
        await caller.call(create_app(memory, patience=0.05))
    assert [message["type"] for message in caller.sent] == ["http.response.start", "http.response.body"]


async def test_an_export_that_nobody_takes_keeps_no_thread(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(where: Any, out: Any, **given: Any) -> None:
        try:
            while True:
                out.write(b"x" * 100_000)
        finally:
            ended.set()

    async def pieces(number: int) -> Any:
        return {"type": "http.request", "body": b"", "more_body": False} if number == 1 else await asyncio.Future()

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Future()

    monkeypatch.setattr(rest, "export_store", endless)
    caller = Caller({}, pieces)
    caller.scope |= {"method": "GET", "path": "/v1/export"}
    caller.send = stuck  # type: ignore[method-assign]
    gc.disable()
    try:
        with pytest.raises(Exception, match=r"^$") as failure:
            await caller.call(create_app(memory, where="somewhere", patience=0.05))
        assert ended.is_set(), failure
    finally:
        gc.enable()


def test_neither_texts_nor_tokens_nor_ids_are_in_the_logs(
    memory: Memory, bound: Clients, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*args: Any, **given: Any) -> Any:
        raise RuntimeError("locker 12 of alice")

    with caplog.at_level(logging.DEBUG):
        client = bound(ALICE)
        client.get("/v1/memories", params={"filters": '{"role": "locker"}'})
        bound("wrong-token-12345678").get("/v1/memories")
        monkeypatch.setattr(memory, "asearch", broken)
        answer = client.post("/v1/search", json={"query": "locker"})
    assert (answer.status_code, "locker" in answer.text) == (500, False)
    own = [record.getMessage() for record in caplog.records if record.name == "langchain_memlayer.server"]
    assert any("RuntimeError" in line for line in own)
    assert any(line.startswith("GET '/v1/memories' 200") for line in own)
    for secret in ("locker", ALICE, "wrong-token", "alice"):
        assert secret not in "\n".join(own)


def test_tokens_are_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps(TOKENS))
    assert Tokens.read(file).grant(ALICE) is not None
    assert not Tokens.read()
    digest = "sha256:89a1a9d2f0a1a4b1e2d46f4b1a5b6f2f8a4e4d8e3b4b2f0d9c8e7f6a5b4c3d2e"
    monkeypatch.setenv("MEMLAYER_TOKENS", json.dumps({digest: {"agent_id": "a"}}))
    assert Tokens.read()
    assert Tokens.read().grant(digest) is None


@pytest.mark.parametrize(
    "given",
    [
        "no json", "[]", "{}", '{"short": "*"}', '{"token-with-nobody-1": {}}', '{"token-with-nobody-1": null}',
        '{"token-with-a-typo-1": {"user": "alice"}}', '{"token-with-blank-id1": {"user_id": " "}}',
        '{"token with spaces in it": "*"}', '{"sha256:short": "*"}',
    ],
)  # fmt: skip
def test_tokens_that_cannot_be_meant_are_refused_and_not_shown(tmp_path: Path, given: str) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(given)
    with pytest.raises(ConfigurationError) as error:
        Tokens.read(file)
    assert not any(word in str(error.value) for word in ("short", "with-", "with spaces"))


def test_without_tokens_only_the_loopback_may_be_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tokens"):
        check_exposure("0.0.0.0", Tokens())
    with pytest.raises(ConfigurationError, match="tokens"):
        check_exposure("memory.example", Tokens())
    check_exposure("0.0.0.0", Tokens(TOKENS))
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        check_exposure(host, Tokens())


def test_an_address_that_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*args: Any, **given: Any) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("socket.create_server", taken)
    with pytest.raises(ConfigurationError, match="--port"):
        listen("127.0.0.1", 80)


def test_the_command_line_refuses_what_cannot_be_served(tmp_path: Path) -> None:
    def run(*args: str) -> str:
        result = CliRunner().invoke(app, ["--path", str(tmp_path / "store"), "--model", "none", *args])
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "--tokens" in run("serve", "--host", "0.0.0.0")
    assert "cannot be read" in run("serve", "--tokens", str(tmp_path / "none.json"))
    assert "--user" in run("mcp")
    assert not (tmp_path / "store").exists()
