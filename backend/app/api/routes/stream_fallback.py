"""The wire of an ASGI server that offers nothing of its own: plain `send`, behind a bounded buffer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Receive, Send

    from app.events import Frame, Run
    from app.services.messaging.sse_stream import Stream

HIGH_WATER_BYTES: Final = 64 * 1024


class SendWire:
    """Writes through ASGI's `send`, one task per stream. Implements the port `Wire`."""

    def __init__(self, send: Send) -> None:
        """Write through `send`, once the endpoint has sent the head of the response."""
        self._send = send
        self._stream: Stream | None = None
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._is_open = True
        self._has_data = asyncio.Event()
        self._is_below = asyncio.Event()
        self._is_below.set()
        self._closed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def write(self, data: bytes, frame: Frame | Run | None = None) -> None:
        """Buffer whole events; the pump sends them."""
        del frame  # the server does its own framing
        if not self._is_open:
            return
        self._buffer.append(data)
        self._buffered_bytes += len(data)
        self._has_data.set()
        if self._buffered_bytes > HIGH_WATER_BYTES:
            self._is_below.clear()
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._run())

    def is_full(self) -> bool:
        """Whether the client is behind."""
        return not self._is_below.is_set()

    async def drained(self) -> bool:
        """Wait until the client has read; false when the stream has ended."""
        await self._is_below.wait()
        return self._is_open

    def end(self, abort_after_seconds: float) -> None:
        """Send what is buffered, for so long; then give up."""
        if self._is_open:
            self._is_open = False
            self._has_data.set()
            self._is_below.set()
            asyncio.get_running_loop().call_later(abort_after_seconds, self._abort)
            if self._pump is None:
                self._closed.set()

    def has_gone(self) -> bool:
        """Say that the client is there: a server without the extension tells at the end of `hold` only."""
        return False

    def begin(self, stream: Stream) -> None:
        """Serve `stream`: the head of the response has been sent."""
        self._stream = stream

    async def hold(self, receive: Receive) -> None:
        """Wait until the client goes, or the stream ends and has been sent; then finish the response."""
        gone = asyncio.ensure_future(_disconnected(receive))
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((gone, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            closed.cancel()
            if not self._closed.is_set():
                self._abort()
            if self._stream is not None:
                self._stream.end("disconnected")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _abort(self) -> None:
        self._is_open = False
        self._is_below.set()
        self._closed.set()
        if self._pump is not None:
            self._pump.cancel()

    async def _run(self) -> None:
        try:
            while self._is_open or self._buffer:
                await self._has_data.wait()
                self._has_data.clear()
                data, self._buffer, self._buffered_bytes = b"".join(self._buffer), [], 0
                if data:
                    await self._send({"type": "http.response.body", "body": data, "more_body": True})
                if not self._buffered_bytes:
                    self._is_below.set()
        except OSError:  # the client has gone: ASGI servers differ in whether they say so
            self._is_open = False
        finally:
            self._is_below.set()
            self._closed.set()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
