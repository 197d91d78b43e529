"""uvicorn, with the two things Gapless needs of it: a way to the socket, and a drain.

The way to the socket: a stream's frames are written by the Pub/Sub reader straight to the transport,
chunk-encoded once for all receivers. The protocol offers itself to the stream endpoint as an ASGI scope
extension; its own flow control decides who is behind.

The drain: uvicorn waits for open streams before it runs the lifespan's shutdown, so the signal itself
has to end them.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final, cast

import httptools
import uuid_utils.compat as uuid7
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.error_handlers import render
from app.errors import UnavailableError
from app.observability import end_without_memory, log_defect
from app.services.messaging.stream_ports import WIRE_EXTENSION
from app.stream_wire import TransportWire

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from starlette.types import Scope

    from app.exit_deadline import ExitDeadline

USER_TIMEOUT_MS: Final = 30_000  # bytes not taken for so long: a client that vanished, or never reads (RFC 5482)
GRACEFUL_SECONDS: Final = 12  # for requests, after a signal
AFTER_REQUESTS_SECONDS: Final = 2.0  # that they leave to sends, publishes and connections, in any case
KEEP_ALIVE_SECONDS: Final = 75  # longer than the usual proxy keeps an idle connection: it closes first
GC_THRESHOLD: Final = 50_000  # more made than gone: with the default of 700 the collector is half of a storm's work
HEADER_SECONDS: Final = 10.0  # from the connection, or the first byte of a request, to the end of its headers
ACCEPT_SECONDS: Final = 1.0  # after a signal, for what had come before; it ends when nobody comes for some turns
QUIET_TURNS: Final = 10
MAX_HEAD_BYTES: Final = 64 * 1024  # of a request line with its headers, or of trailers
RESERVED_FILES: Final = 100  # that no stream takes: for PostgreSQL, Redis, probes and requests


class GaplessProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, which can hand its connection to a stream."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Start without a stream."""
        super().__init__(*args, **kwargs)
        self._wire: TransportWire | None = None
        self._answered: RequestResponseCycle | None = None  # of pipelined requests the first, uvicorn's is the last
        self._header_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # received since the last end of headers or piece of a body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request. uvicorn's own makes socket objects to learn two addresses."""
        self.connections.add(self)
        self.transport = transport
        self.flow = FlowControl(transport)
        self.server, self.client = _address(transport, "sockname"), _address(transport, "peername")
        self.scheme = "http"  # TLS ends at the proxy, which says so in X-Forwarded-Proto
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream that is about to open here."""
        self._stop_awaiting_headers()
        if self._wire is not None:
            self._wire.connection_lost(exc)
        super().connection_lost(exc)
        self.let_go()

    def data_received(self, data: bytes) -> None:
        """Bound what belongs to no request that is being answered: uvicorn has no limits of its own here."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()
        elif self._unanswered() is None:
            self._await_headers()  # a byte has ended uvicorn's keep-alive timer, and nothing would start it again

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document; never into the answer to another request."""
        del msg
        failure = _failure_of_ours(sys.exception())
        if failure is not None:  # no answer at all: a client that is told 400 would not try again
            self.transport.abort()
            log_defect("request_not_read", failure)
            return
        cycle = self._unanswered()
        if cycle is not None:
            if cycle.response_started or cycle.scope is not self.scope:
                self.transport.abort()
                return
            cycle.disconnected = True  # its own body is what cannot be read
            cycle.message_event.set()
        request_id = str(uuid7.uuid7())
        scope = {"state": {"request_id": request_id}}
        problem = render("invalid_request", scope, status=400, detail="This is not HTTP/1.1.")
        headers = [*problem.headers, (b"connection", b"close"), (b"x-request-id", request_id.encode())]
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + problem.body)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        # A client that asks for WebSocket is answered over HTTP; whoever likes could fill the log with it.
        pass

    def on_message_begin(self) -> None:
        """Refuse a second request on a stream's connection: uvicorn would mark the wrong one as gone."""
        if self._wire is not None:
            self._wire.abort()
            self._give_up_answer()
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """Start the request, unless its connection has just been cut."""
        self._stop_awaiting_headers()
        self._head_bytes = 0
        if self._wire is not None or len(self.url) + sum(len(n) + len(v) for n, v in self.headers) > MAX_HEAD_BYTES:
            self.transport.abort()
        if not self.transport.is_closing():
            super().on_headers_complete()
            self.scope["extensions"] = {WIRE_EXTENSION: self._open_wire}  # type: ignore[dict-item]

    def on_body(self, body: bytes) -> None:
        """Drop what comes on a connection that has just been cut."""
        self._head_bytes = 0
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Drop what comes on a connection that has just been cut."""
        if self.cycle is not None:
            super().on_message_complete()

    def let_go(self) -> None:
        """Forget the request and its parser, which know us: nothing is left for the garbage collector to find."""
        self.parser = None  # type: ignore[assignment]
        self.cycle = self._answered = None  # type: ignore[assignment]
        self.scope = None  # type: ignore[assignment]

    def _open_wire(self, scope: Scope) -> TransportWire:
        if self.scope is not scope:  # another request has begun behind this one, or the client has gone
            self.transport.abort()
            self._give_up_answer()
            raise ConnectionAbortedError
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if len(self.connections) > files - RESERVED_FILES:
            raise UnavailableError
        self._wire = TransportWire(self)
        return self._wire

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _give_up_answer(self) -> None:
        if self._answered is not None:
            self._answered.disconnected = True  # that it sends nothing is no defect

    def _unanswered(self) -> RequestResponseCycle | None:
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return None if cycle is None or cycle.response_complete else cycle

    def _await_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._give_up_headers)

    def _stop_awaiting_headers(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up_headers(self) -> None:
        # Bytes that trickle in hold a descriptor each: uvicorn has no time-out of its own here.
        self._header_timer = None
        self.transport.abort()


def _failure_of_ours(error: BaseException | None) -> BaseException | None:
    """Tell what failed in a callback of the parser, such as for want of memory, from what was wrong with a request."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    return None if isinstance(cause, (httptools.HttpParserError, ValueError)) else cause


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int] | None:
    info = transport.get_extra_info(name)
    return (info[0], info[1]) if isinstance(info, tuple) else None


