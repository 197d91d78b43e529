"""A small app behind the edge, and a way to ask it without a socket."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson
from fastapi import APIRouter, FastAPI, Response
from starlette.types import Message, Receive, Scope, Send

from app import deadline
from app.api import error_handlers
from app.api.body import JsonRoute
from app.api.edge import Edge
from app.errors import UnauthorizedError, UnavailableError
from app.schemas.text import Content, RequestModel
from app.settings import Settings

CANARY = "canary-7f3a"
JSON = {"content-type": "application/json"}


class Body(RequestModel):
    content: Content


finished: list[str] = []  # what went on after its answer was given up

router = APIRouter(prefix="/api/v1", route_class=JsonRoute)


@router.post("/echo")
async def echo(body: Body) -> dict[str, int]:
    return {"size": len(body.content)}


@router.post("/nothing", status_code=204)
async def nothing() -> None: ...


@router.get("/items/{item}")
async def item(item: str, response: Response, limit: int = 1) -> dict[str, str]:
    response.headers["Cache-Control"] = "max-age=60"
    return {"item": item}


@router.get("/fails/{how}")
async def fails(how: str) -> None:
    raise {"401": UnauthorizedError, "503": UnavailableError}.get(how, RuntimeError)(CANARY)


@router.get("/slow")
async def slow() -> dict[str, str]:
    deadline.seconds_left()
    await asyncio.sleep(0.2)
    finished.append("slow")
    with contextlib.suppress(UnavailableError):
        deadline.seconds_left()
        finished.append("began more")
    return {"item": "late"}


@router.get("/page")
async def page() -> Response:
    return Response("<p>", media_type="text/html")


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """The way main.py is built: plain ASGI for the stream, FastAPI for the rest."""
    if scope["path"] == "/api/v1/messages/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        if b"break" in scope["query_string"]:
            raise RuntimeError(CANARY)
        await send({"type": "http.response.body", "body": b""})
        return
    if scope["path"] == "/api/v1/messages/send":
        raise {b"timeout": TimeoutError, b"key": KeyError}.get(scope["query_string"], RuntimeError)(CANARY)
    if scope["path"] == "/api/v1/stalled":
        asyncio.get_running_loop().call_later(0.005, time.sleep, 0.05)  # everything waits, past both times below
        await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await fastapi(scope, receive, send)


fastapi = FastAPI()
fastapi.include_router(router)
error_handlers.install(fastapi)


def edge(**values: Any) -> Edge:
    given: dict[str, Any] = {
        "app_env": "development",
        "cors_origins": ("https://app.example.com", "https://other.example:443"),
    }
    return Edge(inner, Settings(**given | values))


@dataclass
class Answer:
    messages: list[Message]

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def text(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = orjson.loads(self.text)
        assert problem["request_id"] == self.headers["x-request-id"]
        assert problem["status"] == self.status
        return problem


async def ask(
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    body: bytes | AsyncIterator[bytes] = b"",
    app: Edge | None = None,
    hosts: tuple[str, ...] = ("localhost:8000",),
    scheme: str = "http",
) -> Answer:
    path, _, query = path.partition("?")
    raw = [(b"host", host.encode("latin-1")) for host in hosts]
    raw += [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    if isinstance(body, bytes) and body and "transfer-encoding" not in (headers or {}):
        raw.append((b"content-length", str(len(body)).encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": raw,
        "scheme": scheme,
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8000),
        "root_path": "",
        "extensions": {"x": {}},
    }
    messages: list[Message] = []

    async def receive() -> Message:
        if isinstance(body, bytes):
            return {"type": "http.request", "body": body, "more_body": False}
        chunk = await anext(body, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    async def send(message: Message) -> None:
        messages.append(message)

    await (app or edge())(scope, receive, send)
    return Answer(messages)
