"""100 missed messages, out of a small table and out of a large one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from app import events
from app.bench.latency import Latencies
from app.bench.plan import Profile
from app.bench.results import Chart, Line
from app.bench.tables import OTHER_READERS, fill_history
from app.bench.target import SkipError

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.results import ProfileResult
    from app.bench.streams import StreamRequest
    from app.bench.target import Target

MESSAGES: Final = 100
ASKERS: Final = 100
RATIO: Final = 1.2
ARRIVAL_SECONDS: Final = 10.0
SMALL_SERVER: Final = "server of the small table"


async def measure(run: Run, result: ProfileResult) -> None:
    """Two databases and two servers, asked in turn: what else the machine does falls on both."""
    if not run.stage.is_own:
        raise SkipError("fills a database with millions of messages: only with servers of its own")
    few, many = run.plan.size(50_000, 4_000), run.plan.size(5_000_000, 20_000)
    async with run.stage.server() as small, run.stage.server(is_fresh=True) as large:
        askers = ASKERS if not run.plan.quick else 10
        ask_small = await _prepare(run, small, rows=few, askers=askers)
        ask_large = await _prepare(run, large, rows=many, askers=askers)
        last: list[Line] = []
        for repeat in range(run.plan.repeats):
            run.progress.step(f"repeat {repeat + 1} of {run.plan.repeats}")
            meter = large.meter(**{SMALL_SERVER: small.pids["server"]})
            from_small, from_large = Latencies(), Latencies()
            deadline = time.perf_counter() + 2 * run.plan.seconds
            for one, other in zip(ask_small, ask_large, strict=True):
                from_small.add(await _catch_up(result, small, one))
                from_large.add(await _catch_up(result, large, other))
                if time.perf_counter() > deadline:
                    break
            result.add_cpu(meter.shares())
            ratio = from_large.percentile(50) / max(from_small.percentile(50), 1e-9)
            result.add("time, large table against small", "times", ratio, target=RATIO, less=True)
            result.add(f"{MESSAGES} messages out of {few:,}", "ms", from_small.percentile(50) * 1000, less=True)
            result.add(f"{MESSAGES} messages out of {many:,}", "ms", from_large.percentile(50) * 1000, less=True)
            last = [Line(f"out of {few:,}", from_small.curve()), Line(f"out of {many:,}", from_large.curve())]
    title = f"Opening a stream and receiving {MESSAGES} missed messages (last repeat)"
    result.charts = [Chart(title, "percentiles", "percentile", "ms", last)]


async def _prepare(run: Run, target: Target, *, rows: int, askers: int) -> list[StreamRequest]:
    """Fill the table; give the requests, each with the cursor before its first message."""
    users = target.user_ids(askers, "asker")
    (writer,), others = target.user_ids(1, "writer"), target.user_ids(OTHER_READERS, "other")
    await target.make_users([*users, writer, *others])
    connection = await target.database()
    try:
        await fill_history(
            connection,
            rows=rows,
            writer=writer,
            askers=users,
            others=others,
            each=MESSAGES,
            on_progress=run.progress.step,
        )
        epoch = await connection.fetchval("SELECT current_epoch()")
    finally:
        await connection.close()
    requests = target.stream_requests(users)
    return [
        replace(request, headers={**request.headers, "Last-Event-ID": f"{events.epoch_of(epoch, request.key)}.0"})
        for request in requests
    ]


async def _catch_up(result: ProfileResult, target: Target, request: StreamRequest) -> float:
    """Open one stream and receive what it missed; gives the seconds from connecting to the last event."""
    streams = target.streams()
    try:
        start = time.perf_counter()
        await streams.open([request])
        has_all = await streams.until(MESSAGES, timeout_seconds=ARRIVAL_SECONDS)
        seconds = time.perf_counter() - start
        faults = streams.tally.faults()
        faults["lost"] += 0 if has_all else MESSAGES - streams.tally.received - faults["lost"]
        result.add_faults(faults)
        result.checked += streams.tally.received
        return seconds
    finally:
        streams.close()


PROFILE: Final = Profile(
    "catchup",
    "Catching up out of a large table",
    "The same 100 missed messages, each on a page of its own, out of a table of 50 thousand and one of 5 million: one "
    "stream at a time, from connecting to the last of the 100 events, in turn on two servers with a database each.",
    measure,
)
