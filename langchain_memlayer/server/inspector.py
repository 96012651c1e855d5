"""The inspector: pages in which people look into a memory and change it. They work without a script, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode
from uuid import uuid4

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from langchain_memlayer.engine.read import PAGE_TURNS
from langchain_memlayer.json_values import as_text, dumps, loads
from langchain_memlayer.server import drawing, evaluations, languages
from langchain_memlayer.server.access import Grant, Tokens
from langchain_memlayer.server.bodies import LONGEST_QUERY
from langchain_memlayer.server.guard import COOKIE, session_of
from langchain_memlayer.types import Kind, Scope

_NAMES: Final = {"user_id": "User", "agent_id": "Agent", "run_id": "Run"}
_TABS: Final = (
    ("/facts", "Facts"),
    ("/turns", "Turns"),
    ("/search", "Search"),
    ("/changes", "Changes"),
    ("/forks", "Try out"),
    ("/graph", "Graph"),
    ("/profile", "Profile"),
    ("/unread", "Unread"),
)
_PER_PAGE: Final = 50
_MOST_SCOPES: Final = 1000
_MOST_DRAWN: Final = 60
_MOST_LISTED: Final = 300
_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_pages = Environment(
    loader=PackageLoader("langchain_memlayer.server"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def routes() -> list[Route | Mount]:
    """The pages and what they are made of."""
    here = Path(__file__).parent / "static"
    return [
        Route("/", _scopes),
        Route("/facts", _timeline("Facts", "fact")),
        Route("/turns", _timeline("Turns", "turn")),
        Route("/search", _search),
        Route("/changes", _changes),
        Route("/graph", _graph),
        Route("/profile", _profile),
        Route("/profile/{field}", _edit_profile, methods=["GET", "POST"]),
        Route("/unread", _unread, methods=["GET", "POST"]),
        Route("/forget", _forget_all, methods=["GET", "POST"]),
        Route("/undo", _undo_batch, methods=["GET", "POST"]),
        Route("/replay", _replay, methods=["GET", "POST"]),
        Route("/forks", _forks, methods=["GET", "POST"]),
        Route("/forks/{what}", _end_fork, methods=["GET", "POST"]),
        Route("/memory/{memory_id}", _memory),
        Route("/memory/{memory_id}/{what}", _change, methods=["GET", "POST"]),
        Route("/evaluations", _evaluations),
        Route("/login", _login, methods=["GET", "POST"]),
        Route("/logout", _logout, methods=["POST"]),
        Mount("/static", StaticFiles(directory=here)),
    ]


# -- a page -----------------------------------------------------------------------------------------------------------


def page(request: Request, template: str, here: str, *, status: int = 200, **values: Any) -> Response:
    """A page of a template that shows some values; `here` is the name of the tab that it belongs to."""
    language = _language(request)
    scope: Mapping[str, str] = values.pop("scope", {})

    def in_language(code: str) -> str:
        given = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
        # A question is asked on a page of its own; a form that was sent is not sent again.
        path = request.url.path if request.method == "GET" else "/"
        return f"{path}?{urlencode([*given, ('lang', code)])}"

    shown = _pages.get_template(template).render(
        t=lambda text, *given: languages.translate(text, language, *given),
        language=language, status=status, languages=languages.LANGUAGES,
        in_language=in_language, here=here, names=_NAMES,
        tabs=[
            (_path(path, scope), name) for path, name in _TABS
            if name != "Profile" or request.app.state.memory.profile_schema is not None
        ],
        scope=scope, whose=Scope(**scope).original.ids(), is_fork=Scope(**scope).fork is not None,
        signed_in=session_of(request.headers) is not None,
        runs=request.app.state.runs is not None and not _grant(request).scope,
        done=_DONE.get(request.query_params.get("done", "")), **values,
    )  # fmt: skip
    answer = HTMLResponse(shown, status)
    if request.query_params.get("lang") == language:
        answer.set_cookie("memlayer_language", language, max_age=31_536_000, httponly=True, samesite="strict")
    return answer


_DONE: Final = {
    "changed": "The memory was changed.",
    "deleted": "The memory was deleted.",
    "forgotten": "The memory was forgotten.",
    "all_forgotten": "All was forgotten.",
    "undone": "It was taken back.",
    "dropped": "The fork was dropped.",
    "profile": "The profile was changed.",
    "read": "Everything was read.",
    "not_read": "Some could not be read; the reasons are below.",
}


def error_page(request: Request, status: int, detail: str) -> Response:
    """What went wrong, for people."""
    return page(request, "error.html", "", status=status, detail=detail)


def _language(request: Request) -> str:
    named = request.query_params.get("lang") or request.cookies.get("memlayer_language")
    return languages.chosen(named, request.headers.get("accept-language", ""))


def _path(path: str, ids: Mapping[str, Any], **more: Any) -> str:
    return f"{path}?{urlencode({**ids, **more})}"


def _memory_path(memory_id: str) -> str:
    return f"/memory/{quote(memory_id, safe='')}"


def _grant(request: Request) -> Grant:
    grant: Grant = request.state.grant
    return grant


def _ids(request: Request) -> dict[str, str]:
    """The ids of a page's scope; `HTTPException` when it names nobody."""
    named = {name: value for name in _NAMES if (value := request.query_params.get(name, "").strip())}
    ids = _grant(request).within(Scope(**named))
    if not ids:
        raise HTTPException(400, "Say whose memories: a user, an agent or a run.")
    return ids


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form that was sent."""
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=50)
    except ValueError as error:
        raise HTTPException(400, "The form has more fields than any of these pages.") from error
    return {name: values[-1] for name, values in fields.items()}


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else default


# -- scopes and time lines --------------------------------------------------------------------------------------------


async def _scopes(request: Request) -> Response:
    number = max(1, _number(request, "page", 1))
    memory = _grant(request).of(request.app.state.memory)
    rows = await memory.ascopes(limit=_PER_PAGE + 1, offset=(number - 1) * _PER_PAGE)
    largest = max((row["facts"] + row["turns"] for row in rows), default=1)
    shown = []
    for row in rows[:_PER_PAGE]:
        ids = {name: row[name] for name in _NAMES if row[name]}  # type: ignore[literal-required]
        facts = 100 * row["facts"] / max(1, largest)
        turns = facts + 100 * row["turns"] / max(1, largest)
        first = "/facts" if row["facts"] else "/turns"
        widths = {"facts_width": round(facts, 1), "turns_width": round(turns, 1)}
        shown.append({**row, "ids": ids, "path": _path(first, ids), **widths})
    return page(request, "scopes.html", "scopes", rows=shown, number=number, more=len(rows) > _PER_PAGE)


async def _sizes(request: Request, ids: Mapping[str, str]) -> tuple[int, int, str]:
    """How many facts and turns a scope has, and when the first of them began."""
    facts, turns, first, offset = 0, 0, "", 0
    while True:
        rows = await request.app.state.memory.ascopes(**ids, limit=_MOST_SCOPES, offset=offset)
        facts, turns = facts + sum(row["facts"] for row in rows), turns + sum(row["turns"] for row in rows)
        first = min((row["created_at"] for row in rows), default=first)
        if len(rows) < _MOST_SCOPES:
            return facts, turns, first
        offset += _MOST_SCOPES


def _timeline(here: str, kind: Kind) -> Callable[[Request], Any]:
    """The page of all memories of a kind, newest first, with what each replaced."""

    async def shown(request: Request) -> Response:
        ids, memory = _ids(request), request.app.state.memory
        facts, turns, _ = await _sizes(request, ids)
        total = facts if kind == "fact" else turns
        last = max(1, ceil(total / _PER_PAGE))
        number = min(max(1, _number(request, "page", 1)), last)
        end = total - (number - 1) * _PER_PAGE
        rows: list[Any] = []
        if end > 0:
            first = max(0, end - _PER_PAGE)
            given = {**ids, "kinds": [kind], "show_expired": True, "limit": end - first, "offset": first}
            rows = list(reversed((await memory.aget_all(**given))["results"]))
        for row in rows:
            # What was told once is as it was.
            events = await memory.ahistory(row["id"]) if row["event"] == "update" else []
            row["before"] = [one for one in reversed(events) if one["event"] == "UPDATE"]
            row["expired"] = _is_past(request, row["invalid_at"])
        days = [(day, list(some)) for day, some in groupby(rows, key=lambda row: (row["created_at"] or "")[:10])]
        return page(
            request, "facts.html", here, scope=ids, days=days, total=total, number=number, last=last,
            page_at=lambda number: _path(request.url.path, ids, page=number), forget_all=_path("/forget", ids),
        )  # fmt: skip

    return shown


def _now(request: Request) -> datetime:
    now: datetime = request.app.state.memory.clock()
    return now.astimezone(UTC)


def _is_past(request: Request, moment: str | None) -> bool:
    return moment is not None and datetime.fromisoformat(moment) <= _now(request)


# -- search -----------------------------------------------------------------------------------------------------------


async def _search(request: Request) -> Response:
    ids, query = _ids(request), request.query_params.get("q", "").strip()[:LONGEST_QUERY]
    _, _, began = await _sizes(request, ids)
    today = (_now(request) - _EPOCH) // _DAY
    first = (datetime.fromisoformat(began) - _EPOCH) // _DAY if began else today
    day = min(max(first, _number(request, "day", today)), today)
    answer: Mapping[str, Any] = {"results": [], "relations": []}
    if query:
        # The end of the day; on the last day of the slider it is now.
        moment = None if day >= today else _EPOCH + (day + 1) * _DAY - timedelta(microseconds=1)
        answer = await request.app.state.memory.asearch(query, **ids, limit=20, explain=True, as_of=moment)
    return page(
        request, "search.html", "Search", scope=ids, q=query, hits=[_hit(request, one) for one in answer["results"]],
        relations=answer["relations"], first_day=first, last_day=today, day=day,
        day_text="" if day >= today else (_EPOCH + day * _DAY).date().isoformat(),
        graph_of=lambda name: _path("/graph", ids, node=name),
    )  # fmt: skip


def _hit(request: Request, hit: Mapping[str, Any]) -> dict[str, Any]:
    shares = {name: value for name, value in hit["explanation"].items() if abs(value) >= 0.0005}
    largest = max(map(abs, shares.values()), default=1.0)
    signals = [
        {"name": name, "value": value, "width": round(100 * abs(value) / largest, 1)}
        for name, value in sorted(shares.items(), key=lambda share: -abs(share[1]))
    ]
    evidence = [_quoted(turn) for turn in hit["evidence"]]
    return {**hit, "signals": signals, "evidence": evidence, "expired": _is_past(request, hit["invalid_at"])}


def _quoted(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn in pieces, of which the quoted one is marked."""
    text, said = turn["text"] or turn["quote"] or "", turn["quote"] or ""
    before, quoted, after = text.partition(said) if said else (text, "", "")
    pieces = [(piece, marked) for piece, marked in ((before, False), (quoted, True), (after, False)) if piece]
    return {**turn, "pieces": pieces}


