"""The methods of `Memory` as JSON over HTTP: one table says each call's path, arguments and answer."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.from_thread
import orjson
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from langchain_memlayer.engine.lookup import Selection
from langchain_memlayer.errors import (
    ConfigurationError,
    EmbeddingError,
    ExtractionError,
    InvalidInput,
    JournalError,
    MemLayerError,
    MemoryNotFound,
    ScopeRequired,
    VectorStoreError,
)
from langchain_memlayer.json_values import dumps
from langchain_memlayer.moving import export_store
from langchain_memlayer.result_types import (
    AddResult,
    DiffResult,
    Done,
    ForgetResult,
    ForkInfo,
    HistoryRow,
    ListResult,
    MemoryResult,
    MergeResult,
    Profile,
    ProfileChange,
    ProfileResult,
    ReadResult,
    ScopeSize,
    SearchResult,
    UnreadCall,
    WhyResult,
)
from langchain_memlayer.server import bodies
from langchain_memlayer.server.access import Grant
from langchain_memlayer.types import Scope

if TYPE_CHECKING:
    from langchain_memlayer.memory import Memory

NDJSON: Final = "application/x-ndjson"
_CHUNK: Final = 65_536
_STATUS: Final[tuple[tuple[type[MemLayerError], int], ...]] = (
    (MemoryNotFound, 404),
    (ScopeRequired, 400),
    (InvalidInput, 400),
    (ConfigurationError, 409),
    (ExtractionError, 502),
    (EmbeddingError, 502),
    (VectorStoreError, 502),
    (JournalError, 503),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client: the memory is as the caller may see it, the grant what that may reach."""

    request: Request
    memory: Memory
    grant: Grant
    body: Any

    @property
    def id(self) -> str:
        """The id of the memory that the path names."""
        return str(self.request.path_params["memory_id"])

    def arguments(self) -> dict[str, Any]:
        """What was given, with the ids of the grant."""
        return {**self.body.rest(), **self.grant.within(self.body.scope())}

    @property
    def streams(self) -> bool:
        """Whether the caller wants lines of JSON."""
        return NDJSON in self.request.headers.get("accept", "")


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    Attributes:
        method: The HTTP method.
        path: The path.
        does: What it does, in one sentence.
        takes: What its query or its body has.
        gives: The type of its answer.
        name: What it is called: the method of `Memory` that it is.
        run: Gives the answer, as JSON values or as a response, where the method does not.
        streams: What its lines are, where it can answer in lines.
    """

    method: str
    path: str
    does: str
    takes: type[bodies.Nothing]
    gives: Any
    name: str
    run: Callable[[Call], Awaitable[Any]] | None = None
    streams: str = ""

    @property
    def has_body(self) -> bool:
        """Whether the arguments are JSON in the body; else they are in the query."""
        return self.method in ("POST", "PATCH")

    async def answer(self, call: Call) -> Any:
        """The answer to a call."""
        if self.run is not None:
            return await self.run(call)
        method = getattr(call.memory, f"a{self.name}")
        if "{memory_id}" not in self.path:
            answer = await method(**call.arguments())
            return answer.plain() if isinstance(answer, Profile) else answer
        answer = await method(call.id, **call.body.model_dump(exclude_unset=True))
        if not answer:
            raise HTTPException(404, "There is no memory with this id here; search and list return the ids.")
        return answer


async def _health(call: Call) -> dict[str, str]:
    return {"status": "ok"}


async def _list(call: Call) -> Any:
    if call.streams:
        body, scope = call.body, Scope(**call.grant.within(call.body.scope()))
        selection = Selection.of(scope, body.filters, body.kinds, body.show_expired)
        selection.scope.required("get_all()")
        pages = call.memory.internals.lookup.pages(selection)
        # What cannot be listed is told by its status.
        first: list[MemoryResult] = await anyio.to_thread.run_sync(next, pages, [])
        lines = (b"".join(map(_line, page)) for page in chain([first], pages))
        return StreamingResponse(lines, media_type=NDJSON)
    return await call.memory.aget_all(**call.arguments())


async def _fork(call: Call) -> ForkInfo:
    arguments = call.arguments()
    fork = await call.memory.afork(**arguments)
    del arguments["name"]
    return next(one for one in await call.memory.aforks(**arguments) if one["ids"] == fork.ids)


async def _merge_fork(call: Call) -> MergeResult:
    return await (await call.memory.afork(**call.arguments(), new=False)).amerge()


async def _drop_fork(call: Call) -> Done:
    return await (await call.memory.afork(**call.arguments(), new=False)).adrop()


async def _forget_all(call: Call) -> ForgetResult:
    return await call.memory.aforget(**call.arguments())


async def _read(call: Call) -> Any:
    arguments = call.arguments()
    if not call.streams:
        return await call.memory.aread(**arguments)

    def work(write: Callable[[bytes], None]) -> None:
        def tell(done: int, total: int) -> None:
            write(_line({"done": done, "total": total}))

        try:
            write(_line({"result": call.memory.read(**arguments, progress=tell)}))
        except MemLayerError as error:
            write(_line({"error": str(error), "status": status_of(error)}))

    return _FromThread(written(work))


async def _graph(call: Call) -> dict[str, Any]:
    graph = await call.memory.agraph(**call.arguments())
    return {
        "nodes": [{"name": name, **data} for name, data in graph.nodes(data=True)],
        "edges": [{"source": one, "destination": other, **data} for one, other, data in graph.edges(data=True)],
    }


async def _export(call: Call) -> Response:
    if call.grant.scope:
        raise HTTPException(403, "An export is of the whole store; list your memories as lines of JSON instead.")
    where: Path | str | None = call.request.app.state.where
    if where is None or str(where) == ":memory:":
        raise HTTPException(409, "This store is in memory and has no file; serve a folder to export it.")
    vectors = call.body.vectors

    def work(write: Callable[[bytes], None]) -> None:
        with io.BufferedWriter(_Pieces(write), _CHUNK) as out:
            export_store(where, out, vectors=vectors)

    pieces = written(work)
    # What cannot be begun is told by its status.
    first = await anext(pieces, b"")
    return _FromThread(pieces, first)


OPERATIONS: Final = (
    Operation(
        "GET", "/v1/health", "Whether the server runs; needs no token.",
        bodies.Nothing, dict[str, str], "health", _health,
    ),
    Operation("GET", "/v1/scopes", "Whose memories there are.", bodies.Scopes, list[ScopeSize], "scopes"),
    Operation("POST", "/v1/memories", "Remember messages.", bodies.Add, AddResult, "add"),
    Operation("GET", "/v1/memories", "List memories.", bodies.Listing, ListResult, "list", _list, "a memory"),
    Operation("DELETE", "/v1/memories", "End all memories of a scope.", bodies.Ids, Done, "delete_all"),
    Operation("POST", "/v1/search", "Find the memories that answer a query.", bodies.Search, SearchResult, "search"),
    Operation("GET", "/v1/diff", "What became known, changed and ended.", bodies.Diff, DiffResult, "diff"),
    Operation("POST", "/v1/undo", "Take back an event, or a batch.", bodies.Undo, AddResult, "undo"),
    Operation("GET", "/v1/forks", "Which forks there are.", bodies.Ids, list[ForkInfo], "forks"),
    Operation("POST", "/v1/forks", "A copy of a scope to try something in.", bodies.Fork, ForkInfo, "fork", _fork),
    Operation("DELETE", "/v1/forks", "Drop a fork.", bodies.Fork, Done, "drop_fork", _drop_fork),
    Operation(
        "POST", "/v1/forks/merge", "Carry over what changed in it.",
        bodies.Fork, MergeResult, "merge_fork", _merge_fork,
    ),
    Operation("GET", "/v1/memories/{memory_id}", "One memory.", bodies.Nothing, MemoryResult, "get"),
    Operation("PATCH", "/v1/memories/{memory_id}", "Change a memory.", bodies.Update, Done, "update"),
    Operation("DELETE", "/v1/memories/{memory_id}", "End a memory; its history stays.", bodies.Nothing, Done, "delete"),
    Operation(
        "POST", "/v1/memories/{memory_id}/forget", "Remove it from every file.", bodies.Forget, ForgetResult, "forget"
    ),
    Operation(
        "GET", "/v1/memories/{memory_id}/history", "What happened to it.", bodies.Nothing, list[HistoryRow], "history"
    ),
    Operation("GET", "/v1/memories/{memory_id}/why", "Where it comes from.", bodies.Nothing, WhyResult, "why"),
    Operation(
        "POST", "/v1/forget", "Remove a scope from every file.",
        bodies.Ids, ForgetResult, "forget_all", _forget_all,
    ),
    Operation("GET", "/v1/profile", "What is known of a user.", bodies.Profile, ProfileResult, "profile"),
    Operation(
        "PATCH", "/v1/profile", "Set fields of it by hand.", bodies.UpdateProfile, ProfileResult, "update_profile"
    ),
    Operation(
        "GET", "/v1/profile/history", "Each change of its fields.", bodies.Ids, list[ProfileChange], "profile_history"
    ),
    Operation("GET", "/v1/unread", "What was not read yet, and why.", bodies.Ids, list[UnreadCall], "unread"),
    Operation(
        "POST", "/v1/read", "Find the facts of what was not read.", bodies.Read, ReadResult, "read", _read,
        "`done` and `total`, last `result` or `error`",
    ),
    Operation("GET", "/v1/graph", "The relations of a scope.", bodies.Ids, dict[str, Any], "graph", _graph),
    Operation(
        "GET", "/v1/export", "The whole store.",
        bodies.Export, None, "export", _export, "a row of docs/export.md",
    ),
)  # fmt: skip


def routes() -> list[Route]:
    """The routes of all operations."""
    return [Route(one.path, partial(_answer, one), methods=[one.method], name=one.name) for one in OPERATIONS]


async def _answer(operation: Operation, request: Request) -> Response:
    grant: Grant = request.state.grant
    body = _checked(operation.takes, await _request_input(operation, request))
    call = Call(request, grant.of(request.app.state.memory), grant, body)
    answer = await operation.answer(call)
    return answer if isinstance(answer, Response) else Response(dumps(answer), media_type="application/json")


async def _request_input(operation: Operation, request: Request) -> Any:
    if not operation.has_body:
        many = {name: values for name in request.query_params if (values := request.query_params.getlist(name))}
        return {name: values if name == "kinds" else values[-1] for name, values in many.items()}
    body = await request.body()
    if not body:
        return {}
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send JSON, with the header 'Content-Type: application/json'.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"The body is no JSON: {error.msg} at character {error.pos}.") from None


def _checked(model: type[BaseModel], given: Any) -> BaseModel:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Without what was given: it may be long, or private.
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the body'}: {one['msg']}" for one in error.errors()[:5]]
        raise HTTPException(422, f"{'; '.join(wrong)}. /openapi.json has what each call takes.") from None


def status_of(error: MemLayerError) -> int:
    """The HTTP status of one of the package's errors."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


