"""The socket of one stream."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Protocol

from tests.history.records import Stream
from tests.history.sse import Block, EventStreamParser, ResponseParser


class Taker(Protocol):
    """Who wants the blocks."""

    def take(self, stream: Stream, block: Block) -> None: ...


class Connection(asyncio.Protocol):
    """Asks for a stream, and passes on what comes until it is cut."""

    def __init__(self, device: Taker, stream: Stream, request: bytes) -> None:
        self.heard_at = time.monotonic()
        self.has_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_closed = asyncio.Event()  # set when the socket is, one turn of the loop after the end
        self._device, self._stream, self._request = device, stream, request
        self._transport: asyncio.Transport | None = None
        self._response = ResponseParser()
        self._blocks = EventStreamParser()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self.has_ended.done():  # cut while it was being made
            transport.abort()
            return
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.has_ended.done():
            return
        self.heard_at = time.monotonic()
        body = self._response.feed(data)
        self._stream.status = self._response.status
        if self._response.status == 200:
            for block in self._blocks.feed(body):
                self._device.take(self._stream, block)
                if self.has_ended.done():  # what it was told made it leave
                    return
        if self._response.is_complete:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self.is_closed.set()

    @property
    def is_unborn(self) -> bool:
        """Whether it was never made."""
        return self._transport is None

    def cut(self) -> None:
        """End it with a RST, as a lost network would."""
        self._end()
        if self._transport is None:
            return
        raw = self._transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _end(self) -> None:
        if not self.has_ended.done():
            self.has_ended.set_result(None)
