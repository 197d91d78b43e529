"""Redis publish helpers: frames → `PUBLISH user:{id}`. Nothing else in Gapless publishes.

What the caller may rely on: a call returns at once and never raises; frames leave in the order of the
calls. What it may not: that they arrive. A frame that cannot be published in time is counted and
forgotten, and every stream's head check finds what it said in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from app import events
from app.observability import log_defect, stats
from app.services.messaging import channels, redis_link

if TYPE_CHECKING:
    from datetime import datetime

MAX_AGE_SECONDS: Final = 1.0  # of a frame that has not been acknowledged; then the connection is given up
SLICE: Final = 256  # frames in one turn of the loop: everybody else waits for them
MAX_BACKLOG: Final = 50_000  # frames for later turns; past it everybody waits, and so whoever makes more of them
MAX_HELD_BYTES: Final = 8 * 1024 * 1024  # of frames waiting for an acknowledgement; past it new ones are lost

# One array of bulk strings (RESP): made for each frame, of lengths, channel and frame.
_COMMAND: Final = b"*3\r\n$7\r\n%b\r\n" % b"PUBLISH" + b"$%d\r\n%b\r\n$%d\r\n%b\r\n"

_log = structlog.get_logger(__name__)

# Who gets a numbered frame: pairs of (user id, that user's own seq or change number).
Numbered = Sequence[tuple[str, int]]
Addressed = tuple[bytes, bytes]  # a channel, and the frame for it


class Outlet(Protocol):
    """The port to Redis: `RedisOutlet`, or a list in unit tests."""

    def publish(self, channel: bytes, frame: bytes) -> None:
        """Queue one frame. Returns at once, never raises; the frame may be lost, never reordered."""


class Publisher:
    """Encodes an event once and addresses it to everyone concerned. Call it after the commit, never before."""

    def __init__(self, outlet: Outlet) -> None:
        """Publish through `outlet`."""
        self._outlet = outlet
        self._backlog: deque[tuple[Iterator[Addressed], int]] = deque()  # what did not fit in, and all after it
        self._waiting = 0  # frames in the backlog
        self._is_scheduled = False  # the next slice

    def new_message(self, message: events.Message, *, database_epoch: str, recipients: Numbered) -> None:
        """Announce a committed message; `recipients` holds each member's inbox seq of it."""
        body = events.message_body(message)
        frames = (
            (channels.of_user(user_id), events.message_frame(events.epoch_of(database_epoch, user_id), seq, body))
            for user_id, seq in recipients
        )
        self._publish(frames, len(recipients))

    def change(self, event: str, payload: object, *, recipients: Numbered) -> None:
        """Announce a committed, counted change; `recipients` holds each member's change number of it."""
        body = events.change_body(event, payload)
        frames = ((channels.of_user(user_id), events.change_frame(change, body)) for user_id, change in recipients)
        self._publish(frames, len(recipients))

    def change_per_reader(self, event: str, payloads: Mapping[str, object], *, recipients: Numbered) -> None:
        """Announce a counted change that each reader sees differently: `payloads` by user id."""
        frames = (
            (channels.of_user(user_id), events.change_frame(change, events.change_body(event, payloads[user_id])))
            for user_id, change in recipients
        )
        self._publish(frames, len(recipients))

    def ephemeral(self, event: str, payload: object, *, user_ids: Sequence[str]) -> None:
        """Announce what is true only now: typing, a read position, own settings."""
        self._publish_alike(events.ephemeral_frame(event, payload), user_ids)

    def close_streams(self, user_id: str, *, valid_after: datetime) -> None:
        """End every stream of a user whose token was issued at `valid_after` or before."""
        self._publish_alike(events.close_control(valid_after), [user_id])

    def read_again(self, user_ids: Sequence[str]) -> None:
        """Make every stream of these users read from PostgreSQL what it has not seen."""
        self._publish_alike(events.READ_CONTROL, user_ids)

    def probe(self, process_id: str, number: int) -> None:
        """Send a probe the way messages go: whether it arrives is the only proof that the way is open."""
        self._outlet.publish(channels.of_probe(process_id), events.PROBE_CONTROL + str(number).encode())

    def _publish_alike(self, frame: bytes, user_ids: Sequence[str]) -> None:
        self._publish(((channels.of_user(user_id), frame) for user_id in user_ids), len(user_ids))

    def _publish(self, frames: Iterator[Addressed], count: int) -> None:
        """Publish `count` frames in this turn of the loop, unless they are many or come after what still waits."""
        self._backlog.append((frames, count))
        self._waiting += count
        if len(self._backlog) == 1 or self._waiting > MAX_BACKLOG:
            self._publish_slice()

    def _publish_slice(self) -> None:
        room = SLICE if self._waiting <= MAX_BACKLOG else self._waiting
        while self._backlog:
            frames, count = self._backlog.popleft()
            published = min(room, count)
            try:
                for channel, frame in islice(frames, published):
                    self._outlet.publish(channel, frame)
            except Exception as error:  # noqa: BLE001 - it is committed, and the others are behind it
                log_defect("publish_failed", error)
                published = count
            self._waiting -= published
            room = max(0, room - published)
            if published < count:
                self._backlog.appendleft((frames, count - published))
                if not self._is_scheduled:
                    self._is_scheduled = True
                    # Behind this slice's flush and before its answers: `drained` of the outlet sees no pause.
                    asyncio.get_running_loop().call_soon(self._publish_later)
                return

    def _publish_later(self) -> None:
        self._is_scheduled = False
        self._publish_slice()


