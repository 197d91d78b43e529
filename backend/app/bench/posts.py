"""N keep-alive HTTP connections with one request in flight each: as many as possible, or so many a second.

    posts = await Posts.connect("127.0.0.1", 8000, clients=128)
    result = await posts.closed_loop(lambda client: encode_request("POST", "/send", host, headers, body), seconds=5)
    result.per_second, result.latency.percentile(99)

The bytes of a request are made by the caller just before it leaves. Answers need a Content-Length.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from app.bench.latency import Latencies

if TYPE_CHECKING:
    from asyncio import Transport

ANSWER_SECONDS: Final = 30.0  # past it a request counts as an error, whatever comes
TICK_SECONDS: Final = 0.001  # of the open loop; the resolution of uvloop's timers

MakeRequest = Callable[[int], bytes]  # number of the client → request
OnAnswer = Callable[[int, int, bytes], None]  # number of the client, status, body


def encode_request(method: str, path: str, host: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Write a request; with a body, of JSON unless `headers` say otherwise."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        if not any(name.lower() == "content-type" for name in headers):
            lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(slots=True)
class PostResult:
    """What came of the requests of one run."""

    seconds: float = 0.0
    answered: int = 0
    late: int = 0  # open loop: requests that found every connection busy
    statuses: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)  # the first few answers that were none, or not 2xx
    failed: int = 0
    latency: Latencies = field(default_factory=Latencies)

    @property
    def per_second(self) -> float:
        """Successful answers a second."""
        return (self.answered - self.failed) / self.seconds if self.seconds else 0.0

    def fail(self, what: str) -> None:
        """Count a request that did not succeed."""
        self.failed += 1
        if len(self.errors) < 5:  # noqa: PLR2004 - the first few say what is wrong
            self.errors.append(what)


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    __slots__ = ("_body_bytes", "_buffer", "_done", "_transport", "is_busy", "number", "started")

    def __init__(self, number: int) -> None:
        """Be the `number`-th."""
        self.number = number
        self.is_busy = False
        self.started = 0.0  # when the request in flight was due, by time.perf_counter
        self._transport: Transport | None = None
        self._done: Callable[[Connection, int, bytes], None] | None = None
        self._buffer = b""
        self._body_bytes = -1  # end of the answer in the buffer; -1 until its head is complete

    def send(self, request: bytes, *, started: float, done: Callable[[Connection, int, bytes], None]) -> None:
        """Send a request; `done(self, status, body)` follows, with status 0 if the connection ends."""
        self.is_busy, self.started, self._done = True, started, done
        if self._transport is None:
            self._finish(0, b"the connection is closed")
        else:
            self._transport.write(request)

    def close(self) -> None:
        """End the connection without another word."""
        self._done = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read one answer to its end."""
        self._buffer = self._buffer + data if self._buffer else data
        if self._body_bytes < 0:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = self._buffer[:head_end].lower()
            _, found, length = head.partition(b"\r\ncontent-length:")
            if not found and head[9:12] not in {b"204", b"304"}:
                self._finish(0, b"an answer without Content-Length")
                self.close()
                return
            self._body_bytes = head_end + 4 + (int(length.partition(b"\r\n")[0]) if found else 0)
        if len(self._buffer) >= self._body_bytes:
            answer, self._buffer, end = self._buffer, b"", self._body_bytes
            self._body_bytes = -1
            body_start = answer.find(b"\r\n\r\n") + 4
            self._finish(int(answer[9:12]), answer[body_start:end])

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request in flight."""
        self._transport = None
        if self.is_busy:
            self._finish(0, f"the connection ended ({type(exc).__name__})".encode())

    def _finish(self, status: int, body: bytes) -> None:
        done, self._done, self.is_busy = self._done, None, False
        if done is not None:
            done(self, status, body)


class Posts:
    """A set of connections."""

    def __init__(self, connections: list[Connection]) -> None:
        """Use open connections; `connect` makes them."""
        self.connections = connections

    @classmethod
    async def connect(cls, host: str, port: int, *, clients: int) -> Posts:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        opened = [await loop.create_connection(lambda n=n: Connection(n), host, port) for n in range(clients)]  # type: ignore[misc]
        return cls([protocol for _, protocol in opened])

    def close(self) -> None:
        """Close the connections."""
        for connection in self.connections:
            connection.close()

    async def closed_loop(
        self, make_request: MakeRequest, *, seconds: float, most: int | None = None, on_answer: OnAnswer | None = None
    ) -> PostResult:
        """Keep one request of every client in flight for so long, or for `most` requests, and wait for the last."""
        run = _ClosedLoop(self.connections, make_request, on_answer)
        return await run.run(seconds, most)

    async def open_loop(
        self,
        make_request: MakeRequest,
        *,
        per_second: float,
        seconds: float,
        on_answer: OnAnswer | None = None,
        stop: asyncio.Event | None = None,
    ) -> PostResult:
        """Send so many a second, at random moments (Poisson), however slow the answers are, until `stop` is set.

        A request that finds every connection busy waits for one, and its time counts from when it was due:
        a slow server must not be asked less.
        """
        run = _OpenLoop(self.connections, make_request, on_answer)
        return await run.run(per_second, seconds, stop)


class _Loop(ABC):
    """What both loops do with a request and its answer."""

    def __init__(self, connections: list[Connection], make_request: MakeRequest, on_answer: OnAnswer | None) -> None:
        self.connections = connections
        self.result = PostResult()
        self._make_request = make_request
        self._on_answer = on_answer
        self._in_flight = 0
        self._drained = asyncio.Event()

    def send(self, connection: Connection, *, due: float | None = None) -> None:
        self._in_flight += 1
        request = self._make_request(connection.number)
        connection.send(request, started=due or time.perf_counter(), done=self._done)

    @abstractmethod
    def next(self, connection: Connection) -> None:
        """A connection is free: send its next request, or let it rest."""

    async def finish(self, start: float) -> PostResult:
        if self._in_flight:
            self._drained.clear()  # it may have been so before
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._drained.wait()
            except TimeoutError:
                self.result.fail(f"no answer within {ANSWER_SECONDS:.0f} s")
        self.result.seconds = time.perf_counter() - start
        return self.result

    def _done(self, connection: Connection, status: int, body: bytes) -> None:
        self._in_flight -= 1
        result = self.result
        result.latency.add(time.perf_counter() - connection.started)
        result.answered += 1
        result.statuses[status] += 1
        if not 200 <= status < 300:  # noqa: PLR2004 - RFC 9110, 15.3
            result.fail(f"{status or 'no answer'}: {body[:200].decode('latin-1')}")
        if self._on_answer is not None:
            self._on_answer(connection.number, status, body)
        if status:
            self.next(connection)
        if not self._in_flight:
            self._drained.set()


class _ClosedLoop(_Loop):
    """Each connection sends again as soon as it is answered."""

    _stop_at = 0.0
    _left = -1

    async def run(self, seconds: float, most: int | None) -> PostResult:
        start = time.perf_counter()
        self._stop_at = start + seconds
        self._left = most if most is not None else -1
        for connection in self.connections:
            self.next(connection)
        if self._in_flight:
            async with asyncio.timeout(seconds + ANSWER_SECONDS):
                await self._drained.wait()
        return await self.finish(start)

    def next(self, connection: Connection) -> None:
        if self._left != 0 and time.perf_counter() < self._stop_at:
            self._left -= 1
            self.send(connection)


class _OpenLoop(_Loop):
    """Requests come by the clock."""

    async def run(self, per_second: float, seconds: float, stop: asyncio.Event | None) -> PostResult:
        self._idle = list(self.connections)
        self._overdue: deque[float] = deque()
        rng = random.Random(7)  # noqa: S311 - the same moments in every run
        start = time.perf_counter()
        due = start + rng.expovariate(per_second)
        while (now := time.perf_counter()) < start + seconds and not (stop is not None and stop.is_set()):
            while due <= now:
                due += rng.expovariate(per_second)
                if self._idle:
                    self.send(self._idle.pop())
                else:
                    self.result.late += 1
                    self._overdue.append(now)
            await asyncio.sleep(TICK_SECONDS)
        return await self.finish(start)

    def next(self, connection: Connection) -> None:
        if self._overdue:
            self.send(connection, due=self._overdue.popleft())
        else:
            self._idle.append(connection)
