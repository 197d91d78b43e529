"""A client of the SSE stream for tests: a bare socket, every byte kept."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
import urllib.parse
from dataclasses import dataclass, field

from tests.support.servers import Server, token_for


@dataclass(frozen=True)
class Event:
    """One block of the stream, dispatched or not."""

    raw: bytes
    id: str | None
    name: str
    data: str
    retry: int | None
    comment: str | None
    at: float

    @property
    def json(self) -> dict:
        return json.loads(self.data)


@dataclass
class StreamClient:
    """Holds a stream as EventSource would: keeps the cursor, and reconnects when told to."""

    server: Server
    user: str
    cursor: str | None = None
    token: str | None = None
    retry_ms: int = 3000
    events: list[Event] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_closed: bool = False
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _body: bytes = b""
    _taken: int = 0

    async def open(self, server: Server | None = None, *, receive_buffer: int | None = None) -> StreamClient:
        """Connect, with the cursor if there is one, and read the head of the response."""
        self.cut()
        self.server = server or self.server
        query = urllib.parse.urlencode({"user_id": self.user})
        lines = [
            f"GET /api/v1/messages/stream?{query} HTTP/1.1",
            f"Host: 127.0.0.1:{self.server.port}",
            f"Authorization: Bearer {self.token or token_for(self.user)}",
            "Accept: text/event-stream",
        ]
        if self.cursor:
            lines.append(f"Last-Event-ID: {self.cursor}")
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.server.port))
        except BaseException:
            connection.close()
            raise
        self._reader, self._writer = await asyncio.open_connection(sock=connection, limit=2**22)
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 15)).decode()
        self.status = int(head.split()[1])
        self.headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n")[1:]) if name
        }
        self._body = b""
        self.is_closed = False
        return self

    async def connected(self, server: Server | None = None) -> StreamClient:
        """Open, and wait for `connected`."""
        await self.open(server)
        await self.until("connected")
        return self

    async def next(self, timeout_seconds: float = 5) -> Event:
        """Give the next block. Raises EOFError at the end of the response, TimeoutError without one."""
        async with asyncio.timeout(timeout_seconds):
            while b"\n\n" not in self._body:
                self._body += await self._chunk()
        block, _, self._body = self._body.partition(b"\n\n")
        event = parse_block(block + b"\n\n")
        if event.id is not None:
            self.cursor = event.id
        if event.retry is not None:
            self.retry_ms = event.retry
        self.events.append(event)
        return event

    async def until(self, name: str, timeout_seconds: float = 5) -> Event:
        """Give the next event of this name; those before it are kept in `events`."""
        async with asyncio.timeout(timeout_seconds):
            while True:
                event = await self.next(timeout_seconds)
                if event.name == name and event.data:
                    return event

    async def until_id(self, cursor: str, timeout_seconds: float = 5) -> None:
        """Read up to the block that makes `cursor` the one to come back with; a heartbeat may come before it."""
        async with asyncio.timeout(timeout_seconds):
            while (event := await self.next(timeout_seconds)).id != cursor:
                assert event.name == "heartbeat", event

    async def messages(self, count: int, timeout_seconds: float = 5) -> list[dict]:
        """Give the data of the next `count` messages."""
        async with asyncio.timeout(timeout_seconds):
            return [(await self.until("new_message", timeout_seconds)).json for _ in range(count)]

    async def silence(self, seconds: float, allowed: tuple[str, ...] = ("heartbeat",)) -> None:
        """Fail if anything but `allowed` arrives within `seconds`."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            try:
                event = await self.next(rest)
            except TimeoutError:
                return
            assert event.name in allowed, event

    async def until_end(self, timeout_seconds: float = 20) -> list[Event]:
        """Read to the end of the response; give what came."""
        start = len(self.events)
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    await self.next(timeout_seconds)
                except (EOFError, ConnectionError):
                    return self.events[start:]

    def stop_reading(self) -> None:
        """Leave what comes in the kernel's buffer."""
        self._transport.pause_reading()

    def go_on_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    @property
    def local_port(self) -> int:
        """The port of this end of the connection."""
        return self._transport.get_extra_info("sockname")[1]

    @property
    def _transport(self) -> asyncio.Transport:
        assert self._writer is not None
        return self._writer.transport  # type: ignore[return-value]

    def cut(self) -> None:
        """Break the connection with a RST, as a lost network would."""
        if self._writer is not None:
            raw = self._writer.get_extra_info("socket")
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            self._writer = None
            self.is_closed = True

    @property
    def seqs(self) -> list[int]:
        """The seqs of everything that carried an `id:` with data."""
        return [int(event.id.split(".")[1]) for event in self.events if event.id and event.data]

    @property
    def contents(self) -> list[str]:
        """The contents of all messages that came."""
        return [event.json["content"] for event in self.events if event.name == "new_message" and event.data]

    async def _chunk(self) -> bytes:
        assert self._reader is not None
        try:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            data = await self._reader.readexactly(size + 2)
        except asyncio.IncompleteReadError as error:
            self.is_closed = True
            raise EOFError from error
        if size == 0:
            self.is_closed = True
            raise EOFError
        self.raw += data[:-2]
        return data[:-2]


def parse_block(block: bytes) -> Event:
    """Read one block (WHATWG HTML, 9.2.6)."""
    event_id = retry = comment = None
    name, data = "message", []
    for line in block.decode().split("\n"):
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith(":"):
            comment = line[1:]
        elif key == "id":
            event_id = value
        elif key == "event":
            name = value
        elif key == "data":
            data.append(value)
        elif key == "retry":
            retry = int(value)
    return Event(block, event_id, name, "\n".join(data), retry, comment, time.monotonic())
