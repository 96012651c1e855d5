"""What the server has of profiles: calls, a tool, and a page on which they are read and set."""

from collections.abc import Iterator
from typing import Any

import pytest
from mcp.shared.memory import create_connected_server_and_client_session
from pydantic import BaseModel, Field
from server_kit import ADDRESS, MOVED, serving
from starlette.testclient import TestClient

from langchain_memlayer import Memory, Scope
from langchain_memlayer.server.mcp_tools import mcp_server
from langchain_memlayer.testing import ScriptedChatModel


class Card(BaseModel):
    city: str | None = Field(None, description="where the user lives")
    languages: list[str] = []
    level: int | None = Field(None, le=5)


def changed(value: str) -> dict[str, Any]:
    return {"changes": [{"field": "city", "action": "set", "value": value, "facts": [1]}]}


@pytest.fixture
def memory() -> Iterator[Memory]:
    """Of Ann, who lived in Paris and moved to Berlin."""
    replies = [MOVED[0], changed("Paris"), MOVED[1], MOVED[2], changed("Berlin <b>")]
    with Memory(":memory:", model=ScriptedChatModel(replies=replies), embeddings=None, profile=Card) as memory:
        for said in ("I live in Paris.", "I moved to Berlin!"):
            memory.add({"role": "user", "name": "Ann", "content": said}, user_id="ann")
        yield memory


@pytest.fixture
def client(memory: Memory) -> Iterator[TestClient]:
    with serving(memory) as clients:
        client = clients()
        client.headers["origin"] = ADDRESS
        yield client


def test_a_profile_is_read_set_and_has_its_history(memory: Memory, client: TestClient) -> None:
    found = client.get("/v1/profile", params={"user_id": "ann"}).json()
    assert found["value"] == {"city": "Berlin <b>", "languages": [], "level": None}
    [fact] = found["fields"]["city"]["facts"]
    assert client.get(f"/v1/memories/{fact}").json()["memory"] == "Ann lives in Berlin"
    given = {"user_id": "ann", "values": {"city": None, "languages": ["Thai"]}}
    assert client.patch("/v1/profile", json=given).json()["value"]["languages"] == ["Thai"]
    history = client.get("/v1/profile/history", params={"user_id": "ann"}).json()
    assert [(row["field"], row["after"]) for row in history] == [
        ("city", "Paris"), ("city", "Berlin <b>"), ("city", None), ("languages", ["Thai"])
    ]  # fmt: skip
    before = client.get("/v1/profile", params={"user_id": "ann", "known_at": history[0]["timestamp"]}).json()
    assert before["value"]["city"] == "Paris"
    refused = client.patch("/v1/profile", json={"user_id": "ann", "values": {"level": 9}})
    assert refused.status_code == 400
    assert "level cannot be set" in refused.json()["detail"]
    assert client.get("/v1/profile").status_code == 400


async def test_a_model_is_shown_the_profile_where_there_is_one(memory: Memory) -> None:
    async with create_connected_server_and_client_session(mcp_server(memory, scope=Scope("ann"))) as session:
        assert "profile" in {tool.name for tool in (await session.list_tools()).tools}
        answer: Any = (await session.call_tool("profile", {})).content[0]
        assert answer.text.startswith("<recalled_memories")
        recalled: Any = (await session.call_tool("recall", {"query": "home"})).content[0]
        assert "- city: Berlin <b>" in recalled.text
        assert "- city: Berlin <b>" in answer.text
    with Memory(":memory:", model=None, embeddings=None) as other:
        async with create_connected_server_and_client_session(mcp_server(other, scope=Scope("ann"))) as session:
            assert "profile" not in {tool.name for tool in (await session.list_tools()).tools}
            assert (await session.call_tool("profile", {})).isError


def test_a_page_shows_the_profile_and_sets_a_field_after_a_question(memory: Memory, client: TestClient) -> None:
    html = client.get("/profile", params={"user_id": "ann"}).text
    fact = memory.profile(user_id="ann").fields["city"]["facts"][0]
    assert "Berlin &lt;b&gt;" in html
    assert "where the user lives" in html
    assert f'href="/memory/{fact}"' in html
    assert "<del>Paris</del>" in html
    assert "Not known yet" in html
    assert 'href="/profile?user_id=ann"' in client.get("/facts", params={"user_id": "ann"}).text
    asked = client.get("/profile/languages", params={"user_id": "ann"}).text
    assert 'action="/profile/languages?user_id=ann"' in asked
    for said, value in (('["Thai"]', ["Thai"]), ("", [])):
        done = client.post("/profile/languages", params={"user_id": "ann"}, data={"text": said})
        assert (done.status_code, done.headers["location"]) == (303, "/profile?user_id=ann&done=profile")
        assert memory.profile(user_id="ann").value.languages == value
    wrong = client.post("/profile/level", params={"user_id": "ann"}, data={"text": "many"})
    assert (wrong.status_code, "level cannot be set" in wrong.text) == (400, True)
    with Memory(":memory:", model=None, embeddings=None) as other, serving(other) as clients:
        assert "/profile?" not in clients().get("/facts", params={"user_id": "ann"}).text
