"""The inspector in a real headless Chromium, wide and narrow: each action, keys, hostile and many memories, axe."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration_tests import inspector_kit as kit
from integration_tests.json_server import HOST
from langchain_memlayer import Memory
from langchain_memlayer.server import Tokens
from langchain_memlayer.testing import ScriptedChatModel

pytestmark = [
    pytest.mark.allow_hosts([HOST]),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
    pytest.mark.skipif(kit.browser_file() is None, reason=kit.MISSING),
]

WIDTHS = [1280, 390]
EVIL = "<script>document.title = 'owned'</script><img src=x onerror=\"alert('owned')\"><b onclick=alert(1)>bold</b>"
# What sticks out of the window and cannot be scrolled to, or is cut by its own box.
CUT = """() => [...document.querySelectorAll("body *")].filter(one => {
  if (one.closest(".drawing, .scroll, .skip, svg, textarea, input, pre") || !one.textContent.trim()) return false;
  const box = one.getBoundingClientRect();
  const hides = getComputedStyle(one).overflow === "hidden";
  return box.right > innerWidth + 1 || (hides && one.scrollWidth > one.clientWidth);
}).map(one => one.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with kit.browsing() as browser:
        print("browser:", kit.browser_file(), browser.version)
        yield browser


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("story") / "store"
    kit.tell(folder)
    return folder


class Model:
    """A model that fails until it is up, and then finds no facts."""

    up = False

    def __call__(self, messages: Any) -> Any:
        return {"facts": []} if self.up else TimeoutError("down")


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def memory(told: Path, tmp_path: Path, model: Model) -> Iterator[Memory]:
    """Ann's memory, to be changed."""
    from langchain_memlayer.moving import export_store, import_store

    export_store(told, tmp_path / "export.jsonl")
    import_store(tmp_path / "export.jsonl", tmp_path / "store")
    with Memory(tmp_path / "store", model=ScriptedChatModel(replies=model), embeddings="wordllama") as memory:
        yield memory


class Visit:
    """A page in the browser, which fails on errors, dialogs and requests to other hosts."""

    def __init__(self, browser: Any, address: str, width: int, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, base_url=address, **options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.width = width
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)
        own = urlsplit(address).netloc
        self.page.on("request", lambda asked: self._check_host(asked.url, own))

    def _check_host(self, url: str, own: str) -> None:
        if urlsplit(url).netloc != own:
            self.wrong.append(f"request to {url}")

    def open(self, path: str) -> Any:
        self.page.goto(path)
        self.check()
        return self.page

    def check(self) -> None:
        """Nothing went wrong, and nothing is cut."""
        assert self.wrong == []
        if self.page.evaluate("typeof document") == "object":
            assert self.page.evaluate("document.documentElement.scrollWidth") <= self.width, self.page.url
            assert self.page.evaluate(CUT) == [], self.page.url

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *error: Any) -> None:
        self.context.close()


def faults(page: Any) -> list[Any]:
    """What axe finds serious or worse."""
    axe = pytest.importorskip("axe_playwright_python")
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in grave]


def of(memory: Memory, text: str) -> str:
    return next(row["id"] for row in memory.get_all(user_id="ann", kinds=["fact"])["results"] if text in row["memory"])


