"""N SSE connections from one process, against any server: opened, counted, cut, opened again.

    streams = Streams("127.0.0.1", 8000)
    await streams.open([StreamRequest("ada", "/api/v1/messages/stream?user_id=ada", {"Authorization": "..."})])
    arrived = await streams.until(1000, timeout_seconds=10)     # counted by streams.tally
    streams.close()

With `rules` of another server the same client counts that server's events (`counting.Rules`).
"""

from __future__ import annotations

import asyncio
import errno
import resource
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from app.bench.counting import GAPLESS, Rules, Tally
from app.bench.subscriber import StreamRequest, Subscriber

__all__ = ["StreamRequest", "Streams", "Subscriber", "require_descriptors"]

STREAMS_PER_SOURCE: Final = 20_000  # one pair of addresses has about 28,000 ports
OPEN_SECONDS: Final = 60.0  # for one stream, with the times it is told to come back later
SPARE_DESCRIPTORS: Final = 500  # for senders, PostgreSQL, Redis, files
BULK_SECONDS: Final = 0.002  # between two reads of all sockets, where the rate is measured and not the delay

# (stream, whole events): called for every piece that holds something that was counted.
OnPiece = Callable[["Subscriber", bytes], None]


class Streams:
    """A set of streams that are counted together; a context manager that closes them."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        rules: Rules = GAPLESS,
        host_header: str | None = None,
        on_piece: OnPiece | None = None,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        """Connect to `host`, an address, at `port`. `on_piece` sees whole events after they were counted."""
        self.host = host
        self.port = port
        self.rules = rules
        self.host_header = host_header or f"{host}:{port}"
        self.on_piece = on_piece
        self.open_seconds = open_seconds
        self.tally = Tally()
        self.subscribers: list[Subscriber] = []
        self.first_refusal: str | None = None
        self._workers: list[asyncio.Task[None]] = []
        self._is_bulk = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def read_in_bulk(self) -> None:
        """Look at the sockets once in 2 ms only, until `close`.

        A client that is woken by every event fills its own core before the server's is full, and makes whoever
        writes to it pay for the wake-up. The loop sleeps, as a whole: delays cannot be measured meanwhile.
        """
        if not self._is_bulk:
            self._is_bulk = True
            self._sleep()

    def _sleep(self) -> None:
        if self._is_bulk:
            time.sleep(BULK_SECONDS)
            asyncio.get_running_loop().call_soon(self._sleep)

    def cut(self) -> None:
        """Cut all streams at once; `reopen` brings them back."""
        for subscriber in self.subscribers:
            subscriber.cut()

    def close(self) -> None:
        """End all streams, for good."""
        self._is_bulk = False
        self.cut()
        self.subscribers = []

    async def _connect(self, subscribers: Sequence[Subscriber], concurrency: int) -> None:
        """Connect by as many workers as may be on their way: no task for each of 10,000 streams at rest."""
        waiting = iter(subscribers)

        async def work() -> None:
            for subscriber in waiting:
                try:
                    async with asyncio.timeout(self.open_seconds):
                        while not await self._try_to_open(subscriber):  # noqa: ASYNC110 - what it waits for is its turn
                            await asyncio.sleep((subscriber.retry_ms or 0) / 1000)
                except TimeoutError:
                    raise TimeoutError(f"A stream was not open after {self.open_seconds:.0f} s.") from None

        try:
            async with asyncio.TaskGroup() as group:
                self._workers = [group.create_task(work()) for _ in range(min(concurrency, len(subscribers)))]
        except* OSError as errors:  # one of hundreds that say the same; TimeoutError is among them
            raise errors.exceptions[0] from None

    async def _try_to_open(self, subscriber: Subscriber) -> bool:
        """Connect and wait until the stream is open; false when the server asks to come back later."""
        opened = subscriber.opened = asyncio.get_running_loop().create_future()
        await self._connect_one(subscriber)
        try:
            await opened
        except ConnectionError:
            if subscriber.retry_ms is None:
                raise
            return False
        return True

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