class _Held:
    """A command that Redis has not answered yet."""

    __slots__ = ("command", "is_retry", "since")

    def __init__(self, command: bytes) -> None:
        self.command = command
        self.since = time.monotonic()
        self.is_retry = False


class RedisOutlet:
    """The way out, on a connection of its own: pipelined, bounded in time and bytes, retried once.

    `on_trouble` is called when Redis leaves a publish unanswered: the connections that only listen
    would not notice.
    """

    def __init__(self, url: str, *, on_trouble: Callable[[], None] = lambda: None) -> None:
        """Take the URL; `run` connects and keeps the connection."""
        self._url = url
        self.on_trouble = on_trouble
        self._link: redis_link.RedisLink | None = None
        self._held: deque[_Held] = deque()  # written, unanswered
        self._unwritten: list[_Held] = []
        self._held_bytes = 0
        self._flush_scheduled = False
        self._said_refused = False
        self._lost = asyncio.Event()
        self._empty = asyncio.Event()

    def publish(self, channel: bytes, frame: bytes) -> None:
        """Queue one frame; it leaves with the others of this turn of the loop."""
        stats.publishes += 1
        if self._held_bytes > MAX_HELD_BYTES:
            stats.publishes_lost += 1
            return
        held = _Held(_COMMAND % (len(channel), channel, len(frame), frame))
        self._held_bytes += len(held.command)
        self._unwritten.append(held)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def drained(self, timeout_seconds: float) -> bool:
        """Wait until everything queued is answered or given up; whether that came in time."""
        deadline = time.monotonic() + timeout_seconds
        while self._held or self._unwritten:
            self._empty.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._empty.wait()
            except TimeoutError:
                return False
        return True

    async def run(self) -> None:
        """Keep a connection open until cancelled; give up what grows too old."""
        pause_seconds = 0.05
        try:
            while True:
                self._lost.clear()
                try:
                    self._link = await redis_link.open_link(
                        self._url, on_reply=self._on_reply, on_lost=self._lost.set, name="gapless-publisher"
                    )
                except Exception:  # noqa: BLE001 - whatever it is, frames grow old; the one that listens tells of it
                    self._give_up_old()
                    await asyncio.sleep(pause_seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
                    pause_seconds = min(1.0, pause_seconds * 2)
                    self._give_up_old()
                    continue
                pause_seconds = 0.05
                self._give_up_old()
                self._flush()
                await self._watch()
                self._link = None
                self._keep_for_retry()
        finally:
            if self._link is not None:
                self._link.abort()

    async def _watch(self) -> None:
        connected_at = time.monotonic()
        while not self._lost.is_set():
            waits_since = time.monotonic()
            try:
                async with asyncio.timeout(MAX_AGE_SECONDS / 4):
                    await self._lost.wait()
            except TimeoutError:
                if time.monotonic() - waits_since > MAX_AGE_SECONDS / 2:
                    continue  # this process was late itself: the answers may be there, and not read yet
                # What waited for the connection says nothing about how it answers.
                if self._held and time.monotonic() - max(self._held[0].since, connected_at) > MAX_AGE_SECONDS:
                    _log.warning("redis_publish_unanswered", frames=len(self._held))
                    if self._link is not None:
                        self._link.abort()  # before anything is given up: replies match commands by place
                    self.on_trouble()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._link is None or not self._unwritten:
            return
        self._link.write(b"".join([held.command for held in self._unwritten]))
        self._held.extend(self._unwritten)
        self._unwritten = []

    def _on_reply(self, reply: object) -> None:
        if not self._held:
            return
        held = self._held.popleft()
        self._held_bytes -= len(held.command)
        if isinstance(reply, Exception):
            stats.publishes_lost += 1
            if not self._said_refused:  # once per change, not once per frame
                self._said_refused = True
                _log.warning("redis_refused_publish", error=type(reply).__name__)
        else:
            self._said_refused = False
        if not self._held and not self._unwritten:
            self._empty.set()

    def _keep_for_retry(self) -> None:
        """Queue what was written and not answered once more: a frame that comes twice is a duplicate."""
        again = []
        for held in self._held:
            if held.is_retry:
                self._forget(held)
            else:
                held.is_retry = True
                again.append(held)
        self._held.clear()
        self._unwritten = [*again, *self._unwritten]
        self._give_up_old()

    def _give_up_old(self) -> None:
        oldest = time.monotonic() - MAX_AGE_SECONDS
        for held in (*self._held, *self._unwritten):
            if held.since < oldest:
                self._forget(held)
        self._held = deque(held for held in self._held if held.since >= oldest)
        self._unwritten = [held for held in self._unwritten if held.since >= oldest]
        if not self._held and not self._unwritten:
            self._empty.set()

    def _forget(self, held: _Held) -> None:
        stats.publishes_lost += 1
        self._held_bytes -= len(held.command)
