"""One message to everyone in a large group, all of them online."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.bench.latency import Latencies
from app.bench.messages import TO_ALL, Sender, time_arrivals
from app.bench.plan import Profile
from app.bench.results import Chart, Line
from app.bench.tables import make_group

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.posts import Posts
    from app.bench.results import ProfileResult
    from app.bench.streams import Streams
    from app.bench.target import Target

PAUSE_SECONDS: Final = 0.05
ARRIVAL_SECONDS: Final = 10.0


async def measure(run: Run, result: ProfileResult) -> None:
    """One message at a time: what is measured is the time of one, not how many."""
    sizes = ((20, 30.0, 2), (50, 200.0, 2)) if run.plan.quick else ((1000, 30.0, 20), (10_000, 200.0, 5))
    for size, goal_ms, messages in sizes:
        async with run.stage.server(max_group_members=max(1000, size)) as target:
            await _measure_size(run, result, target, size=size, goal_ms=goal_ms, messages=messages)


async def _measure_size(
    run: Run, result: ProfileResult, target: Target, *, size: int, goal_ms: float, messages: int
) -> None:
    users = target.user_ids(size, f"group{size}")
    await target.make_users(users)
    connection = await target.database()
    try:
        group_id = await make_group(connection, users[0], users[1:])
    finally:
        await connection.close()
    maker = Sender(target, users[0], conversation_id=group_id)
    with target.streams() as streams:
        run.progress.step(f"opening {size:,} streams")
        await streams.open(target.stream_requests(users))
        async with target.posts(1) as posts:
            group = _Group(result, streams, posts, maker, size)
            await group.send(2)  # to warm up
            arrivals = Latencies()
            for repeat in range(run.plan.repeats):
                run.progress.step(f"{size:,} members, repeat {repeat + 1} of {run.plan.repeats}")
                meter = target.meter()
                arrivals, whole = await group.send(messages)
                result.add_cpu(meter.shares())
                _note(result, f"{size:,} members", arrivals, whole, goal_ms=goal_ms)
        line = Line("all members", arrivals.curve())
        title = f"POST to event, {size:,} members (last repeat)"
        result.charts.append(Chart(title, "percentiles", "percentile", "ms", [line], goal_ms))
        faults = streams.tally.faults()
        faults["lost"] += max(0, group.sent * size - streams.tally.received - faults["lost"])
        result.add_faults(faults)
        result.checked += streams.tally.received


@dataclass(slots=True)
class _Group:
    """A group and its sender."""

    result: ProfileResult
    streams: Streams
    posts: Posts
    maker: Sender
    size: int
    sent: int = 0

    async def send(self, messages: int) -> tuple[Latencies, Latencies]:
        """Send one after the other; gives the times of all arrivals, and of the last one of each message."""
        arrivals, whole = Latencies(), Latencies()
        self.streams.on_piece = time_arrivals(arrivals)
        for _ in range(messages):
            start = time.perf_counter()
            done = await self.posts.closed_loop(lambda _: self.maker.request(TO_ALL), seconds=ARRIVAL_SECONDS, most=1)
            self.result.errors += done.errors
            self.sent += 1
            if not await self.streams.until(self.sent * self.size, timeout_seconds=ARRIVAL_SECONDS):
                break
            whole.add(time.perf_counter() - start)
            await asyncio.sleep(PAUSE_SECONDS)
        return arrivals, whole


def _note(result: ProfileResult, name: str, arrivals: Latencies, whole: Latencies, *, goal_ms: float) -> None:
    result.add(f"{name}: median from POST to event", "ms", arrivals.percentile(50) * 1000, target=goal_ms, less=True)
    result.add(f"{name}: p99 from POST to event", "ms", arrivals.percentile(99) * 1000, less=True)
    result.add(f"{name}: until the last has it, median", "ms", whole.percentile(50) * 1000, less=True)


PROFILE: Final = Profile(
    "group",
    "Large groups",
    "A group in which every member has an open stream, on one process. One message at a time, timed from the moment "
    "the request is written to the event on each of the streams.",
    measure,
)