# -- what changed ----------------------------------------------------------------------------------------------------


async def _changes(request: Request) -> Response:
    """What became known, changed and ended between the beginnings of one day and of the day after another."""
    ids = _ids(request)
    _, _, began = await _sizes(request, ids)
    today = _now(request)
    # What is said to be of a day to come was recorded today at the latest.
    began = min(began[:10], today.date().isoformat())
    since = _day(request, "since", max(began, (today - 30 * _DAY).date().isoformat()))
    until = _day(request, "until", today.date().isoformat())
    difference = None
    if since <= until:
        # The end of today is now, and there is nothing after it.
        end = None if until + _DAY > today else until + _DAY
        difference = await request.app.state.memory.adiff(since, end, **ids)
    return page(
        request, "changes.html", "Changes", scope=ids, since=since.date().isoformat(), until=until.date().isoformat(),
        found=difference, most=_MOST_LISTED,
    )  # fmt: skip


def _day(request: Request, name: str, default: str) -> datetime:
    text = request.query_params.get(name) or default
    try:
        return min(datetime.combine(date.fromisoformat(text), time(), UTC), _now(request))
    except ValueError as error:
        raise HTTPException(400, "A day is written like 2026-12-31.") from error


# -- one memory -------------------------------------------------------------------------------------------------------


