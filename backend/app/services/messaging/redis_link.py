"""One connection to Redis, read without a task per reply.

The library connects, negotiates TLS, authenticates and selects; then a protocol with a hiredis reader
takes over its transport. Replies come in the order of the commands (RESP2), on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import hiredis
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from redis.asyncio import Connection

CONNECT_SECONDS = 1.0

# What a failed attempt to connect raises, the library's own errors included.
LINK_ERRORS = (OSError, TimeoutError, RedisError, EOFError)


class RedisLink(asyncio.Protocol):
    """An open connection. `on_reply` gets every reply, `on_lost` is called once when it ends."""

    def __init__(self, on_reply: Callable[[object], None], on_lost: Callable[[], None]) -> None:
        """Hold the callbacks; `open_link` makes the connection."""
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._writer: asyncio.StreamWriter | None = None  # kept: its finalizer would close the transport
        self._transport: asyncio.Transport | None = None

    def adopt(self, connection: Connection) -> None:
        """Take over the transport of a connection that the library has opened."""
        # Private, and pinned by the lock file and a test: there is no public way to its transport, and none
        # of ours to its TLS, ACL and Unix sockets.
        self._writer = cast("asyncio.StreamWriter", connection._writer)  # noqa: SLF001
        connection._writer = connection._reader = None  # noqa: SLF001 - or its finalizer would close the socket
        self._transport = cast("asyncio.Transport", self._writer.transport)
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    def write(self, commands: bytes) -> None:
        """Send encoded commands. After the end of the connection it does nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(commands)

    def pause(self) -> None:
        """Read nothing more than what is being read, until `resume`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection at once; `on_lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read replies and hand them on."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner, once."""
        del exc
        self._transport = None
        self._on_lost()


async def open_link(
    url: str, *, on_reply: Callable[[object], None], on_lost: Callable[[], None], name: str
) -> RedisLink:
    """Connect within 2 s. Raises one of LINK_ERRORS, and whatever the library makes of a URL that it cannot use."""
    pool = ConnectionPool.from_url(
        url,
        protocol=2,
        client_name=name,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=CONNECT_SECONDS,
    )
    connection: Connection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            await connection.connect()  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # uvloop's word for one that was cut in the middle of the handshake
        raise ConnectionError("The connection was lost while it was being made.") from error
    link = RedisLink(on_reply, on_lost)
    link.adopt(connection)
    return link


def encode(*arguments: bytes) -> bytes:
    """Encode one command (RESP: an array of bulk strings)."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts.extend(b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments)
    return b"".join(parts)