@pytest.mark.parametrize("width", WIDTHS)
def test_from_scopes_to_facts_to_their_reasons(browser: Any, memory: Memory, width: int) -> None:
    with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
        page = visit.open("/")
        page.get_by_role("link", name="User ann").click()
        assert page.locator("del", has_text="Ann lives in Paris").is_visible()
        # It stands under the day on which she was first heard of, and says since when it is so.
        assert page.get_by_text("holds since 2026-05-20").is_visible()
        visit.check()
        page.get_by_role("link", name="Ann lives in Berlin").click()
        assert page.locator("mark").inner_text() == "I moved to Berlin"
        assert page.get_by_text("moved", exact=False).first.is_visible()
        visit.check()
        page.get_by_role("link", name="Changes").click()
        page.get_by_label("From").fill("2026-05-01")
        page.get_by_role("button", name="Show").click()
        page.locator("del", has_text="Ann lives in Paris").wait_for()
        visit.check()
        page.goto("/")
        page.get_by_label("Agent").fill("support")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Turns").click()
        assert page.get_by_text("Answer briefly").is_visible()
        visit.check()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_answers_while_one_types_and_the_slider_asks_what_held(
    browser: Any, memory: Memory, width: int
) -> None:
    with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
        page = visit.open("/search?user_id=ann")
        page.keyboard.press("/")
        page.keyboard.type("Where does Ann live?", delay=5)
        page.locator(".hits").get_by_text("Ann lives in Berlin").wait_for()
        assert page.locator(".hits > li").first.locator("rect.plus").count() > 2
        assert "q=Where" in page.url
        visit.check()
        page.get_by_label("What held on").evaluate(
            "(slider, day) => { slider.value = day; for (const kind of ['input', 'change'])"
            " slider.dispatchEvent(new Event(kind, {bubbles: true})) }",
            20_550,  # in April 2026
        )
        page.locator(".hits").get_by_text("Ann lives in Paris").wait_for()
        assert page.locator("output").inner_text() == "2026-04-07"
        visit.check()
        page.reload()
        assert page.locator(".hits").get_by_text("Ann lives in Paris").is_visible()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_memory_is_edited_deleted_and_forgotten_with_a_question_before(
    browser: Any, memory: Memory, width: int
) -> None:
    walnuts, oboe = of(memory, "walnuts"), of(memory, "oboe")
    with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
        page = visit.open(f"/memory/{walnuts}")
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("New text").fill("Noor is allergic to walnuts and pecans")
        visit.check()
        page.get_by_role("button", name="Save").click()
        page.get_by_role("heading", name="walnuts and pecans").wait_for()
        assert page.get_by_role("status").inner_text() == "The memory was changed."
        visit.check()
        for leave in (lambda: page.keyboard.press("Escape"), page.get_by_role("link", name="Cancel").click):
            page.get_by_role("link", name="Delete").click()
            page.get_by_text("Delete this memory?").wait_for()
            visit.check()
            leave()
            page.get_by_text("Delete this memory?").wait_for(state="detached")
        assert memory.get(walnuts) is not None
        page.get_by_role("link", name="Delete").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("This memory has ended").wait_for()
        assert memory.get(walnuts) is None
        page.goto(f"/memory/{oboe}")
        page.get_by_role("link", name="Forget").click()
        page.get_by_role("button", name="Forget").click()
        page.get_by_text("The memory was forgotten.").wait_for()
        assert memory.history(oboe)[-1]["prev_value"] is None
        page.goto("/facts?user_id=bob")
        page.goto("/turns?user_id=bob")
        page.get_by_role("link", name="Forget all of this scope").click()
        page.get_by_text("0 facts and 12 turns").wait_for()
        page.get_by_role("button", name="Forget").click()
        page.get_by_text("All was forgotten.").wait_for()
        assert memory.scopes(user_id="bob") == []
        visit.check()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_graph_is_walked_and_what_is_unread_is_read(browser: Any, memory: Memory, model: Model, width: int) -> None:
    with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
        page = visit.open("/graph?user_id=ann")
        page.locator(".drawing a", has=page.get_by_text("Noor", exact=True)).first.click()
        page.get_by_role("heading", name="Everything around Noor").wait_for()
        visit.check()
        page.get_by_role("link", name="allergic to").click()
        page.get_by_role("heading", name="Noor is allergic to walnuts").wait_for()
        page.get_by_role("link", name="Unread").click()
        assert page.get_by_text("My new bike is green.").is_visible()
        visit.check()
        page.get_by_role("button", name="Read them now").click()
        page.get_by_text("Some could not be read").or_(page.get_by_text("That did not work")).wait_for()
        visit.wrong.clear()
        model.up = True
        page.goto("/unread?user_id=ann")
        page.get_by_role("button", name="Read them now").click()
        page.get_by_text("Everything was read.").wait_for()
        assert memory.unread(user_id="ann") == []
        page.get_by_role("link", name="中文").click()
        page.get_by_role("heading", name="还没有提取事实的消息").wait_for()
        page.goto("/")
        assert page.get_by_role("heading", name="这里有谁的记忆").is_visible()
        visit.check()


