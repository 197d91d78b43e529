"""One process that serves: listener, logging, metrics, uvicorn. Whatever keeps it from starting is a sentence.

`python -m app.serving FD NUMBER PARENT` is a worker of `supervisor.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import prometheus_client
import structlog
import uvicorn

from app import observability, server
from app.exits import Exit
from app.failures import explain
from app.main import Gapless
from app.settings import Settings
from app.startup import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from app.exit_deadline import ExitDeadline

BACKLOG: Final = 4096
METRICS_HOST: Final = "127.0.0.1"
_PR_SET_PDEATHSIG: Final = 1

OnReady = Callable[[], Awaitable[None]]

_log = structlog.get_logger(__name__)


def open_listener(settings: Settings) -> socket.socket:
    """Take the port. Raises StartupError when somebody else has it."""
    try:
        listener = server.listen(settings.host, settings.port)
        # At once: two that have bound the same port find out only here.
        listener.listen(BACKLOG)
    except OSError as error:
        msg = f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}. Choose another with PORT."
        raise StartupError(msg) from error
    return listener


def serve(settings: Settings, listener: socket.socket, *, number: int = 0, on_ready: OnReady | None = None) -> Exit:
    """Serve until SIGTERM or SIGINT, and drain. Call it from the main thread.

    `number` is the worker's, counted from 0. `on_ready` runs beside the server once it accepts. Raises
    StartupError for what the operator can mend; prints the traceback of anything else that fails the start.
    """
    observability.configure_logging(settings.log_level, as_json=settings.is_production)
    app = Gapless(settings)
    watched = _StartupWatch(app)
    config = server.configure(watched, host=settings.host, port=settings.port, trusted_proxies=settings.trusted_proxies)
    running = _Server(config, on_drain=app.begin_drain, deadline=app.deadline, on_ready=on_ready)
    with _metrics(settings, number), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        try:
            runner.run(running.serve(sockets=[listener]))
        except SystemExit:  # uvicorn's way to say that the start failed
            if isinstance(watched.error, Exception) and explain(watched.error) is not None:
                raise watched.error from None
            if watched.error is not None:
                raise RuntimeError("The server could not start.") from watched.error
            return Exit.FAILED
    return Exit.OK


class _Server(server.Server):
    """Tells when it accepts."""

    def __init__(
        self, config: uvicorn.Config, *, on_drain: Callable[[], None], deadline: ExitDeadline, on_ready: OnReady | None
    ) -> None:
        super().__init__(config, on_drain=on_drain, deadline=deadline)
        self._on_ready = on_ready
        self._telling: asyncio.Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            _log.info("serving", host=host, port=port, pid=os.getpid())
        if self._on_ready is not None:
            # Beside the main loop, which has to see a signal meanwhile; the runner ends it with the loop.
            self._telling = asyncio.ensure_future(self._on_ready())


class _StartupWatch:
    """Keeps the error that ended the start, where uvicorn would log its traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.error: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_without_traceback(message: Message) -> None:
            await send({"type": message["type"]})

        try:
            await self._app(scope, receive, send_without_traceback)
        except BaseException as error:
            self.error = error
            raise


@contextlib.contextmanager
def _metrics(settings: Settings, number: int) -> Iterator[None]:
    """Serve the metrics of this process, if a port is set, to this machine only."""
    if settings.metrics_port is None:
        yield
        return
    port = settings.metrics_port + number
    try:
        httpd, _ = prometheus_client.start_http_server(port, METRICS_HOST, observability.registry)
    except OSError as error:
        msg = f"Cannot serve metrics on {METRICS_HOST} port {port}: {error.strerror}. Choose another METRICS_PORT."
        raise StartupError(msg) from error
    try:
        yield
    finally:
        httpd.shutdown()
        httpd.server_close()


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process in good order when `parent` dies, even by SIGKILL (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it died before we asked
        sys.exit(Exit.FAILED)


def _work(descriptor: int, number: int, parent: int) -> int:
    die_with_parent(parent)
    try:
        return serve(Settings(), socket.socket(fileno=descriptor), number=number)
    except Exception as error:
        known = explain(error)
        if known is None:
            raise
        for sentence in known[0]:
            print(f"gapless: {sentence}", file=sys.stderr)  # noqa: T201 - a start that failed is told to a person
        return known[1]


if __name__ == "__main__":
    sys.exit(_work(*(int(argument) for argument in sys.argv[1:4])))
