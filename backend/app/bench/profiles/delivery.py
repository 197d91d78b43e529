"""From Redis to the sockets, as fast as it goes: what `fanout` and `broadcast` have in common.

Frames are published without being sent as messages, so the server's head check must be told of them: it asks
PostgreSQL for every stream's head, answers a seq beyond it with `resync`, and reads what stays undelivered for
250 ms from PostgreSQL, where it is not. So the heads are moved in steps, just before the frames of a step are
published, and a step is published when the last but one has arrived. Two steps of 40 ms keep the server busy and
stay far from the 250 ms.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from app import events
from app.bench import calibrate
from app.bench.publish import RedisFeed, redis_command
from app.bench.results import Chart, Line, rate
from app.services.messaging import channels

if TYPE_CHECKING:
    import asyncpg

    from app.bench.plan import Run
    from app.bench.results import ProfileResult
    from app.bench.streams import Streams
    from app.bench.target import Target

FRAME_BYTES: Final = 300  # on the wire, chunk header and all: what other servers are measured with
STEP_SECONDS: Final = 0.04
STEP_BYTES: Final = 24 * 1024  # to one stream: two of them stay below what a transport holds of a client that is behind
STEPS_IN_FLIGHT: Final = 2
ARRIVAL_SECONDS: Final = 5.0  # for a step; past it frames are lost
WARM_UP_SECONDS: Final = 1.0


@dataclass(slots=True)
class Inbox:
    """One user that is written to."""

    user_id: str
    channel: bytes
    epoch: str
    head: int
    body: bytes


@dataclass(slots=True)
class Pump:
    """Publishes to all inboxes in turn, and keeps the backlog bounded."""

    inboxes: Sequence[Inbox]
    streams: Streams
    streams_per_inbox: int
    feed: RedisFeed
    connection: asyncpg.Connection[asyncpg.Record]
    rounds: int = 1  # messages to each inbox in one step
    expected: int = 0
    timeline: list[tuple[float, float]] = field(default_factory=list)
    _steps: deque[tuple[float, int]] = field(default_factory=deque)

    async def run(self, seconds: float) -> bool:
        """Publish for so long and let everything arrive; false when something has not."""
        stop_at = time.perf_counter() + seconds
        while time.perf_counter() < stop_at:
            while len(self._steps) >= STEPS_IN_FLIGHT:
                if not await self._arrived():
                    return False
            await self._publish_step()
        return True

    async def settle(self) -> bool:
        """Wait for what is under way."""
        while self._steps:
            if not await self._arrived():
                return False
        await self.feed.settled()
        return True

    async def _publish_step(self) -> None:
        rounds = self.rounds
        await self.connection.execute(
            "UPDATE inbox_heads SET head = head + $2 WHERE user_id = ANY ($1)",
            [inbox.user_id for inbox in self.inboxes],
            rounds,
        )
        published = self.feed.write(self._commands(rounds))
        self.expected += published * self.streams_per_inbox
        self._steps.append((time.perf_counter(), self.expected))

    def _commands(self, rounds: int) -> Iterator[bytes]:
        # All inboxes in turn: that each stream gets its frames one by one is the expensive case, and the usual one.
        for _ in range(rounds):
            for inbox in self.inboxes:
                inbox.head += 1
                yield redis_command(inbox.channel, events.message_frame(inbox.epoch, inbox.head, inbox.body))

    async def _arrived(self) -> bool:
        started, total = self._steps.popleft()
        if not await self.streams.until(total, timeout_seconds=ARRIVAL_SECONDS):
            return False
        now = time.perf_counter()
        self.timeline.append((now, float(self.streams.tally.received)))
        # Both steps of the window were under way in this time: each took about half of it.
        took = (now - started) / STEPS_IN_FLIGHT
        wanted = self.rounds * STEP_SECONDS / max(took, 0.001)
        # A stream that is behind reads from PostgreSQL, where these messages are not.
        most = STEP_BYTES // len(events.message_frame("x" * 12, 10**9, self.inboxes[0].body))
        self.rounds = min(most, max(1, round((self.rounds + min(wanted, self.rounds * 2)) / 2)))
        return True


async def measure(
    run: Run, result: ProfileResult, target: Target, *, users: int, streams_per_user: int, goal: float
) -> None:
    """Open the streams, publish to them, and count."""
    user_ids = target.user_ids(users, result.name)
    connection = await target.database()
    feed = await RedisFeed.connect(target.redis())
    streams = target.streams()
    try:
        await target.make_users(user_ids)
        run.progress.step(f"opening {users * streams_per_user:,} streams")
        await streams.open([request for request in target.stream_requests(user_ids) for _ in range(streams_per_user)])
        owners = streams.subscribers[::streams_per_user]
        heads = [(owner.counter.epoch.decode(), owner.counter.last or 0) for owner in owners]
        inboxes = [
            Inbox(user, channels.of_user(user), epoch, head, _body(FRAME_BYTES, epoch, head))
            for user, (epoch, head) in zip(user_ids, heads, strict=True)
        ]
        pump = Pump(inboxes, streams, streams_per_user, feed, connection)
        await _measure(run, result, target, pump, goal=goal)
        result.checked += streams.tally.received
        result.add_faults(streams.tally.faults())
        missing = pump.expected - streams.tally.received - result.faults["lost"]
        result.add_faults({"lost": max(0, missing)})
        if feed.errors or feed.without_receiver:
            result.errors.append(f"Redis: {feed.without_receiver} publishes had no receiver; errors {feed.errors[:3]}")
    finally:
        streams.close()
        feed.close()
        await connection.close()


async def _measure(run: Run, result: ProfileResult, target: Target, pump: Pump, *, goal: float) -> None:
    tally = pump.streams.tally
    bare = None
    if target.cores is not None and not run.plan.quick:
        run.progress.step("bare writes, to compare with")
        bare = await calibrate.measure(target.cores, seconds=2.0)
    run.progress.step("warming up")
    pump.streams.read_in_bulk()
    is_well = await pump.run(min(WARM_UP_SECONDS, run.plan.seconds))
    for repeat in range(run.plan.repeats):
        if not is_well:
            break
        run.progress.step(f"repeat {repeat + 1} of {run.plan.repeats}: {tally.received:,} delivered")
        meter, start, before = target.meter(), time.perf_counter(), tally.received
        is_well = await pump.run(run.plan.seconds)
        seconds, delivered, shares = time.perf_counter() - start, tally.received - before, meter.shares()
        result.add("deliveries", "/s", delivered / seconds, target=goal)
        if bare:
            result.add("of what bare write() does here", "%", 100 * delivered / seconds / bare)
            result.add("bare write() of 300 bytes, one core", "/s", bare)
        if "server" in shares:
            result.add(
                "server time per delivery", "µs", shares["server"] * seconds / max(delivered, 1) * 1e6, less=True
            )
        result.add_cpu(shares)
    is_well = is_well and await pump.settle()
    if is_well and not run.plan.quick:
        await _measure_real_size(run, result, pump)
    _draw(result, pump.timeline)


async def _measure_real_size(run: Run, result: ProfileResult, pump: Pump) -> None:
    """Once more with what a message of 40 characters really is."""
    for inbox in pump.inboxes:
        inbox.body = _real_body(inbox.user_id)
    size = len(events.message_frame("x" * 12, pump.inboxes[0].head, pump.inboxes[0].body))
    run.progress.step(f"frames of {size} bytes")
    before, start = pump.streams.tally.received, time.perf_counter()
    if await pump.run(run.plan.seconds):
        delivered, seconds = pump.streams.tally.received - before, time.perf_counter() - start
        result.add(f"deliveries of a 40-character message ({size} bytes)", "/s", delivered / seconds)
        await pump.settle()


def _draw(result: ProfileResult, timeline: list[tuple[float, float]]) -> None:
    for metric in result.metrics[:1]:
        bars = Line("deliveries", list(enumerate(metric.values, start=1)))
        result.charts.append(Chart(f"{result.title}: deliveries/s", "bars", "repeat", "/s", [bars], metric.target))
    line = Line("delivered", rate(timeline, every_seconds=0.1))
    result.charts.append(Chart("Deliveries over time", "line", "seconds", "/s", [line]))


def _body(frame_bytes: int, epoch: str, head: int) -> bytes:
    """Make the body of a frame of so many bytes on the wire, in the form of the real one."""
    empty = events.change_body("new_message", {"content": ""})
    frame = events.message_frame(epoch, head + 100_000, empty)
    around = len(f"{frame_bytes:x}") + 4  # the chunk's size and its two line ends
    return events.change_body("new_message", {"content": "x" * (frame_bytes - len(frame) - around)})


def _real_body(user_id: str) -> bytes:
    person = events.Person(user_id, None, None)
    ids = [uuid4() for _ in range(3)]
    now = datetime.now(UTC)
    return events.message_body(
        events.Message(ids[0], ids[1], 12, 12, person, ids[2], "x" * 40, None, [], now, None, None)
    )