def test_evaluation_runs_are_compared(browser: Any, memory: Memory, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name, recall in (("first", 0.5), ("second", 0.75)):
        estimate = {"mean": recall, "low": recall - 0.1, "high": recall + 0.1, "count": 4}
        question = {"id": "1", "question": "Who?", "measures": {"recall@5": float(recall > 0.6)}, "verdicts": {}}
        found = {"dataset": "locomo", "turns": 9, "latency": {"p50": 0.01}, "recall": {"all": {"recall@5": estimate}}}
        (runs / f"{name}.json").write_text(json.dumps({**found, "accuracy": {}, "questions": [question]}))
    for width in WIDTHS:
        with kit.inspecting(memory, runs=runs) as address, Visit(browser, address, width) as visit:
            page = visit.open("/evaluations")
            for name in ("first", "second"):
                page.get_by_label(f"{name}.json").check()
            page.get_by_role("button", name="Compare").click()
            page.get_by_text("+25.0").wait_for()
            assert page.get_by_text("Who?").is_visible()
            visit.check()


@pytest.mark.parametrize("width", WIDTHS)
def test_what_a_memory_says_is_never_run(browser: Any, tmp_path: Path, width: int) -> None:
    with Memory(tmp_path / "store", model=None, embeddings=None) as memory:
        said = {"role": "user", "name": EVIL, "content": EVIL, "session_id": EVIL}
        key = memory.add(said, user_id=EVIL, metadata={EVIL: EVIL})["results"][0]["id"]
        fact = {"text": EVIL, "quote": EVIL, "sources": [0], "triples": [[EVIL, EVIL, "x" * 300]]}
        memory.reconcile([{"role": "user", "content": EVIL}], [fact], user_id=EVIL, by_agent=True)
        with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
            page = visit.open("/")
            page.locator(".whole").first.click()
            for name in ("Turns", "Graph", "Search"):
                page.get_by_role("link", name=name, exact=True).click()
                page.wait_for_load_state()
                visit.check()
            page.get_by_label("Question or words").fill(EVIL)
            page.locator(".hits > li").first.wait_for()
            for what in ("", "/edit", "/delete", "/forget"):
                visit.open(f"/memory/{key}{what}")
                assert "owned" not in page.title()
            assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_ten_thousand_memories_are_paged(browser: Any, tmp_path: Path, width: int) -> None:
    with Memory(tmp_path / "store", model=None, embeddings=None) as memory:
        for start in range(0, 10_000, 2_000):
            entries = [f"Entry {number} of the log." for number in range(start, start + 2_000)]
            memory.add(entries, user_id="ann", infer=False)
        with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
            page = visit.open("/turns?user_id=ann")
            assert page.locator(".timeline > li").count() == 50
            page.get_by_role("link", name="Oldest").click()
            page.get_by_text("Entry 0 of the log.").wait_for()
            assert page.get_by_text("Page 200 of 200").is_visible()
            page.goto("/search?user_id=ann&q=entry+7777")
            page.locator(".hits").get_by_text("Entry 7777 of the log.").wait_for()
            visit.check()


def test_a_browser_signs_in_with_a_token(browser: Any, memory: Memory) -> None:
    tokens = Tokens({"token-of-ann-0000001": {"user_id": "ann"}})
    with kit.inspecting(memory, tokens=tokens) as address, Visit(browser, address, 390) as visit:
        page = visit.open("/")
        page.get_by_label("A token of this server").fill("token-of-ann-0000001")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="User ann").wait_for()
        assert page.get_by_text("bob").count() == 0
        visit.check()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("A token of this server").wait_for()


