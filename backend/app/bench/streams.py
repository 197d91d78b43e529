"""N SSE connections from one process, against any server: opened, counted, cut, opened again.

    streams = Streams("127.0.0.1", 8000)
    await streams.open([StreamRequest("ada", "/api/v1/messages/stream?user_id=ada", {"Authorization": "..."})])
    arrived = await streams.until(1000, timeout_seconds=10)     # counted by streams.tally
    streams.close()

With `rules` of another server the same client counts that server's events (`counting.Rules`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from app.bench.counting import GAPLESS, Counter, Rules, Tally

if TYPE_CHECKING:
    from asyncio import Transport

STREAMS_PER_SOURCE: Final = 20_000  # one pair of addresses has about 28,000 ports
OPEN_SECONDS: Final = 30.0
SPARE_DESCRIPTORS: Final = 500  # for senders, PostgreSQL, Redis, files
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: a reset, and no port left in TIME_WAIT

# (stream, whole events): called for every piece that holds something that was counted.
OnPiece = Callable[["Subscriber", bytes], None]


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

    __slots__ = ("_head", "_request", "_transport", "counter", "number", "opened", "owner")

    def __init__(self, owner: Streams, number: int, request: StreamRequest) -> None:
        """Belong to `owner`, as its `number`-th."""
        self.owner = owner
        self.number = number
        self.counter = Counter(owner.rules, owner.tally)
        self.opened: asyncio.Future[None] | None = None
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
        if self.opened is not None and counter.is_open:
            self._settle()
        on_piece = self.owner.on_piece
        if on_piece is not None and counter.received != before:
            on_piece(self, piece)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note, unless it was us."""
        del exc
        if self._transport is None:
            return
        self._transport = None
        if self.counter.is_open:
            self.owner.tally.opened -= 1
        self.owner.tally.ended += 1
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


class Streams:
    """A set of streams that are counted together."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        rules: Rules = GAPLESS,
        host_header: str | None = None,
        on_piece: OnPiece | None = None,
    ) -> None:
        """Connect to `host`, an address, at `port`. `on_piece` sees whole events after they were counted."""
        self.host = host
        self.port = port
        self.rules = rules
        self.host_header = host_header or f"{host}:{port}"
        self.on_piece = on_piece
        self.tally = Tally()
        self.subscribers: list[Subscriber] = []
        self.first_refusal: str | None = None
        self._workers: list[asyncio.Task[None]] = []

    async def open(self, requests: Sequence[StreamRequest], *, concurrency: int = 500) -> None:
        """Open more streams; returns when all of them are open. Raises ConnectionError or TimeoutError.

        `concurrency`: how many may be on their way at once.
        """
        first = len(self.subscribers)
        require_descriptors(first + len(requests))
        fresh = [Subscriber(self, first + place, request) for place, request in enumerate(requests)]
        self.subscribers += fresh
        await self._connect(fresh, concurrency)

    async def reopen(self, *, concurrency: int) -> None:
        """Open every stream that was cut, from its cursor, as browsers do after a lost network."""
        closed = [subscriber for subscriber in self.subscribers if not subscriber.counter.is_open]
        await self._connect(closed, concurrency)

    async def until(self, total: int, *, timeout_seconds: float) -> bool:
        """Wait until `total` events have been received, over all streams and since the beginning."""
        tally = self.tally
        if tally.received >= total:
            return True
        tally.waiter = asyncio.get_running_loop().create_future()
        tally.waiting_for = total
        try:
            async with asyncio.timeout(timeout_seconds):
                await tally.waiter
        except TimeoutError:
            return False
        finally:
            tally.waiter = tally.waiting_for = None
        return True

    def cut(self) -> None:
        """Cut all streams at once; `reopen` brings them back."""
        for subscriber in self.subscribers:
            subscriber.cut()

    def close(self) -> None:
        """End all streams, for good."""
        self.cut()
        self.subscribers = []

    async def _connect(self, subscribers: Sequence[Subscriber], concurrency: int) -> None:
        """Connect by as many workers as may be on their way: no task for each of 10,000 streams at rest."""
        waiting = iter(subscribers)

        async def work() -> None:
            for subscriber in waiting:
                subscriber.opened = asyncio.get_running_loop().create_future()
                try:
                    async with asyncio.timeout(OPEN_SECONDS):
                        await self._connect_one(subscriber)
                        await subscriber.opened
                except TimeoutError:
                    raise TimeoutError(f"A stream was not open after {OPEN_SECONDS:.0f} s.") from None

        try:
            async with asyncio.TaskGroup() as group:
                self._workers = [group.create_task(work()) for _ in range(min(concurrency, len(subscribers)))]
        except* OSError as errors:  # one of hundreds that say the same; TimeoutError is among them
            raise errors.exceptions[0] from None

    async def _connect_one(self, subscriber: Subscriber) -> None:
        source = subscriber.number // STREAMS_PER_SOURCE
        # The first ones leave it to the kernel, which can share ports then; the others need another address.
        local = (f"127.0.0.{1 + source}", 0) if source and self.host.startswith("127.") else None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: subscriber, self.host, self.port, local_addr=local
            )
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.EADDRNOTAVAIL}:
                raise ConnectionError(f"This machine has no more descriptors or ports: {error}") from error
            raise


def require_descriptors(streams: int) -> None:
    """Raise this process's limit as far as it goes. Raises ConnectionError when that is not enough."""
    needed = streams + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ConnectionError(
            f"{streams:,} streams need {needed:,} descriptors; the limit here is {hard:,} (ulimit -n)."
        )
