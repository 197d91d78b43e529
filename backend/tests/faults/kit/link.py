"""A TCP way between two programs of one machine that can do to them what networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Self

Direction = Literal["up", "down", "both"]  # up: from who dials to who is dialled
MAX_WAITING_BYTES = 256 * 1024
CLOSE_SECONDS = 5.0
STREAM_REQUEST = b"GET /api/v1/messages/stream"
REMEMBERED_BYTES = 40  # of what was let through before a cut


class Link:
    """Listens on a port of its own, or that it is given, and forwards to `target_port` on loopback.

    A fault hits every connection, present and future, that `only` picks; `heal` ends all faults.
    """

    def __init__(self, target_port: int, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.target_port = target_port
        self.host, self.port = host, port
        self.delay_seconds = 0.0
        self.only: Callable[[Pair], bool] = _every
        self.swallowed: list[bytes] = []  # whose replies `cut_before_reply_to` has thrown away
        self.spent: list[bytes] = []  # per cut of `cut_each_after`, the last bytes that were let through
        self.pairs: set[Pair] = set()
        self._frozen, self._swallowing, self._refuses = set[str](), set[str](), False
        self.awaited: bytes | None = None  # the request of `cut_before_reply_to`, until it comes
        self._budget: Callable[[], int] | None = None
        self._server: asyncio.Server | None = None
        self._dials: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._refuses = True
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*self._dials, return_exceptions=True)
                for pair in list(self.pairs):
                    pair.abort()
                    await pair.is_closed.wait()

    # --- Faults ----------------------------------------------------------------------------------

    def freeze(self, direction: Direction = "both") -> None:
        """Read nothing more: what is sent stays with its sender, and nobody hears of it. Nothing is lost."""
        self._frozen |= _ways(direction)
        self._tell_all()

    def swallow(self, direction: Direction = "both") -> None:
        """Read and throw away: the sender believes that it arrived."""
        self._swallowing |= _ways(direction)

    def cut(self) -> int:
        """Reset every connection that is there; gives how many."""
        hit = [pair for pair in self.pairs if self.only(pair)]
        for pair in hit:
            pair.abort()
        return len(hit)

    def refuse(self) -> None:
        """Reset every connection, and every new one at once."""
        self._refuses = True
        self.cut()

    def cut_before_reply_to(self, request: bytes) -> None:
        """Once a request that holds these bytes has been forwarded, throw its reply away and cut; once."""
        self.awaited = request

    def cut_each_after(self, budget: Callable[[], int] | None) -> None:
        """Let each new connection have that many bytes downwards, to the byte, and cut it then."""
        self._budget = budget

    def heal(self) -> None:
        """End all faults. A connection that lost bytes is cut: a network would never resume it either."""
        self._frozen, self._swallowing, self._refuses = set(), set(), False
        self.awaited, self._budget, self.only, self.delay_seconds = None, None, _every, 0.0
        for pair in list(self.pairs):
            if pair.has_lost:
                pair.abort()
        self._tell_all()

    # --- What a pair asks ------------------------------------------------------------------------

    def is_frozen(self, pair: Pair, way: str) -> bool:
        return way in self._frozen and self.only(pair)

    def is_swallowed(self, pair: Pair, way: str) -> bool:
        return way in self._swallowing and self.only(pair)

    def budget_for(self, pair: Pair) -> int | None:
        return self._budget() if self._budget is not None and self.only(pair) else None

    def doom_of(self, data: bytes) -> bytes | None:
        if self.awaited is None or self.awaited not in data:
            return None
        doom, self.awaited = self.awaited, None
        return doom

    def _accept(self) -> asyncio.Protocol:
        pair = Pair(self)
        task = asyncio.get_running_loop().create_task(self._dial(pair))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)
        return pair.near

    async def _dial(self, pair: Pair) -> None:
        if self._refuses and self.only(pair):
            await asyncio.sleep(0)  # until it is connected at all
            pair.abort()
            return
        try:
            await asyncio.get_running_loop().create_connection(lambda: pair.far, "127.0.0.1", self.target_port)
        except OSError:
            pair.abort()

    def _tell_all(self) -> None:
        for pair in self.pairs:
            pair.mind_flow()


class Pair:
    """One connection through a link: the near end was dialled, the far end dials."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.budget: int | None = None
        self.has_asked = False
        self.has_lost = False
        self.doomed_by: bytes | None = None
        self.is_subscriber = False  # a Redis connection that subscribes
        self.is_stream = False  # a client's connection that is an event stream
        self.is_closed = asyncio.Event()
        self.near, self.far = _End(self, "up"), _End(self, "down")
        self.near.peer, self.far.peer = self.far, self.near
        link.pairs.add(self)

    def mind_flow(self) -> None:
        for end in (self.near, self.far):
            end.mind_flow()

    def close(self) -> None:
        """End it in order and not by a reset, which would throw away what has not been read."""
        for end in (self.near, self.far):
            if end.transport is not None:
                end.transport.close()

    def abort(self) -> None:
        for end in (self.near, self.far):
            end.abort()
        if self.near.transport is None and self.far.transport is None:
            self.forget()

    def forget(self) -> None:
        self.link.pairs.discard(self)
        self.is_closed.set()


