"""Bare sockets against a server, and what the outside can see of it: channels, descriptors, memory."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.support.servers import Server, token_for

STREAM = "/api/v1/messages/stream"


@dataclass(frozen=True)
class Answer:
    """One whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Raw:
    """A connection on which anything may be said."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, server: Server, first: bytes = b"") -> Raw:
        raw = cls(*await asyncio.wait_for(asyncio.open_connection("127.0.0.1", server.port, limit=2**22), 10))
        raw.write(first)
        return raw

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, mark: bytes, seconds: float = 10) -> bytes:
        """Read up to and including `mark`."""
        return await asyncio.wait_for(self.reader.readuntil(mark), seconds)

    async def answer(self, seconds: float = 10) -> Answer:
        """Read one response with a Content-Length."""
        head = (await self.until(b"\r\n\r\n", seconds)).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:]) if name}
        length = int(headers.get("content-length", "0"))
        body = await asyncio.wait_for(self.reader.readexactly(length), seconds)
        return Answer(int(head[0].split()[1]), headers, body)

    async def rest(self, seconds: float) -> bytes:
        """Read to the end of the connection, a RST included. Raises TimeoutError while it is open."""
        data = bytearray()
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                while chunk := await self.reader.read(65536):
                    data += chunk
        return bytes(data)

    def half_close(self) -> None:
        """Say FIN, and go on to read."""
        self.writer.write_eof()

    def reset(self) -> None:
        """End with RST."""
        raw = self.writer.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def stream_request(user: str, *headers: str, version: str = "1.1", token: str | None = None, query: str = "") -> bytes:
    """Write the request that opens the stream of `user`."""
    lines = [
        f"GET {STREAM}?user_id={user}{query} HTTP/{version}",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {token or token_for(user)}",
        *headers,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def request(method: str, target: str, *headers: str, body: bytes = b"", user: str | None = None) -> bytes:
    """Write any other request; `target` goes out as it is, one byte a character."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *headers]
    if user:
        lines.append(f"Authorization: Bearer {token_for(user)}")
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def redis_of(url: str) -> redis.Redis:
    """What a foreign program would say to the test's Valkey."""
    return redis.Redis.from_url(url, socket_timeout=5)


def watched(url: str) -> set[str]:
    """Give the users whose channels somebody listens on: streams are open, or have leaked."""
    with redis_of(url) as client:
        names = client.execute_command("PUBSUB", "CHANNELS", "user:*")
    return {name.decode().removeprefix("user:") for name in names}


def subscriber_ids(url: str) -> set[str]:
    """Name the subscribed connections of all processes: another one after a reconnect."""
    with redis_of(url) as client:
        return {str(entry["id"]) for entry in client.client_list() if entry["name"] == "gapless-subscriber"}


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


async def eventually(is_true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until what can only be looked at has come true."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
