"""The cookbook's application on LangGraph's agent server: started by `langgraph dev`, driven over HTTP, restarted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph_sdk import get_sync_client
from langgraph_sdk.errors import BadRequestError

from integration_tests.conftest import Loopback
from integration_tests.json_server import HOST, JSONMixIn, running
from integration_tests.postgres_server import schema
from langchain_memlayer import Memory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.allow_hosts([HOST]),
    pytest.mark.skipif(
        importlib.util.find_spec("langgraph_cli") is None or importlib.util.find_spec("langgraph_api") is None,
        reason="langgraph-cli[inmem] is not installed",
    ),
]

APPLICATION = Path(__file__).parent.parent / "cookbook" / "agent_server"
PATIENCE = 90.0

# The server finds blocking calls of Python's own modules, SQLite's among them, but not those of a driver in C.
WATCH = """
import asyncio
import psycopg

def watched(call):
    def guard(*args, **kwargs):
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("a call of psycopg holds up an event loop")
        return call(*args, **kwargs)
    return guard

psycopg.Connection.wait = watched(psycopg.Connection.wait)
psycopg.Connection.connect = classmethod(watched(psycopg.Connection.connect.__func__))
"""

AUTH = """
from langgraph_sdk import Auth

auth = Auth()

@auth.authenticate
async def authenticate(authorization: str | None) -> str:
    return authorization.removeprefix("Bearer ")
"""

BLOCKING = """
import time
from typing import TypedDict
from langgraph.graph import START, StateGraph

class State(TypedDict):
    text: str

async def sleep(state: State):
    time.sleep(0.001)

graph = StateGraph(State).add_node(sleep).add_edge(START, "sleep").compile()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the memory is: a folder, or a schema of its own."""
    if request.param == "sqlite":
        yield str(tmp_path / "memories")
        return
    postgres, name = request.getfixturevalue("postgres"), f"agent_server_{os.getpid()}"
    yield schema(postgres, name)
    with psycopg.connect(postgres, autocommit=True) as db:
        db.execute(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


@pytest.fixture
def outside() -> Iterator[tuple[str, list[str]]]:
    """A proxy that gives nothing, and what it was asked for."""
    asked: list[str] = []

    class Handler(JSONMixIn, BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send(502, b"")

        def do_GET(self) -> None:
            self.do_CONNECT()

        def do_POST(self) -> None:
            self.do_CONNECT()

    with running(ThreadingHTTPServer((HOST, 0), Handler)) as url:
        yield url, asked


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A copy of the application, for the server writes into its folder."""
    left_over = shutil.ignore_patterns(".env", ".langgraph_api", "memories", "__pycache__")
    folder = shutil.copytree(APPLICATION, tmp_path / "application", ignore=left_over)
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    return folder


def change(folder: Path, **changed: Any) -> None:
    """Set keys of an application's langgraph.json."""
    file = folder / "langgraph.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@contextmanager