def test_keys_alone_suffice_and_so_do_pages_without_scripts(browser: Any, memory: Memory) -> None:
    walnuts = of(memory, "walnuts")
    with kit.inspecting(memory) as address:
        with Visit(browser, address, 1280) as visit:
            page = visit.open(f"/memory/{walnuts}")
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            assert page.evaluate("document.activeElement.id") == "content"
            page.get_by_role("link", name="Forget").focus()
            page.keyboard.press("Enter")
            page.get_by_text("Forget this memory?").wait_for()
            page.locator(":focus", has_text="Cancel").wait_for()
            page.keyboard.press("Enter")
            page.get_by_text("Forget this memory?").wait_for(state="detached")
        with Visit(browser, address, 1280, java_script_enabled=False) as visit:
            page = visit.page
            page.goto(f"/memory/{walnuts}")
            page.get_by_role("link", name="Edit").click()
            page.get_by_label("New text").fill("Noor may eat walnuts")
            page.get_by_role("button", name="Save").click()
            assert page.get_by_role("heading", name="Noor may eat walnuts").is_visible()
    assert memory.get(walnuts)["memory"] == "Noor may eat walnuts"  # type: ignore[index]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_change_is_taken_back_and_a_fork_is_tried_merged_and_dropped(
    browser: Any, memory: Memory, model: Model, width: int
) -> None:
    model.up = True
    walnuts = of(memory, "walnuts")
    memory.update(walnuts, "Noor is allergic to pecans")
    with kit.inspecting(memory) as address, Visit(browser, address, width) as visit:
        page = visit.open(f"/memory/{walnuts}")
        page.get_by_role("link", name="Take back").first.click()
        page.get_by_text("Take this back?").wait_for()
        visit.check()
        page.get_by_role("button", name="Take back").click()
        page.get_by_role("heading", name="Noor is allergic to walnuts").wait_for()
        assert page.get_by_role("status").inner_text() == "It was taken back."
        page.goto("/forks?user_id=ann")
        page.get_by_label("Name").fill("a long name of a trial, " * 4)
        page.get_by_role("button", name="Make a fork").click()
        page.get_by_role("link", name="Noor is allergic to walnuts").click()
        assert page.locator(".scope .badge", has_text="fork").is_visible()
        page.get_by_role("link", name="Edit").click()
        page.get_by_label("New text").fill("Noor may eat walnuts")
        page.get_by_role("button", name="Save").click()
        page.get_by_role("heading", name="Noor may eat walnuts").wait_for()
        assert memory.get(walnuts)["memory"] == "Noor is allergic to walnuts"  # type: ignore[index]
        visit.check()
        memory.update(walnuts, "Noor is allergic to all nuts")
        page.get_by_role("link", name="Try out").click()
        page.get_by_role("link", name="Merge").click()
        page.get_by_text("Merge this fork?").wait_for()
        visit.check()
        page.get_by_role("button", name="Merge").click()
        page.get_by_text("Changed on both sides").wait_for()
        assert page.get_by_role("link", name="Noor may eat walnuts").is_visible()
        visit.check()
        memory.fork("other", user_id="ann")
        page.goto("/forks?user_id=ann")
        page.get_by_role("link", name="Drop").click()
        page.get_by_role("button", name="Drop").click()
        page.get_by_text("The fork was dropped.").wait_for()
        assert memory.forks() == []
        page.get_by_role("link", name="Read again").click()
        page.get_by_text("are read again by the model, in at least 1 calls").wait_for()
        page.get_by_role("button", name="Read again").click()
        page.get_by_text("0 facts are the same").wait_for()
        visit.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, memory: Memory, scheme: str) -> None:
    berlin, ids = of(memory, "Berlin"), "user_id=ann"
    pages = ["/", f"/facts?{ids}", f"/turns?{ids}", f"/search?{ids}&q=Where+does+Ann+live", f"/graph?{ids}",
             f"/unread?{ids}",
             f"/changes?{ids}&since=2026-05-01", f"/memory/{berlin}",
             f"/memory/{berlin}/edit", f"/memory/{berlin}/forget", f"/memory/{berlin}/undo",
             f"/forks?{ids}", f"/replay?{ids}", f"/forks/drop?{ids}&name=trial", f"/forks?{ids}&lang=zh",
             f"/facts?{ids}&lang=zh"]  # fmt: skip
    memory.fork("trial", user_id="ann")
    with kit.inspecting(memory) as address:
        for width in WIDTHS:
            with Visit(browser, address, width, color_scheme=scheme) as visit:
                for path in pages:
                    page = visit.open(path)
                    assert faults(page) == [], path


@pytest.mark.parametrize("width", WIDTHS)
def test_a_profile_is_read_and_a_field_of_it_is_set(browser: Any, memory: Memory, width: int) -> None:
    folder = memory.path
    memory.close()
    model = ScriptedChatModel(replies=kit.filled)
    with Memory(folder, model=model, embeddings="wordllama", profile=kit.Customer) as filled:
        filled.read(user_id="ann", retry=True)
        with kit.inspecting(filled) as address, Visit(browser, address, width) as visit:
            page = visit.open("/facts?user_id=ann")
            page.get_by_role("link", name="Profile").click()
            page.get_by_role("heading", name="What is known of this user").wait_for()
            visit.check()
            page.get_by_role("link", name="Edit: plan").click()
            page.get_by_label("New text").fill("team " * 40 + "<b>x</b>" + "y" * 200)
            page.get_by_role("button", name="Save").click()
            assert page.get_by_role("status").inner_text() == "The profile was changed."
            assert page.get_by_text("by hand").first.is_visible()
            visit.check()
            assert faults(page) == []
            page.goto("/profile?user_id=ann&lang=zh")
            page.get_by_role("heading", name="已知的用户信息").wait_for()
            visit.check()
            page.goto("/profile?user_id=ann&lang=en")
            page.get_by_role("link", name="fact", exact=True).first.click()
            page.get_by_role("heading", name="Ann lives in Berlin").wait_for()
            visit.check()
