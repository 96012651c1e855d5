"""The pages of the inspector: what they show, what they change, and that nothing in a memory is more than text."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from server_kit import ADDRESS, ALICE, MOVED, OPS, TOKENS, fact, serving, told
from starlette.testclient import TestClient

import langchain_memlayer.server
from langchain_memlayer import Memory
from langchain_memlayer.server import languages
from langchain_memlayer.testing import FrozenClock, ScriptedChatModel

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }} javascript:alert(3)"
TEMPLATES = Path(langchain_memlayer.server.__file__).parent / "templates"


class _Elements(HTMLParser):
    """The elements of a page, their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        self.text += text

    def all(self, tag: str, name: str) -> list[str]:
        return [str(attributes[name]) for one, attributes in self.elements if one == tag and name in attributes]


@pytest.fixture
def ann() -> Iterator[tuple[Memory, TestClient]]:
    with told() as memory, serving(memory) as clients:
        client = clients()
        client.headers["origin"] = ADDRESS
        yield memory, client


def shown(client: TestClient, path: str, status: int = 200, **query: Any) -> str:
    answer = client.get(path, params=query or None)
    assert answer.status_code == status, answer.text
    return answer.text


def test_scopes_lead_to_their_facts_with_what_each_replaced(ann: tuple[Memory, TestClient]) -> None:
    _, client = ann
    assert "/facts?user_id=ann" in _Elements(shown(client, "/")).all("a", "href")
    facts = shown(client, "/facts", user_id="ann")
    assert "Ann lives in Berlin" in facts
    assert "<del>Ann lives in Paris</del>" in facts
    assert "I moved to Berlin!" in shown(client, "/turns", user_id="ann")
    assert "Nothing was said yet." in shown(client, "/turns", user_id="nobody")


