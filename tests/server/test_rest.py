"""The REST calls: what they do, and that their description is true."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_kit import serving, told
from starlette.testclient import TestClient

from langchain_memlayer import Memory
from langchain_memlayer.engine import lookup
from langchain_memlayer.moving import import_store
from langchain_memlayer.server.rest import OPERATIONS
from langchain_memlayer.testing import ScriptedChatModel


@pytest.fixture
def client() -> Iterator[TestClient]:
    with Memory(":memory:", model=None, embeddings=None) as memory, serving(memory) as clients:
        yield clients()


def added(client: TestClient, text: str, **more: Any) -> str:
    answer = client.post("/v1/memories", json={"messages": text, "user_id": "alice", **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["results"][0]["id"])


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_memory_is_added_found_changed_and_ended(client: TestClient) -> None:
    one = added(client, "My locker is number 12.", metadata={"place": "gym"})
    found = client.post("/v1/search", json={"query": "locker", "user_id": "alice", "explain": True}).json()["results"]
    assert [hit["id"] for hit in found] == [one]
    assert found[0]["explanation"]
    assert client.patch(f"/v1/memories/{one}", json={"text": "My locker is number 13."}).status_code == 200
    assert client.get(f"/v1/memories/{one}").json()["memory"] == "My locker is number 13."
    assert [row["event"] for row in client.get(f"/v1/memories/{one}/history").json()] == ["ADD", "UPDATE"]
    assert client.get(f"/v1/memories/{one}/why").json()["id"] == one
    kept = client.get("/v1/memories", params={"user_id": "alice", "filters": '{"place": "gym"}'}).json()["results"]
    assert [row["id"] for row in kept] == [one]
    assert client.delete(f"/v1/memories/{one}").status_code == 200
    assert client.get(f"/v1/memories/{one}").status_code == 404
    assert client.post(f"/v1/memories/{one}/forget").json()["count"] == 2
    assert client.get(f"/v1/memories/{one}/history").json()[0]["new_value"] is None


def test_whole_scopes_are_listed_ended_and_forgotten(client: TestClient) -> None:
    for text in ("One boat.", "Two boats.", "Three boats."):
        added(client, text)
    assert client.get("/v1/scopes").json()[0]["turns"] == 3
    page = client.get("/v1/memories", params={"user_id": "alice", "limit": 2, "offset": 1}).json()["results"]
    assert [row["memory"] for row in page] == ["Two boats.", "Three boats."]
    assert client.delete("/v1/memories", params={"user_id": "alice"}).json()["count"] == 3
    assert client.post("/v1/forget", json={"user_id": "alice"}).json()["count"] == 3
    assert client.get("/v1/scopes").json() == []


def test_lists_come_as_lines_too_and_skip_nothing_where_others_end_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "PAGE", 2)
    own = lookup._listed
    with Memory(":memory:", model=None, embeddings=None) as memory, serving(memory) as clients:

        def ending(*args: Any, **given: Any) -> Any:
            rows = own(*args, **given)
            for row in rows:
                memory.delete(row.key)
            return rows

        monkeypatch.setattr(lookup, "_listed", ending)
        texts = [f"Boat number {number} is red." for number in range(5)]
        added(clients(), texts)
        headers = {"accept": "application/x-ndjson"}
        answer = clients().get("/v1/memories", params={"user_id": "alice"}, headers=headers)
        assert answer.headers["content-type"] == "application/x-ndjson"
        assert [row["memory"] for row in lines(answer.text)] == texts


def test_a_number_of_more_than_64_bits_is_told_as_it_is() -> None:
    with Memory(":memory:", model=None, embeddings=None) as memory, serving(memory) as clients:
        memory.add("The sky is big.", user_id="alice", metadata={"stars": 10**24})
        for accepted in ("application/json", "application/x-ndjson"):
            told = clients().get("/v1/memories", params={"user_id": "alice"}, headers={"accept": accepted})
            assert '"stars": 1000000000000000000000000' in told.text


def test_what_happened_is_taken_back_and_forks_are_made_merged_and_dropped(client: TestClient) -> None:
    one = added(client, "My locker is number 12.", batch_id="b")
    made = client.post("/v1/forks", json={"user_id": "alice", "name": "trial"}).json()
    assert client.get("/v1/forks", params={"user_id": "alice"}).json() == [made]
    client.post("/v1/memories", json={"messages": "The key is under the mat.", **made["ids"]})
    assert len(client.get("/v1/memories", params=made["ids"]).json()["results"]) == 2
    assert len(client.get("/v1/memories", params={"user_id": "alice"}).json()["results"]) == 1
    done = client.post("/v1/forks/merge", json={"user_id": "alice", "name": "trial"}).json()
    assert [row["event"] for row in done["results"]] == ["ADD"]
    assert client.post("/v1/forks/merge", json={"user_id": "alice", "name": "trial"}).status_code == 400
    client.post("/v1/undo", json={"user_id": "alice", "batch_id": done["batch_id"]})
    client.post("/v1/undo", json={"event_id": client.get(f"/v1/memories/{one}/history").json()[0]["id"]})
    assert client.get("/v1/memories", params={"user_id": "alice"}).json()["results"] == []
    client.post("/v1/forks", json={"user_id": "alice", "name": "other"})
    assert client.delete("/v1/forks", params={"user_id": "alice", "name": "other"}).status_code == 200
    assert client.get("/v1/forks").json() == []


def test_what_was_not_read_is_told_and_read_with_progress() -> None:
    replies = [TimeoutError("down"), TimeoutError("down"), {"facts": []}]
    with (
        Memory(":memory:", model=ScriptedChatModel(replies=replies), embeddings=None) as memory,
        serving(memory) as clients,
    ):
        client = clients()
        answer = client.post("/v1/memories", json={"messages": "I have a cat.", "user_id": "ann"})
        assert (answer.status_code, answer.headers["content-type"]) == (502, "application/problem+json")
        assert client.get("/v1/unread", params={"user_id": "ann"}).json()[0]["turns"][0]["memory"] == "I have a cat."
        headers = {"accept": "application/x-ndjson"}
        rows = lines(client.post("/v1/read", json={"user_id": "ann", "retry": True}, headers=headers).text)
        while "error" in rows[-1]:  # the second of the model's failures
            rows = lines(client.post("/v1/read", json={"user_id": "ann", "retry": True}, headers=headers).text)
        assert rows[-2:] == [{"done": 1, "total": 1}, {"result": {**rows[-1]["result"], "unread": []}}]
        assert client.get("/v1/unread", params={"user_id": "ann"}).json() == []


def test_a_changed_fact_has_its_reasons_its_place_in_the_graph_and_in_what_changed() -> None:
    with told() as memory, serving(memory) as clients:
        client = clients()
        (hit,) = client.get("/v1/memories", params={"user_id": "ann"}).json()["results"]
        assert client.get(f"/v1/memories/{hit['id']}/why").json()["sources"][0]["quote"] == "I moved to Berlin"
        graph = client.get("/v1/graph", params={"user_id": "ann"}).json()
        assert [(edge["source"], edge["relation"], edge["destination"]) for edge in graph["edges"]] == [
            ("Ann", "lives_in", "Berlin")
        ]
        assert {node["name"] for node in graph["nodes"]} == {"Ann", "Berlin"}
        first = memory.history(hit["id"])[0]["timestamp"]
        found = client.get("/v1/diff", params={"user_id": "ann", "since": first, "kinds": "fact"}).json()
        changes = [(one["before"]["memory"], one["after"]["memory"]) for one in found["changed"]]
        assert changes == [("Ann lives in Paris", "Ann lives in Berlin")]


def test_an_export_is_the_store_and_can_be_imported(tmp_path: Path) -> None:
    with told(tmp_path / "one") as memory, serving(memory) as clients:
        whole = clients().get("/v1/export")
        assert whole.status_code == 200
    (tmp_path / "export.jsonl").write_bytes(whole.content)
    import_store(tmp_path / "export.jsonl", tmp_path / "two")
    with Memory(tmp_path / "two", model=None, embeddings=None) as copy:
        assert [row["memory"] for row in copy.get_all(user_id="ann")["results"]] == ["Ann lives in Berlin"]
    with told() as memory, serving(memory) as clients:
        assert clients().get("/v1/export").status_code == 409  # there is no file


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        (("GET", "/v1/memories"), 400, "user_id"),
        (("GET", "/v1/memories?user_id=a&limit=100000"), 422, "limit"),
        (("GET", "/v1/memories?user_id=a&filters=nonsense"), 422, "filters"),
        (("GET", "/v1/memories?user_id=a&colour=red"), 422, "colour"),
        (("POST", "/v1/search", {"query": " ", "user_id": "a"}), 400, "query"),
        (("POST", "/v1/search", {"query": "x " * 6_000, "user_id": "a"}), 422, "10000"),
        (("POST", "/v1/search", {"query": "x", "user_id": "a", "as_of": "yesterday"}), 400, "as_of"),
        (("POST", "/v1/search", {"query": "x", "user_id": "a", "filters": {"a": {"$no": 1}}}), 400, "$no"),
        (("POST", "/v1/search", ["x"]), 422, "/openapi.json"),
        (("POST", "/v1/read", {"user_id": "a"}), 409, "model"),
        (("POST", "/v1/memories", {"user_id": "a\u0000", "messages": "x"}), 400, "user_id"),
        (("PATCH", "/v1/memories/none", {"text": "x"}), 404, "none"),
        (("GET", "/v1/memories/none/why"), 404, "none"),
        (("GET", "/v1/nothing"), 404, "Not Found"),
        (("PUT", "/v1/memories"), 405, "/openapi.json"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_a_problem_that_says_what_to_do(
    client: TestClient, call: tuple[Any, ...], status: int, says: str
) -> None:
    method, path, *body = call
    answer = client.request(method, path, **({"json": body[0]} if body else {}))
    shown = answer.json()
    assert (answer.status_code, shown["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in shown["detail"]


def test_a_body_that_is_no_json_is_refused_without_being_shown(client: TestClient) -> None:
    sent = client.post("/v1/search", content=b'{"query": "secret', headers={"content-type": "application/json"})
    assert (sent.status_code, "secret" in sent.text) == (400, False)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):  # the latter is what curl -d sends
        sent = client.post("/v1/search", content=b"{}", headers={"content-type": kind})
        assert (sent.status_code, "Content-Type: application/json" in sent.text) == (415, True)


def test_the_document_has_every_call_and_the_methods_take_what_it_promises(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    served = {(method.upper(), path) for path, found in document["paths"].items() for method in found}
    assert served == {(one.method, one.path) for one in OPERATIONS}
    refs = {text for text in json.dumps(document).split('"') if text.startswith("#/components/schemas/")}
    assert refs
    assert {ref.rpartition("/")[2] for ref in refs} <= document["components"]["schemas"].keys()
    for one in OPERATIONS:
        method = one.takes.__name__.lower().replace("listing", "get_all")
        if method in ("add", "search", "get_all", "update", "scopes", "diff"):
            assert one.takes.model_fields.keys() <= inspect.signature(getattr(Memory, method)).parameters.keys()
