"""A client on a bare socket that reads as slowly as it is told to, and comes back with its cursor."""

from __future__ import annotations

import asyncio
import socket
import struct
import urllib.parse
from collections.abc import Callable

import orjson

from tests.history.sse import EventStreamParser, ResponseParser
from tests.support.servers import token_for

RECEIVE_BUFFER_BYTES = 4096
CONNECT_SECONDS = 5.0


class Reader:
    """Keeps every message that it got, over all of its connections."""

    def __init__(self, user: str, *, host: str = "127.0.0.1", new_socket: Callable[[], socket.socket] = socket.socket):
        self.user = user
        self.cursor: str | None = None
        self.seqs: list[int] = []
        self.contents: list[str] = []
        self.names: list[str] = []
        self.reloads: list[str] = []  # why it was told to
        self._host, self._new_socket = host, new_socket
        self._socket: socket.socket | None = None
        self._response, self._blocks = ResponseParser(), EventStreamParser()

    async def open(self, port: int, *, buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> None:
        """Connect and ask; reads nothing yet."""
        self.cut()
        self._socket = self._new_socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._response, self._blocks = ResponseParser(), EventStreamParser()
        lines = [
            f"GET /api/v1/messages/stream?{urllib.parse.urlencode({'user_id': self.user})} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {token_for(self.user)}",
        ]
        if self.cursor:
            lines.append(f"Last-Event-ID: {self.cursor}")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            await loop.sock_connect(self._socket, (self._host, port))
            await loop.sock_sendall(self._socket, ("\r\n".join(lines) + "\r\n\r\n").encode())

    async def read(self, most_bytes: int = 65536) -> bool:
        """Read once; false at the end of the connection."""
        assert self._socket is not None
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, most_bytes)
        except ConnectionError:
            return False
        for block in self._blocks.feed(self._response.feed(data)) if data else ():
            self.cursor = block.id or self.cursor
            if block.data is not None:
                self.names.append(block.name)
            if block.data is not None and block.name == "resync":
                told = orjson.loads(block.data)
                self.reloads += [told["reason"]] if told["scope"] == "all" else []
            if block.data is not None and block.name == "new_message":
                assert block.id is not None
                self.seqs.append(int(block.id.partition(".")[2]))
                self.contents.append(orjson.loads(block.data)["content"])
        return bool(data) and not self._response.is_complete

    async def until_connected(self, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while "connected" not in self.names:
                assert await self.read(), f"the stream of {self.user} ended before it was open"

    async def trickle(self, *, bytes_per_second: int) -> None:
        """Read that much, until the connection ends or the caller has enough."""
        while await self.read(bytes_per_second):
            await asyncio.sleep(1)

    async def read_all(self, port: int, count: int, *, seconds: float = 30) -> None:
        """Read until there are so many messages; come back with the cursor where the connection ends."""
        async with asyncio.timeout(seconds):
            while len(self.seqs) < count:
                if not await self.read():
                    await self.open(port, buffer_bytes=2**18)

    def cut(self) -> None:
        """Reset the connection."""
        raw, self._socket = self._socket, None
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raw.close()
