"""One message to everyone in a large group, all of them online."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from app.bench.latency import Latencies
from app.bench.messages import TO_ALL, Sender, time_arrivals
from app.bench.plan import Profile
from app.bench.results import Chart, Line
from app.bench.tables import make_group

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.results import ProfileResult
    from app.bench.stage import Target

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
    streams, posts = target.streams(), await target.posts(1)
    try:
        group_id = await make_group(connection, users[0], users[1:])
        maker = Sender(target, users[0], conversation_id=group_id)
        run.progress.step(f"opening {size:,} streams")
        await streams.open(target.stream_requests(users))
        sent, arrivals = 0, Latencies()
        for repeat in range(-1, run.plan.repeats):
            run.progress.step(f"{size:,} members, repeat {max(0, repeat) + 1} of {run.plan.repeats}")
            arrivals, whole = Latencies(), Latencies()
            streams.on_piece = time_arrivals(arrivals)
            meter = target.meter()
            for _ in range(messages if repeat >= 0 else 2):  # the first time is for warming up
                start = time.perf_counter()
                done = await posts.closed_loop(lambda _: maker.request(TO_ALL), seconds=ARRIVAL_SECONDS, most=1)
                result.errors += done.errors
                sent += 1
                if not await streams.until(sent * size, timeout_seconds=ARRIVAL_SECONDS):
                    break
                whole.add(time.perf_counter() - start)
                await asyncio.sleep(PAUSE_SECONDS)
            if repeat < 0:
                continue
            name = f"{size:,} members"
            result.add(
                f"{name}: median from POST to event", "ms", arrivals.percentile(50) * 1000, target=goal_ms, less=True
            )
            result.add(f"{name}: p99 from POST to event", "ms", arrivals.percentile(99) * 1000, less=True)
            result.add(f"{name}: until the last has it, median", "ms", whole.percentile(50) * 1000, less=True)
            result.add_cpu(meter.shares())
        result.charts.append(
            Chart(
                f"POST to event, {size:,} members (last repeat)",
                "percentiles",
                "percentile",
                "ms",
                [Line("all members", arrivals.curve())],
                goal_ms,
            )
        )
        faults = streams.tally.faults()
        faults["lost"] += max(0, sent * size - streams.tally.received - faults["lost"])
        result.add_faults(faults)
        result.checked += streams.tally.received
    finally:
        posts.close()
        streams.close()
        await connection.close()


PROFILE: Final = Profile(
    "group",
    "Large groups",
    "A group in which every member has an open stream, on one process. One message at a time, timed from the moment "
    "the request is written to the event on each of the streams.",
    measure,
)
