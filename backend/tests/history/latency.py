"""A network between two programs of one machine: every byte arrives a little later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def delayed(target_port: int, seconds: float) -> AsyncIterator[int]:
    """Give a port that leads to `target_port` on loopback, `seconds` away in each direction."""
    loop = asyncio.get_running_loop()
    ends: set[_End] = set()
    dials: set[asyncio.Task[None]] = set()

    async def dial(near: _End) -> None:
        far = _End(seconds, ends)
        far.peer, near.peer = near, far
        try:
            await loop.create_connection(lambda: far, "127.0.0.1", target_port)
        except OSError:
            near.abort()

    def accept() -> _End:
        near = _End(seconds, ends)
        task = loop.create_task(dial(near))
        dials.add(task)
        task.add_done_callback(dials.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*dials)
                for end in list(ends):
                    end.abort()
                    await end.is_closed.wait()


class _End(asyncio.Protocol):
    """One socket; what it reads its peer writes, later."""

    def __init__(self, seconds: float, ends: set[_End]) -> None:
        self.peer: _End | None = None
        self.is_closed = asyncio.Event()
        self._seconds, self._ends = seconds, ends
        self._transport: asyncio.Transport | None = None
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ends.add(self)
        if self.peer is not None and self.peer.is_closed.is_set():
            transport.abort()
        transport.write(self._waiting)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._seconds, self._pass_on, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed.set()
        self._ends.discard(self)
        if self.peer is not None:
            self.peer.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _pass_on(self, data: bytes) -> None:
        peer = self.peer
        assert peer is not None  # dialled at once: the loop has turned since
        if peer._transport is None:
            peer._waiting += data
        elif not peer._transport.is_closing():
            peer._transport.write(data)