def serving(folder: Path, proxy: str, **env: str) -> Iterator[str]:
    """The address of a server that runs until the block ends, with these lines in its `.env` and else a bare one."""
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    url, log = f"http://{HOST}:{port}", folder.parent / "log"
    bare = {
        "HOME": str(folder.parent),
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGGRAPH_NO_VERSION_CHECK": "true",
        "LANGSMITH_TRACING": "false",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(folder.parent / "watch"),
        "http_proxy": proxy,
        "https_proxy": proxy,
        "no_proxy": HOST,
    }
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--host", HOST]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=bare, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until = time.monotonic() + PATIENCE
        while not _answers(f"{url}/ok"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield url
        process.terminate()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        print(log.read_text())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as response:
            return bool(response.status == 200)
    except urllib.error.URLError:
        return False


def follow_readme(url: str) -> tuple[dict[str, Any], list[str]]:
    """Run what the README tells the user to run; gives its names, and what it says will be printed."""
    [code] = re.findall(r"```python\n(.+?)```", (APPLICATION / "README.md").read_text("utf-8"), re.DOTALL)
    assert code.count("http://127.0.0.1:2024") == 1
    names: dict[str, Any] = {}
    exec(compile(code.replace("http://127.0.0.1:2024", url), "README", "exec"), names)
    return names, re.findall(r"^print\(.+\)  # (.+)$", code, re.MULTILINE)


def tell(client: Any, thread: str, text: str, **given: Any) -> Any:
    """The state of a thread after the user has said something in it."""
    return client.runs.wait(thread, "agent", input={"messages": [{"role": "user", "content": text}]}, **given)


def said(state: Any) -> list[str]:
    return [message["content"] for message in state["messages"]]


def test_what_one_thread_learns_the_others_of_the_user_recall_and_a_server_that_comes_later_too(
    home: str, application: Path, outside: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    proxy, asked = outside
    with serving(application, proxy, MEMLAYER_HOME=home) as url:
        names, promised = follow_readme(url)
        assert capsys.readouterr().out.splitlines() == promised
        assert promised == ["You moved to Lisbon.", "I know nothing of that."]
        with names["client"] as client:
            thread = client.threads.create()["thread_id"]
            told = tell(client, thread, "I adopted a cat.", context={"user_id": "ann"})
            assert [(one["event"], one["memory"]) for one in told["memory_decisions"]] == [
                ("ADD", "User adopted a cat")
            ]
            assert "moved to Lisbon" in told["memory_context"]
            # A second question in one thread is rewritten, and what the inner calls say stays out of the stream.
            parts = client.runs.stream(
                thread,
                "agent",
                input={"messages": [{"role": "user", "content": "Which cat?"}]},
                config={"configurable": {"user_id": "ann"}},
                stream_mode="messages-tuple",
            )
            streamed = [part.data[0]["content"] for part in parts if part.event == "messages"]
            answer = said(client.threads.get_state(thread)["values"])[-1]
            assert "".join(streamed) == answer
            assert len(streamed) > 3
            assert sorted(answer[4:-1].split(" and ")) == ["adopted a cat", "moved to Lisbon"]
            with_store(client)
    assert not list(application.parent.glob("memories/*-wal")), "the journal was closed"

    change(application, auth={"path": "./auth.py:auth"})
    (application / "auth.py").write_text(AUTH)
    with serving(application, proxy, MEMLAYER_HOME=home) as url:
        for user, known in {"ann": True, "ben": False}.items():
            with get_sync_client(url=url, api_key=None, headers={"Authorization": f"Bearer {user}"}) as client:
                thread = client.threads.create()["thread_id"]
                told = tell(client, thread, "Where do I live with my cat?")
                assert ["moved to Lisbon" in told["memory_context"], "adopted a cat" in said(told)[-1]] == [known] * 2
                assert client.store.get_item(["notes", "ann"], "keys")["value"] == KEYS
                # Who has signed in cannot speak as somebody else.
                failed = tell(client, thread, "Hello.", context={"user_id": "eve"}, raise_error=False)["__error__"]
                assert failed["error"] == "ScopeRequired"
                assert f"'eve' by '{user}'" in failed["message"]
    assert asked == [], "nothing was asked of anything outside"

    with Memory(home if "://" in home else f"{home}/default", model=None) as memory:
        found = {user: memory.get_all(user_id=user, kinds=["fact"])["results"] for user in ("ann", "ben")}
        assert {row["memory"] for row in found["ann"]} == {"User moved to Lisbon", "User adopted a cat"}
        assert found["ben"] == []
        assert memory.store.get(("notes", "ann"), "keys").value == KEYS


KEYS = {"text": "The red key opens the paint store.", "number": 7}


def with_store(client: Any) -> None:
    """The server's store over HTTP: items beside the memories, which it does not show."""
    store = client.store
    assert store.list_namespaces()["namespaces"] == []
    store.put_item(["notes", "ann"], "keys", KEYS)
    store.put_item(["notes", "ann"], "tea", {"text": "Green tea is in the tin.", "number": 12})
    store.put_item(["notes", "ben"], "tea", {"text": "Black tea is in the box.", "number": 3}, index=False)
    store.put_item(["drafts"], "soon", {"text": "A draft."}, ttl=60)
    store.put_item(["drafts"], "now", {"text": "A draft."}, ttl=1e-6)
    with pytest.raises(BadRequestError, match="ttl must be a positive number"):
        store.put_item(["drafts"], "never", {"text": "A draft."}, ttl=0)

    item = store.get_item(["notes", "ann"], "keys")
    assert (item["namespace"], item["key"], item["value"]) == (["notes", "ann"], "keys", KEYS)
    found = store.search_items(["notes"], query="Which key is for the paint?")["items"]
    assert [hit["key"] for hit in found] == ["keys", "tea", "tea"]
    assert found[0]["score"] > found[1]["score"]
    assert found[2]["score"] is None
    found = store.search_items(["notes"], filter={"number": {"$gt": 3}})["items"]
    assert {(*hit["namespace"], hit["key"]) for hit in found} == {("notes", "ann", "keys"), ("notes", "ann", "tea")}
    assert len(store.search_items([], limit=2, offset=3)["items"]) == 1
    assert store.get_item(["drafts"], "now") is None

    assert store.list_namespaces()["namespaces"] == [["drafts"], ["notes", "ann"], ["notes", "ben"]]
    assert store.list_namespaces(prefix=["notes"], max_depth=1)["namespaces"] == [["notes"]]
    store.delete_item(["notes", "ann"], "tea")
    assert store.get_item(["notes", "ann"], "tea") is None


def test_it_runs_with_a_key_and_says_what_is_missing_and_blocks_no_event_loop(
    loopback: Loopback, application: Path, tmp_path: Path, outside: tuple[str, list[str]]
) -> None:
    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if "response_format" not in body:
            return {"content": "Noted."}
        fact = {"turn": 1, "quote": "I moved to Lisbon", "fact": "User moved to Lisbon", "subject": "User"}
        return {"content": json.dumps({"facts": [{**fact, "valid_at": "", "retract": False, "triples": []}]})}

    loopback.message = reply
    proxy, asked = outside
    home = str(tmp_path / "memories")
    change(application, graphs={"agent": "./app.py:graph", "blocking": "./blocking.py:graph"})
    (application / "blocking.py").write_text(BLOCKING)
    with (
        serving(application, proxy, MEMLAYER_HOME=home, OPENAI_API_KEY="key-7", OPENAI_BASE_URL=loopback.url) as url,
        get_sync_client(url=url, api_key=None) as client,
    ):
        thread = client.threads.create()["thread_id"]
        told = tell(client, thread, "I moved to Lisbon.", context={"user_id": "ann"})
        assert said(told) == ["I moved to Lisbon.", "Noted."]
        assert [(one["event"], one["memory"]) for one in told["memory_decisions"]] == [("ADD", "User moved to Lisbon")]
        client.store.put_item(["notes"], "keys", KEYS)
        assert [hit["key"] for hit in client.store.search_items(["notes"], query="key")["items"]] == ["keys"]
        failed = tell(client, thread, "Where do I live?", raise_error=False)["__error__"]
        assert failed["error"] == "ScopeRequired"
        assert 'context={"user_id": ...}' in failed["message"]
        # The server does look for what blocks.
        failed = client.runs.wait(None, "blocking", input={"text": ""}, raise_error=False)["__error__"]
        assert failed["error"] == "BlockingError"
    assert asked == []
    assert {one.authorization for one in loopback.asked} == {"Bearer key-7"}
    assert loopback.of("/embeddings")