# -- lines of JSON from a thread ---------------------------------------------------------------------------------------


def _line(value: Any) -> bytes:
    return f"{dumps(value)}\n".encode()


class _Pieces(io.RawIOBase):
    """A stream whose pieces a function takes."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, piece: Any) -> int:
        """Pass a piece on."""
        self._write(bytes(piece))
        return len(piece)


async def _chained(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for one in others:
        yield one


async def written(work: Callable[[Callable[[bytes], None]], None]) -> AsyncGenerator[bytes, None]:
    """What a function that runs in a thread writes. It is stopped by its next write when nobody reads any more."""
    sending, receiving = anyio.create_memory_object_stream[bytes](4)

    def write(piece: bytes) -> None:
        anyio.from_thread.run(sending.send, piece)

    def run() -> None:
        try:
            work(write)
        finally:
            anyio.from_thread.run_sync(sending.close)

    working = asyncio.create_task(anyio.to_thread.run_sync(run))
    try:
        async with receiving:
            async for piece in receiving:
                yield piece
        await working
    finally:
        receiving.close()
        with suppress(anyio.BrokenResourceError):
            await working


class _FromThread(StreamingResponse):
    """What a thread writes; it is let go as soon as nobody takes it, not when a collector of garbage comes by."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], first: bytes = b"") -> None:
        super().__init__(_chained(first, pieces), media_type=NDJSON)
        self._pieces = pieces

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
