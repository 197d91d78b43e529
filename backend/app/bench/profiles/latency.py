"""From the POST to the event on the other user's stream, at a steady rate."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

from app.bench.latency import Latencies
from app.bench.messages import Sender, time_arrivals
from app.bench.plan import Profile
from app.bench.results import Chart, Line

if TYPE_CHECKING:
    from app.bench.plan import Run
    from app.bench.posts import PostResult
    from app.bench.results import ProfileResult

PER_SECOND: Final = 500
P50_MS: Final = 3.0
P99_MS: Final = 15.0
CONNECTIONS: Final = 64
STRIDE: Final = 7919  # prime, and no divisor of the number of users
ARRIVAL_SECONDS: Final = 5.0


async def measure(run: Run, result: ProfileResult) -> None:
    """Users write to each other in pairs; both have a stream, and the other one's event is timed."""
    async with run.stage.server() as target:
        users = target.user_ids(run.plan.size(2000, 40), "pair")
        per_second = run.plan.size(PER_SECOND, 100)
        await target.make_users(users)
        makers = [Sender(target, user, recipient_id=users[number ^ 1]) for number, user in enumerate(users)]
        turns = count()

        def next_request(_: int) -> bytes:
            # A stride that meets every user before any again.
            sender = next(turns) * STRIDE % len(users)
            return makers[sender].request(sender ^ 1)

        with target.streams() as streams:
            run.progress.step(f"opening {len(users):,} streams")
            await streams.open(target.stream_requests(users))
            async with target.posts(CONNECTIONS) as posts:
                run.progress.step("first messages")
                first = await posts.closed_loop(next_request, seconds=60, most=len(users))
                await target.analyze()
                result.errors += first.errors
                sent = first.answered - first.failed
                for repeat in range(run.plan.repeats):
                    run.progress.step(f"repeat {repeat + 1} of {run.plan.repeats}: {per_second} messages/s")
                    arrivals = Latencies()
                    streams.on_piece = time_arrivals(arrivals)
                    meter = target.meter()
                    done = await posts.open_loop(next_request, per_second=per_second, seconds=run.plan.seconds)
                    result.add_cpu(meter.shares())
                    sent += done.answered - done.failed
                    await streams.until(2 * sent, timeout_seconds=ARRIVAL_SECONDS)
                    _note(result, done, arrivals)
            faults = streams.tally.faults()
            faults["lost"] += max(0, 2 * sent - streams.tally.received - faults["lost"])
            result.add_faults(faults)
            result.checked += streams.tally.received


def _note(result: ProfileResult, done: PostResult, arrivals: Latencies) -> None:
    result.add("p50 from POST to event", "ms", arrivals.percentile(50) * 1000, target=P50_MS, less=True)
    result.add("p99 from POST to event", "ms", arrivals.percentile(99) * 1000, target=P99_MS, less=True)
    result.add("p99.9 from POST to event", "ms", arrivals.percentile(99.9) * 1000, less=True)
    result.add("p50 of the POST itself", "ms", done.latency.percentile(50) * 1000, less=True)
    result.add("rate that was kept", "/s", done.per_second)
    result.errors += done.errors
    if done.late:
        result.warnings.append(f"{done.late} requests found all {CONNECTIONS} connections busy and left late.")
    lines = [Line("POST to event", arrivals.curve()), Line("POST to its answer", done.latency.curve())]
    result.charts = [Chart("Latency (last repeat)", "percentiles", "percentile", "ms", lines, P99_MS)]


PROFILE: Final = Profile(
    "latency",
    "Latency at 500 messages/s",
    "2,000 users with a stream each write to each other in pairs, at random moments, 500 messages/s in all, whatever "
    "the answers take. Timed from the moment a request is written to the event on the other user's stream.",
    measure,
)
