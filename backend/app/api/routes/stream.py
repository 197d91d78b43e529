"""GET /api/v1/messages/stream: the plain-ASGI endpoint that puts frames on the socket.

It stands in front of FastAPI's stack: no middleware, no task group, no dependency lives as long as a
stream. Everything that can be refused is refused before the status line; EventSource treats every
status but 200 as final, so what is only *now* impossible is answered with 200, a `retry:` and the end.
"""

from __future__ import annotations

import asyncio
import random
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from app import events
from app.api.error_handlers import problem_of
from app.api.routes.stream_fallback import SendWire
from app.errors import FieldError, GaplessError, InvalidRequestError, UnauthorizedError, UnavailableError
from app.observability import log_defect
from app.services.messaging.cursor import Cursor, parse_cursor
from app.services.messaging.sse_stream import Stream
from app.services.messaging.stream_ports import WIRE_EXTENSION
from app.services.messaging.stream_registry import DRAIN_RETRY_MS
from app.services.messaging.turnstile import Turnstile

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from app.auth import Authenticator, Principal
    from app.inbox import Missed
    from app.services.messaging.stream_registry import StreamRegistry
    from app.services.user_service import UserService

LIFETIME_SECONDS: Final = 30 * 60
ADMITTED_PER_TURN: Final = 32  # about 5 ms of work: a send takes several turns of the loop
SNAPSHOT_SECONDS: Final = 12.0  # clients wait for twice as long before they give a stream up
BUSY_RETRY_MS: Final = (10_000, 20_000)
RESPONSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx: do not collect events
    (b"connection", b"close"),  # no second request can end up behind the stream
]


class StreamEndpoint:
    """Opens streams; holds each one until its end where the server cannot do without."""

    def __init__(
        self,
        registry: StreamRegistry,
        *,
        authenticator: Authenticator,
        users: UserService,
        heartbeat_seconds: float,
    ) -> None:
        """Admit whom `authenticator` knows to `registry`."""
        self._registry = registry
        self._authenticator = authenticator
        self._users = users
        self._heartbeat_seconds = heartbeat_seconds
        self._turnstile = Turnstile(ADMITTED_PER_TURN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request: admit, subscribe, snapshot, replay, flush, live."""
        try:
            wire = _wire_of(scope, send)
            await self._turnstile.passed(wire.has_gone)
            if wire.has_gone():
                return None
            principal, last = await self._admit(scope)
        except GaplessError as error:
            return await _turn_away(error, scope, send, is_draining=self._registry.is_draining)
        except ConnectionAbortedError:  # another request was waiting behind this one
            return None
        scope.setdefault("state", {})["user_id"] = principal.user_id
        stream = Stream(
            principal.user_id,
            wire,
            owner=self._registry,
            issued_at=principal.issued_at,
            ends_at=_end_of(principal),
        )
        try:
            await self._registry.admit(stream)
            missed = await self._snapshot(principal, last)
            has_ended = stream.has_ended  # over the limit, or draining: not refused for ever
            stream.end_if_revoked(missed.tokens_valid_after)
            if has_ended:
                raise UnavailableError  # noqa: TRY301 - answered like a PostgreSQL that does not answer
            if stream.has_ended:
                raise UnauthorizedError  # noqa: TRY301 - answered like a token that was revoked before
            await send({"type": "http.response.start", "status": 200, "headers": RESPONSE_HEADERS})
            wire.begin(stream)
            await stream.open(last, missed, heartbeat_seconds=self._heartbeat_seconds)
            del principal, missed, last  # a stream lives for half an hour: hold nothing that it does not need
            await wire.hold(receive)
        except GaplessError as error:  # before the head of the response: an open stream raises none
            stream.end(error.code)
            return await _turn_away(error, scope, send, is_draining=self._registry.is_draining)
        except BaseException:  # cut off at the end of the server's patience
            stream.end("disconnected")
            raise
        return None

    async def _admit(self, scope: Scope) -> tuple[Principal, Cursor | None]:
        query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        first = {name: values[0] for name, values in query.items()}
        principal = await self._authenticator.stream(scope["headers"], first, scheme=scope["scheme"])
        last = _cursor_of(scope["headers"], query)
        if self._registry.is_draining:
            raise UnavailableError
        return principal, last

    async def _snapshot(self, principal: Principal, last: Cursor | None) -> Missed:
        """Read what was missed; a user who was never seen gets an inbox first."""
        fetch = self._registry.fetch_messages_after
        seq = last.seq if last is not None else events.NEWEST
        try:
            async with asyncio.timeout(SNAPSHOT_SECONDS):
                missed = await fetch(principal.user_id, seq)
                if missed is None:
                    await self._users.recognize(principal)
                    missed = await fetch(principal.user_id, seq)
        except GaplessError:
            raise
        except TimeoutError as error:
            raise UnavailableError from error
        except Exception as error:  # whatever it is, a 500 would end the client's EventSource for ever
            log_defect("snapshot_failed", error)
            raise UnavailableError from error
        if missed is None:
            raise UnavailableError
        return missed


def _wire_of(scope: Scope, send: Send) -> Any:
    """Take the server's own wire, if it has one. Raises ConnectionAbortedError."""
    open_wire = scope.get("extensions", {}).get(WIRE_EXTENSION)
    return open_wire(scope) if open_wire is not None else SendWire(send)


def _cursor_of(headers: list[tuple[bytes, bytes]], query: dict[str, list[str]]) -> Cursor | None:
    """Read where the client was. The header wins: an automatic reconnect repeats a stale URL."""
    given = {value for name, value in headers if name == b"last-event-id"}
    if len(given) > 1:
        raise InvalidRequestError(FieldError("Last-Event-ID", "must be sent once"))
    field, text = "Last-Event-ID", given.pop().decode("latin-1") if given else ""
    if not text:
        field, values = "last_event_id", query.get("last_event_id", [""])
        text = values[0]
        if len(values) > 1:
            raise InvalidRequestError(FieldError(field, "must be sent once"))
    if not text:
        return None
    cursor = parse_cursor(text)
    if cursor is None:
        raise InvalidRequestError(FieldError(field, "must be a cursor that this server has sent"))
    return cursor


def _end_of(principal: Principal) -> float:
    """Give the loop's time at which the stream must end: its lifetime, or its token's."""
    lifetime_seconds = LIFETIME_SECONDS * random.uniform(0.8, 1)  # noqa: S311 - so that streams do not end together
    if principal.expires_at is not None:
        lifetime_seconds = min(lifetime_seconds, principal.expires_at.timestamp() - time.time())
    return asyncio.get_running_loop().time() + lifetime_seconds


async def _turn_away(error: GaplessError, scope: Scope, send: Send, *, is_draining: bool) -> None:
    if isinstance(error, UnavailableError):
        # Who is sent away by a server that leaves need not wait until it is less busy: others are there.
        return await _come_back_later(send, DRAIN_RETRY_MS if is_draining else BUSY_RETRY_MS)
    start, body = problem_of(error, scope).messages
    start["headers"].append((b"connection", b"close"))
    await send(start)
    await send(body)
    return None


async def _come_back_later(send: Send, within_ms: tuple[int, int]) -> None:
    """Answer as EventSource needs it: any status but 200 would end it for ever."""
    retry_ms = random.randint(*within_ms)  # noqa: S311 - jitter
    await send({"type": "http.response.start", "status": 200, "headers": RESPONSE_HEADERS})
    await send({"type": "http.response.body", "body": events.retry_block(retry_ms), "more_body": False})
