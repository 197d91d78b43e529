"""The outermost layer: every request and every response passes here, streams included.

In this order: request id, Host, CORS, method, body, the app, and whatever the app let escape. It costs a
stream nothing per event: `send` is wrapped for the start of the response only, and `scope` is handed on
as it is, so that the stream endpoint finds the server's extensions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus

import structlog
import uuid_utils
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import deadline
from app.api import request_body
from app.api.error_handlers import Headers, RenderedProblem, problem_of, render, request_id_of
from app.api.paths import API_PREFIX, SEND_PATH, STREAM_PATH
from app.errors import ForbiddenError, GaplessError, UnavailableError
from app.observability import log_defect, stats
from app.origins import combined_headers, is_allowed_host, is_own_origin, normal_origin
from app.settings import Settings

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
PROBE_PATHS = {"/health", "/ready"}  # an orchestrator asks by address, whatever ALLOWED_HOSTS says
STANDING_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"Origin"),
]
CORS_HEADERS = [
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", b"X-Request-ID, Retry-After"),
]
PREFLIGHT_HEADERS = [
    (b"access-control-allow-methods", b"GET, POST, PUT, PATCH, DELETE"),
    (
        b"access-control-allow-headers",
        b"authorization, content-type, last-event-id, x-request-id",
    ),
    (b"access-control-max-age", b"600"),
]
CONTENT_SECURITY_POLICY = b"default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")  # nothing that could break a header or a log line

GONE = 499  # what nginx calls a client that hung up; nothing is sent
SLOW_SECONDS = 1.0
ANSWER_SECONDS = 5.0  # until an answer begins, whatever it has to ask for: each question alone takes less

access_log = logging.getLogger(__name__)
log = structlog.get_logger(__name__)


class Edge:
    """ASGI middleware around the whole app: `Edge(app, settings)`."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Wrap `app`."""
        self._app = app
        self._allowed_hosts = settings.allowed_hosts
        self._origins = frozenset(filter(None, map(normal_origin, settings.cors_origins)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the lifespan goes straight through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        headers = combined_headers(scope["headers"])
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        response = _Response(send, self._headers(headers, request_id), is_api=scope["path"].startswith("/api/"))
        try:
            await self._answer(scope, headers, receive, response)
            if response.status is None:  # nobody was left to be answered
                response.status = GONE
        except request_body.GoneError:
            response.status = GONE
        except Exception as error:  # noqa: BLE001 - the last line: nothing may reach the server's own log
            if not isinstance(error, GaplessError):
                log_defect("unexpected_error", error, request_id=request_id_of(scope))
            # An answer that was begun cannot be taken back: the server cuts the connection.
            if response.status is None:
                await response.finish_with(_refusal(error, scope))
        finally:
            _record(scope, response.status, started_at)

    async def _answer(self, scope: Scope, headers: Mapping[str, str], receive: Receive, response: _Response) -> None:
        if not self._is_host_allowed(headers.get("host")) and scope["path"] not in PROBE_PATHS:
            problem = render("invalid_request", scope, status=400, detail="This host is not served.")
            await response.finish_with(problem)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._answer_preflight(scope, headers, response)
        elif scope["method"] == "HEAD" and scope["path"] == STREAM_PATH:
            problem = render("method_not_allowed", scope, headers=[("allow", "GET")])
            await response.finish_with(problem)
        else:
            if request_body.has_body(headers):
                request_body.check_headers(headers)
                receive = request_body.replay(await request_body.read_body(receive), receive)
            await self._answer_in_time(scope, receive, response)

    async def _answer_in_time(self, scope: Scope, receive: Receive, response: _Response) -> None:
        if scope["path"] == STREAM_PATH:  # it has times of its own, and is answered with 200 in any case
            with deadline.within(math.inf):  # it may come behind a request, on the same connection
                await self._app(scope, receive, response.send)
            return
        timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS, self._give_up, scope, response)
        try:
            with deadline.within(ANSWER_SECONDS):
                await self._app(scope, receive, response.send)
        finally:
            timer.cancel()
            if response.late is not None:  # it may not have begun yet, and who returns without an answer gives a 500
                await response.late

    def _give_up(self, scope: Scope, response: _Response) -> None:
        """Answer that there is no answer. Nothing is cancelled: what is being committed must still be told.

        Nor is anything more begun (app/deadline.py).
        """
        if response.status is None:
            response.give_up(problem_of(UnavailableError(), scope))

    def _is_host_allowed(self, host: str | None) -> bool:
        if host is None:  # HTTP/1.0
            return "*" in self._allowed_hosts
        return is_allowed_host(host, self._allowed_hosts)

    def _headers(self, headers: Mapping[str, str], request_id: str) -> Headers:
        """Give what stands on every response, of any status."""
        given = [(b"x-request-id", request_id.encode()), *STANDING_HEADERS]
        origin = headers.get("origin")
        if origin in self._origins:
            given += [(b"access-control-allow-origin", origin.encode()), *CORS_HEADERS]
        return given

    async def _answer_preflight(self, scope: Scope, headers: Mapping[str, str], response: _Response) -> None:
        origin = headers.get("origin", "")
        if origin not in self._origins and not is_own_origin(origin, host=headers.get("host"), scheme=scope["scheme"]):
            raise ForbiddenError("This origin is not in CORS_ORIGINS.")
        await response.send({"type": "http.response.start", "status": 204, "headers": list(PREFLIGHT_HEADERS)})
        await response.send({"type": "http.response.body", "body": b""})


class _Response:
    """Adds headers to the start of a response and remembers its status; `late` answers in the app's place."""

    __slots__ = ("_headers", "_is_api", "_send", "late", "status")

    def __init__(self, send: Send, headers: Headers, *, is_api: bool) -> None:
        self._send = send
        self._headers = headers
        self._is_api = is_api
        self.status: int | None = None
        self.late: asyncio.Task[None] | None = None

    def give_up(self, problem: RenderedProblem) -> None:
        """Finish with this; whatever else comes goes nowhere."""
        self.status = problem.messages[0]["status"]
        self.late = asyncio.get_running_loop().create_task(_pass_all(problem, self._pass_on))

    async def finish_with(self, problem: RenderedProblem) -> None:
        await _pass_all(problem, self.send)

    async def send(self, message: Message) -> None:
        if self.late is None:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._complete(list(message.get("headers", ())))
        await self._send(message)

    def _complete(self, headers: Headers) -> Headers:
        present = {name.lower(): value for name, value in headers}
        headers += (h for h in self._headers if h[0] == b"vary" or h[0] not in present)
        if self._is_api and b"cache-control" not in present:
            headers.append((b"cache-control", b"no-store"))
        is_html = present.get(b"content-type", b"").startswith(b"text/html")
        if is_html and b"content-security-policy" not in present:
            headers.append((b"content-security-policy", CONTENT_SECURITY_POLICY))
        return headers


async def _pass_all(problem: RenderedProblem, send: Send) -> None:
    for message in problem.messages:
        await send(message)


def _refusal(error: Exception, scope: Scope) -> RenderedProblem:
    if isinstance(error, request_body.StalledBodyError):
        # Closed: what the client sends later must not be read as its next request.
        detail = request_body.StalledBodyError.__doc__
        close = [("connection", "close")]
        return render("invalid_request", scope, status=408, detail=detail, headers=close)
    # After a 413 or 415 the rest of the body is thrown away by the server as it comes.
    return problem_of(error, scope)


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else str(uuid_utils.uuid7())


def _record(scope: Scope, status: int | None, started_at: float) -> None:
    """Count and log a request without query string, headers or body: tokens and texts are in those."""
    route = _route_of(scope)
    seconds = time.perf_counter() - started_at
    # Labels are never the client's own words: each new one is a series for ever.
    method = scope["method"] if scope["method"] in METHODS else "other"
    count, observe = _meters(method, route or "none", str(status))
    count()
    is_stream = route == STREAM_PATH
    if not is_stream:  # a stream lasts for half an hour and says nothing of speed
        observe(seconds)
    is_well = status is not None and status < HTTPStatus.BAD_REQUEST and (seconds < SLOW_SECONDS or is_stream)
    is_ordinary = is_well or (is_stream and status == GONE)  # a storm is full of clients that do not wait
    level = logging.DEBUG if is_ordinary else logging.INFO  # thousands of lines a second would cost more than sends
    if not access_log.isEnabledFor(level):
        return
    log.log(
        level,
        "request",
        method=method,
        # Percent-encoded where no route is known: a line break in a path stays in its line.
        path=route or scope.get("raw_path", b"")[:200].decode("latin-1"),
        status=status,
        ms=round(seconds * 1000, 1),
        request_id=scope["state"]["request_id"],
        user_id=scope["state"].get("user_id"),
    )


@lru_cache(maxsize=4096)  # looking up a series by its labels costs more than counting
def _meters(method: str, route: str, status: str) -> tuple[Callable[[], None], Callable[[float], None]]:
    count = stats.requests.labels(method, route, status)
    return count.inc, stats.request_seconds.labels(route).observe


def _route_of(scope: Scope) -> str | None:
    """Give the template of the route that answered, such as /api/v1/users/{user_id}."""
    path: str = scope["path"]
    if path in {STREAM_PATH, SEND_PATH}:
        return path
    template: str | None = getattr(scope.get("route"), "path", None)
    # FastAPI's routes know themselves without the prefix that they were included with.
    if template and path.startswith(f"{API_PREFIX}/") and not template.startswith(API_PREFIX):
        return API_PREFIX + template
    return template
