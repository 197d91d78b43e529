"""Publishing as fast as a receiver can take it: to Redis, or by HTTP (for servers that are published to so).

Both are pipelined: nothing waits for its own answer, `settled` waits for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from app.services.messaging import redis_link

if TYPE_CHECKING:
    from asyncio import Transport

    from app.services.messaging.redis_link import RedisLink

WRITE_BYTES: Final = 256 * 1024  # handed to the socket at once
SETTLE_SECONDS: Final = 10.0


def redis_command(channel: bytes, frame: bytes) -> bytes:
    """Encode one publish. As one template: at 100,000 a second, encoding part by part would be half of the client."""
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(frame), frame)


class RedisFeed:
    """A pipelined connection to Redis that counts what is published and what nobody received."""

    def __init__(self) -> None:
        """Call `connect` next."""
        self.sent = 0
        self.answered = 0
        self.without_receiver = 0
        self.errors: list[str] = []
        self._link: RedisLink | None = None
        self._all_answered: asyncio.Event = asyncio.Event()
        self._is_lost = False

    @classmethod
    async def connect(cls, url: str) -> RedisFeed:
        """Open the connection. Raises one of redis_link.LINK_ERRORS."""
        feed = cls()
        feed._link = await redis_link.open_link(
            url, on_reply=feed._on_reply, on_lost=feed._on_lost, name="gapless-bench"
        )
        return feed

    def write(self, commands: Iterable[bytes]) -> int:
        """Send encoded commands (`redis_command`); gives their number."""
        if self._link is None or self._is_lost:
            raise ConnectionError("The connection to Redis is lost.")
        count, size, part = 0, 0, []
        for command in commands:
            part.append(command)
            count += 1
            size += len(command)
            if size >= WRITE_BYTES:
                self._link.write(b"".join(part))
                size, part = 0, []
        if part:
            self._link.write(b"".join(part))
        self.sent += count
        self._all_answered.clear()
        return count

    async def settled(self) -> None:
        """Wait until everything is answered. Raises TimeoutError after 10 s, ConnectionError if that is lost."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while self.answered < self.sent:
                if self._is_lost:
                    raise ConnectionError("The connection to Redis is lost.")
                self._all_answered.clear()
                await self._all_answered.wait()

    def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            self._link.abort()

    def _on_reply(self, reply: object) -> None:
        self.answered += 1
        if reply == 0:
            self.without_receiver += 1
        elif isinstance(reply, Exception):
            self.errors.append(str(reply))
        if self.answered >= self.sent:
            self._all_answered.set()

    def _on_lost(self) -> None:
        self._is_lost = True
        self._all_answered.set()


class HttpFeed(asyncio.Protocol):
    """HTTP requests, pipelined on one keep-alive connection; answers are counted, not read.

    For servers that are published to by HTTP. Every answer must begin with `HTTP/1.1 ` and have no such text
    in its body.
    """

    def __init__(self) -> None:
        """Call `connect` next."""
        self.sent = 0
        self.answered = 0
        self.refused = 0  # answers other than 2xx
        self._transport: Transport | None = None
        self._tail = b""
        self._moved = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()

    @classmethod
    async def connect(cls, host: str, port: int) -> HttpFeed:
        """Open the connection."""
        _, feed = await asyncio.get_running_loop().create_connection(cls, host, port)
        return feed

    def write(self, requests: Iterable[bytes]) -> int:
        """Send encoded requests (`posts.encode_request`); gives their number."""
        if self._transport is None:
            raise ConnectionError("The connection is lost.")
        batch = list(requests)
        self._transport.write(b"".join(batch))
        self.sent += len(batch)
        return len(batch)

    async def settled(self, *, at_most_unanswered: int = 0) -> None:
        """Wait until no more than so many are unanswered. Raises TimeoutError after 10 s without that."""
        async with asyncio.timeout(SETTLE_SECONDS):
            await self._may_write.wait()
            while self.sent - self.answered > at_most_unanswered:
                if self._transport is None:
                    raise ConnectionError("The connection is lost.")
                self._moved.clear()
                await self._moved.wait()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Count status lines, those in two pieces as well."""
        text = self._tail + data
        # Up to the class of the status: "HTTP/1.1 2". What is shorter may be the beginning of one.
        answers = text.count(b"HTTP/1.1 ", 0, len(text) - 1)
        self.answered += answers
        self.refused += answers - text.count(b"HTTP/1.1 2")
        self._tail = text[-9:]
        self._moved.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        del exc
        self._transport = None
        self._moved.set()

    def pause_writing(self) -> None:
        """The socket is full."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """The socket takes more."""
        self._may_write.set()