class Server(uvicorn.Server):
    """uvicorn's server, which drains streams on SIGTERM and SIGINT and then exits with 0."""

    def __init__(self, config: uvicorn.Config, *, on_drain: Callable[[], None], deadline: ExitDeadline) -> None:
        """Begin `deadline` at the first signal, and call `on_drain` on the event loop."""
        super().__init__(config)
        self._on_drain = on_drain
        self._deadline = deadline
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop that signals must reach, and settle down."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(_on_failed_callback)
        await super().startup(sockets)
        _spare_the_collector()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener and what is idle, once what had come before is accepted and read.

        Else whoever had to wait for this process, busy or stopped, is reset and has no answer.
        """
        connections = self.server_state.connections
        ends_at, quiet_turns = time.monotonic() + ACCEPT_SECONDS, 0
        while quiet_turns < QUIET_TURNS and time.monotonic() < ends_at:  # a turn accepts one
            before = len(connections)
            await asyncio.sleep(0)
            quiet_turns = quiet_turns + 1 if len(connections) == before else 0
        seconds = self._deadline.left(self.config.timeout_graceful_shutdown or 0, spare_seconds=AFTER_REQUESTS_SECONDS)
        self.config.timeout_graceful_shutdown = seconds  # type: ignore[assignment]  # parts of one are as good
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain. A second Ctrl-C does not wait."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        elif not self.should_exit:
            self.should_exit = True
            self._deadline.begin()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._on_drain)
        # uvicorn would raise the signal again at the end: the exit code would tell of a failure.


def _on_failed_callback(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), MemoryError):
        end_without_memory()
    loop.default_exception_handler(context)


def _spare_the_collector() -> None:
    """Look for garbage seldom: hardly any of ours is cyclic, and 10,000 requests at once are half a million objects.

    What the start has made stays for ever and is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 5, 10)


def configure(app: Any, *, host: str, port: int, trusted_proxies: tuple[str, ...]) -> uvicorn.Config:
    """Make uvicorn's configuration; `app` is the ASGI application."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=GaplessProtocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=list(trusted_proxies),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
        backlog=4096,
    )


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket that several workers can accept from. Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)  # what it accepts inherits it
    listener.bind((host, port))
    listener.set_inheritable(True)
    return listener