async def _memory(request: Request) -> Response:
    memory, key = _grant(request).of(request.app.state.memory), request.path_params["memory_id"]
    history, live = await memory.ahistory(key), await memory.aget(key)
    if not history:
        raise HTTPException(404, "There is no memory with this id here.")
    why: dict[str, Any] | None = None
    if live is not None:
        reasons = await memory.awhy(key)
        why = {**reasons, "sources": [_quoted(turn) for turn in reasons["sources"]] if live["kind"] == "fact" else []}
    shown = None if live is None else {**live, "expired": _is_past(request, live["invalid_at"])}
    return page(
        request, "memory.html", "", scope=_scope_of(live or {}), memory=shown, why=why, history=history,
        details=_details(live), undo=lambda event: f"{_memory_path(key)}/undo?event={event}",
    )  # fmt: skip


def _details(memory: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if memory is None:
        return []
    fields = {
        "speaker": memory["name"] or memory["role"], "session": memory["session_id"], "created": memory["created_at"],
        "changed": memory["updated_at"], "id": memory["id"],
    }  # fmt: skip
    metadata = [(name, str(value)) for name, value in memory["metadata"].items() if name != "data"]
    return [*((name, str(value)) for name, value in fields.items() if value), *metadata]


_QUESTIONS: Final = {
    "edit": ("Edit", "", "Save", "changed"),
    "delete": ("Delete this memory?", "It ends; its history stays.", "Delete", "deleted"),
    "forget": (
        "Forget this memory?", "Its text leaves every file, its history too. There is no way back.", "Forget",
        "forgotten",
    ),
    "undo": ("Take this back?", "What was before is there again. This can be taken back, too.", "Take back", "undone"),
}  # fmt: skip


async def _change(request: Request) -> Response:
    """The question before a memory is changed, and the change."""
    memory, key = _grant(request).of(request.app.state.memory), request.path_params["memory_id"]
    change, back = request.path_params["what"], _memory_path(key)
    if change not in _QUESTIONS:
        raise HTTPException(404, "There is no such page.")
    title, consequence, button, done = _QUESTIONS[change]
    if request.method == "POST":
        given = await _form(request)
        if change == "edit":
            # Browsers send line ends as the internet has them.
            await memory.aupdate(key, given.get("text", "").replace("\r\n", "\n"))
        elif change == "delete":
            await memory.adelete(key)
        elif change == "undo":
            history = await memory.ahistory(key)
            await memory.aundo(request.query_params.get("event") or (history[-1]["id"] if history else None))
        else:
            await memory.aforget(key, same_words="same_words" in given)
        return RedirectResponse(f"{back}?done={done}", 303)
    live = await memory.aget(key)
    if live is None and change != "undo":
        raise HTTPException(404, "There is no memory with this id here.")
    return _question(
        request, title, consequence, button, back=back, edits=live["memory"] if live and change == "edit" else None,
        danger=change == "forget", same_words=change == "forget", scope=_scope_of(live or {}),
    )  # fmt: skip


def _scope_of(memory: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name in _NAMES if (value := memory.get(name))}


def _question(
    request: Request, title: str, consequence: str, button: str, *values: object, back: str, scope: Mapping[str, str],
    edits: str | None = None, danger: bool = True, same_words: bool = False, clears: bool = False,
) -> Response:  # fmt: skip
    shown = (f"{value:,}" if isinstance(value, int) else value for value in values)
    translated = languages.translate(consequence, _language(request), *shown)
    action = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return page(
        request, "question.html", "", scope=scope, title=title, consequence=translated, button=button, back=back,
        edits=edits, danger=danger, same_words=same_words, action=action, clears=clears,
    )  # fmt: skip


async def _forget_all(request: Request) -> Response:
    ids = _ids(request)
    if request.method == "POST":
        await request.app.state.memory.aforget(**ids)
        return RedirectResponse("/?done=all_forgotten", 303)
    facts, turns, _ = await _sizes(request, ids)
    consequence = "{} facts and {} turns leave every file, with their history. There is no way back."
    title = "Forget all memories of this scope?"
    return _question(request, title, consequence, "Forget", facts, turns, back=_path("/facts", ids), scope=ids)


# -- the profile ------------------------------------------------------------------------------------------------------


async def _profile(request: Request) -> Response:
    ids, memory = _ids(request), request.app.state.memory
    profile, history = await memory.aprofile(**ids), await memory.aprofile_history(**ids)
    fields = memory.profile_schema.model_fields if memory.profile_schema else dict.fromkeys(profile.fields)
    rows = [
        {"name": name, "about": about.description if about else None, "field": profile.fields.get(name),
         "text": as_text(profile.fields[name]["value"]) if name in profile.fields else "",
         "edit": _path(f"/profile/{quote(name, safe='')}", ids)}
        for name, about in fields.items()
    ]  # fmt: skip
    return page(
        request, "profile.html", "Profile", scope=ids, rows=rows, profile=profile, as_text=as_text,
        history=history[: -_MOST_LISTED - 1 : -1],
    )  # fmt: skip


async def _edit_profile(request: Request) -> Response:
    """The question for the new value of a field, and the change."""
    ids, name, memory = _ids(request), request.path_params["field"], request.app.state.memory
    back = _path("/profile", ids)
    if request.method == "POST":
        said = (await _form(request)).get("text", "").replace("\r\n", "\n").strip()
        await memory.aupdate_profile({name: _value(said)}, **ids)
        return RedirectResponse(f"{back}&done=profile", 303)
    field = (await memory.aprofile(**ids)).fields.get(name)
    value = "" if field is None else field["value"]
    edits = value if isinstance(value, str) else dumps(value)
    return _question(request, "Edit", "", "Save", back=back, edits=edits, danger=False, scope=ids, clears=True)


def _value(said: str) -> Any:
    """What a form says: a list or an object as JSON, else the text, of which the schema makes a number; "" clears."""
    try:
        return loads(said) if said.startswith(("[", "{")) else said or None
    except ValueError:
        return said


# -- taking back, reading again, trying out ---------------------------------------------------------------------------


async def _undo_batch(request: Request) -> Response:
    """The question before all that calls with a batch id did is taken back."""
    ids, batch = _ids(request), request.query_params.get("batch", "").strip()
    if request.method == "POST":
        await request.app.state.memory.aundo(batch_id=batch, **ids)
        return RedirectResponse(_path("/changes", ids, done="undone"), 303)
    consequence = "All that calls with the batch id {} did. This can be taken back, too."
    back = _path("/changes", ids)
    return _question(request, "Take this back?", consequence, "Take back", batch, back=back, scope=ids, danger=False)


async def _replay(request: Request) -> Response:
    """The question before messages are read again by the model, and what it finds that differs."""
    ids, memory = _ids(request), request.app.state.memory
    back = _path("/forks", ids)
    if request.method == "GET":
        _, turns, _ = await _sizes(request, ids)
        consequence = "{} messages are read again by the model, in at least {} calls. Then what differs is shown."
        calls = ceil(turns / PAGE_TURNS)
        title = "Read all messages again?"
        return _question(request, title, consequence, "Read again", turns, calls, back=back, scope=ids, danger=False)
    into = f"replay {uuid4()}"
    try:
        difference = await memory.areplay(into, **ids)
    finally:
        # Only the table is wanted; `memlayer replay` keeps the memories.
        await memory.aforget(user_id=into)
    return page(request, "replay.html", "Try out", scope=ids, found=difference, most=_MOST_LISTED, back=back)


async def _forks(request: Request) -> Response:
    """The forks of a scope; a form makes one."""
    memory = request.app.state.memory
    ids = Scope(**_ids(request)).original.ids()
    if request.method == "POST":
        fork = await memory.afork((await _form(request)).get("name", ""), **ids)
        return RedirectResponse(_path("/facts", fork.ids), 303)
    return await _forks_page(request, ids)


async def _forks_page(request: Request, ids: Mapping[str, str], merged: Mapping[str, Any] | None = None) -> Response:
    shown = [
        {**fork, "open": _path("/facts", fork["ids"]),
         **{what: _path(f"/forks/{what}", ids, name=fork["name"]) for what in ("merge", "drop")}}
        for fork in await request.app.state.memory.aforks(**ids) if _scope_of(fork) == ids
    ]  # fmt: skip
    return page(
        request, "forks.html", "Try out", scope=ids, forks=shown, merged=merged, action=_path("/forks", ids),
        replay=_path("/replay", ids) if "user_id" in ids and request.app.state.memory.reads else "",
    )  # fmt: skip


async def _end_fork(request: Request) -> Response:
    """The question before a fork is merged or dropped, and doing it."""
    ids, ending, name = _ids(request), request.path_params["what"], request.query_params.get("name", "")
    if ending not in _ENDS:
        raise HTTPException(404, "There is no such page.")
    fork = await request.app.state.memory.afork(name, **ids, new=False)
    title, consequence, button = _ENDS[ending]
    if request.method == "GET":
        back = _path("/forks", ids)
        return _question(request, title, consequence, button, name, back=back, scope=ids, danger=ending == "drop")
    if ending == "merge":
        return await _forks_page(request, ids, await fork.amerge())
    await fork.adrop()
    return RedirectResponse(_path("/forks", ids, done="dropped"), 303)


_ENDS: Final = {
    "merge": ("Merge this fork?", "What changed in {} is carried over, and the fork is removed.", "Merge"),
    "drop": ("Drop this fork?", "{} leaves every file, with all that was added in it. There is no way back.", "Drop"),
}


# -- what was not read, relations, evaluations ------------------------------------------------------------------------


async def _unread(request: Request) -> Response:
    ids, memory = _ids(request), request.app.state.memory
    if request.method == "POST":
        done = await memory.aread(**ids, retry=True)
        return RedirectResponse(_path("/unread", ids, done="not_read" if done["unread"] else "read"), 303)
    calls = await memory.aunread(**ids)
    return page(request, "unread.html", "Unread", scope=ids, calls=calls, action=_path("/unread", ids))


async def _graph(request: Request) -> Response:
    ids, node = _ids(request), request.query_params.get("node", "")
    graph = await request.app.state.memory.agraph(**ids)
    if node and node not in graph:
        node = ""
    shown = {node, *graph.successors(node), *graph.predecessors(node)} if node else set(graph)
    drawn = sorted(shown, key=lambda name: (name != node, -graph.degree(name), name))[:_MOST_DRAWN]
    edges = [
        {"source": one, "destination": other, "relation": data["relation"], "memory_id": data["memory_id"],
         "valid_at": data.get("valid_at", "")}
        for one, other, data in graph.edges(data=True) if not node or node in (one, other)
    ]  # fmt: skip
    edges.sort(key=lambda edge: edge["valid_at"], reverse=True)
    width, height = drawing.size(len(drawn))
    spots = drawing.spots(graph.places(drawn), width, height, {name: graph.degree(name) for name in drawn})
    between = [edge for edge in edges if edge["source"] in spots and edge["destination"] in spots]
    return page(
        request, "graph.html", "Graph", scope=ids, node=node, edges=edges[:_MOST_LISTED], drawn=len(drawn),
        total=len(shown), width=width, height=height, spots=list(spots.values()),
        lines=drawing.lines(spots, between),
        graph_of=lambda name: _path("/graph", ids, node=name), whole=_path("/graph", ids),
    )  # fmt: skip


async def _evaluations(request: Request) -> Response:
    folder: Path | None = request.app.state.runs
    if folder is None or _grant(request).scope:
        raise HTTPException(404, "No evaluation runs are served; `memlayer serve --runs FOLDER` does.")
    chosen = request.query_params.getlist("run")
    compared = evaluations.read(folder, chosen)
    return page(
        request, "evaluations.html", "evaluations", files=evaluations.files(folder), chosen=chosen, compared=compared,
        table=list(evaluations.table(compared)) if compared else [], differing=evaluations.differing(compared),
    )  # fmt: skip


# -- who looks --------------------------------------------------------------------------------------------------------


async def _login(request: Request) -> Response:
    tokens: Tokens = request.app.state.tokens
    if not tokens:
        return RedirectResponse("/", 303)
    if request.method == "GET":
        return page(request, "login.html", "", unknown=False)
    session = tokens.open_session((await _form(request)).get("token", "").strip())
    if session is None:
        return page(request, "login.html", "", status=401, unknown=True)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(COOKIE, session, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


async def _logout(request: Request) -> Response:
    tokens: Tokens = request.app.state.tokens
    if session := session_of(request.headers):
        tokens.close_session(session)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
