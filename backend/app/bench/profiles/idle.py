"""What streams cost at which nothing happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from app.bench.plan import Profile
from app.bench.procs import memory_bytes
from app.bench.results import Chart, Line
from app.bench.target import SkipError

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.results import ProfileResult
    from app.bench.target import Target

MEMORY_KB: Final = 8.0
CPU_PERCENT: Final = 5.0
HEARTBEAT_SECONDS: Final = 10.0  # the default of HEARTBEAT_SECONDS; the window is one of them, so every stream is in it
SETTLE_SECONDS: Final = 1.0
WARM_UP_STREAMS: Final = 100
STEPS: Final = (0.1, 0.25, 0.5, 0.75, 1.0)


async def measure(run: Run, result: ProfileResult) -> None:
    """A new server for every repeat: memory that was used once is not given back."""
    points: list[tuple[float, float]] = []
    for repeat in range(run.plan.repeats if run.stage.is_own else 1):
        async with run.stage.server() as target:
            if "server" not in target.pids:
                raise SkipError("needs a server of its own, or one that `gapless dev` runs in this folder")
            points = await _measure_once(run, result, target, repeat)
    result.charts = [
        Chart("Resident memory of the server", "line", "open streams", "MB", [Line("resident memory", points)]),
        Chart(
            "Processor time at rest",
            "bars",
            "repeat",
            "% of a core",
            [Line("server and PostgreSQL", list(enumerate(result.metrics[1].values, start=1)))],
            CPU_PERCENT,
        ),
    ]


async def _measure_once(run: Run, result: ProfileResult, target: Target, repeat: int) -> list[tuple[float, float]]:
    total = run.plan.size(10_000, 200)
    users = target.user_ids(total, f"idle{repeat}")
    await target.make_users(users)
    requests = target.stream_requests(users)
    pid = target.pids["server"]
    settle_seconds = 0.2 if run.plan.quick else SETTLE_SECONDS
    streams = target.streams()
    try:
        # What is loaded and cached by the first streams is not the price of the others.
        await streams.open(requests[: min(WARM_UP_STREAMS, total // 2)])
        streams.close()
        await asyncio.sleep(settle_seconds)
        before = memory_bytes(pid)
        points = [(0.0, before / 1e6)]
        for step in STEPS if not run.plan.quick else STEPS[-1:]:
            run.progress.step(f"repeat {repeat + 1}: opening {round(total * step):,} streams")
            await streams.open(requests[len(streams.subscribers) : round(total * step)])
            await asyncio.sleep(settle_seconds)
            points.append((total * step, memory_bytes(pid) / 1e6))
        per_stream = (memory_bytes(pid) - before) / total
        result.add(f"memory per idle stream, at {total:,}", "KB", per_stream / 1024, target=MEMORY_KB, less=True)
        run.progress.step(f"repeat {repeat + 1}: {total:,} streams at rest")
        seconds = HEARTBEAT_SECONDS if not run.plan.quick else run.plan.seconds
        beats, meter = streams.tally.heartbeats, target.meter()
        await asyncio.sleep(seconds)
        shares = meter.shares()
        beats = streams.tally.heartbeats - beats
        percent = 100 * (shares["server"] + shares.get("PostgreSQL", 0.0))
        result.add("processor at rest, PostgreSQL included", "% of a core", percent, target=CPU_PERCENT, less=True)
        result.add("heartbeats received", "/s", beats / seconds)
        result.add_cpu(shares)
        expected = total * seconds / HEARTBEAT_SECONDS
        if run.stage.is_own and not run.plan.quick and abs(beats - expected) > 0.1 * expected:
            result.errors.append(f"{beats:,} heartbeats came in {seconds:.0f} s, and not {expected:,.0f}.")
        result.checked += beats
        result.add_faults(streams.tally.faults())
    finally:
        streams.close()
    return points


PROFILE: Final = Profile(
    "idle",
    "Idle streams",
    "10,000 streams at which nothing happens: resident memory against a server without streams, and the processor "
    "time of heartbeats and head checks over one whole heartbeat interval.",
    measure,
)