def test_a_memory_has_its_quote_its_history_and_its_decisions(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    one = memory.get_all(user_id="ann")["results"][0]["id"]
    html = shown(client, f"/memory/{one}")
    assert "<mark>I moved to Berlin</mark>" in html
    assert "<del>Ann lives in Paris</del>" in html
    assert "reconciliation-" in html
    assert "There is no memory with this id here." in shown(client, "/memory/none", 404)


def test_a_search_shows_why_and_what_held_before(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    assert "Ann lives in Berlin" in shown(client, "/search", user_id="ann", q="Where does Ann live?")
    first = memory.history(memory.get_all(user_id="ann")["results"][0]["id"])[0]["timestamp"]
    found = memory.search("Where does Ann live?", user_id="ann", explain=True, as_of=first)["results"]
    assert [hit["memory"] for hit in found] == ["Ann lives in Paris"]
    html = shown(client, "/search", user_id="ann", q="Berlin")
    assert html.count('class="plus"') >= 1
    assert "Nothing answers this." in shown(client, "/search", user_id="nobody", q="boat")


def test_what_changed_between_two_days_is_shown(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    one = memory.get_all(user_id="ann")["results"][0]["id"]
    memory.delete(memory.add("Ann had a boat.", user_id="ann", infer=False)["results"][0]["id"])
    assert f"/memory/{one}" in shown(client, "/changes", user_id="ann")
    assert "Nothing changed." in shown(client, "/changes", user_id="ann", since="2020-01-01", until="2020-01-02")
    assert "after the last" in shown(client, "/changes", user_id="ann", since="2020-01-02", until="2020-01-01")
    assert "2026-12-31" in shown(client, "/changes", 400, user_id="ann", since="soon")
    memory.add("The boat leaves.", user_id="later", infer=False, timestamp="2999-01-01T08:00:00Z")
    assert "The boat leaves." in shown(client, "/changes", user_id="later")


def test_the_present_is_that_of_the_memorys_clock() -> None:
    clock = FrozenClock(datetime(2031, 5, 8, 12, tzinfo=UTC))
    with told(clock=clock) as memory, serving(memory) as clients:
        assert "Ann lives in Berlin" in shown(clients(), "/changes", user_id="ann", since=f"{clock():%Y-%m-%d}")
        memory.add("The trial ends.", user_id="bo", infer=False, expiration_date=f"{clock():%Y-%m-%d}")
        assert '<li class="gone">' not in shown(clients(), "/turns", user_id="bo")
        clock.advance(hours=48)
        assert '<li class="gone">' in shown(clients(), "/turns", user_id="bo")


def test_the_graph_is_drawn_and_each_node_leads_to_what_is_around_it(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    page = _Elements(shown(client, "/graph", user_id="ann"))
    assert len(page.all("circle", "r")) == 2
    assert "/graph?user_id=ann&node=Berlin" in page.all("a", "href")
    around = shown(client, "/graph", user_id="ann", node="Berlin")
    assert "Everything around Berlin" in around
    assert f"/memory/{memory.get_all(user_id='ann')['results'][0]['id']}" in around
    assert "There are no relations yet." in shown(client, "/graph", user_id="nobody", node="x")


def test_a_memory_is_edited_deleted_and_forgotten_after_a_question(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    one = memory.get_all(user_id="ann")["results"][0]["id"]
    for what in ("edit", "delete", "forget"):
        assert "<form" in shown(client, f"/memory/{one}/{what}")
    assert memory.get(one)["memory"] == "Ann lives in Berlin"  # type: ignore[index]
    answer = client.post(f"/memory/{one}/edit", data={"text": "Ann lives in Bonn.\r\nSince May."})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/memory/{one}?done=changed")
    assert memory.get(one)["memory"] == "Ann lives in Bonn.\nSince May."  # type: ignore[index]
    for wrong in ({"text": " "}, {}, {f"field{number}": "1" for number in range(60)}):
        assert client.post(f"/memory/{one}/edit", data=wrong).status_code == 400
    assert client.post(f"/memory/{one}/delete").status_code == 303
    assert memory.get(one) is None
    assert "This memory has ended" in shown(client, f"/memory/{one}", done="deleted")
    assert client.post(f"/memory/{one}/forget").status_code == 303
    assert memory.history(one)[-1]["prev_value"] is None
    assert "(forgotten)" in shown(client, f"/memory/{one}")
    assert client.get(f"/memory/{one}/explode").status_code == 404


def test_a_whole_scope_is_forgotten_after_a_question(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    assert "1 facts and 2 turns" in shown(client, "/forget", user_id="ann")
    assert len(memory.scopes()) == 1
    assert client.post("/forget?user_id=ann").headers["location"] == "/?done=all_forgotten"
    assert memory.scopes() == []
    assert "Nothing is remembered yet." in shown(client, "/")


def test_a_change_and_a_batch_are_taken_back_after_a_question(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    one = memory.get_all(user_id="ann")["results"][0]["id"]
    page = _Elements(shown(client, f"/memory/{one}"))
    first, last = (f"/memory/{one}/undo?event={row['id']}" for row in memory.history(one))
    assert {first, last} <= set(page.all("a", "href"))
    assert f"/memory/{one}/undo" in shown(client, "/changes", user_id="ann")
    form = _Elements(shown(client, last))
    assert form.all("form", "action")[-1] == last
    assert client.post(first).status_code == 400  # the later one has to be taken back first
    assert client.post(last).headers["location"] == f"/memory/{one}?done=undone"
    assert memory.get(one)["memory"] == "Ann lives in Paris"  # type: ignore[index]
    assert "taken back" in shown(client, f"/memory/{one}")
    memory.delete(one)
    assert client.get(f"/memory/{one}/undo").status_code == 200
    assert client.post(f"/memory/{one}/undo").status_code == 303
    assert memory.get(one) is not None
    memory.add("The bike is in the cellar.", user_id="ann", infer=False, batch_id="b<1>")
    assert "b&lt;1&gt;" in shown(client, "/undo", user_id="ann", batch="b<1>")
    assert client.post("/undo?user_id=ann&batch=b%3C1%3E").headers["location"] == "/changes?user_id=ann&done=undone"
    assert "bike" not in str(memory.get_all(user_id="ann"))


def test_a_fork_is_made_used_merged_and_dropped_after_a_question() -> None:
    tokens = {ALICE: {"user_id": "ann"}, OPS: "*"}
    for token in tokens:
        with told() as memory, serving(memory, tokens=tokens) as clients:
            client = clients(token)
            client.headers["origin"] = ADDRESS
            [one] = [row["id"] for row in memory.get_all(user_id="ann")["results"]]
            opened = client.post("/forks?user_id=ann", data={"name": "trial"}).headers["location"]
            fork = memory.fork("trial", user_id="ann", new=False)
            [copy] = [row["id"] for row in fork.get_all()["results"]]
            html = shown(client, opened)
            assert fork.ids["user_id"] not in _Elements(html).text
            assert f"/memory/{copy}" in _Elements(html).all("a", "href")
            assert client.post(f"/memory/{copy}/edit", data={"text": "Ann lives in Rome"}).status_code == 303
            memory.update(one, "Ann lives in Oslo")
            listed = _Elements(shown(client, "/forks", user_id="ann"))
            merge = next(href for href in listed.all("a", "href") if href.startswith("/forks/merge"))
            assert "What changed in trial" in shown(client, merge)
            assert memory.forks() != []
            html = client.post(merge).text
            assert "Changed on both sides" in html
            assert all(text in html for text in ("Ann lives in Oslo", "Ann lives in Rome"))
            assert client.post(merge).status_code == 400
            client.post("/forks?user_id=ann", data={"name": "other"})
            assert client.post("/forks/drop?user_id=ann&name=other").headers["location"].endswith("done=dropped")
            assert memory.forks() == []
            assert client.get("/forks/explode?user_id=ann&name=other").status_code == 404
            if token == ALICE:
                memory.fork("his", user_id="bob")
                assert client.get("/facts", params=memory.forks()[0]["ids"]).status_code == 403


def test_messages_are_read_again_after_a_question_and_nothing_of_it_stays() -> None:
    again = fact("I live in Paris", "Ann is a Parisian", ("Ann", "is", "Parisian"))
    with (
        Memory(":memory:", model=ScriptedChatModel(replies=[*MOVED, again]), embeddings=None) as memory,
        serving(memory) as clients,
    ):
        for said in ("I live in Paris.", "I moved to Berlin!"):
            memory.add({"role": "user", "name": "Ann", "content": said}, user_id="ann")
        client = clients()
        client.headers["origin"] = ADDRESS
        assert "/replay?user_id=ann" in _Elements(shown(client, "/forks", user_id="ann")).all("a", "href")
        assert "2 messages are read again by the model, in at least 1 calls" in shown(client, "/replay", user_id="ann")
        html = client.post("/replay?user_id=ann").text
        assert all(text in html for text in ("Ann is a Parisian", "Ann lives in Berlin", "0 facts are the same"))
        assert [row["user_id"] for row in memory.scopes()] == ["ann"]
        assert [row["memory"] for row in memory.get_all(user_id="ann")["results"]] == ["Ann lives in Berlin"]


def test_a_form_of_another_page_changes_nothing(ann: tuple[Memory, TestClient]) -> None:
    memory, client = ann
    one = memory.get_all(user_id="ann")["results"][0]["id"]
    for headers in ({"origin": "https://evil.example"}, {"origin": ""}):
        assert client.post(f"/memory/{one}/forget", headers=headers).status_code == 403
    del client.headers["origin"]
    assert client.post(f"/memory/{one}/forget").status_code == 403
    assert memory.get(one) is not None


def test_what_was_not_read_is_shown_with_its_reason_and_read_again() -> None:
    replies = [TimeoutError("down"), {"facts": []}, {"facts": []}]
    model = ScriptedChatModel(replies=replies)
    with Memory(":memory:", model=model, embeddings=None) as memory, serving(memory) as clients:
        client = clients()
        client.post("/v1/memories", json={"messages": "I have a cat.", "user_id": "ann"})
        html = shown(client, "/unread", user_id="ann")
        assert "I have a cat." in html
        assert "TimeoutError" in html
        sent = client.post("/unread?user_id=ann", headers={"origin": ADDRESS})
        assert sent.headers["location"] == "/unread?user_id=ann&done=read"
        assert "I have a cat." not in shown(client, "/unread", user_id="ann")
    with told() as memory, serving(memory) as clients:
        assert "Say whose memories" in shown(clients(), "/unread", 400)


@pytest.mark.parametrize("where", ["text", "user_id", "name", "session_id", "metadata"])
def test_what_is_in_a_memory_is_text_and_nothing_else(where: str) -> None:
    said: dict[str, Any] = {"role": "user", "content": "I like red tea."}
    said |= {"content": EVIL} if where == "text" else {where: EVIL} if where in ("name", "session_id") else {}
    user = EVIL if where == "user_id" else "ann"
    metadata = {EVIL: EVIL} if where == "metadata" else {}
    with Memory(":memory:", model=None, embeddings=None) as memory:
        key = memory.add(said, user_id=user, metadata=metadata)["results"][0]["id"]
        triple = {"text": EVIL, "quote": EVIL, "sources": [0], "triples": [[EVIL, EVIL, EVIL + "!"]]}
        memory.reconcile([{"role": "user", "content": EVIL}], [triple], user_id=user, by_agent=True)
        with serving(memory) as clients:
            client, ids = clients(), urlencode({"user_id": user})
            asked = ["/", f"/facts?{ids}", f"/turns?{ids}", f"/search?{ids}&q={quote(EVIL)}", f"/graph?{ids}"]
            asked.append(f"/changes?{ids}")
            asked += [
                f"/memory/{key}",
                f"/memory/{key}/edit",
                f"/memory/{key}/forget",
                f"/graph?{ids}&node={quote(EVIL)}",
            ]
            for path in asked:
                page = _Elements(shown(client, path))
                scripts = [attributes.get("src") for tag, attributes in page.elements if tag == "script"]
                assert scripts == ["/static/htmx.min.js", "/static/inspector.js"], path
                names = {name for _, attributes in page.elements for name in attributes}
                assert not {name for name in names if name.startswith("on") or name == "style"}, path
                assert not page.all("img", "src"), path
                links = page.all("a", "href") + page.all("form", "action")
                assert all(link.startswith(("/", "#")) and not link.startswith("//") for link in links), path
            assert where in ("user_id", "name", "session_id") or EVIL in _Elements(shown(client, f"/memory/{key}")).text


def test_pages_of_many_memories_are_disjoint_and_complete() -> None:
    with Memory(":memory:", model=None, embeddings=None) as memory:
        memory.add([f"Entry {number} of the log." for number in range(1_500)], user_id="ann", infer=False)
        with serving(memory) as clients:
            client = clients()
            newest, oldest = shown(client, "/turns", user_id="ann"), shown(client, "/turns", user_id="ann", page=30)
            assert "Page 1 of 30" in newest
            assert re.findall(r"Entry (\d+) ", newest) == [str(number) for number in range(1_499, 1_449, -1)]
            assert re.findall(r"Entry (\d+) ", oldest) == [str(number) for number in range(49, -1, -1)]
            assert shown(client, "/turns", user_id="ann", page=10**6).count("Entry 0 of the log.") == 1


def test_a_browser_signs_in_with_a_token_and_sees_what_it_is_bound_to() -> None:
    with Memory(":memory:", model=None, embeddings=None) as memory:
        memory.add("My locker is number 12.", user_id="alice")
        theirs = memory.add("The key is under the mat.", user_id="bob")["results"][0]["id"]
        with serving(memory, tokens=TOKENS) as clients:
            client = clients()
            client.headers["origin"] = ADDRESS
            assert client.get("/").headers["location"] == "/login"
            wrong = client.post("/login", data={"token": "guessed-token-00001"})
            assert (wrong.status_code, "not known" in wrong.text) == (401, True)
            cookie = client.post("/login", data={"token": ALICE}).headers["set-cookie"]
            assert ALICE not in cookie
            assert all(word in cookie.lower() for word in ("httponly", "samesite=strict"))
            html = shown(client, "/")
            assert "alice" in html
            assert "bob" not in html
            assert shown(client, "/facts", 403, user_id="bob")
            assert shown(client, f"/memory/{theirs}", 404)
            assert client.post(f"/memory/{theirs}/forget").status_code == 404
            client.post("/logout")
            assert client.get("/").headers["location"] == "/login"
            operator = clients()
            operator.post("/login", data={"token": OPS}, headers={"origin": ADDRESS})
            assert "bob" in shown(operator, "/")


def evaluated(folder: Path, name: str, recall: float, *found: bool) -> None:
    estimate = {"mean": recall, "low": recall - 0.1, "high": recall + 0.1, "count": len(found)}
    questions = [
        {"id": str(number), "question": f"Question {number}?", "measures": {"recall@10": float(good)}, "verdicts": {}}
        for number, good in enumerate(found)
    ]
    run = {"dataset": "locomo", "turns": 5, "latency": {"p50": 0.004}, "recall": {"all": {"recall@10": estimate}}}
    (folder / name).write_text(json.dumps({**run, "accuracy": {}, "questions": questions}))


def test_evaluation_runs_are_compared(tmp_path: Path) -> None:
    evaluated(tmp_path, "first.json", 0.5, True, False)
    evaluated(tmp_path, "second.json", 0.75, True, True)
    (tmp_path / "other.json").write_text("[]")
    with Memory(":memory:", model=None, embeddings=None) as memory, serving(memory, runs=tmp_path) as clients:
        html = shown(clients(), "/evaluations", run=["first.json", "second.json", "../secret.json"])
        assert all(text in html for text in ("50.0 %", "75.0 %", "+25.0", "Question 1?"))
        assert "Question 0?" not in html
        assert "no evaluation run" in shown(clients(), "/evaluations", 422, run="other.json")
    with Memory(":memory:", model=None, embeddings=None) as memory, serving(memory) as clients:
        assert "memlayer serve" in shown(clients(), "/evaluations", 404)


def test_every_word_of_the_pages_is_there_in_chinese(ann: tuple[Memory, TestClient]) -> None:
    _, client = ann
    words = {
        text for file in TEMPLATES.glob("*.html") for text in re.findall(r"\bt\([\"']([^\"']+)[\"']", file.read_text())
    }
    words -= {"memlayer"}
    assert len(words) > 60
    assert {word for word in words if languages.translate(word, "zh") == word} == set()
    html = client.get("/facts?user_id=ann", headers={"accept-language": "zh-CN,en;q=0.5"}).text
    assert '<html lang="zh-Hans">' in html
    assert "已知的事实" in html
    chosen = client.get("/facts?user_id=ann&lang=en", headers={"accept-language": "zh-CN"})
    assert '<html lang="en">' in chosen.text
    assert '<html lang="en">' in client.get("/facts?user_id=ann", headers={"accept-language": "zh-CN"}).text
