"""One server under load: how to reach it, sign in, open streams, send, and measure what it uses."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import asyncpg

from app.auth import mint_token
from app.bench.posts import Posts, encode_request
from app.bench.procs import Cores, CpuMeter
from app.bench.streams import StreamRequest, Streams
from app.commands.connection import sign_token
from app.db import users
from app.exits import CommandError, Exit

if TYPE_CHECKING:
    from app.db.pool import Connection

STREAM_PATH: Final = "/api/v1/messages/stream"
SEND_PATH: Final = "/api/v1/messages/send"
SETUP_CLIENTS: Final = 32


class SkipError(Exception):
    """A profile cannot run on this server; the message says why."""


@dataclass
class Target:
    """One server to put load on."""

    host: str
    port: int
    secret: str | None  # None: tokens are signed as the other commands do
    database_url: str | None
    redis_url: str | None
    pids: Mapping[str, int] = field(default_factory=dict)  # whose processor time can be measured, by name
    cores: Cores | None = None

    @property
    def address(self) -> str:
        """What stands in `Host:`."""
        return f"{self.host}:{self.port}"

    @cached_property
    def run(self) -> str:
        """Tell this run's users from all others."""
        return secrets.token_hex(3)

    def user_ids(self, count: int, kind: str = "user") -> list[str]:
        """Name users that nobody else uses."""
        return [f"bench-{self.run}-{kind}-{number}" for number in range(count)]

    def bearer(self, user_id: str) -> dict[str, str]:
        """Sign in."""
        token = mint_token(self.secret, user_id) if self.secret is not None else sign_token(user_id)
        return {"Authorization": f"Bearer {token}"}

    def stream_requests(self, user_ids: Sequence[str]) -> list[StreamRequest]:
        """Give what opens a stream of each."""
        return [StreamRequest(user, f"{STREAM_PATH}?user_id={user}", self.bearer(user)) for user in user_ids]

    def streams(self) -> Streams:
        """Make a set of streams."""
        return Streams(self.host, self.port)

    @asynccontextmanager
    async def posts(self, clients: int) -> AsyncIterator[Posts]:
        """Open connections to send on, for use within seconds: the server closes those that say nothing."""
        posts = await Posts.connect(self.host, self.port, clients=clients)
        try:
            yield posts
        finally:
            posts.close()

    async def database(self) -> asyncpg.Connection[asyncpg.Record]:
        """Connect to the server's database. Raises SkipError when it is not known."""
        if self.database_url is None:
            raise SkipError("needs DATABASE_URL of the server")
        return await asyncpg.connect(self.database_url, server_settings={"application_name": "gapless bench"})

    def redis(self) -> str:
        """Give the URL of the server's Redis. Raises SkipError when it is not known."""
        if self.redis_url is None:
            raise SkipError("needs REDIS_URL of the server")
        return self.redis_url

    def meter(self, **others: int) -> CpuMeter:
        """Begin to measure processor time; `others` are processes that take part as well."""
        return CpuMeter({"load client": os.getpid(), **self.pids, **others}, self.cores)

    async def analyze(self) -> None:
        """Tell PostgreSQL how large its tables are, as autovacuum would within the minute.

        Until then it plans for empty ones, and a send takes several times as long.
        """
        if self.database_url is not None:
            connection = await self.database()
            try:
                await connection.execute("ANALYZE")
            finally:
                await connection.close()

    async def make_users(self, user_ids: Sequence[str]) -> None:
        """Make users that can be written to: in the database, or by signing in as each."""
        if self.database_url is not None:
            connection = await self.database()
            try:
                async with connection.transaction():
                    await users.ensure(cast("Connection", connection), user_ids)
            finally:
                await connection.close()
            await self.analyze()
            return
        requests = [encode_request("GET", "/api/v1/users/me", self.address, self.bearer(user)) for user in user_ids]
        async with self.posts(min(SETUP_CLIENTS, len(requests))) as posts:
            result = await posts.closed_loop(lambda _: requests.pop(), seconds=60, most=len(requests))
        if result.failed:
            raise CommandError(f"The server refuses users: {result.errors[0]}", Exit.REFUSED)
