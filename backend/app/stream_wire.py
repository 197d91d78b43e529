"""A stream's way to its client on uvicorn: straight to the transport, without uvicorn's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from starlette.types import Receive

    from app.events import Frame, Run
    from app.server import GaplessProtocol
    from app.services.messaging.sse_stream import Stream

SEND_BUFFER_BYTES: Final = 128 * 1024
END_OF_RESPONSE: Final = b"0\r\n\r\n"  # the last chunk (RFC 9112, 7.1)


class TransportWire(asyncio.Protocol):
    """A stream's way to its client, and the protocol of its connection once it is open. Implements the port `Wire`.

    From the head of the response on the stream owns the connection: uvicorn's protocol, its parser, the
    request and the task that answered it are let go. A stream at rest is this object, its transport and
    itself; most of what it would hold otherwise the garbage collector would look at again and again.
    """

    __slots__ = (
        "_beginning",
        "_connections",
        "_is_full",
        "_is_open",
        "_loop",
        "_protocol",
        "_stream",
        "_transport",
        "_writable",
    )

    def __init__(self, protocol: GaplessProtocol) -> None:
        """Prepare to take over the connection of `protocol`; the response has not begun."""
        self._protocol: GaplessProtocol | None = protocol  # None once it has been taken over
        # uvicorn waits for whoever is in here when it ends, and asks each of them to shut down.
        self._connections = cast("set[asyncio.Protocol]", protocol.connections)
        self._transport = protocol.transport
        self._loop = protocol.loop
        self._stream: Stream | None = None
        self._is_open = True
        self._is_full = False
        self._beginning: list[bytes] | None = None  # what an opening stream writes, up to its first wait
        self._writable: asyncio.Future[None] | None = None
        raw_socket = self._transport.get_extra_info("socket")
        if raw_socket is not None:
            with contextlib.suppress(OSError):  # gone already
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    # --- What the stream asks for ----------------------------------------------------------------

    def write(self, data: bytes, frame: Frame | Run | None = None) -> None:
        """Write whole events. Does nothing once the stream has ended or the connection is gone."""
        if not self._is_open or self._transport.is_closing():
            return
        if self._beginning is not None:
            self._beginning.append(data)
            return
        try:
            self._transport.write(frame.chunk if frame is not None else b"%x\r\n%b\r\n" % (len(data), data))
        except RuntimeError:  # uvloop: closed between the look and the write
            self._is_open = False

    def is_full(self) -> bool:
        """Whether the transport holds more than its high-water mark (64 KB)."""
        return self._is_full

    async def drained(self) -> bool:
        """Wait until the client has read; false when the connection has ended."""
        self._write_beginning()
        if self._is_full and self._is_open:
            self._writable = self._writable or self._loop.create_future()
            await asyncio.wait((self._writable,))  # a time-out must not cancel what others may wait for
        return self._is_open and not self._transport.is_closing()

    def end(self, abort_after_seconds: float) -> None:
        """Finish the response; cut the connection if that takes too long."""
        self._stream = None
        if self._is_open:
            self._write_beginning()
            if self._protocol is None and not self._transport.is_closing():
                with contextlib.suppress(RuntimeError):
                    self._transport.write(END_OF_RESPONSE)
                self._transport.close()
            self._loop.call_later(abort_after_seconds, self._transport.abort)
            self._close()

    # --- What the endpoint asks for --------------------------------------------------------------

    def has_gone(self) -> bool:
        """Whether there is no client any more."""
        return not self._is_open

    def begin(self, stream: Stream) -> None:
        """Take the connection over: the head of the response has been sent. `stream` hears when the client goes."""
        protocol, self._protocol = self._protocol, None
        if protocol is None or not self._is_open:
            stream.end("disconnected")
            return
        self._stream = stream
        self._beginning = []
        self._is_full = protocol.flow.write_paused
        self._connections.discard(protocol)
        self._connections.add(self)
        protocol.cycle.disconnected = True  # as far as uvicorn is concerned: its task may end before the response
        protocol.flow.resume_reading()
        protocol.let_go()
        self._transport.set_protocol(self)

    async def hold(self, receive: Receive) -> None:
        """Return at once: the stream needs nobody who waits for it."""

    # --- What uvloop and uvicorn say -------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Refuse whatever follows the request, but empty lines, which some clients add."""
        if data.strip(b"\r\n"):
            self.abort()

    def pause_writing(self) -> None:
        """Note that the client is behind."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Go on with what waited for the client."""
        self._is_full = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream at once: writing to a closed transport raises."""
        del exc
        self._connections.discard(self)
        self._close()

    def abort(self) -> None:
        """Cut the connection, and write nothing more."""
        self._transport.abort()
        self._close()

    def shutdown(self) -> None:
        """Do nothing: the drain ends streams, each in its turn."""

    def _write_beginning(self) -> None:
        # One system call, where a storm of reconnects would pay for four each.
        pieces, self._beginning = self._beginning, None
        if pieces:
            self.write(b"".join(pieces))

    def _close(self) -> None:
        self._is_open = False
        self._wake()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.end("disconnected")

    def _wake(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
