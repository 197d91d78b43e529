"""What a stream is given: a wire to write to, and an owner."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from app.events import Frame, Run
    from app.inbox import FetchMessagesAfter
    from app.services.messaging.sse_stream import Stream

WIRE_EXTENSION: Final = "gapless.wire"  # under this name a server offers its wire in the ASGI scope


class Wire(Protocol):
    """The way to one client. What is written is delivered in order, or the connection ends."""

    def write(self, data: bytes, frame: Frame | Run | None = None) -> None:
        """Write the bytes of whole events; `frame` offers them encoded once for all receivers.

        Never raises and never waits. After `end` it does nothing.
        """

    def is_full(self) -> bool:
        """Whether more is unread than the transport likes to hold."""

    async def drained(self) -> bool:
        """Wait until it is not full; false when the connection has ended."""

    def end(self, abort_after_seconds: float) -> None:
        """Finish the response, and cut the connection if the client has not taken it by then."""


class StreamOwner(Protocol):
    """Who holds a stream: gives it what it needs, and takes it back when it ends."""

    @property
    def fetch_messages_after(self) -> FetchMessagesAfter:
        """How to read what was missed."""

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run a catch-up, and hold it until it ends."""

    def release(self, stream: Stream) -> None:
        """Take the stream out of the fan-out, at once."""
