"""One stream: its request, its connections one after the other, and what it counts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from app.bench.counting import Counter

if TYPE_CHECKING:
    from asyncio import Transport

    from app.bench.streams import Streams

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a reset, and no port left in TIME_WAIT
_RETRY: Final = re.compile(rb"retry: (\d+)")


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """How one stream is opened. `path` is the request's target, with its query."""

    key: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, host: str, *, last_event_id: str | None = None) -> bytes:
        """Write the request."""
        lines = [f"GET {self.path} HTTP/1.1", f"Host: {host}", "Accept: text/event-stream"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if last_event_id is not None:
            lines.append(f"Last-Event-ID: {last_event_id}")
        return "\r\n".join([*lines, "", ""]).encode()


class Subscriber(asyncio.Protocol):
    """One stream, over as many connections as it takes."""

    __slots__ = ("_head", "_request", "_transport", "counter", "number", "opened", "owner", "retry_ms")

    def __init__(self, owner: Streams, number: int, request: StreamRequest) -> None:
        """Belong to `owner`, as its `number`-th."""
        self.owner = owner
        self.number = number
        self.counter = Counter(owner.rules, owner.tally)
        self.opened: asyncio.Future[None] | None = None
        self.retry_ms: int | None = None  # what the last response has asked for, before it was open
        self._request = request
        self._head: bytes | None = b""  # of the response, until it is complete
        self._transport: Transport | None = None

    @property
    def key(self) -> str:
        """Whose stream this is."""
        return self._request.key

    @property
    def cursor(self) -> str | None:
        """Where this stream is, for `Last-Event-ID`."""
        if self.counter.last is None or not self.counter.epoch:
            return None
        return f"{self.counter.epoch.decode()}.{self.counter.last}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once, for what comes after the cursor, if there is one."""
        self._transport = cast("Transport", transport)
        self._head = b""
        self.retry_ms = None
        self.counter.restart()
        self._transport.write(self._request.encode(self.owner.host_header, last_event_id=self.cursor))

    def data_received(self, data: bytes) -> None:
        """Count."""
        counter = self.counter
        if self._head is not None:
            rest = self._read_head(data)
            if rest is None:
                return
            data = rest
        before = counter.received
        piece = counter.feed(data)
        if self.opened is not None:
            if counter.is_open:
                self._settle()
            elif asked := _RETRY.search(piece):
                self.retry_ms = int(asked[1])
        on_piece = self.owner.on_piece
        if on_piece is not None and counter.received != before:
            on_piece(self, piece)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note, unless it was us."""
        del exc
        if self._transport is None:
            return
        self._transport = None
        tally = self.owner.tally
        if self.counter.is_open:
            tally.opened -= 1
        if self.retry_ms is not None and not self.counter.is_open:
            tally.turned_away += 1  # an overloaded server may say so; the client comes back when it was told to
        else:
            tally.ended += 1
        self._settle(ConnectionError(f"the stream of {self.key} ended"))

    def cut(self) -> None:
        """End the connection as a lost network would: by a reset, without a word."""
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self.counter.is_open:
            self.owner.tally.opened -= 1
            self.counter.is_open = False
        raw = transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()

    def _read_head(self, data: bytes) -> bytes | None:
        """Wait for the end of the head; give what follows, or None."""
        head = (self._head or b"") + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            self._head = head
            return None
        self._head = None
        if not head.startswith(b"HTTP/1.1 200"):
            self.owner.tally.refused += 1
            self.owner.first_refusal = self.owner.first_refusal or head[:400].decode("latin-1")
            self._settle(ConnectionError(f"the stream of {self.key} was refused: {head[:60].decode('latin-1')}"))
            self.cut()
            return None
        if self.owner.rules.opened_by is None:
            self.counter.is_open = True
            self.owner.tally.opened += 1
            self._settle()
        # With the last line break: a body that is not chunked begins with its first event.
        return head[end + 3 :]

    def _settle(self, error: Exception | None = None) -> None:
        waiter, self.opened = self.opened, None
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
