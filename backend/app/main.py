"""All wiring, in one place: what exists in a process, in which order it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI

from app import __version__, startup
from app.api import demo_page, error_handlers, openapi
from app.api.deps import Services
from app.api.edge import Edge
from app.api.paths import API_PREFIX, SEND_PATH, STREAM_PATH
from app.api.routes import conversations, dev, members, messages, probes, send, stream, stream_credentials, users
from app.auth import Authenticator
from app.db import pool
from app.db.inbox import InboxReader
from app.db.pool import Database
from app.exit_deadline import ExitDeadline
from app.observability import log_defect, watch_event_loop
from app.services import send_queue
from app.services.conversation_service import ConversationService
from app.services.message_service import MessageService
from app.services.messaging.heartbeat import Heartbeat
from app.services.messaging.publisher import Publisher, RedisOutlet
from app.services.messaging.redis_pubsub import PubSub
from app.services.messaging.stream_registry import StreamRegistry
from app.services.retention import keep_trimming
from app.services.user_service import UserService
from app.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

FLUSH_SECONDS: Final = 2.0  # for the last publishes of a process
AFTER_SENDS_SECONDS: Final = 1.0  # that the last sends leave to the last publishes, and to connections


class Gapless:
    """The ASGI application: the edge around everything, the stream endpoint beside FastAPI."""

    def __init__(self, settings: Settings) -> None:
        """Build the routes; services are made when the server starts."""
        self.settings = settings
        self.deadline = ExitDeadline()
        self.api = FastAPI(
            title="Gapless",
            version=__version__,
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
            openapi_url="/openapi.json",
            redirect_slashes=False,  # a Location would repeat the query string, and with it a ticket
        )
        for router in (messages, stream_credentials, conversations, members, users):
            self.api.include_router(router.router, prefix=API_PREFIX)
        self.api.include_router(probes.router)
        if dev.is_offered(settings):
            self.api.include_router(dev.router)
            demo_page.install(self.api)
        error_handlers.install(self.api)
        openapi.install(self.api, settings)
        self._direct: dict[tuple[str | None, str | None], ASGIApp] = {}  # ahead of FastAPI's stack
        self._registry: StreamRegistry | None = None
        self._drain: asyncio.Task[None] | None = None
        self._app = Edge(self._route, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self._app(scope, receive, send)

    def begin_drain(self) -> None:
        """End all streams over the next seconds; call it from the signal."""
        self.deadline.begin()
        if self._registry is not None and self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._registry.drain())

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._direct.get((scope.get("method"), scope.get("path")), self.api)
        await endpoint(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        settings = self.settings
        if settings.database_url is None or settings.redis_url is None:
            msg = "DATABASE_URL and REDIS_URL are not set."
            raise startup.StartupError(msg)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_kept_running(watch_event_loop))
            database = Database(settings.database_url)
            stack.push_async_callback(lambda: database.close(self.deadline.left(pool.CLOSE_SECONDS)))
            signing_key = await startup.prepare(database, settings)

            outlet = RedisOutlet(settings.redis_url)
            publisher = Publisher(outlet)
            pubsub = PubSub(settings.redis_url, publisher)
            outlet.on_trouble = pubsub.on_trouble
            await stack.enter_async_context(_kept_running(outlet.run))
            stack.push_async_callback(lambda: outlet.drained(self.deadline.left(FLUSH_SECONDS)))
            await stack.enter_async_context(_kept_running(pubsub.run))

            reader = InboxReader(database)
            registry = StreamRegistry(
                pubsub, reader.fetch_messages_after, max_streams_per_user=settings.max_streams_per_user
            )
            self._registry = registry
            heartbeat = Heartbeat(
                registry,
                reader.fetch_heads,
                heartbeat_seconds=settings.heartbeat_seconds,
                is_degraded=lambda: not pubsub.is_up,
            )
            await stack.enter_async_context(_kept_running(heartbeat.run))
            await stack.enter_async_context(
                _kept_running(lambda: keep_trimming(database, days=settings.inbox_retention_days))
            )

            authenticator = Authenticator(settings, signing_key)
            stack.push_async_callback(authenticator.close)
            user_service = UserService(database, publisher)
            message_service = MessageService(database, publisher, user_service)
            queue = message_service.send_queue
            stack.push_async_callback(
                lambda: queue.close(self.deadline.left(send_queue.CLOSE_SECONDS, spare_seconds=AFTER_SENDS_SECONDS))
            )
            services = api.state.services = Services(
                settings=settings,
                database=database,
                authenticator=authenticator,
                users=user_service,
                messages=message_service,
                conversations=ConversationService(database, publisher, settings),
                publisher=publisher,
                redis_is_up=lambda: pubsub.is_up,
                is_draining=lambda: registry.is_draining,
            )
            self._direct["GET", STREAM_PATH] = stream.StreamEndpoint(
                registry,
                authenticator=authenticator,
                users=user_service,
                heartbeat_seconds=settings.heartbeat_seconds,
            )
            self._direct["POST", SEND_PATH] = send.SendEndpoint(services)
            yield
            self.begin_drain()
            if self._drain is not None:
                await self._drain


@asynccontextmanager
async def _kept_running(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run background work until the block ends; a defect in it is logged, and it starts again."""

    async def keep() -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
                log_defect("background_work_failed", error)
            await asyncio.sleep(1)

    task = asyncio.get_running_loop().create_task(keep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def create_app() -> Gapless:
    """Make the application from the environment; what uvicorn's `--factory` calls."""
    return Gapless(Settings())