class _End(asyncio.Protocol):
    """One socket; what it reads, its peer writes."""

    def __init__(self, pair: Pair, way: str) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _End = self
        self._pair, self._way = pair, way
        self._waiting = b""
        self._late: deque[bytes] = deque()
        self._is_full = False
        self._has_ended = False
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._is_lost or self.peer._is_lost:
            transport.abort()
            return
        if self._waiting:
            transport.write(self._waiting)
            self._waiting = b""
        self._pair.mind_flow()

    def data_received(self, data: bytes) -> None:
        pair, link = self._pair, self._pair.link
        if self._way == "up":
            pair.is_subscriber = pair.is_subscriber or b"SUBSCRIBE\r\n" in data
            pair.is_stream = pair.is_stream or data.startswith(STREAM_REQUEST)
            if not pair.has_asked:
                pair.has_asked = True
                pair.budget = link.budget_for(pair)
            pair.doomed_by = pair.doomed_by or link.doom_of(data)
            pair.mind_flow()  # it may be of those that a fault is meant for only now
        elif pair.doomed_by is not None:
            link.swallowed.append(pair.doomed_by)
            pair.abort()
            return
        if link.is_swallowed(pair, self._way):
            pair.has_lost = True
        else:
            self._pass_on_in_time(data)

    def _pass_on_in_time(self, data: bytes) -> None:
        """Pass on bytes, or their end (none)."""
        delay_seconds = self._pair.link.delay_seconds
        if delay_seconds or self._late:
            self._late.append(data)
            asyncio.get_running_loop().call_later(delay_seconds, self._pass_on_oldest)
        else:
            self._pass_on(data)

    def _pass_on_oldest(self) -> None:
        # And not whatever was meant: a delay that has become shorter must not change the order.
        self._pass_on(self._late.popleft())

    def _pass_on(self, data: bytes) -> None:
        if not data:
            if self.peer.transport is not None and self.peer.transport.can_write_eof():
                with suppress(OSError):  # it has been reset, and does not know yet
                    self.peer.transport.write_eof()
            self._has_ended = True
            if self.peer._has_ended:
                self._pair.close()
            return
        pair = self._pair
        if self._way == "down" and pair.budget is not None:
            data, pair.budget = data[: pair.budget], pair.budget - len(data[: pair.budget])
        peer = self.peer
        if peer.transport is None:
            peer._waiting += data
            self.mind_flow()
        elif not peer.transport.is_closing():
            peer.transport.write(data)
        if pair.budget == 0:
            pair.link.spent.append(data[-REMEMBERED_BYTES:])
            pair.close()

    def eof_received(self) -> bool:
        self._pass_on_in_time(b"")
        return True

    def pause_writing(self) -> None:
        self._is_full = True
        self.peer.mind_flow()

    def resume_writing(self) -> None:
        self._is_full = False
        self.peer.mind_flow()

    def mind_flow(self) -> None:
        """Read or do not, by what the link and the other end allow."""
        if self.transport is None or self.transport.is_closing():
            return
        is_held = self.peer._is_full or len(self.peer._waiting) > MAX_WAITING_BYTES
        if is_held or self._pair.link.is_frozen(self._pair, self._way):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self.transport = None
        if self.peer._is_lost:
            self._pair.forget()
        elif exc is not None:
            self.peer.abort()
        elif self.peer.transport is not None:
            self.peer.transport.close()
        else:
            self.peer._is_lost = True
            self._pair.forget()

    def abort(self) -> None:
        if self.transport is None:
            self._is_lost = True
            return
        raw = self.transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def _every(_pair: Pair) -> bool:
    return True


def _ways(direction: Direction) -> set[str]:
    return {"up", "down"} if direction == "both" else {direction}
