"""The way of a stream in one process: uvicorn's protocol, the endpoint, the registry and Pub/Sub are real.

PostgreSQL is a list, Redis answers from a queue, and a connection is a pair of sockets.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import uvicorn
from uvicorn.server import ServerState

from app import events
from app.api.routes.stream import StreamEndpoint
from app.auth import Principal
from app.inbox import Missed
from app.observability import stats
from app.server import GaplessProtocol
from app.services.messaging import channels
from app.services.messaging.publisher import Publisher
from app.services.messaging.redis_pubsub import PubSub
from app.services.messaging.stream_registry import StreamRegistry
from tests.hardening.raw import STREAM, Raw

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PAGE_SIZE = 100


class QueueLink:
    """The subscribed connection: answers each command, in order, in a later turn of the loop."""

    def __init__(self, on_reply: Callable[[object], None]) -> None:
        self._on_reply = on_reply

    def write(self, commands: bytes) -> None:
        words = commands.split(b"\r\n")[2::2]
        for name in words[1:]:
            asyncio.get_running_loop().call_soon(self._on_reply, [words[0].lower(), name, 1])

    def abort(self) -> None:
        """Nothing to cut."""


class NoOutlet:
    """Nothing is published here."""

    def publish(self, channel: bytes, frame: bytes) -> None:
        raise AssertionError((channel, frame))


class Credentials:
    """Believes the `user_id` of the query."""

    async def stream(self, headers: object, query: dict[str, str], *, scheme: str) -> Principal:
        return Principal(query["user_id"], issued_at=NOW, expires_at=datetime.now(UTC) + timedelta(hours=1))


class InProcessServer:
    """Serves streams over pairs of sockets, and counts."""

    def __init__(self, users: list[str]) -> None:
        self.users = users
        self.inboxes: dict[str, list[events.Message]] = {user: [] for user in users}
        self.failures: list[object] = []
        self.open_at_most = 0
        self._delivered_at_start = stats.frames_delivered
        self.pubsub = PubSub("redis://unused", Publisher(NoOutlet()))
        self.pubsub._link = cast("Any", QueueLink(self.pubsub._on_reply))
        self.registry = StreamRegistry(self.pubsub, self._fetch, max_streams_per_user=1000)
        endpoint = StreamEndpoint(
            self.registry,
            authenticator=cast("Any", Credentials()),
            users=cast("Any", None),
            heartbeat_seconds=10,
        )

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                await endpoint(scope, receive, send)
            except Exception as error:
                self.failures.append(error)
                raise

        self._config = uvicorn.Config(cast("Any", app), lifespan="off", log_config=None, access_log=False)
        self._config.load()
        self._state = ServerState()

    @property
    def delivered_before_the_end(self) -> int:
        return stats.frames_delivered - self._delivered_at_start

    def protocols(self) -> int:
        """How many connections uvicorn holds."""
        return len(self._state.connections)

    def head(self, user: str) -> int:
        return len(self.inboxes[user])

    def send(self, user: str) -> None:
        """Commit a message and let Redis deliver it."""
        inbox = self.inboxes[user]
        seq = len(inbox) + 1
        ada = events.Person("ada", None, None)
        message = events.Message(
            UUID(int=seq), UUID(int=0), seq, seq, ada, UUID(int=seq), "x" * 200, None, [], NOW, None, None
        )
        inbox.append(message)
        frame = events.message_frame(events.epoch_of("db", user), seq, events.message_body(message))
        self.pubsub._on_reply([b"message", channels.of_user(user), frame])

    async def client(self, user: str, *, cut_request: bool = False) -> Raw:
        """Connect, and ask for the stream of `user`, or for half of it."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: GaplessProtocol(config=self._config, server_state=self._state, app_state={}), theirs
        )
        raw = Raw(*await asyncio.open_connection(sock=ours))
        request = f"GET {STREAM}?user_id={user} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        raw.write(request[:30] if cut_request else request)
        return raw

    async def _fetch(self, user_id: str, seq: int) -> Missed:
        inbox = self.inboxes[user_id]
        rows = list(enumerate(inbox[seq : seq + PAGE_SIZE], start=seq + 1)) if seq < len(inbox) else []
        missed = Missed("db", len(inbox), 0, None, rows)
        await asyncio.sleep(0)
        return missed
